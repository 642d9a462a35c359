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
-> out        float[T,Hq,Dv]       0 where a query keeps no key
-> lse        float32[T,Hq]        natural logarithm; -inf where a query keeps no key
============  ===================  ==============================================================

Never changes a bit of the result: slots at or beyond kv_len, pages that no table names, table
tails, and keys that no query of their sequence keeps. B = 0, T = 0, q_len = 0, kv_len = 0 and
q_len > kv_len are legal. The same page may stand in several rows or twice in one.
Errors: shapes, strides, devices, Hq % Hk, scale not finite, softcap < 0, window < -1: ValueError;
dtypes: TypeError. In checked mode q_indptr not 0..T or decreasing, kv_len < 0 or > W*S, a page that
is read outside [0, P): ValueError.
Source: FlashAttention flash_attn_with_kvcache (mask), FlashInfer paged decode and prefill (which
return a base-2 lse, convert it), vLLM block tables.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from yaie.fill import FAMILIES, Fill, Sequences
from yaie.op import Call, Cost, Op, case
from yaie.ops._attention import (
    MASK_EDGES,
    OPTION_ERRORS,
    Oracle,
    Window,
    attend,
    check_options,
    judges,
    keep_mask,
)
from yaie.refusal import Refusal, put
from yaie.signature import parse


