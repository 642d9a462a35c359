"""Guarded memory for one case: every tensor between guard zones, every unused byte poisoned.

The judge lays out a case's tensors in an Arena of its own process memory. Each byte is either data
or a hole (guard zone, stride gap, unused cache slot). A kernel never sees this memory: it gets
copies, one for each run, in regions that the judge and the worker process share, with the holes
filled by that run's poison. Afterwards the judge compares whole regions, so a byte that changed
anywhere, whoever wrote it, is seen.

A far tensor is one that is too large for memory, such as a cache of more than 2^31 elements of
which a case uses a few pages. It gets its whole range of addresses, but only the rows that the case
names, and a guard zone around each, are part of the arena; the rest is memory that nobody touches.
So address arithmetic is exercised at its true size, at the price of the rows.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Bytes = NDArray[np.uint8]

GUARD = 256
"""Bytes of guard zone on each side of a tensor."""
ALIGNMENT = 256
"""Tensors start at multiples of this many bytes, as allocators give them, unless shifted."""
POISONS = (0xFF, 0x7B)
"""The byte that fills the holes of each run. As float16, bfloat16 and float32 alike, 0xFF… is a NaN
and 0x7B… a huge finite number; as int32 they are -1 and 2,071,690,107."""
REGION_BYTES = (1 << 36) - 0x4001_2300
"""Address space of one region; pages take memory only once they are touched. No power of two, so
that a tensor's address differs between the regions in low bits and in high ones."""
FAR_BYTES = 1 << 28
"""A tensor from this size on, whose rows in use are named, is far."""

Extent = tuple[int, int]
"""First byte, and one past the last."""


def reserved(size: int, fd: int | None = None) -> Bytes:
    """Zeros that take memory only where they are touched, in a file of their own or in ``fd``."""
    own = os.memfd_create("yaie") if fd is None else fd
    if fd is None:
        os.ftruncate(own, size)
    memory: Bytes = np.frombuffer(mmap.mmap(own, size), np.uint8)
    if fd is None:
        os.close(own)  # the mapping keeps it
    return memory


