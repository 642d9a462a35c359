"""What runs behind a judge: the zygote, which loads kernels and forks, and its workers.

The zygote never touches a GPU, so a worker can.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import pickle
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import torch

from yaie import kernels
from yaie.arena import Regions
from yaie.worker.execution import Job, execute, execute_refusal
from yaie.worker.nursery import READY

GRACE_S = 10.0
"""How long a worker that has hung up may take to end."""
IMPORTS = "YAIE_IMPORTS"
"""Environment variable: modules that the zygote imports as well, so that no worker need do it."""


def send(connection: Connection, what: Any) -> None:
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


def serve(judge: socket.socket, regions: int) -> None:
    """Be the zygote: load what the environment asks for, say so, and fork workers."""
    kernels.load()
    for name in filter(None, os.environ.get(IMPORTS, "").split(",")):
        with contextlib.suppress(ImportError):  # the kernel that needs it will say so
            importlib.import_module(name)
    gc.freeze()  # torch's many objects live on: no collection in a worker needs to walk them
    _die_with_parent(False)  # what serves ends with its judge, whatever becomes of the nursery
    judge.sendall(READY)
    _fork_workers(judge, Regions(regions))


def _fork_workers(control: socket.socket, regions: Regions) -> None:
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


def _die_with_parent(yes: bool = True) -> None:
    """A worker that hangs must not outlive the zygote (Linux: PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL if yes else 0)


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
        send(jobs, Answer(number, content, lost))
        if lost:
            os._exit(1)


def _gpu_lost() -> bool:
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False
