#!/usr/bin/env bash
# The JSON gateway and the other HTTP paths of a real node: every path with good and bad input, streams, WebSockets, CORS, the whitelist of
# hosts, health with alarms; and the same requests to Debian's etcd (3.4), whose answers must be the same but for ids, terms, sizes and
# fields that it does not have yet.
#   tests/node/test_json.sh [BUILD_DIR]
build=$(realpath "${1:-build}")
. "$(dirname "$0")/../lib/node.sh"

trine=$(free_port)
start_node "$tmp/trine" "$trine" || exit 1
etcd=$(free_port)
start_etcd "$tmp/etcd" "$etcd" || exit 1
port=$trine

# j PATH BODY [curl options]: the answer's body, then its status on a line of its own.
j() { local path=$1 body=$2; shift 2; curl -sS -m 8 -d "$body" -w '\n%{http_code}' "$@" "http://127.0.0.1:$port$path"; }
b64() { printf %s "$1" | base64 -w0; }
# says NAME PATH BODY STATUS JQ [curl options]: the status, and the filter is true of the body.
says() {
    local name=$1 path=$2 body=$3 status=$4 filter=$5 out; shift 5
    out=$(j "$path" "$body" "$@")
    if [ "${out##*$'\n'}" = "$status" ] && [ "$(jq -s "(.[0] | $filter) // false | if . then 1 else 0 end" <<<"${out%$'\n'*}" 2>&1)" = 1 ]; then
        ok "$name"
    else
        not_ok "$name" "$path $body -> $out (wanted $status, $filter)"
    fi
}

# --- all paths --------------------------------------------------------------------------------------------------------
# All of the table of gatewayd/jsonmap.c; good input follows, by service.
mapfile -t paths < <(sed -nE 's/^    \{"(\/v3\/[^"]+)".*/\1/p' "$root/gatewayd/jsonmap.c")
equal "the gateway has 51 paths" 51 "${#paths[@]}"
for path in "${paths[@]}"; do
    case $path in
    /v3/watch | /v3/lease/keepalive | /v3/maintenance/snapshot | /v3/election/observe) want='.error.code == 3 and .error.http_code == 400' ;;
    *) want='.code == 3 and .error == .message' ;;
    esac
    for version in v3 v3beta v3alpha; do
        says "${path/v3/$version} refuses what is no JSON" "${path/v3/$version}" '{' 400 "$want and (tostring | test(\"invalid JSON\"))"
    done
    out=$(curl -sS -m 5 -w '\n%{http_code}' "http://127.0.0.1:$port$path")
    equal "$path is for POST" 501 "${out##*$'\n'}"
done
says "an unknown path" /v3/kv/rangestream '{}' 404 '.code == 5'
equal "a path of no version" 404 "$(j /v2/keys '{}' | tail -1)"

# --- KV ---------------------------------------------------------------------------------------------------------------
foo=$(b64 foo) bar=$(b64 bar)
says "put" /v3/kv/put "{\"key\":\"$foo\",\"value\":\"$bar\"}" 200 '.header.revision == "2"'
says "put of URL-safe base64" /v3/kv/put '{"key":"_-8","value":"MQ=="}' 200 .header
says "put without a key" /v3/kv/put '{}' 400 '.error == "etcdserver: key is not provided" and .code == 3'
says "range" /v3/kv/range "{\"key\":\"$foo\"}" 200 ".count == \"1\" and .kvs[0] == {key:\"$foo\",create_revision:\"2\",mod_revision:\"2\",version:\"1\",value:\"$bar\"}"
says "range of nothing" /v3/kv/range '{"key":"bm9uZQ=="}' 200 'keys == ["header"]'
says "range of the future" /v3/kv/range "{\"key\":\"$foo\",\"revision\":\"99\"}" 400 '.code == 11'
says "range with an unknown enum" /v3/kv/range "{\"key\":\"$foo\",\"sort_order\":\"UP\"}" 400 '.code == 3'
says "txn" /v3/kv/txn "{\"compare\":[{\"target\":\"CREATE\",\"key\":\"$foo\",\"createRevision\":\"2\"}],\"success\":[{\"requestPut\":{\"key\":\"$foo\",\"value\":\"YmF6\"}},{\"request_range\":{\"key\":\"$foo\"}}]}" \
    200 '.succeeded and .responses[0].response_put and .responses[1].response_range.kvs[0].value == "YmF6"'
