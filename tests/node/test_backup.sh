#!/usr/bin/env bash
# Backups: what `etcdctl snapshot save` takes from a node is a file that etcd's own tools check and restore, and a real etcd on the restored
# directory serves the same keys, revisions, history and leases; and back: what etcd has saved becomes a node. Then with much data, slow readers and too many of them, while puts go
# on: what stored and gatewayd hold stays bounded. And the Hash rpc on three members.
# MEGABYTES=n: how much data (200).
#   tests/node/test_backup.sh [BUILD_DIR]
set -uo pipefail
build=$(realpath "${1:-build}")

# shellcheck source=tests/lib/node.sh
. "$(dirname "$0")/../lib/node.sh"

export ETCDCTL_API=3
megabytes=${MEGABYTES:-200}
port=$(free_port)
start_node "$tmp/n" "$port" || exit 1
ours() { etcdctl --endpoints "127.0.0.1:$port" --command-timeout=60s "$@"; }
theirs() { etcdctl --endpoints "127.0.0.1:$etcd_port" --command-timeout=60s "$@"; }
# save FILE, restore FILE DIR
save() { ours snapshot save "$1"; }
restore() { etcdctl snapshot restore "$1" --data-dir "$2"; }
restored_etcd() { # DIR: not by check, whose commands run in a shell of their own
    etcd_port=$(free_port)
    if start_etcd "$1" "$etcd_port"; then ok "etcd serves what was restored in $1"; else not_ok "etcd does not serve $1"; fi
}
# What a client sees of everything, with its revisions: sorted, so that it can be compared.
content() { "$1" get "" --from-key -w json "${@:2}" | tr '{' '\n' | grep '"key"' | sed -E 's/[]}].*//; s/,$//' | sort; }
# same NAME ARGS...: both answer alike
same() {
    local name=$1; shift
    equal "$name" "$(ours "$@" 2>&1 | grep -v '^{')" "$(theirs "$@" 2>&1 | grep -v '^{')"
}

# --- an empty store ---
check "an empty store is saved" save "$tmp/empty.db"
check "etcd's tool finds nothing wrong with it" etcdctl snapshot status "$tmp/empty.db"
check "it is restored" restore "$tmp/empty.db" "$tmp/empty"
restored_etcd "$tmp/empty"
equal "there is nothing in it" "" "$(theirs get "" --from-key --keys-only)"
stop_pid "$etcd_pid"

# --- a bit of everything ---
lease_a=$(ours lease grant 3000 | cut -d' ' -f2)
lease_b=$(ours lease grant 600 | cut -d' ' -f2)
for i in $(seq 1 30); do echo "put k/$i first-$i"; done | while read -r _ k v; do ours put "$k" "$v" >/dev/null; done
for i in 1 2 3; do ours put "k/$i" "second-$i" --lease="$lease_a" >/dev/null; done
ours put attached x --lease="$lease_b" >/dev/null
ours put "k/1" third >/dev/null
ours del "k/2" >/dev/null
printf 'mod("k/3") > "0"\n\nput t/1 a\nput t/2 b\ndel k/4\n\n\n' | ours txn >/dev/null
ours put empty "" >/dev/null
printf 'a\0b' | ours put binary >/dev/null
ours del t/2 >/dev/null
middle=$(ours get x -w json | grep -o '"revision":[0-9]*' | cut -d: -f2)
ours put "k/2" again >/dev/null
for i in 1 2 3; do head -c 750000 /dev/urandom | base64 -w0 | ours put "big/$i" >/dev/null; done
ours put "k/9" last >/dev/null
compacted=$((middle - 4))
check "compaction" ours compaction "$compacted"
ours del "k/10" >/dev/null
last=$(ours get x -w json | grep -o '"revision":[0-9]*' | cut -d: -f2)

check "it is saved" save "$tmp/all.db"
equal "its size says that a digest is at the end" 32 "$(($(stat -c %s "$tmp/all.db") % 512))"
status=$(etcdctl snapshot status "$tmp/all.db" -w json)
equal "etcd's tool finds nothing wrong and reads the revision" "$last" "$(grep -o '"revision":[0-9]*' <<<"$status" | cut -d: -f2)"
check "it is restored" restore "$tmp/all.db" "$tmp/all"
restored_etcd "$tmp/all"
equal "the same keys, values and revisions" "$(content ours)" "$(content theirs)"
check "there are some" test "$(content ours | wc -l)" -gt 30
equal "the same at a revision in the past" "$(content ours --rev "$middle")" "$(content theirs --rev "$middle")"
equal "the same at the compacted revision" "$(content ours --rev "$compacted")" "$(content theirs --rev "$compacted")"
same "below it nothing" get k/1 --rev $((compacted - 1))
same "the leases" lease list
mask() { "$1" lease timetolive --keys "${l:-$lease_a}" | sed -E 's/remaining\([0-9]+s\)/remaining/'; }
for l in "$lease_a" "$lease_b"; do
    equal "lease $l and its keys" "$(mask ours)" "$(mask theirs)"
