"""What checking costs: `python -m benchmarks.simt_cost --plain FOLDER --checked FOLDER`.

For two builds of the extension (folders with `_simt`): the median over the fixed list of small
Cases (workloads/small_cases.txt) of each kernel's time, how much slower the checked build is, and
how many cases a second and core are judged with each. Times are processor time, the least of a few
tries, so what else the machine does matters little. `--accesses PROGRAM` also runs the benchmark
program of csrc/simt/tests, checked build, which prints what one access costs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

REPEATS = 5


def measure() -> None:
    """In a process of its own: seconds of the kernel and of judging, for each kernel and case."""
    import torch

    from benchmarks.judging import seconds_a_case, small_cases
    from yaie import kernels, ops
    from yaie.arena import Arena
    from yaie.check import Judge
    from yaie.fill import Fill

    torch.set_num_threads(1)
    kernels.load()
    rows = {}
    with Judge() as judge:
        for op in ops.OPS.values():
            cases = small_cases(op)
            for kernel in op.kernels.values() if cases else ():
                if not kernel.name.startswith("simt."):
                    continue
                seconds = []
                for case in cases:
                    args, options = op.inputs(case, Fill(Arena(1 << 26), case.seed))
                    call = op.bind(**args, **options)
                    if kernel.declines(call) is None:
                        seconds.append(_least(partial(kernel.run, **call.args, **call.options)))
                rows[f"{op.name} {kernel.name}"] = (
                    statistics.median(seconds),
                    1 / seconds_a_case(judge, op, kernel),
                )
    print(json.dumps(rows))


def _least(run: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def measured(folder: Path) -> dict[str, tuple[float, float]]:
    """The figures of one build."""
    env = {**os.environ, "YAIE_EXTENSIONS": str(folder.resolve())}
    command = [sys.executable, "-m", "benchmarks.simt_cost", "--measure"]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    rows: dict[str, tuple[float, float]] = json.loads(done.stdout.splitlines()[-1])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--plain", type=Path, metavar="FOLDER", help="the plain build's _simt")
    parser.add_argument("--checked", type=Path, metavar="FOLDER", help="the checked build's _simt")
    parser.add_argument("--accesses", type=Path, metavar="PROGRAM", help="csrc/simt's benchmark")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure()
        return
    if not (args.plain and args.checked):
        parser.error("--plain and --checked are needed")
    plain, checked = measured(args.plain), measured(args.checked)
    print(f"{'':34} {'kernel, us':>17} {'':9} {'cases/s and core':>17}")
    print(f"{'':34} {'plain':>8} {'checked':>8} {'slower':>9} {'plain':>8} {'checked':>8}")
    for name, (seconds, rate) in plain.items():
        slow, slow_rate = checked[name]
        print(
            f"{name:34} {seconds * 1e6:8.0f} {slow * 1e6:8.0f} {slow / seconds:8.1f}x"
            f" {rate:8.0f} {slow_rate:8.0f}"
        )
    if args.accesses:
        subprocess.run([args.accesses, "accesses"], check=True)


if __name__ == "__main__":
    main()
