"""Rounds of the gate's benchmarks: from a DataFrame (its columns: stats.py) to arrays.

Samples that make no sense are a ValueError in words, which names the first such round.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]

COLUMNS = ("bench", "process", "pair", "side", "order", "seconds")


@dataclass(frozen=True)
class Packed:
    """Samples as arrays, and what was left out of them."""

    benches: list[str]
    base: Array
    head: Array
    head_first: NDArray[np.bool_]
    processes: NDArray[np.object_]
    """Label of each process, [bench, process]."""
    resolution: Array
    """Of the clock, relative to the benchmark's time; 0 where no two rounds are equal."""
    one_sided: dict[str, str]
    """Benchmarks that only one side has, and which."""
    unpaired: int
    """Rounds whose other side is missing."""


def check(samples: pd.DataFrame) -> pd.DataFrame:
    """The samples with proper types; ValueError, in words, if they make no sense."""
    frame = _columns(samples)
    for column in ("bench", "process", "pair", "side", "order"):
        _forbid(frame, frame[column].isna(), f"has no {column}")
    _forbid(frame, ~frame["side"].isin(("base", "head")), 'has a side that is not "base" or "head"')
    frame["order"] = _order(frame)
    for column in ("seconds", "order"):
        numbers = pd.to_numeric(frame[column], errors="coerce").astype(float)
        wrong = numbers.isna() & frame[column].notna()
        _forbid(frame, wrong, f"has {column} that are no number")
        frame[column] = numbers
    seconds = frame["seconds"]
    _forbid(frame, seconds.isna(), "took NaN seconds")
    _forbid(frame, ~np.isfinite(seconds), "took infinite seconds")
    _forbid(frame, seconds <= 0, "took no time, or less than none")
    _forbid(frame, frame.duplicated(["bench", "process", "pair", "side"]), "is there twice")
    return frame


def _columns(samples: pd.DataFrame) -> pd.DataFrame:
    """The columns that count, a copy with labels of Python's own types."""
    if not isinstance(samples, pd.DataFrame):
        raise TypeError(f"samples is a {type(samples).__name__}, should be a pandas DataFrame")
    missing = [c for c in COLUMNS if c not in samples.columns]
    if missing and set(missing) <= set(samples.index.names):
        samples = samples.reset_index(level=missing)
    elif missing:
        raise ValueError(f"the samples lack the column{'s'[: len(missing) > 1]} {missing}")
    frame = samples.loc[:, list(COLUMNS)].reset_index(drop=True)
    if list(frame.columns) != list(COLUMNS):
        raise ValueError(f"the samples have columns of the same name: {list(frame.columns)}")
    for column in ("bench", "process", "pair", "side"):
        frame[column] = frame[column].astype(object)  # categories would stay where no row has them
    if not frame["bench"].map(lambda name: isinstance(name, (str, int))).all():
        named = frame["bench"].notna()
        frame["bench"] = frame["bench"].where(~named, frame["bench"].astype(str))
    return frame


def _order(frame: pd.DataFrame) -> pd.Series:
    """Smaller for the side that ran first. Where both rounds of every pair have the same one of two
    values, it says how the pair ran. Of two numbers it does not matter which is which: the
    estimates ask only which pairs ran in opposite orders."""
    order, base = frame["order"], frame["side"] == "base"
    values = list(order.unique())
    if set(values) <= {"AB", "BA"}:
        return pd.Series((order == "AB") != base, dtype=float)
    if len(values) == 2:
        of_pair = frame.groupby(["bench", "process", "pair"], sort=False)["order"]
        if (of_pair.transform("nunique") == 1).all():
            return pd.Series((order == min(values)) != base, dtype=float)
    return order


def _forbid(frame: pd.DataFrame, wrong: pd.Series[bool], what: str) -> None:
    if wrong.any():
        row = frame[wrong].iloc[0]
        others = int(wrong.sum()) - 1
        more = f" (and {others} more)" if others else ""
        raise ValueError(f"a round {what}: {_where(row)}{more}")


