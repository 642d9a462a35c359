"""One row of a run: judge a kernel, time it, compare what the timed calls returned, and say what
may be believed.

A kernel that fails has no time. A time below the machine's limit, or one that holds only for values
the kernel has seen before, is no time either. Kernels of the SIMT executor are judged and never
timed: it stands for a GPU that is not there.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from benchmarks.clock import (
    Allowance,
    Audited,
    Machine,
    Timing,
    TooSlow,
    quantile,
    spread,
    time_rotation,
)
from benchmarks.roofline import Limit, Peaks
from benchmarks.timing.inputs import Inputs
from benchmarks.timing.serving import Workload
from yaie.arena import Arena
from yaie.check import Judge
from yaie.compare import Verdict
from yaie.dispatch import Unsupported
from yaie.fill import Fill
from yaie.op import Cost, Kernel, Op

JUDGED_ARENA = 16 << 20
"""Bytes of the Case that is judged before a workload is timed."""
JUDGED_FLOPS = 10**8
EXTENSIVE = frozenset("TPLMNBWK")
"""Fields of a Case that count tokens, pages, layers, pairs, rows: those shrink, shapes do not."""
SHAPES = frozenset({"page", "window"})
"""Fields that hold several numbers, but not one for each sequence."""
THIRD_PARTY = ("torch", "transformers", "flashinfer", "triton")
"""What benchmarks.peers registers; where it is wrong, that is a finding."""
ROLES = {"cuda": "kernel", "host": "kernel", "simt": "executor", "reference": "reference"}
EXECUTOR = "judged only: the SIMT executor stands for a GPU, its time means nothing"
DECLINED = f"{Unsupported.__name__}: "
"""What the judge says of a kernel that declines once it sees the data: its reason follows."""
UNSTEADY = 0.05
"""Half the 95 % interval of a row's median, as a share of it, from which the row is flagged."""


@dataclass(frozen=True)
class Row:
    """One kernel on one workload."""

    op: Op
    kernel: Kernel
    workload: Workload

    @property
    def id(self) -> str:
        """As it stands in a test's name."""
        return f"{self.op.name}-{self.workload.name}-{self.kernel.name}"

    @property
    def role(self) -> str:
        """kernel (ours, on hardware or in its host's memory), executor, reference, or peer."""
        return ROLES.get(self.kernel.name.partition(".")[0], "peer")

    @property
    def is_third_party(self) -> bool:
        """Whether others answer for what the kernel computes: for torch.eager we do, and for a
        plugin's kernel whoever runs this."""
        name = self.kernel.name
        return name.partition(".")[0] in THIRD_PARTY and name != "torch.eager"

    @property
    def key(self) -> tuple[str, str, str]:
        """What names the row in the records."""
        return self.op.name, self.kernel.name, self.workload.name


@dataclass(frozen=True)
class Outcome:
    """What is known of a row: its status, why, and the timing if there is one to believe."""

    status: str
    """timed, wrong, invalid, declined, executor, slow, skipped, error or crash"""
    reason: str = ""
    timing: Timing | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


# What is judged ------------------------------------------------------------------------------


def reduced(op: Op, case: Any) -> Any:
    """The same Case with fewer tokens, pages and sequences, small enough to be judged in guarded
    memory in well under a second; head counts, dimensions, dtype, masks and layouts stay."""
    while _too_big(op, case):
        smaller = next(_smaller(case), None)
        if smaller is None:
            return case
        case = smaller
    return case


def _too_big(op: Op, case: Any) -> bool:
    cost = op.cost(case)
    if cost.bytes > JUDGED_ARENA or cost.flops > JUDGED_FLOPS:
        return True
    try:
        op.inputs(case, Fill(Arena(JUDGED_ARENA), case.seed))
    except MemoryError:
        return True
    return False


