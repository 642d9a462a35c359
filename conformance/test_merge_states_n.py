"""merge_states_n against its page."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conformance import laws
from conformance.strategies import among
from conformance.test_merge_states import agree, carried, given_state, merged, states
from yaie import ops

OP = ops.merge_states_n


@st.composite
def cases(draw: st.DrawFn) -> Any:
    fields = draw(states())
    K = draw(among(2, 1, 3, 4, 5, 6, 8, 9, 0, 33, 70, 128))
    if K > 9:
        fields |= {"T": min(fields["T"], 5), "H": min(fields["H"], 2)}
        fields["D"] = min(fields["D"], 64)
    return ops.merge_states_n.Case(
        K=K, ladder=draw(st.booleans()), shift=draw(among(0, 0, 1, 4)), **fields
    )


@given(case=cases())
def test_equivalence(conforms, kernel, case):
    conforms(case)


@pytest.mark.law(laws.BUDGETS)
@laws.fewer()
@given(case=cases())
def test_it_is_the_fold_of_merge_states(law, case):
    args, options = law.inputs(case)
    pairs = laws.Law(ops.merge_states, ops.merge_states.kernels[law.kernel.name])
    parts = [
        given_state({"k": out, "lse_k": lse}, "k")
        for out, lse in zip(args["states"], args["lses"], strict=True)
    ]
    empty = torch.zeros(case.T, case.H, case.D, dtype=args["states"].dtype)
    start = given_state({"k": empty, "lse_k": torch.full(empty.shape[:2], -torch.inf)}, "k")
    folded = reduce(lambda one, other: merged(pairs, one, other), parts, start)
    answer = law.run(args, options)
    at_once = (answer["out"], answer["lse"], *carried(answer, ()))
    agree(law, at_once, folded)


@pytest.mark.law(laws.BUDGETS)
@laws.fewer()
@given(case=cases())
def test_the_order_of_states_means_nothing(law, case):
    args, options = law.inputs(case)
    order = torch.randperm(case.K, generator=torch.Generator().manual_seed(case.seed))
    first = law.run(args, options)
    second = law.run({name: x[order] for name, x in args.items()}, options)
    for name in ("out", "lse"):
        law.within(second[name], first[name], first.allowed[name] + second.allowed[name], name)


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_one_state_is_itself(law, case):
    args, options = law.inputs(case)
    if not case.K:
        args, options = law.inputs(type(case)(K=1, seed=case.seed))
    alone = {name: x[:1] for name, x in args.items()}
    answer = law.run(alone, options)
    seen = alone["lses"][0] != -torch.inf
    law.exact(answer["out"][seen] + 0.0, alone["states"][0][seen] + 0.0, "out")
    law.within(answer["lse"], alone["lses"][0], answer.allowed["lse"], "lse")
