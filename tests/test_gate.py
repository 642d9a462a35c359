"""The gate on repositories made for it, with real compilations, and what it prints."""

import json
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import compile_table as ct
from benchmarks.gate import __main__ as gate
from benchmarks.gate import machine_code, outputs, static
from benchmarks.gate.report import REGRESSION, RESOURCES, Finding, Report

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
