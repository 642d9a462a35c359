"""How many blocks an SM holds: the arithmetic, and what is read of a trace."""

from __future__ import annotations

import pytest

from benchmarks.timing import occupancy
from benchmarks.timing.occupancy import Launch, Sm

H100 = Sm(registers=65536, shared=233472, threads=2048)


@pytest.mark.parametrize(
    ("launch", "blocks", "limit", "share"),
    [
        (Launch("k", registers=255, shared=82_000, threads=128), 2, "registers", 0.125),
        (Launch("k", registers=32, shared=0, threads=1024), 2, "threads", 1.0),
        (Launch("k", registers=16, shared=0, threads=32), 32, "blocks", 0.5),
        (Launch("k", registers=40, shared=116_000, threads=256), 1, "shared memory", 0.125),
        (Launch("k", registers=33, shared=0, threads=256), 6, "registers", 0.75),
        (Launch("k", registers=88, shared=0, threads=32), 20, "registers", 0.3125),
        (Launch("k", registers=20, shared=0, threads=48), 32, "threads", 1.0),
    ],
)
def test_what_an_sm_holds(launch: Launch, blocks: int, limit: str, share: float) -> None:
    assert (blocks, limit) == launch.blocks(H100)
    assert share == launch.occupancy(H100)


def test_launches_of_a_trace() -> None:
    name = "void yaie::naive<float, (int)4>(float*)"
    args = {"block": [32, 4, 1], "registers per thread": 24, "shared memory": 96}
    events = [
        {"cat": "gpu_memcpy", "name": "Memcpy", "args": {}},
        {"cat": "kernel", "name": name, "args": args},
        {"ph": "M"},
    ]
    assert [Launch("naive<float, 4>", 24, 96, 128)] == list(
        occupancy.launches({"traceEvents": events})
    )
    text = occupancy.table([("op/naive", Launch("naive<float, 4>", 24, 96, 128))], H100)
    assert "| op/naive | `naive<float, 4>` | 24 | 96 | 128 | 16 (threads) | 100% |" in text
