"""The engine's laws: what a request says does not depend on the prefix cache, the page size, the
chunk budget, its batch mates, its arrival, eviction, preemption or the kernels; every page and lock
is accounted for after each step."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from yaie.engine import Completion, Decoder, Engine, ModelConfig, SamplingParams
from yaie.engine.rope import RopeScaling
from yaie.engine.scheduler import Sequence
from yaie.engine.weights import RandomWeights

VOCABULARY = 29
KERNELS: tuple[tuple[str, ...], ...] = ((), ("paged_attention=reference",), ("reference",))
PARAMS = (
    SamplingParams(temperature=0, max_tokens=7),
    SamplingParams(temperature=0, max_tokens=1),
    SamplingParams(temperature=0, max_tokens=9, stop_ids=(3, 5, 8), ignore_eos=True),
    SamplingParams(temperature=0, max_tokens=6, repetition=1.5, frequency=0.5, presence=-0.5),
    SamplingParams(temperature=1.3, max_tokens=8, seed=11),
    SamplingParams(temperature=0.7, top_k=5, top_p=0.9, min_p=0.02, max_tokens=5, seed=-4),
    SamplingParams(temperature=2.0, repetition=1.2, presence=1.0, max_tokens=6, seed=2**62),
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
        eos_ids=(7, 19),
    )
    return Decoder(config, RandomWeights(seed=5, scale=0.3))


def prompt(shared: int, own: int, seed: int) -> tuple[int, ...]:
    """``shared`` tokens of a prefix that all have in common, then some of its own."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randint(VOCABULARY, (shared,), generator=generator).tolist()
    generator.manual_seed(1 + seed)
    return (*base, *torch.randint(VOCABULARY, (own,), generator=generator).tolist())


@cache
def alone(tokens: tuple[int, ...], number: int) -> tuple[Completion, int]:
    """What a request says on its own, and how many of its tokens stay the same when its logits are
    shaken a little. Later ones may differ by right: every token follows from those before it."""
    engine = Engine(model(), page_size=64, num_pages=1, token_budget=64, prefix_cache=False)
    draw, steady = engine._sampler, [True]

    def shaken(logits: Tensor, sequences: list[Sequence]) -> list[int]:
        drawn = draw(logits, sequences)
        off = (NOISE * torch.randn_like(logits) for _ in range(4))
        steady.append(all(draw(logits + each, sequences) == drawn for each in off))
        return drawn

    engine._sampler = shaken  # type: ignore[assignment]
    (completion,) = engine.generate([tokens], PARAMS[number])
    steady.append(False)
    return completion, steady.index(False) - 1


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
class Step:
    times: int


@dataclass(frozen=True)
class Cancel:
    """The request that was submitted so many before the last."""

    back: int


