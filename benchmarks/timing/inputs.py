"""The arguments of a workload: copies to rotate through, fresh values, the right answer.

A workload's tensors are laid out in one piece of memory, as the judge lays them out, and copied as
a whole: every copy has the same contents at another address. There are two contents of the same
shapes. The first is timed. The second, from another seed, is shown to a kernel for the first time
in the audit, and its answer is computed only after the kernel has run, so there is nothing that a
kernel could have remembered or found in freed memory.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.clock import Rotation, copies
from yaie import dispatch
from yaie.arena import Arena, Placement
from yaie.compare import Receipt, Verdict, Written
from yaie.fill import Fill
from yaie.op import Call, Kernel, Op
from yaie.worker.execution import viewed

ARENA_BYTES = 16 << 30
"""Address space for one workload; pages take memory once they are touched."""
NORMALS = (1 << 22) - 3
"""A prime: a pool of 2^22 would give every key of a long context many times, and with it the same
rounding error, where budgets reckon with independent ones."""
MOST_COPIES = 256
ALIGNMENT = 512
"""Of every copy, in bytes, as an allocator of GPU memory has it."""
SEEDS_TRIED = 3
ROWS_REFRESHED = 8
ROWS_KNOWN = 4096

Given = Mapping[str, Any]


class BenchFill(Fill):
    """Draws large normal tensors from a pool: the values repeat after four million (though never
    the rows), which no kernel can use, and drawing takes a tenth of the time."""

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, float32."""
        count = int(np.prod(shape, dtype=np.int64))
        if count <= NORMALS:
            return super().normal(*shape)
        pool = self.rng.standard_normal(NORMALS, np.float32)
        return torch.from_numpy(np.resize(pool, count).reshape(shape))


@dataclass(frozen=True)
class Contents:
    """The bytes of all tensors of one seed, and where they lie."""

    base: Tensor
    places: Mapping[str, Any]
    options: Given

    def given(self, base: Tensor) -> dict[str, Any]:
        """The arguments and options as views of a copy of the bytes."""
        args = {name: viewed(place, base) for name, place in self.places.items()}
        return {**args, **self.options}


def draw(op: Op, case: Any, device: str) -> Contents:
    """The contents of a case, on a device."""
    arena = Arena(ARENA_BYTES)
    args, options = op.inputs(case, BenchFill(arena, case.seed))
    places = {name: _placed(value, arena.base) for name, value in args.items()}
    return Contents(arena.base[: arena.top].to(device, copy=True), places, options)


def _placed(value: Any, base: Tensor) -> Any:
    """Where an argument lies; an optional one may be None."""
    if isinstance(value, list):
        return [Placement.of(t, base) for t in value]
    return None if value is None else Placement.of(value, base)


@dataclass(frozen=True)
class Values:
    """A tensor of values: ``every`` [copies,...] holds that of every copy, ``pristine`` the timed
    contents; ``rows`` are those that may be exchanged."""

    every: Tensor
    pristine: Tensor
    rows: list[int]


