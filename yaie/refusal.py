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


def from_signature(signature: Signature) -> Iterator[Refusal]:
    """The refusals that follow from a signature."""
    seen: set[str] = set()
    for number, param in enumerate(signature.params):
        yield from _of_param(param)
        if number:
            yield _elsewhere(param)
        for position, axis in enumerate(param.axes):
            letter = axis.partition("+")[0]
            if letter in seen and not param.many:
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
        yield Refusal(
            f"{name}: dtype", each(lambda t: t.to(torch.float64)), TypeError, f"{label}: dtype"
        )
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


def _every_second(tensor: Tensor) -> Tensor:
    """The same shape with a last stride of 2."""
    return torch.stack([tensor, tensor], -1)[..., 0]


def _with_gaps(tensor: Tensor) -> Tensor:
    """The same shape as a part of a tensor twice as wide."""
    return torch.cat([tensor, tensor], -1)[..., : tensor.shape[-1]]


def _axis(param: Param, position: int, axis: str) -> Refusal:
    """One axis of an argument is longer than that of an earlier one. If the tensor would be
    refused for its strides too, it is made contiguous, so that the axis is the only fault."""

    def longer(tensor: Tensor) -> Tensor:
        index = [0, *range(tensor.shape[position])]
        return tensor.index_select(position, torch.tensor(index)).contiguous()

    return Refusal(
        f"{param.name}: {axis} differs",
        change(param.name, longer),
        ValueError,
        f"{param.name}: {axis.partition('+')[0]} is ",
    )


def _aliased(first: str, second: str) -> Refusal:
    def spoil(given: dict[str, Any]) -> None:
        given[second] = given[first]

    return Refusal(f"{second} is {first}", spoil, ValueError, f"{second}: shares memory")
