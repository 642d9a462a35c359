"""torch's own sampling: what an engine without kernels of its own calls.

torch.multinomial draws numbers of its own, so it cannot be the op's draw: the judge says so, and it
stands among the findings without a time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.peers.batches import MEMO
from yaie import ops
from yaie.dispatch import Unsupported
from yaie.op import Call, Kernel

MOST_KEPT = 1024


def argmax(logits: Tensor) -> Tensor:
    """``greedy`` as most engines do it. It has no answer for rows without a valid token."""
    return torch.argmax(logits, -1).int()


def multinomial(probs: Tensor, seed: Tensor, position: Tensor) -> Tensor:
    """``draw_tokens`` with torch's generator instead of the op's noise."""
    return torch.multinomial(probs, 1)[:, 0].int()


def topk(
    logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor
) -> Tensor:
    """``filter_tokens`` by torch.topk: only the largest are sorted, the steps are taken among them.
    Serves what keeps at most MOST_KEPT tokens; right where temperatures are not 0."""
    if not MEMO(top_k, "few", lambda: bool(((top_k > 0) & (top_k <= MOST_KEPT)).all())):
        raise Unsupported(f"a row has no top_k, or one beyond {MOST_KEPT}")
    most = logits.amax(-1, keepdim=True)
    weight = torch.exp((logits - most) / temperature[:, None])
    value, order = logits.topk(min(MOST_KEPT, logits.shape[-1]), -1)
    ordered = weight.gather(-1, order)
    kth = value.gather(-1, top_k[:, None].long().clamp(max=value.shape[-1]) - 1)
    ordered = ordered.where(value >= kth, 0.0)
    sums = ordered.cumsum(-1)
    dropped = (sums - ordered >= top_p[:, None] * sums[:, -1:]) & (top_p[:, None] < 1)
    dropped |= ordered < min_p[:, None]
    length = torch.minimum((value >= kth).sum(-1), (~dropped).sum(-1).clamp_min(1))
    threshold = value.gather(-1, length[:, None] - 1)
    kept = weight.where(logits >= threshold, 0.0)
    return kept / kept.sum(-1, keepdim=True)


def register() -> None:
    """Register them with their ops."""
    peers = {
        "greedy": ("torch.argmax", argmax, True),
        "draw_tokens": ("torch.multinomial", multinomial, False),
        "filter_tokens": ("torch.topk", topk, True),
    }
    for op, (name, run, deterministic) in peers.items():
        kernel = Kernel(op, name, run, deterministic=deterministic, preference=-1, supports=_serves)
        ops.get(op).register(kernel)


def _serves(call: Call) -> str | None:
    if call.op == "filter_tokens" and not call.axes["V"] > MOST_KEPT:
        return f"the rows are sorted whole where V is at most {MOST_KEPT}"
    return None
