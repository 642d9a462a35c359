"""Does a kernel do more? What the SIMT executor counts is the same in every run, so it needs no
statistics and no GPU; it says nothing about time, and is told as what it is.

Blocked is a kernel that does more of something and less of nothing: that cannot pay. A trade (fewer
barriers for more accesses) is told and does not block.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from benchmarks.gate.report import CHANGED, IMPROVED, REGRESSION, UNCHANGED, WORK, Finding

COUNTERS = ("launches", "blocks", "threads", "collectives", "barriers", "accesses")
BLOCKING = ("launches", "collectives", "barriers", "accesses")
"""Blocks and threads are how the work is dealt, not how much there is."""
FLOOR = 0.02


def judge(samples: pd.DataFrame) -> list[Finding]:
    """A finding for each variant: ``samples`` has variant, case, and base_X and head_X for each
    counter X (0 where a build does not count it)."""
    findings = []
    for variant, rows in samples.groupby("variant", sort=True):
        totals = {
            name: (int(rows[f"base_{name}"].sum()), int(rows[f"head_{name}"].sum()))
            for name in COUNTERS
        }
        totals = {n: t for n, t in totals.items() if min(t) > 0 or n != "accesses"}
        findings.append(_decide(str(variant), totals, len(rows)))
    return findings


def _decide(variant: str, totals: Mapping[str, tuple[int, int]], cases: int) -> Finding:
    changed = {n: (b, h) for n, (b, h) in totals.items() if b != h}
    told = ", ".join(f"{n} {b:,} → {h:,} ({_share(b, h)})" for n, (b, h) in changed.items())
    more = [n for n in BLOCKING if n in changed and changed[n][1] > changed[n][0] * (1 + FLOOR)]
    less = [n for n in BLOCKING if n in changed and changed[n][1] < changed[n][0]]
    facts = {"cases": cases, **{n: list(t) for n, t in totals.items()}}
    if not changed:
        why = f"the same work on {cases} cases"
        return Finding(WORK, variant, "executor", UNCHANGED, why, facts)
    state = REGRESSION if more and not less else IMPROVED if less and not more else CHANGED
    prefix = "does more work and less of none: " if state == REGRESSION else ""
    return Finding(WORK, variant, "executor", state, f"{prefix}{told} on {cases} cases", facts)


def _share(base: int, head: int) -> str:
    return f"{head / base - 1:+.1%}" if base else "new"
