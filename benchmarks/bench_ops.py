"""Every op, kernel and workload as one pytest-benchmark test: there is no code for any one of them.

The clock of benchmarks/clock.py measures; pytest-benchmark gets its samples through a timer that is
advanced by each of them, so its statistics and its JSON hold exactly what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from benchmarks.timing.rows import Row

FAILED = ("wrong", "invalid", "error", "crash")
EXTRA = (
    *("op", "kernel", "workload", "role", "device", "case", "bytes", "flops", "limit", "bound"),
    *("method", "cold", "copies", "spread", "fresh", "plan", "conditions", "notes", "source"),
)


class Replay:
    """A timer for pytest-benchmark that stands still but for what is added to it."""

    __name__ = "yaie_samples"

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        return self._now

    def reset(self) -> None:
        """To zero, so that no digit of the next sample is lost."""
        self._now = 0.0

    def advance(self, seconds: float) -> None:
        self._now += seconds


CLOCK = Replay()


def inject(benchmark: Any, samples: Sequence[float]) -> None:
    """Give samples to pytest-benchmark, one round each."""
    left = iter(samples)
    benchmark.pedantic(
        lambda: CLOCK.advance(next(left)), setup=CLOCK.reset, rounds=len(samples), iterations=1
    )


@pytest.mark.benchmark(timer=CLOCK)
def test_op(
    row: Row,
    measured: Mapping[str, Any],
    builds: Mapping[str, Any],
    request: pytest.FixtureRequest,
) -> None:
    """One kernel on one workload."""
    if measured["status"] in FAILED:
        words = f"{measured['status']}: {measured['reason']}"
        if row.is_third_party and measured["status"] == "wrong":
            pytest.xfail(words)  # a finding of the page, and no fault of what it is about
        pytest.fail(words, pytrace=False)
    if measured["status"] != "timed":
        pytest.skip(measured["reason"])
    benchmark = request.getfixturevalue("benchmark")
    benchmark.group = f"{row.op.name}: {row.workload.name}"
    benchmark.extra_info.update({name: measured[name] for name in EXTRA})
    benchmark.extra_info["builds"] = builds
    inject(benchmark, measured["samples"])
