"""The engine's laws have teeth: each defect planted into the engine is found."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from engine_mutants import MUTANTS, PROGRAMS, drawn, hunt
from engine_programs import assert_laws, run
from test_engine_laws import BY_HAND


@cache
def programs() -> list[Any]:
    return drawn(PROGRAMS)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_found(name: str) -> None:
    fate = hunt(MUTANTS[name], programs(), BY_HAND)
    assert fate is not None, f"{name} survives: {MUTANTS[name].what}"


def test_the_engine_as_it_is_survives() -> None:
    """A control: the same programs find nothing, and a mutant leaves nothing behind."""
    for program in programs():
        assert_laws(run(program))
