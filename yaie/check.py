"""One (kernel, case) to one Verdict. Conformance and benchmarks both go through here.

A case is laid out in guarded memory and run twice in the worker: the second time at other
addresses, with another poison in every byte that must not matter, and under another schedule of the
executor. Meanwhile the reference is computed in this process, on memory that the kernel never sees.
Then

- every byte of the arguments must be what the reference left there (so nothing else was written),
- every guard zone of what the kernel allocated must be intact,
- every result must be within its budget, and the two runs must agree bit for bit.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from yaie import kernels, ops
from yaie.arena import (
    FIRST_POISON,
    OTHER_POISONS,
    Arena,
    Placement,
    Poison,
    Regions,
)
from yaie.compare import Comparison, Contract, Judgement, Receipt, Verdict, Written
from yaie.dispatch import nearest
from yaie.fill import Fill
from yaie.frame import Fault, Layout, check_guards, describe_byte
from yaie.op import Call, Kernel, Op
from yaie.worker import Died, TimedOut, Worker
from yaie.worker.execution import (
    DECLINED,
    NO_ROOM,
    Job,
    Outcome,
    RefusalJob,
    RefusalOutcome,
    Run,
    viewed,
)

TIMEOUT_S = 30.0
"""Seconds after which a job counts as hanging. Cases are small: an honest one takes
milliseconds."""
CASES_A_TURN = 4
"""So many cases in a row have the same argument there."""


def find_kernel(op: Op, name: str) -> Kernel:
    """The kernel of that name; ValueError with the nearest names when there is none."""
    kernels.load()
    if name not in op.kernels:
        raise ValueError(f"{op.name}: no kernel {name!r}{nearest(name, list(op.kernels))}")
    return op.kernels[name]


def choose_kernels(op_glob: str = "*", kernel_glob: str = "*") -> list[tuple[Op, Kernel]]:
    """The kernels that the options --op and --kernel let through and that can run here, of one op
    after the other.

    Raises:
        ValueError: there is none; it names the nearest, or says how to build them.
    """
    kernels.load()
    named = [op for op in ops.OPS.values() if fnmatch.fnmatchcase(op.name, op_glob)]
    if not named:
        raise ValueError(f"no op fits --op {op_glob}{nearest(op_glob, list(ops.OPS))}")
    offered = [(op, kernel) for op in named for kernel in op.kernels.values()]
    fitting = [row for row in offered if fnmatch.fnmatchcase(row[1].name, kernel_glob)]
    here = [row for row in fitting if row[1].device != "cuda" or torch.cuda.is_available()]
    if here:
        return here
    if fitting:
        raise ValueError(f"{fitting[0][1].name} runs on a GPU, and there is none")
    if unbuilt := _unbuilt([op.name for op in named], kernel_glob):
        face = unbuilt[0]
        where = ", where there are nvcc and a GPU" if face == "cuda" else ""
        raise ValueError(f"the extension yaie._{face} is not built: run `nox -s build`{where}")
    hint = nearest(kernel_glob, sorted({kernel.name for _, kernel in offered}))
    raise ValueError(f"no kernel fits --kernel {kernel_glob}{hint}")


def _unbuilt(names: Sequence[str], kernel_glob: str) -> list[str]:
    """The faces that were not built and have such a kernel of these ops."""
    return [
        face
        for face in kernels.native.FACES
        if kernels.native.extension(face) is None
        and any(
            v.op in names and fnmatch.fnmatchcase(f"{face}.{v.name}", kernel_glob)
            for v in kernels.native.VARIANTS
        )
    ]


OF_A_CONTRACT = ("budget", "row budget", "norm")
"""Checks whose limits follow from what a kernel declares."""


class _Unjudged(Exception):
    """The case cannot be judged here, for no fault of the kernel."""


class Judge:
    """Judges kernels on cases, with one worker process and one arena. Close it when done."""

    def __init__(
        self, environment: Mapping[str, str] | None = None, timeout: float = TIMEOUT_S
    ) -> None:
        kernels.load()
        self._worker = Worker(environment)
        self._arena = Arena()
        self._expected = Regions()
        self._timeout = timeout
        self._served: Kernel | None = None
        self._judged = 0

    def close(self) -> None:
        """End the worker."""
        self._worker.close()
        self._expected.close()

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def worker_pid(self) -> int:
        """The process id of the present worker (0: none was needed yet)."""
        return self._worker.pid

    def judge(self, op: Op, kernel: Kernel, case: Any) -> Verdict:
        """What the kernel does on the case. Never raises for a fault of the kernel."""
        layout = self._lay_out(op, case)
        device = "cuda" if kernel.device == "cuda" else "cpu"
        try:
            reason = kernel.declines(replace(layout.call, device=torch.device(device)))
        except Exception as error:
            return Verdict("fail", "error", f"supports raised {type(error).__name__}: {error}")
        if reason is not None:
            return Verdict("unsupported", reason=reason)
        self._change_to(kernel)
        runs = self._runs(case.seed, layout)
        job = Job(
            op.name, kernel.name, layout.places, layout.call.options, layout.extents, runs, device
        )
        try:
            self._begin(job)
            expected = self._reference(layout, runs)
            wanted = op.comparison(expected, layout.call, kernel.contract) if op.comparison else {}
            outcomes = self._finish(job, device, may_decline=not op.signature.mutated)
            self._check_memory(layout, wanted, outcomes, runs)
            if outcomes[0].raised is not None:
                raise _Unjudged(outcomes[0].raised.message)
            results = [
                self._results(layout, wanted, o, r) for o, r in zip(outcomes, runs, strict=True)
            ]
            try:
                judgement = _judge_results(wanted, results[0])
            except Fault as fault:
                if fault.verdict.check in OF_A_CONTRACT:
                    own = kernel.contract
                    wider = _allowing(op, expected, layout.call, own, results[0])
                    if wider is not None:
                        fault.excused_by(wider.beyond(own))
                raise
            if not kernel.deterministic:
                _judge_results(wanted, results[1])
            self._check_runs(layout, wanted, job, kernel, results)
        except Fault as fault:
            return fault.verdict
        except _Unjudged as error:
            return Verdict("unsupported", reason=str(error))
        seconds = sum(outcome.seconds for outcome in outcomes)
        return Verdict("pass", receipt=judgement, seconds=seconds)

    def judge_afresh(self, op: Op, kernel: Kernel, case: Any) -> Verdict:
        """Likewise, in a process that has run nothing before."""
        self._served = None
        return self.judge(op, kernel, case)

    def _runs(self, seed: int, layout: Layout) -> tuple[Run, Run]:
        """The two runs of a case. The first lies in the region in which the last one of the case
        before did, and there an argument lies at the address that it had: in one region the first,
        in the other each in its turn. A kernel that knows it again by its address knows another."""
        starts = (0, layout.start_for(self._judged // CASES_A_TURN))
        first, second = (0, 1) if self._judged % 2 == 0 else (1, 0)
        self._judged += 1
        return (
            Run(first, FIRST_POISON, kernels.Schedule("round-robin"), starts[first]),
            Run(second, _other_poison(seed), _other_schedule(seed), starts[second]),
        )

    def _change_to(self, kernel: Kernel) -> None:
        """A fresh worker for another kernel: what one does to its process is not the next one's
        fault."""
        if self._served is not kernel:
            self._worker.retire()
            self._served, self._judged = kernel, 0

    def _lay_out(self, op: Op, case: Any) -> Layout:
        args, options = op.inputs(case, Fill(self._arena, case.seed))
        places = {name: _placed(value, self._arena.base) for name, value in args.items()}
        return Layout(op, op.bind(**args, **options), places, self._arena.extents)

    def _begin(self, job: Job) -> None:
        """Lay the arguments out for each run, for reference and worker, and start the worker."""
        for run in job.runs:
            ours, theirs = run.memory(self._expected), run.memory(self._worker.regions)
            self._arena.write(ours, run.poison)
            for a, b in job.extents:
                theirs[a:b] = ours[a:b]
        self._worker.begin(job)

    def _finish(self, job: Job, device: str, may_decline: bool = False) -> list[Outcome]:
        answer = self._worker.finish(self._timeout)
        _raise_if_dead(answer)
        outcomes = cast(list[Outcome], answer)
        if may_decline and all(o.raised and o.raised.type == DECLINED for o in outcomes):
            return outcomes
        for outcome in outcomes:
            raised = outcome.raised
            if raised is not None and raised.type == NO_ROOM:
                raise _Unjudged(raised.message)
            if raised is not None and raised.finding is not None:
                raise Fault(raised.finding, raised.message)
            if raised is not None:
                raise Fault("error", f"{raised.type}: {raised.message}")
        return outcomes

    def _reference(self, layout: Layout, runs: Sequence[Run]) -> Any:
        """What the reference returns; ``_expected`` then holds the bytes that it leaves for each
        run."""
        op, options = layout.op, layout.call.options
        if not op.signature.mutated:
            return op.reference(**layout.call.args, **options)
        returned = None
        for run in runs:
            base = torch.from_numpy(run.memory(self._expected))
            args = {name: viewed(place, base) for name, place in layout.places.items()}
            returned = op.reference(**args, **options)
        return returned

    def _check_memory(
        self,
        layout: Layout,
        wanted: Mapping[str, Comparison],
        outcomes: Sequence[Outcome],
        runs: Sequence[Run],
    ) -> None:
        """Every byte of the arguments is what the reference left, but for the values that are
        judged in another way."""
        for outcome, run in zip(outcomes, runs, strict=True):
            actual, after = run.memory(self._worker.regions), run.memory(self._expected)
            for name, comparison in wanted.items():
                if isinstance(comparison, Written):
                    place = layout.places[name]
                    left = place.view(torch.from_numpy(after))
                    comparison.copy(place.view(torch.from_numpy(actual)), left)
            for a, b in layout.extents:
                if (actual[a:b].view(np.uint64) != after[a:b].view(np.uint64)).any():
                    at = a + int((actual[a:b] != after[a:b]).argmax())
                    changed = bool(after[at] != self._arena.byte(at, run.poison))
                    raise describe_byte(layout, at, actual, after, changed)
            check_guards(outcome, actual, layout.top, run.poison)

    def _results(
        self, layout: Layout, wanted: Mapping[str, Comparison], outcome: Outcome, run: Run
    ) -> dict[str, Tensor]:
        """Copies of what a run left that is judged: its results, after a check of their number,
        shapes and dtypes, and the written parts of arguments."""
        declared = layout.op.signature.results
        if len(outcome.results) != len(declared):
            raise Fault(
                "error", f"returned {len(outcome.results)} results, the op has {len(declared)}"
            )
        base = torch.from_numpy(run.memory(self._worker.regions))
        left = {
            name: comparison.select(layout.places[name].view(base))
            for name, comparison in wanted.items()
            if isinstance(comparison, Written)
        }
        for param, place in zip(declared, outcome.results, strict=True):
            if not isinstance(place, Placement):
                raise Fault("error", f"{param.name} is {place}")
            shape = tuple(layout.call.axes[axis] for axis in param.axes)
            dtype = layout.op.result_dtype(param, layout.call)
            if (place.shape, place.dtype) != (shape, dtype):
                raise Fault(
                    "error",
                    f"{param.name} is {place.dtype} {place.shape}, must be {dtype} {shape}",
                )
            left[param.name] = place.view(base).clone(memory_format=torch.contiguous_format)
        return left

    def _check_runs(
        self,
        layout: Layout,
        wanted: Mapping[str, Comparison],
        job: Job,
        kernel: Kernel,
        results: Sequence[Mapping[str, Tensor]],
    ) -> None:
        """The two runs must agree bit for bit; if they do not, find out what made the
        difference."""
        if not kernel.deterministic or _same_bits(results[0], results[1]):
            return
        first, second = job.runs
        where = _first_difference(results[0], results[1])
        if not _same_bits(results[0], self._again(layout, wanted, job, first)):
            raise Fault("repeat", f"the same call twice gives different bits: {where}")
        other = replace(first, schedule=second.schedule)
        if job.device == "cpu" and not _same_bits(
            results[0], self._again(layout, wanted, job, other)
        ):
            raise Fault(
                "schedule",
                f"the result depends on the order of threads ({first.schedule} against "
                f"{second.schedule}), so there is a race: {where}",
            )
        raise Fault(
            "poison",
            "the result depends on bytes that must not matter (unused slots, table tails, gaps, "
            f"fresh memory: {first.poison.name}, then {second.poison.name}), or on addresses: "
            f"{where}",
        )

    def _again(
        self,
        layout: Layout,
        wanted: Mapping[str, Comparison],
        job: Job,
        run: Run,
    ) -> dict[str, Tensor]:
        """The results of one more run."""
        single = replace(job, runs=(run,))
        self._begin(single)
        (outcome,) = self._finish(single, job.device)
        return self._results(layout, wanted, outcome, run)

    def judge_refusal(self, op: Op, kernel: Kernel, number: int) -> Verdict:
        """Whether the kernel refuses bad input ``number`` of the op: the named exception, the words
        that its message must contain, nothing written, no launcher entered."""
        refusal = op.refusals[number]
        device = "cuda" if kernel.device == "cuda" else "cpu"
        self._change_to(kernel)
        answer = self._worker.ask(RefusalJob(op.name, kernel.name, number, device), self._timeout)
        try:
            _raise_if_dead(answer)
        except Fault as fault:
            return fault.verdict
        outcome = cast(RefusalOutcome, answer)
        wanted = f"must raise {refusal.raises.__name__} saying {refusal.says!r}"
        if outcome.raised is None:
            return Verdict("fail", "rejection", f"{refusal.what}: accepted, {wanted}")
        if outcome.raised.type != refusal.raises.__name__ or refusal.says not in str(
            outcome.raised.message
        ):
            said = f"{outcome.raised.type}: {outcome.raised.message}"
            return Verdict("fail", "rejection", f"{refusal.what}: raised {said!r}, {wanted}")
        if outcome.wrote or outcome.entered:
            return Verdict(
                "fail", "rejection", f"{refusal.what}: refused only after something was launched"
            )
        return Verdict("pass")


def _other_poison(seed: int) -> Poison:
    """The poison of a case's second run, by its seed, whatever schedule that has: it is taken from
    the upper bits of a product that mixes them (Knuth's multiplicative hash)."""
    return OTHER_POISONS[(seed * 2_654_435_769 % 2**32) * len(OTHER_POISONS) >> 32]


def _other_schedule(seed: int) -> kernels.Schedule:
    """The schedule of a case's second run, by its seed: reverse for every second one, since it is
    the cheapest; else random, by priority to depth 1 to 4 (a bug that takes as many ordered events
    to show), or random with a thread preempted at one in 50 memory accesses (in the checked
    build)."""
    turn, kind = divmod(seed, 8)
    if kind % 2 == 0:
        return kernels.Schedule("reverse")
    if kind in (1, 5):
        return kernels.Schedule("random", seed)
    if kind == 3:
        return kernels.Schedule("priority", seed, depth=1 + turn % 4)
    return kernels.Schedule("random", seed, preemption=0.02)


def _raise_if_dead(answer: Any) -> None:
    if isinstance(answer, TimedOut):
        fault = Fault("timeout", f"no answer within {answer.seconds:g} s")
        fault.verdict = replace(fault.verdict, status="timeout")
        raise fault
    if isinstance(answer, Died):
        last = answer.last_words.strip().splitlines()[-3:]
        fault = Fault("crash", " | ".join([f"the worker was {answer.how}", *last]))
        fault.verdict = replace(fault.verdict, status="crash")
        raise fault


def _placed(value: Any, base: Tensor) -> Any:
    """Where an argument lies; a list of places for a list of tensors."""
    if value is None:
        return None
    if isinstance(value, list):
        return [Placement.of(t, base) for t in value]
    return Placement.of(value, base)


def _judge_results(
    wanted: Mapping[str, Comparison], results: Mapping[str, Tensor]
) -> Receipt | None:
    """The receipt of the result that came closest to its limit."""
    worst: Receipt | None = None
    for name, result in results.items():
        judgement: Judgement = wanted[name].judge(name, result)
        if judgement.check is not None:
            raise Fault(judgement.check, judgement.reason or "", judgement.receipt)
        receipt = judgement.receipt
        if receipt and (worst is None or receipt.used > worst.used):
            worst = receipt
    return worst


def _allowing(
    op: Op, expected: Any, call: Call, contract: Contract, results: Mapping[str, Tensor]
) -> Contract | None:
    """The contract under which these results would be right: the kernel's own with as little more
    declared as may be. None where no contract allows them."""

    def allows(wider: Contract) -> bool:
        assert op.comparison is not None
        try:
            _judge_results(op.comparison(expected, call, wider), results)
        except Fault:
            return False
        return True

    wider = contract.with_more()
    if not wider or not allows(wider[0]):  # most faults are none that a contract allows
        return None
    return next(filter(allows, wider[1:]), wider[0])


def _same_bits(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return all(
        torch.equal(a[name].contiguous().view(torch.uint8), b[name].contiguous().view(torch.uint8))
        for name in a
    )


def _first_difference(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> str:
    for name, x in a.items():
        y = b[name]
        unequal = (x.contiguous().view(torch.uint8) != y.contiguous().view(torch.uint8)).nonzero()
        if len(unequal):
            at = (*unequal[0][:-1].tolist(), int(unequal[0][-1]) // x.element_size())
            where = ", ".join(map(str, at))
            return f"{name}[{where}] is {x[at].item():.9g}, then {y[at].item():.9g}"
    return "in no result"
