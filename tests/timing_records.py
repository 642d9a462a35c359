"""Records of a benchmark run, made up: for tests of the page."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

PEAKS = {
    "kind": "peaks",
    "run": "b1",
    "device": "cuda",
    "memory": {"copy": 4.25e12, "read": 4.6e12, "write": 4.6e12, "cache": 6e12},
    "matmul": {"float32": 5e13, "float16": 7.5e14, "bfloat16": 7.8e14},
    "floor": {"graph": 1.2e-6, "stream": 5e-6},
}
NCU = {
    "dram_bytes_per_second": 2.5e12,
    "occupancy": 0.47,
    "stalls": {"long scoreboard": 7.1, "barrier": 0.6},
    "launches": [{"kernel": "vec", "seconds": 2.4e-6}],
}


def head(run: str = "b1", **changes: Any) -> dict[str, Any]:
    line = {
        "kind": "run",
        "schema": 1,
        "run": run,
        "started": "2026-11-22T10:00:00+00:00",
        "command": "python -m benchmarks",
        "profile": "benchmarks",
        "git": "abc123",
        "dirty": False,
        "builds": {"simt": None, "cuda": "b1"},
        "python": "3.12.3",
        "torch": "2.11.0+cu130",
        "platform": "Linux",
        "cpu": "a CPU",
        "gpu": "a GPU",
        "driver": "580",
    }
    return line | changes


def timing(seconds: float = 1e-5, **changes: Any) -> dict[str, Any]:
    """A timed row; ``seconds`` sets its samples too."""
    drawn = random.Random(f"{seconds}{sorted(changes)}")
    samples = sorted(seconds * (1 + 0.01 * drawn.gauss(0, 1)) for _ in range(40))
    samples[19] = samples[20] = seconds
    line = {
        "kind": "timing",
        "run": "b1",
        "op": "append_kv",
        "kernel": "cuda.vec",
        "workload": "llama3-8b decode, batch 256",
        "role": "kernel",
        "device": "cuda",
        "case": "append_kv.Case(T=256)",
        "dtype": "bfloat16",
        "source": "the op's page",
        "weights": {},
        "status": "timed",
        "reason": "",
        "bytes": 2_098_176,
        "flops": 0,
        "judged": "pass",
        "used": 0.42,
        "judged_case": "append_kv.Case(T=64)",
        "audit": "the timed outputs are those of the reference",
        "limit": 2_098_176 / 4.6e12,
        "bound": "memory",
        "seconds": seconds,
        "best": min(samples),
        "mean": seconds,
        "p10": samples[4],
        "p90": samples[35],
        "spread": 0.004,
        "unsteady": False,
        "method": "events, CUDA graph",
        "cold": True,
        "copies": 64,
        "fresh": seconds,
        "conditions": {"sm_mhz": [1900, 1950, 1980], "throttle_bits": 0},
        "notes": {"calls_in_graph": 64, "ncu": NCU},
        "samples": samples,
        "command": "python -m benchmarks --op append_kv --kernel cuda.vec",
    }
    return line | changes


def untimed(status: str, reason: str = "why", **changes: Any) -> dict[str, Any]:
    line = timing(**changes)
    for name in ("seconds", "samples", "best", "mean", "spread", "method", "fresh", "audit"):
        line.pop(name)
    judged = {"declined": "unsupported", "wrong": "fail"}.get(status, "pass")
    return line | {"status": status, "reason": reason, "judged": judged} | changes


def write(folder: Path, *lines: Any, run: str = "b1", first: Any = None) -> Path:
    path = folder / run / "main.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    first = first or head(run)
    text = "".join(json.dumps({**line, "run": run}) + "\n" for line in (first, *lines))
    path.write_text(text, encoding="utf-8")
    return path


def a_whole_run(scale: float = 1.0) -> list[dict[str, Any]]:
    """Rows such as a GPU gives: three ops, ours and peers, some that failed."""
    lines: list[dict[str, Any]] = [PEAKS]
    table = {
        ("append_kv", "llama3-8b decode, batch 256", 2_098_176, 0): {
            "cuda.naive": 5.9e-6,
            "cuda.vec": 2.5e-6,
            "torch.eager": 9.1e-5,
        },
        ("append_kv", "llama3-8b prefill, 16384 tokens", 134_283_264, 0): {
            "cuda.naive": 1.908e-4,
            "cuda.vec": 4.23e-5,
            "torch.eager": 3.1e-4,
        },
        ("copy_blocks", "llama3-8b fork, 4096 pages", 536_870_912, 0): {
            "cuda.naive": 2.711e-4,
            "cuda.vec": 1.44e-4,
            "torch.eager": 2.3e-4,
        },
        ("paged_attention", "llama3-8b decode, batch 32, context 1k", 134_754_564, 536_870_912): {
            "cuda.naive": 7.27e-4,
            "cuda.split_kv": 1.662e-4,
            "torch.sdpa_flash": 1.21e-4,
            "flashinfer.decode": 4.4e-5,
        },
        ("paged_attention", "llama3-8b chunk of 512 after 1536", 16_843_276, 15_036_579_840): {
            "cuda.naive": 1.81e-2,
            "cuda.split_kv": 2.3367e-3,
            "torch.sdpa_flash": 7.9e-5,
        },
        ("paged_attention", "gemma2-9b decode, batch 8, context 2k", 134_353_476, 268_435_456): {
            "cuda.naive": 1.3126e-3,
            "cuda.split_kv": 2.52e-4,
        },
    }
    for (op, workload, moved, flops), kernels in table.items():
        by_memory, by_compute = moved / 4.6e12, flops / 7.8e14
        for kernel, seconds in kernels.items():
            peer = not kernel.startswith("cuda.")
            lines.append(
                timing(
                    seconds * scale,
                    op=op,
                    workload=workload,
                    kernel=kernel,
                    role="peer" if peer else "kernel",
                    bytes=moved,
                    flops=flops,
                    limit=max(by_memory, by_compute),
                    bound="memory" if by_memory > by_compute else "compute",
                    weights={"chat": 28800} if "batch 256" in workload else {},
                    spread=0.08 if "gemma2" in workload and "naive" in kernel else 0.004,
                    unsteady="gemma2" in workload and "naive" in kernel,
                )
            )
    lines += [
        untimed("declined", "SDPA has no softcap", op="paged_attention", kernel="torch.sdpa_flash",
                role="peer", workload="gemma2-9b decode, batch 8, context 2k"),
        untimed("wrong", "budget: out[0, 0, 0] is nan", op="paged_attention",
                kernel="torch.sdpa_cudnn", role="peer"),
        untimed("executor", "judged only", kernel="simt.vec", role="executor", device="cpu"),
    ]  # fmt: skip
    return lines
