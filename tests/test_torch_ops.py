"""The ops as PyTorch operators: schemas, fake implementations, compiled functions, CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

import yaie
from yaie import kernels, ops
from yaie.arena import Arena
from yaie.fill import Fill
from yaie.kernels import torch_ops
from yaie.op import Kernel, Op
from yaie.signature import parse

WITH_KERNELS = [op for op in ops.OPS.values() if "simt.naive" in op.kernels]
PROGRAMS = ("radix_cache", "block_pool")
"""They run on the host."""
ON_DEVICES = [(op, "cpu") for op in ops.OPS.values()]
if torch.cuda.is_available():
    ON_DEVICES += [(op, "cuda") for op in ops.OPS.values() if op.name not in PROGRAMS]
every_op = pytest.mark.parametrize(("op", "device"), ON_DEVICES, ids=str)
our_op = pytest.mark.parametrize("op", WITH_KERNELS, ids=str)
needs_gpu = pytest.mark.skipif(
    kernels.native.extension("cuda") is None or not torch.cuda.is_available(),
    reason="needs a GPU, and the extension built for it",
)
WAITING = ("item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__int__", "__float__")
"""Methods of a tensor that must know its contents on the host."""


class Arguments:
    """The call of a Case, its tensors in memory of their own, with their strides."""

    def __init__(self, op: Op, case: Any = None, device: str = "cpu") -> None:
        case = op.good if case is None else case
        given, self.options = op.inputs(case, Fill(Arena(1 << 20), case.seed))
        self.op, self.device = op, device
        self.args = [_own(given[param.name], device) for param in op.signature.params]

    def written(self) -> list[Tensor]:
        """The tensors that the op writes to."""
        pairs = zip(self.op.signature.params, self.args, strict=True)
        return [t for param, value in pairs if param.mutated for t in _flat(value)]

    def run(self, function: Callable[..., Any]) -> list[Tensor]:
        """What a call returns, and what it leaves in the tensors that it writes to."""
        returned = function(*self.args, **self.options)
        return [*_flat(returned), *self.written()]

    def tensors(self) -> list[Tensor]:
        return [t for value in self.args for t in _flat(value)]


def _own(value: Any, device: str) -> Any:
    if isinstance(value, list):
        return [_own(v, device) for v in value]
    if value is None:
        return None
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=device).copy_(
        value
    )


def _flat(value: Any) -> list[Tensor]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def operator(op: Op | str) -> Any:
    return getattr(torch.ops.yaie, op if isinstance(op, str) else op.name)


def assert_same_bits(expected: list[Tensor], actual: list[Tensor]) -> None:
    assert len(expected) == len(actual)
    for a, b in zip(expected, actual, strict=True):
        assert (a.dtype, a.shape, a.device) == (b.dtype, b.shape, b.device)
        assert torch.equal(*(t.contiguous().view(torch.uint8) for t in (a, b)))


@contextmanager
def registered(op: Op, name: str, run: Callable[..., Any]) -> Iterator[None]:
    """A kernel of one test."""
    op.register(Kernel(op.name, name, run, preference=-1))
    try:
        with yaie.use(f"{op.name}={name}"):
            yield
    finally:
        del op.kernels[name]


# What is registered ---------------------------------------------------------------------------


def test_every_op_is_an_operator_and_nothing_else_is() -> None:
    names = torch._C._dispatch_get_all_op_names()
    assert {f"yaie::{name}" for name in ops.OPS} == {n for n in names if n.startswith("yaie::")}


def test_registering_again_changes_nothing() -> None:
    assert torch_ops.register() is torch_ops.register()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "append_kv",
            "(Tensor k, Tensor v, Tensor(a2!) k_cache, Tensor(a3!) v_cache, Tensor slots) -> ()",
        ),
        ("copy_blocks", "(Tensor(a0!)[] caches, Tensor pairs) -> ()"),
        (
            "gather_kv",
            "(Tensor k_cache, Tensor v_cache, Tensor block_table, Tensor kv_indptr, "
            "Tensor? kv_start=None, *, SymInt? total=None) -> (Tensor k, Tensor v)",
        ),
        (
            "varlen_attention",
            "(Tensor q, Tensor k, Tensor v, Tensor q_indptr, Tensor kv_indptr, *, "
            "bool causal=True, float? scale=None, SymInt[2] window=[-1, -1], float softcap=0., "
            "Tensor? alibi=None) -> (Tensor out, Tensor lse)",
        ),
    ],
)
def test_schemas(name: str, expected: str) -> None:
    assert f"yaie::{name}{expected}" == str(operator(name).default._schema)


def test_a_schema_is_that_of_the_signature() -> None:
    signature = parse("x?: list[any[P,...]], y!: float[T], *, n?: int=3, on=False -> z: float[T]")
    written = "(Tensor[]? x=None, Tensor(a1!) y, *, SymInt? n=3, bool on=False) -> (Tensor z)"
    assert written == torch_ops.schema(signature)


@every_op
def test_opcheck(op: Op, device: str) -> None:
    call = Arguments(op, device=device)
    found = torch.library.opcheck(operator(op).default, tuple(call.args), call.options)
    assert {"SUCCESS"} == set(found.values())


@pytest.mark.parametrize("op", ops.OPS.values(), ids=str)
def test_a_call_taken_at_its_word_is_what_the_door_makes_of_it(op: Op) -> None:
    real, fake = Arguments(op), Arguments(op, device="meta")
    expected = op.bind(*real.args, **real.options)
    actual = op.assume(*fake.args, **fake.options)
    assert (expected.axes, expected.options) == (actual.axes, actual.options)
    assert (expected.dtype, torch.device("meta")) == (actual.dtype, actual.device)


# A call ---------------------------------------------------------------------------------------


@our_op
def test_an_operator_is_its_op(op: Op) -> None:
    with yaie.use("simt.naive"):
        entered = kernels.entries()
        assert_same_bits(Arguments(op).run(op), Arguments(op).run(operator(op)))
    assert entered + 2 == kernels.entries()


@pytest.mark.parametrize("op", ops.OPS.values(), ids=str)
def test_bad_inputs_are_refused_by_the_op_or_by_the_schema(op: Op) -> None:
    """Of devices that differ the dispatcher knows nothing, but tensors on "meta" have no data."""
    for refusal in op.refusals:
        if refusal.what.endswith("device differs"):
            continue
        call = Arguments(op)
        names = [param.name for param in op.signature.params]
        given = {**dict(zip(names, call.args, strict=True)), **call.options}
        refusal.spoil(given)
        if refusal.what.endswith(("no tensor", "no list", "of another type")):
            with pytest.raises(RuntimeError, match="Expected a value of type"):
                operator(op)(**given)
        else:
            with pytest.raises(refusal.raises) as caught:
                operator(op)(**given)
            assert refusal.says in str(caught.value)


@pytest.mark.parametrize("op", [ops.greedy, ops.penalize, ops.merge_states], ids=str)
def test_results_are_contiguous_whatever_the_kernel_returns(op: Op) -> None:
    eager = op.kernels["torch.eager"].run

    def run(**given: Any) -> Any:
        results = tuple(torch.stack([t, t], -1)[..., 0] for t in _flat(eager(**given)))
        return results if len(results) > 1 else results[0]

    call = Arguments(op)
    with registered(op, "strided", run):
        assert not any(t.is_contiguous() for t in call.run(op))
        assert all(t.is_contiguous() for t in call.run(operator(op)))


@pytest.mark.parametrize("kernel", ["torch.eager", "simt.naive"])
@pytest.mark.parametrize("op", [op for op in WITH_KERNELS if op.signature.mutated], ids=str)
def test_writing_is_seen_by_autograd(op: Op, kernel: str) -> None:
    """Which refuses to use what it saved once it was written to."""
    call = Arguments(op)
    before = [t._version for t in call.written()]
    with yaie.use(kernel):
        call.run(operator(op))
        with torch.inference_mode():
            Arguments(op).run(operator(op))  # there are no versions
    assert all(t._version > version for t, version in zip(call.written(), before, strict=True))


@pytest.mark.parametrize("kernel", ["torch.eager", "simt.naive"])
def test_no_kernel_has_gradients(kernel: str) -> None:
    x, positions, cos_sin = Arguments(ops.rope).args
    x = x.float().requires_grad_()
    with yaie.use(kernel):
        y = torch.ops.yaie.rope(x, positions, cos_sin)
    with pytest.warns(UserWarning, match="yaie::rope: an autograd kernel was not registered"):
        y.sum().backward()
    assert x.grad is None


@our_op
def test_an_operator_waits_for_nothing(op: Op, monkeypatch: pytest.MonkeyPatch) -> None:
    call = Arguments(op)
    with yaie.use("simt.*"), yaie.checked(False), monkeypatch.context() as patch:
        for name in WAITING:
            patch.setattr(Tensor, name, lambda *_: pytest.fail("reads a tensor"))
        call.run(operator(op))


# Compiled -------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _nothing_compiled_before() -> None:
    torch._dynamo.reset()


def compiled(function: Callable[..., Any], backend: str = "aot_eager", **more: Any) -> Any:
    return torch.compile(function, fullgraph=True, backend=backend, **more)


@every_op
def test_a_compiled_function_says_what_the_op_says(op: Op, device: str) -> None:
    def between(*args: Any, **options: Any) -> list[Tensor]:
        """Reads what is written before and after."""
        pairs = zip(op.signature.params, args, strict=True)
        written = [t for param, value in pairs if param.mutated for t in _flat(value)]
        before = [t.clone() for t in written]
        return [*before, *_flat(operator(op)(*args, **options)), *(t.clone() for t in written)]

    eager, other = Arguments(op, device=device), Arguments(op, device=device)
    before = [t.clone() for t in eager.written()]
    results = eager.run(op)
    assert_same_bits([*before, *results, *eager.written()], other.run(compiled(between)))


def layer(x: Tensor, w: Tensor, caches: list[Tensor], **at: Tensor) -> tuple[Tensor, ...]:
    """Operators on views, between operations that a compiler fuses; a cache is read before it is
    written, and after."""
    yaie_ops = torch.ops.yaie
    q, k, v = (x @ w).view(len(x), 3, 2, 8).unbind(1)
    before = caches[0].sum()
    q = yaie_ops.rope_append_kv(
        q + 1, k, v, at["positions"], at["cos_sin"], *caches, at["slots"], interleaved=True
    )
    yaie_ops.copy_blocks(caches, at["pairs"])
    attended, lse = yaie_ops.paged_attention(
        q.cos(), *caches, at["table"], at["lens"], at["indptr"], window=(3, 0), scale=0.5
    )
    (keys, _) = yaie_ops.gather_kv(*caches, at["table"], at["indptr"], total=len(x))
    return before, attended.flatten(1) * 2, lse, keys, caches[1].sum()


def of_a_layer(tokens: int) -> dict[str, Any]:
    """The first ``tokens`` of a sequence, in pages of 4; page 0 is copied to page 3."""
    draw = torch.Generator().manual_seed(tokens)
    at = torch.arange(tokens, dtype=torch.int32)
    ints = {"table": [[0, 1]], "lens": [tokens], "indptr": [0, tokens], "pairs": [[0, 3]]}
    return {
        "x": torch.randn(tokens, 12, generator=draw),
        "w": torch.randn(12, 48, generator=draw),
        "caches": [torch.zeros(4, 4, 2, 8) for _ in range(2)],
        "positions": at,
        "slots": at,
        "cos_sin": torch.randn(8, 8, generator=draw),
        **{name: torch.tensor(values, dtype=torch.int32) for name, values in ints.items()},
    }


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_layer_is_the_layer(backend: str) -> None:
    expected, actual = of_a_layer(5), of_a_layer(5)
    torch.testing.assert_close(compiled(layer, backend)(**actual), layer(**expected))
    torch.testing.assert_close(actual["caches"], expected["caches"])
    assert torch.equal(actual["caches"][0][0], actual["caches"][0][3])


def test_symbolic_sizes_stay_symbolic() -> None:
    counter = CompileCounterWithBackend("aot_eager")
    step = compiled(layer, counter, dynamic=True)
    for tokens in (5, 7, 8):
        torch.testing.assert_close(step(**of_a_layer(tokens)), layer(**of_a_layer(tokens)))
    assert 1 == counter.frame_count


@pytest.mark.parametrize("op", [ops.gather_kv, ops.gather_slots], ids=str)
def test_a_size_that_is_left_open_is_read_when_the_operator_runs(op: Op) -> None:
    def rows(*args: Any, **options: Any) -> tuple[Tensor, int]:
        results = _flat(operator(op)(*args, **options))
        return torch.cat(results), len(results[0]) * 3

    counter = CompileCounterWithBackend("aot_eager")
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        step = compiled(rows, counter)
        for lens in ((5, 3), (4, 2)):
            call = Arguments(op, replace(op.good, lens=lens))
            del call.options["total"]
            results, number = step(*call.args, **call.options)
            assert_same_bits([torch.cat(call.run(op))], [results])
            assert 3 * sum(lens) == number
    assert 1 == counter.frame_count


@pytest.mark.parametrize("op", [ops.gather_kv, ops.gather_slots], ids=str)
def test_a_size_that_is_named_is_known_without_data(op: Op) -> None:
    call = Arguments(op, device="meta")
    assert [8] * len(op.signature.results) == [len(t) for t in call.run(operator(op))]
    del call.options["total"]
    with pytest.raises(RuntimeError, match="data-dependent shape"):
        call.run(operator(op))


def test_a_kernel_is_chosen_when_a_compiled_function_runs() -> None:
    counter, call, ran = CompileCounterWithBackend("aot_eager"), Arguments(ops.greedy), []
    step = compiled(operator("greedy"), counter)

    def named(name: str) -> Callable[..., Tensor]:
        return lambda logits: ran.append(name) or logits.argmax(1).int()

    for name in ("a", "b"):
        with registered(ops.greedy, name, named(name)):
            call.run(step)
    assert (["a", "b"], 1) == (ran, counter.frame_count)


def test_an_exported_program_finds_the_operators(tmp_path: Path) -> None:
    class Layer(torch.nn.Module):
        def forward(self, **given: Any) -> tuple[Tensor, ...]:
            return layer(**given)

    program = torch.export.export(Layer(), (), of_a_layer(5))
    torch.export.save(program, tmp_path / "layer.pt2")
    loaded = torch.export.load(tmp_path / "layer.pt2").module()
    torch.testing.assert_close(loaded(**of_a_layer(5)), layer(**of_a_layer(5)))


def test_the_example_of_the_docs_runs() -> None:
    page = Path(__file__).parents[1] / "docs" / "torch_ops.md"
    exec(page.read_text().partition("```python\n")[2].partition("```")[0], {})


# On a GPU -------------------------------------------------------------------------------------


def other(op: Op) -> Any:
    """A case of the shapes of the good one, and of other results."""
    changes = {
        "common_prefix_len": {"common": (4, 1)},
        "draw_tokens": {"position": 7},
        "match_tree": {"queries": ((0, 1, 1), (0,))},
    }
    return replace(op.good, seed=op.good.seed + 1, **changes.get(op.name, {}))


def rewrite(call: Arguments, case: Any) -> None:
    """Put the contents of a case where those of another are."""
    fresh = Arguments(call.op, case, call.device)
    for old, new in zip(call.tensors(), fresh.tensors(), strict=True):
        old.copy_(new)


@our_op
def test_there_is_another_case_of_the_same_shapes(op: Op) -> None:
    call = Arguments(op)
    before = [t.clone() for t in call.run(op)]
    rewrite(call, other(op))
    assert_same_bits(Arguments(op, other(op)).run(op), call.run(op))
    assert any(not torch.equal(a, b) for a, b in zip(before, call.run(op), strict=True))


@needs_gpu
@our_op
def test_a_graph_replays_on_new_data(op: Op) -> None:
    expected = Arguments(op, other(op), "cuda").run(op)
    call, graph = Arguments(op, device="cuda"), torch.cuda.CUDAGraph()
    with yaie.checked(False):
        warm_up(lambda: call.run(operator(op)))
        with torch.cuda.graph(graph):
            results = call.run(operator(op))
    rewrite(call, other(op))
    graph.replay()
    assert_same_bits(expected, results)


def warm_up(run: Callable[[], object]) -> None:
    """Before a capture, beside the stream of the others."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)


