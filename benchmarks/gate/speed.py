"""Is head slower? Both stages: every benchmark in a few processes, then the suspects in fresh ones.

The number of processes and pairs is fixed here, before anything is measured. What a process
measured is on disk when it ends; a run that was interrupted goes on with the next process, a run
that ended is never continued: there is no measuring until it is green.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import stats
from benchmarks.compile_table import ROOT
from benchmarks.gate.processes.bursts import CANARY, THROTTLED
from benchmarks.gate.report import (
    IMPROVED,
    INCONCLUSIVE,
    OK,
    REGRESSION,
    SPEED,
    TAIL,
    UNCHANGED,
    Finding,
    Untrusted,
)  # fmt: skip
from benchmarks.samples import COLUMNS

SCREEN, CONFIRM = (6, 8), (12, 12)
"""Processes and pairs of each stage, as in the proof."""
UNSTEADY = 0.10
"""Of the pairs: so many under unequal clocks make a run untrusted."""
THROTTLED_ROUNDS = 0.05
"""More of them than this are told."""
HUNG = (300.0, 60.0)
"""Seconds of a process, and of each of its benchmarks, after which it hangs: many times more than
they take."""


@dataclass(frozen=True)
class Target:
    """What is measured: a subject (benchmarks.gate.processes.bursts), its benchmarks, and which of
    them run the same code on both sides."""

    subject: str
    benches: Sequence[str]
    identical: Collection[str] = ()
    canary: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Outcome:
    """What both stages say."""

    verdicts: stats.Verdicts
    screened: stats.Screened
    samples: pd.DataFrame
    faults: list[str]
    notes: list[str]
    declined: dict[str, str]
    """Benchmarks that a side does not serve, and its reason."""


def measure(
    target: Target, folder: Path, say: Callable[[str], None],
    screen: tuple[int, int] = SCREEN, confirm: tuple[int, int] = CONFIRM,
) -> Outcome:  # fmt: skip
    """Measure and judge. Untrusted if a process dies."""
    resumed = _open_folder(folder, [target.subject, list(target.benches), dict(target.options)])
    notes = ["an interrupted run was continued"] if resumed else []
    first = _stage(target, "screen", target.benches, *screen, folder, say)
    canary = CANARY if target.canary else None
    screened = stats.screen(samples_of(first), target.identical, canary)
    say(f"{len(screened)} of {len(target.benches)} benchmarks are measured again")
    second: list[dict[str, Any]] = []
    if len(screened):
        second = _stage(target, "confirm", screened.suspects, *confirm, folder, say)
    verdicts = stats.confirm(samples_of(second) if second else None, screened)
    (folder / "state.json").unlink()  # it ended: the next run begins anew
    records = [*first, *second]
    declined = {r["bench"]: r["reason"] for r in records if r["kind"] == "declined"}
    notes += throttle_notes(records)
    faults = [*clock_faults(records), *device_faults(records)]
    return Outcome(verdicts, screened, samples_of(records), faults, notes, declined)


def _open_folder(folder: Path, key: Any) -> bool:
    """Whether the folder holds an interrupted run of the same; else it is emptied."""
    state, text = folder / "state.json", json.dumps(key, default=str)
    if state.exists() and state.read_text() == text:
        return any(_whole(p) is not None for p in folder.glob("*.jsonl"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    state.write_text(text)
    return False


def _stage(
    target: Target, stage: str, benches: Sequence[str], processes: int, pairs: int, folder: Path,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:  # fmt: skip
    records: list[dict[str, Any]] = []
    for number in range(processes):
        out = folder / f"{stage}-{number}.jsonl"
        found = _whole(out)
        if found is None:
            say(f"{stage}: process {number + 1} of {processes}, {len(benches)} benchmarks")
            plan = {
                "subject": target.subject, "benches": list(benches), "pairs": pairs,
                "process": f"{stage}-{number}", "handicap": stats.RULE.handicap, "out": str(out),
                "canary": target.canary if stage == "screen" else None, **target.options,
            }  # fmt: skip
            found = _run(plan, out)
        records += found
    return records


def _whole(path: Path) -> list[dict[str, Any]] | None:
    """The records of a process that came to its end."""
    if not path.exists():
        return None
    try:
        records = [json.loads(line) for line in path.read_text().splitlines()]
    except ValueError:
        return None
    return records if records and records[-1]["kind"] == "done" else None


def _run(plan: Mapping[str, Any], out: Path) -> list[dict[str, Any]]:
    written = out.with_suffix(".plan.json")
    written.write_text(json.dumps(plan))
    command = [sys.executable, "-m", "benchmarks.gate.processes.bursts", str(written)]
    limit = HUNG[0] + HUNG[1] * len(plan["benches"])
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        raise Untrusted(f"a measuring process hung{_at(out)}: {limit:.0f} s passed") from None
    records = _whole(out)
    if done.returncode or records is None:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise Untrusted(f"a measuring process died{_at(out)}: {last}")
    return records


def _at(out: Path) -> str:
    """The benchmark that a process had begun last, by what it wrote."""
    lines = out.read_text().splitlines() if out.exists() else []
    begun = [line for line in lines if '"begun"' in line and line.endswith("}")]
    return f" at {json.loads(begun[-1])['bench']}" if begun else ""


def samples_of(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The rounds as the DataFrame that benchmarks.stats takes."""
    rounds = [r for r in records if r["kind"] == "round"]
    return pd.DataFrame(
        {name: [r[name] for r in rounds] for name in COLUMNS}, columns=list(COLUMNS)
    )


