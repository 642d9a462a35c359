"""append_kv against its page."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conformance import laws
from conformance.strategies import (
    FLOATS,
    HEAD_DIMS,
    NARROW,
    RARELY,
    SEEDS,
    TOKENS,
    among,
    integers,
    mostly,
)
from yaie import ops
from yaie.fill import FAR_ELEMENTS, LAYOUTS
from yaie.ops._append import ALIKE

OP = ops.append_kv


@st.composite
def cases(draw: st.DrawFn) -> Any:
    far = draw(RARELY)
    S = draw(integers(1, 17))
    P = draw(among(2, 1, 3, 4, 5, 6, 6, 0))
    Hk, D = draw(integers(1, 4)), draw(HEAD_DIMS)
    Dv = draw(st.one_of(st.just(D), HEAD_DIMS))
    if draw(integers(0, 11)) == 11:  # slots beyond 16 bits, hundreds of tokens
        S, P, Hk, D, Dv = 256, draw(among(3, 300, 300, 300)), 1, 8, 8
    if far:
        S, Hk, D, Dv = 16, 1, 128, draw(among(128, 8))
        P = FAR_ELEMENTS // (S * D)
    return ops.append_kv.Case(
        T=min(draw(st.one_of(TOKENS, integers(0, 600), st.just(600))), P * S),
        P=P,
        S=S,
        Hk=Hk,
        D=D,
        Dv=Dv,
        dtype=draw(NARROW if far else FLOATS),
        skip=draw(among(0, 0, 0, 2, 3, 4, 1)),
        layout=draw(among(*LAYOUTS)),
        v_layout=draw(mostly(ALIKE, *LAYOUTS)),
        cache_shift=draw(among(0, 0, 1, 2)),
        v_cache_shift=draw(mostly(-1, 0, 1, 2)),
        family=draw(among("normal", "bits")),
        seed=draw(SEEDS),
    )


@given(case=cases())
def test_equivalence(conforms, kernel, case):
    conforms(case)


def copied(args, tokens=slice(None)):
    """The same call with caches of its own, of some of the tokens."""
    by_token = ("k", "v", "slots")
    return {name: t[tokens] if name in by_token else t.clone() for name, t in args.items()}


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_the_order_of_tokens_means_nothing(law, case):
    args, _ = law.inputs(case)
    order = torch.randperm(case.T, generator=torch.Generator().manual_seed(case.seed))
    moved = copied(args, order)
    law.run(args)
    law.run(moved)
    for name in ("k_cache", "v_cache"):
        law.exact(moved[name], args[name], name)


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases(), cut=integers(0, 600))
def test_tokens_may_come_in_two_calls(law, case, cut):
    args, _ = law.inputs(case)
    first = copied(args, slice(None, cut % (case.T + 1)))
    rest = {name: args[name][cut % (case.T + 1) :] for name in ("k", "v", "slots")}
    law.run(args)
    law.run(first)
    law.run({**first, **rest})
    for name in ("k_cache", "v_cache"):
        law.exact(first[name], args[name], name)


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_skipped_tokens_may_be_left_out(law, case):
    args, _ = law.inputs(case)
    stored = copied(args, args["slots"] >= 0)
    law.run(args)
    law.run(stored)
    for name in ("k_cache", "v_cache"):
        law.exact(stored[name], args[name], name)
