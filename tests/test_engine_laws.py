"""The engine's laws, on drawn programs and by hand."""

from __future__ import annotations

import copy
import math
from collections import Counter
from typing import Any

import pytest
from engine_programs import Replayed, assert_laws, model, programs, prompt, run
from hypothesis import HealthCheck, given, settings

from yaie.engine import Engine, SamplingParams
from yaie.engine.sampler import Drawn

RARE = {
    "preemptions": 5,
    "evictions": 5,
    "mixed batches": 5,
    "cache hits": 5,
    "cancelled with output": 2,
    "graph steps": 5,
    "steps begun ahead": 5,
    "ended stop": 5,
    "ended length": 5,
    "pages cached at the end": 5,
}
"""What must have happened how often, or the programs have shown little."""


@pytest.mark.parametrize("examples", [100, pytest.param(3000, marks=pytest.mark.deep)])
def test_what_a_request_says_depends_on_nothing_else(examples: int) -> None:
    seen: Counter[str] = Counter()

    @settings(
        max_examples=examples,
        derandomize=examples < 1000,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        database=None,
    )
    @given(programs)
    def obeys(program: Any) -> None:
        done = run(program)
        assert_laws(done)
        seen.update(done.seen)

    obeys()
    print(dict(seen))
    for what, least in RARE.items():
        assert seen[what] >= least, f"{what}: {seen[what]} times, {seen}"
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
        sizes.append([(c.sequence.request.id, c.length) for c in chunks])
        return chunks

    engine.scheduler.schedule = watched  # type: ignore[method-assign]
    while engine.busy:
        engine.step()
    assert [[(first, 5)], [(first, 5)], [(first, 2), (second, 3)]] == sizes[:3]


def test_streams_take_turns() -> None:
    engine = served()
    params = SamplingParams(temperature=0, max_tokens=5, ignore_eos=True)
    prompts = [prompt(4, n, n) for n in (1, 2)]
    expected = [served().generate([p], params)[0].tokens for p in prompts]
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


def test_penalties_do_not_hang_on_batch_mates() -> None:
    plain = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
    penalised = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True, repetition=5.0)
    tokens = prompt(6, 0, 0)
    (expected,) = served().generate([tokens], penalised)
    (other,) = served().generate([tokens], plain)
    assert expected.tokens != other.tokens
    both = served(token_budget=64).generate([tokens, tokens], [plain, penalised])
    assert [other.tokens, expected.tokens] == [c.tokens for c in both]


def test_a_token_in_mid_prompt_is_no_decode_step() -> None:
    engine = served(token_budget=2)
    engine._graphs = engine._decode_graphs(Replayed)
    params = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
    prompts = prompt(0, 1, 1), prompt(5, 0, 0)
    expected = served().generate(prompts, params)
    assert [c.tokens for c in expected] == [c.tokens for c in engine.generate(prompts, params)]


def test_logits_that_are_no_numbers_end_their_request_alone() -> None:
    engine = served(token_budget=64)
    forward, bad = engine.model.forward, prompt(0, 5, 1)
    engine.model = copy.copy(engine.model)

    def spoilt(batch: Any, caches: Any) -> Any:
        logits = forward(batch, caches)
        first = batch.tokens[batch.q_indptr[:-1].long()].tolist()
        logits[[t == bad[0] for t in first]] = math.nan
        return logits

    engine.model.forward = spoilt  # type: ignore[method-assign]
    params = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
    failed, fine = engine.generate([bad, prompt(6, 0, 0)], params)
    assert ("error", ()) == (failed.reason, failed.tokens)
    assert "position 4" in str(failed.error) and "NaN" in str(failed.error)
    (expected,) = served().generate([prompt(6, 0, 0)], params)
    assert expected.tokens == fine.tokens
    engine.check_integrity()


# Steps begun ahead -----------------------------------------------------------------------------


def ahead(**options: Any) -> Engine:
    """An engine that begins a decode step before the tokens of the one before are known."""
    engine = served(**{"token_budget": 64, **options})
    engine._graphs = engine._decode_graphs(Replayed)
    return engine


def greedy(max_tokens: int, **options: Any) -> SamplingParams:
    return SamplingParams(
        **{"temperature": 0, "ignore_eos": True, **options}, max_tokens=max_tokens
    )


def test_what_was_begun_for_a_request_that_stops_is_dropped() -> None:
    tokens = prompt(4, 2, 1), prompt(4, 3, 0)
    long, other = served().generate(tokens, greedy(12))
    stops = greedy(12, stop_ids=(next(t for t in long.tokens[3:] if t not in long.tokens[:3]),))
    (short,) = served().generate(tokens[:1], stops)
    assert 4 <= len(short.tokens) < 12
    engine = ahead()
    said = engine.generate(tokens, [stops, greedy(12)])
    assert [short.tokens, other.tokens] == [c.tokens for c in said]
    assert engine.stats.dropped_tokens == 1 and engine.stats.ahead_steps > 5
    assert engine.stats.computed_tokens == sum(map(len, tokens)) + len(short.tokens) - 1 + 11
    engine.check_integrity()


