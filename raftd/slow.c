/* slow - a leader whose own disk is slow hands its leadership over: followers commit without it, but every read index and
 * every result on its node waits for its log. Looked at in windows, by the log's own histogram of syncs, which another
 * thread writes. From main.c, every turn; to turn_hand_over. */
#include "raftd/raftd.h"

#include <inttypes.h>

/* Syncs that a window must hold to be judged by its 99th percentile. */
#define SLOW_SYNCS_MIN 20
/* After a hand-over, or an attempt at one: if all disks are slow, leadership must not go round. */
#define SLOW_QUIET_MS 60000

/* Upper bound in ms of the bucket that holds the 99th percentile of what was counted since the last look; 0: too few. */
static uint64_t window_p99_ms(struct slow *s, const struct histogram *h)
{
    uint64_t fresh[HISTOGRAM_BUCKETS_MAX + 1] = {0}, total = 0, seen = 0;

    for (uint32_t i = 0; i <= h->bucket_count; i++) {
        uint64_t now = counter_read(&h->counts[i]);

        fresh[i] = now - s->counts[i];
        s->counts[i] = now;
        total += fresh[i];
    }
    if (total < SLOW_SYNCS_MIN)
        return 0;
    for (uint32_t i = 0; i <= h->bucket_count; i++) {
        seen += fresh[i];
        if (seen * 100 >= total * 99)
            return (h->start << MIN(i, h->bucket_count)) / 1000;
    }
    return 0;
}

void slow_check(struct raftd *d, uint64_t now_ms)
{
    struct slow *s = &d->slow;
    uint64_t limit_ms = d->conf.election_timeout_ms / 2, p99_ms = 0, stuck_ms = turn_disk_ms(d->turn);
    struct wal_stats ws;

    if (raft_role(d->raft) != RAFT_LEADER || d->members.count < 2 || d->stopping || now_ms < s->quiet_ms)
        return;
    if (now_ms >= s->look_ms) {
        s->look_ms = now_ms + 10 * d->conf.election_timeout_ms;
        wal_stats(d->wal, &ws);
        p99_ms = window_p99_ms(s, ws.sync_us);
    }
    if (p99_ms <= limit_ms && stuck_ms <= d->conf.election_timeout_ms)
        return;
    log_warnx("raft: our disk is slow (99th percentile of a sync %" PRIu64 " ms, waiting for one since %" PRIu64
              " ms): handing the leadership over",
              p99_ms, stuck_ms);
    s->quiet_ms = now_ms + SLOW_QUIET_MS;
    s->handed_over++;
    turn_hand_over(d->turn);
}
