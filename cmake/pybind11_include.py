"""Print the folder that holds pybind11/pybind11.h: pybind11's own, else the copy torch ships."""

import importlib.util
import sys
from pathlib import Path

for package in ("pybind11", "torch"):
    spec = importlib.util.find_spec(package)
    if spec is not None and spec.origin is not None:
        include = Path(spec.origin).parent / "include"
        if (include / "pybind11" / "pybind11.h").is_file():
            print(include.as_posix())
            sys.exit(0)
sys.exit(f"neither pybind11 nor torch is installed for {sys.executable}")
