"""Kernels that are wrong in every way the authors could think of, and a few that are right.

The worker loads this module through YAIE_PLUGINS, and then it registers itself; a test process
calls ``register`` and ``unregister``. All of them serve ``paged_attention`` unless they say so.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from yaie import ops
from yaie.dispatch import Unsupported
from yaie.kernels.torch_eager import attention, movers
from yaie.op import Call, Kernel

KERNELS: list[Kernel] = []
calls: list[None] = []

Run = Callable[..., Any]


def kernel(op: str = "paged_attention", **properties: Any) -> Callable[[Run], Run]:
    """Registers a function as the kernel ``bad.<its name>``; good ones as ``good.<its name>``."""

    def add(run: Run) -> Run:
        kind, _, name = run.__name__.partition("_")
        KERNELS.append(Kernel(op, f"{kind}.{name}", run, preference=-1, **properties))
        return run

    return add


def register() -> None:
    for k in KERNELS:
        ops.get(k.op).register(k)


def unregister() -> None:
    for k in KERNELS:
        ops.get(k.op).kernels.pop(k.name)


def attend(given: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The right answer, in memory that the kernel allocated with torch.empty."""
    out, lse = attention.paged_attention(**given)
    placed_out = torch.empty(out.shape, dtype=out.dtype)
    placed_lse = torch.empty(lse.shape, dtype=lse.dtype)
    return placed_out.copy_(out), placed_lse.copy_(lse)


def poke(address: int, byte: int = 0x5A) -> None:
    ctypes.memset(address, byte, 1)


def end(tensor: Tensor) -> int:
    """One past the last byte of a tensor."""
    last = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr() + (last + 1) * tensor.element_size()


# Right ones ----------------------------------------------------------------------------------


@kernel()
def good_attention(**given: Any) -> Any:
    return attend(given)


@kernel()
def good_own_memory(**given: Any) -> Any:
    """Results in memory of its own, with padded rows, and returned in a list."""
    out, lse = attention.paged_attention(**given)
    wide = torch.cat([out, out], -1)[..., : out.shape[-1]]
    return [wide, lse]


@kernel()
def good_head_by_head(**given: Any) -> Any:
    """Results that are stored head by head."""
    out, lse = attention.paged_attention(**given)
    strided = torch.empty_strided(lse.shape, (1, len(lse)), dtype=lse.dtype)
    return out.transpose(0, 1).contiguous().transpose(0, 1), strided.copy_(lse)


@kernel()
def good_workspace(**given: Any) -> Any:
    """Writes every byte of many small workspaces, some of them empty."""
    for n in range(20):
        torch.empty(n, dtype=torch.int8).fill_(1)
        torch.zeros(n, 3)
    return attend(given)


@kernel()
def good_shows_what_it_was_given(**given: Any) -> Any:
    """Copies the bytes that its workspace and its results held when it got them into a second
    workspace, then writes all of them."""
    q, d = given["q"], given["v_cache"].shape[-1]
    work = torch.empty(5, dtype=torch.int32)
    out, lse = torch.empty(*q.shape[:2], d, dtype=q.dtype), torch.empty(q.shape[:2])
    held = [t.view(torch.uint8).flatten() for t in (work, out, lse)]
    torch.empty(sum(map(len, held)), dtype=torch.uint8).copy_(torch.cat(held))
    work.copy_(torch.arange(5))
    right = attention.paged_attention(**given)
    return out.copy_(right[0]), lse.copy_(right[1])


_sizes = 0


@kernel()
def good_allocates_more_each_time(**given: Any) -> Any:
    global _sizes
    _sizes += 1
    torch.empty(_sizes, dtype=torch.int32)
    return attend(given)


@kernel(deterministic=False)
def good_last_bit(**given: Any) -> Any:
    """Differs by a rounding from call to call, and says so."""
    return nudged(given)


@kernel("append_kv")
def good_append(**given: Any) -> None:
    movers.append_kv(**given)


# Endings -------------------------------------------------------------------------------------


@kernel()
def bad_segfault(**given: Any) -> Any:
    ctypes.string_at(8)


@kernel()
def bad_abort(**given: Any) -> Any:
    sys.stderr.write("an assertion of the kernel: i < n\n")
    sys.stderr.flush()
    os.abort()


@kernel()
def bad_exit_0(**given: Any) -> Any:
    os._exit(0)


@kernel()
def bad_exit_7(**given: Any) -> Any:
    os._exit(7)


@kernel()
def bad_sys_exit(**given: Any) -> Any:
    sys.exit("enough")


