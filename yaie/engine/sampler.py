"""The next token of each sequence: ops.penalize where asked for, then ops.greedy or ops.sample."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from yaie import ops
from yaie.engine import batch as batches
from yaie.engine.scheduler import Chunk, Sequence

OFF = 2**31 - 1
"""The top_k that keeps every token."""


class Drawn:
    """Tokens int32 [R] on the device, and on their way to the host."""

    def __init__(self, tokens: Tensor) -> None:
        self.tokens = tokens
        self._copy, self._copied = tokens, None
        if tokens.device.type == "cuda":
            self._copy = torch.empty_like(tokens, device="cpu", pin_memory=True)
            self._copy.copy_(tokens, non_blocking=True)
            self._copied = batches.sent(tokens.device)

    def tolist(self) -> list[int]:
        """Wait for them, and for nothing that was begun later; -1 for a row that holds no
        distribution."""
        if self._copied is not None:
            self._copied.synchronize()
        tokens: list[int] = self._copy.tolist()
        return tokens


def needs_history(chunks: list[Chunk]) -> bool:
    """Whether a next token depends on what was said before, not on logits alone."""
    return any(chunk.sequence.request.params.penalised for chunk in chunks)


class Sampler:
    """Draws tokens, each by the parameters, the seed and the position of its own sequence alone.

    Parameters stay on the device while the same sequences come again, as they do while decoding.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._known: list[Sequence] = []
        self._parameters: list[Tensor] = []

    def __call__(self, logits: Tensor, chunks: list[Chunk]) -> Drawn:
        """One token for each row of logits [R,V], which follow from these chunks."""
        sequences = [chunk.sequence for chunk in chunks]
        logits = self._penalized(logits, sequences)
        if all(s.request.params.temperature == 0 for s in sequences):
            return Drawn(ops.greedy(logits))
        positions = self._to_device([chunk.stop for chunk in chunks], torch.int32)
        return Drawn(ops.sample(logits, *self._parameters_of(sequences), positions))

    def _parameters_of(self, sequences: list[Sequence]) -> list[Tensor]:
        """temperature, top_k, top_p, min_p and seed of each."""
        if sequences != self._known:
            params = [s.request.params for s in sequences]
            f32, i32 = torch.float32, torch.int32
            self._parameters = [
                self._to_device([p.temperature for p in params], f32),
                self._to_device([min(p.top_k, OFF) if p.top_k > 0 else OFF for p in params], i32),
                self._to_device([p.top_p for p in params], f32),
                self._to_device([p.min_p for p in params], f32),
                self._to_device([s.request.seed for s in sequences], torch.int64),
            ]
            self._known = sequences
        return self._parameters

    def _penalized(self, logits: Tensor, sequences: list[Sequence]) -> Tensor:
        """Neutral rows keep their bits whatever their tokens are, so theirs are not sent."""
        params = [s.request.params for s in sequences]
        if not any(p.penalised for p in params):
            return logits
        prompts = [s.request.prompt if s.request.params.penalised else NONE for s in sequences]
        outputs = [s.output if s.request.params.penalised else NONE for s in sequences]
        penalized: Tensor = ops.penalize(
            logits,
            *self._packed(prompts),
            *self._packed(outputs),
            self._to_device([p.repetition for p in params], torch.float32),
            self._to_device([p.frequency for p in params], torch.float32),
            self._to_device([p.presence for p in params], torch.float32),
        )
        return penalized

    def _packed(self, lists: list[np.ndarray[tuple[int, ...], np.dtype[np.int32]]]) -> list[Tensor]:
        ends = np.cumsum([0, *map(len, lists)], dtype=np.int32)
        return [self._sent(torch.from_numpy(x)) for x in (np.concatenate(lists), ends)]

    def _to_device(self, values: list[int] | list[float], dtype: torch.dtype) -> Tensor:
        return self._sent(torch.tensor(values, dtype=dtype))

    def _sent(self, tensor: Tensor) -> Tensor:
        """On the device, without waiting for what runs there."""
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)


NONE = np.empty(0, np.int32)
