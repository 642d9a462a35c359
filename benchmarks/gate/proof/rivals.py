"""What else the gate could have been: `python -m benchmarks.gate.proof.rivals`.

Each choice of benchmarks/stats.py against its rivals, on the noise of
benchmarks/gate/proof/noise.py, one choice changed at a time: first how a process's pairs become
one number, then how those become a verdict. docs/gate.md holds the figures and what follows from
them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from benchmarks import stats
from benchmarks.gate.proof import noise
from benchmarks.gate.proof.selftest import Plan, Task, run_all
from benchmarks.stats import Array
from yaie.command.arguments import positive

# How the pairs of a process become one number ---------------------------------------------------


def mean(base: Array, head: Array, head_first: Array) -> Array:
    return np.log(head / base).mean(-1)


def median(base: Array, head: Array, head_first: Array) -> Array:
    return np.asarray(np.median(np.log(head / base), -1))


def hodges_lehmann(base: Array, head: Array, head_first: Array) -> Array:
    log = np.log(head / base)
    i, j = np.triu_indices(log.shape[-1])
    return np.asarray(np.median((log[..., i] + log[..., j]) / 2, -1))


def of_minima(base: Array, head: Array, head_first: Array) -> Array:
    return np.log(head.min(-1) / base.min(-1))


def of_quartiles(base: Array, head: Array, head_first: Array) -> Array:
    return np.log(np.quantile(head, 0.25, -1) / np.quantile(base, 0.25, -1))


def windowed(place: int, crossed: bool, base: Array, head: Array, head_first: Array) -> Array:
    """Pairs within 1.2 times the round at ``place`` of each side's order; then as `stats` does."""

    def fits(x: Array) -> Array:
        usual = np.sort(x, -1)[..., [place]]
        return (x <= 1.2 * usual) & (x >= usual / 1.2)

    keep = fits(base) & fits(head)
    log = np.where(keep, np.log(head / base), np.nan)
    # Two pairs are never of opposite order if the order is said to be the same for all: then
    # stats._hodges_lehmann takes the mean of any two.
    order = np.broadcast_to(head_first & crossed, log.shape)
    ratio = stats._hodges_lehmann(log, order)
    return np.where(keep.sum(-1) >= stats.RULE.least_pairs, ratio, np.nan)


ESTIMATORS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "mean": mean,
    "median": median,
    "Hodges-Lehmann": hodges_lehmann,
    "minima": of_minima,
    "quartiles": of_quartiles,
    "HL, window on fastest": partial(windowed, 0, False),
    "crossed HL, window on fastest": partial(windowed, 0, True),
    "HL, window on 2nd": partial(windowed, 1, False),
    "crossed HL, window on 2nd (chosen)": partial(windowed, 1, True),
    "crossed HL, window on 3rd": partial(windowed, 2, True),
}


def estimators(suites: int) -> None:
    """Root mean square and median size of the error, in %, where nothing changed."""
    names = list(ESTIMATORS)
    print("Error of one process, 8 pairs: root mean square / median size, % (processes lost, %)\n")
    print("| noise | " + " | ".join(names) + " |\n|---|" + "---:|" * len(names))
    for name, shape in {**noise.SHAPES, **noise.ATTACKS}.items():
        rng = np.random.default_rng(1)
        benches = noise.draw(rng, shape, suites, np.zeros(200), np.ones(200, bool))
        rounds = noise.measure(rng, shape, benches, 6, 8)
        cells = []
        for estimator in ESTIMATORS.values():
            error = 100 * np.abs(estimator(rounds.base, rounds.head, rounds.head_first))
            lost = 100 * np.isnan(error).mean()
            both = f"{np.sqrt(np.nanmean(error**2)):.2f} / {np.nanmedian(error):.2f}"
            cells.append(both + (f" ({lost:.0f})" if lost >= 0.5 else ""))
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


# How the processes become a verdict ---------------------------------------------------------------


def no_prior(located: stats.Located, rule: stats.Rule) -> stats.Prior:
    """Each benchmark's own variance: Student's t."""
    return stats.Prior(0.0, 1.0, stats.LEAST_VARIANCE)


