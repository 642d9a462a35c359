"""rope_append_kv against its page."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conformance import laws
from conformance.strategies import (
    HEAD_DIMS,
    NARROW,
    RARELY,
    TOKENS,
    among,
    integers,
    mostly,
)
from conformance.test_rope import rotary
from yaie import ops
from yaie.fill import FAR_ELEMENTS, LAYOUTS
from yaie.ops._append import ALIKE

OP = ops.rope_append_kv


@st.composite
def cases(draw: st.DrawFn) -> Any:
    far = draw(RARELY)
    options = draw(rotary())
    S, P = draw(integers(1, 17)), draw(among(2, 1, 3, 4, 5, 6, 6, 0))
    Hq, Hk = draw(integers(1, 5)), draw(integers(1, 4))
    Dv = draw(st.one_of(st.just(options["D"]), HEAD_DIMS, among(20, 1)))
    if draw(integers(0, 11)) == 11:  # slots beyond 16 bits, hundreds of tokens
        S, P, Hk, Hq, Dv = 256, draw(among(3, 300, 300, 300)), 1, 2, 8
        options |= {"D": 8, "R": min(options["R"], 8)}
    if far:
        S, Hk, Dv = 16, 1, draw(among(128, 8))
        P = FAR_ELEMENTS // (S * 128)
        options |= {"D": 128, "R": min(options["R"], 128), "dtype": draw(NARROW)}
    T = min(draw(st.one_of(TOKENS, integers(0, 300), st.just(300))), P * S)
    if not T and draw(st.booleans()):
        options["M"] = 0
    return ops.rope_append_kv.Case(
        T=T,
        P=P,
        S=S,
        Hq=Hq,
        Hk=Hk,
        Dv=Dv,
        skip=draw(among(0, 0, 0, 2, 3, 4, 1)),
        k_layout=draw(mostly(ALIKE, *LAYOUTS)),
        v_layout=draw(mostly(ALIKE, *LAYOUTS)),
        cache_shift=draw(among(0, 0, 1, 2)),
        v_cache_shift=draw(mostly(-1, 0, 1, 2)),
        family=draw(among("normal", "bits")),
        **options,
    )


@given(case=cases())
def test_equivalence(conforms, kernel, case):
    conforms(case)


@pytest.mark.law(laws.BUDGETS)
@laws.fewer()
@given(case=cases())
def test_fused_is_rope_then_append_kv(law, case):
    args, options = law.inputs(case)
    rope = laws.Law(ops.rope, ops.rope.kernels[law.kernel.name])
    at = {name: args[name] for name in ("positions", "cos_sin")}
    q, k = (rope.run({"x": args[name], **at}, options) for name in ("q", "k"))
    apart = {name: args[name].clone() for name in ("k_cache", "v_cache")}
    ops.append_kv(k["y"], args["v"], **apart, slots=args["slots"], kernel=law.kernel.name)

    fused = law.run(args, options)
    law.within(fused["q_out"], q["y"], fused.allowed["q_out"] + q.allowed["y"], "q_out")
    law.exact(args["v_cache"], apart["v_cache"], "v_cache")
    rows = args["slots"][args["slots"] >= 0].long()
    keys, keys_apart = (c["k_cache"].flatten(0, 1) for c in (args, apart))
    allowed = 2 * k.allowed["y"][args["slots"] >= 0]
    law.within(keys[rows], keys_apart[rows], allowed, "k_cache at the slots")
    keys[rows] = keys_apart[rows]
    law.exact(args["k_cache"], apart["k_cache"], "k_cache elsewhere")


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_the_order_of_tokens_means_nothing(law, case):
    args, options = law.inputs(case)
    order = torch.randperm(case.T, generator=torch.Generator().manual_seed(case.seed))
    by_token = ("q", "k", "v", "positions", "slots")
    moved = {name: t[order] if name in by_token else t.clone() for name, t in args.items()}
    first, second = law.run(args, options), law.run(moved, options)
    law.exact(second["q_out"], first["q_out"][order], "q_out")
    for name in ("k_cache", "v_cache"):
        law.exact(moved[name], args[name], name)
