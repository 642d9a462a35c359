"""BlockPool and KVCacheManager against what they mean: a number of users for every page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from yaie.cache import BlockPool, KVCacheBlock, KVCacheManager, block_pool

Command = tuple[Any, ...]
i32 = partial(np.array, dtype=np.int32)


def outcome(call: Callable[..., Any], *args: Any) -> Any:
    """What a call returns, or the class of what it raises."""
    try:
        return call(*args)
    except (ValueError, KeyError, RuntimeError) as error:
        return type(error)


# The pool ------------------------------------------------------------------------------------


class PoolModel:
    """A list with each page once for each of its users."""

    def __init__(self, n_pages: int) -> None:
        self.n_pages = n_pages
        self.used: list[int] = []

    @property
    def free_pages(self) -> list[int]:
        return [page for page in range(self.n_pages) if page not in self.used]

    def alloc(self, n: int) -> list[int] | None:
        if n < 0:
            raise ValueError
        if n > len(self.free_pages):
            return None
        pages = self.free_pages[:n]
        self.used += pages
        return pages

    def share(self, pages: list[int]) -> None:
        if any(page not in self.used for page in pages):
            raise ValueError
        self.used += pages

    def free(self, pages: list[int]) -> list[int]:
        if Counter(pages) - Counter(self.used):
            raise ValueError
        released = []
        for page in pages:
            self.used.remove(page)
            if page not in self.used:
                released.append(page)
        return released

    def make_writable(self, page: int) -> tuple[int, tuple[int, int] | None] | None:
        if page not in self.used:
            raise ValueError
        if self.used.count(page) == 1:
            return page, None
        new = self.alloc(1)
        if new is None:
            return None
        self.used.remove(page)
        return new[0], (page, new[0])


@contextmanager
def few(most: int) -> Iterator[None]:
    """A pool that takes up to so many pages one by one, and more at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_pool, "FEW", most)
        yield


page_lists = st.lists(st.integers(-1, 6), max_size=4)
pool_commands = st.one_of(
    st.tuples(st.just("alloc"), st.integers(-1, 6)),
    st.tuples(st.just("share"), page_lists),
    st.tuples(st.just("free"), page_lists),
    st.tuples(st.just("make_writable"), st.integers(-1, 6)),
)
pool_programs = st.lists(pool_commands, max_size=30)


@settings(max_examples=700, deadline=None)
@given(st.sampled_from([0, 2, block_pool.FEW]), st.integers(0, 6), pool_programs)
@example(0, 0, [("alloc", 0), ("alloc", 1)])
@example(2, 1, [("alloc", 1), ("alloc", 1), ("free", [0]), ("free", [0]), ("alloc", 1)])
@example(
    2, 2, [("alloc", 1), ("share", [0]), ("free", [0]), ("alloc", 2), ("free", [0]), ("alloc", 2)]
)
@example(2, 2, [("alloc", 1), ("free", [0, 0])])
@example(2, 3, [("alloc", 1), ("share", [0, 0]), ("make_writable", 0), ("free", [0, 0])])
@example(2, 1, [("alloc", 1), ("share", [0]), ("make_writable", 0), ("free", [0])])
@example(0, 3, [("alloc", 3), ("share", [2, 1]), ("free", [1, 2, 0, 1]), ("alloc", 3)])
@example(0, 3, [("alloc", 3), ("share", [2]), ("free", [0, 2, 0]), ("free", [2, 0, 2])])
def test_a_pool_is_a_number_of_users_for_every_page(
    most: int, n_pages: int, program: list[Command]
) -> None:
    pool, model = BlockPool(n_pages), PoolModel(n_pages)
    for name, *args in program:
        with few(most):
            result = outcome(getattr(pool, name), *args)
        assert outcome(getattr(model, name), *args) == result
        pool.check_integrity()
        assert model.free_pages == pool.free_pages
        assert len(model.free_pages) == pool.n_free
        users = [pool.users(page) for page in range(n_pages)]
        assert [model.used.count(page) for page in range(n_pages)] == users


