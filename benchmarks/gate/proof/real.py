"""How often the gate is wrong on this machine: `python -m benchmarks.gate --proof [--runs 3]`.

Whole runs of both stages on CPU kernels: A/A of one build, A/A' against a rebuild whose code lies
elsewhere, and slowdowns injected into one kernel in twenty. No figure of a GPU comes from here.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.compile_table import ROOT
from benchmarks.gate import speed
from benchmarks.gate.proof import micro
from benchmarks.gate.report import Untrusted
from benchmarks.stats import REGRESSION

SUBJECT = "benchmarks.gate.proof.micro:Micro"
CANARY = "micro/polynomial 65536"
SLOWDOWNS = (0.02, 0.03, 0.05, 0.10)
SHARE = 20
"""One benchmark in so many is slowed down."""


@dataclass(frozen=True)
class Trial:
    """What one run said."""

    kind: str
    slowdown: float
    run: str
    slowed: int
    found: int
    false: int
    inconclusive: int
    suspects: int
    seconds: float
    reasons: tuple[str, ...]


def trial(kind: str, slowdown: float, number: int, folder: Path) -> Trial:
    """One run of the gate, with another set of slowed benchmarks for each number."""
    names = micro.benches()
    slowed = names[number % SHARE :: SHARE] if slowdown else []
    base = micro.compile(folder, "base")
    padding = () if kind == "A/A" else ("-DPADDING",)
    head = micro.compile(folder, "head", *padding)
    slow = micro.compile(folder, "slow", f"-DEXTRA={round(1000 * slowdown)}", *padding)
    options = {
        "libraries": {"base": str(base), "head": str(head), "slow": str(slow)},
        "slowed": slowed, "slowdown": slowdown,
    }  # fmt: skip
    # The same code on both sides, torch's: controls, unless it was slowed down.
    identical = [n for n in names if n.startswith("torch/") and n not in slowed]
    target = speed.Target(SUBJECT, names, identical, CANARY, options)
    started = time.monotonic()
    try:
        outcome = speed.measure(target, folder / "runs", lambda words: None)
    except Untrusted as error:
        return Trial(kind, slowdown, "untrusted", len(slowed), 0, 0, 0, 0, 0.0, (str(error),))
    verdicts = outcome.verdicts
    slower = set(verdicts.table.index[verdicts.table["verdict"] == REGRESSION])
    open_ = int((verdicts.table["verdict"] == "INCONCLUSIVE").sum())
    return Trial(
        kind, slowdown, verdicts.run, len(slowed), len(slower & set(slowed)),
        len(slower - set(slowed)), open_, len(outcome.screened), time.monotonic() - started,
        tuple(verdicts.reasons),
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    cli = argparse.ArgumentParser(prog="python -m benchmarks.gate --proof", description=__doc__)
    cli.add_argument("--runs", type=int, default=3, help="of each kind")
    cli.add_argument("--slowdowns", default=",".join(map(str, SLOWDOWNS)), metavar="X,...")
    cli.add_argument("--out", type=Path, default=ROOT / "build" / "gate-proof", metavar="FOLDER")
    args = cli.parse_args(argv)
    kinds = [("A/A", 0.0), ("A/A'", 0.0)]
    kinds += [("slower", float(x)) for x in args.slowdowns.split(",") if x]
    print(f"{len(micro.benches())} benchmarks")
    print("| run | slowdown | verdict | slowed | found | false | no verdict | again | s |")
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|", flush=True)
    false = 0
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "trials.jsonl").open("a") as file:
        for number in range(args.runs):
            for kind, slowdown in kinds:
                t = trial(kind, slowdown, number, args.out)
                file.write(json.dumps(vars(t)) + "\n")
                file.flush()
                false += t.false
                print(
                    f"| {t.kind} | {t.slowdown:.0%} | {t.run} | {t.slowed} | {t.found} | {t.false} "
                    f"| {t.inconclusive} | {t.suspects} | {t.seconds:.0f} |",
                    flush=True,
                )
                if t.run == "untrusted":
                    print(f"  untrusted: {'; '.join(t.reasons)}", file=sys.stderr, flush=True)
    return 1 if false else 0


if __name__ == "__main__":
    sys.exit(main())