def clock_faults(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whether the machine's clock moved too much between the rounds of a pair."""
    rounds = [r for r in records if r["kind"] == "round"]
    unsteady = sum(not r["steady"] for r in rounds)
    if not rounds or unsteady <= UNSTEADY * len(rounds):
        return []
    reasons = _throttled([r for r in rounds if not r["steady"]])
    return [
        f"{unsteady / len(rounds):.0%} of the pairs ran at unequal clocks, also when taken again "
        f"(throttled by: {', '.join(reasons) or 'not known'})"
    ]


def throttle_notes(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whether the GPU held back while it was timed: on both sides alike, or it would be a fault."""
    rounds = [r for r in records if r["kind"] == "round"]
    share = {
        reason: sum(reason in _throttled([r]) for r in rounds) / len(rounds)
        for reason in _throttled(rounds)
    }
    return [
        f"{part:.0%} of the rounds were throttled ({reason}): both sides were, but neither "
        "figure is what the GPU can do"
        for reason, part in share.items() if part > THROTTLED_ROUNDS
    ]  # fmt: skip


def _throttled(rounds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why the GPU held back in some rounds, in words."""
    bits = 0
    for r in rounds:
        bits |= int(r["conditions"].get("throttle_bits", 0)) & THROTTLED
    if not bits:
        return []
    from benchmarks.timing.gpu import throttles  # needs torch, as what timed on a GPU did

    return throttles(bits)


def device_faults(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whether a run that was interrupted went on elsewhere: processes of two devices are a sample
    of neither."""
    devices = dict.fromkeys(r["device"] for r in records if r["kind"] == "process")
    if len(devices) < 2:
        return []
    return [f"the processes ran on different devices ({'; '.join(devices)}): measure it again"]


STATE_OF = {
    stats.REGRESSION: REGRESSION,
    stats.INCONCLUSIVE: INCONCLUSIVE,
    stats.IMPROVED: IMPROVED,
    stats.OK: OK,
}


def findings(outcome: Outcome) -> Iterator[Finding]:
    """A finding for each benchmark, timed or declined."""
    for bench, row in outcome.verdicts.table.iterrows():
        variant, _, name = str(bench).partition(" ")
        state = UNCHANGED if row["role"] == "control" else STATE_OF[row["verdict"]]
        if row["tail_regression"] and state == OK:
            state = TAIL
        yield Finding(SPEED, variant, name, state, _words(row, state), _facts(outcome, bench, row))
    for bench, reason in outcome.declined.items():
        variant, _, name = bench.partition(" ")
        yield Finding(SPEED, variant, name, INCONCLUSIVE, f"not compared: {reason}")


def _words(row: pd.Series, state: str) -> str:
    if row["role"] in ("base", "head", "control"):
        return str(row["why"])
    change = f"{row['estimate']:+.1%} ({row['low']:+.1%} to {row['high']:+.1%})"
    tail = f"; slow rounds cost {row['tail']:+.1%}" if row["tail_regression"] else ""
    least = f"; {row['detectable']:.1%} would be seen" if state == INCONCLUSIVE else ""
    why = f": {row['why']}" if row["why"] else ""
    return f"{change}{why}{tail}{least}"


def _facts(outcome: Outcome, bench: object, row: pd.Series) -> dict[str, Any]:
    own = outcome.samples[outcome.samples["bench"] == bench]
    middle = own.groupby("side")["seconds"].median()
    names = ("verdict", "estimate", "low", "high", "detectable", "p", "processes", "pairs", "kept")
    found = {name: _plain(row[name]) for name in (*names, "stage", "role")}
    return {
        **found,
        "base_seconds": _plain(middle.get("base")),
        "head_seconds": _plain(middle.get("head")),
    }


def _plain(value: Any) -> Any:
    """For JSON: Python's own types, None for NaN."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and value != value else value
