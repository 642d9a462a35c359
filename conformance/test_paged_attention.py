from hypothesis import given

from conformance import strategies
from yaie import ops

OP = ops.paged_attention


@given(case=strategies.paged_attention())
def test_equivalence(conforms, kernel, case):
    conforms(case)
