"""Attention in Triton, one kernel for packed and for paged keys: what a reader of the papers on
FlashAttention would write first, in the language that many packages write their kernels in.

Under Triton's interpreter (TRITON_INTERPRET=1) it runs on the CPU, and is judged there.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from benchmarks.peers.batches import MEMO, attention
from benchmarks.peers.torch_sdpa import ON_TENSOR_CORES, further
from yaie import ops
from yaie.op import Call, Kernel

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
MOST_INTERPRETED = 1 << 14
NO_LIMIT = 2**30
"""Of a window; no sequence is as long."""
WIDEST = 256
LEAST = 16
"""Rows, columns and terms of a product on tensor cores."""
MOST_ROWS, MOST_KEYS = 64, 64
TILE_BYTES = 16384
"""Of a tile of keys, and of one of values."""


@triton.jit(do_not_specialize=["left", "right", "group", "page", "table_row"])
def attend(
    q, k, v, out, lse,  # [T,Hq,D], keys, values, [T,Hq,Dv], [T,Hq]
    tiles, q_indptr, kv_lens, kv_indptr, table,  # [n,2], [B+1], [B], [B+1] if packed, else [B,W]
    q_token, q_head, k_token, k_head, v_token, v_head, page, table_row,  # strides; slots of a page
    D, DV, scale, softcap, left, right, group,
    D_PAD: tl.constexpr, DV_PAD: tl.constexpr,
    ROWS: tl.constexpr, KEYS: tl.constexpr, CAPPED: tl.constexpr, PAGED: tl.constexpr,
):  # fmt: skip
    """A tile of rows of one sequence and KV head. The rows of a sequence are its queries, each with
    the ``group`` query heads of the KV head: row r is query r // group."""
    tile, kv_head = tl.program_id(0), tl.program_id(1)
    b, first = tl.load(tiles + 2 * tile), tl.load(tiles + 2 * tile + 1)
    q_start = tl.load(q_indptr + b)
    q_len, kv_len = tl.load(q_indptr + b + 1) - q_start, tl.load(kv_lens + b)

    row = first + tl.arange(0, ROWS)  # [ROWS]
    real = row < q_len * group
    query, head = row // group, kv_head * group + row % group
    position = kv_len - q_len + query
    d, dv = tl.arange(0, D_PAD), tl.arange(0, DV_PAD)
    token = (q_start + query).to(tl.int64)
    at_q = token[:, None] * q_token + head[:, None].to(tl.int64) * q_head + d[None, :]
    queries = tl.load(q + at_q, mask=real[:, None] & (d[None, :] < D), other=0.0)  # [ROWS,D_PAD]

    # The keys that some row of the tile keeps. All others may hold anything and are not read.
    last = tl.minimum((first + ROWS - 1) // group, q_len - 1)
    start = tl.maximum(kv_len - q_len + first // group - left, 0)
    stop = tl.minimum(kv_len - q_len + last + right + 1, kv_len)

    most = tl.full([ROWS], -float("inf"), tl.float32)  # largest score so far
    total = tl.zeros([ROWS], tl.float32)  # sum of exp(score - most)
    mixed = tl.zeros([ROWS, DV_PAD], tl.float32)  # sum of exp(score - most) v
    for begin in range(start, stop, KEYS):
        key = begin + tl.arange(0, KEYS)  # [KEYS]
        read = key < stop
        if PAGED:
            entry = b.to(tl.int64) * table_row + key // page
            slot = tl.load(table + entry, mask=read, other=0).to(tl.int64) * page + key % page
        else:
            slot = (tl.load(kv_indptr + b) + key).to(tl.int64)

        # 1. scores [ROWS,KEYS]
        at_k = slot[None, :] * k_token + kv_head.to(tl.int64) * k_head + d[:, None]
        keys = tl.load(k + at_k, mask=read[None, :] & (d[:, None] < D), other=0.0)  # [D_PAD,KEYS]
        score = tl.dot(queries, keys, input_precision="ieee") * scale
        if CAPPED:
            small = tl.exp2(-2.8853900817779268 * tl.abs(score / softcap))  # exp(-2 |score / cap|)
            size = softcap * (1 - small) / (1 + small)  # cap tanh |score / cap|
            score = tl.where(score < 0, -size, size)
        distance = key[None, :] - position[:, None]
        kept = read[None, :] & (distance <= right) & (distance >= -left)
        score = tl.where(kept, score, -float("inf"))

        # 2. weights, relative to the largest score: what was summed before shrinks as that grows
        now = tl.maximum(most, tl.max(score, 1))
        base = tl.where(now == -float("inf"), 0.0, now)  # a row without keys so far
        weight = tl.exp2((score - base[:, None]) * 1.4426950408889634)
        shrunk = tl.exp2((most - base) * 1.4426950408889634)
        total = total * shrunk + tl.sum(weight, 1)

        # 3. values [KEYS,DV_PAD]
        at_v = slot[:, None] * v_token + kv_head.to(tl.int64) * v_head + dv[None, :]
        values = tl.load(v + at_v, mask=read[:, None] & (dv[None, :] < DV), other=0.0)
        mixed *= shrunk[:, None]
        mixed += tl.dot(weight.to(values.dtype), values, input_precision="ieee")
        most = now

    some = total > 0
    mean = tl.where(some[:, None], mixed / tl.where(some, total, 1.0)[:, None], 0.0)
    place = token * (group * tl.num_programs(1)) + head  # of a row [T,Hq]
    at_out = place[:, None] * DV + dv[None, :]
    tl.store(out + at_out, mean.to(out.dtype.element_ty), mask=real[:, None] & (dv[None, :] < DV))
    level = tl.where(some, most + tl.log(tl.where(some, total, 1.0)), -float("inf"))
    tl.store(lse + place, level, mask=real)


def tiles_of(q_indptr: Tensor, group: int, rows: int) -> Tensor:
    """Which sequence each tile is of, and its first row there: int32 [n,2]; the plan of a batch."""

    def make() -> Tensor:
        ends = q_indptr.tolist()
        q_lens = (end - start for start, end in itertools.pairwise(ends))
        tiles = [(b, r) for b, n in enumerate(q_lens) for r in range(0, n * group, rows)]
        return torch.tensor(tiles, dtype=torch.int32).view(-1, 2).to(q_indptr.device)

    made: Tensor = MEMO(q_indptr, ("tiles", group, rows), make)
    return made


def rows_of(axes: Mapping[str, int], dtype: torch.dtype) -> int:
    """Rows of a tile: few where sequences have few queries, and in float32, where a product is
    unrolled and a large one takes half a minute to compile."""
    rows = axes["T"] * (axes["Hq"] // max(axes["Hk"], 1))
    few = rows <= LEAST * axes["B"] or dtype == torch.float32
    return LEAST if few else MOST_ROWS


def launch(
    q: Tensor,
    keys: tuple[Tensor, Tensor],
    q_indptr: Tensor,
    kv_lens: Tensor,
    kv_indptr: Tensor | None,
    table: Tensor | None,
    options: Mapping[str, Any],
) -> tuple[Tensor, Tensor]:
    """The kernel on packed (``kv_indptr``) or paged keys (``table``): k [...,Hk,D], v [...,Hk,Dv],
    whose last axis but two is that of tokens."""
    k, v = keys
    (T, heads, dim), kv_heads, width = q.shape, k.shape[-2], v.shape[-1]
    how, group = attention(dim, **options), heads // kv_heads
    rows = rows_of({"T": T, "B": len(kv_lens), "Hq": heads, "Hk": kv_heads}, q.dtype)
    padded = [max(LEAST, triton.next_power_of_2(n)) for n in (dim, width)]
    out = q.new_empty(T, heads, width)
    lse = torch.empty(T, heads, dtype=torch.float32, device=q.device)
    tiles = tiles_of(q_indptr, group, rows)
    if not len(tiles):
        return out, lse
    left, right = (NO_LIMIT if n < 0 else min(n, NO_LIMIT) for n in how.window)
    tensors = (q, k, v, out, lse, tiles, q_indptr, kv_lens, kv_indptr, table)
    strides = (s for x in (q, k, v) for s in x.stride()[-3:-1])
    pages = (k.shape[1], table.stride(0)) if table is not None else (1, 0)
    attend[len(tiles), kv_heads](
        *tensors,
        *strides,
        *pages,
        *(dim, width, how.scale, how.softcap, left, 0 if how.causal else right, group),
        D_PAD=padded[0],
        DV_PAD=padded[1],
        ROWS=rows,
        KEYS=max(LEAST, min(MOST_KEYS, TILE_BYTES // (max(padded) * k.element_size()))),
        CAPPED=how.softcap > 0,
        PAGED=table is not None,
        num_stages=2,
    )
    return out, lse


def lengths(kv_indptr: Tensor) -> Tensor:
    """Keys of each sequence, from where they end."""
    made: Tensor = MEMO(kv_indptr, "lengths", kv_indptr.diff)
    return made


class Paged:
    """``paged_attention``. Pages of a contiguous cache follow each other, so a slot is a token."""

    def __call__(
        self,
        q: Tensor,
        k_cache: Tensor,
        v_cache: Tensor,
        block_table: Tensor,
        kv_lens: Tensor,
        q_indptr: Tensor,
        **options: Any,
    ) -> tuple[Tensor, Tensor]:
        return launch(q, (k_cache, v_cache), q_indptr, kv_lens, None, block_table, options)

    def plan(
        self,
        whole: Mapping[str, Tensor],
        axes: Mapping[str, int],
        dtype: torch.dtype,
        options: Mapping[str, Any],
    ) -> None:
        """Cut the rows into tiles."""
        tiles_of(whole["q_indptr"], axes["Hq"] // axes["Hk"], rows_of(axes, dtype))


class Packed:
    """``varlen_attention``."""

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        q_indptr: Tensor,
        kv_indptr: Tensor,
        **options: Any,
    ) -> tuple[Tensor, Tensor]:
        return launch(q, (k, v), q_indptr, lengths(kv_indptr), kv_indptr, None, options)

    def plan(
        self,
        whole: Mapping[str, Tensor],
        axes: Mapping[str, int],
        dtype: torch.dtype,
        options: Mapping[str, Any],
    ) -> None:
        """Cut the rows into tiles, and count keys."""
        tiles_of(whole["q_indptr"], axes["Hq"] // axes["Hk"], rows_of(axes, dtype))
        lengths(whole["kv_indptr"])


def declines(call: Call) -> str | None:
    """None for a call that it serves, else the reason."""
    if others := further(call):
        return f"this attention has no {min(others)}"
    if max(call.axes["D"], call.axes["Dv"]) > WIDEST:
        return f"D is {call.axes['D']} and Dv {call.axes['Dv']}, serves up to {WIDEST}"
    if INTERPRETED and call.dtype == torch.bfloat16:
        return "the product of Triton's interpreter takes bfloat16 for whole numbers"
    if INTERPRETED and call.axes["T"] > MOST_INTERPRETED:
        return f"T is {call.axes['T']}, for which Triton's interpreter takes half a minute"
    return None


def register() -> None:
    """Register it with both ops."""
    device = "cpu" if INTERPRETED else "cuda"
    for op, run in {"paged_attention": Paged(), "varlen_attention": Packed()}.items():
        kernel = Kernel(
            op,
            "triton.attention",
            run,
            device=device,
            contract=ON_TENSOR_CORES,
            preference=-1,
            supports=declines,
        )
        ops.get(op).register(kernel)
