"""What is wrong with a statement, in words that say what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from yaie.record import KERNELS, SUITE, builds, source_hash
from yaie.statement.compose import KIND, SCHEMA, digest

PARTS = {
    *("verdict", "problems", "code", "machine", "software", "run", "results", "waivers"),
    "not_run",
}
"""What every statement has, beside its kind, schema and digest."""


@dataclass(frozen=True)
class Checkout:
    """The code at hand: hashes of its suite and kernels, and the ids of its builds (None: not
    built)."""

    suite: str | None
    kernels: str | None
    builds: Mapping[str, str | None]

    @staticmethod
    def here() -> Checkout:
        """That of the running yaie.

        Raises:
            ValueError: it was installed without the suite.
        """
        here = Checkout(source_hash(SUITE), source_hash(KERNELS), builds())
        if here.suite is None or here.kernels is None:
            raise ValueError("the sources of the suite are not there: run this in a checkout")
        return here

    def differs(self, code: Mapping[str, Any]) -> Iterator[str]:
        """What was judged, if it is not this code."""
        for name in ("suite", "kernels"):
            if code[name] != getattr(self, name):
                yield (
                    f"the sources of the {name} are not those of the run ({code[name]}, here "
                    f"{getattr(self, name)}): check out commit {code['commit']}, or run the suite "
                    "again"
                )
        for face, build in self.builds.items():
            judged = code["builds"].get(face)
            if None not in (judged, build) and judged != build:
                yield (
                    f"the build of yaie._{face} is not that of the run ({judged}, here {build}): "
                    "`nox -s build` makes the present one; if that differs too, run the suite again"
                )

    def unbuilt(self, code: Mapping[str, Any]) -> list[str]:
        """Faces that were judged and of which there is no build here to compare with."""
        return [f for f, build in code["builds"].items() if build and not self.builds.get(f)]


def read(path: Path) -> dict[str, Any]:
    """A statement from its file.

    Raises:
        ValueError: there is none in it, or one of another schema.
    """
    try:
        statement = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from None
    if not isinstance(statement, dict) or statement.get("kind") != KIND:
        raise ValueError(f"{path}: not a {KIND}")
    if statement.get("schema") != SCHEMA:
        raise ValueError(
            f"{path}: of schema {statement.get('schema')!r}, this yaie reads schema {SCHEMA}: use "
            "the one that wrote it"
        )
    return statement


def tampering(statement: Mapping[str, Any]) -> str | None:
    """Why nothing more should be read of it, if its contents are not those that yaie wrote."""
    if statement.get("digest") != digest(statement):
        return "its contents are not those that were written (digest): get it anew from its source"
    if missing := sorted(PARTS - set(statement)):
        return f"it lacks {missing[0]!r}, so yaie did not write it: get it anew from its source"
    return None


def problems(statement: Mapping[str, Any], here: Checkout, today: date) -> list[str]:
    """Every reason not to trust it. One whose contents were changed is not read any further."""
    if changed := tampering(statement):
        return [changed]
    found = [*here.differs(statement["code"]), *statement["problems"]]
    for waiver in statement["waivers"]:
        if today > date.fromisoformat(waiver["expires"]):
            found.append(
                f"the waiver of {waiver['op']} {waiver['kernel']} expired on {waiver['expires']}: "
                f"{waiver['issue']} must be settled"
            )
    return found
