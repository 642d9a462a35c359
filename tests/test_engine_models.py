"""The engine says what transformers says: every family, dtype and kernel, on tiny random
checkpoints that transformers itself wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import engine_checkpoints as checkpoints
import pytest
import torch
from torch import Tensor

from yaie import Unsupported, ops
from yaie.engine import Completion, Engine, SamplingParams
from yaie.engine.sampler import Drawn
from yaie.engine.scheduler import Chunk

GREEDY = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
LAMBDA = 4.0
"""How many standard deviations an error may be, as in the error model of attention."""
CLEAR_SHARE = 0.9
DTYPES = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


def kernels() -> Iterator[tuple[str, tuple[str, ...]]]:
    """On each device, one kernel at a time, wherever a decoder or its sampler calls an op; then
    all of ours, and all references."""
    for device in DEVICES:
        for op in ("rope_append_kv", "paged_attention", "greedy"):
            for kernel in ops.get(op).kernels.values():
                if kernel.device in ("any", device) and kernel.name not in ALL_AT_ONCE:
                    yield device, (f"{op}={kernel.name}",)
        yield device, ("simt.*",) if device == "cpu" else ("cuda.*",)
        yield device, ("torch.eager",)
        yield device, ("reference",)


ALL_AT_ONCE = ("torch.eager", "reference")


def engine(name: str, dtype: torch.dtype, **options: Any) -> tuple[Engine, Any]:
    """A small engine with little room, and the model of transformers."""
    folder, model = checkpoints.checkpoint(name, dtype)
    options = {"page_size": 4, "num_pages": 40, "token_budget": 24, "max_requests": 6, **options}
    return Engine.load(folder, **options), model


def assert_greedy_as_transformers(name: str, lengths: tuple[int, ...], **options: Any) -> None:
    served, model = engine(name, torch.float32, **options)
    for completion in served.generate(checkpoints.prompts(*lengths), GREEDY):
        expected = checkpoints.greedy(model, list(completion.prompt), GREEDY.max_tokens)
        assert expected == list(completion.tokens), completion
    served.check_integrity()


@pytest.mark.parametrize("name", checkpoints.MODELS)
def test_float32_greedy_tokens_are_those_of_transformers(name: str) -> None:
    assert_greedy_as_transformers(name, (1, 5, 12, 21, 40, 50, 63))


@pytest.mark.parametrize(("device", "choice"), list(kernels()), ids=lambda c: c[0][:99])
@pytest.mark.parametrize("name", checkpoints.FAMILIES)
def test_no_kernel_changes_what_a_model_says(
    name: str, device: str, choice: tuple[str, ...]
) -> None:
    """In float32, or in 16 bits where a kernel serves no float32."""
    options = {"kernels": choice, "device": device}
    try:
        assert_greedy_as_transformers(name, (2, 13, 22), **options)
    except Unsupported:
        try:
            assert_16_bit_as_transformers(name, torch.float16, (2, 13, 22), **options)
        except Unsupported as declined:
            pytest.skip(str(declined))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_16_bit_logits_and_clear_tokens_are_those_of_transformers(
    dtype: torch.dtype, device: str, record_property: Any
) -> None:
    clear = positions = 0
    for name in checkpoints.FAMILIES:
        lengths = tuple(range(1, 49, 4))
        n, c = assert_16_bit_as_transformers(name, dtype, lengths, device=device)
        positions, clear = positions + n, clear + c
    record_property("share of positions compared", clear / positions)
    print(f"{dtype}: {clear} of {positions} positions are clear: {clear / positions:.3f}")
    assert clear >= CLEAR_SHARE * positions


def assert_16_bit_as_transformers(
    name: str, dtype: torch.dtype, lengths: tuple[int, ...], **options: Any
) -> tuple[int, int]:
    """Every position that is generated is compared with the same weights in float64: the logits
    with what rounding may do to them, the token wherever the best leads by more than that. Returns
    how many positions there are, and at how many the best token leads."""
    served, _ = engine(name, dtype, num_pages=200, max_requests=24, **options)
    assert served.model.dtype == dtype
    logits = spied(served)
    clear = positions = 0
    for completion in served.generate(checkpoints.prompts(*lengths), GREEDY):
        n, c = judge(completion, logits, checkpoints.in_float64(name, dtype), DTYPES[dtype])
        positions, clear = positions + n, clear + c
    return positions, clear


def judge(
    completion: Completion, logits: dict[tuple[str, int], Tensor], model: Any, roundoff: float
) -> tuple[int, int]:
    """How many positions of a completion were compared by logits, and how many by token."""
    truth = checkpoints.truth(model, [*completion.prompt, *completion.tokens], roundoff)
    clear = 0
    for i, token in enumerate(completion.tokens):
        at = len(completion.prompt) + i
        off = (logits[completion.request_id, at].double() - truth.logits[at - 1]).square().mean()
        used = float(off.sqrt() / truth.sigma[at - 1])
        assert used <= LAMBDA, f"{completion.request_id} at {at}: off by {used:.1f} sigma"
        if truth.is_clear(at - 1):
            clear += 1
            assert int(truth.best[at - 1, 0]) == token, f"{completion.request_id} at {at}"
    return len(completion.tokens), clear


def spied(served: Engine) -> dict[tuple[str, int], Tensor]:
    """The logits that the engine draws from, by request and position."""
    seen: dict[tuple[str, int], Tensor] = {}
    draw = served._sampler

    def spy(logits: Tensor, chunks: list[Chunk]) -> Drawn:
        seen.update(
            ((chunk.sequence.request.id, chunk.stop), row.cpu().clone())
            for chunk, row in zip(chunks, logits, strict=True)
        )
        return draw(logits, chunks)

    served._sampler = spy  # type: ignore[assignment]
    return seen


def test_a_wrong_model_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A control: the comparisons see a softcap, a window and a norm that are a little off."""
    for name, field, value in (
        ("gemma2", "attention_softcap", 0.0),
        ("mistral, window", "windows", (5, 5)),
        ("qwen3", "norm_eps", 0.5),
    ):
        folder, _ = checkpoints.checkpoint(name, torch.float32)
        with monkeypatch.context() as patch:
            wrong = spoilt(folder, field, value)
            patch.setattr("yaie.engine.model.read_config", lambda _, wrong=wrong: wrong)
            with pytest.raises(AssertionError):
                assert_greedy_as_transformers(name, (12, 21, 40, 50, 63))


