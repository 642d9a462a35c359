"""How a result is judged: bit for bit, or within an error budget that is derived term by term.

A budget is never a hand-picked tolerance. Each term of it is an error that a correct kernel of the
declared precision contract really makes (rounding of the output, of P, of the scores, of the
sums), and the verdict prints the receipt: how much of the allowance was used at the worst element,
and by which term. The constants below are the only knobs; a change of one needs a decision note
with a measurement. Model, and how its constants were calibrated: docs/error-model.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

LAMBDA = 4.0
"""Allowance for the sum of independent rounding errors, in standard deviations (measured: 2.8)."""
RHO = 1.25
"""Allowance for a row's root mean square error against its model (measured: 1.18)."""
RHO_ROW = 64
"""Shortest row that RHO was calibrated on. A mean over fewer elements scatters more, so the
allowance grows by the factor that keeps the chance of a false alarm (docs/decisions/0002)."""
LSE_C = 16.0
"""Allowance for the log-sum-exp, in units of 2^-24 (1 + S + |lse|) (measured: 9.6)."""
SCORE_C = 2.0
"""Standard deviations of a fp32 dot product's error, in units of sqrt(D) 2^-24 |q| |k|."""

U32 = 2.0**-24
"""Unit roundoff of float32, in which every kernel accumulates."""


def unit_roundoff(dtype: torch.dtype) -> float:
    """Half the distance from 1 to the next number: 2^-24, 2^-11, 2^-8."""
    return torch.finfo(dtype).eps / 2


def rho(elements: int) -> float:
    """Allowance of the row gate for a row of that many elements."""
    return math.sqrt(1 + (RHO**2 - 1) * max(1.0, RHO_ROW / elements))


@dataclass(frozen=True)
class Contract:
    """The precision that a kernel declares; the budget follows from it.

    ``p_rounded``: softmax weights are rounded to the dtype before they multiply V.
    ``row_sum_of_rounded_p``: the normaliser sums those rounded weights.
    ``partials_in_dtype``: split-KV partial outputs are stored in the dtype, not in float32.
    ``accumulator``: "ieee" float32 adds, or a "tensor_core", which truncates.
    """

    p_rounded: bool = False
    row_sum_of_rounded_p: bool = False
    partials_in_dtype: bool = False
    accumulator: Literal["ieee", "tensor_core"] = "ieee"

    @property
    def roundings(self) -> int:
        """How many times a product P·V is rounded to the dtype on its way (w of the model)."""
        return int(self.p_rounded) + int(self.partials_in_dtype)

    def accumulation(self, n: Tensor) -> Tensor:
        """Relative error of a sum of ``n`` terms (g of the model)."""
        return n * (U32 / 6) if self.accumulator == "tensor_core" else 4 * U32 * n.sqrt()


FLOAT32_THROUGHOUT = Contract()
"""The strictest contract: float32 throughout, one rounding to the dtype at the end."""


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


@dataclass(frozen=True)
class Exact:
    """Equal bit for bit, NaN payloads and the sign of zero included."""

    expected: Tensor

    def judge(self, output: str, actual: Tensor) -> Judgement:
        """Compare raw bytes; name the first element that differs."""
        same = _raw(actual) == _raw(self.expected)
        if bool(same.all()):
            return Judgement()
        index = tuple(int(i) for i in (~same).nonzero()[0])
        was, should = actual[index].item(), self.expected[index].item()
        where = ", ".join(map(str, index))
        return Judgement("exact", f"{output}[{where}] is {was}, should be {should} (bit for bit)")


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


def _raw(tensor: Tensor) -> Tensor:
    ints = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.contiguous().view(ints[tensor.element_size()])


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
        allowed = torch.stack(list(self.terms.values())).sum(0)
        equal = value == self.expected  # infinities too, of which the difference is NaN
        # An infinity is right where it is expected and nowhere else, whatever a term would allow.
        within = (error <= allowed) & (value.isfinite() & self.expected.isfinite()) | equal
        receipt = self._receipt(output, value, error, allowed, equal)
        if bool(within.all()):
            return self._judge_rows(output, error.masked_fill(equal, 0.0), receipt)
        wrong_special = ~(equal | self.expected.isfinite())
        if bool(wrong_special.any()):
            index = _unravel(int(wrong_special.to(torch.int8).argmax()), value)
            where = ", ".join(map(str, index))
            was, should = float(value[index]), float(self.expected[index])
            return Judgement("special values", f"{output}[{where}] is {was}, should be {should}")
        return Judgement("budget", str(receipt), receipt)

    def _receipt(
        self, output: str, value: Tensor, error: Tensor, allowed: Tensor, equal: Tensor
    ) -> Receipt:
        # NaN is the worst error of all; an element that is exact uses nothing, allowance or not.
        used = (error / allowed).nan_to_num(nan=torch.inf, posinf=torch.inf).masked_fill(equal, 0.0)
        index = _unravel(int(used.argmax()), used)
        shares = {name: float(term[index]) for name, term in self.terms.items()}
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
        if bool(within.all()):
            return Judgement(receipt=receipt)
        ratio = torch.where(within, 0.0, rms / limit)
        index = _unravel(int(ratio.argmax()), ratio)
        where = ", ".join(map(str, index))
        reason = (
            f"{output}[{where}, :] has RMS error {float(rms[index]):.3g}, the model allows "
            f"{float(limit[index]):.3g} ({float(ratio[index]):.3g} of it used): a systematic error "
            "in a row whose elements each pass"
        )
        return Judgement("row budget", reason, receipt)


def _unravel(flat: int, tensor: Tensor) -> tuple[int, ...]:
    """The index of element number ``flat``."""
    index = []
    for size in reversed(tensor.shape):
        flat, i = divmod(flat, size)
        index.append(i)
    return tuple(reversed(index))
