"""Nsight Compute's figures: what is read of them, and what is said where there are none."""

from __future__ import annotations

import subprocess

import pytest

from benchmarks.timing import ncu

STALLS = {"long_scoreboard": (4.0, 8.0), "barrier": (1.0, 1.0), "wait": (0.5, 0.5), "mio": (0.1, 0)}


def output(kernels: int = 2) -> str:
    names = ["Kernel Name", *ncu.METRICS, *(f"{ncu.STALL}{name}{ncu.OF_STALL}" for name in STALLS)]
    units = ["", "byte", "ns", "%", *("inst" for _ in STALLS)]
    first = [
        "void yaie::sampling::survey<512>(Rows, Work)",
        "4,000",
        "1,000",
        "50",
        *(str(a) for a, _ in STALLS.values()),
    ]
    second = ["choose(Rows)", "12000", "3000", "90", *(str(b) for _, b in STALLS.values())]
    rows = [names, units, *[first, second][:kernels]]
    quoted = (",".join(f'"{value}"' for value in row) for row in rows)
    return "==PROF== Connected to process 1\n" + "\n".join(quoted) + "\n"


def test_the_kernels_of_a_call_are_weighed_by_their_time() -> None:
    found = ncu.parse(output())
    assert 4e9 == pytest.approx(found["dram_bytes_per_second"])
    assert 0.8 == pytest.approx(found["occupancy"])
    assert ["long scoreboard", "barrier", "wait"] == list(found["stalls"])
    assert 7.0 == pytest.approx(found["stalls"]["long scoreboard"])
    assert [("survey", 1e-6), ("choose", 3e-6)] == [
        (launch["kernel"], pytest.approx(launch["seconds"])) for launch in found["launches"]
    ]
    assert 8.0 == found["launches"][1]["stalls"]["long scoreboard"]
    assert 3 == len(found["launches"][1]["stalls"])


def test_nothing_profiled_is_said_in_the_words_of_ncu(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no kernel"):
        ncu.parse(output(kernels=0))
    done = subprocess.CompletedProcess([], 1, "", "==ERROR== ERR_NVGPUCTRPERM")
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: done)
    assert {"error": "==ERROR== ERR_NVGPUCTRPERM"} == ncu.profile("greedy", "cuda.naive", "w")
