"""How a result is judged: bit for bit, or within an error budget that is derived term by term.

A budget is never a hand-picked tolerance. Each term of it is an error that a correct kernel of the
declared precision contract really makes (rounding of the output, of P, of the scores, of the
sums), and the verdict prints the receipt: how much of the allowance was used at the worst element,
and by which term. The constants below are the only knobs; a change of one needs a decision note
with a measurement. Model, and how its constants were calibrated: docs/error-model.md.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

LAMBDA = 4.0
"""Allowance for the sum of independent rounding errors, in standard deviations (measured: 2.8)."""
RHO = 1.25
"""Allowance for a row's root mean square error against its model (measured: 1.18)."""
RHO_ROW = 64
"""Shortest row that RHO was calibrated on. A mean over fewer elements scatters more, so the
allowance grows by the factor that keeps the chance of a false alarm (docs/decisions/0002)."""
ROW_P = 1.5
"""Share of (u p v)^2 that a rounding of P adds to a row's mean square. Alone, an element has 1/3,
the variance of an error that is at most u; a row whose values go up and down together scatters
more (docs/decisions/0007)."""
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


def weighty(model: Tensor) -> Tensor:
    """How many elements a row (last axis) has for the scatter of its mean square error, of which a
    few may be most: as many as a row of normally distributed numbers that scatters as much
    (docs/decisions/0013)."""
    square = model.square()
    count = 3 * square.sum(-1).square() / square.square().sum(-1)
    return count.nan_to_num(nan=model.shape[-1]).clamp(1, model.shape[-1])


ROUNDING = "output rounding"
"""The term of a Budget that a result's own rounding takes."""


def different(rows: Tensor) -> Tensor:
    """How many elements of each row (last axis) are rounded independently: numbers that differ by
    their sign or a power of two alone round alike (docs/decisions/0009)."""
    digits = torch.frexp(rows).mantissa.abs().float().sort(-1).values
    return 1 + (digits.diff(dim=-1) != 0).sum(-1)


@dataclass(frozen=True)
class Contract:
    """The precision that a kernel declares; the budget follows from it.

    ``p_rounded``: softmax weights are rounded to the dtype before they multiply V.
    ``p_from_constant``: they are exp(score - something else than the largest score of their tile):
    a constant, or the maximum of fewer keys than eight (docs/decisions/0036).
    ``row_sum_of_rounded_p``: the normaliser sums those rounded weights.
    ``partials_in_dtype``: split-KV partial outputs are stored in the dtype, not in float32.
    ``accumulator``: "ieee" float32 adds, or a "tensor_core", which truncates.
    """

    p_rounded: bool = False
    p_from_constant: bool = False
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

    def beyond(self, other: Contract) -> str:
        """What it says and the other does not, as the arguments that say it."""
        return ", ".join(
            f"{name}={value!r}"
            for name, value in _DECLARED.items()
            if getattr(other, name) != getattr(self, name) == value
        )

    def with_more(self) -> list[Contract]:
        """This contract with all declared that may be, then with one more thing, with two, ..."""
        missing = [name for name, value in _DECLARED.items() if getattr(self, name) != value]
        counts = (len(missing), *range(1, len(missing))) if missing else ()
        return [
            replace(self, **{name: _DECLARED[name] for name in names})
            for count in counts
            for names in itertools.combinations(missing, count)
        ]


_DECLARED: dict[str, Any] = {
    "p_rounded": True,
    "p_from_constant": True,
    "row_sum_of_rounded_p": True,
    "partials_in_dtype": True,
    "accumulator": "tensor_core",
}
"""What a contract may say beyond the strictest."""


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
        was, should = told(actual[index], self.expected[index])
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


def told(was: Tensor, should: Tensor) -> tuple[str, str]:
    """Two numbers in words; with their bits where the words are the same, as those of NaNs are."""
    words = [str(x.item()) for x in (was, should)]
    if words[0] == words[1]:
        digits = 2 * was.element_size()
        bits = (int(_raw(x)) % 16**digits for x in (was, should))
        words = [f"{word} (0x{b:0{digits}x})" for word, b in zip(words, bits, strict=True)]
    return words[0], words[1]


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
            index = _unravel(int(wrong_special.to(torch.int8).argmax()), value)
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
        index = _unravel(worst, used)
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
        index = _unravel(int(ratio.argmax()), ratio)
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


def _unravel(flat: int, tensor: Tensor) -> tuple[int, ...]:
    """The index of element number ``flat``."""
    index = []
    for size in reversed(tensor.shape):
        flat, i = divmod(flat, size)
        index.append(i)
    return tuple(reversed(index))


