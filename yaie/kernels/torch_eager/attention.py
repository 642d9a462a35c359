"""Attention in plain vectorised PyTorch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from yaie.kernels.torch_eager import rope as rotary


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
    alibi: None = None,
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


def varlen_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_indptr: Tensor,
    kv_indptr: Tensor,
    *,
    causal: bool,
    scale: float | None,
    window: tuple[int, int],
    softcap: float,
    alibi: None = None,
) -> tuple[Tensor, Tensor]:
    """All queries against all keys of the batch in one product; keys of other sequences are masked
    like those that a query may not see. Attend in float32, round once."""
    (tokens, heads, dim), (keys, kv_heads, _) = q.shape, k.shape
    group = heads // kv_heads
    q_owner, k_owner = _owners(q_indptr, tokens), _owners(kv_indptr, keys)
    # Counted from the end of its sequence, a query stands as far from it as its position says.
    q_back = q_indptr.long()[q_owner + 1] - torch.arange(tokens, device=q.device)
    k_back = kv_indptr.long()[k_owner + 1] - torch.arange(keys, device=q.device)
    ahead = q_back[:, None] - k_back[None, :]  # [T,N]: how far the key is ahead of the query
    keep = q_owner[:, None] == k_owner[None, :]
    if causal:
        keep &= ahead <= 0
    if window[0] >= 0:
        keep &= ahead >= -window[0]
    if window[1] >= 0:
        keep &= ahead <= window[1]

    used = keep.any(0)[:, None, None]  # what stands elsewhere may be anything
    k, v = (torch.where(used, x.float(), 0.0) for x in (k, v))
    scale = dim**-0.5 if scale is None else scale
    score = torch.einsum("thgd,nhd->thgn", q.float().reshape(tokens, kv_heads, group, dim), k)
    score = score * scale
    if softcap > 0:
        score = softcap * (score / softcap).tanh()
    score = torch.where(keep[:, None, None, :], score, -math.inf)
    most = score.amax(-1) if keys else score.new_full(score.shape[:-1], -math.inf)
    weight = (score - most.clamp_min(-3e38)[..., None]).exp()
    total = weight.sum(-1)
    out = torch.einsum("thgn,nhd->thgd", weight, v) / total.clamp_min(1e-30)[..., None]
    lse = most + total.log()
    return out.reshape(tokens, heads, v.shape[-1]).to(q.dtype), lse.reshape(tokens, heads)


def merge_states(a: Tensor, lse_a: Tensor, b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """The share of a side is a sigmoid of how far its lse is above the other's."""
    apart = (lse_a - lse_b)[..., None]  # NaN where both are -inf, not used then
    no_a, no_b = (lse == -math.inf for lse in (lse_a, lse_b))
    mixed = a.float() * torch.sigmoid(apart) + b.float() * torch.sigmoid(-apart)
    out = torch.where(no_b[..., None], a.float(), mixed)
    out = torch.where(no_a[..., None], b.float(), out)
    out = torch.where((no_a & no_b)[..., None], 0.0, out)
    return out.to(a.dtype), torch.logaddexp(lse_a, lse_b)


def merge_states_n(states: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
    """One softmax over the states."""
    shape, seen = lses.shape[1:], lses > -math.inf
    if not len(states):
        return states.new_zeros(states.shape[1:]), lses.new_full(shape, -math.inf)
    most = lses.amax(0)
    weight = torch.where(seen, (lses - most).exp(), 0.0)
    total = weight.sum(0)
    values = torch.where(seen[..., None], states.float(), 0.0)
    out = torch.einsum("kth,kthd->thd", weight, values) / total.clamp_min(1.0)[..., None]
    return out.to(states.dtype), most + total.log()


def radix_attention(
    x: Tensor,
    wqkv: Tensor,
    wo: Tensor,
    positions: Tensor,
    cos_sin: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slots: Tensor,
    block_table: Tensor,
    kv_lens: Tensor,
    q_indptr: Tensor,
    *,
    interleaved: bool,
    **options: Any,
) -> Tensor:
    """Project, rotate, store, attend and project, by the functions of these modules."""
    kv_heads, dim = k_cache.shape[2:]
    heads = wo.shape[0] // dim
    qkv = _projected(x, wqkv).reshape(len(x), heads + 2 * kv_heads, dim)
    q, k, v = torch.split(qkv, [heads, kv_heads, kv_heads], 1)
    q = rotary.rope_append_kv(
        q, k, v, positions, cos_sin, k_cache, v_cache, slots, interleaved=interleaved
    )
    out, _ = paged_attention(q, k_cache, v_cache, block_table, kv_lens, q_indptr, **options)
    return _projected(out.flatten(1), wo)


def _projected(x: Tensor, weight: Tensor) -> Tensor:
    """x @ weight, summed in float32 and rounded once."""
    return (x.float() @ weight.float()).to(x.dtype)


def _owners(indptr: Tensor, rows: int) -> Tensor:
    """The sequence of each packed row."""
    lengths = indptr.long().diff()
    sequences = torch.arange(len(lengths), device=indptr.device)
    return torch.repeat_interleave(sequences, lengths, output_size=rows)


def _gather(cache: Tensor, slot: Tensor, keep: Tensor) -> Tensor:
    """Float32 rows of the cache at ``slot``, zero where not kept."""
    flat = cache.flatten(0, 1)
    if not flat.shape[0]:
        return flat.new_zeros(*slot.shape, *flat.shape[1:], dtype=torch.float32)
    return torch.where(keep[..., None, None], flat[slot].float(), 0.0)
