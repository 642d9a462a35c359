"""The kernels that move keys and values, and RoPE."""

from __future__ import annotations

import torch
from torch import Tensor

from yaie.op import Call

from .face import Launcher
from .variant import Variant, ints


def _append_kv(
    launch: Launcher, k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor
) -> None:
    launch(k, v, k_cache, v_cache, slots)


def _copy_blocks(launch: Launcher, caches: list[Tensor], pairs: Tensor) -> None:
    if caches:
        launch(caches, pairs)


def _gather_kv(
    launch: Launcher,
    k_cache: Tensor,
    v_cache: Tensor,
    block_table: Tensor,
    kv_indptr: Tensor,
    kv_start: Tensor | None,
    total: int,
) -> tuple[Tensor, Tensor]:
    k, v = (
        torch.empty(total, *cache.shape[2:], dtype=cache.dtype, device=cache.device)
        for cache in (k_cache, v_cache)
    )
    start = kv_indptr[:0] if kv_start is None else kv_start
    launch(k, v, k_cache, v_cache, block_table, kv_indptr, start)
    return k, v


def _gather_slots(
    launch: Launcher,
    block_table: Tensor,
    kv_indptr: Tensor,
    kv_start: Tensor | None,
    page_size: int,
    total: int,
) -> Tensor:
    slots = ints(block_table, total)
    start = kv_indptr[:0] if kv_start is None else kv_start
    launch(slots, block_table, kv_indptr, start, page_size)
    return slots


def _rope(
    launch: Launcher, x: Tensor, positions: Tensor, cos_sin: Tensor, interleaved: bool
) -> Tensor:
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    launch(y, x, positions, cos_sin, interleaved)
    return y


def _rope_append_kv(
    launch: Launcher,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    positions: Tensor,
    cos_sin: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slots: Tensor,
    interleaved: bool,
) -> Tensor:
    q_out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    launch(q_out, k_cache, v_cache, q, k, v, positions, cos_sin, slots, interleaved)
    return q_out


def _plain_pages(call: Call) -> str | None:
    """What copy_blocks declines."""
    rank = max((cache.dim() for cache in call.args["caches"]), default=0)
    if rank > 8:
        return f"a cache of rank {rank}, serves up to 8"
    sizes = {cache.element_size() for cache in call.args["caches"]}
    odd = sizes - {1, 2, 4, 8}
    return f"elements of {max(odd)} bytes, serves 1, 2, 4 and 8" if odd else None


VARIANTS = (
    Variant("append_kv", "naive", _append_kv),
    Variant("append_kv", "vec", _append_kv, preference=10),
    Variant("copy_blocks", "naive", _copy_blocks, _plain_pages),
    Variant("copy_blocks", "vec", _copy_blocks, _plain_pages, preference=10),
    Variant("gather_kv", "naive", _gather_kv),
    Variant("gather_kv", "vec", _gather_kv, preference=10),
    Variant("gather_slots", "naive", _gather_slots),
    Variant("gather_slots", "vec", _gather_slots, preference=10),
    Variant("rope", "naive", _rope),
    Variant("rope", "vec", _rope, preference=10),
    Variant("rope_append_kv", "naive", _rope_append_kv),
    Variant("rope_append_kv", "vec", _rope_append_kv, preference=10),
)
