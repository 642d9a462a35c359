"""A prefix cache in plain Python, to measure yaie.cache.RadixTree against.

The algorithm is the one that SGLang publishes (radix_cache.py, read on 2026-11-22): a key is a list
of tokens, compared token by token (page by page for pages of more than one) in a Python loop;
children hang in a dictionary by their first page; matching and inserting cut the matched part off
the key and split nodes; evicting builds a heap of the unlocked leaves. Two things differ, so that
both trees mean the same: the last leaf is cut and not dropped whole, and time is a count of calls.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator


class PlainNode:
    def __init__(self, parent: PlainNode | None, key: list[int], pages: list[int]) -> None:
        self.parent = parent
        self.key = key
        self.pages = pages
        self.children: dict[Hashable, PlainNode] = {}
        self.locks = 0
        self.last_use = 0

    def __lt__(self, other: PlainNode) -> bool:
        return self.last_use < other.last_use


class PlainRadixTree:
    def __init__(self, page_size: int = 1) -> None:
        self.page_size = page_size
        self.root = PlainNode(None, [], [])
        self.leaves: set[PlainNode] = set()  # unlocked, in no particular order
        self.clock = 0

    def match(self, tokens: list[int]) -> tuple[list[int], PlainNode]:
        self.clock += 1
        key = tokens[: len(tokens) // self.page_size * self.page_size]
        node, pages = self.root, []
        while key and (child := node.children.get(self._child_key(key))):
            shared = self._shared(child.key, key)
            if shared < len(child.key):
                child = self._split(child, shared)
            child.last_use = self.clock
            pages.extend(child.pages)
            node, key = child, key[shared:]
        return pages, node

    def insert(self, tokens: list[int], pages: list[int]) -> int:
        self.clock += 1
        key = tokens[: len(tokens) // self.page_size * self.page_size]
        pages = pages[: len(key) // self.page_size]
        node, cached = self.root, 0
        while key and (child := node.children.get(self._child_key(key))):
            shared = self._shared(child.key, key)
            if shared < len(child.key):
                child = self._split(child, shared)
            child.last_use = self.clock
            node, key, cached = child, key[shared:], cached + shared
            pages = pages[shared // self.page_size :]
        if key:
            leaf = PlainNode(node, key, pages)
            leaf.last_use = self.clock
            node.children[self._child_key(key)] = leaf
            self._update_leaf(node)
            self._update_leaf(leaf)
        return cached

    def lock(self, node: PlainNode) -> None:
        for n in self._chain(node):
            n.locks += 1
            self._update_leaf(n)

    def unlock(self, node: PlainNode) -> None:
        for n in self._chain(node):
            n.locks -= 1
            self._update_leaf(n)

    def evict(self, n_pages: int) -> list[int]:
        heap = [(node.last_use, node) for node in self.leaves]
        heapq.heapify(heap)
        gone: list[int] = []
        while heap and len(gone) < n_pages:
            _, node = heapq.heappop(heap)
            wanted = n_pages - len(gone)
            gone.extend(node.pages[: -wanted - 1 : -1])
            if wanted < len(node.pages):
                node.pages = node.pages[:-wanted]
                node.key = node.key[: len(node.pages) * self.page_size]
                break
            parent = node.parent
            assert parent is not None
            del parent.children[self._child_key(node.key)]
            self.leaves.discard(node)
            self._update_leaf(parent)
            if parent in self.leaves:
                heapq.heappush(heap, (parent.last_use, parent))
        return gone

    def _shared(self, a: list[int], b: list[int]) -> int:
        if self.page_size == 1:
            i = 0
            for x, y in zip(a, b):  # noqa: B905 - to the end of the shorter one
                if x != y:
                    break
                i += 1
            return i
        i, end = 0, min(len(a), len(b))
        while i < end and a[i : i + self.page_size] == b[i : i + self.page_size]:
            i += self.page_size
        return i

    def _child_key(self, key: list[int]) -> Hashable:
        return key[0] if self.page_size == 1 else tuple(key[: self.page_size])

    def _split(self, node: PlainNode, at: int) -> PlainNode:
        pages = at // self.page_size
        upper = PlainNode(node.parent, node.key[:at], node.pages[:pages])
        upper.locks, upper.last_use = node.locks, node.last_use
        assert node.parent is not None
        node.parent.children[self._child_key(node.key)] = upper
        node.parent, node.key, node.pages = upper, node.key[at:], node.pages[pages:]
        upper.children = {self._child_key(node.key): node}
        return upper

    def _update_leaf(self, node: PlainNode) -> None:
        if node.children or node.locks or node.parent is None:
            self.leaves.discard(node)
        else:
            self.leaves.add(node)

    def _chain(self, node: PlainNode) -> Iterator[PlainNode]:
        while node.parent is not None:
            yield node
            node = node.parent
