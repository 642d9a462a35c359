from hypothesis import given

from conformance import strategies
from yaie.ops import copy_blocks as OP


@given(case=strategies.copy_blocks())
def test_equivalence(conforms, kernel, case):
    conforms(case)
