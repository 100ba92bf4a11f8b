#!/usr/bin/env bash
# The native door of a real node, with nothing but nngcat; and every trinectl command in all its formats, held against what etcdctl
# says of the same data. What comes in wrong gets an error map, and the door stays open.
#   tests/node/test_native.sh [BUILD_DIR]
build=$(realpath "${1:-build}")
# shellcheck source=tests/lib/node.sh
. "$(dirname "$0")/../lib/node.sh"
export ETCDCTL_API=3

port=$(free_port)
node=$tmp/n
start_node "$node" "$port" || exit 1
url=ipc://$node/sock/native.ipc
events_url=ipc://$node/sock/events.ipc

ctl() { timeout 20 etcdctl --endpoints "http://127.0.0.1:$port" "$@"; }
tri() { timeout 20 "$build/bin/trinectl" --url "$url" "$@"; }
# ask FORMAT-OF-PRINTF: the answer's bytes with what is not text as \x..
# shellcheck disable=SC2059 # the format is what is to be printed
ask() { printf "$1" | timeout 10 nngcat --req --dial "$url" --file /dev/stdin --quoted; }
code() { "$@" >/dev/null 2>&1; echo $?; }
# has NAME TEXT PATTERN
has() { if grep -qE -- "$3" <<<"$2"; then ok "$1"; else not_ok "$1" "no $3 in: ${2:0:600}"; fi; }
lacks() { if grep -qE -- "$3" <<<"$2"; then not_ok "$1" "$3 in: ${2:0:600}"; else ok "$1"; fi; }
plain() { jq -cS 'del(.header.raft_term)' 2>&1; }

# --- what README.md shows
answer=$(printf '\x83\xa2op\xa3put\xa3key\xa8greeting\xa5value\xa5hello' | nngcat --req --dial "$url" --file /dev/stdin --msgpack | od -An -v -tx1 | tr -d " \n")
has "the README's put is answered by nngcat" "$answer" "a6686561646572" # header
equal "and etcdctl sees it" "hello" "$(ctl get greeting --print-value-only)"
timeout 15 nngcat --sub --dial "$events_url" --subscribe config/ --quoted >"$tmp/events" &
subscriber=$!
# shellcheck disable=SC2016 # eval expands it, again and again
wait_for 5 eval 'tri put config/probe x && grep -q probe "$tmp/events"'
ctl put config/a one >/dev/null
ctl put other/b two >/dev/null
ctl del config/a >/dev/null
wait_for 5 grep -q DELETE "$tmp/events"
seen=$(cat "$tmp/events")
has "the README's subscriber hears a put" "$seen" '^"config/a\\n.*type\\xa3PUT.*value\\xc4\\x03one'
has "and a delete, with the revision" "$seen" '^"config/a\\n.*type\\xa6DELETE\\xa8revision'
lacks "and nothing else" "$seen" 'other/b'
head -c 70000 /dev/zero | tr '\0' v | tri put config/large >/dev/null
wait_for 5 grep -q config/large "$tmp/events"
has "a large value is told by its size" "$(tail -1 "$tmp/events")" '^"config/large\\n.*value_size\\xce\\x00\\x01\\x11p'
kill $subscriber 2>/dev/null; wait $subscriber 2>/dev/null

# --- requests that are wrong
has "garbage is told so" "$(ask 'GET / HTTP/1.1\r\n\r\n')" 'a request is a msgpack map'
has "an empty message too" "$(timeout 5 nngcat --req --dial "$url" --data '' --quoted)" 'a request is a msgpack map'
has "an unknown op is named" "$(ask '\x81\xa2op\xa4fish')" 'unknown op .*fish.*code\\x03'
has "an unknown field is named" "$(ask '\x82\xa2op\xa3put\xa3kex\xa1a')" 'unknown field .*kex'
has "a wrong type is named" "$(ask '\x82\xa2op\xa3put\xa3key\x01')" 'must be a string'
has "bytes behind the map are refused" "$(ask '\x81\xa2op\xa6status\x01')" 'left over'
has "a count without bytes is refused" "$(ask '\xdf\xff\xff\xff\xff\xa2op\xa3put')" 'error'
has "a put without a key has etcd's words" "$(ask '\x81\xa2op\xa3put')" 'etcdserver: key is not provided.*code\\x03'
has "history of nothing has them too" "$(ask '\x81\xa2op\xa7history')" 'etcdserver: key is not provided'
for i in $(seq 30); do head -c $((RANDOM % 300)) /dev/urandom | timeout 5 nngcat --req --dial "$url" --file /dev/stdin --quoted; done >"$tmp/noise"
equal "every piece of noise has its error" 30 "$(grep -c error "$tmp/noise")"
equal "and the door is open" hello "$(tri get greeting --print-value-only)"
if command -v python3 >/dev/null; then
    for i in 1 2 3; do
        python3 - "$node/sock" <<'PY'
