"""Which kernel serves a call, on kernels that only say their name."""

from __future__ import annotations

import contextvars
import threading
from dataclasses import dataclass
from typing import Any

import pytest
import torch

import yaie
from yaie import dispatch, ops
from yaie.dispatch import Unsupported, checked, choose, contents_checked, use
from yaie.op import Kernel


@dataclass(frozen=True)
class Named:
    """A kernel as the policy sees one."""

    name: str
    preference: int = 0
    reason: str | None = None

    suited: bool = True

    def declines(self, call: Any) -> str | None:
        return self.reason

    def suits(self, call: Any) -> bool:
        return self.suited


def table(*kernels: Named) -> dict[str, Named]:
    return {k.name: k for k in kernels}


KERNELS = table(
    Named("reference"),
    Named("torch.eager", 1),
    Named("simt.naive", -1),
    Named("simt.vec", -1),
    Named("cuda.naive", 20, "runs on cuda tensors, these are on cpu"),
    Named("cuda.vec", 30, "D is 3, vec needs multiples of 8"),
)


def chosen(explicit: str | None = None, op: str = "append_kv", kernels: Any = KERNELS) -> str:
    return choose(op, kernels, "T=3, float16", explicit).name


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("YAIE_KERNEL", raising=False)
    monkeypatch.delenv("YAIE_CHECKED", raising=False)


# Order ---------------------------------------------------------------------------------------


def test_the_preferred_kernel_that_serves_the_call_is_the_default() -> None:
    assert "torch.eager" == chosen()
    assert "cuda.naive" == chosen(kernels=KERNELS | table(Named("cuda.naive", 20)))


def test_every_source_wins_over_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YAIE_KERNEL", "simt.naive")
    assert "simt.naive" == chosen()
    with use("simt.vec"):
        assert "simt.vec" == chosen()
        assert "reference" == chosen("reference")
    assert "simt.naive" == chosen()
    monkeypatch.delenv("YAIE_KERNEL")
    assert "torch.eager" == chosen()


def test_the_reference_comes_last_whatever_else_serves_the_call() -> None:
    """preference ▸ reference. On a plain CPU that is PyTorch, not a loop in float64."""
    for op in ops.OPS.values():
        call = op.bind(**good(op))
        assert "reference" != dispatch.choose(op.name, op.kernels, call, None).name


def good(op: ops.Op) -> dict[str, Any]:
    from yaie.arena import Arena
    from yaie.fill import Fill

    args, options = op.inputs(op.good, Fill(Arena(1 << 20), 0))
    return {**args, **options}


def test_a_kernel_of_negative_preference_is_never_the_default() -> None:
    with pytest.raises(Unsupported):
        chosen(kernels=table(Named("simt.naive", -1)))


def test_of_kernels_of_one_preference_the_first_registered_serves() -> None:
    assert "a.one" == chosen(kernels=table(Named("a.one", 5), Named("a.two", 5)))


def test_a_kernel_that_does_not_suit_the_call_comes_after_those_that_do() -> None:
    slower = Named("a.one", 5, suited=False)
    assert "a.two" == chosen(kernels=table(slower, Named("a.two", 1)))
    assert "a.one" == chosen(kernels=table(slower, Named("a.two", 1, "declines")))
    assert "a.one" == chosen("a.one", kernels=table(slower, Named("a.two", 1)))


# Names and globs -----------------------------------------------------------------------------


def test_a_glob_takes_the_preferred_of_those_that_serve() -> None:
    kernels = table(Named("x.a", 1), Named("x.b", 3, "no"), Named("x.c", 2), Named("y.d", 9))
    assert "x.c" == chosen("x.*", kernels=kernels)


def test_a_choice_for_another_op_is_passed_over() -> None:
    with use("paged_attention=simt.naive"):
        assert "torch.eager" == chosen()
        assert "simt.naive" == chosen(op="paged_attention")


def test_an_op_may_be_a_glob() -> None:
    with use("*_kv=simt.vec"):
        assert "simt.vec" == chosen(op="append_kv")
        assert "torch.eager" == chosen(op="copy_blocks")


def test_a_bare_name_is_for_the_ops_that_have_it() -> None:
    without = table(Named("torch.eager", 1))
    with use("simt.vec"):
        assert "simt.vec" == chosen()
        assert "torch.eager" == chosen(kernels=without)


def test_the_first_choice_that_fits_decides() -> None:
    with use("append_kv=simt.vec", "simt.naive"):
        assert "simt.vec" == chosen()
        assert "simt.naive" == chosen(op="copy_blocks")


