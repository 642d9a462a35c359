"""The guide's attention block: projections, rotary embedding, causal attention, cache."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from yaie import ops

Past = tuple[Tensor, Tensor]
"""Keys and values of earlier tokens, [B,Hk,past,D] each; the keys are rotated already."""


def rotate_half(x: Tensor) -> Tensor:
    """(x1, x2) to (-x2, x1), where x1 and x2 are the halves of the last axis."""
    x1, x2 = x.chunk(2, dim=-1)
    return torch.cat((-x2, x1), dim=-1)


def apply_rotary_pos_emb(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, position_ids: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Rotate q [B,Hq,S,D] and k [B,Hk,S,D] by the angles of their positions, in float32, rounded
    once.

    cos, sin [M,D] hold each angle twice, once for each half. ``position_ids`` [S] or [B,S] are rows
    of them; None: 0..S-1. Errors: ValueError for a position outside 0..M-1.
    """
    if position_ids is None:
        position_ids = torch.arange(q.shape[-2], device=q.device)
    _check_positions(position_ids, cos.shape[0])
    rows = position_ids if position_ids.dim() == 2 else position_ids[None]
    cos_at, sin_at = (table.float()[rows][:, None] for table in (cos, sin))  # [1 or B,1,S,D]

    def rotated(x: Tensor) -> Tensor:
        wide = x.float()
        return (wide * cos_at + rotate_half(wide) * sin_at).to(x.dtype)

    return rotated(q), rotated(k)


class RadixAttentionBlock(nn.Module):
    """Causal self-attention with rotary embedding, for inference: no gradient flows through it.

    Works in the dtype of its parameters and returns the dtype of its input. The angles are kept in
    float32 whatever that dtype is. What is computed is ops.rope and ops.varlen_attention, by
    whichever kernel dispatch chooses. (In an engine the same block reads and writes a paged cache:
    ops.radix_attention.)

    Errors: ValueError for head counts that do not divide, and for an odd head_dim.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        head_dim: int,
        max_position_embeddings: int = 2048,
        num_kv_heads: int | None = None,
        rope_theta: float = 10000.0,
    ) -> None:
        super().__init__()
        kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if kv_heads < 1 or num_heads % kv_heads:
            raise ValueError(
                f"RadixAttentionBlock: num_heads is {num_heads}, no multiple of num_kv_heads = "
                f"{kv_heads}"
            )
        if head_dim < 2 or head_dim % 2:
            raise ValueError(f"RadixAttentionBlock: head_dim is {head_dim}, must be even")
        self.hidden_size = hidden_size
        self.num_heads = num_heads
        self.num_kv_heads = kv_heads
        self.head_dim = head_dim
        self.max_position_embeddings = max_position_embeddings
        self.rope_theta = rope_theta
        self.q_proj = nn.Linear(hidden_size, num_heads * head_dim, bias=False)
        self.k_proj = nn.Linear(hidden_size, kv_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(hidden_size, kv_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(num_heads * head_dim, hidden_size, bias=False)

    @torch.no_grad()
    def forward(
        self,
        hidden_states: Tensor,
        position_ids: Tensor | None = None,
        past_key_value: Past | None = None,
        use_cache: bool = False,
    ) -> Tensor | tuple[Tensor, None, Past]:
        """hidden_states [B,S,hidden_size] to the same shape.

        ``position_ids`` [S] or [B,S]; None: they go on after the past. With ``use_cache`` or a
        past, returns (output, None, present), where present holds the keys and values of past and
        new tokens.

        Errors: ValueError for a position that the table has not.
        """
        batch, length, _ = hidden_states.shape
        x = hidden_states.to(self.q_proj.weight.dtype)
        past = 0 if past_key_value is None else past_key_value[0].shape[2]
        positions = self._positions(position_ids, batch, length, past, x.device)
        q = self._rotated(self.q_proj(x), positions)  # [B,S,Hq,D]
        k = self._rotated(self.k_proj(x), positions).transpose(1, 2)  # [B,Hk,S,D]
        v = self.v_proj(x).view(batch, length, -1, self.head_dim).transpose(1, 2)
        if past_key_value is not None:
            k = torch.cat([past_key_value[0].to(k.dtype), k], dim=2)
            v = torch.cat([past_key_value[1].to(v.dtype), v], dim=2)
        out = self.o_proj(self._attend(q, k, v)).to(hidden_states.dtype)
        return (out, None, (k, v)) if use_cache or past_key_value is not None else out

    def _positions(
        self, given: Tensor | None, batch: int, length: int, past: int, device: torch.device
    ) -> Tensor:
        """int32 [B,S]"""
        if given is None:
            if past + length > self.max_position_embeddings:
                raise ValueError(
                    f"RadixAttentionBlock: position {past + length - 1} is beyond "
                    f"max_position_embeddings = {self.max_position_embeddings}"
                )
            given = torch.arange(past, past + length, device=device)
        else:
            _check_positions(given, self.max_position_embeddings)
        return given.to(device, torch.int32).expand(batch, length).contiguous()

    def _rotated(self, x: Tensor, positions: Tensor) -> Tensor:
        """[B,S,H*D] to rotated [B,S,H,D]."""
        heads = x.view(*positions.shape, -1, self.head_dim)
        table = rope_table(
            self.max_position_embeddings, self.head_dim, self.rope_theta, str(x.device)
        )
        rotated: Tensor = ops.rope(heads.flatten(0, 1), positions.flatten(), table)
        return rotated.reshape(heads.shape)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [B,S,Hq,D], k and v [B,Hk,N,D] to [B,S,Hq*D]."""
        batch, length = q.shape[:2]
        each = torch.arange(batch + 1, dtype=torch.int32, device=q.device)
        keys, values = (x.transpose(1, 2).flatten(0, 1) for x in (k, v))
        q_indptr, kv_indptr = each * length, each * k.shape[2]
        out, _ = ops.varlen_attention(q.flatten(0, 1), keys, values, q_indptr, kv_indptr)
        attended: Tensor = out.reshape(batch, length, -1)
        return attended


@cache
def rope_table(positions: int, head_dim: int, theta: float, device: str) -> Tensor:
    """The table of ops.rope for one base: float32 [positions, head_dim], cosines before sines.
    Angles are computed in float64, in which position times frequency loses nothing."""
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    angle = torch.arange(positions, dtype=torch.float64)[:, None] * theta**-exponent
    return torch.cat([angle.cos(), angle.sin()], dim=1).float().to(device)


def _check_positions(positions: Tensor, limit: int) -> None:
    if positions.numel() and not 0 <= int(positions.min()) <= int(positions.max()) < limit:
        low, high = int(positions.min()), int(positions.max())
        raise ValueError(f"position_ids: {low}..{high} is not within 0..{limit - 1}")
