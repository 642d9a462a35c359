"""What the stateful ops share: a program of commands as tensors, and the trace that it leaves.

A program starts from an empty structure. Row i of its trace says what command i did: whether it
raised ValueError (and changed nothing), two observables after it, how many values it returned (-1:
None), and the values; the rest of the row is -1.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from yaie.fill import Fill
from yaie.op import Call
from yaie.ops import _paged as paged

HEAD = 4
"""Columns of a row before its values."""

Program = tuple[tuple[Any, ...], ...]
Forms = dict[str, tuple[tuple[type, ...], ...]]
"""The commands of a structure, and the types of their arguments; some can be given in two ways."""


@dataclass(frozen=True)
class Event:
    """What one command did: its error, the observables after it, what it returned."""

    error: str | None
    observables: tuple[int, int]
    values: Sequence[int] | None


def play(
    commands: int, step: Callable[[int], Sequence[int] | None], observe: Callable[[], Any]
) -> list[Event]:
    """Run a program: ``step(i)`` is command i, a ValueError is its error."""
    events = []
    for i in range(commands):
        error, values = None, None
        try:
            values = step(i)
        except ValueError as raised:
            error, values = str(raised), ()
        events.append(Event(error, observe(), values))
    return events


def as_trace(events: Sequence[Event], most: int) -> Tensor:
    """The rows of a program whose commands return at most ``most`` values each."""
    trace = torch.full((len(events), HEAD + most), -1, dtype=torch.int32)
    for row, event in zip(trace, events, strict=True):
        count = -1 if event.values is None else len(event.values)
        cells = (event.error is not None, *event.observables, count, *(event.values or ()))
        row[: len(cells)] = torch.tensor(cells, dtype=torch.int32)
    return trace


def packed(fill: Fill, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Lists of numbers one after the other, and where each starts."""
    flat = list(itertools.chain.from_iterable(rows))
    return fill.ints(flat), fill.ints([0, *itertools.accumulate(map(len, rows))])


def unpacked(flat: Tensor, indptr: Tensor) -> list[tuple[int, ...]]:
    """The lists again."""
    values, ends = flat.tolist(), indptr.tolist()
    return [tuple(values[a:b]) for a, b in itertools.pairwise(ends)]


def codes(program: Program, forms: Forms) -> list[tuple[int, int]]:
    """The kind of each command, counted in ``forms``, and its first argument where that is a
    number."""
    kinds = list(forms)
    return [
        (kinds.index(name), args[0] if args and type(args[0]) is int else 0)
        for name, *args in program
    ]


def coded(fill: Fill, program: Program, forms: Forms) -> Tensor:
    """``codes`` as int32 [C,2]."""
    rows = torch.tensor(codes(program, forms), dtype=torch.int32)
    return fill.tensor(rows.reshape(-1, 2), torch.int32)


def check_program(program: Program, forms: Forms) -> None:
    """Every command of a case is a name of ``forms`` and arguments of its types."""
    for command in program:
        if type(command) is not tuple or not command or command[0] not in forms:
            raise ValueError(f"{command!r} is no command; these are: {', '.join(forms)}")
        if tuple(map(type, command[1:])) not in forms[command[0]]:
            raise ValueError(f"{command!r}: not the arguments of {command[0]}")
        for numbers in (arg for arg in command[1:] if type(arg) is tuple):
            if not all(type(n) is int for n in numbers):
                raise ValueError(f"{command!r}: {numbers!r} must hold whole numbers")


def check_packed(call: Call, forms: Forms, lists: dict[str, str]) -> None:
    """Checked mode: every command is of a known kind, and the ``lists`` (an indptr and its axis)
    are packed."""
    for name, axis in lists.items():
        paged.check_indptr(call, name, axis)
    for i, (kind, _) in enumerate(call.args["commands"].tolist()):
        if not 0 <= kind < len(forms):
            raise ValueError(f"{call.op}: commands: [{i}] is of kind {kind}, of {len(forms)}")
