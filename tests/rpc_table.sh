#!/usr/bin/env bash
# Every rpc of the API and the tests on a real node that call it, over gRPC and over JSON, as a Markdown table made of the proto files and of
# the tests themselves. An empty cell is a failure.
#   tests/rpc_table.sh            the table          tests/rpc_table.sh --check     only what is missing, and a count
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

# shellcheck disable=SC2016,SC2013,SC2001
# service/method: how etcdctl calls it; the tests that compare or use etcdctl are found by it.
declare -A verb=(
    [KV/Range]='ctl get' [KV/Put]='ctl put' [KV/DeleteRange]='ctl del' [KV/Txn]='ctl txn' [KV/Compact]='ctl compaction'
    [Watch/Watch]='etcdctl .*watch' [Lease/LeaseGrant]='ctl lease grant' [Lease/LeaseRevoke]='ctl lease revoke'
    [Lease/LeaseKeepAlive]='ctl lease keep-alive' [Lease/LeaseTimeToLive]='ctl lease timetolive' [Lease/LeaseLeases]='ctl lease list'
    [Cluster/MemberAdd]='member add' [Cluster/MemberRemove]='member remove' [Cluster/MemberUpdate]='member update'
    [Cluster/MemberList]='ctl member list' [Cluster/MemberPromote]='member promote' [Maintenance/Alarm]='ctl alarm'
    [Maintenance/Status]='endpoint status' [Maintenance/Defragment]='ctl defrag' [Maintenance/HashKV]='endpoint hashkv'
    [Maintenance/Snapshot]='snapshot save' [Maintenance/MoveLeader]='move-leader' [Auth/AuthEnable]='auth enable'
    [Auth/AuthDisable]='auth disable' [Auth/Authenticate]='--user' [Auth/UserAdd]='user add' [Auth/UserGet]='user get'
    [Auth/UserList]='user list' [Auth/UserDelete]='user delete' [Auth/UserChangePassword]='user passwd' [Auth/UserGrantRole]='user grant-role'
    [Auth/UserRevokeRole]='user revoke-role' [Auth/RoleAdd]='role add' [Auth/RoleGet]='role get' [Auth/RoleList]='role list'
    [Auth/RoleDelete]='role delete' [Auth/RoleGrantPermission]='role grant-permission' [Auth/RoleRevokePermission]='role revoke-permission'
    [Lock/Lock]='ctl lock' [Election/Campaign]='ctl elect')

rpcs() { # package service method stream?
    awk '/^package / { gsub(/;/, "", $2); package = $2 } /^service / { service = $2 }
        /^ *rpc / { sub(/\(.*/, "", $2); split($0, at, "returns"); print package, service, $2, (index($0, "stream ") ? "stream" : "unary") }' proto/etcd/*.proto
}

# FILE:LINE of the first match, for at most two files.
places() { # PATTERN FILES...
    local pattern=$1; shift
    grep -nE -m1 -- "$pattern" "$@" /dev/null 2>/dev/null | head -2 | sed -E 's,^tests/node/([^:]*):([0-9]+):.*,`\1:\2`,' | paste -sd' '
}

over_grpc() { # PACKAGE SERVICE METHOD
    local f macro found=()
    for f in tests/node/*.c; do
        macro=$(sed -nE "s,^#define ([A-Z_]+) \"/$1\.$2/\".*,\1,p" "$f" | head -1)
        found+=("$(places "\"/$1\.$2/$3\"${macro:+|\b$macro \"$3\"|, \"$3\"\);}" "$f")")
    done
    # shellcheck disable=SC2046,SC2010
    [ -z "${verb[$2/$3]:-}" ] || found+=("$(places "^[^#]*${verb[$2/$3]}\b" $(ls tests/node/*.sh | grep -v test_json))")
    printf '%s\n' "${found[@]}" | grep . | head -3 | paste -sd' '
}

over_json() { # PACKAGE SERVICE METHOD
    local path found=()
    if [ "$3" = RangeStream ]; then
        echo "no path (as etcd)"
        return
    fi
    for path in $(sed -nE "s,^    \{\"(/v3/[^\"]+)\"\, $(tr '[:lower:]' '[:upper:]' <<<"$2") \"$3\"\}.*,\1,p" gatewayd/jsonmap.c); do
        found+=("$path $(places "(says|both|j|-d) .*$path( |\"|$)|(says|both) .*\\\$at/${path##*/} |ws $path " tests/node/test_json.sh)")
        [[ ${found[-1]} = *:* ]] || return
    done
    (IFS=';'; sed 's/;/, /g' <<<"${found[*]}")
}

count=0 failed=0
[ "${1:-}" = --check ] || printf '| rpc | kind | gRPC | JSON |\n|---|---|---|---|\n'
while read -r package service method kind; do
    grpc=$(over_grpc "$package" "$service" "$method")
    json=$(over_json "$package" "$service" "$method")
    count=$((count + 2))
    for cell in "gRPC:$grpc" "JSON:$json"; do
        [ -n "${cell#*:}" ] || { failed=$((failed + 1)); echo "no test calls $package.$service/$method over ${cell%%:*}" >&2; }
    done
    [ "${1:-}" = --check ] || echo "| $package.$service/$method | $kind | ${grpc:--} | ${json:--} |"
done < <(rpcs)
[ "${1:-}" != --check ] || echo "$((count - failed)) passed, $failed failed"
[ $failed = 0 ]
