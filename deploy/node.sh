#!/usr/bin/env bash
# One node in the foreground: raftd, stored and gatewayd on loopback, for development and for the tests. Starts what
# dies again and says so; stops everything on Ctrl-C or SIGTERM. Under systemd the units do this job (deploy/systemd).
#
#   deploy/node.sh [--dir ./run] [--host 127.0.0.1] [--port 2379] [--peer-port 2380] [--peer-scheme http]
#                  [--tls-port N] [--bin build/bin]
#                  [-- options for all three daemons]
# --tls-port: also https there; the certificate is among the options for the daemons.
# --host: another address of this machine (or network namespace); the tests of partitions use it.
set -uo pipefail

dir=./run host=127.0.0.1 port=2379 peer_port=2380 peer_scheme=http tls_port=0 bin=build/bin
while [ $# -gt 0 ]; do
    case $1 in
        --dir) dir=$2; shift 2 ;;
        --host) host=$2; shift 2 ;;
        --port) port=$2; shift 2 ;;
        --peer-port) peer_port=$2; shift 2 ;;
        --peer-scheme) peer_scheme=$2; shift 2 ;;
        --tls-port) tls_port=$2; shift 2 ;;
        --bin) bin=$2; shift 2 ;;
        --) shift; break ;;
        *) echo "node: unknown option $1" >&2; exit 2 ;;
    esac
done
extra=("$@")

say() { echo "node: $*" >&2; }

for p in "$port" "$peer_port"; do
    case $p in ''|*[!0-9]*) say "not a port: '$p'"; exit 2 ;; esac
    if (exec 3<>"/dev/tcp/$host/$p") 2>/dev/null; then
        say "port $p on $host is taken by another program; choose another with PORT= and PEER_PORT="
        exit 1
    fi
done

umask 077
mkdir -p "$dir" || exit 1
dir=$(cd "$dir" && pwd)

# A unix socket's path has room for 107 bytes; a deep directory gets its sockets elsewhere.
sockets=$dir/sock
made_sockets=
if [ ${#sockets} -gt 80 ]; then
    sockets=$(mktemp -d /tmp/trine-sock.XXXXXX)
    made_sockets=yes
fi
mkdir -p "$sockets"

client_url=http://$host:$port
peer_name=$host
[ "$host" != 127.0.0.1 ] || peer_name=localhost
listen=$client_url
[ "$tls_port" = 0 ] || listen+=,https://$host:$tls_port
options=(--data-dir "$dir" --run-dir "$sockets" --listen-client-urls "$listen" --advertise-client-urls "$client_url"
         --listen-peer-urls "$peer_scheme://$host:$peer_port"
         --initial-advertise-peer-urls "$peer_scheme://$peer_name:$peer_port"
         "${extra[@]}")
[[ $host == 127.* ]] || options=(--allow-plaintext=true "${options[@]}") # a network of the tests' own

declare -A pid_of started_ms delay_ms
now_ms() { date +%s%3N; }
stopping=
trap 'stopping=yes' TERM INT HUP
trap '' PIPE # the port may be one that serves no HTTP

start() {
    # setsid: a Ctrl-C reaches this script alone, which then stops the daemons in order.
    setsid "$bin/$1" "${options[@]}" &
    pid_of[$1]=$!
    started_ms[$1]=$(now_ms)
    echo "${pid_of[$1]}" >"$dir/$1.pid"
}

# Runs, and is ours: the number of one that has ended may be somebody else's by now.
alive() {
    local line state parent
    { read -r line <"/proc/${pid_of[$1]:-none}/stat"; } 2>/dev/null || return 1
    read -r state parent _ <<<"${line##*) }"
    [ "$parent" = $$ ] && [ "$state" != Z ]
}

finish() {
    local d
    for d in gatewayd raftd stored; do
        if alive $d; then
            kill -TERM "${pid_of[$d]}" 2>/dev/null
            for _ in $(seq 100); do alive $d || break; sleep 0.05; done
            if alive $d; then say "$d did not stop in 5 s: killing it"; kill -KILL "${pid_of[$d]}"; fi
        fi
        wait "${pid_of[$d]:-}" 2>/dev/null
        rm -f "$dir/$d.pid"
    done
    [ -z "$made_sockets" ] || rm -rf "$sockets"
    exit "$1"
}

healthy() {
    local line=
    { exec 3<>"/dev/tcp/$host/$port"; } 2>/dev/null || return 1
    printf 'GET /health?exclude=NOSPACE HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$host" >&3 2>/dev/null
    IFS= read -r -t 2 line <&3 2>/dev/null
    exec 3>&- 3<&-
    [[ $line == *" 200 "* ]]
}

exec {never}<> <(:) # a pipe that nobody writes to
for d in raftd stored gatewayd; do delay_ms[$d]=0; start $d; done

ready=
while [ -z "$stopping" ]; do
    if [ -z "$ready" ] && healthy; then
        ready=yes
        say "ready: clients $client_url, native ipc://$sockets/native.ipc, events ipc://$sockets/events.ipc, data $dir"
        say "try: ETCDCTL_API=3 etcdctl --endpoints $client_url put greeting hello"
    fi
    for d in raftd stored gatewayd; do
        alive $d && continue
        [ -z "$stopping" ] || break
        wait "${pid_of[$d]}"; code=$?
        if [ $d = raftd ] && [ $code = 3 ]; then
            say "this member was removed from its cluster: stopping the node; its data in $dir can be deleted"
            finish 0
        fi
        if [ -z "$ready" ] && [ $code -lt 128 ]; then
            say "$d ended with exit code $code before the node was ready; see its message above"
            finish 1
        fi
        # At once if it had lived a while; one that keeps dying at its start waits longer each time, up to 5 s.
        if [ $(($(now_ms) - ${started_ms[$d]})) -gt 500 ]; then delay_ms[$d]=0; fi
        if [ $code -gt 128 ]; then why="was killed by signal $((code - 128))"; else why="ended with exit code $code"; fi
        say "$d (pid ${pid_of[$d]}) $why; starting it again in ${delay_ms[$d]} ms"
        [ "${delay_ms[$d]}" = 0 ] || sleep "$(printf '%d.%03d' $((delay_ms[$d] / 1000)) $((delay_ms[$d] % 1000)))"
        delay_ms[$d]=$((delay_ms[$d] == 0 ? 50 : delay_ms[$d] * 2 > 5000 ? 5000 : delay_ms[$d] * 2))
        [ -n "$stopping" ] || start $d
    done
    # A pause without a child. Not "wait -n": bash hangs in the next wait if a Ctrl-C comes while a child of ours ends.
    read -r -t 0.05 -u "$never"
done
say "stopping"
finish 0
