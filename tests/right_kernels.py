"""Right kernels that reckon as accepted ones do, each with the contract its author would declare:
varlen_attention in PyTorch, tile by tile. No judge may fail them (test_right_kernels.py).

The worker loads this module through YAIE_PLUGINS; a test process calls ``register``.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yaie import ops
from yaie.compare import Contract
from yaie.op import Call, Kernel
from yaie.ops._attention import keep_mask

State = tuple[Tensor, Tensor]
Product = Callable[[Tensor, Tensor], Tensor]
Sum = Callable[[Tensor], Tensor]
LOG2E = math.log2(math.e)
SLACK = 8.0
"""By how much, in powers of two, a maximum may lag behind before sums are rescaled."""


def last_axis_sum(x: Tensor) -> Tensor:
    """As PyTorch adds: by halves."""
    return x.sum(-1)


@dataclass(frozen=True)
class Style:
    """How a kernel reckons."""

    tile: int = 32
    splits: int = 1
    p_rounded: bool = False
    partials_in_dtype: bool = False
    product: Product = torch.matmul
    total: Sum = last_axis_sum


def attention(
    style: Style,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_indptr: Tensor,
    kv_indptr: Tensor,
    *,
    causal: bool,
    scale: float | None,
    window: tuple[int, int],
    **_: Any,
) -> State:
    """One sequence after the other; there is no softcap and no ALiBi."""
    out = q.new_empty(*q.shape[:2], v.shape[-1])
    lse = torch.empty(q.shape[:2])
    group = q.shape[1] // k.shape[1]
    ends = zip(*(itertools.pairwise(x.tolist()) for x in (q_indptr, kv_indptr)), strict=True)
    for (a, b), (c, d) in ends:
        keep = keep_mask(b - a, d - c, causal, window, q.device)
        heads = (x.float().transpose(0, 1) for x in (q[a:b], k[c:d], v[c:d]))
        query, key, value = heads
        key, value = (x.repeat_interleave(group, 0) for x in (key, value))
        factor = (q.shape[-1] ** -0.5 if scale is None else scale) * LOG2E
        states = [
            _online(style, query, key[:, s], value[:, s], keep[:, s], factor, q.dtype)
            for s in _cut(d - c, style.splits)
        ]
        o, level = _merged(states)
        out[a:b], lse[a:b] = o.transpose(0, 1).to(q.dtype), level.T / LOG2E
    return out, lse


def _cut(n: int, parts: int) -> list[slice]:
    """0 to n in about equal parts, one at least."""
    size = max(1, -(-n // parts))
    return [slice(a, min(n, a + size)) for a in range(0, max(n, 1), size)]


def _online(
    style: Style, q: Tensor, k: Tensor, v: Tensor, keep: Tensor, factor: float, dtype: torch.dtype
) -> State:
    """The state of some keys, its lse to base 2: an online softmax, of which the maximum lags."""
    most = q.new_full(q.shape[:2], -math.inf)
    total, o = torch.zeros_like(most), q.new_zeros(*q.shape[:2], v.shape[-1])
    for t in _cut(k.shape[1], -(-k.shape[1] // style.tile) or 1):
        s = (style.product(q, k[:, t].mT) * factor).masked_fill(~keep[:, t], -math.inf)
        if not s.shape[-1]:
            break
        new = torch.maximum(most, s.amax(-1))
        new = torch.where((new - most <= SLACK) & (most > -math.inf), most, new)
        base = new.masked_fill(new == -math.inf, 0.0)
        p, fade = torch.exp2(s - base[..., None]), torch.exp2(most - base)
        total = total * fade + style.total(p)
        p = p.to(dtype).float() if style.p_rounded else p
        o = o * fade[..., None] + style.product(p, v[:, t])
        most = new
    empty = total == 0
    o = torch.where(empty[..., None], 0.0, o / total[..., None])
    o = o.to(dtype).float() if style.partials_in_dtype else o
    return o, torch.where(empty, -math.inf, most + total.log2())


def _merged(states: list[State]) -> State:
    """Splits joined in float32."""
    outs, levels = (torch.stack(x) for x in zip(*states, strict=True))
    most = levels.amax(0)
    base = most.masked_fill(most == -math.inf, 0.0)
    weight = torch.exp2(levels - base)
    total = weight.sum(0)
    out = (weight[..., None] * outs).sum(0) / total.masked_fill(total == 0, 1.0)[..., None]
    return out, base + total.log2()


def tf32(x: Tensor) -> Tensor:
    """The leading 11 bits of each number."""
    return (x.contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32)


def one_tf32(a: Tensor, b: Tensor) -> Tensor:
    """A product of leading parts alone."""
    return tf32(a) @ tf32(b)


def three_tf32(a: Tensor, b: Tensor) -> Tensor:
    """Each operand in two parts, and of the four products the three that are not tiny."""
    a_rest, b_rest = (tf32(x - tf32(x)) for x in (a, b))
    return a_rest @ tf32(b) + tf32(a) @ b_rest + tf32(a) @ tf32(b)


def sum_in_order(x: Tensor) -> Tensor:
    """The sum of the last axis, one after the other: the least accurate order."""
    if not x.shape[-1]:
        return x.sum(-1)
    return torch.from_numpy(np.add.accumulate(x.numpy(), -1, np.float32)[..., -1].copy())


def product_in_order(a: Tensor, b: Tensor) -> Tensor:
    """Every element of the product is such a sum."""
    return sum_in_order(a[..., None, :] * b.mT[..., None, :, :])


def _serves(float32: bool, call: Call) -> str | None:
    if call.options["softcap"]:
        return "it has no softcap"
    return "serves float32" if float32 and call.dtype != torch.float32 else None


def _kernel(name: str, style: Style, contract: Contract, float32: bool = False) -> Kernel:
    run: Any = partial(attention, style)
    supports = partial(_serves, float32)
    return Kernel("varlen_attention", name, run, "cpu", contract, preference=-1, supports=supports)


RIGHT = (
    _kernel("right.flash", Style(p_rounded=True), Contract(p_rounded=True)),
    _kernel(
        "right.split", Style(splits=3, partials_in_dtype=True), Contract(partials_in_dtype=True)
    ),
    _kernel(
        "right.in_order",
        Style(tile=1 << 20, product=product_in_order, total=sum_in_order),
        Contract(),
        True,
    ),
    _kernel("right.tf32x3", Style(product=three_tf32), Contract(accumulator="tensor_core"), True),
)
UNDECLARED = (
    _kernel("undeclared.flash", Style(p_rounded=True), Contract()),
    _kernel("undeclared.tf32", Style(product=one_tf32), Contract(accumulator="tensor_core"), True),
)
"""As accurate as they are, and not as they say: the first may be declared, the second may not."""


def register() -> None:
    for kernel in (*RIGHT, *UNDECLARED):
        ops.get(kernel.op).register(kernel)


def unregister() -> None:
    for kernel in (*RIGHT, *UNDECLARED):
        ops.get(kernel.op).kernels.pop(kernel.name)


if __name__ in os.environ.get("YAIE_PLUGINS", "").split(","):
    register()
