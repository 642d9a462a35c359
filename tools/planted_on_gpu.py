"""Who finds the planted bugs: the executor's checked build, and compute-sanitizer on a GPU.

    python tools/planted_on_gpu.py build [--folder DIR] [--jobs N]    here or there: needs nvcc
    python tools/planted_on_gpu.py run [--folder DIR] [--jobs N] [--out DIR]    needs a GPU

`build` compiles each program of tests/planted for sm_90 (--arch for others), clean and with each
bug. `run` gives each to memcheck, racecheck, initcheck and synccheck, and writes planted.json and
planted.md: a row for each bug with what each tool says of it. The clean programs are rows as well:
what a tool says of those is a false alarm. A bug that makes the GPU wait for ever is ended after
--timeout seconds and counts as "hangs". The executor's column is the kind that bugs.toml states,
which tests/test_simt_planted.py holds it to.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from planted import BUGS, INCLUDES, lay_out  # noqa: E402

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
QUIET = "-"
SUMMARY = re.compile(
    r"ERROR SUMMARY: (?P<errors>\d+) error|RACECHECK SUMMARY: (?P<hazards>\d+) hazard"
)
FIRST = re.compile(
    r"========= (?:Error: |Warning: )?(?P<what>Invalid [^\n]*|Uninitialized [^\n]*|"
    r"Race reported [^\n]*|Potential [^\n]*hazard[^\n]*|Barrier error[^\n]*|Misaligned [^\n]*|"
    r"Program hit [^\n]*)"
)


def compile_program(folder: Path, name: str, arch: str) -> str | None:
    """The compiler's complaint, or None."""
    source, program = folder / name / "program.cu", folder / name / "program"
    if program.exists() and program.stat().st_mtime > newest(folder / name):
        return None
    includes = [f"-I{path}" for path in (folder / name, *INCLUDES)]
    command = ["nvcc", "-std=c++17", "-O1", "-lineinfo", "-cudart", "shared", f"-arch={arch}"]
    command += ["--expt-relaxed-constexpr", *includes, str(source), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"{name}: {done.stderr[-1000:]}"


def newest(folder: Path) -> float:
    """When a program's own sources, or any that it may include, were changed last."""
    headers = [p for include in INCLUDES for p in include.rglob("*.*h")]
    own = [p for p in folder.rglob("*") if p.suffix in (".cu", ".cuh", ".h")]
    return max(p.stat().st_mtime for p in [*headers, *own])


def in_parallel(jobs: int, function: Callable[[str], object], names: Iterable[str]) -> list[object]:
    """The function of each name, in order."""
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(function, names))


def build(args: argparse.Namespace) -> int:
    """Compile every program."""
    args.folder.mkdir(parents=True, exist_ok=True)
    names = fnmatch.filter(lay_out(args.folder), args.only)
    compiled = in_parallel(args.jobs, lambda n: compile_program(args.folder, n, args.arch), names)
    complaints = [complaint for complaint in compiled if complaint]
    print(*complaints, sep="\n", file=sys.stderr)
    print(f"{len(names) - len(complaints)} of {len(names)} programs built in {args.folder}")
    return 1 if complaints else 0


def verdict(tool: str, program: Path, timeout: float) -> str:
    """What a tool says of a program, in a few words; QUIET: nothing."""
    command = ["compute-sanitizer", "--tool", tool, "--print-limit", "3", str(program)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return "hangs"
    return reading(done.stdout + done.stderr, done.returncode)


def reading(text: str, status: int) -> str:
    """The first thing that a tool reported, and how many there were."""
    summary = SUMMARY.search(text)
    if summary is None:
        return f"no summary (exit {status})"
    count = int(summary["errors"] or summary["hazards"])
    if not count:
        return QUIET
    first = FIRST.search(text)
    what = first["what"].strip() if first else "error"
    return f"{what[:100]} ({count})"


def run(args: argparse.Namespace) -> int:
    """Give every program to every tool; write the table."""
    by_name = {bug.id: bug for bug in BUGS}
    built = sorted(p.parent.name for p in args.folder.glob("*/program"))
    names = fnmatch.filter(built, args.only)
    pairs = [f"{tool} {name}" for name in names for tool in TOOLS]

    def judge(pair: str) -> str:
        tool, name = pair.split()
        return verdict(tool, args.folder / name / "program", args.timeout)

    said = dict(zip(pairs, in_parallel(args.jobs, judge, pairs), strict=True))
    rows = [
        {
            "bug": name,
            "file": by_name[name].file if name in by_name else None,
            "executor": by_name[name].kind if name in by_name else QUIET,
            **{tool: said[f"{tool} {name}"] for tool in TOOLS},
        }
        for name in names
    ]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "planted.json").write_text(json.dumps({"gpu": gpu(), "rows": rows}, indent=1))
    (args.out / "planted.md").write_text(table(rows))
    print(table(rows))
    return 0 if rows else 1


def gpu() -> str:
    """The GPU's name and its driver's version."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def tells(said: str | None) -> bool:
    """Whether a tool named a bug; that a program hangs or breaks off names nothing."""
    return said is not None and not said.startswith((QUIET, "hangs", "no summary"))


def table(rows: Sequence[dict[str, str | None]]) -> str:
    """The rows as Markdown, with a line of totals."""
    bugs = [row for row in rows if row["file"]]
    columns = ("executor", *TOOLS)
    found = {column: sum(tells(row[column]) for row in bugs) for column in columns}
    any_tool = sum(any(tells(row[tool]) for tool in TOOLS) for row in bugs)
    lines = [
        f"{gpu()}: of {len(bugs)} bugs the executor finds {found['executor']}, "
        f"compute-sanitizer's four tools together {any_tool}.",
        "",
        "| bug | " + " | ".join(columns) + " |",
        "|---|" + "---|" * len(columns),
        *("| " + " | ".join(str(row[c]) for c in ("bug", *columns)) + " |" for row in rows),
        "| found | " + " | ".join(str(found[c]) for c in columns) + " |",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, function in (("build", build), ("run", run)):
        command = commands.add_parser(name)
        command.set_defaults(call=function)
        command.add_argument("--folder", type=Path, default=ROOT / "build" / "planted-gpu")
        command.add_argument("--only", default="*", metavar="GLOB", help="programs and bugs")
        command.add_argument("--jobs", type=int, default=2)
        command.add_argument("--arch", default="sm_90")
        command.add_argument("--timeout", type=float, default=20.0, help="seconds a program")
        command.add_argument("--out", type=Path, default=ROOT / "reports" / "out")
    args = parser.parse_args()
    result: int = args.call(args)
    return result


if __name__ == "__main__":
    sys.exit(main())