@dataclass(frozen=True)
class Placement:
    """Where a tensor lies in a region: enough to make the same view in another process."""

    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @staticmethod
    def of(tensor: Tensor, base: Tensor) -> Placement:
        """The place of a tensor that is a view of ``base``'s memory."""
        offset = tensor.data_ptr() - base.data_ptr() if tensor.numel() else 0
        return Placement(tensor.dtype, offset, tuple(tensor.shape), tuple(tensor.stride()))

    def view(self, base: Tensor) -> Tensor:
        """The tensor at this place of ``base`` (uint8, any device)."""
        typed = base.view(self.dtype)
        size = self.dtype.itemsize
        if self.offset % size:
            raise ValueError(f"offset {self.offset} is no multiple of the element size {size}")
        return typed.as_strided(self.shape, self.strides, self.offset // size)

    @property
    def end(self) -> int:
        """One past the last byte that the tensor reaches."""
        if 0 in self.shape:
            return self.offset
        last = sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        return self.offset + (last + 1) * self.dtype.itemsize


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Row-major strides in elements."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


class Slab:
    """A tensor in an arena that starts out as a hole; what is written becomes data."""

    def __init__(self, tensor: Tensor, holes: Tensor) -> None:
        self.tensor = tensor
        self._holes = holes

    def write(self, values: Tensor, index: object = ...) -> Tensor:
        """Store ``values`` (converted to the dtype) at ``index``; return the whole tensor."""
        self.tensor[index] = values.to(self.tensor.dtype)  # type: ignore[index]
        self._holes[index] = 0  # type: ignore[index]
        return self.tensor


_HOLE_DTYPES = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Arena:
    """The judge's private copy of a case's memory: its bytes, and which of them are holes."""

    def __init__(self, capacity: int = REGION_BYTES // 2) -> None:
        self._data, self._holes = reserved(capacity), reserved(capacity)
        self._base = torch.from_numpy(self._data)
        self._hole_base = torch.from_numpy(self._holes)
        self.top = 0
        self._extents: list[Extent] = []

    @property
    def base(self) -> Tensor:
        """The bytes, as the uint8 tensor that all placements refer to."""
        return self._base

    def reset(self) -> None:
        """Forget every tensor."""
        self.top = 0
        self._extents = []
        self._reserve(GUARD)

    @property
    def extents(self) -> tuple[Extent, ...]:
        """The parts that hold something, in order; one, up to ``top``, without far tensors."""
        return tuple(self._extents)

    def slab(
        self,
        shape: Sequence[int],
        dtype: torch.dtype,
        strides: Sequence[int] | None = None,
        shift: int = 0,
        rows: Iterable[int] | None = None,
    ) -> Slab:
        """Room for a tensor, all of it a hole. ``shift`` moves it by that many elements off the
        allocator's alignment. If it is far, only ``rows`` of its first axis may be used."""
        strides = contiguous_strides(shape) if strides is None else tuple(strides)
        start = -(-self.top // ALIGNMENT) * ALIGNMENT + shift * dtype.itemsize
        place = Placement(dtype, start, tuple(shape), tuple(strides))
        if rows is not None and place.end - start >= FAR_BYTES:
            self._reserve_rows(place, rows)
        else:
            self._reserve(place.end + GUARD)
        holes = Placement(_HOLE_DTYPES[dtype.itemsize], start, place.shape, place.strides)
        return Slab(place.view(self._base), holes.view(self._hole_base))

    def _reserve(self, end: int) -> None:
        end = -(-end // ALIGNMENT) * ALIGNMENT  # so that the whole can be viewed as any dtype
        if end > len(self._data):
            need, have = end >> 20, len(self._data) >> 20
            raise MemoryError(f"the case needs {need} MiB of arena, there are {have} MiB")
        if end <= self.top:
            return
        self._data[self.top : end] = POISONS[0]
        self._holes[self.top : end] = 0xFF
        if self._extents and self._extents[-1][1] == self.top:
            self._extents[-1] = (self._extents[-1][0], end)
        else:
            self._extents.append((self.top, end))
        self.top = end

    def _reserve_rows(self, place: Placement, rows: Iterable[int]) -> None:
        """Room for some rows of a far tensor, each between guard zones, and for its end."""
        row = place.strides[0] * place.dtype.itemsize
        for i in sorted({int(i) for i in rows}):
            start = place.offset + i * row
            self._skip(start - GUARD)
            self._reserve(start + row + GUARD)
        self._skip(place.end)
        self._reserve(place.end + GUARD)

    def _skip(self, start: int) -> None:
        """Leave what lies before ``start`` to nobody."""
        self.top = max(self.top, start // ALIGNMENT * ALIGNMENT)

    def write(self, target: Bytes, poison: int) -> None:
        """Copy the arena to the same places of ``target``; its holes become ``poison`` there."""
        mask = np.uint8(poison ^ POISONS[0])
        for a, b in self._extents:
            np.bitwise_xor(self._data[a:b], self._holes[a:b] & mask, out=target[a:b])

    def byte(self, at: int, poison: int) -> int:
        """What ``write`` puts at a place."""
        return int(self._data[at] ^ (self._holes[at] & np.uint8(poison ^ POISONS[0])))

    def bytes(self, poison: int) -> Bytes:
        """A copy of the arena up to its top, whose holes hold the byte ``poison``."""
        filled = np.zeros(self.top, np.uint8)
        self.write(filled, poison)
        return filled


class Regions:
    """Memory that the judge shares with its worker: one region for each run of a case."""

    def __init__(self, fd: int | None = None) -> None:
        self.fd = os.memfd_create("yaie-regions") if fd is None else fd
        size = REGION_BYTES * len(POISONS)
        if fd is None:
            os.ftruncate(self.fd, size)
        self._bytes = reserved(size, self.fd)

    def __getitem__(self, run: int) -> Bytes:
        """The bytes of the region of run number ``run``."""
        return self._bytes[run * REGION_BYTES : (run + 1) * REGION_BYTES]

    def close(self) -> None:
        """Give the file back; the memory goes with the last view of it."""
        os.close(self.fd)
