"""How a run ended, for its records: a statement vouches for no run that was cut short. And whether
it passed what waivers say it fails."""

from __future__ import annotations

from typing import Any

import pytest

from conformance.coverage import parts
from yaie.record import Recorder, typed
from yaie.statement import run as runs
from yaie.statement.waivers import Waiver, unexpected_passes


class Ending:
    """Counts what came of the tests of all processes, and writes it down when all is over."""

    def __init__(self, config: pytest.Config, waivers: tuple[Waiver, ...]) -> None:
        self._config = config
        self._waivers = waivers
        self._session: pytest.Session | None = None
        self._passed = 0
        self._failed: list[str] = []
        self._skipped: dict[str, str] = {}
        self._unexpected: list[str] = []

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._session = session

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and report.nodeid not in self._failed:
            self._failed.append(report.nodeid)
        elif report.skipped:
            reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr
            self._skipped[report.nodeid] = str(reason).removeprefix("Skipped: ")
        elif report.when == "call":
            self._passed += 1

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        folder = self._option("records") / self._config.yaie_run  # type: ignore[attr-defined]
        if not self._waivers or not folder.is_dir():
            return
        passes = unexpected_passes(self._waivers, runs.read(folder).verdicts)
        self._unexpected = [
            f"{waiver}: {kernel} passed on all {cases} cases: take the waiver away"
            for waiver, kernel, cases in passes
        ]
        if self._unexpected and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self._unexpected:
            terminalreporter.write_line(line, red=True)

    def pytest_unconfigure(self) -> None:
        """After all that may still change the exit status."""
        if self._session is None:
            return
        recorder = Recorder(
            self._option("records"),
            self._config.yaie_run,  # type: ignore[attr-defined]
            self._option("profile"),
            "session",
        )
        recorder.ended(
            {
                "status": int(self._session.exitstatus),
                "command": typed("pytest", self._config.invocation_params.args),
                "op": self._option("op"),
                "kernel": self._option("kernel"),
                "keyword": self._option("keyword"),
                "parts": parts(self._config),
                "passed": self._passed,
                "failed": sorted(self._failed),
                "skipped": dict(sorted(self._skipped.items())),
            }
        )
        recorder.close()

    def _option(self, name: str) -> Any:
        return self._config.getoption(name)
