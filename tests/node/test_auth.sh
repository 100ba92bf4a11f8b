#!/usr/bin/env bash
# Users, roles and permissions: the same etcdctl commands against Debian's etcd and against Trine, same output and exit code. Then what
# only Trine is asked: tokens that outlive kill -9 of the daemons and are good on every member, signed tokens of every
# method, clients that authenticate again by themselves.
#   tests/node/test_auth.sh [BUILD_DIR]
build=$(realpath "${1:-build}")
. "$(dirname "$0")/../lib/node.sh"
export ETCDCTL_API=3

etcd_port=$(free_port)
start_etcd "$tmp/etcd" "$etcd_port" --bcrypt-cost 4 || exit 1
trine_port=$(free_port)
if [ -n "${SELF:-}" ]; then start_etcd "$tmp/trine" "$trine_port" --bcrypt-cost 4; else start_node "$tmp/trine" "$trine_port" --bcrypt-cost 4; fi || exit 1

ctl() { timeout 20 etcdctl --endpoints "http://127.0.0.1:$port" "$@"; }
root() { ctl --user root:pw "$@"; }
as() { local user=$1; shift; ctl --user "$user" "$@"; }
watch_as() { local user=$1; shift; timeout 4 etcdctl --endpoints "http://127.0.0.1:$port" --user "$user" watch "$@"; true; }

normalize() {
    sed -E -e "s/127\.0\.0\.1:$1/ENDPOINT/g" -e 's#localhost:[0-9]+#PEER#g' -e 's#endpoint://client-[0-9a-f-]+/#endpoint://#g' \
        -e 's/"cluster_id":[0-9]+/"cluster_id":C/g; s/"member_id":[0-9]+/"member_id":M/g; s/"raft_term":[0-9]+/"raft_term":T/g' \
        -e 's/took = [^ ]*s/took = D/' -e 's/[A-Za-z]{16}\.[0-9]+/TOKEN/' \
        -e 's/^\{"level":"warn".*"msg":"([^"]*)".*"error":"([^"]*)".*/WARN \1 \2/'
}

# both NAME SNIPPET: runs the shell snippet on each server and compares. It sees `ctl`, `root` and `as`.
both() {
    local name=$1 snippet=$2 a b ca cb
    a=$(port=$etcd_port; eval "$snippet" 2>&1); ca=$?
    b=$(port=$trine_port; eval "$snippet" 2>&1); cb=$?
    a=$(normalize "$etcd_port" <<<"$a"; echo "exit $ca")
    b=$(normalize "$trine_port" <<<"$b"; echo "exit $cb")
    if [ "$a" = "$b" ]; then ok "$name"; else not_ok "$name" "$(diff <(echo "$a") <(echo "$b") | head -30)"; fi
    [ -z "${SHOW:-}" ] || printf '%s\n' "$b" | sed 's/^/      /'
}

