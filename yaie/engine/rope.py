"""Tables of ops.rope: the scalings of the rotary embedding are other tables, not other kernels.

Pair i of a head of D numbers turns by f_i = theta^(-2i/D) a position. A scaling changes the f_i,
to stretch what was trained on ``original`` positions over ``factor`` times as many:

linear   f_i / factor.
llama3   by wavelength 2*pi/f_i: shorter than original/high_freq stays, longer than
         original/low_freq is divided by factor, in between a straight line in original/wavelength.
yarn     a straight line in i from f_i (pairs that turn more than beta_fast times within original)
         to f_i / factor (fewer than beta_slow times); the whole table is then multiplied by
         attention_factor, by default 0.1 * ln(factor) + 1.

Sources: Llama 3.1's release code; Peng et al., YaRN (arXiv 2309.00071), 3.2 to 3.4. Frequencies and
angles are computed in float64, in which a position times a frequency loses nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class RopeScaling:
    """How the frequencies are scaled; which numbers count depends on ``kind``."""

    kind: str = "default"
    factor: float = 1.0
    original: int = 0
    low_freq: float = 1.0
    high_freq: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 1.0
    truncate: bool = True


KINDS = ("default", "linear", "llama3", "yarn")


def read_scaling(fields: Mapping[str, Any], max_positions: int) -> tuple[float, RopeScaling]:
    """theta and scaling from a config.json: ``rope_parameters`` of transformers 5, or
    ``rope_theta`` and ``rope_scaling`` of earlier ones. Errors: ValueError naming the field."""
    name = "rope_parameters" if fields.get("rope_parameters") else "rope_scaling"
    given = fields.get(name) or {}
    if not isinstance(given, Mapping):
        raise ValueError(f"{name} is {given!r}, must be an object")
    theta = given.get("rope_theta", fields.get("rope_theta"))
    theta = 10000.0 if theta is None else theta
    if type(theta) not in (int, float) or not theta > 1:
        raise ValueError(f"rope_theta is {theta!r}, must be a number above 1")
    for field in ("partial_rotary_factor", "rope_interleaved"):
        value = given.get(field, fields.get(field))
        if value not in (None, False, 1, 1.0):
            raise ValueError(f"{field} is {value!r}, which is not supported")
    kind = given.get("rope_type", given.get("type", "default"))
    if kind not in KINDS:
        raise ValueError(f"{name}: rope_type is {kind!r}, served are {', '.join(KINDS)}")
    return float(theta), _scaling(kind, _Numbers(name, given), max_positions)


def _scaling(kind: str, of: _Numbers, max_positions: int) -> RopeScaling:
    if kind == "default":
        return RopeScaling()
    if kind == "linear":
        return RopeScaling(kind, of.get("factor"))
    original = int(of.get("original_max_position_embeddings", max_positions))
    if kind == "llama3":
        low, high = of.get("low_freq_factor"), of.get("high_freq_factor")
        if not low < high:
            raise ValueError(f"{of.field}: low_freq_factor {low} is not below {high}")
        return RopeScaling(kind, of.get("factor"), original, low_freq=low, high_freq=high)
    factor = of.get("factor", max_positions / original)
    return RopeScaling(
        kind,
        factor,
        original,
        beta_fast=of.get("beta_fast", 32.0),
        beta_slow=of.get("beta_slow", 1.0),
        attention_factor=of.get("attention_factor", _attention_factor(factor, of)),
        truncate=bool(of.given.get("truncate", True)),
    )


def _attention_factor(factor: float, of: _Numbers) -> float:
    def grown(mscale: float) -> float:
        return 0.1 * mscale * math.log(factor) + 1 if factor > 1 else 1.0

    if of.given.get("mscale") and of.given.get("mscale_all_dim"):
        return grown(of.get("mscale")) / grown(of.get("mscale_all_dim"))
    return grown(1.0)


@dataclass(frozen=True)
class _Numbers:
    """The numbers of one object of a config, which all must be above 0."""

    field: str
    given: Mapping[str, Any]

    def get(self, name: str, default: float | None = None) -> float:
        value: Any = self.given.get(name)
        value = default if value is None else value
        if not isinstance(value, (int, float)) or not value > 0:
            raise ValueError(f"{self.field}: {name} is {value!r}, must be a number above 0")
        return float(value)


def frequencies(head_dim: int, theta: float, scaling: RopeScaling) -> Tensor:
    """By how much each pair turns a position: float64 [head_dim / 2]."""
    pair = torch.arange(head_dim // 2, dtype=torch.float64)
    plain = theta ** (-2 * pair / head_dim)
    slow = plain / scaling.factor
    if scaling.kind == "linear":
        return slow
    if scaling.kind == "llama3":
        turns = scaling.original * plain / (2 * math.pi)  # within the original context
        kept = (turns - scaling.low_freq) / (scaling.high_freq - scaling.low_freq)
        return torch.lerp(slow, plain, kept.clamp(0, 1))
    if scaling.kind == "yarn":
        first, last = _yarn_range(head_dim, theta, scaling)
        slowed = (pair - first) / (last - first)
        return torch.lerp(plain, slow, slowed.clamp(0, 1))
    return plain


def _yarn_range(head_dim: int, theta: float, scaling: RopeScaling) -> tuple[float, float]:
    """The pairs that turn beta_fast and beta_slow times within the original context."""

    def pair_of(turns: float) -> float:
        longest = scaling.original / (turns * 2 * math.pi)
        return head_dim * math.log(longest) / (2 * math.log(theta))

    first, last = pair_of(scaling.beta_fast), pair_of(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    return first, last if last > first else first + 0.001


def rope_table(head_dim: int, theta: float, scaling: RopeScaling, positions: int) -> Tensor:
    """cos_sin of ops.rope: float32 [positions, head_dim], cosines before sines."""
    angle = torch.arange(positions, dtype=torch.float64)[:, None] * frequencies(
        head_dim, theta, scaling
    )
    table = torch.cat([angle.cos(), angle.sin()], dim=1) * scaling.attention_factor
    return table.float()
