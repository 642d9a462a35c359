"""Which ops a piece of work calls, with which shapes, and how long each takes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from yaie import ops

OnCall = Callable[[str, str, dict[str, Any]], None]
"""Told of each call: op, kernel, arguments and options."""


@dataclass
class Watched:
    """How often each op ran, by which kernel, and for how many seconds."""

    calls: dict[str, int] = field(default_factory=dict)
    kernels: dict[str, set[str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, op: str, kernel: str, seconds: float) -> None:
        """One more call."""
        self.calls[op] = self.calls.get(op, 0) + 1
        self.kernels.setdefault(op, set()).add(kernel)
        self.seconds[op] = self.seconds.get(op, 0.0) + seconds


def timing_event() -> torch.cuda.Event:
    """A point on a stream, from which time can be measured."""
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


@contextmanager
def watch(on_call: OnCall | None = None) -> Iterator[Watched]:
    """Watch every op inside the block. On a GPU a call is timed by two events on its stream; what
    is replayed from a CUDA graph is not seen."""
    watched = Watched()
    events: list[tuple[str, str, torch.cuda.Event, torch.cuda.Event]] = []

    def spied(op: str, name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def call(**given: Any) -> Any:
            if on_call is not None:
                on_call(op, name, given)
            if any(isinstance(v, Tensor) and v.device.type == "cuda" for v in given.values()):
                start, stop = timing_event(), timing_event()
                start.record()
                result = run(**given)
                stop.record()
                events.append((op, name, start, stop))
                return result
            begun = time.perf_counter()
            result = run(**given)
            watched.add(op, name, time.perf_counter() - begun)
            return result

        return call

    saved = {op: dict(ops.OPS[op].kernels) for op in ops.OPS}
    for op, kernels in saved.items():
        for name, kernel in kernels.items():
            spy = dataclasses.replace(kernel, run=spied(op, name, kernel.run))
            ops.OPS[op].kernels[name] = spy
    try:
        yield watched
    finally:
        for op, kernels in saved.items():
            ops.OPS[op].kernels.update(kernels)
        if events:
            torch.cuda.synchronize()
        for op, name, started, stopped in events:
            watched.add(op, name, started.elapsed_time(stopped) / 1e3)


def shapes(given: dict[str, Any]) -> str:
    """The tensors of a call: ``q[11,4,16] k_cache[60,4,2,16]``, and options that are not None."""
    tensors = [f"{k}{list(v.shape)}" for k, v in given.items() if isinstance(v, Tensor)]
    options = [f"{k}={v}" for k, v in given.items() if not isinstance(v, Tensor) and v is not None]
    return " ".join(part.replace(", ", ",") for part in (*tensors, *options))
