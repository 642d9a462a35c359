"""Bad input of the engine: the error says what is wrong and where, and other requests go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_programs import VOCABULARY, model, prompt

from yaie.cli import main
from yaie.engine import Engine, SamplingParams, read_config

NAN, INF = float("nan"), float("inf")
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("temperature", -0.1, ValueError),
        ("temperature", NAN, ValueError),
        ("temperature", INF, ValueError),
        ("temperature", "1", TypeError),
        ("temperature", True, TypeError),
        ("top_k", -2, ValueError),
        ("top_k", 1.5, TypeError),
        ("top_p", 0, ValueError),
        ("top_p", 1.01, ValueError),
        ("top_p", NAN, ValueError),
        ("min_p", -0.1, ValueError),
        ("min_p", 1.1, ValueError),
        ("repetition", 0, ValueError),
        ("frequency", 2.1, ValueError),
        ("presence", -2.1, ValueError),
        ("seed", 2**63, ValueError),
        ("seed", 0.5, TypeError),
        ("max_tokens", 0, ValueError),
        ("max_tokens", None, TypeError),
        ("stop_ids", (-1,), ValueError),
        ("stop_ids", (1.0,), TypeError),
        ("stop_ids", 3, TypeError),
        ("stop_ids", "3", TypeError),
        ("ignore_eos", 1, TypeError),
    ],
)
def test_a_bad_parameter_is_named(field: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"SamplingParams: {field}: "):
        SamplingParams(**{field: value})


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("page_size", 0, ValueError),
        ("num_pages", 0, ValueError),
        ("token_budget", 0, ValueError),
        ("max_requests", 1.0, TypeError),
        ("cuda_graphs", True, ValueError),
    ],
)
def test_a_bad_option_is_named(option: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"Engine: {option}: "):
        Engine(model(), **{"num_pages": 4, option: value})


def test_an_unknown_kernel_is_found_before_the_first_step() -> None:
    with pytest.raises(ValueError, match=r"no kernel 'simt\.nave'; did you mean simt\.naive"):
        Engine(model(), num_pages=4, kernels=("simt.nave",))


@pytest.mark.parametrize(
    ("tokens", "options", "error", "words"),
    [
        ([], {}, ValueError, "prompt: is empty"),
        ([1, VOCABULARY], {}, ValueError, f"token {VOCABULARY} is not within 0..{VOCABULARY - 1}"),
        ([-1], {}, ValueError, "token -1 is not within"),
        ([0.5], {}, TypeError, "is not an integer"),
        ("text", {}, TypeError, "is not a list"),
        ([1] * 12, {"params": SamplingParams(max_tokens=5)}, ValueError, "raise num_pages"),
        ([1], {"params": {"top_k": 1}}, TypeError, "is not a SamplingParams"),
        ([1], {"request_id": "busy"}, ValueError, "request_id: is in use"),
        ([1], {"request_id": 7}, TypeError, "7 is not a string"),
    ],
)
def test_a_bad_request_is_refused_and_others_go_on(
    tokens: Any, options: Any, error: type[Exception], words: str
) -> None:
    engine = Engine(model(), page_size=4, num_pages=4)
    params = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)
    engine.submit(prompt(4, 2, 0), params, "busy")
    engine.step()
    with pytest.raises(error, match=words):
        engine.submit(tokens, **options)
    engine.check_integrity()
    said = [output for _ in range(3) for output in engine.step()]
    assert said[-1].completion is not None
    assert said[-1].completion.reason == "length"


def test_a_request_longer_than_the_model_says_so() -> None:
    with pytest.raises(ValueError, match=r"the model holds 64.*raise max_positions"):
        Engine(model(), page_size=4, num_pages=40).submit([1] * 60, SamplingParams(max_tokens=5))


def test_generate_takes_back_what_it_submitted() -> None:
    engine = Engine(model(), num_pages=4)
    with pytest.raises(ValueError, match="prompt: is empty"):
        engine.generate([[1], []])
    with pytest.raises(ValueError, match="2 prompts, 1 params"):
        engine.generate([[1], [2]], [SamplingParams()])
    assert not engine.busy


def test_cancelling_what_is_not_there() -> None:
    with pytest.raises(KeyError, match="is unknown, or has ended"):
        Engine(model(), num_pages=4).cancel("nobody")


# Folders ---------------------------------------------------------------------------------------


def folder(path: Path, **changes: Any) -> Path:
    fields = {k: v for k, v in {**CONFIG, **changes}.items() if v is not None}
    (path / "config.json").write_text(json.dumps(fields))
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "mamba"}, "model_type is 'mamba', served are llama"),
        ({"vocab_size": None}, "vocab_size is missing"),
        ({"hidden_size": "16"}, "hidden_size is '16'"),
        (
            {"num_key_value_heads": 3},
            "num_attention_heads is 4, no multiple of num_key_value_heads",
        ),
        ({"head_dim": 5}, "head_dim is 5, must be even"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu', served is 'silu'"),
        (
            {"rope_scaling": {"rope_type": "dynamic"}},
            "rope_scaling: rope_type is 'dynamic', served",
        ),
        ({"rope_scaling": {"type": "longrope"}}, "rope_type is 'longrope'"),
        ({"rope_scaling": {"rope_type": "linear"}}, "rope_scaling: factor is None"),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": -1}},
            "rope_parameters: factor is -1",
        ),
        ({"rope_theta": 0}, "rope_theta is 0"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is"),
        ({"dtype": "float8_e4m3fn"}, "dtype is 'float8_e4m3fn'"),
        ({"rms_norm_eps": 0}, "rms_norm_eps is 0"),
        ({"eos_token_id": "x"}, "eos_token_id is 'x'"),
        ({"model_type": "mistral", "sliding_window": 0}, "sliding_window is 0"),
        (
            {"model_type": "mistral", "sliding_window": 4, "layer_types": ["full_attention"]},
            "layer_types has 1 entries, num_hidden_layers is 2",
        ),
    ],
)
def test_a_config_that_is_not_served_names_the_field(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError) as caught:
        read_config(folder(tmp_path, **changes))
    assert str(caught.value).startswith(str(tmp_path / "config.json"))
    assert words in str(caught.value)


def test_a_config_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json: cannot be read"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="holds no object"):
        read_config(tmp_path)


class TestShards:
    """A checkpoint of two files with an index, spoilt."""

    @pytest.fixture
    def shards(self, tmp_path: Path) -> Path:
        save_file = pytest.importorskip("safetensors.torch").save_file
        folder(tmp_path, tie_word_embeddings=True)
        tensors = {"model.embed_tokens.weight": torch.zeros(32, 16)}
        tensors["model.norm.weight"] = torch.ones(16)
        for layer in range(2):
            for part, shape in LAYER.items():
                tensors[f"model.layers.{layer}.{part}.weight"] = torch.ones(shape)
        where: dict[str, str] = {}
        for number in range(2):
            name = f"model-{number + 1}-of-2.safetensors"
            mine = dict(list(tensors.items())[number::2])
            save_file(mine, tmp_path / name)
            where.update(dict.fromkeys(mine, name))
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
        return tmp_path

    def test_whole_it_loads(self, shards: Path) -> None:
        engine = Engine.load(shards, num_pages=4)
        assert len(engine.generate([[1, 2]], SamplingParams(max_tokens=3))[0].tokens) == 3

    def test_a_missing_shard(self, shards: Path) -> None:
        (shards / "model-2-of-2.safetensors").unlink()
        with pytest.raises(ValueError, match=r"model-2-of-2\.safetensors: is missing.*again"):
            Engine.load(shards)

    @pytest.mark.parametrize("keep", [0, 5, 200, -1])
    def test_a_torn_shard(self, shards: Path, keep: int) -> None:
        path = shards / "model-2-of-2.safetensors"
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(ValueError, match=r"model-2-of-2\.safetensors: is no readable"):
            Engine.load(shards)

    def test_a_tensor_of_another_shape(self, shards: Path) -> None:
        folder(shards, intermediate_size=20, tie_word_embeddings=True)
        with pytest.raises(ValueError, match=r"mlp\.gate_proj\.weight has shape \(24, 16\)"):
            Engine.load(shards)

    def test_a_tensor_too_few_and_one_too_many(self, shards: Path) -> None:
        folder(shards, num_hidden_layers=3, tie_word_embeddings=True)
        with pytest.raises(ValueError, match=r"no tensor 'model\.layers\.2\.input_layernorm"):
            Engine.load(shards)
        folder(shards, num_hidden_layers=1, tie_word_embeddings=True)
        with pytest.raises(ValueError, match=r"implies no tensor model\.layers\.1\..*and 6 more"):
            Engine.load(shards)

    def test_an_index_that_is_none(self, shards: Path) -> None:
        (shards / "model.safetensors.index.json").write_text("{}")
        with pytest.raises(ValueError, match="has no weight_map"):
            Engine.load(shards)

    def test_no_weights_at_all(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="holds neither"):
            Engine.load(folder(tmp_path))


LAYER = {
    "input_layernorm": (16,),
    "self_attn.q_proj": (16, 16),
    "self_attn.k_proj": (8, 16),
    "self_attn.v_proj": (8, 16),
    "self_attn.o_proj": (16, 16),
    "post_attention_layernorm": (16,),
    "mlp.gate_proj": (24, 16),
    "mlp.up_proj": (24, 16),
    "mlp.down_proj": (16, 24),
}


# Commands --------------------------------------------------------------------------------------

TINY = ("--config", "tiny", "--random-weights", "--pages", "160")


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    status = main(argv)
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_generate_streams_token_ids(capsys: Any) -> None:
    arguments = (
        "generate",
        *TINY,
        "--ids",
        "--prompt",
        "5,6,7",
        "--max-tokens",
        "3",
        "--seed",
        "1",
    )
    status, out, _ = said(capsys, *arguments)
    tokens, footer = out.splitlines()
    assert (0, 3) == (status, len(tokens.split()))
    assert footer == "[request 0: 3 + 3 tokens, 0 from the cache, seed 1, ended by length]"
    assert said(capsys, *arguments, "--page-size", "3")[1] == out


def test_generate_shows_each_step(capsys: Any) -> None:
    two = (
        "--prompt",
        "1,2,3,4,5",
        "--prompt",
        "1,2,3,4,9",
        "--max-tokens",
        "2",
        "--page-size",
        "4",
    )
    status, out, _ = said(capsys, "generate", *TINY, "--ids", *two, "--trace")
    assert status == 0
    assert "request 1: tokens 4 to 4 of 5, pages [0, 2], 1 of them from the cache" in out
    assert "q[2,8,32] k_cache[160,4,2,32]" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--prompt", "1"), "give either --model DIR or --config NAME"),
        (("--config", "tiny", "--prompt", "1"), "add --random-weights"),
        ((*TINY, "--prompt", "hello"), "give token ids, with --ids"),
        ((*TINY, "--ids", "--prompt", "hello"), "'hello' is no list of token ids"),
        ((*TINY, "--ids", "--prompt", ""), "prompt: is empty"),
        ((*TINY, "--ids", "--prompt", "1", "--top-p", "0"), "top_p: is 0.0"),
        ((*TINY, "--ids", "--prompt", "1", "--use", "nobody"), "no kernel 'nobody'"),
        ((*TINY, "--ids", "--prompt", "1", "--device", "tpu9"), "--device tpu9"),
        ((*TINY, "--ids", "--prompt", "1", "--device", "meta"), "--device meta: must be cpu or"),
        ((*TINY, "--ids", "--prompt", "1", "--device", "cuda:99"), "--device cuda:99: torch sees"),
        ((*TINY, "--ids", "--prompt", "1", "--pages", str(10**12)), "there is not enough memory: "),
        (("--model", "/nowhere", "--ids", "--prompt", "1"), "config.json: cannot be read"),
        (("--config", "big", "--random-weights", "--ids", "--prompt", "1"), "no config 'big'"),
    ],
)
def test_generate_says_what_is_wrong(capsys: Any, arguments: tuple[str, ...], words: str) -> None:
    status, _, err = said(capsys, "generate", *arguments)
    assert status == 2
    assert words in err


def test_bench_finds_at_once_that_it_cannot_keep_figures(
    capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yaie.engine.commands.measure", None)
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        status, out, err = said(capsys, "engine-bench", *TINY, "--records", str(folder))
        assert (2, "") == (status, out)
        assert err.startswith(f"yaie: --records {folder}: nothing can be written there")


@pytest.mark.parametrize("option", ["--requests", "--output-tokens", "--pages", "--page-size"])
@pytest.mark.parametrize("number", ["0", "x"])
def test_what_counts_something_is_a_whole_number_from_1_on(
    capsys: Any, option: str, number: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["engine-bench", *TINY, option, number])
    assert 2 == ended.value.code
    assert f"{option}: is '{number}', must be a whole number from 1" in capsys.readouterr().err


def test_bench_prints_and_records(capsys: Any, tmp_path: Path) -> None:
    load = ("--requests", "3", "--prompt-tokens", "16", "--output-tokens", "3", "--shared", "0.5")
    records = ("--records", str(tmp_path), "--page-size", "4", "--token-budget", "16")
    status, out, _ = said(capsys, "engine-bench", *TINY, *load, *records, "--no-transformers")
    assert status == 0
    for words in ("throughput", "first token", "between tokens", "prefix cache", "decode step"):
        assert words in out
    (file,) = tmp_path.rglob("*.jsonl")
    head, record = map(json.loads, file.read_text().splitlines())
    assert ("run", "engine") == (head["kind"], record["kind"])
    assert (9, 48) == (record["output_tokens"], record["prompt_tokens"])
    assert 0 < record["hit_rate"] < 0.5
    parts = {part["part"] for part in record["share"]}
    assert {"paged_attention", "rope_append_kv", "greedy", "linear, norms, rest", "host"} == parts
    from reports import engine

    (row,) = engine.rows(tmp_path)
    assert row["load"] == "3 × (16 + 3 tokens), 8 shared"
    assert row["rate"] == record["rate"]
