/* raft_read - linearizable reads without the log (thesis 6.4).
 *   waits:  first ... (asked for in rounds 7, 7, 8) ... new ... (to be asked for) ... count
 * A leader that has committed an entry of its term notes the commit index and asks all voters, by a beat with a
 * fresh id, whether it still leads. An answer to a later round confirms the earlier ones; every beat carries the
 * highest id, so a lost question needs no timer of its own. All reads that came since the last ready share a round.
 * Reads enter from raft_step and leave in the ready, in order. They die with the leadership that they trusted. */
#include "raftd/raft_int.h"
#include "raftd/mutant.h"

#include "common/err.h"

void raft_read_ask(struct raft *r, uint64_t tag)
{
    r->waits = raft_grow(r->waits, r->wait_count, &r->wait_cap, sizeof(*r->waits));
    r->waits[r->wait_count++] = (struct raft_wait){.tag = tag};
    r->flush = true;
}

void raft_read_flush(struct raft *r)
{
    if (r->wait_new == r->wait_count || !MUTATE(READ_BEFORE_NOOP, raft_is_settled(r), true))
        return;
    r->read_round += MUTATE(READ_ROUND_SHARED, 1, r->read_round == 0);
    for (; r->wait_new < r->wait_count; r->wait_new++) {
        r->waits[r->wait_new].round = r->read_round;
        r->waits[r->wait_new].index = r->commit;
    }
    for (size_t i = 0; i < r->peer_count; i++)
        if (raft_config_is_voter(&r->config, r->peers[i].id))
            r->peers[i].beat = true;
    raft_read_confirm(r); /* a quorum of one has answered already */
}

void raft_read_confirm(struct raft *r)
{
    uint64_t round = raft_lead_quorum(r, offsetof(struct raft_peer, read_acked), r->read_round);

    round = MUTATE(READ_WITHOUT_QUORUM, round, r->read_round);
    r->read_confirmed = MAX(r->read_confirmed, round);
}

void raft_read_drop(struct raft *r, int err)
{
    for (size_t i = r->wait_first; i < r->wait_count; i++)
        raft_refuse(r, r->waits[i].tag, true, err);
    r->wait_first = r->wait_new = r->wait_count = 0;
    r->read_confirmed = r->read_round;
}

/* Confirmed, and turn.c can hand its index on before it: both only rise along the queue. */
static bool first_is_ready(const struct raft *r)
{
    if (r->wait_first == r->wait_new)
        return false;
    const struct raft_wait *wait = &r->waits[r->wait_first];

    return wait->round <= r->read_confirmed && wait->index <= raft_handable(r);
}

bool raft_read_has_ready(const struct raft *r)
{
    return first_is_ready(r);
}

void raft_read_release(struct raft *r)
{
    struct raft_out *o = &r->out[r->out_pos];

    while (first_is_ready(r)) {
        const struct raft_wait *wait = &r->waits[r->wait_first++];

        o->reads = raft_grow(o->reads, o->read_count, &o->read_cap, sizeof(*o->reads));
        o->reads[o->read_count++] = (struct raft_read){.tag = wait->tag, .index = wait->index};
    }
    if (r->wait_first == r->wait_count) {
        r->wait_first = r->wait_new = r->wait_count = 0;
    } else if (r->wait_first >= 1024 && r->wait_first * 2 >= r->wait_count) {
        /* A queue that never runs empty must not grow forever: move it down once its front half is free. */
        for (size_t i = r->wait_first; i < r->wait_count; i++)
            r->waits[i - r->wait_first] = r->waits[i];
        r->wait_count -= r->wait_first;
        r->wait_new -= r->wait_first;
        r->wait_first = 0;
    }
}
