"""How often the gate is wrong: `python -m benchmarks.gate --selftest [--attacks] [--suites 1000]`.

For every kind of noise in benchmarks/gate/proof/noise.py: suites of 200 benchmarks of which none
changed (how many do not pass?) and suites in which ten became slower (how many of those are
found?). Each suite runs the whole gate: a canary, 20 controls, both stages. The exit status is 1
if a promise of docs/gate.md is broken; for the attacks, only the rate of false alarms is promised.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats as distributions

from benchmarks import stats
from benchmarks.gate.proof import noise
from benchmarks.timing.options import shares
from yaie.command.arguments import positive

BENCHES, SLOWED, CONTROLS = 200, 10, 20
TAILS = (0.1, 0.25)
CHUNK = 25
"""Suites simulated at once; each chunk has a seed of its own, whatever their number."""


@dataclass(frozen=True)
class Plan:
    """Processes and pairs of the two stages. Fixed before a run, never adapted to its results."""

    screen: tuple[int, int] = (6, 8)
    confirm: tuple[int, int] = (12, 12)


@dataclass(frozen=True)
class Task:
    """Some suites of one kind. The fields that are functions are for comparing estimators."""

    shape: str
    slowdown: float
    suites: int
    seed: int
    plan: Plan = Plan()
    rule: stats.Rule = stats.RULE
    benches: int = BENCHES
    tail: float = 0.0
    """Share of the rounds of a slowed benchmark's head that take half as long again."""
    locate: Callable[..., stats.Located] = stats.locate
    fit: Callable[[stats.Located, stats.Rule], stats.Prior] = stats.fit_prior
    then: str = ""
    """The noise of the second stage, if it is another."""
    one_stage: bool = False
    """Judge all benchmarks by the rounds of the first stage."""

    @property
    def changed(self) -> bool:
        return self.slowdown > 0 or self.tail > 0


def shape_of(name: str) -> noise.Shape:
    return {**noise.SHAPES, **noise.ATTACKS, **noise.LIMITS}[name]


def simulate(task: Task) -> Counter[str]:
    """Put suites through the gate and count what it says."""
    rng = np.random.default_rng([task.seed, *task.shape.encode()])
    shape, size = shape_of(task.shape), task.benches + CONTROLS + 1
    control = np.zeros(size, bool)
    control[task.benches : -1] = True
    slowdown = np.zeros(size)
    slowdown[: min(SLOWED, task.benches)] = task.slowdown
    slowdown[-1] = task.rule.handicap
    benches = noise.draw(rng, shape, task.suites, slowdown, control)
    # A canary is chosen for being neither the calmest nor the noisiest of benchmarks.
    benches.jitter[size - 1 :: size] = np.sqrt(np.prod(shape.jitter))
    for i in range(min(SLOWED, task.benches)):
        benches.tail[i::size] = task.tail

    rounds = noise.measure(rng, shape, benches, *task.plan.screen)
    located = task.locate(rounds.base, rounds.head, rounds.head_first, task.rule)
    suites = [
        _screen(located[slice(i * size, (i + 1) * size)], control, task) for i in range(task.suites)
    ]
    again = np.concatenate([i * size + suite.suspects for i, suite in enumerate(suites)])
    if task.one_stage:
        located = located[again]
    else:
        shape = shape_of(task.then or task.shape)
        rounds = noise.measure(rng, shape, benches[again], *task.plan.confirm)
        located = task.locate(rounds.base, rounds.head, rounds.head_first, task.rule)
    counts: Counter[str] = Counter(suites=task.suites)
    start = 0
    for suite in suites:
        end = start + len(suite.suspects)
        counts.update(_count(suite, located[slice(start, end)], task))
        start = end
    return counts


@dataclass(frozen=True)
class _Suite:
    prior: stats.Prior
    faults: list[str]
    suspects: NDArray[np.intp]
    suspicion: stats.Suspicion


def _screen(located: stats.Located, control: NDArray[np.bool_], task: Task) -> _Suite:
    prior = task.fit(located, task.rule)
    found = stats.estimate(located, prior)
    processes = located.ratio.shape[1]
    labels = np.tile(np.arange(processes).astype(object), (len(control), 1))
    faults = stats.distrust(located, found, 0.5, labels, control, len(control) - 1, task.rule)
    suspicion = stats.suspect(located, found, task.rule)
    if task.one_stage:
        suspicion = replace(suspicion, slower=np.ones(len(control), bool))
    suspects = np.flatnonzero(suspicion.any[: task.benches])
    return _Suite(prior, faults, suspects, suspicion[suspects])


