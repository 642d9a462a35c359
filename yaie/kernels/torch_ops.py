"""The ops as PyTorch operators, ``torch.ops.yaie.rope(x, positions, cos_sin, interleaved=True)``:
what torch.compile and torch.export can keep in a graph. Every op is one, and nothing is written for
it: the schema and the fake implementation are read off its signature.

The real implementation is the op itself: door, dispatch, kernel. So the errors are those of its
page, and a kernel is chosen whenever the operator runs: ``with yaie.use()`` around a call of a
compiled function takes effect without compiling it again. Results are contiguous, whatever the
kernel returned.

The fake implementation takes a call at its word: it compares no sizes, so symbolic ones stay so. A
size that a call leaves open (``total`` of the gather ops) is read off a tensor when the operator
runs. Not every compiler admits that unasked: older ones want
``torch._dynamo.config.capture_dynamic_output_shape_ops = True``.

The operators have no gradients: PyTorch warns when one is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor

from yaie import ops
from yaie.op import Op
from yaie.signature import Param, Signature


@cache
def register() -> object:
    """Define every op in the namespace ``yaie``, once in a process: they last as long as what this
    returns. (Not through torch.library.custom_op, whose wrappers cost more: docs/torch_ops.md.)"""
    library: Any = torch.library.Library("yaie", "DEF")  # type: ignore[no-untyped-call]
    for op in ops.OPS.values():
        library.define(op.name + schema(op.signature), tags=torch.Tag.pt2_compliant_tag)
        library.impl(op.name, _real(op), "CompositeExplicitAutograd")
        torch.library.register_fake(f"yaie::{op.name}", _fake(op), lib=library)
    return library


def schema(signature: Signature) -> str:
    """What a signature is in PyTorch's language: ``(Tensor x, Tensor(a1!) y, *, float? scale=None)
    -> (Tensor out)``. Whole numbers may be symbolic."""
    arguments = [_argument(param, f"a{i}") for i, param in enumerate(signature.params)]
    if signature.options:
        arguments += ["*", *(_option(signature, name) for name in signature.options)]
    results = (f"Tensor {result.name}" for result in signature.results)
    return f"({', '.join(arguments)}) -> ({', '.join(results)})"


def _argument(param: Param, alias: str) -> str:
    kind = (f"Tensor({alias}!)" if param.mutated else "Tensor") + "[]" * param.many
    return f"{kind}? {param.name}=None" if param.optional else f"{kind} {param.name}"


def _option(signature: Signature, name: str) -> str:
    kind = signature.option_types[name].replace("int", "SymInt").replace("tensor", "Tensor")
    default = signature.options[name]
    return f"{kind} {name}={list(default) if isinstance(default, tuple) else default}"


def _real(op: Op) -> Callable[..., Any]:
    @torch.no_grad()  # or a gradient would depend on the kernel
    def run(*args: Any, **options: Any) -> Any:
        results = op(*args, **_with_tuples(options))
        torch.autograd.graph.increment_version(_mutated(op.signature, args))
        if isinstance(results, tuple):
            return tuple(result.contiguous() for result in results)
        return None if results is None else results.contiguous()

    return run


def _fake(op: Op) -> Callable[..., Any]:
    def describe(*args: Any, **options: Any) -> Any:
        call = op.assume(*args, **_with_sizes(op.signature, _with_tuples(options)))
        results = tuple(
            torch.empty(
                [call.axes[axis] for axis in result.axes],
                dtype=op.result_dtype(result, call),
                device=call.device,
            )
            for result in op.signature.results
        )
        return results if len(results) > 1 else next(iter(results), None)

    return describe


def _with_tuples(options: dict[str, Any]) -> dict[str, Any]:
    """Options as the op takes them: PyTorch makes lists of tuples."""
    return {n: tuple(v) if isinstance(v, list) else v for n, v in options.items()}


def _with_sizes(signature: Signature, options: dict[str, Any]) -> dict[str, Any]:
    """Options in which every whole number that was left open is one that no shape tells."""
    left_open = {
        name: torch.library.get_ctx().new_dynamic_size()
        for name, kind in signature.option_types.items()
        if kind == "int?" and options.get(name, signature.options[name]) is None
    }
    return {**options, **left_open}


def _mutated(signature: Signature, args: tuple[Any, ...]) -> Iterator[Tensor]:
    """The tensors that a call has written to."""
    for param, value in zip(signature.params, args, strict=False):
        if param.mutated:
            yield from value if param.many else [value]
