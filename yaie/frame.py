"""Where a case lies in memory, and what must be true of the bytes around what a kernel computes.

Every byte of the arguments is what the reference left there, and guard zones are intact. A byte
that is not as it should be is told of by the name and index of what lies there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from yaie.arena import ALIGNMENT, GUARD, Bytes, Extent, Placement, Poison
from yaie.compare import Receipt, Verdict, told
from yaie.op import Call, Op
from yaie.worker.execution import Outcome

ANCHOR = 4 << 20
"""Where an argument lies in the second region, unless what comes before it is larger."""


class Fault(Exception):
    """Carries the verdict of a check that failed."""

    def __init__(self, check: str, reason: str, receipt: Receipt | None = None) -> None:
        self.verdict = Verdict("fail", check, reason, receipt)

    def excused_by(self, declaration: str) -> None:
        """Say what the kernel might declare that allows it."""
        may = f"with {declaration} in its contract it may: declare that if the kernel does so"
        reason = f"{self.verdict.reason}; {may} (docs/error-model.md)"
        self.verdict = replace(self.verdict, reason=reason)


@dataclass(frozen=True)
class Layout:
    """A case in the arena: the call, and where its arguments lie."""

    op: Op
    call: Call
    places: Mapping[str, Any]
    extents: tuple[Extent, ...]

    @property
    def top(self) -> int:
        """One past the last byte of the arguments."""
        return self.extents[-1][1]

    def named(self) -> list[tuple[str, bool, Placement]]:
        """Every tensor argument: its name, whether the op mutates it, its place."""
        rows = []
        for param in self.op.signature.params:
            place = self.places[param.name]
            if place is None:
                continue
            many = place if isinstance(place, list) else [place]
            for i, p in enumerate(many):
                name = f"{param.name}[{i}]" if param.many else param.name
                rows.append((name, param.mutated, p))
        return rows

    def start_for(self, turn: int) -> int:
        """Where in the second region the arguments begin, so that the one whose turn it is lies at
        ANCHOR. (At the next multiple of ALIGNMENT, if need be: the regions are an odd number of
        those apart, so that of two runs one at most is aligned to more, and stay so.) The first
        argument needs no turn, it begins the first region."""
        params = self.op.signature.params
        place = self.places[params[turn % len(params)].name]
        one = place[0] if isinstance(place, list) and place else place
        if turn % len(params) == 0 or not isinstance(one, Placement):
            return 0
        aligned = one.offset // (2 * ALIGNMENT) * 2 * ALIGNMENT
        return max(0, ANCHOR - aligned)


def check_guards(outcome: Outcome, region: Bytes, top: int, poison: Poison) -> None:
    """What lies between the kernel's own allocations must still be poison."""
    for start, end in outcome.heap:
        changed = _first_changed(region, top, start, poison)
        if changed is not None:
            far = start - changed
            raise Fault("guard", f"wrote {far} bytes before something that it allocated")
        top = end
    changed = _first_changed(region, top, top + GUARD, poison) if outcome.heap else None
    if changed is not None:
        raise Fault("guard", f"wrote {changed - top} bytes behind the last thing that it allocated")


def _first_changed(region: Bytes, start: int, stop: int, poison: Poison) -> int | None:
    """The first place from ``start`` up to ``stop`` that does not hold the poison."""
    changed = region[start:stop] != poison.bytes(start, stop)
    return start + int(changed.argmax()) if changed.any() else None


def describe_byte(
    layout: Layout, at: int, actual: Bytes, expected: Bytes, should_change: bool
) -> Fault:
    """Name what lies at a byte that is not as it should be."""
    for name, mutated, place in layout.named():
        index = _element(place, at)
        if index is None:
            continue
        was, should = told(*(place.view(torch.from_numpy(x))[index] for x in (actual, expected)))
        where = f"{name}[{', '.join(map(str, index))}]"
        if mutated and should_change:
            return Fault("exact", f"{where} is {was}, should be {should} (bit for bit)")
        return Fault("frame", f"{where} was {should} and must keep its bits, it is {was}")
    closest = min(layout.named(), key=lambda row: max(row[2].offset - at, at - row[2].end + 1, 0))
    name, _, place = closest
    if place.offset <= at < place.end:
        return Fault("frame", f"wrote into a gap between the rows of {name}")
    side = "before" if at < place.offset else "after"
    far = place.offset - at if at < place.offset else at - place.end
    return Fault("frame", f"wrote {far} bytes {side} {name}")


def _element(place: Placement, at: int) -> tuple[int, ...] | None:
    """The index of the element that holds a byte, or None if it lies in no element."""
    rest = (at - place.offset) // place.dtype.itemsize
    if rest < 0 or 0 in place.shape:
        return None
    index = [0] * len(place.shape)
    axes = sorted(range(len(place.shape)), key=lambda axis: -place.strides[axis])
    for axis in axes:
        if place.shape[axis] == 1:
            continue
        index[axis] = min(rest // place.strides[axis], place.shape[axis] - 1)
        rest -= index[axis] * place.strides[axis]
    return tuple(index) if rest == 0 else None
