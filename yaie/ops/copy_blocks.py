"""copy_blocks: copy whole KV pages, in every layer at once.

``new[dst] = old[src]`` for each layer and each pair (src, dst), simultaneous: as if all reads came
before any write. That can be done in place because a page that is written is never read: every dst
is distinct, and no dst is another pair's src. An identity pair (i, i) is allowed and changes
nothing; a src may repeat (fan-out). The copy is one of bits.

=======  ===================  =================================================================
caches   list[any[P,...]]     mutated; one tensor a layer (keys and values are two layers here);
                              P alike, the rest of the shape and the dtype free; contiguous
pairs    int32[M,2]           page ids (src, dst), each in [0, P)
=======  ===================  =================================================================

M = 0 and an empty list are legal and change nothing. The order of the pairs means nothing, nor do
the layers depend on each other.
Errors: shapes, strides, devices: ValueError; dtypes: TypeError. In checked mode a page outside
[0, P), a repeated dst, and a dst that is another pair's src: ValueError.
Source: vLLM v0 copy_blocks, which copies in place, unordered across thread blocks, so that a chain
(0→1, 1→2) is a race; forbidding chains makes in place and simultaneous the same.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from yaie.fill import Fill
from yaie.op import Call, Cost, Op, at_least, case, one_of
from yaie.refusal import Refusal, Spoil, change
from yaie.signature import FLOAT_NAMES, parse

MOST_PAGES = 200_000
"""A case of more pages than these uses few of them."""
KINDS = ("distinct", "fan-out", "identity", "mixed")
LAYERS = ("alike", "unlike", "shifted", "last shifted", "last longer")
"""Layers of one page shape; of three in turn, one without elements; alike, but off alignment; but
the last one off alignment; but the last one's pages three times as long."""


