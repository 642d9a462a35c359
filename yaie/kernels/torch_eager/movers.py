"""Data movers in plain vectorised PyTorch."""

from __future__ import annotations

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
