"""The judge against kernels that are wrong in every way, one at a time: each gets the verdict that
it deserves, and the kernel after it is judged as if nothing had happened."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest
import torch
from conftest import PLUGIN, TIMEOUT_S, watchdog
from torch import Tensor

from yaie import arena, ops
from yaie.arena import HUGE, INFINITE, LEFTOVERS, OTHER_POISONS, Poison
from yaie.check import Judge, _other_poison, _other_schedule, find_kernel
from yaie.compare import Verdict
from yaie.frame import ANCHOR

GOOD = {
    "paged_attention": "paged_attention.Case(q_lens=(2, 1), kv_lens=(5, 3), Hk=2, G=2)",
    "append_kv": "append_kv.Case(T=4, skip=2, layout='padded')",
    "copy_blocks": "copy_blocks.Case()",
}
EMPTY = "paged_attention.Case(q_lens=(1,), kv_lens=(0,))"
ONE_KEY = "paged_attention.Case(q_lens=(1,), kv_lens=(1,), S=4)"
PADDED = "paged_attention.Case(q_lens=(2,), kv_lens=(3,), layout='padded')"
FLAT = "paged_attention.Case(q_lens=(2,), kv_lens=(3,), family='flat')"
NANS = "append_kv.Case(T=12, P=3, S=4, Hk=4, D=64, dtype='float16', family='bits')"
ZEROS = "append_kv.Case(T=12, P=3, S=4, Hk=4, D=256, dtype='float16', family='bits', seed=3)"


def judged(judge: Judge, kernel: str, text: str | None = None, **changes: Any) -> Verdict:
    """The verdict on a kernel; then a good kernel of the same op must still pass."""
    op = next(op for op in ops.OPS.values() if kernel in op.kernels)
    case = op.parse_case(text or GOOD[op.name])
    verdict = judge.judge(op, op.kernels[kernel], case)
    after = judge.judge(op, op.kernels["torch.eager"], op.parse_case(GOOD[op.name]))
    assert "pass" == after.status, after.reason
    return verdict


@pytest.mark.parametrize("kernel", ["attention", "own_memory", "workspace", "last_bit", "append"])
@pytest.mark.parametrize("seed", range(3))
def test_a_right_kernel_passes(judge: Judge, kernel: str, seed: int) -> None:
    op = ops.get("append_kv" if kernel == "append" else "paged_attention")
    for dtype in ("float32", "float16", "bfloat16"):
        case = op.Case(dtype=dtype, seed=seed)
        verdict = judge.judge(op, op.kernels[f"good.{kernel}"], case)
        assert ("pass", None) == (verdict.status, verdict.reason)


@pytest.mark.parametrize("text", [EMPTY, ONE_KEY, PADDED, FLAT, "paged_attention.Case(Dv=16)"])
def test_a_right_kernel_passes_on_the_cases_that_trap_the_bad_ones(judge: Judge, text: str) -> None:
    verdict = judged(judge, "good.attention", text)
    assert ("pass", None) == (verdict.status, verdict.reason)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    ("kernel", "status"),
    [
        ("bad.default_stream", "fail"),
        ("bad.append_on_the_default_stream", "fail"),
        ("good.current_stream", "pass"),
    ],
)
def test_what_is_done_on_another_stream_comes_to_nothing(
    judge: Judge, kernel: str, status: str
) -> None:
    op = ops.get("append_kv" if "append" in kernel else "paged_attention")
    verdict = judge.judge_afresh(op, op.kernels[kernel], op.Case())
    assert status == verdict.status, verdict.reason


@pytest.mark.parametrize("heads", [1, 3])
def test_results_may_be_stored_head_by_head(judge: Judge, heads: int) -> None:
    """With a single head the last axis of lse has one element, and any stride."""
    case = f"paged_attention.Case(q_lens=(2,), kv_lens=(5,), Hk={heads}, dtype='float32')"
    verdict = judged(judge, "good.head_by_head", case)
    assert ("pass", None) == (verdict.status, verdict.reason)


def test_a_case_without_sequences_passes_and_has_no_receipt(judge: Judge) -> None:
    verdict = judged(judge, "good.attention", "paged_attention.Case(q_lens=(), kv_lens=())")
    assert ("pass", None) == (verdict.status, verdict.receipt)


@pytest.mark.parametrize(
    ("kernel", "how"),
    [
        ("bad.segfault", "SIGSEGV"),
        ("bad.abort", "SIGABRT"),
        ("bad.exit_0", "status 0"),
        ("bad.exit_7", "status 7"),
        ("bad.sys_exit", "status 1"),
        ("bad.kills_itself", "SIGKILL"),
        ("bad.becomes_another_program", "status 0"),
        ("bad.closes_every_file", "status"),
        ("bad.babbles_and_aborts", "the last words"),
    ],
)
def test_a_kernel_that_ends_its_process_is_a_crash(judge: Judge, kernel: str, how: str) -> None:
    verdict = judged(judge, kernel)
    assert ("crash", "crash") == (verdict.status, verdict.check)
    assert how in str(verdict.reason)


def test_a_crash_shows_what_the_kernel_said_last(judge: Judge) -> None:
    assert "an assertion of the kernel: i < n" in str(judged(judge, "bad.abort").reason)


@pytest.mark.parametrize("kernel", ["bad.infinite_loop", "bad.stops_itself"])
def test_a_kernel_that_hangs_is_a_timeout(judge: Judge, kernel: str) -> None:
    verdict = judged(judge, kernel)
    assert ("timeout", "timeout") == (verdict.status, verdict.check)


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        ("bad.raises", "RuntimeError: an illegal memory access"),
        ("bad.allocates_too_much", "MemoryError: the kernel allocated"),
        ("bad.allocates_the_impossible", "RuntimeError"),
        ("bad.returns_nothing", "returned 0 results, the op has 2"),
        ("bad.returns_one", "returned 1 results, the op has 2"),
        ("bad.returns_three", "returned 3 results, the op has 2"),
        ("bad.append_returns_something", "returned 1 results, the op has 0"),
        ("bad.returns_a_number", "lse is a float, no tensor"),
        ("bad.returns_an_array", "lse is a ndarray, no tensor"),
        ("bad.returns_wrong_shape", "lse is torch.float32 (4, 3), must be torch.float32 (3, 4)"),
        ("bad.returns_wrong_rank", "out is torch.float16 (1, 3, 4, 8)"),
        ("bad.returns_wrong_dtype", "out is torch.float32"),
        ("bad.returns_double_lse", "lse is torch.float64"),
        ("bad.returns_sparse", "Tensor"),
        ("bad.returns_from_nowhere", "lse is on meta"),
    ],
)
def test_an_exception_or_a_wrong_kind_of_result_is_an_error(
    judge: Judge, kernel: str, words: str
) -> None:
    verdict = judged(judge, kernel)
    assert ("fail", "error") == (verdict.status, verdict.check)
    assert words in str(verdict.reason)


@pytest.mark.parametrize("name", ["q", "k_cache", "kv_lens"])
def test_what_a_kernel_keeps_by_the_address_of_an_argument_is_of_another_case(
    judge: Judge, name: str
) -> None:
    op = ops.get("paged_attention")
    kernel = op.kernels[f"bad.knows_lengths_by_{name}"]
    short, long = (op.Case(q_lens=(1,), kv_lens=(n,), G=n) for n in (3, 5))
    assert all(judge.judge_afresh(op, kernel, case).ok for case in (short, long))
    judge.judge_afresh(op, kernel, short)
    every_argument = 4 * len(op.signature.params) // 2
    found = {judge.judge(op, kernel, case).status for case in [long, short] * every_argument}
    assert "fail" in found


def test_in_its_turn_each_argument_lies_where_it_did_and_no_run_is_aligned_like_the_other(
    judge: Judge,
) -> None:
    op = ops.get("paged_attention")
    for case in (op.good, op.Case(q_lens=(3,), kv_lens=(70,), D=24, layout="shifted")):
        layout = judge._lay_out(op, case)
        for turn, param in enumerate(op.signature.params):
            start = layout.start_for(turn)
            assert (arena.REGION_BYTES + start) % (2 * arena.ALIGNMENT) == arena.ALIGNMENT
            if turn and layout.places[param.name] is not None:
                at = start + layout.places[param.name].offset
                assert 0 <= at - ANCHOR < 2 * arena.ALIGNMENT
    judge.judge_afresh(op, op.kernels["torch.eager"], op.good)
    first, second = judge._runs(0, judge._lay_out(op, op.good))
    assert ((1, 0), (0, 0)) == ((first.region, first.start), (second.region, second.start))


def test_a_finding_of_the_executor_fails_the_check_of_its_kind(judge: Judge) -> None:
    verdict = judged(judge, "bad.races")
    assert ("fail", "race") == (verdict.status, verdict.check)
    assert "thread (1,0,0), at k.cuh:7" in str(verdict.reason)


def test_the_seed_of_a_case_chooses_the_order_of_its_second_run() -> None:
    chosen = [_other_schedule(seed) for seed in range(64)]
    assert {"reverse", "random", "priority"} == {schedule.policy for schedule in chosen}
    assert {1, 2, 3, 4} == {s.depth for s in chosen if s.policy == "priority"}
    assert any(schedule.preemption > 0 for schedule in chosen)
    assert chosen == [_other_schedule(seed) for seed in range(64)]


def test_the_seed_of_a_case_chooses_the_poison_of_its_second_run() -> None:
    """Whatever schedule it has, and as often each."""
    for few in (range(16), range(2**32 - 16, 2**32)):
        assert set(OTHER_POISONS) == {_other_poison(seed) for seed in few}
    counts = Counter(_other_poison(seed) for seed in range(4000))
    assert all(900 < counts[poison] < 1100 for poison in OTHER_POISONS)
    for kind in range(8):  # of schedule
        assert set(OTHER_POISONS) == {_other_poison(8 * turn + kind) for turn in range(32)}


def test_an_exception_that_cannot_be_printed_is_no_pass(judge: Judge) -> None:
    assert judged(judge, "bad.raises_unprintable").status in ("fail", "crash")


@pytest.mark.parametrize(
    ("kernel", "text", "words"),
    [
        ("bad.writes_before_an_argument", None, "bytes before q"),
        ("bad.writes_after_an_argument", None, "bytes after q"),
        ("bad.writes_after_the_last_argument", None, "bytes after q_indptr"),
        ("bad.writes_into_a_gap", PADDED, "gap between the rows of q"),
        ("bad.writes_into_q", None, "q[2, 3, 7]"),
        ("bad.flips_the_sign_of_zero", FLAT, "q[0, 0, 0]"),
        ("bad.writes_into_kv_lens", None, "kv_lens[0] was 5"),
        ("bad.writes_into_the_table_tail", None, "block_table[0, 2]"),
        ("bad.writes_into_an_unused_page", ONE_KEY, "k_cache["),
        ("bad.append_clears_an_unused_slot", None, "k_cache["),
    ],
)
def test_a_write_where_nothing_may_change_is_a_fault_of_the_frame(
    judge: Judge, kernel: str, text: str | None, words: str
) -> None:
    verdict = judged(judge, kernel, text)
    assert ("fail", "frame") == (verdict.status, verdict.check)
    assert words in str(verdict.reason)


@pytest.mark.parametrize(
    "kernel",
    [
        "bad.writes_behind_a_workspace",
        "bad.writes_behind_its_out",
        "bad.writes_behind_its_last_result",
        "bad.writes_before_its_out",
    ],
)
def test_a_write_next_to_an_own_allocation_is_a_fault_of_the_guard(
    judge: Judge, kernel: str
) -> None:
    verdict = judged(judge, kernel)
    assert ("fail", "guard") == (verdict.status, verdict.check)


@pytest.mark.parametrize(
    ("kernel", "text", "words"),
    [
        ("bad.append_forgets_the_last_token", None, "k_cache["),
        ("bad.append_quietens_nans", NANS, "k_cache["),
        ("bad.append_loses_the_sign_of_zero", ZEROS, "k_cache["),
        ("bad.copy_forgets_the_last_layer", None, "caches[1]["),
        ("bad.copy_copies_half_a_page", None, "caches[0]["),
    ],
)
def test_wrong_bits_in_a_mutated_argument_are_not_exact(
    judge: Judge, kernel: str, text: str | None, words: str
) -> None:
    verdict = judged(judge, kernel, text)
    assert ("fail", "exact") == (verdict.status, verdict.check)
    assert words in str(verdict.reason)


def test_writing_a_skipped_token_is_found(judge: Judge) -> None:
    verdict = judged(judge, "bad.append_writes_a_skipped_token")
    assert "fail" == verdict.status
    assert verdict.check in ("frame", "exact")


@pytest.mark.parametrize(
    ("kernel", "text", "check", "output"),
    [
        ("bad.leaves_one_element", None, "budget", "out[2, 3, 7]"),
        ("bad.lse_by_a_thousandth", None, "budget", "lse[2, 3]"),
        ("bad.lse_base_2", None, "budget", "lse"),
        ("bad.plus_infinity_when_empty", EMPTY, "special values", "lse[0, 0] is inf"),
        ("bad.nan_when_empty", EMPTY, "budget", "out[0, 0, 0] is nan"),
        ("bad.one_row_by_a_percent", None, "budget", "out[2, 3"),
        ("bad.returns_its_input", None, "error", "out is a view of an argument"),
        ("bad.constant_poison", None, "budget", "is nan"),
    ],
)
def test_wrong_numbers_fail_and_the_reason_says_where(
    judge: Judge, kernel: str, text: str | None, check: str, output: str
) -> None:
    verdict = judged(judge, kernel, text)
    assert ("fail", check) == (verdict.status, verdict.check)
    assert output in str(verdict.reason)


def test_a_receipt_comes_with_every_fault_of_a_budget(judge: Judge) -> None:
    receipt = judged(judge, "bad.lse_by_a_thousandth").receipt
    assert receipt is not None
    assert ("lse", (2, 3)) == (receipt.output, receipt.index)
    assert receipt.used > 1
    assert 1e-3 == pytest.approx(receipt.actual - receipt.expected, rel=0.01)


def test_reading_a_huge_number_from_unused_memory_depends_on_poison(judge: Judge) -> None:
    verdict = judged(judge, "bad.fmax_over_the_whole_page", ONE_KEY)
    assert ("fail", "poison") == (verdict.status, verdict.check)


SEEDS = {_other_poison(seed): seed for seed in reversed(range(16))}
"""A seed for each poison."""


@pytest.mark.parametrize(
    ("kernel", "finds"),
    [
        ("bad.fmax_over_the_whole_page", {HUGE, INFINITE}),
        ("bad.overflow_check_over_the_whole_page", {INFINITE}),
        ("bad.trusts_the_padding_of_the_table", {arena.ZEROS, LEFTOVERS}),
        ("bad.counts_believable_numbers_of_the_last_page", {LEFTOVERS}),
        ("bad.takes_fresh_memory_for_its_answer", {LEFTOVERS}),
    ],
)
@pytest.mark.parametrize("poison", OTHER_POISONS, ids=lambda poison: poison.name)
def test_what_one_poison_does_not_show_another_does(
    judge: Judge, kernel: str, finds: set[Poison], poison: Poison
) -> None:
    """The first run is on NaNs in all of them: it shows none of these."""
    case = f"paged_attention.Case(q_lens=(2, 1), kv_lens=(5, 3), seed={SEEDS[poison]})"
    verdict = judged(judge, kernel, case)
    if poison in finds:
        assert ("fail", "poison") == (verdict.status, verdict.check)
        assert f"NaN, then {poison.name}" in str(verdict.reason)
    else:
        assert "pass" == verdict.status, verdict.reason


@pytest.mark.parametrize("poison", OTHER_POISONS, ids=lambda poison: poison.name)
@pytest.mark.parametrize(
    "kernel",
    ["writes_behind_a_workspace", "writes_before_its_out", "writes_into_the_table_tail"],
)
def test_a_write_is_found_whatever_the_poison(judge: Judge, kernel: str, poison: Poison) -> None:
    case = f"{GOOD['paged_attention'][:-1]}, seed={SEEDS[poison]})"
    assert judged(judge, f"bad.{kernel}", case).check in ("guard", "frame")


def test_other_bits_at_the_second_call_are_a_fault_of_repeat(judge: Judge) -> None:
    verdict = judged(judge, "bad.right_only_at_first")
    assert ("fail", "repeat") == (verdict.status, verdict.check)


def test_a_last_bit_that_changes_is_a_fault_of_a_deterministic_kernel(judge: Judge) -> None:
    verdict = judged(judge, "bad.last_bit")
    assert "fail" == verdict.status
    assert verdict.check in ("repeat", "schedule", "poison")


def test_bits_that_depend_on_an_address_are_a_fault(judge: Judge) -> None:
    assert "fail" == judged(judge, "bad.depends_on_the_address").status


def test_both_runs_of_a_kernel_that_is_not_deterministic_are_judged(judge: Judge) -> None:
    verdict = judged(judge, "bad.declared_random_and_right_every_other_time")
    assert "fail" == verdict.status


@pytest.mark.parametrize("how", ["gives_up", "shrinks"])
def test_a_kernel_that_misbehaves_only_when_it_is_called_again_gets_a_verdict(
    judge: Judge, how: str
) -> None:
    assert "fail" == judged(judge, f"bad.differs_and_{how}_at_the_third_call").status


@pytest.mark.parametrize("key", ["shape", "pointer"])
def test_results_remembered_from_an_earlier_case_are_found(judge: Judge, key: str) -> None:
    op = ops.get("paged_attention")
    kernel = op.kernels[f"bad.remembers_by_{key}"]
    statuses = [judge.judge(op, kernel, op.Case(G=2, seed=seed)).status for seed in range(4)]
    assert "fail" in statuses


def test_a_result_may_not_be_memory_of_an_argument(judge: Judge) -> None:
    """out = v when there is one key, so its numbers are right: but the next append changes it."""
    assert "fail" == judged(judge, "bad.returns_a_view_of_the_cache", ONE_KEY).status


def test_a_child_that_returns_too_does_not_answer_for_the_next_kernel(own_judge: Judge) -> None:
    op = ops.get("paged_attention")
    with watchdog(20):
        own_judge.judge(op, op.kernels["bad.forks_and_both_return"], op.good)
        time.sleep(0.5)
        for _ in range(3):
            wrong = own_judge.judge(op, op.kernels["bad.returns_one"], op.good)
            assert ("fail", "error") == (wrong.status, wrong.check)
            right = own_judge.judge(op, op.kernels["good.attention"], op.good)
            assert "pass" == right.status, right.reason


def test_a_crash_is_no_timeout_because_a_child_lives_on(judge: Judge) -> None:
    with watchdog(20):
        verdict = judged(judge, "bad.leaves_a_child_and_crashes")
    assert "crash" == verdict.status


@pytest.mark.parametrize("how", ["kills", "stops"])
def test_a_kernel_that_attacks_the_process_which_forks_workers_is_survived(
    own_judge: Judge, how: str
) -> None:
    with watchdog(12):
        verdict = judged(own_judge, f"bad.{how}_its_parent")
    assert verdict.status in ("crash", "timeout")


def test_a_kernel_that_hangs_up_and_hangs_is_killed(own_judge: Judge) -> None:
    with watchdog(12):
        verdict = judged(own_judge, "bad.closes_every_file_and_hangs")
    assert verdict.status in ("crash", "timeout")


def test_what_a_kernel_writes_to_stderr_is_not_held_against_it(judge: Judge) -> None:
    assert "pass" == judged(judge, "good.babbles").status


def test_what_a_kernel_prints_does_not_mix_with_the_judges_own_output(
    bad: None, capfd: pytest.CaptureFixture[str]
) -> None:
    with Judge(PLUGIN, TIMEOUT_S) as fresh:
        assert "pass" == judged(fresh, "good.prints").status
    assert "" == capfd.readouterr().out


def test_a_kernel_that_changes_the_worlds_state_spoils_no_other_kernel(judge: Judge) -> None:
    op = ops.get("paged_attention")
    judge.judge(op, op.kernels["good.changes_the_world"], op.good)
    verdict = judge.judge(op, op.kernels["good.with_torch_defaults"], op.good)
    judge.judge(op, op.kernels["bad.abort"], op.good)  # the next worker is a fresh one
    assert ("pass", None) == (verdict.status, verdict.reason)


def test_a_kernel_that_declines_is_unsupported_and_never_called(judge: Judge) -> None:
    verdict = judged(judge, "bad.declines")
    assert ("unsupported", "serves nothing at all") == (verdict.status, verdict.reason)
    assert verdict.ok


def test_a_kernel_may_decline_by_the_contents_of_a_call(judge: Judge) -> None:
    long = "paged_attention.Case(kv_lens=(5,))"
    verdict = judged(judge, "good.declines_by_contents", long)
    assert ("unsupported", "serves up to 4 keys") == (verdict.status, verdict.reason)
    short = "paged_attention.Case(kv_lens=(4,))"
    assert "pass" == judged(judge, "good.declines_by_contents", short).status


def test_a_kernel_that_declines_a_call_and_then_serves_it_is_at_fault(judge: Judge) -> None:
    verdict = judged(judge, "bad.declines_now_and_then")
    assert ("fail", "error") == (verdict.status, verdict.check)
    assert "Unsupported: not now" == verdict.reason


def test_a_kernel_that_declines_has_written_nothing(judge: Judge) -> None:
    verdict = judged(judge, "bad.declines_after_writing")
    assert "fail" == verdict.status
    assert "q[" in str(verdict.reason)


def test_a_question_to_supports_that_raises_is_a_fault_of_the_kernel(judge: Judge) -> None:
    assert "fail" == judged(judge, "bad.supports_raises").status


def test_an_interrupted_case_leaves_no_answer_behind_for_the_next(
    shaken_judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C, or a fault of a reference, comes while the worker is at work."""
    op = ops.get("paged_attention")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with watchdog(20):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(shaken_judge, "_reference", interrupted)
            shaken_judge.judge(op, op.kernels["good.attention"], op.good)
        wrong = shaken_judge.judge(op, op.kernels["bad.returns_one"], op.good)
        right = shaken_judge.judge(op, op.kernels["good.attention"], op.good)
    assert ("fail", "error") == (wrong.status, wrong.check)
    assert ("pass", None) == (right.status, right.reason)


