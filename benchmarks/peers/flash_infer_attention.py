"""FlashInfer's attention. It is planned on the host, from the lengths and page tables of a batch,
and so it is here: one wrapper for each tensor of page tables, which stays where it is while the
lengths are the same, so that a recorded CUDA graph sees pages that are written to the table later.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers import flash_infer_package as package
from benchmarks.peers.batches import MEMO, VECTOR_BYTES, Attention, attention
from benchmarks.peers.torch_sdpa import HALF, ON_TENSOR_CORES, further
from yaie.compare import Contract
from yaie.dispatch import Unsupported
from yaie.op import Call

WORKSPACE_BYTES = 384 << 20
"""For the partial results of split keys. Calls follow each other, so all wrappers use the same."""
HEAD_DIMS = package.HEAD_DIMS[:-1]
ROUNDED_SUM = Contract(
    p_rounded=True, row_sum_of_rounded_p=True, partials_in_dtype=True, accumulator="tensor_core"
)
"""Its decode and its fa2 sum P by a product on tensor cores, and keep what splits leave in the
output's dtype."""
CONTRACTS = {"decode": ROUNDED_SUM, "fa2": ROUNDED_SUM, "fa3": ON_TENSOR_CORES}


# Batches as it wants them -----------------------------------------------------------------------


@dataclass(frozen=True)
class Lengths:
    """What a host knows of a batch: where queries end, and how many keys a sequence has."""

    q_ends: tuple[int, ...]
    kv_lens: tuple[int, ...]

    @property
    def q_lens(self) -> list[int]:
        """Queries of each sequence."""
        return [b - a for a, b in itertools.pairwise(self.q_ends)]

    @property
    def empty(self) -> bool:
        """Whether no query has a key."""
        return not any(q and kv for q, kv in zip(self.q_lens, self.kv_lens, strict=True))

    def within(self, how: Attention) -> Attention:
        """The same options; a window that no sequence outgrows is none."""
        left, right = how.window
        return replace(how, window=(left if left < max(self.kv_lens, default=0) else -1, right))

    def unseen(self, how: Attention) -> list[int]:
        """Keys at the start of each sequence that no query of it keeps."""
        left, lengths = how.window[0], zip(self.q_lens, self.kv_lens, strict=True)
        return [max(0, kv - q - left) if left >= 0 and q else 0 for q, kv in lengths]


@dataclass(frozen=True)
class Pages:
    """The pages of each sequence, one after the other, all of ``size`` slots: ``indptr`` [B+1] says
    where those of a sequence begin, ``last`` [B] how many keys its last page holds, 0 where it has
    none."""

    size: int
    indptr: list[int]
    indices: list[int]
    last: list[int]


