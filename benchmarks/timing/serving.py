"""The workloads: those of the op pages and those of workloads/*.toml.

A TOML workload names an op, models and the lengths of a batch; fields of the op's Case that it does
not give come from the model. Lengths are written ``"1024x32 512"`` (32 of 1024, then one of 512) or
drawn once from a stated distribution. A *mix* says how often each batch occurs among 1000 steps of
a serving engine, so that the figures of a run add up to one served time.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from yaie import ops
from yaie.dispatch import nearest
from yaie.op import Cost, Op

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest needs it there, so it is installed

FOLDER = Path(__file__).resolve().parents[1] / "workloads"


@dataclass(frozen=True)
class Workload:
    """A named Case of an op. ``weights`` holds, by mix, how often it runs in 1000 engine steps;
    ``large``: it holds much more memory than it touches."""

    op: str
    name: str
    case: Any
    source: str = "the op's page"
    weights: Mapping[str, float] = field(default_factory=dict)
    large: bool = False


QUICK_BYTES, QUICK_FLOPS = 40 << 20, 10**9
QUICK_OF_AN_OP = 2
"""So many of each op, the lightest, are timed by a laptop in minutes."""


def is_quick(workload: Workload) -> bool:
    """Whether a laptop times it in seconds."""
    cost = _cost(workload.op, workload.case)
    return not workload.large and cost.bytes <= QUICK_BYTES and cost.flops <= QUICK_FLOPS


def quick(workloads: Sequence[Workload]) -> list[Workload]:
    """The lightest quick ones of each op, in their order."""
    chosen = []
    for op in dict.fromkeys(w.op for w in workloads):
        own = [w for w in workloads if w.op == op and is_quick(w)]
        chosen += sorted(own, key=_weight)[:QUICK_OF_AN_OP]
    return [w for w in workloads if w in chosen]


def _weight(workload: Workload) -> float:
    """What it moves, in bytes; ten flops count as one."""
    cost = _cost(workload.op, workload.case)
    return cost.bytes + cost.flops / 10


@functools.cache
def _cost(op: str, case: Any) -> Cost:
    """That of a program of the host's structures takes as long as running it."""
    return ops.get(op).cost(case)


def load(folder: Path = FOLDER) -> list[Workload]:
    """Every workload, op by op; ValueError in words for data that makes no sense."""
    found = [Workload(op.name, n, c) for op in ops.OPS.values() for n, c in op.workloads.items()]
    models = _read(folder / "models.toml")
    serving = _read(folder / "serving.toml")
    for number, row in enumerate(serving.get("workload", [])):
        try:
            found += _workloads(row, models)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{folder / 'serving.toml'}: workload {number}: {error}") from error
    names = [(w.op, w.name) for w in found]
    if twice := {n for n in names if names.count(n) > 1}:
        raise ValueError(f"{folder}: workloads that stand twice: {sorted(twice)}")
    return _weighted(found, serving.get("mix", {}), models)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: {error}") from error


def _workloads(row: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[Workload]:
    """One workload for each model of a row."""
    op = ops.get(row["op"])
    for name in row["models"]:
        if name not in models:
            raise ValueError(f"no model {name!r}{nearest(name, list(models))}")
        model = models[name]
        case = make_case(op, {**model["shape"], **row.get("case", {})}, set(row.get("case", {})))
        source = f"{model['source']}; {row['source']}" if "source" in row else model["source"]
        yield Workload(
            op.name, f"{name} {row['name']}", case, source, large=row.get("large", False)
        )


def make_case(op: Op, values: Mapping[str, Any], wanted: set[str]) -> Any:
    """A Case from plain data. A model's shape names more than one op needs; what the workload
    itself gives (``wanted``) the op must know."""
    fields = {f.name: f for f in dataclasses.fields(op.Case)}
    if unknown := wanted - set(fields):
        raise ValueError(f"{op.name} has no {min(unknown)!r}{nearest(min(unknown), list(fields))}")
    chosen = {}
    for name, value in values.items():
        if name in fields:
            is_tuple = isinstance(fields[name].default, tuple)
            chosen[name] = lengths(value, values) if is_tuple else value
    return op.Case(**chosen)


def lengths(value: Any, model: Mapping[str, Any]) -> tuple[int, ...]:
    """A tuple from a list (whose strings name fields of the model), from "1024x32 512", or from
    {lognormal = {median, sigma, count, most, seed}}, {loguniform = {least, most, count, seed}}."""
    if isinstance(value, Mapping):
        ((kind, how),) = value.items()
        return {"lognormal": _lognormal, "loguniform": _loguniform}[kind](**how)
    if isinstance(value, str):
        parts = (part.partition("x") for part in value.split())
        return tuple(n for size, _, count in parts for n in [int(size)] * int(count or 1))
    return tuple(model[v] if isinstance(v, str) else v for v in value)


def _lognormal(median: float, sigma: float, count: int, most: int, seed: int) -> tuple[int, ...]:
    """Lengths of a long-tailed distribution, the same whenever they are drawn."""
    drawn = random.Random(seed)
    mu = math.log(median)
    return tuple(
        min(most, max(1, round(math.exp(mu + sigma * drawn.gauss(0, 1))))) for _ in range(count)
    )


def _loguniform(least: int, most: int, count: int, seed: int) -> tuple[int, ...]:
    """Lengths of which as many lie between one and two thousand as between two and four."""
    drawn = random.Random(seed)
    span = math.log(most / least)
    return tuple(round(least * math.exp(span * drawn.random())) for _ in range(count))


def _weighted(
    workloads: list[Workload], mixes: Mapping[str, Any], models: Mapping[str, Any]
) -> list[Workload]:
    """The workloads, with how often each runs in 1000 steps of each mix: ``steps`` times the layers
    of the model for what every layer does, ``once`` for what a step does once."""
    for mix, data in mixes.items():
        model = data["model"]
        runs = {f"{model} {n}": k * models[model]["layers"] for n, k in data["steps"].items()}
        runs |= data.get("once", {})
        for i, w in enumerate(workloads):
            if w.name in runs and w.op in data["ops"]:
                workloads[i] = replace(w, weights={**w.weights, mix: runs[w.name]})
        if missing := sorted(set(runs) - {w.name for w in workloads if mix in w.weights}):
            raise ValueError(f"mix {mix}: no workload of its ops is called {missing[0]!r}")
    return workloads