def _smaller(case: Any) -> Iterator[Any]:
    """Cases with one thing halved, best first, of those that make sense."""
    values = {f.name: getattr(case, f.name) for f in dataclasses.fields(case)}
    lengths = {
        name: v
        for name, v in values.items()
        if isinstance(v, tuple) and v and name not in SHAPES and all(type(n) is int for n in v)
    }
    batch = max(map(len, lengths.values()), default=0)
    counts = {n: v for n, v in values.items() if n in EXTENSIVE and type(v) is int and v > 1}
    tries: list[dict[str, Any]] = []
    if batch > 4:
        tries.append({name: _every_other(v) for name, v in lengths.items()})
    if max((max(v) for v in lengths.values()), default=0) > 1:
        tries.append({name: tuple(-(-n // 2) for n in v) for name, v in lengths.items()})
    for name in sorted(counts, key=lambda n: -counts[n]):
        tries.append({name: -(-counts[name] // 2)})
    for changes in tries:
        try:
            yield replace(case, **changes)
        except ValueError:
            continue


def _every_other(values: tuple[int, ...]) -> tuple[int, ...]:
    """Half of the values, the first and the last among them."""
    half = len(values) // 2
    return tuple(values[round(i * (len(values) - 1) / max(half - 1, 1))] for i in range(half))


# A session -----------------------------------------------------------------------------------


@dataclass
class Session:
    """What the rows of a run share. Rows of one workload come one after another, so that its inputs
    and its answer are made once."""

    machine: Machine
    judge: Judge
    peaks: Peaks
    memory_bytes: int
    allowance: Allowance = field(default_factory=Allowance)
    deadline: float = float("inf")
    """of time.monotonic()"""
    measure_again: Callable[[], Peaks] | None = None
    """The limits once more, where a row breaks them: others may have slowed the machine down while
    they were measured."""
    again_left: int = 2
    _inputs: tuple[tuple[str, str], Inputs] | None = None
    _verdicts: dict[tuple[str, str, str], Verdict] = field(default_factory=dict)

    def run(self, row: Row, announce: Callable[[], None] = lambda: None) -> Outcome:
        """All that is to be known of a row. ``announce`` is called before the kernel runs in this
        process, which it may take down."""
        if time.monotonic() > self.deadline:
            return Outcome("skipped", "the time budget was spent before its turn came")
        case = reduced(row.op, row.workload.case)
        facts: dict[str, Any] = {"judged_case": repr(case)}
        verdict = self._judged(row, case)
        facts["judged"] = verdict.status
        if verdict.receipt is not None:
            facts["used"] = verdict.receipt.used
        if verdict.status == "unsupported":
            return Outcome("declined", verdict.reason or "", facts=facts)
        if not verdict.ok and (verdict.reason or "").startswith(DECLINED):
            return Outcome("declined", (verdict.reason or "").removeprefix(DECLINED), facts=facts)
        if not verdict.ok:
            return Outcome("wrong", f"{verdict.check}: {verdict.reason}", facts=facts)
        if row.role == "executor":
            return Outcome("executor", EXECUTOR, facts=facts)
        return self._timed(row, facts, announce)

    def _judged(self, row: Row, case: Any) -> Verdict:
        """What the judge says; workloads often shrink to the same Case."""
        key = (row.op.name, row.kernel.name, repr(case))
        if key not in self._verdicts:
            self.machine.release()
            self._verdicts[key] = self.judge.judge(row.op, row.kernel, case)
        return self._verdicts[key]

    def _timed(self, row: Row, facts: dict[str, Any], announce: Callable[[], None]) -> Outcome:
        try:
            inputs = self._inputs_of(row)
            inputs.draw_audit()
        except (MemoryError, torch.OutOfMemoryError) as error:
            return Outcome("slow", f"its inputs do not fit into memory: {error}", facts=facts)
        reason = row.kernel.declines(inputs.call)
        if reason is not None:
            return Outcome("declined", reason, facts=facts)
        announce()
        try:
            audited = time_rotation(inputs.rotation(row.kernel), self.machine, self._allowance())
        except TooSlow as error:
            return Outcome("slow", str(error), facts=facts)
        except Unsupported as error:
            return Outcome("declined", str(error), facts=facts)
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            return Outcome("slow", f"it needs more memory than there is: {error}", facts=facts)
        except Exception as error:
            return Outcome("error", f"{type(error).__name__}: {error}", facts=facts)
        return self._believed(row, inputs, audited, facts)

    def _believed(
        self, row: Row, inputs: Inputs, audited: Audited, facts: dict[str, Any]
    ) -> Outcome:
        """The outcome after the audit: what was timed must be right, and possible."""
        timing = audited.timing
        verdict = inputs.audit(row.kernel, audited.results)
        if not verdict.ok and (verdict.reason or "").startswith(DECLINED):
            return Outcome("declined", (verdict.reason or "").removeprefix(DECLINED), facts=facts)
        if not verdict.ok:
            return Outcome("wrong", f"{verdict.check}: {verdict.reason}", facts=facts)
        limit = self._limit(inputs.cost, row.workload.case.dtype, timing)
        facts |= {
            "audit": verdict.reason or "the timed outputs are those of the reference",
            "limit": limit.seconds,
            "bound": limit.bound,
        }
        if limit.broken_by(timing.seconds):
            return Outcome(
                "invalid",
                f"{timing.seconds:.3g} s is less than the machine's limit of {limit.seconds:.3g} s",
                facts=facts,
            )
        if timing.remembers:
            return Outcome(
                "invalid",
                f"{timing.seconds:.3g} s on values it has seen, {timing.fresh:.3g} s on new ones",
                facts=facts,
            )
        return Outcome("timed", timing=timing, facts=facts)

    def _limit(self, cost: Cost, dtype: str, timing: Timing) -> Limit:
        limit = self.peaks.limit(cost, dtype, timing.cold)
        if limit.broken_by(timing.seconds) and self.measure_again and self.again_left:
            self.again_left -= 1
            self.peaks = self.peaks.or_better(self.measure_again())
            limit = self.peaks.limit(cost, dtype, timing.cold)
        return limit

    def _inputs_of(self, row: Row) -> Inputs:
        key = (row.op.name, row.workload.name)
        if self._inputs is None or self._inputs[0] != key:
            self._inputs = None  # the memory of the last workload goes first
            made = Inputs(
                row.op,
                row.workload.case,
                self.machine.name,
                self.machine.cache_bytes,
                self.memory_bytes,
            )
            self._inputs = (key, made)
        return self._inputs[1]

    def _allowance(self) -> Allowance:
        """No row may take more than what is left."""
        left = max(self.deadline - time.monotonic(), 1.0)
        return Allowance(
            min(self.allowance.wanted, left / 2), min(self.allowance.most, max(left, 2.0))
        )


# The record ----------------------------------------------------------------------------------


def record(row: Row, outcome: Outcome, device: str) -> dict[str, Any]:
    """A row as plain data: all that a report needs, samples included."""
    cost = row.op.cost(row.workload.case)
    data: dict[str, Any] = {
        "op": row.op.name,
        "kernel": row.kernel.name,
        "workload": row.workload.name,
        "role": row.role,
        "device": device,
        "case": repr(row.workload.case),
        "dtype": row.workload.case.dtype,
        "source": row.workload.source,
        "weights": dict(row.workload.weights),
        "status": outcome.status,
        "reason": outcome.reason,
        "bytes": cost.bytes,
        "flops": cost.flops,
        **outcome.facts,
        "command": command(row),
    }
    if outcome.timing is not None:
        data |= measured(outcome.timing)
    return data


def measured(timing: Timing) -> dict[str, Any]:
    """What a timing says, as plain data."""
    s = timing.samples
    return {
        "seconds": timing.seconds,
        "best": min(s),
        "mean": statistics.fmean(s),
        "p10": quantile(s, 0.1),
        "p90": quantile(s, 0.9),
        "spread": spread(s),
        "unsteady": spread(s) > UNSTEADY,
        "method": timing.method,
        "cold": timing.cold,
        "copies": timing.copies,
        "fresh": timing.fresh,
        "plan": dataclasses.asdict(timing.plan),
        "conditions": dict(timing.conditions),
        "notes": dict(timing.notes),
        "samples": list(s),
    }


def command(row: Row) -> str:
    """What measures the row again."""
    return (
        f"python -m benchmarks --op {row.op.name} --kernel {row.kernel.name} "
        f"--workload '{_literal(row.workload.name)}'"
    )


def _literal(name: str) -> str:
    """A glob that fits this name alone."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
