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
    uint64_t again_ms; /* without an index by then, it is asked for again; UINT64_MAX: the core will tell */
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
    struct hand_batches asked;    /* in the order in which they came */
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
/* A batch that wants an index now: a fresh tag for it; 0: none does. To be called until it is 0. It is due again at
 * again_ms, hand_again, or hand_leader_changed. */
uint64_t hand_ask(struct hand *h, uint64_t now_ms, uint64_t again_ms);
uint64_t hand_ask_ms(const struct hand *h);                        /* when the next one is due; UINT64_MAX: none */
void hand_again(struct hand *h, uint64_t tag, uint64_t now_ms);   /* no index came of it: again, in a moment */
void hand_leader_changed(struct hand *h);                          /* what the old one was asked for is due */
void hand_confirmed(struct hand *h, uint64_t tag, uint64_t index);
void hand_refused(struct hand *h, uint64_t tag, int err);
/* Refuses what waits since before `since_ms`. Returns the earliest since_ms of what still waits; UINT64_MAX: none. */
uint64_t hand_expire(struct hand *h, uint64_t now_ms);
void hand_run(struct hand *h, uint64_t now_ms); /* sends what may be sent */

#endif