done
equal "the same history for a watcher" "$(timeout 2 etcdctl --endpoints "127.0.0.1:$port" watch --rev $((compacted + 1)) --prefix k/)" \
    "$(timeout 2 etcdctl --endpoints "127.0.0.1:$etcd_port" watch --rev $((compacted + 1)) --prefix k/)"
same "the next write gets the same revision" put after 1
theirs put k/1 after >/dev/null
ours put k/1 after >/dev/null
equal "and the next version of an old key" "$(content ours)" "$(content theirs)"
check "a lease there still ends its keys" theirs lease revoke "$lease_b"
equal "they are gone" "" "$(theirs get attached)"
check "etcd compacts what it got" theirs compaction "$middle"
check "and defragments it" theirs defrag
check "etcd makes a snapshot of it in turn" theirs snapshot save "$tmp/theirs.db"

# --- and back: what etcd has saved becomes a node ---
ours_restore() { "$build/bin/trinectl" snapshot restore "$1" --data-dir "$2"; }
for i in 1 2 3; do theirs del "big/$i" >/dev/null; done
theirs role add reader >/dev/null
theirs role grant-permission reader read k/ --prefix=true >/dev/null
check "etcd's snapshot with more in it" theirs snapshot save "$tmp/back.db"
equal "its status is what etcdctl says" "$(etcdctl snapshot status "$tmp/back.db" | cut -d, -f1,2 | tr -d ' ')" \
    "$("$build/bin/trinectl" snapshot status "$tmp/back.db" | sed -E 's/hash ([0-9a-f]+), revision ([0-9]+).*/\1,\2/')"
check "it is restored" ours_restore "$tmp/back.db" "$tmp/back"
check "not a second time over it" bash -c "! '$build/bin/trinectl' snapshot restore '$tmp/back.db' --data-dir '$tmp/back'"
stop_pid "$node_pid"
port=$(free_port)
if start_node "$tmp/back" "$port"; then ok "a node serves it"; else not_ok "no node serves it"; fi
equal "the same keys, values and revisions in a node" "$(content theirs)" "$(content ours)"
equal "the same at a revision in the past in a node" "$(content theirs --rev $((last - 1)))" "$(content ours --rev $((last - 1)))"
same "the leases, in a node" lease list
l=$lease_a
equal "lease $l and its keys in a node" "$(mask theirs)" "$(mask ours)"
same "a node gives the next write the same revision" put before-all 1
same "and the same answers about the compacted" get k/1 --rev $((compacted - 1))
stop_pid "$node_pid"
if start_node "$tmp/back" "$port"; then ok "it starts again"; else not_ok "it does not start again"; fi
equal "with the same" "$(content theirs)" "$(content ours)"
check "our own file, too, is restored" ours_restore "$tmp/all.db" "$tmp/own"
check "a damaged one is not" bash -c "cp '$tmp/all.db' '$tmp/bad.db'; printf x | dd of='$tmp/bad.db' bs=1 seek=20000 conv=notrunc status=none; ! '$build/bin/trinectl' snapshot restore '$tmp/bad.db' --data-dir '$tmp/bad'"
check "and leaves nothing" test ! -e "$tmp/bad"
stop_pid "$etcd_pid"

# --- damaged on its way ---
cp "$tmp/all.db" "$tmp/bad.db"
printf 'x' | dd of="$tmp/bad.db" bs=1 seek=20000 conv=notrunc status=none
check "a damaged file is refused by its digest" bash -c "! etcdctl snapshot restore '$tmp/bad.db' --data-dir '$tmp/bad'"

