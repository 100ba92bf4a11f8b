#!/usr/bin/env bash
# Kills the daemons with -9, one after the other, under load, CYCLES times; the ledger then says whether anything acknowledged
# was lost, applied twice, or missed by a watcher that resumes.
#   CYCLES=30 tests/node/kill_loop.sh [BUILD_DIR]        DAEMONS="raftd stored gatewayd" RATE=2000 STRICT=
build=$(realpath "${1:-build}")
. "$(dirname "$0")/../lib/node.sh"
cycles=${CYCLES:-30}
read -ra daemons <<<"${DAEMONS:-raftd stored gatewayd}"
port=$(free_port)
start_node "$tmp/node" "$port" || exit 1

"$build/bin/trine-ledger" --port "$port" --rate "${RATE:-2000}" ${STRICT:+--strict} >"$tmp/ledger" 2>&1 &
ledger=$!
_pids+=($ledger)
sleep 0.3

killed=0 slow=0
for ((i = 0; i < cycles; i++)); do
    d=${daemons[i % ${#daemons[@]}]}
    old=$(cat "$tmp/node/$d.pid")
    kill -9 "$old" 2>/dev/null && killed=$((killed + 1))
    # a new one of it is up, and the whole node serves
    if ! wait_for 10 eval '[ "$(cat "$tmp/node/$d.pid")" != "$old" ]' || ! wait_for 20 health "$port"; then
        not_ok "cycle $i: the node serves again after kill -9 of $d" "$(tail -20 "$tmp/node.log")"
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
kill -0 $node_pid 2>/dev/null && ok "the runner is still there" || not_ok "the runner is still there"
stop_pid $node_pid
if grep -E 'must|assert|Sanitizer' "$tmp/node.log" | head -5 | grep .; then not_ok "no daemon found a bug of its own"; else ok "no daemon found a bug of its own"; fi
[ $failed = 0 ] || tail -60 "$tmp/node.log"
summary