# Choices by floating-point scores ---------------------------------------------------------------

BAND = 2.0**-10
"""How near to its threshold a probability mass is undecided. A float32 running sum over 128,256
tokens is off by up to 1.7e-4 (docs/decisions/0033)."""
MARGIN = 1e-4
"""Scores (logarithms) nearer than this are one to float32 (docs/decisions/0034)."""


@dataclass(frozen=True)
class Choice:
    """A set of tokens of each row, chosen by floating-point scores, all [B,V].

    The set holds every token of ``must`` and none outside ``may``. Tokens of equal ``order`` stand
    or fall together, and a token is chosen with all whose ``rank`` is higher by more than ``blur``
    (nearer ranks are one to float32).
    """

    order: Tensor
    rank: Tensor
    blur: Tensor
    must: Tensor
    may: Tensor

    def fault(self, chosen: Tensor, lost: Tensor) -> tuple[tuple[int, ...], str] | None:
        """The first token that is wrongly in the set or out of it, and why. ``lost`` ones may be
        missing: their share underflows."""
        out = self.may & ~chosen & ~lost
        order, by = self.order.sort(-1)
        twins = order[:, 1:] == order[:, :-1]
        in_sorted, out_sorted = chosen.gather(-1, by), out.gather(-1, by)
        split = torch.zeros_like(chosen)
        split[:, 1:] = twins & (
            in_sorted[:, 1:] & out_sorted[:, :-1] | out_sorted[:, 1:] & in_sorted[:, :-1]
        )
        highest_out = self.rank.masked_fill(~out, -math.inf).amax(-1, keepdim=True)
        for wrong, why in (
            (chosen & ~self.may, "must be dropped (0)"),
            (self.must & out, "must be kept"),
            (
                torch.zeros_like(split).scatter(-1, by, split),
                "and an equal one are treated unlike",
            ),
            (chosen & (self.rank + self.blur < highest_out), "is kept, a likelier one is dropped"),
        ):
            if bool(wrong.any()):
                return _unravel(int(wrong.to(torch.int8).argmax()), wrong), why
        return None


@dataclass(frozen=True)
class Band:
    """The shares of a set of tokens, of which only those outside a band are known for certain.

    What is not 0 is the set; it must be one that ``choice`` allows. Its shares are the weights
    (float64, [B,V]) over their sum, each within a budget: ``shares`` are errors relative to the
    share, ``floor`` [B,1] is what underflow may cost. ``decided`` is the reference's own set.
    """

    choice: Choice
    weights: Tensor
    decided: Tensor
    shares: Mapping[str, Tensor]
    floor: Tensor

    @property
    def expected(self) -> Tensor:
        """The shares of the reference's own set."""
        return self._shared_by(self.decided)

    def _shared_by(self, chosen: Tensor) -> Tensor:
        kept = self.weights.masked_fill(~chosen, 0.0)
        return kept / kept.sum(-1, keepdim=True).clamp_min(1e-300)

    def judge(self, output: str, actual: Tensor) -> Judgement:
        """First which tokens are kept, then how much each got."""
        if not actual.numel():
            return Judgement()
        value = actual.to(torch.float64)
        strange = ~value.isfinite() | actual.signbit()
        if bool(strange.any()):
            index = _unravel(int(strange.to(torch.int8).argmax()), value)
            return Judgement("special values", f"{_at(output, index)} is {float(value[index])}")
        chosen = value > 0
        lost = self._shared_by(self.choice.may) <= self.floor
        fault = self.choice.fault(chosen, lost)
        if fault is not None:
            index, why = fault
            return Judgement("band", f"{_at(output, index)} is {float(value[index]):.9g}, {why}")
        expected = self._shared_by(chosen)
        terms = {name: relative * expected for name, relative in self.shares.items()}
        terms["underflow"] = self.floor * self.choice.may
        return Budget(expected, terms).judge(output, actual)


