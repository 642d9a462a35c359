"""Radix trees for the cases of match_tree: how one grows from prompts, is flattened and checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from yaie.op import Call
from yaie.ops import _paged as paged
from yaie.ops._programs import unpacked
from yaie.refusal import Refusal, bad_indptr, put

Tokens = tuple[int, ...]


@dataclass
class Node:
    """A node while it grows: an edge, and children by their first page."""

    edge: Tokens = ()
    children: dict[Tokens, Node] = field(default_factory=dict)

    def add(self, prompt: Tokens, page: int) -> None:
        """Make a path for the whole pages of a prompt below this node."""
        node, prompt = self, prompt[: len(prompt) // page * page]
        while prompt:
            child = node.children.get(prompt[:page])
            if child is None:
                node.children[prompt[:page]] = Node(prompt)
                return
            n = shared_pages(child.edge, prompt, page)
            if n < len(child.edge):
                lower = Node(child.edge[n:], child.children)
                child.edge, child.children = child.edge[:n], {lower.edge[:page]: lower}
            node, prompt = child, prompt[n:]


@dataclass
class Tree:
    """A flattened tree: of each node its edge, its children, and the tokens from the root on."""

    edges: list[Tokens]
    children: list[list[int]]
    paths: list[Tokens]

    @staticmethod
    def grown(
        prompts: Sequence[Tokens],
        page: int,
        more: tuple[int, int, int, int, bool],
        rng: np.random.Generator,
    ) -> Tree:
        """The tree of the prompts, and of ``more``: how many random requests of which length, how
        long a chain, how many siblings, and whether these are children of the chain's end."""
        requests, length, chain, siblings, deep = more
        grown, root = list(prompts), Node()
        for _ in range(requests):
            earlier = grown[int(rng.integers(len(grown)))] if grown else ()
            grown.append(_gone_on(earlier, length, rng)[:length])
        spine = tuple(rng.integers(0, 2, chain * page).tolist())
        grown += (spine[: (i + 1) * page] for i in range(chain))
        for i in range(siblings):  # of their first page, one token tells them apart
            own = tuple(9 + i if j == i % page else 0 for j in range(page))
            grown.append((*spine, *own) if deep else own)
        for prompt in grown:
            root.add(prompt, page)
        return Tree.of(root, rng)

    @staticmethod
    def of(root: Node, rng: np.random.Generator) -> Tree:
        """Number the nodes in any order in which parents come first, list children in any."""
        tree, open_ = Tree([root.edge], [[]], [root.edge]), [(0, root)]
        while open_:
            at = int(rng.random() * len(open_))
            open_[at], open_[-1] = open_[-1], open_[at]
            number, node = open_.pop()
            below = list(node.children.values())
            for child in (below[i] for i in rng.permutation(len(below)).tolist()):
                tree.children[number].append(len(tree.edges))
                open_.append((len(tree.edges), child))
                tree.edges.append(child.edge)
                tree.children.append([])
                tree.paths.append(tree.paths[number] + child.edge)
        return tree

    def walks(self, n: int, page: int, rng: np.random.Generator) -> list[Tokens]:
        """``n`` queries: paths of the tree, every second one the longest there is, cut anywhere
        and gone on with at random."""
        longest = max(self.paths, key=len)
        ways = (
            longest if i % 2 else self.paths[int(rng.integers(len(self.paths)))] for i in range(n)
        )
        return [_gone_on(way, int(rng.integers(2 * page)), rng) for way in ways]

    def bit_queries(self, page: int) -> list[Tokens]:
        """Some paths, and pages of the letter 0 that end in one of each letter from 1 to 32."""
        return [*self.paths[:64], *((0,) * i * page + (i,) * page for i in range(1, 33))]

    def stop(self, query: Tokens, page: int) -> tuple[int, str, int]:
        """Where a query stops: matched tokens; at the root, at another node, or inside an edge; the
        last node that gave a page."""
        node, at = 0, 0
        while True:
            rest = query[at:]
            ahead = [c for c in self.children[node] if self.edges[c][:page] == rest[:page]]
            if not ahead:
                return at, "node" if node else "root", node
            node = ahead[0]
            n = shared_pages(self.edges[node], rest, page)
            at += n
            if n < len(self.edges[node]):
                return at, "edge", node


