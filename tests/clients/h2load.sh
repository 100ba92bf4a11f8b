#!/usr/bin/env bash
# nghttp2's own tools against the server on 127.0.0.1:2379: HTTP/2 as others speak it.
set -uo pipefail
url=http://127.0.0.1:2379
passed=0 failed=0
yes() { # NAME COMMAND...
    local name=$1; shift
    if "$@" >cmd.out 2>&1; then echo "ok $name"; passed=$((passed + 1)); else echo "not ok $name"; cat cmd.out; failed=$((failed + 1)); fi
}
# A RangeRequest of the key "a", and a PutRequest a = b, in gRPC's five-byte frame.
printf '\0\0\0\0\3\n\1a' >range.bin
printf '\0\0\0\0\6\n\1a\22\1b' >put.bin
load() { # REQUESTS CLIENTS STREAMS FILE PATH
    h2load -p h2c -n "$1" -c "$2" -m "$3" -d "$4" -H 'content-type: application/grpc' -H 'te: trailers' "$url$5" >load.out 2>&1
    grep -q "requests: $1 total, $1 started, $1 done, $1 succeeded, 0 failed, 0 errored, 0 timeout" load.out || { cat load.out; return 1; }
}
said() { # FILE PATH PATTERN: nghttp prints headers and trailers
    nghttp -v -d "$1" -H 'content-type: application/grpc' -H 'te: trailers' "$url$2" 2>&1 | sed 's/\x1b\[[0-9;]*m//g' >said.out
    grep -qE "$3" said.out || { cat said.out; return 1; }
}
yes "nghttp: one put" said put.bin /etcdserverpb.KV/Put 'grpc-status: 0'
yes "nghttp: one range" said range.bin /etcdserverpb.KV/Range 'grpc-status: 0'
yes "nghttp: an unknown method" said range.bin /etcdserverpb.KV/Nothing 'grpc-status: 12'
yes "nghttp: a malformed message" said put.bin /etcdserverpb.Lease/LeaseGrant 'grpc-status: [0-9]+'
yes "h2load: 20000 puts" load 20000 20 20 put.bin /etcdserverpb.KV/Put
yes "h2load: 20000 ranges" load 20000 20 20 range.bin /etcdserverpb.KV/Range
yes "h2load: a connection of its own for each of 500" load 500 500 1 range.bin /etcdserverpb.KV/Range
yes "h2load: HTTP/1.1" bash -c "h2load --h1 -n 1000 -c 10 $url/version | grep -q '1000 succeeded, 0 failed'"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