@needs_gpu
@our_op
def test_an_operator_runs_on_the_current_stream(op: Op) -> None:
    """On any other it would not wait for the contents that are put there late."""
    expected = Arguments(op, other(op), "cuda").run(op)
    call, late = Arguments(op, device="cuda"), Arguments(op, other(op), "cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()), yaie.checked(False):
        torch.cuda._sleep(100_000_000)
        for old, new in zip(call.tensors(), late.tensors(), strict=True):
            old.copy_(new)
        results = call.run(operator(op))
    torch.cuda.synchronize()
    assert_same_bits(expected, results)


@needs_gpu
@our_op
def test_an_operator_does_not_make_the_host_wait(op: Op) -> None:
    call = Arguments(op, device="cuda")
    call.run(operator(op))
    torch.cuda.set_sync_debug_mode("error")
    try:
        with yaie.checked(False):
            call.run(operator(op))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@our_op
def test_an_operator_runs_where_its_tensors_are(op: Op) -> None:
    expected = Arguments(op, device="cuda:0").run(op)
    with torch.cuda.device(0):
        results = Arguments(op, device="cuda:1").run(operator(op))
        assert 0 == torch.cuda.current_device()
    torch.cuda.synchronize(1)
    assert_same_bits([t.to("cuda:1") for t in expected], results)
