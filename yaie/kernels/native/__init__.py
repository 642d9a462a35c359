"""Our CUDA kernels through their two faces: on a GPU (``cuda.*``), and on the CPU through the SIMT
executor (``simt.*``). One list serves both; a file a family says how its launchers are called, and
what they decline.

The imports are relative, for the gate loads two of these packages at once, base's and head's.
"""

from __future__ import annotations

from yaie import ops
from yaie.op import Kernel

from . import attention, cache, prefix, sampling
from .face import FACES, Face, entries, extension

VARIANTS = (*cache.VARIANTS, *prefix.VARIANTS, *attention.VARIANTS, *sampling.VARIANTS)
"""Every kernel of csrc, once. ``preference`` orders the kernels of a GPU; the executor's kernels
run only when they are asked for."""


def register() -> None:
    """Register every variant with its op, for each face that was built."""
    for face_name, device in FACES.items():
        module = extension(face_name)
        if module is None:
            continue
        face = Face(module, device)
        for variant in VARIANTS:
            ops.get(variant.op).register(
                Kernel(
                    op=variant.op,
                    name=f"{face_name}.{variant.name}",
                    run=variant.run(face),
                    device=device,
                    contract=variant.contract,
                    preference=20 + variant.preference if device == "cuda" else -1,
                    supports=variant.supports,
                    suits=variant.suits,
                )
            )


__all__ = ["FACES", "VARIANTS", "Face", "entries", "extension", "register"]
