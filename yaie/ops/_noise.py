"""The exponential race that draws a token, and its noise.

Token v arrives at time E_v / p_v, and the first to arrive is drawn: the largest
``log p_v - log E_v``. E_v ~ Exp(1) is made of 32 bits, accurately near 0 and far out::

    x = Philox4x32-10(counter = (v // 4, position, 0, 0), key = (seed low, seed high))[v % 4]
    E = -log1p(-(x + 1/2) / 2^32)                 if x < 2^31
        -log((2^32 - 1 - x + 1/2) / 2^32)         else

seed and position count as bits (int64 and int32). E lies in [1.16e-10, 22.9]; a float32 uniform
number would be rounded to 1 and make E infinite or 0, and a grid of 2^-24 hides tokens below 1e-7.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from yaie.compare import Choice
from yaie.fill import Fill

Words = NDArray[np.uint64]
_MASK = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def philox(counter: tuple[Words, Words, Words, Words], key: tuple[int, int]) -> Words:
    """Philox4x32-10 (Salmon et al., SC 2011) of each counter: uint32 numbers, [4, ...]."""
    c0, c1, c2, c3 = counter
    k0, k1 = np.uint64(key[0]), np.uint64(key[1])
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (b >> _HALF) ^ c1 ^ k0, b & _MASK, (a >> _HALF) ^ c3 ^ k1, a & _MASK
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & _MASK, (k1 + np.uint64(0xBB67AE85)) & _MASK
    return np.stack(np.broadcast_arrays(c0, c1, c2, c3))


def random_bits(seed: int, position: int, V: int) -> Words:
    """The 32 random bits x_v of every token of one draw."""
    seed, position = seed % 2**64, position % 2**32
    blocks = np.arange(-(-V // 4), dtype=np.uint64)
    zero = np.zeros_like(blocks)
    words = philox((blocks, zero + np.uint64(position), zero, zero), (seed % 2**32, seed >> 32))
    bits: Words = words.T.reshape(-1)[:V]
    return bits


def exponential(x: Words) -> NDArray[np.float64]:
    """Exp(1) from 32 random bits, accurate on both sides."""
    low = (x + 0.5) * 2.0**-32
    high = (2.0**32 - 1 - x + 0.5) * 2.0**-32
    e: NDArray[np.float64] = np.where(x < 2**31, -np.log1p(-low), -np.log(high))
    return e


def noise(seed: Tensor, position: Tensor, V: int) -> Tensor:
    """log E of every token of each row's draw, float64 [B,V]."""
    draws = zip(seed.tolist(), position.tolist(), strict=True)
    drawn = [np.log(exponential(random_bits(s, at, V))) for s, at in draws]
    rows = np.stack(drawn) if drawn else np.empty((0, V))
    return torch.from_numpy(rows).to(seed.device)


CLOSE = "close"
"""The family of rows in which all tokens arrive at about the same time (close_race)."""
LEAD = 4e-4
"""By how much the winner of a close race beats the second: four times what a draw may be off."""
OUTSIDER = "outsider"
"""The family of rows that the least likely token wins (outsider_race)."""


def close_race(fill: Fill, seed: Tensor, position: Tensor, V: int) -> Tensor:
    """log p of rows in which all tokens arrive at about the same time, float64 [B,V].

    One token of each leads by LEAD, the last by twice that: any, or by the toss of a coin the one
    with the least noise and weight, which who prunes the race lets in last. So any token whose
    noise is off by more, or that is left out for its weight, is drawn falsely or beaten falsely.
    """
    log_noise = noise(seed.cpu(), position.cpu(), V)
    behind = LEAD * (1.0 + torch.from_numpy(fill.rng.random((len(seed), V))))
    leader = torch.from_numpy(fill.rng.integers(V, size=len(seed)))
    least = torch.from_numpy(fill.rng.random(len(seed)) < 0.5)
    leader = torch.where(least, log_noise.argmin(-1), leader)
    return log_noise - behind.scatter(1, leader[:, None], 0.0)


def outsider_race(seed: Tensor, position: Tensor, V: int) -> Tensor:
    """log p of rows with two tokens, the one with the most noise and the one with the least, which
    wins by LEAD. In a draw whose least noise is extreme the winner is the least likely token that
    can win at all: who prunes the race sooner leaves it out. float64 [B,V]."""
    log_noise = noise(seed.cpu(), position.cpu(), V)
    log_p = torch.full_like(log_noise, -math.inf)
    most, least = log_noise.max(-1, keepdim=True), log_noise.min(-1, keepdim=True)
    log_p.scatter_(1, most.indices, 0.0)
    return log_p.scatter(1, least.indices, least.values - most.values + LEAD * (V > 1))


@dataclass(frozen=True)
class Race:
    """The scores of a draw, and who wins."""

    choice: Choice
    """who takes part"""
    score: Tensor
    """rank - log E, [B,V]; -inf for who cannot take part"""
    token: Tensor
    """[B]: the winner; -1 where none takes part"""

    @staticmethod
    def run(choice: Choice, kept: Tensor, seed: Tensor, position: Tensor) -> Race:
        """The race between the tokens of ``kept``, by their rank (the logarithm of a weight)."""
        score = choice.rank - noise(seed, position, kept.shape[-1])
        ranked = score.masked_fill(~kept, -math.inf).cpu().numpy()
        first = torch.from_numpy(ranked.argmax(-1)).to(kept.device)  # the lowest index on ties
        token = torch.where(kept.any(-1), first, -1).int()
        return Race(choice, score.masked_fill(~choice.may, -math.inf), token)


def check_key(key: int, position: int) -> None:
    """A Case's key and position are what the tensors can hold."""
    if key >= 2**63 or position >= 2**31:
        raise ValueError(f"key is {key} and position {position}, beyond int64 and int32")


EDGES: dict[str, Callable[[Any], bool]] = {
    "a close race": lambda c: c.family == CLOSE and c.B > 0 and c.V > 1,
    "a close race over long rows of a block each": lambda c: (
        c.family == CLOSE and c.B >= 40 and 8192 < c.V <= 32768
    ),
    "a close race of more tokens than 18 bits count": lambda c: (
        c.family == CLOSE and c.B > 0 and c.V > 1 << 18
    ),
}
"""In the second a thread of ``split`` reads a row in several turns."""
