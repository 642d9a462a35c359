"""`python -m benchmarks.judging`: what it measures, and its words where there is nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import judging

ROOT = Path(__file__).resolve().parents[1]
WITHOUT_EXTENSION = """
import runpy, sys
sys.modules["yaie._simt"] = None  # no module of that name is found
runpy.run_module("benchmarks.judging", run_name="__main__")
"""


def test_without_the_extension_it_says_how_to_build_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("YAIE_EXTENSIONS", raising=False)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTENSION],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "the extension yaie._simt is not built: run `nox -s build`\n" == done.stderr
    assert (1, "") == (done.returncode, done.stdout)


def test_a_mistyped_kernel_is_an_error_that_names_the_nearest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["judging", "--kernel", "simt.split_vk"])
    with pytest.raises(SystemExit, match=r"simt\.split_vk; did you mean simt\.split_kv"):
        judging.main()


def test_the_kernels_of_the_ops_that_have_small_cases_are_measured() -> None:
    measured = [(op.name, kernel.name) for op, kernel in judging.chosen("simt.naive")]
    ops = dict.fromkeys(re.findall(r"^(\w+)\.Case", judging.CASES.read_text(), re.MULTILINE))
    assert sorted((op, "simt.naive") for op in ops) == sorted(measured)
