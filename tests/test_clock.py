"""The clock's rules, on a machine that is simulated: it knows what every call really takes."""

from __future__ import annotations

import gc
import itertools
import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from benchmarks import clock
from benchmarks.clock import Allowance, Pace, Plan, Rotation, TooSlow
from benchmarks.timing import gpu
from benchmarks.timing.cpu import Cpu, Loop

CACHE = 1000


class FakeMachine:
    """A machine whose calls take ``seconds(call number)`` of its own time, and whose cache holds
    the last CACHE bytes that were touched."""

    name = "cpu"
    cache_bytes = CACHE

    def __init__(self, pace: Pace | None = None) -> None:
        self.pace = pace or Pace(step=1e-6, burst=10e-3, gap=0.0, warm_up=5e-3)
        self.now = 0.0
        self.log: list[str] = []
        self.running: list[Callable[[], Any]] = []

    def estimate(self, calls: Sequence[Any]) -> float:
        start = self.now
        calls[0]()
        return self.now - start

    def method(self, calls: Sequence[Any], estimate: float) -> FakeLoop:
        return FakeLoop(self, calls)

    def release(self) -> None:
        pass

    def lost(self) -> bool:
        return False

    def synchronize(self) -> None:
        self.log.append("sync")

    def conditions(self) -> dict[str, float]:
        return {"mhz": 1000.0 + len(self.log), "throttle_bits": 4 if self.now > 0.5 else 0}


class FakeLoop:
    name = "fake"
    can_remember = False

    def __init__(self, machine: FakeMachine, calls: Sequence[Any]) -> None:
        self.machine, self.calls = machine, itertools.cycle(calls)
        self.all = calls

    def whole(self, calls: int) -> int:
        return calls

    def sample(self, calls: int) -> float:
        self.machine.log.append("sample")
        start = self.machine.now
        for _ in range(calls):
            next(self.calls)()
        return (self.machine.now - start) / calls

    def once(self) -> tuple[float, list[Any]]:
        self.machine.log.append("once")
        start = self.machine.now
        results = [call() for call in self.all]
        return (self.machine.now - start) / len(self.all), results

    def notes(self) -> dict[str, Any]:
        return {}


class FakeKernel:
    """Calls that touch ``size`` bytes each, slow when these are not in the machine's cache."""

    def __init__(self, machine: FakeMachine, copies: int, size: int) -> None:
        self.machine, self.size, self.cached = machine, size, dict[int, None]()
        self.values = [0] * copies
        self.calls = [lambda i=i: self.run(i) for i in range(copies)]

    def run(self, copy: int) -> int:
        hit = copy in self.cached
        self.cached.pop(copy, None)
        self.cached[copy] = None
        while len(self.cached) * self.size > CACHE:
            self.cached.pop(next(iter(self.cached)))
        self.machine.now += 10e-6 if hit else 100e-6
        return self.values[copy]

    def rotation(self) -> Rotation:
        def refresh(burst: int) -> None:
            self.machine.log.append(f"refresh {burst}")

        def load() -> None:
            self.machine.log.append("load")
            self.values = [7] * len(self.values)

        return Rotation(self.calls, self.size, refresh, load)


def timed(copies: int, size: int) -> tuple[FakeMachine, clock.Audited]:
    machine = FakeMachine()
    kernel = FakeKernel(machine, copies, size)
    return machine, clock.time_rotation(kernel.rotation(), machine, Allowance(0.1, 20.0))


# Cold and warm -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 400, 1000, 5000])
def test_the_copies_that_the_clock_asks_for_make_every_call_cold(size: int) -> None:
    copies = clock.copies(size, CACHE, 10_000)
    _, audited = timed(copies, size)
    assert audited.timing.cold
    assert all(s == pytest.approx(100e-6) for s in audited.timing.samples)
    assert copies >= 2


def test_where_cold_is_out_of_reach_there_are_a_few_copies_and_no_more() -> None:
    assert (clock.LEAST_COPIES, 3) == (clock.copies(1, CACHE, 100), clock.copies(1, CACHE, 3))
    assert (2, 1) == (clock.copies(CACHE, CACHE, 100), clock.copies(CACHE, CACHE, 0))


def test_a_rotation_that_fits_in_the_cache_is_said_to_be_warm() -> None:
    _, audited = timed(5, 100)
    assert not audited.timing.cold
    assert audited.timing.seconds == pytest.approx(10e-6)


# What is measured, and when ------------------------------------------------------------------


