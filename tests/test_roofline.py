"""The limits of a machine, and what follows from them."""

from __future__ import annotations

import pytest
import torch

from benchmarks import roofline
from benchmarks.clock import Pace
from benchmarks.roofline import Peaks
from benchmarks.timing.cpu import Cpu
from yaie import ops
from yaie.arena import Arena
from yaie.fill import Fill
from yaie.op import Cost

PEAKS = Peaks(
    "cuda",
    memory={"copy": 4e12, "read": 5e12, "write": 4.5e12, "cache": 2e13},
    matmul={"float32": 5e13, "float16": 7e14, "bfloat16": 8e14},
)


def test_the_limit_is_the_longer_of_moving_and_computing() -> None:
    move = PEAKS.limit(Cost(bytes=5 * 10**9, flops=8 * 10**9), "bfloat16", cold=True)
    assert (move.seconds, move.bound) == (pytest.approx(1e-3), "memory")
    compute = PEAKS.limit(Cost(bytes=5 * 10**6, flops=8 * 10**11), "bfloat16", cold=True)
    assert (compute.seconds, compute.bound) == (pytest.approx(1e-3), "compute")


def test_data_in_the_cache_has_a_limit_of_its_own() -> None:
    cost = Cost(bytes=2 * 10**9)
    cold, warm = (PEAKS.limit(cost, "float16", cold).seconds for cold in (True, False))
    assert (cold, warm) == (pytest.approx(4e-4), pytest.approx(1e-4))


def test_a_kernel_may_compute_in_a_wider_dtype_where_that_is_faster() -> None:
    slow_halves = Peaks("cpu", PEAKS.memory, {"float32": 1e11, "float16": 1e9, "bfloat16": 8e11})
    assert slow_halves.flops("float16") == 1e11
    assert slow_halves.flops("bfloat16") == 8e11
    assert slow_halves.flops("float32") == 1e11
    assert slow_halves.flops("int32") == 8e11  # no product of its own: the most lenient limit


@pytest.mark.parametrize(("share", "broken"), [(2.0, False), (0.98, False), (0.96, True)])
def test_what_is_faster_than_the_limit_is_not_true(share: float, broken: bool) -> None:
    limit = PEAKS.limit(Cost(bytes=10**9), "float16", cold=True)
    assert broken == limit.broken_by(share * limit.seconds)


def test_float32_at_the_rate_of_tf32_breaks_the_limit_of_float32() -> None:
    flops = 10**13
    limit = PEAKS.limit(Cost(bytes=1, flops=flops), "float32", cold=True)
    assert limit.broken_by(flops / 4e14)


def test_this_machine_has_limits() -> None:
    machine = Cpu()
    machine.pace = Pace(step=1e-6, burst=0.0, gap=0.0, warm_up=1e-3)
    memory = roofline.memory_rates(machine, 1 << 20)
    assert {"copy", "read", "write"} == set(memory)
    assert all(1e8 < rate < 1e13 for rate in memory.values())
    before = torch.backends.cuda.matmul.allow_tf32
    assert 1e7 < roofline.matmul_rate(machine, "float32", 128) < 1e14
    assert before == torch.backends.cuda.matmul.allow_tf32


def test_what_is_no_wait_is_measured_large(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def rate(machine: object, dtype: str, size: int) -> float:
        sizes.append(size)
        return 1e9 if dtype == "float16" else 1e12

    monkeypatch.setattr(roofline, "matmul_rate", rate)
    roofline.best_matmul_rate(Cpu(), "float16")
    roofline.best_matmul_rate(Cpu(), "bfloat16")
    assert [roofline.MATRIX_SMALL, roofline.MATRIX_SMALL, roofline.MATRIX["cpu"]] == sizes


# What an op must move ------------------------------------------------------------------------


@pytest.mark.parametrize("op", ops.OPS.values(), ids=str)
def test_no_op_claims_to_move_more_than_twice_its_tensors(op: ops.Op) -> None:
    """Each byte of an argument is at most read once and written once, each of a result written."""
    arena = Arena(1 << 24)
    args, options = op.inputs(op.good, Fill(arena, op.good.seed))
    call = op.bind(**args, **options)
    given = [t for v in args.values() for t in (v if isinstance(v, list) else [v]) if t is not None]
    results = sum(
        op.result_dtype(p, call).itemsize * torch.Size(call.axes[a] for a in p.axes).numel()
        for p in op.signature.results
    )
    moved = op.cost(op.good).bytes
    assert 0 < moved <= 2 * sum(t.numel() * t.element_size() for t in given) + results


@pytest.mark.parametrize(("causal", "window"), [(True, (-1, -1)), (True, (2, 0)), (False, (1, 1))])
def test_attention_counts_the_pairs_that_its_mask_keeps(
    causal: bool, window: tuple[int, int]
) -> None:
    op = ops.get("paged_attention")
    case = op.Case(q_lens=(3, 2), kv_lens=(7, 2), Hk=2, G=3, D=8, causal=causal, window=window)
    pairs = 0
    for q_len, kv_len in zip(case.q_lens, case.kv_lens, strict=True):
        for i in range(q_len):
            position = kv_len - q_len + i
            for key in range(kv_len):
                left = window[0] < 0 or key >= position - window[0]
                right = window[1] < 0 or key <= position + window[1]
                pairs += left and right and (key <= position or not causal)
    assert op.cost(case).flops == 2 * pairs * 6 * (8 + 8)
