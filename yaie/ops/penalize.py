"""penalize: make tokens that stand in the request less (or more) likely.

==============  ============  =====================================================================
logits          float32[B,V]  row stride free
prompt          int32[Np]     the prompts' tokens, packed
prompt_indptr   int32[B+1]    those of row b are prompt_indptr[b] to prompt_indptr[b+1]
output          int32[No]     the tokens generated so far, likewise
output_indptr   int32[B+1]
repetition      float32[B]    above 0 and finite; 1: off
frequency       float32[B]    in [-2, 2]; 0: off
presence        float32[B]    in [-2, 2]; 0: off
-> penalized    float32[B,V]  a new tensor
==============  ============  =====================================================================

For token v of row b, with c = how often v stands in the row's output::

    if v stands in the prompt or the output:   l = l / repetition if l > 0 else l * repetition
    l = l - frequency * c
    l = l - presence if c > 0

The logit of a token that stands in neither keeps its bits, and so do all of a row with neutral
parameters (1, 0, 0). -inf stays -inf, NaN stays NaN, what overflows float32 is infinite. Repeats in
a prompt count once; no tokens at all are legal. This comes before the temperature.

Budget, with r the logit after the repetition penalty, u = 2^-24: two roundings of r (a reciprocal
and a product), one of frequency * c, one of each of the two differences (docs/decisions/0030).
Errors: shapes, strides, devices, V = 0: ValueError; dtypes: TypeError. In checked mode an indptr
not 0..Np (0..No) or decreasing, a token outside [0, V), a parameter outside its range or NaN:
ValueError.
Source: vLLM apply_penalties; transformers takes prompt and output for the repetition too, SGLang
the output alone (docs/decisions/0030).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from yaie.compare import ROUNDING, U32, Budget, Comparison, Contract, Patched
from yaie.fill import Fill
from yaie.op import Call, Cost, Op, at_least, case, one_of
from yaie.ops import _rows as rows
from yaie.ops import _sampling as sampling
from yaie.signature import parse


@case
class Case:
    """One row for each length of a prompt and of an output, V logits each. Tokens are drawn from
    an ``alphabet`` of so many. The parameters are those of row 0; other rows have the same, or
    by their ``mates`` each its own, of its own family (_rows.MATES). ``gap`` and ``shift`` as in
    filter_tokens."""

    prompt_lens: tuple[int, ...] = (3,)
    output_lens: tuple[int, ...] = (2,)
    V: int = at_least(1, default=8)
    alphabet: int = at_least(1, default=4)
    dtype: str = one_of(("float32",), default="float32")
    repetition: float = 1.0
    frequency: float = 0.0
    presence: float = 0.0
    mates: str = one_of(rows.MATES, default="same")
    gap: int = at_least(-1, default=0)
    shift: int = at_least(0, default=0)
    family: str = one_of(rows.LOGITS, default="normal")
    seed: int = at_least(0, default=0)

    def check(self) -> None:
        """One length of each a row."""
        lens = (*self.prompt_lens, *self.output_lens, 0)
        if len(self.prompt_lens) != len(self.output_lens) or min(lens) < 0:
            raise ValueError(f"prompt_lens is {self.prompt_lens}, output_lens {self.output_lens}")

    @property
    def B(self) -> int:
        """Rows."""
        return len(self.prompt_lens)

    @property
    def neutral(self) -> bool:
        """Whether the parameters of row 0 change nothing."""
        return (self.repetition, self.frequency, self.presence) == (1, 0, 0)


def inputs(case: Case, fill: Fill) -> tuple[dict[str, Any], dict[str, Any]]:
    """Rows of a family, and tokens of the alphabet in any order."""
    B, letters = case.B, fill.permutation(case.V)[: case.alphabet]
    logits = rows.drawn(fill, rows.LOGITS, case.family, (B, case.V), case.mates)
    args = {
        "logits": rows.laid_out(fill, logits, case.gap, case.shift),
        **rows.parameters(fill, case, "repetition", "frequency", "presence"),
    }
    for name, lens in (("prompt", case.prompt_lens), ("output", case.output_lens)):
        args[name] = fill.ints(letters[fill.rng.integers(len(letters), size=sum(lens))])
        args[f"{name}_indptr"] = fill.ints([0, *itertools.accumulate(lens)])
    return args, {}


def reference(
    logits: Tensor,
    prompt: Tensor,
    prompt_indptr: Tensor,
    output: Tensor,
    output_indptr: Tensor,
    repetition: Tensor,
    frequency: Tensor,
    presence: Tensor,
) -> Patched:
    """Count, then do as the page says."""
    given = logits.double()
    counts = _counts(output, output_indptr, given.shape[-1])
    seen = (counts > 0) | (_counts(prompt, prompt_indptr, given.shape[-1]) > 0)
    theta, f, p = (x.double()[:, None] for x in (repetition, frequency, presence))
    repeated = torch.where(given > 0, given / theta, given * theta)
    overflows = repeated.abs() >= 2.0**128 * (1 - 2.0**-25)
    repeated = torch.where(overflows, repeated.sign() * math.inf, repeated)
    often, once = f * counts, p * (counts > 0)
    expected = repeated - often - once
    tiny = torch.finfo(torch.float32).smallest_normal
    # Either both penalties are subtracted one by one, or their sum at once.
    between = torch.maximum((repeated - often).abs(), (often + once).abs())
    terms = {
        "repetition": 2 * U32 * repeated.abs().clamp_min(tiny),
        "frequency": U32 * often.abs(),
        "difference": U32 * between,
        ROUNDING: U32 * expected.abs().clamp_min(tiny),
    }
    neutral = (theta == 1) & (f == 0) & (p == 0)
    return Patched(logits.clone(), seen & ~neutral, Budget(expected, terms))


def _counts(tokens: Tensor, indptr: Tensor, V: int) -> Tensor:
    """How often each token stands in each row, [B,V]."""
    ends = itertools.pairwise(indptr.tolist())
    rows_of = [torch.bincount(tokens[a:b], minlength=V) for a, b in ends]
    return torch.stack(rows_of) if rows_of else tokens.new_zeros(0, V)


def comparison(result: Patched, call: Call, contract: Contract) -> dict[str, Comparison]:
    """Bits where nothing is to be done, a budget elsewhere."""
    return {"penalized": result}


def cost(case: Case) -> Cost:
    """Logits are read and written once, tokens and indptr read once, three parameters a row."""
    tokens = sum(case.prompt_lens) + sum(case.output_lens)
    return Cost(bytes=8 * case.B * case.V + 4 * tokens + 8 * (case.B + 1) + 12 * case.B)


_STRICT = Case(V=128256, alphabet=5000, repetition=1.2, frequency=0.3, presence=0.1)

WORKLOADS = {
    "llama3 vocabulary, batch 1, 1000 + 500 tokens": replace(
        _STRICT, prompt_lens=(1000,) * 1, output_lens=(500,) * 1
    ),
    "llama3 vocabulary, batch 32, 1000 + 500 tokens": replace(
        _STRICT, prompt_lens=(1000,) * 32, output_lens=(500,) * 32
    ),
    "llama3 vocabulary, batch 256, 500 + 200 tokens": replace(
        _STRICT, prompt_lens=(500,) * 256, output_lens=(200,) * 256
    ),
    "qwen3 vocabulary, batch 32, 4000 + 1000 tokens": replace(
        _STRICT, prompt_lens=(4000,) * 32, output_lens=(1000,) * 32, V=151936
    ),
}


def _some(lens: Sequence[int]) -> bool:
    return any(n > 0 for n in lens)


EDGES: dict[str, Callable[[Case], bool]] = {
    **rows.PENALTY_EDGES,
    "token in prompt and output": lambda c: (
        c.alphabet == 1 and any(map(min, c.prompt_lens, c.output_lens))
    ),
    "token repeated in the output": lambda c: any(n > min(c.alphabet, c.V) for n in c.output_lens),
    "no tokens": lambda c: c.B > 0 and not _some((*c.prompt_lens, *c.output_lens)),
    "row without tokens beside one with": lambda c: (
        _some(c.output_lens) and 0 in map(sum, zip(c.prompt_lens, c.output_lens, strict=True))
    ),
    "prompt alone": lambda c: _some(c.prompt_lens) and not _some(c.output_lens),
    "neutral": lambda c: c.neutral and _some(c.output_lens) and c.mates == "same",
    "repetition alone": lambda c: c.repetition != 1 and c.frequency == c.presence == 0,
    "repetition below 1": lambda c: c.repetition < 1 and _some(c.prompt_lens),
    "frequency alone": lambda c: c.frequency != 0 and c.repetition == 1 and c.presence == 0,
    "presence alone": lambda c: c.presence != 0 and c.repetition == 1 and c.frequency == 0,
    "all three": lambda c: c.repetition != 1 and c.frequency != 0 and c.presence != 0,
    "rewards": lambda c: min(c.frequency, c.presence) < 0 and _some(c.output_lens),
    "logits of 0": lambda c: c.family == "ties" and c.V > 9 and c.B > 0,
    "a count beyond 16 bits": lambda c: c.alphabet == 1 and max((0, *c.output_lens)) > 65_535,
    "more than 4,096 tokens of a prompt": lambda c: 4096 < max((0, *c.prompt_lens)) < c.alphabet,
}


def contents(call: Call) -> None:
    """Checked mode: the batch is described consistently, tokens and parameters are in range."""
    sampling.check_tokens(call, "prompt", "Np")
    sampling.check_tokens(call, "output", "No")
    theta = call.args["repetition"]
    sampling.check_rows(call, "repetition", (theta > 0) & theta.isfinite(), "finite and above 0")
    for name in ("frequency", "presence"):
        sampling.check_rows(call, name, call.args[name].abs() <= 2, "in -2..2")


ERRORS = (
    sampling.NO_VOCABULARY,
    *sampling.token_errors("prompt", "Np"),
    *sampling.token_errors("output", "No"),
    *sampling.bad_values("repetition", (0.0, -1.0, math.nan, math.inf)),
    *sampling.bad_values("frequency", (2.5, -2.5, math.nan)),
    *sampling.bad_values("presence", (2.5, -2.5, math.nan)),
)

penalize = Op(
    name="penalize",
    signature=parse(
        "logits: float32[B,V], prompt: int32[Np], prompt_indptr: int32[B+1], output: int32[No], "
        "output_indptr: int32[B+1], repetition: float32[B], frequency: float32[B], "
        "presence: float32[B] -> penalized: float32[B,V]"
    ),
    Case=Case,
    inputs=inputs,
    reference=reference,
    cost=cost,
    workloads=WORKLOADS,
    edges=EDGES,
    errors=ERRORS,
    good=Case(prompt_lens=(3, 1), output_lens=(2, 2)),
    doc=__doc__ or "",
    comparison=comparison,
    door=sampling.check_vocabulary,
    contents=contents,
)
