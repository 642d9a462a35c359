"""rope: rotary position embedding of packed queries or keys.

Every head of token t is rotated by row ``positions[t]`` of a table of cosines and sines; pairs and
formula: see _rope.py beside this page. Queries and keys are two calls.

===========  ==============  =====================================================================
x            float[T,H,D]    packed over the batch; strides of T and H are free
positions    int32[T]        in any order, repeats allowed; each in [0, M)
cos_sin      float32[M,R]    R/2 cosines, then R/2 sines; R even, 2 <= R <= D; row stride free
interleaved  False           pairs (2i, 2i+1) as in GPT-J, else (i, i + R/2) as in GPT-NeoX, Llama
-> y         float[T,H,D]    a new tensor, of the dtype of x
===========  ==============  =====================================================================

Numbers R to D-1 of a head are those of x, bit for bit. Rows of the table that no position names are
never read. T = 0 is legal.
Errors: shapes, strides, devices, R odd, R < 2 or R > D: ValueError; dtypes: TypeError. In checked
mode a position outside [0, M): ValueError.
Source: Su et al. 2021 (RoFormer), section 3.4.2, in pairs (2i, 2i+1); vLLM rotary_embedding (table
of cosines and sines, both kinds of pairs; rotates in place), FlashInfer apply_rope_pos_ids (which
can also compute the angles itself: in float32 they are off by 0.007 rad at position 131,000).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from yaie.compare import Comparison, Contract
from yaie.fill import FAR, LAYOUTS, Fill
from yaie.op import Call, Cost, Op, at_least, case, one_of
from yaie.ops import _rope as rotary
from yaie.signature import FLOAT_NAMES, parse

FAMILIES = ("normal", "big", "tiny", "one-hot")
"""Near 1; in the thousands; below float16's smallest normal; one number of each head alone."""


@case
class Case:
    """T tokens whose positions are chosen as ``positions`` says (_rope.POSITIONS) below M; a row of
    the table holds R numbers of kind ``table`` (_rope.TABLES), then a gap of ``table_gap``."""

    T: int = at_least(0, default=4)
    H: int = at_least(1, default=2)
    D: int = at_least(2, default=8)
    R: int = at_least(2, default=8)
    M: int = at_least(0, default=16)
    dtype: str = one_of(FLOAT_NAMES, default="float16")
    interleaved: bool = False
    positions: str = one_of(rotary.POSITIONS, default="random")
    table: str = one_of(rotary.TABLES, default="angles")
    table_gap: int = at_least(0, default=0)
    layout: str = one_of((*LAYOUTS, FAR), default="dense")
    family: str = one_of(FAMILIES, default="normal")
    seed: int = at_least(0, default=0)

    def check(self) -> None:
        """Pairs fit into a head; a token has a position."""
        if self.R % 2 or self.R > self.D:
            raise ValueError(f"R is {self.R}, must be even and at most D = {self.D}")
        if self.T and not self.M:
            raise ValueError("M is 0, a token needs a position")

    def at(self) -> list[int]:
        """The position of each token."""
        return rotary.positions(self.positions, self.T, self.M, self.seed)


def inputs(case: Case, fill: Fill) -> tuple[dict[str, Any], dict[str, Any]]:
    """Rows of the table that no token uses are poison."""
    x = fill.normal(case.T, case.H, case.D)
    if case.family == "big":
        x = x * 2.0**10
    elif case.family == "tiny":
        x = x * 2.0**-22
    elif case.family == "one-hot":
        hot = torch.arange(case.T * case.H).view(case.T, case.H) % case.D
        x = x * torch.nn.functional.one_hot(hot, case.D)
    used = case.at()
    return {
        "x": fill.tensor(x, getattr(torch, case.dtype), case.layout),
        "positions": fill.ints(used),
        "cos_sin": rotary.table(fill, case.table, (case.M, case.R), used, case.table_gap),
    }, {"interleaved": case.interleaved}


def reference(x: Tensor, positions: Tensor, cos_sin: Tensor, interleaved: bool) -> rotary.Rotated:
    """In float64: _rope.rotate."""
    return rotary.rotate(x, positions, cos_sin, interleaved)


def comparison(expected: rotary.Rotated, call: Call, contract: Contract) -> dict[str, Comparison]:
    """The budget of y; nothing is allowed where nothing rotates."""
    assert call.dtype is not None
    return {"y": rotary.budget(expected, call.dtype)}


