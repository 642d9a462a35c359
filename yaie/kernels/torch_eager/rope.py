"""Rotary position embedding in plain vectorised PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from yaie.kernels.torch_eager import movers


def rope(x: Tensor, positions: Tensor, cos_sin: Tensor, *, interleaved: bool) -> Tensor:
    """Slice a head into the two sides of its pairs, turn them, put them together again."""
    turning = cos_sin.shape[1]
    cos, sin = cos_sin.index_select(0, positions)[:, None].chunk(2, -1)  # [T,1,R/2]
    part = x[..., :turning].float()
    a, b = (part[..., ::2], part[..., 1::2]) if interleaved else part.chunk(2, -1)
    sides = [a * cos - b * sin, b * cos + a * sin]
    turned = torch.stack(sides, -1).flatten(-2) if interleaved else torch.cat(sides, -1)
    return torch.cat([turned.to(x.dtype), x[..., turning:]], -1)


def rope_append_kv(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    positions: Tensor,
    cos_sin: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slots: Tensor,
    *,
    interleaved: bool,
) -> Tensor:
    """Rotate q and k, then store k and v."""
    turned = rope(k, positions, cos_sin, interleaved=interleaved)
    movers.append_kv(turned, v, k_cache, v_cache, slots)
    return rope(q, positions, cos_sin, interleaved=interleaved)
