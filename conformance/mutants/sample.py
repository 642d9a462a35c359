"""Which mutants to hunt when there is no time for all: those of changed sources, and a sample."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Sequence
from pathlib import Path

from conformance.mutants.catalogue import ROOT, CatalogueError, Trial


def choose(trials: Sequence[Trial], count: int | None, since: str | None) -> list[Trial]:
    """The trials of sources that changed since a revision, and ``count`` others drawn at random
    (None: all of them, or none where ``since`` is given), in the order of the catalogue.

    The draw is seeded by the revision that is checked out: a rerun repeats it, the next commit
    takes others.
    """
    changed = changed_files(since) if since else set()
    first = {trial.name for trial in trials if touches(trial, changed)}
    rest = [trial for trial in trials if trial.name not in first]
    if count is None:
        drawn = [] if since else rest
    else:
        drawn = random.Random(_git("rev-parse", "HEAD")).sample(rest, min(count, len(rest)))
    wanted = first | {trial.name for trial in drawn}
    return [trial for trial in trials if trial.name in wanted]


def touches(trial: Trial, changed: set[Path]) -> bool:
    """Whether one of the files is the mutant's own, or decides how its op is judged."""
    op = trial.mutant.op
    own = {
        trial.mutant.path,
        ROOT / "yaie" / "ops" / f"{op}.py",
        ROOT / "conformance" / f"test_{op}.py",
    }
    if not trial.mutant.in_python:
        own |= set((ROOT / "csrc" / op).iterdir())
    return not own.isdisjoint(changed)


def changed_files(revision: str) -> set[Path]:
    """Files that differ from where this branch left ``revision``, uncommitted ones included."""
    base = _git("merge-base", revision, "HEAD")
    names = _git("diff", "--name-only", base).splitlines()
    return {ROOT / name for name in names}


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = done.stderr.strip() or "git failed"
        raise CatalogueError(f"cannot tell what changed: git {' '.join(arguments)}: {said}")
    return done.stdout.strip()
