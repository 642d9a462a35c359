"""What rows of correct results need of the row gate: `python -m benchmarks.row_gate`.

For head dims from 1 to 256, the largest ratio of a row's RMS error to its model, over rows of the
float64 answer rounded once to the dtype (the best result there is) and of torch.eager, with
ordinary scores and, with ``scale`` 1, scores of hundreds. The allowance of yaie.compare.rho must
lie above each of them. docs/decisions/0002 and 0007 hold the figures.
"""

from __future__ import annotations

import argparse
import itertools

import torch

from yaie import ops
from yaie.arena import Arena
from yaie.compare import FLOAT32_THROUGHOUT, Budget, rho
from yaie.fill import Fill
from yaie.kernels.torch_eager.attention import paged_attention

OP = ops.paged_attention
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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="of each family and scale (3)")
    seeds = parser.parse_args().seeds
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
