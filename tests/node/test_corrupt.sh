#!/usr/bin/env bash
# Three real nodes, one of which comes back with another state than the others: it is found within 2 seconds of the first write,
# CORRUPT is raised for it and nothing is served that could be wrong; with another member's store it agrees again.
#   tests/node/test_corrupt.sh [BUILD_DIR]
set -uo pipefail
build=$(realpath "${1:-build}")

# shellcheck source=tests/lib/node.sh
. "$(dirname "$0")/../lib/node.sh"

now_ms() { date +%s%3N; }
member_id() { trio_ctl "$1" endpoint status -w json | grep -o '"member_id":[0-9]*' | cut -d: -f2; }
leader_id() { trio_ctl "$1" endpoint status -w json | grep -o '"leader":[0-9]*' | cut -d: -f2; }
listed() { trio_ctl "$1" alarm list | grep -q CORRUPT; }
silent() { ! grep -q "different states" "$tmp"/trio.?.log; }
refused() { # N COMMAND...
    local out
    out=$(trio_ctl "$@" 2>&1) && { echo "was served: $out"; return 1; }
    grep -q "corrupt cluster" <<<"$out" || { echo "$out"; return 1; }
}
unhealthy() { curl -sS -m 2 "http://127.0.0.1:$(trio_port "$1")/health" | grep -q "ALARM CORRUPT"; }
measured() {
    curl -fsS -m 2 "http://127.0.0.1:$(trio_port "$1")/metrics" >"$tmp/metrics" &&
        grep -q '^etcd_debugging_server_alarms{.*alarm_type="CORRUPT".* 1' "$tmp/metrics"
}
puts() { local i; for i in $(seq 40); do trio_ctl "$1" put "key/$i" "value-$i" || return 1; done; }
same_again() { grep -q "has the same state again" "$tmp"/trio.?.log; }

trio_init
for n in 1 2 3; do trio_up $n; done
for n in 1 2 3; do check "node $n serves" wait_for 20 health "$(trio_port $n)"; done
check "writes" puts 1
leader=$(leader_id 1)
for n in 1 2 3; do [ "$(member_id $n)" = "$leader" ] && lead=$n; done
odd=$((lead % 3 + 1))
third=$((6 - lead - odd))
odd_id=$(printf '%x' "$(member_id $odd)")

# --- members that agree are left alone, over restarts and snapshots too ---
trio_down "$odd"
check "writes while a node is away" puts "$third"
trio_up "$odd"
check "it is back" wait_for 20 trio_ctl "$odd" get key/1
check "a lease" trio_ctl "$third" lease grant 100
check "compaction" trio_ctl "$third" compact 20
sleep 1
compared() { # N: how often the same state was found
    curl -fsS -m 2 "http://127.0.0.1:$(trio_port "$1")/metrics" | sed -n 's/^trine_raftd_states_compared_total{found="same"} //p'
}
check "states were compared" [ "$(compared "$lead")" -gt 5 ]
check "no difference is seen where there is none" silent

# --- one differs ---
trio_down "$odd"
check "its store is altered" "$build/bin/trine-alter" "$tmp/trio/$odd/store/db" value-7
trio_up "$odd"
wait_for 20 trio_ctl "$odd" get key/1 --consistency=s
trio_ctl "$third" put after restart >/dev/null 2>&1
begun=$(now_ms)
check "CORRUPT is raised" wait_for 10 listed "$third"
took=$(($(now_ms) - begun))
check "within 2 s (it took $took ms)" [ "$took" -lt 2000 ]
check "for the member that differs" grep -q "CORRUPT raised for member $odd_id" "$tmp/trio.$third.log"
check "the leader's log names both members and the entry" grep -qE "members [0-9a-f]+ and $odd_id have different states after entry [0-9]+" "$tmp/trio.$lead.log"
check "once" [ "$(cat "$tmp"/trio.?.log | grep -c 'different states')" = 1 ]
for n in "$lead" "$odd" "$third"; do
    check "node $n refuses writes" refused "$n" put a b
    check "node $n refuses linearizable reads" refused "$n" get key/1
    check "node $n: /health" wait_for 5 unhealthy "$n"
    check "node $n: /metrics" measured "$n"
done
check "deletes" refused "$third" del key/1
check "transactions" refused "$third" txn <<<$'\n\nput a b\n\n\n'
check "compactions" refused "$third" compact 30
check "leases" refused "$third" lease grant 10
check "serializable reads are served" trio_ctl "$third" get key/1 --consistency=s

# --- repair: the member gets a state that is the others' ---
trio_down "$odd"
rm -rf "$tmp/trio/$odd/store"
trio_up "$odd"
check "the member agrees again" wait_for 30 same_again
check "disarm" trio_ctl "$third" alarm disarm
check "writes again" wait_for 5 trio_ctl "$third" put a b
check "reads again" trio_ctl "$odd" get a
sleep 1
check "the alarm stays away" [ -z "$(trio_ctl "$third" alarm list)" ]
check "the altered value is gone" [ "$(trio_ctl "$odd" get key/7 --print-value-only --consistency=s)" = value-7 ]
summary
