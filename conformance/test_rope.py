"""rope against its page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conformance import laws, peers
from conformance.strategies import FLOATS, HEAD_DIMS, SEEDS, TOKENS, among, integers
from yaie import ops
from yaie.fill import LAYOUTS
from yaie.ops._rope import POSITIONS, TABLES
from yaie.ops.rope import FAMILIES

OP = ops.rope


@st.composite
def rotary(draw: st.DrawFn) -> dict[str, Any]:
    """The table, the pairs and the positions."""
    M = draw(st.one_of(*[integers(1, 40)] * 4, among(1, 300, 66_000)))
    D = max(2, draw(HEAD_DIMS)) if M <= 300 else 8
    whole = D - D % 2
    R = draw(among(whole, whole, 2, max(2, whole // 2 - whole // 2 % 2), whole - 2))
    return {
        "D": D,
        "R": max(2, R),
        "M": M,
        "interleaved": draw(st.booleans()),
        "positions": draw(among(*sorted(POSITIONS))),
        "table": draw(among(*TABLES)),
        "table_gap": draw(among(0, 0, 1, 3, 4)),
        "dtype": draw(FLOATS),
        "layout": draw(among(*LAYOUTS)),
        "seed": draw(SEEDS),
    }


@st.composite
def cases(draw: st.DrawFn) -> Any:
    options = draw(rotary())
    T = draw(st.one_of(TOKENS, TOKENS, among(0, 1, 257, 300)))
    H = draw(among(1, 2, 3, 5, 8, 17, 40, 128))
    if T > 40 or H > 16:  # wide in one way alone
        options["D"], options["R"] = 10, min(options["R"], 10)
        T, H = (T, 1) if T > 40 else (min(T, 9), H)
    if not T and draw(st.booleans()):
        options["M"] = 0
    return ops.rope.Case(T=T, H=H, family=draw(among(*FAMILIES)), **options)


@given(case=cases())
def test_equivalence(conforms, kernel, case):
    conforms(case)


def placed(args: dict[str, Any], positions: torch.Tensor) -> dict[str, Any]:
    """The call with a whole table of angles, and these positions."""
    half = args["cos_sin"].shape[1] // 2
    frequency = 10_000.0 ** (-torch.arange(half).double() / half)
    angle = torch.arange(64).double()[:, None] * frequency
    table = torch.cat([angle.cos(), angle.sin()], 1).float()
    return {**args, "positions": positions.int(), "cos_sin": table}


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_position_zero_changes_nothing(law, case):
    args, options = law.inputs(case)
    y = law.run(placed(args, torch.zeros(case.T)), options)["y"]
    law.exact(y + 0.0, args["x"] + 0.0, "y")  # x*1 - 0*0 may turn -0 into 0


@pytest.mark.law(laws.BUDGETS)
@laws.fewer()
@given(case=cases())
def test_the_norm_of_a_pair_is_kept(law, case):
    args, options = law.inputs(case)
    at = torch.arange(case.T) * 7 % 64
    answer = law.run(placed(args, at), options)

    def norms(x):
        part = x[..., : case.R].double()
        shape = (-1, 2) if case.interleaved else (2, -1)
        return part.unflatten(-1, shape).norm(dim=-1 if case.interleaved else -2)

    # A norm moves by no more than the norm of what its two numbers move by; a cosine and a sine
    # that are rounded to float32 make a pair longer or shorter by 2^-23 at most.
    allowed = norms(answer.allowed["y"]) + 2.0**-23 * norms(args["x"])
    law.within(norms(answer["y"]), norms(args["x"]), allowed, "norms")


@pytest.mark.law(laws.BUDGETS)
@laws.fewer()
@given(case=cases(), shift=st.integers(1, 40))
def test_scores_depend_on_the_distance_alone(law, case, shift):
    """The product of a query at m and a key at n is that of both moved by the same distance."""
    args, options = law.inputs(replace(case, table="angles"))
    q, at = args["x"], torch.arange(case.T) % 20
    k = q.roll(1, -1).contiguous()
    turned = [
        law.run(placed({**args, "x": x}, at + offset), options)
        for x, offset in ((q, 3), (k, 0), (q, 3 + shift), (k, shift))
    ]
    near, far = ((a["y"].double() * b["y"].double()).sum(-1) for a, b in (turned[:2], turned[2:]))
    off = [
        a.allowed["y"] * b["y"].double().abs() + b.allowed["y"] * a["y"].double().abs()
        for a, b in (turned[:2], turned[2:])
    ]
    angles = 2.0**-21 * q.double().norm(dim=-1) * k.double().norm(dim=-1)  # of a rounded table
    law.within(near, far, 1.01 * sum(off).sum(-1) + angles, "scores")


@pytest.mark.law(laws.DECLARED)
@laws.fewer()
@given(case=cases())
def test_interleaved_is_a_permutation_of_the_other(law, case):
    args, options = law.inputs(case)
    pairs = torch.arange(case.R).view(2, -1).T.flatten()  # 0, R/2, 1, R/2+1, ...
    order = torch.cat([pairs, torch.arange(case.R, case.D)])
    plain = law.run(args, {**options, "interleaved": False})["y"]
    mixed = law.run({**args, "x": args["x"][..., order].contiguous()}, {"interleaved": True})["y"]
    law.exact(mixed, plain[..., order], "y")


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_tokens_and_heads_are_independent(law, case):
    args, options = law.inputs(case)
    y = law.run(args, options)["y"]
    order = torch.randperm(case.T, generator=torch.Generator().manual_seed(case.seed))
    moved = {"x": args["x"][order].flip(1), "positions": args["positions"][order]}
    law.exact(law.run({**args, **moved}, options)["y"], y[order].flip(1), "y")


ROTARY = st.builds(
    ops.rope.Case,
    T=st.integers(1, 20),
    H=st.integers(1, 3),
    D=among(8, 16, 64),
    R=among(4, 8),
    M=st.just(64),
    dtype=st.just("float32"),
    positions=among(*sorted(POSITIONS)),
    seed=SEEDS,
)


def table_of(cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """cos_sin from the [.., R/2] cosines and sines of every position."""
    return torch.cat([cos, sin], -1).float().contiguous()


def rotary_of(transformers, dim: int) -> Any:
    """transformers' rotary embedding for heads of ``dim`` numbers."""
    config = transformers.LlamaConfig(
        hidden_size=dim, num_attention_heads=1, head_dim=dim, max_position_embeddings=64
    )
    return transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)


