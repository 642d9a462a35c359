"""A statement of what one run has shown.

Schema 1, a JSON object with sorted keys:

- ``kind``, ``schema``, ``digest`` (SHA-256 of all the rest), ``verdict`` ("pass" or "fail") and
  ``problems``, the words for each thing that makes it a fail;
- ``code``: ``suite`` and ``kernels``, the hashes of their sources (yaie.record), ``builds``, the
  build ids of the extension, ``commit`` and ``dirty``;
- ``machine`` (cpu, gpu, driver, platform), ``software`` (python, torch), and ``run`` (id, started,
  profile, command, what ``selection`` it was told to make, its exit status, tests passed and
  failed);
- ``results``: one object for each op and kernel that was judged: ``status`` ("pass", "waived" or
  "fail"), ``cases`` judged, ``declined`` and ``faults`` among them, ``worst`` (the largest share of
  its error budget that a passing case used, where, in which term), the edges ``met`` and
  ``not_met``, and its ``laws``;
- ``waivers``, each with the number of faults that it excused;
- ``not_run``: ``kernels`` that were judged on nothing and why, ``edges`` of an op that no kernel's
  cases met, ``tests`` that were skipped and why, and the larger ``profiles``.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from yaie import kernels, ops
from yaie.kernels import native
from yaie.statement.run import Record, Run
from yaie.statement.waivers import FAULTS, Waiver, covering, unexpected_passes

KIND = "yaie conformance statement"
SCHEMA = 1
PROFILES = ("quick", "default", "deep")
"""From the smallest to the largest."""


def compose(run: Run, waivers: Sequence[Waiver] = ()) -> dict[str, Any]:
    """The statement of a run, as JSON knows it."""
    results = list(_results(run, waivers))
    problems = [*_failures(results), *_ending(run), *_unneeded(waivers, run)]
    statement = {
        "kind": KIND,
        "schema": SCHEMA,
        "verdict": "fail" if problems else "pass",
        "problems": problems,
        "code": {
            **{name: run.head[name] for name in ("suite", "kernels", "builds", "dirty")},
            "commit": run.head["git"],
        },
        "machine": {name: run.head[name] for name in ("cpu", "gpu", "driver", "platform")},
        "software": {name: run.head[name] for name in ("python", "torch")},
        "run": _run(run),
        "results": results,
        "waivers": [{**w.plain(), "faults": _excused(w, run.verdicts)} for w in waivers],
        "not_run": {
            "kernels": list(_kernels_not_run(run)),
            "edges": _edges_not_met(results),
            "tests": dict(run.end["skipped"]) if run.end else {},
            "profiles": _profiles_not_run(run.head["profile"]),
        },
    }
    return {**statement, "digest": digest(statement)}


def digest(statement: Mapping[str, Any]) -> str:
    """SHA-256 of a statement without its digest."""
    rest = {name: value for name, value in statement.items() if name != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


# What was judged -----------------------------------------------------------------------------


def _results(run: Run, waivers: Sequence[Waiver]) -> Iterator[dict[str, Any]]:
    """One row for each op and kernel with a judged case or a law, in the order of their names."""
    by_kernel: dict[tuple[str, str], list[Record]] = {}
    for record in (*run.verdicts, *run.laws):
        by_kernel.setdefault((record["op"], record["kernel"]), []).append(record)
    for (op, kernel), records in sorted(by_kernel.items()):
        verdicts = [r for r in records if r["kind"] == "verdict"]
        judged = [v for v in verdicts if v["status"] != "unsupported"]
        laws = [r for r in records if r["kind"] == "law"]
        if not judged and not laws:
            continue
        met = {edge for v in judged for edge in v["edges"]}
        faults = [v for v in judged if v["status"] in FAULTS]
        yield {
            "op": op,
            "kernel": kernel,
            "status": _status(faults, laws, waivers),
            "cases": len(judged),
            "declined": len(verdicts) - len(judged),
            "faults": len(faults),
            "fault": _fault(faults),
            "worst": _worst(v for v in judged if v["status"] == "pass"),
            "met": sorted(met),
            "not_met": sorted(set(run.domains.get(op, ())) - met),
            "laws": _laws(laws),
        }


def _status(faults: list[Record], laws: list[Record], waivers: Sequence[Waiver]) -> str:
    """A law that does not hold is never excused."""
    excused = all(covering(waivers, f["op"], f["kernel"], f["edges"]) for f in faults)
    if not excused or not all(law["ok"] for law in laws):
        return "fail"
    return "waived" if faults else "pass"


def _fault(faults: list[Record]) -> dict[str, Any] | None:
    """One of the faults, as an example."""
    if not faults:
        return None
    return {name: faults[-1][name] for name in ("status", "check", "reason", "repro")}


def _worst(verdicts: Iterable[Record]) -> dict[str, Any] | None:
    """The receipt that used most of what was allowed, and its case."""
    receipts = [(v["receipt"], v) for v in verdicts if v["receipt"] is not None]
    if not receipts:
        return None
    receipt, verdict = max(receipts, key=lambda pair: pair[0]["used"])
    names = ("used", "allowed", "output", "term")
    return {**{name: _number(receipt[name]) for name in names}, "case": verdict["case"]}


def _laws(laws: list[Record]) -> dict[str, dict[str, Any]]:
    """What came of each law, by its name; of several times that one was stated, all together."""
    stated: dict[str, dict[str, Any]] = {}
    for law in laws:
        row = stated.setdefault(
            law["law"],
            {"class": law["class"], "peer": law["peer"], "calls": 0, "worst": 0.0, "ok": True},
        )
        row["calls"] += law["calls"]
        row["worst"] = _number(max(float(row["worst"]), law["worst"]))
        row["ok"] = row["ok"] and law["ok"]
    return stated


def _number(value: Any) -> Any:
    """JSON has no infinity and no NaN: they are spelled out."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _run(run: Run) -> dict[str, Any]:
    end = run.end or {}
    return {
        **{name: run.head[name] for name in ("run", "started", "profile")},
        "command": end.get("command"),
        "status": end.get("status"),
        "passed": end.get("passed"),
        "failed": end.get("failed"),
        "selection": {name: end.get(name) for name in ("op", "kernel", "keyword", "parts")},
    }


