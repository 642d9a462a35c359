"""draw_tokens: draw a token of each row by its probabilities, reproducibly.

==========  ============  =========================================================================
probs       float32[B,V]  finite, not negative; row stride free (0 too). Rows need not sum to 1
seed        int64[B]      of the request; counts as 64 bits
position    int32[B]      of the token in its request; counts as 32 bits
-> token    int32[B]      the token drawn; -1 for a row of zeros
==========  ============  =========================================================================

The exponential race: argmax over p_v > 0 of ``log p_v - log E_v``, lowest index on ties, where E_v
~ Exp(1) is a function of (seed, position, v) alone: Philox4x32-10, and a logarithm that is accurate
on both sides. It may be computed as argmax p_v / E_v; argmin E_v / p_v is the same on paper, but
that quotient overflows float32 where p_v is subnormal. Formulas and their reasons: _noise.py beside
this page. So a draw does not depend on the row, the batch, the padding of the vocabulary or a sort,
and a token of probability 1e-8 is drawn once in 1e8 times.

Scores within 1e-4 of each other are one to float32: any token that near to the best is right
(docs/decisions/0034). The noise needs logf and log1pf: a fast logarithm is not accurate enough.
Errors: shapes, strides, devices, V = 0: ValueError; dtypes: TypeError. In checked mode a
probability that is negative, NaN or infinite: ValueError.
Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011) for Philox; vLLM's
gumbel sampling keys its noise by vocabulary index too. SGLang's deterministic fallback keys it by
sorted rank, so that another filter is another draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from yaie.compare import Choice, Comparison, Contract, Margin
from yaie.fill import Fill
from yaie.op import Call, Cost, Op, at_least, case, one_of
from yaie.ops import _noise as noise
from yaie.ops import _rows as rows
from yaie.ops import _sampling as sampling
from yaie.refusal import Refusal, change, put
from yaie.signature import parse


@case
class Case:
    """B rows of V weights, the draws of a request from ``position`` on with seed ``key``, or with
    ``mates`` (_rows.MATES) of one request a row, of any family. In the family "close" all tokens of
    all rows arrive at about the same time (_noise.py). ``at`` is the token that the families
    "one", "rare" and "tails" favour. ``gap`` and ``shift`` as in filter_tokens."""

    B: int = at_least(0, default=1)
    V: int = at_least(1, default=4)
    dtype: str = one_of(("float32",), default="float32")
    key: int = at_least(-(2**63), default=0)
    position: int = at_least(-(2**31), default=0)
    at: int = at_least(0, default=0)
    mates: str = one_of(rows.MATES, default="same")
    gap: int = at_least(-1, default=0)
    shift: int = at_least(0, default=0)
    family: str = one_of((*rows.WEIGHTS, noise.CLOSE), default="softmax")
    seed: int = at_least(0, default=0)

    def check(self) -> None:
        """The key and the position are what the tensors can hold."""
        noise.check_key(self.key, self.position)


def inputs(case: Case, fill: Fill) -> tuple[dict[str, Any], dict[str, Any]]:
    """Rows of a family, gaps of poison between them."""
    keys = rows.noise_keys(fill, case.key, case.position, case.B, case.mates)
    if case.family == noise.CLOSE:
        probs = noise.close_race(fill, keys["seed"], keys["position"], case.V).exp().float()
    else:
        families = rows.favouring(case.at)
        probs = rows.drawn(fill, families, case.family, (case.B, case.V), case.mates)
    return {"probs": rows.laid_out(fill, probs, case.gap, case.shift), **keys}, {}


def reference(probs: Tensor, seed: Tensor, position: Tensor) -> noise.Race:
    """The scores of all tokens in float64."""
    likely = probs > 0
    rank = probs.double().log()
    choice = Choice(probs, rank, torch.zeros_like(rank), must=likely, may=likely)
    return noise.Race.run(choice, likely, seed, position)


def comparison(race: noise.Race, call: Call, contract: Contract) -> dict[str, Comparison]:
    """A token whose score is the best, or next to it."""
    return {"token": Margin(race.choice, race.score, race.token)}


def cost(case: Case) -> Cost:
    """Probabilities are read once; seed, position and token a row."""
    return Cost(bytes=4 * case.B * case.V + 16 * case.B)


WORKLOADS = {
    "llama3 vocabulary, batch 1": Case(B=1, V=128256, family="softmax"),
    "llama3 vocabulary, batch 32": Case(B=32, V=128256, family="softmax"),
    "llama3 vocabulary, batch 256": Case(B=256, V=128256, family="softmax"),
    "qwen3 vocabulary, batch 32": Case(B=32, V=151936, family="softmax"),
}

EDGES: dict[str, Callable[[Any], bool]] = {
    **rows.LAYOUT_EDGES,
    **rows.KEY_EDGES,
    **noise.EDGES,
    "one candidate": lambda c: c.B > 0 and c.V > 1 and c.family == "one",
    "row of zeros": lambda c: c.B > 0 and c.family == "zeros",
    "random bits near 0 for an unlikely token": lambda c: (
        c.family == "rare" and c.V > 57 and (c.key, c.position) in rows.LEAST_BITS
    ),
    "random bits all set for the one candidate": lambda c: (
        c.family == "one" and c.B > 0 and rows.MOST_BITS.get((c.key, c.position)) == c.at
    ),
    "unlikely tail that wins": lambda c: (
        c.family == "tails" and c.V == 10001 and (c.key, c.position) in rows.TAIL_WINS
    ),
    "all probabilities subnormal": lambda c: c.B > 0 and c.V > 1 and c.family == "minute",
    "random bits all set in a close race": lambda c: (
        c.family == noise.CLOSE and c.B > 0 and rows.MOST_BITS.get((c.key, c.position), c.V) < c.V
    ),
    "random bits near 0 in a close race": lambda c: (
        c.family == noise.CLOSE and c.B > 0 and rows.LEAST_BITS.get((c.key, c.position), c.V) < c.V
    ),
    "one candidate beyond what 18 bits count": lambda c: (
        c.B > 0 and c.family == "one" and 1 << 18 < c.at < c.V
    ),
    "weights near the largest float, rows of a block each": lambda c: (
        c.B >= 40 and c.V > 16_000 and c.family == "mighty"
    ),
    "subnormal probabilities": lambda c: c.B > 0 and c.V > 30 and c.family == "steep",
}


def contents(call: Call) -> None:
    """Checked mode: probabilities are numbers from 0 on."""
    probs = call.args["probs"]
    if not bool(((probs >= 0) & probs.isfinite()).all()):
        raise ValueError("draw_tokens: probs: must be finite and not negative")


ERRORS = (
    Refusal("V = 0", change("probs", lambda t: t[:, :0]), ValueError, "V is 0"),
    Refusal("p < 0", put("probs", -1, 1, 2), ValueError, "probs: must be", contents=True),
    Refusal(
        "p NaN",
        change("probs", lambda t: t * math.nan),
        ValueError,
        "probs: must be",
        contents=True,
    ),
    Refusal(
        "p inf",
        change("probs", lambda t: t + math.inf),
        ValueError,
        "probs: must be",
        contents=True,
    ),
)

draw_tokens = Op(
    name="draw_tokens",
    signature=parse("probs: float32[B,V], seed: int64[B], position: int32[B] -> token: int32[B]"),
    Case=Case,
    inputs=inputs,
    reference=reference,
    cost=cost,
    workloads=WORKLOADS,
    edges=EDGES,
    errors=ERRORS,
    good=Case(B=2),
    doc=__doc__ or "",
    comparison=comparison,
    door=sampling.check_vocabulary,
    contents=contents,
)
