"""penalize against its page."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from conformance import laws, peers
from conformance.strategies import among
from conformance.test_filter_tokens import layout
from yaie import ops

OP = ops.penalize

LENGTHS = st.one_of(st.integers(0, 8), st.sampled_from([0, 0, 1, 31, 33, 64]), st.integers(0, 700))
REPETITIONS = st.sampled_from([1.0, 1.0, 1.2, 0.5, 3.0, 1e-3])
FREQUENCIES = st.sampled_from([0.0, 0.0, 0.3, 2.0, -0.7, 1e-7])
PRESENCES = st.sampled_from([0.0, 0.0, 1.5, -2.0, 0.1])


@st.composite
def cases(draw: st.DrawFn) -> Any:
    size = draw(layout())
    B = size.pop("B")
    lens = st.lists(LENGTHS, min_size=B, max_size=B)
    return OP.Case(
        prompt_lens=tuple(draw(st.one_of(lens, st.just([0] * B)))),
        output_lens=tuple(draw(st.one_of(lens, lens, st.just([0] * B)))),
        alphabet=draw(among(4, 1, 2, 20, 1000, 100_000)),
        repetition=draw(REPETITIONS),
        frequency=draw(FREQUENCIES),
        presence=draw(PRESENCES),
        **size,
    )


@given(case=cases())
def test_equivalence(conforms, kernel, case):
    conforms(case)


def segments(args: dict[str, Any], name: str) -> list[Tensor]:
    """The tokens of each row."""
    return [args[name][a:b] for a, b in itertools.pairwise(args[f"{name}_indptr"].tolist())]


def packed(name: str, parts: list[Tensor]) -> dict[str, Tensor]:
    ends = [0, *itertools.accumulate(map(len, parts))]
    none = torch.empty(0, dtype=torch.int32)
    return {name: torch.cat([none, *parts]), f"{name}_indptr": torch.tensor(ends).int()}


def rows_of(args: dict[str, Any], order: list[int]) -> dict[str, Any]:
    """Some rows of a call, in that order."""
    by_row = ("logits", "repetition", "frequency", "presence")
    chosen = {name: args[name][order].clone() for name in by_row}
    for name in ("prompt", "output"):
        parts = segments(args, name)
        chosen |= packed(name, [parts[b] for b in order])
    return chosen


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_a_row_alone_is_what_it_is_in_a_batch(law, case):
    args, _ = law.inputs(case)
    penalized = law.run(args)["penalized"]
    law.exact(penalized[:0], penalized[:0])
    for b in range(case.B):
        law.exact(law.run(rows_of(args, [b]))["penalized"], penalized[b : b + 1])


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_rows_in_another_order_give_the_same_bits(law, case):
    args, _ = law.inputs(case)
    order = torch.randperm(case.B, generator=torch.Generator().manual_seed(case.seed)).tolist()
    law.exact(law.run(rows_of(args, order))["penalized"], law.run(args)["penalized"][order])


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_neutral_parameters_keep_every_bit(law, case):
    args, _ = law.inputs(case)
    off = {"repetition": torch.ones(case.B)}
    off |= {name: torch.zeros(case.B) for name in ("frequency", "presence")}
    law.exact(law.run({**args, **off})["penalized"], args["logits"])


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_the_order_of_tokens_means_nothing_nor_do_repeats_in_the_prompt(law, case):
    args, _ = law.inputs(case)
    backwards = packed("output", [part.flip(0) for part in segments(args, "output")])
    once = packed("prompt", [part.unique() for part in segments(args, "prompt")])
    first = law.run(args)["penalized"]
    law.exact(law.run({**args, **backwards, **once})["penalized"], first)


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_renamed_tokens_give_renamed_logits(law, case):
    args, _ = law.inputs(case)
    new = torch.randperm(case.V, generator=torch.Generator().manual_seed(case.seed))
    moved = torch.empty_like(args["logits"], memory_format=torch.contiguous_format)
    moved[:, new] = args["logits"]
    renamed = {name: new[args[name].long()].int() for name in ("prompt", "output")}
    second = law.run({**args, "logits": moved, **renamed})["penalized"]
    law.exact(second[:, new], law.run(args)["penalized"])


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_a_token_of_the_output_need_not_stand_in_the_prompt_too(law, case):
    """The repetition penalty counts once, wherever a token stands."""
    args, _ = law.inputs(case)
    pairs = zip(segments(args, "prompt"), segments(args, "output"), strict=True)
    both = packed("prompt", [torch.cat(pair) for pair in pairs])
    law.exact(law.run({**args, **both})["penalized"], law.run(args)["penalized"])


@pytest.mark.peer("transformers RepetitionPenaltyLogitsProcessor")
@laws.fewer()
@given(case=cases())
def test_repetition_is_that_of_transformers(law, case):
    """It takes what stands in the prompt or the output, as here, one row at a time."""
    processors = peers.load("transformers").generation.logits_process
    args, _ = law.inputs(case)
    args |= {name: torch.zeros(case.B) for name in ("frequency", "presence")}
    peer = args["logits"].clone()
    pairs = zip(segments(args, "prompt"), segments(args, "output"), strict=True)
    for b, pair in enumerate(pairs):
        penalty = processors.RepetitionPenaltyLogitsProcessor(float(args["repetition"][b]))
        peer[b : b + 1] = penalty(torch.cat(pair).long()[None], args["logits"][b : b + 1])
    call = OP.bind(**args)
    judge = OP.comparison(OP.reference(**args), call, law.kernel.contract)["penalized"]
    for answer in (law.run(args)["penalized"], peer):
        judgement = judge.judge("penalized", answer)
        law.exact(torch.tensor(judgement.check is None), torch.tensor(True), str(judgement.reason))