def test_a_step_begun_ahead_gives_a_cancelled_request_nothing() -> None:
    tokens = prompt(4, 2, 1), prompt(4, 3, 0)
    expected = served().generate(tokens[1:], greedy(9))[0]
    engine = ahead()
    first, second = (engine.submit(t, greedy(9)) for t in tokens)
    for _ in range(3):
        engine.step()
    said = engine.cancel(first)
    assert len(said.tokens) == 3 and engine.stats.ahead_steps == 2
    engine.check_integrity()
    outputs = []
    while engine.busy:
        outputs += engine.step()
        engine.check_integrity()
    assert {o.request_id for o in outputs} == {second}
    assert outputs[-1].completion is not None
    assert expected.tokens == outputs[-1].completion.tokens


def test_all_requests_of_a_step_begun_ahead_may_be_gone() -> None:
    engine = ahead()
    name = engine.submit(prompt(4, 2, 1), greedy(9))
    engine.step(), engine.step()
    engine.cancel(name)
    assert engine.step() == []
    (expected,) = served().generate([prompt(4, 3, 0)], greedy(3))
    (said,) = engine.generate([prompt(4, 3, 0)], greedy(3))
    assert expected.tokens == said.tokens
    engine.check_integrity()


def test_no_step_is_begun_behind_the_last_token() -> None:
    """Of a request that fills its last page: there is no table entry for a token more."""
    engine = ahead(num_pages=4)
    (expected,) = served().generate([prompt(4, 0, 0)], greedy(4))
    (said,) = engine.generate([prompt(4, 0, 0)], greedy(4))
    assert expected.tokens == said.tokens
    assert engine.stats.ahead_steps == 2 and engine.stats.dropped_tokens == 0
    engine.check_integrity()


def test_who_waits_is_admitted_as_soon_as_without() -> None:
    engine = ahead()
    engine.submit(prompt(4, 2, 1), greedy(20))
    for _ in range(3):
        engine.step()
    engine.submit(prompt(4, 3, 0), greedy(20))
    engine.step()  # was begun before
    engine.step()
    assert not engine.scheduler.waiting


def test_penalties_know_the_token_before() -> None:
    params = greedy(10, repetition=4.0)
    tokens = [prompt(6, 0, 0), prompt(4, 2, 1)]
    expected = served().generate(tokens, params)
    assert [c.tokens for c in expected] == [c.tokens for c in ahead().generate(tokens, params)]


def test_nothing_follows_from_what_is_no_token() -> None:
    """A row without a distribution gives -1, and the step behind it is under way already."""
    engine = ahead()
    forward = engine.model.forward
    engine.model = copy.copy(engine.model)

    def spoilt(batch: Any, caches: Any) -> Any:
        assert int(batch.tokens.min()) >= 0
        logits = forward(batch, caches)
        logits[batch.kv_lens == 9] = math.nan
        return logits

    engine.model.forward = spoilt  # type: ignore[method-assign]
    failed, fine = engine.generate([prompt(6, 0, 0), prompt(0, 1, 1)], greedy(7))
    assert ("error", 3) == (failed.reason, len(failed.tokens))
    (expected,) = served().generate([prompt(0, 1, 1)], greedy(7))
    assert expected.tokens == fine.tokens
    engine.check_integrity()


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("where", ["forward", "draw", "wait"])
def test_no_token_is_lost_where_a_step_raises(where: str, graphs: bool) -> None:
    tokens, params = [prompt(4, 2, 1), prompt(4, 3, 0)], greedy(12)
    expected = served().generate(tokens, params)
    engine = (ahead if graphs else served)(token_budget=64)
    said: dict[str, list[int]] = {engine.submit(each, params): [] for each in tokens}
    for number in range(40):
        outputs = interrupted(engine, where) if number % 3 == 2 else engine.step()
        for output in outputs:
            assert output.token is not None
            said[output.request_id].append(output.token)
        engine.check_integrity()
    assert [list(c.tokens) for c in expected] == list(said.values())
    assert not engine.busy and (engine.stats.ahead_steps > 5) == graphs


def test_no_token_is_lost_where_waiting_for_it_fails() -> None:
    test_no_token_is_lost_where_a_step_raises("wait", True)