@case
class Case:
    """A batch of sequences. ``table`` says how pages are chosen: "permuted", "reversed", or
    "shared" (every sequence starts with the first page of sequence 0). ``spare`` counts pages that
    no table names, ``tail`` the unused columns of the table."""

    q_lens: tuple[int, ...] = (1,)
    kv_lens: tuple[int, ...] = (5,)
    S: int = 4
    Hk: int = 1
    G: int = 1
    D: int = 8
    Dv: int = 8
    dtype: str = "float16"
    causal: bool = True
    window: Window = (-1, -1)
    softcap: float = 0.0
    scale: float | None = None
    table: str = "permuted"
    spare: int = 1
    tail: int = 1
    layout: str = "dense"
    family: str = "normal"
    seed: int = 0

    @property
    def pages(self) -> list[int]:
        """Pages that each sequence occupies."""
        return [-(-n // self.S) for n in self.kv_lens]

    def first_kept(self, b: int) -> int:
        """First key that some query of sequence b keeps (kv_len if none does)."""
        q_len, kv_len = self.q_lens[b], self.kv_lens[b]
        if not q_len:
            return kv_len
        return 0 if self.window[0] < 0 else max(0, kv_len - q_len - self.window[0])


def inputs(case: Case, fill: Fill) -> tuple[dict[str, Any], dict[str, Any]]:
    """The cache is poison except for the keys that some query keeps."""
    dtype, S = getattr(torch, case.dtype), case.S
    edges = (S - 1, S, 15, 16, 31, 32, 63, 64, 127, 128)
    heads, dims = (case.Hk * case.G, case.Hk), (case.D, case.Dv)
    batch = Sequences(fill, case.q_lens, case.kv_lens, heads, dims, edges)
    FAMILIES[case.family](batch)

    rows, P = _rows(case, fill)
    table = fill.slab((len(rows), max(case.pages, default=0) + case.tail), torch.int32)
    slots, tokens, start = [], [], 0
    for b, row in enumerate(rows):
        table.write(torch.tensor(row, dtype=torch.int32), (b, slice(len(row))))
        kept = range(case.first_kept(b), case.kv_lens[b])
        slots += [row[j // S] * S + j % S for j in kept]
        tokens += [start + j for j in kept]
        start += case.kv_lens[b]
    caches = []
    for values in (batch.k, batch.v):
        cache = fill.slab((P * S, *values.shape[1:]), dtype)
        cache.write(values[tokens], torch.tensor(slots, dtype=torch.int64))
        caches.append(cache.tensor.view(P, S, *values.shape[1:]))
    args = {
        "q": fill.tensor(batch.q, dtype, case.layout),
        "k_cache": caches[0],
        "v_cache": caches[1],
        "block_table": table.tensor,
        "kv_lens": fill.ints(case.kv_lens),
        "q_indptr": fill.ints([0, *batch.q_ends]),
    }
    return args, {name: getattr(case, name) for name in ("causal", "scale", "window", "softcap")}


def _rows(case: Case, fill: Fill) -> tuple[list[list[int]], int]:
    """The pages of each sequence, and how many pages the pool has."""
    total = sum(case.pages) + case.spare
    order = fill.permutation(total).tolist()
    if case.table == "reversed":
        order = list(range(total - 1, -1, -1))
    ends = list(itertools.accumulate(case.pages))
    rows = [order[end - n : end] for n, end in zip(case.pages, ends, strict=True)]
    if case.table == "shared" and rows and rows[0]:
        rows = [[rows[0][0], *row[1:]] if row else row for row in rows]
    return rows, total


def reference(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_table: Tensor,
    kv_lens: Tensor,
    q_indptr: Tensor,
    causal: bool,
    scale: float | None,
    window: Window,
    softcap: float,
) -> Oracle:
    """One sequence after the other: gather its keys and values, then attend."""
    S, scale = k_cache.shape[1], 1 / math.sqrt(q.shape[2]) if scale is None else scale
    ends, parts = q_indptr.tolist(), []
    for b, kv_len in enumerate(kv_lens.tolist()):
        if ends[b] == ends[b + 1]:
            continue  # no queries, no rows
        pages = block_table[b, : -(-kv_len // S)].long()
        k = k_cache[pages].flatten(0, 1)[:kv_len]
        v = v_cache[pages].flatten(0, 1)[:kv_len]
        rows = q[ends[b] : ends[b + 1]]
        keep = keep_mask(len(rows), kv_len, causal, window, q.device)
        parts.append(attend(rows, k, v, keep, scale, softcap))
    return Oracle.concat(parts) if parts else Oracle.empty(q, v_cache)


def cost(case: Case) -> Cost:
    """Keys and values that some query keeps are read once (a shared page once), q and the tables
    once, out and lse written once; the flops are those of the pairs that the mask keeps."""
    e = getattr(torch, case.dtype).itemsize
    Hq, pairs, keys = case.Hk * case.G, 0, 0
    for b, (q_len, kv_len) in enumerate(zip(case.q_lens, case.kv_lens, strict=True)):
        keep = keep_mask(q_len, kv_len, case.causal, case.window, torch.device("cpu"))
        pairs += int(keep.sum())
        keys += kv_len - case.first_kept(b)
    if case.table == "shared":
        keys -= sum(min(case.S, n) for n in case.kv_lens[1:])
    T, width = sum(case.q_lens), case.D + case.Dv
    tables = 4 * (sum(case.pages) + 2 * len(case.kv_lens) + 1)
    moved = (T * Hq + max(keys, 0) * case.Hk) * width * e + 4 * T * Hq + tables
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
    **MASK_EDGES,
    "last page full": lambda c: any(n and n % c.S == 0 for n in c.kv_lens),
    "last page of one token": lambda c: c.S > 1 and any(n % c.S == 1 for n in c.kv_lens),
    "page larger than kv_len": lambda c: any(0 < n < c.S for n in c.kv_lens),
    "window that empties pages": lambda c: any(
        c.first_kept(b) >= c.S for b in range(len(c.q_lens))
    ),
    "pages reversed": lambda c: c.table == "reversed" and any(n > 1 for n in c.pages),
    "pages shared": lambda c: c.table == "shared" and sum(n > 0 for n in c.pages) > 1,
    "table tail unused": lambda c: c.tail > 0 and bool(c.q_lens),
}


def contents(call: Call) -> None:
    """Checked mode: the batch is described consistently, and no page outside the pool is read."""
    P, S, W = call.axes["P"], call.axes["S"], call.axes["W"]
    indptr, kv_lens = call.args["q_indptr"].tolist(), call.args["kv_lens"].tolist()
    if indptr[0] != 0 or indptr[-1] != call.axes["T"]:
        ends = f"{indptr[0]}..{indptr[-1]}"
        raise ValueError(f"paged_attention: q_indptr: is {ends}, must be 0..T = {call.axes['T']}")
    if any(a > b for a, b in itertools.pairwise(indptr)):
        raise ValueError("paged_attention: q_indptr: decreases")
    rows = call.args["block_table"].tolist()
    for b, kv_len in enumerate(kv_lens):
        if not 0 <= kv_len <= W * S:
            raise ValueError(
                f"paged_attention: kv_lens: [{b}] is {kv_len}, outside 0..{W * S} = W*S"
            )
        for page in rows[b][: -(-kv_len // S)]:
            if not 0 <= page < P:
                raise ValueError(
                    f"paged_attention: block_table: page {page} is outside [0, P = {P})"
                )


ERRORS = (
    *OPTION_ERRORS,
    Refusal("q_indptr from 1", put("q_indptr", 1, 0), ValueError, "must be 0..T", contents=True),
    Refusal("q_indptr falls", put("q_indptr", 9, 1), ValueError, "decreases", contents=True),
    Refusal("kv_len < 0", put("kv_lens", -1, 0), ValueError, "[0] is -1", contents=True),
    Refusal("kv_len > W*S", put("kv_lens", 13, 1), ValueError, "[1] is 13", contents=True),
    Refusal("page at P", put("block_table", 4, 0, 1), ValueError, "page 4", contents=True),
    Refusal("page < 0", put("block_table", -1, 0, 0), ValueError, "page -1", contents=True),
)

paged_attention = Op(
    name="paged_attention",
    signature=parse(
        "q: float[T,Hq,D], k_cache: float[P,S,Hk,D] contiguous, v_cache: float[P,S,Hk,Dv] "
        "contiguous, block_table: int32[B,W], kv_lens: int32[B], q_indptr: int32[B+1], *, "
        "causal=True, scale=None, window=(-1, -1), softcap=0.0 "
        "-> out: float[T,Hq,Dv], lse: float32[T,Hq]"
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
    comparison=judges,
    door=check_options,
    contents=contents,
)
