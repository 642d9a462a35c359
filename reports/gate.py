"""`python -m reports.gate build/gate/gate.jsonl`: what a gate found -> gate.html, worst first."""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from reports import build, load

Row = dict[str, Any]

BANNERS = {
    "pass": ("pass", "good"),
    "regression": ("fail", "bad"),
    "untrusted": ("inconclusive", "unsure"),
}
QUIET = ("ok", "unchanged")
"""States of findings that need no attention."""
SIDES = ("base", "head")


@dataclass(frozen=True)
class Gate:
    """The records of one run."""

    run: Row
    stages: list[Row]
    findings: list[Row]


def load_lines(lines: Sequence[str]) -> Gate:
    """Read the JSON lines; RecordError where they are none of a gate's."""
    try:
        records = [json.loads(line) for line in lines if line.strip()]
        run = next(r for r in records if r["kind"] == "gate")
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        raise load.RecordError("these are no records of a gate") from error
    stages = [r for r in records if r["kind"] == "stage"]
    return Gate(run, stages, [r for r in records if r["kind"] == "finding"])


def load_file(path: Path) -> Gate:
    return load_lines(path.read_text(encoding="utf-8").splitlines())


def html(gate: Gate) -> str:
    """The page, whole: it loads nothing and escapes all that the records hold."""
    style, script = (
        (build.TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js")
    )
    css = style + (build.TEMPLATES / "gate.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    speed = [f for f in gate.findings if f["stage"] == "speed"]
    icon, colour = BANNERS[gate.run["run"]]
    page = build.templates(autoescape=True).get_template("gate.html.j2")
    return page.render(
        run=gate.run,
        stages=gate.stages,
        worst=[f for f in gate.findings if f["state"] not in QUIET],
        quiet=[f for f in gate.findings if f["state"] in QUIET],
        speed=[f for f in speed if f["facts"].get("estimate") is not None],
        kernels=[k for f in gate.findings if f["stage"] == "resources" for k in _figures(f)],
        icon=icon,
        colour=colour,
        style=Markup(css),
        script=Markup(script),
        script_hash=digest,
    )


def _figures(finding: Row) -> list[Row]:
    """What a changed kernel takes on each architecture, both sides."""
    base, head = (finding["facts"].get(side, {}) for side in SIDES)
    if finding["state"] in QUIET:
        return []
    name = f"{finding['variant']} {finding['name']}"
    return [
        {"name": name, "arch": arch, "base": base.get(arch), "head": head.get(arch)}
        for arch in dict.fromkeys([*base, *head])
    ]


def main(argv: Sequence[str] | None = None) -> int:
    cli = argparse.ArgumentParser(prog="python -m reports.gate", description=__doc__)
    cli.add_argument("records", type=Path, nargs="?", default=Path("build/gate/gate.jsonl"))
    args = cli.parse_args(argv)
    try:
        page = html(load_file(args.records))
    except (load.RecordError, OSError) as error:
        print(f"reports: {error}", file=sys.stderr)
        return 2
    out = args.records.with_suffix(".html")
    out.write_text(page, encoding="utf-8")
    print(out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
