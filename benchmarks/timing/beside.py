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
        times = {r["kernel"]: r["seconds"] for r in rows if r["workload"] == workload}
        best = min(
            (r for r in rows if r["workload"] == workload and _is_ours(r)),
            key=lambda row: row["seconds"],
        )
        others = [times[peer] for peer in peers if peer in times]
        yield " | ".join(
            [
                f"| {workload}{'' if best['cold'] else ' (warm)'}",
                best["kernel"],
                readable(best["seconds"]),
                f"{best['spread']:.1%}",
                f"{best['limit'] / best['seconds']:.0%} of {best['bound']}",
                *(readable(times[peer]) if peer in times else "–" for peer in peers),
                f"{best['seconds'] / min(others):.2g} |" if others else "– |",
            ]
        )


def _is_ours(row: Mapping[str, Any]) -> bool:
    return str(row["kernel"]).startswith(OURS)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.timing.beside",
        description="Our fastest kernel of each workload beside every peer, as tables. The last "
        "column is our time over that of the best peer.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a folder of records")
    args = parser.parse_args(argv)
    lines = list(tables(timed(args.run)))
    if not lines:
        print(f"no kernel of ours has a time in {args.run}", file=sys.stderr)
        return 2
    print("\n".join(lines).rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
