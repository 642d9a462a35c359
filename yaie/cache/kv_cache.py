"""KVCacheManager: the tensors of the KV cache and who owns which blocks of them.

One tensor ``[P,S,H,D]`` holds all keys, one all values; a block is a page of them. The manager
knows blocks by request: its block table in order, and its length in tokens. Blocks are shared by
counting users, and copied before they are written only where somebody else uses them too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from yaie.cache.block_pool import BlockPool
from yaie.cache.integers import count


class KVCacheBlock:
    """``size`` tokens of keys and of values, each ``[size, num_heads, head_dim]``.

    A block of a manager is a view of its tensors; one on its own has no storage before
    ``allocate``.
    """

    def __init__(
        self,
        block_id: int,
        size: int,
        num_heads: int,
        head_dim: int,
        dtype: torch.dtype = torch.float16,
    ) -> None:
        self.block_id = count(block_id, "KVCacheBlock: block_id")
        self.size = _positive(size, "KVCacheBlock: size")
        self.num_heads = _positive(num_heads, "KVCacheBlock: num_heads")
        self.head_dim = _positive(head_dim, "KVCacheBlock: head_dim")
        self.dtype = dtype
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def allocate(self) -> None:
        """Give the block zeroed storage of its own, on the GPU if there is one. A block that has
        storage, its own or a manager's, keeps it."""
        if self.keys is None or self.values is None:
            shape = (self.size, self.num_heads, self.head_dim)
            self.keys = torch.zeros(shape, dtype=self.dtype, device=_default_device())
            self.values = torch.zeros_like(self.keys)

    def __repr__(self) -> str:
        return f"KVCacheBlock({self.block_id}, {self.size}, {self.num_heads}, {self.head_dim})"


