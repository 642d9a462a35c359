"""What right kernels need of the constants of the error model: `python -m benchmarks.calibration`.

Every kernel of attention that fits is run on each family of values, each dtype, few and many keys,
head dims 64, 128 and 256, without and with a window and a softcap. Printed are the largest numbers
over all of it: the share of its budget that an element used, and what each constant would have to
be for the worst element or row to pass just so, the others being as they are. docs/error-model.md
says what they stand for.

    YAIE_PLUGINS=benchmarks.peers python -m benchmarks.calibration --json reports/calibration.json

Calls come in an order that a seed decides, so a run that --budget ends has seen something of all.

A kernel is run in this program, not in the judge's process: it should have passed conformance.
Exit status: 0 all within their budgets; 1 something is not; 2 wrong usage; 3 no kernel fits.
"""

from __future__ import annotations

import argparse
import fnmatch
import functools
import itertools
import json
import math
import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from dataclasses import asdict, dataclass, fields
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing.options import seconds
from yaie import dispatch, kernels, ops
from yaie.arena import Arena
from yaie.command.arguments import positive
from yaie.compare import LAMBDA, LSE_C, Budget
from yaie.fill import FAMILIES, Fill
from yaie.op import Call, Kernel, Op
from yaie.signature import FLOAT_NAMES

ARENA_BYTES = 1 << 30
KEYS = (1, 17, 256, 2048, 16384)
CONDITIONS: Mapping[str, Mapping[str, Any]] = {
    "D 64": {"D": 64, "Dv": 64},
    "D 128": {"D": 128, "Dv": 128},
    "D 256": {"D": 256, "Dv": 256},
    "window of 100": {"D": 128, "Dv": 128, "window": (100, 0)},
    "softcap 30": {"D": 128, "Dv": 128, "softcap": 30.0},
    "D 256, both": {"D": 256, "Dv": 256, "window": (100, 0), "softcap": 30.0},
}
BATCHES: Mapping[str, Sequence[tuple[int, ...]]] = {
    "varlen_attention": [(32,)],
    "paged_attention": [(32,), (1,) * 2],
}
"""Queries of each sequence, by op."""


@dataclass(frozen=True)
class Cell:
    """One call of an op, for all of its kernels."""

    op: str
    condition: str
    dtype: str
    family: str
    keys: int
    queries: tuple[int, ...]
    seed: int

    @property
    def case(self) -> Any:
        """The Case: heads 8/2, no causal mask but where a window drops keys."""
        options = dict(CONDITIONS[self.condition])
        return ops.get(self.op).Case(
            q_lens=self.queries, kv_lens=(self.keys,) * len(self.queries), Hk=2, G=4,
            dtype=self.dtype, causal=False, family=self.family, seed=self.seed, **options,
        )  # fmt: skip


@dataclass(frozen=True)
class Needs:
    """The worst of some results: shares of their budgets, and what constants they need."""

    used: float = 0.0
    """of an element of out"""
    lam: float = 0.0
    accumulation: float = 0.0
    """of g, as a share"""
    rho: float = 0.0
    """RMS error of a row over that of its model; one for rows of few weighty elements, too"""
    row: float = 0.0
    """the same as a share of what the row gate allows"""
    lse: float = 0.0
    """share of an element of lse"""
    c: float = 0.0

    def __or__(self, other: Needs) -> Needs:
        names = [f.name for f in fields(self)]
        return Needs(**{n: max(getattr(self, n), getattr(other, n)) for n in names})


# Measuring -----------------------------------------------------------------------------------


def share_needed(budget: Budget, error: Tensor, names: Iterable[str]) -> float:
    """What part of these terms must be allowed, beside all of the others, for each error."""
    terms = dict(budget.terms)
    wanted = sum((terms.pop(name) for name in names), torch.zeros_like(error))
    others = sum(terms.values(), torch.zeros_like(error))
    return _largest(((error - others).clamp_min(0) / wanted).masked_fill(error <= others, 0.0))


