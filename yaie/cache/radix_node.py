"""RadixTreeNode: one run of tokens in a RadixTree, and the walks that need no more than nodes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from yaie.cache.integers import WORD, unpack

Pages = NDArray[np.int32]


class RadixTreeNode:
    """A run of tokens below its parent's, with the pages that end in it.

    All pages of a node have the same locks and the same last use; what would give them different
    ones splits the node. A node other than the root names the page-prefix of its last page, and
    keeps that meaning while it lives: a split gives the new object to the other half, an eviction
    replaces the object. The attributes belong to the tree.
    """

    __slots__ = (
        "below",
        "chain_locks",
        "children",
        "edge",
        "last_use",
        "locks",
        "page_bytes",
        "parent",
        "queued",
        "request_count",
        "request_ids",
        "start",
    )

    def __init__(
        self,
        parent: RadixTreeNode | None,
        edge: bytes,
        start: int,
        page_bytes: bytes = b"",
        last_use: int = 0,
    ) -> None:
        self.parent = parent  # None: the root, or no longer in the tree
        self.edge = edge
        self.start = start  # where the edge starts in the path, in bytes, as all lengths here
        self.children = NO_CHILDREN  # by their first token
        self.page_bytes = page_bytes  # page ids, as far as there are pages
        self.last_use = last_use
        self.locks = 0  # of this very page-prefix
        self.chain_locks = 0  # of this page-prefix and all that extend it
        self.below = 0  # children with pages in their subtree
        self.queued = 0  # its last use when it was queued for eviction, 0: it is not queued
        self.request_ids: set[str] | None = None  # of the requests that end here
        self.request_count = 0  # requests that end here or below

    @property
    def end(self) -> int:
        """Where the edge ends in the path."""
        return self.start + len(self.edge)

    @property
    def tokens(self) -> NDArray[np.int32]:
        """The tokens of the edge."""
        return unpack(self.edge)

    @property
    def pages(self) -> Pages:
        """The pages that end in this edge."""
        return unpack(self.page_bytes)

    @property
    def requests(self) -> list[str]:
        """The requests that end here."""
        return sorted(self.request_ids or ())

    def __repr__(self) -> str:
        return (
            f"<RadixTreeNode tokens {self.start // WORD}:{self.end // WORD}, "
            f"{len(self.page_bytes) // WORD} pages, {self.chain_locks} locks>"
        )


Bud = tuple[bytes, bytes, bytes, int]
"""A new leaf that nothing has reached since: its first token, its edge, its page ids, its last use.

It hangs where its node would, which the tree makes once something does reach it. Most leaves of a
cache are evicted as buds, and a tuple costs a fraction of a node: less to set, and nothing that the
garbage collector must follow, for which a bud does not know its parent."""

NO_CHILDREN: dict[bytes, RadixTreeNode | Bud] = {}
"""Stands for an own dictionary in every node that never had a child; nobody adds to it."""


def node_of(bud: Bud, parent: RadixTreeNode) -> RadixTreeNode:
    """The node that a bud of ``parent`` stands for; the parent still has the bud."""
    _, edge, page_bytes, last_use = bud
    node = RadixTreeNode(parent, edge, parent.end, page_bytes, last_use)
    node.queued = last_use
    return node


def pages_above(node: RadixTreeNode) -> list[bytes]:
    """The page ids of a node's chain, from the root on."""
    runs = []
    while node.parent is not None:
        runs.append(node.page_bytes)
        node = node.parent
    runs.reverse()
    return runs


def children(node: RadixTreeNode) -> Iterator[RadixTreeNode]:
    """The children of a node, to read: for a bud comes a node that the tree does not know."""
    for child in node.children.values():
        yield node_of(child, node) if isinstance(child, tuple) else child


def subtree(node: RadixTreeNode) -> Iterator[RadixTreeNode]:
    """The node and all below it, parents first, to read as by ``children``."""
    todo = [node]
    while todo:
        node = todo.pop()
        yield node
        todo.extend(children(node))
