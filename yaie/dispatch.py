"""Which kernel serves a call: explicit ▸ ``with use()`` ▸ YAIE_KERNEL ▸ preference ▸ reference.

A kernel that was asked for by name and declines is an error that lists every reason; only the
registered preference may pass a kernel over. The policy knows kernels by name and by what
``supports`` answers, nothing else, so it stands below the ops that use it.
"""

from __future__ import annotations

import difflib
import fnmatch
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar


class Unsupported(ValueError):
    """No kernel that was asked for can serve this call; the message holds every reason."""


class Choosable(Protocol):
    """What the policy needs to know of a kernel."""

    @property
    def name(self) -> str: ...

    @property
    def preference(self) -> int: ...

    def declines(self, call: Any) -> str | None: ...

    def suits(self, call: Any) -> bool: ...


MOST_NAMES = 20
"""How many known names a message lists."""

K = TypeVar("K", bound=Choosable)

_used: ContextVar[tuple[str, ...]] = ContextVar("yaie_use", default=())
_checked: ContextVar[bool | None] = ContextVar("yaie_checked", default=None)


@contextmanager
def use(*choices: str) -> Iterator[None]:
    """Choose kernels for the calls inside the block.

    A choice is ``op=kernel`` or a bare kernel name; both may be globs (``"simt.*"``). A bare
    name applies to the ops that have such a kernel. Inner blocks win over outer ones.

    >>> with use("paged_attention=cuda.split_kv", "simt.*"): ...
    """
    token = _used.set(choices + _used.get())
    try:
        yield
    finally:
        _used.reset(token)


@contextmanager
def checked(on: bool = True) -> Iterator[None]:
    """Turn on (or off) the checks that must read tensor contents, for the calls inside the block.

    They are on by default for CPU tensors and off for GPU tensors, where reading costs a
    synchronisation. ``YAIE_CHECKED=1`` or ``0`` in the environment changes the default.
    """
    token = _checked.set(on)
    try:
        yield
    finally:
        _checked.reset(token)


def check_choices(choices: Sequence[str], known: Mapping[str, Sequence[str]]) -> None:
    """ValueError for a choice that fits no op and kernel of ``known`` (op -> kernel names): a
    misspelt one would be passed over in silence."""
    for choice in choices:
        wanted_op, _, pattern = choice.rpartition("=")
        fitting = [op for op in known if fnmatch.fnmatchcase(op, wanted_op or "*")]
        if not fitting:
            raise ValueError(f"{choice!r}: no op {wanted_op!r}{nearest(wanted_op, list(known))}")
        names = sorted({name for op in fitting for name in known[op]})
        if not fnmatch.filter(names, pattern):
            raise ValueError(f"{choice!r}: no kernel {pattern!r}{nearest(pattern, names)}")


def contents_checked(device: str) -> bool:
    """Whether a call on ``device`` ("cpu", "cuda") checks the contents of its tensors."""
    explicit = _checked.get()
    if explicit is not None:
        return explicit
    wanted = _checked_by_environment()
    return device == "cpu" if wanted is None else wanted


def _checked_by_environment() -> bool | None:
    """What YAIE_CHECKED says; None where it says nothing."""
    text = os.environ.get("YAIE_CHECKED", "")
    if text not in ("", "0", "1"):
        raise ValueError(f"YAIE_CHECKED is {text!r}, must be 0 (off) or 1 (on), or not be set")
    return bool(int(text)) if text else None


def choose(op: str, kernels: Mapping[str, K], call: Any, explicit: str | None) -> K:
    """The kernel of ``op`` that serves ``call``.

    Errors: ValueError for a name that fits no kernel; Unsupported when all named ones decline.
    """
    ranked = sorted(kernels.values(), key=lambda k: -k.preference)
    if explicit is not None:
        return _first_willing(op, _matching(op, ranked, explicit), call)
    for source in (_used.get(), environment()):
        for choice in source:
            wanted_op, _, pattern = choice.rpartition("=")
            if wanted_op and not fnmatch.fnmatchcase(op, wanted_op):
                continue
            if not wanted_op and not _fitting(ranked, pattern):
                continue
            return _first_willing(op, _matching(op, ranked, pattern), call)
    preferred = [k for k in ranked if k.preference >= 0]
    candidates = [k for k in preferred if k.suits(call)]
    candidates += [k for k in preferred if not k.suits(call)]
    candidates += [k for k in ranked if k.name == "reference"]
    return _first_willing(op, candidates, call)


def check_environment(known: Mapping[str, Sequence[str]]) -> None:
    """ValueError where YAIE_KERNEL fits nothing in ``known`` (op -> kernel names), or YAIE_CHECKED
    is neither 0 nor 1."""
    try:
        check_choices(environment(), known)
    except ValueError as error:
        raise ValueError(f"YAIE_KERNEL: {error}") from None
    _checked_by_environment()


def environment() -> tuple[str, ...]:
    """The choices in YAIE_KERNEL."""
    text = os.environ.get("YAIE_KERNEL", "")
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _fitting(ranked: Sequence[K], pattern: str) -> list[K]:
    return [k for k in ranked if fnmatch.fnmatchcase(k.name, pattern)]


def _matching(op: str, ranked: Sequence[K], pattern: str) -> list[K]:
    fitting = _fitting(ranked, pattern)
    if not fitting:
        raise ValueError(f"{op}: no kernel {pattern!r}{nearest(pattern, [k.name for k in ranked])}")
    return fitting


def nearest(name: str, known: Sequence[str]) -> str:
    """``"; did you mean …? (known: …)"``, to append to an unknown-name message."""
    close = _as_close_as_the_closest(name, known)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    shown = sorted(known)[:MOST_NAMES]
    more = f", and {len(known) - len(shown)} more" if len(known) > len(shown) else ""
    return f"{hint} (known: {', '.join(shown)}{more})"


def _as_close_as_the_closest(name: str, known: Sequence[str]) -> list[str]:
    """Up to three names, of which none is much less like ``name`` than the first: to a typing error
    there is one answer, to a word that several names share there are several."""
    likeness = {k: difflib.SequenceMatcher(None, name, k).ratio() for k in known}
    least = max(0.4, max(likeness.values(), default=0.0) - 0.1)
    close = [k for k in known if likeness[k] >= least]
    return sorted(close, key=lambda k: -likeness[k])[:3]


def _first_willing(op: str, candidates: Sequence[K], call: Any) -> K:
    reasons = []
    for kernel in candidates:
        reason = kernel.declines(call)
        if reason is None:
            return kernel
        reasons.append(f"{kernel.name}: {reason}")
    raise Unsupported(f"{op}: no kernel serves this call ({call}): " + "; ".join(reasons))
