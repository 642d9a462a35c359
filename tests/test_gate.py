"""The gate on repositories made for it, with real compilations, and what it prints."""

import itertools
import json
import random
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import compile_table as ct
from benchmarks.clock import Pace
from benchmarks.gate import __main__ as gate
from benchmarks.gate import (
    accuracy,
    builds,
    correctness,
    machine_code,
    outputs,
    pipeline,
    speed,
    static,
    trees,
    work,
)
from benchmarks.gate.processes import bursts, gpu_subject, probe, sides
from benchmarks.gate.report import REGRESSION, RESOURCES, Finding, Report, Untrusted
from benchmarks.timing import serving
from yaie import ops
from yaie.kernels import native

needs_nvcc = pytest.mark.skipif(ct.find_nvcc() is None, reason="nvcc is not here")

HEADER = "#define SCALE 2.0f\n"
ADD = """\
#include "common/scale.h"
__global__ void add(float* x, int n) {{
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] = {expression};
}}
void launch(float* x, int n) {{ add<<<(n + 255) / 256, {threads}>>>(x, n); }}
"""
SPILLING = """\
__global__ void add(float* x, int n) {
  float kept[64];
  for (int i = 0; i < n; ++i) kept[i * i & 63] = x[i];
  x[n] = kept[n & 63];
}
"""


