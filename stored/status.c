/* status - what this daemon knows about itself: for Maintenance.Status, for /metrics, for /health.
 * From in.c (STATUS, through raftd with its facts, or straight from a gateway while raftd is away); to out.c. */
#include "stored/stored.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/mem.h"
#include "proto/pb.h"
#include "stored/auth.h"
#include "stored/snap.h"

void status_init(struct stored *s)
{
    struct stored_stats *st = &s->stats;

    histogram_init(&st->apply, 100, 20);
    histogram_init(&st->commit, 1000, 14);
    histogram_init(&st->defrag, 100000, 13);
    histogram_init(&st->hash, 10000, 15);
    histogram_init(&st->hash_all, 10000, 15);
    histogram_init(&st->ranges[0], 100, 20);
    histogram_init(&st->ranges[1], 100, 20);
    histogram_init(&st->backup, 10000, 17);
    histogram_init(&st->snap_save, 100000, 10);
    histogram_init(&st->snap_sync, 1000, 14);
    histogram_init_unit(&st->compaction_pause_ms, 1, 13, 1.0);
    histogram_init_unit(&st->compaction_ms, 100, 14, 1.0);
    histogram_init_unit(&st->lease_ttl, 1, 24, 1.0);
}

/* --- Maintenance.Status ------------------------------------------------------------------------------------- */

static bool has_leader(const struct fr_status *fr)
{
    return fr->raft_known && fr->leader != 0;
}

/* etcd's own text form of an alarm, trailing space included (§15). */
static void add_alarm_error(void *arg, uint64_t member, enum alarm_kind kind)
{
    char text[80];

    snprintf(text, sizeof text, "memberID:%" PRIu64 " alarm:%s ", member, alarm_name(kind));
    pb_add_bytes(arg, 8, slice_str(text));
}

static void answer_api(struct stored *s, const struct fr_status *fr, struct buf *out)
{
    struct mvcc_stats stats;

    mvcc_get_stats(s->mvcc, &stats);
    mvcc_add_header(s->mvcc, out, -1);
    pb_add_bytes(out, 2, slice_str(TRINE_API_VERSION));
    pb_add_uint(out, 3, stats.disk_bytes);
    pb_add_uint(out, 4, fr->raft_known ? fr->leader : 0);
    pb_add_uint(out, 5, MAX(fr->raft_known ? fr->commit : s->commit, mvcc_applied(s->mvcc)));
    pb_add_uint(out, 6, fr->raft_known ? fr->term : s->term);
    pb_add_uint(out, 7, mvcc_applied(s->mvcc));
    if (!has_leader(fr))
        pb_add_bytes(out, 8, slice_str(err_text(E_NO_LEADER)));
    alarm_each(s, add_alarm_error, out);
    pb_add_uint(out, 9, MIN(stats.disk_used_bytes, stats.disk_bytes));
    pb_add_uint(out, 10, fr->raft_known ? fr->is_learner != 0 : s->is_learner);
    pb_add_bytes(out, 11, slice_str(TRINE_CLUSTER_VERSION));
    pb_add_int(out, 12, s->conf->quota_backend_bytes ? s->conf->quota_backend_bytes : (int64_t)QUOTA_BYTES_DEFAULT);
    downgrade_add_info(s, out);
}

/* --- /health --------------------------------------------------------------------------------------------------- */

static void add_alarm_reason(void *arg, uint64_t member, enum alarm_kind kind)
{
    UNUSED(member);
    buf_printf(arg, "ALARM %s\n", alarm_name(kind));
}

/* What is wrong, one reason per line, in etcd's words and order; empty: nothing. */
static void answer_health(struct stored *s, const struct fr_status *fr, struct buf *out)
{
    alarm_each(s, add_alarm_reason, out);
    if (!has_leader(fr))
        buf_add_str(out, "RAFT NO LEADER\n");
}

/* --- /metrics ---------------------------------------------------------------------------------------------------- */

/* Writes the help of a metric unless raftd's text has the metric already. */
static bool begins(struct buf *out, const char *name, const char *type, const char *help)
{
    char line[160];
    int len = snprintf(line, sizeof line, "# TYPE %s ", name);

    if (out->len && memmem(out->data, out->len, line, (size_t)len))
        return false;
    metrics_help(out, name, type, help);
    return true;
}

static void counter(struct buf *out, const char *name, const char *help, uint64_t value)
{
    if (begins(out, name, METRICS_COUNTER, help))
        metrics_u64(out, name, NULL, value);
}

static void gauge(struct buf *out, const char *name, const char *help, int64_t value)
{
    if (begins(out, name, METRICS_GAUGE, help))
        metrics_i64(out, name, NULL, value);
}

static void histogram(struct buf *out, const char *name, const char *help, const struct histogram *h)
{
    if (begins(out, name, METRICS_HISTOGRAM, help))
        histogram_render(out, name, NULL, h);
}

