"""Compile every kernel with nvcc, without a GPU, and table what ptxas says about it.

    python benchmarks/compile_table.py [--arch 80 --arch 90a] [--jobs 2] [paged_attention/* ...]

One row per kernel (each template instantiation is one): registers, local memory (stack frame and
spilled bytes), static shared memory, constant memory (parameters included); three figures are
those of three architectures. Spills or a stack frame in a kernel of any variant but `naive` are
an error: exit status 1. The table goes to stdout and, with every figure of every architecture,
to build/compile/table.json and table.md. Results are cached by content in the same folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
INCLUDES = (CSRC, CSRC / "simt" / "include")
OUT = ROOT / "build" / "compile"
ARCHS = ("80", "90a", "100")
FLAGS = ("-std=c++17", "-lineinfo", "-Xptxas=-v")


@dataclasses.dataclass
class Usage:
    """What one kernel takes on one architecture; bytes, except registers."""

    kernel: str
    registers: int | None  # None: a device function that was not inlined has no count of its own
    stack: int
    spill_stores: int
    spill_loads: int
    shared: int = 0
    constant: int = 0


@dataclasses.dataclass
class Row:
    """One kernel of one source file, on each architecture it was compiled for."""

    op: str
    variant: str
    kernel: str
    usage: dict[str, Usage]

    @property
    def spills(self) -> bool:
        """Whether the kernel keeps anything in local memory."""
        return any(u.stack or u.spill_stores or u.spill_loads for u in self.usage.values())

    @property
    def fails(self) -> bool:
        """Whether that is an error: the naive variants are read, not raced."""
        return self.spills and self.variant != "naive"


# What ptxas prints and what a cubin holds -----------------------------------------------------

ENTRY = re.compile(r"Compiling entry function '(\S+)'")
PROPERTIES = re.compile(r"Function properties for (\S+)")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")


def parse_ptxas(text: str) -> list[Usage]:
    """The functions that `ptxas -v` reports, names still mangled."""
    found: list[Usage] = []
    entries: set[str] = set()
    name = ""
    for line in text.splitlines():
        if match := ENTRY.search(line):
            entries.add(match[1])
        elif match := PROPERTIES.search(line):
            name = match[1]
        elif match := FRAME.search(line):
            stack, stores, loads = map(int, match.groups())
            found.append(Usage(name, None, stack, stores, loads))
        elif (match := USED.search(line)) and found and found[-1].kernel in entries:
            found[-1].registers = int(match[1])
            found[-1].shared = int(shared[1]) if (shared := SHARED.search(line)) else 0
    return found


def section_sizes(elf: bytes) -> dict[str, int]:
    """Name → size of the sections of a 64-bit little-endian ELF file, which a cubin is."""
    (table,) = struct.unpack_from("<Q", elf, 40)
    entry_size, count, names = struct.unpack_from("<HHH", elf, 58)
    headers = [struct.unpack_from("<IIQQQQ", elf, table + i * entry_size) for i in range(count)]
    strings = headers[names][4]
    sizes = {}
    for name, _, _, _, _, size in headers:
        start = strings + name
        sizes[elf[start : elf.index(b"\0", start)].decode()] = size
    return sizes


def demangle(names: Sequence[str]) -> list[str]:
    """Names as written in the source: no return type, no parameters."""
    tool = shutil.which("cu++filt") or shutil.which("c++filt")
    if not tool or not names:
        return list(names)
    text = subprocess.run(
        [tool], input="\n".join(names), capture_output=True, text=True, check=True
    )
    return [short_name(line) for line in text.stdout.splitlines()]


def short_name(demangled: str) -> str:
    """`void yaie::(anonymous namespace)::k<float, (int)4>(float*)` → `k<float, 4>`."""
    name = demangled.replace("(anonymous namespace)::", "")
    depth, start, end = 0, 0, len(name)
    for i, char in enumerate(name):
        depth += (char == "<") - (char == ">")
        if depth == 0 and char in " :":
            start = i + 1  # what stood before is the return type or a namespace
        if depth == 0 and char == "(":
            end = i
            break
    return re.sub(r"\((?:int|bool|unsigned int)\)", "", name[start:end])


# Compiling -----------------------------------------------------------------------------------


def find_nvcc() -> Path | None:
    """nvcc on PATH, under CUDA_HOME, or from the package nvidia-cuda-nvcc."""
    packaged = Path(sysconfig.get_path("purelib")) / "nvidia"
    folders = [*os.environ.get("PATH", "").split(os.pathsep)]
    folders += [f"{home}/bin" for home in [os.environ.get("CUDA_HOME")] if home]
    folders += map(str, sorted(packaged.glob("cu*/bin")))
    found = shutil.which("nvcc", path=os.pathsep.join(folders))
    return Path(found) if found else None


def include_closure(source: Path) -> list[Path]:
    """The file and all that it includes from this repository."""
    seen: dict[Path, None] = {}
    queue = [source]
    while queue:
        path = queue.pop()
        if path in seen:
            continue
        seen[path] = None
        for name in re.findall(r'^\s*#\s*include\s*"([^"]+)"', path.read_text(), re.MULTILINE):
            places = (folder / name for folder in (path.parent, *INCLUDES))
            queue += [place.resolve() for place in places if place.is_file()][:1]
    return sorted(seen)


def content_key(source: Path, parts: Iterable[str]) -> str:
    """Names one compilation: the source with its headers, and the settings."""
    total = hashlib.sha256("\0".join(parts).encode())
    for path in include_closure(source.resolve()):
        total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()[:24]


def nvcc_release(nvcc: Path) -> str:
    """The compiler's full version, such as 13.0.88."""
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"V([\d.]+)", text)
    return match[1] if match else text


