"""merge_states: join the attention over two disjoint sets of keys into attention over both.

What cascade attention (a shared prefix and each sequence's own suffix) and split-KV decoding end
with. Formula and error budget: see _merge.py beside this page.

=======  ==============  =========================================================================
a        float[T,H,D]    attention over the first set; strides of T and H are free
lse_a    float32[T,H]    its natural log-sum-exp; -inf: it saw no key; stride of T is free
b        float[T,H,D]    attention over the second set, likewise
lse_b    float32[T,H]    likewise
-> out   float[T,H,D]    attention over both; 0 where neither saw a key
-> lse   float32[T,H]    -inf there
=======  ==============  =========================================================================

A side whose lse is -inf is ignored, not multiplied by 0: its numbers may be NaN. T = 0 is legal.
Errors: shapes, strides, devices: ValueError; dtypes: TypeError. In checked mode an lse that is +inf
or NaN: ValueError.
Source: FlashInfer merge_state (base-2 lse; its Python reference gives NaN where both sides are
empty), vLLM merge_attn_states (lse is [H,T]). FlashAttention 2 marks a row without keys by
lse = +inf, which is refused here: convert it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from yaie.fill import Fill
from yaie.op import Call, Cost, Op, at_least, case, one_of
from yaie.ops import _merge
from yaie.refusal import Refusal, put
from yaie.signature import FLOAT_NAMES, parse


@case
class Case:
    """lse_a and lse_b are about ``level``, lse_a ``gap`` above lse_b; ``empty`` says which side saw
    no key (_merge.EMPTY). ``pad`` lies between heads, ``spare`` tokens and heads behind those of a
    buffer; ``b_pad`` and ``b_spare`` are those of b (-1: as for a). The sides start ``a_shift`` and
    ``b_shift`` elements off the allocator's alignment."""

    T: int = at_least(0, default=4)
    H: int = at_least(1, default=2)
    D: int = at_least(1, default=8)
    dtype: str = one_of(FLOAT_NAMES, default="float16")
    empty: str = one_of(_merge.EMPTY, default="none")
    gap: float = 1.0
    level: float = 0.0
    pad: int = at_least(0, default=0)
    b_pad: int = at_least(-1, default=-1)
    spare: int = at_least(0, default=0)
    b_spare: int = at_least(-1, default=-1)
    a_shift: int = at_least(0, default=0)
    b_shift: int = at_least(0, default=0)
    family: str = one_of(_merge.FAMILIES, default="normal")
    seed: int = at_least(0, default=0)

    @property
    def sides(self) -> tuple[_merge.Memory, _merge.Memory]:
        """How a and b lie in memory."""
        pad = self.pad if self.b_pad < 0 else self.b_pad
        spare = self.spare if self.b_spare < 0 else self.b_spare
        a = _merge.Memory(self.pad, self.spare, self.a_shift)
        return a, _merge.Memory(pad, spare, self.b_shift)


def inputs(case: Case, fill: Fill) -> tuple[dict[str, Any], dict[str, Any]]:
    """The numbers of a side that saw no key are poison."""
    shape, dtype = (2, case.T, case.H, case.D), getattr(torch, case.dtype)
    how = (case.family, case.empty, case.gap, case.level, dtype)
    states, lses = _merge.draw(fill, shape, *how)
    a, lse_a = _merge.state(fill, states[0], lses[0], dtype, case.sides[0])
    b, lse_b = _merge.state(fill, states[1], lses[1], dtype, case.sides[1])
    return {"a": a, "lse_a": lse_a, "b": b, "lse_b": lse_b}, {}


def reference(a: Tensor, lse_a: Tensor, b: Tensor, lse_b: Tensor) -> _merge.Merged:
    """In float64: _merge.merge."""
    return _merge.merge(torch.stack([a, b]), torch.stack([lse_a, lse_b]))


def cost(case: Case) -> Cost:
    """Both states are read once, one is written."""
    rows = case.T * case.H
    moved = 3 * rows * (case.D * getattr(torch, case.dtype).itemsize + 4)
    return Cost(bytes=moved, flops=3 * rows * case.D)


_LLAMA3_8B = Case(H=32, D=128, dtype="bfloat16")

