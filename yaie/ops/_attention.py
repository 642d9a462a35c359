"""The one mask, the one score and the one error budget that every attention op shares.

Query i of a sequence stands at position ``pos = kv_len - q_len + i`` (bottom-right: the last query
sees the last key). It keeps key j iff ``0 <= j < kv_len``, and ``j <= pos`` when causal, and
``pos - left <= j`` when left >= 0, and ``j <= pos + right`` when right >= 0. With q_len=2,
kv_len=5::

    causal            window (1, -1), causal
    1 1 1 1 0         0 0 1 1 0
    1 1 1 1 1         0 0 0 1 1

Score: ``s = scale * q.k``, then ``s = softcap * tanh(s / softcap)`` if softcap > 0, then masked
keys are excluded, then ``p = softmax(s)``. Query head h reads KV head h // G.
A row that keeps no key has out = 0 and lse = -inf. lse is the natural logarithm of sum(exp(s)).
ALiBi would be added after the softcap, as ``-slope * |pos - j|``; no kernel has it yet, so the
option ``alibi`` must be None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from yaie.compare import (
    LAMBDA,
    LSE_C,
    RHO,
    ROUNDING,
    ROW_P,
    SCORE_C,
    U32,
    Budget,
    Comparison,
    Contract,
    unit_roundoff,
)
from yaie.dispatch import Unsupported
from yaie.fill import FAR, Fill
from yaie.op import Call
from yaie.refusal import Refusal, change

Window = tuple[int, int]
CAP_REACH = 1024.0
"""A softcap up to here may be computed with an error of its own size (decision 0003)."""
OPTIONS = ("causal", "scale", "window", "softcap")
"""What every attention op can be asked for, and a Case names."""
SIGNATURE = "causal=True, scale?: float=None, window=(-1, -1), softcap=0.0, alibi?: tensor=None"
ALIGNED_KV_LAYOUTS = ("dense", "transposed", "fused")
DRAWN_KV_LAYOUTS = (*ALIGNED_KV_LAYOUTS, "padded", "shifted")
"""How packed keys and values lie in memory: contiguous; stored as [H,N,D]; the first half of a
fused [N,2H,D]; tokens and heads padded; one element off alignment."""
KV_LAYOUTS = (*DRAWN_KV_LAYOUTS, FAR)
AS_K = "as k"
"""The layout of values that lie as their keys do."""


ONE_TILE = 8
"""Keys of a sequence that every kernel on tensor cores takes as one tile (docs/decisions/0036)."""
P_SLACK = 2.0**-18
"""How far off an exponential may be before it is rounded."""


@dataclass(frozen=True)
class Oracle:
    """The float64 answer, and the moments of it that the error budget needs. [T,Hq,Dv] or
    [T,Hq]."""

    out: Tensor
    """sum p v"""
    lse: Tensor
    """log sum exp(s)"""
    kept: Tensor
    """number of keys kept"""
    p2v2: Tensor
    """sum p^2 v^2"""
    p2dv2: Tensor
    """sum p^2 (v - out)^2"""
    pv: Tensor
    """sum p |v|"""
    v2: Tensor
    """sum v^2 over the kept keys"""
    pmax: Tensor
    """largest p"""
    score_sum: Tensor
    """S: largest scale * sum_d |q_d k_d| over the kept keys"""
    score_error: Tensor
    """sigma_S: standard error of a score computed in float32"""
    off_grid: Tensor
    """the most that rounding to q's dtype changes a weight, relative to it; 1 where not known"""

    def rows(self, rows: slice) -> Oracle:
        """The oracle of some rows of a packed batch."""
        return Oracle(*(getattr(self, f.name)[rows] for f in fields(Oracle)))

    @staticmethod
    def concat(parts: Sequence[Oracle]) -> Oracle:
        """The oracle of a packed batch, from those of its sequences."""
        return Oracle(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Oracle)))

    @staticmethod
    def empty(q: Tensor, v: Tensor) -> Oracle:
        """The oracle of a batch without sequences, and so without queries."""
        rows = q.new_zeros(0, q.shape[1], dtype=torch.float64)
        columns = q.new_zeros(0, q.shape[1], v.shape[-1], dtype=torch.float64)
        wide = ("out", "p2v2", "p2dv2", "pv", "v2")
        return Oracle(*(columns if f.name in wide else rows for f in fields(Oracle)))


