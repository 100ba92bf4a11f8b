#!/usr/bin/env bash
# Real clients, unchanged, against etcd and then against Trine: the same checks must pass and the same must fail.
# Each suite runs against a server of its own on 127.0.0.1:2379 of a network namespace of its own.
#
#   tests/clients/run.sh BUILD_DIR [SUITE...]        SUITES: see the table below; default all
#   KEEP=1: leave the logs in place and say where. ETCD=/path/to/etcd: what to compare with; default Debian's.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
build=$(cd "${1:-build}" && pwd); shift
bin=$build/bin
tmp=$(mktemp -d /tmp/trine-clients.XXXXXX)
trap '[ -n "${KEEP:-}" ] && echo "logs: $tmp" >&2 || rm -rf "$tmp"' EXIT

# suite      what it is
suites=(
    "etcd3-py    python3-etcd3 over gRPC C-core: our script"
    "etcd3gw     python3-etcd3gw over JSON: our script"
    "etcd3gw-own python3-etcd3gw of Debian 13: its own tests"
    "tooz-grpc   python3-tooz's coordination tests, etcd3 driver"
    "tooz-json   python3-tooz's coordination tests, etcd3gw driver (with Debian 13's etcd3gw: 12's has no api_path)"
    "node-etcd3  npm etcd3 over grpc-js: our script"
    "curl        curl over HTTP/1.1 and HTTP/2: JSON and streams"
    "h2load      nghttp and h2load: h2c as others speak it"
    "promtool    promtool check metrics, on what three kinds of requests left"
    "patroni     Patroni with three PostgreSQLs on a cluster of three: bootstrap, switchover, kill -9"
)
want=("$@")
[ ${#want[@]} -gt 0 ] || for s in "${suites[@]}"; do want+=("${s%% *}"); done

# Runs inside its own namespace: $1 server (etcd or trine), $2 suite, $3 directory. Never touches the machine's own ports.
inside() {
    local server=$1 suite=$2 dir=$3 pid code
    ip link set lo up || return 1
    if [ "$suite" = patroni ]; then # has servers of its own, and users that must get through
        chmod 755 "$tmp" "$dir"
        timeout 400 "$here/patroni.sh" "$server" "$([ "$server" = etcd ] && dirname "$(command -v "${ETCD:-etcd}")" || echo "$bin")" "$dir" >"$dir/out" 2>&1
        return
    fi
    mkdir -p "$dir/data"
    case $server in
        etcd) "${ETCD:-etcd}" --name default --data-dir "$dir/data" >"$dir/server.log" 2>&1 & ;;
        trine) "$root/deploy/node.sh" --dir "$dir/data" --bin "$bin" >"$dir/server.log" 2>&1 & ;;
    esac
    pid=$!
    for _ in $(seq 100); do
        [ "$(curl -s http://127.0.0.1:2379/health | jq -r .health 2>/dev/null)" = true ] && break
        kill -0 "$pid" 2>/dev/null || { cat "$dir/server.log" >&2; return 1; }
        sleep 0.1
    done
    cd "$dir" || return 1
    case $suite in
        etcd3-py) timeout 300 env PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python /usr/bin/python3 "$here/etcd3_py.py" ;;
        etcd3gw) timeout 300 /usr/bin/python3 "$here/gw.py" ;;
        etcd3gw-own) pytests "$CLIENTS_DIR/etcd3gw" etcd3gw/tests ;;
        tooz-grpc) TOOZ_TEST_URL=etcd3://127.0.0.1:2379 PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python pytests / tooz.tests.test_coordination ;;
        tooz-json) PYTHONPATH=$CLIENTS_DIR/etcd3gw TOOZ_TEST_URL='etcd3+http://127.0.0.1:2379?api_version=v3' pytests / tooz.tests.test_coordination ;;
        node-etcd3) timeout 300 env NODE_PATH="$CLIENTS_DIR/node_modules" node "$here/etcd3.js" ;;
        curl) timeout 300 "$here/curl.sh" ;;
        h2load) timeout 300 "$here/h2load.sh" ;;
        promtool) "$here/promtool.sh" ;;
    esac >"$dir/out" 2>&1
    code=$?
    kill -TERM "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
    return $code
}

