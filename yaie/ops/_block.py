"""The float64 chain from x to y of radix_attention, and how far its roundings carry.

The chain rounds q, k and v to the dtype after the projection, q and k once more after the rotation,
attention's out as its contract says, and y. Standard errors are carried through to first order.
With p the weights of a query, o = sum_j p_j v_j, C_dv = sum_j p_j k_jd (v_jv - o_v), M the model of
attention's own error, and var what was rounded before::

    var o_v = scale^2 sum_d var(q_d) C_dv^2                            the query, in all its scores
            + scale^2 sum_j p_j^2 (v_jv - o_v)^2 sum_d q_d^2 var(k_jd)         a key, in its score
            + sum_j p_j^2 var(v_jv) + M_v^2                             a value; attention itself
    var y_e = sum_i var(o_i) wo_ie^2 + (u y_e)^2 / 3 + (g (|y_e| + sqrt(sum_i o_i^2 wo_ie^2)))^2

Keys and values of earlier calls are what the caches hold. A row of y may be off by LAMBDA times the
norm of its standard errors: they are independent, but one may outweigh all others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from yaie.compare import ROUNDING, Budget, Comparison, Contract, Norm, Written, unit_roundoff
from yaie.fill import Fill
from yaie.op import Call
from yaie.ops import _attention as attention
from yaie.ops import _paged as paged
from yaie.ops import _rope as rotary

RELATIVE = 1e-5
"""What float32 may be off by in all, relative to the norm of y."""


@dataclass(frozen=True)
class Projected:
    """A projection in float64, and the root of its sum of squared products."""

    z: Tensor
    spread: Tensor

    def error(self, u: float, g: float) -> Tensor:
        """What its sum and its rounding may be off by."""
        return u * self.z.abs() + g * (self.z.abs() + self.spread)

    def variance(self, u: float, g: float) -> Tensor:
        """The square of the standard error of both."""
        return (u * self.z).square() / 3 + (g * (self.z.abs() + self.spread)).square()


def project(x: Tensor, w: Tensor) -> Projected:
    """x [T,I] times w [I,J]."""
    x, w = x.double(), w.double()
    return Projected(x @ w, (x.square() @ w.square()).sqrt())


def heads(part: Projected, dim: int) -> Projected:
    """[T,H*D] as [T,H,D]."""
    shape = (len(part.z), part.z.shape[1] // dim, dim)
    return Projected(part.z.reshape(shape), part.spread.reshape(shape))


@dataclass(frozen=True)
class Rotation:
    """A projection, what the rotation makes of it, and how to rotate its errors."""

    before: Projected
    after: rotary.Rotated
    how: tuple[Tensor, Tensor, bool]

    @staticmethod
    def of(part: Projected, *how: Tensor | bool) -> Rotation:
        """Rotate a projection."""
        return Rotation(part, rotary.rotate(part.z, *how), how)  # type: ignore[arg-type]

    def carried(self, error: Tensor) -> Tensor:
        """What an error of the projection may be after the rotation: |cos| of the one number of a
        pair and |sin| of the other."""
        turned = rotary.rotate(error, *self.how)
        return torch.where(turned.rotates.bool(), turned.products, error)

    def variance(self, u: float, g: float) -> Tensor:
        """Of the rotated numbers, rounded twice."""
        return (
            self.carried(self.before.variance(u, g).sqrt()).square()
            + (u * self.after.y).square() / 3
        )


@dataclass(frozen=True)
class Cache:
    """Keys and values [P*S,Hk,D] in float64, and their variances; 0 where they were cached
    before."""

    k: Tensor
    v: Tensor
    var_k: Tensor
    var_v: Tensor

    def of_query_heads(self, slots: Tensor, group: int) -> Cache:
        """[Hq,N,D]: the keys in ``slots``, each KV head once for every query head of its group."""
        return Cache(
            *(
                x[slots].transpose(0, 1).repeat_interleave(group, 0)
                for x in (self.k, self.v, self.var_k, self.var_v)
            )
        )


def attended(
    q: Tensor,
    var_q: Tensor,
    cache: Cache,
    slots: Tensor,
    keep: Tensor,
    scale: float,
    softcap: float,
    oracle: attention.Oracle,
) -> Tensor:
    """The variance of attention's out [Lq,Hq,D] that rounded q, k and v of one sequence cause."""
    needed = keep.any(0)
    keep, group = keep[:, needed], q.shape[1] // cache.k.shape[1]
    own = cache.of_query_heads(slots[needed], group)
    q, var_q, out = (x.transpose(0, 1) for x in (q, var_q, oracle.out))  # [Hq,Lq,D]
    s = scale * (q @ own.k.mT)
    s = softcap * torch.tanh(s / softcap) if softcap > 0 else s
    p = (s - oracle.lse.T[..., None]).exp().masked_fill(~keep, 0.0)  # [Hq,Lq,N]

    covariance = torch.einsum("hqn,hnd,hnv->hqdv", p, own.k, own.v)
    covariance -= (p @ own.k)[..., None] * out[..., None, :]
    of_query = torch.einsum("hqd,hqdv->hqv", var_q, covariance.square())
    p2 = p.square() * (q.square() @ own.var_k.mT)
    of_keys = p2 @ own.v.square() - 2 * out * (p2 @ own.v) + out.square() * p2.sum(-1, True)
    of_values = p.square() @ own.var_v
    total = scale**2 * (of_query + of_keys.clamp_min(0.0)) + of_values
    return total.transpose(0, 1)


