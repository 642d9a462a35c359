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
    wanted = {f"clean-{program}": source_of(program).read_text() for program in PROGRAMS}
    for name, text in wanted.items():
        put(folder / name / "program.cu", text)
    for bug in (bug for bug in BUGS if bug.applies):
        file = ROOT / bug.file
        wanted[bug.id] = bug.mutated if bug.source == file else bug.source.read_text()
        put(folder / bug.id / "program.cu", wanted[bug.id])
        if bug.source != file:
            put(folder / bug.id / file.relative_to(ROOT / "csrc"), bug.mutated)
    for old in folder.iterdir():
        if (old / "program.cu").exists() and old.name not in wanted:
            shutil.rmtree(old)
    return list(wanted)
