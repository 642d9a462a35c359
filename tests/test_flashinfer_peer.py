"""FlashInfer as a peer: what it is given means what the op means. Its kernels need a GPU, so here
its functions are those of its documentation, in plain PyTorch."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.peers import flash_infer, flash_infer_package
from benchmarks.peers import flash_infer_attention as attention
from yaie import ops
from yaie.arena import Arena
from yaie.dispatch import Unsupported
from yaie.fill import Fill
from yaie.op import Kernel
from yaie.ops._attention import attend, keep_mask
from yaie.ops._rope import rotate

BATCHES = [
    ("1, 1, 1", "40, 33, 1", ""),
    ("1, 1", "0, 64", ""),
    ("1, 1", "20, 36", ", window=(3, 0)"),  # whole pages of 4 are unseen
    ("1, 1", "20, 37", ", window=(4, 0)"),  # parts of pages are
    ("1, 1", "20, 37", ", window=(2147483647, 0)"),
    ("5, 2", "20, 37", ", window=(6, 0)"),
    ("9, 9", "9, 9", ""),
    ("5, 1, 0", "21, 7, 3", ""),
    ("5, 2", "3, 40", ", softcap=3.0, scale=0.3"),
    ("3, 2", "9, 40", ", causal=False, window=(-1, 0)"),
    ("1, 3", "0, 3", ", causal=False"),
    ("0, 2", "5, 0", ""),
    ("", "", ""),
]
PAGED = "Case(q_lens=({}), kv_lens=({}), S=4, Hk=2, G=2, D=64, Dv=64, layout='shifted'{})"
VARLEN = "Case(q_lens=({}), kv_lens=({}), Hk=2, G=2, D=64, Dv=64{})"


# What its documentation says ------------------------------------------------------------------


@dataclass
class Wrapper:
    """All of its wrappers. ``kind``: what it plans for."""

    kind: str

    def plan(self, *given: Any, causal: bool = False, **options: Any) -> None:
        self.causal, self.options = causal, options
        if self.kind == "decode":
            self.indptr, self.indices, self.last = given[:3]
            self.q_indptr = torch.arange(len(self.last) + 1)
        elif self.kind == "paged":
            self.q_indptr, self.indptr, self.indices, self.last = given[:4]
        else:
            self.q_indptr, self.indptr = given[:2]

    def keys(self, b: int, cache: Tensor) -> Tensor:
        begin, end = self.indptr[b : b + 2].tolist()
        if self.kind == "ragged":
            return cache[begin:end]
        count = max(end - begin - 1, 0) * cache.shape[1] + int(self.last[b])
        return cache[self.indices[begin:end].long()].flatten(0, 1)[:count]

    def run(self, q: Tensor, *kv: Any, return_lse: bool) -> tuple[Tensor, Tensor]:
        k, v = kv if self.kind == "ragged" else kv[0]
        out, lse = torch.zeros_like(q), torch.zeros(q.shape[:2])
        window = (self.options["window_left"], -1)
        for b in range(len(self.indptr) - 1):
            rows = slice(*self.q_indptr[b : b + 2].tolist())
            keys, values = self.keys(b, k), self.keys(b, v)
            assert not len(q[rows]) or values.isfinite().all()  # it multiplies all of them
            keep = keep_mask(len(q[rows]), len(keys), self.causal, window, q.device)
            scale, softcap = self.options["sm_scale"], self.options["logits_soft_cap"]
            made = attend(q[rows], keys, values, keep, scale, softcap)
            out[rows], lse[rows] = made.out.to(q.dtype), (made.lse / math.log(2)).float()
        return out, lse


def append_paged_kv_cache(
    k: Tensor,
    v: Tensor,
    batch: Tensor,
    positions: Tensor,
    caches: tuple[Tensor, Tensor],
    indices: Tensor,
    indptr: Tensor,
    last: Tensor,
    layout: str,
) -> None:
    size = caches[0].shape[1]
    page = indices[(indptr[batch] + positions // size).long()].long()
    for cache, rows in zip(caches, (k, v), strict=True):
        cache[page, (positions % size).long()] = rows


def merge_states(states: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
    assert states.is_contiguous() and lses.is_contiguous()
    natural = lses.double() * math.log(2)
    lse = natural.logsumexp(1)
    weights = (natural - lse[:, None]).exp()[..., None]
    return (weights * states).sum(1).to(states.dtype), (lse / math.log(2)).float()


def merge_state(a: Tensor, lse_a: Tensor, b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    return merge_states(torch.stack([a, b], 1), torch.stack([lse_a, lse_b], 1))


def apply_rope(
    q: Tensor, k: Tensor, q_out: Tensor, k_out: Tensor, table: Tensor, at: Tensor, interleave: bool
) -> None:
    assert table.is_contiguous() and k.shape == k_out.shape == (len(q), 0, q.shape[2])
    q_out.copy_(rotate(q, at, table, interleave).y)


class MissingJITCacheError(RuntimeError):
    spec: Any = None


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The package, by what the peers call of it."""
    fake = SimpleNamespace(
        BatchDecodeWithPagedKVCacheWrapper=lambda *_, **__: Wrapper("decode"),
        BatchPrefillWithPagedKVCacheWrapper=lambda *_, **__: Wrapper("paged"),
        BatchPrefillWithRaggedKVCacheWrapper=lambda *_, **__: Wrapper("ragged"),
        append_paged_kv_cache=append_paged_kv_cache,
        merge_state=merge_state,
        merge_states=merge_states,
        _apply_rope_pos_ids_cos_sin_cache=apply_rope,
        MissingJITCacheError=MissingJITCacheError,
    )
    monkeypatch.setattr(flash_infer_package, "module", lambda name="": fake)
    monkeypatch.setattr(attention, "workspace", lambda device: None)
    monkeypatch.setattr(attention, "backends", lambda device: ("fa2",))
    return fake


