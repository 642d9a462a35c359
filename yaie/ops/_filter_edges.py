"""The edges that filter_tokens and sample have in common: every filter alone and after another,
off, at its ends, at ties, and where it decides among very many."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from yaie.ops import _rows as rows

FILTER_EDGES: dict[str, Callable[[Any], bool]] = {
    **rows.ROW_EDGES,
    **rows.LONG_ROWS,
    "temperature 0": lambda c: c.B > 0 and c.temperature == 0,
    "temperature 0 on ties": lambda c: (
        c.B > 0 and c.temperature == 0 and c.V > 9 and c.family in ("flat", "ties")
    ),
    "temperature 1e-7": lambda c: c.B > 0 and c.temperature == 1e-7,
    "temperature 1e-6 between neighbouring floats": lambda c: (
        c.B > 0 and c.temperature == 1e-6 and c.family == "neighbours"
    ),
    "temperature 1e6": lambda c: c.B > 0 and c.temperature == 1e6,
    "temperature 3e38 at the lowest logits": lambda c: (
        c.B > 0 and c.V > 200 and c.temperature == 3e38 and c.family == "lowest" and c.top_k < 9
    ),
    "temperature 3e38 where differences overflow": lambda c: (
        c.B > 16
        and c.V > 8
        and c.temperature == 3e38
        and c.family == "huge"
        and c.mates == "same"
        and c.top_k >= c.V
        and c.top_p == 1
        and c.min_p < 0.1
    ),
    "subnormal temperature": lambda c: c.B > 0 and 0 < c.temperature < 1e-38,
    "top_k 1": lambda c: c.B > 0 and c.top_k == 1 and c.temperature > 0,
    "top_k V": lambda c: c.B > 0 and c.top_k == c.V and c.temperature > 0,
    "top_k above V": lambda c: c.B > 0 and c.V < c.top_k < 2**31 - 1 and c.temperature > 0,
    "top_k in the thousands": lambda c: (
        c.B > 0 and 1024 < c.top_k < c.V and c.temperature > 1 and (c.top_p, c.min_p) == (1, 0)
    ),
    "top_k alone, ends where weights are next to nothing": lambda c: (
        c.B > 0
        and c.family == "geometric"
        and c.temperature == 1
        and (c.top_p, c.min_p) == (1, 0)
        and 32 < (c.top_k - 1) * -math.log(0.7) < 103
        and c.top_k < c.V
    ),
    "top_k within ties": lambda c: (
        1 < c.top_k < c.V and c.family in ("ties", "flat") and c.B > 0 and c.temperature > 0
    ),
    "top_p 1": lambda c: c.B > 0 and c.top_p == 1,
    "top_p just below 1": lambda c: c.B > 0 and 0.999 < c.top_p < 1 and c.temperature > 0,
    "tiny top_p": lambda c: c.B > 0 and c.top_p < 1e-3 and c.temperature > 0,
    "crossing token at a tie": lambda c: (
        c.B > 0
        and 0 < c.top_p < 1
        and c.family in ("ties", "flat")
        and c.V > 1
        and c.temperature > 0
    ),
    "top_p after top_k": lambda c: c.B > 0 and c.top_k < c.V and c.top_p < 1 and c.temperature > 0,
    "top_p of what top_k leaves of many nearly alike": lambda c: (
        c.B > 0
        and c.family == "shelf"
        and c.temperature == 1
        and 20 < c.top_k < c.V / 8
        and 0.1 < c.top_p < 0.5
    ),
    "top_p of tokens that min_p drops": lambda c: (
        c.B > 0
        and c.family == "ties"
        and c.V > 200
        and 16 < c.top_k < c.V / 8
        and c.top_p <= 0.3 <= c.min_p
        and c.temperature == 1
    ),
    "top_p among hundreds nearly alike": lambda c: (
        c.B > 0
        and c.family == "plateau"
        and c.V > 512
        and c.top_k > c.V
        and 0.6 <= c.top_p <= 0.9
        and c.temperature == 1
    ),
    "top_k among hundreds nearly alike": lambda c: (
        c.B > 0
        and c.family == "plateau"
        and c.V > 512
        and c.V / 8 + 64 < c.top_k < c.V - 64
        and c.temperature == 1
    ),
    "top_p among thousands nearly alike, in rows of a block each": lambda c: (
        c.B >= 40
        and 16500 < c.V <= 32768
        and c.family == "plateau"
        and c.temperature == 1
        and 0.6 <= c.top_p <= 0.9
    ),
    "top_p among thousands nearly alike of one part": lambda c: (
        c.B >= 40
        and 15_000 < c.V <= 16_376
        and c.family == "plateau"
        and (c.temperature, c.min_p) == (1, 0)
        and c.top_k >= c.V
        and 0.55 <= c.top_p <= 0.9
    ),
    "min_p after top_p": lambda c: c.B > 0 and c.min_p > 0 and c.top_p < 1 and c.temperature > 0,
    "min_p 1": lambda c: c.B > 0 and c.min_p == 1 and c.temperature > 0,
}
