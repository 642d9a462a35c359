"""The clock on a CPU: wall time of a loop of calls."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.clock import Call, Method, Pace, copied

# A kernel under test runs in this process and could replace time.perf_counter_ns.
_now_ns = time.perf_counter_ns


class Cpu:
    """This machine's processor: wall time of a loop of calls."""

    name = "cpu"

    def __init__(self) -> None:
        self.cache_bytes = _last_cache_bytes()
        # Longer samples than the timer needs: a scheduler's interruption then moves one little.
        self.pace = Pace(step=max(timer_step(), 1e-6), burst=0.0, gap=0.0, warm_up=0.02)
        self._ticks = _processor_ticks()

    def estimate(self, calls: Sequence[Call]) -> float:
        """The fastest of a few calls, after one that may load and compile."""
        calls[0]()
        tries: list[float] = []
        while len(tries) < 2 or (len(tries) < 10 and sum(tries) < 0.02):
            start = _now_ns()
            calls[len(tries) % len(calls)]()
            tries.append((_now_ns() - start) / 1e9)
        return min(tries)

    def method(self, calls: Sequence[Call], estimate: float) -> Method:
        return Loop(calls)

    def synchronize(self) -> None:
        """Nothing runs behind a CPU call's back; what does is caught by the audit."""

    def release(self) -> None:
        """The C library does."""

    def lost(self) -> bool:
        return False

    def conditions(self) -> dict[str, float]:
        """Share of the processor's time that others took, or that was stolen, since last asked."""
        ticks, before = _processor_ticks(), self._ticks
        self._ticks = ticks
        total = sum(ticks.values()) - sum(before.values())
        if total <= 0:
            return {}
        return {"stolen": (ticks["steal"] - before["steal"]) / total}


class Loop:
    """Wall time of consecutive calls that go round the rotation."""

    name = "wall clock, loop"
    can_remember = True

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = calls
        self._next = 0

    def whole(self, calls: int) -> int:
        """At most one call on each copy: a second one would see the same values again."""
        return min(calls, len(self._calls))

    def sample(self, calls: int) -> float:
        """The mean of a loop."""
        turn = [self._calls[(self._next + i) % len(self._calls)] for i in range(calls)]
        self._next += calls
        start = _now_ns()
        for call in turn:
            call()
        return (_now_ns() - start) / 1e9 / calls

    def once(self) -> tuple[float, list[Any]]:
        """Each call once; a copy of what it returned is taken as soon as it has returned."""
        elapsed, results = 0, []
        for call in self._calls:
            start = _now_ns()
            returned = call()
            elapsed += _now_ns() - start
            results.append(copied(returned))
        return elapsed / 1e9 / len(self._calls), results

    def notes(self) -> dict[str, Any]:
        return {}


def timer_step() -> float:
    """The smallest interval that the CPU's timer tells apart, in seconds."""
    steps = []
    for _ in range(100):
        start = _now_ns()
        while (now := _now_ns()) == start:
            pass
        steps.append(now - start)
    return statistics.median(steps) / 1e9


def _last_cache_bytes() -> int:
    """Size of the largest cache of the first core, 32 MiB where the system does not say."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        scale = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:], 1)
        sizes.append(int(text.rstrip("KM")) * scale)
    return max(sizes, default=32 << 20)


def _processor_ticks() -> dict[str, int]:
    """Ticks by kind, from /proc/stat."""
    names = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
    try:
        line = Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    except OSError:
        return dict.fromkeys(names, 0)
    return dict(zip(names, map(int, line), strict=False))


def python_speed() -> float:
    """Seconds of a plain loop: shared machines differ by a factor of two from hour to hour."""
    start, total = time.process_time(), 0
    for i in range(10_000_000):
        total += i
    return time.process_time() - start
