"""Every kernel on a case of every edge of its op, whatever else is drawn."""

from conformance import edges


def test_every_edge(conforms, op, pytestconfig):
    edges.judge(conforms.take, op, large=pytestconfig.getoption("--profile") != "quick")
