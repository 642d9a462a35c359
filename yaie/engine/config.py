"""What a decoder looks like, read from the config.json of a Hugging Face folder.

Five families are one decoder with different switches. Whatever a config asks for that the decoder
has not is a ValueError naming the field: a model that runs is a model that is right.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from yaie.engine.rope import RopeScaling, read_scaling

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma2")
"""The values of ``model_type`` that are served."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A decoder: sizes, and the switches in which the families differ.

    ``windows`` holds, for each layer, how many keys to the left of itself a query sees; -1 is all.
    ``sandwich_norms``: a norm behind attention and MLP too, and weights of norms that stand for
    1 + weight. A softcap of 0 is off.
    """

    family: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_positions: int
    norm_eps: float
    rope_theta: float
    scaling: RopeScaling
    windows: tuple[int, ...]
    activation: str = "silu"
    attention_scale: float | None = None
    attention_softcap: float = 0.0
    final_softcap: float = 0.0
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    sandwich_norms: bool = False
    scaled_embedding: bool = False
    tied_embeddings: bool = False
    dtype: torch.dtype = torch.float32
    eos_ids: tuple[int, ...] = ()


def read_config(folder: str | Path) -> ModelConfig:
    """The decoder that a folder's config.json describes, with the end-of-text tokens of its
    generation_config.json. Errors: ValueError naming the file and the field."""
    path = Path(folder, "config.json")
    fields = read_json(path)
    try:
        config = from_fields(fields)
        ids = fields.get("eos_token_id")
        generation = path.with_name("generation_config.json")
        if generation.exists():
            ids = read_json(generation).get("eos_token_id", ids)
        given = ids if isinstance(ids, list) else [] if ids is None else [ids]
        return _replace_eos(config, tuple(given))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object. Errors: ValueError naming the file."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"{path}: holds no object")
    return fields


def from_fields(fields: Mapping[str, Any]) -> ModelConfig:
    """The decoder that the fields of a config.json describe. Errors: ValueError naming the field.

    A field that is missing has the value that the family's own default gives it, where that is the
    same in every release of transformers; sizes must be there.
    """
    family = fields.get("model_type")
    if family not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise ValueError(f"model_type is {family!r}, served are {known}")
    gemma = family == "gemma2"
    _refuse(fields, "quantization_config", None)
    _refuse(fields, "use_bidirectional_attention", None, False)
    _refuse(fields, "pretraining_tp", None, 1)
    heads = _size(fields, "num_attention_heads")
    kv_heads = _size(fields, "num_key_value_heads", heads)
    hidden = _size(fields, "hidden_size")
    head_dim = _size(fields, "head_dim", 256 if gemma else hidden // heads)
    if heads % kv_heads:
        raise ValueError(
            f"num_attention_heads is {heads}, no multiple of num_key_value_heads = {kv_heads}"
        )
    if head_dim % 2:
        raise ValueError(f"head_dim is {head_dim}, must be even")
    positions = _size(fields, "max_position_embeddings")
    theta, scaling = read_scaling(fields, positions)
    attention_bias = bool(fields.get("attention_bias", False))
    query_scalar = _number(fields, "query_pre_attn_scalar", 256.0) if gemma else None
    return ModelConfig(
        family=family,
        vocab_size=_size(fields, "vocab_size"),
        hidden_size=hidden,
        intermediate_size=_size(fields, "intermediate_size"),
        num_layers=_size(fields, "num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        max_positions=positions,
        norm_eps=_number(fields, "rms_norm_eps", 1e-6),
        rope_theta=theta,
        scaling=scaling,
        windows=_windows(fields, family),
        activation=_activation(fields, gemma),
        attention_scale=None if query_scalar is None else query_scalar**-0.5,
        attention_softcap=_softcap(fields, "attn_logit_softcapping", gemma),
        final_softcap=_softcap(fields, "final_logit_softcapping", gemma),
        qkv_bias=family == "qwen2" or attention_bias,
        o_bias=family != "qwen2" and attention_bias,
        mlp_bias=bool(fields.get("mlp_bias", False)),
        qk_norm=family == "qwen3",
        sandwich_norms=gemma,
        scaled_embedding=gemma,
        tied_embeddings=bool(fields.get("tie_word_embeddings", gemma)),
        dtype=_dtype(fields),
    )


def _windows(fields: Mapping[str, Any], family: str) -> tuple[int, ...]:
    """A window of W keys, the query's own included, reaches W - 1 keys to the left."""
    layers, width = _size(fields, "num_hidden_layers"), fields.get("sliding_window")
    if family in ("qwen2", "qwen3") and not fields.get("use_sliding_window", False):
        width = None
    if family == "llama" or width is None:
        return (-1,) * layers
    if type(width) is not int or width < 1:
        raise ValueError(f"sliding_window is {width!r}, must be a number of keys, at least 1")
    kinds = fields.get("layer_types")
    if kinds is None:
        kinds = _default_layer_types(fields, family, layers)
    if len(kinds) != layers:
        raise ValueError(f"layer_types has {len(kinds)} entries, num_hidden_layers is {layers}")
    reach = {"full_attention": -1, "sliding_attention": width - 1}
    for kind in kinds:
        if kind not in reach:
            raise ValueError(f"layer_types: {kind!r}, served are {', '.join(reach)}")
    return tuple(reach[kind] for kind in kinds)


