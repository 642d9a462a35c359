"""One kernel against many Cases: judge, record, and turn a fault into a failure that shrinks
well."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import reject

from yaie.check import Judge
from yaie.compare import Receipt, Verdict
from yaie.op import Kernel, Op, print_as_repr
from yaie.record import Recorder, explain
from yaie.statement.waivers import Waiver, covering

SHRINK_SECONDS = 60.0
"""How long a failure may be shrunk. A hanging kernel would otherwise cost a time-out a try."""
REMEMBERS = (
    "; in a fresh process the first case that failed passes: what the kernel does depends on calls "
    "before (something kept by address?), on where its arguments lie, or on chance, so the line "
    "below may show nothing"
)


@dataclass(repr=False)
class Campaign:
    """Judges one kernel on whatever Cases it is given.

    While all is well, every verdict is recorded, and of a case that the kernel declines Hypothesis
    draws another. From the first fault on Hypothesis is shrinking:
    only the last fault, the smallest, is recorded (by ``close``), and when the time for shrinking
    is over, cases that were not judged before count as harmless, which ends it. The first is judged
    again in a fresh process: if it passes there, every fault says so. A fault that a waiver covers
    is recorded like a pass, as what it is, and nothing is raised.
    """

    judge: Judge
    op: Op
    kernel: Kernel
    recorder: Recorder
    shrink_seconds: float = SHRINK_SECONDS
    waivers: Sequence[Waiver] = ()
    afresh: bool = True
    """whether the first fault is judged again in a fresh process"""
    judged: int = 0
    declined: int = 0
    waived: int = 0
    worst: Receipt | None = None
    edges: set[str] = field(default_factory=set)
    _faults: dict[str, Verdict] = field(default_factory=dict)
    _first_fault: float | None = None
    _smallest: Any = None
    _remark: str = ""

    def __repr__(self) -> str:
        return f"<campaign for {self.kernel.name}>"

    _repr_pretty_ = print_as_repr

    def __call__(self, case: Any) -> None:
        """Judge a drawn case; for one that the kernel declines Hypothesis draws another."""
        __tracebackhide__ = True
        if not self.take(case):
            reject()

    def take(self, case: Any) -> bool:
        """Judge a case; False where the kernel declines it. AssertionError, with all that one needs
        to see it again, on a fault."""
        __tracebackhide__ = True
        started = time.perf_counter()
        verdict = self._judge(case)
        waived = not verdict.ok and self._is_waived(case)
        if not verdict.ok and not waived:
            if self._first_fault is None:
                self._remark = self._remark_on(case, verdict)
                self._first_fault = time.perf_counter()
            if repr(case) not in self._faults:
                verdict = replace(verdict, reason=f"{verdict.reason}{self._remark}")
            self._faults[repr(case)] = verdict
            self._smallest = case
            raise AssertionError(explain(self.op, self.kernel, case, verdict))
        if self._first_fault is not None:
            return True
        self.waived += waived
        self._count(case, verdict)
        self.recorder.verdict(self.op, self.kernel.name, case, verdict, started)
        return verdict.status != "unsupported"

    def _judge(self, case: Any) -> Verdict:
        known = self._faults.get(repr(case))
        if known is not None:
            return known
        if self._first_fault and time.perf_counter() - self._first_fault > self.shrink_seconds:
            return Verdict("pass")
        return self.judge.judge(self.op, self.kernel, case)

    def _remark_on(self, case: Any, fault: Verdict) -> str:
        """What is to be said of every fault if the first is none in a fresh process."""
        if not self.afresh or fault.status == "timeout":  # that would take as long again
            return ""
        afresh = self.judge.judge_afresh(self.op, self.kernel, case)
        return REMEMBERS if afresh.status == "pass" else ""

    def _is_waived(self, case: Any) -> bool:
        edges = [name for name, hit in self.op.edges.items() if hit(case)]
        return covering(self.waivers, self.op.name, self.kernel.name, edges) is not None

    def _count(self, case: Any, verdict: Verdict) -> None:
        if verdict.status == "unsupported":
            self.declined += 1
            return
        self.judged += 1
        self.edges |= {name for name, hit in self.op.edges.items() if hit(case)}
        receipt = verdict.receipt if verdict.ok else None
        if receipt is not None and (self.worst is None or receipt.used > self.worst.used):
            self.worst = receipt

    @property
    def fault(self) -> tuple[Any, Verdict] | None:
        """The smallest case that failed, and its verdict."""
        if self._smallest is None:
            return None
        return self._smallest, self._faults[repr(self._smallest)]

    def close(self) -> None:
        """Record the smallest fault, if there was one."""
        if self.fault is not None:
            case, verdict = self.fault
            self.recorder.verdict(self.op, self.kernel.name, case, verdict, time.perf_counter())

    @property
    def summary(self) -> str:
        """A few words on what was judged."""
        words = [f"{self.judged} cases"]
        if self.declined:
            words.append(f"{self.declined} declined")
        if self.waived:
            words.append(f"{self.waived} of them fail as waived")
        if self.worst is not None:
            words.append(f"closest {self.worst.used:.2f} of the budget ({self.worst.term})")
        return ", ".join(words)
