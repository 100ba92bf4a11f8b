#!/usr/bin/env bash
# curl against the server on 127.0.0.1:2379: JSON over HTTP/1.1, streams as lines, the other paths.
set -uo pipefail
url=http://127.0.0.1:2379
passed=0 failed=0
is() { # NAME WANT GOT
    if [ "$2" = "$3" ]; then echo "ok $1"; passed=$((passed + 1)); else echo "not ok $1 # want '$2', got '$3'"; failed=$((failed + 1)); fi
}
b() { printf %s "$1" | base64 -w0; }
post() { curl -sS --max-time 20 "$url$1" -d "$2"; }
field() { jq -c "$1" 2>&1; }

rev=$(post /v3/kv/put "{\"key\":\"$(b a)\",\"value\":\"$(b one)\"}" | jq -r .header.revision)
is "put" 2 "$rev"
is "range" '{"key":"YQ==","create_revision":"2","mod_revision":"2","version":"1","value":"b25l"}' "$(post /v3/kv/range "{\"key\":\"$(b a)\"}" | field '.kvs[0]')"
is "an empty range has a header only" '["header"]' "$(post /v3/kv/range "{\"key\":\"$(b none)\"}" | field keys)"
is "lowerCamelCase" '"1"' "$(post /v3/kv/range "{\"key\":\"AA==\",\"rangeEnd\":\"AA==\",\"countOnly\":true}" | field .count)"
is "transaction" true "$(post /v3/kv/txn "{\"compare\":[{\"target\":\"CREATE\",\"key\":\"$(b a)\",\"createRevision\":\"2\"}],\"success\":[{\"requestPut\":{\"key\":\"$(b a)\",\"value\":\"$(b two)\"}}]}" | field .succeeded)"
is "deleterange" '"1"' "$(post /v3/kv/deleterange "{\"key\":\"$(b a)\",\"prev_kv\":true}" | field .deleted)"
is "compaction of the future" '[11,"etcdserver: mvcc: required revision is a future revision"]' "$(post /v3/kv/compaction '{"revision":1000}' | field '[.code,.message]')"
is "status of an error" 400 "$(curl -s -o /dev/null -w '%{http_code}' "$url/v3/kv/compaction" -d '{"revision":"1000"}')"
is "an empty key" '[3,"etcdserver: key is not provided"]' "$(post /v3/kv/put '{}' | field '[.code,.message]')"
is "not JSON" 400 "$(curl -s -o /dev/null -w '%{http_code}' "$url/v3/kv/put" -d '{"key":')"
is "not base64" 400 "$(curl -s -o /dev/null -w '%{http_code}' "$url/v3/kv/put" -d '{"key":"*"}')"
is "an unknown path" 404 "$(curl -s -o /dev/null -w '%{http_code}' "$url/v3/nothing" -d '{}')"
id=$(post /v3/lease/grant '{"TTL":"60"}' | jq -r .ID)
is "lease" '["60",true]' "$(post /v3/lease/timetolive "{\"ID\":\"$id\",\"keys\":true}" | field '[.grantedTTL,(.TTL|tonumber) > 50]')"
is "keepalive" '"60"' "$(post /v3/lease/keepalive "{\"ID\":\"$id\"}" | field .result.TTL)"
is "revoke" '["header"]' "$(post /v3/lease/revoke "{\"ID\":\"$id\"}" | field keys)"
curl -sSN --max-time 3 "$url/v3/watch" -d "{\"create_request\":{\"key\":\"$(b w)\"}}" >watch.out 2>/dev/null &
sleep 1
post /v3/kv/put "{\"key\":\"$(b w)\",\"value\":\"$(b seen)\"}" >/dev/null
wait $!
is "watch: first line" true "$(head -1 watch.out | field .result.created)"
is "watch: an event" '["dw==","c2Vlbg=="]' "$(sed -n 2p watch.out | field '.result.events[0].kv | [.key,.value]')"
is "members" '["default"]' "$(post /v3/cluster/member/list '{}' | field '[.members[].name]')"
is "status" true "$(post /v3/maintenance/status '{}' | field '(.version | length) > 0')"
is "hash" true "$(post /v3/maintenance/hash '{}' | field '.hash > 0')"
is "lock" bXV0ZXgv "$(post /v3/lock/lock "{\"name\":\"$(b mutex)\"}" | jq -r .key | cut -c1-8)" # "mutex/"
is "user add" '["header"]' "$(post /v3/auth/user/add '{"name":"bob","password":"x"}' | field keys)"
is "user list" '["bob"]' "$(post /v3/auth/user/list '{}' | field .users)"
is "snapshot ends with a SHA-256" 32 "$(post /v3/maintenance/snapshot '{}' | tail -1 | jq -r .result.blob | base64 -d | wc -c)"
is "health" '"true"' "$(curl -s $url/health | field .health)"
is "version" true "$(curl -s $url/version | field '(.etcdserver | test("^[0-9.]+$"))')"
is "metrics" 1 "$(curl -s $url/metrics | grep -c '^etcd_server_has_leader 1')"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
