"""greedy against its page."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conformance import laws
from conformance.test_filter_tokens import in_order, layout, one_row
from yaie import ops

OP = ops.greedy


@st.composite
def cases(draw: st.DrawFn) -> Any:
    return OP.Case(**draw(layout()))


@given(case=cases())
def test_equivalence(conforms, kernel, case):
    conforms(case)


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_a_row_alone_is_what_it_is_in_a_batch(law, case):
    args, _ = law.inputs(case)
    token = law.run(args)["token"]
    law.exact(token[:0], token[:0])
    for b in range(case.B):
        law.exact(law.run(one_row(args, b))["token"], token[b : b + 1])


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_rows_in_another_order_give_the_same_tokens(law, case):
    args, _ = law.inputs(case)
    order = torch.randperm(case.B, generator=torch.Generator().manual_seed(case.seed))
    law.exact(law.run(in_order(args, order))["token"], law.run(args)["token"][order])


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_a_larger_logit_at_the_end_wins_and_an_equal_one_does_not(law, case):
    args, _ = law.inputs(case)
    first = law.run(args)["token"]
    most = args["logits"].amax(-1, keepdim=True)
    law.exact(law.run({"logits": torch.cat([args["logits"], most], 1)})["token"], first)
    more = torch.nextafter(most, torch.tensor(torch.inf))
    finite = (most.isfinite() & more.isfinite())[:, 0]
    wins = law.run({"logits": torch.cat([args["logits"], more], 1)})["token"]
    law.exact(wins[finite], torch.full_like(wins, case.V)[finite])


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_it_is_sample_at_temperature_0(law, case):
    args, _ = law.inputs(case)
    B = case.B
    sampled = ops.sample(
        args["logits"],
        torch.zeros(B),
        torch.full((B,), 3, dtype=torch.int32),
        torch.full((B,), 0.1),
        torch.full((B,), 0.5),
        torch.arange(B),
        torch.zeros(B, dtype=torch.int32),
        kernel=law.kernel.name,
    )
    law.exact(sampled, law.run(args)["token"])


@pytest.mark.peer("torch.argmax")
@laws.fewer()
@given(case=cases())
def test_it_is_the_argmax_of_a_valid_row(law, case):
    args, _ = law.inputs(case)
    token = law.run(args)["token"]
    valid = token >= 0
    law.exact(token[valid], args["logits"][valid].argmax(-1).int())
