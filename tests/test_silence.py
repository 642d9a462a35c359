"""The run over many cases: who is judged next, what is written down, how it ends."""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conformance import silence
from conformance.silence import CHUNK, Log, Progress, judge_all

NAMES = ["rope simt.naive", "rope simt.vec", "greedy simt.split"]


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, int]]:
    """Threads for processes, and half of each chunk's cases declined; counts the chunks."""
    seen: Counter[tuple[str, int]] = Counter()
    under_way: set[str] = set()
    lock = threading.Lock()

    def chunk(name: str, number: int) -> int:
        with lock:
            assert name not in under_way
            under_way.add(name)
            seen[name, number] += 1
        if name == "greedy simt.split" and number == 20:
            raise AssertionError("a race")
        with lock:
            under_way.remove(name)
        return CHUNK // 2

    def threads(jobs: int, context: object, initializer: object) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(jobs)

    monkeypatch.setattr(silence, "ProcessPoolExecutor", threads)
    monkeypatch.setattr(silence, "_chunk", chunk)
    return seen


def fresh(path: Path, build: str = "one") -> Log:
    log = Log(path, build)
    for name in NAMES:
        log.of.setdefault(name, Progress())
    return log


@pytest.mark.parametrize("jobs", [1, 2, 16])
def test_each_chunk_is_judged_once_and_a_later_run_goes_on(
    chunks: Counter[tuple[str, int]], tmp_path: Path, jobs: int
) -> None:
    path = tmp_path / "folder" / "log.json"
    judge_all(NAMES, fresh(path), 40, 60.0, jobs)
    first = len(chunks)
    assert 40 <= fresh(path).judged < 40 + CHUNK * jobs
    judge_all(NAMES, fresh(path), 80, 60.0, jobs)
    assert first < len(chunks) < 12
    assert set(chunks.values()) == {1}
    done = Counter(name for name, _ in chunks)
    assert {name: progress.chunks for name, progress in fresh(path).of.items()} == done
    assert jobs > 1 or max(done.values()) - min(done.values()) <= 1
    assert json.loads(path.read_text())["build"] == "one"
    assert fresh(path, "another").judged == 0


def test_a_fault_ends_the_run(chunks: Counter[tuple[str, int]], tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="a race"):
        judge_all(NAMES, fresh(tmp_path / "log.json"), 10_000, 60.0, 2)
    assert fresh(tmp_path / "log.json").of["greedy simt.split"].chunks == 20


def test_what_fits_no_kernel_is_no_run(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("yaie.kernels.native.extension", lambda face: SimpleNamespace(checked=True))
    monkeypatch.setattr(sys, "argv", ["silence", "--kernel", "rope simt.nave"])
    with pytest.raises(SystemExit) as ended:
        silence.main()
    assert 2 == ended.value.code
    assert "did you mean rope simt.naive" in capsys.readouterr().err


def test_no_time_no_chunks(chunks: Counter[tuple[str, int]], tmp_path: Path) -> None:
    judge_all(NAMES, fresh(tmp_path / "log.json"), 10_000, 0.0, 2)
    assert not chunks
