"""Options, rows and records of `python -m benchmarks`."""

from __future__ import annotations

import fnmatch
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import roofline
from benchmarks.clock import LOST, Allowance, Machine
from benchmarks.timing import ncu, serving, traces
from benchmarks.timing.cpu import Cpu
from benchmarks.timing.options import BUDGETS, OPTIONS, seconds
from benchmarks.timing.progress import Progress
from benchmarks.timing.rows import Outcome, Row, Session, record
from yaie import kernels, ops
from yaie.check import Judge
from yaie.dispatch import nearest
from yaie.record import Recorder, new_run_id, provenance
from yaie.worker.zygote import IMPORTS

RECORDS = Path("reports/timings")
HOST_MEMORY = 512 << 20
"""Bytes of copies on a CPU: filling more would take longer than timing."""
JUDGE_TIMEOUT = 120.0
"""Seconds of one judged call: a peer's first one imports a package, or compiles."""
TIMING_SHARE = 0.4
"""Of the budget; the rest goes into inputs, judging and answers."""
MOST_OF_A_ROW = 0.02
"""Likewise: what the timing of one row may take, if that is more than five seconds."""
DONE = ("timed", "wrong", "invalid", "declined", "executor", "slow", "error", "crash")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("yaie benchmarks")
    for option, how in OPTIONS.items():
        group.addoption(option, **how)
    group.addoption("--budget", type=seconds, metavar="S", help="seconds that the run may take")
    group.addoption("--records", type=Path, default=RECORDS, metavar="DIR", help="their folder")
    group.addoption(
        "--run", metavar="ID", help="go on with this run: what it has is not timed again"
    )


@dataclass
class Setup:
    """What a session of pytest works on."""

    device: str
    rows: list[Row]
    run: str
    budget: float
    builds: Mapping[str, Any]
    done: dict[tuple[str, str, str], dict[str, Any]]
    peaks: roofline.Peaks | None


SETUP = pytest.StashKey[Setup]()


def pytest_configure(config: pytest.Config) -> None:
    kernels.load()
    device = config.getoption("--device") or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        rows = chosen_rows(config, device)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error
    run = config.getoption("--run") or new_run_id()
    history = read_run(config.getoption("--records") / run)
    here = provenance()
    if history and any(history[0].get(k) != here[k] for k in ("git", "builds", "torch")):
        raise pytest.UsageError(f"run {run} timed other code: it cannot be resumed")
    if config.getoption("--ncu") and ncu.available() is None:
        print("ncu is not on the path: rows will have no figures of Nsight Compute")
    budget = float(config.getoption("--budget") or BUDGETS[device])
    config.stash[SETUP] = Setup(
        device, rows, run, budget, here["builds"], done_before(history), peaks_before(history)
    )
    config.pluginmanager.register(Progress(len(rows), budget), "yaie-progress")


# Rows ----------------------------------------------------------------------------------------


def chosen_rows(config: pytest.Config, device: str) -> list[Row]:
    """The rows that the options ask for; ValueError with the nearest names when there are none."""
    workloads, foreign = serving.load(), list[serving.Workload]()
    if config.getoption("--flashinfer"):
        foreign, left = traces.flashinfer_bench(config.getoption("--flashinfer"))
        workloads += foreign
        for line in left:
            print(line)
    globs = {what: config.getoption(f"--{what}") or ["*"] for what in ("op", "kernel", "workload")}
    fitting = _fitting("--op", globs["op"], sorted({w.op for w in workloads}))
    workloads = [w for w in workloads if w.op in fitting]
    names = _fitting("--workload", globs["workload"], sorted({w.name for w in workloads}))
    workloads = [w for w in workloads if w.name in names]
    of_ops = [k for name in sorted(fitting) for k in ops.OPS[name].kernels.values()]
    known = sorted({k.name for k in of_ops} - {"reference"})
    allowed = _fitting("--kernel", globs["kernel"], known)
    profile = config.getoption("--profile") or ("quick" if device == "cpu" else "full")
    if profile == "quick" and globs["workload"] == ["*"]:
        light = serving.quick(workloads)
        workloads = [w for w in workloads if w in light or w in foreign]
    rows = [
        Row(ops.OPS[w.op], kernel, w)
        for w in in_turn(workloads)
        for kernel in ops.OPS[w.op].kernels.values()
        if kernel.name in allowed and kernel.device in ("any", device)
    ]
    if not rows:
        asked = " ".join(globs["kernel"])
        raise ValueError(f"--kernel {asked}: none of them runs on {device} tensors")
    return sorted(rows, key=lambda row: row.role == "executor")  # those have no time: last


def _fitting(option: str, globs: list[str], names: list[str]) -> set[str]:
    """The names that any of the globs fits; each must fit some."""
    fitting: set[str] = set()
    for glob in globs:
        found = fnmatch.filter(names, glob)
        if not found:
            raise ValueError(f"nothing fits {option} {glob}{nearest(glob, names)}")
        fitting.update(found)
    return fitting


def in_turn(workloads: list[serving.Workload]) -> list[serving.Workload]:
    """The first workload of every op, then the second: a short budget leaves no op out. Those of a
    mix come first, for a served time needs them all."""
    seen: dict[str, int] = {}
    ranked = []
    for w in sorted(workloads, key=lambda w: not w.weights):
        seen[w.op] = seen.get(w.op, 0) + 1
        ranked.append((seen[w.op], w))
    return [w for _, w in sorted(ranked, key=lambda pair: pair[0])]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "row" in metafunc.fixturenames:
        rows = metafunc.config.stash[SETUP].rows
        metafunc.parametrize("row", rows, ids=[row.id for row in rows])


