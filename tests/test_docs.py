"""The documents that speak of the code: the generated ones are current, the decisions are kept."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
PIN = re.compile(r"`((?:tests|conformance)/\w+\.py)::(\w+)`")


def test_generated_documents_are_current() -> None:
    """In a process of its own: tests beside this one register kernels."""
    command = [sys.executable, str(ROOT / "tools" / "generate_docs.py"), "--check"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr


def test_decisions_are_numbered_once() -> None:
    numbers = [path.name[:4] for path in DECISIONS]
    assert sorted(set(numbers)) == numbers
    for path in DECISIONS:
        assert path.read_text().startswith(f"# {path.name[:4]} "), path.name


@pytest.mark.parametrize("folder", ["yaie", "conformance", "benchmarks", "csrc", "docs"])
def test_a_decision_that_is_named_is_there(folder: str) -> None:
    there = {path.name[:4] for path in DECISIONS}
    named = re.compile(r"decisions?[ /](\d{4})\b")
    for path in (p for p in (ROOT / folder).rglob("*") if p.suffix in {".py", ".md", ".cuh"}):
        assert set(named.findall(path.read_text())) <= there, path


@pytest.mark.parametrize("path", DECISIONS, ids=lambda p: p.stem)
def test_the_tests_that_pin_a_decision_are_there(path: Path) -> None:
    text = path.read_text()
    pins = PIN.findall(text)
    assert "**Pinned by**" not in text or pins
    for file, test in pins:
        assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"


def test_every_settled_disagreement_is_pinned() -> None:
    """From 0020 on, notes are about what peers do otherwise."""
    unpinned = [p.name for p in DECISIONS if p.name >= "0020" and "Pinned by" not in p.read_text()]
    assert [] == unpinned
