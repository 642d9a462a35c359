"""Both sides as folders: snapshots of a commit, or of the checkout with what is not yet committed.

A snapshot is an unpacked git tree and is named by that tree's id, so equal contents are one folder,
and nothing that happens to the checkout during a run is judged by half. The checkout, its index and
its list of worktrees are left alone.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gate.report import Untrusted

KEPT = 6
"""Snapshots that stay for the next run."""


@dataclass(frozen=True)
class Tree:
    """The sources of one side."""

    side: str
    name: str
    """The commit, with a mark if uncommitted changes come on top."""
    root: Path
    dirty: bool = False

    @property
    def csrc(self) -> Path:
        return self.root / "csrc"


def git(repository: Path, *arguments: str, env: dict[str, str] | None = None) -> bytes:
    command = ["git", "-C", str(repository), *arguments]
    try:
        run = subprocess.run(command, capture_output=True, env={**os.environ, **(env or {})})
    except OSError as error:
        raise Untrusted(f"git cannot be run: {error}") from error
    if run.returncode:
        raise Untrusted(f"git {' '.join(arguments)}: {run.stderr.decode().strip()}")
    return run.stdout


def object_id(repository: Path, what: str) -> str:
    return git(repository, "rev-parse", "--verify", "--quiet", what).decode().strip()


def commit_of(repository: Path, reference: str) -> str:
    try:
        return object_id(repository, f"{reference}^{{commit}}")
    except Untrusted:
        raise Untrusted(f"there is no commit {reference}; was it fetched?") from None


def committed(repository: Path, side: str, reference: str, cache: Path) -> Tree:
    """The sources of a commit."""
    commit = commit_of(repository, reference)
    tree = object_id(repository, f"{commit}^{{tree}}")
    return Tree(side, commit[:12], _unpacked(repository, side, tree, cache))


def working(repository: Path, cache: Path) -> Tree:
    """The sources in the checkout: its commit, and what changed since, new files included."""
    commit = commit_of(repository, "HEAD")
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}  # not the user's
        git(repository, "read-tree", "HEAD", env=index)
        git(repository, "add", "--all", env=index)
        tree = git(repository, "write-tree", env=index).decode().strip()
    dirty = tree != object_id(repository, f"{commit}^{{tree}}")
    name = commit[:12] + (" with uncommitted changes" if dirty else "")
    return Tree("head", name, _unpacked(repository, "head", tree, cache), dirty)


def _unpacked(repository: Path, side: str, tree: str, cache: Path) -> Path:
    if not git(repository, "ls-tree", tree, "csrc").strip():
        raise Untrusted(f"{side} has no folder csrc")
    place = cache / "trees" / tree[:16]
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        _forget_old(place.parent)
        partial = Path(tempfile.mkdtemp(dir=place.parent))
        with tarfile.open(fileobj=io.BytesIO(git(repository, "archive", tree))) as tar:
            tar.extractall(partial, filter="data")
        try:
            partial.rename(place)  # whole or not at all
        except OSError:
            shutil.rmtree(partial)
            if not place.exists():  # else another run was first
                raise
    os.utime(place)
    return place


def _forget_old(folder: Path) -> None:
    for old in sorted(folder.iterdir(), key=lambda p: p.stat().st_mtime)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def changed_files(base: Tree, head: Tree, under: str) -> list[str]:
    """Files below a folder whose contents differ, or that one side alone has."""
    contents = [
        {
            str(p.relative_to(tree.root)): p.read_bytes()
            for p in (tree.root / under).rglob("*")
            if p.is_file() and p.suffix != ".pyc"
        }
        for tree in (base, head)
    ]
    names = {*contents[0], *contents[1]}
    return sorted(n for n in names if contents[0].get(n) != contents[1].get(n))
