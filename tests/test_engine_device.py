"""A step of the engine and its device: what it waits for, and what a replay changes."""

from __future__ import annotations

import gc
import warnings
from collections import Counter
from typing import Any

import pytest
import torch
from engine_programs import Replayed, model, prompt
from torch import Tensor
from torch.overrides import TorchFunctionMode

from yaie import dispatch, ops
from yaie.engine import Decoder, Engine, SamplingParams
from yaie.engine.graphs import DecodeGraphs, recording
from yaie.engine.request import Request
from yaie.engine.scheduler import Chunk, Scheduler
from yaie.engine.weights import RandomWeights

DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
CUDA = torch.device("cuda")
PARAMS = (
    SamplingParams(temperature=0, max_tokens=6, ignore_eos=True),
    SamplingParams(temperature=0.9, top_k=9, seed=3, max_tokens=6, ignore_eos=True),
    SamplingParams(temperature=0.9, repetition=1.3, seed=4, max_tokens=6, ignore_eos=True),
)
WAITING = ("item", "tolist", "cpu", "nonzero", "__bool__", "__int__", "__float__", "__index__")
"""Methods of a tensor that must know its contents on the host. (``numpy`` serves none on a GPU.)"""

EAGER = () if any(k.startswith("simt.") for k in ops.rope_append_kv.kernels) else ("nonzero",)
"""torch.eager looks for tokens to skip; it serves a GPU only where there is no kernel of ours."""


class Watch(TorchFunctionMode):
    """Counts the calls that would make the host wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in WAITING:
            self.calls[name] += 1
        return func(*args, **(kwargs or {}))


def on(device: str) -> Decoder:
    return Decoder(model().config, RandomWeights(seed=5, scale=0.3), device)


def engine(device: str, **options: Any) -> Engine:
    """Of our kernels, wherever there is one."""
    kernels = ("simt.*",) if device == "cpu" else ()
    return Engine(on(device), page_size=4, num_pages=32, kernels=kernels, **options)


@pytest.mark.parametrize("device", DEVICES)
def test_a_step_waits_for_its_tokens_and_nothing_else(device: str) -> None:
    served = engine(device, token_budget=16)
    for seed, params in enumerate(PARAMS):
        served.submit(prompt(8, 3, seed), params)
    served.step()  # libraries initialise
    with dispatch.checked(False):
        while served.busy:
            recorded = graphs_of(served)
            waits, outputs = (waited_cpu if device == "cpu" else waited_gpu)(served)
            if recorded == graphs_of(served):  # recording one waits
                # An event, which a GPU's steps wait for, gives no warning.
                assert waits == (bool(outputs) if device == "cpu" else 0), outputs


def graphs_of(served: Engine) -> int:
    """How many decode graphs an engine has recorded."""
    return len(served._graphs.recorded) if served._graphs else 0


def waited_cpu(served: Engine) -> tuple[int, list[Any]]:
    with Watch() as watch:
        outputs = served.step()
    assert set(watch.calls) <= {"tolist", *EAGER}
    return watch.calls["tolist"], outputs


def waited_gpu(served: Engine) -> tuple[int, list[Any]]:
    """torch warns of each call that synchronises."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            outputs = served.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return len(caught), outputs


def test_the_watch_sees_what_waits() -> None:
    x = torch.ones(1)
    for read in (Tensor.item, Tensor.tolist, bool, int, float):
        with Watch() as watch:
            read(x)
        assert sum(watch.calls.values()) == 1, read


@pytest.mark.skipif("cuda" not in DEVICES, reason="needs a GPU")
def test_an_old_graph_that_becomes_garbage_disturbs_no_recording() -> None:
    x = torch.ones(8, device="cuda")
    cycle: list[Any] = []
    with recording(old := torch.cuda.CUDAGraph()):
        x * 2
    cycle += [cycle, old]
    with recording(new := torch.cuda.CUDAGraph()):
        del cycle, old
        rubbish = [[] for _ in range(100_000)]  # more than starts a collection
        x + len(rubbish)
    new.replay()
    assert gc.isenabled()


@pytest.mark.skipif("cuda" not in DEVICES, reason="needs a GPU")
def test_a_buffer_is_not_written_before_the_device_has_read_it() -> None:
    graphs = DecodeGraphs(lambda batch: batch.positions[:, None].float(), 1, 1, 64, CUDA)
    sequence = Scheduler(1, 64, 1, 1).add(Request.of("", [1] * 40, SamplingParams(), 0))
    sequence.table[0], sequence.pages = 0, 1
    graphs.run([Chunk(sequence, 0, 1)])
    torch.cuda._sleep(200_000_000)  # a tenth of a second, in which nothing is read
    said = [graphs.run([Chunk(sequence, start, 1)]).clone() for start in range(8)]
    assert [[[float(start)]] for start in range(8)] == [each.tolist() for each in said]


@pytest.mark.parametrize("device", DEVICES)
def test_replayed_steps_say_what_others_say(device: str) -> None:
    prompts = [prompt(8, 3, seed) for seed in range(3)]
    eager, replayed = (engine(device, cuda_graphs=None if on else False) for on in (False, True))
    if device == "cpu":
        replayed._graphs = replayed._decode_graphs(Replayed)
    for params in (PARAMS, PARAMS[:2]):  # with penalties no step is begun ahead
        expected = [c.tokens for c in eager.generate(prompts[: len(params)], params)]
        said = replayed.generate(prompts[: len(params)], params)
        assert expected == [c.tokens for c in said]
        assert (0, True) == (eager.stats.graph_steps, replayed.stats.graph_steps > 3)
    assert replayed.stats.ahead_steps > 3
