"""The gate without a GPU: compiled kernels of head against base.

    python -m benchmarks.gate --base REF [--head REF] [--arch 80 --arch 90a] [op/variant globs ...]

Compiles the kernels of both commits (head: the working tree, unless a commit is named), finds by
the machine code which of them changed, and compares what those take: registers, local memory,
shared memory, instructions. Sources come from git by content, compilations are kept by content,
and the checkout is left alone. Writes gate.jsonl, gate.md and gate.xml (JUnit) beside the table.

Exit status: 0 pass, 1 regression (a kernel of head does not compile, is gone, or now keeps local
memory in a variant other than naive), 3 untrusted (no base, no compiler, base does not compile,
nothing to compare; with --require-speed always, since speed is not measured here).
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import io
import json
import os
import re
import struct
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks import compile_table as ct
from benchmarks.stats import EXIT, FAILED, PASS, UNTRUSTED

SUMMARY_ROWS = 20
SPEED = "speed not measured: no GPU was used"
ELSEWHERE = "compiled kernels only: `nox -s conformance` judges results"


class Untrusted(Exception):
    """Why the gate cannot judge."""


# The two trees ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tree:
    """The sources of one side."""

    side: str
    name: str
    """The commit, with a mark if it is the working tree and was changed since."""
    csrc: Path


def git(repository: Path, *arguments: str) -> bytes:
    run = subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True)
    if run.returncode:
        raise Untrusted(f"git {' '.join(arguments)}: {run.stderr.decode().strip()}")
    return run.stdout


def commit_of(repository: Path, reference: str) -> str:
    try:
        return git(repository, "rev-parse", "--verify", f"{reference}^{{commit}}").decode().strip()
    except Untrusted:
        raise Untrusted(f"there is no commit {reference}; was it fetched?") from None


def committed(repository: Path, side: str, reference: str, cache: Path) -> Tree:
    """csrc of a commit, unpacked once for each content it had."""
    commit = commit_of(repository, reference)
    try:
        content = git(repository, "rev-parse", "--verify", f"{commit}:csrc").decode().strip()
    except Untrusted:
        raise Untrusted(f"{reference} has no folder csrc") from None
    place = cache / "trees" / content
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            archive = git(repository, "archive", commit, "csrc")
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                tar.extractall(folder, filter="data")
            try:
                os.rename(folder, place)  # whole or not at all
            except OSError:
                if not place.exists():  # else another run was first
                    raise
            Path(folder).mkdir(exist_ok=True)  # for the TemporaryDirectory to remove
    return Tree(side, commit[:12], place / "csrc")


def working(repository: Path) -> Tree:
    """csrc as it stands in the checkout."""
    commit = commit_of(repository, "HEAD")[:12]
    dirty = git(repository, "status", "--porcelain", "--", "csrc").strip()
    return Tree(
        "head", commit + (" with uncommitted changes" if dirty else ""), repository / "csrc"
    )


# Compiling ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kernel:
    """One kernel on one architecture; bytes, except registers and instructions."""

    code: str
    """Digest of its machine code."""
    instructions: int
    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    shared: int
    constant: int


FIGURES = tuple(name for name in Kernel.__dataclass_fields__ if name != "code")


def closure(source: Path, csrc: Path) -> list[Path]:
    """The file and all that it includes from its tree."""
    found: dict[Path, None] = {}
    queue = [source.resolve()]
    while queue:
        path = queue.pop()
        if path in found:
            continue
        found[path] = None
        for name in re.findall(r'^\s*#\s*include\s*"([^"]+)"', path.read_text(), re.MULTILINE):
            places = (folder / name for folder in (path.parent, csrc, csrc / "simt" / "include"))
            queue += [place.resolve() for place in places if place.is_file()][:1]
    return sorted(found)


def key_of(source: Path, csrc: Path, settings: Iterable[str]) -> str:
    """Names one compilation: the source with its headers, where they lie, and the settings."""
    total = hashlib.sha256("\0".join(settings).encode())
    for path in closure(source, csrc):
        name = os.path.relpath(path, csrc.resolve())
        total.update(f"\0{name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return total.hexdigest()[:24]


@dataclass(frozen=True)
class Compiler:
    nvcc: Path
    release: str
    cache: Path

    def key(self, source: Path, csrc: Path, arch: str) -> str:
        return key_of(source, csrc, (self.release, arch, *ct.FLAGS))

    def kernels(self, source: Path, csrc: Path, arch: str) -> dict[str, Kernel]:
        """Name → kernel of one file, from the cache if it was compiled before."""
        cached = self.cache / "kernels" / f"{self.key(source, csrc, arch)}.json"
        if cached.exists():
            return {name: Kernel(**k) for name, k in json.loads(cached.read_text()).items()}
        with tempfile.TemporaryDirectory() as folder:
            cubin = Path(folder) / "out.cubin"
            target = f"-gencode=arch=compute_{arch},code=sm_{arch}"
            includes = (f"-I{csrc}", f"-I{csrc / 'simt' / 'include'}")
            command = [self.nvcc, *ct.FLAGS, target, *includes, "-cubin", "-o", cubin, source]
            run = subprocess.run(list(map(str, command)), capture_output=True, text=True)
            if run.returncode:
                raise CompileError((run.stderr or run.stdout).strip())
            found = read_kernels(run.stdout + run.stderr, cubin.read_bytes())
        cached.parent.mkdir(parents=True, exist_ok=True)
        partial = cached.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps({name: asdict(k) for name, k in found.items()}))
        partial.replace(cached)
        return found


class CompileError(Exception):
    """What the compiler said."""


INSTRUCTION = 16
"""Bytes of an instruction since Volta."""


def read_kernels(text: str, cubin: bytes) -> dict[str, Kernel]:
    """Kernels by name, from what ptxas printed and from the machine code."""
    sections = section_bytes(cubin)
    usages = [u for u in ct.parse_ptxas(text) if u.registers is not None]
    found: dict[str, Kernel] = {}
    for usage, name in zip(usages, ct.demangle([u.kernel for u in usages]), strict=True):
        code = sections[f".text.{usage.kernel}"]
        assert usage.registers is not None
        while name in found:
            name += "'"  # overloads, which differ in their parameters only
        found[name] = Kernel(
            hashlib.sha256(code).hexdigest()[:16], len(code) // INSTRUCTION, usage.registers,
            usage.stack, usage.spill_stores, usage.spill_loads, usage.shared,
            len(sections.get(f".nv.constant0.{usage.kernel}", b"")),
        )  # fmt: skip
    return found


def section_bytes(elf: bytes) -> dict[str, bytes]:
    """Name → content of the sections of a 64-bit little-endian ELF file."""
    (table,) = struct.unpack_from("<Q", elf, 40)
    entry, count, names = struct.unpack_from("<HHH", elf, 58)
    headers = [struct.unpack_from("<IIQQQQ", elf, table + i * entry) for i in range(count)]
    strings = headers[names][4]
    found = {}
    for name, kind, _, _, offset, size in headers:
        start = strings + name
        label = elf[start : elf.index(b"\0", start)].decode()
        found[label] = b"" if kind == 8 else elf[offset : offset + size]  # 8: occupies no space
    return found


# Judging ------------------------------------------------------------------------------------------

UNCHANGED, CHANGED, NEW, GONE = "unchanged", "changed", "new", "gone"
STATES = (FAILED, CHANGED, NEW, UNCHANGED)


@dataclass
class Row:
    """One kernel of one variant: head against base."""

    variant: str
    """op/variant"""
    kernel: str
    state: str
    """"regression", "changed", "new" or "unchanged"."""
    why: str
    base: dict[str, Kernel] = field(default_factory=dict)
    """By architecture."""
    head: dict[str, Kernel] = field(default_factory=dict)


@dataclass
class Report:
    """The outcome."""

    base: str
    head: str
    compiler: str
    archs: tuple[str, ...]
    rows: list[Row] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """Why it cannot be trusted."""
    run: str = UNTRUSTED

    @property
    def counts(self) -> dict[str, int]:
        return {state: sum(r.state == state for r in self.rows) for state in STATES}


Side = dict[str, dict[str, Kernel]]
"""Kernel → architecture → figures."""


def judge(variant: str, base: Side, head: Side, same_sources: bool) -> Iterator[Row]:
    """The kernels of a variant that exists on both sides."""
    alike = "same sources" if same_sources else "same machine code, launched by other sources"
    for kernel in sorted({*base, *head}):
        before, after = base.get(kernel, {}), head.get(kernel, {})
        row = Row(variant, kernel, UNCHANGED, alike, before, after)
        if not after:
            # Instantiations come and go with their parameters' names; a variant does not.
            row.state, row.why = CHANGED, "head has no such instantiation"
        elif not before:
            row.state, row.why = NEW, "base has no such instantiation"
        elif any(before[a].code != after[a].code for a in after if a in before):
            row.state, row.why = CHANGED, differences(before, after) or "other instructions"
        if spilled := new_local_memory(variant, before, after):
            row.state, row.why = FAILED, spilled
        yield row


def new_local_memory(variant: str, before: dict[str, Kernel], after: dict[str, Kernel]) -> str:
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


def differences(before: dict[str, Kernel], after: dict[str, Kernel]) -> str:
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


def sources(csrc: Path, patterns: Sequence[str]) -> dict[str, Path]:
    """op/variant → file, those that match a pattern (all without patterns)."""
    files = {f"{p.parent.name}/{p.stem}": p for p in sorted(csrc.glob("*/*.cu"))}
    kept = {n: p for n, p in files.items() if p.parent.name not in {"common", "simt"}}
    return {
        name: path
        for name, path in kept.items()
        if not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }


def compare(
    base: Tree, head: Tree, compiler: Compiler, archs: Sequence[str], patterns: Sequence[str],
    jobs: int,
) -> Report:  # fmt: skip
    """Compile what differs and judge it."""
    report = Report(base.name, head.name, compiler.release, tuple(archs))
    files = {tree.side: sources(tree.csrc, patterns) for tree in (base, head)}
    csrc = {"base": base.csrc, "head": head.csrc}

    def keys(side: str, name: str) -> list[str]:
        file = files[side].get(name)
        return [compiler.key(file, csrc[side], arch) for arch in archs] if file else []

    names = sorted({*files["base"], *files["head"]})
    with ThreadPoolExecutor(jobs) as pool:
        jobs_of = {
            (tree.side, name, arch): pool.submit(compiler.kernels, file, tree.csrc, arch)
            for tree in (base, head)
            for name, file in files[tree.side].items()
            for arch in archs
        }
        for name in names:
            compiled: dict[str, Side] = {}
            for side in ("base", "head"):
                if name not in files[side]:
                    continue
                try:
                    compiled[side] = {}
                    for arch in archs:
                        for kernel, k in jobs_of[side, name, arch].result().items():
                            compiled[side].setdefault(kernel, {})[arch] = k
                except CompileError as error:
                    del compiled[side]
                    _add_build_failure(report, side, name, str(error))
            _add_rows(report, name, files, compiled, keys("base", name) == keys("head", name))
    if not report.rows and not report.faults:
        report.faults.append("there was no kernel to compare")
    regressions = any(row.state == FAILED for row in report.rows)
    report.run = UNTRUSTED if report.faults else FAILED if regressions else PASS
    return report


def _add_build_failure(report: Report, side: str, variant: str, error: str) -> None:
    first = next((line for line in error.splitlines() if "error" in line), error[:200])
    if side == "base":
        report.faults.append(f"{variant} of base does not compile: {first}")
    else:
        report.rows.append(Row(variant, "", FAILED, f"does not compile: {first}"))


def _add_rows(
    report: Report,
    variant: str,
    files: dict[str, dict[str, Path]],
    compiled: dict[str, Side],
    same_sources: bool,
) -> None:
    if variant not in files["head"]:
        report.rows.append(Row(variant, "", FAILED, "head has no such variant"))
    elif "head" in compiled and variant in files["base"] and "base" in compiled:
        report.rows += judge(variant, compiled["base"], compiled["head"], same_sources)
    elif "head" in compiled and variant not in files["base"]:
        for kernel, k in sorted(compiled["head"].items()):
            spilled = new_local_memory(variant, {}, k)
            why = spilled or "base has no such variant"
            report.rows.append(Row(variant, kernel, FAILED if spilled else NEW, why, {}, k))


# Telling ------------------------------------------------------------------------------------------


def banner(report: Report) -> str:
    counts = ", ".join(f"{n} {state}" for state, n in report.counts.items() if n)
    targets = ", ".join(f"sm_{arch}" for arch in report.archs)
    return (
        f"gate: {report.run.upper()} ({SPEED}; {ELSEWHERE})\n"
        f"head {report.head} against base {report.base}; nvcc {report.compiler}, {targets}\n"
        f"kernels: {counts or 'none'}"
    )


def told(report: Report) -> list[Row]:
    """Rows worth a line, the worst first."""
    return sorted(
        (row for row in report.rows if row.state != UNCHANGED),
        key=lambda row: (STATES.index(row.state), row.variant, row.kernel),
    )


def terminal(report: Report) -> str:
    rows = [(r.state, f"{r.variant} {r.kernel}".strip(), r.why) for r in told(report)]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(2)]
    lines = [f"{s.ljust(widths[0])}  {n.ljust(widths[1])}  {w}" for s, n, w in rows]
    return "\n".join([*lines, *(f"untrusted: {fault}" for fault in report.faults), banner(report)])


def markdown(report: Report) -> str:
    """A summary far below the size that job summaries may have."""
    head, *rest = banner(report).splitlines()
    lines = [f"## {head}", "", *rest, ""]
    lines += [f"* {fault}" for fault in report.faults]
    rows = told(report)
    if rows:
        lines += ["", "| | kernel | |", "|---|---|---|"]
    for row in rows[:SUMMARY_ROWS]:
        why = row.why[:300].replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {row.state} | `{row.variant} {row.kernel}` | {why} |")
    if len(rows) > SUMMARY_ROWS:
        lines.append(f"\n… and {len(rows) - SUMMARY_ROWS} more, in gate.jsonl")
    return "\n".join(lines) + "\n"


def json_lines(report: Report) -> Iterator[str]:
    """First the run, then a line for each kernel."""
    yield json.dumps(
        {
            "run": report.run, "exit": EXIT[report.run], "speed": "not measured",
            "base": report.base, "head": report.head, "nvcc": report.compiler,
            "archs": report.archs, "counts": report.counts, "faults": report.faults,
        }
    )  # fmt: skip
    for row in report.rows:
        yield json.dumps(asdict(row))


def junit(report: Report) -> str:
    """One test case per kernel; an untrusted run is an error of its own."""
    suite = ET.Element("testsuite", name="gate")
    for row in report.rows:
        case = ET.SubElement(
            suite, "testcase", classname=f"gate.{row.variant}", name=row.kernel or row.variant
        )
        if row.state == FAILED:
            ET.SubElement(case, "failure", message=row.why)
    for fault in report.faults:
        case = ET.SubElement(suite, "testcase", classname="gate", name="run")
        ET.SubElement(case, "error", message=fault)
    case = ET.SubElement(suite, "testcase", classname="gate", name="speed")
    ET.SubElement(case, "skipped", message=SPEED)
    counts = {
        "tests": "testcase",
        "failures": "*/failure",
        "errors": "*/error",
        "skipped": "*/skipped",
    }
    for name, path in counts.items():
        suite.set(name, str(len(suite.findall(path))))
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(suite, encoding="unicode") + "\n"
    )


def write(report: Report, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gate.jsonl").write_text("\n".join(json_lines(report)) + "\n")
    (folder / "gate.md").write_text(markdown(report))
    (folder / "gate.xml").write_text(junit(report))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pattern", nargs="*", help="op/variant globs; all without any")
    parser.add_argument("--base", required=True, metavar="REF", help="commit to compare with")
    parser.add_argument("--head", metavar="REF", help="default: the working tree")
    parser.add_argument("--arch", action="append", help=f"instead of {' '.join(ct.ARCHS)}")
    parser.add_argument("--require-speed", action="store_true", help="exit 3 without a GPU")
    parser.add_argument("--repository", type=Path, default=ct.ROOT, metavar="FOLDER")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: build/gate")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args(argv)
    out = args.out or args.repository / "build" / "gate"
    archs = tuple(args.arch or ct.ARCHS)
    report = Report(args.base, args.head or "working tree", "not found", archs)
    try:
        base = committed(args.repository, "base", args.base, out)
        report.base = base.name
        head = (
            committed(args.repository, "head", args.head, out)
            if args.head
            else working(args.repository)
        )
        report.head = head.name
        nvcc = ct.find_nvcc()
        if nvcc is None:
            raise Untrusted("nvcc is not on PATH, not under CUDA_HOME, and not installed from PyPI")
        compiler = Compiler(nvcc, ct.nvcc_release(nvcc), out)
        report = compare(base, head, compiler, archs, args.pattern, args.jobs)
    except Untrusted as error:
        report.faults.append(str(error))
    if args.require_speed:
        report.faults.append("--require-speed was given, and speed was not measured")
        report.run = UNTRUSTED
    write(report, out)
    print(terminal(report))
    return EXIT[report.run]


if __name__ == "__main__":
    sys.exit(main())
