"""JSONL records -> pandas frames.

A records folder holds one folder a run, and a run one file a writing process (pytest-xdist workers
write side by side). The first line of a file names its run; verdict and mutant lines follow. A run
that was killed leaves at most one torn line, the last of a file: it is counted, never guessed at.
Anything else that cannot be read is a RecordError that names the file and the line.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pandas as pd

SCHEMA = 1
STATUSES = ("pass", "fail", "crash", "timeout", "unsupported")
VERDICT_TEXT = ("run", "op", "kernel", "case", "dtype", "family", "check", "reason", "repro")
RECEIPT_NUMBERS = ("used", "actual", "expected", "allowed")
VERDICT_COLUMNS = (
    *("run", "op", "kernel", "case", "dtype", "family", "edges", "status", "check", "reason"),
    *("has_receipt", "output", "used", "term", "index", "actual", "expected", "allowed"),
    *("seconds", "repro"),
)
DOMAIN_COLUMNS = ("op", "edge")
LAW_TEXT = ("run", "op", "kernel", "law", "class", "peer")
LAW_COLUMNS = (*LAW_TEXT, "calls", "worst", "ok")
MUTANT_TEXT = ("run", "mutant", "op", "kernel", "what", "source", "check", "case", "reason")
MUTANT_COLUMNS = (
    *("run", "mutant", "op", "kernel", "what", "source", "killed", "check", "cases", "seconds"),
    *("case", "reason"),
)

TIMING_STATUSES = (
    *("timed", "wrong", "invalid", "error", "crash"),
    *("declined", "executor", "slow", "skipped"),
)
TIMING_TEXT = (
    *("run", "op", "kernel", "workload", "role", "device", "case", "dtype", "source", "status"),
    *("reason", "judged", "judged_case", "audit", "bound", "method", "command"),
)
TIMING_NUMBERS = (
    *("bytes", "flops", "used", "limit", "seconds", "best", "mean", "p10", "p90", "spread"),
    *("copies", "fresh"),
)
TIMING_FLAGS = ("cold", "unsteady")
TIMING_OTHER = ("weights", "conditions", "notes", "samples")

ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Control characters, bidirectional overrides and lone surrogates: they hide or reorder text.
UNSHOWABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


class RecordError(ValueError):
    """A records file that cannot be trusted; the message names the file and the line."""


@dataclass(frozen=True)
class Records:
    """The records of the reported runs, one row a line."""

    runs: pd.DataFrame
    verdicts: pd.DataFrame
    mutants: pd.DataFrame
    laws: pd.DataFrame = field(default_factory=pd.DataFrame)
    """One row each time that a law, or agreement with a peer, was stated for a kernel."""
    domains: pd.DataFrame = field(default_factory=pd.DataFrame)
    """One row for each edge that the cases of an op should have met."""
    timings: pd.DataFrame = field(default_factory=pd.DataFrame)
    """One row a kernel and workload that a benchmark run came to."""
    peaks: pd.DataFrame = field(default_factory=pd.DataFrame)
    """What the machines reached."""
    torn: int = 0
    """Lines lost to an interruption."""
    notes: tuple[str, ...] = ()
    """What a reader must know before trusting the numbers."""


@dataclass(frozen=True)
class Source:
    """One records file, and what its first line says of its run."""

    path: Path
    run: str
    started: datetime
    code: str
    """Commit, dirty flag and build ids: equal for runs that judged the same code."""


@dataclass
class _Rows:
    """What has been read so far, as plain rows."""

    runs: list[dict[str, Any]] = field(default_factory=list)
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    mutants: list[dict[str, Any]] = field(default_factory=list)
    laws: list[dict[str, Any]] = field(default_factory=list)
    domains: list[dict[str, Any]] = field(default_factory=list)
    timings: list[dict[str, Any]] = field(default_factory=list)
    peaks: list[dict[str, Any]] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    torn: int = 0
    empty: int = 0

    def join(self, older: _Rows, *kinds: str) -> None:
        """Takes some kinds of record from an older run, with all that says whether it is whole."""
        for kind in kinds:
            getattr(self, kind).extend(getattr(older, kind))
        self.runs.extend(older.runs)
        self.unknown.update(older.unknown)
        self.torn += older.torn
        self.empty += older.empty

    def frames(self, notes: Iterable[str] = ()) -> Records:
        return Records(
            runs=pd.DataFrame(self.runs),
            verdicts=_verdict_frame(self.verdicts),
            mutants=_mutant_frame(self.mutants),
            laws=_law_frame(self.laws),
            domains=pd.DataFrame(self.domains, columns=list(DOMAIN_COLUMNS)).drop_duplicates(),
            timings=_timing_frame(self.timings),
            peaks=pd.DataFrame(self.peaks),
            torn=self.torn,
            notes=(*notes, *self._notes()),
        )

    def _notes(self) -> list[str]:
        notes = [
            f"{count:,} records of the unknown kind {kind!r} were left out"
            for kind, count in sorted(self.unknown.items())
        ]
        if self.torn:
            notes.append(f"{_plural(self.torn, 'record')} torn off by an interruption: lost")
        if self.empty:
            notes.append(f"{_plural(self.empty, 'records file')} empty")
        return notes


def load(path: Path, wanted: Sequence[str] = ("latest",)) -> Records:
    """The wanted runs under `path` (a records folder, a run's folder or one file).

    'latest' is the newest run. If that holds only verdicts or only mutants, the newest run of the
    same code that holds the other kind joins it: conformance and mutants are two commands.
    """
    sources = [scan(file) for file in find_files(path)]
    if not sources:
        return _Rows().frames()
    if list(wanted) == ["latest"]:
        return _load_latest(sources)
    newest = _newest_first(sources)
    runs = {newest[0] if run == "latest" else run for run in wanted}
    if missing := sorted(runs - set(newest)):
        raise RecordError(f"no run {', '.join(missing)} in {path}; there are: {_listed(newest)}")
    return _read_runs(sources, runs).frames()


def find_files(path: Path) -> list[Path]:
    """The record files under `path`, in a stable order. Beside the folders of runs a file is not
    one of a run."""
    files = [path] if path.is_file() else sorted(path.rglob("*.jsonl"))
    return [file for file in files if file.parent != path] or files


def scan(path: Path) -> Source:
    """Reads the first line alone: enough to choose the runs without parsing a long history."""
    with path.open("rb") as file:
        line = file.readline()
    try:
        head = json.loads(line)
    except ValueError:
        head = {}
    if not isinstance(head, dict):
        head = {}
    run = _text(head.get("run")) or path.parent.name  # the folder speaks for a torn first line
    return Source(path, run, _started(head.get("started"), path), _code(head))


def _code(head: dict[str, Any]) -> str:
    return json.dumps([head.get(key) for key in ("git", "dirty", "builds")], sort_keys=True)


def _started(value: object, path: Path) -> datetime:
    stamp = pd.to_datetime(str(value), utc=True, errors="coerce", format="ISO8601")
    if isinstance(stamp, pd.Timestamp):
        return stamp.to_pydatetime()
    return datetime.fromtimestamp(path.stat().st_mtime, tz=timezone.utc)


def _newest_first(sources: Iterable[Source]) -> list[str]:
    started: dict[str, datetime] = {}
    for source in sources:
        started[source.run] = max(source.started, started.get(source.run, source.started))
    return sorted(started, key=lambda run: (started[run], run), reverse=True)


def _load_latest(sources: list[Source]) -> Records:
    order = _newest_first(sources)
    newest = order[0]
    rows = _read_runs(sources, {newest})
    # A newest run without any record stays alone: an older one must not make it look green.
    if bool(rows.verdicts) == bool(rows.mutants):
        return rows.frames()
    code = _codes(sources, newest)
    for run in (run for run in order[1:] if _codes(sources, run) == code):
        older = _read_runs(sources, {run})
        lacking = older.mutants if rows.verdicts else older.verdicts
        if lacking:
            kinds = ("mutants",) if rows.verdicts else ("verdicts", "laws", "domains")
            rows.join(older, *kinds)
            return rows.frames([f"the {kinds[0]} are those of run {run}, of the same code"])
    return rows.frames()


def _codes(sources: Iterable[Source], run: str) -> set[str]:
    return {source.code for source in sources if source.run == run}


def _read_runs(sources: Iterable[Source], runs: set[str]) -> _Rows:
    rows = _Rows()
    for source in sources:
        if source.run in runs:
            _read_file(source.path, rows)
    return rows


def _read_file(path: Path, rows: _Rows) -> None:
    lines = path.read_bytes().rstrip().split(b"\n")
    if lines == [b""]:
        rows.empty += 1
        return
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        try:
            record = json.loads(line) if line.strip() else None
        except ValueError as error:
            if number == len(lines):
                rows.torn += 1
                return
            raise RecordError(f"{where}: not a JSON line: {error}") from None
        if record is not None:
            _add(record, first=number == 1, where=where, rows=rows)


def _add(record: object, *, first: bool, where: str, rows: _Rows) -> None:
    kind = record.get("kind") if isinstance(record, dict) else None
    if not isinstance(record, dict) or not isinstance(kind, str):
        raise RecordError(f"{where}: not a record: an object with a 'kind' was expected")
    if first and kind != "run":
        raise RecordError(f"{where}: the first line must be of kind 'run', this is {kind!r}")
    if kind == "run":
        rows.runs.append(_run_row(record, where))
    elif kind == "verdict":
        rows.verdicts.append(_verdict_row(record, where))
    elif kind == "mutant":
        rows.mutants.append(_mutant_row(record, where))
    elif kind == "law":
        rows.laws.append(_law_row(record, where))
    elif kind == "domain":
        rows.domains.extend(_domain_rows(record, where))
    elif kind == "timing":
        rows.timings.append(_timing_row(record, where))
    elif kind == "peaks":
        rows.peaks.append(_peaks_row(record, where))
    elif kind not in ("attempt", "end"):  # they matter to who resumes a run, or vouches for it
        rows.unknown[_text(kind)] += 1


def _run_row(record: dict[str, Any], where: str) -> dict[str, Any]:
    _require(record, ("run", "schema"), where)
    if record["schema"] != SCHEMA:
        raise RecordError(
            f"{where}: records of schema {record['schema']!r}; this report reads schema {SCHEMA}: "
            "use the reports of the tree that wrote them"
        )
    hidden = ("kind", "schema")
    return {_text(key): _text(value) for key, value in record.items() if key not in hidden}


def _verdict_row(record: dict[str, Any], where: str) -> dict[str, Any]:
    _require(record, ("run", "op", "kernel", "case", "status"), where)
    status = record["status"]
    if status not in STATUSES:
        raise RecordError(f"{where}: status {status!r} is none of {', '.join(STATUSES)}")
    receipt = record.get("receipt")
    known = receipt if isinstance(receipt, dict) else {}
    row: dict[str, Any] = {name: _text(record.get(name)) for name in VERDICT_TEXT}
    row.update({name: _number(known.get(name)) for name in RECEIPT_NUMBERS})
    row.update(
        status=status,
        edges=tuple(_text(edge) for edge in record.get("edges") or ()),
        seconds=_number(record.get("seconds")),
        has_receipt=bool(known),
        output=_text(known.get("output")),
        term=_text(known.get("term")),
        index=_index(known.get("index")),
    )
    return row


def _mutant_row(record: dict[str, Any], where: str) -> dict[str, Any]:
    _require(record, ("run", "mutant", "killed"), where)
    if not isinstance(record["killed"], bool):
        raise RecordError(f"{where}: 'killed' must be true or false, not {record['killed']!r}")
    row: dict[str, Any] = {name: _text(record.get(name)) for name in MUTANT_TEXT}
    row.update({name: _number(record.get(name)) for name in ("cases", "seconds")})
    row["killed"] = record["killed"]
    return row


def _law_row(record: dict[str, Any], where: str) -> dict[str, Any]:
    _require(record, ("run", "op", "kernel", "law", "ok"), where)
    if not isinstance(record["ok"], bool):
        raise RecordError(f"{where}: 'ok' must be true or false, not {record['ok']!r}")
    row: dict[str, Any] = {name: _text(record.get(name)) for name in LAW_TEXT}
    row.update({name: _number(record.get(name)) for name in ("calls", "worst")})
    row["ok"] = record["ok"]
    return row


def _domain_rows(record: dict[str, Any], where: str) -> list[dict[str, Any]]:
    _require(record, ("run", "op", "edges"), where)
    return [{"op": _text(record["op"]), "edge": _text(edge)} for edge in record["edges"]]


def _timing_row(record: dict[str, Any], where: str) -> dict[str, Any]:
    _require(record, ("run", "op", "kernel", "workload", "role", "status"), where)
    status = record["status"]
    if status not in TIMING_STATUSES:
        raise RecordError(f"{where}: status {status!r} is none of {', '.join(TIMING_STATUSES)}")
    row: dict[str, Any] = {name: _text(record.get(name)) for name in TIMING_TEXT}
    row.update({name: _number(record.get(name)) for name in TIMING_NUMBERS})
    row.update({name: bool(record.get(name)) for name in TIMING_FLAGS})
    row["weights"] = {_text(k): _number(v) for k, v in _dict(record.get("weights")).items()}
    row["conditions"] = _dict(record.get("conditions"))
    row["notes"] = _dict(record.get("notes"))
    row["samples"] = [_number(s) for s in record.get("samples") or ()]
    if status == "timed" and not row["seconds"] > 0:
        raise RecordError(f"{where}: a timed row without a time")
    return row


def _peaks_row(record: dict[str, Any], where: str) -> dict[str, Any]:
    _require(record, ("run", "device", "memory", "matmul"), where)
    rates = {
        name: {_text(k): _number(v) for k, v in _dict(record.get(name)).items()}
        for name in ("memory", "matmul", "floor")
    }
    return {"run": _text(record["run"]), "device": _text(record["device"]), **rates}


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _timing_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    columns = (*TIMING_TEXT, *TIMING_NUMBERS, *TIMING_FLAGS, *TIMING_OTHER)
    frame = pd.DataFrame(rows, columns=list(columns))
    return frame.astype(
        {**dict.fromkeys(TIMING_NUMBERS, "float64"), **dict.fromkeys(TIMING_FLAGS, "bool")}
    )


def _require(record: dict[str, Any], names: Iterable[str], where: str) -> None:
    for name in names:
        if record.get(name) is None:
            raise RecordError(f"{where}: the {record['kind']} record has no {name!r}")


def _number(value: object) -> float:
    """JSON null, NaN, Infinity and the strings "nan" and "inf" are all on record."""
    if isinstance(value, (int, float, str)):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    return float("nan")


def _index(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(axis) for axis in value)
    return _text(value)


def _text(value: object) -> str:
    """Text that is safe to show: absent is empty, what cannot be seen is spelled out."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(part)}" for key, part in value.items() if part is not None)
    text = value if isinstance(value, str) else str(value)
    if text.isprintable():
        return text
    text = ANSI_COLOUR.sub("", text).replace("\r\n", "\n")
    return UNSHOWABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _verdict_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(VERDICT_COLUMNS))
    numbers = [*RECEIPT_NUMBERS, "seconds"]
    return frame.astype({**dict.fromkeys(numbers, "float64"), "has_receipt": "bool"})


def _law_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(LAW_COLUMNS))
    return frame.astype({"ok": "bool", "calls": "float64", "worst": "float64"})


def _mutant_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(MUTANT_COLUMNS))
    return frame.astype({"killed": "bool", "cases": "float64", "seconds": "float64"})


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun} was" if count == 1 else f"{count:,} {noun}s were"


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
