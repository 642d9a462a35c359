"""What a campaign says of a fault, with a judge that is told what to answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conformance.campaign import Campaign
from yaie import kernels, ops
from yaie.compare import Verdict
from yaie.record import Recorder

FAULT, PASS = Verdict("fail", "exact", "wrong"), Verdict("pass")
HANG = Verdict("timeout", "timeout", "hangs")
REMARK = "in a fresh process the first case that failed passes"


class Answers:
    """A judge that finds ``first``, and in a fresh process ``afresh``."""

    def __init__(self, first: Verdict, afresh: Verdict) -> None:
        self._first, self._afresh = first, afresh
        self.fresh = 0

    def judge(self, *case: Any) -> Verdict:
        return self._first

    def judge_afresh(self, *case: Any) -> Verdict:
        self.fresh += 1
        return self._afresh


@pytest.mark.parametrize(
    ("first", "afresh", "remarked", "fresh"),
    [(FAULT, PASS, True, 1), (FAULT, FAULT, False, 1), (HANG, PASS, False, 0)],
)
def test_a_fault_that_a_fresh_process_does_not_show_says_so(
    tmp_path: Path, first: Verdict, afresh: Verdict, remarked: bool, fresh: int
) -> None:
    kernels.load()
    op, judge = ops.get("copy_blocks"), Answers(first, afresh)
    recorder = Recorder(tmp_path, "r1", "quick")
    campaign = Campaign(judge, op, op.kernels["torch.eager"], recorder)  # type: ignore[arg-type]
    for case in (op.good, op.good, op.Case(seed=7)):  # the same one twice: it says so once
        with pytest.raises(AssertionError) as caught:
            campaign(case)
        assert int(remarked) == str(caught.value).count(REMARK)
    assert fresh == judge.fresh
