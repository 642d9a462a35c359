"""The statistics of the gate: what they say of timings whose truth is known."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from scipy import stats as distributions

from benchmarks import stats
from benchmarks.gate.proof import noise, selftest
from benchmarks.samples import COLUMNS, pack

QUIET = noise.SHAPES["quiet"]


class Machine:
    """Times the same benchmarks in fresh processes, as often as it is asked to."""

    def __init__(
        self, *changes: float, shape: noise.Shape = QUIET, identical: int = 0, seed: int = 0
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.shape = shape
        slowdown = np.array([*changes, *[0.0] * identical])
        control = np.arange(len(slowdown)) >= len(changes)
        self.benches = noise.draw(self.rng, shape, 1, slowdown, control)
        self.names = [f"b{i:03}" for i in range(len(slowdown))]
        self.processes = 0

    def samples(self, processes: int = 6, pairs: int = 8) -> pd.DataFrame:
        labels = range(self.processes, self.processes + processes)
        self.processes += processes
        rounds = noise.measure(self.rng, self.shape, self.benches, processes, pairs)
        return noise.frame(rounds, self.names, labels)


def gate(machine: Machine, **options: Any) -> stats.Verdicts:
    screened = stats.screen(machine.samples(), **options)
    return stats.confirm(machine.samples(12, 12), screened)


def with_tails(machine: Machine, bench: int, share: float) -> Machine:
    machine.benches.tail[bench] = share
    return machine


# What must be seen ------------------------------------------------------------------------------


def test_slower_faster_and_unchanged_benchmarks_are_told_apart() -> None:
    verdicts = gate(Machine(0.03, -0.04, *[0.0] * 20))
    assert "REGRESSION" == verdicts["b000"]
    assert "IMPROVED" == verdicts["b001"]
    assert {"OK"} == {verdicts[b] for b in list(verdicts)[2:]}
    assert ("regression", 1) == (verdicts.run, verdicts.exit_code)
    assert verdicts.reasons[0].startswith("b000 is 3.")
    row = verdicts.table.loc["b000"]
    assert row["low"] < 0.03 < row["high"]
    assert row["detectable"] < 0.03


def test_a_suite_without_a_change_passes() -> None:
    verdicts = gate(Machine(*[0.0] * 30))
    assert ("pass", 0, ()) == (verdicts.run, verdicts.exit_code, verdicts.reasons)


def test_a_change_below_the_floor_is_no_regression() -> None:
    assert "pass" == gate(Machine(0.010, *[0.0] * 20)).run


def test_without_any_noise_the_times_speak_for_themselves() -> None:
    rows = [
        (f"b{bench}", process, pair, side, int((side == "head") != pair % 2), seconds)
        for bench, change in enumerate((0.0, 0.05))
        for process in range(6)
        for pair in range(8)
        for side, seconds in (("base", 1.5 + bench), ("head", (1.5 + bench) * (1 + change)))
    ]
    screened = stats.screen(pd.DataFrame(rows, columns=COLUMNS))
    assert pytest.approx([0.0, 0.05]) == list(screened.table["estimate"])
    assert "slower" in screened.table.loc["b1", "suspicion"]
    assert "slower" not in screened.table.loc["b0", "suspicion"]


def test_slow_rounds_of_head_are_reported_and_do_not_block() -> None:
    verdicts = gate(with_tails(Machine(*[0.0] * 20), bench=3, share=0.25))
    assert ["b003"] == list(verdicts.table.index[verdicts.table["tail_regression"]])
    assert "OK" == verdicts["b003"]
    assert "pass" == verdicts.run
    assert verdicts.table.loc["b003", "tail"] > 0.03


def test_the_cost_of_running_second_cancels() -> None:
    second = replace(QUIET, second=0.10, jitter=(1e-4, 1e-4), outliers=0, clock=(0, 0), drift=0)
    rounds = noise.measure(
        np.random.default_rng(0), second, Machine(*[0.0] * 5, shape=second).benches, 6, 8
    )
    located = stats.locate(rounds.base, rounds.head, rounds.head_first)
    assert np.abs(located.ratio).max() < 0.01
    # One pair of the eight is lost: still no bias, where a mean would be 1.4 % off.
    head = rounds.head.copy()
    head[:, :, 0] *= 3
    located = stats.locate(rounds.base, head, rounds.head_first)
    assert np.abs(located.ratio).max() < 0.01


# Machines that must not be believed -------------------------------------------------------------


def test_controls_that_differ_make_a_run_untrusted() -> None:
    """The machine itself favours base: everything looks slower, the same code too."""
    machine = Machine(*[0.03] * 20, identical=10)
    machine.benches.head[:] = np.log(1.03)
    verdicts = gate(machine, identical=machine.names[20:])
    assert ("untrusted", 3) == (verdicts.run, verdicts.exit_code)
    assert "same machine code" in verdicts.reasons[0]


def test_controls_are_never_judged() -> None:
    machine = Machine(*[0.0] * 20, identical=10)
    verdicts = gate(machine, identical=machine.names[20:])
    assert "pass" == verdicts.run
    assert "same machine code on both sides" == verdicts.table.loc["b025", "why"]
    assert "OK" == verdicts["b025"]


def test_only_identical_code_passes() -> None:
    machine = Machine(identical=10)
    assert "pass" == gate(machine, identical=machine.names).run


def test_the_canary_must_be_seen() -> None:
    seen = gate(Machine(0.05, *[0.0] * 20), canary="b000")
    assert "pass" == seen.run
    assert "b000" not in list(seen)
    assert any(
        "canary measured +5." in note or "canary measured +4." in note for note in seen.notes
    )
    blind = gate(Machine(0.0, *[0.0] * 20), canary="b000")  # base was compared with base
    assert "untrusted" == blind.run
    assert "the canary was made 5% slower" in blind.reasons[0]
    assert "untrusted" == gate(Machine(0.12, *[0.0] * 20), canary="b000").run  # a wrong scale
    assert "untrusted" == gate(Machine(*[0.0] * 20), canary="absent").run


def test_a_fault_of_the_machine_comes_before_regressions() -> None:
    assert "untrusted" == gate(Machine(0.0, 0.10, *[0.0] * 20), canary="b000").run


def test_a_machine_that_disturbs_most_rounds_is_not_believed() -> None:
    verdicts = gate(Machine(*[0.0] * 20, shape=noise.ATTACKS["half stolen"]))
    assert "untrusted" == verdicts.run
    assert "disturbed" in verdicts.reasons[0]


def test_the_same_side_first_in_all_pairs_is_not_believed() -> None:
    machine = Machine(0.05, *[0.0] * 20)

    def base_first(samples: pd.DataFrame) -> pd.DataFrame:
        return samples.assign(order=(samples["side"] == "head").astype(int))

    for wrong in (0, 1):
        first, second = machine.samples(), machine.samples(12, 12)
        screened = stats.screen(base_first(first) if wrong == 0 else first)
        verdicts = stats.confirm(base_first(second) if wrong == 1 else second, screened)
        assert ("head ran first in 0% of the pairs, should in half of them",) == (
            verdicts.reasons[0],
        )
        assert "untrusted" == verdicts.run


def test_one_side_disturbed_more_often_is_not_believed() -> None:
    machine = Machine(*[0.0] * 20)
    machine.benches.tail[:] = 0.3
    screened = stats.screen(machine.samples())
    assert any("more rounds of head were disturbed" in fault for fault in screened.faults)


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_a_process_that_begins_slowly_disturbs_no_side_more(rounds: int) -> None:
    """Base happens to run first in each; the filter drops those pairs."""
    machine = Machine(0.03, *[0.0] * 20)

    def slow_start(samples: pd.DataFrame) -> pd.DataFrame:
        late = samples["order"] >= rounds
        return samples.assign(seconds=samples["seconds"].where(late, 1.5 * samples["seconds"]))

    screened = stats.screen(slow_start(machine.samples()))
    assert () == screened.faults
    verdicts = stats.confirm(slow_start(machine.samples(12, 12)), screened)
    assert ["b000"] == list(verdicts.table.index[verdicts.table["verdict"] != "OK"])


# Never green because nothing was measured -------------------------------------------------------


def test_no_samples_at_all_is_untrusted() -> None:
    nothing = pd.DataFrame(columns=list(COLUMNS))
    for again in (None, nothing, pd.DataFrame()):
        verdicts = stats.confirm(again, stats.screen(nothing))
        assert ("untrusted", 3) == (verdicts.run, verdicts.exit_code)
        assert "nothing was measured" in verdicts.reasons[0]


def test_suspects_that_were_not_measured_again_are_no_pass() -> None:
    machine = Machine(0.05, *[0.0] * 20)
    first = machine.samples()
    screened = stats.screen(first)
    assert ["b000"] == list(screened)
    assert 1 == len(screened)
    for again in (None, first, first[first["bench"] != "b000"]):
        verdicts = stats.confirm(again, screened)
        assert ("untrusted", "INCONCLUSIVE") == (verdicts.run, verdicts["b000"])
        assert "1 suspects were not measured in fresh processes" == verdicts.reasons[0]


def test_times_of_the_screen_are_no_evidence_beside_fresh_ones() -> None:
    machine = Machine(0.03, *[0.0] * 20)
    first, second = machine.samples(), machine.samples(12, 12)
    screened = stats.screen(first)
    apart, together = (
        stats.confirm(s, screened).table for s in (second, pd.concat([first, second]))
    )
    pd.testing.assert_frame_equal(apart, together)


def test_processes_may_be_numbered_from_zero_again() -> None:
    machine = Machine(0.03, *[0.0] * 20)
    screened = stats.screen(machine.samples())
    machine.processes = 0
    assert "REGRESSION" == stats.confirm(machine.samples(12, 12), screened)["b000"]


def test_one_process_is_too_few() -> None:
    machine = Machine(0.10, *[0.0] * 20)
    screened = stats.screen(machine.samples(1, 48))
    assert 21 == len(screened)
    verdicts = stats.confirm(machine.samples(1, 144), screened)
    assert {"INCONCLUSIVE"} == set(verdicts.table["verdict"])
    assert "1 usable process; a verdict needs 4" == verdicts.table.loc["b000", "why"]
    assert ("untrusted", ("no verdict on 21 of 21 benchmarks",)) == (
        verdicts.run, verdicts.reasons,
    )  # fmt: skip


def test_a_benchmark_of_one_side_only_is_named() -> None:
    machine = Machine(*[0.0] * 20)
    samples = machine.samples()
    new = samples[~((samples["bench"] == "b004") & (samples["side"] == "base"))]
    screened = stats.screen(new)
    verdicts = stats.confirm(machine.samples(12, 12), screened)
    assert {"b004": "head"} == screened.one_sided
    assert "b004 exists on the head side only: nothing to compare it with" in verdicts.notes
    assert ("INCONCLUSIVE", "pass") == (verdicts["b004"], verdicts.run)

    gone = samples[~((samples["bench"] == "b004") & (samples["side"] == "head"))]
    verdicts = stats.confirm(None, stats.screen(gone))
    assert "b004 exists on the base side only" == verdicts.reasons[0]
    assert "untrusted" == verdicts.run

    all_new = samples[samples["side"] == "head"]
    assert "untrusted" == stats.confirm(None, stats.screen(all_new)).run


# Samples in disorder ----------------------------------------------------------------------------


def test_unequal_counts_and_missing_rounds_are_bearable() -> None:
    machine = Machine(0.04, *[0.0] * 20)
    rng = np.random.default_rng(3)

    def torn(samples: pd.DataFrame) -> pd.DataFrame:
        samples = samples[rng.random(len(samples)) < 0.8]
        some = samples["bench"].isin(["b000", "b001"]) & (samples["process"] % 6 == 0)
        return samples[~some].sample(frac=1, random_state=3)

    screened = stats.screen(torn(machine.samples()))
    assert any("rounds lack the other side" in note for note in screened.notes)
    assert screened.table.loc["b001", "processes"] < 6
    verdicts = stats.confirm(torn(machine.samples(12, 12)), screened)
    assert "REGRESSION" == verdicts["b000"]
    assert ["b000"] == list(verdicts.table.index[verdicts.table["verdict"] != "OK"])


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("seconds", 0.0, "took no time"),
        ("seconds", -1e-6, "took no time, or less than none"),
        ("seconds", np.nan, "took NaN seconds"),
        ("seconds", np.inf, "took infinite seconds"),
        ("seconds", "fast", "seconds that are no number"),
        ("side", "left", 'not "base" or "head"'),
        ("side", None, "has no side"),
        ("bench", None, "has no bench"),
        ("process", None, "has no process"),
        ("pair", 1, "is there twice"),
        ("order", "AB", "order that are no number"),
        ("order", 1, "which ran first"),
    ],
)
def test_samples_that_make_no_sense_are_refused_in_words(
    column: str, value: object, words: str
) -> None:
    samples = Machine(0.0).samples().astype({column: object})
    samples.loc[0, column] = value
    with pytest.raises(ValueError, match=words):
        stats.screen(samples)
    screened = stats.screen(Machine(0.3, seed=1).samples())
    with pytest.raises(ValueError, match=words):
        stats.confirm(samples, screened)


DISGUISES: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "rows in any order": lambda s: s.sample(frac=1, random_state=1),
    "an index of one value": lambda s: s.set_index(np.zeros(len(s), int)),
    "labels in the index": lambda s: s.set_index(["bench", "process"]),
    "more columns": lambda s: s.assign(unit="s", sides=1),
    "categories, some unused": lambda s: s.assign(
        bench=pd.Categorical(s["bench"], [f"b{i:03}" for i in range(40)]),
        side=s["side"].astype("category"), process=s["process"].astype("category"),
    ),
    "processes by name": lambda s: s.assign(process="host:" + s["process"].astype(str)),
    "processes by tuple": lambda s: s.assign(process=[("host", p) for p in s["process"]]),
    "pairs counted through": lambda s: s.assign(pair=s["pair"] + 100 * s["process"].astype(int)),
    "nullable types": lambda s: s.convert_dtypes(),
    "numbers as text": lambda s: s.assign(seconds=s["seconds"].map(repr)),
    "order within the pair": lambda s: s.assign(order=s["order"] % 2),
    "order as letters": lambda s: s.assign(order=np.where(s["pair"] % 2, "BA", "AB")),
    "order of the pair": lambda s: s.assign(order=s["pair"] % 2),
    "order of the pair, reversed": lambda s: s.assign(order=1 - s["pair"] % 2),
}  # fmt: skip


@pytest.mark.parametrize("name", DISGUISES)
def test_the_same_samples_in_another_shape_say_the_same(name: str) -> None:
    machine = Machine(0.04, -0.04, *[0.0] * 12, shape=noise.SHAPES["typical"], seed=4)
    first, second = machine.samples(), machine.samples(12, 12)
    plain = stats.confirm(second, stats.screen(first))
    screened = stats.screen(DISGUISES[name](first))
    verdicts = stats.confirm(DISGUISES[name](second), screened)
    pd.testing.assert_frame_equal(plain.table, verdicts.table, check_index_type=False)
    assert (plain.run, plain.reasons) == (verdicts.run, verdicts.reasons)
    assert dict(plain) == dict(verdicts) == dict(verdicts.table["verdict"])


def test_letters_say_which_side_ran_first() -> None:
    samples = Machine(0.0).samples()
    letters = samples.assign(order=np.where(samples["pair"] % 2, "BA", "AB"))
    np.testing.assert_array_equal(pack(samples).head_first, pack(letters).head_first)


def test_benchmarks_may_be_numbers() -> None:
    machine = Machine(0.05, 0.04, *[0.0] * 20, identical=3)
    numbers = [s.assign(bench=s["bench"].str[1:].astype(int)) for s in (
        machine.samples(), machine.samples(12, 12),
    )]  # fmt: skip
    screened = stats.screen(numbers[0], identical=range(22, 25), canary=0)
    assert [1] == screened.suspects
    fresh = numbers[1][numbers[1]["bench"].isin(screened.suspects)]
    verdicts = stats.confirm(fresh, screened)
    assert ("REGRESSION", "OK", "regression") == (verdicts[1], verdicts[24], verdicts.run)
    assert 0 not in verdicts


def test_what_is_no_frame_of_samples_is_refused_in_words() -> None:
    samples = Machine(0.0).samples()
    with pytest.raises(TypeError, match="samples is a list, should be a pandas DataFrame"):
        stats.screen([])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="columns of the same name"):
        stats.screen(pd.concat([samples, samples[["seconds"]]], axis=1))
    for orders in (0, samples["pair"]):
        with pytest.raises(ValueError, match="so which ran first"):
            stats.screen(samples.assign(order=orders))


def test_the_refusal_names_the_round() -> None:
    samples = Machine(0.0, 0.0).samples()
    samples.loc[samples.index[samples["bench"] == "b001"][:3], "seconds"] = 0.0
    with pytest.raises(ValueError, match=r"bench 'b001', process 0, pair 0, .*\(and 2 more\)"):
        stats.screen(samples)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(ValueError, match=r"lack the column \['order'\]"):
        stats.screen(Machine(0.0).samples().drop(columns="order"))
    with pytest.raises(ValueError, match=r"lack the columns \['pair', 'seconds'\]"):
        stats.screen(Machine(0.0).samples().drop(columns=["pair", "seconds"]))


def test_a_coarse_clock_gives_no_verdict_on_what_it_cannot_tell() -> None:
    def coarse(machine: Machine, tick: float) -> stats.Verdicts:
        def rounded(*counts: int) -> pd.DataFrame:
            samples = machine.samples(*counts)
            ticks = tick * machine.benches.seconds.min()
            samples["seconds"] = (samples["seconds"] / ticks).round() * ticks
            return samples

        return stats.confirm(rounded(12, 12), stats.screen(rounded()))

    def equal_times(*changes: float) -> Machine:
        machine = Machine(*changes)
        machine.benches.seconds[:] = 1e-4
        return machine

    # Ticks of 8 %: a slowdown of 3 % may be a tick or none.
    verdicts = coarse(equal_times(0.03, *[0.0] * 20), 0.08)
    assert {"INCONCLUSIVE"} == set(verdicts.table["verdict"])
    assert "untrusted" == verdicts.run
    # Ticks of 0.1 %: no matter.
    verdicts = coarse(equal_times(0.03, *[0.0] * 20), 0.001)
    assert "REGRESSION" == verdicts["b000"]
    assert 1 == (verdicts.table["verdict"] != "OK").sum()


def test_one_wild_round_changes_nothing() -> None:
    samples = Machine(*[0.0] * 20).samples()
    calm = stats.screen(samples).table
    for factor in (1e-3, 1e3):
        wild = samples.copy()
        wild.loc[5, "seconds"] *= factor
        difference = stats.screen(wild).table["estimate"] - calm["estimate"]
        assert difference.abs().max() < 0.001


# Symmetries -------------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from([*noise.SHAPES, *noise.ATTACKS]),
    scale=st.sampled_from([2.0**-20, 2.0**10]),
)
def test_sides_units_and_rows_may_be_exchanged(seed: int, shape: str, scale: float) -> None:
    """Swapped sides give the opposite; other units and another order of rows, the same."""
    kind = {**noise.SHAPES, **noise.ATTACKS}[shape]
    samples = Machine(0.0, 0.03, -0.02, *[0.0] * 10, shape=kind, seed=seed).samples()
    one = stats.screen(samples)
    swapped = samples.assign(side=samples["side"].map({"base": "head", "head": "base"}))
    log = np.log1p(one.table["estimate"])
    np.testing.assert_allclose(np.log1p(stats.screen(swapped).table["estimate"]), -log, atol=1e-9)
    other = samples.assign(seconds=samples["seconds"] * scale).sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(one.table, stats.screen(other).table, rtol=1e-6)


def test_frames_and_arrays_give_the_same_verdicts() -> None:
    """The self-test simulates arrays; what it proves must hold for samples."""
    machine = Machine(0.03, 0.02, *[0.0] * 28, shape=noise.SHAPES["hostile"], seed=5)
    screened = stats.screen(samples := machine.samples())
    again = machine.samples(12, 12)
    verdicts = stats.confirm(again, screened)

    def arrays(frame: pd.DataFrame) -> tuple[Any, Any, Any]:
        frame = frame.sort_values(["bench", "process", "pair"])
        size = (-1, frame["process"].nunique(), frame["pair"].nunique())
        sides = [frame[frame["side"] == s] for s in ("base", "head")]
        base, head = (s["seconds"].to_numpy().reshape(size) for s in sides)
        first = sides[1]["order"].to_numpy() < sides[0]["order"].to_numpy()
        return base, head, first.reshape(base.shape)

    located = stats.locate(*arrays(samples))
    prior = stats.fit_prior(located)
    suspicion = stats.suspect(located, stats.estimate(located, prior))
    which = np.flatnonzero(suspicion.any)
    assert [machine.names[i] for i in which] == list(screened)
    fresh = again[again["bench"].isin(list(screened))]
    located = stats.locate(*arrays(fresh))
    found = stats.estimate(located, prior)
    decision = stats.decide(located, found, suspicion[which])
    assert list(decision.verdict) == list(verdicts.table.loc[list(screened), "verdict"])


# The parts --------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), max_size=8), st.sampled_from([0.02, 0.05]))
def test_holm_is_the_closed_test_of_bonferroni(p: list[float], alpha: float) -> None:
    """A hypothesis is rejected if Bonferroni rejects every set of hypotheses that holds it."""
    values = np.array(p)

    def rejected(i: int) -> bool:
        sets = (s for s in range(1 << len(p)) if s >> i & 1)
        members = ([j for j in range(len(p)) if s >> j & 1] for s in sets)
        return all(min(values[m]) <= alpha / len(m) for m in members)

    assert [rejected(i) for i in range(len(p))] == list(stats.holm(values, alpha))


@pytest.mark.parametrize("value", [1e-3, 0.1, 1.0, 30.0])
def test_the_inverse_of_trigamma(value: float) -> None:
    x = stats._inverse_trigamma(value)
    assert pytest.approx(value, rel=1e-6) == float(special.polygamma(1, x))


def located(ratio: Any, within: float = 0.0) -> stats.Located:
    counts = np.full(ratio.shape, 8)
    return stats.Located(
        ratio, np.full(ratio.shape, within), np.zeros(ratio.shape), counts, counts,
        np.stack([counts // 2] * 2, -1), np.zeros((*ratio.shape, 2), int),
    )  # fmt: skip


@pytest.mark.parametrize("df", [4.0, 12.0])
def test_the_prior_finds_how_variances_are_spread(df: float) -> None:
    rng = np.random.default_rng(0)
    variance = 1e-4 * df / rng.chisquare(df, 4000)
    data = located(rng.normal(0, np.sqrt(variance)[:, None], (4000, 6)))
    found = stats.fit_prior(data)
    assert 0.75 * df < found.df < 1.15 * df
    assert pytest.approx(1e-4, rel=0.08) == float(found.expected(stats._within(data))[0])


def test_few_benchmarks_stand_for_themselves() -> None:
    ratio = np.random.default_rng(0).normal(0, 0.01, (9, 6))
    found = stats.estimate(located(ratio), stats.fit_prior(located(ratio)))
    expected = distributions.ttest_1samp(ratio, 0.0, axis=1, alternative="greater").pvalue
    np.testing.assert_allclose(found.p_above(0.0), expected)


@pytest.mark.parametrize("df", [3.0, 30.0])
@pytest.mark.parametrize("level", [0.05, 0.01])
def test_p_is_as_small_as_it_says(df: float, level: float) -> None:
    """10,000 benchmarks whose mean is the limit itself: alarms are binomial."""
    rng = np.random.default_rng(1)
    sd = 0.01 * np.sqrt(df / rng.chisquare(df, 10_000))
    data = located(rng.normal(0.005, sd[:, None], (10_000, 8)))
    alarms = (stats.estimate(data, stats.fit_prior(data)).p_above(0.005) < level).sum()
    assert distributions.binomtest(int(alarms), 10_000, level, alternative="greater").pvalue > 1e-3
    assert alarms > 0.7 * level * 10_000


def test_what_is_detectable_is_detected() -> None:
    """Slowdowns as large as `detectable` are found 95 times in 100."""
    rng = np.random.default_rng(2)
    noisy = rng.normal(0, 0.02, (2000, 12))
    quiet = located(noisy)
    prior = stats.fit_prior(quiet)
    limits = stats.detectable(stats.estimate(quiet, prior), 1, stats.RULE, np.log1p(0.015))
    shift = float(np.median(limits))
    found = stats.estimate(located(noisy + shift), prior)
    seen = (found.p_above(np.log1p(0.006)) <= 0.02) & (found.mean >= np.log1p(0.015))
    assert 0.93 < seen.mean() < 0.97


# The promises -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", noise.SHAPES)
def test_a_small_selftest_keeps_the_promises(shape: str) -> None:
    """`python -m benchmarks.gate --selftest` is the large one; bounds here fit its few suites."""
    null = selftest.simulate(selftest.Task(shape, 0.0, 60, 11))
    slowed = selftest.simulate(selftest.Task(shape, 0.03, 12, 12))
    failed = null["suites"] - null["run pass"]
    assert distributions.binomtest(failed, 60, 0.02, alternative="greater").pvalue > 0.005
    least = 0.90 if shape == "hostile" else 0.95
    power = distributions.binomtest(slowed["found"], slowed["slowed"], least, alternative="less")
    assert power.pvalue > 0.005


@pytest.mark.parametrize("shape", noise.ATTACKS)
def test_noise_that_it_was_not_tuned_on_raises_no_alarm(shape: str) -> None:
    null = selftest.simulate(selftest.Task(shape, 0.0, 20, 13))
    assert null["false regression"] <= 2
