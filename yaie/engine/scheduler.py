"""Which tokens of which requests the next step computes, and where their keys and values lie.

Running and waiting requests form one line in order of arrival: who runs came before all who wait.
The oldest are served first. When pages are short, cached prefixes that nobody uses go first, least
recently used, then the youngest running request goes back to the head of those who wait, to be
computed again. So the oldest request can always get every page but the ones it has, and a request
that fits into the pool alone ends.

Pages have one owner each: the tree (full pages of computed prefixes, locked while a request reads
them), one running request (its tail), or the pool (free).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from yaie.cache import BlockPool, RadixTree, RadixTreeNode
from yaie.cache.radix_node import subtree
from yaie.engine.request import Request, Tokens


class Sequence:
    """A request under way: its tokens so far, how many of them are computed, and its pages.

    ``table[:shared]`` are pages of the tree, which ``node`` locks, ``table[shared:pages]`` its own.
    """

    __slots__ = (
        "_tokens",
        "admissions",
        "cached",
        "computed",
        "length",
        "node",
        "pages",
        "prefill",
        "request",
        "shared",
        "table",
        "table_version",
    )

    def __init__(self, request: Request, page_size: int) -> None:
        longest = len(request.prompt) + request.params.max_tokens
        self.request = request
        self._tokens = np.empty(longest, np.int32)
        self._tokens[: len(request.prompt)] = request.prompt
        self.length = len(request.prompt)
        self.table: NDArray[np.int32] = np.full(-(-longest // page_size), -1, np.int32)
        self.table_version = 0  # grows whenever the table changes
        self.node: RadixTreeNode | None = None
        self.pages = self.shared = self.computed = 0
        self.prefill = 0  # tokens that were there when it was admitted
        self.cached = 0  # of the prompt, at the first admission
        self.admissions = 0

    @property
    def tokens(self) -> Tokens:
        """Prompt and output."""
        return self._tokens[: self.length]

    @property
    def generated(self) -> int:
        """How many tokens it has said."""
        return self.length - len(self.request.prompt)

    @property
    def is_full(self) -> bool:
        """Whether it has said all that it may."""
        return self.length == len(self._tokens)

    @property
    def is_last_but_one(self) -> bool:
        """Whether it may say one more token, and no other after it."""
        return self.length + 1 == len(self._tokens)

    @property
    def output(self) -> Tokens:
        """The tokens generated so far."""
        return self._tokens[len(self.request.prompt) : self.length]

    def token(self, position: int) -> int:
        """One of them."""
        return self._tokens[position]  # type: ignore[no-any-return]

    def append(self, token: int) -> None:
        """One more token of output."""
        self._tokens[self.length] = token
        self.length += 1

    def __repr__(self) -> str:
        return f"<{self.request.id}: {self.computed} of {self.length} computed, {self.pages} pages>"


class Chunk(NamedTuple):
    """``length`` tokens of a sequence from ``start`` on, computed in one step."""

    sequence: Sequence
    start: int
    length: int

    @property
    def stop(self) -> int:
        """The position behind the last token."""
        return self.start + self.length

    @property
    def is_last(self) -> bool:
        """Whether the next token follows from this chunk."""
        return self.stop == self.sequence.length


class Scheduler:
    """The line of requests, the pool of pages and the tree of cached prefixes.

    At most ``token_budget`` tokens are computed in a step, prefill and decode together, of at most
    ``max_requests`` requests; a prompt that does not fit is computed in chunks.
    """

    def __init__(
        self,
        num_pages: int,
        page_size: int,
        token_budget: int,
        max_requests: int,
        prefix_cache: bool = True,
    ) -> None:
        self.pool = BlockPool(num_pages)
        self.tree = RadixTree(page_size)
        self.page_size = page_size
        self.token_budget = token_budget
        self.max_requests = max_requests
        self.prefix_cache = prefix_cache
        self.running: list[Sequence] = []
        self.waiting: deque[Sequence] = deque()
        self.evicted_pages = self.preemptions = 0

    def add(self, request: Request) -> Sequence:
        """Put a request at the end of the line."""
        sequence = Sequence(request, self.page_size)
        self.waiting.append(sequence)
        return sequence

    def remove(self, sequence: Sequence) -> None:
        """Take a request out of the line, finished or not. What it computed stays cached."""
        if sequence in self.running:
            self.running.remove(sequence)
            self._release(sequence)
        else:
            self.waiting.remove(sequence)

    def schedule(self) -> list[Chunk]:
        """Admit, preempt and hand out pages for one step; returns what it is to compute."""
        chunks: list[Chunk] = []
        budget, preemptions = self.token_budget, self.preemptions
        served = 0
        while budget and served < len(self.running):
            sequence = self.running[served]
            start = sequence.computed
            count = min(sequence.length - start, budget)
            fits = start + count <= sequence.pages * self.page_size
            if not fits and not self._grow(sequence, start + count):
                break
            chunks.append(Chunk(sequence, start, count))
            budget -= count
            served += 1
        may_admit = self.preemptions == preemptions  # else pages are short
        while may_admit and budget and self.waiting and len(self.running) < self.max_requests:
            sequence = self.waiting[0]
            if not self._admit(sequence):
                break
            self.running.append(self.waiting.popleft())
            count = min(sequence.length - sequence.computed, budget)
            chunks.append(Chunk(sequence, sequence.computed, count))
            budget -= count
        return chunks

    def ahead(self, chunks: list[Chunk]) -> list[Chunk]:
        """The step behind a decode step whose tokens are not known yet: one more token of each, as
        if none ended now. Nothing where another step may be due: a request can be admitted, is
        sure to end, or has ended, or pages are short."""
        if [chunk.sequence for chunk in chunks] != self.running:
            return []
        if self.waiting and len(self.running) < self.max_requests:
            return []
        if any(chunk.sequence.is_last_but_one for chunk in chunks):
            return []
        for sequence, _, _ in chunks:
            needed = self._pages_for(sequence.length + 1) - sequence.pages
            if needed > 0 and not self._give(sequence, needed):
                return []
        return [Chunk(chunk.sequence, chunk.stop, 1) for chunk in chunks]

    def computed(self, chunks: Iterable[Chunk]) -> None:
        """The keys and values of these chunks are in their pages now. Prefill is shared at once,
        output when the request ends."""
        for chunk in chunks:
            chunk.sequence.computed = chunk.stop
            if chunk.start < chunk.sequence.prefill:
                self._share(chunk.sequence)

    def clear(self) -> int:
        """Free the pages of all cached prefixes. Errors: ValueError while one is in use."""
        return len(self.pool.free(self.tree.reset()))

    # Pages -----------------------------------------------------------------------------------

    def _admit(self, sequence: Sequence) -> bool:
        """Find the cached prefix, lock it, and get pages for the rest. The last token is never
        taken from the cache: the next one follows from its output."""
        if self.prefix_cache:
            pages, node = self.tree.match(sequence.tokens[:-1])
        else:
            pages, node = np.empty(0, np.int32), self._root()
        self.tree.lock(node)
        rest = self._alloc(self._pages_for(sequence.length) - len(pages))
        if rest is None:
            self.tree.unlock(node)
            return False
        sequence.node = node
        sequence.shared = len(pages)
        sequence.pages = len(pages) + len(rest)
        sequence.table[: len(pages)] = pages
        sequence.table[len(pages) : sequence.pages] = rest
        sequence.table_version += 1
        sequence.computed = len(pages) * self.page_size
        sequence.prefill = sequence.length
        if not sequence.admissions:
            sequence.cached = sequence.computed
        sequence.admissions += 1
        return True

    def _grow(self, sequence: Sequence, tokens: int) -> bool:
        """Get pages for the first ``tokens`` tokens, at the cost of younger requests. False when
        the sequence itself is the youngest and had to go."""
        needed = self._pages_for(tokens) - sequence.pages
        while needed > 0 and not self._give(sequence, needed):
            youngest = self.running.pop()
            self._release(youngest)
            self.waiting.appendleft(youngest)
            self.preemptions += 1
            if youngest is sequence:
                return False
        return True

    def _give(self, sequence: Sequence, needed: int) -> bool:
        """``needed`` more pages for a sequence, if there are so many."""
        pages = self._alloc(needed)
        if pages is None:
            return False
        sequence.table[sequence.pages : sequence.pages + needed] = pages
        sequence.pages += needed
        sequence.table_version += 1
        return True

    def _alloc(self, n: int) -> list[int] | None:
        """``n`` free pages, evicting as many cached ones as that takes, or None."""
        short = n - self.pool.n_free
        if short > self.tree.evictable:
            return None
        if short > 0:
            evicted = self.tree.evict(short)
            self.pool.free(evicted)
            self.evicted_pages += len(evicted)
        return self.pool.alloc(n)

    def _share(self, sequence: Sequence) -> None:
        """Give the full pages that are computed to the tree; where it has such pages already, use
        those and free the duplicates."""
        full = sequence.computed // self.page_size
        if not self.prefix_cache or full == sequence.shared:
            return
        tokens = sequence.tokens[: full * self.page_size]
        own = sequence.table[sequence.shared : full].copy()
        self.tree.insert(tokens, sequence.table[:full])
        pages, node = self.tree.match(tokens)
        self.pool.free(own[own != pages[sequence.shared :]])
        sequence.table[:full] = pages
        sequence.table_version += 1
        self.tree.lock(node)
        assert sequence.node is not None
        self.tree.unlock(sequence.node)
        sequence.node = node
        sequence.shared = full

    def _release(self, sequence: Sequence) -> None:
        """Leave what is computed to the tree and give all other pages back."""
        self._share(sequence)
        assert sequence.node is not None
        self.tree.unlock(sequence.node)
        self.pool.free(sequence.table[sequence.shared : sequence.pages])
        sequence.table[:] = -1
        sequence.table_version += 1
        sequence.node = None
        sequence.pages = sequence.shared = sequence.computed = 0

    def _pages_for(self, tokens: int) -> int:
        return -(-tokens // self.page_size)

    def _root(self) -> RadixTreeNode:
        return self.tree.match(np.empty(0, np.int32))[1]

    # Checking --------------------------------------------------------------------------------

    def check_integrity(self) -> None:
        """AssertionError, in words, where a page has no owner or two, or a lock no reader."""
        self.pool.check_integrity()
        self.tree.check_integrity()
        cached = [page for node in subtree(self._root()) for page in node.pages.tolist()]
        owned = [page for s in self.running for page in s.table[s.shared : s.pages].tolist()]
        pages = sorted([*cached, *owned, *self.pool.free_pages])
        assert pages == list(range(self.pool.n_pages)), f"owners of pages: {pages}"
        locked = set()
        for sequence in self.running:
            chain = list(_chain(sequence.node))
            read = [page for node in reversed(chain) for page in node.pages.tolist()]
            shared = sequence.table[: sequence.shared].tolist()
            assert read == shared, f"{sequence!r} reads {shared}, locks {read}"
            assert sequence.pages * self.page_size >= sequence.computed, f"{sequence!r} lacks pages"
            locked.update(read)
        protected = self.tree.protected
        assert len(locked) == protected, f"{len(locked)} pages are read, {protected} are locked"
        for sequence in self.waiting:
            assert sequence.node is None and not sequence.pages, f"{sequence!r} waits with pages"


def _chain(node: RadixTreeNode | None) -> Iterator[RadixTreeNode]:
    while node is not None:
        yield node
        node = node.parent
