"""The registered kernels: ours, and those of other packages (entry-point group ``yaie.kernels``).

An entry point names a function without arguments that registers kernels with their ops. Modules
named in YAIE_PLUGINS (comma-separated) are imported for the same purpose.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points

from yaie.kernels import host, native, torch_eager
from yaie.kernels.native import entries


@dataclass(frozen=True)
class Schedule:
    """The order in which the SIMT executor runs threads and blocks: "round-robin", "reverse", or
    drawn from ``seed``: "random", "priority" (with ``depth``), on ``threads`` cores (0: all). Its
    checked build preempts threads at a share ``preemption`` of their memory accesses."""

    policy: str = "round-robin"
    seed: int = 0
    threads: int = 1
    depth: int = 3
    preemption: float = 0.0

    def __str__(self) -> str:
        depth = f" of depth {self.depth}" if self.policy == "priority" else ""
        drawn = self.policy in ("random", "priority") or self.preemption > 0
        seed = f" {self.seed}" if drawn else ""
        rate = f", preemption {self.preemption:g}" if self.preemption > 0 else ""
        return f"{self.policy}{depth}{seed}{rate}"


IN_ORDER = Schedule()
"""Threads and blocks one after the other, in ascending order."""


@contextmanager
def scheduled(schedule: Schedule) -> Iterator[None]:
    """Run the SIMT executor under a schedule inside the block."""
    executor = native.extension("simt")
    if executor is not None:
        policy, finer = schedule.policy, {}
        if hasattr(executor, "checked"):
            preemption = schedule.preemption if executor.checked else 0.0
            finer = {"depth": schedule.depth, "preemption": preemption}
        elif policy == "priority":
            policy = "random"  # a build of an earlier time, which is judged as well
        executor.set_schedule(policy, schedule.seed, schedule.threads, **finer)
    yield


@cache
def load() -> None:
    """Register every kernel, once in a process."""
    torch_eager.register()
    host.register()
    native.register()
    for entry in entry_points(group="yaie.kernels"):
        entry.load()()
    for name in os.environ.get("YAIE_PLUGINS", "").split(","):
        if name.strip():
            _plug_in(name.strip())


def _plug_in(name: str) -> None:
    """Import a module that registers kernels; ValueError when there is none of that name."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise  # the module is there, something that it imports is not
        raise ValueError(f"YAIE_PLUGINS: no module {name!r} on the path") from None


__all__ = ["IN_ORDER", "Schedule", "entries", "load", "native", "scheduled"]
