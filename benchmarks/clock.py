"""How long a call takes, on a CPU and on a GPU, behind one interface.

A *rotation* is a list of calls of one kernel, each with its own copy of the same arguments. The
clock goes round it, so that no call finds the data of the one before in the cache, and no two calls
in a row have the same addresses. Before every burst the rotation gets fresh contents.

What is measured, and how often, is decided from one estimate before the first sample: a rule that
stops once the noise looks small would pick lucky runs. A *machine* (Cpu and Gpu, in files of
benchmarks/timing) says how a few calls are timed; all else is here, and is tested with a simulated
machine.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

Call = Callable[[], Any]

LOST = 70
"""Exit status of a process that can time nothing any more: another goes on behind the last row."""
LEAST_SAMPLES = 5
MOST_SAMPLES = 200
STEPS_A_SAMPLE = 1000
"""A sample is this many times longer than the smallest step of its timer: 0.1 % of resolution."""
LEAST_COPIES = 16
"""A sample takes each copy once, and few short calls would make a short sample."""
COLD = 2.0
"""A rotation that touches this many times the last cache's bytes finds nothing in it."""
REMEMBERS = 2.0
"""A kernel that is always this much slower on contents it has not seen than in nine samples of ten
does not compute in the samples what it computes at first."""
SEEN_PASSES = 3
FRESH_PASSES = 12
"""How often it may show that it is not: one slow pass may be the machine's."""
PASSES = SEEN_PASSES + 2
"""Over all copies, as a rule: on seen values, on fresh ones, and one whose results are judged."""
PASSES_SHARE = 0.25
"""Of what a row may take: the passes of a slow kernel go over as few copies as fit."""


class TooSlow(Exception):
    """A few calls would take longer than the row may."""


@dataclass(frozen=True)
class Rotation:
    """Calls on copies of one set of arguments. ``refresh(n)`` changes their values for burst n
    (shapes, lengths and indices stay); ``bytes`` is what one call must touch. ``load`` gives every
    copy the contents that the audit knows the answer for."""

    calls: Sequence[Call]
    bytes: int
    refresh: Callable[[int], None] = lambda burst: None
    load: Callable[[], None] = lambda: None

    def cold(self, cache_bytes: int) -> bool:
        """Whether the data of a call has left the cache when its turn comes again."""
        return self.bytes * len(self.calls) >= COLD * cache_bytes


def copies(bytes_a_call: int, cache_bytes: int, room: int) -> int:
    """Copies of the arguments that a rotation gets: as many as it takes to be cold, at least a few.
    Where there is no room for that many, a few, for more would only make it half cold."""
    few = LEAST_COPIES if bytes_a_call < cache_bytes else 2
    wanted = max(few, math.ceil(COLD * cache_bytes / max(bytes_a_call, 1)))
    return max(1, wanted if wanted <= room else min(few, room))


@dataclass(frozen=True)
class Plan:
    """What will be measured, fixed before the first sample."""

    calls: int
    """in a sample"""
    samples: int
    samples_a_burst: int
    gap: float
    """seconds of rest before a burst"""
    warm_up: int
    """calls before the first sample"""

    @property
    def bursts(self) -> int:
        return math.ceil(self.samples / self.samples_a_burst)


@dataclass(frozen=True)
class Pace:
    """How a machine likes to be measured: seconds of one burst at most (longer ones run into power
    limits), of the rest before it, and of running before the first sample."""

    step: float
    burst: float
    gap: float
    warm_up: float


@dataclass(frozen=True)
class Allowance:
    """Seconds that the samples of a row should take, and must not exceed."""

    wanted: float = 1.0
    most: float = 20.0


class Method(Protocol):
    """One way to time a rotation on a machine."""

    name: str

    can_remember: bool
    """whether the kernel's host code runs in every call, and could know values again"""

    def whole(self, calls: int) -> int:
        """How many calls a sample really has when this many are wanted."""

    def sample(self, calls: int) -> float:
        """Seconds a call: the mean of the next ``calls`` calls."""

    def once(self) -> tuple[float, list[Any]]:
        """Every call of the rotation once: seconds a call, and what each returned, in order. The
        results are copies, taken at once, before anything is waited for."""

    def notes(self) -> Mapping[str, Any]:
        """What else the record should say."""


class Machine(Protocol):
    """Where calls are timed."""

    name: str
    cache_bytes: int
    pace: Pace

    def estimate(self, calls: Sequence[Call]) -> float:
        """Seconds of one call, roughly, once everything is loaded and compiled."""

    def method(self, calls: Sequence[Call], estimate: float) -> Method:
        """The way to time calls of this length."""

    def synchronize(self) -> None:
        """Wait until everything that was started is done."""

    def release(self) -> None:
        """Give back memory that nothing uses any more: the judge's worker needs some, too."""

    def lost(self) -> bool:
        """Whether nothing can be timed in this process any more."""

    def conditions(self) -> Mapping[str, float]:
        """Clocks, temperature, load: what may change while a row is timed."""


@dataclass(frozen=True)
class Timing:
    """What one kernel took on one workload: seconds a call, sample by sample."""

    samples: tuple[float, ...]
    method: str
    plan: Plan
    copies: int
    cold: bool
    fresh: float
    """seconds a call on values that the kernel had not seen, the best of a few passes"""
    seen: float
    """the same on values that it had seen"""
    conditions: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """The figure of the row: the median."""
        return statistics.median(self.samples)

    @property
    def remembers(self) -> bool:
        """Whether the samples, and such passes on values that it had seen, were suspiciously faster
        than passes on fresh values. (Passes copy their results, which may take longer than a call.)
        """
        return self.fresh > REMEMBERS * max(self.seen, quantile(self.samples, 0.9))


