"""Runs one kernel on guarded memory; this is what happens inside the disposable worker.

The arguments are views of a region that the judge laid out. What the kernel allocates while it runs
(results, workspaces) is placed behind them in the same region, between guard zones and poisoned, so
that the judge sees every byte that the kernel could have touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from yaie import dispatch, kernels, ops
from yaie.arena import (
    ALIGNMENT,
    FAR_BYTES,
    GUARD,
    Arena,
    Bytes,
    Extent,
    Placement,
    Poison,
    Regions,
)
from yaie.fill import Fill
from yaie.op import Op

HEAP_BYTES = 1 << 30
"""Room for results and workspaces. A kernel that wants more has lost its measure."""
LATE_CYCLES = 20_000_000
"""Of a GPU's clock: some 10 ms, in which a call that waits for nothing is over."""
LATE_ONCE_IN = 16
"""Of so many cases of a kernel, one is run late: whoever takes another stream does so always."""
GPU_HEAP_BYTES = 64 << 20
"""Likewise on a GPU, where it is taken in advance, beyond twice the arguments."""


@dataclass(frozen=True)
class Run:
    """One execution of a case: where, with which poison, under which schedule of the executor."""

    region: int
    poison: Poison
    schedule: kernels.Schedule = kernels.IN_ORDER
    start: int = 0
    """Where in the region the arguments begin."""

    def memory(self, regions: Regions) -> Bytes:
        """The bytes that the places of a case refer to."""
        return regions.behind(self.region, self.start)


@dataclass(frozen=True)
class Job:
    """What the worker is asked to do. ``args`` holds a Placement, or a list of them, by name;
    ``extents`` are the parts of a region that they use."""

    op: str
    kernel: str
    args: Mapping[str, Any]
    options: Mapping[str, Any]
    extents: tuple[Extent, ...]
    runs: tuple[Run, ...]
    device: str = "cpu"

    @property
    def top(self) -> int:
        """One past the last byte of the arguments."""
        return self.extents[-1][1]


@dataclass(frozen=True)
class RefusalJob:
    """Call a kernel with bad input number ``number`` of its op; it must raise before any launch."""

    op: str
    kernel: str
    number: int
    device: str = "cpu"


@dataclass(frozen=True)
class Raised:
    """An exception that came out of a call."""

    type: str
    message: str
    finding: str | None = None
    """The kind of what the SIMT executor found ("race", "out of bounds", ...), if it did."""

    @staticmethod
    def by(error: BaseException) -> Raised:
        """Describe an exception."""
        finding = getattr(error, "kind", None) if type(error).__name__ == "LaunchError" else None
        return Raised(type(error).__name__, str(error), finding)


DECLINED = dispatch.Unsupported.__name__
"""What a kernel raises that sees in a call's contents what it does not serve. It may have written
nothing; of an op that changes its arguments no kernel may."""
NO_ROOM = "no room"
"""The type of what is "raised" where a case does not fit on a GPU: no fault of the kernel."""


@dataclass(frozen=True)
class Outcome:
    """What one run left behind: its results, the memory it allocated, what it raised."""

    results: tuple[Any, ...] = ()
    heap: tuple[tuple[int, int], ...] = ()
    raised: Raised | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class RefusalOutcome:
    """What a bad input led to: an exception (or none), whether a byte was written, and whether a
    launcher of ours was entered."""

    raised: Raised | None
    wrote: bool
    entered: bool


