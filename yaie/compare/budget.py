"""Results that may be off by as much as a sum of terms, each derived, allows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from yaie.compare.knobs import LAMBDA, RHO, RHO_ROW
from yaie.compare.verdict import Judgement, Receipt, at, unravel

ROUNDING = "output rounding"
"""The term of a Budget that a result's own rounding takes."""


def rho(elements: int) -> float:
    """Allowance of the row gate for a row of that many elements."""
    return math.sqrt(1 + (RHO**2 - 1) * max(1.0, RHO_ROW / elements))


def weighty(model: Tensor) -> Tensor:
    """How many elements a row (last axis) has for the scatter of its mean square error, of which a
    few may be most: as many as a row of normally distributed numbers that scatters as much
    (docs/decisions/0013)."""
    square = model.square()
    count = 3 * square.sum(-1).square() / square.square().sum(-1)
    return count.nan_to_num(nan=model.shape[-1]).clamp(1, model.shape[-1])


def different(rows: Tensor) -> Tensor:
    """How many elements of each row (last axis) are rounded independently: numbers that differ by
    their sign or a power of two alone round alike (docs/decisions/0009)."""
    digits = torch.frexp(rows).mantissa.abs().float().sort(-1).values
    return 1 + (digits.diff(dim=-1) != 0).sum(-1)


@dataclass(frozen=True)
class Budget:
    """Within the sum of ``terms`` at every element; infinities must stand where they should.

    ``expected`` is float64 and never rounded. ``terms`` maps the name of a source of error to what
    it may contribute, per element (shaped like ``expected``). ``model``, if given, is the expected
    size of the error per element, for the second gate: a row's (last axis) RMS error is at most
    ``rho`` times its model's. A comparison with NaN is false, so NaN never passes.
    """

    expected: Tensor
    terms: Mapping[str, Tensor]
    model: Tensor | None = None

    def judge(self, output: str, actual: Tensor) -> Judgement:
        """Check every element, infinities by position, then the rows."""
        if not actual.numel():
            return Judgement()
        value = actual.to(torch.float64)
        error = (value - self.expected).abs()
        terms = torch.stack(list(self.terms.values()))
        allowed = terms.sum(0)
        equal = value == self.expected  # infinities too, of which the difference is NaN
        # An infinity is right where it is expected and nowhere else, whatever a term would allow.
        within = (error <= allowed) & (error < math.inf) | equal
        receipt = self._receipt(output, value, error, terms, allowed, equal)
        if bool(within.all()):
            return self._judge_rows(output, error.masked_fill(equal, 0.0), receipt)
        wrong_special = ~(equal | self.expected.isfinite())
        if bool(wrong_special.any()):
            index = unravel(int(wrong_special.to(torch.int8).argmax()), value)
            where = ", ".join(map(str, index))
            was, should = float(value[index]), float(self.expected[index])
            return Judgement("special values", f"{output}[{where}] is {was}, should be {should}")
        return Judgement("budget", str(receipt), receipt)

    def _receipt(
        self,
        output: str,
        value: Tensor,
        error: Tensor,
        terms: Tensor,
        allowed: Tensor,
        equal: Tensor,
    ) -> Receipt:
        # NaN is the worst error of all; an element that is exact uses nothing, allowance or not.
        used = (error / allowed).nan_to_num(nan=torch.inf, posinf=torch.inf).masked_fill(equal, 0.0)
        worst = int(used.argmax())
        index = unravel(worst, used)
        shares = dict(zip(self.terms, terms.flatten(1)[:, worst].tolist(), strict=True))
        return Receipt(
            output=output,
            used=float(used[index]),
            term=max(shares, key=lambda name: shares[name]),
            index=index,
            actual=float(value[index]),
            expected=float(self.expected[index]),
            allowed=float(allowed[index]),
        )

    def _judge_rows(self, output: str, error: Tensor, receipt: Receipt) -> Judgement:
        if self.model is None:
            return Judgement(receipt=receipt)
        rms = error.square().mean(-1).sqrt()
        limit = rho(error.shape[-1]) * self.model.square().mean(-1).sqrt()
        within = rms <= limit
        if not bool(within.all()):  # seldom, so only now
            limit = self.row_limit()
            within = rms <= limit
        if bool(within.all()):
            return Judgement(receipt=receipt)
        ratio = torch.where(within, 0.0, rms / limit)
        index = unravel(int(ratio.argmax()), ratio)
        where = ", ".join(map(str, index))
        reason = (
            f"{output}[{where}, :] has RMS error {float(rms[index]):.3g}, the model allows "
            f"{float(limit[index]):.3g} ({float(ratio[index]):.3g} of it used): a systematic error "
            "in a row whose elements each pass"
        )
        return Judgement("row budget", reason, receipt)

    def row_limit(self) -> Tensor:
        """What a row's RMS error may be: ``rho`` times that of the model where all elements weigh
        about the same, more where few are most of it or are rounded independently."""
        assert self.model is not None
        scatter = (RHO**2 - 1) * (RHO_ROW / weighty(self.model)).clamp_min(1.0)
        square = (1 + scatter) * self.model.square().mean(-1)
        return (square + self._alike() if ROUNDING in self.terms else square).sqrt()

    def _alike(self) -> Tensor:
        """What rounding alike adds to a row's mean square: its model has the variance of rounding,
        a third of the largest square, and numbers that repeat may all reach that."""
        repeated = 1 - different(self.expected) / self.expected.shape[-1]
        return repeated * self.terms[ROUNDING].square().mean(-1) * 2 / 3


@dataclass(frozen=True)
class Norm:
    """Each row (last axis) within LAMBDA times the norm of ``model``, the standard errors of its
    elements, and all rows together within ``relative`` times the norm of ``expected`` (float64)."""

    expected: Tensor
    model: Tensor
    relative: float = math.inf

    def judge(self, output: str, actual: Tensor) -> Judgement:
        """Compare the rows, then the whole."""
        if not actual.numel():
            return Judgement()
        error = actual.to(torch.float64) - self.expected
        if not bool(error.isfinite().all()):
            index = unravel(int((~error.isfinite()).to(torch.int8).argmax()), error)
            what = f"{at(output, index)} is {float(actual[index])}"
            return Judgement("special values", f"{what}, should be {float(self.expected[index])}")
        far, limit = error.norm(dim=-1), LAMBDA * self.model.norm(dim=-1)
        used = torch.where(far == 0, 0.0, far / limit)
        row = unravel(int(used.argmax()), used)
        label, numbers = f"distance of {output}", (float(far[row]), 0.0, float(limit[row]))
        receipt = Receipt(label, float(used[row]), "roundings of the chain", row, *numbers)
        if not bool((far <= limit).all()):
            return Judgement("norm", str(receipt), receipt)
        whole, norm = float(error.norm()), float(self.expected.norm())
        if not whole <= self.relative * norm:
            share = whole / norm if norm else math.inf
            reason = f"{output} is {share:.3g} of its norm away, {self.relative:g} is allowed"
            return Judgement("norm", reason, receipt)
        return Judgement(receipt=receipt)
