"""match_tree against its page."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conformance import laws
from conformance.strategies import SEEDS, among, integers
from yaie import ops
from yaie.arena import Arena
from yaie.fill import Fill

OP = ops.match_tree

WORDS = st.lists(st.integers(0, 1), max_size=8).map(tuple)


@st.composite
def cases(draw: st.DrawFn) -> Any:
    prompts = draw(st.lists(WORDS, max_size=6))
    tries = st.one_of(WORDS, among((), *prompts), among((0,), *prompts))
    fields: dict[str, Any] = {
        "prompts": tuple(prompts),
        "queries": tuple(draw(st.lists(tries, max_size=5))),
        "page": draw(among(1, 2, 3)),
    }
    kind = draw(among(*["plain"] * 5, "chain", "siblings", "requests", "many"))
    if kind != "plain":
        fields["page"] = draw(among(1, 2, 3, 4, 7, 16, 48, 128))
        fields["walks"] = draw(among(3, 8, 40))
    if kind in ("chain", "many"):
        fields["chain"] = min(draw(among(2, 5, 34, 70, 150)), 4000 // fields["page"])
    if kind in ("siblings", "many"):
        fields["siblings"] = draw(among(2, 31, 33, 300, 1000))
        fields["deep"] = draw(st.booleans())
    if kind in ("requests", "many"):
        fields["requests"] = draw(integers(1, 12))
        fields["length"] = draw(among(1, 9, 40, 300, 600))
    return ops.match_tree.Case(
        **fields, family=draw(among("low", "high", "bits")), seed=draw(SEEDS)
    )


@given(case=cases())
def test_equivalence(conforms, kernel, case):
    conforms(case)


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_a_query_alone_matches_what_it_matches_in_a_batch(law, case):
    args, options = law.inputs(case)
    whole = law.run(args, options)
    ends = args["q_indptr"].tolist()
    for i in range(len(ends) - 1):
        alone = {
            **args,
            "query": args["query"][ends[i] : ends[i + 1]],
            "q_indptr": torch.tensor([0, ends[i + 1] - ends[i]], dtype=torch.int32),
        }
        one = law.run(alone, options)
        for name in ("matched", "node"):
            law.exact(one[name], whole[name][i : i + 1], name)
    law.exact(whole["node"], law.run(args, options)["node"], "node")


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases(), cut=st.integers(0, 9))
def test_a_shorter_query_matches_the_pages_that_it_has(law, case, cut):
    args, options = law.inputs(case)
    whole = law.run(args, options)["matched"]
    lengths = args["q_indptr"].diff().tolist()
    queries = [q[: max(0, len(q) - cut)] for q in args["query"].split(lengths)] if lengths else []
    left = torch.tensor([0, *map(len, queries)], dtype=torch.int32)
    shorter = {
        "query": torch.cat([args["query"][:0], *queries]),
        "q_indptr": left.cumsum(0, dtype=torch.int32),
    }
    got = law.run({**args, **shorter}, options)["matched"]
    law.exact(got, torch.minimum(whole, left[1:] // case.page * case.page), "matched")


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_it_matches_what_the_radix_cache_matches(law, case):
    case = dataclasses.replace(case, siblings=min(case.siblings, 20))  # it checks itself often
    inserts = [("insert", path) for path in case.tree.paths]
    program = (*inserts, *(("match", query) for query in case.asked))
    cached = ops.radix_cache.Case(program=program, page_size=case.page)
    args, options = law.inputs(case)
    matched = law.run(args, options)["matched"]
    fill = Fill(Arena(1 << 24), 0)
    args, options = ops.radix_cache.inputs(cached, fill)
    trace = ops.radix_cache(**args, **options)
    law.exact(matched, trace[len(inserts) :, 3] * case.page, "matched")
