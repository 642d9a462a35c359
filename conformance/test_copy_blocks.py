"""copy_blocks against its page."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conformance import laws
from conformance.strategies import (
    HEAD_DIMS,
    MANY_PAGES,
    RARELY,
    SEEDS,
    among,
    integers,
)
from yaie import ops
from yaie.fill import FAR_ELEMENTS
from yaie.ops.copy_blocks import KINDS, LAYERS

OP = ops.copy_blocks

COPIED_DTYPES = ["float32", "float16", "bfloat16", "float64", "uint8", "int8", "int32", "int64"]
# Around one, two and more of the chunks that a block of the vec kernel copies (1024 words), and
# pages of real models.
BIG_PAGES = st.sampled_from(
    [(1023,), (1025,), (2049,), (4096,), (5000,), (16, 8, 128), (17, 5, 100)]
)


@st.composite
def cases(draw: st.DrawFn) -> Any:
    far = draw(RARELY)
    P = draw(st.one_of(integers(2, 12), integers(2, 12), integers(1, 12)))
    L = draw(among(2, 1, 3, 4, 2, 3, 65, 130, 0))  # a launch takes 64
    dims = HEAD_DIMS if L < 5 else among(8, 1, 3)
    page = st.tuples(st.integers(1, 9), st.integers(1, 3), dims)
    if L < 5:
        page = st.one_of(page, page, BIG_PAGES)
    extreme, dtypes = draw(integers(0, 23)), COPIED_DTYPES
    if extreme >= 21:  # tens of pairs
        P, L, page = draw(among(2, 24, 64, 200)), min(L, 2), st.just((1, 1, 8))
    if extreme == 20:  # page ids beyond 16 bits
        P, L, page = draw(MANY_PAGES), min(L, 2), st.just((1,))
    if far:
        P, L = FAR_ELEMENTS // 2048, 1
        page, dtypes = st.just((2, 8, 128)), ["float16", "bfloat16", "int8", "uint8"]
    return ops.copy_blocks.Case(
        L=L,
        P=P,
        page=draw(page),
        M=draw(
            st.one_of(
                st.integers(1, 9), st.just(min(P, 100)), st.integers(0, 9), st.integers(10, 100)
            )
        ),
        dtype=draw(among(*dtypes)),
        kind=draw(among(*KINDS, "distinct", "mixed", "fan-out")),
        layers=draw(among(*LAYERS)),
        seed=draw(SEEDS),
    )


@given(case=cases())
def test_equivalence(conforms, kernel, case):
    conforms(case)


def copied(law, caches, pairs):
    """The caches after a call, which leaves the given ones alone."""
    made = [cache.clone() for cache in caches]
    law.run({"caches": made, "pairs": pairs})
    return made


def same(law, first, second):
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        law.exact(a, b, f"caches[{i}]")


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_a_copy_reads_before_it_writes(law, case):
    args, _ = law.inputs(case)
    src, dst = args["pairs"].long().unbind(1)
    made = copied(law, **args)
    for i, (before, after) in enumerate(zip(args["caches"], made, strict=True)):
        law.exact(after[dst], before[src], f"caches[{i}] at the destinations")
        after[dst] = before[dst]
        law.exact(after, before, f"caches[{i}] elsewhere")


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_the_order_of_pairs_means_nothing(law, case):
    args, _ = law.inputs(case)
    pairs = args["pairs"]
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(case.seed))
    made = copied(law, **args)
    same(law, copied(law, args["caches"], pairs[order]), made)


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_layers_are_independent(law, case):
    args, _ = law.inputs(case)
    made = copied(law, **args)
    alone = [copied(law, [cache], args["pairs"])[0] for cache in args["caches"][:4]]
    same(law, alone, made[:4])


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_no_pairs_and_identity_pairs_change_nothing(law, case):
    args, _ = law.inputs(case)
    same(law, copied(law, args["caches"], args["pairs"][:0]), args["caches"])
    itself = args["pairs"][:, 1:].repeat(1, 2)
    same(law, copied(law, args["caches"], itself), args["caches"])
