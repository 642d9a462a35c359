"""Sampling in plain vectorised PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

INF = float("inf")


def penalize(
    logits: Tensor,
    prompt: Tensor,
    prompt_indptr: Tensor,
    output: Tensor,
    output_indptr: Tensor,
    repetition: Tensor,
    frequency: Tensor,
    presence: Tensor,
) -> Tensor:
    """Count by scattering into [B,V], then everything at once."""
    written = _counts(logits, output, output_indptr)
    known = (_counts(logits, prompt, prompt_indptr) + written) > 0
    theta = repetition[:, None]
    penalty = frequency[:, None] * written + presence[:, None] * written.clamp_max(1)
    scaled = torch.where(logits > 0, logits / theta, logits * theta)  # 1 / theta may be infinite
    return torch.where(known, scaled - penalty, logits)


def _counts(logits: Tensor, tokens: Tensor, indptr: Tensor) -> Tensor:
    """How often each token stands in its row, [B,V]."""
    rows = torch.arange(len(logits), device=logits.device)
    row = rows.repeat_interleave(indptr.diff().long())
    counts = torch.zeros(logits.shape, dtype=torch.float32, device=logits.device)
    return counts.index_put_((row, tokens.long()), counts.new_ones(()), accumulate=True)


def filter_tokens(
    logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor
) -> Tensor:
    """Sort each row once; what each step keeps is a prefix of the sorted row, so the shortest
    prefix ends at the threshold (which takes equals in, should one of them be in)."""
    V = logits.shape[-1]
    most = logits.amax(-1, keepdim=True)
    greedy = temperature[:, None] == 0
    T = torch.where(greedy, 1.0, temperature[:, None])
    half = torch.where(T > 1, 0.5, 1.0)  # logits of both signs may be far apart
    weight = torch.exp((logits * half - most * half) / (T * half))
    value, order = logits.sort(-1, descending=True)
    weight_in_order = weight.gather(-1, order)
    place = torch.arange(V, device=logits.device)

    kth = value.gather(-1, top_k[:, None].clamp(max=V).long() - 1)
    length = (value >= kth).sum(-1, keepdim=True)
    sums = torch.where(place < length, weight_in_order, 0.0).cumsum(-1)
    before = torch.where(place > 0, sums.roll(1, -1), 0.0)
    crossed = (before >= top_p[:, None] * sums[:, -1:]) & (top_p[:, None] < 1)
    crossed |= weight_in_order < min_p[:, None]
    length = torch.minimum(length, (~crossed).sum(-1, keepdim=True).clamp_min(1))

    threshold = value.gather(-1, (length - 1).clamp_min(0))
    kept = torch.where(logits >= threshold, weight, 0.0)
    one = torch.where(place == _first_largest(logits, most)[:, None], 1.0, 0.0)
    kept = torch.where(greedy, one, kept)
    return (kept / kept.sum(-1, keepdim=True)).masked_fill(~most.isfinite(), 0.0)


def draw_tokens(probs: Tensor, seed: Tensor, position: Tensor) -> Tensor:
    """All noise at once, then the best score."""
    score = torch.log(probs) - _log_exponential(seed, position, probs.shape[-1])
    best = score.amax(-1, keepdim=True)
    token = _first_largest(score, best)
    return torch.where((probs > 0).any(-1), token, -1).int()


def sample(
    logits: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    seed: Tensor,
    position: Tensor,
) -> Tensor:
    """Filter, then draw."""
    probs = filter_tokens(logits, temperature, top_k, top_p, min_p)
    return draw_tokens(probs, seed, position)


def greedy(logits: Tensor) -> Tensor:
    """The first of the largest."""
    most = logits.amax(-1, keepdim=True)
    return torch.where(most[:, 0].isfinite(), _first_largest(logits, most), -1).int()


def _first_largest(x: Tensor, most: Tensor) -> Tensor:
    """Lowest index at which each row holds ``most`` [B,1]."""
    place = torch.arange(x.shape[-1], device=x.device)
    return torch.where(x == most, place, x.shape[-1]).amin(-1)


_LOW = 0xFFFFFFFF


def _log_exponential(seed: Tensor, position: Tensor, V: int) -> Tensor:
    """log E of the noise of every token, float32 [B,V]."""
    block = torch.arange(-(-V // 4), device=seed.device)
    block = block.expand(len(seed), -1)
    zero = torch.zeros_like(block)
    counter = [block, (position.long() & _LOW)[:, None] + zero, zero, zero]
    bits = torch.stack(_philox(counter, seed[:, None]), -1).flatten(1)[:, :V]
    # In each half the number is small where accuracy matters: 32 bits fit a float32 there.
    near = -torch.log1p(-(bits.float() + 0.5) * 2.0**-32)
    far = -torch.log(((_LOW - bits).float() + 0.5) * 2.0**-32)
    return torch.where(bits < 2**31, near, far).log()


def _philox(counter: list[Tensor], key: Tensor) -> list[Tensor]:
    """Philox4x32-10 on int64 tensors that hold uint32 numbers."""
    a, b, c, d = counter
    low, high = key & _LOW, (key >> 32) & _LOW
    for _ in range(10):
        # A product of 64 bits wraps, but its bits are right: shift, then cut off the sign.
        first, second = a * 0xD2511F53, c * 0xCD9E8D57
        a, b = ((second >> 32) & _LOW) ^ b ^ low, second & _LOW
        c, d = ((first >> 32) & _LOW) ^ d ^ high, first & _LOW
        low, high = (low + 0x9E3779B9) & _LOW, (high + 0xBB67AE85) & _LOW
    return [a, b, c, d]
