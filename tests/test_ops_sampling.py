"""The sampling ops by hand: known answers, worked examples, and their judges."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from conformance import peers
from yaie import ops
from yaie.compare import BAND, MARGIN, Budget, Choice, Contract, Margin, Patched, Statistic
from yaie.op import Cost
from yaie.ops import _noise as noise
from yaie.ops import _rows as rows
from yaie.ops import _sampling as sampling
from yaie.ops.draw_tokens import Case as Draw
from yaie.ops.filter_tokens import Case as Filter
from yaie.ops.greedy import Case as Greedy
from yaie.ops.penalize import Case as Penalize
from yaie.ops.sample import Case as Sample

KERNELS = pytest.mark.parametrize("kernel", ["reference", "torch.eager"])


def each(B: int, value: float, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.full((B,), value, dtype=dtype)


def parameters(
    B: int, temperature: float = 1, top_k: int = 2**31 - 1, top_p: float = 1, min_p: float = 0
) -> dict[str, Tensor]:
    return {
        "temperature": each(B, temperature),
        "top_k": each(B, top_k, torch.int32),
        "top_p": each(B, top_p),
        "min_p": each(B, min_p),
    }


def probs_of(logits: Tensor, kernel: str = "reference", **given: Any) -> Tensor:
    return ops.filter_tokens(logits, **parameters(len(logits), **given), kernel=kernel)


def kept(logits: list[float], kernel: str = "reference", **given: Any) -> set[int]:
    row = probs_of(torch.tensor([logits]), kernel, **given)[0]
    assert float(row.sum()) == pytest.approx(1, abs=1e-6)
    return set(row.nonzero()[:, 0].tolist())


# Noise ---------------------------------------------------------------------------------------


def words(counter: tuple[int, ...], key: tuple[int, int]) -> list[int]:
    return noise.philox(tuple(np.array([c], dtype=np.uint64) for c in counter), key)[:, 0].tolist()


ONES = 2**32 - 1


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES,) * 4, (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)  # fmt: skip
def test_philox_gives_the_known_answers_of_random123(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    assert list(expected) == words(counter, key)


def test_philox_is_that_of_randomgen() -> None:
    """An implementation by other people, whose generator steps the counter first."""
    randomgen = peers.load("randomgen")
    rng = np.random.default_rng(5)
    for _ in range(50):
        counter = [int(c) for c in rng.integers(1, 2**32 - 1, 4)]
        key = [int(k) for k in rng.integers(0, 2**32, 2)]
        before = (counter[0] - 1) + sum(c << 32 * i for i, c in enumerate(counter) if i)
        theirs = randomgen.Philox(
            counter=before, key=key[0] + (key[1] << 32), number=4, width=32
        ).random_raw(4)
        assert theirs.tolist() == words(tuple(counter), (key[0], key[1]))


def test_bits_are_keyed_by_seed_position_and_token() -> None:
    seed, position = -(2**63) + 3, -1
    bits = noise.random_bits(seed, position, 11)
    for v in range(11):
        counter = (v // 4, ONES, 0, 0)
        assert words(counter, (3, 2**31))[v % 4] == int(bits[v])
    assert bits[:6].tolist() == noise.random_bits(seed, position, 6).tolist()


def test_exponentials_are_finite_monotone_and_accurate_on_both_sides() -> None:
    x = np.array([0, 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1], dtype=np.uint64)
    e = noise.exponential(x)
    assert e[0] == pytest.approx(2.0**-33, rel=1e-9)
    assert e[-1] == pytest.approx(33 * math.log(2), rel=1e-12)
    assert (np.diff(e) > 0).all()
    assert e[2] == pytest.approx(math.log(2), rel=1e-9)


def test_the_extreme_draws_are_what_their_tables_say() -> None:
    for (key, position), token in rows.LEAST_BITS.items():
        bits = noise.random_bits(key, position, 64)
        assert int(bits[token]) < 17
    for (key, position), token in rows.MOST_BITS.items():
        bits = noise.random_bits(key, position, 64)
        assert int(bits[token]) > 2**32 - 62


def test_the_tail_wins_where_its_table_says() -> None:
    """18 of 200,000 draws, where 20 are expected; how likely a number at least that far off is."""
    log_p = np.full(10_001, math.log(1e-8))
    log_p[0] = math.log(1 - 1e-4)
    for (key, position), token in rows.TAIL_WINS.items():
        score = log_p - np.log(noise.exponential(noise.random_bits(key, position, 10_001)))
        assert int(score.argmax()) == token
    assert len(rows.TAIL_WINS) == 18


@pytest.mark.parametrize(
    "coarse",
    [
        lambda x: -np.log1p(-((x >> np.uint64(8)) + 0.5) * 2.0**-24),  # 24 bits
        lambda x: -np.log((1 - ((x + 0.5) * 2.0**-32)).astype(np.float32)),  # 1 - u in float32
    ],
    ids=["24 bits", "float32"],
)
def test_coarser_noise_loses_the_tail_or_lets_it_win(coarse: Any) -> None:
    """What the table of known winners is for: such kernels miss most of them, or find infinity."""
    log_p = np.full(10_001, math.log(1e-8))
    log_p[0] = math.log(1 - 1e-4)
    wrong = 0
    for (key, position), token in rows.TAIL_WINS.items():
        with np.errstate(divide="ignore"):
            e = np.log(coarse(noise.random_bits(key, position, 10_001)))
        wrong += int((log_p - e).argmax()) != token or not np.isfinite(e).all()
    assert wrong >= 12


# filter_tokens -------------------------------------------------------------------------------

HALF = [math.log(2.0), 0.0, 0.0]  # [.5 .25 .25] up to rounding
STEPS = [math.log(4), math.log(3), math.log(2), 0.0]  # [.4 .3 .2 .1]


@KERNELS
@pytest.mark.parametrize(
    ("logits", "given", "expected"),
    [
        (HALF, {"top_p": 0.49}, {0}),
        (HALF, {"top_p": 0.6}, {0, 1, 2}),
        ([0.0] * 4, {"top_p": 0.3}, {0, 1, 2, 3}),
        (STEPS, {"top_k": 2, "top_p": 0.5}, {0}),  # of the two left the first has 0.57
        (STEPS, {"top_p": 0.5}, {0, 1}),  # the token that crosses the threshold stays
        (STEPS, {"top_p": 1.0}, {0, 1, 2, 3}),
        (STEPS, {"top_p": 1e-9}, {0}),
        (STEPS, {"min_p": 0.6}, {0, 1}),
        (STEPS, {"min_p": 1.0}, {0}),
        (STEPS, {"top_p": 0.75, "min_p": 0.4}, {0, 1, 2}),
        (STEPS, {"top_k": 9}, {0, 1, 2, 3}),
        ([1.0, 3.0, 2.0, 2.0, 2.0, 0.0], {"top_k": 2}, {1, 2, 3, 4}),
        ([1.0, -math.inf, 1.0], {}, {0, 2}),
        ([-math.inf, 0.0, -math.inf], {"top_k": 2}, {1}),
        ([2.0, 3.0, 3.0], {"temperature": 0}, {1}),
        ([-0.0, 0.0], {"temperature": 0}, {0}),
    ],
)
def test_kept_sets_by_hand(
    kernel: str, logits: list[float], given: dict[str, Any], expected: set[int]
) -> None:
    assert expected == kept(logits, kernel, **given)


@KERNELS
def test_there_is_no_floor_under_the_temperature(kernel: str) -> None:
    """At 1e-6 two neighbouring floats near 10 still split about 72 to 28, and equal ones evenly."""
    above = 10 + 2.0**-20
    row = probs_of(torch.tensor([[10.0, above]]), kernel, temperature=1e-6)[0]
    weight = math.exp(-(2.0**-20) / float(np.float32(1e-6)))
    assert row.tolist() == pytest.approx([weight / (1 + weight), 1 / (1 + weight)], rel=1e-6)
    assert [0.5, 0.5] == probs_of(torch.tensor([[10.0, 10.0]]), kernel, temperature=1e-7)[
        0
    ].tolist()


@KERNELS
@pytest.mark.parametrize("bad", [[math.nan, 1.0], [math.inf, 1.0], [-math.inf, -math.inf]])
def test_an_invalid_row_is_all_0_and_leaves_the_others_alone(kernel: str, bad: list[float]) -> None:
    many = probs_of(torch.tensor([[0.0, 0.0], bad, [0.0, 0.0]]), kernel)
    assert [[0.5, 0.5], [0.0, 0.0], [0.5, 0.5]] == many.tolist()
    seeds, at = torch.arange(3), each(3, 0, torch.int32)
    assert int(ops.draw_tokens(many, seeds, at, kernel=kernel)[1]) == -1
    tokens = ops.sample(torch.tensor([bad]), **parameters(1), seed=seeds[:1], position=at[:1])
    assert [-1] == tokens.tolist() == ops.greedy(torch.tensor([bad]), kernel=kernel).tolist()


@pytest.mark.parametrize("B", [1, 3])
def test_a_row_means_the_same_whatever_its_mates_want(B: int) -> None:
    """A mate with a min_p must not change how top_k and top_p share the mass."""
    logits = torch.tensor([STEPS] * B)
    given = parameters(B, top_k=2, top_p=0.5)
    given["min_p"][1:] = 0.1
    assert [1.0, 0, 0, 0] == ops.filter_tokens(logits, **given, kernel="reference")[0].tolist()


# The judge of filter_tokens ------------------------------------------------------------------


def band(logits: list[float], **given: Any) -> Any:
    args = {"logits": torch.tensor([logits]), **parameters(1, **given)}
    op = ops.filter_tokens
    return op.comparison(op.reference(**args), op.bind(**args), Contract())["probs"]


def verdict(judge: Any, *probs: float) -> str | None:
    judgement = judge.judge("probs", torch.tensor([probs]))
    return None if judgement.check is None else f"{judgement.check}: {judgement.reason}"


def test_what_lies_in_the_band_may_go_either_way() -> None:
    judge = band(HALF, top_p=0.5)
    assert verdict(judge, 1.0, 0.0, 0.0) is None
    assert verdict(judge, 0.5, 0.25, 0.25) is None
    assert "treated unlike" in str(verdict(judge, 2 / 3, 1 / 3, 0.0))
    assert "must be kept" in str(verdict(judge, 0.0, 0.5, 0.5))


def test_what_lies_outside_it_may_not() -> None:
    assert "must be dropped" in str(verdict(band(HALF, top_p=0.5 - 2 * BAND), 0.5, 0.25, 0.25))
    assert "must be kept" in str(verdict(band(HALF, top_p=0.5 + 2 * BAND), 1.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("probs", "reason"),
    [
        ((0.4, 0.3, 0.2, 0.1), "must be dropped"),
        ((0.5, 0.25, 0.25, 0.0), "of the budget used"),
        ((4 / 9, 3 / 9, 2 / 9, 1e-40), "must be dropped"),
        ((4 / 9, 3 / 9, 2 / 9 * (1 + 1e-5), 0.0), "of the budget used"),
        ((math.nan, 3 / 9, 2 / 9, 0.0), "probs[0, 0] is nan"),
        ((4 / 9, 3 / 9, 2 / 9, -0.0), "probs[0, 3] is -0.0"),
        ((4 / 7, 3 / 7, 0.0, 0.0), "probs[0, 2] is 0, must be kept"),
    ],
)
def test_wrong_answers_are_named(probs: tuple[float, ...], reason: str) -> None:
    judge = band(STEPS, top_k=3)
    assert verdict(judge, 4 / 9, 3 / 9, 2 / 9, 0.0) is None
    assert reason in str(verdict(judge, *probs))


def test_a_likelier_token_may_not_be_dropped_for_a_less_likely_one() -> None:
    order = torch.tensor([[3.0, 2.0, 1.0]])
    everything = torch.ones(1, 3, dtype=torch.bool)
    choice = Choice(order, order.double(), torch.full((1, 3), 1e-6), ~everything, everything)
    fault = choice.fault(torch.tensor([[True, False, True]]), ~everything)
    assert fault is not None
    assert ((0, 2), "is kept, a likelier one is dropped") == fault
    assert choice.fault(torch.tensor([[True, True, False]]), ~everything) is None


def test_tiny_shares_may_be_flushed_to_0_and_banned_tokens_must_be() -> None:
    judge = band([0.0, -90.0, -math.inf])  # e^-90 is 8e-40, a subnormal
    assert verdict(judge, 1.0, 0.0, 0.0) is None
    assert verdict(judge, 1.0, 8.19e-40, 0.0) is None
    assert "must be dropped" in str(verdict(judge, 1.0, 0.0, 1e-40))
    assert "must be kept" in str(verdict(band([0.0, -80.0]), 1.0, 0.0))


# The races -----------------------------------------------------------------------------------


def test_a_token_within_the_margin_of_the_best_is_right() -> None:
    score = torch.tensor([[0.0, -MARGIN / 2, -MARGIN * 2, -math.inf]]).double()
    may = score.isfinite()
    choice = Choice(score, score, torch.zeros_like(score), may, may)
    judge = Margin(choice, score, torch.tensor([0], dtype=torch.int32))
    checks = [judge.judge("token", torch.tensor([t]).int()).check for t in (-1, 0, 1, 2, 3, 4)]
    assert ["margin", None, None, "margin", "margin", "margin"] == checks
    receipt = judge.judge("token", torch.tensor([1]).int()).receipt
    assert receipt is not None
    assert receipt.used == pytest.approx(0.5)


def test_a_token_is_right_if_some_answer_of_the_filter_holds_it_and_it_wins_there() -> None:
    """Token 0 is kept for certain, 1 and 2 perhaps, 1 before 2. The best score is that of 2."""
    rank = torch.tensor([[0.0, -1.0, -2.0]]).double()
    score = torch.tensor([[0.0, 1.0, 2.0]]).double()
    must, may = torch.tensor([[True, False, False]]), torch.ones(1, 3, dtype=torch.bool)
    choice = Choice(rank, rank, torch.zeros_like(rank), must, may)
    judge = Margin(choice, score, torch.tensor([0], dtype=torch.int32))
    assert [None] * 3 == [judge.judge("t", torch.tensor([t]).int()).check for t in (0, 1, 2)]
    worse = Margin(choice, torch.tensor([[0.0, -1.0, -2.0]]).double(), judge.expected)
    assert [None, "margin", "margin"] == [
        worse.judge("t", torch.tensor([t]).int()).check for t in (0, 1, 2)
    ]


def test_no_token_can_stand_for_none_nor_none_for_a_token() -> None:
    probs = torch.tensor([[0.0, 0.0], [0.5, 0.5]])
    args = {"probs": probs, "seed": torch.arange(2), "position": each(2, 0, torch.int32)}
    op = ops.draw_tokens
    judge = op.comparison(op.reference(**args), op.bind(**args), Contract())["token"]
    good = judge.expected
    assert int(good[0]) == -1
    assert judge.judge("token", good).check is None
    assert judge.judge("token", torch.tensor([0, int(good[1])]).int()).check == "margin"
    assert judge.judge("token", torch.tensor([-1, -1]).int()).check == "margin"


@KERNELS
def test_losers_may_leave_and_the_scale_means_nothing(kernel: str) -> None:
    probs = torch.softmax(torch.arange(20.0) / 4, 0).expand(50, -1)
    keys = {"seed": each(50, 9, torch.int64), "position": torch.arange(50).int()}
    tokens = ops.draw_tokens(probs, **keys, kernel=kernel)
    assert len(set(tokens.tolist())) > 5
    for scale in (0.25, 1024.0):
        assert torch.equal(tokens, ops.draw_tokens(probs * scale, **keys, kernel=kernel))


# penalize ------------------------------------------------------------------------------------


@KERNELS
def test_penalties_by_hand(kernel: str) -> None:
    """Token 0 in the prompt, 1 twice in the output, 2 in both, 3 in neither."""
    ints = {"dtype": torch.int32}
    penalized = ops.penalize(
        torch.tensor([[3.0, -3.0, 0.0, 3.0]]),
        torch.tensor([0, 2, 2], **ints),
        torch.tensor([0, 3], **ints),
        torch.tensor([1, 2, 1], **ints),
        torch.tensor([0, 3], **ints),
        torch.tensor([1.5]),
        torch.tensor([0.5]),
        torch.tensor([0.25]),
        kernel=kernel,
    )
    assert [2.0, -4.5 - 1 - 0.25, -0.5 - 0.25, 3.0] == penalized[0].tolist()


def test_what_is_not_penalized_keeps_its_bits() -> None:
    source = torch.tensor([[0.0, -0.0, math.nan, 1.0]])
    patch = torch.tensor([[False, False, False, True]])
    judge = Patched(source, patch, Budget(source.double(), {"rounding": torch.full((1, 4), 1e-6)}))
    assert judge.judge("x", source).check is None
    assert judge.judge("x", torch.tensor([[0.0, 0.0, math.nan, 1.0]])).check == "exact"
    assert judge.judge("x", torch.tensor([[0.0, -0.0, math.nan, 1.1]])).check == "budget"
    assert judge.judge("x", torch.tensor([[0.0, -0.0, math.nan, math.nan]])).check == "budget"


def test_a_nan_that_is_penalized_stays_nan() -> None:
    source = torch.tensor([[math.nan]])
    values = Budget(source.double(), {"rounding": torch.ones(1, 1)})
    judge = Patched(source, torch.tensor([[True]]), values)
    assert judge.judge("x", torch.tensor([[math.nan]])).check is None
    assert judge.judge("x", torch.tensor([[0.0]])).check == "special values"


# Statistics ----------------------------------------------------------------------------------


def test_chi_square_is_that_of_scipy() -> None:
    stats = peers.load("scipy.stats")
    p = torch.tensor([0.5, 0.3, 0.2]).double()
    tokens = torch.tensor([0] * 470 + [1] * 320 + [2] * 210)
    chance = stats.chisquare([470, 320, 210], [500, 300, 200]).pvalue
    assert Statistic(p, alpha=chance * 0.999).judge("token", tokens).check is None
    assert Statistic(p, alpha=chance * 1.001).judge("token", tokens).check == "statistic"


@pytest.mark.parametrize("tokens", [[0, 1, 2], [0, 1, -1], [0, 1, 3]])
def test_tokens_that_cannot_be_are_refused(tokens: list[int]) -> None:
    p = torch.tensor([0.5, 0.5, 0.0]).double()
    assert Statistic(p).judge("token", torch.tensor(tokens)).check == "statistic"


@pytest.mark.parametrize(
    ("what", "wrong"),
    [
        ("the first two swapped", [1, 0, *range(2, 16)]),
        ("the rare ones twice as often", None),
    ],
)
def test_the_power_of_the_test_of_frequencies(what: str, wrong: list[int] | None) -> None:
    """10,000 draws and significance 1e-6 find these with a chance of more than 0.99."""
    stats = peers.load("scipy.stats")
    from conformance.test_draw_tokens import DRAWS, PROBS

    p = PROBS.double().numpy() / float(PROBS.double().sum())
    q = p[wrong] if wrong else p * np.where(p < 0.01, 2.0, 1.0)
    q = q / q.sum()
    distance = DRAWS * float((((q - p) ** 2) / p).sum())
    limit = stats.chi2.isf(1e-6, len(p) - 1)
    assert stats.ncx2.sf(limit, len(p) - 1, distance) > 0.99, what


# Costs by hand -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "case", "expected"),
    [
        # 2 rows of 5 read and written; 3 + 1 + 2 + 0 tokens, two indptr of 3, three parameters
        ("penalize", Penalize(prompt_lens=(3, 1), output_lens=(2, 0), V=5),
         Cost(2 * 40 + 4 * 6 + 2 * 12 + 2 * 12)),
        ("filter_tokens", Filter(B=2, V=5), Cost(2 * 40 + 2 * 16)),
        ("draw_tokens", Draw(B=2, V=5), Cost(40 + 2 * (8 + 4 + 4))),
        ("sample", Sample(B=2, V=5), Cost(40 + 2 * (16 + 12 + 4))),
        ("greedy", Greedy(B=2, V=5), Cost(40 + 2 * 4)),
        ("greedy", Greedy(B=0, V=5), Cost(0)),
    ],
)  # fmt: skip
def test_costs_counted_by_hand(op: str, case: Any, expected: Cost) -> None:
    assert expected == ops.get(op).cost(case)


def test_rounding_of_a_logit_grows_with_its_distance_from_the_maximum() -> None:
    near, far, banned = sampling.relative_error(torch.tensor([0.0, -50.0, -math.inf]).double())
    assert float(near) == 4 * 2.0**-22 == float(banned)
    assert float(far) == pytest.approx(4 * (50 * 2.0**-24 + 2.0**-22))


@pytest.mark.parametrize("op", [ops.filter_tokens, ops.sample], ids=lambda op: op.name)
@pytest.mark.parametrize("variant", ["naive", "split"])
def test_a_kernel_declines_more_weights_than_its_sum_holds(op: Any, variant: str) -> None:
    """Integers of 64 bits, in units of 2^-40."""
    given = parameters(1)
    if op is ops.sample:
        given |= {"seed": each(1, 0, torch.int64), "position": each(1, 0, torch.int32)}
    reasons = []
    for V in (2**24 - 1, 2**24):
        call = op.bind(logits=torch.empty(1, V), **given)
        reasons.append(op.kernels[f"simt.{variant}"].supports(call))
    assert reasons == [None, "V is 16777216, it adds up fewer than 2^24 weights"]
