"""Is head less accurate than base, though both pass? A silent loss of precision.

Both builds run on the same cases; of each result two figures are kept: the worst share of its
budget that an element used, and the RMS error over what the error model expects. Where nothing was
lost the two are the same or differ by chance in either direction, case by case; a kernel that
rounds more often is worse in nearly all of them. So the figures are compared in pairs, by
logarithms: the mean rise must be shown by a t-test (Holm over all rows of the run) and be large
enough to matter.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats as distributions

from benchmarks.gate.report import ACCURACY, IMPROVED, INCONCLUSIVE, OK, REGRESSION, Finding
from benchmarks.stats import holm

COLUMNS = ("variant", "dtype", "case", "used_base", "used_head", "rms_base", "rms_head")
ALPHA = 0.001
"""Chance of any false alarm: the cases are drawn once and for all, so reruns give the same."""
FLOOR = 0.10
"""A rise of the RMS error by less is no loss of precision: one more rounding is 40 %."""
USED_FLOOR = 0.50
"""The worst element of a case scatters more."""
LEAST_CASES = 8
LEAST = 1e-4
"""Of the budget or model; below that, an error is as good as none."""


def judge(samples: pd.DataFrame) -> list[Finding]:
    """A finding for each variant and dtype: ``samples`` has the columns COLUMNS, a row for each
    case that both sides ran. Equal bits have equal figures."""
    findings, p_values, rises = [], [], []
    for (variant, dtype), rows in samples.groupby(["variant", "dtype"], sort=True):
        rms, p_rms = _rise(rows["rms_base"], rows["rms_head"])
        used, p_used = _rise(rows["used_base"], rows["used_head"])
        facts = {
            "cases": len(rows),
            "rms_ratio": float(np.exp(rms)),
            "used_ratio": float(np.exp(used)),
            **{name: float(rows[name].max()) for name in COLUMNS[3:]},
        }
        findings.append(Finding(ACCURACY, str(variant), str(dtype), OK, facts=facts))
        p_values += [p_rms, p_used]
        rises += [rms >= np.log1p(FLOOR), used >= np.log1p(USED_FLOOR)]
    significant = holm(np.array(p_values), ALPHA) & np.array(rises, bool)
    for i, finding in enumerate(findings):
        _decide(finding, bool(significant[2 * i : 2 * i + 2].any()))
    return findings


def _rise(base: pd.Series, head: pd.Series) -> tuple[float, float]:
    """Mean of log(head / base) over the cases, and its one-sided p."""
    rise = np.log(np.maximum(head, LEAST)) - np.log(np.maximum(base, LEAST))
    values = rise.to_numpy(float)
    n, mean = len(values), float(values.mean())
    if n < 2 or mean <= 0:
        return mean, 1.0
    error = max(float(values.std(ddof=1)), 1e-3) / np.sqrt(n)  # cases without scatter prove little
    return mean, float(distributions.t.sf(mean / error, n - 1))


def _decide(finding: Finding, worse: bool) -> None:
    facts = finding.facts
    change = (
        f"RMS error {facts['rms_ratio']:.2f} times base's, worst share of the budget "
        f"{facts['used_base']:.2f} → {facts['used_head']:.2f}, on {facts['cases']} cases"
    )
    finding.why = change
    if worse:
        finding.state, finding.why = REGRESSION, f"less accurate than base: {change}"
    elif facts["cases"] < LEAST_CASES:
        finding.state, finding.why = INCONCLUSIVE, f"too few cases to compare: {change}"
    elif facts["rms_ratio"] <= 1 / (1 + FLOOR):
        finding.state = IMPROVED
