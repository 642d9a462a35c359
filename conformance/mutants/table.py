"""What became of the mutants, as a table for a terminal and as a page of the docs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

import hypothesis

from conformance.mutants.catalogue import Trial
from conformance.mutants.hunt import Fate
from yaie.record import provenance

PAGE = """\
# Mutants: known defects, and what finds them

Each row is a defect planted into one of our kernels, compiled, and judged on the cases that the
conformance suite draws, up to the first fault. `Killed by` is the check that failed on the smallest
case that Hypothesis found in {shrink:.0f} s; `cases` is how many it took to find any. All of it is
reproducible: the hunts are seeded. Made by

    {command}

on {today}: {machine}, Python {python}, torch {torch}, Hypothesis {hypothesis}; {examples} cases a
kernel at most (profile `{profile}`).

{summary}

The hunts run on the plain executor, whose threads take turns at barriers alone. What goes wrong
between two plain accesses, such as an addition that should be atomic, is for the checked one
(`nox -s sanitize`); its planted bugs are in [simt/planted.md](simt/planted.md).

Judge one mutant on one case, after the command above has built it:

    YAIE_EXTENSIONS=build/mutants/trials/<mutant>.<variant> yaie repro "<case>" --kernel <kernel>
"""


@dataclass(frozen=True)
class Row:
    """One trial and its fate."""

    trial: Trial
    fate: Fate

    @property
    def tests_the_tool(self) -> bool:
        """A control of this tool, no defect to find."""
        return self.trial.mutant.expect != "killed"

    @property
    def excused(self) -> bool:
        """It survived, and the catalogue says why it must."""
        return self.fate.status == "survived" and self.trial.mutant.survives is not None

    @property
    def open(self) -> bool:
        """It survived for no good reason, and the catalogue says so."""
        return self.fate.status == "survived" and self.trial.mutant.open is not None

    @property
    def as_expected(self) -> bool:
        """False is what makes the run fail."""
        return self.fate.status == self.trial.mutant.expect or self.excused or self.open

    @property
    def verdict(self) -> str:
        """The check that killed it, or the word for another fate."""
        if self.fate.status == "killed":
            return self.fate.check or ""
        if self.tests_the_tool and self.as_expected:
            return f"{self.fate.status}, as it must"
        if self.tests_the_tool or self.fate.status == "error":
            return self.fate.status.upper()
        if self.open:
            return "survives, open"
        return "survives, excused" if self.excused else "SURVIVES"

    @property
    def line(self) -> str:
        """What is said about it when it ends."""
        mutant, fate = self.trial.mutant, self.fate
        killed = "killed by " if fate.status == "killed" else ""
        cases = f" after {fate.cases} cases" if fate.cases else ""
        return f"{mutant.id} in {self.trial.kernel}: {killed}{self.verdict}{cases}"


def order(rows: Sequence[Row]) -> list[Row]:
    """By op, in the order of the catalogue; the tool's own controls last."""
    return sorted(rows, key=lambda row: (row.tests_the_tool, row.trial.mutant.op))


def text(rows: Sequence[Row]) -> list[str]:
    """The table of a terminal."""
    heads = ("mutant", "kernel", "killed by", "cases", "seconds", "smallest case")
    table = [heads] + [
        (
            row.trial.mutant.id,
            row.trial.kernel,
            row.verdict,
            str(row.fate.cases or ""),
            f"{row.fate.build_seconds + row.fate.seconds:.1f}",
            row.fate.case or "",
        )
        for row in order(rows)
    ]
    widths = [max(len(line[i]) for line in table) for i in range(len(heads) - 1)]
    return [
        "  ".join([*(cell.ljust(w) for cell, w in zip(line, widths, strict=False)), line[-1]])
        for line in table
    ]


def score(rows: Sequence[Row]) -> str:
    """How many died, of how many."""
    real = [row for row in rows if not row.tests_the_tool]
    killed = [row for row in real if row.fate.status == "killed"]
    excused = sum(row.excused for row in real)
    words = [f"{len(killed)} of {len(real)} mutants killed"]
    if real:
        words[0] += f" ({len(killed) / len(real):.1%})"
    if excused:
        words.append(f"{excused} survive for a stated reason")
    words += [
        f"{count} {what}"
        for what, count in (
            ("survive and should not (open)", sum(row.open for row in real)),
            ("SURVIVE", sum(r.fate.status == "survived" and not r.as_expected for r in real)),
            ("DO NOT BUILD OR RUN", sum(r.fate.status == "error" for r in real)),
        )
        if count
    ]
    if killed:
        seconds = [row.fate.build_seconds + row.fate.seconds for row in killed]
        words.append(f"a kill takes {statistics.median(seconds):.1f} s (median), build included")
    return "; ".join(words)


def remarks(rows: Sequence[Row]) -> list[str]:
    """What a reader must know of those that did not simply die."""
    lines = []
    for row in order(rows):
        mutant = row.trial.mutant
        where = f"{mutant.id} in {row.trial.kernel}"
        if not row.as_expected:
            reason = f"\n{row.fate.reason}" if row.fate.reason else f": {mutant.what}"
            lines.append(f"{row.verdict}  {where}{reason}")
        elif row.excused or row.open:
            lines.append(f"survives  {where}: {mutant.survives or mutant.open}")
        elif mutant.survives is not None or mutant.open is not None:
            lines.append(f"killed, though the catalogue says that it survives: {where}")
    return lines


def markdown(rows: Sequence[Row], command: str, profile: str, examples: int, shrink: float) -> str:
    """The page of the docs. No column of the tables depends on the machine."""
    facts = provenance()
    parts = [
        PAGE.format(
            command=command,
            today=date.today().isoformat(),
            machine=facts["cpu"],
            python=facts["python"],
            torch=facts["torch"],
            hypothesis=hypothesis.__version__,
            examples=examples,
            profile=profile,
            shrink=shrink,
            summary=score(rows) + ".",
        )
    ]
    for op in dict.fromkeys(row.trial.mutant.op for row in order(rows) if not row.tests_the_tool):
        parts.append(f"## {op}\n")
        parts.append(_rows(row for row in order(rows) if row.trial.mutant.op == op))
    survivors = [row for row in order(rows) if row.excused]
    if survivors:
        parts.append("## Survivors, and why\n")
        parts.append(
            "".join(f"- `{r.trial.mutant.id}`: {r.trial.mutant.survives}.\n" for r in survivors)
        )
    debts = [row for row in order(rows) if row.open]
    if debts:
        parts.append("## Survivors that should not, and what is missing\n")
        parts.append("".join(f"- `{r.trial.mutant.id}`: {r.trial.mutant.open}.\n" for r in debts))
    return "\n".join(parts)


def _rows(rows: Iterable[Row]) -> str:
    lines = [
        "| mutant | kernel | defect | source | killed by | cases | smallest case |",
        "|---|---|---|---|---|---:|---|",
    ]
    for row in rows:
        if row.tests_the_tool:
            continue
        mutant, fate = row.trial.mutant, row.fate
        case = f"`{fate.case}`" if fate.case else ""
        cells = (
            f"`{mutant.id}`",
            f"`{row.trial.kernel}`",
            mutant.what,
            mutant.source,
            row.verdict,
            str(fate.cases or ""),
            case,
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
