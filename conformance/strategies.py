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
PAGE_SIZES = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 16, 32, 48, 64, 100, 128, 256, 512])
HEAD_DIMS = st.sampled_from([8, 16, 32, 40, 64, 80, 96, 128, 192, 256, 1, 3, 20])
TILE_EDGES = st.sampled_from([15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 256, 257])


TOKENS = st.integers(1, 40)

# Extremes that shrink to the ordinary: the simplest value comes first, the wanted ones follow.
MANY_PAGES = st.sampled_from([3, *[140_000] * 15])
LONG_CONTEXT = st.sampled_from([1, 33, *[8200, 4097, 8200] * 4])


@st.composite
def append_kv(draw: st.DrawFn) -> Any:
    S = draw(st.integers(1, 17))
    P = draw(st.sampled_from([2, 1, 3, 4, 5, 6, 6, 0]))
    Hk, D = draw(st.integers(1, 4)), draw(HEAD_DIMS)
    Dv = draw(st.one_of(st.just(D), HEAD_DIMS))
    if draw(st.integers(0, 11)) == 11:  # slots beyond 16 bits, hundreds of tokens
        S, P, Hk, D, Dv = 256, draw(st.sampled_from([3, 300, 300, 300])), 1, 8, 8
    return ops.append_kv.Case(
        T=min(draw(st.one_of(TOKENS, st.integers(0, 600), st.just(600))), P * S),
        P=P,
        S=S,
        Hk=Hk,
        D=D,
        Dv=Dv,
        dtype=draw(FLOATS),
        skip=draw(st.sampled_from([0, 0, 0, 2, 3, 4, 1])),
        layout=draw(st.sampled_from(LAYOUTS)),
        cache_shift=draw(st.sampled_from([0, 0, 1, 2])),
        family=draw(st.sampled_from(["normal", "bits"])),
        seed=draw(SEEDS),
    )


COPIED_DTYPES = ["float32", "float16", "bfloat16", "float64", "uint8", "int8", "int32", "int64"]
# Around one, two and more of the chunks that a block of the vec kernel copies (1024 words), and
# pages of real models.
BIG_PAGES = st.sampled_from(
    [(1023,), (1025,), (2049,), (4096,), (5000,), (16, 8, 128), (17, 5, 100)]
)


@st.composite
def copy_blocks(draw: st.DrawFn) -> Any:
    P = draw(st.one_of(st.integers(2, 12), st.integers(2, 12), st.integers(1, 12)))
    L = draw(st.sampled_from([2, 1, 3, 4, 2, 3, 65, 130, 0]))  # a launch takes 64
    dims = HEAD_DIMS if L < 5 else st.sampled_from([8, 1, 3])
    page = st.tuples(st.integers(1, 9), st.integers(1, 3), dims)
    if L < 5:
        page = st.one_of(page, page, BIG_PAGES)
    extreme = draw(st.integers(0, 23))
    if extreme >= 21:  # tens of pairs
        P, L, page = draw(st.sampled_from([2, 24, 64, 200])), min(L, 2), st.just((1, 1, 8))
    if extreme == 20:  # page ids beyond 16 bits
        P, L, page = draw(MANY_PAGES), min(L, 2), st.just((1,))
    return ops.copy_blocks.Case(
        L=L,
        P=P,
        page=draw(page),
        M=draw(
            st.one_of(
                st.integers(1, 9), st.just(min(P, 100)), st.integers(0, 9), st.integers(10, 100)
            )
        ),
        dtype=draw(st.sampled_from(COPIED_DTYPES)),
        kind=draw(st.sampled_from([*KINDS, "distinct", "mixed", "fan-out"])),
        layers=draw(st.sampled_from(LAYERS)),
        seed=draw(SEEDS),
    )


SEVERAL_TILES = st.sampled_from([127, 128, 129, 192, 255, 256, 257, 300])


@st.composite
def _sequence(draw: st.DrawFn, page_size: int) -> tuple[int, int]:
    """(q_len, kv_len): decode, a chunk after a prefix, a whole prompt, or something degenerate."""
    kv_len = draw(
        st.one_of(
            st.integers(0, 9),
            TILE_EDGES,
            SEVERAL_TILES,
            st.builds(lambda a, r: max(0, 128 * a + r), st.integers(0, 3), st.integers(-9, 9)),
            st.integers(1, 4).map(lambda n: min(n * page_size, 300)),
            st.integers(1, 3).map(lambda n: min(n * page_size + 1, 300)),
            st.integers(0, 200),
        )
    )
    kind = draw(st.sampled_from(["decode", "chunk", "prompt", "decode", "chunk", "none", "more"]))
    if kind == "decode":
        return 1, kv_len
    if kind == "chunk":
        return draw(st.integers(1, 5)), kv_len
    if kind == "prompt":
        return min(kv_len, 20), min(kv_len, 20)
    return (0, kv_len) if kind == "none" else (min(kv_len, 8) + draw(st.integers(1, 3)), kv_len)


