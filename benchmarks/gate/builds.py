"""Both sides compiled: a folder with the extension for each, named by all that goes into it.

Base and head are configured by their own CMakeLists.txt. Every build lies at the same place below a
copy of its sources, so that equal sources are equal objects, and ccache, where it is there, shares
them with each other and with builds in a checkout. A build that is whole is never made again.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gate.machine_code import host_digest
from benchmarks.gate.report import Untrusted
from benchmarks.gate.trees import Tree

INPUTS = ("CMakeLists.txt", "cmake", "csrc")
KEPT = 8
"""Builds that stay for the next run."""
SETTINGS = ("CC", "CXX", "CXXFLAGS", "CUDACXX", "CUDAFLAGS", "YAIE_CUDA_ARCHS")
PLAIN, CHECKED, CUDA = "plain", "checked", "cuda"
FACES = {PLAIN: "simt", CHECKED: "simt", CUDA: "cuda"}
OPTIONS = {
    PLAIN: ("-DYAIE_CUDA=OFF", "-DYAIE_SIMT_CHECKED=OFF"),
    CHECKED: ("-DYAIE_CUDA=OFF", "-DYAIE_SIMT_CHECKED=ON"),
    CUDA: ("-DYAIE_CUDA=ON", "-DYAIE_SIMT_CHECKED=OFF"),
}


@dataclass(frozen=True)
class Build:
    """One side, compiled in one of the three ways."""

    side: str
    kind: str
    tree: Tree
    folder: Path
    """Holds a copy of the sources, and cmake's folder below."""

    @property
    def face(self) -> str:
        """The face that it is made for: _simt, or _cuda."""
        return FACES[self.kind]

    @property
    def work(self) -> Path:
        """cmake's folder."""
        return self.folder / "build" / self.kind

    @property
    def extensions(self) -> Path:
        """The folder that holds the extension."""
        return self.work / "cmake" / self.face

    @property
    def module(self) -> Path:
        """The extension itself."""
        suffix = sysconfig.get_config_var("EXT_SUFFIX")
        return self.extensions / f"_{self.face}{suffix}"

    @property
    def build_id(self) -> str:
        """As the build wrote it down: what the loaded module must say."""
        text = (self.extensions / "build_id.cpp").read_text()
        match = re.search(r'return "(\w+)"', text)
        if match is None:
            raise Untrusted(f"the build of {self.side} has no id")
        return match[1]

    def host_digests(self) -> dict[str, str]:
        """Variant → digest of what the host compiler made of it."""
        objects = sorted(self.extensions.rglob("*.cu.o"))
        return {
            f"{p.parent.name}/{p.name.removesuffix('.cu.o')}": host_digest([p]) for p in objects
        }


class BuildError(Exception):
    """One side does not build; what the tools said."""

    def __init__(self, side: str, kind: str, output: str) -> None:
        lines = [line for line in output.splitlines() if re.search(r"error|Error", line)]
        self.side, self.kind, self.output = side, kind, output
        self.first = (lines or output.strip().splitlines()[-1:] or ["no message"])[0].strip()
        super().__init__(f"{side} does not build ({kind}): {self.first}")


def key_of(tree: Tree, kind: str) -> str:
    """Names a build: its sources, its way, interpreter and compilers' settings."""
    total = hashlib.sha256()
    settings = [kind, sys.implementation.cache_tag or "", sysconfig.get_platform(), _compiler()]
    settings += [f"{name}={os.environ.get(name)}" for name in SETTINGS]
    total.update("\0".join(settings).encode())
    for path in sorted(_files(tree.root)):
        content = path.read_bytes()
        total.update(f"\0{path.relative_to(tree.root)}\0{len(content)}\0".encode() + content)
    return total.hexdigest()[:16]


def _files(root: Path) -> Iterable[Path]:
    for name in INPUTS:
        path = root / name
        yield from [path] if path.is_file() else (p for p in path.rglob("*") if p.is_file())


