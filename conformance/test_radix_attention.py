"""radix_attention against its page."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conformance import laws, peers
from conformance.strategies import FLOATS, SEEDS, among, integers
from yaie import ops
from yaie.ops._paged import TABLES
from yaie.ops.radix_attention import FAMILIES

OP = ops.radix_attention


@st.composite
def sequence(draw: st.DrawFn) -> tuple[int, int]:
    """(q_len, kv_len): a prompt after a cached prefix, decode, or nothing to do."""
    kind = draw(among("seven", "seven", "chunk", "decode", "prompt", "none"))
    if kind == "seven":
        return 7 - draw(integers(0, 6)), 7
    kv_len = draw(st.one_of(integers(1, 20), integers(1, 70)))
    if kind == "chunk":
        return draw(integers(1, min(kv_len, 9))), kv_len
    if kind == "prompt":
        return min(kv_len, 24), min(kv_len, 24)
    return (1, kv_len) if kind == "decode" else (0, draw(among(0, kv_len)))


@st.composite
def masks(draw: st.DrawFn) -> dict[str, Any]:
    causal = draw(among(True, True, False))
    if draw(st.booleans()):
        return {"causal": causal}
    right = draw(among(-1, -1, -1, 0, 2) if causal else among(-1, 0, 2))
    return {
        "causal": causal,
        "window": (draw(among(-1, 0, 1, 3, 16)), right),
        "softcap": draw(among(0.0, 20.0, 1.5)),
        "scale": draw(among(None, 0.05, 0.3, -0.3)),
    }


@st.composite
def cases(draw: st.DrawFn) -> Any:
    fewest = draw(among(1, 1, 2, 2, 3, 0))
    batch = draw(st.lists(sequence(), min_size=fewest, max_size=4))
    D = draw(among(8, 16, 32, 2, 5, 20, 64))
    whole = D - D % 2
    return ops.radix_attention.Case(
        q_lens=tuple(q for q, _ in batch),
        kv_lens=tuple(kv for _, kv in batch),
        S=draw(among(4, 1, 2, 3, 5, 8, 16, 64)),
        Hk=draw(integers(1, 3)),
        G=draw(among(1, 2, 3, 4)),
        D=D,
        E=draw(among(16, 8, 24, 33, 64, 128)),
        R=draw(among(whole, whole, 2, max(2, whole // 2 - whole // 2 % 2))),
        M=max([1, *(kv for _, kv in batch)]) + draw(integers(0, 20)),
        dtype=draw(FLOATS),
        interleaved=draw(st.booleans()),
        skip=draw(among(0, 0, 0, 0, 2, 3, 1)),
        gap=draw(among(0, 0, 1, 3)),
        table=draw(among(*TABLES)),
        spare=draw(integers(0, 3)),
        tail=draw(integers(0, 2)),
        cache_shift=draw(among(0, 0, 1, 4)),
        family=draw(among(*FAMILIES)),
        seed=draw(SEEDS),
        **draw(masks()),
    )


@given(case=cases())
def test_equivalence(conforms, kernel, case):
    conforms(case)


@pytest.mark.law(laws.DECLARED)
@laws.fewer()
@given(case=cases())
def test_it_is_the_chain_of_the_same_kernels(law, case):
    """Bit for bit, where the kernel is made of the kernels of that name (the reference rounds its
    last result alone)."""
    args, options = law.inputs(case)
    apart = {name: t.clone() for name, t in args.items()}
    whole = law.run(args, options)
    y = chain(law.kernel.name, apart, options)
    if law.kernel.name == "reference":
        distance = (whole["y"].double() - y.double()).norm(dim=-1)
        limit = 4 * model_of(law, case).norm(dim=-1)
        law.within(distance, torch.zeros_like(distance), 2 * limit, "distance of y")
        return
    law.exact(whole["y"], y, "y")
    for name in ("k_cache", "v_cache"):
        law.exact(args[name], apart[name], name)


def chain(kernel: str, args: dict[str, Any], options: dict[str, Any]) -> torch.Tensor:
    """y by the ops that the page names; the caches are changed in place."""
    x, wo, dim = args["x"], args["wo"], args["k_cache"].shape[3]
    options = dict(options)
    turn = {name: args[name] for name in ("positions", "cos_sin")}
    turn["interleaved"] = options.pop("interleaved")
    caches = {name: args[name] for name in ("k_cache", "v_cache")}
    heads, kv_heads = len(wo) // dim, args["k_cache"].shape[2]
    qkv = (x.float() @ args["wqkv"].float()).to(x.dtype).view(len(x), heads + 2 * kv_heads, dim)
    q, k, v = qkv.split([heads, kv_heads, kv_heads], 1)
    q, k = (ops.rope(part, **turn, kernel=kernel) for part in (q, k))
    ops.append_kv(k, v, **caches, slots=args["slots"], kernel=kernel)
    batch = {name: args[name] for name in ("block_table", "kv_lens", "q_indptr")}
    out, _ = ops.paged_attention(q, **caches, **batch, **options, kernel=kernel)
    return (out.flatten(1).float() @ wo.float()).to(x.dtype)


def model_of(law: laws.Law, case: Any, args: dict[str, Any] | None = None) -> torch.Tensor:
    """The standard errors of y for a kernel of the law's contract."""
    fresh, options = law.inputs(case)
    call = law.op.bind(**(args or fresh), **options)
    args = {name: t.clone() for name, t in call.args.items()}
    expected = law.op.reference(**args, **call.options)
    return law.op.comparison(expected, call, law.kernel.contract)["y"].model


