"""What a nursery runs (nursery.py): import torch, then fork a zygote for each request.

A script, not imported: importing it would import yaie, which loads kernels, and those are the
zygotes' own.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
from typing import NoReturn

import torch


def nurse(control: socket.socket) -> None:
    """Serve requests until the judge hangs up. Each comes with its size and three descriptors: the
    zygote's socket, the shared regions, and where its output goes."""
    while True:
        size, fds, _, _ = socket.recv_fds(control, 8, 3)
        if not size:
            return
        request = json.loads(_received(control, int.from_bytes(size, "little")))
        if os.fork() == 0:
            control.close()
            _be_zygote(request["environment"], request["folder"], *fds)
        for fd in fds:
            os.close(fd)


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
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for zygotes
    nurse(socket.socket(fileno=int(sys.argv[1])))
