"""Records: the lines that a run leaves behind, as the plan of the repository lists them."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reports import load
from yaie import ops
from yaie import record as record_module
from yaie.compare import Receipt, Verdict
from yaie.kernels import native
from yaie.record import SCHEMA, Recorder, new_run_id, provenance, repro_line, typed

ROOT = Path(__file__).resolve().parents[1]
RECEIPT = Receipt("out", 0.41, "output rounding", (0, 1, 5), 0.1, 0.1001, 0.001)
CASE = ops.get("paged_attention").Case(kv_lens=(0,), q_lens=(1,), dtype="bfloat16", family="flat")

RUN_KEYS = {
    *("kind", "schema", "run", "started", "command", "profile", "git", "dirty", "builds"),
    *("suite", "kernels", "python", "torch", "platform", "cpu", "gpu", "driver"),
}
VERDICT_KEYS = {
    *("kind", "run", "op", "kernel", "case", "dtype", "family", "edges", "status", "check"),
    *("reason", "receipt", "seconds", "repro"),
}
RECEIPT_KEYS = {"output", "used", "term", "index", "actual", "expected", "allowed"}


def record(folder: Path, *verdicts: Verdict, run: str = "r1", writer: str = "main") -> Path:
    recorder = Recorder(folder, run, "quick", writer)
    for verdict in verdicts:
        op = ops.get("paged_attention")
        recorder.verdict(op, "simt.naive", CASE, verdict, time.perf_counter())
    recorder.close()
    return folder / run / f"{writer}.jsonl"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_first_line_of_a_file_says_what_ran_where(tmp_path: Path) -> None:
    (head,) = lines(record(tmp_path))
    assert RUN_KEYS == set(head)
    assert ("run", SCHEMA, "r1", "quick") == (
        head["kind"],
        head["schema"],
        head["run"],
        head["profile"],
    )
    assert datetime.fromisoformat(head["started"]).tzinfo is not None
    assert {"simt", "cuda"} == set(head["builds"])
    assert isinstance(head["builds"]["simt"], str)
    assert isinstance(head["dirty"], bool if head["git"] else type(None))


def test_a_verdict_is_one_line_with_the_keys_of_the_schema(tmp_path: Path) -> None:
    _, line = lines(record(tmp_path, Verdict("fail", "budget", "too far", RECEIPT, 0.5)))
    assert VERDICT_KEYS == set(line)
    assert RECEIPT_KEYS == set(line["receipt"])
    assert {
        "kind": "verdict",
        "op": "paged_attention",
        "kernel": "simt.naive",
        "dtype": "bfloat16",
        "family": "flat",
        "status": "fail",
        "check": "budget",
        "reason": "too far",
    }.items() <= line.items()
    assert dataclasses.asdict(RECEIPT) | {"index": [0, 1, 5]} == line["receipt"]


def test_a_recorded_case_is_read_back_and_its_edges_are_those_it_hits(tmp_path: Path) -> None:
    _, line = lines(record(tmp_path, Verdict("pass")))
    assert CASE == ops.get("paged_attention").parse_case(line["case"])
    assert repro_line(CASE, "simt.naive") == line["repro"]
    assert {"kv_len 0", "q_len > kv_len", "decode"} <= set(line["edges"])
    assert "kv_len 1" not in line["edges"]


def test_the_line_of_a_finding_names_the_build_that_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = repro_line(CASE, "simt.naive")
    monkeypatch.setenv("YAIE_EXTENSIONS", "build/checked")
    monkeypatch.setattr(native, "extension", lambda face: SimpleNamespace(checked=True))
    assert f"YAIE_EXTENSIONS=build/checked {plain}" == repro_line(CASE, "simt.naive")
    assert repro_line(CASE, "torch.eager").startswith("yaie repro")


def test_a_case_without_a_family_holds_bits(tmp_path: Path) -> None:
    op = ops.get("copy_blocks")
    recorder = Recorder(tmp_path, "r", "quick")
    recorder.verdict(op, "torch.eager", op.good, Verdict("pass"), time.perf_counter())
    recorder.close()
    assert "bits" == lines(tmp_path / "r" / "main.jsonl")[1]["family"]


@pytest.mark.parametrize("status", ["pass", "fail", "crash", "timeout", "unsupported"])
def test_reports_read_every_kind_of_verdict(tmp_path: Path, status: Any) -> None:
    record(tmp_path, Verdict(status, None if status == "pass" else "x", "why", RECEIPT))
    (row,) = load.load(tmp_path).verdicts.to_dict("records")
    assert (status, "why", "0, 1, 5", 0.41) == (
        row["status"],
        row["reason"],
        row["index"],
        row["used"],
    )
    assert row["seconds"] < 60


def test_reports_read_a_receipt_of_nan_and_infinity(tmp_path: Path) -> None:
    receipt = dataclasses.replace(RECEIPT, used=math.inf, actual=math.nan, expected=-math.inf)
    record(tmp_path, Verdict("fail", "budget", "nan", receipt))
    (row,) = load.load(tmp_path).verdicts.to_dict("records")
    assert (math.inf, -math.inf) == (row["used"], row["expected"])
    assert math.isnan(row["actual"])


def test_a_reason_of_many_lines_and_odd_characters_stays_one_line(tmp_path: Path) -> None:
    reason = 'first\nsecond "quoted"\r\0\u2028 \ud800 ±'
    path = record(tmp_path, Verdict("crash", "crash", reason))
    assert 2 == len(path.read_bytes().splitlines())
    assert reason == lines(path)[1]["reason"]


def test_a_file_that_is_opened_again_is_appended_to_and_has_one_first_line(tmp_path: Path) -> None:
    record(tmp_path, Verdict("pass"))
    path = record(tmp_path, Verdict("pass"), Verdict("pass"))
    assert ["run", "verdict", "verdict", "verdict"] == [line["kind"] for line in lines(path)]
    assert 3 == len(load.load(tmp_path).verdicts)


def test_processes_of_one_run_write_files_of_their_own(tmp_path: Path) -> None:
    for writer in ("gw0", "gw1"):
        record(tmp_path, Verdict("pass"), writer=writer)
    assert ["gw0.jsonl", "gw1.jsonl"] == sorted(p.name for p in (tmp_path / "r1").iterdir())
    assert 2 == len(load.load(tmp_path).verdicts)


def test_a_line_is_on_disk_before_the_next_case_is_judged(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "r", "quick")
    op = ops.get("append_kv")
    recorder.verdict(op, "torch.eager", op.good, Verdict("pass"), time.perf_counter())
    assert 2 == len(lines(tmp_path / "r" / "main.jsonl"))
    recorder.close()


def test_the_fate_of_a_mutant_is_recorded_and_read(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "r", "quick")
    fate = {
        "mutant": "pa-kv-head-mod",
        "op": "paged_attention",
        "kernel": "simt.naive",
        "what": "h % Hk for h // G",
        "source": "the op's page",
        "killed": True,
        "check": "budget",
        "cases": 12,
        "seconds": 3.1,
        "case": repr(CASE),
        "reason": "out[0] is 1",
    }
    recorder.mutant(fate)
    recorder.close()
    (row,) = load.load(tmp_path).mutants.to_dict("records")
    assert fate == {key: row[key] for key in fate}


def test_run_ids_sort_by_time() -> None:
    assert re.fullmatch(r"\d{8}T\d{6}-\d+", new_run_id())


def test_provenance_is_that_of_the_source_and_not_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True
    )
    if head.returncode:
        pytest.skip("the sources are not in a git repository")
    monkeypatch.chdir(tmp_path)
    assert head.stdout.strip() == provenance()["git"]


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def a_checkout(folder: Path) -> str:
    """A repository with a yaie in it; its commit."""
    (folder / "yaie").mkdir(parents=True)
    (folder / "yaie" / "a.py").write_text("")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "all")
    return git(folder, "rev-parse", "HEAD")


def test_the_commit_is_that_of_the_checkout_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_module, "SOURCE", tmp_path / "yaie")
    assert {"git": None, "dirty": None} == record_module._commit()
    commit = a_checkout(tmp_path)
    assert {"git": commit, "dirty": False} == record_module._commit()
    (tmp_path / "yaie" / "a.py").write_text("changed")
    assert {"git": commit, "dirty": True} == record_module._commit()
    within = tmp_path / "venv" / "site-packages" / "yaie"
    within.mkdir(parents=True)
    monkeypatch.setattr(record_module, "SOURCE", within)
    assert {"git": None, "dirty": None} == record_module._commit()


def test_a_command_is_recorded_as_it_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("YAIE_COMMAND", raising=False)
    monkeypatch.chdir(tmp_path)
    arguments = [f"{tmp_path}/a.py", f"--out={tmp_path}/out", "--kernel", "simt.*", "/elsewhere/b"]
    line = "pytest a.py --out=out --kernel 'simt.*' /elsewhere/b"
    assert line == typed("pytest", arguments)
    assert os.path.relpath(ROOT / "conformance") == typed("", [f"{ROOT}/conformance"]).strip()
    monkeypatch.setattr("sys.argv", ["/usr/bin/yaie", *arguments])
    started_by(None, monkeypatch)
    assert line.replace("pytest", "yaie") == lines(record(tmp_path, run="r1"))[0]["command"]
    started_by("conformance.mutants.__main__", monkeypatch)
    head = lines(record(tmp_path, run="r2"))[0]
    assert line.replace("pytest", "python -m conformance.mutants") == head["command"]
    monkeypatch.setenv("YAIE_COMMAND", "python -m benchmarks --op rope")
    assert "python -m benchmarks --op rope" == lines(record(tmp_path, run="r3"))[0]["command"]


def started_by(module: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SimpleNamespace(name=module) if module else None
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=spec))
