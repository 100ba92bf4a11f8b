#!/usr/bin/env bash
# Keys of the configuration do what trine.conf says that they do, seen from outside on one real node.
#   tests/node/test_keys.sh [BUILD_DIR]
build=$(realpath "${1:-build}")
. "$(dirname "$0")/../lib/node.sh"
export ETCDCTL_API=3
ctl() { timeout 10 etcdctl --command-timeout=5s --endpoints "127.0.0.1:$port" "$@" 2>&1; }
said() { if grep -qaE -- "$3" "$2"; then ok "$1"; else not_ok "$1" "wanted: $3
got:    $(tail -3 "$2")"; fi; }
port=$(free_port)

# wal-dir: the log is there and nowhere else, over a restart, too.
start_node "$tmp/wal" "$port" --wal-dir "$tmp/elsewhere/log" --warning-unary-request-duration 1ms --warning-apply-duration 1ms \
    --metrics extensive --raft-read-timeout 7s --raft-write-timeout 6s || exit 1
equal "wal-dir: put" OK "$(ctl put a b)"
check "wal-dir: the log is there" test -n "$(find "$tmp/elsewhere/log" -name '*.wal' -o -type f -name '[0-9]*')"
equal "wal-dir: mode" 700 "$(stat -c %a "$tmp/elsewhere/log")"
check "wal-dir: nothing below data-dir" test ! -e "$tmp/wal/raft"
equal "metrics extensive: times of requests" 1 "$(curl -s "http://127.0.0.1:$port/metrics" | grep -c '^grpc_server_handling_seconds_count{.*method="Put"')"
# 120 puts of 8 KB in one transaction are an apply of more than a millisecond, and a request, too.
{ echo; for i in $(seq 120); do printf 'put k%d %s\n' "$i" "$(printf '%08000d' "$i")"; done; echo; echo; } >"$tmp/txn"
for _ in $(seq 20); do ctl txn <"$tmp/txn" >/dev/null; done
said "warning-unary-request-duration: slow requests are logged" "$tmp/wal.log" 'a request took too long: /etcdserverpb.KV/(Put|Txn), took [0-9]+ ms, expected less than 1 ms'
said "warning-apply-duration: slow entries are logged" "$tmp/wal.log" 'apply: entries took too long: up to [0-9]+, took [0-9]+ ms, expected less than 1 ms'
stop_pid "$node_pid"
start_node "$tmp/wal" "$port" --wal-dir "$tmp/elsewhere/log" || exit 1
equal "wal-dir: the data is there after a restart" b "$(ctl get a --print-value-only)"
stop_pid "$node_pid"
# The log is where it was: no other is begun because the key is gone or a disk is not mounted, nor is a backup put under it.
mkdir "$tmp/unmounted"
begun() { timeout 10 "$build/bin/raftd" --data-dir "$tmp/wal" --run-dir "$tmp/wal/run" "$@" 2>&1; }
for at in "" "--wal-dir $tmp/unmounted"; do
    # shellcheck disable=SC2086
    check "wal-dir: no second log (${at:-no key})" grep -q "this member had one in $tmp/elsewhere/log" <(begun $at)
done
check "wal-dir: nothing was begun" test -z "$(find "$tmp/unmounted" "$tmp/wal/raft" -name '*.wal' 2>/dev/null)"
rm -f "$tmp/wal/raft/LOCK.pid"; rmdir "$tmp/wal/raft" 2>/dev/null
check "wal-dir: no backup is restored under a log that is there" grep -q "elsewhere/log is not empty" \
    <("$build/bin/stored" restore "$(dirname "$0")/../golden/etcd-3.4.db" --skip-hash-check --data-dir "$tmp/fresh" --wal-dir "$tmp/elsewhere/log" 2>&1)
start_node "$tmp/wal" "$port" --wal-dir "$tmp/elsewhere/log" || exit 1
equal "wal-dir: the log goes on where it was" b "$(ctl get a --print-value-only)"
equal "metrics basic: no times of requests" 0 "$(curl -s "http://127.0.0.1:$port/metrics" | grep -c '^grpc_server_handling_seconds')"
# bootstrap-defrag: what twenty transactions wrote is deleted and compacted; the next start gives it back.
rev=$(ctl del k --prefix -w json | jq .header.revision)
ctl compaction --physical "$rev" >/dev/null
stop_pid "$node_pid"
: >"$tmp/wal.log"
start_node "$tmp/wal" "$port" --wal-dir "$tmp/elsewhere/log" --bootstrap-defrag-threshold-megabytes 100000 || exit 1
if grep -q 'defrag: at the start' "$tmp/wal.log"; then not_ok "bootstrap-defrag: not for less than its threshold"; else ok "bootstrap-defrag: not for less than its threshold"; fi
stop_pid "$node_pid"
if [ "$(du -sm "$tmp/wal/store" | cut -f1)" -ge 2 ]; then
    start_node "$tmp/wal" "$port" --wal-dir "$tmp/elsewhere/log" --bootstrap-defrag-threshold-megabytes 1 || exit 1
    said "bootstrap-defrag: at the start" "$tmp/wal.log" 'defrag: at the start, to free some [0-9]+ bytes'
    check "bootstrap-defrag: is done" wait_for 10 grep -q 'defrag: finished' "$tmp/wal.log"
    equal "bootstrap-defrag: the data is there" b "$(ctl get a --print-value-only)"
    stop_pid "$node_pid"
fi

# log-*: several outputs, JSON, rotation.
start_node "$tmp/log" "$port" --log-outputs "stdout,$tmp/log.file" --log-format json --log-level debug || exit 1
equal "log-outputs, log-format: objects, and nothing else" "" "$(jq -r 'select((.level and .ts and .caller and .msg) | not)' "$tmp/log.file" 2>&1)"
for d in raftd stored gatewayd; do said "log-outputs: $d is in the file" "$tmp/log.file" "\"caller\":\"$d/"; done
said "log-outputs: and on stdout" "$tmp/log.log" '"caller":"raftd/'
said "log-level: details" "$tmp/log.file" '"level":"debug"'
stop_pid "$node_pid"
start_node "$tmp/rotate" "$port" --log-outputs "$tmp/rotate.file/a.log" 2>/dev/null >&2 && not_ok "log-outputs: a file that cannot be made is refused"
said "log-outputs: a file that cannot be made is named" "$tmp/rotate.log" 'log-outputs: .*/rotate.file/a.log: No such file or directory'
mkdir "$tmp/rotate.file"
start_node "$tmp/rotate" "$port" --log-outputs "$tmp/rotate.file/a.log" --log-level trace --enable-log-rotation true \
    --log-rotation-config-json '{"maxsize": 1, "maxbackups": 2}' || exit 1
i=0
while [ "$(find "$tmp/rotate.file" -name 'a-2*.log' | wc -l)" -lt 2 ] && [ $((i += 1)) -lt 60 ]; do
    for _ in 1 2 3 4 5 6; do ctl txn <"$tmp/txn" >/dev/null; curl -s "http://127.0.0.1:$port/metrics" >/dev/null; done
    timeout 5 "$build/bin/trine-probe" puts --port "$port" --book "$tmp/book" --count 2000 --streams 64 >/dev/null 2>&1
done
equal "log rotation: old files, at most two" 2 "$(find "$tmp/rotate.file" -name 'a-2*.log' | wc -l)"
for f in "$tmp/rotate.file"/a-2*.log; do check "log rotation: full, not more" test "$(stat -c %s "$f")" -le 1048576; done
stop_pid "$node_pid"

# memory-mlock: locked, or refused with a reason.
if start_node "$tmp/lock" "$port" --memory-mlock true >/dev/null 2>&1; then
    locked=$(awk '/^VmLck/ { print $2 }' "/proc/$(cat "$tmp/lock/stored.pid")/status")
    check "memory-mlock: stored is locked" test "$locked" -gt 1000
    stop_pid "$node_pid"
else
    said "memory-mlock: says why not" "$tmp/lock.log" 'memory-mlock: cannot lock memory'
fi
summary
