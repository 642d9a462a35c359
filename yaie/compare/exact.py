"""Results of which every bit is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from yaie.compare.verdict import Judgement


@dataclass(frozen=True)
class Exact:
    """Equal bit for bit, NaN payloads and the sign of zero included."""

    expected: Tensor

    def judge(self, output: str, actual: Tensor) -> Judgement:
        """Compare raw bytes; name the first element that differs."""
        same = raw(actual) == raw(self.expected)
        if bool(same.all()):
            return Judgement()
        index = tuple(int(i) for i in (~same).nonzero()[0])
        was, should = told(actual[index], self.expected[index])
        where = ", ".join(map(str, index))
        return Judgement("exact", f"{output}[{where}] is {was}, should be {should} (bit for bit)")


def raw(tensor: Tensor) -> Tensor:
    """The bits of each element, as whole numbers."""
    ints = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.contiguous().view(ints[tensor.element_size()])


def told(was: Tensor, should: Tensor) -> tuple[str, str]:
    """Two numbers in words; with their bits where the words are the same, as those of NaNs are."""
    words = [str(x.item()) for x in (was, should)]
    if words[0] == words[1]:
        digits = 2 * was.element_size()
        bits = (int(raw(x)) % 16**digits for x in (was, should))
        words = [f"{word} (0x{b:0{digits}x})" for word, b in zip(words, bits, strict=True)]
    return words[0], words[1]


def _as_it_is(trace: Tensor) -> Tensor:
    return trace


@dataclass(frozen=True)
class Trace:
    """What a program did: a row for each command, all of them equal.

    ``columns`` names the first columns of a row; values follow. Where two traces mean the same,
    ``canonical`` maps both to one.
    """

    expected: Tensor
    columns: tuple[str, ...]
    canonical: Callable[[Tensor], Tensor] = _as_it_is

    def judge(self, output: str, actual: Tensor) -> Judgement:
        """Name the first command after which something is not as it should be."""
        should, was = self.canonical(self.expected), self.canonical(actual)
        differ = (should != was).nonzero()
        if not len(differ):
            return Judgement()
        row, column = (int(i) for i in differ[0])
        values = column - len(self.columns)
        what = self.columns[column] if values < 0 else f"value {values}"
        found, wanted = int(was[row, column]), int(should[row, column])
        return Judgement(
            "exact", f"{output}: after command {row} {what} is {found}, should be {wanted}"
        )
