#!/usr/bin/env bash
# What a watcher far in the past costs the writers: put latency without one and with one that starts LAG revisions behind, again and
# again, on etcd and on Trine, in turn.
#   tests/bench/lag.sh [BIN_DIR]      LAG=500000 ROUNDS=3 SECONDS_EACH=5 CONNS=10 STREAMS=1
bin=$(realpath "${1:-build/bin}")
build=$(dirname "$bin")
. "$(dirname "$0")/../lib/node.sh"
lag=${LAG:-500000} rounds=${ROUNDS:-3} secs=${SECONDS_EACH:-5} conns=${CONNS:-10} streams=${STREAMS:-1}
etcd_port=$(free_port)
start_etcd "$tmp/etcd" "$etcd_port" || exit 1
trine_port=$(free_port)
start_node "$tmp/trine" "$trine_port" || exit 1

run() { # SERVER NAME options
    local server=$1 name=$2 port=$etcd_port; shift 2
    [ "$server" = etcd ] || port=$trine_port
    "$bin/trine-bench" --port "$port" --op put --conns "$conns" --streams "$streams" --seconds "$secs" "$@" |
        jq -c --arg server "$server" --arg name "$name" '. + {server: $server, name: $name}' >>"$tmp/lines"
}
for s in etcd trine; do
    port=$etcd_port
    [ $s = etcd ] || port=$trine_port
    "$bin/trine-bench" --port "$port" --op load --keys "$lag" >/dev/null
done
for _ in $(seq "$rounds"); do
    for s in etcd trine; do
        run $s alone
        run $s behind --lag "$lag"
    done
done
jq -rs 'def median: sort | .[(length - 1) / 2 | floor];
    group_by(.server)[] | {server: .[0].server} + (group_by(.name) | map({(.[0].name): {p50: map(.p50_us) | median, p99: map(.p99_us) | median,
        rate: map(.per_second) | median, events: map(.lag_events // 0) | add}}) | add)
    | "\(.server): put p50 \(.alone.p50) -> \(.behind.p50) us, p99 \(.alone.p99) -> \(.behind.p99) us (x \(.behind.p99 / .alone.p99 * 100 | round / 100)), \(.alone.rate | round) -> \(.behind.rate | round) puts/s, \(.behind.events) events read meanwhile"' "$tmp/lines"
