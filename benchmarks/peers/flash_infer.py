"""FlashInfer's kernels, each behind the op that it computes, where the package is installed.

Its attention is planned on the host from the lengths and page tables of a batch. That is the plan
here too: one wrapper for each tensor of page tables, which stays where it is while the lengths are
the same, so that a recorded CUDA graph sees the pages that are written to the tables later.

Its log-sum-exps are to base 2. It compiles a module for each dtype, head dimension and kind of
score, which takes a minute or more: what is not compiled is declined, and
``python -m benchmarks.peers.flash_infer`` compiles what the workloads need.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from benchmarks.peers.batches import MEMO, Attention, attention
from benchmarks.peers.torch_sdpa import HALF, ON_TENSOR_CORES, further
from yaie import ops
from yaie.compare import FLOAT32_THROUGHOUT, Contract
from yaie.dispatch import Unsupported
from yaie.op import Call, Kernel

PACKAGE = "flashinfer"
WORKSPACE_BYTES = 384 << 20
"""For the partial results of split keys. Calls follow each other, so all wrappers use the same."""
HEAD_DIMS = (64, 128, 256)
WIDE_HEAD_DIMS = (*HEAD_DIMS, 512)
"""Those of its kernels that have a template for each head dimension, but are no attention."""
THREADS = 1024
"""Of a block, in which some of its kernels take all heads of a token."""
VECTOR_BYTES = 16
LN2, LOG2E = 0.6931471805599453, 1.4426950408889634
NO_JIT = "FLASHINFER_DISABLE_JIT"

ROUNDED_SUM = Contract(
    p_rounded=True, row_sum_of_rounded_p=True, partials_in_dtype=True, accumulator="tensor_core"
)
"""Its decode and its fa2 sum P by a product on tensor cores, and keep what splits leave in the
output's dtype."""


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

    def unseen(self, how: Attention) -> list[int]:
        """Keys at the start of each sequence that no query of it keeps."""
        left, lengths = how.window[0], zip(self.q_lens, self.kv_lens, strict=True)
        return [max(0, kv - q - left) if left >= 0 and q else 0 for q, kv in lengths]


@dataclass(frozen=True)
class Pages:
    """The pages of each sequence, one after the other: ``indptr`` [B+1] says where those of a
    sequence begin, ``last`` [B] how many keys its last page holds, 0 where it has none."""

    indptr: list[int]
    indices: list[int]
    last: list[int]


