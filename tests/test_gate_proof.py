"""What the gate's proof on a real machine rests on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.gate.proof import micro, real


@pytest.mark.parametrize("slowdown", [0.02, 0.03, 0.05, 0.10])
@pytest.mark.parametrize("before", [0, 1, 17])
def test_a_slower_call_is_made_so_much_more_often(slowdown: float, before: int) -> None:
    made: list[int] = []
    call = micro.often(lambda: made.append(1) or len(made), slowdown)
    for _ in range(before):
        call()
    made.clear()
    results = [call() for _ in range(100)]
    assert 100 + round(100 * slowdown) == len(made)
    assert all(results)  # kept as long as those of the other side


def test_a_slower_side_differs_from_the_other_by_its_calls_alone() -> None:
    """On a CPU the counting of calls takes time itself."""
    subject = object.__new__(micro.Micro)
    subject._slowed, subject._slowdown = {"torch/exp cpu"}, 0.05
    slowed, same = subject.open("torch/exp cpu"), subject.open("torch/mean cpu")
    assert same["base"] == same["head"]
    base, head = (slowed[side][0] for side in ("base", "head"))
    assert base.__code__ is head.__code__  # type: ignore[attr-defined]


def a_trial(code: str, number: int) -> real.Trial:
    return real.Trial(code, "cpu", "A/A", 0.0, number, "pass", 0, 0, 0, 0, 0, 1.0, ())


def test_trials_are_known_again_by_code_and_kind(tmp_path: Path) -> None:
    file = tmp_path / "trials.jsonl"
    trials = [a_trial(real.code(), 0), a_trial("other", 1)]
    file.write_text("".join(json.dumps(vars(t)) + "\n" for t in trials))
    kept = real.kept(file)
    assert {(real.code(), "cpu", "A/A", 0.0, 0), ("other", "cpu", "A/A", 0.0, 1)} == set(kept)
    assert {} == real.kept(tmp_path / "none")


def test_a_machine_without_a_gpu_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        real.main(["--device", "cuda"])
    assert "there is no CUDA device" in capsys.readouterr().err
