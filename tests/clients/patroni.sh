#!/usr/bin/env bash
# Patroni 3.0 and PostgreSQL 15 on a cluster of three: bootstrap, switchover, a failover after kill -9, and the death of a third of
# the cluster meanwhile. Runs inside a network namespace of its own (run.sh), against etcd or Trine.
#
#   patroni.sh etcd|trine BIN_DIR DIRECTORY
set -uo pipefail
server=$1 bin=$2 dir=$3
root=$(cd "$(dirname "$0")/../.." && pwd)
pg=/usr/lib/postgresql/15/bin
passed=0 failed=0
pids=()
yes() { # NAME COMMAND...
    local name=$1; shift
    if "$@"; then echo "ok $name"; passed=$((passed + 1)); else echo "not ok $name"; failed=$((failed + 1)); fi
}
within() { # SECONDS COMMAND...: until it succeeds
    local end=$((SECONDS + $1)); shift
    until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] || return 1; sleep 0.3; done
}
stop_all() {
    local p
    for p in "${pids[@]}"; do kill -TERM "$p" 2>/dev/null; done
    for p in "${pids[@]}"; do wait "$p" 2>/dev/null; done
}
trap stop_all EXIT
mkdir -p "$dir"/{1,2,3} && chmod 755 "$dir" || exit 1

# --- three members ---
cluster=n1=http://localhost:2380,n2=http://localhost:12380,n3=http://localhost:22380
member_pid=()
start_member() { # N
    local n=$1 p=$((2379 + ($1 - 1) * 10000))
    case $server in
        etcd) "$bin/etcd" --name "n$n" --data-dir "$dir/$n/etcd" --listen-client-urls "http://127.0.0.1:$p" --advertise-client-urls "http://127.0.0.1:$p" \
                  --listen-peer-urls "http://127.0.0.1:$((p + 1))" --initial-advertise-peer-urls "http://localhost:$((p + 1))" \
                  --initial-cluster "$cluster" >>"$dir/$n/server.log" 2>&1 & ;;
        trine) "$root/deploy/node.sh" --dir "$dir/$n/trine" --port "$p" --peer-port $((p + 1)) --bin "$bin" -- --name "n$n" \
                  --initial-cluster "$cluster" >>"$dir/$n/server.log" 2>&1 & ;;
    esac
    member_pid[n]=$!
    pids+=($!)
}
for n in 1 2 3; do start_member $n; done
healthy() { [ "$(curl -s --max-time 2 "http://127.0.0.1:$1/health" | jq -r .health)" = true ]; }
for n in 1 2 3; do yes "member $n is healthy" within 30 healthy $((2379 + (n - 1) * 10000)); done

# --- three PostgreSQLs, each watched by a Patroni ---
patroni_pid=()
start_patroni() { # N
    local n=$1
    if [ ! -e "$dir/$n/patroni.yml" ]; then
        cat >"$dir/$n/patroni.yml" <<EOF
scope: trine
name: pg$n
restapi: {listen: 127.0.0.1:800$n, connect_address: 127.0.0.1:800$n}
etcd3: {hosts: "127.0.0.1:2379,127.0.0.1:12379,127.0.0.1:22379"}
bootstrap:
  dcs: {ttl: 20, loop_wait: 2, retry_timeout: 3, maximum_lag_on_failover: 1048576}
  initdb: [{encoding: UTF8}, {locale: C}, no-sync]
  pg_hba: ["host replication replicator 127.0.0.1/32 trust", "host all all 127.0.0.1/32 trust"]
postgresql:
  listen: 127.0.0.1:543$n
  connect_address: 127.0.0.1:543$n
  data_dir: $dir/$n/pg
  bin_dir: $pg
  pgpass: $dir/$n/pgpass
  authentication: {superuser: {username: postgres, password: x}, replication: {username: replicator, password: x}}
  parameters: {unix_socket_directories: '$dir/$n', fsync: 'off', shared_buffers: 16MB, max_connections: 20}
EOF
        chown -R postgres "$dir/$n/patroni.yml"; mkdir -p "$dir/$n/pg"; chmod 700 "$dir/$n/pg"; chown postgres "$dir/$n" "$dir/$n/pg"
    fi
    setpriv --reuid postgres --regid postgres --init-groups patroni "$dir/$n/patroni.yml" >>"$dir/$n/patroni.log" 2>&1 &
    patroni_pid[n]=$!
    pids+=($!)
}
ctl() { patronictl -c "$dir/1/patroni.yml" "$@"; }
list() { ctl list -f json 2>/dev/null; }
leader() { list | jq -r '.[] | select(.Role == "Leader" and .State == "running") | .Member' | tail -1; }
leads() { local now; now=$(leader); [ -n "$now" ] && [ "$now" != "${1:-}" ]; }
replicas() { [ "$(list | jq '[.[] | select(.Role == "Replica" and (.State == "running" or .State == "streaming"))] | length')" = "$1" ]; }
sql() { "$pg/psql" -qAt -h 127.0.0.1 -p "543${1#pg}" -U postgres -d postgres -c "$2" 2>/dev/null; }
for n in 1 2 3; do start_patroni $n; done
yes "bootstrap: one leads" within 90 leads
leads || { tail -5 "$dir"/1/patroni.log; echo "$passed passed, $failed failed"; exit 1; }
yes "bootstrap: two follow" within 90 replicas 2

first=$(leader)
yes "the leader takes a row" sql "$first" 'create table t(i int); insert into t values (1)'
follower() { local m; for m in pg1 pg2 pg3; do [ "$m" = "$(leader)" ] || [ "$(sql $m 'select count(*) from t')" = "$1" ] || return 1; done; }
yes "the followers get it" within 30 follower 1

yes "switchover is accepted" ctl switchover --force --master "$first" trine
yes "switchover: another leads" within 60 leads "$first"
yes "switchover: two follow" within 60 replicas 2
second=$(leader)
yes "the new leader takes a row" within 20 sql "$second" 'insert into t values (2)'

# --- kill -9: Patroni and PostgreSQL of the leader ---
n=${second#pg}
kill -9 "$(head -1 "$dir/$n/pg/postmaster.pid")" "${patroni_pid[n]}"
yes "kill -9: another leads" within 60 leads "$second"
third=$(leader)
yes "kill -9: no row is lost" [ "$(sql "$third" 'select count(*) from t')" = 2 ]
start_patroni "$n"
yes "kill -9: the dead one follows again" within 90 replicas 2

# --- a member of the cluster dies: Patroni does not notice ---
kill -TERM "${member_pid[2]}"; wait "${member_pid[2]}" 2>/dev/null
sleep 6
yes "a member is gone: the same one leads" [ "$(leader)" = "$third" ]
yes "a member is gone: rows are taken" sql "$third" 'insert into t values (3)'
start_member 2
yes "the member is back" within 30 healthy 12379
yes "pause and resume" eval 'ctl pause trine >/dev/null && ctl resume trine >/dev/null'
echo "$passed passed, $failed failed"
[ $failed = 0 ]
