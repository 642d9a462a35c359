"""What a conformance run shows while it works: one line for each kernel, and a line that moves."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

REFRESH_S = 0.5
PLAIN_REFRESH_S = 15.0


class Progress:
    """Counts the lines of the run's record files, so it sees the cases of every process."""

    def __init__(self, config: pytest.Config) -> None:
        self._folder: Path = config.getoption("--records") / config.yaie_run  # type: ignore[attr-defined]
        self._started = time.monotonic()
        self._total = self._done = self._failed = 0
        self._sizes: dict[Path, tuple[int, int]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def pytest_sessionstart(self) -> None:
        # A descriptor of our own: while a test runs, pytest captures the ordinary ones.
        self._out = open(os.dup(sys.__stderr__.fileno()), "w")  # noqa: SIM115
        self._tty = self._out.isatty()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._total = self._total or len(session.items)

    @pytest.hookimpl(tryfirst=True)  # the first plugin that runs the tests ends the hook
    def pytest_runtestloop(self) -> None:
        self._thread.start()

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self._total = len(ids)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self._failed += report.failed
        if report.when != "teardown":
            return
        self._done += 1
        summary = dict(report.user_properties).get("summary")
        if summary:
            name = report.nodeid.partition("[")[2].rstrip("]")
            self._print(f"{self._done:3} of {self._total}  {name}: {summary}")

    def pytest_sessionfinish(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._clear()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        cases, seconds = self._cases(), time.monotonic() - self._started
        terminalreporter.write_line(
            f"{cases} cases judged in {seconds:.1f} s ({cases / max(seconds, 1e-9):.0f} a second); "
            f"records: {self._folder}"
        )

    def _watch(self) -> None:
        while not self._stop.wait(REFRESH_S if self._tty else PLAIN_REFRESH_S):
            if not self._total:  # xdist is still starting its processes, and says so itself
                continue
            cases, seconds = self._cases(), time.monotonic() - self._started
            failed = f", {self._failed} FAILED" if self._failed else ""
            line = (
                f"{self._done} of {self._total} tests, {cases} cases, "
                f"{cases / seconds:.0f} a second{failed}"
            )
            self._write(f"\r\x1b[K{line}" if self._tty else f"{line}\n")

    def _print(self, line: str) -> None:
        self._clear()
        self._write(f"{line}\n")

    def _clear(self) -> None:
        if self._tty:
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()

    def _cases(self) -> int:
        """Records so far: lines of every file but its first."""
        total = 0
        for path in self._folder.glob("*.jsonl"):
            offset, lines = self._sizes.get(path, (0, -1))
            with path.open("rb") as file:
                file.seek(offset)
                chunk = file.read()
            self._sizes[path] = (offset + len(chunk), lines + chunk.count(b"\n"))
            total += max(self._sizes[path][1], 0)
        return total
