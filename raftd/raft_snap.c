/* raft_snap - followers that need what the log no longer has, and how far the log may go.
 * The core only says that a snapshot is needed (a SNAP message in `early`); turn.c streams it from stored and reports
 * RAFT_EV_SNAP_SENT. While that lasts the follower gets beats and nothing else. The receiver's core is told
 * RAFT_EV_SNAP_LOADED, and the probe that follows finds the snapshot's end there. */
#include "raftd/raft_int.h"
#include "raftd/mutant.h"

#include <string.h>

/* A follower that answers keeps the log from being dropped above what it has, up to this many times keep_entries: else
 * a snapshot that takes its time would be followed by the next one. */
#define RAFT_PIN_TIMES 100
/* ... and if it was heard of within this many election timeouts. */
#define RAFT_PIN_TIMEOUTS 10

void raft_snap_need(struct raft *r, struct raft_peer *p)
{
    if (r->now_ms - p->heard_ms >= r->conf.election_ms) {
        p->waits = true; /* nobody there to take it: ask again when it answers a beat */
        return;
    }
    p->progress = RAFT_SNAPSHOT;
    p->inflight_count = p->inflight_bytes = 0;
    p->snap_index = r->applied;
    raft_say(r, false, RAFT_MSG_SNAP, p->id)->index = r->applied;
}

void raft_snap_sent(struct raft *r, uint64_t member, uint64_t index, bool ok)
{
    struct raft_peer *p = raft_peer_find(r, member);

    if (!p || p->progress != RAFT_SNAPSHOT)
        return;
    raft_peer_probe(p, ok ? MIN(MAX(index, p->match), r->log.last) + 1 : p->match + 1);
    p->waits = !ok; /* not again at once: at its next sign of life */
    r->flush = true;
}

/* Entries up to here may go, for all that followers still need. */
static uint64_t pinned(const struct raft *r, uint64_t limit)
{
    for (size_t i = 0; i < r->peer_count; i++) {
        const struct raft_peer *p = &r->peers[i];
        uint64_t has = MAX(p->match, p->snap_index);

        if (has > 0 && has < limit && r->durable - has <= r->conf.keep_entries * RAFT_PIN_TIMES &&
            r->now_ms - p->heard_ms < RAFT_PIN_TIMEOUTS * (uint64_t)r->conf.election_ms)
            limit = has;
    }
    return limit;
}

/* Stored tells its position: it may also have gone back, when it restarted and lost what it had not synced. What it
 * has applied is committed, whether we still knew that or not (commit is not on disk). */
void raft_snap_applied(struct raft *r, uint64_t applied, uint64_t durable)
{
    uint64_t keep = r->config.count > 1 ? r->conf.keep_entries : 0;

    raft_commit_to(r, applied);
    r->applied = MIN(MAX(applied, r->log.first - 1), r->commit);
    r->durable = MIN(MAX(r->durable, MUTATE(DROP_NOT_DURABLE, durable, applied)), r->applied);
    if (r->durable > keep) {
        uint64_t below = pinned(r, r->durable - keep) + 1;

        if (below > r->drop_below && below - 1 <= r->log.persisted) {
            raft_log_compact(&r->log, below);
            r->drop_below = r->log.first;
        }
    }
    raft_log_evict(&r->log);
}

void raft_snap_loaded(struct raft *r, const struct raft_event *ev)
{
    uint64_t term = ev->entry_term;

    /* Not to be found out here: of what left our memory we would ask storage, which is the new log already. */
    if (!ev->members ||
        MUTATE(SNAP_ASKS_NEW_LOG, false, raft_log_term(&r->log, ev->index, &term) && term == ev->entry_term)) {
        raft_commit_to(r, ev->index);
        return;
    }
    must(r->role != RAFT_LEADER && ev->index > r->commit && ev->member_count <= RAFT_MEMBERS_MAX);
    must(r->log.truncate_from == 0 && r->log.offered == r->log.last);
    raft_log_replace(&r->log, ev->index, ev->entry_term);
    r->log_replaced = true;
    if (r->role != RAFT_FOLLOWER || term > r->term)
        raft_become_follower(r, MAX(r->term, term), RAFT_NONE);
    r->commit = r->applied = r->handed = r->durable = ev->index;
    r->drop_below = r->told_drop = r->log.first;
    r->config.index = ev->index;
    r->config.count = ev->member_count;
    memcpy(r->config.members, ev->members, ev->member_count * sizeof(*ev->members));
    r->config_prev = r->config;
    r->conf_seq++;
}

void raft_snap_forgot(struct raft *r, uint64_t member)
{
    struct raft_peer *p = r->role == RAFT_LEADER ? raft_peer_find(r, member) : NULL;

    if (!p)
        return;
    p->match = p->commit_sent = 0;
    raft_peer_probe(p, r->log.last + 1);
    p->progress = RAFT_SNAPSHOT;
    p->snap_index = r->applied;
}