def test_an_inner_block_wins_and_the_outer_one_still_holds_for_what_it_leaves_open() -> None:
    with use("copy_blocks=simt.vec", "append_kv=simt.vec"):
        with use("append_kv=reference"):
            assert ("reference", "simt.vec") == (chosen(), chosen(op="copy_blocks"))
        assert "simt.vec" == chosen()


def test_a_block_that_raises_is_left_all_the_same() -> None:
    with pytest.raises(KeyError), use("simt.vec"):
        raise KeyError
    assert "torch.eager" == chosen()


def test_a_choice_stays_in_its_own_context() -> None:
    seen: list[str] = []
    with use("simt.vec"):
        thread = threading.Thread(target=lambda: seen.append(chosen()))
        thread.start()
        thread.join()
        assert "simt.vec" == contextvars.copy_context().run(chosen)
    assert ["torch.eager"] == seen


def test_the_environment_holds_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YAIE_KERNEL", " copy_blocks=simt.vec , simt.naive,")
    assert ("simt.naive", "simt.vec") == (chosen(), chosen(op="copy_blocks"))


# Refusals ------------------------------------------------------------------------------------


def test_a_named_kernel_that_declines_is_an_error_and_no_fallback() -> None:
    with pytest.raises(Unsupported) as caught:
        chosen("cuda.vec")
    assert (
        "append_kv: no kernel serves this call (T=3, float16): "
        "cuda.vec: D is 3, vec needs multiples of 8"
    ) == str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_every_reason_is_listed() -> None:
    with use("cuda.*"), pytest.raises(Unsupported) as caught:
        chosen()
    assert "cuda.vec: D is 3" in str(caught.value)
    assert "cuda.naive: runs on cuda tensors" in str(caught.value)


def test_when_no_default_serves_every_reason_is_listed() -> None:
    kernels = table(Named("a", 2, "too small"), Named("b", 1, "too large"))
    with pytest.raises(Unsupported, match="a: too small; b: too large"):
        chosen(kernels=kernels)


@pytest.mark.parametrize("source", ["explicit", "use", "environment"])
def test_an_unknown_name_suggests_the_nearest(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = r"append_kv: no kernel 'simt.niave'; did you mean simt.naive"
    if source == "explicit":
        with pytest.raises(ValueError, match=words):
            chosen("simt.niave")
    elif source == "use":
        with use("append_kv=simt.niave"), pytest.raises(ValueError, match=words):
            chosen()
    else:
        monkeypatch.setenv("YAIE_KERNEL", "append_kv=simt.niave")
        with pytest.raises(ValueError, match=words):
            chosen()


def test_a_name_like_no_other_lists_what_is_known() -> None:
    with pytest.raises(ValueError, match=r"no kernel 'zzz' \(known: cuda.naive, .*torch.eager\)"):
        chosen("zzz")


@pytest.mark.parametrize("choice", ["simt.niave", "paged_atention=torch.eager", "copy=simt.*"])
def test_a_choice_that_fits_no_op_at_all_is_an_error_and_never_silent(choice: str) -> None:
    """A misspelt name must not fall back to the default: the user would time the wrong kernel."""
    op = ops.get("append_kv")
    with pytest.raises(ValueError, match=r"no (kernel|op)"), yaie.use(choice):
        op(**good(op))


def test_an_unknown_name_is_no_unsupported_call() -> None:
    with pytest.raises(ValueError) as caught:
        chosen("zzz")
    assert not isinstance(caught.value, Unsupported)


# Registration --------------------------------------------------------------------------------


def test_a_second_kernel_of_one_name_is_refused() -> None:
    op = ops.get("append_kv")
    with pytest.raises(ValueError, match=r"append_kv: kernel 'torch\.eager' is registered already"):
        op.register(Kernel("append_kv", "torch.eager", print))


def test_a_kernel_of_another_op_is_refused() -> None:
    with pytest.raises(ValueError, match="says it computes 'copy_blocks'"):
        ops.get("append_kv").register(Kernel("copy_blocks", "x.y", print))


def test_a_kernel_declines_tensors_on_another_device() -> None:
    op = ops.get("append_kv")
    call = op.bind(**good(op))
    reason = Kernel("append_kv", "cuda.x", print, device="cuda").declines(call)
    assert "runs on cuda tensors, these are on cpu" == reason
    assert Kernel("append_kv", "any.x", print).declines(call) is None


def test_supports_of_every_kernel_answers_without_reading_tensors() -> None:
    """shapes, dtypes and options only. A meta tensor has nothing else."""
    from dataclasses import replace

    for op in ops.OPS.values():
        call = op.bind(**good(op))
        bare = {
            name: [t.to("meta") for t in a] if isinstance(a, list) else a.to("meta")
            for name, a in call.args.items()
        }
        for kernel in (k for n, k in op.kernels.items() if not n.startswith("bad.")):
            answer = kernel.supports(replace(call, args=bare))
            assert answer is None or isinstance(answer, str)


def test_kernels_that_count_rows_in_an_int_decline_more() -> None:
    """The axes alone say so: nothing as large is built."""
    from dataclasses import replace

    op = ops.get("paged_attention")
    call = op.bind(**good(op))
    call = replace(call, axes={**call.axes, "T": 1 << 25, "Hq": 64, "Hk": 1})
    for name in ("simt.mma_decode", "simt.mma_prefill"):
        assert "beyond 2^31 - 1" in (op.kernels[name].supports(call) or "")


# Calls of an op ------------------------------------------------------------------------------


def test_an_op_runs_the_kernel_that_was_asked_for() -> None:
    op = ops.get("append_kv")
    ran: list[str] = []
    op.register(Kernel("append_kv", "test.spy", lambda **_: ran.append("spy"), preference=-1))
    try:
        op(**good(op), kernel="test.spy")
        with yaie.use("append_kv=test.*"):
            op(**good(op))
    finally:
        op.kernels.pop("test.spy")
    assert ["spy", "spy"] == ran


def test_arguments_go_by_position_or_by_name() -> None:
    op = ops.get("append_kv")
    args = good(op)
    call = op.bind(
        args["k"], args["v"], k_cache=args["k_cache"], v_cache=args["v_cache"], slots=args["slots"]
    )
    assert list(args) == list(call.args)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda a: a.pop("slots"), "append_kv: missing argument 'slots'"),
        (lambda a: a.update(casual=True), "append_kv: no option 'casual'"),
    ],
)
def test_wrong_argument_names_are_type_errors(spoil: Any, words: str) -> None:
    op = ops.get("append_kv")
    args = good(op)
    spoil(args)
    with pytest.raises(TypeError, match=words):
        op.bind(**args)


