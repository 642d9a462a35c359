"""docs/tutorial.md shows what its command prints, whatever the kernels."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from yaie.cli import main

TUTORIAL = Path(__file__).resolve().parents[1] / "docs" / "tutorial.md"


@pytest.mark.parametrize("kernels", [(), ("simt.*",)])
def test_the_tutorial_shows_what_its_command_prints(
    kernels: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.delenv("YAIE_KERNEL", raising=False)
    text = TUTORIAL.read_text()
    command = re.search(r"^    yaie (generate .*?--trace)$", text, re.DOTALL | re.MULTILINE)
    assert command is not None
    chosen = [word for kernel in kernels for word in ("--use", kernel)]
    assert main([*shlex.split(command[1].replace("\\\n", " ")), *chosen]) == 0
    shown = "".join(re.findall(r"^```\n(step.*?)^```$", text, re.DOTALL | re.MULTILINE))
    assert without_kernels(shown) == without_kernels(capsys.readouterr().out)


def without_kernels(trace: str) -> str:
    """Which kernel serves an op depends on the choice."""
    return re.sub(r"(  \w+: )[\w.]+  ", r"\1", trace)
