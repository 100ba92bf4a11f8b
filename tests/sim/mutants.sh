#!/usr/bin/env bash
# Plants the bugs of raftd/mutant.h one by one and tells after how many seeds the simulation finds each.
#   tests/sim/mutants.sh BUILD_DIR LIMIT all|NUMBER...       CC, FLAGS, LINK and LIBS come from the Makefile
# A bug that no seed finds may be found by a scenario, whose transcript is then another.
# Only the file that holds the bug is compiled anew; all else is what `make` built. Closes with "N passed, M failed".
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
b=$1 limit=$2
shift 2
out=build/mutants
mkdir -p "$out"

mapfile -t names < <(sed -nE 's/^ *MUTANT_([A-Z_]+),.*/\1/p' raftd/mutant.h)
numbers=("$@")
[ "${1:-all}" != all ] || mapfile -t numbers < <(seq 1 $((${#names[@]} - 1)))

objects=()
while read -r o; do objects+=("$o"); done < <(find "$b/obj/tests/sim" "$b/obj/raftd" -name '*.o' ! -path '*/raftd/main.o' | sort)

found=0 missed=0
printf '%3s  %-24s %-18s %s\n' no mutant file "seeds until found (limit $limit)"
for n in "${numbers[@]}"; do
    name=${names[$n]}
    file=$(grep -lE "MUTATE\($name," raftd/*.c)
    dir=$out/$n
    mkdir -p "$dir"
    # shellcheck disable=SC2086
    if ! $CC $FLAGS -DMUTANT="$n" -c "$file" -o "$dir/$(basename "$file" .c).o" ||
        ! $CC $LINK -o "$dir/sim" "${objects[@]/#$b\/obj\/raftd\/$(basename "$file" .c).o/$dir/$(basename "$file" .c).o}" \
            "$b/lib/libproto.a" "$b/lib/libcommon.a" $LIBS; then
        echo "mutant $n does not build"
        missed=$((missed + 1))
        continue
    fi
    if "$dir/sim" --seeds="$limit" --quiet >"$dir/out" 2>"$dir/err"; then
        if "$dir/sim" --scenario tests/sim/scenarios/*.txt >"$dir/out" 2>&1; then
            what="not found"
            missed=$((missed + 1))
        else
            what="     -   scenario $(sed -nE 's,^tests/sim/scenarios/([a-z0-9_]+)\.txt .*differs,\1,p' "$dir/out" | head -1)"
            found=$((found + 1))
        fi
        printf '%3d  %-24s %-18s %s\n' "$n" "$name" "$(basename "$file")" "$what"
    else
        printf '%3d  %-24s %-18s %6s   %s\n' "$n" "$name" "$(basename "$file")" \
            "$(sed -nE 's/.*: seed ([0-9]+),.*/\1/p' "$dir/out" | sort -n | head -1)" \
            "$({ grep -a '^broken' "$dir/err" || echo "the simulator cannot go on"; } | head -1 | sed -E 's/^broken: seed [0-9]+ at [0-9]+ ms: //' | cut -c1-90)"
        found=$((found + 1))
    fi
done
echo "$found passed, $missed failed"
[ $missed = 0 ]
