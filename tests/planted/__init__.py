"""The bugs that are planted into correct kernels (bugs.toml), and the programs that run them."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
EXAMPLES = ROOT / "csrc" / "simt" / "examples"
INCLUDES = (EXAMPLES, HERE, ROOT / "csrc", ROOT / "csrc" / "simt" / "include")
"""Folders of headers; a bug's own folder, with the header that it changes, comes before them."""

SOURCES = {".cu", ".cuh", ".h"}


@dataclass(frozen=True)
class Bug:
    """One edit of a source file, and what the checked build must say of it (see bugs.toml)."""

    id: str
    program: str
    file: str
    find: str
    replace: str
    kind: str
    lines: tuple[str, ...] = ()
    says: str = ""
    where: str = ""
    memory: str = "shared"
    """Of a race: "shared" or "global"."""

    @property
    def source(self) -> Path:
        """The program that launches the kernel: a file beside this one, or an example."""
        return source_of(self.program)

    @property
    def applies(self) -> bool:
        """Whether the text to replace is there, once."""
        return (ROOT / self.file).read_text().count(self.find) == 1

    @property
    def mutated(self) -> str:
        """The file with the bug."""
        return (ROOT / self.file).read_text().replace(self.find, self.replace)


def _bug(row: dict[str, Any]) -> Bug:
    return Bug(**{**row, "lines": tuple(row["lines"])})


BUGS = tuple(_bug(row) for row in tomllib.loads((HERE / "bugs.toml").read_text())["bug"])
PROGRAMS = tuple(sorted({bug.program for bug in BUGS}))


def source_of(program: str) -> Path:
    """The file of a program."""
    own = HERE / f"{program}.cu"
    return own if own.exists() else EXAMPLES / f"{program}.cu"


def put(path: Path, text: str) -> None:
    """Write what changed only, so that only that is built again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def lay_out(folder: Path) -> list[str]:
    """A folder for each program, clean and with each bug: its source, and a header with the bug,
    which the compiler finds before the true one. Returns the folders' names."""
    wanted = {
        folder / f"clean-{program}" / "program.cu": source_of(program).read_text()
        for program in PROGRAMS
    }
    for bug in (bug for bug in BUGS if bug.applies):
        own, file = folder / bug.id, ROOT / bug.file
        wanted[own / "program.cu"] = bug.source.read_text()
        changed = "program.cu" if bug.source == file else file.relative_to(ROOT / "csrc")
        wanted[own / changed] = bug.mutated
    for path, text in wanted.items():
        put(path, text)
    programs = {path.parent for path in wanted if path.name == "program.cu"}
    for old in [path.parent for path in folder.glob("*/program.cu")]:
        if old not in programs:
            shutil.rmtree(old)
    for program in programs:  # a header that a bug changed before would still be found
        for path in [p for p in program.rglob("*") if p.suffix in SOURCES and p not in wanted]:
            path.unlink()
    return sorted(program.name for program in programs)
