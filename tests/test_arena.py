"""The judge's memory: what is data, what is a hole, and that neither can be mistaken."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from yaie.arena import (
    ALIGNMENT,
    FAR_BYTES,
    GUARD,
    HUGE,
    INFINITE,
    NAN,
    POISONS,
    Arena,
    Placement,
    Poison,
    Regions,
    contiguous_strides,
)

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int32, torch.int64, torch.uint8]


def repeated(byte: int) -> Poison:
    return Poison("repeated", byte * 0x0101_0101)


@pytest.fixture
def arena() -> Arena:
    arena = Arena(1 << 16)
    arena.reset()
    return arena


def test_a_fresh_arena_is_one_guard_zone(arena: Arena) -> None:
    assert [0x7B] * GUARD == arena.bytes(HUGE).tolist()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tensor_stands_between_guard_zones_full_of_poison(
    arena: Arena, dtype: torch.dtype
) -> None:
    start = arena.slab((3, 5), dtype).write(torch.zeros(3, 5))
    place = Placement.of(start, arena.base)
    for byte in (0xFF, 0x7B, 0x00, 0x5A):
        memory = arena.bytes(repeated(byte))
        assert {byte} == set(memory[place.offset - GUARD : place.offset].tolist())
        assert {byte} == set(memory[place.end : place.end + GUARD].tolist())
        assert {0} == set(memory[place.offset : place.end].tolist())


def test_tensors_start_at_the_alignment_unless_they_are_shifted(arena: Arena) -> None:
    for i in range(4):
        place = Placement.of(arena.slab((3,), torch.float16).tensor, arena.base)
        shifted = Placement.of(arena.slab((3,), torch.float16, shift=i).tensor, arena.base)
        assert (0, 2 * i) == (place.offset % ALIGNMENT, shifted.offset % ALIGNMENT)


def test_two_tensors_never_share_a_guard_zone(arena: Arena) -> None:
    first = Placement.of(arena.slab((ALIGNMENT,), torch.uint8).tensor, arena.base)
    second = Placement.of(arena.slab((1,), torch.uint8).tensor, arena.base)
    assert second.offset - first.end >= GUARD


def test_unwritten_elements_hold_the_poison_and_written_ones_do_not(arena: Arena) -> None:
    slab = arena.slab((4, 2), torch.int32)
    slab.write(torch.tensor([7, 8], dtype=torch.int32), 2)
    place = Placement.of(slab.tensor, arena.base)
    expected = {0xFF: [-1, -1], 0x7B: [0x7B7B7B7B, 0x7B7B7B7B]}
    for byte, hole in expected.items():
        seen = place.view(torch.from_numpy(arena.bytes(repeated(byte))))
        assert [hole, hole, [7, 8], hole] == seen.tolist()


def test_data_that_looks_like_poison_stays(arena: Arena) -> None:
    slab = arena.slab((2,), torch.uint8)
    slab.write(torch.tensor([0xFF], dtype=torch.uint8), slice(1))
    place = Placement.of(slab.tensor, arena.base)
    assert [0xFF, 0x7B] == arena.bytes(HUGE)[place.offset : place.end].tolist()


def test_gaps_between_rows_are_holes(arena: Arena) -> None:
    slab = arena.slab((2, 3), torch.uint8, (5, 1))
    slab.write(torch.tensor([[1, 2, 3], [4, 5, 6]]))
    place = Placement.of(slab.tensor, arena.base)
    assert [1, 2, 3, 9, 9, 4, 5, 6] == arena.bytes(repeated(9))[place.offset : place.end].tolist()


NUMBERS = {
    "NaN": (torch.isnan, -1),
    "huge": (lambda x: x.isfinite() & (x > torch.finfo(x.dtype).max / 1e4), 0x7B7B7B7B),
    "infinite": (lambda x: x == torch.inf, 2**31 - 1),
    "zeros": (lambda x: x == 0, 0),
    "leftovers": (lambda x: x == 1, 1),
}


@pytest.mark.parametrize("poison", POISONS, ids=lambda p: p.name)
@pytest.mark.parametrize("shift", [0, 1, 3])
def test_the_poisons_are_what_they_are_said_to_be(arena: Arena, poison: Poison, shift: int) -> None:
    """In tensors of any dtype and at any offset, in their gaps, and behind them."""
    is_so, integer = NUMBERS[poison.name]
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.int32):
        place = Placement.of(arena.slab((5, 3), dtype, (4, 1), shift).tensor, arena.base)
        memory = torch.from_numpy(arena.bytes(poison))
        wider = Placement(dtype, place.offset, (24,), (1,)).view(memory)  # and 5 elements behind it
        good = wider == integer if dtype == torch.int32 else is_so(wider)
        assert bool(good.all()), wider


@pytest.mark.parametrize("poison", POISONS, ids=lambda p: p.name)
def test_the_byte_of_any_place_can_be_told(arena: Arena, poison: Poison) -> None:
    for shift, dtype in enumerate(DTYPES):
        slab = arena.slab((5, 3), dtype, (4, 1), shift)
        slab.write(torch.ones(2, 3), slice(2, 4))
    memory = arena.bytes(poison).tolist()
    assert memory == [arena.byte(at, poison) for at in range(arena.top)]


def test_a_typed_poison_reaches_every_row_of_a_far_tensor() -> None:
    arena = Arena()
    arena.reset()
    arena.slab((3,), torch.float32)
    far = arena.slab((FAR_BYTES, 8), torch.bfloat16, rows=[5, FAR_BYTES - 2])
    far.write(torch.ones(8), 5)
    behind = arena.slab((3,), torch.float16)
    target = Regions()
    arena.write(target[0], INFINITE)
    base = torch.from_numpy(target[0])
    rows = Placement.of(far.tensor, arena.base).view(base)
    assert [1.0] * 8 == rows[5].tolist()
    for hole in (rows[4], rows[6], rows[FAR_BYTES - 2], rows[FAR_BYTES - 1]):
        assert [torch.inf] * 8 == hole.tolist()
    assert [torch.inf] * 3 == Placement.of(behind.tensor, arena.base).view(base).tolist()
    del base, rows, hole
    target.close()


def test_a_poison_lies_at_absolute_addresses() -> None:
    assert [3, 4, 1, 2, 3] == Poison("counted", 0x04030201).bytes(6, 11).tolist()
    assert [] == INFINITE.bytes(7, 7).tolist()


def test_what_is_written_is_rounded_to_the_dtype(arena: Arena) -> None:
    third = torch.tensor([1 / 3], dtype=torch.float64)
    assert third.half() == arena.slab((1,), torch.float16).write(third)


def test_bits_are_written_as_they_are(arena: Arena) -> None:
    signalling = torch.tensor([0x7F800001, -0x80000000], dtype=torch.int32).view(torch.float32)
    stored = arena.slab((2, 1), torch.float32, (3, 1)).write(signalling[:, None])
    assert [0x7F800001, -0x80000000] == stored.contiguous().view(torch.int32).flatten().tolist()


def test_reset_forgets_all_tensors_and_their_data(arena: Arena) -> None:
    arena.slab((50,), torch.uint8).write(torch.ones(50))
    arena.reset()
    arena.slab((50,), torch.uint8)
    assert {0x11} == set(arena.bytes(repeated(0x11)).tolist())


def test_a_case_that_does_not_fit_is_told_how_much_it_needs(arena: Arena) -> None:
    with pytest.raises(MemoryError, match="needs 3 MiB of arena, there are 0 MiB"):
        arena.slab((3 << 20,), torch.uint8)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0, 2)])
def test_empty_tensors_have_a_place(arena: Arena, shape: tuple[int, ...]) -> None:
    tensor = arena.slab(shape, torch.float16).write(torch.empty(shape))
    place = Placement.of(tensor, arena.base)
    assert (shape, place.offset) == (tuple(place.view(arena.base).shape), place.end)


# Placements ----------------------------------------------------------------------------------

SHAPE = (4, 3, 5)
STRIDES = {
    "dense": (15, 5, 1),
    "padded": (18, 5, 1),
    "transposed": (5, 20, 1),
    "fused": (30, 5, 1),
    "every second": (30, 10, 2),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", STRIDES)
@pytest.mark.parametrize("shift", [0, 1])
def test_a_placement_gives_the_same_tensor_in_other_memory(
    dtype: torch.dtype, layout: str, shift: int
) -> None:
    arena = Arena(1 << 16)
    arena.reset()
    slab = arena.slab(SHAPE, dtype, STRIDES[layout], shift)
    slab.write(torch.arange(60).view(SHAPE))
    place = Placement.of(slab.tensor, arena.base)
    elsewhere = place.view(torch.from_numpy(arena.base.numpy().copy()))
    assert (SHAPE, STRIDES[layout]) == (tuple(elsewhere.shape), elsewhere.stride())
    assert torch.equal(slab.tensor, elsewhere)
    assert elsewhere.data_ptr() != slab.tensor.data_ptr()
    assert place == Placement.of(place.view(arena.base), arena.base)


def test_a_placement_gives_the_same_tensor_in_the_bytes_of_one_run(arena: Arena) -> None:
    """Whatever the sizes of the tensors around it: the bytes need not be a multiple of 8."""
    wide = arena.slab((2,), torch.int64).write(torch.tensor([3, 4]))
    arena.slab((3,), torch.int8).write(torch.ones(3))
    place = Placement.of(wide, arena.base)
    assert [3, 4] == place.view(torch.from_numpy(arena.bytes(NAN))).tolist()


def test_a_placement_ends_behind_its_last_byte() -> None:
    assert 100 + 2 * (3 * 18 + 2 * 5 + 4 + 1) == Placement(torch.half, 100, SHAPE, (18, 5, 1)).end
    assert 100 == Placement(torch.half, 100, (4, 0), (0, 1)).end
    assert 104 == Placement(torch.int32, 100, (), ()).end


def test_a_place_off_the_elements_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="offset 3 is no multiple of the element size 2"):
        Placement(torch.float16, 3, (1,), (1,)).view(torch.zeros(16, dtype=torch.uint8))


def test_contiguous_strides_are_those_of_torch() -> None:
    for shape in [(2, 3, 4), (1,), (5, 1, 2), (2, 0, 3)]:
        assert torch.empty(shape).stride() == contiguous_strides(shape)


# Shared regions ------------------------------------------------------------------------------


def test_regions_are_the_same_memory_for_whoever_opens_them() -> None:
    ours = Regions()
    theirs = Regions(ours.fd)
    ours[0][:3] = [1, 2, 3]
    theirs[1][:3] = [4, 5, 6]
    assert [1, 2, 3] == theirs[0][:3].tolist()
    assert [4, 5, 6] == ours[1][:3].tolist()


def test_the_regions_of_the_runs_do_not_overlap() -> None:
    regions = Regions()
    first, second = (regions[i].__array_interface__["data"][0] for i in (0, 1))
    assert len(regions[0]) == second - first
    assert not np.shares_memory(regions[0], regions[1])