def pages_of(
    table: Sequence[Sequence[int]], kv_lens: Sequence[int], page: int, unseen: Sequence[int]
) -> Pages:
    """The pages that hold keys which some query keeps. A key that it masks it multiplies by 0, so
    an unseen one, which may be NaN, must not be in the batch at all: where such a key lies in a
    page with others, every slot is a page of its own."""
    size = page if all(n % page == 0 for n in unseen) else 1
    pages, share = Pages(size, [0], [], []), page // size
    for row, kv_len, skipped in zip(table, kv_lens, unseen, strict=True):
        kept = range(skipped // size, -(-kv_len // size))
        pages.indices.extend(row[j // share] * share + j % share for j in kept)
        pages.indptr.append(len(pages.indices))
        pages.last.append(kv_len - (kept.stop - 1) * size if kv_len else 0)
    return pages


def lengths_of(q_indptr: Tensor, kv: Tensor, packed: bool) -> Lengths:
    """The lengths of a batch; ``kv`` holds those of the keys or, if they are packed, their ends."""
    q_ends, numbers = MEMO(q_indptr, "list", q_indptr.tolist), MEMO(kv, "list", kv.tolist)
    if packed:
        numbers = [b - a for a, b in itertools.pairwise(numbers)]
    return Lengths(tuple(q_ends), tuple(numbers))


# Plans ------------------------------------------------------------------------------------------


@functools.cache
def workspace(device: torch.device) -> Tensor:
    """Memory that all wrappers of a device share."""
    return torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device=device)


def backends(device: torch.device) -> tuple[str, ...]:
    """Those of its prefill that run on a device: fa3 is for Hopper alone."""
    return ("fa2", "fa3") if torch.cuda.get_device_capability(device)[0] == 9 else ("fa2",)


def check_backend(backend: str, device: torch.device) -> None:
    """Unsupported where the device does not run it."""
    if backend not in backends(device):
        raise Unsupported(f"this GPU does not run {backend}")


@dataclass(frozen=True)
class Shape:
    """What a wrapper is planned for, beside the lengths."""

    heads: int
    kv_heads: int
    dim: int
    dtype: torch.dtype
    how: Attention
    device: torch.device

    @property
    def causal(self) -> bool:
        """A window of no keys to the right is a causal mask."""
        return self.how.causal or self.how.window[1] == 0

    @property
    def options(self) -> dict[str, Any]:
        """The arguments that every plan takes."""
        return {
            "sm_scale": self.how.scale,
            "window_left": self.how.window[0],
            "logits_soft_cap": self.how.softcap,
            "q_data_type": self.dtype,
            "kv_data_type": self.dtype,
        }


@dataclass
class Batch:
    """A wrapper that is planned for these lengths; ``indices``: its pages of ``size`` slots, which
    may be written anew, from the numbers of ``table``."""

    lengths: Lengths
    wrapper: Any
    size: int = 1
    indices: Tensor | None = None
    table: Any = None


def host(numbers: Sequence[int]) -> Tensor:
    """int32, on the host, where it plans."""
    return torch.tensor(numbers, dtype=torch.int32)


def decode(shape: Shape, lengths: Lengths, pages: Pages, indices: Tensor) -> Any:
    """Its decode, on tensor cores: with all query heads of a KV head in one tile."""
    if set(lengths.q_lens) != {1}:
        raise Unsupported("a sequence has other than one query")
    wrapper = package.module().BatchDecodeWithPagedKVCacheWrapper(
        workspace(shape.device), "NHD", use_tensor_cores=True, backend="fa2"
    )
    heads = (shape.heads, shape.kv_heads, shape.dim, pages.size)
    wrapper.plan(host(pages.indptr), indices, host(pages.last), *heads, **shape.options)
    return wrapper


def prefill(shape: Shape, lengths: Lengths, pages: Pages, indices: Tensor, backend: str) -> Any:
    """Its prefill on a paged cache, with any number of queries."""
    check_backend(backend, shape.device)
    wrapper = package.module().BatchPrefillWithPagedKVCacheWrapper(
        workspace(shape.device), "NHD", backend=backend
    )
    tables = (host(lengths.q_ends), host(pages.indptr), indices, host(pages.last))
    heads = (shape.heads, shape.kv_heads, shape.dim, pages.size)
    wrapper.plan(*tables, *heads, causal=shape.causal, **shape.options)
    return wrapper


def ragged(shape: Shape, lengths: Lengths, kv_ends: Sequence[int], backend: str) -> Any:
    """Its prefill on packed keys."""
    check_backend(backend, shape.device)
    wrapper = package.module().BatchPrefillWithRaggedKVCacheWrapper(
        workspace(shape.device), "NHD", backend=backend
    )
    tables, heads = (host(lengths.q_ends), host(kv_ends)), (shape.heads, shape.kv_heads, shape.dim)
    wrapper.plan(*tables, *heads, causal=shape.causal, **shape.options)
    return wrapper


def held(tensor: Tensor, key: Any, lengths: Lengths, make: Callable[[], Batch]) -> Batch:
    """The batch of a tensor, made again for other lengths. What it takes of memory is no part of a
    call."""
    batches = package.HELD.setdefault(tensor, {})
    if key not in batches or batches[key].lengths != lengths:
        with torch._C.DisableTorchFunction():
            batches[key] = make()
    batch: Batch = batches[key]
    return batch


# Calls ------------------------------------------------------------------------------------------


def answer(batch: Batch, q: Tensor, keys: Any) -> tuple[Tensor, Tensor]:
    """out [T,Hq,D] and lse [T,Hq], of a planned batch."""
    out, lse = batch.wrapper.run(package.rows(q), *keys, return_lse=True)
    return out, lse.mul_(package.LN2)


def nothing(q: Tensor) -> tuple[Tensor, Tensor]:
    """The answer where no query has a key; it does not plan such batches."""
    lse = torch.full(q.shape[:2], float("-inf"), dtype=torch.float32, device=q.device)
    return torch.zeros_like(q, memory_format=torch.contiguous_format), lse


@dataclass(frozen=True)
class Paged:
    """``paged_attention`` by its decode, or by a backend of its prefill."""

    how: str

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
        if any(cache.data_ptr() % VECTOR_BYTES for cache in (k_cache, v_cache)):
            raise Unsupported("a cache does not start at a multiple of 16 bytes")
        _, page, kv_heads, dim = k_cache.shape
        axes = {"Hq": q.shape[1], "Hk": kv_heads, "D": dim, "S": page}
        whole = {"block_table": block_table, "kv_lens": kv_lens, "q_indptr": q_indptr}
        batch = self.plan(whole, axes, q.dtype, options)
        if batch is None:
            return nothing(q)
        caches = (cache.view(-1, batch.size, kv_heads, dim) for cache in (k_cache, v_cache))
        return answer(batch, q, (tuple(caches),))

    def plan(
        self,
        whole: Mapping[str, Tensor],
        axes: Mapping[str, int],
        dtype: torch.dtype,
        options: Mapping[str, Any],
    ) -> Batch | None:
        """The batch; None where no query has a key."""
        table, page = whole["block_table"], axes["S"]
        lengths = lengths_of(whole["q_indptr"], whole["kv_lens"], packed=False)
        if lengths.empty:
            return None
        how = lengths.within(attention(axes["D"], **options))
        shape = Shape(*(axes[a] for a in ("Hq", "Hk", "D")), dtype, how, table.device)
        numbers = MEMO(table, "list", table.tolist)

        def paged() -> Pages:
            return pages_of(numbers, lengths.kv_lens, page, lengths.unseen(how))

        def make() -> Batch:
            pages = paged()
            indices = host(pages.indices).to(table.device)
            args = (shape, lengths, pages, indices)
            if self.how == "decode":
                wrapper = package.loaded(lambda: decode(*args))
            else:
                wrapper = package.loaded(lambda: prefill(*args, self.how))
            return Batch(lengths, wrapper, pages.size, indices, numbers)

        batch = held(table, (self.how, shape, page), lengths, make)
        if batch.table is not numbers and batch.indices is not None:
            batch.indices.copy_(host(paged().indices))
            batch.table = numbers
        return batch


@dataclass(frozen=True)
class Ragged:
    """``varlen_attention`` by a backend of its prefill on packed keys."""

    how: str

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        q_indptr: Tensor,
        kv_indptr: Tensor,
        **options: Any,
    ) -> tuple[Tensor, Tensor]:
        axes = {"Hq": q.shape[1], "Hk": k.shape[1], "D": q.shape[2]}
        whole = {"q_indptr": q_indptr, "kv_indptr": kv_indptr}
        batch = self.plan(whole, axes, q.dtype, options)
        return nothing(q) if batch is None else answer(batch, q, (package.rows(k), package.rows(v)))

    def plan(
        self,
        whole: Mapping[str, Tensor],
        axes: Mapping[str, int],
        dtype: torch.dtype,
        options: Mapping[str, Any],
    ) -> Batch | None:
        """The batch; None where no query has a key."""
        kv_indptr = whole["kv_indptr"]
        lengths = lengths_of(whole["q_indptr"], kv_indptr, packed=True)
        if lengths.empty:
            return None
        how = lengths.within(attention(axes["D"], **options))
        if any(lengths.unseen(how)):
            raise Unsupported("keys outside of a window lie among others, and may be NaN")
        shape = Shape(*(axes[a] for a in ("Hq", "Hk", "D")), dtype, how, kv_indptr.device)
        ends = MEMO(kv_indptr, "list", kv_indptr.tolist)

        def make() -> Batch:
            return Batch(lengths, package.loaded(lambda: ragged(shape, lengths, ends, self.how)))

        return held(kv_indptr, (self.how, shape), lengths, make)


def attention_declines(call: Call) -> str | None:
    """None for an attention that it has, else the reason."""
    if others := further(call):
        return f"this attention has no {min(others)}"
    dim, (_, right) = call.axes["D"], call.options["window"]
    if call.dtype not in HALF or dim != call.axes["Dv"] or dim not in HEAD_DIMS:
        return "serves half precision with D = Dv of 64, 128 and 256"
    scale = call.options["scale"]
    if scale is not None and scale <= 0:
        return f"scale is {scale}: its softmax starts from the largest product before the scale"
    if right > 0 and not call.options["causal"]:
        return "its windows have no keys to the right"
    return None


def decode_declines(call: Call) -> str | None:
    """It has one query a sequence, which stands at the last key: nothing is to the right."""
    if call.axes["T"] != call.axes["B"]:
        return "serves one query a sequence"
    window = (call.options["window"][0], -1)
    return attention_declines(replace(call, options={**call.options, "window": window}))


def compile_for(dtype: torch.dtype, dim: int, window_left: int, softcap: float) -> None:
    """Compile what such calls need; decode takes that of fa2."""
    device, how = torch.device("cuda"), Attention(True, 1.0, (window_left, -1), softcap)
    if dim not in HEAD_DIMS:
        return
    shape, pages = Shape(1, 1, dim, dtype, how, device), Pages(16, [0, 1], [0], [1])
    for backend in backends(device):
        prefill(shape, Lengths((0, 1), (1,)), pages, host(pages.indices).to(device), backend)
