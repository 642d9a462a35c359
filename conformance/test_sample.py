"""sample against its page."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conformance import laws
from conformance.strategies import SEEDS, among, integers
from conformance.test_draw_tokens import noise
from conformance.test_filter_tokens import TOP_PS, in_order, layout, one_row, parameters
from yaie import ops
from yaie.compare import Statistic
from yaie.ops import _rows as rows
from yaie.ops._noise import CLOSE, OUTSIDER

OP = ops.sample


@st.composite
def tail_wins(draw: st.DrawFn) -> Any:
    """Unfiltered draws that a token at 1e-8 wins, for most places of the likely one: noise that is
    too coarse for it, or a race that leaves it out, gives another."""
    key, position = draw(among(*sorted(rows.TAIL_WINS)))
    return OP.Case(V=10_001, key=key, position=position, family="tail", seed=draw(SEEDS))


@st.composite
def close_races(draw: st.DrawFn) -> Any:
    """Most of them between all tokens, others between those that a filter leaves."""
    size = draw(layout()) | {"family": CLOSE, "temperature": draw(among(1.0, 1.0, 0.7, 2.5))}
    if draw(st.booleans()):
        size |= {"top_k": draw(integers(2, max(2, size["V"] // 3))), "top_p": draw(TOP_PS)}
    return OP.Case(**size, **draw(noise()))


@st.composite
def outsiders(draw: st.DrawFn) -> Any:
    """Unfiltered draws that a token far below the maximum wins."""
    (key, position), token = draw(among(*sorted({**rows.LEAST_BITS, **rows.NO_BITS}.items())))
    V = max(64, token + 1) + draw(integers(0, 200))
    return OP.Case(V=V, key=key, position=position, family=OUTSIDER, seed=draw(SEEDS))


@st.composite
def cases(draw: st.DrawFn) -> Any:
    kind = draw(among(*["filters"] * 32, *["close"] * 6, "tail wins", "outsider"))
    if kind != "filters":
        others = {"close": close_races, "tail wins": tail_wins, "outsider": outsiders}
        return draw(others[kind]())
    size = draw(layout())
    return OP.Case(**size, **draw(parameters(size["V"], size["family"])), **draw(noise()))


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
def test_the_same_draw_again_is_the_same_token(law, case):
    args, _ = law.inputs(case)
    law.exact(law.run(args)["token"], law.run(args)["token"])


@pytest.mark.law(laws.BUDGETS)
@laws.fewer()
@given(case=cases())
def test_it_is_filter_then_draw(law, case):
    """The tokens of the two ops one after the other are right by this op's judge."""
    args, _ = law.inputs(case)
    keys = {name: args[name] for name in ("seed", "position")}
    others = {name: args[name] for name in args if name not in keys}
    name = law.kernel.name
    two = ops.draw_tokens(ops.filter_tokens(**others, kernel=name), **keys, kernel=name)
    call = OP.bind(**args)
    margin = OP.comparison(OP.reference(**args), call, law.kernel.contract)["token"]
    for tokens in (two, law.run(args)["token"]):
        judgement = margin.judge("token", tokens)
        law.exact(torch.tensor(judgement.check is None), torch.tensor(True), str(judgement.reason))


def test_tokens_are_drawn_as_often_as_they_should(op, kernel):
    """Top-k 5 of 8 at temperature 2, 10,000 draws of one seed: chi-square at 1e-6."""
    device = "cuda" if kernel.device == "cuda" else "cpu"
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -2.0, -3.0, -4.0, -5.0])
    wanted = torch.softmax(torch.where(logits > -3, logits, -torch.inf).double() / 2, 0)
    n = 10_000

    def each(value: float, dtype: torch.dtype) -> torch.Tensor:
        return torch.full((n,), value, dtype=dtype, device=device)

    tokens = op(
        logits.to(device).expand(n, -1),
        each(2, torch.float32),
        each(5, torch.int32),
        each(1, torch.float32),
        each(0, torch.float32),
        each(11, torch.int64),
        torch.arange(n, dtype=torch.int32, device=device),
        kernel=kernel.name,
    )
    judgement = Statistic(wanted).judge("token", tokens.cpu())
    assert judgement.check is None, judgement.reason


def test_an_unlikely_tail_is_drawn_as_often_as_it_should(op, kernel):
    """As of draw_tokens: 10,000 tokens at 1e-8, and the 18 of 200,000 draws that they win."""
    device = "cuda" if kernel.device == "cuda" else "cpu"
    n = len(rows.TAIL_WINS)
    logits = torch.full((10_001,), 1e-8)
    logits[0] = 1 - 1e-4
    tokens = op(
        logits.log().to(device).expand(n, -1),
        torch.ones(n, device=device),
        torch.full((n,), 10_001, dtype=torch.int32, device=device),
        torch.ones(n, device=device),
        torch.zeros(n, device=device),
        torch.full((n,), 7, dtype=torch.int64, device=device),
        torch.tensor([at for _, at in rows.TAIL_WINS], dtype=torch.int32, device=device),
        kernel=kernel.name,
    )
    assert tokens.tolist() == list(rows.TAIL_WINS.values())
