"""RadixTree: which prefixes are cached, in which pages, and which requests share them.

One compressed tree of tokens with two faces. To the *cache* it is a set of page-prefixes: the first
S, 2S, 3S ... tokens of what was inserted, each with the page that holds its last S tokens, a count
of locks and the time of its last use. To the *requests* it is the set of their prompts, counted in
tokens whatever the page size. A node is a run of tokens; pages hang where a page ends, request ids
where a request ends.

What every method does is said in terms of the two sets; that a tree stands behind them must not
show. In particular a node that ``match`` returned names one page-prefix for good: it survives every
split, and dies when that page-prefix is evicted, even if the same tokens are inserted again later.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import Any

import numpy as np

from yaie.cache.integers import WORD, Integers, as_int32, count, pack, unpack
from yaie.cache.radix_integrity import check_nodes, check_queue
from yaie.cache.radix_node import (
    NO_CHILDREN,
    Bud,
    Pages,
    RadixTreeNode,
    children,
    node_of,
    pages_above,
)
from yaie.cache.radix_requests import computation_graph, count_request, requests_below

AT_ONCE = 1024 * WORD
"""So many bytes are compared, or copied, without asking whether fewer would do."""

TOGETHER = 32
"""So many runs of page ids are turned round by one call."""


class RadixTree:
    """A prefix cache with pages of ``page_size`` tokens, and an index of requests.

    Errors: what is bad raises at the call, before anything is changed: TypeError for the wrong
    kind, ValueError for the wrong value, KeyError for an unknown request.
    """

    def __init__(self, page_size: int = 1) -> None:
        self.page_size = count(page_size, "RadixTree: page_size")
        if not page_size:
            raise ValueError("RadixTree: page_size: 0 is less than 1")
        self._page = self.page_size * WORD
        self._root = RadixTreeNode(None, b"", 0)
        self._clock = 0
        self._present = 0
        self._protected = 0
        self._buds: deque[Bud] = deque()  # the eviction queue, see _offer
        self._stems: deque[RadixTreeNode] = deque()  # the parents of the buds in it
        self._strays: list[tuple[int, RadixTreeNode]] = []  # the nodes in it, a heap
        self._requests: dict[str, bytes] = {}

    @property
    def evictable(self) -> int:
        """How many pages are present and not locked."""
        return self._present - self._protected

    @property
    def protected(self) -> int:
        """How many pages are locked."""
        return self._protected

    # The cache face --------------------------------------------------------------------------

    def match(self, tokens: Integers) -> tuple[Pages, RadixTreeNode]:
        """The pages of the longest page-prefix of ``tokens`` that is present, and its node.

        Refreshes the last use of that prefix and of all that it extends. Who must compute at least
        one token passes ``tokens[:-1]``. The node of the empty prefix is the root.
        """
        data = pack(tokens, "RadixTree.match: tokens")
        self._clock = clock = self._clock + 1
        node, partly, shared = self._descend(data, len(data), clock)
        if partly is not None and partly.page_bytes:
            wanted = self._pages_between(partly.start, partly.start + shared)
            if wanted >= len(partly.page_bytes):
                node = partly
            elif wanted:
                node = self._split_at_page(partly, wanted)
            node.last_use = clock
        while not node.page_bytes and node.parent is not None:
            node = node.parent
        return unpack(bytearray().join(pages_above(node))), node

    def insert(self, tokens: Integers, pages: Integers) -> int:
        """Add the page-prefixes of ``tokens``, and say how many tokens were already there.

        ``pages[i]`` holds the i-th page of tokens; a last page that is not full is left out. The
        tree keeps its own pages for what was there: the caller frees its duplicates. Refreshes the
        last use of the whole chain.

        Errors: ValueError when ``pages`` are too few.
        """
        data = pack(tokens, "RadixTree.insert: tokens")
        page_ids = as_int32(pages, "RadixTree.insert: pages")
        needed = len(data) // self._page
        if len(page_ids) < needed:
            raise ValueError(
                f"RadixTree.insert: pages: {len(page_ids)} for {needed} pages of tokens"
            )
        stop = needed * self._page
        self._clock = clock = self._clock + 1
        node, at = self._root, 0
        while at < stop:  # the walk of _descend, which cuts: on this path every call would show
            first = data[at : at + WORD]
            child = node.children.get(first)
            if child is None:
                break
            if isinstance(child, tuple):
                child = self._open(child, node)
            edge = child.edge
            if data.startswith(edge, at, stop):
                at += len(edge)
            else:
                shared = _common(edge, data, at, stop)
                child, at = self._split(child, shared), at + shared
            child.last_use = clock
            node = child
        added = 0
        if node.request_count:  # only tokens of requests lack pages
            node, added = self._fill(node, page_ids)
        if at < stop:
            have = at // self._page
            bud = first, data[at:stop], page_ids[have:needed].tobytes(), clock
            if node.children is NO_CHILDREN:
                node.children = {}
            node.children[first] = bud
            self._buds.append(bud)  # nothing was used later
            self._stems.append(node)
            node.below += 1
            if node.below == 1 and not node.page_bytes:
                self._gained(node)
            added += needed - have
        elif added:
            self._offer(node)
        self._present += added
        return (needed - added) * self.page_size

    def lock(self, node: RadixTreeNode) -> None:
        """Protect the page-prefix of ``node``, and all that it extends, from eviction.

        Errors: ValueError for a node that is not in this tree (any more).
        """
        for n in self._chain(node, "lock"):
            if not n.chain_locks:
                self._protected += len(n.page_bytes) // WORD
            n.chain_locks += 1
        node.locks += bool(node.parent)

    def unlock(self, node: RadixTreeNode) -> None:
        """Take back one ``lock`` of the same page-prefix.

        Errors: ValueError for a node that is not in this tree (any more), or that is not locked.
        """
        chain = self._chain(node, "unlock")
        if chain and not node.locks:
            raise ValueError(f"RadixTree.unlock: node: {node!r} is not locked itself")
        for n in chain:
            n.chain_locks -= 1
            if not n.chain_locks:
                self._protected -= len(n.page_bytes) // WORD
        node.locks -= bool(chain)
        self._offer(node)

    def evict(self, n_pages: int) -> Pages:
        """Drop up to ``n_pages`` pages; return them in the order in which they went.

        Page by page the one goes that is not locked, that no present page-prefix extends, and that
        was used least recently. Fewer are dropped only when no more can be.
        """
        n = min(count(n_pages, "RadixTree.evict: n_pages"), self.evictable)
        wanted = n * WORD
        buds, stems, strays = self._buds, self._stems, self._strays
        dropped: list[bytes] = []
        while wanted:
            if strays and not (buds and buds[0][3] < strays[0][0]):
                queued, node = heapq.heappop(strays)
                node.queued = 0
                if queued != node.last_use:  # used since, or even extended: later, or not at all
                    self._offer(node)
                elif not node.chain_locks:
                    dropped.append(self._drop_tail(node, wanted))
                    wanted -= len(dropped[-1])
                continue
            bud, parent = buds.popleft(), stems.popleft()
            first, _, page_bytes, _ = bud
            if parent.children.get(first) is not bud:
                continue  # a node by now, and queued as such
            if len(page_bytes) > wanted or parent.below == 1:
                self._open(bud, parent)  # comes up next
                continue
            del parent.children[first]
            parent.below -= 1
            dropped.append(page_bytes)
            wanted -= len(page_bytes)
        self._present -= n
        return _backwards(dropped, n)

    def reset(self) -> Pages:
        """Drop every page; return them. Requests stay.

        Errors: ValueError while a page is locked.
        """
        if self._protected:
            raise ValueError(f"RadixTree.reset: {self._protected} pages are locked")
        return self.evict(self._present)

    # The request face ------------------------------------------------------------------------

    def insert_request(self, request_id: str, tokens: Integers) -> None:
        """Add a request. Again with the same tokens it changes nothing.

        Errors: ValueError for a known id with other tokens.
        """
        data = pack(tokens, "RadixTree.insert_request: tokens")
        if not isinstance(request_id, str):
            raise TypeError(f"RadixTree.insert_request: request_id: {request_id!r} is not a string")
        if self._requests.setdefault(request_id, data) != data:
            raise ValueError(
                f"RadixTree.insert_request: request_id: {request_id!r} is there with other tokens"
            )
        node, partly, shared = self._descend(data, len(data))
        if partly is not None:
            node = self._split(partly, shared)
        if node.end < len(data):
            node = RadixTreeNode(node, data[node.end :], node.end)
            self._hang(node)
        if node.request_ids is None:
            node.request_ids = set()
        if request_id not in node.request_ids:
            node.request_ids.add(request_id)
            count_request(node, 1)

    def find_shared_prefixes(self, tokens: Integers) -> tuple[list[str], int]:
        """The requests that share at least the first token, sorted, and the length in tokens of
        the longest prefix that any of them shares."""
        data = pack(tokens, "RadixTree.find_shared_prefixes: tokens")
        first = self._root.children.get(data[:WORD])
        if first is None or isinstance(first, tuple) or not first.request_count:
            return [], 0
        node: RadixTreeNode | None
        node, partly, shared = self._descend(data, len(data))
        if partly is not None and partly.request_count:
            length = partly.start + shared
        else:  # below the last request only pages matched
            while node is not None and not node.request_count:
                node = node.parent
            length = node.end if node is not None else 0
        return sorted(requests_below(first)), length // WORD

    def remove_request(self, request_id: str) -> None:
        """Forget a request. Its tokens stay where pages or other requests need them.

        Errors: KeyError for an unknown id.
        """
        if request_id not in self._requests:
            raise KeyError(f"RadixTree.remove_request: request_id: {request_id!r} is unknown")
        data = self._requests.pop(request_id)
        node, _, _ = self._descend(data, len(data))
        assert node.request_ids is not None
        node.request_ids.remove(request_id)
        count_request(node, -1)
        self._prune(node)

    def get_shared_computation_graph(self) -> dict[str, Any]:
        """The tree of the requests, for a reader or ``json.dumps``; pages do not show in it.

        ``nodes`` lists the root and then, parents first and siblings by their tokens, every run of
        tokens that the same requests share: id, parent (None for the root), tokens, and the sorted
        ids of the requests that pass through. ``total_tokens`` would be computed without sharing,
        ``unique_tokens`` with it; ``shared_tokens`` is the difference.
        """
        return computation_graph(self._root, self._requests.values())

    # Walking ---------------------------------------------------------------------------------

    def _descend(
        self, data: bytes, stop: int, clock: int = 0
    ) -> tuple[RadixTreeNode, RadixTreeNode | None, int]:
        """How far the tree knows ``data[:stop]``: the last node whose whole path matches, the child
        whose edge matches in part (None: no child does), and how many of its bytes do.

        ``clock`` becomes the last use of every node whose whole path matches; 0: none is used."""
        node, at = self._root, 0
        while at < stop:
            child = node.children.get(data[at : at + WORD])
            if child is None:
                break
            if isinstance(child, tuple):
                child = self._open(child, node)
            edge = child.edge
            if not data.startswith(edge, at, stop):
                return node, child, _common(edge, data, at, stop)
            if clock:
                child.last_use = clock
            node = child
            at += len(edge)
        return node, None, 0

    def _chain(self, node: RadixTreeNode, function: str) -> list[RadixTreeNode]:
        """The node and all above it, without the root."""
        if not isinstance(node, RadixTreeNode):
            raise TypeError(f"RadixTree.{function}: node: {node!r} is not a RadixTreeNode")
        chain, up = [], node
        while up.parent is not None:
            chain.append(up)
            up = up.parent
        if up is not self._root or (chain and not node.page_bytes):
            raise ValueError(f"RadixTree.{function}: node: unknown node {node!r}")
        return chain

    def _pages_between(self, start: int, end: int) -> int:
        """How many bytes of page ids belong to a run of tokens: one page for each end of a page."""
        return (end // self._page - start // self._page) * WORD

    # Changing the tree -----------------------------------------------------------------------

    def _split(self, node: RadixTreeNode, at: int) -> RadixTreeNode:
        """Cut an edge in two; returns the upper half. ``node`` itself becomes the half with the
        last page, which is the page-prefix that it names. Locks and last use go to both."""
        pages = self._pages_between(node.start, node.start + at)
        if node.page_bytes and pages >= len(node.page_bytes):
            self._split_below(node, at)
            return node
        upper = RadixTreeNode(node.parent, node.edge[:at], node.start)
        upper.page_bytes = node.page_bytes[:pages]
        upper.last_use = node.last_use
        upper.chain_locks = node.chain_locks
        upper.below = 1 if node.page_bytes or node.below else 0
        upper.request_count = node.request_count
        self._hang(upper)
        node.parent = upper
        node.edge = node.edge[at:]
        node.start += at
        node.page_bytes = node.page_bytes[pages:]
        self._hang(node)
        return upper

    def _split_below(self, node: RadixTreeNode, at: int) -> None:
        """Cut an edge behind its last page: a new node takes the tokens after the cut."""
        lower = RadixTreeNode(node, node.edge[at:], node.start + at)
        lower.last_use = node.last_use
        lower.chain_locks = node.chain_locks - node.locks
        self._move_below(node, lower)
        lower.request_ids, node.request_ids = node.request_ids, None
        node.children = NO_CHILDREN
        node.edge = node.edge[:at]
        node.below = 1 if lower.below else 0
        self._hang(lower)

    def _split_at_page(self, node: RadixTreeNode, pages: int) -> RadixTreeNode:
        """Cut an edge where its first ``pages`` (in bytes) pages end; returns the upper half."""
        return self._split(node, self._end_of_page(node, pages) - node.start)

    def _end_of_page(self, node: RadixTreeNode, pages: int) -> int:
        """Where the first ``pages`` pages of a node end in the path."""
        return (node.start // self._page + pages // WORD) * self._page

    def _move_below(self, node: RadixTreeNode, heir: RadixTreeNode) -> None:
        """Give what hangs below a node to another."""
        for child in node.children.values():
            (self._open(child, node) if isinstance(child, tuple) else child).parent = heir
        heir.children, heir.below = node.children, node.below
        heir.request_count = node.request_count

    def _open(self, bud: Bud, parent: RadixTreeNode) -> RadixTreeNode:
        """Put its node in the place of a bud."""
        node = node_of(bud, parent)
        heapq.heappush(self._strays, (node.queued, node))
        self._hang(node)
        return node

    def _hang(self, node: RadixTreeNode) -> None:
        """Make a node the child of its parent, in place of the one with the same first token."""
        assert node.parent is not None
        if node.parent.children is NO_CHILDREN:
            node.parent.children = {}
        node.parent.children[node.edge[:WORD]] = node

    def _fill(self, node: RadixTreeNode, page_ids: Pages) -> tuple[RadixTreeNode, int]:
        """Give the path of a node the pages that it lacks.

        Returns the node where the path ends from now on, for a run that had some of its pages is
        split behind them, and how many pages were lacking.
        """
        page, lacking, added = self._page, [], 0
        end = node
        while node.parent is not None:
            have = len(node.page_bytes)
            if have and not node.request_count:
                break  # only tokens of requests lack pages, and above a page none is lacking
            first = node.start // page + have // WORD
            last = (node.start + len(node.edge)) // page
            if first < last:
                run = node
                if have:
                    self._split_at_page(node, have)
                    (run,) = children(node)
                    end = run if node is end else end
                lacking.append((run, first, last))
            if have:
                break
            node = node.parent
        while lacking:
            run, first, last = lacking.pop()
            run.page_bytes = page_ids[first:last].tobytes()
            self._gained(run)
            added += last - first
        return end, added

    def _gained(self, node: RadixTreeNode) -> None:
        """The subtree of a node holds pages now: tell those above that did not know."""
        up = node.parent
        while up is not None:
            up.below += 1
            if up.page_bytes or up.below > 1:
                return
            up = up.parent

    def _lost(self, node: RadixTreeNode) -> None:
        """The subtree of a node holds no pages any more: tell those above."""
        up = node.parent
        while up is not None:
            up.below -= 1
            if up.page_bytes or up.below:
                self._offer(up)
                return
            up = up.parent

    def _offer(self, node: RadixTreeNode) -> None:
        """Queue a node for eviction if nothing extends its last page.

        The place in the queue is the last use. It tells queued nodes apart: every call refreshes
        one chain, on which one node at a time is a leaf. The queue has two parts: buds lie in
        order as they are added, nodes are in a heap.

        A queued node keeps its place when it is used again: it comes up too early then, which
        ``evict`` sees and mends. So a use costs nothing, and nothing comes up too late.
        """
        if node.page_bytes and not (node.below or node.queued):
            node.queued = node.last_use
            heapq.heappush(self._strays, (node.queued, node))

    def _drop_tail(self, node: RadixTreeNode, wanted: int) -> bytes:
        """Take up to ``wanted`` bytes of page ids off the end of a leaf; returns them."""
        gone, parent = node.page_bytes, node.parent
        assert parent is not None
        if len(gone) <= wanted and parent.below > 1 and not node.request_count:
            # Mostly all of a leaf goes, and it has siblings. What follows would do the same.
            del parent.children[node.edge[:WORD]]
            node.parent, node.page_bytes = None, b""
            parent.below -= 1
            return gone
        while len(node.page_bytes) > max(2 * wanted, AT_ONCE):
            # Halving first keeps a long leaf from being copied whole for every few pages.
            self._split_at_page(node, len(node.page_bytes) // (2 * WORD) * WORD)
        keep = max(len(node.page_bytes) - wanted, 0)
        kept, gone = node.page_bytes[:keep], node.page_bytes[keep:]
        node.page_bytes = b""
        if kept or node.request_count:
            node = self._replace(node)
            node.page_bytes = kept
        if kept:
            self._offer(node)
        else:
            self._lost(node)
        self._prune(node)
        return gone

    def _replace(self, node: RadixTreeNode) -> RadixTreeNode:
        """Put a new object in a node's place; the old one is unknown to the tree from then on."""
        heir = RadixTreeNode(node.parent, node.edge, node.start)
        heir.last_use = node.last_use
        self._move_below(node, heir)
        heir.request_ids = node.request_ids
        self._hang(heir)
        node.parent = None
        return heir

    def _prune(self, node: RadixTreeNode) -> None:
        """Take out the tokens at the end of a path that neither a page nor a request needs."""
        while (parent := node.parent) and not node.children and not node.request_count:
            if node.page_bytes:
                end = self._end_of_page(node, len(node.page_bytes))
                node.edge = node.edge[: end - node.start]
                return
            del parent.children[node.edge[:WORD]]
            node.parent = None
            node = parent

    # Checking --------------------------------------------------------------------------------

    def check_integrity(self) -> None:
        """AssertionError, in words, where the tree contradicts itself. Visits every node."""
        paths = check_nodes(self._root, self._page)
        present = protected = 0
        requests: dict[str, bytes] = {}
        for node, path in paths.items():
            requests.update(dict.fromkeys(node.request_ids or (), path))
            present += len(node.page_bytes) // WORD
            protected += len(node.page_bytes) // WORD if node.chain_locks else 0
        assert requests == self._requests, "requests end where their tokens do not"
        assert present == self._present, f"{present} pages present, {self._present} counted"
        assert protected == self._protected, f"{protected} locked, {self._protected} counted"
        check_queue(self._buds, self._stems, self._strays, paths)


def _common(edge: bytes, data: bytes, at: int, stop: int) -> int:
    """How many bytes of ``edge`` and ``data[at:stop]`` agree, in whole tokens.

    Looks at pieces of growing length: where they differ early, little is read.
    """
    end = min(len(edge), stop - at)
    start, look = 0, AT_ONCE
    while start < end:
        n = min(look, end - start) // WORD
        differ = np.frombuffer(edge, np.int32, n, start) != np.frombuffer(
            data, np.int32, n, at + start
        )
        first = int(differ.argmax())
        if differ[first]:
            return start + first * WORD
        start += n * WORD
        look *= 4
    return end


def _backwards(runs: list[bytes], n: int) -> Pages:
    """The n integers of packed runs, those of each run from its end."""
    out = np.empty(n, np.int32)
    at = 0
    for i in range(0, len(runs), TOGETHER):
        some = unpack(b"".join(reversed(runs[i : i + TOGETHER])))
        out[at : at + len(some)] = some[::-1]
        at += len(some)
    return out
