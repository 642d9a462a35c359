"""What the sampling ops share: which tokens of a row a filter keeps, and the checks.

p = softmax((l - max l) / temperature); temperature 0 is the argmax alone, the lowest
index on ties. Then top_k keeps ``l >= the k-th largest l``; of what is left (renormalised), top_p
keeps token i iff the probability of all likelier tokens together is below top_p; of what is left,
min_p keeps ``p >= min_p * max p``. Equal logits stand or fall together, the argmax always stays.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from yaie.compare import BAND, LAMBDA, ROUNDING, U32, Choice, Contract
from yaie.fill import Fill
from yaie.op import Call
from yaie.ops import _paged as paged
from yaie.refusal import Refusal, bad_indptr, change, put

UNDERFLOW = 2.0**-125
"""What may be lost of a share: its exponential below 2^-126 may be flushed to 0, and so may the
quotient."""


@dataclass(frozen=True)
class Filter:
    """What a filter makes of each row, in float64 [B,V]."""

    z: Tensor
    """(l - max l) / temperature; -inf where nothing can be kept"""
    p: Tensor
    """exp(z), not normalised: 1 at the maximum"""
    kept: Tensor
    """the tokens kept, decided in float64"""
    choice: Choice
    """what float32 may keep"""
    exact: Tensor
    """[B,1]: no arithmetic is done, the temperature is 0 or the row invalid"""


def valid_rows(logits: Tensor) -> Tensor:
    """bool [B,1]: no NaN, no +inf, and something above -inf."""
    most = logits.amax(-1, keepdim=True)  # NaN if there is one
    return most.isfinite()


def first_largest(logits: Tensor) -> Tensor:
    """[B]: the lowest index of the largest value of each row."""
    return torch.from_numpy(logits.cpu().numpy().argmax(-1)).to(logits.device)


def filtered(
    logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor
) -> Filter:
    """Decide which tokens are kept, and which of them float32 cannot be sure of.

    Undecided are tokens whose mass above lies within BAND of top_p (where those above that float32
    cannot tell from the token itself may count or not), and those at min_p within rounding.
    """
    valid = valid_rows(logits)
    given = logits.double().masked_fill(~valid, 0.0)
    T, k, P, m = (x.double()[:, None] for x in (temperature, top_k, top_p, min_p))
    greedy = T == 0
    z = (given - given.amax(-1, keepdim=True)) / T.masked_fill(greedy, 1.0)
    p = z.exp()
    blur = 2 * relative_error(z)

    order, by = given.sort(-1, descending=True)
    V = given.shape[-1]
    threshold = order.gather(-1, k.clamp_max(V).long() - 1)
    left = given >= threshold
    mass = (p * left).gather(-1, by).cumsum(-1)
    total = mass[:, -1:]
    rising = order.flip(-1).contiguous()  # for searchsorted; z likewise
    ranks = z.gather(-1, by).flip(-1).contiguous()

    def mass_above(sorted_rising: Tensor, x: Tensor) -> Tensor:
        """Share of the tokens that are larger than x."""
        count = V - torch.searchsorted(sorted_rising, x, right=True)
        return mass.gather(-1, (count - 1).clamp_min(0)) * (count > 0) / total

    above, surely_above = mass_above(rising, given), mass_above(ranks, z + blur)
    top = given == order[:, :1]
    off = P >= 1
    kept = left & (off | (above < P)) & (p >= m)
    must = left & (off | (above + BAND < P) | top) & ((p >= m * (1 + blur)) | top)
    may = left & (off | (surely_above - BAND < P)) & (p >= m * (1 - blur)) & given.isfinite()

    first = torch.zeros_like(left).scatter(-1, first_largest(given)[:, None], True)
    kept, must, may = (torch.where(greedy, first, x) & valid for x in (kept, must, may))
    choice = Choice(order=given, rank=z, blur=blur, must=must & may, may=may)
    return Filter(z, p, kept & may, choice, greedy | ~valid)


def beside_a_token(fill: Fill, logits: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    """top_p of each row, moved to where it just decides: 2 BAND above the share of all tokens that
    are likelier than one, which is then kept, or below it. Of the tokens the one whose share above
    is nearest to the given top_p; a row that has none is left as it is."""
    given = {name: x.cpu() for name, x in parameters.items()}
    moved = given["top_p"].clone()
    off = {"top_p": torch.ones_like(moved), "min_p": torch.zeros_like(moved)}
    f = filtered(logits, **{**given, **off})
    for b in range(len(moved)):
        ranks, rank = torch.unique(f.z[b], return_inverse=True)  # from the least likely on
        mass = torch.zeros_like(ranks).scatter_add(0, rank, f.p[b] * f.kept[b])
        above = 1 - mass.cumsum(0) / mass.sum()
        above = above[(above > 4 * BAND) & (above < 1 - 4 * BAND)]
        side = 2 * BAND * float(fill.rng.choice((-1, 1)))
        if len(above) and not f.exact[b]:
            moved[b] = above[(above - moved[b]).abs().argmin()] + side
    return moved


def relative_error(z: Tensor) -> Tensor:
    """Of exp(z) where z = (l - max l) / T was computed in float32: a subtraction, a division (or a
    reciprocal and a product) and a change of base round z, 2 ulp are expf's. 0 at -inf."""
    return LAMBDA * (U32 * z.abs().masked_fill(z.isneginf(), 0.0) + 2.0**-22)


