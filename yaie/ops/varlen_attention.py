"""varlen_attention: attention of packed queries over packed keys and values.

The keys of a sequence stand side by side, as after a projection or a gather; q_len and kv_len of a
sequence are independent. Mask, score, softmax and log-sum-exp: see _attention.py beside this page.

============  ===================  ==============================================================
q             float[T,Hq,D]        packed over the batch; strides of T and Hq are free
k             float[N,Hk,D]        packed likewise; Hq = G*Hk, query head h reads KV head h // G
v             float[N,Hk,Dv]       packed likewise; strides of N and Hk of both are free
q_indptr      int32[B+1]           queries of sequence b are rows q_indptr[b] to q_indptr[b+1]
kv_indptr     int32[B+1]           its keys are rows kv_indptr[b] to kv_indptr[b+1]; none is legal
causal        True                 a query sees no key after its own position
scale         None                 multiplies q.k; None is 1/sqrt(D)
window        (-1, -1)             keys to the left and right that a query sees; -1: no limit
softcap       0.0                  0: off
alibi         None                 Unsupported unless None
-> out        float[T,Hq,Dv]       0 where a query keeps no key
-> lse        float32[T,Hq]        natural logarithm; -inf where a query keeps no key
============  ===================  ==============================================================

Keys that no query of their sequence keeps never change a bit of the result. B = 0, T = 0, N = 0,
q_len = 0, kv_len = 0 and q_len > kv_len are legal.
Errors: shapes, strides, devices, Hq % Hk, scale not finite, softcap < 0, window < -1: ValueError;
dtypes: TypeError; alibi: Unsupported. In checked mode an indptr that decreases or does not run from
0 to T or N: ValueError.
Source: FlashAttention flash_attn_varlen_func (mask; its lse is [H,T], and +inf where FlashAttention
2 keeps no key). torch's scaled_dot_product_attention aligns is_causal to the top left and agrees
only where q_len = kv_len: decision 0020.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from yaie.fill import FAMILIES, FAR, LAYOUTS, Fill, Sequences
from yaie.op import Call, Cost, Op, at_least, case, one_of
from yaie.ops import _attention as attention
from yaie.ops import _paged as paged
from yaie.refusal import bad_indptr
from yaie.signature import FLOAT_NAMES, parse


@case
class Case:
    """A batch of sequences. ``layout`` is that of q, ``kv_layout`` that of k and, unless
    ``v_layout`` names another, of v (_attention.KV_LAYOUTS)."""

    q_lens: tuple[int, ...] = (1,)
    kv_lens: tuple[int, ...] = (5,)
    Hk: int = at_least(1, default=1)
    G: int = at_least(1, default=1)
    D: int = at_least(1, default=8)
    Dv: int = at_least(1, default=8)
    dtype: str = one_of(FLOAT_NAMES, default="float16")
    causal: bool = True
    window: attention.Window = (-1, -1)
    softcap: float = 0.0
    scale: float | None = None
    layout: str = one_of((*LAYOUTS, FAR), default="dense")
    kv_layout: str = one_of(attention.KV_LAYOUTS, default="dense")
    v_layout: str = one_of((attention.AS_K, *attention.KV_LAYOUTS), default=attention.AS_K)
    family: str = one_of(FAMILIES, default="normal")
    seed: int = at_least(0, default=0)

    def check(self) -> None:
        """One query length and one key length a sequence."""
        if len(self.q_lens) != len(self.kv_lens) or min((*self.q_lens, *self.kv_lens, 0)) < 0:
            raise ValueError(f"q_lens is {self.q_lens} and kv_lens is {self.kv_lens}")

    @property
    def kept(self) -> list[range]:
        """The keys of each sequence that some query keeps."""
        return attention.kept_keys(self.q_lens, self.kv_lens, self.window)

    @property
    def layouts(self) -> tuple[str, str]:
        """Those of k and of v."""
        own = self.v_layout != attention.AS_K
        return self.kv_layout, self.v_layout if own else self.kv_layout


def inputs(case: Case, fill: Fill) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keys and values that no query keeps are poison."""
    dtype = getattr(torch, case.dtype)
    edges = (15, 16, 31, 32, 63, 64, 127, 128)
    heads, dims = (case.Hk * case.G, case.Hk), (case.D, case.Dv)
    batch = Sequences(fill, case.q_lens, case.kv_lens, heads, dims, edges, dtype)
    FAMILIES[case.family](batch)
    starts = [0, *batch.kv_ends]
    rows = [start + j for start, keys in zip(starts, case.kept, strict=False) for j in keys]
    k_layout, v_layout = case.layouts
    args = {
        "q": fill.tensor(batch.q, dtype, case.layout),
        "k": attention.packed(fill, batch.k, rows, dtype, k_layout),
        "v": attention.packed(fill, batch.v, rows, dtype, v_layout),
        "q_indptr": fill.ints([0, *batch.q_ends]),
        "kv_indptr": fill.ints(starts),
    }
    return args, {name: getattr(case, name) for name in attention.OPTIONS}


def reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_indptr: Tensor,
    kv_indptr: Tensor,
    causal: bool,
    scale: float | None,
    window: attention.Window,
    softcap: float,
    alibi: None = None,
) -> attention.Oracle:
    """One sequence after the other: attention.attend."""
    scale = 1 / math.sqrt(q.shape[2]) if scale is None else scale
    q_ends, kv_ends, parts = q_indptr.tolist(), kv_indptr.tolist(), []
    for b in range(len(q_ends) - 1):
        if q_ends[b] == q_ends[b + 1]:
            continue  # no queries, no rows
        rows = q[q_ends[b] : q_ends[b + 1]]
        keys, values = (x[kv_ends[b] : kv_ends[b + 1]] for x in (k, v))
        keep = attention.keep_mask(len(rows), len(keys), causal, window, q.device)
        parts.append(attention.attend(rows, keys, values, keep, scale, softcap))
    return attention.Oracle.concat(parts) if parts else attention.Oracle.empty(q, v)


def cost(case: Case) -> Cost:
    """q, and the keys and values that some query keeps, are read once, out and lse written once;
    the flops are those of the pairs that the mask keeps."""
    e, T = getattr(torch, case.dtype).itemsize, sum(case.q_lens)
    Hq, width = case.Hk * case.G, case.D + case.Dv
    keys = sum(map(len, case.kept))
    pairs = attention.kept_pairs(case.q_lens, case.kv_lens, case.causal, case.window)
    moved = (T * Hq + keys * case.Hk) * width * e + 4 * T * Hq + 8 * (len(case.q_lens) + 1)
    return Cost(bytes=moved, flops=2 * width * Hq * pairs)


_LLAMA3_8B = Case(Hk=8, G=4, D=128, Dv=128, dtype="bfloat16")
_PROMPT = replace(_LLAMA3_8B, q_lens=(2048,), kv_lens=(2048,))

WORKLOADS = {
    "llama3-8b prompt of 2048": _PROMPT,
    "llama3-8b prompts of 512, batch 8": replace(_PROMPT, q_lens=(512,) * 8, kv_lens=(512,) * 8),
    "llama3-8b chunk of 512 after 1536": replace(_PROMPT, q_lens=(512,)),
    "mistral-7b prompt of 6144": replace(
        _PROMPT, q_lens=(6144,), kv_lens=(6144,), window=(4095, 0)
    ),
    "gemma2-9b prompt of 2048": replace(_PROMPT, G=2, D=256, Dv=256, softcap=50.0, scale=1 / 16),
    "vit-l encoder, batch 16": replace(
        _PROMPT, q_lens=(577,) * 16, kv_lens=(577,) * 16, Hk=16, G=1, D=64, Dv=64, causal=False
    ),
}

EDGES: dict[str, Callable[[Case], bool]] = {
    **attention.MASK_EDGES,
    "window that drops keys": lambda c: any(keys.start > 0 < len(keys) for keys in c.kept),
    "Dv differs from D": lambda c: c.Dv != c.D and sum(c.kv_lens) > 0,
    "keys with gaps": lambda c: c.kv_layout == "padded" and sum(c.kv_lens) > 1,
    "keys stored head by head": lambda c: c.kv_layout == "transposed" and sum(c.kv_lens) > 1,
    "keys that 32 bits cannot address": lambda c: (
        c.kv_layout == FAR and len(c.kv_lens) > 1 and c.kv_lens[-1] == 1 and c.q_lens[-1] > 0
    ),
    "keys side by side that 32 bits cannot address": lambda c: (
        c.kv_layout == FAR
        and sum(c.kv_lens) == 2
        and any(q and n == 2 for q, n in zip(c.q_lens, c.kv_lens, strict=True))
    ),
    "keys sixteen apart that 32 bits cannot address": lambda c: (
        c.kv_layout == FAR and c.kv_lens == (20,) and c.q_lens[0] > 0
    ),
    "keys of a later tile that 32 bits cannot address": lambda c: (
        c.kv_layout == FAR and any(q and n > 128 for q, n in zip(c.q_lens, c.kv_lens, strict=True))
    ),
    "keys off alignment": lambda c: c.kv_layout == "shifted" and sum(c.kv_lens) > 0,
    "k and v laid out unlike": lambda c: (
        set(c.layouts) == {"transposed", "fused"}
        and c.D == c.Dv
        and c.Hk > 1
        and sum(c.q_lens) > 0
        and sum(c.kv_lens) > 1
    ),
    "v alone off alignment": lambda c: (
        c.layouts[0] != "shifted" == c.layouts[1] and sum(c.q_lens) > 0 and sum(c.kv_lens) > 1
    ),
}


def contents(call: Call) -> None:
    """Checked mode: the batch is described consistently."""
    paged.check_indptr(call, "q_indptr", "T")
    paged.check_indptr(call, "kv_indptr", "N")


ERRORS = (
    *attention.OPTION_ERRORS,
    *bad_indptr("q_indptr", "T"),
    *bad_indptr("kv_indptr", "N"),
)

varlen_attention = Op(
    name="varlen_attention",
    signature=parse(
        "q: float[T,Hq,D], k: float[N,Hk,D], v: float[N,Hk,Dv], q_indptr: int32[B+1], "
        f"kv_indptr: int32[B+1], *, {attention.SIGNATURE} "
        "-> out: float[T,Hq,Dv], lse: float32[T,Hq]"
    ),
    Case=Case,
    inputs=inputs,
    reference=reference,
    cost=cost,
    workloads=WORKLOADS,
    edges=EDGES,
    errors=ERRORS,
    good=Case(q_lens=(2, 1), kv_lens=(5, 3), Hk=2, G=2),
    doc=__doc__ or "",
    comparison=attention.judges,
    door=attention.check_options,
    contents=contents,
)
