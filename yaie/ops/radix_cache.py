"""radix_cache: which page-prefixes of prompts are cached, run as a program of commands.

The state is a set. A page-prefix is the first S, 2S, 3S ... tokens of a prompt; each that is
present has the page of its last S tokens, a number of locks, and the time of its last use; with it
all shorter ones of the same prompt are present. Every match and insert is one tick of a clock.

=======================  ===========================================================================
0 match(tokens)          the pages of the longest present page-prefix of ``tokens``, whose node it
                         names; refreshes the last use of it and of all that it extends
1 insert(tokens, pages)  adds what is missing of the first floor(len/S) page-prefixes, each with its
                         page of ``pages``; returns how many tokens were there already, whose own
                         pages stay; refreshes them all. Fewer pages than that: error
2 lock(node)             one lock more on this page-prefix. Locked is what has a lock, or what one
                         that has a lock extends
3 unlock(node)           one less; error when it has none itself
4 evict(n)               n times, or until none is left: drops the page-prefix that no present one
                         extends, that is not locked, and whose last use is longest ago; returns the
                         pages in that order. n < 0: error
5 reset()                evicts everything; error when something is locked
=======================  ===========================================================================

A node is given by the number of the match that named it. It stands for that page-prefix while it is
present; once evicted it is unknown, also when the same tokens come back. The empty prefix (nothing
matched) is always there, and locking it does nothing. A number that is no earlier match names an
unknown node: error. After an error nothing is changed.

=============  ===========  ========================================================================
commands       int32[C,2]   kind, and the number of a node or of pages to evict
tokens         int32[T]     packed tokens of the commands
token_indptr   int32[C+1]   where those of each command start
pages          int32[G]     packed pages of the commands
page_indptr    int32[C+1]
page_size      1            S
-> trace       int32[C,W]   error (0, 1), evictable, protected (pages that are not locked, that
                            are), number of values, values, -1 ...; W = 4 + max(G, 1)
=============  ===========  ========================================================================

Errors: shapes, strides, page_size < 1: ValueError; dtypes: TypeError. In checked mode an unknown
kind and an indptr that is not 0..N or decreases: ValueError.
Source: SGLang RadixCache (which evicts whole nodes), mini-sglang's radix_cache.py, vLLM (evicts the
tail of a prompt first).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from torch import Tensor

from yaie.compare import Comparison, Contract, Trace
from yaie.fill import Fill
from yaie.op import Call, Cost, Op, at_least, case, one_of
from yaie.ops import _programs as programs
from yaie.ops._prefix_set import FORMS, HISTORY_EDGES, Command, PrefixSet, run, unpacked
from yaie.refusal import Refusal, bad_indptr, change, put
from yaie.signature import parse

COLUMNS = ("error", "evictable", "protected", "number of values")


@case
class Case:
    """A program: ("match", letters), ("insert", letters) or ("insert", letters, number of pages
    given), ("lock", number of a match), ("unlock", the same), ("evict", pages), ("reset",). Every
    insert brings pages of its own. A letter stands for ``stretch`` tokens."""

    program: programs.Program = (("insert", (0, 0, 1)), ("match", (0, 0)), ("lock", 1))
    page_size: int = at_least(1, default=1)
    stretch: int = at_least(1, default=1)
    dtype: str = one_of(("int32",), default="int32")
    seed: int = at_least(0, default=0)

    def check(self) -> None:
        """Commands that are commands."""
        programs.check_program(self.program, FORMS)
        if any(command[2] < 0 for command in self.program if len(command) == 3):
            raise ValueError("an insert gives a number of pages from 0 on")

    @property
    def commands(self) -> list[Command]:
        """The program; pages are numbered as they are given."""
        made, given = [], 0
        for kind, *args in self.program:
            number = args[0] if args and type(args[0]) is int else 0
            letters = args[0] if args and type(args[0]) is tuple else ()
            tokens = tuple(t * self.stretch + i for t in letters for i in range(self.stretch))
            count = (*args[1:], len(tokens) // self.page_size)[0] if kind == "insert" else 0
            made.append(Command(kind, number, tokens, range(given, given + count)))
            given += count
        return made

    @property
    def history(self) -> list[tuple[Command, programs.Event]]:
        """What each command does."""
        return _played(self)

    def ended(self, error: str | None) -> set[str]:
        """The kinds of commands that ended in that error (None: in none)."""
        return {command.kind for command, event in self.history if event.error == error}


@lru_cache(maxsize=64)
def _played(case: Case) -> list[tuple[Command, programs.Event]]:
    state, commands = PrefixSet(case.page_size), case.commands
    return list(zip(commands, run(commands, state, None, state.observables), strict=True))


def inputs(case: Case, fill: Fill) -> tuple[dict[str, Any], dict[str, Any]]:
    """Commands as numbers; no page is given twice, and ids are of 31 bits."""
    commands = case.commands
    count = sum(len(command.pages) for command in commands)
    ids = fill.permutation(count) * ((2**31 - 1) // max(count, 1))
    tokens, token_indptr = programs.packed(fill, [command.tokens for command in commands])
    pages, page_indptr = programs.packed(fill, [ids[list(c.pages)].tolist() for c in commands])
    return {
        "commands": programs.coded(fill, case.program, FORMS),
        "tokens": tokens,
        "token_indptr": token_indptr,
        "pages": pages,
        "page_indptr": page_indptr,
    }, {"page_size": case.page_size}


def reference(
    commands: Tensor,
    tokens: Tensor,
    token_indptr: Tensor,
    pages: Tensor,
    page_indptr: Tensor,
    page_size: int,
) -> Tensor:
    """One command after the other, on the set (_prefix_set.py)."""
    state = PrefixSet(page_size)
    program = unpacked(commands, tokens, token_indptr, pages, page_indptr)
    events = run(program, state, None, state.observables)
    return programs.as_trace(events, max(pages.numel(), 1))


def comparison(expected: Tensor, call: Call, contract: Contract) -> dict[str, Comparison]:
    """Every return value and observable."""
    return {"trace": Trace(expected, COLUMNS)}


def cost(case: Case) -> Cost:
    """The tokens that a match or an insert must compare: what is there, and a page more."""
    compared = 0
    for command, event in case.history:
        if command.kind in ("match", "insert") and event.error is None:
            values = event.values or ()
            there = sum(values) if command.kind == "insert" else len(values) * case.page_size
            compared += min(len(command.tokens), there + case.page_size)
    return Cost(bytes=2 * 4 * compared)


def _turns(requests: int, tokens: int, shared: int, kept: int) -> Case:
    """Requests that share a prompt and go on alone; each evicts what exceeds ``kept`` pages."""
    program: list[tuple[Any, ...]] = []
    for i in range(requests):
        prompt = (*range(shared), *(7 * i + j for j in range(tokens - shared)))
        match = ("match", prompt), ("lock", len(program))
        evict = ("evict", max(0, tokens // 16 * (i + 1) - kept) and tokens // 16)
        program += [*match, evict, ("insert", prompt), ("unlock", len(program))]
    return Case(program=tuple(program), page_size=16)


WORKLOADS = {
    "64 requests of 512 tokens, half shared": _turns(64, 512, 256, 1 << 20),
    "32 requests of 1k tokens, half shared, room for 8": _turns(32, 1024, 512, 8 * 32),
}

EDGES: dict[str, Callable[[Case], bool]] = {
    "no commands": lambda c: not c.program,
    "a prompt below a page": lambda c: any(0 < len(a.tokens) < c.page_size for a in c.commands),
    **HISTORY_EDGES,
    "evict 0": lambda c: ("evict", 0) in c.program,
    "evict a negative number": lambda c: "evict" in c.ended("a negative number of pages"),
    "fewer pages than tokens need": lambda c: "insert" in c.ended("too few pages"),
    "unlock below 0": lambda c: "unlock" in c.ended("not locked"),
    "an unknown node": lambda c: "lock" in c.ended("no node"),
    "a node that was evicted": lambda c: "lock" in c.ended("a node that was evicted"),
    "reset": lambda c: "reset" in c.ended(None),
    "reset while locked": lambda c: "reset" in c.ended("something is locked"),
    "page size 2 or 3": lambda c: c.page_size in (2, 3),
}


def door(call: Call) -> None:
    """A page is a token at least."""
    if call.options["page_size"] < 1:
        raise ValueError(f"radix_cache: page_size is {call.options['page_size']}, must be from 1")


def complete(call: Call) -> Call:
    """A command returns at most every page that was given."""
    return replace(call, axes={**call.axes, "W": programs.HEAD + max(call.axes["G"], 1)})


def contents(call: Call) -> None:
    """Checked mode: the program is one."""
    programs.check_packed(call, FORMS, {"token_indptr": "T", "page_indptr": "G"})


ERRORS = (
    Refusal("page_size 0", change("page_size", lambda _: 0), ValueError, "page_size is 0"),
    Refusal("unknown kind", put("commands", 6, 1, 0), ValueError, "[1] is of kind 6", True),
    Refusal("kind < 0", put("commands", -1, 1, 0), ValueError, "[1] is of kind -1", True),
    *bad_indptr("token_indptr", "T"),
    *bad_indptr("page_indptr", "G"),
)

radix_cache = Op(
    name="radix_cache",
    signature=parse(
        "commands: int32[C,2], tokens: int32[T], token_indptr: int32[C+1], pages: int32[G], "
        "page_indptr: int32[C+1], *, page_size=1 -> trace: int32[C,W]"
    ),
    Case=Case,
    inputs=inputs,
    reference=reference,
    cost=cost,
    workloads=WORKLOADS,
    edges=EDGES,
    errors=ERRORS,
    good=Case(),
    doc=__doc__ or "",
    comparison=comparison,
    door=door,
    contents=contents,
    complete=complete,
)
