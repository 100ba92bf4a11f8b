/* pending - requests on their way round the ring: id -> who waits, until when, and the bytes to send again.
 *
 * An entry is born with a command (or a STATUS) and dies with its last answer, its timeout, or its owner. Between
 * the two it survives restarts of both siblings; the rules are in retry.c.
 * Holds at all times: an entry is in the slot that the low bits of its req and wire name, so finding it is an array access; the
 * list is in the order of deadlines (nearly all requests wait equally long, so a new one goes to its end). */
#ifndef GATEWAYD_PENDING_H
#define GATEWAYD_PENDING_H

#include "common/buf.h"
#include "common/limits.h"
#include "gatewayd/identity.h"
#include "proto/command.h"

struct gatewayd;

/* The answer to one request, or a part of it. Borrowed. */
struct answer {
    uint64_t req;
    int err;           /* 0 or a code of err.h; then it is the last the owner hears */
    struct slice text; /* replaces the err's own text when not empty */
    struct slice body; /* the API's response message, or this part of it */
    uint64_t total;    /* bytes of the whole message */
    uint64_t member;   /* VIA_CHANGE: whom the change was about; there is no body */
    bool is_read;      /* nothing was changed for it */
    bool first;        /* the first part */
    bool more;         /* not the last part: pending_more asks for the next one */
};
/* Called once, or once per part while `more`. After the last call the entry is gone. Never called from within the
 * function that made the request. */
typedef void answer_cb(void *arg, const struct answer *a);

/* How a request travels. */
enum pending_via {
    VIA_PROPOSE, /* raftd, log, stored: may change something, is never sent twice without proof */
    VIA_READ,    /* raftd (read index), stored: may be sent again */
    VIA_QUERY,   /* stored: may be sent again */
    VIA_CHANGE,  /* raftd: a change of membership, or of leadership; never sent twice */
    VIA_STATUS,  /* raftd, or stored alone while raftd is away: may be sent again */
};

struct pending {
    uint64_t req;  /* the owner's handle; 0: the slot is free */
    uint64_t wire; /* its name in frames: another one each time it is sent again, so that late answers find nobody */
    enum pending_via via;
    answer_cb *cb;
    void *arg;
    struct buf command; /* encoded command.h envelope; CHANGE: peer URLs; empty for STATUS */
    uint64_t origin;    /* member id in it */
    uint64_t what;      /* STATUS: enum status_what; CHANGE: enum member_op, or 0 to move the leadership */
    uint64_t member;    /* CHANGE: its id; STATUS: whose, 0: our own */
    bool is_secret;     /* command holds a password: wiped when it is not needed */
    bool checking;      /* CHANGE: stored is being asked first whether the user may, by a QUERY */
    struct buf change;  /* its peer URLs meanwhile */
    bool of_leader;     /* READ: only the leader's stored can answer */
    uint64_t deadline_ms;
    /* What has become of it. */
    bool sent;               /* handed to a link that was up */
    bool started;            /* at least one part came: cannot be asked again */
    bool ambiguous;          /* proposed to a raftd, or a leader, that is gone; waits for the barrier's proof */
    bool of_old_leader;      /* ambiguous because its leader is gone: a restart of raftd makes it no worse */
    uint64_t round;          /* of barriers, that it waits for */
    uint64_t raftd_instance; /* it was sent to, if sent */
    uint64_t sent_term;      /* of the leader that was known then; 0: none was */
    uint64_t stored_session; /* of our link to stored when it was sent */
    int doomed;              /* err to end with, once the list is walked through */
    uint32_t slot;           /* position in the slab */
    bool listed;
    struct pending *prev, *next; /* by deadline, if listed; free slots: next only */
};

struct pending_table {
    struct pending **slots; /* grows in blocks, never shrinks: entries do not move */
    uint32_t slot_count;
    struct pending *free_list;
    struct pending *first, *last;
    size_t count;
    size_t bytes;      /* of kept commands */
    uint64_t next_seq; /* high bits of the next req */
};

void pending_init(struct pending_table *t);
void pending_fini(struct pending_table *t);
/* A new entry with a fresh req and an empty command. NULL when PENDING_REQUESTS_MAX wait or PENDING_BYTES_MAX are kept. */
struct pending *pending_new(struct pending_table *t, enum pending_via via, answer_cb *cb, void *arg, uint64_t deadline_ms);
struct pending *pending_find(struct pending_table *t, uint64_t req); /* NULL: answered, timed out, cancelled */
struct pending *pending_find_wire(struct pending_table *t, uint64_t wire);
void pending_rename(struct pending_table *t, struct pending *p); /* another wire name */
/* Takes it off the list of deadlines (it waits for its client, not for the ring), or puts it in at another one. */
void pending_unlist(struct pending_table *t, struct pending *p);
void pending_list(struct pending_table *t, struct pending *p, uint64_t deadline_ms);
void pending_keep(struct pending_table *t, struct pending *p, const struct command *command); /* encodes it into the entry */
void pending_free(struct pending_table *t, struct pending *p);
uint64_t pending_next_ms(const struct pending_table *t); /* first deadline; UINT64_MAX: none */

/* --- with the gateway: make, end, continue (retry.c) --- */

/* Sends a command of who's on its way. who and body are copied. 0, or E_REQUEST_TOO_MANY_REQUESTS, E_REQUEST_TOO_LARGE; then cb is never
 * called. *req may be NULL. */
int pending_command(struct gatewayd *g, const struct identity *who, enum pending_via via, enum command_kind kind, struct slice body,
    answer_cb *cb, void *arg, uint64_t *req);
/* member: whose; 0: this node's own. */
int pending_status(struct gatewayd *g, uint64_t what, uint64_t member, answer_cb *cb, void *arg, uint64_t *req);
/* op 0: moves the leadership to the member. peer_urls (comma list) is copied. With auth on stored is asked first whether who is root. */
int pending_change(struct gatewayd *g, const struct identity *who, uint64_t op, uint64_t member, struct slice peer_urls, answer_cb *cb, void *arg, uint64_t *req);
/* Asks for the next part, after an answer with `more`. */
void pending_more(struct gatewayd *g, uint64_t req);
/* The owner went away: cb is not called any more. Fine for a req that is gone. (What was proposed still happens.) */
void pending_cancel(struct gatewayd *g, uint64_t req);
/* Everything whose deadline has passed gets E_TIMEOUT. */
void pending_expire(struct gatewayd *g, uint64_t now_ms);

#endif
