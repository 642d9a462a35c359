"""The guide's public names: what they promise, and each defect that its printed code has."""

from __future__ import annotations

import json
import math
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.nn.functional import scaled_dot_product_attention

import yaie
from yaie import (
    KVCacheManager,
    RadixAttentionBlock,
    RadixTree,
    SamplingKernel,
    api,
    apply_rotary_pos_emb,
    attention_forward,
    benchmark_kernel,
    copy_blocks,
    paged_attention_forward,
    profile_kernel,
    rotate_half,
)
from yaie.op import Kernel


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def close(expected: Tensor, actual: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=2e-5, atol=2e-5)


def sdpa(q: Tensor, k: Tensor, v: Tensor, keep: Tensor, scale: float | None = None) -> Tensor:
    """[S,Hq,D], [N,Hk,D], [N,Hk,D] under an explicit mask."""
    group = q.shape[1] // k.shape[1]
    q, k, v = (x.transpose(0, 1) for x in (q, *(x.repeat_interleave(group, 1) for x in (k, v))))
    return scaled_dot_product_attention(q, k, v, attn_mask=keep, scale=scale).transpose(0, 1)


def bottom_right(queries: int, keys: int) -> Tensor:
    return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)


# attention_forward ---------------------------------------------------------------------------


@pytest.mark.parametrize("use_cuda", [True, False])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_attention_is_causal_scaled_and_normalised(kv_heads: int, use_cuda: bool) -> None:
    q, k, v = (
        normal(2, 40, 4, 8),
        normal(2, 40, kv_heads, 8, seed=1),
        normal(2, 40, kv_heads, 8, seed=2),
    )
    out = attention_forward(q, k, v, use_cuda)
    for b in range(2):
        close(sdpa(q[b], k[b], v[b], bottom_right(40, 40)), out[b])


def test_attention_options() -> None:
    q, k, v = normal(1, 3, 2, 8), normal(1, 7, 2, 8, seed=1), normal(1, 7, 2, 8, seed=2)
    every = torch.ones(3, 7, dtype=torch.bool)
    out = attention_forward(q, k, v, causal=False, scale=0.7)
    close(sdpa(q[0], k[0], v[0], every, 0.7), out[0])
    close(sdpa(q[0], k[0], v[0], bottom_right(3, 7)), attention_forward(q, k, v)[0])


def test_padding_is_neither_read_nor_written() -> None:
    q, k, v = normal(3, 6, 4, 8), normal(3, 6, 2, 8, seed=1), normal(3, 6, 2, 8, seed=2)
    lengths = [4, 0, 6]
    for b, n in enumerate(lengths):
        for x in (q, k, v):
            x[b, n:] = math.nan
    out = attention_forward(q, k, v, seq_lens=torch.tensor(lengths))
    for b, n in enumerate(lengths):
        close(sdpa(q[b, :n], k[b, :n], v[b, :n], bottom_right(n, n)), out[b, :n])
        assert not bool(out[b, n:].any())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seq_lens": torch.tensor([1, 7])}, "seq_lens"),
        ({"seq_lens": torch.tensor([-1, 2])}, "seq_lens"),
        ({"seq_lens": torch.tensor([1])}, "seq_lens"),
        ({"query": normal(6, 4, 8)}, "query: rank"),
        ({"key": normal(3, 6, 2, 8)}, "B must agree"),
        ({"key": normal(2, 6, 3, 8), "value": normal(2, 6, 3, 8)}, "Hq is 4"),
    ],
)
def test_attention_refuses_in_words(change: dict[str, Any], says: str) -> None:
    given = {"query": normal(2, 6, 4, 8), "key": normal(2, 6, 2, 8), "value": normal(2, 6, 2, 8)}
    with pytest.raises(ValueError, match=says):
        attention_forward(**{**given, **change})


def test_the_same_call_twice_gives_the_same_bits() -> None:
    """The printed fallback made a new block with random weights at every call."""
    x = normal(1, 5, 2, 8)
    assert torch.equal(attention_forward(x, x, x), attention_forward(x, x, x))


