"""How fast the engine serves a set of requests that are all there at the start."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from yaie.engine.config import ModelConfig, from_fields
from yaie.engine.engine import Engine
from yaie.engine.request import SamplingParams, Tokens
from yaie.engine.watch import Watched, timing_event, watch

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
    first_token: tuple[float, ...]
    between_tokens: tuple[float, ...]
    prompt_tokens: int
    generated_tokens: int
    cached_tokens: int
    steps: int
    graph_steps: int

    def record(self) -> dict[str, Any]:
        """For the report."""
        between = self.between_tokens or (float("nan"),)
        return {
            "seconds": self.seconds,
            "output_tokens": self.generated_tokens,
            "prompt_tokens": self.prompt_tokens,
            "rate": self.generated_tokens / self.seconds,
            "rate_with_prompts": (self.prompt_tokens + self.generated_tokens) / self.seconds,
            "first_token": median(self.first_token),
            "first_token_most": max(self.first_token),
            "between_tokens": median(between) if self.between_tokens else None,
            "between_tokens_p99": float(np.percentile(between, 99))
            if self.between_tokens
            else None,
            "hit_rate": self.cached_tokens / self.prompt_tokens,
            "steps": self.steps,
            "graph_steps": self.graph_steps,
        }

    def lines(self) -> list[str]:
        """For a reader."""
        r = self.record()
        lines = [
            f"throughput        {r['rate']:.1f} output tokens/s, {r['rate_with_prompts']:.1f} with "
            f"prompts ({self.seconds:.2f} s)",
            f"first token       {1e3 * r['first_token']:.1f} ms median, "
            f"{1e3 * r['first_token_most']:.1f} ms at most",
        ]
        if self.between_tokens:
            lines.append(
                f"between tokens    {1e3 * r['between_tokens']:.2f} ms median, "
                f"{1e3 * r['between_tokens_p99']:.2f} ms p99"
            )
        return [
            *lines,
            f"prefix cache      {r['hit_rate']:.1%} of prompt tokens were cached",
            f"steps             {self.steps}, of which {self.graph_steps} by CUDA graph",
        ]


def measure(engine: Engine, load: Load) -> Figures:
    """Submit all requests, step until they have ended, and note when each token came."""
    before = dict(vars(engine.stats))
    _synchronize(engine)
    begun = time.perf_counter()
    for prompt in load.prompts(engine.model.config.vocab_size):
        engine.submit(prompt, _greedy(load.output))
    came: dict[str, list[float]] = {}
    while engine.busy:
        outputs = engine.step()
        now = time.perf_counter() - begun  # tokens are on the host: the GPU is done
        for output in outputs:
            came.setdefault(output.request_id, []).append(now)
    done = {name: value - before[name] for name, value in vars(engine.stats).items()}
    return Figures(
        seconds=time.perf_counter() - begun,
        first_token=tuple(times[0] for times in came.values()),
        between_tokens=tuple(
            b - a for times in came.values() for a, b in itertools.pairwise(times)
        ),
        prompt_tokens=done["prompt_tokens"],
        generated_tokens=done["generated_tokens"],
        cached_tokens=done["cached_tokens"],
        steps=done["steps"],
        graph_steps=done["graph_steps"],
    )


def _greedy(tokens: int) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)


@dataclass(frozen=True)
class PrefixHit:
    """Seconds to the first token of one request alone: its prompt new, and most of it cached."""

    cold: float
    hit: float

    def lines(self) -> list[str]:
        """For a reader."""
        return [
            f"first token alone {1e3 * self.cold:.1f} ms without the prefix in the cache, "
            f"{1e3 * self.hit:.1f} ms with it: {self.cold / self.hit:.2f} times faster"
        ]


def prefix_hit(engine: Engine, load: Load, repeats: int = 5) -> PrefixHit:
    """Two requests that share a prefix, one after the other; medians over ``repeats`` prefixes,
    after one that is not counted."""
    cold: list[float] = []
    hit: list[float] = []
    for repeat in range(repeats + 1):
        pair = replace(load, requests=2, seed=1000 + repeat)
        for prompt, seconds in zip(
            pair.prompts(engine.model.config.vocab_size), (cold, hit), strict=True
        ):
            seconds.append(_timed(lambda p=prompt: engine.generate([p], _greedy(1))))  # type: ignore[misc]
    return PrefixHit(median(cold[1:]), median(hit[1:]))


@dataclass(frozen=True)
class DecodeStep:
    """Seconds of one decode step of ``batch`` requests: all of it, and what of that the kernels
    take (on a CPU: the model and the sampler)."""

    batch: int
    step: float
    kernels: float

    @property
    def overhead(self) -> float:
        """What comes on top of the kernels, as a share of them."""
        return self.step / self.kernels - 1

    def lines(self) -> list[str]:
        """For a reader."""
        return [
            f"decode step       {1e3 * self.step:.3f} ms at batch {self.batch}, "
            f"{1e3 * self.kernels:.3f} ms of it in kernels: {self.overhead:.1%} on top"
        ]


def decode_step(engine: Engine, load: Load, steps: int = 40) -> DecodeStep | None:
    """Bring the requests of a load to decode and time ``steps`` steps; on a GPU a profiler adds up
    the kernels of as many more. None where there is no room for so long an output."""
    scheduler, warm = engine.scheduler, 8
    requests = min(load.requests, scheduler.max_requests)
    prefill = -(-requests * load.prompt // scheduler.token_budget) + 1
    output = prefill + warm + 2 * steps + 1
    if (
        requests * (load.prompt + output + scheduler.page_size)
        > (scheduler.pool.n_pages * scheduler.page_size)
        or load.prompt + output > engine.capacity
    ):
        return None
    again = replace(load, requests=requests, seed=load.seed + 1)
    for prompt in again.prompts(engine.model.config.vocab_size):
        engine.submit(prompt, _greedy(output))
    while scheduler.waiting or any(not s.generated for s in scheduler.running):
        engine.step()
    for _ in range(warm):
        engine.step()
    step, kernels = (_step_gpu if engine.model.device.type == "cuda" else _step_cpu)(engine, steps)
    for sequence in list(scheduler.running):
        engine.cancel(sequence.request.id)
    return DecodeStep(requests, step, kernels)


def _timed(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _step_cpu(engine: Engine, steps: int) -> tuple[float, float]:
    """Seconds of a step, and of its model and sampler, in the same steps."""
    with _stopwatch(engine) as spans:
        seconds = sum(_timed(engine.step) for _ in range(steps))
    return seconds / steps, sum(span() for span in spans) / steps


def _step_gpu(engine: Engine, steps: int) -> tuple[float, float]:
    """Seconds of a step, before and after those under the profiler: sequences grow on the way."""
    from torch.profiler import ProfilerActivity, profile

    seconds = [_timed(engine.step) for _ in range(steps // 2)]
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(steps):
            engine.step()
        torch.cuda.synchronize()
    microseconds = sum(event.self_device_time_total for event in profiler.key_averages())
    seconds += [_timed(engine.step) for _ in range(steps // 2)]
    return median(seconds), float(microseconds) / 1e6 / steps


@dataclass(frozen=True)
class Share:
    """Where the time of an eager run went: its ops, the rest of the model, and the host."""

    seconds: float
    model_seconds: float
    ops: Watched

    def rows(self) -> list[dict[str, Any]]:
        """Each part, its seconds, and what it is; most first."""
        in_model = sum(self.ops.seconds.get(op, 0.0) for op in IN_MODEL)
        rows = [
            (op, s, f"{self.ops.calls[op]} calls, {', '.join(sorted(self.ops.kernels[op]))}")
            for op, s in self.ops.seconds.items()
        ]
        rows.append(("linear, norms, rest", self.model_seconds - in_model, "PyTorch"))
        rest = self.seconds - sum(seconds for _, seconds, _ in rows)
        rows.append(("host", rest, "scheduling, batches, launching"))
        rows.sort(key=lambda row: -row[1])
        return [{"part": part, "seconds": s, "what": what} for part, s, what in rows]

    def lines(self) -> list[str]:
        """For a reader."""
        return [
            f"{r['part']:22} {r['seconds'] / self.seconds:6.1%}  {1e3 * r['seconds']:9.2f} ms  "
            f"{r['what']}"
            for r in self.rows()
        ]


IN_MODEL = ("rope_append_kv", "paged_attention")
"""The ops that a forward pass calls."""


def share(engine: Engine, load: Load) -> Share:
    """Run a load without graphs and time each op, and each forward pass as a whole."""
    graphs, engine._graphs = engine._graphs, None
    try:
        with _stopwatch(engine, sampler=False) as spans, watch() as watched:
            seconds = measure(engine, load).seconds
    finally:
        engine._graphs = graphs
    return Share(seconds, sum(span() for span in spans), watched)


@contextmanager
def _stopwatch(engine: Engine, sampler: bool = True) -> Iterator[list[Callable[[], float]]]:
    """How long each forward pass (and each draw) takes inside the block, to be asked for at its
    end: on a GPU, the seconds on its stream."""
    spans: list[Callable[[], float]] = []

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            stop = _start(engine)
            result = call(*args)
            spans.append(stop())
            return result

        return run

    forward, draw = engine.model.forward, engine._sampler
    engine.model.forward = timed(forward)  # type: ignore[method-assign]
    if sampler:
        engine._sampler = timed(draw)  # type: ignore[assignment]
    try:
        yield spans
    finally:
        engine.model.forward = forward  # type: ignore[method-assign]
        engine._sampler = draw
        _synchronize(engine)


def _start(engine: Engine) -> Callable[[], Callable[[], float]]:
    """Start a watch: call it to stop, and call what it returns for the seconds."""
    if engine.model.device.type != "cuda":
        begun = time.perf_counter()

        def stop() -> Callable[[], float]:
            seconds = time.perf_counter() - begun
            return lambda: seconds

        return stop
    started, stopped = timing_event(), timing_event()
    started.record()

    def stop_event() -> Callable[[], float]:
        stopped.record()
        return lambda: started.elapsed_time(stopped) / 1e3

    return stop_event


def _synchronize(engine: Engine) -> None:
    if engine.model.device.type == "cuda":
        torch.cuda.synchronize(engine.model.device)


@dataclass(frozen=True)
class Peer:
    """The same load by transformers' generate: one batch, greedy, the same dtype and device."""

    version: str
    requests: int
    rate: float
    first_token: float
    between_tokens: float

    def lines(self) -> list[str]:
        """For a reader."""
        return [
            f"transformers {self.version} generate, one batch of {self.requests}: "
            f"{self.rate:.1f} output tokens/s, first token {1e3 * self.first_token:.1f} ms, "
            f"between tokens {1e3 * self.between_tokens:.2f} ms"
        ]


def transformers_figures(
    source: str | Path | dict[str, Any], load: Load, device: torch.device, dtype: torch.dtype
) -> Peer:
    """Load or make the model and time its generate, after one that is not counted."""
    import transformers

    auto: Any = transformers.AutoModelForCausalLM
    if isinstance(source, dict):
        fields = {k: v for k, v in source.items() if k not in ("model_type", "dtype")}
        config = transformers.AutoConfig.for_model(source["model_type"], **fields)
        with torch.device(device):
            model = auto.from_config(config, dtype=dtype)
    else:
        model = auto.from_pretrained(source, dtype=dtype).to(device)
    model = model.eval()
    ids = torch.from_numpy(np.stack(load.prompts(model.config.vocab_size))).long().to(device)

    def generate(tokens: int) -> None:
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            pad_token_id=0,
        )
        out.cpu()  # done only when it is there

    generate(2)
    first, seconds = (_timed(lambda n=n: generate(n)) for n in (1, load.output))  # type: ignore[misc]
    return Peer(
        version=transformers.__version__,
        requests=load.requests,
        rate=load.requests * load.output / seconds,
        first_token=first,
        between_tokens=(seconds - first) / max(load.output - 1, 1),
    )