def pages_of(
    table: Sequence[Sequence[int]], kv_lens: Sequence[int], size: int, unseen: Sequence[int]
) -> Pages:
    """The pages that hold keys which some query keeps. It masks by numbers of P that are 0, so an
    unseen key beside such ones must not be in the batch at all: what it holds may be NaN."""
    pages = Pages([0], [], [])
    for row, kv_len, skipped in zip(table, kv_lens, unseen, strict=True):
        if skipped % size:
            raise Unsupported("keys outside of a window lie in a page with others, and may be NaN")
        count = -(-kv_len // size)
        pages.indices.extend(row[skipped // size : count])
        pages.indptr.append(len(pages.indices))
        pages.last.append(kv_len - (count - 1) * size if kv_len else 0)
    return pages


def lengths_of(q_indptr: Tensor, kv: Tensor, packed: bool) -> Lengths:
    """The lengths of a batch; ``kv`` holds those of the keys or, if they are packed, their ends."""
    q_ends, numbers = MEMO(q_indptr, "list", q_indptr.tolist), MEMO(kv, "list", kv.tolist)
    if packed:
        numbers = [b - a for a, b in itertools.pairwise(numbers)]
    return Lengths(tuple(q_ends), tuple(numbers))


# Its package ------------------------------------------------------------------------------------


def module(name: str = "") -> Any:
    """The package, or a part of it. It asks for GPUs when it is imported: not before a call."""
    return importlib.import_module(f"{PACKAGE}.{name}" if name else PACKAGE)


@contextmanager
def without_compiling() -> Iterator[None]:
    """Loads in here raise MissingJITCacheError where they would have to compile."""
    before = os.environ.get(NO_JIT)
    os.environ[NO_JIT] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[NO_JIT]
        else:
            os.environ[NO_JIT] = before


def loaded(load: Callable[[], Any]) -> Any:
    """What ``load`` gives, if that is compiled: a judge does not wait for minutes."""
    try:
        with without_compiling():
            return load()
    except module("jit").MissingJITCacheError as error:
        spec = error.spec
        if NO_JIT not in os.environ and spec is not None and spec.is_compiled:
            return load()  # for itself, not beforehand: it looks whether that is up to date
        raise Unsupported(f"not compiled: {spec.name if spec else error}") from None


@functools.cache
def workspace(device: torch.device) -> Tensor:
    """Memory that all wrappers of a device share."""
    return torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device=device)


def backends(device: torch.device) -> tuple[str, ...]:
    """Those of its prefill that run on a device: the third is for Hopper alone."""
    return ("fa2", "fa3") if torch.cuda.get_device_capability(device)[0] == 9 else ("fa2",)


def check_backend(backend: str, device: torch.device) -> None:
    """Unsupported where the device does not run it."""
    if backend not in backends(device):
        raise Unsupported(f"this GPU does not run {backend}")


def rows(x: Tensor) -> Tensor:
    """x [T,H,D] as its vectors of 16 bytes and its strides of 32 bits can read it: itself, or a
    copy, which is part of the time."""
    step = VECTOR_BYTES // x.element_size()
    strides = x.stride()
    aligned = x.data_ptr() % VECTOR_BYTES == 0 and strides[-1] == 1
    outer = zip(x.shape, strides[:-1], strict=False)
    aligned &= all(s and s % step == 0 and n * s < 2**31 for n, s in outer)
    return x if aligned else x.clone(memory_format=torch.contiguous_format)


# Attention --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """What a wrapper is planned for, beside the lengths."""

    heads: int
    kv_heads: int
    dim: int
    page: int
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
    """A wrapper that is planned for these lengths; ``indices``: its pages, which may be written
    anew, from the numbers of ``table``."""

    lengths: Lengths
    wrapper: Any
    indices: Tensor | None = None
    table: Any = None


def host(numbers: Sequence[int]) -> Tensor:
    """int32, on the host, where it plans."""
    return torch.tensor(numbers, dtype=torch.int32)


def decode(shape: Shape, lengths: Lengths, pages: Pages, indices: Tensor) -> Any:
    """Its decode, on tensor cores: with all query heads of a KV head in one tile."""
    if set(lengths.q_lens) != {1}:
        raise Unsupported("a sequence has other than one query")
    wrapper = module().BatchDecodeWithPagedKVCacheWrapper(
        workspace(shape.device), "NHD", use_tensor_cores=True, backend="fa2"
    )
    heads = (shape.heads, shape.kv_heads, shape.dim, shape.page)
    wrapper.plan(host(pages.indptr), indices, host(pages.last), *heads, **shape.options)
    return wrapper


def prefill(shape: Shape, lengths: Lengths, pages: Pages, indices: Tensor, backend: str) -> Any:
    """Its prefill on a paged cache, with any number of queries."""
    check_backend(backend, shape.device)
    wrapper = module().BatchPrefillWithPagedKVCacheWrapper(
        workspace(shape.device), "NHD", backend=backend
    )
    tables = (host(lengths.q_ends), host(pages.indptr), indices, host(pages.last))
    heads = (shape.heads, shape.kv_heads, shape.dim, shape.page)
    wrapper.plan(*tables, *heads, causal=shape.causal, **shape.options)
    return wrapper


def ragged(shape: Shape, lengths: Lengths, kv_ends: Sequence[int], backend: str) -> Any:
    """Its prefill on packed keys."""
    check_backend(backend, shape.device)
    wrapper = module().BatchPrefillWithRaggedKVCacheWrapper(
        workspace(shape.device), "NHD", backend=backend
    )
    tables, heads = (host(lengths.q_ends), host(kv_ends)), (shape.heads, shape.kv_heads, shape.dim)
    wrapper.plan(*tables, *heads, causal=shape.causal, **shape.options)
    return wrapper


HELD: Any = WeakTensorKeyDictionary()
"""Batches of each tensor that a plan is made for, while it lives."""


def held(tensor: Tensor, key: Any, lengths: Lengths, make: Callable[[], Batch]) -> Batch:
    """The batch of a tensor, made again for other lengths. What it takes of memory is no part of a
    call."""
    batches = HELD.setdefault(tensor, {})
    if key not in batches or batches[key].lengths != lengths:
        with torch._C.DisableTorchFunction():
            batches[key] = make()
    batch: Batch = batches[key]
    return batch


def answer(batch: Batch, q: Tensor, keys: Any) -> tuple[Tensor, Tensor]:
    """out [T,Hq,D] and lse [T,Hq], of a planned batch."""
    out, lse = batch.wrapper.run(rows(q), *keys, return_lse=True)
    return out, lse.mul_(LN2)


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
        return nothing(q) if batch is None else answer(batch, q, ((k_cache, v_cache),))

    def plan(
        self,
        whole: Mapping[str, Tensor],
        axes: Mapping[str, int],
        dtype: torch.dtype,
        options: Mapping[str, Any],
    ) -> Batch | None:
        """The batch; None where no query has a key."""
        table, how = whole["block_table"], attention(axes["D"], **options)
        lengths = lengths_of(whole["q_indptr"], whole["kv_lens"], packed=False)
        if lengths.empty:
            return None
        shape = Shape(*(axes[a] for a in ("Hq", "Hk", "D", "S")), dtype, how, table.device)
        numbers = MEMO(table, "list", table.tolist)
        unseen = lengths.unseen(how)

        def make() -> Batch:
            pages = pages_of(numbers, lengths.kv_lens, shape.page, unseen)
            indices = host(pages.indices).to(table.device)
            args = (shape, lengths, pages, indices)
            if self.how == "decode":
                wrapper = loaded(lambda: decode(*args))
            else:
                wrapper = loaded(lambda: prefill(*args, self.how))
            return Batch(lengths, wrapper, indices, numbers)

        batch = held(table, (self.how, shape), lengths, make)
        if batch.table is not numbers and batch.indices is not None:
            pages = pages_of(numbers, lengths.kv_lens, shape.page, unseen)
            batch.indices.copy_(host(pages.indices))
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
        return nothing(q) if batch is None else answer(batch, q, (rows(k), rows(v)))

    def plan(
        self,
        whole: Mapping[str, Tensor],
        axes: Mapping[str, int],
        dtype: torch.dtype,
        options: Mapping[str, Any],
    ) -> Batch | None:
        """The batch; None where no query has a key."""
        kv_indptr, how = whole["kv_indptr"], attention(axes["D"], **options)
        lengths = lengths_of(whole["q_indptr"], kv_indptr, packed=True)
        if lengths.empty:
            return None
        if any(lengths.unseen(how)):
            raise Unsupported("keys outside of a window lie among others, and may be NaN")
        device, heads = kv_indptr.device, (axes["Hq"], axes["Hk"], axes["D"])
        shape = Shape(*heads, 0, dtype, how, device)
        ends = MEMO(kv_indptr, "list", kv_indptr.tolist)

        def make() -> Batch:
            return Batch(lengths, loaded(lambda: ragged(shape, lengths, ends, self.how)))

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


# Other ops --------------------------------------------------------------------------------------


@dataclass
class Slots:
    """Slots as it wants them, each a sequence of one page: ``at`` holds the page, the offset there
    and the number of each token that is stored."""

    at: Tensor
    kept: Tensor | None
    """the tokens that are stored, None for all"""
    indptr: Tensor
    numbers: Any


def slots_of(numbers: Sequence[int], page_size: int) -> tuple[list[int], list[int], list[int]]:
    """The tokens that are stored, and the page and offset of each."""
    kept = [t for t, slot in enumerate(numbers) if slot >= 0]
    at = [divmod(numbers[t], page_size) for t in kept]
    return kept, [page for page, _ in at], [offset for _, offset in at]


class Append:
    """``append_kv`` by its append_paged_kv_cache. Tokens that are skipped it does not know: where
    some are, the others are copied first."""

    def __call__(
        self, k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor
    ) -> None:
        known = self.plan({"slots": slots}, {"S": k_cache.shape[1]})
        if not known.at.shape[1]:
            return
        k, v = (rows(x if known.kept is None else x[known.kept]) for x in (k, v))
        page, offset, number = known.at
        caches, lasts = (k_cache, v_cache), offset  # which it does not read
        module().append_paged_kv_cache(
            k, v, number, offset, caches, page, known.indptr, lasts, "NHD"
        )

    def plan(self, whole: Mapping[str, Tensor], axes: Mapping[str, int], *rest: Any) -> Slots:
        """Where the tokens go. Other slots, if as many are skipped, are written to the same
        memory, which a recorded CUDA graph reads."""
        slots, size = whole["slots"], axes["S"]
        numbers = MEMO(slots, "list", slots.tolist)
        known = HELD.setdefault(slots, {}).get(size)
        if known is not None and known.numbers is numbers:
            return known
        kept, page, offset = slots_of(numbers, size)
        at = torch.tensor([page, offset, list(range(len(kept)))], dtype=torch.int32)
        tokens = None if len(kept) == len(numbers) else torch.tensor(kept)
        if known is None or known.at.shape != at.shape:
            device, indptr = slots.device, torch.arange(len(kept) + 1, dtype=torch.int32)
            on_device = (None if x is None else x.to(device) for x in (at, tokens, indptr))
            known = HELD[slots][size] = Slots(*on_device, numbers)
        else:
            known.at.copy_(at)
            if known.kept is not None:
                known.kept.copy_(tokens)
            known.numbers = numbers
        return known


def append_declines(call: Call) -> str | None:
    """It has one head dimension, in vectors, and a block of threads for a token."""
    if reason := vectors_decline(call, call.axes["Hk"]):
        return reason
    if call.axes["D"] != call.axes["Dv"]:
        return "D and Dv differ"
    if any(call.args[name].data_ptr() % VECTOR_BYTES for name in ("k_cache", "v_cache")):
        return "a cache does not start at a multiple of 16 bytes"
    return None


def vectors_decline(call: Call, heads: int) -> str | None:
    """None for dtypes and head dimensions that its templates have, and heads that a block takes."""
    dim = call.axes["D"]
    if call.dtype not in HALF or dim not in WIDE_HEAD_DIMS:
        return "serves half precision with D of 64, 128, 256 and 512"
    if heads * dim // max(8, dim // 32) > THREADS:
        return f"{heads} heads of {dim} do not fit into one block of threads"
    return None


def merge_declines(call: Call) -> str | None:
    """A block of threads has all heads of a token."""
    return vectors_decline(call, call.axes["H"])


def merge(a: Tensor, lse_a: Tensor, b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """``merge_states`` by its merge_state, which takes contiguous states."""
    if not len(a):
        return a.new_empty(a.shape), lse_a.new_empty(lse_a.shape)
    sides = (a.contiguous(), to_base_2(lse_a), b.contiguous(), to_base_2(lse_b))
    out, lse = loaded(lambda: module().merge_state(*sides))
    return out, lse.mul_(LN2)


def merge_n(states: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
    """``merge_states_n`` by its merge_states, which takes the states of a token side by side."""
    if not states.shape[1]:
        return states.new_empty(states.shape[1:]), lses.new_empty(lses.shape[1:])
    sets = (states.transpose(0, 1).contiguous(), to_base_2(lses.transpose(0, 1)))
    out, lse = loaded(lambda: module().merge_states(*sets))
    return out, lse.mul_(LN2)


def to_base_2(lse: Tensor) -> Tensor:
    """A natural log-sum-exp as it has them, contiguous."""
    return (lse * LOG2E).contiguous()


def rope(x: Tensor, positions: Tensor, cos_sin: Tensor, interleaved: bool) -> Tensor:
    """``rope`` by its kernel for queries and keys, of which there are none. (What it offers as
    public rotates in place, or takes contiguous queries, and at least one key head.)"""
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    x = rows(x)
    if x.numel():
        run = module("rope")._apply_rope_pos_ids_cos_sin_cache
        given = (x, x[:, :0], y, y[:, :0], cos_sin, positions, interleaved)
        loaded(lambda: run(*given))
    return y


def rope_declines(call: Call) -> str | None:
    """Its table is contiguous, and read in vectors."""
    if call.dtype not in HALF or call.axes["D"] not in WIDE_HEAD_DIMS:
        return "serves half precision with D of 64, 128, 256 and 512"
    if call.axes["R"] % (2 * max(8, call.axes["D"] // 32)):
        return f"R is {call.axes['R']}: half of it is no number of vectors"
    if not call.args["cos_sin"].is_contiguous():
        return "rows of cos_sin have gaps"
    if call.axes["M"] * call.axes["R"] >= 2**32:
        return "the table has more than 2^32 numbers"
    return None


def sampled(probs: Tensor, seed: Tensor, position: Tensor) -> Tensor:
    """``draw_tokens`` with its own generator instead of the op's noise."""
    probs = probs.contiguous()
    drawn: Tensor = loaded(lambda: module("sampling").sampling_from_probs(probs))
    return drawn


# Registration -----------------------------------------------------------------------------------


def register() -> None:
    """Register all of them where the package is."""
    if importlib.util.find_spec(PACKAGE) is None:
        return
    add("paged_attention", "decode", Paged("decode"), decode_declines, ROUNDED_SUM)
    for backend, contract in {"fa2": ROUNDED_SUM, "fa3": ON_TENSOR_CORES}.items():
        name = f"prefill_{backend}"
        add("paged_attention", name, Paged(backend), attention_declines, contract)
        add("varlen_attention", name, Ragged(backend), attention_declines, contract)
    add("append_kv", "append", Append(), append_declines)
    add("merge_states", "cascade", merge, merge_declines)
    add("merge_states_n", "cascade", merge_n, merge_declines)
    add("rope", "rope", rope, rope_declines)
    ops.draw_tokens.register(
        Kernel(
            "draw_tokens",
            f"{PACKAGE}.sampling",
            sampled,
            device="cuda",
            deterministic=False,
            preference=-1,
        )
    )


def add(
    op: str,
    name: str,
    run: Callable[..., Any],
    declines: Callable[[Call], str | None],
    contract: Contract = FLOAT32_THROUGHOUT,
) -> None:
    """Register a kernel of the package with an op."""
    kernel = Kernel(
        op,
        f"{PACKAGE}.{name}",
        run,
        device="cuda",
        contract=contract,
        preference=-1,
        supports=declines,
    )
    ops.get(op).register(kernel)


def main() -> None:
    """Compile what the workloads of this repository need: minutes, once."""
    from benchmarks.timing import serving

    device = torch.device("cuda")
    names = ("paged_attention", "varlen_attention")
    cases = [w.case for w in serving.load() if w.op in names]
    lengths, pages = Lengths((0, 1), (1,)), Pages([0, 1], [0], [1])
    plans = {(c.dtype, c.D, c.window, c.softcap) for c in cases if c.D == c.Dv in HEAD_DIMS}
    for number, (dtype, dim, window, softcap) in enumerate(sorted(plans), 1):
        print(f"{number} of {len(plans)}: {dtype}, {dim}, {window}, {softcap}", flush=True)
        how = Attention(True, 1.0, window, softcap)
        shape = Shape(1, 1, dim, 16, getattr(torch, dtype), how, device)
        for backend in backends(device):
            prefill(shape, lengths, pages, host(pages.indices).to(device), backend)
    for name in ("page", "cascade", "rope", "sampling"):
        getattr(module(name), f"get_{name}_module")()


if __name__ == "__main__":
    main()
