"""gather_kv against its page."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conformance import laws
from conformance.strategies import (
    FLOATS,
    HEAD_DIMS,
    NARROW,
    RARELY,
    among,
    integers,
    mostly,
)
from conformance.test_gather_slots import spans
from yaie import ops
from yaie.fill import FAR_ELEMENTS

OP = ops.gather_kv


@st.composite
def cases(draw: st.DrawFn) -> Any:
    far = draw(RARELY)
    fields = draw(spans())
    small = sum(fields["lens"]) > 200 or fields["spare"] > 1000 or fields["S"] > 64
    D, dtypes = draw(among(8, 3) if small else HEAD_DIMS), FLOATS
    if far:
        D, small, dtypes = 64, True, NARROW
        fields |= {"spare": FAR_ELEMENTS // (fields["S"] * D), "lens": fields["lens"][:4]}
        fields["starts"] = fields["starts"][:4]
    return ops.gather_kv.Case(
        **fields,
        Hk=1 if small else draw(integers(1, 3)),
        D=D,
        Dv=draw(st.one_of(st.just(D), among(8, 1, 20))),
        dtype=draw(dtypes),
        cache_shift=draw(among(0, 0, 1, 2)),
        v_cache_shift=draw(mostly(-1, 0, 1, 2)),
        family=draw(among("normal", "bits")),
    )


@given(case=cases())
def test_equivalence(conforms, kernel, case):
    conforms(case)


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_rows_are_those_of_the_gathered_slots(law, case):
    args, options = law.inputs(case)
    got = law.run(args, options)
    table = {name: args[name] for name in ("block_table", "kv_indptr", "kv_start")}
    slots = ops.gather_slots(**table, page_size=case.S, kernel=law.kernel.name)
    for name in ("k", "v"):
        law.exact(got[name], args[f"{name}_cache"].flatten(0, 1)[slots.long()], name)


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_append_then_gather_is_the_identity(law, case):
    args, options = law.inputs(case)
    table = {name: args[name] for name in ("block_table", "kv_indptr", "kv_start")}
    slots = ops.gather_slots(**table, page_size=case.S, kernel=law.kernel.name)
    if len(slots.unique()) < len(slots):
        slots = torch.arange(len(slots), dtype=torch.int32)  # a page shared: give each its own
        pages = -(-len(slots) // case.S)
        table = {
            "block_table": torch.arange(pages, dtype=torch.int32)[None],
            "kv_indptr": torch.tensor([0, len(slots)], dtype=torch.int32),
            "kv_start": None,
        }
    pages = max(len(args["k_cache"]), -(-len(slots) // case.S))
    new, caches = {}, {}
    for name in ("k", "v"):
        shape = args[f"{name}_cache"].shape
        dtype = args[f"{name}_cache"].dtype
        new[name] = torch.arange(len(slots) * shape[2] * shape[3]).to(dtype)
        new[name] = new[name].reshape(len(slots), *shape[2:])
        caches[f"{name}_cache"] = torch.full((pages, *shape[1:]), torch.nan, dtype=dtype)
    ops.append_kv(**new, **caches, slots=slots, kernel=law.kernel.name)
    got = law.run({**caches, **table}, options)
    for name in ("k", "v"):
        law.exact(got[name], new[name], name)


def relabelling_means_nothing(law: laws.Law, case: Any) -> None:
    """All results keep their bits when the pages of the cache lie in another order."""
    args, options = law.inputs(case)
    first = law.run(args, options)
    second = law.run(relabelled(args, case.seed), options)
    for name in first.results:
        law.exact(first[name], second[name], name)


def relabelled(args: dict[str, Any], seed: int) -> dict[str, Any]:
    """The same keys and values with the pages of the cache in another order."""
    pages = len(args["k_cache"])
    order = torch.randperm(pages, generator=torch.Generator().manual_seed(seed))
    moved = {name: torch.empty_like(args[name]) for name in ("k_cache", "v_cache")}
    for name, cache in moved.items():
        cache[order] = args[name]
    table = args["block_table"].long()
    known = (table >= 0) & (table < pages)
    table[known] = order[table[known]]
    return {**args, **moved, "block_table": table.int()}


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_relabelled_pages_give_the_same_bits(law, case):
    relabelling_means_nothing(law, case)
