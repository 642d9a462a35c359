"""Prefix matching in plain vectorised PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor


def common_prefix_len(
    a: Tensor, a_indptr: Tensor, b: Tensor, b_indptr: Tensor, *, page: int
) -> Tensor:
    """Compare all positions of all pairs at once; the first difference of each is its length."""
    limit = torch.minimum(a_indptr.diff(), b_indptr.diff()).long()
    equal = _run_lengths(a, a_indptr[:-1].long(), b, b_indptr[:-1].long(), limit)
    return (equal - equal % page).int()


def _run_lengths(a: Tensor, a_start: Tensor, b: Tensor, b_start: Tensor, limit: Tensor) -> Tensor:
    """For each row, how many of the ``limit`` tokens from ``a_start`` and ``b_start`` on agree."""
    owner = torch.arange(limit.numel(), device=a.device).repeat_interleave(limit)
    position = _within(limit)
    differ = a[a_start[owner] + position] != b[b_start[owner] + position]
    return limit.scatter_reduce(0, owner[differ], position[differ], "amin")


def _within(counts: Tensor) -> Tensor:
    """0, 1 ... count - 1 for each of the counts, one after the other."""
    ends = counts.cumsum(0)
    every = torch.arange(int(counts.sum()), device=counts.device)
    return every - (ends - counts).repeat_interleave(counts)


def match_tree(
    edge_tokens: Tensor,
    edge_indptr: Tensor,
    child_indptr: Tensor,
    children: Tensor,
    query: Tensor,
    q_indptr: Tensor,
    *,
    page: int,
) -> tuple[Tensor, Tensor]:
    """All queries go down one level of the tree at a time.

    Each asks every child of its node for its first page; at most one child has it, and goes on for
    as long as its edge agrees. Those that used up the edge take another step.
    """
    edge_start, edge_size = edge_indptr[:-1].long(), edge_indptr.diff().long()
    child_count = child_indptr.diff().long()
    at, end = q_indptr[:-1].long(), q_indptr[1:].long()
    start, node = at.clone(), torch.zeros_like(at)
    walking = torch.arange(at.numel(), device=at.device)
    while walking.numel():
        count = child_count[node[walking]]
        entry = child_indptr[node[walking]].repeat_interleave(count) + _within(count)
        child, walker = children[entry].long(), walking.repeat_interleave(count)
        for most in (page, None):
            limit = torch.minimum(edge_size[child], end[walker] - at[walker])
            if most is not None:
                limit = limit.clamp(max=most)
            same = _run_lengths(edge_tokens, edge_start[child], query, at[walker], limit)
            same -= same % page
            child, walker, same = (x[same > 0] for x in (child, walker, same))
        at[walker] += same
        node[walker] = child
        walking = walker[same == edge_size[child]]
    return (at - start).int(), node.int()