static void store_metrics(const struct stored *s, const struct mvcc_stats *st, struct buf *out)
{
    gauge(out, "etcd_mvcc_db_total_size_in_bytes", "Bytes of the store's files.", (int64_t)st->disk_bytes);
    gauge(out, "etcd_mvcc_db_total_size_in_use_in_bytes", "Bytes of it in use, estimated.",
          (int64_t)MIN(st->disk_used_bytes, st->disk_bytes));
    gauge(out, "etcd_mvcc_db_open_read_transactions", "Reads under way in worker threads.",
          (int64_t)loop_work_pending(s->loop));
    counter(out, "etcd_mvcc_put_total", "Puts seen by this member.", st->puts);
    counter(out, "etcd_mvcc_delete_total", "Deletes seen by this member.", st->deletes);
    counter(out, "etcd_mvcc_range_total", "Ranges seen by this member.", st->ranges);
    counter(out, "etcd_mvcc_txn_total", "Transactions seen by this member.", st->txns);
    histogram(out, "etcd_mvcc_hash_rev_duration_seconds", "Time of a HashKV.", &s->stats.hash);
    histogram(out, "etcd_mvcc_hash_duration_seconds", "Time of a Hash.", &s->stats.hash_all);
    gauge(out, "etcd_debugging_mvcc_total_put_size_in_bytes", "Bytes of all that was put.", (int64_t)st->put_bytes);
    counter(out, "etcd_debugging_mvcc_db_compaction_keys_total", "Records that compactions took.", st->pruned);
    gauge(out, "etcd_debugging_mvcc_db_compaction_last", "Unix time of the last compaction.", s->stats.compacted_at);
    histogram(out, "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds", "Time of one slice of a compaction.",
              &s->stats.compaction_pause_ms);
    histogram(out, "etcd_disk_backend_snapshot_duration_seconds", "Time of a backup (Maintenance.Snapshot).", &s->stats.backup);
    histogram(out, "etcd_snap_db_save_total_duration_seconds", "Time of loading the store of another member.",
              &s->stats.snap_save);
    histogram(out, "etcd_snap_db_fsync_duration_seconds", "Time of making it durable.", &s->stats.snap_sync);
    gauge(out, "etcd_server_snapshot_apply_in_progress_total", "1 while the store of another member is loaded.",
          snap_is_loading(s));
    counter(out, "etcd_server_slow_apply_total", "Entries that took longer than warning-apply-duration.", s->stats.slow_applies);
    apply_metrics(s, out);
    metrics_help(out, "etcd_server_range_duration_seconds", METRICS_HISTOGRAM, "Time of one read of a range.");
    histogram_render(out, "etcd_server_range_duration_seconds", "success=\"true\"", &s->stats.ranges[1]);
    histogram_render(out, "etcd_server_range_duration_seconds", "success=\"false\"", &s->stats.ranges[0]);
    gauge(out, "etcd_debugging_mvcc_current_revision", "Current revision of the store.", st->rev);
    gauge(out, "etcd_debugging_mvcc_compact_revision", "Revision of the last compaction.", st->compact_rev);
    gauge(out, "etcd_debugging_mvcc_keys_total", "Live keys.", (int64_t)st->keys);
    gauge(out, "etcd_server_quota_backend_bytes", "Store size that raises NOSPACE.", (int64_t)alarm_quota(s));
    histogram(out, "etcd_disk_backend_commit_duration_seconds", "Time of writing one batch of applied entries.",
              &s->stats.commit);
    histogram(out, "etcd_disk_backend_defrag_duration_seconds", "Time of a defragmentation.", &s->stats.defrag);
    gauge(out, "etcd_disk_defrag_inflight", "1 while a defragmentation runs.", (int64_t)s->stats.defrag_inflight);
    histogram(out, "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds", "Time of a compaction.",
              &s->stats.compaction_ms);
}

static void lease_metrics(const struct stored *s, struct buf *out)
{
    counter(out, "etcd_debugging_lease_granted_total", "Leases granted.", s->stats.leases_granted);
    counter(out, "etcd_debugging_lease_renewed_total", "Leases renewed here, by the leader.", s->stats.leases_renewed);
    counter(out, "etcd_debugging_lease_revoked_total", "Leases revoked by clients.", s->stats.leases_revoked);
    counter(out, "etcd_debugging_server_lease_expired_total", "Leases that expired.", s->stats.leases_expired);
    histogram(out, "etcd_debugging_lease_ttl_total", "TTLs of granted leases in seconds.", &s->stats.lease_ttl);
}

static void add_alarm_metric(void *arg, uint64_t member, enum alarm_kind kind)
{
    char labels[96];

    snprintf(labels, sizeof labels, "server_id=\"%" PRIx64 "\",alarm_type=\"%s\"", member, alarm_name(kind));
    metrics_u64(arg, "etcd_debugging_server_alarms", labels, 1);
}

