"""The request face of a RadixTree: which requests end where, and the graph of what they share.

Pages do not show here. A node is of interest as far as requests pass through it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from yaie.cache.integers import WORD, unpack
from yaie.cache.radix_node import RadixTreeNode


def requests_below(node: RadixTreeNode) -> Iterator[str]:
    """The requests that end at the node or below it."""
    todo = [node]
    while todo:
        node = todo.pop()
        yield from node.request_ids or ()
        todo.extend(_with_requests(node))


def count_request(node: RadixTreeNode, by: int) -> None:
    """Tell a node and all above it of a request that came or went."""
    up: RadixTreeNode | None = node
    while up is not None:
        up.request_count += by
        up = up.parent


def computation_graph(root: RadixTreeNode, prompts: Collection[bytes]) -> dict[str, Any]:
    """``RadixTree.get_shared_computation_graph`` for the tree below ``root``, in which the requests
    have these ``prompts``."""
    runs = list(_request_runs(root))
    passing = [set(end.request_ids or ()) for _, _, end in runs]
    for i in range(len(runs) - 1, 0, -1):  # children come after their parents
        passing[runs[i][0]] |= passing[i]
    nodes = [
        {
            "id": i,
            "parent": parent if i else None,
            "tokens": unpack(edge).tolist(),
            "requests": sorted(passing[i]),
        }
        for i, (parent, edge, _) in enumerate(runs)
    ]
    total = sum(map(len, prompts)) // WORD
    unique = sum(len(edge) for _, edge, _ in runs) // WORD
    return {
        "request_count": len(prompts),
        "node_count": len(nodes),
        "total_tokens": total,
        "unique_tokens": unique,
        "shared_tokens": total - unique,
        "nodes": nodes,
    }


def _request_runs(root: RadixTreeNode) -> Iterator[tuple[int, bytes, RadixTreeNode]]:
    """For every run of tokens that the same requests share: the number of its parent, its
    tokens and the node where it ends. Splits that only pages needed are joined again."""
    todo = [(0, root)]
    number = 0
    while todo:
        parent, node = todo.pop()
        edges = [node.edge]
        children = _with_requests(node)
        while len(children) == 1 and not node.request_ids and node is not root:
            node = children[0]
            edges.append(node.edge)
            children = _with_requests(node)
        yield parent, b"".join(edges), node
        children.sort(key=lambda c: int(c.tokens[0]), reverse=True)
        todo.extend((number, child) for child in children)
        number += 1


def _with_requests(node: RadixTreeNode) -> list[RadixTreeNode]:
    """The children that requests pass through; a bud serves none."""
    return [c for c in node.children.values() if not isinstance(c, tuple) and c.request_count]
