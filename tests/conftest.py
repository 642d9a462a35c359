"""What several test modules share: the bad kernels, a judge for them, and a watchdog."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bad_kernels
import pytest
import torch

from yaie import ops
from yaie.check import Judge
from yaie.kernels import native

HERE = Path(__file__).resolve().parent
PLUGIN = {
    "YAIE_PLUGINS": "bad_kernels",
    "PYTHONPATH": os.pathsep.join(
        [str(HERE), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    ),
}
"""Environment of a worker that knows the bad kernels."""
TIMEOUT_S = 2.0


def pytest_configure() -> None:
    torch.set_num_threads(1)
    if native.extension("simt") is None:
        raise pytest.UsageError("the extension yaie._simt is not built: run `nox -s build`")


@contextmanager
def watchdog(seconds: float) -> Iterator[None]:
    """TimeoutError in this process when the block takes longer: a judge must never hang."""

    def bark(*_: object) -> None:
        raise TimeoutError(f"the judge did not answer within {seconds} s")

    old = signal.signal(signal.SIGALRM, bark)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


@pytest.fixture(scope="session")
def bad() -> Iterator[None]:
    """The bad kernels, registered for as long as the session lasts."""
    bad_kernels.register()
    yield
    bad_kernels.unregister()


@pytest.fixture(scope="session")
def judge(bad: None) -> Iterator[Judge]:
    """One judge for all the kernels that leave it whole."""
    with Judge(PLUGIN, TIMEOUT_S) as judge:
        yield judge


@pytest.fixture
def own_judge(bad: None) -> Iterator[Judge]:
    """A judge for one test, which may ruin it."""
    judge = Judge(PLUGIN, TIMEOUT_S)
    zygote = judge._worker._zygote
    try:
        yield judge
    finally:
        worker_pid = judge.worker_pid
        try:
            with watchdog(5):
                judge.close()
        except (OSError, TimeoutError):
            zygote.kill()
            _kill_if_ours(worker_pid)


@pytest.fixture
def shaken_judge(judge: Judge) -> Iterator[Judge]:
    """The judge of the session for a test that may leave its worker in the middle of something."""
    yield judge
    op, pid = ops.get("paged_attention"), judge.worker_pid
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    for _ in range(5):
        with contextlib.suppress(Exception):  # answers that were left behind
            judge.judge(op, op.kernels["torch.eager"], op.good)
        if judge.worker_pid != pid:
            return
    raise RuntimeError("the judge of the session is lost")


def _kill_if_ours(pid: int) -> None:
    """End a worker that outlived its zygote."""
    command = Path(f"/proc/{pid}/cmdline")
    if pid and command.exists() and b"yaie" in command.read_bytes():
        os.kill(pid, signal.SIGKILL)
