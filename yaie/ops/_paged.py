"""What the ops on a paged cache share: how a batch of sequences lies in pages, and the checks of
its description. Position j of sequence b lives in page ``block_table[b, j // S]`` at ``j % S``."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from yaie.fill import Fill
from yaie.op import Call
from yaie.refusal import Refusal, bad_indptr, put

TABLES = ("permuted", "reversed", "shared")
"""How pages are chosen; "shared": every sequence starts with the first page of sequence 0."""


def page_rows(
    fill: Fill, pages: Sequence[int], spare: int, table: str
) -> tuple[list[list[int]], int]:
    """The pages of each sequence, and how many the pool has (``spare`` of them in no row)."""
    used, total = sum(pages), sum(pages) + spare
    order = fill.some(used, total).tolist()
    if table == "reversed":
        order = list(range(total - 1, spare - 1, -1))
    ends = list(itertools.accumulate(pages))
    rows = [order[end - n : end] for n, end in zip(pages, ends, strict=True)]
    if table == "shared" and rows and rows[0]:
        rows = [[rows[0][0], *row[1:]] if row else row for row in rows]
    return rows, total


def block_table(fill: Fill, rows: Sequence[Sequence[int]], tail: int, gap: int) -> Tensor:
    """int32 [B,W]; what a sequence does not use, ``tail`` columns at least, is poison, and so are
    ``gap`` elements between two rows."""
    width = max(map(len, rows), default=0) + tail
    table = fill.rows((len(rows), width), torch.int32, gap)
    for b, row in enumerate(rows):
        table.write(torch.tensor(row, dtype=torch.int32), (b, slice(len(row))))
    return table.tensor


@dataclass(frozen=True)
class Slots:
    """Where packed ``tokens`` lie in a paged cache, and the pages that a sequence has."""

    tokens: Tensor
    pages: Tensor
    offsets: Tensor
    used: tuple[int, ...]

    @staticmethod
    def of(rows: Sequence[Sequence[int]], kept: Sequence[range], S: int) -> Slots:
        """Those of the ``kept`` positions of each sequence, whose pages are ``rows``."""
        tokens: list[int] = []
        pages: list[int] = []
        offsets: list[int] = []
        start = 0
        for row, positions in zip(rows, kept, strict=True):
            pages += [row[j // S] for j in positions]
            offsets += [j % S for j in positions]
            tokens += [start + j for j in positions]
            start += positions.stop
        used = tuple(itertools.chain.from_iterable(rows))
        return Slots(_index(tokens), _index(pages), _index(offsets), used)


def _index(numbers: list[int]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


def paged_cache(
    fill: Fill,
    values: Tensor,
    slots: Slots,
    shape: tuple[int, int],
    dtype: torch.dtype,
    shift: int,
) -> Tensor:
    """[P,S,Hk,D] with the packed ``values`` in their slots; all else is poison. ``shape`` is
    (P, S), ``shift`` moves it off alignment."""
    cache = fill.slab((*shape, *values.shape[1:]), dtype, shift, slots.used)
    return cache.write(values[slots.tokens], (slots.pages, slots.offsets))


def cache_shifts(case: Any) -> tuple[int, int]:
    """How many elements off the allocator's alignment k_cache and v_cache of a Case start."""
    own = case.v_cache_shift
    return case.cache_shift, case.cache_shift if own < 0 else own


def cache_edges(used: Callable[[Any], bool]) -> dict[str, Callable[[Any], bool]]:
    """Edges of a Case whose caches are ``used``: only the base of one of them stands in the way of
    wide words."""

    def off(case: Any) -> tuple[bool, bool]:
        k, v = cache_shifts(case)
        wide = used(case) and case.D % 8 == 0 == case.Dv % 8
        return wide and k % 8 > 0, wide and v % 8 > 0

    return {
        "k_cache alone off alignment": lambda c: off(c) == (True, False),
        "v_cache alone off alignment": lambda c: off(c) == (False, True),
    }


def keys_read(kept: Sequence[range], page_size: int, shared: bool) -> int:
    """Slots of the keys that some query keeps; one in a first page that all share counts once."""
    if not shared:
        return sum(map(len, kept))
    first_page = {j for keys in kept for j in keys if j < page_size}
    return len(first_page) + sum(j >= page_size for keys in kept for j in keys)


def check_indptr(call: Call, name: str, axis: str) -> None:
    """Checked mode: an indptr runs from 0 to the packed length, and never falls."""
    indptr = call.args[name].tolist()
    total = call.axes[axis]
    if indptr[0] != 0 or indptr[-1] != total:
        ends = f"{indptr[0]}..{indptr[-1]}"
        raise ValueError(f"{call.op}: {name}: is {ends}, must be 0..{axis} = {total}")
    if any(a > b for a, b in itertools.pairwise(indptr)):
        raise ValueError(f"{call.op}: {name}: decreases")


def check_table(call: Call, lengths: Sequence[int], name: str) -> None:
    """Checked mode: no sequence is longer than its row, and no page outside the pool is read."""
    P, S, W = (call.axes[axis] for axis in "PSW")
    rows = call.args["block_table"].tolist()
    for b, length in enumerate(lengths):
        if not 0 <= length <= W * S:
            raise ValueError(f"{call.op}: {name}: [{b}] is {length}, outside 0..{W * S} = W*S")
        for page in rows[b][: -(-length // S)]:
            if not 0 <= page < P:
                raise ValueError(f"{call.op}: block_table: page {page} is outside [0, P = {P})")


def check_slots(call: Call) -> None:
    """Checked mode: slots to write are below P*S, and none is used twice."""
    slots, limit = call.args["slots"], call.axes["P"] * call.axes["S"]
    used = slots[slots >= 0]
    if used.numel() and int(used.max()) >= limit:
        raise ValueError(f"{call.op}: slots: {int(used.max())} is not below P*S = {limit}")
    if used.unique().numel() != used.numel():
        raise ValueError(f"{call.op}: slots: a slot is used twice")


# For a good call of 3 queries and of kv_lens 5 and 3 in pages of 4 of a pool of 4.
BATCH_ERRORS = (
    *bad_indptr("q_indptr", "T"),
    Refusal("kv_len < 0", put("kv_lens", -1, 0), ValueError, "[0] is -1", contents=True),
    Refusal("kv_len > W*S", put("kv_lens", 13, 1), ValueError, "[1] is 13", contents=True),
    Refusal("page at P", put("block_table", 4, 0, 1), ValueError, "page 4", contents=True),
    Refusal("page < 0", put("block_table", -1, 0, 0), ValueError, "page -1", contents=True),
)


PART_EDGES: dict[str, Callable[[Any], bool]] = {
    "float32 scores near -80,000, in several parts": lambda c: (
        (c.family, c.dtype, c.scale, c.softcap) == ("negative", "float32", None, 0)
        and c.D >= 64
        and any(q == 1 and len(kept) > 256 for q, kept in zip(c.q_lens, c.kept, strict=True))
    ),
    "33 tiles of 64 keys of one KV head": lambda c: (
        c.q_lens == (1,)
        and c.Hk == 1
        and 2048 < c.kv_lens[0] <= 2112
        and c.dtype != "float32"
        and max(c.D, c.Dv) <= 128
    ),
    "more than 128 sequences of more than 16 rows of a KV head": lambda c: (
        len(c.q_lens) > 128
        and c.G * min(c.q_lens) > 16
        and min(c.kv_lens) > 1
        and c.dtype != "float32"
    ),
}
"""Where the keys of a query, or the rows of a batch, are dealt out in parts."""
