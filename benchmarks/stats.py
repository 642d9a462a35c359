"""Is head slower than base? The statistics of the gate: pure functions, two stages.

    screened = screen(samples)                # every benchmark, a few processes
    verdicts = confirm(more, screened)        # screened.suspects only, in fresh processes

`samples` is a pandas DataFrame, one row per round (a burst of calls, reduced to its median):

    bench    name, or number
    process  label of the process; it is the unit of replication
    pair     label of the pair within bench and process; a pair is one round of each side
    side     "base" or "head"
    order    a number; within a pair, the side with the smaller one ran first (AB BA AB BA ...). Or,
             the same for both rounds of each pair, how it ran: "AB" (base first) or "BA", or one of
             two numbers, whichever is which
    seconds  duration, > 0

Rows may come in any order and under any index; other columns are ignored, and a level of the index
may stand for a column. Pairs whose other side is missing are left out and counted; benchmarks and
processes may have unequal numbers of pairs. Samples that make no sense (a column is missing, a
duration is NaN, infinite or not above 0, a round is there twice, a pair without an order) are a
ValueError that names the first such round.

Everything is computed on log(head / base) and reported as a relative change: 0.03 is 3 % slower.
Why each estimator was chosen, what it was compared with, and the measured rates of false alarms and
of misses: docs/gate.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special, stats

from benchmarks.samples import Array, Packed, check, digests, pack


@dataclass(frozen=True)
class Rule:
    """The constants of the gate. docs/gate.md measures what a change of one costs."""

    margin: float = 0.006
    """A regression is a slowdown shown to be more than this, ..."""
    floor: float = 0.015
    """... and estimated at this at least: four times what a mere rebuild changes (as a std)."""
    tolerable: float = 0.03
    """OK is a slowdown shown to be less than this."""
    alpha: float = 0.02
    """Chance of any false regression in a suite (Holm over the suspects)."""
    bound: float = 0.95
    """Confidence of each end of an interval."""
    window: float = 1.2
    """A round counts if it is within this factor of its side's second fastest in the process."""
    least_kept: float = 0.5
    """A benchmark of which the filter keeps fewer pairs than this gets no verdict."""
    least_pairs: int = 3
    """A process counts for a benchmark if so many pairs are left."""
    least_processes: int = 4
    """A benchmark gets a verdict if so many processes count."""
    least_benches: int = 10
    """Fewer benchmarks tell nothing of how variances are spread: each then stands for itself."""
    screen_p: float = 0.05
    screen_estimate: float = 0.0075
    """Suspect: slower (or faster) with this p, by this at least; or not shown to be tolerable."""
    tail_floor: float = 0.02
    """A tail regression: slow rounds add this to the mean over all rounds, at least."""
    control_alpha: float = 0.005
    """Chance that controls, which run the same machine code on both sides, alarm by accident."""
    handicap: float = 0.05
    """How much slower the head of the canary is made."""
    inconclusive: float = 0.20
    """More benchmarks without a verdict than this share make a run untrusted."""


RULE = Rule()


# Within a process: one number for each benchmark ------------------------------------------------


@dataclass(frozen=True)
class Located:
    """What each process says of each benchmark, [bench, process]. NaN: nothing."""

    ratio: Array
    """Middle of log(head / base): the filtered Hodges-Lehmann estimate."""
    within: Array
    """Its variance, as the scatter of the pairs lets expect."""
    tail: Array
    """What slow rounds cost head on the mean over all rounds, less what they cost base (log)."""
    pairs: NDArray[np.intp]
    kept: NDArray[np.intp]
    turns: NDArray[np.intp]
    """Of the pairs, those that ran base first and those that ran head first: [bench, process, 2]"""
    slow: NDArray[np.intp]
    """Rounds too slow for the filter, head less base, in the pairs of either order."""

    def __getitem__(self, which: NDArray[np.intp] | slice) -> Located:
        return Located(**{name: value[which] for name, value in vars(self).items()})


