"""The table of who finds the planted bugs: what the tools' output is read as."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import planted_on_gpu as tool
from planted import HERE, ROOT

BAD_WRITE = """========= COMPUTE-SANITIZER
========= Invalid __global__ write of size 4 bytes
=========     at naive<float>(float *)+0x110 in naive.cuh:17
========= Program hit cudaErrorLaunchFailure (error 719) due to "unspecified launch failure"
========= ERROR SUMMARY: 3 errors
"""
RACE = """========= COMPUTE-SANITIZER
========= Error: Race reported between Write access at n.cuh:31 and Read access at n.cuh:40
========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)
"""
BARRIER = """========= Barrier error detected. Divergent thread(s) in block.
========= ERROR SUMMARY: 1 error
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BAD_WRITE, "Invalid __global__ write of size 4 bytes (3)"),
        (
            RACE,
            "Race reported between Write access at n.cuh:31 and Read access at n.cuh:40 (1)",
        ),
        (BARRIER, "Barrier error detected. Divergent thread(s) in block. (1)"),
        ("========= ERROR SUMMARY: 0 errors\n", "-"),
        ("========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n", "-"),
        ("Segmentation fault\n", "no summary (exit 139)"),
    ],
)
def test_output_is_read(text: str, expected: str) -> None:
    assert expected == tool.reading(text, 139)
    assert (expected not in ("-", "no summary (exit 139)")) == tool.tells(expected)


def test_totals_count_bugs_and_not_the_originals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "gpu", lambda: "a GPU")
    quiet = dict.fromkeys(tool.TOOLS, "-")
    rows = [
        {"bug": "clean-a", "file": None, "executor": "-", **quiet, "memcheck": "false alarm (1)"},
        {"bug": "b", "file": "b.cuh", "executor": "race", **quiet, "racecheck": "Race (1)"},
        {"bug": "c", "file": "c.cuh", "executor": "race", **quiet, "synccheck": "hangs"},
    ]
    lines = tool.table(rows).splitlines()
    assert "of 2 bugs the executor finds 2, compute-sanitizer's four tools together 1." in lines[0]
    assert "| found | 2 | 0 | 1 | 0 | 0 |" == lines[-1]


def test_no_constant_is_named_through_an_object() -> None:
    # nvcc 13.0 hands {a, b, object.kConstant} to the host compiler as {((a), (b), (object.kConstant))},
    # a list of one: a tensor of the planted split_kv had 64 bytes on a GPU and 1536 here.
    through_object = re.compile(r"\b[a-z]\w*\.k[A-Z]\w*")
    sources = [
        path
        for folder in (HERE, ROOT / "csrc")
        for path in folder.rglob("*")
        if path.suffix in (".cu", ".cuh", ".h")
    ]
    hits = {
        f"{path.relative_to(ROOT)}: {hit[0]}"
        for path in sources
        for line in path.read_text().splitlines()
        for hit in through_object.finditer(line.partition("//")[0])
    }
    assert not hits