class Inputs:
    """Everything that the timing of one workload's kernels shares."""

    def __init__(self, op: Op, case: Any, device: str, cache_bytes: int, memory_bytes: int) -> None:
        self.op, self.case, self.device = op, case, device
        self.cost = op.cost(case)
        self._timed = draw(op, case, device)
        room = memory_bytes // max(self._timed.base.numel(), 1) - 2  # two contents lie there too
        self._count = copies(self.cost.bytes, cache_bytes, min(room, MOST_COPIES))
        size = self._timed.base.numel()
        self._memory = torch.empty(
            self._count, -(-size // ALIGNMENT) * ALIGNMENT, dtype=torch.uint8, device=device
        )
        self._copies = list(self._memory[:, :size])
        for copy in self._copies:
            copy.copy_(self._timed.base)
        self.calls = [self._bound(self._timed, copy) for copy in self._copies]
        self._answered = False
        self._expected: tuple[Any, Tensor] | None = None
        self._values = [v for p in self._places_of_values() if len((v := self._of(p)).rows) > 1]
        self._random = np.random.default_rng(case.seed)

    @functools.cached_property
    def _other(self) -> tuple[Contents, bool]:
        """Contents of another seed in the same places, for the calls are bound to the shapes and
        options of the first; where no seed gives such, the same again, and False. Drawn when they
        are asked for: the gate, whose processes draw everything anew, audits nothing."""
        for step in range(1, SEEDS_TRIED + 1):
            seed = self.case.seed + step
            other = draw(self.op, replace(self.case, seed=seed), self.device)
            if other.places == self._timed.places:
                return replace(other, options=self._timed.options), True
        return self._timed, False

    def draw_audit(self) -> None:
        """Draw the audit's contents now: what runs out of memory then is no kernel."""
        self._other  # noqa: B018

    @property
    def _audit(self) -> Contents:
        return self._other[0]

    @property
    def fresh(self) -> bool:
        """Whether the audit's contents are others than the timed ones."""
        return self._other[1]

    def _bound(self, contents: Contents, base: Tensor) -> Call:
        """The call on one copy, which has passed the door."""
        with dispatch.checked(False):
            return self.op.bind(**contents.given(base))

    @property
    def call(self) -> Call:
        """One of the calls: they differ in addresses alone."""
        return self.calls[0]

    def rotation(self, kernel: Kernel) -> Rotation:
        """The calls of a kernel on every copy, which have the timed contents again."""
        for copy in self._copies:
            copy.copy_(self._timed.base)

        def refresh(burst: int) -> None:
            self._refresh(burst)
            self._plan(kernel)

        def load() -> None:
            self._load()
            self._plan(kernel)

        self._plan(kernel)
        calls = [_prepared(kernel, call) for call in self.calls]
        return Rotation(calls, self.cost.bytes, refresh, load)

    def _plan(self, kernel: Kernel) -> None:
        """Let a kernel that splits host work from a step's launches do the former: it is given the
        tensors of whole numbers alone, so there is no work of the call that it could do."""
        plan = getattr(kernel.run, "plan", None)
        if plan is None:
            return
        for call in self.calls:
            tensors = {n: t for n, t in call.args.items() if isinstance(t, Tensor)}
            whole = {n: t for n, t in tensors.items() if not t.is_floating_point()}
            plan(whole, call.axes, call.dtype, call.options)

    def _places_of_values(self) -> Iterator[Placement]:
        """Where the tensors of values lie, not of indices or lengths: those may be exchanged."""
        for param in self.op.signature.params:
            place = self._timed.places[param.name]
            for one in place if param.many else [place]:
                if one is not None and one.dtype.is_floating_point and one.shape and one.shape[0]:
                    yield one

    def _of(self, place: Placement) -> Values:
        size = place.dtype.itemsize
        every = self._memory.view(place.dtype).as_strided(
            (self._count, *place.shape),
            (self._memory.stride(0) // size, *place.strides),
            place.offset // size,
        )
        pristine = place.view(self._timed.base)
        return Values(every, pristine, _clean_rows(pristine))

    def _refresh(self, burst: int) -> None:
        """Some rows of every floating-point tensor become copies of other rows of it: values that
        this kernel has not seen together, all of the kind that the workload holds."""
        for values in self._values:
            n = min(ROWS_REFRESHED, len(values.rows))
            to = self._random.choice(values.rows, n, replace=False)
            source = self._random.choice(values.rows, n)
            values.every[:, torch.from_numpy(to)] = values.pristine[torch.from_numpy(source)]

    def _load(self) -> None:
        for copy in self._copies:
            copy.copy_(self._audit.base)

    def audit(self, kernel: Kernel, results: Sequence[Any]) -> Verdict:
        """Whether what the timed calls returned on the second contents, and what they left in
        memory, is right. Passing without an answer to compare with has a reason."""
        wrong = self._malformed(results)
        if wrong:
            return _wrong(wrong)
        if kernel.deterministic:
            wrong = self._differing(results)
            if wrong:
                return _wrong(wrong)
        if not self._answered:
            self._expected, self._answered = self._answer(), True
        if self._expected is None:
            return Verdict("pass", reason=TOO_LARGE)
        verdict = self._compare(kernel, *self._expected, results)
        return verdict if self.fresh or not verdict.ok else replace(verdict, reason=SEEN)

    def _malformed(self, results: Sequence[Any]) -> str | None:
        """What is wrong with the kind of results, before any is compared."""
        wanted, call = self.op.signature.results, self.call
        for i, returned in enumerate(results):
            if len(returned) != len(wanted):
                return f"call {i} returned {len(returned)} results, the op has {len(wanted)}"
            for param, value in zip(wanted, returned, strict=True):
                if type(value) is not Tensor:
                    return f"{param.name} of call {i} is a {type(value).__name__}, no tensor"
                shape = tuple(call.axes[axis] for axis in param.axes)
                dtype = self.op.result_dtype(param, call)
                if (tuple(value.shape), value.dtype) != (shape, dtype):
                    return f"{param.name} of call {i} is {value.dtype} {tuple(value.shape)}"
                if value.device.type != self.device:
                    return f"{param.name} of call {i} is on {value.device}"
        return None

    def _differing(self, results: Sequence[Any]) -> str | None:
        """The calls had the same contents at different addresses, so they must agree."""
        for i, returned in enumerate(results[1:], 1):
            for param, a, b in zip(self.op.signature.results, results[0], returned, strict=True):
                if not torch.equal(_bits(a), _bits(b)):
                    return f"{param.name} of call {i} is not that of call 0 on the same values"
        for i, copy in enumerate(self._copies[1 : len(results)], 1):
            if not torch.equal(copy, self._copies[0]):
                return f"call {i} left other bytes in memory than call 0 on the same values"
        return None

    def _answer(self) -> tuple[Any, Tensor] | None:
        """What the reference returns for the second contents, and the memory that it leaves; None
        where it would take too long, or more memory than there is."""
        if self.cost.flops > REFERENCE_FLOPS[self.device]:
            return None
        after = self._audit.base.clone()
        call = self._bound(self._audit, after)
        with contextlib.suppress(torch.OutOfMemoryError):
            return self.op.reference(**call.args, **call.options), after
        torch.cuda.empty_cache()
        return None

    def _compare(
        self, kernel: Kernel, expected: Any, after: Tensor, results: Sequence[Any]
    ) -> Verdict:
        """Results within their budgets, memory bit for bit but for what is judged otherwise."""
        wanted = (
            self.op.comparison(expected, self.call, kernel.contract) if self.op.comparison else {}
        )
        worst = None
        # Deterministic calls agree bit for bit, so the first one stands for all.
        for i, returned in enumerate(results[:1] if kernel.deterministic else results):
            left = dict(zip((p.name for p in self.op.signature.results), returned, strict=True))
            should = after.clone()
            for name, comparison in wanted.items():
                if isinstance(comparison, Written):
                    place = self._timed.places[name]
                    left[name] = comparison.select(place.view(self._copies[i]))
                    comparison.copy(place.view(self._copies[i]), place.view(should))
            if not torch.equal(self._copies[i], should):
                return _wrong(f"call {i}: {self._where(self._copies[i], should)}")
            for name, value in left.items():
                judgement = wanted[name].judge(name, value)
                if judgement.check is not None:
                    return _wrong(f"call {i}: {judgement.reason}", judgement.receipt)
                receipt = judgement.receipt
                if receipt and (worst is None or receipt.used > worst.used):
                    worst = receipt
        return Verdict("pass", receipt=worst)

    def _where(self, copy: Tensor, after: Tensor) -> str:
        """Which argument holds the first wrong byte."""
        at = int((copy != after).to(torch.uint8).argmax())
        for name, place in self._audit.places.items():
            for part in place if isinstance(place, list) else [place]:
                if part is not None and part.offset <= at < part.end:
                    return f"{name} is not what the op leaves there"
        return "a byte between the arguments has changed"


REFERENCE_FLOPS = {"cpu": 4e9, "cuda": 4e13}
"""Flops of a workload whose answer is worth waiting for: about a second in float64."""


SEEN = "the timed outputs are those of the reference, on the timed contents: shapes vary by seed"
TOO_LARGE = "too large for the reference: calls on the same values agree bit for bit"


def _prepared(kernel: Kernel, call: Call) -> Callable[[], Any]:
    given = {**call.args, **call.options}
    return lambda: kernel.run(**given)


def _wrong(reason: str, receipt: Receipt | None = None) -> Verdict:
    return Verdict("fail", "timed outputs", reason, receipt)


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.uint8)


def _clean_rows(tensor: Tensor) -> list[int]:
    """Rows along the first axis without NaN: unused slots and pages hold poison."""
    few = tensor[:ROWS_KNOWN]
    clean = ~few.flatten(1).isnan().any(1) if few.dim() > 1 else ~few.isnan()
    return clean.nonzero()[:, 0].tolist()
