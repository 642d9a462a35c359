"""radix_cache against its page."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conformance import laws
from conformance.strategies import SEEDS, among
from yaie import ops

OP = ops.radix_cache

TAILS = st.lists(st.integers(0, 1), max_size=8).map(tuple)
# Many share what they start with: the tree splits, and prompts extend one another.
WORDS = st.builds(lambda n, tail: ((0,) * n + tail)[:8], st.integers(0, 6), TAILS)
KINDS = ["insert"] * 4 + ["match"] * 3 + ["lock"] * 3 + ["evict"] * 3 + ["unlock"] * 2 + ["reset"]
KINDS += ["hold"]  # what is locked while all else is evicted, and then let go
STEPS = st.tuples(st.sampled_from(KINDS), WORDS, st.integers(0, 9))
STRETCHES = st.sampled_from([1, 1, 1, 1, 20, 33])  # long runs of pages, which go in part


def command(
    kind: str, word: tuple[int, ...], n: int, matches: list[int], stretch: int
) -> tuple[Any, ...]:
    """A command whose arguments make sense nine times in ten."""
    if kind == "match":
        return kind, word
    if kind == "insert":
        return (kind, word) if n < 9 else (kind, word, n // 2)
    if kind == "evict":
        some = (0, 1, 1, 1, 2, 2, 3, 5, 99, -1)[n]
        return kind, some if len(word) % 2 else some * stretch
    if kind == "reset":
        return (kind,)
    return kind, matches[-1 - n % len(matches)] if matches and n < 9 else n


@st.composite
def cases(draw: st.DrawFn) -> Any:
    program: list[tuple[Any, ...]] = []
    matches: list[int] = []
    stretch = draw(STRETCHES)
    fewest = draw(among(0, 6, 12, 18))
    for kind, word, n in draw(st.lists(STEPS, min_size=fewest, max_size=30)):
        if kind in ("match", "hold"):
            matches.append(len(program))
        if kind == "hold":
            held = len(program)
            program += [("match", word), ("lock", held), ("evict", 9999), ("unlock", held)]
            kind = "evict"
        program.append(command(kind, word, n, matches, stretch))
    return ops.radix_cache.Case(
        program=tuple(program),
        page_size=draw(among(1, 2, 3)),
        stretch=stretch,
        seed=draw(SEEDS),
    )


@given(case=cases())
def test_equivalence(conforms, kernel, case):
    conforms(case)


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_what_the_tokens_are_means_nothing(law, case):
    args, options = law.inputs(case)
    renamed = {**args, "tokens": 7 - args["tokens"] * 2**20}
    first, second = law.run(args, options), law.run(renamed, options)
    law.exact(second["trace"], first["trace"], "trace")


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_a_command_that_fails_changes_nothing(law, case):
    failed = [event.error is not None for _, event in case.history]
    program = [
        ("evict", 0) if fails else command
        for command, fails in zip(case.program, failed, strict=True)
    ]
    args, options = law.inputs(case)
    without = law.inputs(dataclasses.replace(case, program=tuple(program)))[0]
    kept = ~torch.tensor(failed, dtype=torch.bool)
    first, second = law.run(args, options)["trace"], law.run(without, options)["trace"]
    width = min(first.shape[1], second.shape[1])
    law.exact(pages_of(second, without)[kept, :width], pages_of(first, args)[kept, :width], "trace")


def pages_of(trace, args):
    """The trace, with every page as the place of its command and of itself in it."""
    place = args["page_indptr"].tolist()
    owner = [(i, n) for i in range(len(place) - 1) for n in range(place[i + 1] - place[i])]
    named = {page: 1000 * i + n for page, (i, n) in zip(args["pages"].tolist(), owner, strict=True)}
    kinds = args["commands"][:, 0].tolist()
    for kind, row in zip(kinds, trace, strict=True):
        if kind != 1:  # an insert returns tokens
            row[4:] = torch.tensor([named.get(page, page) for page in row[4:].tolist()])
    return trace


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases(), n=st.integers(0, 4), m=st.integers(0, 4))
def test_to_evict_twice_is_to_evict_the_sum(law, case, n, m):
    twice = dataclasses.replace(case, program=(*case.program, ("evict", n), ("evict", m)))
    once = dataclasses.replace(case, program=(*case.program, ("evict", n + m)))
    parts = law.run(*law.inputs(twice))["trace"][-2:]
    whole = law.run(*law.inputs(once))["trace"][-1]
    pages = [page for row in parts.tolist() for page in row[4 : 4 + row[3]]]
    law.exact(torch.tensor(pages, dtype=torch.int32), whole[4 : 4 + whole[3]], "pages")
    law.exact(parts[-1, 1:3], whole[1:3], "observables")
