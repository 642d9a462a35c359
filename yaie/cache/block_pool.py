"""BlockPool: how many users each page of the KV cache has.

The meaning is one number a page: 0 is free. Pages come lowest id first, so that a run is
reproducible; the contents of a page are undefined when it is handed out.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable

import numpy as np

from yaie.cache.integers import count


class BlockPool:
    """``n_pages`` pages with a count of users each.

    Errors: ValueError for an unknown page, for one that is free, and for one that is freed more
    often than it is used; TypeError for what is no integer. Nothing is changed then. A pool without
    enough free pages is no error: the answer is None.
    """

    def __init__(self, n_pages: int) -> None:
        self.n_pages = count(n_pages, "BlockPool: n_pages")
        self._users = [0] * self.n_pages
        self._free = list(range(self.n_pages))  # a heap

    @property
    def n_free(self) -> int:
        """How many pages are free."""
        return len(self._free)

    @property
    def free_pages(self) -> list[int]:
        """The free pages, lowest first."""
        return sorted(self._free)

    def users(self, page: int) -> int:
        """How many users a page has; 0 is free."""
        return self._users[self._known(page, "BlockPool.users: page")]

    def alloc(self, n: int) -> list[int] | None:
        """``n`` pages with one user each, or None when there are fewer free ones."""
        wanted = count(n, "BlockPool.alloc: n")
        if wanted > len(self._free):
            return None
        pages = [heapq.heappop(self._free) for _ in range(wanted)]
        for page in pages:
            self._users[page] = 1
        return pages

    def share(self, pages: Iterable[int]) -> None:
        """One more user for each page; a page given twice gets two."""
        known = [self._used(page, "BlockPool.share: pages") for page in pages]
        for page in known:
            self._users[page] += 1

    def free(self, pages: Iterable[int]) -> list[int]:
        """One user less for each page; returns those that nobody uses any more, in order."""
        known = [self._used(page, "BlockPool.free: pages") for page in pages]
        for page, times in Counter(known).items():
            if times > self._users[page]:
                raise ValueError(
                    f"BlockPool.free: pages: {page} given {times} times, "
                    f"its users are {self._users[page]}"
                )
        released = []
        for page in known:
            self._users[page] -= 1
            if not self._users[page]:
                released.append(page)
                heapq.heappush(self._free, page)
        return released

    def make_writable(self, page: int) -> tuple[int, tuple[int, int] | None] | None:
        """A page that the caller alone uses, in place of ``page``: ``page`` itself and None, or a
        new page and the pair (page, new) to copy. None when a new one is needed and none is free.
        """
        page = self._used(page, "BlockPool.make_writable: page")
        if self._users[page] == 1:
            return page, None
        pages = self.alloc(1)
        if pages is None:
            return None
        self._users[page] -= 1
        return pages[0], (page, pages[0])

    def check_integrity(self) -> None:
        """AssertionError, in words, where the pool contradicts itself."""
        assert len(self._users) == self.n_pages, f"{len(self._users)} of {self.n_pages} pages"
        negative = [page for page, users in enumerate(self._users) if users < 0]
        assert not negative, f"pages {negative} have fewer than 0 users"
        unused = [page for page, users in enumerate(self._users) if not users]
        assert unused == sorted(self._free), f"pages {unused} have no users, {self._free} are free"

    def _known(self, page: int, where: str) -> int:
        if isinstance(page, bool) or not isinstance(page, (int, np.integer)):
            raise TypeError(f"{where}: {page!r} is not an integer")
        if not 0 <= page < self.n_pages:
            raise ValueError(f"{where}: unknown page {page} of {self.n_pages}")
        return int(page)

    def _used(self, page: int, where: str) -> int:
        page = self._known(page, where)
        if not self._users[page]:
            raise ValueError(f"{where}: page {page} is free")
        return page
