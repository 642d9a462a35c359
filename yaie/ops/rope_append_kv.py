"""rope_append_kv: rotate the queries and keys of new tokens, and store keys and values.

What a layer does between its projection and its attention, in one pass: ``q_out = rope(q)``,
``k_cache[slots[t]] = rope(k)[t]`` and ``v_cache[slots[t]] = v[t]`` for every t with
``slots[t] >= 0``, where slot = page * S + offset addresses the caches as ``[P*S, Hk, D]``. It is
the *rotated* key that is cached, so attention needs no positions. Pairs and formula: see _rope.py
beside this page.

===========  ================  ===================================================================
q            float[T,Hq,D]     queries of the new tokens; strides of T and Hq are free
k            float[T,Hk,D]     their keys, likewise
v            float[T,Hk,Dv]    their values, likewise; copied bit for bit
positions    int32[T]          each in [0, M), also those of skipped tokens
cos_sin      float32[M,R]      R/2 cosines, then R/2 sines; R even, 2 <= R <= D; row stride free
k_cache      float[P,S,Hk,D]   mutated; contiguous
v_cache      float[P,S,Hk,Dv]  mutated; contiguous
slots        int32[T]          distinct where not negative, below P*S; negative: nothing is stored
interleaved  False             pairs (2i, 2i+1), else (i, i + R/2)
-> q_out     float[T,Hq,D]     the rotated queries, of skipped tokens too
===========  ================  ===================================================================

Every other slot keeps its bits; numbers R to D-1 of a head are moved bit for bit. Rows of the table
that no position names are never read. Hq and Hk are independent here. T = 0 is legal.
Errors: shapes, strides, devices, R odd, R < 2 or R > D: ValueError; dtypes: TypeError. In checked
mode a position outside [0, M), a slot >= P*S and a repeated non-negative slot: ValueError.
Source: rope and append_kv, whose pages name theirs; the fusion is that of FlashInfer
rope_quantize_fp8_append_paged_kv_cache and vLLM's fused rope and cache kernels, without the
quantisation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from yaie.compare import Comparison, Contract, Written
from yaie.fill import FAR, LAYOUTS, Fill
from yaie.op import Call, Cost, Op, at_least, case, one_of
from yaie.ops import _append as append
from yaie.ops import _paged as paged
from yaie.ops import _rope as rotary
from yaie.refusal import Refusal, put
from yaie.signature import FLOAT_NAMES, parse


@case
class Case:
    """T tokens into P pages of S slots; every ``skip``-th token is skipped (0: none). Positions and
    table as on the page of rope; ``family`` "bits" fills v with random bits. ``layout`` is that of
    q; ``cache_shift`` and ``v_cache_shift`` as in append_kv."""

    T: int = at_least(0, default=4)
    P: int = at_least(0, default=3)
    S: int = at_least(1, default=4)
    Hq: int = at_least(1, default=2)
    Hk: int = at_least(1, default=2)
    D: int = at_least(2, default=8)
    Dv: int = at_least(1, default=8)
    R: int = at_least(2, default=8)
    M: int = at_least(0, default=16)
    dtype: str = one_of(FLOAT_NAMES, default="float16")
    interleaved: bool = False
    positions: str = one_of(rotary.POSITIONS, default="random")
    table: str = one_of(rotary.TABLES, default="angles")
    table_gap: int = at_least(0, default=0)
    skip: int = at_least(0, default=0)
    layout: str = one_of((*LAYOUTS, FAR), default="dense")
    k_layout: str = one_of(append.OTHER_LAYOUTS, default=append.ALIKE)
    v_layout: str = one_of(append.OTHER_LAYOUTS, default=append.ALIKE)
    cache_shift: int = at_least(0, default=0)
    v_cache_shift: int = at_least(-1, default=-1)
    family: str = one_of(("normal", "bits"), default="normal")
    seed: int = at_least(0, default=0)

    def check(self) -> None:
        """Pairs fit into a head; a token has a position and a slot of its own."""
        if self.R % 2 or self.R > self.D:
            raise ValueError(f"R is {self.R}, must be even and at most D = {self.D}")
        if self.T and not self.M:
            raise ValueError("M is 0, a token needs a position")
        if self.T > self.P * self.S:
            raise ValueError(f"T is {self.T}, more than the P*S = {self.P * self.S} slots")

    def at(self) -> list[int]:
        """The position of each token."""
        return rotary.positions(self.positions, self.T, self.M, self.seed)


def inputs(case: Case, fill: Fill) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tokens, room for them (_append.room), a table that is poison where no token needs it."""
    dtype, used, room = getattr(torch, case.dtype), case.at(), append.room(fill, case)
    q_layout, k_layout, v_layout = append.layouts(case, "k", "v")
    v_shape = (case.T, case.Hk, case.Dv)
    v = fill.bits(v_shape, dtype) if case.family == "bits" else fill.normal(*v_shape)
    return {
        "q": fill.tensor(fill.normal(case.T, case.Hq, case.D), dtype, q_layout),
        "k": fill.tensor(fill.normal(case.T, case.Hk, case.D), dtype, k_layout),
        "v": fill.tensor(v, dtype, v_layout),
        "positions": fill.ints(used),
        "cos_sin": rotary.table(fill, case.table, (case.M, case.R), used, case.table_gap),
        **room,
    }, {"interleaved": case.interleaved}


