"""What a nursery runs (nursery.py): import torch, then fork a zygote for each request.

A script, not imported: importing it would import yaie, which loads kernels, and those are the
zygotes' own.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import traceback
from typing import NoReturn

import torch

CHILDREN = {signal.SIGCHLD}


def nurse(control: socket.socket) -> None:
    """Serve requests until the judge hangs up. Each comes with its size and three descriptors: the
    zygote's socket, the shared regions, and where its output goes."""
    while True:
        size, fds, _, _ = socket.recv_fds(control, 8, 3)
        if not size:
            return
        request = json.loads(_received(control, int.from_bytes(size, "little")))
        told, tell = os.pipe()
        signal.pthread_sigmask(signal.SIG_BLOCK, CHILDREN)  # a pid is not reused before its pidfd
        pid = os.fork()
        if pid == 0:
            control.close()
            os.close(tell)
            os.read(told, 1)  # the judge has its process id
            _be_zygote(request["environment"], request["folder"], *fds)
        _introduce(fds[0], pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, CHILDREN)
        for fd in (*fds, told, tell):
            os.close(fd)


def _introduce(judge: int, pid: int) -> None:
    """Send a zygote's process id and a pidfd to its judge, who may have hung up."""
    pidfd = os.pidfd_open(pid)
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(judge)) as connection:
        socket.send_fds(connection, [pid.to_bytes(8, "little")], [pidfd])
    os.close(pidfd)


def _reap(*_: object) -> None:
    """Forget the zygotes that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _received(control: socket.socket, size: int) -> bytes:
    text = b""
    while len(text) < size:
        some = control.recv(size - len(text))
        if not some:
            raise EOFError("the judge hung up within a request")
        text += some
    return text


def _be_zygote(
    environment: dict[str, str], folder: str, judge: int, regions: int, output: int
) -> NoReturn:
    """Become a zygote, and end without the interpreter's clean-up, as a worker does."""
    status = 0
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, CHILDREN)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, while it loads
        for standard in (1, 2):  # what kernels print is theirs, not the judge's
            os.dup2(output, standard)
        os.close(output)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        from yaie.worker import zygote  # loads the kernels that the environment names

        zygote.serve(socket.socket(fileno=judge), regions)
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, _reap)
    nurse(socket.socket(fileno=int(sys.argv[1])))
