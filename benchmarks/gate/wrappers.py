"""The Python around a kernel, which allocates its results and chooses its launch: did it change?

A kernel is a launcher of the extension and what yaie/kernels/native does before and after. Machine
code says nothing about that, so what a variant's registration names there, directly or through
others, is hashed too, from the syntax: comments, docstrings and layout are no change.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

Place = tuple[str, str]
"""A module of the package, and a name that it defines."""


def digests(root: Path) -> dict[str, str]:
    """op/variant → digest, for each `Variant("op", "variant", ...)` below ``root``, the sources of
    one side; "" → that of the whole package, for variants that are registered in another way."""
    modules = {path.stem: _Module.read(path) for path in files(root)}
    found = {"": _digest([module.source for module in modules.values()])}
    for name, module in modules.items():
        for variant, call in module.registrations():
            reached = _reached(modules, name, call)
            found[variant] = _digest([ast.dump(call), *reached])
    return found


def files(root: Path) -> list[Path]:
    """The modules of the package, or the one file that it was once."""
    kernels = root / "yaie" / "kernels"
    package = sorted((kernels / "native").glob("*.py"))
    single = kernels / "native.py"
    return package or ([single] if single.is_file() else [])


def _digest(parts: list[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Module:
    """What a module defines at its top, by name."""

    tree: ast.Module
    source: str
    names: dict[str, list[ast.stmt]]
    always: list[ast.stmt]
    """Statements that define no name: whatever uses the module runs them."""

    @classmethod
    def read(cls, path: Path) -> _Module:
        tree = ast.parse(path.read_text(encoding="utf-8"), path.name)
        for node in ast.walk(tree):
            _drop_docstrings(node)
        names: dict[str, list[ast.stmt]] = {}
        always = []
        for statement in tree.body:
            defined = list(_defined(statement))
            for name in defined:
                names.setdefault(name, []).append(statement)
            if not defined:
                always.append(statement)
        return cls(tree, ast.dump(tree), names, always)

    def registrations(self) -> Iterator[tuple[str, ast.Call]]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                words = [a.value for a in node.args[:2] if isinstance(a, ast.Constant)]
                if node.func.id == "Variant" and len(words) == 2:
                    yield f"{words[0]}/{words[1]}", node


def _drop_docstrings(node: ast.AST) -> None:
    """Bare strings, under functions, classes and variables alike."""
    body = getattr(node, "body", None)
    if isinstance(body, list):
        node.body = [s for s in body if not _is_text(s)] or [ast.Pass()]  # type: ignore[attr-defined]


def _is_text(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _defined(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield statement.name
    elif isinstance(statement, (ast.Import, ast.ImportFrom)):
        for alias in statement.names:
            yield alias.asname or alias.name.partition(".")[0]
    elif isinstance(statement, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for node in (n for target in targets for n in ast.walk(target)):
            if isinstance(node, ast.Name):
                yield node.id


def _reached(modules: dict[str, _Module], start: str, call: ast.Call) -> list[str]:
    """All of the package that a registration hangs on, in a fixed order."""
    seen: dict[Place, list[str]] = {}
    pending = [*_names(start, call), (start, "")]
    while pending:
        module, name = place = pending.pop()
        if place in seen or module not in modules:
            continue
        seen[place] = []
        known = modules[module]
        for statement in known.names.get(name, []) if name else known.always:
            if isinstance(statement, (ast.Import, ast.ImportFrom)):
                source, original = _imported(statement, name)
                seen[place].append(f"{name} is {original} of {source}")
                if source in modules:
                    pending += [(source, original), (source, "")]
                elif original in modules:  # from . import module: it may use anything there
                    seen[place].append(modules[original].source)
            else:
                seen[place].append(ast.dump(statement))
                pending += _names(module, statement)
    return [text for place in sorted(seen) for text in seen[place]]


def _names(module: str, node: ast.AST) -> list[Place]:
    return [(module, n.id) for n in ast.walk(node) if isinstance(n, ast.Name)]


def _imported(statement: ast.Import | ast.ImportFrom, name: str) -> Place:
    """Where an imported name comes from: a module, of the package by its bare name, and what it is
    called there."""
    alias = next(a for a in statement.names if name in (a.asname, a.name, a.name.partition(".")[0]))
    if isinstance(statement, ast.ImportFrom) and not statement.level:
        return f"/{statement.module}", alias.name  # of elsewhere: one for both sides
    return getattr(statement, "module", None) or "", alias.name
