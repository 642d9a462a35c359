"""Records of `yaie engine-bench` -> the rows of the benchmark page: the newest of each load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reports.load import RecordError, find_files

LOAD = ("model", "dtype", "device", "requests", "prompt", "output", "shared", "prefix_cache")
"""What makes two records one row."""
PARTS = 4
"""How many parts of the time a row names."""


def rows(folder: Path) -> list[dict[str, Any]]:
    """One row a load, in the order in which they were first measured. Errors: RecordError."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for path in find_files(folder) if folder.exists() else []:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            record = _read(line, f"{path}:{number}")
            if record.get("kind") == "engine":
                found[tuple(record[name] for name in LOAD)] = _row(record)
    return list(found.values())


def _read(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise RecordError(f"{where}: not a JSON line: {error}") from None
    if not isinstance(record, dict) or "kind" not in record:
        raise RecordError(f"{where}: not a record: an object with a 'kind' was expected")
    if record["kind"] == "engine" and (missing := [n for n in (*LOAD, "rate") if n not in record]):
        raise RecordError(f"{where}: lacks {missing[0]!r}")
    return record


def _row(record: dict[str, Any]) -> dict[str, Any]:
    """Figures of one load, those that were not measured as NaN."""
    nan = float("nan")
    decode, hit, peer = (record.get(name) or {} for name in ("decode", "prefix_hit", "peer"))
    whole = sum(part["seconds"] for part in record["share"]) or 1.0
    shares = [f"{p['part']} {p['seconds'] / whole:.0%}" for p in record["share"][:PARTS]]
    return {
        **{name: record[name] for name in LOAD},
        "load": f"{record['requests']} × ({record['prompt']} + {record['output']} tokens)"
        + (f", {record['shared']} shared" if record["shared"] else ""),
        "rate": record["rate"],
        "first_token": record["first_token"],
        "between_tokens": nan if record["between_tokens"] is None else record["between_tokens"],
        "hit_rate": record["hit_rate"],
        "step": decode.get("step", nan),
        "overhead": decode.get("overhead", nan),
        "hit_speedup": hit["cold"] / hit["hit"] if hit else nan,
        "peer_rate": peer.get("rate", nan),
        "over_peer": record["rate"] / peer["rate"] if peer else nan,
        "shares": ", ".join(shares),
    }