# --- much data, while puts go on ---
pid_of() { cat "$tmp/back/$1.pid"; } # the node that serves now
anon() { awk '/^RssAnon/ { print int($2 / 1024) }' "/proc/$(pid_of "$1")/status"; }
"$build/bin/trine-bench" --port "$port" --op load --conns 4 --streams 8 --keys $((megabytes * 100)) --value 10000 --seconds 120 >/dev/null
before_stored=$(anon stored) before_gatewayd=$(anon gatewayd)
"$build/bin/trine-bench" --port "$port" --op put --conns 1 --streams 1 --keys 1000 --value 100 --seconds 6 >"$tmp/puts" &
bench=$!
_pids+=("$bench")
sleep 0.5
watch_memory() { # writes the most it sees
    local s=0 g=0 v
    while [ ! -e "$tmp/saved" ]; do
        v=$(anon stored); [ "$v" -le "$s" ] || s=$v
        v=$(anon gatewayd); [ "$v" -le "$g" ] || g=$v
        echo "$s $g" >"$tmp/memory"
        sleep 0.02
    done
}
watch_memory &
watcher=$!
took=$SECONDS
check "$megabytes MB are saved" save "$tmp/much.db"
took=$((SECONDS - took))
touch "$tmp/saved"
wait "$watcher"
wait "$bench"
read -r peak_stored peak_gatewayd <"$tmp/memory"
check "all of it" test "$(stat -c %s "$tmp/much.db")" -gt $((megabytes * 1000000))
check "etcd's tool finds nothing wrong with it" etcdctl snapshot status "$tmp/much.db"
check "stored grew from $before_stored to $peak_stored MB, not more than 48" test $((peak_stored - before_stored)) -le 48
check "gatewayd grew from $before_gatewayd to $peak_gatewayd MB, not more than 32" test $((peak_gatewayd - before_gatewayd)) -le 32
puts() { grep -o "\"$1\":[0-9.]*" "$tmp/puts" | cut -d: -f2 | cut -d. -f1; }
check "puts went on: $(puts operations)" test "$(puts operations)" -gt 100
equal "none failed" 0 "$(puts errors)"
check "the longest took $(puts max_us) us" test "$(puts max_us)" -lt 4000000

# --- slow readers, and too many ---
printf '\0\0\0\0\0' >"$tmp/nothing"
grpc() { # METHOD OUTPUT [options]
    ${replace:+exec} curl -sS -m 30 --http2-prior-knowledge -H 'content-type: application/grpc' -H 'te: trailers' --data-binary "@$tmp/nothing" \
        -o "$2" "${@:3}" "http://127.0.0.1:$port/etcdserverpb.Maintenance/$1"
}
before_stored=$(anon stored) before_gatewayd=$(anon gatewayd)
slow=()
for i in 1 2 3 4; do
    replace=yes grpc Snapshot "$tmp/slow.$i" --limit-rate 200k 2>/dev/null &
    slow+=($!)
    _pids+=($!)
done
some_came() { for i in 1 2 3 4; do [ -s "$tmp/slow.$i" ] || return 1; done; }
check "four slow readers" wait_for 20 some_came
grpc Snapshot "$tmp/fifth" -D "$tmp/fifth.head"
check "a fifth one is refused" grep -qi "grpc-message: etcdserver: too many requests" "$tmp/fifth.head"
sleep 2
check "stored holds little for them: $before_stored, $(anon stored) MB" test $(($(anon stored) - before_stored)) -le 48
check "and so does gatewayd: $before_gatewayd, $(anon gatewayd) MB" test $(($(anon gatewayd) - before_gatewayd)) -le 48
check "puts go on" ours put slow 1
for p in "${slow[@]}"; do kill "$p" 2>/dev/null; wait "$p" 2>/dev/null; done
check "what nobody reads any more is let go" wait_for 10 save "$tmp/again.db"

# --- stored dies meanwhile ---
replace=yes grpc Snapshot "$tmp/cut" -D "$tmp/cut.head" --limit-rate 20M &
cut=$!
_pids+=("$cut")
check "a snapshot is under way" wait_for 10 test -s "$tmp/cut"
kill -9 "$(pid_of stored)"
wait "$cut"
check "it ends, and says that it is not whole" grep -Eqi 'grpc-status: *(14|[1-9])' "$tmp/cut.head"
check "the next one is whole" wait_for 20 save "$tmp/after.db"
stop_pid "$node_pid"