@dataclass(frozen=True)
class Program:
    """Options of an engine, with ``spare`` pages beside those of the longest request, and commands.
    At the end it steps until nothing is left."""

    page_size: int
    spare: int
    token_budget: int
    max_requests: int
    prefix_cache: bool
    kernels: int
    commands: tuple[Submit | Step | Cancel, ...]

    def engine(self) -> Engine:
        longest = [
            len(c.tokens) + PARAMS[c.params].max_tokens for c in self.commands if _submits(c)
        ]
        return Engine(
            model(),
            page_size=self.page_size,
            num_pages=-(-max(longest, default=1) // self.page_size) + self.spare,
            token_budget=self.token_budget,
            max_requests=self.max_requests,
            prefix_cache=self.prefix_cache,
            kernels=KERNELS[self.kernels],
        )


def _submits(command: Any) -> bool:
    return isinstance(command, Submit)


submits = st.builds(
    Submit,
    shared=st.integers(0, 16),
    own=st.integers(0, 5),
    seed=st.integers(0, 2),
    params=st.integers(0, len(PARAMS) - 1),
).filter(lambda s: s.shared + s.own > 0)
commands = st.one_of(
    submits, submits, st.builds(Step, st.integers(1, 5)), st.builds(Cancel, st.integers(0, 3))
)
programs = st.builds(
    Program,
    page_size=st.integers(1, 6),
    spare=st.integers(0, 5),
    token_budget=st.sampled_from((1, 2, 3, 5, 8, 13, 64)),
    max_requests=st.integers(1, 5),
    prefix_cache=st.booleans() | st.just(True),
    kernels=st.integers(0, len(KERNELS) - 1),
    commands=st.lists(commands, min_size=1, max_size=12).map(tuple),
)


@dataclass
class Run:
    """One program, run: what came out, and what happened on the way."""

    engine: Engine
    submitted: dict[str, Submit] = field(default_factory=dict)
    ended: dict[str, Completion] = field(default_factory=dict)
    streamed: dict[str, list[int]] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)

    def obey(self, command: Submit | Step | Cancel) -> None:
        if isinstance(command, Submit):
            request_id = self.engine.submit(command.tokens, PARAMS[command.params])
            self.submitted[request_id] = command
            self.streamed[request_id] = []
        elif isinstance(command, Step):
            for _ in range(command.times):
                self.step()
        else:
            self.cancel(command.back)

    def step(self) -> None:
        running = len(self.engine.scheduler.running)
        evicted = self.engine.scheduler.evicted_pages
        outputs = self.engine.step()
        self.engine.check_integrity()
        self.seen["evictions"] += self.engine.scheduler.evicted_pages > evicted
        self.seen["mixed batches"] += running > 0 and any(s.admissions for s in self._fresh())
        for output in outputs:
            if output.token is not None:
                self.streamed[output.request_id].append(output.token)
            if output.completion is not None:
                self.end(output.completion)

    def _fresh(self) -> list[Sequence]:
        return [s for s in self.engine.scheduler.running if 0 < s.computed <= s.prefill]

    def cancel(self, back: int) -> None:
        ids = list(self.submitted)
        if back < len(ids) and ids[-1 - back] not in self.ended:
            completion = self.engine.cancel(ids[-1 - back])
            self.engine.check_integrity()
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
    steps = 0
    while done.engine.busy:
        done.step()
        steps += 1
        assert steps < 2000, "a request starves"
    return done


def assert_laws(done: Run) -> None:
    assert set(done.submitted) == set(done.ended)
    for request_id, command in done.submitted.items():
        completion = done.ended[request_id]
        expected, steady = alone(command.tokens, command.params)
        assert completion.prompt == command.tokens
        assert list(completion.tokens) == done.streamed[request_id]
        compared = min(steady, len(completion.tokens))
        assert expected.tokens[:compared] == completion.tokens[:compared], completion
        done.seen["tokens"] += len(completion.tokens)
        done.seen["tokens compared"] += compared
        if steady == len(expected.tokens) and completion.reason != "cancelled":
            assert (expected.tokens, expected.reason) == (completion.tokens, completion.reason)
    scheduler = done.engine.scheduler
    assert scheduler.tree.protected == 0
    cached = scheduler.tree.evictable
    assert cached + scheduler.pool.n_free == scheduler.pool.n_pages
    done.seen["pages cached at the end"] += cached
    assert done.engine.step() == []


def test_what_a_request_says_depends_on_nothing_else() -> None:
    seen: Counter[str] = Counter()

    @settings(
        max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
    )
    @given(programs)
    def obeys(program: Program) -> None:
        done = run(program)
        assert_laws(done)
        seen.update(done.seen)

    obeys()
    print(dict(seen))
    rare = ("preemptions", "evictions", "mixed batches", "cache hits", "cancelled with output")
    for what in (*rare, "ended stop", "ended length", "pages cached at the end"):
        assert seen[what] >= 5, f"{what}: {seen[what]} times, {seen}"
    assert seen["tokens compared"] >= 0.99 * seen["tokens"]


# By hand ---------------------------------------------------------------------------------------


def served(**options: Any) -> Engine:
    return Engine(
        model(),
        **{"page_size": 4, "num_pages": 16, "token_budget": 16, "max_requests": 4, **options},
    )


