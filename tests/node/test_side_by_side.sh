#!/usr/bin/env bash
# The same etcdctl commands against Debian's etcd and against Trine: same output, same exit code. What must differ
# (ids, terms, sizes, versions) is replaced by a word before the comparison, and nothing else is.
#   tests/node/test_side_by_side.sh [BUILD_DIR]
build=$(realpath "${1:-build}")
. "$(dirname "$0")/../lib/node.sh"
export ETCDCTL_API=3

etcd_port=$(free_port)
start_etcd "$tmp/etcd" "$etcd_port" || exit 1
trine_port=$(free_port)
if [ -n "${SELF:-}" ]; then start_etcd "$tmp/trine" "$trine_port"; else start_node "$tmp/trine" "$trine_port"; fi || exit 1

ctl() { timeout 20 etcdctl --endpoints "http://127.0.0.1:$port" "$@"; }

normalize() {
    sed -E -e "s/127\.0\.0\.1:$1/ENDPOINT/g" -e 's#localhost:[0-9]+#PEER#g' \
        -e 's/"cluster_id":[0-9]+/"cluster_id":C/g; s/"member_id":[0-9]+/"member_id":M/g; s/"raft_term":[0-9]+/"raft_term":T/g' \
        -e 's/"ID" : [0-9]+|"MemberID" : [0-9]+|"ClusterID" : [0-9]+|"RaftTerm" : [0-9]+/"X" : N/g' \
        -e 's/took = [0-9.]+[µnm]?s/took = D/; s/successfully committed proposal: took = .*/committed/' \
        -e 's/remaining\([0-9]+s\)/remaining(Rs)/g' -e 's/"ttl":[0-9]+/"ttl":R/g' \
        -e 's/"(took)":"[^"]*"/"\1":"D"/g' \
        -e 's/^\{"level":"warn".*"msg":"([^"]*)".*"error":"([^"]*)".*/WARN \1 \2/' \
        -e 's#endpoint://client-[0-9a-f-]+/#endpoint://#g'
}

# both NAME SNIPPET: runs the shell snippet on each server and compares. It sees `ctl`.
both() {
    local name=$1 snippet=$2 a b ca cb
    a=$(port=$etcd_port; eval "$snippet" 2>&1); ca=$?
    b=$(port=$trine_port; eval "$snippet" 2>&1); cb=$?
    a=$(normalize "$etcd_port" <<<"$a"; echo "exit $ca")
    b=$(normalize "$trine_port" <<<"$b"; echo "exit $cb")
    if [ "$a" = "$b" ]; then ok "$name"; else not_ok "$name" "$(diff <(echo "$a") <(echo "$b") | head -30)"; fi
}

