from hypothesis import given

from conformance import strategies
from yaie import ops

OP = ops.copy_blocks


@given(case=strategies.copy_blocks())
def test_equivalence(conforms, kernel, case):
    conforms(case)