def _compiler() -> str:
    command = os.environ.get("CXX", "c++")
    try:
        run = subprocess.run([*command.split(), "--version"], capture_output=True, text=True)
    except OSError:
        return command
    return run.stdout.partition("\n")[0]


Made = dict[tuple[str, str], "Build | BuildError"]
"""(side, kind) → build, or why there is none."""


def make(wanted: Sequence[tuple[Tree, str]], cache: Path, jobs: int) -> Made:
    """The builds of these trees, of these kinds. With ccache one after the other on all cores: what
    is equal is then compiled once. Without, side by side: the end of one leaves no core idle."""
    at_once = 1 if shutil.which("ccache") or jobs < 2 else 2
    with ThreadPoolExecutor(at_once) as pool:
        pending = {
            (tree.side, kind): pool.submit(_made, tree, kind, cache, max(1, jobs // at_once))
            for tree, kind in wanted
        }
        made = {key: job.result() for key, job in pending.items()}
    _forget_old(cache / "builds", {b.folder.name for b in made.values() if isinstance(b, Build)})
    return made


def _made(tree: Tree, kind: str, cache: Path, jobs: int) -> Build | BuildError:
    folder = cache / "builds" / key_of(tree, kind)
    build = Build(tree.side, kind, tree, folder)
    whole = folder / "whole"
    if not whole.exists():
        target = f"_{build.face}"
        # Equal contents on both sides are one folder: whoever is second waits, and finds it whole.
        with _locked(folder):
            if not whole.exists():
                try:
                    _copy_sources(tree, folder)
                    _run(build, _configuration(build))
                    command = ["cmake", "--build", build.work, "--target", target, "-j", str(jobs)]
                    _run(build, command)
                except BuildError as error:
                    return error
                whole.touch()
    os.utime(whole)
    return build


def _copy_sources(tree: Tree, folder: Path) -> None:
    for name in INPUTS:
        if (tree.root / name).is_dir():
            shutil.copytree(tree.root / name, folder / name, dirs_exist_ok=True)
        elif (tree.root / name).exists():
            shutil.copy2(tree.root / name, folder / name)


def _configuration(build: Build) -> list[str | Path]:
    generator = ("-GNinja",) if shutil.which("ninja") else ()
    python = f"-DPython_EXECUTABLE={sys.executable}"
    archs = f"-DYAIE_CUDA_ARCHS={os.environ.get('YAIE_CUDA_ARCHS', '')}"
    where = ("-S", build.folder, "-B", build.work)
    return ["cmake", *where, *generator, python, archs, *OPTIONS[build.kind]]


def _run(build: Build, command: list[str | Path]) -> None:
    shared = {"CCACHE_BASEDIR": str(build.folder), "CCACHE_NOHASHDIR": "1"}
    environment = {**os.environ, **shared}
    try:
        run = subprocess.run(
            list(map(str, command)), env=environment, capture_output=True, text=True
        )
    except OSError as error:
        raise BuildError(build.side, build.kind, f"cmake cannot be run: {error}") from error
    if run.returncode:
        raise BuildError(build.side, build.kind, run.stdout + run.stderr)


class _locked:
    """Holds a folder for one process and thread at a time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "lock"

    def __enter__(self) -> None:
        import fcntl

        self._file = self._path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *exc: object) -> None:
        self._file.close()


def _forget_old(folder: Path, used: set[str]) -> None:
    others = [p for p in folder.iterdir() if p.name not in used] if folder.is_dir() else []
    for old in sorted(others, key=lambda p: p.stat().st_mtime)[: -KEPT or None]:
        shutil.rmtree(old, ignore_errors=True)


def of_side(builds: Made, side: str, kind: str) -> Build | None:
    """A build that was made and is whole."""
    build = builds.get((side, kind))
    return build if isinstance(build, Build) else None
