"""paged_attention: attention of packed queries over keys and values in a paged cache.

One op for decode (one query a sequence), chunked prefill (several, after earlier keys) and mixed
batches. Position j of sequence b lives in page ``block_table[b, j // S]`` at offset ``j % S``; the
keys of the current tokens are in the cache already (append_kv comes first). Mask, score, softmax
and log-sum-exp: see _attention.py beside this page.

============  ===================  ==============================================================
q             float[T,Hq,D]        packed over the batch; strides of T and Hq are free
k_cache       float[P,S,Hk,D]      contiguous; Hq = G*Hk, query head h reads KV head h // G
v_cache       float[P,S,Hk,Dv]     contiguous
block_table   int32[B,W]           row stride free; entries from ceil(kv_len / S) on are never read
kv_lens       int32[B]             keys of each sequence, the current tokens included; 0 is legal
q_indptr      int32[B+1]           queries of sequence b are rows q_indptr[b] to q_indptr[b+1]
causal        True                 a query sees no key after its own position
scale         None                 multiplies q.k; None is 1/sqrt(D)
window        (-1, -1)             keys to the left and right that a query sees; -1: no limit
softcap       0.0                  0: off
alibi         None                 Unsupported unless None
-> out        float[T,Hq,Dv]       0 where a query keeps no key
-> lse        float32[T,Hq]        natural logarithm; -inf where a query keeps no key
============  ===================  ==============================================================

Never changes a bit of the result: slots at or beyond kv_len, pages that no table names, table
tails, and keys that no query of their sequence keeps. B = 0, T = 0, q_len = 0, kv_len = 0 and
q_len > kv_len are legal. The same page may stand in several rows or twice in one.
Errors: shapes, strides, devices, Hq % Hk, scale not finite, softcap < 0, window < -1: ValueError;
dtypes: TypeError; alibi: Unsupported. In checked mode q_indptr not 0..T or decreasing, kv_len < 0
or > W*S, a page that is read outside [0, P): ValueError.
Source: FlashAttention flash_attn_with_kvcache (mask), FlashInfer paged decode and prefill (which
return a base-2 lse, convert it), vLLM block tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from yaie.fill import FAMILIES, FAR, LAYOUTS, Fill, Sequences
from yaie.op import Call, Cost, Op, at_least, case, one_of
from yaie.ops import _attention as attention
from yaie.ops import _paged as paged
from yaie.signature import FLOAT_NAMES, parse


@case
class Case:
    """A batch of sequences. ``table`` says how pages are chosen (_paged.TABLES), ``spare`` counts
    pages that no row names, ``tail`` the unused columns of the table, ``table_gap`` what lies
    between its rows; k_cache starts ``cache_shift`` elements off the allocator's alignment, v_cache
    ``v_cache_shift`` (-1: as many)."""

    q_lens: tuple[int, ...] = (1,)
    kv_lens: tuple[int, ...] = (5,)
    S: int = at_least(1, default=4)
    Hk: int = at_least(1, default=1)
    G: int = at_least(1, default=1)
    D: int = at_least(1, default=8)
    Dv: int = at_least(1, default=8)
    dtype: str = one_of(FLOAT_NAMES, default="float16")
    causal: bool = True
    window: attention.Window = (-1, -1)
    softcap: float = 0.0
    scale: float | None = None
    table: str = one_of(paged.TABLES, default="permuted")
    spare: int = at_least(0, default=1)
    tail: int = at_least(0, default=1)
    table_gap: int = at_least(0, default=0)
    layout: str = one_of((*LAYOUTS, FAR), default="dense")
    cache_shift: int = at_least(0, default=0)
    v_cache_shift: int = at_least(-1, default=-1)
    family: str = one_of(FAMILIES, default="normal")
    seed: int = at_least(0, default=0)

    def check(self) -> None:
        """One query length and one key length a sequence."""
        if len(self.q_lens) != len(self.kv_lens) or min((*self.q_lens, *self.kv_lens, 0)) < 0:
            raise ValueError(f"q_lens is {self.q_lens} and kv_lens is {self.kv_lens}")

    @property
    def pages(self) -> list[int]:
        """Pages that each sequence occupies."""
        return [-(-n // self.S) for n in self.kv_lens]

    @property
    def kept(self) -> list[range]:
        """The keys of each sequence that some query keeps."""
        return attention.kept_keys(self.q_lens, self.kv_lens, self.window)

    def keys_read(self) -> int:
        """Slots that hold a key which some query keeps; one that several read counts once."""
        shared = self.table == "shared" and self.kv_lens[:1] > (0,)
        return paged.keys_read(self.kept, self.S, shared)


def inputs(case: Case, fill: Fill) -> tuple[dict[str, Any], dict[str, Any]]:
    """The cache is poison except for the keys that some query keeps."""
    dtype, S = getattr(torch, case.dtype), case.S
    edges = (S - 1, S, 15, 16, 31, 32, 63, 64, 127, 128)
    heads, dims = (case.Hk * case.G, case.Hk), (case.D, case.Dv)
    batch = Sequences(fill, case.q_lens, case.kv_lens, heads, dims, edges, dtype)
    FAMILIES[case.family](batch)
    rows, P = paged.page_rows(fill, case.pages, case.spare, case.table)
    slots = paged.Slots.of(rows, case.kept, S)
    shift, v_shift = paged.cache_shifts(case)
    args = {
        "q": fill.tensor(batch.q, dtype, case.layout),
        "k_cache": paged.paged_cache(fill, batch.k, slots, (P, S), dtype, shift),
        "v_cache": paged.paged_cache(fill, batch.v, slots, (P, S), dtype, v_shift),
        "block_table": paged.block_table(fill, rows, case.tail, case.table_gap),
        "kv_lens": fill.ints(case.kv_lens),
        "q_indptr": fill.ints([0, *batch.q_ends]),
    }
    return args, {name: getattr(case, name) for name in attention.OPTIONS}


def reference(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_table: Tensor,
    kv_lens: Tensor,
    q_indptr: Tensor,
    causal: bool,
    scale: float | None,
    window: attention.Window,
    softcap: float,
    alibi: None = None,
) -> attention.Oracle:
    """One sequence after the other: gather its keys and values, then attention.attend."""
    S, scale = k_cache.shape[1], 1 / math.sqrt(q.shape[2]) if scale is None else scale
    ends, parts = q_indptr.tolist(), []
    for b, kv_len in enumerate(kv_lens.tolist()):
        if ends[b] == ends[b + 1]:
            continue  # no queries, no rows
        pages = block_table[b, : -(-kv_len // S)].long()
        k = k_cache[pages].flatten(0, 1)[:kv_len]
        v = v_cache[pages].flatten(0, 1)[:kv_len]
        rows = q[ends[b] : ends[b + 1]]
        keep = attention.keep_mask(len(rows), kv_len, causal, window, q.device)
        parts.append(attention.attend(rows, k, v, keep, scale, softcap))
    return attention.Oracle.concat(parts) if parts else attention.Oracle.empty(q, v_cache)


def cost(case: Case) -> Cost:
    """Keys and values that some query keeps are read once (a shared page once), q and the tables
    once, out and lse written once; the flops are those of the pairs that the mask keeps."""
    e, T = getattr(torch, case.dtype).itemsize, sum(case.q_lens)
    Hq, width = case.Hk * case.G, case.D + case.Dv
    pairs = attention.kept_pairs(case.q_lens, case.kv_lens, case.causal, case.window)
    tables = 4 * (sum(case.pages) + 2 * len(case.kv_lens) + 1)
    moved = (T * Hq + case.keys_read() * case.Hk) * width * e + 4 * T * Hq + tables
    return Cost(bytes=moved, flops=2 * width * Hq * pairs)


_LLAMA3_8B = Case(S=16, Hk=8, G=4, D=128, Dv=128, dtype="bfloat16")
_GEMMA2_9B = replace(_LLAMA3_8B, G=2, D=256, Dv=256, softcap=50.0, scale=1 / 16)


def _decode(model: Case, batch: int, context: int) -> Case:
    return replace(model, q_lens=(1,) * batch, kv_lens=(context,) * batch)


WORKLOADS = {
    "llama3-8b decode, batch 1, context 4k": _decode(_LLAMA3_8B, 1, 4096),
    "llama3-8b decode, batch 32, context 1k": _decode(_LLAMA3_8B, 32, 1024),
    "llama3-8b decode, batch 128, context 1k": _decode(_LLAMA3_8B, 128, 1024),
    "llama3-8b chunk of 512 after 1536": replace(_LLAMA3_8B, q_lens=(512,), kv_lens=(2048,)),
    "mistral-7b decode, batch 8, context 8k": replace(
        _decode(_LLAMA3_8B, 8, 8192), window=(4095, 0)
    ),
    "gemma2-9b decode, batch 8, context 2k": _decode(_GEMMA2_9B, 8, 2048),
}

EDGES: dict[str, Callable[[Case], bool]] = {
    "more elements than 32 bits address": lambda c: (
        sum(c.kv_lens) > 0 and c.spare * c.S * c.Hk * c.D >= 1 << 31
    ),
    **attention.MASK_EDGES,
    "last page full": lambda c: any(n and n % c.S == 0 for n in c.kv_lens),
    "last page of one token": lambda c: c.S > 1 and any(n % c.S == 1 for n in c.kv_lens),
    "page larger than kv_len": lambda c: any(0 < n < c.S for n in c.kv_lens),
    "window that empties pages": lambda c: any(keys.start >= c.S for keys in c.kept),
    "pages reversed": lambda c: c.table == "reversed" and any(n > 1 for n in c.pages),
    "pages shared": lambda c: c.table == "shared" and sum(n > 0 for n in c.pages) > 1,
    "table rows with gaps": lambda c: c.table_gap > 0 and len(c.q_lens) > 1,
    "page of more than 256 tokens": lambda c: c.S > 256 and sum(c.kv_lens) > 0,
    "a page of more than 512 tokens": lambda c: c.S > 512 < max(c.kv_lens, default=0),
    "page ids beyond 16 bits": lambda c: c.spare > 1 << 17 and sum(c.kv_lens) > 0,
    "more pages of a sequence than 16 bits count": lambda c: any(
        q and n >= 1 << 16 for q, n in zip(c.q_lens, c.pages, strict=True)
    ),
    "caches off alignment": lambda c: c.cache_shift > 0 and sum(c.kv_lens) > 0,
    **paged.cache_edges(lambda c: any(len(keys) > 1 for keys in c.kept)),
    **paged.PART_EDGES,
    "table tail unused": lambda c: c.tail > 0 and bool(c.q_lens),
    "table rows that 32 bits cannot address": lambda c: (
        c.table_gap * (len(c.q_lens) - 1) >= 1 << 31 and min(c.q_lens[-1:] + c.kv_lens[-1:]) > 0
    ),
}


def contents(call: Call) -> None:
    """Checked mode: the batch is described consistently, and no page outside the pool is read."""
    paged.check_indptr(call, "q_indptr", "T")
    paged.check_table(call, call.args["kv_lens"].tolist(), "kv_lens")


ERRORS = (*attention.OPTION_ERRORS, *paged.BATCH_ERRORS)

paged_attention = Op(
    name="paged_attention",
    signature=parse(
        "q: float[T,Hq,D], k_cache: float[P,S,Hk,D] contiguous, v_cache: float[P,S,Hk,Dv] "
        "contiguous, block_table: int32[B,W], kv_lens: int32[B], q_indptr: int32[B+1], *, "
        f"{attention.SIGNATURE} -> out: float[T,Hq,Dv], lse: float32[T,Hq]"
    ),
    Case=Case,
    inputs=inputs,
    reference=reference,
    cost=cost,
    workloads=WORKLOADS,
    edges=EDGES,
    errors=ERRORS,
    good=Case(q_lens=(2, 1), kv_lens=(5, 3), Hk=2, G=2),
    doc=__doc__ or "",
    comparison=attention.judges,
    door=attention.check_options,
    contents=contents,
)
