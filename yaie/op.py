"""The nouns: an Op says what must be computed, a Case is one point of its domain, a Kernel is one
way to compute it, a Call is one set of arguments that passed the door."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from yaie import dispatch
from yaie.compare import FLOAT32_THROUGHOUT, Comparison, Contract
from yaie.refusal import Refusal, from_signature
from yaie.signature import Binding, Door, Param, Signature, taken_at_its_word

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**options: Any) -> Any:
        """Typing only: the checker reads the real one."""
        return lambda decorator: decorator


C = TypeVar("C", bound=type)
SEEDS = 2**64
"""How many there are: whatever draws by the seed of a Case takes 64 bits."""
LONGEST_TOLD = 500
"""Characters of what was given that a message repeats."""


def print_as_repr(self: Any, printer: Any, cycle: bool) -> None:
    """For pretty-printers (Hypothesis has one), which else write one field a line."""
    printer.text(repr(self))


def one_of(names: Iterable[str], *, default: str) -> Any:
    """A field of a Case that holds one of these names."""
    return field(default=default, metadata={"one_of": tuple(names)})


def at_least(least: int, *, default: int) -> Any:
    """A field of a Case that holds a number not below ``least``."""
    return field(default=default, metadata={"at_least": least})


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(one_of, at_least))
def case(cls: C) -> C:
    """Make a class the Case of the op page it stands on: frozen, keyword-only, checked when it is
    made (types, ``one_of``, ``at_least``, and its own method ``check``), and with a ``repr`` that
    names the op, leaves defaults out and can be pasted back (``yaie repro``)."""

    def __repr__(self: Any) -> str:
        return written(self, repr)

    def __post_init__(self: Any) -> None:
        for f in dataclasses.fields(self):
            _check_field(f, getattr(self, f.name))
        if hasattr(self, "check"):
            self.check()

    cls.__repr__ = __repr__  # type: ignore[assignment]
    cls.__post_init__ = __post_init__  # type: ignore[attr-defined]
    cls._repr_pretty_ = print_as_repr  # type: ignore[attr-defined]
    dataclass(frozen=True, kw_only=True, repr=False)(cls)  # changes the class in place
    return cls


def written(case: Any, value: Callable[[Any], str]) -> str:
    """A Case as the call that makes it, defaults left out; ``value`` writes each argument."""
    shown = [
        f"{f.name}={value(getattr(case, f.name))}"
        for f in dataclasses.fields(case)
        if getattr(case, f.name) != f.default
    ]
    page = type(case).__module__.rpartition(".")[2]
    return f"{page}.Case({', '.join(shown)})"


def _values(text: str, fields: Sequence[str]) -> dict[str, Any]:
    """What the arguments of a call of Case, as they are written, give its fields."""
    node = ast.parse(f"f({text})", mode="eval").body
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)) or node.args:
        raise ValueError("write field=value")
    values = {k.arg or "**": ast.literal_eval(k.value) for k in node.keywords}
    for name in values:
        if name not in fields:
            raise ValueError(f"no field {name!r}{dispatch.nearest(name, fields)}")
    if len(values) < len(node.keywords):
        raise ValueError("a name stands twice")
    return values


def _shortened(text: str) -> str:
    """A text in quotes, the middle of a long one left out."""
    return repr(text if len(text) <= LONGEST_TOLD else f"{text[:100]} ... {text[-50:]}")


def _check_field(f: dataclasses.Field[Any], value: Any) -> None:
    kind = type(f.default)
    numbers = kind is float or f.default is None
    if not (type(value) is kind or (numbers and (value is None or type(value) in (int, float)))):
        raise ValueError(f"{f.name} is {value!r}, must be of type {kind.__name__}")
    nested = kind is tuple and not _holds_numbers(f.default)
    if kind is tuple and not _holds_numbers(value, nested=nested):
        what = "numbers, names and tuples of them" if nested else "whole numbers"
        raise ValueError(f"{f.name} is {value!r}, must hold {what}")
    names = f.metadata.get("one_of")
    if names is not None and value not in names:
        raise ValueError(f"{f.name} is {value!r}{dispatch.nearest(value, names)}")
    least = f.metadata.get("at_least")
    if least is not None and value < least:
        raise ValueError(f"{f.name} is {value}, must be at least {least}")
    if f.name == "seed" and value >= SEEDS:
        raise ValueError(f"seed is {value}, must be below 2**64")


def _holds_numbers(value: Any, *, nested: bool = False) -> bool:
    """Whether a tuple holds whole numbers only; if ``nested``, also names and such tuples."""
    return all(
        type(v) is int
        or (nested and type(v) is str)
        or (nested and type(v) is tuple and _holds_numbers(v, nested=True))
        for v in value
    )


@dataclass(frozen=True)
class Cost:
    """The least work that an op must do: bytes moved once, flops under the mask."""

    bytes: int
    flops: int = 0


@dataclass(frozen=True)
class Call:
    """One call that passed the door: its arguments, and what they say about themselves."""

    op: str
    args: Mapping[str, Any]
    options: Mapping[str, Any]
    axes: Mapping[str, int]
    dtype: torch.dtype | None
    device: torch.device

    def __str__(self) -> str:
        parts = [f"{letter}={size}" for letter, size in self.axes.items()]
        if self.dtype is not None:
            parts.append(str(self.dtype).removeprefix("torch."))
        parts.append(str(self.device))
        parts.extend(f"{name}={value}" for name, value in self.options.items())
        return ", ".join(parts)


def supports_all(call: Call) -> str | None:
    """A kernel's answer when it serves its op's whole domain."""
    return None


def suits_all(call: Call) -> bool:
    """A kernel's answer when no call is better left to another."""
    return True


