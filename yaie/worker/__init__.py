"""The disposable process that kernels are judged in: its handle, and what happens inside."""

from yaie.worker.process import Died, TimedOut, Worker

__all__ = ["Died", "TimedOut", "Worker"]
