"""torch's scaled_dot_product_attention, one peer for each of its backends, as paged attention.

SDPA knows no pages: each peer gathers the keys and values of sequences of equal lengths into one
dense batch, which is part of its time, as it would be in an engine. The query heads of a KV head
are rows of one product. The backends are called by their own names, for these return the
log-sum-exp that the public function drops.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from yaie import ops
from yaie.compare import Contract
from yaie.op import Call, Kernel

aten = torch.ops.aten

Backend = Callable[[Tensor, Tensor, Tensor, "Tensor | None", float], tuple[Tensor, Tensor]]
"""q [B,H,R,D], k and v [B,H,N,D], a bias [R,N] or None, the scale -> out, lse [B,H,R]."""


def flash_cpu(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """The flash kernel of the CPU."""
    out, lse = aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, 0.0, False, attn_mask=bias, scale=scale
    )
    return out, lse


def flash(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """FlashAttention 2. It takes no bias: where one is needed, this backend declines."""
    if bias is not None:
        raise NotImplementedError("the flash backend of SDPA takes no mask")
    out, lse, *_ = aten._scaled_dot_product_flash_attention(q, k, v, 0.0, False, scale=scale)
    return out, lse


def efficient(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """The memory-efficient kernel of xFormers; it pads the rows of lse."""
    if bias is not None:
        bias = bias.expand(*q.shape[:2], *bias.shape)
    out, lse, *_ = aten._scaled_dot_product_efficient_attention(
        q, k, v, bias, True, 0.0, False, scale=scale
    )
    return out, lse[..., : q.shape[2]]


def cudnn(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """cuDNN's kernel."""
    out, lse, *_ = aten._scaled_dot_product_cudnn_attention(
        q, k, v, bias, True, 0.0, False, False, scale=scale
    )
    return out, lse.reshape(q.shape[:3])


def paged(
    backend: Backend,
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
    **unused: None,
) -> tuple[Tensor, Tensor]:
    """Sequences of equal lengths together, each group through the backend."""
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    out = q.new_zeros(*q.shape[:2], v_cache.shape[-1])
    lse = torch.full(q.shape[:2], -math.inf, dtype=torch.float32, device=q.device)
    for (q_len, kv_len), batch in _alike(q_indptr.tolist(), kv_lens.tolist()).items():
        if not q_len or not kv_len:
            continue
        starts = [start for _, start in batch]
        rows = _rows(starts, q_len, q.device)  # [B,Lq]
        pages = block_table[[b for b, _ in batch], : -(-kv_len // k_cache.shape[1])].long()
        keys = k_cache[pages].flatten(1, 2)[:, :kv_len].transpose(1, 2)  # [B,Hk,N,D]
        values = v_cache[pages].flatten(1, 2)[:, :kv_len].transpose(1, 2)
        keep = _keep(q_len, kv_len, causal, window, q.device)
        if keep is not None and not (seen := keep.any(0)).all():
            # What no query keeps may hold anything, and 0 times NaN is NaN.
            keep, keys, values = keep[:, seen], keys[:, :, seen], values[:, :, seen]
        group = q.shape[1] // keys.shape[1]
        queries = q[rows].unflatten(2, (-1, group)).permute(0, 2, 3, 1, 4)  # [B,Hk,G,Lq,D]
        bias = None
        if keep is not None and not keep.all():
            bias = torch.zeros(keep.shape, dtype=q.dtype, device=q.device)
            bias = bias.masked_fill(~keep, -math.inf).repeat(group, 1)
        o, s = backend(queries.flatten(2, 3), keys.contiguous(), values.contiguous(), bias, scale)
        back = (len(batch), -1, group, q_len)
        o = o.unflatten(2, (group, q_len)).permute(0, 3, 1, 2, 4).flatten(2, 3)  # [B,Lq,Hq,Dv]
        s = s.reshape(back).permute(0, 3, 1, 2).flatten(2, 3)
        if keep is not None:
            some = keep.any(1)
            o = torch.where(some[:, None, None], o, 0)
            s = torch.where(some[:, None], s, -math.inf)
        out[rows], lse[rows] = o, s.float()
    return out, lse


def _alike(indptr: list[int], kv_lens: list[int]) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """(q_len, kv_len) -> the sequences of these lengths, each with its first row."""
    groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for b, kv_len in enumerate(kv_lens):
        groups.setdefault((indptr[b + 1] - indptr[b], kv_len), []).append((b, indptr[b]))
    return groups


def _rows(starts: list[int], q_len: int, device: torch.device) -> Tensor:
    first = torch.tensor(starts, device=device)[:, None]
    return first + torch.arange(q_len, device=device)


def _keep(
    q_len: int, kv_len: int, causal: bool, window: tuple[int, int], device: torch.device
) -> Tensor | None:
    """Which keys each query keeps [Lq,N], or None for all of them."""
    left, right = window
    right = 0 if causal else right
    if (right < 0 or q_len == 1) and (left < 0 or left >= kv_len - 1):
        return None
    position = torch.arange(kv_len - q_len, kv_len, device=device)[:, None]
    distance = torch.arange(kv_len, device=device) - position
    keep = torch.ones(q_len, kv_len, dtype=torch.bool, device=device)
    if right >= 0:
        keep &= distance <= right
    if left >= 0:
        keep &= distance >= -left
    return keep


def _serves(call: Call, dtypes: tuple[torch.dtype, ...], widest: int) -> str | None:
    if call.options["softcap"]:
        return "SDPA has no softcap"
    others = {n for n, v in {**call.args, **call.options}.items() if v is not None} - KNOWN
    if others:
        return f"SDPA has no {min(others)}"
    if call.dtype not in dtypes:
        return f"{call.dtype} is not served by this backend"
    if call.axes["D"] != call.axes["Dv"]:
        return "D and Dv differ"
    if call.axes["D"] % 8 or call.axes["D"] > widest:
        return f"D is {call.axes['D']}, serves multiples of 8 up to {widest}"
    return None


TENSORS = {"q", "k_cache", "v_cache", "block_table", "kv_lens", "q_indptr"}
KNOWN = TENSORS | {"causal", "scale", "window", "softcap"}
HALF = (torch.float16, torch.bfloat16)
ALL = (*HALF, torch.float32)
ON_CPU = Contract(p_rounded=True)
ON_TENSOR_CORES = Contract(p_rounded=True, accumulator="tensor_core")


def register() -> None:
    """Register a kernel for each backend."""
    backends: dict[str, tuple[Backend, str, tuple[torch.dtype, ...], Contract]] = {
        "torch.sdpa_cpu": (flash_cpu, "cpu", ALL, ON_CPU),
        "torch.sdpa_flash": (flash, "cuda", HALF, ON_TENSOR_CORES),
        "torch.sdpa_efficient": (efficient, "cuda", HALF, ON_TENSOR_CORES),
        "torch.sdpa_cudnn": (cudnn, "cuda", HALF, ON_TENSOR_CORES),
    }
    for name, (backend, device, dtypes, contract) in backends.items():
        run: Any = functools.partial(paged, backend)
        supports = functools.partial(_serves, dtypes=dtypes, widest=256)
        kernel = Kernel(
            "paged_attention",
            name,
            run,
            device=device,
            contract=contract,
            preference=-1,
            supports=supports,
        )
        ops.get("paged_attention").register(kernel)
