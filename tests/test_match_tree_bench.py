"""The benchmark of match_tree: all ways find the same, the op's executor kernel among them."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks import match_tree as bench
from benchmarks.plain_radix import PlainRadixTree
from yaie import kernels, ops
from yaie.cache import RadixTree


def test_host_trees_and_the_op_find_the_same() -> None:
    kernels.load()
    rng = np.random.default_rng(1)
    cached = bench.documents(10 * bench.LENGTH, rng)
    asked = bench.prompts(cached, rng)[:24]
    tree = bench.flattened(cached, rng)
    ends = torch.arange(0, asked.size + 1, bench.LENGTH, dtype=torch.int32)
    run = ops.get("match_tree").kernels["simt.warp"].run
    query = torch.from_numpy(asked.copy()).flatten()
    matched, _ = run(**tree, query=query, q_indptr=ends, page=bench.PAGE)
    host = bench.on_host(RadixTree, cached, asked, lists=False)()
    assert max(host) > bench.LENGTH // 2
    assert matched.tolist() == host
    assert host == bench.on_host(PlainRadixTree, cached, asked, lists=True)()