def spoilt(folder: Path, field: str, value: Any) -> Any:
    from dataclasses import replace

    from yaie.engine import read_config

    return replace(read_config(folder), **{field: value})


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_shards_are_one_checkpoint(name: str, tmp_path: Path) -> None:
    model = checkpoints.make(name, tmp_path, torch.float32, shard="60KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    (completion,) = Engine.load(tmp_path, num_pages=8).generate([[3, 1, 4]], GREEDY)
    assert checkpoints.greedy(model, [3, 1, 4], 6) == list(completion.tokens)


def test_fields_of_transformers_4_mean_the_same(tmp_path: Path) -> None:
    """rope_theta and rope_scaling beside each other, torch_dtype, rope type under "type"."""
    import json

    model = checkpoints.make("llama, linear rope", tmp_path, torch.float32)
    fields = json.loads((tmp_path / "config.json").read_text())
    rope = fields.pop("rope_parameters")
    fields["rope_theta"] = rope.pop("rope_theta")
    fields["rope_scaling"] = {"type": rope.pop("rope_type"), **rope}
    fields["torch_dtype"] = fields.pop("dtype")
    (tmp_path / "config.json").write_text(json.dumps(fields))
    prompt = checkpoints.prompts(40)[0]
    (completion,) = Engine.load(tmp_path, num_pages=8).generate([prompt], GREEDY)
    assert checkpoints.greedy(model, prompt, 6) == list(completion.tokens)