class Repository:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.git("init", "--quiet", "--initial-branch=main")
        self.write("csrc/common/scale.h", HEADER)
        self.add("op/fast")
        self.add("op/naive")
        self.commit()

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        command = ("git", "-C", str(self.folder), *identity, *arguments)
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def write(self, path: str, text: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def add(self, variant: str, expression: str = "x[i] + SCALE", threads: int = 256) -> None:
        self.write(f"csrc/{variant}.cu", ADD.format(expression=expression, threads=threads))

    def commit(self) -> None:
        self.git("add", "-A")
        self.git("commit", "--quiet", "--allow-empty", "-m", "one")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    folder = tmp_path / "repository"
    folder.mkdir()
    return Repository(folder)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gate")


def run(
    repository: Repository, cache: Path, *arguments: str
) -> tuple[int, list[dict[str, object]]]:
    """Exit status; of the JSON lines the run, then what was found, by the names of kernels."""
    where = ("--repository", str(repository.folder), "--out", str(cache), "--jobs", "1")
    arguments = arguments or ("--base", "HEAD")
    status = gate.main([*arguments, *where, "--arch", "80", "--static"])
    records = [json.loads(line) for line in (cache / "gate.jsonl").read_text().splitlines()]
    found = [record for record in records[1:] if record["kind"] == "finding"]
    return status, [records[0], *sorted(found, key=lambda f: (f["variant"], f["name"]))]


# What changed -----------------------------------------------------------------------------------


@needs_nvcc
def test_an_unchanged_tree_passes_and_says_that_speed_was_not_measured(
    repository: Repository, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = repository.git("worktree", "list"), repository.git("status", "--porcelain")
    status, (told, *rows) = run(repository, cache)
    assert 0 == status == told["exit"]
    assert "not measured" == told["speed"]
    assert ["same machine code"] * 2 == [row["why"] for row in rows]
    assert "PASS (speed not measured)" in capsys.readouterr().out
    assert "speed not measured" in (cache / "gate.md").read_text()
    assert before == (repository.git("worktree", "list"), repository.git("status", "--porcelain"))


@needs_nvcc
def test_machine_code_decides_what_changed_not_names_of_files(
    repository: Repository, cache: Path
) -> None:
    repository.add("op/fast", "x[i]  +  SCALE  /* more */", threads=128)
    repository.add("op/naive", "x[i] * SCALE + i")
    status, (told, fast, naive) = run(repository, cache)
    assert 0 == status
    assert str(told["head"]).endswith("with uncommitted changes")
    assert ("unchanged", "same machine code") == (
        fast["state"], fast["why"],
    )  # fmt: skip
    assert "changed" == naive["state"]


@needs_nvcc
def test_a_change_of_a_header_reaches_the_kernels_that_include_it(
    repository: Repository, cache: Path
) -> None:
    repository.write("csrc/common/scale.h", "#define SCALE 3.0f\n")
    repository.commit()
    status, (_, *rows) = run(repository, cache, "--base", "HEAD~1", "--head", "HEAD")
    assert (0, ["changed", "changed"]) == (status, [row["state"] for row in rows])


@needs_nvcc
def test_new_local_memory_blocks_all_variants_but_naive(
    repository: Repository, cache: Path
) -> None:
    repository.write("csrc/op/fast.cu", SPILLING)
    repository.write("csrc/op/naive.cu", SPILLING)
    status, (told, fast, naive) = run(repository, cache)
    assert (1, "regression") == (status, told["run"])
    assert ("regression", "keeps 256 bytes of local memory on sm_80, base 0") == (
        fast["state"], fast["why"],
    )  # fmt: skip
    assert "changed" == naive["state"]
    assert "stack 0 → 256" in str(naive["why"])
    failures = ET.parse(cache / "gate.xml").findall("*/failure")
    assert [fast["why"]] == [f.get("message") for f in failures]


@needs_nvcc
def test_a_kernel_that_is_gone_blocks_and_a_new_one_does_not(
    repository: Repository, cache: Path
) -> None:
    (repository.folder / "csrc/op/fast.cu").rename(repository.folder / "csrc/op/faster.cu")
    status, (_, *rows) = run(repository, cache)
    states = {row["variant"]: row["state"] for row in rows}
    assert 1 == status
    assert {"op/fast": "regression", "op/faster": "new", "op/naive": "unchanged"} == states


@needs_nvcc
def test_a_head_that_does_not_compile_blocks_a_base_that_does_not_is_no_base(
    repository: Repository, cache: Path
) -> None:
    repository.add("op/fast", "undeclared")
    status, (_, row, _) = run(repository, cache)
    assert 1 == status
    assert "does not compile" in str(row["why"]) and "undeclared" in str(row["why"])
    repository.commit()
    repository.add("op/fast")
    status, (told, *_) = run(repository, cache)
    assert 3 == status
    assert "op/fast of base does not compile" in str(told["faults"])


@needs_nvcc
def test_nothing_is_compiled_twice(
    repository: Repository, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(repository, cache)
    monkeypatch.setattr(machine_code, "read_kernels", lambda *_: pytest.fail("compiled again"))
    assert first == run(repository, cache)


# What cannot be judged ----------------------------------------------------------------------------


def test_a_missing_base_is_untrusted(repository: Repository, cache: Path) -> None:
    status, (told, *rows) = run(repository, cache, "--base", "nowhere")
    assert (3, []) == (status, rows)
    assert ["there is no commit nowhere; was it fetched?"] == told["faults"]
    assert "1" == ET.parse(cache / "gate.xml").getroot().get("errors")


@needs_nvcc
def test_nothing_to_compare_is_untrusted(repository: Repository, cache: Path) -> None:
    status, (told, *_) = run(repository, cache, "other/*", "--base", "HEAD")
    assert (3, ["there was no kernel to compare"]) == (status, told["faults"])


@needs_nvcc
def test_speed_that_is_required_and_not_measured_is_untrusted(
    repository: Repository, cache: Path
) -> None:
    status, (told, *_) = run(repository, cache, "--base", "HEAD", "--require-speed")
    assert 3 == status
    assert "speed was not measured" in str(told["faults"])


def test_no_compiler_is_untrusted(
    repository: Repository, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ct, "find_nvcc", lambda: None)
    status, (told, *_) = run(repository, cache)
    assert 3 == status
    assert "nvcc is not on PATH" in str(told["faults"])


# What is told -------------------------------------------------------------------------------------

KERNEL = machine_code.Kernel("a", 128, 32, 0, 0, 0, 0, 352)


def test_differences_name_each_figure_and_architecture() -> None:
    after = {"80": replace(KERNEL, registers=40), "100": replace(KERNEL, registers=41, shared=64)}
    text = static.differences({"80": KERNEL, "100": KERNEL}, after)
    assert "registers 32 → 40/41, shared 0 → 0/64" == text


def report_of(*findings: Finding) -> Report:
    return Report("b", "h", findings=list(findings))


def test_the_worst_comes_first_and_the_summary_stays_small() -> None:
    rows = [
        Finding(RESOURCES, "op/v", f"k{i:04}", "changed", "x" * 5000 + "|") for i in range(3000)
    ]
    report = report_of(*rows, Finding(RESOURCES, "op/z", "bad", REGRESSION, "keeps local memory"))
    text = outputs.markdown(report)
    assert len(text) < 60_000  # a comment may have 64 kB, a job summary 1 MiB
    assert text.index("bad") < text.index("k0000")
    assert "and 2981 more" in text
    assert text.count("| changed |") == outputs.SUMMARY_ROWS - 1


def test_what_is_wrong_blocks_whatever_the_clock_says_and_nothing_measured_is_no_pass() -> None:
    slower = Finding("speed", "op/v", "w", REGRESSION, "+4 %", {"estimate": 0.04})
    wrong = Finding("correctness", "op/v", "conformance", REGRESSION, "budget")
    fine = Finding("speed", "op/v", "w", "ok")
    noisy = replace(report_of(slower), faults=["the controls differ"])
    assert ("untrusted", 3) == (report_of().run, report_of().exit_code)
    assert ("pass", 0) == (report_of(fine).run, report_of(fine).exit_code)
    assert ("regression", 1) == (report_of(slower).run, report_of(slower).exit_code)
    assert ("untrusted", 3) == (noisy.run, noisy.exit_code)
    assert "regression" == replace(report_of(wrong), faults=["the controls differ"]).run


def test_an_annotation_stands_at_the_line_of_its_kernel(tmp_path: Path) -> None:
    kernel = tmp_path / "csrc/op/v.cuh"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(
        "// words\n\n__global__ void other() {}\ntemplate <class T>\n__global__ void v()"
    )
    bad = Finding(RESOURCES, "op/v", "v<float>", REGRESSION, "100% worse\nthan base, all: of it")
    (line,) = outputs.annotations(report_of(bad), tmp_path)
    head = "::error file=csrc/op/v.cuh,line=5,title=resources%3A op/v v<float>::"
    assert head + "resources: 100%25 worse%0Athan base, all: of it" == line
    assert outputs.ANNOTATIONS == len(outputs.annotations(report_of(*[bad] * 30), tmp_path))


HOSTILE = "</script><script>alert(1)</script><img src=http://evil.test/x onerror=alert(2)>\x00|@all"


def test_the_page_and_the_summary_hold_hostile_text_as_text(tmp_path: Path) -> None:
    found = Finding("speed", HOSTILE, HOSTILE, REGRESSION, HOSTILE, SPEED_FACTS)
    report = replace(report_of(found), notes=[HOSTILE], faults=[HOSTILE])
    page, summary, *_ = (path.read_text() for path in outputs.write(report, tmp_path, tmp_path))
    assert "<script>alert" not in page + summary
    assert "<img" not in page + summary
    assert "@all" not in summary
    loads = [line for line in page.splitlines() if "src=" in line or "href=" in line]
    assert not any("http" in line.replace("&lt;img src=http", "") for line in loads)
    assert "+4.0 %" in page
    ET.parse(tmp_path / "gate.xml")


SPEED_FACTS = {
    "verdict": "REGRESSION", "estimate": 0.04, "low": 0.03, "high": 0.05, "detectable": 0.02,
    "p": 1e-6, "processes": 12, "pairs": 144, "kept": 1.0, "stage": "confirm", "role": "",
    "base_seconds": 1e-5, "head_seconds": 1.04e-5,
}  # fmt: skip


def test_in_a_workflow_the_job_gets_annotations_and_a_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = report_of(Finding(RESOURCES, "op/v", "", REGRESSION, "worse"))
    outputs.for_github(report, tmp_path, {})
    assert "" == capsys.readouterr().out
    summary = tmp_path / "summary"
    env = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    outputs.for_github(report, tmp_path, env)
    assert capsys.readouterr().out.startswith("::error file=csrc/op/v.cu,line=1")
    assert "REGRESSION (speed not measured)" in summary.read_text()


# Accuracy and counted work ------------------------------------------------------------------------


def errors_of(variant: str, ratio: float, cases: int = 20, scatter: float = 0.1) -> pd.DataFrame:
    """Errors of both sides, case by case, whose ratio scatters around ``ratio``."""
    rng = np.random.default_rng(len(variant))
    base = np.exp(rng.normal(-2, 1, cases))
    head = base * ratio * np.exp(rng.normal(0, scatter, cases))
    numbers = {f"{name}_{side}": e for name in ("used", "rms") for side, e in (
        ("base", base), ("head", head),
    )}  # fmt: skip
    return pd.DataFrame({"variant": variant, "dtype": "float16", "case": range(cases), **numbers})


def test_one_more_rounding_is_found_and_chance_is_not() -> None:
    samples = pd.concat([errors_of("op/same", 1.0), errors_of("op/rounded", 1.4)])
    states = {f.variant: f.state for f in accuracy.judge(samples)}
    assert {"op/same": "ok", "op/rounded": "regression"} == states


def test_equal_errors_are_no_drift_and_smaller_ones_are_told() -> None:
    samples = pd.concat([errors_of("op/a", 1.0, scatter=0), errors_of("op/better", 0.6)])
    assert ["ok", "improved"] == [f.state for f in accuracy.judge(samples)]


def test_drift_is_not_seen_where_there_is_none() -> None:
    many = [errors_of("x" * i, 1.0, scatter=0.5) for i in range(300)]
    assert {"ok", "improved"} >= {f.state for f in accuracy.judge(pd.concat(many))}


def test_a_few_cases_are_too_few() -> None:
    (finding,) = accuracy.judge(errors_of("op/v", 1.3, cases=5, scatter=0.5))
    assert "inconclusive" == finding.state


def counts_of(**changes: tuple[int, int]) -> pd.DataFrame:
    both = dict.fromkeys(work.COUNTERS, (100, 100)) | changes
    row = {f"{s}_{n}": t[i] for n, t in both.items() for i, s in enumerate(("base", "head"))}
    return pd.DataFrame([{"variant": "op/v", "case": "c", **row}])


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "unchanged"),
        ({"accesses": (100, 110)}, "regression"),
        ({"accesses": (1000, 1010)}, "changed"),
        ({"accesses": (100, 110), "barriers": (8, 4)}, "changed"),
        ({"accesses": (100, 80)}, "improved"),
        ({"blocks": (100, 400)}, "changed"),
        ({"accesses": (0, 100)}, "unchanged"),  # base's build does not count them
    ],
)
def test_more_work_and_less_of_none_blocks(changes: dict[str, tuple[int, int]], state: str) -> None:
    (finding,) = work.judge(counts_of(**changes))
    assert state == finding.state


