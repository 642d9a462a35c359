"""Every kernel on a case of every edge of its op, whatever else is drawn."""

from contextlib import suppress

from hypothesis.errors import UnsatisfiedAssumption

from conformance import edges


def test_every_edge(conforms, op):
    for case in edges.cases(op).values():
        with suppress(UnsatisfiedAssumption):  # the kernel declines it
            conforms(case)
