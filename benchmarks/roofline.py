"""The limits of a machine, measured in the run: bytes a second, flops a second of each dtype.

No kernel can take less time than the op's bytes at the best rate that any plain copy, read or write
reached, nor than its flops at the best rate of a matrix product. A kernel that seems to is not fast
but wrong, in what it does or in how it was timed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.clock import Allowance, Machine, Rotation, time_rotation
from yaie.op import Cost

SLACK = 0.03
"""A figure may be this much below the limit: both are measured."""
WIDER = {"float16": ("float32",), "bfloat16": ("float32",)}
"""Dtypes that a kernel may compute in instead, where its own is slower on the machine."""
LARGE = {"cpu": 128 << 20, "cuda": 4 << 30}
"""Bytes of each tensor that shows the rate of memory."""
MATRIX = {"cpu": 1024, "cuda": 8192}
"""Rows and columns of the matrices that show the rate of a product."""
MATRIX_SMALL = 256
SLOW = 0.1
"""Seconds; a product that would take longer is left at the small size: some dtypes have no fast one
on some machines."""
CACHE_FOOTPRINTS = (1 / 1024, 1 / 64, 1 / 8, 1 / 3)
"""Shares of the last cache's size; the best of them is the rate of data in a cache."""
ALLOWANCE = Allowance(wanted=0.2, most=20.0)


@dataclass(frozen=True)
class Peaks:
    """What a machine reached: ``memory`` in bytes a second by kind (copy, read, write, cache),
    ``matmul`` in flops a second by dtype, ``floor`` in seconds by way of launching."""

    device: str
    memory: Mapping[str, float]
    matmul: Mapping[str, float]
    floor: Mapping[str, float] = field(default_factory=dict)

    def bandwidth(self, cold: bool) -> float:
        """The best rate for data that is, or is not, in memory alone."""
        kinds = ("copy", "read", "write") if cold else ("copy", "read", "write", "cache")
        return max(self.memory[kind] for kind in kinds)

    def or_better(self, other: Peaks) -> Peaks:
        """The best of two measurements."""
        memory, matmul = (
            {kind: max(rate, theirs.get(kind, 0.0)) for kind, rate in own.items()}
            for own, theirs in ((self.memory, other.memory), (self.matmul, other.matmul))
        )
        return Peaks(self.device, memory, matmul, self.floor)

    def flops(self, dtype: str) -> float:
        """The best rate of a matrix product that a kernel on this dtype may use."""
        rates = [self.matmul[d] for d in (dtype, *WIDER.get(dtype, ())) if d in self.matmul]
        return max(rates, default=max(self.matmul.values()))

    def limit(self, cost: Cost, dtype: str, cold: bool) -> Limit:
        """The least time that the work can take, and what sets it."""
        by_memory = cost.bytes / self.bandwidth(cold)
        by_compute = cost.flops / self.flops(dtype)
        bound = "memory" if by_memory >= by_compute else "compute"
        return Limit(max(by_memory, by_compute), bound)


@dataclass(frozen=True)
class Limit:
    """The least time of a workload on a machine, and whether memory or compute sets it."""

    seconds: float
    bound: str

    def broken_by(self, seconds: float) -> bool:
        """Whether a time is too short to be true."""
        return seconds < (1 - SLACK) * self.seconds


def measure(machine: Machine, floor: Mapping[str, float] | None = None) -> Peaks:
    """Measure the limits of a machine with the clock that times the kernels."""
    device = machine.name
    memory = memory_rates(machine, LARGE[device] // 4)
    for share in CACHE_FOOTPRINTS:
        elements = max(int(machine.cache_bytes * share) // 8, 256)  # source and target
        memory["cache"] = max(memory.get("cache", 0.0), copy_rate(machine, elements))
    matmul = {name: best_matmul_rate(machine, name) for name in DTYPES}
    return Peaks(device, memory, matmul, dict(floor or {}))


DTYPES = ("float32", "float16", "bfloat16")


def memory_rates(machine: Machine, elements: int) -> dict[str, float]:
    """Bytes a second of an element-wise copy, a sum and a fill of so many float32."""
    source = torch.randn(elements, device=machine.name)
    target = torch.empty_like(source)
    size = 4 * elements
    runs: dict[str, tuple[Callable[[], Any], int]] = {
        "copy": (lambda: torch.neg(source, out=target), 2 * size),
        "read": (lambda: source.sum(), size),
        "write": (lambda: target.fill_(1.0), size),
    }
    return {kind: moved / seconds(machine, call, moved) for kind, (call, moved) in runs.items()}


def copy_rate(machine: Machine, elements: int) -> float:
    """Bytes a second of an element-wise copy of so many float32, again and again."""
    source = torch.randn(elements, device=machine.name)
    target = torch.empty_like(source)
    moved = 8 * elements
    return moved / seconds(machine, lambda: torch.neg(source, out=target), moved)


def best_matmul_rate(machine: Machine, dtype: str) -> float:
    """The better of a small and a large product, the large one only where it is no wait."""
    small, size = matmul_rate(machine, dtype, MATRIX_SMALL), MATRIX[machine.name]
    if 2 * size**3 / small > SLOW:
        return small
    return max(small, matmul_rate(machine, dtype, size))


def matmul_rate(machine: Machine, dtype: str, size: int) -> float:
    """Flops a second of a square product. Float32 means IEEE float32: TF32 stays off."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        kind = getattr(torch, dtype)
        a, b = (torch.randn(size, size, device=machine.name).to(kind) for _ in range(2))
        out = torch.empty_like(a)
        moved = 3 * a.numel() * a.element_size()
        return 2 * size**3 / seconds(machine, lambda: torch.mm(a, b, out=out), moved)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def seconds(machine: Machine, call: Callable[[], Any], moved: int) -> float:
    """The best of the samples of a call: a limit is what was reached, not what is usual."""
    audited = time_rotation(Rotation([call], bytes=moved), machine, ALLOWANCE)
    return min(audited.timing.samples)
