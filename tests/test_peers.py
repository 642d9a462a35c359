"""Peers are right where they serve, and say so where they do not."""

from __future__ import annotations

import importlib.util
import itertools
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import peers
from benchmarks.peers import torch_compiled
from benchmarks.peers.batches import Attention, Memo, Rows, keep_mask, masked
from benchmarks.peers.torch_sdpa import Limits
from benchmarks.timing.inputs import Inputs
from yaie import ops
from yaie.arena import Arena
from yaie.check import Judge
from yaie.fill import Fill
from yaie.kernels.torch_eager import movers

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
PAGED = "paged_attention.Case(q_lens=({}), kv_lens=({}), S=4, Hk=2, G=2, D=16, Dv=16{})"
VARLEN = "varlen_attention.Case(q_lens=({}), kv_lens=({}), Hk=2, G=2, D=16, Dv=16{})"
BATCHES = [
    ("1, 1, 1", "40, 33, 40", ""),
    ("9, 9", "9, 9", ""),
    ("5, 1, 0", "21, 7, 3", ""),
    ("5, 2", "3, 40", ", window=(6, 0)"),
    ("1, 3", "0, 3", ", causal=False, dtype='float32'"),
]
TOKENS_AND_CACHES = {
    "k": (3, 2, 8),
    "v": (3, 2, 8),
    "k_cache": (4, 4, 2, 8),
    "v_cache": (4, 4, 2, 8),
}
DENSE = ("torch.sdpa_cpu", "torch.sdpa_math", "transformers.eager")


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with Judge({"YAIE_PLUGINS": peers.__name__, "PYTHONPATH": path}, timeout=300) as judge:
        yield judge


@pytest.mark.parametrize("case", [c.format(*b) for c in (PAGED, VARLEN) for b in BATCHES])
@pytest.mark.parametrize("name", DENSE)  # one after the other: each has a worker
def test_dense_attention_stands_in_for_packed_and_paged(judge: Judge, name: str, case: str) -> None:
    op = ops.get(case.partition(".")[0])
    drawn = op.parse_case(case)
    if name == "torch.sdpa_cpu":  # its log-sum-exp is out of budget in half precision: a finding
        drawn = replace(drawn, dtype="float32")
    verdict = judge.judge(op, op.kernels[name], drawn)
    assert verdict.status == "pass", verdict.reason


def test_what_dense_attention_cannot_do_it_declines(judge: Judge) -> None:
    op = ops.get("paged_attention")
    case = op.parse_case(PAGED.format("1,", "5,", ", softcap=30.0"))
    verdict = judge.judge(op, op.kernels["torch.sdpa_math"], case)
    assert ("unsupported", "this attention has no softcap") == (verdict.status, verdict.reason)


@pytest.mark.parametrize("scale", [0.0, -0.3, 0.3, None])
def test_a_backend_that_gives_nan_declines_a_scale_that_is_not_positive(
    scale: float | None,
) -> None:
    op = ops.get("varlen_attention")
    args, options = op.inputs(replace(op.good, scale=scale), Fill(Arena(), 0))
    call = op.bind(**args, **options)
    positive = scale is None or scale > 0
    assert positive == (Limits(any_scale=False).declines(call) is None)
    assert Limits().declines(call) is None


def test_laws_are_asked_of_no_plugin() -> None:
    """They call with tensors of the CPU, in all dtypes and shapes, and other ops by that name."""
    suite = ["conformance/test_paged_attention.py", "--kernel", "torch.*"]
    collect = ["-m", "pytest", "--collect-only", "-q", "-p", "no:benchmark", "-p", "no:xdist"]
    env = {**os.environ, "YAIE_PLUGINS": peers.__name__}
    found = subprocess.run(
        [sys.executable, *collect, *suite], capture_output=True, text=True, cwd=ROOT, env=env
    )
    named = [line.partition("::")[2] for line in found.stdout.splitlines() if "::" in line]
    of_peers = [name for name in named if "torch.sdpa_math" in name]
    assert ["test_equivalence[paged_attention-torch.sdpa_math]"] == of_peers, found.stdout
    assert len([name for name in named if "torch.eager" in name]) >= 5


