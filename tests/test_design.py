"""The numbers of the design, measured from the sources: which way imports run, how many places a
change touches, how long a page, a launcher and a folder may be."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from yaie import ops

ROOT = Path(__file__).resolve().parents[1]

FLOORS = (
    {"signature", "dispatch", "compare", "arena", "cache", "command"},
    {"refusal", "fill"},
    {"op"},
    {"ops"},
    {"kernels", "pages"},
    {"engine"},
    {"worker"},
    {"api", "nn", "profiling", "sampling"},
    {"frame"},
    {"check", "record"},
    {"statement"},
    {"cli"},
)
"""The rooms of yaie from the ground up. A module imports from its own floor and those below."""
GUIDE = {"api", "cache", "nn", "profiling", "sampling"}
"""Where the guide's public names live."""
DEV_ONLY = {"hypothesis", "pytest", "pandas", "jinja2"}
A_DOZEN_OR_SO = 15
ONE_EACH = re.compile(rf"test_|\d{{4}}-|({'|'.join(ops.OPS)})$")
"""Files of which there is one a module under test, a decision or an op: they may grow with them."""
LOADED_TWICE = ROOT / "yaie" / "kernels" / "native"
"""The gate loads base's and head's under names of its own, so imports inside it are relative."""
MARKERS = {"__init__.py", "py.typed"}
"""Files that make a folder a package."""


def imports(path: Path) -> Iterator[str]:
    """The dotted names that a module imports, also inside functions, ``from x import y`` as x.y."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 or path.parent == LOADED_TWICE, f"{path}: a relative import"
            package = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            module = ".".join([*package, *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def named(value: object) -> str:
    """The id of a test that is parametrised by a name and what belongs to it."""
    return value if isinstance(value, str) else ""


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def room(path: Path) -> str:
    """The first part of a module's name under yaie: op, ops, kernels ..."""
    return path.relative_to(ROOT / "yaie").with_suffix("").parts[0]


def rooms_used(path: Path) -> set[str]:
    known = {room(p) for p in sources("yaie")}
    names = (name.split(".") for name in imports(path))
    return {n[1] for n in names if n[0] == "yaie" and len(n) > 1 and n[1] in known}


def floor(name: str) -> int:
    return next(i for i, names in enumerate(FLOORS) if name in names)


# Arrows --------------------------------------------------------------------------------------


def test_every_module_of_yaie_has_its_floor() -> None:
    assert set.union(*FLOORS) | {"__init__"} == {room(p) for p in sources("yaie")}


