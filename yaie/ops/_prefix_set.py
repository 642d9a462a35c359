"""The set that radix_cache means, word by word: no tree, no heap, nothing that is fast."""

from __future__ import annotations

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
        while len(gone) < n_pages:
            extended = {tokens[: -self.S] for tokens in self.present}
            free = self.present.keys() - extended - self.locked()
            if not free:
                break
            oldest = min(free, key=lambda tokens: self.present[tokens].last_use)
            gone.append(self.present.pop(oldest).page)
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


def splits_what_is_locked(history: Sequence[tuple[Command, Event]], S: int) -> bool:
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
