"""What all of FlashInfer's peers share: its package, and how it is asked for what is compiled.

It compiles a module for each dtype, head dimension and kind of score, which takes a minute or more:
what is not compiled is declined, and ``python -m benchmarks.peers.flash_infer`` compiles what the
workloads need.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from benchmarks.peers.batches import VECTOR_BYTES
from benchmarks.peers.torch_sdpa import HALF
from yaie.dispatch import Unsupported
from yaie.op import Call

PACKAGE = "flashinfer"
THREADS = 1024
"""Of a block, in which some of its kernels take all heads of a token."""
HEAD_DIMS = (64, 128, 256, 512)
"""Those of its kernels that have a template for each; its attention has all but the last."""
LN2, LOG2E = 0.6931471805599453, 1.4426950408889634
"""Its log-sum-exps are to base 2."""
NO_JIT = "FLASHINFER_DISABLE_JIT"
HELD: Any = WeakTensorKeyDictionary()
"""What was planned for each tensor of whole numbers, while it lives."""


def module(name: str = "") -> Any:
    """The package, or a part of it. It asks for GPUs when it is imported: not before a call."""
    return importlib.import_module(f"{PACKAGE}.{name}" if name else PACKAGE)


@contextmanager
def without_compiling() -> Iterator[None]:
    """Loads in here raise MissingJITCacheError where they would have to compile."""
    before = os.environ.get(NO_JIT)
    os.environ[NO_JIT] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[NO_JIT]
        else:
            os.environ[NO_JIT] = before


def loaded(load: Callable[[], Any]) -> Any:
    """What ``load`` gives, if that is compiled: a judge does not wait for minutes."""
    try:
        with without_compiling():
            return load()
    except module("jit").MissingJITCacheError as error:
        spec = error.spec
        if NO_JIT not in os.environ and spec is not None and spec.is_compiled:
            return load()  # for itself, not beforehand: it looks whether that is up to date
        raise Unsupported(f"not compiled: {spec.name if spec else error}") from None


def rows(x: Tensor) -> Tensor:
    """x [T,H,D] as its vectors of 16 bytes and its strides of 32 bits can read it: itself, or a
    copy, which is part of the time."""
    step = VECTOR_BYTES // x.element_size()
    strides = x.stride()
    aligned = x.data_ptr() % VECTOR_BYTES == 0 and strides[-1] == 1
    outer = zip(x.shape, strides[:-1], strict=False)
    aligned &= all(s and s % step == 0 and n * s < 2**31 for n, s in outer)
    return x if aligned else x.clone(memory_format=torch.contiguous_format)


def vectors_decline(call: Call, heads: int) -> str | None:
    """None for dtypes and head dimensions that its templates have, and heads that a block takes."""
    dim = call.axes["D"]
    if call.dtype not in HALF or dim not in HEAD_DIMS:
        return "serves half precision with D of 64, 128, 256 and 512"
    if heads * dim // max(8, dim // 32) > THREADS:
        return f"{heads} heads of {dim} do not fit into one block of threads"
    return None
