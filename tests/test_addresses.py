"""What the kernels are given under AddressSanitizer: copies of a Case's tensors on the heap."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from conformance import addresses
from conformance.addresses import Heap, in_child, on_heap
from yaie import ops
from yaie.arena import ALIGNMENT, Arena
from yaie.fill import LAYOUTS, Fill


def tensors(layout: str, arena: Arena) -> list[Tensor]:
    fill = Fill(arena, 0)
    values = torch.arange(3 * 2 * 5, dtype=torch.float32).reshape(3, 2, 5)
    return [
        fill.tensor(values[:, :1].expand(3, 2, 5), torch.float16, layout),
        fill.tensor(values[:0], torch.float32, layout),
        fill.ints([1, 2, 3]),
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_copies_are_the_same_tensors_elsewhere(layout: str) -> None:
    arena = Arena()
    heap = Heap(arena)
    for tensor in tensors(layout, arena):
        copy = heap.copy(tensor)
        assert torch.equal(tensor, copy)
        assert (tensor.stride(), tensor.dtype) == (copy.stride(), copy.dtype)
        if tensor.numel():
            assert tensor.data_ptr() % ALIGNMENT == copy.data_ptr() % ALIGNMENT
            assert tensor.data_ptr() != copy.data_ptr()
    heap.free()


def test_all_arguments_of_a_call_are_moved() -> None:
    op = ops.get("copy_blocks")
    arena = Arena()
    args, _ = op.inputs(op.good, Fill(arena, op.good.seed))
    with on_heap(args, arena, 0) as moved:
        assert list(args) == list(moved)
        for old, new in zip(args["caches"], moved["caches"], strict=True):
            assert torch.equal(old.view(torch.uint8), new.view(torch.uint8))
            assert old.data_ptr() != new.data_ptr()


def test_no_cases_are_no_run(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["addresses", "--cases", "0"])
    with pytest.raises(SystemExit) as ended:
        addresses.main()
    assert 2 == ended.value.code
    assert "must be a whole number from 1 on" in capsys.readouterr().err


def test_a_kernel_without_a_finding_ends_well() -> None:
    assert in_child("merge_states simt.naive", 2) is None


def test_what_ends_a_process_is_told_with_its_case(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(heap: Heap, tensor: Tensor, missing: int = 0) -> Tensor:
        raise MemoryError("no room at all")

    monkeypatch.setattr(Heap, "copy", fails)
    told = in_child("merge_states simt.naive", 2)
    assert told is not None
    assert told.startswith("merge_states simt.naive on merge_states.Case(")
    assert "no room at all" in told
