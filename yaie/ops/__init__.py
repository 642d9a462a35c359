"""The table of contents: every op, in reading order. One page each."""

from __future__ import annotations

from collections.abc import Mapping

from yaie.dispatch import nearest
from yaie.op import Op
from yaie.ops.append_kv import append_kv
from yaie.ops.copy_blocks import copy_blocks
from yaie.ops.paged_attention import paged_attention

OPS: Mapping[str, Op] = {op.name: op for op in (append_kv, copy_blocks, paged_attention)}


def get(name: str) -> Op:
    """The op of that name; ValueError with the nearest names when there is none."""
    if name not in OPS:
        raise ValueError(f"no op {name!r}{nearest(name, list(OPS))}")
    return OPS[name]


def kernel_names() -> dict[str, list[str]]:
    """The names of the registered kernels of each op."""
    return {name: list(op.kernels) for name, op in OPS.items()}


__all__ = ["OPS", "append_kv", "copy_blocks", "get", "kernel_names", "paged_attention"]
