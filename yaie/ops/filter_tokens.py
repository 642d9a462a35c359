"""filter_tokens: from logits to the probabilities of the tokens that may be drawn.

===========  ============  ========================================================================
logits       float32[B,V]  row stride free; -inf bans a token
temperature  float32[B]    >= 0; every one above 0 is honoured, there is no floor
top_k        int32[B]      >= 1; V or more: off
top_p        float32[B]    in (0, 1]; 1: off, exactly
min_p        float32[B]    in [0, 1]; 0: off
-> probs     float32[B,V]  rows sum to 1; dropped tokens are exactly 0
===========  ============  ========================================================================

A row, whatever the other rows are::

    temperature 0   1 at the argmax (lowest index on ties), 0 elsewhere; nothing else counts
    p = softmax((l - max l) / temperature)
    top_k           keep l >= the k-th largest logit: ties at the threshold are all kept
    top_p           renormalise; keep token i iff the likelier tokens (p_j > p_i) sum to less than
                    top_p: the token that crosses the threshold stays
    min_p           keep p_i >= min_p * max p
    renormalise

Each step keeps the most likely tokens, equal logits stand or fall together, and the argmax always
stays. A row with a NaN, with +inf, or with nothing above -inf is invalid: all 0.

    kept set    [.5 .25 .25], p=.5    same, p=.6    four equal, p=.3    [.4 .3 .2 .1], k=2, p=.5
    here        {0}                   {0,1,2}       all                 {0}

A float32 sum cannot decide every case: a token whose mass above lies within 2^-10 of top_p, or
whose probability is within rounding of min_p, may be kept or not (docs/decisions/0033). Which
tokens top_k keeps is exact.
Errors: shapes, strides, devices, V = 0: ValueError; dtypes: TypeError. In checked mode a parameter
outside its range or NaN: ValueError.
Source: the order temperature, top_k, top_p, min_p is that of transformers and of FlashInfer's
top_k_first; vLLM puts min_p first and breaks ties by its sort (docs/decisions/0031).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from yaie.compare import Band, Comparison, Contract
from yaie.fill import Fill
from yaie.op import Call, Cost, Op, at_least, case, one_of
from yaie.ops import _rows as rows
from yaie.ops import _sampling as sampling
from yaie.ops._filter_edges import FILTER_EDGES
from yaie.signature import parse

PARAMETERS = ("temperature", "top_k", "top_p", "min_p")


@case
class Case:
    """B rows of V logits. The parameters are those of row 0; other rows have the same, or with
    ``mates`` "mixed" each its own, of its own family, with "last" so do the last eight. Where
    ``near`` is "token", top_p is moved to where it just decides about one
    (_sampling.beside_a_token). ``gap`` elements lie between rows, which start ``shift`` elements
    off the allocator's alignment; a gap of -1: one row stands for all."""

    B: int = at_least(0, default=1)
    V: int = at_least(1, default=4)
    dtype: str = one_of(("float32",), default="float32")
    temperature: float = 1.0
    top_k: int = at_least(1, default=2**31 - 1)
    top_p: float = 1.0
    min_p: float = 0.0
    near: str = one_of(("any", "token"), default="any")
    mates: str = one_of(rows.MATES, default="same")
    gap: int = at_least(-1, default=0)
    shift: int = at_least(0, default=0)
    family: str = one_of(rows.LOGITS, default="normal")
    seed: int = at_least(0, default=0)


def inputs(case: Any, fill: Fill) -> tuple[dict[str, Any], dict[str, Any]]:
    """Rows of a family, gaps of poison between them, and their parameters."""
    logits = rows.drawn(fill, rows.LOGITS, case.family, (case.B, case.V), case.mates)
    laid = rows.laid_out(fill, logits, case.gap, case.shift)
    parameters = rows.parameters(fill, case, *PARAMETERS)
    if case.near == "token":
        parameters["top_p"].copy_(sampling.beside_a_token(fill, logits, parameters))
    return {"logits": laid, **parameters}, {}


def reference(
    logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor
) -> sampling.Filter:
    """The kept set of each row by sorting, and what float32 may keep instead."""
    return sampling.filtered(logits, temperature, top_k, top_p, min_p)


def comparison(f: sampling.Filter, call: Call, contract: Contract) -> dict[str, Comparison]:
    """A set within the band, its shares within a relative budget."""
    return {
        "probs": Band(
            choice=f.choice,
            weights=f.p,
            decided=f.kept,
            shares=sampling.share_errors(f, contract),
            floor=sampling.UNDERFLOW * (~f.exact).double(),
        )
    }


def cost(case: Case) -> Cost:
    """Logits are read once, probabilities written once; four parameters a row."""
    return Cost(bytes=2 * 4 * case.B * case.V + 16 * case.B)


_CHAT = Case(V=128256, temperature=0.7, top_k=50, top_p=0.9)

WORKLOADS = {
    "llama3 vocabulary, batch 1": _CHAT,
    "llama3 vocabulary, batch 32": replace(_CHAT, B=32),
    "llama3 vocabulary, batch 256": replace(_CHAT, B=256),
    "llama3 vocabulary, batch 32, no filter": Case(B=32, V=128256),
    "llama3 vocabulary, batch 32, top_p alone": Case(B=32, V=128256, top_p=0.95),
    "qwen3 vocabulary, batch 32": Case(B=32, V=151936, top_k=20, top_p=0.95, temperature=0.6),
    "qwen3 vocabulary, batch 32, min_p alone": Case(B=32, V=151936, min_p=0.05),
}

EDGES: dict[str, Callable[[Any], bool]] = {
    **FILTER_EDGES,
    "top_p that just decides about a token": lambda c: (
        c.B > 0 and c.near == "token" and c.V > 9 and 0.1 <= c.top_p <= 0.9 and c.temperature == 1
    ),
    "top_p that just decides between neighbouring floats": lambda c: (
        c.near == "token"
        and c.family == "neighbours"
        and c.B > 2
        and c.V > 9
        and 4e-6 <= c.temperature < 1e-5
    ),
}

ERRORS = sampling.FILTER_ERRORS

filter_tokens = Op(
    name="filter_tokens",
    signature=parse(
        "logits: float32[B,V], temperature: float32[B], top_k: int32[B], top_p: float32[B], "
        "min_p: float32[B] -> probs: float32[B,V]"
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
