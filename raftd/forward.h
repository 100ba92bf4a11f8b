/* forward - requests of this node's gateways that another member must answer, and other members' that we must.
 *
 * Ours are noted in a ring when they leave, or when they join our own log: where an answer goes, and in which term. The
 * oldest are forgotten when the ring is full; they then end by their gateway's timeout, as a lost message does.
 *
 *   proposal   PROPOSE -> FORWARD -> the leader's log; no answer: the RESULT comes from our own stored
 *   query      READ of the leader's store -> ASK -> SERVE there -> RESULT -> ASKED -> RESULT to the gateway
 *
 * When the leader of a later term is known, what is in the ring of earlier terms is told: queries can be sent again
 * (E_AGAIN); a proposal without a result is E_AMBIGUOUS until the gateway has asked a barrier read: nothing of an earlier
 * term enters the log behind the first entry of a later one, so what has no result by then never will have one. A FORWARD
 * therefore carries the term of the leader that it is for.
 *
 * When the connection to the leader breaks and the leader stays, what was sent on it has arrived or never will by the time the
 * next one is up; the leader's HELLO there says how long its log is then. When that much is committed here, the rest is
 * told as above: a barrier read then stands behind whatever of it entered the log. */
#ifndef RAFTD_FORWARD_H
#define RAFTD_FORWARD_H

#include "common/base.h"
#include "common/buf.h"

/* Proposals and queries that are remembered; a second's worth under load. */
#define FORWARD_RING 65536
/* Other members' queries that wait for our stored. */
#define FORWARD_ASKS 16384

struct raftd;
struct frame;
struct entry;
struct fr_result;
struct fr_hello;

struct forward_note {
    unsigned slot;
    bool query;
    uint64_t epoch; /* of the gateway's link: an answer to an earlier one's request finds nobody */
    uint64_t req, term;
    uint64_t member, way; /* to whom, on which connection (peers_way); 0: to our own log */
};

struct forward_ask {
    unsigned slot; /* a place of peer.c: TURN_PEER_SLOT + place */
    uint64_t member, tag;
};

struct forward {
    struct forward_note *notes; /* by tag % FORWARD_RING */
    uint64_t first, next;       /* tags that may still be told something: random at the start */
    struct forward_ask *asks;   /* by number % FORWARD_ASKS */
    uint64_t ask_next;
    uint64_t epochs[64]; /* by slot */
    struct {
        uint64_t tag; /* 0: none is awaited; else what is older, and was sent on an earlier way ... */
        uint64_t index, term; /* ... is told when this is committed, if nobody leads a later term before */
        uint64_t member, way;
    } fence;
    uint64_t forwarded, refused, told;
};

void forward_init(struct forward *f);
void forward_fini(struct forward *f);
void forward_gateway_up(struct raftd *d, unsigned slot);

/* Ours, on their way out (turn_ops, in.c). */
bool forward_propose(void *raftd, uint64_t leader, unsigned slot, uint64_t req, const struct entry *e);
void forward_proposed(void *raftd, unsigned slot, uint64_t req);
bool forward_read_index(void *raftd, uint64_t leader, uint64_t tag);
void forward_query(struct raftd *d, unsigned slot, uint64_t req, struct slice command);
void forward_status(struct raftd *d, unsigned slot, uint64_t req, uint64_t member);
void forward_new_leader(void *raftd);
void forward_reached(struct raftd *d, uint64_t member, const struct fr_hello *theirs); /* the stream of appends is up again */
void forward_run(struct raftd *d);                                                     /* at the end of a turn */

/* Others', answered. */
void forward_read_index_said(void *raftd, unsigned slot, uint64_t tag, uint64_t index, int err);
void forward_refuse(struct raftd *d, unsigned slot, uint64_t tag, int err);
void forward_serve(struct raftd *d, unsigned slot, uint64_t index, uint64_t tag, struct slice command);
int forward_result(struct raftd *d, const struct fr_result *f); /* of our stored */

/* A frame of another member, RAFT and ENTRY excepted. */
int forward_frame(struct raftd *d, uint64_t member, const struct frame *f);

#endif