def keep_mask(
    q_len: int, kv_len: int, causal: bool, window: Window, device: torch.device
) -> Tensor:
    """Which keys each query keeps: bool [q_len, kv_len]."""
    left, right = window
    pos = torch.arange(kv_len - q_len, kv_len, device=device)[:, None]
    key = torch.arange(kv_len, device=device)[None, :]
    keep = torch.ones(q_len, kv_len, dtype=torch.bool, device=device)
    if causal:
        keep &= key <= pos
    if left >= 0:
        keep &= key >= pos - left
    if right >= 0:
        keep &= key <= pos + right
    return keep


def kept_keys(q_lens: Sequence[int], kv_lens: Sequence[int], window: Window) -> list[range]:
    """The keys of each sequence that some query keeps. The last query stands at the last key, so
    they end there (a causal mask takes nothing away)."""
    spans = []
    for q_len, kv_len in zip(q_lens, kv_lens, strict=True):
        behind = 0 if window[0] < 0 else max(0, kv_len - q_len - window[0])
        spans.append(range(behind if q_len else kv_len, kv_len))
    return spans


def kept_pairs(q_lens: Sequence[int], kv_lens: Sequence[int], causal: bool, window: Window) -> int:
    """How many (query, key) pairs the mask keeps: of each query the keys from a first to a last."""
    (left, right), pairs = window, 0
    right = 0 if causal else right
    for q_len, kv_len in zip(q_lens, kv_lens, strict=True):
        pos = torch.arange(kv_len - q_len, kv_len)
        last = (pos + right if right >= 0 else pos + kv_len + q_len).clamp_max(kv_len - 1)
        first = (pos - left if left >= 0 else 0 * pos).clamp_min(0)
        pairs += int((last - first + 1).clamp_min(0).sum())
    return pairs


def packed(fill: Fill, values: Tensor, rows: Sequence[int], dtype: torch.dtype, layout: str) -> Any:
    """[N,H,D] of which only ``rows`` hold ``values``; the rest, and what lies between the tokens
    and heads of a layout, is poison."""
    (N, H, D), shift = values.shape, int(layout == "shifted")
    at = torch.tensor(rows, dtype=torch.int64)
    if layout == "transposed":
        slab = fill.slab((H, N, D), dtype)
        slab.write(values[at].transpose(0, 1), (slice(None), at))
        return slab.tensor.transpose(0, 1)
    if layout == FAR:
        return fill.far((N, H, D), dtype).write(values[at], at)
    pad = int(layout == "padded")
    slab = fill.slab((N, 2 * H if layout == "fused" else H + pad, D + pad), dtype, shift)
    slab.write(values[at], (at, slice(H), slice(D)))
    return slab.tensor[:, :H, :D]


