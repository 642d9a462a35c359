"""`python -m benchmarks`: judge, time, report.

    python -m benchmarks --op paged_attention --kernel 'cuda.*' --budget 300

Rows are timed in a process of their own. One that dies under a kernel is started again and goes on
behind that row. What is measured goes to reports/timings, the page to reports/out/bench.html.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.clock import LOST
from benchmarks.timing.options import BUDGETS, OPTIONS, given, seconds
from yaie.record import new_run_id, typed

HERE = Path(__file__).resolve().parent
RESTARTS = 50
PEERS = "benchmarks.peers"
STATUSES = {0: 0, 1: 1, 2: 130, 3: 2, 4: 2, 5: 3}
"""pytest's exit status, and ours: all well, a kernel failed, interrupted, cannot run, wrong usage,
nothing was timed."""


def parser() -> argparse.ArgumentParser:
    cli = argparse.ArgumentParser(
        prog="python -m benchmarks",
        allow_abbrev=False,
        fromfile_prefix_chars="@",
        description="Judge and time the kernels, and write the report. Each op × kernel × workload "
        "is a row; docs/bench.md says how it is timed. Options of pytest are passed on; those "
        "in a file, one a line, by @FILE.",
        epilog="exit status: 0 all well; 1 a kernel failed; 2 wrong usage, or it cannot run; "
        "3 too little was timed",
    )
    cli.add_argument(
        "--records",
        type=Path,
        default=Path("reports/timings"),
        metavar="DIR",
        help="where what is measured goes (%(default)s)",
    )
    cli.add_argument(
        "--out",
        type=Path,
        default=Path("reports/out"),
        metavar="DIR",
        help="the page's folder (%(default)s)",
    )
    cli.add_argument(
        "--run", metavar="ID", help="go on with this run: what it has is not timed again"
    )
    cli.add_argument(
        "--budget",
        type=seconds,
        metavar="S",
        help="seconds that the run may take "
        f"({BUDGETS['cpu']:.0f}; on a GPU {BUDGETS['cuda']:.0f})",
    )
    cli.add_argument("--no-report", action="store_true", help="time only, make no page")
    rows = cli.add_argument_group("which rows")
    for option, how in OPTIONS.items():
        rows.add_argument(option, **how)
    return cli


def main(argv: Sequence[str] | None = None) -> int:
    args, rest = parser().parse_known_args(argv)
    if args.run and not (args.records / args.run).is_dir():
        print(f"benchmarks: there is no run {args.run} in {args.records}", file=sys.stderr)
        return 2
    run = args.run or new_run_id()
    command = typed("python -m benchmarks", sys.argv[1:] if argv is None else argv)
    timed = STATUSES.get(time_rows(args, [*given(args), *rest], run, command), 1)
    if timed in (2, 130) or args.no_report or not (args.records / run).is_dir():
        return timed
    report = ["-m", "reports.bench", "--records", str(args.records), "--out", str(args.out)]
    page = subprocess.run([sys.executable, *report, "--run", run]).returncode
    return worse(timed, page)


def worse(one: int, other: int) -> int:
    """Of two exit statuses the one that counts: a failure (also by a signal), then wrong usage,
    then too little."""
    known = [status if status in (0, 2, 3) else 1 for status in (one, other)]
    return next((status for status in (1, 2, 3) if status in known), 0)


def time_rows(
    args: argparse.Namespace, rest: Sequence[str], run: str, typed_as: str = "python -m benchmarks"
) -> int:
    """Run the rows, again and again while processes die; pytest's exit status. ``typed_as`` is the
    command in their records."""
    args.out.mkdir(parents=True, exist_ok=True)
    plugins = filter(None, [os.environ.get("YAIE_PLUGINS"), PEERS])
    # pytest-benchmark switches itself off in a worker of xdist, which a caller may be.
    outside = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    environment = {**outside, "YAIE_PLUGINS": ",".join(plugins), "YAIE_COMMAND": typed_as}
    started, status = time.monotonic(), 0
    for _ in range(RESTARTS):
        command = [
            *(
                sys.executable,
                "-m",
                "pytest",
                str(HERE / "bench_ops.py"),
                "-q",
                "-rN",
                "--no-header",
            ),
            *(
                "-p",
                "no:cacheprovider",
                "-p",
                "no:xdist",
                "--tb=line",
                "--benchmark-quiet",
                "--capture=no",
            ),
            f"--benchmark-json={args.out / 'benchmark.json'}",
            *(f"--records={args.records}", f"--run={run}"),
        ]
        if args.budget is not None:
            left = args.budget - (time.monotonic() - started)
            command.append(f"--budget={max(left, 1.0)}")
        status = subprocess.run([*command, *rest], env=environment, cwd=HERE.parent).returncode
        if status >= 0 and status != LOST:
            return status
        how = f"was killed by signal {-status}" if status < 0 else "lost its device"
        print(f"benchmarks: the process {how}; going on", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
