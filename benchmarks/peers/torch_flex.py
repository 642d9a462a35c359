"""torch's flex_attention, compiled: the only dense peer that has a softcap.

It stands beside varlen_attention alone: compiling takes seconds a shape."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from benchmarks.peers.batches import Attention, Group, Mask
from benchmarks.peers.torch_sdpa import HALF, ON_TENSOR_CORES, Limits, further, register_dense
from yaie.op import Call

RECOMPILED = 64
"""Head counts, dimensions and masks of a run; beyond torch's limit it would run uncompiled."""


COMPILED: set[Hashable] = set()
"""Shapes and options that were."""
BLOCK_MASKS: WeakKeyDictionary[Mask, Any] = WeakKeyDictionary()
ONE_KERNEL = {"FORCE_USE_FLEX_ATTENTION": True}
"""Its kernel for few queries does not take every group of heads."""


class Flexible(Limits):
    """With a softcap, in dimensions that its templates take."""

    def declines(self, call: Call) -> str | None:
        """None for a call that it serves, else the reason."""
        if others := further(call):
            return f"this attention has no {min(others)}"
        dim = call.axes["D"]
        if call.dtype not in HALF or dim != call.axes["Dv"] or dim not in (64, 128, 256):
            return "serves half precision with D = Dv of 64, 128 and 256"
        return None


@functools.cache
def compiled() -> Callable[..., Any]:
    """The kernel, compiled for each shape."""
    from torch.nn.attention.flex_attention import flex_attention

    torch._dynamo.config.recompile_limit = RECOMPILED
    return torch.compile(flex_attention, dynamic=False)


def block_mask_of(group: Group, q_len: int, kv_len: int, how: Attention, device: Any) -> Any:
    """As long as the group's mask lives: a recorded CUDA graph reads it."""
    mask = group.mask
    if mask not in BLOCK_MASKS:
        BLOCK_MASKS[mask] = block_mask((q_len, kv_len, mask.first), how, device)
    return BLOCK_MASKS[mask]


def block_mask(shape: tuple[int, int, int], how: Attention, device: torch.device) -> Any:
    """Which blocks of keys each block of queries keeps: ``shape`` holds the queries, the keys, and
    the position of the first query among them. A part of the plan, like every mask."""
    from torch.nn.attention.flex_attention import create_block_mask

    q_len, kv_len, offset = shape
    left, right = how.window
    right = 0 if how.causal else right

    def keep(b: Tensor, h: Tensor, q: Tensor, n: Tensor) -> Tensor:
        distance = n - (q + offset)
        kept = distance <= (right if right >= 0 else kv_len)
        return kept & (distance >= (-left if left >= 0 else -q_len - kv_len))

    return create_block_mask(keep, None, None, q_len, kv_len, device=device)


@functools.cache
def capped(softcap: float) -> Callable[..., Tensor] | None:
    """The change of a score, one function for each softcap: a new one would compile anew."""
    if not softcap:
        return None
    return lambda score, b, h, q, n: softcap * torch.tanh(score / softcap)


def flex(q: Tensor, k: Tensor, v: Tensor, group: Group, how: Attention) -> tuple[Tensor, Tensor]:
    """A group through flex_attention."""
    mask = None
    if group.mask.keep is not None:
        mask = block_mask_of(group, q.shape[1], k.shape[1], how, q.device)
    heads = tuple(x.transpose(1, 2) for x in (q, k, v))
    options = {"score_mod": capped(how.softcap), "block_mask": mask, "scale": how.scale}
    options |= {"enable_gqa": True, "return_lse": True, "kernel_options": ONE_KERNEL}
    key = (*(x.shape for x in heads), q.dtype, mask is None, how)
    if key not in COMPILED:
        with torch._C.DisableTorchFunction():  # what compiling and tuning allocate is not judged
            compiled()(*heads, **options)
        COMPILED.add(key)
    out, lse = compiled()(*heads, **options)
    return out.transpose(1, 2), lse.transpose(1, 2)


def register() -> None:
    """Register flex_attention where torch has it."""
    register_dense(
        "torch.flex", flex, "cuda", Flexible(), ON_TENSOR_CORES, names=("varlen_attention",)
    )
