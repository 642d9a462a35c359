"""Bad inputs: how to spoil a good call, and what every kernel must raise before any launch.

Most of them follow from the signature alone (rank, axis, stride, dtype, device of each argument);
a page adds those that only it can know.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from yaie.signature import Param, Signature

Spoil = Callable[[dict[str, Any]], None]

OTHER_DTYPE = {"int32": torch.int64, "int64": torch.int32}
"""What a caller most likely passes in place of an index type; of all others float64."""


@dataclass(frozen=True)
class Refusal:
    """A bad input. ``spoil`` changes the arguments and options of a good call in place;
    ``contents`` marks what only reading a tensor can show, and so only checked mode refuses."""

    what: str
    spoil: Spoil
    raises: type[Exception]
    says: str
    contents: bool = False


def change(name: str, how: Callable[[Any], Any]) -> Spoil:
    """A spoiler that replaces one argument or option by ``how`` of it."""

    def spoil(given: dict[str, Any]) -> None:
        given[name] = how(given[name])

    return spoil


def put(name: str, value: float, *index: int) -> Spoil:
    """A spoiler that writes one element of an argument (everywhere, without an index)."""

    def spoil(given: dict[str, Any]) -> None:
        given[name][index or ...] = value

    return spoil


def bad_indptr(name: str, axis: str) -> tuple[Refusal, ...]:
    """Refusals of an indptr of at least two rows that ``check_indptr`` reads."""
    return (
        Refusal(f"{name} from 1", put(name, 1, 0), ValueError, f"{name}: is 1..", True),
        Refusal(f"{name} falls", put(name, 99, 1), ValueError, f"{name}: decreases", True),
        Refusal(
            f"{name} not to {axis}", change(name, _longer), ValueError, f"must be 0..{axis}", True
        ),
    )


def _longer(indptr: Tensor) -> Tensor:
    return torch.cat([indptr[:-1], indptr[-1:] + 1])


def from_signature(signature: Signature) -> Iterator[Refusal]:
    """The refusals that follow from a signature."""
    seen: set[str] = set()
    for number, param in enumerate(signature.params):
        yield from _of_param(param)
        if number:
            yield _elsewhere(param)
        if param.dtype == "float" and "float" in seen:
            yield _mixed(param)
        seen.add(param.dtype)
        for position, axis in enumerate(param.axes):
            letter = axis.partition("+")[0]
            if (letter in seen or letter.isdigit()) and not param.many:
                yield _axis(param, position, axis)
            seen.add(letter)
    mutated = [p for p in signature.params if p.mutated and not p.many]
    for first, second in itertools.pairwise(mutated):
        if len(first.axes) == len(second.axes):
            yield _aliased(first.name, second.name)


def _of_param(param: Param) -> Iterator[Refusal]:
    name = param.name
    label = f"{name}[0]" if param.many else name

    def each(how: Callable[[Tensor], Any]) -> Spoil:
        return change(name, (lambda ts: [how(t) for t in ts]) if param.many else how)

    if param.many:
        yield Refusal(f"{name}: no list", change(name, lambda ts: ts[0]), TypeError, f"{name}: ")
    yield Refusal(f"{name}: no tensor", each(lambda t: 3), TypeError, f"{label}: expected a tensor")
    if "..." not in param.axes:
        yield Refusal(f"{name}: rank", each(lambda t: t[None]), ValueError, f"{label}: rank")
    if param.dtype != "any":
        other = OTHER_DTYPE.get(param.dtype, torch.float64)
        yield Refusal(f"{name}: dtype", each(lambda t: t.to(other)), TypeError, f"{label}: dtype")
    if len(param.axes) > 1:
        yield Refusal(f"{name}: strides", each(_every_second), ValueError, f"{label}: stride")
    if param.contiguous or param.dtype == "any":
        yield Refusal(f"{name}: gaps", each(_with_gaps), ValueError, f"{label}: strides")


def _elsewhere(param: Param) -> Refusal:
    """An argument on another device than the first one: "meta", which every machine has."""

    def move(value: Any) -> Any:
        return [t.to("meta") for t in value] if param.many else value.to("meta")

    label = f"{param.name}[0]" if param.many else param.name
    says = f"{label}: device is meta"
    return Refusal(f"{param.name}: device differs", change(param.name, move), ValueError, says)


def _mixed(param: Param) -> Refusal:
    """A float argument of another float dtype than those before it."""

    def another(tensor: Tensor) -> Tensor:
        return tensor.to(torch.float16 if tensor.dtype == torch.bfloat16 else torch.bfloat16)

    return Refusal(
        f"{param.name}: dtype differs",
        change(param.name, another),
        TypeError,
        f"{param.name}: dtype is ",
    )


def _every_second(tensor: Tensor) -> Tensor:
    """The same shape with a last stride of 2."""
    return torch.stack([tensor, tensor], -1)[..., 0]


def _with_gaps(tensor: Tensor) -> Tensor:
    """The same shape as a part of a tensor twice as wide."""
    return torch.cat([tensor, tensor], -1)[..., : tensor.shape[-1]]


def _axis(param: Param, position: int, axis: str) -> Refusal:
    """One axis of an argument is longer than that of an earlier one, or than it must be. If the
    tensor would be refused for its strides too, it is made contiguous: the axis is the only fault.
    """

    def longer(tensor: Tensor) -> Tensor:
        index = [0, *range(tensor.shape[position])]
        return tensor.index_select(position, torch.tensor(index)).contiguous()

    letter = axis.partition("+")[0]
    what, says = (f"axis of {axis}", "an axis") if letter.isdigit() else (axis, letter)
    return Refusal(
        f"{param.name}: {what} differs",
        change(param.name, longer),
        ValueError,
        f"{param.name}: {says} is ",
    )


def _aliased(first: str, second: str) -> Refusal:
    def spoil(given: dict[str, Any]) -> None:
        given[second] = given[first]

    return Refusal(f"{second} is {first}", spoil, ValueError, f"{second}: shares memory")
