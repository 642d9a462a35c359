"""No false alarms: `python -m conformance.controls --kernel 'cuda.*' --seeds 20`.

Every kernel that is right must pass, whatever the seed. Judges each kernel that fits, under each
seed, on as many Cases as a profile draws and on those of the edges, several at a time. A fault is a
false alarm or a defect of the kernel, and somebody has to look. What a shard (one kernel under one
seed) came to is kept in a file, and a run goes on where the last one with the same sources stopped.
The file is no record of a run, so it lies outside the records folder.

Exit status: 0 no fault; 1 a fault; 2 wrong usage; 3 no kernel fits.
"""

from __future__ import annotations

import argparse
import atexit
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from conformance.campaign import Campaign
from conformance.mutants.hunt import Effort, Unrecorded, drive
from conformance.mutants.runner import prepare_process
from conformance.profiles import PROFILES
from yaie import ops
from yaie.check import Judge, choose_kernels
from yaie.command.arguments import make_folder, positive
from yaie.command.errors import EXIT_USAGE, sentence
from yaie.record import provenance

EXIT_NOTHING = 3
DEFAULT_LOG = Path("build/controls/controls.jsonl")
CONFIDENCE = 0.95
ERRORS_SHOWN = 5
DECIDES = ("suite", "kernels", "builds", "python", "torch", "gpu")
"""What of a machine and its sources decides a shard."""


@dataclass(frozen=True)
class Shard:
    """One kernel under one seed, ``examples`` Cases drawn."""

    op: str
    kernel: str
    examples: int
    seed: int


@dataclass(frozen=True)
class Result:
    """What a shard came to. ``fault`` explains a false alarm (or a defect of the kernel)."""

    shard: Shard
    judged: int
    declined: int
    seconds: float
    fault: str | None = None


@dataclass
class Tally:
    """The sum of many shards."""

    shards: int = 0
    judged: int = 0
    declined: int = 0
    faults: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """Count a shard."""
        self.shards += 1
        self.judged += result.judged
        self.declined += result.declined
        if result.fault is not None:
            self.faults.append(result)

    @property
    def summary(self) -> str:
        """Cases, faults, and how many of all cases may be false alarms at most."""
        bound = upper_bound(len(self.faults), self.judged)
        declined = f" ({self.declined} declined)" if self.declined else ""
        return (
            f"{self.judged} cases judged in {self.shards} shards{declined}, {len(self.faults)} "
            f"faults: at most {bound:.4%} of cases are false alarms ({CONFIDENCE:.0%} confidence)"
        )

    @property
    def lines(self) -> list[str]:
        """The first faults, and the sum."""
        shown = [
            f"FAULT  {r.shard.op} {r.shard.kernel}, seed {r.shard.seed}: {r.fault}"
            for r in self.faults[:ERRORS_SHOWN]
        ]
        return [*shown, self.summary]


def upper_bound(faults: int, cases: int, confidence: float = CONFIDENCE) -> float:
    """Clopper and Pearson's exact one-sided upper bound of a rate: about 3/cases for no fault."""
    if faults >= cases:
        return 1.0
    low, high = faults / cases, 1.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        if _at_most(faults, cases, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _at_most(faults: int, cases: int, rate: float) -> float:
    """Probability of at most so many faults. Logarithms, because the coefficients are huge."""
    if rate <= 0:
        return 1.0
    total = 0.0
    for k in range(faults + 1):
        ways = math.lgamma(cases + 1) - math.lgamma(k + 1) - math.lgamma(cases - k + 1)
        total += math.exp(ways + k * math.log(rate) + (cases - k) * math.log1p(-rate))
    return total


def plan(op_glob: str, kernel_glob: str, seeds: int, examples: int) -> list[Shard]:
    """A shard for each seed and each kernel that the globs let through; ValueError for none."""
    chosen = choose_kernels(op_glob, kernel_glob)
    return [Shard(op.name, k.name, examples, seed) for seed in range(seeds) for op, k in chosen]


class Log:
    """The shards of these sources on this machine that are done, in a file to which each is added
    as it ends."""

    def __init__(self, path: Path) -> None:
        head = provenance()
        self._key = {name: head.get(name) for name in DECIDES}
        self._path = path
        make_folder("--log", path.parent)
        self._file = path.open("a", encoding="utf-8")

    def known(self) -> dict[Shard, Result]:
        """What came of the shards that are done. A line that an interruption cut short, or that is
        none of ours, is not."""
        found: dict[Shard, Result] = {}
        for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError, TypeError, KeyError, AttributeError):
                row = json.loads(line)
                if row.pop("of") == self._key:
                    shard = Shard(**row.pop("shard"))
                    found[shard] = Result(shard, **row)
        return found

    def add(self, result: Result) -> None:
        """One more is done."""
        self._file.write(json.dumps({"of": self._key, **asdict(result)}) + "\n")
        self._file.flush()


