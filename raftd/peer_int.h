/* peer_int - what peer.c (members, dialling, what is sent) and peer_conn.c (one connection's bytes) share. */
#ifndef RAFTD_PEER_INT_H
#define RAFTD_PEER_INT_H

#include <sys/queue.h>

#include <uv.h>
#undef MIN /* libuv brings sys/param.h's, base.h has the same */
#undef MAX

#include "common/backoff.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/tls.h"
#include "raftd/peer.h"

/* Accepted connections, those that have not said HELLO included. More are closed at once. */
#define PEER_ACCEPTED_MAX 256
/* How long a connection may take until HELLO. One that we dialled: two election timeouts, within these. */
#define PEER_HELLO_MS_MAX 5000
#define PEER_HELLO_MS_MIN 1000
/* A dialled one must be connected within an election timeout: a handshake that a broken network swallowed would be repeated
 * by the kernel only after one, three, seven seconds. */
#define PEER_CONNECT_MS_MIN 100
#define PEER_CONNECT_MS_MAX 2000
/* An attempt that is older than this is given up when the member itself is heard again. */
#define PEER_CONNECT_FRESH_MS 50
/* A HELLO's message is about 60 bytes. */
#define PEER_HELLO_BYTES_MAX 512
#define PEER_LISTENERS_MAX 16

enum peer_conn_state { PEER_CONN_OPENING, PEER_CONN_TLS, PEER_CONN_HELLO, PEER_CONN_GUEST, PEER_CONN_UP, PEER_CONN_CLOSED };

struct peer_conn {
    LIST_ENTRY(peer_conn) entry;
    struct peers *peers;
    struct peer *peer; /* NULL: accepted, and not yet introduced */
    unsigned stream;
    bool dialled;
    enum peer_conn_state state;
    uint64_t deadline_ms; /* until UP: give up */
    uint64_t heard_ms, ping_ms;
    uint64_t up_ms;
    uint64_t number; /* connections are counted */

    uv_tcp_t tcp;
    bool tcp_open; /* tcp is a handle of the loop */
    uv_connect_t connect;
    uv_getaddrinfo_t resolve;
    bool resolving;
    uv_write_t write;
    bool writing;
    unsigned holds; /* of libuv: memory goes with the last */
    struct tls *tls;
    char address[80]; /* of the other end, for logs and for the check of its certificate */

    struct buf in;      /* plain bytes, not yet a whole message */
    struct buf out;     /* messages, plain */
    size_t open_at;     /* of the message in `out` that is being filled; SIZE_MAX: none */
    struct buf sending; /* what libuv is writing */
};

struct peer_target {
    bool tls;
    char *host;
    uint16_t port;
};

/* Everything about one other member. */
struct peer {
    uint64_t id; /* RAFT_NONE: the place is free */
    char *urls;
    struct peer_target *targets;
    size_t target_count;
    struct {
        struct peer_conn *dialled, *accepted;
        uint64_t dial_ms; /* not before */
        size_t attempts;
        struct backoff backoff;
    } streams[PEER_STREAMS];
    bool lost, gone;
    bool refused; /* nobody listens where it is said to be; until it is heard again */
    uint64_t instance; /* of the process that was last heard; 0: none, or it has ended */
    struct log_limit limit;
    /* What /metrics tells. */
    uint64_t sent_bytes, received_bytes, sent_failures, received_failures, downs;
    struct histogram round_trip;
};

struct peer_listener {
    uv_tcp_t tcp; /* first: it is freed by what libuv closes */
    struct peers *peers;
    bool tls;
};

struct peers {
    struct loop *loop;
    struct peers_conf conf;
    const struct peers_ops *ops;
    void *arg;
    struct rand rand;
    struct loop_timer *timer;
    uint64_t ping_ms, dead_ms, connect_ms, hello_ms, dial_ms_max;
    uint64_t conn_count; /* ever */
    struct peer list[PEERS_MAX];
    LIST_HEAD(, peer_conn) conns;
    size_t accepted_count;
    bool told_members; /* peers_set was called with at least one member */
    struct peer_conn *open; /* between peers_begin and peers_end */

    struct peer_listener *listeners[PEER_LISTENERS_MAX];
    size_t listener_count;
    struct tls_context *tls_server, *tls_client;
    uint8_t *read_bytes;
    struct log_limit refused_limit;
    bool ending;
};

/* peer_conn.c */
void peer_conn_dial(struct peers *p, struct peer *peer, unsigned stream, const struct peer_target *to);
void peer_conn_accept(struct peers *p, uv_stream_t *listener, bool tls);
void peer_conn_close(struct peer_conn *c, const char *why); /* why: for the log, NULL: it is not worth a line */
void peer_conn_open_message(struct peer_conn *c);           /* room for frames at the end of c->out */
void peer_conn_flush(struct peer_conn *c);
void peer_conn_tick(struct peer_conn *c, uint64_t now_ms);

/* peer.c: what connections tell */
bool peers_is_guest(const struct peer_conn *c, const struct fr_hello *hello, bool *removed);
int peers_hello(struct peer_conn *c, const struct fr_hello *hello); /* is it good? sets c->peer */
void peers_conn_up(struct peer_conn *c, const struct fr_hello *theirs);
void peers_conn_refused(struct peer_conn *c); /* nobody listens there */
void peers_conn_gone(struct peer_conn *c);
struct peer *peers_find(const struct peers *p, uint64_t member);

#endif
