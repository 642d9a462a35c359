"""From a seed to the contents of a case: index tensors, layouts, and families of values.

A family is a named way to draw q, k and v that makes one kind of mistake visible. Random normal
numbers alone hide most of them: the mean of many values barely moves when one key is lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from yaie.arena import Arena, Slab, contiguous_strides

Floats = NDArray[np.float32]

LAYOUTS = ("dense", "padded", "heads-padded", "transposed", "shifted", "fused", "broadcast")
"""How a [T,H,D] input lies in memory: contiguous; rows, or heads, padded by a few elements; stored
as [H,T,D]; one element off the allocator's alignment; a slice of a fused [T, 2H, D] projection; one
head that stands for all of them (stride 0)."""
FAR = "far"
"""A layout that no strategy draws: tokens so far apart that 32 bits cannot address the last."""
FAR_ELEMENTS = 3 << 30
"""Of a tensor that 32 bits cannot address, in elements or, as unsigned numbers, in bytes. Only the
rows in use take memory."""


class Fill:
    """Draws the contents of one case into an arena, from the case's seed alone."""

    def __init__(self, arena: Arena, seed: int) -> None:
        arena.reset()
        self.arena = arena
        self.rng = np.random.default_rng(seed)

    def slab(
        self,
        shape: Sequence[int],
        dtype: torch.dtype,
        shift: int = 0,
        rows: Iterable[int] | None = None,
    ) -> Slab:
        """A contiguous tensor, poisoned until it is written, ``shift`` elements off alignment.
        Nothing but ``rows`` of the first axis may be used (None: all), so that it may be far."""
        return self.arena.slab(shape, dtype, shift=shift, rows=rows)

    def rows(self, shape: Sequence[int], dtype: torch.dtype, gap: int, shift: int = 0) -> Slab:
        """Like ``slab``, ``gap`` elements between one row (of the last axis) and the next; with a
        large one it is far."""
        strides = contiguous_strides((*shape[:-1], shape[-1] + gap))
        return self.arena.slab(shape, dtype, strides, shift, range(shape[0]))

    def far(self, shape: tuple[int, int, int], dtype: torch.dtype) -> Slab:
        """Tokens [T,H,D] so far apart that FAR_ELEMENTS lie between the first and the last."""
        T, _, D = shape
        pitch = -(-FAR_ELEMENTS // (64 * max(T - 1, 1))) * 64
        return self.arena.slab(shape, dtype, (pitch, D, 1), rows=range(T))

    def tensor(self, values: Tensor, dtype: torch.dtype, layout: str = "dense") -> Tensor:
        """A tensor that holds ``values`` rounded to ``dtype``, laid out as ``layout`` says."""
        if layout == "broadcast" and values.dim() == 3 and values.shape[1]:
            slab = self.arena.slab(values.shape, dtype)
            first = slab.write(values[:, :1], (slice(None), [0]))[:, :1]
            return first.expand(values.shape)
        return self._laid_out(values.shape, dtype, layout).write(values)

    def ints(self, values: Sequence[int] | NDArray[np.int64]) -> Tensor:
        """An int32 tensor."""
        return self.tensor(torch.as_tensor(values, dtype=torch.int32), torch.int32)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, float32."""
        return torch.from_numpy(self.rng.standard_normal(shape, np.float32))

    def bits(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Random bits as ``dtype``: every NaN payload, infinity and subnormal may occur."""
        raw = bytearray(self.rng.bytes(math.prod(shape) * dtype.itemsize))
        return torch.frombuffer(raw, dtype=dtype).view(*shape) if raw else torch.empty(*shape)

    def permutation(self, n: int) -> NDArray[np.int64]:
        """The numbers 0..n-1 in random order."""
        return self.rng.permutation(n)

    def some(self, count: int, n: int) -> NDArray[np.int64]:
        """``count`` different numbers of 0..n-1 in random order, whatever n is."""
        return self.rng.choice(n, count, replace=False)

    def _laid_out(self, shape: Sequence[int], dtype: torch.dtype, layout: str) -> Slab:
        if layout in ("dense", "broadcast") or len(shape) < 3:
            return self.arena.slab(shape, dtype)
        if layout == "shifted":
            return self.arena.slab(shape, dtype, shift=1)
        t, h, d = shape
        if layout == FAR:
            return self.far((t, h, d), dtype)
        if layout == "padded":
            pitch = h * d + 3
            return self.arena.slab(shape, dtype, (pitch, d, 1))
        if layout == "heads-padded":  # tokens start at multiples of 8 elements, heads do not
            return self.arena.slab(shape, dtype, (-(-h * (d + 1) // 8) * 8, d + 1, 1))
        if layout == "transposed":
            return self.arena.slab(shape, dtype, (d, max(t, 1) * d, 1))
        if layout == "fused":
            return self.arena.slab(shape, dtype, (2 * h * d, d, 1))
        raise ValueError(f"layout {layout!r} is none of {', '.join(LAYOUTS)}")


def reach(dtype: torch.dtype) -> int:
    """The exponent of the largest power of two that the dtype holds: 15, 127, 127."""
    return math.frexp(torch.finfo(dtype).max)[1] - 1


def scaled(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Even columns are large and odd ones small, as far as the dtype reaches with room for sums: a
    format of a smaller range on the way would lose them. float16's are near the ends of its range,
    half of the small ones subnormal, since sums in float32 have room enough."""
    large = 2.0 ** (reach(dtype) // 2)
    small = 1 / large
    if dtype == torch.float16:
        values, large, small = values.clamp(-3.9, 3.9), 2.0**14, 2.0**-14
    return values * torch.where(torch.arange(values.shape[-1]) % 2 == 0, large, small)


class Sequences:
    """The packed q, k, v of a batch before rounding, with the rows of each sequence known.

    q [T,Hq,D], k [N,Hk,D], v [N,Hk,Dv], float32. Families edit them in place.
    """

    def __init__(
        self,
        fill: Fill,
        q_lens: Sequence[int],
        kv_lens: Sequence[int],
        heads: tuple[int, int],
        dims: tuple[int, int],
        edges: Sequence[int],
        dtype: torch.dtype = torch.float16,
    ) -> None:
        (hq, hk), (d, dv) = heads, dims
        self.q = fill.normal(sum(q_lens), hq, d)
        self.k = fill.normal(sum(kv_lens), hk, d)
        self.v = fill.normal(sum(kv_lens), hk, dv)
        self.q_ends, self.kv_ends = np.cumsum(q_lens), np.cumsum(kv_lens)
        self.q_lens, self.kv_lens = tuple(q_lens), tuple(kv_lens)
        self.rng = fill.rng
        self.edges = tuple(edges)
        self.dtype = dtype

    def focus(self) -> list[tuple[Tensor, Tensor]]:
        """For each sequence with queries and keys: the last query of each KV head's first query
        head [Hk,D], and the keys [n,Hk,D]. A family shapes the scores between the two."""
        pairs = []
        group = self.q.shape[1] // self.k.shape[1] if self.k.shape[1] else 1
        for b, (q_len, kv_len) in enumerate(zip(self.q_lens, self.kv_lens, strict=True)):
            if q_len and kv_len:
                end = int(self.kv_ends[b])
                query = self.q[int(self.q_ends[b]) - 1, ::group]
                pairs.append((query, self.k[end - kv_len : end]))
        return pairs

    def aim(self, score: Callable[[int], Tensor]) -> None:
        """Make keys whose scaled score with the focus query is ``score(n)`` (NaN: leave it)."""
        for query, keys in self.focus():
            want = score(len(keys))
            at = (~want.isnan()).nonzero()[:, 0]
            root = math.sqrt(query.shape[-1])
            # A tiny query would need keys beyond float16's range.
            query *= (0.5 * root / query.norm(dim=-1, keepdim=True).clamp_min(1e-6)).clamp_min(1)
            direction = query / query.square().sum(-1, keepdim=True)
            keys[at] = direction * (want[at] * root)[:, None, None]


def _normal(s: Sequences) -> None:
    """Independent standard normal q, k, v."""


def _spiky(s: Sequences) -> None:
    """Some keys are 1.2 times the query: their weights dominate."""
    for query, keys in s.focus():
        at = s.rng.integers(0, len(keys), size=max(1, len(keys) // 16))
        keys[at] = 1.2 * query


def _outlier(s: Sequences) -> None:
    """One channel is 30 in every key and 10 in every query, as in real models."""
    s.k[..., 0], s.q[..., 0] = 30.0, 10.0


def _needle(s: Sequences) -> None:
    """About half of the weight lies on one key at an edge: first, last, of a page or a tile."""

    def score(n: int) -> Tensor:
        want = torch.full((n,), math.nan)
        edges = [e for e in (0, n - 1, *s.edges) if 0 <= e < n]
        want[edges[s.rng.integers(len(edges))]] = math.log(n + 1)
        return want

    s.aim(score)


def _ladder(s: Sequences) -> None:
    """The running maximum rises with every key, by 3 or by 180 in all: what came before must be
    rescaled, in every tile and split."""
    s.aim(lambda n: min(3.0, 180 / n) * torch.arange(n))


def _falling(s: Sequences) -> None:
    """Scores fall from the first key on, which keeps the maximum."""
    s.aim(lambda n: -1.0 * torch.arange(n).clamp_max(400))


def _negative(s: Sequences) -> None:
    """Every score, scaled by 1/sqrt(D), is near -80,000: a finite sentinel for the maximum would
    win."""
    level = math.sqrt(8e4 / math.sqrt(s.q.shape[-1]))
    s.q[:] = level + 0.01 * s.q
    s.k[:] = -level * (1 + 0.001 * s.k)


def _deep(s: Sequences) -> None:
    """Every score is the same, -2^28 / sqrt(D) at a scale of 1/sqrt(D): no finite number may stand
    for the maximum of none, and all keys weigh the same. (Deeper, the rounding of a score times
    log2(e) alone would decide the weights.)"""
    s.q.zero_()
    s.k.zero_()
    s.q[..., 0], s.k[..., 0] = 2.0**14, -(2.0**14)


def _big(s: Sequences) -> None:
    """Raw scores beyond float16's range, values large but finite."""
    s.q *= 60.0
    s.k *= 60.0
    s.v *= 100.0


def _grid(s: Sequences) -> None:
    """Small multiples of powers of two: scores tie exactly, and little is rounded."""
    for x in (s.q, s.k, s.v):
        x.copy_((x * 2).round().clamp(-4, 4) / 2)


def _constant(s: Sequences) -> None:
    """Every value is 1.5: so must be every output, whatever the weights."""
    s.v.fill_(1.5)


def _biased(s: Sequences) -> None:
    """Values around 2, of one sign: errors that share a sign add up."""
    s.v += 2.0


def _alternating(s: Sequences) -> None:
    """Values change their sign from key to key: what is added up nearly cancels."""
    s.v.abs_()
    s.v[::2] *= -1


def _flat(s: Sequences) -> None:
    """All scores are zero: every key weighs the same."""
    s.q.zero_()


def _scaled(s: Sequences) -> None:
    """Queries are large and keys small, so that scores are as ever; columns of values are large and
    small by turns. A format of a smaller range on the way would lose them."""
    factor = 2.0 ** (reach(s.dtype) // 4)
    s.q *= factor
    s.k /= factor
    s.v = scaled(s.v, s.dtype)


def _brink(s: Sequences) -> None:
    """In rows of 2 to 64 keys, weights of 1 and of numbers just below some of the dtype, which sum
    to 1; values about cancel. To round to the nearest hardly changes such a weight, to cut it off
    costs a unit each. (Thousands of like terms would round one way at every step of a right sum in
    float32: longer rows are left as they are.)"""
    if s.q.shape[-1] < 3:
        return
    bits, root = (8 if s.dtype == torch.bfloat16 else 11), math.sqrt(s.q.shape[-1])
    s.q.zero_()
    s.q[..., :3] = 1.0
    for n, end in zip(s.kv_lens, s.kv_ends, strict=True):
        if not 2 <= n <= 64:
            continue
        keys, values = s.k[end - n : end], s.v[end - n : end]
        shares = 1 + s.rng.multinomial(2**bits - n + 1, s.rng.dirichlet([1.0] * (n - 1)))
        score = np.array([0.0, *np.log(shares * (1 - 2.0 ** -(bits + 5)) / 2**bits)])
        left = torch.from_numpy(score * root)
        keys.zero_()
        for d in range(3):  # more digits than one number of the dtype has
            digits = left.to(s.dtype).double()
            keys[..., d] = digits.float()[:, None]
            left = left - digits
        sizes = s.rng.uniform(0.75, 1.25, values[1:].shape).astype(np.float32)
        values[1:] = -values[0] * torch.from_numpy(sizes)


FAMILIES: dict[str, Callable[[Sequences], None]] = {
    f.__name__.removeprefix("_"): f
    for f in (
        _normal,
        _spiky,
        _outlier,
        _needle,
        _ladder,
        _falling,
        _negative,
        _deep,
        _big,
        _grid,
        _constant,
        _biased,
        _alternating,
        _flat,
        _scaled,
        _brink,
    )
}
"""Families of values for attention, by name."""
