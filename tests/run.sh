#!/usr/bin/env bash
# Runs what `make check` proves, in order of cost, and closes with one line a person can read.
#   tests/run.sh BUILD_DIR
set -uo pipefail
cd "$(dirname "$0")/.."
b=${1:-build}
passed=0 failed=0
broken=()
log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT

# Criterion's closing line: "[====] Synthesis: Tested: 4 | Passing: 4 | Failing: 0 | Crashing: 0"
unit() {
    local name=$1 out=$log/unit
    timeout 300 "$name" >"$out" 2>&1
    local code=$? line
    line=$(grep -a 'Synthesis: Tested' "$out" | tail -1)
    local p f
    p=$(sed -nE 's/.*Passing: ([0-9]+).*/\1/p' <<<"$line")
    f=$(sed -nE 's/.*Failing: ([0-9]+).*/\1/p' <<<"$line")
    p=${p:-0}; f=${f:-0}
    if [ $code != 0 ] || [ "$p" = 0 ]; then
        cat "$out"
        [ "$f" -gt 0 ] || f=1
        broken+=("$name")
    fi
    printf '%-44s %4d passed, %d failed\n' "${name#"$b"/tests/}" "$p" "$f"
    passed=$((passed + p)); failed=$((failed + f))
}

# A script or program that closes with "N passed, N failed".
suite() {
    local name=$1 out=$log/suite; shift
    timeout 1200 "$@" >"$out" 2>&1
    local code=$? line p f
    line=$(grep -aE '^[0-9]+ passed, [0-9]+ failed' "$out" | tail -1)
    p=$(sed -nE 's/^([0-9]+) passed.*/\1/p' <<<"$line"); f=$(sed -nE 's/.*, ([0-9]+) failed.*/\1/p' <<<"$line")
    p=${p:-0}; f=${f:-0}
    if [ $code = 0 ] && [ "$line" = "0 passed, 0 failed" ] && grep -q '^skipped: ' "$out"; then # it cannot be had here, and says why
        printf '%-44s %s\n' "$name" "$(grep -m1 '^skipped: ' "$out")"
        return
    fi
    if [ $code != 0 ] || [ "$f" != 0 ] || [ "$p" = 0 ]; then
        tail -150 "$out"
        [ "$f" -gt 0 ] || f=1
        broken+=("$name")
    fi
    printf '%-44s %4d passed, %d failed\n' "$name" "$p" "$f"
    passed=$((passed + p)); failed=$((failed + f))
}

for t in "$b"/tests/{common,proto,raftd,stored,gatewayd,selftest}/test_*; do
    [ -x "$t" ] && [ -f "tests/${t#"$b"/tests/}.c" ] && unit "$t"
done
suite "sim (200 seeds)" "$b/bin/sim" --seeds="${SIM_SEEDS:-200}"
suite "sim (scenarios)" "$b/bin/sim" --scenario tests/sim/scenarios/*.txt
suite "sim (five planted bugs)" make --no-print-directory -s mutants MUTANT_SEEDS=100 MUTANTS="1 8 13 26 30"
suite "fuzz (a slice of each)" tests/fuzz/run.sh "${FUZZ_SLICE_SECONDS:-3}"
suite "rpc_table.sh (each rpc has a test)" tests/rpc_table.sh --check
for t in tests/node/test_*.sh; do
    suite "node/$(basename "$t")" "$t" "$b"
done
for t in "$b"/tests/node/test_*; do
    [ -x "$t" ] && [ -f "tests/${t#"$b"/tests/}.c" ] && suite "node/$(basename "$t")" env TRINE_BUILD="$b" "$t"
done
suite "clients (curl and h2load beside etcd)" tests/clients/run.sh "$b" curl h2load
suite "node/kill_loop.sh (short)" env CYCLES="${CHECK_KILL_CYCLES:-30}" tests/node/kill_loop.sh "$b"
suite "node/kill_loop.sh (short, three nodes)" env NODES=3 CYCLES="${CHECK_KILL_CYCLES:-30}" \
    DAEMONS="raftd stored leader gatewayd node" tests/node/kill_loop.sh "$b"
suite "node/kill_cluster.sh (short)" env CYCLES="${CHECK_CLUSTER_KILL_CYCLES:-10}" tests/node/kill_cluster.sh "$b"

[ ${#broken[@]} = 0 ] || printf 'failed: %s\n' "${broken[@]}"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
