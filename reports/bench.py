"""`python -m reports.bench`: timings -> bench.html, bench.md, CSV, JSON lines and Parquet.

The page is one file that asks the network for nothing. Its charts are drawn by a script that is
part of it; on paper, and where scripts are off, the same charts are pictures.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib.util
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from reports import build, charts, engine, load, tables, timings
from reports.load import Records

SUMMARY_ROWS = 20
USAGE_ERROR = 2
EPILOG = """\
exit status:
  0  every timed kernel was judged, and its timed outputs are right
  1  a kernel of ours is wrong, crashed, or was faster than the machine can be
  2  the records cannot be read
  3  too little was timed, or too unsteadily, to say anything
"""


@dataclass(frozen=True)
class Page:
    """Everything that the templates read."""

    outcome: tables.Outcome
    cautions: list[str]
    rows: pd.DataFrame
    worst: pd.DataFrame
    families: pd.DataFrame
    untimed: pd.DataFrame
    conformance: pd.DataFrame
    served: list[timings.Served]
    trend: pd.DataFrame
    peaks: Mapping[str, Any] | None
    environment: pd.DataFrame
    charts: list[charts.Chart]
    engine: list[dict[str, Any]] = field(default_factory=list)
    """What the whole engine did, by load."""


def make(records: Records, past: pd.DataFrame | None = None) -> Page:
    """Tables, charts and verdict of one run, with the runs before it."""
    rows = timings.rows(records.timings)
    run = records.runs["run"].iloc[-1] if len(records.runs) else ""
    trend = timings.trend(past, run) if past is not None else timings.trend(timings.NO_HISTORY, "")
    peaks = records.peaks.iloc[-1].to_dict() if len(records.peaks) else None
    return Page(
        outcome=timings.outcome(records, rows),
        cautions=timings.cautions(records, rows),
        rows=rows,
        worst=timings.worst_first(rows),
        families=timings.families(rows),
        untimed=timings.untimed(rows),
        conformance=timings.conformance(rows),
        served=timings.served(rows),
        trend=trend,
        peaks=peaks,
        environment=tables.environment(records.runs),
        charts=charts.make(rows, peaks, trend),
    )


def html(page: Page) -> str:
    """The page, whole."""
    files = ("report.css", "bench.css", "report.js", "bench.js")
    css, more_css, js, more_js = (
        (build.TEMPLATES / name).read_text(encoding="utf-8") for name in files
    )
    scripts = [js, *([charts.bundle(), more_js] if page.charts else [])]
    template = build.templates(autoescape=True).get_template("bench.html.j2")
    return template.render(
        **_context(page),
        style=Markup(css + more_css),
        scripts=[Markup(s) for s in scripts],
        script_hashes=[_digest(s) for s in scripts],
        specs=[(c, Markup(c.spec.replace("<", "\\u003c")), Markup(c.svg)) for c in page.charts],
    )


def markdown(page: Page) -> str:
    """A summary for a CI job."""
    template = build.templates(autoescape=False).get_template("bench.md.j2")
    return template.render(**_context(page), limit=SUMMARY_ROWS)


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _context(page: Page) -> dict[str, Any]:
    timed = page.rows[page.rows["status"] == "timed"]
    best = timed.sort_values("of_limit", kind="stable").tail(1)
    return {
        "outcome": page.outcome,
        "cautions": page.cautions,
        "worst": build.rows(page.worst),
        "families": build.rows(page.families),
        "untimed": build.rows(page.untimed),
        "conformance": build.rows(page.conformance),
        "served": page.served,
        "engine": page.engine,
        "trend": build.rows(page.trend),
        "peaks": page.peaks,
        "environment": page.environment,
        "runs": list(page.environment.columns),
        "files": [
            f"timings.{kind}" for kind in ("csv", "jsonl", *(["parquet"] if _arrow() else []))
        ],
        "with_charts": bool(page.charts),
        "stats": {
            "timed": len(timed),
            "kernels": timings.kernels_of(timed),
            "ops": timed["op"].nunique(),
            "failed": int(page.rows["status"].isin(timings.FAILED).sum()),
            "unsteady": int(timed["unsteady"].sum()) if len(timed) else 0,
            "ratio": timings.of_best(page.rows),
            "best": build.rows(best)[0] if len(best) else None,
        },
    }


def write(page: Page, out: Path) -> list[Path]:
    """Write every file; their paths, the page first."""
    out.mkdir(parents=True, exist_ok=True)
    written = [out / "bench.html", out / "bench.md"]
    for path, text in zip(written, (html(page), markdown(page)), strict=True):
        path.write_text(text, encoding="utf-8")
    flat = page.rows.drop(columns=["samples", "weights", "conditions", "notes"])
    flat.to_csv(out / "timings.csv", index=False)
    lines = (json.dumps(_plain(row)) for row in build.rows(page.rows))
    (out / "timings.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    written += [out / "timings.csv", out / "timings.jsonl"]
    if _arrow():
        texts = {
            name: page.rows[name].map(json.dumps) for name in ("weights", "conditions", "notes")
        }
        page.rows.assign(**texts).to_parquet(out / "timings.parquet", index=False)
        written.append(out / "timings.parquet")
    return written


def _plain(value: Any) -> Any:
    """For JSON, which has no NaN and no NumPy."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value.item() if hasattr(value, "item") else value


def _arrow() -> bool:
    return importlib.util.find_spec("pyarrow") is not None


def parser() -> argparse.ArgumentParser:
    cli = argparse.ArgumentParser(
        prog="python -m reports.bench",
        description="Turn the timings of a run into one offline HTML page and tables.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cli.add_argument("--records", type=Path, default=Path("reports/timings"), metavar="DIR")
    cli.add_argument(
        "--engine", type=Path, default=Path("reports/engine"), metavar="DIR", help="of engine-bench"
    )
    cli.add_argument("--out", type=Path, default=Path("reports/out"), metavar="DIR")
    cli.add_argument("--run", default="latest", metavar="ID|latest", help="default: the newest")
    return cli


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        records = load.load(args.records, [args.run])
        served = engine.rows(args.engine)
    except (load.RecordError, OSError) as error:
        print(f"reports: {error}", file=sys.stderr)
        return USAGE_ERROR
    page = replace(make(records, timings.history(args.records)), engine=served)
    for path in write(page, args.out):
        print(path)
    if not page.charts and len(page.worst):
        print("no charts: they need altair and vl-convert-python")
    print(f"{page.outcome.state.upper()}: {page.outcome.title}. {page.outcome.sentence}")
    return page.outcome.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
