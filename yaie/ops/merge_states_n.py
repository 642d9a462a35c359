"""merge_states_n: join the attention over K disjoint sets of keys into attention over all.

The fold of merge_states, in any order: what split-KV decoding ends with, where each split left its
state. Formula and error budget: see _merge.py beside this page.

=======  ================  =======================================================================
states   float[K,T,H,D]    attention over each set; strides of K, T and H are free
lses     float32[K,T,H]    their natural log-sum-exps; -inf: it saw no key; strides of K, T are free
-> out   float[T,H,D]      attention over all; 0 where no set has a key
-> lse   float32[T,H]      -inf there
=======  ================  =======================================================================

A state whose lse is -inf is ignored, not multiplied by 0: its numbers may be NaN. K = 0 is legal
and gives the state of no keys, out = 0 and lse = -inf, which no merge feels; T = 0 is legal too.
Errors: shapes, strides, devices: ValueError; dtypes: TypeError. In checked mode an lse that is +inf
or NaN: ValueError.
Source: FlashInfer merge_states (states [T,K,H,D], base-2 lse), the combine kernels of
FlashAttention's split-KV and of vLLM's paged attention v2.
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
    """The K lses are about ``level``, the first ``gap`` above the others or, on a ``ladder``, each
    as far above the one before; ``empty`` says which states saw no key (_merge.EMPTY). ``pad`` lies
    between heads, ``spare`` tokens and heads behind those of a state; the states start ``shift``
    elements off the allocator's alignment."""

    K: int = at_least(0, default=3)
    T: int = at_least(0, default=4)
    H: int = at_least(1, default=2)
    D: int = at_least(1, default=8)
    dtype: str = one_of(FLOAT_NAMES, default="float16")
    empty: str = one_of(_merge.EMPTY, default="none")
    gap: float = 1.0
    level: float = 0.0
    ladder: bool = False
    pad: int = at_least(0, default=0)
    spare: int = at_least(0, default=0)
    shift: int = at_least(0, default=0)
    family: str = one_of(_merge.FAMILIES, default="normal")
    seed: int = at_least(0, default=0)


def inputs(case: Case, fill: Fill) -> tuple[dict[str, Any], dict[str, Any]]:
    """The numbers of a state that saw no key are poison."""
    shape, dtype = (case.K, case.T, case.H, case.D), getattr(torch, case.dtype)
    how = (case.family, case.empty, case.gap, case.level, dtype, case.ladder)
    drawn = _merge.draw(fill, shape, *how)
    memory = _merge.Memory(case.pad, case.spare, case.shift)
    states, lses = _merge.state(fill, *drawn, dtype, memory)
    return {"states": states, "lses": lses}, {}


def reference(states: Tensor, lses: Tensor) -> _merge.Merged:
    """In float64: _merge.merge."""
    return _merge.merge(states, lses)


def cost(case: Case) -> Cost:
    """Every state is read once, one is written."""
    rows = case.T * case.H
    moved = (case.K + 1) * rows * (case.D * getattr(torch, case.dtype).itemsize + 4)
    return Cost(bytes=moved, flops=2 * case.K * rows * case.D)


_LLAMA3_8B = Case(H=32, D=128, dtype="bfloat16")

WORKLOADS = {
    "llama3-8b decode, batch 1, 64 splits": replace(_LLAMA3_8B, K=64, T=1),
    "llama3-8b decode, batch 32, 8 splits": replace(_LLAMA3_8B, K=8, T=32),
    "llama3-8b decode, batch 256, 4 splits of ragged lengths": replace(
        _LLAMA3_8B, K=4, T=256, empty="some"
    ),
}

EDGES: dict[str, Callable[[Case], bool]] = {
    "no tokens": lambda c: c.T == 0,
    "more than 65,535 tokens": lambda c: c.T > 65_535,
    "no states": lambda c: c.K == 0 and c.T > 0,
    "one state": lambda c: c.K == 1 and c.empty == "none" and c.T > 0,
    "two states": lambda c: c.K == 2 and c.T > 0,
    "more than 64 states": lambda c: c.K > 64 and c.T > 0,
    "more than 1,024 states": lambda c: c.K > 1024 and c.T > 0,
    "first empty": lambda c: c.empty == "first" and c.K > 1 and c.T > 0,
    "last empty": lambda c: c.empty == "last" and c.K > 1 and c.T > 0,
    "all empty": lambda c: c.empty == "all" and c.K > 1 and c.T > 0,
    "some empty": lambda c: c.empty == "some" and c.K > 2 and c.T > 0,
    "gap 0": lambda c: c.gap == 0 and c.K > 1 and c.T > 0,
    "gap 80": lambda c: abs(c.gap) == 80 and c.K > 1 and c.T > 0,
    "gap 10,000": lambda c: abs(c.gap) == 1e4 and c.K > 1 and c.T > 0,
    "first far below the others": lambda c: c.gap <= -80 and not c.ladder and c.K > 1 and c.T > 0,
    "each far above the one before": lambda c: c.ladder and c.gap >= 80 and c.K > 4 and c.T > 0,
    "lse far from 0": lambda c: abs(c.level) >= 1000 and c.K > 1 and c.T > 0,
    "states that cancel": lambda c: c.family == "opposite" and c.K > 1 and c.T > 0,
    "head dim no multiple of 8": lambda c: c.D % 8 != 0 and c.K > 0 and c.T > 0,
    "head of more than 256 elements off alignment": lambda c: (
        c.D > 256 and c.shift % 2 == 1 and c.K > 1 and c.T > 0
    ),
    "head dim above 256": lambda c: c.D > 256 and c.K > 1 and c.T > 0,
    "values beyond float16's range": lambda c: (
        c.family == "scaled" and c.dtype == "bfloat16" and c.empty == "none" and min(c.K, c.T) > 0
    ),
    "rows that 32 bits cannot address": lambda c: c.pad * c.T * c.H * (c.K - 1) >= 1 << 31,
    "lse far below -100,000": lambda c: (
        c.level < -1e5 and abs(c.gap) < 100 and c.K > 1 and c.empty != "all" and c.T > 0
    ),
    "float16 values near both ends of its range": lambda c: (
        c.family == "scaled" and c.dtype == "float16" and c.empty == "none" and c.K > 1 and c.T > 0
    ),
    "many states of many tokens of many wide heads": lambda c: (
        c.K > 16 and c.T > 32 and c.H > 8 and c.D > 64
    ),
    "gaps between heads": lambda c: c.pad > 0 and c.K > 0 and c.T * c.H > 1,
    "more than 256 rows": lambda c: c.T * c.H > 256,
    "base off alignment": lambda c: (
        c.shift % 8 > 0 and c.D % 8 == c.pad == 0 and c.K > 1 and c.T > 0
    ),
    **_merge.edges(lambda c: c.H if c.K > 1 and c.T else 0),
}


def contents(call: Call) -> None:
    """Checked mode: no lse is +inf or NaN."""
    _merge.check_lse(call, "lses")


ERRORS = (
    Refusal("lse inf", put("lses", math.inf, 0, 0, 0), ValueError, "lses: inf", contents=True),
    Refusal("lse NaN", put("lses", math.nan, 2, 1, 1), ValueError, "lses: nan", contents=True),
)

merge_states_n = Op(
    name="merge_states_n",
    signature=parse(
        "states: float[K,T,H,D], lses: float32[K,T,H] -> out: float[T,H,D], lse: float32[T,H]"
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