def prompt(draw_length: int, case: Any) -> Any:
    """The case as one causal prompt, of which nothing is cached."""
    return replace(
        case,
        q_lens=(draw_length,),
        kv_lens=(draw_length,),
        M=max(case.M, draw_length),
        causal=True,
        window=(case.window[0], -1),
        skip=0,
        table="permuted",
    )


def part(args: dict[str, Any], start: int, end: int) -> dict[str, Any]:
    """The call for tokens start to end of a prompt, in the same caches."""
    ints = {"dtype": torch.int32}
    return {
        **args,
        **{name: args[name][start:end] for name in ("x", "positions", "slots")},
        "kv_lens": torch.tensor([end], **ints),
        "q_indptr": torch.tensor([0, end - start], **ints),
    }


def same_rows(law: laws.Law, a: torch.Tensor, b: torch.Tensor, model: torch.Tensor) -> None:
    """Two runs of one row may each be LAMBDA standard errors off."""
    distance = (a.double() - b.double()).norm(dim=-1)
    limit = 2 * 4.0 * model.norm(dim=-1)
    law.within(distance, torch.zeros_like(distance), limit, "distance of y")


@pytest.mark.law(laws.BUDGETS)
@laws.fewer()
@given(case=cases(), length=st.sampled_from([7, 7, 1, 5, 12]), data=st.data())
def test_whole_is_any_chunking(law, case, length, data):
    """A prompt at once, in two chunks cut anywhere, and token by token."""
    case = prompt(length, case)
    cut = data.draw(integers(0, length))
    args, options = law.inputs(case)
    model = model_of(law, case)
    whole = law.run({name: t.clone() for name, t in args.items()}, options)["y"]
    for bounds in ([0, cut, length], list(range(length + 1))):
        chunked = {name: t.clone() for name, t in args.items()}
        y = [
            law.run(part(chunked, start, end), options)["y"]
            for start, end in itertools.pairwise(bounds)
        ]
        same_rows(law, torch.cat(y), whole, model)


