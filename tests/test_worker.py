"""The disposable process: what it answers, how it ends, and that nothing of it stays behind."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import PLUGIN, watchdog

from yaie import ops
from yaie.arena import (
    INFINITE,
    LEFTOVERS,
    NAN,
    POISONS,
    Arena,
    Placement,
    Poison,
    Regions,
)
from yaie.check import Judge
from yaie.fill import Fill
from yaie.worker import Died, TimedOut, Worker, execution, nursery, process
from yaie.worker.execution import Heap, Job, Outcome, Raised, RefusalJob, Run

TIMEOUT_S = 5.0


@pytest.fixture(scope="module")
def worker(bad: None) -> Iterator[Worker]:
    with Worker(PLUGIN) as worker:
        yield worker


def job(kernel: str, regions: Regions, name: str = "paged_attention") -> Job:
    """A good call for a kernel, its arguments in region 0."""
    op, arena = ops.get(name), Arena(1 << 20)
    args, options = op.inputs(op.good, Fill(arena, 0))
    bytes_ = arena.bytes(NAN)
    regions[0][: len(bytes_)] = bytes_
    places = {
        name: [Placement.of(t, arena.base) for t in a] if isinstance(a, list)
        else Placement.of(a, arena.base)
        for name, a in args.items()
    }  # fmt: skip
    return Job(op.name, kernel, places, options, arena.extents, (Run(0, NAN),))


def asked(worker: Worker, kernel: str, timeout: float = TIMEOUT_S) -> Any:
    return worker.ask(job(kernel, worker.regions), timeout)


def test_a_job_is_answered_with_an_outcome_for_each_run(worker: Worker) -> None:
    (outcome,) = asked(worker, "good.attention")
    assert isinstance(outcome, Outcome)
    assert outcome.raised is None
    assert [(3, 4, 8), (3, 4)] == [place.shape for place in outcome.results]
    assert outcome.seconds > 0


def test_results_lie_in_the_region_that_both_processes_see(worker: Worker) -> None:
    (outcome,) = asked(worker, "good.attention")
    out, lse = (place.view(torch.from_numpy(worker.regions[0])) for place in outcome.results)
    assert bool(out.isfinite().all())
    assert bool(lse.isfinite().all())


def test_one_worker_serves_many_jobs_and_a_fresh_one_follows_a_dead_one(worker: Worker) -> None:
    asked(worker, "good.attention")
    first = worker.pid
    asked(worker, "good.attention")
    assert first == worker.pid
    asked(worker, "bad.abort")
    asked(worker, "good.attention")
    assert first != worker.pid


def test_an_exception_is_an_outcome_and_the_worker_lives_on(worker: Worker) -> None:
    asked(worker, "good.attention")
    first = worker.pid
    (outcome,) = asked(worker, "bad.raises")
    assert Raised("RuntimeError", "an illegal memory access was encountered") == outcome.raised
    assert first == worker.pid


def test_a_dead_worker_is_told_with_its_end_and_its_last_words(worker: Worker) -> None:
    asked(worker, "good.babbles")
    answer = asked(worker, "bad.abort")
    assert isinstance(answer, Died)
    assert "killed by SIGABRT" == answer.how
    assert answer.last_words.strip().endswith("an assertion of the kernel: i < n")
    assert "xxx" not in answer.last_words, "words of an earlier job"


def test_last_words_are_few(worker: Worker) -> None:
    answer = asked(worker, "bad.babbles_and_aborts")
    assert len(answer.last_words) <= 2000
    assert answer.last_words.strip().endswith("the last words")


def test_a_worker_that_does_not_answer_is_killed(worker: Worker) -> None:
    asked(worker, "good.attention")
    pid, started = worker.pid, time.monotonic()
    assert TimedOut(0.5) == asked(worker, "bad.infinite_loop", timeout=0.5)
    assert time.monotonic() - started < 3
    assert not Path(f"/proc/{pid}").exists()


def test_a_kernel_that_is_not_registered_in_the_worker_is_an_outcome(worker: Worker) -> None:
    (outcome,) = asked(worker, "bad.unheard_of")
    assert "ValueError" == outcome.raised.type
    assert "no kernel 'bad.unheard_of'" in outcome.raised.message


def test_a_call_with_arguments_that_the_door_refuses_is_an_outcome(worker: Worker) -> None:
    good = job("good.attention", worker.regions)
    wrong = {**good.args, "kv_lens": good.args["q_indptr"]}
    (outcome,) = worker.ask(
        Job(good.op, good.kernel, wrong, good.options, good.extents, good.runs), TIMEOUT_S
    )
    assert ("ValueError", True) == (
        outcome.raised.type,
        "kv_lens: B is 3" in outcome.raised.message,
    )


def test_a_case_that_no_gpu_memory_is_left_for_is_no_fault(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(execution, "_uploaded", full)
    near = job("good.attention", worker.regions)
    far = replace(near, device="cuda", extents=((0, 24 << 30),))
    outcomes = execution.execute(far, worker.regions)
    assert ["the GPU has no room for a case of 24 GiB"] == [o.raised.message for o in outcomes]
    with Judge(PLUGIN) as judge:
        monkeypatch.setattr(judge._worker, "begin", lambda job: None)
        monkeypatch.setattr(judge._worker, "finish", lambda timeout: outcomes)
        op = ops.paged_attention
        verdict = judge.judge(op, op.kernels["good.attention"], op.good)
    assert ("unsupported", outcomes[0].raised.message) == (verdict.status, verdict.reason)


def test_a_refusal_is_answered_with_what_was_raised(worker: Worker) -> None:
    answer = worker.ask(RefusalJob("append_kv", "torch.eager", 0), TIMEOUT_S)
    assert ("TypeError", False, False) == (answer.raised.type, answer.wrote, answer.entered)


def test_a_worker_that_cannot_start_says_why(bad: None) -> None:
    broken = Worker({**PLUGIN, "YAIE_PLUGINS": "no_such_plugin"})
    with watchdog(20), pytest.raises(RuntimeError, match=r"(?s)could not start.*no_such_plugin"):
        broken.ask(RefusalJob("append_kv", "torch.eager", 0), 10)
    broken.close()


def gone(pid: int) -> bool:
    """Whether a process ends and is reaped, which its parent does when it gets to it."""
    deadline = time.monotonic() + 2
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not Path(f"/proc/{pid}").exists()


def test_nothing_is_left_of_a_closed_judge(bad: None) -> None:
    """Neither processes nor files: a campaign opens many judges."""
    op = ops.get("append_kv")
    files = len(os.listdir("/proc/self/fd"))
    judge = Judge(PLUGIN, TIMEOUT_S)
    judge.judge(op, op.kernels["good.append"], op.good)
    worker, zygote = judge.worker_pid, judge._worker._zygote.pid
    assert Path(f"/proc/{worker}").exists()
    judge.close()
    assert gone(worker)
    assert gone(zygote)
    del judge
    assert files == len(os.listdir("/proc/self/fd"))


def test_a_second_judge_does_not_import_torch_again(worker: Worker) -> None:
    started = time.perf_counter()
    with Worker(PLUGIN) as second:
        assert second.ask(RefusalJob("append_kv", "torch.eager", 0), TIMEOUT_S).raised is not None
    assert time.perf_counter() - started < 1.5


def test_a_zygote_is_where_its_judge_is(
    bad: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Worker(PLUGIN) as worker:
        worker.ask(RefusalJob("append_kv", "torch.eager", 0), TIMEOUT_S)
        assert str(tmp_path) == os.readlink(f"/proc/{worker.pid}/cwd")


def test_a_nursery_that_died_is_replaced(worker: Worker) -> None:
    asked(worker, "good.attention")
    present = nursery._PRESENT.of({**os.environ, **PLUGIN})
    present._process.kill()
    present._process.wait()
    with Worker(PLUGIN) as other:
        assert other.ask(RefusalJob("append_kv", "torch.eager", 0), 30).raised is not None
    assert isinstance(asked(worker, "good.attention")[0], Outcome)


def test_a_zygote_that_hangs_while_it_loads_is_ended(
    bad: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hanging.py").write_text(
        "import os, pathlib, time\n"
        "pathlib.Path(__file__).with_suffix('.pid').write_text(str(os.getpid()))\n"
        "time.sleep(600)\n"
    )
    path = os.pathsep.join([str(tmp_path), PLUGIN["PYTHONPATH"]])
    monkeypatch.setattr(process, "START_S", 4.0)
    with (
        Worker({"YAIE_PLUGINS": "hanging", "PYTHONPATH": path}) as worker,
        pytest.raises(RuntimeError, match="no answer within 4 s"),
    ):
        worker.ask(RefusalJob("append_kv", "torch.eager", 0), TIMEOUT_S)
    assert gone(int((tmp_path / "hanging.pid").read_text()))


def test_a_nursery_that_cannot_start_says_why(bad: None, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no such library')")
    path = os.pathsep.join([str(tmp_path), PLUGIN["PYTHONPATH"]])
    with (
        Worker({**PLUGIN, "PYTHONPATH": path}) as worker,
        pytest.raises(RuntimeError, match=r"(?s)could not start.*no such library"),
    ):
        worker.ask(RefusalJob("append_kv", "torch.eager", 0), TIMEOUT_S)


def test_another_environment_has_another_nursery(worker: Worker) -> None:
    """Whatever is not ours may be read while torch is imported. Who serves is not disturbed."""
    asked(worker, "good.attention")
    pid = worker.pid
    first = nursery._PRESENT.of({**os.environ, "YAIE_PLUGINS": "x"})
    assert nursery._PRESENT.of({**os.environ, "YAIE_PLUGINS": "y"}) is first
    assert nursery._PRESENT.of({**os.environ, "OMP_NUM_THREADS": "3"}) is not first
    assert not first.alive()
    assert isinstance(asked(worker, "good.attention")[0], Outcome)
    assert pid == worker.pid


# What runs inside ----------------------------------------------------------------------------


def heap(size: int = 1 << 16, top: int = 100, poison: Poison = NAN) -> Heap:
    return Heap(torch.zeros(size, dtype=torch.uint8), top, poison)


def test_what_a_kernel_allocates_is_poisoned_and_guarded() -> None:
    room = heap()
    first, second = room.place(torch.empty(3)), room.place(torch.empty(5, dtype=torch.int8))
    assert bool(first.isnan().all())
    assert [-1] * 5 == second.tolist()
    ((start, end), (next_start, next_end)) = room.spans
    assert (12, 5) == (end - start, next_end - next_start)
    assert start - 100 >= 256
    assert next_start - end >= 256
    assert {0xFF} == set(room.base[100 : room.top].tolist())
    assert room.top - next_end >= 256


@pytest.mark.parametrize("poison", POISONS, ids=lambda p: p.name)
def test_an_allocation_is_poisoned_by_its_dtype_and_the_zones_around_it_are_not(
    poison: Poison,
) -> None:
    room = heap(top=102, poison=poison)
    for n, dtype in ((3, torch.bfloat16), (5, torch.float16), (1, torch.float32)):
        room.place(torch.empty(n, dtype=dtype))
        start, stop = room.spans[-1]
        assert poison.bytes(start, stop, dtype).tolist() == room.base[start:stop].tolist()
    edges = [102, *(at for span in room.spans for at in span), room.top]
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        assert poison.bytes(start, stop).tolist() == room.base[start:stop].tolist()


def test_an_allocation_of_infinities_holds_them() -> None:
    room = heap(poison=INFINITE)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        assert [torch.inf] * 3 == room.place(torch.empty(3, dtype=dtype)).tolist()


def leftovers(worker: Worker, kernel: str) -> tuple[Outcome, Outcome]:
    """What two runs of a kernel come to, the second one on leftovers of the first."""
    single = job(kernel, worker.regions)
    worker.regions[1][: single.top] = worker.regions[0][: single.top]
    first, second = worker.ask(replace(single, runs=(Run(0, NAN), Run(1, LEFTOVERS))), TIMEOUT_S)
    return first, second


def test_a_second_run_finds_results_out_of_place_and_workspaces_as_they_were(
    worker: Worker,
) -> None:
    first, second = leftovers(worker, "good.shows_what_it_was_given")
    assert first.heap == second.heap
    before, after = worker.regions[0], worker.regions[1]
    (work, stop), (out, out_stop), (lse, lse_stop), (shown, _) = first.heap[:4]
    left = after[shown : shown + stop - work + out_stop - out + lse_stop - lse]
    assert before[work:stop].tolist() == left[: stop - work].tolist()
    halves = np.roll(before[out:out_stop], (out_stop - out) // 2)
    assert halves.tolist() == left[stop - work :][: out_stop - out].tolist()
    assert before[out:out_stop].tolist() != halves.tolist()


def test_an_allocation_that_the_first_run_did_not_make_is_poisoned(worker: Worker) -> None:
    _, second = leftovers(worker, "good.allocates_more_each_time")
    start, stop = second.heap[0]
    fresh = worker.regions[1][start:stop].view(np.int32)
    assert {1} == set(fresh.tolist())


def test_an_allocation_keeps_shape_strides_and_dtype() -> None:
    like = torch.empty(4, 3, dtype=torch.bfloat16).T
    placed = heap().place(like)
    assert (like.shape, like.stride(), like.dtype) == (placed.shape, placed.stride(), placed.dtype)


@pytest.mark.parametrize("before", [0, 1])
def test_what_does_not_fit_is_a_memory_error_whether_first_or_later(before: int) -> None:
    room = heap()
    for _ in range(before):
        room.place(torch.empty(1))
    with pytest.raises(MemoryError, match="the kernel allocated"):
        room.place(torch.empty(1 << 16))


def test_a_result_from_elsewhere_is_copied_and_one_in_place_is_not() -> None:
    room = heap()
    inside = room.place(torch.empty(2)).fill_(7.0)
    assert (inside.data_ptr(), 1) == (
        room.adopt(inside).view(room.base).data_ptr(),
        len(room.spans),
    )
    outside = room.adopt(torch.tensor([3.0, 4.0]))
    assert [3.0, 4.0] == outside.view(room.base).tolist()
    assert 2 == len(room.spans)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: torch.empty(3),
        lambda x: torch.empty_like(x),
        lambda x: x.new_empty(3),
        lambda x: torch.empty_strided((3,), (2,)),
        lambda x: x.new_empty_strided((3,), (2,)),
        lambda x: torch.zeros(3),
        lambda x: x.new_full((3,), 2.0),
        lambda x: torch.ones_like(x),
    ],
)
def test_every_way_to_allocate_through_torch_is_guarded(make: Any) -> None:
    room, source = heap(), torch.ones(3)
    with execution._GuardedAllocations(room):
        made = make(source)
    assert 0 <= made.data_ptr() - room.base.data_ptr() < room.base.numel()


def test_filled_allocations_hold_what_they_were_filled_with() -> None:
    with execution._GuardedAllocations(heap()):
        assert [0.0, 0.0] == torch.zeros(2).tolist()
        assert [1.0] == torch.ones(1).tolist()
        assert [5.0] == torch.full((1,), 5.0).tolist()