says "txn with two comparisons in one" /v3/kv/txn "{\"compare\":[{\"key\":\"$foo\",\"version\":1,\"value\":\"\"}]}" 400 '.code == 3'
says "deleterange" /v3/kv/deleterange "{\"key\":\"$foo\",\"prev_kv\":true}" 200 '.deleted == "1" and .prev_kvs[0].value == "YmF6"'
says "deleterange without a key" /v3/kv/deleterange '{}' 400 '.code == 3'
says "compaction" /v3/kv/compaction '{"revision":"3"}' 200 .header
says "compaction of the future" /v3/kv/compaction '{"revision":"999","physical":true}' 400 '.code == 11'

# --- Lease ------------------------------------------------------------------------------------------------------------
says "lease grant" /v3/lease/grant '{"TTL":"100","ID":77}' 200 '.ID == "77" and .TTL == "100"'
says "lease grant of a taken id" /v3/lease/grant '{"TTL":100,"ID":"77"}' 400 '.code == 9'
for at in /v3/lease /v3/kv/lease; do
    says "timetolive at $at" $at/timetolive '{"ID":"77","keys":true}' 200 '.grantedTTL == "100"'
    says "timetolive of no lease at $at" $at/timetolive '{"ID":"1"}' 200 '.TTL == "-1"'
    says "leases at $at" $at/leases '{}' 200 '.leases == [{ID:"77"}]'
done
says "lease keepalive, twice" /v3/lease/keepalive '{"ID":"77"}{"ID":"1"}' 200 '.result.TTL == "100"'
equal "each keepalive has its line" '"100" null' "$(j /v3/lease/keepalive '{"ID":"77"} {"ID":"1"}' | head -2 | jq -c .result.TTL | paste -sd' ')"
says "lease revoke" /v3/lease/revoke '{"ID":"77"}' 200 .header
says "lease revoke of no lease" /v3/kv/lease/revoke '{"ID":"77"}' 404 '.code == 5'

# --- Cluster, Maintenance -----------------------------------------------------------------------------------------------
says "member list" /v3/cluster/member/list '{}' 200 '.members[0].clientURLs | length > 0'
member=$(j /v3/cluster/member/list '{}' | head -1 | jq -r '.members[0].ID')
says "member add of a bad URL" /v3/cluster/member/add '{"peerURLs":["not a url"]}' 400 '.code == 3'
says "member remove of none" /v3/cluster/member/remove '{"ID":"5"}' 404 '.code == 5'
says "member update of none" /v3/cluster/member/update '{"ID":"5","peerURLs":["http://127.0.0.1:1"]}' 404 '.code == 5'
says "member promote of none" /v3/cluster/member/promote '{"ID":"5"}' 404 '.code == 5'
says "status" /v3/maintenance/status '{}' 200 ".leader == \"$member\" and .version == \"3.7.1\""
says "status without a body" /v3/maintenance/status '' 200 .version
says "alarm list" /v3/maintenance/alarm '{}' 200 '.alarms == null'
says "defragment" /v3/maintenance/defragment '{}' 200 '. == {}'
says "hash" /v3/maintenance/hash '{}' 200 '.hash > 0'
says "hashkv" /v3/maintenance/hashkv '{}' 200 '.hash > 0 and (.compact_revision | type) == "string"'
says "hashkv of the future" /v3/maintenance/hashkv '{"revision":"999"}' 400 '.code == 11'
says "transfer of the leadership to nobody" /v3/maintenance/transfer-leadership '{"targetID":"5"}' 400 '.code == 9'
says "downgrade to no version" /v3/maintenance/downgrade '{"version":"x"}' 400 '.code == 3'
j /v3/maintenance/snapshot '{}' >"$tmp/snapshot"
check "a snapshot comes as lines of base64" sh -c "sed '\$d' '$tmp/snapshot' | jq -r 'select(.result.blob) | .result.blob' | base64 -di >'$tmp/db' && [ \$((\$(stat -c %s '$tmp/db') % 512)) = 32 ]"

