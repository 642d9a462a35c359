"""A Case for every edge of every op, in edges.toml: each kernel is judged on all of them, whatever
else is drawn. What is left to chance alone is sometimes not met.

``python -m conformance.edges`` draws from the strategies what the file lacks, when an op has a new
edge or its Case another field. The large ones are written by hand: no strategy draws them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from conformance import strategies
from yaie import kernels, ops
from yaie.arena import Arena
from yaie.fill import Fill
from yaie.op import Op

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest needs it there, so it is installed

FILE = Path(__file__).with_suffix(".toml")
ROUNDS, ROUND = 16, 250
"""Cases are drawn in rounds of so many, until there are candidates for all edges."""
LARGE = "more than 65,535"
"""How the edges begin whose cases take a second or more each: the quick profile leaves them out. A
launch whose rows lie on the second or third axis of its grid ends there."""
CANDIDATES = 8
"""Cases among which the one is kept that most kernels of the op take."""


def cases(op: Op) -> dict[str, Any]:
    """The Case of each of an op's edges, by the edge's name."""
    return {edge: op.parse_case(text) for edge, text in table(op.name).items()}


def table(op: str) -> dict[str, str]:
    """The file's Cases of an op's edges, as they are written."""
    texts: dict[str, str] = tomllib.loads(FILE.read_text(encoding="utf-8")).get(op, {})
    return texts


def judge(take: Callable[[Any], object], op: Op, large: bool = True) -> None:
    """Have ``take`` judge a kernel on the Case of every edge."""
    for edge, case in cases(op).items():
        if large or not edge.startswith(LARGE):
            take(case)


def complete(op: Op) -> dict[str, Any]:
    """The Case of each edge: that of the file, while it meets the edge, or a drawn one."""
    known = dict(_current(op))
    drawn = draw(op, [edge for edge in op.edges if edge not in known])
    return {edge: known.get(edge) or drawn[edge] for edge in op.edges}


def _current(op: Op) -> Iterator[tuple[str, Any]]:
    """What the file has that still is a Case of the op and meets its edge."""
    for edge, text in table(op.name).items():
        with suppress(ValueError):
            case = op.parse_case(text)
            if edge in op.edges and op.edges[edge](case):
                yield edge, case


def draw(op: Op, wanted: Sequence[str]) -> dict[str, Any]:
    """For each of these edges, of the first few drawn Cases that meet it, one that most kernels
    take."""
    found: dict[str, list[Any]] = {edge: [] for edge in wanted}
    for number in range(ROUNDS):
        if all(len(candidates) >= CANDIDATES for candidates in found.values()):
            break
        _collect(op, number, found)
    missing = [edge for edge, candidates in found.items() if not candidates]
    if missing:
        raise ValueError(
            f"{op.name}: {ROUNDS * ROUND} drawn cases meet none of: {', '.join(missing)}"
        )
    return {
        edge: max(candidates, key=lambda c: _taken(op, c)) for edge, candidates in found.items()
    }


def _collect(op: Op, number: int, found: dict[str, list[Any]]) -> None:
    """Add what one round of draws meets."""

    def collect(case: Any) -> None:
        for edge, some in found.items():
            if len(some) < CANDIDATES and case not in some and op.edges[edge](case):
                some.append(case)

    strategies.feed(collect, op.name, ROUND, number)


def _taken(op: Op, case: Any) -> tuple[int, int]:
    """How many kernels take a case; then, whether its tensors are of an ordinary size."""
    arena = Arena()
    args, options = op.inputs(case, Fill(arena, case.seed))
    call = op.bind(**args, **options)
    kernels_taking = sum(kernel.supports(call) is None for kernel in op.kernels.values())
    return kernels_taking, -len(arena.extents)


def write(chosen: dict[str, dict[str, Any]]) -> None:
    """Write edges.toml."""
    FILE.write_text("\n".join(_lines(chosen)) + "\n", encoding="utf-8")


def _lines(chosen: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield "# A Case for every edge of every op. Made by `python -m conformance.edges`."
    for name, by_edge in chosen.items():
        yield f"\n[{name}]"
        for edge, case in by_edge.items():
            yield f"{_quoted(edge)} = {_quoted(repr(case))}"


def _quoted(text: str) -> str:
    return json.dumps(text) if "'" in text else f"'{text}'"  # either is a string of TOML


def main(argv: Sequence[str] | None = None) -> int:
    """Draw what is missing, op by op; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m conformance.edges",
        description="Draw a Case for every edge that edges.toml has none for, and write it there.",
        epilog="exit status: 0 done, or nothing to do; 1 --check found something to do",
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args(argv)
    kernels.load()
    if args.check:
        lacking = {op.name: set(op.edges) ^ set(table(op.name)) for op in ops.OPS.values()}
        for name, edges in lacking.items():
            for edge in sorted(edges):
                print(f"{name}: {edge}: not both on the page and in the file", file=sys.stderr)
        return int(any(lacking.values()))
    chosen = {}
    for op in ops.OPS.values():
        chosen[op.name] = complete(op)
        print(f"{op.name}: {len(chosen[op.name])} edges", file=sys.stderr)
    write(chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
