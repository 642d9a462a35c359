"""The guide's functions: attention over padded batches, over a paged cache, and copies of blocks.

Thin over the ops: a padded batch is packed, the op of that meaning is called, the result is padded
again. ``use_cuda=True`` means a CUDA kernel when the tensors are on a GPU and one serves the call;
when none does, the kernel that steps in is named in a warning, once. ``use_cuda=False`` takes none.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor

from yaie import ops
from yaie.op import Op


def attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    use_cuda: bool = True,
    *,
    seq_lens: Tensor | None = None,
    causal: bool = True,
    scale: float | None = None,
) -> Tensor:
    """Attention over a padded batch (see ops.varlen_attention).

    query [B,S,Hq,D], key [B,N,Hk,D], value [B,N,Hk,Dv], of one float dtype; Hq is a multiple of Hk.
    ``seq_lens`` int [B] says how many rows of each sequence are real (then N = S); None: all.
    ``scale`` None is 1/sqrt(D). Returns [B,S,Hq,Dv]; rows at or beyond seq_lens[b] are 0.

    Errors: ValueError for shapes and for lengths outside 0..S, TypeError for dtypes.
    """
    _check_rank("attention_forward", 4, query=query, key=key, value=value)
    batch, length = query.shape[:2]
    if key.shape[0] != batch or value.shape[:2] != key.shape[:2]:
        raise ValueError(
            f"attention_forward: query, key and value begin with {tuple(query.shape[:2])}, "
            f"{tuple(key.shape[:2])} and {tuple(value.shape[:2])}; B must agree, and N of key and "
            "value"
        )

    def attend(*packed: Tensor) -> Tensor:
        out: Tensor = _call(
            ops.varlen_attention, *packed, causal=causal, scale=scale, use_cuda=use_cuda
        )[0]
        return out

    if seq_lens is None:
        q_indptr, kv_indptr = (_even_indptr(batch, n, query) for n in (length, key.shape[1]))
        out = attend(*(x.flatten(0, 1) for x in (query, key, value)), q_indptr, kv_indptr)
        return out.reshape(batch, length, *out.shape[1:])

    if key.shape[1] != length:
        raise ValueError(
            f"attention_forward: key: N is {key.shape[1]}, query: S is {length}; with seq_lens "
            "they must be equal"
        )
    real = _real_rows(seq_lens, batch, length)
    indptr = _indptr(seq_lens, query)
    out = attend(*(x[real] for x in (query, key, value)), indptr, indptr)
    padded = out.new_zeros(batch, length, *out.shape[1:])
    padded[real] = out
    return padded


def paged_attention_forward(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    use_cuda: bool = True,
    *,
    scale: float | None = None,
    num_kv_heads: int | None = None,
    num_queries_per_kv: int | None = None,
) -> Tensor:
    """Attention of the last Q tokens of each sequence over a paged cache (ops.paged_attention).

    query [B,Q,Hq,D], key_cache [P,S,Hk,D], value_cache [P,S,Hk,Dv], block_tables int32 [B,W],
    context_lens int32 [B], the Q tokens included. Bottom-right causal. Returns [B,Q,Hq,Dv].
    ``num_kv_heads`` and ``num_queries_per_kv`` are checked against the shapes, if given.

    Errors: those of ops.paged_attention; ValueError for a keyword that contradicts a shape.
    """
    _check_rank("paged_attention_forward", 4, query=query, key_cache=key_cache)
    batch, length, heads = query.shape[:3]
    kv_heads = key_cache.shape[2]
    _check_keyword("paged_attention_forward", "num_kv_heads", num_kv_heads, kv_heads)
    group = heads // kv_heads if kv_heads else 0
    _check_keyword("paged_attention_forward", "num_queries_per_kv", num_queries_per_kv, group)
    paged = (key_cache, value_cache, block_tables, context_lens)
    q_indptr = _even_indptr(batch, length, query)
    out: Tensor = _call(
        ops.paged_attention, query.flatten(0, 1), *paged, q_indptr, scale=scale, use_cuda=use_cuda
    )[0]
    return out.reshape(batch, length, *out.shape[1:])


def copy_blocks(
    key_cache: Tensor,
    value_cache: Tensor,
    block_mapping: Tensor,
    use_cuda: bool = True,
    *,
    num_heads: int | None = None,
    head_dim: int | None = None,
    block_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Copies of two caches [P,S,Hk,D] in which block ``dst`` holds what block ``src`` held, for
    each row (src, dst) of ``block_mapping`` int [M,2]; all other blocks as they were.

    ``num_heads``, ``head_dim`` and ``block_size`` are checked against the shapes, if given.

    Errors: those of ops.copy_blocks; ValueError for a keyword that contradicts a shape; TypeError
    for a ``block_mapping`` that is no tensor of whole numbers.
    """
    _check_rank("copy_blocks", 4, key_cache=key_cache, value_cache=value_cache)
    sizes = zip((block_size, num_heads, head_dim), key_cache.shape[1:], strict=True)
    for name, (given, actual) in zip(("block_size", "num_heads", "head_dim"), sizes, strict=True):
        _check_keyword("copy_blocks", name, given, actual)
    _check_whole("copy_blocks", "block_mapping", block_mapping)
    int32 = torch.iinfo(torch.int32)
    pairs = block_mapping.clamp(int32.min, int32.max)  # what is out of range stays out of range
    copies = [x.clone(memory_format=torch.contiguous_format) for x in (key_cache, value_cache)]
    _call(ops.copy_blocks, copies, pairs.to(torch.int32), use_cuda=use_cuda)
    return copies[0], copies[1]


