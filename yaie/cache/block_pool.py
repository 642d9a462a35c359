"""BlockPool: how many users each page of the KV cache has.

The meaning is one number a page: 0 is free. Pages come lowest id first, so that a run is
reproducible; the contents of a page are undefined when it is handed out.

The numbers lie in memory that Python and NumPy both read. A call with few pages takes them one by
one, which costs less than to start NumPy; a call with many is a handful of NumPy operations.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yaie.cache.integers import INT32, as_int32, count

FEW = 48
"""Up to so many pages are taken one by one; beyond, NumPy is faster (benchmarks/pool.py)."""

ONE = INT32.type(1)
"""Of the type of the counts, and indices of NumPy's own: else ``add.at`` is 50 times slower."""

PageIds = Iterable[int] | NDArray[np.integer[Any]]


class BlockPool:
    """``n_pages`` pages with a count of users each.

    Errors: ValueError for an unknown page, for one that is free, and for one that is freed more
    often than it is used; TypeError for what is no integer. Nothing is changed then. A pool without
    enough free pages is no error: the answer is None.
    """

    def __init__(self, n_pages: int) -> None:
        self.n_pages = count(n_pages, "BlockPool: n_pages")
        self._users = array("i", bytes(INT32.itemsize * self.n_pages))
        self._free = bytearray(b"\1" * self.n_pages)  # one flag a page
        self._users_view = np.frombuffer(self._users, INT32)
        self._free_view = np.frombuffer(self._free, np.bool_)
        self._n_free = self.n_pages
        self._lowest = 0  # no page below it is free

    @property
    def n_free(self) -> int:
        """How many pages are free."""
        return self._n_free

    @property
    def free_pages(self) -> list[int]:
        """The free pages, lowest first."""
        pages: list[int] = np.flatnonzero(self._free_view).tolist()
        return pages

    def users(self, page: int) -> int:
        """How many users a page has; 0 is free."""
        return self._users[self._known(page, "BlockPool.users: page")]

    def alloc(self, n: int) -> list[int] | None:
        """``n`` pages with one user each, or None when there are fewer free ones."""
        wanted = count(n, "BlockPool.alloc: n")
        if wanted > self._n_free:
            return None
        pages = self._alloc_few(wanted) if wanted <= FEW else self._alloc_many(wanted)
        if pages:
            self._n_free -= wanted
            self._lowest = pages[-1] + 1
        return pages

    def share(self, pages: PageIds) -> None:
        """One more user for each page; a page given twice gets two."""
        given, where = _listed(pages), "BlockPool.share: pages"
        if isinstance(given, np.ndarray) or len(given) > FEW:
            np.add.at(self._users_view, self._all_used(given, where), ONE)
            return
        for page in self._each_used(given, where):
            self._users[page] += 1

    def free(self, pages: PageIds) -> list[int]:
        """One user less for each page; returns those that nobody uses any more, in order."""
        given, where = _listed(pages), "BlockPool.free: pages"
        if isinstance(given, np.ndarray) or len(given) > FEW:
            released = self._free_many(self._all_used(given, where))
        else:
            released = self._free_few(self._each_used(given, where))
        self._n_free += len(released)
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
        negative = np.flatnonzero(self._users_view < 0).tolist()
        assert not negative, f"pages {negative} have fewer than 0 users"
        unused, free = np.flatnonzero(self._users_view == 0).tolist(), self.free_pages
        assert unused == free, f"pages {unused} have no users, {free} are free"
        assert len(free) == self._n_free, f"{len(free)} pages are free, {self._n_free} counted"
        missed = [page for page in free if page < self._lowest]
        assert not missed, f"pages {missed} are free, the search starts at {self._lowest}"

    # Few pages one by one, many at once ------------------------------------------------------

    def _alloc_few(self, wanted: int) -> list[int]:
        free, users, pages = self._free, self._users, list[int]()
        at = self._lowest
        for _ in range(wanted):
            page = free.index(1, at)
            free[page] = 0
            users[page] = 1
            pages.append(page)
            at = page + 1
        return pages

    def _alloc_many(self, wanted: int) -> list[int]:
        """Looks at pieces of growing length: the lowest free pages may lie close together."""
        pages, at, look = list[int](), self._lowest, wanted
        while len(pages) < wanted:
            found = np.flatnonzero(self._free_view[at : at + look])[: wanted - len(pages)] + at
            self._free_view[found] = False
            self._users_view[found] = 1
            pages += found.tolist()
            at += look
            look *= 2
        return pages

    def _free_few(self, pages: list[int]) -> list[int]:
        users, released = self._users, []
        if len(set(pages)) < len(pages):  # a page that is used can be freed once
            for page, times in Counter(pages).items():
                if times > users[page]:
                    raise self._freed_too_often(page, times)
        for page in pages:
            users[page] -= 1
            if not users[page]:
                self._free[page] = 1
                released.append(page)
        self._lowest = min(self._lowest, min(released, default=self.n_pages))
        return released

    def _free_many(self, pages: NDArray[np.intp]) -> list[int]:
        before = self._users_view[pages]
        np.subtract.at(self._users_view, pages, ONE)
        after = self._users_view[pages]
        if after.min() < 0:
            np.add.at(self._users_view, pages, ONE)
            page = int(pages[after < 0][0])
            raise self._freed_too_often(page, int((pages == page).sum()))
        gone = after == 0
        released = pages[gone]
        if (before[gone] > 1).any():  # given more than once: the last time counts
            _, from_end = np.unique(released[::-1], return_index=True)
            released = released[np.sort(len(released) - 1 - from_end)]
        self._free_view[released] = True
        self._lowest = min(self._lowest, int(released.min(initial=self.n_pages)))
        as_list: list[int] = released.tolist()
        return as_list

    # What is given ---------------------------------------------------------------------------

    def _known(self, page: int, where: str) -> int:
        if type(page) is not int:
            if isinstance(page, bool) or not isinstance(page, (int, np.integer)):
                raise TypeError(f"{where}: {page!r} is not an integer")
            page = int(page)
        if not 0 <= page < self.n_pages:
            raise ValueError(f"{where}: unknown page {page} of {self.n_pages}")
        return page

    def _used(self, page: int, where: str) -> int:
        page = self._known(page, where)
        if not self._users[page]:
            raise ValueError(f"{where}: page {page} is free")
        return page

    def _each_used(self, pages: list[int], where: str) -> list[int]:
        """Few pages that must be in use, as Python's integers."""
        users, n_pages = self._users, self.n_pages
        for page in pages:
            if type(page) is not int or not 0 <= page < n_pages or not users[page]:
                return [self._used(page, where) for page in pages]  # names the bad one
        return pages

    def _all_used(
        self, pages: list[int] | NDArray[np.integer[Any]], where: str
    ) -> NDArray[np.intp]:
        """Many pages that must be in use, as indices."""
        if isinstance(pages, np.ndarray) or set(map(type, pages)) == {int}:
            ids = as_int32(pages, where).astype(np.intp)
            known = ids.min() >= 0 and ids.max() < self.n_pages
            if known and self._users_view[ids].all():
                return ids
        return np.array([self._used(page, where) for page in pages])  # names the bad one

    def _freed_too_often(self, page: int, times: int) -> ValueError:
        return ValueError(
            f"BlockPool.free: pages: {page} given {times} times, its users are {self._users[page]}"
        )


def _listed(pages: PageIds) -> list[int] | NDArray[np.integer[Any]]:
    """Pages that can be counted and read twice; few of them as Python's integers."""
    if isinstance(pages, np.ndarray):
        return pages if pages.size > FEW else list(pages.tolist())
    return pages if isinstance(pages, list) else list(pages)
