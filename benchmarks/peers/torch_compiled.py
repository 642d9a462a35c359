"""torch.compile over the plain PyTorch of yaie: what its compiler makes of the movers, of RoPE and
of merging, where it is the best that torch has. (It fuses neither sorts nor scans, so filters and
attention gain nothing from it; flex_attention is a peer of its own.)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack, to_dlpack

from benchmarks.peers.batches import MEMO, VECTOR_BYTES
from yaie import ops
from yaie.kernels.torch_eager import attention, movers, rope, sampling
from yaie.op import Call, Kernel

RECOMPILED = 1024
"""Shapes of a function; beyond torch's limit they would run uncompiled."""
COPIED_BYTES = 1 << 31
"""Of a tensor: compiling works on a copy."""


class Compiled:
    """A function of tensors, compiled for each of their shapes and layouts."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._known: set[Hashable] = set()

    def __call__(self, **args: Any) -> Any:
        key = tuple((name, _layout(value)) for name, value in args.items())
        # What compiling allocates is not judged, nor is there anything else: compiled code does not
        # allocate through torch's functions. (For another state of them it would compile again.)
        with torch._C.DisableTorchFunction():
            if key not in self._known:
                self._made(**{name: _copied(value) for name, value in args.items()})
                self._known.add(key)
            return self._made(**{name: _alone(value) for name, value in args.items()})

    @functools.cached_property
    def _made(self) -> Callable[..., Any]:
        torch._dynamo.config.recompile_limit = RECOMPILED
        torch._dynamo.config.accumulated_recompile_limit = 2 * RECOMPILED
        made: Callable[..., Any] = torch.compile(self._function, dynamic=False)
        return made


def _layout(value: Any) -> Hashable:
    if isinstance(value, list):
        return tuple(map(_layout, value))
    return (value.shape, value.stride(), value.dtype) if isinstance(value, Tensor) else value


def _copied(value: Any) -> Any:
    """The same in memory of its own: compiling calls the function, which may write to it."""
    if isinstance(value, list):
        return list(map(_copied, value))
    if not isinstance(value, Tensor):
        return value
    held = value.as_strided((_span(value),), (1,)).clone()
    return held.as_strided(value.shape, value.stride())


def _span(x: Tensor) -> int:
    """Elements from its first to its last in memory."""
    return 1 + sum((n - 1) * step for n, step in zip(x.shape, x.stride(), strict=True))


def _alone(value: Any) -> Any:
    """The same memory as a tensor that shares its storage with no other: of views into one buffer
    it compiles no writes where their dtypes differ."""
    if isinstance(value, list):
        return list(map(_alone, value))
    return from_dlpack(to_dlpack(value)) if isinstance(value, Tensor) else value


class Storing(Compiled):
    """One that writes tokens of which none is skipped, as an engine knows; where one is, ``plain``
    serves the call. Caches it gets as rows, one a slot: writes to a view of an argument cost a copy
    of the whole argument."""

    def __init__(self, function: Callable[..., Any], plain: Callable[..., Any]) -> None:
        super().__init__(function)
        self._plain = plain

    def __call__(self, **args: Any) -> Any:
        if self.plan(args):
            return self._plain(**args)
        rows = {name: args[name].flatten(0, 1) for name in ("k_cache", "v_cache")}
        return super().__call__(**{**args, **rows})

    def plan(self, whole: Mapping[str, Any], *_: Any) -> bool:
        """Whether a token is skipped: before a burst, for what the device is to wait for is known
        on the host."""
        slots: Tensor = whole["slots"]
        return bool(MEMO(slots, "skips", lambda: bool((slots < 0).any())))


def store(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor) -> None:
    """``append_kv`` of tokens of which none is skipped, into caches [P·S,...]."""
    for values, cache in ((k, k_cache), (v, v_cache)):
        cache.index_copy_(0, slots.long(), values)


def rotate_and_store(
    q: Tensor, k: Tensor, positions: Tensor, cos_sin: Tensor, interleaved: bool, **stored: Tensor
) -> Tensor:
    """``rope_append_kv`` likewise."""
    store(rope.rope(k, positions, cos_sin, interleaved=interleaved), **stored)
    return rope.rope(q, positions, cos_sin, interleaved=interleaved)


def declines(call: Call) -> str | None:
    """None for a call that it serves, else the reason. (The code it makes reads vectors; memory
    that starts elsewhere it would copy, and what it writes there would be lost.)"""
    tensors = [x for value in call.args.values() for x in _tensors(value)]
    if any(x.data_ptr() % VECTOR_BYTES for x in tensors):
        return "a tensor does not start at a multiple of 16 bytes"
    if any(not x.numel() for x in tensors):
        return "a tensor is empty"
    if any(_span(x) * x.element_size() > COPIED_BYTES for x in tensors):
        return "a tensor takes more than 2 GiB"
    return None


def _tensors(value: Any) -> list[Tensor]:
    return value if isinstance(value, list) else [value] if isinstance(value, Tensor) else []


def register() -> None:
    """Register them with their ops."""
    peers = {
        "append_kv": Storing(store, movers.append_kv),
        "copy_blocks": Compiled(movers.copy_blocks),
        "gather_kv": Compiled(movers.gather_kv),
        "greedy": Compiled(sampling.greedy),
        "merge_states": Compiled(attention.merge_states),
        "merge_states_n": Compiled(attention.merge_states_n),
        "penalize": Compiled(sampling.penalize),
        "rope": Compiled(rope.rope),
        "rope_append_kv": Storing(rotate_and_store, rope.rope_append_kv),
    }
    for op, run in peers.items():
        ops.get(op).register(
            Kernel(op, "torch.compile", run, device="cuda", preference=-1, supports=declines)
        )
