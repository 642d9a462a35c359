"""Programs for an engine (options, and commands to submit, to step and to cancel), and what must
hold whatever the program is. A request says what it says alone, and after each step every page and
lock is accounted for. Pages that nobody owns hold NaN: nothing can be read from them unseen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from yaie import ops
from yaie.engine import Completion, Decoder, Engine, ModelConfig, SamplingParams
from yaie.engine.batch import Batch
from yaie.engine.graphs import DecodeGraphs
from yaie.engine.rope import RopeScaling
from yaie.engine.scheduler import Sequence
from yaie.engine.weights import RandomWeights

VOCABULARY = 29
EOS = (7, 19)
KERNELS: tuple[tuple[str, ...], ...] = (
    (),
    ("simt.*",),
    ("paged_attention=simt.naive", "reference"),
)
PARAMS = (
    SamplingParams(temperature=0, max_tokens=7),
    SamplingParams(temperature=0, max_tokens=1),
    SamplingParams(temperature=0, max_tokens=9, stop_ids=(3, 5, 8), ignore_eos=True),
    SamplingParams(temperature=0, max_tokens=6, repetition=3.0, frequency=1.0, presence=-0.5),
    SamplingParams(temperature=1.3, max_tokens=8, seed=11),
    SamplingParams(temperature=0.7, top_k=5, top_p=0.9, min_p=0.02, max_tokens=5, seed=-4),
    SamplingParams(temperature=2.0, repetition=2.0, presence=1.0, max_tokens=6, seed=2**62),
)
NOISE = 1e-4
"""By how much logits are shaken to find draws that hang by a thread: float32 errors of this model
are thirty times smaller."""


@cache
def model() -> Decoder:
    """Two layers, one with a window, logits far apart."""
    config = ModelConfig(
        family="mistral",
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        max_positions=64,
        norm_eps=1e-6,
        rope_theta=100.0,
        scaling=RopeScaling(),
        windows=(-1, 6),
        eos_ids=EOS,
    )
    return Decoder(config, RandomWeights(seed=5, scale=0.3))


def prompt(shared: int, own: int, seed: int) -> tuple[int, ...]:
    """``shared`` tokens of a prefix that all have in common, then some of its own."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randint(VOCABULARY, (shared,), generator=generator).tolist()
    generator.manual_seed(1 + seed)
    return (*base, *torch.randint(VOCABULARY, (own,), generator=generator).tolist())


@dataclass(frozen=True)
class Said:
    """What a request says, why it ends, and how many of its tokens stay the same when its logits
    are shaken a little. Later ones may differ by right: every token follows from those before."""

    tokens: tuple[int, ...]
    reason: str
    steady: int


@cache
def alone(prompt: tuple[int, ...], number: int) -> Said:
    """A request without an engine: each token from the whole text, computed from its start."""
    params, said, steady = PARAMS[number], list[int](), list[bool]()
    noise = torch.Generator().manual_seed(0)
    stops = {*params.stop_ids, *(() if params.ignore_eos else EOS)}
    while True:
        logits = logits_after((*prompt, *said))
        off = NOISE * torch.randn(5, VOCABULARY, generator=noise)
        off[0] = 0
        drawn = draws(logits + off, prompt, said, params)
        steady.append(len(set(drawn)) == 1)
        said.append(drawn[0])
        if said[-1] in stops or len(said) == params.max_tokens:
            reason = "stop" if said[-1] in stops else "length"
            return Said(tuple(said), reason, [*steady, False].index(False))


def logits_after(tokens: tuple[int, ...]) -> Tensor:
    """float32 [1,V], through one page that holds all."""
    n = len(tokens)
    numbers = {
        "tokens": list(tokens),
        "positions": list(range(n)),
        "slots": list(range(n)),
        "q_indptr": [0, n],
        "kv_lens": [n],
        "block_table": [[0]],
        "last": [n - 1],
    }
    batch = Batch(**{k: torch.tensor(v, dtype=torch.int32) for k, v in numbers.items()})
    return model().forward(batch, model().new_cache(1, n))


