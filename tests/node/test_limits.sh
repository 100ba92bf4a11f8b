#!/usr/bin/env bash
# Limits that a client meets: requests per second of a connection and of a user, and which of the others /metrics has counted.
#   tests/node/test_limits.sh [BUILD_DIR]
build=$(realpath "${1:-build}")
. "$(dirname "$0")/../lib/node.sh"
export ETCDCTL_API=3
port=$(free_port)
start_node "$tmp/n" "$port" --connection-rate-limit 20 --user-rate-limit 5 || exit 1
url=http://127.0.0.1:$port
dropped() { curl -s "$url/metrics" | sed -n "s/^trine_gateway_dropped_total{reason=\"$1\"} //p"; }
ctl() { timeout 20 etcdctl --endpoints "$url" --command-timeout=5s "$@"; }

# --- one connection ----------------------------------------------------------------------------------
# h2load: one connection, 200 requests as fast as it can; the body is a RangeRequest for "a".
printf '\0\0\0\0\3\12\1a' >"$tmp/range"
burst() { h2load -n 200 -c 1 -m 10 -d "$tmp/range" -H 'content-type: application/grpc' -H 'te: trailers' "$url/etcdserverpb.KV/Range" >/dev/null 2>&1; }
before=$(dropped rate)
burst
after=$(dropped rate)
check "a connection has its rate: $before -> $after refused" [ $((after - before)) -ge 100 ]
check "but is served at that rate" [ $((after - before)) -le 180 ]
equal "another connection is served" "OK" "$(ctl put a b 2>&1)"
json() { curl -s "$url/v3/kv/range" -d '{"key":"YQ=="}'; }
out=$(for _ in $(seq 100); do printf 'next\nurl = "%s/v3/kv/range"\ndata = "{\\"key\\":\\"YQ==\\"}"\n' "$url"; done | curl -s -K - 2>&1)
check "the same by JSON, in etcd's words" grep -q '"etcdserver: too many requests"' <<<"$out"
check "and some were answered" grep -q '"kvs"' <<<"$out"
check "on a connection of its own each is served" eval 'for _ in 1 2 3 4 5 6; do json | grep -q kvs || exit 1; done'

# --- one user -------------------------------------------------------------------------------------------
ctl user add root:pw >/dev/null
ctl user grant-role root root >/dev/null
ctl user add other:pw >/dev/null
ctl user grant-role other root >/dev/null
ctl auth enable >/dev/null
token() { curl -s "$url/v3/auth/authenticate" -d "{\"name\":\"$1\",\"password\":\"pw\"}" | jq -r .token; }
of_root=$(token root) of_other=$(token other)
as() { curl -s "$url/v3/kv/range" -H "Authorization: $1" -d '{"key":"YQ=="}'; }
sleep 1.1
out=$(for _ in $(seq 25); do as "$of_root"; done) # connections of their own
check "a user has a rate over all connections" grep -q 'too many requests' <<<"$out"
check "and is served at it" grep -q '"kvs"' <<<"$out"
check "another user is served meanwhile" eval 'as "$of_other" | grep -q kvs'
sleep 1.1
check "and the first one again, a second later" eval 'as "$of_root" | grep -q kvs'
check "the node is healthy" eval 'health "$port" | grep -q true'
summary