@dataclass(frozen=True)
class Chain:
    """The float64 chain, and what its judgement needs. ``stored`` are the tokens of this call that
    are cached, ``rows`` their slots."""

    q: Rotation
    k: Rotation
    v: Projected
    stored: Tensor
    rows: Tensor
    keys: Tensor
    values: Tensor
    batch: list[tuple[slice, Tensor, Tensor]]
    """The rows, the slots of the keys, and the mask of each sequence that has queries."""
    scale: float
    oracle: attention.Oracle
    wo: Tensor
    y: Projected
    inner: int
    """E, the length of the first projection's sums"""

    def variance(self, u: float, model: Tensor, softcap: float, contract: Contract) -> Tensor:
        """Of y [T,E], where ``model`` is that of attention's own error."""
        g = sum_error(self.inner, contract)
        cache = Cache(
            self.keys, self.values, torch.zeros_like(self.keys), torch.zeros_like(self.values)
        )
        cache.var_k[self.rows] = self.k.variance(u, g)[self.stored]
        cache.var_v[self.rows] = self.v.variance(u, g)[self.stored]
        var_q, parts = self.q.variance(u, g), [model[:0]]
        for rows, slots, keep in self.batch:
            oracle = self.oracle.rows(rows)
            q = (self.q.after.y[rows], var_q[rows])
            parts.append(attended(*q, cache, slots, keep, self.scale, softcap, oracle))
        some = (self.oracle.kept > 0)[..., None]
        before = ((torch.cat(parts) + model.square()) * some).flatten(1)
        last = self.y.variance(u, sum_error(len(self.wo), contract))
        return before @ self.wo.square() + last


def sum_error(terms: int, contract: Contract) -> float:
    """Relative error of a projection's sum."""
    return float(contract.accumulation(torch.tensor(float(terms))))


