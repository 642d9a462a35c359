"""From a seed to the contents of a case: the same bytes each time, and families that do what their
docstrings promise, also after they were rounded to 16 bits."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from yaie import ops
from yaie.arena import HUGE, ZEROS, Arena, Placement
from yaie.fill import FAMILIES, FAR, FAR_ELEMENTS, LAYOUTS, Fill, Sequences, reach, scaled

Q_LENS, KV_LENS = (1, 3, 2, 0, 1), (40, 7, 0, 5, 1)
EDGES = (3, 4, 15, 16)


def filled(
    family: str, dim: int = 64, seed: int = 0, kv_lens: tuple[int, ...] = KV_LENS, group: int = 2
) -> Sequences:
    """A batch of that family: two KV heads, Dv 4 more than D."""
    q_lens = Q_LENS[: len(kv_lens)]
    heads, dims = (2 * group, 2), (dim, dim + 4)
    batch = Sequences(Fill(Arena(1 << 12), seed), q_lens, kv_lens, heads, dims, EDGES)
    FAMILIES[family](batch)
    return batch


def scores(batch: Sequences) -> list[Tensor]:
    """The scaled scores of each focus query [Hk, n], from what float16 keeps of q and k."""
    return [
        torch.einsum("hd,nhd->hn", q.half().double(), k.half().double()) / math.sqrt(q.shape[-1])
        for q, k in batch.focus()
    ]


def weights(batch: Sequences) -> list[Tensor]:
    return [s.softmax(-1) for s in scores(batch)]


# Layouts and contents ------------------------------------------------------------------------


def test_layouts_have_the_strides_that_they_are_named_for() -> None:
    fill = Fill(Arena(1 << 16), 0)
    values = torch.randn(4, 3, 8)
    made = {layout: fill.tensor(values, torch.float32, layout) for layout in LAYOUTS}
    assert {
        "dense": (24, 8, 1),
        "padded": (27, 8, 1),
        "heads-padded": (32, 9, 1),
        "transposed": (8, 32, 1),
        "shifted": (24, 8, 1),
        "fused": (48, 8, 1),
        "broadcast": (24, 0, 1),
    } == {layout: tensor.stride() for layout, tensor in made.items()}
    assert 4 == made["shifted"].data_ptr() % 8
    first_head = values[:, :1].expand_as(values)
    for layout, tensor in made.items():
        assert torch.equal(first_head if layout == "broadcast" else values, tensor)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(0, 2, 8), (3, 1, 1), (2, 3, 0)])
def test_layouts_of_small_and_empty_tensors(layout: str, shape: tuple[int, ...]) -> None:
    values = torch.ones(shape)
    assert torch.equal(values, Fill(Arena(1 << 12), 0).tensor(values, torch.float32, layout))


def test_an_unknown_layout_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="layout 'diagonal' is none of dense, padded"):
        Fill(Arena(1 << 12), 0).tensor(torch.zeros(1, 1, 1), torch.float32, "diagonal")


WITHOUT_CHANCE = {"match_tree", "block_pool"}
"""Ops whose Cases say everything: a program, and the prompts that are looked up."""


@pytest.mark.parametrize(
    ("op", "dtype"), [(op, dtype) for op in ops.OPS.values() for dtype in op.dtypes], ids=str
)
def test_the_same_seed_gives_the_same_bytes_and_another_one_others(op: ops.Op, dtype: str) -> None:
    def content(seed: int) -> tuple[bytes, list[object], bool]:
        arena = Arena(1 << 18)
        fill = Fill(arena, seed)
        before = fill.rng.bit_generator.state
        args, _ = op.inputs(replace(op.good, dtype=dtype), fill)
        flat = [t for a in args.values() for t in (a if isinstance(a, list) else [a])]
        places = [Placement.of(t, arena.base) for t in flat]
        return arena.bytes(ZEROS).tobytes(), places, fill.rng.bit_generator.state != before

    assert content(5) == content(5)
    drawn = content(5)[2]
    assert drawn == (content(5)[0] != content(6)[0])
    assert drawn == (op.name not in WITHOUT_CHANCE)


def test_an_arena_used_before_makes_no_difference() -> None:
    op, arena = ops.get("paged_attention"), Arena(1 << 20)
    op.inputs(op.Case(q_lens=(9,), kv_lens=(50,), D=64, Dv=64), Fill(arena, 1))
    op.inputs(op.good, Fill(arena, 2))
    used = arena.bytes(HUGE).copy()
    fresh = Arena(1 << 20)
    op.inputs(op.good, Fill(fresh, 2))
    assert used.tobytes() == fresh.bytes(HUGE).tobytes()


def test_random_bits_hold_every_kind_of_number() -> None:
    bits = Fill(Arena(1 << 12), 0).bits((1 << 16,), torch.float16)
    raw = bits.view(torch.int16)
    assert bool(bits.isnan().any())
    assert bool(bits.isinf().any())
    assert bool(((raw & 0x7C00) == 0).any()), "subnormals"
    assert bool((bits.isnan() & ((raw & 0x0200) == 0)).any()), "signalling NaNs"


def test_random_bits_of_an_empty_shape_are_empty() -> None:
    assert (0, 3) == Fill(Arena(1 << 12), 0).bits((0, 3), torch.float16).shape


def test_a_permutation_holds_every_number_once() -> None:
    assert list(range(9)) == sorted(Fill(Arena(1 << 12), 3).permutation(9).tolist())


# Families ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dim", [1, 3, 8, 64, 256])
def test_every_family_is_finite_in_float16(family: str, dim: int) -> None:
    """±inf in q or k has no meaning; one sequence in a thousand would be a false alarm a day."""
    for seed in range(200 if dim == 1 else 3):
        batch = filled(family, dim, seed, kv_lens=(64,) * 5)
        for name in ("q", "k", "v"):
            assert bool(getattr(batch, name).half().isfinite().all()), f"{name}, seed {seed}"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_takes_batches_without_sequences_tokens_or_keys(family: str) -> None:
    for kv_lens in [(), (0,), (0, 0), (1, 0)]:
        batch = filled(family, kv_lens=kv_lens)
        assert (sum(Q_LENS[: len(kv_lens)]), sum(kv_lens)) == (len(batch.q), len(batch.k))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_a_function_of_the_seed(family: str) -> None:
    first, again, other = filled(family), filled(family), filled(family, seed=1)
    for name in ("q", "k", "v"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert not all(torch.equal(getattr(first, n), getattr(other, n)) for n in ("q", "k", "v"))


@pytest.mark.parametrize(
    ("dtype", "exponent"), [(torch.float16, 15), (torch.bfloat16, 127), (torch.float32, 127)]
)
def test_scaled_columns_reach_half_of_the_exponents(dtype: torch.dtype, exponent: int) -> None:
    assert exponent == reach(dtype)
    columns = scaled(torch.ones(2, 4), dtype).log2()
    large, small = (14, -14) if dtype == torch.float16 else (exponent // 2, -(exponent // 2))
    assert [[large, small] * 2] * 2 == columns.tolist()


def test_scaled_numbers_of_float16_are_finite_and_some_are_subnormal() -> None:
    numbers = scaled(torch.randn(1000, 64, generator=torch.Generator().manual_seed(0)), torch.half)
    assert numbers.half().isfinite().all()
    subnormal = numbers.half().abs() < torch.finfo(torch.half).smallest_normal
    assert 0.3 < subnormal.double().mean() < 0.4  # two of three of every second column


def test_far_tokens_take_little_memory_and_reach_beyond_32_bits() -> None:
    arena = Arena()
    tensor = Fill(arena, 0).tensor(torch.ones(3, 2, 8), torch.half, FAR)
    assert tensor.stride(0) * 2 >= FAR_ELEMENTS
    assert torch.equal(torch.ones(3, 2, 8).half(), tensor)
    assert sum(b - a for a, b in arena.extents) < 4096


def test_rows_lie_a_gap_apart() -> None:
    near, far = (Fill(Arena(), 0).rows((3, 5), torch.int32, gap).tensor for gap in (2, 1 << 30))
    assert near.stride() == (7, 1)
    assert far.stride() == ((1 << 30) + 5, 1)


def test_scaled_scores_are_those_of_normal() -> None:
    plain, made = filled("normal"), filled("scaled")
    assert not torch.equal(plain.q, made.q)
    for a, b in zip(scores(plain), scores(made), strict=True):
        assert torch.allclose(a, b, atol=1e-2)


def test_the_focus_is_the_last_query_of_each_group_and_the_keys_of_its_sequence() -> None:
    batch = filled("normal")
    (q0, k0), (q1, k1), (q4, k4) = batch.focus()
    assert torch.equal(batch.q[0, ::2], q0)
    assert torch.equal(batch.q[3, ::2], q1)
    assert torch.equal(batch.q[6, ::2], q4)
    assert torch.equal(batch.k[:40], k0)
    assert torch.equal(batch.k[40:47], k1)
    assert torch.equal(batch.k[52:], k4)


def test_spiky_keys_dominate() -> None:
    for seed in range(5):
        for p in weights(filled("spiky", seed=seed, kv_lens=(40, 200, 64))):
            heavy = p.max(-1).values
            assert bool((heavy * max(1, p.shape[-1] // 16) > 0.5).all())


def test_an_outlier_stands_in_one_channel() -> None:
    batch = filled("outlier")
    assert {30.0} == set(batch.k[..., 0].flatten().tolist())
    assert {10.0} == set(batch.q[..., 0].flatten().tolist())
    assert batch.k[..., 1:].abs().max() < 10


def test_a_needle_gives_one_key_at_an_edge_about_half_of_the_weight() -> None:
    heaviest, where = [], set()
    for seed in range(60):
        (p, *_) = weights(filled("needle", seed=seed, kv_lens=(40,)))
        heaviest += p.max(-1).values.tolist()
        where |= set(p.argmax(-1).tolist())
    assert 0.5 == pytest.approx(np.mean(heaviest), abs=0.15)
    assert min(heaviest) > 0.2
    assert max(heaviest) < 0.8
    assert {0, 39, *EDGES} == where


def test_a_ladder_rises_by_three_with_every_key() -> None:
    for s in scores(filled("ladder", kv_lens=(40, 50, 60))):
        steps = s.diff(dim=-1)
        assert 3.0 == pytest.approx(float(steps.mean()), rel=0.01)
        assert float(steps.min()) > 2.5


def test_falling_scores_keep_the_maximum_of_the_first_key() -> None:
    for s in scores(filled("falling", kv_lens=(40, 50, 60))):
        assert bool((s.diff(dim=-1) < 0).all())


@pytest.mark.parametrize("dim", [1, 8, 64, 256])
def test_negative_scores_lie_below_minus_50000_before_scaling(dim: int) -> None:
    batch = filled("negative", dim)
    ends = zip(batch.q_ends, batch.kv_ends, batch.q_lens, batch.kv_lens, strict=True)
    for q_end, kv_end, q_len, kv_len in ends:
        q = batch.q[q_end - q_len : q_end].half().double()
        k = batch.k[kv_end - kv_len : kv_end].half().double().repeat_interleave(2, 1)
        raw = torch.einsum("ihd,jhd->hij", q, k)
        assert bool((raw < -5e4).all())


def test_big_scores_overflow_float16_and_big_values_do_not() -> None:
    batch = filled("big")
    raw = torch.cat([s.flatten() * 8 for s in scores(batch)])
    assert raw.abs().max() > torch.finfo(torch.float16).max / 2
    assert batch.v.abs().max() > 100


def test_grid_values_are_exact_in_16_bits_and_scores_tie() -> None:
    batch = filled("grid", dim=3, kv_lens=(200,))
    for x in (batch.q, batch.k, batch.v):
        assert torch.equal(x, x.half().float())
        assert torch.equal(x, x.bfloat16().float())
    (s,) = scores(batch)
    assert all(len(row.unique()) < len(row) for row in s)


def test_constant_values_are_all_one_and_a_half() -> None:
    assert {1.5} == set(filled("constant").v.flatten().tolist())


def test_biased_values_lie_around_two() -> None:
    assert 2.0 == pytest.approx(float(filled("biased").v.mean()), abs=0.2)


def test_flat_scores_weigh_every_key_alike() -> None:
    for p in weights(filled("flat")):
        assert torch.allclose(p, torch.full_like(p, 1 / p.shape[-1]))
