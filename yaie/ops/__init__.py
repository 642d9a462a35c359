"""The table of contents: every op, in reading order. One page each."""

from __future__ import annotations

from collections.abc import Mapping

from yaie.dispatch import nearest
from yaie.op import Op
from yaie.ops.append_kv import append_kv
from yaie.ops.block_pool import block_pool
from yaie.ops.common_prefix_len import common_prefix_len
from yaie.ops.copy_blocks import copy_blocks
from yaie.ops.draw_tokens import draw_tokens
from yaie.ops.filter_tokens import filter_tokens
from yaie.ops.gather_kv import gather_kv
from yaie.ops.gather_slots import gather_slots
from yaie.ops.greedy import greedy
from yaie.ops.match_tree import match_tree
from yaie.ops.merge_states import merge_states
from yaie.ops.merge_states_n import merge_states_n
from yaie.ops.paged_attention import paged_attention
from yaie.ops.penalize import penalize
from yaie.ops.radix_attention import radix_attention
from yaie.ops.radix_cache import radix_cache
from yaie.ops.rope import rope
from yaie.ops.rope_append_kv import rope_append_kv
from yaie.ops.sample import sample
from yaie.ops.varlen_attention import varlen_attention

OPS: Mapping[str, Op] = {
    op.name: op
    for op in (
        append_kv,
        copy_blocks,
        gather_kv,
        gather_slots,
        common_prefix_len,
        match_tree,
        rope,
        rope_append_kv,
        varlen_attention,
        paged_attention,
        merge_states,
        merge_states_n,
        radix_attention,
        penalize,
        filter_tokens,
        draw_tokens,
        sample,
        greedy,
        radix_cache,
        block_pool,
    )
}


def get(name: str) -> Op:
    """The op of that name; ValueError with the nearest names when there is none."""
    if name not in OPS:
        raise ValueError(f"no op {name!r}{nearest(name, list(OPS))}")
    return OPS[name]


def kernel_names() -> dict[str, list[str]]:
    """The names of the registered kernels of each op."""
    return {name: list(op.kernels) for name, op in OPS.items()}


__all__ = [
    "OPS",
    "append_kv",
    "block_pool",
    "common_prefix_len",
    "copy_blocks",
    "draw_tokens",
    "filter_tokens",
    "gather_kv",
    "gather_slots",
    "get",
    "greedy",
    "kernel_names",
    "match_tree",
    "merge_states",
    "merge_states_n",
    "paged_attention",
    "penalize",
    "radix_attention",
    "radix_cache",
    "rope",
    "rope_append_kv",
    "sample",
    "varlen_attention",
]
