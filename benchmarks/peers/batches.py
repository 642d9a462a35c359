"""Packed sequences as the dense batches that other packages' attention takes.

What an engine knows on the host (lengths, which rows are whose, masks) is the *plan* of a batch.
It is made once for each tensor of lengths, and again when that tensor is written to, as an engine
makes it once a step for all layers. What depends on the device's data alone, such as gathering
pages, is part of a peer's time.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

VECTOR_BYTES = 16
"""What other packages' kernels read at once, and so where they want tensors to start."""


@dataclass(frozen=True)
class Attention:
    """The options of a call that a backend must honour."""

    causal: bool
    scale: float
    window: tuple[int, int]
    softcap: float


@dataclass(frozen=True, eq=False)
class Mask:
    """The keys of a sequence that some query keeps; ``keep`` [Lq,N] which of them each query keeps,
    None for all; ``bias``: the same as numbers to add; ``some`` [Lq]: which queries keep any, None
    for all; ``first``: the position of the first query, counted from the first of the keys;
    ``square``: it is the causal mask of as many queries as keys."""

    keys: range
    keep: Tensor | None = None
    bias: Tensor | None = None
    some: Tensor | None = None
    first: int = 0
    square: bool = False


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows ``at`` [B,n] of a packed tensor; ``first``: where they begin if each follows the one
    before it, so that nothing has to be copied."""

    at: Tensor
    first: int | None

    @staticmethod
    def of(starts: list[int], span: range, device: torch.device) -> Rows:
        """Those that lie ``span`` behind each of ``starts``."""
        offsets = torch.arange(span.start, span.stop, device=device)
        at = torch.tensor(starts, device=device)[:, None] + offsets
        side_by_side = all(b - a == len(span) for a, b in itertools.pairwise(starts))
        return Rows(at, starts[0] + span.start if side_by_side else None)

    def take(self, packed: Tensor) -> Tensor:
        """The rows of ``packed`` [N,...], as [B,n,...]: a view where they lie as vectors are read,
        contiguous and from a multiple of 16 bytes on, else a copy."""
        if self.first is not None:
            rows = packed[self.first : self.first + self.at.numel()]
            if rows.is_contiguous() and rows.data_ptr() % VECTOR_BYTES == 0:
                return rows.unflatten(0, self.at.shape)
        return packed[self.at]

    def are_all_of(self, packed: Tensor) -> bool:
        """Whether they are all rows, in order."""
        return self.first == 0 and self.at.numel() == len(packed)

    def put(self, packed: Tensor, values: Tensor) -> None:
        """Write such rows."""
        if self.first is None:
            packed[self.at] = values
        else:
            packed[self.first : self.first + self.at.numel()] = values.flatten(0, 1)


@dataclass(frozen=True, eq=False)
class Group:
    """Sequences of equal lengths: the rows of q of each, their numbers [B], the mask that they
    share."""

    rows: Rows
    sequences: Tensor
    mask: Mask


@dataclass
class Known:
    """What was made of a tensor while it held these numbers."""

    version: int
    numbers: list[int]
    made: dict[Hashable, Any]


class Memo:
    """Remembers what was made of a tensor of whole numbers until it holds others, or is gone.

    A write to its memory alone changes nothing: a recorded CUDA graph reads what was made, at its
    address."""

    def __init__(self) -> None:
        self._known: Any = WeakTensorKeyDictionary()

    def __call__(self, tensor: Tensor, what: Hashable, make: Callable[[], Any]) -> Any:
        known = self._known.get(tensor)
        if known is None or known.version != tensor._version:
            numbers = tensor.tolist()
            same = known is not None and known.numbers == numbers
            known = Known(tensor._version, numbers, known.made if same else {})
            self._known[tensor] = known
        if what not in known.made:
            known.made[what] = make()
        return known.made[what]


MEMO = Memo()


def plan(q_indptr: Tensor, kv_lens: Tensor, how: Attention, dtype: torch.dtype) -> list[Group]:
    """The groups of a batch."""
    lengths = MEMO(kv_lens, "list", kv_lens.tolist)
    what = (tuple(lengths), how, dtype)
    return MEMO(q_indptr, what, lambda: _groups(q_indptr, lengths, how, dtype))


def _groups(
    q_indptr: Tensor, kv_lens: list[int], how: Attention, dtype: torch.dtype
) -> list[Group]:
    ends = q_indptr.tolist()
    alike: dict[tuple[int, int], list[int]] = {}
    for b, kv_len in enumerate(kv_lens):
        alike.setdefault((ends[b + 1] - ends[b], kv_len), []).append(b)
    return [
        _group(q_len, kv_len, batch, ends, how, dtype, q_indptr.device)
        for (q_len, kv_len), batch in alike.items()
        if q_len and kv_len
    ]


def _group(
    q_len: int,
    kv_len: int,
    batch: list[int],
    ends: list[int],
    how: Attention,
    dtype: torch.dtype,
    device: torch.device,
) -> Group:
    rows = Rows.of([ends[b] for b in batch], range(q_len), device)
    mask = masked(q_len, kv_len, how, dtype, device)
    return Group(rows, torch.tensor(batch, device=device), mask)


@functools.lru_cache(maxsize=8)
def masked(
    q_len: int, kv_len: int, how: Attention, dtype: torch.dtype, device: torch.device
) -> Mask:
    """The mask of a sequence of these lengths."""
    keep = keep_mask(q_len, kv_len, how, device)
    if keep is None:
        return Mask(range(kv_len))
    seen = keep.any(0).nonzero()[:, 0].tolist() or [0]
    # What no query keeps may hold anything, and 0 times NaN is NaN.
    keys = range(seen[0], seen[-1] + 1)
    keep = keep[:, keys.start : keys.stop]
    some = None if bool(keep.any(1).all()) else keep.any(1)
    if bool(keep.all()):
        return Mask(keys)
    square = how.causal and q_len == kv_len and not 0 <= how.window[0] < kv_len - 1
    bias = torch.zeros(keep.shape, dtype=dtype, device=device).masked_fill(~keep, -math.inf)
    return Mask(keys, keep, bias, some, kv_len - q_len - keys.start, square)


def keep_mask(q_len: int, kv_len: int, how: Attention, device: torch.device) -> Tensor | None:
    """Which keys each query keeps [Lq,N], or None for all of them."""
    left, right = how.window
    right = 0 if how.causal else right
    if (right < 0 or q_len == 1) and (left < 0 or left >= kv_len - 1):
        return None
    position = torch.arange(kv_len - q_len, kv_len, device=device)[:, None]
    distance = torch.arange(kv_len, device=device) - position
    keep = torch.ones(q_len, kv_len, dtype=torch.bool, device=device)
    if right >= 0:
        keep &= distance <= right
    if left >= 0:
        keep &= distance >= -left
    return keep


Dense = Callable[[Tensor, Tensor, Tensor, Group, Attention], tuple[Tensor, Tensor]]
"""q [B,Lq,Hq,D], k [B,N,Hk,D] and v [B,N,Hk,Dv] of a group -> out [B,Lq,Hq,Dv], lse [B,Lq,Hq]."""


def run(
    dense: Dense,
    gather: Callable[[Group], tuple[Tensor, Tensor]],
    q: Tensor,
    width: int,
    groups: list[Group],
    how: Attention,
) -> tuple[Tensor, Tensor]:
    """Each group through a dense backend; rows that keep no key are 0, with a lse of -inf."""

    def answer(group: Group) -> tuple[Tensor, Tensor]:
        out, lse = dense(group.rows.take(q), *gather(group), group, how)
        if group.mask.some is not None:
            out = torch.where(group.mask.some[:, None, None], out, 0)
            lse = torch.where(group.mask.some[:, None], lse, -math.inf)
        return out, lse.float()

    if len(groups) == 1 and groups[0].rows.are_all_of(q):
        out, lse = answer(groups[0])
        return out.flatten(0, 1).contiguous(), lse.flatten(0, 1).contiguous()
    out = q.new_zeros(*q.shape[:2], width)
    lse = torch.full(q.shape[:2], -math.inf, dtype=torch.float32, device=q.device)
    for group in groups:
        for whole, part in zip((out, lse), answer(group), strict=True):
            group.rows.put(whole, part)
    return out, lse


def paged(
    dense: Dense,
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_table: Tensor,
    kv_lens: Tensor,
    q_indptr: Tensor,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """``paged_attention`` by a dense backend: pages are gathered first."""
    how = attention(q.shape[-1], **options)
    size = k_cache.shape[1]

    def gather(group: Group) -> tuple[Tensor, Tensor]:
        first, last = group.mask.keys.start // size, -(-group.mask.keys.stop // size)
        pages = block_table[group.sequences, first:last].long()
        inside = slice(group.mask.keys.start - first * size, group.mask.keys.stop - first * size)
        return tuple(c[pages].flatten(1, 2)[:, inside] for c in (k_cache, v_cache))

    groups = plan(q_indptr, kv_lens, how, q.dtype)
    return run(dense, gather, q, v_cache.shape[-1], groups, how)


def varlen(
    dense: Dense,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_indptr: Tensor,
    kv_indptr: Tensor,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """``varlen_attention`` by a dense backend: the keys of a group are stacked first."""
    how = attention(q.shape[-1], **options)

    def gather(group: Group) -> tuple[Tensor, Tensor]:
        rows = _rows_of_keys(group, kv_indptr)
        return rows.take(k), rows.take(v)

    groups = plan(q_indptr, _lengths(kv_indptr), how, q.dtype)
    return run(dense, gather, q, v.shape[-1], groups, how)


def _lengths(kv_indptr: Tensor) -> Tensor:
    return MEMO(kv_indptr, "lengths", kv_indptr.diff)


def _rows_of_keys(group: Group, kv_indptr: Tensor) -> Rows:
    """Where the keys of a group's sequences stand among all keys [B,N]."""

    def make() -> Rows:
        ends = kv_indptr.tolist()
        starts = [ends[b] for b in group.sequences.tolist()]
        return Rows.of(starts, group.mask.keys, kv_indptr.device)

    return MEMO(kv_indptr, group.sequences, make)  # as a key it also stays alive


