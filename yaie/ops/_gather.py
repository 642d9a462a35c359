"""What gather_kv and gather_slots share: the span of positions that each sequence asks for, how a
case lays out its pages, and the checks of a call.

Sequence b asks for the positions ``kv_start[b]`` to ``kv_start[b] + n - 1``, where ``n =
kv_indptr[b + 1] - kv_indptr[b]``, and only the entries of its table row that hold them are read:
columns ``kv_start[b] // S`` to ``(kv_start[b] + n - 1) // S``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from yaie.fill import Fill
from yaie.op import Call, at_least, case, one_of
from yaie.ops import _paged as paged
from yaie.refusal import Refusal, change, put


@case
class Spans:
    """``lens[b]`` positions of sequence b from ``starts[b]`` on (no starts: the argument is left
    out). ``table`` says how the pages that are read are chosen (_paged.TABLES), ``spare`` counts
    pages that no row names, ``tail`` the unused columns behind the longest row, ``table_gap`` what
    lies between two rows; ``total`` is whether the caller names the sum of the lengths."""

    lens: tuple[int, ...] = (5, 3)
    starts: tuple[int, ...] = ()
    S: int = at_least(1, default=4)
    table: str = one_of(paged.TABLES, default="permuted")
    spare: int = at_least(0, default=1)
    tail: int = at_least(0, default=1)
    table_gap: int = at_least(0, default=0)
    total: bool = True
    seed: int = at_least(0, default=0)

    def check(self) -> None:
        """One start a length, if there are starts."""
        if min((*self.lens, *self.starts, 0)) < 0:
            raise ValueError(f"lens is {self.lens}, starts is {self.starts}: negative")
        if self.starts and len(self.starts) != len(self.lens):
            raise ValueError(f"lens is {self.lens}, starts is {self.starts}: not one a sequence")

    @property
    def spans(self) -> list[range]:
        """The positions of each sequence."""
        starts = self.starts or (0,) * len(self.lens)
        return [range(a, a + n) for a, n in zip(starts, self.lens, strict=True)]

    @property
    def columns(self) -> list[range]:
        """The columns of the table that each sequence reads."""
        return [range(s.start // self.S, -(-s.stop // self.S) if s else 0) for s in self.spans]

    def slots_read(self) -> int:
        """Distinct slots; those of a shared page count once."""
        N = sum(self.lens)
        if self.table != "shared" or not self.lens or not self.lens[0]:
            return N
        ends = [(c.start + 1) * self.S for c in self.columns]
        heads = [range(s.start, min(s.stop, end)) for s, end in zip(self.spans, ends, strict=True)]
        shared = {position % self.S for head in heads for position in head}
        return N - sum(map(len, heads)) + len(shared)


def laid_out(
    fill: Fill, case: Spans, first_page: int = 0
) -> tuple[dict[str, Any], list[Tensor], int]:
    """block_table, kv_indptr and kv_start; the slots of each sequence; the number of pages. Table
    entries that are not read are poison. Page ids start at ``first_page``."""
    rows, P = paged.page_rows(fill, [len(c) for c in case.columns], case.spare, case.table)
    width = max((-(-s.stop // case.S) for s in case.spans), default=0) + case.tail
    table = fill.rows((len(rows), width), torch.int32, case.table_gap)
    slots = []
    for b, (row, span, columns) in enumerate(zip(rows, case.spans, case.columns, strict=True)):
        pages = torch.tensor(row, dtype=torch.int64) + first_page
        table.write(pages, (b, slice(columns.start, columns.start + len(row))))
        whole = (pages[:, None] * case.S + torch.arange(case.S)).flatten()
        offset = span.start % case.S
        slots.append(whole[offset : offset + len(span)])
    args = {
        "block_table": table.tensor,
        "kv_indptr": fill.ints([0, *itertools.accumulate(case.lens)]),
        "kv_start": fill.ints(case.starts) if case.starts else None,
    }
    return args, slots, P


def total_option(case: Spans) -> int | None:
    """The option ``total`` of a case."""
    return sum(case.lens) if case.total else None


def check_total(call: Call) -> None:
    """The door: a total is a whole number, and not negative."""
    total = call.options["total"]
    if total is not None and (type(total) is not int or total < 0):
        raise ValueError(f"{call.op}: total is {total}, must be a whole number from 0 on")


def complete(call: Call) -> Call:
    """N is the total; without one, what kv_indptr ends with (which waits for its device)."""
    total = call.options["total"]
    if total is None:
        total = int(call.args["kv_indptr"][-1])
        if total < 0:
            raise ValueError(f"{call.op}: kv_indptr: ends with {total}")
    axes, options = {**call.axes, "N": total}, {**call.options, "total": total}
    return replace(call, axes=axes, options=options)


def read_spans(kv_indptr: Tensor, kv_start: Tensor | None) -> list[range]:
    """The positions that each sequence asks for."""
    ends = kv_indptr.tolist()
    starts = [0] * len(ends) if kv_start is None else kv_start.tolist()
    return [
        range(s, s + b - a) for s, (a, b) in zip(starts, itertools.pairwise(ends), strict=False)
    ]


def check_spans(call: Call, S: int, P: int) -> None:
    """Checked mode: kv_indptr is one, no span leaves its table row, no page the pool."""
    N, last = call.axes["N"], int(call.args["kv_indptr"][-1])
    if N != last:
        raise ValueError(f"{call.op}: total is {N}, kv_indptr ends with {last}")
    paged.check_indptr(call, "kv_indptr", "N")
    room = call.axes["W"] * S
    rows = call.args["block_table"].tolist()
    for b, span in enumerate(read_spans(call.args["kv_indptr"], call.args["kv_start"])):
        if span.start < 0:
            raise ValueError(f"{call.op}: kv_start: [{b}] is {span.start}")
        if span.stop > room:
            raise ValueError(
                f"{call.op}: block_table: W*S is {room}, sequence {b} reads to {span.stop}"
            )
        if span:
            _check_pages(call, rows[b][span.start // S : -(-span.stop // S)], P)


def _check_pages(call: Call, pages: Sequence[int], P: int) -> None:
    for page in pages:
        if not 0 <= page < P:
            raise ValueError(f"{call.op}: block_table: page {page} is outside [0, P = {P})")


# For a good call of 5 positions from 3 on and of 3 from 0 on, in pages of 4; W is 3.
SPAN_ERRORS = (
    Refusal("total < 0", change("total", lambda _: -1), ValueError, "total is -1"),
    Refusal("total of another type", change("total", float), ValueError, "total is 8.0"),
    Refusal("total too large", change("total", lambda n: n + 1), ValueError, "total is 9", True),
    Refusal("total too small", change("total", lambda n: n - 1), ValueError, "total is 7", True),
    Refusal("kv_indptr from 1", put("kv_indptr", 1, 0), ValueError, "must be 0..N", contents=True),
    Refusal("kv_indptr falls", put("kv_indptr", 9, 1), ValueError, "decreases", contents=True),
    Refusal("kv_start < 0", put("kv_start", -1, 0), ValueError, "[0] is -1", contents=True),
    Refusal("table too short", put("kv_start", 8, 0), ValueError, "reads to 13", contents=True),
    Refusal("page < 0", put("block_table", -1, 0, 0), ValueError, "page -1", contents=True),
)

SPAN_EDGES: dict[str, Callable[[Any], bool]] = {
    "no sequences": lambda c: not c.lens,
    "length 0": lambda c: 0 in c.lens,
    "nothing at all of some sequences": lambda c: bool(c.lens) and not sum(c.lens),
    "kv_start left out": lambda c: not c.starts and sum(c.lens) > 0,
    "total left out": lambda c: not c.total and sum(c.lens) > 0,
    "start inside a page": lambda c: any(s and s.start % c.S for s in c.spans),
    "start behind the first page": lambda c: any(s and s.start >= c.S for s in c.spans),
    "end on a page edge": lambda c: any(s and s.stop % c.S == 0 for s in c.spans),
    "start and end in one page": lambda c: any(len(p) == 1 and c.S > 1 for p in c.columns),
    "pages shared": lambda c: c.table == "shared" and sum(n > 0 for n in c.lens) > 1,
    "pages reversed": lambda c: c.table == "reversed" and any(len(p) > 1 for p in c.columns),
    "table tail unused": lambda c: c.tail > 0 and bool(c.lens),
    "table rows with gaps": lambda c: c.table_gap > 0 and any(c.lens[1:]),
    "table rows that 32 bits cannot address": lambda c: (
        c.table_gap * (len(c.lens) - 1) >= 1 << 31 and c.lens[-1] > 0
    ),
    "page size 1": lambda c: c.S == 1,
    "pages of more than 512 tokens": lambda c: any(s and s.stop > 512 < c.S for s in c.spans),
    "more than 1,024 sequences": lambda c: len(c.lens) > 1024 and sum(c.lens) > 0,
    "page size no power of two": lambda c: c.S & (c.S - 1) != 0,
    "more than 256 positions": lambda c: sum(c.lens) > 256,
    "a span of more than 65,536 positions": lambda c: max(c.lens, default=0) > 65_536,
    "positions beyond 65,535": lambda c: any(len(s) and s.stop > 65_536 for s in c.spans),
    "more than 32 sequences": lambda c: len(c.lens) > 32,
}
