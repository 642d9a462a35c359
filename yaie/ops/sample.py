"""sample: filter_tokens and draw_tokens in one pass over the logits.

===========  ============  ========================================================================
logits       float32[B,V]  row stride free; -inf bans a token
temperature  float32[B]    >= 0; 0 is greedy
top_k        int32[B]      >= 1; V or more: off
top_p        float32[B]    in (0, 1]; 1: off
min_p        float32[B]    in [0, 1]; 0: off
seed         int64[B]      of the request; counts as 64 bits
position     int32[B]      of the token in its request; counts as 32 bits
-> token     int32[B]      -1 for an invalid row
===========  ============  ========================================================================

``draw_tokens(filter_tokens(logits, ...), seed, position)``: the meaning of each part is on its
page, formulas are in _sampling.py beside this one. The probabilities need not be built: the
race is argmax over the kept tokens of ``(l - max l) / temperature - log E``, which no
normalisation changes.

A token is right if some answer of filter_tokens holds it and its score is within 1e-4 of the best
of the tokens that every such answer holds (docs/decisions/0034).
Errors: shapes, strides, devices, V = 0: ValueError; dtypes: TypeError. In checked mode a parameter
outside its range or NaN: ValueError.
Source: FlashInfer top_k_top_p_sampling_from_logits and vLLM's Sampler are such ops; each draws
other random numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from yaie.compare import Comparison, Contract, Margin
from yaie.fill import Fill
from yaie.op import Call, Cost, Op, at_least, case, one_of
from yaie.ops import _noise as noise
from yaie.ops import _rows as rows
from yaie.ops import _sampling as sampling
from yaie.ops._filter_edges import FILTER_EDGES
from yaie.ops.filter_tokens import PARAMETERS
from yaie.signature import parse


@case
class Case:
    """B rows of V logits: as a Case of filter_tokens, and drawn from ``position`` on with seed
    ``key`` as one of draw_tokens. In the family "close" all tokens arrive at about the same time,
    in "outsider" a token far below the maximum wins, at temperatures of 0.1 to 10 (_noise.py)."""

    B: int = at_least(0, default=1)
    V: int = at_least(1, default=4)
    dtype: str = one_of(("float32",), default="float32")
    temperature: float = 1.0
    top_k: int = at_least(1, default=2**31 - 1)
    top_p: float = 1.0
    min_p: float = 0.0
    key: int = at_least(-(2**63), default=0)
    position: int = at_least(-(2**31), default=0)
    mates: str = one_of(rows.MATES, default="same")
    gap: int = at_least(-1, default=0)
    shift: int = at_least(0, default=0)
    family: str = one_of((*rows.LOGITS, noise.CLOSE, noise.OUTSIDER), default="normal")
    seed: int = at_least(0, default=0)

    def check(self) -> None:
        """The key and the position are what the tensors can hold."""
        noise.check_key(self.key, self.position)


def inputs(case: Case, fill: Fill) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs as of filter_tokens, and the keys of the noise."""
    keys = rows.noise_keys(fill, case.key, case.position, case.B, case.mates)
    parameters = rows.parameters(fill, case, *PARAMETERS)
    if case.family in (noise.CLOSE, noise.OUTSIDER):
        draws = keys["seed"], keys["position"], case.V
        close = case.family == noise.CLOSE
        ranks = noise.close_race(fill, *draws) if close else noise.outsider_race(*draws)
        logits = (ranks * parameters["temperature"].cpu().clamp(0.1, 10.0)[:, None]).float()
    else:
        logits = rows.drawn(fill, rows.LOGITS, case.family, (case.B, case.V), case.mates)
    return {"logits": rows.laid_out(fill, logits, case.gap, case.shift), **parameters, **keys}, {}


def reference(
    logits: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    seed: Tensor,
    position: Tensor,
) -> noise.Race:
    """The scores of all tokens in float64, and which of them take part."""
    f = sampling.filtered(logits, temperature, top_k, top_p, min_p)
    return noise.Race.run(f.choice, f.kept, seed, position)


def comparison(race: noise.Race, call: Call, contract: Contract) -> dict[str, Comparison]:
    """A token that may take part, and whose score is the best of those that do, or next to it."""
    return {"token": Margin(race.choice, race.score, race.token)}


def cost(case: Case) -> Cost:
    """Logits are read once; six parameters and a token a row."""
    return Cost(bytes=4 * case.B * case.V + 32 * case.B)


_CHAT = Case(V=128256, temperature=0.7, top_k=50, top_p=0.9)

WORKLOADS = {
    "llama3 vocabulary, batch 1": _CHAT,
    "llama3 vocabulary, batch 32": replace(_CHAT, B=32),
    "llama3 vocabulary, batch 256": replace(_CHAT, B=256),
    "llama3 vocabulary, batch 32, no filter": Case(B=32, V=128256),
    "llama3 vocabulary, batch 32, greedy": Case(B=32, V=128256, temperature=0.0),
    "qwen3 vocabulary, batch 32": Case(B=32, V=151936, top_k=20, top_p=0.95, temperature=0.6),
}


def _outsider(case: Case) -> bool:
    """Whether an unlikely token should win, and no filter forbids it."""
    unfiltered = case.top_k >= case.V and (case.top_p, case.min_p) == (1, 0)
    return case.family == noise.OUTSIDER and case.B > 0 and case.temperature == 1 and unfiltered


EDGES: dict[str, Callable[[Any], bool]] = {
    **FILTER_EDGES,
    "min_p alone at a high temperature": lambda c: (
        c.B > 16
        and c.V > 200
        and c.family == "normal"
        and c.mates == "same"
        and c.temperature >= 4
        and 0 < c.min_p < 0.2
        and c.top_k >= c.V
        and c.top_p == 1
    ),
    **rows.KEY_EDGES,
    **noise.EDGES,
    "a close race of those that a filter kept": lambda c: (
        c.family == noise.CLOSE and c.B > 0 and 3 < c.top_k < c.V / 2 and c.temperature == 1.0
    ),
    "random bits near 0 for an unlikely token": lambda c: (
        _outsider(c) and rows.LEAST_BITS.get((c.key, c.position), c.V) < c.V
    ),
    "random bits 0 for the least likely token that can win": lambda c: (
        _outsider(c) and rows.NO_BITS.get((c.key, c.position), c.V) < c.V
    ),
}

ERRORS = sampling.FILTER_ERRORS

sample = Op(
    name="sample",
    signature=parse(
        "logits: float32[B,V], temperature: float32[B], top_k: int32[B], top_p: float32[B], "
        "min_p: float32[B], seed: int64[B], position: int32[B] -> token: int32[B]"
    ),
    Case=Case,
    inputs=inputs,
    reference=reference,
    cost=cost,
    workloads=WORKLOADS,
    edges=EDGES,
    errors=ERRORS,
    good=Case(B=2, V=6),
    doc=__doc__ or "",
    comparison=comparison,
    door=sampling.check_vocabulary,
    contents=sampling.check_filter,
)
