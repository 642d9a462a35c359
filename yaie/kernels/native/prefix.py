"""The kernels that look for shared prefixes."""

from __future__ import annotations

from torch import Tensor

from .face import Launcher
from .variant import Variant, ints


def _common_prefix_len(
    launch: Launcher, a: Tensor, a_indptr: Tensor, b: Tensor, b_indptr: Tensor, page: int
) -> Tensor:
    length = ints(a, a_indptr.numel() - 1)
    launch(length, a, a_indptr, b, b_indptr, page)
    return length


def _match_tree(launch: Launcher, page: int, **packed: Tensor) -> tuple[Tensor, Tensor]:
    queries = packed["q_indptr"].numel() - 1
    matched, node = (ints(packed["query"], queries) for _ in range(2))
    launch(matched, node, *packed.values(), page)
    return matched, node


VARIANTS = (
    Variant("common_prefix_len", "naive", _common_prefix_len),
    Variant("common_prefix_len", "block", _common_prefix_len, preference=10),
    Variant("match_tree", "naive", _match_tree),
    Variant("match_tree", "warp", _match_tree, preference=10),
)