@dataclass
class Heap:
    """Hands out guarded, poisoned memory from ``top`` to the end of a region."""

    base: Tensor
    top: int
    poison: Poison
    leftovers: Mapping[tuple[int, int], Bytes] = field(default_factory=dict)
    """What an allocation between two places holds, instead of poison."""
    spans: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.start = self.top
        self.limit = min(self.base.numel(), self.start + HEAP_BYTES)

    def place(self, like: Tensor) -> Tensor:
        """Room for a tensor of the shape, strides and dtype of ``like``."""
        start = -(-(self.top + GUARD) // ALIGNMENT) * ALIGNMENT
        place = Placement(like.dtype, start, tuple(like.shape), tuple(like.stride()))
        stop = place.end
        end = stop + GUARD
        if end > self.limit:
            raise MemoryError(
                f"the kernel allocated {(end - self.start) / 2**20:.1f} MiB in all, there is room "
                f"for {(self.limit - self.start) / 2**20:.1f} MiB"
            )
        self._fill(self.top, end)
        if (start, stop) in self.leftovers:
            self._write(start, self.leftovers[start, stop])
        elif self.poison.words:
            self._fill(start, stop, like.dtype)
        self.spans.append((start, stop))
        self.top = end
        return place.view(self.base)

    def _fill(self, start: int, stop: int, dtype: torch.dtype | None = None) -> None:
        """Poison some bytes."""
        word = self.poison.word_of(dtype)
        if word % 0x0101_0101 == 0:  # one byte four times, which needs no bytes of the host
            self.base[start:stop].fill_(word & 0xFF)
        else:
            self._write(start, self.poison.bytes(start, stop, dtype))

    def _write(self, start: int, content: Bytes) -> None:
        """Bytes of the host; a GPU takes them when its stream comes to it, and nobody waits."""
        source = torch.from_numpy(content)
        if self.base.is_cuda:
            source = source.pin_memory()
        self.base[start : start + len(content)].copy_(source, non_blocking=True)

    def shares_arguments(self, result: Tensor) -> bool:
        """Whether a result lies in the memory of the arguments: whoever changes those next would
        change it."""
        offset = result.data_ptr() - self.base.data_ptr()
        return result.numel() > 0 and 0 <= offset < self.start

    def adopt(self, result: Tensor) -> Placement:
        """The place of a result; one that lies elsewhere is copied into the region first."""
        offset = result.data_ptr() - self.base.data_ptr()
        if not 0 <= offset < self.base.numel():
            copy = self.place(result)
            result = copy.copy_(result)
        return Placement.of(result, self.base)


_EMPTY = {
    torch.empty,
    torch.empty_like,
    torch.empty_strided,
    Tensor.new_empty,
    Tensor.new_empty_strided,
}
_FILLED = {
    torch.zeros,
    torch.zeros_like,
    torch.ones,
    torch.ones_like,
    torch.full,
    torch.full_like,
    Tensor.new_zeros,
    Tensor.new_ones,
    Tensor.new_full,
}


class _GuardedAllocations(TorchFunctionMode):
    """Moves what a kernel allocates through torch into a guarded heap."""

    def __init__(self, heap: Heap) -> None:
        super().__init__()
        self.heap = heap

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if func not in _EMPTY and func not in _FILLED:
            return made
        if made.device != self.heap.base.device or _stands_for_others(made):
            return made
        placed = self.heap.place(made)
        return placed.copy_(made) if func in _FILLED else placed


def _stands_for_others(made: Tensor) -> bool:
    """Whether it has no memory of its own: inside ``vmap``, or while ``torch.compile`` looks on."""
    return type(made) is not Tensor or torch._C._functorch.is_functorch_wrapped_tensor(made)


_CASES_OF: defaultdict[tuple[str, str], Iterator[int]] = defaultdict(itertools.count)
"""Counts the cases of a kernel on a GPU; a worker's first one is late, as a repro is."""


def execute(job: Job, regions: Regions) -> list[Outcome]:
    """Run a job; exceptions of the kernel become part of the outcome."""
    op = ops.get(job.op)
    outcomes: list[Outcome] = []
    is_late = job.device != "cpu" and next(_CASES_OF[job.op, job.kernel]) % LATE_ONCE_IN == 0
    for run in job.runs:
        recycles = run.poison.recycles and outcomes
        left = _leftovers(outcomes[0], job.runs[0].memory(regions)) if recycles else {}
        with _room_for(job):
            outcomes.append(_executed(op, job, run, regions, left, late=is_late and bool(outcomes)))
    return outcomes


def _leftovers(outcome: Outcome, region: Bytes) -> dict[tuple[int, int], Bytes]:
    """What a run left in each of its allocations: workspaces as they are, results turned by about
    half of their length, since the bytes of the same call would be right."""
    results = {p.offset: p for p in outcome.results if isinstance(p, Placement)}
    left = {}
    for start, stop in outcome.heap:
        content = region[start:stop].copy()
        if start in results:
            size = results[start].dtype.itemsize
            content = np.roll(content, -(-(stop - start) // (2 * size)) * size)
        left[start, stop] = content
    return left


@contextlib.contextmanager
def _room_for(job: Job) -> Iterator[None]:
    """Far tensors take their whole size on a GPU: one case at a time, of all processes, has some
    there."""
    if job.device == "cpu" or job.top < FAR_BYTES:
        yield
        return
    with open(Path(tempfile.gettempdir(), f"yaie-far-{os.getuid()}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        torch.cuda.empty_cache()


def _executed(
    op: Op,
    job: Job,
    run: Run,
    regions: Regions,
    leftovers: Mapping[tuple[int, int], Bytes],
    late: bool,
) -> Outcome:
    shared = torch.from_numpy(run.memory(regions))
    try:
        base = shared if job.device == "cpu" else _uploaded(shared, job)
    except torch.OutOfMemoryError:
        size = f"{job.top / 2**30:.0f} GiB" if job.top >= FAR_BYTES else f"{job.top:,} bytes"
        return Outcome(raised=Raised(NO_ROOM, f"the GPU has no room for a case of {size}"))
    args = {name: viewed(place, base) for name, place in job.args.items()}
    heap = Heap(base, job.top, run.poison, leftovers)
    results: tuple[Any, ...] = ()
    raised = None
    start = time.perf_counter()
    try:
        with dispatch.checked():
            kernel, call = op.prepare(**args, **job.options, kernel=job.kernel)
        stream = _late_stream(base, job) if late else contextlib.nullcontext()
        with stream, kernels.scheduled(run.schedule), _GuardedAllocations(heap):
            returned = kernel.run(**call.args, **call.options)
            _synchronize(job.device)
        results = tuple(_described(r, heap) for r in _as_tuple(returned))
    except Exception as error:
        raised = Raised.by(error)
    seconds = time.perf_counter() - start
    if base is not shared and (raised is None or raised.type == DECLINED):
        for a, b in (*job.extents, (job.top, heap.top)):
            shared[a:b].copy_(base[a:b])
    return Outcome(results, tuple(heap.spans), raised, seconds)


def viewed(place: Any, base: Tensor) -> Any:
    """The argument that lies at a place (at each of a list of places) of ``base``."""
    if place is None:
        return None
    return [p.view(base) for p in place] if isinstance(place, list) else place.view(base)


def _as_tuple(returned: Any) -> tuple[Any, ...]:
    if returned is None:
        return ()
    return tuple(returned) if isinstance(returned, (tuple, list)) else (returned,)


def _described(result: Any, heap: Heap) -> Any:
    """Where a result lies; what is no tensor, or on another device, is described in words."""
    if type(result) is not Tensor:
        return f"a {type(result).__name__}, no tensor"
    if result.device != heap.base.device:
        return f"on {result.device}, not on {heap.base.device}"
    if heap.shares_arguments(result):
        return "a view of an argument's memory"
    return heap.adopt(result)


def _uploaded(shared: Tensor, job: Job) -> Tensor:
    """A copy of the arguments' part of a region on the GPU, with room for the kernel's own."""
    heap = min(GPU_HEAP_BYTES + 2 * sum(b - a for a, b in job.extents), HEAP_BYTES)
    base = torch.empty(job.top + heap, dtype=torch.uint8, device=job.device)
    for a, b in job.extents:
        base[a:b].copy_(shared[a:b])
    return base


@contextlib.contextmanager
def _late_stream(base: Tensor, job: Job) -> Iterator[None]:
    """A stream of its own, which is busy for a while and then writes the arguments once more. What
    a kernel does on another stream it has done before: its changes of arguments are gone then, and
    its results poison, which is written on this stream too."""
    extents = job.extents if job.top < FAR_BYTES else ()
    before = [base[a:b].clone() for a, b in extents]
    _synchronize(job.device)
    with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
        torch.cuda._sleep(LATE_CYCLES)  # type: ignore[no-untyped-call]
        for (a, b), content in zip(extents, before, strict=True):
            base[a:b].copy_(content)
        yield


def _synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def execute_refusal(job: RefusalJob) -> RefusalOutcome:
    """Call the kernel with spoiled arguments and watch what happens to them."""
    op = ops.get(job.op)
    refusal = op.refusals[job.number]
    args, options = op.inputs(op.good, Fill(Arena(1 << 20), op.good.seed))
    given = {**args, **options}
    refusal.spoil(given)
    moved: dict[int, Any] = {}
    given = {name: _moved(value, job.device, moved) for name, value in given.items()}
    before = _snapshot(given)
    entries = kernels.entries()
    mode: AbstractContextManager[None] = dispatch.checked(refusal.contents)
    raised = None
    try:
        with mode:
            op(**given, kernel=job.kernel)
        _synchronize(job.device)
    except Exception as error:
        raised = Raised.by(error)
    wrote = any(not torch.equal(a, b) for a, b in zip(before, _snapshot(given), strict=True))
    return RefusalOutcome(raised, wrote, kernels.entries() > entries)


def _moved(value: Any, device: str, moved: dict[int, Any]) -> Any:
    """A value on a device, its strides kept; what was one object stays one object."""
    if isinstance(value, list):
        return [_moved(v, device, moved) for v in value]
    if not isinstance(value, Tensor) or device == "cpu" or value.is_meta:
        return value
    if id(value) not in moved:
        copy = torch.empty_strided(
            tuple(value.shape), value.stride(), dtype=value.dtype, device=device
        )
        moved[id(value)] = copy.copy_(value)
    return moved[id(value)]


def _snapshot(given: Mapping[str, Any]) -> list[Tensor]:
    """The bytes of every tensor of a call (one on the device "meta" has none)."""
    flat: list[Any] = []
    for value in given.values():
        flat.extend(value if isinstance(value, list) else [value])
    return [
        t.clone().contiguous().view(torch.uint8)
        for t in flat
        if isinstance(t, Tensor) and not t.is_meta
    ]
