#!/usr/bin/env bash
# Three real nodes: a leader that cannot serve well hands its leadership over by itself, and writes go on: one whose disk is slow
# (syncs that take long, by a preloaded library), one that a single sync keeps waiting, one whose store is gone, one whose
# store stands still. Each time what was acknowledged is there at the end, on all three.
#   tests/node/test_handover.sh [BUILD_DIR]
set -uo pipefail
build=$(realpath "${1:-build}")
# shellcheck source=tests/lib/node.sh
. "$(dirname "$0")/../lib/node.sh"

# A directory of programs of our own, so that one can be taken away.
mkdir "$tmp/b" "$tmp/b/bin"
cp "$build"/bin/{raftd,stored,gatewayd,trinectl,trine-ledger} "$tmp/b/bin/"
build=$tmp/b
shim=
if cc -shared -fPIC -D_GNU_SOURCE -o "$tmp/slow_sync.so" "$root/tests/node/slow_sync.c" -ldl && ! nm -D "$build/bin/raftd" | grep -q '__[at]san_init'; then
    shim=$tmp/slow_sync.so
fi
election=500
trio_init --heartbeat-interval 50 --election-timeout $election
for n in 1 2 3; do LD_PRELOAD=$shim SLOW_SYNC=$tmp/slow.$n trio_up $n; done
for n in 1 2 3; do check "node $n serves" wait_for 20 health "$(trio_port $n)"; done

"$build/bin/trine-ledger" --port "$(trio_all)" --rate 500 --shared >"$tmp/ledger" 2>&1 &
ledger=$!
_pids+=("$ledger")

# Not asked is the one that may have nothing to answer with.
leads_another() {
    for next in 1 2 3; do
        [ $next = "$1" ] || { trio_ctl $next endpoint status | awk -F', ' '$5 == "true" { yes = 1 } END { exit !yes }' && return; }
    done
    return 1
}
said() { grep -q "handing the leadership over: .*$2" "$tmp/trio.$1.log"; }
moved() { # WHAT REASON SECONDS
    check "$1: another member leads" wait_for "$3" leads_another "$l"
    check "$1: it said why" said "$l" "$2"
    leads_another "$l"
    equal "$1: writes go on" OK "$(trio_ctl "$next" put "after" "$1")"
}
# Who has handed over keeps still about it for a minute: each cause gets a leader that has not yet.
fresh_leader() {
    local n
    for n in 1 2 3; do
        grep -q "handing the leadership over" "$tmp/trio.$n.log" && continue
        wait_for 5 health "$(trio_port $n)"
        [ "$(trio_leader)" = "$n" ] || trio_ctl "$(trio_leader)" move-leader "$(trio_ctl $n endpoint status | cut -d, -f2 | tr -d ' ')" >/dev/null
        wait_for 5 eval '[ "$(trio_leader)" = '$n' ]'
        l=$n
        return
    done
}

# --- the disk ---
if [ -n "$shim" ]; then
    fresh_leader
    echo 300 >"$tmp/slow.$l"
    moved "syncs that take long" "\\(disk\\|syncs\\)" 30
    rm -f "$tmp/slow.$l"

    fresh_leader
    echo 1500 >"$tmp/slow.$l"
    moved "one sync that takes very long" "waited for the disk" 10
    rm -f "$tmp/slow.$l"
fi

# --- the store ---
fresh_leader
kill -STOP "$(cat "$tmp/trio/$l/stored.pid")"
moved "a store that stands still" "applies nothing" 15
kill -CONT "$(cat "$tmp/trio/$l/stored.pid")"
check "its node serves again" wait_for 10 trio_ctl "$l" get after

# A raftd that starts again has handed nothing over yet.
kill -9 "$(cat "$tmp/trio/$l/raftd.pid")"
: >"$tmp/trio.$l.log"
wait_for 10 trio_ctl "$l" get after
fresh_leader
mv "$build/bin/stored" "$build/bin/stored.away"
kill -9 "$(cat "$tmp/trio/$l/stored.pid")"
moved "a store that is gone" "has been away" 10
mv "$build/bin/stored.away" "$build/bin/stored"
check "its node serves when the store is back" wait_for 20 trio_ctl "$l" get after

kill -TERM $ledger
wait $ledger
equal "the ledger settles: nothing lost, doubled, missed or reordered" 0 $?
cat "$tmp/ledger"
wait_for 20 trio_same && ok "all three have the same" || not_ok "all three have the same"
for n in 1 2 3; do trio_down $n; done
[ $failed = 0 ] || for n in 1 2 3; do tail -n 30 "$tmp/trio.$n.log"; done
summary