# --- while auth is off
both "a password is not asked for" 'as nobody:pw put k v; ctl get k'
both "enable without root" 'ctl auth enable'
both "user add" 'ctl user add root:pw; ctl user add alice:secret; ctl user add bob:secret'
both "user add twice" 'ctl user add alice:other'
both "user add without a name" 'ctl user add :pw'
both "user add without a password" 'ctl user add cert --no-password'
both "user add with an empty password" 'ctl user add empty --new-user-password ""; ctl user get empty'
both "user list" 'ctl user list; ctl user list -w json'
both "user get" 'ctl user get alice; ctl user get alice -w json; ctl user get alice --detail'
both "user get of nobody" 'ctl user get nobody; ctl user get ""'
both "user passwd" 'printf "changed\n" | ctl user passwd bob --interactive=false'
both "user passwd of nobody" 'printf "changed\n" | ctl user passwd nobody --interactive=false'
both "user delete" 'ctl user add gone:pw; ctl user delete gone; ctl user delete gone'
both "role add" 'ctl role add reader; ctl role add writer; ctl role add both; ctl role add open; ctl role add single; ctl role add root'
both "role add twice" 'ctl role add reader'
both "role add without a name" 'ctl role add ""'
both "role list" 'ctl role list; ctl role list -w json'
both "grant permissions" 'ctl role grant-permission reader read r/ r0; ctl role grant-permission writer write w/ --prefix; ctl role grant-permission both readwrite b/ --prefix'
both "grant open and single permissions" 'ctl role grant-permission open read o/ --from-key; ctl role grant-permission single readwrite key'
both "grant again with another type" 'ctl role grant-permission reader readwrite r/ r0; ctl role get reader; ctl role grant-permission reader read r/ r0'
both "permissions are sorted" 'ctl role add sorted; for k in d b c a; do ctl role grant-permission sorted read $k; done; ctl role grant-permission sorted write b bb; ctl role get sorted -w json'
both "role get" 'for r in reader writer both open single; do ctl role get $r; ctl role get $r -w json; done'
both "role get of none" 'ctl role get none'
both "grant what cannot be" 'ctl role grant-permission none read a; ctl role grant-permission reader sometimes a'
both "revoke permissions" 'ctl role revoke-permission sorted a; ctl role revoke-permission sorted b bb; ctl role revoke-permission sorted nothing; ctl role revoke-permission none a; ctl role get sorted'
both "user grant-role" 'ctl user grant-role alice reader; ctl user grant-role alice both; ctl user grant-role alice both; ctl user grant-role bob writer; ctl user grant-role bob sorted'
both "user grant-role that cannot be" 'ctl user grant-role alice none; ctl user grant-role nobody reader'
both "user revoke-role" 'ctl user revoke-role bob sorted; ctl user revoke-role bob sorted; ctl user revoke-role bob none; ctl user revoke-role nobody reader'
both "role delete takes it from users" 'ctl user grant-role bob sorted; ctl role delete sorted; ctl user get bob; ctl role delete sorted'
both "user get --detail" 'ctl user get alice --detail; ctl user get bob --detail'
both "some keys" 'for k in r/1 r/2 w/1 b/1 b/2 o/1 p key secret; do ctl put $k v; done'
both "disable while off" 'ctl auth disable'
both "enable" 'ctl user grant-role root root; ctl auth enable; root auth enable'

# --- who is who
both "no user" 'ctl put k v; ctl get k; ctl del k; ctl user list; ctl role list'
both "a wrong password" 'as root:wrong put k v; as alice:wrong get r/1; as nobody:pw get r/1'
both "a user without a password" 'as cert:pw get r/1'
both "root may" 'root put secret s; root get secret; root user list; root role list'
both "the empty password" 'root user grant-role empty reader; as empty: get r/1'

# --- keys
both "get" 'as alice:secret get r/1; as alice:secret get r/ r0; as alice:secret get b/ --prefix --keys-only'
both "get denied" 'as alice:secret get secret; as alice:secret get r/ r1; as alice:secret get q r0; as alice:secret get --from-key r/; as alice:secret get "" --prefix'
both "get over two adjacent roles" 'root role add upper; root role grant-permission upper read r0 r9; root user grant-role alice upper; as alice:secret get r/ r5; root user revoke-role alice upper; as alice:secret get r/ r5'
both "get serializable" 'as alice:secret get r/1 --consistency=s; as alice:secret get secret --consistency=s'
both "get count-only" 'as alice:secret get b/ --prefix --count-only -w fields | grep Count; as alice:secret get secret --count-only'
both "put" 'as alice:secret put b/3 v; as bob:changed put w/2 v'
both "put denied" 'as alice:secret put r/1 v; as bob:changed put r/1 v; as bob:secret put w/2 v; as alice:secret put "b0" v'
both "put prev-kv needs reading" 'as alice:secret put b/1 w --prev-kv; as bob:changed put w/1 w --prev-kv'
both "put ignore-value" 'as alice:secret put b/1 --ignore-value; as alice:secret put r/1 --ignore-value'
both "del" 'as alice:secret del b/3; as bob:changed del w/2'
both "del denied" 'as alice:secret del r/1; as alice:secret del b/ c; as bob:changed del w/ --prefix --prev-kv; as alice:secret del --from-key b/; root get b/ --prefix --keys-only'
both "from-key permission" 'root user add olga:pw; root user grant-role olga open; as olga:pw get o/ --from-key --keys-only; as olga:pw get --from-key n; as olga:pw get p; as olga:pw get o/ z'
both "single key permission" 'root user add sam:pw; root user grant-role sam single; as sam:pw get key; as sam:pw put key 2; as sam:pw get key keyz; as sam:pw get --prefix key; as sam:pw del key'
both "txn" 'printf "val(\"b/1\") = \"w\"\n\nput b/2 x\nget r/1\n\nget b/1\n\n" | as alice:secret txn'
both "txn denied in the compare" 'printf "val(\"secret\") = \"w\"\n\nput b/2 y\n\n\n\n" | as alice:secret txn'
both "txn denied in the branch taken" 'printf "val(\"b/1\") = \"w\"\n\nput b/2 y\nput r/1 y\n\n\n\n" | as alice:secret txn; root get b/2'
both "txn denied in the other branch" 'printf "val(\"b/1\") = \"w\"\n\nput b/2 z\n\nget secret\n\n" | as alice:secret txn; root get b/2'
both "txn that only reads" 'printf "\n\nget r/1\n\n\n\n" | as alice:secret txn; printf "\n\nget secret\n\n\n\n" | as alice:secret txn'

