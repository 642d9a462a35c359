"""Errors told in one sentence, with the exit status 2: what is wrong is the input or the machine,
and status 1 would say that a kernel is."""

from __future__ import annotations

import re
import sys
from pathlib import Path

EXIT_USAGE = 2
COMMANDS = ("yaie", "yaie.cli")
"""How the command is started: by its name, or with ``python -m``."""
ALLOCATION = re.compile(r"not enough memory|allocate memory|out of memory|Storage size calculation")
"""What torch says where memory is short; on a CPU it is a plain RuntimeError."""
CHECK_OF_TORCH = re.compile(r"^\[enforce fail[^\]]*\] [^.]*\. ")


def sentence(error: BaseException) -> str | None:
    """An error of the input or of the machine in words; None for any other, which is ours."""
    said = str(error)
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror}"
    if isinstance(error, MemoryError):
        return said or "there is not enough memory"
    if isinstance(error, RuntimeError) and ALLOCATION.search(said):
        return f"there is not enough memory: {CHECK_OF_TORCH.sub('', said.splitlines()[0])}"
    return said if isinstance(error, (ValueError, ImportError, OSError)) else None


def end_command(error: BaseException) -> None:
    """End the process with the sentence if it is the command ``yaie``: what its environment says is
    read when yaie is imported, before the command has begun."""
    said = sentence(error)
    if said is not None and _is_the_command():
        print(f"yaie: {said}", file=sys.stderr)
        raise SystemExit(EXIT_USAGE) from None


def _is_the_command() -> bool:
    """While ``python -m`` looks for its module, only ``sys.orig_argv`` knows which."""
    given = sys.orig_argv
    module = given[given.index("-m") + 1 :][:1] if "-m" in given else []
    started = Path(sys.argv[0]).stem if getattr(sys, "argv", None) else ""
    return started == COMMANDS[0] or module == [COMMANDS[1]]