def test_values_change_before_every_burst_and_the_audit_has_the_last_word() -> None:
    machine, audited = timed(20, 100)
    plan = audited.timing.plan
    refreshes = [line for line in machine.log if line.startswith("refresh")]
    assert [f"refresh {i}" for i in range(plan.bursts + 1)] == refreshes
    assert ["load", "sync", "once", "sync"] == machine.log[-4:]
    assert [7] * 20 == audited.results


def test_each_burst_holds_what_the_plan_says() -> None:
    machine, audited = timed(20, 100)
    plan = audited.timing.plan
    text = " ".join("r" if x.startswith("refresh") else x for x in machine.log)
    bursts = [part.split().count("sample") for part in text.split("r")[1 : plan.bursts + 1]]
    assert plan.samples == sum(bursts) == len(audited.timing.samples)
    assert max(bursts) == plan.samples_a_burst


def test_no_garbage_is_collected_while_the_clock_runs() -> None:
    states = []
    machine = FakeMachine()

    def call() -> None:
        machine.now += 1e-3
        states.append(gc.isenabled())

    clock.time_rotation(Rotation([call], bytes=1), machine, Allowance(0.05, 1.0))
    assert not any(states)
    assert gc.isenabled()


def test_the_plan_is_fixed_before_the_first_sample() -> None:
    """A kernel that becomes ten times slower is sampled as often as one that does not."""
    counts = []
    for slow in (1.0, 10.0):
        machine, calls = FakeMachine(), itertools.count()

        def call(machine: FakeMachine = machine, calls: Any = calls, slow: float = slow) -> None:
            machine.now += 1e-3 * (slow if next(calls) > 20 else 1.0)

        audited = clock.time_rotation(Rotation([call], bytes=1), machine, Allowance(0.1, 1.0))
        counts.append(len(audited.timing.samples))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("estimate", [1e-7, 1e-5, 1e-3, 0.1, 1.0])
def test_a_sample_is_long_enough_and_a_burst_short_enough(estimate: float) -> None:
    pace = Pace(step=0.5e-6, burst=5e-3, gap=5e-3, warm_up=1e-2)
    calls = clock.calls_wanted(estimate, pace)
    plan = clock.make_plan(estimate, calls, pace, Allowance(1.0, 20.0))
    assert calls * estimate >= clock.STEPS_A_SAMPLE * pace.step * 0.999
    assert plan.samples_a_burst == 1 or plan.samples_a_burst * calls * estimate <= pace.burst
    assert clock.LEAST_SAMPLES <= plan.samples <= clock.MOST_SAMPLES
    assert plan.samples * calls * estimate <= 20.0


def test_no_burst_shows_a_kernel_the_same_values_twice() -> None:
    """By version and address a kernel could know them; every call of a loop is on new ones. What
    comes after the samples shows the last ones again, on purpose."""
    seen: list[tuple[int, int]] = []
    version = [0]
    calls = [lambda i=i: seen.append((version[0], i)) for i in range(40)]

    def refresh(burst: int) -> None:
        version[0] += 1

    machine = Cpu()
    rotation = Rotation(calls, 1, refresh, load=lambda: refresh(0))
    clock.time_rotation(rotation, machine, Allowance(0.02, 1.0))
    timed = [key for key in seen if 0 < key[0]]
    again = clock.SEEN_PASSES * len(calls)
    assert len(timed) - again == len(set(timed)) > 5 * 40


def test_what_cannot_be_sampled_in_time_is_too_slow() -> None:
    pace = Pace(step=1e-6, burst=0.0, gap=0.0, warm_up=0.0)
    clock.make_plan(2.9, 1, pace, Allowance(1.0, 20.0))
    with pytest.raises(TooSlow, match=r"3\.1 s"):
        clock.make_plan(3.1, 1, pace, Allowance(1.0, 20.0))


