"""Wrong references, planted one by one, that a law of the op must find without any other kernel.

The mutants of conformance/mutants/pages.toml show that the second opinion, written apart, differs
from a wrong reference. Where both authors misread the page alike, only the laws are left: calls of
the wrong reference contradict each other, or software that is not ours.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings

from conformance.laws import Law
from yaie import ops

drawn = settings(
    max_examples=120,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@dataclass(frozen=True)
class Defect:
    """``old`` becomes ``new`` in yaie/ops/<module>.py; ``law`` of the op breaks by it."""

    op: str
    law: str
    module: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.op}: {self.law}: {self.new}"


DEFECTS = (
    Defect(
        "common_prefix_len", "pages_round_the_length_in_tokens_down",
        "common_prefix_len", "// page * page", "",
    ),
    # a window of W for W - 1; causal from the top left; KV head h % Hk; lse to base 2
    Defect(
        "varlen_attention", "sdpa_of_torch",
        "_attention", "key >= pos - left", "key > pos - left",
    ),
    Defect(
        "append_kv", "the_order_of_tokens_means_nothing",
        "append_kv", "= k[stored]",
        "= k[stored].flip(0)",
    ),
    # a token of slot -1 is written to the last slot
    Defect(
        "append_kv", "skipped_tokens_may_be_left_out",
        "append_kv", "slots >= 0, k_cache", "slots >= -1, k_cache",
    ),
    Defect(
        "copy_blocks", "a_copy_reads_before_it_writes",
        "copy_blocks", "cache[dst] = cache[src].clone()", "cache[src] = cache[dst].clone()",
    ),
    Defect(
        "varlen_attention", "chunks_of_queries_are_the_whole",
        "_attention", "arange(kv_len - q_len, kv_len,", "arange(q_len,",
    ),
    Defect(
        "varlen_attention", "grouped_heads_are_repeated_heads",
        "_attention", "transpose(0, 1).reshape(",
        "transpose(0, 1).unflatten(0, (group, Hk)).transpose(0, 1).reshape(",
    ),
    Defect(
        "varlen_attention", "a_prefix_and_a_suffix_merge_to_the_whole",
        "_attention", "lse=lse,", "lse=lse / math.log(2),",
    ),
    Defect(
        "radix_attention", "it_is_the_chain_of_the_same_kernels",
        "_block", "turned_k.after.y[stored], v.z", "k.z[stored], v.z",
    ),
    Defect(
        "penalize", "repetition_is_that_of_transformers",
        "penalize", "given > 0, given / theta", "given != 0, given / theta",
    ),
    Defect(
        "penalize", "repetition_is_that_of_transformers",
        "penalize", "| (_counts(prompt, prompt_indptr, given.shape[-1]) > 0)", "",
    ),
    # the token that crosses top_p is lost, in what may be kept
    Defect(
        "filter_tokens", "kept_tokens_are_those_of_the_warpers",
        "_sampling", "(surely_above - BAND < P)", "(surely_above + p / total < P)",
    ),
)  # fmt: skip


def functions(module: ModuleType) -> Iterator[tuple[str, FunctionType]]:
    """The functions and methods that a module defines, by qualified name."""
    for value in list(vars(module).values()):
        for f in [value, *(vars(value).values() if inspect.isclass(value) else ())]:
            f = getattr(f, "__func__", f)
            if inspect.isfunction(f) and f.__module__ == module.__name__:
                yield f.__qualname__, f


@contextlib.contextmanager
def planted(defect: Defect) -> Iterator[None]:
    """The page with the defect in it: its functions keep their places and get other code."""
    module = importlib.import_module(f"yaie.ops.{defect.module}")
    text = inspect.getsource(module)
    assert text.count(defect.old) == 1, "the place is gone, or not the only one"
    spoilt = ModuleType(module.__name__)
    text = text.replace(defect.old, defect.new)
    exec(compile(ast.parse(text), str(module.__file__), "exec"), vars(spoilt))
    other = dict(functions(spoilt))
    whole = {f: f.__code__ for name, f in functions(module) if name in other}
    try:
        for f in whole:
            f.__code__ = other[f.__qualname__].__code__
        yield
    finally:
        for f, code in whole.items():
            f.__code__ = code


def law_of(op: ops.Op, name: str) -> Callable[[], None]:
    """A law of conformance/test_<op>.py, stated of the reference alone."""
    test = getattr(importlib.import_module(f"conformance.test_{op.name}"), f"test_{name}")
    law = Law(op, op.kernels["reference"])
    handle = test.hypothesis

    @drawn
    @given(**handle._given_kwargs)
    def run(**values: Any) -> None:
        handle.inner_test(law=law, **values)

    return run


@pytest.mark.parametrize("defect", DEFECTS, ids=str)
def test_a_law_breaks_by_a_planted_defect(defect: Defect) -> None:
    with planted(defect), pytest.raises(AssertionError):
        law_of(ops.get(defect.op), defect.law)()


def test_angles_in_float32_are_another_meaning() -> None:
    """Why rope takes a table (decision 0027): position times frequency in float32, far out."""
    at, D = 131_071, 128
    exponent = torch.arange(0, D, 2, dtype=torch.float64) / D
    exact = at * 10_000.0**-exponent
    rounded = torch.tensor(float(at)) * (10_000.0 ** -exponent.float())
    assert 1e-3 < float((rounded.double() - exact).abs().max()) < 1e-2
