"""How fast the engine serves a set of requests that are all there at the start."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from yaie.engine.config import ModelConfig, from_fields
from yaie.engine.engine import Engine
from yaie.engine.request import SamplingParams, Tokens
from yaie.engine.watch import Watched, watch

_LLAMA: dict[str, Any] = {"model_type": "llama", "dtype": "bfloat16", "rms_norm_eps": 1e-5}
SHAPES: dict[str, dict[str, Any]] = {
    "llama3-8b": {
        **_LLAMA,
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 16384,
        "rope_theta": 500000.0,
    },
    "llama3-1b": {
        **_LLAMA,
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 16384,
        "rope_theta": 500000.0,
        "tie_word_embeddings": True,
    },
    "tiny": {
        **_LLAMA,
        "dtype": "float32",
        "vocab_size": 1000,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
    },
}
"""Decoders to measure without weights: the fields of a config.json."""


def shape_config(name: str) -> ModelConfig:
    """The decoder of that name in SHAPES. Errors: ValueError with the names there are."""
    if name not in SHAPES:
        raise ValueError(f"no config {name!r} (known: {', '.join(SHAPES)})")
    return from_fields(SHAPES[name])


@dataclass(frozen=True)
class Load:
    """``requests`` prompts of ``prompt`` random tokens, of which the first ``shared`` are the same
    in all, each followed by ``output`` tokens."""

    requests: int
    prompt: int
    output: int
    shared: int = 0
    seed: int = 0

    def prompts(self, vocabulary: int) -> list[Tokens]:
        """The same for the same seed."""
        rng = np.random.default_rng(self.seed)
        prefix = rng.integers(vocabulary, size=self.shared, dtype=np.int32)
        rest = (self.requests, self.prompt - self.shared)
        own = rng.integers(vocabulary, size=rest, dtype=np.int32)
        return [np.concatenate([prefix, row]) for row in own]


@dataclass(frozen=True)
class Figures:
    """What a load took, in seconds from the moment all requests were submitted."""

    seconds: float
    first_token: list[float]
    between_tokens: list[float]
    prompt_tokens: int
    generated_tokens: int
    cached_tokens: int
    steps: int
    graph_steps: int

    def lines(self) -> list[str]:
        """For a reader."""
        first, between = (np.array(x) * 1e3 for x in (self.first_token, self.between_tokens))
        total = self.prompt_tokens + self.generated_tokens
        hit = self.cached_tokens / max(self.prompt_tokens, 1)
        lines = [
            f"throughput        {self.generated_tokens / self.seconds:.1f} output tokens/s, "
            f"{total / self.seconds:.1f} with prompts ({self.seconds:.2f} s)",
            f"first token       {np.median(first):.1f} ms median, {first.max():.1f} ms at most",
        ]
        if len(between):
            p99 = np.percentile(between, 99)
            lines.append(f"between tokens    {np.median(between):.2f} ms median, {p99:.2f} ms p99")
        return [
            *lines,
            f"prefix cache      {hit:.1%} of prompt tokens were cached",
            f"steps             {self.steps}, of which {self.graph_steps} by CUDA graph",
        ]


def measure(engine: Engine, load: Load) -> Figures:
    """Submit all requests, step until they have ended, and note when each token came."""
    params = SamplingParams(temperature=0, max_tokens=load.output, ignore_eos=True)
    before = dict(vars(engine.stats))
    _synchronize(engine)
    begun = time.perf_counter()
    for prompt in load.prompts(engine.model.config.vocab_size):
        engine.submit(prompt, params)
    came: dict[str, list[float]] = {}
    while engine.busy:
        outputs = engine.step()
        now = time.perf_counter() - begun  # tokens are on the host: the GPU is done
        for output in outputs:
            came.setdefault(output.request_id, []).append(now)
    done = {name: value - before[name] for name, value in vars(engine.stats).items()}
    return Figures(
        seconds=time.perf_counter() - begun,
        first_token=[times[0] for times in came.values()],
        between_tokens=[b - a for times in came.values() for a, b in itertools.pairwise(times)],
        prompt_tokens=done["prompt_tokens"],
        generated_tokens=done["generated_tokens"],
        cached_tokens=done["cached_tokens"],
        steps=done["steps"],
        graph_steps=done["graph_steps"],
    )


@dataclass(frozen=True)
class Share:
    """Where the time of an eager run went: its ops, the rest of the model, and the host."""

    seconds: float
    model_seconds: float
    ops: Watched

    def lines(self) -> list[str]:
        """For a reader: shares of the whole, most first."""
        in_model = sum(
            self.ops.seconds.get(op, 0.0) for op in ("rope_append_kv", "paged_attention")
        )
        rows = [
            (op, s, f"{self.ops.calls[op]} calls, {', '.join(sorted(self.ops.kernels[op]))}")
            for op, s in self.ops.seconds.items()
        ]
        rows.append(("linear, norms, rest", self.model_seconds - in_model, "PyTorch"))
        rest = self.seconds - sum(seconds for _, seconds, _ in rows)
        rows.append(("host", rest, "scheduling, batches, launching"))
        rows.sort(key=lambda row: -row[1])
        return [
            f"{name:22} {s / self.seconds:6.1%}  {1e3 * s:9.2f} ms  {what}"
            for name, s, what in rows
        ]


def share(engine: Engine, load: Load) -> Share:
    """Run a load without graphs and time each op, and each forward pass as a whole."""
    graphs, engine._graphs = engine._graphs, None
    forward, spans = engine.model.forward, list[Callable[[], float]]()

    def timed(*args: Any) -> torch.Tensor:
        span = _span(engine)
        logits = forward(*args)
        spans.append(span())
        return logits

    engine.model.forward = timed  # type: ignore[method-assign]
    try:
        with watch() as watched:
            seconds = measure(engine, load).seconds
    finally:
        engine.model.forward = forward  # type: ignore[method-assign]
        engine._graphs = graphs
    return Share(seconds, sum(span() for span in spans), watched)


def transformers_figures(
    source: str | Path | dict[str, Any], load: Load, engine: Engine, repeats: int = 1
) -> str:
    """The same load by transformers' generate: one batch, greedy, the same dtype and device."""
    import transformers

    dtype, device = engine.model.dtype, engine.model.device
    auto = transformers.AutoModelForCausalLM
    if isinstance(source, dict):
        kind = source["model_type"]
        fields = {k: v for k, v in source.items() if k not in ("model_type", "dtype")}
        config = transformers.AutoConfig.for_model(kind, **fields)
        with torch.device(device):
            model = auto.from_config(config, dtype=dtype)
    else:
        model = auto.from_pretrained(source, dtype=dtype).to(device)
    model = model.eval()
    prompts = load.prompts(engine.model.config.vocab_size)
    ids = torch.from_numpy(np.stack(prompts)).long().to(device)
    mask = torch.ones_like(ids)

    def run(tokens: int) -> float:
        _synchronize(engine)
        begun = time.perf_counter()
        model.generate(
            ids,
            attention_mask=mask,
            do_sample=False,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            pad_token_id=0,
        )
        _synchronize(engine)
        return time.perf_counter() - begun

    run(2)
    first = median(run(1) for _ in range(repeats))
    seconds = median(run(load.output) for _ in range(repeats))
    generated = load.requests * load.output
    between = (seconds - first) / max(load.output - 1, 1)
    return (
        f"transformers {transformers.__version__} generate, one batch of {load.requests}: "
        f"{generated / seconds:.1f} output tokens/s ({seconds:.2f} s), first token "
        f"{1e3 * first:.1f} ms, between tokens {1e3 * between:.2f} ms"
    )


def _span(engine: Engine) -> Callable[[], Callable[[], float]]:
    """A stopwatch: call it to stop, call what it returns for the seconds (on a GPU, of its stream,
    once that is synchronised)."""
    if engine.model.device.type != "cuda":
        begun = time.perf_counter()

        def stop() -> Callable[[], float]:
            seconds = time.perf_counter() - begun
            return lambda: seconds

        return stop
    started, stopped = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    started.record()

    def stop_event() -> Callable[[], float]:
        stopped.record()
        return lambda: started.elapsed_time(stopped) / 1e3

    return stop_event


def _synchronize(engine: Engine) -> None:
    if engine.model.device.type == "cuda":
        torch.cuda.synchronize(engine.model.device)