@pytest.mark.parametrize(("seconds", "copies"), [(0.01, 40), (0.1, 10), (0.3, 3), (1.0, 2)])
def test_the_passes_of_a_slow_kernel_go_over_few_copies(seconds: float, copies: int) -> None:
    machine = FakeMachine()
    calls: list[int] = []

    def call(i: int) -> int:
        machine.now += seconds
        calls.append(i)
        return i

    rotation = Rotation([lambda i=i: call(i) for i in range(40)], CACHE // 10)
    audited = clock.time_rotation(rotation, machine, Allowance(1.0, 20.0))
    assert list(range(copies)) == sorted(set(calls)) == audited.results
    assert (copies, copies >= 20) == (audited.timing.copies, audited.timing.cold)
    assert machine.now < 20.0


def test_a_kernel_that_remembers_is_slower_on_fresh_values() -> None:
    machine = FakeMachine()
    seen: set[int] = set()
    value = [0]

    def call() -> None:
        machine.now += 1e-6 if value[0] in seen else 1e-3
        seen.add(value[0])

    def refresh(burst: int) -> None:
        value[0] = burst + 1

    rotation = Rotation([call], 1, refresh, load=lambda: refresh(10**6))
    timing = clock.time_rotation(rotation, machine, Allowance(0.5, 5.0)).timing
    assert timing.remembers
    _, honest = timed(20, 100)
    assert not honest.timing.remembers


def test_conditions_are_summed_up() -> None:
    states = [{"mhz": 3.0, "throttle_bits": 4}, {"mhz": 1.0, "throttle_bits": 64}, {"mhz": 2.0}]
    assert {"mhz": [1.0, 2.0, 3.0], "throttle_bits": 68} == clock.summarise(states)


# Statistics ----------------------------------------------------------------------------------


def test_quantiles_are_those_of_the_library() -> None:
    values = [random.Random(3).gauss(0, 1) for _ in range(101)]
    cuts = statistics.quantiles(values, n=10, method="inclusive")
    assert cuts == pytest.approx([clock.quantile(values, i / 10) for i in range(1, 10)])
    assert (min(values), max(values)) == (clock.quantile(values, 0), clock.quantile(values, 1))


@pytest.mark.parametrize("n", [10, 40, 200])
def test_the_interval_covers_the_median_as_often_as_it_says(n: int) -> None:
    drawn = random.Random(n)
    true = 1.0 + math.log(2)
    covered = 0
    for _ in range(1500):
        low, high = clock.interval([1.0 + drawn.expovariate(1.0) for _ in range(n)])
        covered += low <= true <= high
    assert 0.93 < covered / 1500 < 0.99
    samples = [1.0 + drawn.expovariate(1.0) for _ in range(n)]
    low, high = clock.interval(samples)
    assert clock.spread(samples) == pytest.approx((high - low) / 2 / statistics.median(samples))


def test_one_sample_says_nothing_of_its_spread() -> None:
    assert math.inf == clock.spread([1.0])
    assert clock.spread([1.0, 1.0, 1.0]) == 0.0


# The CPU -------------------------------------------------------------------------------------


def test_the_cpu_clock_finds_how_long_a_sleep_takes() -> None:
    calls = [lambda: time.sleep(2e-3)] * 3
    rotation = Rotation(calls, bytes=1 << 40)
    timing = clock.time_rotation(rotation, Cpu(), Allowance(0.1, 5.0)).timing
    assert 2e-3 <= timing.seconds < 4e-3
    assert timing.cold


def test_a_kernel_cannot_replace_the_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "perf_counter_ns", lambda: 0)
    rotation = Rotation([lambda: time.sleep(2e-3)], bytes=1)
    assert clock.time_rotation(rotation, Cpu(), Allowance(0.05, 5.0)).timing.seconds >= 2e-3


def test_the_audit_copies_results_when_the_call_returns() -> None:
    torch = pytest.importorskip("torch")
    shared = torch.zeros(2)

    def call() -> Any:
        shared.add_(1)
        return shared

    _, results = Loop([call, call]).once()
    assert [1.0, 2.0] == [float(r[0][0]) for r in results]


# The GPU's small parts that need none --------------------------------------------------------


def test_nvidia_smi_is_read() -> None:
    state = gpu.parse_smi("1980, 3201, 123.45, 41, 0x0000000000000004\n")
    assert {
        "sm_mhz": 1980,
        "memory_mhz": 3201,
        "watts": 123.45,
        "celsius": 41,
        "throttle_bits": 4,
    } == state
    assert {"sm_mhz": 1980, "celsius": 41} == gpu.parse_smi("1980, [N/A], [N/A], 41, [N/A]")
    assert {} == gpu.parse_smi("")
    assert ["power cap", "hardware thermal"] == gpu.throttles(0x1 | 0x4 | 0x40)


def test_slow_sensors_are_read_rarely() -> None:
    count = itertools.count()
    read = gpu.Rarely(lambda: {"n": next(count)}, every=60)
    assert [{"n": 0}, {}, {}] == [read(), read(), read()]


def test_a_plan_counts_its_bursts() -> None:
    assert Plan(1, 10, 4, 0.0, 1).bursts == 3
