#!/usr/bin/env bash
# The engine on a GPU: the same models and kernels as on the CPU, then the figures of docs/engine.md.
# Needs torch with CUDA and the extension (nox -s build, or YAIE_EXTENSIONS); about 5 minutes of one
# GPU with 40 GB. transformers is the model judge and the rival: where it is not installed, put wheels
# for the Python there into a folder on a machine that has a network,
#   pip download --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64 \
#       --platform manylinux2014_x86_64 -d build/gpu-wheels transformers && rm build/gpu-wheels/numpy-*
# and name the folder: they are unpacked beside it, nothing is installed.
#   WHEELS=build/gpu-wheels tools/gpu_engine.sh [CONFIG]     (default: llama3-8b)
set -uo pipefail
cd "$(dirname "$0")/.."
config=${1:-llama3-8b}
out=${OUT:-reports}
export PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
failures=0

step() {
    local start=$SECONDS
    printf '\n== %s\n' "$*"
    timeout 170 "$@" || failures=$((failures + 1))
    printf '== %s s\n' $((SECONDS - start))
}
bench() {
    step python3 -m yaie.cli engine-bench --config "$config" --random-weights --device cuda \
        --records "$out/engine" "$@"
}

if [ -n "${WHEELS:-}" ]; then
    python3 -m pip install -q --no-index --no-deps --target "$WHEELS.unpacked" "$WHEELS"/*.whl
    export PYTHONPATH=$WHEELS.unpacked${PYTHONPATH:+:$PYTHONPATH}
fi
if [ -z "${YAIE_EXTENSIONS:-}" ]; then
    step python3 -m nox --no-venv --no-install -s build
    YAIE_EXTENSIONS=$(dirname "$(ls build/in-place-*/site/yaie/_cuda*.so)")
    export YAIE_EXTENSIONS
fi
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
# Every cuda kernel in every family against transformers; replay = eager; no synchronisation.
step python3 -m pytest -q -p no:cacheprovider tests/test_engine_device.py \
    tests/test_engine_models.py -k 'cuda or replayed'
# Overhead of a decode step at batch 64: at most 5 %.
bench --requests 64 --prompt-tokens 512 --output-tokens 64 --no-transformers
# First token of an 8k prompt, 90 % of it cached: at least 5 times sooner.
bench --requests 2 --prompt-tokens 8192 --output-tokens 4 --shared 0.9 --no-transformers
# Throughput at batch 32: at least 3 times that of transformers' generate.
bench --requests 32 --prompt-tokens 256 --output-tokens 64 --pages 4096
printf '\n%s steps failed\n' "$failures"
exit $((failures > 0))