def test_the_same_kernel_on_the_same_case_gets_the_same_verdict(judge: Judge) -> None:
    first, second = (judged(judge, "bad.one_row_by_a_percent") for _ in range(2))
    assert first == second


def test_one_ulp_more_than_allowed_fails_and_the_last_allowed_number_passes() -> None:
    """On the judge's own comparison, for every element of a real case."""
    from yaie.arena import Arena
    from yaie.compare import Contract
    from yaie.fill import Fill

    op = ops.get("paged_attention")
    args, options = op.inputs(op.Case(dtype="float32"), Fill(Arena(1 << 20), 0))
    call = op.bind(**args, **options)
    lse = op.comparison(op.reference(**call.args, **call.options), call, Contract())["lse"]
    allowed = sum(lse.terms.values())
    up = torch.tensor(torch.inf, dtype=torch.float64)
    assert lse.judge("lse", lse.expected + allowed * (1 - 1e-9)).check is None
    beyond = torch.nextafter(lse.expected + allowed * (1 + 1e-9), up)
    assert "budget" == lse.judge("lse", beyond).check


def test_weights_of_a_power_of_two_are_allowed_no_rounding() -> None:
    """A result that is cut to bfloat16 is within the budget of other rows, and beyond that of rows
    whose weights are all 1: of the row with three keys they may be 1/3, rounded."""
    from yaie.arena import Arena
    from yaie.compare import Contract
    from yaie.fill import Fill

    op = ops.get("varlen_attention")
    case = op.Case(q_lens=(1, 1), kv_lens=(4, 3), Dv=64, dtype="bfloat16", family="flat")
    args, options = op.inputs(case, Fill(Arena(1 << 20), 0))
    call = op.bind(**args, **options)
    answer = op.reference(**call.args, **call.options)

    def beyond(contract: Contract) -> list[bool]:
        """Of each row, whether an element of it that was cut is."""
        out = op.comparison(answer, call, contract)["out"]
        nearest = out.expected.bfloat16()
        assert out.judge("out", nearest).check is None
        bits = nearest.view(torch.int16) - (nearest.double().abs() > out.expected.abs()).short()
        error = (bits.view(torch.bfloat16).double() - out.expected).abs()
        return (error > sum(out.terms.values())).flatten(1).any(1).tolist()

    assert [True, False] == beyond(Contract(p_rounded=True))
    assert [False, False] == beyond(Contract(p_rounded=True, p_from_constant=True))
    assert [True, True] == beyond(Contract())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_one_tile_are_allowed_their_own_rounding(dtype: torch.dtype) -> None:
    """Rounded to the nearest they pass, relative to the largest or normalised; cut, they do not,
    whichever weights the normaliser sums."""
    from yaie.arena import Arena
    from yaie.compare import Contract
    from yaie.fill import Fill

    op = ops.get("varlen_attention")
    name = str(dtype).removeprefix("torch.")
    case = op.Case(q_lens=(1,), kv_lens=(7,), D=16, Dv=64, dtype=name, family="brink")
    args, options = op.inputs(case, Fill(Arena(1 << 20), 0))
    call = op.bind(**args, **options)
    answer = op.reference(**call.args, **call.options)
    q, k, v = (args[name].double() for name in "qkv")
    score = (q @ k[:, 0].T)[0, 0] / 4
    weight = (score - score.max()).exp()

    def nearest(x: Tensor) -> Tensor:
        return x.to(dtype).double()

    def cut(x: Tensor) -> Tensor:
        rounded = x.to(dtype)
        return (rounded.view(torch.int16) - (rounded.double() > x).short()).view(dtype).double()

    def fault(p: Tensor, total: Tensor) -> str | None:
        out = (p[:, None] * v[:, 0]).sum(0) / total
        contract = Contract(p_rounded=True)
        budget = op.comparison(answer, call, contract)["out"]
        return budget.judge("out", out.to(dtype)[None, None]).check

    one = torch.tensor(1.0, dtype=torch.float64)
    assert fault(nearest(weight), weight.sum()) is None
    assert fault(nearest(weight), nearest(weight).sum()) is None
    assert fault(nearest(weight / weight.sum()), one) is None
    assert fault(cut(weight), weight.sum()) == "budget"
    assert fault(cut(weight), cut(weight).sum()) == "budget"
    assert fault(cut(weight / weight.sum()), one) == "budget"


