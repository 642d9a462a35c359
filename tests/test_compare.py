"""How results are judged, on numbers that were worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from yaie import compare
from yaie.compare import (
    Budget,
    Contract,
    Exact,
    different,
    rho,
    told,
    unit_roundoff,
    weighty,
)

INF, NAN = math.inf, math.nan


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def budget(expected: Tensor, allowed: float | Tensor, model: float | None = None) -> Budget:
    terms = {"rounding": torch.as_tensor(allowed, dtype=torch.float64).expand_as(expected)}
    size = None if model is None else torch.full_like(expected, model)
    return Budget(expected, terms, size)


# Exact ---------------------------------------------------------------------------------------


def test_the_same_bits_are_exact() -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.int32, torch.uint8):
        values = torch.tensor([0, 1, 2], dtype=dtype)
        assert Exact(values).judge("x", values.clone()).check is None


def test_minus_zero_is_not_zero() -> None:
    judgement = Exact(torch.tensor([1.0, 0.0])).judge("x", torch.tensor([1.0, -0.0]))
    assert "exact" == judgement.check
    assert "x[1] is -0.0, should be 0.0 (bit for bit)" == judgement.reason


@pytest.mark.parametrize(
    ("int_dtype", "dtype", "quiet", "signalling"),
    [
        (torch.int32, torch.float32, 0x7FC00001, 0x7F800001),
        (torch.int16, torch.float16, 0x7E01, 0x7C01),
        (torch.int16, torch.bfloat16, 0x7FC1, 0x7F81),
    ],
)
def test_nans_of_other_payloads_differ_and_equal_ones_do_not(
    int_dtype: torch.dtype, dtype: torch.dtype, quiet: int, signalling: int
) -> None:
    a = torch.tensor([quiet], dtype=int_dtype).view(dtype)
    b = torch.tensor([signalling], dtype=int_dtype).view(dtype)
    assert Exact(a).judge("x", a.clone()).check is None
    assert "exact" == Exact(a).judge("x", b).check


def test_the_first_differing_element_is_named() -> None:
    actual = torch.zeros(2, 3)
    actual[0, 2] = actual[1, 1] = 5
    assert str(Exact(torch.zeros(2, 3)).judge("y", actual).reason).startswith("y[0, 2] is 5.0")


def test_empty_tensors_are_exact() -> None:
    assert Exact(torch.empty(0, 4)).judge("x", torch.empty(0, 4)).check is None


def test_exactness_reads_through_strides() -> None:
    values = torch.arange(6.0).view(2, 3)
    assert Exact(values).judge("x", values.T.contiguous().T).check is None


# Budget, element by element ------------------------------------------------------------------


def test_the_allowance_itself_passes_and_one_ulp_more_fails() -> None:
    judge = budget(column(1.0), 0.25).judge
    assert judge("x", column(1.25)).check is None
    assert judge("x", column(0.75)).check is None
    assert "budget" == judge("x", column(math.nextafter(1.25, 2))).check
    assert "budget" == judge("x", column(math.nextafter(0.75, 0))).check


def test_nothing_allowed_means_equal() -> None:
    judge = budget(column(1.0, 0.0), 0.0).judge
    exact = judge("x", column(1.0, -0.0))
    assert (None, 0.0) == (exact.check, exact.receipt.used)
    wrong = judge("x", column(1.0, 5e-324))
    assert ("budget", INF, (1,)) == (wrong.check, wrong.receipt.used, wrong.receipt.index)


@pytest.mark.parametrize("allowed", [0.0, 1.0, 1e300, INF, NAN])
@pytest.mark.parametrize("expected", [0.0, 1.0, INF, -INF, NAN])
def test_nan_never_passes(expected: float, allowed: float) -> None:
    assert budget(column(expected), allowed).judge("x", column(NAN)).check is not None


@pytest.mark.parametrize("allowed", [0.0, 1.0, INF])
@pytest.mark.parametrize("expected", [INF, -INF])
@pytest.mark.parametrize("actual", [INF, -INF, 0.0, 1e308])
def test_an_infinity_must_stand_where_it_should(
    expected: float, actual: float, allowed: float
) -> None:
    """Whatever is allowed: terms that are relative to the expected number are infinite there."""
    judgement = budget(column(2.0, expected), allowed).judge("x", column(2.0, actual))
    assert (actual == expected) == (judgement.check is None)
    if judgement.check is not None:
        assert "x[1] is" in str(judgement.reason)


@pytest.mark.parametrize("allowed", [0.0, 1e300, INF])
@pytest.mark.parametrize("actual", [INF, -INF])
def test_an_infinity_is_no_approximation_of_a_number(actual: float, allowed: float) -> None:
    assert budget(column(1.0), allowed).judge("x", column(actual)).check is not None


def test_a_wrong_infinity_is_found_among_right_ones() -> None:
    expected = column(-INF, -INF, 1.0)
    judgement = budget(expected, 1.0).judge("lse", column(-INF, INF, 1.0))
    assert ("special values", "lse[1] is inf, should be -inf") == (
        judgement.check,
        judgement.reason,
    )


def test_where_every_element_is_a_right_infinity_nothing_is_wrong() -> None:
    assert budget(column(-INF, INF), INF).judge("x", column(-INF, INF)).check is None


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (0, 2, 8)])
def test_empty_results_pass(shape: tuple[int, ...]) -> None:
    empty = torch.empty(shape, dtype=torch.float64)
    assert compare.Judgement() == budget(empty, 1.0, model=1.0).judge("x", empty.half())


def test_a_result_is_compared_before_it_is_rounded() -> None:
    """float16 holds no 1/3; the oracle is not rounded for its sake."""
    third = torch.tensor([1 / 3], dtype=torch.float64)
    error = abs(float(third.half()) - 1 / 3)
    assert budget(third, error).judge("x", third.half()).check is None
    assert "budget" == budget(third, error * 0.999).judge("x", third.half()).check


def test_the_receipt_names_the_worst_element_and_the_term_that_dominates_there() -> None:
    expected = torch.zeros(2, 3, dtype=torch.float64)
    small, large = torch.full_like(expected, 0.1), torch.full_like(expected, 0.1)
    large[1, 2] = 0.3
    actual = expected.clone()
    actual[0, 0], actual[1, 2] = 0.1, 0.3
    receipt = Budget(expected, {"small": small, "large": large}).judge("out", actual).receipt
    assert ("out", "large", (1, 2)) == (receipt.output, receipt.term, receipt.index)
    assert (0.3, 0.0) == (receipt.actual, receipt.expected)
    assert 0.4 == pytest.approx(receipt.allowed)
    assert 0.75 == pytest.approx(receipt.used)


def test_the_receipt_of_a_fault_shows_the_worst_and_not_the_first_element() -> None:
    judgement = budget(column(0.0, 0.0, 0.0), 1.0).judge("x", column(2.0, 0.0, 9.0))
    assert ((2,), 9.0) == (judgement.receipt.index, judgement.receipt.used)
    assert "x[2] is 9, should be 0 ± 1: 9 of the budget used (mostly: rounding)" == judgement.reason


def test_nan_is_the_worst_element_of_all() -> None:
    receipt = budget(column(0.0, 0.0), 1.0).judge("x", column(1e300, NAN)).receipt
    assert ((1,), INF) == (receipt.index, receipt.used)


# Budget, row by row --------------------------------------------------------------------------


def test_a_systematic_error_fails_a_row_whose_elements_each_pass() -> None:
    expected = torch.zeros(2, 64, dtype=torch.float64)
    judge = budget(expected, 4.0, model=1.0).judge
    actual = expected.clone()
    actual[1] = 1.24
    assert judge("x", actual).check is None
    actual[1] = 1.26
    judgement = judge("x", actual)
    assert "row budget" == judgement.check
    assert "x[1, :]" in str(judgement.reason)


def test_one_large_error_in_a_long_row_is_no_systematic_one() -> None:
    expected = torch.zeros(1, 256, dtype=torch.float64)
    actual = expected.clone()
    actual[0, 7] = 4.0
    assert budget(expected, 4.0, model=1.0).judge("x", actual).check is None


def test_the_worst_row_is_named() -> None:
    expected = torch.zeros(3, 2, 64, dtype=torch.float64)
    actual = expected.clone()
    actual[0, 1], actual[2, 0] = 1.5, 2.5
    assert "x[2, 0, :]" in str(budget(expected, 4.0, model=1.0).judge("x", actual).reason)


def test_a_right_infinity_does_not_fail_its_row() -> None:
    expected = torch.zeros(1, 64, dtype=torch.float64)
    expected[0, 3] = -INF
    assert budget(expected, 4.0, model=1.0).judge("x", expected.clone()).check is None


def test_rows_without_a_model_are_not_judged() -> None:
    expected = torch.zeros(1, 64, dtype=torch.float64)
    assert budget(expected, 4.0).judge("x", expected + 4.0).check is None


def test_the_row_allowance_is_rho_on_the_rows_that_it_was_measured_on() -> None:
    assert [compare.RHO] * 3 == [rho(n) for n in (64, 65, 4096)]


def test_the_row_allowance_grows_as_rows_shrink() -> None:
    allowances = [rho(n) for n in (1, 2, 8, 16, 32, 64)]
    assert sorted(allowances, reverse=True) == allowances
    assert math.sqrt(1 + (1.25**2 - 1) * 64) == pytest.approx(allowances[0])


# The constants -------------------------------------------------------------------------------


def test_the_constants_are_those_of_the_calibration() -> None:
    """a change needs a decision note with a measurement; then this line changes too."""
    assert (4.0, 1.25, 16.0, 2.0) == (
        compare.LAMBDA,
        compare.RHO,
        compare.LSE_C,
        compare.SCORE_C,
    )


@pytest.mark.parametrize(
    ("dtype", "bits"), [(torch.float32, 24), (torch.float16, 11), (torch.bfloat16, 8)]
)
def test_the_unit_roundoff_is_half_an_ulp_of_one(dtype: torch.dtype, bits: int) -> None:
    u = unit_roundoff(dtype)
    assert 2.0**-bits == u
    one = torch.ones((), dtype=torch.float64)
    assert 1.0 == float((one + u * 0.999).to(dtype))
    assert 1.0 < float((one + u * 1.001).to(dtype))


@pytest.mark.parametrize(
    ("contract", "roundings"),
    [
        (Contract(), 0),
        (Contract(p_rounded=True), 1),
        (Contract(partials_in_dtype=True), 1),
        (Contract(p_rounded=True, partials_in_dtype=True), 2),
        (Contract(row_sum_of_rounded_p=True), 0),
    ],
)
def test_a_contract_counts_its_roundings(contract: Contract, roundings: int) -> None:
    assert roundings == contract.roundings


def test_accumulation_grows_by_the_root_in_ieee_and_linearly_in_a_tensor_core() -> None:
    n = column(0.0, 36.0, 3600.0)
    assert [0.0, 24 * 2.0**-24, 240 * 2.0**-24] == Contract().accumulation(n).tolist()
    tensor_core = Contract(accumulator="tensor_core").accumulation(n)
    assert column(0.0, 6 * 2.0**-24, 600 * 2.0**-24).tolist() == pytest.approx(tensor_core.tolist())


def test_only_pass_and_unsupported_are_no_fault() -> None:
    verdicts = {
        status: compare.Verdict(status).ok
        for status in ("pass", "fail", "crash", "timeout", "unsupported")
    }
    assert {"pass", "unsupported"} == {status for status, ok in verdicts.items() if ok}


def test_columns_that_repeat_round_alike() -> None:
    """A row whose columns all hold one number, up to signs and powers of two, is rounded once: its
    RMS error is that of one element. Others are held to what independent errors give."""
    rng = torch.Generator().manual_seed(5)
    one = torch.randn(400, 1, generator=rng, dtype=torch.float64)
    rows = one * torch.tensor([1.0, -2.0, 0.25, 4.0] * 16, dtype=torch.float64)
    u = 2.0**-8
    budget = Budget(rows, {"output rounding": u * rows.abs()}, model=u * rows.abs() / 3**0.5)
    assert budget.judge("out", rows.bfloat16()).check is None
    assert [1] * 400 == different(rows).tolist()
    rows[:, 1:] = torch.randn(400, 63, generator=rng, dtype=torch.float64)
    assert [64] * 400 == different(rows).tolist()
    budget = Budget(rows, {"output rounding": u * rows.abs()}, model=u * rows.abs() / 3**0.5)
    assert budget.judge("out", rows.bfloat16()).check is None
    assert budget.judge("out", rows * (1 + 0.9 * u)).check == "row budget"


def test_a_few_elements_that_are_most_of_a_row_scatter_like_a_short_row() -> None:
    """Elements that span four powers of ten: correct rounding passes, in every one of many rows.
    Normal rows keep the allowance of their length."""
    rng, u = torch.Generator().manual_seed(7), 2.0**-8
    normal = torch.randn(20_000, 64, generator=rng, dtype=torch.float64)
    rows = normal * 10 ** (4 * torch.rand(normal.shape, generator=rng, dtype=torch.float64))

    def judged(x: Tensor, actual: Tensor) -> str | None:
        budget = Budget(x, {"output rounding": u * x.abs()}, model=u * x.abs() / 3**0.5)
        return budget.judge("out", actual).check

    assert judged(rows, rows.bfloat16()) is None
    assert judged(normal[:100], normal[:100] * (1 + 0.9 * u)) == "row budget"
    assert 60 < float(weighty(normal).median()) <= 64
    assert 3.0 == float(weighty(torch.eye(8)[0]))
    assert 8.0 == float(weighty(torch.zeros(8)))


def test_numbers_that_read_alike_are_told_apart_by_their_bits() -> None:
    quiet, other = torch.tensor([0x7FC0, 0x7FC1], dtype=torch.int16).view(torch.bfloat16)
    reason = Exact(quiet[None]).judge("k", other[None]).reason
    assert reason == "k[0] is nan (0x7fc1), should be nan (0x7fc0) (bit for bit)"
    assert ("-0.0", "0.0") == told(torch.tensor(-0.0), torch.tensor(0.0))


def test_a_contract_with_more_is_the_widest_then_the_next() -> None:
    wider = Contract(p_rounded=True).with_more()
    assert len(wider) == len(set(wider)) == 15
    assert wider[0].with_more() == []
    assert [1, 1, 1, 1] == [c.beyond(Contract(p_rounded=True)).count("=") for c in wider[1:5]]
    tensor_core = Contract(p_rounded=True, accumulator="tensor_core")
    assert "accumulator='tensor_core'" == tensor_core.beyond(Contract(p_rounded=True))
