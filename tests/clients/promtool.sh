#!/usr/bin/env bash
# What promtool says of /metrics of the server on 127.0.0.1:2379.
set -uo pipefail
export ETCDCTL_API=3
etcdctl put a b >/dev/null; etcdctl get a >/dev/null; etcdctl lease grant 60 >/dev/null
curl -s http://127.0.0.1:2379/metrics >metrics.txt
if promtool check metrics <metrics.txt >said.txt 2>&1; then echo "ok promtool finds nothing"; else
    # It has opinions about names, which etcd's own do not meet; anything else is an error of form.
    if grep -qv 'counter metrics should have\|no help text\|use base unit\|non-counter metrics should\|non-histogram\|should not contain\|metric names should\|abbreviated units' said.txt; then
        echo "not ok promtool # $(head -3 said.txt)"; else echo "ok promtool finds only what it finds in etcd"; fi
fi
[ "$(grep -c '^etcd_server_has_leader 1' metrics.txt)" = 1 ] && echo "ok there is a leader" || echo "not ok there is a leader"
[ "$(grep -c '^grpc_server_handled_total.*Put' metrics.txt)" -ge 1 ] && echo "ok requests are counted by method" || echo "not ok requests are counted by method"
