from hypothesis import given

from conformance import strategies
from yaie.ops import paged_attention as OP


@given(case=strategies.paged_attention())
def test_equivalence(conforms, kernel, case):
    conforms(case)
