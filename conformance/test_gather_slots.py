"""gather_slots against its page."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conformance import laws
from conformance.strategies import MANY_PAGES, PAGE_SIZES, SEEDS, among, integers
from yaie import ops
from yaie.ops._paged import TABLES

OP = ops.gather_slots


@cache
def _spots(page_size: int) -> st.SearchStrategy[int]:
    near = st.builds(lambda n, r: max(0, n * page_size + r), integers(0, 3), integers(-1, 1))
    return st.one_of(integers(0, 9), near)


@cache
@st.composite
def span(draw: st.DrawFn, page_size: int) -> tuple[int, int]:
    """(start, length): ends and starts inside pages and on their edges, spans of no length."""
    a, b = draw(_spots(page_size)), draw(_spots(page_size))
    return (a, b) if draw(st.booleans()) else (min(a, b), abs(a - b))


@st.composite
def spans(draw: st.DrawFn) -> dict[str, Any]:
    """The fields that gather_kv and gather_slots share."""
    S = draw(PAGE_SIZES)
    most = 4 if S < 64 else 2
    asked = draw(st.lists(span(S), min_size=draw(among(1, 1, 2, 0)), max_size=most))
    spare = draw(integers(0, 3))
    extreme = draw(among(*["none"] * 12, "pages", "batch", "batch", "long"))
    if extreme == "pages":
        S, asked = 1, asked[:1]
        spare = draw(MANY_PAGES)
    elif extreme == "batch":  # more sequences than a warp has threads
        asked = draw(st.lists(st.tuples(integers(0, 5), integers(0, 9)), min_size=1))
        asked = asked * draw(among(1, 12, 40, 40))
    elif extreme == "long":
        asked = [
            (0, 1),
            (draw(integers(0, 9)), draw(among(1, 257, 600, 1025, 2500))),
        ]
    starts = tuple(start for start, _ in asked)
    return {
        "lens": tuple(length for _, length in asked),
        "starts": starts if draw(among(True, True, True, False)) else (),
        "S": S,
        "table": draw(among(*TABLES)),
        "spare": spare,
        "tail": draw(integers(0, 2)),
        "table_gap": draw(among(0, 0, 1, 3)),
        "total": draw(among(True, True, False)),
        "seed": draw(SEEDS),
    }


@st.composite
def cases(draw: st.DrawFn) -> Any:
    return ops.gather_slots.Case(**draw(spans()), far=draw(among(False, False, True)))


@given(case=cases())
def test_equivalence(conforms, kernel, case):
    conforms(case)


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_a_sequence_alone_has_the_slots_that_it_has_in_a_batch(law, case):
    args, options = law.inputs(case)
    whole = law.run(args, options)["slots"]
    parts = [torch.empty(0, dtype=torch.int32)]
    for b, length in enumerate(case.lens):
        alone = {
            "block_table": args["block_table"][b : b + 1],
            "kv_indptr": torch.tensor([0, length], dtype=torch.int32),
            "kv_start": args["kv_start"][b : b + 1] if case.starts else None,
        }
        parts.append(law.run(alone, {**options, "total": length})["slots"])
    law.exact(torch.cat(parts), whole, "slots")


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases(), cut=st.integers(0, 9))
def test_a_later_start_leaves_out_the_first_slots(law, case, cut):
    args, options = law.inputs(case)
    whole = law.run(args, options)["slots"]
    dropped = [min(cut, length) for length in case.lens]
    starts = [span.start + n for span, n in zip(case.spans, dropped, strict=True)]
    kept = [length - n for length, n in zip(case.lens, dropped, strict=True)]
    ends = [0, *torch.tensor(kept, dtype=torch.int64).cumsum(0).tolist()]
    later = {
        "block_table": args["block_table"],
        "kv_indptr": torch.tensor(ends, dtype=torch.int32),
        "kv_start": torch.tensor(starts, dtype=torch.int32),
    }
    parts = whole.split(list(case.lens)) if case.lens else ()
    rows = [part[n:] for part, n in zip(parts, dropped, strict=True)]
    expected = torch.cat([whole[:0], *rows])
    law.exact(law.run(later, {**options, "total": ends[-1]})["slots"], expected, "slots")
