"""A second opinion on every op: plain vectorised PyTorch, on any device, in the tensors' dtype.

Written apart from the references: it shares no mask, index or loop with them, and it passes the
same conformance as any other kernel. A function of one of the modules serves the op of its name.
"""

from __future__ import annotations

from yaie import ops
from yaie.kernels.torch_eager import attention, movers, prefix, rope, sampling
from yaie.op import Kernel

FAMILIES = (movers, prefix, rope, attention, sampling)


def register() -> None:
    """Register the kernels of these modules."""
    for name, op in ops.OPS.items():
        for family in FAMILIES:
            run = getattr(family, name, None)
            if run is not None and run.__module__ == family.__name__:
                op.register(Kernel(op=name, name="torch.eager", run=run))
