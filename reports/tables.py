"""Frames of records -> the tables of the report: pure pandas, no formatting.

Counting rules, the same everywhere. A case is *judged* when its status is not `unsupported`; a
declined case is counted apart and never as a pass. A failure is any judged case that did not pass.
`used` is error / allowed error at the worst element: at most 1 passes; in a failure a number that
is not one (NaN, null) counts as infinitely bad.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from reports.load import STATUSES, Records

CELL = ["op", "kernel"]
KIND = [*CELL, "status", "check"]
SEVERITY = {"crash": 0, "timeout": 1, "fail": 2}
COUNTS = {
    "pass": "passed",
    "fail": "failed",
    "crash": "crashed",
    "timeout": "timeout",
    "unsupported": "unsupported",
}
SUMMARY_COLUMNS = [
    *("op", "kernel", "outcome", "cases", *COUNTS.values(), "worst_used", "term"),
    *("slowest_seconds", "slowest_case", "cases_per_second"),
]
ENVIRONMENT_FIRST = [
    *("started", "command", "profile", "git", "dirty", "builds", "python", "torch"),
    *("platform", "cpu", "gpu", "driver"),
]


@dataclass(frozen=True)
class Score:
    """How many planted defects were found."""

    killed: int
    total: int

    @property
    def survived(self) -> int:
        return self.total - self.killed


@dataclass(frozen=True)
class Outcome:
    """The report in one word and one sentence."""

    state: str
    """'pass', 'fail' or 'inconclusive'."""
    title: str
    sentence: str

    @property
    def exit_code(self) -> int:
        return {"pass": 0, "fail": 1, "inconclusive": 3}[self.state]


def judged(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Every case on which the kernel was really run."""
    return verdicts[verdicts["status"] != "unsupported"]


def summary(verdicts: pd.DataFrame) -> pd.DataFrame:
    """One row for each op x kernel, failing ones first."""
    if verdicts.empty:
        return pd.DataFrame(columns=SUMMARY_COLUMNS)
    counts = pd.crosstab([verdicts["op"], verdicts["kernel"]], verdicts["status"])
    counts = counts.reindex(columns=list(STATUSES), fill_value=0).rename(columns=COUNTS)
    table = counts.assign(cases=counts.drop(columns="unsupported").sum(axis=1))
    table["outcome"] = np.select(
        [table["cases"] == 0, table["passed"] < table["cases"]], ["not judged", "fail"], "pass"
    )
    for part in (_worst(verdicts), _slowest(verdicts), _rate(verdicts)):
        table = table.join(part)
    table = table.reset_index().fillna({"term": "", "slowest_case": ""})
    return table.sort_values("outcome", key=_outcome_order, kind="stable")[SUMMARY_COLUMNS]


def _outcome_order(outcome: pd.Series) -> pd.Series:
    return outcome.map({"fail": 0, "pass": 1, "not judged": 2})


def _badness(verdicts: pd.DataFrame) -> pd.Series:
    """`used`, where a failing receipt without a number is infinitely bad."""
    no_number = verdicts["has_receipt"] & verdicts["used"].isna() & (verdicts["status"] != "pass")
    return verdicts["used"].mask(no_number, np.inf)


def _worst(verdicts: pd.DataFrame) -> pd.DataFrame:
    """The largest used/allowed of an op x kernel, and the term of the budget it was spent on."""
    top = _top(judged(verdicts).assign(worst_used=_badness), "worst_used")
    return top[["worst_used", "term"]]


def _slowest(verdicts: pd.DataFrame) -> pd.DataFrame:
    names = {"seconds": "slowest_seconds", "case": "slowest_case"}
    return _top(judged(verdicts), "seconds").rename(columns=names)[list(names.values())]


def _top(frame: pd.DataFrame, by: str) -> pd.DataFrame:
    """The row of the largest `by` of each op x kernel; those without a number have none."""
    ordered = frame.dropna(subset=[by]).sort_values(by, kind="stable")
    return ordered.drop_duplicates(CELL, keep="last").set_index(CELL)