import socket, sys
for name in "native.ipc", "events.ipc":
    for hello in b"", b"\0SP", b"\0SP\0\0\x30\0\0", b"\0SP\0\0\x21\0\0", b"GET /", b"\0SP\0\0\x30\0\0\1" + b"\xff" * 8:
        for i in range(10):
            s = socket.socket(socket.AF_UNIX)
            s.connect(sys.argv[1] + "/" + name)
            s.send(hello)
            s.close()
PY
        check "clients that leave in the handshake do not shut it ($i)" wait_for 8 tri --command-timeout 1s get greeting
    done
    equal "nor the other one" 1 "$( (sleep 1.5; ctl put late 1) >/dev/null & tri watch late --count 1 | grep -c PUT)"
fi

# --- trinectl against etcdctl: output that must be the same
visible() { tr '\0' '~'; }
same() {
    equal "$1" "$(eval "ctl $2" 2>&1 | visible; echo "exit ${PIPESTATUS[0]}")" "$(eval "tri $2" 2>&1 | visible; echo "exit ${PIPESTATUS[0]}")"
}
same_json() { equal "$1" "$(eval "ctl $2 -w json" | plain)" "$(eval "tri $2 -w json" | plain)"; }
for i in 1 2 3 4 5; do tri put "dir/$i" "value$((i * 7 % 10))" >/dev/null; done
tri put dir/2 again >/dev/null
printf 'raw\x00\x01\xff' | tri put bin >/dev/null
same "get" 'get dir/1'
same "get of a missing key" 'get nothing'
same "get prefix" 'get --prefix dir/'
same "get from-key" 'get --from-key dir/4'
same "get interval" 'get dir/2 dir/4'
same "get limit" 'get --prefix dir/ --limit 2'
same "get keys-only" 'get --prefix dir/ --keys-only'
same "get values only" 'get --prefix dir/ --print-value-only'
same "get sorted by value" 'get --prefix dir/ --sort-by VALUE --order DESCEND'
same "get sorted by modification" 'get --prefix dir/ --sort-by MODIFY --order ASCEND --keys-only'
same "get of an old revision" 'get --prefix dir/ --rev 10'
same "get serializable" 'get dir/1 --consistency s'
same "get hex" 'get bin --hex'
equal "get of bytes" "$(ctl get bin | md5sum)" "$(tri get bin | md5sum)"
same "get everything" 'get --prefix ""'
same_json "get json" 'get --prefix dir/'
same_json "get json with more" 'get --prefix dir/ --limit 2'
same_json "get json of bytes" 'get bin'
equal "get json count-only" 5 "$(tri get --prefix dir/ --count-only -w json | jq .count)"
same_json "get json keys-only" 'get --prefix dir/ --keys-only'
equal "get count-only" 5 "$(tri get --prefix dir/ --count-only)"
has "get table" "$(tri get dir/2 -w table)" '^KEY +VALUE +CREATE REV +MOD REV +VERSION +LEASE'
has "get table has the row" "$(tri get dir/2 -w table)" '^dir/2 +again +[0-9]+ +[0-9]+ +2 +0'
equal "put" "OK" "$(tri put k 1)"
equal "put prev-kv" "OK
k
1" "$(tri put k 2 --prev-kv)"
equal "put ignore-value" "OK 2" "$(tri put k --ignore-value) $(ctl get k --print-value-only)"
has "put json" "$(tri put k 3 -w json)" '"revision":[0-9]+'
equal "put of an empty value" "k" "$(tri put k '' >/dev/null; tri get k | head -1; tri get k --print-value-only | tr -d '\n')"
equal "put from stdin" "from stdin" "$(printf 'from stdin' | tri put k >/dev/null; ctl get k --print-value-only)"
equal "del" 1 "$(tri del k)"
equal "del again" 0 "$(tri del k)"
equal "del prefix with prev-kv" "2
gone/1
a
gone/2
b" "$(tri put gone/1 a >/dev/null; tri put gone/2 b >/dev/null; tri del --prefix gone/ --prev-kv)"
has "del json" "$(tri put gone/1 a >/dev/null; tri del gone/1 -w json)" '"deleted":1'
equal "del from-key" 2 "$(tri put zz/1 a >/dev/null; tri put zz/2 b >/dev/null; tri del --from-key zz/)"

