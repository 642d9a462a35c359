"""Synthetic timings of two builds on machines that disturb them in known ways.

A `Shape` says how a machine errs; `draw` makes the benchmarks of many suites, `measure` times
them: in every process each benchmark runs as pairs of bursts, AB BA AB BA …, and a round is one
burst. All figures are relative (0.01 = 1 %). What the gate makes of these timings is proved in
benchmarks/gate/proof/selftest.py; docs/gate.md has the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]

ROUND = 0.010
"""Seconds from the start of one burst to the start of the next."""


@dataclass(frozen=True)
class Shape:
    """One kind of machine. ``models`` names the real effect that it stands for."""

    models: str
    jitter: tuple[float, float]
    """Standard deviation of a round, log-uniform over the benchmarks."""
    heavy: float | None = None
    """Degrees of freedom, if the jitter follows Student's t instead of a normal distribution."""
    correlation: float = 0.0
    """Of the jitter of successive rounds."""
    drift: float = 0.0
    """Standard deviation of an Ornstein-Uhlenbeck drift with a time constant of 120 s."""
    ramp: float = 0.0
    """Warming up: slower by this in the end, with a time constant of 20 s."""
    clock: tuple[float, float] = (0.0, 0.0)
    """How much slower, and for what share of the time, the clock's low state is (dwell 2 s)."""
    band: float = 0.0
    """Standard deviation of what a process adds to both builds alike."""
    build: float = 0.0
    """Standard deviation of what a process adds to each build on its own (addresses, caches)."""
    layout: float = 0.0
    """Standard deviation of what a rebuild of the same code changes. It counts as no change."""
    outliers: float = 0.0
    """Share of rounds that an Exp(25 %) delays."""
    stolen: tuple[float, float] = (0.0, 1.0)
    """Share of rounds that lose the CPU (1.8 to 4 times slower), and mean length of such a run."""
    placement: tuple[float, float] = (0.0, 0.0)
    """Chance that a build is badly placed in a process, and how much slower it is then."""
    power: tuple[float, float] = (0.0, 0.0)
    """Sawtooth: slower by up to this as work piles up, then a rest; and its period in rounds."""
    second: float = 0.0
    """How much slower the second burst of a pair is than the first."""
    neighbour: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Another job: slower by this much, every so many seconds, for so many seconds."""
    fast: float = 0.0
    """Share of rounds that the clock reports 30 % too short."""
    shared: float = 0.0
    """Standard deviation of what a process adds to every benchmark of the head build alike."""
    stray: tuple[float, float] = (0.0, 0.0)
    """Chance that a process times the head of a benchmark wrongly, and by how much (either way)."""
    start: tuple[float, float] = (0.0, 1.0)
    """How much slower a process begins, and after how many rounds that is down to a third."""
    hits: tuple[float, float] = (0.0, 0.0)
    """Chance that a round runs in a slower mode, and how much slower."""
    tick: float = 0.0
    """Resolution of the clock, relative to the shortest time a benchmark may take."""


TYPICAL = Shape(
    "a dedicated machine, clocks not locked",
    jitter=(0.003, 0.03), drift=0.006, ramp=0.008, clock=(0.02, 0.15), band=0.006, build=0.002,
    layout=0.002, outliers=0.01,
)  # fmt: skip

SHAPES = {
    "quiet": Shape(
        "a dedicated machine, clocks locked",
        jitter=(0.001, 0.01), drift=0.002, ramp=0.003, clock=(0.007, 0.05), band=0.003,
        build=0.001, layout=0.001, outliers=0.003,
    ),
    "typical": TYPICAL,
    "hostile": Shape(
        "a shared machine that also throttles",
        jitter=(0.005, 0.05), drift=0.015, ramp=0.02, clock=(0.06, 0.30), band=0.01,
        build=0.004, layout=0.003, outliers=0.03,
    ),
    "stolen": replace(
        TYPICAL, models="a virtual machine: a fifth of the rounds lose their CPU", stolen=(0.19, 1)
    ),
    "placement": replace(
        TYPICAL,
        models="addresses fall well or badly, per process and build: huge pages, cache sets",
        placement=(0.2, 0.015),
    ),
    "power cap": replace(
        TYPICAL,
        models="a power-capped GPU slows while bursts follow each other, and after each burst",
        power=(0.05, 7.3), second=0.006,
    ),
}  # fmt: skip
"""What the figures of the gate are promised for."""

ATTACKS = {
    "two clocks": replace(TYPICAL, models="boost and base clock, 25 % apart", clock=(0.25, 0.4)),
    "slow drift": replace(TYPICAL, models="a room that warms up", drift=0.3, ramp=0.2),
    "neighbour": replace(
        TYPICAL, models="a periodic job of 0.1 s every 0.37 s", neighbour=(0.2, 0.37, 0.1)
    ),
    "beat": replace(
        TYPICAL, models="a job in step with the pairs", neighbour=(0.04, 4 * ROUND, 2 * ROUND)
    ),
    "correlated": replace(TYPICAL, models="noise that lasts for many rounds", correlation=0.95),
    "heavy tails": replace(TYPICAL, models="jitter with infinite variance", heavy=1.5),
    "wide": replace(TYPICAL, models="very noisy benchmarks", jitter=(0.05, 0.3)),
    "strays": replace(
        TYPICAL, models="a process in 20 times one build 12 % wrongly", stray=(0.05, 0.12)
    ),
    "shared offset": replace(
        TYPICAL, models="a process favours one build as a whole", shared=0.01
    ),
    "fast rounds": replace(TYPICAL, models="a clock that skips", fast=0.03),
    "coarse clock": replace(TYPICAL, models="a clock that ticks every 2 %", tick=0.02),
    "long thefts": replace(
        TYPICAL, models="CPU stolen for a dozen rounds at a time", stolen=(0.3, 12)
    ),
    "half stolen": replace(TYPICAL, models="half the rounds lose their CPU", stolen=(0.5, 1)),
    "slow start": replace(
        TYPICAL, models="cold caches and clocks at first, in a round of base", start=(0.4, 1.0)
    ),
    "two modes": replace(
        TYPICAL, models="three rounds in ten are 8 % slower, on either side", hits=(0.3, 0.08)
    ),
    "offsets of 1 %": replace(
        TYPICAL, models="each process favours a build by a random 1 %", build=0.00707
    ),
    "second slower": replace(TYPICAL, models="the second burst is 4 % slower", second=0.04),
}  # fmt: skip
"""What the estimators were not tuned on: alarms must stay rare, the power may go."""

LIMITS = {
    "rebuild 0.4 %": replace(TYPICAL, models="code whose speed hangs on its layout", layout=0.004),
    "rebuild 0.6 %": replace(TYPICAL, models="the same, worse", layout=0.006),
}
"""What breaks the gate unless `Rule.floor` and `Rule.margin` are raised."""


@dataclass(frozen=True)
class Benches:
    """Benchmarks, flat over suites: what of them stays the same from process to process."""

    suite: NDArray[np.intp]
    seconds: Array
    jitter: Array
    head: Array
    """Log-ratio head / base: rebuilding plus the slowdown under test."""
    tail: Array
    """Share of the rounds of head that take half as long again: a tail regression."""

    def __getitem__(self, which: NDArray[np.intp]) -> Benches:
        return Benches(**{name: value[which] for name, value in vars(self).items()})


@dataclass(frozen=True)
class Rounds:
    """Seconds of both sides, [bench, process, pair], and whether head ran first in each pair."""

    base: Array
    head: Array
    head_first: NDArray[np.bool_]


def draw(
    rng: np.random.Generator, shape: Shape, suites: int, slowdown: Array, identical: Array
) -> Benches:
    """Benchmarks of many suites.

    ``slowdown`` says, for each benchmark of a suite, how much slower its head is (0.03 = 3 %);
    ``identical``, which of them have the same machine code on both sides, so no layout effect.
    """
    n = suites * len(slowdown)
    log_uniform = np.log(shape.jitter)
    layout = rng.normal(0, shape.layout, n) * ~np.tile(identical.astype(bool), suites)
    return Benches(
        suite=np.repeat(np.arange(suites), len(slowdown)),
        seconds=np.exp(rng.uniform(np.log(5e-6), np.log(5e-3), n)),
        jitter=np.exp(rng.uniform(*log_uniform, n)),
        head=layout + np.tile(np.log1p(slowdown), suites),
        tail=np.zeros(n),
    )


def measure(
    rng: np.random.Generator, shape: Shape, benches: Benches, processes: int, pairs: int
) -> Rounds:
    """Time both builds in ``processes`` fresh processes, ``pairs`` pairs of rounds in each."""
    n, rounds = len(benches.seconds), 2 * pairs
    size = (n, processes, rounds)
    head_first = np.arange(pairs) % 2 == 1
    is_head = np.stack([head_first, ~head_first], axis=1).ravel()
    log = benches.jitter[:, None, None] * _jitter(rng, shape, size)
    log += (np.log(benches.seconds)[:, None] + rng.normal(0, shape.band, size[:2]))[:, :, None]
    log += _drift(rng, shape, size)
    side = rng.normal(0, shape.build, (n, processes, 2))
    side += shape.placement[1] * (rng.random((n, processes, 2)) < shape.placement[0])
    side[:, :, 1] += benches.head[:, None]
    side[:, :, 1] += rng.normal(0, shape.shared, (benches.suite.max(initial=0) + 1, processes))[
        benches.suite
    ]
    stray = rng.random((n, processes)) < shape.stray[0]
    side[:, :, 1] += shape.stray[1] * stray * rng.choice([-1, 1], (n, processes))
    log += side[:, :, is_head.astype(int)]
    log += _clock(rng, shape, size) + _interference(rng, shape, size)
    seconds = np.exp(log)
    if benches.tail.any():
        hit = rng.random(size) < np.where(is_head, benches.tail[:, None, None], 0)
        seconds[hit] *= 1.5
    if shape.tick:
        tick = shape.tick * 5e-6
        seconds = np.maximum(np.round(seconds / tick), 1) * tick
    return Rounds(
        np.ascontiguousarray(seconds[:, :, ~is_head]),
        np.ascontiguousarray(seconds[:, :, is_head]),
        head_first,
    )


def frame(rounds: Rounds, benches: Sequence[str], processes: Sequence[object]) -> pd.DataFrame:
    """The rounds as the samples that `stats.screen` and `stats.confirm` take."""
    bench, process, pair = (i.ravel() for i in np.indices(rounds.base.shape))
    first = rounds.head_first[pair].astype(int)
    shared = {
        "bench": np.asarray(benches, object)[bench],
        "process": pd.Series(list(processes), dtype=object).to_numpy()[process],
        "pair": pair,
    }
    base = pd.DataFrame(
        {**shared, "side": "base", "order": 2 * pair + first, "seconds": rounds.base.ravel()}
    )
    head = pd.DataFrame(
        {**shared, "side": "head", "order": 2 * pair + 1 - first, "seconds": rounds.head.ravel()}
    )
    return pd.concat([base, head], ignore_index=True)


def _jitter(rng: np.random.Generator, shape: Shape, size: tuple[int, ...]) -> Array:
    if shape.heavy:
        return np.clip(rng.standard_t(shape.heavy, size), -100, 100)
    noise = rng.standard_normal(size)
    rho = shape.correlation
    for i in range(1, size[2] if rho else 0):
        noise[:, :, i] = rho * noise[:, :, i - 1] + np.sqrt(1 - rho**2) * noise[:, :, i]
    return noise


def _drift(rng: np.random.Generator, shape: Shape, size: tuple[int, ...]) -> Array:
    """A piece of Ornstein-Uhlenbeck drift, and of the ramp, for each benchmark and process."""
    if not shape.drift and not shape.ramp:
        return np.zeros(1)
    steps = shape.drift * np.sqrt(2 * ROUND / 120) * rng.standard_normal(size)
    steps[:, :, 0] = rng.normal(0, shape.drift, size[:2])
    start = rng.uniform(0, 60, size[:2])[:, :, None]
    time = start + ROUND * np.arange(size[2])
    drift: Array = steps.cumsum(axis=2)
    return drift - shape.ramp * np.exp(-time / 20)


def _clock(rng: np.random.Generator, shape: Shape, size: tuple[int, ...]) -> Array:
    """A two-state clock, as a Markov chain over the rounds."""
    drop, share = shape.clock
    if not drop:
        return np.zeros(1)
    leave = ROUND / 2.0
    slow = _runs(rng, size, share, leave)
    return -np.log1p(-drop) * slow


def _runs(
    rng: np.random.Generator, size: tuple[int, ...], share: float, leave: float
) -> NDArray[np.bool_]:
    """Rounds in a state that takes ``share`` of the time and ends with chance ``leave``."""
    chance = rng.random(size, dtype=np.float32)
    state = np.empty(size, bool)
    state[:, :, 0] = chance[:, :, 0] < share
    enter = leave * share / (1 - share)
    for i in range(1, size[2]):
        before = state[:, :, i - 1]
        state[:, :, i] = np.where(before, chance[:, :, i] >= leave, chance[:, :, i] < enter)
    return state


def _interference(rng: np.random.Generator, shape: Shape, size: tuple[int, ...]) -> Array:
    """What slows single rounds, or rounds at certain times."""
    log = np.zeros(size)
    if shape.outliers:
        hit = np.flatnonzero(rng.random(size, dtype=np.float32) < shape.outliers)
        log.ravel()[hit] += np.log1p(rng.exponential(0.25, len(hit)))
    share, length = shape.stolen
    if share:
        hit = np.flatnonzero(_runs(rng, size, share, 1 / length if length > 1 else 1 - share))
        log.ravel()[hit] += np.log(rng.uniform(1.8, 4, len(hit)))
    if shape.power[0]:
        phase = rng.random(size[:2])[:, :, None] + np.arange(size[2]) / shape.power[1]
        log += np.log1p(shape.power[0] * (phase % 1))
    if shape.start[0]:
        log += np.log1p(shape.start[0] * np.exp(-np.arange(size[2]) / shape.start[1]))
    if shape.hits[0]:
        log += np.log1p(shape.hits[1]) * (rng.random(size, dtype=np.float32) < shape.hits[0])
    if shape.second:
        log[:, :, 1::2] += np.log1p(shape.second)
    slower, period, length = shape.neighbour
    if slower:
        time = rng.uniform(0, period, size[:2])[:, :, None] + ROUND * np.arange(size[2])
        log += np.log1p(slower) * (time % period < length)
    if shape.fast:
        log += np.log(0.7) * (rng.random(size, dtype=np.float32) < shape.fast)
    return log
