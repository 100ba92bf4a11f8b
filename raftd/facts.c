/* facts - what raftd adds to /metrics: etcd's names where etcd has one (spec: surface §10), ours otherwise.
 * Rendered when a STATUS passes through (out.c); stored adds its own behind it. */
#include "raftd/raftd.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/mem.h"
#include "common/metrics.h"
#include "raftd/snap.h"

static void gauge(struct buf *b, const char *name, const char *help, uint64_t v)
{
    metrics_help(b, name, METRICS_GAUGE, help);
    metrics_u64(b, name, NULL, v);
}

static void count(struct buf *b, const char *name, const char *help, uint64_t v)
{
    metrics_help(b, name, METRICS_COUNTER, help);
    metrics_u64(b, name, NULL, v);
}

static void snap_facts(const struct raftd *d, struct buf *b)
{
    struct snap_stats s;

    snap_stats(d, &s);
    count(b, "trine_raftd_snapshots_sent_total", "Snapshots that other members have loaded.", s.sent);
    count(b, "trine_raftd_snapshots_sent_failed_total", "Snapshots that other members have not loaded.", s.sent_failed);
    count(b, "trine_raftd_snapshots_received_total", "Snapshots that this member has loaded.", s.received);
    count(b, "trine_raftd_snapshots_received_failed_total", "Snapshots that this member has begun to load only.",
          s.received_failed);
    count(b, "trine_raftd_snapshot_parts_received_total", "Parts of snapshots received.", s.parts);
    gauge(b, "trine_raftd_repairing", "Whether this member lost its log and does not vote.", snap_is_repairing(d));
}

/* etcd's names, a line for each other member. */
static void snap_with_facts(const struct raftd *d, struct buf *b)
{
    static const struct {
        const char *name, *type, *help, *label;
        size_t offset;
    } rows[] = {
        {"etcd_network_snapshot_send_success", METRICS_COUNTER, "Total number of successful snapshot sends", "To", offsetof(struct snap_with, sent)},
        {"etcd_network_snapshot_send_failures", METRICS_COUNTER, "Total number of snapshot send failures", "To", offsetof(struct snap_with, sent_failed)},
        {"etcd_network_snapshot_receive_success", METRICS_COUNTER, "Total number of successful snapshot receives", "From", offsetof(struct snap_with, received)},
        {"etcd_network_snapshot_receive_failures", METRICS_COUNTER, "Total number of snapshot receive failures", "From", offsetof(struct snap_with, received_failed)},
    };
    const struct snap_with *list;
    size_t count_with = snap_with_all(d, &list);
    char label[64];

    for (size_t row = 0; row < ARRAY_LEN(rows); row++) {
        metrics_help(b, rows[row].name, rows[row].type, rows[row].help);
        for (size_t i = 0; i < count_with; i++) {
            snprintf(label, sizeof(label), "%s=\"%" PRIx64 "\"", rows[row].label, list[i].member);
            metrics_u64(b, rows[row].name, label, *(const uint64_t *)(const void *)((const char *)&list[i] + rows[row].offset));
        }
    }
    for (int sends = 1; sends >= 0; sends--) {
        const char *inflight = sends ? "etcd_network_snapshot_send_inflights_total" : "etcd_network_snapshot_receive_inflights_total";
        const char *took = sends ? "etcd_network_snapshot_send_total_duration_seconds" : "etcd_network_snapshot_receive_total_duration_seconds";
        uint64_t now = sends ? snap_sends_to(d) : snap_receives_from(d);

        metrics_help(b, inflight, METRICS_GAUGE, sends ? "Total number of inflight snapshot sends" : "Total number of inflight snapshot receives");
        if (now != RAFT_NONE) {
            snprintf(label, sizeof(label), "%s=\"%" PRIx64 "\"", sends ? "To" : "From", now);
            metrics_u64(b, inflight, label, 1);
        }
        metrics_help(b, took, METRICS_HISTOGRAM, sends ? "Total latency distributions of v3 snapshot sends" : "Total latency distributions of v3 snapshot receives");
        for (size_t i = 0; i < count_with; i++) {
            snprintf(label, sizeof(label), "%s=\"%" PRIx64 "\"", sends ? "To" : "From", list[i].member);
            histogram_render(b, took, label, sends ? &list[i].send : &list[i].receive);
        }
    }
}