def _count(suite: _Suite, located: stats.Located, task: Task) -> Counter[str]:
    found = stats.estimate(located, suite.prior)
    decision = stats.decide(located, found, suite.suspicion, task.rule)
    slower, open_ = decision.verdict == stats.REGRESSION, decision.verdict == stats.INCONCLUSIVE
    truly = (suite.suspects < SLOWED) & task.changed
    run = stats.outcome(
        suite.faults, int(slower.sum()), 0, int(open_.sum()), task.benches, task.rule
    )
    return Counter(
        {
            f"run {run}": 1,
            "false regression": int((slower & ~truly).any()),
            "false improvement": int((decision.verdict == stats.IMPROVED).any()),
            "false tail": int((decision.tail & ~truly).any()),
            "tail found": int((decision.tail & truly).sum()),
            "fault": int(bool(suite.faults)),
            "suspects": len(suite.suspects),
            "inconclusive": int(open_.sum()),
            "slowed": min(SLOWED, task.benches) * task.changed,
            "found": int((slower & truly).sum()),
            "fine": int(((decision.verdict == stats.OK) & truly).sum()),
        }
    )


def upper(hits: int, n: int) -> float:
    """Clopper-Pearson, 95 % one-sided: the rate is not higher than this."""
    return 1.0 if hits >= n else float(distributions.beta.ppf(0.95, hits + 1, n - hits))


def lower(hits: int, n: int) -> float:
    """Clopper-Pearson, 95 % one-sided: the rate is not lower than this."""
    return 0.0 if hits <= 0 else float(distributions.beta.ppf(0.05, hits, n - hits + 1))


def run_all(tasks: Iterable[Task], jobs: int) -> Iterator[tuple[Task, Counter[str]]]:
    """Simulate, in chunks, on several processes; yields each task as it ends."""
    tasks = list(tasks)
    chunks = [
        (i, replace(task, suites=min(CHUNK, task.suites - at), seed=task.seed * 1000 + at))
        for i, task in enumerate(tasks)
        for at in range(0, task.suites, CHUNK)
    ]
    left = Counter(i for i, _ in chunks)
    totals = [Counter[str]() for _ in tasks]
    with ProcessPoolExecutor(jobs) as pool:
        results = pool.map(simulate, [chunk for _, chunk in chunks])
        for done, ((i, _), counts) in enumerate(zip(chunks, results, strict=True), 1):
            totals[i].update(counts)
            left[i] -= 1
            if sys.stderr.isatty():
                print(f"\r{done} of {len(chunks)} chunks", end="\r", file=sys.stderr, flush=True)
            if not left[i]:
                yield tasks[i], totals[i]


HEAD = (
    "| noise | not passed | ≤ | false regression | ≤ | untrusted | suspects | no verdict |"
    " false improvement | false tail |"
    "\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
)


def null_row(task: Task, n: Counter[str]) -> str:
    suites = n["suites"]
    failed = suites - n["run pass"]

    def percent(name: str) -> str:
        return f"{n[name] / suites:.1%}"

    return (
        f"| {task.shape} | {failed / suites:.1%} | {upper(failed, suites):.1%} "
        f"| {percent('false regression')} | {upper(n['false regression'], suites):.1%} "
        f"| {percent('run untrusted')} | {n['suspects'] / suites:.1f} "
        f"| {n['inconclusive'] / suites:.2f} | {percent('false improvement')} "
        f"| {percent('false tail')} |"
    )


def power_row(shape: str, powers: dict[float, Counter[str]]) -> str:
    cells = [
        f"{n['found'] / n['slowed']:.1%} (≥ {lower(n['found'], n['slowed']):.1%})"
        for n in powers.values()
    ]
    three = powers.get(0.03)
    missed = f"{three['fine'] / three['slowed']:.1%}" if three else ""
    return f"| {shape} | " + " | ".join(cells) + f" | {missed} |"


