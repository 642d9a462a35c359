"""What append_kv and rope_append_kv share: how the tensors of new tokens lie in memory, the room
that a case has for them, and the edges of both.

The tensors that a call takes together need not lie alike: each has strides and a base of its own,
and a kernel that reads one as the other lies is right only where they do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from yaie.fill import FAR, LAYOUTS, Fill
from yaie.ops import _paged as paged

ALIKE = "alike"
"""The layout of a tensor that lies in memory as the first one of its call does."""
OTHER_LAYOUTS = (ALIKE, *LAYOUTS, FAR)
"""How the other ones may lie."""


def layouts(case: Any, *others: str) -> list[str]:
    """The ``layout`` of a Case, which is that of the first tensor, and those of the others."""
    own = (getattr(case, f"{name}_layout") for name in others)
    return [case.layout, *(case.layout if name == ALIKE else name for name in own)]


def room(fill: Fill, case: Any) -> dict[str, Tensor]:
    """k_cache, v_cache and slots: random distinct ones, every ``skip``-th negative. The caches are
    poison except for one page of data."""
    dtype, slots = getattr(torch, case.dtype), fill.some(case.T, case.P * case.S)
    pages = {0, *(slots // case.S).tolist()}
    if case.skip:
        slots[:: case.skip] = -1 - slots[:: case.skip]
    caches = []
    for d, shift in zip((case.D, case.Dv), paged.cache_shifts(case), strict=True):
        cache = fill.slab((case.P, case.S, case.Hk, d), dtype, shift, pages)
        if case.P:
            cache.write(fill.normal(case.S, case.Hk, d), 0)
        caches.append(cache.tensor)
    return {"k_cache": caches[0], "v_cache": caches[1], "slots": fill.ints(slots)}


def _stores(case: Any) -> bool:
    """Whether some token is stored."""
    return bool(case.T > 0 and case.skip != 1)


def edges(*names: str) -> dict[str, Callable[[Any], bool]]:
    """Edges of an op that takes tensors of these names: caches and tensors that lie unlike each
    other, and as many heads as real models have."""
    every = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    return {
        **paged.cache_edges(_stores),
        f"{every} laid out unlike": lambda c: (
            _stores(c)
            and min(c.T, c.Hk) > 1
            and c.D == c.Dv
            and len(set(layouts(c, *names[1:]))) == len(names)
        ),
        **{f"{name} alone off alignment": _off_alignment(name, names) for name in names},
        "more than 32 wide heads": lambda c: _stores(c) and c.Hk > 32 and min(c.D, c.Dv) > 64,
        "more than 32 heads with gaps between": lambda c: (
            _stores(c) and c.Hk > 32 and c.layout == "heads-padded"
        ),
    }


def _off_alignment(name: str, names: tuple[str, ...]) -> Callable[[Any], bool]:
    """Whether the base of one tensor is all that stands in the way of wide words."""
    wanted = ["shifted" if other == name else "dense" for other in names]
    return lambda c: (
        _stores(c)
        and c.D % 8 == 0 == c.Dv % 8
        and paged.cache_shifts(c) == (0, 0)
        and layouts(c, *names[1:]) == wanted
    )
