#!/usr/bin/env bash
# Real nodes, cut apart, paused and killed under recorded load; trine-lincheck checks each short history: linearizable, no old value read
# on any side of any cut, watchers told everything once and in order. After each, all members must have the same again.
#   tests/node/partition.sh [BUILD_DIR]      HISTORIES=7 NODES=3 LOAD_SECONDS=3 SCENARIOS="leader_isolated ..."
# Where network namespaces cannot be made, only pauses and kills remain, on loopback, and the output says so.
set -uo pipefail
build=$(realpath "${1:-build}")
# shellcheck source=tests/lib/node.sh
. "$(dirname "$0")/../lib/node.sh"
# shellcheck source=tests/lib/netns.sh
. "$(dirname "$0")/../lib/netns.sh"
histories=${HISTORIES:-7} nodes=${NODES:-3} seconds=${LOAD_SECONDS:-3}
election=300

if ! net_open "$nodes"; then
    echo "skipped: cuts between nodes, for there are no network namespaces here: $net_why"
    NET=loopback net_open "$nodes"
fi
cluster_open --heartbeat-interval 30 --election-timeout $election || { not_ok "$nodes nodes become healthy"; summary; exit 1; }

# --- faults: each has about two seconds, knows the leader as $l and a follower as $f, and need not clean up ---------
others() { local n; for ((n = 1; n <= nodes; n++)); do [ "$n" = "$1" ] || printf '%s ' "$n"; done; }
nap() { sleep "$(awk -v a="$1" -v b="$2" -v r=$RANDOM 'BEGIN { print a + (b - a) * r / 32768 }')"; }

leader_isolated() { isolate "$l"; nap 0.8 1.6; heal; }
follower_isolated() { isolate "$f"; nap 0.8 1.6; heal; }
leader_unheard() { local n; for n in $(others "$l"); do sever_way "$l" "$n"; done; nap 0.8 1.6; heal; }
leader_deaf() { local n; for n in $(others "$l"); do sever_way "$n" "$l"; done; nap 0.8 1.6; heal; }
follower_unheard() { local n; for n in $(others "$f"); do sever_way "$f" "$n"; done; nap 0.8 1.6; heal; }
follower_deaf() { local n; for n in $(others "$f"); do sever_way "$n" "$f"; done; nap 0.8 1.6; heal; }
leader_paused() { cluster_pause "$l"; nap 0.7 1.5; cluster_resume "$l"; }
leader_raftd_paused() { kill -STOP "$(cat "$tmp/n$l/raftd.pid")"; nap 0.7 1.5; cluster_resume "$l"; }
leader_stored_paused() { kill -STOP "$(cat "$tmp/n$l/stored.pid")"; nap 0.7 1.5; cluster_resume "$l"; }
follower_paused() { cluster_pause "$f"; nap 0.7 1.5; cluster_resume "$f"; }
flapping() {
    local i
    for ((i = 0; i < 6; i++)); do
        case $((RANDOM % 4)) in
            0) isolate $((RANDOM % nodes + 1)) ;;
            1) sever "$l" "$f" ;;
            2) sever_way "$l" "$f" ;;
            3) sever_way "$f" "$l" ;;
        esac
        nap 0.1 0.4
        heal
        nap 0.02 0.2
    done
}
one_link_cut() { sever "$l" "$f"; nap 1 1.8; heal; } # the others see both
# The leader is on the smaller side, with others if it can have some.
majority_away() {
    local side="$l" rest='' n
    for n in $(others "$l"); do
        if [ "$(wc -w <<<"$side")" -lt $(((nodes - 1) / 2)) ]; then side+=" $n"; else rest+=" $n"; fi
    done
    sever_sides "$side" "$rest"
    nap 1 1.8
    heal
}
nobody_hears() { local n; for ((n = 1; n <= nodes; n++)); do for m in $(others $n); do sever_way $n "$m"; done; done; nap 0.5 1.2; heal; }
# Paused, and when it comes back it is cut off: it must not answer from what it had.
paused_and_isolated() { cluster_pause "$l"; isolate "$l"; nap 0.7 1.2; cluster_resume "$l"; nap 0.4 0.8; heal; }
leader_killed() { cluster_kill "$l"; nap 0.8 1.2; cluster_up "$l"; }
follower_killed() { cluster_kill "$f"; nap 0.4 1; cluster_up "$f"; }
raftd_killed() { kill -9 "$(cat "$tmp/n$l/raftd.pid")"; nap 0.5 1; }
stored_killed() { kill -9 "$(cat "$tmp/n$f/stored.pid")"; nap 0.5 1; kill -9 "$(cat "$tmp/n$l/stored.pid")"; }
leader_stopped() { cluster_down "$l"; nap 0.2 0.6; cluster_up "$l"; }
leader_moved() { # again and again
    local to
    for to in "$f" "$l" "$f"; do
        cluster_ctl "$(cluster_leader)" move-leader "$(cluster_ctl "$to" endpoint status | awk -F', ' '{ print $2 }')" >/dev/null 2>&1
        nap 0.1 0.4
    done
}
isolated_and_killed() { isolate "$l"; nap 0.3 0.7; cluster_kill "$l"; cluster_up "$l"; nap 0.4 0.8; heal; }