# --- Lock, Election ---------------------------------------------------------------------------------------------------------
j /v3/lease/grant '{"TTL":"100","ID":"66"}' >/dev/null
lock=$(j /v3/lock/lock '{"name":"bG9jaw==","lease":"66"}')
key=$(head -1 <<<"$lock" | jq -r .key)
check "lock gives a key" test "$(base64 -d <<<"$key" | cut -c1-5)" = lock/
says "unlock" /v3/lock/unlock "{\"key\":\"$key\"}" 200 .header
j /v3/lease/revoke '{"ID":"66"}' >/dev/null
says "unlock with a number for a key" /v3/lock/unlock '{"key":7}' 400 '.code == 3'
says "lock with a lease that is none" /v3/lock/lock '{"name":"bG9jaw==","lease":"12345"}' 500 '.error == "etcdserver: requested lease not found" and .code == 2'
says "leader where there is none" /v3/election/leader '{"name":"ZWxlY3Q="}' 500 '.error == "election: no leader"'
j /v3/lease/grant '{"TTL":"100","ID":"88"}' >/dev/null
leader=$(j /v3/election/campaign '{"name":"ZWxlY3Q=","lease":"88","value":"bWU="}' | head -1 | jq -c .leader)
check "campaign gives a leader's key" test "$(jq -r .name <<<"$leader")" = ZWxlY3Q=
says "leader" /v3/election/leader '{"name":"ZWxlY3Q="}' 200 '.kv.value == "bWU="'
says "proclaim" /v3/election/proclaim "{\"leader\":$leader,\"value\":\"eW91\"}" 200 .header
equal "observe says the value" '"eW91"' "$(curl -sS -N -m 2 -d '{"name":"ZWxlY3Q="}' "http://127.0.0.1:$port/v3/election/observe" 2>/dev/null | head -1 | jq -c .result.kv.value)"
says "resign" /v3/election/resign "{\"leader\":$leader}" 200 .header
says "proclaim of who has resigned" /v3/election/proclaim "{\"leader\":$leader,\"value\":\"eW91\"}" 500 '.error == "election: not leader"'

# --- watch ------------------------------------------------------------------------------------------------------------------
curl -sS -N -m 15 -d '{"create_request":{"key":"dw==","prev_kv":true}}' "http://127.0.0.1:$port/v3/watch" >"$tmp/watch" 2>/dev/null &
watcher=$!
check "a watch is created" wait_for 5 grep -q created "$tmp/watch"
j /v3/kv/put '{"key":"dw==","value":"MQ=="}' >/dev/null
check "its event comes while the stream is open" wait_for 5 sh -c "sed -n 2p '$tmp/watch' | jq -e '.result.events[0].kv.value == \"MQ==\"'"
j /v3/kv/deleterange '{"key":"dw=="}' >/dev/null
check "a deletion with what was there" wait_for 5 sh -c "sed -n 3p '$tmp/watch' | jq -e '.result.events[0] | .type == \"DELETE\" and .prev_kv.value == \"MQ==\"'"
kill $watcher 2>/dev/null
wait $watcher 2>/dev/null
check "and goes with its client" wait_for 5 sh -c "curl -sS http://127.0.0.1:$port/metrics | grep -qx 'etcd_debugging_mvcc_watcher_total 0'"
equal "a watch of the compacted past" true \
    "$(curl -sS -N -m 2 -d '{"create_request":{"key":"dw==","start_revision":"1"}}' "http://127.0.0.1:$port/v3/watch" 2>/dev/null | sed -n 2p | jq '.result.canceled and .result.compact_revision == "3"')"

