"""filter_tokens against its page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conformance import laws, peers
from conformance.strategies import SEEDS, among, integers
from yaie import ops
from yaie.ops import _rows as rows

OP = ops.filter_tokens

SMALL = st.integers(1, 20)
VOCABULARIES = st.one_of(
    SMALL, SMALL, among(31, 32, 33, 64, 100, 255, 256, 257), st.integers(1, 5000)
)
TELLING = ["normal", "geometric", "spiky", "masked", "onehot", "tail"]
TELLING += ["bf16", "ties", "flat", "signed_zeros", "neighbours", "huge", "plateau"]
WIDE = st.sampled_from([7, 40_000, 40_001, 65_536])
TOP_PS = st.sampled_from([1.0, 1.0, 0.9, 0.5, 0.3, 0.1, 0.75, 0.99, 1e-6, 1 - 2.0**-24])
MIN_PS = st.sampled_from([0.0, 0.0, 0.0, 0.05, 0.3, 0.7, 1.0, 1e-6])
TEMPERATURES = st.sampled_from([*[1.0] * 5, 0.5, 2.5, 0.0, 1e-7, 1e-6, 1e6, 1e-40])


@st.composite
def layout(draw: st.DrawFn) -> dict[str, Any]:
    """Sizes, layout and family of a batch of rows."""
    V, B = draw(VOCABULARIES), draw(among(*[1, 2, 3, 4] * 3, 0))
    kind = draw(among(*["plain"] * 17, "rows", "rows", "wide"))
    if kind == "wide":
        V, B = draw(WIDE), 1
    if kind == "rows":
        V, B = draw(SMALL), draw(among(3, 17, 33, 70))
    return {
        "B": B,
        "V": V,
        "mates": draw(among("same", "mixed")),
        "gap": draw(among(0, 0, 1, 3, 4, 8, -1)),
        "shift": draw(among(0, 0, 1, 2, 4)),
        "family": draw(among(*sorted(rows.LOGITS), *TELLING * 2)),
        "seed": draw(SEEDS),
    }


@st.composite
def several_filters(draw: st.DrawFn, V: int) -> dict[str, Any]:
    """Filters of which each sees what the one before it has left."""
    k, p, m = draw(among((1, 1, 0), (0, 1, 1), (1, 1, 1), (0, 0, 0)))
    return {
        "temperature": draw(among(1.0, 0.7, 2.5, 4.0)),
        "top_k": draw(integers(2, max(2, min(V - 1, 12)))) if k else V,
        "top_p": draw(among(0.5, 0.3, 0.6, 0.75, 0.9)) if p else 1.0,
        "min_p": draw(among(0.3, 0.05, 0.1, 0.5)) if m else 0.0,
    }


@st.composite
def within_plateau(draw: st.DrawFn, V: int) -> dict[str, Any]:
    """A threshold among the many tokens of a plateau, by their number or by their share."""
    off = {"temperature": 1.0, "top_k": 2**31 - 1, "top_p": 1.0, "min_p": 0.0}
    if draw(st.booleans()):
        return off | {"top_k": draw(integers(V // 8 + 1, V))}
    return off | {"top_p": draw(among(0.6, 0.75, 0.9))}


@st.composite
def parameters(draw: st.DrawFn, V: int, family: str) -> dict[str, Any]:
    """Parameters of row 0, with temperatures that matter to its family: those that tell
    neighbouring or the largest floats apart, and 0 on ties."""
    if family == "plateau" and draw(among(True, True, False)):
        return draw(within_plateau(V))
    if family not in ("neighbours", "huge", "lowest") and draw(st.booleans()):
        return draw(several_filters(V))
    telling = {
        "neighbours": [1e-6, 1e-6, 3e-7, 1e-7, 1.0],
        "flat": [1.0, 0.0, 0.0],
        "ties": [1.0, 0.0, 0.7],
        "huge": [1.0, 0.0, 1e36, 1e38, 3e38, 3e38],
        "lowest": [1.0, 1e35, 1e37, 3e38],
    }
    temperature = draw(among(*telling[family]) if family in telling else TEMPERATURES)
    top_k = draw(st.one_of(st.just(2**31 - 1), integers(1, 6), integers(1, 2 * V)))
    return {
        "temperature": temperature,
        "top_k": draw(among(top_k, top_k, top_k, V, V + 1, 1)),
        "top_p": draw(TOP_PS),
        "min_p": draw(MIN_PS),
    }


@st.composite
def between_floats(draw: st.DrawFn) -> Any:
    """Shares of neighbouring floats, where top_p just decides: logits over such a temperature are
    whole numbers of many digits, of which a kernel that adds shares up loses the last."""
    size = draw(layout()) | {"family": "neighbours", "mates": "same"}
    return OP.Case(
        **size,
        temperature=draw(among(4e-6, 5e-6, 7e-6, 9e-6)),
        top_p=draw(among(0.3, 0.5, 0.75, 0.9)),
        near="token",
    )


@st.composite
def cases(draw: st.DrawFn) -> Any:
    if draw(among(*[False] * 19, True)):
        return draw(between_floats())
    size = draw(layout())
    filters = draw(parameters(size["V"], size["family"]))
    just = filters["top_p"] < 1 and filters["temperature"] > 0 and draw(st.booleans())
    return OP.Case(**size, **filters, near="token" if just else "any")


@given(case=cases())
def test_equivalence(conforms, kernel, case):
    conforms(case)


def one_row(args: dict[str, Any], b: int) -> dict[str, Any]:
    return {name: value[b : b + 1].clone() for name, value in args.items()}


def in_order(args: dict[str, Any], order: torch.Tensor) -> dict[str, Any]:
    return {name: value[order] for name, value in args.items()}


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_a_row_alone_is_what_it_is_in_a_batch(law, case):
    args, _ = law.inputs(case)
    probs = law.run(args)["probs"]
    law.exact(probs[:0], probs[:0])
    for b in range(case.B):
        law.exact(law.run(one_row(args, b))["probs"], probs[b : b + 1])


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_rows_in_another_order_give_the_same_bits(law, case):
    args, _ = law.inputs(case)
    order = torch.randperm(case.B, generator=torch.Generator().manual_seed(case.seed))
    law.exact(law.run(in_order(args, order))["probs"], law.run(args)["probs"][order])


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases(), offset=st.sampled_from([1.0, -64.0, 1000.0]))
def test_a_constant_added_to_all_logits_changes_nothing(law, case, offset):
    args, _ = law.inputs(case)
    grid = (args["logits"].clamp(-1000, 1000) * 4).round() / 4  # sums are exact
    first = law.run({**args, "logits": grid})
    law.exact(first["probs"], law.run({**args, "logits": grid + offset})["probs"])


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_logits_and_temperature_may_be_doubled_together(law, case):
    args, _ = law.inputs(case)
    args["logits"] = args["logits"].clamp(-1e30, 1e30)
    args["logits"] = torch.where(args["logits"].abs() < 1e-30, 0.0, args["logits"])
    T = args["temperature"].clamp_max(1e30)
    args["temperature"] = torch.where(T < 1e-30, 0.0, T)
    doubled = {**args, "logits": 2 * args["logits"], "temperature": 2 * args["temperature"]}
    law.exact(law.run(doubled)["probs"], law.run(args)["probs"])


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases(), looser=st.sampled_from(["top_k", "top_p", "min_p"]))
def test_a_looser_filter_keeps_all_that_a_stricter_one_keeps(law, case, looser):
    args, _ = law.inputs(case)
    how = {"top_k": lambda x: x.clamp_max(2**30 - 1) * 2, "top_p": lambda x: x.sqrt()}
    more = {**args, looser: how.get(looser, lambda x: x / 2)(args[looser])}
    few, many = law.run(args)["probs"], law.run(more)["probs"]
    law.exact((few > 1e-30) & (many == 0), torch.zeros_like(few, dtype=torch.bool))


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_banned_tokens_may_be_left_out_of_the_vocabulary(law, case):
    """Appended ones too: they change no other token, up to the order of a sum."""
    args, _ = law.inputs(case)
    banned = torch.full((case.B, 3), -torch.inf)
    first = law.run(args)
    second = law.run({**args, "logits": torch.cat([args["logits"], banned], 1)})
    law.exact(second["probs"][:, case.V :], banned * 0 if case.B == 0 else torch.zeros_like(banned))
    law.exact(second["probs"][:, : case.V] > 1e-30, first["probs"] > 1e-30)


@pytest.mark.peer("scipy.special.softmax")
@laws.fewer()
@given(case=cases())
def test_without_filters_it_is_the_softmax(law, case):
    special = peers.load("scipy.special")
    args, _ = law.inputs(case)
    args["logits"] = args["logits"].nan_to_num(nan=0.0, posinf=1.0, neginf=-1e4)
    args["top_k"] = torch.full_like(args["top_k"], case.V)
    args["top_p"], args["min_p"] = args["top_p"] * 0 + 1, args["min_p"] * 0
    args["temperature"] = args["temperature"].clamp_min(1e-3)
    z = args["logits"].double() / args["temperature"].double()[:, None]
    expected = torch.from_numpy(special.softmax(z.numpy(), -1))
    judged_as(law, args, expected.float())


def judged_as(law: laws.Law, args: dict[str, Any], peer: torch.Tensor) -> None:
    """The peer's answer is right by the page's own judge, and so is the kernel's."""
    call = law.op.bind(**args)
    band = law.op.comparison(law.op.reference(**args), call, law.kernel.contract)["probs"]
    for answer in (law.run(args)["probs"], peer):
        judgement = band.judge("probs", answer)
        law.exact(torch.tensor(judgement.check is None), torch.tensor(True), str(judgement.reason))


