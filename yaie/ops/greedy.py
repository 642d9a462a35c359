"""greedy: the most likely token of each row.

==========  ============  =========================================================================
logits      float32[B,V]  row stride free; -inf bans a token
-> token    int32[B]      the argmax, the lowest index on ties; -1 for an invalid row
==========  ============  =========================================================================

-0 and +0 are equal, subnormal numbers are not. A row with a NaN, with +inf, or with nothing above
-inf is invalid. This is filter_tokens at temperature 0 and then draw_tokens, without randomness.
Errors: shapes, strides, devices, V = 0: ValueError; dtypes: TypeError.
Source: torch.argmax takes a NaN for the largest, and numpy's too; vLLM and SGLang call it as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from yaie.compare import Comparison, Contract, Exact
from yaie.fill import Fill
from yaie.op import Call, Cost, Op, at_least, case, one_of
from yaie.ops import _rows as rows
from yaie.ops import _sampling as sampling
from yaie.signature import parse


@case
class Case:
    """B rows of V logits. Other rows than the first are of the same family, or by their
    ``mates`` (_rows.MATES) of any; ``gap`` and ``shift`` as in filter_tokens."""

    B: int = at_least(0, default=1)
    V: int = at_least(1, default=4)
    dtype: str = one_of(("float32",), default="float32")
    mates: str = one_of(rows.MATES, default="same")
    gap: int = at_least(-1, default=0)
    shift: int = at_least(0, default=0)
    family: str = one_of(rows.LOGITS, default="normal")
    seed: int = at_least(0, default=0)


def inputs(case: Any, fill: Fill) -> tuple[dict[str, Any], dict[str, Any]]:
    """Rows of a family, gaps of poison between them."""
    logits = rows.drawn(fill, rows.LOGITS, case.family, (case.B, case.V), case.mates)
    return {"logits": rows.laid_out(fill, logits, case.gap, case.shift)}, {}


def reference(logits: Tensor) -> Tensor:
    """Look for the largest value, then for where it stands first."""
    valid = sampling.valid_rows(logits)
    first = sampling.first_largest(logits.masked_fill(~valid, 0.0))
    return torch.where(valid[:, 0], first, -1).int()


def comparison(token: Tensor, call: Call, contract: Contract) -> dict[str, Comparison]:
    """No arithmetic, no tolerance."""
    return {"token": Exact(token)}


def cost(case: Case) -> Cost:
    """Logits are read once."""
    return Cost(bytes=4 * case.B * case.V + 4 * case.B)


WORKLOADS = {
    "llama3 vocabulary, batch 1": Case(B=1, V=128256),
    "llama3 vocabulary, batch 32": Case(B=32, V=128256),
    "llama3 vocabulary, batch 256": Case(B=256, V=128256),
    "qwen3 vocabulary, batch 32": Case(B=32, V=151936),
}

EDGES: dict[str, Callable[[Any], bool]] = {
    **rows.ROW_EDGES,
    **rows.LONG_ROWS,
    "more than 65,535 rows": lambda c: c.B > 65_535,
    "ties": lambda c: c.B > 0 and c.V > 1 and c.family in ("flat", "ties"),
    "subnormal logits": lambda c: c.B > 0 and c.V > 1 and c.family == "subnormal",
}

ERRORS = (sampling.NO_VOCABULARY,)

greedy = Op(
    name="greedy",
    signature=parse("logits: float32[B,V] -> token: int32[B]"),
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
)
