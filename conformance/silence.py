"""No finding on correct kernels: `YAIE_EXTENSIONS=FOLDER python -m conformance.silence --cases N`.

Judges every ``simt.*`` kernel, with the checked build of the executor in FOLDER (`nox -s sanitize`
builds it), on Cases of the conformance strategies until N were judged in all. Cases come in chunks,
each drawn from a seed of its own; what is done stands in a file, for this build, so that a run goes
on where the last one stopped. Ends with status 1 at the first fault, and prints it.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from hypothesis import reject

from conformance import strategies
from yaie import kernels, ops
from yaie.check import Judge
from yaie.cli import explain
from yaie.op import Kernel, Op

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

    def save(self) -> None:
        """Write it down."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        rows = {name: asdict(progress) for name, progress in self.of.items()}
        self._path.write_text(json.dumps({"build": self._build, "kernels": rows}, indent=1))

    @property
    def judged(self) -> int:
        """Cases of all kernels."""
        return sum(progress.judged for progress in self.of.values())


def chosen(glob: str) -> Iterator[tuple[Op, Kernel]]:
    """The executor's kernels whose "op kernel" fits the glob."""
    for op in ops.OPS.values():
        for kernel in op.kernels.values():
            fits = fnmatch.fnmatchcase(f"{op.name} {kernel.name}", glob)
            if kernel.name.startswith("simt.") and fits:
                yield op, kernel


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


def main() -> int:
    """Judge until enough cases were judged, the kernel with the fewest first."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=10_000, help="in all, earlier runs included")
    parser.add_argument("--kernel", default="*", metavar="GLOB", help='of "op kernel"')
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after these")
    parser.add_argument("--log", type=Path, default=Path("build/silence.json"))
    args = parser.parse_args()
    kernels.load()
    torch.set_num_threads(1)
    executor = kernels.native.extension("simt")
    if not getattr(executor, "checked", False):
        raise SystemExit("YAIE_EXTENSIONS must name a checked build (nox -s sanitize makes one)")
    log = Log(args.log, str(getattr(executor, "build_id", "")))
    start = time.monotonic()
    names = {f"{op.name} {kernel.name}": (op, kernel) for op, kernel in chosen(args.kernel)}
    for name in names:
        log.of.setdefault(name, Progress())
    with Judge() as judge:
        while log.judged < args.cases and time.monotonic() - start < 60 * args.minutes:
            name = min(names, key=lambda n: log.of[n].judged)
            progress = log.of[name]
            progress.judged += judge_chunk(judge, *names[name], progress.chunks)
            progress.chunks += 1
            log.save()
    for name in names:
        print(f"{name:40} {log.of[name].judged:6} cases")
    print(f"{log.judged} cases of {len(names)} kernels, no finding")
    return 0


if __name__ == "__main__":
    sys.exit(main())