# Statistics ----------------------------------------------------------------------------------


def quantile(samples: Sequence[float], q: float) -> float:
    """The q-quantile, interpolated."""
    ordered = sorted(samples)
    place = q * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def interval(samples: Sequence[float]) -> tuple[float, float]:
    """A 95 % interval of the median: from order statistics, so that no shape of the noise is
    assumed."""
    ordered, n = sorted(samples), len(samples)
    low = max(0, math.floor((n - 1.96 * math.sqrt(n)) / 2))
    return ordered[low], ordered[n - 1 - low]


def spread(samples: Sequence[float]) -> float:
    """Half that interval as a share of the median. It covers this run, not the next one."""
    median = statistics.median(samples)
    if len(samples) < 2 or median <= 0:
        return math.inf
    low, high = interval(samples)
    return (high - low) / 2 / median


# Timing --------------------------------------------------------------------------------------


def calls_wanted(estimate: float, pace: Pace) -> int:
    """Calls that make a sample long enough for the timer."""
    return max(1, math.ceil(STEPS_A_SAMPLE * pace.step / estimate))


def shortened(rotation: Rotation, estimate: float, allowance: Allowance) -> Rotation:
    """The calls on so many of the copies that the passes over them leave time for samples; on two
    at least, which must agree."""
    fitting = max(2, int(PASSES_SHARE * allowance.most / (PASSES * estimate)))
    return replace(rotation, calls=rotation.calls[:fitting])


def make_plan(
    estimate: float, calls: int, pace: Pace, allowance: Allowance, unseen: float = math.inf
) -> Plan:
    """How many samples of so many calls, how many a burst; TooSlow if too few would fit. A burst
    has at most ``unseen`` calls: so many have values that the kernel has not seen."""
    length = calls * estimate
    if LEAST_SAMPLES * length > (1 - PASSES_SHARE) * allowance.most:
        raise TooSlow(f"one call takes {estimate:.3g} s, {LEAST_SAMPLES} samples do not fit")
    in_burst = max(1, int(min(pace.burst / length, unseen / calls)))
    each = length + pace.gap / in_burst
    samples = min(MOST_SAMPLES, max(LEAST_SAMPLES, int(allowance.wanted / each)))
    return Plan(
        calls=calls,
        samples=samples,
        samples_a_burst=min(in_burst, samples),
        gap=pace.gap,
        warm_up=min(max(1, int(pace.warm_up / estimate)), 10_000),
    )


def time_rotation(rotation: Rotation, machine: Machine, allowance: Allowance) -> Audited:
    """Time a rotation, then run it on contents that nobody has seen: what it returns there is what
    the caller compares with the right answer."""
    with quiet():
        estimate = max(machine.estimate(rotation.calls), 1e-9)
        rotation = shortened(rotation, estimate, allowance)
        method = machine.method(rotation.calls, estimate)
        calls = method.whole(calls_wanted(estimate, machine.pace))
        unseen = len(rotation.calls) if method.can_remember else math.inf
        plan = make_plan(estimate, calls, machine.pace, allowance, unseen)
        warm = 0
        while warm < plan.warm_up:
            method.sample(plan.calls)
            warm += plan.calls
        states, samples = [machine.conditions()], []
        for burst in range(plan.bursts):
            rotation.refresh(burst)
            machine.synchronize()
            time.sleep(plan.gap)
            for _ in range(min(plan.samples_a_burst, plan.samples - len(samples))):
                samples.append(method.sample(plan.calls))
            states.append(machine.conditions())
        seen = min(method.once()[0] for _ in range(SEEN_PASSES))
        fresh, suspicious = math.inf, REMEMBERS * max(seen, quantile(samples, 0.9))
        for extra in range(FRESH_PASSES):
            if fresh <= suspicious:
                break
            rotation.load()
            rotation.refresh(plan.bursts + extra)
            machine.synchronize()
            fresh = min(fresh, method.once()[0])
        rotation.load()
        machine.synchronize()
        seconds, results = method.once()
        machine.synchronize()
    timing = Timing(
        samples=tuple(samples),
        method=method.name,
        plan=plan,
        copies=len(rotation.calls),
        cold=rotation.cold(machine.cache_bytes),
        fresh=min(fresh, seconds),
        seen=seen,
        conditions=summarise(states),
        notes=dict(method.notes()),
    )
    return Audited(timing, results)


@dataclass(frozen=True)
class Audited:
    """A timing, and what each call of the last pass returned."""

    timing: Timing
    results: Sequence[Any]


@contextmanager
def quiet() -> Iterator[None]:
    """No garbage collection inside the block."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def summarise(states: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Of each condition its least, median and largest value; of bit masks all bits seen."""
    summary: dict[str, Any] = {}
    for name in dict.fromkeys(key for state in states for key in state):
        values = [state[name] for state in states if name in state]
        if name.endswith("_bits"):
            bits = 0
            for value in values:
                bits |= int(value)
            summary[name] = bits
        else:
            summary[name] = [min(values), statistics.median(values), max(values)]
    return summary


def copied(returned: Any) -> tuple[Any, ...]:
    """What a kernel returned, as a tuple of copies. What is no plain tensor stays what it is."""
    if returned is None:
        return ()
    parts = returned if isinstance(returned, (tuple, list)) else (returned,)
    return tuple(part.clone() if _is_plain_tensor(part) else part for part in parts)


def _is_plain_tensor(value: Any) -> bool:
    import torch  # here, so that the clock itself needs no torch

    return type(value) is torch.Tensor