# What was measured before --------------------------------------------------------------------


def read_run(folder: Path) -> list[dict[str, Any]]:
    """The records of a run, if it was begun; a line that was torn off, or that is none, is left
    out."""
    records = []
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                records.append(json.loads(line))
    return [r for r in records if isinstance(r, dict) and _is_whole(r)]


def _is_whole(record: dict[str, Any]) -> bool:
    """Whether a timing says how it ended; other kinds of records need nothing."""
    return record.get("kind") != "timing" or "status" in record


def done_before(history: list[dict[str, Any]]) -> dict[tuple[str, str, str], dict[str, Any]]:
    """The rows that need not be timed again. One that was begun and has no outcome took its
    process down: that is its outcome."""
    done = {}
    for data in history:
        key = (data.get("op"), data.get("kernel"), data.get("workload"))
        if data.get("kind") == "attempt":
            done[key] = {**data, "status": "crash", "reason": "the process died while it was timed"}
        elif data.get("kind") == "timing":
            if data["status"] in DONE:
                done[key] = data
            else:
                done.pop(key, None)
    return done


def peaks_before(history: list[dict[str, Any]]) -> roofline.Peaks | None:
    """The limits that the run has measured already."""
    for data in reversed(history):
        if data.get("kind") == "peaks":
            return roofline.Peaks(*(data[k] for k in ("device", "memory", "matmul", "floor")))
    return None


# Fixtures ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def recorder(pytestconfig: pytest.Config) -> Iterator[Recorder]:
    folder, run = pytestconfig.getoption("--records"), pytestconfig.stash[SETUP].run
    recorder = Recorder(folder, run, "benchmarks")
    yield recorder
    recorder.close()


@pytest.fixture(scope="session")
def session(pytestconfig: pytest.Config, recorder: Recorder) -> Iterator[Session]:
    setup, started = pytestconfig.stash[SETUP], time.monotonic()
    machine, floor, memory = _machine(setup.device)

    def measure() -> roofline.Peaks:
        peaks = roofline.measure(machine, floor)
        if setup.peaks is not None:
            peaks = setup.peaks.or_better(peaks)
        recorder.measured("peaks", {**asdict(peaks), "cache_bytes": machine.cache_bytes})
        setup.peaks = peaks
        return peaks

    peaks = setup.peaks or measure()
    wanted = min(1.0, max(0.05, TIMING_SHARE * setup.budget / len(setup.rows)))
    allowance = Allowance(wanted, max(5.0, MOST_OF_A_ROW * setup.budget))
    imports = {name for row in setup.rows for name in getattr(row.kernel.run, "imports", ())}
    with Judge({IMPORTS: ",".join(imports)}, timeout=JUDGE_TIMEOUT) as judge:
        deadline = started + setup.budget
        # On a GPU nobody else is at work, and the arguments leave no room for it.
        again = measure if machine.name == "cpu" else None
        yield Session(machine, judge, peaks, memory, allowance, deadline, again)


def _machine(device: str) -> tuple[Machine, dict[str, float], int]:
    """What times the calls, its launch floor, and the bytes that arguments may take."""
    if device == "cpu":
        return Cpu(), {}, _host_memory()
    from benchmarks.timing.gpu import Gpu, launch_floor

    return Gpu(), launch_floor(), int(0.6 * torch.cuda.mem_get_info()[0])


def _host_memory() -> int:
    """Bytes that copies of the arguments may take."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(free // 3, HOST_MEMORY)


@pytest.fixture
def measured(
    row: Row, session: Session, recorder: Recorder, pytestconfig: pytest.Config
) -> Mapping[str, Any]:
    """What is known of a row: measured now, or read from the run that is resumed."""
    progress: Progress = pytestconfig.pluginmanager.get_plugin("yaie-progress")
    done = pytestconfig.stash[SETUP].done
    if row.key in done:
        data = done[row.key]
        if data["kind"] == "attempt":
            data = record(row, Outcome("crash", data["reason"]), session.machine.name)
            recorder.measured("timing", data)
        progress.row(row, data)
        return data

    def announce() -> None:
        op, kernel, workload = row.key
        recorder.measured("attempt", {"op": op, "kernel": kernel, "workload": workload})

    progress.begin(row)
    try:
        outcome = session.run(row, announce)
    except RuntimeError as error:
        if not session.machine.lost():
            raise
        outcome = Outcome("error", f"{type(error).__name__}: {error}")
    data = record(row, outcome, session.machine.name)
    if pytestconfig.getoption("--ncu") and _can_be_profiled(row, data):
        data["notes"]["ncu"] = ncu.profile(*row.key)
    recorder.measured("timing", data)
    progress.row(row, data)
    if data["status"] == "error" and session.machine.lost():
        pytest.exit("a kernel has broken this process's access to the device", returncode=LOST)
    return data


def _can_be_profiled(row: Row, data: Mapping[str, Any]) -> bool:
    ours = row.role == "kernel" and data["device"] == "cuda"
    return ours and data["status"] == "timed" and ncu.available() is not None


@pytest.fixture(scope="session")
def builds(pytestconfig: pytest.Config) -> Mapping[str, Any]:
    """The build ids of our extensions."""
    return pytestconfig.stash[SETUP].builds


# pytest-benchmark ----------------------------------------------------------------------------


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """What a comparison must agree on, without the figures that change from second to second."""
    here = provenance()
    machine_info.pop("cpu", None)
    machine_info.update({k: here[k] for k in ("cpu", "gpu", "driver", "torch", "builds")})