def attend(q: Tensor, k: Tensor, v: Tensor, keep: Tensor, scale: float, softcap: float) -> Oracle:
    """Attention of one sequence in float64: q [Lq,Hq,D], k [N,Hk,D], v [N,Hk,Dv], keep [Lq,N].

    Keys that no query keeps are not read: they may hold anything.
    """
    needed = keep.any(0)
    if not needed.all():
        keep, k, v = keep[:, needed], k[needed], v[needed]
    (Lq, Hq, D), Hk = q.shape, k.shape[1]
    group, dtype = Hq // Hk, q.dtype
    one_tile = bool(needed.all()) and len(needed) <= ONE_TILE
    # The query heads of a KV head attend to the same keys: R = group * Lq rows, head after head.
    q = q.double().transpose(0, 1).reshape(Hk, group * Lq, D)  # [Hk,R,D]
    k, v = (x.double().transpose(0, 1) for x in (k, v))  # [Hk,N,D], [Hk,N,Dv]
    keep = keep.expand(group, -1, -1).flatten(0, 1)  # [R,N]
    hidden = None if keep.all() else ~keep

    s = scale * q.bmm(k.mT)  # [Hk,R,N]
    if softcap > 0:
        s = softcap * torch.tanh(s / softcap)
    s = _fill(s, hidden, -math.inf)
    lse = torch.logsumexp(s, -1)  # [Hk,R]; -inf where nothing is kept
    p = _fill((s - lse[..., None]).exp(), hidden, 0.0)
    out = p.bmm(v)  # [Hk,R,Dv]

    p2, v2, weight = p.square(), v.square(), keep.double().expand_as(p)
    p2v2 = p2.bmm(v2)
    # sum p^2 (v - out)^2, multiplied out so that no [Hk,R,N,Dv] tensor is built
    p2dv2 = p2v2 - 2 * out * p2.bmm(v) + out.square() * p2.sum(-1, keepdim=True)
    size_of_q, size_of_k = (torch.linalg.vector_norm(x, dim=-1) for x in (q, k))
    largest_key = _row_max(size_of_k[:, None, :].expand_as(p), hidden)
    unit = SCORE_C * math.sqrt(D) * U32 * abs(scale)
    score_sum = _row_max(abs(scale) * q.abs().bmm(k.abs().mT), hidden)
    moments = Oracle(
        out=out,
        lse=lse,
        kept=weight.sum(-1),
        p2v2=p2v2,
        p2dv2=p2dv2.clamp_min(0.0),
        pv=p.bmm(v.abs()),
        v2=weight.bmm(v2),
        pmax=_row_max(p, hidden),
        score_sum=score_sum,
        score_error=unit * size_of_q * largest_key + 2.0**-22 + cap_error(score_sum, softcap),
        off_grid=torch.ones_like(lse),
    )
    if dtype.itemsize == 2:
        moments = replace(moments, off_grid=_off_grid(moments, p if one_tile else None, dtype))
    per_row = (getattr(moments, f.name) for f in fields(Oracle))  # [Hk,R,...] to [Lq,Hq,...]
    return Oracle(*(x.reshape(Hq, Lq, *x.shape[2:]).transpose(0, 1) for x in per_row))


def cap_error(score_sum: Tensor, softcap: float) -> Tensor:
    """What capping adds to the error of a row's scores: 2^-22 of the softcap (decision 0003), where
    that is not far above what the scores can be."""
    return 2.0**-22 * (CAP_REACH + score_sum).clamp_max(softcap)