# --- Hash on three members ---
# shellcheck disable=SC2119
trio_start || not_ok "three nodes"
hash_of() { # the hash of HashResponse: behind the prefix of 5 bytes and the header, whose length is the seventh byte
    port=$(trio_port "$1") grpc Hash "$tmp/hash.$1" && od -An -v -tx1 "$tmp/hash.$1" | tr -d ' \n' | {
        read -r hex
        [ "${hex:10:2}" = 0a ] && echo "${hex:$((14 + 2 * 16#${hex:12:2}))}"
    }
}
hashes_agree() { local h; h=$(hash_of 1); [ -n "$h" ] && [ "$h" = "$(hash_of 2)" ] && [ "$h" = "$(hash_of 3)" ]; }
trio_ctl 1 put a 1 >/dev/null
check "three members have one hash" wait_for 10 hashes_agree
before=$(hash_of 1)
for i in $(seq 5); do trio_ctl 2 put "a/$i" "$i" >/dev/null; done
trio_ctl 3 lease grant 1000 >/dev/null
trio_ctl 1 compaction 4 --physical >/dev/null
check "and another one after writes, a lease and a compaction" wait_for 10 hashes_agree
check "it is another one" test "$before" != "$(hash_of 1)"

# --- a backup of one member of three, by the others' ports too ---
for n in 1 2 3; do
    check "node $n is saved" trio_ctl "$n" snapshot save "$tmp/trio.$n.db"
    check "its file is whole" etcdctl snapshot status "$tmp/trio.$n.db"
done
for n in 1 2 3; do trio_down "$n"; done

# --- users ---
port=$(free_port)
start_node "$tmp/auth" "$port" || not_ok "a node for users"
as_root() { "$1" --user root:pw "${@:2}"; }
users_make() { # the same in a node and in etcd
    "$1" put k/1 1 && "$1" put other 1 && "$1" user add root:pw && "$1" user grant-role root root && "$1" user add joe:jp && "$1" role add r &&
        "$1" role grant-permission r readwrite k/ --prefix && "$1" user grant-role joe r && "$1" auth enable
} >/dev/null
users_make ours
check "without a user no snapshot" bash -c "! etcdctl --endpoints 127.0.0.1:$port snapshot save '$tmp/no.db'"
check "nor for a user who is not root" bash -c "! etcdctl --endpoints 127.0.0.1:$port --user joe:jp snapshot save '$tmp/no.db'"
check "one for root" as_root ours snapshot save "$tmp/users.db"
check "etcd restores it" restore "$tmp/users.db" "$tmp/users"
restored_etcd "$tmp/users"
check "authentication is on there" bash -c "! etcdctl --endpoints 127.0.0.1:$etcd_port get k/1"
stop_pid "$etcd_pid"
stop_pid "$node_pid"
check "it is restored into a node" ours_restore "$tmp/users.db" "$tmp/users-back"
port=$(free_port)
start_node "$tmp/users-back" "$port" || not_ok "a node with users"
equal "where users have their passwords" "k/1" "$(ours --user joe:jp get k/1 --keys-only | head -1)"
check "and no more rights than before" bash -c "! etcdctl --endpoints 127.0.0.1:$port --user joe:jp get other"
stop_pid "$node_pid"
etcd_port=$(free_port)
start_etcd "$tmp/bcrypt" "$etcd_port"
users_make theirs
check "etcd's snapshot with users" as_root theirs snapshot save "$tmp/bcrypt.db"
stop_pid "$etcd_pid"
check "is restored into a node" ours_restore "$tmp/bcrypt.db" "$tmp/bcrypt-node"
port=$(free_port)
start_node "$tmp/bcrypt-node" "$port" || not_ok "a node with users of etcd"
equal "where etcd's passwords are right" "k/1" "$(ours --user joe:jp get k/1 --keys-only | head -1)"
check "wrong ones are wrong" bash -c "! etcdctl --endpoints 127.0.0.1:$port --user joe:no get k/1"
check "and rights are what they were" bash -c "! etcdctl --endpoints 127.0.0.1:$port --user joe:jp get other"
stop_pid "$node_pid"

# --- three new members from one file ---
for n in 1 2 3; do rm -rf "${tmp:?}/trio/$n"; done
for n in 1 2 3; do check "member $n is restored" ours_restore "$tmp/all.db" "$tmp/trio/$n"; done
for n in 1 2 3; do trio_up $n; done
for n in 1 2 3; do check "member $n serves" wait_for 20 health "$(trio_port $n)"; done
check "a write" trio_ctl 1 put all-three 1
check "they are the same" wait_for 10 trio_same
check "they have what was saved" test "$(trio_ctl 2 get k/ --prefix --keys-only | grep -c k/)" -gt 20
check "and one hash" wait_for 10 hashes_agree
equal "no alarm" "" "$(trio_ctl 1 alarm list)"
for n in 1 2 3; do trio_down "$n"; done

summary
