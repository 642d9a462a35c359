"""common_prefix_len against its page."""

from __future__ import annotations

import os.path
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conformance import laws
from conformance.strategies import SEEDS, among, integers
from yaie import ops
from yaie.ops.common_prefix_len import FAMILIES

OP = ops.common_prefix_len

PAGES = st.sampled_from([1, 2, 3, 4, 7, 8, 16, 100, 256])


@cache
def _shared(page: int) -> st.SearchStrategy[int]:
    near = st.builds(lambda n, r: max(0, n * page + r), integers(0, 3), integers(-1, 1))
    return st.one_of(integers(0, 9), near, among(31, 32, 33, 255, 256, 257, 300, 4097))


@cache
@st.composite
def pair(draw: st.DrawFn, page: int) -> tuple[int, int, int]:
    """(length of a, length of b, shared): prefixes, and differences around the ends of pages."""
    shared = draw(_shared(page))
    kind = draw(among("differ", "a ends", "b ends", "equal", "differ", "long"))
    more = integers(1, 2 * page)
    a = shared + (draw(more) if kind in ("differ", "b ends") else 0)
    b = shared + (draw(more) if kind in ("differ", "a ends") else 0)
    behind = 300 if kind == "long" else 0  # much that means nothing
    return a + behind, b + behind, shared


@st.composite
def cases(draw: st.DrawFn) -> Any:
    page = draw(PAGES)
    fewest = draw(among(1, 1, 2, 3, 0))
    pairs = draw(st.lists(pair(page), min_size=fewest, max_size=5))
    pairs *= draw(among(1, 1, 1, 1, 40))
    a, b, common = zip(*pairs, strict=True) if pairs else ((), (), ())
    return ops.common_prefix_len.Case(
        lens_a=a,
        lens_b=b,
        common=common,
        page=page,
        after=draw(among("random", "equal")),
        family=draw(among(*FAMILIES)),
        seed=draw(SEEDS),
    )


@given(case=cases())
def test_equivalence(conforms, kernel, case):
    conforms(case)


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_the_two_sides_may_be_swapped(law, case):
    args, options = law.inputs(case)
    swapped = {name: args[{"a": "b", "b": "a"}[name[0]] + name[1:]] for name in args}
    there, back = law.run(args, options)["length"], law.run(swapped, options)["length"]
    law.exact(there, back, "length")


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_pages_round_the_length_in_tokens_down(law, case):
    args, options = law.inputs(case)
    tokens = law.run(args, {"page": 1})["length"]
    law.exact(law.run(args, options)["length"], tokens // case.page * case.page, "length")


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_a_pair_alone_has_the_length_that_it_has_in_a_batch(law, case):
    args, options = law.inputs(case)
    whole = law.run(args, options)["length"]
    for i in range(len(case.common)):
        alone = {}
        for side in "ab":
            start, end = args[f"{side}_indptr"][i : i + 2].tolist()
            alone[side] = args[side][start:end]
            alone[f"{side}_indptr"] = torch.tensor([0, end - start], dtype=torch.int32)
        law.exact(law.run(alone, options)["length"], whole[i : i + 1], "length")
    law.exact(whole, law.run(args, options)["length"], "length")


@pytest.mark.peer("os.path.commonprefix")
@laws.fewer()
@given(case=cases())
def test_the_standard_library_agrees(law, case):
    args, _ = law.inputs(case)
    rows = {
        side: [part.tolist() for part in args[side].split(getattr(case, f"lens_{side}"))]
        if case.common
        else []
        for side in "ab"
    }
    pairs = zip(rows["a"], rows["b"], strict=True)
    lengths = [len(os.path.commonprefix(pair)) for pair in pairs]  # noqa: RUF071  (lists, no paths)
    got = law.run(args, {"page": 1})["length"]
    law.exact(got, torch.tensor(lengths, dtype=torch.int32), "length")