def test_every_bad_input_of_every_op_is_refused_by_a_thin_kernel(judge: Judge) -> None:
    """The door stands before the kernel, so a kernel without any check of its own is safe."""
    op = ops.get("paged_attention")
    kernel = op.kernels["bad.refuses_nothing"]
    verdicts = [judge.judge_refusal(op, kernel, n) for n in range(len(op.refusals))]
    assert [] == [v.reason for v in verdicts if not v.ok]


def test_a_bad_input_that_is_accepted_fails(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Judged in this process: the worker's answer is put in its place."""
    from yaie.worker.execution import Raised, RefusalOutcome

    op = ops.get("append_kv")
    kernel = op.kernels["torch.eager"]
    refusal = op.refusals[0]
    right = Raised(refusal.raises.__name__, f"... {refusal.says} ...")
    answers = {
        "accepted": RefusalOutcome(None, False, False),
        "raised": RefusalOutcome(Raised("RuntimeError", refusal.says), False, False),
        "must raise": RefusalOutcome(Raised(refusal.raises.__name__, "something"), False, False),
        "only after": RefusalOutcome(right, True, False),
        "launched": RefusalOutcome(right, False, True),
    }
    for words, answer in answers.items():
        monkeypatch.setattr(judge._worker, "ask", lambda *_, answer=answer: answer)
        verdict = judge.judge_refusal(op, kernel, 0)
        assert ("fail", "rejection") == (verdict.status, verdict.check)
        assert words in str(verdict.reason)


def test_an_unknown_kernel_is_named_with_its_neighbours() -> None:
    with pytest.raises(ValueError, match=r"no kernel 'torch.eagre'; did you mean torch.eager\?"):
        find_kernel(ops.get("append_kv"), "torch.eagre")
