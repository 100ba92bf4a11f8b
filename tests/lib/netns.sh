# Nodes of one cluster, each in a network namespace of its own, and faults between them: source it after node.sh.
# shellcheck shell=bash disable=SC2034,SC2154
#
#   net_open 3 || ...            a namespace for each node, one for clients, and one in the middle that routes between them
#   cluster_open OPTIONS         starts the nodes;  cluster_up N, cluster_down N, cluster_kill N, cluster_pause N, cluster_resume N
#   sever A B, sever_way A B     no packet passes between A and B; none from A to B
#   isolate N, sever_sides "1 2" "3"   N from all others; each of the first from each of the second
#   heal                         all cuts are gone
#
# Packets are dropped where they are routed, in the middle (`ip rule ... blackhole`), so that nobody is told: not the sender, as a
# refused connection or an unreachable route would, and in one direction only if that is wanted. Clients reach all nodes all
# the time. Needs root and iproute2; where namespaces cannot be made net_open fails and says why in net_why, and with NET=loopback
# the nodes get the addresses 127.0.1.N instead: then there are pauses and kills, but no cuts.

net_kind='' net_why='' net_nodes=0 _net_prefix="trine-$$" _net_subnet=''
declare -A cluster_runner

# Namespaces of test runs that were killed before they could clean up.
_net_sweep() {
    local name pid
    for name in $(ip netns list 2>/dev/null | awk '/^trine-[0-9]+-/ { print $1 }'); do
        pid=${name#trine-}
        kill -0 "${pid%%-*}" 2>/dev/null || ip netns del "$name" 2>/dev/null
    done
}

_net_add() { # NAME ADDRESS: a namespace with one way out, to the middle
    local ns=$_net_prefix-$1 hub=$_net_prefix-hub
    ip netns add "$ns" &&
        ip link add name out netns "$ns" type veth peer name "to$1" netns "$hub" &&
        ip -n "$ns" link set lo up && ip -n "$ns" addr add "$2" peer "$_net_subnet.254" dev out && ip -n "$ns" link set out up &&
        ip -n "$ns" route add default via "$_net_subnet.254" &&
        ip -n "$hub" addr add "$_net_subnet.254" peer "$2" dev "to$1" && ip -n "$hub" link set "to$1" up
}

_net_make() {
    local hub=$_net_prefix-hub n
    command -v ip >/dev/null || { echo "ip is missing (Debian: iproute2)"; return 1; }
    [ "$(id -u)" = 0 ] || { echo "only root makes network namespaces"; return 1; }
    ip netns add "$hub" && ip -n "$hub" link set lo up && ip netns exec "$hub" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward' || return 1
    _net_add c "$_net_subnet.100" || return 1
    for ((n = 1; n <= $1; n++)); do _net_add "$n" "$_net_subnet.$n" || return 1; done
    # a cut must be possible, or the namespaces are of no use
    ip -n "$hub" rule add from "$_net_subnet.1" to "$_net_subnet.2" blackhole && ip -n "$hub" rule del from "$_net_subnet.1" to "$_net_subnet.2" blackhole
}

net_open() { # NODES
    net_nodes=$1
    trap 'cluster_close; _cleanup; net_close' EXIT
    if [ "${NET:-}" = loopback ]; then
        net_kind=loopback
        return 0
    fi
    # 198.18.0.0/15 is for tests of networks; nobody routes to it.
    _net_subnet=198.18.$((RANDOM % 256))
    net_kind=netns
    _net_sweep
    if ! net_why=$(_net_make "$net_nodes" 2>&1); then
        net_close
        net_kind=
        return 1
    fi
}

net_close() {
    [ "$net_kind" = netns ] || return 0
    local name
    for name in $(ip netns list 2>/dev/null | awk -v p="$_net_prefix-" 'index($1, p) == 1 { print $1 }'); do ip netns del "$name"; done
}

# net_in NAME COMMAND...: runs it where node NAME is, or "c", the clients. As a background job, $! is the command itself.
net_in() {
    if [ "$net_kind" = netns ]; then exec_in="ip netns exec $_net_prefix-$1"; else exec_in=''; fi
    shift
    # shellcheck disable=SC2086
    $exec_in "$@"
}
net_host() { if [ "$net_kind" = netns ]; then echo "$_net_subnet.$1"; else echo "127.0.1.$1"; fi; }

# --- cuts --------------------------------------------------------------------------------------------
net_can_cut() { [ "$net_kind" = netns ]; }
sever_way() { ip -n "$_net_prefix-hub" rule add from "$_net_subnet.$1" to "$_net_subnet.$2" blackhole; }
sever() { sever_way "$1" "$2"; sever_way "$2" "$1"; }
isolate() { local n; for ((n = 1; n <= net_nodes; n++)); do [ "$n" = "$1" ] || sever "$1" "$n"; done; }
sever_sides() { local a b; for a in $1; do for b in $2; do sever "$a" "$b"; done; done; }
heal() {
    net_can_cut || return 0
    local count
    count=$(ip -n "$_net_prefix-hub" rule list 2>/dev/null | grep -c blackhole)
    while [ "$count" -gt 0 ]; do
        ip -n "$_net_prefix-hub" rule del blackhole || return 1
        count=$((count - 1))
    done
}
# All packets to node N wait this long. Fails where the kernel has no netem.
delay() { ip netns exec "$_net_prefix-hub" tc qdisc replace dev "to$1" root netem delay "${2}ms" 2>/dev/null; }

# --- nodes -------------------------------------------------------------------------------------------
cluster_open() { # OPTIONS: starts net_nodes nodes and waits until all are healthy
    local n
    cluster_options=("$@") cluster_port=$(free_port) cluster_peer_port=$(free_port) cluster_urls=''
    for ((n = 1; n <= net_nodes; n++)); do cluster_urls+="${cluster_urls:+,}n$n=http://$(net_host $n):$cluster_peer_port"; done
    for ((n = 1; n <= net_nodes; n++)); do cluster_up $n; done
    for ((n = 1; n <= net_nodes; n++)); do wait_for 20 cluster_health $n || { tail -20 "$tmp/n$n.log"; return 1; }; done
}
cluster_up() {
    # net_in is a function: exec in the background keeps $! the runner's own pid.
    local in_ns=()
    [ "$net_kind" != netns ] || in_ns=(ip netns exec "$_net_prefix-$1")
    "${in_ns[@]}" "$root/deploy/node.sh" --dir "$tmp/n$1" --host "$(net_host "$1")" --port "$cluster_port" --peer-port "$cluster_peer_port" \
        --bin "$build/bin" -- --name "n$1" --initial-cluster "$cluster_urls" --initial-cluster-token netns "${cluster_options[@]}" >>"$tmp/n$1.log" 2>&1 &
    cluster_runner[$1]=$!
    _pids+=($!)
}
cluster_daemons() { cat "$tmp/n$1"/{raftd,stored,gatewayd}.pid 2>/dev/null; }
cluster_down() { stop_pid "${cluster_runner[$1]}"; }
cluster_kill() { # everything of the node at once, as if its machine had failed
    # shellcheck disable=SC2046
    kill -9 "${cluster_runner[$1]}" $(cluster_daemons "$1") 2>/dev/null
    wait "${cluster_runner[$1]}" 2>/dev/null
    rm -f "$tmp/n$1"/{raftd,stored,gatewayd}.pid
    return 0
}
# shellcheck disable=SC2046
cluster_pause() { kill -STOP $(cluster_daemons "$1"); }
# shellcheck disable=SC2046
cluster_resume() { kill -CONT $(cluster_daemons "$1"); }
cluster_close() {
    local n
    heal
    for n in "${!cluster_runner[@]}"; do cluster_resume "$n" 2>/dev/null; done
    return 0
}

cluster_endpoint() { echo "$(net_host "$1"):$cluster_port"; }
cluster_endpoints() { local n all=''; for ((n = 1; n <= net_nodes; n++)); do all+="${all:+,}$(cluster_endpoint $n)"; done; echo "$all"; }
cluster_health() { net_in c curl -fsS -m 1 "http://$(cluster_endpoint "$1")/health"; }
cluster_ctl() { ETCDCTL_API=3 net_in c etcdctl --endpoints "$(cluster_endpoint "$1")" --command-timeout=5s "${@:2}"; } # N command
# The number of the leader: of the member that says so itself, in the newest term.
cluster_leader() {
    local n
    for ((n = 1; n <= net_nodes; n++)); do
        net_in c curl -s -m 1 "http://$(cluster_endpoint $n)/metrics" | grep '^etcd_server_is_leader 1' >/dev/null && echo "$n"
    done | tail -1
}
cluster_has_leader() { [ -n "$(cluster_leader)" ]; }
cluster_healthy() { local n; for ((n = 1; n <= net_nodes; n++)); do cluster_health $n || return 1; done; }
# All members stand at the same revision with the same hash.
cluster_same() {
    local n hash first=''
    for ((n = 1; n <= net_nodes; n++)); do
        hash=$(cluster_ctl $n endpoint hashkv -w json | jq -c '.[0].HashKV | [.header.revision, .hash, .compact_revision]') || return 1
        [ -n "$first" ] || first=$hash
        [ -n "$hash" ] && [ "$first" = "$hash" ] || return 1
    done
    cluster_hash=$first
}