def _call(op: Op, *args: Any, use_cuda: bool, **options: Any) -> Any:
    """Run the kernel that dispatch chooses, or plain PyTorch where CUDA kernels are not wanted."""
    kernel, call = op.prepare(*args, **options)
    if kernel.device == "cuda" and not use_cuda:
        kernel, call = op.prepare(*args, kernel="torch.eager", **options)
    elif use_cuda and call.device.type == "cuda" and kernel.device != "cuda":
        reasons = [
            f"{k.name}: {k.declines(call)}" for k in op.kernels.values() if k.device == "cuda"
        ]
        _warn_once(
            f"{op.name}: no CUDA kernel runs on {torch.cuda.get_device_name(call.device)} for this "
            f"call ({'; '.join(reasons) or 'none is built'}), {kernel.name} does"
        )
    return kernel.run(**call.args, **call.options)


@cache
def _warn_once(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=4)


def _check_rank(function: str, rank: int, **tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if tensor.dim() != rank:
            raise ValueError(f"{function}: {name}: rank is {tensor.dim()}, must be {rank}")


def _check_whole(function: str, name: str, tensor: object) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{function}: {name} is a {type(tensor).__name__}, must be a tensor")
    dtype = tensor.dtype
    if dtype.is_floating_point or dtype.is_complex or dtype == torch.bool:
        raise TypeError(f"{function}: {name} is {dtype}, must be of whole numbers")


def _check_keyword(function: str, name: str, given: int | None, actual: int) -> None:
    if given is not None and given != actual:
        raise ValueError(f"{function}: {name} is {given}, the tensors say {actual}")


def _even_indptr(batch: int, length: int, like: Tensor) -> Tensor:
    """int32 [B+1] of sequences that are all ``length`` long."""
    return torch.arange(batch + 1, dtype=torch.int32, device=like.device) * length


def _indptr(lengths: Tensor, like: Tensor) -> Tensor:
    """int32 [B+1] of sequences of these lengths."""
    ends = lengths.to(like.device).cumsum(0, dtype=torch.int32)
    return torch.cat([ends.new_zeros(1), ends])


def _real_rows(seq_lens: Tensor, batch: int, length: int) -> Tensor:
    """bool [B,S]: which rows of a padded batch are no padding."""
    _check_whole("attention_forward", "seq_lens", seq_lens)
    if seq_lens.shape != (batch,):
        shape = tuple(seq_lens.shape)
        raise ValueError(f"attention_forward: seq_lens: shape is {shape}, must be ({batch},)")
    if batch and not 0 <= int(seq_lens.min()) <= int(seq_lens.max()) <= length:
        raise ValueError(
            f"attention_forward: seq_lens: {seq_lens.tolist()} is not within 0..S = {length}"
        )
    rows = torch.arange(length, device=seq_lens.device)
    return rows < seq_lens[:, None]
