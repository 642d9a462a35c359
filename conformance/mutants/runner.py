"""Runs hunts and control runs in several processes, and keeps the fates that are known."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import hypothesis
import torch

from conformance import edges
from conformance.mutants import overlay
from conformance.mutants.build import FOLDER, Toolchain
from conformance.mutants.catalogue import CSRC, ROOT, Trial
from conformance.mutants.hunt import Effort, Fate, hunt

Item = TypeVar("Item")
Result = TypeVar("Result")

IRRELEVANT = {"yaie/cli.py", "yaie/record.py", "conformance/progress.py"}
"""Sources that cannot change a fate."""
IN_HUNT = ("build.py", "hunt.py", "overlay.py")


@dataclass(frozen=True)
class Cache:
    """Fates by a hash of all that decides them, so that an interrupted run resumes."""

    toolchain: Toolchain
    effort: Effort
    folder: Path = FOLDER / "fates"

    def get(self, trial: Trial) -> Fate | None:
        """The fate of a trial, if it is known."""
        path = self._path(trial)
        return Fate(**json.loads(path.read_text())) if path.exists() else None

    def put(self, trial: Trial, fate: Fate) -> None:
        """Remember a fate; an error may be the machine's, so it is tried again."""
        if fate.status == "error":
            return
        path = self._path(trial)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(asdict(fate)))
        new.replace(path)

    def _path(self, trial: Trial) -> Path:
        parts = [trial.kernel, trial.mutant.file, trial.mutant.apply(), str(self.effort)]
        if not trial.mutant.in_python:
            parts += [*self.toolchain.units[trial.unit].command, *self.toolchain.link]
        parts += [platform.python_version(), str(torch.__version__), hypothesis.__version__]
        parts += [repr(edges.table(trial.mutant.op))]
        total = hashlib.sha256("\0".join(parts).encode())
        for path in sources(trial.mutant.op):
            total.update(f"\0{path.relative_to(ROOT)}\0".encode())
            total.update(path.read_bytes())
        return self.folder / f"{trial.name}.{total.hexdigest()[:16]}.json"


def sources(op: str) -> list[Path]:
    """The files that decide what becomes of a mutant of this op."""
    found = [*ROOT.glob("cmake/**/*"), ROOT / "CMakeLists.txt", CSRC / "bindings.cpp"]
    found += [*CSRC.glob("common/*"), *CSRC.glob(f"{op}/*")]
    found += [p for p in CSRC.glob("simt/**/*") if "tests" not in p.parts]
    found += [*ROOT.glob("yaie/*.py"), *ROOT.glob("yaie/kernels/*.py")]
    found += [*ROOT.glob("yaie/cache/*.py"), *ROOT.glob("yaie/kernels/torch_eager/*.py")]
    found += [*ROOT.glob("yaie/ops/_*.py"), ROOT / "yaie" / "ops" / f"{op}.py"]
    found += [ROOT / "conformance" / name for name in ("campaign.py", "edges.py", "strategies.py")]
    found += _tests(f"test_{op}")
    found += [ROOT / "conformance" / "mutants" / name for name in IN_HUNT]
    return sorted(
        p for p in found if p.is_file() and p.relative_to(ROOT).as_posix() not in IRRELEVANT
    )


def _tests(name: str) -> set[Path]:
    """The file that draws an op's cases, and those that it takes strategies from."""
    path = ROOT / "conformance" / f"{name}.py"
    taken = re.findall(r"from conformance\.(test_\w+) import", path.read_text("utf-8"))
    return {path}.union(*map(_tests, taken))


def hunt_all(
    trials: Sequence[Trial], cache: Cache, jobs: int, use_cache: bool = True
) -> Iterator[tuple[Trial, Fate]]:
    """Each trial with its fate, those that are known first, the others as they end."""
    known = {trial.name: cache.get(trial) if use_cache else None for trial in trials}
    for trial in trials:
        fate = known[trial.name]
        if fate is not None:
            yield trial, fate
    unknown = [trial for trial in trials if known[trial.name] is None]
    yield from in_processes(_hunt, [(trial, cache) for trial in unknown], cache.toolchain, jobs)


def _hunt(item: tuple[Trial, Cache]) -> tuple[Trial, Fate]:
    trial, cache = item
    if trial.mutant.in_python:
        clean = cache.toolchain.extension.parent
        fate = overlay.hunt(trial, clean, cache.effort, FOLDER)
    else:
        fate = hunt(trial, cache.toolchain, cache.effort)
    cache.put(trial, fate)
    return trial, fate


def in_processes(
    work: Callable[[Item], Result], items: Iterable[Item], toolchain: Toolchain, jobs: int
) -> Iterator[Result]:
    """Results as they come, from processes that know the clean kernels."""
    items = list(items)
    if not items:
        return
    use_extensions(toolchain.extension.parent)
    pool = ProcessPoolExecutor(min(jobs, len(items)), get_context("spawn"), prepare_process)
    try:
        futures = [pool.submit(work, item) for item in items]
        for future in as_completed(futures):
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def use_extensions(folder: Path) -> None:
    """Let child processes register the kernels of this folder when they import yaie."""
    os.environ["YAIE_EXTENSIONS"] = str(folder)


def prepare_process() -> None:
    """One core for each process; the parent handles an interruption."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