# The first of them are what `make check` takes.
if net_can_cut; then
    all="leader_isolated leader_paused leader_deaf flapping majority_away follower_isolated paused_and_isolated leader_unheard follower_unheard
         one_link_cut follower_deaf leader_raftd_paused leader_killed nobody_hears leader_stored_paused follower_paused isolated_and_killed
         follower_killed leader_stopped leader_moved raftd_killed stored_killed"
else
    all="leader_paused leader_killed follower_paused leader_raftd_paused follower_killed leader_stored_paused leader_stopped leader_moved raftd_killed stored_killed"
fi
read -ra scenarios <<<"$(echo "${SCENARIOS:-$all}" | tr '\n' ' ')"

# lincheck NAME SCENARIO OPTIONS: one history; its last line is in $line, the exit code in $code.
lincheck() {
    local name=$1 scenario=$2 check
    shift 2
    l=$(cluster_leader)
    # shellcheck disable=SC2046
    f=$(printf '%s\n' $(others "${l:-1}") | shuf -n 1)
    l=${l:-1}
    net_in c "$build/bin/trine-lincheck" --endpoints "$(cluster_endpoints)" --history "$name" --seconds "$seconds" "$@" >"$tmp/history" 2>&1 &
    check=$!
    _pids+=("$check")
    sleep 0.3
    $scenario
    wait $check
    code=$?
    line=$(tail -1 "$tmp/history")
}
number() { sed -nE "s/.*$1 ([0-9]+).*/\1/p" <<<"$line"; }

# First of all: would an old value be seen? Reads that may be old, recorded as if they must not be.
seen=0
for i in 1 2 3; do
    lincheck "pretend$i" "$(net_can_cut && echo follower_isolated || echo leader_raftd_paused)" --pretend
    [ "$(number violations)" = 0 ] || seen=$((seen + 1))
done
[ $seen -gt 0 ] && ok "old values would be seen (in $seen of 3 histories with serializable reads)" || not_ok "old values would be seen" "$line"

checked=0 operations=0 unanswered=0 events=0 undecided=0 violations=0
for ((i = 0; i < histories; i++)); do
    scenario=${scenarios[i % ${#scenarios[@]}]}
    lincheck "$i" "$scenario"
    checked=$((checked + 1))
    for what in operations unanswered events undecided violations; do printf -v "$what" '%d' $((${!what} + $(number $what))) ; done
    if [ $code = 0 ]; then ok "history $i: $scenario"; else not_ok "history $i: $scenario (leader $l, follower $f)" "$(cat "$tmp/history")"; fi
    if ! wait_for 15 cluster_same; then
        not_ok "history $i: $scenario: all members have the same afterwards" "$(for ((n = 1; n <= nodes; n++)); do cluster_ctl $n endpoint hashkv; done 2>&1)"
    fi
    # A loop that goes on for an hour keeps what it knows of a failure.
    [ $failed = 0 ] || { tail -n 40 "$tmp"/n?.log; break; }
    [ $(((i + 1) % 20)) != 0 ] || echo "$((i + 1)) histories, $operations operations, $unanswered unanswered, $violations violations" >&2
done
[ $failed != 0 ] || ok "after each, all members had the same revision and hash"
if grep -hE 'must|assert|Sanitizer|signal (6|11)' "$tmp"/n?.log | head -5 | grep .; then not_ok "no daemon found a bug of its own"; else ok "no daemon found a bug of its own"; fi
echo "histories checked $checked on $nodes nodes ($net_kind), operations $operations, unanswered $unanswered, events $events, undecided $undecided, violations $violations"
summary