@case
class Case:
    """L layers of P pages shaped ``page`` (S, Hk, D), or near it (``layers``), M pairs of the given
    kind (at most what P allows: a page for each dst and, unless an identity, one for a src)."""

    L: int = at_least(0, default=2)
    P: int = at_least(1, default=6)
    page: tuple[int, ...] = (4, 2, 8)
    M: int = at_least(0, default=2)
    dtype: str = one_of(
        (*FLOAT_NAMES, "float64", "uint8", "int8", "int32", "int64"), default="float16"
    )
    kind: str = one_of(KINDS, default="distinct")
    layers: str = one_of(LAYERS, default="alike")
    seed: int = at_least(0, default=0)

    def pages(self) -> list[tuple[int, ...]]:
        """The page shape of each layer."""
        if self.layers != "unlike":
            last = (3, *self.page) if self.layers == "last longer" else self.page
            return ([self.page] * self.L)[:-1] + [last] * (self.L > 0)
        wider = (*self.page[:-1], 3 * self.page[-1] + 1)
        return [((*self.page[:-1], 0), wider, self.page)[layer % 3] for layer in range(self.L)]

    def shift(self, layer: int) -> int:
        """How many elements off the allocator's alignment a layer starts."""
        last = self.layers == "last shifted" and layer == self.L - 1
        return int(last or self.layers == "shifted")

    def word(self, layer: int) -> int:
        """The largest power of two that divides the bytes of a layer's pages; 0 without any."""
        itemsize: int = getattr(torch, self.dtype).itemsize
        size = math.prod(self.pages()[layer]) * itemsize
        return size & -size

    def pairs(self, order: list[int]) -> list[tuple[int, int]]:
        """The pairs, from a random order of the pages."""
        if self.kind == "identity":
            return [(i, i) for i in order[: self.M]]
        sources = 1 if self.kind == "fan-out" else max(1, len(order) // 2)
        targets = order[sources:][: self.M]
        pairs = [(order[i % sources], dst) for i, dst in enumerate(targets)]
        if self.kind == "mixed" and pairs:
            pairs[0] = (pairs[0][1], pairs[0][1])
        return pairs


def inputs(case: Case, fill: Fill) -> tuple[dict[str, Any], dict[str, Any]]:
    """Pages of random bits, the last one poison; of a pool too large for memory, those that a pair
    names and the first."""
    dtype, far = getattr(torch, case.dtype), case.P > MOST_PAGES
    order = fill.some(2 * case.M + 2, case.P) if far else fill.permutation(case.P)
    pairs = case.pairs(order.tolist())
    written = sorted({0, *itertools.chain(*pairs)}) if far else range(case.P - 1)
    caches = []
    for layer, page in enumerate(case.pages()):
        shift = case.shift(layer)
        cache = fill.slab((case.P, *page), dtype, shift, written if far else None)
        if written:
            cache.write(fill.bits((len(written), *page), dtype), list(written))
        caches.append(cache.tensor)
    return {
        "caches": caches,
        "pairs": fill.tensor(torch.tensor(pairs).reshape(-1, 2), torch.int32),
    }, {}


def reference(caches: list[Tensor], pairs: Tensor) -> None:
    """All reads, then all writes."""
    src, dst = pairs.long().unbind(1)
    for cache in caches:
        cache[dst] = cache[src].clone()


def cost(case: Case) -> Cost:
    """Each page that moves is written once, and each page that it comes from is read once."""
    moved = [(src, dst) for src, dst in case.pairs(list(range(case.P))) if src != dst]
    pages = len({src for src, _ in moved}) + len(moved)
    elements = sum(map(math.prod, case.pages()))
    return Cost(bytes=pages * elements * getattr(torch, case.dtype).itemsize)


WORKLOADS = {
    "llama3-8b fork, 256 pages": Case(
        L=2, P=1024, page=(16, 8, 128), M=256, dtype="bfloat16", kind="distinct"
    ),
    "llama3-8b fork, 4096 pages": Case(
        L=2, P=16384, page=(16, 8, 128), M=4096, dtype="bfloat16", kind="distinct"
    ),
    "beam search, one prompt to 64": Case(
        L=64, P=128, page=(16, 8, 128), M=64, dtype="bfloat16", kind="fan-out"
    ),
}

EDGES: dict[str, Callable[[Case], bool]] = {
    "more elements than 32 bits address": lambda c: c.M > 0 and c.P * math.prod(c.page) >= 1 << 31,
    "no pairs": lambda c: c.M == 0,
    "more than 65,535 pairs": lambda c: c.L > 0 and c.M > 65_535,
    "no layers": lambda c: c.L == 0,
    "identity pairs": lambda c: c.kind in ("identity", "mixed") and c.M > 0 and c.P > 1,
    "fan-out": lambda c: c.kind == "fan-out" and c.M > 1 and c.P > 2,
    "every page a dst but one": lambda c: c.kind == "fan-out" and c.M >= c.P - 1 > 0,
    "elements of 1 byte": lambda c: c.dtype in ("uint8", "int8"),
    "elements of 2 bytes": lambda c: c.dtype in ("float16", "bfloat16"),
    "elements of 4 bytes": lambda c: c.dtype in ("float32", "int32"),
    "page bytes no multiple of 16": lambda c: (
        math.prod(c.page) * getattr(torch, c.dtype).itemsize % 16 != 0
    ),
    "more layers than one launch takes": lambda c: c.L > 64 and c.M > 0,
    "layers of unlike pages": lambda c: c.layers == "unlike" and c.L > 2,
    "a layer of wider words first": lambda c: (
        c.layers == "unlike"
        and c.L > 2
        and c.M > 0
        and c.kind != "identity"
        and min(c.word(1), 16) > c.word(2)
    ),
    "bases off alignment": lambda c: c.layers == "shifted" and c.L > 0,
    "page of more than 16 KiB": lambda c: (
        math.prod(c.page) * getattr(torch, c.dtype).itemsize > 16384
    ),
    "page of more than 65,536 words": lambda c: (
        math.prod(c.page) * getattr(torch, c.dtype).itemsize > 1 << 20 and c.M > 0
    ),
    "last layer alone off alignment": lambda c: (
        c.layers == "last shifted"
        and c.L > 1
        and c.word(0) > 8
        and min(c.M, c.P - 1) > 0
        and c.kind != "identity"
    ),
    "more than 192 layers": lambda c: c.L > 192 and min(c.M, c.P - 1) > 0 and c.kind != "identity",
    "pages of the last of more than 64 layers alone above 32 KiB": lambda c: (
        (c.layers, c.kind) == ("last longer", "distinct")
        and (c.L > 64 and min(c.M, c.P - 1) > 0)
        and 1 << 15 < 3 * math.prod(c.page) * getattr(torch, c.dtype).itemsize <= 3 << 15
    ),
    "many layers, many pairs": lambda c: c.L > 64 and c.M > 128 and c.P > 256,
    "more than 16 pairs": lambda c: len(c.pairs(list(range(c.P)))) > 16,
    "page ids beyond 16 bits": lambda c: c.P > 1 << 17 and c.M > 0,
}


def contents(call: Call) -> None:
    """Checked mode: pages in range, every dst distinct, no chain."""
    pages = call.axes.get("P")
    pairs = call.args["pairs"].tolist()
    targets = [dst for _, dst in pairs]
    moved = {dst for src, dst in pairs if src != dst}
    for src, dst in pairs:
        for page in (src, dst):
            if pages is not None and not 0 <= page < pages:
                raise ValueError(f"copy_blocks: pairs: page {page} is outside [0, P = {pages})")
        if src in moved and src != dst:
            raise ValueError(f"copy_blocks: pairs: page {src} is both src and dst (a chain)")
    if len(set(targets)) != len(targets):
        raise ValueError("copy_blocks: pairs: a dst is repeated")


def _pairs(*pairs: tuple[int, int]) -> Spoil:
    return change("pairs", lambda _: torch.tensor(pairs, dtype=torch.int32))


ERRORS = (
    Refusal(
        "layers of unlike P",
        change("caches", lambda c: [c[0], c[1][:3]]),
        ValueError,
        "caches[1]: P is 3",
    ),
    Refusal(
        "one layer twice",
        change("caches", lambda c: [c[0], c[0]]),
        ValueError,
        "caches[1]: shares memory",
    ),
    Refusal("page at P", _pairs((0, 6)), ValueError, "page 6", contents=True),
    Refusal("negative page", _pairs((-1, 2)), ValueError, "page -1", contents=True),
    Refusal("chain", _pairs((0, 1), (1, 2)), ValueError, "chain", contents=True),
    Refusal("dst twice", _pairs((0, 2), (1, 2)), ValueError, "repeated", contents=True),
)

copy_blocks = Op(
    name="copy_blocks",
    signature=parse("caches!: list[any[P,...]], pairs: int32[M,2] -> None"),
    Case=Case,
    inputs=inputs,
    reference=reference,
    cost=cost,
    workloads=WORKLOADS,
    edges=EDGES,
    errors=ERRORS,
    good=Case(),
    doc=__doc__ or "",
    contents=contents,
)
