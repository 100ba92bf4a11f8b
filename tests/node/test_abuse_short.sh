#!/usr/bin/env bash
# The suite of `make abuse`, each abuse for less than a second: what is left over is judged, times are not.
#   tests/node/test_abuse_short.sh [BUILD_DIR]
build=${1:-build}
exec env TRINE_BUILD="$build" "$build/bin/trine-abuse" --short
