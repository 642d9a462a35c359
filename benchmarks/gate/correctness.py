"""Is head right? Conformance of the kernels that changed, on head's plain build and on the one that
checks every memory access, by head's own pages and suite, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.gate.builds import Build
from benchmarks.gate.report import (
    CORRECTNESS,
    INCONCLUSIVE,
    OK,
    REGRESSION,
    Finding,
    Untrusted,
)  # fmt: skip

PROFILE = "quick"
NOT_FOUND = 5
"""pytest's exit status where no test was collected."""


def kernels_of(changed: Sequence[str], faces: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(op, glob of kernels) for each op of the changed variants."""
    for variant in changed:
        op, _, name = variant.partition("/")
        for face in faces:
            yield op, f"{face}.{name}"


def judge(
    build: Build, extensions: Path, changed: Sequence[str], out: Path, profile: str
) -> list[Finding]:
    """A finding for each changed variant, INCONCLUSIVE where the suite itself does not run: what
    is known of the others stays known. ``extensions``: the folder with the build's extension."""
    what = "sanitize" if build.kind == "checked" else "conformance"
    findings = []
    for op, kernel in kernels_of(changed, [build.face]):
        suite = build.tree.root / "conformance" / f"test_{op}.py"
        variant = f"{op}/{kernel.partition('.')[2]}"
        if not suite.exists():
            findings.append(
                Finding(CORRECTNESS, variant, what, REGRESSION, f"head has no suite {suite.name}")
            )
            continue
        results = out / f"{what}-{op}-{kernel}.xml"
        run = _pytest(build, extensions, suite, op, kernel, results, profile)
        try:
            findings.append(_read(run, results, variant, what, kernel))
        except Untrusted as error:
            findings.append(Finding(CORRECTNESS, variant, what, INCONCLUSIVE, str(error)))
    return findings


def _pytest(
    build: Build,
    extensions: Path,
    suite: Path,
    op: str,
    kernel: str,
    results: Path,
    profile: str,
) -> subprocess.CompletedProcess[str]:
    results.parent.mkdir(parents=True, exist_ok=True)
    results.unlink(missing_ok=True)
    command = [
        sys.executable, "-m", "pytest", f"conformance/{suite.name}", "-q", "-p", "no:benchmark",
        "-p", "no:cacheprovider", "--op", op, "--kernel", kernel, "--profile", profile,
        "--records", str(results.parent / "records"), f"--junitxml={results}",
    ]  # fmt: skip
    environment = {**os.environ, "YAIE_EXTENSIONS": str(extensions), "CI": "1"}
    return subprocess.run(
        command, cwd=build.tree.root, env=environment, capture_output=True, text=True
    )


def _read(
    run: subprocess.CompletedProcess[str], results: Path, variant: str, what: str, kernel: str
) -> Finding:
    if run.returncode not in (0, 1) or not results.exists():
        last = (run.stdout + run.stderr).strip().splitlines()[-3:]
        if run.returncode == NOT_FOUND or any("UsageError" in line for line in last):
            raise Untrusted(f"{what} of {variant} has no test: {' '.join(last)}")
        raise Untrusted(f"{what} of {variant} did not run: {' '.join(last) or run.returncode}")
    cases = ET.parse(results).iter("testcase")
    judged, faults = 0, []
    for case in cases:
        judged += case.find("skipped") is None
        for fault in (*case.findall("failure"), *case.findall("error")):
            faults.append(first_words(fault.get("message") or fault.text or "failed"))
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        return Finding(CORRECTNESS, variant, what, REGRESSION, faults[0] + more)
    if not judged:
        raise Untrusted(f"{what} of {variant} judged nothing")
    tests = f"{judged} test{'s' * (judged != 1)}"
    return Finding(CORRECTNESS, variant, what, OK, f"{tests} of {kernel} passed")


def first_words(message: str) -> str:
    """What a failure says is wrong, and because of what, short."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    first = (lines[0] if lines else "failed").removeprefix("AssertionError: ")
    because = [line.removeprefix("because:").strip() for line in lines if "because:" in line]
    return ": ".join([first, *because[:1]])[:300]
