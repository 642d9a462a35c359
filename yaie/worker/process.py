"""A disposable process for kernels: what crashes, hangs or lies there is a finding, not the end.

A zygote (zygote.py) has loaded the kernels and only forks. A worker is such a fork: it starts in
milliseconds, serves jobs over a socket, and may die at any time; the next job gets a fresh one. A
zygote that a kernel has killed or stopped is replaced too.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from yaie.arena import Regions
from yaie.worker.nursery import Zygote
from yaie.worker.zygote import GRACE_S, send

START_S = 120.0
"""How long the zygote may take to import torch and the kernels."""


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
        self._started = self._late = False
        self._zygote = Zygote(self._environment, self.regions.fd, self._output.fileno())

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
            send(self._jobs, (self._number, job))

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
                pid = self._ask_for_fork(theirs)
            if len(pid) == 8:
                break
            ours.close()
            if attempt == 2:
                raise RuntimeError(f"the kernel worker could not start:\n{self._why()}")
            self._replace_zygote()
        self.pid = int.from_bytes(pid, "little")
        self._pidfd = os.pidfd_open(self.pid)
        self._jobs = Connection(ours.detach())
        self._awaited = select.poll()
        for fd in (self._jobs.fileno(), self._pidfd):
            self._awaited.register(fd, select.POLLIN)

    def _ask_for_fork(self, socket_of_worker: socket.socket) -> bytes:
        """The new worker's process id, 8 bytes; fewer where the zygote is gone."""
        try:
            if not self._started:
                self._started = self._zygote.await_start(START_S)
            socket.send_fds(self._zygote.control, [b"F"], [socket_of_worker.fileno()])
            return self._zygote.control.recv(8)
        except TimeoutError:
            self._late = True
            return b""
        except OSError:
            return b""

    def _why(self) -> str:
        """What the zygote wrote, or the nursery that could not make it."""
        self._output.seek(0)
        text = self._output.read()[-4000:].decode(errors="replace")
        text = text or self._zygote.last_words()
        return f"no answer within {START_S:g} s\n{text}" if self._late else text

    def _replace_zygote(self) -> None:
        self._zygote.kill()
        self._start_zygote()

    def _bury(self, kill: bool) -> str:
        """Forget the worker and what it forked; say how it ended."""
        assert self._jobs is not None
        if kill:
            self._kill_group()
        self._jobs.close()
        self._jobs = None
        self._zygote.control.settimeout(2 * GRACE_S)
        try:
            self._zygote.control.sendall(b"W" + self.pid.to_bytes(8, "little"))
            status = int.from_bytes(self._zygote.control.recv(8), "little")
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
        os.close(self._pidfd)
        return how

    def _kill_group(self) -> None:
        """A worker leads a process group of its own."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the zygote and its worker."""
        self.retire()
        self._zygote.kill(GRACE_S)
        self._output.close()
        self.regions.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