# --- transactions: the same script to both, each on keys of its own
both_txn() {
    local a b
    a=$(echo "${2//@/e}" | ctl txn 2>&1 | sed 's/^e-/X-/')
    b=$(echo "${2//@/t}" | tri txn 2>&1 | sed 's/^t-/X-/')
    equal "$1" "$a" "$b"
}
both_txn "txn success" $'create("@-1") = "0"\n\nput @-1 v\nget @-1\n\nget none\n'
both_txn "txn failure" $'ver("@-1") = "77"\n\nput @-1 v2\n\nget @-1\n'
both_txn "txn value compare" $'val("@-1") = "v"\n\nput @-1 "w x"\n\n\n'
both_txn "txn quoted words" $'val("@-1") = "w x"\n\nget @-1\ndel @-1\n\n\n'
both_txn "txn without compares" $'\nput @-2 1\nput @-3 2\nget --prefix @-\n\n\n'
both_txn "txn of an empty value" $'value("@-2") != ""\n\nget @-2\n\nget none\n'
equal "txn json" "$(ctl get dir/1 -w json | jq -cS .kvs)" "$(printf '\nget dir/1\n\n\n' | tri txn -w json | jq -cS '.responses[0].response_range.kvs')"
equal "txn with a key put twice is refused" 1 "$(printf '\nput d 1\nput d 2\n\n\n' | code tri txn)"
has "with its words" "$(printf '\nput d 1\nput d 2\n\n\n' | tri txn 2>&1)" 'etcdserver: duplicate key given in txn request'

# --- leases
id=$(tri lease grant 100 | sed -nE 's/^lease ([0-9a-f]{16}) granted with TTL\(100s\)$/\1/p')
equal "lease grant tells an id" 16 "${#id}"
tri put leased v --lease="$id" >/dev/null
has "lease timetolive" "$(tri lease timetolive "$id" --keys)" "^lease $id granted with TTL\(100s\), remaining\([0-9]+s\), attached keys\(\[leased\]\)$"
has "lease timetolive json" "$(tri lease timetolive "$id" --keys -w json)" '"keys":\["bGVhc2Vk"\]'
equal "etcdctl sees the lease" "$id" "$(ctl lease list | grep "$id")"
equal "lease list" "found 1 leases
$id" "$(tri lease list)"
equal "lease keep-alive" "lease $id keepalived with TTL(100)" "$(tri lease keep-alive "$id" --once)"
equal "lease revoke" "lease $id revoked" "$(tri lease revoke "$id")"
equal "which takes its keys" "" "$(ctl get leased)"
equal "lease timetolive of a lease that is gone" "$(ctl lease timetolive "$id")" "$(tri lease timetolive "$id")"
equal "lease keep-alive of it" "lease $id expired or revoked." "$(tri lease keep-alive "$id" --once)"
equal "lease revoke of it" 1 "$(code tri lease revoke "$id")"

# --- the node
equal "member list" "$(ctl member list)" "$(tri member list)"
equal "member list json" "$(ctl member list -w json | jq -cS .members)" "$(tri member list -w json | jq -cS .members)"
has "member list table" "$(tri member list -w table)" 'ID +STATUS +NAME'
equal "endpoint status json" "$(ctl endpoint status -w json | jq -cS '.[0].Status | {version, leader, raftTerm, m: .header.member_id, c: .header.cluster_id, r: .header.revision}')" \
    "$(tri endpoint status -w json | jq -cS '{version, leader, raftTerm, m: .header.member_id, c: .header.cluster_id, r: .header.revision}')"
