#!/usr/bin/env bash
# build/bin/etcd in etcd's place: the same refusals as Debian's etcd, its variables and its file, the same signs of life, and daemons
# behind it that start, stand still and end with it.
#   tests/node/test_dropin.sh [BUILD_DIR]
build=$(realpath "${1:-build}")
. "$(dirname "$0")/../lib/node.sh"
export ETCDCTL_API=3
for v in $(compgen -e | grep -E '^(ETCD|TRINE)_'); do unset "$v"; done
dropin=$build/bin/etcd
theirs=$(command -v etcd)
contains() { if grep -qaF -- "$3" "$2"; then ok "$1"; else not_ok "$1" "wanted: $3
got:    $(tail -3 "$2")"; fi; }

# --- refusals, side by side with etcd -------------------------------------------------------------------------
# said TEXT [VARIABLE=...] -- arguments: both end with the same code, and both say TEXT ("" : nothing in common).
said() {
    local text=$1 vars=() code_theirs code_ours
    shift
    while [ "$1" != -- ]; do vars+=("$1"); shift; done
    shift
    rm -rf "$tmp/theirs" "$tmp/ours"; mkdir "$tmp/theirs" "$tmp/ours"
    (cd "$tmp/theirs" && exec env "${vars[@]}" timeout 5 "$theirs" "$@") >"$tmp/said.theirs" 2>&1 </dev/null; code_theirs=$?
    (cd "$tmp/ours" && exec env "${vars[@]}" timeout 5 "$dropin" "$@") >"$tmp/said.ours" 2>&1 </dev/null; code_ours=$?
    equal "code of etcd: ${vars[*]} $*" "$code_theirs" "$code_ours"
    [ -n "$text" ] || return 0
    sed -i 's/\\"/"/g' "$tmp/said.ours" # the log is JSON
    contains "etcd says so, too: ${vars[*]} $*" "$tmp/said.theirs" "$text"
    contains "text of etcd: ${vars[*]} $*" "$tmp/said.ours" "$text"
}
said 'flag provided but not defined: -nosuch' -- --nosuch
said 'flag provided but not defined: -nosuch' -- -nosuch=1
said 'bad flag syntax: --=x' -- --=x
said '---name' -- ---name x
said 'flag needs an argument: -name' -- --name
said 'invalid value "abc" for flag -heartbeat-interval: parse error' -- --heartbeat-interval abc
said 'invalid value "-1" for flag -snapshot-count: parse error' -- -snapshot-count -1
said 'invalid value "5" for flag -grpc-keepalive-interval: parse error' -- --grpc-keepalive-interval 5
said 'invalid value "1e3" for flag -quota-backend-bytes: parse error' -- --quota-backend-bytes 1e3
said 'invalid boolean value "x" for -pre-vote: parse error' -- --pre-vote=x
said 'invalid value "foo" for flag -initial-cluster-state: invalid value' -- --initial-cluster-state foo
said 'invalid value "foo" for flag -discovery-fallback: invalid value' -- --discovery-fallback foo
said 'invalid value "foo" for flag -listen-client-urls: URL scheme must be http, https, unix, or unixs: foo' -- --listen-client-urls foo
said 'URL scheme must be http, https, unix, or unixs: ftp://127.0.0.1:1' -- --listen-peer-urls ftp://127.0.0.1:1
said 'URL address does not have the form "host:port": http://127.0.0.1' -- --listen-client-urls http://127.0.0.1
said 'URL must not contain a path: http://127.0.0.1:1/x' -- --advertise-client-urls http://127.0.0.1:1/x
said ' is not a valid flag' -- --pre-vote false
said ' is not a valid flag' -- start
said ' is not a valid flag' -- --name x -- y
said ' is not a valid flag' -- -
said '' -- --help
said '' -- -h
said '' -- --version
said '' -- --name x --version --nosuch
said '--election-timeout[100ms] should be at least as 5 times as --heartbeat-interval[100ms]' -- --election-timeout 100
said '--election-timeout[60000ms] is too long, and should be set less than 50000ms' -- --election-timeout 60000
said '--heartbeat-interval must be >0 (set to 0ms)' -- --heartbeat-interval 0
said 'expected IP in URL for binding (http://example.com:2379)' -- --listen-client-urls http://example.com:2379 --advertise-client-urls http://a:1
said 'expected IP in URL for binding (http://example.com:2380)' -- --listen-peer-urls http://example.com:2380
said '--advertise-client-urls is required when --listen-client-urls is set explicitly' -- --listen-client-urls http://127.0.0.1:2379
said 'unknown auto-compaction-mode "foo"' -- --auto-compaction-mode foo
said '' -- --auto-compaction-retention foo
said 'unknown logger option "foo"' -- --logger foo
said 'multi logoutput for "default" is not supported yet' -- --logger zap --log-outputs default,stderr
said 'multiple discovery or bootstrap flags are set. Choose one of "initial-cluster"' -- --discovery-srv x --initial-cluster a=http://b:1
said 'couldn'"'"'t find local name "a" in the initial cluster configuration' -- --name a --initial-cluster b=http://localhost:2380
said '--initial-cluster has a=http://localhost:2381 but missing from --initial-advertise-peer-urls=http://localhost:2380' -- \
    --name a --initial-cluster a=http://localhost:2381
said '' -- --initial-cluster foo
said 'TLS key/cert (--cert-file, --key-file) must be provided for client url https://127.0.0.1:23799 with HTTPS scheme' -- \
    --listen-client-urls https://127.0.0.1:23799 --advertise-client-urls https://127.0.0.1:23799
said 'auth: invalid auth options' -- --auth-token foo
said 'unexpected TLS cipher suite "foo"' -- --cipher-suites foo
said 'open nofile: ' -- --config-file nofile
said 'conflicting environment variable ' ETCD_NAME=a -- --name b
said 'is shadowed by corresponding command-line flag (either unset environment variable or disable flag)' ETCD_NAME= -- --name b
said 'invalid value "abc" for ETCD_HEARTBEAT_INTERVAL: parse error' ETCD_HEARTBEAT_INTERVAL=abc --
said '--election-timeout[10ms] should be at least' ETCD_ELECTION_TIMEOUT=10 ETCD_HEARTBEAT_INTERVAL= --

# --- words of its own ---------------------------------------------------------------------------------------------
ours() { (cd "$tmp" && exec timeout 5 "$dropin" "$@") >"$tmp/ours.log" 2>&1 </dev/null; }
"$dropin" --version >"$tmp/version"
equal "version: the four lines of etcd" "etcd Version: 3.7.1
Git SHA
Go Version
Go OS/Arch" "$(sed '2,$s/:.*//' "$tmp/version")"
equal "help: every flag of etcd's is there" "" "$(comm -23 <("$theirs" --help 2>&1 | grep -oE '^ +--[a-z0-9-]+' | tr -d ' -' | sort -u) \
    <("$dropin" --help 2>/dev/null | grep -oE '^ +--[a-z0-9-]+' | tr -d ' -' | sort -u) | grep -vE '^(experimental|proxy|discovery(proxy)?$|debug$|logpackagelevels|enablev2|forceproxy|backendbatch)')"
for sub in gateway grpc-proxy; do
    ours $sub start; equal "subcommand $sub: refused" 1 $?
    contains "subcommand $sub: says why" "$tmp/ours.log" "\"$sub\" is not part of Trine"
done
for d in "--discovery-srv example.com" "--discovery-endpoints http://a:1 --discovery-token x"; do
    # shellcheck disable=SC2086
    ours $d; equal "discovery is refused: $d" 1 $?
    contains "discovery is refused clearly: $d" "$tmp/ours.log" "Trine does not discover its members: name them in --initial-cluster"
done
ours --discovery-token x; contains "discovery: a token alone" "$tmp/ours.log" "both --discovery-token and --discovery-endpoints must be set"
ours --tls-min-version TLS1.3 --tls-max-version TLS1.2; contains "TLS: versions" "$tmp/ours.log" "min version (TLS1.3) is greater than max version (TLS1.2)"
ours --feature-gates Foo=true; contains "feature gates: unknown" "$tmp/ours.log" 'invalid value "Foo=true" for flag -feature-gates: unrecognized feature gate: Foo'
ours --feature-gates LeaseCheckpointPersist=true; contains "feature gates: one needs another" "$tmp/ours.log" "requires enabling feature gate LeaseCheckpoint"
ours --compact-hash-check-time 0; contains "compact-hash-check-time" "$tmp/ours.log" "--compact-hash-check-time must be >0 (set to 0s)"
ours --logger capnslog; contains "logger: the old one" "$tmp/ours.log" "--logger=capnslog is removed in v3.5"
mkdir -p "$tmp/old.etcd/member/wal"
ours --name old; equal "data of an etcd is not touched" 1 $?
contains "data of an etcd: says so" "$tmp/ours.log" "holds the data of an etcd (member/)"
equal "data of an etcd: as it was" "$tmp/old.etcd/member/wal" "$(find "$tmp/old.etcd" -type d -empty -o -type f)"

# Every flag that has no effect is in the man page, with a reason; every other one is a key of the daemons or this program's own.
man=$root/deploy/trine.conf.5
equal "man: trine.conf(5) has every flag without effect, and no other" \
    "$("$dropin" --help 2>/dev/null | grep -B1 'Accepted without effect' | grep -oE '^ +--[a-z0-9-]+' | tr -d ' ' | sed 's/^--//' | sort)" \
    "$(sed -n '/^.SH FLAGS OF ETCD WITHOUT/,/^.SH/p' "$man" | sed -n 's/^\.B //p' | tr -d '\\,' | tr ' ' '\n' | grep . | sort)"

# --- the file ---------------------------------------------------------------------------------------------------------
# wrong YAML TEXT: refused with TEXT and code 1.
wrong() {
    printf '%b' "$1" >"$tmp/wrong.yml"
    ours --config-file "$tmp/wrong.yml"; equal "file: refused: $1" 1 $?
    sed -i 's/\\"/"/g' "$tmp/ours.log"
    contains "file: why: $1" "$tmp/ours.log" "$2"
}
wrong 'name: [a\n' 'yaml: line'
wrong '- a\n' 'cannot unmarshal array into Go value'
wrong 'heartbeat-interval: fast\n' 'cannot unmarshal string into Go struct field configYAML.heartbeat-interval of type uint'
wrong 'heartbeat-interval: "100"\n' 'cannot unmarshal string into Go struct field configYAML.heartbeat-interval of type uint'
wrong 'grpc-keepalive-interval: 10s\n' 'cannot unmarshal string into Go struct field configYAML.grpc-keepalive-interval of type time.Duration'
wrong 'pre-vote: 1\n' 'cannot unmarshal number into Go struct field configYAML.pre-vote of type bool'
wrong 'name: {a: b}\n' 'cannot unmarshal object into Go struct field configYAML.name of type string'
wrong 'client-transport-security: x\n' 'cannot unmarshal string into Go struct field configYAML.client-transport-security of type object'
wrong 'log-outputs: stderr\n' 'cannot unmarshal string into Go struct field configYAML.log-outputs of type []string'
wrong 'listen-client-urls: foo\n' 'unexpected error setting up listen-client-urls: URL scheme must be'
wrong 'initial-cluster-state: foo\n' 'unexpected clusterState "foo"'
wrong 'feature-gates: AllAlpha=yes\n' 'invalid value of AllAlpha=yes'
wrong 'election-timeout: 100\n' 'should be at least as 5 times'
wrong 'listen-peer-urls: http://a.example:1\n' 'expected IP in URL for binding'
wrong 'auto-compaction-mode: foo\n' 'unknown auto-compaction-mode "foo"'
wrong 'peer-transport-security:\n  allowed-cn: [a]\n  allowed-hostname: [b]\n' 'exclu'
wrong 'discovery-srv: example.com\n' 'Trine does not discover its members'
wrong '&a [*a]\n' 'cannot unmarshal array'
wrong 'client-transport-security: &a {cert-file: *a}\n' 'cannot unmarshal object'
wrong 'initial-cluster: \x00\n' 'yaml'

# --- one member ------------------------------------------------------------------------------------------------------------
# up DIR ARGUMENTS...: starts in DIR, log in DIR.log. Sets pid.
up() {
    local dir=$1; shift
    mkdir -p "$dir"
    (cd "$dir" && exec "$dropin" "$@") >>"$dir.out" 2>>"$dir.log" </dev/null &
    pid=$!
    _pids+=("$pid")
}
ready() { grep -q '"msg":"ready to serve client requests"' "$1.log"; }
urls() { echo "--listen-client-urls http://127.0.0.1:$1 --advertise-client-urls http://127.0.0.1:$1 --listen-peer-urls http://127.0.0.1:$2 --initial-advertise-peer-urls http://127.0.0.1:$2"; }
ctl() { local p=$1; shift; timeout 10 etcdctl --command-timeout=5s --endpoints "127.0.0.1:$p" "$@" 2>&1; }
children() { ps -o pid= --ppid "$1" | tr -d ' '; }
child() { ps -o pid=,args= --ppid "$1" | awk -v p="/$2 " 'index($0, p) { print $1 }'; }
gone() { local p; for p in $1; do [ ! -e "/proc/$p" ] || [ "$(awk '{ print $3 }' "/proc/$p/stat" 2>/dev/null)" = Z ] || return 1; done; }

port=$(free_port); peer=$(free_port)
# shellcheck disable=SC2046
up "$tmp/one" --name one $(urls "$port" "$peer") --snapshot-count 10 -cluster-active-size=3 --max-request-bytes 33554432
check "one: says that it is ready" wait_for 20 ready "$tmp/one"
equal "one: put" OK "$(ctl "$port" put a b)"
check "one: its data is in NAME.etcd" test -d "$tmp/one/one.etcd/raft"
equal "one: nobody else looks into it" "700 700" "$(stat -c %a "$tmp/one/one.etcd" "$tmp/one/one.etcd/sock" | xargs)"
check "one: test suites find raftd by --name" grep -qz -- '^one$' "/proc/$(child "$pid" raftd)/cmdline"
equal "one: every line of the log is an object with level, ts, caller and msg" "" \
    "$(jq -r 'select((.level and .ts and .caller and .msg) | not)' "$tmp/one.log" 2>&1)"
check "one: the daemons' lines are among them" jq -es 'any(.caller | startswith("raftd/")) and any(.caller | startswith("stored/"))' "$tmp/one.log"
contains "one: what has no effect is said" "$tmp/one.log" "--snapshot-count has no effect here"
contains "one: what etcd ignores is ignored" "$tmp/one.log" "flag is no longer supported - ignoring: -cluster-active-size"
contains "one: what is too much is said" "$tmp/one.log" "--max-request-bytes=33554432 is more or less than can be done here: it is 10485760"
equal "one: --version is told" 3.7.1 "$(curl -s "http://127.0.0.1:$port/version" | jq -r .etcdserver)"

for d in stored raftd gatewayd; do
    before=$(child "$pid" $d)
    kill -9 "$before"
    check "one: $d is started again" wait_for 10 eval "[ -n \"\$(child $pid $d)\" ] && [ \"\$(child $pid $d)\" != $before ]"
    check "one: put after the death of $d" wait_for 10 ctl "$port" put a "$d"
    equal "one: is still the same after the death of $d" "$d" "$(ctl "$port" get a --print-value-only)"
done

# Stopped, as Ctrl-Z or a test of partitions does it.
for _ in 1 2 3; do
    kill -STOP "$pid"; sleep 0.1
    equal "stopped: all daemons stand still" "3" "$(ps -o stat=,args= --ppid "$pid" | grep -cE '^T.*/(raftd|stored|gatewayd) ')"
    timeout 1 etcdctl --command-timeout=500ms --endpoints "127.0.0.1:$port" put a stopped >/dev/null 2>&1
    equal "stopped: no put succeeds" no "$([ $? = 0 ] && echo yes || echo no)"
    timeout 1 etcdctl --command-timeout=500ms --endpoints "127.0.0.1:$port" get a --consistency=s >/dev/null 2>&1
    equal "stopped: nothing is read" no "$([ $? = 0 ] && echo yes || echo no)"
    kill -CONT "$pid"
    check "continued: all goes on" wait_for 10 ctl "$port" put a continued
done
all=$(children "$pid")
kill -9 "$(child "$pid" trine-keeper)" 2>/dev/null || kill -9 "$(ps -o pid=,args= --ppid "$pid" | awk '/trine-keeper/ { print $1 }')"
check "keeper: is started again" wait_for 5 eval "ps -o args= --ppid $pid | grep -q trine-keeper"
sleep 0.2; kill -STOP "$pid"; sleep 0.1
equal "keeper: the new one keeps" "3" "$(ps -o stat=,args= --ppid "$pid" | grep -cE '^T.*/(raftd|stored|gatewayd) ')"
all="$all $(children "$pid")"
kill -9 "$pid"
check "killed while stopped: nobody is left" wait_for 5 gone "$all"
wait "$pid" 2>/dev/null

# shellcheck disable=SC2046
: >"$tmp/one.log"; up "$tmp/one" -name=one $(urls "$port" "$peer") --log-format console --log-level=debug
check "again: is ready" wait_for 20 grep -q 'ready to serve client requests' "$tmp/one.log"
equal "again: the data is there" continued "$(ctl "$port" get a --print-value-only)"
check "console: lines to read" grep -qE '^20.*Z info  etcd ready to serve client requests' "$tmp/one.log"
all=$(children "$pid")
kill -9 "$pid"
check "killed: nobody is left" wait_for 5 gone "$all"
wait "$pid" 2>/dev/null

for s in TERM INT; do
    : >"$tmp/one.log"
    # shellcheck disable=SC2046
    up "$tmp/one" --name one $(urls "$port" "$peer")
    check "SIG$s: is ready" wait_for 20 ready "$tmp/one"
    all=$(children "$pid")
    ctl "$port" put last $s >/dev/null
    kill -$s "$pid"; wait "$pid"; code=$?
    equal "SIG$s: ends by it, as etcd does" $((128 + $(kill -l $s))) $code
    check "SIG$s: nobody is left" gone "$all"
    check "SIG$s: the daemons ended in order" grep -q 'stored: stopped' "$tmp/one.log"
done

# --- precedence --------------------------------------------------------------------------------------------------------
cat >"$tmp/conf.yml" <<EOF
# as etcd's sample
name: 'file'
data-dir: $tmp/file.data
listen-client-urls: http://127.0.0.1:$port
advertise-client-urls: http://127.0.0.1:$port
listen-peer-urls: http://127.0.0.1:$peer
initial-advertise-peer-urls: http://127.0.0.1:$peer
initial-cluster:
initial-cluster-token: 123
heartbeat-interval: 50
election-timeout: 500
grpc-keepalive-interval: 60000000000
auto-compaction-retention: "1"
log-outputs: [stderr, $tmp/file.copy]
client-transport-security: {cert-file: , client-cert-auth: no}
socket-options:
  reuse-port: true
nonsense: 1
EOF
ETCD_NAME=variable ETCD_CONFIG_FILE= up "$tmp/file" --config-file "$tmp/conf.yml" --name flag --heartbeat-interval 7
check "file: is ready" wait_for 20 ready "$tmp/file"
equal "file: wins over flags and variables, which do not even conflict" file "$(ctl "$port" member list | cut -d, -f3 | xargs)"
contains "file: unknown keys are told" "$tmp/file.log" "unknown key in the configuration file, ignored: nonsense"
args=$(tr '\0' ' ' <"/proc/$(child "$pid" raftd)/cmdline")
for want in "--heartbeat-interval=50" "--grpc-keepalive-interval=60000ms" "--initial-cluster-token=123" "--socket-reuse-port=true" "--client-cert-auth=false"; do
    equal "file: $want reaches the daemons" yes "$([[ $args == *" $want "* ]] && echo yes || echo "$args")"
done
check "file: two outputs of the log" grep -q 'ready to serve client requests' "$tmp/file.copy"
kill "$pid"; wait "$pid" 2>/dev/null

# JSON by ETCD_CONFIG_FILE.
sed -n 's/^\(listen-[a-z-]*\|advertise-[a-z-]*\|initial-adv[a-z-]*\): \(.*\)/"\1": "\2",/p' "$tmp/conf.yml" >"$tmp/conf.json"
printf '{%s "name": "json", "snapshot-count": 100}' "$(cat "$tmp/conf.json")" >"$tmp/conf.json"
ETCD_NAME=variable ETCD_CONFIG_FILE=$tmp/conf.json up "$tmp/json" --name flag
check "JSON: is ready" wait_for 20 ready "$tmp/json"
equal "JSON: by ETCD_CONFIG_FILE" json "$(ctl "$port" member list | cut -d, -f3 | xargs)"
kill "$pid"; wait "$pid" 2>/dev/null

# Variables alone; and a directory that is too deep for sockets; readiness as systemd wants it.
deep=$tmp/$(printf 'deep-%.0s' {1..30})
"$build/bin/trine-probe" notify "$tmp/notify" "$tmp/notes" & _pids+=($!)
wait_for 5 test -S "$tmp/notify"
NOTIFY_SOCKET=$tmp/notify ETCD_NAME=env ETCD_DATA_DIR=$deep ETCD_LISTEN_CLIENT_URLS=http://127.0.0.1:$port ETCD_ADVERTISE_CLIENT_URLS=http://127.0.0.1:$port \
    ETCD_LISTEN_PEER_URLS=http://127.0.0.1:$peer ETCD_INITIAL_ADVERTISE_PEER_URLS=http://127.0.0.1:$peer ETCD_INITIAL_CLUSTER=env=http://127.0.0.1:$peer \
    ETCD_UNKNOWN=1 ETCD_LOG_LEVEL= up "$tmp/env"
check "variables: is ready" wait_for 20 ready "$tmp/env"
check "variables: systemd is told once, when all serve" wait_for 5 eval "[ \"\$(grep -c READY=1 $tmp/notes)\" = 1 ]"
equal "variables: put" OK "$(ctl "$port" put a b)"
contains "variables: unknown ones are told" "$tmp/env.log" "unrecognized environment variable: environment-variable=ETCD_UNKNOWN=1"
sockets=$(tr '\0' '\n' <"/proc/$(child "$pid" raftd)/cmdline" | sed -n 's/^--run-dir=//p')
equal "deep data-dir: its sockets are in a directory of ours in /tmp" "/tmp/trine 700" "$(cut -c1-10 <<<"$sockets") $(stat -c %a "$sockets")"

# A second one on the same ports and data.
# shellcheck disable=SC2046
ours --name env --data-dir "$deep" $(urls "$port" "$peer"); equal "twice on one machine with the same ports: refused" 1 $?
p2=$(free_port)
# shellcheck disable=SC2046
up "$tmp/two" --name env $(urls "$p2" "$(free_port)")
check "two on one machine" wait_for 20 ready "$tmp/two"
equal "two on one machine: put" OK "$(ctl "$p2" put b c)"
equal "two on one machine: each has its own" "a" "$(ctl "$port" get "" --prefix --keys-only | xargs)"
stop_pid "$pid"
stop_pid "${_pids[-2]}"
[[ $sockets == /tmp/trine-* ]] && rm -rf "$sockets"

# --- the flags of a Kubernetes control plane ------------------------------------------------------------------------------
pki=$tmp/pki; mkdir "$pki"
openssl req -x509 -newkey rsa:2048 -nodes -keyout "$pki/ca.key" -out "$pki/ca.crt" -days 2 -subj /CN=etcd-ca 2>/dev/null
for c in server peer client; do
    openssl req -newkey rsa:2048 -nodes -keyout "$pki/$c.key" -out "$pki/$c.csr" -subj "/CN=$c" 2>/dev/null
    printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n' >"$pki/ext"
    openssl x509 -req -in "$pki/$c.csr" -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -CAcreateserial -days 2 -extfile "$pki/ext" -out "$pki/$c.crt" 2>/dev/null
done
mport=$(free_port)
up "$tmp/k8s" --advertise-client-urls="https://127.0.0.1:$port" --cert-file="$pki/server.crt" --client-cert-auth=true --data-dir="$tmp/k8s.data" \
    --feature-gates=InitialCorruptCheck=true --initial-advertise-peer-urls="https://127.0.0.1:$peer" --initial-cluster="cp=https://127.0.0.1:$peer" \
    --key-file="$pki/server.key" --listen-client-urls="https://127.0.0.1:$port" --listen-metrics-urls="http://127.0.0.1:$mport" \
    --listen-peer-urls="https://127.0.0.1:$peer" --name=cp --peer-cert-file="$pki/peer.crt" --peer-client-cert-auth=true --peer-key-file="$pki/peer.key" \
    --peer-trusted-ca-file="$pki/ca.crt" --snapshot-count=10000 --trusted-ca-file="$pki/ca.crt" --watch-progress-notify-interval=5s
check "manifest: is ready" wait_for 20 ready "$tmp/k8s"
tls=(--endpoints "https://127.0.0.1:$port" --cacert "$pki/ca.crt" --command-timeout=2s)
equal "manifest: put with a certificate" OK "$(timeout 5 etcdctl "${tls[@]}" --cert "$pki/client.crt" --key "$pki/client.key" put a b 2>&1)"
equal "manifest: nothing without one" no "$(timeout 5 etcdctl "${tls[@]}" put a b >/dev/null 2>&1 && echo yes || echo no)"
equal "manifest: the probes of the kubelet" "200 200 200" "$(for p in /health '/livez' '/readyz'; do curl -s -o /dev/null -w '%{http_code} ' "http://127.0.0.1:$mport$p"; done | xargs)"
equal "manifest: what has no effect is said, once" 1 "$(grep -c 'has no effect here' "$tmp/k8s.log")"
stop_pid "$pid"

# All addresses, and the defaults for the rest, as a container is started.
up "$tmp/all" --listen-client-urls "http://0.0.0.0:$port" --advertise-client-urls "http://0.0.0.0:$port" --listen-peer-urls "http://0.0.0.0:$peer"
check "all addresses: is ready" wait_for 20 ready "$tmp/all"
equal "all addresses: put" OK "$(ctl "$port" put a b)"
check "all addresses: its data is in default.etcd" test -d "$tmp/all/default.etcd/store"
stop_pid "$pid"

# --- three members, as a Procfile starts them ---------------------------------------------------------------------------------
cport=() pport=() mpid=()
for n in 0 1 2; do cport[n]=$(free_port); pport[n]=$(free_port); done
cluster=$(for n in 0 1 2; do printf 'infra%d=http://127.0.0.1:%d,' "$n" "${pport[n]}"; done)
member() { # N STATE
    # shellcheck disable=SC2046
    up "$tmp/trio/m$1" --name "infra$1" $(urls "${cport[$1]}" "${pport[$1]}") --initial-cluster-token etcd-cluster-1 --initial-cluster "${cluster%,}" \
        --initial-cluster-state "$2" --logger=zap --log-outputs=stderr --heartbeat-interval 100 --election-timeout 1000
    mpid[$1]=$pid
}
mkdir -p "$tmp/trio"
member 0 new
sleep 0.5
equal "three: one alone is not ready" no "$(ready "$tmp/trio/m0" && echo yes || echo no)"
member 1 new; member 2 new
for n in 0 1 2; do check "three: member $n is ready" wait_for 30 ready "$tmp/trio/m$n"; done
equal "three: put at one" OK "$(ctl "${cport[0]}" put x y)"
equal "three: get at another" y "$(ctl "${cport[2]}" get x --print-value-only)"
kill -9 "${mpid[1]}"; wait "${mpid[1]}" 2>/dev/null
check "three: two go on without the third" wait_for 10 ctl "${cport[0]}" put x z
member 1 new
check "three: it comes back" wait_for 30 eval "[ \"\$(ctl ${cport[1]} get x --print-value-only)\" = z ]"
id=$(ctl "${cport[0]}" member list | awk -F', ' '$3 == "infra1" { print $1 }')
check "three: it is removed" wait_for 10 ctl "${cport[0]}" member remove "$id"
wait "${mpid[1]}"; equal "three: the removed one ends with code 0, as etcd does" 0 $?
stop_pid "${mpid[0]}"; stop_pid "${mpid[2]}"

# --- what cannot go on -----------------------------------------------------------------------------------------------------------
mkdir "$tmp/sick" && cp "$dropin" "$build/bin/raftd" "$build/bin/gatewayd" "$tmp/sick/"
printf '#!/bin/sh\nkill -SEGV $$\n' >"$tmp/sick/stored"; chmod +x "$tmp/sick/stored"
# shellcheck disable=SC2046
(cd "$tmp/sick" && exec timeout 60 ./etcd --name sick $(urls "$(free_port)" "$(free_port)")) >"$tmp/sick.log" 2>&1 </dev/null
equal "a daemon that keeps dying ends the node" 1 $?
contains "a daemon that keeps dying: says so" "$tmp/sick.log" "giving up"
rm "$tmp/sick/stored"
(cd "$tmp/sick" && exec timeout 5 ./etcd --name sick2) >"$tmp/sick.log" 2>&1 </dev/null
equal "a daemon that is not there: refused" 1 $?
contains "a daemon that is not there: which" "$tmp/sick.log" "stored is neither beside this program"
summary
