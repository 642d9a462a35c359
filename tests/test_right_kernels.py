"""Kernels that are right, and none of ours, are failed on no case; a wrong contract is named."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import right_kernels
from conftest import PLUGIN

from yaie import ops
from yaie.check import Judge
from yaie.op import Kernel

OP = ops.get("varlen_attention")
FAMILIES = {f.name: f for f in OP.Case.__dataclass_fields__.values()}["family"].metadata["one_of"]


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    right_kernels.register()
    with Judge({**PLUGIN, "YAIE_PLUGINS": "right_kernels"}) as judge:
        yield judge
    right_kernels.unregister()


def cases() -> Iterator[Any]:
    """Rows of one key, of one tile and of several, of every family."""
    for family, dtype, D in itertools.product(FAMILIES, OP.dtypes, (16, 64)):
        options = {"family": family, "dtype": dtype, "D": D, "Dv": D, "seed": D}
        yield OP.Case(q_lens=(1, 3, 5, 2), kv_lens=(1, 4, 5, 101), Hk=2, G=2, **options)


@pytest.mark.parametrize("kernel", right_kernels.RIGHT, ids=lambda k: k.name)
def test_a_right_kernel_is_failed_on_no_case(judge: Judge, kernel: Kernel) -> None:
    verdicts = [judge.judge(OP, kernel, case) for case in cases()]
    assert [] == [v.reason for v in verdicts if not v.ok]
    assert len(FAMILIES) * 2 <= sum(v.status == "pass" for v in verdicts)


@pytest.mark.parametrize("scale", [None, 0.05], ids=lambda s: f"scale={s}")
def test_one_sum_of_thousands_of_keys_is_failed_on_no_case(
    judge: Judge, scale: float | None
) -> None:
    """Like terms round one way at every step: no family may have thousands of them."""
    kernel = OP.kernels["right.in_order"]
    options = {"dtype": "float32", "D": 8, "Dv": 32, "scale": scale}
    cases = [OP.Case(q_lens=(1,), kv_lens=(8200,), family=family, **options) for family in FAMILIES]
    verdicts = [judge.judge(OP, kernel, case) for case in cases]
    assert [] == [v.reason for v in verdicts if v.status != "pass"]


def test_a_declaration_that_would_do_is_named(judge: Judge) -> None:
    kernel = OP.kernels["undeclared.flash"]
    case = OP.Case(kv_lens=(33,), D=64, Dv=64, dtype="bfloat16")
    verdict = judge.judge(OP, kernel, case)
    assert "fail" == verdict.status
    assert "; with p_rounded=True in its contract it may: declare that if" in str(verdict.reason)


def test_one_product_in_tf32_is_not_enough(judge: Judge) -> None:
    """No contract allows it, and so none is named."""
    kernel = OP.kernels["undeclared.tf32"]
    verdict = judge.judge(OP, kernel, OP.Case(kv_lens=(4,), D=64, Dv=64, dtype="float32"))
    assert "fail" == verdict.status
    assert "in its contract" not in str(verdict.reason)
