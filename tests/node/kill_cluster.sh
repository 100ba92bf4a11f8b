#!/usr/bin/env bash
# The leader's whole node is killed with -9 under load, CYCLES times, then stopped in order, TERMS times: how long do writes pause, and is
# anything lost? The ledger counts puts through all three nodes; a pause is its longest time between two acknowledgements.
#   CYCLES=10 TERMS=3 RATE=2000 ELECTION=500 tests/node/kill_cluster.sh [BUILD_DIR]
# Pauses are printed, in milliseconds and in election timeouts; a machine may be slow, so only what no machine explains fails.
set -uo pipefail
build=$(realpath "${1:-build}")
# shellcheck source=tests/lib/node.sh
. "$(dirname "$0")/../lib/node.sh"
cycles=${CYCLES:-10} terms=${TERMS:-3} election=${ELECTION:-500}

trio_start --heartbeat-interval $((election / 10)) --election-timeout "$election" || { not_ok "three nodes become healthy"; summary; exit 1; }
"$build/bin/trine-ledger" --port "$(trio_all)" --rate "${RATE:-2000}" >"$tmp/ledger" 2>&1 &
ledger=$!
_pids+=("$ledger")
sleep 1

gaps_told() { grep -c '^gap' "$tmp/ledger"; }
# The longest pause since the last call, in ms, in $gap.
gap_take() {
    local before
    before=$(gaps_told)
    kill -USR1 $ledger
    wait_for 5 eval '[ "$(gaps_told)" -gt '"$before"' ]' || return 1
    gap=$(awk '/^gap/ { g = $2 } END { print g }' "$tmp/ledger")
}
healthy() { local n; for n in 1 2 3; do health "$(trio_port $n)" || return 1; done; }
has_leader() { leader=$(trio_leader); [ -n "$leader" ]; }
pause() { sleep "$(awk -v ms="$1" 'BEGIN { print ms / 1000 }')"; }

# round HOW FILE: the leader goes away by HOW, the pause of writes goes to FILE, and the node comes back.
round() {
    wait_for 20 healthy && wait_for 10 has_leader || return 1
    pause $((election / 2 + RANDOM % election))
    has_leader
    gap_take
    "$1" "$leader"
    pause $((election * 5 / 2))
    gap_take || return 1
    # No pause has an end in sight yet: wait for it, it counts from the kill.
    while [ "$gap" -ge $((election * 5 / 2 - 20)) ] && [ "$gap" -lt $((election * 40)) ]; do
        local so_far=$gap
        pause "$election"
        gap_take || return 1
        [ "$gap" -ge "$election" ] && gap=$((gap > so_far ? gap : so_far + gap)) || { gap=$so_far; break; }
    done
    echo "$gap" >>"$2"
    trio_up "$leader"
}
distribution() { # NAME FILE
    sort -n "$2" | awk -v name="$1" -v e="$election" '{ g[NR] = $1 } END { m = g[int((NR + 1) / 2)]; q = g[int(NR * 0.9 + 0.999)];
        printf "%s: %d pauses of writes, ms: least %d, median %d (%.2f election timeouts), 90th %d, longest %d (%.2f)\n",
               name, NR, g[1], m, m / e, q, g[NR], g[NR] / e }'
}
median() { sort -n "$1" | awk '{ g[NR] = $1 } END { print g[int((NR + 1) / 2)] }'; }

touch "$tmp/kills" "$tmp/stops"
for ((i = 0; i < cycles; i++)); do
    round trio_kill "$tmp/kills" || { not_ok "cycle $i: the cluster serves with all members again" "$(tail -n 15 "$tmp"/trio.*.log)"; break; }
    kill -0 $ledger 2>/dev/null || break
    [ $(((i + 1) % 25)) != 0 ] || distribution "$((i + 1)) cycles" "$tmp/kills" >&2
done
for ((i = 0; i < terms && failed == 0; i++)); do
    round trio_down "$tmp/stops" || { not_ok "stop $i: the cluster serves with all members again" "$(tail -n 15 "$tmp"/trio.*.log)"; break; }
done
equal "the leader was killed $cycles times" "$cycles" "$(wc -l <"$tmp/kills")"
equal "the leader was stopped $terms times" "$terms" "$(wc -l <"$tmp/stops")"
wait_for 20 healthy && ok "all serve at the end" || not_ok "all serve at the end"

kill -TERM $ledger
wait $ledger
code=$?
grep -v '^gap' "$tmp/ledger"
equal "the ledger settles: nothing lost, doubled, missed or reordered" 0 $code
wait_for 20 trio_same && ok "all three have the same" || not_ok "all three have the same"
for n in 1 2 3; do trio_down $n; done
if grep -hE 'must|assert|Sanitizer|signal (6|11)' "$tmp"/trio.*.log | head -5 | grep .; then not_ok "no daemon found a bug of its own"; else ok "no daemon found a bug of its own"; fi
if [ -s "$tmp/kills" ]; then
    distribution "leader killed" "$tmp/kills"
    [ "$(median "$tmp/kills")" -lt $((election * 2)) ] && ok "writes resume after a kill" || not_ok "writes resume after a kill" "$(cat "$tmp/kills")"
fi
if [ -s "$tmp/stops" ]; then
    distribution "leader stopped" "$tmp/stops"
    [ "$(median "$tmp/stops")" -lt "$election" ] && ok "writes go on after a stop" || not_ok "writes go on after a stop" "$(cat "$tmp/stops")"
fi
[ $failed = 0 ] || tail -n 40 "$tmp"/trio.*.log
summary
