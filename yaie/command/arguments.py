"""Options that must hold before a command begins."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path


def positive(text: str) -> int:
    """The type of an option that counts something: a whole number from 1 on."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"is {text!r}, must be a whole number from 1 on")
    return number


def make_folder(option: str, folder: Path) -> None:
    """Make the folder that an option names, and try to write there: what takes long must not end
    with figures that nothing can keep.

    Raises:
        ValueError: nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"{option} {folder}: nothing can be written there ({error.strerror}): name another"
        ) from None