# pytest's verdicts as lines "ok NAME" and "not ok NAME".
pytests() { # DIRECTORY TESTS
    local dir=$1 what=$2
    case $what in
        */*) set -- "$dir/$what" ;;
        *) set -- --import-mode=append --pyargs "$what" ;; # its own directory must not come before PYTHONPATH
    esac
    (cd "$dir" && timeout 900 /usr/bin/python3 -m pytest -v -p no:cacheprovider -o timeout=60 "$@" 2>&1) |
        sed -nE 's/^.*::([^ ]+::[^ ]+|[^ ]+) PASSED.*/ok \1/p; s/^.*::([^ ]+::[^ ]+|[^ ]+) (FAILED|ERROR).*/not ok \1/p; s/^.*::([^ ]+::[^ ]+|[^ ]+) SKIPPED.*/skip \1/p; /^E  /p'
}

export -f inside pytests
export root here bin tmp

# What a distribution's packages do not hold ready on disk: npm's package, and Debian 13's python3-etcd3gw with its tests.
prepare() {
    for s in "${want[@]}"; do # curl and h2load need no more than deploy/deps.sh has installed
        case $s in curl | h2load) ;; *) "$here/deps.sh" || return 1; break ;; esac
    done
    export CLIENTS_DIR=${CLIENTS_DIR:-$build/clients}
    mkdir -p "$CLIENTS_DIR"
    case " ${want[*]} " in *" node-etcd3 "*)
        if [ ! -d "$CLIENTS_DIR/node_modules/etcd3" ]; then
            (cd "$CLIENTS_DIR" && npm install --silent --no-audit --no-fund --no-save etcd3@1.1.2) || return 1
        fi ;;
    esac
    case " ${want[*]} " in *" etcd3gw-own "* | *" tooz-json "*)
        [ -d "$CLIENTS_DIR/etcd3gw/etcd3gw" ] || "$here/fetch_etcd3gw.sh" "$CLIENTS_DIR/etcd3gw" || return 1 ;;
    esac
}

count() { grep -c "^$1 " "$2/out" 2>/dev/null || true; }
names() { [ ! -e "$2/out" ] || sed -nE "s/^$1 ([^#]*[^# ]).*/\1/p" "$2/out" | sort; }

prepare || { echo "clients: cannot prepare what they need" >&2; exit 1; }
passed=0 failed=0
printf '%-12s %18s %18s   %s\n' suite "etcd ok/not/skip" "trine ok/not/skip" verdict
for suite in "${want[@]}"; do
    for server in etcd trine; do
        mkdir -p "$tmp/$suite.$server"
        unshare --net $([ "$(id -u)" = 0 ] || echo --map-root-user) bash -c 'inside "$@"' inside "$server" "$suite" "$tmp/$suite.$server"
    done
    e=$tmp/$suite.etcd t=$tmp/$suite.trine
    worse=$(comm -13 <(names "not ok" "$e") <(names "not ok" "$t"))
    gone=$(comm -23 <(names ok "$e") <(names ok "$t"))
    if [ -z "$worse$gone" ] && [ "$(count ok "$t")" -gt 0 ]; then verdict=equal; else verdict="DIFFERS"; fi
    better=$(comm -13 <(names ok "$e") <(names ok "$t") | wc -l)
    [ "$verdict" = equal ] && [ "$better" -gt 0 ] && verdict="equal, and $better more"
    printf '%-12s %18s %18s   %s\n' "$suite" "$(count ok "$e")/$(count 'not ok' "$e")/$(count skip "$e")" \
        "$(count ok "$t")/$(count 'not ok' "$t")/$(count skip "$t")" "$verdict"
    if [ "${verdict#equal}" = "$verdict" ]; then
        sed 's/^/    fails on Trine alone: /' <<<"$worse"
        sed 's/^/    passes on etcd alone: /' <<<"$gone"
        tail -40 "$t/out"
        failed=$((failed + 1))
    fi
    passed=$((passed + $(count ok "$t")))
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
