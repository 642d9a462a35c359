"""The guide's two ways to look at the time of one call. What `nox -s bench` reports is measured
with more care."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

HELD_CYCLES = 2_000_000
"""For which a stream is held before a timed call: about a millisecond."""


def benchmark_kernel(
    fn: Callable[..., Any], *args: Any, warmup: int = 3, repeats: int = 10, **kwargs: Any
) -> tuple[float, Any]:
    """Median seconds of ``fn(*args, **kwargs)``, and its last result.

    If an argument lies on a GPU, the time is the GPU's, by events around each call on the current
    stream, which is held until the call is enqueued; else it is the host's.

    Errors: ValueError for warmup < 0 or repeats < 1.
    """
    if warmup < 0 or repeats < 1:
        raise ValueError(f"warmup is {warmup}, repeats is {repeats}: at least 0 and 1 are needed")
    device = next((t.device for t in _tensors((args, kwargs)) if t.is_cuda), None)
    for _ in range(warmup):
        fn(*args, **kwargs)
    timed = _on_host if device is None else _on_gpu
    seconds, result = [], None
    for _ in range(repeats):
        took, result = timed(lambda: fn(*args, **kwargs), device)
        seconds.append(took)
    return statistics.median(seconds), result


def _on_host(call: Callable[[], Any], device: torch.device | None) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def _on_gpu(call: Callable[[], Any], device: torch.device | None) -> tuple[float, Any]:
    with torch.cuda.device(device):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        # The device waits until all is enqueued, as in `nox -s bench`: no host time is in it.
        torch.cuda._sleep(HELD_CYCLES)  # type: ignore[no-untyped-call]
        start.record()
        result = call()
        end.record()
        end.synchronize()
    return start.elapsed_time(end) / 1e3, result


def profile_kernel(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The result of ``fn(*args, **kwargs)``; prints the profiler's table of the ten most expensive
    operations, by time on the GPU where there is one."""
    on_gpu = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        result = fn(*args, **kwargs)
        if on_gpu:
            torch.cuda.synchronize()
    order = "cuda_time_total" if on_gpu else "cpu_time_total"
    print(profiler.key_averages().table(sort_by=order, row_limit=10))
    return result


def _tensors(value: Any) -> Iterable[Tensor]:
    """Every tensor in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)
