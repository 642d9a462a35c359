"""How fast prefixes are found, added and dropped: `python -m benchmarks.radix`.

yaie.cache.RadixTree beside the plain-Python tree of plain_radix.py, which means the same and gets
the same calls. Each is given tokens as it keeps them, int32 arrays and lists; a column shows what
lists cost RadixTree. Work is done in steps; of each step the least processor time over some
repeats counts, so that a busy machine shows little. The garbage collector is on, as in an engine,
unless --no-gc is given.

The tables after the first take RadixTree through the same work at sizes that double, and say with
which power of the tokens its time grows: 1 is linear. The last one does so with the length of the
requests at one number of them: what the shortest cost is the interpreter's.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.plain_radix import PlainRadixTree
from benchmarks.timing.cpu import python_speed
from yaie.cache import RadixTree
from yaie.command.arguments import positive

VOCABULARY = 128_000
CHUNK = 8_192
"""Tokens of a document that are computed, and so inserted, at a time."""

BATCH = 100
"""Calls a step. What they need is made before, untimed: an engine, too, has just used the tokens
that it inserts, so the processor's caches hold them."""

Tree = Any
Step = Callable[[], list[Any]]
Sides = dict[str, tuple[type, bool]]
"""By name: which tree, and whether it is given lists."""
SIDES: Sides = {
    "plain": (PlainRadixTree, True),
    "RadixTree": (RadixTree, False),
    "RadixTree given lists": (RadixTree, True),
}


@dataclass(frozen=True)
class Work:
    """What is timed: each of the ``steps`` on the tree that ``prepare`` made; ``tokens`` in all.
    Both are told whether to give lists to the tree, or arrays."""

    name: str
    tokens: int
    prepare: Callable[[type, bool], Tree]
    steps: Callable[[Tree, bool], Iterator[Step]]


def _tokens(rng: np.random.Generator, n: int) -> Any:
    return rng.integers(0, VOCABULARY, n, dtype=np.int32)


def _given(array: Any, lists: bool) -> Any:
    return array.tolist() if lists else array


def _pages(i: int, length: int, page_size: int) -> Any:
    """The pages of prompt i."""
    n = length // page_size
    return np.arange(n * i, n * (i + 1), dtype=np.int32)


