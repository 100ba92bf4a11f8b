#!/usr/bin/env bash
# /metrics: every name that dashboards and alerts of etcd read and that can mean something here, from the start of the process; of
# the type and with the buckets that etcd's have; good for promtool.
#   tests/node/test_metrics.sh [BUILD_DIR]
build=$(realpath "${1:-build}")
. "$(dirname "$0")/../lib/node.sh"
export ETCDCTL_API=3

# Of spec/surface.md §10 all but those of gatewayd(8), "Metrics that are not here".
names="
etcd_server_apply_duration_seconds etcd_server_client_requests_total etcd_server_has_leader etcd_server_health_failures
etcd_server_health_success etcd_server_healthcheck etcd_server_healthchecks_total etcd_server_heartbeat_send_failures_total
etcd_server_id etcd_server_is_leader etcd_server_is_learner etcd_server_leader_changes_seen_total
etcd_server_learner_promote_failures etcd_server_learner_promote_successes etcd_server_proposals_applied_total
etcd_server_proposals_committed_total etcd_server_proposals_failed_total etcd_server_proposals_pending
etcd_server_quota_backend_bytes etcd_server_range_duration_seconds etcd_server_read_indexes_failed_total
etcd_server_request_duration_seconds etcd_server_slow_apply_total etcd_server_slow_read_indexes_total
etcd_server_snapshot_apply_in_progress_total etcd_server_version etcd_cluster_version
etcd_disk_backend_commit_duration_seconds etcd_disk_backend_defrag_duration_seconds etcd_disk_backend_snapshot_duration_seconds
etcd_disk_defrag_inflight etcd_disk_wal_fsync_duration_seconds etcd_disk_wal_write_bytes_total etcd_disk_wal_write_duration_seconds
etcd_mvcc_db_open_read_transactions etcd_mvcc_db_total_size_in_bytes etcd_mvcc_db_total_size_in_use_in_bytes etcd_mvcc_delete_total
etcd_mvcc_hash_duration_seconds etcd_mvcc_hash_rev_duration_seconds etcd_mvcc_put_total etcd_mvcc_range_total etcd_mvcc_txn_total
etcd_network_active_peers etcd_network_client_grpc_received_bytes_total etcd_network_client_grpc_sent_bytes_total
etcd_network_disconnected_peers_total etcd_network_known_peers etcd_network_peer_received_bytes_total
etcd_network_peer_received_failures_total etcd_network_peer_round_trip_time_seconds etcd_network_peer_sent_bytes_total
etcd_network_peer_sent_failures_total etcd_network_server_stream_failures_total etcd_network_snapshot_receive_failures
etcd_network_snapshot_receive_inflights_total etcd_network_snapshot_receive_success
etcd_network_snapshot_receive_total_duration_seconds etcd_network_snapshot_send_failures
etcd_network_snapshot_send_inflights_total etcd_network_snapshot_send_success etcd_network_snapshot_send_total_duration_seconds
etcd_snap_db_fsync_duration_seconds etcd_snap_db_save_total_duration_seconds
etcd_debugging_auth_revision etcd_debugging_lease_granted_total etcd_debugging_lease_renewed_total etcd_debugging_lease_revoked_total
etcd_debugging_lease_ttl_total etcd_debugging_mvcc_compact_revision etcd_debugging_mvcc_current_revision
etcd_debugging_mvcc_db_compaction_keys_total etcd_debugging_mvcc_db_compaction_last
etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds etcd_debugging_mvcc_db_compaction_total_duration_milliseconds
etcd_debugging_mvcc_events_total etcd_debugging_mvcc_keys_total etcd_debugging_mvcc_pending_events_total
etcd_debugging_mvcc_slow_watcher_total etcd_debugging_mvcc_total_put_size_in_bytes etcd_debugging_mvcc_watch_stream_total
etcd_debugging_mvcc_watcher_total etcd_debugging_server_alarms etcd_debugging_server_lease_expired_total
etcd_debugging_server_watch_send_loop_control_stream_duration_seconds
etcd_debugging_server_watch_send_loop_progress_duration_seconds
etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds
etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds
grpc_server_started_total grpc_server_handled_total grpc_server_msg_received_total grpc_server_msg_sent_total os_fd_limit os_fd_used
process_cpu_seconds_total process_max_fds process_open_fds process_resident_memory_bytes process_start_time_seconds
process_virtual_memory_bytes"
not_here="etcd_server_go_version etcd_server_feature_enabled etcd_snap_fsync_duration_seconds etcd_debugging_disk_backend_commit_rebalance_duration_seconds
etcd_debugging_disk_backend_commit_spill_duration_seconds etcd_debugging_disk_backend_commit_write_duration_seconds
etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds etcd_debugging_snap_save_marshalling_duration_seconds
etcd_debugging_snap_save_total_duration_seconds"

