"""Hunts one mutant with the cases of the conformance suite, until the first fault."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from hypothesis import HealthCheck, Phase, Verbosity, given, reject, seed, settings
from hypothesis.errors import Flaky

from conformance import edges, strategies
from conformance.campaign import Campaign
from conformance.mutants.build import FOLDER, BuildError, Toolchain
from conformance.mutants.catalogue import CatalogueError, Trial
from yaie import ops
from yaie.check import Judge
from yaie.compare import Verdict

SHRINK_SECONDS = 30.0
"""How long a kill may be shrunk."""
TIMEOUT_S = 10.0
"""Seconds after which a mutant hangs. Cases are small: an honest one takes milliseconds."""


@dataclass(frozen=True)
class Effort:
    """How hard a mutant is hunted: cases at most, and the seed that Hypothesis draws them from. The
    seed is fixed, so that a hunt is the same wherever it is run."""

    examples: int
    seed: int = 0


@dataclass(frozen=True)
class Fate:
    """What became of a mutant in one kernel.

    ``cases`` counts up to and with the first that failed (all of them, for a survivor); ``seconds``
    too, from the start of the worker on. ``case`` and ``check`` are those of the shrunk fault.
    """

    status: Literal["killed", "survived", "error"]
    check: str | None = None
    cases: int = 0
    seconds: float = 0.0
    case: str | None = None
    reason: str | None = None
    build_seconds: float = 0.0
    shrink_seconds: float = 0.0

    def record(self, trial: Trial) -> dict[str, Any]:
        """The fields of its record."""
        fields = asdict(self)
        killed = fields.pop("status") == "killed"
        mutant = trial.mutant
        return {
            "mutant": mutant.id,
            "op": mutant.op,
            "kernel": trial.kernel,
            "what": mutant.what,
            "source": mutant.source,
            "killed": killed,
            **fields,
            "reason": self.reason or mutant.survives,
        }


class Unrecorded:
    """Stands in for the recorder: the verdicts of a hunt are not kept, only its end."""

    def verdict(self, *args: Any) -> None:
        """Forget it."""


def drive(campaign: Campaign, effort: Effort) -> float | None:
    """Give a campaign the cases of its op's strategy, then those of its edges; seconds to the first
    fault, or None."""
    started, first_fault = time.perf_counter(), None

    def take(case: Any) -> bool:
        nonlocal first_fault
        try:
            return campaign.take(case)
        except AssertionError:
            first_fault = first_fault or time.perf_counter() - started
            raise

    @seed(effort.seed)
    @settings(
        max_examples=effort.examples,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )
    @given(case=strategies.of(campaign.op.name))
    def take_drawn(case: Any) -> None:
        if not take(case):
            reject()

    try:
        take_drawn()
        edges.judge(take, campaign.op, large=False)  # they may take longer than TIMEOUT_S
    except (AssertionError, Flaky):
        if campaign.fault is None:
            raise
    return first_fault


def hunt(trial: Trial, toolchain: Toolchain, effort: Effort, folder: Path = FOLDER) -> Fate:
    """Build a mutant and look for a case that shows it. Never raises for a bad mutant."""
    started = time.perf_counter()
    try:
        extensions = toolchain.build(trial, folder / "trials" / trial.name)
    except (BuildError, CatalogueError) as error:
        return Fate("error", "build", reason=str(error))
    built = time.perf_counter()
    try:
        fate = hunted(trial, extensions, effort)
    except Exception as error:  # one mutant must not end the run
        fate = Fate("error", "harness", reason=f"{type(error).__name__}: {error}")
    return Fate(**{**asdict(fate), "build_seconds": built - started})


def hunted(trial: Trial, extensions: Path | None, effort: Effort) -> Fate:
    """Look for a case that shows the defect, with the kernels of this folder (None: the present
    ones)."""
    environment = {"YAIE_EXTENSIONS": str(extensions)} if extensions else {}
    op = ops.get(trial.mutant.op)
    started = time.perf_counter()
    with Judge(environment, TIMEOUT_S) as judge:
        recorder: Any = Unrecorded()
        campaign = Campaign(
            judge, op, op.kernels[trial.kernel], recorder, SHRINK_SECONDS, afresh=False
        )
        start_up = time.perf_counter() - started
        to_fault = drive(campaign, effort)
    seconds = time.perf_counter() - started
    if campaign.fault is None or to_fault is None:
        if not campaign.judged:
            return Fate("error", "declined", reason="the kernel declined every case")
        return Fate("survived", cases=campaign.judged, seconds=seconds)
    case, verdict = campaign.fault
    return Fate(
        "killed",
        _check_name(verdict),
        campaign.judged + 1,
        start_up + to_fault,
        repr(case),
        verdict.reason,
        shrink_seconds=seconds - start_up - to_fault,
    )


def _check_name(verdict: Verdict) -> str:
    return verdict.check or verdict.status
