"""What is said of a result: the worst element, one check, all of a case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor


@dataclass(frozen=True)
class Receipt:
    """The worst element of one output: what was there, what was allowed, and what allowed it."""

    output: str
    used: float
    term: str
    index: tuple[int, ...]
    actual: float
    expected: float
    allowed: float

    def __str__(self) -> str:
        where = ", ".join(map(str, self.index))
        return (
            f"{self.output}[{where}] is {self.actual:.9g}, should be {self.expected:.9g} "
            f"± {self.allowed:.3g}: {self.used:.3g} of the budget used (mostly: {self.term})"
        )


@dataclass(frozen=True)
class Judgement:
    """The outcome of one check. ``check`` is None when nothing is wrong."""

    check: str | None = None
    reason: str | None = None
    receipt: Receipt | None = None


@dataclass(frozen=True)
class Verdict:
    """What one kernel did on one case."""

    status: Literal["pass", "fail", "crash", "timeout", "unsupported"]
    check: str | None = None
    reason: str | None = None
    receipt: Receipt | None = None
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """True unless the kernel is at fault."""
        return self.status in ("pass", "unsupported")


class Comparison(Protocol):
    """How one output is judged against what it should be."""

    @property
    def expected(self) -> Tensor: ...

    def judge(self, output: str, actual: Tensor) -> Judgement: ...


def unravel(flat: int, tensor: Tensor) -> tuple[int, ...]:
    """The index of element number ``flat``."""
    index = []
    for size in reversed(tensor.shape):
        flat, i = divmod(flat, size)
        index.append(i)
    return tuple(reversed(index))


def at(output: str, index: tuple[int, ...]) -> str:
    """An element in words."""
    return f"{output}[{', '.join(map(str, index))}]"