class KVCacheManager:
    """``num_blocks`` blocks of ``block_size`` tokens, handed out to requests, lowest id first.

    ``k_cache`` and ``v_cache`` are the tensors that paged kernels read, ``blocks[i]`` a view of
    each, ``block_tables`` and ``num_tokens`` what each request holds. Handing out writes nothing.

    Errors, before anything is changed: ValueError for a request that holds blocks already and for a
    bad number, KeyError for an unknown request, RuntimeError when too few blocks are free.
    """

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        num_heads: int,
        head_dim: int,
        dtype: torch.dtype = torch.float16,
        device: torch.device | str | None = None,
    ) -> None:
        self.num_blocks = count(num_blocks, "KVCacheManager: num_blocks")
        self.block_size = _positive(block_size, "KVCacheManager: block_size")
        self.num_heads = _positive(num_heads, "KVCacheManager: num_heads")
        self.head_dim = _positive(head_dim, "KVCacheManager: head_dim")
        if not getattr(dtype, "is_floating_point", False):
            raise TypeError(f"KVCacheManager: dtype: {dtype!r} is not a floating-point type")
        self.dtype = dtype
        self.device = _default_device() if device is None else torch.device(device)
        shape = (self.num_blocks, self.block_size, self.num_heads, self.head_dim)
        self.k_cache = torch.zeros(shape, dtype=dtype, device=self.device)
        self.v_cache = torch.zeros_like(self.k_cache)
        self.blocks = self._views()
        self.block_tables: dict[str, list[int]] = {}
        self.num_tokens: dict[str, int] = {}
        self._pool = BlockPool(self.num_blocks)

    @property
    def free_block_list(self) -> list[int]:
        """The free blocks, lowest id first."""
        return self._pool.free_pages

    def allocate_blocks(self, request_id: str, num_tokens: int) -> list[int]:
        """Blocks for a new request of ``num_tokens`` tokens."""
        where = "KVCacheManager.allocate_blocks"
        self._must_be_new(request_id, f"{where}: request_id")
        tokens = count(num_tokens, f"{where}: num_tokens")
        self.block_tables[request_id] = self._take(self._blocks_for(tokens), where)
        self.num_tokens[request_id] = tokens
        return list(self.block_tables[request_id])

    def share(self, src_id: str, dst_id: str, num_tokens: int) -> list[int]:
        """Start request ``dst_id`` with the blocks of ``src_id``'s first ``num_tokens`` tokens.

        Both then use them. Who writes next, be it only behind the last token, calls
        ``make_writable`` before.
        """
        where = "KVCacheManager.share"
        table = self._table(src_id, f"{where}: src_id")
        self._must_be_new(dst_id, f"{where}: dst_id")
        tokens = count(num_tokens, f"{where}: num_tokens")
        if tokens > self.num_tokens[src_id]:
            raise ValueError(
                f"{where}: num_tokens: {tokens}, {src_id!r} has {self.num_tokens[src_id]}"
            )
        shared = table[: self._blocks_for(tokens)]
        self._pool.share(shared)
        self.block_tables[dst_id] = shared
        self.num_tokens[dst_id] = tokens
        return list(shared)

    def append_tokens(self, request_id: str, n: int) -> list[int]:
        """Room for ``n`` more tokens of a request; returns the blocks that it got for them.

        The first of the tokens may go into a block that the request has already, and may share:
        see ``make_writable``.
        """
        where = "KVCacheManager.append_tokens"
        table = self._table(request_id, f"{where}: request_id")
        tokens = self.num_tokens[request_id] + count(n, f"{where}: n")
        new = self._take(self._blocks_for(tokens) - len(table), where)
        table.extend(new)
        self.num_tokens[request_id] = tokens
        return new

    def make_writable(self, request_id: str, index: int) -> tuple[int, int] | None:
        """Make block ``index`` of a request its own. Returns None if it is already, else the pair
        (old, new) that the caller copies with ``copy_blocks`` before it writes."""
        where = "KVCacheManager.make_writable"
        table = self._table(request_id, f"{where}: request_id")
        if count(index, f"{where}: index") >= len(table):
            raise ValueError(f"{where}: index: {index}, {request_id!r} has {len(table)} blocks")
        writable = self._pool.make_writable(table[index])
        if writable is None:
            raise RuntimeError(f"{where}: not enough free blocks: need 1, have 0")
        table[index], pair = writable
        return pair

    def free_blocks(self, request_id: str) -> list[int]:
        """Forget a request. Returns the blocks that are free now; shared ones live on."""
        table = self._table(request_id, "KVCacheManager.free_blocks: request_id")
        released = self._pool.free(table)
        del self.block_tables[request_id], self.num_tokens[request_id]
        return released

    def block_table_tensor(self, request_ids: Sequence[str]) -> Tensor:
        """The block tables of some requests, int32[B,W] on the cache's device; W is the longest.
        Entries behind the end of a table are -1."""
        where = "KVCacheManager.block_table_tensor: request_ids"
        tables = [self._table(request_id, where) for request_id in request_ids]
        rows = np.full((len(tables), max(map(len, tables), default=0)), -1, np.int32)
        for row, table in zip(rows, tables, strict=True):
            row[: len(table)] = table
        return torch.from_numpy(rows).to(self.device)

    def check_integrity(self) -> None:
        """AssertionError, in words, where tables, lengths and the count of users disagree."""
        self._pool.check_integrity()
        assert self.block_tables.keys() == self.num_tokens.keys(), "tables and lengths differ"
        users = Counter(block for table in self.block_tables.values() for block in table)
        for block in range(self.num_blocks):
            counted = self._pool.users(block)
            assert counted == users[block], f"block {block} has {users[block]} users, not {counted}"
        for request_id, table in self.block_tables.items():
            assert len(set(table)) == len(table), f"{request_id!r} has a block twice: {table}"
            needed = self._blocks_for(self.num_tokens[request_id])
            assert len(table) == needed, f"{request_id!r} has {len(table)} blocks, needs {needed}"

    def _views(self) -> list[KVCacheBlock]:
        blocks = []
        for i, (keys, values) in enumerate(
            zip(self.k_cache.unbind(), self.v_cache.unbind(), strict=True)
        ):
            block = KVCacheBlock(i, self.block_size, self.num_heads, self.head_dim, self.dtype)
            block.keys, block.values = keys, values
            blocks.append(block)
        return blocks

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_size)

    def _take(self, n: int, where: str) -> list[int]:
        blocks = self._pool.alloc(n)
        if blocks is None:
            raise RuntimeError(
                f"{where}: not enough free blocks: need {n}, have {self._pool.n_free}"
            )
        return blocks

    def _must_be_new(self, request_id: str, where: str) -> None:
        if not isinstance(request_id, str):
            raise TypeError(f"{where}: {request_id!r} is not a string")
        if request_id in self.block_tables:
            raise ValueError(f"{where}: {request_id!r} holds blocks already")

    def _table(self, request_id: str, where: str) -> list[int]:
        try:
            return self.block_tables[request_id]
        except KeyError:
            raise KeyError(f"{where}: {request_id!r} is unknown") from None


def _default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _positive(value: object, where: str) -> int:
    number = count(value, where)
    if not number:
        raise ValueError(f"{where}: 0 is less than 1")
    return number
