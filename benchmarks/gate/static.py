"""Which kernels changed, by their machine code, and what head's take against base's.

Identical machine code under identical launchers, called by the same Python, is unchanged by
construction: it need not be judged again, and serves as control when times are compared. What a
changed kernel takes (registers, shared memory, instructions) is told; local memory that base did
not keep blocks, as in the compile table, which also holds `naive` variants exempt: those are read,
not raced.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.gate.machine_code import FIGURES, CompileError, Compiler, Kernel
from benchmarks.gate.report import CHANGED, GONE, NEW, REGRESSION, RESOURCES, UNCHANGED, Finding
from benchmarks.gate.trees import Tree

Side = dict[str, dict[str, Kernel]]
"""Kernel → architecture → figures."""


@dataclass
class Comparison:
    """What the compiled kernels say."""

    findings: list[Finding] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    """Variants of head whose kernels must be judged: other machine code, or another launcher."""
    added: list[str] = field(default_factory=list)
    """Of them, those that base does not have: there is nothing to compare them with."""
    unchanged: list[str] = field(default_factory=list)
    """Variants that are the same code on both sides."""


def sources(csrc: Path, patterns: Sequence[str]) -> dict[str, Path]:
    """op/variant → file, those that match a pattern (all without patterns)."""
    files = {f"{p.parent.name}/{p.stem}": p for p in sorted(csrc.glob("*/*.cu"))}
    kept = {n: p for n, p in files.items() if p.parent.name not in {"common", "simt"}}
    return {
        name: path
        for name, path in kept.items()
        if not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }


HostCode = Mapping[str, Mapping[str, str]]
"""Side → variant → digest of its host object; or of the Python around it."""


def compare(
    base: Tree, head: Tree, compiler: Compiler | None, archs: Sequence[str],
    patterns: Sequence[str], jobs: int, host: HostCode, python: HostCode,
) -> Comparison:  # fmt: skip
    """Compile both sides, as far as they were not, and judge. ``host``: what the host compiler
    made of them, where it did; a launcher is part of that, and of nothing that nvcc writes into a
    cubin. ``python``: digests of the code that calls the launchers (under "", that of variants
    without one of their own). Without nvcc, these alone say what changed."""
    result = Comparison()
    files = {tree.side: sources(tree.csrc, patterns) for tree in (base, head)}
    compiled, failed = _compile(base, head, files, compiler, archs, jobs)
    for (side, variant), error in failed.items():
        _add_build_failure(result, side, variant, error)
    for variant in sorted({*files["base"], *files["head"]}):
        if any((side, variant) in failed for side in files):
            continue
        if variant not in files["head"]:
            result.findings.append(
                Finding(RESOURCES, variant, "", REGRESSION, "head has no such variant")
            )
        else:
            elsewhere = _elsewhere(variant, host, python)
            _add_variant(result, variant, variant in files["base"], compiled, elsewhere)
    if not result.findings and not result.faults:
        result.faults.append("there was no kernel to compare")
    return result


def _compile(
    base: Tree, head: Tree, files: Mapping[str, Mapping[str, Path]], compiler: Compiler | None,
    archs: Sequence[str], jobs: int,
) -> tuple[dict[tuple[str, str], Side], dict[tuple[str, str], str]]:  # fmt: skip
    """(side, variant) → kernels, and → what the compiler said where it failed."""
    compiled: dict[tuple[str, str], Side] = {}
    failed: dict[tuple[str, str], str] = {}
    if compiler is None:
        return compiled, failed
    with ThreadPoolExecutor(jobs) as pool:
        pending = {
            (tree.side, variant, arch): pool.submit(compiler.kernels, file, tree.csrc, arch)
            for tree in (base, head)
            for variant, file in files[tree.side].items()
            for arch in archs
        }
        for (side, variant, arch), job in pending.items():
            kernels = compiled.setdefault((side, variant), {})
            try:
                for name, kernel in job.result().items():
                    kernels.setdefault(name, {})[arch] = kernel
            except CompileError as error:
                failed.setdefault((side, variant), str(error))
    return compiled, failed


def _add_build_failure(result: Comparison, side: str, variant: str, error: str) -> None:
    first = next((line for line in error.splitlines() if "error" in line), error[:200])
    if side == "base":
        result.faults.append(f"{variant} of base does not compile: {first}")
    else:
        why = f"does not compile: {first}"
        result.findings.append(Finding(RESOURCES, variant, "", REGRESSION, why))


def _elsewhere(variant: str, host: HostCode, python: HostCode) -> str:
    """What differs of a variant outside its machine code, in words."""
    objects = [host.get(side, {}).get(variant) for side in ("base", "head")]
    around = [python.get(side, {}) for side in ("base", "head")]
    callers = [found.get(variant, found.get("")) for found in around]
    parts = []
    if objects[0] != objects[1]:
        parts.append("other code on the host: its launcher, or what the executor runs")
    if callers[0] != callers[1]:
        parts.append("other Python around it: what its launcher is given")
    return "; ".join(parts)


def _add_variant(
    result: Comparison,
    variant: str,
    in_base: bool,
    compiled: Mapping[tuple[str, str], Side],
    elsewhere: str,
) -> None:
    before, after = (compiled.get((side, variant), {}) for side in ("base", "head"))
    if not in_base:
        rows = [_new_variant(variant, kernel, k) for kernel, k in sorted(after.items())]
        result.findings += rows or [Finding(RESOURCES, variant, "", NEW, "base has no such file")]
        result.changed.append(variant)
        result.added.append(variant)
        return
    rows = list(judge(variant, before, after))
    same_device = all(row.state == UNCHANGED for row in rows)
    if elsewhere and same_device:
        rows.append(Finding(RESOURCES, variant, "", CHANGED, elsewhere))
    elif not rows:
        rows.append(Finding(RESOURCES, variant, "", UNCHANGED, "same code on the host"))
    result.findings += rows
    (result.changed if elsewhere or not same_device else result.unchanged).append(variant)


def _new_variant(variant: str, kernel: str, figures: dict[str, Kernel]) -> Finding:
    spilled = new_local_memory(variant, {}, figures)
    why = spilled or "base has no such variant"
    return Finding(
        RESOURCES, variant, kernel, REGRESSION if spilled else NEW, why, facts({}, figures)
    )


def judge(variant: str, base: Side, head: Side) -> Iterator[Finding]:
    """The kernels of a variant that exists on both sides."""
    for kernel in sorted({*base, *head}):
        before, after = base.get(kernel, {}), head.get(kernel, {})
        state, why = UNCHANGED, "same machine code"
        if not after:
            # Instantiations come and go with their parameters' names; a variant does not.
            state, why = GONE, "head has no such instantiation"
        elif not before:
            state, why = NEW, "base has no such instantiation"
        elif any(before[a].code != after[a].code for a in after if a in before):
            state, why = CHANGED, differences(before, after) or "other instructions"
        if spilled := new_local_memory(variant, before, after):
            state, why = REGRESSION, spilled
        yield Finding(RESOURCES, variant, kernel, state, why, facts(before, after))


def facts(before: Mapping[str, Kernel], after: Mapping[str, Kernel]) -> dict[str, object]:
    sides = {"base": before, "head": after}
    return {side: {arch: asdict(k) for arch, k in found.items()} for side, found in sides.items()}


def new_local_memory(
    variant: str, before: Mapping[str, Kernel], after: Mapping[str, Kernel]
) -> str:
    """Local memory that base did not keep: an error in what is raced, not in `naive`."""
    if variant.endswith("/naive"):
        return ""
    for arch, kernel in after.items():
        then = before.get(arch)
        used, had = local_bytes(kernel), local_bytes(then) if then else 0
        if used > had:
            return f"keeps {used} bytes of local memory on sm_{arch}, base {had}"
    return ""


def local_bytes(kernel: Kernel) -> int:
    return max(kernel.stack, kernel.spill_stores, kernel.spill_loads)


def differences(before: Mapping[str, Kernel], after: Mapping[str, Kernel]) -> str:
    """`registers 32 → 40, instructions 128/120 → 136/128`: architectures by slashes."""
    archs = [arch for arch in after if arch in before]
    parts = []
    for name in FIGURES:
        then, now = ([getattr(side[a], name) for a in archs] for side in (before, after))
        if then != now:
            parts.append(f"{name.replace('_', ' ')} {merge(then)} → {merge(now)}")
    return ", ".join(parts)


def merge(values: Sequence[int]) -> str:
    return "/".join(map(str, values if len(set(values)) > 1 else values[:1]))
