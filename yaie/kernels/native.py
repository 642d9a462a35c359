"""Our CUDA kernels through their two faces: on a GPU (``cuda.*``), and on the CPU through the SIMT
executor (``simt.*``). One list serves both. The only module that imports the extensions.

YAIE_EXTENSIONS names a folder in which extensions are looked for before the package's own: that is
how another build (a mutant, the other side of a comparison) is judged.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from yaie import ops
from yaie.compare import FLOAT32_THROUGHOUT, Contract
from yaie.op import Call, Kernel, suits_all, supports_all

FACES = {"simt": "cpu", "cuda": "cuda"}
"""Each face, and where its tensors must live."""


@cache
def extension(face: str) -> ModuleType | None:
    """The extension of a face, or None where it was not built."""
    name = f"yaie._{face}"
    folder = os.environ.get("YAIE_EXTENSIONS")
    if folder:
        if not Path(folder).is_dir():
            raise ValueError(f"YAIE_EXTENSIONS is {folder!r}, which is no folder")
        for suffix in EXTENSION_SUFFIXES:
            path = Path(folder, f"_{face}{suffix}")
            if path.exists():
                spec = importlib.util.spec_from_file_location(name, path)
                assert spec is not None and spec.loader is not None
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                return module
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None


_entries = 0


def entries() -> int:
    """How often a launcher of ours was entered in this process: a refused call enters none."""
    return _entries


class Face:
    """Calls the launchers of one extension on the current stream."""

    def __init__(self, module: ModuleType, device: str) -> None:
        self.module = module
        self.device = device

    def launch(self, name: str, *args: Any) -> None:
        """Call a launcher; its errors are those of the op's page."""
        global _entries
        _entries += 1
        launcher = getattr(self.module, name)
        if self.device == "cpu":
            # Nothing in there is torch's business, and a mode would see every attribute read.
            with torch._C.DisableTorchFunction():
                launcher(*args, 0)
            return
        first = args[0][0] if isinstance(args[0], list) else args[0]
        with torch.cuda.device(first.device):
            launcher(*args, torch.cuda.current_stream().cuda_stream)

    def multiprocessors(self, tensor: Tensor) -> int:
        """Blocks that run side by side; the executor stands for a small GPU."""
        if self.device == "cpu":
            return 20
        return int(torch.cuda.get_device_properties(tensor.device).multi_processor_count)


@dataclass(frozen=True)
class Variant:
    """One kernel of csrc: ``run(face)`` is the function that serves the op."""

    op: str
    name: str
    run: Callable[[Face], Callable[..., Any]]
    supports: Callable[[Call], str | None] = supports_all
    contract: Contract = FLOAT32_THROUGHOUT
    preference: int = 0
    suits: Callable[[Call], bool] = suits_all


def _append_kv(variant: str) -> Callable[[Face], Callable[..., Any]]:
    def make(face: Face) -> Callable[..., Any]:
        def run(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor) -> None:
            face.launch(f"append_kv_{variant}", k, v, k_cache, v_cache, slots)

        return run

    return make


def _copy_blocks(variant: str) -> Callable[[Face], Callable[..., Any]]:
    def make(face: Face) -> Callable[..., Any]:
        def run(caches: list[Tensor], pairs: Tensor) -> None:
            if caches:
                face.launch(f"copy_blocks_{variant}", caches, pairs)

        return run

    return make


