/* hand - the hand-over to stored: committed entries in order, with credit, and the reads between them.
 *
 *   applied <= handed        handed: last entry sent on the present link; applied: last one that stored reported
 *
 * stored away: nothing is sent, reads wait (bounded in count, bytes and time). stored back: handed is what its HELLO
 * says, so entries are sent again from there and none is left out; reads that it took with it are asked again by
 * the gateways. A read batch is all reads of one turn: they share one read index and one fate. Owned by turn.c. */
#ifndef RAFTD_HAND_H
#define RAFTD_HAND_H

#include <sys/queue.h>

#include "raftd/turn.h"

struct hand_read {
    unsigned slot;
    uint64_t req;
    size_t offset, len; /* of its command in the batch's bytes */
};

struct hand_batch {
    TAILQ_ENTRY(hand_batch) entry;
    uint64_t tag;
    uint64_t index; /* read index; UINT64_MAX: not confirmed yet */
    uint64_t since_ms;
    struct hand_read *reads;
    size_t count, cap;
    struct buf bytes;
};
TAILQ_HEAD(hand_batches, hand_batch);

/* What was sent in one go. */
struct hand_sent {
    uint64_t last;
    size_t bytes;
};
#define HAND_SENT_MAX 256 /* a power of two */

struct hand {
    struct raft *raft;
    const struct turn_ops *ops;
    void *arg;
    const struct turn_conf *conf;
    bool up, ever_up;
    uint64_t handed, applied;
    uint64_t room;                        /* what stored offered last */
    struct hand_sent sent[HAND_SENT_MAX]; /* ring: sent and not yet applied */
    size_t sent_head, sent_count, sent_bytes;

    struct hand_batch *gathering; /* of this turn; NULL: no read yet */
    struct hand_batches asked;    /* in order of tag: indexes rise */
    struct hand_batches unused;
    size_t wait_count, wait_bytes;
    uint64_t tag_last;
    uint64_t applies, reads, rounds, refused, slow;
};

void hand_init(struct hand *h, struct raft *raft, const struct turn_ops *ops, void *arg, const struct turn_conf *conf);
void hand_fini(struct hand *h);
void hand_up(struct hand *h, uint64_t applied);
void hand_down(struct hand *h);
void hand_applied(struct hand *h, uint64_t applied, uint64_t room);

void hand_read_add(struct hand *h, unsigned slot, uint64_t req, struct slice command, uint64_t now_ms);
/* The gathered batch wants an index: its tag for RAFT_EV_READ; 0: none gathered. */
uint64_t hand_ask(struct hand *h);
void hand_confirmed(struct hand *h, uint64_t tag, uint64_t index);
void hand_refused(struct hand *h, uint64_t tag, int err);
/* Refuses what waits since before `since_ms`. Returns the earliest since_ms of what still waits; UINT64_MAX: none. */
uint64_t hand_expire(struct hand *h, uint64_t now_ms);
void hand_run(struct hand *h, uint64_t now_ms); /* sends what may be sent */

#endif
