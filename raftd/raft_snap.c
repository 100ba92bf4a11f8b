/* raft_snap - followers that need what the log no longer has, and how far the log may go.
 * The core only says that a snapshot is needed (a SNAP message in `early`); turn.c streams it from stored and reports
 * RAFT_EV_SNAP_SENT. While that lasts the follower gets beats and nothing else. The receiver starts a new core on
 * top of its snapshot, and the probe that follows finds it there. */
#include "raftd/raft_int.h"

void raft_snap_need(struct raft *r, struct raft_peer *p)
{
    if (r->now_ms - p->heard_ms >= r->conf.election_ms) {
        p->waits = true; /* nobody there to take it: ask again when it answers a beat */
        return;
    }
    p->progress = RAFT_SNAPSHOT;
    p->inflight_count = p->inflight_bytes = 0;
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

/* Stored tells its position: it may also have gone back, when it restarted and lost what it had not synced. What it
 * has applied is committed, whether we still knew that or not (commit is not on disk). */
void raft_snap_applied(struct raft *r, uint64_t applied, uint64_t durable)
{
    uint64_t keep = r->config.count > 1 ? r->conf.keep_entries : 0;

    raft_commit_to(r, applied);
    r->applied = MIN(MAX(applied, r->log.first - 1), r->commit);
    r->durable = MIN(MAX(r->durable, durable), r->applied);
    if (r->durable > keep && r->durable - keep + 1 > r->drop_below && r->durable - keep <= r->log.persisted) {
        raft_log_compact(&r->log, r->durable - keep + 1);
        r->drop_below = r->log.first;
    }
    raft_log_evict(&r->log);
}