def test_too_many_arguments_are_a_type_error() -> None:
    op = ops.get("append_kv")
    with pytest.raises(TypeError, match="takes 5 tensors, 6 were given"):
        op.bind(*good(op).values(), torch.zeros(1))


def test_a_misspelt_option_suggests_the_nearest() -> None:
    op = ops.get("paged_attention")
    with pytest.raises(TypeError, match=r"no option 'casual'; did you mean causal"):
        op.bind(**{**good(op), "casual": True})


# Checked mode --------------------------------------------------------------------------------


def test_contents_are_checked_on_a_cpu_and_not_on_a_gpu() -> None:
    assert (True, False) == (contents_checked("cpu"), contents_checked("cuda"))


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("0", False)])
def test_the_environment_changes_the_default(
    value: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YAIE_CHECKED", value)
    assert (expected, expected) == (contents_checked("cpu"), contents_checked("cuda"))


@pytest.mark.parametrize("value", ["false", "no", "2", "on"])
def test_what_is_neither_on_nor_off_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YAIE_CHECKED", value)
    words = f"YAIE_CHECKED is '{value}', must be 0 .* or 1"
    with pytest.raises(ValueError, match=words):
        contents_checked("cpu")
    with pytest.raises(ValueError, match=words):
        dispatch.check_environment(ops.kernel_names())
    with checked():
        assert contents_checked("cuda")


def test_nothing_is_as_if_it_were_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YAIE_CHECKED", "")
    test_contents_are_checked_on_a_cpu_and_not_on_a_gpu()


def test_a_block_wins_over_the_environment_and_blocks_nest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YAIE_CHECKED", "0")
    with checked():
        with checked(False):
            assert not contents_checked("cpu")
        assert contents_checked("cuda")
    assert not contents_checked("cpu")


def test_unchecked_calls_read_no_contents_and_checked_ones_refuse_them() -> None:
    op = ops.get("append_kv")
    args = good(op)
    args["slots"][:] = torch.tensor([0, 1, 2, 1], dtype=torch.int32)
    with checked(False):
        op(**args)
    with pytest.raises(ValueError, match="a slot is used twice"):
        op(**args)