@pytest.mark.parametrize("most", [0, block_pool.FEW])
@pytest.mark.parametrize(
    ("says", "call", "error"),
    [
        ("BlockPool: n_pages: -1", lambda p: BlockPool(-1), ValueError),
        ("BlockPool: n_pages: 1.0", lambda p: BlockPool(1.0), TypeError),
        ("BlockPool.alloc: n: -1", lambda p: p.alloc(-1), ValueError),
        ("BlockPool.alloc: n: True", lambda p: p.alloc(True), TypeError),
        ("BlockPool.share: pages: unknown page 3 of 3", lambda p: p.share([0, 3]), ValueError),
        ("BlockPool.share: pages: page 2 is free", lambda p: p.share([0, 2]), ValueError),
        ("BlockPool.free: pages: unknown page -1", lambda p: p.free([0, -1]), ValueError),
        ("BlockPool.free: pages: 0 given 2 times", lambda p: p.free([1, 0, 0]), ValueError),
        ("BlockPool.free: pages: 0 given 2 times", lambda p: p.free(i32([1, 0, 0])), ValueError),
        ("BlockPool.free: pages: 0.0 is not", lambda p: p.free([1, 0.0]), TypeError),
        ("BlockPool.free: pages: True is not", lambda p: p.free([0, True]), TypeError),
        ("BlockPool.share: pages: unknown page 3", lambda p: p.share(i32([0, 3])), ValueError),
        ("BlockPool.share: pages", lambda p: p.share([0, 2**40]), ValueError),
        ("BlockPool.share: pages", lambda p: p.share(np.array([0.0, 1.0])), TypeError),
        ("BlockPool.make_writable: page: page 2", lambda p: p.make_writable(2), ValueError),
        ("BlockPool.users: page: unknown page 9", lambda p: p.users(9), ValueError),
    ],
)
def test_a_pool_names_bad_input_and_changes_nothing(
    says: str, call: Callable[[Any], None], error: type[Exception], most: int
) -> None:
    pool = BlockPool(3)
    pool.alloc(2)
    with few(most), pytest.raises(error, match=says):
        call(pool)
    assert [1, 1, 0] == [pool.users(page) for page in range(3)]
    pool.check_integrity()


def test_pages_come_lowest_first() -> None:
    pool = BlockPool(6)
    assert [0, 1, 2, 3, 4, 5] == pool.alloc(6)
    pool.free([4, 1, 5])
    assert [1, 4] == pool.alloc(2)


@pytest.mark.parametrize("given", [list, tuple, iter, i32])
def test_pages_are_given_as_integers_of_any_kind(given: Callable[[list[int]], Any]) -> None:
    pages = list(range(2 * block_pool.FEW))
    for n in (2, len(pages)):
        pool = BlockPool(len(pages))
        pool.alloc(n)
        pool.share(given(pages[:n]))
        assert [] == pool.free(given(pages[:n]))
        released = pool.free(given(pages[:n]))
        assert (pages[:n], {int}) == (released, set(map(type, released)))


def test_many_pages_in_a_pool_full_of_holes() -> None:
    pool = BlockPool(10_000)
    pages = pool.alloc(10_000)
    pool.free(pages[::7])
    assert pages[::7][:1000] == pool.alloc(1000)
    assert pages[::7][1000:] == pool.alloc(pool.n_free)
    assert None is pool.alloc(1)
    pool.check_integrity()


def test_the_pool_check_finds() -> None:
    for change, says in (
        (lambda p: p._free.__setitem__(0, 1), "have no users"),
        (lambda p: p._users.__setitem__(0, -1), "fewer than 0"),
        (lambda p: p._users.__setitem__(0, 0), "have no users"),
        (lambda p: setattr(p, "_n_free", 2), "1 pages are free, 2 counted"),
        (lambda p: setattr(p, "_lowest", 3), "the search starts at 3"),
    ):
        pool = BlockPool(3)
        pool.alloc(2)
        change(pool)
        with pytest.raises(AssertionError, match=says):
            pool.check_integrity()


# The manager ---------------------------------------------------------------------------------


