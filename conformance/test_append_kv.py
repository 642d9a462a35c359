from hypothesis import given

from conformance import strategies
from yaie import ops

OP = ops.append_kv


@given(case=strategies.append_kv())
def test_equivalence(conforms, kernel, case):
    conforms(case)
