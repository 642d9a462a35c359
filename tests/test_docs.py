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


@pytest.mark.parametrize(
    "folder", ["yaie", "conformance", "benchmarks", "csrc", "docs", "reports", "tests", "tools"]
)
def test_a_decision_that_is_named_is_there(folder: str) -> None:
    there = {path.name[:4] for path in DECISIONS}
    named = re.compile(r"decisions?[ /](\d{4}(?:(?:, | and )\d{4})*)\b")
    kinds = {".py", ".md", ".cu", ".cuh", ".h", ".toml"}
    for path in (p for p in (ROOT / folder).rglob("*") if p.suffix in kinds):
        lists = " ".join(named.findall(path.read_text()))
        assert set(re.findall(r"\d{4}", lists)) <= there, path


@pytest.mark.parametrize("path", DECISIONS, ids=lambda p: p.stem)
def test_the_tests_that_pin_a_decision_are_there(path: Path) -> None:
    text = path.read_text()
    pins = PIN.findall(text)
    assert "**Pinned by**" not in text or pins
    for file, test in pins:
        assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_and_files_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text()
    links = [m for m in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in m]
    assert [] == [link for link in links if not (page.parent / link).exists()]
    tops = "yaie|csrc|conformance|benchmarks|tests|tools|reports/(?!records|out|timings|gpu)"
    files = re.findall(rf"`((?:{tops})[/\w.]*/[\w.]+\.(?:py|cuh|cu|h|toml|sh|cpp|txt))`", text)
    made_up = [file for file in files if "foo" in file]  # an op that is about to be added
    there = [file for file in files if (ROOT / file).exists()]
    assert sorted(files) == sorted(there + made_up)


def test_every_settled_disagreement_is_pinned() -> None:
    """From 0020 on, notes are about what peers do otherwise."""
    unpinned = [p.name for p in DECISIONS if p.name >= "0020" and "Pinned by" not in p.read_text()]
    assert [] == unpinned