# --- watches
both "watch" '(sleep 1.5; root put b/live 1; root put b/live 2) >/dev/null & watch_as alice:secret b/live'
both "watch a prefix from history" 'watch_as alice:secret b/ --prefix --rev 2 | head -6'
both "watch denied" 'watch_as alice:secret secret; watch_as alice:secret r/ z; watch_as alice:secret "" --prefix'
both "watch with no user" 'timeout 2 etcdctl --endpoints "http://127.0.0.1:$port" watch b/1; true'
both "one watch denied, the others go on" '(echo "watch secret"; echo "watch b/live"; sleep 2; root put b/live 3 >/dev/null; sleep 1) | timeout 9 etcdctl --endpoints "http://127.0.0.1:$port" --user alice:secret watch -i; true'

# --- leases
with_lease='id=$(root lease grant 100 | cut -d" " -f2); mask() { sed -E "s/$id/ID/g"; }'
both "lease grant" 'as alice:secret lease grant 100 | sed -E "s/[0-9a-f]{16}/ID/"'
both "attach to a lease" "$with_lease"'; as alice:secret put b/l v --lease=$id; as alice:secret lease timetolive $id | mask | sed -E "s/remaining\([0-9]+s\)/R/"; as alice:secret lease revoke $id | mask; root get b/l'

# --- what is root's
both "endpoint health" 'as alice:secret endpoint health; ctl endpoint health; root endpoint health'
both "alarm disarm" 'as alice:secret alarm disarm; root alarm disarm'
both "alarm list" 'as alice:secret alarm list; root alarm list'
both "member add" 'as alice:secret member add x --peer-urls http://localhost:1'
both "member remove" 'as alice:secret member remove 123'
both "member update" 'as alice:secret member update 123 --peer-urls http://localhost:1'
both "member promote" 'as alice:secret member promote 123'
both "users and roles" 'as alice:secret user add x:y; as alice:secret user delete bob; as alice:secret user list; as alice:secret user get bob; as alice:secret user grant-role alice root; as alice:secret user revoke-role bob writer; as alice:secret role add x; as alice:secret role delete reader; as alice:secret role list; as alice:secret role get writer; as alice:secret role grant-permission reader readwrite "" --prefix; as alice:secret role revoke-permission reader r/ r0'
both "oneself" 'as alice:secret user get alice; as alice:secret role get reader'
both "auth enable and disable" 'as alice:secret auth enable; as alice:secret auth disable'
both "the passwords of others" 'printf "new\n" | as alice:secret user passwd bob --interactive=false; printf "new\n" | as alice:secret user passwd alice --interactive=false'
both "root must stay" 'root user delete root; root user revoke-role root root; root role delete root'

# --- changes
both "a new password" 'printf "fresh\n" | root user passwd alice --interactive=false; as alice:secret get r/1; as alice:fresh get r/1'
both "a role is taken away" 'root user revoke-role alice both; as alice:fresh get b/1; as alice:fresh get r/1'
both "a permission is taken away" 'root role revoke-permission reader r/ r0; as alice:fresh get r/1; root role get reader'
both "a deleted user" 'root user delete bob; as bob:changed put w/1 v'
both "a deleted role" 'root role delete single; root user get sam; as sam:pw get key'
both "disable" 'root auth disable; ctl get secret; ctl put k v; ctl auth disable'
both "enable again" 'ctl auth enable; ctl get secret; root get secret; root auth disable'
# etcdctl txn connects, and logs in, before it reads what to do.
again='(sleep 1; root auth disable >/dev/null; ctl auth enable >/dev/null; printf "\n\nput k again\nget k\n\n\n\n") | root txn'
both "a client whose token was dropped logs in again by itself" "ctl auth enable; $again; root auth disable"
[ -z "${SELF:-}" ] || { summary; exit; }

