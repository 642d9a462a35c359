"""The stages, one after the other. Each says how far it came; what cannot be judged is never
green."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import compile_table as ct
from benchmarks.gate import accuracy, builds, correctness, speed, static, trees, work, wrappers
from benchmarks.gate.builds import CHECKED, CUDA, PLAIN, Build, BuildError
from benchmarks.gate.machine_code import Compiler
from benchmarks.gate.processes import gpu_subject, probe
from benchmarks.gate.processes.sides import to_json
from benchmarks.gate.report import (
    ACCURACY,
    BROKEN,
    CORRECTNESS,
    DONE,
    INCONCLUSIVE,
    REGRESSION,
    RESOURCES,
    SPEED,
    UNCHANGED,
    WORK,
    Finding,
    Report,
    Stage,
    Untrusted,
)  # fmt: skip
from yaie.record import provenance

NO_GPU = "speed not measured: no GPU was used"
MOST_CONTROLS = 20


@dataclass(frozen=True)
class Settings:
    """What a run was asked to do."""

    base: str
    head: str | None = None
    patterns: Sequence[str] = ()
    archs: Sequence[str] = ct.ARCHS
    repository: Path = ct.ROOT
    out: Path = ct.ROOT / "build" / "gate"
    jobs: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    require_speed: bool = False
    profile: str = correctness.PROFILE
    static_only: bool = False


def run(settings: Settings) -> Report:
    """All stages. Never raises for what may happen to sources, builds, kernels and machines."""
    report = Report(settings.base, settings.head or "working tree", archs=tuple(settings.archs))
    try:
        _run(settings, report)
    except Untrusted as error:
        report.faults.append(str(error))
    if settings.require_speed and not report.speed_measured:
        report.faults.append("--require-speed was given, and speed was not measured")
    return report


def _run(settings: Settings, report: Report) -> None:
    base, head = _trees(settings, report)
    here = provenance()
    report.machine, report.gpu = str(here["cpu"]), here["gpu"]
    with_gpu = report.gpu is not None and not settings.static_only
    made: builds.Made = {}
    if not settings.static_only:
        say("building both sides")
        compared = [
            (side, kind) for kind in (CHECKED, CUDA)[: 1 + with_gpu] for side in (base, head)
        ]
        made = builds.make([*compared, (head, PLAIN)], settings.out, settings.jobs)
    _tell_builds(made, report)
    comparison = _resources(settings, base, head, made, report)
    changed = [v for v in comparison.changed if _has_op(v)]
    right = True
    if settings.static_only:
        report.notes.append("only the compiled code was compared (--static)")
    elif changed:
        right = _correctness(settings, changed, made, report)
        common = [v for v in changed if v not in comparison.added]
        _probes(settings, common, made, report, right)
    else:
        for name in (CORRECTNESS, ACCURACY, WORK):
            report.stages[name] = Stage(name, DONE, "no kernel changed")
    _speed(settings, comparison, made, report, with_gpu, right)


def say(words: str) -> None:
    """Progress, apart from the results."""
    print(f"gate: {words}", file=sys.stderr, flush=True)


# Trees and builds ---------------------------------------------------------------------------------


def _trees(settings: Settings, report: Report) -> tuple[trees.Tree, trees.Tree]:
    base = trees.committed(settings.repository, "base", settings.base, settings.out)
    report.base = base.name
    if settings.head:
        head = trees.committed(settings.repository, "head", settings.head, settings.out)
    else:
        head = trees.working(settings.repository, settings.out)
    report.head, report.dirty = head.name, head.dirty
    if head.dirty:
        report.notes.append("head is the working tree with uncommitted changes: no commit is this")
    python = trees.changed_files(base, head, "yaie")
    if python:
        report.notes.append(
            f"{len(python)} files of yaie differ, of which only kernels are judged here: "
            "`nox -s tests` and `nox -s conformance` judge the rest"
        )
    return base, head


def _tell_builds(made: builds.Made, report: Report) -> None:
    """A head that does not build is a regression, a base that does not is no base."""
    for (side, kind), build in made.items():
        if isinstance(build, BuildError):
            if side == "head":
                report.add([Finding(CORRECTNESS, "", f"build, {kind}", REGRESSION, str(build))])
            else:
                report.faults.append(str(build))
        else:
            report.builds[f"{side} {kind}"] = build.build_id


def _resources(
    settings: Settings, base: trees.Tree, head: trees.Tree, made: builds.Made, report: Report
) -> static.Comparison:
    with _timed(report, RESOURCES) as stage:
        nvcc = ct.find_nvcc()
        compiler = None
        if nvcc is None:
            report.faults.append(
                "nvcc is not on PATH, not under CUDA_HOME, and not installed from PyPI"
            )
        else:
            compiler = Compiler(nvcc, ct.nvcc_release(nvcc), settings.out)
            report.compiler = compiler.release
        say(f"compiled code of {len(settings.archs)} architectures")
        both = {s: builds.of_side(made, s, CHECKED) for s in ("base", "head")}
        host = {side: build.host_digests() for side, build in both.items() if build is not None}
        if len(host) < 2:
            host = {}  # one side alone would differ everywhere
        python = {tree.side: wrappers.digests(tree.root) for tree in (base, head)}
        comparison = static.compare(
            base, head, compiler, settings.archs, settings.patterns, settings.jobs, host, python
        )
        report.add(comparison.findings)
        report.faults += comparison.faults
        stage.words = (
            f"variants: {len(comparison.changed)} changed, {len(comparison.unchanged)} the same"
        )
        if compiler is None:
            stage.status = BROKEN
    return comparison


def _has_op(variant: str) -> bool:
    from yaie import ops

    return variant.partition("/")[0] in ops.OPS


# Correctness, accuracy, work ----------------------------------------------------------------------


def _correctness(
    settings: Settings, changed: Sequence[str], made: builds.Made, report: Report
) -> bool:
    """Whether head's changed kernels are right, as far as they could be judged."""
    with _timed(report, CORRECTNESS) as stage:
        for kind in (PLAIN, CHECKED, CUDA):
            build = builds.of_side(made, "head", kind)
            if build is None:
                continue
            say(f"{kind} build of head: {len(changed)} variants on the {settings.profile} profile")
            out = settings.out / "correctness"
            extensions = _extensions(made, build, out)
            report.add(correctness.judge(build, extensions, changed, out, settings.profile))
        stage.words = f"changed variants: {len(changed)}, profile {settings.profile}"
        judged = [f for f in report.findings if f.stage == CORRECTNESS]
        unclear = [f.why for f in judged if f.state == INCONCLUSIVE]
        report.faults += unclear
        if unclear or not judged:
            stage.status = BROKEN
    return not any(f.state == REGRESSION for f in judged)


