"""What the gate times on a GPU: the kernels of both builds on the workloads of the bench."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.clock import Call
from benchmarks.gate.processes import sides
from benchmarks.gate.processes.bursts import Declined
from benchmarks.timing import serving
from benchmarks.timing.inputs import Inputs
from yaie import ops

MOST_WORKLOADS = 6
"""Of an op, in their order: each is a benchmark of every changed variant."""
MEMORY_SHARE = 0.5


def benches(variants: Sequence[str]) -> list[str]:
    """Names of the benchmarks of these variants: `op/variant workload`."""
    found: dict[str, int] = {}
    names = []
    for workload in serving.load():
        found[workload.op] = found.get(workload.op, 0) + 1
        if found[workload.op] <= MOST_WORKLOADS and not workload.large:
            own = [v for v in variants if v.partition("/")[0] == workload.op]
            names += [f"{variant} {workload.name}" for variant in own]
    return names


class GpuSubject:
    """Both builds, loaded in an order that chance decides."""

    def __init__(self, plan: Mapping[str, Any], chance: random.Random) -> None:
        import torch

        from benchmarks.timing.gpu import Gpu

        self.machine = Gpu()
        self.device = self.machine.device
        self._memory = int(MEMORY_SHARE * torch.cuda.mem_get_info()[0])
        wanted = sides.from_json(plan["builds"])
        base, head = sides.load_both(*wanted, head_first=chance.random() < 0.5)
        self._sides = {"base": base, "head": head}
        self._workloads = {(w.op, w.name): w for w in serving.load()}
        self._inputs: tuple[tuple[str, str], Inputs] | None = None

    def open(self, bench: str) -> Mapping[str, Sequence[Call]]:
        """The calls of both sides on one set of copies; Declined where one side does."""
        variant, _, name = bench.partition(" ")
        op = ops.get(variant.partition("/")[0])
        key = (op.name, name)
        if self._inputs is None or self._inputs[0] != key:
            self._inputs = None  # the memory of the last one goes first
            case = self._workloads[key].case
            made = Inputs(op, case, "cuda", self.machine.cache_bytes, self._memory)
            self._inputs = (key, made)
        inputs = self._inputs[1]
        calls = {}
        for side, loaded in self._sides.items():
            kernel = loaded.kernels.get(variant)
            if kernel is None:
                raise Declined(f"{side} has no kernel {variant} for this GPU")
            reason = kernel.declines(inputs.call)
            if reason is not None:
                raise Declined(f"{variant} of {side} declines {name}: {reason}")
            calls[side] = inputs.rotation(kernel).calls
        return calls