@pytest.mark.law(laws.BUDGETS)
@laws.fewer()
@given(case=cases(), pages=st.integers(1, 3), more=st.integers(1, 9))
def test_a_prefix_may_come_from_the_pages_of_another_request(law, case, pages, more):
    """Request 1 has the same first tokens: its table starts with the pages of request 0."""
    case = replace(case, S=min(case.S, 5))
    shared = pages * case.S
    length = shared + more
    case = prompt(length, case)
    args, options = law.inputs(case)
    model = model_of(law, case)
    whole = law.run(args, options)["y"]
    table = args["block_table"]
    P = len(args["k_cache"])
    wide = {}
    for name in ("k_cache", "v_cache"):
        wide[name] = torch.cat([args[name], torch.full_like(args[name], torch.nan)])
    own = torch.cat([table[:, :pages], table[:, pages:] + P], 1)
    slots = torch.tensor(
        [int(own[0, j // case.S]) * case.S + j % case.S for j in range(shared, length)]
    ).int()
    second = {**part({**args, **wide}, shared, length), "block_table": own, "slots": slots}
    same_rows(law, law.run(second, options)["y"], whole[shared:], model[shared:])


@pytest.mark.law(laws.ALWAYS)
@laws.fewer()
@given(case=cases())
def test_a_chunk_may_be_run_again(law, case):
    args, options = law.inputs(case)
    first = law.run(args, options)
    caches = {name: args[name].clone() for name in ("k_cache", "v_cache")}
    second = law.run(args, options)
    law.exact(second["y"], first["y"], "y")
    for name, cache in caches.items():
        law.exact(args[name], cache, name)


LAYERS = st.tuples(among(1, 2), among(1, 2, 3), among(4, 8), SEEDS)


def layer_of(model: str, Hk: int, G: int, D: int, seed: int) -> Any:
    """An attention layer of transformers with random weights, and its rotary embedding."""
    transformers = peers.load("transformers")
    module = peers.load(f"transformers.models.{model}.modeling_{model}")
    name = {"llama": "Llama", "qwen2": "Qwen2"}[model]
    config = getattr(transformers, f"{name}Config")(
        hidden_size=24,
        num_attention_heads=Hk * G,
        num_key_value_heads=Hk,
        head_dim=D,
        max_position_embeddings=64,
        attn_implementation="eager",
    )
    torch.manual_seed(seed)
    layer = getattr(module, f"{name}Attention")(config, layer_idx=0).eval()
    for bias in (p for n, p in layer.named_parameters() if n.endswith("bias")):
        torch.nn.init.zeros_(bias)  # the op has none
    return layer, getattr(module, f"{name}RotaryEmbedding")(config)


def agrees_with(law: laws.Law, model: str, Hk: int, G: int, D: int, seed: int) -> None:
    layer, rotary = layer_of(model, Hk, G, D, seed)
    case = ops.radix_attention.Case(
        q_lens=(9,), kv_lens=(9,), Hk=Hk, G=G, D=D, E=24, R=D, M=9, dtype="float32", seed=seed
    )
    args, options = law.inputs(case)
    cos, sin = rotary(args["x"], torch.arange(9)[None])
    mask = torch.full((9, 9), -torch.inf).triu(1)[None, None]
    with torch.no_grad():
        theirs = layer(args["x"][None], (cos, sin), mask)[0][0]
        weights = [getattr(layer, f"{n}_proj").weight for n in "qkv"]
        args["wqkv"] = torch.cat(weights).T.contiguous()
        args["wo"] = layer.o_proj.weight.T.contiguous()
    args["cos_sin"] = torch.cat([cos[0, :, : D // 2], sin[0, :, : D // 2]], 1).contiguous()
    y = law.run({name: t.clone() for name, t in args.items()}, options)["y"]
    same_rows(law, y, theirs, model_of(law, case, args))


@pytest.mark.peer("transformers Llama: attention layer")
@laws.fewer()
@given(sizes=LAYERS)
def test_a_llama_layer_of_transformers(law, sizes):
    agrees_with(law, "llama", *sizes)


@pytest.mark.peer("transformers Qwen2: attention layer without biases")
@laws.fewer()
@given(sizes=LAYERS)
def test_a_qwen_layer_of_transformers(law, sizes):
    agrees_with(law, "qwen2", *sizes)
