"""What rows of correct results need of the row gate: `python -m benchmarks.row_gate`.

For head dims from 1 to 256, the largest ratio of a row's RMS error to its model, over rows of the
float64 answer rounded once to the dtype (the best result there is) and of torch.eager, with
ordinary scores and, with ``scale`` 1, scores of hundreds. The allowance of yaie.compare.rho must
lie above each of them. docs/decisions/0002 and 0007 hold the figures.

``--spread`` looks at rows whose elements span powers of ten, so that few are most of the row: how
often they are refused, by rho of their length alone and by the gate, though each element is rounded
once; and how often if all are off by 0.9 u (docs/decisions/0013).

``--shared`` looks at rows whose values go up and down together: of a kernel that rounds P, the
largest share of the allowance in family ``alternating``, and how often an output that is off by a
factor fails.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from yaie import ops
from yaie.arena import Arena
from yaie.command.arguments import positive
from yaie.compare import FLOAT32_THROUGHOUT, Budget, Contract, rho, weighty
from yaie.fill import FAMILIES as FILLS
from yaie.fill import Fill
from yaie.kernels.torch_eager.attention import paged_attention

OP, VARLEN = ops.paged_attention, ops.varlen_attention
FACTORS = (1.0005, 1.001, 1.002, 1.003, 1.005, 1.01, 1.02)
FAMILIES = ("normal", "spiky", "needle", "biased", "constant", "grid", "flat", "outlier", "ladder")
DIMS = (1, 2, 3, 8, 16, 20, 32, 40, 64, 80, 128, 256)


def ratios(dim: int, dtype: str, seeds: int) -> dict[str, torch.Tensor]:
    """Row RMS error over its model, of every row."""
    arena, found = Arena(1 << 26), {"rounded": [], "torch.eager": []}
    for family in FAMILIES:
        for seed, scale in itertools.product(range(seeds), (None, 1.0)):
            case = OP.Case(
                q_lens=(8, 8), kv_lens=(17, 200), S=16, Hk=4, G=2, D=dim, Dv=dim, dtype=dtype,
                family=family, scale=scale, seed=seed,
            )  # fmt: skip
            args, options = OP.inputs(case, Fill(arena, seed))
            call = OP.bind(**args, **options)
            oracle = OP.reference(**call.args, **call.options)
            budget = OP.comparison(oracle, call, FLOAT32_THROUGHOUT)["out"]
            assert isinstance(budget, Budget) and budget.model is not None
            model = budget.model.square().mean(-1).sqrt()
            eager, _ = paged_attention(**call.args, **call.options)
            for name, out in (("rounded", oracle.out.to(call.dtype)), ("torch.eager", eager)):
                error = (out.double() - oracle.out).square().mean(-1).sqrt()
                found[name].append((error / model).flatten())
    return {name: torch.cat(parts) for name, parts in found.items()}


def with_rounded_p(case: Any, factor: float = 1.0) -> tuple[Tensor, Tensor, Budget]:
    """out of a kernel that rounds P to the dtype, off by a factor; the exact one; the budget."""
    args, options = VARLEN.inputs(case, Fill(Arena(1 << 26), case.seed))
    call = VARLEN.bind(**args, **options)
    oracle = VARLEN.reference(**call.args, **call.options)
    budget = VARLEN.comparison(oracle, call, Contract(p_rounded=True))["out"]
    q, k, v = (call.args[name].float() for name in "qkv")
    k, v = (x.repeat_interleave(case.G, 1) for x in (k, v))
    s = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(case.D)
    p = (s - s.amax(-1, keepdim=True)).exp()
    total = p.sum(-1).T[..., None]
    out = torch.einsum("hqk,khd->qhd", p.to(call.dtype).float(), v) / total * factor
    return out.to(call.dtype), oracle.out, budget


def many(families: Sequence[str], dtype: str, seeds: int) -> Iterator[Any]:
    for family, n, seed in itertools.product(families, (65, 300), range(seeds)):
        yield VARLEN.Case(
            q_lens=(8,), kv_lens=(n,), Hk=2, G=4, D=128, Dv=128, dtype=dtype, causal=False,
            family=family, seed=seed,
        )  # fmt: skip


def shares(dtype: str, seeds: int) -> Tensor:
    """The share of its allowance that each right row of family ``alternating`` uses."""
    parts = []
    for case in many(["alternating"], dtype, seeds):
        out, exact, budget = with_rounded_p(case)
        assert budget.model is not None
        rms = (out.double() - exact).square().mean(-1).sqrt()
        limit = rho(out.shape[-1]) * budget.model.square().mean(-1).sqrt()
        parts.append((rms / limit).flatten())
    return torch.cat(parts)


def shared(seeds: int) -> None:
    """The two tables of rows whose values go up and down together."""
    for dtype in ("bfloat16", "float16"):
        rows = shares(dtype, seeds)
        fail, largest = int((rows > 1).sum()), float(rows.max())
        print(f"{dtype}: {len(rows)} rows, largest {largest:.3f} of the allowance, {fail} fail")
    for factor, dtype in itertools.product(FACTORS, ("bfloat16", "float16")):
        checks = [
            budget.judge("out", out).check
            for out, _, budget in (
                with_rounded_p(case, factor) for case in many(sorted(FILLS), dtype, 3)
            )
        ]
        print(f"{dtype} x {factor}: {checks.count('budget')} of {len(checks)} fail by an element, "
              f"{checks.count('row budget')} more by a row")  # fmt: skip


def spread(rows: int) -> None:
    """The table of rows whose elements span powers of ten."""
    rng, u = torch.Generator().manual_seed(3), 2.0**-8
    print("| D | powers of ten | weighty, median | refused by length alone | refused "
          "| off by 0.9 u: by length alone | by the gate |")  # fmt: skip
    print("|---:|" + "---:|" * 6)
    for dim, powers in itertools.product((64, 128, 256), (0, 1, 2, 4)):
        size = 10 ** (powers * torch.rand(rows, dim, generator=rng, dtype=torch.float64))
        x = size * torch.randn(rows, dim, generator=rng, dtype=torch.float64)
        budget = Budget(x, {"output rounding": 2 * u * x.abs()}, model=u * x.abs() / math.sqrt(3))
        assert budget.model is not None
        limits = [rho(dim) * budget.model.square().mean(-1).sqrt(), budget.row_limit()]
        cells = [
            f"{float((error.square().mean(-1).sqrt() > limit).double().mean()):.2%}"
            for error in (x.bfloat16().double() - x, 0.9 * u * x)
            for limit in limits
        ]
        print(f"| {dim} | {powers} | {float(weighty(budget.model).median()):.0f} | "
              + " | ".join(cells) + " |")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=positive, default=3, help="of each family and scale (3)")
    parser.add_argument("--shared", action="store_true", help="the rows of one common error")
    parser.add_argument("--spread", action="store_true", help="rows of which few elements are most")
    args = parser.parse_args()
    seeds = args.seeds
    if args.spread:
        spread(100_000)
        return
    if args.shared:
        shared(seeds)
        return
    print("| D | allowance | " + " | ".join(f"{d} {n}" for d in ("bfloat16", "float16", "float32")
          for n in ("rounded", "torch.eager")) + " |")  # fmt: skip
    print("|---:|---:|" + "---:|" * 6)
    for dim in DIMS:
        cells = [
            f"{float(ratio.max()):.2f}"
            for dtype in ("bfloat16", "float16", "float32")
            for ratio in ratios(dim, dtype, seeds).values()
        ]
        print(f"| {dim} | {rho(dim):.2f} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
