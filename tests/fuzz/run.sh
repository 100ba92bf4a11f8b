#!/usr/bin/env bash
# Runs each fuzzer for a while on a copy of its seed corpus and leaves nothing behind but what it found.
#   tests/fuzz/run.sh SECONDS [BIN_DIR=build/fuzz/bin]
# One line per fuzzer, then "N passed, N failed". A crash prints the fuzzer's own report and keeps its input
# below build/fuzz/found, for `BIN_DIR/fuzz_x FILE` to repeat.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
seconds=${1:?usage: tests/fuzz/run.sh SECONDS [BIN_DIR]}
bin=${2:-build/fuzz/bin}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

run_one() {
    local program=$1 name=$2 corpus=$work/$2/corpus log=$work/$2/log
    mkdir -p "$corpus" "$work/$name/found"
    [ -d "tests/fuzz/corpus/$name" ] && cp tests/fuzz/corpus/"$name"/* "$corpus"
    "$program" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$work/$name/found/" "$corpus" >"$log" 2>&1
    local code=$? runs
    runs=$(sed -nE 's/^stat::number_of_executed_units: *([0-9]+)/\1/p' "$log")
    if [ $code = 0 ] && [ "${runs:-0}" -gt 0 ]; then
        printf '%-24s ok, %s runs, %s inputs\n' "$name" "$runs" "$(find "$corpus" -type f | wc -l)"
        passed=$((passed + 1))
        return
    fi
    tail -60 "$log"
    mkdir -p build/fuzz/found
    cp "$work/$name"/found/* build/fuzz/found/ 2>/dev/null
    printf '%-24s FAILED, exit code %d, input in build/fuzz/found\n' "$name" $code
    failed=$((failed + 1))
}

for source in tests/fuzz/fuzz_*.c; do
    name=$(basename "$source" .c)
    if [ -x "$bin/$name" ]; then
        run_one "$bin/$name" "${name#fuzz_}"
    else
        printf '%-24s FAILED, %s is not built: make fuzzers\n' "${name#fuzz_}" "$bin/$name"
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
