/* slow - a leader that cannot serve well hands its leadership over: one whose disk is slow (followers commit without it, but every
 * read index and every result on its node waits for its log), and one whose store is away, is being repaired, or applies
 * nothing (leases and what only the leader's store knows wait for it). The disk is looked at in windows, by the log's own
 * histogram of syncs, which another thread writes. From main.c, every turn; to turn_hand_over. */
#include "raftd/raftd.h"

#include <inttypes.h>

#include "raftd/snap.h"

/* As many slow syncs, and one in a hundred, make a window slow: a 99th percentile that one bad moment does not move. */
#define SLOW_SYNCS_MIN 3
/* After a hand-over, or an attempt at one: if all disks are slow, leadership must not go round. */
#define SLOW_QUIET_MS 60000
/* Stored may stand still so long; less is a busy moment. */
#define STORE_STUCK_MS 2000
/* ... and be so many times as far behind while it moves: under too much load all stores are behind, and a hand-over helps nobody;
 * proposals are refused long before this. */
#define STORE_BEHIND_TIMES 5

/* Have syncs since the last look taken longer than this? */
static bool window_is_slow(struct slow *s, const struct histogram *h, uint64_t limit_ms)
{
    uint64_t total = 0, slow = 0;

    for (uint32_t i = 0; i <= h->bucket_count; i++) {
        uint64_t now = counter_read(&h->counts[i]), fresh = now - s->counts[i];
        /* What is in a bucket has taken longer than the one before it ends. */
        uint64_t least_ms = i > 0 ? (h->start << (i - 1)) / 1000 : 0;

        s->counts[i] = now;
        total += fresh;
        slow += least_ms * 4 / 3 >= limit_ms ? fresh : 0;
    }
    return slow >= SLOW_SYNCS_MIN && slow * 100 >= total;
}

static const char *disk_trouble(struct raftd *d, uint64_t now_ms)
{
    struct slow *s = &d->slow;
    bool is_slow = false;
    struct wal_stats ws;

    if (now_ms >= s->look_ms) {
        s->look_ms = now_ms + 10 * d->conf.election_timeout_ms;
        wal_stats(d->wal, &ws);
        is_slow = window_is_slow(s, ws.sync_us, d->conf.election_timeout_ms / 2);
    }
    if (turn_disk_ms(d->turn) > d->conf.election_timeout_ms)
        return "the log has waited for the disk for more than an election timeout";
    return is_slow ? "syncs of the log take more than half an election timeout" : NULL;
}

static const char *store_trouble(struct raftd *d, uint64_t now_ms)
{
    struct slow *s = &d->slow;
    uint64_t stuck_ms = MAX((uint64_t)STORE_STUCK_MS, 2 * d->conf.election_timeout_ms);
    struct turn_stats ts;

    turn_stats(d->turn, &ts);
    if (snap_store_serves(d))
        s->served_ms = now_ms;
    if (now_ms - s->served_ms > d->conf.election_timeout_ms)
        return "its store has been away, or is not whole, for more than an election timeout";
    if (ts.stuck_ms > stuck_ms)
        return "its store applies nothing";
    return ts.behind_ms > STORE_BEHIND_TIMES * stuck_ms ? "its store is far behind" : NULL;
}

void slow_check(struct raftd *d, uint64_t now_ms)
{
    struct slow *s = &d->slow;
    const char *why;

    /* A leader's turns are never further apart than its heartbeats. */
    if (s->led && now_ms - s->turn_ms > 2 * d->conf.heartbeat_interval_ms)
        s->late_beats++;
    s->led = raft_role(d->raft) == RAFT_LEADER && d->members.count > 1;
    s->turn_ms = now_ms;

    if (raft_role(d->raft) != RAFT_LEADER || d->members.count < 2 || d->stopping || now_ms < s->quiet_ms) {
        s->served_ms = now_ms; /* who begins to lead has a moment's grace */
        return;
    }
    why = disk_trouble(d, now_ms);
    if (!why)
        why = store_trouble(d, now_ms);
    if (!why)
        return;
    log_warnx("raft: handing the leadership over: %s", why);
    s->quiet_ms = now_ms + SLOW_QUIET_MS;
    s->handed_over++;
    turn_hand_over(d->turn);
}
