"""Bugs planted into correct kernels: the checked build of the executor finds each and its lines."""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from planted import BUGS, PROGRAMS, ROOT, Bug, lay_out, put

FOLDER = ROOT / "build" / "simt-planted"

PROJECT = """cmake_minimum_required(VERSION 3.20)
project(planted LANGUAGES CXX)
set(SIMT_CHECKED ON)
add_subdirectory({root}/csrc/simt simt EXCLUDE_FROM_ALL)
include_directories({root}/csrc/simt/examples {root}/tests/planted {root}/csrc)
file(GLOB programs ${{CMAKE_SOURCE_DIR}}/*/*.cu)
foreach(source IN LISTS programs)
  set_source_files_properties(${{source}} PROPERTIES LANGUAGE CXX)
  get_filename_component(folder ${{source}} DIRECTORY)
  get_filename_component(name ${{folder}} NAME)
  add_executable(${{name}} ${{source}})
  target_include_directories(${{name}} BEFORE PRIVATE ${{folder}})
  target_link_libraries(${{name}} PRIVATE simt)
endforeach()
"""


@pytest.fixture(scope="module")
def programs() -> Path:
    """All programs, built once for all sessions; a lock keeps the workers of pytest-xdist apart."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    build = FOLDER / "build"
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        put(FOLDER / "CMakeLists.txt", PROJECT.format(root=ROOT))
        lay_out(FOLDER)
        generator = ["-G", "Ninja"] if shutil.which("ninja") else []
        for command in (
            ["cmake", "-S", FOLDER, "-B", build, *generator],
            ["cmake", "--build", build, "--parallel", "2"],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr}"
    return build


def output(program: Path) -> str:
    done = subprocess.run([program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, 1), f"{program.name} died: {done.returncode}\n{done.stderr}"
    return done.stdout


def line_with(text: str, part: str) -> int:
    """The number of the line on which the text ends that occurs once."""
    assert text.count(part) == 1, f"{part!r} occurs {text.count(part)} times"
    return text[: text.index(part) + len(part)].count("\n") + 1


def place(part: str, name: str, text: str) -> str:
    """file:line of a text: `FILE > text`, or one of the bug's own file."""
    file, separator, elsewhere = part.partition(" > ")
    if separator:
        return f"{Path(file).name}:{line_with((ROOT / file).read_text(), elsewhere)}"
    return f"{name}:{line_with(text, part)}"


@pytest.mark.parametrize("program", PROGRAMS)
def test_correct_kernels_are_clean(programs: Path, program: str) -> None:
    assert output(programs / f"clean-{program}").strip() in ("clean", "right")


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.id)
def test_bug_is_found_with_its_lines(programs: Path, bug: Bug) -> None:
    assert bug.applies, f"the edit no longer applies to {bug.file}"
    found = output(programs / bug.id)
    if bug.where:
        name, text = Path(bug.where).name, (ROOT / bug.where).read_text()
    else:
        own = bug.source == ROOT / bug.file
        name, text = "program.cu" if own else Path(bug.file).name, bug.mutated
    lines = [place(part, name, text) for part in bug.lines]
    wanted = [*lines, bug.says]
    kinds = bug.kind.split("|")
    telling = [
        line
        for line in found.splitlines()
        if any(kind in line for kind in kinds)
        and all(w in line and not line.partition(w)[2][:1].isdigit() for w in wanted if w)
    ]
    assert telling, f"wanted {bug.kind} with {wanted} in:\n{found}"
    if bug.kind.startswith("race"):
        in_shared = re.search(r"of (shared array|dynamic shared memory|variable) ?", telling[0])
        assert bool(in_shared) == (bug.memory == "shared")


def test_there_are_enough_bugs_and_kernels() -> None:
    assert len(BUGS) >= 30
    assert len({bug.id for bug in BUGS}) == len(BUGS)
    assert len(PROGRAMS) >= 8
