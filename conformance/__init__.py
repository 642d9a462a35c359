"""The conformance suite: does a kernel compute what its op's page says?"""
