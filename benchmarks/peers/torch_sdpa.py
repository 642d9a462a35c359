"""torch's scaled_dot_product_attention, a peer for each of its backends, and the eager attention of
transformers, which takes the same dense batches.

The backends are called by their own names, for these return the log-sum-exp that the public
function drops; the two that have none get it from a second product, which is part of their time.
Heads are heads where the backend serves groups of them and there is more than one query, else the
query heads of a KV head are rows of one product.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from benchmarks.peers.batches import WRAPPED, Attention, Group, Planned, lse_of
from yaie import ops
from yaie.compare import Contract
from yaie.dispatch import Unsupported
from yaie.op import Call, Kernel

aten = torch.ops.aten
LLAMA = "transformers.models.llama.modeling_llama"

Backend = Callable[[Tensor, Tensor, Tensor, "Tensor | None", bool, float], tuple[Tensor, Tensor]]
"""q [B,H,R,D], k and v [B,Hk,N,D], a bias [R,N] or None, causal or not, the scale -> out, lse
[B,H,R]. H is Hk, or a multiple of it where it is causal and for the backends of GROUPED."""


def flash_cpu(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """The flash kernel of the CPU."""
    k, v = _repeated(q, k, v)
    out, lse = aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, 0.0, causal, attn_mask=bias, scale=scale
    )
    return out, lse


def flash(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """FlashAttention 2. It takes no bias: where one is needed, it declines."""
    if bias is not None:
        raise Unsupported("the flash backend of SDPA takes no mask but the square causal one")
    out, lse, *_ = aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal, scale=scale)
    return out, lse


def efficient(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """The memory-efficient kernel of xFormers; it pads the rows of lse."""
    k, v = _repeated(q, k, v)
    if bias is not None:
        bias = _aligned(bias).expand(*q.shape[:2], *bias.shape)
    out, lse, *_ = aten._scaled_dot_product_efficient_attention(
        q, k, v, bias, True, 0.0, causal, scale=scale
    )
    return out, lse[..., : q.shape[2]]


def cudnn(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """cuDNN's kernel."""
    if bias is not None:
        bias = _aligned(bias).expand(*q.shape[:2], *bias.shape)
    out, lse, *_ = aten._scaled_dot_product_cudnn_attention(
        q, k, v, bias, True, 0.0, causal, False, scale=scale
    )
    return out, lse.reshape(q.shape[:3])


