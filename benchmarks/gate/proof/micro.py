"""CPU kernels that the gate is tried on: compiled ones (micro.cpp), whose build can be slowed down,
and torch's, of which head makes some calls twice."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import random
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.clock import Call
from benchmarks.timing.cpu import Cpu

if TYPE_CHECKING:
    from torch import Tensor

SOURCE = Path(__file__).with_name("micro.cpp")
KERNELS = (
    "axpy", "polynomial", "dot", "scan", "exponential", "root", "gather", "histogram", "strided",
    "branches",
)  # fmt: skip
SIZES = (16_384, 32_768, 65_536, 131_072)
TORCH = (
    "softmax", "layer_norm", "matmul", "sort", "cumsum", "silu", "mean", "topk", "exp", "transpose",
)  # fmt: skip
COPIES = 256
"""Calls of a rotation: a sample takes each at most once."""
SUBJECT = "benchmarks.gate.proof.micro:Micro"
CANARY = "micro/polynomial 16384"


def benches() -> list[str]:
    """Names, as of kernels: `micro/axpy 16384`, `torch/softmax cpu`."""
    return [f"micro/{k} {n}" for k in KERNELS for n in SIZES] + [f"torch/{k} cpu" for k in TORCH]


def lacking() -> str | None:
    """What this machine lacks for it."""
    compiler = os.environ.get("CXX", "c++").split()[0]
    return None if shutil.which(compiler) else f"there is no compiler {compiler}"


def libraries(folder: Path, slowdown: float, padded: bool) -> dict[str, str]:
    """Builds of the micro-kernels: base, head and a slower head."""
    padding = ["-DPADDING"] if padded else []
    flags = {"base": [], "head": padding, "slow": [f"-DEXTRA={round(1000 * slowdown)}", *padding]}
    return {name: str(_compiled(folder / f"{name}.so", more)) for name, more in flags.items()}


def _compiled(out: Path, flags: Sequence[str]) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    compiler = os.environ.get("CXX", "c++").split()
    options = ("-O2", "-std=c++17", "-shared", "-fPIC", "-fvisibility=hidden", "-fno-math-errno")
    # Without it the padding moves loops across cache lines, which is a true change: `strided` is
    # then 3.3 % slower.
    aligned = "-falign-loops=64"
    subprocess.run([*compiler, *options, aligned, *flags, "-o", out, SOURCE], check=True)
    return out


class Micro:
    """Both builds, loaded in an order that chance decides. ``plan`` has ``libraries`` (base, head,
    slow: paths), ``slowed`` (names of the benchmarks that head is slower in) and ``slowdown``."""

    def __init__(self, plan: Mapping[str, Any], chance: random.Random) -> None:
        self.machine = Cpu()
        self.device = platform.node()
        names = list(plan["libraries"])
        chance.shuffle(names)
        self._libraries = {name: ctypes.CDLL(plan["libraries"][name]) for name in names}
        self._slowed, self._slowdown = set(plan["slowed"]), float(plan["slowdown"])
        rng = np.random.default_rng(1)
        self._x = rng.standard_normal(max(SIZES), np.float32)
        self._y = np.zeros(max(SIZES), np.float32)

    def open(self, bench: str) -> Mapping[str, Sequence[Call]]:
        kind, _, rest = bench.partition("/")
        name, _, size = rest.partition(" ")
        slow = bench in self._slowed
        if kind == "torch":
            call = torch_call(name)
            sides = {"base": call, "head": call}
            if slow:  # base counts its calls too: that takes 1 µs, 2 % of some of them
                sides = {"base": often(call, 0.0), "head": often(call, self._slowdown)}
            return {side: [made] * COPIES for side, made in sides.items()}
        libraries = {"base": "base", "head": "slow" if slow else "head"}
        return {s: [self._compiled(lib, name, int(size))] * COPIES for s, lib in libraries.items()}

    def _compiled(self, library: str, name: str, size: int) -> Call:
        function = getattr(self._libraries[library], name)
        pointers = (array.ctypes.data_as(ctypes.c_void_p) for array in (self._x, self._y))
        arguments = (*pointers, ctypes.c_long(size))
        return lambda: function(*arguments)


def torch_call(name: str) -> Call:
    """A call of one of torch's own CPU kernels."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(1)
    return torch_kernel(name, torch.randn(64, 512), torch.randn(96, 96))


def torch_kernel(name: str, x: Tensor, square: Tensor) -> Call:
    """One of TORCH on x [R,C], or on a square matrix."""
    import torch

    functions: dict[str, Callable[[], Any]] = {
        "softmax": lambda: torch.softmax(x, -1),
        "layer_norm": lambda: torch.nn.functional.layer_norm(x, x.shape[-1:]),
        "matmul": lambda: square @ square,
        "sort": lambda: torch.sort(x[:8]),
        "cumsum": lambda: torch.cumsum(x, -1),
        "silu": lambda: torch.nn.functional.silu(x),
        "mean": lambda: x.mean(0),
        "topk": lambda: torch.topk(x[:8], 16),
        "exp": lambda: torch.exp(x),
        "transpose": lambda: x.t().contiguous(),
    }
    return functions[name]


def often(call: Call, slowdown: float) -> Call:
    """A call that is slower by so much on the average of many."""
    made = 0

    def owed(calls: int) -> int:
        return math.floor(calls * slowdown + 1e-9)

    def slower() -> Any:
        nonlocal made
        before = owed(made)
        made += 1
        if owed(made) > before:
            call()
        return call()

    return slower
