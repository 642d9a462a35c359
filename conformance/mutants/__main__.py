"""``python -m conformance.mutants``: plant every known defect, and show that each is found."""

from __future__ import annotations

import argparse
import fnmatch
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from conformance.mutants import catalogue, sample, table
from conformance.mutants.build import BuildError, Toolchain, prepare
from conformance.mutants.catalogue import CatalogueError, Trial
from conformance.mutants.hunt import SHRINK_SECONDS, Effort
from conformance.mutants.runner import Cache, hunt_all
from conformance.mutants.table import Row
from conformance.profiles import PROFILES
from yaie.command.arguments import make_folder, positive
from yaie.record import DEFAULT_FOLDER, Recorder, new_run_id

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_NOTHING, EXIT_INTERRUPTED = 0, 1, 2, 3, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = _parser().parse_args(argv)
    try:
        trials = sample.choose(select(catalogue.load(), args), args.sample, args.since)
        if args.list:
            return _list(trials)
        return _run_mutants(trials, args)
    except (BuildError, CatalogueError) as error:
        print(f"mutants: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("interrupted: the same command resumes", file=sys.stderr)
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    profiles = ", ".join(f"{name} {cases}" for name, cases in PROFILES.items())
    parser = argparse.ArgumentParser(
        prog="python -m conformance.mutants",
        description="Plant known defects into the kernels, one at a time, and hunt each with the "
        "cases of the conformance suite. Fates are kept in build/mutants, so that only what "
        "changed is hunted again and an interrupted run resumes.",
        epilog="Exit status: 0 every mutant died, or survived for the reason that the catalogue "
        "states; 1 one did not, or does not build; 2 wrong usage; 3 nothing was run.",
    )
    parser.add_argument("--op", default="*", metavar="GLOB", help="mutants of these ops (all)")
    parser.add_argument("--mutant", default="*", metavar="GLOB", help="mutants of these ids (all)")
    parser.add_argument("--kernel", default="*", metavar="GLOB", help="in these kernels (all)")
    parser.add_argument(
        "--profile", choices=PROFILES, help=f"cases a kernel at most: {profiles} (default)"
    )
    parser.add_argument(
        "--jobs", type=positive, default=len(os.sched_getaffinity(0)), metavar="N",
        help="mutants at a time (one a core: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--records", type=Path, default=DEFAULT_FOLDER, metavar="DIR",
        help="where records of the fates go (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N",
        help="hunt with other cases (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--since", metavar="REVISION",
        help="only mutants of sources that changed since then (git)",
    )  # fmt: skip
    parser.add_argument(
        "--sample", type=positive, metavar="N",
        help="only so many, drawn anew at each commit; with --since, so many of the others too",
    )  # fmt: skip
    parser.add_argument("--no-cache", action="store_true", help="hunt what is known already, too")
    parser.add_argument("--markdown", type=Path, metavar="PATH", help="also write the page of docs")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="list the mutants, and stop")
    what.add_argument(
        "--selftest", action="store_true",
        help="only show that a harmless change survives and one that does not compile is an error",
    )  # fmt: skip
    return parser


def select(mutants: Sequence[catalogue.Mutant], args: argparse.Namespace) -> list[Trial]:
    """The trials that the options let through."""
    return [
        Trial(mutant, kernel)
        for mutant in mutants
        if fnmatch.fnmatchcase(mutant.op, args.op)
        and fnmatch.fnmatchcase(mutant.id, args.mutant)
        and not (args.selftest and mutant.expect == "killed")
        for kernel in mutant.kernels
        if fnmatch.fnmatchcase(kernel, args.kernel)
    ]


def _list(trials: Sequence[Trial]) -> int:
    for trial in trials:
        mutant = trial.mutant
        print(f"{mutant.id}  ({mutant.op} {trial.kernel}; {mutant.source})\n    {mutant.what}")
    print(f"{len(trials)} mutants")
    return EXIT_OK if trials else EXIT_NOTHING


def _run_mutants(trials: Sequence[Trial], args: argparse.Namespace) -> int:
    if not trials:
        print("no mutant fits these options", file=sys.stderr)
        return EXIT_NOTHING
    try:
        make_folder("--records", args.records)
    except ValueError as error:
        print(f"mutants: {error}", file=sys.stderr)
        return EXIT_USAGE
    for trial in trials:
        trial.mutant.apply()  # every edit is checked before anything is built
    profile = args.profile or "default"
    toolchain = _prepare(args.jobs)
    rows = _hunt(trials, toolchain, profile, args)
    lines = ["", *table.text(rows), "", *table.remarks(rows), table.score(rows)]
    print("\n".join(lines))
    if args.markdown:
        command = " ".join(["python -m conformance.mutants", *_options(args, profile)])
        page = table.markdown(rows, command, profile, PROFILES[profile], SHRINK_SECONDS)
        args.markdown.parent.mkdir(parents=True, exist_ok=True)
        args.markdown.write_text(page, encoding="utf-8")
    return status(rows)


def status(rows: Sequence[Row]) -> int:
    """The exit status that these fates deserve."""
    if not rows:
        return EXIT_NOTHING
    return EXIT_OK if all(row.as_expected for row in rows) else EXIT_FAILED


def _prepare(jobs: int) -> Toolchain:
    print("building the kernels without a defect", file=sys.stderr)
    return prepare(jobs)


def _hunt(
    trials: Sequence[Trial], toolchain: Toolchain, profile: str, args: argparse.Namespace
) -> list[Row]:
    cache = Cache(toolchain, Effort(PROFILES[profile], args.seed))
    recorder = Recorder(args.records, new_run_id(), profile, "mutants")
    rows, started = [], time.monotonic()
    try:
        for trial, fate in hunt_all(trials, cache, args.jobs, not args.no_cache):
            rows.append(Row(trial, fate))
            if not rows[-1].tests_the_tool:
                recorder.mutant(fate.record(trial))
            elapsed = time.monotonic() - started
            line = f"{len(rows):3} of {len(trials)}  {elapsed:4.0f} s  {rows[-1].line}"
            print(line, file=sys.stderr, flush=True)
    finally:
        recorder.close()
    place = {trial.name: n for n, trial in enumerate(trials)}
    return sorted(rows, key=lambda row: place[row.trial.name])


def _options(args: argparse.Namespace, profile: str) -> list[str]:
    """The options that decide what is in the table."""
    chosen = [f"--{n} '{getattr(args, n)}'" for n in ("op", "mutant", "kernel")]
    seed = [f"--seed {args.seed}"] if args.seed else []
    return [*(c for c in chosen if not c.endswith("'*'")), f"--profile {profile}", *seed]


if __name__ == "__main__":
    sys.exit(main())
