"""Records: one JSON line for each thing that was found out, in files that survive an interruption.

A run writes ``<folder>/<run id>/<process>.jsonl``. The first line of a file says what ran where;
each further line is a verdict, what came of a law, or a mutant's fate, and is flushed at once.
Reports and statements read these files and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO

import torch

from yaie.compare import Verdict
from yaie.kernels import native
from yaie.op import Kernel, Op

SCHEMA = 1
SOURCE = Path(__file__).parent
DEFAULT_FOLDER = Path("reports/records")
JUDGE = (
    *("arena", "check", "compare", "dispatch", "fill", "frame", "op", "refusal", "signature"),
    "worker",
)
"""The modules of yaie that lay out, run, compare and refuse."""
SUITE = ("conformance", "yaie/ops", *(f"yaie/{name}" for name in JUDGE))
"""What decides whether a kernel is right: what cases are drawn, what they mean, how they are
judged."""
KERNELS = ("csrc", "yaie/kernels", "yaie/cache")
"""What is judged."""
HASHED = {".py", ".toml", ".cu", ".cuh", ".h", ".cpp"}


def new_run_id() -> str:
    """A name for a run that sorts by time."""
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{os.getpid()}"


def provenance() -> dict[str, Any]:
    """What was run: sources, builds, interpreter, machine."""
    return {
        **_commit(),
        "suite": source_hash(SUITE),
        "kernels": source_hash(KERNELS),
        "builds": builds(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "platform": platform.platform(),
        "cpu": _cpu(),
        **_gpu(),
    }


def builds() -> dict[str, str | None]:
    """The build id of each face of the extension, None where it was not built."""
    return {face: getattr(native.extension(face), "build_id", None) for face in native.FACES}


def source_hash(names: Sequence[str], root: Path = SOURCE.parent) -> str | None:
    """A hash of the names and contents of the sources under ``names``, folders or modules of the
    checkout at ``root``; None where one of them is not there (an installed yaie has no suite)."""
    total = hashlib.sha256()
    for name in names:
        path = root / name
        files = sorted(path.rglob("*")) if path.is_dir() else [path.with_suffix(".py")]
        files = [f for f in files if f.suffix in HASHED and f.is_file()]
        if not files:
            return None
        for file in files:
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            total.update(f"{file.relative_to(root).as_posix()} {content}\n".encode())
    return total.hexdigest()


def _commit() -> dict[str, str | bool | None]:
    """The commit of the checkout, and whether it has changes that no commit holds; None where git
    does not know: a yaie that lies in another project's repository is none of its commits."""
    top = _git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != SOURCE.parent.resolve():
        return {"git": None, "dirty": None}
    changes = _git("status", "--porcelain")
    return {"git": _git("rev-parse", "HEAD"), "dirty": None if changes is None else changes != ""}


