"""What each kernel of a ladder takes on a GPU: `python -m benchmarks.ladder [--op GLOB]`.

Device time of one call, by CUDA events around replays of a CUDA graph that holds many calls, so
that neither Python nor launch latency is in it. Each call of the graph has arguments of its own,
together more than twice the L2 cache, so none finds its data there. Every kernel is judged on the
op's small cases first; one that fails has no time. Bytes are those of the op's cost; the ceiling is
a copy measured in the same run.
"""

from __future__ import annotations

import argparse
import fnmatch
import statistics
from collections.abc import Callable
from typing import Any

import torch

from yaie import dispatch, ops
from yaie.arena import Arena, Placement
from yaie.check import Judge
from yaie.engine.graphs import recording
from yaie.fill import Fill
from yaie.op import Kernel, Op

REPLAYS = 20
COPIES_AT_MOST = 64
WARM_UP_COPIES = 1000  # about a second
ARENA_BYTES = 8 << 30  # address space; pages take memory once they are touched


def device_seconds(calls: list[Callable[[], Any]]) -> float:
    """Median device time of one of the calls, over replays of a graph that holds them all."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        calls[0]()  # loads the kernel, sets its attributes
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with recording(graph, stream=stream):
        kept = [call() for call in calls]
    times = []
    for _ in range(REPLAYS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3 / len(calls))
    del kept
    return statistics.median(times[2:])


def argument_sets(op: Op, case: Any) -> list[dict[str, Any]]:
    """Copies of a case's arguments on the GPU, enough to outgrow its L2 cache twice."""
    arena = Arena(ARENA_BYTES)
    args, options = op.inputs(case, Fill(arena, case.seed))
    l2 = torch.cuda.get_device_properties(0).L2_cache_size
    count = min(COPIES_AT_MOST, 1 + 2 * l2 // max(op.cost(case).bytes, 1))
    host = arena.base[: arena.top]
    sets = []
    for _ in range(count):
        base = host.to("cuda")
        moved = {name: _moved(value, arena, base) for name, value in args.items()}
        sets.append({**moved, **options})
    return sets


def _moved(value: Any, arena: Arena, base: torch.Tensor) -> Any:
    """An argument, and where it lies in a copy of the arena."""
    if isinstance(value, list):
        return [_moved(v, arena, base) for v in value]
    return value if value is None else Placement.of(value, arena.base).view(base)


def copy_ceiling() -> float:
    """Bytes a second of a large element-wise kernel, reads and writes counted, once the clocks have
    risen. (A plain copy in a graph may go to a copy engine, which is slower.)"""
    source = torch.randn(1 << 29, device="cuda")
    target = torch.empty_like(source)
    for _ in range(WARM_UP_COPIES):
        torch.neg(source, out=target)
    seconds = device_seconds([lambda: torch.neg(source, out=target)] * 3)
    return 2 * source.numel() * source.element_size() / seconds


def time_kernel(kernel: Kernel, sets: list[dict[str, Any]]) -> float:
    """Median device time of one call of a kernel."""
    return device_seconds([lambda given=given: kernel.run(**given) for given in sets])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--op", default="*", metavar="GLOB", help="ops to time (default: all)")
    args = parser.parse_args()
    ceiling = copy_ceiling()
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}: copy {ceiling / 1e12:.2f} TB/s"
    )
    print("| op | workload | kernel | µs | TB/s | of the copy |")
    print("|---|---|---|---:|---:|---:|")
    with Judge() as judge:
        for op in ops.OPS.values():
            if fnmatch.fnmatchcase(op.name, args.op):
                time_op(judge, op, ceiling)


def time_op(judge: Judge, op: Op, ceiling: float) -> None:
    """Print the rows of one op."""
    chosen = [k for k in op.kernels.values() if k.device == "cuda"]
    for kernel in chosen:
        verdict = judge.judge(op, kernel, op.good)
        if not verdict.ok:
            raise SystemExit(f"{op.name} {kernel.name}: {verdict.reason}")
    for name, case in op.workloads.items():
        sets = argument_sets(op, case)
        for kernel in chosen:
            with dispatch.checked(False):
                if kernel.declines(op.bind(**sets[0])) is not None:
                    continue
                seconds = time_kernel(kernel, sets)
            rate = op.cost(case).bytes / seconds
            print(
                f"| {op.name} | {name} | {kernel.name} | {seconds * 1e6:.1f} | {rate / 1e12:.2f} "
                f"| {rate / ceiling:.0%} |"
            )


if __name__ == "__main__":
    main()