@dataclass(frozen=True, repr=False)
class Kernel:
    """One way to compute an op.

    ``run`` takes the op's arguments and options by name and returns its results (None, a tensor or
    a tuple). ``supports(call)`` answers None or the reason why not; it reads shapes, dtypes and
    options, never tensor data: by that, ``run`` may decline and raise ``Unsupported``
    (not where arguments are mutated), nothing written.
    ``device`` is where the tensors must live: "cpu", "cuda" or "any". A kernel of negative
    ``preference`` is used only when asked for by name. ``suits(call)`` is False for calls that it
    serves, but others serve faster: unasked, it comes after those.
    """

    op: str
    name: str
    run: Callable[..., Any]
    device: str = "any"
    contract: Contract = FLOAT32_THROUGHOUT
    deterministic: bool = True
    preference: int = 0
    supports: Callable[[Call], str | None] = supports_all
    suits: Callable[[Call], bool] = suits_all

    def __repr__(self) -> str:
        return f"<{self.op}: {self.name}>"

    _repr_pretty_ = print_as_repr

    def declines(self, call: Call) -> str | None:
        """None when this kernel serves the call, else the reason."""
        if self.device not in ("any", call.device.type):
            return f"runs on {self.device} tensors, these are on {call.device.type}"
        return self.supports(call)


def _nothing_more(call: Call) -> None:
    """The signature says it all."""


def _as_it_is(call: Call) -> Call:
    """Nothing is left to be filled in."""
    return call


