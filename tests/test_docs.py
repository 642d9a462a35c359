"""The documents that speak of the code: the generated ones are current, the decisions are kept."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
PIN = re.compile(r"`((?:tests|conformance)/\w+\.py)::(\w+)`")


def generator() -> ModuleType:
    path = ROOT / "tools" / "generate_docs.py"
    spec = importlib.util.spec_from_file_location("generate_docs", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_documents_are_current() -> None:
    """Else: `python tools/generate_docs.py`."""
    for path, text in generator().documents().items():
        assert path.read_text() == text, f"{path.name} is not what the pages say"


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
