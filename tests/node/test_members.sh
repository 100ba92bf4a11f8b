#!/usr/bin/env bash
# Membership. First side by side with Debian's etcd, as far as its version goes: one member, then three; same output, same
# exit code, but for ids, ports and the order that ids give. Then what only our own nodes are asked: joining, promotion,
# removal, replacement, what must not start, and force-new-cluster.
#   tests/node/test_members.sh [BUILD_DIR]
build=$(realpath "${1:-build}")
. "$(dirname "$0")/../lib/node.sh"
export ETCDCTL_API=3

ctl() { timeout 20 etcdctl --endpoints "$endpoint" "$@"; }
tctl() { "$build/bin/trinectl" --run-dir "$tmp/trine3/$1/sock" "${@:2}"; }

# Ids, ports and random names become words; what is a list in the order of ids is sorted.
normalize() {
    sed -E -e 's/127\.0\.0\.1:[0-9]+|localhost:[0-9]+/HOST/g' -e 's/ +[0-9a-f]{13,16}\b/ ID/g; s/[0-9a-f]{13,16}\b/ID/g' \
        -e 's/^\{"level":"warn".*"msg":"([^"]*)".*"error":"([^"]*)".*/WARN \1 \2/' |
        while IFS= read -r line; do
            if [[ $line == ETCD_INITIAL_CLUSTER=* ]]; then tr ',"' '\n\n' <<<"$line" | sort | xargs; else echo "$line"; fi
        done
}

both() {
    local name=$1 snippet=$2 a b ca cb
    a=$(endpoint=$etcd_endpoint; eval "$snippet" 2>&1); ca=$?
    b=$(endpoint=$trine_endpoint; eval "$snippet" 2>&1); cb=$?
    a=$(normalize <<<"$a"; echo "exit $ca")
    b=$(normalize <<<"$b"; echo "exit $cb")
    if [ "$a" = "$b" ]; then ok "$name"; else not_ok "$name" "$(diff <(echo "$a") <(echo "$b") | head -30)"; fi
}
# shellcheck disable=SC2016
id_of='id_of() { ctl member list | grep -- "$1" | cut -d, -f1 | head -1; }'

# --- one member -----------------------------------------------------------------------------------------
port=$(free_port); etcd_endpoint=http://127.0.0.1:$port
start_etcd "$tmp/etcd" "$port" || exit 1
port=$(free_port); trine_endpoint=http://127.0.0.1:$port
start_node "$tmp/trine" "$port" || exit 1

both "list" 'ctl member list'
both "list as a table" 'ctl member list -w table | tr -d " -" '
both "list as json" 'ctl member list -w json | sed -E "s/\"raft_term\":[0-9]+/T/; s/[0-9]{15,}/N/g"'
both "add a learner" 'ctl member add l1 --learner --peer-urls=http://127.0.0.1:7777'
both "list with a learner" 'ctl member list | cut -d, -f2- | sort'
sleep 1.1 # etcd makes ids of URLs and the second: an equal one would be an equal id
both "a second learner is one too many" 'ctl member add l2 --learner --peer-urls=http://127.0.0.1:7778'
both "a URL in use" 'ctl member add l2 --peer-urls=http://127.0.0.1:7777'
both "a URL that is none" 'ctl member add l2 --peer-urls=nonsense://a:1'
both "a URL with a path" 'ctl member add l2 --peer-urls=http://127.0.0.1:7778/path'
both "a URL without a port" 'ctl member add l2 --peer-urls=http://127.0.0.1'
both "no URL" 'ctl member add l2'
both "promote a learner that never ran" "$id_of"'; ctl member promote $(id_of 7777)'
both "promote a voter" "$id_of"'; ctl member promote $(id_of default)'
both "promote nobody" 'ctl member promote 1234abcd'
both "promote what is no id" 'ctl member promote xyz'
both "update a learner's URL" "$id_of"'; ctl member update $(id_of 7777) --peer-urls=http://127.0.0.1:8888; ctl member list | cut -d, -f2-5 | sort'
both "update to a URL in use" "$id_of"'; ctl member update $(id_of default) --peer-urls=http://127.0.0.1:8888'
both "update nobody" 'ctl member update 1234abcd --peer-urls=http://127.0.0.1:9999'
both "remove the learner" "$id_of"'; i=$(id_of unstarted); ctl member remove $i; ctl member list; ctl member remove $i'
both "remove nobody" 'ctl member remove 1234abcd'
both "the last voter stays" "$id_of"'; ctl member remove $(id_of default)'
both "lead again" "$id_of"'; ctl move-leader $(id_of default)'
both "a stranger cannot lead" 'ctl move-leader 1234abcd'
both "json of add and remove" 'strip="s/\"raft_term\":[0-9]+/T/; s/[0-9]{15,}/N/g"; ctl member add l --learner --peer-urls=http://127.0.0.1:7000 -w json | jq -c "del(.members)" | sed -E "$strip"
    i=$(ctl member list | grep unstarted | cut -d, -f1); ctl member remove $i -w json | sed -E "$strip"'