@pytest.mark.peer("transformers Llama: rotary embedding")
@laws.fewer()
@given(case=ROTARY)
def test_llama_of_transformers(law, case):
    transformers = peers.load("transformers")
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    case = replace(case, R=case.D)
    args, _ = law.inputs(case)
    cos, sin = rotary_of(transformers, case.D)(args["x"], torch.arange(64)[None])
    half = case.D // 2
    table = table_of(cos[0, :, :half], sin[0, :, :half])
    answer = law.run({**args, "cos_sin": table}, {"interleaved": False})
    at = args["positions"].long()
    theirs, _ = apply_rotary_pos_emb(
        args["x"][None].transpose(1, 2), args["x"][None].transpose(1, 2), cos[:, at], sin[:, at]
    )
    law.within(answer["y"], theirs[0].transpose(0, 1), 2 * answer.allowed["y"], "y")


@pytest.mark.peer("transformers GPT-NeoX: partial rotary embedding")
@laws.fewer()
@given(case=ROTARY)
def test_gpt_neox_of_transformers(law, case):
    peers.load("transformers")
    from transformers.models.gpt_neox import modeling_gpt_neox as neox

    args, _ = law.inputs(case)
    angle = torch.arange(64).float()[:, None] * 10_000.0 ** (
        -torch.arange(0, case.R, 2).float() / case.R
    )
    answer = law.run({**args, "cos_sin": table_of(angle.cos(), angle.sin())}, {})
    both = torch.cat([angle, angle], -1)[args["positions"].long()][None]
    x = args["x"][None].transpose(1, 2)
    theirs, _ = neox.apply_rotary_pos_emb(x, x, both.cos(), both.sin())
    law.within(answer["y"], theirs[0].transpose(0, 1), 2 * answer.allowed["y"], "y")


@pytest.mark.peer("transformers GPT-J: interleaved rotary embedding")
@laws.fewer()
@given(case=ROTARY)
def test_gpt_j_of_transformers(law, case):
    peers.load("transformers")
    from transformers.models.gptj import modeling_gptj as gptj

    args, _ = law.inputs(case)
    sincos = gptj.create_sinusoidal_positions(64, case.R)
    half = case.R // 2
    table = table_of(sincos[:, half:], sincos[:, :half])
    answer = law.run({**args, "cos_sin": table}, {"interleaved": True})
    sin, cos = sincos[args["positions"].long()][None].split(half, -1)
    turned = gptj.apply_rotary_pos_emb(args["x"][None, ..., : case.R], sin, cos)[0]
    theirs = torch.cat([turned, args["x"][..., case.R :]], -1)
    law.within(answer["y"], theirs, 2 * answer.allowed["y"], "y")
