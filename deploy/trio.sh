#!/usr/bin/env bash
# Three nodes of one cluster on loopback, for development and for the tests: DIR/1, DIR/2, DIR/3, each run by deploy/node.sh.
# Ctrl-C or SIGTERM stops them all; DIR/N/node.pid is the runner of node N, which can be stopped and started alone:
#   kill $(cat run/1/node.pid); deploy/trio.sh --dir run --only 1
#
#   deploy/trio.sh [--dir ./run] [--ports "2379 12379 22379"] [--peer-ports "2380 12380 22380"] [--bin build/bin] [--only N]
#                  [--scheme http] [-- options for all daemons]
set -uo pipefail

dir=./run bin=build/bin only='' scheme=http
ports=(2379 12379 22379) peer_ports=(2380 12380 22380)
while [ $# -gt 0 ]; do
    case $1 in
        --dir) dir=$2; shift 2 ;;
        --ports) read -ra ports <<<"$2"; shift 2 ;;
        --peer-ports) read -ra peer_ports <<<"$2"; shift 2 ;;
        --bin) bin=$2; shift 2 ;;
        --only) only=$2; shift 2 ;;
        --scheme) scheme=$2; shift 2 ;;
        --) shift; break ;;
        *) echo "trio: unknown option $1" >&2; exit 2 ;;
    esac
done
here=$(dirname "$0")
cluster='' endpoints='' runners=()
for i in 0 1 2; do
    cluster+="${cluster:+,}n$((i + 1))=$scheme://localhost:${peer_ports[i]}"
    endpoints+="${endpoints:+,}127.0.0.1:${ports[i]}"
done

run() { # N
    local i=$(($1 - 1))
    mkdir -p "$dir/$1"
    "$here/node.sh" --dir "$dir/$1" --port "${ports[i]}" --peer-port "${peer_ports[i]}" --peer-scheme "$scheme" --bin "$bin" -- \
        --name "n$1" --initial-cluster "$cluster" --initial-cluster-token trio "${@:2}" &
    echo $! >"$dir/$1/node.pid"
    runners+=($!)
}

stopping=
trap 'stopping=yes; for p in "${runners[@]}"; do kill -TERM "$p" 2>/dev/null; done' TERM INT HUP
if [ -n "$only" ]; then
    run "$only" "$@"
else
    for n in 1 2 3; do run $n "$@"; done
    echo "trio: ETCDCTL_API=3 etcdctl --endpoints $endpoints put greeting hello" >&2
fi
# A signal ends `wait` early; a runner that ends alone leaves the others running, as a machine that fails would.
while :; do
    wait
    alive=
    for p in "${runners[@]}"; do kill -0 "$p" 2>/dev/null && alive=yes; done
    [ -n "$alive" ] || break
done
[ -z "$stopping" ] || echo "trio: stopped" >&2
