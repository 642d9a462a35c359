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
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Bytes = NDArray[np.uint8]

GUARD = 256
"""Bytes of guard zone on each side of a tensor."""
ALIGNMENT = 256
"""Tensors start at multiples of this many bytes, as allocators give them, unless shifted."""
RUNS = 2
"""How often a case runs; each run has a region of its own."""
REGION_BYTES = (1 << 36) - 0x4001_2300
"""Address space of one region; pages take memory only once they are touched. No power of two, so
that a tensor's address differs between the regions in low bits and in high ones."""
FAR_BYTES = 1 << 28
"""A tensor from this size on, whose rows in use are named, is far."""

Extent = tuple[int, int]
"""First byte, and one past the last."""


@dataclass(frozen=True)
class Poison:
    """What fills the holes of one run: four bytes, repeated, that begin at each multiple of 4, so
    that a number of any size reads the same wherever it lies.

    ``words`` says what that is in memory of some dtypes, ``word`` in all other. A poison that
    ``recycles`` gives what a kernel allocates in the second run the bytes that its first run left
    there, if it left some.
    """

    name: str
    word: int
    words: Mapping[torch.dtype | None, int] = field(default_factory=dict, hash=False)
    recycles: bool = False

    def word_of(self, dtype: torch.dtype | None) -> int:
        """The four bytes, as a little-endian number, in memory of that dtype."""
        return self.words.get(dtype, self.word)

    def bytes(self, start: int, stop: int, dtype: torch.dtype | None = None) -> Bytes:
        """What lies at the addresses from ``start`` up to ``stop``, in memory of that dtype."""
        four, first = bytearray(self.word_of(dtype).to_bytes(4, "little")), start % 4
        filled: Bytes = np.frombuffer(four * ((stop - start) // 4 + 2), np.uint8)
        filled = filled[first : first + max(stop - start, 0)]
        return filled


_INFINITIES: dict[torch.dtype | None, int] = {
    torch.float16: 0x7C00_7C00,
    torch.bfloat16: 0x7F80_7F80,
    torch.float32: 0x7F80_0000,
    torch.int8: 0x7F7F_7F7F,
    torch.uint8: 0x7F7F_7F7F,  # not 0xFF: that is the first run's
    torch.int16: 0x7FFF_7FFF,
    torch.int32: 0x7FFF_FFFF,
    torch.int64: 0x7FFF_FFFF,  # 0x7FFF_FFFF_7FFF_FFFF
}
_ONES: dict[torch.dtype | None, int] = {
    torch.float16: 0x3C00_3C00,
    torch.bfloat16: 0x3F80_3F80,
    torch.float32: 0x3F80_0000,
    torch.int8: 0x0101_0101,
    torch.uint8: 0x0101_0101,
    torch.int16: 0x0001_0001,
    torch.int32: 0x0000_0001,
    torch.int64: 0x0000_0001,  # 0x0000_0001_0000_0001
}

NAN = Poison("NaN", 0xFFFF_FFFF)
"""A NaN as float16, bfloat16 and float32 alike; -1 as an integer."""
HUGE = Poison("huge", 0x7B7B_7B7B)
"""A huge finite number, as int32 2,071,690,107: found by what a NaN is not, such as max(x, NaN)."""
INFINITE = Poison("infinite", 0x7F80_0000, _INFINITIES)
"""+inf, of an integer the largest: found where finite numbers are clamped or pass for outliers, and
a NaN is ignored."""
ZEROS = Poison("zeros", 0)
"""The one valid number of every dtype, and index: found where the others pass for no number."""
LEFTOVERS = Poison("leftovers", 0x3F80_0000, _ONES, recycles=True)
"""Memory as an allocator recycles it, with believable contents: what the first run left in its
allocations; elsewhere the number 1."""
FIRST_POISON = NAN
"""That of a case's first run."""
OTHER_POISONS = (HUGE, INFINITE, ZEROS, LEFTOVERS)
"""Those that its second run may have."""
POISONS = (FIRST_POISON, *OTHER_POISONS)


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
        return typed.as_strided(
            self.shape, self.strides, typed.storage_offset() + self.offset // size
        )

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
        self._zones = _Zones()

    @property
    def base(self) -> Tensor:
        """The bytes, as the uint8 tensor that all placements refer to."""
        return self._base

    def reset(self) -> None:
        """Forget every tensor."""
        self.top = 0
        self._extents = []
        self._zones = _Zones()
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
        self._zones.begin(self.top, dtype)
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
        self._data[self.top : end] = 0xFF
        self._holes[self.top : end] = 0xFF
        if self._extents and self._extents[-1][1] == self.top:
            self._extents[-1] = (self._extents[-1][0], end)
        else:
            self._extents.append((self.top, end))
        self.top = end

    def _reserve_rows(self, place: Placement, rows: Iterable[int]) -> None:
        """Room for some rows of a far tensor, each between guard zones, and for its end. What lies
        between rows that do not follow each other is nobody's."""
        pitch = place.strides[0] * place.dtype.itemsize
        row = replace(place, shape=place.shape[1:], strides=place.strides[1:])
        for i in sorted({int(i) for i in rows}):
            self._skip(place.offset + i * pitch - GUARD)
            self._reserve(row.end + i * pitch + GUARD)
        self._skip(place.end)
        self._reserve(place.end + GUARD)

    def _skip(self, start: int) -> None:
        """Leave what lies before ``start`` to nobody."""
        self.top = max(self.top, start // ALIGNMENT * ALIGNMENT)

    def write(self, target: Bytes, poison: Poison) -> None:
        """Copy the arena to the same places of ``target``; its holes become ``poison`` there."""
        for a, b in self._extents:
            if poison.word == FIRST_POISON.word:  # as the holes are kept
                target[a:b] = self._data[a:b]
                continue
            words = (memory[a:b].view(np.uint32) for memory in (self._data, self._holes, target))
            data, holes, out = words
            for first, last, dtype in self._zones.within(a, b, bool(poison.words)):
                part = slice((first - a) // 4, (last - a) // 4)
                mask = np.uint32(poison.word_of(dtype) ^ FIRST_POISON.word)
                np.bitwise_and(holes[part], mask, out=out[part])  # no array between: its pages cost
                np.bitwise_xor(out[part], data[part], out=out[part])

    def byte(self, at: int, poison: Poison) -> int:
        """What ``write`` puts at a place."""
        hole = int(poison.bytes(at, at + 1, self._zones.dtype(at))[0])
        return int(self._data[at] ^ (self._holes[at] & (0xFF ^ hole)))

    def bytes(self, poison: Poison) -> Bytes:
        """A copy of the arena up to its top, whose holes hold the ``poison``."""
        filled = np.zeros(self.top, np.uint8)
        self.write(filled, poison)
        return filled


@dataclass
class _Zones:
    """Whose memory is where: each zone is a tensor, with half of the guard zone before it and of
    that behind it. What lies before the first is nobody's."""

    starts: list[int] = field(default_factory=lambda: [0])
    dtypes: list[torch.dtype | None] = field(default_factory=lambda: [None])

    def begin(self, top: int, dtype: torch.dtype) -> None:
        """A tensor follows behind a guard zone that ends at ``top``."""
        self.starts.append(top - GUARD // 2)
        self.dtypes.append(dtype)

    def dtype(self, at: int) -> torch.dtype | None:
        """The dtype of the zone at a place."""
        return self.dtypes[bisect_right(self.starts, at) - 1]

    def within(self, a: int, b: int, apart: bool) -> Iterator[tuple[int, int, torch.dtype | None]]:
        """The parts of an extent: first byte, one past the last, dtype. The whole in one, unless
        zones are to be taken ``apart``."""
        if not apart:
            yield a, b, None
            return
        at = bisect_right(self.starts, a) - 1
        for start, stop, dtype in zip(
            self.starts[at:], [*self.starts[at + 1 :], b], self.dtypes[at:], strict=True
        ):
            if start >= b:
                return
            yield max(start, a), min(stop, b), dtype


class Regions:
    """Memory that the judge shares with its worker: a region for each run of a case."""

    def __init__(self, fd: int | None = None) -> None:
        self.fd = os.memfd_create("yaie-regions") if fd is None else fd
        size = REGION_BYTES * RUNS
        if fd is None:
            os.ftruncate(self.fd, size)
        self._bytes = reserved(size, self.fd)

    def __getitem__(self, region: int) -> Bytes:
        """The bytes of a region."""
        return self.behind(region, 0)

    def behind(self, region: int, start: int) -> Bytes:
        """Those of a region from ``start`` on, a multiple of ALIGNMENT."""
        return self._bytes[region * REGION_BYTES + start : (region + 1) * REGION_BYTES]

    def close(self) -> None:
        """Give the file back; the memory goes with the last view of it."""
        os.close(self.fd)
