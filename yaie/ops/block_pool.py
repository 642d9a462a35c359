"""block_pool: how many users each page of a KV cache has, run as a program of commands.

The state is one number a page: 0 is free. In the beginning all P pages are. A page that is handed
out has undefined contents, and is any free page: which one is not compared.

=========================  =========================================================================
0 alloc(n)                 n free pages, which have one user now; None, and nothing taken, when
                           fewer are free. n < 0: error
1 share(pages)             one user more for each; a page named twice gets two
2 free(pages)              one less for each; returns those that have none left, in this order
3 make_writable(page)      what the caller may write to instead of the page, of which it is a user:
                           (page) when it is the only one, else (new, page, new), a new page with
                           one user, one user less for the old, and the pair (src, dst) for
                           copy_blocks; None, and nothing changed, when no page is free
=========================  =========================================================================

Pages are named by handles: handle k is the k-th page that the program was handed (by alloc in the
order returned, by make_writable where it is new). A handle dies when its page becomes free. A dead
handle, or one of a page not handed out yet, is an unknown page or a free one: error. After an error
nothing is changed; free counts a page as often as it is named, before it changes anything.

=============  ===========  ========================================================================
commands       int32[C,2]   kind; n of alloc, handle of make_writable
handles        int32[R]     packed handles of share and free
handle_indptr  int32[C+1]   where those of each command start
num_pages      0            P
-> trace       int32[C,W]   error (0, 1), free pages, users (of all pages together), number of
                            values (-1: None), page ids, -1 ...; W = 4 + max(P, 3)
=============  ===========  ========================================================================

Page ids are compared up to renaming: two traces mean the same when they are equal after each id in
them is replaced by its handle. An id outside [0, P), or of a page in use that is handed out again,
has none.
Errors: shapes, strides, num_pages < 0: ValueError; dtypes: TypeError. In checked mode an unknown
kind and an indptr that is not 0..R or decreases: ValueError.
Source: vLLM BlockPool and KVCacheManager.allocate_slots (None when full), SGLang's allocators.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from torch import Tensor

from yaie.compare import Comparison, Contract, Trace
from yaie.fill import Fill
from yaie.op import Call, Cost, Op, at_least, case, one_of
from yaie.ops import _programs as programs
from yaie.ops._page_counts import (
    FORMS,
    PageCounts,
    Session,
    at_once,
    by_handle,
    run,
    took_scattered,
    went_with_second_free,
)
from yaie.refusal import Refusal, bad_indptr, change, put
from yaie.signature import parse

COLUMNS = ("error", "free pages", "users", "number of values")


@case
class Case:
    """A program: ("alloc", n), ("share", handles), ("free", handles), ("make_writable", handle)."""

    program: programs.Program = (("alloc", 2), ("share", (0, 1)), ("free", (0,)))
    P: int = at_least(0, default=3)
    dtype: str = one_of(("int32",), default="int32")
    seed: int = at_least(0, default=0)

    def check(self) -> None:
        """Commands that are commands."""
        programs.check_program(self.program, FORMS)

    @property
    def named(self) -> list[tuple[int, ...]]:
        """The handles of each command, where it takes several."""
        return [arg if type(arg) is tuple else () for _, arg in self.program]

    @property
    def history(self) -> list[tuple[tuple[Any, ...], programs.Event]]:
        """What each command does."""
        return _played(self)

    def ended(self, error: str | None) -> set[str]:
        """The kinds of commands that ended in that error (None: in none)."""
        return {command[0] for command, event in self.history if event.error == error}


@lru_cache(maxsize=64)
def _played(case: Case) -> list[tuple[tuple[Any, ...], programs.Event]]:
    codes = programs.codes(case.program, FORMS)
    pool = PageCounts(case.P)
    events = run(codes, case.named, Session(case.P, pool), pool.observables)
    return list(zip(case.program, events, strict=True))


def inputs(case: Case, fill: Fill) -> tuple[dict[str, Any], dict[str, Any]]:
    """Commands as numbers."""
    handles, handle_indptr = programs.packed(fill, case.named)
    return {
        "commands": programs.coded(fill, case.program, FORMS),
        "handles": handles,
        "handle_indptr": handle_indptr,
    }, {"num_pages": case.P}


def reference(commands: Tensor, handles: Tensor, handle_indptr: Tensor, num_pages: int) -> Any:
    """One command after the other, on a dictionary (_page_counts.py)."""
    named = programs.unpacked(handles, handle_indptr)
    pool = PageCounts(num_pages)
    events = run(commands.tolist(), named, Session(num_pages, pool), pool.observables)
    return programs.as_trace(events, max(num_pages, 3))


def comparison(expected: Tensor, call: Call, contract: Contract) -> dict[str, Comparison]:
    """Every return value and observable, page ids by their handles."""
    kinds = call.args["commands"][:, 0].tolist()
    canonical = partial(by_handle, kinds=kinds, P=call.options["num_pages"])
    return {"trace": Trace(expected, COLUMNS, canonical)}


def cost(case: Case) -> Cost:
    """The commands are read, and what they return is written."""
    returned = sum(len(event.values or ()) for _, event in case.history)
    return Cost(bytes=4 * (2 * len(case.program) + sum(map(len, case.named)) + returned))


def _batch(requests: int, pages: int) -> Case:
    """Requests that share their first pages with the one before, and then free it."""
    program: list[tuple[Any, ...]] = [("alloc", pages)]
    for i in range(1, requests):
        before = range((i - 1) * pages // 2 * 2, i * pages // 2 * 2)
        program += [
            ("share", tuple(before[: pages // 2])),
            ("alloc", pages),
            ("free", tuple(before)),
        ]
    return Case(program=tuple(program), P=requests * pages)


WORKLOADS = {
    "64 requests of 64 pages": _batch(64, 64),
    "16 requests of 1024 pages": _batch(16, 1024),
}

EDGES: dict[str, Callable[[Case], bool]] = {
    "no commands": lambda c: not c.program,
    "P 0": lambda c: c.P == 0 and bool(c.program),
    "P 1": lambda c: c.P == 1 and bool(c.program),
    "alloc 0": lambda c: ("alloc", 0) in c.program,
    "alloc a negative number": lambda c: "alloc" in c.ended("a negative number of pages"),
    "full": lambda c: any(a[0] == "alloc" and e.values is None for a, e in c.history),
    "exhausted, then freed": lambda c: any(
        a[0] == "free" and e.values and e.observables[0] == len(e.values) for a, e in c.history
    ),
    "freed while shared": lambda c: any(
        a[0] == "free" and e.error is None and len(e.values or ()) < len(a[1]) for a, e in c.history
    ),
    "shared, then freed twice": lambda c: went_with_second_free(c.history),
    "more than 64 pages in one command": lambda c: (
        {"alloc", "share", "free"} <= at_once(c.history, 64)
    ),
    "alloc of more than 64 pages that lie apart": lambda c: took_scattered(c.history, 64),
    "a page freed twice among many": lambda c: any(
        a[0] == "free" and 64 < len(e.values or ()) == len(set(a[1])) < len(a[1])
        for a, e in c.history
    ),
    "more than 256 users of a page": lambda c: any(
        e.observables[1] > 256 * c.P for _, e in c.history
    ),
    "double free": lambda c: "free" in c.ended("a free page"),
    "freed more often than used in one command": lambda c: (
        "free" in c.ended("more often than used")
    ),
    "free of an unknown page": lambda c: "free" in c.ended("an unknown page"),
    "share of a free page": lambda c: "share" in c.ended("a free page"),
    "make_writable of one's own page": lambda c: any(
        a[0] == "make_writable" and len(e.values or ()) == 1 for a, e in c.history
    ),
    "make_writable of a shared page": lambda c: any(
        a[0] == "make_writable" and len(e.values or ()) == 3 for a, e in c.history
    ),
    "make_writable when full": lambda c: any(
        a[0] == "make_writable" and e.values is None for a, e in c.history
    ),
    "make_writable of a free page": lambda c: "make_writable" in c.ended("a free page"),
}


def door(call: Call) -> None:
    """A pool has pages, or none."""
    if call.options["num_pages"] < 0:
        raise ValueError(f"block_pool: num_pages is {call.options['num_pages']}, must be from 0")


def complete(call: Call) -> Call:
    """A command returns at most all pages, or a page and a pair."""
    most = max(call.options["num_pages"], 3)
    return replace(call, axes={**call.axes, "W": programs.HEAD + most})


def contents(call: Call) -> None:
    """Checked mode: the program is one."""
    programs.check_packed(call, FORMS, {"handle_indptr": "R"})


ERRORS = (
    Refusal("num_pages < 0", change("num_pages", lambda _: -1), ValueError, "num_pages is -1"),
    Refusal("unknown kind", put("commands", 4, 1, 0), ValueError, "[1] is of kind 4", True),
    Refusal("kind < 0", put("commands", -1, 1, 0), ValueError, "[1] is of kind -1", True),
    *bad_indptr("handle_indptr", "R"),
)

block_pool = Op(
    name="block_pool",
    signature=parse(
        "commands: int32[C,2], handles: int32[R], handle_indptr: int32[C+1], *, num_pages=0 "
        "-> trace: int32[C,W]"
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
