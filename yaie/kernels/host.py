"""The host structures of yaie.cache, driven by the programs of their ops.

After every command the structure checks itself; what it finds is an error of the kernel.
"""

from __future__ import annotations

from torch import Tensor

from yaie import ops
from yaie.cache import BlockPool, RadixTree, RadixTreeNode
from yaie.op import Kernel
from yaie.ops import _page_counts as page_counts
from yaie.ops import _prefix_set as prefix_set
from yaie.ops import _programs as programs


def radix_cache(
    commands: Tensor,
    tokens: Tensor,
    token_indptr: Tensor,
    pages: Tensor,
    page_indptr: Tensor,
    *,
    page_size: int,
) -> Tensor:
    """A program on one RadixTree."""
    tree = RadixTree(page_size)

    def observe() -> tuple[int, int]:
        tree.check_integrity()
        return tree.evictable, tree.protected

    program = prefix_set.unpacked(commands, tokens, token_indptr, pages, page_indptr)
    events = prefix_set.run(program, tree, _node_of_another_tree(page_size), observe)
    return programs.as_trace(events, max(pages.numel(), 1))


def _node_of_another_tree(page_size: int) -> RadixTreeNode:
    other, tokens = RadixTree(page_size), [0] * page_size
    other.insert(tokens, [0])
    return other.match(tokens)[1]


def block_pool(
    commands: Tensor, handles: Tensor, handle_indptr: Tensor, *, num_pages: int
) -> Tensor:
    """A program on one BlockPool."""
    pool = BlockPool(num_pages)

    def observe() -> tuple[int, int]:
        pool.check_integrity()
        return pool.n_free, sum(pool.users(page) for page in range(num_pages))

    named = programs.unpacked(handles, handle_indptr)
    session = page_counts.Session(num_pages, pool)
    events = page_counts.run(commands.tolist(), named, session, observe)
    return programs.as_trace(events, max(num_pages, 3))


def register() -> None:
    """Register the structures with their ops."""
    for op, name, run in (
        (ops.radix_cache, "host.radix_tree", radix_cache),
        (ops.block_pool, "host.block_pool", block_pool),
    ):
        op.register(Kernel(op.name, name, run, device="cpu"))
