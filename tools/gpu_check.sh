#!/usr/bin/env bash
# What a machine with a GPU must show: both faces built there, and every cuda.* kernel judged by the
# same suite as on the CPU. Needs torch with CUDA, nvcc, cmake and nox; installs nothing.
#   tools/gpu_check.sh [PROFILE]     records go to $OUT/records (default: reports/records)
set -uo pipefail
cd "$(dirname "$0")/.."
profile=${1:-default}
records=${OUT:-reports}/records
export PYTHONUNBUFFERED=1
status=0

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
run() {
    local start=$SECONDS
    echo "== $*"
    "$@" || status=1
    echo "== $((SECONDS - start)) s"
}
nox() { python3 -m nox --no-venv --no-install "$@"; }

run nox -s build
run nox -s conformance -- --kernel 'cuda.*' --profile "$profile" --records "$records"
run nox -s conformance -- --kernel 'simt.*' --profile quick --records "$records"
exit "$status"