def _default_layer_types(fields: Mapping[str, Any], family: str, layers: int) -> list[str]:
    """Mistral: every layer; Gemma 2: every other one; Qwen: those from max_window_layers on."""
    if family == "mistral":
        sliding = [True] * layers
    elif family == "gemma2":
        sliding = [layer % 2 == 0 for layer in range(layers)]
    else:
        first = _size(fields, "max_window_layers", 28)
        sliding = [layer >= first for layer in range(layers)]
    return ["sliding_attention" if s else "full_attention" for s in sliding]


def _activation(fields: Mapping[str, Any], gemma: bool) -> str:
    """Gemma's configs say "gelu" in hidden_act and mean the tanh form."""
    name, wanted = ("hidden_activation", "gelu_pytorch_tanh") if gemma else ("hidden_act", "silu")
    given = fields.get(name)
    if given not in (None, wanted):
        raise ValueError(f"{name} is {given!r}, served is {wanted!r}")
    return wanted


def _softcap(fields: Mapping[str, Any], name: str, gemma: bool) -> float:
    if not gemma:
        _refuse(fields, name, None)
        return 0.0
    default = 50.0 if name == "attn_logit_softcapping" else 30.0
    value = fields.get(name, default)
    return 0.0 if value is None else _number(fields, name, default)


def _dtype(fields: Mapping[str, Any]) -> torch.dtype:
    name = fields.get("dtype") or fields.get("torch_dtype") or "float32"
    if name not in DTYPES:
        raise ValueError(f"dtype is {name!r}, served are {', '.join(DTYPES)}")
    return DTYPES[name]


def _replace_eos(config: ModelConfig, ids: tuple[Any, ...]) -> ModelConfig:
    for token in ids:
        if type(token) is not int:
            raise ValueError(f"eos_token_id is {token!r}, must be a token id or a list of them")
    return replace(config, eos_ids=ids)


def _refuse(fields: Mapping[str, Any], name: str, *harmless: Any) -> None:
    """The field asks for what the decoder has not, unless it holds one of these."""
    if fields.get(name) not in harmless:
        raise ValueError(f"{name} is {fields[name]!r}, which is not supported")


def _size(fields: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = fields.get(name)
    value = default if value is None else value
    if value is None:
        raise ValueError(f"{name} is missing")
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} is {value!r}, must be a whole number, at least 1")
    return value


def _number(fields: Mapping[str, Any], name: str, default: float) -> float:
    value = fields.get(name)
    value = default if value is None else value
    if type(value) not in (int, float) or not value > 0:
        raise ValueError(f"{name} is {value!r}, must be a number above 0")
    return float(value)