def attention(
    dim: int,
    *,
    causal: bool,
    scale: float | None,
    window: tuple[int, int],
    softcap: float,
    alibi: None = None,
) -> Attention:
    """The options of the ops, as a record."""
    scale = 1 / math.sqrt(dim) if scale is None else scale
    return Attention(causal, scale, tuple(window), softcap)


def lse_of(q: Tensor, k: Tensor, group: Group, how: Attention) -> Tensor:
    """The log-sum-exp [B,Lq,Hq] for backends that return none, by a product of its own."""
    heads = q.shape[2] // k.shape[2]
    grouped = q.float().unflatten(2, (-1, heads)).permute(0, 2, 3, 1, 4)  # [B,Hk,G,Lq,D]
    keys = k.float().permute(0, 2, 3, 1)[:, :, None]  # [B,Hk,1,D,N]
    score = grouped @ keys * how.scale
    if group.mask.bias is not None:
        score = score + group.mask.bias.float()
    return score.logsumexp(-1).permute(0, 3, 1, 2).flatten(2)


WRAPPED = {"paged_attention": paged, "varlen_attention": varlen}


@dataclass(frozen=True)
class Planned:
    """A dense backend as a kernel of an op. ``plan`` may be called before: all that it is given is
    what a host knows of a batch."""

    op: str
    dense: Dense
    imports: tuple[str, ...] = ()
    """modules that the first call imports"""

    def __call__(self, **given: Any) -> tuple[Tensor, Tensor]:
        return WRAPPED[self.op](self.dense, **given)

    def plan(
        self,
        whole: Mapping[str, Tensor],
        axes: Mapping[str, int],
        dtype: torch.dtype,
        options: Mapping[str, Any],
    ) -> None:
        """Make the plan for the tensors of whole numbers of a call."""
        how = attention(axes["D"], **options)
        if self.op == "paged_attention":
            plan(whole["q_indptr"], whole["kv_lens"], how, dtype)
            return
        kv_indptr = whole["kv_indptr"]
        for group in plan(whole["q_indptr"], _lengths(kv_indptr), how, dtype):
            _rows_of_keys(group, kv_indptr)
