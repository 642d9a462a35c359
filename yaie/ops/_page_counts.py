"""The counts that block_pool means, and how a program names pages that it has not seen yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from yaie.ops._programs import HEAD, Event, Forms, play

FORMS: Forms = {
    "alloc": ((int,),),
    "share": ((tuple,),),
    "free": ((tuple,),),
    "make_writable": ((int,),),
}
ALLOC, SHARE, FREE, MAKE_WRITABLE = range(4)

Copy = tuple[int, int]


class Pool(Protocol):
    """The commands of a pool."""

    def alloc(self, n: int) -> list[int] | None: ...

    def share(self, pages: Iterable[int]) -> None: ...

    def free(self, pages: Iterable[int]) -> list[int]: ...

    def make_writable(self, page: int) -> tuple[int, Copy | None] | None: ...


class PageCounts:
    """The state of block_pool: users by page. The free page with the highest id goes first."""

    def __init__(self, P: int) -> None:
        self.users = dict.fromkeys(range(P), 0)

    def alloc(self, n: int) -> list[int] | None:
        """Free pages, with one user from now on."""
        if n < 0:
            raise ValueError("a negative number of pages")
        pages = [page for page in reversed(self.users) if not self.users[page]][:n]
        if len(pages) < n:
            return None
        self.users |= dict.fromkeys(pages, 1)
        return pages

    def share(self, pages: Iterable[int]) -> None:
        """One user more for each."""
        for page in self._used(pages):
            self.users[page] += 1

    def free(self, pages: Iterable[int]) -> list[int]:
        """One user less for each; those without any."""
        named = self._used(pages)
        if any(self.users[page] < times for page, times in Counter(named).items()):
            raise ValueError("more often than used")
        gone = []
        for page in named:
            self.users[page] -= 1
            if self.users[page] == 0:
                gone.append(page)
        return gone

    def make_writable(self, page: int) -> tuple[int, Copy | None] | None:
        """A page of the caller's own, and what to copy."""
        if self.users[self._used([page])[0]] == 1:
            return page, None
        new = self.alloc(1)
        if new is None:
            return None
        self.users[page] -= 1
        return new[0], (page, new[0])

    def observables(self) -> tuple[int, int]:
        """Free pages, users of all pages."""
        return sum(users == 0 for users in self.users.values()), sum(self.users.values())

    def _used(self, pages: Iterable[int]) -> list[int]:
        named = list(pages)
        for page in named:
            if page not in self.users:
                raise ValueError("an unknown page")
            if not self.users[page]:
                raise ValueError("a free page")
        return named


class Handles:
    """Names for pages, in the order in which they are handed out.

    A dead handle resolves to its page as long as nothing was handed out since, so that a double
    free really is one, and to an id outside the pool from then on: the page may have a new user.
    """

    def __init__(self, P: int) -> None:
        self.P = P
        self.pages: list[int] = []
        self.died: dict[int, int] = {}

    def hand_out(self, page: int) -> int:
        """The handle of a page that was free."""
        self.pages.append(page)
        return len(self.pages) - 1

    def of(self, page: int) -> int | None:
        """The living handle of a page."""
        living = (k for k, p in enumerate(self.pages) if p == page and k not in self.died)
        return next(living, None)

    def release(self, page: int) -> int | None:
        """The handle of a page that has become free; it is dead."""
        handle = self.of(page)
        if handle is not None:
            self.died[handle] = len(self.pages)
        return handle

    def resolve(self, handle: int) -> int:
        """The page that a command names."""
        now = len(self.pages)
        if not 0 <= handle < now or self.died.get(handle, now) != now:
            return self.P
        return self.pages[handle]


class Session:
    """A pool of P pages and the handles of those that it handed out."""

    def __init__(self, P: int, pool: Pool) -> None:
        self.pool = pool
        self.handles = Handles(P)

    def step(self, kind: int, number: int, named: Sequence[int]) -> Sequence[int] | None:
        """Give the pool a command; what it returns, as page ids."""
        handles = self.handles
        pages = [handles.resolve(handle) for handle in named]
        if kind == ALLOC:
            new = self.pool.alloc(number)
            for page in new or ():
                handles.hand_out(page)
            return new
        if kind == FREE:
            gone = self.pool.free(pages)
            for page in gone:
                handles.release(page)
            return gone
        if kind == SHARE:
            self.pool.share(pages)
            return ()
        answer = self.pool.make_writable(handles.resolve(number))
        if answer is None or answer[1] is None:
            return answer and answer[:1]
        handles.hand_out(answer[0])
        return answer[0], *answer[1]


def run(
    codes: Sequence[Sequence[int]],
    named: Sequence[Sequence[int]],
    session: Session,
    observe: Callable[[], tuple[int, int]],
) -> list[Event]:
    """Run a program on a pool."""
    return play(len(codes), lambda i: session.step(codes[i][0], codes[i][1], named[i]), observe)


def by_handle(trace: Tensor, kinds: Sequence[int], P: int) -> Tensor:
    """A trace whose page ids are replaced by their handles: by -2 if they have none, because they
    are outside the pool, of no page in use, or handed out while in use."""
    handles, renamed = Handles(P), trace.clone()
    for kind, row, out in zip(kinds, trace.tolist(), renamed, strict=True):
        values = row[HEAD : HEAD + max(row[HEAD - 1], 0)]
        new = len(values) if kind == ALLOC else int(kind == MAKE_WRITABLE and len(values) == 3)
        names: list[int | None] = []
        for page in values[:new]:
            fresh = 0 <= page < P and handles.of(page) is None
            names.append(handles.hand_out(page) if fresh else None)
        names += [handles.release(p) if kind == FREE else handles.of(p) for p in values[new:]]
        cells = [-2 if name is None else name for name in names]
        out[HEAD : HEAD + len(cells)] = torch.tensor(cells, dtype=torch.int32)
    return renamed


History = Sequence[tuple[tuple[Any, ...], Event]]
"""Commands, and what each did."""


def at_once(history: History, n: int) -> set[str]:
    """The kinds of commands that took more than n pages, and did not fail."""
    return {
        kind
        for (kind, arg), event in history
        if event.error is None and len(arg if type(arg) is tuple else event.values or ()) > n
    }


def took_scattered(history: History, n: int) -> bool:
    """Whether one alloc took more than n pages that do not lie side by side."""
    taken = (event.values or () for (kind, _), event in history if kind == "alloc")
    return any(len(pages) > n and max(pages) - min(pages) >= len(pages) for pages in taken)


def went_with_second_free(history: History) -> bool:
    """Whether a page that other users kept when it was freed became free later."""
    kept: set[int] = set()
    for command, event in history:
        if command[0] == "free" and event.error is None:
            if event.values and kept.issuperset(command[1]):
                return True
            kept.update(command[1])
    return False
