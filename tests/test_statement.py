"""Conformance statements: what they say of a run, and what makes one not hold."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from conformance.campaign import Campaign
from reports import load
from yaie import kernels, ops
from yaie.cli import main
from yaie.compare import Receipt, Verdict
from yaie.record import Recorder, source_hash
from yaie.statement import run as runs
from yaie.statement import waivers
from yaie.statement.compose import compose, digest
from yaie.statement.verify import Checkout, problems
from yaie.statement.waivers import Waiver

OP = ops.get("rope")
EDGE = "interleaved"
WITH, WITHOUT = replace(OP.good, interleaved=True), OP.good
"""One case meets the edge, the other does not."""
PASS = Verdict("pass", receipt=Receipt("y", 0.4, "output rounding", (0, 0), 0.1, 0.1, 0.001))
FAIL = Verdict("fail", "budget", "too far off")
END: dict[str, Any] = {
    "status": 0,
    "command": "pytest conformance -n 2",
    "op": "*",
    "kernel": "*",
    "keyword": "",
    "parts": [],
    "passed": 3,
    "failed": [],
    "skipped": {},
}
TODAY = date(2026, 11, 26)
WAIVER = Waiver("rope", "simt.*", "it overflows", "https://example.org/1", date(2027, 1, 1))


@pytest.fixture(autouse=True)
def registered() -> None:
    kernels.load()


def recorded(folder: Path, *rows: tuple[str, Any, Verdict], end: Any = END) -> Path:
    """A run with these verdicts on rope; each is kernel, case, verdict."""
    recorder = Recorder(folder, "r1", "quick")
    recorder.domain(OP)
    for kernel, case, verdict in rows:
        recorder.verdict(OP, kernel, case, verdict, time.perf_counter())
    recorder.close()
    if end is not None:
        session = Recorder(folder, "r1", "quick", "session")
        session.ended(end)
        session.close()
    return folder


def stated(folder: Path, *rows: Any, waived: Any = (), end: Any = END) -> dict[str, Any]:
    return compose(runs.read(recorded(folder, *rows, end=end)), waived)


GOOD = (("simt.vec", WITH, PASS), ("simt.vec", WITHOUT, PASS), ("reference", OP.good, PASS))


def edges(case: Any) -> set[str]:
    return {name for name, met in OP.edges.items() if met(case)}


# What it says --------------------------------------------------------------------------------


def test_a_kernel_has_a_row_with_its_cases_worst_and_edges(tmp_path: Path) -> None:
    statement = stated(tmp_path, *GOOD, ("simt.vec", OP.good, Verdict("unsupported")))
    row = next(row for row in statement["results"] if row["kernel"] == "simt.vec")
    assert ("rope", "pass", 2, 1, 0) == tuple(
        row[name] for name in ("op", "status", "cases", "declined", "faults")
    )
    assert (0.4, 0.001, "output rounding") == tuple(
        row["worst"][name] for name in ("used", "allowed", "term")
    )
    met = edges(WITH) | edges(WITHOUT)
    assert (met, set(OP.edges) - met) == (set(row["met"]), set(row["not_met"]))
    assert "pass" == statement["verdict"]
    assert [] == statement["problems"]


def test_it_says_which_code_ran_where(tmp_path: Path) -> None:
    statement = stated(tmp_path, *GOOD)
    head = runs.read(tmp_path).head
    assert {name: head[name] for name in ("suite", "kernels", "builds", "dirty")} | {
        "commit": head["git"]
    } == statement["code"]
    assert head["cpu"] == statement["machine"]["cpu"]
    assert {"python", "torch"} == set(statement["software"])
    assert (END["command"], 0, 3, []) == tuple(
        statement["run"][name] for name in ("command", "status", "passed", "failed")
    )


def test_laws_stand_with_their_kernel_and_one_that_breaks_fails(tmp_path: Path) -> None:
    law = {"class": "exact always", "peer": None, "calls": 4, "worst": 0.0, "ok": True}
    recorder = Recorder(tmp_path, "r1", "quick", "gw1")
    recorder.law("rope", "reference", "composition", law)
    recorder.law("rope", "reference", "composition", {**law, "worst": 0.5})
    recorder.close()
    statement = stated(tmp_path, *GOOD)
    row = next(row for row in statement["results"] if row["kernel"] == "reference")
    assert {"composition": {**law, "calls": 8, "worst": 0.5}} == row["laws"]
    assert "pass" == statement["verdict"]

    recorder = Recorder(tmp_path, "r1", "quick", "gw1")
    recorder.law("rope", "reference", "composition", {**law, "ok": False})
    recorder.close()
    broken = compose(runs.read(tmp_path), (replace(WAIVER, kernel="reference"),))
    assert "rope reference breaks the law 'composition'" in broken["problems"]


def test_a_fault_fails_with_the_line_that_shows_it_again(tmp_path: Path) -> None:
    statement = stated(tmp_path, *GOOD, ("simt.naive", OP.good, FAIL))
    (problem,) = statement["problems"]
    assert "fail" == statement["verdict"]
    assert problem.startswith("rope simt.naive fails on 1 of 1 cases, for one 'too far off'")
    assert problem.endswith("--kernel simt.naive")


def test_kernels_of_a_gpu_that_is_not_there_were_not_run(tmp_path: Path) -> None:
    run = runs.read(recorded(tmp_path, *GOOD))
    run.head = {**run.head, "gpu": None}
    reasons = not_run_of(run)
    assert "it needs a GPU, and the machine has none" == reasons["rope", "cuda.vec"]
    assert ("rope", "simt.vec") not in reasons
    run.head = {**run.head, "gpu": "H200", "builds": {"simt": "s", "cuda": None}}
    assert "the extension yaie._cuda was not built" == not_run_of(run)["rope", "cuda.vec"]
    run.head = {**run.head, "builds": {"simt": "s", "cuda": "c"}}
    assert "the run chose no case for it" == not_run_of(run)["rope", "cuda.vec"]


def not_run_of(run: runs.Run) -> dict[tuple[str, str], str]:
    return {(k["op"], k["kernel"]): k["reason"] for k in compose(run)["not_run"]["kernels"]}


def test_what_options_left_out_and_what_kernels_declined_was_not_run(tmp_path: Path) -> None:
    end = {**END, "op": "rope", "skipped": {"test_rope.py::test_llama": "no transformers"}}
    declined = ("simt.naive", OP.good, Verdict("unsupported", reason="no"))
    run = runs.read(recorded(tmp_path, *GOOD, declined, end=end))
    reasons = not_run_of(run)
    assert "left out by --op rope --kernel *" == reasons["append_kv", "simt.vec"]
    assert "it declined all 1 cases" == reasons["rope", "simt.naive"]
    not_run = compose(run)["not_run"]
    assert end["skipped"] == not_run["tests"]
    assert ["default", "deep"] == not_run["profiles"]


def test_an_edge_that_any_kernel_met_was_met(tmp_path: Path) -> None:
    statement = stated(tmp_path, ("simt.vec", WITH, PASS), ("reference", WITHOUT, PASS))
    met = edges(WITH) | edges(WITHOUT)
    assert {"rope": sorted(set(OP.edges) - met)} == statement["not_run"]["edges"]


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (None, "the run was interrupted"),
        ({**END, "status": 1, "failed": ["a.py::t"]}, "the test a.py::t failed"),
        ({**END, "status": 2}, "the run ended with status 2"),
    ],
)
def test_a_run_that_did_not_end_well_fails(tmp_path: Path, end: Any, words: str) -> None:
    statement = stated(tmp_path, *GOOD, end=end)
    assert "fail" == statement["verdict"]
    assert any(problem.startswith(words) for problem in statement["problems"])


def test_a_run_that_judged_nothing_fails(tmp_path: Path) -> None:
    statement = compose(runs.read(recorded(tmp_path) / "r1"))
    assert ["nothing was judged"] == statement["problems"]


def test_numbers_that_json_lacks_are_spelled_out(tmp_path: Path) -> None:
    endless = Receipt("y", 0.4, "none", (0,), 0.0, 0.0, float("inf"))
    statement = stated(tmp_path, ("simt.vec", OP.good, Verdict("pass", receipt=endless)))
    assert "inf" == statement["results"][0]["worst"]["allowed"]


def test_reports_pass_over_how_a_run_ended(tmp_path: Path) -> None:
    records = load.load(recorded(tmp_path, *GOOD))
    assert (3, ()) == (len(records.verdicts), records.notes)


# Records that cannot be trusted --------------------------------------------------------------


def test_a_torn_line_is_an_interruption(tmp_path: Path) -> None:
    recorded(tmp_path, *GOOD)
    with (tmp_path / "r1" / "main.jsonl").open("a") as file:
        file.write('{"kind": "verd')
    with pytest.raises(ValueError, match="interrupted or its file damaged: run the suite again"):
        runs.read(tmp_path)


HEAD_WITHOUT_BUILDS = '{"kind": "run", "schema": 1, "run": "r1", "started": "", "profile": ""}'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it has no line"),
        ("[]", "not all are records"),
        ("3", "not all are records"),
        ("{}", "not all are records"),
        (HEAD_WITHOUT_BUILDS, r"its first line lacks '\w+': run the suite again"),
        ("HEAD\n[]", "not all are records"),
        ("HEAD\n{}", "not all are records"),
        ('HEAD\n{"kind": "verdict"}', "not all are records"),
        ('HEAD\n{"kind": 3}', "not all are records"),
    ],
)
def test_a_file_without_records_is_a_sentence(
    tmp_path: Path, capsys: Any, text: str, words: str
) -> None:
    recorded(tmp_path, *GOOD)
    path = tmp_path / "r1" / "main.jsonl"
    head = path.read_text().splitlines()[0]
    path.write_text(text.replace("HEAD", head))
    with pytest.raises(ValueError, match=words):
        runs.read(tmp_path)
    status, said = command(capsys, "--records", tmp_path / "r1", "--out", tmp_path / "s.json")
    assert (2, "yaie: ") == (status, said[:6])


def test_an_empty_folder_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "r1").mkdir()
    for arguments in [(tmp_path,), (tmp_path, "r1"), (tmp_path / "r1",)]:
        with pytest.raises(ValueError, match=r"no run .*make one with"):
            runs.read(*arguments)


def test_processes_of_one_run_judged_one_code(tmp_path: Path) -> None:
    recorded(tmp_path, *GOOD)
    path = tmp_path / "r1" / "session.jsonl"
    head, *rest = path.read_text().splitlines()
    changed = json.dumps({**json.loads(head), "suite": "other"})
    path.write_text("\n".join([changed, *rest]))
    with pytest.raises(ValueError, match=r"'suite' is 'other'.*run the suite again"):
        runs.read(tmp_path)


def test_the_newest_run_that_judged_something_is_taken(tmp_path: Path) -> None:
    for name, rows in (("r0", GOOD[:1]), ("r1", GOOD), ("r2", ())):
        recorded(tmp_path / "new", *rows)
        (tmp_path / "all").mkdir(exist_ok=True)
        (tmp_path / "new" / "r1").rename(tmp_path / "all" / name)
    assert 3 == len(runs.read(tmp_path / "all").verdicts)
    assert 1 == len(runs.read(tmp_path / "all", "r0").verdicts)
    assert 1 == len(runs.read(tmp_path / "all" / "r0").verdicts)
    with pytest.raises(ValueError, match="no run r9"):
        runs.read(tmp_path / "all", "r9")
    with pytest.raises(ValueError, match="make one with"):
        runs.read(tmp_path / "nothing")


def test_a_hash_follows_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "a.py").write_text("1")
    one = source_hash(["part"], tmp_path)
    assert one == source_hash(["part"], tmp_path)
    (tmp_path / "part" / "note.txt").write_text("no source")
    assert one == source_hash(["part"], tmp_path)
    (tmp_path / "part" / "a.py").write_text("2")
    two = source_hash(["part"], tmp_path)
    (tmp_path / "part" / "a.py").rename(tmp_path / "part" / "b.py")
    assert 3 == len({one, two, source_hash(["part"], tmp_path)})
    assert source_hash(["part", "missing"], tmp_path) is None


# Waivers -------------------------------------------------------------------------------------


def test_a_waived_fault_is_no_problem_and_is_counted(tmp_path: Path) -> None:
    statement = stated(tmp_path, *GOOD, ("simt.vec", OP.good, FAIL), waived=[WAIVER])
    row = next(row for row in statement["results"] if row["kernel"] == "simt.vec")
    assert ("waived", 3, 1) == (row["status"], row["cases"], row["faults"])
    assert [] == statement["problems"]
    (waiver,) = statement["waivers"]
    assert (1, "2027-01-01", WAIVER.issue) == tuple(
        waiver[name] for name in ("faults", "expires", "issue")
    )


def test_a_waiver_of_an_edge_excuses_no_other_case(tmp_path: Path) -> None:
    waiver = replace(WAIVER, edge=EDGE)
    inside, outside = ("simt.vec", WITH, FAIL), ("simt.vec", WITHOUT, FAIL)
    assert "pass" == stated(tmp_path / "a", inside, waived=[waiver])["verdict"]
    assert "fail" == stated(tmp_path / "b", inside, outside, waived=[waiver])["verdict"]


def test_an_unexpected_pass_of_a_waived_kernel_fails(tmp_path: Path) -> None:
    failing = ("simt.naive", OP.good, FAIL)
    statement = stated(tmp_path, *GOOD, failing, waived=[WAIVER])
    (problem,) = statement["problems"]
    assert "fail" == statement["verdict"]
    assert problem.endswith("simt.vec passed on all 2 cases: take the waiver away")


def test_an_unexpected_pass_of_a_waived_edge_fails(tmp_path: Path) -> None:
    waiver = replace(WAIVER, edge=EDGE)
    unmet = stated(tmp_path / "a", ("simt.vec", WITHOUT, PASS), waived=[waiver])
    assert [] == unmet["problems"]
    met = stated(tmp_path / "b", ("simt.vec", WITH, PASS), waived=[waiver])
    assert [f"{waiver}: simt.vec passed on all 1 cases: take the waiver away"] == met["problems"]


TOML = """[[waiver]]
op = "rope"
kernel = "simt.*"
reason = "it overflows"
issue = "https://example.org/1"
expires = 2027-01-01
"""


def test_waivers_are_read_from_their_file(tmp_path: Path) -> None:
    path = tmp_path / "waivers.toml"
    assert () == waivers.load(path)
    path.write_text(TOML)
    assert (WAIVER,) == waivers.load(path, WAIVER.expires)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('issue = "https://example.org/1"\n', "", "no 'issue'"),
        ('"it overflows"', '""', "'reason' must be"),
        ("2027-01-01", '"soon"', "'expires' must be a day"),
        ("2027-01-01", "2027-01-01T00:00:00", "'expires' must be a day"),
        ('op = "rope"', 'op = "ropes"', "ropes"),
        ("kernel", "kernal", "no key 'kernal'"),
        ('"simt.*"', '"simd.*"', "rope has no kernel 'simd.*'"),
        ("[[waiver]]", 'edge = "x"\n[[waiver]]', "'edge' is no waiver"),
        ("reason", 'edge = "no such edge"\nreason', "rope has no edge 'no such edge'"),
        ("[[waiver]]", "[[waiver", "waivers.toml"),
        ("[[waiver]]", "[waiver]", "write [[waiver]]"),
        (TOML, "waiver = 3", "write [[waiver]]"),
        (TOML, "waiver = [3]", "write [[waiver]]"),
    ],
)
def test_a_bad_waiver_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "waivers.toml"
    path.write_text(TOML.replace(old, new, 1))
    with pytest.raises(ValueError, match=r"waivers\.toml") as raised:
        waivers.load(path, TODAY)
    assert words in str(raised.value)


def test_an_expired_waiver_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "waivers.toml"
    path.write_text(TOML)
    with pytest.raises(ValueError, match="expired on 2027-01-01: repair the kernel"):
        waivers.load(path, WAIVER.expires + timedelta(days=1))


class Answers:
    """A judge that gives the verdicts that it is told to."""

    def __init__(self, *verdicts: Verdict) -> None:
        self.judge = lambda op, kernel, case: next(answers)
        self.judge_afresh = lambda op, kernel, case: FAIL
        answers = iter(verdicts)


def test_a_run_goes_on_past_a_waived_fault_and_records_it(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "r1", "quick")
    judge: Any = Answers(FAIL, PASS, FAIL)
    waived = (replace(WAIVER, edge=EDGE),)
    campaign = Campaign(judge, OP, OP.kernels["simt.vec"], recorder, waivers=waived)
    campaign(WITH)
    campaign(WITH)
    assert (2, 1, None) == (campaign.judged, campaign.waived, campaign.fault)
    with pytest.raises(AssertionError, match="too far off"):
        campaign(WITHOUT)
    campaign.close()
    recorder.close()
    assert ["fail", "pass", "fail"] == [v["status"] for v in runs.read(tmp_path).verdicts]


# Verification --------------------------------------------------------------------------------


def here(statement: dict[str, Any]) -> Checkout:
    code = statement["code"]
    return Checkout(code["suite"], code["kernels"], code["builds"])


def test_a_statement_of_the_code_at_hand_holds(tmp_path: Path) -> None:
    statement = json.loads(json.dumps(stated(tmp_path, *GOOD)))
    assert [] == problems(statement, Checkout.here(), TODAY)


def test_a_tampered_statement_does_not(tmp_path: Path) -> None:
    statement = stated(tmp_path, *GOOD, ("simt.naive", OP.good, FAIL))
    statement.update(verdict="pass", problems=[])
    (problem,) = problems(statement, here(statement), TODAY)
    assert "digest" in problem


@pytest.mark.parametrize("part", ["suite", "kernels"])
def test_a_statement_of_other_sources_does_not_hold(tmp_path: Path, part: Any) -> None:
    statement = stated(tmp_path, *GOOD)
    (problem,) = problems(statement, replace(here(statement), **{part: "other"}), TODAY)
    assert problem.startswith(f"the sources of the {part} are not those of the run")


def test_a_statement_of_another_build_does_not_hold_and_without_one_it_is_said(
    tmp_path: Path,
) -> None:
    statement = stated(tmp_path, *GOOD)
    other = replace(here(statement), builds={"simt": "other", "cuda": "other"})
    (problem,) = problems(statement, other, TODAY)
    assert problem.startswith("the build of yaie._simt is not that of the run")
    unbuilt = replace(other, builds={"simt": None, "cuda": None})
    assert [] == problems(statement, unbuilt, TODAY)
    assert ["simt"] == unbuilt.unbuilt({**statement["code"], "builds": {"simt": "a", "cuda": None}})


def test_a_failed_verdict_does_not_hold(tmp_path: Path) -> None:
    statement = stated(tmp_path, *GOOD, ("simt.naive", OP.good, FAIL))
    assert statement["problems"] == problems(statement, here(statement), TODAY)
    assert statement["problems"]


def test_a_waiver_that_has_expired_since_does_not_hold(tmp_path: Path) -> None:
    statement = stated(tmp_path, ("simt.vec", OP.good, FAIL), waived=[WAIVER])
    assert [] == problems(statement, here(statement), WAIVER.expires)
    (problem,) = problems(statement, here(statement), WAIVER.expires + timedelta(days=1))
    assert problem == "the waiver of rope simt.* expired on 2027-01-01: " + (
        "https://example.org/1 must be settled"
    )


# The command ---------------------------------------------------------------------------------


def command(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str]:
    status = main(["conformance-statement", *map(str, argv)])
    printed = capsys.readouterr()
    return status, printed.out + printed.err


def test_the_command_writes_a_statement_and_verifies_it(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "statement.json"
    status, said = command(capsys, "--records", recorded(tmp_path / "r", *GOOD), "--out", out)
    assert (0, True) == (status, said.startswith("pass"))
    text = out.read_text()
    statement = json.loads(text)
    assert digest(statement) == statement["digest"]
    assert text == json.dumps(statement, indent=1, sort_keys=True) + "\n"
    status, said = command(capsys, "--verify", out)
    assert (0, True) == (status, said.startswith("pass"))
    out.write_text(text.replace('"cases": 2', '"cases": 2000'))
    status, said = command(capsys, "--verify", out)
    assert 1 == status
    assert "digest" in said


def test_the_command_writes_down_a_failure_too(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "statement.json"
    records = recorded(tmp_path / "r", ("simt.vec", OP.good, FAIL))
    assert 1 == command(capsys, "--records", records, "--out", out)[0]
    status, said = command(capsys, "--verify", out)
    assert 1 == status
    assert "too far off" in said


def test_no_statement_is_made_of_other_code(tmp_path: Path, capsys: Any) -> None:
    records = recorded(tmp_path / "r", *GOOD)
    for path in (records / "r1").iterdir():
        head, *rest = path.read_text().splitlines()
        path.write_text("\n".join([json.dumps({**json.loads(head), "suite": "old"}), *rest]))
    status, said = command(capsys, "--records", records, "--out", tmp_path / "s.json")
    assert 2 == status
    assert "judged other code: the sources of the suite" in said
    assert not (tmp_path / "s.json").exists()


@pytest.mark.parametrize("digested", [False, True])
def test_of_a_statement_that_yaie_did_not_write_nothing_more_is_read(
    tmp_path: Path, capsys: Any, digested: bool
) -> None:
    path = tmp_path / "s.json"
    statement: dict[str, Any] = {"kind": "yaie conformance statement", "schema": 1}
    path.write_text(json.dumps({**statement, "digest": digest(statement) if digested else ""}))
    status, said = command(capsys, "--verify", path)
    assert (1, True) == (status, said.startswith(f"FAIL: {path}"))
    assert ("it lacks 'code'" if digested else "digest") in said


@pytest.mark.parametrize("below", [True, False])
def test_where_nothing_can_be_written_is_found_at_once(
    tmp_path: Path, capsys: Any, below: bool
) -> None:
    out = tmp_path / "file" / "x" if below else tmp_path
    (tmp_path / "file").write_text("")
    status, said = command(capsys, "--records", recorded(tmp_path / "r", *GOOD), "--out", out)
    assert (2, True) == (status, said.startswith("yaie: --out "))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "No such file"),
        ("{", "not JSON"),
        ("{}", "not a yaie conformance statement"),
        ('{"kind": "yaie conformance statement", "schema": 2}', "of schema 2"),
    ],
)
def test_what_is_no_statement_is_a_usage_error(
    tmp_path: Path, capsys: Any, text: str | None, words: str
) -> None:
    path = tmp_path / "s.json"
    if text is not None:
        path.write_text(text)
    status, said = command(capsys, "--verify", path)
    assert 2 == status
    assert words in said


def test_the_waivers_of_the_suite_are_in_force() -> None:
    waivers.load()
