"""Builds mutants at the price of one compilation and one link each.

The repository's own CMake builds the clean extension once; ninja then says how it compiles and
links. A mutant repeats the compile command of one translation unit, with a folder first on the
include path that holds the mutated file, and the link command with that one object exchanged. So no
flag is written twice, and a mutant differs from the clean build in nothing but its edit.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conformance.mutants.catalogue import CSRC, ROOT, Trial

FOLDER = ROOT / "build" / "mutants"
TARGET = "_simt"


class BuildError(RuntimeError):
    """A build failed; the message holds what the compiler said."""


@dataclass(frozen=True)
class Unit:
    """How one translation unit is compiled: the command, and the object it makes."""

    command: tuple[str, ...]
    output: Path


@dataclass(frozen=True)
class Toolchain:
    """The clean build, and the commands that made it. Sent to every process that builds mutants."""

    folder: Path
    extension: Path
    units: Mapping[str, Unit]
    link: tuple[str, ...]

    def build(self, trial: Trial, into: Path) -> Path:
        """Build a mutant for one of its kernels; return the folder with its extension."""
        mutated = trial.mutant.apply()
        shutil.rmtree(into, ignore_errors=True)
        overlay = into / "csrc"
        place = overlay / trial.mutant.file
        place.parent.mkdir(parents=True)
        place.write_text(mutated, encoding="utf-8")
        source = place if trial.mutant.file == trial.unit else CSRC / trial.unit
        unit, compiled = self.units[trial.unit], into / "mutated.o"
        self._run(_compile(unit.command, source, compiled, overlay))
        built = into / self.extension.name
        self._run(self._linked(unit.output, compiled, built))
        return into

    def _linked(self, clean: Path, mutated: Path, into: Path) -> list[str]:
        command = [word for word in self.link if self.folder / word != clean]
        if len(command) != len(self.link) - 1:
            times = len(self.link) - len(command)
            raise BuildError(f"the link command names {clean.name} {times} times, not once")
        # First, because of a template that several units instantiate the linker keeps the first.
        objects = [i for i, word in enumerate(command) if word.endswith(".o")]
        command.insert(min(objects, default=1), str(mutated))
        command[command.index("-o") + 1] = str(into)
        return command

    def _run(self, command: Sequence[str]) -> None:
        run(command, self.folder)


def _compile(command: Sequence[str], source: Path, output: Path, overlay: Path) -> list[str]:
    changed = list(command)
    changed[changed.index("-c") + 1] = str(source)
    changed[changed.index("-o") + 1] = str(output)
    first_flag = next(i for i, word in enumerate(changed) if word.startswith("-"))
    changed.insert(first_flag, f"-I{overlay}")
    return changed


def run(command: Sequence[str], cwd: Path) -> str:
    """Run a command; its output, or BuildError with what it said."""
    done = subprocess.run(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        raise BuildError(done.stdout.strip() or f"{command[0]} exited with {done.returncode}")
    return done.stdout


def prepare(jobs: int, folder: Path = FOLDER / "base") -> Toolchain:
    """Build the clean extension, or what changed of it, and learn how."""
    for tool in ("cmake", "ninja"):
        if shutil.which(tool) is None:
            raise BuildError(f"{tool} is not on PATH: `nox -s mutants` installs it")
    configure = ["cmake", "-S", str(ROOT), "-B", str(folder), "-GNinja", "-DYAIE_CUDA=OFF"]
    configure.append(f"-DPython_EXECUTABLE={sys.executable}")
    try:
        run(configure, ROOT)
    except BuildError:  # remembers tools that are gone: start afresh
        run([*configure, "--fresh"], ROOT)
    run(["cmake", "--build", str(folder), "--target", TARGET, "-j", str(jobs)], ROOT)
    link = _link_command(folder)
    return Toolchain(folder, folder / link[link.index("-o") + 1], _units(folder), link)


def _link_command(folder: Path) -> tuple[str, ...]:
    last = run(["ninja", "-t", "commands", TARGET], folder).strip().splitlines()[-1]
    words = shlex.split(last)
    return tuple(word for word in words if word not in (":", "&&"))


def _units(folder: Path) -> dict[str, Unit]:
    units = {}
    for entry in json.loads((folder / "compile_commands.json").read_text()):
        source = Path(entry["file"])
        if source.is_relative_to(CSRC) and source.suffix == ".cu":
            command = tuple(shlex.split(entry["command"]))
            output = folder / command[command.index("-o") + 1]
            units[source.relative_to(CSRC).as_posix()] = Unit(command, output)
    return units