@pytest.mark.parametrize(
    ("op", "kernel", "case"),
    [
        ("greedy", "torch.argmax", "greedy.Case(B=3, V=999)"),
        (
            "filter_tokens",
            "torch.topk",
            "filter_tokens.Case(B=3, V=4000, temperature=0.7, top_k=50, top_p=0.9)",
        ),
    ],
)
def test_sampling_of_torch(judge: Judge, op: str, kernel: str, case: str) -> None:
    verdict = judge.judge(ops.get(op), ops.get(op).kernels[kernel], ops.get(op).parse_case(case))
    assert verdict.status == "pass", verdict.reason


def test_numbers_of_another_generator_are_a_finding(judge: Judge) -> None:
    op = ops.get("draw_tokens")
    verdict = judge.judge(op, op.kernels["torch.multinomial"], op.parse_case("Case(B=64, V=4000)"))
    assert verdict.status == "fail"


def test_what_is_compiled_writes_to_memory_that_it_shares() -> None:
    """As the judge gives it: all of a call in one buffer, in other memory at the second call."""
    run = torch_compiled.Storing(torch_compiled.store, movers.append_kv)
    compiled = torch._dynamo.utils.counters["stats"]
    before = compiled["unique_graphs"]
    for shift in (0, 8192, 16384):
        memory = torch.zeros(1 << 16, dtype=torch.uint8)
        laid = itertools.count(shift, 4096)
        given = {
            name: memory[at : at + 2 * math.prod(shape)].view(torch.bfloat16).view(shape)
            for (name, shape), at in zip(TOKENS_AND_CACHES.items(), laid, strict=False)
        }
        given["slots"] = memory[shift + 20480 :][:12].view(torch.int32)
        given["slots"].copy_(torch.tensor([5, 0, 11] if shift < 16384 else [5, -1, 11]))
        for value in (given["k"], given["v"]):
            value.copy_(torch.randn(value.shape))
        run(**given)
        for values, cache in (("k", "k_cache"), ("v", "v_cache")):
            stored, kept = given[cache].flatten(0, 1), given["slots"] >= 0
            assert torch.equal(stored[given["slots"][kept].long()], given[values][kept])
            assert stored.count_nonzero() == given[values][kept].count_nonzero()
    assert compiled["unique_graphs"] == before + 1


def test_what_a_copy_would_lose_it_declines() -> None:
    op = ops.get("append_kv")
    reasons = []
    for text in ("Case(T=5)", "Case(T=0)", "Case(T=1, P=1572864, S=16, Hk=1, D=128, Dv=128)"):
        args, options = op.inputs(op.parse_case(text), Fill(Arena(1 << 43), 0))
        reasons.append(torch_compiled.declines(op.bind(**args, **options)) or "")
    assert reasons[0] == ""
    assert "is empty" in reasons[1]
    assert "2 GiB" in reasons[2]


# Triton, interpreted ---------------------------------------------------------------------------

TRITON_BATCHES = [
    *BATCHES,
    ("70, 1", "200, 150", ", softcap=2.0, layout='shifted'"),
    ("7, 2, 0", "3, 90, 4", ", window=(20, 3), causal=False, scale=-0.3"),
    ("3, 33", "130, 40", ", window=(5, 0), scale=0.0, dtype='float32'"),
    ("", "", ""),
]


