"""match_tree: the longest cached prefix of each query, found in a flattened radix tree.

Node i of the tree continues the path of its parent by the tokens ``edge_tokens[edge_indptr[i] :
edge_indptr[i+1]]``; node 0 is the root, whose edge is empty. Its children are
``children[child_indptr[i] : child_indptr[i+1]]``, in any order. Edges are whole pages, at least one
but for the root's, and siblings differ in their first page, so at most one can go on.

Each query walks from the root as long as whole pages of it agree, and may stop inside an edge:
``matched`` is the number of tokens on the way, a multiple of ``page``; ``node`` is the last node
whose edge gave at least one page, 0 if none did. All 32 bits of a token are compared.

=============  ===========  ====================================================================
edge_tokens    int32[E]     packed edges
edge_indptr    int32[n+1]   where each edge starts; the first is 0, the last E; n >= 1
child_indptr   int32[n+1]   where the children of each node start; the first is 0, the last C
children       int32[C]     each node but 0 once; greater than its parent
query          int32[Nq]    packed queries, of any length
q_indptr       int32[B+1]   where each query starts
page           1            tokens a page
-> matched     int32[B]
-> node        int32[B]
=============  ===========  ====================================================================

Nothing is refreshed: recency is the host's affair (radix_cache). B = 0, empty queries and a tree of
the root alone are legal.
Errors: shapes, strides, devices, page < 1, n = 0: ValueError; dtypes: TypeError. In checked mode an
indptr not 0..N or decreasing, a root with tokens, an edge that is empty or of no whole pages, a
child that is no node, before its parent or there twice, siblings with one first page: ValueError.
Source: SGLang RadixCache.match_prefix, mini-sglang's radix_cache.py, which walk on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yaie.compare import Comparison, Contract, Exact
from yaie.fill import Fill
from yaie.op import Call, Cost, Op, at_least, case, one_of
from yaie.ops import _paged as paged
from yaie.ops._programs import packed, unpacked
from yaie.ops._tree import FAMILIES, TREE_ERRORS, Tokens, Tree, arrays, check_tree, tokens_of
from yaie.refusal import Refusal, bad_indptr, change
from yaie.signature import parse


@case
class Case:
    """A tree grown from prompts, and queries; both are tuples of letters, a letter stands for a
    token. From ``seed``: a path of ``chain`` nodes of one page, ``siblings`` children of the root
    (``deep``: of the path's end), ``requests`` prompts of ``length`` tokens and ``walks`` queries
    that go on where an earlier prompt, or a path, is cut. Under "high" tokens differ in their upper
    halves only, under "bits" those of letters 1 to 32 from that of 0 in one bit each, and there are
    more queries (_tree.Tree.bit_queries)."""

    prompts: tuple[Tokens, ...] = ((0, 0, 1), (0, 1))
    queries: tuple[Tokens, ...] = ((0, 0, 1, 1), (0, 1), (1,))
    page: int = at_least(1, default=1)
    chain: int = at_least(0, default=0)
    siblings: int = at_least(0, default=0)
    deep: bool = False
    requests: int = at_least(0, default=0)
    length: int = at_least(1, default=8)
    walks: int = at_least(0, default=0)
    family: str = one_of(tuple(FAMILIES), default="low")
    dtype: str = one_of(("int32",), default="int32")
    seed: int = at_least(0, default=0)

    def check(self) -> None:
        """Prompts and queries hold letters."""
        for text in (*self.prompts, *self.queries):
            if type(text) is not tuple or not set(text) <= set(range(9)):
                raise ValueError(f"{text!r} is no tuple of letters from 0 to 8")

    @property
    def tree(self) -> Tree:
        """What grew from the prompts."""
        return _grown(self)[0]

    @property
    def asked(self) -> list[Tokens]:
        """All queries."""
        return _grown(self)[1]

    def stops(self) -> list[tuple[int, str, int]]:
        """Where each query stops (_tree.Tree.stop)."""
        return _grown(self)[2]


@lru_cache(maxsize=64)
def _grown(case: Case) -> tuple[Tree, list[Tokens], list[tuple[int, str, int]]]:
    rng = np.random.default_rng(case.seed)
    more = (case.requests, case.length, case.chain, case.siblings, case.deep)
    tree = Tree.grown(case.prompts, case.page, more, rng)
    queries = [*case.queries, *tree.walks(case.walks, case.page, rng)]
    queries += tree.bit_queries(case.page) * (case.family == "bits")
    return tree, queries, [tree.stop(query, case.page) for query in queries]


def inputs(case: Case, fill: Fill) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tree and the queries, packed."""
    zero = int(fill.rng.integers(2**32)) if case.family == "bits" else 0
    named = partial(tokens_of, case.family, zero)
    tree = arrays(named(case.tree.edges), case.tree.children, partial(packed, fill))
    query, q_indptr = packed(fill, named(case.asked))
    return {**tree, "query": query, "q_indptr": q_indptr}, {"page": case.page}


def reference(
    edge_tokens: Tensor,
    edge_indptr: Tensor,
    child_indptr: Tensor,
    children: Tensor,
    query: Tensor,
    q_indptr: Tensor,
    page: int,
) -> tuple[Tensor, Tensor]:
    """One query after the other, one page after the other."""
    edges, below = unpacked(edge_tokens, edge_indptr), unpacked(children, child_indptr)
    matched, nodes = [], []
    for tokens in unpacked(query, q_indptr):
        node = offset = at = 0  # offset: in the edge of the node
        while at + page <= len(tokens):
            wanted = tokens[at : at + page]
            if offset < len(edges[node]):
                if edges[node][offset : offset + page] != wanted:
                    break
            else:
                fitting = [child for child in below[node] if edges[child][:page] == wanted]
                if not fitting:
                    break
                node, offset = fitting[0], 0
            offset, at = offset + page, at + page
        matched.append(at)
        nodes.append(node)
    rows = torch.tensor([matched, nodes], dtype=torch.int32, device=query.device)
    return rows[0], rows[1]


def comparison(
    expected: tuple[Tensor, Tensor], call: Call, contract: Contract
) -> dict[str, Comparison]:
    """Bit for bit."""
    return {"matched": Exact(expected[0]), "node": Exact(expected[1])}


def cost(case: Case) -> Cost:
    """What matches and the page behind it are read on both sides, the results are written; bounds
    and children on the way are not counted."""
    stops = zip(case.asked, case.stops(), strict=True)
    compared = sum(min(len(query), matched + case.page) for query, (matched, *_) in stops)
    return Cost(bytes=4 * (2 * compared + 3 * len(case.asked) + 1))


def _deepest(case: Case) -> int:
    return max((matched for matched, *_ in case.stops()), default=0)


_SHARED = Case(prompts=(), queries=(), page=16)

WORKLOADS = {
    "1000 requests of 1k tokens, batch 64": replace(_SHARED, requests=1000, length=1024, walks=64),
    "1000 siblings, batch 256": replace(_SHARED, siblings=1000, walks=256),
    "a chain of 256 turns, batch 16": replace(_SHARED, chain=256, walks=16),
}

EDGES: dict[str, Callable[[Case], bool]] = {
    "no queries": lambda c: not c.asked,
    "an empty query": lambda c: () in c.asked,
    "the root alone": lambda c: len(c.tree.edges) == 1 and any(c.asked),
    "stop at the root": lambda c: any(where == "root" for _, where, _ in c.stops()),
    "stop at a node": lambda c: any(where == "node" for _, where, _ in c.stops()),
    "stop inside an edge": lambda c: any(where == "edge" for _, where, _ in c.stops()),
    "a page agrees but for its last token": lambda c: c.page > 1 and c.siblings > 1,
    "more than 32 nodes deep": lambda c: c.chain > 32 and _deepest(c) > 32 * c.page,
    "1000 siblings, pages of more than 32 tokens": lambda c: c.siblings >= 1000 and c.page > 32,
    "more than 128 nodes deep": lambda c: c.chain > 128 and _deepest(c) > 128 * c.page,
    "more than 1,024 siblings": lambda c: c.siblings > 1024 and c.walks > 9,
    "more than 64 siblings below other nodes": lambda c: c.deep and 64 < c.siblings < 2 * c.walks,
    "siblings that part behind the 64th token": lambda c: c.siblings > 64 and c.page >= 128,
    "a node that 16 bits cannot count": lambda c: any(node > 65_535 for *_, node in c.stops()),
    "more than 256 tokens of an edge": lambda c: c.length > 256 and _deepest(c) > 256,
    "a prompt that 16 bits cannot count": lambda c: c.length > 65_535 and _deepest(c) > 65_535,
    "more than 32 queries": lambda c: len(c.asked) > 32,
    "tokens that differ in upper halves": lambda c: c.family == "high" and len(c.tree.edges) > 2,
    "siblings and queries one bit apart, each of 32": lambda c: (
        c.family == "bits" and c.page == 1 and c.siblings >= 24 and len(c.tree.edges) > 32
    ),
    "page 1": lambda c: c.page == 1,
    "page no power of two": lambda c: c.page & (c.page - 1) != 0,
}


def door(call: Call) -> None:
    """A page is a token at least, and a tree has a root."""
    if call.options["page"] < 1:
        raise ValueError(f"match_tree: page is {call.options['page']}, must be at least 1")
    if call.axes["n"] < 1:
        raise ValueError("match_tree: edge_indptr: n is 0, a tree has a root")


def contents(call: Call) -> None:
    """Checked mode: the tree is one, and the queries are packed."""
    check_tree(call)
    paged.check_indptr(call, "q_indptr", "Nq")


ERRORS = (
    Refusal("page 0", change("page", lambda _: 0), ValueError, "page is 0"),
    *TREE_ERRORS,
    *bad_indptr("q_indptr", "Nq"),
)

match_tree = Op(
    name="match_tree",
    signature=parse(
        "edge_tokens: int32[E], edge_indptr: int32[n+1], child_indptr: int32[n+1], "
        "children: int32[C], query: int32[Nq], q_indptr: int32[B+1], *, page=1 "
        "-> matched: int32[B], node: int32[B]"
    ),
    Case=Case,
    inputs=inputs,
    reference=reference,
    cost=cost,
    workloads=WORKLOADS,
    edges=EDGES,
    errors=ERRORS,
    good=Case(prompts=((0, 0, 1, 1), (0, 0, 0, 1), (1, 1)), queries=((0, 0, 0), (1,)), page=2),
    doc=__doc__ or "",
    comparison=comparison,
    door=door,
    contents=contents,
)
