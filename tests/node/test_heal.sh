#!/usr/bin/env bash
# Three real nodes, in network namespaces: a follower that was cut from the leader serves again soon after the cut has healed, and what
# its clients had under way when the connection broke is answered then, not by a timeout. The leader stays who it is.
#   tests/node/test_heal.sh [BUILD_DIR]
set -uo pipefail
build=$(realpath "${1:-build}")
# shellcheck source=tests/lib/node.sh
. "$(dirname "$0")/../lib/node.sh"
# shellcheck source=tests/lib/netns.sh
. "$(dirname "$0")/../lib/netns.sh"

if ! net_open 3; then
    echo "skipped: there are no network namespaces here: $net_why"
    summary
    exit
fi
election=500
cluster_open --heartbeat-interval 50 --election-timeout $election || { not_ok "three nodes become healthy"; summary; exit 1; }
now_ms() { date +%s%3N; }

puts() { # N: each with when it began, how long it took and how it ended, until told to stop
    local i=0 begun
    while [ ! -e "$tmp/stop" ]; do
        begun=$(now_ms)
        cluster_ctl "$1" put "k$((i = i + 1))" "$i" >/dev/null 2>&1
        echo "$begun $(($(now_ms) - begun)) $?" >>"$tmp/puts"
    done
}
for round in 1 2; do
    rm -f "$tmp/stop"
    : >"$tmp/puts"
    l=$(cluster_leader)
    for f in 1 2 3; do [ "$f" = "$l" ] || break; done
    puts "$f" &
    writer=$!
    sleep 0.5
    sever "$l" "$f"
    sleep 1.7 # three election timeouts: both sides have given the connection up
    healed=$(now_ms)
    heal
    sleep 3
    touch "$tmp/stop"
    wait $writer
    served=$(awk -v h="$healed" '$3 == 0 && $1 + $2 > h { print $1 + $2 - h; exit }' "$tmp/puts")
    longest=$(awk '$2 > m { m = $2 } END { print m + 0 }' "$tmp/puts")
    check "round $round: the follower serves soon after the cut has healed (${served:-never} ms)" test "${served:-9999}" -lt 1500
    check "round $round: what was under way did not wait for a timeout (longest $longest ms)" test "$longest" -lt 4000
    equal "round $round: no write failed" 0 "$(awk '$3 != 0' "$tmp/puts" | wc -l)"
    equal "round $round: the leader is the same" "$l" "$(cluster_leader)"
done
wait_for 20 cluster_same && ok "all three have the same" || not_ok "all three have the same"
for n in 1 2 3; do cluster_down $n; done
[ $failed = 0 ] || tail -n 30 "$tmp"/n?.log
summary
