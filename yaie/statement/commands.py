"""The command ``yaie conformance-statement``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from yaie.command.arguments import make_folder
from yaie.record import DEFAULT_FOLDER
from yaie.statement import run as runs
from yaie.statement import waivers
from yaie.statement.compose import compose
from yaie.statement.verify import Checkout, problems, read, tampering

OK, FAILED = 0, 1


def add_command(commands: Any) -> None:
    """Add it to the subcommands of the command line."""
    command = commands.add_parser(
        "conformance-statement",
        help="write down what a run of the suite has shown, or verify such a statement",
        description="Writes a statement of a run of the conformance suite, from its records: what "
        "was judged, by which code, on which machine, with what result, and what was not run. "
        "Status: 0 it says pass, 1 it says fail, 2 it could not be made.",
    )
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, metavar="FILE", help="write a statement")
    what.add_argument(
        "--verify",
        type=Path,
        metavar="FILE",
        help="whether a statement is whole, speaks of the code at hand, says pass, and rests on no "
        "expired waiver; status: 0 yes, 1 no, 2 there is no statement",
    )
    command.add_argument(
        "--records",
        type=Path,
        default=DEFAULT_FOLDER,
        metavar="DIR",
        help=f"the records, or one run's folder (default: {DEFAULT_FOLDER})",
    )
    command.add_argument("--run", dest="run_id", metavar="ID", help="the run (default: the newest)")
    command.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    return _verify(args.verify) if args.verify else _write(args.records, args.run_id, args.out)


def _write(records: Path, run_id: str | None, out: Path) -> int:
    make_folder("--out", out.parent)
    if out.is_dir():
        raise ValueError(f"--out {out}: is a folder: name a file")
    run = runs.read(records, run_id)
    code = {name: run.head.get(name) for name in ("suite", "kernels", "builds")}
    if changed := list(Checkout.here().differs({**code, "commit": run.head.get("git")})):
        raise ValueError(f"run {run.head['run']} judged other code: " + "; ".join(changed))
    statement = compose(run, waivers.load())
    text = json.dumps(statement, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    out.write_text(text + "\n", encoding="utf-8")
    return _report(out, statement, statement["problems"])


def _verify(path: Path) -> int:
    statement, here = read(path), Checkout.here()
    if changed := tampering(statement):
        print(f"FAIL: {path}\n  {changed}")
        return FAILED
    found = problems(statement, here, date.today())
    status = _report(path, statement, found)
    for face in here.unbuilt(statement["code"]):
        print(f"  not compared: the build of yaie._{face}, there is none here")
    return status


def _report(path: Path, statement: Mapping[str, Any], found: list[str]) -> int:
    """Print what it comes to; the exit status."""
    results, not_run = statement["results"], statement["not_run"]
    cases = sum(row["cases"] for row in results)
    excused = sum(row["status"] == "waived" for row in results)
    run = statement["run"]
    print(f"{'FAIL' if found else 'pass'}: {path}")
    print(
        f"  run {run['run']}, profile {run['profile']}: {cases:,} cases of {len(results)} kernels"
        + (f", {excused} of them waived" if excused else "")
    )
    if left := {k: v for k, v in run["selection"].items() if v and v != "*"}:
        print("  only a part was run: " + ", ".join(f"{k} {v}" for k, v in left.items()))
    edges = sum(map(len, not_run["edges"].values()))
    print(
        f"  not run: {len(not_run['kernels'])} kernels, {edges} edges, {len(not_run['tests'])} "
        f"tests, profiles {', '.join(not_run['profiles']) or 'none'}"
    )
    if statement["code"]["dirty"]:
        print("  the checkout had changes that no commit holds")
    for problem in found:
        print(f"  {problem}")
    return FAILED if found else OK
