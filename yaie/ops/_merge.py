"""The one merge of partial attention states that merge_states and merge_states_n share.

A state is what attention over a part of the keys gives: out [T,H,D] and its natural log-sum-exp
[T,H]. Attention over all parts, which are disjoint, is::

    lse = log sum_k exp(lse_k)          out = sum_k a_k out_k,  a_k = exp(lse_k - lse)

A state with lse_k = -inf saw no key: its numbers are ignored, not multiplied by 0, and may be
anything. If every state of a row is like that, out = 0 and lse = -inf.

Error budget. K states are merged in n = max(K - 1, 1) steps. One error within a bound e stays
within it; n independent ones, each of standard deviation e / sqrt(3), stay together within
G e = min(n, LAMBDA sqrt(n / 3)) e. With u the unit roundoff of the dtype, v = 2^-24 of float32::

    |out - o| <= u max(|o|, smallest normal)                                    output rounding
               + 13 v G sum_k a_k |out_k|                                       arithmetic
               + v G (2 |lse| |o| + sum_k a_k |out_k - o| (|lse_k| + |lse| + 2 |lse_k - lse|))

    |lse - lse64| <= v G (8 + 4 |lse|)

Arithmetic: the exponentials of a weight and of the sum that divides it are off by 4 v each (2 ulp),
a logarithm by 2 v, a product, two sums and a division by v at most, not all in one kernel. Rounding
of lse: a kernel that divides by exp(lse), and not by the sum of its weights, scales the whole row
by the rounding of lse; one that works to base 2 rounds each lse_k when it converts it, which moves
its weight by v |lse_k|, and a difference of two by twice v |lse_k - lse|; what moves from one state
to another changes out by their distance. Kernels of both kinds are in use (FlashAttention,
FlashInfer): decision 0021. Nothing is allowed for a state that hardly counts: a weight taken as
1 less the other one, or a mixture b + a_1 (a - b), is off by v |a - b| however small a_1 is, which
fails in float32 where the lighter state holds the larger numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yaie.compare import LAMBDA, ROUNDING, U32, Budget, Comparison, Contract, unit_roundoff
from yaie.fill import Fill, scaled
from yaie.op import Call

FAMILIES = ("normal", "big", "biased", "opposite", "equal", "scaled", "balanced")
"""Magnitudes near 1; in the thousands; around 2, of one sign; of alternating sign from state to
state, so that they cancel; every state alike, so that out is that state; columns large and small by
turns, as far as the dtype reaches; the larger the less a state weighs, so that all count alike."""
BALANCED = {torch.float16: 18.0, torch.bfloat16: 60.0, torch.float32: 60.0}
"""How far apart lses may lie whose states balance each other: what float16's range allows; well
within where float32 holds a weight."""
EMPTY = ("none", "first", "last", "all", "some")
"""Which states of a row saw no key; "some": another set for each row."""


@dataclass(frozen=True)
class Merged:
    """The float64 answer, and what its budget needs. [T,H,D] or [T,H]"""

    out: Tensor
    lse: Tensor
    states: int
    """K"""
    weighted: Tensor
    """sum_k a_k |out_k|"""
    moved: Tensor
    """sum_k a_k |out_k - out| (|lse_k| + |lse| + 2 |lse_k - lse|)"""


def merge(states: Tensor, lses: Tensor) -> Merged:
    """states [K,T,H,D] and lses [K,T,H] into one, in float64."""
    lses = lses.double()
    seen = lses != -math.inf
    states = states.double().masked_fill(~seen[..., None], 0.0)
    lse = torch.logsumexp(lses, 0)  # -inf where no state saw a key, and for K = 0
    level, own = (x.masked_fill(x == -math.inf, 0.0) for x in (lse, lses))
    weight = (own - level).exp().masked_fill(~seen, 0.0)[..., None]  # [K,T,H,1]
    out = (weight * states).sum(0)
    reach = own.abs() + level.abs() + 2 * (own - level).abs()
    return Merged(
        out=out,
        lse=lse,
        states=len(states),
        weighted=(weight * states.abs()).sum(0),
        moved=(weight * (states - out).abs() * reach[..., None]).sum(0),
    )


def judges(merged: Merged, call: Call, contract: Contract) -> dict[str, Comparison]:
    """The budgets of out and lse."""
    assert call.dtype is not None
    steps = max(merged.states - 1, 1)
    unit = U32 * min(steps, LAMBDA * math.sqrt(steps / 3))
    tiny = torch.finfo(call.dtype).smallest_normal
    level = merged.lse.abs()
    some = (merged.lse != -math.inf).double()[..., None]  # a row without keys is exactly 0
    known = level.masked_fill(level == math.inf, 0.0)[..., None]
    out = Budget(
        expected=merged.out,
        terms={
            ROUNDING: unit_roundoff(call.dtype) * merged.out.abs().clamp_min(tiny) * some,
            "arithmetic": 13 * unit * merged.weighted,
            "rounding of lse": unit * (2 * known * merged.out.abs() + merged.moved),
        },
    )
    lse = Budget(
        expected=merged.lse,
        terms={"lse rounding": unit * 4 * level, "weights": torch.full_like(level, 8 * unit)},
    )
    return {"out": out, "lse": lse}


def draw(
    fill: Fill,
    shape: tuple[int, int, int, int],
    family: str,
    empty: str,
    gap: float,
    level: float,
    dtype: torch.dtype,
    ladder: bool = False,
) -> tuple[Tensor, Tensor]:
    """States [K,T,H,D] and lses [K,T,H] before rounding: about ``level``, the first state ``gap``
    above the others or, on a ladder, each state as far above the one before."""
    K, T, H, _ = shape
    states = fill.normal(*shape)
    if family == "big":
        states = states * 1000.0
    elif family == "biased":
        states = states + 2.0
    elif family == "scaled":
        states = scaled(states, dtype)
    elif family in ("opposite", "equal") and K:
        sign = (-1.0 if family == "opposite" else 1.0) ** torch.arange(K)
        states = states[0] * sign[:, None, None, None]
    lses = level + torch.from_numpy(fill.rng.standard_normal((K, T, H), np.float32))
    if gap == 0:
        lses = lses[:1].expand(K, T, H).clone()
    if ladder:
        lses += gap * torch.arange(K)[:, None, None]
    else:
        lses[:1] += gap
    if family == "balanced":
        states = _balanced(states, lses, BALANCED[dtype])
    no_key = torch.zeros(K, T, H, dtype=torch.bool)
    if empty == "some":
        no_key = torch.from_numpy(fill.rng.random((K, T, H)) < 0.4)
    else:
        no_key[{"none": slice(0), "first": slice(1), "last": slice(-1, None)}.get(empty)] = True
    return states, lses.masked_fill(no_key, -math.inf)


def _balanced(states: Tensor, lses: Tensor, most: float) -> Tensor:
    """What state k adds, exp(lse_k) out_k, is about the same for all, as far as they lie no more
    than ``most`` below the largest lse."""
    if not len(lses):
        return states
    behind = (lses.amax(0) - lses).clamp_max(most)
    return states.clamp(-3.9, 3.9) * (behind - most / 2).exp()[..., None]


@dataclass(frozen=True)
class Memory:
    """How a state lies: ``gap`` elements between two heads, and between two rows of its lse;
    ``spare`` tokens and heads behind those in use; ``shift`` elements off the allocator's
    alignment."""

    gap: int = 0
    spare: int = 0
    shift: int = 0


def state(
    fill: Fill, values: Tensor, lse: Tensor, dtype: torch.dtype, memory: Memory
) -> tuple[Tensor, Tensor]:
    """One or several states and their lses; the numbers of those that saw no key, and all that lies
    between and behind, are poison."""
    T, H = lse.shape[-2:]
    shape = (*lse.shape[:-2], T + memory.spare, H + memory.spare)
    seen = (lse != -math.inf).nonzero().unbind(1)
    slab = fill.rows((*shape, values.shape[-1]), dtype, memory.gap, memory.shift)
    slab.write(values[seen], seen)
    lses = fill.rows(shape, torch.float32, memory.gap)
    lses.write(lse, (..., slice(T), slice(H)))
    return slab.tensor[..., :T, :H, :], lses.tensor[..., :T, :H]


def edges(heads: Callable[[Any], int]) -> dict[str, Callable[[Any], bool]]:
    """Edges of a Case of ``heads`` heads, 0 where it has nothing to merge."""

    def counts(gap: float) -> Callable[[Any], bool]:
        return lambda c: (
            c.family == "balanced"
            and abs(c.gap) == gap
            and c.empty == "none"
            and heads(c) > 0
            and (gap < BALANCED[torch.float16] or c.dtype != "float16")
        )

    return {
        **{f"a light state that counts, gap {gap}": counts(gap) for gap in (16, 21, 30, 50)},
        "slices of larger buffers": lambda c: c.spare > 0 and c.T > 1 and heads(c) > 1,
        "more than 64 heads": lambda c: heads(c) > 64,
        "more than 64 wide heads": lambda c: heads(c) > 64 < c.D,
    }


def check_lse(call: Call, *names: str) -> None:
    """Checked mode: a log-sum-exp is a number or -inf."""
    for name in names:
        lse = call.args[name]
        wrong = lse[lse.isnan() | (lse == math.inf)]
        if wrong.numel():
            raise ValueError(f"{call.op}: {name}: {float(wrong[0])} is no log-sum-exp")
