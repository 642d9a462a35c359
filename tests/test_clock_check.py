"""The table that sets the clock beside CUPTI and nvbench; the GPU's part runs on GPUs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from benchmarks.timing import check
from benchmarks.timing.check import Line


def line(ours: float = 1.01e-5, **others: float) -> Line:
    return Line("copy", "events, CUDA graph", ours, 0.002, others)


def test_a_pitch_is_from_start_to_start() -> None:
    spans = [(0.0, 3.0), (4.0, 7.0), (8.0, 11.0)]
    assert 4.0 == check.pitch(spans, 3)
    assert 11.0 == check.pitch(spans, 1)


def test_the_exit_status_says_whether_all_agree() -> None:
    assert 0 == check.verdict([line(cupti_pitch=1e-5)])
    assert 1 == check.verdict([line(cupti_pitch=1e-5), line(1.03e-5, cupti_pitch=1e-5)])
    assert 0 == check.verdict([line(1.03e-5, cupti_pitch=1e-5, nvbench=1.02e-5)])
    assert 0 == check.verdict([line(1.03e-5, cupti_pitch=1.03e-5, nvbench=1e-5)])
    assert 1 == check.verdict([line(1.05e-5, cupti_pitch=1.02e-5, nvbench=1e-5)])
    assert 1 == check.verdict([line(0.97e-5, cupti_pitch=1e-5, nvbench=1e-5)])
    assert 3 == check.verdict([line(cupti_pitch=1e-5), line()])


def test_the_table_has_a_line_a_kernel_and_a_dash_for_what_is_not_there() -> None:
    *_, last = check.table([line(cupti_pitch=1e-5)]).splitlines()
    assert "| copy | events, CUDA graph | 10.10 | 0.2% | – | 10.00 | – | +1.0% |" == last


def test_the_means_of_nvbench_are_read() -> None:
    def state(**means: float) -> dict[str, object]:
        data = [
            {"tag": tag, "data": [{"name": "value", "type": "float64", "value": str(value)}]}
            for tag, value in means.items()
        ]
        return {"summaries": [*data, {"tag": "nv/cold/sample_size", "data": []}]}

    first = state(**{"nv/cold/time/gpu/mean": 5e-6, "nv/batch/time/gpu/mean": 4e-6})
    report = {"benchmarks": [{"states": [first]}, {"states": [{"summaries": None}]}]}
    assert [5e-6, None] == check.read_nvbench(report)


def test_nvbench_is_given_graphs_of_whole_rounds_that_take_5_ms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(check, "Gpu", lambda: SimpleNamespace(cache_bytes=50 << 20))
    short = next(s for s in check.subjects() if s.name == "copy of 4 MiB")
    few = check.clock.copies(short.bytes, check.Gpu().cache_bytes, check.MOST_COPIES)
    calls = check.calls_at_once(line(1e-5), short)
    assert calls % few == 0 and 5e-3 <= calls * 1e-5 < 5e-3 + few * 1e-5
    assert 1 == check.calls_at_once(Line("copy", "events, stream held", 1e-5, 0.002, {}), short)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_copy_agrees_with_cupti(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "COPIES_MIB", (64,))
    monkeypatch.setattr(check, "MATRICES", ())
    monkeypatch.setattr(check, "nvbench", lambda lines: [None] * len(lines))
    (only,) = check.measure()
    assert abs(only.off()) < 0.05


def test_without_a_gpu_there_is_nothing_to_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert 3 == check.main([])