def matching(n_documents: int, length: int, page_size: int) -> Work:
    """Match one of several documents without a common prefix, which were inserted in chunks."""
    rng = np.random.default_rng(0)
    documents = [_tokens(rng, length) for _ in range(n_documents)]

    def prepare(kind: type, lists: bool) -> Tree:
        tree = kind(page_size)
        for i, document in enumerate(documents):
            tokens = _given(document, lists)
            pages = _given(_pages(i, length, page_size), lists)
            for end in range(CHUNK, length + CHUNK, CHUNK):
                tree.insert(tokens[:end], pages[: min(end, length) // page_size])
        return tree

    def steps(tree: Tree, lists: bool) -> Iterator[Step]:
        tokens = _given(documents[n_documents // 2].copy(), lists)
        yield lambda: [tree.match(tokens)[0]]

    name = f"match {length:,} tokens in {n_documents * length:,}, pages of {page_size}"
    return Work(name, length, prepare, steps)


def _inserts(
    tree: Tree, n: int, shared: int, length: int, page_size: int, lists: bool
) -> Iterator[Step]:
    """Insert n requests of ``length`` tokens, in batches. The first ``shared`` tokens are one of
    100 beginnings: one of 10 system prompts, then one of 10 sets of examples."""
    rng = np.random.default_rng(0)
    systems = [_tokens(rng, shared // 2) for _ in range(10)]
    stems = [np.concatenate([s, _tokens(rng, shared - shared // 2)]) for s in systems * 10]
    for first in range(0, n, BATCH):
        batch = []
        for i in range(first, min(first + BATCH, n)):
            tokens = np.concatenate([stems[i % 100], _tokens(rng, length - shared)])
            batch.append((_given(tokens, lists), _given(_pages(i, length, page_size), lists)))
        yield lambda batch=batch: [[tree.insert(tokens, pages) for tokens, pages in batch]]


def inserting(n: int, shared: int, length: int, page_size: int) -> Work:
    """Insert requests that share prefixes into an empty tree."""
    return Work(
        f"insert {n:,} requests, {shared:,} of {length:,} tokens shared, pages of {page_size}",
        n * length,
        lambda kind, _: kind(page_size),
        lambda tree, lists: _inserts(tree, n, shared, length, page_size, lists),
    )


def evicting(n: int, at_a_time: int | None, page_size: int) -> Work:
    """Evict half of what n requests left, at once or some pages at a time."""

    def prepare(kind: type, lists: bool) -> Tree:
        tree = kind(page_size)
        for step in _inserts(tree, n, 500, 1000, page_size, lists):
            step()
        return tree

    there = prepare(RadixTree, False).evictable
    half = there // 2
    size = at_a_time or half

    def steps(tree: Tree, _: bool) -> Iterator[Step]:
        sizes = [min(size, half - at) for at in range(0, half, size)]
        for first in range(0, len(sizes), BATCH):
            yield lambda some=sizes[first : first + BATCH]: [tree.evict(n) for n in some]

    how = f"{at_a_time:,} at a time" if at_a_time else "at once"
    name = f"evict half of {there:,} pages of {page_size}, {how}"
    return Work(name, half * page_size, prepare, steps)


def seconds(work: Work, kind: type, lists: bool) -> tuple[list[float], list[int]]:
    """Processor time of each step, and the results of all."""
    tree = work.prepare(kind, lists)
    gc.collect()
    gc.freeze()  # what is there before is not the work's to collect
    spent, results = list[float](), list[Any]()
    for step in work.steps(tree, lists):
        start = time.process_time()
        result = step()
        spent.append(time.process_time() - start)
        results += result
    gc.unfreeze()
    return spent, np.concatenate(results).tolist()


def least(work: Work, sides: Sides, repeats: int) -> list[float]:
    """Seconds of each side: the sum over the steps of the least time that each step ever took. The
    sides take turns, and must agree."""
    times = []
    for _ in range(repeats):
        turns = [seconds(work, kind, lists) for kind, lists in sides.values()]
        if any(turns[0][1] != result for _, result in turns):
            raise SystemExit(f"{work.name}: the trees disagree")
        times.append([spent for spent, _ in turns])
    return [sum(map(min, zip(*side, strict=True))) for side in zip(*times, strict=True)]


def compared(works: Iterator[Work], repeats: int) -> pd.DataFrame:
    """One row a work: milliseconds of each tree, and how many times faster ours is. A line on
    stderr says how far it got: at full size a work takes minutes."""
    rows = {}
    for work in works:
        plain, ours, listed = least(work, SIDES, repeats)
        print(f"{work.name}: {plain / ours:.1f} times", file=sys.stderr, flush=True)
        rows[work.name] = {
            "plain ms": plain * 1e3,
            "RadixTree ms": ours * 1e3,
            "times": plain / ours,
            "given lists ms": listed * 1e3,
        }
    return pd.DataFrame.from_dict(rows, "index")


def grown(make: Callable[[int], Work], sizes: tuple[int, ...], repeats: int) -> pd.DataFrame:
    """RadixTree alone: nanoseconds a token as the work grows."""
    rows = {}
    for size in sizes:
        work = make(size)
        (ours,) = least(work, {"RadixTree": (RadixTree, False)}, repeats)
        rows[work.name] = {
            "tokens": work.tokens,
            "RadixTree ms": ours * 1e3,
            "ns a token": ours / work.tokens * 1e9,
        }
    return pd.DataFrame.from_dict(rows, "index")


def power(table: pd.DataFrame) -> float:
    """The p for which time ~ tokens^p fits the rows of ``grown`` best."""
    return float(np.polyfit(np.log(table["tokens"]), np.log(table["RadixTree ms"]), 1)[0])


def works(n: int) -> Iterator[Work]:
    """The work at full size for n = 10,000 requests."""
    for page_size in (1, 16):
        yield matching(10, 10 * n, page_size)
        yield inserting(n, 900, 1000, page_size)
        yield inserting(n, 500, 1000, page_size)
        yield evicting(n, None, page_size)
        yield evicting(n, 1000 // page_size, page_size)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=positive, default=10_000, help="size of the work")
    parser.add_argument("--repeats", type=positive, default=5, help="of each piece of work (5)")
    parser.add_argument("--only", default="", metavar="TEXT", help="work with this in its name")
    parser.add_argument("--no-gc", action="store_true", help="without the garbage collector")
    args = parser.parse_args()
    n, repeats = args.requests, args.repeats
    if args.no_gc:
        gc.disable()
    print(f"(ten million additions in Python take {python_speed():.2f} s here)\n")
    with pd.option_context("display.float_format", "{:,.2f}".format):
        chosen = (work for work in works(n) if args.only in work.name)
        print(compared(chosen, repeats).to_string(), "\n")
        if args.only:
            return
        requests = (n // 8, n // 4, n // 2, n)
        for make, sizes in (
            (lambda size: matching(10, 10 * size, 1), requests),
            (lambda size: inserting(size, 900, 1000, 1), requests),
            (lambda size: evicting(size, None, 1), requests),
            (lambda size: evicting(size, 1000, 1), requests),
            (lambda length: inserting(n, length // 2, length, 16), (32, 128, 512, 2048)),
        ):
            table = grown(make, sizes, repeats)
            print(table.to_string(), f"\ntime grows as tokens^{power(table):.2f}\n")


if __name__ == "__main__":
    main()