def judged(op_name: str, kernel: Kernel, text: str) -> list[str | None]:
    """The checks that its results fail."""
    op = ops.get(op_name)
    args, options = op.inputs(op.parse_case(text), Fill(Arena(), 0))
    call = op.bind(**args, **options)
    assert kernel.supports(call) is None
    left = {name: value.clone() for name, value in args.items()}
    expected = op.reference(**left, **options)
    made = kernel.run(**args, **options)
    if op.comparison is None:
        same = (torch.equal(args[n].view(torch.uint8), left[n].view(torch.uint8)) for n in args)
        return [None if all(same) else "bytes"]
    wanted = op.comparison(expected, call, kernel.contract)
    names = (p.name for p in op.signature.results)
    results = dict(zip(names, made if isinstance(made, tuple) else (made,), strict=True))
    return [wanted[name].judge(name, value).reason for name, value in results.items()]


def kernel_of(op: str, run: Any, declines: Any) -> Kernel:
    return Kernel(op, "x", run, contract=attention.ROUNDED_SUM, supports=declines)


# Attention ------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", BATCHES)
def test_prefill_on_pages(batch: tuple[str, str, str]) -> None:
    kernel = kernel_of("paged_attention", attention.Paged("fa2"), attention.attention_declines)
    assert [None, None] == judged("paged_attention", kernel, PAGED.format(*batch))


@pytest.mark.parametrize("batch", [b for b in BATCHES if set(b[0]) <= set("1, ")])
def test_decode(batch: tuple[str, str, str]) -> None:
    kernel = kernel_of("paged_attention", attention.Paged("decode"), attention.decode_declines)
    assert [None, None] == judged("paged_attention", kernel, PAGED.format(*batch))


def test_its_decode_declines_other_batches() -> None:
    kernel = kernel_of("paged_attention", attention.Paged("decode"), attention.decode_declines)
    with pytest.raises(Unsupported, match="other than one query"):
        judged("paged_attention", kernel, PAGED.format("2, 0", "9, 5", ""))


UNSEEN = re.compile(r"window=\(\d,")


@pytest.mark.parametrize("batch", [b for b in BATCHES if not UNSEEN.search(b[2])])
def test_prefill_on_packed_keys(batch: tuple[str, str, str]) -> None:
    kernel = kernel_of("varlen_attention", attention.Ragged("fa2"), attention.attention_declines)
    assert [None, None] == judged("varlen_attention", kernel, VARLEN.format(*batch))


def test_unseen_keys_among_packed_ones_are_declined() -> None:
    """It multiplies their values by 0, and they may be NaN."""
    kernel = kernel_of("varlen_attention", attention.Ragged("fa2"), attention.attention_declines)
    with pytest.raises(Unsupported, match="outside of a window"):
        judged("varlen_attention", kernel, VARLEN.format("1,", "20,", ", window=(4, 0)"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dtype": "float32"}, "half precision"),
        ({"D": 80, "Dv": 80}, "64, 128 and 256"),
        ({"scale": 0.0}, "scale is 0.0"),
        ({"causal": False, "window": (-1, 2)}, "to the right"),
    ],
)
def test_what_its_attention_lacks_is_declined(change: dict[str, Any], reason: str) -> None:
    op = ops.paged_attention
    case = replace(op.Case(D=64, Dv=64), **change)
    args, options = op.inputs(case, Fill(Arena(), 0))
    call = op.bind(**args, **options)
    assert reason in (attention.attention_declines(call) or "")


