#!/usr/bin/env bash
# What goes wrong around a node: full disks, damaged files, machine crashes, wrong configuration, taken ports, signals. Nothing
# acknowledged may be lost, and what cannot go on says why, with file and place.
#   tests/node/test_faults.sh [BUILD_DIR]           ONLY="damage crash" runs some sections only
build=$(realpath "${1:-build}")
. "$(dirname "$0")/../lib/node.sh"
export ETCDCTL_API=3
unset MAKEFLAGS MFLAGS MAKELEVEL
bin=$build/bin
probe=$bin/trine-probe
small=(--wal-segment-bytes 1048576) # the log drops what the store has synced after little data
mounted=()

cleanup_mounts() { local m; for m in "${mounted[@]}"; do umount "$m" 2>/dev/null; done; }
trap '_stop_all; cleanup_mounts; _cleanup' EXIT
_stop_all() { local p; for p in "${_pids[@]}"; do stop_pid "$p"; done; _pids=(); }

etcdctl_at() { local port=$1; shift; timeout 20 etcdctl --endpoints "http://127.0.0.1:$port" "$@" 2>&1; }
# has TEXT PATTERN: a regular expression, in text that may hold any byte.
has() { grep -aqE -- "$2" <<<"$1"; }
matches() { if has "$2" "$3"; then ok "$1"; else not_ok "$1" "wanted: $3
got:    $2"; fi; }
lacks() { if has "$2" "$3"; then not_ok "$1" "not wanted: $3
got: $2"; else ok "$1"; fi; }
# A process that nobody has waited for yet has ended too.
gone() { [ ! -e "/proc/$1" ] || grep -q '^State:.*Z' "/proc/$1/status"; }
ends() { wait_for 10 gone "$1"; }
revision() { etcdctl_at "$1" get x -w json | sed -nE 's/.*"revision":([0-9]+).*/\1/p'; }

# A daemon that is started alone must not meet another node's peer port.
export TRINE_LISTEN_PEER_URLS=http://127.0.0.1:$(free_port)

# Both run one daemon alone on DIR. refused: it ends with code 1 and says PATTERN. starts: it says PATTERN, runs, and stops orderly.
refused() {
    local name=$1 daemon=$2 dir=$3 pattern=$4 out code
    out=$(timeout 10 "$bin/$daemon" --data-dir "$dir" --run-dir "$dir/sock" 2>&1); code=$?
    if [ $code = 1 ] && has "$out" "$pattern"; then ok "$name"; else not_ok "$name" "exit $code, wanted: $pattern
$out"; fi
}
starts() {
    local name=$1 daemon=$2 dir=$3 pattern=$4 pid code
    "$bin/$daemon" --data-dir "$dir" --run-dir "$dir/sock" >"$dir/out" 2>&1 &
    pid=$!
    if wait_for 10 grep -aqE "$pattern" "$dir/out" && wait_for 10 grep -aqE "ready|store open" "$dir/out"; then ok "$name"; else not_ok "$name" "wanted: $pattern
$(cat "$dir/out")"; fi
    kill -TERM $pid
    wait $pid; code=$?
    equal "$name: and ends orderly" 0 $code
}

# One store with its log, stopped, to be damaged in copies.
golden=$tmp/golden
make_golden() {
    local port
    [ ! -d "$golden" ] || return 0
    port=$(free_port)
    golden_peer=$(free_port) # a part of the node's identity
    peer_port=$golden_peer start_node "$golden" "$port" || return 1
    check "golden: 22000 puts" "$probe" puts --port "$port" --book "$tmp/golden.book" --count 22000 --value 1000
    stop_pid $node_pid
    rm -f "$golden/store/reserve" "$golden/raft/reserve" "$golden/raft/spare"
}
# fresh WHAT...: the node's directories to damage, in $d.
fresh() { d=$tmp/d; rm -rf "$d"; mkdir "$d"; local w; for w in "$@"; do cp -a --sparse=always "$golden/$w" "$d/"; done; }

# --- damage --------------------------------------------------------------------------------------
test_damage_log() {
    make_golden || return
    local last used
    last=$(basename "$golden"/raft/*.wal)
    fresh raft; "$probe" flip "$d/raft/$last" 500000 >/dev/null
    refused "damage: a byte before the tail: raftd names file, offset and entry" raftd "$d" "refused, nothing was changed: $d/raft/$last: offset [0-9]+: .*index [0-9]+"
    out=$("$root/deploy/node.sh" --dir "$d" --port "$(free_port)" --peer-port "$(free_port)" --bin "$bin" 2>&1); code=$?
    matches "damage: the runner says who gave up" "$out" "node: raftd ended with exit code 1 before the node was ready"
    equal "damage: and ends with 1" 1 $code
    fresh raft; dd if=/dev/zero of="$d/raft/$last" bs=4096 seek=2 count=1 conv=notrunc status=none
    refused "damage: a zeroed block before the tail" raftd "$d" "$d/raft/$last: offset"
    used=$("$probe" used "$golden/raft/$last")
    fresh raft
    printf 'a torn record' | dd of="$d/raft/$last" bs=1 seek=$((used + 40)) conv=notrunc status=none
    starts "damage: a torn record at the tail is cut" raftd "$d" "torn batch at the tail, [0-9]+ bytes from offset [0-9]+ cut"
    fresh raft; truncate -s $((used - 20)) "$d/raft/$last"
    starts "damage: a torn last batch is cut" raftd "$d" "torn batch at the tail"
}

test_damage_store() {
    make_golden || return
    local table log manifest
    table=$(basename "$(ls "$golden"/store/db/*.ldb | head -1)"); log=$(basename "$(ls "$golden"/store/db/*.log | head -1)")
    manifest=$(basename "$golden"/store/db/MANIFEST-*)
    fresh store; "$probe" flip "$d/store/db/$table" 100000 >/dev/null
    refused "damage: a byte of a table" stored "$d" "$d/store/db/$table is damaged at byte [0-9]+"
    fresh store; "$probe" flip "$d/store/db/$log" 100000 >/dev/null
    refused "damage: a byte of LevelDB's log" stored "$d" "$d/store/db/$log is damaged at byte 98304"
    fresh store; truncate -s -5000 "$d/store/db/$log"
    refused "damage: LevelDB's log became shorter" stored "$d" "$d/store/db/$log is damaged at byte"
    fresh store; "$probe" flip "$d/store/db/$manifest" 20 >/dev/null
    refused "damage: a byte of MANIFEST" stored "$d" "$d/store/db/$manifest is damaged at byte"
    fresh store; truncate -s -20 "$d/store/db/$manifest"
    refused "damage: MANIFEST became shorter" stored "$d" "$d/store/db/$manifest is damaged at byte"
    fresh store; "$probe" flip "$d/store/db/CURRENT" 3 >/dev/null
    refused "damage: CURRENT" stored "$d" "CURRENT points to a non-existent file"
    fresh store; rm "$d/store/db/CURRENT"
    refused "damage: CURRENT is gone" stored "$d" "$d/store/db/CURRENT: missing"
    refused "damage: and the refusal changed nothing" stored "$d" "$d/store/db/CURRENT: missing"
    fresh store; rm "$d/store/db/$table"
    refused "damage: a table is gone" stored "$d" "missing files; e.g.: $d/store/db/$table"
    fresh store; rm "$d/store/db/$log"
    refused "damage: LevelDB's log is gone" stored "$d" "index [0-9]+ was synced, but only [0-9]+ is there"
    fresh store; rm -r "$d/store/db"
    refused "damage: the database is gone" stored "$d" "index [0-9]+ was synced, but only 0 is there"
    fresh store; "$probe" flip "$d/store/SYNCED" 7 >/dev/null
    refused "damage: SYNCED" stored "$d" "$d/store/SYNCED: stored bytes are damaged"
}

# The two halves of a node that do not belong together.
test_pairs() {
    make_golden || return
    local port out hash
    fresh store
    "$bin/stored" --data-dir "$d" --run-dir "$d/sock" >/dev/null 2>&1 &
    _pids+=($!)
    out=$(timeout 10 "$bin/raftd" --data-dir "$d" --run-dir "$d/sock" --initial-advertise-peer-urls "http://localhost:$golden_peer" 2>&1); code=$?
    matches "pairs: a store without its log" "$out" "the store has applied entry [0-9]+, but the log ends at [0-9]+: raft/ and store/ of $d do not belong together"
    equal "pairs: is refused" 1 $code
    stop_pid "${_pids[-1]}"
    # A young node: its log still has all that its store would need.
    d=$tmp/young; port=$(free_port)
    start_node "$d" "$port" "${small[@]}" || { not_ok "pairs: the node starts"; return; }
    check "pairs: puts" "$probe" puts --port "$port" --book "$tmp/pairs.book" --count 300
    hash=$("$probe" hash --port "$port")
    stop_pid $node_pid
    rm -r "$d/store"
    start_node "$d" "$port" "${small[@]}" || { not_ok "pairs: a whole log without a store starts"; return; }
    equal "pairs: a log from its beginning brings the store back" "$hash" "$("$probe" hash --port "$port")"
    # Now the log drops what the store has synced: without the store it is not enough.
    check "pairs: more puts" "$probe" puts --port "$port" --book "$tmp/pairs.book" --from 300 --count 6000 --value 1000
    stop_pid $node_pid
    rm -r "$d/store"
    "$bin/stored" --data-dir "$d" --run-dir "$d/sock" >/dev/null 2>&1 &
    _pids+=($!)
    timeout 1 "$bin/raftd" --data-dir "$d" --run-dir "$d/sock" "${small[@]}" >"$tmp/pairs.out" 2>&1
    matches "pairs: a log that was cut, without its store" "$(cat "$tmp/pairs.out")" "the store has applied only up to entry 0, but the log begins at [0-9]+"
    stop_pid "${_pids[-1]}"
}

# --- machine crash -------------------------------------------------------------------------------
# All daemons at once, the runner first so that it starts nothing again.
kill_all() {
    local dir=$1 pids
    pids=$(cat "$dir"/*.pid)
    kill -9 "$node_pid"; wait "$node_pid" 2>/dev/null
    # shellcheck disable=SC2086
    kill -9 $pids
    for p in $pids; do ends "$p"; done
}

test_crash() {
    local dir=$tmp/crash port log synced size from=0 how hash i=0
    port=$(free_port)
    for how in cut zero cut; do
        i=$((i + 1))
        start_node "$dir" "$port" || { not_ok "crash $i: the node starts again"; return; }
        check "crash $i: puts" "$probe" puts --port "$port" --book "$tmp/crash.book" --from $from --count 3000 --value 300
        from=$((from + 3000))
        etcdctl_at "$port" del "p/000000000$i" >/dev/null
        printf '-' | dd of="$tmp/crash.book" bs=1 seek=$i conv=notrunc status=none # it was deleted: must not come back
        hash=$("$probe" hash --port "$port")
        kill_all "$dir"
        log=$(ls -t "$dir"/store/db/*.log | head -1)
        synced=$(sed -nE "s/^log $(basename "$log") //p" "$dir/store/SYNCED"); synced=${synced:-0}
        size=$(stat -c %s "$log")
        check "crash $i: there is an unsynced tail" [ $((size - synced)) -gt 100000 ]
        if [ $how = cut ]; then
            truncate -s $((synced + RANDOM * 32768 % (size - synced))) "$log"
        else
            dd if=/dev/zero of="$log" bs=4096 seek=$(((synced + 4095) / 4096 + RANDOM % ((size - synced) / 4096 - 1))) count=1 conv=notrunc status=none
        fi
        "$probe" reboot "$dir/store/SYNCED"
        start_node "$dir" "$port" || { not_ok "crash $i ($how): the node starts again"; return; }
        check "crash $i ($how): all that was acknowledged is there" "$probe" check --port "$port" --book "$tmp/crash.book" --value 300
        equal "crash $i ($how): the keyspace is what it was" "$hash" "$("$probe" hash --port "$port" --rev "${hash#* }")"
        stop_pid $node_pid
    done
    matches "crash: the store said what it lost" "$(cat "$dir.log")" "lost a batch to a power loss: went back from index"
}

# --- full disk ------------------------------------------------------------------------------------
test_full() {
    local dir=$tmp/full/d port rev
    mkdir -p "$tmp/full"
    if ! mount -t tmpfs -o size=340m tmpfs "$tmp/full" 2>"$tmp/mount"; then
        echo "skipped: full disk: mount is not permitted here ($(head -1 "$tmp/mount"))"
        return
    fi
    mounted+=("$tmp/full")
    port=$(free_port)
    log=$tmp/full.node
    mkdir "$tmp/full/d"; ln -s "$tmp/full/d" "$tmp/fulldir"
    start_node "$tmp/fulldir" "$port" --wal-segment-bytes 4194304 || { not_ok "full: the node starts"; return; }
    pids=$(cat "$dir"/*.pid)
    wait_for 3 test -e "$dir/store/reserve"
    out=$("$probe" puts --port "$port" --book "$tmp/full.book" --count 60000 --value 10000 --until-error)
    matches "full: puts are refused with etcd's words" "$out" "status 8: etcdserver: mvcc: database space exceeded"
    matches "full: not for want of trying" "$out" "^acked [0-9]{4,}"
    matches "full: etcdctl says the same" "$(etcdctl_at "$port" put a b)" "etcdserver: mvcc: database space exceeded"
    matches "full: the alarm is raised" "$(etcdctl_at "$port" alarm list)" "alarm:NOSPACE"
    matches "full: refused puts do not fill the disk further" "$("$probe" puts --port "$port" --book "$tmp/full2.book" --prefix q/ --count 6000 --value 10000)" "acked 0, refused 6000"
    check "full: reads go on, and nothing acknowledged is lost" "$probe" check --port "$port" --book "$tmp/full.book" --value 10000
    equal "full: deletes go on" 1000 "$(etcdctl_at "$port" del p/0000000000 p/0000001000)"
    printf '%1000s' | tr ' ' '-' | dd of="$tmp/full.book" conv=notrunc status=none
    # Somebody else takes the rest.
    dd if=/dev/zero of="$tmp/full/hog" bs=1M status=none 2>/dev/null
    wait_for 5 grep -q "using the reserve" "$tmp/fulldir.log"
    check "full to the last byte: reads go on" "$probe" check --port "$port" --book "$tmp/full.book" --value 10000
    equal "full to the last byte: deletes go on" 100 "$(etcdctl_at "$port" del p/0000001000 p/0000001100)"
    printf '%100s' | tr ' ' '-' | dd of="$tmp/full.book" bs=1 seek=1000 conv=notrunc status=none
    rm "$tmp/full/hog"
    matches "full: a large delete" "$(etcdctl_at "$port" del p/0000001100 p/0000010000)" "^[0-9]{4}$"
    rev=$(revision "$port")
    equal "full: compaction goes on" "compacted revision $rev" "$(etcdctl_at "$port" compaction --physical "$rev")"
    matches "full: defragmentation goes on" "$(etcdctl_at "$port" --command-timeout 20s defrag)" "Finished defragmenting"
    check "full: with room the alarm for the disk ends by itself" wait_for 10 eval "! etcdctl_at $port alarm list | grep -q NOSPACE"
    equal "full: and puts work again" OK "$(etcdctl_at "$port" put a b)"
    # shellcheck disable=SC2086
    check "full: all daemons lived through it" kill -0 $pids
    [ $failed = 0 ] || tail -30 "$tmp/fulldir.log"
    stop_pid $node_pid
    umount "$tmp/full"
}

test_quota() {
    local port dir=$tmp/quota rev
    port=$(free_port)
    start_node "$dir" "$port" --quota-backend-bytes 3000000 || { not_ok "quota: the node starts"; return; }
    out=$("$probe" puts --port "$port" --book "$tmp/quota.book" --count 20000 --value 10000 --until-error) # the size is looked at twice a second
    matches "quota: over it puts are refused" "$out" "status 8: etcdserver: mvcc: database space exceeded"
    etcdctl_at "$port" del --prefix p/ >/dev/null
    rev=$(revision "$port")
    etcdctl_at "$port" compaction --physical "$rev" >/dev/null
    etcdctl_at "$port" defrag >/dev/null
    sleep 1
    matches "quota: with room the alarm stays, as etcd's does" "$(etcdctl_at "$port" put a b)" "database space exceeded"
    stop_pid $node_pid
    start_node "$dir" "$port" --quota-backend-bytes 3000000 || { not_ok "quota: the node starts again"; return; }
    matches "quota: also over a restart" "$(etcdctl_at "$port" put a b)" "database space exceeded"
    matches "quota: until it is disarmed" "$(etcdctl_at "$port" alarm disarm)" "alarm:NOSPACE"
    equal "quota: then puts work again" OK "$(etcdctl_at "$port" put a b)"
    stop_pid $node_pid
}

# --- configuration, ports, second nodes --------------------------------------------------------------
config_says() { # NAME EXIT PATTERN ARGS...
    local name=$1 want=$2 pattern=$3 daemon out code; shift 3
    for daemon in raftd stored gatewayd; do
        out=$("$bin/$daemon" "$@" 2>&1); code=$?
        if [ $code = "$want" ] && has "$out" "$pattern"; then ok "config: $daemon: $name"; else not_ok "config: $daemon: $name" "exit $code: $out"; fi
    done
}
test_config() {
    local c=$tmp/c.conf
    printf '# a comment\n\nhartbeat-interval = 5\n' >"$c"
    config_says "an unknown key is named with its line" 1 "$c line 3: unknown key \"hartbeat-interval\"; did you mean \"heartbeat-interval\"" -c "$c"
    printf 'name = n\nheartbeat-interval = fast\n' >"$c"
    config_says "a bad value is named with its line" 1 "$c line 2: heartbeat-interval: \"fast\"" -t -c "$c"
    printf 'heartbeat-interval = 300\n' >"$c"
    config_says "an election timeout under five heartbeats, in etcd's words" 1 \
        "election-timeout\[1000ms\] should be at least as 5 times as --heartbeat-interval\[300ms\]" -t -c "$c"
    config_says "a missing file" 1 "cannot read /nonexistent" -c /nonexistent
    config_says "an unknown option" 2 "unknown option --nosuch" --nosuch 1
    config_says "a wrong option" 2 "heartbeat-interval: \"x\"" --heartbeat-interval x
    printf 'heartbeat-interval = 150\n' >"$c"
    config_says "-t says that it is good" 0 "configuration is good" -t -c "$c"
}

test_twice() {
    local port dir=$tmp/twice other out
    port=$(free_port); other=$(free_port)
    start_node "$dir" "$port" || return
    etcdctl_at "$port" put kept "until the end" >/dev/null
    refused "twice: a second raftd names the first one's pid" raftd "$dir" "$dir/raft is in use by another raftd, pid $(cat "$dir/raftd.pid")\$"
    refused "twice: a second stored names the first one's pid" stored "$dir" "held by process $(cat "$dir/stored.pid")\$"
    out=$("$root/deploy/node.sh" --dir "$tmp/other" --port "$port" --peer-port "$other" --bin "$bin" 2>&1); code=$?
    matches "twice: the runner names the taken port" "$out" "port $port on 127.0.0.1 is taken"
    equal "twice: and ends with 1" 1 $code
    out=$(timeout 10 "$bin/gatewayd" --run-dir "$tmp/other.sock" --listen-client-urls "http://127.0.0.1:$port" --advertise-client-urls "http://127.0.0.1:$port" 2>&1); code=$?
    matches "twice: gatewayd names address and port" "$out" "127\.0\.0\.1.*$port.*(in use|Address)"
    equal "twice: and ends with 1" 1 $code
    out=$(make -s -C "$root" run B="$build" PORT="$port" PEER_PORT="$other" DIR="$tmp/other" 2>&1); code=$?
    matches "twice: make run names it too" "$out" "port $port on 127.0.0.1 is taken by another program; choose another with PORT="
    check "twice: and fails" [ $code != 0 ]
    equal "twice: the first node did not notice" "until the end" "$(etcdctl_at "$port" get kept --print-value-only)"

    # Signals: the same node, each daemon by SIGTERM.
    local pids d started
    pids=$(cat "$dir"/*.pid)
    kill -TERM $node_pid
    wait $node_pid; code=$?
    equal "signals: SIGTERM to the runner: exit 0" 0 $code
    for d in $pids; do check "signals: pid $d is gone" ends "$d"; done
    lacks "signals: no daemon was killed or failed" "$(cat "$dir.log")" "did not stop|was killed|ended with exit code"
    for d in raftd stored gatewayd; do
        "$bin/$d" --data-dir "$dir" --run-dir "$dir/sock" --listen-client-urls "http://127.0.0.1:$port" --advertise-client-urls "http://127.0.0.1:$port" >"$tmp/$d.out" 2>&1 &
        started=$!
        _pids+=($started)
        wait_for 5 grep -qE "ready|store open|started" "$tmp/$d.out"
        kill -TERM $started
        wait $started; code=$?
        equal "signals: $d: SIGTERM: exit 0" 0 $code
    done
    start_node "$dir" "$port" || { not_ok "signals: the node starts again"; return; }
    equal "signals: the data is kept" "until the end" "$(etcdctl_at "$port" get kept --print-value-only)"
    stop_pid $node_pid
}

# make run as a person has it: in the foreground, ended by Ctrl-C, in directories of all kinds.
test_make_run() {
    local port peer dir real pids p code round=0
    port=$(free_port); peer=$(free_port)
    cd "$tmp" || return
    for dir in "$(realpath --relative-to="$root" "$tmp")/relative" "$tmp/with a blank/and $ (sign)" \
        "$tmp/$(printf 'long%.0s' $(seq 30))/$(printf 'deep%.0s' $(seq 20))" "$(realpath --relative-to="$root" "$tmp")/relative"; do
        round=$((round + 1))
        case $dir in /*) real=$dir ;; *) real=$root/$dir ;; esac
        set -m # as a terminal does it: a process group of its own, and Ctrl-C is not ignored
        make -s -C "$root" run B="$build" PORT="$port" PEER_PORT="$peer" DIR="${dir//\$/\$\$}" >"$tmp/run.$round" 2>&1 &
        p=$!
        set +m
        _pids+=($p)
        if ! wait_for 15 grep -q "node: ready" "$tmp/run.$round"; then
            not_ok "make run $round: ready in ${dir:0:60}" "$(tail "$tmp/run.$round")"
            kill -INT -- -$p
            continue
        fi
        ok "make run $round: ready"
        equal "make run $round: serves" OK "$(etcdctl_at "$port" put "round$round" "$round")"
        equal "make run $round: with its native door" "$round" "$("$bin/trinectl" --url "$(sed -nE 's/.*native (ipc:[^,]*),.*/\1/p' "$tmp/run.$round")" get "round$round" --print-value-only)"
        pids=$(cat "$real"/*.pid)
        kill -INT -- -$p
        wait $p 2>/dev/null
        for p in $pids; do check "make run $round: Ctrl-C leaves no process" ends "$p"; done
    done
    matches "make run: the data of the first round is there in the last" "$(cat "$tmp/run.4")" "revision 2,"
    equal "make run: no directory of sockets is left in /tmp" "" "$(grep -oh '/tmp/trine-sock\.[A-Za-z0-9]*' "$tmp"/run.* | sort -u | while read -r s; do [ ! -e "$s" ] || echo "$s"; done)"
}

# --- a large restart ----------------------------------------------------------------------------------
test_restart() {
    local port dir=$tmp/restart hash from
    port=$(free_port)
    start_node "$dir" "$port" || return
    check "restart: 200000 puts" "$probe" puts --port "$port" --book "$tmp/restart.book" --count 200000 --value 100 --streams 512
    hash=$("$probe" hash --port "$port")
    stop_pid $node_pid
    from=$(date +%s%3N)
    start_node "$dir" "$port" || { not_ok "restart: the node starts again"; return; }
    echo "restart with 200000 keys: serving after $(($(date +%s%3N) - from)) ms"
    check "restart: everything is there" "$probe" check --port "$port" --book "$tmp/restart.book" --value 100
    equal "restart: the keyspace is what it was" "$hash" "$("$probe" hash --port "$port")"
    stop_pid $node_pid
}

_mark=$(date +%s%3N)
if [ -n "${TIMES:-}" ]; then # each check with the time since the one before
    ok() { passed=$((passed + 1)); local now; now=$(date +%s%3N); printf '%6d ms  %s\n' $((now - _mark)) "$1"; _mark=$now; }
fi
for section in ${ONLY:-config twice make_run damage_log damage_store pairs crash quota full restart}; do
    began=$(date +%s%3N)
    "test_$section"
    [ -z "${TIMES:-}" ] || echo "$section: $(($(date +%s%3N) - began)) ms"
done
summary
