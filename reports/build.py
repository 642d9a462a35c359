"""Tables -> report.html, summary.md and CSV files.

The page is one file that asks the network for nothing: style and script are inlined, and its
content security policy allows no other source. Record text reaches it through autoescape only.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from reports import tables
from reports.load import Records

TEMPLATES = Path(__file__).parent / "templates"
PAGE_KINDS = 200  # a kind of failure: one op, kernel, status and check
PAGE_ALIKE = 10  # failures of one kind
PAGE_REASONS = 50
SUMMARY_FAILURES = 10
SUMMARY_ROWS = 100
SUMMARY_SURVIVORS = 25
REPRO_IN_SUMMARY = 2000  # a command is shown whole or not at all

Row = dict[str, Any]


@dataclass(frozen=True)
class Report:
    """Everything the templates read: computed once, shown twice."""

    outcome: tables.Outcome
    cautions: list[str]
    frames: dict[str, pd.DataFrame]
    """By the name of its CSV file."""
    environment: pd.DataFrame
    score: tables.Score


def make(records: Records) -> Report:
    frames = {
        "verdicts": records.verdicts,
        "failures": tables.failures(records.verdicts),
        "kernels": tables.summary(records.verdicts),
        "mutants": tables.mutants(records.mutants),
        "edges": tables.edges(records.verdicts, records.domains),
        "laws": tables.laws(records.laws),
        "families": tables.families(records.verdicts),
        "unsupported": tables.unsupported(records.verdicts),
    }
    return Report(
        outcome=tables.outcome(records),
        cautions=tables.cautions(records, frames["kernels"]),
        frames=frames,
        environment=tables.environment(records.runs),
        score=tables.score(records.mutants),
    )


def write(report: Report, out: Path) -> list[Path]:
    """Writes every file of the report; returns their paths, the page first."""
    out.mkdir(parents=True, exist_ok=True)
    written = [out / "report.html", out / "summary.md"]
    for path, text in zip(written, (html(report), markdown(report)), strict=True):
        path.write_text(text, encoding="utf-8")
    for name, frame in report.frames.items():
        path = out / f"{name}.csv"
        _for_csv(frame).to_csv(path, index=False)
        written.append(path)
    return written


def _for_csv(frame: pd.DataFrame) -> pd.DataFrame:
    if "edges" not in frame:
        return frame
    return frame.assign(edges=frame["edges"].map("; ".join))


def html(report: Report) -> str:
    style, script = (
        (TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = templates(autoescape=True).get_template("report.html.j2")
    # Our own style and script are the only text that is not escaped.
    return page.render(
        **_context(report), style=Markup(style), script=Markup(script), script_hash=digest
    )


def markdown(report: Report) -> str:
    """A summary for a CI job: bounded whatever the records hold."""
    page = templates(autoescape=False).get_template("summary.md.j2")
    return page.render(**_context(report))


def _context(report: Report) -> Row:
    frames = report.frames
    failing = frames["failures"]
    kinds = failure_kinds(failing)
    edges, families = frames["edges"], frames["families"]
    ops = sorted({*edges["op"], *families["op"]})
    return {
        "outcome": report.outcome,
        "cautions": report.cautions,
        "score": report.score,
        "stats": stats(report),
        "failures": kinds,
        "failures_total": len(failing),
        "failures_shown": sum(len(alike) + 1 for _, alike in kinds),
        "kinds_total": int((failing["nth"] == 0).sum()),
        "kernels": rows(frames["kernels"]),
        "mutants": rows(frames["mutants"]),
        "laws": rows(frames["laws"]),
        "broken": rows(frames["laws"].query("broken_by != ''")),
        "survivors": rows(frames["mutants"].query("~killed")),
        "coverage": [coverage(op, edges, families) for op in ops],
        "reasons": rows(frames["unsupported"].head(PAGE_REASONS)),
        "reasons_total": len(frames["unsupported"]),
        "runs": list(report.environment.columns),
        "environment": report.environment,
        "csv_files": [f"{name}.csv" for name in frames],
        "limits": {
            "failures": SUMMARY_FAILURES,
            "rows": SUMMARY_ROWS,
            "survivors": SUMMARY_SURVIVORS,
            "repro": REPRO_IN_SUMMARY,
        },
    }


def rows(frame: pd.DataFrame) -> list[Row]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def failure_kinds(failing: pd.DataFrame) -> list[tuple[Row, list[Row]]]:
    """The worst failure of each kind, worst kind first, and the next ones of that kind."""
    shown = failing[failing["nth"] < PAGE_ALIKE]
    kinds: dict[tuple[str, ...], list[Row]] = {}
    for row in rows(shown):
        kinds.setdefault(tuple(row[name] for name in tables.KIND), []).append(row)
    return [(alike[0], alike[1:]) for alike in list(kinds.values())[:PAGE_KINDS]]


def stats(report: Report) -> Row:
    """The few numbers under the banner."""
    kernels = report.frames["kernels"]
    with_used = kernels.dropna(subset=["worst_used"])
    worst = with_used.sort_values("worst_used", kind="stable").tail(1)
    return {
        "cases": int(kernels["cases"].sum()),
        "kernels": int((kernels["cases"] > 0).sum()),
        "ops": kernels["op"].nunique(),
        "failures": len(report.frames["failures"]),
        "unsupported": int(kernels["unsupported"].sum()),
        "worst": rows(worst)[0] if len(worst) else None,
    }


def coverage(op: str, edges: pd.DataFrame, families: pd.DataFrame) -> Row:
    """What the cases of one op reached."""
    counts = families[families["op"] == op].set_index("family").drop(columns="op")
    counts = counts.loc[:, counts.sum() > 0]  # other ops' dtypes are no hole of this one
    return {
        "op": op,
        "edges": rows(edges[edges["op"] == op]),
        "dtypes": [str(dtype) for dtype in counts.columns],
        "families": [(str(family), list(line)) for family, line in counts.iterrows()],
        "most": int(counts.to_numpy().max()) if counts.size else 0,
    }


# --- text ----------------------------------------------------------------------------------------


def count(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else ""


def used(value: float) -> str:
    """used/allowed to three digits; a dash where no receipt gave a number."""
    return "—" if math.isnan(value) else number(value, 3)


def percent(value: float) -> str:
    """A share to three digits; a dash where there is none."""
    return f"{value:.1%}" if math.isfinite(value) else "—"


def number(value: float, digits: int = 9) -> str:
    """Nine digits tell any two float32 values apart."""
    return "NaN" if math.isnan(value) else f"{value:.{digits}g}"


def seconds(value: float) -> str:
    if not math.isfinite(value):
        return "—"
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(value) >= scale:
            return f"{value / scale:.3g} {unit}" if value < 1000 else f"{value:,.0f} s"
    return f"{value / 1e-6:.2g} µs"


def sort_value(value: object) -> str:
    """What the page's script compares: JavaScript's own spelling, empty for no value."""
    if isinstance(value, float) and not math.isfinite(value):
        return "" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return str(value)


def clip(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def md(text: object, most: int = 400) -> str:
    """One line of literal text in Markdown, also inside a table cell."""
    line = clip(" ".join(str(text).split()), most)
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*_{}\[\]()#+!|~$-])", r"\\\1", line)
    # A zero-width space keeps names and addresses from becoming mentions and links.
    return line.replace("@", "@\u200b").replace("://", ":\u200b//").replace("www.", "www\u200b.")


def fence(text: str) -> str:
    """A code block which its content cannot close."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}sh\n{text}\n{ticks}"


@cache
def templates(*, autoescape: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters: dict[str, Callable[..., Any]] = {
        "count": count,
        "percent": percent,
        "used": used,
        "number": number,
        "seconds": seconds,
        "sort_value": sort_value,
        "clip": clip,
        "md": md,
        "fence": fence,
    }
    environment.filters.update(filters)
    return environment
