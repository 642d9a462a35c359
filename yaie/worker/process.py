"""A disposable process for kernels: what crashes, hangs or lies there is a finding, not the end.

One zygote process imports torch and the kernels once and then only forks. A worker is such a fork:
it starts in milliseconds, serves jobs over a socket, and may die at any time; the next job gets a
fresh one. The zygote never touches a GPU, so a worker can. A zygote that a kernel has killed or
stopped is replaced too.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import torch

from yaie import kernels
from yaie.arena import Regions
from yaie.worker.execution import Job, execute, execute_refusal

GRACE_S = 10.0
"""How long a worker that has hung up may take to end."""
START_S = 120.0
"""How long the zygote may take to import torch and the kernels."""
IMPORTS = "YAIE_IMPORTS"
"""Environment variable: modules that the zygote imports as well, so that no worker need do it."""
ZYGOTE = "from yaie.worker import process; process.main()"
"""What the zygote runs."""


@dataclass(frozen=True)
class Died:
    """The worker died over a job: how, and the last lines that it wrote."""

    how: str
    last_words: str


@dataclass(frozen=True)
class TimedOut:
    """The worker did not answer within this many seconds, and was killed."""

    seconds: float


class Worker:
    """The judge's handle on the zygote and on the worker of the moment."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self.regions = Regions()
        self.pid = 0
        self._environment = {**os.environ, **(environment or {})}
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the zygote
        self._mark = 0
        self._jobs: Connection | None = None
        self._pidfd = -1
        self._awaited = select.poll()
        self._number = 0
        self._answered = True
        self._start_zygote()

    def _start_zygote(self) -> None:
        self._control, theirs = socket.socketpair()
        fds = (theirs.fileno(), self.regions.fd)
        self._zygote = subprocess.Popen(
            [
                sys.executable,
                "-c",
                ZYGOTE,
                *map(str, fds),
            ],
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            stdout=self._output,  # what kernels print is theirs, not the judge's
            stderr=self._output,
            env=self._environment,
        )
        theirs.close()
        self._control.settimeout(START_S)

    def begin(self, job: Any) -> None:
        """Hand a job to the worker; ``finish`` gives the answer. The caller may work meanwhile."""
        if not self._answered:
            self.retire()  # an exception came between; the answer would be taken for the next one
        if self._jobs is None:
            self._fork()
        assert self._jobs is not None
        self._mark = self._output.seek(0, os.SEEK_END)
        self._number += 1
        self._answered = False
        with contextlib.suppress(OSError):  # a dead worker is found in finish()
            _send(self._jobs, (self._number, job))

    def finish(self, timeout: float) -> Any:
        """The worker's answer to the job that was begun, or Died, or TimedOut."""
        answer = self._receive(timeout)
        self._answered = True
        return answer

    def _receive(self, timeout: float) -> Any:
        assert self._jobs is not None
        deadline = time.monotonic() + timeout
        while True:
            ready = dict(self._awaited.poll(max(0.0, deadline - time.monotonic()) * 1000))
            if not ready:
                self._bury(kill=True)
                return TimedOut(timeout)
            try:
                # The pidfd alone: the worker is dead, though a child of its may hold the socket.
                answer = self._jobs.recv() if self._jobs.fileno() in ready else None
            except (EOFError, OSError):
                answer = None
            if answer is None:
                how = self._bury(kill=False)
                self._output.seek(self._mark)
                return Died(how, self._output.read()[-2000:].decode(errors="replace"))
            if answer.number != self._number:
                continue  # of a process that the kernel forked
            if answer.last:
                self._bury(kill=False)
            return answer.content

    def ask(self, job: Any, timeout: float) -> Any:
        """Begin a job and wait for its answer."""
        self.begin(job)
        return self.finish(timeout)

    def retire(self) -> None:
        """End the present worker; the next job gets a fresh one."""
        if self._jobs is not None:
            self._bury(kill=True)
        self._answered = True

    def _fork(self) -> None:
        for attempt in (1, 2):
            ours, theirs = socket.socketpair()
            with theirs:
                try:
                    socket.send_fds(self._control, [b"F"], [theirs.fileno()])
                    pid = self._control.recv(8)
                except OSError:
                    pid = b""
            if len(pid) == 8:
                break
            ours.close()
            if attempt == 2:
                self._output.seek(0)
                text = self._output.read()[-4000:].decode(errors="replace")
                raise RuntimeError(f"the kernel worker could not start:\n{text}")
            self._replace_zygote()
        self.pid = int.from_bytes(pid, "little")
        self._pidfd = os.pidfd_open(self.pid)
        self._jobs = Connection(ours.detach())
        self._awaited = select.poll()
        for fd in (self._jobs.fileno(), self._pidfd):
            self._awaited.register(fd, select.POLLIN)

    def _replace_zygote(self) -> None:
        self._control.close()
        self._zygote.kill()
        self._zygote.wait()
        self._start_zygote()

    def _bury(self, kill: bool) -> str:
        """Forget the worker and what it forked; say how it ended."""
        assert self._jobs is not None
        if kill:
            self._kill_group()
        self._jobs.close()
        self._jobs = None
        self._control.settimeout(2 * GRACE_S)
        try:
            self._control.sendall(b"W" + self.pid.to_bytes(8, "little"))
            status = int.from_bytes(self._control.recv(8), "little")
        except OSError:
            self._kill_group()
            self._replace_zygote()
            how = "lost together with the process that forks workers"
        else:
            self._kill_group()
            if os.WIFSIGNALED(status):
                how = f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
            else:
                how = f"exited with status {os.WEXITSTATUS(status)}"
        self._control.settimeout(START_S)
        os.close(self._pidfd)
        return how

    def _kill_group(self) -> None:
        """A worker leads a process group of its own."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the zygote and its worker."""
        self.retire()
        self._control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._zygote.wait(GRACE_S)
        self._zygote.kill()
        self._zygote.wait()
        self._output.close()
        self.regions.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _send(connection: Connection, what: Any) -> None:
    """``connection.send``, of things that hold no connection or shared tensor: the pickler for
    those takes three times as long."""
    connection.send_bytes(pickle.dumps(what, pickle.HIGHEST_PROTOCOL))


