#!/usr/bin/env bash
# TLS for clients: who is let in and who is not, by etcdctl, curl and openssl, with certificates made on the spot. What can be seen from
# outside is compared with Debian's etcd: same output, same exit code.
#   tests/node/test_tls.sh [BUILD_DIR]
build=$(realpath "${1:-build}")
. "$(dirname "$0")/../lib/node.sh"
export ETCDCTL_API=3
pki=$tmp/pki
mkdir "$pki"

# --- certificates -----------------------------------------------------------------------------------

# authority NAME: NAME.pem, NAME.key and a list of what it has revoked, NAME.crl
authority() {
    mkdir "$pki/$1.d" && : >"$pki/$1.d/index"
    printf '[ca]\ndefault_ca=d\n[d]\nnew_certs_dir=%s\ndatabase=%s/index\nrand_serial=yes\ndefault_md=sha256\ndefault_days=2\ndefault_crl_days=2\npolicy=p\nunique_subject=no\ncopy_extensions=copy\n[p]\ncommonName=supplied\n' \
        "$pki/$1.d" "$pki/$1.d" >"$pki/$1.cnf"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$pki/$1.key" -out "$pki/$1.pem" -days 2 -subj "/CN=$1" 2>/dev/null
    crl "$1"
}
crl() { openssl ca -batch -config "$pki/$1.cnf" -cert "$pki/$1.pem" -keyfile "$pki/$1.key" -gencrl -out "$pki/$1.crl" 2>/dev/null; }
# cert AUTHORITY NAME CN SAN [options of openssl ca]: NAME.pem, NAME.key
cert() {
    local ca=$1 name=$2 cn=$3 san=$4; shift 4
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$pki/$name.key" -out "$pki/$name.csr" -subj "/CN=$cn" \
        ${san:+-addext "subjectAltName=$san"} 2>/dev/null
    openssl ca -batch -notext -config "$pki/$ca.cnf" -cert "$pki/$ca.pem" -keyfile "$pki/$ca.key" -in "$pki/$name.csr" -out "$pki/$name.pem" \
        "$@" 2>/dev/null || echo "no certificate $name"
}
authority ca
authority other
cert ca server node DNS:localhost,IP:127.0.0.1
cert ca elsewhere node DNS:elsewhere.example
cert ca client client ""
cert ca named client DNS:good.example
cert ca foreign client DNS:bad.example,IP:10.9.8.7
cert other stranger client ""
cert ca old client "" -startdate 20200101000000Z -enddate 20200201000000Z
cert ca early client "" -startdate 20990101000000Z -enddate 20990201000000Z
cert ca revoked client ""
openssl ca -batch -config "$pki/ca.cnf" -cert "$pki/ca.pem" -keyfile "$pki/ca.key" -revoke "$pki/revoked.pem" 2>/dev/null
crl ca

# --- two servers, configured alike --------------------------------------------------------------------

# pair NAME options...: sets etcd_port and trine_port, where both serve https
pair() {
    local name=$1 peer metrics; shift
    peer=$(free_port) metrics=$(free_port) etcd_port=$(free_port)
    "${ETCD:-etcd}" --data-dir "$tmp/etcd-$name" --listen-client-urls "https://127.0.0.1:$etcd_port" --advertise-client-urls "https://127.0.0.1:$etcd_port" \
        --listen-peer-urls "http://127.0.0.1:$peer" --initial-advertise-peer-urls "http://localhost:$peer" --initial-cluster "default=http://localhost:$peer" \
        --listen-metrics-urls "http://127.0.0.1:$metrics" --log-level error "$@" >>"$tmp/etcd-$name.log" 2>&1 &
    etcd_pid=$!
    _pids+=($etcd_pid)
    tls_port=$(free_port) plain_port=$(free_port)
    start_node "$tmp/$name" "$plain_port" "$@" || exit 1
    trine_port=$tls_port
    wait_for 20 health "$metrics" || { echo "etcd is not ready:"; tail -30 "$tmp/etcd-$name.log"; exit 1; }
}
unpair() { stop_pid "$etcd_pid"; stop_pid "$node_pid"; }