both "revision 0 in the header" 'ctl put a b >/dev/null; ctl member list -w json | jq .header.revision'
both "a second voter, which then is waited for" 'ctl member add v2 --peer-urls=http://127.0.0.1:7999; ctl member list | cut -d, -f2- | sort'
sleep 2
both "nothing is agreed on without it" 'ctl --command-timeout 1s put a c 2>&1 | tail -1 | grep -o "context deadline exceeded"'
both "and none can be added" 'ctl --command-timeout 8s member add v3 --peer-urls=http://127.0.0.1:7998 2>&1 | tail -1'
stop_pid "$etcd_pid"
stop_pid "$node_pid"

# --- three members ---------------------------------------------------------------------------------------
etcd3_pids=() etcd3_ports=() trine_ports=() trine_peers=()
cluster=''
peers=()
for i in 1 2 3; do etcd3_ports+=("$(free_port)"); peers+=("$(free_port)"); cluster+="${cluster:+,}n$i=http://localhost:${peers[i - 1]}"; done
for i in 1 2 3; do
    "${ETCD:-etcd}" --name n$i --data-dir "$tmp/etcd3-$i" --listen-client-urls "http://127.0.0.1:${etcd3_ports[i - 1]}" \
        --advertise-client-urls "http://127.0.0.1:${etcd3_ports[i - 1]}" --listen-peer-urls "http://127.0.0.1:${peers[i - 1]}" \
        --initial-advertise-peer-urls "http://localhost:${peers[i - 1]}" --initial-cluster "$cluster" --log-level error >>"$tmp/etcd3-$i.log" 2>&1 &
    etcd3_pids+=($!); _pids+=($!)
done
for _ in 1 2 3 4 5; do trine_ports+=("$(free_port)"); trine_peers+=("$(free_port)"); done
"$root/deploy/trio.sh" --dir "$tmp/trine3" --ports "${trine_ports[*]:0:3}" --peer-ports "${trine_peers[*]:0:3}" --bin "$build/bin" \
    >"$tmp/trine3.log" 2>&1 &
_pids+=($!)
for p in "${etcd3_ports[@]}" "${trine_ports[@]:0:3}"; do
    wait_for 20 health "$p" || { echo "a cluster does not start"; tail -40 "$tmp/trine3.log"; exit 1; }
done

