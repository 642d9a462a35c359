"""How fast cases are judged: `python -m benchmarks.judging [--kernel GLOB]`.

For each op and kernel the median over a fixed list of small Cases (workloads/small_cases.txt) of
the processor time to judge one: drawn into memory, filled, run twice in the worker, compared with
the oracle. The times of the judge and of its worker are added, so the figure is cases a second and
core, whatever else the machine is doing.
"""

from __future__ import annotations

import argparse
import fnmatch
import statistics
import time
from pathlib import Path

import torch

from benchmarks.timing.cpu import python_speed
from yaie import ops
from yaie.check import Judge
from yaie.dispatch import nearest
from yaie.kernels import native
from yaie.op import Kernel, Op

CASES = Path(__file__).parent / "workloads" / "small_cases.txt"
REPEATS = 5


def small_cases(op: Op) -> list[object]:
    """The op's Cases of the list."""
    lines = CASES.read_text().splitlines()
    return [op.parse_case(line) for line in lines if line.startswith(f"{op.name}.")]


def _processor_seconds(judge: Judge) -> float:
    """Processor time so far of this process and of the worker (Linux names another process's clock
    by its inverted id)."""
    worker_clock = (~judge.worker_pid << 3) | 2
    return time.process_time() + time.clock_gettime(worker_clock)


def seconds_a_case(judge: Judge, op: Op, kernel: Kernel) -> float:
    """Median over the list of the best of a few tries at each case."""
    times = []
    judge.judge(op, kernel, op.good)  # starts the worker
    for case in small_cases(op):
        tries = []
        for _ in range(REPEATS):
            start = _processor_seconds(judge)
            verdict = judge.judge(op, kernel, case)
            tries.append(_processor_seconds(judge) - start)
        if verdict.status == "unsupported":
            continue
        if not verdict.ok:
            raise SystemExit(f"{op.name} {kernel.name} {case!r}: {verdict.reason}")
        times.append(min(tries))
    return statistics.median(times)


def chosen(glob: str) -> list[tuple[Op, Kernel]]:
    """The kernels of the glob whose ops have small Cases; ValueError, in words, for none."""
    served = [
        (op, kernel) for op in ops.OPS.values() if small_cases(op) for kernel in op.kernels.values()
    ]
    fitting = [row for row in served if fnmatch.fnmatchcase(row[1].name, glob)]
    if fitting:
        return fitting
    if glob.startswith("simt.") and native.extension("simt") is None:
        raise ValueError("the extension yaie._simt is not built: run `nox -s build`")
    hint = nearest(glob, sorted({kernel.name for _, kernel in served}))
    raise ValueError(f"no kernel fits --kernel {glob}{hint}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kernel", default="simt.*", metavar="GLOB", help="default: simt.*")
    args = parser.parse_args()
    torch.set_num_threads(1)
    try:
        rows = chosen(args.kernel)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    print("(in brackets: seconds that ten million additions in Python took just before)")
    with Judge() as judge:
        for op, kernel in rows:
            speed, rate = python_speed(), 1 / seconds_a_case(judge, op, kernel)
            print(
                f"{op.name:18} {kernel.name:18} {rate:6.0f} cases a second and core ({speed:.2f})"
            )


if __name__ == "__main__":
    main()