@dataclass(frozen=True)
class Answer:
    """A worker's answer to job ``number``; ``last`` says that the worker ends after it (its GPU
    context is lost)."""

    number: int
    content: Any
    last: bool = False


def main() -> None:
    """Be the zygote: ``main CONTROL_FD REGIONS_FD``."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=int(sys.argv[1]))
    kernels.load()
    for name in filter(None, os.environ.get(IMPORTS, "").split(",")):
        with contextlib.suppress(ImportError):  # the kernel that needs it will say so
            importlib.import_module(name)
    gc.freeze()  # torch's many objects live on: no collection in a worker needs to walk them
    _zygote(control, Regions(int(sys.argv[2])))


def _zygote(control: socket.socket, regions: Regions) -> None:
    """Fork a worker for each b"F" that comes with a socket; report each b"W"aited one's end."""
    while True:
        message, fds, _, _ = socket.recv_fds(control, 9, 1)
        if message == b"F":
            pid = os.fork()
            if pid == 0:
                control.close()
                _die_with_parent()
                os.setpgid(0, 0)
                _be_worker(Connection(fds[0]), regions)
            with contextlib.suppress(OSError):
                os.setpgid(pid, pid)  # by whoever of the two comes first
            os.close(fds[0])
            control.sendall(pid.to_bytes(8, "little"))
        elif message[:1] == b"W":
            pid = int.from_bytes(message[1:], "little")
            control.sendall(_await_end(pid).to_bytes(8, "little"))
        else:
            return


def _await_end(pid: int) -> int:
    """The wait status of a worker that has hung up; one that lives on regardless is killed."""
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def _die_with_parent() -> None:
    """A worker that hangs must not outlive the zygote (Linux: PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _be_worker(jobs: Connection, regions: Regions) -> NoReturn:
    """Serve jobs, and end without the interpreter's clean-up: it takes seconds in a fork that
    shares all of torch, and the zygote, whose Python it would clean up, is alive."""
    status = 0
    try:
        _serve(jobs, regions)
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        sys.stderr.flush()
        os._exit(status)


def _serve(jobs: Connection, regions: Regions) -> None:
    """Answer jobs until the judge hangs up, or until a GPU error has spoilt this process."""
    me = os.getpid()
    while True:
        try:
            number, job = jobs.recv()
        except EOFError:
            return
        content: Any = execute(job, regions) if isinstance(job, Job) else execute_refusal(job)
        if os.getpid() != me:
            os._exit(0)  # forked by the kernel: it must not answer a second time
        lost = job.device != "cpu" and _gpu_lost()
        _send(jobs, Answer(number, content, lost))
        if lost:
            os._exit(1)


def _gpu_lost() -> bool:
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False
