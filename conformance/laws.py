"""Laws: what must hold between two calls of one kernel, whatever the numbers are.

A law is a test with the fixture ``law``, which runs once for the reference of its op, and once for
plain PyTorch or the host's own structure: what kernels are judged by. It calls ``law.run`` as often
as it needs and states the law with ``law.exact`` or ``law.within``. A test marked ``peer`` states
agreement with software that is not ours, in the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import assume, settings
from torch import Tensor

from yaie.arena import Arena
from yaie.compare import Budget, Exact
from yaie.fill import Fill
from yaie.op import Kernel, Op

ALWAYS = "exact always"
DECLARED = "exact if declared"
BUDGETS = "within the summed budgets"
CLASSES = (ALWAYS, DECLARED, BUDGETS)
"""What a law promises: equal bits from every kernel, from those that declare it, or equal up to
the error that each side is allowed."""


def fewer() -> settings:
    """An eighth of the profile's cases: a law needs several calls a case, and holds or does not."""
    return settings(max_examples=max(10, settings().max_examples // 8))


@dataclass(frozen=True)
class Answer:
    """What a call returned, by the names of its results, and how far off each element may be."""

    results: Mapping[str, Tensor]
    allowed: Mapping[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.results[name]


class Law:
    """One law for one kernel: runs calls, compares, and remembers what came out."""

    def __init__(self, op: Op, kernel: Kernel) -> None:
        self.op = op
        self.kernel = kernel
        self.calls = self.comparisons = 0
        self.worst = 0.0
        self._arena = Arena()

    def inputs(self, case: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The arguments and options of a Case, in memory of their own; for tensors that are too
        large for it another case is drawn."""
        args, options = self.op.inputs(case, Fill(self._arena, case.seed))
        assume(len(self._arena.extents) == 1)
        return {name: _copy(value) for name, value in args.items()}, options

    def run(self, args: Mapping[str, Any], options: Mapping[str, Any] | None = None) -> Answer:
        """Call the kernel. Mutated arguments are changed in place, and are no results."""
        options = dict(options or {})
        oracle_args = {name: _copy(value) for name, value in args.items()}
        call = self.op.bind(**oracle_args, **options)
        expected = self.op.reference(**call.args, **call.options)
        returned = self.op(**args, **options, kernel=self.kernel.name)
        self.calls += 1
        many = returned if isinstance(returned, tuple) else (returned,)
        names = [p.name for p in self.op.signature.results]
        if self.op.comparison is None:
            return Answer({}, {})
        judges = self.op.comparison(expected, call, self.kernel.contract)
        return Answer(
            dict(zip(names, many, strict=True)),
            {name: _allowed(judges[name]) for name in names},
        )

    def exact(self, a: Tensor, b: Tensor, what: str = "the results") -> None:
        """Equal bit for bit, NaN payloads included."""
        __tracebackhide__ = True
        self.comparisons += 1
        assert (a.shape, a.dtype) == (b.shape, b.dtype), f"{what}: shapes or dtypes differ"
        judgement = Exact(b).judge(what, a)
        assert judgement.check is None, judgement.reason

    def within(self, a: Tensor, b: Tensor, allowed: Tensor, what: str = "the results") -> None:
        """Equal up to ``allowed``, the sum of what each side may be off; infinities by position."""
        __tracebackhide__ = True
        self.comparisons += 1
        judgement = Budget(b.double(), {"both sides": allowed}).judge(what, a)
        assert judgement.check is None, judgement.reason
        if judgement.receipt is not None:
            self.worst = max(self.worst, judgement.receipt.used)


def _copy(value: Any) -> Any:
    if isinstance(value, list):
        return [_copy(v) for v in value]
    return value.clone() if isinstance(value, Tensor) else value


def _allowed(comparison: Any) -> Tensor:
    """How far off a result may be, per element; nothing, where bits are compared."""
    if isinstance(comparison, Budget):
        return torch.stack(list(comparison.terms.values())).sum(0)
    return torch.zeros_like(comparison.expected, dtype=torch.float64)
