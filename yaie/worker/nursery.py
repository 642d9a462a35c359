"""Where zygotes come from: a process that imports torch once, which takes seconds, and then forks.

The zygotes of this process differ in the kernels that they load, which is the first thing they do.
So one import serves all judges of a campaign. A nursery never loads a kernel, so none can spoil it.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

NURSERY = "import runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
"""What a nursery runs: the script nurse.py, with the path on which yaie is found."""
NURSE = Path(__file__).with_name("nurse.py")
PASSED_ON = ("YAIE_", "PYTEST_")
"""Variables of these prefixes are read when kernels are loaded, or later, or not at all. All others
may be read while torch is imported, so another value of theirs needs another nursery."""
READY = b"R"
"""What a zygote says once it serves."""
GRACE_S = 10.0
"""How long a nursery may take to end."""


class Zygote:
    """The judge's handle on a zygote: its socket, and its end."""

    def __init__(self, environment: Mapping[str, str], regions: int, output: int) -> None:
        """Ask for one; ``regions`` and ``output`` are file descriptors that it shall have."""
        self.control, theirs = socket.socketpair()
        self.pid = 0
        self._pidfd = -1
        with theirs:
            self._nursery = _PRESENT.fork(environment, (theirs.fileno(), regions, output))

    def await_start(self, timeout: float) -> bool:
        """Whether it has loaded its kernels and serves. Asked once.

        Raises:
            TimeoutError: it has not after so many seconds.
        """
        return self._learn(timeout) and self.control.recv(1) == READY

    def _learn(self, timeout: float) -> bool:
        """Receive its process id from the nurse, who sends it before anything else can happen."""
        if self._pidfd < 0:
            self.control.settimeout(timeout)
            said, fds, _, _ = socket.recv_fds(self.control, 8, 1)
            if not fds:
                return False
            self.pid, self._pidfd = int.from_bytes(said, "little"), fds[0]
        return True

    def kill(self, grace: float = 0.0) -> None:
        """Hang up, and end it, whatever it does, after so many seconds. One that the nurse has yet
        to make ends with the nursery, if not when it finds out."""
        with contextlib.suppress(OSError):
            self._learn(0.0)
        self.control.close()
        if self._pidfd < 0:
            return
        if not select.select([self._pidfd], [], [], grace)[0]:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            select.select([self._pidfd], [], [])
        os.close(self._pidfd)
        self._pidfd = -1

    def last_words(self) -> str:
        """What the nursery has to say, if it could not make one."""
        return self._nursery.last_words()


class _Nursery:
    """The handle on a nursery, which ends when it is hung up."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._control, theirs = socket.socketpair()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the nursery
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", NURSERY, str(NURSE), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                env=environment,
            )

    def alive(self) -> bool:
        return self._process.poll() is None

    def last_words(self) -> str:
        if self._output.closed:
            return ""
        self._output.seek(0)
        return self._output.read()[-4000:].decode(errors="replace")

    def end(self) -> None:
        self._control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_S)
        self._process.kill()
        self._process.wait()

    def fork(self, environment: Mapping[str, str], fds: tuple[int, ...]) -> None:
        """Ask for a zygote with this environment, in the present folder; OSError if it has died."""
        request = json.dumps({"environment": dict(environment), "folder": os.getcwd()}).encode()
        socket.send_fds(self._control, [len(request).to_bytes(8, "little")], fds)
        self._control.sendall(request)


@dataclass
class _Present:
    """The nursery of this process, and what it is good for."""

    key: tuple[int, dict[str, str]] = (0, {})
    nursery: _Nursery | None = None

    def fork(self, environment: Mapping[str, str], fds: tuple[int, ...]) -> _Nursery:
        """Ask a nursery for a zygote; one that died meanwhile is replaced. Where none lives long
        enough to take the request, the zygote's socket is at its end."""
        for _ in range(2):
            nursery = self.of(environment)
            with contextlib.suppress(OSError):
                nursery.fork(environment, fds)
                break
        return nursery

    def of(self, environment: Mapping[str, str]) -> _Nursery:
        """The nursery for zygotes of this environment, a new one where the present is not."""
        decisive = {k: v for k, v in environment.items() if not k.startswith(PASSED_ON)}
        key = (os.getpid(), decisive)  # a fork of this process needs its own
        if self.nursery is None or key != self.key or not self.nursery.alive():
            self.end()
            self.key, self.nursery = key, _Nursery(decisive)
        return self.nursery

    def end(self) -> None:
        if self.nursery is not None and self.key[0] == os.getpid():
            self.nursery.end()
        self.nursery = None


_PRESENT = _Present()
atexit.register(_PRESENT.end)
