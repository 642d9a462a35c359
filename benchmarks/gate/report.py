"""What a run of the gate found, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.stats import EXIT, FAILED, PASS, UNTRUSTED

CORRECTNESS, RESOURCES, ACCURACY, WORK, SPEED = (
    "correctness", "resources", "accuracy", "work", "speed",
)  # fmt: skip
STAGES = (CORRECTNESS, RESOURCES, ACCURACY, WORK, SPEED)

REGRESSION, INCONCLUSIVE, IMPROVED, TAIL, CHANGED, NEW, GONE, OK, UNCHANGED = (
    "regression", "inconclusive", "improved", "tail", "changed", "new", "gone", "ok", "unchanged",
)  # fmt: skip
STATES = (REGRESSION, INCONCLUSIVE, TAIL, IMPROVED, CHANGED, NEW, GONE, OK, UNCHANGED)
"""Worst first."""


class Untrusted(Exception):
    """Why the gate cannot judge."""


@dataclass
class Finding:
    """One thing that was compared: a kernel, a check, a benchmark."""

    stage: str
    variant: str
    """op/variant, the file csrc/<variant>.cu; or an op alone"""
    name: str
    """what of it: an instantiation, a check, a workload"""
    state: str
    why: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def severity(self) -> tuple[int, int, float]:
        """Sorts the worst first: correctness before speed, large slowdowns before small ones."""
        size = self.facts.get("estimate")
        return (
            STATES.index(self.state),
            STAGES.index(self.stage),
            -size if isinstance(size, float) and size == size else 0.0,
        )


NOT_RUN, DONE, BROKEN = "not run", "done", "could not be judged"


@dataclass
class Stage:
    """How far a stage came, in words."""

    name: str
    status: str = NOT_RUN
    words: str = ""
    seconds: float = 0.0


@dataclass
class Report:
    """The outcome of a run."""

    base: str
    head: str
    machine: str = ""
    compiler: str = "none"
    archs: tuple[str, ...] = ()
    dirty: bool = False
    stages: dict[str, Stage] = field(default_factory=lambda: {n: Stage(n) for n in STAGES})
    findings: list[Finding] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """Why it cannot be trusted."""
    notes: list[str] = field(default_factory=list)
    builds: dict[str, str] = field(default_factory=dict)
    """Build ids by side."""
    gpu: str | None = None

    def add(self, findings: Iterable[Finding]) -> None:
        self.findings += findings

    @property
    def speed_measured(self) -> bool:
        return self.stages[SPEED].status == DONE

    @property
    def regressions(self) -> list[Finding]:
        return sorted((f for f in self.findings if f.state == REGRESSION), key=severity)

    @property
    def run(self) -> str:
        """What is reproducible blocks whatever the clock says; times are believed only if nothing
        speaks against the run; and nothing passes because nothing was compared."""
        if any(f.stage != SPEED for f in self.regressions):
            return FAILED
        if self.faults or not self.findings:
            return UNTRUSTED
        return FAILED if self.regressions else PASS

    @property
    def exit_code(self) -> int:
        return EXIT[self.run]

    @property
    def counts(self) -> dict[str, int]:
        found = {state: sum(f.state == state for f in self.findings) for state in STATES}
        return {state: n for state, n in found.items() if n}

    @property
    def reasons(self) -> list[str]:
        """Why it is no pass."""
        if not self.findings and not self.faults:
            return ["there was nothing to compare"]
        told = [f"{title(f)}: {f.why}" for f in self.regressions]
        return [*told, *self.faults]

    def told(self) -> list[Finding]:
        """What is worth a line, the worst first."""
        return sorted((f for f in self.findings if f.state not in (OK, UNCHANGED)), key=severity)

    def as_records(self) -> list[dict[str, Any]]:
        """First the run, then its stages and findings: what the JSON lines hold."""
        run = {
            "kind": "gate", "run": self.run, "exit": self.exit_code, "reasons": self.reasons,
            "speed": "measured" if self.speed_measured else "not measured",
            **{n: getattr(self, n) for n in (
                "base", "head", "dirty", "machine", "gpu", "compiler", "archs", "builds", "counts",
                "faults", "notes",
            )},
        }  # fmt: skip
        stages = [{"kind": "stage", **asdict(stage)} for stage in self.stages.values()]
        ordered = sorted(self.findings, key=severity)
        return [run, *stages, *({"kind": "finding", **asdict(f)} for f in ordered)]


def severity(finding: Finding) -> tuple[Any, ...]:
    return (*finding.severity, finding.variant, finding.name)


def title(finding: Finding) -> str:
    return f"{finding.variant} {finding.name}".strip()
