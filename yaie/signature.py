"""Signatures with named axes, and the checks at an op's door that follow from them.

A signature is one line of text, read like Python annotations::

    k: float[T,Hk,D], k_cache!: float[P,S,Hk,D] contiguous, slots: int32[T] -> None

``!`` marks an argument that the op mutates, ``?`` one that may be None. ``float`` stands for
float32, float16 or bfloat16, the same for every ``float`` tensor of one call; ``any`` stands for
any dtype. An axis is a letter (the vocabulary of docs), a letter plus a number (``B+1``), a number,
or ``...`` for the rest. ``list[any[P,...]]`` is a list of tensors. What follows ``*`` are options
with their defaults, which also tell their types; one that may be None says what else it may be:
``causal=True, window=(-1, -1), scale?: float=None``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
FLOAT_NAMES = ("float32", "float16", "bfloat16")
_DTYPES = {"float32": torch.float32, "int32": torch.int32, "int64": torch.int64}

_PARAM = re.compile(
    r"(?P<name>\w+)(?P<mark>[!?]?):\s*(?P<list>list\[)?(?P<dtype>\w+)\[(?P<axes>[^\]]*)\]"
    r"(?P<end>\]?)(?P<contiguous>\s+contiguous)?$"
)
_OPTION = re.compile(
    r"(?P<name>\w+)(\?:\s*(?P<type>bool|int|float|tensor))?\s*=\s*(?P<default>.+)$"
)
_AXIS = re.compile(r"(?P<letter>[A-Za-z]\w*)(?:\+(?P<plus>\d+))?$")


@dataclass(frozen=True)
class Param:
    """One tensor of a signature: an argument or a result."""

    name: str
    dtype: str
    axes: tuple[str, ...]
    mutated: bool = False
    many: bool = False
    contiguous: bool = False
    optional: bool = False


@dataclass(frozen=True)
class Signature:
    """The parsed form of a signature text."""

    text: str
    params: tuple[Param, ...]
    options: Mapping[str, Any]
    results: tuple[Param, ...]
    option_types: Mapping[str, str]
    """``bool``, ``int``, ``float``, ``int[n]`` (n whole numbers), or what may be None: ``float?``,
    ``int?``, ``tensor?`` ..."""

    @property
    def mutated(self) -> tuple[str, ...]:
        """Names of the arguments that the op writes to."""
        return tuple(p.name for p in self.params if p.mutated)


def parse(text: str) -> Signature:
    """Read a signature text; a ValueError quotes the part that does not parse."""
    left, arrow, right = text.partition("->")
    if not arrow:
        raise ValueError(f"signature without '->': {text!r}")
    params: list[Param] = []
    options: dict[str, Any] = {}
    option_types: dict[str, str] = {}
    target_is_option = False
    for part in _split(left):
        if part == "*":
            target_is_option = True
        elif target_is_option:
            name, kind, default = _parse_option(part)
            if name in options:
                raise ValueError(f"the option {name!r} stands twice in the signature {text!r}")
            options[name], option_types[name] = default, kind
        else:
            params.append(_parse_param(part))
    names = [p.name for p in params] + list(options)
    if len(set(names)) < len(names):
        raise ValueError(f"a name stands twice in the signature {text!r}")
    results = () if right.strip() == "None" else tuple(_parse_param(p) for p in _split(right))
    return Signature(" ".join(text.split()), tuple(params), options, results, option_types)


def _split(text: str) -> list[str]:
    """Split at commas that stand outside brackets."""
    parts, depth, start = [], 0, 0
    for i, ch in enumerate(text):
        depth += (ch in "[(") - (ch in "])")
        if ch == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    if depth:
        raise ValueError(f"unbalanced brackets in {text!r}")
    parts.append(text[start:].strip())
    return [p for p in parts if p]


def _parse_param(part: str) -> Param:
    m = _PARAM.match(part)
    if m is None or bool(m["list"]) != bool(m["end"]):
        raise ValueError(f"not a tensor of a signature: {part!r}")
    if m["dtype"] not in ("float", "any", *_DTYPES):
        known = ", ".join(("float", "any", *_DTYPES))
        raise ValueError(f"not a dtype of a signature ({known}): {m['dtype']!r} in {part!r}")
    axes = tuple(a.strip() for a in m["axes"].split(",") if a.strip())
    if "..." in axes[:-1]:
        raise ValueError(f"'...' stands for the rest of the axes, so it comes last: {part!r}")
    for axis in axes:
        if axis != "..." and not axis.isdigit() and _AXIS.match(axis) is None:
            raise ValueError(f"not an axis: {axis!r} in {part!r}")
    return Param(
        m["name"],
        m["dtype"],
        axes,
        mutated=m["mark"] == "!",
        many=bool(m["list"]),
        contiguous=bool(m["contiguous"]),
        optional=m["mark"] == "?",
    )


def _parse_option(part: str) -> tuple[str, str, Any]:
    """Name, type and default."""
    m = _OPTION.match(part)
    if m is None:
        raise ValueError(f"not an option of a signature: {part!r}")
    try:
        default = ast.literal_eval(m["default"])
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"not a default of a signature: {part!r}") from error
    if m["type"]:
        return m["name"], f"{m['type']}?", default
    return m["name"], _type_of(default, part), default


def _type_of(default: Any, part: str) -> str:
    if type(default) in (bool, int, float):
        return type(default).__name__
    if type(default) is tuple and all(type(number) is int for number in default):
        return f"int[{len(default)}]"
    raise ValueError(f"a default that does not tell the type of its option: {part!r}")


@dataclass(frozen=True)
class Binding:
    """What a call's tensors say about themselves: axis sizes, the float dtype, the device."""

    axes: Mapping[str, int]
    dtype: torch.dtype | None
    device: torch.device


