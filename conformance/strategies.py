"""What the strategies of several ops share. A strategy draws sizes, options and names, never
floats: a Case shrinks to a small shape, and its repr is the reproduction. Each op's own strategy is
``cases`` in its test_<op>.py."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from yaie.op import Kernel


@lru_cache(maxsize=None, typed=True)
def among(*values: Any) -> st.SearchStrategy[Any]:
    """One of these values. The same ones give the same strategy, so that Hypothesis, which looks
    every strategy over before its first use, does it once and not for every Case."""
    return st.sampled_from(values)


@cache
def integers(least: int, most: int) -> st.SearchStrategy[int]:
    """A whole number from ``least`` to ``most``, looked over once as ``among``."""
    return st.integers(least, most)


def mostly(usual: Any, *others: Any) -> st.SearchStrategy[Any]:
    """``usual`` in two cases of three, else one of the others: what makes one tensor unlike the
    one that it comes with."""
    return among(*[usual] * (2 * len(others)), *others)


FLOATS = st.sampled_from(["float32", "float16", "bfloat16"])
NARROW = st.sampled_from(["float16", "bfloat16"])
SEEDS = st.integers(0, 2**32 - 1)
PAGE_SIZES = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 16, 32, 48, 61, 64, 100, 128, 256, 512])
HEAD_DIMS = st.sampled_from([8, 16, 32, 40, 64, 80, 96, 128, 192, 256, 1, 3, 20])
EVEN_HEAD_DIMS = st.sampled_from([8, 16, 32, 40, 64, 80, 96, 128, 192, 256])
"""Those that kernels on tensor cores take."""
TILE_EDGES = st.sampled_from([15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 256, 257])
TOKENS = st.integers(1, 40)

# Extremes that shrink to the ordinary: the simplest value comes first, the wanted ones follow.
MANY_PAGES = st.sampled_from([3, *[140_000] * 15])
LONG_CONTEXT = st.sampled_from([1, 33, *[8200, 4097, 8200] * 4])


def of(op: str) -> st.SearchStrategy[Any]:
    """The strategy of an op's Cases."""
    strategy: st.SearchStrategy[Any] = importlib.import_module(f"conformance.test_{op}").cases()
    return strategy


def feed(take: Callable[[Any], None], op: str, examples: int, number: int) -> None:
    """Give ``take`` so many Cases of an op, the same ones for the same number. What it raises is
    not shrunk."""

    @seed(number)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=of(op))
    def given_case(case: Any) -> None:
        take(case)

    given_case()


SEVERAL_TILES = st.sampled_from([127, 128, 129, 192, 255, 256, 257, 300])


@cache
def _lengths(page_size: int) -> st.SearchStrategy[int]:
    """Numbers of keys: few, around the edges of tiles and of pages, any."""
    return st.one_of(
        st.integers(0, 9),
        TILE_EDGES,
        SEVERAL_TILES,
        st.builds(lambda a, r: max(0, 128 * a + r), st.integers(0, 3), st.integers(-9, 9)),
        st.integers(1, 4).map(lambda n: min(n * page_size, 300)),
        st.integers(1, 3).map(lambda n: min(n * page_size + 1, 300)),
        st.integers(0, 200),
    )


@cache
@st.composite
def sequence(draw: st.DrawFn, page_size: int) -> tuple[int, int]:
    """(q_len, kv_len): decode, a chunk after a prefix, a whole prompt, or something degenerate."""
    kv_len = draw(_lengths(page_size))
    kind = draw(among("decode", "chunk", "prompt", "decode", "chunk", "none", "more"))
    if kind == "decode":
        return 1, kv_len
    if kind == "chunk":
        return draw(integers(1, 5)), kv_len
    if kind == "prompt":
        return min(kv_len, 20), min(kv_len, 20)
    return (0, kv_len) if kind == "none" else (min(kv_len, 8) + draw(integers(1, 3)), kv_len)


@cache
@st.composite
def mask_options(draw: st.DrawFn) -> dict[str, Any]:
    """Mask and score options; none in half of the cases, so that scores are as the family made
    them."""
    causal = draw(among(True, True, False))
    if draw(st.booleans()):
        return {"causal": causal}
    left = draw(among(-1, 0, 1, 3, 16, 63, 64, 127, 128, 200, 255, 2**31 - 1))
    right = draw(among(*[-1] * 5, 0, 2, 40) if causal else among(-1, 0, 2, 40, 2**31 - 1))
    return {
        "causal": causal,
        "window": (left, right),
        "softcap": draw(among(0.0, 20.0, 1.5, 0.5, 50.0, 0.3)),
        "scale": draw(among(None, 0.05, 1.0, -0.3, 0.0)),
    }


def fits_tensor_cores(kernel: Kernel) -> bool:
    """Whether most cases are best drawn from what kernels on tensor cores take: of the whole domain
    they decline five in six."""
    return kernel.contract.accumulator == "tensor_core"


RARELY = st.sampled_from([False] * 13 + [True])
"""Drawn before all else, where Hypothesis keeps to the odds best."""
WIDE_LENGTHS = st.sampled_from([1, 17, 33, 65, 129, 300])


@cache
@st.composite
def wide(draw: st.DrawFn) -> dict[str, Any]:
    """One axis far beyond the ordinary, the others small so that it stays cheap. Each shrinks to an
    ordinary size."""
    axis = draw(among(*["context", "pages", "batch", "queries"] * 2, "group", "splits", "heads"))
    if axis == "context":
        return {"Hk": 1, "D": 8, "Dv": 8, "sequences": [(1, draw(LONG_CONTEXT))]}
    if axis == "pages":
        kv_len = draw(integers(1, 9))
        spare = draw(MANY_PAGES)
        return {"S": 1, "Hk": 1, "D": 8, "Dv": 8, "sequences": [(1, kv_len)], "spare": spare}
    if axis == "batch":
        size = draw(among(1, *[6, 9, 17, 40] * 2))
        lengths = draw(st.lists(integers(1, 20), min_size=size, max_size=size))
        return {"Hk": 1, "D": 8, "Dv": 8, "G": 1, "sequences": [(1, n) for n in lengths]}
    if axis == "queries":
        q_len = draw(WIDE_LENGTHS)
        return {"Hk": 1, "D": 8, "Dv": 8, "G": 1, "sequences": [(q_len, q_len + draw(TOKENS))]}
    if axis == "heads":
        return {"Hk": draw(among(1, 5, 8, 8, 17, 40)), "G": draw(among(1, 2)), "D": 8, "Dv": 8}
    if axis == "group":
        return {"D": 8, "Dv": 8, "G": draw(among(1, 16, 17, 32, 64, 71, 128))}
    D = draw(among(64, 128, 256))
    length = draw(among(1, 301, 400, 512, 700, 1000))
    return {
        "Hk": 1,
        "G": draw(among(1, 4)),
        "D": D,
        "Dv": D,
        "sequences": [(1, length)],
    }
