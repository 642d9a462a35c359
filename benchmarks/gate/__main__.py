"""`python -m benchmarks.gate --base origin/main`: may this change of kernels land?

Head is the working tree, or the commit that --head names. Exit status: 0 pass, 1 regression,
3 untrusted: something could not be judged, or nothing was. Without a GPU speed is not measured, and
the result says so; --require-speed makes that 3. `--selftest` and `--proof` measure the gate
itself.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import compile_table as ct
from benchmarks.gate import correctness, outputs, pipeline
from yaie.command.arguments import positive

INTERRUPTED = 130
"""Exit status of shells for a process that was stopped by Ctrl-C."""
EXIT_STATUS = """\
the gate itself, each with options of its own (--selftest --help):
  --selftest  simulated benchmarks: how much is found, how much is false
  --proof     whole gates against commits that are slower by a known share

exit status:
  0  pass: right, not less accurate, not slower where speed was measured
  1  regression
  2  wrong usage
  130  interrupted; the same command goes on
  3  untrusted: no base, no compiler, a noisy machine, nothing to compare, ...
"""


def parser() -> argparse.ArgumentParser:
    cli = argparse.ArgumentParser(
        prog="python -m benchmarks.gate",
        description=(__doc__ or "").partition("\n")[0],
        epilog=EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cli.add_argument("pattern", nargs="*", help="op/variant globs; all without any")
    cli.add_argument("--base", default="origin/main", metavar="REF", help="default: origin/main")
    cli.add_argument("--head", metavar="REF", help="default: the working tree")
    cli.add_argument("--arch", action="append", help=f"instead of {' '.join(ct.ARCHS)}")
    cli.add_argument("--require-speed", action="store_true", help="exit 3 without a GPU")
    cli.add_argument(
        "--static", action="store_true", help="compare the compiled code and run nothing"
    )
    cli.add_argument(
        "--profile", default=correctness.PROFILE, choices=("quick", "default", "deep"),
        help="of conformance, for what changed",
    )  # fmt: skip
    cli.add_argument("--repository", type=Path, default=ct.ROOT, metavar="FOLDER")
    cli.add_argument("--out", type=Path, metavar="FOLDER", help="default: build/gate")
    cli.add_argument("--jobs", type=positive, default=len(os.sched_getaffinity(0)))
    return cli


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    for option, module in (("--selftest", "selftest"), ("--proof", "real")):
        if option in arguments:  # each has options of its own
            arguments.remove(option)
            proof = __import__(f"benchmarks.gate.proof.{module}", fromlist=["main"])
            return int(proof.main(arguments))
    args = parser().parse_args(arguments)
    out = (args.out or args.repository / "build" / "gate").resolve()
    wanted = pipeline.Settings(
        args.base, args.head, args.pattern, tuple(args.arch or ct.ARCHS),
        args.repository.resolve(), out, args.jobs, args.require_speed, args.profile, args.static,
    )  # fmt: skip
    try:
        report = pipeline.run(wanted)
    except KeyboardInterrupt:
        print("gate: interrupted; the same command goes on with what was done", file=sys.stderr)
        return INTERRUPTED
    written = outputs.write(report, args.repository, out)
    print(outputs.terminal(report))
    for path in written:
        print(os.path.relpath(path))
    outputs.for_github(report, args.repository)
    if status := os.environ.get("YAIE_GATE_STATUS"):  # for nox, which tells no statuses apart
        Path(status).write_text(str(report.exit_code))
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
