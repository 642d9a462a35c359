"""What is asked of the engine, and what comes out of it.

Everything is checked when it is made: a step never finds a bad parameter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from yaie.cache.integers import Integers, pack, unpack

Tokens = NDArray[np.int32]

STOP, LENGTH, CANCELLED, FAILED = "stop", "length", "cancelled", "error"
"""Why a request ended: a stop token, max_tokens, its caller, or logits that are no numbers."""


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How the tokens of one request are drawn (see ops.penalize and ops.sample).

    ``temperature`` 0 takes the most likely token. ``top_k`` -1 or 0, ``top_p`` 1, ``min_p`` 0,
    ``repetition`` 1, ``frequency`` 0 and ``presence`` 0 are off. A request without a ``seed`` gets
    one from the engine. It ends after ``max_tokens`` tokens, or with the first token of
    ``stop_ids`` or of the model's end-of-text tokens, unless ``ignore_eos``; that token is part of
    the output.

    Errors: ValueError, TypeError, naming the field.
    """

    temperature: float = 1.0
    top_k: int = -1
    top_p: float = 1.0
    min_p: float = 0.0
    repetition: float = 1.0
    frequency: float = 0.0
    presence: float = 0.0
    seed: int | None = None
    max_tokens: int = 16
    stop_ids: tuple[int, ...] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p", "min_p", "repetition", "frequency", "presence"):
            _number(name, getattr(self, name))
        _integer("top_k", self.top_k)
        _integer("max_tokens", self.max_tokens)
        _require(self.temperature >= 0, "temperature", self.temperature, "must not be negative")
        _require(self.top_k >= -1, "top_k", self.top_k, "must be at least 1, or -1 or 0 for off")
        _require(0 < self.top_p <= 1, "top_p", self.top_p, "must lie in (0, 1]")
        _require(0 <= self.min_p <= 1, "min_p", self.min_p, "must lie in [0, 1]")
        _require(self.repetition > 0, "repetition", self.repetition, "must be above 0")
        _require(-2 <= self.frequency <= 2, "frequency", self.frequency, "must lie in [-2, 2]")
        _require(-2 <= self.presence <= 2, "presence", self.presence, "must lie in [-2, 2]")
        _require(self.max_tokens >= 1, "max_tokens", self.max_tokens, "must be at least 1")
        if self.seed is not None:
            _integer("seed", self.seed)
            _require(-(2**63) <= self.seed < 2**63, "seed", self.seed, "must fit 64 bits")
        object.__setattr__(self, "stop_ids", _listed("stop_ids", self.stop_ids))
        for token in self.stop_ids:
            _integer("stop_ids", token)
            _require(token >= 0, "stop_ids", token, "must not be negative")
        if not isinstance(self.ignore_eos, bool):
            raise TypeError(f"SamplingParams: ignore_eos: {self.ignore_eos!r} is not a bool")

    @property
    def penalised(self) -> bool:
        """Whether a token's past changes its logit."""
        return (self.repetition, self.frequency, self.presence) != (1, 0, 0)


@dataclass(frozen=True)
class Request:
    """One prompt and how to go on with it. ``seed`` is the one that its tokens are drawn with."""

    id: str
    prompt: Tokens
    params: SamplingParams
    seed: int

    @staticmethod
    def of(request_id: str, prompt: Integers, params: SamplingParams, seed: int) -> Request:
        """Check the prompt, and copy it. Errors: ValueError, TypeError."""
        if not isinstance(params, SamplingParams):
            raise TypeError(f"request {request_id!r}: params: {params!r} is not a SamplingParams")
        tokens = unpack(pack(prompt, f"request {request_id!r}: prompt"))
        if not len(tokens):
            raise ValueError(f"request {request_id!r}: prompt: is empty, needs at least one token")
        return Request(request_id, tokens, params, seed if params.seed is None else params.seed)


@dataclass(frozen=True)
class Completion:
    """A request that has ended. ``seed`` with the same prompt and parameters gives the same
    tokens. ``cached_tokens`` of the prompt were found in the prefix cache when the request was
    first admitted; ``error`` says what went wrong where ``reason`` is "error"."""

    request_id: str
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    reason: str
    seed: int
    cached_tokens: int = 0
    preemptions: int = 0
    error: str | None = None


class Output(NamedTuple):
    """What one step did to one request: its next token (None where it ended without one), and the
    Completion if it has ended."""

    request_id: str
    token: int | None
    completion: Completion | None = None


def _number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"SamplingParams: {name}: {value!r} is not a number")
    _require(math.isfinite(value), name, value, "must be finite")


def _integer(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"SamplingParams: {name}: {value!r} is not an integer")


def _listed(name: str, values: Any) -> tuple[Any, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"SamplingParams: {name}: {values!r} is no list of token ids")
    return tuple(values)


def _require(holds: bool, name: str, value: Any, rule: str) -> None:
    if not holds:
        raise ValueError(f"SamplingParams: {name}: is {value}, {rule}")
