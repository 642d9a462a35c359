"""How much a run of the suite judges."""

PROFILES = {"quick": 50, "default": 400, "deep": 4000}
"""Cases that each kernel is judged on."""
