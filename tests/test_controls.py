"""Runs of kernels that are right: what is judged, what is kept, what it shows."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest

from conformance import controls, silence
from conformance.controls import Log, Result, Shard, Tally, main, plan, run_all
from reports import load
from yaie import ops
from yaie.compare import Verdict
from yaie.record import DEFAULT_FOLDER, Recorder
from yaie.statement import run as runs


def test_the_bound_is_that_of_clopper_and_pearson() -> None:
    assert math.isclose(controls.upper_bound(0, 1000), 1 - 0.05 ** (1 / 1000), rel_tol=1e-6)
    assert math.isclose(controls.upper_bound(1, 100), 0.046560, rel_tol=1e-3)
    assert controls.upper_bound(0, 0) == 1.0
    assert controls.upper_bound(5, 5) == 1.0


def test_every_kernel_has_a_shard_a_seed() -> None:
    shards = plan("gather_*", "torch.eager", 3, 50)
    assert len(shards) == len(set(shards)) == 6
    assert {(s.op, s.kernel) for s in shards} == {
        ("gather_kv", "torch.eager"),
        ("gather_slots", "torch.eager"),
    }


def test_what_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = plan("gather_slots", "torch.eager", 2, 5)
    path = tmp_path / "folder" / "log.jsonl"
    first = list(run_all(shards[:1], Log(path), 1))
    with path.open("a") as file:
        file.write('{"of": {"suite": "cut sh')  # by an interruption
    assert first == list(run_all(shards[:1], Log(path), 1))
    assert len(Log(path).known()) == 1
    monkeypatch.setattr(controls, "provenance", lambda: {"kernels": "others"})
    assert Log(path).known() == {}


@pytest.mark.parametrize("line", ["{}", "3", "[]", "null", '{"of": %s}', '{"of": %s, "shard": 3}'])
def test_a_line_that_is_no_shard_is_passed_over(tmp_path: Path, line: str) -> None:
    path = tmp_path / "log.jsonl"
    log = Log(path)
    path.write_text(line.replace("%s", json.dumps(log._key)) + "\n")
    result = Result(Shard("rope", "simt.vec", 50, 1), 40, 10, 1.0)
    log.add(result)
    assert {result.shard: result} == Log(path).known()


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
    log = tmp_path / "controls.jsonl"
    assert main([*options, "--log", str(log)]) == 0
    said = capsys.readouterr().out
    assert "0 faults: at most" in said and str(log) in said
    (line,) = log.read_text().splitlines()
    assert json.loads(line)["shard"]["kernel"] == "torch.eager"
    assert main([*options[:2], "--kernel", "torch.eagre"]) == 3
    assert "--kernel torch.eagre; did you mean torch.eager" in capsys.readouterr().err
    assert main([*options, "--log", str(log / "below")]) == 2
    assert capsys.readouterr().err.startswith(f"controls: --log {log}: nothing can be written")


def test_its_file_is_no_record_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--op", "gather_slots", "--kernel", "torch.*", "--seeds", "1", "--jobs", "1"]
    with monkeypatch.context() as stubbed:
        stubbed.setattr(controls, "run_all", lambda shards, log, jobs: iter(()))
        assert main(options) == 0
    assert not DEFAULT_FOLDER.exists()
    (path,) = (p for p in Path().rglob("*") if p.is_file())
    assert Path("build") in path.parents


def test_a_file_beside_the_runs_leaves_statements_and_reports_alone(tmp_path: Path) -> None:
    """Earlier versions wrote theirs there."""
    recorder = Recorder(tmp_path, "r1", "quick")
    op = ops.get("rope")
    recorder.verdict(op, "reference", op.good, Verdict("pass"), time.perf_counter())
    recorder.close()
    log = Log(tmp_path / "controls.jsonl")
    log.add(Result(Shard("rope", "simt.vec", 50, 1), 40, 10, 1.0))
    assert 1 == len(runs.read(tmp_path).verdicts)
    assert 1 == len(load.load(tmp_path).verdicts)


def test_every_option_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    for parser in (controls._parser(), silence._parser()):
        assert all(action.help for action in parser._actions)
        assert "Exit status: 0 no fault; 1 a fault" in parser.format_help()


def test_results_add_up() -> None:
    tally = Tally()
    for seed in range(2):
        tally.add(Result(Shard("rope", "simt.vec", 50, seed), 40, 10, 1.0))
    assert (tally.shards, tally.judged, tally.declined) == (2, 80, 20)
    assert "80 cases judged in 2 shards (20 declined), 0 faults" in tally.summary