def _git(*args: str) -> str | None:
    with contextlib.suppress(OSError):
        done = subprocess.run(
            ["git", "-C", str(SOURCE), *args], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return done.stdout.strip()
    return None


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return f"{platform.machine()}, {os.cpu_count()} cores"


def _gpu() -> dict[str, str | None]:
    """Read by nvidia-smi, so that this process opens no GPU."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError):
        done = subprocess.run(query, capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip():
            name, _, driver = done.stdout.splitlines()[0].partition(", ")
            return {"gpu": name, "driver": driver}
    return {"gpu": None, "driver": None}


def typed(program: str, arguments: Sequence[str]) -> str:
    """A command as it was typed: that which YAIE_COMMAND holds, where one of ours started this
    process; else this one, the paths in it as they are from the current folder."""
    given = os.environ.get("YAIE_COMMAND")
    return given or " ".join([program, *map(shlex.quote, map(_from_here, arguments))])


def _from_here(argument: str) -> str:
    """An argument of a command; the path that it is or gives (--option=PATH), if that lies in the
    current folder or in the checkout, relative to the current folder."""
    option, equals, path = argument.rpartition("=")
    inside = any(Path(path).is_relative_to(top) for top in (Path.cwd(), SOURCE.parent))
    return f"{option}{equals}{os.path.relpath(path)}" if inside else argument


def _program() -> str:
    """How this process was started: the name of a script, or python -m and that of a module."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None:
        return Path(sys.argv[0]).name
    return f"python -m {spec.name.removesuffix('.__main__')}"


def repro_line(case: Any, kernel: str) -> str:
    """The command that judges this kernel on this case again. What the executor's checked build
    found, that build finds again: the line names it."""
    folder = os.environ.get("YAIE_EXTENSIONS")
    checked = kernel.startswith("simt.") and getattr(native.extension("simt"), "checked", False)
    build = f"YAIE_EXTENSIONS={os.path.relpath(folder)} " if folder and checked else ""
    return f'{build}yaie repro "{case!r}" --kernel {kernel}'


def explain(op: Op, kernel: Kernel, case: Any, verdict: Verdict) -> str:
    """A failure in words: what, where, by how much, and the line that shows it again."""
    return "\n".join(
        [
            f"{op.name}: {kernel.name} {verdict.status}s the check '{verdict.check}'"
            if verdict.status == "fail"
            else f"{op.name}: {kernel.name} ends in a {verdict.status}",
            f"  case:      {case!r}",
            f"  because:   {verdict.reason}",
            f"  reproduce: {repro_line(case, kernel.name)}",
        ]
    )


class Recorder:
    """Appends the records of one process to a run."""

    def __init__(self, folder: Path, run: str, profile: str, writer: str = "main") -> None:
        path = folder / run / f"{writer}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.run = run
        self._file: TextIO = path.open("a", encoding="utf-8")
        if self._file.tell() == 0:
            self._write(
                {
                    "kind": "run",
                    "schema": SCHEMA,
                    "run": run,
                    "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                    "command": typed(_program(), sys.argv[1:]),
                    "profile": profile,
                    **provenance(),
                }
            )

    def domain(self, op: Op) -> None:
        """Record the edges that the cases of an op should meet, so that one that none meets is
        seen."""
        self._write({"kind": "domain", "run": self.run, "op": op.name, "edges": list(op.edges)})

    def verdict(self, op: Op, kernel: str, case: Any, verdict: Verdict, started: float) -> None:
        """Record a judged case; ``started`` is time.perf_counter() before it was drawn."""
        record = asdict(verdict)
        record["seconds"] = time.perf_counter() - started
        self._write(
            {
                "kind": "verdict",
                "run": self.run,
                "op": op.name,
                "kernel": kernel,
                "case": repr(case),
                "dtype": case.dtype,
                "family": getattr(case, "family", "bits"),
                "edges": [name for name, hit in op.edges.items() if hit(case)],
                **record,
                "repro": repro_line(case, kernel),
            }
        )

    def law(self, op: str, kernel: str, law: str, outcome: Mapping[str, Any]) -> None:
        """Record what came of a law, or of a comparison with a peer."""
        record = {"kind": "law", "run": self.run, "op": op, "kernel": kernel, "law": law}
        self._write({**record, **outcome})

    def ended(self, what: Mapping[str, Any]) -> None:
        """Record that the whole run came to its end, and how: one that was killed has no such
        line."""
        self._write({"kind": "end", "run": self.run, **what})

    def measured(self, kind: str, what: Mapping[str, Any]) -> None:
        """Record a measurement: the ``timing`` of a kernel (or the ``attempt`` at one, which stands
        alone where the process died), or the ``peaks`` of a machine."""
        self._write({"kind": kind, "run": self.run, **what})

    def mutant(self, fate: Mapping[str, Any]) -> None:
        """Record the fate of a mutant."""
        self._write({"kind": "mutant", "run": self.run, **fate})

    def _write(self, record: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
