"""Decode steps as CUDA graphs: the launches of all layers are recorded once and replayed.

A step qualifies when every sequence computes one token. Its batch is padded to the next recorded
size: padding rows store nothing (slot -1), have no keys (kv_len 0), and their logits are dropped. A
replay reads the same buffers as the recording, so a step copies its numbers there first. While a
step is computed the next may be begun: they use two buffers on the host in turn, and one is not
written before the device has read it. Kernels are chosen while recording; a later ``yaie.use`` does
not change a graph.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yaie import dispatch
from yaie.engine import batch as batches
from yaie.engine.batch import Batch
from yaie.engine.scheduler import Chunk, Sequence

Forward = Callable[[Batch], Tensor]


@dataclass(frozen=True)
class Recorded:
    """What a recording reads, and what ``replay`` writes anew."""

    hosts: tuple[Rows, Rows]
    buffer: Tensor
    tokens: Tensor
    logits: Tensor
    replay: Callable[[], None]


class Rows:
    """The rows of a batch of decode steps on the host, where most stay as they are from one step to
    the next: block tables are written only where they have changed."""

    def __init__(self, buffer: Tensor, host: Batch, page_size: int) -> None:
        self.buffer = buffer  # of which ``host`` is made
        self._page_size = page_size
        self._read: torch.cuda.Event | None = None  # the device has read what was sent last
        self._tokens, self._positions = host.tokens.numpy(), host.positions.numpy()
        self._slots, self._kv_lens = host.slots.numpy(), host.kv_lens.numpy()
        self._table = host.block_table.numpy()
        self._sequences: list[Sequence] | None = None  # none written yet
        self._versions: list[int] = []
        size = len(host.tokens)
        host.last[:] = torch.arange(size, dtype=torch.int32)
        host.q_indptr[:] = torch.arange(size + 1, dtype=torch.int32)

    def write(self, chunks: list[Chunk], known: bool = True) -> None:
        """Write the chunks into the first rows, and rows of padding behind them; the tokens only if
        they are known. Waits while the device may still read those before."""
        if self._read is not None:
            self._read.synchronize()
        n, table = len(chunks), self._table
        tokens, positions, slots = self._tokens, self._positions, self._slots
        sequences = [chunk.sequence for chunk in chunks]
        if sequences != self._sequences:
            tokens[n:], positions[n:], slots[n:] = 0, 0, -1
            self._kv_lens[n:], table[n:] = 0, -1
            self._sequences, self._versions = sequences, [-1] * n
        self._write_tables(sequences)
        start = np.array([chunk.start for chunk in chunks], np.int32)
        if known:
            tokens[:n] = [chunk.sequence.token(chunk.start) for chunk in chunks]
        positions[:n], self._kv_lens[:n] = start, start + 1
        page, offset = np.divmod(start, self._page_size)
        slots[:n] = table[np.arange(n), page] * self._page_size + offset

    def send(self, to: Tensor) -> None:
        """Copy them to the buffer of a recording."""
        to.copy_(self.buffer, non_blocking=True)
        self._read = batches.sent(to.device)

    def _write_tables(self, sequences: list[Sequence]) -> None:
        versions = [sequence.table_version for sequence in sequences]
        if versions == self._versions:
            return
        of_rows = zip(self._table, sequences, versions, self._versions, strict=False)
        for row, sequence, new, old in of_rows:
            if new != old:
                row[: sequence.pages] = sequence.table[: sequence.pages]
                row[sequence.pages :] = -1
        self._versions = versions


class DecodeGraphs:
    """Recordings of ``forward`` by batch size and by the width of the block table, made when they
    are first needed. Both are rounded up, so that there are few."""

    def __init__(
        self,
        forward: Forward,
        max_requests: int,
        max_pages: int,
        page_size: int,
        device: torch.device,
    ) -> None:
        self.forward = forward
        self.max_requests, self.max_pages = max_requests, max_pages
        self.page_size, self.device = page_size, device
        self.recorded: dict[tuple[int, int], Recorded] = {}
        self.replays = 0
        self._memory: Any = None
        self._stream: torch.cuda.Stream | None = None

    def serves(self, chunks: Iterable[Chunk]) -> bool:
        """Whether this step is a decode step."""
        return all(chunk.length == 1 and chunk.is_last for chunk in chunks)

    def run(self, chunks: list[Chunk], tokens: Tensor | None = None) -> Tensor:
        """The logits of a decode step: float32 [B,V]. They are overwritten by the next replay. The
        host need not know the tokens that are computed where ``tokens`` [B] holds them on the
        device; what is no token (-1) is computed as 0."""
        pages = max(chunk.start for chunk in chunks) // self.page_size + 1
        key = size_for(len(chunks), self.max_requests), width_for(pages, self.max_pages)
        if key not in self.recorded:
            self.recorded[key] = self._record(*key)
        recorded = self.recorded[key]
        rows = recorded.hosts[self.replays % 2]
        rows.write(chunks, known=tokens is None)
        rows.send(recorded.buffer)
        if tokens is not None:
            recorded.tokens[: len(chunks)].copy_(tokens.clamp(min=0))
        recorded.replay()
        self.replays += 1
        return recorded.logits[: len(chunks)]

    def _record(self, size: int, width: int) -> Recorded:
        shapes = batches.sizes(size, size, size, width)
        hosts = self._host_rows(shapes), self._host_rows(shapes)
        buffer = hosts[0].buffer.to(self.device, copy=True)
        batch = batches.views(buffer, shapes)
        with dispatch.checked(False):  # contents cannot be read while recording
            logits, replay = self.capture(lambda: self.forward(batch))
        return Recorded(hosts, buffer, batch.tokens, logits, replay)

    def _host_rows(self, shapes: dict[str, tuple[int, ...]]) -> Rows:
        buffer = batches.host_buffer(shapes, self.device)
        rows = Rows(buffer, batches.views(buffer, shapes), self.page_size)
        rows.write([])
        return rows

    def capture(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """Record ``work``; returns its result, and what computes it anew in the same memory."""
        current = torch.cuda.current_stream(self.device)
        side = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        side.wait_stream(current)
        with torch.cuda.stream(side):  # libraries allocate and choose on the first calls
            for _ in range(2):
                work()
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        if self._stream is None:  # the same for all that share memory, on this very GPU
            self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        with recording(graph, pool=self._memory, stream=self._stream):
            result = work()
        self._memory = graph.pool()
        return result, graph.replay


@contextmanager
def recording(graph: torch.cuda.CUDAGraph, **options: Any) -> Iterator[None]:
    """``torch.cuda.graph`` without garbage collection: an old graph that the collector found now
    would end the process, for CUDA refuses to destroy one while another is recorded."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        with torch.cuda.graph(graph, **options):
            yield
    finally:
        if enabled:
            gc.enable()


def size_for(n: int, most: int) -> int:
    """Rows: the next power of two, or the next multiple of 32 above 32; ``most`` at most."""
    return width_for(n, most) if n <= 32 else min(-(-n // 32) * 32, most)


def width_for(n: int, most: int) -> int:
    """Pages: the next power of two, for an unused column costs little; ``most`` at most."""
    return min(1 << (n - 1).bit_length(), most)
