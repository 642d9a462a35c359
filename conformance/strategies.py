"""Strategies that draw Cases. They draw sizes, options and names, never floats: a Case shrinks to a
small shape, and its repr is the reproduction."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from yaie import ops
from yaie.fill import FAMILIES, LAYOUTS
from yaie.ops.copy_blocks import KINDS

FLOATS = st.sampled_from(["float32", "float16", "bfloat16"])
SEEDS = st.integers(0, 2**32 - 1)
PAGE_SIZES = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 16, 32, 48, 64, 100, 128, 256])
HEAD_DIMS = st.sampled_from([8, 1, 3, 16, 20, 32, 40, 64, 80, 96, 128, 192, 256])
TILE_EDGES = st.sampled_from([15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 256, 257])


@st.composite
def append_kv(draw: st.DrawFn) -> Any:
    S = draw(st.integers(1, 17))
    P = draw(st.integers(0, 6))
    D = draw(HEAD_DIMS)
    return ops.append_kv.Case(
        T=draw(st.one_of(st.integers(0, P * S), st.just(P * S))),
        P=P,
        S=S,
        Hk=draw(st.integers(1, 4)),
        D=D,
        Dv=draw(st.one_of(st.just(D), HEAD_DIMS)),
        dtype=draw(FLOATS),
        skip=draw(st.integers(0, 4)),
        layout=draw(st.sampled_from(LAYOUTS)),
        family=draw(st.sampled_from(["normal", "bits"])),
        seed=draw(SEEDS),
    )


@st.composite
def copy_blocks(draw: st.DrawFn) -> Any:
    P = draw(st.integers(1, 12))
    L = draw(st.integers(0, 4))
    if draw(st.integers(0, 11)) == 11:
        L += 62  # more than one launch of the vec kernel takes
    dims = HEAD_DIMS if L < 5 else st.sampled_from([8, 1, 3])
    return ops.copy_blocks.Case(
        L=L,
        P=P,
        page=draw(st.tuples(st.integers(1, 9), st.integers(1, 3), dims)),
        M=draw(st.one_of(st.integers(0, P), st.just(P))),
        dtype=draw(
            st.sampled_from(["float32", "float16", "bfloat16", "uint8", "int8", "int32", "int64"])
        ),
        kind=draw(st.sampled_from(KINDS)),
        seed=draw(SEEDS),
    )


@st.composite
def _sequence(draw: st.DrawFn, page_size: int) -> tuple[int, int]:
    """(q_len, kv_len): decode, a chunk after a prefix, a whole prompt, or something degenerate."""
    kv_len = draw(
        st.one_of(
            st.integers(0, 9),
            TILE_EDGES,
            st.integers(1, 4).map(lambda n: min(n * page_size, 300)),
            st.integers(1, 3).map(lambda n: min(n * page_size + 1, 300)),
            st.integers(0, 200),
        )
    )
    kind = draw(st.sampled_from(["decode", "chunk", "prompt", "none", "more"]))
    if kind == "decode":
        return 1, kv_len
    if kind == "chunk":
        return draw(st.integers(1, 5)), kv_len
    if kind == "prompt":
        return min(kv_len, 12), min(kv_len, 12)
    return (0, kv_len) if kind == "none" else (min(kv_len, 8) + draw(st.integers(1, 3)), kv_len)


@st.composite
def paged_attention(draw: st.DrawFn) -> Any:
    S = draw(PAGE_SIZES)
    sequences = draw(st.lists(_sequence(S), max_size=4))
    D = draw(HEAD_DIMS)
    causal = draw(st.sampled_from([True, True, False]))
    left = draw(st.sampled_from([-1, -1, 0, 1, 3, 16, 63, 64, 200]))
    right = -1 if causal else draw(st.sampled_from([-1, 0, 2, 40]))
    return ops.paged_attention.Case(
        q_lens=tuple(q for q, _ in sequences),
        kv_lens=tuple(kv for _, kv in sequences),
        S=S,
        Hk=draw(st.integers(1, 3)),
        G=draw(st.sampled_from([1, 2, 3, 4, 5, 8, 12])),
        D=D,
        Dv=draw(st.one_of(st.just(D), st.just(D), HEAD_DIMS)),
        dtype=draw(FLOATS),
        causal=causal,
        window=(left, right),
        softcap=draw(st.sampled_from([0.0, 0.0, 20.0, 1.5])),
        scale=draw(st.sampled_from([None, None, 0.05, 1.0, -0.3])),
        table=draw(st.sampled_from(["permuted", "reversed", "shared"])),
        spare=draw(st.integers(0, 3)),
        tail=draw(st.integers(0, 2)),
        layout=draw(st.sampled_from(LAYOUTS)),
        family=draw(st.sampled_from(sorted(FAMILIES))),
        seed=draw(SEEDS),
    )


STRATEGIES = {
    "append_kv": append_kv(),
    "copy_blocks": copy_blocks(),
    "paged_attention": paged_attention(),
}
"""The strategy of each op's Cases, by the op's name."""
