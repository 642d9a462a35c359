"""The catalogue: which defects there are, and how each is planted into the sources."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest needs it there, so it is installed

Expected = Literal["killed", "survived", "error"]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CSRC = ROOT / "csrc"
SELF_TEST = "selftest"
"""The file of mutants that test this tool: they must not be killed."""


class CatalogueError(ValueError):
    """A mutant is not described well, or does not apply to the present sources."""


@dataclass(frozen=True)
class Edit:
    """Replace text that occurs exactly once in the file."""

    find: str
    replace: str


@dataclass(frozen=True)
class Mutant:
    """A defect that judging the kernels named must show: one of theirs, of a host structure, or of
    the reference that they are compared with. ``file`` is a source under csrc/, or one of yaie/.
    ``survives`` is the reason, for a reader to verify, why the default profile does not find it;
    without one it must die. ``open`` says what the suite lacks where it survives for no good
    reason: a debt that is published, and does not fail a run. ``expect`` is another fate than
    "killed" only for the mutants that test this tool."""

    id: str
    op: str
    kernels: tuple[str, ...]
    file: str
    what: str
    source: str
    edits: tuple[Edit, ...]
    survives: str | None = None
    open: str | None = None
    expect: Expected = "killed"

    @property
    def in_python(self) -> bool:
        """Whether it needs no compiler."""
        return self.file.startswith("yaie/")

    @property
    def path(self) -> Path:
        """Where its file is."""
        return (ROOT if self.in_python else CSRC) / self.file

    def apply(self) -> str:
        """The text of its file with the defect in it."""
        where = self.path.relative_to(ROOT).as_posix()
        if not self.path.is_file():
            raise CatalogueError(f"mutant {self.id}: there is no file {where}")
        text = self.path.read_text(encoding="utf-8")
        for edit in self.edits:
            count = text.count(edit.find)
            if count != 1:
                raise CatalogueError(
                    f"mutant {self.id}: must occur once in {where}, "
                    f"occurs {count} times:\n{edit.find}"
                )
            text = text.replace(edit.find, edit.replace)
        return text


@dataclass(frozen=True)
class Trial:
    """A mutant, and one of the kernels that it is planted into."""

    mutant: Mutant
    kernel: str

    @property
    def name(self) -> str:
        """Unique, and good as the name of a folder."""
        return f"{self.mutant.id}.{self.variant}"

    @property
    def variant(self) -> str:
        """The kernel's name within its face."""
        return self.kernel.rpartition(".")[2]

    @property
    def unit(self) -> str:
        """The translation unit that launches the kernel, under csrc/."""
        return f"{self.mutant.op}/{self.variant}.cu"


def load(folder: Path = HERE) -> list[Mutant]:
    """Every mutant of the catalogue, those that test this tool first."""
    found: list[Mutant] = []
    for path in sorted(folder.glob("*.toml"), key=lambda p: (p.stem != SELF_TEST, p.stem)):
        found += _read(path)
    ids = [mutant.id for mutant in found]
    repeated = sorted({name for name in ids if ids.count(name) > 1})
    if repeated:
        raise CatalogueError(f"mutant {repeated[0]}: the id is used twice")
    return found


def _read(path: Path) -> list[Mutant]:
    try:
        rows = tomllib.loads(path.read_text(encoding="utf-8")).get("mutant", [])
    except tomllib.TOMLDecodeError as error:
        raise CatalogueError(f"{path.name}: {error}") from error
    return [_mutant(row, path) for row in rows]


def _mutant(row: Mapping[str, Any], path: Path) -> Mutant:
    fields = dict(row)
    name = fields.get("id", "without an id")
    try:
        edits = tuple(Edit(**edit) for edit in fields.pop("edit"))
        kernels = tuple(fields.pop("kernels"))
        return Mutant(**{"op": path.stem, **fields}, edits=edits, kernels=kernels)
    except (KeyError, TypeError) as error:
        raise CatalogueError(f"{path.name}: mutant {name}: {error}") from error
