"""Both builds in one process: two modules, two sets of kernels, one yaie that judges both.

Two extensions of one name are one module to Python and pybind11, and a comparison of a build with
itself finds no difference for ever. So each side is loaded under a name of its own, and what was
loaded is asserted: different modules, each with the build id that its build wrote down.

A kernel is a launcher of the extension and the Python around it (which allocates results and
chooses the number of splits): that comes from the side's own yaie/kernels/native.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.gate.builds import Build
from yaie import ops
from yaie.kernels import native
from yaie.op import Kernel


@dataclass(frozen=True)
class Side:
    """One loaded build."""

    name: str
    build_id: str
    module: ModuleType
    kernels: Mapping[str, Kernel]
    """op/variant → kernel, those whose launcher the extension has"""


@dataclass(frozen=True)
class Loadable:
    """What a child process must know of a build."""

    side: str
    face: str
    module: str
    native: str
    build_id: str

    @classmethod
    def of(cls, build: Build) -> Loadable:
        kernels = build.tree.root / "yaie" / "kernels"
        package, module = kernels / "native" / "__init__.py", kernels / "native.py"
        wrappers = package if package.exists() else module  # a base of before it was a package
        return cls(build.side, build.face, str(build.module), str(wrappers), build.build_id)


def to_json(builds: list[Build]) -> str:
    return json.dumps([vars(Loadable.of(build)) for build in builds])


def from_json(text: str) -> list[Loadable]:
    return [Loadable(**fields) for fields in json.loads(text)]


class WrongBuild(RuntimeError):
    """What was loaded is not what was built."""


def load(wanted: Loadable) -> Side:
    """Load one build under a name of its own."""
    module = _module(f"yaie_{wanted.side}._{wanted.face}", Path(wanted.module))
    found = getattr(module, "build_id", None)
    if found != wanted.build_id:
        raise WrongBuild(f"{wanted.side} has build id {found}, should have {wanted.build_id}")
    wrappers = _module(f"yaie_{wanted.side}_native", Path(wanted.native))
    return Side(wanted.side, wanted.build_id, module, _kernels(wrappers, module, wanted.face))


def load_both(base: Loadable, head: Loadable, head_first: bool = False) -> tuple[Side, Side]:
    """Load both, base first or not; WrongBuild if they turn out to be one."""
    order = (head, base) if head_first else (base, head)
    loaded = {wanted.side: load(wanted) for wanted in order}
    sides = loaded[base.side], loaded[head.side]
    if sides[0].module is sides[1].module:
        raise WrongBuild("base and head were loaded as one module")
    if base.build_id == head.build_id and base.module != head.module:
        raise WrongBuild("base and head are two builds with one id")
    return sides


def _module(name: str, path: Path) -> ModuleType:
    inside = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=inside)
    if spec is None or spec.loader is None:
        raise WrongBuild(f"{path} is no module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _kernels(wrappers: ModuleType, module: ModuleType, face_name: str) -> dict[str, Kernel]:
    face = wrappers.Face(module, native.FACES[face_name])
    kernels = {}
    for variant in wrappers.VARIANTS:
        if variant.op in ops.OPS and hasattr(module, f"{variant.op}_{variant.name}"):
            kernels[f"{variant.op}/{variant.name}"] = Kernel(
                op=variant.op, name=f"{face_name}.{variant.name}", run=variant.run(face),
                device=native.FACES[face_name], contract=variant.contract,
                supports=variant.supports,
            )  # fmt: skip
    return kernels


def difference(base: Mapping[str, Any], head: Mapping[str, Any]) -> dict[str, str]:
    """Names that one side alone has → that side."""
    return {n: "base" if n in base else "head" for n in sorted(set(base) ^ set(head))}
