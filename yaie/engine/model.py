"""A decoder: token ids in, logits out, keys and values in a paged cache.

What has a page is called by its page (ops.rope_append_kv, ops.paged_attention); the rest is
PyTorch's linear, rms_norm, embedding and activations. The five families differ in switches of
ModelConfig; nothing here asks for a family by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from yaie import ops
from yaie.engine.batch import Batch
from yaie.engine.config import ModelConfig, read_config
from yaie.engine.rope import rope_table
from yaie.engine.weights import Checkpoint, Weights

KVCache = tuple[Tensor, Tensor]
"""Keys and values of one layer, [P,S,Hk,D] each."""


@dataclass(frozen=True)
class Linear:
    """x [T,in] to [T,out]."""

    weight: Tensor  # [out,in]
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def add_to(self, total: Tensor, x: Tensor) -> Tensor:
        """``total`` [T,out] plus the result for x, in the memory of ``total``: one kernel for both,
        and one rounding."""
        total.addmm_(x, self.weight.t())
        return total if self.bias is None else total.add_(self.bias)


@dataclass(frozen=True)
class Norm:
    """RMS norm over the last axis. ``wide``: the weight is float32, and so is the product with it
    (Gemma stores weight - 1, and 1 + weight does not fit 16 bits)."""

    weight: Tensor
    eps: float
    wide: bool

    def __call__(self, x: Tensor) -> Tensor:
        if self.wide:
            return F.rms_norm(x.float(), self.weight.shape, self.weight, self.eps).to(x.dtype)
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


@dataclass(frozen=True)
class Layer:
    """The weights of one layer. Norms that a family has not are None."""

    window: tuple[int, int]
    before_attention: Norm
    qkv: Linear
    q_norm: Norm | None
    k_norm: Norm | None
    o: Linear
    after_attention: Norm | None
    before_mlp: Norm
    gate_up: Linear
    down: Linear
    after_mlp: Norm | None


class Decoder:
    """A decoder on one device, in one dtype, for sequences of up to ``max_positions`` tokens."""

    def __init__(
        self,
        config: ModelConfig,
        weights: Weights,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        max_positions: int | None = None,
    ) -> None:
        self.config = config
        self.device = torch.device(device)
        self.dtype = config.dtype if dtype is None else dtype
        self.max_positions = min(max_positions or config.max_positions, config.max_positions)
        self._weights = weights
        self.embedding = self._tensor("model.embed_tokens.weight", self._vocabulary)
        self.layers = tuple(self._layer(number) for number in range(config.num_layers))
        self.final_norm = self._norm("model.norm", config.hidden_size)
        self.head = self.embedding
        if not config.tied_embeddings:
            self.head = self._tensor("lm_head.weight", self._vocabulary)
        self.cos_sin = rope_table(
            config.head_dim, config.rope_theta, config.scaling, self.max_positions
        ).to(self.device)
        weights.finish()
        del self._weights

    @staticmethod
    def load(
        folder: str | Path,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        max_positions: int | None = None,
    ) -> Decoder:
        """The decoder in a local Hugging Face folder. Errors: ValueError naming file and field."""
        config = read_config(folder)
        return Decoder(config, Checkpoint(folder), device, dtype, max_positions)

    def new_cache(self, num_pages: int, page_size: int) -> list[KVCache]:
        """The caches of all layers. Pages hold nothing until they are written."""
        shape = (num_pages, page_size, self.config.num_kv_heads, self.config.head_dim)
        return [
            (
                torch.zeros(shape, dtype=self.dtype, device=self.device),
                torch.zeros(shape, dtype=self.dtype, device=self.device),
            )
            for _ in self.layers
        ]

    def cache_bytes_per_token(self) -> int:
        """What the keys and values of one token take, in all layers."""
        c = self.config
        return 2 * c.num_layers * c.num_kv_heads * c.head_dim * self.dtype.itemsize

    @torch.no_grad()
    def forward(self, batch: Batch, caches: list[KVCache]) -> Tensor:
        """Compute the tokens of a batch, store their keys and values, and return the logits of its
        ``last`` rows: float32 [R,V]."""
        x = F.embedding(batch.tokens, self.embedding)  # [T,E]
        if self.config.scaled_embedding:
            x = x * torch.full((), self.config.hidden_size**0.5, dtype=x.dtype, device=x.device)
        for layer, cache in zip(self.layers, caches, strict=True):
            y = self._attend(layer, layer.before_attention(x), batch, cache)
            x = _added(x, layer.o, y, layer.after_attention)
            y = self._activated(layer, layer.before_mlp(x))
            x = _added(x, layer.down, y, layer.after_mlp)
        return self._logits(x.index_select(0, batch.last))

    def _attend(self, layer: Layer, x: Tensor, batch: Batch, cache: KVCache) -> Tensor:
        c = self.config
        heads = layer.qkv(x).view(len(x), -1, c.head_dim)  # [T,Hq+2*Hk,D]
        q, k, v = torch.split(heads, [c.num_heads, c.num_kv_heads, c.num_kv_heads], dim=1)
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = layer.q_norm(q), layer.k_norm(k)
        q = ops.rope_append_kv(q, k, v, batch.positions, self.cos_sin, *cache, batch.slots)
        out, _ = ops.paged_attention(
            q,
            *cache,
            batch.block_table,
            batch.kv_lens,
            batch.q_indptr,
            scale=c.attention_scale,
            window=layer.window,
            softcap=c.attention_softcap,
        )
        flat: Tensor = out.flatten(1)
        return flat

    def _activated(self, layer: Layer, x: Tensor) -> Tensor:
        gate, up = layer.gate_up(x).chunk(2, dim=-1)
        if self.config.activation == "silu":
            return F.silu(gate) * up
        return F.gelu(gate, approximate="tanh") * up

    def _logits(self, x: Tensor) -> Tensor:
        logits = F.linear(self.final_norm(x), self.head).float()
        cap = self.config.final_softcap
        return torch.tanh(logits / cap) * cap if cap else logits

    # Weights ---------------------------------------------------------------------------------

    @property
    def _vocabulary(self) -> tuple[int, int]:
        return self.config.vocab_size, self.config.hidden_size

    def _layer(self, number: int) -> Layer:
        c = self.config
        name = f"model.layers.{number}"
        queries, keys = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
        sandwich = c.sandwich_norms
        before_mlp = "pre_feedforward_layernorm" if sandwich else "post_attention_layernorm"

        def norm(part: str, size: int = c.hidden_size) -> Norm:
            return self._norm(f"{name}.{part}", size)

        return Layer(
            window=(c.windows[number], -1),
            before_attention=norm("input_layernorm"),
            qkv=self._linear(
                f"{name}.self_attn",
                {"q_proj": queries, "k_proj": keys, "v_proj": keys},
                c.hidden_size,
                c.qkv_bias,
            ),
            q_norm=norm("self_attn.q_norm", c.head_dim) if c.qk_norm else None,
            k_norm=norm("self_attn.k_norm", c.head_dim) if c.qk_norm else None,
            o=self._linear(f"{name}.self_attn", {"o_proj": c.hidden_size}, queries, c.o_bias),
            after_attention=norm("post_attention_layernorm") if sandwich else None,
            before_mlp=norm(before_mlp),
            gate_up=self._linear(
                f"{name}.mlp",
                {"gate_proj": c.intermediate_size, "up_proj": c.intermediate_size},
                c.hidden_size,
                c.mlp_bias,
            ),
            down=self._linear(
                f"{name}.mlp", {"down_proj": c.hidden_size}, c.intermediate_size, c.mlp_bias
            ),
            after_mlp=norm("post_feedforward_layernorm") if sandwich else None,
        )

    def _linear(self, name: str, parts: dict[str, int], inputs: int, biased: bool) -> Linear:
        """Several projections of the same input as one."""
        weights = [self._tensor(f"{name}.{p}.weight", (out, inputs)) for p, out in parts.items()]
        weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        if not biased:
            return Linear(weight, None)
        biases = [self._tensor(f"{name}.{p}.bias", (out,)) for p, out in parts.items()]
        return Linear(weight, torch.cat(biases))

    def _norm(self, name: str, size: int) -> Norm:
        wide = self.config.sandwich_norms
        weight = self._weights.get(f"{name}.weight", (size,)).to(self.device)
        weight = weight.float() + 1 if wide else weight.to(self.dtype)
        return Norm(weight, self.config.norm_eps, wide)

    def _tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return self._weights.get(name, shape).to(self.device, self.dtype)


def _added(x: Tensor, linear: Linear, y: Tensor, norm: Norm | None) -> Tensor:
    """The residual ``x``, which may be overwritten, plus what a layer makes of ``y``."""
    total: Tensor = linear.add_to(x, y) if norm is None else x + norm(linear(y))
    return total
