"""A kernel of csrc, as its family registers it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from yaie.compare import FLOAT32_THROUGHOUT, Contract
from yaie.op import Call, suits_all, supports_all

from .face import Face, Launcher


@dataclass(frozen=True)
class Variant:
    """One kernel of csrc. ``call(launch, **arguments)`` serves the op: it allocates the results and
    what else the launcher `<op>_<name>` takes, launches, and returns the results."""

    op: str
    name: str
    call: Callable[..., Any]
    supports: Callable[[Call], str | None] = supports_all
    contract: Contract = FLOAT32_THROUGHOUT
    preference: int = 0
    suits: Callable[[Call], bool] = suits_all

    def run(self, face: Face) -> Callable[..., Any]:
        """The function that serves the op on a face."""
        return partial(self.call, Launcher(face, f"{self.op}_{self.name}"))


def ints(like: Tensor, *shape: int) -> Tensor:
    """Fresh int32 numbers: a result or a workspace."""
    return torch.empty(shape, dtype=torch.int32, device=like.device)


def floats(like: Tensor, *shape: int) -> Tensor:
    """Fresh float32 numbers."""
    return torch.empty(shape, dtype=torch.float32, device=like.device)


def state(shape: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
    """A fresh attention state: out [T,H,D] and its lse [T,H]."""
    out = torch.empty(shape, dtype=like.dtype, device=like.device)
    return out, floats(like, *shape[:2])
