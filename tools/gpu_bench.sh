#!/usr/bin/env bash
# The benchmarks on a machine with a GPU and no network: build, the clock against CUPTI and nvbench,
# then `nox -s bench` whole. Needs torch with CUDA, nvcc, cmake, pytest and pytest-benchmark; wheels of
# what is missing (nox; altair and vl-convert-python for charts; cuda-bench) may lie in a folder.
#   tools/gpu_bench.sh [BUDGET [WHEELS [OPTIONS OF THE BENCH...]]]
# Results go to $OUT (default: reports/gpu): the page, the records, the clock's table, logs.
set -uo pipefail
cd "$(dirname "$0")/.."
budget=${1:-240} wheels=${2:-} out=${OUT:-reports/gpu}
shift $(($# < 2 ? $# : 2))
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
export PYTHONUNBUFFERED=1

if [[ -n $wheels ]]; then
    python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir \
        --target "$work/site" "$wheels"/*.whl || exit 2
    export PYTHONPATH=$work/site${PYTHONPATH:+:$PYTHONPATH}
fi
nox() { python3 -m nox --no-venv --no-install "$@"; }

nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit --format=csv,noheader
SECONDS=0
nox -s build >"$out/build.log" 2>&1 || { tail -n 40 "$out/build.log"; exit 2; }
printf '\n== built in %s s\n' "$SECONDS"

SECONDS=0
timeout 150 python3 -m benchmarks.timing.check --json "$out/clock.json"
printf '\n== clock: exit status %s, %s s\n' $? "$SECONDS"

SECONDS=0
nox -s bench -- --budget "$budget" --records "$work/timings" --out "$work/report" "$@" \
    >"$out/bench.log" 2>&1
status=$?
tail -n 25 "$out/bench.log"
printf '\n== bench: exit status %s, %s s\n' "$status" "$SECONDS"
cp "$work"/report/{bench.html,bench.md,timings.parquet} "$out"
cat "$work"/timings/*/*.jsonl >"$out/records.jsonl"
exit "$status"