scrape() { curl -fsS -m 5 "http://127.0.0.1:$1/metrics"; }
value() { awk -v name="$1" '$1 == name { print $2 }' "$now"; } # of the scrape in $now
ctl() { timeout 20 etcdctl --endpoints "http://127.0.0.1:$port" "$@"; }

port=$(free_port)
start_node "$tmp/trine" "$port" || exit 1
now=$tmp/first
check "scraped" scrape "$port"
scrape "$port" >"$now"

# --- names
for name in $names; do check "$name" grep -q "^# TYPE $name " "$now"; done
for name in $not_here; do check "gatewayd(8) tells why there is no $name" grep -q "$name" "$root/gatewayd/gatewayd.8"; done
equal "no metric is told twice" "" "$(grep '^# TYPE' "$now" | sort | uniq -d)"
equal "no series is told twice" "" "$(grep -v '^#' "$now" | sed 's/ [^ ]*$//' | sort | uniq -d)"
for name in grpc_server_started_total grpc_server_msg_received_total grpc_server_msg_sent_total; do
    equal "$name has every rpc" 49 "$(grep -c "^$name{.*grpc_service=\"\(etcdserverpb\|v3lockpb\|v3electionpb\)\." "$now")"
done
equal "every code of every rpc from the start" $((49 * 17)) \
    "$(grep -c '^grpc_server_handled_total{.*grpc_service="\(etcdserverpb\|v3lockpb\|v3electionpb\)\.' "$now")"
check "the version that is served" grep -q '^etcd_server_version{server_version="3.7.1"} 1$' "$now"
check "the version of the cluster" grep -q '^etcd_cluster_version{cluster_version="3.7"} 1$' "$now"
equal "there is a leader" 1 "$(value etcd_server_has_leader)"
equal "it is this one" 1 "$(value etcd_server_is_leader)"

