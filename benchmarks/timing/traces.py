"""Workloads of others: the traces of flashinfer-bench, a file of JSON lines.

Lengths come from its safetensors blobs where they lie beside it, else the recorded total is split
evenly, and the workload's source says so.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.timing.serving import Workload
from yaie import ops

DEFINITION = re.compile(
    r"gqa_paged_(?P<kind>decode|prefill_causal)_h(?P<h>\d+)_kv(?P<kv>\d+)_d(?P<d>\d+)_ps(?P<ps>\d+)"
)


def flashinfer_bench(path: Path) -> tuple[list[Workload], list[str]]:
    """The workloads that our ops cover, and a line for each that they do not.

    Errors: ValueError for a file that cannot be read, holds no trace, or one that means nothing.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from error
    found, left = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            definition, workload = _read(line)
            m = DEFINITION.fullmatch(definition)
            if m is None:
                left.append(f"{path}:{number}: {definition} is none of our ops")
            else:
                found.append(_from_trace(m, definition, workload, path))
        except ValueError as error:
            raise ValueError(f"{path}:{number}: no flashinfer-bench trace: {error}") from error
    if not found and not left:
        raise ValueError(f"{path}: no traces in it")
    return found, left


def _read(line: str) -> tuple[str, Mapping[str, Any]]:
    """What a line names, and its workload."""
    trace = json.loads(line)
    known = isinstance(trace, dict) and isinstance(trace.get("definition"), str)
    if not known or not isinstance(trace.get("workload"), dict):
        raise ValueError("an object with a definition and a workload is expected")
    return trace["definition"], trace["workload"]


def _from_trace(
    m: re.Match[str], definition: str, workload: Mapping[str, Any], path: Path
) -> Workload:
    heads, kv_heads, dim, page = (int(m[name]) for name in ("h", "kv", "d", "ps"))
    if 0 in (heads, kv_heads, dim, page) or heads % kv_heads:
        raise ValueError(f"{definition}: {heads} heads on {kv_heads} KV heads of {dim}")
    axes = _table(workload, "axes")
    batch = _number(axes, "batch_size", 1) if "batch_size" in axes else None
    batch = batch or _number(axes, "len_indptr", 2) - 1
    pages = _differences(workload, "kv_indptr", path)
    tail = _tensor(workload, "kv_last_page_len", path)
    how = "lengths as recorded"
    if pages is None:
        how = "total length as recorded, split evenly"
        pages = _even(_number(axes, "num_kv_indices", 0), batch)
    if len(pages) != batch or (tail is not None and len(tail) != batch):
        raise ValueError(f"a batch of {batch}, lengths of {len(pages)}")
    kv_lens = [n * page for n in pages]
    if tail is not None:
        kv_lens = [n - page + t if n else 0 for n, t in zip(kv_lens, tail, strict=True)]
    q_lens: Sequence[int] = [1] * batch
    if m["kind"] != "decode":
        drawn = _differences(workload, "qo_indptr", path)
        q_lens = _even(_number(axes, "total_q", 0), batch) if drawn is None else drawn
    case = ops.get("paged_attention").Case(
        q_lens=tuple(q_lens),
        kv_lens=tuple(kv_lens),
        S=page,
        Hk=kv_heads,
        G=heads // kv_heads,
        D=dim,
        Dv=dim,
        dtype="bfloat16",
    )
    name = f"{definition} {str(workload.get('uuid', ''))[:8]}".strip()
    return Workload("paged_attention", name, case, f"{path.name}: {how}")


def _table(workload: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = workload.get(name)
    if not isinstance(table, dict):
        raise ValueError(f"{name} is {table!r}, must be an object")
    return table


def _number(axes: Mapping[str, Any], name: str, least: int) -> int:
    value = axes.get(name)
    if type(value) is not int or value < least:
        raise ValueError(f"axes: {name} is {value!r}, must be a whole number from {least} on")
    return value


def _even(total: int, parts: int) -> list[int]:
    return [total // parts + (i < total % parts) for i in range(parts)]


def _differences(workload: Mapping[str, Any], name: str, path: Path) -> list[int] | None:
    ends = _tensor(workload, name, path)
    return None if ends is None else [b - a for a, b in itertools.pairwise(ends)]


def _tensor(workload: Mapping[str, Any], name: str, path: Path) -> list[int] | None:
    """A recorded tensor of whole numbers, or None where it was not recorded or its file is not
    here."""
    spec = _table(workload, "inputs").get(name, {})
    if not isinstance(spec, dict):
        raise ValueError(f"inputs: {name} is {spec!r}, must be an object")
    if spec.get("type") != "safetensors":
        return None
    file, key = spec.get("path"), spec.get("tensor_key")
    if not isinstance(file, str) or not isinstance(key, str):
        raise ValueError(f"inputs: {name} has no path and tensor_key")
    for folder in path.resolve().parents:
        if (folder / file).is_file():
            return read_numbers(folder / file, key)
    return None


def read_numbers(path: Path, key: str) -> list[int]:
    """A tensor of whole numbers of a safetensors file."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise ValueError(
            f"{path}: reading it needs safetensors: pip install safetensors"
        ) from error
    try:
        with safe_open(path, framework="numpy") as file:
            tensor = file.get_tensor(key)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: {key}: {error}") from error
    if tensor.ndim != 1 or tensor.dtype.kind not in "iu":
        raise ValueError(f"{path}: {key} is {tensor.dtype} {tensor.shape}, no lengths")
    numbers: list[int] = tensor.tolist()
    return numbers
