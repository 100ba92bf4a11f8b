/* raft_ready - the product: messages, entries, reads and refusals are collected here while events are stepped, and
 * given to turn.c, which does them in the order of raft.h. Two sets of arrays take turns: one fills while the caller
 * holds the other. Always: everything is told once; entries in a ready are references of the ready. */
#include "raftd/raft_int.h"
#include "raftd/mutant.h"

#include <stdlib.h>

#include "common/mem.h"

/* --- collecting ---------------------------------------------------------------------------------- */

void *raft_grow(void *items, size_t count, size_t *cap, size_t size)
{
    if (count < *cap)
        return items;
    *cap = *cap > 0 ? *cap * 2 : 16;
    return xrealloc(items, *cap * size);
}

struct raft_msg *raft_say(struct raft *r, bool late, enum raft_msg_type type, uint64_t to)
{
    struct raft_out *o = &r->out[r->out_pos];
    struct raft_msg *m;

    if (late) {
        o->late = raft_grow(o->late, o->late_count, &o->late_cap, sizeof(*o->late));
        m = &o->late[o->late_count++];
    } else {
        o->early = raft_grow(o->early, o->early_count, &o->early_cap, sizeof(*o->early));
        m = &o->early[o->early_count++];
    }
    *m = (struct raft_msg){.type = type, .from = r->conf.id, .to = to, .term = r->term};
    return m;
}

void raft_refuse(struct raft *r, uint64_t tag, bool is_read, int err)
{
    struct raft_out *o = &r->out[r->out_pos];

    o->refused = raft_grow(o->refused, o->refused_count, &o->refused_cap, sizeof(*o->refused));
    o->refused[o->refused_count++] = (struct raft_refused){.tag = tag, .is_read = is_read, .err = err};
}

static void out_reset(struct raft_out *o)
{
    for (size_t i = 0; i < o->sent_count; i++)
        entry_unref(o->sent[i]);
    for (size_t i = 0; i < o->entry_count; i++)
        entry_unref(o->entries[i]);
    o->early_count = o->late_count = o->sent_count = o->entry_count = o->read_count = o->refused_count = 0;
}

void raft_out_fini(struct raft_out *o)
{
    out_reset(o);
    free(o->early);
    free(o->late);
    free(o->sent);
    free(o->entries);
    free(o->reads);
    free(o->refused);
}

/* --- is there any? ---------------------------------------------------------------------------- */

static struct raft_soft soft_now(const struct raft *r)
{
    return (struct raft_soft){
        .role = r->role, .leader = r->leader, .term = r->term, .conf_seq = r->conf_seq, .settled = raft_is_settled(r)};
}

static bool soft_is_news(const struct raft *r)
{
    struct raft_soft now = soft_now(r), told = r->told_soft;

    return now.role != told.role || now.leader != told.leader || now.term != told.term ||
           now.conf_seq != told.conf_seq || now.settled != told.settled;
}

static bool hard_is_news(const struct raft *r)
{
    return r->term != r->told_term || r->vote != r->told_vote || r->log.truncate_from > 0 ||
           r->log_replaced;
}

static uint64_t deadline(const struct raft *r)
{
    return r->role == RAFT_LEADER ? raft_lead_deadline(r) : r->election_at_ms;
}

bool raft_has_ready(const struct raft *r)
{
    const struct raft_out *o = &r->out[r->out_pos];

    return r->flush || o->early_count > 0 || o->late_count > 0 || o->refused_count > 0 ||
           r->log.offered < r->log.last || hard_is_news(r) || raft_handable(r) != r->told_commit ||
           raft_read_has_ready(r) || r->drop_below != r->told_drop || soft_is_news(r) ||
           /* The deadline that the caller knows has passed and is no longer ours: else it would tick in a circle. */
           (r->now_ms >= r->told_deadline_ms && deadline(r) != r->told_deadline_ms);
}

/* --- taking it ---------------------------------------------------------------------------------- */

static void ready_hard(struct raft *r, struct raft_ready *ready)
{
    /* A truncation counts as a change of hard state, so that reports can be told to be older or younger than it. */
    ready->hard_changed = hard_is_news(r);
    ready->truncate_from = r->log.truncate_from;
    r->log.truncate_from = 0;
    if (ready->hard_changed) {
        r->hard_seq++;
        r->told_term = r->term;
        r->told_vote = r->vote;
    }
    if (ready->truncate_from > 0 || r->log_replaced)
        r->truncate_seq = r->hard_seq;
    r->log_replaced = false;
    ready->term = r->term;
    ready->vote = MUTATE(VOTE_NOT_PERSISTED, r->vote, RAFT_NONE);
    ready->hard_seq = r->hard_seq;
}

static void ready_entries(struct raft *r, struct raft_out *o)
{
    while (r->log.offered < r->log.last) {
        bool from_storage;

        o->entries = raft_grow(o->entries, o->entry_count, &o->entry_cap, sizeof(*o->entries));
        int count = raft_log_slice(&r->log, r->log.offered + 1, r->log.last, SIZE_MAX, o->entries + o->entry_count,
                                   o->entry_cap - o->entry_count, &from_storage);

        must(count > 0 && !from_storage); /* what was never handed out cannot have left memory */
        o->entry_count += (size_t)count;
        r->log.offered += (uint64_t)count;
    }
}

/* Messages of `early` took their entries from `sent` in the same order; it has stopped moving now. */
static void ready_messages(struct raft_out *o)
{
    size_t next = 0; /* in sent, which is NULL while nothing was ever sent */

    for (size_t i = 0; i < o->early_count; i++) {
        o->early[i].entries = o->early[i].entry_count > 0 ? &o->sent[next] : NULL;
        next += o->early[i].entry_count;
    }
    must(next == o->sent_count);
}

void raft_ready(struct raft *r, struct raft_ready *ready)
{
    struct raft_out *o = &r->out[r->out_pos];

    must(!r->stepping);
    out_reset(&r->out[1 - r->out_pos]); /* the caller is done with it */
    if (r->flush)
        raft_lead_flush(r);
    raft_read_release(r);

    *ready = (struct raft_ready){0};
    ready_hard(r, ready);
    ready_entries(r, o);
    ready_messages(o);
    ready->entries = o->entries;
    ready->entry_count = o->entry_count;
    ready->early = o->early;
    ready->early_count = o->early_count;
    ready->late = o->late;
    ready->late_count = o->late_count;
    ready->commit = r->told_commit = raft_handable(r);
    ready->reads = o->reads;
    ready->read_count = o->read_count;
    ready->refused = o->refused;
    ready->refused_count = o->refused_count;
    ready->soft_changed = soft_is_news(r);
    r->told_soft = soft_now(r);
    ready->deadline_ms = r->told_deadline_ms = deadline(r);
    ready->drop_below = r->drop_below != r->told_drop ? r->drop_below : 0;
    r->told_drop = r->drop_below;
    r->out_pos = 1 - r->out_pos;
}

int raft_committed(struct raft *r, uint64_t after, size_t bytes_max, struct entry **out, size_t out_max)
{
    bool from_storage;
    uint64_t to = raft_handable(r);

    r->handed = MIN(after, r->commit);
    if (after >= to)
        return 0;
    return raft_log_slice(&r->log, after + 1, to, bytes_max, out, out_max, &from_storage);
}