def taken_at_its_word(signature: Signature, args: Mapping[str, Any]) -> Binding:
    """The binding of a call that passes the door. An axis is what the first tensor that has it
    says; nothing is compared, so sizes may be symbolic."""
    given = [
        (param, tensor)
        for param in signature.params
        for tensor in (args[param.name] if param.many else [args[param.name]])
        if tensor is not None
    ]
    axes: dict[str, int] = {}
    for param, tensor in given:
        for axis, size in zip(param.axes, tensor.shape, strict=False):
            m = _AXIS.match(axis)
            if m is not None and m["letter"] not in axes:
                axes[m["letter"]] = size - int(m["plus"] or 0)
    dtypes = (tensor.dtype for param, tensor in given if param.dtype == "float")
    devices = (tensor.device for _, tensor in given)
    return Binding(axes, next(dtypes, None), next(devices, torch.device("cpu")))


class Door:
    """Checks one call's tensors against a signature, before anything is launched.

    Wrong shape, stride or device: ValueError. Wrong dtype: TypeError. Every message names the op,
    the argument and the axis, in the form ``append_kv: k_cache: Hk is 4, k: Hk is 8``.
    """

    def __init__(self, op: str, signature: Signature) -> None:
        self.op = op
        self.signature = signature
        self._axes: dict[str, tuple[int, str]] = {}
        self._float: tuple[torch.dtype, str] | None = None
        self._device: tuple[torch.device, str] | None = None

    def admit(self, args: Mapping[str, Any]) -> Binding:
        """Check every argument; return the binding."""
        for param in self.signature.params:
            for label, tensor in self._tensors(param, args[param.name]):
                self._check_dtype(param, label, tensor)
                self._check_device(label, tensor)
                self._check_shape(param, label, tensor)
                self._check_strides(param, label, tensor)
        self._check_overlap(args)
        return Binding(
            {letter: size for letter, (size, _) in self._axes.items()},
            self._float[0] if self._float else None,
            self._device[0] if self._device else torch.device("cpu"),
        )

    def _tensors(self, param: Param, value: Any) -> list[tuple[str, torch.Tensor]]:
        if param.optional and value is None:
            return []
        if not param.many:
            named = [(param.name, value)]
        elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
            named = [(f"{param.name}[{i}]", t) for i, t in enumerate(value)]
        else:
            raise TypeError(
                f"{self.op}: {param.name}: expected a list of tensors, got {type(value).__name__}"
            )
        for label, tensor in named:
            if not isinstance(tensor, torch.Tensor):
                kind = type(tensor).__name__
                raise TypeError(f"{self.op}: {label}: expected a tensor, got {kind}")
        return named

    def _check_dtype(self, param: Param, label: str, tensor: torch.Tensor) -> None:
        if param.dtype == "any":
            return
        if param.dtype != "float":
            want = _DTYPES[param.dtype]
            if tensor.dtype != want:
                raise TypeError(
                    f"{self.op}: {label}: dtype is {_name(tensor.dtype)}, must be {_name(want)}"
                )
            return
        if tensor.dtype not in FLOATS:
            allowed = ", ".join(_name(d) for d in FLOATS)
            raise TypeError(
                f"{self.op}: {label}: dtype is {_name(tensor.dtype)}, must be one of {allowed}"
            )
        if self._float is None:
            self._float = (tensor.dtype, label)
        elif self._float[0] != tensor.dtype:
            raise TypeError(
                f"{self.op}: {label}: dtype is {_name(tensor.dtype)}, {self._float[1]}: dtype is "
                f"{_name(self._float[0])}; the float tensors of one call must have one dtype"
            )

    def _check_device(self, label: str, tensor: torch.Tensor) -> None:
        if self._device is None:
            self._device = (tensor.device, label)
        elif self._device[0] != tensor.device:
            raise ValueError(
                f"{self.op}: {label}: device is {tensor.device}, "
                f"{self._device[1]}: device is {self._device[0]}"
            )

    def _check_shape(self, param: Param, label: str, tensor: torch.Tensor) -> None:
        axes = param.axes
        open_ended = axes[-1:] == ("...",)
        named = axes[:-1] if open_ended else axes
        if tensor.dim() < len(named) or (not open_ended and tensor.dim() > len(named)):
            raise ValueError(
                f"{self.op}: {label}: rank is {tensor.dim()}, must be {len(named)}"
                f"{' or more' if open_ended else ''} [{','.join(axes)}]"
            )
        for axis, size in zip(named, tensor.shape, strict=False):
            self._check_axis(axis, size, label)

    def _check_axis(self, axis: str, size: int, label: str) -> None:
        if axis.isdigit():
            if size != int(axis):
                raise ValueError(f"{self.op}: {label}: an axis is {size}, must be {axis}")
            return
        letter, plus = _letter_and_plus(axis)
        value = size - plus
        if value < 0:
            raise ValueError(f"{self.op}: {label}: {axis} is {size}, must be at least {plus}")
        known = self._axes.setdefault(letter, (value, label))
        if known[0] != value:
            raise ValueError(
                f"{self.op}: {label}: {letter} is {value}, {known[1]}: {letter} is {known[0]}"
            )

    def _check_strides(self, param: Param, label: str, tensor: torch.Tensor) -> None:
        if tensor.numel() == 0 or tensor.dim() == 0:
            return
        if (param.contiguous or param.dtype == "any") and not tensor.is_contiguous():
            raise ValueError(
                f"{self.op}: {label}: strides are {tuple(tensor.stride())}, must be contiguous"
            )
        if tensor.stride(-1) != 1 and tensor.shape[-1] > 1:
            axis = param.axes[-1]
            raise ValueError(
                f"{self.op}: {label}: stride of {axis} is {tensor.stride(-1)}, must be 1"
            )

    def _check_overlap(self, args: Mapping[str, Any]) -> None:
        """A mutated tensor may not share memory with another argument of the call."""
        spans = [
            (label, param.mutated, _span(tensor))
            for param in self.signature.params
            for label, tensor in self._tensors(param, args[param.name])
            if tensor.numel() > 0
        ]
        for i, (label, mutated, (low, high)) in enumerate(spans):
            for other, other_mutated, (other_low, other_high) in spans[:i]:
                if (mutated or other_mutated) and low < other_high and other_low < high:
                    raise ValueError(f"{self.op}: {label}: shares memory with {other}")


@cache
def _letter_and_plus(axis: str) -> tuple[str, int]:
    """``B+1`` taken apart."""
    m = _AXIS.match(axis)
    assert m is not None
    return m["letter"], int(m["plus"] or 0)


def _span(tensor: torch.Tensor) -> tuple[int, int]:
    """First and one-past-last byte address that a non-empty tensor reaches."""
    last = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    low: int = tensor.data_ptr()
    return low, low + (last + 1) * tensor.element_size()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
