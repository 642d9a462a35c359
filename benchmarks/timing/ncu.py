"""What Nsight Compute says of a row: `python -m benchmarks --ncu`, where ncu is there.

The row's call runs once more in a process of its own under ncu, on one copy of its arguments. The
figures explain a time; they replace none, for ncu replays every kernel at clocks of its own choice.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

TIMEOUT = 120.0
MOST_STALLS = 3
BYTES, BUSY, SECONDS = "dram__bytes.sum", "sm__warps_active", "gpu__time_duration.sum"
STALL, OF_STALL = "smsp__average_warps_issue_stalled_", "_per_issue_active.ratio"
NAME = re.compile(r"(\w+)(?:<[^()]*>)?\(")
METRICS = (BYTES, SECONDS, f"{BUSY}.avg.pct_of_peak_sustained_active")


def available() -> str | None:
    """The path of ncu, if it is there."""
    return shutil.which("ncu")


def profile(op: str, kernel: str, workload: str) -> dict[str, Any]:
    """Achieved bandwidth, occupancy and stall reasons of one call, or an ``error`` in words."""
    target = ["-m", "benchmarks.timing.ncu", op, kernel, workload]
    command = [
        *(str(available()), "--csv", "--page", "raw", "--print-units", "base"),
        *("--profile-from-start", "off", "--section", "WarpStateStats"),
        *("--metrics", ",".join(METRICS), sys.executable, *target),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {TIMEOUT:.0f} s"}
    try:
        return parse(done.stdout)
    except (KeyError, ValueError) as error:
        said = (done.stderr or done.stdout).strip().rpartition("\n")[2]
        return {"error": f"{said or error}"[:300]}


def parse(text: str) -> dict[str, Any]:
    """The figures of one call from ncu's CSV: those of its kernels, weighed by their time.

    Errors: ValueError where no kernel was profiled, KeyError where a metric is missing.
    """
    lines = [line for line in text.splitlines() if line.startswith('"')]
    # Names, then units, then a row for each kernel.
    kernels = list(csv.DictReader(io.StringIO("\n".join(lines))))[1:]
    if not kernels:
        raise ValueError("ncu profiled no kernel")
    launches = [_launch(k) for k in kernels]
    whole = sum(launch["seconds"] for launch in launches)

    def mean(figures: Sequence[float]) -> float:
        shares = (x * launch["seconds"] for x, launch in zip(figures, launches, strict=True))
        return sum(shares) / whole

    stalls = {
        name: mean([launch["stalls"][name] for launch in launches]) for name in _stalls(kernels[0])
    }
    for launch in launches:
        launch["stalls"] = _worst(launch["stalls"])
    return {
        "dram_bytes_per_second": mean([launch["dram_bytes_per_second"] for launch in launches]),
        "occupancy": mean([launch["occupancy"] for launch in launches]),
        "stalls": _worst(stalls),
        "launches": launches,
    }


def _launch(kernel: Mapping[str, str]) -> dict[str, Any]:
    """The figures of one kernel: its name without namespaces and template arguments, its time."""
    found = NAME.search(kernel["Kernel Name"])
    seconds = _number(kernel, SECONDS) * 1e-9
    return {
        "kernel": found[1] if found else kernel["Kernel Name"],
        "seconds": seconds,
        "dram_bytes_per_second": _number(kernel, BYTES) / seconds,
        "occupancy": _number(kernel, METRICS[2]) / 100,
        "stalls": _stalls(kernel),
    }


def _stalls(kernel: Mapping[str, str]) -> dict[str, float]:
    """How many warps wait for each reason at every instruction that is issued."""
    return {
        name.removeprefix(STALL).removesuffix(OF_STALL).replace("_", " "): _number(kernel, name)
        for name in kernel
        if name.startswith(STALL) and name.endswith(OF_STALL)
    }


def _worst(stalls: Mapping[str, float]) -> dict[str, float]:
    return {name: stalls[name] for name in sorted(stalls, key=lambda n: -stalls[n])[:MOST_STALLS]}


def _number(kernel: Mapping[str, str], name: str) -> float:
    return float(kernel[name].replace(",", ""))


def main(argv: Sequence[str] | None = None) -> int:
    """Be the process that ncu looks at: one call of a row, once everything is loaded."""
    cli = argparse.ArgumentParser(prog="python -m benchmarks.timing.ncu")
    for name in ("op", "kernel", "workload"):
        cli.add_argument(name)
    args = cli.parse_args(argv)
    import torch

    from benchmarks.timing import serving
    from benchmarks.timing.inputs import Inputs
    from yaie import kernels, ops

    kernels.load()
    op = ops.get(args.op)
    wanted = [w for w in serving.load() if (w.op, w.name) == (args.op, args.workload)]
    inputs = Inputs(op, wanted[0].case, "cuda", 0, 0)
    (call,) = inputs.rotation(op.kernels[args.kernel]).calls
    call()
    torch.cuda.synchronize()
    torch.cuda.profiler.start()
    call()
    torch.cuda.synchronize()
    torch.cuda.profiler.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
