"""In a process of its own: time both builds by turns, AB BA AB BA, on the same inputs.

    python -m benchmarks.gate.processes.bursts PLAN.json   (internal; benchmarks.gate.speed writes
    the plan)

A pair is a round of each side, a round a short burst of samples reduced to its median. How many
rounds of how many calls is fixed before the first. What is timed comes from a *subject*: the GPU's
kernels (benchmarks.gate.processes.gpu_subject), or those kept for the proof
(benchmarks.gate.proof.micro).
"""

from __future__ import annotations

import importlib
import json
import math
import random
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.clock import Call, Machine, Method, calls_wanted, quiet

ROUND_SECONDS = 0.010
MOST_SAMPLES = 50
RETAKES = 2
"""How often a pair is taken again whose rounds ran at different clocks."""
CLOCKS_APART = 0.01
THROTTLED = 0xEC
"""NVML's bits of what slows a GPU: power cap, heat, brake. Idleness and set clocks come and go."""
CANARY = "canary"
SIDES = ("base", "head")


class Declined(ValueError):
    """A side does not serve a benchmark."""


class Subject(Protocol):
    """What can be timed on both sides."""

    machine: Machine
    device: str
    """which one of its kind it is"""

    def open(self, bench: str) -> Mapping[str, Sequence[Call]]:
        """The calls of base and of head, on the same inputs. Declined where a side serves it
        not."""


@dataclass
class Timed:
    """One side of one benchmark, ready for rounds."""

    method: Method
    calls: int
    samples: int
    factor: float = 1.0

    def round(self) -> float:
        """Seconds a call."""
        taken = [self.method.sample(self.calls) for _ in range(self.samples)]
        return self.factor * statistics.median(taken)


EQUAL: Mapping[str, int] = {"base": 1, "head": 1}


def prepared(
    machine: Machine, calls: Mapping[str, Sequence[Call]], work: Mapping[str, int] = EQUAL
) -> dict[str, Timed]:
    """Both sides, with as many samples of as much work: those of base decide. ``work``: how many
    calls of each side count as the same work; head's times are told for base's number of them."""
    estimate = max(machine.estimate(calls["base"]), 1e-9)
    machine.estimate(calls["head"])  # loads and compiles what that side needs
    methods = {side: machine.method(calls[side], estimate) for side in SIDES}
    units = math.ceil(calls_wanted(estimate, machine.pace) / work["base"])
    units = max(1, min(units, len(calls["base"]) // work["base"]))
    whole = {side: methods[side].whole(units * work[side]) for side in SIDES}
    samples = math.ceil(ROUND_SECONDS / (estimate * whole["base"]))
    samples = max(3, min(samples, MOST_SAMPLES))
    return {
        side: Timed(methods[side], whole[side], samples, work[side] / work["base"])
        for side in SIDES
    }


def handicapped(machine: Machine, calls: Sequence[Call], handicap: float) -> dict[str, Timed]:
    """The canary: base's calls on both sides, of which head makes so many more for the same
    work. Its rounds are as long as those of any benchmark: samples of a whole rotation each would
    be so long that most of them lose their processor to something else, and their median too."""
    step = round(1 / handicap)
    plain = [calls[i % len(calls)] for i in range(step * max(1, len(calls) // step))]
    more = [*plain, *(plain[i * step] for i in range(len(plain) // step))]
    return prepared(machine, {"base": plain, "head": more}, {"base": step, "head": step + 1})


def rounds(
    machine: Machine, timed: Mapping[str, Timed], pairs: int, first: int
) -> Iterator[dict[str, Any]]:
    """The rounds of one benchmark. ``first``: which side begins the first pair."""
    for side in SIDES:  # neither finds the other's caches warmer than its own
        timed[side].round()
    order = 0
    for pair in range(pairs):
        sides = SIDES if (pair + first) % 2 == 0 else SIDES[::-1]
        for attempt in range(RETAKES + 1):
            taken = [(side, timed[side].round(), dict(machine.conditions())) for side in sides]
            steady = same_clocks(taken[0][2], taken[1][2])
            if steady or attempt == RETAKES:
                break
        for side, seconds, conditions in taken:
            yield {
                "pair": pair, "side": side, "order": order, "seconds": seconds, "steady": steady,
                "retaken": attempt, "conditions": conditions,
            }  # fmt: skip
            order += 1


def canary(
    subject: Subject, benches: Sequence[str], plan: Mapping[str, Any], chance: random.Random
) -> Iterator[dict[str, Any]]:
    """The rounds of the canary, made of the first benchmark that both sides serve."""
    for bench in benches:
        try:
            calls = subject.open(bench)["base"]
        except Declined:
            continue
        timed = handicapped(subject.machine, calls, plan["handicap"])
        yield from rounds(subject.machine, timed, plan["pairs"], chance.randrange(2))
        return


def same_clocks(a: Mapping[str, float], b: Mapping[str, float]) -> bool:
    """Whether two rounds ran under the same clock and for the same reasons; where nothing is known,
    nothing differs."""
    bits = [int(state["throttle_bits"]) & THROTTLED for state in (a, b) if "throttle_bits" in state]
    if len(set(bits)) > 1:
        return False
    mhz = [state.get("sm_mhz") for state in (a, b)]
    return not all(mhz) or abs(mhz[0] - mhz[1]) <= CLOCKS_APART * max(mhz)  # type: ignore


def main(argv: Sequence[str]) -> None:
    plan = json.loads(Path(argv[0]).read_text())
    chance = random.Random(plan["process"])  # the same order when the process is begun again
    module, _, name = plan["subject"].partition(":")
    subject: Subject = getattr(importlib.import_module(module), name)(plan, chance)
    benches = list(plan["benches"])
    chance.shuffle(benches)
    with Path(plan["out"]).open("w") as file, quiet():

        def note(**what: Any) -> None:
            file.write(json.dumps(what) + "\n")
            file.flush()

        note(kind="process", device=subject.device)
        if plan["canary"]:
            for row in canary(subject, [plan["canary"], *plan["benches"]], plan, chance):
                note(kind="round", bench=CANARY, process=plan["process"], **row)
        for bench in benches:
            note(kind="begun", bench=bench)
            try:
                calls = subject.open(bench)
            except Declined as error:
                note(kind="declined", bench=bench, reason=str(error))
                continue
            timed = prepared(subject.machine, calls)
            for row in rounds(subject.machine, timed, plan["pairs"], chance.randrange(2)):
                note(kind="round", bench=bench, process=plan["process"], **row)
        note(kind="done")


if __name__ == "__main__":
    main(sys.argv[1:])
