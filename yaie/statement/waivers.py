"""Waivers: faults that are known and, for a time, accepted (conformance/waivers.toml).

A waiver names an op, kernels by a glob, and, if the fault is only met there, one edge of the op's
domain; then why, an issue, and the day on which it expires::

    [[waiver]]
    op = "paged_attention"
    kernel = "cuda.split_*"
    edge = "softcap"
    reason = "the capped score overflows in float16"
    issue = "https://example.org/issues/12"
    expires = 2027-01-31

It excuses verdicts on cases, no law, no refusal and no other test. It is there to be taken away
again: one that has expired is an error, and so is one whose kernel passes.
"""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date, datetime
from pathlib import Path
from typing import Any

from yaie import ops
from yaie.dispatch import nearest
from yaie.kernels import native
from yaie.record import SOURCE

FILE = SOURCE.parent / "conformance" / "waivers.toml"
FAULTS = ("fail", "crash", "timeout")
"""The verdicts that a waiver excuses."""


@dataclass(frozen=True)
class Waiver:
    """One entry of the file."""

    op: str
    kernel: str
    reason: str
    issue: str
    expires: date
    edge: str | None = None

    def __str__(self) -> str:
        edge = f" on {self.edge!r}" if self.edge else ""
        return f"the waiver of {self.op} {self.kernel}{edge} ({self.issue})"

    def covers(self, op: str, kernel: str, edges: Iterable[str]) -> bool:
        """Whether it speaks of such a case: of this op and kernel, and meeting these edges."""
        return (
            self.op == op
            and fnmatch.fnmatchcase(kernel, self.kernel)
            and (self.edge is None or self.edge in edges)
        )

    def expired(self, today: date) -> bool:
        """Whether the day is over."""
        return today > self.expires

    def plain(self) -> dict[str, Any]:
        """As JSON knows it."""
        return {**asdict(self), "expires": self.expires.isoformat()}


def load(path: Path = FILE, today: date | None = None) -> tuple[Waiver, ...]:
    """The waivers of a file; none where there is no file.

    Raises:
        ValueError: a waiver lacks something, names what there is not, or has expired.
    """
    if not path.exists():
        return ()
    try:
        content = _parsed(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of which the TOML reader's is one
        raise ValueError(f"{path}: {error}") from None
    if unknown := set(content) - {"waiver"}:
        raise ValueError(f"{path}: {min(unknown)!r} is no waiver: entries are called [[waiver]]")
    rows = content.get("waiver", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path}: 'waiver' is no list of tables: write [[waiver]] above each")
    found = []
    for number, row in enumerate(rows, 1):
        try:
            found.append(_checked(row))
        except ValueError as error:
            raise ValueError(f"{path}: waiver {number}: {error}") from None
    for waiver in found:
        if waiver.expired(today or date.today()):
            raise ValueError(
                f"{path}: {waiver} expired on {waiver.expires}: repair the kernel and take the "
                "waiver away, or settle in the issue that it stays and give it a later day"
            )
    return tuple(found)


def _parsed(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # pytest needs it there, so it is installed
    content: dict[str, Any] = tomllib.loads(text)
    return content


def _checked(row: Mapping[str, Any]) -> Waiver:
    """A waiver of an entry; ValueError says what is wrong with it."""
    names = [field.name for field in fields(Waiver)]
    if unknown := [name for name in row if name not in names]:
        raise ValueError(f"no key {unknown[0]!r}{nearest(unknown[0], names)}")
    for name in names:
        if name not in row and name != "edge":
            raise ValueError(f"no {name!r}")
        if name in row and name != "expires" and not (isinstance(row[name], str) and row[name]):
            raise ValueError(f"{name!r} must be a text that says something")
    expires = row["expires"]
    if not isinstance(expires, date) or isinstance(expires, datetime):
        raise ValueError("'expires' must be a day, such as 2027-01-31")
    op = ops.get(row["op"])
    names = sorted({*op.kernels, *_in_csrc(op.name)})
    if not fnmatch.filter(names, row["kernel"]):
        raise ValueError(
            f"{op.name} has no kernel {row['kernel']!r}{nearest(row['kernel'], names)}"
        )
    edge = row.get("edge")
    if edge is not None and edge not in op.edges:
        raise ValueError(f"{op.name} has no edge {edge!r}{nearest(edge, list(op.edges))}")
    return Waiver(**row)


def _in_csrc(op: str) -> list[str]:
    """The kernels of an op in csrc, built or not."""
    return [f"{face}.{v.name}" for face in native.FACES for v in native.VARIANTS if v.op == op]


def covering(
    waivers: Sequence[Waiver], op: str, kernel: str, edges: Sequence[str]
) -> Waiver | None:
    """The waiver that excuses a fault of this kernel on a case that meets these edges."""
    return next((w for w in waivers if w.covers(op, kernel, edges)), None)


def unexpected_passes(
    waivers: Sequence[Waiver], verdicts: Iterable[Mapping[str, Any]]
) -> list[tuple[Waiver, str, int]]:
    """Waivers that nothing needs: each with the kernel that was judged on cases which it covers,
    how many, and that failed on none of them."""
    judged: dict[tuple[int, str], int] = {}
    failing: set[tuple[int, str]] = set()
    for verdict in verdicts:
        if verdict["status"] == "unsupported":
            continue
        for number, waiver in enumerate(waivers):
            if waiver.covers(verdict["op"], verdict["kernel"], verdict["edges"]):
                key = (number, verdict["kernel"])
                judged[key] = judged.get(key, 0) + 1
                if verdict["status"] in FAULTS:
                    failing.add(key)
    return [
        (waivers[number], kernel, cases)
        for (number, kernel), cases in sorted(judged.items())
        if (number, kernel) not in failing
    ]