@pytest.fixture(scope="module")
def interpreter() -> Iterator[Judge]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = {"YAIE_PLUGINS": peers.__name__, "PYTHONPATH": path, "TRITON_INTERPRET": "1"}
    with Judge(env, timeout=300) as judge:
        yield judge


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
@pytest.mark.parametrize("sizes", ["16, Dv=16", "40, Dv=24"])
@pytest.mark.parametrize("case", [c.format(*b) for c in (PAGED, VARLEN) for b in TRITON_BATCHES])
def test_triton_attention(interpreter: Judge, case: str, sizes: str) -> None:
    """On the CPU, in guarded memory; what is compiled for a GPU is the same source."""
    op = ops.get(case.partition(".")[0])
    kernel = replace(op.kernels["triton.attention"], device="cpu")
    drawn = op.parse_case(case.replace("16, Dv=16", sizes))
    verdict = interpreter.judge(op, kernel, drawn)
    assert verdict.status == "pass", verdict.reason


# Plans ---------------------------------------------------------------------------------------


def test_a_plan_is_made_once_and_again_once_its_lengths_are_written() -> None:
    memo, made = Memo(), []
    lengths = torch.tensor([1, 2])

    def make() -> int:
        made.append(1)
        return len(made)

    assert (1, 1) == (memo(lengths, "a", make), memo(lengths, "a", make))
    assert 2 == memo(lengths, "b", make)
    lengths[0] = 1
    assert 1 == memo(lengths, "a", make)  # a recorded graph reads what was made
    lengths[0] = 3
    assert 3 == memo(lengths, "a", make)
    assert 4 == memo(torch.tensor([1, 2]), "a", make)


def test_nothing_is_left_for_the_host_once_a_batch_is_planned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for text in (PAGED, VARLEN):
        op = ops.get(text.partition(".")[0])
        case = op.parse_case(text.format("5, 1, 0", "21, 7, 3", ""))
        inputs = Inputs(op, case, "cpu", 1 << 10, 1 << 22)
        rotation = inputs.rotation(op.kernels["torch.sdpa_math"])
        rotation.refresh(0)
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "tolist", lambda tensor: pytest.fail("reads the device"))
            for call in rotation.calls:
                call()


def test_a_mask_holds_the_keys_that_some_query_keeps() -> None:
    how = Attention(True, 1.0, (2, 0), 0.0)
    mask = masked(2, 8, how, torch.float32, CPU)
    assert (range(4, 8), 2, False) == (mask.keys, mask.first, mask.square)
    assert [[1, 1, 1, 0], [0, 1, 1, 1]] == mask.keep.int().tolist()
    square = masked(3, 3, Attention(True, 1.0, (-1, -1), 0.0), torch.float32, CPU)
    assert square.square and square.some is None
    assert keep_mask(1, 9, Attention(True, 1.0, (-1, -1), 0.0), CPU) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["torch.sdpa_flash", "torch.sdpa_cudnn", "torch.sdpa_efficient"])
def test_backends_of_the_gpu(judge: Judge, name: str) -> None:
    op = ops.get("paged_attention")
    case = PAGED.replace("16", "64").format("9, 9", "9, 9", ", dtype='bfloat16'")
    assert judge.judge(op, op.kernels[name], op.parse_case(case)).status == "pass"


def test_rows_that_lie_in_order_are_no_copy_unless_vectors_cannot_read_them() -> None:
    packed = torch.arange(6 * 8, dtype=torch.float32).view(6, 1, 8)
    together, apart = (Rows.of(s, range(2), torch.device("cpu")) for s in ([0, 2, 4], [0, 4]))
    assert together.take(packed).data_ptr() == packed.data_ptr()
    shifted = torch.arange(6 * 8 + 1, dtype=torch.float32)[1:].view(6, 1, 8)
    padded = torch.arange(6 * 11, dtype=torch.float32).view(6, 1, 11)[..., :8]
    for rows, given in itertools.product((together, apart), (packed, shifted, padded)):
        taken = rows.take(given)
        assert torch.equal(given[rows.at], taken)
        assert taken.is_contiguous() and taken.data_ptr() % 16 == 0
        target = torch.zeros_like(packed)
        rows.put(target, taken)
        assert torch.equal(given[rows.at], target[rows.at])
    assert together.are_all_of(packed) and not apart.are_all_of(packed)