def _one_bit_off(letter: int, zero: int) -> int:
    """The token of a letter: 1 to 32 differ from 0, which is ``zero``, in one bit each."""
    bits = 1 << letter - 1 if 0 < letter <= 32 else 2 * letter + (letter > 32)
    token = (zero ^ bits) % 2**32
    return token - 2**32 if token >= 2**31 else token


FAMILIES: dict[str, Callable[[int, int], int]] = {
    "low": lambda letter, zero: letter,
    "high": lambda letter, zero: letter << 16,
    "bits": _one_bit_off,
}
"""Tokens that stand for letters, by name; ``zero`` is a random number."""


def tokens_of(family: str, zero: int, rows: Sequence[Tokens]) -> list[list[int]]:
    """Rows of letters as tokens."""
    return [[FAMILIES[family](letter, zero) for letter in row] for row in rows]


Pack = Callable[[Sequence[Sequence[int]]], tuple[Any, Any]]
"""Lists, laid out one after the other, and where each starts."""


def arrays(edges: Sequence[Sequence[int]], children: Sequence[Sequence[int]], pack: Pack) -> Any:
    """A tree as match_tree takes it, by the names of its arguments."""
    (edge_tokens, edge_indptr), (below, child_indptr) = pack(edges), pack(children)
    return {
        "edge_tokens": edge_tokens,
        "edge_indptr": edge_indptr,
        "child_indptr": child_indptr,
        "children": below,
    }


def _gone_on(path: Tokens, more: int, rng: np.random.Generator) -> Tokens:
    cut = int(rng.integers(len(path) + 1))
    return (*path[:cut], *rng.integers(0, 3, more).tolist())


def shared_pages(a: Tokens, b: Tokens, page: int) -> int:
    """How many leading tokens are alike, in whole pages."""
    most = min(len(a), len(b)) // page * page
    starts = range(0, most, page)
    return next((i for i in starts if a[i : i + page] != b[i : i + page]), most)


def check_tree(call: Call) -> None:
    """Checked mode: the packed tree of a call is one."""
    paged.check_indptr(call, "edge_indptr", "E")
    paged.check_indptr(call, "child_indptr", "C")
    edges = unpacked(call.args["edge_tokens"], call.args["edge_indptr"])
    page = call.options["page"]
    for node, edge in enumerate(edges):
        if len(edge) % page or bool(edge) != bool(node):
            what = f"must be pages of {page}, at least one" if node else "must be empty"
            raise ValueError(f"{call.op}: edge_tokens: node {node} has {len(edge)}, {what}")
    seen: set[int] = set()
    for node, below in enumerate(unpacked(call.args["children"], call.args["child_indptr"])):
        for child in below:
            if not node < child < len(edges) or child in seen:
                raise ValueError(f"{call.op}: children: {child} below {node}, or a second time")
            seen.add(child)
        if len({tuple(edges[child][:page]) for child in below}) < len(below):
            raise ValueError(f"{call.op}: children: two of node {node} start with the same page")
    if len(seen) < len(edges) - 1:
        raise ValueError(f"{call.op}: children: {len(seen)}, of {len(edges) - 1} nodes")


def _rootless(given: dict[str, Any]) -> None:
    for name in ("edge_indptr", "child_indptr"):
        given[name] = given[name][:1]


def _orphan(given: dict[str, Any]) -> None:
    given["children"] = given["children"][:-1]
    given["child_indptr"] = given["child_indptr"].clamp(max=3)


# The good tree has four nodes of one page, of 2 tokens, below its root.
TREE_ERRORS = (
    Refusal("no root", _rootless, ValueError, "n is 0"),
    *bad_indptr("edge_indptr", "E"),
    *bad_indptr("child_indptr", "C"),
    Refusal("root with tokens", put("edge_indptr", 2, 1), ValueError, "node 0 has 2", True),
    Refusal("edge of half a page", put("edge_indptr", 3, 2), ValueError, "node 1 has 3", True),
    Refusal("empty edge", put("edge_indptr", 0, 2), ValueError, "node 1 has 0", contents=True),
    Refusal("child 0", put("children", 0, 0), ValueError, "0 below 0", contents=True),
    Refusal("child at n", put("children", 5, 1), ValueError, "5 below", contents=True),
    Refusal("one child again", put("children", 4), ValueError, "second time", contents=True),
    Refusal("siblings alike", put("edge_tokens", 7), ValueError, "the same page", contents=True),
    Refusal("node of nobody", _orphan, ValueError, "3, of 4 nodes", contents=True),
)
