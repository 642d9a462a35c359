"""The guide's sampler: temperature, top-k, top-p and min-p, then a draw."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from yaie import ops


class SamplingKernel:
    """Draws tokens from logits (ops.sample). The random seed is drawn once, from the generator of
    the first call; after that a draw depends on how many calls came before, on its row, and on the
    row's logits alone."""

    def __init__(self) -> None:
        self._seed: int | None = None
        self._calls = 0

    def sample(
        self,
        logits: Tensor,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = -1,
        min_p: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """One token for each row of logits [B,V], of any float dtype: ids int64 [B].

        ``temperature`` 0 takes the most likely token; ``top_k`` -1 or 0, ``top_p`` 1 and
        ``min_p`` 0 are off. ``generator`` None is torch's own. A row with NaN or +inf, or of -inf
        alone, gives -1.

        Errors: ValueError for a parameter out of range, by name.
        """
        _check(logits, temperature, top_p, top_k, min_p)
        batch, vocabulary = logits.shape
        if self._seed is None:
            device = generator.device if generator is not None else "cpu"
            drawn = torch.randint(2**62, (1,), generator=generator, device=device)
            self._seed = int(drawn)

        def each_row(value: float, dtype: torch.dtype) -> Tensor:
            return torch.full((batch,), value, dtype=dtype, device=logits.device)

        row = torch.arange(batch, dtype=torch.int64, device=logits.device)
        token: Tensor = ops.sample(
            logits.float().contiguous(),
            each_row(temperature, torch.float32),
            each_row(top_k if top_k > 0 else vocabulary, torch.int32),
            each_row(top_p, torch.float32),
            each_row(min_p, torch.float32),
            self._seed + row,
            each_row(self._calls, torch.int32),
        )
        self._calls += 1
        return token.to(torch.int64)


def _check(logits: Tensor, temperature: float, top_p: float, top_k: int, min_p: float) -> None:
    if logits.dim() != 2 or not logits.is_floating_point():
        raise ValueError(f"logits: {logits.dtype} {tuple(logits.shape)}, must be floats [B,V]")
    if not (temperature >= 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature is {temperature}, must be finite and not negative")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}, must lie in (0, 1]")
    if top_k < -1:
        raise ValueError(f"top_k is {top_k}, must be at least 1, or -1 or 0 for off")
    if not 0 <= min_p <= 1:
        raise ValueError(f"min_p is {min_p}, must lie in [0, 1]")
