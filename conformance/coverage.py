"""Which edges of each op's domain a run has met. One that no case met fails the run: what was not
drawn was not judged."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from conformance import edges
from yaie import ops
from yaie.op import Op


class Coverage:
    """Counts the edges in the records of a run, and fails it where one is missing. A run that was
    told to leave out ops, kernels or tests is not failed: what it left out may be what meets the
    edge."""

    def __init__(self, config: pytest.Config) -> None:
        globs = config.getoption("--op"), config.getoption("--kernel")
        self._whole = globs == ("*", "*") and not parts(config) and not config.getoption("keyword")
        self._folder: Path = config.getoption("--records") / config.yaie_run  # type: ignore[attr-defined]
        self._quick = config.getoption("--profile") == "quick"
        self._missing: dict[str, list[str]] = {}

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        cases, hits = count(self._folder)
        self._missing = {
            name: missing
            for name, judged in cases.items()
            if self._whole
            and judged
            and (missing := [edge for edge in self._due(ops.OPS[name]) if not hits[name, edge]])
        }
        if self._missing and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _due(self, op: Op) -> list[str]:
        """The edges that the profile promises to meet."""
        return [edge for edge in op.edges if not (self._quick and edge.startswith(edges.LARGE))]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for name, missing in self._missing.items():
            terminalreporter.write_line(f"{name}: edges never met: {', '.join(missing)}", red=True)


def parts(config: pytest.Config) -> list[str]:
    """The modules and tests that the run was told to keep to."""
    return [arg for arg in config.args if ".py" in arg]


def count(folder: Path) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """Judged cases of each op, and of each (op, edge), in the records of a run."""
    cases: Counter[str] = Counter()
    hits: Counter[tuple[str, str]] = Counter()
    for path in folder.glob("*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if record["kind"] == "verdict" and record["status"] != "unsupported":
                cases[record["op"]] += 1
                hits.update((record["op"], edge) for edge in record["edges"])
    return cases, hits