@dataclass(frozen=True)
class Expected:
    """The rotated queries, and the rotated keys of the tokens that are stored at ``rows``."""

    q: rotary.Rotated
    k: rotary.Rotated
    rows: Tensor


def reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    positions: Tensor,
    cos_sin: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slots: Tensor,
    interleaved: bool,
) -> Expected:
    """In float64: _rope.rotate; then every token goes to its page, at its offset there."""
    stored = slots >= 0
    keys = rotary.rotate(k[stored], positions[stored], cos_sin, interleaved)
    rows, page_size = slots[stored].long(), k_cache.shape[1]
    k_cache[rows // page_size, rows % page_size] = keys.y.to(k_cache.dtype)
    v_cache[rows // page_size, rows % page_size] = v[stored]
    return Expected(rotary.rotate(q, positions, cos_sin, interleaved), keys, rows)


def comparison(expected: Expected, call: Call, contract: Contract) -> dict[str, Comparison]:
    """Budgets for the queries and for the keys that were stored; values must be exact."""
    assert call.dtype is not None
    return {
        "q_out": rotary.budget(expected.q, call.dtype),
        "k_cache": Written(expected.rows, rotary.budget(expected.k, call.dtype)),
    }


def cost(case: Case) -> Cost:
    """q, and k and v of the stored tokens, are read and written once; the table is read once for
    each distinct position, and positions and slots once."""
    skipped = -(-case.T // case.skip) if case.skip else 0
    stored, queries = case.T - skipped, case.T * case.Hq * case.D
    moved = queries + stored * case.Hk * (case.D + case.Dv)
    tables = 4 * (case.R * len(set(case.at())) + 2 * case.T)
    return Cost(
        bytes=2 * moved * getattr(torch, case.dtype).itemsize + tables,
        flops=3 * (case.T * case.Hq + stored * case.Hk) * case.R,
    )


_LLAMA3_8B = Case(Hq=32, Hk=8, D=128, Dv=128, R=128, M=32768, P=2048, S=16, dtype="bfloat16")

WORKLOADS = {
    "llama3-8b decode, batch 256": replace(_LLAMA3_8B, T=256),
    "llama3-8b prefill, 2048 tokens": replace(_LLAMA3_8B, T=2048, positions="ascending"),
    "llama3-8b prefill, 16384 tokens": replace(_LLAMA3_8B, T=16384, positions="ascending"),
    "llama3-8b decode, padded batch": replace(_LLAMA3_8B, T=256, skip=4),
}

EDGES: dict[str, Callable[[Case], bool]] = {
    "more elements than 32 bits address": lambda c: c.T > 0 and c.P * c.S * c.Hk * c.D >= 1 << 31,
    "no tokens": lambda c: c.T == 0,
    "more than 65,535 tokens": lambda c: c.T > 65_535 and c.skip != 1,
    "all skipped": lambda c: c.T > 0 and c.skip == 1,
    "more than 64 query heads, some tokens skipped": lambda c: c.Hq > 64 and 1 < c.skip < c.T,
    "some skipped": lambda c: c.T > 1 and c.skip > 1,
    "cache full to the last slot": lambda c: c.T == c.P * c.S > 0 and not c.skip,
    "NaN payloads in v": lambda c: c.family == "bits" and c.T > 0,
    "some numbers do not rotate": lambda c: c.R < c.D and c.T > 0,
    "R = 2": lambda c: c.R == 2 and c.T > 0,
    "interleaved": lambda c: c.interleaved and c.R > 2 and c.T > 0,
    "position 0": lambda c: 0 in c.at(),
    "position M - 1": lambda c: c.M > 1 and c.M - 1 in c.at(),
    "positions repeated": lambda c: len(set(c.at())) < c.T,
    "table rows with gaps": lambda c: c.table_gap > 0 and c.T > 1,
    "more query heads than KV heads": lambda c: c.Hq > c.Hk and c.T > 0,
    "head dims above 256": lambda c: min(c.D, c.Dv) > 256 and c.T > 0 and c.skip != 1,
    "Dv differs from D": lambda c: c.Dv != c.D and c.T > 0,
    "tokens that 32 bits cannot address": lambda c: c.layout == FAR and c.T > 1 and c.skip != 1,
    "many tokens of many wide heads": lambda c: (
        c.T > 128 and min(c.Hq, c.Hk) > 8 and min(c.R, c.Dv) > 64 and c.skip != 1
    ),
    "fused qkv view": lambda c: c.layout == "fused" and c.T > 0,
    "bases of the caches off alignment": lambda c: c.cache_shift > 0 and c.T > 0,
    "slots beyond 16 bits": lambda c: c.P * c.S > 1 << 16 and c.T > 0,
    "page size no power of two": lambda c: c.S & (c.S - 1) != 0 and c.T > 0,
    "more than 128 tokens": lambda c: c.T > 128,
    **append.edges("q", "k", "v"),
    "more than 64 query heads": lambda c: c.Hq > 64 and c.T > 0 and c.skip != 1,
    "heads of llama3-8b": lambda c: (
        (c.Hq, c.Hk, c.D, c.Dv, c.R) == (32, 8, 128, 128, 128) and c.T > 1 and c.skip != 1
    ),
}


def contents(call: Call) -> None:
    """Checked mode: positions in the table; slots below P*S, none used twice."""
    rotary.check_positions(call)
    paged.check_slots(call)


ERRORS = (
    *rotary.TABLE_ERRORS,
    Refusal("slot at P*S", put("slots", 12), ValueError, "slots: 12", contents=True),
    Refusal("slot used twice", put("slots", 5), ValueError, "used twice", contents=True),
)

rope_append_kv = Op(
    name="rope_append_kv",
    signature=parse(
        "q: float[T,Hq,D], k: float[T,Hk,D], v: float[T,Hk,Dv], positions: int32[T], "
        "cos_sin: float32[M,R], k_cache!: float[P,S,Hk,D] contiguous, v_cache!: float[P,S,Hk,Dv] "
        "contiguous, slots: int32[T], *, interleaved=False -> q_out: float[T,Hq,D]"
    ),
    Case=Case,
    inputs=inputs,
    reference=reference,
    cost=cost,
    workloads=WORKLOADS,
    edges=EDGES,
    errors=ERRORS,
    good=Case(R=4),
    doc=__doc__ or "",
    comparison=comparison,
    door=rotary.check_table,
    contents=contents,
)
