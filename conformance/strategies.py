"""Strategies that draw Cases. They draw sizes, options and names, never floats: a Case shrinks to a
small shape, and its repr is the reproduction."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from yaie import ops
from yaie.fill import FAMILIES, LAYOUTS
from yaie.ops._paged import TABLES
from yaie.ops.copy_blocks import KINDS, LAYERS

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
        cache_shift=draw(st.integers(0, 2)),
        family=draw(st.sampled_from(["normal", "bits"])),
        seed=draw(SEEDS),
    )


COPIED_DTYPES = ["float32", "float16", "bfloat16", "float64", "uint8", "int8", "int32", "int64"]
BIG_PAGES = st.sampled_from([(16, 8, 128), (17, 5, 100), (33, 8, 80)])  # of 16 KiB and more


@st.composite
def copy_blocks(draw: st.DrawFn) -> Any:
    P, L = draw(st.integers(1, 12)), draw(st.integers(0, 4))
    page = draw(st.tuples(st.integers(1, 9), st.integers(1, 3), HEAD_DIMS))
    M = draw(st.one_of(st.integers(0, P), st.just(P)))
    special = draw(st.integers(0, 23))
    if special == 23:  # more layers than one launch of the vec kernel takes
        L, page = L + 62, (page[0], 1, min(page[2], 8))
    elif special == 22:  # page ids beyond 16 bits
        L, P, page = min(L, 2), 140_000, (1, 1, 8)
    elif special >= 20:
        L, P, page = min(L, 3), min(P, 4), draw(BIG_PAGES)
    return ops.copy_blocks.Case(
        L=L,
        P=P,
        page=page,
        M=M,
        dtype=draw(st.sampled_from(COPIED_DTYPES)),
        kind=draw(st.sampled_from(KINDS)),
        layers=draw(st.sampled_from(LAYERS)),
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


LEFT = st.sampled_from([-1, -1, 0, 1, 3, 16, 63, 64, 200, 2**31 - 1])
RIGHT = st.sampled_from([-1, 0, 2, 40, 2**31 - 1])


@st.composite
def paged_attention(draw: st.DrawFn) -> Any:
    S = draw(PAGE_SIZES)
    sequences = draw(st.lists(_sequence(S), max_size=4))
    Hk, G = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 3, 4, 5, 8, 12]))
    D, spare = draw(HEAD_DIMS), draw(st.integers(0, 3))
    special = draw(st.integers(0, 31))
    if special == 31:  # a context of many tiles
        sequences, S, Hk, D = [(1, 4097 + spare)], max(S, 16), 1, min(D, 16)
    elif special == 30:  # page ids beyond 16 bits
        S, Hk, D, spare = 1, 1, min(D, 8), 140_000
    causal = draw(st.sampled_from([True, True, False]))
    small = special >= 30
    return ops.paged_attention.Case(
        q_lens=tuple(q for q, _ in sequences),
        kv_lens=tuple(kv for _, kv in sequences),
        S=S,
        Hk=Hk,
        G=G,
        D=D,
        Dv=D if small else draw(st.one_of(st.just(D), st.just(D), HEAD_DIMS)),
        dtype=draw(FLOATS),
        causal=causal,
        window=(draw(LEFT), -1 if causal else draw(RIGHT)),
        softcap=draw(st.sampled_from([0.0, 0.0, 20.0, 1.5])),
        scale=draw(st.sampled_from([None, None, 0.05, 1.0, -0.3])),
        table=draw(st.sampled_from(TABLES)),
        spare=spare,
        tail=draw(st.integers(0, 2)),
        layout=draw(st.sampled_from(LAYOUTS)),
        cache_shift=draw(st.sampled_from([0, 0, 1, 4])),
        family=draw(st.sampled_from(sorted(FAMILIES))),
        seed=draw(SEEDS),
    )


STRATEGIES = {
    "append_kv": append_kv(),
    "copy_blocks": copy_blocks(),
    "paged_attention": paged_attention(),
}
"""The strategy of each op's Cases, by the op's name."""