@cache
def _judge() -> Judge:
    """One for a process."""
    judge = Judge()
    atexit.register(judge.close)
    return judge


def run(shard: Shard) -> Result:
    """Judge it."""
    op, started = ops.get(shard.op), time.perf_counter()
    recorder: Any = Unrecorded()
    campaign = Campaign(_judge(), op, op.kernels[shard.kernel], recorder)
    drive(campaign, Effort(shard.examples, shard.seed))
    fault = None
    if campaign.fault is not None:
        case, verdict = campaign.fault
        fault = f"{verdict.check}: {verdict.reason}\n    {case!r}"
    # The case that failed was judged too.
    judged = campaign.judged + (fault is not None)
    return Result(shard, judged, campaign.declined, time.perf_counter() - started, fault)


def run_all(shards: Sequence[Shard], log: Log, jobs: int) -> Iterator[Result]:
    """Those that are known, then the others as they end."""
    known = log.known()
    yield from (known[shard] for shard in shards if shard in known)
    rest = [shard for shard in shards if shard not in known]
    if not rest:
        return
    pool = ProcessPoolExecutor(min(jobs, len(rest)), get_context("spawn"), prepare_process)
    try:
        for future in as_completed([pool.submit(run, shard) for shard in rest]):
            log.add(future.result())
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run them; the exit status."""
    args = _parser().parse_args(argv)
    try:
        shards = plan(args.op, args.kernel, args.seeds, PROFILES[args.profile])
    except ValueError as error:
        print(f"controls: {error}", file=sys.stderr)
        return EXIT_NOTHING
    try:
        log = Log(args.log)
    except (ValueError, OSError) as error:
        print(f"controls: {sentence(error)}", file=sys.stderr)
        return EXIT_USAGE
    tally, started = Tally(), time.monotonic()
    for result in run_all(shards, log, args.jobs):
        tally.add(result)
        seconds = time.monotonic() - started
        line = f"{tally.shards:3} of {len(shards)} shards  {seconds:4.0f} s  {tally.judged} cases"
        print(f"{line}, {len(tally.faults)} faults", file=sys.stderr, flush=True)
    print("\n".join([*tally.lines, f"log: {args.log}"]))
    return int(bool(tally.faults))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m conformance.controls",
        description="Judges kernels that are right under many seeds: no case may fail. A run goes "
        "on where the last one with the same sources stopped.",
        epilog="Exit status: 0 no fault; 1 a fault; 2 wrong usage; 3 no kernel fits.",
    )
    cases = ", ".join(f"{name} {number}" for name, number in PROFILES.items())
    parser.add_argument("--op", default="*", metavar="GLOB", help="kernels of these ops (all)")
    parser.add_argument(
        "--kernel", default="simt.*", metavar="GLOB", help="kernels to judge (%(default)s)"
    )
    parser.add_argument(
        "--profile", default="quick", choices=PROFILES,
        help=f"cases drawn for each kernel and seed: {cases} (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", default=20, type=positive, metavar="N",
        help="seeds that each kernel is judged under, from 0 on (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", default=len(os.sched_getaffinity(0)), type=positive, metavar="N",
        help="processes (one a core: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--log", default=DEFAULT_LOG, type=Path, metavar="FILE",
        help="what is done, so that it is not done again (%(default)s)",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