# --- WebSocket ----------------------------------------------------------------------------------------------------------------
cat >"$tmp/ws.py" <<'PY'
import base64, os, socket, struct, sys
port, path = int(sys.argv[1]), sys.argv[2]
s = socket.create_connection(('127.0.0.1', port), 5)
s.settimeout(5)
s.sendall(('GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: %s\r\n'
           'Sec-WebSocket-Version: 13\r\n\r\n' % (path, base64.b64encode(os.urandom(16)).decode())).encode())
f = s.makefile('rb')
status = f.readline().decode().strip()
while f.readline().strip(): pass
print(status)
if ' 101 ' not in status: sys.exit()
def send(op, data):
    mask = os.urandom(4)
    n = len(data)
    head = struct.pack('!BB', 0x80 | op, 0x80 | n) if n < 126 else struct.pack('!BBH', 0x80 | op, 0xfe, n) if n < 65536 else struct.pack('!BBQ', 0x80 | op, 0xff, n)
    s.sendall(head + mask + bytes(b ^ mask[i & 3] for i, b in enumerate(data)))
def receive():
    a, n = f.read(1)[0], f.read(1)[0]
    n = struct.unpack('!H', f.read(2))[0] if n == 126 else struct.unpack('!Q', f.read(8))[0] if n == 127 else n
    return a & 15, f.read(n)
for arg in sys.argv[3:]:
    if arg == '?':
        op, data = receive()
        print(op, data.decode(errors='replace') if op == 1 else data.hex())
    elif arg == 'ping': send(9, b'x')
    elif arg == 'close': send(8, struct.pack('!H', 1000))
    elif arg == 'eof': print('eof' if f.read(1) == b'' else 'more')
    elif arg.startswith('many:'):
        for i in range(int(arg[5:])): send(1, b'{"ID":"88"}')
    elif arg.startswith('count:'):
        print(sum(1 for _ in range(int(arg[6:])) if receive()[0] == 1))
    elif arg.startswith('put:'):
        import urllib.request
        urllib.request.urlopen('http://127.0.0.1:%d/v3/kv/put' % port, ('{"key":"%s","value":"dg=="}' % arg[4:]).encode()).read()
    else: send(1, arg.encode())
PY
ws() { timeout 20 python3 "$tmp/ws.py" "$port" "$@" 2>&1; }
out=$(ws /v3/watch '{"create_request":{"key":"d3M="}}' '?' 'put:d3M=' '?' '{"progress_request":{}}' '?' '{"cancel_request":{"watch_id":"0"}}' '?' ping '?' close '?' eof)
equal "a WebSocket watches" "HTTP/1.1 101 Switching Protocols" "$(head -1 <<<"$out")"
equal "  created, event, progress, canceled" 'true|"dg=="|"-1"|true' \
    "$(sed -n '2,5s/^1 //p' <<<"$out" | jq -c '.result | .canceled // .events[0].kv.value // .created // .watch_id' | paste -sd'|')"
equal "  pong, close" "10 78|8 03e8|eof" "$(tail -3 <<<"$out" | paste -sd'|')"
equal "a WebSocket keeps a lease alive" 3000 "$(ws /v3/lease/keepalive many:3000 count:3000 | tail -1)"
equal "what is no JSON is answered and closed" "1 3|8 03e8|eof" \
    "$(ws /v3/watch 'nonsense' '?' '?' eof | tail -3 | sed -E '1s/^1 .*"grpc_code":([0-9]+).*/1 \1/' | paste -sd'|')"
equal "no WebSocket for unary calls" "HTTP/1.1 400 Bad Request" "$(ws /v3/kv/range)"