# Measuring ----------------------------------------------------------------------------------------


class FakeMachine:
    """A machine whose calls say how long they take, and whose clock may jump."""

    pace = Pace(step=1e-6, burst=0.0, gap=0.0, warm_up=0.0)

    def __init__(self, clocks: Iterator[float] | None = None) -> None:
        self.clocks = clocks or itertools.repeat(1500.0)

    def estimate(self, calls: Sequence[Any]) -> float:
        return float(calls[0]())

    def method(self, calls: Sequence[Any], estimate: float) -> "FakeMachine":
        method = FakeMachine()
        method.calls = calls
        return method

    def whole(self, calls: int) -> int:
        return len(self.calls)

    def sample(self, calls: int) -> float:
        return float(np.mean([call() for call in self.calls]))

    def conditions(self) -> dict[str, float]:
        return {"sm_mhz": next(self.clocks), "throttle_bits": 0}


def test_rounds_go_by_turns_and_hold_what_each_side_takes() -> None:
    machine: Any = FakeMachine()
    calls = {"base": [lambda: 1e-3] * 4, "head": [lambda: 2e-3] * 4}
    rows = list(bursts.rounds(machine, bursts.prepared(machine, calls), 3, first=0))
    assert ["base", "head", "head", "base", "base", "head"] == [r["side"] for r in rows]
    assert list(range(6)) == [r["order"] for r in rows]
    assert {"base": 1e-3, "head": 2e-3} == {r["side"]: pytest.approx(r["seconds"]) for r in rows}


