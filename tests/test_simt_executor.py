"""The C++ tests of the SIMT executor, built from scratch, and the executor in a loaded library."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "csrc" / "simt"
PROGRAMS = sorted(path.stem for path in (SOURCE / "tests").glob("*_test.cu"))
BUILDS = {
    "assembly": "",
    "checked": "-DSIMT_CHECKED=ON",
}
"""What each build of the executor adds to the defaults."""
FIBER_PROGRAMS = [
    f"{name}_ucontext_test" for name in ("barriers", "faults", "kernels", "launch", "warp")
]


def run(*command: str | Path) -> str:
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def build(name: str, *targets: str) -> Path:
    """Build these once for all sessions; a lock keeps the workers of pytest-xdist apart."""
    folder = ROOT / "build" / f"simt-tests-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run("cmake", "-S", SOURCE, "-B", folder, *BUILDS[name].split(), *generator)
        jobs = str(min(2, os.cpu_count() or 1))
        run("cmake", "--build", folder, "--parallel", jobs, "--target", *targets)
    return folder / "tests"


@pytest.fixture(scope="module")
def programs() -> Path:
    return build("assembly", *PROGRAMS, "loaded_kernel", *FIBER_PROGRAMS)


@pytest.mark.parametrize("program", PROGRAMS)
def test_program(programs: Path, program: str) -> None:
    run(programs / program)


@pytest.mark.parametrize("program", FIBER_PROGRAMS)
def test_program_with_portable_fibers(programs: Path, program: str) -> None:
    run(programs / program)


@pytest.fixture(scope="module")
def checked_programs() -> Path:
    return build("checked", *PROGRAMS)


@pytest.mark.parametrize("program", PROGRAMS)
def test_program_with_checked_accesses(checked_programs: Path, program: str) -> None:
    run(checked_programs / program)


@pytest.fixture(scope="module")
def library(programs: Path) -> Iterator[ctypes.CDLL]:
    yield ctypes.CDLL(str(programs / "libloaded_kernel.so"))


def reverse(library: ctypes.CDLL, values: np.ndarray) -> tuple[np.ndarray, str]:
    out = np.zeros_like(values)
    message = ctypes.create_string_buffer(1000)
    library.reverse_floats(
        values.ctypes.data_as(ctypes.c_void_p),
        out.ctypes.data_as(ctypes.c_void_p),
        ctypes.c_int(values.size),
        message,
        ctypes.c_int(len(message)),
    )
    return out, message.value.decode()


def test_kernel_with_200_kib_of_shared_memory_in_a_loaded_library(library: ctypes.CDLL) -> None:
    values = np.arange(200 * 256, dtype=np.float32)
    out, message = reverse(library, values)
    assert message == ""
    np.testing.assert_array_equal(values[::-1], out)


def test_launch_errors_cross_a_loaded_library(library: ctypes.CDLL) -> None:
    _, message = reverse(library, np.zeros(60_000, np.float32))
    assert "kernel reverse launched at tests/loaded_kernel.cu:" in message
    assert "240000 bytes of dynamic shared memory exceed 232448" in message


def test_many_copies_of_the_executor_fit_into_one_process(programs: Path, tmp_path: Path) -> None:
    # Each copy takes a little of the static thread-local storage that dlopen has to spare.
    values = np.arange(64, dtype=np.float32)
    for i in range(40):
        copy = shutil.copy(programs / "libloaded_kernel.so", tmp_path / f"copy{i}.so")
        out, message = reverse(ctypes.CDLL(str(copy)), values)
        assert message == ""
        np.testing.assert_array_equal(values[::-1], out)


def test_hidden_names(programs: Path) -> None:
    names = run("nm", "-D", "--defined-only", programs / "libloaded_kernel.so")
    assert "reverse_floats" in names
    assert "simt" not in names