WORKLOADS = {
    "llama3-8b decode, shared prefix, batch 256": replace(_LLAMA3_8B, T=256),
    "llama3-8b chunk of 8192": replace(_LLAMA3_8B, T=8192),
    "llama3-8b chunk of 8192, half without prefix": replace(_LLAMA3_8B, T=8192, empty="some"),
}

EDGES: dict[str, Callable[[Case], bool]] = {
    "no tokens": lambda c: c.T == 0,
    "more than 65,535 tokens": lambda c: c.T > 65_535,
    "a empty": lambda c: c.empty == "first" and c.T > 0,
    "b empty": lambda c: c.empty == "last" and c.T > 0,
    "both empty": lambda c: c.empty == "all" and c.T > 0,
    "another side for each row": lambda c: c.empty == "some" and c.T * c.H > 4,
    "gap 0": lambda c: c.gap == 0 and c.empty == "none" and c.T > 0,
    "gap 1": lambda c: abs(c.gap) == 1 and c.empty == "none" and c.T > 0,
    "gap 80": lambda c: abs(c.gap) == 80 and c.empty == "none" and c.T > 0,
    "gap 10,000": lambda c: abs(c.gap) == 1e4 and c.empty == "none" and c.T > 0,
    "b far above a": lambda c: c.gap <= -80 and c.empty == "none" and c.T > 0,
    "lse far from 0": lambda c: abs(c.level) >= 1000 and c.empty != "all" and c.T > 0,
    "sides that cancel": lambda c: c.family == "opposite" and c.empty == "none" and c.T > 0,
    "head dim no multiple of 8": lambda c: c.D % 8 != 0 and c.T > 0,
    "head dim above 256": lambda c: c.D > 256 and c.T > 0,
    "values beyond float16's range": lambda c: (
        c.family == "scaled" and c.dtype == "bfloat16" and c.empty == "none" and c.T > 0
    ),
    "gaps between heads": lambda c: c.pad > 0 and c.T * c.H > 1,
    "rows that 32 bits cannot address": lambda c: c.pad * c.H * (c.T - 1) >= 1 << 31,
    "lse far below -100,000": lambda c: (
        c.level < -1e5 and abs(c.gap) < 100 and c.empty != "all" and c.T > 0
    ),
    "float16 values near both ends of its range": lambda c: (
        c.family == "scaled" and c.dtype == "float16" and c.empty == "none" and c.T > 0
    ),
    "many tokens of many wide heads": lambda c: c.T > 64 and c.H > 8 and c.D > 64,
    "b off alignment": lambda c: c.b_shift > 0 and c.T > 0,
    "a alone off alignment": lambda c: (
        c.a_shift % 8 > 0 and c.D % 8 == c.pad == c.b_shift == 0 and c.T > 0
    ),
    "b alone off alignment": lambda c: (
        c.b_shift % 8 > 0 and c.D % 8 == c.pad == c.a_shift == 0 and c.T > 0
    ),
    "a and b laid out unlike": lambda c: (
        c.sides[0].gap != c.sides[1].gap
        and c.sides[0].spare != c.sides[1].spare
        and min(c.T, c.H) > 1
    ),
    "a and b of one pitch of heads but not of tokens": lambda c: (
        c.sides[0].gap == c.sides[1].gap
        and c.sides[0].spare != c.sides[1].spare
        and min(c.T, c.H) > 1
    ),
    **_merge.edges(lambda c: c.H if c.T else 0),
    "more than 256 rows": lambda c: c.T * c.H > 256,
}


def contents(call: Call) -> None:
    """Checked mode: no lse is +inf or NaN."""
    _merge.check_lse(call, "lse_a", "lse_b")


ERRORS = (
    Refusal("lse_a inf", put("lse_a", math.inf, 0, 0), ValueError, "lse_a: inf", contents=True),
    Refusal("lse_b NaN", put("lse_b", math.nan, 1, 1), ValueError, "lse_b: nan", contents=True),
)

merge_states = Op(
    name="merge_states",
    signature=parse(
        "a: float[T,H,D], lse_a: float32[T,H], b: float[T,H,D], lse_b: float32[T,H] "
        "-> out: float[T,H,D], lse: float32[T,H]"
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
    comparison=_merge.judges,
    contents=contents,
)