# --- put, get, del
both "put answers OK" 'ctl put foo bar'
both "get prints key and value" 'ctl get foo'
both "get of a missing key prints nothing" 'ctl get nothing'
both "put with prev-kv" 'ctl put foo bar2 --prev-kv'
both "put of an empty value" 'ctl put empty ""; ctl get empty -w json'
both "put from stdin" 'printf "from stdin" | ctl put stdin; ctl get stdin'
both "put ignore-value" 'ctl put foo --ignore-value; ctl get foo -w json'
both "put ignore-value on a missing key" 'ctl put missing --ignore-value'
both "put ignore-lease on a missing key" 'ctl put missing v --ignore-lease'
both "put with an unknown lease" 'ctl put k v --lease=123abc'
both "put without a key" 'ctl put'
both "put with an empty key" 'ctl put "" v'
both "get with an empty key" 'ctl get ""'
both "more keys" 'for i in 1 2 3 4 5 6 7 8 9; do ctl put dir/$i value$((i * 7 % 10)); done'
both "a key again" 'ctl put dir/3 again; ctl put dir/1 again'
both "get prefix" 'ctl get --prefix dir/'
both "get prefix json" 'ctl get --prefix dir/ -w json'
both "get prefix fields" 'ctl get --prefix dir/ -w fields | grep -v "ID\|Term"'
both "get prefix protobuf length" 'ctl get --prefix dir/ --keys-only -w simple | wc'
both "get with limit" 'ctl get --prefix dir/ --limit 3 -w json'
both "get with limit 0" 'ctl get --prefix dir/ --limit 0'
both "get keys-only" 'ctl get --prefix dir/ --keys-only'
both "get count-only" 'ctl get --prefix dir/ --count-only -w json'
both "get print-value-only" 'ctl get --prefix dir/ --print-value-only'
both "get interval" 'ctl get dir/2 dir/5'
both "get empty interval" 'ctl get dir/5 dir/2 -w json'
both "get from-key" 'ctl get --from-key dir/7'
both "get everything" 'ctl get --prefix ""'
for order in ASCEND DESCEND; do
    for by in KEY VERSION CREATE MODIFY; do
        both "sort $by $order" "ctl get --prefix dir/ --order $order --sort-by $by --keys-only | sort -s -k1,0 >/dev/null; ctl get --prefix dir/ --order $order --sort-by KEY"
    done
    both "sort MODIFY $order" "ctl get --prefix dir/ --order $order --sort-by MODIFY"
    both "sort CREATE $order limit" "ctl get --prefix dir/ --order $order --sort-by CREATE --limit 4"
done
both "sort by with no order and limit" 'ctl get --prefix dir/ --sort-by MODIFY --limit 3'
both "get at an old revision" 'ctl get --prefix dir/ --rev 8 -w json'
both "get at a future revision" 'ctl get foo --rev 100000'
both "get serializable" 'ctl get foo --consistency=s'
both "get hex" 'ctl get foo --hex'
both "del" 'ctl del foo'
both "del again" 'ctl del foo'
both "get after del" 'ctl get foo -w json'
both "del prev-kv" 'ctl del dir/9 --prev-kv'
both "del prefix" 'ctl put gone/1 a; ctl put gone/2 b; ctl del --prefix gone/ --prev-kv'
both "del from-key" 'ctl put z/1 a; ctl put z/2 b; ctl del --from-key z/'
both "binary values" 'printf "\x00\x01\xff" | ctl put bin; ctl get bin --hex; ctl get bin -w json'
both "a large value" 'head -c 1000000 /dev/zero | tr "\0" x | ctl put large; ctl get large | md5sum; ctl del large'
both "a too large value" 'head -c 1600000 /dev/zero | tr "\0" x | ctl put large'
both "a value above the transport limit" 'head -c 2300000 /dev/zero | tr "\0" x | ctl --command-timeout 8s put large 2>&1 | sed "s/larger than max ([0-9]*/larger than max (N/"'

# --- txn
both "txn success" 'printf "mod(\"dir/1\") > \"0\"\n\nput t1 v\nget t1\n\nget none\n\n" | ctl txn'
both "txn failure" 'printf "ver(\"dir/1\") = \"77\"\n\nput t1 v2\n\nget t1\n\n" | ctl txn'
both "txn value compare" 'printf "val(\"t1\") = \"v\"\n\nput t1 w\n\nput t1 x\n\n" | ctl txn; ctl get t1'
both "txn missing key compares" 'printf "create(\"nokey\") = \"0\"\n\nput nokey made\n\nget nokey\n\n" | ctl txn'
both "txn value compare of a missing key" 'printf "val(\"no such\") != \"x\"\n\nget t1\n\nget nokey\n\n" | ctl txn'
both "txn del and get" 'printf "\n\ndel t1\nget t1\nput other o\n\n\n" | ctl txn -w json'
both "txn duplicate key" 'printf "\n\nput d 1\nput d 2\n\n\n" | ctl txn'
both "txn put in deleted range" 'printf "\n\ndel d\nput d 2\n\n\n" | ctl txn'
both "txn bad compare" 'printf "foo(\"x\") = \"1\"\n\n\n\n\n" | ctl txn'
both "txn too many operations" '{ printf "\n\n"; for i in $(seq 130); do echo "get k$i"; done; printf "\n\n"; } | ctl txn | tail -1'