@pytest.mark.parametrize("path", sources("yaie"), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_down(path: Path) -> None:
    if room(path) == "__init__":
        assert rooms_used(path) <= {"kernels", "ops", "dispatch", "command", *GUIDE}
        return
    upward = {name for name in rooms_used(path) if floor(name) > floor(room(path))}
    assert set() == upward


def test_the_ground_floor_imports_nothing_of_yaie() -> None:
    used = {p.name: rooms_used(p) - {room(p)} for p in sources("yaie") if room(p) in FLOORS[0]}
    assert {name: set() for name in used} == used


def test_there_is_no_cycle() -> None:
    edges: dict[str, set[str]] = {}
    for path in sources("yaie"):
        if room(path) != "__init__":
            edges.setdefault(room(path), set()).update(rooms_used(path) - {room(path)})
    while free := [name for name, used in edges.items() if not used & set(edges)]:
        for name in free:
            edges.pop(name)
    assert {} == edges


def test_an_op_page_imports_no_kernel_and_no_kernel_another_face() -> None:
    for path in sources("yaie/ops"):
        assert not rooms_used(path) & {"kernels", "worker", "check"}
    importers = {p.name for p in sources("yaie") if any(map(is_a_face, names_of_modules(p)))}
    assert {"face.py"} == importers


def names_of_modules(path: Path) -> set[str]:
    """What a module imports, and every string in it that could be imported: also the text between
    the holes of an f-string."""
    tree = ast.walk(ast.parse(path.read_text()))
    strings = {n.value for n in tree if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return {*imports(path), *strings}


def is_a_face(name: str) -> bool:
    """Whether that is, or begins, the module name of one of the extensions."""
    return bool(re.match(r"(yaie\.)?_(simt|cuda)\b|yaie\._$", name))


@pytest.mark.parametrize("name", ["yaie._simt", "yaie._cuda.matrix", "_simt", "yaie._"])
def test_every_way_to_name_a_face_is_seen(name: str) -> None:
    assert is_a_face(name)


@pytest.mark.parametrize("name", ["use_cuda", "cuda", "yaie.kernels", "yaie.ops._rope", "simt."])
def test_what_only_speaks_of_a_face_is_not_an_import(name: str) -> None:
    assert not is_a_face(name)


@pytest.mark.parametrize("path", sources("yaie"), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_core_needs_no_test_or_report_library(path: Path) -> None:
    assert not DEV_ONLY & {name.partition(".")[0] for name in imports(path)}
    assert not {"conformance", "benchmarks", "reports", "tests"} & {
        name.partition(".")[0] for name in imports(path)
    }


@pytest.mark.parametrize("folder", ["conformance", "benchmarks"])
def test_what_uses_yaie_does_not_go_through_its_command_line(folder: str) -> None:
    users = [str(p.relative_to(ROOT)) for p in sources(folder) if "cli" in rooms_used(p)]
    assert [] == users


@pytest.mark.parametrize("folder", ["conformance", "benchmarks"])
def test_nothing_is_imported_from_a_conftest(folder: str) -> None:
    """pytest loads it, and it registers options: what others share has a module of its own."""
    names = [name for path in sources(folder) for name in imports(path)]
    assert [] == [name for name in names if ".conftest." in f".{name}."]


@pytest.mark.parametrize("path", sources("reports"), ids=lambda p: str(p.relative_to(ROOT)))
def test_reports_read_records_and_not_yaie(path: Path) -> None:
    assert "yaie" not in {name.partition(".")[0] for name in imports(path)}


# Sizes ---------------------------------------------------------------------------------------


def folders() -> Iterator[tuple[str, set[str]]]:
    """Each folder with the stems of its sources: a header and its body count once."""
    skipped = {"build", "__pycache__", "records", "ops"}
    for top in ("yaie", "csrc", "conformance", "benchmarks", "reports", "tools", "docs"):
        for folder in [ROOT / top, *(p for p in (ROOT / top).rglob("*") if p.is_dir())]:
            parts = folder.relative_to(ROOT).parts
            is_ours = not skipped & set(parts) and not any(p.startswith(".") for p in parts)
            if folder.is_dir() and is_ours:
                files = {p.stem for p in folder.iterdir() if p.is_file() and p.name not in MARKERS}
                files = {stem for stem in files if not ONE_EACH.match(stem)}
                yield str(folder.relative_to(ROOT)), files


@pytest.mark.parametrize(
    ("name", "files"), list(folders()), ids=lambda v: v if isinstance(v, str) else ""
)
def test_no_folder_holds_much_more_than_a_dozen_files(name: str, files: set[str]) -> None:
    assert len(files) <= A_DOZEN_OR_SO, sorted(files)


@pytest.mark.parametrize("op", ops.OPS.values(), ids=str)
def test_an_op_page_is_read_in_one_sitting(op: ops.Op) -> None:
    page = ROOT / "yaie" / "ops" / f"{op.name}.py"
    assert len(page.read_text().splitlines()) <= 240


@pytest.mark.parametrize("op", ops.OPS.values(), ids=str)
def test_an_op_page_keeps_the_order(op: ops.Op) -> None:
    """Docstring, Case, inputs, reference, cost, WORKLOADS, EDGES, ERRORS, the op."""
    text = (ROOT / "yaie" / "ops" / f"{op.name}.py").read_text()
    parts = (
        *('"""' + op.name + ":", "class Case", "def inputs", "def reference", "def cost"),
        *("\nWORKLOADS", "\nEDGES", "\nERRORS", f"\n{op.name} = Op("),
    )
    places = [text.find(part) for part in parts]
    assert -1 not in places, parts[places.index(-1)]
    assert sorted(places) == places


def launchers() -> Iterator[tuple[str, int]]:
    """Every function of csrc/<op>/*.cu, and how many lines it takes."""
    head = re.compile(r"^(?!namespace|template|//|#|using|})[\w:<].*?\b(\w+)\(", re.MULTILINE)
    for path in sorted(p for op in ops.OPS for p in (ROOT / "csrc" / op).glob("*.cu")):
        text = path.read_text()
        for m in head.finditer(text):
            body = text[m.start() : text.find("\n}", m.start()) + 2]
            if "{" in body.partition(";")[0]:
                yield f"{path.parent.name}/{path.name}:{m[1]}", body.count("\n") + 1


def test_launchers_are_found() -> None:
    names = {name.rpartition(":")[2] for name, _ in launchers()}
    assert {"append_kv_vec", "copy_blocks_naive", "paged_attention_split_kv"} <= names


@pytest.mark.parametrize(
    ("name", "lines"), list(launchers()), ids=lambda v: v if isinstance(v, str) else ""
)
def test_a_launcher_is_under_30_lines(name: str, lines: int) -> None:
    assert lines < 30


# Places --------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ops.OPS.values(), ids=str)
def test_an_op_stands_in_the_places_that_contributing_names(op: ops.Op) -> None:
    """An op on tensors has kernel code; a chain has that of its parts, a program on a host
    structure has the structure."""
    name, code = op.name, ROOT / "csrc" / op.name
    assert (ROOT / f"conformance/test_{name}.py").exists()
    if op.chain_of:
        assert not code.exists(), "kernel code for it: then it is a fused op, no chain"
        assert all("simt.naive" in ops.get(part).kernels for part in op.chain_of)
        assert {"reference", "torch.eager"} <= set(op.kernels)
    elif is_a_program(op):
        assert not code.exists()
        assert ["host"] == [n.partition(".")[0] for n in op.kernels if n != "reference"]
    else:
        assert {"naive.cu", "naive.cuh"} <= {p.name for p in code.iterdir()}
        assert {"reference", "torch.eager", "simt.naive"} <= set(op.kernels)


def is_a_program(op: ops.Op) -> bool:
    """Whether the op runs commands on a state that lives on the host (a Case holds a program, and
    the kernel reads commands)."""
    return op.signature.params[0].name == "commands"


def test_each_kind_of_op_is_known() -> None:
    """So that no op slips into a kind that asks for less."""
    assert ["radix_attention"] == [name for name, op in ops.OPS.items() if op.chain_of]
    programs = [name for name, op in ops.OPS.items() if is_a_program(op)]
    assert ["radix_cache", "block_pool"] == programs


def test_device_code_knows_neither_torch_nor_python() -> None:
    for path in (ROOT / "csrc").rglob("*"):
        if path.suffix in (".cu", ".cuh", ".h", ".cpp") and path.name != "bindings.cpp":
            assert not re.search(
                r"#include [<\"](torch|ATen|c10|pybind11|Python\.h)", path.read_text()
            ), path


def test_nothing_is_left_to_do() -> None:
    mark = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    marked = [
        str(p.relative_to(ROOT))
        for top in ("yaie", "csrc", "conformance", "reports", "benchmarks")
        for p in (ROOT / top).rglob("*")
        if p.suffix in {".py", ".h", ".cpp", ".cu", ".cuh"} and mark.search(p.read_text())
    ]
    assert [] == marked