# --- limits -----------------------------------------------------------------------------------------------------------------------
head -c 2500000 /dev/zero | tr '\0' A >"$tmp/value"
printf '{"key":"bGFyZ2U=","value":"%s"}' "$(cat "$tmp/value")" >"$tmp/large"
says "a request above its limit" /v3/kv/put "@$tmp/large" 400 '.error == "etcdserver: request is too large"'
{ cat "$tmp/value" "$tmp/value"; } >"$tmp/value2"
printf '{"key":"bGFyZ2U=","value":"%s"}' "$(cat "$tmp/value2")" >"$tmp/large"
says "a message above gRPC's limit" /v3/kv/put "@$tmp/large" 429 '.error | startswith("grpc: received message larger than max")'
head -c 9000000 /dev/zero | tr '\0' ' ' >"$tmp/large"
equal "a body above HTTP's limit" 413 "$(j /v3/kv/put "@$tmp/large" | tail -1)"
equal "in chunks too" 413 "$(j /v3/kv/put "@$tmp/large" -H 'Transfer-Encoding: chunked' 2>/dev/null | tail -1)"
printf '{"key":"bGFyZ2U=","value":"%s"}' "$(head -c 1400000 "$tmp/value")" >"$tmp/large"
says "a large value" /v3/kv/put "@$tmp/large" 200 .header -H 'Transfer-Encoding: chunked'
says "and back" /v3/kv/range '{"key":"bGFyZ2U="}' 200 '.kvs[0].value | length == 1400000'

# --- health -------------------------------------------------------------------------------------------------------------------------
get() { curl -sS -m 8 -w '\n%{http_code}' "$@" | grep . | paste -sd' '; }
at=http://127.0.0.1:$port
alarm() { j /v3/maintenance/alarm "{\"action\":\"$1\",\"memberID\":\"$member\",\"alarm\":\"$2\"}" >/dev/null; }
equal "healthy" '{"health":"true","reason":""} 200' "$(get $at/health)"
equal "alive" 'ok 200' "$(get $at/livez)"
equal "ready" 'ok 200' "$(get $at/readyz)"
equal "ready, in detail" '[+]data_corruption ok [+]serializable_read ok [+]linearizable_read ok [+]non_learner ok ok 200' "$(get "$at/readyz?verbose")"
equal "one check" '[+]linearizable_read ok ok 200' "$(get "$at/readyz/linearizable_read?verbose")"
equal "no such check" '404 page not found 404' "$(get $at/livez/linearizable_read)"
equal "GET only" 'Method Not Allowed 405' "$(get -X POST $at/health)"
equal "of livez too" 'Method Not Allowed 405' "$(get -X POST $at/livez)"
alarm ACTIVATE NOSPACE
equal "NOSPACE is not healthy" '{"health":"false","reason":"ALARM NOSPACE"} 503' "$(get $at/health)"
equal "unless it is excluded" '{"health":"true","reason":""} 200' "$(get "$at/health?exclude=NOSPACE&exclude=x")"
equal "and is ready" 'ok 200' "$(get $at/readyz)"
says "a put without space" /v3/kv/put "{\"key\":\"$foo\"}" 429 '.code == 8'
alarm ACTIVATE CORRUPT
equal "CORRUPT comes after it" '{"health":"false","reason":"ALARM CORRUPT"} 503' "$(get "$at/health?exclude=NOSPACE")"
equal "both excluded" 200 "$(get "$at/health?exclude=NOSPACE&exclude=CORRUPT&serializable=true" | grep -o '...$')"
equal "CORRUPT is not ready" '[-]data_corruption failed: alarm activated: CORRUPT' "$(curl -sS $at/readyz | head -1)"
equal "all checks are listed" 4 "$(curl -sS $at/readyz | grep -c '^\[[+-]\]')"
equal "but alive" 'ok 200' "$(get $at/livez)"
alarm DEACTIVATE CORRUPT
alarm DEACTIVATE NOSPACE
equal "healthy again" '{"health":"true","reason":""} 200' "$(get $at/health)"
equal "version" '{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"} 200' "$(get $at/version)"
check "variables are JSON" sh -c "curl -sS $at/debug/vars | jq -e '.[\"raft.status\"].raftState == \"StateLeader\"'"