def _extensions(made: builds.Made, build: Build, out: Path) -> Path:
    """The folder that holds what conformance loads: a build for GPUs has no executor of its own,
    which the suite wants whatever it judges."""
    plain = builds.of_side(made, "head", PLAIN)
    if build.kind != CUDA or plain is None:
        return build.extensions
    folder = out / "extensions"
    folder.mkdir(parents=True, exist_ok=True)
    for module in (plain.module, build.module):
        (folder / module.name).unlink(missing_ok=True)
        (folder / module.name).symlink_to(module)
    return folder


def _probes(
    settings: Settings, common: Sequence[str], made: builds.Made, report: Report, right: bool
) -> None:
    """Accuracy and counted work of what both sides have, on the same cases."""
    if not right:
        for name in (ACCURACY, WORK):
            report.stages[name].words = "head is wrong: errors and work of it mean nothing"
        return
    for kind in (CHECKED, CUDA):
        pair = [builds.of_side(made, side, kind) for side in ("base", "head")]
        if None not in pair and common:
            _probe(settings, pair[0], pair[1], common, report)  # type: ignore[arg-type]
    if report.stages[ACCURACY].status != DONE:
        report.stages[ACCURACY].words = "no build of both sides to compare"


def _probe(
    settings: Settings, base: Build, head: Build, variants: Sequence[str], report: Report
) -> None:
    counts = None
    with _timed(report, ACCURACY) as stage:
        say(f"accuracy and work of {len(variants)} variants, {base.face}")
        out = settings.out / f"probe-{base.face}.jsonl"
        records = probe.start(base, head, variants, out)
        _tell_problems(report, probe.problems(records), base.face)
        errors, counts = probe.tables(records)
        found = accuracy.judge(errors) if len(errors) else []
        if base.face == "cuda":
            found = [_renamed(f, f"{f.name}, GPU") for f in found]
        report.add(found)
        told = f"{len(errors)} cases whose results have a budget"
        stage.words = told if len(errors) else "results of these ops are exact: nothing can drift"
    if counts is not None and len(counts):
        with _timed(report, WORK) as stage:
            report.add(work.judge(counts))
            stage.words = f"{len(counts)} cases on the executor"
    elif report.stages[WORK].status != DONE:
        report.stages[WORK].words = "no build of the executor of both sides counted any"


