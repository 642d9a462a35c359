#!/usr/bin/env bash
# What a machine with a GPU must show: both faces built there, every cuda.* kernel judged by the same
# suite as on the CPU, the bad inputs and small cases under compute-sanitizer, and our kernels timed.
# Needs torch with CUDA, nvcc, cmake, pytest, pytest-benchmark, hypothesis and nox; installs nothing.
#   tools/gpu_check.sh [PROFILE]     records and tables go to $OUT (default: reports)
set -uo pipefail
cd "$(dirname "$0")/.."
profile=${1:-default}
out=${OUT:-reports}
export PYTHONUNBUFFERED=1
failures=0

step() {
    local start=$SECONDS
    printf '\n== %s\n' "$*"
    "$@" || failures=$((failures + 1))
    printf '== %s s\n' $((SECONDS - start))
}
nox() { python3 -m nox --no-venv --no-install "$@"; }
sanitize() { # sanitize TOOL: no report may come out of it
    compute-sanitizer --tool "$1" --target-processes all --error-exitcode 9 \
        python3 -m yaie.cli check --kernel 'cuda.*' --seeds 1 >"$out/$1.log" 2>&1
    tail -n 12 "$out/$1.log"
    grep -q 'ok .*paged_attention' "$out/$1.log" && ! grep -q '========= .*[Ee]rror:' "$out/$1.log" &&
        ! grep -Eq 'ERROR SUMMARY: [1-9]' "$out/$1.log"
}

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
step nox -s build
step nox -s conformance -- --kernel 'cuda.*' --profile "$profile" --records "$out/records" -n 8
export YAIE_EXTENSIONS
YAIE_EXTENSIONS=$(dirname "$(ls build/in-place-*/site/yaie/_cuda*.so)")
step python3 -m benchmarks --kernel 'cuda.[!n]*' --budget 60 --records "$out/timings" --out "$out/bench"
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck synccheck initcheck; do step sanitize "$tool"; done
fi
printf '\n%s steps failed\n' "$failures"
exit $((failures > 0))
