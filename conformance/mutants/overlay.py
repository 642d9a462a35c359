"""Hunts defects of Python sources: a wrong reference, a wrong host structure.

A copy of the package with the one file changed stands first on the path of a process of its own,
which hunts like any other. For a mutant of an op's page the kernel is innocent and the reference
lies, so what is found is that two independent opinions differ.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from conformance.mutants import catalogue
from conformance.mutants.catalogue import ROOT, CatalogueError, Trial
from conformance.mutants.hunt import Effort, Fate, hunted

PACKAGE = "yaie"
COMPILED = ("*.so", "__pycache__")


def build(trial: Trial, into: Path) -> Path:
    """Copy the package into a folder, with the defect in it; return the folder."""
    mutated = trial.mutant.apply()
    shutil.rmtree(into, ignore_errors=True)
    shutil.copytree(ROOT / PACKAGE, into / PACKAGE, ignore=shutil.ignore_patterns(*COMPILED))
    (into / trial.mutant.file).write_text(mutated, encoding="utf-8")
    return into


def hunt(trial: Trial, extensions: Path, effort: Effort, folder: Path) -> Fate:
    """Look for a case that shows the defect. Never raises for a bad mutant."""
    try:
        overlay = build(trial, folder / "trials" / trial.name)
    except CatalogueError as error:
        return Fate("error", "build", reason=str(error))
    path = os.pathsep.join([str(overlay), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", __name__, trial.mutant.id, trial.kernel, str(effort.examples),
         str(effort.seed)],
        cwd=overlay,
        env={**os.environ, "PYTHONPATH": path, "YAIE_EXTENSIONS": str(extensions)},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return Fate("error", "import", reason=said)
    return Fate(**json.loads(done.stdout.splitlines()[-1]))


def main(arguments: Sequence[str]) -> None:
    """What the process of its own does: hunt, and print the fate as one line of JSON."""
    name, kernel, examples, seed = arguments
    torch.set_num_threads(1)
    mutant = next(m for m in catalogue.load() if m.id == name)
    fate = hunted(Trial(mutant, kernel), None, Effort(int(examples), int(seed)))
    print(json.dumps(asdict(fate)))


if __name__ == "__main__":
    main(sys.argv[1:])
