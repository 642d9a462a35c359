"""An extension of ours, and how its launchers are called. The only module that imports extensions.

YAIE_EXTENSIONS names a folder in which extensions are looked for before the package's own: that is
how another build (a mutant, the other side of a comparison) is judged.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from dataclasses import dataclass
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

FACES = {"simt": "cpu", "cuda": "cuda"}
"""Each face, and where its tensors must live."""


@cache
def extension(face: str) -> ModuleType | None:
    """The extension of a face, or None where it was not built.

    Raises:
        ImportError: it is there, and cannot be loaded.
    """
    name = f"yaie._{face}"
    folder = os.environ.get("YAIE_EXTENSIONS")
    if folder:
        if not Path(folder).is_dir():
            raise ValueError(f"YAIE_EXTENSIONS is {folder!r}, which is no folder")
        for suffix in EXTENSION_SUFFIXES:
            path = Path(folder, f"_{face}{suffix}")
            if path.exists():
                return _load(name, path)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            return None
        raise _broken(name, error) from error
    except ImportError as error:
        raise _broken(name, error) from error


def _load(name: str, path: Path) -> ModuleType:
    """The extension in a file."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except ImportError as error:
        raise _broken(name, error) from error
    return module


def _broken(name: str, error: ImportError) -> ImportError:
    """What to say of an extension that is there and cannot be loaded, half-linked for one."""
    return ImportError(f"the extension {name} cannot be loaded ({error}); rebuild: nox -s build")


_entries = 0


def entries() -> int:
    """How often a launcher of ours was entered in this process: a refused call enters none."""
    return _entries


@dataclass(frozen=True)
class Face:
    """One loaded extension, and the type of its device."""

    module: ModuleType
    device: str

    def multiprocessors(self, tensor: Tensor) -> int:
        """Blocks that run side by side. The executor stands for a small GPU, and for a large one
        where rows are long: only there are a row's parts more than a warp has lanes."""
        if self.device == "cpu":
            return 20 if tensor.shape[-1] <= 1 << 15 else 132
        return int(torch.cuda.get_device_properties(tensor.device).multi_processor_count)


@dataclass(frozen=True)
class Launcher:
    """Calls one launcher of a face on the current stream; its errors are those of the op's page."""

    face: Face
    name: str

    def __call__(self, *args: Any) -> None:
        global _entries
        _entries += 1
        launcher = getattr(self.face.module, self.name)
        if self.face.device == "cpu":
            # Nothing in there is torch's business, and a mode would see every attribute read.
            with torch._C.DisableTorchFunction():
                launcher(*args, 0)
            return
        first = args[0][0] if isinstance(args[0], list) else args[0]
        with torch.cuda.device(first.device):
            launcher(*args, torch.cuda.current_stream().cuda_stream)
