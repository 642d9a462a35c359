"""In a process of its own: run both builds on the same cases, and note errors and counted work.

    python -m benchmarks.gate.processes.probe OUT.jsonl CASES 'op/variant ...' BUILDS   (internal)

Before a case is run it is announced, so that a process that died says over what.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from hypothesis import HealthCheck, Phase, given, settings
from torch import Tensor

from benchmarks.compile_table import ROOT
from benchmarks.gate import accuracy, work
from benchmarks.gate.builds import Build
from benchmarks.gate.processes import sides
from benchmarks.gate.report import Untrusted
from conformance import strategies
from yaie import dispatch, ops
from yaie.arena import Arena
from yaie.compare import Budget, Comparison, Norm, Written
from yaie.fill import Fill
from yaie.op import Kernel, Op

CASES = 60
"""Drawn of each op; they are shared by its dtypes."""
MOST_FLOPS, MOST_BYTES = 2e7, 4 << 20
ARENA_BYTES = 1 << 28
"""Cases whose tensors lie gigabytes apart are for conformance."""


def cases(op: Op, count: int) -> list[Any]:
    """Cases of an op's own strategy, the same in every run, those that are quickly run and fit."""
    found: list[Any] = []

    @settings(
        max_examples=4 * count, derandomize=True, database=None, deadline=None,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=strategies.of(op.name))
    def collect(case: Any) -> None:
        cost = op.cost(case)
        quick = cost.flops <= MOST_FLOPS and cost.bytes <= MOST_BYTES
        if quick and len(found) < count and fits(op, case):
            found.append(case)

    collect()
    return found


def fits(op: Op, case: Any) -> bool:
    """Whether the probe has room for the case's arguments."""
    try:
        op.inputs(case, Fill(Arena(ARENA_BYTES), case.seed))
    except MemoryError:
        return False
    return True


# One case -----------------------------------------------------------------------------------------


def run(op: Op, kernel: Kernel, case: Any) -> tuple[dict[str, Tensor], Any] | None:
    """What a kernel left: results and arguments by name, on fresh copies of the same inputs, and
    its call. None where it declines."""
    args, options = op.inputs(case, Fill(Arena(ARENA_BYTES), case.seed))
    if kernel.device == "cuda":
        args = {name: _to_gpu(value) for name, value in args.items()}
    with dispatch.checked(False):
        call = op.bind(**args, **options)
    if kernel.declines(call) is not None:
        return None
    returned = kernel.run(**call.args, **call.options)
    many = returned if isinstance(returned, (tuple, list)) else (returned,)
    left = dict(zip((p.name for p in op.signature.results), many, strict=False))
    left |= {p.name: call.args[p.name] for p in op.signature.params if p.mutated}
    return {n: v.cpu() for n, v in left.items() if isinstance(v, Tensor)}, call


def _to_gpu(value: Any) -> Any:
    if isinstance(value, list):
        return [part.cuda() for part in value]
    return value.cuda() if isinstance(value, Tensor) else value


def wanted(op: Op, kernel: Kernel, case: Any) -> Mapping[str, Comparison]:
    """How the results must be judged."""
    if op.comparison is None:
        return {}
    args, options = op.inputs(case, Fill(Arena(ARENA_BYTES), case.seed))
    call = op.bind(**args, **options)
    return op.comparison(op.reference(**call.args, **call.options), call, kernel.contract)


def errors(
    comparisons: Mapping[str, Comparison], left: Mapping[str, Tensor]
) -> tuple[float, float]:
    """The worst share of a budget, and the largest RMS error over its model; NaN where nothing is
    judged by size."""
    used, rms = [math.nan], [math.nan]
    for name, comparison in comparisons.items():
        value = left.get(name)
        if value is None:
            continue
        if isinstance(comparison, Written):
            value, comparison = comparison.select(value), comparison.values
        receipt = comparison.judge(name, value).receipt
        if receipt is not None and math.isfinite(receipt.used):
            used.append(receipt.used)
        if isinstance(comparison, (Budget, Norm)):
            rms.append(_relative_rms(comparison, value))
    return _largest(used), _largest(rms)


def _largest(values: list[float]) -> float:
    return max((v for v in values if math.isfinite(v)), default=math.nan)


def _relative_rms(comparison: Budget | Norm, value: Tensor) -> float:
    """Over the elements that are finite where they should be."""
    model = comparison.model
    if model is None:
        assert isinstance(comparison, Budget)
        model = torch.stack(list(comparison.terms.values())).sum(0)
    error = value.to(torch.float64) - comparison.expected
    use = error.isfinite() & model.isfinite() & (model > 0)
    if not bool(use.any()):
        return math.nan
    return float(error[use].square().mean().sqrt() / model[use].square().mean().sqrt())


def counted(side: sides.Side, op: Op, kernel: Kernel, case: Any) -> tuple[Any, dict[str, int]]:
    """What a run left, and what the executor counted meanwhile."""
    count = getattr(side.module, "work", None)
    if hasattr(side.module, "set_schedule"):
        side.module.set_schedule("round-robin", 0, 1)
    before = count() if count else {}
    left = run(op, kernel, case)
    after = count() if count else {}
    return left, {name: after[name] - before[name] for name in after}