@dataclass(frozen=True)
class Margin:
    """A token of each row, [B]: of those that are certainly in the set of tokens that ``choice``
    leaves, none has a score (float64, [B,V]) that is higher by more than ``delta``. Where
    ``expected``, the reference's own token, is negative, so must the answer be."""

    choice: Choice
    score: Tensor
    expected: Tensor
    delta: float = MARGIN

    def judge(self, output: str, actual: Tensor) -> Judgement:
        """Look up the score of each token, and compare it with the best."""
        V = self.score.shape[-1]
        token = actual.long()
        none = self.expected < 0
        wrong = torch.where(none, token != self.expected, (token < 0) | (token >= V))
        at = token.clamp(0, V - 1)[:, None]
        choice = self.choice
        wrong |= ~none & ~choice.may.gather(-1, at)[:, 0]
        likelier = choice.rank > (choice.rank + choice.blur).gather(-1, at)
        certain = choice.must | choice.may & (
            likelier | (choice.order == choice.order.gather(-1, at))
        )
        best = self.score.masked_fill(~certain, -math.inf).amax(-1)
        own = self.score.gather(-1, at)[:, 0]
        gap = torch.where(none | wrong, 0.0, best - own)
        wrong |= ~(gap <= self.delta)
        if not bool(wrong.any()):
            return Judgement(receipt=self._receipt(output, gap, own, best))
        row = int(wrong.to(torch.int8).argmax())
        reason = f"{output}[{row}] is {int(token[row])}, should be {int(self.expected[row])}"
        if 0 < float(gap[row]) < math.inf:
            reason += f": its score is lower by {float(gap[row]):.3g}, {self.delta:g} is allowed"
        return Judgement("margin", reason)

    def _receipt(self, output: str, gap: Tensor, own: Tensor, best: Tensor) -> Receipt | None:
        if not gap.numel():
            return None
        row = int(gap.argmax())
        used, scores = max(0.0, float(gap[row])) / self.delta, (float(own[row]), float(best[row]))
        return Receipt(f"score of {output}", used, "margin", (row,), *scores, self.delta)


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
        moved = (_raw(actual) != _raw(self.source)) & ~self.patch
        if bool(moved.any()):
            index = _unravel(int(moved.to(torch.int8).argmax()), moved)
            was, should = told(actual[index], self.source[index])
            reason = f"{_at(output, index)} is {was}, should be {should} (bit for bit)"
            return Judgement("exact", reason)
        nan = self.patch & self.source.isnan()
        if bool((nan & ~actual.isnan()).any()):
            index = _unravel(int((nan & ~actual.isnan()).to(torch.int8).argmax()), nan)
            return Judgement("special values", f"{_at(output, index)} must stay NaN")
        skip = ~self.patch | nan
        values = Budget(
            self.values.expected.masked_fill(skip, 0.0),
            {name: term.masked_fill(skip, 0.0) for name, term in self.values.terms.items()},
        )
        return values.judge(output, actual.masked_fill(skip, 0.0))


@dataclass(frozen=True)
class Statistic:
    """Whether tokens, [N], were drawn from the probabilities ``expected``, [V]: Pearson's
    chi-square test at significance ``alpha``. With fixed seeds it gives one answer for good."""

    expected: Tensor
    alpha: float = 1e-6

    def judge(self, output: str, actual: Tensor) -> Judgement:
        """Count the tokens, and compare the counts with their means."""
        bins = self.expected.numel()
        outside = (actual < 0) | (actual >= bins)
        if bool(outside.any()):
            row = int(outside.to(torch.int8).argmax())
            return Judgement(
                "statistic", f"{output}[{row}] is {int(actual[row])}, outside 0..{bins}"
            )
        counts = torch.bincount(actual.long(), minlength=bins).double()
        mean = self.expected * len(actual)
        possible = mean > 0
        if bool(counts[~possible].any()):
            return Judgement("statistic", f"{output}: a token of probability 0 was drawn")
        distance = ((counts - mean).square() / mean)[possible].sum()
        freedom = torch.tensor((int(possible.sum()) - 1) / 2, dtype=torch.float64)
        chance = float(torch.special.gammaincc(freedom, distance / 2))
        if chance >= self.alpha:
            return Judgement()
        reason = (
            f"{output}: chi-square {float(distance):.4g}, by chance once in {1 / chance:.2g} times"
        )
        return Judgement("statistic", reason)


def _at(output: str, index: tuple[int, ...]) -> str:
    return f"{output}[{', '.join(map(str, index))}]"


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


# Composites --------------------------------------------------------------------------------------


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
            index = _unravel(int((~error.isfinite()).to(torch.int8).argmax()), error)
            what = f"{_at(output, index)} is {float(actual[index])}"
            return Judgement("special values", f"{what}, should be {float(self.expected[index])}")
        far, limit = error.norm(dim=-1), LAMBDA * self.model.norm(dim=-1)
        used = torch.where(far == 0, 0.0, far / limit)
        row = _unravel(int(used.argmax()), used)
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