# --- what is stricter than in etcd 3.4 (spec/semantics.md §11, §14), and what only Trine is asked ------------------------
port=$trine_port
denied='etcdserver: permission denied'
# says NAME TEXT COMMAND...: its output has the text in it.
says() {
    local name=$1 text=$2 out; shift 2
    out=$("$@" 2>&1)
    if [[ $out == *"$text"* ]]; then ok "$name"; else not_ok "$name" "wanted: $text
got:    $out"; fi
}
quiet() { "$@" >/dev/null 2>&1; }

says "an interval that is none" "etcdserver: invalid auth management" ctl role grant-permission reader read z a
says "role root may everything" "KV Write" ctl role get root
quiet ctl role grant-permission reader read r/ r0
quiet ctl user grant-role alice both
quiet ctl auth enable
says "a lease needs a user" "etcdserver: user name is empty" ctl lease grant 10
says "compaction needs a user" "etcdserver: user name is empty" ctl compaction 3
id=$(root lease grant 100 | cut -d' ' -f2)
quiet root put secret/l v --lease="$id"
says "the keys of a lease are only for who may read them" "$denied" as alice:fresh lease timetolive "$id" --keys
says "its time is for everybody" "granted with TTL" as alice:fresh lease timetolive "$id"
says "the list of leases is for who may read all their keys" "$denied" as alice:fresh lease list
says "keep-alive is for who may write its keys" "$denied" as alice:fresh lease keep-alive --once "$id"
says "revoke too" "$denied" as alice:fresh lease revoke "$id"
says "root may" "keepalived" root lease keep-alive --once "$id"
says "root may revoke" "revoked" root lease revoke "$id"
for command in "compaction 3" defrag "endpoint hashkv" "snapshot save $tmp/no" "move-leader 123"; do
    # shellcheck disable=SC2086
    says "$command is root's" "$denied" as alice:fresh $command
done
says "root may compact" "compacted revision 3" root compaction 3
says "root may defragment" "Finished defragmenting" root defrag
says "root may move the leader, if he could" "etcdserver: bad leader transferee" root move-leader 123
says "member list needs a user" "etcdserver: user name is empty" ctl member list
says "status too" "etcdserver: user name is empty" ctl endpoint status
says "any user may see the members" "started" as alice:fresh member list
says "/health needs nobody" '"health":"true"' curl -fsS "http://127.0.0.1:$port/health"

# --- tokens -------------------------------------------------------------------------------------------------------------
# json PORT PATH BODY [TOKEN]: the answer of the JSON gateway.
json() { curl -sS -m 10 ${4:+-H "Authorization: $4"} "http://127.0.0.1:$1/v3/$2" -d "$3"; }
login() { json "$1" auth/authenticate "{\"name\":\"$2\",\"password\":\"$3\"}" | sed -nE 's/.*"token": ?"([^"]*)".*/\1/p'; }
b64() { printf %s "$1" | base64 -w0; }
says "a permission without a key" "etcdserver: invalid auth management" json "$port" auth/role/grant '{"name":"reader","perm":{"range_end":"YQ=="}}' "$(login "$port" root pw)"
says "no permission at all" "etcdserver: permission not given" json "$port" auth/role/grant '{"name":"reader"}' "$(login "$port" root pw)"
get_with() { json "$1" kv/range "{\"key\":\"$(b64 "$3")\"}" "$2"; } # PORT TOKEN KEY

