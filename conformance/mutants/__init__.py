"""Known defects, planted one by one into the kernels: a suite that missed them would prove little.

``python -m conformance.mutants`` builds every mutant of the catalogue and hunts it with the cases
of the conformance suite. The catalogue is data: one TOML file an op, whose edits must apply to the
present sources.
"""
