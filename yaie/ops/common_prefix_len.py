"""common_prefix_len: how many tokens two sequences share from their start, in whole pages.

For each pair b of sequences, ``a[a_indptr[b]:a_indptr[b+1]]`` and ``b[b_indptr[b]:b_indptr[b+1]]``:
the number of leading positions at which both have the same token, rounded down to a multiple of
``page``. What follows the first difference means nothing. All 32 bits of a token are compared.

=========  ===========  ========================================================================
a          int32[Na]    packed tokens
a_indptr   int32[B+1]   where each sequence starts; the first is 0, the last Na
b          int32[Nb]    packed tokens
b_indptr   int32[B+1]
page       1            the answers are multiples of it
-> length  int32[B]     0 where a sequence is empty
=========  ===========  ========================================================================

B = 0, empty sequences, and one sequence that is a prefix of the other are legal.
Errors: shapes, strides, devices, page < 1: ValueError; dtypes: TypeError. In checked mode an indptr
that is not 0..N or decreases: ValueError.
Source: SGLang _key_match_paged (radix_cache.py), mini-sglang fast_compare_key, which compare on the
CPU.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yaie.compare import Comparison, Contract, Exact
from yaie.fill import Fill
from yaie.op import Call, Cost, Op, at_least, case, one_of
from yaie.ops import _paged as paged
from yaie.refusal import Refusal, bad_indptr, change
from yaie.signature import parse

FAMILIES = ("any", "few", "high")
"""Tokens of 32 random bits; of two values, 0 and 1; of two values that differ in the upper half."""


@case
class Case:
    """Pairs of sequences, of which ``common[b]`` leading tokens are equal and the next, if both
    have one, is not; behind it tokens are random, or ("equal") equal again. Under "any" the first
    difference is of one bit, from pair to pair of the next."""

    lens_a: tuple[int, ...] = (5, 3)
    lens_b: tuple[int, ...] = (4, 3)
    common: tuple[int, ...] = (2, 3)
    page: int = at_least(1, default=1)
    after: str = one_of(("random", "equal"), default="random")
    family: str = one_of(FAMILIES, default="any")
    dtype: str = one_of(("int32",), default="int32")
    seed: int = at_least(0, default=0)

    def check(self) -> None:
        """Every pair has two lengths and a shared one within them."""
        if not len(self.lens_a) == len(self.lens_b) == len(self.common):
            raise ValueError(f"{self!r}: lens_a, lens_b and common are not equally many")
        for n, m, shared in zip(self.lens_a, self.lens_b, self.common, strict=True):
            if not 0 <= shared <= min(n, m):
                raise ValueError(f"{self!r}: lengths {n} and {m} cannot share {shared} tokens")

    @property
    def pairs(self) -> list[tuple[int, int, int]]:
        """(length of a, length of b, shared) of each pair."""
        return list(zip(self.lens_a, self.lens_b, self.common, strict=True))


def inputs(case: Case, fill: Fill) -> tuple[dict[str, Any], dict[str, Any]]:
    """Pairs of tokens, packed."""

    def tokens(n: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        if case.family == "any":
            return fill.rng.integers(-(2**31), 2**31, n)
        return fill.rng.integers(0, 2, n) << (16 if case.family == "high" else 0)

    packed_a, packed_b = [tokens(0)], [tokens(0)]
    first_bit = int(fill.rng.integers(32))
    for i, (n, m, shared) in enumerate(case.pairs):
        a, b = tokens(n), tokens(m)
        if case.after == "equal":
            b[: min(n, m)] = a[: min(n, m)]
        b[:shared] = a[:shared]
        if shared < min(n, m):
            bit = {"any": (first_bit + i) % 32, "few": 0, "high": 16}[case.family]
            b[shared] = np.int64(np.int32(a[shared]) ^ np.uint32(1 << bit).astype(np.int32))
        packed_a.append(a)
        packed_b.append(b)
    return {
        "a": fill.ints(np.concatenate(packed_a)),
        "a_indptr": fill.ints([0, *itertools.accumulate(case.lens_a)]),
        "b": fill.ints(np.concatenate(packed_b)),
        "b_indptr": fill.ints([0, *itertools.accumulate(case.lens_b)]),
    }, {"page": case.page}


def reference(a: Tensor, a_indptr: Tensor, b: Tensor, b_indptr: Tensor, page: int) -> Tensor:
    """One token after the other, until two differ."""
    ends_a, ends_b = a_indptr.tolist(), b_indptr.tolist()
    tokens_a, tokens_b = a.tolist(), b.tolist()
    lengths = []
    for i in range(len(ends_a) - 1):
        left = tokens_a[ends_a[i] : ends_a[i + 1]]
        right = tokens_b[ends_b[i] : ends_b[i + 1]]
        equal = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False))
        lengths.append(sum(1 for _ in equal) // page * page)
    return torch.tensor(lengths, dtype=torch.int32, device=a.device)


def comparison(expected: Tensor, call: Call, contract: Contract) -> dict[str, Comparison]:
    """Bit for bit."""
    return {"length": Exact(expected)}


def cost(case: Case) -> Cost:
    """The tokens up to the end of the page of the first difference are read on both sides, the
    bounds read, the lengths written."""
    compared = sum(
        min(n, m, shared // case.page * case.page + case.page) for n, m, shared in case.pairs
    )
    B = len(case.common)
    return Cost(bytes=4 * (2 * compared + 2 * (B + 1) + B))


WORKLOADS = {
    "prompts of 4k against their cached prefix of 2k, batch 64": Case(
        lens_a=(4096,) * 64, lens_b=(2048,) * 64, common=(2048,) * 64, page=16
    ),
    "one prompt of 128k that is cached whole": Case(
        lens_a=(131072,), lens_b=(131072,), common=(131072,), page=16
    ),
    "256 prompts of 1k that differ at once": Case(
        lens_a=(1024,) * 256, lens_b=(1024,) * 256, common=(3,) * 256, page=16
    ),
}

EDGES: dict[str, Callable[[Case], bool]] = {
    "no pairs": lambda c: not c.common,
    "one is empty": lambda c: any(min(n, m) == 0 < max(n, m) for n, m, _ in c.pairs),
    "both are empty": lambda c: any(n == m == 0 for n, m, _ in c.pairs),
    "a is a prefix of b": lambda c: any(0 < n == shared < m for n, m, shared in c.pairs),
    "b is a prefix of a": lambda c: any(0 < m == shared < n for n, m, shared in c.pairs),
    "equal": lambda c: any(0 < n == m == shared for n, m, shared in c.pairs),
    "differ at the first token": lambda c: any(shared == 0 < min(n, m) for n, m, shared in c.pairs),
    "differ at the last token of a page": lambda c: (
        c.page > 1
        and any(shared % c.page == c.page - 1 and shared < min(n, m) for n, m, shared in c.pairs)
    ),
    "differ at the first token of a page": lambda c: (
        c.page > 1
        and any(0 < shared < min(n, m) and shared % c.page == 0 for n, m, shared in c.pairs)
    ),
    "equal tokens after a difference": lambda c: (
        c.after == "equal" and any(shared + 1 < min(n, m) for n, m, shared in c.pairs)
    ),
    "a difference more than 256 tokens before the end": lambda c: any(
        shared + 256 < min(n, m) for n, m, shared in c.pairs
    ),
    "a difference behind 2,048 tokens, 1,024 before the end": lambda c: any(
        2048 < shared < min(n, m) - 1024 for n, m, shared in c.pairs
    ),
    "differences of one bit, each of 32": lambda c: (
        c.family == "any"
        and len({i % 32 for i, (n, m, shared) in enumerate(c.pairs) if shared < min(n, m)}) == 32
    ),
    "page 1": lambda c: c.page == 1,
    "page no power of two": lambda c: c.page & (c.page - 1) != 0,
    "page longer than the sequences": lambda c: any(
        0 < shared < c.page for _, _, shared in c.pairs
    ),
    "differ in the upper half of a token": lambda c: (
        c.family == "high" and any(shared < min(n, m) for n, m, shared in c.pairs)
    ),
    "a prefix that 16 bits cannot count": lambda c: max(c.common, default=0) > 65_536,
    "more than 256 shared tokens": lambda c: max(c.common, default=0) > 256,
    "more than 4096 shared tokens": lambda c: max(c.common, default=0) > 4096,
    "page of more than 128 tokens": lambda c: c.page > 128 and max(c.common, default=0) > c.page,
    "more than 32 pairs": lambda c: len(c.common) > 32,
}


def door(call: Call) -> None:
    """A page is a token at least."""
    if call.options["page"] < 1:
        raise ValueError(f"common_prefix_len: page is {call.options['page']}, must be at least 1")


def contents(call: Call) -> None:
    """Checked mode: both indptr."""
    paged.check_indptr(call, "a_indptr", "Na")
    paged.check_indptr(call, "b_indptr", "Nb")


ERRORS = (
    Refusal("page 0", change("page", lambda _: 0), ValueError, "page is 0"),
    *bad_indptr("a_indptr", "Na"),
    *bad_indptr("b_indptr", "Nb"),
)

common_prefix_len = Op(
    name="common_prefix_len",
    signature=parse(
        "a: int32[Na], a_indptr: int32[B+1], b: int32[Nb], b_indptr: int32[B+1], *, page=1 "
        "-> length: int32[B]"
    ),
    Case=Case,
    inputs=inputs,
    reference=reference,
    cost=cost,
    workloads=WORKLOADS,
    edges=EDGES,
    errors=ERRORS,
    good=Case(),
    doc=__doc__ or "",
    comparison=comparison,
    door=door,
    contents=contents,
)