def share_errors(f: Filter, contract: Contract) -> dict[str, Tensor]:
    """The errors of exp(z) / sum exp(z) relative to it, by what makes them."""
    may = f.choice.may
    size = f.z.abs().masked_fill(~may, 0.0)
    weight = f.p.masked_fill(~may, 0.0)
    mean = (weight * size).sum(-1, keepdim=True) / weight.sum(-1, keepdim=True).clamp_min(1e-300)
    count = may.sum(-1, keepdim=True).double()
    errors = {
        ROUNDING: torch.full_like(f.z, U32),
        "logit over temperature": LAMBDA * U32 * (size + mean),
        "exp and division": torch.full_like(f.z, LAMBDA * 2.0**-22),
        "accumulation": contract.accumulation(count).expand_as(f.z),
    }
    return {name: error.masked_fill(f.exact, 0.0) for name, error in errors.items()}


def check_vocabulary(call: Call) -> None:
    """The door: there is something to choose from."""
    if call.axes["V"] == 0:
        raise ValueError(f"{call.op}: V is 0, must be at least 1")


def check_rows(call: Call, name: str, ok: Tensor, must: str) -> None:
    """Checked mode: a parameter is good in every row (NaN never is)."""
    if not bool(ok.all()):
        row = int((~ok).to(torch.int8).argmax())
        value = call.args[name][row].item()
        raise ValueError(f"{call.op}: {name}: [{row}] is {value}, must be {must}")


def check_filter(call: Call) -> None:
    """Checked mode: the parameters of a filter."""
    T, k, p, m = (call.args[name] for name in ("temperature", "top_k", "top_p", "min_p"))
    check_rows(call, "temperature", (T >= 0) & T.isfinite(), "finite and not negative")
    check_rows(call, "top_k", k >= 1, "at least 1 (V turns it off)")
    check_rows(call, "top_p", (p > 0) & (p <= 1), "above 0 and at most 1 (1 turns it off)")
    check_rows(call, "min_p", (m >= 0) & (m <= 1), "in 0..1 (0 turns it off)")


def bad_values(name: str, values: tuple[float, ...]) -> tuple[Refusal, ...]:
    """Refusals of values of a parameter, in its last row."""

    def spoiled(value: float) -> Callable[[Tensor], Tensor]:
        def spoil(x: Tensor) -> Tensor:
            x = x.clone()
            x[-1] = value
            return x

        return spoil

    says = f"{name}: [1] is"
    return tuple(
        Refusal(f"{name} {value}", change(name, spoiled(value)), ValueError, says, contents=True)
        for value in values
    )


def check_tokens(call: Call, name: str, axis: str) -> None:
    """Checked mode: packed tokens, each in the vocabulary."""
    paged.check_indptr(call, f"{name}_indptr", axis)
    tokens, V = call.args[name], call.axes["V"]
    outside = tokens[(tokens < 0) | (tokens >= V)]
    if outside.numel():
        raise ValueError(f"{call.op}: {name}: token {int(outside[0])} is outside [0, V = {V})")


def token_errors(name: str, axis: str) -> tuple[Refusal, ...]:
    """Refusals of tokens and an indptr, in a good call of 2 rows, 8 logits and 4 tokens."""
    return (
        Refusal(f"{name}: token V", put(name, 8, 1), ValueError, f"{name}: token 8", True),
        Refusal(f"{name}: token -1", put(name, -1, 0), ValueError, f"{name}: token -1", True),
        *bad_indptr(f"{name}_indptr", axis),
    )


NO_VOCABULARY = Refusal("V = 0", change("logits", lambda t: t[:, :0]), ValueError, "V is 0")
# For a good call of 2 rows.
FILTER_ERRORS = (
    NO_VOCABULARY,
    *bad_values("temperature", (-1.0, -1e-40, math.nan, math.inf)),
    *bad_values("top_k", (0, -1)),
    *bad_values("top_p", (0.0, -0.5, 1.5, math.nan)),
    *bad_values("min_p", (-0.1, 1.5, math.nan)),
)
