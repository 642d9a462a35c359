"""RadixTree against what it means: a set of page-prefixes, and a set of prompts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.plain_radix import PlainRadixTree
from yaie.cache import RadixTree, radix_tree

Tokens = tuple[int, ...]

# What it means -------------------------------------------------------------------------------


@dataclass
class Page:
    page: int
    born: int
    last_use: int
    locks: int = 0


class Model:
    """Dictionaries: page-prefix -> page, and request -> prompt."""

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.present: dict[Tokens, Page] = {}
        self.requests: dict[str, Tokens] = {}
        self.clock = 0

    def prefixes(self, tokens: Tokens) -> list[Tokens]:
        s = self.page_size
        return [tokens[:end] for end in range(s, len(tokens) + 1, s)]

    def refresh(self, chain: list[Tokens]) -> None:
        self.clock += 1
        for prefix in chain:
            self.present[prefix].last_use = self.clock

    def match(self, tokens: Tokens) -> tuple[list[int], tuple[Tokens, int]]:
        chain = [p for p in self.prefixes(tokens) if p in self.present]
        self.refresh(chain)
        pages = [self.present[p].page for p in chain]
        return pages, (chain[-1], self.present[chain[-1]].born) if chain else ((), 0)

    def insert(self, tokens: Tokens, pages: list[int]) -> int:
        chain = self.prefixes(tokens)
        if len(pages) < len(chain):
            raise ValueError
        cached = sum(p in self.present for p in chain)
        for prefix, page in zip(chain, pages, strict=False):
            self.present.setdefault(prefix, Page(page, self.clock + 1, 0))
        self.refresh(chain)
        return cached * self.page_size

    def locks(self, prefix: Tokens) -> int:
        """A lock of a prefix protects all that it extends."""
        return sum(x.locks for p, x in self.present.items() if p[: len(prefix)] == prefix)

    def alive(self, node: tuple[Tokens, int]) -> Page | None:
        prefix, born = node
        if not prefix:
            return None
        if prefix not in self.present or self.present[prefix].born != born:
            raise ValueError
        return self.present[prefix]

    def lock(self, node: tuple[Tokens, int]) -> None:
        if page := self.alive(node):
            page.locks += 1

    def unlock(self, node: tuple[Tokens, int]) -> None:
        if page := self.alive(node):
            if not page.locks:
                raise ValueError
            page.locks -= 1

    def evict(self, n_pages: int) -> list[int]:
        gone = []
        while len(gone) < n_pages:
            extended = {p[: -self.page_size] for p in self.present}
            leaves = [p for p in self.present if p not in extended and not self.locks(p)]
            if not leaves:
                break
            oldest = min(leaves, key=lambda p: self.present[p].last_use)
            gone.append(self.present.pop(oldest).page)
        return gone

    def reset(self) -> list[int]:
        if self.protected:
            raise ValueError
        return self.evict(len(self.present))

    @property
    def protected(self) -> int:
        return sum(self.locks(p) > 0 for p in self.present)

    @property
    def evictable(self) -> int:
        return len(self.present) - self.protected

    def insert_request(self, request_id: str, tokens: Tokens) -> None:
        if self.requests.setdefault(request_id, tokens) != tokens:
            raise ValueError

    def remove_request(self, request_id: str) -> None:
        del self.requests[request_id]

    def passing(self, prefix: Tokens) -> list[str]:
        return sorted(i for i, t in self.requests.items() if t[: len(prefix)] == prefix)

    def find_shared_prefixes(self, tokens: Tokens) -> tuple[list[str], int]:
        shared = [n for n in range(1, len(tokens) + 1) if self.passing(tokens[:n])]
        return (self.passing(tokens[:1]), max(shared)) if shared else ([], 0)

    def get_shared_computation_graph(self) -> dict[str, Any]:
        """Prefixes through which the same requests pass are one node with their parent's."""
        prefixes = sorted({t[:n] for t in self.requests.values() for n in range(len(t) + 1)})
        first: dict[Tokens, Tokens] = {}  # prefix -> the shortest prefix of its node
        for p in prefixes:
            joined = len(p) > 1 and self.passing(p) == self.passing(p[:-1])
            first[p] = first[p[:-1]] if joined else p
        starts = [p for p in prefixes if first[p] == p] or [()]
        nodes = []
        for i, p in enumerate(starts):
            longest = max((q for q in prefixes if first[q] == p), key=len, default=())
            parent = starts.index(first[p[:-1]]) if p else None
            tokens = list(longest[len(p) - 1 :]) if p else []
            nodes.append({"id": i, "parent": parent, "tokens": tokens, "requests": self.passing(p)})
        total = sum(map(len, self.requests.values()))
        unique = sum(1 for p in prefixes if p)
        return {
            "request_count": len(self.requests),
            "node_count": len(nodes),
            "total_tokens": total,
            "unique_tokens": unique,
            "shared_tokens": total - unique,
            "nodes": nodes,
        }


