"""Runs of kernels that are right: what is judged, what is kept, what it shows."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from conformance import controls
from conformance.controls import Log, Result, Shard, Tally, main, plan, run_all
from yaie import ops


def test_the_bound_is_that_of_clopper_and_pearson() -> None:
    assert math.isclose(controls.upper_bound(0, 1000), 1 - 0.05 ** (1 / 1000), rel_tol=1e-6)
    assert math.isclose(controls.upper_bound(1, 100), 0.046560, rel_tol=1e-3)
    assert controls.upper_bound(0, 0) == 1.0
    assert controls.upper_bound(5, 5) == 1.0


def test_every_kernel_has_a_shard_a_seed() -> None:
    shards = plan("gather_*", "torch.*", 3, 50)
    assert len(shards) == len(set(shards)) == 6
    assert {(s.op, s.kernel) for s in shards} == {
        ("gather_kv", "torch.eager"),
        ("gather_slots", "torch.eager"),
    }


def test_what_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = plan("gather_slots", "torch.eager", 2, 5)
    log = Log(tmp_path)
    first = list(run_all(shards[:1], log, 1))
    with log.path.open("a") as file:
        file.write('{"of": {"suite": "cut sh')  # by an interruption
    assert first == list(run_all(shards[:1], Log(tmp_path), 1))
    assert len(Log(tmp_path).known()) == 1
    monkeypatch.setattr(controls, "provenance", lambda: {"kernels": "others"})
    assert Log(tmp_path).known() == {}


def test_a_shard_judges_its_examples_and_the_edges() -> None:
    (shard,) = plan("gather_slots", "torch.eager", 1, 5)
    result = controls.run(shard)
    assert result.fault is None
    assert result.judged + result.declined >= 5 + len(ops.OPS["gather_slots"].edges) // 2


def test_a_fault_is_told_and_fails_the_run(bad: None) -> None:
    result = controls.run(Shard("paged_attention", "bad.returns_nothing", 5, 0))
    assert result.fault is not None and "paged_attention.Case(" in result.fault
    tally = Tally()
    tally.add(result)
    assert tally.lines[0].startswith("FAULT  paged_attention bad.returns_nothing, seed 0: ")
    assert "1 faults" in tally.summary


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--op", "gather_slots", "--kernel", "torch.*", "--seeds", "1", "--jobs", "1"]
    assert main([*options, "--records", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "0 faults: at most" in said and str(tmp_path) in said
    (line,) = (tmp_path / "controls.jsonl").read_text().splitlines()
    assert json.loads(line)["shard"]["kernel"] == "torch.eager"
    assert main([*options[:2], "--kernel", "no.such"]) == 3


def test_results_add_up() -> None:
    tally = Tally()
    for seed in range(2):
        tally.add(Result(Shard("rope", "simt.vec", 50, seed), 40, 10, 1.0))
    assert (tally.shards, tally.judged, tally.declined) == (2, 80, 20)
    assert "80 cases judged in 2 shards (20 declined), 0 faults" in tally.summary
