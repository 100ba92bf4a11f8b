#!/usr/bin/env bash
# A new member of a large store catches up while writes go on: how long does it take, how long do writes pause meanwhile, how long
# does the new store's taking its place stop its stored, and is nothing lost?
#   SIZE_MB=1000 RATE=500 BYTES_PER_SECOND=67108864 tests/node/catch_up.sh [BUILD_DIR]
# Not part of `make check`, where test_snapshot.sh does the same with a small store. Needs about ten times SIZE_MB of disk.
set -uo pipefail
build=$(realpath "${1:-build}")
# shellcheck source=tests/lib/node.sh
. "$(dirname "$0")/../lib/node.sh"
size_mb=${SIZE_MB:-1000} rate=${RATE:-500} bandwidth=${BYTES_PER_SECOND:-67108864}

trio_start --quota-backend-bytes $((16 << 30)) --snapshot-bytes-per-second "$bandwidth" || { not_ok "three nodes become healthy"; summary; exit 1; }
f=$(trio_follower) l=$(trio_leader)
"$build/bin/trine-bench" --port "$(trio_port "$l")" --op load --conns 8 --streams 16 --keys $((size_mb * 1000)) --value 1000 --seconds 600 >"$tmp/load"
size() { du -sm "$tmp/trio/$1/store" | cut -f1; }
echo "loaded: store of the leader $(size "$l") MB"

old=$(trio_ctl "$l" member list | grep ":${trio_peers[f - 1]}" | cut -d, -f1)
check "a member is removed" trio_ctl "$l" member remove "$old"
wait "${trio_runner[$f]}" 2>/dev/null
rm -rf "${tmp:?}/trio/$f"
check "a new one is added in its place" wait_for 10 trio_ctl "$l" member add "n$f" --peer-urls "http://localhost:${trio_peers[f - 1]}"

others=$(for n in 1 2 3; do [ $n = "$f" ] || trio_port $n; done | paste -sd,)
"$build/bin/trine-ledger" --port "$others" --rate "$rate" --shared >"$tmp/ledger" 2>&1 &
ledger=$!
_pids+=("$ledger")
sleep 2
kill -USR1 $ledger
sleep 0.2
: >"$tmp/trio.$f.log"
trio_options+=(--initial-cluster-state existing)
begun=$(date +%s%3N)
trio_up "$f"
check "it has caught up" wait_for $((60 + size_mb / 2)) health "$(trio_port "$f")"
took=$(($(date +%s%3N) - begun))
kill -USR1 $ledger
sleep 0.2
gap=$(awk '/^gap/ { g = $2 } END { print g }' "$tmp/ledger")
swap=$(sed -n 's/.*snap: the store is now as of .*took \([0-9]*\) ms/\1/p' "$tmp/trio.$f.log" | tail -1)
check "by a snapshot" test -n "$swap"
kill -TERM $ledger
wait $ledger
equal "the ledger settles: nothing lost, doubled, missed or reordered" 0 $?
grep -v '^gap' "$tmp/ledger"
check "all three have the same" wait_for 60 trio_same
echo "caught up with $(size "$f") MB in $took ms while $rate puts/s went on: longest pause of writes $gap ms, the change of stores stopped it for $swap ms"
for n in 1 2 3; do trio_down $n; done
[ $failed = 0 ] || tail -n 30 "$tmp"/trio.*.log
summary