# ctl CERT command...: etcdctl with this certificate (none: -)
ctl() {
    local who=$1; shift
    local with=()
    [ "$who" = - ] || with=(--cert "$pki/$who.pem" --key "$pki/$who.key")
    timeout 20 etcdctl --endpoints "https://127.0.0.1:$port" --cacert "${trust:-$pki/ca.pem}" --command-timeout=2s --dial-timeout=2s "${with[@]}" "$@"
}
get() { # CERT path [options of curl]: the status
    local who=$1 path=$2; shift 2
    local with=()
    [ "$who" = - ] || with=(--cert "$pki/$who.pem" --key "$pki/$who.key")
    curl -s -m 5 -o /dev/null -w '%{http_code} %{http_version}\n' --cacert "$pki/ca.pem" "${with[@]}" "$@" "https://127.0.0.1:$port$path" | sed 's/^000 .*/refused/'
}
# hello [options]: does openssl's client come in, and with what? A refusal in TLS 1.3 comes after the client has finished.
hello() {
    local out
    out=$({ sleep 0.3; } | timeout 5 openssl s_client -connect "127.0.0.1:$port" -CAfile "$pki/ca.pem" "$@" 2>&1 | tr -d "\0")
    if grep -q 'alert\|errno=\|error:' <<<"$out"; then echo refused; return; fi
    grep -oE '^(New, TLSv[0-9.]*|ALPN protocol: .*|No ALPN negotiated)' <<<"$out" | sort -u
}
as_client() { hello -cert "$pki/client.pem" -key "$pki/client.key" "$@"; }

normalize() { sed -E -e "s/127\.0\.0\.1:$1/ENDPOINT/g" -e '/^\{"level":"warn"/d' -e 's/"(cluster_id|member_id|raft_term)":[0-9]+/"\1":N/g'; }
# both NAME SNIPPET: runs the snippet on each server and compares.
both() {
    local name=$1 snippet=$2 a b ca cb
    (port=$etcd_port; eval "$snippet" >"$tmp/a" 2>&1) & # both wait for their timeouts at the same time
    b=$(port=$trine_port; eval "$snippet" 2>&1); cb=$?
    wait $!; ca=$?
    a=$(<"$tmp/a")
    a=$(normalize "$etcd_port" <<<"$a"; echo "exit $ca")
    b=$(normalize "$trine_port" <<<"$b"; echo "exit $cb")
    if [ "$a" = "$b" ]; then ok "$name"; else not_ok "$name" "$(diff <(echo "$a") <(echo "$b") | head -30)"; fi
    [ -z "${SHOW:-}" ] || printf '%s: %s\n' "$name" "$b"
}
# only NAME WANTED SNIPPET: of Trine alone.
only() { equal "$1" "$2" "$(port=$trine_port; eval "$3" 2>&1)"; }

# --- an authority and its revocations -----------------------------------------------------------------
pair auth --cert-file "$pki/server.pem" --key-file "$pki/server.key" --trusted-ca-file "$pki/ca.pem" --client-crl-file "$pki/ca.crl"
both "put" 'ctl client put foo bar'
both "get" 'ctl client get foo'
both "json" 'ctl client get foo -w json'
both "several commands" 'for i in 1 2 3; do ctl client put k$i v$i || break; done; ctl client get --prefix k'
both "watch" 'ctl client put w 1 >/dev/null; timeout 1 etcdctl --endpoints https://127.0.0.1:$port --cacert $pki/ca.pem --cert $pki/client.pem --key $pki/client.key watch w --rev 1 | head -3'
both "large answer" 'for i in 1 2 3; do head -c 900000 /dev/zero | tr "\0" x | ctl client put big$i >/dev/null; done; ctl client get --prefix big | md5sum'
both "a certificate with names" 'ctl named put foo bar'
both "a certificate with another address" 'ctl foreign put foo bar'
both "no certificate" 'ctl - put foo bar'
both "another authority" 'ctl stranger put foo bar'
both "expired" 'ctl old put foo bar'
both "not yet good" 'ctl early put foo bar'
both "revoked" 'ctl revoked put foo bar'
both "whom the client does not trust" 'trust=$pki/other.pem ctl client put foo bar'
both "and does not ask" 'ctl client --insecure-skip-tls-verify put foo bar'
both "clear text on the TLS port" 'etcdctl --endpoints http://127.0.0.1:$port --command-timeout=1s put foo bar'
both "/health by HTTP/1.1" 'get client /health --http1.1'
both "/version by HTTP/1.1" 'get client /version --http1.1'
both "/health without a certificate" 'get - /health'
both "/health of a revoked one" 'get revoked /health'
both "/health by HTTP/2" 'get client /health --http2'
both "/version by HTTP/2" 'get client /version --http2'
both "ALPN h2" 'as_client -alpn h2'
only "ALPN http/1.1" "ALPN protocol: http/1.1" 'as_client -alpn http/1.1 | grep ALPN' # etcd 3.4 names none
only "ALPN both" "ALPN protocol: h2" 'as_client -alpn http/1.1,h2 | grep ALPN'
both "TLS 1.2" 'as_client -tls1_2 -alpn h2'
both "TLS 1.3" 'as_client -tls1_3 -alpn h2'
both "TLS 1.1" 'as_client -tls1_1 -cipher DEFAULT@SECLEVEL=0'
both "TLS 1.0" 'as_client -tls1 -cipher DEFAULT@SECLEVEL=0'
both "an old suite" 'as_client -tls1_2 -cipher NULL-SHA256:DES-CBC3-SHA:@SECLEVEL=0'
only "no ALPN" "No ALPN negotiated" 'as_client | grep ALPN'