# Programs ------------------------------------------------------------------------------------

Command = tuple[Any, ...]

prompts = st.one_of(
    st.lists(st.integers(0, 1), max_size=8).map(tuple),
    st.builds(lambda n, one: (0,) * n + (1,) * one, st.integers(0, 8), st.integers(0, 2)),
)
"""Few tokens, so that prompts collide; half of them leave one stem, early or late."""
ids = st.sampled_from("abcd")
cache_commands = st.one_of(
    st.tuples(st.just("match"), prompts),
    st.tuples(st.just("insert"), prompts),
    st.tuples(st.just("lock"), st.integers(0, 7)),
    st.tuples(st.just("unlock"), st.integers(0, 7)),
    st.tuples(st.just("evict"), st.integers(0, 9)),
    st.just(("reset",)),
)
request_commands = st.one_of(
    st.tuples(st.just("insert_request"), ids, prompts),
    st.tuples(st.just("remove_request"), ids),
    st.tuples(st.just("find_shared_prefixes"), prompts),
    st.just(("get_shared_computation_graph",)),
)


def outcome(call: Callable[..., Any], *args: Any) -> Any:
    """What a call returns, with arrays as lists, or the class of what it raises."""
    try:
        result = call(*args)
    except (ValueError, KeyError) as error:
        return type(error)
    return result.tolist() if isinstance(result, np.ndarray) else result


