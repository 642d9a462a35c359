"""The constants of the error model, the only knobs that there are: docs/error-model.md.

A change of one needs a decision note, with a measurement over other people's kernels too
(`python -m benchmarks.calibration`).
"""

from __future__ import annotations

LAMBDA = 4.0
"""Allowance for the sum of independent rounding errors, in standard deviations (measured: 2.8)."""
RHO = 1.25
"""Allowance for a row's root mean square error against its model (measured: 1.18)."""
RHO_ROW = 64
"""Shortest row that RHO was calibrated on. A mean over fewer elements scatters more, so the
allowance grows by the factor that keeps the chance of a false alarm (docs/decisions/0002)."""
ROW_P = 1.5
"""Share of (u p v)^2 that a rounding of P adds to a row's mean square. Alone, an element has 1/3,
the variance of an error that is at most u; a row whose values go up and down together scatters
more (docs/decisions/0007)."""
LSE_C = 16.0
"""Allowance for the log-sum-exp, in units of 2^-24 (1 + S + |lse|) (measured: 9.6)."""
SCORE_C = 2.0
"""Standard deviations of a fp32 dot product's error, in units of sqrt(D) 2^-24 |q| |k|."""

BAND = 2.0**-10
"""How near to its threshold a probability mass is undecided. A float32 running sum over 128,256
tokens is off by up to 1.7e-4 (docs/decisions/0033)."""
MARGIN = 1e-4
"""Scores (logarithms) nearer than this are one to float32 (docs/decisions/0034)."""