# --- watch (bounded by history: start at a revision, stop by time)
watch_for() { timeout 2 etcdctl --endpoints "http://127.0.0.1:$port" watch "$@"; true; }
both "watch from a revision" 'watch_for --rev 2 foo'
both "watch prefix from a revision" 'watch_for --rev 2 --prefix dir/'
both "watch with prev-kv" 'watch_for --rev 2 --prev-kv --prefix dir/'
both "watch everything json" 'watch_for --rev 2 --prefix "" -w json | tr "{" "\n" | sed -nE "s,(\"key\"[^}]*).*,\1,p" | cut -c1-200 '
both "watch live events" '(sleep 0.7; ctl put live 1; ctl put live 2; ctl del live) >/dev/null & watch_for live'
both "watch live prefix prev-kv" '(sleep 0.7; ctl put lp/a 1; ctl put lp/a 2; ctl del lp/a) >/dev/null & watch_for --prefix lp/ --prev-kv'
both "watch runs a command" '(sleep 0.7; ctl put exec 1) >/dev/null & watch_for exec -- sh -c "echo \$ETCD_WATCH_EVENT_TYPE \$ETCD_WATCH_KEY \$ETCD_WATCH_VALUE"'
both "watch an empty interval" 'watch_for b a'
both "watch interactive with progress" '(echo "watch foo"; sleep 0.7; echo progress; sleep 0.7) | timeout 3 etcdctl --endpoints "http://127.0.0.1:$port" watch -i; true'

# --- leases
both "lease grant and keys" 'ctl lease grant 100 | sed -E "s/[0-9a-f]{16}/ID/"'
with_lease='id=$(ctl lease grant 100 | cut -d" " -f2); mask() { sed -E "s/$id/ID/g"; }'
# (etcd lists attached keys in random order)
both "put with a lease" "$with_lease"'; ctl put leased v --lease=$id; ctl put leased2 v --lease=$id; ctl lease timetolive --keys $id | mask | sed "s/leased2 leased/leased leased2/"; ctl lease revoke $id | mask; ctl get leased'
both "timetolive of an unknown lease" 'ctl lease timetolive 7fffffff'
both "revoke of an unknown lease" 'ctl lease revoke 7fffffff'
both "keep-alive once" "$with_lease"'; ctl lease keep-alive --once $id | mask; ctl lease revoke $id | mask'
both "keep-alive of an unknown lease" 'ctl lease keep-alive --once 7fffffff'
both "lease list" "$with_lease"'; ctl lease list | head -1 | sed "s/[0-9]* leases/N leases/"; ctl lease list | grep -c $id; ctl lease revoke $id | mask'
both "minimum ttl" 'ctl lease grant 1 | sed -E "s/[0-9a-f]{16}/ID/"; ctl lease grant -- 0 | sed -E "s/[0-9a-f]{16}/ID/"'
both "too large ttl" 'ctl lease grant 9000000001'
both "expiry deletes the keys" 'id=$(ctl lease grant 2 | cut -d" " -f2); ctl put dies v --lease=$id; sleep 4.5; ctl get dies; ctl lease timetolive $id | sed "s/$id/ID/"'
both "detach by put" "$with_lease"'; ctl put att v --lease=$id; ctl put att v; ctl lease revoke $id | mask; ctl get att'

