"""The C++ side called directly, without the door of the op before it: launchers have their own."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from yaie import ops
from yaie.arena import Arena
from yaie.fill import Fill
from yaie.kernels import native
from yaie.kernels.torch_eager.attention import paged_attention
from yaie.kernels.torch_eager.movers import append_kv

SIMT = native.extension("simt")
MODULE: ModuleType = SIMT  # type: ignore[assignment]

MOVERS = pytest.mark.parametrize("variant", ["naive", "vec"])
ATTENTION = pytest.mark.parametrize("variant", ["naive", "split_kv"])
SCHEDULES = [("round-robin", 0), ("reverse", 0), ("random", 1), ("random", 2)]
INT = torch.int32


@pytest.fixture(autouse=True)
def schedule() -> Iterator[None]:
    MODULE.set_schedule("round-robin", 0, 1)
    yield
    MODULE.set_schedule("round-robin", 0, 1)


def append_args(**changes: Any) -> dict[str, Any]:
    good = {
        "k": torch.randn(3, 2, 8),
        "v": torch.randn(3, 2, 4),
        "k_cache": torch.zeros(2, 5, 2, 8),
        "v_cache": torch.zeros(2, 5, 2, 4),
        "slots": torch.tensor([9, -1, 0], dtype=INT),
    }
    return {**good, **changes}


def append(variant: str, args: dict[str, Any]) -> None:
    getattr(MODULE, f"append_kv_{variant}")(*args.values(), 0)


def copy(variant: str, caches: list[Tensor], *pairs: tuple[int, int]) -> None:
    table = torch.tensor(pairs, dtype=INT).reshape(-1, 2)
    getattr(MODULE, f"copy_blocks_{variant}")(caches, table, 0)


def attention_args(**changes: Any) -> dict[str, Any]:
    good = {
        "out": torch.full((3, 4, 8), 7.0),
        "lse": torch.full((3, 4), 7.0),
        "partial_out": torch.zeros(2, 3, 4, 8),
        "partial_lse": torch.zeros(2, 3, 4),
        "q": torch.randn(3, 4, 8),
        "k_cache": torch.randn(4, 5, 2, 8),
        "v_cache": torch.randn(4, 5, 2, 8),
        "block_table": torch.tensor([[1, 3], [0, 0]], dtype=INT),
        "kv_lens": torch.tensor([7, 2], dtype=INT),
        "q_indptr": torch.tensor([0, 2, 3], dtype=INT),
    }
    return {**good, **changes}


def attend(variant: str, args: dict[str, Any], right: int = 0) -> tuple[Tensor, Tensor]:
    """Scale 0.5, no softcap, no limit to the left; ``right = 0`` is causal."""
    used = [t for name, t in args.items() if variant != "naive" or "partial" not in name]
    getattr(MODULE, f"paged_attention_{variant}")(*used, 0.5, 0.0, -1, right, 0)
    return args["out"], args["lse"]


def expected(args: dict[str, Any]) -> tuple[Tensor, Tensor]:
    names = ("q", "k_cache", "v_cache", "block_table", "kv_lens", "q_indptr")
    options = {"causal": True, "scale": 0.5, "window": (-1, -1), "softcap": 0.0}
    return paged_attention(**{name: args[name] for name in names}, **options)


# Good calls ----------------------------------------------------------------------------------


@MOVERS
def test_append_stores_and_skips(variant: str) -> None:
    args = append_args()
    other = {name: t.clone() for name, t in args.items()}
    append(variant, args)
    append_kv(**other)
    assert torch.equal(other["k_cache"], args["k_cache"])
    assert torch.equal(other["v_cache"], args["v_cache"])


@ATTENTION
def test_attention_is_that_of_torch(variant: str) -> None:
    args = attention_args()
    for actual, wanted in zip(attend(variant, args), expected(args), strict=True):
        torch.testing.assert_close(actual, wanted)


def test_the_module_says_which_build_it_is() -> None:
    assert len(MODULE.build_id) >= 8


# Bad calls -----------------------------------------------------------------------------------


@MOVERS
@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"k": torch.zeros(3, 2)}, ValueError, "k: rank is 2, must be 3"),
        ({"k": torch.zeros(3, 2, 8, 1)}, ValueError, "k: rank is 4, must be 3"),
        ({"v": torch.zeros(4, 2, 4)}, ValueError, "v: T is 4, k: T is 3"),
        ({"k_cache": torch.zeros(2, 5, 3, 8)}, ValueError, "k_cache: Hk is 3, k: Hk is 2"),
        ({"v_cache": torch.zeros(3, 5, 2, 4)}, ValueError, "v_cache: P is 3, k_cache: P is 2"),
        ({"v_cache": torch.zeros(2, 6, 2, 4)}, ValueError, "v_cache: S is 6, k_cache: S is 5"),
        ({"v_cache": torch.zeros(2, 5, 2, 8)}, ValueError, "v_cache: Dv is 8, v: Dv is 4"),
        ({"slots": torch.zeros(2, dtype=INT)}, ValueError, "slots: T is 2, k: T is 3"),
        ({"k": torch.zeros(3, 2, 16)[..., ::2]}, ValueError, "k: last stride must be 1"),
        ({"slots": torch.zeros(6, dtype=INT)[::2]}, ValueError, "slots: last stride must be 1"),
        ({"k_cache": torch.zeros(2, 5, 2, 16)[..., :8]}, ValueError, "k_cache: must be contiguous"),
        ({"k": torch.zeros(3, 2, 8).double()}, TypeError, "k: wrong dtype"),
        ({"k": torch.zeros(3, 2, 8).half()}, TypeError, "v: dtype differs from that of k"),
        ({"slots": torch.zeros(3, dtype=torch.int64)}, TypeError, "slots: wrong dtype"),
        ({"k": 3}, TypeError, "incompatible function arguments"),
        ({"k": None}, TypeError, "incompatible function arguments"),
    ],
)  # fmt: skip
def test_append_refuses(
    variant: str, changes: dict[str, Any], kind: type[Exception], words: str
) -> None:
    args = append_args(**changes)
    with pytest.raises(kind) as caught:
        append(variant, args)
    assert words in str(caught.value)
    if "incompatible" not in words:
        assert str(caught.value).startswith("append_kv: ")
    assert not bool(args["v_cache"].any())


@MOVERS
@pytest.mark.parametrize(
    ("caches", "pairs", "kind", "words"),
    [
        ([torch.zeros(3, 2), torch.zeros(4, 2)], torch.zeros(1, 2, dtype=INT), ValueError,
         "caches: P is 4, caches: P is 3"),
        ([torch.zeros(3, 4)[:, :2]], torch.zeros(1, 2, dtype=INT), ValueError,
         "caches: must be contiguous"),
        ([torch.tensor(1.0)], torch.zeros(1, 2, dtype=INT), ValueError, "caches: rank is 0"),
        ([torch.zeros(3, 2)], torch.zeros(1, 3, dtype=INT), ValueError,
         "pairs: an axis is 3, must be 2"),
        ([torch.zeros(3, 2)], torch.zeros(2, dtype=INT), ValueError, "pairs: rank is 1"),
        ([torch.zeros(3, 2)], torch.zeros(1, 2), TypeError, "pairs: wrong dtype"),
        ([torch.zeros(3, *[1] * 8)], torch.zeros(1, 2, dtype=INT), ValueError,
         "a tensor of rank 9, the kernels take up to 8"),
        (torch.zeros(3, 2), torch.zeros(1, 2, dtype=INT), TypeError, "incompatible"),
        ([3], torch.zeros(1, 2, dtype=INT), TypeError, "incompatible"),
    ],
)  # fmt: skip
def test_copy_refuses(
    variant: str, caches: Any, pairs: Tensor, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind) as caught:
        getattr(MODULE, f"copy_blocks_{variant}")(caches, pairs, 0)
    assert words in str(caught.value)


@MOVERS
def test_copy_moves_whole_elements_of_16_bytes(variant: str) -> None:
    """A copy of one byte each would be the silent fallback."""
    cache = torch.randn(2, 3, dtype=torch.complex128)
    copy(variant, [cache], (0, 1))
    assert torch.equal(cache[0], cache[1])


@ATTENTION
@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"q": torch.zeros(3, 4)}, ValueError, "q: rank is 2"),
        ({"q": torch.zeros(3, 3, 8)}, ValueError, "Hq is 3"),
        ({"k_cache": torch.zeros(4, 5, 2, 16)}, ValueError, "k_cache: D is 16, q: D is 8"),
        ({"v_cache": torch.zeros(4, 5, 1, 8)}, ValueError, "v_cache: Hk is 1, k_cache: Hk is 2"),
        ({"kv_lens": torch.zeros(3, dtype=INT)}, ValueError, "kv_lens: B is 3"),
        ({"q_indptr": torch.zeros(2, dtype=INT)}, ValueError, "q_indptr: B is 1"),
        ({"q_indptr": torch.zeros(0, dtype=INT)}, ValueError, "q_indptr: B is -1"),
        ({"out": torch.zeros(3, 4, 6)}, ValueError, "out: Dv is 6, v_cache: Dv is 8"),
        ({"out": torch.zeros(4, 3, 8).transpose(0, 1)}, ValueError, "out: must be contiguous"),
        ({"lse": torch.zeros(4, 4)}, ValueError, "lse: T is 4, q: T is 3"),
        ({"lse": torch.zeros(3, 4).half()}, TypeError, "lse: wrong dtype"),
        ({"out": torch.zeros(3, 4, 8).half()}, TypeError, "out: dtype differs from that of"),
        ({"block_table": torch.zeros(2, 2)}, TypeError, "block_table: wrong dtype"),
        ({"block_table": torch.zeros(2, 4, dtype=INT)[:, ::2]}, ValueError,
         "block_table: last stride must be 1"),
    ],
)  # fmt: skip
def test_attention_refuses(
    variant: str, changes: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind) as caught:
        attend(variant, attention_args(**changes))
    assert str(caught.value).startswith("paged_attention: ")
    assert words in str(caught.value)


@ATTENTION
def test_attention_refuses_caches_without_heads(variant: str) -> None:
    none = torch.zeros(4, 5, 0, 8)
    with pytest.raises(ValueError, match="no multiple of Hk = 0"):
        attend(variant, attention_args(k_cache=none, v_cache=none))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"partial_out": torch.zeros(2, 3, 4, 6)}, "partial_out: Dv is 6"),
        ({"partial_lse": torch.zeros(3, 3, 4)}, "partial_lse: splits is 3, partial_out: splits is"),
        ({"partial_out": torch.zeros(0, 3, 4, 8), "partial_lse": torch.zeros(0, 3, 4)},
         "splits must be 1 to 65535"),
    ],
)  # fmt: skip
def test_split_kv_refuses_wrong_workspaces(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        attend("split_kv", attention_args(**changes))


def test_split_kv_refuses_dims_that_it_does_not_serve() -> None:
    def cut(args: dict[str, Any], d: int) -> dict[str, Any]:
        names = ("out", "partial_out", "q", "k_cache", "v_cache")
        return {**args, **{name: args[name][..., :d].contiguous() for name in names}}

    with pytest.raises(ValueError, match="multiple of 8 up to 256"):
        attend("split_kv", cut(attention_args(), 7))


def test_what_stops_a_launch_is_an_error_with_a_kind() -> None:
    assert issubclass(MODULE.LaunchError, RuntimeError)


@pytest.mark.skipif(not MODULE.checked, reason="the checked build sees accesses (nox -s sanitize)")
def test_two_blocks_that_write_one_page_race() -> None:
    caches = [torch.zeros(4, 2, 3)]
    with pytest.raises(MODULE.LaunchError, match=r"block \(1,0,0\).*'caches\[0\]'") as found:
        copy("naive", caches, (0, 2), (1, 2))
    assert "race" == found.value.kind
    assert 2 == str(found.value).count("copy_blocks/naive.cuh:")


def test_an_unknown_schedule_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no schedule 'sideways' \(round-robin, reverse, random"):
        MODULE.set_schedule("sideways")


# Empty, odd and large ------------------------------------------------------------------------


@MOVERS
@pytest.mark.parametrize("empty", ["T", "Hk", "D", "Dv", "both D", "P", "S"])
def test_append_of_nothing_does_nothing(variant: str, empty: str) -> None:
    size = {"T": 3, "P": 2, "S": 5, "Hk": 2, "D": 8, "Dv": 4}
    size |= {"D": 0, "Dv": 0} if empty == "both D" else {empty: 0}
    axes = {"k": "T Hk D", "v": "T Hk Dv", "k_cache": "P S Hk D", "v_cache": "P S Hk Dv"}
    args = {name: torch.ones([size[a] for a in ax.split()]) for name, ax in axes.items()}
    slots = torch.full((size["T"],), -1, dtype=INT)
    if empty in ("D", "Dv"):
        slots[0] = 4
    append(variant, {**args, "slots": slots})
    assert all(bool((t == 1).all()) for t in args.values())


@MOVERS
@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (3, 2, 0)])
def test_copy_of_nothing_does_nothing(variant: str, shape: tuple[int, ...]) -> None:
    copy(variant, [torch.zeros(shape), torch.zeros(shape)])
    copy(variant, [torch.zeros(3, 0)], (0, 1))
    copy(variant, [])
    copy(variant, [], (0, 1))


@ATTENTION
@pytest.mark.parametrize(("tokens", "sequences"), [(0, 0), (0, 2), (3, 2)])
def test_attention_of_nothing(variant: str, tokens: int, sequences: int) -> None:
    args = attention_args(
        out=torch.full((tokens, 4, 8), 7.0),
        lse=torch.full((tokens, 4), 7.0),
        partial_out=torch.zeros(2, tokens, 4, 8),
        partial_lse=torch.zeros(2, tokens, 4),
        q=torch.randn(tokens, 4, 8),
        block_table=torch.full((sequences, 0), -1, dtype=INT),
        kv_lens=torch.zeros(sequences, dtype=INT),
        q_indptr=torch.tensor([0, *[tokens] * sequences], dtype=INT),
    )
    out, lse = attend(variant, args)
    assert [0.0] * out.numel() == out.flatten().tolist()
    assert bool(lse.isneginf().all())


@ATTENTION
def test_attention_without_pages(variant: str) -> None:
    none = torch.zeros(0, 5, 2, 8)
    args = attention_args(k_cache=none, v_cache=none, kv_lens=torch.zeros(2, dtype=INT))
    out, lse = attend(variant, args)
    assert not bool(out.any())
    assert bool(lse.isneginf().all())


@MOVERS
@pytest.mark.parametrize("dtype", [torch.int8, torch.float16, torch.int32, torch.int64])
@pytest.mark.parametrize("offset", [0, 1, 3])
def test_copy_from_a_base_off_alignment(variant: str, dtype: torch.dtype, offset: int) -> None:
    memory = torch.arange(200).to(dtype)
    cache = memory[offset : offset + 3 * 33].view(3, 33)
    before = memory.clone()
    copy(variant, [cache], (2, 0))
    assert torch.equal(cache[2], cache[0])
    untouched = torch.ones(200, dtype=torch.bool)
    untouched[offset : offset + 33] = False
    assert torch.equal(before[untouched], memory[untouched])


@MOVERS
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("gap", [0, 3])
def test_append_of_a_view_off_alignment(variant: str, offset: int, gap: int) -> None:
    memory = torch.randn(200).half()
    k = memory[offset:].as_strided((3, 2, 8), (16 + gap, 8, 1), offset)
    args = append_args(k=k, v=k.clone(), k_cache=torch.zeros(2, 5, 2, 8).half())
    args["v_cache"] = torch.zeros(2, 5, 2, 8).half()
    append(variant, args)
    for cache in (args["k_cache"], args["v_cache"]):
        assert torch.equal(k[0], cache[1, 4])
        assert torch.equal(k[2], cache[0, 0])


@MOVERS
def test_more_layers_than_one_launch_takes(variant: str) -> None:
    layers = [torch.full((3, 1 + i % 5), float(i)) for i in range(131)]
    for layer in layers:
        layer[2] += 0.5
    copy(variant, layers, (2, 0))
    for i, layer in enumerate(layers):
        assert ({i + 0.5}, {float(i)}) == (set(layer[0].tolist()), set(layer[1].tolist()))


@MOVERS
def test_more_blocks_than_the_y_axis_of_a_grid_has(variant: str) -> None:
    tokens = 65_600
    values = torch.arange(tokens, dtype=torch.float32).view(tokens, 1, 1)
    cache = torch.zeros(tokens, 1, 1, 1)
    slots = torch.arange(tokens - 1, -1, -1, dtype=INT)
    append(
        variant,
        {"k": values, "v": values, "k_cache": cache, "v_cache": cache.clone(), "slots": slots},
    )
    assert torch.equal(values.flatten().flip(0), cache.flatten())


@MOVERS
def test_more_pairs_than_the_y_axis_of_a_grid_has(variant: str) -> None:
    pages = 2 * 65_600
    cache = torch.arange(pages, dtype=torch.int32).view(pages, 1)
    sources = torch.arange(0, pages, 2)
    pairs = torch.stack([sources, sources + 1], 1).to(INT)
    getattr(MODULE, f"copy_blocks_{variant}")([cache], pairs, 0)
    assert torch.equal(cache[::2], cache[1::2])


@ATTENTION
def test_pages_of_one_slot(variant: str) -> None:
    table = torch.randperm(20)[:14].view(2, 7).to(INT)
    args = attention_args(
        k_cache=torch.randn(20, 1, 2, 8), v_cache=torch.randn(20, 1, 2, 8), block_table=table
    )
    for actual, wanted in zip(attend(variant, args), expected(args), strict=True):
        torch.testing.assert_close(actual, wanted)


@ATTENTION
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_attention_on_bases_off_alignment(variant: str, dtype: torch.dtype) -> None:
    def shifted(t: Tensor) -> Tensor:
        memory = torch.zeros(t.numel() + 1, dtype=dtype)
        return memory[1:].view(t.shape).copy_(t)

    args = attention_args()
    args |= {name: shifted(args[name]) for name in ("q", "k_cache", "v_cache", "out")}
    out, lse = attend(variant, args)
    wanted = expected(args)
    torch.testing.assert_close(out, wanted[0])
    torch.testing.assert_close(lse, wanted[1], rtol=1e-5, atol=1e-5)


@ATTENTION
@pytest.mark.parametrize("splits", [1, 2, 3, 40])
def test_any_number_of_splits_gives_the_answer(variant: str, splits: int) -> None:
    """More splits than keys too: a split without keys weighs nothing."""
    args = attention_args(
        partial_out=torch.full((splits, 3, 4, 8), torch.nan),
        partial_lse=torch.full((splits, 3, 4), torch.nan),
    )
    for actual, wanted in zip(attend(variant, args), expected(args), strict=True):
        torch.testing.assert_close(actual, wanted)


# Schedules -----------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ops.OPS.values(), ids=str)
def test_the_order_of_threads_and_their_number_change_nothing(op: ops.Op) -> None:
    for name in (n for n in op.kernels if n.startswith("simt.")):
        seen = set()
        for policy, seed in SCHEDULES:
            for threads in (1, 2):
                MODULE.set_schedule(policy, seed, threads)
                arena = Arena(1 << 20)
                args, options = op.inputs(op.good, Fill(arena, 3))
                returned = op(**args, **options, kernel=name)
                many = (returned,) if isinstance(returned, Tensor) else returned or ()
                results = b"".join(t.numpy().tobytes() for t in many)
                seen.add((arena.base.numpy()[: arena.top].tobytes(), results))
        assert 1 == len(seen)


# What supports says --------------------------------------------------------------------------


BEYOND = {
    "copy_blocks.Case(page=(1, 1, 1, 1, 1, 1, 1, 1))",
    "paged_attention.Case(D=4100, Dv=4100)",
}
"""More axes, and more columns, than any kernel of ours takes."""


@pytest.mark.parametrize(
    "text",
    [
        "copy_blocks.Case(page=(1, 1, 1, 1, 1, 1, 1, 1))",
        "copy_blocks.Case(dtype='float64')",
        "copy_blocks.Case(dtype='int64', page=(3,))",
        "copy_blocks.Case(page=())",
        "paged_attention.Case(D=8, Dv=16)",
        "paged_attention.Case(D=12, Dv=12)",
        "paged_attention.Case(D=264, Dv=264)",
        "paged_attention.Case(D=4100, Dv=4100)",
        "paged_attention.Case(Hk=2, G=70)",
        "append_kv.Case(D=1, Dv=3, layout='shifted')",
    ],
)
def test_every_kernel_either_declines_with_a_reason_or_runs(text: str) -> None:
    """no third outcome."""
    op = ops.get(text.partition(".")[0])
    args, options = op.inputs(op.parse_case(text), Fill(Arena(8 << 20), 0))
    call = op.bind(**args, **options)
    ran = 0
    for name, kernel in op.kernels.items():
        if not name.startswith("simt."):
            continue
        reason = kernel.declines(call)
        assert reason is None or reason.strip(), name
        if reason is None:
            op(**args, **options, kernel=name)
            ran += 1
    assert ran or text in BEYOND
