"""radix_attention: the attention block of a layer, on a paged cache that requests may share.

    q, k, v = split(x @ wqkv)                        H*D columns of q, then of k, then of v
    q, k = rope(q, positions), rope(k, positions)    the rotated k is cached
    append_kv(k, v, slots)                           all tokens, before any attention
    y = paged_attention(q, ...) @ wo

"Radix" is not in the arithmetic: a radix cache chose block_table and kv_lens, so that a prefix that
another request has computed is read, not computed again. No norm, no bias and no residual: they are
the model's. The steps are the ops of those names, on their pages; projections sum in float32 and
are rounded to the dtype.

============  ===================  ==============================================================
x             float[T,E]           hidden states of the new tokens, packed; row stride free
wqkv          float[E,QKV]         QKV = (Hq + 2*Hk)*D; row stride free
wo            float[HqD,E]         HqD = Hq*D; Hq = G*Hk; row stride free
positions     int32[T]             token i of sequence b: kv_len - q_len + i; each in [0, M)
cos_sin       float32[M,R]         R/2 cosines, then R/2 sines; R even, 2 <= R <= D
k_cache       float[P,S,Hk,D]      mutated; contiguous
v_cache       float[P,S,Hk,D]      mutated; contiguous
slots         int32[T]             distinct where not negative; negative: cached before, not stored
block_table   int32[B,W]           as in paged_attention
kv_lens       int32[B]             keys of each sequence, those of this call included
q_indptr      int32[B+1]           tokens of sequence b are rows q_indptr[b] to q_indptr[b+1]
interleaved   False                as in rope; causal, scale, window, softcap as in paged_attention
-> y          float[T,E]
============  ===================  ==============================================================

Other slots keep their bits; what paged_attention never reads may be anything. B, T, q_len may be 0.
Errors: shapes, strides, devices, QKV, HqD, Hq % Hk, R, scale, softcap, window: ValueError; dtypes:
TypeError. In checked mode what rope, append_kv and paged_attention refuse, and positions that are
not kv_len - q_len + i: ValueError.
Source: SGLang RadixAttention; vLLM, nano-vllm and mini-sglang cache rotated keys too. Judged as a
chain: how far roundings carry, _block.py beside this page; what kernels use of it, decision 0022.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from yaie.fill import Fill
from yaie.op import Cost, Op, at_least, case, one_of
from yaie.ops import _attention as attention
from yaie.ops import _block as block
from yaie.ops import _paged as paged
from yaie.ops import _rope as rotary
from yaie.refusal import Refusal, change, put
from yaie.signature import FLOAT_NAMES, parse

FAMILIES = ("normal", "big", "aligned")
"""Hidden states near 1; near 3, so that scores lie far apart; all near one vector, so that all keys
are alike."""


@case
class Case:
    """Every ``skip``-th token is cached already (0: none), as is one whose slot an earlier token of
    the call writes (shared pages). ``gap`` lies between the rows of x, of the weights and of the
    tables; ``table``, ``spare``, ``tail`` and ``cache_shift`` as in paged_attention."""

    q_lens: tuple[int, ...] = (2,)
    kv_lens: tuple[int, ...] = (5,)
    S: int = at_least(1, default=4)
    Hk: int = at_least(1, default=1)
    G: int = at_least(1, default=1)
    D: int = at_least(2, default=8)
    E: int = at_least(1, default=16)
    R: int = at_least(2, default=8)
    M: int = at_least(1, default=16)
    dtype: str = one_of(FLOAT_NAMES, default="float16")
    interleaved: bool = False
    causal: bool = True
    window: attention.Window = (-1, -1)
    softcap: float = 0.0
    scale: float | None = None
    skip: int = at_least(0, default=0)
    gap: int = at_least(0, default=0)
    table: str = one_of(paged.TABLES, default="permuted")
    spare: int = at_least(0, default=1)
    tail: int = at_least(0, default=1)
    cache_shift: int = at_least(0, default=0)
    family: str = one_of(FAMILIES, default="normal")
    seed: int = at_least(0, default=0)

    def check(self) -> None:
        """Every token has a position, and every position a row of the table."""
        pairs = list(zip(self.q_lens, self.kv_lens, strict=False))
        if len(self.q_lens) != len(self.kv_lens) or any(not 0 <= q <= kv for q, kv in pairs):
            raise ValueError(f"q_lens is {self.q_lens} and kv_lens is {self.kv_lens}")
        if self.R % 2 or self.R > self.D or self.M < max(self.kv_lens, default=0):
            raise ValueError(f"R is {self.R}, D is {self.D} and M is {self.M}")

    def at(self) -> list[int]:
        """The position of each token."""
        pairs = zip(self.q_lens, self.kv_lens, strict=True)
        return [j for q_len, kv_len in pairs for j in range(kv_len - q_len, kv_len)]

    def slots(self, rows: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
        """The slot that each token writes, or a negative number; and the slots of keys that some
        query keeps and no token writes. ``rows`` are the pages of each sequence."""
        written: list[int] = []
        kept: set[int] = set()
        spans = attention.kept_keys(self.q_lens, self.kv_lens, self.window)
        for row, q_len, kv_len, keys in zip(rows, self.q_lens, self.kv_lens, spans, strict=True):
            own = [row[j // self.S] * self.S + j % self.S for j in range(kv_len)]
            for slot in own[kv_len - q_len :]:
                cached = slot in written or (self.skip and len(written) % self.skip == 0)
                written.append(-1 - slot if cached else slot)
            kept.update(own[keys.start : keys.stop])
        return written, sorted(kept - set(written))


def inputs(case: Case, fill: Fill) -> tuple[dict[str, Any], dict[str, Any]]:
    """The caches are poison but for earlier keys that some query keeps."""
    dtype, T, E = getattr(torch, case.dtype), sum(case.q_lens), case.E
    inner, outer = case.Hk * case.G * case.D, case.Hk * (case.G + 2) * case.D
    x = fill.normal(T, E)
    x = {"normal": x, "big": 3 * x, "aligned": 1 + 0.1 * x}[case.family]
    pages = [-(-n // case.S) for n in case.kv_lens]
    rows, P = paged.page_rows(fill, pages, case.spare, case.table)
    slots, cached = case.slots(rows)
    caches = []
    for _ in "kv":
        cache = fill.slab((P * case.S, case.Hk, case.D), dtype, case.cache_shift)
        cache.write(fill.normal(len(cached), case.Hk, case.D), torch.tensor(cached).long())
        caches.append(cache.tensor.view(P, case.S, case.Hk, case.D))
    return {
        "x": block.matrix(fill, x, dtype, case.gap),
        "wqkv": block.matrix(fill, fill.normal(E, outer) / math.sqrt(E), dtype, case.gap),
        "wo": block.matrix(fill, fill.normal(inner, E) / math.sqrt(inner), dtype, case.gap),
        "positions": fill.ints(case.at()),
        "cos_sin": rotary.table(fill, "angles", (case.M, case.R), case.at(), case.gap),
        "k_cache": caches[0],
        "v_cache": caches[1],
        "slots": fill.ints(slots),
        "block_table": paged.block_table(fill, rows, case.tail, case.gap),
        "kv_lens": fill.ints(case.kv_lens),
        "q_indptr": fill.ints([0, *itertools.accumulate(case.q_lens)]),
    }, {name: getattr(case, name) for name in ("interleaved", *attention.OPTIONS)}


def reference(k_cache: Tensor, v_cache: Tensor, **given: Any) -> block.Chain:
    """In float64: _block.chain; then its keys and values are stored."""
    chain = block.chain(k_cache=k_cache, v_cache=v_cache, **given)
    for cache, now in ((k_cache, chain.keys), (v_cache, chain.values)):
        cache.flatten(0, 1)[chain.rows] = now[chain.rows].to(cache.dtype)
    return chain


def cost(case: Case) -> Cost:
    """x, the weights, the tables and the earlier keys that some query keeps are read once; new keys
    and values, and y, are written once."""
    T, Hq = sum(case.q_lens), case.Hk * case.G
    kept = attention.kept_keys(case.q_lens, case.kv_lens, case.window)
    keys = paged.keys_read(kept, case.S, case.table == "shared" and case.kv_lens[:1] > (0,))
    weights = 2 * case.E * (Hq + case.Hk) * case.D if T else 0
    tables = case.R * len(set(case.at())) + 2 * T + 1
    tables += sum(-(-n // case.S) + 2 for n in case.kv_lens)
    pairs = attention.kept_pairs(case.q_lens, case.kv_lens, case.causal, case.window)
    moved = 2 * T * case.E + weights + 2 * keys * case.Hk * case.D
    moved *= getattr(torch, case.dtype).itemsize
    flops = 2 * T * weights + 3 * T * (Hq + case.Hk) * case.R + 4 * case.D * Hq * pairs
    return Cost(bytes=moved + 4 * tables, flops=flops)


_LLAMA3_8B = Case(S=16, Hk=8, G=4, D=128, E=4096, R=128, M=8192, dtype="bfloat16")

WORKLOADS = {
    "llama3-8b decode, batch 32, context 1k": replace(
        _LLAMA3_8B, q_lens=(1,) * 32, kv_lens=(1024,) * 32
    ),
    "llama3-8b prompt of 2048": replace(_LLAMA3_8B, q_lens=(2048,), kv_lens=(2048,)),
    "llama3-8b suffix of 128 after a cached prefix of 1920": replace(
        _LLAMA3_8B, q_lens=(128,), kv_lens=(2048,)
    ),
}


def _seven_after(cached: int) -> Callable[[Case], bool]:
    return lambda c: (7 - cached, 7) in zip(c.q_lens, c.kv_lens, strict=True)


EDGES: dict[str, Callable[[Case], bool]] = {
    "no sequences": lambda c: not c.q_lens,
    "no tokens": lambda c: bool(c.q_lens) and not sum(c.q_lens),
    **{f"7 tokens, {n} of them cached": _seven_after(n) for n in range(7)},
    "prefix in another's pages": lambda c: c.table == "shared" and sum(map(bool, c.kv_lens)) > 1,
    "tokens cached already": lambda c: c.skip > 1 and sum(c.q_lens) > 1,
    "all tokens cached already": lambda c: c.skip == 1 and sum(c.q_lens) > 0,
    "E differs from Hq*D": lambda c: c.E != c.Hk * c.G * c.D and sum(c.q_lens) > 0,
    "interleaved": lambda c: c.interleaved and c.R > 2 and sum(c.q_lens) > 0,
    "some numbers do not rotate": lambda c: c.R < c.D and sum(c.q_lens) > 0,
    "window": lambda c: c.window[0] >= 0 and sum(c.q_lens) > 0,
    "softcap": lambda c: c.softcap > 0 and sum(c.q_lens) > 0,
    "no causal mask": lambda c: not c.causal and any(n > 1 for n in c.q_lens),
    "rows with gaps": lambda c: c.gap > 0 and sum(c.q_lens) > 1,
}

ERRORS = (
    *rotary.TABLE_ERRORS,
    *paged.BATCH_ERRORS,
    *attention.SCORE_ERRORS,
    Refusal("HqD % D", change("wo", lambda w: w[:31]), ValueError, "wo: HqD is 31"),
    Refusal("Hq % Hk", change("wo", lambda w: w[:24]), ValueError, "Hq is 3"),
    Refusal("QKV", change("wqkv", lambda w: w[:, :63]), ValueError, "wqkv: QKV is 63"),
    Refusal("slot at P*S", put("slots", 16, 0), ValueError, "slots: 16", contents=True),
    Refusal("slot twice", put("slots", 5), ValueError, "used twice", contents=True),
    Refusal("position", put("positions", 1, 0), ValueError, "[0] is 1, must be 3", contents=True),
)

radix_attention = Op(
    name="radix_attention",
    signature=parse(
        "x: float[T,E], wqkv: float[E,QKV], wo: float[HqD,E], positions: int32[T], "
        "cos_sin: float32[M,R], k_cache!: float[P,S,Hk,D] contiguous, v_cache!: float[P,S,Hk,D] "
        "contiguous, slots: int32[T], block_table: int32[B,W], kv_lens: int32[B], "
        "q_indptr: int32[B+1], *, interleaved=False, causal=True, scale?: float=None, "
        "window=(-1, -1), softcap=0.0 -> y: float[T,E]"
    ),
    Case=Case,
    inputs=inputs,
    reference=reference,
    cost=cost,
    workloads=WORKLOADS,
    edges=EDGES,
    errors=ERRORS,
    good=Case(q_lens=(2, 1), kv_lens=(5, 3), Hk=2, G=2, R=4),
    doc=__doc__ or "",
    comparison=block.judges,
    door=block.check_shapes,
    contents=block.check_contents,
    chain_of=("rope", "append_kv", "paged_attention"),
)