def test_the_canary_really_works_more() -> None:
    machine: Any = FakeMachine()
    timed = bursts.handicapped(machine, [lambda: 1e-3] * 40, 0.05)
    rows = list(bursts.rounds(machine, timed, 2, first=1))
    seconds = {r["side"]: r["seconds"] for r in rows}
    assert 1.05 == pytest.approx(seconds["head"] / seconds["base"])
    assert (40, 42) == tuple(len(timed[s].method.calls) for s in ("base", "head"))


class LoopingMachine(FakeMachine):
    """A machine that may stop after any call, as the loop of a processor may. Something else takes
    the processor for 3 ms as soon as 6 ms of work are done."""

    def __init__(self, worked: list[float] | None = None) -> None:
        super().__init__()
        self.worked = worked if worked is not None else [0.0]

    def method(self, calls: Sequence[Any], estimate: float) -> "LoopingMachine":
        method = LoopingMachine(self.worked)
        method.calls = calls
        return method

    def whole(self, calls: int) -> int:
        return min(calls, len(self.calls))

    def sample(self, calls: int) -> float:
        before = self.worked[0]
        self.worked[0] += sum(self.calls[i % len(self.calls)]() for i in range(calls))
        lost = 3e-3 * (self.worked[0] // 6e-3 - before // 6e-3)
        return (self.worked[0] - before + lost) / calls


@pytest.mark.parametrize("call", [2e-6, 9e-5, 3e-3])
def test_the_canary_is_timed_in_rounds_like_any_other(call: float) -> None:
    """Samples of its whole rotation would all lose the processor to something else."""
    machine: Any = LoopingMachine()
    calls = [lambda: call] * 256
    usual, canary = (
        bursts.prepared(machine, {"base": calls, "head": calls}),
        bursts.handicapped(machine, calls, 0.05),
    )
    assert 21 * canary["base"].calls == 20 * canary["head"].calls
    assert canary["base"].calls <= max(20, 1.1 * usual["base"].calls)
    seconds = canary["base"].calls * canary["base"].samples * call
    assert seconds <= max(2 * bursts.ROUND_SECONDS, 3 * 20 * call)
    if call < 1e-3:  # else each sample loses the processor whatever it does
        rows = list(bursts.rounds(machine, canary, 4, first=0))
        assert {"base": call, "head": 1.05 * call} == {
            r["side"]: pytest.approx(r["seconds"]) for r in rows
        }


class Serving:
    """A subject that declines all but some benchmarks."""

    machine: Any = FakeMachine()

    def __init__(self, *served: str) -> None:
        self.served = served

    def open(self, bench: str) -> dict[str, list[Any]]:
        if bench not in self.served:
            raise bursts.Declined(bench)
        return {"base": [lambda: 1e-3] * 20, "head": [lambda: 1e-3] * 20}


def test_the_canary_is_made_of_what_is_served() -> None:
    plan, chance = {"pairs": 2, "handicap": 0.05}, random.Random(0)
    subject: Any = Serving("b")
    assert 4 == len(list(bursts.canary(subject, ["a", "b", "c"], plan, chance)))
    assert [] == list(bursts.canary(subject, ["a", "c"], plan, chance))


def test_a_pair_under_unequal_clocks_is_taken_again() -> None:
    machine: Any = FakeMachine(iter([1500.0, 1200.0, 1500.0, 1500.0]))
    calls = {"base": [lambda: 1e-3], "head": [lambda: 1e-3]}
    timed = bursts.prepared(machine, calls)
    rows = list(bursts.rounds(machine, timed, 1, first=0))
    assert [(True, 1)] * 2 == [(r["steady"], r["retaken"]) for r in rows]
    jumping: Any = FakeMachine(itertools.cycle([1500.0, 1200.0]))
    rows = list(bursts.rounds(jumping, timed, 2, first=0))
    assert not any(r["steady"] for r in rows)
    (fault,) = speed.clock_faults([{"kind": "round", **r} for r in rows])
    assert "unequal clocks" in fault


def simulated(
    monkeypatch: pytest.MonkeyPatch, slowdowns: dict[str, float], dies_at: int = -1,
    device: str = "GPU-1", declined: str = "none",
) -> list[str]:  # fmt: skip
    """Processes that need no process: their times have 0.1 % of noise. What was run is told."""
    rng, run = np.random.default_rng(0), []

    def measured(plan: Any, out: Path) -> list[Any]:
        if len(run) == dies_at:
            raise KeyboardInterrupt
        run.append(plan["process"])
        names = [*plan["benches"], *(["canary"] if plan["canary"] else [])]
        slower = {bench: slowdowns.get(bench, 0.0) for bench in names} | {"canary": 0.05}
        rows = [
            {
                "kind": "round", "bench": bench, "process": plan["process"], "pair": pair,
                "side": side, "order": 2 * pair + ((side == "head") != pair % 2), "steady": True,
                "conditions": {},
                "seconds": np.exp(rng.normal(0, 1e-3)) * (1 + slower[bench] * (side == "head")),
            }
            for bench in names for pair in range(plan["pairs"]) for side in ("base", "head")
            if not bench.startswith(declined)
        ]  # fmt: skip
        rows += [
            {"kind": "declined", "bench": bench, "reason": f"{bench} is not served"}
            for bench in names
            if bench.startswith(declined)
        ]
        rows = [{"kind": "process", "device": device}, *rows, {"kind": "done"}]
        out.write_text("".join(json.dumps(r) + "\n" for r in rows))
        return rows

    monkeypatch.setattr(speed, "_run", measured)
    return run


BENCHES = [f"op/v{i} w" for i in range(15)]


def test_a_slower_kernel_is_found_in_fresh_processes_and_its_canary_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = simulated(monkeypatch, {"op/v3 w": 0.04})
    target = speed.Target("none", BENCHES, BENCHES[10:], BENCHES[0])
    outcome = speed.measure(target, tmp_path / "speed", lambda words: None)
    report = report_of()
    pipeline.tell_speed(report, outcome)
    assert ("regression", ["op/v3"]) == (report.run, [f.variant for f in report.regressions])
    assert "+4.0%" in report.regressions[0].why or "+3.9%" in report.regressions[0].why
    assert 5 == report.counts["unchanged"]
    assert [f"screen-{i}" for i in range(6)] + [f"confirm-{i}" for i in range(12)] == run
    json.dumps(report.as_records())


def test_what_no_side_serves_is_not_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The controls were timed, and nothing of what changed."""
    simulated(monkeypatch, {}, declined="op/v0")
    monkeypatch.setattr(gpu_subject, "benches", lambda variants: [f"{v} w" for v in variants])
    monkeypatch.setattr(pipeline, "to_json", str)
    monkeypatch.setattr(pipeline, "other_processes", list)
    built = builds.Build("", builds.CUDA, trees.Tree("", "", tmp_path), tmp_path)
    made = {(side, builds.CUDA): built for side in ("base", "head")}
    unchanged = [f"op/c{i}" for i in range(10)]
    comparison = static.Comparison(changed=["op/v0"], unchanged=unchanged)
    report = Report("b", "h")
    pipeline._speed(pipeline.Settings("b", out=tmp_path), comparison, made, report, True, True)
    states = {f.variant: (f.state, f.why) for f in report.findings}
    assert ("inconclusive", "not compared: op/v0 w is not served") == states["op/v0"]
    assert "declines every benchmark" in report.stages["speed"].words
    assert not report.speed_measured

    report = Report("b", "h")
    comparison.changed.append("op/v1")
    pipeline._speed(pipeline.Settings("b", out=tmp_path), comparison, made, report, True, True)
    assert report.speed_measured
    assert "ok" == next(f.state for f in report.findings if f.variant == "op/v1")

    monkeypatch.setattr(gpu_subject, "benches", lambda variants: [])
    report = Report("b", "h")
    pipeline._speed(pipeline.Settings("b", out=tmp_path), comparison, made, report, True, True)
    assert not report.speed_measured
    assert "no workload of the bench times op/v0, op/v1" in report.notes


def test_a_variant_with_a_new_instantiation_is_still_compared_with_base() -> None:
    result = static.Comparison()
    one, two = {"k<float>": {"80": KERNEL}}, {"k<float>": {"80": KERNEL}, "k<half>": {"80": KERNEL}}
    compiled = {("base", "op/v"): one, ("head", "op/v"): two, ("head", "op/new"): one}
    static._add_variant(result, "op/v", True, compiled, "")
    static._add_variant(result, "op/new", False, compiled, "")
    assert (["op/v", "op/new"], ["op/new"]) == (result.changed, result.added)


def test_an_interrupted_run_goes_on_and_one_that_ended_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    target = speed.Target("none", BENCHES, (), None)
    simulated(monkeypatch, {}, dies_at=4)
    with pytest.raises(KeyboardInterrupt):
        speed.measure(target, tmp_path / "speed", lambda words: None)
    run = simulated(monkeypatch, {})
    outcome = speed.measure(target, tmp_path / "speed", lambda words: None)
    assert (["screen-4", "screen-5"], "pass") == (run, outcome.verdicts.run)
    assert "an interrupted run was continued" in outcome.notes
    run.clear()
    speed.measure(target, tmp_path / "speed", lambda words: None)
    assert 6 == len(run)


def test_a_run_that_went_on_on_another_gpu_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    target = speed.Target("none", BENCHES, (), None)
    simulated(monkeypatch, {}, dies_at=4, device="GPU-1")
    with pytest.raises(KeyboardInterrupt):
        speed.measure(target, tmp_path / "speed", lambda words: None)
    simulated(monkeypatch, {}, device="GPU-2")
    outcome = speed.measure(target, tmp_path / "speed", lambda words: None)
    assert ["the processes ran on different devices (GPU-1; GPU-2): measure it again"] == (
        outcome.faults
    )
    outcome = speed.measure(target, tmp_path / "speed", lambda words: None)
    assert [] == outcome.faults  # it ended, so this one is another


def throttled(steady: bool, *bits: int) -> list[dict[str, Any]]:
    return [{"kind": "round", "steady": steady, "conditions": {"throttle_bits": b}} for b in bits]


def test_throttling_is_told_in_words_and_blocks_where_it_makes_clocks_unequal() -> None:
    idle_and_set_clocks = throttled(True, *[0x3] * 20)
    assert (
        [] == speed.throttle_notes(idle_and_set_clocks) == speed.clock_faults(idle_and_set_clocks)
    )
    both = throttled(True, *[0x4] * 5, *[0x44] * 5, *[0] * 10)
    assert [] == speed.clock_faults(both)
    notes = speed.throttle_notes(both)
    assert notes[0].startswith("50% of the rounds were throttled (power cap)")
    assert notes[1].startswith("25% of the rounds were throttled (hardware thermal)")
    (fault,) = speed.clock_faults(throttled(False, 0x4, 0))
    assert fault.endswith("(throttled by: power cap)")
    assert [] == speed.throttle_notes(throttled(True, 0x4, *[0] * 99))  # a moment of it


def test_a_process_that_hangs_is_ended_and_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(speed, "HUNG", (0.01, 0.0))
    with pytest.raises(Untrusted, match="a measuring process hung: 0 s passed"):
        speed.measure(speed.Target("none:None", ["op/v w"]), tmp_path, lambda words: None)
    begun = tmp_path / "out.jsonl"
    begun.write_text('{"kind": "begun", "bench": "op/v w"}\n{"kind": "begun", "ben')
    assert " at op/v w" == speed._at(begun)


def test_a_kernel_that_one_side_lacks_on_this_gpu_is_declined() -> None:
    subject = object.__new__(gpu_subject.GpuSubject)
    workload = serving.load()[0]
    key = (workload.op, workload.name)
    subject._workloads, subject._inputs = {key: workload}, (key, None)  # type: ignore[assignment]
    subject._sides = {"base": sides.Side("base", "", None, {})}  # type: ignore[arg-type]
    with pytest.raises(bursts.Declined, match=f"base has no kernel {workload.op}/v for this GPU"):
        subject.open(f"{workload.op}/v {workload.name}")


@pytest.mark.parametrize("visible", [None, "GPU-7,GPU-8"])
def test_other_processes_on_the_gpu_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, visible: str | None
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\necho "$@" > "$0.asked"\necho "12, python"\necho\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert ["12, python"] == pipeline.other_processes()
    asked = tool.with_suffix(".asked").read_text()
    assert ("--id=GPU-7" in asked, "--id" in asked) == (visible is not None,) * 2
    tool.write_text("#!/bin/sh\necho no devices\nexit 9\n")
    assert [] == pipeline.other_processes()


def test_a_head_that_is_wrong_is_not_timed() -> None:
    report = report_of(Finding("correctness", "op/v", "conformance", REGRESSION, "hangs"))
    pipeline._speed(pipeline.Settings("b"), static.Comparison(), {}, report, True, right=False)
    assert "head is wrong" in report.stages["speed"].words
    assert not report.speed_measured


def test_ctrl_c_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(settings: pipeline.Settings) -> Report:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "run", stopped)
    assert gate.INTERRUPTED == gate.main([])
    assert "the same command goes on" in capsys.readouterr().err


def test_a_suite_that_does_not_run_hides_no_other_and_is_no_pass(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of three variants one fails, one has no test, one passes."""

    def run_suite(*arguments: Any) -> subprocess.CompletedProcess[str]:
        kernel, results = arguments[4], arguments[5]
        if kernel == "simt.b":
            return subprocess.CompletedProcess([], correctness.NOT_FOUND, "no tests ran", "")
        inside = '<failure message="wrong"/>' if kernel == "simt.a" else ""
        results.write_text(f"<testsuite><testcase>{inside}</testcase></testsuite>")
        return subprocess.CompletedProcess([], int(bool(inside)), "", "")

    monkeypatch.setattr(correctness, "_pytest", run_suite)
    suite = tmp_path / "conformance" / "test_op.py"
    suite.parent.mkdir()
    suite.touch()
    build = builds.Build("head", builds.PLAIN, trees.Tree("head", "h", tmp_path), tmp_path)
    report, made = report_of(), {("head", builds.PLAIN): build}
    settings = pipeline.Settings("b", out=tmp_path)
    (tmp_path / "correctness").mkdir()
    right = pipeline._correctness(settings, ["op/b", "op/a", "op/c"], made, report)
    assert not right
    states = {f.variant: f.state for f in report.findings}
    assert {"op/a": "regression", "op/b": "inconclusive", "op/c": "ok"} == states
    assert ["conformance of op/b has no test: no tests ran"] == report.faults
    report.findings = [f for f in report.findings if f.state != REGRESSION]
    assert ("untrusted", 3) == (report.run, report.exit_code)


def test_a_process_that_dies_is_told_with_its_benchmark(tmp_path: Path) -> None:
    target = speed.Target("benchmarks.gate.proof.nothing:There", ["op/v w"])
    with pytest.raises(Untrusted, match="a measuring process died: ModuleNotFoundError"):
        speed.measure(target, tmp_path / "speed", lambda words: None)


def test_a_failure_is_told_by_what_is_wrong() -> None:
    message = "AssertionError: append_kv: simt.naive fails\n because: k[0] is 1, should be 2"
    assert "append_kv: simt.naive fails: k[0] is 1, should be 2" == correctness.first_words(message)
    assert "failed" == correctness.first_words("")


# Both builds in one process -----------------------------------------------------------------------


def test_two_builds_are_two_modules_and_a_wrong_build_is_refused(tmp_path: Path) -> None:
    module = Path(native.extension("simt").__file__)  # type: ignore[union-attr, arg-type]
    build_id = native.extension("simt").build_id  # type: ignore[union-attr]
    copy = tmp_path / module.name
    shutil.copy(module, copy)
    wrappers = str(Path(native.__file__))
    base = sides.Loadable("base", "simt", str(module), wrappers, build_id)
    head = replace(base, side="head")
    loaded = sides.load_both(base, head, head_first=True)
    assert loaded[0].module is not loaded[1].module
    assert ("base", "head") == (loaded[0].name, loaded[1].name)
    assert {"copy_blocks/vec", "append_kv/naive"} <= set(loaded[0].kernels)
    with pytest.raises(sides.WrongBuild, match="has build id"):
        sides.load(replace(base, build_id="0" * 16))
    with pytest.raises(sides.WrongBuild, match="two builds with one id"):
        sides.load_both(base, replace(head, module=str(copy)))


def test_the_same_case_on_both_sides_has_equal_errors_and_counts() -> None:
    module = native.extension("simt")
    wrappers = str(Path(native.__file__))
    base = sides.Loadable("base", "simt", str(module.__file__), wrappers, module.build_id)  # type: ignore
    loaded = sides.load_both(base, replace(base, side="head"))
    records = [
        {"kind": "case", "variant": v, "case": repr(c), **probe.compare(*loaded, v, c)}
        for v in ("paged_attention/naive", "copy_blocks/vec")
        for c in probe.cases(ops.get(v.partition("/")[0]), 3)
    ]
    errors, counts = probe.tables(records)
    assert {"paged_attention/naive"} == set(errors["variant"])
    assert list(errors["rms_base"]) == list(errors["rms_head"])
    assert {"unchanged"} == {f.state for f in work.judge(counts)}
    assert probe.Problems([], {}, []) == probe.problems(records)


def test_probed_cases_fit_and_are_many() -> None:
    """Far tensors, which conformance judges, would need gigabytes."""
    op = ops.get("append_kv")
    found = probe.cases(op, 60)
    assert 60 == len(found)
    assert all(probe.fits(op, case) for case in found)


def case_record(variant: str, case: int, **what: Any) -> dict[str, Any]:
    return {"kind": "case", "variant": variant, "case": f"case {case}", **what}


def test_a_thing_that_keeps_cases_from_being_compared_is_told_once() -> None:
    changed = {"error": "TypeError: 5 arguments", "side": "base"}
    found = probe.problems(
        [
            *(case_record(v, i, **changed) for v in ("op/a", "op/b") for i in range(3)),
            case_record("op/b", 3, error="ValueError: odd", side="head"),
            case_record("op/b", 4, dtype="torch.float16"),
            {"kind": "one side", "variant": "op/c", "lacking": "base"},
        ]
    )
    assert [
        "op/a, op/b of base on case 0: TypeError: 5 arguments",
        "op/b of head on case 3: ValueError: odd",
        "op/c of base: has no such kernel",
    ] == found.notes
    assert ["op/a"] == found.uncompared


def test_a_head_that_declines_what_base_serves_is_a_regression() -> None:
    records = [
        case_record("op/a", 0, declined="base"),  # both, or head serves more: no harm
        case_record("op/b", 1, dtype="torch.float16"),
        *(case_record("op/b", i, declined="head") for i in (2, 3)),
    ]
    report = report_of()
    pipeline._tell_problems(report, probe.problems(records), "simt")
    (finding,) = report.findings
    assert ("regression", "op/b", "support, simt") == (report.run, finding.variant, finding.name)
    assert "head declines 2 cases that base serves, the first case 2" == finding.why


def test_a_kernel_of_which_nothing_could_be_compared_is_not_green() -> None:
    failed = [case_record("op/a", i, error="TypeError: 5", side="base") for i in range(2)]
    report = report_of(Finding("resources", "op/a", "", "changed"))
    for face in ("simt", "cuda"):
        pipeline._tell_problems(report, probe.problems(failed), face)
    assert 1 == len(report.notes)
    assert ("untrusted", 3) == (report.run, report.exit_code)
    assert "no case of op/a ran on both sides (simt)" in report.faults[0]
