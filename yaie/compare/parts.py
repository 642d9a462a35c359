"""Arguments and results of which some elements are judged otherwise than the rest."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from yaie.compare.budget import Budget
from yaie.compare.exact import raw, told
from yaie.compare.verdict import Comparison, Judgement, at, unravel


@dataclass(frozen=True)
class Written:
    """What a mutated argument holds at ``rows`` of its first two axes (as one) after the call,
    judged by ``values``. Every byte that no row names must be what the reference left there."""

    rows: Tensor
    values: Comparison

    @property
    def expected(self) -> Tensor:
        """What stands at the rows."""
        return self.values.expected

    def select(self, argument: Tensor) -> Tensor:
        """A copy of the rows of an argument."""
        return argument.flatten(0, 1)[self.rows]

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Copy the rows of one argument to those of another."""
        target.flatten(0, 1)[self.rows] = self.select(source)

    def judge(self, output: str, actual: Tensor) -> Judgement:
        """Judge the selected rows."""
        return self.values.judge(output, actual)


@dataclass(frozen=True)
class Patched:
    """The bits of ``source``, but for the elements of ``patch``, which are judged by ``values``.
    A NaN that is patched stays one."""

    source: Tensor
    patch: Tensor
    values: Budget

    @property
    def expected(self) -> Tensor:
        """The source with the reference's own values in the patch."""
        return torch.where(self.patch, self.values.expected, self.source.double())

    def judge(self, output: str, actual: Tensor) -> Judgement:
        """Compare bits outside the patch, then the values in it."""
        moved = (raw(actual) != raw(self.source)) & ~self.patch
        if bool(moved.any()):
            index = unravel(int(moved.to(torch.int8).argmax()), moved)
            was, should = told(actual[index], self.source[index])
            reason = f"{at(output, index)} is {was}, should be {should} (bit for bit)"
            return Judgement("exact", reason)
        nan = self.patch & self.source.isnan()
        if bool((nan & ~actual.isnan()).any()):
            index = unravel(int((nan & ~actual.isnan()).to(torch.int8).argmax()), nan)
            return Judgement("special values", f"{at(output, index)} must stay NaN")
        skip = ~self.patch | nan
        values = Budget(
            self.values.expected.masked_fill(skip, 0.0),
            {name: term.masked_fill(skip, 0.0) for name, term in self.values.terms.items()},
        )
        return values.judge(output, actual.masked_fill(skip, 0.0))
