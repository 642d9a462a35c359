"""What a result needs of the constants, and the program that looks for the worst."""

import json

import pytest
import torch

from benchmarks import calibration
from benchmarks.calibration import Needs, needs_of, share_needed
from yaie.compare import Budget

ROUNDING = "rounding of P and scores"


def out(error: float) -> tuple[Budget, torch.Tensor]:
    """A row of 64 numbers that may be off by 1 + 4 + 2, and one of them is."""
    expected = torch.zeros(1, 64, dtype=torch.float64)
    ones = torch.ones_like(expected)
    terms = {"float32 floor": ones, ROUNDING: 4 * ones, "accumulation": 2 * ones}
    value = expected.clone()
    value[0, 5] = error
    return Budget(expected, terms, model=ones), value


def lse(error: float) -> tuple[Budget, torch.Tensor]:
    expected = torch.zeros(1, dtype=torch.float64)
    one = torch.ones_like(expected)
    terms = {"scores": 2 * one, "lse rounding": 2 * one, "accumulation": one}
    return Budget(expected, terms), expected + error


def test_each_constant_is_what_the_others_leave() -> None:
    needs = needs_of(*out(5.0), *lse(3.0))
    assert needs.used == pytest.approx(5 / 7)
    assert needs.lam == pytest.approx(4 * (5 - 1 - 2) / 4)
    assert needs.accumulation == 0.0  # the other two allow as much
    assert needs.rho == pytest.approx((25 / 64) ** 0.5)
    assert needs.lse == pytest.approx(3 / 5)
    assert needs.c == pytest.approx(16 * (3 - 1) / 4)


def test_what_is_exact_needs_nothing_and_nan_needs_everything() -> None:
    assert needs_of(*out(0.0), *lse(0.0)) == Needs()
    budget, value = out(0.0)
    value[0, 0] = torch.nan
    error = calibration._error(budget, value)
    assert share_needed(budget, error, [ROUNDING]) == float("inf")


def test_an_infinity_that_should_stand_there_is_no_error() -> None:
    budget, value = lse(0.0)
    empty = Budget(budget.expected - torch.inf, budget.terms)
    assert calibration._error(empty, value - torch.inf).tolist() == [0.0]
    assert calibration._error(empty, value).tolist() == [float("inf")]


def test_the_worst_of_two_is_the_worst_of_each() -> None:
    assert Needs(used=0.5, c=3) | Needs(used=0.2, c=7) == Needs(used=0.5, c=7)


def test_a_run_prints_tables_and_keeps_every_result(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(calibration, "FAMILIES", ["normal", "flat"])
    monkeypatch.setattr(calibration, "CONDITIONS", {"D 64": {"D": 64, "Dv": 64}})
    file = tmp_path / "calibration.json"
    options = ["--kernel", "torch.eager", "--keys", "17", "--seeds", "1", "--jobs", "1"]
    assert calibration.main([*options, "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "| torch.eager | bfloat16 | 6 |" in printed
    assert "18 results within their budgets, 0 beyond" in printed
    assert len(json.loads(file.read_text())["rows"]) == 18


def test_a_kernel_beyond_its_budget_is_named_and_fails_the_run(capsys, monkeypatch) -> None:
    monkeypatch.setattr(calibration, "measure", lambda *_: {"torch.eager": None})
    options = ["--kernel", "torch.eager", "--keys", "1", "--seeds", "1", "--jobs", "1"]
    assert calibration.main(options) == 1
    printed = capsys.readouterr().out
    assert "torch.eager is beyond its budget in" in printed
    assert 'yaie repro "' in printed


def test_no_kernel_that_fits_is_said(capsys) -> None:
    assert calibration.main(["--kernel", "nobody.*"]) == 3
    assert "no kernel fits" in capsys.readouterr().err
