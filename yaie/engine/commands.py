"""The commands ``yaie generate`` and ``yaie engine-bench``."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from yaie.command.arguments import make_folder, positive
from yaie.engine.bench import (
    SHAPES,
    Load,
    decode_step,
    measure,
    prefix_hit,
    shape_config,
    share,
    transformers_figures,
)
from yaie.engine.config import DTYPES
from yaie.engine.engine import Engine
from yaie.engine.model import Decoder
from yaie.engine.request import Completion, SamplingParams
from yaie.engine.text import Stream, Text
from yaie.engine.watch import shapes, watch
from yaie.engine.weights import RandomWeights

Record = Callable[[str, dict[str, Any]], None]
"""Keeps figures in a folder of records."""


def add_commands(commands: Any, record: Record) -> None:
    """Add both to the subcommands of the command line."""
    generate = commands.add_parser(
        "generate",
        help="go on with prompts, with a model from a local Hugging Face folder",
        description="Example: yaie generate --model DIR --prompt 'Once upon' --max-tokens 50",
    )
    _add_model_options(generate)
    generate.add_argument(
        "--prompt",
        action="append",
        required=True,
        metavar="TEXT",
        help="may be given several times",
    )
    generate.add_argument(
        "--ids", action="store_true", help="prompts are token ids (3,1,4), and so is the output"
    )
    generate.add_argument("--max-tokens", type=positive, default=64, metavar="N")
    generate.add_argument("--temperature", type=float, default=1.0)
    generate.add_argument("--top-k", type=int, default=-1)
    generate.add_argument("--top-p", type=float, default=1.0)
    generate.add_argument("--min-p", type=float, default=0.0)
    generate.add_argument("--seed", type=int)
    generate.add_argument("--ignore-eos", action="store_true")
    generate.add_argument(
        "--trace", action="store_true", help="print each step and the shapes that its ops see"
    )
    _add_engine_options(generate)
    generate.set_defaults(run=run_generate)

    bench = commands.add_parser(
        "engine-bench",
        help="offline throughput, latencies, cache hits and the share of each op",
        description="Example: yaie engine-bench --config llama3-8b --random-weights --device cuda",
    )
    _add_model_options(bench)
    bench.add_argument("--requests", type=positive, default=32, metavar="N")
    bench.add_argument("--prompt-tokens", type=positive, default=128, metavar="N")
    bench.add_argument("--output-tokens", type=positive, default=64, metavar="N")
    bench.add_argument(
        "--shared", type=float, default=0.0, metavar="SHARE", help="of a prompt that all have (0)"
    )
    bench.add_argument(
        "--records",
        default="reports/engine",
        metavar="DIR",
        help="where `python -m reports.bench` finds the figures (default: %(default)s), or none",
    )
    bench.add_argument("--no-transformers", action="store_true", help="do not time its generate")
    _add_engine_options(bench)
    bench.set_defaults(run=run_bench, record=record)


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="DIR", help="config, weights and tokenizer")
    parser.add_argument("--config", metavar="NAME", help=f"or a shape: {', '.join(SHAPES)}")
    parser.add_argument("--random-weights", action="store_true", help="needed with --config")


def _add_engine_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1 ...")
    parser.add_argument("--dtype", choices=DTYPES, help="default: the config's")
    parser.add_argument("--page-size", type=positive, default=16, metavar="N")
    parser.add_argument(
        "--pages", type=positive, metavar="N", help="default: what the memory holds"
    )
    parser.add_argument(
        "--token-budget", type=positive, default=2048, metavar="N", help="of a step"
    )
    parser.add_argument("--max-requests", type=positive, default=64, metavar="N", help="in a step")
    parser.add_argument("--no-prefix-cache", action="store_true")
    parser.add_argument("--no-graphs", action="store_true", help="no CUDA graphs")
    parser.add_argument(
        "--use", action="append", default=[], metavar="CHOICE", help="a kernel, as for yaie.use"
    )


def _engine(args: argparse.Namespace, model: Decoder) -> Engine:
    return Engine(
        model,
        page_size=args.page_size,
        num_pages=args.pages,
        token_budget=args.token_budget,
        max_requests=args.max_requests,
        prefix_cache=not args.no_prefix_cache,
        cuda_graphs=False if args.no_graphs else None,
        kernels=args.use,
    )


def _check_model(args: argparse.Namespace) -> None:
    if (args.model is None) == (args.config is None):
        raise ValueError("give either --model DIR or --config NAME")
    if args.config is not None and not args.random_weights:
        raise ValueError(f"--config {args.config} is a shape without weights: add --random-weights")


def _decoder(args: argparse.Namespace) -> Decoder:
    _check_model(args)
    dtype = None if args.dtype is None else DTYPES[args.dtype]
    _check_device(args.device)
    if args.model is not None:
        return Decoder.load(args.model, args.device, dtype)
    config = shape_config(args.config)
    weights = RandomWeights(device=args.device, dtype=config.dtype if dtype is None else dtype)
    return Decoder(config, weights, args.device, dtype)


def _check_device(name: str) -> None:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"--device {name}: unknown, must be cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"--device {name}: must be cpu or cuda")
    if device.type == "cpu":
        return
    if not torch.cuda.is_available():
        raise ValueError(f"--device {name}: torch sees no GPU")
    if (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device {name}: torch sees {torch.cuda.device_count()} of them")


def run_generate(args: argparse.Namespace) -> int:
    """Stream the text of one prompt; several are served together and printed when they end."""
    params = SamplingParams(
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        min_p=args.min_p,
        seed=args.seed,
        max_tokens=args.max_tokens,
        ignore_eos=args.ignore_eos,
    )
    _check_model(args)
    if args.model is None and not args.ids:
        raise ValueError(f"--config {args.config} has no tokenizer: give token ids, with --ids")
    text = None if args.ids else Text(args.model)
    prompts = [_ids(p) if text is None else text.encode(p) for p in args.prompt]
    engine = _engine(args, _decoder(args))
    if args.trace:
        _trace(engine, prompts, params, text)
    elif len(prompts) == 1:
        _stream(engine, prompts[0], params, text)
    else:
        for prompt, completion in zip(args.prompt, engine.generate(prompts, params), strict=True):
            print(f"{prompt!r}: {_read(completion, text)}")
            print(_footer(completion))
    return 0


def _stream(engine: Engine, prompt: list[int], params: SamplingParams, text: Text | None) -> None:
    shown = None if text is None else Stream(text)
    for output in engine.stream(prompt, params):
        if output.token is not None:
            piece = f"{output.token} " if shown is None else shown.push(output.token)
            print(piece, end="", flush=True)
        if output.completion is not None:
            print("" if shown is None else shown.finish())
            print(_footer(output.completion))


def _trace(
    engine: Engine, prompts: list[list[int]], params: SamplingParams, text: Text | None
) -> None:
    """Step by step: what is scheduled, which ops one layer and the sampler call, what comes out.
    The last prompt comes one step after the others, so that it finds their pages."""
    early, late = (prompts[:-1], prompts[-1:]) if len(prompts) > 1 else (prompts, [])
    for prompt in early:
        engine.submit(prompt, params)
    number, schedule = 0, engine.scheduler.schedule
    called: dict[str, str] = {}

    def announced() -> Any:
        chunks = schedule()
        print(f"step {number}: {sum(c.length for c in chunks)} tokens")
        for c in chunks:
            s = c.sequence
            pages = s.table[: s.pages].tolist()
            print(
                f"  request {s.request.id}: tokens {c.start} to {c.stop - 1} of {s.length}, "
                f"pages {pages}, {s.shared} of them from the cache"
            )
        return chunks

    def note(op: str, kernel: str, given: dict[str, Any]) -> None:
        called.setdefault(op, f"{kernel}  {shapes(given)}")

    engine.scheduler.schedule = announced  # type: ignore[method-assign]
    with watch(note):
        while engine.busy or late:
            number += 1
            called.clear()
            outputs = engine.step()
            for op, line in called.items():
                print(f"  {op}: {line}")
            for output in outputs:
                print(f"  request {output.request_id} says {output.token}")
                if output.completion is not None:
                    print(f"  {_footer(output.completion)}")
                    print(f"  {_read(output.completion, text)}")
            for prompt in late:
                engine.submit(prompt, params)
            late = []


def _ids(prompt: str) -> list[int]:
    try:
        return [int(part) for part in prompt.replace(",", " ").split()]
    except ValueError:
        raise ValueError(f"--ids: {prompt!r} is no list of token ids such as 3,1,4") from None


def _read(completion: Completion, text: Text | None) -> str:
    tokens = list(completion.tokens)
    return " ".join(map(str, tokens)) if text is None else text.decode(tokens)


def _footer(c: Completion) -> str:
    why = c.reason if c.error is None else f"{c.reason}: {c.error}"
    return (
        f"[request {c.request_id}: {len(c.prompt)} + {len(c.tokens)} tokens, {c.cached_tokens} "
        f"from the cache, seed {c.seed}, ended by {why}]"
    )


def run_bench(args: argparse.Namespace) -> int:
    """Measure one load, then where its time goes, then transformers; record it all."""
    load = _load(args)
    if args.records != "none":
        make_folder("--records", Path(args.records))
    source = args.model if args.model is not None else SHAPES.get(args.config, {})
    engine = _engine(args, _decoder(args))
    device, dtype = engine.model.device, engine.model.dtype
    found: dict[str, Any] = _setting(args, engine, load)
    print(_title(found))
    measure(engine, replace(load, seed=1))  # warm: allocations, graphs
    engine.clear_prefix_cache()
    figures = measure(engine, load)
    print("\n".join(figures.lines()))
    found.update(figures.record())
    step = decode_step(engine, load)
    if step is not None:
        print("\n".join(step.lines()))
        found["decode"] = {**asdict(step), "overhead": step.overhead}
    if load.shared and not args.no_prefix_cache:
        hit = prefix_hit(engine, load)
        print("\n".join(hit.lines()))
        found["prefix_hit"] = asdict(hit)
    engine.clear_prefix_cache()
    parts = share(engine, load)
    print("where the time goes (each op timed, no graphs):")
    print("\n".join(f"  {line}" for line in parts.lines()))
    found["share"] = parts.rows()
    del engine, parts  # its memory is the peer's now
    if not args.no_transformers:
        found["peer"] = _peer(source, load, device, dtype)
    if args.records != "none":
        args.record(args.records, found)
    return 0


def _peer(
    source: Any, load: Load, device: torch.device, dtype: torch.dtype
) -> dict[str, Any] | None:
    if importlib.util.find_spec("transformers") is None:
        print("transformers is not installed: nothing to compare with")
        return None
    if device.type == "cuda":
        torch.cuda.empty_cache()
    peer = transformers_figures(source, load, device, dtype)
    print("\n".join(peer.lines()))
    return asdict(peer)


def _load(args: argparse.Namespace) -> Load:
    if not 0 <= args.shared <= 1:
        raise ValueError(f"--shared is {args.shared}, must lie in [0, 1]")
    shared = round(args.shared * args.prompt_tokens)
    return Load(args.requests, args.prompt_tokens, args.output_tokens, shared=shared)


def _setting(args: argparse.Namespace, engine: Engine, load: Load) -> dict[str, Any]:
    """What was measured, and where."""
    name = Path(args.model).name if args.model else f"{args.config}, random weights"
    device, scheduler = engine.model.device, engine.scheduler
    on_gpu = device.type == "cuda"
    return {
        "model": name,
        "dtype": str(engine.model.dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(device) if on_gpu else "CPU",
        "requests": load.requests,
        "prompt": load.prompt,
        "output": load.output,
        "shared": load.shared,
        "page_size": scheduler.page_size,
        "pages": scheduler.pool.n_pages,
        "token_budget": scheduler.token_budget,
        "prefix_cache": scheduler.prefix_cache,
        "kernels": list(engine.kernels),
    }


def _title(s: dict[str, Any]) -> str:
    return (
        f"{s['model']}, {s['dtype']}, {s['device']}: {s['requests']} requests of {s['prompt']} + "
        f"{s['output']} tokens, {s['shared']} of them shared; {s['pages']} pages of "
        f"{s['page_size']}, {s['token_budget']} tokens a step"
    )
