"""Data movers in plain vectorised PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor


def append_kv(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor) -> None:
    """Scatter the tokens that are not skipped."""
    stored = (slots >= 0).nonzero()[:, 0]
    at = slots[stored].long()
    for values, cache in ((k, k_cache), (v, v_cache)):
        cache.flatten(0, 1).index_copy_(0, at, values[stored])


def copy_blocks(caches: list[Tensor], pairs: Tensor) -> None:
    """Gather the source pages, then scatter them."""
    src, dst = pairs[:, 0].long(), pairs[:, 1].long()
    for cache in caches:
        cache.index_copy_(0, dst, cache.index_select(0, src))


def gather_slots(
    block_table: Tensor,
    kv_indptr: Tensor,
    kv_start: Tensor | None,
    *,
    page_size: int,
    total: int,
) -> Tensor:
    """Find the sequence of every row at once, then its position, page and slot."""
    return _slots(block_table, kv_indptr, kv_start, page_size, total).int()


def gather_kv(
    k_cache: Tensor,
    v_cache: Tensor,
    block_table: Tensor,
    kv_indptr: Tensor,
    kv_start: Tensor | None,
    *,
    total: int,
) -> tuple[Tensor, Tensor]:
    """Select the rows of the caches, seen as one row a slot."""
    at = _slots(block_table, kv_indptr, kv_start, k_cache.shape[1], total)
    return k_cache.flatten(0, 1).index_select(0, at), v_cache.flatten(0, 1).index_select(0, at)


def _slots(
    block_table: Tensor, kv_indptr: Tensor, kv_start: Tensor | None, page_size: int, total: int
) -> Tensor:
    """The slot of each of ``total`` rows, int64."""
    row = torch.arange(total, device=kv_indptr.device)
    first = kv_indptr[:-1].long()
    sequence = torch.bucketize(row, kv_indptr[1:].long(), right=True)
    shift = -first if kv_start is None else kv_start - first
    position = row + shift[sequence]
    page = block_table[sequence, position // page_size].long()
    return page * page_size + position % page_size
