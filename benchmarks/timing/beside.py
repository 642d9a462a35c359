"""Our fastest kernel of each workload beside every peer that has a time there, as tables for the
docs: `python -m benchmarks.timing.beside RUN`.

RUN is a folder of records, such as reports/timings/20261127T195757-1735. Exit status: 0; 2 no
kernel of ours has a time in it.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.timing.progress import readable
from benchmarks.timing.repeat import Key, timed

OURS = "cuda."


def tables(rows: Mapping[Key, Mapping[str, Any]]) -> Iterator[str]:
    """One table an op, in Markdown."""
    by_op = itertools.groupby(sorted(rows.items()), lambda pair: pair[0][0])
    for op, pairs in by_op:
        table = list(_table(op, [row for _, row in pairs]))
        if table:
            yield from (*table, "")


def _table(op: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    peers = sorted({row["kernel"] for row in rows} - {r["kernel"] for r in rows if _is_ours(r)})
    workloads = sorted({row["workload"] for row in rows if _is_ours(row)})
    if not workloads:
        return
    yield f"| {op} | kernel | time | ± | of the limit | {' | '.join([*peers, 'best peer'])} |"
    yield f"|---|---|{'---:|' * (len(peers) + 4)}"
    for workload in workloads:
        here = {r["kernel"]: r for r in rows if r["workload"] == workload}
        best = min(filter(_is_ours, here.values()), key=lambda r: (not r["cold"], r["seconds"]))
        peers_here = [here[peer] for peer in peers if peer in here]
        like = [row["seconds"] for row in peers_here if row["cold"] == best["cold"]]
        yield " | ".join(
            [
                f"| {workload}",
                best["kernel"],
                _time(best),
                f"{best['spread']:.1%}",
                f"{best['limit'] / best['seconds']:.0%} of {best['bound']}",
                *(_time(here[peer]) if peer in here else "–" for peer in peers),
                f"{best['seconds'] / min(like):.2g} |" if like else "– |",
            ]
        )


def _time(row: Mapping[str, Any]) -> str:
    return readable(row["seconds"]) + ("" if row["cold"] else " (warm)")


def _is_ours(row: Mapping[str, Any]) -> bool:
    return str(row["kernel"]).startswith(OURS)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.timing.beside",
        description="Our fastest kernel of each workload beside every peer, as tables. The last "
        "column is our time over that of the best peer that was as cold.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a folder of records")
    args = parser.parse_args(argv)
    if not args.run.is_dir():
        print(f"there is no run {args.run}", file=sys.stderr)
        return 2
    lines = list(tables(timed(args.run)))
    if not lines:
        print(f"no kernel of ours has a time in {args.run}", file=sys.stderr)
        return 2
    print("\n".join(lines).rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
