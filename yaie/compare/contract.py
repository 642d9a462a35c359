"""The precision that a kernel declares."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

U32 = 2.0**-24
"""Unit roundoff of float32, in which every kernel accumulates."""


def unit_roundoff(dtype: torch.dtype) -> float:
    """Half the distance from 1 to the next number: 2^-24, 2^-11, 2^-8."""
    return torch.finfo(dtype).eps / 2


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
