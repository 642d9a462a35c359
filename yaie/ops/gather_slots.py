"""gather_slots: the cache slots of a span of positions of each sequence.

Row ``kv_indptr[b] + i`` of the result is the slot of position ``j = kv_start[b] + i`` of sequence
b: ``block_table[b, j // S] * S + j % S``, for i from 0 to ``kv_indptr[b+1] - kv_indptr[b] - 1``.
It turns a block table into what append_kv takes, and into rows of a cache seen as ``[P*S, ...]``.

============  =============  ====================================================================
block_table   int32[B,W]     page ids; row stride free; entries of no asked position: never read
kv_indptr     int32[B+1]     where the rows of each sequence start; the first is 0, the last N
kv_start      int32[B]       first position of each sequence; None: 0
page_size     1              S, tokens a page
total         None           N, where the caller knows it; None reads kv_indptr[B] from its device
-> slots      int32[N]
============  =============  ====================================================================

B = 0, N = 0 and lengths of 0 are legal. The same page may stand anywhere any number of times.
Errors: shapes, strides, devices, page_size < 1, total no whole number or negative: ValueError;
dtypes: TypeError. In checked mode kv_indptr not 0..N or decreasing, a total other than its end,
kv_start < 0, kv_start + length > W*S, a page that is read below 0 or so high that its slots pass
2^31 - 1: ValueError.
Source: SGLang create_flashinfer_kv_indices_triton (with kv_start_idx), vLLM's slot mapping.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from yaie.compare import Comparison, Contract, Exact
from yaie.fill import Fill
from yaie.op import Call, Cost, Op, case, one_of
from yaie.ops import _gather as gather
from yaie.refusal import Refusal, change, put
from yaie.signature import parse


@case
class Case(gather.Spans):
    """Spans of positions (_gather.Spans). ``far``: page ids end where slots pass 2^31 - 1."""

    far: bool = False
    dtype: str = one_of(("int32",), default="int32")

    def first_page(self, used: int) -> int:
        """The lowest page id, of a pool of which ``used`` pages are."""
        return 2**31 // self.S - used if self.far else 0


def inputs(case: Case, fill: Fill) -> tuple[dict[str, Any], dict[str, Any]]:
    """Poison in every table entry that is not read."""
    used = sum(map(len, case.columns)) + case.spare
    args, _, _ = gather.laid_out(fill, case, case.first_page(used))
    return args, {"page_size": case.S, "total": gather.total_option(case)}


def reference(
    block_table: Tensor, kv_indptr: Tensor, kv_start: Tensor | None, page_size: int, total: int
) -> Tensor:
    """One position after the other."""
    rows = block_table.tolist()
    slots = [
        rows[b][j // page_size] * page_size + j % page_size
        for b, span in enumerate(gather.read_spans(kv_indptr, kv_start))
        for j in span
    ]
    return torch.tensor(slots, dtype=torch.int32, device=block_table.device)


def comparison(expected: Tensor, call: Call, contract: Contract) -> dict[str, Comparison]:
    """Bit for bit."""
    return {"slots": Exact(expected)}


def cost(case: Case) -> Cost:
    """Each slot is written once, each entry of the table that is needed read once, and so are the
    bounds of the spans."""
    spans = len(case.lens) + 1 + len(case.starts)
    return Cost(bytes=4 * (sum(case.lens) + sum(map(len, case.columns)) + spans))


WORKLOADS = {
    "decode, batch 256, context 1k": Case(lens=(1024,) * 256, S=16),
    "one context of 128k": Case(lens=(131072,), S=16),
    "prefix of a batch, batch 64, from 512 to 2k": Case(
        lens=(1536,) * 64, starts=(512,) * 64, S=16
    ),
}

EDGES = {
    **gather.SPAN_EDGES,
    "slots beyond 16 bits": lambda c: (c.far or c.spare * c.S > 1 << 17) and sum(c.lens) > 0,
    "slots up to 2^31 - 1": lambda c: c.far and sum(c.lens) > 0,
}


def door(call: Call) -> None:
    """A page holds a token at least."""
    if call.options["page_size"] < 1:
        raise ValueError(f"gather_slots: page_size is {call.options['page_size']}, must be from 1")
    gather.check_total(call)


def contents(call: Call) -> None:
    """Checked mode: the spans, and slots that int32 holds."""
    S = call.options["page_size"]
    gather.check_spans(call, S, 2**31 // S)


ERRORS = (
    *gather.SPAN_ERRORS,
    Refusal("page_size 0", change("page_size", lambda _: 0), ValueError, "page_size is 0"),
    Refusal(
        "slot beyond int32", put("block_table", 2**29, 0, 0), ValueError, "page 536870912", True
    ),
)

gather_slots = Op(
    name="gather_slots",
    signature=parse(
        "block_table: int32[B,W], kv_indptr: int32[B+1], kv_start?: int32[B], *, page_size=1, "
        "total?: int=None -> slots: int32[N]"
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
