"""Kernels that cheat the clock, each in a way that was seen in the wild: all must be caught.

They serve ``paged_attention`` with the right answer (torch.eager's) for as long as nobody looks.
The worker loads this module through YAIE_PLUGINS; a test process calls ``register``.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from yaie import ops
from yaie.kernels.torch_eager import attention as eager
from yaie.op import Kernel

Run = Callable[..., Any]

KERNELS: dict[str, tuple[Callable[[], Run], str]] = {}
"""By name: what makes the kernel, with an empty memory, and who must catch it."""


DEVICES: dict[str, str] = {}


def cheat(caught_by: str, device: str = "any") -> Callable[[Callable[[], Run]], Callable[[], Run]]:
    def add(make: Callable[[], Run]) -> Callable[[], Run]:
        KERNELS[f"cheat.{make.__name__}"] = (make, caught_by)
        DEVICES[f"cheat.{make.__name__}"] = device
        return make

    return add


def attend(given: dict[str, Any]) -> tuple[Tensor, Tensor]:
    return eager.paged_attention(**given)


def work() -> None:
    """Takes some time, so that leaving it out shows."""
    end = time.perf_counter() + 3e-4
    while time.perf_counter() < end:
        pass


@cheat("audit")
def caches_by_pointer() -> Run:
    """The same addresses mean the same answer."""
    known: dict[Any, Any] = {}

    def run(**given: Any) -> Any:
        key = tuple(t.data_ptr() for t in given.values() if isinstance(t, Tensor))
        if key not in known:
            known[key] = attend(given)
        return known[key]

    return run


@cheat("audit")
def caches_by_fingerprint() -> Run:
    """A few values mean the same answer."""
    known: dict[Any, Any] = {}

    def run(**given: Any) -> Any:
        key = tuple(given["q_indptr"].tolist()), given["block_table"].shape
        if key not in known:
            known[key] = attend(given)
        return known[key]

    return run


@cheat("honest time")
def caches_by_content() -> Run:
    """The same bits mean the same answer: right, but not work. No sample shows it the same
    bits twice, so all that it gains is nothing."""
    known: dict[Any, Any] = {}

    def run(**given: Any) -> Any:
        key = tuple(t._version for t in given.values() if isinstance(t, Tensor))
        key += tuple(t.data_ptr() for t in given.values() if isinstance(t, Tensor))
        if key not in known:
            work()
            known[key] = attend(given)
        return known[key]

    return run


@cheat("audit")
def skips_after_warm_up() -> Run:
    """After some calls nobody looks any more."""
    calls, last = [0], []

    def run(**given: Any) -> Any:
        calls[0] += 1
        if calls[0] < 20:
            last[:] = attend(given)
        return tuple(last)

    return run


@cheat("audit")
def works_on_another_thread() -> Run:
    """Returns at once; the answer is written later."""
    calls = [0]

    def run(**given: Any) -> Any:
        calls[0] += 1
        out, lse = attend(given)
        if calls[0] < 8:
            return out, lse
        late_out, late_lse = torch.zeros_like(out), torch.zeros_like(lse)

        def finish() -> None:
            time.sleep(0.05)
            late_out.copy_(out)
            late_lse.copy_(lse)

        threading.Thread(target=finish, daemon=True).start()
        return late_out, late_lse

    return run


class Lazy(Tensor):
    """Computes once somebody asks."""


@cheat("judge")
def returns_lazy_tensors() -> Run:
    def run(**given: Any) -> Any:
        out, lse = attend(given)
        return out.as_subclass(Lazy), lse

    return run


@cheat("audit")
def returns_lazy_tensors_once_timed() -> Run:
    calls = [0]

    def run(**given: Any) -> Any:
        calls[0] += 1
        out, lse = attend(given)
        return (out.as_subclass(Lazy), lse) if calls[0] > 8 else (out, lse)

    return run


@cheat("judge")
def clears_its_input() -> Run:
    """With q = 0 every answer is a mean of values."""

    def run(**given: Any) -> Any:
        given["q"].zero_()
        return attend(given)

    return run


@cheat("audit")
def clears_its_input_once_timed() -> Run:
    calls = [0]

    def run(**given: Any) -> Any:
        calls[0] += 1
        if calls[0] > 8:
            given["q"].zero_()
        return attend(given)

    return run


@cheat("judge")
def returns_fresh_memory() -> Run:
    """The allocator may hand out what the reference has just freed."""

    def run(**given: Any) -> Any:
        q, v = given["q"], given["v_cache"]
        out = q.new_empty(*q.shape[:2], v.shape[-1])
        return out, q.new_empty(q.shape[:2], dtype=torch.float32)

    return run


@cheat("judge")
def computes_in_tf32() -> Run:
    """Ten bits of mantissa where float32 was asked for."""

    def cut(x: Tensor) -> Tensor:
        return (x.view(torch.int32) & ~0x1FFF).view(torch.float32)

    def run(**given: Any) -> Any:
        if given["q"].dtype == torch.float32:
            given = {**given, "q": cut(given["q"].contiguous())}
        return attend(given)

    return run


@cheat("honest time")
def stops_the_clock() -> Run:
    """Replaces the timer that it hopes to be timed with; the clock keeps its own."""
    calls = [0]

    def run(**given: Any) -> Any:
        calls[0] += 1
        if calls[0] > 8:
            time.perf_counter_ns = lambda: 0
        return attend(given)

    return run


@cheat("audit", device="cuda")
def works_on_another_stream() -> Run:
    """The stream that is timed stays empty; the answer is written by another one, later."""
    streams: list[torch.cuda.Stream] = []

    def run(**given: Any) -> Any:
        out, lse = attend(given)
        if not streams:
            streams.append(torch.cuda.Stream())
        late_out, late_lse = torch.zeros_like(out), torch.zeros_like(lse)
        streams[0].wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(streams[0]):
            torch.cuda._sleep(50_000_000)
            late_out.copy_(out)
            late_lse.copy_(lse)
        return late_out, late_lse

    return run


@cheat("judge", device="cuda")
def lets_matmuls_use_tf32() -> Run:
    """The switch of torch that trades 13 bits of float32 for speed."""

    def run(**given: Any) -> Any:
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = True
        try:
            return attend(given)
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before

    return run


def on(device: str) -> list[str]:
    """The cheats that can be tried on a device."""
    return [name for name in KERNELS if DEVICES[name] in ("any", device)]


def kernel(name: str, device: str = "cpu") -> Kernel:
    """A cheat that remembers nothing yet."""
    return Kernel("paged_attention", name, KERNELS[name][0](), device=device, preference=-1)


def register() -> None:
    for name in KERNELS:
        ops.get("paged_attention").register(kernel(name, "any"))


def unregister() -> None:
    for name in KERNELS:
        ops.get("paged_attention").kernels.pop(name)


if __name__ in os.environ.get("YAIE_PLUGINS", "").split(","):
    register()