token=$(login "$port" alice fresh)
check "a token is 16 letters and an index" grep -qE '^[A-Za-z]{16}\.[0-9]+$' <<<"$token"
says "it is good" '"kvs"' get_with "$port" "$token" r/1
says "with Bearer too" '"kvs"' get_with "$port" "Bearer $token" r/1
says "not for everything" "$denied" get_with "$port" "$token" secret
says "a made-up one is not" "etcdserver: invalid auth token" get_with "$port" AbCdEfGhIjKlMnOp.12 r/1
says "none is not" "etcdserver: user name is empty" get_with "$port" "" r/1
for daemon in gatewayd stored raftd; do
    kill -9 "$(cat "$tmp/trine/$daemon.pid")"
    wait_for 20 health "$port" || not_ok "the node is back after kill -9 of $daemon"
    says "the token outlives kill -9 of $daemon" '"kvs"' get_with "$port" "$token" r/1
done
quiet root user grant-role sam reader
says "and changes of others" '"kvs"' get_with "$port" "$token" r/1
printf 'newest\n' | root user passwd alice --interactive=false >/dev/null
says "but not a new password" "etcdserver: invalid auth token" get_with "$port" "$token" r/1
token=$(login "$port" sam pw)
quiet root user delete sam
says "nor the end of its user" "etcdserver: invalid auth token" get_with "$port" "$token" r/1
token=$(login "$port" alice newest)
quiet root auth disable
quiet ctl auth enable
says "nor that auth was off" "etcdserver: invalid auth token" get_with "$port" "$token" r/1

# Streams of JSON lines: what gRPC tells, they tell.
token=$(login "$port" alice newest)
watch_json() { timeout 3 curl -sSN -H "Authorization: $1" "http://127.0.0.1:$port/v3/watch" -d "{\"create_request\":{\"key\":\"$(b64 "$2")\",\"start_revision\":\"3\"}}"; }
says "a watch by JSON" '"created":true' watch_json "$token" b/stream
says "one that is not allowed" 'desc = etcdserver: permission denied' watch_json "$token" secret
says "one with a bad token" 'desc = etcdserver: invalid auth token' watch_json AbCdEfGhIjKlMnOp.1 b/stream

# The native door knows no users: with auth on it is closed.
tri() { timeout 10 "$build/bin/trinectl" --url "ipc://$tmp/trine/sock/native.ipc" "$@" 2>&1; }
for command in "get r/1" "put r/1 v" "endpoint status" "member list" "watch --rev 1 r/1" "lease list"; do
    # shellcheck disable=SC2086
    says "the native door: $command" "user name is empty" tri $command
done

# A gateway that has started while stored is away does not know yet that auth is on: nobody comes in for that.
stored=$(cat "$tmp/trine/stored.pid")
kill -STOP "$stored"
kill -9 "$(cat "$tmp/trine/gatewayd.pid")"
wait_for 20 curl -fsS -m 2 "http://127.0.0.1:$port/version" >/dev/null
curl -sSN -m 6 "http://127.0.0.1:$port/v3/watch" -d '{"create_request":{"key":"AA==","range_end":"AA==","start_revision":"3"}}' >"$tmp/nobody" 2>/dev/null &
watcher=$!
ctl member add nobody --peer-urls=http://127.0.0.1:1 --learner >"$tmp/added" 2>&1 &
adder=$!
ctl member list >"$tmp/listed" 2>&1 &
lister=$!
sleep 1
says "the native door is closed then" "sibling daemon not reachable" tri member list
kill -CONT "$stored"
wait $adder; wait $lister; wait $watcher
says "who is nobody adds no member meanwhile" "user name is empty" cat "$tmp/added"
says "nor is told the members" "user name is empty" cat "$tmp/listed"
says "nor watches" "user name is empty" cat "$tmp/nobody"
wait_for 20 health "$port" >/dev/null

# A stream that was there before goes on; what it asks for anew is asked by who its token says he is now.
(sleep 1.5; root put b/stream 1; root role add later; root put b/stream 2) >/dev/null 2>&1 &
says "a watch goes on while users change" "b/stream
2" timeout 5 etcdctl --endpoints "http://127.0.0.1:$port" --user alice:newest watch b/stream
wait $!

