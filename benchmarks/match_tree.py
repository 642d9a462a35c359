"""Prefixes of a batch, found on the device and on the host: `python -m benchmarks.match_tree`.

A tree of a million tokens, in pages of 16: documents of 4,096 tokens, a third of them behind one of
eight beginnings. 256 prompts of 4,096 tokens, each a document up to some token and then something
else. The op match_tree on the device is asked with prompts that lie on the host, and its answer is
waited for there; beside it yaie.cache.RadixTree and the plain-Python tree of plain_radix.py, one
prompt after the other. All must find the same. Wall time, median of some repeats.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.plain_radix import PlainRadixTree
from benchmarks.timing.cpu import python_speed
from yaie import kernels, ops
from yaie.cache import RadixTree
from yaie.command.arguments import positive
from yaie.ops._tree import Node, Tree, arrays

VOCABULARY, PAGE, LENGTH, PROMPTS, BEGINNINGS = 128_256, 16, 4096, 256, 8
KERNEL = "cuda.warp"


def documents(tokens: int, rng: np.random.Generator) -> list[Any]:
    """Documents of int32 tokens, every third of which begins as others do."""
    begins = rng.integers(0, VOCABULARY, (BEGINNINGS, LENGTH // 2), dtype=np.int32)
    found = rng.integers(0, VOCABULARY, (-(-tokens // LENGTH), LENGTH), dtype=np.int32)
    for i in range(0, len(found), 3):
        found[i, : LENGTH // 2] = begins[i % BEGINNINGS]
    return list(found)


def prompts(cached: Sequence[Any], rng: np.random.Generator) -> Any:
    """[PROMPTS,LENGTH]: a document up to some token, then something else."""
    asked = rng.integers(0, VOCABULARY, (PROMPTS, LENGTH), dtype=np.int32)
    for row in asked:
        cut = int(rng.integers(LENGTH + 1))
        row[:cut] = cached[int(rng.integers(len(cached)))][:cut]
    return asked


def flattened(cached: Sequence[Any], rng: np.random.Generator) -> dict[str, Tensor]:
    """The tree as the op takes it, on the host."""
    root = Node()
    for document in cached:
        root.add(tuple(document.tolist()), PAGE)
    tree = Tree.of(root, rng)

    def packed(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        ends = np.cumsum([0, *map(len, rows)])
        flat = [x for row in rows for x in row]
        return torch.tensor(flat, dtype=torch.int32), torch.tensor(ends, dtype=torch.int32)

    found: dict[str, Tensor] = arrays(tree.edges, tree.children, packed)
    return found


def seconds(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """The median, and the last answer."""
    took = []
    for _ in range(repeats):
        start = time.perf_counter()
        answer = work()
        took.append(time.perf_counter() - start)
    return statistics.median(took), answer


def on_device(tree: dict[str, Tensor], asked: Any, with_tree: bool) -> Callable[[], Any]:
    """One batch: the prompts (and the tree) to the device, the kernel, the answer back."""
    run = ops.get("match_tree").kernels[KERNEL].run
    query = torch.from_numpy(asked).flatten().pin_memory()
    ends = torch.arange(0, asked.size + 1, LENGTH, dtype=torch.int32).pin_memory()
    pinned = {name: array.pin_memory() for name, array in tree.items()}
    there = {name: array.cuda() for name, array in tree.items()}

    def work() -> Any:
        arrays = {n: a.cuda(non_blocking=True) for n, a in pinned.items()} if with_tree else there
        moved = (x.cuda(non_blocking=True) for x in (query, ends))
        names = ("query", "q_indptr")
        matched, _ = run(**arrays, **dict(zip(names, moved, strict=True)), page=PAGE)
        return matched.tolist()

    return work


def on_host(kind: Any, cached: Sequence[Any], asked: Any, lists: bool) -> Callable[[], Any]:
    """One batch, prompt after prompt, in a tree that holds the documents."""
    tree = kind(PAGE)
    n = LENGTH // PAGE
    for i, document in enumerate(cached):
        pages = np.arange(n * i, n * (i + 1), dtype=np.int32)
        tree.insert(*((x.tolist() for x in (document, pages)) if lists else (document, pages)))
    rows = asked.tolist() if lists else list(asked)
    return lambda: [len(tree.match(row)[0]) * PAGE for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tokens", type=positive, default=1_000_000, help="of the tree (1000000)")
    parser.add_argument("--repeats", type=positive, default=20, help="(20)")
    args = parser.parse_args()
    kernels.load()
    rng = np.random.default_rng(0)
    cached = documents(args.tokens, rng)
    asked = prompts(cached, rng)
    ways: dict[str, Callable[[], Any]] = {
        "host, yaie.cache.RadixTree": on_host(RadixTree, cached, asked, lists=False),
        "host, plain Python tree": on_host(PlainRadixTree, cached, asked, lists=True),
    }
    if torch.cuda.is_available():
        tree = flattened(cached, rng)
        ways[f"{KERNEL}, prompts copied"] = on_device(tree, asked, with_tree=False)
        ways[f"{KERNEL}, prompts and tree copied"] = on_device(tree, asked, with_tree=True)
    answers = []
    print(f"{PROMPTS} prompts of {LENGTH} tokens, {len(cached)} documents ({python_speed():.2f})")
    for name, work in ways.items():
        work()  # loads
        median, answer = seconds(work, args.repeats)
        answers.append(answer)
        print(f"{name:36} {median * 1e3:9.3f} ms")
    if any(answer != answers[0] for answer in answers):
        raise SystemExit("they do not find the same")


if __name__ == "__main__":
    main()