def test_the_whole_prompt_cached_leaves_one_token_to_compute() -> None:
    engine = served()
    tokens = prompt(8, 0, 0)
    params = SamplingParams(temperature=0, max_tokens=2, ignore_eos=True)
    first, second = (engine.generate([tokens], params)[0] for _ in range(2))
    assert (first.cached_tokens, second.cached_tokens) == (0, 4)
    assert first.tokens == second.tokens


def test_two_of_a_kind_in_one_batch_keep_one_copy() -> None:
    engine = served(token_budget=64)
    params = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
    ids = [engine.submit(prompt(9, 0, 0), params) for _ in range(2)]
    engine.step()
    tables = [s.table[:2].tolist() for s in engine.scheduler.running]
    assert len(ids) == 2 and tables[0] == tables[1]
    assert engine.scheduler.tree.protected == 2


def test_the_youngest_goes_first_and_comes_back() -> None:
    engine = served(num_pages=5, prefix_cache=False)
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    old, young = (engine.submit(prompt(4, n, n), params) for n in (4, 3))
    seen = []
    while engine.busy:
        seen.extend(engine.step())
        engine.check_integrity()
    ended = {o.request_id: o.completion for o in seen if o.completion is not None}
    assert ended[old].preemptions == 0 and ended[young].preemptions >= 1
    order = [o.request_id for o in seen if o.completion is not None]
    assert [old, young] == order


def test_a_chunk_never_exceeds_the_budget_and_the_rest_waits_its_turn() -> None:
    engine = served(token_budget=5)
    first = engine.submit(prompt(12, 0, 0), SamplingParams(temperature=0, max_tokens=2))
    second = engine.submit(prompt(0, 3, 1), SamplingParams(temperature=0, max_tokens=2))
    sizes = []
    schedule = engine.scheduler.schedule

    def watched() -> Any:
        chunks = schedule()
        sizes.append([(c.sequence.request.id, c.count) for c in chunks])
        return chunks

    engine.scheduler.schedule = watched  # type: ignore[method-assign]
    while engine.busy:
        engine.step()
    assert [[(first, 5)], [(first, 5)], [(first, 2), (second, 3)]] == sizes[:3]


def test_streams_take_turns() -> None:
    engine = served()
    params = SamplingParams(temperature=0, max_tokens=5, ignore_eos=True)
    prompts = [prompt(4, n, n) for n in (1, 2)]
    expected = [Engine(model()).generate([p], params)[0].tokens for p in prompts]
    streams = [engine.stream(p, params) for p in prompts]
    got: list[list[int]] = [[], []]
    for _ in range(5):
        for tokens, stream in zip(got, streams, strict=True):
            token = next(stream).token
            assert token is not None
            tokens.append(token)
    assert [list(e) for e in expected] == got
    assert all(next(stream, None) is None for stream in streams)
    assert not engine.busy


def test_a_stream_that_is_closed_cancels_its_request() -> None:
    engine = served()
    stream = engine.stream(prompt(4, 1, 0), SamplingParams(max_tokens=9, ignore_eos=True))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert not engine.busy
    engine.check_integrity()


def test_a_drawn_seed_is_told_and_gives_the_same_text() -> None:
    params = SamplingParams(temperature=1.0, max_tokens=12, ignore_eos=True)
    first, second = served().generate([prompt(5, 0, 0)] * 2, params)
    assert first.seed != second.seed and first.tokens != second.tokens
    again = SamplingParams(temperature=1.0, max_tokens=12, ignore_eos=True, seed=first.seed)
    (same,) = served(page_size=3).generate([prompt(5, 0, 0)], again)
    assert (first.tokens, first.seed) == (same.tokens, same.seed)


@pytest.mark.parametrize("kernel", ["reference", "torch.eager"])
def test_temperature_0_beside_a_draw_is_greedy(kernel: str) -> None:
    greedy = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
    drawn = SamplingParams(temperature=1.5, max_tokens=6, ignore_eos=True, seed=1)
    tokens = prompt(3, 2, 1)
    (expected,) = served().generate([tokens], greedy)
    mixed, _ = served(kernels=(kernel,)).generate([tokens, tokens], [greedy, drawn])
    assert expected.tokens == mixed.tokens