@dataclass(frozen=True, eq=False, repr=False)
class Op:
    """What must be computed. One page declares one Op; everything else reads it.

    ``inputs(case, fill)`` is the only place where a Case becomes tensors: it returns the arguments
    and the options by name. ``reference`` takes them by name, works in float64 on the stored
    values, mutates what the op mutates, and returns what ``comparison`` needs to judge each result.
    ``door`` holds the checks that the signature cannot say, ``contents`` those that must read
    tensor data (checked mode). ``complete`` fills in what a call left open: axes of the results
    that no argument has, options whose default depends on the arguments. ``errors`` are the bad
    inputs that the signature does not imply; each spoils the call of the Case ``good`` (which
    gives every optional argument). ``chain_of`` names the ops that this one is made of, if its
    kernels are theirs, one after the other; a fused op has kernels of its own.
    """

    name: str
    signature: Signature
    Case: type
    inputs: Callable[[Any, Any], tuple[dict[str, Any], dict[str, Any]]]
    reference: Callable[..., Any]
    cost: Callable[[Any], Cost]
    workloads: Mapping[str, Any]
    edges: Mapping[str, Callable[[Any], bool]]
    errors: tuple[Refusal, ...]
    good: Any
    doc: str
    comparison: Callable[[Any, Call, Contract], Mapping[str, Comparison]] | None = None
    door: Callable[[Call], None] = _nothing_more
    contents: Callable[[Call], None] = _nothing_more
    complete: Callable[[Call], Call] = _as_it_is
    chain_of: tuple[str, ...] = ()
    kernels: dict[str, Kernel] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.register(Kernel(self.name, "reference", self._run_reference, preference=-1))

    def __repr__(self) -> str:
        return f"<{self.name}>"

    _repr_pretty_ = print_as_repr

    def __call__(self, *args: Any, kernel: str | None = None, **options: Any) -> Any:
        """Check the arguments, choose a kernel (yaie.dispatch) and run it.

        Errors: TypeError and ValueError from the door, before any launch; Unsupported when the
        kernel that was asked for declines.
        """
        chosen, call = self.prepare(*args, kernel=kernel, **options)
        return chosen.run(**call.args, **call.options)

    def prepare(self, *args: Any, kernel: str | None = None, **options: Any) -> tuple[Kernel, Call]:
        """All of a call but its running: the checks, and the choice of a kernel."""
        call = self.bind(*args, **options)
        if dispatch.contents_checked(call.device.type):
            self.contents(call)
        return dispatch.choose(self.name, self.kernels, call, kernel), call

    def bind(self, *args: Any, **options: Any) -> Call:
        """The call, if it passes the door; nothing is launched and no tensor data is read."""
        given = self._name_arguments(args, options)
        unknown = set(options) - set(self.signature.options)
        if unknown:
            hint = dispatch.nearest(min(unknown), list(self.signature.options))
            raise TypeError(f"{self.name}: no option {min(unknown)!r}{hint}")
        call = self._call(given, options, Door(self.name, self.signature).admit(given))
        self.door(call)
        return self.complete(call)

    def assume(self, *args: Any, **options: Any) -> Call:
        """The call, taken at its word: what ``bind`` says of one that passes the door. Nothing is
        checked, so sizes may be symbolic."""
        given = self._name_arguments(args, options)
        return self.complete(self._call(given, options, taken_at_its_word(self.signature, given)))

    def _call(self, given: dict[str, Any], options: dict[str, Any], binding: Binding) -> Call:
        options = {**self.signature.options, **options}
        return Call(self.name, given, options, binding.axes, binding.dtype, binding.device)

    def _name_arguments(self, args: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
        names = [p.name for p in self.signature.params]
        if len(args) > len(names):
            raise TypeError(f"{self.name}: takes {len(names)} tensors, {len(args)} were given")
        given = dict(zip(names, args, strict=False))
        for param in self.signature.params[len(args) :]:
            if param.name not in options and not param.optional:
                raise TypeError(f"{self.name}: missing argument {param.name!r}")
            given[param.name] = options.pop(param.name, None)
        return given

    def register(self, kernel: Kernel) -> None:
        """Add a kernel; a second one of the same name is a ValueError."""
        if kernel.op != self.name:
            raise ValueError(f"{self.name}: kernel {kernel.name!r} says it computes {kernel.op!r}")
        if kernel.name in self.kernels:
            raise ValueError(f"{self.name}: kernel {kernel.name!r} is registered already")
        self.kernels[kernel.name] = kernel

    def _run_reference(self, **given: Any) -> Any:
        expected = self.reference(**given)
        if self.comparison is None:
            return None
        options = {name: given.pop(name) for name in self.signature.options}
        call = self.bind(**given, **options)
        judges = self.comparison(expected, call, Contract())
        results = tuple(
            judges[p.name].expected.to(self.result_dtype(p, call)) for p in self.signature.results
        )
        return results if len(results) > 1 else results[0]

    def result_dtype(self, result: Param, call: Call) -> torch.dtype:
        """The dtype that a result of ``call`` must have."""
        if result.dtype == "float":
            assert call.dtype is not None
            return call.dtype
        dtype: torch.dtype = getattr(torch, result.dtype)
        return dtype

    @property
    def dtypes(self) -> tuple[str, ...]:
        """What the field ``dtype`` of this op's Cases may be; the others in a call follow from
        it."""
        (dtype,) = (f for f in dataclasses.fields(self.Case) if f.name == "dtype")
        names: tuple[str, ...] = dtype.metadata["one_of"]
        return names

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """Every bad input: those that the signature implies, then the page's own."""
        return (*from_signature(self.signature), *self.errors)

    def parse_case(self, text: str) -> Any:
        """Read back the ``repr`` of one of this op's Cases; ValueError, in words, when it is none
        or makes no sense."""
        m = re.fullmatch(r"\s*(?:(\w+)\.)?Case\((.*)\)\s*", text, re.DOTALL)
        if m is None or m[1] not in (None, self.name):
            raise ValueError(f"not a Case of {self.name}: {text!r}")
        try:
            return self.Case(**_values(m[2], [f.name for f in dataclasses.fields(self.Case)]))
        except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError) as error:
            said = str(error)
            if "malformed node" in said:
                said = "only literals are allowed"
            if isinstance(error, (RecursionError, MemoryError)):
                said = "it is nested too deeply"
            raise ValueError(f"not a Case of {self.name}: {_shortened(text)}: {said}") from error