def locate(base: Array, head: Array, head_first: NDArray[np.bool_], rule: Rule = RULE) -> Located:
    """Reduce rounds [bench, process, pair] to what each process says; NaN where there is no pair.

    Each side's second fastest round is what an undisturbed one takes: one round that a clock
    reports too short does not move it, nor do stolen ones as long as two are left. A pair counts
    if both its rounds are within the window around that. The estimate is the median of the means
    of two log-ratios, one of a pair that ran base first and one of a pair that ran head first, so
    that a cost of running second cancels in each of them.
    """
    step = max(1, 4_000_000 // max(1, base.shape[1] * base.shape[2] ** 2))
    first = np.broadcast_to(head_first, base.shape)
    parts = [
        _locate(base[i : i + step], head[i : i + step], first[i : i + step], rule)
        for i in range(0, max(len(base), 1), step)
    ]
    return Located(**{n: np.concatenate([vars(p)[n] for p in parts]) for n in vars(parts[0])})


def _locate(base: Array, head: Array, head_first: NDArray[np.bool_], rule: Rule) -> Located:
    there = ~np.isnan(base)
    (base_fits, base_slow), (head_fits, head_slow) = (_filter(x, rule) for x in (base, head))
    keep = base_fits & head_fits
    kept = keep.sum(-1)
    log = np.log(head / base)
    ratio = _hodges_lehmann(np.where(keep, log, np.nan), head_first)
    ratio = np.where(kept >= rule.least_pairs, ratio, np.nan)
    tail = _excess(head) - _excess(base)
    return Located(
        ratio=ratio,
        within=np.where(kept >= rule.least_pairs, _scatter(log, keep, head_first), np.nan),
        tail=tail,
        pairs=there.sum(-1),
        kept=kept,
        turns=_by_order(there.astype(int), head_first),
        slow=_by_order(head_slow.astype(int) - base_slow, head_first),
    )


def _by_order(counts: NDArray[np.intp], head_first: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Sums over the pairs that ran base first, and over those that ran head first."""
    head = np.where(head_first, counts, 0).sum(-1)
    return np.stack([counts.sum(-1) - head, head], axis=-1)


def _filter(seconds: Array, rule: Rule) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rounds of a side fit the window, and which are too slow for it."""
    ordered = np.sort(seconds, axis=-1)  # NaN last
    usual = ordered[..., [min(1, seconds.shape[-1] - 1)]]
    slow = seconds > rule.window * usual
    return (seconds >= usual / rule.window) & (seconds <= rule.window * usual), slow


def _hodges_lehmann(log: Array, head_first: NDArray[np.bool_]) -> Array:
    """Median of the means of two pairs of opposite order; of any two, where there are none."""
    i, j = np.triu_indices(log.shape[-1])
    means = (log[..., i] + log[..., j]) / 2
    crossed = _median(np.where(head_first[..., i] != head_first[..., j], means, np.nan))
    lacking = np.isnan(crossed)
    if lacking.any():
        crossed[lacking] = _median(means[lacking])
    return crossed


def _median(values: Array) -> Array:
    """Of the last axis, NaN left out (numpy.nanmedian is a hundred times slower)."""
    ordered = np.sort(values, axis=-1)
    n = (~np.isnan(values)).sum(-1, keepdims=True)
    low = np.take_along_axis(ordered, np.maximum(n - 1, 0) // 2, -1)
    high = np.take_along_axis(ordered, np.minimum(n // 2, values.shape[-1] - 1), -1)
    middle: Array = ((low + high) / 2)[..., 0]
    return middle


def _excess(seconds: Array) -> Array:
    """What the rounds above the median take longer, on the mean over all; none counts twice over.

    Logarithms, and at most that of 2: one very slow round says no more than a slow one.
    """
    late = np.log(seconds / _median(seconds)[..., None])
    n = (~np.isnan(seconds)).sum(-1)
    sums: Array = np.nansum(np.clip(late, 0, np.log(2)), axis=-1)
    return np.where(n > 0, sums / np.maximum(n, 1), np.nan)


def _scatter(log: Array, keep: NDArray[np.bool_], head_first: NDArray[np.bool_]) -> Array:
    """Variance of a mean of the kept log-ratios, apart from what the order of a pair does."""
    squares, orders = np.zeros(log.shape[:-1]), np.zeros(log.shape[:-1])
    for group in (keep & head_first, keep & ~head_first):
        n = group.sum(-1)
        mean = np.where(group, log, 0).sum(-1) / np.maximum(n, 1)
        squares += np.where(group, (log - mean[..., None]) ** 2, 0).sum(-1)
        orders += n > 0
    n = keep.sum(-1)
    scatter: Array = squares / np.maximum(n - orders, 1) / np.maximum(n, 1)
    return scatter


# Over processes: estimates with variances that borrow from the suite ----------------------------


@dataclass(frozen=True)
class Prior:
    """How variances between processes are spread over a suite.

    A benchmark's variance is expected to be ``scale`` times the sum of what its pairs scatter and
    of what processes differ by, ``between``; the expectation weighs as much as ``df`` degrees of
    freedom of its own. ``df`` = 0: nothing is known, each benchmark stands for itself.
    """

    df: float
    scale: float
    between: float

    def expected(self, within: Array) -> Array:
        return self.scale * (self.between + within)


@dataclass(frozen=True)
class Estimate:
    """Mean of log(head / base) over the processes of each benchmark, [bench]."""

    mean: Array
    error: Array
    df: Array
    processes: NDArray[np.intp]

    def p_above(self, limit: float | Array) -> Array:
        """One-sided p of "no more than limit"."""
        return np.asarray(stats.t.sf((self.mean - limit) / self.error, self.df))

    def p_below(self, limit: float | Array) -> Array:
        """One-sided p of "no less than limit"."""
        return np.asarray(stats.t.cdf((self.mean - limit) / self.error, self.df))

    def half_width(self, bound: float) -> Array:
        """Distance from the mean to an end of the interval."""
        return np.asarray(stats.t.ppf(bound, self.df) * self.error)


LEAST_VARIANCE = 1e-12
"""A standard deviation of 1e-6: times without any noise at all are still no proof."""


def _moments(values: Array) -> tuple[NDArray[np.intp], Array, Array]:
    """Count, mean and variance over processes, NaN left out."""
    n = (~np.isnan(values)).sum(-1)
    mean = np.where(n > 0, np.nansum(values, -1) / np.maximum(n, 1), np.nan)
    squares = np.nansum((values - mean[:, None]) ** 2, -1)
    return n, mean, np.where(n > 1, squares / np.maximum(n - 1, 1), np.nan)


def _within(located: Located) -> Array:
    return np.nan_to_num(_moments(located.within)[1]) + LEAST_VARIANCE


def fit_prior(located: Located, rule: Rule = RULE) -> Prior:
    """Learn from a suite how variances between processes are spread (empirical Bayes).

    Smyth's moderated variances (2004), with an expectation that rises with the scatter of the
    pairs: ``between`` makes the log-ratios of found to expected variance as alike as possible, and
    the spread that is left gives the degrees of freedom. That spread is taken one standard error
    larger than found, so that small suites borrow less.
    """
    n, _, variance = _moments(located.ratio)
    within = _within(located)
    use = (n > 1) & (variance > LEAST_VARIANCE)
    if use.sum() < rule.least_benches:
        return Prior(0.0, 1.0, LEAST_VARIANCE)
    df, log, within = n[use] - 1.0, np.log(variance[use]), within[use]
    grid = np.geomspace(within.min() / 100, within.max() * 10, 60)
    spread = np.var(log - np.log(grid[:, None] + within), axis=1)
    between = float(grid[spread.argmin()])
    residual = log - np.log(between + within) - special.digamma(df / 2) + np.log(df / 2)
    total = residual.var(ddof=1) * (1 + np.sqrt(2 / (len(df) - 1)))
    excess = max(float(total - special.polygamma(1, df / 2).mean()), 0.02)  # df ≤ 100
    prior_df = 2 * _inverse_trigamma(excess)
    shift = residual.mean() + special.digamma(prior_df / 2) - np.log(prior_df / 2)
    return Prior(prior_df, float(np.exp(shift)), between)


def _inverse_trigamma(value: float) -> float:
    """Newton's iteration of Smyth (2004), convergent from this start."""
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(special.polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(special.polygamma(2, x))
        x += step
        if abs(step) < 1e-9 * x:
            break
    return x


def estimate(located: Located, prior: Prior, resolution: Array | float = 0.0) -> Estimate:
    """Means over processes with moderated standard errors."""
    n, mean, variance = _moments(located.ratio)
    own = np.maximum(n - 1.0, 0.0)
    df = prior.df + own
    pooled = prior.df * prior.expected(_within(located)) + own * np.nan_to_num(variance)
    least = np.maximum(LEAST_VARIANCE, np.square(resolution) / 6)  # both rounds are rounded
    pooled = np.maximum(pooled / np.maximum(df, 1), least)
    enough = (n > 0) & (df > 0)
    error = np.where(enough, np.sqrt(pooled / np.maximum(n, 1)), np.inf)
    return Estimate(np.nan_to_num(mean), error, np.where(enough, df, 1.0), n)


def holm(p: Array, alpha: float) -> NDArray[np.bool_]:
    """Holm's step-down: the chance of any false rejection is at most alpha."""
    order = np.argsort(p)
    limits = alpha / np.arange(len(p), 0, -1)
    passed = np.logical_and.accumulate(p[order] <= limits)
    rejected = np.zeros(len(p), bool)
    rejected[order] = passed
    return rejected


# The decisions, on arrays -----------------------------------------------------------------------

SLOWER, FASTER, UNDECIDED, TAIL = "slower", "faster", "undecided", "tail"


@dataclass(frozen=True)
class Suspicion:
    """Why a benchmark is measured again, [bench]."""

    slower: NDArray[np.bool_]
    faster: NDArray[np.bool_]
    undecided: NDArray[np.bool_]
    tail: NDArray[np.bool_]

    def __getitem__(self, which: NDArray[np.intp]) -> Suspicion:
        return Suspicion(**{name: value[which] for name, value in vars(self).items()})

    @property
    def any(self) -> NDArray[np.bool_]:
        return self.slower | self.faster | self.undecided | self.tail


def suspect(
    located: Located, found: Estimate, rule: Rule = RULE, resolution: Array | float = 0.0
) -> Suspicion:
    """Which benchmarks the screen cannot clear."""
    usable = _usable(located, found, rule)
    high = found.mean + found.half_width(rule.bound) + resolution
    threshold = np.log1p(rule.screen_estimate)
    slower = (found.p_above(0.0) < rule.screen_p) & (found.mean >= threshold)
    faster = (found.p_below(0.0) < rule.screen_p) & (found.mean <= -threshold)
    rise, p = _tail(located)
    return Suspicion(
        slower=usable & slower,
        faster=usable & faster,
        undecided=~usable | (high >= np.log1p(rule.tolerable)),
        tail=usable & (p < rule.screen_p) & (rise >= np.log1p(rule.tail_floor) / 2),
    )


def _usable(located: Located, found: Estimate, rule: Rule) -> NDArray[np.bool_]:
    share = located.kept.sum(-1) / np.maximum(located.pairs.sum(-1), 1)
    return (found.processes >= rule.least_processes) & (share >= rule.least_kept)


def _tail(located: Located) -> tuple[Array, Array]:
    """What slow rounds cost head more than base, and its p (one-sided t over processes)."""
    n, rise, variance = _moments(located.tail)
    error = np.sqrt(np.maximum(np.nan_to_num(variance), LEAST_VARIANCE) / np.maximum(n, 1))
    p = stats.t.sf(np.nan_to_num(rise) / error, np.maximum(n - 1, 1))
    return np.nan_to_num(rise), np.where(n > 1, p, 1.0)


@dataclass(frozen=True)
class Decision:
    """What the fresh processes say of the suspects, [suspect]."""

    verdict: NDArray[np.object_]
    p: Array
    tail: NDArray[np.bool_]
    detectable: Array


OK, REGRESSION, INCONCLUSIVE, IMPROVED = "OK", "REGRESSION", "INCONCLUSIVE", "IMPROVED"


def decide(
    located: Located,
    found: Estimate,
    suspicion: Suspicion,
    rule: Rule = RULE,
    resolution: Array | float = 0.0,
) -> Decision:
    """Judge suspects by fresh processes alone."""
    usable = _usable(located, found, rule)
    floor = np.maximum(np.log1p(rule.floor), 3 * np.asarray(resolution))
    margin = np.log1p(rule.margin)
    # What was measured again only for its tail or for being faster was never charged with
    # being slower, so it takes nothing from the level of those that were.
    charged = suspicion.slower | suspicion.undecided
    p = found.p_above(margin)
    regression = _reject(p, charged & usable, rule.alpha) & (found.mean >= floor)
    praised = suspicion.faster | suspicion.undecided
    improved = _reject(found.p_below(-margin), praised & usable, rule.alpha)
    improved &= found.mean <= -floor
    fine = usable & (
        found.mean + found.half_width(rule.bound) + resolution < np.log1p(rule.tolerable)
    )
    verdict = np.full(len(p), INCONCLUSIVE, object)
    verdict[fine], verdict[improved], verdict[regression] = OK, IMPROVED, REGRESSION
    rise, tail_p = _tail(located)
    tail = _reject(tail_p, suspicion.tail & usable, rule.alpha) & (
        rise >= np.log1p(rule.tail_floor)
    )
    return Decision(verdict, p, tail, detectable(found, int(charged.sum()), rule, floor))


def _reject(p: Array, tested: NDArray[np.bool_], alpha: float) -> NDArray[np.bool_]:
    rejected = np.zeros(len(p), bool)
    rejected[tested] = holm(p[tested], alpha)
    return rejected


def detectable(found: Estimate, tested: int, rule: Rule, floor: Array | float) -> Array:
    """The slowdown (log) that is called a regression 95 times in 100 with these errors."""
    level = 1 - rule.alpha / max(tested, 1)
    needed = np.maximum(np.log1p(rule.margin) + found.half_width(level), floor)
    return np.asarray(needed + found.half_width(0.95))


# Whether the run itself can be trusted ----------------------------------------------------------


def distrust(
    located: Located,
    found: Estimate,
    head_first: float,
    processes: NDArray[np.object_],
    control: NDArray[np.bool_],
    canary: int | None,
    rule: Rule = RULE,
) -> list[str]:
    """What is wrong with the machine or the measurement, whatever the benchmarks say.

    ``head_first``: share of the pairs that ran head first. ``control``: benchmarks whose machine
    code is the same on both sides. ``canary``: the benchmark that was slowed on purpose.
    """
    faults = []
    pairs, kept = int(located.pairs.sum()), int(located.kept.sum())
    if kept < rule.least_kept * pairs:
        faults.append(f"the machine disturbed {1 - kept / pairs:.0%} of all pairs of rounds")
    faults += _order_fault(head_first)
    faults += _lopsided(located, processes)
    faults += _control_faults(located[control], found, control, processes[control], rule)
    if canary is not None and (problem := _canary_fault(found, canary, rule)):
        faults.append(problem)
    return faults


def _order_fault(head_first: float) -> list[str]:
    if 0.25 <= head_first <= 0.75:
        return []
    return [f"head ran first in {head_first:.0%} of the pairs, should in half of them"]


LOPSIDED = 0.05


def _lopsided(located: Located, processes: NDArray[np.object_]) -> list[str]:
    """Whether rounds of one side were disturbed more often, whichever side ran first: what slows
    the first rounds of a process slows those who happen to run then, and the filter drops them."""
    there = located.pairs > 0
    share = located.slow.sum(-1) / np.maximum(located.pairs, 1)
    mean, p = _over_processes(share[there], processes[there])
    in_each_order = located.slow.sum((0, 1)) / np.maximum(located.turns.sum((0, 1)), 1)
    if abs(mean) <= LOPSIDED or p >= 0.001 or (np.sign(mean) * in_each_order <= LOPSIDED).any():
        return []
    side = "head" if mean > 0 else "base"
    return [f"{abs(mean):.0%} more rounds of {side} were disturbed than of the other side"]


def _over_processes(values: Array, labels: NDArray[np.object_]) -> tuple[float, float]:
    """Mean over processes of each process's median, and its two-sided p."""
    each = pd.Series(values).groupby(labels, sort=False).median().dropna().to_numpy()
    if len(each) < 3:
        return 0.0, 1.0
    error = np.sqrt(max(each.var(ddof=1), LEAST_VARIANCE) / len(each))
    return float(each.mean()), float(2 * stats.t.sf(abs(each.mean()) / error, len(each) - 1))


def _control_faults(
    located: Located,
    found: Estimate,
    control: NDArray[np.bool_],
    processes: NDArray[np.object_],
    rule: Rule,
) -> list[str]:
    if not control.any():
        return []
    margin, floor = np.log1p(rule.margin), np.log1p(rule.floor)
    p = np.minimum(found.p_above(margin), found.p_below(-margin))[control]
    odd = holm(p, rule.control_alpha / 2) & (np.abs(found.mean[control]) >= floor)
    usable = found.processes[control] >= rule.least_processes
    faults = []
    if (odd & usable).any():
        faults.append(
            f"{(odd & usable).sum()} of {control.sum()} controls differ, which run the same "
            "machine code on both sides"
        )
    there = ~np.isnan(located.ratio)
    mean, p_shared = _over_processes(located.ratio[there], processes[there])
    if abs(mean) >= margin and p_shared < rule.control_alpha:
        faults.append(f"the controls, the same code on both sides, differ by {np.expm1(mean):+.2%}")
    return faults


def _canary_fault(found: Estimate, canary: int, rule: Rule) -> str | None:
    mean, handicap = found.mean[canary], np.log1p(rule.handicap)
    seen = found.p_above(np.log1p(rule.margin))[canary] < 0.05 and mean >= np.log1p(rule.floor)
    off = abs(mean - handicap) > 0.01 + found.half_width(0.999)[canary]
    if found.processes[canary] >= rule.least_processes and seen and not off:
        return None
    return f"the canary was made {rule.handicap:.0%} slower and measured as {np.expm1(mean):+.2%}"


# The two stages ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Screened:
    """What the first stage found. As a collection, it holds the names of the suspects."""

    table: pd.DataFrame
    """One row per benchmark: role, why it is suspect (or ""), estimate, interval, counts."""
    prior: Prior
    faults: tuple[str, ...]
    """Why the run cannot be trusted."""
    notes: tuple[str, ...]
    one_sided: dict[str, str]
    seen: frozenset[str]
    """Digests of the times, by which `confirm` knows them again."""
    rule: Rule

    @property
    def suspects(self) -> list[str]:
        """The benchmarks to measure again, in fresh processes."""
        return list(self.table.index[self.table["suspicion"] != ""])

    def __iter__(self) -> Iterator[str]:
        return iter(self.suspects)

    def __len__(self) -> int:
        return len(self.suspects)

    def __contains__(self, bench: object) -> bool:
        return bench in self.suspects


def screen(
    samples: pd.DataFrame,
    identical: Collection[str] = (),
    canary: str | None = None,
    rule: Rule = RULE,
) -> Screened:
    """First stage: which benchmarks must be measured again?

    ``identical``: benchmarks whose machine code is the same on both sides. They are unchanged by
    construction, serve as controls, and are never suspect. ``canary``: the benchmark whose head
    was slowed by ``rule.handicap`` on purpose; it is judged here and is never suspect either.
    ValueError if the samples make no sense.
    """
    packed = pack(samples)
    located = locate(packed.base, packed.head, packed.head_first, rule)
    prior = fit_prior(located, rule)
    found = estimate(located, prior, packed.resolution)
    control = np.array([b in set(identical) for b in packed.benches], bool)
    faults = [
        f"{b} exists on the base side only" for b, s in packed.one_sided.items() if s == "base"
    ]
    if not len(packed.benches) or not located.pairs.any():
        faults.append("nothing was measured")
    if canary is not None and canary not in packed.benches:
        faults.append("the canary was not measured")
    at = packed.benches.index(canary) if canary in packed.benches else None
    faults += distrust(located, found, _first(packed), packed.processes, control, at, rule)

    suspicion = suspect(located, found, rule, packed.resolution)
    role = np.where(control, "control", "").astype(object)
    if at is not None:
        role[at] = "canary"
    table = _table(packed, located, found, rule)
    table.insert(0, "role", role)
    reasons = {name: getattr(suspicion, name) for name in (SLOWER, FASTER, UNDECIDED, TAIL)}
    words = [
        "" if role[i] else " ".join(name for name, is_so in reasons.items() if is_so[i])
        for i in range(len(role))
    ]
    table["suspicion"] = pd.Series(words, table.index, dtype=object)
    return Screened(
        table, prior, tuple(faults), tuple(_notes(packed, role, table)), packed.one_sided,
        frozenset(digests(check(samples)).values()), rule,
    )  # fmt: skip


def _first(packed: Packed) -> float:
    """Share of the pairs that ran head first."""
    there = ~np.isnan(packed.base)
    return float(packed.head_first[there].mean()) if there.any() else 0.5


def _table(packed: Packed, located: Located, found: Estimate, rule: Rule) -> pd.DataFrame:
    half = found.half_width(rule.bound) + packed.resolution
    unknown = np.where(np.isfinite(half), 0.0, np.nan)
    pairs = located.pairs.sum(-1)
    floor = np.maximum(np.log1p(rule.floor), 3 * packed.resolution)
    columns = {
        "estimate": np.expm1(found.mean) + np.where(found.processes > 0, 0, np.nan),
        "low": np.expm1(found.mean - half) + unknown,
        "high": np.expm1(found.mean + half) + unknown,
        "detectable": np.expm1(detectable(found, 1, rule, floor)) + unknown,
        "processes": found.processes,
        "pairs": pairs,
        "kept": located.kept.sum(-1) / np.maximum(pairs, 1),
        "tail": np.expm1(_tail(located)[0]),
    }
    return pd.DataFrame(columns, index=pd.Index(packed.benches, name="bench"))


def _notes(packed: Packed, role: NDArray[np.object_], table: pd.DataFrame) -> Iterator[str]:
    for bench, side in packed.one_sided.items():
        yield f"{bench} exists on the {side} side only: nothing to compare it with"
    if packed.unpaired:
        yield f"{packed.unpaired} rounds lack the other side of their pair and were left out"
    for bench in table.index[role == "canary"]:
        yield f"the canary measured {table.loc[bench, 'estimate']:+.2%}"


PASS, FAILED, UNTRUSTED = "pass", "regression", "untrusted"
EXIT = {PASS: 0, FAILED: 1, UNTRUSTED: 3}

NOT_FRESH = "suspect, not measured in fresh processes"


@dataclass(frozen=True, eq=False)
class Verdicts(Mapping[str, str]):
    """The outcome of a run. As a mapping: benchmark → "OK", "REGRESSION", "IMPROVED" or
    "INCONCLUSIVE"."""

    table: pd.DataFrame
    """One row per benchmark: verdict, estimate, interval, why, by which stage."""
    run: str
    """"pass", "regression" or "untrusted"."""
    reasons: tuple[str, ...]
    """Why it is not a pass."""
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0, 1 or 3."""
        return EXIT[self.run]

    def __getitem__(self, bench: str) -> str:
        return str(self.table.loc[bench, "verdict"])

    def __iter__(self) -> Iterator[str]:
        return iter(self.table.index)

    def __len__(self) -> int:
        return len(self.table)


def confirm(samples: pd.DataFrame | None, screened: Screened) -> Verdicts:
    """Second stage: judge the suspects by ``samples`` of fresh processes, the others by the screen.

    Of the screen's times only the spread of variances is used again. Times that the screen has
    seen are left out, so the samples of both stages may come in one DataFrame. ``None``, or no
    rows, is right where there was no suspect. ValueError if the samples make no sense.
    """
    table = screened.table[screened.table["role"] != "canary"].copy()
    clear = table["suspicion"] == ""
    table.insert(0, "verdict", np.where(clear, OK, INCONCLUSIVE))
    table["stage"] = "screen"
    table["p"] = np.nan
    table["tail_regression"] = False
    table["why"] = np.where(table["role"] == "control", "same machine code on both sides", "")
    table.loc[~clear, "why"] = NOT_FRESH
    fresh = _fresh(samples, screened)
    faults = [*screened.faults, *(_judge(fresh, screened, table) if fresh is not None else ())]
    table = pd.concat([table, _one_sided(screened.one_sided, table)])
    run, reasons = _run(table, faults, screened.rule)
    return Verdicts(table, run, tuple(reasons), screened.notes)


def _fresh(samples: pd.DataFrame | None, screened: Screened) -> pd.DataFrame | None:
    """Rows of suspects that the screen has not seen."""
    if samples is None or (samples.empty and not len(samples.columns)):
        return None
    frame = check(samples)
    frame = frame[frame["bench"].isin(screened.suspects)]
    stale = {key for key, digest in digests(frame).items() if digest in screened.seen}
    keys = pd.Series(list(zip(frame["bench"], frame["process"], strict=True)), index=frame.index)
    frame = frame[~keys.isin(stale)]
    return None if frame.empty else frame


def _one_sided(benches: dict[str, str], like: pd.DataFrame) -> pd.DataFrame:
    """Rows for benchmarks that only one side has."""
    empty = dict.fromkeys(like.columns, np.nan) | {"suspicion": "", "stage": ""}
    empty |= {"verdict": INCONCLUSIVE, "processes": 0, "pairs": 0, "tail_regression": False}
    rows = [
        empty | {"role": side, "why": f"exists on the {side} side only"}
        for side in benches.values()
    ]
    index = pd.Index(benches, name="bench", dtype=like.index.dtype)
    return pd.DataFrame(rows, index, columns=like.columns).astype(like.dtypes)


def _judge(fresh: pd.DataFrame, screened: Screened, table: pd.DataFrame) -> list[str]:
    """Fill in the rows of the suspects that were measured again; what is wrong with the times."""
    rule, packed = screened.rule, pack(fresh)
    if not packed.benches:
        return []
    located = locate(packed.base, packed.head, packed.head_first, rule)
    found = estimate(located, screened.prior, packed.resolution)
    words = screened.table.loc[packed.benches, "suspicion"].str.split()
    why = {n: np.array([n in w for w in words]) for n in (SLOWER, FASTER, UNDECIDED, TAIL)}
    decision = decide(located, found, Suspicion(**why), rule, packed.resolution)
    new = _table(packed, located, found, rule)
    new["detectable"] = np.expm1(decision.detectable) + new["detectable"] * 0
    new["verdict"], new["p"] = decision.verdict, decision.p
    new["tail_regression"], new["stage"] = decision.tail, "confirm"
    new["why"] = [_why(row, rule) for _, row in new.iterrows()]
    table.loc[new.index, new.columns] = new
    return _order_fault(_first(packed))


def _why(row: pd.Series, rule: Rule) -> str:
    if row["verdict"] != INCONCLUSIVE:
        return ""
    if row["kept"] < rule.least_kept:
        return f"the machine disturbed {1 - row['kept']:.0%} of its pairs"
    if row["processes"] < rule.least_processes:
        n = int(row["processes"])
        return f"{n} usable process{'es' * (n != 1)}; a verdict needs {rule.least_processes}"
    return f"between {row['low']:+.1%} and {row['high']:+.1%}: too noisy to tell"


def _run(table: pd.DataFrame, faults: list[str], rule: Rule) -> tuple[str, list[str]]:
    """The verdict of the run and, unless it passes, why."""
    compared = table[~table["role"].isin(("base", "head", "control"))]
    if table["role"].isin(("base", "head")).all() and not faults:
        faults = ["nothing was measured on both sides"]
    unmeasured = int((compared["why"] == NOT_FRESH).sum())
    open_ = int((compared["verdict"] == INCONCLUSIVE).sum())
    slower = compared.index[compared["verdict"] == REGRESSION]
    run = outcome(faults, len(slower), unmeasured, open_, len(compared), rule)
    reasons = faults + [f"{b} is {compared.loc[b, 'estimate']:.1%} slower" for b in slower]
    if run == UNTRUSTED and not faults:
        doubt = f"{unmeasured} suspects were not measured in fresh processes"
        reasons = [doubt if unmeasured else f"no verdict on {open_} of {len(compared)} benchmarks"]
    return run, reasons


def outcome(
    faults: Collection[str],
    regressions: int,
    unmeasured: int,
    open_: int,
    compared: int,
    rule: Rule,
) -> str:
    """The verdict of a run: faults of the machine come before all that it measured."""
    if faults:
        return UNTRUSTED
    if regressions:
        return FAILED
    return UNTRUSTED if unmeasured or open_ > rule.inconclusive * compared else PASS