# Who stands in line stays who he is while others change, but not when his password does.
quiet root role grant-permission reader readwrite line/ line0
lock() { json "$port" lock/lock "{\"name\":\"$(b64 "$2")\"}" "$1"; } # TOKEN NAME
held=$(lock "$(login "$port" root pw)" line/x | sed -nE 's/.*"key": ?"([^"]*)".*/\1/p')
lock "$(login "$port" alice newest)" line/x >"$tmp/waits" 2>&1 &
waiter=$!
sleep 0.5
quiet root role add while_waiting
root del "$(base64 -d <<<"$held")" >/dev/null
wait $waiter
says "a lock is waited for while users change" '"key"' cat "$tmp/waits"
held=$(sed -nE 's/.*"key": ?"([^"]*)".*/\1/p' "$tmp/waits")
lock "$(login "$port" alice newest)" line/x >"$tmp/waits" 2>&1 &
waiter=$!
sleep 0.5
printf 'other\n' | root user passwd alice --interactive=false >/dev/null
root del "$(base64 -d <<<"$held")" >/dev/null
wait $waiter
says "but not with a password of before" "etcdserver: invalid auth token" cat "$tmp/waits"
printf 'newest\n' | root user passwd alice --interactive=false >/dev/null

# A bcrypt hash that somebody made elsewhere: of "imported", by htpasswd.
hash=$(b64 '$2y$05$Cz1LsAwpiMnFLcyHqFXHQeHhMqKlKSJ5u0Ac1CcmzpXvfIVqRmsum')
token=$(login "$port" root pw)
says "a user with a bcrypt hash" '"header"' json "$port" auth/user/add "{\"name\":\"import\",\"hashedPassword\":\"$hash\"}" "$token"
says "a hash that is none" "auth: authentication failed" json "$port" auth/user/add '{"name":"x","hashedPassword":"JDJh"}' "$token"

# --- all members of a cluster -------------------------------------------------------------------------------------------
if trio_start --bcrypt-cost 4; then
    quiet trio_ctl 1 user add root:pw; quiet trio_ctl 1 user grant-role root root; quiet trio_ctl 1 auth enable
    quiet trio_ctl 2 --user root:pw put k v
    for made in 1 2 3; do
        token=$(login "$(trio_port $made)" root pw)
        for used in 1 2 3; do
            says "a token of member $made on member $used" '"kvs"' get_with "$(trio_port $used)" "$token" k
        done
    done
    leader=$(ETCDCTL_USER=root:pw trio_leader)
    trio_kill "${leader:-1}"
    other=$((${leader:-1} % 3 + 1))
    wait_for 20 trio_ctl $other --user root:pw get k
    says "the token outlives the leader" '"kvs"' get_with "$(trio_port $other)" "$token" k
    for n in 1 2 3; do stop_pid "${trio_runner[$n]}"; done
else
    not_ok "three members start"
fi

# --- names in certificates ----------------------------------------------------------------------------------------------
pki=$tmp/pki; mkdir "$pki"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$pki/ca.key" -out "$pki/ca.pem" -days 2 -subj /CN=ca 2>/dev/null
cert() { # NAME CN SAN
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$pki/$1.key" -out "$pki/$1.csr" -subj "/CN=$2" 2>/dev/null
    openssl x509 -req -in "$pki/$1.csr" -CA "$pki/ca.pem" -CAkey "$pki/ca.key" -CAcreateserial -days 2 -out "$pki/$1.pem" \
        -extfile <(echo "subjectAltName=$3") 2>/dev/null
}
cert server node IP:127.0.0.1
cert alice alice DNS:alice
cert carol carol DNS:carol
tls_port=$(free_port) port=$(free_port)
start_node "$tmp/tls" "$port" --bcrypt-cost 4 --cert-file "$pki/server.pem" --key-file "$pki/server.key" --trusted-ca-file "$pki/ca.pem" --client-cert-auth
for c in "user add root:pw" "user grant-role root root" "user add alice --no-password" "role add r" "role grant-permission r readwrite a" \
    "user grant-role alice r" "put a v" "put b v" "auth enable"; do
    # shellcheck disable=SC2086
    quiet ctl $c
