#!/usr/bin/env bash
# What deploy/README.md and README.md promise: files are where they say, units and man pages are sound, the sample configuration
# tells the defaults, daemons tell systemd the truth, further gateways share the port, and the commands shown there work.
#   tests/node/test_deploy.sh [BUILD_DIR]
build=$(realpath "${1:-build}")
. "$(dirname "$0")/../lib/node.sh"
export ETCDCTL_API=3
unset MAKEFLAGS MFLAGS MAKELEVEL
probe=$build/bin/trine-probe
dest=$tmp/dest
conf=$dest/etc/trine/trine.conf

etcdctl_at() { local port=$1; shift; timeout 20 etcdctl --endpoints "http://127.0.0.1:$port" "$@" 2>&1; }
matches() { if grep -aqE -- "$3" <<<"$2"; then ok "$1"; else not_ok "$1" "wanted: $3
got:    $2"; fi; }

# --- files -----------------------------------------------------------------------------------------
make -s -C "$root" B="$build" DESTDIR="$dest" PREFIX=/usr install >"$tmp/install" 2>&1 || not_ok "make install" "$(cat "$tmp/install")"
wanted="-rw-r--r-- /etc/trine/trine.conf
-rw-r--r-- /usr/lib/systemd/system/gatewayd.service
-rw-r--r-- /usr/lib/systemd/system/gatewayd@.service
-rw-r--r-- /usr/lib/systemd/system/raftd.service
-rw-r--r-- /usr/lib/systemd/system/stored.service
-rw-r--r-- /usr/lib/systemd/system/trine.target
-rw-r--r-- /usr/lib/sysusers.d/trine.conf
-rw-r--r-- /usr/share/man/man5/trine.conf.5
-rw-r--r-- /usr/share/man/man8/gatewayd.8
-rw-r--r-- /usr/share/man/man8/raftd.8
-rw-r--r-- /usr/share/man/man8/stored.8
-rw-r--r-- /usr/share/man/man8/trine-etcd.8
-rw-r--r-- /usr/share/man/man8/trinectl.8
-rwxr-xr-x /usr/bin/trinectl
-rwxr-xr-x /usr/lib/trine/etcd
-rwxr-xr-x /usr/sbin/gatewayd
-rwxr-xr-x /usr/sbin/raftd
-rwxr-xr-x /usr/sbin/stored"
equal "install: these files with these modes" "$wanted" "$(cd "$dest" && find . -type f -printf '%M /%P\n' | sort)"
echo "name = kept" >"$conf"
make -s -C "$root" B="$build" DESTDIR="$dest" PREFIX=/usr install >/dev/null 2>&1
equal "install: a configuration that is there is kept" "name = kept" "$(cat "$conf")"
cp "$root/deploy/trine.conf" "$conf"

# --- configuration -----------------------------------------------------------------------------------
sed -E 's/^#([a-z-]+ =)/\1/' "$conf" >"$tmp/all.conf"
for d in raftd stored gatewayd; do
    check "configuration: $d takes the sample" "$dest/usr/sbin/$d" -t -c "$conf"
    check "configuration: $d takes all keys of it" "$dest/usr/sbin/$d" -t -c "$tmp/all.conf"
    equal "configuration: $d: the defaults are those that stand there" "$("$dest/usr/sbin/$d" -t -v -c "$conf" | grep -v ': configuration is good')" \
        "$("$dest/usr/sbin/$d" -t -v -c "$tmp/all.conf" | grep -v ': configuration is good')"
    equal "configuration: $d --help and the sample have the same keys" "$(sed -nE 's/^([a-z-]+) =.*/\1/p' "$tmp/all.conf" | sort)" \
        "$("$dest/usr/sbin/$d" --help | sed -nE 's/^ *--([a-z-]+).*/\1/p' | grep -vxE 'help|version|config-file' | sort)"
done

# --- man pages ----------------------------------------------------------------------------------------
for page in "$dest"/usr/share/man/man8/*.8 "$dest"/usr/share/man/man5/*.5; do
    out=$(LC_ALL=C.UTF-8 MANWIDTH=80 man -l --warnings "$page" 2>&1 >"$tmp/page" </dev/null)
    equal "man: $(basename "$page") renders without warnings" "" "$out"
    check "man: $(basename "$page") says something" grep -q DESCRIPTION "$tmp/page"
done

# --- units ------------------------------------------------------------------------------------------------
mkdir "$tmp/units"
for u in "$dest"/usr/lib/systemd/system/*; do sed "s,=/usr/sbin,=$dest/usr/sbin," "$u" >"$tmp/units/$(basename "$u")"; done
cp "$tmp/units/gatewayd@.service" "$tmp/units/gatewayd@2.service"
out=$(MANPATH="$dest/usr/share/man:" systemd-analyze verify "$tmp"/units/{raftd,stored,gatewayd,gatewayd@2}.service "$tmp/units/trine.target" 2>&1)
equal "units: systemd-analyze verify is content" "" "$(grep -F "$tmp" <<<"$out")"
for u in raftd stored gatewayd gatewayd@2; do
    out=$(systemd-analyze security --offline=true "$tmp/units/$u.service" 2>&1 | tail -1)
    exposure=$(sed -nE 's/.*: ([0-9]+)\.([0-9]).*/\1\2/p' <<<"$out")
    if [ -n "$exposure" ] && [ $((10#$exposure)) -le 12 ]; then ok "units: $u: exposure at most 1.2"; else not_ok "units: $u: exposure at most 1.2" "$out"; fi
done
mkdir -p "$tmp/sys/etc"
systemd-sysusers --root="$tmp/sys" "$dest/usr/lib/sysusers.d/trine.conf" >/dev/null 2>"$tmp/sysusers.err"
matches "units: systemd-sysusers makes the user" "$(cat "$tmp/sys/etc/passwd" "$tmp/sysusers.err" 2>/dev/null)" "^trine:.*:/var/lib/trine:"

# --- what systemd hears -------------------------------------------------------------------------------------
port=$(free_port)
export TRINE_DATA_DIR=$tmp/data TRINE_RUN_DIR=$tmp/run TRINE_LISTEN_CLIENT_URLS=http://127.0.0.1:$port
export TRINE_ADVERTISE_CLIENT_URLS=$TRINE_LISTEN_CLIENT_URLS TRINE_SOCKET_REUSE_PORT=true
TRINE_LISTEN_PEER_URLS=http://127.0.0.1:$(free_port)
export TRINE_LISTEN_PEER_URLS
declare -A pid
# daemon NAME PROGRAM [options]: started as systemd would, listened to in NAME.heard.
daemon() {
    local name=$1 program=$2; shift 2
    "$probe" notify "$tmp/$name.socket" "$tmp/$name.heard" &
    _pids+=($!)
    wait_for 5 test -S "$tmp/$name.socket"
    NOTIFY_SOCKET=$tmp/$name.socket WATCHDOG_USEC=400000 "$dest/usr/sbin/$program" -c "$conf" "$@" >"$tmp/$name.out" 2>&1 &
    pid[$name]=$!
    _pids+=($!)
}
heard() { grep -q "$2" "$tmp/$1.heard"; }

daemon stored stored
daemon gateway1 gatewayd
wait_for 5 grep -q "store open" "$tmp/stored.out"
sleep 0.5
check "readiness: stored without raftd is not ready" eval '! heard stored READY=1'
check "readiness: gatewayd without raftd is not ready" eval '! heard gateway1 READY=1'
daemon raftd raftd
check "readiness: raftd says READY=1" wait_for 5 heard raftd READY=1
check "readiness: and so it was" grep -q "raftd: member" "$tmp/raftd.out"
check "readiness: stored says READY=1" wait_for 5 heard stored READY=1
check "readiness: gatewayd says READY=1" wait_for 5 heard gateway1 READY=1
equal "readiness: the first put after it works" OK "$(etcdctl_at "$port" put ready yes)"
sleep 1
for name in raftd stored gateway1; do
    check "watchdog: $name pings" [ "$(grep -c WATCHDOG=1 "$tmp/$name.heard")" -ge 4 ]
    equal "readiness: $name says it once" 1 "$(grep -c READY=1 "$tmp/$name.heard")"
done
kill -STOP "${pid[stored]}"
sleep 0.3
before=$(grep -c WATCHDOG=1 "$tmp/stored.heard")
sleep 0.7
equal "watchdog: a daemon that stands still does not ping" "$before" "$(grep -c WATCHDOG=1 "$tmp/stored.heard")"
kill -CONT "${pid[stored]}"

# --- more gateways ----------------------------------------------------------------------------------------------
daemon gateway2 gatewayd --gateway-id 2
check "gateways: a second one is ready on the same port" wait_for 5 heard gateway2 READY=1
failures=0
for i in $(seq 20); do etcdctl_at "$port" put both "$i" >/dev/null || failures=$((failures + 1)); done
equal "gateways: both serve" 0 $failures
matches "gateways: the second has a native door of its own" "$("$dest/usr/bin/trinectl" --url "ipc://$tmp/run/native.2.ipc" get both)" "^20$"
kill -9 "${pid[gateway1]}"
failures=0
for i in $(seq 10); do etcdctl_at "$port" put one "$i" >/dev/null || failures=$((failures + 1)); done
equal "gateways: the second goes on when the first is killed" 0 $failures
rm -f "$tmp/gateway1.socket"
daemon gateway1 gatewayd
check "gateways: the first comes back" wait_for 5 eval '[ "$(grep -c READY=1 "$tmp/gateway1.heard")" = 2 ]'
kill -9 "${pid[gateway2]}"
failures=0
for i in $(seq 10); do etcdctl_at "$port" put one "$i" >/dev/null || failures=$((failures + 1)); done
equal "gateways: and goes on when the second is killed" 0 $failures

# --- the commands that the documents show --------------------------------------------------------------------------
native=ipc://$tmp/run/native.ipc events=ipc://$tmp/run/events.ipc
ctl() { "$dest/usr/bin/trinectl" --run-dir "$tmp/run" "$@" 2>&1; }
equal "README: etcdctl put" OK "$(etcdctl_at "$port" put greeting hello)"
equal "README: etcdctl get" "greeting
hello" "$(etcdctl_at "$port" get greeting)"
equal "README: trinectl --url get" "greeting
hello" "$("$dest/usr/bin/trinectl" --url "$native" get greeting)"
(sleep 0.5; etcdctl_at "$port" put config/a 1 >/dev/null) &
equal "README: etcdctl watch" "PUT
config/a
1" "$(timeout 2 etcdctl --endpoints "http://127.0.0.1:$port" watch --prefix config/)"
for path in health version metrics; do check "README: curl /$path" curl -fsS "http://127.0.0.1:$port/$path"; done
out=$(printf '\x83\xa2op\xa3put\xa3key\xa8greeting\xa5value\xa5hello' | nngcat --req --dial "$native" --file /dev/stdin --msgpack | od -An -c | tr -d ' \n')
matches "README: put by nngcat" "$out" "header"
timeout 3 nngcat --sub --dial "$events" --subscribe config/ --quoted >"$tmp/sub" 2>&1 &
sub=$!
_pids+=($sub)
sleep 0.7
etcdctl_at "$port" put config/b 2 >/dev/null
etcdctl_at "$port" put other 2 >/dev/null
check "README: nngcat watches" wait_for 3 grep -q "config/b" "$tmp/sub"
check "README: and only what it subscribed to" eval '! grep -q other "$tmp/sub"'
check "deploy/README: trinectl endpoint health" ctl endpoint health
matches "deploy/README: trinectl compaction" "$(ctl compaction 5)" "compacted revision 5"
matches "deploy/README: trinectl defrag" "$(ctl defrag)" "."
check "deploy/README: trinectl endpoint status" ctl endpoint status -w table
for file in README.md deploy/README.md; do
    missing=
    for path in $(grep -ohE '\b(gatewayd|raftd|stored|proto|deploy|tests|common|trinectl)/[A-Za-z_./]+\.(md|sh|c|h|conf)' "$root/$file" | sort -u); do
        [ -e "$root/$path" ] || missing+=" $path"
    done
    equal "$file: the files that it names are there" "" "$missing"
done
missing=
while read -r path name; do grep -qE "\b$name\(" "$root/$path" || missing+=" $path:$name"; done \
    < <(sed -nE 's,^ +([a-z]+/[a-z_0-9]+\.c) +([a-z0-9]+_[a-z_]+)(:.*)?$,\1 \2,p' "$root/README.md")
equal "README: the functions on the way of a put are there" "" "$missing"

# --- the end -----------------------------------------------------------------------------------------------------------
for name in gateway1 raftd stored; do
    kill -TERM "${pid[$name]}"
    wait "${pid[$name]}"; code=$?
    equal "end: $name: exit 0" 0 $code
    check "end: $name said STOPPING=1" heard "$name" STOPPING=1
done
summary