class Pair:
    """The tree and its meaning, told the same commands."""

    def __init__(self, page_size: int) -> None:
        self.tree, self.model = RadixTree(page_size), Model(page_size)
        self.nodes: list[tuple[Any, Any]] = []
        self.fresh = 0

    def run(self, command: Command) -> None:
        name, *args = command
        if name == "match":
            pages, node = self.tree.match(list(args[0]))
            expected, meaning = self.model.match(*args)
            assert expected == pages.tolist()
            self.nodes.append((node, meaning))
        elif name in ("lock", "unlock"):
            if self.nodes:
                node, meaning = self.nodes[args[0] % len(self.nodes)]
                self.same(name, (node,), (meaning,))
        elif name == "insert":
            self.fresh += 100
            pages = [self.fresh + i for i in range(len(args[0]) // self.model.page_size)]
            self.same(name, (list(args[0]), pages), (args[0], pages))
        else:
            self.same(name, args, args)
        self.tree.check_integrity()
        assert self.model.protected == self.tree.protected
        assert self.model.evictable == self.tree.evictable

    def same(self, name: str, args: Any, model_args: Any) -> None:
        expected = outcome(getattr(self.model, name), *model_args)
        assert expected == outcome(getattr(self.tree, name), *args)

    def drain(self) -> None:
        """Take back every lock and evict everything, a page at a time: the order is the state."""
        for node, meaning in self.nodes:
            while outcome(self.model.unlock, meaning) is None and meaning[0]:
                assert outcome(self.tree.unlock, node) is None
        for _ in range(len(self.model.present) + 1):
            self.run(("evict", 1))
        for request_id in list(self.model.requests):
            self.run(("remove_request", request_id))
        assert [] == list(self.tree._root.children)


def run(page_size: int, program: list[Command], at_once: int = 4) -> None:
    with mock.patch.object(radix_tree, "AT_ONCE", at_once):
        pair = Pair(page_size)
        for command in program:
            pair.run(command)
        pair.drain()


LOOK = ("match", (0, 1))
STALE_STAMP = [
    ("insert", (0,) * 6),
    ("insert", (1,)),
    ("evict", 4),
    ("insert", (0,)),
    ("evict", 2),
]
LOCKED_WHILE_QUEUED = [
    *(("insert", (0,)), ("insert", (1,)), ("match", (0,))),
    *(("evict", 1), ("lock", 0), ("evict", 9)),
]
SPLIT_BEHIND_A_PAGE = [
    *(("insert", (0, 0, 0, 0, 0, 0)), ("insert", (0, 0, 0, 0, 0, 1)), ("match", (0, 0, 0))),
    *(("match", (0, 0, 0, 0, 0, 1)), ("insert", (0, 0, 0, 0, 1, 1))),
]


@settings(max_examples=400, deadline=None)
@given(
    st.integers(1, 3),
    st.lists(cache_commands, max_size=30),
    st.sampled_from((4, radix_tree.AT_ONCE)),
)
@example(1, STALE_STAMP, 4)
@example(1, [("insert", (0, 1)), LOOK, ("lock", 0), ("insert", (0,)), ("evict", 9)], 4)
@example(1, [("insert", (0, 1)), LOOK, ("lock", 0), ("match", (0,)), ("unlock", 0)], 4)
@example(1, [("insert", (0, 1)), ("match", (0,)), ("lock", 0), ("evict", 9), ("unlock", 0)], 4)
@example(1, [("insert", (0, 0)), ("insert", (0, 1)), LOOK, ("lock", 0)], 4)
@example(1, [("insert", (0, 1)), LOOK, ("evict", 1), ("insert", (0, 1)), ("lock", 0)], 4)
@example(1, LOCKED_WHILE_QUEUED, 4)
@example(3, [*SPLIT_BEHIND_A_PAGE, ("lock", 0), ("evict", 9)], 4)
@example(3, [*SPLIT_BEHIND_A_PAGE[:3], ("lock", 0), *SPLIT_BEHIND_A_PAGE[3:], ("unlock", 0)], 4)
@example(3, [*SPLIT_BEHIND_A_PAGE, ("lock", 1), ("insert", (0, 0, 0, 1, 1, 1)), ("unlock", 1)], 4)
def test_the_cache_face_is_a_set_of_page_prefixes(
    page_size: int, program: list[Command], at_once: int
) -> None:
    run(page_size, program, at_once)


@settings(max_examples=200, deadline=None)
@given(st.lists(request_commands, max_size=20))
def test_the_request_face_is_a_set_of_prompts(program: list[Command]) -> None:
    run(1, program)


A_OF_FOUR = ("insert_request", "a", (0, 0, 0, 0))
A_OF_FIVE = ("insert_request", "a", (0, 0, 0, 0, 0))
FIND_TWO = ("find_shared_prefixes", (0, 0))


@settings(max_examples=400, deadline=None)
@given(st.integers(1, 3), st.lists(st.one_of(cache_commands, request_commands), max_size=30))
@example(2, [("insert_request", "a", (0, 0, 1)), ("insert", (0, 0, 0, 0)), ("evict", 2)])
@example(2, [("insert", (0, 0, 0, 0)), ("insert_request", "a", (0, 0, 0)), ("evict", 1)])
@example(1, [A_OF_FOUR, ("insert", (0,) * 4), ("evict", 2), ("insert", (0,) * 4)])
@example(1, [("insert_request", "a", (0,)), ("insert", (0, 0, 0)), FIND_TWO])
@example(1, [("insert", (0, 0, 0)), ("insert_request", "a", (0,)), FIND_TWO])
@example(3, [("insert", (0,) * 6), A_OF_FIVE, ("insert", (0, 0, 0, 0, 1, 1)), FIND_TWO])
def test_neither_face_shows_in_the_other(page_size: int, program: list[Command]) -> None:
    run(page_size, program)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from((1, 4, 16)))
def test_long_prompts_agree_with_the_plain_tree(seed: int, page_size: int) -> None:
    """Edges of hundreds of tokens, which programs of two tokens never grow."""
    rng = np.random.default_rng(seed)
    tree, plain = RadixTree(page_size), PlainRadixTree(page_size)
    stems = [rng.integers(0, 3, 2000, dtype=np.int32) for _ in range(3)]
    for i in range(40):
        stem, end = stems[rng.integers(3)], int(rng.integers(1, 2000))
        tokens = np.concatenate([stem[:end], rng.integers(0, 3, rng.integers(50), dtype=np.int32)])
        pages = [i * 10_000 + j for j in range(len(tokens) // page_size)]
        assert plain.insert(tokens.tolist(), pages) == tree.insert(tokens, pages)
        assert plain.match(stem[:end].tolist())[0] == tree.match(stem[:end])[0].tolist()
        n = int(rng.integers(0, 400))
        assert plain.evict(n) == tree.evict(n).tolist()
        tree.check_integrity()
    assert plain.evict(10**6) == tree.evict(10**6).tolist()


# Single facts --------------------------------------------------------------------------------


def test_lists_arrays_and_tensors_are_the_same_tokens() -> None:
    tokens = [3, -1, 2**31 - 1, 3]
    kinds = [
        tokens,
        tuple(tokens),
        np.array(tokens, np.int32),
        np.array(tokens, np.int64),
        np.array([3, 0, -1, 0, 2**31 - 1, 0, 3, 0], np.int32)[::2],
        torch.tensor(tokens),
        torch.tensor(tokens, dtype=torch.int32),
        [np.int64(t) for t in tokens],
    ]
    tree = RadixTree()
    assert 0 == tree.insert(tokens, [10, 11, 12, 13])
    for kind in kinds:
        assert 4 == tree.insert(kind, kind)
        assert [10, 11, 12, 13] == tree.match(kind)[0].tolist()


def test_the_tree_shares_no_memory_with_its_caller() -> None:
    tokens, pages = np.arange(4, dtype=np.int32), np.arange(10, 14, dtype=np.int32)
    tree = RadixTree()
    tree.insert(tokens, pages)
    tokens[:], pages[:] = 7, 7
    found, _ = tree.match([0, 1, 2, 3])
    assert [10, 11, 12, 13] == found.tolist()
    found[:] = 7
    assert [10, 11, 12, 13] == tree.match([0, 1, 2, 3])[0].tolist()


def test_a_match_counts_whole_pages_only() -> None:
    tree = RadixTree(4)
    assert 0 == tree.insert(range(11), [20, 21])
    assert 8 == tree.insert(range(12), [30, 31, 32])
    assert [20, 21] == tree.match([*range(8), 9, 9, 9, 9])[0].tolist()
    assert [20] == tree.match(range(7))[0].tolist()
    assert [20, 21, 32] == tree.match(range(100))[0].tolist()
    assert 3 == tree.evictable


def test_the_node_of_no_match_is_the_root_and_may_be_locked() -> None:
    tree = RadixTree()
    pages, root = tree.match([1])
    assert [] == pages.tolist()
    tree.insert([1, 2], [5, 6])
    tree.lock(root)
    assert (2, 0) == (tree.evictable, tree.protected)
    tree.unlock(root)
    tree.unlock(root)
    tree.check_integrity()


def test_a_lock_covers_what_matched_and_no_more() -> None:
    tree = RadixTree()
    tree.insert([1, 2, 3, 4], [10, 11, 12, 13])
    _, node = tree.match([1, 2, 9])
    tree.lock(node)
    assert (2, 2) == (tree.evictable, tree.protected)
    assert [13, 12] == tree.evict(10).tolist()
    tree.unlock(node)
    assert [11, 10] == tree.evict(10).tolist()


def test_ancestors_of_a_locked_page_cannot_be_unlocked_alone() -> None:
    tree = RadixTree()
    tree.insert([1, 2], [10, 11])
    _, short = tree.match([1])
    _, long = tree.match([1, 2])
    tree.lock(long)
    with pytest.raises(ValueError, match="not locked"):
        tree.unlock(short)
    assert (0, 2) == (tree.evictable, tree.protected)


def test_requests_survive_eviction_and_reset() -> None:
    tree = RadixTree(2)
    tree.insert_request("a", [1, 2, 3])
    tree.insert([1, 2, 3, 4], [10, 11])
    assert [11, 10] == tree.evict(2).tolist()
    assert (["a"], 3) == tree.find_shared_prefixes([1, 2, 3, 4])
    tree.insert([1, 2], [12])
    assert [12] == tree.reset().tolist()
    assert (["a"], 2) == tree.find_shared_prefixes([1, 2, 9])


def test_the_graph_is_json_and_counts_what_sharing_saves() -> None:
    tree = RadixTree(16)
    for name, tokens in {"r1": [1, 2, 3], "r2": [1, 2, 4], "r3": [1, 5, 6]}.items():
        tree.insert_request(name, tokens)
    graph = tree.get_shared_computation_graph()
    assert graph == json.loads(json.dumps(graph))
    assert (3, 6) == (graph["request_count"], graph["node_count"])
    assert (9, 6, 3) == tuple(graph[f"{k}_tokens"] for k in ("total", "unique", "shared"))
    assert {"id": 0, "parent": None, "tokens": [], "requests": ["r1", "r2", "r3"]} in graph["nodes"]
    assert {"id": 2, "parent": 1, "tokens": [2], "requests": ["r1", "r2"]} in graph["nodes"]


def test_many_requests_with_one_prompt() -> None:
    tree = RadixTree()
    for i in range(2000):
        tree.insert_request(f"r{i}", [1, 2])
    assert (sorted(f"r{i}" for i in range(2000)), 1) == tree.find_shared_prefixes([1])
    for i in range(2000):
        tree.remove_request(f"r{i}")
    assert ([], 0) == tree.find_shared_prefixes([1])
    tree.check_integrity()


def test_a_chain_of_thousands_of_nodes() -> None:
    """No walk is recursive."""
    tree, n = RadixTree(), 3000
    tokens = np.arange(n, dtype=np.int32)
    for end in range(1, n + 1, 2):
        tree.insert(tokens[:end], tokens[:end])
        tree.insert_request(str(end), tokens[:end])
    tree.check_integrity()
    assert n == 1 + len(tree.match(tokens)[0])
    assert n // 2 + 1 == tree.get_shared_computation_graph()["node_count"]
    assert list(range(n - 2, -1, -1)) == tree.evict(n).tolist()


def test_evicting_a_page_does_not_look_at_the_whole_tree() -> None:
    tree, n = RadixTree(), 2000
    for i in range(n):
        tree.insert([i, 0, 1, 2], [i] * 4)
    for i in range(n // 2):
        tree.match([i])
    with mock.patch.object(tree, "_offer", wraps=tree._offer) as looked_at:
        for _ in range(n):
            assert 1 == len(tree.evict(1))
    assert 0 < looked_at.call_count <= 2 * n


def test_leaves_that_nothing_reached_go_as_buds() -> None:
    tree, n = RadixTree(), 100
    for i in range(n):
        tree.insert([i, 0], [2 * i, 2 * i + 1])
    tree.match([1, 0])
    with mock.patch.object(tree, "_open", wraps=tree._open) as opened:
        assert [1, 0, 5, 4, 7, 6] == tree.evict(6).tolist()
    assert 0 == opened.call_count
    tree.check_integrity()


# Bad input -----------------------------------------------------------------------------------

tree_errors = [
    ("RadixTree: page_size: 0", lambda t, n: RadixTree(0), ValueError),
    ("RadixTree: page_size: -1", lambda t, n: RadixTree(-1), ValueError),
    ("RadixTree: page_size: 2.0", lambda t, n: RadixTree(2.0), TypeError),
    ("RadixTree.match: tokens: rank is 2", lambda t, n: t.match(np.ones((1, 2), int)), ValueError),
    ("RadixTree.match: tokens: dtype is float64", lambda t, n: t.match(np.ones(2)), TypeError),
    ("RadixTree.match: tokens: dtype is bool", lambda t, n: t.match(np.array([True])), TypeError),
    ("RadixTree.match: tokens: 2147483648", lambda t, n: t.match([1, 2**31]), ValueError),
    ("RadixTree.match: tokens: 2147483648", lambda t, n: t.match(np.array([2**31])), ValueError),
    (
        "RadixTree.match: tokens: 18446744073709551615",
        lambda t, n: t.match(np.array([2**64 - 1], np.uint64)),
        ValueError,
    ),
    ("RadixTree.match: tokens: 1.5", lambda t, n: t.match([1, 1.5]), TypeError),
    ("RadixTree.match: tokens: 'abc'", lambda t, n: t.match("abc"), TypeError),
    ("RadixTree.match: tokens: b'abcd'", lambda t, n: t.match(b"abcd"), TypeError),
    ("RadixTree.match: tokens: None", lambda t, n: t.match(None), TypeError),
    ("RadixTree.insert: pages: 1 for 2 pages", lambda t, n: t.insert([5, 6], [1]), ValueError),
    ("RadixTree.insert: pages: None", lambda t, n: t.insert([5], None), TypeError),
    ("RadixTree.evict: n_pages: -1", lambda t, n: t.evict(-1), ValueError),
    ("RadixTree.evict: n_pages: 1.0", lambda t, n: t.evict(1.0), TypeError),
    ("RadixTree.evict: n_pages: True", lambda t, n: t.evict(True), TypeError),
    ("RadixTree.lock: node: 3", lambda t, n: t.lock(3), TypeError),
    ("RadixTree.lock: node: unknown node", lambda t, n: RadixTree().lock(n), ValueError),
    (
        "RadixTree.lock: node: unknown node",
        lambda t, n: t.lock(RadixTree().match([1])[1]),
        ValueError,
    ),
    ("RadixTree.unlock: node: .*not locked", lambda t, n: (t.unlock(n), t.unlock(n)), ValueError),
    ("RadixTree.reset: 2 pages are locked", lambda t, n: t.reset(), ValueError),
    (
        "RadixTree.insert_request: request_id: 'a' is there with other tokens",
        lambda t, n: t.insert_request("a", [9]),
        ValueError,
    ),
    (
        "RadixTree.insert_request: request_id: 7 is not a string",
        lambda t, n: t.insert_request(7, [9]),
        TypeError,
    ),
    (
        "RadixTree.remove_request: request_id: 'b' is unknown",
        lambda t, n: t.remove_request("b"),
        KeyError,
    ),
]


@pytest.mark.parametrize(
    ("says", "call", "error"), tree_errors, ids=[row[0] for row in tree_errors]
)
def test_bad_input_is_named_and_changes_nothing(
    says: str, call: Callable[[Any, Any], None], error: type[Exception]
) -> None:
    tree = RadixTree()
    tree.insert([1, 2], [10, 11])
    tree.insert_request("a", [1])
    _, node = tree.match([1, 2])
    tree.lock(node)
    with pytest.raises(error, match=says):
        call(tree, node)
    tree.check_integrity()
    assert 2 == tree.evictable + tree.protected
    assert (["a"], 1) == tree.find_shared_prefixes([1, 2])
    assert ([], 0) == tree.find_shared_prefixes([9])


def test_an_evicted_node_is_unknown() -> None:
    tree = RadixTree()
    tree.insert([1, 2], [10, 11])
    _, node = tree.match([1, 2])
    tree.evict(1)
    tree.insert([1, 2], [12, 13])
    for call in (tree.lock, tree.unlock):
        with pytest.raises(ValueError, match="unknown node"):
            call(node)


# The integrity check itself ------------------------------------------------------------------


def spoil(name: str, by: int) -> Callable[[RadixTree], None]:
    """Change a number of the only child of the root."""

    def change(tree: RadixTree) -> None:
        (node,) = tree._root.children.values()
        setattr(node, name, getattr(node, name) + by)

    return change


def cut(name: str) -> Callable[[RadixTree], None]:
    def change(tree: RadixTree) -> None:
        (node,) = tree._root.children.values()
        setattr(node, name, getattr(node, name)[:-4])

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (spoil("start", 4), "starts elsewhere"),
        (spoil("locks", 1), "should have"),
        (spoil("chain_locks", 1), "should have"),
        (spoil("below", 1), "has pages below"),
        (spoil("request_count", 1), "serves"),
        (spoil("last_use", -9), "was used before its extension"),
        (cut("page_bytes"), "lacks a page"),
        (lambda t: setattr(t, "_present", 7), "pages present, 7 counted"),
        (lambda t: setattr(t, "_protected", 7), "locked, 7 counted"),
        (lambda t: (t._buds.clear(), t._stems.clear()), "is not in the queue"),
        (lambda t: (t._buds.append(t._buds[-1]), t._stems.append(t._stems[-1])), "queued twice"),
        (lambda t: t._buds.rotate(), "is not in order"),
        (lambda t: t._strays.clear(), "is not in the queue"),
        (lambda t: t._strays.append(t._strays[-1]), "is queued twice"),
        (lambda t: t._requests.clear(), "requests end"),
        (lambda t: t._root.children.update({b"4444": RadixTree()._root}), "has another parent"),
    ],
)
def test_the_integrity_check_finds(change: Callable[[RadixTree], None], says: str) -> None:
    tree = RadixTree()
    tree.insert([1, 2, 3], [10, 11, 12])
    tree.insert([1, 2, 4], [10, 11, 13])
    tree.insert_request("a", [1, 2])
    tree.check_integrity()
    change(tree)
    with pytest.raises(AssertionError, match=says):
        tree.check_integrity()