PLAIN = ["normal", "geometric", "spiky", "masked"]  # no two equal logits, or hardly ever


def by_transformers(logits: torch.Tensor, T: float, k: int, p: float, m: float) -> torch.Tensor:
    """The probabilities of one row [1,V] after the peer's warpers, in its order, in float64."""
    warpers = peers.load("transformers").generation.logits_process
    scores = warpers.TemperatureLogitsWarper(T)(None, logits.double())
    scores = warpers.TopKLogitsWarper(min(k, logits.shape[-1]))(None, scores)
    if p < 1:
        scores = warpers.TopPLogitsWarper(p)(None, scores)
    scores = warpers.MinPLogitsWarper(m)(None, scores)
    return torch.softmax(scores, -1)


@pytest.mark.peer("transformers temperature, top-k, top-p and min-p warpers")
@laws.fewer()
@given(case=cases(), family=st.sampled_from(PLAIN))
def test_kept_tokens_are_those_of_the_warpers(law, case, family):
    peers.load("transformers")
    T = min(max(case.temperature, 0.3), 3.0)
    case = replace(case, B=1, family=family, temperature=T, V=max(case.V, 2))
    args, _ = law.inputs(case)
    names = ("temperature", "top_k", "top_p", "min_p")
    peer = by_transformers(args["logits"], *(args[name][0].item() for name in names))
    judged_as(law, args, peer.float())


