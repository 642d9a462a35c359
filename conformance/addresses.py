"""The kernels under AddressSanitizer: `python -m conformance.addresses`, in the environment that
`nox -s sanitize` gives it:

    YAIE_EXTENSIONS=FOLDER  with a build of yaie/_simt with -fsanitize=address
    LD_PRELOAD=$(g++ -print-file-name=libasan.so):libstdc++.so.6  ASAN_OPTIONS=detect_leaks=0

Each ``simt.*`` kernel runs some Cases of its op's strategy in a process of its own, which a finding
ends. Every argument is an allocation of its own that ends with the tensor, and what the kernel
allocates comes from the heap too: the bytes behind them are nobody's. Results are not judged, the
conformance suite does that. What this sees and the checked build does not: the host code of the
launchers and of the executor, and arrays on a thread's own stack.

First a control: a kernel that is given a tensor without its last element must be stopped.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from hypothesis import reject
from torch import Tensor

from conformance import strategies
from conformance.silence import chosen
from yaie import kernels, ops
from yaie.arena import ALIGNMENT, Arena, Placement
from yaie.command.arguments import positive
from yaie.fill import Fill

LARGEST = 64 << 20
"""Bytes of an argument. Far ones, of which few rows exist, are left out."""
CONTROL = "merge_states simt.naive"
"""A kernel that reads every element of its first argument."""


# Memory --------------------------------------------------------------------------------------

libc = ctypes.CDLL(None)
libc.posix_memalign.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]


class Heap:
    """Copies of tensors of an arena, each an allocation of its own."""

    def __init__(self, arena: Arena) -> None:
        self._base = arena.base
        self._allocated: list[int] = []

    def copy(self, tensor: Tensor, missing: int = 0) -> Tensor:
        """The tensor, its strides and its alignment, in memory that ends with it, or ``missing``
        elements before."""
        place = Placement.of(tensor, self._base)
        start = place.offset // ALIGNMENT * ALIGNMENT
        size = max(0, place.end - start)
        if size > LARGEST:
            reject()
        allocated = max(0, size - missing * tensor.itemsize)
        pointer = ctypes.c_void_p()
        if libc.posix_memalign(ctypes.byref(pointer), ALIGNMENT, allocated):
            raise MemoryError(f"{allocated} bytes")
        address = pointer.value or 0
        self._allocated.append(address)
        ctypes.memmove(address, self._base.data_ptr() + start, allocated)
        whole = -(-size // 16) * 16  # so that it can be viewed as any dtype
        bytes_ = np.ctypeslib.as_array((ctypes.c_uint8 * whole).from_address(address))
        moved = Placement(place.dtype, place.offset - start, place.shape, place.strides)
        return moved.view(torch.from_numpy(bytes_))

    def free(self) -> None:
        """All of it."""
        for address in self._allocated:
            libc.free(address)


@contextmanager
def on_heap(args: dict[str, Any], arena: Arena, missing: int) -> Iterator[dict[str, Any]]:
    """The arguments of a call on the heap, the first of them with ``missing`` elements too few."""
    heap = Heap(arena)
    lacks = {next(iter(args)): missing}

    def moved(name: str, value: Any) -> Any:
        if isinstance(value, list):
            return [heap.copy(tensor) for tensor in value]
        return None if value is None else heap.copy(value, lacks.get(name, 0))

    try:
        yield {name: moved(name, value) for name, value in args.items()}
    finally:
        heap.free()


# One kernel ----------------------------------------------------------------------------------


def run_cases(name: str, cases: int, last: Path, missing: int = 0) -> None:
    """Run "op kernel" on some cases; ``last`` holds the one under way."""
    op = ops.get(name.split()[0])
    kernel = op.kernels[name.split()[1]]
    arena = Arena()

    def run(case: Any) -> None:
        last.write_text(repr(case))
        args, options = op.inputs(case, Fill(arena, case.seed))
        with on_heap(args, arena, missing) as moved:
            call = op.bind(**moved, **options)
            if kernel.declines(call) is not None:
                reject()
            kernel.run(**call.args, **call.options)

    strategies.feed(run, op.name, cases, 0)


def _be_child(name: str, cases: int, missing: int, last: Path, words: Path) -> NoReturn:
    """Run the cases, and end without the interpreter's clean-up, which is the parent's."""
    status = 1
    try:
        with words.open("w") as out:
            os.dup2(out.fileno(), 2)
            try:
                run_cases(name, cases, last, missing)
                status = 0
            except BaseException:
                traceback.print_exc(file=out)
    finally:
        os._exit(status)


def in_child(name: str, cases: int, missing: int = 0) -> str | None:
    """What ended the process that ran the cases, if something did."""
    with tempfile.TemporaryDirectory() as folder:
        last, words = Path(folder, "case"), Path(folder, "words")
        last.write_text("no case yet")
        pid = os.fork()
        if pid == 0:
            _be_child(name, cases, missing, last, words)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status == 0:
            return None
        return f"{name} on {last.read_text()}: status {status}\n{words.read_text()[:6000]}"


def main() -> int:
    """Show that the control is found, then run every kernel."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--cases", type=positive, default=8, help="a kernel, those declined included"
    )
    parser.add_argument("--kernel", default="*", metavar="GLOB", help='of "op kernel"')
    args = parser.parse_args()
    kernels.load()
    torch.set_num_threads(1)
    names = list(chosen(args.kernel))
    control = in_child(CONTROL, args.cases, missing=1)
    if control is None or "heap-buffer-overflow" not in control:
        raise SystemExit(f"the control was not found: {CONTROL} ended with {control}")
    findings = [finding for name in names if (finding := in_child(name, args.cases))]
    print(*findings, sep="\n")
    print(f"{len(names)} kernels, {args.cases} cases each, {len(findings)} with findings")
    return 1 if findings or not names else 0


if __name__ == "__main__":
    sys.exit(main())
