#!/usr/bin/env bash
# Three real nodes: one that was away longer than the log reaches back is caught up by a snapshot while writes go on; one
# whose log, or whose store, is damaged repairs itself from the others; a lone node with the same damage refuses.
# KEYS=n: how many keys are written while a node is away (200000).
#   tests/node/test_snapshot.sh [BUILD_DIR]
set -uo pipefail
build=$(realpath "${1:-build}")

# shellcheck source=tests/lib/node.sh
. "$(dirname "$0")/../lib/node.sh"

export ETCDCTL_API=3
keys=${KEYS:-200000}
ports=() peers=()
for _ in 1 2 3; do ports+=("$(free_port)"); peers+=("$(free_port)"); done
declare -A runner

start() { # N [options]
    "$root/deploy/trio.sh" --dir "$tmp" --ports "${ports[*]}" --peer-ports "${peers[*]}" --bin "$build/bin" --only "$1" \
        -- --wal-segment-bytes 1048576 "${@:2}" >>"$tmp/$1.log" 2>&1 &
    runner[$1]=$!
    _pids+=($!)
}
stop() { stop_pid "${runner[$1]}"; }
port() { echo "${ports[$1 - 1]}"; }
ctl() { etcdctl --endpoints "127.0.0.1:$(port "$1")" --command-timeout=10s "${@:2}"; }
hash_of() { ctl "$1" endpoint hashkv --rev "$2" -w json 2>/dev/null | grep -o '"hash":[0-9]*'; }
rev_of() { ctl "$1" endpoint status -w json 2>/dev/null | grep -o '"revision":[0-9]*' | head -1 | cut -d: -f2; }
healthy() { ctl "$1" put "health/$1" x; }
says() { grep -q "$2" "$tmp/$1.log"; }
leader() {
    local n
    for n in 1 2 3; do
        ctl "$n" endpoint status -w json 2>/dev/null | tr '{}' '\n' | sed -n 's/.*"member_id":\([0-9]*\).*/\1/p;s/.*"leader":\([0-9]*\).*/\1/p' |
            sort -u | wc -l | grep -qx 1 && { echo "$n"; return; }
    done
}
follower() { local l; l=$(leader); for n in 1 2 3; do [ "$n" = "$l" ] || { echo "$n"; return; }; done; }
bench() { "$build/bin/trine-bench" --port "$(port "$1")" --op put --conns 10 --streams 20 --keys "$keys" --value 200 --seconds "$2"; }

# Writes without a pause until stopped; what was acknowledged is in $tmp/acked.
writer_start() {
    : >"$tmp/acked"
    (
        i=0
        while [ ! -e "$tmp/writer.stop" ]; do
            ctl "$1" put "ack/$i" "$i" >/dev/null 2>&1 && echo "$i" >>"$tmp/acked"
            i=$((i + 1))
        done
    ) &
    writer=$!
}
writer_stop() { touch "$tmp/writer.stop"; wait "$writer" 2>/dev/null; rm -f "$tmp/writer.stop"; }
acked_are_there() { # N
    ctl "$1" get ack/ --prefix --keys-only | sed -n 's,^ack/,,p' | sort >"$tmp/there"
    [ "$(sort "$tmp/acked" | comm -23 - "$tmp/there" | wc -l)" = 0 ]
}
same() { # all three have the same at the revision of the first
    local rev
    rev=$(rev_of 1)
    [ -n "$rev" ] && [ -n "$(hash_of 1 "$rev")" ] && [ "$(hash_of 1 "$rev")" = "$(hash_of 2 "$rev")" ] &&
        [ "$(hash_of 1 "$rev")" = "$(hash_of 3 "$rev")" ]
}

for n in 1 2 3; do start $n; done
for n in 1 2 3; do check "node $n serves" wait_for 20 healthy $n; done

# --- away longer than the log reaches back ---
away=$(follower)
stays=$(leader)
stop "$away"
until [ "$(rev_of "$stays")" -ge "$keys" ]; do bench "$stays" 3 >/dev/null; done
check "compaction" ctl "$stays" compact $(($(rev_of "$stays") - 1000)) --physical=true
sleep 6 # stored syncs, raftd drops
writer_start "$stays"
start "$away"
check "node $away serves again" wait_for 60 healthy "$away"
check "it was caught up by a snapshot" says "$away" "snap: the store is now as of entry"
took=$(sed -n 's/.*snap: the store is now as of .*took \([0-9]*\) ms/\1/p' "$tmp/$away.log" | tail -1)
check "the change of stores was short ($took ms)" test "$took" -lt 3000
measured() { curl -s "http://127.0.0.1:$(port "$1")/metrics" | grep "^etcd_network_snapshot_$2{.*} [1-9]" >/dev/null; }
check "/metrics of who received it" measured "$away" receive_success
check "its log begins behind the snapshot" says "$away" "snap: the log begins behind entry"
writer_stop
check "writes went on" test "$(wc -l <"$tmp/acked")" -gt 10
check "all three are the same" wait_for 20 same
check "what was acknowledged is there" acked_are_there "$away"
stop "$away"
start "$away"
check "it starts from what it got" wait_for 30 healthy "$away"
check "all three are still the same" wait_for 20 same

