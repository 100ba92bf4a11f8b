# Shell functions for tests with real daemons: source it. Everything started here is stopped by pid at exit.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=${build:-$root/build}
tmp=$(mktemp -d /tmp/trine-test.XXXXXX)
_pids=()
passed=0
failed=0

# A port nobody listens on now, from a range outside the ephemeral one; random, so that suites may run beside each other.
free_port() {
    local p
    for _ in $(seq 200); do
        p=$((10000 + (RANDOM * 32768 + RANDOM) % 20000))
        (exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null || { echo "$p"; return; }
    done
    echo "no free port" >&2
    exit 1
}

# wait_for SECONDS COMMAND...: polls until the command succeeds.
wait_for() {
    local until=$((SECONDS + $1)); shift
    while ! "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $until ] || return 1
        sleep 0.05
    done
}

# Serves, be it with NOSPACE.
health() { curl -fsS -m 2 "http://127.0.0.1:$1/health?exclude=NOSPACE"; }

# start_node DIR PORT [options]: one Trine node under its runner (peer_port: its peer port; tls_port: also https there). Sets node_pid; the daemons' pids are in DIR/*.pid.
start_node() {
    local dir=$1 port=$2; shift 2
    "$root/deploy/node.sh" --dir "$dir" --port "$port" --peer-port "${peer_port:-$(free_port)}" --tls-port "${tls_port:-0}" --bin "$build/bin" -- "$@" >>"$dir.log" 2>&1 &
    node_pid=$!
    _pids+=($node_pid)
    wait_for 20 health "$port" || { echo "node on $port is not ready:"; tail -30 "$dir.log"; return 1; }
}

# start_etcd DIR PORT [options]: Debian's etcd, to compare with. Sets etcd_pid.
start_etcd() {
    local dir=$1 port=$2 peer
    shift 2
    peer=$(free_port)
    "${ETCD:-etcd}" --name default --data-dir "$dir" --listen-client-urls "http://127.0.0.1:$port" --advertise-client-urls "http://127.0.0.1:$port" \
        --listen-peer-urls "http://127.0.0.1:$peer" --initial-advertise-peer-urls "http://localhost:$peer" \
        --initial-cluster "default=http://localhost:$peer" --log-level error "$@" >>"$dir.log" 2>&1 &
    etcd_pid=$!
    _pids+=($etcd_pid)
    wait_for 20 health "$port" || { echo "etcd on $port is not ready:"; tail -30 "$dir.log"; return 1; }
}

# A runner gives each of its daemons five seconds; killed before, it would leave them behind.
stop_pid() {
    kill -TERM "$1" 2>/dev/null
    for _ in $(seq 400); do kill -0 "$1" 2>/dev/null || break; sleep 0.05; done
    kill -KILL "$1" 2>/dev/null
    wait "$1" 2>/dev/null
}

# The number of one that has ended long ago may be somebody else's by now: only children of ours are stopped.
is_ours() { [ "$(awk '/^PPid:/ { print $2 }' "/proc/$1/status" 2>/dev/null)" = $$ ]; }

_cleanup() {
    local p
    for p in "${_pids[@]}"; do
        ! is_ours "$p" || stop_pid "$p"
    done
    [ -n "${KEEP_TMP:-}" ] && echo "kept $tmp" >&2 || rm -rf "$tmp"
}
trap _cleanup EXIT

ok() { passed=$((passed + 1)); [ -z "${VERBOSE:-}" ] || echo "ok    $1"; }
not_ok() { failed=$((failed + 1)); echo "FAIL  $1"; [ $# -lt 2 ] || printf '%s\n' "$2" | cut -c1-240 | sed 's/^/      /'; }
# check NAME COMMAND...: passes if the command succeeds.
check() {
    local name=$1 out; shift
    if out=$("$@" 2>&1); then ok "$name"; else not_ok "$name" "$* -> $out"; fi
}
# equal NAME WANTED GOT
equal() {
    if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "wanted: $2
got:    $3"; fi
}
summary() {
    echo "$passed passed, $failed failed"
    [ $failed = 0 ]
}

# --- three nodes of one cluster -------------------------------------------------------------------
# trio_start [options]: DIR $tmp/trio, ports in trio_ports, a runner for each node in trio_runner. Waits until all are healthy.
trio_init() {
    trio_ports=() trio_peers=()
    local _
    for _ in 1 2 3; do trio_ports+=("$(free_port)"); trio_peers+=("$(free_port)"); done
    declare -gA trio_runner
    trio_options=("$@")
    trio_scheme=${trio_scheme:-http}
    mkdir -p "$tmp/trio"
}
trio_up() { # N
    "$root/deploy/trio.sh" --dir "$tmp/trio" --ports "${trio_ports[*]}" --peer-ports "${trio_peers[*]}" --bin "$build/bin" --only "$1" \
        --scheme "$trio_scheme" -- "${trio_options[@]}" >>"$tmp/trio.$1.log" 2>&1 &
    trio_runner[$1]=$!
    _pids+=($!)
}
trio_start() {
    trio_init "$@"
    local n
    for n in 1 2 3; do trio_up $n; done
    for n in 1 2 3; do wait_for 20 health "${trio_ports[n - 1]}" || { tail -20 "$tmp/trio.$n.log"; return 1; }; done
}
trio_down() { stop_pid "${trio_runner[$1]}"; } # N: in order
trio_kill() {                                   # N: as if its machine had failed
    local d=$tmp/trio/$1 pids
    pids="$(cat "$d/node.pid" "$d/raftd.pid" "$d/stored.pid" "$d/gatewayd.pid" 2>/dev/null)"
    # shellcheck disable=SC2086
    kill -9 $pids 2>/dev/null
    wait "${trio_runner[$1]}" 2>/dev/null
    # What is killed takes a moment to let go of its ports.
    local p
    for p in "$(trio_port "$1")" "${trio_peers[$1 - 1]}"; do
        for _ in $(seq 100); do (exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null || break; sleep 0.02; done
    done
    return 0
}
trio_port() { echo "${trio_ports[$1 - 1]}"; }
trio_ctl() { ETCDCTL_API=3 etcdctl --endpoints "127.0.0.1:$(trio_port "$1")" --command-timeout=10s "${@:2}"; } # N command
trio_all() { (IFS=,; echo "${trio_ports[*]}"); }
trio_leader() { # its number, or nothing
    local n
    for n in 1 2 3; do
        trio_ctl $n endpoint status 2>/dev/null | awk -F', ' '$5 == "true" { yes = 1 } END { exit !yes }' && { echo $n; return; }
    done
}
trio_follower() { local l n; l=$(trio_leader); for n in 1 2 3; do [ "$n" = "$l" ] || { echo $n; return; }; done; }
trio_same() { # all three stand at the same revision with the same hash
    local n rev hash first=
    for n in 1 2 3; do
        rev=$(trio_ctl $n endpoint status -w json 2>/dev/null | grep -o '"revision":[0-9]*' | head -1)
        hash=$(trio_ctl $n endpoint hashkv 2>/dev/null | awk -F', ' '{ print $2 }')
        [ -n "$rev" ] && [ -n "$hash" ] || return 1
        [ -n "$first" ] || first="$rev $hash"
        [ "$first" = "$rev $hash" ] || return 1
    done
}