def _repeated(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values once for each query head."""
    group = q.shape[1] // k.shape[1]
    return k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)


def _aligned(bias: Tensor) -> Tensor:
    """The same bias with rows that start at multiples of 16 bytes."""
    columns = bias.shape[1]
    return torch.nn.functional.pad(bias, (0, -columns % 8))[:, :columns]


GROUPED = (flash, cudnn)
"""The backends that read the keys of a group of heads where they are; the others repeat them."""


def dense(
    backend: Backend, q: Tensor, k: Tensor, v: Tensor, group: Group, how: Attention
) -> tuple[Tensor, Tensor]:
    """A group through a backend."""
    mask, heads, q_len = group.mask, q.shape[2] // k.shape[2], q.shape[1]
    k, v = k.transpose(1, 2), v.transpose(1, 2)
    if mask.square or (backend in GROUPED and mask.bias is None and q_len > 1):
        out, lse = backend(q.transpose(1, 2), k, v, None, mask.square, how.scale)
        return out.transpose(1, 2), lse.transpose(1, 2)
    rows = q.unflatten(2, (-1, heads)).permute(0, 2, 3, 1, 4).flatten(2, 3)  # [B,Hk,G*Lq,D]
    bias = None if mask.bias is None else mask.bias.repeat(heads, 1)
    out, lse = backend(rows, k, v, bias, False, how.scale)
    out = out.unflatten(2, (heads, q_len)).permute(0, 3, 1, 2, 4).flatten(2, 3)
    lse = lse.unflatten(2, (heads, q_len)).permute(0, 3, 1, 2).flatten(2, 3)
    return out, lse


def math_backend(
    q: Tensor, k: Tensor, v: Tensor, group: Group, how: Attention
) -> tuple[Tensor, Tensor]:
    """SDPA of plain operations, which returns no log-sum-exp."""
    heads = (x.transpose(1, 2) for x in (q, k, v))
    out, _ = aten._scaled_dot_product_attention_math(
        *heads, group.mask.bias, scale=how.scale, enable_gqa=True
    )
    return out.transpose(1, 2), lse_of(q, k, group, how)


def transformers_eager(
    q: Tensor, k: Tensor, v: Tensor, group: Group, how: Attention
) -> tuple[Tensor, Tensor]:
    """The attention of transformers' Llama in plain PyTorch, which returns no log-sum-exp."""
    eager_attention_forward = importlib.import_module(LLAMA).eager_attention_forward
    module = SimpleNamespace(num_key_value_groups=q.shape[2] // k.shape[2], training=False)
    heads = (x.transpose(1, 2) for x in (q, k, v))
    out, _ = eager_attention_forward(module, *heads, group.mask.bias, how.scale)
    return out, lse_of(q, k, group, how)


# Registration --------------------------------------------------------------------------------

HALF = (torch.float16, torch.bfloat16)
ALL = (*HALF, torch.float32)
ON_CPU = Contract(p_rounded=True)
ON_TENSOR_CORES = Contract(p_rounded=True, accumulator="tensor_core")
OPTIONS = {"causal", "scale", "window", "softcap"}


@dataclass(frozen=True)
class Limits:
    """What a backend serves."""

    dtypes: tuple[torch.dtype, ...] = HALF
    widest: int = 256
    multiple: int = 8
    any_scale: bool = True

    def declines(self, call: Call) -> str | None:
        """None for a call that it serves, else the reason."""
        if call.options["softcap"]:
            return "this attention has no softcap"
        scale = call.options["scale"]
        if scale is not None and scale <= 0 and not self.any_scale:
            return f"scale is {scale}: this backend gives NaN where it is not positive"
        if others := further(call):
            return f"this attention has no {min(others)}"
        if call.dtype not in self.dtypes:
            return f"{call.dtype} is not served by this backend"
        if call.axes["D"] != call.axes["Dv"]:
            return "D and Dv differ"
        if call.axes["D"] % self.multiple or call.axes["D"] > self.widest:
            return f"D is {call.axes['D']}, serves multiples of {self.multiple} to {self.widest}"
        return None


def further(call: Call) -> set[str]:
    """Arguments that were given and that no peer knows."""
    given = {n for n, v in {**call.args, **call.options}.items() if v is not None}
    known = {p.name for p in ops.get(call.op).signature.params if not p.optional}
    return given - known - OPTIONS


def register_dense(
    name: str,
    run: Callable[..., tuple[Tensor, Tensor]],
    device: str,
    limits: Limits,
    contract: Contract,
    names: tuple[str, ...] = tuple(WRAPPED),
    imports: tuple[str, ...] = (),
) -> None:
    """A kernel of a dense attention for each op that it can stand in for."""
    for op in names:
        kernel = Kernel(
            op,
            name,
            Planned(op, run, imports),
            device=device,
            contract=contract,
            preference=-1,
            supports=limits.declines,
        )
        ops.get(op).register(kernel)


def register() -> None:
    """Register a kernel for each backend."""
    cpu = Limits(ALL)
    register_dense("torch.sdpa_cpu", functools.partial(dense, flash_cpu), "cpu", cpu, ON_CPU)
    for name, backend in {"flash": flash, "efficient": efficient, "cudnn": cudnn}.items():
        run = functools.partial(dense, backend)
        limits = Limits(any_scale=name == "efficient")
        register_dense(f"torch.sdpa_{name}", run, "cuda", limits, ON_TENSOR_CORES)
    plain = Limits(ALL, widest=1 << 16, multiple=1)
    loose = Contract(p_rounded=True, accumulator="tensor_core")
    register_dense("torch.sdpa_math", math_backend, "any", plain, loose)
    if importlib.util.find_spec("transformers"):
        register_dense(
            "transformers.eager", transformers_eager, "any", plain, loose, imports=(LLAMA,)
        )