def cost(case: Case) -> Cost:
    """x is read and y written once, the table once for each distinct position."""
    elements, rows = case.T * case.H * case.D, len(set(case.at()))
    moved = 2 * elements * getattr(torch, case.dtype).itemsize + 4 * (case.R * rows + case.T)
    return Cost(bytes=moved, flops=3 * case.T * case.H * case.R)


_LLAMA3_8B = Case(H=32, D=128, R=128, M=8192, dtype="bfloat16", positions="ascending")
_LLAMA3_8B_QK = replace(_LLAMA3_8B, H=40, M=32768, positions="random")  # side by side, one call

WORKLOADS = {
    "llama3-8b queries, decode, batch 256": replace(_LLAMA3_8B, T=256, positions="random"),
    "llama3-8b queries, prefill, 8192 tokens": replace(_LLAMA3_8B, T=8192),
    "llama3-8b keys, prefill, 8192 tokens": replace(_LLAMA3_8B, T=8192, H=8),
    "llama3-8b queries and keys, 256 tokens": replace(_LLAMA3_8B_QK, T=256),
    "llama3-8b queries and keys, 2048 tokens": replace(_LLAMA3_8B_QK, T=2048),
    "llama3-8b queries and keys, 16384 tokens": replace(_LLAMA3_8B_QK, T=16384),
    "gpt-neox-20b queries, 2048 tokens": replace(_LLAMA3_8B, T=2048, H=64, D=96, R=24, M=2048),
    "gpt-j-6b queries, 2048 tokens": replace(
        _LLAMA3_8B, T=2048, H=16, D=256, R=64, M=2048, interleaved=True
    ),
}

EDGES: dict[str, Callable[[Case], bool]] = {
    "no tokens": lambda c: c.T == 0,
    "more than 65,535 tokens": lambda c: c.T > 65_535,
    "no tokens, no table": lambda c: c.M == 0,
    "R = 2": lambda c: c.R == 2 and c.T > 0,
    "R = D": lambda c: c.R == c.D and c.T > 0,
    "some numbers do not rotate": lambda c: c.R < c.D and c.T > 0,
    "D odd": lambda c: c.D % 2 == 1 and c.T > 0,
    "interleaved": lambda c: c.interleaved and c.R > 2 and c.T > 0,
    "position 0": lambda c: 0 in c.at(),
    "position M - 1": lambda c: c.M > 1 and c.M - 1 in c.at(),
    "positions repeated": lambda c: len(set(c.at())) < c.T,
    "positions descending": lambda c: c.positions == "descending" and 1 < c.T <= c.M,
    "position beyond 16 bits": lambda c: max(c.at(), default=0) > 1 << 16,
    "a table that 32 bits cannot address": lambda c: (
        max(c.at(), default=0) * (c.R + c.table_gap) > 1 << 31
    ),
    "head dim above 256": lambda c: c.D > 256 and c.T > 0,
    "table of no angles": lambda c: c.table == "normal" and c.T > 0,
    "table rows with gaps": lambda c: c.table_gap > 0 and c.T > 1,
    "fused qkv view": lambda c: c.layout == "fused" and c.T > 0,
    "base off alignment": lambda c: c.layout == "shifted" and c.T > 0,
    "stride 0": lambda c: c.layout == "broadcast" and c.T > 0 and c.H > 1,
    "more than 256 tokens": lambda c: c.T > 256,
    "more than 16 heads": lambda c: c.H > 16 and c.T > 0,
    "more than 64 heads": lambda c: c.H > 64 and c.T > 0,
    "more than 64 wide heads": lambda c: c.H > 64 < c.R and c.T > 0,
    "tokens that 32 bits cannot address": lambda c: c.layout == FAR and c.T > 1,
    "many tokens of many wide heads": lambda c: (
        c.T > 128 and c.H > 8 and c.R > 64 and max(c.at()) > 1024
    ),
    "aligned table rows with gaps": lambda c: (
        c.R % 8 == 0 and c.table_gap > 0 and c.table_gap % 4 == 0 and c.T > 1
    ),
}

ERRORS = rotary.TABLE_ERRORS

rope = Op(
    name="rope",
    signature=parse(
        "x: float[T,H,D], positions: int32[T], cos_sin: float32[M,R], *, interleaved=False "
        "-> y: float[T,H,D]"
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
    contents=rotary.check_positions,
)
