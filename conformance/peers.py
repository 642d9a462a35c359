"""Software that is not ours, which the references must agree with.

The dependency group ``test`` installs all of it, so a peer that is missing is an error: a skipped
comparison looks like one that held. An image that is used as it is (``nox --no-venv``) may lack
some; there nox sets YAIE_PEERS=optional, and what needs a missing one is skipped, with its name.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest


def load(module: str) -> Any:
    """Import a peer's module; where peers are optional, skip the test without it (or the whole
    module of tests, if that is where it is called)."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if os.environ.get("YAIE_PEERS") != "optional" or error.name != module.partition(".")[0]:
            raise
        pytest.skip(f"{error.name} is not in this image", allow_module_level=True)
