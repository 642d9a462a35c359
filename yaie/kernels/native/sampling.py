"""The kernels that make tokens of logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from yaie.op import Call

from .face import Face, Launcher
from .variant import Variant, ints

MOST_CHUNKS = 4096
"""Chunks of four logits in a part of a row with a window: it stays in the registers of a block."""
MOST_SURVEYED = 16
"""Parts of such a row, in either read, where it could do with fewer: one block adds up what they
found."""


def _new_logits(logits: Tensor) -> Tensor:
    """A fresh float32 result of the shape of ``logits``."""
    return torch.empty(logits.shape, dtype=torch.float32, device=logits.device)


def _token_a_row(logits: Tensor) -> Tensor:
    """A fresh int32 result, one number a row of ``logits``."""
    return ints(logits, logits.shape[0])


def _plain(fresh: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """Calls a launcher that takes its one result and then the op's arguments in their order."""

    def call(launch: Launcher, **args: Tensor) -> Tensor:
        result = fresh(next(iter(args.values())))
        launch(result, *args.values())
        return result

    return call


def _split_rows(launch: Launcher, **args: Tensor) -> Tensor:
    """Calls a launcher that takes its tokens, a workspace, and the op's arguments."""
    rows = next(iter(args.values()))
    token = _token_a_row(rows)
    parts = _parts_of_a_row(launch.face, rows, whole=True)
    launch(token, ints(rows, rows.shape[0], parts, 2), *args.values())
    return token


def _with_window(fresh: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """Calls a launcher of csrc/common/sampling_window.cuh: result, workspaces, arguments."""

    def call(launch: Launcher, **args: Tensor) -> Tensor:
        logits, module = args["logits"], launch.face.module
        rows, least = logits.shape[0], -(-(logits.shape[1] // 4 + 2) // MOST_CHUNKS)
        parts = _parts_of_a_row(launch.face, logits)
        result = fresh(logits)
        work = ints(logits, rows, max(least, parts), module.sampling_ints_a_part)
        work_a_row = ints(logits, rows, module.sampling_ints_a_row)
        launch(result, work, work_a_row, ints(logits, rows, parts, 2), *args.values())
        return result

    return call


def _parts_of_a_row(face: Face, logits: Tensor, whole: bool = False) -> int:
    """How many blocks a row of logits is dealt to: twice as many blocks as run side by side, where
    there are fewer rows than that; none with less than a warp's chunks. ``whole``: only where the
    rows cannot occupy the GPU without."""
    rows, chunks = max(logits.shape[0], 1), logits.shape[1] // 4 + 2
    side_by_side = face.multiprocessors(logits)
    wanted = side_by_side // rows if whole else min(2 * side_by_side // rows, MOST_SURVEYED)
    return max(1, min(wanted, chunks // 32))


def _split_declines(call: Call) -> str | None:
    V = call.axes["V"]
    return f"V is {V}, split serves up to 2^30" if V > 2**30 else None


def _weights_decline(call: Call) -> str | None:
    V = call.axes["V"]
    return f"V is {V}, it adds up fewer than 2^24 weights" if V >= 2**24 else None


VARIANTS = (
    Variant("penalize", "naive", _plain(_new_logits)),
    Variant("penalize", "tiled", _plain(_new_logits), preference=10),
    Variant("filter_tokens", "naive", _plain(_new_logits), _weights_decline),
    Variant("filter_tokens", "split", _with_window(_new_logits), _weights_decline, preference=10),
    Variant("draw_tokens", "naive", _plain(_token_a_row)),
    Variant("draw_tokens", "split", _split_rows, _split_declines, preference=10),
    Variant("sample", "naive", _plain(_token_a_row), _weights_decline),
    Variant("sample", "split", _with_window(_token_a_row), _weights_decline, preference=10),
    Variant("greedy", "naive", _plain(_token_a_row)),
    Variant("greedy", "split", _split_rows, preference=10),
)
