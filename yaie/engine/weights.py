"""Where a decoder's weights come from: the safetensors files of a folder, or a random seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from yaie.dispatch import nearest
from yaie.engine.config import read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
NOT_NEEDED = ("rotary_emb.inv_freq",)
"""Ends of the names of tensors that old checkpoints hold and no decoder reads."""


class Weights(Protocol):
    """Gives out tensors by name, of the shape that the config implies."""

    def get(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The tensor of that name. Errors: ValueError, if it is missing or of another shape."""
        ...

    def finish(self) -> None:
        """All that is needed was read. Errors: ValueError, if something is left."""
        ...


class Checkpoint:
    """The safetensors files of a Hugging Face folder, one or several.

    Errors: ValueError naming the file, for one that is missing or cannot be read, and the tensor,
    for one that is missing, of another shape, or left over: a decoder that does not use all of its
    checkpoint is another model.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._files: dict[str, Any] = {}
        self._where = self._find()
        self._read: set[str] = set()

    def get(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The tensor of that name, as it is stored."""
        if name not in self._where:
            hint = nearest(name, sorted(self._where))
            raise ValueError(f"{self.folder}: no tensor {name!r} in the checkpoint{hint}")
        path = self.folder / self._where[name]
        with _readable(path):
            tensor: Tensor = self._open(path).get_tensor(name)
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"{path}: {name} has shape {tuple(tensor.shape)}, the config implies {shape}"
            )
        self._read.add(name)
        return tensor

    def finish(self) -> None:
        """ValueError for tensors that nothing asked for."""
        left = sorted(
            name for name in self._where if name not in self._read and not name.endswith(NOT_NEEDED)
        )
        if left:
            more = f" and {len(left) - 3} more" if len(left) > 3 else ""
            raise ValueError(
                f"{self.folder}: the config implies no tensor {', '.join(left[:3])}{more}"
            )
        self._files.clear()

    def _find(self) -> dict[str, str]:
        """In which file each tensor is."""
        index = self.folder / INDEX
        if index.exists():
            where = read_json(index).get("weight_map")
            if not isinstance(where, dict):
                raise ValueError(f"{index}: has no weight_map")
            for file in sorted(set(where.values())):
                if not (self.folder / file).exists():
                    raise ValueError(
                        f"{self.folder / file}: is missing, {INDEX} names it; download it again"
                    )
            return where
        single = self.folder / SINGLE
        if not single.exists():
            raise ValueError(f"{self.folder}: holds neither {SINGLE} nor {INDEX}")
        with _readable(single):
            return dict.fromkeys(self._open(single).keys(), SINGLE)

    def _open(self, path: Path) -> Any:
        try:
            from safetensors import safe_open
        except ModuleNotFoundError:
            needs = "reading a checkpoint needs safetensors: pip install safetensors"
            raise ValueError(needs) from None
        if path.name not in self._files:
            self._files[path.name] = safe_open(path, framework="pt")
        return self._files[path.name]


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Errors of the safetensors library, as ours."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(
            f"{path}: is no readable safetensors file ({error}); download it again"
        ) from error


class RandomWeights:
    """Normal numbers of standard deviation ``scale`` for matrices and biases, 1 for norms (0 where
    a weight stands for 1 + weight). What a tensor holds depends on the seed and its name alone."""

    def __init__(
        self,
        seed: int = 0,
        scale: float = 0.02,
        norm: float = 1.0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.seed, self.scale, self.norm = seed, scale, norm
        self.device, self.dtype = torch.device(device), dtype

    def get(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A tensor of that shape, made on the device in the dtype."""
        if "norm" in name:
            return torch.full(shape, self.norm, dtype=self.dtype, device=self.device)
        key = hashlib.sha256(f"{self.seed} {name}".encode()).digest()
        generator = torch.Generator(self.device).manual_seed(int.from_bytes(key[:7], "big"))
        tensor = torch.empty(shape, dtype=self.dtype, device=self.device)
        return tensor.normal_(0.0, self.scale, generator=generator)

    def finish(self) -> None:
        """Nothing is ever left."""
