"""append_kv: store the keys and values of new tokens in their cache slots.

``k_cache[slots[t]] = k[t]`` and ``v_cache[slots[t]] = v[t]`` for every t with ``slots[t] >= 0``,
where slot = page * S + offset addresses the cache as ``[P*S, Hk, D]``. A negative slot skips its
token. The copy is one of bits: NaN payloads and the sign of zero survive.

=========  ================  =====================================================================
k          float[T,Hk,D]     keys of the new tokens; strides of T and Hk are free
v          float[T,Hk,Dv]    values, likewise
k_cache    float[P,S,Hk,D]   mutated; contiguous
v_cache    float[P,S,Hk,Dv]  mutated; contiguous
slots      int32[T]          distinct where not negative, below P*S
=========  ================  =====================================================================

Every other slot keeps its bits. T = 0 and all-skipped are legal and change nothing.
Errors: shapes, strides, devices: ValueError; dtypes: TypeError. In checked mode a slot >= P*S and a
repeated non-negative slot: ValueError (peers race silently).
Source: vLLM reshape_and_cache_flash (slot_mapping, -1 skips); FlashInfer append_paged_kv_cache
takes (batch_indices, positions) instead, SGLang set_kv_buffer and mini-sglang store_cache take
slots.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from yaie.fill import FAR, LAYOUTS, Fill
from yaie.op import Call, Cost, Op, at_least, case, one_of
from yaie.ops import _append as append
from yaie.ops import _paged as paged
from yaie.refusal import Refusal, put
from yaie.signature import FLOAT_NAMES, parse


@case
class Case:
    """T tokens into P pages of S slots; every ``skip``-th token is skipped (0: none). k lies in
    memory as ``layout`` says; k_cache starts ``cache_shift`` elements off the allocator's
    alignment, v_cache ``v_cache_shift`` (-1: as many)."""

    T: int = at_least(0, default=4)
    P: int = at_least(0, default=3)
    S: int = at_least(1, default=4)
    Hk: int = at_least(1, default=2)
    D: int = at_least(1, default=8)
    Dv: int = at_least(1, default=8)
    dtype: str = one_of(FLOAT_NAMES, default="float16")
    skip: int = at_least(0, default=0)
    layout: str = one_of((*LAYOUTS, FAR), default="dense")
    v_layout: str = one_of(append.OTHER_LAYOUTS, default=append.ALIKE)
    cache_shift: int = at_least(0, default=0)
    v_cache_shift: int = at_least(-1, default=-1)
    family: str = one_of(("normal", "bits"), default="normal")
    seed: int = at_least(0, default=0)

    def check(self) -> None:
        """Slots are distinct, so there are as many as tokens."""
        if self.T > self.P * self.S:
            raise ValueError(f"T is {self.T}, more than the P*S = {self.P * self.S} slots")


def inputs(case: Case, fill: Fill) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tokens, and room for them (_append.room)."""
    dtype, room = getattr(torch, case.dtype), append.room(fill, case)
    k_layout, v_layout = append.layouts(case, "v")
    draw = fill.bits if case.family == "bits" else lambda shape, _: fill.normal(*shape)
    return {
        "k": fill.tensor(draw((case.T, case.Hk, case.D), dtype), dtype, k_layout),
        "v": fill.tensor(draw((case.T, case.Hk, case.Dv), dtype), dtype, v_layout),
        **room,
    }, {}


def reference(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor) -> None:
    """Every token that is not skipped goes to its page, at its offset there."""
    stored, page_size = slots >= 0, k_cache.shape[1]
    at = slots[stored].long()
    k_cache[at // page_size, at % page_size] = k[stored]
    v_cache[at // page_size, at % page_size] = v[stored]


def cost(case: Case) -> Cost:
    """Each stored token is read and written once; a skipped one costs its slot."""
    skipped = -(-case.T // case.skip) if case.skip else 0
    token = case.Hk * (case.D + case.Dv) * getattr(torch, case.dtype).itemsize
    return Cost(bytes=2 * (case.T - skipped) * token + 4 * case.T)


WORKLOADS = {
    "llama3-8b decode, batch 256": Case(T=256, P=2048, S=16, Hk=8, D=128, Dv=128, dtype="bfloat16"),
    "llama3-8b prefill, 16384 tokens": Case(
        T=16384, P=2048, S=16, Hk=8, D=128, Dv=128, dtype="bfloat16"
    ),
    "qwen3 decode, padded batch": Case(
        T=128, P=1024, S=16, Hk=8, D=128, Dv=128, dtype="bfloat16", skip=4
    ),
}

EDGES = {
    "more elements than 32 bits address": lambda c: c.T > 0 and c.P * c.S * c.Hk * c.D >= 1 << 31,
    "no tokens": lambda c: c.T == 0,
    "more than 65,535 tokens": lambda c: c.T > 65_535 and c.skip != 1,
    "all skipped": lambda c: c.T > 0 and c.skip == 1,
    "some skipped": lambda c: c.T > 1 and c.skip > 1,
    "cache full to the last slot": lambda c: c.T == c.P * c.S > 0 and not c.skip,
    "NaN payloads": lambda c: c.family == "bits" and c.T > 0,
    "fused qkv view": lambda c: c.layout == "fused" and c.T > 0,
    "base of k off alignment": lambda c: c.layout == "shifted" and c.T > 0,
    "base of the caches off alignment": lambda c: c.cache_shift > 0 and c.T > 0,
    "stride 0": lambda c: c.layout == "broadcast" and c.T > 0 and c.Hk > 1,
    "more than 128 tokens": lambda c: c.T > 128,
    "slots beyond 16 bits": lambda c: c.P * c.S > 1 << 16 and c.T > 0,
    "page size 1": lambda c: c.S == 1,
    "page size no power of two": lambda c: c.S & (c.S - 1) != 0,
    "head dims above 256": lambda c: min(c.D, c.Dv) > 256 and c.T > 0 and c.skip != 1,
    "Dv differs from D": lambda c: c.Dv != c.D,
    "tokens that 32 bits cannot address": lambda c: c.layout == FAR and c.T > 1 and c.skip != 1,
    "many tokens of many wide heads": lambda c: (
        c.T > 128 and c.Hk > 8 and min(c.D, c.Dv) > 64 and c.S > 32 and c.skip != 1
    ),
    **append.edges("k", "v"),
}


def contents(call: Call) -> None:
    """Checked mode: slots below P*S, none used twice."""
    paged.check_slots(call)


ERRORS = (
    Refusal("slot at P*S", put("slots", 12), ValueError, "slots: 12", contents=True),
    Refusal("slot used twice", put("slots", 5), ValueError, "used twice", contents=True),
)

append_kv = Op(
    name="append_kv",
    signature=parse(
        "k: float[T,Hk,D], v: float[T,Hk,Dv], k_cache!: float[P,S,Hk,D] contiguous, "
        "v_cache!: float[P,S,Hk,Dv] contiguous, slots: int32[T] -> None"
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
    contents=contents,
)
