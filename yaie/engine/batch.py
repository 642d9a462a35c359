"""One step's work as tensors: the arguments that the ops of a decoder share.

T tokens of B sequences, packed; all index tensors are views of one int32 buffer, so that a step
costs one copy to the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    lengths = [math.prod(shape) for shape in shapes.values()]
    parts = torch.split(buffer, lengths)
    return Batch(**{n: p.view(s) for (n, s), p in zip(shapes.items(), parts, strict=True)})


def pack(chunks: Sequence[Chunk], page_size: int, device: torch.device) -> Batch:
    """The batch of these chunks."""
    lengths = np.array([chunk.length for chunk in chunks])
    ends = np.cumsum(lengths)
    last = [end - 1 for end, chunk in zip(ends.tolist(), chunks, strict=True) if chunk.is_last]
    width = max(pages_of(chunk, page_size) for chunk in chunks)
    shapes = sizes(int(ends[-1]), len(chunks), len(last), width)
    host = host_buffer(shapes, device)
    batch = views(host, shapes)
    batch.last.numpy()[:] = last
    fill(batch, chunks, page_size)
    return views(host.to(device, non_blocking=True), shapes)


def pages_of(chunk: Chunk, page_size: int) -> int:
    """How many pages hold the tokens up to the end of a chunk."""
    return -(-chunk.stop // page_size)


def host_buffer(shapes: dict[str, tuple[int, ...]], device: torch.device) -> Tensor:
    """Memory for a batch on the CPU, from where it can be sent to the device without waiting."""
    numbers = sum(math.prod(shape) for shape in shapes.values())
    return torch.zeros(numbers, dtype=torch.int32, pin_memory=device.type == "cuda")


def sent(device: torch.device) -> torch.cuda.Event | None:
    """What to wait for until all that was sent to a GPU so far is done; a CPU is done at once."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))  # which need not be the current GPU's
    return event


def fill(batch: Batch, chunks: Sequence[Chunk], page_size: int) -> None:
    """Write tokens, positions, slots and tables of the chunks into the first rows of a batch on
    the CPU. Entries of the table that no chunk has are -1."""
    n = len(chunks)
    table, lens, indptr = (x.numpy() for x in (batch.block_table, batch.kv_lens, batch.q_indptr))
    table[:n] = -1
    for row, chunk in zip(table, chunks, strict=False):
        used = pages_of(chunk, page_size)
        row[:used] = chunk.sequence.table[:used]
    start = np.array([chunk.start for chunk in chunks], np.int32)
    length = np.array([chunk.length for chunk in chunks], np.int32)
    lens[:n] = start + length
    indptr[0] = 0
    np.cumsum(length, out=indptr[1 : n + 1])
    total = int(indptr[n])
    tokens, positions, slots = (
        x.numpy()[:total] for x in (batch.tokens, batch.positions, batch.slots)
    )
    if total == n:  # decode: one token a row
        tokens[:] = [chunk.sequence.token(chunk.start) for chunk in chunks]
        positions[:], row_of = start, np.arange(n)
    else:
        np.concatenate([c.sequence.tokens[c.start : c.stop] for c in chunks], out=tokens)
        row_of = np.repeat(np.arange(n), length)
        positions[:] = np.arange(total) - indptr[row_of] + start[row_of]
    page, offset = np.divmod(positions, page_size)
    slots[:] = table[row_of, page] * page_size + offset