def broken(shape: str, null: Counter[str], powers: dict[float, Counter[str]]) -> list[str]:
    """Promises that these counts break."""
    suites, promised = null["suites"], shape in noise.SHAPES
    alarms = suites - null["run pass"] if promised else null["false regression"]
    faults = []
    if alarms > 0.02 * suites or upper(alarms, suites) > 0.04:
        faults.append(f"{shape}: {alarms} of {suites} suites without a change failed")
    least = 0.90 if shape == "hostile" else 0.95
    three = powers.get(0.03)
    if promised and three and three["found"] < least * three["slowed"]:
        faults.append(f"{shape}: {three['found']} of {three['slowed']} slowdowns of 3 % found")
    return faults


def stages(text: str) -> Plan:
    """Two stages of the command line, as 6x8,12x12."""
    (a, b), (c, d) = (map(positive, stage.split("x")) for stage in text.split(","))
    return Plan((a, b), (c, d))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gate --selftest",
        description=(__doc__ or "").partition("\n")[0],
    )
    parser.add_argument("--suites", type=positive, default=1000, help="without a change, per noise")
    parser.add_argument(
        "--slowed", type=positive, default=100, help="suites per slowdown and noise"
    )
    parser.add_argument("--slowdowns", type=shares, default="0.02,0.03,0.05,0.10", metavar="X,...")
    parser.add_argument("--benches", type=positive, default=BENCHES, help="benchmarks in a suite")
    parser.add_argument("--noise", action="append", choices=[*noise.SHAPES, *noise.ATTACKS])
    parser.add_argument("--attacks", action="store_true", help="noise it was not tuned on")
    parser.add_argument(
        "--plan", type=stages, default="6x8,12x12", help="processes x pairs of both stages"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=positive, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", metavar="FILE", help="write all counts there")
    args = parser.parse_args(argv)
    shapes = args.noise or list(noise.ATTACKS if args.attacks else noise.SHAPES)
    plan, slowdowns = args.plan, args.slowdowns
    tasks = [
        Task(shape, x, args.slowed if x else args.suites, args.seed + i, plan, benches=args.benches)
        for shape in shapes
        for i, x in enumerate([0.0, *slowdowns])
    ]
    tasks += [
        Task(shape, 0.0, args.slowed, args.seed + 50 + i, plan, benches=args.benches, tail=share)
        for shape in shapes
        for i, share in enumerate(TAILS)
    ]
    start = time.perf_counter()
    nulls: dict[str, Counter[str]] = {}
    powers: dict[str, dict[float, Counter[str]]] = {}
    tails: dict[str, list[Counter[str]]] = {}
    print(
        f"{args.suites} suites of {args.benches} benchmarks without a change\n\n{HEAD}", flush=True
    )
    for task, counts in run_all(tasks, args.jobs):
        if task.tail:
            tails.setdefault(task.shape, []).append(counts)
        elif task.slowdown:
            powers.setdefault(task.shape, {})[task.slowdown] = counts
        else:
            nulls[task.shape] = counts
            print(null_row(task, counts), flush=True)
    slowed = min(SLOWED, args.benches)
    print(f"\n{args.slowed} suites with {slowed} slower benchmarks: how many of them are found\n")
    print("| noise | " + " | ".join(f"{x:.0%}" for x in slowdowns) + " | 3 % called OK |")
    print("|---|" + "---:|" * (len(slowdowns) + 1))
    for shape, found in powers.items():
        print(power_row(shape, found))
    print(
        f"\n{args.slowed} suites with {slowed} benchmarks of which a share of rounds takes half as"
    )
    print("long again: tail regressions reported, and called slower as a whole\n")
    print("| noise | " + " | | ".join(f"{x:.0%} of rounds" for x in TAILS) + " | |")
    print("|---|" + "---:|" * (2 * len(TAILS)))
    for shape, counts_of in tails.items():
        cells = [
            f"{n['tail found'] / n['slowed']:.1%} | {n['found'] / n['slowed']:.1%}"
            for n in counts_of
        ]
        print(f"| {shape} | " + " | ".join(cells) + " |")
    print(f"\n{time.perf_counter() - start:.0f} s with {args.jobs} processes")
    if args.json:
        data = {s: {0.0: nulls[s], **powers.get(s, {})} for s in nulls}
        with open(args.json, "w") as file:
            json.dump(
                {s: {**kinds, "tails": tails[s]} for s, kinds in data.items()}, file, indent=1
            )
    faults = [fault for s in nulls for fault in broken(s, nulls[s], powers.get(s, {}))]
    print("\n".join(faults) or "every promise is kept")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
