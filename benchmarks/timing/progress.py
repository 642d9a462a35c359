"""What a run shows while it goes: a line for each row, and how long it will still take."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from benchmarks.timing.rows import Row


class Progress:
    """A pytest plugin: one line a row instead of dots."""

    def __init__(self, total: int, budget: float) -> None:
        self._total, self._budget = total, budget
        self._started = time.monotonic()
        self._done = 0
        self._statuses: Counter[str] = Counter()
        self._tty = sys.stderr.isatty()

    def begin(self, row: Row) -> None:
        """Show what is under way, where it can be overwritten."""
        if self._tty:
            sys.stderr.write(f"\r\x1b[K{self._place(1)}  {row.id} …")
            sys.stderr.flush()

    def row(self, row: Row, data: Mapping[str, Any]) -> None:
        """Show what came of a row."""
        self._done += 1
        self._statuses[data["status"]] += 1
        if data["status"] == "skipped" and self._statuses["skipped"] > 1:
            return  # the summary counts them
        clear = "\r\x1b[K" if self._tty else ""
        name = f"{row.op.name} · {row.workload.name} · {row.kernel.name}"
        sys.stderr.write(f"{clear}{self._place()}  {name}: {in_words(data)}\n")
        sys.stderr.flush()

    def _place(self, ahead: int = 0) -> str:
        return f"{self._done + ahead:4} of {self._total}, {minutes(self.left())} left"

    def left(self) -> float:
        """Seconds to the end: as before, and not beyond the budget."""
        spent = time.monotonic() - self._started
        expected = spent / max(self._done, 1) * (self._total - self._done)
        return max(0.0, min(expected, self._budget - spent) if self._done else self._budget - spent)

    @property
    def summary(self) -> str:
        """The rows by status."""
        counts = ", ".join(f"{n} {status}" for status, n in self._statuses.most_common())
        rows = f"{self._done} row{'s' * (self._done != 1)}"
        return f"{rows} in {minutes(time.monotonic() - self._started)}: {counts}"

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        return (report.outcome, "", "") if report.when == "call" else None

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.write_line(self.summary)


def minutes(seconds: float) -> str:
    """3:07"""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02}"


def in_words(data: Mapping[str, Any]) -> str:
    """A row in a few words."""
    if data["status"] != "timed":
        return f"{data['status']}: {data['reason']}".partition("\n")[0][:160]
    share = data["limit"] / data["seconds"]
    flag = ", unsteady" if data["unsteady"] else ""
    return (
        f"{readable(data['seconds'])} ± {data['spread']:.1%}, {share:.0%} of the "
        f"{data['bound']} limit, {'cold' if data['cold'] else 'warm'}{flag}"
    )


def readable(seconds: float) -> str:
    """A time with the unit that suits it."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"