# --- side by side ---------------------------------------------------------------------------------------------------------------------
# Fields that 3.4 does not have, and what differs by nature, are taken out of both.
normal() {
    jq -cS 'walk(if type == "object" then
        del(.cluster_id, .member_id, .raft_term, .storageVersion, .dbSizeQuota, .downgradeInfo, .hash_revision)
        | with_entries(if .key | IN("dbSize", "dbSizeInUse", "raftIndex", "raftAppliedIndex", "raftTerm", "leader", "version_", "hash") then .value = "N" else . end)
        else . end)' 2>/dev/null
}
both() { # NAME PATH BODY: the same status and the same JSON; an error only in its code
    local name=$1 path=$2 body=$3 a b
    a=$(port=$etcd j "$path" "$body"); b=$(port=$trine j "$path" "$body")
    local sa=${a##*$'\n'} sb=${b##*$'\n'} ja jb
    ja=$(normal <<<"${a%$'\n'*}") jb=$(normal <<<"${b%$'\n'*}")
    if [ "$sa" != 200 ]; then
        # 3.4 answers "failed precondition" with 412; what is no JSON is told in Go's words there.
        ja="$(jq .code <<<"$ja")" jb="$(jq .code <<<"$jb")" sa=${sa/412/400}
    fi
    equal "as etcd: $name" "$sa $ja" "$sb $jb"
}
# Both start from the same revision.
for p in $trine $etcd; do
    rev=$(port=$p j /v3/kv/range '{"key":"eA=="}' | head -1 | jq -r .header.revision)
    [ $p = $trine ] && first=$rev
done
for _ in $(seq $((first - rev))); do port=$etcd j /v3/kv/put '{"key":"Zmlyc3Q="}' >/dev/null; done
port=$trine j /v3/lease/revoke '{"ID":"88"}' >/dev/null
first=$(j /v3/kv/range '{"key":"eA=="}' | head -1 | jq -r .header.revision)
rev=$(port=$etcd j /v3/kv/range '{"key":"eA=="}' | head -1 | jq -r .header.revision)
for _ in $(seq $((first - rev))); do port=$etcd j /v3/kv/put '{"key":"Zmlyc3Q="}' >/dev/null; done
both put /v3/kv/put '{"key":"YQ==","value":"MQ=="}'
both "put with prev_kv" /v3/kv/put '{"key":"YQ==","value":"Mg==","prevKv":true}'
both "range" /v3/kv/range '{"key":"YQ=="}'
both "range without a body" /v3/kv/range ''
both "range with everything" /v3/kv/range '{"key":"YQ==","range_end":"Yg==","limit":"1","sort_order":"DESCEND","sort_target":"MOD","serializable":true,"keys_only":true}'
both "range with numbers for enums" /v3/kv/range '{"key":"YQ==","sort_order":2,"sort_target":3}'
both "count" /v3/kv/range '{"key":"YQ==","count_only":true}'
both "range of nothing" /v3/kv/range '{"key":"bm9wZQ=="}'
both "unknown fields" /v3/kv/range '{"key":"YQ==","nonsense":{"a":[1,2]}}'
both "an empty key" /v3/kv/range '{}'
both "bad base64" /v3/kv/range '{"key":"*"}'
both "a number for bytes" /v3/kv/range '{"key":1}'
both "an unknown enum" /v3/kv/range '{"key":"YQ==","sort_order":"NO"}'
both "a fraction for an integer" /v3/kv/range '{"key":"YQ==","limit":1.5}'
both "too large a number" /v3/kv/range '{"key":"YQ==","limit":"9223372036854775808"}'
both "cut off" /v3/kv/range '{"key":"YQ=='
both "an array" /v3/kv/range '[]'
both "txn" /v3/kv/txn '{"compare":[{"result":"EQUAL","target":"VALUE","key":"YQ==","value":"Mg=="}],"success":[{"requestPut":{"key":"YQ==","value":"Mw=="}},{"requestRange":{"key":"YQ=="}},{"requestDeleteRange":{"key":"YQ==","prev_kv":true}}],"failure":[]}'
both "txn that fails" /v3/kv/txn '{"compare":[{"target":"VERSION","key":"YQ==","version":"9"}],"failure":[{"requestTxn":{"success":[{"requestRange":{"key":"YQ=="}}]}}]}'
both "deleterange" /v3/kv/deleterange '{"key":"YQ=="}'
both "compaction" /v3/kv/compaction "{\"revision\":\"$first\"}"
both "range of the past" /v3/kv/range '{"key":"YQ==","revision":"1"}'
both "lease grant" /v3/lease/grant '{"ID":"7","TTL":"50"}'
both "lease of the same id" /v3/lease/grant '{"ID":"7","TTL":"50"}'
both "lease keepalive" /v3/lease/keepalive '{"ID":"7"}'
both "leases" /v3/lease/leases '{}'
both "lease revoke" /v3/lease/revoke '{"ID":"7"}'
both "lease revoke again" /v3/kv/lease/revoke '{"ID":"7"}'
both "member remove of none" /v3/cluster/member/remove '{"ID":"5"}'
both "user list" /v3/auth/user/list '{}'
both "role add" /v3/auth/role/add '{"name":"r"}'
both "role add again" /v3/auth/role/add '{"name":"r"}'
both "role grant" /v3/auth/role/grant '{"name":"r","perm":{"permType":"READWRITE","key":"YQ==","range_end":"Yg=="}}'
both "role get" /v3/auth/role/get '{"role":"r"}'
both "role get of none" /v3/auth/role/get '{"role":"none"}'
both "role list" /v3/auth/role/list '{}'
both "user add" /v3/auth/user/add '{"name":"root","password":"secret"}'
both "user grant" /v3/auth/user/grant '{"user":"root","role":"root"}'
both "role root" /v3/auth/role/add '{"name":"root"}'
both "user grant of root" /v3/auth/user/grant '{"user":"root","role":"root"}'
both "user get" /v3/auth/user/get '{"name":"root"}'
both "user add of a user" /v3/auth/user/add '{"name":"u","password":"p"}'
both "user grant of a role" /v3/auth/user/grant '{"user":"u","role":"r"}'
both "user changepw" /v3/auth/user/changepw '{"name":"u","password":"q"}'
both "user revoke of a role" /v3/auth/user/revoke '{"name":"u","role":"r"}'
both "user grant again" /v3/auth/user/grant '{"user":"u","role":"r"}'
both "authenticate before it is on" /v3/auth/authenticate '{"name":"root","password":"secret"}'
both "auth enable" /v3/auth/enable '{}'

# --- auth -----------------------------------------------------------------------------------------------------------------------------
says "without a token" /v3/kv/put '{"key":"YQ=="}' 400 '.error == "etcdserver: user name is empty"'
says "with a bad token" /v3/kv/put '{"key":"YQ=="}' 401 '.error == "etcdserver: invalid auth token"' -H 'Authorization: bad.1'
says "a wrong password" /v3/auth/authenticate '{"name":"root","password":"no"}' 400 '.code == 3'
root_token=$(j /v3/auth/authenticate '{"name":"root","password":"secret"}' | head -1 | jq -r .token)
user_token=$(j /v3/auth/authenticate '{"name":"u","password":"q"}' | head -1 | jq -r .token)
says "root may all" /v3/kv/put '{"key":"eg=="}' 200 .header -H "Authorization: $root_token"
says "who has a role may what it says" /v3/kv/put '{"key":"YQ=="}' 200 .header -H "Authorization: Bearer $user_token"
says "and no more" /v3/kv/put '{"key":"eg=="}' 403 '.error == "etcdserver: permission denied"' -H "Authorization: $user_token"
says "auth status" /v3/auth/status '{}' 200 .enabled -H "Authorization: $root_token"
equal "health needs no token" 'ok 200' "$(get $at/readyz)"
equal "nor does the older one" '{"health":"true","reason":""} 200' "$(get $at/health)"
says "role revoke" /v3/auth/role/revoke '{"role":"r","key":"YQ==","range_end":"Yg=="}' 200 .header -H "Authorization: $root_token"
says "then the user may nothing" /v3/kv/put '{"key":"YQ=="}' 403 '.code == 7' -H "Authorization: $user_token"
says "user delete" /v3/auth/user/delete '{"name":"u"}' 200 .header -H "Authorization: $root_token"
says "role delete" /v3/auth/role/delete '{"role":"r"}' 200 .header -H "Authorization: $root_token"
says "auth disable" /v3/auth/disable '{}' 200 .header -H "Authorization: $root_token"

# --- CORS, hosts, gateway off -----------------------------------------------------------------------------------------------------------
plain=$(free_port)
start_node "$tmp/plain" "$plain" --cors http://a.example,http://b.example --host-whitelist 127.0.0.1,good.example || exit 1
origin() { curl -sS -i -X "$1" -d '{"key":"YQ=="}' -H "Origin: $2" "http://127.0.0.1:$plain/v3/kv/range" | tr -d '\r' | sed -nE 's/^Access-Control-Allow-Origin: //p'; }
equal "an origin of the list" http://b.example "$(origin POST http://b.example)"
equal "in a preflight" http://a.example "$(origin OPTIONS http://a.example)"
equal "another origin" "" "$(origin POST http://c.example)"
equal "a host of the list" 200 "$(curl -sS -o /dev/null -w '%{http_code}' -H 'Host: good.example:2379' "http://127.0.0.1:$plain/version")"
equal "another host" 421 "$(curl -sS -o "$tmp/421" -w '%{http_code}' -H 'Host: evil.example' "http://127.0.0.1:$plain/v3/kv/range")"
check "is told why" grep -q "the Host header was unrecognized" "$tmp/421"
equal "gRPC does not mind" OK "$(ETCDCTL_API=3 etcdctl --endpoints "http://localhost:$plain" put a b)"
off=$(free_port)
start_node "$tmp/off" "$off" --enable-grpc-gateway=false || exit 1
equal "a gateway that is off" "404 page not found 404" "$(get -d '{}' "http://127.0.0.1:$off/v3/kv/range")"
equal "over HTTP/2 in the clear" 2:200 "$(curl -sS --http2-prior-knowledge -d '{"key":"YQ=="}' -o /dev/null -w '%{http_version}:%{http_code}' "http://127.0.0.1:$trine/v3/kv/range")"
head -c 9000000 /dev/zero | tr '\0' ' ' >"$tmp/large"
equal "and its limit" 2:413 "$(curl -sS --http2-prior-knowledge -d "@$tmp/large" -o /dev/null -w '%{http_version}:%{http_code}' "http://127.0.0.1:$trine/v3/kv/put")"
early() { head -c 100000 "$tmp/large"; sleep 0.5; echo '{}'; } # its answer comes before its end
equal "an answer before the body's end" 2:500:0 "$(early | curl -sS -m 10 --http2-prior-knowledge -H 'grpc-timeout: bad' -X POST -T - -o /dev/null -w '%{http_version}:%{http_code}:%{exitcode}' "http://127.0.0.1:$trine/v3/kv/range")"
equal "also of a stream" 2:500:0 "$(early | curl -sS -m 10 --http2-prior-knowledge -H 'grpc-timeout: bad' -X POST -T - -o /dev/null -w '%{http_version}:%{http_code}:%{exitcode}' "http://127.0.0.1:$trine/v3/watch")"
equal "a stream has the limit too" 2:413:0 "$(curl -sS -m 10 --http2-prior-knowledge -d "@$tmp/large" -o /dev/null -w '%{http_version}:%{http_code}:%{exitcode}' "http://127.0.0.1:$trine/v3/watch")"
equal "a watch over HTTP/2" true "$(curl -sS -N -m 2 --http2-prior-knowledge -d '{"create_request":{"key":"YQ=="}}' "http://127.0.0.1:$trine/v3/watch" 2>/dev/null | head -1 | jq .result.created)"
summary
