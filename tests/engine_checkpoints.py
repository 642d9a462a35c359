"""Tiny random checkpoints, made and saved by transformers, and what transformers itself says of
them. Weights and biases are large enough for the logits to differ."""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from conformance import peers

transformers = peers.load("transformers")
peers.load("safetensors")

VOCABULARY = 37
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "initializer_range": 0.15,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 500.0,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
    "beta_fast": 8.0,
}
LINEAR = {"rope_type": "linear", "rope_theta": 1000.0, "factor": 3.0}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama, tied": ("Llama", {"tie_word_embeddings": True}),
    "llama, biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, llama3 rope": ("Llama", {"rope_parameters": LLAMA3}),
    "llama, linear rope": ("Llama", {"rope_parameters": LINEAR}),
    "llama, yarn rope": ("Llama", {"rope_parameters": YARN}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "mistral, window": ("Mistral", {"sliding_window": 7}),
    "qwen2": ("Qwen2", {"head_dim": None}),
    "qwen2, window in some layers": (
        "Qwen2",
        {"head_dim": None, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3", {}),
    "qwen3, yarn rope": ("Qwen3", {"rope_parameters": YARN}),
    "gemma2": (
        "Gemma2",
        {
            "head_dim": 256,
            "sliding_window": 9,
            "query_pre_attn_scalar": 200,
            "attn_logit_softcapping": 1.5,
            "final_logit_softcapping": 4.0,
        },
    ),
}
SPREAD = 0.7
"""Of the logarithm of the length of a row of the output matrix: some tokens are likelier than
others, as in any model that has learnt something."""
"""Name: the family of transformers, and what its config has beside SIZES."""
FAMILIES = ("llama", "mistral, window", "qwen2", "qwen3", "gemma2")


def make(name: str, folder: Path, dtype: torch.dtype, shard: str | None = None) -> Any:
    """A checkpoint in a folder, and the model of transformers that wrote it."""
    family, more = MODELS[name]
    given = {k: v for k, v in {**SIZES, **more}.items() if v is not None or k == "sliding_window"}
    config = getattr(transformers, f"{family}Config")(**given, pad_token_id=None)
    torch.manual_seed(sum(name.encode()))
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.dim() == 1:  # norms and biases, which start at 0 or 1
                parameter.add_(0.2 * torch.randn_like(parameter))
            if family == "Gemma2" and "post_" in parameter_name:
                parameter.add_(2.0)  # else tied embeddings repeat the last token for ever
        head = model.get_output_embeddings().weight  # [V,E]
        head.mul_(torch.randn(len(head), 1).mul_(SPREAD).exp_())
    model = model.to(dtype).eval()
    with quiet():
        model.save_pretrained(folder, **({} if shard is None else {"max_shard_size": shard}))
    return model


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars."""
    transformers.utils.logging.disable_progress_bar()
    yield


def prompts(*lengths: int, seed: int = 1) -> list[list[int]]:
    """Prompts of these lengths, in pairs that share a prefix."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randint(VOCABULARY, (max(lengths),), generator=generator).tolist()
    drawn = [torch.randint(VOCABULARY, (n,), generator=generator).tolist() for n in lengths]
    return [
        base[: n // 2] + own[n // 2 :] if i % 2 else own
        for i, (n, own) in enumerate(zip(lengths, drawn, strict=True))
    ]


@torch.no_grad()
def greedy(model: Any, prompt: list[int], tokens: int) -> list[int]:
    """What transformers generates."""
    ids = torch.tensor([prompt])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=tokens,
        eos_token_id=None,
    )
    return out[0, len(prompt) :].tolist()


@dataclass(frozen=True)
class Truth:
    """At every position of a sequence, in float64 of the stored weights: the logits [T,V], the two
    likeliest tokens [T,2], and what rounding makes of them: the standard deviation of a logit [T],
    and of the difference of the two [T]."""

    logits: Tensor
    best: Tensor
    sigma: Tensor
    sigma_of_gap: Tensor

    def is_clear(self, position: int) -> bool:
        """Whether the best token leads by more than rounding can take away, at four sigma."""
        best, second = self.logits[position, self.best[position]].tolist()
        return best - second > 4 * float(self.sigma_of_gap[position])


@torch.no_grad()
def truth(model: Any, tokens: list[int], roundoff: float, samples: int = 16) -> Truth:
    """The model runs in float64, then ``samples`` times with every output that a 16-bit model
    stores multiplied by 1 + e, where e is uniform within one unit roundoff."""
    ids = torch.tensor([tokens])
    exact = model(ids).logits[0]
    generator = torch.Generator().manual_seed(0)

    def blur(module: nn.Module, args: Any, output: Any) -> Any:
        off = torch.rand(output.shape, generator=generator, dtype=torch.float64) * 2 - 1
        return output * (1 + roundoff * off)

    hooks = [m.register_forward_hook(blur) for m in model.modules() if _stores(m)]
    try:
        off = model(ids.expand(samples, -1)).logits - exact  # [K,T,V]
    finally:
        for hook in hooks:
            hook.remove()
    best = exact.topk(2).indices
    pair = off.gather(2, best.expand(samples, -1, -1))
    gap = (pair[..., 0] - pair[..., 1]).square().mean(0).sqrt()
    return Truth(exact, best, off.square().mean((0, 2)).sqrt(), gap)


ROUNDS = ("RMSNorm", "MLP", "DecoderLayer", "ScaledWordEmbedding")


def _stores(module: nn.Module) -> bool:
    """A plain embedding only copies what is stored already."""
    return isinstance(module, nn.Linear) or type(module).__name__.endswith(ROUNDS)


@cache
def checkpoint(name: str, dtype: torch.dtype) -> tuple[Path, Any]:
    """A checkpoint of this session and its model: made once."""
    folder = Path(tempfile.mkdtemp(prefix="yaie-checkpoint-"))
    return folder, make(name, folder, dtype)


@cache
def in_float64(name: str, dtype: torch.dtype) -> Any:
    """The model of a checkpoint, its stored weights taken as they are."""
    return copy.deepcopy(checkpoint(name, dtype)[1]).double()
