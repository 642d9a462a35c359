from hypothesis import given

from conformance import strategies
from yaie.ops import append_kv as OP


@given(case=strategies.append_kv())
def test_equivalence(conforms, kernel, case):
    conforms(case)
