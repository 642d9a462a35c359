"""The attention kernels, and those that merge what they give."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from yaie.compare import Contract
from yaie.op import Call

from .face import Face, Launcher
from .variant import Variant, floats, ints, state

ON_TENSOR_CORES = Contract(p_rounded=True, accumulator="tensor_core")


def _merge_states(
    launch: Launcher, a: Tensor, lse_a: Tensor, b: Tensor, lse_b: Tensor
) -> tuple[Tensor, Tensor]:
    merged = state(a.shape, a)
    launch(*merged, a, lse_a, b, lse_b)
    return merged


def _merge_states_n(launch: Launcher, states: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
    merged = state(states.shape[1:], states)
    launch(*merged, states, lses)
    return merged


def _varlen_attention(
    launch: Launcher,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_indptr: Tensor,
    kv_indptr: Tensor,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    attended = state((*q.shape[:2], v.shape[-1]), q)
    launch(*attended, q, k, v, q_indptr, kv_indptr, *_numbers(q, **options))
    return attended


def _paged_attention(
    workspaces: Callable[[Face, Tensor, Tensor, Tensor], Sequence[Tensor]] = lambda *_: (),
) -> Callable[..., tuple[Tensor, Tensor]]:
    """The call of a variant whose launcher takes these workspaces behind the results; they follow
    from the shapes of q, k_cache and block_table."""

    def call(
        launch: Launcher,
        q: Tensor,
        k_cache: Tensor,
        v_cache: Tensor,
        block_table: Tensor,
        kv_lens: Tensor,
        q_indptr: Tensor,
        **options: Any,
    ) -> tuple[Tensor, Tensor]:
        attended = state((*q.shape[:2], v_cache.shape[-1]), q)
        work = workspaces(launch.face, q, k_cache, block_table)
        paged = (k_cache, v_cache, block_table, kv_lens, q_indptr)
        launch(*attended, *work, q, *paged, *_numbers(q, **options))
        return attended

    return call


def _numbers(
    q: Tensor,
    causal: bool,
    scale: float | None,
    window: tuple[int, int],
    softcap: float,
    alibi: None = None,
) -> tuple[float, float, int, int]:
    """scale, softcap, keys to the left, keys to the right, as the launchers take them."""
    left, right = (min(side, 2**31 - 1) for side in window)
    return (
        1 / math.sqrt(q.shape[-1]) if scale is None else scale,
        softcap,
        left,
        0 if causal else right,
    )


# Workspaces ---------------------------------------------------------------------------------------


def _split_parts(
    face: Face, q: Tensor, k_cache: Tensor, block_table: Tensor
) -> tuple[Tensor, Tensor]:
    """Of split_kv: a state for each split. Enough of them to fill the GPU four times over, and none
    shorter than 64 keys. Read off shapes alone: the lengths are on the device, and a
    synchronisation costs more than a bad split."""
    (tokens, heads, dim), kv_heads = q.shape, k_cache.shape[2]
    blocks = tokens * kv_heads * -(-heads // kv_heads // 4)
    longest = block_table.shape[1] * k_cache.shape[1]
    wanted = -(-4 * face.multiprocessors(q) // max(blocks, 1))
    splits = max(1, min(wanted, longest // 64, 128))
    return floats(q, splits, tokens, heads, dim), floats(q, splits, tokens, heads)


def _dealt_parts(
    face: Face, q: Tensor, k_cache: Tensor, block_table: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of mma_decode: two pieces of 16 rows a block, and what it began. As many blocks as run side
    by side, but no more than there may be tiles of 64 keys."""
    (tokens, heads, dim), (_, page_size, kv_heads, _) = q.shape, k_cache.shape
    units = (tokens * (heads // kv_heads) // 16 + len(block_table)) * kv_heads
    tiles = units * max(1, -(-block_table.shape[1] * page_size // 64))
    blocks = max(1, min(face.multiprocessors(q) * (2 if dim <= 128 else 1), tiles))
    return floats(q, 2 * blocks, 16, dim), floats(q, 2 * blocks, 16), ints(q, blocks, 5)


# What they decline --------------------------------------------------------------------------------


def _fits_in_shared(call: Call) -> str | None:
    d, dv = call.axes["D"], call.axes["Dv"]
    if d + dv > 8192:
        return f"D + Dv is {d + dv}, naive keeps at most 8192 numbers in shared memory"
    return None


def _values_fit_in_shared(call: Call) -> str | None:
    dv = call.axes["Dv"]
    return f"Dv is {dv}, naive keeps at most 8192 in shared memory" if dv > 8192 else None


def _split_kv_declines(call: Call) -> str | None:
    d, dv = call.axes["D"], call.axes["Dv"]
    if d != dv:
        return f"D is {d} and Dv is {dv}, split_kv needs them equal"
    if d % 8 or d > 256:
        return f"D is {d}, split_kv serves multiples of 8 up to 256"
    return None


def _tiled_declines(call: Call) -> str | None:
    d, dv = call.axes["D"], call.axes["Dv"]
    if max(d, dv) > 256:
        return f"D is {d} and Dv is {dv}, tiled serves up to 256"
    return _too_many_rows(call)


def _mma_declines(call: Call) -> str | None:
    return _on_tensor_cores("mma", call) or _too_many_rows(call) or _unaligned_rows(call)


def _mma_decode_declines(call: Call) -> str | None:
    return _on_tensor_cores("mma_decode", call) or _unaligned_caches(call) or _too_many_rows(call)


def _mma_prefill_declines(call: Call) -> str | None:
    return _on_tensor_cores("mma_prefill", call) or _unaligned_caches(call) or _too_many_rows(call)


def _on_tensor_cores(variant: str, call: Call) -> str | None:
    """What every variant on tensor cores declines."""
    d, dv = call.axes["D"], call.axes["Dv"]
    if call.dtype == torch.float32:
        return f"dtype is float32, {variant} serves float16 and bfloat16"
    if d != dv or d % 8 or d > 256:
        return f"D is {d} and Dv is {dv}, {variant} serves D = Dv, a multiple of 8 up to 256"
    return None


def _too_many_rows(call: Call) -> str | None:
    """Kernels whose rows are (query, head of the group) count them in an int."""
    rows = call.axes["T"] * (call.axes["Hq"] // call.axes["Hk"])
    return f"T * Hq / Hk is {rows}, beyond 2^31 - 1" if rows >= 2**31 else None


def _unaligned_caches(call: Call) -> str | None:
    for name in ("k_cache", "v_cache"):
        if call.args[name].data_ptr() % 16:
            return f"{name} does not start at a multiple of 16 bytes"
    return None


def _unaligned_rows(call: Call) -> str | None:
    for name in ("k", "v"):
        rows = call.args[name]
        starts = (rows.data_ptr(), *(2 * stride for stride in rows.stride()[:2]))
        if any(start % 16 for start in starts):
            return f"rows of {name} do not start at multiples of 16 bytes"
    return None


def _many_queries(call: Call) -> bool:
    """Whether the query heads of a KV head fill more than the one tile of 16 rows, on average, that
    mma_decode has for a sequence. (The lengths themselves are on the device.)"""
    rows = call.axes["T"] * call.axes["Hq"] // max(call.axes["Hk"], 1)
    return rows > 16 * call.axes["B"]


# fmt: off
VARIANTS = (
    Variant("merge_states", "naive", _merge_states),
    Variant("merge_states", "vec", _merge_states, preference=10),
    Variant("merge_states_n", "naive", _merge_states_n),
    Variant("merge_states_n", "vec", _merge_states_n, preference=10),
    Variant("varlen_attention", "naive", _varlen_attention, _values_fit_in_shared),
    Variant("varlen_attention", "tiled", _varlen_attention, _tiled_declines, preference=10),
    Variant(
        "varlen_attention", "mma", _varlen_attention, _mma_declines, ON_TENSOR_CORES, preference=20,
    ),
    Variant("paged_attention", "naive", _paged_attention(), _fits_in_shared),
    Variant(
        "paged_attention", "split_kv", _paged_attention(_split_parts), _split_kv_declines,
        preference=10,
    ),
    Variant(
        "paged_attention", "mma_decode", _paged_attention(_dealt_parts), _mma_decode_declines,
        ON_TENSOR_CORES, preference=20,
    ),
    Variant(
        "paged_attention", "mma_prefill", _paged_attention(), _mma_prefill_declines,
        ON_TENSOR_CORES, preference=25, suits=_many_queries,
    ),
)
# fmt: on