def flat_prior(located: stats.Located, rule: stats.Rule) -> stats.Prior:
    """One expectation for all benchmarks of the suite, whatever their pairs scatter."""
    prior = stats.fit_prior(replace(located, within=np.zeros_like(located.within)), rule)
    return FlatPrior(prior.df, prior.scale, prior.between)


class FlatPrior(stats.Prior):
    def expected(self, within: Array) -> Array:
        return np.full_like(within, self.scale * self.between)


def plain(base: Array, head: Array, first: Array, rule: stats.Rule) -> stats.Located:
    """Hodges-Lehmann of all pairs, no filter."""
    return replace(stats.locate(base, head, first, rule), ratio=hodges_lehmann(base, head, first))


def pooled(base: Array, head: Array, first: Array, rule: stats.Rule) -> stats.Located:
    """Each two successive pairs as if they were a process of their own."""
    n, k, m = base.shape
    half = (n, k * m // 2, 2)
    order = np.broadcast_to(first, base.shape).reshape(half)
    return stats.locate(base.reshape(half), head.reshape(half), order, replace(rule, least_pairs=2))


def variants() -> dict[str, dict[str, object]]:
    rule = stats.RULE
    return {
        "chosen": {},
        "no filter": {"locate": plain},
        "rounds pooled over processes": {"locate": pooled},
        "plain t": {"fit": no_prior},
        "one variance expected of all": {"fit": flat_prior},
        "undecided not measured again": {"rule": replace(rule, tolerable=np.inf)},
        "level 5 %": {"rule": replace(rule, alpha=0.05)},
        "level 1 %": {"rule": replace(rule, alpha=0.01)},
        "no margin": {"rule": replace(rule, margin=0.0)},
        "margin 0.5 %": {"rule": replace(rule, margin=0.005)},
        "margin 1 %": {"rule": replace(rule, margin=0.01)},
        "no floor": {"rule": replace(rule, floor=0.0)},
        "floor 2.5 %": {"rule": replace(rule, floor=0.025)},
        "8 × 12 to confirm": {"plan": Plan(confirm=(8, 12))},
        "one stage, 12 × 8": {"plan": Plan(screen=(12, 8)), "one_stage": True},
        "one stage, 6 × 8": {"one_stage": True},
    }


def decisions(
    suites: int, jobs: int, shapes: list[str], changes: dict[str, dict[str, object]]
) -> None:
    """Share of unchanged suites with a false regression, and of slowdowns that are found."""
    print("\nUnchanged suites with a false regression, and slowdowns of 2 % and 3 % found, in %\n")
    print("| variant | " + " | ".join(shapes) + " |\n|---|" + "---:|" * len(shapes))
    for name, change in changes.items():
        tasks = [
            Task(shape, slowdown, suites if slowdown == 0 else max(suites // 10, 20), 7, **change)
            for shape in shapes
            for slowdown in (0.0, 0.02, 0.03)
        ]
        cells = []
        for task, n in run_all(tasks, jobs):
            if task.slowdown == 0:
                cells.append(f"{n['false regression'] / n['suites']:.1%}; ")
            else:
                cells[-1] += f"{n['found'] / n['slowed']:.0%} ".replace("%", "")
        print(
            f"| {name} | " + " | ".join(c.replace("%", "").strip() for c in cells) + " |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--suites", type=positive, default=400, help="without a change, per variant"
    )
    parser.add_argument("--jobs", type=positive, default=1)
    args = parser.parse_args()
    estimators(20)
    shapes = ["typical", "hostile", "stolen", "placement", "strays"]
    decisions(args.suites, args.jobs, shapes, variants())
    stricter = replace(stats.RULE, floor=0.025, margin=0.01)
    raised = {"chosen": {}, "floor 2.5 %, margin 1 %": {"rule": stricter}}
    decisions(args.suites, args.jobs, list(noise.LIMITS), raised)


if __name__ == "__main__":
    main()
