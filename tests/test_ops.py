"""The references are judged too: by their laws, by PyTorch's attention in float64, by hand."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from benchmarks import row_gate
from conformance import edges, peers, strategies
from yaie import ops
from yaie.arena import ALIGNMENT, POISONS, Arena, Poison, contiguous_strides
from yaie.compare import Contract
from yaie.fill import Fill
from yaie.op import Cost
from yaie.ops._attention import keep_mask
from yaie.ops.append_kv import Case as Append
from yaie.ops.copy_blocks import Case as Copy
from yaie.ops.paged_attention import Case as Paged

OPS = pytest.mark.parametrize("op", ops.OPS.values(), ids=str)
drawn = settings(
    max_examples=1000,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Sequence[Sequence[int]],
    kv_lens: Sequence[int],
    q_lens: Sequence[int],
    causal: bool = True,
    scale: float | None = None,
    window: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The float64 answer of the reference, out and lse."""
    ints = {"dtype": torch.int32}
    oracle = ops.get("paged_attention").reference(
        q,
        k,
        v,
        torch.tensor(table, **ints).view(len(kv_lens), len(table[0]) if table else 1),
        torch.tensor(kv_lens, **ints),
        torch.tensor([0, *np.cumsum(q_lens)], **ints),
        causal,
        scale,
        window,
        softcap,
    )
    return oracle.out, oracle.lse


def paged(k: Tensor, size: int, order: Sequence[int], pages: int) -> Tensor:
    """A contiguous [N,Hk,D] as a cache whose pages ``order`` hold it; the rest is NaN."""
    cache = torch.full((pages, size, *k.shape[1:]), math.nan, dtype=k.dtype)
    for i, page in enumerate(order):
        part = k[i * size : (i + 1) * size]
        cache[page, : len(part)] = part
    return cache


