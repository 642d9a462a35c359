"""Tokens, which floating-point scores choose or chance draws."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from yaie.compare.budget import Budget
from yaie.compare.knobs import MARGIN
from yaie.compare.verdict import Judgement, Receipt, at, unravel


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
                return unravel(int(wrong.to(torch.int8).argmax()), wrong), why
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
            index = unravel(int(strange.to(torch.int8).argmax()), value)
            return Judgement("special values", f"{at(output, index)} is {float(value[index])}")
        chosen = value > 0
        lost = self._shared_by(self.choice.may) <= self.floor
        fault = self.choice.fault(chosen, lost)
        if fault is not None:
            index, why = fault
            return Judgement("band", f"{at(output, index)} is {float(value[index]):.9g}, {why}")
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