check "the refusals are counted" eval '[ "$(curl -s "http://127.0.0.1:$plain_port/metrics" | sed -n "s/^trine_gateway_dropped_total{reason=\"tls\"} //p")" -gt 5 ]'
check "and told" grep -q 'rejected connection on client endpoint from 127.0.0.1' "$tmp/auth.log"
check "no handshake is left over" eval '[ "$(curl -s "http://127.0.0.1:$plain_port/metrics" | sed -n "s/^trine_gateway_tls_handshakes //p")" = 0 ]'

# The server's certificate is for another host.
cp "$pki/server.pem" "$tmp/keep.pem"; cp "$pki/server.key" "$tmp/keep.key"
cp "$pki/elsewhere.key" "$pki/server.key"; cp "$pki/elsewhere.pem" "$pki/server.pem"
both "a server's certificate for another host, read while it runs" 'ctl client put foo bar'
cp "$tmp/keep.key" "$pki/server.key"; cp "$tmp/keep.pem" "$pki/server.pem"
both "the right one again" 'ctl client put foo bar'
openssl ca -batch -config "$pki/ca.cnf" -cert "$pki/ca.pem" -keyfile "$pki/ca.key" -revoke "$pki/named.pem" 2>/dev/null
crl ca
both "revoked while it runs" 'ctl named put foo bar'
both "the others go on" 'ctl client put foo bar'
unpair

# --- host names -----------------------------------------------------------------------------------------
cert ca named client DNS:good.example
pair names --cert-file "$pki/server.pem" --key-file "$pki/server.key" --client-cert-auth --trusted-ca-file "$pki/ca.pem" --client-cert-allowed-hostname good.example
both "a certificate for the host" 'ctl named put foo bar'
both "one for another" 'ctl foreign put foo bar'
both "one for none" 'ctl client put foo bar'
unpair

# --- nobody needs a certificate; suites -------------------------------------------------------------------
pair open --cert-file "$pki/server.pem" --key-file "$pki/server.key" --cipher-suites TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
both "no certificate needed" 'ctl - put foo bar'
both "one that is shown is not looked at" 'ctl stranger put foo bar'
both "a suite of the list" 'hello -tls1_2 -alpn h2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256'
both "a suite that is not" 'hello -tls1_2 -alpn h2 -cipher ECDHE-ECDSA-AES256-GCM-SHA384'
unpair

# --- auto-tls ----------------------------------------------------------------------------------------------
pair auto --auto-tls
both "auto-tls" 'ctl - --insecure-skip-tls-verify put foo bar'
both "not trusted by itself" 'ctl - put foo bar'
both "/health" 'get - /health -k --http1.1'
only "its certificate is kept" "OK" 'trust=$tmp/auto/fixtures/client/cert.pem ctl - put foo bar'
only "for its owner" "600" 'stat -c %a "$tmp/auto/fixtures/client/key.pem"'
before=$(md5sum <"$tmp/auto/fixtures/client/cert.pem")
kill -9 "$(cat "$tmp/auto/gatewayd.pid")"
sleep 0.3
wait_for 20 health "$plain_port"
only "and shown after a restart" "OK" 'trust=$tmp/auto/fixtures/client/cert.pem ctl - put foo bar'
equal "unchanged" "$before" "$(md5sum <"$tmp/auto/fixtures/client/cert.pem")"
unpair

# --- other listeners, other rules (Trine alone) ----------------------------------------------------------
tls_port=$(free_port) plain_port=$(free_port) http_port=$(free_port) metrics_port=$(free_port)
# The runner looks for health on the client port, which serves gRPC only here: started by hand.
mkdir -p "$tmp/split"
"$root/deploy/node.sh" --dir "$tmp/split" --port "$plain_port" --peer-port "$(free_port)" --tls-port "$tls_port" --bin "$build/bin" -- \
    --listen-client-http-urls "https://127.0.0.1:$http_port,unix://$tmp/http.sock,unixs://$tmp/https.sock" --listen-metrics-urls "http://127.0.0.1:$metrics_port" \
    --cert-file "$pki/server.pem" --key-file "$pki/server.key" --client-cert-allowed-cn client --client-cert-auth --trusted-ca-file "$pki/ca.pem" \
    --tls-min-version TLS1.3 >>"$tmp/split.log" 2>&1 &
