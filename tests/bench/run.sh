#!/usr/bin/env bash
# The same rows against etcd and Trine, in turn, in one run: throughput, latency, server CPU per operation, memory, ratios.
#   tests/bench/run.sh [BIN_DIR]      ROUNDS=3 SECONDS_EACH=5 KEYS=100000 VALUE=256 ROWS="put get ..." ETCD=etcd JSON=build/bench.json
# Medians over ROUNDS; the two servers take turns within each round, so that a noisy machine is noisy for both.
bin=$(realpath "${1:-build/bin}")
build=$(dirname "$bin")
. "$(dirname "$0")/../lib/node.sh"
rounds=${ROUNDS:-3} secs=${SECONDS_EACH:-5} keys=${KEYS:-100000} value=${VALUE:-256} json=${JSON:-$build/bench.json}
# name:operation:connections:streams
rows=${ROWS:-"put:put:100:10 get:get:100:10 get-serial:get-serial:100:10 txn:txn:100:10 range500:range500:10:4 lease-grant:lease-grant:100:10 put-1:put:1:1 get-1:get:1:1 watch:watch:100:10"}

etcd_port=$(free_port)
start_etcd "$tmp/etcd" "$etcd_port" || exit 1
trine_port=$(free_port)
start_node "$tmp/trine" "$trine_port" || exit 1
trine_pids() { cat "$tmp"/trine/{raftd,stored,gatewayd}.pid | paste -sd,; }

run() { # SERVER OP CONNS STREAMS
    local port pids
    if [ "$1" = etcd ]; then port=$etcd_port pids=$etcd_pid; else port=$trine_port pids=$(trine_pids); fi
    "$bin/trine-bench" --port "$port" --pids "$pids" --op "$2" --conns "$3" --streams "$4" --keys "$keys" --value "$value" --seconds "$secs" |
        jq -c --arg server "$1" --arg row "$row" '. + {server: $server, row: $row}' | tee -a "$tmp/lines"
}

echo "machine: $(nproc) x $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(uname -r); etcd $("${ETCD:-etcd}" --version | sed -n 's/etcd Version: //p'); $keys keys of $value bytes, median of $rounds rounds of $secs s" | tee "$tmp/machine"
row=load
for s in etcd trine; do run $s load 100 10 >/dev/null; done
for round in $(seq "$rounds"); do
    for r in $rows; do
        IFS=: read -r row op conns streams <<<"$r"
        for s in etcd trine; do run $s "$op" "$conns" "$streams" >/dev/null || echo "round $round: $row on $s had errors: $(tail -1 "$tmp/lines")"; done
    done
done

jq -s --arg machine "$(cat "$tmp/machine")" '
    def median: sort | .[(length - 1) / 2 | floor];
    {machine: $machine, rows: (group_by(.row) | map({row: .[0].row} + (group_by(.server) | map({(.[0].server): {
        per_second: map(.per_second) | median, p50_us: map(.p50_us) | median, p99_us: map(.p99_us) | median,
        cpu_us_per_op: map(.cpu_us_per_op) | median, rss_kb: map(.rss_kb) | max, errors: map(.errors) | add}}) | add))
     | map(. + {ratio: {per_second: (.trine.per_second / .etcd.per_second), cpu: (if .trine.cpu_us_per_op > 0 then .etcd.cpu_us_per_op / .trine.cpu_us_per_op else null end)}}))}' \
    "$tmp/lines" >"$json"
{
    echo "row etcd/s trine/s x etcd-p50us trine-p50us etcd-p99us trine-p99us etcd-cpu-us/op trine-cpu-us/op x-per-cpu etcd-MB trine-MB errors"
    jq -r '.rows[] | [.row, (.etcd.per_second|round), (.trine.per_second|round), (.ratio.per_second*100|round/100), .etcd.p50_us, .trine.p50_us,
        .etcd.p99_us, .trine.p99_us, (.etcd.cpu_us_per_op*10|round/10), (.trine.cpu_us_per_op*10|round/10), ((.ratio.cpu // 0)*10|round/10),
        (.etcd.rss_kb/1024|round), (.trine.rss_kb/1024|round), (.etcd.errors + .trine.errors)] | @tsv' "$json"
} | column -t
echo "json: $json"