def _gather_kv(variant: str) -> Callable[[Face], Callable[..., Any]]:
    def make(face: Face) -> Callable[..., Any]:
        def run(
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
            paged = (k_cache, v_cache, block_table, kv_indptr, start)
            face.launch(f"gather_kv_{variant}", k, v, *paged)
            return k, v

        return run

    return make


def _gather_slots(variant: str) -> Callable[[Face], Callable[..., Any]]:
    def make(face: Face) -> Callable[..., Any]:
        def run(
            block_table: Tensor,
            kv_indptr: Tensor,
            kv_start: Tensor | None,
            page_size: int,
            total: int,
        ) -> Tensor:
            slots = _ints(total, block_table)
            start = kv_indptr[:0] if kv_start is None else kv_start
            spans = (block_table, kv_indptr, start)
            face.launch(f"gather_slots_{variant}", slots, *spans, page_size)
            return slots

        return run

    return make


def _rope(variant: str) -> Callable[[Face], Callable[..., Any]]:
    def make(face: Face) -> Callable[..., Any]:
        def run(x: Tensor, positions: Tensor, cos_sin: Tensor, interleaved: bool) -> Tensor:
            y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
            face.launch(f"rope_{variant}", y, x, positions, cos_sin, interleaved)
            return y

        return run

    return make


def _rope_append_kv(variant: str) -> Callable[[Face], Callable[..., Any]]:
    def make(face: Face) -> Callable[..., Any]:
        def run(
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
            tokens = (q, k, v, positions, cos_sin, slots)
            caches = (k_cache, v_cache)
            face.launch(f"rope_append_kv_{variant}", q_out, *caches, *tokens, interleaved)
            return q_out

        return run

    return make


def _merge_states(variant: str) -> Callable[[Face], Callable[..., Any]]:
    def make(face: Face) -> Callable[..., Any]:
        def run(a: Tensor, lse_a: Tensor, b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
            merged = _state(a.shape, a)
            face.launch(f"merge_states_{variant}", *merged, a, lse_a, b, lse_b)
            return merged

        return run

    return make


def _merge_states_n(variant: str) -> Callable[[Face], Callable[..., Any]]:
    def make(face: Face) -> Callable[..., Any]:
        def run(states: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
            merged = _state(states.shape[1:], states)
            face.launch(f"merge_states_n_{variant}", *merged, states, lses)
            return merged

        return run

    return make


def _state(shape: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
    """A fresh attention state: out [T,H,D] and its lse [T,H]."""
    out = torch.empty(shape, dtype=like.dtype, device=like.device)
    return out, torch.empty(shape[:2], dtype=torch.float32, device=like.device)


def _common_prefix_len(variant: str) -> Callable[[Face], Callable[..., Any]]:
    def make(face: Face) -> Callable[..., Any]:
        def run(a: Tensor, a_indptr: Tensor, b: Tensor, b_indptr: Tensor, page: int) -> Tensor:
            length = _ints(a_indptr.numel() - 1, a)
            face.launch(f"common_prefix_len_{variant}", length, a, a_indptr, b, b_indptr, page)
            return length

        return run

    return make


def _match_tree(variant: str) -> Callable[[Face], Callable[..., Any]]:
    def make(face: Face) -> Callable[..., Any]:
        def run(page: int, **packed: Tensor) -> tuple[Tensor, Tensor]:
            queries = packed["q_indptr"].numel() - 1
            matched, node = (_ints(queries, packed["query"]) for _ in range(2))
            face.launch(f"match_tree_{variant}", matched, node, *packed.values(), page)
            return matched, node

        return run

    return make


def _ints(n: int, like: Tensor) -> Tensor:
    """A fresh int32 result."""
    return torch.empty(n, dtype=torch.int32, device=like.device)


def _attention_options(
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


def _paged_attention(variant: str) -> Callable[[Face], Callable[..., Any]]:
    """A variant without workspaces."""

    def make(face: Face) -> Callable[..., Any]:
        def run(
            q: Tensor,
            k_cache: Tensor,
            v_cache: Tensor,
            block_table: Tensor,
            kv_lens: Tensor,
            q_indptr: Tensor,
            **options: Any,
        ) -> tuple[Tensor, Tensor]:
            out, lse = _state((*q.shape[:2], v_cache.shape[-1]), q)
            paged = (k_cache, v_cache, block_table, kv_lens, q_indptr)
            numbers = _attention_options(q, **options)
            face.launch(f"paged_attention_{variant}", out, lse, q, *paged, *numbers)
            return out, lse

        return run

    return make


def _varlen_attention(variant: str) -> Callable[[Face], Callable[..., Any]]:
    def make(face: Face) -> Callable[..., Any]:
        def run(
            q: Tensor,
            k: Tensor,
            v: Tensor,
            q_indptr: Tensor,
            kv_indptr: Tensor,
            **options: Any,
        ) -> tuple[Tensor, Tensor]:
            out, lse = _state((*q.shape[:2], v.shape[-1]), q)
            packed = (k, v, q_indptr, kv_indptr)
            numbers = _attention_options(q, **options)
            face.launch(f"varlen_attention_{variant}", out, lse, q, *packed, *numbers)
            return out, lse

        return run

    return make


def _paged_attention_split_kv(face: Face) -> Callable[..., Any]:
    def run(
        q: Tensor,
        k_cache: Tensor,
        v_cache: Tensor,
        block_table: Tensor,
        kv_lens: Tensor,
        q_indptr: Tensor,
        **options: Any,
    ) -> tuple[Tensor, Tensor]:
        out, lse = _state((*q.shape[:2], v_cache.shape[-1]), q)
        splits = _splits(face, q, k_cache, block_table)
        partial_out = torch.empty(splits, *out.shape, dtype=torch.float32, device=q.device)
        partial_lse = torch.empty(splits, *lse.shape, dtype=torch.float32, device=q.device)
        paged = (k_cache, v_cache, block_table, kv_lens, q_indptr)
        numbers = _attention_options(q, **options)
        parts = (partial_out, partial_lse)
        face.launch("paged_attention_split_kv", out, lse, *parts, q, *paged, *numbers)
        return out, lse

    return run


def _paged_attention_mma_decode(face: Face) -> Callable[..., Any]:
    def run(
        q: Tensor,
        k_cache: Tensor,
        v_cache: Tensor,
        block_table: Tensor,
        kv_lens: Tensor,
        q_indptr: Tensor,
        **options: Any,
    ) -> tuple[Tensor, Tensor]:
        out, lse = _state((*q.shape[:2], v_cache.shape[-1]), q)
        blocks = _dealt_blocks(face, q, k_cache, block_table)
        part_out = torch.empty(2 * blocks, 16, q.shape[-1], dtype=torch.float32, device=q.device)
        part_lse = torch.empty(2 * blocks, 16, dtype=torch.float32, device=q.device)
        begun = torch.empty(blocks, 5, dtype=torch.int32, device=q.device)
        paged = (k_cache, v_cache, block_table, kv_lens, q_indptr)
        numbers = _attention_options(q, **options)
        parts = (part_out, part_lse, begun)
        face.launch("paged_attention_mma_decode", out, lse, *parts, q, *paged, *numbers)
        return out, lse

    return run


def _dealt_blocks(face: Face, q: Tensor, k_cache: Tensor, block_table: Tensor) -> int:
    """As many blocks as run side by side, but no more than there may be tiles of 64 keys."""
    (tokens, heads, dim), (_, page_size, kv_heads, _) = q.shape, k_cache.shape
    units = (tokens * (heads // kv_heads) // 16 + len(block_table)) * kv_heads
    tiles = units * (block_table.shape[1] * page_size // 64 + 1)
    return max(1, min(face.multiprocessors(q) * (2 if dim <= 128 else 1), tiles))


def _splits(face: Face, q: Tensor, k_cache: Tensor, block_table: Tensor) -> int:
    """Enough splits to fill the GPU four times over, and none shorter than 64 keys. Read off shapes
    alone: the lengths are on the device, and a synchronisation costs more than a bad split."""
    (tokens, heads, _), kv_heads = q.shape, k_cache.shape[2]
    blocks = tokens * kv_heads * -(-heads // kv_heads // 4)
    longest = block_table.shape[1] * k_cache.shape[1]
    wanted = -(-4 * face.multiprocessors(q) // max(blocks, 1))
    return max(1, min(wanted, longest // 64, 128))


def _rows_of(logits: Tensor) -> Tensor:
    """A fresh float32 result of the shape of ``logits``."""
    return torch.empty(logits.shape, dtype=torch.float32, device=logits.device)


def _token_a_row(logits: Tensor) -> Tensor:
    """A fresh int32 result, one number a row of ``logits``."""
    return torch.empty(logits.shape[0], dtype=torch.int32, device=logits.device)


def _filling(
    launcher: str, fresh: Callable[[Tensor], Tensor]
) -> Callable[[Face], Callable[..., Any]]:
    """Calls a launcher that takes its one result and then the op's arguments in their order."""

    def make(face: Face) -> Callable[..., Any]:
        def run(**args: Tensor) -> Tensor:
            result = fresh(next(iter(args.values())))
            face.launch(launcher, result, *args.values())
            return result

        return run

    return make


MOST_CHUNKS = 4096
"""Chunks of four logits in a part of a row with a window: it stays in the registers of a block."""
MOST_SURVEYED = 16
"""Parts of such a row where it could do with fewer: one block adds up what they found."""


def _parts(face: Face, logits: Tensor, whole: bool = False) -> int:
    """How many blocks a row of logits is dealt to: twice as many blocks as run side by side, where
    there are fewer rows than that; none with less than a warp's chunks. ``whole``: only where the
    rows cannot occupy the GPU without."""
    rows, chunks = max(logits.shape[0], 1), logits.shape[1] // 4 + 2
    side_by_side = face.multiprocessors(logits)
    wanted = side_by_side // rows if whole else min(2 * side_by_side // rows, MOST_SURVEYED)
    return max(1, min(wanted, chunks // 32))


def _split_rows(launcher: str) -> Callable[[Face], Callable[..., Any]]:
    """Calls a launcher that takes its tokens, a workspace, and the op's arguments."""

    def make(face: Face) -> Callable[..., Any]:
        def run(**args: Tensor) -> Tensor:
            rows = next(iter(args.values()))
            token = _token_a_row(rows)
            work = _workspace(rows, rows.shape[0], _parts(face, rows, whole=True), 2)
            face.launch(launcher, token, work, *args.values())
            return token

        return run

    return make


def _with_window(
    launcher: str, fresh: Callable[[Tensor], Tensor]
) -> Callable[[Face], Callable[..., Any]]:
    """Calls a launcher of csrc/common/sampling_window.cuh: result, workspaces, arguments."""

    def make(face: Face) -> Callable[..., Any]:
        def run(**args: Tensor) -> Tensor:
            logits = args["logits"]
            rows, least = logits.shape[0], -(-(logits.shape[1] // 4 + 2) // MOST_CHUNKS)
            parts = max(least, _parts(face, logits))
            result = fresh(logits)
            work = _workspace(logits, rows, parts, face.module.sampling_ints_a_part)
            work_a_row = _workspace(logits, rows, face.module.sampling_ints_a_row)
            face.launch(launcher, result, work, work_a_row, *args.values())
            return result

        return run

    return make


def _workspace(like: Tensor, *shape: int) -> Tensor:
    """Uninitialised int32 numbers."""
    return torch.empty(shape, dtype=torch.int32, device=like.device)


def _rows_supported(call: Call) -> str | None:
    V = call.axes["V"]
    return f"V is {V}, split serves up to 2^30" if V > 2**30 else None


def _fits_in_shared(call: Call) -> str | None:
    d, dv = call.axes["D"], call.axes["Dv"]
    if d + dv > 8192:
        return f"D + Dv is {d + dv}, naive keeps at most 8192 numbers in shared memory"
    return None


def _split_kv_supports(call: Call) -> str | None:
    d, dv = call.axes["D"], call.axes["Dv"]
    if d != dv:
        return f"D is {d} and Dv is {dv}, split_kv needs them equal"
    if d % 8 or d > 256:
        return f"D is {d}, split_kv serves multiples of 8 up to 256"
    return None


def _varlen_naive_supports(call: Call) -> str | None:
    dv = call.axes["Dv"]
    return f"Dv is {dv}, naive keeps at most 8192 in shared memory" if dv > 8192 else None


def _tiled_supports(call: Call) -> str | None:
    d, dv = call.axes["D"], call.axes["Dv"]
    if max(d, dv) > 256:
        return f"D is {d} and Dv is {dv}, tiled serves up to 256"
    return _too_many_rows(call)


def _too_many_rows(call: Call) -> str | None:
    """Kernels whose rows are (query, head of the group) count them in an int."""
    rows = call.axes["T"] * (call.axes["Hq"] // call.axes["Hk"])
    return f"T * Hq / Hk is {rows}, beyond 2^31 - 1" if rows >= 2**31 else None


def _tensor_cores(variant: str, call: Call) -> str | None:
    """What every variant on tensor cores declines."""
    d, dv = call.axes["D"], call.axes["Dv"]
    if call.dtype == torch.float32:
        return f"dtype is float32, {variant} serves float16 and bfloat16"
    if d != dv or d % 8 or d > 256:
        return f"D is {d} and Dv is {dv}, {variant} serves D = Dv, a multiple of 8 up to 256"
    return None


def _mma_decode_supports(call: Call) -> str | None:
    return _tensor_cores("mma_decode", call) or _unaligned_caches(call) or _too_many_rows(call)


def _many_queries(call: Call) -> bool:
    """Whether the query heads of a KV head fill more than the one tile of 16 rows, on average, that
    mma_decode has for a sequence. (The lengths themselves are on the device.)"""
    rows = call.axes["T"] * call.axes["Hq"] // max(call.axes["Hk"], 1)
    return rows > 16 * call.axes["B"]


def _mma_prefill_supports(call: Call) -> str | None:
    return _tensor_cores("mma_prefill", call) or _unaligned_caches(call) or _too_many_rows(call)


def _unaligned_caches(call: Call) -> str | None:
    for name in ("k_cache", "v_cache"):
        if call.args[name].data_ptr() % 16:
            return f"{name} does not start at a multiple of 16 bytes"
    return None


def _mma_supports(call: Call) -> str | None:
    declined = _tensor_cores("mma", call) or _too_many_rows(call)
    if declined:
        return declined
    for name in ("k", "v"):
        rows = call.args[name]
        starts = (rows.data_ptr(), *(2 * stride for stride in rows.stride()[:2]))
        if any(start % 16 for start in starts):
            return f"rows of {name} do not start at multiples of 16 bytes"
    return None


def _plain_pages(call: Call) -> str | None:
    rank = max((cache.dim() for cache in call.args["caches"]), default=0)
    if rank > 8:
        return f"a cache of rank {rank}, serves up to 8"
    sizes = {cache.element_size() for cache in call.args["caches"]}
    odd = sizes - {1, 2, 4, 8}
    return f"elements of {max(odd)} bytes, serves 1, 2, 4 and 8" if odd else None


ON_TENSOR_CORES = Contract(p_rounded=True, accumulator="tensor_core")

VARIANTS = (
    Variant("append_kv", "naive", _append_kv("naive")),
    Variant("append_kv", "vec", _append_kv("vec"), preference=10),
    Variant("copy_blocks", "naive", _copy_blocks("naive"), _plain_pages),
    Variant("copy_blocks", "vec", _copy_blocks("vec"), _plain_pages, preference=10),
    Variant("gather_kv", "naive", _gather_kv("naive")),
    Variant("gather_kv", "vec", _gather_kv("vec"), preference=10),
    Variant("gather_slots", "naive", _gather_slots("naive")),
    Variant("gather_slots", "vec", _gather_slots("vec"), preference=10),
    Variant("common_prefix_len", "naive", _common_prefix_len("naive")),
    Variant("common_prefix_len", "block", _common_prefix_len("block"), preference=10),
    Variant("match_tree", "naive", _match_tree("naive")),
    Variant("match_tree", "warp", _match_tree("warp"), preference=10),
    Variant("rope", "naive", _rope("naive")),
    Variant("rope", "vec", _rope("vec"), preference=10),
    Variant("rope_append_kv", "naive", _rope_append_kv("naive")),
    Variant("rope_append_kv", "vec", _rope_append_kv("vec"), preference=10),
    Variant("merge_states", "naive", _merge_states("naive")),
    Variant("merge_states", "vec", _merge_states("vec"), preference=10),
    Variant("merge_states_n", "naive", _merge_states_n("naive")),
    Variant("merge_states_n", "vec", _merge_states_n("vec"), preference=10),
    Variant("paged_attention", "naive", _paged_attention("naive"), _fits_in_shared),
    Variant(
        "paged_attention",
        "split_kv",
        _paged_attention_split_kv,
        _split_kv_supports,
        preference=10,
    ),
    Variant(
        "paged_attention",
        "mma_decode",
        _paged_attention_mma_decode,
        _mma_decode_supports,
        ON_TENSOR_CORES,
        preference=20,
    ),
    Variant(
        "paged_attention",
        "mma_prefill",
        _paged_attention("mma_prefill"),
        _mma_prefill_supports,
        ON_TENSOR_CORES,
        preference=25,
        suits=_many_queries,
    ),
    Variant("varlen_attention", "naive", _varlen_attention("naive"), _varlen_naive_supports),
    Variant(
        "varlen_attention", "tiled", _varlen_attention("tiled"), _tiled_supports, preference=10
    ),
    Variant(
        "varlen_attention",
        "mma",
        _varlen_attention("mma"),
        _mma_supports,
        ON_TENSOR_CORES,
        preference=20,
    ),
    Variant("penalize", "naive", _filling("penalize_naive", _rows_of)),
    Variant("penalize", "tiled", _filling("penalize_tiled", _rows_of), preference=10),
    Variant("filter_tokens", "naive", _filling("filter_tokens_naive", _rows_of)),
    Variant(
        "filter_tokens",
        "split",
        _with_window("filter_tokens_split", _rows_of),
        _rows_supported,
        preference=10,
    ),
    Variant("draw_tokens", "naive", _filling("draw_tokens_naive", _token_a_row)),
    Variant(
        "draw_tokens", "split", _split_rows("draw_tokens_split"), _rows_supported, preference=10
    ),
    Variant("sample", "naive", _filling("sample_naive", _token_a_row)),
    Variant(
        "sample",
        "split",
        _with_window("sample_split", _token_a_row),
        _rows_supported,
        preference=10,
    ),
    Variant("greedy", "naive", _filling("greedy_naive", _token_a_row)),
    Variant("greedy", "split", _split_rows("greedy_split"), _rows_supported, preference=10),
)
"""Every kernel of csrc, once. ``preference`` orders the kernels of a GPU; the executor's kernels
run only when they are asked for."""


def register() -> None:
    """Register every variant with its op, for each face that was built."""
    for face_name, device in FACES.items():
        module = extension(face_name)
        if module is None:
            continue
        face = Face(module, device)
        for variant in VARIANTS:
            ops.get(variant.op).register(
                Kernel(
                    op=variant.op,
                    name=f"{face_name}.{variant.name}",
                    run=variant.run(face),
                    device=device,
                    contract=variant.contract,
                    preference=20 + variant.preference if device == "cuda" else -1,
                    supports=variant.supports,
                    suits=variant.suits,
                )
            )
