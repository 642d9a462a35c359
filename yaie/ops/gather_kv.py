"""gather_kv: the keys and values of a span of positions of each sequence, out of a paged cache.

Row ``kv_indptr[b] + i`` of the results is position ``j = kv_start[b] + i`` of sequence b, which
lies in page ``block_table[b, j // S]`` at offset ``j % S``, for i from 0 to ``kv_indptr[b+1] -
kv_indptr[b] - 1``. The copy is one of bits: NaN payloads and the sign of zero survive.

============  ================  =================================================================
k_cache       float[P,S,Hk,D]   contiguous
v_cache       float[P,S,Hk,Dv]  contiguous
block_table   int32[B,W]        page ids; row stride free; entries of no asked position: never read
kv_indptr     int32[B+1]        where the rows of each sequence start; the first is 0, the last N
kv_start      int32[B]          first position of each sequence; None: 0
total         None              N, where the caller knows it; None reads kv_indptr[B] from its
                                device, which waits for that device
-> k          float[N,Hk,D]
-> v          float[N,Hk,Dv]
============  ================  =================================================================

Slots that no asked position names may hold anything. B = 0, N = 0 and lengths of 0 are legal. The
same page may stand in several rows or twice in one.
Errors: shapes, strides, devices, S = 0, total no whole number or negative: ValueError; dtypes:
TypeError. In checked mode kv_indptr not 0..N or decreasing, a total other than its end, kv_start <
0, kv_start + length > W*S, a page that is read outside [0, P): ValueError.
Source: vLLM gather_cache; SGLang's kv_indices with kv_start_idx, then index_select.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from yaie.compare import Comparison, Contract, Exact
from yaie.fill import Fill
from yaie.op import Call, Cost, Op, at_least, case, one_of
from yaie.ops import _gather as gather
from yaie.ops import _paged as paged
from yaie.refusal import Refusal, put
from yaie.signature import FLOAT_NAMES, parse


@case
class Case(gather.Spans):
    """Spans of positions (_gather.Spans). k_cache starts ``cache_shift`` elements off the
    allocator's alignment, v_cache ``v_cache_shift`` (-1: as many)."""

    Hk: int = at_least(1, default=2)
    D: int = at_least(1, default=8)
    Dv: int = at_least(1, default=8)
    dtype: str = one_of(FLOAT_NAMES, default="float16")
    cache_shift: int = at_least(0, default=0)
    v_cache_shift: int = at_least(-1, default=-1)
    family: str = one_of(("normal", "bits"), default="normal")


