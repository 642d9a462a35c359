"""Where a RadixTree contradicts itself: what must hold of every node and of the eviction queue.

Said on its own, without the code that keeps it true: what a node counts is counted again here.
"""

from __future__ import annotations

from collections.abc import Collection

from yaie.cache.integers import WORD
from yaie.cache.radix_node import Bud, RadixTreeNode, children


def check_nodes(root: RadixTreeNode, page: int) -> dict[RadixTreeNode, bytes]:
    """All nodes with their paths, buds as nodes. ``page`` is the page size, in bytes.

    Errors: AssertionError for a node that contradicts its neighbours or itself.
    """
    paths = {root: b""}
    todo = [root]
    while todo:
        node = todo.pop()
        path, below = paths[node], list(children(node))
        for key, child in zip(node.children, below, strict=True):
            _require(child.parent is node, child, "has another parent")
            _require(key == child.edge[:WORD] != b"", child, "hangs under another first token")
            paths[child] = path + child.edge
        _require(node.start + len(node.edge) == len(path), node, "starts elsewhere")
        _check_pages(node, below, page)
        _check_counts(node, below)
        todo += below
    return paths


def check_queue(
    buds: Collection[Bud],
    stems: Collection[RadixTreeNode],
    strays: Collection[tuple[int, RadixTreeNode]],
    nodes: Collection[RadixTreeNode],
) -> None:
    """The eviction queue, in its two parts, against all ``nodes`` of the tree.

    Errors: AssertionError for what comes up too late, never, twice, or is gone.
    """
    times = [last_use for *_, last_use in buds]
    assert times == sorted(times), "the queue is not in order"
    places = [
        (stem, bud[0])
        for bud, stem in zip(buds, stems, strict=True)
        if stem.children.get(bud[0]) is bud  # else it is a node by now, or gone
    ]
    assert len(places) == len(set(places)), "a bud is queued twice"
    queued = {node for _, node in strays}
    assert len(strays) == len(queued), "a node is queued twice"
    for last_use, node in strays:
        _require(node in nodes, node, "is queued but gone")
        _require(last_use == node.queued <= node.last_use, node, "is queued too late")
    for node in nodes:
        may_go = bool(node.page_bytes) and not node.below and not node.chain_locks
        waits = node in queued or (node.parent, node.edge[:WORD]) in places
        _require(not node.queued or waits, node, "is not in the queue")
        _require(not may_go or bool(node.queued), node, "cannot be evicted")


def _check_pages(node: RadixTreeNode, below: list[RadixTreeNode], page: int) -> None:
    before = node.start // page
    room = (node.end // page - before) * WORD
    _require(len(node.page_bytes) <= room, node, "has more pages than page ends")
    if len(node.page_bytes) < room:
        _require(node.below == 0, node, "lacks a page that one below needs")
    if node.page_bytes and not node.children and not node.request_count:
        end = (before + len(node.page_bytes) // WORD) * page
        _require(end == node.end, node, "has tokens that nobody needs")
    used = [c.last_use for c in below if c.page_bytes]
    if node.page_bytes:
        _require(node.last_use >= max(used, default=0), node, "was used before its extension")


def _check_counts(node: RadixTreeNode, below: list[RadixTreeNode]) -> None:
    paged = sum(bool(c.page_bytes or c.below) for c in below)
    _require(node.below == paged, node, f"has pages below {paged} children, not {node.below}")
    ending = len(node.request_ids or ())
    requests = ending + sum(c.request_count for c in below)
    _require(node.request_count == requests, node, f"serves {requests} requests")
    if node.parent is not None:
        locks = node.locks + sum(c.chain_locks for c in below)
        _require(node.chain_locks == locks, node, f"should have {locks} locks")
        _require(not node.locks or bool(node.page_bytes), node, "is locked without a page")
        needed = bool(node.children or node.page_bytes or node.request_count)
        _require(needed, node, "is needed by nobody")


def _require(holds: bool, node: RadixTreeNode, otherwise: str) -> None:
    assert holds, f"{node!r} {otherwise}"