def test_other_pages_are_written_to_the_same_memory() -> None:
    """A recorded CUDA graph reads them."""
    op, run = ops.paged_attention, attention.Paged("fa2")
    args, options = op.inputs(op.parse_case(PAGED.format("2, 1", "9, 5", "")), Fill(Arena(), 0))
    whole = {n: args[n] for n in ("block_table", "kv_lens", "q_indptr")}
    axes = {"Hq": 4, "Hk": 2, "D": 64, "S": 4}
    first = run.plan(whole, axes, torch.float16, options)
    pages, place = first.indices.tolist(), first.indices.data_ptr()
    args["block_table"][:, :3] = args["block_table"][:, :3].flip(1)
    again = run.plan(whole, axes, torch.float16, options)
    assert again is first and again.indices.data_ptr() == place
    assert (
        pages
        != again.indices.tolist()
        == args["block_table"][0, :3].tolist() + args["block_table"][1, :2].tolist()
    )
    args["kv_lens"][1] = 4
    assert [0, 3, 4] == run.plan(whole, axes, torch.float16, options).wrapper.indptr.tolist()


def test_a_backend_of_another_gpu_is_declined() -> None:
    kernel = kernel_of("varlen_attention", attention.Ragged("fa3"), lambda call: None)
    with pytest.raises(Unsupported, match="does not run fa3"):
        judged("varlen_attention", kernel, VARLEN.format("1,", "5,", ""))


# Other ops ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case",
    [
        "Case(T=9, P=4, S=4, D=64, Dv=64)",
        "Case(T=9, P=4, S=5, D=64, Dv=64, skip=3, layout='fused')",
        "Case(T=3, P=4, S=1, D=64, Dv=64, skip=1)",
        "Case(T=0, D=64, Dv=64)",
    ],
)
def test_append_kv(case: str) -> None:
    kernel = kernel_of("append_kv", flash_infer.Append(), flash_infer.append_declines)
    assert [None] == judged("append_kv", kernel, case)


def test_other_slots_are_written_to_the_same_memory() -> None:
    append, slots = flash_infer.Append(), torch.tensor([5, -1, 8], dtype=torch.int32)
    first = append.plan({"slots": slots}, {"S": 4})
    assert ([[1, 2], [1, 0], [0, 1]], [0, 2]) == (first.at.tolist(), first.kept.tolist())
    slots.copy_(torch.tensor([-1, 3, 9]))
    assert first is append.plan({"slots": slots}, {"S": 4})
    assert ([[0, 2], [3, 1], [0, 1]], [1, 2]) == (first.at.tolist(), first.kept.tolist())


@pytest.mark.parametrize(
    ("op", "run", "case"),
    [
        ("merge_states", flash_infer.merge, "Case(T=5, H=3, D=64, gap=9.0, pad=2)"),
        ("merge_states", flash_infer.merge, "Case(T=0, D=64)"),
        ("merge_states_n", flash_infer.merge_n, "Case(K=4, T=5, H=3, D=64, pad=1)"),
        ("merge_states_n", flash_infer.merge_n, "Case(K=4, T=0, D=64)"),
    ],
)
def test_merges(op: str, run: Any, case: str) -> None:
    assert [None, None] == judged(op, kernel_of(op, run, flash_infer.merge_declines), case)


@pytest.mark.parametrize("more", ["64, layout='fused'", "32, interleaved=True", "64, T=0"])
def test_rope(more: str) -> None:
    kernel = kernel_of("rope", flash_infer.rope, flash_infer.rope_declines)
    case = f"Case(D=64, R={more})"
    assert [None] == judged("rope", kernel, case)


# Compiling ------------------------------------------------------------------------------------


def test_what_is_not_compiled_is_declined(package: SimpleNamespace) -> None:
    def missing(*_: Any, **__: Any) -> Any:
        raise MissingJITCacheError("attention for 64")

    package.BatchPrefillWithRaggedKVCacheWrapper = missing
    kernel = kernel_of("varlen_attention", attention.Ragged("fa2"), attention.attention_declines)
    with pytest.raises(Unsupported, match="not compiled: attention for 64"):
        judged("varlen_attention", kernel, VARLEN.format("1,", "5,", ""))


def test_what_is_compiled_already_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(flash_infer_package.NO_JIT, raising=False)
    tries = []

    def load() -> str:
        tries.append(os.environ.get(flash_infer_package.NO_JIT))
        if tries[-1]:
            error = MissingJITCacheError("in the cache, which it looks at only when it may compile")
            error.spec = SimpleNamespace(name="x", is_compiled=True)
            raise error
        return "loaded"

    assert ("loaded", ["1", None]) == (flash_infer_package.loaded(load), tries)
