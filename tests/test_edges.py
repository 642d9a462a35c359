"""The file of edges, and what fills it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conformance import edges
from conformance.campaign import Campaign
from yaie import ops
from yaie.compare import Verdict
from yaie.op import Op

OP = ops.get("rope")
BROKEN = "R = 2"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the file, which may be changed."""
    path = tmp_path / "edges.toml"
    path.write_text(edges.FILE.read_text())
    monkeypatch.setattr(edges, "FILE", path)
    return path


def with_one(file: Path, edge: str, text: str) -> None:
    """Another case for one edge of OP."""
    lines = file.read_text().splitlines()
    own = lines.index(f"[{OP.name}]")
    at = next(i for i in range(own, len(lines)) if lines[i].startswith(f"'{edge}' = "))
    lines[at] = f"'{edge}' = '{text}'"
    file.write_text("\n".join(lines) + "\n")


def test_the_file_is_written_as_it_is_read(file: Path) -> None:
    before = file.read_text()
    edges.write({op.name: edges.cases(op) for op in ops.OPS.values()})
    assert before == file.read_text()


@pytest.mark.parametrize(
    "text",
    ["rope.Case(no_such_field=1)", "rope.Case(T=3, D=8, R=4)", "nonsense"],
    ids=["another field", "another edge", "no case"],
)
def test_what_no_longer_meets_its_edge_is_drawn_anew_and_nothing_else(
    file: Path, text: str
) -> None:
    kept = edges.cases(OP)
    with_one(file, BROKEN, text)
    complete = edges.complete(OP)
    assert OP.edges[BROKEN](complete[BROKEN])
    assert list(OP.edges) == list(complete)
    assert {e: c for e, c in kept.items() if e != BROKEN} == {
        e: c for e, c in complete.items() if e != BROKEN
    }


def test_an_edge_that_no_strategy_meets_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edges, "ROUNDS", 1)
    monkeypatch.setitem(OP.edges, "the moon is full", lambda case: False)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rope: 250 drawn cases meet none of: the moon is full"):
        edges.complete(OP)


class Declining:
    """Stands in for a judge whose kernel takes every second case."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def judge(self, op: Op, kernel: Any, case: Any) -> Verdict:
        self.asked.append(case)
        return Verdict("unsupported" if len(self.asked) % 2 else "pass")


class Recorder:
    def verdict(self, *args: Any) -> None:
        pass


@pytest.mark.filterwarnings("error")
def test_declined_edges_are_passed_over_and_the_large_ones_left_to_larger_profiles() -> None:
    judge, recorder = Declining(), Recorder()
    campaign = Campaign(judge, OP, OP.kernels["reference"], recorder)  # type: ignore[arg-type]
    edges.judge(campaign.take, OP, large=False)
    small = [c for edge, c in edges.cases(OP).items() if not edge.startswith(edges.LARGE)]
    assert small == judge.asked
    assert len(small) < len(OP.edges)
    assert (len(small) // 2, -(-len(small) // 2)) == (campaign.judged, campaign.declined)
