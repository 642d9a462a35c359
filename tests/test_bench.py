"""The rows of a run: what is enumerated, judged, timed and believed, and that cheats are caught."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cheats
import numpy as np
import pytest
import torch

from benchmarks import __main__ as program
from benchmarks.__main__ import main as command_line
from benchmarks.__main__ import parser
from benchmarks.clock import LOST, Allowance, Timing
from benchmarks.conftest import chosen_rows, done_before, in_turn, peaks_before
from benchmarks.roofline import Peaks
from benchmarks.timing import gpu, rows, serving, traces
from benchmarks.timing.cpu import Cpu
from benchmarks.timing.inputs import TOO_LARGE, BenchFill, Inputs
from benchmarks.timing.options import given
from benchmarks.timing.progress import in_words, minutes
from benchmarks.timing.rows import Outcome, Row, Session
from benchmarks.timing.serving import Workload
from yaie import ops
from yaie.arena import Arena
from yaie.check import Judge
from yaie.op import Kernel, Op

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).resolve().parent
FAST = Peaks("cpu", dict.fromkeys(("copy", "read", "write", "cache"), 1e15), {"float32": 1e18})
SMALL = "paged_attention.Case(q_lens=(1, 1), kv_lens=(40, 33), Hk=2, G=2, dtype='float32')"


def workload(op: str = "paged_attention", case: str = SMALL) -> Workload:
    return Workload(op, "small", ops.get(op).parse_case(case))


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    cheats.register()
    path = os.pathsep.join([str(HERE), str(ROOT), os.environ.get("PYTHONPATH", "")])
    with Judge({"YAIE_PLUGINS": "cheats", "PYTHONPATH": path}, timeout=120) as judge:
        yield judge
    cheats.unregister()


def session(judge: Judge, **changes: Any) -> Session:
    machine = Cpu()
    machine.cache_bytes = 1 << 16  # few copies, so that tests are quick
    settings = {"peaks": FAST, "memory_bytes": 1 << 26, "allowance": Allowance(0.02, 5.0)}
    return Session(machine, judge, **{**settings, **changes})


def row(kernel: Kernel, load: Workload | None = None) -> Row:
    load = load or workload(kernel.op)
    return Row(ops.get(kernel.op), kernel, load)


def eager(op: str = "paged_attention") -> Kernel:
    return ops.get(op).kernels["torch.eager"]


def honest_seconds(judge: Judge) -> float:
    """On a machine under load a row may have no time to believe: then the next one does."""
    outcomes = (session(judge).run(row(eager())) for _ in range(5))
    return next(o.timing.seconds for o in outcomes if o.timing is not None)


def test_the_judge_finds_the_memory_given_back_that_timing_kept(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU the worker is another process: what this one's allocator keeps it cannot have, and a
    right kernel would be called a crash."""
    log: list[str] = []
    given = session(judge)
    monkeypatch.setattr(given.machine, "release", lambda: log.append("release"))
    judged = judge.judge
    monkeypatch.setattr(judge, "judge", lambda *args: log.append("judge") or judged(*args))
    for _ in range(2):  # the second verdict is known
        assert given.run(row(eager())).status in ("timed", "invalid")
    assert ["release", "judge"] == log


