"""How many blocks of each kernel an SM holds, and what allows no more, on a machine with a GPU:

    python -m benchmarks.timing.occupancy [--op GLOB] [--kernel GLOB] [--json FILE]

Every kernel is launched once on each light workload of its op, under CUPTI (through torch's
profiler), which sees registers, shared memory and threads of each launch. `nox -s compile` tables
the registers of all architectures without a GPU; what a launch asks for beside is only seen here.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.compile_table import short_name
from benchmarks.timing import serving
from benchmarks.timing.inputs import Inputs
from yaie import kernels, ops
from yaie.op import Kernel

WARP = 32
REGISTERS_AT_ONCE = 256
"""A warp takes registers in such pieces."""
PARTS = 4
"""Of an SM; a warp's registers lie in one of them."""
BLOCKS_MOST = 32
"""Of an SM of compute capability 8.0, 9.0 and 10.0."""
SHARED_RESERVED = 1024
"""Bytes of shared memory that the system takes of every block."""


@dataclass(frozen=True)
class Sm:
    """What a streaming multiprocessor has: registers, bytes of shared memory, threads."""

    registers: int
    shared: int
    threads: int


@dataclass(frozen=True)
class Launch:
    """What a launch takes: registers of a thread, bytes of shared memory and threads of a block."""

    kernel: str
    registers: int
    shared: int
    threads: int

    def blocks(self, sm: Sm) -> tuple[int, str]:
        """How many of its blocks an SM holds, and what allows no more."""
        warps = -(-self.threads // WARP)
        a_warp = -(-self.registers * WARP // REGISTERS_AT_ONCE) * REGISTERS_AT_ONCE
        with_registers = sm.registers // PARTS // max(a_warp, 1) * PARTS
        limits = {
            "threads": sm.threads // (warps * WARP),
            "registers": with_registers // warps,
            "shared memory": sm.shared // (self.shared + SHARED_RESERVED),
            "blocks": BLOCKS_MOST,
        }
        least = min(limits, key=lambda name: limits[name])
        return limits[least], least

    def occupancy(self, sm: Sm) -> float:
        """Warps on an SM, as a share of those that it could hold."""
        return self.blocks(sm)[0] * -(-self.threads // WARP) * WARP / sm.threads


def launches(trace: Mapping[str, Any]) -> Iterator[Launch]:
    """The launches in a trace of torch's profiler."""
    for event in trace["traceEvents"]:
        if event.get("cat") == "kernel":
            x, y, z = event["args"]["block"]
            yield Launch(
                kernel=short_name(event["name"]),
                registers=int(event["args"]["registers per thread"]),
                shared=int(event["args"]["shared memory"]),
                threads=int(x) * int(y) * int(z),
            )


def seen(kernel: Kernel, cases: Iterable[Any]) -> dict[str, Launch]:
    """What a kernel launches on these Cases, by name; of unlike launches of one, the one that
    takes the most shared memory."""
    from torch.profiler import ProfilerActivity, profile

    drawn = [Inputs(ops.get(kernel.op), case, "cuda", 0, 0) for case in cases]
    served = [inputs for inputs in drawn if kernel.declines(inputs.call) is None]
    calls = [inputs.rotation(kernel).calls[0] for inputs in served]
    for call in calls:
        call()  # loads
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for call in calls:
            call()
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        found = sorted(launches(json.loads(path.read_text())), key=lambda launch: launch.shared)
    return {launch.kernel: launch for launch in found}


def table(rows: Sequence[tuple[str, Launch]], sm: Sm) -> str:
    """The launches as a Markdown table."""
    lines = [
        "| kernel | function | registers | shared, bytes | threads | blocks an SM | occupancy |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for kernel, launch in rows:
        count, limit = launch.blocks(sm)
        lines.append(
            f"| {kernel} | `{launch.kernel}` | {launch.registers} | {launch.shared:,} "
            f"| {launch.threads} | {count} ({limit}) | {launch.occupancy(sm):.0%} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """0: there is a table; 3: there is no GPU."""
    cli = argparse.ArgumentParser(
        prog="python -m benchmarks.timing.occupancy", description=(__doc__ or "").partition("\n")[0]
    )
    cli.add_argument("--op", default="*", metavar="GLOB", help="ops (all)")
    cli.add_argument("--kernel", default="cuda.*", metavar="GLOB", help="kernels (cuda.*)")
    cli.add_argument("--json", type=Path, metavar="FILE", help="also write the launches here")
    args = cli.parse_args(argv)
    if not torch.cuda.is_available():
        print("what a launch takes is seen on a GPU, and there is none")
        return 3
    kernels.load()
    properties: Any = torch.cuda.get_device_properties(0)
    sm = Sm(
        properties.regs_per_multiprocessor,
        properties.shared_memory_per_multiprocessor,
        properties.max_threads_per_multi_processor,
    )
    light, rows = [w for w in serving.load() if serving.is_quick(w)], []
    for op in ops.OPS.values():
        cases = [w.case for w in light if w.op == op.name]
        for name in sorted(op.kernels):
            if fnmatch.fnmatchcase(op.name, args.op) and fnmatch.fnmatchcase(name, args.kernel):
                found = seen(op.kernels[name], cases)
                variant = name.removeprefix("cuda.")
                rows += [(f"{op.name}/{variant}", found[k]) for k in sorted(found)]
    print(f"{torch.cuda.get_device_name()}\n\n{table(rows, sm)}")
    if args.json:
        args.json.write_text(json.dumps([{"of": k, **asdict(launch)} for k, launch in rows]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
