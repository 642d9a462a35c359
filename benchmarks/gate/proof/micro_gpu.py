"""GPU kernels that the gate is tried on: compiled ones (micro.cu) and torch's. Where head is slower
it makes some calls twice: elements that a kernel computes twice are in a cache the second time, and
cost less than they should."""

from __future__ import annotations

import ctypes
import random
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.clock import Call
from benchmarks.gate.processes.bursts import SIDES
from benchmarks.gate.proof.micro import TORCH, often, torch_kernel

SOURCE = Path(__file__).with_name("micro.cu")
KERNELS = (
    "axpy", "fill", "copy", "gather", "reversed", "polynomial", "exponential", "division",
    "histogram", "shuffle",
)  # fmt: skip
BLOCKS = (132, 264, 528)
THREADS, ELEMENTS_A_THREAD = 256, 64
CALLS = 100
"""Of a kernel in a graph: one of them is 1 %."""
SUBJECT = "benchmarks.gate.proof.micro_gpu:MicroGpu"
CANARY = "micro/polynomial 264"


def benches() -> list[str]:
    """Names, as of kernels: `micro/axpy 132` (blocks), `torch/softmax cuda`."""
    return [f"micro/{k} {n}" for k in KERNELS for n in BLOCKS] + [f"torch/{k} cuda" for k in TORCH]


def libraries(folder: Path, slowdown: float, padded: bool) -> dict[str, str]:
    """Builds of the micro-kernels for the GPU of this machine: base and head."""
    flags = {"base": [], "head": ["-DPADDING"] if padded else []}
    return {name: str(_compiled(folder / f"{name}.cuda.so", more)) for name, more in flags.items()}


def _compiled(out: Path, flags: Sequence[str]) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    options = ("-O3", "-std=c++17", "-arch=native", "-shared")
    host = ("-Xcompiler=-fPIC", "-Xcompiler=-fvisibility=hidden")
    subprocess.run(["nvcc", *options, *host, *flags, "-o", out, SOURCE], check=True)
    return out


class MicroGpu:
    """Both builds, loaded in an order that chance decides; ``plan`` as in
    benchmarks.gate.proof.micro, but for a slow library."""

    def __init__(self, plan: Mapping[str, Any], chance: random.Random) -> None:
        import torch

        from benchmarks.timing.gpu import Gpu

        self.machine = Gpu()
        self.device = self.machine.device
        names = list(plan["libraries"])
        chance.shuffle(names)
        self._libraries = {name: ctypes.CDLL(plan["libraries"][name]) for name in names}
        self._slowed, self._slowdown = set(plan["slowed"]), float(plan["slowdown"])
        torch.manual_seed(1)
        self._x = torch.randn(max(BLOCKS) * THREADS * ELEMENTS_A_THREAD, device="cuda")
        self._y = torch.zeros_like(self._x)

    def open(self, bench: str) -> Mapping[str, Sequence[Call]]:
        kind, _, rest = bench.partition("/")
        name, _, blocks = rest.partition(" ")
        if kind == "torch":
            calls = dict.fromkeys(SIDES, torch_call(name))
        else:
            calls = {side: self._compiled(side, name, int(blocks)) for side in SIDES}
        if bench in self._slowed:
            calls["head"] = often(calls["head"], self._slowdown)
        return {side: [call] * CALLS for side, call in calls.items()}

    def _compiled(self, library: str, name: str, blocks: int) -> Call:
        import torch

        function = getattr(self._libraries[library], name)
        elements = ctypes.c_long(blocks * THREADS * ELEMENTS_A_THREAD)
        pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (self._x, self._y))
        arguments = (*pointers, elements, ctypes.c_int(blocks))

        def call() -> None:
            stream = torch.cuda.current_stream().cuda_stream
            if error := function(*arguments, ctypes.c_void_p(stream)):
                raise RuntimeError(f"{name} of {library}: CUDA error {error}")

        return call


def torch_call(name: str) -> Call:
    """A call of one of torch's own kernels, some microseconds long."""
    import torch

    torch.manual_seed(1)
    x = torch.randn(1024, 4096, device="cuda")
    return torch_kernel(name, x, torch.randn(1024, 1024, device="cuda", dtype=torch.bfloat16))


def lacking() -> str | None:
    """What this machine lacks for it."""
    import torch

    if not torch.cuda.is_available():
        return "there is no CUDA device"
    return None if shutil.which("nvcc") else "nvcc is not on the path"