def _off_grid(o: Oracle, p: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Oracle.off_grid, [Hk,R], for weights taken relative to the largest of their row and for
    normalised ones; p [Hk,R,N] where all keys lie in one tile, so that its largest is the row's."""

    def off(x: Tensor) -> Tensor:
        return ((x.to(dtype).double() - x).abs() / x).nan_to_num(0.0)

    if p is not None and p.shape[-1]:
        return torch.maximum(off(p), off(p / o.pmax[..., None])).amax(-1)
    # Scores that are all 0 give weights of 1, or of 1 by the number of keys.
    return torch.where(o.score_sum == 0, off(1 / o.kept), 1.0)


def _fill(x: Tensor, hidden: Tensor | None, value: float) -> Tensor:
    """x [Hk,R,N] with the value where a key is hidden (None: nowhere) from a row."""
    return x if hidden is None else x.masked_fill(hidden, value)


def _row_max(x: Tensor, hidden: Tensor | None) -> Tensor:
    """Largest x over the kept keys of each row, 0 where none is kept; x >= 0."""
    masked = _fill(x, hidden, 0.0)
    return masked.amax(-1) if masked.shape[-1] else masked.sum(-1)


def judges(oracle: Oracle, call: Call, contract: Contract) -> dict[str, Comparison]:
    """The budgets of out and lse for a kernel of this contract (docs/error-model.md)."""
    assert call.dtype is not None
    u = unit_roundoff(call.dtype)
    tiny = torch.finfo(call.dtype).smallest_normal
    narrow = call.dtype != torch.float32
    w = float(contract.roundings * narrow)
    # What each rounding of weights may change: where that is known, no more.
    unit = torch.full_like(oracle.kept, u)[..., None]
    if not contract.p_from_constant:
        before = P_SLACK + LAMBDA * oracle.score_error  # how far off a weight is when it is rounded
        unit = unit.minimum((oracle.off_grid + before)[..., None])
    others = w - contract.p_rounded * narrow
    kappa = others * u + (w - others) * unit
    square = others * u**2 + (w - others) * unit.square()
    eta = 2.0**-25 if w and call.dtype == torch.float16 else 0.0
    some = (oracle.kept > 0).double()[..., None]  # a row without keys is exactly 0
    size = oracle.out.abs()
    g = contract.accumulation(oracle.kept)[..., None]

    rounded_p = square * oracle.p2v2 + (eta * oracle.pmax[..., None]).square() * oracle.v2
    scores = oracle.score_error[..., None].square() * oracle.p2dv2
    coherent = kappa * size
    accumulated = g * (size + oracle.p2v2.sqrt())
    floor = 2.0**-20 * oracle.pv
    # Tensor cores have no product of two float32 numbers: it is a sum of three in TF32, and what
    # that leaves out of p is left out of the whole row (docs/decisions/0010).
    split = 0.0 if narrow or contract.accumulator == "ieee" else floor.square()
    # What splits lose near 0, stored in the dtype: as the result does (docs/decisions/0011).
    stored = u * tiny if contract.partials_in_dtype and narrow else 0.0
    out = Budget(
        expected=oracle.out,
        terms={
            ROUNDING: (u * size.clamp_min(tiny) + stored) * some,
            "equal scores round alike": coherent,
            "rounding of P and scores": LAMBDA * torch.sqrt(rounded_p + scores),
            "float32 floor": floor,
            "accumulation": accumulated,
        },
        model=torch.sqrt(
            (u * size).square() / 3
            # Both move all elements of a row together, more or less: no mean makes them smaller.
            + ROW_P * rounded_p
            + (LAMBDA / RHO) ** 2 * scores
            + coherent.square()
            + accumulated.square()
            + split
        )
        + u * tiny
        + stored,
    )
    rounded_sum = u if contract.row_sum_of_rounded_p and narrow else 0.0
    cap = cap_error(oracle.score_sum, float(call.options["softcap"]))
    lse = Budget(
        expected=oracle.lse,
        terms={
            "scores": U32 * LSE_C * (1 + oracle.score_sum) + cap,
            "lse rounding": U32 * LSE_C * oracle.lse.abs(),
            "accumulation": U32 * oracle.kept / 8,
            "row sum of rounded P": torch.full_like(oracle.lse, rounded_sum),
        },
    )
    return {"out": out, "lse": lse}


def check_options(call: Call) -> None:
    """The door of an attention op: head groups and options."""
    Hq, Hk = call.axes["Hq"], call.axes["Hk"]
    if Hk == 0 or Hq % Hk:
        raise ValueError(f"{call.op}: q: Hq is {Hq}, no multiple of Hk = {Hk}")
    for axis, size in call.axes.items():
        if axis in ("D", "Dv", "S") and size == 0:
            raise ValueError(f"{call.op}: {axis} is 0, must be at least 1")
    check_score(call)


def check_score(call: Call) -> None:
    """The range of the options."""
    scale, softcap, window = (call.options[name] for name in ("scale", "softcap", "window"))
    if scale is not None and not math.isfinite(scale):
        raise ValueError(f"{call.op}: scale is {scale}, must be finite")
    if not (softcap >= 0 and math.isfinite(softcap)):
        raise ValueError(f"{call.op}: softcap is {softcap}, must be finite and not negative")
    if len(window) != 2 or min(window) < -1:
        raise ValueError(f"{call.op}: window is {window}, must be two numbers from -1 on")
    if call.options.get("alibi") is not None:
        raise Unsupported(f"{call.op}: alibi: no kernel adds position biases, it must be None")


def _ask_for_alibi(given: dict[str, Any]) -> None:
    given["alibi"] = torch.ones(4)


SCORE_ERRORS = (
    Refusal("scale NaN", change("scale", lambda _: math.nan), ValueError, "scale is nan"),
    Refusal("scale inf", change("scale", lambda _: math.inf), ValueError, "scale is inf"),
    Refusal("softcap < 0", change("softcap", lambda _: -1.0), ValueError, "softcap is -1"),
    Refusal("softcap NaN", change("softcap", lambda _: math.nan), ValueError, "softcap is nan"),
    Refusal("window < -1", change("window", lambda _: (-2, -1)), ValueError, "window is (-2"),
)
OPTION_ERRORS = (
    Refusal("Hq % Hk", change("q", lambda q: q[:, :3]), ValueError, "Hq is 3"),
    *SCORE_ERRORS,
    Refusal("alibi", _ask_for_alibi, Unsupported, "alibi: no kernel"),
)


def _moves_within_rows(c: Any) -> bool:
    """Whether windows of queries that a block may share begin in unlike tiles of keys, however the
    head dimension decides how many keys a tile has."""
    return (
        c.dtype != "float32"
        and c.G == 1
        and c.window[0] >= 0
        and any(q > 96 and n - c.window[0] > 97 for q, n in zip(c.q_lens, c.kv_lens, strict=True))
    )


def _holds(dtype: torch.dtype, number: float) -> bool:
    return torch.tensor(number, dtype=dtype).item() == number


def _is_small_and_causal(c: Any) -> bool:
    return bool(c.dtype != "float32" and c.causal and c.D == c.Dv <= 64)


def _is_long_chunk(c: Any) -> bool:
    many = len(c.q_lens) == 1 and c.q_lens[0] > 128 and c.kv_lens[0] > 1024
    return many and _is_small_and_causal(c)


MASK_EDGES: dict[str, Callable[[Any], bool]] = {
    "no sequences": lambda c: not c.q_lens,
    "kv_len 0": lambda c: 0 in c.kv_lens,
    "q_len 0": lambda c: 0 in c.q_lens,
    "kv_len 1": lambda c: 1 in c.kv_lens,
    "q_len > kv_len": lambda c: any(a > b for a, b in zip(c.q_lens, c.kv_lens, strict=True)),
    "decode": lambda c: bool(c.q_lens) and set(c.q_lens) == {1},
    "mixed batch": lambda c: 1 in c.q_lens and any(n > 1 for n in c.q_lens),
    "kv_len at a tile edge": lambda c: any(
        n - t in (-1, 0, 1) for n in c.kv_lens for t in (16, 32, 64, 128)
    ),
    "group of 3, 5 or 12": lambda c: c.G in (3, 5, 12),
    "no grouping": lambda c: c.G == 1 and c.Hk > 1,
    "head dim no multiple of 32": lambda c: c.D % 32 != 0,
    "window left 0": lambda c: c.window[0] == 0,
    "no causal mask": lambda c: not c.causal and any(n > 1 for n in c.q_lens),
    "a window that begins inside a later tile of 64 keys": lambda c: (
        c.window[0] >= 0
        and any(
            q and n - q - c.window[0] > 64 and (n - q - c.window[0]) % 64
            for q, n in zip(c.q_lens, c.kv_lens, strict=True)
        )
    ),
    "a window that moves on by more than 128 keys": lambda c: (
        c.window[0] >= 0
        and any(q > 128 and n - c.window[0] > 129 for q, n in zip(c.q_lens, c.kv_lens, strict=True))
    ),
    "a window that moves on by more than 64 keys within 128 rows of 64 < D <= 128": lambda c: (
        64 < c.D <= 128 and _moves_within_rows(c)
    ),
    "a window that moves on by more than 64 keys within 128 rows of D > 128": lambda c: (
        128 < c.D <= 256 and _moves_within_rows(c)
    ),
    "window to the right": lambda c: not c.causal and c.window[1] >= 0,
    "window to the right under a causal mask": lambda c: (
        c.causal and c.window[1] > 0 and any(n > 1 for n in c.q_lens) and max(c.kv_lens) > 1
    ),
    "window as wide as an int": lambda c: max(c.window) == 2**31 - 1,
    "that to the right, behind the first key": lambda c: (
        not c.causal
        and c.window[1] == 2**31 - 1
        and any(0 < q < kv for q, kv in zip(c.q_lens, c.kv_lens, strict=True))
    ),
    "more than 16 queries": lambda c: max(c.q_lens, default=0) > 16,
    "more than 65,535 queries": lambda c: sum(c.q_lens) > 65_535,
    "more than 65,535 queries under a causal mask": lambda c: (
        c.causal and any(q > 65_535 and kv for q, kv in zip(c.q_lens, c.kv_lens, strict=True))
    ),
    "more than 4 sequences": lambda c: len(c.q_lens) > 4,
    "more than 128 sequences, some without queries": lambda c: (
        len(c.q_lens) > 128 and 0 in c.q_lens and sum(c.q_lens) > 0
    ),
    "group of more than 12": lambda c: c.G > 12,
    "more than 300 keys of D >= 64": lambda c: c.D >= 64 and max(c.kv_lens, default=0) > 300,
    "scale 0": lambda c: c.scale == 0,
    "scale above 1": lambda c: (
        (c.scale or 0) > 1 and c.family == "normal" and c.softcap == 0 and sum(c.kv_lens) > 1
    ),
    "softcap next to 0": lambda c: (
        0 < c.softcap < 1e-38 and c.family == "flat" and sum(c.kv_lens) > 1
    ),
    "softcap far above every score": lambda c: (
        c.softcap >= 1e6 and c.family == "normal" and sum(c.kv_lens) > 1
    ),
    "softcap near the largest float": lambda c: c.softcap > 1e38 and sum(c.kv_lens) > 1,
    "more than 4096 keys": lambda c: max(c.kv_lens, default=0) > 4096,
    "16-bit scores that rise over more than 4096 keys": lambda c: (
        c.family == "ladder" and c.dtype != "float32" and max(c.kv_lens, default=0) > 4096
    ),
    "softcap": lambda c: c.softcap > 0,
    "no queries, no keys": lambda c: (0, 0) in zip(c.q_lens, c.kv_lens, strict=True),
    "one query, one key": lambda c: (1, 1) in zip(c.q_lens, c.kv_lens, strict=True),
    "group of 8": lambda c: c.G == 8 and sum(c.q_lens) > 0,
    "scores that tie": lambda c: c.family in ("grid", "flat") and sum(c.kv_lens) > 1,
    "one score far above the rest": lambda c: c.family in ("spiky", "needle"),
    "values of alternating sign": lambda c: c.family == "alternating" and sum(c.kv_lens) > 1,
    "a context that 16 bits cannot count": lambda c: any(
        q and kv > 65_535 for q, kv in zip(c.q_lens, c.kv_lens, strict=True)
    ),
    "more than 4 KV heads": lambda c: c.Hk > 4 and sum(c.q_lens) > 0,
    "more than 32 KV heads": lambda c: c.Hk > 32 and sum(c.q_lens) > 0 and sum(c.kv_lens) > 1,
    "group of more than 64": lambda c: c.G > 64 and sum(c.q_lens) > 0 and sum(c.kv_lens) > 1,
    "more than 2,048 rows of one KV head in one sequence": lambda c: any(
        q * c.G > 2048 and kv > 1 for q, kv in zip(c.q_lens, c.kv_lens, strict=True)
    ),
    "more than 1,024 sequences, some without queries": lambda c: (
        len(c.q_lens) > 1024 and 0 in c.q_lens and sum(c.q_lens) > 0
    ),
    "head dims above 256": lambda c: c.D > 256 and c.Dv > 256 and sum(c.kv_lens) > 1,
    "values beyond float16's range": lambda c: (
        c.family == "scaled" and c.dtype == "bfloat16" and sum(c.kv_lens) > 1
    ),
    "weights that rounding leaves alone": lambda c: (
        c.family == "flat" and c.dtype != "float32" and any(n in (2, 4, 8, 16) for n in c.kv_lens)
    ),
    "weights just below numbers of 16 bits": lambda c: (
        c.family == "brink"
        and c.dtype != "float32"
        and c.D >= 3
        and c.scale is None
        and c.softcap == 0
        and any(q and 2 < kv <= ONE_TILE for q, kv in zip(c.q_lens, c.kv_lens, strict=True))
    ),
    "equal scores below -10 million": lambda c: (
        c.family == "deep"
        and c.scale in (None, 1.0)
        and c.softcap == 0
        and any(q and kv > 1 for q, kv in zip(c.q_lens, c.kv_lens, strict=True))
    ),
    "float16 values near both ends of its range": lambda c: (
        c.family == "scaled" and c.dtype == "float16" and sum(c.kv_lens) > 1
    ),
    "softcap below 1": lambda c: 0 < c.softcap < 1 and sum(c.kv_lens) > 1,
    "softcap above 32": lambda c: c.softcap > 32 and sum(c.kv_lens) > 1,
    "a window of more than 1,024 keys that drops some": lambda c: any(
        q and 1024 < c.window[0] < kv - q for q, kv in zip(c.q_lens, c.kv_lens, strict=True)
    ),
    "a window that 16 bits cannot count": lambda c: any(
        q and 1 << 15 <= c.window[0] < kv - q for q, kv in zip(c.q_lens, c.kv_lens, strict=True)
    ),
    "a softcap that 16 bits do not hold": lambda c: (
        not any(_holds(dtype, c.softcap) for dtype in (torch.float16, torch.bfloat16))
        and sum(c.q_lens) > 0
        and sum(c.kv_lens) > 1
    ),
    "queries that 32 bits cannot address": lambda c: (
        c.layout == FAR and sum(c.q_lens) > 1 and sum(c.kv_lens) > 1
    ),
    # Kernels may take short sequences otherwise than long ones.
    "many queries behind more than 1,024 keys, head dims up to 64": _is_long_chunk,
    "many queries behind more than 1,024 keys, head dims up to 64, some dropped": lambda c: (
        _is_long_chunk(c) and 1024 < c.window[0] < c.kv_lens[0] - c.q_lens[0]
    ),
    "queries behind 1,024 keys in all, head dims up to 64": lambda c: (
        _is_small_and_causal(c) and c.q_lens == (40,) and c.kv_lens == (1024,)
    ),
    "queries behind 1,025 keys in all, head dims up to 64": lambda c: (
        _is_small_and_causal(c) and c.q_lens == (40,) and c.kv_lens == (1025,)
    ),
    "queries sixteen apart that 32 bits cannot address": lambda c: (
        c.layout == FAR and c.q_lens == (20,) and min(c.kv_lens) >= 20 and c.G == 1
    ),
    # What is drawn is wide along one axis at a time, so that it stays cheap.
    "many queries, and several of a long context, of many sequences and wide heads": lambda c: (
        len(c.q_lens) > 4
        and min(c.Hk, c.G) > 1
        and c.D > 64
        and max(c.q_lens[1:]) > 64
        and any(q > 1 and kv > 1024 for q, kv in zip(c.q_lens[1:], c.kv_lens[1:], strict=True))
    ),
    "one value for all keys": lambda c: c.family == "constant" and sum(c.kv_lens) > 1,
}