static void raft_facts(const struct raftd *d, struct buf *b)
{
    struct turn_stats s;
    char label[64];
    const struct member *self = members_find(&d->members, d->member_id);

    turn_stats(d->turn, &s);
    gauge(b, "etcd_server_has_leader", "Whether or not a leader exists. 1 is existence, 0 is not.",
          raft_leader(d->raft) != RAFT_NONE);
    gauge(b, "etcd_server_is_leader", "Whether or not this member is a leader. 1 if is, 0 otherwise.",
          raft_role(d->raft) == RAFT_LEADER);
    gauge(b, "etcd_server_is_learner", "Whether or not this member is a learner. 1 if is, 0 otherwise.",
          self && self->is_learner);
    count(b, "etcd_server_leader_changes_seen_total", "The number of leader changes seen.", s.leader_changes);
    gauge(b, "etcd_server_proposals_committed_total", "The total number of consensus proposals committed.",
          raft_commit(d->raft));
    gauge(b, "etcd_server_proposals_applied_total", "The total number of consensus proposals applied.", s.applied);
    gauge(b, "etcd_server_proposals_pending", "The current number of pending proposals to commit.",
          raft_last_index(d->raft) - raft_commit(d->raft) + s.held);
    count(b, "etcd_server_proposals_failed_total", "The total number of failed proposals seen.", s.proposals_refused);
    count(b, "etcd_server_heartbeat_send_failures_total",
          "The total number of leader heartbeat send failures (likely overloaded from slow disk).", d->slow.late_beats);
    count(b, "etcd_server_read_indexes_failed_total", "The total number of failed read indexes seen.", s.reads_refused);
    count(b, "etcd_server_slow_read_indexes_total",
          "The total number of pending read indexes not in sync with leader's.", s.reads_slow);
    metrics_help(b, "etcd_server_id", METRICS_GAUGE,
                 "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.");
    snprintf(label, sizeof(label), "server_id=\"%" PRIx64 "\"", d->member_id);
    metrics_u64(b, "etcd_server_id", label, 1);
    metrics_help(b, "etcd_network_known_peers", METRICS_GAUGE, "The current number of known peers.");
    for (size_t i = 0; i < d->members.count; i++) {
        if (d->members.list[i].id == d->member_id)
            continue;
        snprintf(label, sizeof(label), "Local=\"%" PRIx64 "\",Remote=\"%" PRIx64 "\"", d->member_id,
                 d->members.list[i].id);
        metrics_u64(b, "etcd_network_known_peers", label, 1);
    }
    gauge(b, "trine_raftd_term", "Raft's term.", raft_term(d->raft));
    gauge(b, "trine_raftd_last_index", "Last entry of the raft log.", raft_last_index(d->raft));
    gauge(b, "trine_raftd_reads_waiting", "Reads waiting for their index or for stored.", s.reads_waiting);
    count(b, "trine_raftd_proposals_total", "Proposals received.", s.proposals);
    count(b, "trine_raftd_reads_total", "Linearizable reads received.", s.reads);
    count(b, "trine_raftd_read_rounds_total", "Read indexes asked for: one serves all reads of a turn.", s.read_rounds);
    count(b, "trine_raftd_applies_total", "Entries handed to stored.", s.applies);
    count(b, "trine_raftd_forwarded_total", "Proposals and queries sent to the leader.", d->forward.forwarded);
    count(b, "trine_raftd_forward_refused_total", "Of them, refused there.", d->forward.refused);
    count(b, "trine_raftd_leader_hand_overs_total", "Leaderships given up for a slow disk or a store that does not serve.", d->slow.handed_over);
}

