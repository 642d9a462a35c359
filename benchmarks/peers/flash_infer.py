"""FlashInfer's kernels, each behind the op that it computes, where the package is installed."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers import flash_infer_attention as attention
from benchmarks.peers import flash_infer_package as package
from benchmarks.peers.batches import MEMO, VECTOR_BYTES
from benchmarks.peers.flash_infer_attention import (
    CONTRACTS,
    Paged,
    Ragged,
    attention_declines,
    decode_declines,
)
from benchmarks.peers.torch_sdpa import HALF
from benchmarks.timing import serving
from yaie import ops
from yaie.op import Call, Kernel, supports_all


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
        k, v = (package.rows(x if known.kept is None else x[known.kept]) for x in (k, v))
        page, offset, number = known.at
        caches, lasts = (k_cache, v_cache), offset  # which it does not read
        package.module().append_paged_kv_cache(
            k, v, number, offset, caches, page, known.indptr, lasts, "NHD"
        )

    def plan(self, whole: Mapping[str, Tensor], axes: Mapping[str, int], *rest: Any) -> Slots:
        """Where the tokens go. Other slots, if as many are skipped, are written to the same
        memory, which a recorded CUDA graph reads."""
        slots, size = whole["slots"], axes["S"]
        numbers = MEMO(slots, "list", slots.tolist)
        known = package.HELD.setdefault(slots, {}).get(size)
        if known is not None and known.numbers is numbers:
            return known
        kept, page, offset = slots_of(numbers, size)
        at = torch.tensor([page, offset, list(range(len(kept)))], dtype=torch.int32)
        tokens = None if len(kept) == len(numbers) else torch.tensor(kept)
        if known is None or known.at.shape != at.shape:
            device, indptr = slots.device, torch.arange(len(kept) + 1, dtype=torch.int32)
            on_device = (None if x is None else x.to(device) for x in (at, tokens, indptr))
            known = package.HELD[slots][size] = Slots(*on_device, numbers)
        else:
            known.at.copy_(at)
            if known.kept is not None:
                known.kept.copy_(tokens)
            known.numbers = numbers
        return known


def append_declines(call: Call) -> str | None:
    """It has one head dimension, in vectors, and a block of threads for a token."""
    if reason := package.vectors_decline(call, call.axes["Hk"]):
        return reason
    if call.axes["D"] != call.axes["Dv"]:
        return "D and Dv differ"
    if any(call.args[name].data_ptr() % VECTOR_BYTES for name in ("k_cache", "v_cache")):
        return "a cache does not start at a multiple of 16 bytes"
    return None


def merge_declines(call: Call) -> str | None:
    """A block of threads has all heads of a token."""
    return package.vectors_decline(call, call.axes["H"])


def merge(a: Tensor, lse_a: Tensor, b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """``merge_states`` by its merge_state, which takes contiguous states."""
    if not len(a):
        return a.new_empty(a.shape), lse_a.new_empty(lse_a.shape)
    sides = (a.contiguous(), to_base_2(lse_a), b.contiguous(), to_base_2(lse_b))
    out, lse = package.loaded(lambda: package.module().merge_state(*sides))
    return out, lse.mul_(package.LN2)


def merge_n(states: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
    """``merge_states_n`` by its merge_states, which takes the states of a token side by side."""
    if not states.shape[1]:
        return states.new_empty(states.shape[1:]), lses.new_empty(lses.shape[1:])
    sets = (states.transpose(0, 1).contiguous(), to_base_2(lses.transpose(0, 1)))
    out, lse = package.loaded(lambda: package.module().merge_states(*sets))
    return out, lse.mul_(package.LN2)


def to_base_2(lse: Tensor) -> Tensor:
    """A natural log-sum-exp as it has them, contiguous."""
    return (lse * package.LOG2E).contiguous()


def rope(x: Tensor, positions: Tensor, cos_sin: Tensor, interleaved: bool) -> Tensor:
    """``rope`` by its kernel for queries and keys, of which there are none. (What it offers as
    public rotates in place, or takes contiguous queries, and at least one key head.)"""
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    x = package.rows(x)
    if x.numel():
        run = package.module("rope")._apply_rope_pos_ids_cos_sin_cache
        given = (x, x[:, :0], y, y[:, :0], cos_sin, positions, interleaved)
        package.loaded(lambda: run(*given))
    return y


def rope_declines(call: Call) -> str | None:
    """Its table is contiguous, and read in vectors."""
    if call.dtype not in HALF or call.axes["D"] not in package.HEAD_DIMS:
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
    drawn: Tensor = package.loaded(lambda: package.module("sampling").sampling_from_probs(probs))
    return drawn


# Registration -----------------------------------------------------------------------------------


def register() -> None:
    """Register all of them where the package is."""
    if importlib.util.find_spec(package.PACKAGE) is None:
        return
    for how, contract in CONTRACTS.items():
        name, decodes = ("decode", True) if how == "decode" else (f"prefill_{how}", False)
        declines = decode_declines if decodes else attention_declines
        add("paged_attention", name, Paged(how), declines, contract=contract)
        if not decodes:
            add("varlen_attention", name, Ragged(how), declines, contract=contract)
    add("append_kv", "append", Append(), append_declines)
    add("merge_states", "cascade", merge, merge_declines)
    add("merge_states_n", "cascade", merge_n, merge_declines)
    add("rope", "rope", rope, rope_declines)
    add("draw_tokens", "sampling", sampled, supports_all, deterministic=False)


def add(
    op: str,
    name: str,
    run: Callable[..., Any],
    declines: Callable[[Call], str | None],
    **properties: Any,
) -> None:
    """Register a kernel of the package with an op."""
    name, where = f"{package.PACKAGE}.{name}", {"device": "cuda", "preference": -1}
    kernel = Kernel(op, name, run, supports=declines, **where, **properties)
    ops.get(op).register(kernel)


def main(argv: Sequence[str] | None = None) -> int:
    """Compile what the workloads of this repository need: minutes, once."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers.flash_infer", description=main.__doc__
    )
    parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("FlashInfer compiles for the GPU at hand, and there is none", file=sys.stderr)
        return 3
    kinds = {
        (w.case.dtype, w.case.D, w.case.window[0], w.case.softcap)
        for w in serving.load()
        if w.op in ("paged_attention", "varlen_attention") and w.case.D == w.case.Dv
    }
    for number, (dtype, *kind) in enumerate(sorted(kinds), 1):
        print(f"{number} of {len(kinds)}: {dtype}, {kind}", flush=True)
        attention.compile_for(getattr(torch, dtype), *kind)
    for name in ("page", "cascade", "rope", "sampling"):
        getattr(package.module(name), f"get_{name}_module")()
    return 0


if __name__ == "__main__":
    sys.exit(main())