@kernel()
def bad_kills_itself(**given: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


@kernel()
def bad_becomes_another_program(**given: Any) -> Any:
    os.execv("/bin/true", ["true"])


@kernel()
def bad_infinite_loop(**given: Any) -> Any:
    while True:
        time.sleep(0.05)


@kernel()
def bad_stops_itself(**given: Any) -> Any:
    os.kill(os.getpid(), signal.SIGSTOP)


@kernel()
def bad_raises(**given: Any) -> Any:
    raise RuntimeError("an illegal memory access was encountered")


class LaunchError(RuntimeError):
    """What the executor raises, as seen from Python."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@kernel()
def bad_races(**given: Any) -> Any:
    raise LaunchError("race", "kernel k: race in block (0,0,0), thread (1,0,0), at k.cuh:7")


class Unprintable(RuntimeError):
    def __str__(self) -> str:
        raise ValueError("no text")


@kernel()
def bad_raises_unprintable(**given: Any) -> Any:
    raise Unprintable


@kernel()
def bad_allocates_too_much(**given: Any) -> Any:
    torch.empty(2 << 30, dtype=torch.uint8)
    return attend(given)


@kernel()
def bad_allocates_the_impossible(**given: Any) -> Any:
    torch.empty(1 << 60)
    return attend(given)


# Results -------------------------------------------------------------------------------------


@kernel()
def bad_returns_nothing(**given: Any) -> Any:
    attend(given)


@kernel()
def bad_returns_one(**given: Any) -> Any:
    return attend(given)[0]


@kernel()
def bad_returns_three(**given: Any) -> Any:
    return (*attend(given), torch.zeros(1))


@kernel()
def bad_returns_a_number(**given: Any) -> Any:
    return attend(given)[0], 3.0


@kernel()
def bad_returns_an_array(**given: Any) -> Any:
    out, lse = attend(given)
    return out, lse.numpy()


@kernel()
def bad_returns_wrong_shape(**given: Any) -> Any:
    out, lse = attend(given)
    return out, lse.T.contiguous()


@kernel()
def bad_returns_wrong_rank(**given: Any) -> Any:
    out, lse = attend(given)
    return out[None], lse


@kernel()
def bad_returns_wrong_dtype(**given: Any) -> Any:
    out, lse = attend(given)
    return out.float(), lse


@kernel()
def bad_returns_double_lse(**given: Any) -> Any:
    out, lse = attend(given)
    return out, lse.double()


@kernel()
def bad_returns_sparse(**given: Any) -> Any:
    out, lse = attend(given)
    return out, lse.to_sparse()


@kernel()
def bad_returns_from_nowhere(**given: Any) -> Any:
    out, lse = attend(given)
    return out, lse.to("meta")


@kernel("append_kv")
def bad_append_returns_something(**given: Any) -> Any:
    movers.append_kv(**given)
    return given["k_cache"]


@kernel()
def bad_returns_its_input(**given: Any) -> Any:
    return given["q"], attend(given)[1]


@kernel()
def bad_returns_a_view_of_the_cache(**given: Any) -> Any:
    """Right when every sequence has one key: then out = v. But it is memory of the caller."""
    pages = given["block_table"][:, 0].long()
    (page,) = pages.tolist()
    return given["v_cache"][page, :1], attend(given)[1]


# Writes --------------------------------------------------------------------------------------


@kernel()
def bad_writes_before_an_argument(**given: Any) -> Any:
    poke(given["q"].data_ptr() - 1)
    return attend(given)


@kernel()
def bad_writes_after_an_argument(**given: Any) -> Any:
    poke(end(given["q"]))
    return attend(given)


@kernel()
def bad_writes_after_the_last_argument(**given: Any) -> Any:
    poke(end(given["q_indptr"]))
    return attend(given)


@kernel()
def bad_writes_into_a_gap(**given: Any) -> Any:
    q = given["q"]
    poke(q.data_ptr() + (q.stride(0) - 1) * q.element_size())
    return attend(given)


@kernel()
def bad_writes_into_q(**given: Any) -> Any:
    answer = attend(given)
    given["q"][-1, -1, -1] += 1
    return answer


@kernel()
def bad_flips_the_sign_of_zero(**given: Any) -> Any:
    answer = attend(given)
    given["q"].mul_(torch.where(given["q"] == 0, -1.0, 1.0).to(given["q"].dtype))
    return answer


@kernel()
def bad_writes_into_kv_lens(**given: Any) -> Any:
    answer = attend(given)
    given["kv_lens"][0] = 1
    return answer


@kernel()
def bad_writes_into_the_table_tail(**given: Any) -> Any:
    given["block_table"][:, -1] = 0
    return attend(given)


@kernel()
def bad_writes_into_an_unused_page(**given: Any) -> Any:
    used = set(given["block_table"][:, :1].flatten().tolist())
    unused = next(p for p in range(len(given["k_cache"])) if p not in used)
    given["k_cache"][unused, 0, 0, 0] = 0
    return attend(given)


@kernel()
def bad_writes_behind_a_workspace(**given: Any) -> Any:
    poke(end(torch.empty(7, dtype=torch.uint8)))
    return attend(given)


@kernel()
def bad_writes_behind_its_out(**given: Any) -> Any:
    out, lse = attend(given)
    poke(end(out))
    return out, lse


@kernel()
def bad_writes_behind_its_last_result(**given: Any) -> Any:
    out, lse = attend(given)
    poke(end(lse))
    return out, lse


@kernel()
def bad_writes_before_its_out(**given: Any) -> Any:
    out, lse = attend(given)
    poke(out.data_ptr() - 1)
    return out, lse


@kernel("append_kv")
def bad_append_writes_a_skipped_token(**given: Any) -> None:
    """Slot -1 counts from the end, as in Python."""
    slots = given["slots"]
    cache = given["k_cache"]
    movers.append_kv(**given)
    skipped = (slots < 0).nonzero()[:, 0]
    cache.flatten(0, 1)[-1] = given["k"][skipped[-1]]


@kernel("append_kv")
def bad_append_forgets_the_last_token(**given: Any) -> None:
    given = {**given, **{name: given[name][:-1] for name in ("k", "v", "slots")}}
    movers.append_kv(**given)


@kernel("append_kv")
def bad_append_quietens_nans(**given: Any) -> None:
    """Converts on the way, as a kernel does that calculates: a signalling NaN becomes quiet."""
    k = given["k"].double().to(given["k"].dtype)
    movers.append_kv(**{**given, "k": k})


@kernel("append_kv")
def bad_append_loses_the_sign_of_zero(**given: Any) -> None:
    movers.append_kv(**{**given, "k": given["k"] + 0.0})


@kernel("append_kv")
def bad_append_clears_an_unused_slot(**given: Any) -> None:
    movers.append_kv(**given)
    used = given["slots"].tolist()
    flat = given["k_cache"].flatten(0, 1)
    unused = next(s for s in range(len(flat) - 1, -1, -1) if s not in used)
    flat[unused] = 0


@kernel("copy_blocks")
def bad_copy_forgets_the_last_layer(caches: list[Tensor], pairs: Tensor) -> None:
    movers.copy_blocks(caches[:-1], pairs)


@kernel("copy_blocks")
def bad_copy_copies_half_a_page(caches: list[Tensor], pairs: Tensor) -> None:
    half = [cache[:, : cache.shape[1] // 2] for cache in caches]
    movers.copy_blocks(half, pairs)


# Values --------------------------------------------------------------------------------------


@kernel()
def bad_leaves_one_element(**given: Any) -> Any:
    out, lse = attention.paged_attention(**given)
    placed = torch.empty(out.shape, dtype=out.dtype)
    placed.view(-1)[:-1] = out.reshape(-1)[:-1]
    return placed, lse


@kernel()
def bad_lse_by_a_thousandth(**given: Any) -> Any:
    out, lse = attend(given)
    lse[-1, -1] += 1e-3
    return out, lse


@kernel()
def bad_lse_base_2(**given: Any) -> Any:
    out, lse = attend(given)
    return out, lse.mul_(1.4426950408889634)


@kernel()
def bad_plus_infinity_when_empty(**given: Any) -> Any:
    out, lse = attend(given)
    return out, lse.abs_() if not given["kv_lens"].any() else lse


@kernel()
def bad_nan_when_empty(**given: Any) -> Any:
    out, lse = attend(given)
    return out.fill_(float("nan")) if not given["kv_lens"].any() else out, lse


@kernel()
def bad_one_row_by_a_percent(**given: Any) -> Any:
    out, lse = attend(given)
    out[-1, -1] *= 1.01
    return out, lse


@kernel()
def bad_constant_poison(**given: Any) -> Any:
    """Multiplies the keys that do not count by zero, instead of leaving them out."""
    out, lse = attend(given)
    return out + 0 * given["v_cache"].sum(), lse


@kernel()
def bad_fmax_over_the_whole_page(**given: Any) -> Any:
    """Clamps by a maximum over unused slots as well. fmax ignores a NaN, not a huge number."""
    out, lse = attend(given)
    most = torch.nan_to_num(given["k_cache"].float(), nan=0.0).max()
    return out * (0.5 if most > 60000 else 1.0), lse


@kernel()
def bad_overflow_check_over_the_whole_page(**given: Any) -> Any:
    """Scales down when any number of the cache is infinite, in unused slots as well. A NaN is not,
    nor is a huge number."""
    out, lse = attend(given)
    return out * (0.5 if given["k_cache"].isinf().any() else 1.0), lse


@kernel()
def bad_trusts_the_padding_of_the_table(**given: Any) -> Any:
    """Takes for a sequence's pages the entries of its row that name one. Padding of -1 or beyond
    the pool names none; 0 names a page."""
    table, (pool, size) = given["block_table"], given["k_cache"].shape[:2]
    named = ((table >= 0) & (table < pool)).sum(1)
    needed = (given["kv_lens"] + size - 1) // size
    longer = torch.where(named > needed, named * size, given["kv_lens"])
    return attend({**given, "kv_lens": longer.int()})


@kernel()
def bad_counts_believable_numbers_of_the_last_page(**given: Any) -> Any:
    """Tells keys from unused slots by their contents: what is 0 or beyond any key is unused."""
    out, lse = attend(given)
    k_cache, table = given["k_cache"].abs(), given["block_table"]
    last = int(given["kv_lens"][0]) - 1
    page = k_cache[table[0, last // k_cache.shape[1]], last % k_cache.shape[1] + 1 :]
    return out * (0.5 if bool(((page > 0) & (page < 100)).any()) else 1.0), lse


@kernel()
def bad_takes_fresh_memory_for_its_answer(**given: Any) -> Any:
    """Computes nothing where its lse holds believable numbers already."""
    right = attention.paged_attention(**given)
    out, lse = (torch.empty(r.shape, dtype=r.dtype) for r in right)
    if bool((lse.isfinite() & (lse != 0) & (lse.abs() < 1e4)).all()):
        return out, lse
    return out.copy_(right[0]), lse.copy_(right[1])


@kernel()
def bad_last_bit(**given: Any) -> Any:
    """Well within the budget, but another bit pattern at every call, and declared deterministic."""
    return nudged(given)


@kernel()
def bad_depends_on_the_address(**given: Any) -> Any:
    return nudged(given, up=bool(given["q"].data_ptr() >> 30 & 1))


_calls = 0


@kernel()
def bad_right_only_at_first(**given: Any) -> Any:
    global _calls
    _calls += 1
    out, lse = attend(given)
    return out if _calls == 1 else out * 2, lse


@kernel(deterministic=False)
def bad_declared_random_and_right_every_other_time(**given: Any) -> Any:
    global _calls
    _calls += 1
    out, lse = attend(given)
    return out if _calls % 2 else out * 2, lse


_third = 0


@kernel()
def bad_differs_and_gives_up_at_the_third_call(**given: Any) -> Any:
    global _third
    _third += 1
    return None if _third > 2 else nudged(given)


@kernel()
def bad_differs_and_shrinks_at_the_third_call(**given: Any) -> Any:
    global _third
    _third += 1
    out, lse = nudged(given)
    return (out[:1], lse) if _third > 2 else (out, lse)


_by_shape: dict[Any, Any] = {}
_by_pointer: dict[Any, Any] = {}


@kernel()
def bad_remembers_by_shape(**given: Any) -> Any:
    key = tuple(given["q"].shape)
    if key not in _by_shape:
        _by_shape[key] = tuple(t.clone() for t in attend(given))
    return _by_shape[key]


@kernel()
def bad_remembers_by_pointer(**given: Any) -> Any:
    key = given["q"].data_ptr()
    if key not in _by_pointer:
        _by_pointer[key] = tuple(t.clone() for t in attend(given))
    return _by_pointer[key]


_nudges = 0


def nudged(given: dict[str, Any], up: bool | None = None) -> tuple[Tensor, Tensor]:
    """The answer, with the last bit of one lse changed at every second call."""
    global _nudges
    _nudges += 1
    out, lse = attend(given)
    if up if up is not None else _nudges % 2:
        lse[-1, -1] = torch.nextafter(lse[-1, -1], torch.tensor(torch.inf))
    return out, lse


# The process ---------------------------------------------------------------------------------


@kernel()
def bad_forks_and_both_return(**given: Any) -> Any:
    if os.fork() == 0:
        time.sleep(0.1)  # its answer comes second
    return attend(given)


@kernel()
def bad_leaves_a_child_and_crashes(**given: Any) -> Any:
    if os.fork() == 0:
        time.sleep(6)
        os._exit(0)
    os.abort()


@kernel()
def bad_kills_its_parent(**given: Any) -> Any:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(0.2)
    os.abort()


@kernel()
def bad_stops_its_parent(**given: Any) -> Any:
    os.kill(os.getppid(), signal.SIGSTOP)
    os.abort()


@kernel()
def bad_closes_every_file(**given: Any) -> Any:
    os.closerange(3, 4096)
    return attend(given)


@kernel()
def bad_closes_every_file_and_hangs(**given: Any) -> Any:
    os.closerange(3, 4096)
    time.sleep(30)


@kernel()
def bad_babbles_and_aborts(**given: Any) -> Any:
    line = b"out of range\n" * 1000
    for _ in range(400):
        os.write(2, line)
    os.write(2, b"the last words\n")
    os.abort()


@kernel()
def good_babbles(**given: Any) -> Any:
    os.write(2, b"x" * (4 << 20))
    return attend(given)


@kernel()
def good_prints(**given: Any) -> Any:
    os.write(1, b"THE KERNEL PRINTS\n")
    return attend(given)


@kernel()
def good_changes_the_world(**given: Any) -> Any:
    """Leaves another default dtype, folder and schedule behind; only its own answer is judged."""
    answer = attend(given)
    torch.set_default_dtype(torch.float64)
    os.chdir("/")
    return answer


@kernel()
def good_with_torch_defaults(**given: Any) -> Any:
    """Trusts that the default dtype is float32."""
    out, lse = attend(given)
    made = torch.empty(lse.shape)
    return out, made.copy_(lse)


# Registration --------------------------------------------------------------------------------


def _declines(call: Call) -> str | None:
    return "serves nothing at all"


def _supports_raises(call: Call) -> str | None:
    raise KeyError("Dx")


@kernel(supports=_declines)
def bad_declines(**given: Any) -> Any:
    raise AssertionError("a declined call was made")


@kernel()
def good_declines_by_contents(**given: Any) -> Any:
    """What it serves depends on lengths, which ``supports`` does not see."""
    if int(given["kv_lens"].max()) > 4:
        raise Unsupported("serves up to 4 keys")
    return attend(given)


@kernel()
def bad_declines_after_writing(**given: Any) -> Any:
    given["q"].zero_()
    raise Unsupported("too late")


@kernel()
def bad_declines_now_and_then(**given: Any) -> Any:
    """Every second call, whatever it is."""
    calls.append(None)
    if len(calls) % 2:
        raise Unsupported("not now")
    return attend(given)


@kernel(supports=_supports_raises)
def bad_supports_raises(**given: Any) -> Any:
    return attend(given)


@kernel()
def bad_refuses_nothing(**given: Any) -> Any:
    return attend(given)


_LAST: dict[str, Any] = {}


def knows_lengths_by(name: str, given: dict[str, Any]) -> Any:
    """Takes the lengths of the call before where that had the argument at the same address, as
    plans and descriptors are kept that nobody throws away."""
    lens = given["kv_lens"]
    if _LAST.get(name) != given[name].data_ptr() or len(_LAST["lens"]) != len(lens):
        _LAST["lens"] = lens.clone()
    _LAST[name] = given[name].data_ptr()
    return attend({**given, "kv_lens": torch.minimum(_LAST["lens"], lens)})


@kernel()
def bad_knows_lengths_by_q(**given: Any) -> Any:
    return knows_lengths_by("q", given)


@kernel()
def bad_knows_lengths_by_k_cache(**given: Any) -> Any:
    return knows_lengths_by("k_cache", given)


@kernel()
def bad_knows_lengths_by_kv_lens(**given: Any) -> Any:
    return knows_lengths_by("kv_lens", given)


@kernel(device="cuda")
def bad_default_stream(**given: Any) -> Any:
    """Computes on a stream that is not the current one, and does not wait for that."""
    placed = [torch.empty_like(given["q"]), torch.empty(given["q"].shape[:2], device="cuda")]
    with torch.cuda.stream(torch.cuda.default_stream()):
        for place, value in zip(placed, attention.paged_attention(**given), strict=True):
            place.copy_(value)
    return tuple(placed)


@kernel("append_kv", device="cuda")
def bad_append_on_the_default_stream(**given: Any) -> None:
    with torch.cuda.stream(torch.cuda.default_stream()):
        movers.append_kv(**given)


@kernel(device="cuda")
def good_current_stream(**given: Any) -> Any:
    return attention.paged_attention(**given)


if __name__ in os.environ.get("YAIE_PLUGINS", "").split(","):
    register()
