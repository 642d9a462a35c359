"""Who finds the planted bugs: the executor's checked build, and compute-sanitizer on a GPU.

    python tools/planted_on_gpu.py build [--folder DIR] [--jobs N]    here or there: needs nvcc
    python tools/planted_on_gpu.py run [--folder DIR] [--jobs N] [--out DIR]    needs a GPU
    python tools/planted_on_gpu.py page --from planted.json    anywhere: writes docs/simt/planted.md

`build` compiles each program of tests/planted for sm_90 (--arch for others), clean and with each
bug. `run` gives each to memcheck, racecheck, initcheck and synccheck, and writes what they said to
planted.json, and the page made of it to planted.md. The clean programs are run as well: what a tool
says of one of those counts for none of its bugs. A bug that makes the GPU wait for ever is ended
after --timeout seconds and counts as "hangs". The executor's column is the kind that bugs.toml
states, which tests/test_simt_planted.py holds it to.
"""

from __future__ import annotations

import argparse
import datetime
import fnmatch
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from planted import BUGS, INCLUDES, SOURCES, lay_out  # noqa: E402

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
QUIET = "-"
CLEAN = "clean-"
"""What the name of a program without a bug begins with."""
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
    own = [p for p in folder.rglob("*") if p.suffix in SOURCES]
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
            "program": by_name[name].program if name in by_name else name.removeprefix(CLEAN),
            "executor": by_name[name].kind if name in by_name else QUIET,
            **{tool: said[f"{tool} {name}"] for tool in TOOLS},
        }
        for name in names
    ]
    result = {"gpu": gpu(), "date": datetime.date.today().isoformat(), "rows": rows}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "planted.json").write_text(json.dumps(result, indent=1))
    (args.out / "planted.md").write_text(page(result))
    print(page(result))
    return 0 if rows else 1


def write_page(args: argparse.Namespace) -> int:
    """Make the page of docs of what a run wrote."""
    args.page.write_text(page(json.loads(args.results.read_text())))
    return 0


