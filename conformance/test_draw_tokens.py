"""draw_tokens against its page."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conformance import laws
from conformance.strategies import SEEDS, among, integers
from conformance.test_filter_tokens import SMALL, in_order, layout, one_row
from yaie import ops
from yaie.compare import Statistic
from yaie.ops import _rows as rows
from yaie.ops._noise import CLOSE

OP = ops.draw_tokens

KEYS = st.one_of(among(0, 2**63 - 1, -1, -(2**63), 2**32), st.integers(-(2**63), 2**63 - 1))
POSITIONS = st.one_of(st.integers(0, 100), st.sampled_from([2**31 - 1, -1, 0]))


@st.composite
def noise(draw: st.DrawFn) -> dict[str, Any]:
    return {"key": draw(KEYS), "position": draw(POSITIONS)}


@st.composite
def known_noise(draw: st.DrawFn) -> dict[str, Any]:
    """A draw whose bits are extreme, and a row on which that matters."""
    kind = draw(among("one", "rare", "one", "rare", "tails"))
    table = {"rare": rows.LEAST_BITS, "one": rows.MOST_BITS, "tails": rows.TAIL_WINS}[kind]
    if kind != "tails":
        kind = draw(among(kind, CLOSE))
    (key, position), token = draw(st.sampled_from(sorted(table.items())))
    V = 10_001 if kind == "tails" else draw(integers(64, 300))
    at = token if kind == "one" else 0
    return {"family": kind, "key": key, "position": position, "V": V, "at": at, "B": 1}


@st.composite
def cases(draw: st.DrawFn) -> Any:
    size = draw(layout()) | draw(noise())
    size["family"] = draw(among(*sorted(rows.WEIGHTS), *[CLOSE] * 3))
    size["at"] = draw(integers(0, size["V"] - 1))
    if draw(among(True, *[False] * 9)):
        size |= {"B": draw(among(3, 50, 150)), "V": draw(SMALL)}  # many short rows
    elif draw(among(True, False, False, False)):
        size |= draw(known_noise())
    return OP.Case(**size)


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
@given(case=cases(), padding=st.integers(1, 9))
def test_padding_of_the_vocabulary_changes_nothing(law, case, padding):
    args, _ = law.inputs(case)
    padded = torch.cat([args["probs"], torch.zeros(case.B, padding)], 1)
    law.exact(law.run({**args, "probs": padded})["token"], law.run(args)["token"])


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases(), seed=SEEDS)
def test_losers_may_leave_the_race(law, case, seed):
    """The noise of a token does not depend on who else is left, nor on its rank among them."""
    args, _ = law.inputs(case)
    token = law.run(args)["token"]
    stays = torch.rand(args["probs"].shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    stays.scatter_(1, token.clamp_min(0).long()[:, None], True)
    law.exact(law.run({**args, "probs": args["probs"] * stays})["token"], token)


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_the_same_draw_again_is_the_same_token(law, case):
    args, _ = law.inputs(case)
    law.exact(law.run(args)["token"], law.run(args)["token"])


# Statistics, once a kernel ----------------------------------------------------------------------

DRAWS = 10_000
PROBS = torch.tensor([0.3, 0.2, 0.1, 0.1, *[0.05] * 4, *[0.02] * 4, *[0.005] * 4])


def drawn(kernel: Any, probs: torch.Tensor, key: int, position: torch.Tensor) -> torch.Tensor:
    device = "cuda" if kernel.device == "cuda" else "cpu"
    n = len(position)
    seed = torch.full((n,), key, dtype=torch.int64, device=device)
    many = probs.to(device).expand(n, -1)
    return OP(many, seed, position.int().to(device), kernel=kernel.name).cpu()


def test_tokens_are_drawn_as_often_as_they_should(op, kernel):
    """At significance 1e-6 and with certain seeds, so that the answer is one for good."""
    tokens = drawn(kernel, PROBS, 2**40 + 1, torch.arange(DRAWS))
    judgement = Statistic(PROBS.double() / PROBS.double().sum()).judge("token", tokens)
    assert judgement.check is None, judgement.reason


def test_an_unlikely_tail_is_drawn_as_often_as_it_should(op, kernel):
    """10,000 tokens at 1e-8 win one draw in 10,000. Of 200,000 draws those that they win are known:
    a kernel whose noise is too coarse for them misses nearly all of them."""
    positions = [at for _, at in rows.TAIL_WINS]
    probs = torch.full((10_001,), 1e-8)
    probs[0] = 1 - 1e-4
    tokens = drawn(kernel, probs, 7, torch.tensor(positions))
    assert tokens.tolist() == list(rows.TAIL_WINS.values())