static void wal_facts(const struct raftd *d, struct buf *b)
{
    struct wal_stats s;

    wal_stats(d->wal, &s);
    metrics_help(b, "etcd_disk_wal_fsync_duration_seconds", METRICS_HISTOGRAM,
                 "The latency distributions of fsync called by WAL.");
    histogram_render(b, "etcd_disk_wal_fsync_duration_seconds", NULL, s.sync_us);
    metrics_help(b, "etcd_disk_wal_write_duration_seconds", METRICS_HISTOGRAM,
                 "The latency distributions of write called by WAL.");
    histogram_render(b, "etcd_disk_wal_write_duration_seconds", NULL, s.write_us);
    gauge(b, "etcd_disk_wal_write_bytes_total", "Total number of bytes written in WAL.", s.bytes);
    count(b, "trine_raftd_wal_batches_total", "Batches written to the log: one sync each.", s.batches);
    gauge(b, "trine_raftd_wal_entries", "Entries in the log.", s.entries);
    gauge(b, "trine_raftd_wal_segments", "Segment files of the log.", s.segments);
    gauge(b, "trine_raftd_wal_index_bytes", "Memory of the log's index.", s.index_bytes);
    gauge(b, "trine_raftd_wal_no_space", "1 while the next segment of the log cannot be made.", wal_no_space(d->wal));
}

static void link_facts(const struct raftd *d, struct buf *b)
{
    static const struct {
        const char *name, *help;
        size_t offset;
    } rows[] = {
        {"trine_raftd_link_messages_in_total", "Messages received.", offsetof(struct link_stats, messages_in)},
        {"trine_raftd_link_messages_out_total", "Messages sent.", offsetof(struct link_stats, messages_out)},
        {"trine_raftd_link_frames_in_total", "Frames received.", offsetof(struct link_stats, frames_in)},
        {"trine_raftd_link_frames_out_total", "Frames sent.", offsetof(struct link_stats, frames_out)},
        {"trine_raftd_link_bytes_in_total", "Bytes received.", offsetof(struct link_stats, bytes_in)},
        {"trine_raftd_link_bytes_out_total", "Bytes sent.", offsetof(struct link_stats, bytes_out)},
        {"trine_raftd_link_malformed_total", "Messages that closed the link.", offsetof(struct link_stats, malformed)},
        {"trine_raftd_link_refused_hellos_total", "Peers refused at HELLO.",
         offsetof(struct link_stats, refused_hellos)},
        {"trine_raftd_link_downs_total", "Times that the link was lost.", offsetof(struct link_stats, downs)},
    };

    for (size_t row = 0; row < ARRAY_LEN(rows); row++) {
        metrics_help(b, rows[row].name, METRICS_COUNTER, rows[row].help);
        for (unsigned slot = 0; slot < RAFTD_SLOTS; slot++) {
            const struct link_stats *s = link_stats(d->links[slot]);
            struct buf label = BUF_INIT;

            /* Slots where nobody ever was would only be noise. */
            if (s->messages_in == 0)
                continue;
            metrics_label(&label, "link", slice_str(link_name(d->links[slot])));
            buf_add_byte(&label, 0);
            metrics_u64(b, rows[row].name, (const char *)label.data,
                        *(const uint64_t *)(const void *)((const char *)s + rows[row].offset));
            buf_fini(&label);
        }
    }
}

/* Plain process_* are the gateway's, which answers /metrics. */
static void process_facts(struct buf *b)
{
    struct process_usage u;

    process_usage_read(&u);
    gauge(b, "trine_raftd_resident_memory_bytes", "Resident memory of raftd.", u.resident_bytes);
    metrics_help(b, "trine_raftd_cpu_seconds_total", METRICS_COUNTER, "CPU time of raftd.");
    metrics_double(b, "trine_raftd_cpu_seconds_total", NULL, u.cpu_seconds);
    gauge(b, "trine_raftd_open_fds", "Open files of raftd.", u.open_fds);
}

static void compare_facts(const struct raftd *d, struct buf *b)
{
    metrics_help(b, "trine_raftd_states_compared_total", METRICS_COUNTER, "Comparisons of members' states with ours, by the leader.");
    metrics_u64(b, "trine_raftd_states_compared_total", "found=\"same\"", d->compare.same);
    metrics_u64(b, "trine_raftd_states_compared_total", "found=\"different\"", d->compare.different);
}

void facts_render(const struct raftd *d, struct buf *out)
{
    raft_facts(d, out);
    wal_facts(d, out);
    snap_facts(d, out);
    snap_with_facts(d, out);
    compare_facts(d, out);
    peers_render(d->peers, out);
    link_facts(d, out);
    process_facts(out);
}
