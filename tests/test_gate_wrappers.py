"""The gate sees when the Python around a kernel changed, and around which."""

from pathlib import Path

import pytest

from benchmarks.gate import static, wrappers
from benchmarks.gate.trees import Tree
from yaie.kernels import native

PACKAGE = {
    "__init__.py": "from . import cache\n\nVARIANTS = (*cache.VARIANTS,)\n",
    "face.py": "entered = 0\n\n\nclass Launcher:\n    pass\n",
    "variant.py": (
        "import torch\n\nfrom .face import Launcher\n\n\nclass Variant:\n    face: Launcher\n\n\n"
        "def ints(n):\n    return torch.empty(n)\n\n\ndef floats(n):\n    return torch.empty(n)\n"
    ),
    "cache.py": '''\
"""Words."""
from .variant import Variant, floats, ints as whole

SPLITS = 4
"""More words."""


def _copy(launch):
    """Still more."""
    return launch(whole(1), SPLITS)


def _rope(launch):
    return launch(floats(2))


VARIANTS = (
    Variant("copy", "vec", _copy),
    Variant("rope", "vec", _rope, preference=10),
)
''',
}


def package(root: Path, changes: dict[str, tuple[str, str]] | None = None) -> dict[str, str]:
    """Digests of the package with a word replaced in some of its files."""
    folder = root / "yaie" / "kernels" / "native"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in PACKAGE.items():
        old, new = (changes or {}).get(name, ("", ""))
        assert old in text
        (folder / name).write_text(text.replace(old, new) if old else text)
    return wrappers.digests(root)


def changed(root: Path, **changes: tuple[str, str]) -> set[str]:
    before = package(root)
    after = package(root, {f"{name}.py": change for name, change in changes.items()})
    assert set(before) == set(after) == {"", "copy/vec", "rope/vec"}
    return {name for name in before if name and before[name] != after[name]}


@pytest.mark.parametrize(
    ("module", "old", "new", "variants"),
    [
        ("cache", "SPLITS = 4", "SPLITS = 8", {"copy/vec"}),
        ("cache", "floats(2)", "floats(3)", {"rope/vec"}),
        ("cache", "preference=10", "preference=20", {"rope/vec"}),
        ("cache", "ints as whole", "floats as whole", {"copy/vec"}),
        (
            "variant",
            "def ints(n):\n    return",
            "def ints(n):\n    n += 1\n    return",
            {"copy/vec"},
        ),
        ("face", "pass", "depth = 1", {"copy/vec", "rope/vec"}),
        ("face", "entered = 0", "print()", {"copy/vec", "rope/vec"}),
        ("cache", "More words.", "Other words.", set()),
        ("cache", "Still more.", "Less.", set()),
        ("cache", "SPLITS = 4", "# a comment\nSPLITS  =  (4)", set()),
        ("cache", "SPLITS = 4", "SPLITS = 4\nUNUSED = 5", set()),
    ],
)
def test_what_a_variant_hangs_on_is_part_of_it_and_nothing_else(
    tmp_path: Path, module: str, old: str, new: str, variants: set[str]
) -> None:
    assert variants == changed(tmp_path, **{module: (old, new)})


def test_every_kernel_of_this_checkout_has_a_digest() -> None:
    found = wrappers.digests(Path(__file__).parents[1])
    assert {f"{v.op}/{v.name}" for v in native.VARIANTS} == set(found) - {""}
    assert {""} == set(wrappers.digests(Path(__file__).parent))


def test_same_machine_code_under_other_python_is_changed(tmp_path: Path) -> None:
    trees = [Tree(side, side, tmp_path / side) for side in ("base", "head")]
    for tree in trees:
        for variant in ("copy/vec", "rope/vec", "other/vec"):
            file = tree.csrc / f"{variant}.cu"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("")
    python = {
        "base": package(trees[0].root),
        "head": package(trees[1].root, {"cache.py": ("SPLITS = 4", "SPLITS = 8")}),
    }
    found = static.compare(*trees, None, [], [], 1, {}, python)
    assert ["copy/vec", "other/vec"] == found.changed  # nothing is known of how other/vec is called
    assert ["rope/vec"] == found.unchanged
    assert "other Python around it" in found.findings[0].why
