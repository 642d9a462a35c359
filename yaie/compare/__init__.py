"""How a result is judged: bit for bit, or within an error budget that is derived term by term.

A budget is never a hand-picked tolerance. Each term of it is an error that a correct kernel of the
declared precision contract really makes (rounding of the output, of P, of the scores, of the
sums), and the verdict prints the receipt: how much of the allowance was used at the worst element,
and by which term. Model, and how its constants were calibrated: docs/error-model.md.
"""

from yaie.compare.budget import ROUNDING, Budget, Norm, different, rho, weighty
from yaie.compare.choice import Band, Choice, Margin, Statistic
from yaie.compare.contract import FLOAT32_THROUGHOUT, U32, Contract, unit_roundoff
from yaie.compare.exact import Exact, Trace, told
from yaie.compare.knobs import BAND, LAMBDA, LSE_C, MARGIN, RHO, RHO_ROW, ROW_P, SCORE_C
from yaie.compare.parts import Patched, Written
from yaie.compare.verdict import Comparison, Judgement, Receipt, Verdict

__all__ = [
    "BAND",
    "FLOAT32_THROUGHOUT",
    "LAMBDA",
    "LSE_C",
    "MARGIN",
    "RHO",
    "RHO_ROW",
    "ROUNDING",
    "ROW_P",
    "SCORE_C",
    "U32",
    "Band",
    "Budget",
    "Choice",
    "Comparison",
    "Contract",
    "Exact",
    "Judgement",
    "Margin",
    "Norm",
    "Patched",
    "Receipt",
    "Statistic",
    "Trace",
    "Verdict",
    "Written",
    "different",
    "rho",
    "told",
    "unit_roundoff",
    "weighty",
]