def needs_of(out: Budget, out_value: Tensor, lse: Budget, lse_value: Tensor) -> Needs:
    """What one result needs."""
    error, lse_error = _error(out, out_value), _error(lse, lse_value)
    assert out.model is not None
    rms, model = (x.square().mean(-1).sqrt() for x in (error, out.model))
    return Needs(
        used=share_needed(out, error, out.terms),
        lam=LAMBDA * share_needed(out, error, ["rounding of P and scores"]),
        accumulation=share_needed(out, error, ["accumulation"]),
        rho=_largest((rms / model).masked_fill(rms == 0, 0.0)),
        row=_largest((rms / out.row_limit()).masked_fill(rms == 0, 0.0)),
        lse=share_needed(lse, lse_error, lse.terms),
        c=LSE_C * share_needed(lse, lse_error, ["scores", "lse rounding"]),
    )


def _error(budget: Budget, value: Tensor) -> Tensor:
    """Infinite for NaN; 0 for an infinity where one should be."""
    actual = value.double()
    error = (actual - budget.expected).abs().nan_to_num(nan=torch.inf, posinf=torch.inf)
    return error.masked_fill(actual == budget.expected, 0.0)


def _largest(x: Tensor) -> float:
    return float(x.max()) if x.numel() else 0.0


def bound(cell: Cell, device: str) -> tuple[Op, Call]:
    """The call of a cell, on a device."""
    op, case = ops.get(cell.op), cell.case
    args, options = op.inputs(case, Fill(_arena(), case.seed))
    there = {name: value.to(device) for name, value in args.items() if value is not None}
    with dispatch.checked(False):
        return op, op.bind(**there, **options)


@functools.cache
def _arena() -> Arena:
    return Arena(ARENA_BYTES)


def measure(cell: Cell, device: str, kernel_globs: Sequence[str]) -> dict[str, Needs | None]:
    """What each kernel that serves the cell needs there; None where it is wrong."""
    op, call = bound(cell, device)
    try:
        oracle = op.reference(**call.args, **call.options)
    except torch.OutOfMemoryError:  # other processes may have it
        torch.cuda.empty_cache()
        return {}
    found: dict[str, Needs | None] = {}
    for kernel in chosen(op, device, kernel_globs):
        if kernel.declines(call) is not None:
            continue
        try:
            out, lse = kernel.run(**call.args, **call.options)
        except dispatch.Unsupported:
            continue
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            continue
        assert op.comparison is not None
        budgets = op.comparison(oracle, call, kernel.contract)
        verdicts = [budgets[name].judge(name, x) for name, x in (("out", out), ("lse", lse))]
        right = all(verdict.check is None for verdict in verdicts)
        of_out, of_lse = budgets["out"], budgets["lse"]
        assert isinstance(of_out, Budget) and isinstance(of_lse, Budget)
        found[kernel.name] = needs_of(of_out, out, of_lse, lse) if right else None
    return found


def chosen(op: Op, device: str, globs: Sequence[str]) -> list[Kernel]:
    """The kernels of an op that fit, and run on the device."""
    return [
        kernel
        for name, kernel in sorted(op.kernels.items())
        if name != "reference" and kernel.device in ("any", device)
        if any(fnmatch.fnmatchcase(name, glob) for glob in globs)
    ]


def cells(args: argparse.Namespace) -> list[Cell]:
    """Those of a run."""
    found = [
        Cell(op, condition, dtype, family, keys, queries, seed)
        for op in BATCHES
        if fnmatch.fnmatchcase(op, args.op)
        for condition, dtype, family, keys, queries, seed in itertools.product(
            CONDITIONS, FLOAT_NAMES, FAMILIES, args.keys, BATCHES[op], range(args.seeds)
        )
    ]
    random.Random(0).shuffle(found)
    return found


# Reporting -----------------------------------------------------------------------------------

HEAD = ("used", "λ (4)", "g (1)", "ρ (1.25)", "row gate", "lse used", "C (16)")


def table(title: str, found: Mapping[tuple[str, str], list[Needs]]) -> Iterator[str]:
    """The worst by two keys, of which ``title`` names the first."""
    yield f"| {title} | dtype | cells | {' | '.join(HEAD)} |"
    yield "|---|---|" + "---:|" * (len(HEAD) + 1)
    for (what, dtype), needs in sorted(found.items()):
        worst = functools.reduce(Needs.__or__, needs)
        numbers = [f"{getattr(worst, f.name):.2f}" for f in fields(worst)]
        yield f"| {what} | {dtype} | {len(needs)} | {' | '.join(numbers)} |"


