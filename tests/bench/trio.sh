#!/usr/bin/env bash
# Three members of etcd and three of Trine on this machine, in one run, in turn: puts a second, CPU of all members per put, memory, and ratios.
# Once with connections spread over all members, once all of them to the leader.
#   tests/bench/trio.sh [BIN_DIR]      ROUNDS=3 SECONDS_EACH=5 CONNS=100 STREAMS=10 KEYS=100000 VALUE=256 ETCD=etcd JSON=build/bench-trio.json
# Only one of the two clusters works at a time; the other one idles: its heartbeats are the noise that is left.
set -uo pipefail
bin=$(realpath "${1:-build/bin}")
build=$(dirname "$bin")
# shellcheck source=tests/lib/node.sh
. "$(dirname "$0")/../lib/node.sh"
rounds=${ROUNDS:-3} secs=${SECONDS_EACH:-5} conns=${CONNS:-100} streams=${STREAMS:-10} keys=${KEYS:-100000} value=${VALUE:-256}
json=${JSON:-$build/bench-trio.json}

declare -A etcd_ports etcd_pids
etcd_trio() {
    local n cluster='' peers=()
    for n in 1 2 3; do
        etcd_ports[$n]=$(free_port)
        peers[n]=$(free_port)
        cluster+="${cluster:+,}n$n=http://localhost:${peers[n]}"
    done
    for n in 1 2 3; do
        "${ETCD:-etcd}" --name "n$n" --data-dir "$tmp/etcd$n" --listen-client-urls "http://127.0.0.1:${etcd_ports[$n]}" \
            --advertise-client-urls "http://127.0.0.1:${etcd_ports[$n]}" --listen-peer-urls "http://127.0.0.1:${peers[n]}" \
            --initial-advertise-peer-urls "http://localhost:${peers[n]}" --initial-cluster "$cluster" --log-level error >>"$tmp/etcd$n.log" 2>&1 &
        etcd_pids[$n]=$!
        _pids+=($!)
    done
    for n in 1 2 3; do wait_for 20 health "${etcd_ports[$n]}" || { tail -5 "$tmp/etcd$n.log"; return 1; }; done
}
etcd_trio || { echo "three etcd do not start"; exit 1; }
trio_start || { echo "three nodes of Trine do not start"; exit 1; }

pids_of() {
    if [ "$1" = etcd ]; then (IFS=,; echo "${etcd_pids[*]}"); else cat "$tmp"/trio/[123]/{raftd,stored,gatewayd}.pid | paste -sd,; fi
}
ports_of() { if [ "$1" = etcd ]; then echo "${etcd_ports[1]} ${etcd_ports[2]} ${etcd_ports[3]}"; else echo "${trio_ports[*]}"; fi; }
leader_port() {
    local p
    for p in $(ports_of "$1"); do
        curl -s -m 2 "http://127.0.0.1:$p/metrics" | grep '^etcd_server_is_leader 1' >/dev/null && { echo "$p"; return; }
    done
}
run() { # SERVER ROW OP
    local port
    if [ "$2" = leader ]; then port=$(leader_port "$1"); else port=$(ports_of "$1" | tr ' ' ,); fi
    "$bin/trine-bench" --port "$port" --pids "$(pids_of "$1")" --op "$3" --conns "$conns" --streams "$streams" --keys "$keys" \
        --value "$value" --seconds "$secs" | jq -c --arg server "$1" --arg row "$2" '. + {server: $server, row: $row}' | tee -a "$tmp/lines"
}

echo "machine: $(nproc) x $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(uname -r); etcd $("${ETCD:-etcd}" --version | sed -n 's/etcd Version: //p'); three members each, $conns connections x $streams streams, $keys keys of $value bytes, median of $rounds rounds of $secs s" | tee "$tmp/machine"
for s in etcd trine; do run $s load load >/dev/null; done
for ((round = 1; round <= rounds; round++)); do
    for row in ${ROWS:-spread leader}; do
        for s in etcd trine; do run $s "$row" put >/dev/null || echo "round $round: $row on $s had errors: $(tail -1 "$tmp/lines")"; done
    done
done

jq -s --arg machine "$(cat "$tmp/machine")" '
    def median: sort | .[(length - 1) / 2 | floor];
    {machine: $machine, rows: (map(select(.row != "load")) | group_by(.row) | map({row: .[0].row} + (group_by(.server) | map({(.[0].server): {
        per_second: map(.per_second) | median, p50_us: map(.p50_us) | median, p99_us: map(.p99_us) | median,
        cpu_us_per_op: map(.cpu_us_per_op) | median, rss_kb: map(.rss_kb) | max, errors: map(.errors) | add}}) | add))
     | map(. + {ratio: {per_second: (.trine.per_second / .etcd.per_second), cpu: (if .trine.cpu_us_per_op > 0 then .etcd.cpu_us_per_op / .trine.cpu_us_per_op else null end)}}))}' \
    "$tmp/lines" >"$json"
{
    echo "puts etcd/s trine/s x etcd-p50us trine-p50us etcd-p99us trine-p99us etcd-cpu-us/op trine-cpu-us/op x-per-cpu etcd-MB trine-MB errors"
    jq -r '.rows[] | [.row, (.etcd.per_second|round), (.trine.per_second|round), (.ratio.per_second*100|round/100), .etcd.p50_us, .trine.p50_us,
        .etcd.p99_us, .trine.p99_us, (.etcd.cpu_us_per_op*10|round/10), (.trine.cpu_us_per_op*10|round/10), ((.ratio.cpu // 0)*10|round/10),
        (.etcd.rss_kb/1024|round), (.trine.rss_kb/1024|round), (.etcd.errors + .trine.errors)] | @tsv' "$json"
} | column -t
echo "json: $json"
