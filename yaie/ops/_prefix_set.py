"""The set that radix_cache means, word by word: no tree, no heap, nothing that is fast."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from yaie.ops import _programs as programs
from yaie.ops._programs import Event

FORMS: programs.Forms = {
    "match": ((tuple,),),
    "insert": ((tuple,), (tuple, int)),
    "lock": ((int,),),
    "unlock": ((int,),),
    "evict": ((int,),),
    "reset": ((),),
}

Tokens = tuple[int, ...]


class Cache(Protocol):
    """The commands of a cache."""

    def match(self, tokens: Any) -> tuple[Iterable[int], Any]: ...

    def insert(self, tokens: Any, pages: Any) -> int: ...

    def lock(self, node: Any) -> None: ...

    def unlock(self, node: Any) -> None: ...

    def evict(self, n_pages: int) -> Iterable[int]: ...

    def reset(self) -> Iterable[int]: ...


@dataclass(eq=False)
class Entry:
    """A page-prefix that is present; the node that a match names."""

    tokens: Tokens
    page: int
    last_use: int = 0
    locks: int = 0


ROOT = Entry((), -1)
"""The node of the empty prefix, which is always there."""


class PrefixSet:
    """The state of radix_cache. Errors: ValueError, with nothing changed."""

    def __init__(self, S: int) -> None:
        self.S = S
        self.present: dict[Tokens, Entry] = {}
        self.clock = 0

    def match(self, tokens: Tokens) -> tuple[list[int], Entry]:
        """The pages of the longest present page-prefix, and its node."""
        self.clock += 1
        chain = [self.present[p] for p in self._prefixes(tokens) if p in self.present]
        for entry in chain:
            entry.last_use = self.clock
        return [entry.page for entry in chain], chain[-1] if chain else ROOT

    def insert(self, tokens: Tokens, pages: Sequence[int]) -> int:
        """Add what is missing; how many tokens were there."""
        prefixes = self._prefixes(tokens)
        if len(pages) < len(prefixes):
            raise ValueError("too few pages")
        new = [i for i, prefix in enumerate(prefixes) if prefix not in self.present]
        self.present |= {prefixes[i]: Entry(prefixes[i], pages[i]) for i in new}
        self.match(tokens)
        return (len(prefixes) - len(new)) * self.S

    def lock(self, node: Entry | None) -> None:
        """One lock more."""
        self._known(node).locks += node is not ROOT

    def unlock(self, node: Entry | None) -> None:
        """One lock less."""
        entry = self._known(node)
        if entry is not ROOT and not entry.locks:
            raise ValueError("not locked")
        entry.locks -= entry is not ROOT

    def evict(self, n_pages: int) -> list[int]:
        """Drop one page-prefix after the other."""
        if n_pages < 0:
            raise ValueError("a negative number of pages")
        gone: list[int] = []
        extended = Counter(tokens[: -self.S] for tokens in self.present)
        locked = self.locked()
        free = self.present.keys() - extended.keys() - locked
        while free and len(gone) < n_pages:
            oldest = min(free, key=lambda tokens: self.present[tokens].last_use)
            gone.append(self.present.pop(oldest).page)
            shorter = oldest[: -self.S]
            extended[shorter] -= 1
            free.remove(oldest)
            if shorter and not extended[shorter] and shorter not in locked:
                free.add(shorter)
        return gone

    def reset(self) -> list[int]:
        """Drop all."""
        if self.locked():
            raise ValueError("something is locked")
        return self.evict(len(self.present))

    def locked(self) -> set[Tokens]:
        """What has a lock, or is extended by what has one."""
        held = (entry.tokens for entry in self.present.values() if entry.locks)
        return {prefix for tokens in held for prefix in self._prefixes(tokens)}

    def observables(self) -> tuple[int, int]:
        """How many pages are not locked, how many are."""
        protected = len(self.locked())
        return len(self.present) - protected, protected

    def _prefixes(self, tokens: Tokens) -> list[Tokens]:
        return [tokens[:n] for n in range(self.S, len(tokens) + 1, self.S)]

    def _known(self, node: Entry | None) -> Entry:
        if node is None:
            raise ValueError("no node")
        if node is not ROOT and self.present.get(node.tokens) is not node:
            raise ValueError("a node that was evicted")
        return node


@dataclass(frozen=True)
class Command:
    """One command of a program; what its kind does not take is left empty."""

    kind: str
    number: int = 0
    tokens: Tokens = ()
    pages: Sequence[int] = ()


def unpacked(
    commands: Tensor, tokens: Tensor, token_indptr: Tensor, pages: Tensor, page_indptr: Tensor
) -> list[Command]:
    """The commands of a program, from the arguments of the op."""
    words, given = programs.unpacked(tokens, token_indptr), programs.unpacked(pages, page_indptr)
    rows = zip(commands.tolist(), words, given, strict=True)
    return [Command(list(FORMS)[kind], number, word, ids) for (kind, number), word, ids in rows]


def run(
    commands: Sequence[Command], cache: Cache, unknown: Any, observe: Callable[[], Any]
) -> list[Event]:
    """Run a program on a cache; ``unknown`` is a node that is none of its."""
    nodes: dict[int, Any] = {}

    def step(i: int) -> Sequence[int]:
        command = commands[i]
        node = nodes.get(command.number, unknown)
        if command.kind == "match":
            pages, nodes[i] = cache.match(command.tokens)
            return list(pages)
        if command.kind == "insert":
            return [cache.insert(command.tokens, command.pages)]
        if command.kind == "lock":
            cache.lock(node)
        if command.kind == "unlock":
            cache.unlock(node)
        if command.kind == "evict":
            return list(cache.evict(command.number))
        return list(cache.reset()) if command.kind == "reset" else []

    return programs.play(len(commands), step, observe)


History = Sequence[tuple[Command, Event]]
"""Commands, and what each did."""


def splits_what_is_locked(history: History, S: int) -> bool:
    """Whether a lock is followed by an insert that shares some of its pages, but not all."""
    locked: list[Tokens] = []
    for command, event in history:
        if command.kind == "lock" and event.error is None:
            match, matched = history[command.number]
            locked.append(match.tokens[: len(matched.values or ()) * S])
        if command.kind == "insert" and event.error is None:
            new = command.tokens[: len(command.tokens) // S * S]
            for node in locked:
                shorter = min(len(new), len(node))
                shared = max(n for n in range(0, shorter + 1, S) if new[:n] == node[:n])
                if 0 < shared < shorter:
                    return True
    return False


def _added(history: History, S: int) -> list[tuple[int, set[int]]]:
    """Of each command the pages that it added."""
    return [
        (i, set(command.pages[(event.values or (0,))[0] // S :]))
        for i, (command, event) in enumerate(history)
        if command.kind == "insert" and event.error is None
    ]


def _evictions(history: History) -> list[tuple[int, set[int]]]:
    """Of each eviction the pages that it dropped."""
    return [(i, set(e.values or ())) for i, (c, e) in enumerate(history) if c.kind == "evict"]


def evicts_part(history: History, S: int, n: int) -> bool:
    """Whether an eviction drops some of more than n pages that one insert added."""
    return any(
        before < i and len(pages) > n and 0 < len(pages & gone) < len(pages)
        for before, pages in _added(history, S)
        for i, gone in _evictions(history)
    )


def evicts_what_came_after_a_lock(history: History, S: int) -> bool:
    """Whether an eviction drops what was added after a lock that still holds: what is locked was
    used longer ago, and stays."""
    locks = [i for i, (command, event) in enumerate(history) if command.kind == "lock"]
    added = _added(history, S)
    return any(
        bool(pages & gone) and history[i][1].observables[1] > 0 and any(lock < j for lock in locks)
        for i, gone in _evictions(history)
        for j, pages in added
        if j < i
    )


def evicts_of_many(history: History, S: int, n: int) -> bool:
    """Whether an eviction drops pages of more than n inserts."""
    added = _added(history, S)
    return any(
        sum(before < i and bool(pages & gone) for before, pages in added) > n
        for i, gone in _evictions(history)
    )


def part_late(history: History, n: int) -> bool:
    """Whether a match shares more than n tokens with an earlier insert, but not all of either."""
    inserted: list[Tokens] = []
    for command, event in history:
        if command.kind == "insert" and event.error is None:
            inserted.append(command.tokens)
        for known in inserted if command.kind == "match" else ():
            pairs = zip(known, command.tokens, strict=False)
            shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
            if n < shared < min(len(known), len(command.tokens)):
                return True
    return False


HISTORY_EDGES: dict[str, Callable[[Any], bool]] = {
    "a lock before a split": lambda c: splits_what_is_locked(c.history, c.page_size),
    "evict some": lambda c: any(
        a.kind == "evict" and e.values and e.observables[0] for a, e in c.history
    ),
    "evict more than there is": lambda c: any(
        a.kind == "evict" and len(e.values or ()) < a.number for a, e in c.history
    ),
    "evict while locked": lambda c: any(
        a.kind == "evict" and e.values and e.observables[1] for a, e in c.history
    ),
    "evict what came after a lock that holds": lambda c: evicts_what_came_after_a_lock(
        c.history, c.page_size
    ),
    "evict some of a run of more than 64 pages": lambda c: evicts_part(c.history, c.page_size, 64),
    "evict the pages of more than 64 inserts": lambda c: evicts_of_many(c.history, c.page_size, 64),
    "prompts that part behind more than 1,024 tokens": lambda c: part_late(c.history, 1024),
}
"""Edges of radix_cache that its history meets."""