@st.composite
def _options(draw: st.DrawFn) -> dict[str, Any]:
    """Mask and score options; none in half of the cases, so that scores are as the family made
    them."""
    causal = draw(st.sampled_from([True, True, False]))
    if draw(st.booleans()):
        return {"causal": causal}
    left = draw(st.sampled_from([-1, 0, 1, 3, 16, 63, 64, 127, 128, 200, 255, 2**31 - 1]))
    right = -1 if causal else draw(st.sampled_from([-1, 0, 2, 40, 2**31 - 1]))
    return {
        "causal": causal,
        "window": (left, right),
        "softcap": draw(st.sampled_from([0.0, 20.0, 1.5])),
        "scale": draw(st.sampled_from([None, 0.05, 1.0, -0.3, 0.0])),
    }


WIDE_LENGTHS = st.sampled_from([1, 17, 33, 65, 129, 300])


@st.composite
def _wide(draw: st.DrawFn) -> dict[str, Any]:
    """One axis far beyond the ordinary, the others small so that it stays cheap. Each shrinks to an
    ordinary size."""
    axis = draw(st.sampled_from([*["context", "pages", "batch"] * 2, "queries", "group", "splits"]))
    if axis == "context":
        return {"Hk": 1, "D": 8, "Dv": 8, "sequences": [(1, draw(LONG_CONTEXT))]}
    if axis == "pages":
        kv_len = draw(st.integers(1, 9))
        spare = draw(MANY_PAGES)
        return {"S": 1, "Hk": 1, "D": 8, "Dv": 8, "sequences": [(1, kv_len)], "spare": spare}
    if axis == "batch":
        size = draw(st.sampled_from([1, *[6, 9, 17, 40] * 2]))
        lengths = draw(st.lists(st.integers(1, 20), min_size=size, max_size=size))
        return {"Hk": 1, "D": 8, "Dv": 8, "G": 1, "sequences": [(1, n) for n in lengths]}
    if axis == "queries":
        q_len = draw(WIDE_LENGTHS)
        return {"Hk": 1, "D": 8, "Dv": 8, "G": 1, "sequences": [(q_len, q_len + draw(TOKENS))]}
    if axis == "group":
        return {"D": 8, "Dv": 8, "G": draw(st.sampled_from([1, 16, 17, 32, 64]))}
    D = draw(st.sampled_from([64, 128, 256]))
    length = draw(st.sampled_from([1, 301, 400, 512, 700, 1000]))
    return {
        "Hk": 1,
        "G": draw(st.sampled_from([1, 4])),
        "D": D,
        "Dv": D,
        "sequences": [(1, length)],
    }


@st.composite
def paged_attention(draw: st.DrawFn) -> Any:
    S = draw(PAGE_SIZES)
    fewest = draw(st.sampled_from([1, 1, 1, 2, 2, 3, 0]))
    D = draw(HEAD_DIMS)
    sizes = {
        "S": S,
        "Hk": draw(st.integers(1, 3)),
        "G": draw(st.sampled_from([1, 2, 3, 4, 5, 8, 12, 16])),
        "D": D,
        "Dv": draw(st.one_of(st.just(D), st.just(D), st.just(D), HEAD_DIMS)),
        "sequences": draw(st.lists(_sequence(S), min_size=fewest, max_size=4)),
        "spare": draw(st.integers(0, 3)),
    }
    if draw(st.sampled_from([False, False, True])):
        sizes |= draw(_wide())
    sequences = sizes.pop("sequences")
    return ops.paged_attention.Case(
        q_lens=tuple(q for q, _ in sequences),
        kv_lens=tuple(kv for _, kv in sequences),
        **sizes,
        dtype=draw(FLOATS),
        table=draw(st.sampled_from(TABLES)),
        tail=draw(st.integers(0, 2)),
        table_gap=draw(st.sampled_from([0, 0, 1, 3])),
        layout=draw(st.sampled_from(LAYOUTS)),
        cache_shift=draw(st.sampled_from([0, 0, 1, 4])),
        family=draw(st.sampled_from(sorted(FAMILIES))),
        seed=draw(SEEDS),
        **draw(_options()),
    )


STRATEGIES = {
    "append_kv": append_kv(),
    "copy_blocks": copy_blocks(),
    "paged_attention": paged_attention(),
}
"""The strategy of each op's Cases, by the op's name."""