@pytest.mark.peer("transformers top-p warper, which splits ties by its sort")
def test_ties_at_the_crossing_stand_together_here_and_not_there(law):
    logits = torch.zeros(1, 4)
    args = {
        "logits": logits,
        "temperature": torch.ones(1),
        "top_k": torch.full((1,), 4, dtype=torch.int32),
        "top_p": torch.full((1,), 0.3),
        "min_p": torch.zeros(1),
    }
    law.exact(law.run(args)["probs"], torch.full((1, 4), 0.25))
    assert int((by_transformers(logits, 1.0, 4, 0.3, 0.0) > 0).sum()) == 2


@pytest.mark.peer("transformers top-k warper, which keeps ties too")
def test_ties_at_top_k_are_all_kept(law):
    logits = torch.tensor([[3.0, 1.0, 2.0, 2.0, 2.0, 0.0]])
    args = {
        "logits": logits,
        "temperature": torch.ones(1),
        "top_k": torch.full((1,), 2, dtype=torch.int32),
        "top_p": torch.ones(1),
        "min_p": torch.zeros(1),
    }
    kept = by_transformers(logits, 1.0, 2, 1.0, 0.0) > 0
    law.exact(law.run(args)["probs"] > 0, kept)
    assert kept.tolist() == [[True, False, True, True, True, False]]