# What is wrong with it -----------------------------------------------------------------------


def _failures(results: Sequence[Record]) -> Iterator[str]:
    for row in results:
        if row["status"] != "fail":
            continue
        where = f"{row['op']} {row['kernel']}"
        if row["fault"]:
            fault = row["fault"]
            yield (
                f"{where} fails on {row['faults']} of {row['cases']} cases, for one "
                f"{fault['reason']!r}: {fault['repro']}"
            )
        for name in (name for name, law in row["laws"].items() if not law["ok"]):
            yield f"{where} breaks the law {name!r}"
    if not any(row["cases"] for row in results):
        yield "nothing was judged"


def _ending(run: Run) -> Iterator[str]:
    """A run must have ended, and well: some tests leave no verdict (bad inputs, too few cases)."""
    if run.end is None:
        yield "the run was interrupted, so what it has not judged is unknown: run the suite again"
        return
    for test in run.end["failed"]:
        yield f"the test {test} failed"
    if run.end["status"] and not run.end["failed"]:
        yield f"the run ended with status {run.end['status']}: see what it printed, and repair that"


def _unneeded(waivers: Sequence[Waiver], run: Run) -> Iterator[str]:
    for waiver, kernel, cases in unexpected_passes(waivers, run.verdicts):
        yield f"{waiver}: {kernel} passed on all {cases} cases: take the waiver away"


def _excused(waiver: Waiver, verdicts: Iterable[Record]) -> int:
    return sum(
        waiver.covers(v["op"], v["kernel"], v["edges"]) for v in verdicts if v["status"] in FAULTS
    )


# What was not run ----------------------------------------------------------------------------


def _kernels_not_run(run: Run) -> Iterator[dict[str, str]]:
    """Every kernel that there is, registered or only in csrc, and was judged on no case."""
    cases: dict[tuple[str, str], list[str]] = {}
    for verdict in run.verdicts:
        cases.setdefault((verdict["op"], verdict["kernel"]), []).append(verdict["status"])
    for op, kernel, device in sorted(set(_all_kernels())):
        statuses = cases.get((op, kernel), [])
        if set(statuses) <= {"unsupported"}:
            reason = _why_not(run, op, kernel, device, len(statuses))
            yield {"op": op, "kernel": kernel, "reason": reason}


def _all_kernels() -> Iterator[tuple[str, str, str]]:
    """op, kernel, device."""
    kernels.load()
    for op in ops.OPS.values():
        yield from ((op.name, k.name, k.device or "any") for k in op.kernels.values())
    for face, device in native.FACES.items():
        yield from ((v.op, f"{face}.{v.name}", device) for v in native.VARIANTS)


def _why_not(run: Run, op: str, kernel: str, device: str, declined: int) -> str:
    face = kernel.partition(".")[0]
    if declined:
        return f"it declined all {declined} cases"
    if device == "cuda" and run.head["gpu"] is None:
        return "it needs a GPU, and the machine has none"
    if face in native.FACES and run.head["builds"].get(face) is None:
        return f"the extension yaie._{face} was not built"
    end = run.end or {}
    globs = end.get("op", "*"), end.get("kernel", "*")
    if not fnmatchcase(op, globs[0]) or not fnmatchcase(kernel, globs[1]):
        return f"left out by --op {globs[0]} --kernel {globs[1]}"
    return "the run chose no case for it"


def _edges_not_met(results: Iterable[Record]) -> dict[str, list[str]]:
    """Of each op of which something was judged, the edges that none of its kernels met."""
    missing: dict[str, set[str]] = {}
    for row in (row for row in results if row["cases"]):
        own = set(row["not_met"])
        missing[row["op"]] = missing.get(row["op"], own) & own
    return {op: sorted(edges) for op, edges in missing.items() if edges}


def _profiles_not_run(profile: str) -> list[str]:
    """The profiles that judge more cases than this one."""
    return list(PROFILES[PROFILES.index(profile) + 1 :]) if profile in PROFILES else list(PROFILES)
