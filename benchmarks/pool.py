"""How fast pages are handed out and taken back: `python -m benchmarks.pool`.

yaie.cache.BlockPool beside a pool that means the same and goes page by page, with a heap of free
pages and a list of counts. Both pools are half full, with the free pages scattered. BlockPool is
given lists, as KVCacheManager does, and int32 arrays, as the engine does; the least time of some
rounds counts.
"""

from __future__ import annotations

import argparse
import heapq
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.timing.cpu import python_speed
from yaie.cache import BlockPool
from yaie.command.arguments import positive

SIZES = (1, 10, 100, 1_000, 100_000)
CALLS = ("alloc", "share", "free, shared", "free")


class PlainPool:
    """Page by page, for calls that are right."""

    def __init__(self, n_pages: int) -> None:
        self.users = [0] * n_pages
        self.free_pages = list(range(n_pages))

    def alloc(self, n: int) -> list[int] | None:
        if n > len(self.free_pages):
            return None
        pages = [heapq.heappop(self.free_pages) for _ in range(n)]
        for page in pages:
            self.users[page] = 1
        return pages

    def share(self, pages: list[int]) -> None:
        self._check(pages)
        for page in pages:
            self.users[page] += 1

    def free(self, pages: list[int]) -> list[int]:
        self._check(pages)
        if any(times > self.users[page] for page, times in Counter(pages).items()):
            raise ValueError("freed more often than used")
        released = []
        for page in pages:
            self.users[page] -= 1
            if not self.users[page]:
                heapq.heappush(self.free_pages, page)
                released.append(page)
        return released

    def _check(self, pages: list[int]) -> None:
        for page in pages:
            if not 0 <= page < len(self.users) or not self.users[page]:
                raise ValueError(f"page {page}")


def half_full(kind: type, n_pages: int) -> Any:
    """A pool whose free pages lie anywhere."""
    pool = kind(n_pages)
    pages = pool.alloc(n_pages)
    np.random.default_rng(0).shuffle(pages)
    pool.free(pages[: n_pages // 2])
    return pool


def microseconds(
    pool: Any, n: int, rounds: int, given: Callable[[list[int]], Any]
) -> dict[str, float]:
    """The least time of a call: n pages are handed out, shared, and freed twice."""
    times: dict[str, list[float]] = {call: [] for call in CALLS}
    for _ in range(rounds):
        start = time.process_time_ns()
        pages = pool.alloc(n)
        times["alloc"].append(time.process_time_ns() - start)
        passed = given(pages)
        for name, call in zip(CALLS[1:], (pool.share, pool.free, pool.free), strict=True):
            start = time.process_time_ns()
            call(passed)
            times[name].append(time.process_time_ns() - start)
    return {name: min(spent) / 1e3 for name, spent in times.items()}


def table(sizes: tuple[int, ...], n_pages: int) -> pd.DataFrame:
    """One row for each call and number of pages."""
    sides: dict[str, tuple[type, Callable[[list[int]], Any]]] = {
        "page by page": (PlainPool, list),
        "BlockPool, lists": (BlockPool, list),
        "BlockPool, arrays": (BlockPool, lambda pages: np.array(pages, np.int32)),
    }
    columns: dict[str, dict[tuple[str, int], float]] = {name: {} for name in sides}
    for name, (kind, given) in sides.items():
        pool = half_full(kind, n_pages)
        for n in sizes:
            rounds = max(5, min(2_000, 100_000 // n))
            for call, spent in microseconds(pool, n, rounds, given).items():
                columns[name][call, n] = spent
    frame = pd.DataFrame(columns).loc[[(call, n) for call in CALLS for n in sizes]]
    frame["times"] = frame["page by page"] / frame["BlockPool, arrays"]
    return frame.rename_axis(["us a call", "pages"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pages", type=positive, default=400_000, help="in the pool")
    args = parser.parse_args()
    print(f"(ten million additions in Python take {python_speed():.2f} s here)\n")
    sizes = tuple(n for n in SIZES if n <= args.pages // 2)
    with pd.option_context("display.float_format", "{:,.1f}".format):
        print(table(sizes, args.pages).to_string())


if __name__ == "__main__":
    main()
