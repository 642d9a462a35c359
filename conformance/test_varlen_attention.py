"""varlen_attention against its page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import accumulate
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import flex_attention as flex
from torch.nn.functional import scaled_dot_product_attention

from conformance import laws
from conformance.strategies import (
    EVEN_HEAD_DIMS,
    FLOATS,
    HEAD_DIMS,
    NARROW,
    SEEDS,
    among,
    fits_tensor_cores,
    integers,
    mask_options,
    sequence,
    wide,
)
from conformance.test_merge_states import merged
from yaie import ops
from yaie.fill import FAMILIES, LAYOUTS
from yaie.ops._attention import ALIGNED_KV_LAYOUTS, AS_K, DRAWN_KV_LAYOUTS

OP = ops.varlen_attention


@st.composite
def cases(draw: st.DrawFn, even: bool = False) -> Any:
    """Of the whole domain; ``even``: three in four of what kernels on tensor cores take."""
    even = even and draw(among(True, True, True, False))
    fewest = draw(among(1, 1, 1, 2, 2, 3, 0))
    D = draw(EVEN_HEAD_DIMS if even else HEAD_DIMS)
    sizes = {
        "Hk": draw(integers(1, 3)),
        "G": draw(among(1, 2, 3, 4, 5, 8, 12, 16)),
        "D": D,
        "Dv": D if even else draw(st.one_of(st.just(D), st.just(D), st.just(D), HEAD_DIMS)),
        "sequences": draw(st.lists(sequence(16), min_size=fewest, max_size=4)),
    }
    if draw(among(False, False, True)):
        sizes |= draw(wide())
    sequences = sizes.pop("sequences")
    layouts = ALIGNED_KV_LAYOUTS if even else DRAWN_KV_LAYOUTS
    return ops.varlen_attention.Case(
        q_lens=tuple(q for q, _ in sequences),
        kv_lens=tuple(kv for _, kv in sequences),
        **{name: size for name, size in sizes.items() if name not in ("S", "spare")},
        dtype=draw(NARROW if even else FLOATS),
        layout=draw(among(*LAYOUTS)),
        kv_layout=draw(among(*layouts)),
        v_layout=draw(among(*[AS_K] * len(layouts), *layouts)),  # one in three is unlike k's
        family=draw(among(*sorted(FAMILIES))),
        seed=draw(SEEDS),
        **draw(mask_options()),
    )


@given(data=st.data())
def test_equivalence(conforms, kernel, data):
    conforms(data.draw(cases(even=fits_tensor_cores(kernel))))


# Laws. Each takes the keys and values of a batch as they are packed; `attend` lays them out for the
# law's op, so that the laws hold for paged_attention as well (its module imports them).


@st.composite
def batches(draw: st.DrawFn) -> tuple[Any, dict[str, Any]]:
    """A small batch without holes, and options."""
    lens = draw(
        st.lists(
            st.one_of(
                st.tuples(st.integers(1, 5), st.integers(0, 40)),
                among((0, 3), (0, 0), (1, 1), (7, 7), (3, 65)),
            ),
            min_size=1,
            max_size=3,
        )
    )
    D = draw(among(8, 3, 16, 64))
    case = ops.varlen_attention.Case(
        q_lens=tuple(q for q, _ in lens),
        kv_lens=tuple(kv for _, kv in lens),
        Hk=draw(integers(1, 2)),
        G=draw(among(1, 2, 3)),
        D=D,
        Dv=draw(among(D, D, 5)),
        dtype=draw(FLOATS),
        family=draw(among("normal", "spiky", "ladder", "biased", "grid", "flat")),
        seed=draw(SEEDS),
    )
    options = {
        "causal": draw(st.booleans()),
        "window": draw(among((-1, -1), (-1, -1), (3, -1), (0, 0), (5, 2), (-1, 1))),
        "softcap": draw(among(0.0, 0.0, 2.0)),
        "scale": draw(among(*[None] * 4, 0.7, 0.7, -0.2, -0.2, 1.5)),
    }
    return case, options


Packed = tuple[Tensor, Tensor, Tensor]


def packed(law: laws.Law, case: Any) -> Packed:
    """q, k and v of a case, 0 where they are poison."""
    args, _ = of_varlen(law).inputs(case)
    return tuple(args[name].contiguous().nan_to_num(nan=0.0) for name in "qkv")


@cache
def _law(op: str, kernel: str) -> laws.Law:
    return laws.Law(ops.OPS[op], ops.OPS[op].kernels[kernel])


def of_varlen(law: laws.Law) -> laws.Law:
    return _law("varlen_attention", law.kernel.name)


def indptr(lens: Sequence[int]) -> Tensor:
    return torch.tensor([0, *accumulate(lens)], dtype=torch.int32)


def attend(
    law: laws.Law,
    parts: Packed,
    q_lens: Sequence[int],
    kv_lens: Sequence[int],
    options: dict[str, Any],
    page_size: int = 4,
) -> laws.Answer:
    """The law's op on packed keys and values."""
    q, k, v = parts
    if law.op.name == "varlen_attention":
        args = {"q": q, "k": k, "v": v, "kv_indptr": indptr(kv_lens)}
        return law.run({**args, "q_indptr": indptr(q_lens)}, options)
    pages = [-(-n // page_size) for n in kv_lens]
    table = torch.full((len(pages), max(pages, default=0) + 1), -7, dtype=torch.int32)
    slots, first = [], sum(pages)
    for b, (n, kv_len) in enumerate(zip(pages, kv_lens, strict=True)):
        first -= n  # the pages of the last sequence come first
        table[b, :n] = torch.arange(first, first + n)
        slots += range(first * page_size, first * page_size + kv_len)
    caches = []
    for x in (k, v):
        cache = torch.full((sum(pages) * page_size, *x.shape[1:]), torch.nan, dtype=x.dtype)
        cache[torch.tensor(slots, dtype=torch.int64)] = x
        caches.append(cache.view(sum(pages), page_size, *x.shape[1:]))
    lens = torch.tensor(kv_lens, dtype=torch.int32)
    names = ("q", "k_cache", "v_cache", "block_table", "kv_lens", "q_indptr")
    return law.run(
        dict(zip(names, (q, *caches, table, lens, indptr(q_lens)), strict=True)), options
    )


def agree(law: laws.Law, one: laws.Answer, other: laws.Answer) -> None:
    for name in ("out", "lse"):
        law.within(one[name], other[name], one.allowed[name] + other.allowed[name], name)


def joined(answers: Sequence[laws.Answer]) -> laws.Answer:
    """The answers of parts of the queries, one after the other."""
    return laws.Answer(
        *(
            {name: torch.cat([getattr(a, of)[name] for a in answers]) for name in ("out", "lse")}
            for of in ("results", "allowed")
        )
    )


def of_sequences(parts: Packed, case: Any) -> list[Packed]:
    q, k, v = parts
    return list(
        zip(q.split(case.q_lens), k.split(case.kv_lens), v.split(case.kv_lens), strict=True)
    )


@pytest.mark.law(laws.BUDGETS)
@laws.fewer()
@given(batch=batches())
def test_a_sequence_alone_is_what_it_is_in_the_batch(law, batch):
    case, options = batch
    parts = packed(law, case)
    whole = attend(law, parts, case.q_lens, case.kv_lens, options)
    alone = [
        attend(law, own, [len(own[0])], [len(own[1])], options) for own in of_sequences(parts, case)
    ]
    agree(law, whole, joined(alone))


@pytest.mark.law(laws.BUDGETS)
@laws.fewer()
@given(batch=batches())
def test_grouped_heads_are_repeated_heads(law, batch):
    case, options = batch
    q, k, v = packed(law, case)
    repeated = (q, k.repeat_interleave(case.G, 1), v.repeat_interleave(case.G, 1))
    one, other = (
        attend(law, parts, case.q_lens, case.kv_lens, options) for parts in ((q, k, v), repeated)
    )
    agree(law, one, other)


@pytest.mark.law(laws.BUDGETS)
@laws.fewer()
@given(batch=batches(), cut=st.integers(0, 5))
def test_chunks_of_queries_are_the_whole(law, batch, cut):
    """A chunk sees the keys that were there when it was computed; without a causal mask, or with
    a window to the right, it would see others."""
    case, options = batch
    options = {**options, "causal": True}
    q, k, v = packed(law, case)
    q_len, kv_len = case.q_lens[0], case.kv_lens[0]
    q, k, v = q[:q_len], k[:kv_len], v[:kv_len]
    cut = min(cut, q_len)
    seen = max(0, kv_len - q_len + cut)
    cut = q_len - (kv_len - seen)  # where q_len > kv_len, the first queries stand before any key
    whole = attend(law, (q, k, v), [q_len], [kv_len], options)
    chunks = [
        attend(law, (q[:cut], k[:seen], v[:seen]), [cut], [seen], options),
        attend(law, (q[cut:], k, v), [q_len - cut], [kv_len], options),
    ]
    agree(law, whole, joined(chunks))


@pytest.mark.law(laws.BUDGETS)
@laws.fewer()
@given(batch=batches())
def test_a_constant_added_to_the_values_is_added_to_out(law, batch):
    case, options = batch
    q, k, v = packed(law, case)
    v = (v.float() * 8).round().clamp(-32, 32) / 8  # so that v + 1 is exact in every dtype
    both = [
        attend(law, (q, k, x.to(q.dtype)), case.q_lens, case.kv_lens, options) for x in (v, v + 1)
    ]
    kept = (both[0]["lse"] != -torch.inf).double()[..., None]
    allowed = both[0].allowed["out"] + both[1].allowed["out"]
    law.within(both[1]["out"], both[0]["out"].double() + kept, allowed, "out")
    law.exact(both[1]["lse"], both[0]["lse"], "lse")


@pytest.mark.law(laws.BUDGETS)
@laws.fewer()
@given(batch=batches())
def test_the_order_of_keys_means_nothing_without_a_mask(law, batch):
    case, options = batch
    options = {**options, "causal": False, "window": (-1, -1)}
    parts = packed(law, case)
    rng = torch.Generator().manual_seed(case.seed)
    moved = []
    for q, k, v in of_sequences(parts, case):
        order = torch.randperm(len(k), generator=rng)
        moved.append((q, k[order], v[order]))
    shuffled = tuple(torch.cat(tensors) for tensors in zip(*moved, strict=True))
    one, other = (attend(law, p, case.q_lens, case.kv_lens, options) for p in (parts, shuffled))
    agree(law, one, other)


@pytest.mark.law(laws.BUDGETS)
@laws.fewer()
@given(batch=batches(), share=st.integers(0, 8))
def test_a_prefix_and_a_suffix_merge_to_the_whole(law, batch, share):
    """Every query sees the keys before the chunk whole; the mask is the suffix's affair."""
    case, options = batch
    options = {**options, "causal": True, "window": (-1, -1)}
    q, k, v = packed(law, case)
    q_len, kv_len = case.q_lens[0], case.kv_lens[0]
    q, k, v = q[:q_len], k[:kv_len], v[:kv_len]
    cut = max(0, kv_len - q_len) * share // 8
    whole = attend(law, (q, k, v), [q_len], [kv_len], options)
    prefix = attend(law, (q, k[:cut], v[:cut]), [q_len], [cut], {**options, "causal": False})
    suffix = attend(law, (q, k[cut:], v[cut:]), [q_len], [kv_len - cut], options)
    states = [
        (part["out"], part["lse"], part.allowed["out"], part.allowed["lse"])
        for part in (prefix, suffix)
    ]
    both = merged(_law("merge_states", law.kernel.name), *states)
    law.within(whole["out"], both[0], whole.allowed["out"] + both[2], "out")
    law.within(whole["lse"], both[1], whole.allowed["lse"] + both[3], "lse")


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(batch=batches(), dtype=st.sampled_from(["float16", "bfloat16"]))
def test_one_key_gives_its_value(law, batch, dtype):
    """In 16 bits, where p = 1 up to what the last rounding forgives."""
    case, options = batch
    ones = (1,) * len(case.q_lens)
    case = replace(case, q_lens=ones, kv_lens=ones, dtype=dtype)
    q, k, v = packed(law, case)
    answer = attend(law, (q, k, v), ones, ones, {**options, "window": (-1, -1)})
    # A sum that begins at 0 has lost the sign of -0: adding 0 takes it from both sides.
    law.exact(answer["out"] + 0.0, v.repeat_interleave(case.G, 1) + 0.0, "out")


# Peers -------------------------------------------------------------------------------------------


def mask_of(q_len: int, kv_len: int, causal: bool, window: tuple[int, int]) -> Tensor:
    """The page's mask by the distance of a key from the diagonal that ends bottom-right."""
    everything = torch.ones(q_len, kv_len, dtype=torch.bool)
    keep, ends = everything, kv_len - q_len
    if causal:
        keep = keep & everything.tril(ends)
    if window[1] >= 0:
        keep = keep & everything.tril(ends + window[1])
    return keep & everything.triu(ends - window[0]) if window[0] >= 0 else keep


def heads_first(parts: Packed, group: int) -> Packed:
    """[1,Hq,L,D] of each."""
    q, k, v = parts
    k, v = (x.repeat_interleave(group, 1) for x in (k, v))
    return tuple(x.transpose(0, 1)[None] for x in (q, k, v))


@pytest.mark.peer("torch scaled_dot_product_attention with an explicit mask")
@laws.fewer()
@given(batch=batches(), dtype=st.sampled_from(["float64", "float32"]))
def test_sdpa_of_torch(law, batch, dtype):
    case, options = batch
    case, options = replace(case, dtype="float32"), {**options, "softcap": 0.0}
    parts = packed(law, case)
    answer = attend(law, parts, case.q_lens, case.kv_lens, options)
    theirs = []
    for own in of_sequences(parts, case):
        keep = mask_of(len(own[0]), len(own[1]), options["causal"], options["window"])
        q, k, v = (x.to(getattr(torch, dtype)) for x in heads_first(own, case.G))
        out = scaled_dot_product_attention(q, k, v, attn_mask=keep, scale=options["scale"])
        seen = keep.any(1)[None, None, :, None]  # a row without keys is NaN or 0 there
        theirs.append(torch.where(seen, out, 0.0)[0].transpose(0, 1))
    sides = 1 if dtype == "float64" else 2
    law.within(answer["out"], torch.cat(theirs), sides * answer.allowed["out"], "out")


@pytest.mark.peer("torch scaled_dot_product_attention, is_causal (top left): differs by design")
@laws.fewer()
@given(batch=batches())
def test_is_causal_of_torch_is_aligned_to_the_top_left(law, batch):
    """It is our causal mask where q_len = kv_len, and elsewhere our mask of the first keys.

    On positive scales alone: torch masks with -inf before it scales, and a negative scale makes
    +inf of that, then NaN.
    """
    case, options = batch
    case = replace(case, dtype="float32")
    scale = options["scale"] and abs(options["scale"])
    options = {"causal": True, "window": (-1, -1), "softcap": 0.0, "scale": scale}
    for own in of_sequences(packed(law, case), case):
        length = min(len(own[0]), len(own[1]))
        if not length:
            continue
        theirs = scaled_dot_product_attention(
            *heads_first(own, case.G), is_causal=True, scale=scale
        )[0].transpose(0, 1)[:length]
        q, k, v = own
        top_left = attend(law, (q[:length], k[:length], v[:length]), [length], [length], options)
        law.within(top_left["out"], theirs, 2 * top_left.allowed["out"], "out")
    q, k, v = torch.zeros(1, 1, 8), torch.zeros(2, 1, 8), torch.arange(2.0).view(2, 1, 1)
    ours = attend(law, (q, k, v), [1], [2], options)["out"]
    theirs = scaled_dot_product_attention(*heads_first((q, k, v), 1), is_causal=True)
    assert (0.5, 0.0) == (float(ours), float(theirs))


@pytest.mark.peer("torch flex_attention with mask_mod and score_mod")
@settings(laws.fewer(), max_examples=20)
@given(batch=batches())
def test_flex_attention_of_torch(law, monkeypatch, batch):
    # As it is, and not traced anew for each mask: a second a call, for the same numbers.
    monkeypatch.setattr(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True, raising=False)
    case, options = batch
    case = replace(case, dtype="float32")
    parts = packed(law, case)
    answer = attend(law, parts, case.q_lens, case.kv_lens, options)
    outs, lses = [], []
    for own in of_sequences(parts, case):
        if not (len(own[0]) and len(own[1])):
            outs.append(torch.zeros(len(own[0]), case.Hk * case.G, case.Dv))
            lses.append(torch.full(outs[-1].shape[:2], -torch.inf))
            continue
        out, lse = by_flex(own, case.G, options)
        outs.append(torch.where(lse[..., None] == -torch.inf, 0.0, out))
        lses.append(lse)
    law.within(answer["out"], torch.cat(outs), 2 * answer.allowed["out"], "out")
    law.within(answer["lse"], torch.cat(lses), 2 * answer.allowed["lse"], "lse")


def by_flex(own: Packed, group: int, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """flex_attention of one sequence, as [Lq,Hq,Dv] and [Lq,Hq]."""
    q, k, v = (x.transpose(0, 1)[None] for x in own)
    q_len, kv_len, (left, right) = len(own[0]), len(own[1]), options["window"]

    def sees(b: Any, h: Any, i: Any, j: Any) -> Any:
        ahead = j - (i + kv_len - q_len)
        seen = ahead <= 0 if options["causal"] else ahead < 1 << 30
        seen = seen & (ahead >= -left) if left >= 0 else seen
        return seen & (ahead <= right) if right >= 0 else seen

    def capped(score: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
        cap = options["softcap"]
        return cap * torch.tanh(score / cap) if cap else score

    mask = flex.create_block_mask(sees, None, None, q_len, kv_len, device="cpu", BLOCK_SIZE=16)
    out, aux = flex.flex_attention(
        q,
        k,
        v,
        score_mod=capped,
        block_mask=mask,
        scale=options["scale"],
        enable_gqa=group > 1,
        return_aux=flex.AuxRequest(lse=True),
    )
    return out[0].transpose(0, 1), aux.lse[0].T
