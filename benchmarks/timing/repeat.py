"""How far the medians of two runs lie apart: `python -m benchmarks.timing.repeat RUN RUN`.

RUN is a folder of records, such as reports/timings/20261127T195757-1735. Rows that both have timed
are compared; a change of the code, of the machine or of its clocks shows as well. Exit status: 0
at most 1 % in the median row and 5 % in nine of ten; 1 more; 2 nothing to compare.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.clock import quantile

WANTED = {0.5: 0.01, 0.9: 0.05}
"""Of the rows, and what they may lie apart at most."""
WORST_SHOWN = 5

Key = tuple[str, str, str]


@dataclass(frozen=True)
class Pair:
    """A row of both runs, in seconds."""

    key: Key
    first: float
    second: float
    how: tuple[str, str]
    """By which way each was timed, and whether cold."""

    @property
    def apart(self) -> float:
        """The difference as a share of the smaller."""
        return abs(self.first - self.second) / min(self.first, self.second)


def timed(folder: Path) -> dict[Key, dict[str, Any]]:
    """The records of every row of a run that has a time; lines that were torn off are left out."""
    found: dict[Key, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if not isinstance(row, dict):
                continue
            if row.get("kind") == "timing" and row.get("status") == "timed":
                found[row["op"], row["kernel"], row["workload"]] = row
    return found


def compare(first: Path, second: Path) -> list[Pair]:
    """The rows of both runs, those farthest apart first."""
    a, b = timed(first), timed(second)
    pairs = [
        Pair(key, a[key]["seconds"], b[key]["seconds"], (_how(a[key]), _how(b[key])))
        for key in a
        if key in b
    ]
    return sorted(pairs, key=lambda pair: -pair.apart)


def _how(row: Mapping[str, Any]) -> str:
    return f"{row.get('method', '')}, {'cold' if row.get('cold') else 'warm'}"


def told(pairs: Sequence[Pair]) -> Iterator[str]:
    """The figures, and the rows that are farthest apart."""
    apart = [pair.apart for pair in pairs]
    figures = [f"{quantile(apart, q):.2%} at {q:.0%} of them" for q in WANTED]
    yield f"{len(pairs)} rows of both runs; their medians are apart by {', '.join(figures)}"
    for pair in pairs[:WORST_SHOWN]:
        op, kernel, workload = pair.key
        times = f"{pair.first * 1e6:.2f} and {pair.second * 1e6:.2f} µs"
        how = "" if pair.how[0] == pair.how[1] else f" ({pair.how[0]}; {pair.how[1]})"
        yield f"  {pair.apart:7.2%}  {op} · {workload} · {kernel}: {times}{how}"


def main(argv: Sequence[str] | None = None) -> int:
    """Compare two runs; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.timing.repeat",
        description="How far the medians of two runs of the same rows lie apart.",
    )
    parser.add_argument("runs", nargs=2, type=Path, metavar="RUN", help="a folder of records")
    args = parser.parse_args(argv)
    for folder in args.runs:
        if not folder.is_dir():
            print(f"there is no run {folder}", file=sys.stderr)
            return 2
    pairs = compare(*args.runs)
    if not pairs:
        print("the runs have no timed row in common", file=sys.stderr)
        return 2
    print("\n".join(told(pairs)))
    apart = [pair.apart for pair in pairs]
    return int(any(quantile(apart, q) > most for q, most in WANTED.items()))


if __name__ == "__main__":
    sys.exit(main())