def interrupted(engine: Engine, where: str) -> list[Any]:
    """What a step gives in which such a call raises once it has done its work."""

    def raising(call: Any) -> Any:
        def run(*args: Any) -> Any:
            call(*args)
            raise KeyboardInterrupt

        return run

    with pytest.MonkeyPatch.context() as patch:
        if where == "forward":
            patch.setattr(engine, "model", copy.copy(engine.model))
            patch.setattr(engine.model, "forward", raising(engine.model.forward))
        elif where == "draw":
            patch.setattr(engine, "_sampler", raising(engine._sampler))
        else:
            patch.setattr(Drawn, "tolist", raising(Drawn.tolist))
        try:
            return engine.step()
        except KeyboardInterrupt:
            return []


def test_drops_are_counted() -> None:
    """Also those of a step whose requests have all stopped, or been cancelled."""
    (said,) = served().generate([prompt(4, 2, 1)], greedy(12))
    stop = next(n for n, t in enumerate(said.tokens) if n > 2 and t not in said.tokens[:n])
    for cancelled in (False, True):
        engine = ahead()
        name = engine.submit(prompt(4, 2, 1), greedy(12, stop_ids=(said.tokens[stop],)))
        if cancelled:
            for _ in range(stop):
                engine.step()
            engine.cancel(name)
        while engine.busy:
            engine.step()
        stats = engine.stats
        assert stats.dropped_tokens == 1 and stats.computed_tokens == 6 + stop - cancelled
        assert stats.steps == 1 + stats.graph_steps and stats.ahead_steps == stats.graph_steps - 1


def test_a_request_id_may_come_again_while_a_step_is_under_way() -> None:
    (expected,) = served().generate([prompt(4, 3, 0)], greedy(5))
    engine = ahead()
    engine.submit(prompt(4, 2, 1), greedy(20), "it")
    other = engine.submit(prompt(4, 1, 2), greedy(20))
    for _ in range(4):
        engine.step()
    engine.cancel("it")
    engine.submit(prompt(4, 3, 0), greedy(5), "it")
    outputs = []
    while engine.busy:
        outputs += engine.step()
        engine.check_integrity()
    assert list(expected.tokens) == [o.token for o in outputs if o.request_id == "it"]
    assert sum(o.request_id == other for o in outputs) == 16


def test_the_id_of_a_stream_is_in_use_until_its_last_output() -> None:
    engine = served()
    first, second = (engine.stream(prompt(4, n, n), greedy(3)) for n in (1, 2))
    name = next(first).request_id
    assert len(list(second)) == 3  # steps for the first stream too, which has ended now
    with pytest.raises(ValueError, match="in use"):
        engine.submit(prompt(4, 3, 0), greedy(9), name)
    assert {o.request_id for o in first} == {name}
    assert name == engine.submit(prompt(4, 3, 0), greedy(9), name)


def test_a_request_that_fits_alone_gets_every_cached_page() -> None:
    engine = served(num_pages=4)
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    for seed in (0, 1):
        engine.submit(prompt(0, 8, seed), params)
        for _ in range(20):
            engine.step()
        assert not engine.busy, "it starves"
    assert engine.scheduler.evicted_pages > 0


def test_a_request_that_waits_for_pages_locks_nothing() -> None:
    engine = served(num_pages=6, token_budget=64)
    params = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
    engine.submit(prompt(16, 3, 0), params)
    engine.step()
    engine.submit((*prompt(8, 0, 0), *prompt(0, 12, 1)), params)
    engine.step()
    assert len(engine.scheduler.waiting) == 1
    while engine.busy:
        engine.step()
        engine.check_integrity()
    assert engine.scheduler.tree.protected == 0


BY_HAND = {
    test.__name__: test
    for test in (
        test_the_whole_prompt_cached_leaves_one_token_to_compute,
        test_two_of_a_kind_in_one_batch_keep_one_copy,
        test_the_youngest_goes_first_and_comes_back,
        test_a_request_that_fits_alone_gets_every_cached_page,
        test_a_request_that_waits_for_pages_locks_nothing,
        test_a_chunk_never_exceeds_the_budget_and_the_rest_waits_its_turn,
        test_penalties_do_not_hang_on_batch_mates,
        test_a_token_in_mid_prompt_is_no_decode_step,
        test_logits_that_are_no_numbers_end_their_request_alone,
        test_what_was_begun_for_a_request_that_stops_is_dropped,
        test_a_step_begun_ahead_gives_a_cancelled_request_nothing,
        test_all_requests_of_a_step_begun_ahead_may_be_gone,
        test_no_step_is_begun_behind_the_last_token,
        test_who_waits_is_admitted_as_soon_as_without,
        test_penalties_know_the_token_before,
        test_nothing_follows_from_what_is_no_token,
        test_no_token_is_lost_where_waiting_for_it_fails,
        test_drops_are_counted,
    )
}
"""For tests/test_engine_mutants.py: what no program says."""
