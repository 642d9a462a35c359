"""The references of the gather and prefix ops by hand: small worked examples, known answers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from yaie import ops
from yaie.arena import Arena
from yaie.fill import Fill
from yaie.op import Cost
from yaie.ops._tree import tokens_of
from yaie.ops.common_prefix_len import Case as Pairs
from yaie.ops.gather_kv import Case as Gather
from yaie.ops.gather_slots import Case as Slots
from yaie.ops.match_tree import Case as Match


def ints(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


# Gather --------------------------------------------------------------------------------------

TABLE = torch.tensor([[3, 0, -1], [2, 2, 1]], dtype=torch.int32)


@pytest.mark.parametrize(
    ("indptr", "start", "expected"),
    [
        ((0, 3, 5), None, [6, 7, 0, 4, 5]),  # pages 3 and 0, page 2
        ((0, 2, 5), (2, 1), [0, 1, 5, 4, 5]),  # the second half of the row; inside page 2, again
        ((0, 0, 2), (4, 4), [2, 3]),  # nothing of the first, the last page of the second
        ((0, 0, 0), None, []),
        ((0, 1, 1), (3, 6), [1]),
    ],
)
def test_slots_by_hand(indptr: tuple[int, ...], start: Any, expected: list[int]) -> None:
    start = None if start is None else ints(*start)
    slots = ops.gather_slots(TABLE, ints(*indptr), start, page_size=2, kernel="reference")
    assert expected == slots.tolist()


def test_gathered_rows_are_those_of_the_slots() -> None:
    k = torch.arange(8.0).reshape(4, 2, 1, 1)
    got_k, got_v = ops.gather_kv(k, -k, TABLE, ints(0, 3, 5), ints(1, 3), kernel="reference")
    assert [7.0, 0.0, 1.0, 5.0, 2.0] == got_k.flatten().tolist()
    assert torch.equal(-got_k, got_v)


@pytest.mark.parametrize("kernel", ["reference", "torch.eager"])
def test_a_total_is_read_where_the_caller_gives_none(kernel: str) -> None:
    given = (TABLE, ints(0, 3, 5))
    known = ops.gather_slots(*given, page_size=2, total=5, kernel=kernel)
    assert known.tolist() == ops.gather_slots(*given, page_size=2, kernel=kernel).tolist()


def test_without_checks_a_negative_end_is_an_error_all_the_same() -> None:
    from yaie import checked

    with checked(False), pytest.raises(ValueError, match="kv_indptr: ends with -3"):
        ops.gather_slots(TABLE, ints(0, 3, -3), page_size=2)


def test_gather_keeps_nan_payloads() -> None:
    raw = torch.tensor([0x7C01, 0x7E07, -0x03FF, -0x8000], dtype=torch.int16)
    cache = raw.view(torch.float16).view(1, 1, 1, 4)
    table, indptr = torch.zeros(1, 1, dtype=torch.int32), ints(0, 1)
    for kernel in ("reference", "torch.eager"):
        k, _ = ops.gather_kv(cache, cache, table, indptr, kernel=kernel)
        assert raw.tolist() == k.view(torch.int16).flatten().tolist()


# Prefixes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "page", "expected"),
    [
        ([], [], 1, 0),
        ([], [1], 1, 0),
        ([1, 2, 3], [1, 2, 3], 1, 3),
        ([1, 2, 3], [1, 2, 3], 2, 2),
        ([1, 2], [1, 2, 3], 1, 2),
        ([1, 2, 9, 4], [1, 2, 3, 4], 1, 2),  # equal again behind the difference
        ([1, 2, 9, 4], [1, 2, 3, 4], 2, 2),
        ([1, 2, 3, 9], [1, 2, 3, 4], 4, 0),  # the last token of a page
        ([1, 65536], [1, 0], 1, 1),
        ([-1, -(2**31)], [-1, 2**31 - 1], 1, 1),
    ],
)
@pytest.mark.parametrize("kernel", ["reference", "torch.eager"])
def test_prefixes_by_hand(
    a: list[int], b: list[int], page: int, expected: int, kernel: str
) -> None:
    given = (ints(*a), ints(0, len(a)), ints(*b), ints(0, len(b)))
    assert [expected] == ops.common_prefix_len(*given, page=page, kernel=kernel).tolist()


# root - (5 6 7 8) 1 - (1 2) 3
#      - (5 9) 2     - (3 4) 4
TREE = {
    "edge_tokens": ints(5, 6, 7, 8, 5, 9, 1, 2, 3, 4),
    "edge_indptr": ints(0, 0, 4, 6, 8, 10),
    "child_indptr": ints(0, 2, 4, 4, 4, 4),
    "children": ints(2, 1, 4, 3),
}


@pytest.mark.parametrize(
    ("query", "matched", "node"),
    [
        ([], 0, 0),
        ([5], 0, 0),  # half a page
        ([6, 5], 0, 0),
        ([5, 9], 2, 2),
        ([5, 9, 5, 9], 2, 2),  # a leaf
        ([5, 6], 2, 1),  # inside the edge
        ([5, 6, 7], 2, 1),
        ([5, 6, 7, 9], 2, 1),
        ([5, 6, 7, 8], 4, 1),
        ([5, 6, 7, 8, 1, 3], 4, 1),
        ([5, 6, 7, 8, 1, 2, 3], 6, 3),
        ([5, 6, 7, 8, 3, 4, 1, 2], 6, 4),
    ],
)
@pytest.mark.parametrize("kernel", ["reference", "torch.eager"])
def test_walks_by_hand(query: list[int], matched: int, node: int, kernel: str) -> None:
    given = {**TREE, "query": ints(*query), "q_indptr": ints(0, len(query))}
    got = ops.match_tree(**given, page=2, kernel=kernel)
    assert ([matched], [node]) == (got[0].tolist(), got[1].tolist())


def test_a_case_grows_a_tree_that_holds_its_prompts() -> None:
    case = Match(prompts=((0, 0, 1), (0, 0, 1, 1), (0, 1)), queries=(), page=1)
    assert {(), (0,), (0, 0, 1), (0, 0, 1, 1), (0, 1)} == set(case.tree.paths)
    assert all(child > i for i, row in enumerate(case.tree.children) for child in row)


def test_a_case_knows_where_its_queries_stop() -> None:
    queries = ((), (1,), (0,), (0, 0), (0, 0, 1, 1), (0, 1, 1))
    case = Match(prompts=((0, 0, 1, 1), (0, 1)), queries=queries)
    stops = [(0, "root"), (0, "root"), (1, "node"), (2, "edge"), (4, "node"), (2, "node")]
    assert stops == [(matched, where) for matched, where, _ in case.stops()]
    args, options = ops.match_tree.inputs(case, Fill(Arena(), 0))
    assert [node for *_, node in case.stops()] == ops.match_tree(**args, **options)[1].tolist()


def test_letters_are_tokens_one_bit_apart() -> None:
    zero, *others = tokens_of("bits", 123_456_789, [tuple(range(200))])[0]
    assert len({zero, *others}) == 200
    assert [1 << bit for bit in range(32)] == [(zero ^ token) % 2**32 for token in others[:32]]


# Costs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "case", "expected"),
    [
        # 5 and 3 rows of 2 heads x (8 + 4) x 2 bytes, read and written; 2 + 1 entries, 3 bounds
        ("gather_kv", Gather(lens=(5, 3), Dv=4), Cost(2 * 8 * 2 * 12 * 2 + 4 * (3 + 3))),
        # positions 3..5 lie in pages 0 and 1; the starts are read too
        ("gather_kv", Gather(lens=(3,), starts=(3,)), Cost(2 * 3 * 2 * 16 * 2 + 4 * (2 + 2 + 1))),
        # both start with one page of 4 slots, of which the second reads 3
        ("gather_kv", Gather(lens=(5, 3), table="shared"),
         Cost((8 + 5) * 2 * 16 * 2 + 4 * (3 + 3))),
        ("gather_kv", Gather(lens=()), Cost(4)),
        ("gather_slots", Slots(lens=(5, 3)), Cost(4 * (8 + 3 + 3))),
        # 2 shared tokens and one more on both sides, 3 of 3; 2 x 3 bounds, 2 lengths
        ("common_prefix_len", Pairs(), Cost(4 * (2 * (3 + 3) + 6 + 2))),
        # the page in which they differ is read whole: 4 of 5 and 4; all of 3 and 3
        ("common_prefix_len", Pairs(page=4), Cost(4 * (2 * (4 + 3) + 6 + 2))),
        # 4 tokens of 4, 2 of 2, 1 of 1; 4 bounds, 3 x 2 results
        ("match_tree", Match(), Cost(4 * (2 * (4 + 2 + 1) + 4 + 6))),
    ],
)  # fmt: skip
def test_costs_counted_by_hand(op: str, case: Any, expected: Cost) -> None:
    assert expected == ops.get(op).cost(case)


@pytest.mark.parametrize("starts", [(), (0, 5, 2), (3, 0, 9)])
@pytest.mark.parametrize("table", ["permuted", "shared"])
def test_slots_read_are_those_of_the_tensors(starts: tuple[int, ...], table: str) -> None:
    case = Slots(lens=(6, 2, 7), starts=starts, S=4, table=table)
    args, options = ops.get("gather_slots").inputs(case, Fill(Arena(1 << 20), 0))
    slots = ops.gather_slots(**args, **options, kernel="reference")
    assert case.slots_read() == len(slots.unique())
