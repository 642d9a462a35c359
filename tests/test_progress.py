"""What a conformance run shows on a terminal while it works."""

from __future__ import annotations

import os
import pty
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def on_a_terminal(command: list[str]) -> str:
    """What a command writes to a terminal that it owns."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execvp(command[0], command)
    shown = b""
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # how Linux says that the other end is closed
            break
        if not part:
            break
        shown += part
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()
    return shown.decode()


@pytest.mark.parametrize("processes", ["0", "1"])
def test_a_line_moves_and_each_kernel_leaves_one(processes: str, tmp_path: Path) -> None:
    suite = "conformance/test_gather_slots.py"  # an op without peers, which take long to import
    conformance = ["-m", "pytest", suite, "-q", "--profile", "quick", "-p", "no:benchmark"]
    chosen = ["--op", "gather_slots", "--kernel", "torch.*", "-n", processes]
    command = [sys.executable, *conformance, *chosen, "--records", str(tmp_path)]
    shown = on_a_terminal(command)
    assert re.search(r"\r\x1b\[K\d+ of \d+ tests, \d+ cases, \d+ a second", shown)
    assert re.search(r"\r\x1b\[K *\d+ of \d+  gather_slots-torch.eager: 50 cases", shown)