def sequence(
    q_len: int, kv_len: int, heads: int = 4, kv_heads: int = 2, dim: int = 8, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    return (
        normal(q_len, heads, dim),
        normal(kv_len, kv_heads, dim),
        normal(kv_len, kv_heads, dim + 2),
    )


def one(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """Attention of one sequence in one page."""
    size = max(len(k), 1)
    caches = (paged(x, size, [0], 1) for x in (k, v))
    return attention(q, *caches, [[0]], [len(k)], [len(q)], **options)


def same(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> None:
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


OPTIONS = [
    {},
    {"causal": False},
    {"window": (2, -1)},
    {"window": (0, 0), "causal": False},
    {"window": (3, 1), "causal": False},
    {"window": (-1, 2), "causal": False},
    {"softcap": 1.5},
    {"scale": 0.3, "softcap": 4.0},
    {"scale": -0.5},
]
SHAPES = [(1, 1), (1, 9), (4, 4), (3, 10), (6, 4), (2, 1)]


# Attention by another hand -------------------------------------------------------------------


def mask_by_hand(
    q_len: int, kv_len: int, causal: bool = True, window: tuple[int, int] = (-1, -1), **_: object
) -> list[list[bool]]:
    """one key after the other."""
    rows = []
    for i in range(q_len):
        pos, row = kv_len - q_len + i, []
        for j in range(kv_len):
            seen = j <= pos if causal else True
            seen = seen and (window[0] < 0 or j >= pos - window[0])
            row.append(seen and (window[1] < 0 or j <= pos + window[1]))
        rows.append(row)
    return rows


def test_the_mask_of_the_docstring() -> None:
    cpu = torch.device("cpu")
    assert [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]] == keep_mask(2, 5, True, (-1, -1), cpu).int().tolist()
    assert [[0, 0, 1, 1, 0], [0, 0, 0, 1, 1]] == keep_mask(2, 5, True, (1, -1), cpu).int().tolist()


@pytest.mark.parametrize("shape", [*SHAPES, (0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_mask_is_what_the_page_says(shape: tuple[int, int], options: dict[str, Any]) -> None:
    causal, window = options.get("causal", True), options.get("window", (-1, -1))
    keep = keep_mask(*shape, causal, window, torch.device("cpu"))
    assert shape == tuple(keep.shape)
    assert mask_by_hand(*shape, **options) == keep.tolist()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", [o for o in OPTIONS if "softcap" not in o], ids=str)
def test_out_is_that_of_torch_under_an_explicit_mask(
    shape: tuple[int, int], options: dict[str, Any]
) -> None:
    q, k, v = sequence(*shape)
    keep = torch.tensor(mask_by_hand(*shape, **options))
    k_all, v_all = (x.repeat_interleave(2, 1).transpose(0, 1) for x in (k, v))
    expected = scaled_dot_product_attention(
        q.transpose(0, 1), k_all, v_all, attn_mask=keep, scale=options.get("scale")
    ).transpose(0, 1)
    expected = torch.where(keep.any(1)[:, None, None], expected, 0.0)
    torch.testing.assert_close(expected, one(q, k, v, **options)[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", [(1, 4), (3, 5), (4, 2)])
def test_out_and_lse_are_those_of_plain_loops(
    shape: tuple[int, int], options: dict[str, Any]
) -> None:
    q, k, v = sequence(*shape, dim=3)
    out, lse = one(q, k, v, **options)
    cap, scale = options.get("softcap", 0.0), options.get("scale", 1 / math.sqrt(3))
    for i, row in enumerate(mask_by_hand(*shape, **options)):
        for h in range(4):
            total, mean = 0.0, torch.zeros(5, dtype=torch.float64)
            for j in (j for j, seen in enumerate(row) if seen):
                s = scale * float(q[i, h] @ k[j, h // 2])
                s = cap * math.tanh(s / cap) if cap else s
                total += math.exp(s)
                mean += math.exp(s) * v[j, h // 2]
            expected = (mean / total, math.log(total)) if total else (mean, -math.inf)
            torch.testing.assert_close(expected[0], out[i, h], rtol=1e-12, atol=1e-12)
            assert pytest.approx(expected[1], rel=1e-12) == float(lse[i, h])


def test_two_keys_by_hand() -> None:
    """Scores 0 and log 3 weigh 1/4 and 3/4; lse is log 4."""
    q, k = torch.ones(1, 1, 1), torch.tensor([0.0, math.log(3)]).double().view(2, 1, 1)
    v = torch.tensor([[4.0, 0.0], [0.0, 8.0]]).view(2, 1, 2)
    out, lse = one(q, k, v)
    assert [1.0, 6.0] == pytest.approx(out.flatten().tolist())
    assert math.log(4) == pytest.approx(float(lse))


# Attention by its laws -----------------------------------------------------------------------


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_relabelling_pages_changes_nothing(options: dict[str, Any]) -> None:
    q, k, v = sequence(3, 10)
    plain = attention(
        q, paged(k, 4, [0, 1, 2], 3), paged(v, 4, [0, 1, 2], 3), [[0, 1, 2]], [10], [3], **options
    )
    order = [6, 0, 3]
    moved = attention(
        q, paged(k, 4, order, 8), paged(v, 4, order, 8), [order], [10], [3], **options
    )
    assert torch.equal(plain[0], moved[0])
    assert torch.equal(plain[1], moved[1])


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9, 10, 11, 16])
@pytest.mark.parametrize("options", OPTIONS[:5], ids=str)
def test_the_page_size_changes_nothing(size: int, options: dict[str, Any]) -> None:
    q, k, v = sequence(3, 10)
    order = list(range(-(-10 // size)))
    cut = attention(
        q,
        paged(k, size, order, len(order)),
        paged(v, size, order, len(order)),
        [order],
        [10],
        [3],
        **options,
    )
    same(one(q, k, v, **options), cut)


@pytest.mark.parametrize("options", OPTIONS[:6], ids=str)
def test_a_sequence_alone_is_what_it_is_in_a_batch(options: dict[str, Any]) -> None:
    shapes = [(2, 7), (0, 3), (1, 4), (3, 0), (1, 1)]
    parts = [sequence(*shape, seed=i) for i, shape in enumerate(shapes)]
    width, size = 2, 4
    rows, k, v, used = [], [], [], 0
    for _, keys, values in parts:
        pages = -(-len(keys) // size)
        rows.append([*range(used, used + pages), *[-1] * (width - pages)])
        k.append(paged(keys, size, range(pages), pages))
        v.append(paged(values, size, range(pages), pages))
        used += pages
    q_lens, kv_lens = zip(*shapes, strict=True)
    whole = attention(
        torch.cat([q for q, _, _ in parts]),
        torch.cat(k),
        torch.cat(v),
        rows,
        kv_lens,
        q_lens,
        **options,
    )
    alone = [one(*part, **options) for part in parts]
    same(whole, (torch.cat([out for out, _ in alone]), torch.cat([lse for _, lse in alone])))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_grouped_heads_are_repeated_heads(options: dict[str, Any]) -> None:
    q, k, v = sequence(3, 6, heads=6, kv_heads=2)
    repeated = one(q, k.repeat_interleave(3, 1), v.repeat_interleave(3, 1), **options)
    same(one(q, k, v, **options), repeated)


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
@pytest.mark.parametrize("options", [o for o in OPTIONS if o.get("causal", True)], ids=str)
def test_chunks_of_queries_are_the_whole(cut: int, options: dict[str, Any]) -> None:
    """A chunk sees the keys that were there when it was computed."""
    q, k, v = sequence(5, 9)
    seen = 9 - 5 + cut
    first = one(q[:cut], k[:seen], v[:seen], **options)
    second = one(q[cut:], k, v, **options)
    same(
        one(q, k, v, **options),
        tuple(torch.cat(parts) for parts in zip(first, second, strict=True)),
    )


def test_the_order_of_keys_means_nothing_without_a_mask() -> None:
    q, k, v = sequence(2, 8)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    same(one(q, k, v, causal=False), one(q, k[order], v[order], causal=False))


def test_a_constant_added_to_the_values_is_added_to_out() -> None:
    q, k, v = sequence(3, 5)
    (out, lse), (more, same_lse) = one(q, k, v), one(q, k, v + 3)
    same((out + 3, lse), (more, same_lse))


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf, 1e300])
def test_what_is_not_kept_may_hold_anything(poison: float) -> None:
    q, k, v = sequence(2, 9)
    plain = one(q, k, v, window=(1, -1))
    order, pages = [3, 1, 4], 6
    caches = []
    for x in (k, v):
        spoilt = x.clone()
        spoilt[:6] = poison  # keys before the window of the first query
        cache = paged(spoilt, 4, order, pages)
        caches.append(cache.nan_to_num(nan=poison, posinf=poison, neginf=poison))
    table = [[*order, -7, 10**6]]
    same(plain, attention(q, caches[0], caches[1], table, [9], [2], window=(1, -1)))


@pytest.mark.parametrize(("q_len", "kv_len"), [(1, 0), (3, 0), (0, 0), (0, 5)])
def test_rows_without_keys_are_zero_and_minus_infinity(q_len: int, kv_len: int) -> None:
    out, lse = one(*sequence(q_len, kv_len))
    assert (q_len, 4, 10) == tuple(out.shape)
    assert [0.0] * out.numel() == out.flatten().tolist()
    assert [-math.inf] * lse.numel() == lse.flatten().tolist()


def test_a_peers_window_counts_the_querys_own_key() -> None:
    """transformers' mask of a sliding window of W is ours of W - 1 keys to the left."""
    masking_utils = peers.load("transformers.masking_utils")
    sees = masking_utils.sliding_window_causal_mask_function(3)
    at = torch.arange(6)
    theirs = [[bool(sees(0, 0, i, j)) for j in at] for i in at]
    assert theirs == keep_mask(6, 6, True, (2, -1), torch.device("cpu")).tolist()


def test_queries_before_the_first_key_keep_nothing() -> None:
    out, lse = one(*sequence(5, 2))
    assert [True] * 3 + [False] * 2 == lse.isneginf().all(1).tolist()
    assert not bool(out[:3].any())


def test_a_batch_without_sequences_has_empty_results() -> None:
    q = torch.zeros(0, 4, 8)
    out, lse = attention(q, torch.zeros(0, 4, 2, 8), torch.zeros(0, 4, 2, 6), [], [], [])
    assert ((0, 4, 6), (0, 4)) == (tuple(out.shape), tuple(lse.shape))


def test_a_page_may_stand_twice_in_a_row() -> None:
    q, k, v = sequence(1, 4)
    twice = attention(q, k[None], v[None], [[0, 0]], [8], [1])
    same(one(q, torch.cat([k, k]), torch.cat([v, v])), twice)


# Movers --------------------------------------------------------------------------------------


def append(
    k: Tensor, v: Tensor, slots: Sequence[int], pages: int, size: int
) -> tuple[Tensor, Tensor]:
    caches = tuple(torch.full((pages, size, *x.shape[1:]), -9.0) for x in (k, v))
    ops.get("append_kv")(k, v, *caches, torch.tensor(slots, dtype=torch.int32), kernel="reference")
    return caches


def test_append_then_gather_is_the_identity() -> None:
    k, v = torch.randn(7, 2, 4), torch.randn(7, 2, 3)
    slots = [11, 0, 5, 2, 9, 10, 1]
    for cache, source in zip(append(k, v, slots, 4, 3), (k, v), strict=True):
        assert torch.equal(source, cache.flatten(0, 1)[slots])
        rest = [s for s in range(12) if s not in slots]
        assert {-9.0} == set(cache.flatten(0, 1)[rest].flatten().tolist())


def test_append_skips_every_negative_slot() -> None:
    k = torch.randn(3, 1, 2)
    (cache, _) = append(k, k, [-1, 4, -(2**31)], 2, 3)
    assert torch.equal(k[1], cache.flatten(0, 1)[4])
    assert 5 * 2 == int((cache == -9.0).sum())


def test_every_slot_of_every_page_can_be_written() -> None:
    """None is reserved, slot 0 and the last page included."""
    k = torch.randn(6, 1, 2)
    (cache, _) = append(k, k, range(6), 2, 3)
    assert torch.equal(k, cache.flatten(0, 1))


def test_append_in_any_order_of_tokens_is_the_same() -> None:
    k, slots = torch.randn(5, 2, 3), torch.tensor([3, 0, 4, 1, -1])
    order = torch.tensor([4, 2, 0, 3, 1])
    first = append(k, k, slots.tolist(), 2, 3)
    second = append(k[order], k[order], slots[order].tolist(), 2, 3)
    assert torch.equal(first[0], second[0])


def copy(cache: Tensor, *pairs: tuple[int, int]) -> Tensor:
    made = cache.clone()
    table = torch.tensor(pairs, dtype=torch.int32).reshape(-1, 2)
    ops.get("copy_blocks")([made], table, kernel="reference")
    return made


def test_copying_there_and_back_is_the_identity() -> None:
    cache = torch.randn(6, 3, 2)
    there = copy(cache, (0, 3), (1, 4))
    assert torch.equal(cache[[0, 1]], there[[3, 4]])
    assert torch.equal(cache[:3], copy(there, (3, 0), (4, 1))[:3])


def test_copies_without_effect() -> None:
    cache = torch.randn(4, 2)
    assert torch.equal(cache, copy(cache))
    assert torch.equal(cache, copy(cache, (0, 0), (3, 3)))


def test_the_order_of_pairs_means_nothing_and_one_source_may_fan_out() -> None:
    cache = torch.randn(5, 2)
    made = copy(cache, (4, 0), (4, 1), (3, 2))
    assert torch.equal(cache[[4, 4, 3, 3, 4]], made)
    assert torch.equal(made, copy(cache, (3, 2), (4, 1), (4, 0)))


@pytest.mark.parametrize("pairs", [[(0, 1), (1, 2)], [(0, 1), (1, 0)], [(0, 2), (1, 2)]])
def test_copies_that_chain_are_refused(pairs: list[tuple[int, int]]) -> None:
    """One after the other, all at once and in any order would be three different results."""
    cache = torch.randn(3, 2)
    with pytest.raises(ValueError, match=r"copy_blocks: pairs: "):
        copy(cache, *pairs)


def test_layers_are_independent() -> None:
    layers = [torch.randn(3, 2), torch.randint(9, (3, 4)), torch.randn(3).half()]
    made = [layer.clone() for layer in layers]
    pairs = torch.tensor([[2, 0]], dtype=torch.int32)
    ops.get("copy_blocks")(made, pairs, kernel="reference")
    for before, after in zip(layers, made, strict=True):
        assert torch.equal(before[[2, 1, 2]], after)


@pytest.mark.parametrize("op", ["append_kv", "copy_blocks"])
def test_movers_keep_nan_payloads(op: str) -> None:
    raw = torch.tensor([0x7C01, 0x7E07, -0x03FF, -0x8000], dtype=torch.int16)
    bits = raw.view(torch.float16).view(1, 1, 4)
    if op == "append_kv":
        cache = torch.zeros(1, 2, 1, 4, dtype=torch.float16)
        slots = torch.tensor([1], dtype=torch.int32)
        ops.get(op)(bits, bits, cache, cache.clone(), slots, kernel="reference")
        moved = cache[0, 1]
    else:
        moved = copy(torch.cat([bits, torch.zeros_like(bits)]), (0, 1))[1]
    assert raw.tolist() == moved.view(torch.int16).flatten().tolist()


# Errors that move a whole row (decision 0007) --------------------------------------------------


def row_verdict(case: Paged, change: float = 0.0) -> str | None:
    """The check that ``out`` of torch.eager fails, every element off by that share of itself."""
    op = ops.get("paged_attention")
    args, options = op.inputs(case, Fill(Arena(), case.seed))
    call = op.bind(**args, **options)
    kernel = op.kernels["torch.eager"]
    budget = op.comparison(op.reference(**call.args, **call.options), call, kernel.contract)["out"]
    out, _ = op(**args, **options, kernel=kernel.name)
    return budget.judge("out", out * (1 + change)).check


def test_an_error_that_moves_a_row_fails_no_right_kernel() -> None:
    """Scores of hundreds in float32; P rounded, and values that go up and down together."""
    lens = {"q_lens": (1, 20, 1, 1), "kv_lens": (142, 20, 0, 0)}
    sizes = {"S": 1, "Hk": 3, "G": 2, "D": 16, "Dv": 32, "spare": 0, "tail": 0}
    large = Paged(**lens, **sizes, dtype="float32", scale=1.0, family="outlier", seed=1935)
    assert row_verdict(large) is None
    assert "budget" == row_verdict(large, 1e-2)
    assert 0.75 > max(float(row_gate.shares(dtype, 12).max()) for dtype in ("float16", "bfloat16"))


def test_a_systematic_error_of_a_float32_row_is_still_found() -> None:
    """One that no element shows: scores are ordinary, every element is off alike."""
    case = Paged(kv_lens=(40,), D=128, Dv=128, dtype="float32", family="flat")
    found = {row_verdict(case, n * 1e-8) for n in range(0, 400, 4)}
    assert {None, "row budget"} <= found


# Cases ---------------------------------------------------------------------------------------


@OPS
def test_every_edge_has_a_case_that_meets_it(op: ops.Op) -> None:
    cases = edges.cases(op)
    assert list(op.edges) == list(cases), "draw them: python -m conformance.edges"
    assert [] == [edge for edge, case in cases.items() if not op.edges[edge](case)]


@OPS
def test_every_drawn_case_is_read_back_from_its_repr_binds_and_has_a_cost(op: ops.Op) -> None:
    arena = Arena()

    @settings(drawn, max_examples=100)
    @given(case=strategies.of(op.name))
    def draw(case: Any) -> None:
        assert case == op.parse_case(repr(case))
        args, options = op.inputs(case, Fill(arena, case.seed))
        call = op.bind(**args, **options)
        op.contents(call)
        cost = op.cost(case)
        assert cost.bytes >= 0
        assert cost.flops >= 0

    draw()


@OPS
def test_the_reference_reads_no_poison(op: ops.Op) -> None:
    """The same case in memory whose holes hold other bytes: what is expected of a kernel, and how
    far it may be off, stays the same to the bit."""
    arena = Arena()

    @settings(drawn, max_examples=60)
    @given(case=strategies.of(op.name))
    def draw(case: Any) -> None:
        from yaie.arena import Placement

        args, options = op.inputs(case, Fill(arena, case.seed))
        assume(len(arena.extents) == 1)  # the whole of it is copied
        answers = []
        for poison in (*POISONS, Poison("NaN of another sign", 0x7F7F_7F7F)):
            base = torch.from_numpy(np.append(arena.bytes(poison), np.zeros(8, np.uint8)))
            base = base[: len(base) // 8 * 8]
            moved = {
                name: [Placement.of(t, arena.base).view(base) for t in a]
                if isinstance(a, list)
                else a
                if a is None
                else Placement.of(a, arena.base).view(base)
                for name, a in args.items()
            }
            call = op.bind(**moved, **options)
            answer = op.reference(**call.args, **call.options)
            answers.append(op.comparison and op.comparison(answer, call, Contract()))
        first, *others = [list(tensors_in(answer)) for answer in answers]
        for other in others:
            for a, b in zip(first, other, strict=True):
                assert (a.shape, a.dtype) == (b.shape, b.dtype)
                if a.numel():
                    assert torch.equal(*(x.flatten().clone().view(torch.uint8) for x in (a, b)))

    draw()


def tensors_in(answer: Any) -> Iterator[Tensor]:
    """The tensors of a judgement, alone, in a record, in a row or by name."""
    if isinstance(answer, Tensor):
        yield answer
    elif isinstance(answer, dict):
        yield from (t for part in answer.values() for t in tensors_in(part))
    elif is_dataclass(answer):
        yield from (t for f in fields(answer) for t in tensors_in(getattr(answer, f.name)))
    elif isinstance(answer, (list, tuple)):
        yield from (t for part in answer for t in tensors_in(part))


@OPS
def test_a_printed_case_leaves_defaults_out(op: ops.Op) -> None:
    assert f"{op.name}.Case()" == repr(op.Case())
    assert f"{op.name}.Case(seed=3)" == repr(op.Case(seed=3))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "append_kv",
        "append_kv.Case(",
        "append_kv.Case(T=)",
        "append_kv.Case(3)",
        "append_kv.Case(T=3, T=4)",
        "append_kv.Case(tokens=3)",
        "append_kv.Case(T=__import__('os').getpid())",
        "append_kv.Case(**{'T': 3})",
        "append_kv.Case(T=3).T",
        "copy_blocks.Case(P=3)",
        "append_kv.Case(T=3) or 1",
    ],
)
def test_what_is_no_case_is_a_value_error_that_quotes_it(text: str) -> None:
    with pytest.raises(ValueError, match="not a Case of append_kv") as caught:
        ops.get("append_kv").parse_case(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("append_kv.Case(3)", "write field=value"),
        ("append_kv.Case(TT=3)", "no field 'TT'; did you mean T?"),
        ("append_kv.Case(**{})", "no field '**'"),
        ("append_kv.Case(T=1)(T=2)", "write field=value"),
        ("append_kv.Case(T=3, T=4)", "a name stands twice"),
        (f"append_kv.Case(T={'[' * 100_000})", "too many nested parentheses"),
        (f"append_kv.Case(T={'-' * 100_000}1)", "it is nested too deeply"),
        (f"append_kv.Case(T={'-' * 3000}1)", "it is nested too deeply"),
        (f"append_kv.Case(seed={2**64})", f"seed is {2**64}, must be below 2**64"),
    ],
    ids=lambda text: text[:30],
)
def test_why_a_text_is_no_case_is_said_in_a_sentence(text: str, words: str) -> None:
    with pytest.raises(ValueError, match="not a Case of append_kv") as caught:
        ops.get("append_kv").parse_case(text)
    said = str(caught.value)
    assert words in said
    assert len(said) < 600


@OPS
def test_the_largest_seed_makes_inputs(op: ops.Op) -> None:
    """One beyond it would be judged as a fault of the kernel."""
    case = replace(op.good, seed=2**64 - 1)
    op.inputs(case, Fill(Arena(1 << 20), case.seed))
    with pytest.raises(ValueError, match="must be below"):
        replace(op.good, seed=2**64)


@pytest.mark.parametrize(
    "text",
    [
        "append_kv.Case(T='3')",
        "append_kv.Case(dtype='float13')",
        "append_kv.Case(dtype=16)",
        "append_kv.Case(layout='diagonal')",
        "append_kv.Case(T=-1)",
        "append_kv.Case(T=13)",
        "append_kv.Case(family='nomal')",
        "paged_attention.Case(family='nomal')",
        "paged_attention.Case(q_lens=(1, 1), kv_lens=(3,))",
        "paged_attention.Case(q_lens=1, kv_lens=3)",
        "paged_attention.Case(table='spiral')",
        "copy_blocks.Case(kind='chain')",
        "paged_attention.Case(S=0)",
    ],
)
def test_a_case_that_makes_no_sense_is_a_value_error(text: str) -> None:
    """Pasted by hand into `yaie repro`: a value error is a usage error there, not a crash."""
    op = ops.get(text.partition(".")[0])
    with pytest.raises(ValueError):
        args, options = op.inputs(op.parse_case(text), Fill(Arena(1 << 20), 0))
        op.bind(**args, **options)


def test_an_unknown_op_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no op 'apend_kv'; did you mean append_kv\?"):
        ops.get("apend_kv")


# Workloads -----------------------------------------------------------------------------------


class Outline(Fill):
    """Lays out a case of any size without touching its memory: reserved, never written."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        file = os.memfd_create("outline")
        os.ftruncate(file, 1 << 38)
        self.memory = torch.frombuffer(mmap.mmap(file, 1 << 38), dtype=torch.uint8)
        os.close(file)
        self.top = 0

    def slab(
        self, shape: Sequence[int], dtype: torch.dtype, shift: int = 0, rows: object = None
    ) -> Any:
        start = -(-self.top // ALIGNMENT) * ALIGNMENT
        self.top = start + math.prod(shape) * dtype.itemsize
        typed = self.memory[start:].view(dtype)
        return Unwritten(typed.as_strided(shape, contiguous_strides(shape)))

    def rows(self, shape: Sequence[int], dtype: torch.dtype, gap: int, shift: int = 0) -> Any:
        return Unwritten(self.slab((*shape[:-1], shape[-1] + gap), dtype).tensor[..., : shape[-1]])

    def tensor(self, values: Tensor, dtype: torch.dtype, layout: str = "dense") -> Tensor:
        return self.slab(values.shape, dtype).tensor

    def normal(self, *shape: int) -> Tensor:
        return torch.empty(shape, device="meta")

    def bits(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, device="meta", dtype=dtype)


class Unwritten:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def write(self, values: Tensor, index: object = ...) -> Tensor:
        return self.tensor


@pytest.mark.parametrize(
    ("op", "name"), [(op, name) for op in ops.OPS.values() for name in op.workloads]
)
def test_the_inputs_of_every_workload_bind_and_it_has_a_cost(op: ops.Op, name: str) -> None:
    case = op.workloads[name]
    args, options = op.inputs(case, Outline(0))
    op.bind(**args, **options)
    assert case == op.parse_case(repr(case))
    assert op.cost(case).bytes > 0


# Costs by hand -------------------------------------------------------------------------------

TINY = Paged(S=4, Hk=1, G=2, D=8, Dv=4, dtype="float16", spare=0, tail=0)


@pytest.mark.parametrize(
    ("op", "case", "expected"),
    [
        # 3 tokens x 2 heads x (8 + 4) x 2 bytes, read and written, and 3 slots
        ("append_kv", Append(T=3, Hk=2, D=8, Dv=4), Cost(2 * 3 * 2 * 12 * 2 + 12)),
        # tokens 0 and 2 of 3 are skipped
        ("append_kv", Append(T=3, Hk=2, D=8, Dv=4, skip=2), Cost(2 * 1 * 2 * 12 * 2 + 12)),
        ("append_kv", Append(T=3, skip=1), Cost(12)),
        ("append_kv", Append(T=0), Cost(0)),
        # 2 pages of 2 x 3 x 4 numbers of 4 bytes, in 5 layers, read and written
        ("copy_blocks", Copy(L=5, P=8, page=(2, 3, 4), M=2, dtype="float32"),
         Cost(2 * 2 * 5 * 24 * 4)),
        ("copy_blocks", Copy(L=5, P=8, M=3, kind="identity"), Cost(0)),
        # the first of the three pairs is an identity
        ("copy_blocks", Copy(L=1, P=8, page=(1,), M=3, kind="mixed", dtype="uint8"), Cost(4)),
        ("copy_blocks", Copy(M=0), Cost(0)),
        # q 1x2x8, k 5x8, v 5x4, out 1x2x4 of 2 bytes; lse 1x2, table 2, kv_lens 1, indptr 2 of 4
        ("paged_attention", replace(TINY, q_lens=(1,), kv_lens=(5,)),
         Cost((16 + 40 + 20 + 8) * 2 + 4 * (2 + 2 + 1 + 2), 2 * 12 * 2 * 5)),
        # causal, 3 queries of 3 keys: 6 pairs
        ("paged_attention", replace(TINY, q_lens=(3,), kv_lens=(3,)),
         Cost((48 + 24 + 12 + 24) * 2 + 4 * (6 + 1 + 1 + 2), 2 * 12 * 2 * 6)),
        # a window of 2 keys to the left: 3 keys of 9 are read
        ("paged_attention", replace(TINY, q_lens=(1,), kv_lens=(9,), window=(2, -1)),
         Cost((16 + 24 + 12 + 8) * 2 + 4 * (2 + 3 + 1 + 2), 2 * 12 * 2 * 3)),
        # no keys: q is not needed, but the model counts it; out and lse are written
        ("paged_attention", replace(TINY, q_lens=(1,), kv_lens=(0,)),
         Cost((16 + 8) * 2 + 4 * (2 + 0 + 1 + 2), 0)),
        ("paged_attention", replace(TINY, q_lens=(), kv_lens=()), Cost(4)),
    ],
)  # fmt: skip
def test_costs_counted_by_hand(op: str, case: Any, expected: Cost) -> None:
    assert expected == ops.get(op).cost(case)


def keys_read(case: Paged) -> int:
    """Distinct cache slots that some query keeps, from the tensors themselves."""
    op = ops.get("paged_attention")
    args, options = op.inputs(case, Fill(Arena(1 << 22), case.seed))
    slots: set[int] = set()
    for b, (q_len, kv_len) in enumerate(zip(case.q_lens, case.kv_lens, strict=True)):
        mask = keep_mask(q_len, kv_len, options["causal"], options["window"], torch.device("cpu"))
        for j in mask.any(0).nonzero()[:, 0].tolist():
            slots.add(int(args["block_table"][b, j // case.S]) * case.S + j % case.S)
    return len(slots)


@pytest.mark.parametrize("window", [(-1, -1), (2, -1)])
@pytest.mark.parametrize("kv_lens", [(8, 8), (2, 8), (8, 2), (0, 4), (4, 0), (3, 3, 3), (9, 1, 5)])
def test_a_shared_page_is_read_once(kv_lens: tuple[int, ...], window: tuple[int, int]) -> None:
    case = replace(TINY, q_lens=(1,) * len(kv_lens), kv_lens=kv_lens, table="shared", window=window)
    alone = replace(case, table="permuted")
    saved = (keys_read(alone) - keys_read(case)) * 12 * 2
    cost = ops.get("paged_attention").cost
    assert saved == cost(alone).bytes - cost(case).bytes


@given(
    q_len=st.integers(0, 6), kv_len=st.integers(0, 9), causal=st.booleans(), left=st.integers(-1, 4)
)
@settings(drawn, max_examples=200)
def test_flops_are_those_of_the_kept_pairs(
    q_len: int, kv_len: int, causal: bool, left: int
) -> None:
    case = replace(TINY, q_lens=(q_len,), kv_lens=(kv_len,), causal=causal, window=(left, -1))
    pairs = sum(map(sum, mask_by_hand(q_len, kv_len, causal, (left, -1))))
    assert 2 * 12 * 2 * pairs == ops.get("paged_attention").cost(case).flops
