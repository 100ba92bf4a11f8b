#!/usr/bin/env bash
# Three real nodes on loopback: every endpoint takes writes, reads, watches and leases; the leader is killed, stopped, and its
# raftd alone is killed, under recorded load; a follower is away for a while; at the end all three are the same, and the
# ledger has lost nothing. Then the same cluster with TLS between its members.
#   tests/node/test_trio.sh [BUILD_DIR]
set -uo pipefail
build=$(realpath "${1:-build}")
# shellcheck source=tests/lib/node.sh
. "$(dirname "$0")/../lib/node.sh"

trio_start || { not_ok "three nodes become healthy"; summary; exit 1; }

# --- every endpoint serves everything -----------------------------------------------------------------
check "one of them leads" test -n "$(trio_leader)"
for n in 1 2 3; do
    equal "a write through node $n" OK "$(trio_ctl $n put "key$n" "value$n")"
    for m in 1 2 3; do
        equal "what node $n wrote is read through node $m at once" "value$n" "$(trio_ctl $m get --print-value-only "key$n")"
    done
done
equal "all members are listed, with their client URLs" 3 "$(trio_ctl 1 member list | grep -c 'started.*http.*http')"
for n in 1 2 3; do
    wait_for 5 eval '[ "$(trio_ctl $n get --consistency=s --print-value-only key3)" = value3 ]' && ok "a serializable read of node $n" ||
        not_ok "a serializable read of node $n"
done
equal "a transaction through a follower" SUCCESS "$(trio_ctl "$(trio_follower)" txn <<<'value("key1") = "value1"

put key1 changed

' | head -1)"
equal "its effect is read through the leader" changed "$(trio_ctl "$(trio_leader)" get --print-value-only key1)"

f=$(trio_follower)
ETCDCTL_API=3 etcdctl --endpoints "127.0.0.1:$(trio_port "$f")" watch --rev 1 key --prefix >"$tmp/watch" 2>/dev/null & # a function's pid would be a shell's
watcher=$!
_pids+=($watcher)
lease=$(trio_ctl "$f" lease grant 30 | awk '{ print $2 }')
trio_ctl "$f" put leased x --lease "$lease" >/dev/null
for n in 1 2 3; do
    check "node $n tells a lease's remaining time" grep -q "remaining([23][0-9]s)" <(trio_ctl $n lease timetolive "$lease")
    check "node $n renews it" grep -q "keepalived with TTL(30)" <(trio_ctl $n lease keep-alive --once "$lease")
    check "node $n lists its keys" grep -q leased <(trio_ctl $n lease timetolive "$lease" --keys)