def compare(base: sides.Side, head: sides.Side, variant: str, case: Any) -> dict[str, Any]:
    """One case on both sides."""
    op = ops.get(variant.partition("/")[0])
    found: dict[str, Any] = {"dtype": str(case.dtype)}
    left = {}
    for side in (base, head):
        kernel = side.kernels[variant]
        try:
            result, work_done = counted(side, op, kernel, case)
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}", "side": side.name}
        if result is None:
            return {"declined": side.name}
        left[side.name] = result[0]
        found |= {f"{side.name}_{name}": n for name, n in work_done.items()}
    # The same contract on both sides: base's, or a change of it would hide what it allows.
    comparisons = wanted(op, base.kernels[variant], case)
    for side in (base, head):
        used, rms = errors(comparisons, left[side.name])
        found |= {f"used_{side.name}": used, f"rms_{side.name}": rms}
    return found


def main(argv: Sequence[str]) -> None:
    out, count, variants, builds = Path(argv[0]), int(argv[1]), argv[2].split(), argv[3]
    torch.set_num_threads(1)
    base, head = sides.load_both(*sides.from_json(builds))
    with out.open("w") as file:

        def note(**what: Any) -> None:
            file.write(json.dumps(what) + "\n")
            file.flush()

        for variant in variants:
            lacking = [s.name for s in (base, head) if variant not in s.kernels]
            if lacking:
                note(kind="one side", variant=variant, lacking=lacking[0])
                continue
            for case in cases(ops.get(variant.partition("/")[0]), count):
                note(kind="begun", variant=variant, case=repr(case))
                note(
                    kind="case", variant=variant, case=repr(case),
                    **compare(base, head, variant, case),
                )  # fmt: skip
        note(kind="done")


# The parent's side --------------------------------------------------------------------------------


def start(
    base: Build, head: Build, variants: Sequence[str], out: Path, count: int = CASES
) -> list[dict[str, Any]]:
    """Run the probe in a process; its records. Untrusted if it died."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.unlink(missing_ok=True)
    arguments = [str(out), str(count), " ".join(variants), sides.to_json([base, head])]
    command = [sys.executable, "-m", "benchmarks.gate.processes.probe", *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "YAIE_EXTENSIONS"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    records = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    if done.returncode or not records or records[-1]["kind"] != "done":
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        begun = [r for r in records if r["kind"] == "begun"][-1:]
        where = f" at {begun[0]['variant']} on {begun[0]['case']}" if begun else ""
        raise Untrusted(f"the process that runs both builds died{where}: {last}")
    return records


def tables(records: Sequence[Mapping[str, Any]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What accuracy.judge and work.judge take."""
    ran = [r for r in records if r["kind"] == "case" and "dtype" in r]
    frame = pd.DataFrame(ran)
    if frame.empty:
        empty = [*accuracy.COLUMNS, *_counters()]
        return pd.DataFrame(columns=empty), pd.DataFrame(columns=empty)
    frame = frame.reindex(columns=list(dict.fromkeys([*frame, *accuracy.COLUMNS, *_counters()])))
    judged = frame.dropna(subset=list(accuracy.COLUMNS[3:]))
    counted = frame.dropna(subset=["base_launches", "head_launches"])
    return judged, counted.fillna(dict.fromkeys(_counters(), 0))


def _counters() -> Iterator[str]:
    return (f"{side}_{name}" for side in ("base", "head") for name in work.COUNTERS)


@dataclass(frozen=True)
class Problems:
    """What kept cases from being compared."""

    notes: list[str]
    """Each thing once, with all the variants that it befell."""
    narrowed: dict[str, str]
    """Variants of head that decline what base serves, and what."""
    uncompared: list[str]
    """Variants of which not one case could be compared, because a side failed."""


def problems(records: Sequence[Mapping[str, Any]]) -> Problems:
    """What the records say of cases that were not compared."""
    told: dict[tuple[str, str], dict[str, str]] = {}
    declined: dict[str, list[str]] = {}
    failed, ran = {}, set()
    for r in records:
        if r["kind"] == "one side":
            told.setdefault((r["lacking"], "has no such kernel"), {})[r["variant"]] = ""
        elif "error" in r:
            variants = told.setdefault((r["side"], r["error"]), {})
            variants.setdefault(r["variant"], f" on {r['case']}")
            failed[r["variant"]] = None
        elif r.get("declined") == "head":  # base was asked first, and served it
            declined.setdefault(r["variant"], []).append(r["case"])
        elif r["kind"] == "case":
            ran.add(r["variant"])
    return Problems(
        notes=[
            f"{', '.join(variants)} of {side}{next(iter(variants.values()))}: {what}"
            for (side, what), variants in told.items()
        ],
        narrowed={
            variant: f"head declines {len(those)} cases that base serves, the first {those[0]}"
            for variant, those in declined.items()
        },
        uncompared=[variant for variant in failed if variant not in ran],
    )


if __name__ == "__main__":
    main(sys.argv[1:])
