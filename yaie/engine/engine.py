"""The engine: requests in, tokens out, one step at a time.

A step schedules, computes one mixed batch of prefill and decode tokens, draws the next token of
every sequence whose tokens are all computed, and retires what has ended. What a request says does
not depend on who else is there: every draw is a function of its own logits, seed and position.

Where decode steps are recorded, a step begins the next one before it waits for its own tokens, as
if no request ended with them; the device goes on while the host looks at them. What it computed for
a request that did end is dropped.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from yaie import dispatch, ops
from yaie.cache.integers import Integers
from yaie.engine.batch import pack
from yaie.engine.graphs import DecodeGraphs
from yaie.engine.model import Decoder
from yaie.engine.request import (
    CANCELLED,
    FAILED,
    LENGTH,
    STOP,
    Completion,
    Output,
    Request,
    SamplingParams,
)
from yaie.engine.sampler import Drawn, Sampler, needs_history
from yaie.engine.scheduler import Chunk, Scheduler, Sequence

CPU_CACHE_BYTES = 1 << 30
GPU_CACHE_SHARE = 0.8
"""How much of what is left of a GPU's memory the cache takes unless told otherwise."""


@dataclass
class Stats:
    """What the engine did since it was made. ``ahead_steps`` were begun before the tokens that they
    compute were known; ``dropped_tokens`` were computed for requests that had ended."""

    steps: int = 0
    graph_steps: int = 0
    ahead_steps: int = 0
    computed_tokens: int = 0
    dropped_tokens: int = 0
    generated_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True)
class Begun:
    """A step that the device is at: what it computes, and the tokens that follow from the chunks
    that are ``ready``."""

    chunks: list[Chunk]
    ready: list[Chunk]
    drawn: Drawn | None  # None: no chunk is ready
    recorded: bool


def _may_be_recorded(choices: Collection[str]) -> bool:
    """Whether decode steps with these kernels can be CUDA graphs: ours never wait for the GPU,
    references and plain PyTorch may."""
    return all(choice.rpartition("=")[2].startswith("cuda.") for choice in choices)