def test_a_gpu_that_cannot_serve_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = Kernel("varlen_attention", "torch.eager", lambda **_: "served", device="any")
    cuda = Kernel("varlen_attention", "cuda.mma", print, device="cuda", supports=lambda _: "D is 7")
    call = SimpleNamespace(device=torch.device("cuda"), args={}, options={})
    op = SimpleNamespace(
        name="varlen_attention",
        kernels={"cuda.mma": cuda, "torch.eager": ran},
        prepare=lambda *args, **options: (ran, call),
    )
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    api._warn_once.cache_clear()
    with pytest.warns(RuntimeWarning, match=r"no CUDA kernel runs on a GPU.*cuda\.mma: D is 7"):
        assert "served" == api._call(op, use_cuda=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "served" == api._call(op, use_cuda=True)
        assert "served" == api._call(op, use_cuda=False)


# paged_attention_forward ---------------------------------------------------------------------


def test_paged_attention_reads_the_table_and_stops_at_the_context() -> None:
    lengths, size = [5, 9], 4
    keys = [normal(n, 2, 8, seed=n) for n in lengths]
    values = [normal(n, 2, 8, seed=n + 50) for n in lengths]
    table = torch.tensor([[6, 1, -1], [3, 0, 5]], dtype=torch.int32)
    caches = [torch.full((7, size, 2, 8), math.nan) for _ in range(2)]
    for cache, rows in zip(caches, (keys, values), strict=True):
        for b, row in enumerate(rows):
            for j in range(len(row)):
                cache[table[b, j // size], j % size] = row[j]
    q = normal(2, 3, 4, 8, seed=9)
    context = torch.tensor(lengths, dtype=torch.int32)
    out = paged_attention_forward(q, *caches, table, context, num_kv_heads=2, num_queries_per_kv=2)
    for b, n in enumerate(lengths):
        close(sdpa(q[b], keys[b], values[b], bottom_right(3, n)), out[b])


@pytest.mark.parametrize("keyword", [{"num_kv_heads": 1}, {"num_queries_per_kv": 4}])
def test_paged_attention_refuses_keywords_that_contradict_the_shapes(
    keyword: dict[str, int],
) -> None:
    cache, table = normal(2, 4, 2, 8), torch.zeros(1, 1, dtype=torch.int32)
    context = torch.ones(1, dtype=torch.int32)
    with pytest.raises(ValueError, match=next(iter(keyword))):
        paged_attention_forward(normal(1, 1, 4, 8), cache, cache, table, context, **keyword)


# copy_blocks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("index", [torch.int32, torch.int64])
def test_whole_blocks_are_copied_and_the_others_kept(
    dtype: torch.dtype, index: torch.dtype
) -> None:
    """The printed kernel copied the first 256 elements of a block and zeroed all other blocks."""
    k, v = normal(6, 16, 4, 32, dtype=dtype), normal(6, 16, 4, 32, seed=1, dtype=dtype)
    before = k.clone(), v.clone()
    pairs = torch.tensor([[0, 3], [0, 4], [5, 5]], dtype=index)
    keys, values = copy_blocks(k, v, pairs, num_heads=4, head_dim=32, block_size=16)
    rows = [0, 1, 2, 0, 0, 5]
    assert torch.equal(before[0][rows], keys)
    assert torch.equal(before[1][rows], values)
    assert torch.equal(before[0], k)
    assert torch.equal(before[1], v)


def test_copy_blocks_refuses_keywords_that_contradict_the_shapes() -> None:
    cache, pairs = normal(2, 4, 1, 8), torch.zeros(0, 2, dtype=torch.int32)
    for keyword in ({"num_heads": 2}, {"head_dim": 4}, {"block_size": 16}):
        with pytest.raises(ValueError, match=next(iter(keyword))):
            copy_blocks(cache, cache, pairs, **keyword)


# Rotary embedding ----------------------------------------------------------------------------


def test_rotate_half() -> None:
    assert [-3.0, -4.0, 1.0, 2.0] == rotate_half(torch.tensor([1.0, 2.0, 3.0, 4.0])).tolist()


def test_rotary_honours_position_ids() -> None:
    angle = torch.arange(10.0)[:, None] * torch.tensor([1.0, 0.1])
    cos, sin = (torch.cat([f(angle)] * 2, -1) for f in (torch.cos, torch.sin))
    q, k = normal(2, 3, 4, 4), normal(2, 1, 4, 4, seed=1)
    ids = torch.tensor([[3, 1, 7, 0], [9, 9, 2, 5]])
    whole = [apply_rotary_pos_emb(q, k, cos, sin, ids)[i] for i in range(2)]
    for b in range(2):
        for s in range(4):
            at = ids[b, s]
            for x, made in zip((q, k), whole, strict=True):
                one = x[b, :, s] * cos[at] + rotate_half(x[b, :, s]) * sin[at]
                close(one, made[b, :, s])
    plain, by_default = apply_rotary_pos_emb(q, k, cos, sin, torch.arange(4)), None
    by_default = apply_rotary_pos_emb(q, k, cos, sin)
    assert torch.equal(plain[0], by_default[0])
    with pytest.raises(ValueError, match="position_ids"):
        apply_rotary_pos_emb(q, k, cos, sin, torch.tensor([0, 1, 2, 10]))


# RadixAttentionBlock -------------------------------------------------------------------------


def block(**changes: Any) -> RadixAttentionBlock:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_heads": 4, "head_dim": 8, "num_kv_heads": 2}
    return RadixAttentionBlock(**{**sizes, "max_position_embeddings": 64, **changes})


def test_the_block_is_causal() -> None:
    layer, x = block(), normal(2, 9, 32)
    changed = x.clone()
    changed[:, 5:] += 1.0
    first, second = layer(x), layer(changed)
    assert torch.equal(first[:, :5], second[:, :5])
    assert not torch.equal(first[:, 5:], second[:, 5:])


def test_tokens_one_by_one_are_the_whole() -> None:
    """Positions go on after the past; the printed code began again at 0."""
    layer, x = block(), normal(2, 9, 32)
    whole, none, present = layer(x, use_cache=True)
    assert none is None
    assert (2, 2, 9, 8) == tuple(present[0].shape)
    past, parts = None, []
    for t in range(9):
        out, _, past = layer(x[:, t : t + 1], past_key_value=past, use_cache=True)
        parts.append(out)
    close(whole, torch.cat(parts, 1))
    assert past is not None
    close(present[0], past[0])


def test_only_distances_between_positions_count() -> None:
    layer, x = block(), normal(1, 6, 32)
    shifted = layer(x, position_ids=torch.arange(6) + 40)
    close(layer(x), shifted)
    assert not torch.allclose(layer(x), layer(x, position_ids=torch.arange(6) * 3), atol=1e-4)


@pytest.mark.parametrize("ids", [torch.tensor([0, 64]), torch.tensor([-1, 0])])
def test_positions_beyond_the_table_are_refused(ids: Tensor) -> None:
    with pytest.raises(ValueError, match="position"):
        block()(normal(1, 2, 32), position_ids=ids)
    with pytest.raises(ValueError, match="max_position_embeddings"):
        block()(normal(1, 65, 32))
    _, _, past = block()(normal(1, 64, 32), use_cache=True)
    with pytest.raises(ValueError, match="max_position_embeddings"):
        block()(normal(1, 1, 32), past_key_value=past)


def test_angles_stay_exact_in_a_half_precision_block() -> None:
    """cos and sin in float16 lose the low frequencies at far positions."""
    layer = block(max_position_embeddings=40_000, hidden_size=64, head_dim=16).half()
    x = normal(1, 4, 64, dtype=torch.float16)
    far = torch.arange(4) + 39_000
    difference = (layer(x).float() - layer(x, position_ids=far).float()).abs().max()
    assert float(difference) < 4e-3


@pytest.mark.parametrize("given", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("parameters", [torch.float16, torch.float32])
def test_the_block_works_in_its_parameters_dtype_and_returns_the_inputs(
    given: torch.dtype, parameters: torch.dtype
) -> None:
    out, _, (keys, _) = block().to(parameters)(normal(1, 4, 32, dtype=given), use_cache=True)
    assert (given, parameters) == (out.dtype, keys.dtype)


@pytest.mark.parametrize("wrong", [{"num_kv_heads": 3}, {"num_kv_heads": 0}, {"head_dim": 7}])
def test_the_block_refuses_head_counts_that_do_not_fit(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        block(**wrong)


# SamplingKernel ------------------------------------------------------------------------------


def counts(rows: int, logits: list[float], **options: Any) -> list[float]:
    many = torch.tensor([logits]).expand(rows, -1)
    tokens = SamplingKernel().sample(many, generator=torch.Generator().manual_seed(3), **options)
    return (torch.bincount(tokens, minlength=len(logits)) / rows).tolist()


def test_temperature_zero_is_greedy() -> None:
    logits = torch.tensor([[1.0, 3.0, 3.0], [5.0, 0.0, -1.0]])
    ids = SamplingKernel().sample(logits, temperature=0.0)
    assert torch.int64 == ids.dtype
    assert [1, 0] == ids.tolist()


def test_the_token_that_crosses_top_p_is_kept() -> None:
    share = counts(4000, [math.log(0.5), math.log(0.25), math.log(0.25)], top_p=0.6)
    assert min(share) > 0.1
    assert [1.0, 0.0, 0.0] == counts(400, [math.log(0.5), math.log(0.3), math.log(0.2)], top_p=0.5)


def test_temperature_comes_before_top_p() -> None:
    logits = [math.log(0.6), math.log(0.4)]
    assert [1.0, 0.0] == counts(400, logits, top_p=0.6, temperature=0.5)
    assert counts(4000, logits, top_p=0.6, temperature=2.0)[1] > 0.3


def test_shares_are_those_of_softmax() -> None:
    share = counts(40_000, [0.0, math.log(2), math.log(5)], temperature=1.0)
    for expected, seen in zip((1 / 8, 2 / 8, 5 / 8), share, strict=True):
        assert pytest.approx(expected, abs=0.015) == seen


def test_top_k_and_min_p() -> None:
    assert [0.0, 0.0, 1.0] == counts(200, [0.0, 1.0, 2.0], top_k=1)
    for off in (-1, 0, 3, 100):
        assert min(counts(4000, [0.0, 0.5, 1.0], top_k=off)) > 0.1
    assert [0.0, 0.0, 1.0] == counts(200, [0.0, 1.0, 2.0], min_p=0.5)


def test_the_seed_comes_from_the_generator_and_calls_differ() -> None:
    logits = torch.zeros(8, 50)
    runs = []
    for _ in range(2):
        kernel, generator = SamplingKernel(), torch.Generator().manual_seed(5)
        runs.append([kernel.sample(logits, generator=generator).tolist() for _ in range(3)])
    assert runs[0] == runs[1]
    assert 3 == len({tuple(ids) for ids in runs[0]})
    assert len(set(runs[0][0])) > 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -2},
        {"min_p": 1.5},
        {"min_p": math.nan},
    ],
)
def test_bad_parameters_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SamplingKernel().sample(torch.zeros(1, 4), **wrong)
    with pytest.raises(ValueError, match="logits"):
        SamplingKernel().sample(torch.zeros(4))


# Host structures -----------------------------------------------------------------------------


def test_the_tree_finds_requests_that_share_the_first_token() -> None:
    tree = RadixTree()
    for name, tokens in {"b": [1, 2, 4], "a": [1, 2, 3], "c": [5], "d": [1, 7]}.items():
        tree.insert_request(name, tokens)
    assert (["a", "b", "d"], 2) == tree.find_shared_prefixes([1, 2, 5])
    assert ([], 0) == tree.find_shared_prefixes([9])
    graph = tree.get_shared_computation_graph()
    assert 4 == graph["request_count"]
    assert 9 == graph["total_tokens"]
    assert json.loads(json.dumps(graph)) == graph
    tree.remove_request("a")
    assert (["b", "d"], 2) == tree.find_shared_prefixes([1, 2, 3])
    with pytest.raises(KeyError):
        tree.remove_request("a")
    with pytest.raises(ValueError, match="b"):
        tree.insert_request("b", [1])


@pytest.mark.parametrize("there", [True, False])
def test_the_manager_is_on_the_gpu_if_there_is_one(
    there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    sizes = {"num_blocks": 2, "block_size": 4, "num_heads": 1, "head_dim": 8}
    with FakeTensorMode():
        manager = KVCacheManager(**sizes)
    assert ("cuda" if there else "cpu") == manager.device.type == manager.k_cache.device.type
    assert "cpu" == KVCacheManager(**sizes, device="cpu").device.type


def test_the_manager_takes_nothing_when_it_has_too_little() -> None:
    manager = KVCacheManager(num_blocks=3, block_size=4, num_heads=1, head_dim=8)
    assert [0, 1] == manager.allocate_blocks("a", 5)
    with pytest.raises(RuntimeError, match=r"2.*1"):
        manager.allocate_blocks("b", 8)
    assert 1 == len(manager.free_block_list)
    with pytest.raises(ValueError, match="a"):
        manager.allocate_blocks("a", 1)
    manager.free_blocks("a")
    assert 3 == len(manager.free_block_list)
    with pytest.raises(KeyError):
        manager.free_blocks("a")


# Timing --------------------------------------------------------------------------------------


def test_benchmark_kernel_returns_seconds_and_the_result() -> None:
    calls = []

    def work(x: int, y: int = 0) -> int:
        calls.append(x)
        return x + y

    seconds, result = benchmark_kernel(work, 2, y=3, warmup=2, repeats=4)
    assert (5, 6) == (result, len(calls))
    assert 0 <= seconds < 1
    with pytest.raises(ValueError, match="repeats is 0"):
        benchmark_kernel(work, 1, repeats=0)


def test_profile_kernel_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = profile_kernel(torch.matmul, torch.eye(4), torch.eye(4))
    assert torch.equal(torch.eye(4), result)
    assert "aten::matmul" in capsys.readouterr().out


def test_every_name_of_the_guide_is_exported() -> None:
    names = {"KVCacheBlock", "RadixTreeNode", "RadixTree", "KVCacheManager", "SamplingKernel"}
    names |= {"RadixAttentionBlock", "rotate_half", "apply_rotary_pos_emb", "attention_forward"}
    names |= {"paged_attention_forward", "copy_blocks", "benchmark_kernel", "profile_kernel"}
    assert names <= set(yaie.__all__)


WHOLE = [
    (lambda: torch.tensor([[0.9, 1.7]]), TypeError, "block_mapping is torch.float32"),
    (lambda: [[0, 1]], TypeError, "block_mapping is a list"),
    (lambda: torch.tensor([[2**32, 1]]), ValueError, "outside|out of range|not within|must be"),
]


@pytest.mark.parametrize(("mapping", "error", "words"), WHOLE)
def test_block_numbers_are_whole_and_do_not_wrap(mapping: Any, error: type, words: str) -> None:
    cache = torch.arange(4.0).view(4, 1, 1, 1)
    with pytest.raises(error, match=words):
        copy_blocks(cache, cache, mapping())


def test_lengths_are_whole_numbers() -> None:
    x = torch.randn(2, 3, 1, 4)
    for lengths in (torch.tensor([1.0, 2.0]), [1, 2]):
        with pytest.raises(TypeError, match="seq_lens is"):
            attention_forward(x, x, x, seq_lens=lengths)
