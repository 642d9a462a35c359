"""paged_attention against its page."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conformance import laws
from conformance.strategies import (
    FAR_ELEMENTS,
    FLOATS,
    HEAD_DIMS,
    NARROW,
    PAGE_SIZES,
    RARELY,
    SEEDS,
    WIDE_LENGTHS,
    mask_options,
    sequence,
    wide,
)
from yaie import ops
from yaie.fill import FAMILIES, LAYOUTS
from yaie.ops._paged import TABLES

OP = ops.paged_attention


@st.composite
def cases(draw: st.DrawFn) -> Any:
    far = draw(RARELY)
    S = draw(PAGE_SIZES)
    fewest = draw(st.sampled_from([1, 1, 1, 2, 2, 3, 0]))
    D = draw(HEAD_DIMS)
    sizes = {
        "S": S,
        "Hk": draw(st.integers(1, 3)),
        "G": draw(st.sampled_from([1, 2, 3, 4, 5, 8, 12, 16])),
        "D": D,
        "Dv": draw(st.one_of(st.just(D), st.just(D), st.just(D), HEAD_DIMS)),
        "sequences": draw(st.lists(sequence(S), min_size=fewest, max_size=4)),
        "spare": draw(st.integers(0, 3)),
    }
    if far:
        S, D = 16, draw(st.sampled_from([64, 128]))
        sizes |= {"S": S, "Hk": 1, "D": D, "Dv": D, "spare": FAR_ELEMENTS // (S * D)}
        sizes["sequences"] = [(1, draw(WIDE_LENGTHS))]
    elif draw(st.sampled_from([False, False, True])):
        sizes |= draw(wide())
    sequences = sizes.pop("sequences")
    return ops.paged_attention.Case(
        q_lens=tuple(q for q, _ in sequences),
        kv_lens=tuple(kv for _, kv in sequences),
        **sizes,
        dtype=draw(NARROW if far else FLOATS),
        table=draw(st.sampled_from(TABLES)),
        tail=draw(st.integers(0, 2)),
        table_gap=draw(st.sampled_from([0, 0, 1, 3])),
        layout=draw(st.sampled_from(LAYOUTS)),
        cache_shift=draw(st.sampled_from([0, 0, 1, 4])),
        family=draw(st.sampled_from(sorted(FAMILIES))),
        seed=draw(SEEDS),
        **draw(mask_options()),
    )


@given(case=cases())
def test_equivalence(conforms, kernel, case):
    conforms(case)


@pytest.mark.law(laws.ALWAYS)
@given(case=cases())
def test_relabelled_pages_give_the_same_bits(law, case):
    args, options = law.inputs(case)
    first = law.run(args, options)
    pages = len(args["k_cache"])
    order = torch.randperm(pages, generator=torch.Generator().manual_seed(case.seed))
    moved = {name: torch.empty_like(args[name]) for name in ("k_cache", "v_cache")}
    for name, cache in moved.items():
        cache[order] = args[name]
    table = args["block_table"].long()
    known = (table >= 0) & (table < pages)
    table[known] = order[table[known]]
    second = law.run({**args, **moved, "block_table": table.int()}, options)
    for name in ("out", "lse"):
        law.exact(first[name], second[name], name)