def _tell_problems(report: Report, problems: probe.Problems, face: str) -> None:
    """A head that serves less is a regression; what fails on all cases cannot be judged."""
    report.notes += [note for note in problems.notes if note not in report.notes]
    report.add(
        Finding(CORRECTNESS, variant, f"support, {face}", REGRESSION, why)
        for variant, why in problems.narrowed.items()
    )
    report.faults += [
        f"no case of {variant} ran on both sides ({face}), so its accuracy and work are not known"
        for variant in problems.uncompared
    ]


def _renamed(finding: Finding, name: str) -> Finding:
    finding.name = name
    return finding


# Speed --------------------------------------------------------------------------------------------


def _speed(
    settings: Settings,
    comparison: static.Comparison,
    made: builds.Made,
    report: Report,
    with_gpu: bool,
    right: bool,
) -> None:
    if not with_gpu:
        report.stages[SPEED].words = NO_GPU
        return
    if not right:  # it may hang, or write where it should not
        report.stages[SPEED].words = "speed not measured: head is wrong, its times mean nothing"
        return
    pair = [builds.of_side(made, side, CUDA) for side in ("base", "head")]
    if None in pair:
        report.stages[SPEED].words = "speed not measured: there is no CUDA build of both sides"
        report.faults.append(report.stages[SPEED].words)
        return
    both = set(comparison.changed) - set(comparison.added)
    measured = gpu_subject.benches(sorted(both))
    without = sorted(both - {bench.partition(" ")[0] for bench in measured})
    if without:
        report.notes.append(f"no workload of the bench times {', '.join(without)}")
    controls = gpu_subject.benches(comparison.unchanged)
    controls = controls[:: max(1, len(controls) // MOST_CONTROLS)][:MOST_CONTROLS]
    if not measured and both:
        untimed = "speed not measured: no workload of the bench times what changed"
        report.stages[SPEED].words = untimed
        return
    if not measured:
        report.stages[SPEED] = Stage(
            SPEED, DONE, "no kernel of base changed: nothing can be slower"
        )
        report.add(
            Finding(SPEED, v, "", UNCHANGED, "unchanged by construction")
            for v in comparison.unchanged
        )
        return
    with _timed(report, SPEED) as stage:
        others = other_processes()
        target = speed.Target(
            "benchmarks.gate.processes.gpu_subject:GpuSubject", [*measured, *controls], controls,
            (controls or measured)[0], {"builds": to_json(pair)},  # type: ignore[arg-type]
        )  # fmt: skip
        outcome = speed.measure(target, settings.out / "speed", say)
        if others := sorted({*others, *other_processes()}):
            report.faults.append(f"another process uses the GPU: {', '.join(others)}")
        tell_speed(report, outcome)
        stage.words = f"{len(measured)} benchmarks, {len(controls)} controls on {report.gpu}"
        if set(measured) <= set(outcome.declined):
            stage.status = BROKEN
            stage.words = "speed not measured: a side declines every benchmark of what changed"


def tell_speed(report: Report, outcome: speed.Outcome) -> None:
    """Findings, faults and notes of a measurement."""
    report.add(speed.findings(outcome))
    report.notes += [*outcome.verdicts.notes, *outcome.notes]
    report.faults += outcome.faults
    if outcome.verdicts.run == "untrusted":
        report.faults += outcome.verdicts.reasons


def other_processes() -> list[str]:
    """Processes on the GPU, of which none is ours: this process opens none, and those that measure
    have not begun or have ended. Of all GPUs, unless CUDA_VISIBLE_DEVICES says which one is used.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, "--query-compute-apps=pid,process_name", "--format=csv,noheader"]
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        command.append(f"--id={visible.partition(',')[0]}")
    done = subprocess.run(command, capture_output=True, text=True)
    lines = done.stdout.splitlines() if done.returncode == 0 else []
    return [line.strip() for line in lines if line.strip()]


@contextmanager
def _timed(report: Report, name: str) -> Iterator[Stage]:
    """A stage that runs inside the block; what it cannot judge is a fault, and the next ones
    run."""
    stage, started = report.stages[name], time.monotonic()
    try:
        yield stage
        if stage.status != BROKEN:
            stage.status = DONE
    except Untrusted as error:
        stage.status, stage.words = BROKEN, str(error)
        if str(error) not in report.faults:
            report.faults.append(str(error))
    finally:
        stage.seconds += time.monotonic() - started