def inputs(case: Case, fill: Fill) -> tuple[dict[str, Any], dict[str, Any]]:
    """Poison in every slot and table entry that is not read."""
    dtype = getattr(torch, case.dtype)
    table, spans, P = gather.laid_out(fill, case)
    slots = torch.cat([*spans, torch.empty(0, dtype=torch.int64)])
    caches = []
    for d, shift in zip((case.D, case.Dv), paged.cache_shifts(case), strict=True):
        shape = (len(slots), case.Hk, d)
        values = fill.bits(shape, dtype) if case.family == "bits" else fill.normal(*shape)
        cache = fill.slab((P, case.S, case.Hk, d), dtype, shift, slots // case.S)
        caches.append(cache.write(values, (slots // case.S, slots % case.S)))
    args = {"k_cache": caches[0], "v_cache": caches[1], **table}
    return args, {"total": gather.total_option(case)}


def reference(
    k_cache: Tensor,
    v_cache: Tensor,
    block_table: Tensor,
    kv_indptr: Tensor,
    kv_start: Tensor | None,
    total: int,
) -> tuple[Tensor, Tensor]:
    """One position after the other."""
    S, rows = k_cache.shape[1], block_table.tolist()
    spans = gather.read_spans(kv_indptr, kv_start)
    pages = [rows[b][j // S] for b, span in enumerate(spans) for j in span]
    offsets = [j % S for span in spans for j in span]
    k, v = (cache.new_empty(len(pages), *cache.shape[2:]) for cache in (k_cache, v_cache))
    k[:], v[:] = k_cache[pages, offsets], v_cache[pages, offsets]
    return k, v


def comparison(
    expected: tuple[Tensor, Tensor], call: Call, contract: Contract
) -> dict[str, Comparison]:
    """Bit for bit."""
    return {"k": Exact(expected[0]), "v": Exact(expected[1])}


def cost(case: Case) -> Cost:
    """Each slot that is read is read once (a shared one once), each row written once, each entry
    of the table that is needed read once."""
    row = case.Hk * (case.D + case.Dv) * getattr(torch, case.dtype).itemsize
    spans = len(case.lens) + 1 + len(case.starts)
    table = 4 * (sum(map(len, case.columns)) + spans)
    return Cost(bytes=(case.slots_read() + sum(case.lens)) * row + table)


_LLAMA3_8B = Case(S=16, Hk=8, D=128, Dv=128, dtype="bfloat16")

WORKLOADS = {
    "llama3-8b, batch 32, context 1k": replace(_LLAMA3_8B, lens=(1024,) * 32),
    "llama3-8b, one context of 32k": replace(_LLAMA3_8B, lens=(32768,)),
    "llama3-8b, chunk of 512 after 1536, batch 16": replace(
        _LLAMA3_8B, lens=(512,) * 16, starts=(1536,) * 16
    ),
}

EDGES = {
    "more elements than 32 bits address": lambda c: (
        sum(c.lens) > 0 and c.spare * c.S * c.Hk * c.D >= 1 << 31
    ),
    **gather.SPAN_EDGES,
    "NaN payloads": lambda c: c.family == "bits" and sum(c.lens) > 0,
    "Dv differs from D": lambda c: c.Dv != c.D and sum(c.lens) > 0,
    "row bytes no multiple of 16": lambda c: (
        c.Hk * c.D * getattr(torch, c.dtype).itemsize % 16 != 0 and sum(c.lens) > 0
    ),
    "many positions of many sequences of wide heads": lambda c: (
        len(c.lens) > 16 and max(c.lens) > 256 and c.Hk > 4 and min(c.D, c.Dv) > 64 and c.S > 64
    ),
    "caches off alignment": lambda c: c.cache_shift > 0 and sum(c.lens) > 0,
    "page ids beyond 16 bits": lambda c: c.spare > 1 << 17 and sum(c.lens) > 0,
    **paged.cache_edges(lambda c: sum(c.lens) > 0),
    "more than 32 wide heads": lambda c: c.Hk > 32 and min(c.D, c.Dv) > 64 and sum(c.lens) > 0,
}


def door(call: Call) -> None:
    """A page holds a token at least."""
    if call.axes["S"] == 0:
        raise ValueError("gather_kv: S is 0, must be at least 1")
    gather.check_total(call)


def contents(call: Call) -> None:
    """Checked mode: the spans, and pages of the pool."""
    gather.check_spans(call, call.axes["S"], call.axes["P"])


def _pages_of_nothing(given: dict[str, Any]) -> None:
    for name in ("k_cache", "v_cache"):
        given[name] = given[name][:, :0].contiguous()


ERRORS = (
    *gather.SPAN_ERRORS,
    Refusal("page at P", put("block_table", 4, 0, 1), ValueError, "page 4", contents=True),
    Refusal("S 0", _pages_of_nothing, ValueError, "S is 0"),
)

gather_kv = Op(
    name="gather_kv",
    signature=parse(
        "k_cache: float[P,S,Hk,D] contiguous, v_cache: float[P,S,Hk,Dv] contiguous, "
        "block_table: int32[B,W], kv_indptr: int32[B+1], kv_start?: int32[B], *, total?: int=None "
        "-> k: float[N,Hk,D], v: float[N,Hk,Dv]"
    ),
    Case=Case,
    inputs=inputs,
    reference=reference,
    cost=cost,
    workloads=WORKLOADS,
    edges=EDGES,
    errors=ERRORS,
    good=Case(lens=(5, 3), starts=(3, 0)),
    doc=__doc__ or "",
    comparison=comparison,
    door=door,
    contents=contents,
    complete=gather.complete,
)
