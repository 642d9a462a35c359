"""One step's work as tensors: the arguments that the ops of a decoder share.

T tokens of B sequences, packed; all index tensors are views of one int32 buffer, so that a step
costs one copy to the device.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from yaie.engine.scheduler import Chunk


@dataclass(frozen=True)
class Batch:
    """Tokens and where they stand; see ops.rope_append_kv and ops.paged_attention.

    ``last`` are the rows whose hidden state gives a next token.
    """

    tokens: Tensor  # int32 [T]
    positions: Tensor  # int32 [T]
    slots: Tensor  # int32 [T]
    q_indptr: Tensor  # int32 [B+1]
    kv_lens: Tensor  # int32 [B]
    block_table: Tensor  # int32 [B,W]
    last: Tensor  # int32 [R]


FIELDS = ("tokens", "positions", "slots", "q_indptr", "kv_lens", "last")


def sizes(tokens: int, sequences: int, last: int, width: int) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of a batch, in the order in which they lie in the buffer."""
    flat = (tokens, tokens, tokens, sequences + 1, sequences, last)
    return {
        **{name: (n,) for name, n in zip(FIELDS, flat, strict=True)},
        "block_table": (sequences, width),
    }


def views(buffer: Tensor, shapes: dict[str, tuple[int, ...]]) -> Batch:
    """The tensors of a batch on their buffer."""
    lengths = [int(np.prod(shape)) for shape in shapes.values()]
    parts = torch.split(buffer, lengths)
    return Batch(**{n: p.view(s) for (n, s), p in zip(shapes.items(), parts, strict=True)})


def pack(chunks: Collection[Chunk], page_size: int, device: torch.device) -> Batch:
    """The batch of these chunks."""
    tokens = sum(chunk.count for chunk in chunks)
    last = [row for row, chunk in zip(_ends(chunks), chunks, strict=True) if chunk.is_last]
    width = max(-(-chunk.stop // page_size) for chunk in chunks)
    shapes = sizes(tokens, len(chunks), len(last), width)
    host = torch.empty(
        sum(int(np.prod(shape)) for shape in shapes.values()),
        dtype=torch.int32,
        pin_memory=device.type == "cuda",
    )
    batch = views(host, shapes)
    batch.last.numpy()[:] = last
    fill(batch, chunks, page_size)
    return views(host.to(device, non_blocking=True), shapes)


def fill(batch: Batch, chunks: Collection[Chunk], page_size: int) -> None:
    """Write tokens, positions, slots and tables of the chunks into a batch on the CPU."""
    tokens, positions, slots = (x.numpy() for x in (batch.tokens, batch.positions, batch.slots))
    table, lens, indptr = (x.numpy() for x in (batch.block_table, batch.kv_lens, batch.q_indptr))
    indptr[0] = row = 0
    for b, chunk in enumerate(chunks):
        sequence, start, stop = chunk.sequence, chunk.start, chunk.stop
        rows = slice(row, row + chunk.count)
        tokens[rows] = sequence.tokens[start:stop]
        if chunk.count == 1:  # decode: no arrays for one number
            positions[row] = start
            slots[row] = sequence.table[start // page_size] * page_size + start % page_size
        else:
            at = np.arange(start, stop, dtype=np.int32)
            positions[rows] = at
            slots[rows] = sequence.table[at // page_size] * page_size + at % page_size
        used = -(-stop // page_size)
        table[b, :used] = sequence.table[:used]
        table[b, used:] = -1
        lens[b] = stop
        row += chunk.count
        indptr[b + 1] = row


def _ends(chunks: Collection[Chunk]) -> list[int]:
    """The last row of each chunk."""
    ends: list[int] = (np.cumsum([chunk.count for chunk in chunks]) - 1).tolist()
    return ends