def grouped(
    results: Sequence[tuple[Cell, str, Needs]], key: Callable[[Cell, str], str]
) -> dict[tuple[str, str], list[Needs]]:
    """The needs of results by a key and the dtype."""
    found: dict[tuple[str, str], list[Needs]] = {}
    for cell, kernel, needs in results:
        found.setdefault((key(cell, kernel), cell.dtype), []).append(needs)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the tables; the exit status."""
    args = _parser().parse_args(argv)
    kernels.load()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = [op for op in BATCHES if fnmatch.fnmatchcase(op, args.op)]
    if not any(chosen(ops.get(op), device, args.kernel) for op in wanted):
        print(f"no kernel fits these options and runs on {device} tensors", file=sys.stderr)
        return 3
    plan, results = cells(args), []
    wrong: dict[str, list[str]] = {}
    for done, (cell, found) in enumerate(_all(plan, device, args), 1):
        for kernel, needs in found.items():
            if needs is None:
                wrong.setdefault(kernel, []).append(repr(cell.case))
            else:
                results.append((cell, kernel, needs))
        if done % 100 == 0 or done == len(plan):
            print(f"{done} of {len(plan)} calls, {len(results)} results", file=sys.stderr)
    for title, key in (
        ("kernel", lambda _, kernel: kernel),
        ("condition", lambda cell, _: cell.condition),
        ("keys", lambda cell, _: f"{cell.keys:6}"),
    ):
        print("\n".join([*table(title, grouped(results, key)), ""]))
    for kernel, cases in wrong.items():
        print(f"{kernel} is beyond its budget in {len(cases)} cells, in this one first:\n"
              f'  yaie repro "{cases[0]}" --kernel {kernel}')  # fmt: skip
    print(f"{len(results)} results within their budgets, {sum(map(len, wrong.values()))} beyond")
    if args.json:
        rows = [{**asdict(c), "kernel": kernel, **asdict(n)} for c, kernel, n in results]
        args.json.write_text(json.dumps({"rows": rows, "wrong": wrong}), encoding="utf-8")
    return int(bool(wrong))


def _all(
    plan: Sequence[Cell], device: str, args: argparse.Namespace
) -> Iterator[tuple[Cell, dict[str, Needs | None]]]:
    """The cells as they are done, by several processes or, with one job, by this one."""
    if args.jobs == 1:
        started = time.monotonic()
        for cell in plan:
            if time.monotonic() - started > (args.budget or math.inf):
                return
            yield cell, measure(cell, device, args.kernel)
        return
    with futures.ProcessPoolExecutor(args.jobs, get_context("spawn"), _prepare) as pool:
        calls = {pool.submit(measure, cell, device, args.kernel): cell for cell in plan}
        try:
            for call in futures.as_completed(calls, args.budget):
                yield calls[call], call.result()
        except futures.TimeoutError:
            pool.shutdown(wait=True, cancel_futures=True)


def _prepare() -> None:
    torch.set_num_threads(1)
    kernels.load()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.calibration",
        description="What right kernels of attention need of the constants of the error model.",
    )
    cores = len(os.sched_getaffinity(0))
    options: list[tuple[str, dict[str, Any]]] = [
        ("--op", {"default": "*", "metavar": "GLOB", "help": "of these ops (all)"}),
        ("--kernel", {"default": ["*"], "nargs": "+", "metavar": "GLOB", "help": "these (all)"}),
        ("--budget", {"type": seconds, "metavar": "S", "help": "end after so many seconds"}),
        ("--keys", {"default": KEYS, "type": positive, "nargs": "+", "metavar": "N",
                    "help": f"keys a sequence {KEYS}"}),
        ("--seeds", {"default": 2, "type": positive, "metavar": "N", "help": "(%(default)s)"}),
        ("--jobs", {"default": cores, "type": positive, "metavar": "N", "help": "(a core each)"}),
        ("--json", {"type": Path, "metavar": "FILE", "help": "also write each result there"}),
    ]  # fmt: skip
    for name, how in options:
        parser.add_argument(name, **how)
    return parser


if __name__ == "__main__":
    sys.exit(main())
