"""Wrong references, planted one by one: the laws of the op, or the second opinion, must find each.

Nothing else stands above a reference. So each bug here is planted into the source of a page (or of
what pages share), and then either two calls of that reference contradict each other, or the kernel
that was written apart from it is judged wrong. A defect that neither finds is a hole in the suite.
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
from torch import Tensor

from conformance import strategies
from conformance.laws import Law
from yaie import ops
from yaie.compare import Exact, Written

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
    """``old`` becomes ``new`` in yaie/ops/<module>.py; ``laws`` of the op break by it (none: only
    the second opinion sees it)."""

    op: str
    module: str
    old: str
    new: str
    laws: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.op}: {self.new}"


DEFECTS = (
    Defect("append_kv", "append_kv", "if slot >= 0:", "if slot >= -1:"),
    Defect("copy_blocks", "copy_blocks", "src, dst = pairs", "dst, src = pairs"),
    Defect("gather_kv", "gather_kv", "[j % S for", "[(j - span.start) % S for"),
    Defect("gather_slots", "gather_slots", "+ j % page_size", "+ 0"),
    Defect(
        "common_prefix_len", "common_prefix_len", "// page * page", "",
        laws=("pages_round_the_length_in_tokens_down",),
    ),
    Defect("match_tree", "match_tree", "[:page] == wanted", "[:1] == wanted[:1]"),
    Defect("rope", "_rope", "if interleaved else", "if not interleaved else"),
    Defect("rope_append_kv", "rope_append_kv", "keys.y, v[stored]", "k[stored], v[stored]"),
    # a window of W for W - 1; causal from the top left; KV head h % Hk; lse to base 2
    Defect(
        "varlen_attention", "_attention", "key >= pos - left", "key > pos - left",
        laws=("sdpa_of_torch",),
    ),
    Defect(
        "varlen_attention", "_attention", "arange(kv_len - q_len, kv_len,", "arange(q_len,",
        laws=("chunks_of_queries_are_the_whole",),
    ),
    Defect(
        "varlen_attention", "_attention", "x.repeat_interleave(group, 0)", "x.repeat(group, 1, 1)",
        laws=("grouped_heads_are_repeated_heads",),
    ),
    Defect(
        "varlen_attention", "_attention", "lse=lse,", "lse=lse / math.log(2),",
        laws=("a_prefix_and_a_suffix_merge_to_the_whole",),
    ),
    Defect(
        "paged_attention", "paged_attention", "= block_table[b, :", "= block_table[b].sort()[0][:"
    ),
    Defect("merge_states", "_merge", ".double().masked_fill(~seen[..., None], 0.0)", ".double()"),
    Defect("merge_states_n", "_merge", "(own - level).exp()", "(own - level).exp2()"),
    Defect(
        "radix_attention", "_block", "turned_k.after.y[stored], v.z", "k.z[stored], v.z",
        laws=("it_is_the_chain_of_the_same_kernels",),
    ),
    Defect(
        "penalize", "penalize", "given > 0, given / theta", "given != 0, given / theta",
        laws=("repetition_is_that_of_transformers",),
    ),
    Defect(
        "penalize", "penalize", "| (_counts(prompt, prompt_indptr, given.shape[-1]) > 0)", "",
        laws=("repetition_is_that_of_transformers",),
    ),
    # the token that crosses top_p is lost: in what is decided, and in what may be kept
    Defect("filter_tokens", "_sampling", "(above < P)) & (p", "(above + p / total < P)) & (p"),
    Defect(
        "filter_tokens", "_sampling", "(surely_above - BAND < P)", "(surely_above + p / total < P)",
        laws=("kept_tokens_are_those_of_the_warpers",),
    ),
    Defect("filter_tokens", "_sampling", "left = given >= threshold", "left = given > threshold"),
    Defect("draw_tokens", "_noise", "zero + np.uint64(position)", "zero"),
    Defect("draw_tokens", "_noise", "-np.log1p(-low), -np.log(high)", "-np.log(low), -np.log(low)"),
    Defect("sample", "_sampling", " / T.masked_fill(greedy, 1.0)", ""),
    Defect("greedy", "greedy", "torch.where(valid[:, 0], first, -1)", "first"),
    # an insert that refreshes nothing; eviction of what is locked
    Defect("radix_cache", "_prefix_set", "        self.match(tokens)\n", ""),
    Defect("radix_cache", "_prefix_set", "- extended - self.locked()", "- extended"),
    Defect("block_pool", "_page_counts", "if self.users[page] == 0:", "if True:"),
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


def judged(op: ops.Op, name: str) -> Callable[[], None]:
    """A kernel on drawn cases, judged by the reference as it is."""
    law = Law(op, op.kernels[name])

    @drawn
    @given(case=strategies.of(op.name))
    def run(case: Any) -> None:
        (args, options), (own, _) = law.inputs(case), law.inputs(case)
        call = op.bind(**own, **options)
        expected = op.reference(**call.args, **call.options)
        judges: dict[str, Any] = {name: own[name] for name in op.signature.mutated}
        if op.comparison is not None:
            judges |= op.comparison(expected, call, law.kernel.contract)
        returned = op(**args, **options, kernel=name)
        many = returned if isinstance(returned, tuple) else (returned,)
        actual = args | dict(zip((p.name for p in op.signature.results), many, strict=False))
        for label, judge in judges.items():
            compare(label, judge, actual[label])

    return run


def compare(label: str, judge: Any, actual: Any) -> None:
    """One result; a list of tensors one by one; a tensor that the reference wrote, bit for bit."""
    if isinstance(judge, list):
        for one, other in zip(judge, actual, strict=True):
            compare(label, one, other)
        return
    if isinstance(judge, Written):
        actual = judge.select(actual)
    judgement = (Exact(judge) if isinstance(judge, Tensor) else judge).judge(label, actual)
    assert judgement.check is None, judgement.reason


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
def test_a_planted_defect_is_found(defect: Defect) -> None:
    """By the op's other kernel or, where only what is decided is wrong and not what is allowed, by
    judging the reference itself."""
    op = ops.get(defect.op)
    other = next(n for n in op.kernels if n.startswith(("torch.", "host.")))
    with planted(defect), pytest.raises(AssertionError):
        judged(op, other)()
        judged(op, "reference")()


LAWS = [(defect, law) for defect in DEFECTS for law in defect.laws]


@pytest.mark.parametrize(("defect", "law"), LAWS, ids=str)
def test_a_law_breaks_by_a_planted_defect(defect: Defect, law: str) -> None:
    """Without any other kernel: calls of the wrong reference contradict each other, or a peer."""
    with planted(defect), pytest.raises(AssertionError):
        law_of(ops.get(defect.op), law)()


def test_every_op_has_a_defect() -> None:
    assert set(ops.OPS) == {defect.op for defect in DEFECTS}


def test_angles_in_float32_are_another_meaning() -> None:
    """Why rope takes a table (decision 0027): position times frequency in float32, far out."""
    at, D = 131_071, 128
    exponent = torch.arange(0, D, 2, dtype=torch.float64) / D
    exact = at * 10_000.0**-exponent
    rounded = torch.tensor(float(at)) * (10_000.0 ** -exponent.float())
    assert 1e-3 < float((rounded.double() - exact).abs().max()) < 1e-2