def compile_one(nvcc: Path, release: str, source: Path, arch: str) -> list[Usage]:
    """Usage of the kernels of one file on one architecture, from the cache if it is there."""
    cached = OUT / "cache" / f"{content_key(source, (release, arch, *FLAGS))}.json"
    if cached.exists():
        return [Usage(**u) for u in json.loads(cached.read_text())]
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "out.cubin"
        target = f"-gencode=arch=compute_{arch},code=sm_{arch}"
        includes = [f"-I{path}" for path in INCLUDES]
        command = [str(nvcc), *FLAGS, target, *includes, "-cubin", "-o", str(cubin), str(source)]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{run.stdout}{run.stderr}")
        sections = section_sizes(cubin.read_bytes())
    found = parse_ptxas(run.stdout + run.stderr)
    for usage in found:
        usage.constant = sections.get(f".nv.constant0.{usage.kernel}", 0)
    for usage, name in zip(found, demangle([u.kernel for u in found]), strict=True):
        usage.kernel = name
    cached.parent.mkdir(parents=True, exist_ok=True)
    cached.write_text(json.dumps([dataclasses.asdict(u) for u in found]))
    return found


def kernel_sources(patterns: Sequence[str]) -> list[Path]:
    """csrc/<op>/<variant>.cu, those whose op/variant matches a pattern (all without patterns)."""
    found = [p for p in sorted(CSRC.glob("*/*.cu")) if p.parent.name not in {"common", "simt"}]
    names = {p: f"{p.parent.name}/{p.stem}" for p in found}
    return [p for p in found if not patterns or any(fnmatch.fnmatch(names[p], q) for q in patterns)]


# The table -----------------------------------------------------------------------------------

COLUMNS = ("registers", "stack", "spill_stores", "spill_loads", "shared", "constant")
HEADINGS = ("registers", "stack", "spill st", "spill ld", "shared", "constant")


def join_rows(source: Path, by_arch: dict[str, list[Usage]]) -> list[Row]:
    """Rows of one file: the same kernel's figures of all architectures together."""
    kernels: dict[str, dict[str, Usage]] = {}
    for arch, found in by_arch.items():
        for usage in found:
            kernels.setdefault(usage.kernel, {})[arch] = usage
    return [Row(source.parent.name, source.stem, k, kernels[k]) for k in sorted(kernels)]


def cell(usages: Iterable[Usage], column: str) -> str:
    """One figure if all architectures agree, else one for each."""
    values = ["-" if (v := getattr(u, column)) is None else str(v) for u in usages]
    return values[0] if len(set(values)) == 1 else "/".join(values)


def table_cells(rows: Sequence[Row]) -> list[list[str]]:
    """The table as text, heading first."""
    lines = [["kernel", *HEADINGS]]
    for row in rows:
        name = f"{row.op}/{row.variant} {row.kernel}" + (" LOCAL MEMORY" if row.fails else "")
        lines.append([name, *(cell(row.usage.values(), column) for column in COLUMNS)])
    return lines


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Plain text: the first column to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    out = []
    for line in lines:
        figures = (c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))
        out.append("  ".join([line[0].ljust(widths[0]), *figures]))
    return "\n".join(out)


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """The same as a Markdown table."""
    rule = ["---", *["---:"] * (len(lines[0]) - 1)]
    body = [[f"`{line[0]}`", *line[1:]] for line in lines[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *body]) + "\n"


def summary(rows: Sequence[Row], release: str, archs: Sequence[str]) -> str:
    """One line under the table."""
    targets = ", ".join(f"sm_{arch}" for arch in archs)
    failing = sum(row.fails for row in rows)
    verdict = f"{failing} with local memory" if failing else "no local memory outside naive"
    return f"{len(rows)} kernels, nvcc {release}, {targets}: {verdict}"


def main(argv: Sequence[str] | None = None) -> int:
    """Compile, print, write; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pattern", nargs="*", help="op/variant globs; all without any")
    parser.add_argument("--arch", action="append", help=f"instead of {' '.join(ARCHS)}")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args(argv)

    nvcc = find_nvcc()
    if nvcc is None:
        sys.exit("nvcc is not on PATH, not under CUDA_HOME, and not installed from PyPI")
    release = nvcc_release(nvcc)
    archs = tuple(args.arch or ARCHS)
    sources = kernel_sources(args.pattern)
    if not sources:
        sys.exit("no kernel source matches")

    with ThreadPoolExecutor(args.jobs) as pool:
        pending = {
            source: {arch: pool.submit(compile_one, nvcc, release, source, arch) for arch in archs}
            for source in sources
        }
        try:
            rows = [
                row
                for source, by_arch in pending.items()
                for row in join_rows(source, {a: job.result() for a, job in by_arch.items()})
            ]
        except RuntimeError as error:
            pool.shutdown(cancel_futures=True)
            sys.exit(f"nvcc failed: {error}")

    lines = table_cells(rows)
    last = summary(rows, release, archs)
    record = {"nvcc": release, "archs": archs, "rows": [dataclasses.asdict(row) for row in rows]}
    (OUT / "table.json").write_text(json.dumps(record, indent=1) + "\n")
    (OUT / "table.md").write_text(f"{markdown(lines)}\n{last}\n")
    print(f"{aligned(lines)}\n\n{last}")
    return 1 if any(row.fails for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
