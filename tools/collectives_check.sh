#!/usr/bin/env bash
# On a machine with a GPU and nvcc: the executor's tests of warp primitives, barriers, atomics, math
# and collectives as programs of that GPU. They compare with plain computations that the host bodies
# meet to the bit (pytest tests/test_simt_executor.py), so what passes here is the hardware agreeing
# with the host. Prints each program's checks, with a table of matrix products, then one line each.
#   tools/collectives_check.sh [FOLDER]     programs are built in FOLDER (default: build/collectives)
set -uo pipefail
cd "$(dirname "$0")/.."
folder=${1:-build/collectives}
mkdir -p "$folder"
report=()
failures=0

command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
for test in warp barriers atomics intrinsics kernels collectives; do
    printf '\n== %s\n' "$test"
    verdict=ok
    nvcc -std=c++17 -O2 -arch=native --expt-relaxed-constexpr -I csrc/simt/include \
        "csrc/simt/tests/${test}_test.cu" -o "$folder/${test}_test" &&
        "$folder/${test}_test" || verdict=FAILED failures=$((failures + 1))
    report+=("$(printf '%-12s %s' "$test" "$verdict")")
done
printf '\n'
printf '%s\n' "${report[@]}"
exit $((failures > 0))