# Cheats --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cheats.on("cpu"))
def test_no_cheat_gets_a_better_time(
    judge: Judge, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "perf_counter_ns", time.perf_counter_ns)  # one cheat replaces it
    outcome = session(judge).run(row(cheats.kernel(name)))
    caught_by = cheats.KERNELS[name][1]
    if caught_by == "honest time":
        assert outcome.status in ("timed", "invalid")
        assert outcome.timing is None or outcome.timing.seconds > 0.5 * honest_seconds(judge)
        return
    assert ("wrong", None) == (outcome.status, outcome.timing)
    at_the_end = outcome.reason.startswith("timed outputs")
    assert at_the_end == (caught_by == "audit"), outcome.reason


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", cheats.on("cuda"))
def test_no_cheat_gets_a_better_time_on_a_gpu(
    judge: Judge, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.timing.gpu import Gpu

    monkeypatch.setattr(time, "perf_counter_ns", time.perf_counter_ns)
    machine = Gpu()
    machine.cache_bytes = 1 << 16
    on_gpu = Session(machine, judge, FAST, 1 << 28, Allowance(0.02, 5.0))
    outcome = on_gpu.run(row(cheats.kernel(name, "cuda")))
    if cheats.KERNELS[name][1] != "honest time":
        assert ("wrong", None) == (outcome.status, outcome.timing)
    elif outcome.timing is not None:
        honest = on_gpu.run(row(replace(eager(), device="cuda")))
        assert outcome.timing.seconds > 0.5 * honest.timing.seconds


def test_an_honest_kernel_gets_its_time(judge: Judge) -> None:
    outcome = session(judge).run(row(eager()))
    assert outcome.status == "timed", outcome.reason
    assert outcome.facts["audit"] == "the timed outputs are those of the reference"
    assert outcome.timing.seconds > 0
    assert outcome.timing.cold


def test_a_time_below_the_limit_is_invalid(judge: Judge) -> None:
    """As a kernel would show whose data a persisting cache has kept."""
    slow = Peaks("cpu", dict.fromkeys(("copy", "read", "write", "cache"), 1e3), {"float32": 1e18})
    outcome = session(judge, peaks=slow).run(row(eager()))
    assert ("invalid", None) == (outcome.status, outcome.timing)
    assert "less than the machine's limit" in outcome.reason


def test_limits_that_a_row_breaks_are_measured_again_and_the_better_count(judge: Judge) -> None:
    """A machine that others slowed down while its limits were measured."""
    slow = Peaks("cpu", dict.fromkeys(("copy", "read", "write", "cache"), 1e3), {"float32": 1e18})
    asked: list[Peaks] = []

    def again() -> Peaks:
        asked.append(FAST)
        return FAST

    run = session(judge, peaks=slow, measure_again=again)
    assert "timed" == run.run(row(eager())).status
    assert ([FAST], 1e15) == (asked, run.peaks.bandwidth(cold=True))
    still = session(judge, peaks=slow, measure_again=lambda: slow)
    assert ["invalid"] * 3 == [still.run(row(eager())).status for _ in range(3)]
    assert 0 == still.again_left


def test_a_kernel_that_only_knows_values_again_is_invalid(judge: Judge) -> None:
    class Remembering(Session):
        def _believed(self, row: Row, inputs: Inputs, audited: Any, facts: Any) -> Outcome:
            timing = replace(audited.timing, fresh=1e3 * max(audited.timing.samples))
            return super()._believed(row, inputs, replace(audited, timing=timing), facts)

    s = session(judge)
    outcome = Remembering(s.machine, judge, FAST, 1 << 26, Allowance(0.02, 5.0)).run(row(eager()))
    assert "invalid" == outcome.status
    assert "on values it has seen" in outcome.reason


# What happens to a row -----------------------------------------------------------------------


def test_the_executor_is_judged_and_never_timed(judge: Judge) -> None:
    kernel = ops.get("append_kv").kernels["simt.naive"]
    load = workload("append_kv", "append_kv.Case(T=4)")
    outcome = session(judge).run(row(kernel, load))
    assert ("executor", None) == (outcome.status, outcome.timing)
    assert outcome.facts["judged"] == "pass"


def test_movers_are_compared_byte_for_byte(judge: Judge) -> None:
    load = workload("append_kv", "append_kv.Case(T=16, P=8, S=4, dtype='bfloat16')")

    def forgets_the_last(**given: Any) -> None:
        if forgets_the_last.calls > 8:
            given["slots"] = given["slots"].clone()
            given["slots"][-1] = -1
        forgets_the_last.calls += 1
        eager("append_kv").run(**given)

    forgets_the_last.calls = 0
    kernel = replace(eager("append_kv"), run=forgets_the_last)
    s = session(judge)
    assert s.run(row(eager("append_kv"), load)).status == "timed"
    outcome = s.run(row(kernel, load))
    assert outcome.status == "wrong"
    assert "_cache is not what the op leaves there" in outcome.reason


def test_a_kernel_that_raises_has_an_error_and_no_time(judge: Judge) -> None:
    calls = [0]

    def run(**given: Any) -> Any:
        calls[0] += 1
        if calls[0] > 8:
            raise RuntimeError("no more")
        return eager().run(**given)

    outcome = session(judge).run(row(replace(eager(), run=run)))
    assert ("error", "RuntimeError: no more") == (outcome.status, outcome.reason)


def test_what_a_kernel_declines_and_what_the_budget_does_not_reach(judge: Judge) -> None:
    def supports(call: Any) -> str | None:
        return "not today" if call.axes["T"] else None

    kernel = replace(eager(), supports=supports)
    outcome = session(judge).run(row(kernel))
    assert ("declined", "not today") == (outcome.status, outcome.reason)
    outcome = session(judge, deadline=time.monotonic() - 1).run(row(eager()))
    assert outcome.status == "skipped"


def test_a_kernel_that_is_too_slow_is_not_waited_for(judge: Judge) -> None:
    calls = [0]

    def run(**given: Any) -> Any:
        calls[0] += 1
        time.sleep(0.3)
        return eager().run(**given)

    s = session(judge, allowance=Allowance(0.02, 1.0))
    assert s.run(row(replace(eager(), run=run))).status == "slow"
    assert calls[0] < 6


def test_what_is_too_large_for_the_reference_must_at_least_repeat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmarks.timing.inputs.REFERENCE_FLOPS", {"cpu": 0})
    op = ops.get("paged_attention")
    inputs = Inputs(op, workload().case, "cpu", 1 << 12, 1 << 26)
    rotation = inputs.rotation(eager())
    rotation.load()
    good = [tuple(r.clone() for r in call()) for call in rotation.calls]
    verdict = inputs.audit(eager(), good)
    assert ("pass", TOO_LARGE) == (verdict.status, verdict.reason)
    good[1][0][0, 0, 0] += 1
    assert "out of call 1 is not that of call 0" in inputs.audit(eager(), good).reason


# Inputs --------------------------------------------------------------------------------------


def copies(op: str, case: str) -> Inputs:
    op_ = ops.get(op)
    return Inputs(op_, op_.parse_case(case), "cpu", 1 << 14, 1 << 26)


def test_copies_outgrow_the_cache_and_have_addresses_of_their_own() -> None:
    inputs = copies("paged_attention", SMALL)
    assert inputs.cost.bytes * len(inputs.calls) >= 2 << 14
    addresses = [c.args["q"].data_ptr() for c in inputs.calls]
    assert len(set(addresses)) == len(addresses)
    for call in inputs.calls[1:]:
        assert torch.equal(call.args["q"], inputs.call.args["q"])


def test_refreshing_changes_values_alone_and_keeps_copies_alike() -> None:
    inputs = copies("paged_attention", SMALL.replace("(1, 1)", "(9, 9)"))
    rotation = inputs.rotation(eager())
    before = {n: t.clone() for n, t in inputs.call.args.items() if isinstance(t, torch.Tensor)}
    poison = before["k_cache"].isnan()
    rotation.refresh(0)
    after = inputs.call.args
    assert not torch.equal(before["q"], after["q"])
    for name in ("block_table", "kv_lens", "q_indptr"):
        assert torch.equal(before[name], after[name])
    assert torch.equal(poison, after["k_cache"].isnan())
    for call in inputs.calls[1:]:
        assert torch.equal(_bits(call.args["k_cache"]), _bits(after["k_cache"]))
    out, _ = eager().run(**inputs.call.args, **inputs.call.options)
    assert out.isfinite().all()


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(torch.uint8)


def test_the_audit_has_other_contents_of_the_same_shapes() -> None:
    inputs = copies("paged_attention", SMALL)
    rotation = inputs.rotation(eager())
    timed = inputs.call.args["q"].clone()
    rotation.load()
    assert not torch.equal(timed, inputs.call.args["q"])
    results = [call() for call in rotation.calls]
    assert inputs.audit(eager(), results).receipt.used <= 1.0
    results[0][0].mul_(1.5)
    for r in results[1:]:
        r[0].copy_(results[0][0])
    assert inputs.audit(eager(), results).check == "timed outputs"


def test_rows_of_large_inputs_do_not_repeat() -> None:
    """A key that occurs 32 times brings 32 times the same rounding error: right kernels fail."""
    keys = BenchFill(Arena(1 << 26), 0).normal(20_000, 8, 128)
    assert len({row.tobytes() for row in keys.numpy().reshape(-1, 8 * 128)}) == len(keys)


def test_memory_bounds_the_copies() -> None:
    op = ops.get("paged_attention")
    case = workload().case
    size = Inputs(op, case, "cpu", 1, 1 << 26)._timed.base.numel()
    assert len(Inputs(op, case, "cpu", 1 << 30, 12 * size).calls) == 10
    assert len(Inputs(op, case, "cpu", 1 << 30, 1).calls) == 1


# Reducing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", serving.load(), ids=lambda w: f"{w.op}-{w.name}")
def test_what_is_judged_is_the_same_workload_but_smaller(load: Workload) -> None:
    if load.large or not serving.is_quick(load):
        pytest.skip("the small ones show it, and take no minutes")
    op = ops.get(load.op)
    case = rows.reduced(op, load.case)
    assert op.cost(case).bytes <= max(rows.JUDGED_ARENA, 1)
    for name in ("S", "Hk", "Hq", "G", "D", "Dv", "V", "dtype", "window", "softcap", "page"):
        assert getattr(load.case, name, None) == getattr(case, name, None)


def test_reducing_keeps_the_first_and_the_last_sequence() -> None:
    assert (1, 5) == rows._every_other((1, 2, 3, 4, 5))
    assert (1, 3, 6) == rows._every_other((1, 2, 3, 4, 5, 6))
    op = ops.get("paged_attention")
    mixed = op.Case(q_lens=(1,) * 62 + (512,), kv_lens=(4000,) * 63, Hk=8, G=4, D=128, Dv=128)
    case = rows.reduced(op, mixed)
    assert case.q_lens[-1] > 1 == case.q_lens[0]


# Workloads -----------------------------------------------------------------------------------


def test_every_workload_is_a_case_with_a_source() -> None:
    loads = serving.load()
    assert all(isinstance(w.case, ops.get(w.op).Case) and w.source for w in loads)
    assert {w.op for w in loads} == set(ops.OPS)
    ours = {w.name for w in loads if w.source != "the op's page"}
    assert len(ours) > 30
    assert any("128k" in name for name in ours)


def test_a_mix_weighs_its_workloads_by_steps_and_layers() -> None:
    weights = {(w.op, w.name): w.weights["chat"] for w in serving.load() if "chat" in w.weights}
    assert weights["paged_attention", "llama3-8b decode, 64 ragged sequences"] == 900 * 32
    assert weights["append_kv", "llama3-8b append 574 tokens"] == 100 * 32
    assert weights["sample", "llama3-vocabulary batch 64, top_k 50, top_p 0.9"] == 1000
    assert len(weights) == 5


def test_lengths() -> None:
    model = {"S": 16, "Hk": 8}
    assert (7, 7, 5) == serving.lengths("7x2 5", model)
    assert (16, 8, 4) == serving.lengths(["S", "Hk", 4], model)
    drawn = {"lognormal": {"median": 100, "sigma": 1.0, "count": 500, "most": 900, "seed": 1}}
    values = serving.lengths(drawn, model)
    assert values == serving.lengths(drawn, model)
    assert 80 < sorted(values)[250] < 125
    assert max(values) <= 900
    drawn = {"loguniform": {"least": 100, "most": 1600, "count": 500, "seed": 1}}
    values = serving.lengths(drawn, model)
    assert 100 <= min(values) and max(values) <= 1600
    assert all(100 < sum(100 << i <= n < 200 << i for n in values) < 150 for i in range(4))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("paged_attention", "paged_atention"), "did you mean paged_attention"),
        (("llama3-8b", "llama4-8b"), "did you mean llama3-8b"),
        (("kv_lens", "kv_len"), "did you mean kv_lens"),
        (("models =", "models"), "serving.toml"),
    ],
)
def test_workloads_that_make_no_sense_are_errors(
    tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    text = (serving.FOLDER / "serving.toml").read_text()
    start = text.index("[[workload]]")
    (tmp_path / "models.toml").write_text((serving.FOLDER / "models.toml").read_text())
    (tmp_path / "serving.toml").write_text(text[start:].replace(*change))
    with pytest.raises(ValueError, match=words):
        serving.load(tmp_path)


def trace(definition: str, axes: dict[str, int], **inputs: Any) -> str:
    work = {"uuid": "0123456789", "axes": axes, "inputs": inputs}
    return json.dumps({"definition": definition, "workload": work, "solution": None}) + "\n"


def test_flashinfer_bench_workloads_are_read(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.numpy").save_file
    (tmp_path / "blob").mkdir()
    save_file({"kv_indptr": np.int32([0, 3, 3, 10])}, tmp_path / "blob" / "x.safetensors")
    stored = {"type": "safetensors", "path": "./blob/x.safetensors", "tensor_key": "kv_indptr"}
    file = tmp_path / "workloads" / "decode.jsonl"
    file.parent.mkdir()
    decode, prefill = (
        "gqa_paged_decode_h32_kv8_d128_ps1",
        "gqa_paged_prefill_causal_h8_kv1_d128_ps1",
    )
    file.write_text(
        trace(decode, {"batch_size": 3, "num_kv_indices": 10}, kv_indptr=stored)
        + trace(prefill, {"len_indptr": 3, "total_q": 9, "num_kv_indices": 21})
        + trace("rmsnorm_h4096", {"batch_size": 3})
    )
    (first, second), left = traces.flashinfer_bench(file)
    assert (3, 0, 7) == first.case.kv_lens
    assert ((1, 1, 1), 8, 4, 128) == (first.case.q_lens, first.case.Hk, first.case.G, first.case.D)
    assert "as recorded" in first.source
    assert ((5, 4), (11, 10)) == (second.case.q_lens, second.case.kv_lens)
    assert "split evenly" in second.source
    assert ["rmsnorm_h4096 is none of our ops"] == [line.rpartition(": ")[2] for line in left]
    file.write_text("{}\n")
    with pytest.raises(ValueError, match=r"decode\.jsonl:1"):
        traces.flashinfer_bench(file)


DECODE = "gqa_paged_decode_h32_kv8_d128_ps1"
FEW = {"batch_size": 3, "num_kv_indices": 10}
BLOB = {"type": "safetensors", "path": "x.safetensors", "tensor_key": "kv_indptr"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "no traces in it"),
        ("[1]\n", "an object with a definition"),
        (trace(DECODE.replace("kv8", "kv0"), FEW), "32 heads on 0 KV heads"),
        (trace(DECODE.replace("h32", "h33"), FEW), "33 heads on 8 KV heads"),
        (trace(DECODE, [1]), "axes is"),
        (trace(DECODE, {"batch_size": -2}), "batch_size is -2"),
        (trace(DECODE, {"batch_size": 0}), "batch_size is 0"),
        (trace(DECODE, {"batch_size": 3}), "num_kv_indices is None"),
        (trace(DECODE, FEW, kv_indptr=3), "kv_indptr is 3"),
        (trace(DECODE, FEW, kv_indptr={"type": "safetensors"}), "no path and tensor_key"),
        (trace(DECODE, FEW, kv_indptr=BLOB), "x.safetensors: kv_indptr"),
    ],
)
def test_what_is_no_trace_is_said(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"\x00\x01\x02")
    file = tmp_path / "traces.jsonl"
    file.write_text(line)
    with pytest.raises(ValueError, match=words):
        traces.flashinfer_bench(file)
    with pytest.raises(ValueError, match="absent"):
        traces.flashinfer_bench(tmp_path / "absent.jsonl")


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [(0, 0, 0), (1, 3, 1), (3, 1, 1), (0, 3, 3), (3, 0, 3), (2, 3, 2), (1, 2, 1), (0, -9, 1)],
)
def test_a_failure_counts_more_than_too_little(one: int, other: int, both: int) -> None:
    assert both == program.worse(one, other)


