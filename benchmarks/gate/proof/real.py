"""How often the gate is wrong on this machine: `python -m benchmarks.gate --proof [--runs 3]`.

Whole runs of both stages on kernels kept for this, of the CPU or (--device cuda) of the GPU: A/A of
one build, A/A' against a rebuild whose code lies elsewhere, and slowdowns injected into one kernel
in twenty.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.compile_table import ROOT
from benchmarks.gate import speed
from benchmarks.gate.proof import micro, micro_gpu
from benchmarks.gate.report import Untrusted
from benchmarks.stats import REGRESSION
from benchmarks.timing.options import shares
from yaie.command.arguments import positive

KERNELS = {"cpu": micro, "cuda": micro_gpu}
SLOWDOWNS = (0.02, 0.03, 0.05, 0.10)
SHARE = 20
"""One benchmark in so many is slowed down."""


@dataclass(frozen=True)
class Trial:
    """What one run said; by its first five fields it is known again."""

    code: str
    """of what was tried (below)"""
    device: str
    kind: str
    slowdown: float
    number: int
    run: str
    slowed: int
    found: int
    false: int
    inconclusive: int
    suspects: int
    seconds: float
    reasons: tuple[str, ...]
    estimates: Mapping[str, float] = field(default_factory=dict)
    """of those that were slowed: by how much, as measured"""


def trial(device: str, kind: str, slowdown: float, number: int, folder: Path) -> Trial:
    """One run of the gate, with another set of slowed benchmarks for each number."""
    kernels = KERNELS[device]
    names = kernels.benches()
    slowed = names[number % SHARE :: SHARE] if slowdown else []
    libraries = kernels.libraries(folder, slowdown, padded=kind != "A/A")
    options = {"libraries": libraries, "slowed": slowed, "slowdown": slowdown}
    # The same code on both sides, torch's: controls, unless it was slowed down.
    identical = [n for n in names if n.startswith("torch/") and n not in slowed]
    target = speed.Target(kernels.SUBJECT, names, identical, kernels.CANARY, options)
    what, started = (code(), device, kind, slowdown, number), time.monotonic()
    try:
        outcome = speed.measure(target, folder / "runs", lambda words: None)
    except Untrusted as error:
        return Trial(*what, "untrusted", len(slowed), 0, 0, 0, 0, 0.0, (str(error),))
    verdicts = outcome.verdicts
    slower = set(verdicts.table.index[verdicts.table["verdict"] == REGRESSION])
    open_ = int((verdicts.table["verdict"] == "INCONCLUSIVE").sum())
    return Trial(
        *what, verdicts.run, len(slowed), len(slower & set(slowed)),
        len(slower - set(slowed)), open_, len(outcome.screened), time.monotonic() - started,
        tuple(verdicts.reasons),
        {name: float(verdicts.table.at[name, "estimate"]) for name in slowed},
    )  # fmt: skip


def code() -> str:
    """A digest of the sources that a trial depends on, and the name of the machine."""
    used = ("gate/**/*.py", "gate/**/*.c*", "timing/gpu.py", "clock.py", "stats.py", "samples.py")
    files = sorted({p for pattern in used for p in (ROOT / "benchmarks").glob(pattern)})
    parts = [platform.node().encode(), *(path.read_bytes() for path in files)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def kept(path: Path) -> dict[tuple[Any, ...], Trial]:
    """The trials of an earlier run, by what was tried."""
    lines = path.read_text().splitlines() if path.exists() else []
    trials = (Trial(**json.loads(line)) for line in lines)
    return {(t.code, t.device, t.kind, t.slowdown, t.number): t for t in trials}


def main(argv: Sequence[str] | None = None) -> int:
    cli = argparse.ArgumentParser(prog="python -m benchmarks.gate --proof", description=__doc__)
    cli.add_argument("--device", choices=sorted(KERNELS), default="cpu")
    cli.add_argument("--runs", type=positive, default=3, help="of each kind")
    cli.add_argument("--slowdowns", type=shares, default=SLOWDOWNS, metavar="X,...")
    cli.add_argument(
        "--out", type=Path, default=ROOT / "build" / "gate-proof", metavar="FOLDER",
        help="default: build/gate-proof; trials that it holds are not run again",
    )  # fmt: skip
    args = cli.parse_args(argv)
    if lacking := KERNELS[args.device].lacking():
        cli.error(f"--device {args.device}: {lacking}")
    kinds = [("A/A", 0.0), ("A/A'", 0.0)]
    kinds += [("slower", x) for x in args.slowdowns]
    print(f"{len(KERNELS[args.device].benches())} benchmarks")
    print("| run | slowdown | verdict | slowed | found | false | no verdict | again | s |")
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    records = args.out / "trials.jsonl"
    trials = kept(records)
    false = 0
    for number, (kind, slowdown) in itertools.product(range(args.runs), kinds):
        what = (code(), args.device, kind, slowdown, number)
        if what not in trials:
            trials[what] = trial(*what[1:], args.out)
            with records.open("a") as file:
                file.write(json.dumps(vars(trials[what])) + "\n")
        false += trials[what].false
        print(row(trials[what]), flush=True)
    return 1 if false else 0


def row(t: Trial) -> str:
    """A line of the table, and under it why a run is not to be trusted."""
    why = f"\n  untrusted: {'; '.join(t.reasons)}" if t.run == "untrusted" else ""
    return (
        f"| {t.kind} | {t.slowdown:.0%} | {t.run} | {t.slowed} | {t.found} | {t.false} "
        f"| {t.inconclusive} | {t.suspects} | {t.seconds:.0f} |{why}"
    )


if __name__ == "__main__":
    sys.exit(main())
