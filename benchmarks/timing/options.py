"""Which rows are timed, and how: the options that `python -m benchmarks` and its pytest session
share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

BUDGETS = {"cpu": 230.0, "cuda": 420.0}
"""Seconds of a whole run, where --budget does not say."""


def seconds(text: str) -> float:
    """A duration of the command line."""
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError
    return value


def shares(text: str) -> list[float]:
    """Shares of the command line, as 0.02,0.05."""
    values = [float(x) for x in text.split(",")]
    if not all(0 < x < math.inf for x in values):
        raise ValueError
    return values


OPTIONS: dict[str, dict[str, Any]] = {
    "--op": {"action": "append", "metavar": "GLOB", "help": "ops (all); may be repeated"},
    "--kernel": {
        "action": "append",
        "metavar": "GLOB",
        "help": "kernels, such as 'cuda.*' (all); may be repeated",
    },
    "--workload": {
        "action": "append",
        "metavar": "GLOB",
        "help": "workloads (all); may be repeated",
    },
    "--profile": {
        "choices": ("quick", "full"),
        "help": "quick: two light workloads of each op. Default: quick without a GPU, else full",
    },
    "--device": {"choices": ("cpu", "cuda"), "help": "default: cuda where there is one"},
    "--ncu": {
        "action": "store_true",
        "help": "also run Nsight Compute on our kernels, where it is",
    },
    "--flashinfer": {
        "type": Path,
        "metavar": "FILE",
        "help": "also the workloads of a flashinfer-bench trace file",
    },
}


def given(args: Any) -> list[str]:
    """Those of parsed arguments that say something, as they stand on a command line."""
    words = []
    for option in OPTIONS:
        value = getattr(args, option.removeprefix("--"))
        if value is True:
            words.append(option)
        elif value not in (None, False):
            words += [f"{option}={x}" for x in (value if isinstance(value, list) else [value])]
    return words
