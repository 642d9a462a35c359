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
    files = sorted(path.glob("*.jsonl"))
    if files:
        return _read(files)
    folders = sorted((p for p in path.glob("*") if p.is_dir()), reverse=True)  # ids sort by time
    if run is not None:
        folders = [p for p in folders if p.name == run]
    for folder in folders:
        found = _read(sorted(folder.glob("*.jsonl")))
        if found.verdicts or run is not None:
            return found
    wanted = f"run {run}" if run else "run of the suite"
    raise ValueError(f"no {wanted} in {path}: make one with `nox -s conformance`")


def _read(files: list[Path]) -> Run:
    run: Run | None = None
    for path in files:
        for number, record in enumerate(_lines(path)):
            if number == 0:
                run = _joined(run, record, path)
            assert run is not None
            run.add(record)
    return run or Run({})


def _lines(path: Path) -> list[Record]:
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        return [json.loads(line) for line in lines]
    except ValueError:
        raise ValueError(
            f"{path}: not all lines are records, so the run was interrupted or its file damaged: "
            "run the suite again"
        ) from None


def _joined(run: Run | None, head: Record, path: Path) -> Run:
    """The run with one more process, whose first line is ``head``."""
    if head.get("kind") != "run" or head.get("schema") != SCHEMA:
        raise ValueError(f"{path}: its first line is not that of a run, of schema {SCHEMA}")
    if run is None:
        return Run(head)
    for name in SAME:
        if head.get(name) != run.head.get(name):
            raise ValueError(
                f"{path}: {name!r} is {head.get(name)!r}, another process of the run has "
                f"{run.head.get(name)!r}: something changed in between, run the suite again"
            )
    return run