/* Our own words for what etcd has no name for. */
static void own_metrics(const struct stored *s, const struct mvcc_stats *st, struct buf *out)
{
    const struct stored_stats *my = &s->stats;
    size_t ranges = 0;

    for (unsigned slot = 1; slot <= GATEWAY_SLOTS; slot++)
        ranges += s->gateways[slot].up ? feed_range_count(&s->gateways[slot]) : 0;
    counter(out, "trine_stored_entries_total", "Log entries applied.", my->entries);
    counter(out, "trine_stored_duplicate_entries_total", "Log entries that came again after a resume.", my->duplicates);
    counter(out, "trine_stored_gaps_total", "Times that entries were missing and were asked for again.", my->gaps);
    counter(out, "trine_stored_malformed_entries_total", "Log entries that could not be decoded.", my->malformed);
    counter(out, "trine_stored_events_sent_total", "Events sent to gateways.", my->events_sent);
    counter(out, "trine_stored_history_slices_near_total", "History slices served from memory.", my->history_slices_near);
    counter(out, "trine_stored_history_slices_far_total", "History slices served from disk.", my->history_slices_far);
    counter(out, "trine_stored_large_results_total", "Results sent in parts.", my->results_large);
    counter(out, "trine_stored_repeated_results_total", "Results told again after a link came up.", my->results_repeated);
    counter(out, "trine_stored_cache_hits_total", "Records found in the cache.", st->cache_hits);
    counter(out, "trine_stored_cache_misses_total", "Records read from LevelDB.", st->cache_misses);
    gauge(out, "trine_stored_watch_ranges", "Distinct ranges that gateways watch.", (int64_t)ranges);
    gauge(out, "trine_stored_ring_events", "Events kept in memory.", (int64_t)ring_count(s->ring));
    gauge(out, "trine_stored_ring_bytes", "Bytes of them.", (int64_t)ring_bytes(s->ring));
    gauge(out, "trine_stored_index_bytes", "Memory of the key index.", (int64_t)st->index_bytes);
    gauge(out, "trine_stored_cache_bytes", "Memory of cached records.", (int64_t)st->cache_bytes);
    gauge(out, "trine_stored_leases", "Leases.", (int64_t)leases_count(s->leases));
    gauge(out, "trine_stored_durable_index", "Raft index that survives a power cut.", (int64_t)mvcc_durable(s->mvcc));
    histogram(out, "trine_stored_apply_batch_duration_seconds", "Time from a batch's first entry to its last write.",
              &my->apply);
}

static void link_metric(struct buf *out, const char *name, const struct link *link, size_t offset)
{
    const struct link_stats *st = link_stats(link);
    struct buf label = BUF_INIT;

    /* Slots where nobody ever was would only be noise. */
    if (!st || st->messages_in == 0)
        return;
    metrics_label(&label, "link", slice_str(link_name(link)));
    buf_add_byte(&label, 0);
    metrics_u64(out, name, (const char *)label.data, *(const uint64_t *)(const void *)((const char *)st + offset));
    buf_fini(&label);
}

static void link_metrics(const struct stored *s, struct buf *out)
{
    static const struct {
        const char *name, *help;
        size_t offset;
    } rows[] = {
        {"trine_stored_link_malformed_total", "Messages that closed the link.", offsetof(struct link_stats, malformed)},
        {"trine_stored_link_refused_hellos_total", "Peers refused at HELLO.", offsetof(struct link_stats, refused_hellos)},
        {"trine_stored_link_downs_total", "Times that the link was lost.", offsetof(struct link_stats, downs)},
    };

    for (size_t row = 0; row < ARRAY_LEN(rows); row++) {
        metrics_help(out, rows[row].name, METRICS_COUNTER, rows[row].help);
        link_metric(out, rows[row].name, s->raft, rows[row].offset);
        for (unsigned slot = 1; slot <= GATEWAY_SLOTS; slot++)
            link_metric(out, rows[row].name, s->gateways[slot].link, rows[row].offset);
    }
}

static void answer_metrics(struct stored *s, const struct fr_status *fr, struct buf *out)
{
    struct mvcc_stats stats;

    buf_add_slice(out, fr->facts);
    mvcc_get_stats(s->mvcc, &stats);
    store_metrics(s, &stats, out);
    lease_metrics(s, out);
    gauge(out, "etcd_debugging_auth_revision", "Revision of users, roles and permissions.", (int64_t)s->auth->rev);
    gauge(out, "etcd_server_proposals_applied_total", "Raft index applied.", (int64_t)mvcc_applied(s->mvcc));
    if (begins(out, "etcd_debugging_server_alarms", METRICS_GAUGE, "Alarms, by member and kind."))
        alarm_each(s, add_alarm_metric, out);
    own_metrics(s, &stats, out);
    link_metrics(s, out);
}

/* --- all ------------------------------------------------------------------------------------------------------------ */

void status_answer(struct gateway *g, const struct fr_status *fr)
{
    struct buf out = BUF_INIT;
    int err = 0;

    if (fr->what == STATUS_API)
        answer_api(g->s, fr, &out);
    else if (fr->what == STATUS_METRICS)
        answer_metrics(g->s, fr, &out);
    else if (fr->what == STATUS_HEALTH)
        answer_health(g->s, fr, &out);
    else
        err = E_INVALID;
    if (err)
        out_result(g, fr->req, err, SLICE_EMPTY);
    else
        read_result(g, fr->req, buf_slice(&out));
    buf_fini(&out);
}