done
short=$(trio_ctl "$f" lease grant 2 | awk '{ print $2 }')
trio_ctl "$f" put short x --lease "$short" >/dev/null
trio_ctl "$f" lease revoke "$lease" >/dev/null
equal "a lease that is revoked through a follower takes its key" "" "$(trio_ctl "$(trio_leader)" get leased)"
wait_for 8 eval '[ -z "$(trio_ctl "$f" get short)" ]' && ok "a lease that runs out does, too" || not_ok "a lease that runs out does, too"
wait_for 5 grep -q changed "$tmp/watch" && ok "a watcher at a follower hears of it all" || not_ok "a watcher at a follower" "$(cat "$tmp/watch")"
equal "... in order, once each" "value1 value2 value3 changed" "$(grep -E '^(value|changed)' "$tmp/watch" | tr '\n' ' ' | sed 's/ $//')"
kill $watcher 2>/dev/null
metrics=$(curl -s "http://127.0.0.1:$(trio_port 1)/metrics")
for name in etcd_network_peer_sent_bytes_total etcd_network_peer_received_bytes_total etcd_network_active_peers \
    etcd_network_peer_round_trip_time_seconds_count; do
    equal "$name, for both others" 2 "$(grep -c "^$name{" <<<"$metrics")"
done

# --- faults under load -----------------------------------------------------------------------------------
"$build/bin/trine-ledger" --port "$(trio_all)" --rate 2000 --shared >"$tmp/ledger" 2>&1 &
ledger=$!
_pids+=($ledger)
gap_begin() { kill -USR1 $ledger; sleep 0.1; }
gap_end() { # after SECONDS: the longest pause of writes since gap_begin, in ms
    sleep "$1"
    kill -USR1 $ledger
    sleep 0.1
    gap=$(grep '^gap' "$tmp/ledger" | tail -1 | awk '{ print $2 }')
}
below() { if [ "$gap" -lt "$2" ]; then ok "$1 (${gap} ms)"; else not_ok "$1" "$gap ms, not below $2"; fi; }
sleep 0.5

l=$(trio_leader)
gap_begin
trio_down "$l"
gap_end 1
below "a leader that is stopped leaves no gap to speak of" 500
trio_up "$l"
wait_for 15 health "$(trio_port "$l")" && ok "it comes back" || not_ok "it comes back" "$(tail -5 "$tmp/trio.$l.log")"

l=$(trio_leader)
gap_begin
trio_kill "$l"
gap_end 2.8
below "writes resume when the leader's node is lost" 2700
sleep 0.5
trio_up "$l"
wait_for 15 health "$(trio_port "$l")" && ok "it comes back" || not_ok "it comes back" "$(tail -5 "$tmp/trio.$l.log")"

f=$(trio_follower)
gap_begin
trio_kill "$f"
gap_end 1
below "a follower that is lost is not missed" 500
equal "two of three serve" OK "$(trio_ctl "$(trio_leader)" put while-away x)"
trio_up "$f"
wait_for 15 health "$(trio_port "$f")" && ok "it comes back" || not_ok "it comes back" "$(tail -5 "$tmp/trio.$f.log")"
wait_for 10 eval '[ "$(trio_ctl "$f" get --consistency=s --print-value-only while-away)" = x ]' && ok "and catches up" || not_ok "and catches up"

l=$(trio_leader)
kill -9 "$(cat "$tmp/trio/$l/raftd.pid")"
sleep 2
kill -TERM $ledger
wait $ledger
equal "the ledger settles: nothing lost, doubled, missed or reordered" 0 $?
grep -v '^gap' "$tmp/ledger"
wait_for 10 trio_same && ok "all three have the same" || not_ok "all three have the same" "$(for n in 1 2 3; do trio_ctl $n endpoint hashkv; done)"

# --- without a majority -----------------------------------------------------------------------------------
trio_kill 2
trio_kill 3
sleep 1.5
check "no linearizable read without a majority" bash -c "! ETCDCTL_API=3 etcdctl --command-timeout=1s --endpoints 127.0.0.1:$(trio_port 1) get key2"
check "no write without a majority" bash -c "! ETCDCTL_API=3 etcdctl --command-timeout=1s --endpoints 127.0.0.1:$(trio_port 1) put doubtful x"
equal "but a serializable read" value2 "$(trio_ctl 1 get --consistency=s --print-value-only key2)"
trio_up 2
wait_for 15 health "$(trio_port 1)" && ok "two serve again" || not_ok "two serve again"
equal "with all they had" value2 "$(trio_ctl 2 get --print-value-only key2)"
for n in 1 2; do trio_down $n; done

# --- TLS between members -------------------------------------------------------------------------------------
pki=$tmp/pki
mkdir "$pki"
make_cert() { # NAME AUTHORITY
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$pki/$1.key" -out "$pki/$1.csr" -subj "/CN=$1" &&
        openssl x509 -req -in "$pki/$1.csr" -CA "$pki/$2.pem" -CAkey "$pki/$2.key" -CAcreateserial -out "$pki/$1.pem" -days 2 \
            -extfile <(echo "subjectAltName=DNS:localhost,IP:127.0.0.1")
}
for ca in ca foreign; do
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$pki/$ca.key" -out "$pki/$ca.pem" -subj "/CN=$ca" -days 2
done 2>/dev/null
make_cert member ca 2>/dev/null
make_cert stranger foreign 2>/dev/null
tls=(--peer-cert-file "$pki/member.pem" --peer-key-file "$pki/member.key" --peer-trusted-ca-file "$pki/ca.pem" --peer-client-cert-auth true)
quick=(--heartbeat-interval 50 --election-timeout 500)
rm -rf "$tmp/trio"
trio_scheme=https
trio_start "${tls[@]}" "${quick[@]}" && ok "three nodes with TLS between them" || not_ok "three nodes with TLS between them"
for n in 1 2 3; do equal "a write through node $n" OK "$(trio_ctl $n put "tls$n" x)"; done
check "a member says which TLS it speaks" grep -q 'is reached at .*TLSv1.3' "$tmp/trio.1.log"
f=$(trio_follower)
trio_down "$f"
trio_options=(--peer-cert-file "$pki/stranger.pem" --peer-key-file "$pki/stranger.key" --peer-trusted-ca-file "$pki/ca.pem" --peer-client-cert-auth true "${quick[@]}")
trio_up "$f"
sleep 1
check "a member with a foreign certificate is not let in" bash -c "! ETCDCTL_API=3 etcdctl --command-timeout=1s --endpoints 127.0.0.1:$(trio_port "$f") get tls1"
equal "the others go on" OK "$(trio_ctl "$(trio_leader)" put tls4 x)"
cp "$pki/member.pem" "$pki/stranger.pem.new" && cp "$pki/member.key" "$pki/stranger.key" && mv "$pki/stranger.pem.new" "$pki/stranger.pem"
wait_for 10 health "$(trio_port "$f")" && ok "its new certificate is taken without a restart" || not_ok "its new certificate is taken without a restart" "$(tail -5 "$tmp/trio.$f.log")"
wait_for 10 trio_same && ok "all three have the same" || not_ok "all three have the same"

# --- one joins, after the certificates of those that run were exchanged ---
serial() { openssl x509 -noout -serial; }
make_cert renewed ca 2>/dev/null
new=$(serial <"$pki/renewed.pem")
cp "$pki/renewed.pem" "$pki/member.pem.new" && cp "$pki/renewed.key" "$pki/member.key" && mv "$pki/member.pem.new" "$pki/member.pem"
shown() {
    [ "$(openssl s_client -connect "127.0.0.1:${trio_peers[$1 - 1]}" -cert "$pki/member.pem" -key "$pki/member.key" </dev/null 2>/dev/null | serial)" = "$new" ]
}
for n in 1 2 3; do [ $n = "$f" ] || check "node $n shows its new certificate without a restart" wait_for 10 shown $n; done
port4=$(free_port) peer4=$(free_port)
cluster="n4=https://localhost:$peer4"
for n in 1 2 3; do cluster+=",n$n=https://localhost:${trio_peers[n - 1]}"; done
check "a fourth member is added" wait_for 10 trio_ctl 1 member add n4 --peer-urls "https://localhost:$peer4"
"$root/deploy/node.sh" --dir "$tmp/n4" --port "$port4" --peer-port "$peer4" --peer-scheme https --bin "$build/bin" -- --name n4 \
    --initial-cluster "$cluster" --initial-cluster-token trio --initial-cluster-state existing "${tls[@]}" "${quick[@]}" >>"$tmp/trio.4.log" 2>&1 &
fourth=$!
_pids+=("$fourth")
check "it joins over TLS" wait_for 20 health "$port4"
equal "and has what was written before" x "$(ETCDCTL_API=3 etcdctl --endpoints "127.0.0.1:$port4" get --print-value-only tls1)"
equal "and writes" OK "$(ETCDCTL_API=3 etcdctl --endpoints "127.0.0.1:$port4" put tls5 x)"
check "the others reach it by TLS" wait_for 5 grep -q "is reached at localhost:$peer4, TLSv1.3" "$tmp/trio.1.log"

stop_pid "$fourth"
for n in 1 2 3; do trio_down $n; done
if grep -hE 'must|assert|Sanitizer|signal (6|11)' "$tmp"/trio.*.log | head -5 | grep .; then not_ok "no daemon found a bug of its own"; else ok "no daemon found a bug of its own"; fi
[ $failed = 0 ] || for n in 1 2 3; do tail -n 40 "$tmp/trio.$n.log"; done
summary