class ManagerModel:
    """The tokens of each request, as the block that holds each: no counts, no free list."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks, self.block_size = num_blocks, block_size
        self.slots: dict[str, list[int]] = {}  # the block of each token

    def table(self, request_id: str) -> list[int]:
        return list(dict.fromkeys(self.slots[request_id]))

    @property
    def free_block_list(self) -> list[int]:
        used = {block for slots in self.slots.values() for block in slots}
        return [block for block in range(self.num_blocks) if block not in used]

    def allocate_blocks(self, request_id: str, num_tokens: int) -> list[int]:
        if request_id in self.slots or num_tokens < 0:
            raise ValueError
        self.slots[request_id] = []
        try:
            return self.append_tokens(request_id, num_tokens)
        except RuntimeError:
            del self.slots[request_id]
            raise

    def append_tokens(self, request_id: str, n: int) -> list[int]:
        slots = list(self.slots[request_id])
        if n < 0:
            raise ValueError
        free = self.free_block_list
        new = []
        for _ in range(n):
            if len(slots) % self.block_size == 0:
                if not free:
                    raise RuntimeError
                new.append(free.pop(0))
            slots.append(new[-1] if new else slots[-1])
        self.slots[request_id] = slots
        return new

    def share(self, src_id: str, dst_id: str, num_tokens: int) -> list[int]:
        slots = self.slots[src_id]
        if dst_id in self.slots or not 0 <= num_tokens <= len(slots):
            raise ValueError
        self.slots[dst_id] = slots[:num_tokens]
        return self.table(dst_id)

    def make_writable(self, request_id: str, index: int) -> tuple[int, int] | None:
        table = self.table(request_id)
        if not 0 <= index < len(table):
            raise ValueError
        old = table[index]
        if sum(old in slots for slots in self.slots.values()) == 1:
            return None
        if not self.free_block_list:
            raise RuntimeError
        new = self.free_block_list[0]
        self.slots[request_id] = [new if b == old else b for b in self.slots[request_id]]
        return old, new

    def free_blocks(self, request_id: str) -> list[int]:
        table = self.table(request_id)
        del self.slots[request_id]
        return [block for block in table if block in self.free_block_list]


ids = st.sampled_from("abc")
manager_commands = st.one_of(
    st.tuples(st.just("allocate_blocks"), ids, st.integers(-1, 9)),
    st.tuples(st.just("append_tokens"), ids, st.integers(-1, 4)),
    st.tuples(st.just("share"), ids, ids, st.integers(-1, 9)),
    st.tuples(st.just("make_writable"), ids, st.integers(-1, 4)),
    st.tuples(st.just("free_blocks"), ids),
)


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 6), st.integers(1, 3), st.lists(manager_commands, max_size=25))
@example(2, 2, [("allocate_blocks", "a", 3), ("share", "a", "b", 3), ("free_blocks", "a")])
@example(3, 2, [("allocate_blocks", "a", 3), ("share", "a", "b", 3), ("make_writable", "b", 1)])
@example(1, 1, [("allocate_blocks", "a", 1), ("share", "a", "b", 1), ("make_writable", "b", 0)])
def test_a_manager_knows_the_block_of_every_token(
    num_blocks: int, block_size: int, program: list[Command]
) -> None:
    manager = KVCacheManager(num_blocks, block_size, 1, 1, device="cpu")
    model = ManagerModel(num_blocks, block_size)
    for name, *args in program:
        assert outcome(getattr(model, name), *args) == outcome(getattr(manager, name), *args)
        manager.check_integrity()
        assert model.free_block_list == manager.free_block_list
        assert {i: model.table(i) for i in model.slots} == manager.block_tables
        assert {i: len(slots) for i, slots in model.slots.items()} == manager.num_tokens


@pytest.fixture
def manager() -> KVCacheManager:
    """Four blocks of two tokens; 'a' has three of them."""
    manager = KVCacheManager(4, 2, 3, 5, dtype=torch.float32, device="cpu")
    manager.allocate_blocks("a", 5)
    return manager


def test_blocks_are_views_of_one_tensor(manager: KVCacheManager) -> None:
    assert (4, 2, 3, 5) == tuple(manager.k_cache.shape) == tuple(manager.v_cache.shape)
    for i, block in enumerate(manager.blocks):
        assert i == block.block_id
        block.keys[:], block.values[:] = i + 1, -i - 1
        block.allocate()
    assert [30.0, 60.0, 90.0, 120.0] == manager.k_cache.sum((1, 2, 3)).tolist()
    assert [-30.0, -60.0, -90.0, -120.0] == manager.v_cache.sum((1, 2, 3)).tolist()


def test_a_block_of_its_own_gets_storage_once() -> None:
    block = KVCacheBlock(7, 16, 8, 64)
    assert (None, None) == (block.keys, block.values)
    block.allocate()
    assert ((16, 8, 64), torch.float16) == (tuple(block.keys.shape), block.keys.dtype)
    assert 0 == block.values.abs().max()
    block.keys[:] = 1
    block.allocate()
    assert 1 == block.keys.min()


def test_block_tables_are_padded_with_minus_one(manager: KVCacheManager) -> None:
    manager.share("a", "b", 2)
    manager.allocate_blocks("c", 0)
    tables = manager.block_table_tensor(["b", "a", "c"])
    assert torch.int32 == tables.dtype
    assert [[0, -1, -1], [0, 1, 2], [-1, -1, -1]] == tables.tolist()
    assert (0, 0) == tuple(manager.block_table_tensor([]).shape)


def test_a_returned_list_is_not_the_table() -> None:
    manager = KVCacheManager(4, 2, 1, 1, device="cpu")
    manager.allocate_blocks("a", 4).clear()
    manager.share("a", "b", 4).clear()
    manager.append_tokens("b", 1).clear()
    manager.free_block_list.clear()
    manager.check_integrity()


@pytest.mark.parametrize(
    ("says", "call", "error"),
    [
        ("need 2, have 1", lambda m: m.allocate_blocks("b", 3), RuntimeError),
        ("need 2, have 1", lambda m: m.append_tokens("a", 4), RuntimeError),
        (
            "allocate_blocks: request_id: 'a' holds",
            lambda m: m.allocate_blocks("a", 1),
            ValueError,
        ),
        ("allocate_blocks: request_id: 7 is", lambda m: m.allocate_blocks(7, 1), TypeError),
        ("allocate_blocks: num_tokens: -1", lambda m: m.allocate_blocks("b", -1), ValueError),
        ("allocate_blocks: num_tokens: 1.5", lambda m: m.allocate_blocks("b", 1.5), TypeError),
        ("append_tokens: n: -1", lambda m: m.append_tokens("a", -1), ValueError),
        ("append_tokens: request_id: 'b' is unknown", lambda m: m.append_tokens("b", 1), KeyError),
        ("share: num_tokens: 6, 'a' has 5", lambda m: m.share("a", "b", 6), ValueError),
        ("share: dst_id: 'a' holds", lambda m: m.share("a", "a", 1), ValueError),
        ("share: src_id: 'b' is unknown", lambda m: m.share("b", "c", 1), KeyError),
        ("make_writable: index: 3, 'a' has 3", lambda m: m.make_writable("a", 3), ValueError),
        ("make_writable: index: -1", lambda m: m.make_writable("a", -1), ValueError),
        ("make_writable: request_id: 'b'", lambda m: m.make_writable("b", 0), KeyError),
        ("free_blocks: request_id: 'b' is unknown", lambda m: m.free_blocks("b"), KeyError),
        ("block_table_tensor: request_ids: 'b'", lambda m: m.block_table_tensor(["b"]), KeyError),
        ("num_blocks: -1", lambda m: KVCacheManager(-1, 1, 1, 1), ValueError),
        ("block_size: 0", lambda m: KVCacheManager(1, 0, 1, 1), ValueError),
        ("num_heads: 0", lambda m: KVCacheManager(1, 1, 0, 1), ValueError),
        ("head_dim: 1.0", lambda m: KVCacheManager(1, 1, 1, 1.0), TypeError),
        ("dtype: torch.int32", lambda m: KVCacheManager(1, 1, 1, 1, torch.int32), TypeError),
        ("KVCacheBlock: size: 0", lambda m: KVCacheBlock(0, 0, 1, 1), ValueError),
    ],
)
def test_a_manager_names_bad_input_and_changes_nothing(
    manager: KVCacheManager, says: str, call: Callable[[Any], None], error: type[Exception]
) -> None:
    with pytest.raises(error, match=says):
        call(manager)
    manager.check_integrity()
    assert ({"a": [0, 1, 2]}, {"a": 5}) == (manager.block_tables, manager.num_tokens)
    assert [3] == manager.free_block_list


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m.block_tables["a"].append(3), "has 1 users, not 0"),
        (lambda m: m.block_tables.pop("a"), "tables and lengths differ"),
        (lambda m: m.num_tokens.update(a=9), "has 3 blocks, needs 5"),
        (lambda m: m._pool.share([0]), "has 1 users, not 2"),
    ],
)
def test_the_manager_check_finds(
    manager: KVCacheManager, change: Callable[[KVCacheManager], None], says: str
) -> None:
    manager.check_integrity()
    change(manager)
    with pytest.raises(AssertionError, match=says):
        manager.check_integrity()
