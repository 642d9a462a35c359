"""What installs the project agrees with itself."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is new in 3.11")


def pinned() -> dict[str, list[str]]:
    """Name → pinned versions of constraints.txt."""
    pins: dict[str, list[str]] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = re.fullmatch(r"([\w.-]+)==([\w.]+)(?: ; .*)?", line).groups()
            pins.setdefault(name, []).append(version)
    return pins


def project() -> dict:
    import tomllib

    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_requirement_of_a_dependency_group_is_pinned() -> None:
    groups = project()["dependency-groups"].values()
    requirements = [r for group in groups for r in group if isinstance(r, str)]
    names = {re.match(r"[\w.-]+", r)[0].lower() for r in requirements}
    assert set() == names - pinned().keys()


def test_the_runtime_group_is_what_the_package_depends_on() -> None:
    assert project()["project"]["dependencies"] == project()["dependency-groups"]["runtime"]


def test_the_tested_torch_is_pinned() -> None:
    assert ["2.13.0"] == pinned()["torch"]


@pytest.mark.skipif(not (shutil.which("nvcc") and shutil.which("cmake")), reason="no nvcc or cmake")
def test_a_build_for_gpus_has_code_for_each_that_the_compiler_knows() -> None:
    """Not every nvcc lists sm_90a, and code for sm_80 and sm_100 runs on no Hopper GPU."""
    command = ["cmake", "-DYAIE_CUDA=ON", "-P", str(ROOT / "cmake" / "find_cuda.cmake")]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    known = subprocess.run(["nvcc", "--list-gpu-code"], capture_output=True, text=True, check=True)
    archs = [a for a in ("80", "90a", "100") if f"sm_{a.rstrip('a')}" in known.stdout.split()]
    assert "90a" in archs
    assert f"CUDA architectures {';'.join(archs)}\n" in said.stdout + said.stderr