def gpu() -> str:
    """The GPU's name and its driver's version."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


# The page ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Class:
    """Bugs of one sort: their kinds (the executor's names for them), and what keeps
    compute-sanitizer from those that it misses."""

    name: str
    kinds: tuple[str, ...]
    why: str
    memory: str = ""


CLASSES = (
    Class(
        "race in shared memory",
        ("race",),
        "not in the order that the run took, or the program hangs",
        "shared",
    ),
    Class(
        "race in global memory",
        ("race",),
        "racecheck looks at shared memory alone",
        "global",
    ),
    Class(
        "asynchronous copy in flight",
        ("copy in flight",),
        "not seen",
    ),
    Class(
        "out of bounds, misaligned",
        ("out of bounds", "misaligned access", "undefined behaviour"),
        "memcheck knows allocations, and not which elements of one a tensor has",
    ),
    Class(
        "uninitialised read",
        ("uninitialised read",),
        "initcheck looks at global memory alone",
    ),
    Class(
        "barrier, deadlock",
        ("divergent barrier", "bad barrier", "barrier after exit", "deadlock"),
        "the program hangs, and no tool says where",
    ),
    Class(
        "mask of a warp",
        ("bad mask", "exited lane in mask", "divergent collective"),
        "no tool compares a mask with its lanes",
    ),
    Class(
        "role of an argument",
        ("write to read-only", "output not written"),
        "no tool knows what a kernel must write, and what it must not",
    ),
)


Row = dict[str, str]


def class_of(row: Row) -> Class:
    """The class of a planted bug; bugs.toml says which races are of global memory."""
    kind = row["executor"].partition("|")[0]
    memory = next((bug.memory for bug in BUGS if bug.id == row["bug"]), "shared")
    return next(c for c in CLASSES if kind in c.kinds and c.memory in ("", memory))


def tells(said: str) -> bool:
    """Whether a tool named a bug; that a program hangs or breaks off names nothing."""
    return not said.startswith((QUIET, "hangs", "no summary"))


class Found:
    """Who found which of the planted bugs."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.clean = {r["program"]: r for r in rows if r["bug"].startswith(CLEAN)}
        self.bugs = [r for r in rows if not r["bug"].startswith(CLEAN)]

    def by(self, tool: str, row: Row) -> bool:
        """By one tool: it says something, and something else of the program without the bug."""
        return tells(row[tool]) and row[tool] != self.clean.get(row["program"], {}).get(tool)

    def by_sanitizer(self, row: Row) -> bool:
        """By one of compute-sanitizer's tools at least."""
        return any(self.by(tool, row) for tool in TOOLS)

    def counts(self, name: str, rows: Sequence[Row]) -> str:
        """A line of the table of classes: who found how many of these bugs."""
        by_tool = [sum(self.by(tool, row) for row in rows) for tool in ("executor", *TOOLS)]
        total = sum(self.by_sanitizer(row) for row in rows)
        return table_row(name, len(rows), *by_tool, total)


def table_row(*cells: object) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def page(result: dict[str, Any]) -> str:
    """The page of docs: who finds what, by class; what is missed, by name; every bug."""
    found = Found(result["rows"])
    of_class = {c: [row for row in found.bugs if class_of(row) is c] for c in CLASSES}
    sections = (
        [HEAD.format(gpu=result["gpu"], date=result.get("date", "no date"))],
        [
            table_row("bugs", "planted", "executor", *TOOLS, "all four"),
            "|---|" + "---:|" * (len(TOOLS) + 3),
            *(found.counts(c.name, rows) for c, rows in of_class.items() if rows),
            found.counts("**all**", found.bugs),
        ],
        ["", "## What compute-sanitizer misses", ""],
        list(missed(found, of_class)),
        ["", "## What is said of the correct programs", ""],
        list(false_alarms(found)),
        ["", "## Every bug", ""],
        [
            table_row("bug", "executor", *TOOLS),
            "|---|" + "---|" * (len(TOOLS) + 1),
            *(
                table_row(row["bug"], row["executor"].replace("|", " or "), *shortened(row))
                for rows in of_class.values()
                for row in rows
            ),
        ],
    )
    return "\n".join(line for section in sections for line in section) + "\n"


HEAD = """# Who finds the planted bugs

The bugs of `tests/planted/bugs.toml`, one at a time in a correct kernel, given to the checked build
of the executor ([simt.md](../simt.md); it needs no GPU) and to the four tools of compute-sanitizer.
A tool has found a bug if it says something that it does not say of the program without the bug;
that the program hangs is not enough. Made by `tools/planted_on_gpu.py`
({gpu}; {date}).
"""


def missed(found: Found, of_class: dict[Class, list[Row]]) -> Iterable[str]:
    """The bugs that none of the four tools names, by class."""
    for c, rows in of_class.items():
        names = [f"`{row['bug']}`" for row in rows if not found.by_sanitizer(row)]
        if names:
            yield f"- **{c.name}** ({c.why}): {', '.join(names)}"


def false_alarms(found: Found) -> Iterable[str]:
    """What the tools say of programs without a bug."""
    alarms = [
        f"- {program}: {tool}: {row[tool]}"
        for program, row in sorted(found.clean.items())
        for tool in TOOLS
        if row[tool] != QUIET
    ]
    yield from alarms or ["Nothing, by any tool."]


SHORT = (
    ("Invalid __global__ ", "global "),
    ("Invalid __shared__ ", "shared "),
    ("Race reported", "race"),
    ("Uninitialized", "uninitialised read"),
    ("Barrier error", "barrier"),
)


def shortened(row: Row) -> list[str]:
    """What each tool said, in two or three words."""
    return [in_short(row[tool]) for tool in TOOLS]


def in_short(said: str) -> str:
    """The sort of error and how many there were."""
    count = re.search(r" \(\d+\)$", said)
    for start, short in SHORT:
        if said.startswith(start):
            access = said.removeprefix(start).partition(" ")[0] if short.endswith(" ") else ""
            return f"{short}{access}{count[0] if count else ''}"
    return said


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
    command = commands.add_parser("page")
    command.set_defaults(call=write_page)
    command.add_argument("--from", type=Path, required=True, dest="results", metavar="JSON")
    command.add_argument("--page", type=Path, default=ROOT / "docs" / "simt" / "planted.md")
    args = parser.parse_args()
    result: int = args.call(args)
    return result


if __name__ == "__main__":
    sys.exit(main())