# --- values
ctl put a 1 >/dev/null; ctl put a 2 >/dev/null; ctl get a >/dev/null; ctl del a >/dev/null
id=$(ctl lease grant 100 | cut -d' ' -f2); ctl lease revoke "$id" >/dev/null
ctl compaction 3 --physical >/dev/null 2>&1
printf 'put b 1\n' | ctl txn >/dev/null 2>&1
(sleep 0.3; ctl put w 1 >/dev/null) & timeout 1 etcdctl --endpoints "http://127.0.0.1:$port" watch w >/dev/null
wait $!
ctl get a --rev 1000 >/dev/null 2>&1
curl -fsS "http://127.0.0.1:$port/readyz" >/dev/null
curl -sS -X POST "http://127.0.0.1:$port/health" >/dev/null
now=$tmp/second
scrape "$port" >"$now"
at_least() { # NAME WANTED
    local v; v=$(value "$1")
    if [ -n "$v" ] && awk -v v="$v" -v w="$2" 'BEGIN { exit !(v >= w) }'; then ok "$1"; else not_ok "$1" "wanted at least $2, got $v"; fi
}
at_least etcd_mvcc_put_total 3
at_least etcd_mvcc_delete_total 1
at_least etcd_mvcc_range_total 1
at_least etcd_debugging_mvcc_total_put_size_in_bytes 20
at_least etcd_debugging_mvcc_events_total 1
at_least etcd_debugging_lease_granted_total 1
at_least etcd_debugging_lease_revoked_total 1
at_least etcd_debugging_lease_ttl_total_count 1
at_least etcd_debugging_mvcc_db_compaction_keys_total 1
at_least etcd_debugging_mvcc_db_compaction_last $(($(date +%s) - 60))
at_least etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count 1
at_least 'etcd_server_apply_duration_seconds_count{op="Put",success="true",version="v3"}' 3
at_least 'etcd_server_apply_duration_seconds_count{op="Compaction",success="true",version="v3"}' 1
at_least 'etcd_server_range_duration_seconds_count{success="true"}' 1
at_least 'etcd_server_range_duration_seconds_count{success="false"}' 1
at_least 'etcd_server_request_duration_seconds_count{success="true",type="Put"}' 3
at_least 'etcd_server_request_duration_seconds_count{success="false",type="Range"}' 1
at_least etcd_server_health_success 1
at_least 'etcd_server_healthcheck{name="linearizable_read",type="readyz"}' 1
at_least 'etcd_server_healthchecks_total{name="data_corruption",status="success",type="readyz"}' 1
at_least 'grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"}' 3
at_least 'grpc_server_handled_total{grpc_code="OutOfRange",grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary"}' 1
at_least etcd_disk_wal_fsync_duration_seconds_count 3
at_least etcd_disk_backend_commit_duration_seconds_count 3
at_least etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds_count 1
at_least etcd_debugging_server_watch_send_loop_control_stream_duration_seconds_count 1
at_least os_fd_used 5
at_least os_fd_limit 256
equal "kinds of clients" 2 "$(awk '/^etcd_server_client_requests_total/ && $2 > 0 { split($1, part, "type="); kinds[part[2]] = 1 } END { print length(kinds) }' "$now")"
equal "counters only grow" "" "$(awk 'NR == FNR { if ($1 == "#" && $2 == "TYPE" && $4 == "counter") counter[$3] = 1; else if ($1 != "#") was[$1] = $2; next }
    $1 != "#" { name = $1; sub(/[{].*/, "", name); if (counter[name] && $1 in was && $2 < was[$1]) print $1, was[$1], $2 }' "$tmp/first" "$tmp/second")"

# --- promtool: what it finds fault with are names that etcd has chosen
if command -v promtool >/dev/null; then
    for f in first second; do
        said=$(promtool check metrics <"$tmp/$f" 2>&1)
        equal "promtool ($f)" "" "$(grep -v '^etcd_[a-z_]* \(non-counter metrics should not have "_total" suffix\|counter metrics should have "_total" suffix\|use base unit\)' <<<"$said")"
    done
else
    echo "note: promtool is not installed (package prometheus)"
fi

# --- types and buckets are etcd's
etcd_port=$(free_port)
if start_etcd "$tmp/etcd" "$etcd_port"; then
    (port=$etcd_port; ctl put a 1 >/dev/null; ctl get a >/dev/null)
    scrape "$etcd_port" >"$tmp/theirs"
    types() { awk '$2 == "TYPE" && $3 !~ /^go_|^promhttp_/ { print $3, $4 }' "$1" | sort; }
    buckets() { grep '^etcd_.*_bucket{' "$1" | sed -E 's/^([a-z_]*)_bucket\{.*le="([^"]*)".*/\1 \2/' | awk '$2 != "+Inf" { $2 = sprintf("%.6f", $2) } { print }' | sort -u; }
    for what in types buckets; do
        $what "$tmp/second" >"$tmp/ours.$what"; $what "$tmp/theirs" >"$tmp/theirs.$what"
        # Only of names that both have.
        equal "$what of the names that both have" "" \
            "$(diff <(join <(cut -d' ' -f1 "$tmp/ours.$what" | sort -u) <(sort "$tmp/theirs.$what")) \
                <(join <(cut -d' ' -f1 "$tmp/theirs.$what" | sort -u) <(sort "$tmp/ours.$what")))"
    done
else
    not_ok "Debian's etcd starts"
fi

# --- three members: a line for each peer; the histograms of all methods on request
trio_start --metrics extensive || exit 1
for n in 1 2 3; do
    now=$tmp/trio.$n.metrics
    scrape "$(trio_port $n)" >"$now"
    for name in etcd_network_peer_sent_bytes_total etcd_network_peer_received_bytes_total etcd_network_peer_sent_failures_total \
        etcd_network_peer_received_failures_total etcd_network_snapshot_send_success etcd_network_snapshot_send_failures \
        etcd_network_snapshot_receive_success etcd_network_snapshot_receive_failures etcd_network_known_peers \
        etcd_network_active_peers etcd_network_peer_round_trip_time_seconds_count; do
        equal "member $n: $name" 2 "$(grep -c "^$name{" "$now")"
    done
    check "member $n: handling seconds" grep -q '^grpc_server_handling_seconds_count{grpc_method="Range"' "$now"
done
equal "one leads" 1 "$(cat "$tmp"/trio.?.metrics | grep -c '^etcd_server_is_leader 1')"
summary