def test_a_short_budget_reaches_every_op() -> None:
    ordered = in_turn(serving.load())
    count = len({w.op for w in ordered})
    assert len({w.op for w in ordered[:count]}) == count
    assert sorted(map(repr, ordered)) == sorted(map(repr, serving.load()))


# The surface ---------------------------------------------------------------------------------


SAMPLES = [1.23456789e-6, 4e-9, 3.14159265358979e-3, 7e2]
INJECTED = f"""
import pytest
from benchmarks.bench_ops import CLOCK, inject

@pytest.mark.benchmark(timer=CLOCK)
def test_injected(benchmark):
    inject(benchmark, {SAMPLES})
"""


def test_pytest_benchmark_has_exactly_our_samples(tmp_path: Path) -> None:
    """In a process of its own: in a worker of xdist pytest-benchmark switches itself off."""
    test, out = tmp_path / "test_injected.py", tmp_path / "out.json"
    test.write_text(INJECTED)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"]
    outside = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, f"--rootdir={tmp_path}", f"--benchmark-json={out}", str(test)],
        env={**outside, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    (found,) = json.loads(out.read_text())["benchmarks"]
    assert sorted(SAMPLES) == sorted(found["stats"]["data"])


def test_a_lost_device_is_left_to_another_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    statuses = [LOST, -6, 1]

    def process(*args: Any, **options: Any) -> Any:
        return subprocess.CompletedProcess(args, statuses.pop(0))

    monkeypatch.setattr(program.subprocess, "run", process)
    args, rest = program.parser().parse_known_args([f"--out={tmp_path}"])
    assert (1, []) == (program.time_rows(args, rest, "run"), statuses)


def test_the_rows_are_recorded_under_the_command_that_was_typed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[str] = []

    def process(*args: Any, env: dict[str, str], **options: Any) -> Any:
        given.append(env["YAIE_COMMAND"])
        return subprocess.CompletedProcess(args, 1)

    monkeypatch.delenv("YAIE_COMMAND", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(program.subprocess, "run", process)
    arguments = ["--op", "rope*", f"--out={tmp_path}/out", f"--records={tmp_path}/none"]
    assert 1 == program.main(arguments)
    assert ["python -m benchmarks --op 'rope*' --out=out --records=none"] == given


def test_a_row_that_took_its_process_down_is_a_crash() -> None:
    names = {"op": "a", "kernel": "k", "workload": "w"}
    peaks = {"device": "cpu", "memory": {}, "matmul": {}, "floor": {}}
    history = [
        {"kind": "run"},
        {"kind": "peaks", **peaks},
        {"kind": "attempt", **names},
        {"kind": "timing", **names, "status": "timed", "seconds": 1.0},
        {"kind": "attempt", **names, "workload": "v"},
        {"kind": "timing", **names, "workload": "u", "status": "skipped"},
    ]
    done = done_before(history)
    assert {"w": "timed", "v": "crash"} == {key[2]: data["status"] for key, data in done.items()}
    assert Peaks(**peaks) == peaks_before(history)


def test_rows_in_words() -> None:
    data = {"status": "timed", "seconds": 4.7e-5, "limit": 4.7e-6, "spread": 0.003, "cold": True}
    data |= {"bound": "memory", "unsteady": False}
    assert "47 µs ± 0.3%, 10% of the memory limit, cold" == in_words(data)
    assert "declined: no" == in_words({"status": "declined", "reason": "no\nmore"})
    assert "2:05" == minutes(125)


def test_a_record_holds_all_that_a_report_needs(judge: Judge) -> None:
    r = row(eager())
    outcome = session(judge).run(r)
    data = json.loads(json.dumps(rows.record(r, outcome, "cpu")))
    assert data["seconds"] == outcome.timing.seconds
    assert data["samples"] == list(outcome.timing.samples)
    assert isinstance(outcome.timing, Timing)
    assert "peer" == data["role"]
    assert data["command"].startswith("python -m benchmarks --op paged_attention")


# The command ---------------------------------------------------------------------------------


def benchmarks(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """`python -m benchmarks` with its files in a folder of their own."""
    command = [sys.executable, "-m", "benchmarks", "--records", str(folder / "records")]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [*command, "--out", str(folder / "out"), *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_whole_command(tmp_path: Path) -> None:
    options = ("--op", "append_kv", "--workload", "llama3-70b/8 append 64*", "--budget", "120")
    done = benchmarks(tmp_path, *options)
    # On a busy machine the run is rightly not trusted; all the rest is there.
    assert done.returncode in (0, 3), done.stdout + done.stderr
    assert re.search(r"of [35], ", done.stderr)  # 5 where there is a GPU
    out = tmp_path / "out"
    files = {"bench.html", "bench.md", "timings.csv", "timings.jsonl", "benchmark.json"}
    assert files <= {p.name for p in out.iterdir()}
    (test,) = json.loads((out / "benchmark.json").read_text())["benchmarks"]
    (file,) = (tmp_path / "records").rglob("*.jsonl")
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert ["run", "peaks"] == [r["kind"] for r in records][:2]
    timed = [r for r in records if r.get("status") == "timed"]
    executors = [r for r in records if r.get("status") == "executor"]
    assert (["torch.eager"], 2) == ([r["kernel"] for r in timed], len(executors))
    assert sorted(test["stats"]["data"]) == sorted(timed[0]["samples"])
    assert test["extra_info"]["method"] == timed[0]["method"]

    again = benchmarks(tmp_path, *options, "--run", records[0]["run"], "--no-report")
    assert again.returncode == 0, again.stdout + again.stderr
    assert len(records) == len(file.read_text().splitlines())  # nothing was timed again
    (replayed,) = json.loads((out / "benchmark.json").read_text())["benchmarks"]
    assert test["stats"]["data"] == replayed["stats"]["data"]


def test_a_peer_that_is_wrong_is_a_finding_and_no_failure(tmp_path: Path) -> None:
    """torch.multinomial draws other numbers than the op says."""
    options = ("--op", "draw_tokens", "--kernel", "torch.*", "--workload", "llama3*batch 1")
    done = benchmarks(tmp_path, *options, "--budget", "60")
    assert done.returncode in (0, 3), done.stdout + done.stderr
    assert "torch.multinomial: wrong" in done.stderr
    assert "torch.multinomial" in (tmp_path / "out" / "bench.md").read_text()


def test_a_quick_run_has_the_lightest_workloads_of_every_op() -> None:
    workloads = serving.load()
    chosen = serving.quick(workloads)
    assert [w for w in workloads if w in chosen] == chosen
    assert {w.op for w in chosen} == set(ops.OPS)
    for op in ops.OPS:
        bytes_ = [ops.get(op).cost(w.case).bytes for w in chosen if w.op == op]
        assert 1 <= len(bytes_) <= serving.QUICK_OF_AN_OP and max(bytes_) <= serving.QUICK_BYTES


class Options:
    """What conftest reads of pytest's configuration."""

    def __init__(self, **given: Any) -> None:
        globs = ("op", "kernel", "workload")
        self._given = {k: [v] if k in globs and isinstance(v, str) else v for k, v in given.items()}

    def getoption(self, name: str) -> Any:
        return self._given.get(name.removeprefix("--"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"op": "paged_atention"}, "did you mean paged_attention"),
        ({"op": "append_kv", "kernel": "torch.eagr"}, "did you mean torch.eager"),
        ({"workload": "lama3-8b fork*"}, "nothing fits --workload"),
        ({"op": "append_kv", "kernel": "simt.*"}, None),
        ({"op": "append_kv", "kernel": "reference"}, "nothing fits --kernel"),
        ({"op": ["append_kv", "rope"], "workload": ["*append*", "*prefill*"]}, None),
        ({"op": ["append_kv", "rop"]}, "did you mean rope"),
    ],
)
def test_what_fits_nothing_is_an_error(options: dict[str, Any], words: str | None) -> None:
    if words is None:
        rows = chosen_rows(Options(**options), "cpu")
        asked = options["op"] if isinstance(options["op"], list) else [options["op"]]
        assert {row.op.name for row in rows} == set(asked)
        return
    with pytest.raises(ValueError, match=words):
        chosen_rows(Options(**options), "cpu")


def test_a_run_that_is_not_there_cannot_be_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 2 == command_line(["--records", str(tmp_path), "--run", "never"])
    assert "there is no run never" in capsys.readouterr().err


def test_a_glob_that_fits_nothing_is_wrong_usage(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folders = ["--records", str(tmp_path), "--out", str(tmp_path / "out")]
    assert 2 == command_line([*folders, "--op", "copy_block"])
    assert "did you mean copy_blocks" in "".join(capfd.readouterr())


def test_only_what_says_something_is_passed_on_to_the_rows() -> None:
    typed = ["--op", "rope*", "--op", "greedy", "--kernel", "*", "--ncu", "--flashinfer", "a b"]
    words = ["--op=rope*", "--op=greedy", "--kernel=*", "--ncu", "--flashinfer=a b"]
    assert words == given(parser().parse_args(typed))


def test_every_line_of_the_goals_fits_something() -> None:
    args, rest = parser().parse_known_args([f"@{serving.FOLDER / 'goals.args'}"])
    assert not rest
    assert {"cuda.mma", "torch.compile", "torch.sdpa_flash"} < set(args.kernel)
    rows = chosen_rows(Options(op=args.op, workload=args.workload, profile="full"), "cuda")
    assert {row.op.name for row in rows} > {"append_kv", "paged_attention", "varlen_attention"}


@pytest.mark.parametrize(
    ("bursts", "estimate"),
    [
        ([(True, [1e-6, 1e-6, 9e-3, 1e-6, 1e-6])], 1e-6),
        ([(False, [5e-3] * 5), (True, [2e-6] * 5)], 2e-6),
        ([(False, [5e-3] * 5)] * 3, 5e-3),
        ([(False, [1.0] * 5)], 1.0),
    ],
    ids=["one call compiles", "the host was late", "never held", "long"],
)
def test_an_estimate_is_of_a_burst_that_was_held(
    monkeypatch: pytest.MonkeyPatch, bursts: list[tuple[bool, list[float]]], estimate: float
) -> None:
    left = iter(bursts)

    def run(stream: gpu.Stream, turn: Any, keep: bool) -> tuple[list[float], list[Any]]:
        held, seconds = next(left)
        stream.ran_dry += not held
        return seconds, []

    monkeypatch.setattr(gpu.Stream, "_run", run)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert gpu.Gpu.estimate(object.__new__(gpu.Gpu), [lambda: None]) == estimate
    assert next(left, None) is None


def test_a_pass_holds_the_stream_a_call_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[int] = []

    def run(stream: gpu.Stream, turn: Any, keep: bool) -> tuple[list[float], list[Any]]:
        turns.append(len(turn))
        return [1e-3 * call() for call in turn], [call() for call in turn]

    monkeypatch.setattr(gpu.Stream, "_run", run)
    seconds, results = gpu.Stream([lambda: 1, lambda: 2, lambda: 6]).once()
    assert (turns, results) == ([1, 1, 1], [1, 2, 6])
    assert seconds == pytest.approx(3e-3)


def _of_the_host(op: Op) -> bool:
    """Whether all that computes it is a structure in the host's memory."""
    return all(k.device == "cpu" or k.name == "reference" for k in op.kernels.values())


def test_rows_that_have_no_time_come_last() -> None:
    executors = [row.role == "executor" for row in chosen_rows(Options(op="copy_blocks"), "cpu")]
    assert {False, True} == set(executors)
    assert executors == sorted(executors)


def test_every_op_kernel_and_workload_is_a_row() -> None:
    found = chosen_rows(Options(profile="full"), "cuda")
    on_gpu = {name for name, op in ops.OPS.items() if not _of_the_host(op)}
    assert {w.name for w in serving.load() if w.op in on_gpu} == {r.workload.name for r in found}
    assert len({r.id for r in found}) == len(found)
    names = {(r.op.name, r.kernel.name) for r in found}
    assert {(name, "torch.eager") for name in on_gpu} <= names
    assert not any(r.kernel.device == "cpu" or r.role == "reference" for r in found)
    quick, full = (chosen_rows(Options(profile=p), "cpu") for p in ("quick", "full"))
    assert 0 < len(quick) < len(full)
    assert {r.op.name for r in full} == set(ops.OPS)
    assert all(serving.is_quick(r.workload) for r in quick)
    places = [(r.op.name, r.workload.name) for r in quick if r.role != "executor"]
    changes = sum(a != b for a, b in itertools.pairwise(places))
    assert len(set(places)) == changes + 1  # those that are timed on one workload follow each other


def test_shapes_that_depend_on_the_seed_are_audited_on_the_timed_contents() -> None:
    case = next(iter(ops.get("match_tree").workloads.values()))
    op = ops.get("match_tree")
    inputs = Inputs(op, replace(case, requests=8, length=64, walks=4), "cpu", 1 << 12, 1 << 26)
    rotation = inputs.rotation(eager("match_tree"))
    rotation.load()
    results = [r if isinstance(r, tuple) else (r,) for r in (call() for call in rotation.calls)]
    verdict = inputs.audit(eager("match_tree"), results)
    assert verdict.ok, verdict.reason
    assert inputs.fresh or "shapes vary by seed" in verdict.reason
