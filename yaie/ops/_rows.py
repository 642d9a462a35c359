"""How the Cases of the sampling ops become tensors: families of rows of logits and of
probabilities, the parameters of each row, the keys of its noise. A family is a named way to draw a
row that makes one kind of mistake visible."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from yaie.fill import Fill

Family = Callable[[Fill, int], Tensor]

# Logits -----------------------------------------------------------------------------------------


def _normal(fill: Fill, V: int) -> Tensor:
    """Normal numbers, wide enough that some tokens are likely and most are not."""
    return 3 * fill.normal(V)


def _flat(fill: Fill, V: int) -> Tensor:
    """All alike."""
    return torch.full((V,), -1.25)


def _ties(fill: Fill, V: int) -> Tensor:
    """A few values, so that many are equal; zeros of both signs."""
    x = (2 * fill.normal(V)).round() / 2
    return torch.where(x == 0, torch.copysign(x, fill.normal(V)), x)


def _signed_zeros(fill: Fill, V: int) -> Tensor:
    """Zeros of both signs: all are equal."""
    return torch.copysign(torch.zeros(V), fill.normal(V))


def _bf16(fill: Fill, V: int) -> Tensor:
    """As a model in bfloat16 gives them."""
    return (4 * fill.normal(V)).bfloat16().float()


def _geometric(fill: Fill, V: int) -> Tensor:
    """Each token 0.7 times as likely as the one before, in random order."""
    return math.log(0.7) * torch.from_numpy(fill.permutation(V)).float()


def _onehot(fill: Fill, V: int) -> Tensor:
    """One token has all the weight."""
    x = fill.normal(V)
    x[fill.rng.integers(V)] = 40.0
    return x


def _spiky(fill: Fill, V: int) -> Tensor:
    """A few tokens have most of the weight."""
    x = fill.normal(V)
    x[fill.rng.integers(0, V, size=1 + V // 16)] += 8.0
    return x


def _big(fill: Fill, V: int) -> Tensor:
    """Thousands: exp overflows unless the maximum is taken off first."""
    return 1e4 * fill.normal(V)


def _huge(fill: Fill, V: int) -> Tensor:
    """Near the ends of float32: even a difference overflows."""
    return fill.normal(V).sign() * 3e38


def _lowest(fill: Fill, V: int) -> Tensor:
    """Near the lowest of float32: a bound a little below them is -inf."""
    return 1e36 * fill.normal(V).clamp(-5, 5) - 3.2e38


def _tail(fill: Fill, V: int) -> Tensor:
    """One likely token, the others at 1e-8 of it."""
    x = torch.full((V,), math.log(1e-8))
    x[fill.rng.integers(V)] = 0.0
    return x


def _neighbours(fill: Fill, V: int) -> Tensor:
    """Neighbouring floats near 10: only temperatures of 1e-7 to 1e-5 tell them apart."""
    return 10.0 + torch.from_numpy(fill.rng.integers(0, 16, V)).float() * 2.0**-20


def _subnormal(fill: Fill, V: int) -> Tensor:
    """Subnormal numbers: distinct, though all next to 0."""
    return 1e-39 * fill.normal(V)


def _late(fill: Fill, V: int) -> Tensor:
    """All likely tokens are the last of the vocabulary."""
    x = fill.normal(V)
    x[-(1 + min(V // 4, 64)) :] += 12.0
    return x


def _shelf(fill: Fill, V: int) -> Tensor:
    """Some likely tokens, and far more that are nearly alike and together outweigh them: where
    top_k cuts these, most of their weight goes."""
    x = 0.01 * fill.normal(V) - 3.0
    likely = fill.permutation(V)[: 1 + min(V // 8, 12)]
    x[likely] = -0.06 * torch.arange(len(likely)).float()
    return x


def _plateau(fill: Fill, V: int) -> Tensor:
    """An eighth of the tokens, and below them all others, nearly alike and together as likely: a
    threshold that falls among these has many on either side, and an eighth above it."""
    x = 0.01 * fill.normal(V)
    x[fill.permutation(V)[: V // 8]] += 2.0
    return x


def _masked(fill: Fill, V: int) -> Tensor:
    """Three of four tokens are banned: -inf."""
    x = 3 * fill.normal(V)
    x[fill.permutation(V)[: 3 * V // 4]] = -math.inf
    return x


def _single(fill: Fill, V: int) -> Tensor:
    """All tokens but one are banned."""
    x = torch.full((V,), -math.inf)
    x[fill.rng.integers(V)] = -7.0
    return x


def _nan(fill: Fill, V: int) -> Tensor:
    """Invalid: a NaN."""
    x = 3 * fill.normal(V)
    x[fill.rng.integers(V)] = math.nan
    return x


def _negative_nan(fill: Fill, V: int) -> Tensor:
    """Invalid: a NaN whose sign bit is set, as the 0/0 of some processors."""
    x = 3 * fill.normal(V)
    x[fill.rng.integers(V)] = -math.nan
    return x


def _inf(fill: Fill, V: int) -> Tensor:
    """Invalid: a +inf."""
    x = 3 * fill.normal(V)
    x[fill.rng.integers(V)] = math.inf
    return x


def _banned(fill: Fill, V: int) -> Tensor:
    """Invalid: all tokens are banned."""
    return torch.full((V,), -math.inf)


LOGITS: dict[str, Family] = {
    f.__name__.removeprefix("_"): f
    for f in (
        *(
            _normal,
            _flat,
            _ties,
            _signed_zeros,
            _bf16,
            _geometric,
            _onehot,
            _spiky,
            _big,
            _huge,
            _lowest,
            _tail,
        ),
        *(_neighbours, _subnormal, _late, _shelf, _plateau, _masked, _single, _nan),
        *(_negative_nan, _inf, _banned),
    )
}
"""Families of a row of logits, by name."""
INVALID = ("nan", "negative_nan", "inf", "banned")
"""Those that make a row invalid."""

# Probabilities ----------------------------------------------------------------------------------


def _softmax(fill: Fill, V: int, at: int) -> Tensor:
    """Probabilities as models have them."""
    return torch.softmax(3 * fill.normal(V), 0)


def _uniform(fill: Fill, V: int, at: int) -> Tensor:
    """All alike."""
    return torch.full((V,), 1 / V)


def _sparse(fill: Fill, V: int, at: int) -> Tensor:
    """A few candidates."""
    x = torch.zeros(V)
    x[fill.permutation(V)[: 1 + V // 8]] = 1.0 + fill.normal(1 + V // 8).abs()
    return x / x.sum()


def _one(fill: Fill, V: int, at: int) -> Tensor:
    """One candidate."""
    x = torch.zeros(V)
    x[at % V] = 1.0
    return x


def _zeros(fill: Fill, V: int, at: int) -> Tensor:
    """No candidate."""
    return torch.zeros(V)


def _rare(fill: Fill, V: int, at: int) -> Tensor:
    """One token, and others at 1e-12: they may win only if their noise is wrong."""
    x = torch.full((V,), 1e-12)
    x[at % V] = 1.0
    return x


def _tails(fill: Fill, V: int, at: int) -> Tensor:
    """One token, and others at 1e-8."""
    x = torch.full((V,), 1e-8)
    x[at % V] = 1 - 1e-8 * (V - 1)
    return x


def _steep(fill: Fill, V: int, at: int) -> Tensor:
    """Halved from token to token, in random order, down to subnormal numbers."""
    return 0.5 * 2.0 ** (-5.0 * torch.from_numpy(fill.permutation(V)).float()).clamp_min(-140)


def _unscaled(fill: Fill, V: int, at: int) -> Tensor:
    """Weights that sum to about 1000."""
    return 1000 * torch.softmax(3 * fill.normal(V), 0)


def _faint(fill: Fill, V: int, at: int) -> Tensor:
    """Weights that sum to about 1e-9, half of them 0."""
    return 1e-9 * torch.softmax(3 * fill.normal(V), 0) * (fill.normal(V) > 0)


def _mighty(fill: Fill, V: int, at: int) -> Tensor:
    """Weights near the largest float: their quotients by noise are beyond it."""
    return 3e38 * torch.softmax(fill.normal(V), 0).sqrt()


def _minute(fill: Fill, V: int, at: int) -> Tensor:
    """Weights that are all subnormal."""
    return 1e-40 * (1.0 + fill.normal(V).abs())


WEIGHTS: dict[str, Callable[[Fill, int, int], Tensor]] = {
    f.__name__.removeprefix("_"): f
    for f in (
        *(_softmax, _uniform, _sparse, _one, _zeros, _rare, _tails, _steep, _unscaled, _faint),
        *(_minute, _mighty),
    )
}
"""Families of a row of weights, by name; ``at`` is the token that some of them favour."""


def favouring(at: int) -> dict[str, Family]:
    """The families of weights, with ``at`` given."""

    def bound(f: Callable[[Fill, int, int], Tensor]) -> Family:
        return lambda fill, V: f(fill, V, at)

    return {name: bound(f) for name, f in WEIGHTS.items()}


LEAST_BITS = {(2, 310058): 57, (4, 763459): 32, (7, 529787): 8}
"""(seed, position) of draws that have bits below 17, and the token that has them: E is some 1e-9,
which float32 arithmetic on 1 - u takes for 0."""
NO_BITS = {(2, 2999516): 2645, (2, 3249563): 3666}
"""Likewise with bits 0: E is the least there is, and some other of 4,096 tokens has one of 8."""
MOST_BITS = {(3, 994113): 37, (4, 865160): 28, (5, 763520): 12, (7, 987588): 60}
"""Likewise with bits above 2^32 - 61: E is about 19, which a uniform number rounded to 1 makes
infinite."""
TAIL_WINS = {
    (7, 4301): 8605,
    (7, 11579): 624,
    (7, 19052): 1225,
    (7, 31326): 1845,
    (7, 37365): 9445,
    (7, 41052): 3796,
    (7, 42521): 3046,
    (7, 50091): 2777,
    (7, 54272): 6355,
    (7, 70344): 5551,
    (7, 94858): 3784,
    (7, 115858): 9820,
    (7, 117878): 5248,
    (7, 134390): 5349,
    (7, 143380): 9579,
    (7, 149785): 9661,
    (7, 168042): 9279,
    (7, 192312): 9035,
}
"""Of 200,000 draws with seed 7 from a row "tails" of 10,001 tokens at token 0, those that some
other token wins, and which: 18, where 20 are expected."""

# A batch ----------------------------------------------------------------------------------------

POOLS: dict[str, tuple[float, ...]] = {
    "temperature": (1.0, 1.0, 1.0, 0.7, 2.5, 1e-6, 0.0, 1e-7, 1e6, 1e-40),
    "top_k": (2**31 - 1, 2**31 - 1, 1, 2, 3, 5, 40),
    "top_p": (1.0, 1.0, 0.9, 0.5, 0.1, 0.99, 1e-6, 1 - 2.0**-24),
    "min_p": (0.0, 0.0, 0.05, 0.3, 1.0, 1e-6),
    "repetition": (1.0, 1.2, 0.5, 3.0),
    "frequency": (0.0, 0.3, 2.0, -0.7),
    "presence": (0.0, 1.5, -2.0, 0.1),
}
"""Values that the rows of a mixed batch draw theirs from, by parameter."""
MATES = ("same", "mixed", "last")
"""Which rows have a family, parameters and a seed of their own: none; all but the first; the last
eight, which is cheap where rows are many."""


def _first_own(mates: str, B: int) -> int:
    """The first row that has its own, B if none does."""
    return {"mixed": 1, "last": max(1, B - 8)}.get(mates, B)


def drawn(
    fill: Fill, families: Mapping[str, Family], family: str, shape: tuple[int, int], mates: str
) -> Tensor:
    """[B,V] before it is laid out: row 0 of the family, and so are the others unless ``mates`` says
    that each is of a family drawn for it."""
    B, V = shape
    names = [family] * B
    if mates != "same":
        own = _first_own(mates, B)
        names[own:] = fill.rng.choice(list(families), B)[own:].tolist()
    return torch.stack([families[name](fill, V) for name in names]) if B else torch.empty(0, V)


def laid_out(fill: Fill, values: Tensor, gap: int, shift: int) -> Tensor:
    """[B,V] with ``gap`` elements of poison between rows, ``shift`` elements off alignment; a gap
    of -1: the first row stands for all (stride 0)."""
    if gap < 0:
        first = fill.rows(values[:1].shape, torch.float32, 0, shift).write(values[:1])
        return first.expand(values.shape)
    return fill.rows(values.shape, torch.float32, gap, shift).write(values)


def parameters(fill: Fill, case: Any, *names: str) -> dict[str, Tensor]:
    """The parameters of each row: those of the Case, and in a mixed batch those of other rows from
    their pools."""
    made = {}
    for name in names:
        values = [getattr(case, name)] * case.B
        if case.mates != "same":
            pool, own = POOLS[name], _first_own(case.mates, case.B)
            values[own:] = [pool[i] for i in fill.rng.integers(len(pool), size=case.B)][own:]
        dtype = torch.int32 if name == "top_k" else torch.float32
        made[name] = fill.tensor(torch.tensor(values, dtype=dtype), dtype)
    return made


def noise_keys(fill: Fill, key: int, position: int, B: int, mates: str) -> dict[str, Tensor]:
    """seed and position of each row: one request's next positions, or one of many requests'."""
    keys, at = [key] * B, [(position + b + 2**31) % 2**32 - 2**31 for b in range(B)]
    if mates != "same":
        own = _first_own(mates, B)
        keys[own:] = fill.rng.integers(-(2**63), 2**63, size=B)[own:].tolist()
        at[own:] = fill.rng.integers(0, 2**31, size=B)[own:].tolist()
    return {
        "seed": fill.tensor(torch.tensor(keys, dtype=torch.int64), torch.int64),
        "position": fill.ints(at),
    }


# Edges ------------------------------------------------------------------------------------------

LAYOUT_EDGES: dict[str, Callable[[Any], bool]] = {
    "no rows": lambda c: c.B == 0,
    "V = 1": lambda c: c.B > 0 and c.V == 1,
    "V no multiple of 4": lambda c: c.B > 0 and c.V % 4 != 0,
    "rows with gaps": lambda c: c.gap > 0 and c.B > 1,
    "one row that stands for all": lambda c: c.gap < 0 and c.B > 1,
    "rows that 32 bits cannot address": lambda c: c.gap * (c.B - 1) >= 1 << 31,
    "many wide rows": lambda c: c.B > 16 and c.V > 256,
    "rows off alignment": lambda c: c.B > 0 and c.shift % 4 != 0,
    "rows unlike each other": lambda c: c.B > 1 and c.mates == "mixed",
    "more than 16 rows": lambda c: c.B > 16,
    "rows unlike the others behind the 256th": lambda c: c.B >= 264 and c.mates == "last",
    "V above 1024": lambda c: c.B > 0 and c.V > 1024,
    "V above 32768": lambda c: c.B > 0 and c.V > 32768,
    "a vocabulary that 17 bits cannot count": lambda c: c.B > 0 and c.V > 1 << 17,
    "several rows of several parts": lambda c: c.B > 2 and c.V > 8192 and c.mates == "mixed",
}
ROW_EDGES: dict[str, Callable[[Any], bool]] = {
    **LAYOUT_EDGES,
    "invalid row": lambda c: c.B > 0 and c.family in INVALID,
    "a NaN with its sign bit set": lambda c: c.B > 0 and c.family == "negative_nan",
    "invalid row of several parts": lambda c: c.B > 0 and c.V > 32768 and c.family in INVALID,
    "all logits equal": lambda c: c.B > 0 and c.V > 1 and c.family == "flat",
    "one-hot": lambda c: c.B > 0 and c.V > 1 and c.family == "onehot",
    "-inf but one": lambda c: c.B > 0 and c.V > 1 and c.family == "single",
    "banned tokens": lambda c: c.B > 0 and c.V > 3 and c.family == "masked",
    "differences overflow": lambda c: c.B > 0 and c.V > 1 and c.family == "huge",
    "likely tokens beyond what 18 bits count": lambda c: (
        c.B > 0 and c.V > (1 << 18) + 65 and c.family == "late"
    ),
}
LONG_ROWS: dict[str, Callable[[Any], bool]] = {
    "long rows of a block each": lambda c: c.B >= 40 and 16500 < c.V <= 32768,
}
"""Where there are few rows a row is shared out: here a block reads one alone, in several turns."""
PENALTY_EDGES: dict[str, Callable[[Any], bool]] = {
    **ROW_EDGES,
    "repetition next to 1, alone": lambda c: (
        0 < abs(c.repetition - 1) < 0.1
        and c.frequency == c.presence == 0
        and c.family == "normal"
        and min(map(max, c.prompt_lens, c.output_lens), default=0) > 0
    ),
    "repetition next to 0 of subnormal logits": lambda c: (
        c.repetition < 1e-39 and c.family == "subnormal" and max(c.prompt_lens, default=0) > 0
    ),
}
KEY_EDGES: dict[str, Callable[[Any], bool]] = {
    "seed 0": lambda c: c.B > 0 and c.key == 0,
    "largest seed": lambda c: c.B > 0 and c.key == 2**63 - 1,
    "seed -1": lambda c: c.B > 0 and c.key == -1,
    "seed beyond 32 bits": lambda c: c.B > 0 and 2**32 <= c.key < 2**63 - 1,
    "position wraps": lambda c: c.B > 1 and c.position == 2**31 - 1 and c.mates == "same",
}
