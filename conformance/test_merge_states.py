"""merge_states against its page."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from conformance import laws
from conformance.strategies import FLOATS, HEAD_DIMS, SEEDS, among, mostly
from yaie import ops
from yaie.ops._merge import EMPTY, FAMILIES

OP = ops.merge_states

ROWS = st.sampled_from(
    [(1, 1), (4, 2), (3, 5), (0, 2), (17, 3), (40, 1), (300, 1), (2, 40), (1, 8), (1, 128)]
)

GAPS = (
    *(1.0, 0.0, -1.0, 3.5, 12.0, -12.0, 16.0, -16.0, 21.0, -21.0, 30.0, -30.0, 50.0, -50.0),
    *(80.0, -80.0, 1e4, -1e4),
)


@st.composite
def states(draw: st.DrawFn) -> dict[str, Any]:
    """The states of merge_states and of merge_states_n."""
    T, H = draw(ROWS)
    return {
        "T": T,
        "H": H,
        "D": draw(HEAD_DIMS) if T * H < 60 else draw(among(8, 3)),
        "dtype": draw(FLOATS),
        "empty": draw(among("none", "none", "none", *EMPTY)),
        "gap": draw(among(*GAPS)),
        "level": draw(among(0.0, 0.0, 5.0, -40.0, 1000.0, -3e4, -1e6)),
        "pad": draw(among(0, 0, 1, 8)),
        "spare": draw(mostly(0, 1, 3)),
        "family": draw(among(*FAMILIES)),
        "seed": draw(SEEDS),
    }


@st.composite
def cases(draw: st.DrawFn) -> Any:
    return OP.Case(
        **draw(states()),
        b_pad=draw(mostly(-1, 0, 1, 8)),
        b_spare=draw(mostly(-1, 0, 2)),
        a_shift=draw(among(0, 0, 1, 4)),
        b_shift=draw(among(0, 0, 1, 4)),
    )


@given(case=cases())
def test_equivalence(conforms, kernel, case):
    conforms(case)


State = tuple[Tensor, Tensor, Tensor, Tensor]
"""out, lse, and how far off each may be."""


def given_state(args: dict[str, Any], side: str) -> State:
    out, lse = args[side], args[f"lse_{side}"]
    return out, lse, torch.zeros_like(out).double(), torch.zeros_like(lse).double()


def merged(law: laws.Law, *parts: State) -> State:
    """The merge of two states, and how far off it may be, its parts' own errors included."""
    (a, lse_a, *_), (b, lse_b, *_) = parts
    answer = law.run({"a": a, "lse_a": lse_a, "b": b, "lse_b": lse_b})
    return answer["out"], answer["lse"], *carried(answer, parts)


def carried(answer: laws.Answer, parts: tuple[State, ...]) -> tuple[Tensor, Tensor]:
    """How far off a merge may be: its own error, each part's by its weight, and what moves between
    parts whose lse is off."""
    out, lse = answer["out"].double(), answer["lse"].double()
    allowed, allowed_lse = (answer.allowed[name].clone() for name in ("out", "lse"))
    for part, part_lse, off, off_lse in parts:
        known = part_lse != -math.inf
        weight = (part_lse.double() - lse).exp().masked_fill(~known, 0.0)
        off_lse = off_lse.masked_fill(~known, 0.0)
        away = (part.double() - out).abs().masked_fill(~known[..., None], 0.0)
        off = off.masked_fill(~known[..., None], 0.0)
        allowed += 1.01 * weight[..., None] * (off + 2 * off_lse[..., None] * (away + off))
        allowed_lse += 1.01 * weight * off_lse
    return allowed, allowed_lse


def agree(law: laws.Law, one: State, other: State) -> None:
    law.within(one[0], other[0], one[2] + other[2], "out")
    law.within(one[1], other[1], one[3] + other[3], "lse")


@pytest.mark.law(laws.BUDGETS)
@laws.fewer()
@given(case=cases())
def test_the_sides_may_be_exchanged(law, case):
    args, _ = law.inputs(case)
    a, b = (given_state(args, side) for side in "ab")
    agree(law, merged(law, a, b), merged(law, b, a))


@pytest.mark.law(laws.BUDGETS)
@laws.fewer()
@given(case=cases(), level=st.sampled_from([0.0, 3.0, -90.0]))
def test_three_states_merge_in_any_grouping(law, case, level):
    args, _ = law.inputs(case)
    a, b = (given_state(args, side) for side in "ab")
    rng = torch.Generator().manual_seed(case.seed)
    c_out = torch.randn(a[0].shape, generator=rng).to(a[0].dtype)
    c_lse = case.level + level + torch.randn(a[1].shape, generator=rng)
    c = given_state({"c": c_out, "lse_c": c_lse}, "c")
    agree(law, merged(law, merged(law, a, b), c), merged(law, a, merged(law, b, c)))


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases(), garbage=st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 6e4]))
def test_an_empty_side_changes_nothing(law, case, garbage):
    args, _ = law.inputs(case)
    a, lse_a = args["a"], args["lse_a"]
    some = lse_a != -math.inf
    nothing = torch.full_like(a, garbage), torch.full_like(lse_a, -math.inf)
    for first, second in (((a, lse_a), nothing), (nothing, (a, lse_a))):
        answer = law.run({"a": first[0], "lse_a": first[1], "b": second[0], "lse_b": second[1]})
        law.exact(answer["out"][some] + 0.0, a[some] + 0.0, "out")
        law.within(answer["lse"], lse_a, answer.allowed["lse"], "lse")


@pytest.mark.law(laws.BUDGETS)
@laws.fewer()
@given(case=cases(), shift=st.sampled_from([-7.0, 64.0]))
def test_a_shift_of_both_lses_shifts_lse_alone(law, case, shift):
    args, _ = law.inputs(case)
    moved = {name: args[name] + shift for name in ("lse_a", "lse_b")}
    first, second = law.run(args), law.run({**args, **moved})
    # The shifted sums are rounded to float32, which moves weight between the sides.
    size = args["lse_a"].double().abs().maximum(args["lse_b"].double().abs()).nan_to_num(posinf=0)
    rounding = 2.0**-24 * (size + abs(shift)) * 2
    apart = (args["a"].double() - args["b"].double()).abs().nan_to_num(posinf=0)
    allowed = first.allowed["out"] + second.allowed["out"] + rounding[..., None] * apart
    law.within(second["out"], first["out"], allowed, "out")
    allowed_lse = first.allowed["lse"] + second.allowed["lse"] + rounding
    law.within(second["lse"], first["lse"].double() + shift, allowed_lse, "lse")