def draws(
    logits: Tensor, prompt: tuple[int, ...], said: list[int], params: SamplingParams
) -> list[int]:
    """A token for each row of logits [R,V], by the pages of penalize and sample."""
    rows = len(logits)

    def column(value: float, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.full((rows,), value, dtype=dtype)

    def repeated(tokens: Collection[int]) -> tuple[Tensor, Tensor]:
        each = torch.tensor(list(tokens), dtype=torch.int32)
        return each.repeat(rows), len(each) * torch.arange(rows + 1, dtype=torch.int32)

    wide = (params.repetition, params.frequency, params.presence)
    logits = ops.penalize(logits, *repeated(prompt), *repeated(said), *map(column, wide))
    tokens = ops.sample(
        logits,
        column(params.temperature),
        column(params.top_k if params.top_k > 0 else VOCABULARY, torch.int32),
        column(params.top_p),
        column(params.min_p),
        column(params.seed or 0, torch.int64),
        column(len(prompt) + len(said), torch.int32),
    )
    return tokens.tolist()


@dataclass(frozen=True)
class Submit:
    """A request: how much of the common prefix, how many tokens of its own, which parameters."""

    shared: int
    own: int
    seed: int
    params: int

    @property
    def tokens(self) -> tuple[int, ...]:
        return prompt(self.shared, self.own, self.seed)


@dataclass(frozen=True)
class Again:
    """The next turn of a talk: prompt and output of the request that was submitted so many before
    the last, and some new tokens, if it has ended and what follows fits."""

    back: int
    own: int
    params: int


@dataclass(frozen=True)
class Step:
    times: int


@dataclass(frozen=True)
class Cancel:
    """The request that was submitted so many before the last."""

    back: int


Command = Submit | Again | Step | Cancel


@dataclass(frozen=True)
class Program:
    """Options of an engine, with ``spare`` pages beside those of the longest request, and commands.
    At the end it steps until nothing is left."""

    page_size: int
    spare: int
    token_budget: int
    max_requests: int
    prefix_cache: bool
    graphs: bool
    kernels: int
    commands: tuple[Command, ...]

    def engine(self) -> Engine:
        longest = [
            len(c.tokens) + PARAMS[c.params].max_tokens for c in self.commands if _submits(c)
        ]
        engine = Engine(
            model(),
            page_size=self.page_size,
            num_pages=-(-max(longest, default=1) // self.page_size) + self.spare,
            token_budget=self.token_budget,
            max_requests=self.max_requests,
            prefix_cache=self.prefix_cache,
            kernels=KERNELS[self.kernels],
        )
        if self.graphs:
            engine._graphs = engine._decode_graphs(Replayed)
        return engine


class Replayed(DecodeGraphs):
    """Graphs without a GPU: a replay does the recorded work again, on the same memory."""

    def capture(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        result = work()

        def replay() -> None:
            result.copy_(work())

        return result, replay


def _submits(command: Any) -> bool:
    return isinstance(command, Submit)


submits = st.builds(
    Submit,
    shared=st.sampled_from((8, 0, 3, 12, 16)),
    own=st.integers(0, 3),
    seed=st.integers(0, 1),
    params=st.integers(0, len(PARAMS) - 1),
).filter(lambda s: s.shared + s.own > 0)
commands = st.one_of(
    submits,
    submits,
    st.builds(Step, st.integers(1, 5)),
    st.builds(Step, st.integers(4, 12)),
    st.builds(Again, st.integers(0, 2), st.integers(0, 2), st.integers(0, len(PARAMS) - 1)),
    st.builds(Cancel, st.integers(0, 3)),
)
programs = st.builds(
    Program,
    page_size=st.integers(1, 6),
    spare=st.sampled_from((0, 0, 0, 1, 3, 5)),
    token_budget=st.sampled_from((1, 2, 3, 5, 8, 13, 64)),
    max_requests=st.sampled_from((4, 3, 5, 2, 1)),
    prefix_cache=st.sampled_from((True, True, True, False)),
    graphs=st.booleans(),
    kernels=st.sampled_from((0, 0, 0, 0, *range(1, len(KERNELS)))),
    commands=st.lists(commands, min_size=1, max_size=12).map(tuple),
)


@dataclass
class Run:
    """One program, run: what came out, and what happened on the way."""

    engine: Engine
    submitted: dict[str, tuple[tuple[int, ...], int]] = field(default_factory=dict)
    """Prompt and number of the parameters."""
    ended: dict[str, Completion] = field(default_factory=dict)
    streamed: dict[str, list[int]] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    computed: int = 0

    def obey(self, command: Command) -> None:
        if isinstance(command, Submit):
            self.submit(command.tokens, command.params)
        elif isinstance(command, Again):
            self.again(command)
        elif isinstance(command, Step):
            for _ in range(command.times):
                self.step()
        else:
            self.cancel(command.back)

    def submit(self, tokens: tuple[int, ...], params: int) -> None:
        request_id = self.engine.submit(tokens, PARAMS[params])
        self.submitted[request_id] = tokens, params
        self.streamed[request_id] = []

    def again(self, command: Again) -> None:
        ids = list(self.submitted)
        before = self.ended.get(ids[-1 - command.back]) if command.back < len(ids) else None
        if before is not None:
            talk = (*before.prompt, *before.tokens, *prompt(0, command.own, 0))
            if len(talk) + PARAMS[command.params].max_tokens <= self.engine.capacity:
                self.seen["next turns"] += 1
                self.submit(talk, command.params)

    def __post_init__(self) -> None:
        self.poison()

    def poison(self) -> None:
        """Fill every page that nobody owns with NaN."""
        free = torch.tensor(self.engine.scheduler.pool.free_pages, dtype=torch.long)
        for keys, values in self.engine.caches:
            keys[free] = values[free] = torch.nan

    def step(self) -> None:
        running = len(self.engine.scheduler.running)
        evicted = self.engine.scheduler.evicted_pages
        outputs = self.engine.step()
        self.check()
        self.seen["evictions"] += self.engine.scheduler.evicted_pages > evicted
        self.seen["mixed batches"] += running > 0 and any(s.admissions for s in self._fresh())
        for output in outputs:
            if output.token is not None:
                self.streamed[output.request_id].append(output.token)
            if output.completion is not None:
                self.end(output.completion)

    def check(self) -> None:
        """What must hold between two calls."""
        self.engine.check_integrity()
        computed = self.engine.stats.computed_tokens - self.computed
        assert computed <= self.engine.scheduler.token_budget, f"{computed} tokens in one step"
        scheduler = self.engine.scheduler
        assert len(scheduler.running) <= scheduler.max_requests
        line = [s.request.id for s in (*scheduler.running, *scheduler.waiting)]
        arrived = [name for name in self.submitted if name in line]
        assert arrived == line, f"{line} in line, arrived as {arrived}"
        self.computed += computed
        self.poison()

    def _fresh(self) -> list[Sequence]:
        return [s for s in self.engine.scheduler.running if 0 < s.computed <= s.prefill]

    def cancel(self, back: int) -> None:
        ids = list(self.submitted)
        if back < len(ids) and ids[-1 - back] not in self.ended:
            completion = self.engine.cancel(ids[-1 - back])
            self.check()
            assert completion.reason == "cancelled"
            self.seen["cancelled with output"] += bool(completion.tokens)
            self.end(completion)

    def end(self, completion: Completion) -> None:
        self.ended[completion.request_id] = completion
        self.seen["preemptions"] += completion.preemptions
        self.seen["cache hits"] += completion.cached_tokens > 0
        self.seen["ended " + completion.reason] += 1


def run(program: Program) -> Run:
    done = Run(program.engine())
    for command in program.commands:
        done.obey(command)
    tokens = sum(len(t) + PARAMS[params].max_tokens for t, params in done.submitted.values())
    for _ in range(10 + 4 * tokens):
        if not done.engine.busy:
            break
        done.step()
    assert not done.engine.busy, "a request starves"
    return done


def assert_laws(done: Run) -> None:
    assert set(done.submitted) == set(done.ended)
    for request_id, (tokens, params) in done.submitted.items():
        completion = done.ended[request_id]
        expected = alone(tokens, params)
        assert completion.prompt == tokens
        assert list(completion.tokens) == done.streamed[request_id]
        compared = min(expected.steady, len(completion.tokens))
        assert expected.tokens[:compared] == completion.tokens[:compared], completion
        done.seen["tokens"] += len(completion.tokens)
        done.seen["tokens compared"] += compared
        if expected.steady == len(expected.tokens) and completion.reason != "cancelled":
            assert (expected.tokens, expected.reason) == (completion.tokens, completion.reason)
    done.seen["graph steps"] += done.engine.stats.graph_steps
    done.seen["steps begun ahead"] += done.engine.stats.ahead_steps
    done.seen["tokens dropped"] += done.engine.stats.dropped_tokens
    scheduler = done.engine.scheduler
    assert scheduler.tree.protected == 0
    cached = scheduler.tree.evictable
    assert cached + scheduler.pool.n_free == scheduler.pool.n_pages
    done.seen["pages cached at the end"] += cached
    assert done.engine.step() == []
