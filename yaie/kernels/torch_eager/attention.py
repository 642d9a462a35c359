"""Attention in plain vectorised PyTorch."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def paged_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_table: Tensor,
    kv_lens: Tensor,
    q_indptr: Tensor,
    *,
    causal: bool,
    scale: float | None,
    window: tuple[int, int],
    softcap: float,
) -> tuple[Tensor, Tensor]:
    """Pad every query row to the longest sequence, attend in float32, round once.

    Rows of the padded score matrix are queries, not sequences, so one batched product serves
    decode, prefill and mixed batches alike.
    """
    tokens, heads, dim = q.shape
    page_size, kv_heads = k_cache.shape[1:3]
    group = heads // kv_heads
    rows = torch.arange(tokens, device=q.device)
    sequence = torch.searchsorted(q_indptr[1:].long(), rows, right=True)
    kv_len = kv_lens.long()[sequence]
    position = kv_len - (q_indptr.long()[sequence + 1] - rows)

    longest = int(kv_lens.max()) if kv_lens.numel() else 0
    key = torch.arange(longest, device=q.device)
    first = (position - window[0]).clamp_min(0) if window[0] >= 0 else torch.zeros_like(position)
    last = kv_len
    if window[1] >= 0:
        last = torch.minimum(last, position + 1 + window[1])
    if causal:
        last = torch.minimum(last, position + 1)
    keep = (key >= first[:, None]) & (key < last[:, None])  # [T,N]

    # Unkept positions gather slot 0 and are cleared: what stands there may be anything.
    page = block_table[:, : -(-longest // page_size)].long()[sequence]
    slot = page.repeat_interleave(page_size, 1)[:, :longest] * page_size + key % page_size
    slot = torch.where(keep, slot, 0)
    k = _gather(k_cache, slot, keep)  # [T,N,Hk,D]
    v = _gather(v_cache, slot, keep)

    grouped = q.float().reshape(tokens, kv_heads, group, dim)
    score = torch.einsum("thgd,tnhd->thgn", grouped, k)
    score = score * (1 / math.sqrt(dim) if scale is None else scale)
    if softcap > 0:
        score = torch.tanh(score / softcap) * softcap
    score = score.masked_fill(~keep[:, None, None, :], -math.inf)
    # Not exp(score - lse): the rounding of a large lse would scale every weight of the row.
    most = score.amax(-1, keepdim=True) if longest else score.new_zeros(*score.shape[:-1], 1)
    weight = torch.exp(score - most.clamp_min(-3e38))
    total = weight.sum(-1, keepdim=True)
    out = torch.einsum("thgn,tnhd->thgd", weight, v) / total.clamp_min(1e-30)
    lse = (most + total.log())[..., 0]
    return out.reshape(tokens, heads, v_cache.shape[-1]).to(q.dtype), lse.reshape(tokens, heads)


def _gather(cache: Tensor, slot: Tensor, keep: Tensor) -> Tensor:
    """Float32 rows of the cache at ``slot``, zero where not kept."""
    flat = cache.flatten(0, 1)
    if not flat.shape[0]:
        return flat.new_zeros(*slot.shape, *flat.shape[1:], dtype=torch.float32)
    return torch.where(keep[..., None, None], flat[slot].float(), 0.0)
