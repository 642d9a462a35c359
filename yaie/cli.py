"""The command ``yaie``: look at ops, judge kernels, replay a case, state what a run has shown."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yaie import kernels, ops, pages
from yaie.check import Judge, choose_kernels, find_kernel
from yaie.command.arguments import positive
from yaie.command.errors import EXIT_USAGE, sentence
from yaie.engine.commands import add_commands
from yaie.op import Kernel, Op
from yaie.record import Recorder, explain, new_run_id
from yaie.signature import FLOAT_NAMES
from yaie.statement.commands import add_command as add_statement

EXIT_OK, EXIT_FAILED, EXIT_NOTHING = 0, 1, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status (0 ok, 1 failed, 2 usage, 3 nothing judged)."""
    args = _parser().parse_args(argv)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough (yaie ops | head): no word of complaint
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:
        said = sentence(error)
        if said is None:
            raise
        print(f"yaie: {said}", file=sys.stderr)
        return EXIT_USAGE
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="yaie", description="Verify LLM-inference kernels against what their ops mean."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    listing = commands.add_parser("ops", help="list the ops, or print the page of one")
    listing.add_argument("name", nargs="?", help="print this op's page")
    listing.add_argument("--json", action="store_true", help="print the list as JSON")
    listing.set_defaults(run=_ops)

    check = commands.add_parser(
        "check",
        help="judge kernels on a few small cases and on every bad input (seconds)",
        description="Judge kernels on small cases of each op's page, in every dtype, and on every "
        "bad input. For the whole suite: nox -s conformance.",
    )
    check.add_argument("--op", default="*", metavar="GLOB", help="ops to check (default: all)")
    check.add_argument("--kernel", default="*", metavar="GLOB", help="kernels (default: all)")
    check.add_argument("--seeds", type=positive, default=3, metavar="N", help="seeds a case (3)")
    check.set_defaults(run=_check)

    repro = commands.add_parser(
        "repro",
        help="judge one kernel on one case, as a failure printed it",
        description='Example: yaie repro "append_kv.Case(T=3, skip=2)" --kernel simt.vec',
    )
    repro.add_argument("case", help='the printed case, such as "append_kv.Case(T=3)"')
    repro.add_argument("--kernel", required=True, metavar="NAME", help="the kernel to judge")
    repro.set_defaults(run=_repro)
    add_statement(commands)
    add_commands(commands, _record_engine)
    return parser


def _record_engine(folder: str, found: dict[str, Any]) -> None:
    """Keep the figures of one engine-bench."""
    recorder = Recorder(Path(folder), new_run_id(), "engine")
    recorder.measured("engine", found)
    recorder.close()


def _ops(args: argparse.Namespace) -> int:
    kernels.load()
    if args.name is not None:
        print(pages.text(ops.get(args.name)))
    elif args.json:
        print(json.dumps([pages.summary(op) for op in ops.OPS.values()], indent=2))
    else:
        width = max(map(len, ops.OPS))
        for op in ops.OPS.values():
            print(f"{op.name:{width}}  {pages.meaning(op)}")
            print(f"{'':{width}}  kernels: {', '.join(op.kernels)}")
    return EXIT_OK


def _check(args: argparse.Namespace) -> int:
    kernels.load()
    chosen = choose_kernels(args.op, args.kernel)
    with Judge() as judge:
        statuses = [_check_kernel(judge, op, kernel, args.seeds) for op, kernel in chosen]
    if EXIT_FAILED in statuses:
        return EXIT_FAILED
    return EXIT_OK if EXIT_OK in statuses else EXIT_NOTHING


def _check_kernel(judge: Judge, op: Op, kernel: Kernel, seeds: int) -> int:
    """Judge one kernel; print its row, and what is wrong with it. The exit status it deserves."""
    judged = []
    for dtype in [name for name in op.dtypes if name in FLOAT_NAMES] or op.dtypes:
        for seed in range(seeds):
            case = dataclasses.replace(op.good, dtype=dtype, seed=seed)
            judged.append((case, judge.judge(op, kernel, case)))
    refused = [judge.judge_refusal(op, kernel, n) for n in range(len(op.refusals))]
    verdicts = [verdict for _, verdict in judged]
    ok = all(verdict.ok for verdict in [*verdicts, *refused])
    passed = sum(verdict.status == "pass" for verdict in verdicts)
    refusals = sum(verdict.ok for verdict in refused)
    mark = "FAIL" if not ok else "ok  " if passed else "none"
    print(
        f"{mark}  {op.name:18} {kernel.name:18} {passed} of {len(verdicts)} "
        f"cases pass, {refusals} of {len(refused)} bad inputs refused"
    )
    for case, verdict in judged:
        if not verdict.ok:
            print(explain(op, kernel, case, verdict))
            break
    for verdict in refused:
        if not verdict.ok:
            print(f"      {verdict.reason}")
    if not ok:
        return EXIT_FAILED
    return EXIT_OK if passed else EXIT_NOTHING


def _repro(args: argparse.Namespace) -> int:
    kernels.load()
    op = ops.get(args.case.partition(".")[0].strip())
    case = op.parse_case(args.case)
    kernel = find_kernel(op, args.kernel)
    with Judge() as judge:
        verdict = judge.judge(op, kernel, case)
    if verdict.status == "unsupported":
        print(f"{kernel.name} declines this case: {verdict.reason}")
        return EXIT_NOTHING
    if verdict.ok:
        print(f"pass: {op.name} {kernel.name} {case!r}")
        if verdict.receipt is not None:
            print(f"closest: {verdict.receipt}")
        return EXIT_OK
    print(explain(op, kernel, case, verdict))
    return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