def chain(
    x: Tensor,
    wqkv: Tensor,
    wo: Tensor,
    positions: Tensor,
    cos_sin: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slots: Tensor,
    block_table: Tensor,
    kv_lens: Tensor,
    q_indptr: Tensor,
    interleaved: bool,
    causal: bool,
    scale: float | None,
    window: attention.Window,
    softcap: float,
) -> Chain:
    """The op's formula, step after step; the caches are not changed."""
    S, Hk, D = k_cache.shape[1:]
    scale = 1 / math.sqrt(D) if scale is None else scale
    qkv = project(x, wqkv)
    cuts = [len(wo), Hk * D, Hk * D]
    split = zip(*(torch.split(t, cuts, 1) for t in (qkv.z, qkv.spread)), strict=True)
    q, k, v = (heads(Projected(*part), D) for part in split)
    turn = (positions, cos_sin, interleaved)
    turned_q, turned_k = Rotation.of(q, *turn), Rotation.of(k, *turn)

    stored = slots >= 0
    rows = slots[stored].long()
    keys, values = (cache.flatten(0, 1).double() for cache in (k_cache, v_cache))
    keys[rows], values[rows] = turned_k.after.y[stored], v.z[stored]

    ends, batch, oracles = q_indptr.tolist(), [], []
    for b, kv_len in enumerate(kv_lens.tolist()):
        if ends[b] == ends[b + 1]:
            continue  # no queries, no rows
        own = slice(ends[b], ends[b + 1])
        j = torch.arange(kv_len, device=x.device)
        at = block_table[b].long()[j // S] * S + j % S
        keep = attention.keep_mask(ends[b + 1] - ends[b], kv_len, causal, window, x.device)
        batch.append((own, at, keep))
        query = turned_q.after.y[own]
        oracles.append(attention.attend(query, keys[at], values[at], keep, scale, softcap))
    empty = attention.Oracle.empty(q.z, values)
    oracle = attention.Oracle.concat(oracles) if oracles else empty
    y = project(oracle.out.flatten(1), wo)
    return Chain(
        turned_q, turned_k, v, stored, rows, keys, values, batch, scale, oracle, wo.double(), y,
        inner=x.shape[1],
    )  # fmt: skip


def judges(chain: Chain, call: Call, contract: Contract) -> dict[str, Comparison]:
    """A distance for each row of y; budgets for the keys and values that were stored."""
    assert call.dtype is not None
    u, tiny = unit_roundoff(call.dtype), torch.finfo(call.dtype).smallest_normal
    g = sum_error(chain.inner, contract)
    out = attention.judges(chain.oracle, call, contract)["out"]
    assert isinstance(out, Budget) and out.model is not None
    variance = chain.variance(u, out.model, float(call.options["softcap"]), contract)
    k, v = chain.k.after.y[chain.stored], chain.v.z[chain.stored]
    k_terms = {
        ROUNDING: u * k.abs().clamp_min(tiny),
        "rotation": 2.0**-23 * chain.k.after.products[chain.stored],
        "projection": chain.k.carried(chain.k.before.error(u, g))[chain.stored],
    }
    v_terms = {
        ROUNDING: u * v.abs().clamp_min(tiny),
        "projection": g * (v.abs() + chain.v.spread[chain.stored]),
    }
    relative = RELATIVE if call.dtype == torch.float32 else math.inf
    return {
        "y": Norm(chain.y.z, variance.sqrt(), relative),
        "k_cache": Written(chain.rows, Budget(k, k_terms)),
        "v_cache": Written(chain.rows, Budget(v, v_terms)),
    }


def matrix(fill: Fill, values: Tensor, dtype: torch.dtype, gap: int) -> Tensor:
    """[height,width] of ``values``, and ``gap`` elements of poison after each row."""
    height, width = values.shape
    slab = fill.slab((height, width + gap), dtype)
    return slab.write(values, (slice(None), slice(width)))[:, :width]


def check_shapes(call: Call) -> None:
    """The door: head counts follow from the shapes, and options are in range."""
    axes = call.axes
    D, Hk, inner, outer = (axes[name] for name in ("D", "Hk", "HqD", "QKV"))
    if D == 0 or inner % D:
        raise ValueError(f"{call.op}: wo: HqD is {inner}, no multiple of D = {D}")
    if Hk == 0 or inner // D % Hk:
        raise ValueError(f"{call.op}: wo: Hq is {inner // D}, no multiple of Hk = {Hk}")
    if outer != inner + 2 * Hk * D:
        raise ValueError(f"{call.op}: wqkv: QKV is {outer}, must be {inner + 2 * Hk * D}")
    rotary.check_table(call)
    attention.check_score(call)


def check_contents(call: Call) -> None:
    """Checked mode: what the steps check, and that tokens stand at the end of their sequence."""
    paged.check_indptr(call, "q_indptr", "T")
    kv_lens = call.args["kv_lens"].tolist()
    paged.check_table(call, kv_lens, "kv_lens")
    rotary.check_positions(call)
    paged.check_slots(call)
    ends, at = call.args["q_indptr"].tolist(), call.args["positions"].tolist()
    for b, kv_len in enumerate(kv_lens):
        for t in range(ends[b], ends[b + 1]):
            want = kv_len - ends[b + 1] + t
            if at[t] != want:
                raise ValueError(f"{call.op}: positions: [{t}] is {at[t]}, must be {want}")
