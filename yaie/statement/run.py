"""One run of the suite, read back from its records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yaie.record import SCHEMA

Record = Mapping[str, Any]
SAME = ("git", "dirty", "suite", "kernels", "builds", "python", "torch", "platform", "cpu", "gpu")
"""What the processes of one run must agree on."""
HEAD = ("run", "started", "profile", "driver", *SAME)
"""What the first line of a file says."""
KEYS = {
    "verdict": ("op", "kernel", "case", "edges", "status", "check", "reason", "receipt", "repro"),
    "law": ("op", "kernel", "law", "class", "peer", "calls", "worst", "ok"),
    "domain": ("op", "edges"),
    "end": ("status", "failed", "skipped"),
}
"""What is read of the lines of each kind."""


@dataclass
class Run:
    """What the processes of a run left behind; ``end`` is None where it was interrupted."""

    head: Record
    verdicts: list[Record] = field(default_factory=list)
    laws: list[Record] = field(default_factory=list)
    domains: dict[str, list[str]] = field(default_factory=dict)
    end: Record | None = None

    def add(self, record: Record) -> None:
        """Take one more line; kinds that say nothing about conformance are left alone."""
        kind = record["kind"]
        if kind == "verdict":
            self.verdicts.append(record)
        elif kind == "law":
            self.laws.append(record)
        elif kind == "domain":
            self.domains[record["op"]] = list(record["edges"])
        elif kind == "end":
            self.end = record


def read(path: Path, run: str | None = None) -> Run:
    """The run ``run`` in a folder of records; else the newest there that judged anything. ``path``
    may also be the folder of the one run.

    Raises:
        ValueError: there is no such run, or its files cannot be trusted; it says what to do.
    """
    folders = [p.parent for p in path.glob("*/*.jsonl")]
    folders = sorted(set(folders), reverse=True)  # ids sort by time
    if not folders and run in (None, path.name) and any(path.glob("*.jsonl")):
        return _read(path)
    if run is not None:
        folders = [p for p in folders if p.name == run]
    for folder in folders:
        found = _read(folder)
        if found.verdicts or run is not None:
            return found
    wanted = f"run {run}" if run else "run of the suite"
    raise ValueError(f"no {wanted} in {path}: make one with `nox -s conformance`")


def _read(folder: Path) -> Run:
    """The run in a folder that holds its files."""
    run: Run | None = None
    for path in sorted(folder.glob("*.jsonl")):
        head, *rest = _lines(path)
        run = _joined(run, head, path)
        for record in rest:
            run.add(record)
    assert run is not None
    return run


def _lines(path: Path) -> list[Record]:
    """The records of a file, one at least."""
    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError:
        records = []
    if not records or not all(map(_is_whole, records)):
        raise ValueError(
            f"{path}: it has no line, or not all are records, so the run was interrupted or its "
            "file damaged: run the suite again"
        )
    return records


def _is_whole(record: Any) -> bool:
    """Whether a line is an object of some kind, with what is read of that kind."""
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        return False
    return all(name in record for name in KEYS.get(record["kind"], ()))


def _joined(run: Run | None, head: Record, path: Path) -> Run:
    """The run with one more process, whose first line is ``head``."""
    if head.get("kind") != "run" or head.get("schema") != SCHEMA:
        raise ValueError(f"{path}: its first line is not that of a run, of schema {SCHEMA}")
    if missing := [name for name in HEAD if name not in head]:
        raise ValueError(f"{path}: its first line lacks {missing[0]!r}: run the suite again")
    if not isinstance(head["builds"], dict):
        raise ValueError(f"{path}: 'builds' of its first line is no object: run the suite again")
    if run is None:
        return Run(head)
    for name in SAME:
        if head.get(name) != run.head.get(name):
            raise ValueError(
                f"{path}: {name!r} is {head.get(name)!r}, another process of the run has "
                f"{run.head.get(name)!r}: something changed in between, run the suite again"
            )
    return run