# In etcd an id is made of the URLs and the second, so a URL that was just removed is "not found" for the rest of it: each is used once.
# The endpoint of a member that leads, and of one that does not.
# endpoint, id, version, size, leads, ... (jq would round ids)
status_of() { etcdctl --endpoints "$1" endpoint status 2>/dev/null | cut -d, -f"$2" | tr -d ' '; }
is_leader() { [ "$(status_of "http://127.0.0.1:$1" 5)" = true ]; }
pick() { # leader|follower PORTS...
    local want=$1 p; shift
    for p in "$@"; do
        if is_leader "$p"; then [ "$want" = leader ] && { echo "$p"; return; }; else [ "$want" = follower ] && { echo "$p"; return; }; fi
    done
}
use() { etcd_endpoint=http://127.0.0.1:$(pick "$1" "${etcd3_ports[@]}") trine_endpoint=http://127.0.0.1:$(pick "$1" "${trine_ports[@]:0:3}"); }

use leader
both "three are listed" 'ctl member list | sed "s/^[^,]*, //" | sort'
both "none is added before five seconds of health" 'ctl member add n9 --peer-urls=http://127.0.0.1:7999'
sleep 5.5
use follower
both "a follower does not move the leadership" 'timeout 10 etcdctl --endpoints $endpoint move-leader 1234abcd 2>&1 | sed "s/\[.*\]/X/"'
both "a learner, by a follower" 'ctl member add l4 --learner --peer-urls=http://127.0.0.1:7774'
use leader
both "it cannot lead" "$id_of"'; ctl move-leader $(id_of unstarted)'
both "nor be promoted" "$id_of"'; ctl member promote $(id_of unstarted)'
both "and goes" "$id_of"'; ctl member remove $(id_of unstarted)'
both "a fourth voter, unstarted" 'ctl member add n4 --peer-urls=http://127.0.0.1:7775'
both "a fifth, with three of five started" 'ctl member add n5 --peer-urls=http://127.0.0.1:7778'
both "the unstarted one goes" "$id_of"'; ctl member remove $(id_of unstarted)'
both "leadership moves" 'a=$(status_of $endpoint 2); ctl move-leader $(ctl member list | cut -d, -f1 | grep -v $a | head -1)'
sleep 1

# --- one member is away -----------------------------------------------------------------------------------
use leader
victim_e=$(pick follower "${etcd3_ports[@]}") victim_t=$(pick follower "${trine_ports[@]:0:3}")
for i in 0 1 2; do
    [ "${etcd3_ports[i]}" != "$victim_e" ] || { stop_pid "${etcd3_pids[i]}"; gone_e=n$((i + 1)); }
    [ "${trine_ports[i]}" != "$victim_t" ] || { stop_pid "$(cat "$tmp/trine3/$((i + 1))/node.pid")"; gone_t=n$((i + 1)); gone=$((i + 1)); }
done
sleep 1
both "none is added while one is away" 'ctl member add n9 --peer-urls=http://127.0.0.1:7999'
both "nor a learner" 'ctl member add n9 --learner --peer-urls=http://127.0.0.1:7999'
both "none that lives is removed" 'ctl member remove $(status_of $endpoint 2)'
both "who is away is removed" "$id_of"'; [ "$endpoint" = "$etcd_endpoint" ] && n=$gone_e || n=$gone_t; ctl member remove $(id_of ", $n,")'
for p in "${etcd3_pids[@]}"; do stop_pid "$p"; done

# --- our own: a member is replaced -------------------------------------------------------------------------
endpoint=$trine_endpoint
start_joiner() { # N NAME CLUSTER [options]
    local n=$1; shift
    "$root/deploy/node.sh" --dir "$tmp/trine3/$n" --port "${trine_ports[n - 1]}" --peer-port "${trine_peers[n - 1]}" --bin "$build/bin" -- \
        --name "$1" --initial-cluster "$2" --initial-cluster-state existing --initial-cluster-token trio "${@:3}" >>"$tmp/joiner$n.log" 2>&1 &
    joiner_pid=$!
    _pids+=($joiner_pid)
}
says() { grep -q -- "$2" "$tmp/joiner$1.log"; }
list_cluster() { ctl member list -w json | jq -r --arg new "$1" '[.members[] | "\(.name // $new)=\(.peerURLs[0])"] | join(",")'; }
values() { timeout 10 etcdctl --endpoints "http://127.0.0.1:$1" get --prefix v/ --consistency="${2:-l}" --print-value-only | wc -l; }

for i in $(seq 100); do echo "put v/$i $i"; done | sed 's/^put //' | while read -r k v; do ctl put "$k" "$v" >/dev/null; done
equal "a hundred keys" 100 "$(values "${endpoint##*:}")"
sleep 5
check "a new member is added as a learner" ctl member add n4 --learner --peer-urls="http://localhost:${trine_peers[3]}"
with_n4=$(list_cluster n4)
start_joiner 5 n4 "${with_n4//${trine_peers[3]}/${trine_peers[4]}}" # another URL than the cluster knows
wait_for 20 says 5 "unmatched member while checking PeerURLs" && ok "a wrong URL is told" || not_ok "a wrong URL is told" "$(tail -3 "$tmp/joiner5.log")"
wait_for 5 says 5 "before the node was ready" && ok "and it ends" || not_ok "and it ends"
stop_pid $joiner_pid; rm -rf "$tmp/trine3/5" "$tmp/joiner5.log"
start_joiner 5 n4 "n4=http://localhost:${trine_peers[4]}"
wait_for 20 says 5 "could not retrieve cluster information" && ok "nobody to ask" || not_ok "nobody to ask" "$(tail -3 "$tmp/joiner5.log")"
stop_pid $joiner_pid; rm -rf "$tmp/trine3/5" "$tmp/joiner5.log"

start_joiner 4 n4 "$with_n4"
n4_pid=$joiner_pid
check "it is ready" wait_for 20 says 4 "gatewayd: ready"
learner=http://127.0.0.1:${trine_ports[3]}
wait_for 10 eval "[ \"\$(values ${trine_ports[3]} s)\" = 100 ]"
equal "it has all keys" 100 "$(values "${trine_ports[3]}" s)"
equal "it is listed with its name" "started, n4, true" "$(ctl member list | grep n4 | awk -F', ' '{print $2", "$3", "$6}')"
refused() { etcdctl --endpoints "$learner" "$@" 2>&1 | tail -1; }
not_for_learners="Error: etcdserver: rpc not supported for learner"
equal "a learner does not put" "$not_for_learners" "$(refused put a b)"
equal "nor read linearizably" "$not_for_learners" "$(refused get a)"
equal "nor list members" "$not_for_learners" "$(refused member list)"
equal "nor grant leases" "Error: failed to grant lease (etcdserver: rpc not supported for learner)" "$(refused lease grant 10)"
equal "nor promote" "$not_for_learners" "$(refused member promote 1)"
check "but tells its status" etcdctl --endpoints "$learner" endpoint status
id4=$(ctl member list | grep n4 | cut -d, -f1)
check "it is promoted" ctl member promote "$id4"
equal "it votes" "started, n4, false" "$(ctl member list | grep n4 | awk -F', ' '{print $2", "$3", "$6}')"
wait_for 5 etcdctl --endpoints "$learner" put from4 x && ok "and serves" || not_ok "and serves"
equal "the removed member hears that it is one" 3 "$("$root/deploy/trio.sh" --dir "$tmp/trine3" --ports "${trine_ports[*]:0:3}" --peer-ports "${trine_peers[*]:0:3}" --bin "$build/bin" --only "$gone" >"$tmp/gone.log" 2>&1 &
    p=$!; wait_for 15 grep -q "was removed from its cluster" "$tmp/gone.log" && echo 3 || { tail -5 "$tmp/gone.log"; kill $p; })"
check "with etcd's words" grep -q "the member has been permanently removed from the cluster" "$tmp/gone.log"

# --- the leader removes itself ------------------------------------------------------------------------------
for p in "${trine_ports[@]:0:4}"; do is_leader "$p" 2>/dev/null && leader=$p; done
leader_id=$(status_of "http://127.0.0.1:$leader" 2)
left=(); for p in "${trine_ports[@]:0:4}"; do [ "$p" != "$leader" ] && [ "$p" != "$victim_t" ] && left+=("$p"); done
sleep 5
check "the leader removes itself" etcdctl --endpoints "http://127.0.0.1:$leader" member remove "$leader_id"
wait_for 10 etcdctl --endpoints "http://127.0.0.1:${left[0]}" put after removal && ok "the others go on" || not_ok "the others go on"
endpoint=http://127.0.0.1:${left[0]}
equal "two are left" 2 "$(ctl member list | wc -l)"
check "one of the two is n4" eval 'ctl member list | grep -q n4'

# --- data that is lost ---------------------------------------------------------------------------------------
stop_pid "$n4_pid"
rm -rf "$tmp/trine3/4"; : >"$tmp/joiner4.log"
# Two members: without n4 there is no quorum, and its log is gone. It must not come back as if it had never voted.
start_joiner 4 n4 "$(list_cluster n4 2>/dev/null || echo "$with_n4")"
wait_for 20 says 4 "already been bootstrapped\|could not retrieve\|unequal" && ok "a member without its log is refused" || not_ok "a member without its log is refused" "$(tail -5 "$tmp/joiner4.log")"
stop_pid $joiner_pid

# --- force-new-cluster ----------------------------------------------------------------------------------------
for n in 1 2 3; do [ "${trine_ports[n - 1]}" = "${left[0]}" ] && last=$n; [ "${left[0]}" != "${trine_ports[3]}" ] || last=; done
for n in 1 2 3; do [ "${trine_ports[n - 1]}" = "${left[1]:-}" ] && last=$n; done
stop_pid "$(cat "$tmp/trine3/$last/node.pid")"
"$root/deploy/node.sh" --dir "$tmp/trine3/$last" --port "${trine_ports[last - 1]}" --peer-port "${trine_peers[last - 1]}" --bin "$build/bin" -- \
    --name "n$last" --initial-cluster-token trio --force-new-cluster true >"$tmp/forced.log" 2>&1 &
forced_pid=$!
_pids+=($forced_pid)
endpoint=http://127.0.0.1:${trine_ports[last - 1]}
check "the last one is forced to be a cluster" wait_for 20 ctl put forced yes
equal "it is alone" 1 "$(ctl member list | wc -l)"
equal "with all keys" 100 "$(values "${trine_ports[last - 1]}")"
stop_pid $forced_pid
"$root/deploy/node.sh" --dir "$tmp/trine3/$last" --port "${trine_ports[last - 1]}" --peer-port "${trine_peers[last - 1]}" --bin "$build/bin" -- \
    --name "n$last" --initial-cluster-token trio >>"$tmp/forced.log" 2>&1 &
_pids+=($!)
check "and starts again without the option" wait_for 20 ctl put again yes
# The lost one is added again, with a new id and nothing.
n4_old=$id4
check "a new n4 is added" ctl member add n4 --peer-urls="http://localhost:${trine_peers[3]}"
rm -rf "$tmp/trine3/4"; : >"$tmp/joiner4.log"
start_joiner 4 n4 "n$last=http://localhost:${trine_peers[last - 1]},n4=http://localhost:${trine_peers[3]}"
check "and joins" wait_for 20 says 4 "gatewayd: ready"
wait_for 20 ctl put two members
equal "with all keys" 100 "$(values "${trine_ports[3]}")"
check "under another id" eval "! ctl member list | grep -q $n4_old"

# --- trinectl ---------------------------------------------------------------------------------------------------
equal "trinectl lists them" "$(ctl member list)" "$(tctl "$last" member list)"
equal "and tells the status of all" 2 "$(tctl "$last" endpoint status --cluster | wc -l)"
equal "errors are etcd's" "Error: etcdserver: member not found" "$(tctl "$last" member remove 1234abcd 2>&1)"
summary