# --- a log that is damaged in the middle ---
damaged=$(follower)
bench "$(leader)" 1 >/dev/null
writer_start "$(leader)"
stop "$damaged"
first=$(find "$tmp/$damaged/raft" -maxdepth 1 -name '*.wal' | sort | tail -2 | head -1)
printf 'damage' | dd of="$first" bs=1 seek=20000 conv=notrunc status=none
start "$damaged"
check "a member with a damaged log serves again" wait_for 60 healthy "$damaged"
check "it said so" says "$damaged" "the log is damaged, repairing from the other members"
check "it votes again" wait_for 20 says "$damaged" "the log is whole again"
writer_stop
check "the damaged log is kept aside" test -d "$(find "$tmp/$damaged/raft" -maxdepth 1 -name 'damaged-*' | head -1)"
check "all three are the same after the repair of a log" wait_for 20 same
check "what was acknowledged is there, too" acked_are_there "$damaged"

# --- a log that is gone ---
stop "$damaged"
rm -f "$tmp/$damaged"/raft/*.wal
start "$damaged"
check "a member whose log is gone serves again" wait_for 60 healthy "$damaged"
check "all three are the same after that" wait_for 20 same

# --- a store that fails its checks ---
other=$(follower)
writer_start "$(leader)"
stop "$other"
manifest=$(find "$tmp/$other/store/db" -name 'MANIFEST-*' | head -1)
printf 'damagedamagedamage' | dd of="$manifest" bs=1 seek=5 conv=notrunc status=none
start "$other"
check "a member with a damaged store serves again" wait_for 60 healthy "$other"
check "it set the store aside" says "$other" "the store is damaged, asking the other members"
writer_stop
check "all three are the same after the repair of a store" wait_for 20 same
check "nothing acknowledged is missing there" acked_are_there "$other"

# --- one block of one table: read by somebody, or by LevelDB itself when it rewrites its tables ---
for finder in "endpoint hashkv" defrag; do
    other=$(follower)
    before=$(grep -c "the store is damaged, asking the other members" "$tmp/$other.log")
    stop "$other"
    table=$(find "$tmp/$other/store/db" -name '*.ldb' -printf '%s %p\n' | sort -n | tail -1 | cut -d' ' -f2)
    printf 'damagedamagedamage' | dd of="$table" bs=1 seek=$(($(stat -c %s "$table") / 2)) conv=notrunc status=none
    start "$other"
    check "a member with a damaged table serves ($finder)" wait_for 60 healthy "$other"
    # By its start if that reads all records, else by whoever reads it first; defrag says nothing, the next write does.
    found() {
        [ "$(grep -c "the store is damaged, asking the other members" "$tmp/$other.log")" -gt "$before" ] ||
            { ctl "$other" $finder; healthy "$other"; return 1; }
    }
    check "it is found by $finder" wait_for 30 found
    check "the member serves again ($finder)" wait_for 60 healthy "$other"
    check "all three are the same after the repair of a table ($finder)" wait_for 20 same
done

# --- the leader's store ---
lead=$(leader)
stop "$lead"
rm -f "$tmp/$lead/store/db/CURRENT"
start "$lead"
check "a former leader with a lost store serves again" wait_for 60 healthy "$lead"
check "all three are the same at the end" wait_for 20 same

# --- a machine with an empty disk, as a new member under the old URLs ---
empty=$(follower)
lead=$(leader)
stop "$empty"
rm -rf "${tmp:?}/$empty"
old=$(ctl "$lead" member list | grep ":${peers[empty - 1]}" | cut -d, -f1)
check "the lost member is removed" ctl "$lead" member remove "$old"
check "and a new one added in its place" wait_for 10 ctl "$lead" member add "n$empty" --peer-urls "http://localhost:${peers[empty - 1]}"
: >"$tmp/$empty.log"
writer_start "$lead"
start "$empty" --initial-cluster-state existing
check "the new member serves" wait_for 60 healthy "$empty"
check "it was caught up by a snapshot" says "$empty" "snap: the store is now as of entry"
writer_stop
check "all three are the same with the new member" wait_for 20 same
check "nothing acknowledged is missing in the new member" acked_are_there "$empty"
stop "$empty"
start "$empty" --initial-cluster-state existing
check "the new member starts again" wait_for 30 healthy "$empty"
for n in 1 2 3; do stop $n; done

# --- alone: refused, as ever ---
lone_port=$(free_port)
start_node "$tmp/lone" "$lone_port"
for i in 1 2 3 4 5; do etcdctl --endpoints "127.0.0.1:$lone_port" put "k$i" v >/dev/null; done
stop_pid "$node_pid"
wal=$(find "$tmp/lone/raft" -name '*.wal' | sort | head -1)
printf 'damage' | dd of="$wal" bs=1 seek=400 conv=notrunc status=none
before=$(cksum <"$wal")
check "a lone member with a damaged log refuses" bash -c "! '$build/bin/raftd' --data-dir '$tmp/lone' --run-dir '$tmp/lone/sock' 2>'$tmp/lone.err'"
check "with the reason" grep -q "refused, nothing was changed" "$tmp/lone.err"
equal "and changes nothing" "$before" "$(cksum <"$wal")"

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
