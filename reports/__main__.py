"""`python -m reports`: records -> report.html, summary.md and CSV files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reports import build, load

USAGE_ERROR = 2
EPILOG = """\
exit status:
  0  every judged case passed and every mutant was killed
  1  a case failed, crashed or hung, or a mutant survived
  2  the records cannot be read, or the run asked for is not there
  3  nothing was measured, or the run was cut off without a failure: not known, so not green

The page is one file: it loads nothing, works offline and without JavaScript.
In CI: cat OUT/summary.md >> "$GITHUB_STEP_SUMMARY"
"""


def parser() -> argparse.ArgumentParser:
    cli = argparse.ArgumentParser(
        prog="python -m reports",
        description="Turn conformance and mutant records into one offline HTML page, a Markdown "
        "summary and CSV files.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cli.add_argument(
        "--records",
        type=Path,
        default=Path("reports/records"),
        metavar="DIR",
        help="folder of runs, folder of one run, or one .jsonl file (default: %(default)s)",
    )
    cli.add_argument(
        "--out",
        type=Path,
        default=Path("reports/out"),
        metavar="DIR",
        help="where to write (default: %(default)s)",
    )
    cli.add_argument(
        "--run",
        action="append",
        metavar="ID|latest",
        help="the run to report; may be given several times. latest, the default, is the newest "
        "run; if that holds only verdicts or only mutants, the newest run of the same code with "
        "the other kind joins it",
    )
    return cli


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        records = load.load(args.records, args.run or ["latest"])
    except (load.RecordError, OSError) as error:
        print(f"reports: {error}", file=sys.stderr)
        return USAGE_ERROR
    report = build.make(records)
    for path in build.write(report, args.out):
        print(path)
    outcome = report.outcome
    print(f"{outcome.state.upper()}: {outcome.title}. {outcome.sentence}")
    return outcome.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
