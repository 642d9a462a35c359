"""The other half of the proof: the kernels without a defect must pass, whatever the seed."""

from __future__ import annotations

import atexit
import fnmatch
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from conformance.campaign import Campaign
from conformance.mutants.build import Toolchain
from conformance.mutants.hunt import Effort, Unrecorded, drive
from conformance.mutants.runner import in_processes
from yaie import ops
from yaie.check import Judge
from yaie.kernels import native

CONFIDENCE = 0.95
ERRORS_SHOWN = 5


@dataclass(frozen=True)
class ControlRun:
    """One kernel under one seed of a profile."""

    op: str
    kernel: str
    effort: Effort


@dataclass(frozen=True)
class ControlResult:
    """What it came to. ``fault`` explains a false alarm (or a defect of the kernel)."""

    run: ControlRun
    judged: int
    declined: int
    seconds: float
    fault: str | None = None


@dataclass
class Tally:
    """The sum of many control runs."""

    runs: int = 0
    judged: int = 0
    declined: int = 0
    faults: list[ControlResult] = field(default_factory=list)

    def add(self, result: ControlResult) -> None:
        """Count a run."""
        self.runs += 1
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
            f"{self.judged} cases judged in {self.runs} runs{declined}, {len(self.faults)} faults: "
            f"at most {bound:.3%} of cases are false alarms ({CONFIDENCE:.0%} confidence)"
        )


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


def plan(op_glob: str, kernel_glob: str, seeds: int, examples: int) -> list[ControlRun]:
    """A run for each seed and each kernel of the executor that the globs let through."""
    return [
        ControlRun(variant.op, f"simt.{variant.name}", Effort(examples, seed))
        for seed in range(seeds)
        for variant in native.VARIANTS
        if fnmatch.fnmatchcase(variant.op, op_glob)
        and fnmatch.fnmatchcase(f"simt.{variant.name}", kernel_glob)
    ]


def run_all(runs: list[ControlRun], toolchain: Toolchain, jobs: int) -> Iterator[ControlResult]:
    """Results as they come."""
    yield from in_processes(_run, runs, toolchain, jobs)


@cache
def _judge() -> Judge:
    """One for a process."""
    judge = Judge()
    atexit.register(judge.close)
    return judge


def _run(run: ControlRun) -> ControlResult:
    op, started = ops.get(run.op), time.perf_counter()
    recorder: Any = Unrecorded()
    campaign = Campaign(_judge(), op, op.kernels[run.kernel], recorder)
    drive(campaign, run.effort)
    fault = None
    if campaign.fault is not None:
        case, verdict = campaign.fault
        fault = f"{verdict.check}: {verdict.reason}\n    {case!r}"
    # The case that failed was judged too.
    judged = campaign.judged + (fault is not None)
    return ControlResult(run, judged, campaign.declined, time.perf_counter() - started, fault)


def report(tally: Tally, line: Callable[[str], None]) -> None:
    """Print the sum, and the first faults."""
    for result in tally.faults[:ERRORS_SHOWN]:
        run = result.run
        line(f"FAULT  {run.op} {run.kernel}, seed {run.effort.seed}: {result.fault}")
    line(tally.summary)
