"""No finding on correct kernels: `YAIE_EXTENSIONS=FOLDER python -m conformance.silence --cases N`.

Judges every ``simt.*`` kernel, with the checked build of the executor in FOLDER (`nox -s sanitize`
builds it), on Cases of the conformance strategies until N were judged in all. Cases come in chunks,
each drawn from a seed of its own; ``--jobs`` processes judge those of several kernels at a time.
What is done stands in a file, for this build, so that a run goes on where the last one stopped.
Ends with status 1 at the first fault, and prints it; 2 is wrong usage.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from hypothesis import reject

from conformance import strategies
from yaie import kernels, ops
from yaie.check import Judge
from yaie.command.arguments import positive
from yaie.dispatch import nearest
from yaie.op import Kernel, Op
from yaie.record import explain

CHUNK = 25
"""Cases of one kernel that one seed draws."""


@dataclass
class Progress:
    """What one kernel has behind it: chunks, and cases judged in them."""

    chunks: int = 0
    judged: int = 0


class Log:
    """The progress of all kernels under one build, in a file."""

    def __init__(self, path: Path, build: str) -> None:
        self._path, self._build = path, build
        self.of: dict[str, Progress] = {}
        if path.exists():
            stored = json.loads(path.read_text())
            if stored["build"] == build:
                self.of = {name: Progress(**row) for name, row in stored["kernels"].items()}

    def add(self, name: str, judged: int) -> None:
        """One more chunk of a kernel is done. The file is whole at every moment."""
        progress = self.of[name]
        progress.chunks += 1
        progress.judged += judged
        self._path.parent.mkdir(parents=True, exist_ok=True)
        rows = {name: asdict(progress) for name, progress in self.of.items()}
        text = json.dumps({"build": self._build, "kernels": rows}, indent=1)
        beside = self._path.with_suffix(".new")
        beside.write_text(text)
        beside.replace(self._path)

    @property
    def judged(self) -> int:
        """Cases of all kernels."""
        return sum(progress.judged for progress in self.of.values())


def chosen(glob: str) -> Iterator[str]:
    """ "op kernel" of each of the executor's kernels that fits the glob."""
    for op in ops.OPS.values():
        for kernel in op.kernels:
            name = f"{op.name} {kernel}"
            if kernel.startswith("simt.") and fnmatch.fnmatchcase(name, glob):
                yield name


def judge_chunk(judge: Judge, op: Op, kernel: Kernel, chunk: int) -> int:
    """Cases judged in one chunk; AssertionError with the fault, unshrunk, if there is one."""
    judged = 0

    def check(case: Any) -> None:
        nonlocal judged
        verdict = judge.judge(op, kernel, case)
        assert verdict.ok, explain(op, kernel, case, verdict)
        if verdict.status == "unsupported":
            reject()
        judged += 1

    strategies.feed(check, op.name, CHUNK, chunk)
    return judged


judge: Judge
"""That of a process that judges chunks."""


def _begin() -> None:
    """What such a process does first."""
    global judge
    kernels.load()
    torch.set_num_threads(1)
    judge = Judge()


def _chunk(name: str, number: int) -> int:
    """In such a process: the cases judged in chunk ``number`` of "op kernel"."""
    op, kernel = name.split()
    return judge_chunk(judge, ops.get(op), ops.get(op).kernels[kernel], number)


class Ticker:
    """Tells how far the run is: on one line of a terminal, else now and then on a new one."""

    def __init__(self, wanted: int, before: int) -> None:
        self._wanted, self._before = wanted, before
        self._start = self._told = time.monotonic()
        self._line = sys.stderr.isatty()

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._start

    def tell(self, judged: int) -> None:
        """So many cases are judged now."""
        now = time.monotonic()
        if now - self._told < (0.5 if self._line else 30.0):
            return
        self._told = now
        rate = (judged - self._before) / self.seconds
        text = f"{judged} of {self._wanted} cases, {rate:.1f} a second"
        if rate:
            text += f", {(self._wanted - judged) / rate / 60:.0f} min left"
        if self._line:
            print(f"\r{text}\033[K", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the line."""
        if self._line:
            print(file=sys.stderr)


def judge_all(names: Sequence[str], log: Log, cases: int, seconds: float, jobs: int) -> None:
    """Judge until ``cases`` were, or for so long; the kernel with the fewest first. A kernel has
    one chunk under way at a time, so that those done are the first ones."""
    ticker = Ticker(cases, log.judged)
    running: dict[Future[int], str] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_begin) as pool:
        while True:
            busy = set(running.values())
            idle = [name for name in names if name not in busy]
            idle.sort(key=lambda name: log.of[name].judged)
            for name in idle[: jobs - len(running)]:
                expected = log.judged + CHUNK * len(running)
                if expected < cases and ticker.seconds < seconds:
                    running[pool.submit(_chunk, name, log.of[name].chunks)] = name
            if not running:
                break
            for done in wait(running, timeout=1.0, return_when=FIRST_COMPLETED).done:
                log.add(running.pop(done), done.result())
            ticker.tell(log.judged)
    ticker.end()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m conformance.silence",
        description="Judges the kernels with the checked build of the executor, until so many "
        "cases were judged in all: no case may fail. A run goes on where the last one with the "
        "same build stopped.",
        epilog="Exit status: 0 no fault; 1 a fault; 2 wrong usage.",
    )
    parser.add_argument(
        "--cases", type=positive, default=10_000, metavar="N",
        help="in all, earlier runs included (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--kernel", default="*", metavar="GLOB", help='of "op kernel" (all)')
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), metavar="M",
        help="stop after these (default: no limit)",
    )  # fmt: skip
    parser.add_argument(
        "--log", type=Path, default=Path("build/silence.json"), metavar="FILE",
        help="what each kernel has behind it, for the next run to go on from (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", type=positive, default=len(os.sched_getaffinity(0)), metavar="N",
        help="processes (one a core: %(default)s)",
    )  # fmt: skip
    return parser


def main() -> int:
    """Judge until enough cases were judged."""
    parser = _parser()
    args = parser.parse_args()
    kernels.load()
    executor = kernels.native.extension("simt")
    if not getattr(executor, "checked", False):
        parser.error("YAIE_EXTENSIONS must name a checked build (nox -s sanitize makes one)")
    log = Log(args.log, str(getattr(executor, "build_id", "")))
    names = list(chosen(args.kernel))
    if not names:
        hint = nearest(args.kernel, list(chosen("*")))
        parser.error(f"no kernel fits --kernel {args.kernel}{hint}")
    for name in names:
        log.of.setdefault(name, Progress())
    try:
        judge_all(names, log, args.cases, 60 * args.minutes, args.jobs)
    except AssertionError as fault:
        print(fault)
        return 1
    for name in names:
        print(f"{name:40} {log.of[name].judged:6} cases")
    print(f"{log.judged} cases of {len(names)} kernels, no finding")
    return 0


if __name__ == "__main__":
    sys.exit(main())