def _rate(verdicts: pd.DataFrame) -> pd.Series:
    """Judged cases a second of one worker."""
    timed = judged(verdicts)
    timed = timed[np.isfinite(timed["seconds"]) & (timed["seconds"] > 0)]
    seconds = timed.groupby(CELL)["seconds"].agg(["size", "sum"])
    return (seconds["size"] / seconds["sum"]).rename("cases_per_second")


def failures(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Failing cases, worst first: crashes, hangs, then by used/allowed.

    `like` counts the failures of the same kind, `nth` is this one's place among them.
    """
    failed = verdicts[verdicts["status"].isin(list(SEVERITY))]
    # Wrong bytes come without a receipt: no amount of error is allowed there.
    badness = _badness(failed).fillna(np.inf)
    failed = failed.assign(_severity=failed["status"].map(SEVERITY), _badness=badness)
    failed = failed.sort_values(
        ["_severity", "_badness", "op", "kernel", "case"],
        ascending=[True, False, True, True, True],
        kind="stable",
    ).drop(columns=["_severity", "_badness"])
    alike = failed.groupby(KIND)["case"]
    return failed.assign(like=alike.transform("size"), nth=alike.cumcount())


def unsupported(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Declined cases by reason, most frequent first."""
    declined = verdicts[verdicts["status"] == "unsupported"]
    counted = declined.groupby([*CELL, "reason"]).size().rename("cases").reset_index()
    return counted.sort_values(
        ["cases", *CELL, "reason"], ascending=[False, True, True, True], kind="stable"
    )


def edges(verdicts: pd.DataFrame, domains: pd.DataFrame) -> pd.DataFrame:
    """Edge x count of judged cases for each op, and the kernels that never met the edge. An edge
    that the op's page names and no case met has 0 cases."""
    columns = ["op", "edge", "cases", "failures", "kernels", "missed_by"]
    hits = verdicts.explode("edges").rename(columns={"edges": "edge"}).dropna(subset=["edge"])
    if hits.empty and domains.empty:
        return pd.DataFrame(columns=columns)
    ran = hits["status"] != "unsupported"
    # Sums over all hits: an edge that every kernel declined stays listed, with 0 cases.
    hits = hits.assign(cases=ran, failures=ran & (hits["status"] != "pass"))
    table = hits.groupby(["op", "edge"])[["cases", "failures"]].sum().reset_index()
    table = table.merge(domains, "outer").fillna({"cases": 0, "failures": 0})
    table = table.astype({"cases": int, "failures": int})
    met = hits[ran].groupby(["op", "edge"])["kernel"].agg(frozenset).to_dict()
    of_op = judged(verdicts).groupby("op")["kernel"].agg(frozenset).to_dict()
    pairs = list(zip(table["op"], table["edge"], strict=True))
    table["kernels"] = [len(met.get(pair, ())) for pair in pairs]
    table["missed_by"] = [
        ", ".join(sorted(of_op.get(op, frozenset()) - met.get((op, edge), frozenset())))
        for op, edge in pairs
    ]
    return table.sort_values(["op", "cases", "edge"], kind="stable")[columns]


def families(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Judged cases for each op, value family (rows) and dtype (columns); 0 is a hole."""
    ran = judged(verdicts)
    ran = ran[(ran["family"] != "") | (ran["dtype"] != "")]
    if ran.empty:
        return pd.DataFrame(columns=["op", "family"])
    return (
        pd.crosstab([ran["op"], ran["family"]], ran["dtype"])
        .reset_index()
        .rename_axis(columns=None)
    )


def laws(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each law of an op and each peer that it was compared with: which kernels were
    held to it, in how many calls, how near they came, and which broke it; broken ones first."""
    columns = ["op", "law", "class", "peer", "kernels", "calls", "worst", "broken_by"]
    if frame.empty:
        return pd.DataFrame(columns=columns)
    stated = frame.groupby(["op", "law", "class", "peer"], sort=False)
    table = stated.agg(kernels=("kernel", _names), calls=("calls", "sum"), worst=("worst", "max"))
    broken = frame[~frame["ok"]].groupby(["op", "law", "class", "peer"])["kernel"].agg(_names)
    table["broken_by"] = broken.reindex(table.index, fill_value="")
    table = table.reset_index().sort_values(["op", "peer", "law"], kind="stable")
    return table.sort_values("broken_by", key=lambda names: names == "", kind="stable")[columns]


def _names(values: pd.Series) -> str:
    return ", ".join(sorted(set(values)))


def mutants(frame: pd.DataFrame) -> pd.DataFrame:
    """Survivors first, then those that took longest to find."""
    return frame.sort_values(
        ["killed", "cases", "mutant"], ascending=[True, False, True], kind="stable"
    )


def score(frame: pd.DataFrame) -> Score:
    return Score(killed=int(frame["killed"].sum()), total=len(frame))


def environment(runs: pd.DataFrame) -> pd.DataFrame:
    """What ran and where: a row for each fact, a column for each run."""
    if runs.empty:
        return pd.DataFrame()
    facts = [name for name in ENVIRONMENT_FIRST if name in runs.columns]
    facts += sorted(set(runs.columns) - {*facts, "run"})
    table = runs.groupby("run", sort=False)[facts].agg(_distinct).T
    table.loc["files"] = runs.groupby("run", sort=False).size().astype(str)
    return table


def _distinct(values: pd.Series) -> str:
    return " | ".join(dict.fromkeys(str(value) for value in values.dropna() if value != ""))


def cautions(records: Records, cells: pd.DataFrame) -> list[str]:
    """What limits the trust in the numbers, in words; `cells` is the summary."""
    notes = list(records.notes)
    for run, rows in records.runs.groupby("run") if not records.runs.empty else ():
        for fact in ("git", "dirty", "builds", "torch"):
            if fact in rows and rows[fact].nunique(dropna=False) > 1:
                notes.append(f"the files of run {run} disagree on {fact}: they judged two states")
    declined = cells[cells["outcome"] == "not judged"]
    if len(declined):
        names = ", ".join(f"{cell.kernel} of {cell.op}" for cell in declined.itertuples())
        notes.append(f"nothing is known of kernels which declined every case: {names}")
    missed = edges(records.verdicts, records.domains).query("cases == 0")
    for op, never in missed.groupby("op")["edge"]:
        notes.append(f"no judged case of {op} met the edge {', '.join(never)}")
    if records.verdicts.empty and not records.mutants.empty:
        notes.append("no case was judged in this run: it says nothing of the unchanged kernels")
    return notes


def outcome(records: Records) -> Outcome:
    """A failing case, broken law or surviving mutant fails; a torn or empty record never passes."""
    ran, found = judged(records.verdicts), score(records.mutants)
    failing = ran[ran["status"] != "pass"]
    broken = laws(records.laws).query("broken_by != ''")
    if len(failing) or found.survived or len(broken):
        title = _failed_title(len(failing), len(broken), found)
        return Outcome("fail", title, _counted(ran, found))
    if ran.empty and not found.total:
        declined = len(records.verdicts)
        none = "There are no records: nox -s conformance writes them."
        why = f"All {declined:,} cases were declined." if declined else none
        return Outcome("inconclusive", "Nothing was measured", why)
    if records.torn:
        title = "No failure, but the run is not whole"
        return Outcome("inconclusive", title, _counted(ran, found))
    title = "Every judged case passed" if len(ran) else "Every mutant was killed"
    return Outcome("pass", title, _counted(ran, found))


def _failed_title(failing: int, broken: int, found: Score) -> str:
    parts = []
    if failing:
        parts.append(f"{_count(failing, 'case')} failed")
    if broken:
        parts.append(f"{_count(broken, 'law')} broken")
    if found.survived:
        parts.append(f"{_count(found.survived, 'mutant')} survived")
    return " and ".join(parts)


def _counted(ran: pd.DataFrame, found: Score) -> str:
    cases = "No case was judged"
    if len(ran):
        ops = _count(ran["op"].nunique(), "op")
        kernels = _count(len(ran[CELL].drop_duplicates()), "kernel")
        cases = f"{_count(len(ran), 'case')} judged on {kernels} of {ops}"
    if not found.total:
        return f"{cases}; no mutants in these records."
    return f"{cases}; {found.killed:,} of {_count(found.total, 'mutant')} killed."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
