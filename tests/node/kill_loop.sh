#!/usr/bin/env bash
# Kills the daemons with -9, one after the other, under load, CYCLES times; the ledger then says whether anything acknowledged
# was lost, applied twice, or missed by a watcher that resumes.
#   CYCLES=30 tests/node/kill_loop.sh [BUILD_DIR]        DAEMONS="raftd stored gatewayd" RATE=2000 STRICT=
#   NODES=3: a cluster of three; DAEMONS may name `node` too, all of one node at once, and `leader`, all of the leader's.
build=$(realpath "${1:-build}")
. "$(dirname "$0")/../lib/node.sh"
cycles=${CYCLES:-30}
read -ra daemons <<<"${DAEMONS:-raftd stored gatewayd}"
nodes=${NODES:-1}
if [ "$nodes" = 3 ]; then
    # Short timeouts: the loop is about what is lost, not about how long it takes.
    trio_start --heartbeat-interval 50 --election-timeout 500 || exit 1
    ports=("${trio_ports[@]}")
    dirs=("$tmp/trio/1" "$tmp/trio/2" "$tmp/trio/3")
else
    ports=("$(free_port)")
    dirs=("$tmp/node")
    start_node "$tmp/node" "${ports[0]}" || exit 1
fi

"$build/bin/trine-ledger" --port "$(IFS=,; echo "${ports[*]}")" --rate "${RATE:-2000}" ${STRICT:+--strict} >"$tmp/ledger" 2>&1 &
ledger=$!
_pids+=($ledger)
sleep 0.3

killed=0 slow=0
for ((i = 0; i < cycles; i++)); do
    d=${daemons[i % ${#daemons[@]}]}
    n=$((nodes > 1 ? RANDOM % nodes : 0))
    if [ "$d" = leader ]; then l=$(trio_leader); n=$((${l:-1} - 1)); fi
    case $d in
        node | leader)
            trio_kill $((n + 1)) && killed=$((killed + 1))
            trio_up $((n + 1))
            back=true ;;
        *)
            old=$(cat "${dirs[n]}/$d.pid")
            kill -9 "$old" 2>/dev/null && killed=$((killed + 1))
            back='[ "$(cat "${dirs[n]}/$d.pid")" != "$old" ]' ;;
    esac
    # a new one of it is up, and the whole node serves
    if ! wait_for 10 eval "$back" || ! wait_for 20 health "${ports[n]}"; then
        not_ok "cycle $i: node $((n + 1)) serves again after kill -9 of $d" "$(tail -n 20 "$tmp"/*."$((n + 1))".log "$tmp/node.log" 2>/dev/null)"
        slow=$((slow + 1))
        break
    fi
    sleep 0.$((RANDOM % 3))$((RANDOM % 10))
    kill -0 $ledger 2>/dev/null || break
    [ $(((i + 1) % 100)) != 0 ] || echo "$((i + 1)) cycles" >&2
done
equal "$cycles kills happened" "$cycles" "$killed"
equal "the node served again after each" 0 "$slow"

kill -TERM $ledger
wait $ledger
code=$?
cat "$tmp/ledger"
equal "the ledger settles: nothing lost, doubled, missed or reordered" 0 $code
if [ "$nodes" = 3 ]; then
    wait_for 20 trio_same && ok "all three have the same" || not_ok "all three have the same"
    for n in 1 2 3; do trio_down $n; done
    cat "$tmp"/trio.*.log >"$tmp/node.log"
else
    kill -0 $node_pid 2>/dev/null && ok "the runner is still there" || not_ok "the runner is still there"
    stop_pid $node_pid
fi
if grep -E 'must|assert|Sanitizer|signal (6|11)' "$tmp/node.log" | head -5 | grep .; then not_ok "no daemon found a bug of its own"; else ok "no daemon found a bug of its own"; fi
[ $failed = 0 ] || tail -60 "$tmp/node.log"
summary
