"""What nvcc makes of the kernels, without a GPU: a digest of the machine code and what it takes.

A cubin is an ELF file, so its machine code is read here, byte for byte, and no disassembler is
needed. Compilations are kept by content: the source with its headers, the compiler, the flags.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import compile_table as ct


@dataclass(frozen=True)
class Kernel:
    """One kernel on one architecture; bytes, except registers and instructions."""

    code: str
    """Digest of its machine code and of the constants that it reads."""
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
        digest = hashlib.sha256(code + constants(sections, usage.kernel)).hexdigest()[:16]
        found[name] = Kernel(
            code=digest,
            instructions=len(code) // INSTRUCTION,
            registers=usage.registers,
            stack=usage.stack,
            spill_stores=usage.spill_stores,
            spill_loads=usage.spill_loads,
            shared=usage.shared,
            constant=len(sections.get(f".nv.constant0.{usage.kernel}", b"")),
        )
    return found


def constants(sections: dict[str, bytes], kernel: str) -> bytes:
    """Literals and tables: the kernel's own banks but for its parameters, and those of the file."""
    shared = re.compile(r"\.nv\.(constant\d+|global\.init)")
    own = re.compile(rf"\.nv\.constant[1-9]\d*\.{re.escape(kernel)}")
    names = sorted(n for n in sections if shared.fullmatch(n) or own.fullmatch(n))
    return b"".join(f"\0{n}\0".encode() + sections[n] for n in names)


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


# What the host compiler made ----------------------------------------------------------------------

KEPT_SECTIONS = (".text", ".rodata", ".data")
"""Code and constants; line tables say nothing about what runs."""


def host_digest(objects: Iterable[Path]) -> str:
    """A digest of the code and constants of object files: kernels on the executor, launchers."""
    total = hashlib.sha256()
    for path in objects:
        for name, content in sorted(section_bytes(path.read_bytes()).items()):
            if name.startswith(KEPT_SECTIONS):
                total.update(f"\0{name}\0{len(content)}\0".encode() + content)
    return total.hexdigest()[:16]
