"""The one rotation that every op with positions shares, its error budget, and how its Cases lay out
positions and the table.

Of the D numbers of a head the first R rotate, two by two, the rest stay. Pair i of R/2 is
``(i, i + R/2)``, or ``(2i, 2i + 1)`` if interleaved. Row p of ``cos_sin`` holds the cosines of the
pairs at position p, then their sines::

    y1 = x1 * cos - x2 * sin
    y2 = x2 * cos + x1 * sin

computed in float32 and rounded to the dtype once. The table is an argument, so a scaled variant of
the angles (Llama 3, YaRN, NTK) is another table, not another kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yaie.compare import ROUNDING, Budget, unit_roundoff
from yaie.fill import Fill
from yaie.op import Call
from yaie.refusal import Refusal, change, put

TABLES = ("angles", "normal")
"""The cosines and sines of RoPE at base 10,000, or numbers that no angle has: only the table may
say what they are."""

POSITIONS: dict[str, Callable[[int, int, np.random.Generator], Any]] = {
    "ascending": lambda T, M, rng: (int(rng.integers(M)) + np.arange(T)) % M,
    "descending": lambda T, M, rng: M - 1 - np.arange(T) % M,
    "random": lambda T, M, rng: rng.integers(0, M, T),
    "last": lambda T, M, rng: np.full(T, M - 1),
    "ends": lambda T, M, rng: np.arange(T) % 2 * (M - 1),
    "zero": lambda T, M, rng: np.zeros(T, np.int64),
}
"""Ways to choose T positions below M."""


def positions(kind: str, T: int, M: int, seed: int) -> list[int]:
    """The positions of T tokens; a Case's cost needs them too, so they are drawn apart."""
    if not T:
        return []
    chosen: list[int] = POSITIONS[kind](T, M, np.random.default_rng(seed)).tolist()
    return chosen


def table(fill: Fill, kind: str, shape: tuple[int, int], used: Sequence[int], gap: int) -> Tensor:
    """cos_sin [M,R] whose ``used`` rows hold numbers; other rows, and ``gap`` elements between two
    rows, are poison."""
    M, R = shape
    numbers = sorted(set(used))
    slab = fill.slab((M, R + gap), torch.float32, rows=numbers)
    rows = torch.tensor(numbers, dtype=torch.int64)
    if kind == "normal":
        values = fill.normal(len(rows), R)
    else:
        frequency = 10_000.0 ** (-torch.arange(0, R, 2).double() / R)
        angle = rows.double()[:, None] * frequency
        values = torch.cat([angle.cos(), angle.sin()], -1)
    slab.write(values, (rows, slice(R)))
    return slab.tensor[:, :R]


@dataclass(frozen=True)
class Rotated:
    """A float64 rotation, and what its error budget needs. [T,H,D]"""

    y: Tensor
    products: Tensor
    """|x1 cos| + |x2 sin| of each rotated number; 0 where nothing rotates"""
    rotates: Tensor
    """1 where a number rotates, else 0; [D]"""


def rotate(x: Tensor, positions: Tensor, cos_sin: Tensor, interleaved: bool) -> Rotated:
    """The float64 answer: cosine and sine i of a row turn pair i."""
    half = cos_sin.shape[1] // 2
    pair = torch.arange(half, device=x.device)
    first, second = (2 * pair, 2 * pair + 1) if interleaved else (pair, pair + half)
    row = cos_sin[positions.long()].double()[:, None, :]  # [T,1,R], for every head
    cos, sin = row[..., :half], row[..., half:]

    y = x.to(torch.float64, copy=True)
    products = torch.zeros_like(y)
    x1, x2 = y[..., first], y[..., second]  # copies
    y[..., first], y[..., second] = x1 * cos - x2 * sin, x2 * cos + x1 * sin
    products[..., first] = (x1 * cos).abs() + (x2 * sin).abs()
    products[..., second] = (x2 * cos).abs() + (x1 * sin).abs()
    rotates = (torch.arange(x.shape[-1], device=x.device) < 2 * half).double()
    return Rotated(y, products, rotates)


def budget(rotated: Rotated, dtype: torch.dtype) -> Budget:
    """Two products and a sum in float32, then one rounding; what does not rotate stays as it is."""
    tiny = torch.finfo(dtype).smallest_normal
    size = rotated.y.abs().clamp_min(tiny) * rotated.rotates
    return Budget(
        expected=rotated.y,
        terms={
            ROUNDING: unit_roundoff(dtype) * size,
            "products": 2.0**-23 * rotated.products.clamp_min(tiny) * rotated.rotates,
        },
    )


def check_table(call: Call) -> None:
    """The door: R pairs up and fits into D."""
    R, D = call.axes["R"], call.axes["D"]
    if R % 2 or not 2 <= R <= D:
        raise ValueError(f"{call.op}: cos_sin: R is {R}, must be even and in 2..D = {D}")


def check_positions(call: Call) -> None:
    """Checked mode: every position has a row in the table."""
    at, M = call.args["positions"], call.axes["M"]
    outside = at[(at < 0) | (at >= M)]
    if outside.numel():
        raise ValueError(f"{call.op}: positions: {int(outside[0])} is outside [0, M = {M})")


# For a good call whose table has 4 of the D = 8 columns and 16 rows.
TABLE_ERRORS = (
    Refusal("R odd", change("cos_sin", lambda t: t[:, :3]), ValueError, "R is 3"),
    Refusal("R 0", change("cos_sin", lambda t: t[:, :0]), ValueError, "R is 0"),
    Refusal("R > D", change("cos_sin", lambda t: t.repeat(1, 4)), ValueError, "R is 16"),
    Refusal("position at M", put("positions", 16, 0), ValueError, "positions: 16", contents=True),
    Refusal("position < 0", put("positions", -1, 0), ValueError, "positions: -1", contents=True),
)
