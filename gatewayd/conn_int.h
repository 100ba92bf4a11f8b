/* conn_int - what server.c, listener.c, conn.c and conn_tls.c share: the server, its listeners, one connection.
 *
 *   accepted --(TLS: bytes)--> WAITING --a place--> HANDSHAKING --(worker)--> READY --first bytes--> a protocol --> closed
 *          \\--(plain)-------------------------------------------------------/
 *
 * A connection without a protocol is half-open: it has a deadline, and the oldest of them makes room when there are too many. */
#ifndef GATEWAYD_CONN_INT_H
#define GATEWAYD_CONN_INT_H

#include <sys/queue.h>

#include <uv.h>
#undef MIN /* libuv brings sys/param.h's, base.h has the same */
#undef MAX

#include "common/limits.h"
#include "common/log.h"
#include "common/tls.h"
#include "gatewayd/conn.h"
#include "gatewayd/rate.h"

#define LISTENERS_MAX 32
#define PREFACE_BYTES ((size_t)24)

/* A socket of TCP or of the file system. */
union socket {
    uv_handle_t handle;
    uv_stream_t stream;
    uv_tcp_t tcp;
    uv_pipe_t pipe;
};

struct listener {
    struct server *server;
    union socket socket;
    unsigned serves; /* SERVES_... */
    bool is_tls;
    bool is_unix;
};

enum conn_tls_state {
    CONN_TLS_NONE,    /* a listener without TLS */
    CONN_TLS_WAITING, /* no place for the handshake yet; or nothing was received */
    CONN_TLS_HANDSHAKING,
    CONN_TLS_READY,
};

struct conn {
    struct server *server;
    LIST_ENTRY(conn) entry;
    TAILQ_ENTRY(conn) half_open_entry; /* while protocol == NULL */
    TAILQ_ENTRY(conn) handshake_entry; /* in the server's waiting, handshakes or jobs */
    LIST_ENTRY(conn) resting_entry;
    struct conn *dirty_next;
    struct client client;
    struct rate rate; /* client.rate */
    union socket socket;
    uv_write_t write_request;
    const struct protocol *protocol; /* NULL: not yet known */
    void *self;                      /* the protocol's */
    struct deadline tick;
    struct buf out;        /* what uv_write is writing; counted in gatewayd.outbound_bytes */
    uint64_t moved_ms;     /* when the socket last took of it */
    size_t unwritten;      /* what it had not taken then */
    unsigned holds;        /* of libuv's handle, and of a job at work; freed with the last */
    uint8_t first[PREFACE_BYTES];
    uint8_t first_len;
    bool writing;
    bool dirty;    /* in the server's list */
    bool flushing; /* conn_flush is at work: it sees by itself what is new */
    bool closing;
    bool reading;
    bool resting; /* in the server's list: not read from before the next turn */
    bool input_ended;
    /* --- TLS: conn_tls.c --- */
    enum conn_tls_state tls_state;
    struct tls *tls;          /* from HANDSHAKING on */
    struct buf hello;         /* WAITING: what was received */
    uint64_t handshake_ms;    /* HANDSHAKING: since when the client is to say something */
    size_t handshake_bytes;   /* received so far */
    TAILQ_HEAD(conn_queue, conn) *queue; /* where handshake_entry is; NULL: nowhere */
    int job_err;              /* what the job said */
    bool job_running;
};

struct server {
    struct gatewayd *gateway;
    struct listener listeners[LISTENERS_MAX];
    size_t listener_count;
    LIST_HEAD(conns, conn) conns;
    size_t conn_count, conn_max;
    struct conn_queue half_open; /* oldest first */
    size_t half_open_count;
    LIST_HEAD(resting, conn) resting;
    struct conn *dirty;
    struct buf scratch;     /* one write, plain */
    struct buf cipher;      /* the same, encrypted */
    struct buf plain;       /* one read, decrypted */
    uint8_t *read_bytes;
    struct loop_wake *again; /* a connection was not finished within its share of the turn */
    struct log_limit refused, rejected;
    bool stopping;
    /* --- TLS --- */
    struct tls_context *tls;
    struct conn_queue waiting;    /* for a place among the handshakes */
    struct conn_queue handshakes; /* wait for the client, since handshake_ms */
    struct conn_queue jobs;       /* wait for a worker */
    size_t handshake_count;       /* connections with a struct tls that is not READY */
    size_t jobs_running;
    struct deadline patience;     /* looks at handshakes when others wait for their place */
};

/* --- listener.c --- */
void listeners_open(struct server *s); /* all of conf's; fatal if one cannot be */
void listeners_close(struct server *s);

/* --- conn.c --- */
void conn_accept(struct listener *l);
void conn_close(struct conn *c);
void conn_unhold(struct conn *c);
void conn_wants_write(void *arg);
void conn_flush(struct conn *c);
void conn_set_reading(struct conn *c, bool reading);
/* Plain bytes of the client. */
void conn_receive(struct conn *c, struct slice bytes);
void conn_rested(struct conn *c); /* the turn is over */
void conn_ended(struct conn *c); /* the client sends no more */
int conn_write(struct conn *c, struct slice bytes); /* to the socket; not while c->writing */

/* --- conn_tls.c --- */
void conn_tls_setup(struct server *s); /* fatal if the files are no good */
void conn_tls_stop(struct server *s);  /* after all connections were closed */
void conn_tls_begin(struct conn *c);   /* of a listener with TLS: nothing received yet */
void conn_tls_receive(struct conn *c, struct slice bytes);
void conn_tls_forget(struct conn *c); /* c is being closed */
void conn_tls_fini(struct conn *c);   /* c is being freed */
int conn_tls_write(struct conn *c, struct slice plain, struct buf *cipher); /* plain may be empty: what TLS itself has to say */

/* --- server.c --- */
void server_dirty_remove(struct conn *c);

#endif
