"""How a run is told: terminal, Markdown, JUnit XML, annotations, JSON lines, and the offline page.

Sizes are bounded: a job summary may have 1 MiB, a comment 64 kB, a step 10 annotations. What comes
from sources or compilers is escaped wherever it goes.
"""

from __future__ import annotations

import json
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

from benchmarks.gate.report import (
    CORRECTNESS,
    INCONCLUSIVE,
    REGRESSION,
    Finding,
    Report,
    title,
)  # fmt: skip

TERMINAL_ROWS = 40
SUMMARY_ROWS = 20
ANNOTATIONS = 10
NO_SPEED = "speed not measured"


def banner(report: Report) -> str:
    """The verdict, and what it does not say."""
    counts = ", ".join(f"{n} {state}" for state, n in report.counts.items())
    speed = "" if report.speed_measured else f" ({NO_SPEED})"
    archs = ", ".join(f"sm_{arch}" for arch in report.archs)
    return (
        f"gate: {report.run.upper()}{speed}, exit {report.exit_code}\n"
        f"head {report.head} against base {report.base}; nvcc {report.compiler}, {archs}\n"
        f"{counts or 'nothing was compared'}"
    )


def terminal(report: Report) -> str:
    rows = [(f.state, f.stage, title(f), f.why) for f in report.told()]
    more = len(rows) - TERMINAL_ROWS
    rows = rows[:TERMINAL_ROWS]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
    lines = [
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]])
        for row in rows
    ]
    if more > 0:
        lines.append(f"... and {more} more, in gate.jsonl")
    lines += ["", *_stage_lines(report), ""]
    lines += [f"note: {note}" for note in report.notes]
    lines += [f"untrusted: {fault}" for fault in report.faults]
    return "\n".join([*lines, banner(report)])


def _stage_lines(report: Report) -> list[str]:
    return [
        f"{s.name:11}  {s.status:19}  {s.words}" + (f"  ({s.seconds:.0f} s)" if s.seconds else "")
        for s in report.stages.values()
    ]


# Markdown -----------------------------------------------------------------------------------------

SIGN = {"pass": "✅", "regression": "❌", "untrusted": "❔"}


def markdown(report: Report) -> str:
    """A summary far below the size that a comment may have."""
    from reports.build import md  # escapes; needs jinja2, as the page does

    speed = "" if report.speed_measured else f" ({NO_SPEED})"
    lines = [f"## {SIGN[report.run]} Gate: {report.run.upper()}{speed}", ""]
    lines.append(f"Head `{_code(report.head)}` against base `{_code(report.base)}`.")
    lines += ["", *(f"- {md(reason)}" for reason in report.reasons[:SUMMARY_ROWS])]
    rows = report.told()
    if rows:
        lines += ["", "| | stage | what | |", "|---|---|---|---|"]
    lines += [
        f"| {f.state} | {f.stage} | {md(title(f), 120)} | {md(f.why, 300)} |"
        for f in rows[:SUMMARY_ROWS]
    ]
    if len(rows) > SUMMARY_ROWS:
        lines += ["", f"… and {len(rows) - SUMMARY_ROWS} more, in `gate.jsonl`"]
    lines += ["", "| stage | | |", "|---|---|---|"]
    lines += [f"| {s.name} | {s.status} | {md(s.words)} |" for s in report.stages.values()]
    lines += ["", *(f"- {md(note)}" for note in report.notes[:SUMMARY_ROWS])]
    return "\n".join(lines).rstrip() + "\n"


def _code(text: str) -> str:
    return text.replace("`", "'").replace("\n", " ")[:80]


# JUnit --------------------------------------------------------------------------------------------


def junit(report: Report) -> str:
    """One test case per finding; what cannot be trusted is an error of the run, speed that was not
    measured is skipped."""
    suite = ET.Element("testsuite", name="gate")
    for f in report.findings:
        parent = f"gate.{f.stage}.{f.variant.replace('/', '.')}".rstrip(".")
        name = f.name or f.variant
        case = ET.SubElement(suite, "testcase", classname=_xml(parent), name=_xml(name))
        if f.state == REGRESSION:
            ET.SubElement(case, "failure", message=_xml(f.why))
        elif f.state == INCONCLUSIVE:
            ET.SubElement(case, "skipped", message=_xml(f.why))
    for fault in report.faults:
        case = ET.SubElement(suite, "testcase", classname="gate", name="run")
        ET.SubElement(case, "error", message=_xml(fault))
    if not report.speed_measured:
        case = ET.SubElement(suite, "testcase", classname="gate", name="speed")
        ET.SubElement(case, "skipped", message=NO_SPEED)
    for name, path in (
        ("tests", "testcase"), ("failures", "*/failure"), ("errors", "*/error"),
        ("skipped", "*/skipped"),
    ):  # fmt: skip
        suite.set(name, str(len(suite.findall(path))))
    text = ET.tostring(suite, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _xml(text: str) -> str:
    """Without the control characters that XML cannot hold."""
    return re.sub(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD]", "�", text)


# Annotations --------------------------------------------------------------------------------------


def annotations(report: Report, repository: Path) -> list[str]:
    """GitHub's workflow commands: each regression at the line where its kernel is defined."""
    lines = []
    for finding in report.regressions[:ANNOTATIONS]:
        path, line = place_of(finding, repository)
        name = _property(f"{finding.stage}: {title(finding)}")
        lines.append(f"::error file={_property(path)},line={line},title={name}::{_data(finding)}")
    return lines


def place_of(finding: Finding, repository: Path) -> tuple[str, int]:
    """File and line of the kernel of a finding: the `__global__` of its name, else of its file."""
    for suffix in (".cuh", ".cu"):
        path = repository / "csrc" / f"{finding.variant}{suffix}"
        if not finding.variant or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        name = re.escape(finding.name.partition("<")[0])
        own = re.search(rf"__global__[^;{{]*?\b{name}\s*\(", text) if name else None
        found = own or re.search(r"__global__", text)
        if found:
            line = text.count("\n", 0, found.start()) + 1
            return path.relative_to(repository).as_posix(), line
    return (f"csrc/{finding.variant}.cu" if finding.variant else "csrc"), 1


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")


def _data(finding: Finding) -> str:
    prefix = "" if finding.stage == CORRECTNESS else f"{finding.stage}: "
    return _escaped(prefix + finding.why)


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def for_github(report: Report, repository: Path, env: Mapping[str, str] = os.environ) -> None:
    """Annotations and the job summary, inside a workflow of GitHub."""
    if env.get("GITHUB_ACTIONS") != "true":
        return
    print("\n".join(annotations(report, repository)))
    if summary := env.get("GITHUB_STEP_SUMMARY"):
        with open(summary, "a", encoding="utf-8") as file:
            file.write(markdown(report))


# Files --------------------------------------------------------------------------------------------


def write(report: Report, repository: Path, folder: Path) -> list[Path]:
    """gate.html, gate.md, gate.xml, gate.jsonl, annotations.txt; their paths, the page first."""
    from reports import gate as page

    folder.mkdir(parents=True, exist_ok=True)
    lines = folder / "gate.jsonl"
    lines.write_text("".join(json.dumps(r) + "\n" for r in report.as_records()), encoding="utf-8")
    texts = {
        "gate.html": page.html(page.load_file(lines)),
        "gate.md": markdown(report),
        "gate.xml": junit(report),
        "annotations.txt": "".join(f"{a}\n" for a in annotations(report, repository)),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / "gate.html", folder / "gate.md", folder / "gate.xml", lines]
