"""block_pool against its page."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conformance import laws
from conformance.strategies import SEEDS, among
from yaie import ops
from yaie.ops._page_counts import FORMS, PageCounts, Session

OP = ops.block_pool

KINDS = ["alloc"] * 4 + ["free"] * 4 + ["share"] * 2 + ["make_writable"] * 2
RECENT = st.integers(0, 9)
STEPS = st.tuples(st.sampled_from(KINDS), RECENT, st.lists(RECENT, max_size=3))


@st.composite
def cases(draw: st.DrawFn) -> Any:
    """Programs that name the pages handed out last, and now and then one that never was. Some take
    many pages at a time, which a pool may handle in another way than few."""
    many = draw(among(1, 1, 1, 70))
    stride = draw(among(1, 2))  # every second page of many goes
    P = draw(among(3, 4, 6, 2, 1, 0)) * many
    program: list[tuple[Any, ...]] = []
    session = Session(P, PageCounts(P))

    def handle(n: int) -> int:
        known = len(session.handles.pages)
        return known - 1 - n * many % known if known and n < 9 else known or -1

    def run(n: int) -> tuple[int, ...]:
        last = handle(n)
        return tuple(range(max(last + 1 - many, min(last, 0)), last + 1))

    fewest = draw(among(0, 5, 10, 15))
    for kind, n, several in draw(st.lists(STEPS, min_size=fewest, max_size=30)):
        size = (1, 2, 0, 1, 2, 3, 1, 1, 5, -1)[n] * many
        named = tuple(itertools.chain.from_iterable(map(run, (n, *several))))
        if kind == "free" and many > 1:
            named = named[::stride]
        arg = {"alloc": size, "make_writable": handle(n)}.get(kind, named)
        program.append((kind, arg))
        with contextlib.suppress(ValueError):
            number = arg if type(arg) is int else 0
            session.step(list(FORMS).index(kind), number, () if type(arg) is int else named)
    return ops.block_pool.Case(program=tuple(program), P=P, seed=draw(SEEDS))


@given(case=cases())
def test_equivalence(conforms, kernel, case):
    conforms(case)


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_a_command_that_fails_changes_nothing(law, case):
    failed = [event.error is not None for _, event in case.history]
    program = [
        ("alloc", 0) if fails else command
        for command, fails in zip(case.program, failed, strict=True)
    ]
    kept = ~torch.tensor(failed, dtype=torch.bool)
    first = law.run(*law.inputs(case))["trace"]
    second = law.run(*law.inputs(dataclasses.replace(case, program=tuple(program))))["trace"]
    law.exact(second[kept], first[kept], "trace")


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_pages_are_free_or_have_users(law, case):
    """Followed from the page ids alone: who is handed out and not yet returned has users."""
    trace = law.run(*law.inputs(case))["trace"].tolist()
    in_use: set[int] = set()
    for command, (_, free, users, count, *values) in zip(case.program, trace, strict=True):
        pages = set(values[: max(count, 0)])
        in_use = in_use - pages if command[0] == "free" else in_use | pages
        law.exact(torch.tensor([free]), torch.tensor([case.P - len(in_use)]), "free pages")
        law.exact(torch.tensor(users >= len(in_use)), torch.tensor(True), "a user for each")
    law.exact(torch.tensor(len(trace)), torch.tensor(len(case.program)), "rows")