done
by() { local who=$1; shift; timeout 20 etcdctl --endpoints "https://127.0.0.1:$tls_port" --cacert "$pki/ca.pem" --cert "$pki/$who.pem" --key "$pki/$who.key" "$@"; }
says "a certificate's name is the user" "v" by alice get a --print-value-only
says "with his permissions" "$denied" by alice get b
says "a name that is no user's" "$denied" by carol get a
says "a password goes before the certificate" "v" by alice --user root:pw get b --print-value-only
says "a watch by certificate" "$denied" by alice watch b
says "in clear text there is no name" "etcdserver: user name is empty" ctl get a
says "the JSON gateway knows no names" "CommonName of client sending a request against gateway will be ignored" \
    curl -sS --http1.1 --cacert "$pki/ca.pem" --cert "$pki/alice.pem" --key "$pki/alice.key" "https://127.0.0.1:$tls_port/v3/kv/range" -d '{"key":"YQ=="}'
quiet root role add another
says "changes of users are no matter" "v" by alice get a --print-value-only
stop_pid "$node_pid"
tls_port=

# --- signed tokens ------------------------------------------------------------------------------------------------------
keys=$tmp/keys; mkdir "$keys"
openssl genrsa -traditional -out "$keys/rsa.key" 2048 2>/dev/null && openssl rsa -in "$keys/rsa.key" -pubout -out "$keys/rsa.pub" 2>/dev/null
for curve in prime256v1 secp384r1 secp521r1; do
    openssl ecparam -name $curve -genkey -noout -out "$keys/$curve.key" && openssl ec -in "$keys/$curve.key" -pubout -out "$keys/$curve.pub" 2>/dev/null
done
openssl genpkey -algorithm ed25519 -out "$keys/ed.key" && openssl pkey -in "$keys/ed.key" -pubout -out "$keys/ed.pub"
head -c 32 /dev/urandom >"$keys/hs.key"; cp "$keys/hs.key" "$keys/hs.pub"

jwt_port=$(free_port)
signs_with() { # METHOD KEY: the node of $tmp/jwt under this method
    start_node "$tmp/jwt" "$jwt_port" --bcrypt-cost 4 --auth-token "jwt,pub-key=$keys/$2.pub,priv-key=$keys/$2.key,sign-method=$1,ttl=10m" || return 1
    port=$jwt_port
    if [ "$1" = RS256 ]; then
        for c in "user add root:pw" "user grant-role root root" "put k v" "auth enable"; do
            # shellcheck disable=SC2086
            quiet ctl $c
        done
    fi
    says "$1: etcdctl" "v" ctl --user root:pw get k --print-value-only
    token=$(login "$port" root pw)
    equal "$1: the token's header" "{\"alg\":\"$1\",\"typ\":\"JWT\"}" "$(cut -d. -f1 <<<"$token" | tr _- /+ | base64 -d 2>/dev/null)"
    says "$1: the token is good" '"kvs"' get_with "$port" "$token" k
    says "$1: cut it is not" "etcdserver: invalid auth token" get_with "$port" "${token%??}" k
}
for pair in RS256:rsa PS384:rsa ES256:prime256v1 ES384:secp384r1 ES512:secp521r1 EdDSA:ed HS256:hs; do
    signs_with "${pair%:*}" "${pair#*:}"
    [ "$pair" != HS256:hs ] || break
    stop_pid "$node_pid"
done
# Old by revision: any change of users makes it so. etcdctl authenticates again by itself.
old=$(login "$port" root pw)
quiet root role add another
says "a signed token of before a change is old" "etcdserver: revision of auth store is old" get_with "$port" "$old" k
says "another method's token" "etcdserver: invalid auth token" get_with "$port" "eyJhbGciOiJub25lIn0.eyJ1c2VybmFtZSI6InJvb3QiLCJyZXZpc2lvbiI6OTk5fQ." k
got=$( (sleep 1; root role add yet-another >/dev/null; printf '\n\nput k again\nget k\n\n\n\n') | root txn 2>&1)
says "etcdctl logs in again after it" SUCCESS echo "$got"
stop_pid "$node_pid"
out=$("$build/bin/gatewayd" --data-dir "$tmp/no" --run-dir "$tmp/no" --auth-token "jwt,pub-key=$keys/no,sign-method=RS256" 2>&1)
equal "keys are looked at before the start" 1 $?
says "and said what is wrong with them" "$keys/no cannot be read" echo "$out"
out=$("$build/bin/gatewayd" --data-dir "$tmp/no" --run-dir "$tmp/no" --auth-token "magic" 2>&1)
says "an auth-token of no kind" "auth-token" echo "$out"

summary