has "endpoint status" "$(tri endpoint status)" "^$url, [0-9a-f]+, 3\.7\.1, .*B, true, false, [0-9]+, [0-9]+, [0-9]+, [0-9]+, $"
has "endpoint status table" "$(tri endpoint status -w table)" 'IS LEADER'
has "endpoint health" "$(tri endpoint health)" 'is healthy: successfully committed proposal'
has "endpoint health json" "$(tri endpoint health -w json)" '"health":true'
has "endpoint health table" "$(tri endpoint health -w table)" 'ENDPOINT +HEALTH'
equal "endpoint hashkv" "$(ctl endpoint hashkv | awk '{print $2}')" "$(tri endpoint hashkv | awk '{print $2}')"
has "endpoint hashkv table" "$(tri endpoint hashkv -w table)" 'ENDPOINT +HASH'
has "endpoint hashkv json" "$(tri endpoint hashkv -w json)" '"hash":[0-9]+'
has "defrag" "$(tri defrag)" 'Finished defragmenting'
equal "alarm list" "$(ctl alarm list)" "$(tri alarm list)"
equal "alarm disarm of none" "0" "$(code tri alarm disarm)"
equal "compaction" "compacted revision 5" "$(tri compaction 5)"
equal "compaction again is refused" 1 "$(code tri compaction 5)"
has "with etcd's words" "$(tri compaction 5 2>&1)" 'etcdserver: mvcc: required revision has been compacted'
equal "get below it is refused" 1 "$(code tri get greeting --rev 3)"

# --- wrong arguments: 128; no node: 2; a transaction nobody understands: 3; nobody takes the output: 6
for bad in "" "fish" "get" "get a b c" "get --fish a" "get a --order UP" "get a --sort-by SIZE" "get a --limit x" "get a --consistency q" "get a b --prefix" \
    "put" "put a b c" "put a --lease=zz v" "del" "lease" "lease grant" "lease grant x" "lease revoke" "lease revoke zz" "lease timetolive" "compaction" "compaction x" \
    "watch" "watch a b c" "watch a --rev x" "watch a --count 0" "member" "endpoint" "endpoint hashkv --rev x" "txn x" "-w yaml get a" "--command-timeout soon get a" "--url"; do
    equal "exit code 128: trinectl $bad" 128 "$(eval "code tri $bad")"
done
equal "help is no error" 0 "$(code tri --help)"
equal "nor is the version" 0 "$(code tri --version)"
equal "exit code 2 without a node" 2 "$(code "$build/bin/trinectl" --url ipc://"$tmp"/nobody.ipc get a)"
equal "exit code 3 for a txn line" 3 "$(printf 'foo("x") = "1"\n\n\n\n' | code tri txn)"
equal "exit code 3 for an open quote" 3 "$(printf '\nput a "b\n\n\n' | code tri txn)"
equal "exit code 6 when the disk is full" 6 "$(tri get --prefix "" >/dev/full 2>/dev/null; echo $?)"
head -c 1000000 /dev/zero | tr '\0' x | tri put large >/dev/null
"$build/bin/trinectl" --url "$url" get large | head -c 1 >/dev/null
equal "a closed pipe ends it as it ends everybody" 141 "${PIPESTATUS[0]}"
equal "--run-dir finds the sockets" hello "$("$build/bin/trinectl" --run-dir "$node/sock" get greeting --print-value-only)"
equal "and so does the environment" hello "$(TRINE_RUN_DIR="$node/sock" "$build/bin/trinectl" get greeting --print-value-only)"

# --- watch
rev=$(ctl get greeting -w json | jq .header.revision)
tri put w/1 a >/dev/null; tri put w/2 b >/dev/null; tri del w/1 >/dev/null
equal "watch from a revision" "PUT
w/1
a
PUT
w/2
b
DELETE
w/1" "$(tri watch --prefix w/ --rev $((rev + 1)) --count 3)"
equal "watch with prev-kv" "DELETE
w/1
a
w/1" "$(tri watch w/1 --rev $((rev + 3)) --prev-kv --count 1)"
has "watch json" "$(tri watch w/2 --rev $((rev + 1)) --count 1 -w json)" '"type":"PUT".*"key":"dy8y"'
equal "watch of an interval" "w/2" "$(tri watch w/1 w/3 --rev $((rev + 2)) --count 1 | sed -n 2p)"
equal "watch below the compaction" 1 "$(code tri watch w/1 --rev 2)"
rev=$(ctl get greeting -w json | jq .header.revision)
timeout 60 "$build/bin/trinectl" --url "$url" watch --prefix live/ --rev $((rev + 1)) --count 300 >"$tmp/live" 2>&1 &
watcher=$!
for i in $(seq 1 2000); do
    kill -0 $watcher 2>/dev/null || break
    printf '\nput live/a %s\nput live/b %s\n\n\n' "$i" "$i" | tri txn >/dev/null 2>&1
    case $i in
        30) kill -9 "$(cat "$node/stored.pid")" ;;
        60) kill -9 "$(cat "$node/raftd.pid")" ;;
        90) kill -9 "$(cat "$node/gatewayd.pid")" ; wait_for 10 health "$port" ;;
    esac