node_pid=$!
_pids+=($node_pid)
wait_for 20 health "$metrics_port" || { echo "split is not ready:"; tail -30 "$tmp/split.log"; exit 1; }
cert ca somebody somebody ""
trine_port=$tls_port
only "the common name" "OK" 'ctl client put foo bar'
only "another common name" "exit 1" 'ctl somebody put foo bar >/dev/null 2>&1; echo exit $?'
only "TLS 1.3" "ALPN protocol: h2" 'as_client -tls1_3 -alpn h2 | grep ALPN'
only "TLS 1.2" "refused" 'as_client -tls1_2'
only "HTTP is not served where gRPC is" "refused" 'get client /health --http1.1'
equal "nor in clear text" "000" "$(curl -s -m 5 -o /dev/null -w '%{http_code}' "http://127.0.0.1:$plain_port/health")"
equal "clear gRPC" "OK" "$(etcdctl --endpoints "http://127.0.0.1:$plain_port" put foo bar 2>&1)"
trine_port=$http_port
only "but where it is asked for" "200 1.1" 'get client /version --http1.1'
only "with a certificate" "refused" 'get - /version --http1.1'
only "gRPC is not served there" "exit 1" 'ctl client put foo bar >/dev/null 2>&1; echo exit $?'
equal "a socket of the file system" "200" "$(curl -s -m 5 -o /dev/null -w '%{http_code}' --unix-socket "$tmp/http.sock" http://localhost/version)"
equal "with TLS" "200" "$(curl -s -m 5 -o /dev/null -w '%{http_code}' --unix-socket "$tmp/https.sock" --http1.1 --cacert "$pki/ca.pem" --cert "$pki/client.pem" --key "$pki/client.key" https://localhost/version)"
for path in /metrics /health; do
    equal "metrics port: $path" "200" "$(curl -s -m 5 -o /dev/null -w '%{http_code}' "http://127.0.0.1:$metrics_port$path")"
done
for path in /version /v3/kv/range /debug/vars; do
    equal "metrics port: not $path" "404" "$(curl -s -m 5 -o /dev/null -w '%{http_code}' "http://127.0.0.1:$metrics_port$path")"
done
check "gRPC is not served there either" eval '! timeout 5 etcdctl --endpoints "http://127.0.0.1:$metrics_port" --command-timeout=1s put foo bar'
stop_pid "$node_pid"
check "its sockets are gone" eval '[ ! -e "$tmp/http.sock" ] && [ ! -e "$tmp/https.sock" ]'

# --- what is refused at the start -----------------------------------------------------------------------
says() { "$build/bin/gatewayd" -t --data-dir "$tmp/t" --run-dir "$tmp/t" --advertise-client-urls http://h:1 "$@" 2>&1 | sed 's/^[^ ]* *//'; }
check "https without a certificate" eval 'says --listen-client-urls https://127.0.0.1:1 | grep -q "must be provided for client url https://127.0.0.1:1 with HTTPS scheme"'
check "clear text for the network" eval 'says --listen-client-urls http://0.0.0.0:1 | grep -q "say --allow-plaintext=true"'
check "unless it is asked for" "$build/bin/gatewayd" -t --data-dir "$tmp/t" --run-dir "$tmp/t" --advertise-client-urls http://h:1 --listen-client-urls http://0.0.0.0:1 --allow-plaintext=true
check "a host name" eval 'says --listen-client-urls http://node.example:1 | grep -q "expected IP in URL for binding"'
check "suites and TLS 1.3" eval 'says --tls-min-version TLS1.3 --cipher-suites TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 | grep -q "cipher suites cannot be configured when only TLS1.3 is enabled"'
check "no such suite" eval 'says --cipher-suites ROT13 | grep -q "unexpected TLS cipher suite \"ROT13\""'
check "names and host names" eval 'says --client-cert-allowed-cn a --client-cert-allowed-hostname b | grep -q "mutually exclusive"'
check "a certificate that is not there" eval '! timeout 10 "$build/bin/gatewayd" --data-dir "$tmp/t" --run-dir "$tmp/t" --advertise-client-urls http://h:1 --listen-client-urls https://127.0.0.1:$(free_port) --cert-file /nowhere --key-file /nowhere'
summary