class Engine:
    """Serves requests with one decoder.

    ``page_size`` and ``num_pages`` size the KV cache (None: as many as a share of the memory
    holds), ``token_budget`` and ``max_requests`` a step, ``prefix_cache`` keeps the pages of
    computed prefixes for later requests, ``cuda_graphs`` records decode steps (None: on a GPU).
    ``kernels`` are choices as for ``yaie.use``, for all steps; a graph keeps those that it was
    recorded with.

    On a GPU all calls belong on one CUDA stream: a step may be under way when a call returns. Where
    a step raises, no token is lost: the next call goes on from there.

    Errors: ValueError, TypeError for bad arguments, before anything is changed.
    """

    def __init__(
        self,
        model: Decoder,
        *,
        page_size: int = 16,
        num_pages: int | None = None,
        token_budget: int = 2048,
        max_requests: int = 64,
        prefix_cache: bool = True,
        cuda_graphs: bool | None = None,
        kernels: Collection[str] = (),
    ) -> None:
        for name, value in (
            ("page_size", page_size),
            ("num_pages", 1 if num_pages is None else num_pages),
            ("token_budget", token_budget),
            ("max_requests", max_requests),
        ):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"Engine: {name}: {value!r} is not an integer")
            if value < 1:
                raise ValueError(f"Engine: {name}: is {value}, must be at least 1")
        dispatch.check_choices(tuple(kernels), ops.kernel_names())
        on_gpu = model.device.type == "cuda"
        if cuda_graphs and not on_gpu:
            raise ValueError(f"Engine: cuda_graphs: the model is on {model.device}")
        pages = _default_pages(model, page_size) if num_pages is None else num_pages
        self.model = model
        self.kernels = tuple(kernels)
        self.stats = Stats()
        self.caches = model.new_cache(pages, page_size)
        self.scheduler = Scheduler(pages, page_size, token_budget, max_requests, prefix_cache)
        self._sampler = Sampler(model.device)
        self._sequences: dict[str, Sequence] = {}
        self._streams: dict[str, list[Output]] = {}
        self._ids = itertools.count()
        self._graphs: DecodeGraphs | None = None
        self._begun: Begun | None = None
        if on_gpu and _may_be_recorded(kernels) if cuda_graphs is None else cuda_graphs:
            self._graphs = self._decode_graphs(DecodeGraphs)

    @staticmethod
    def load(
        folder: str | Path,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        **options: object,
    ) -> Engine:
        """An engine for the decoder in a local Hugging Face folder; options as above."""
        return Engine(Decoder.load(folder, device, dtype), **options)  # type: ignore[arg-type]

    @property
    def capacity(self) -> int:
        """The most tokens, prompt and output, of a request."""
        pool = self.scheduler.pool.n_pages * self.scheduler.page_size
        return min(pool, self.model.max_positions)

    @property
    def busy(self) -> bool:
        """Whether a request has not ended."""
        return bool(self._sequences)

    def submit(
        self,
        prompt: Integers,
        params: SamplingParams | None = None,
        request_id: str | None = None,
    ) -> str:
        """Put a request in line; returns its id.

        Errors: ValueError for an empty prompt, a token outside the vocabulary, more tokens than the
        model or the cache can hold, an id that is in use (by a stream, until its last output).
        """
        params = SamplingParams() if params is None else params
        name = self._new_id() if request_id is None else request_id
        if not isinstance(name, str):
            raise TypeError(f"request_id: {name!r} is not a string")
        if self._is_in_use(name):
            raise ValueError(f"request {name!r}: request_id: is in use")
        request = Request.of(name, prompt, params, secrets.randbits(63))
        self._check_fits(request)
        self._sequences[name] = self.scheduler.add(request)
        return name

    def cancel(self, request_id: str) -> Completion:
        """End a request now. Errors: KeyError for an unknown id (or one that has ended)."""
        if request_id not in self._sequences:
            raise KeyError(f"request {request_id!r}: is unknown, or has ended")
        completion = self._end(self._sequences[request_id], CANCELLED)
        self._drop_unwanted()
        return completion

    def step(self) -> list[Output]:
        """Compute one batch; returns what came out, oldest request first. Without requests it does
        nothing."""
        with dispatch.use(*self.kernels):
            if self._begun is None:
                self._begun = self._begin(self.scheduler.schedule())
            begun = self._begun
            if begun is None:
                return []
            following = self._begin_next(begun)
        tokens = [] if begun.drawn is None else begun.drawn.tolist()
        self._begun = following  # not before: a step is kept until its tokens are there
        outputs = self._finish(begun, tokens)
        self._drop_unwanted()
        if self._streams:
            self._deliver(outputs)
        return outputs

    def stream(self, prompt: Integers, params: SamplingParams | None = None) -> Iterator[Output]:
        """Submit one request and step until it ends; yields its outputs as they come. Several
        streams may take turns: each steps for all. Closing one early cancels its request."""
        request_id = self.submit(prompt, params)
        inbox = self._streams[request_id] = []
        try:
            while inbox or request_id in self._sequences:
                while not inbox:
                    self.step()
                yield inbox.pop(0)
        finally:
            del self._streams[request_id]
            if request_id in self._sequences:
                self.cancel(request_id)

    def generate(
        self,
        prompts: Collection[Integers],
        params: SamplingParams | Collection[SamplingParams] | None = None,
    ) -> list[Completion]:
        """Submit prompts, all with the same parameters or each with its own, and step until they
        have ended."""
        if params is None or isinstance(params, SamplingParams):
            params = [params or SamplingParams()] * len(prompts)
        if len(params) != len(prompts):
            raise ValueError(f"Engine.generate: {len(prompts)} prompts, {len(params)} params")
        ids: list[str] = []
        try:
            for prompt, each in zip(prompts, params, strict=True):
                ids.append(self.submit(prompt, each))
        except (TypeError, ValueError):
            for request_id in ids:
                self.cancel(request_id)
            raise
        ended: dict[str, Completion] = {}
        while len(ended) < len(ids):
            for output in self.step():
                if output.completion is not None and output.request_id in ids:
                    ended[output.request_id] = output.completion
        return [ended[request_id] for request_id in ids]

    def clear_prefix_cache(self) -> int:
        """Forget all prefixes; returns how many pages that frees. Errors: ValueError while a
        running request reads some of them."""
        return self.scheduler.clear()

    def check_integrity(self) -> None:
        """AssertionError, in words, where pages, locks and requests disagree."""
        self.scheduler.check_integrity()
        lined_up = {s.request.id for s in (*self.scheduler.running, *self.scheduler.waiting)}
        assert lined_up == set(self._sequences), f"{lined_up} in line, not {set(self._sequences)}"

    def _decode_graphs(self, kind: type[DecodeGraphs]) -> DecodeGraphs:
        scheduler = self.scheduler
        return kind(
            lambda batch: self.model.forward(batch, self.caches),
            scheduler.max_requests,
            self._pages_for(self.capacity),
            scheduler.page_size,
            self.model.device,
        )

    def _pages_for(self, tokens: int) -> int:
        return -(-tokens // self.scheduler.page_size)

    def _is_live(self, chunk: Chunk) -> bool:
        """Whether its request has not ended since the step was begun."""
        return self._sequences.get(chunk.sequence.request.id) is chunk.sequence

    def _begin(self, chunks: list[Chunk]) -> Begun | None:
        if not chunks:
            return None
        recorded = self._graphs is not None and self._graphs.serves(chunks)
        if self._graphs is not None and recorded:
            logits = self._graphs.run(chunks)
        else:
            batch = pack(chunks, self.scheduler.page_size, self.model.device)
            logits = self.model.forward(batch, self.caches)
        ready = [chunk for chunk in chunks if chunk.is_last]
        return Begun(chunks, ready, self._sampler(logits, ready) if ready else None, recorded)

    def _begin_next(self, begun: Begun) -> Begun | None:
        """The decode step behind a decode step, before the host knows the tokens of the first."""
        if self._graphs is None or begun.drawn is None or not begun.recorded:
            return None
        if needs_history(begun.chunks):
            return None
        chunks = self.scheduler.ahead(begun.chunks)
        if not chunks:
            return None
        drawn = self._sampler(self._graphs.run(chunks, begun.drawn.tokens), chunks)
        self.stats.ahead_steps += 1
        return Begun(chunks, chunks, drawn, recorded=True)

    def _finish(self, begun: Begun, tokens: list[int]) -> list[Output]:
        """Take the tokens of a step."""
        live = [chunk for chunk in begun.chunks if self._is_live(chunk)]
        self.scheduler.computed(live)
        self._count(begun, live)
        return [
            self._take(chunk.sequence, token)
            for chunk, token in zip(begun.ready, tokens, strict=True)
            if self._is_live(chunk)
        ]

    def _drop_unwanted(self) -> None:
        """Forget the step that is under way if all its requests have ended."""
        begun = self._begun
        if begun is not None and not any(map(self._is_live, begun.chunks)):
            self._begun = None
            self._count(begun, [])

    def _count(self, begun: Begun, live: list[Chunk]) -> None:
        computed = sum(chunk.length for chunk in live)
        self.stats.steps += 1
        self.stats.graph_steps += begun.recorded
        self.stats.computed_tokens += computed
        self.stats.dropped_tokens += sum(chunk.length for chunk in begun.chunks) - computed

    def _deliver(self, outputs: list[Output]) -> None:
        for output in outputs:
            if output.request_id in self._streams:
                self._streams[output.request_id].append(output)

    def _take(self, sequence: Sequence, token: int) -> Output:
        """Append a token to its sequence, which may end with it."""
        if token < 0:
            error = f"no token can be drawn after position {sequence.length - 1}: logits are NaN, "
            completion = self._end(sequence, FAILED, error + "+inf, or all -inf")
            return Output(sequence.request.id, None, completion)
        sequence.append(token)
        self.stats.generated_tokens += 1
        reason = self._reason_to_end(sequence, token)
        ended = None if reason is None else self._end(sequence, reason)
        return Output(sequence.request.id, token, ended)

    def _reason_to_end(self, sequence: Sequence, token: int) -> str | None:
        params = sequence.request.params
        if token in params.stop_ids:
            return STOP
        if not params.ignore_eos and token in self.model.config.eos_ids:
            return STOP
        return LENGTH if sequence.is_full else None

    def _end(self, sequence: Sequence, reason: str, error: str | None = None) -> Completion:
        request = sequence.request
        self.scheduler.remove(sequence)
        del self._sequences[request.id]
        self.stats.prompt_tokens += len(request.prompt)
        self.stats.cached_tokens += sequence.cached
        return Completion(
            request_id=request.id,
            prompt=tuple(request.prompt.tolist()),
            tokens=tuple(sequence.output.tolist()),
            reason=reason,
            seed=request.seed,
            cached_tokens=sequence.cached,
            preemptions=max(sequence.admissions - 1, 0),
            error=error,
        )

    def _check_fits(self, request: Request) -> None:
        where = f"request {request.id!r}"
        low, high = int(request.prompt.min()), int(request.prompt.max())
        vocabulary = self.model.config.vocab_size
        if low < 0 or high >= vocabulary:
            wrong = low if low < 0 else high
            raise ValueError(f"{where}: prompt: token {wrong} is not within 0..{vocabulary - 1}")
        total = len(request.prompt) + request.params.max_tokens
        if total > self.capacity:
            positions = self.model.max_positions
            pool = self.scheduler.pool.n_pages * self.scheduler.page_size
            raise ValueError(
                f"{where}: prompt of {len(request.prompt)} tokens and max_tokens of "
                f"{request.params.max_tokens} make {total}; the model holds {positions}, the cache "
                f"{pool} ({self.scheduler.pool.n_pages} pages of {self.scheduler.page_size}): "
                f"shorten them, or raise {'num_pages' if pool < positions else 'max_positions'}"
            )

    def _new_id(self) -> str:
        return next(name for i in self._ids if not self._is_in_use(name := str(i)))

    def _is_in_use(self, request_id: str) -> bool:
        """Whether a request has this id, or a stream that is still read."""
        return request_id in self._sequences or request_id in self._streams


def _default_pages(model: Decoder, page_size: int) -> int:
    """As many pages as the memory set aside for them holds, at least one."""
    memory = CPU_CACHE_BYTES
    if model.device.type == "cuda":
        memory = int(torch.cuda.mem_get_info(model.device)[0] * GPU_CACHE_SHARE)
    pages = memory // (model.cache_bytes_per_token() * page_size)
    return max(1, min(pages, 2**31 // page_size - 1))