def _where(row: pd.Series) -> str:
    """The round, in words and Python's own types."""
    values = [(c, row[c].item() if isinstance(row[c], np.generic) else row[c]) for c in row.index]
    return ", ".join(f"{column} {value!r}" for column, value in values)


def pack(samples: pd.DataFrame) -> Packed:
    """Samples as arrays [bench, process, pair], padded with NaN."""
    frame = check(samples)
    sides = frame.groupby("bench", sort=False)["side"].agg(set)
    one_sided = {bench: next(iter(s)) for bench, s in sides.items() if len(s) == 1}
    frame = frame[~frame["bench"].isin(one_sided)]
    key = ["bench", "process", "pair"]
    by_side = {side: frame[frame["side"] == side] for side in ("base", "head")}
    pairs = by_side["base"].merge(by_side["head"], on=key, suffixes=("", "_head"))
    pairs = pairs.sort_values(key, kind="stable", key=lambda c: pd.Series(pd.factorize(c)[0]))
    same = pairs[pairs["order"] == pairs["order_head"]]
    if len(same):
        where = _where(same.iloc[0][key])
        raise ValueError(f"`order` is the same for both sides, so which ran first? ({where})")

    benches = sorted((b for b in sides.index if b not in one_sided), key=str)
    bench = pd.Categorical(pairs["bench"], categories=benches).codes.astype(int)
    process = pairs.groupby("bench")["process"].transform(lambda p: pd.factorize(p)[0])
    process = process.to_numpy(int)
    pair = pairs.groupby(["bench", "process"]).cumcount().to_numpy(int)
    size = (len(benches), process.max(initial=0) + 1, pair.max(initial=0) + 1)
    base, head, head_first = np.full(size, np.nan), np.full(size, np.nan), np.zeros(size, bool)
    labels = np.full(size[:2], None, object)
    base[bench, process, pair] = pairs["seconds"]
    head[bench, process, pair] = pairs["seconds_head"]
    head_first[bench, process, pair] = pairs["order_head"] < pairs["order"]
    labels[bench, process] = pairs["process"].to_numpy(object)
    return Packed(
        benches, base, head, head_first, labels, _resolution(base, head), one_sided,
        len(frame) - 2 * len(pairs),
    )  # fmt: skip


def _resolution(base: Array, head: Array) -> Array:
    """What the clock can tell apart, from equal times: the smallest step between unequal ones.

    A benchmark whose times are all equal shows no step; then the smallest of the suite stands.
    """

    def step(times: Array) -> tuple[float, bool]:
        ordered = np.sort(times[~np.isnan(times)])
        steps = np.diff(ordered)
        real = steps > 1e-7 * ordered[1:]  # less is rounding of differences of time stamps
        return float(steps[real].min(initial=np.inf)), bool((~real).any())

    found = [[step(side[i].ravel()) for side in (base, head)] for i in range(len(base))]
    suite, _ = step(np.concatenate([base.ravel(), head.ravel()]))
    ticks = np.zeros(len(base))
    for i, sides in enumerate(found):
        if any(equal for _, equal in sides):
            tick = min(step for step, _ in sides)
            tick = suite if np.isinf(tick) else tick
            ticks[i] = 0.0 if np.isinf(tick) else tick / np.nanmedian(base[i])
    return ticks


def digests(frame: pd.DataFrame) -> dict[tuple[str, object], str]:
    """A digest of the times of each benchmark in each process: shows whether times are fresh."""
    return {
        (bench, process): hashlib.sha256(
            f"{bench}, {process}".encode() + np.sort(seconds.to_numpy(float)).tobytes()
        ).hexdigest()[:16]
        for (bench, process), seconds in frame.groupby(["bench", "process"], sort=False)["seconds"]
    }
