"""paged_attention against its page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from conformance import laws
from conformance.strategies import (
    EVEN_HEAD_DIMS,
    FLOATS,
    HEAD_DIMS,
    NARROW,
    PAGE_SIZES,
    RARELY,
    SEEDS,
    WIDE_LENGTHS,
    among,
    fits_tensor_cores,
    integers,
    mask_options,
    mostly,
    sequence,
    wide,
)
from conformance.test_gather_kv import relabelling_means_nothing
from yaie import ops
from yaie.fill import FAMILIES, FAR_ELEMENTS, LAYOUTS
from yaie.ops._paged import TABLES

OP = ops.paged_attention


@st.composite
def cases(draw: st.DrawFn, even: bool = False) -> Any:
    """Of the whole domain; ``even``: three in four of what kernels on tensor cores take."""
    far = draw(RARELY)
    even = even and draw(among(True, True, True, False))
    S = draw(PAGE_SIZES)
    fewest = draw(among(1, 1, 1, 2, 2, 3, 0))
    D = draw(EVEN_HEAD_DIMS if even else HEAD_DIMS)
    sizes = {
        "S": S,
        "Hk": draw(integers(1, 3)),
        "G": draw(among(1, 2, 3, 4, 5, 8, 12, 16)),
        "D": D,
        "Dv": D if even else draw(st.one_of(st.just(D), st.just(D), st.just(D), HEAD_DIMS)),
        "sequences": draw(st.lists(sequence(S), min_size=fewest, max_size=4)),
        "spare": draw(integers(0, 3)),
    }
    if far:
        S, D = 16, draw(among(64, 128))
        sizes |= {"S": S, "Hk": 1, "D": D, "Dv": D, "spare": FAR_ELEMENTS // (S * D)}
        sizes["sequences"] = [(1, draw(WIDE_LENGTHS))]
    elif draw(among(False, False, True)):
        sizes |= draw(wide())
    sequences = sizes.pop("sequences")
    return ops.paged_attention.Case(
        q_lens=tuple(q for q, _ in sequences),
        kv_lens=tuple(kv for _, kv in sequences),
        **sizes,
        dtype=draw(NARROW if far or even else FLOATS),
        table=draw(among(*TABLES)),
        tail=draw(integers(0, 2)),
        table_gap=draw(among(0, 0, 1, 3)),
        layout=draw(among(*LAYOUTS)),
        cache_shift=draw(among(0, 0, 8) if even else among(0, 0, 1, 4)),
        v_cache_shift=draw(mostly(-1, 0, 8) if even else mostly(-1, 0, 1, 4)),
        family=draw(among(*sorted(FAMILIES))),
        seed=draw(SEEDS),
        **draw(mask_options()),
    )


@given(data=st.data())
def test_equivalence(conforms, kernel, data):
    conforms(data.draw(cases(even=fits_tensor_cores(kernel))))


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_relabelled_pages_give_the_same_bits(law, case):
    relabelling_means_nothing(law, case)


def indptr(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)


def keys_of(law: laws.Law, case: Any, args: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """k and v [N,Hk,D] of all sequences, by gather_kv."""
    caches = (args["k_cache"], args["v_cache"], args["block_table"])
    return ops.gather_kv(*caches, indptr(case.kv_lens), kernel=law.kernel.name)


@pytest.mark.law(laws.BUDGETS)
@laws.fewer()
@given(case=cases())
def test_it_is_varlen_attention_of_the_gathered_keys(law, case):
    args, options = law.inputs(case)
    paged = law.run(args, options)
    packed = (args["q"], *keys_of(law, case, args), args["q_indptr"], indptr(case.kv_lens))
    out, lse = ops.varlen_attention(*packed, **options, kernel=law.kernel.name)
    law.within(paged["out"], out, 2 * paged.allowed["out"], "out")
    law.within(paged["lse"], lse, 2 * paged.allowed["lse"], "lse")


def in_pages_of(S: int, keys: Tensor, lengths: Sequence[int]) -> Tensor:
    """A cache [P,S,Hk,D] that holds one sequence after the other; what is left is NaN."""
    pages = [-(-n // S) for n in lengths]
    cache = torch.full((sum(pages), S, *keys.shape[1:]), torch.nan, dtype=keys.dtype)
    for at, part in zip(accumulate(pages, initial=0), keys.split(list(lengths)), strict=False):
        cache[at:].flatten(0, 1)[: len(part)] = part
    return cache


@pytest.mark.law(laws.BUDGETS)
@laws.fewer()
@given(case=cases(), S=PAGE_SIZES)
def test_the_page_size_means_nothing(law, case, S):
    """The same keys and values in pages of another size."""
    args, options = law.inputs(case)
    first = law.run(args, options)
    pages = [-(-n // S) for n in case.kv_lens]
    table = torch.full((len(pages), max([1, *pages])), -1, dtype=torch.int32)
    for b, (at, n) in enumerate(zip(accumulate(pages, initial=0), pages, strict=False)):
        table[b, :n] = torch.arange(at, at + n)
    k, v = (in_pages_of(S, x, case.kv_lens) for x in keys_of(law, case, args))
    second = law.run({**args, "k_cache": k, "v_cache": v, "block_table": table}, options)
    for name in ("out", "lse"):
        allowed = first.allowed[name] + second.allowed[name]
        law.within(first[name], second[name], allowed, name)


@pytest.mark.law(laws.BUDGETS)
@laws.fewer()
@given(case=cases())
def test_a_sequence_alone_is_what_it_is_in_the_batch(law, case):
    args, options = law.inputs(case)
    whole = law.run(args, options)
    law.exact(whole["out"][:0], whole["out"][:0])
    for b, rows in enumerate(torch.arange(len(args["q"])).split(list(case.q_lens))):
        alone = {"q": args["q"][rows], "q_indptr": indptr([len(rows)])}
        alone |= {name: args[name][b : b + 1] for name in ("block_table", "kv_lens")}
        answer = law.run({**args, **alone}, options)
        for name in ("out", "lse"):
            allowed = whole.allowed[name][rows] + answer.allowed[name]
            law.within(whole[name][rows], answer[name], allowed, name)