done
wait $watcher
equal "a watch goes on through the death of each daemon" 0 $?
check "the node serves" wait_for 20 health "$port"
equal "and has printed what history says, once and in order" "$(tri watch --prefix live/ --rev $((rev + 1)) --count 300 | md5sum)" "$(md5sum <"$tmp/live")"
equal "with all events" 300 "$(grep -c '^PUT' "$tmp/live")"

# --- a restart costs a request some milliseconds, not its deadline
late=0
for d in stored stored stored stored stored stored raftd raftd; do
    kill -9 "$(cat "$node/$d.pid")"
    tri --command-timeout 5s get greeting >/dev/null 2>&1 || late=$((late + 1))
    check "the node serves after the death of $d" wait_for 20 health "$port"
    sleep 0.6 # the runner starts at once what has lived so long
done
equal "a read waits for who was killed" 0 $late

# --- history: what a subscriber missed
rev=$(ctl get greeting -w json | jq .header.revision)
ctl put h/1 first >/dev/null; ctl put h/2 second >/dev/null; ctl del h/1 >/dev/null
from=$(printf '\\xcd\\x%02x\\x%02x' $(((rev + 1) >> 8)) $(((rev + 1) & 255)))
answer=$(ask '\x84\xa2op\xa7history\xa3key\xa2h/\xa9range_end\xa2h0\xaestart_revision'"$from")
has "history by nngcat has the events in order" "$answer" 'PUT.*h/1.*first.*PUT.*h/2.*second.*DELETE.*h/1'
has "and says where to go on" "$answer" 'next\\xc'
lacks "and does not complain" "$answer" 'error'
has "history from the present is empty" "$(ask '\x82\xa2op\xa7history\xa3key\xa2h/')" 'events\\x90'
has "history below the compaction says what is left" "$(ask '\x83\xa2op\xa7history\xa3key\xa2h/\xaestart_revision\x02')" 'compact_revision\\x05.*events\\x90'

# --- large things
for i in $(seq 100); do head -c 300000 /dev/urandom | base64 -w0 | tri put "big/$i" >/dev/null; done
equal "a range of 40 MB comes whole" "$(ctl get --prefix big/ | md5sum)" "$(tri get --prefix big/ | md5sum)"
equal "and so does its history" 100 "$(tri watch --prefix big/ --rev 6 --count 100 | grep -c '^PUT')"
for i in $(seq 101 190); do head -c 300000 /dev/urandom | base64 -w0 | tri put "big/$i" >/dev/null; done
has "one of 76 MB is refused with advice" "$(tri get --prefix big/ 2>&1)" 'larger than 64 MiB: use limit'
equal "which helps" 50 "$(tri get --prefix big/ --limit 50 --keys-only | grep -c big)"
head -c 1570000 /dev/zero | tr '\0' x >"$tmp/fits"
equal "a value near the limit fits" "OK" "$(tri put near <"$tmp/fits")"
equal "and comes back" "$(md5sum <"$tmp/fits")" "$(tri get near --print-value-only | head -c -1 | md5sum)"
has "one above it is refused as by etcd" "$(head -c 1600000 /dev/zero | tri put near 2>&1)" 'etcdserver: request is too large'
equal "one above the door's own limit gets no answer" 2 "$(head -c 3000000 /dev/zero | code tri --command-timeout 1s put near)"
equal "and the door is open" hello "$(tri get greeting --print-value-only)"
tri del --prefix big/ >/dev/null
lacks "no daemon found a bug of its own" "$(cat "$node.log")" 'must|assert|Sanitizer'
summary