# --- locks and elections
# One in the background, whose etcdctl is the child of a timeout. (What is in the background does not hear SIGINT.)
holder() { timeout -k 1 20 etcdctl --endpoints "http://127.0.0.1:$port" "$@" >/dev/null 2>&1 & holder_pid=$!; sleep 0.6; }
end_holder() { kill "-$1" "$(pgrep -P $holder_pid)" 2>/dev/null; wait $holder_pid 2>/dev/null; }
for_a_second() { timeout -k 1 1 etcdctl --endpoints "http://127.0.0.1:$port" "$@"; echo $?; }
mask_hex() { sed -E 's#/[0-9a-f]{9,16}#/LEASE#'; }
both "lock runs a command" 'ctl lock l1 echo held; ctl get --prefix l1/'
both "lock shows the key to its command" 'ctl lock l1 env | grep ETCD_LOCK_KEY | mask_hex'
both "lock fails with its command" 'ctl lock l1 false; echo $?; ctl lock l1 sleep notime >/dev/null 2>&1; echo $?; ctl lock l1 nosuchcommand'
both "lock without a command" '(for_a_second lock l2; ctl get --prefix l2/) | mask_hex'
both "two contenders for a lock" 'ctl lock l3 sleep 1 & a=$!; sleep 0.4; ctl lock l3 echo second; echo $?; wait $a; echo $?; ctl get --prefix l3/'
both "the holder of a lock is interrupted" 'holder lock l4; (sleep 0.5; kill -TERM $(pgrep -P $holder_pid)) & ctl lock l4 echo mine; echo $?; wait; ctl get --prefix l4/'
both "the holder of a lock is killed" 'holder lock --ttl 2 l5; end_holder KILL; ctl lock l5 echo mine; echo $?; ctl get --prefix l5/'
both "lock needs a name" 'ctl lock 2>&1 | tail -1'
both "elect" '(for_a_second elect e1 v; ctl get --prefix e1/) | mask_hex'
both "elect listens" '(timeout 2 etcdctl --endpoints "http://127.0.0.1:$port" elect --listen e2; echo $?) >"$tmp/listened" 2>&1 & sleep 0.4
    holder elect e2 one; end_holder TERM; holder elect e2 two; end_holder TERM; wait; mask_hex <"$tmp/listened"'
both "two candidates" 'holder elect e3 one; (sleep 0.4; kill -TERM $(pgrep -P $holder_pid)) & (for_a_second elect e3 two; ctl get --prefix e3/) | mask_hex; wait; ctl get --prefix e3/'
both "the leader is killed" 'holder elect e4 one; end_holder KILL; ctl get --prefix e4/ | mask_hex'
both "elect needs a name" 'ctl elect 2>&1 | tail -1; ctl elect e5 2>&1 | tail -1'

# --- compaction, maintenance, cluster
both "compaction" 'ctl compaction 10'
both "compaction again" 'ctl compaction 10'
both "compaction of the future" 'ctl compaction 100000'
both "get below the compacted revision" 'ctl get foo --rev 5'
both "get at the compacted revision" 'ctl get --prefix dir/ --rev 10'
both "watch below the compacted revision" 'watch_for --rev 3 foo'
both "physical compaction" 'ctl compaction 20 --physical'
both "defrag" 'ctl defrag'
both "endpoint health" 'ctl endpoint health'
both "endpoint health json" 'ctl endpoint health -w json'
both "endpoint status" 'ctl endpoint status -w json | jq -c "map(.Status | {h: (.header|keys), v: (.version|length > 4), leader: (.leader > 0), db: (.dbSize > 0), same: (.raftIndex >= .raftAppliedIndex)})"'
both "endpoint status simple" 'ctl endpoint status | awk -F, "{print NF, \$5, \$6}"'
both "endpoint hashkv" 'ctl endpoint hashkv -w json | jq -c "map(.HashKV | {rev: .header.revision, c: .compact_revision})"'
both "member list" 'ctl member list | sed -E "s/^[0-9a-f]+/ID/"'
both "member list json" 'ctl member list -w json | jq -c "[.members[] | {name, peerURLs, clientURLs}]"'
both "alarm list" 'ctl alarm list'
both "revision at the end" 'ctl get foo -w json | jq .header.revision'
summary
