"""Operations that reduce dims, or compute along one.

Sums and norms of what is kept equal those of the whole with the rest zeroed. Mean, variance, maximum and softmax are
taken over the kept channels. Anything else over channels freezes them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from amct_pytorch.analyse import labels as lb
from amct_pytorch.analyse.capture import Capture, Rule
from amct_pytorch.analyse.known import Call
from amct_pytorch.analyse.labels import Factor
from amct_pytorch.analyse.rules.pointwise import pointwise


def _reduced(
    capture: Capture, factors: Sequence[Factor], along: Sequence[int], keepdim: bool, over: str | None
) -> list[Factor]:
    """The labels after a reduction; `over` says why channels that are reduced stay (None: they may go)."""
    out = []
    for f in factors:
        mine = [d for d in lb.dims(f) if d in along]
        row = capture.summed(f, mine) if over is None else capture.fix(f, mine, over)
        if row is not None:
            out.append(row if keepdim else row.reshape([n for d, n in enumerate(row.shape) if d not in along]))
    return out


def _along(value: Any, ndim: int) -> list[int]:
    if value is None or (isinstance(value, (tuple, list)) and not value):
        return list(range(ndim))
    dims = value if isinstance(value, (tuple, list)) else [value]
    return [int(d) % max(ndim, 1) for d in dims]


def reduction(over: str | None = None, at: int = 1, default: int | None = None) -> Rule:
    """`default`: the dim where none is given, None for all of them"""

    def rule(capture: Capture, call: Call) -> None:
        x = call.args[0]
        outs = call.out if isinstance(call.out, (tuple, list)) else (call.out,)
        along = _along(call.arg(at, "dim", default), x.ndim)
        keepdim = bool(call.kwargs.get("keepdim", call.args[at + 1] if _has_keepdim(call, at) else False))
        factors = capture.factors(x)
        if call.name in COUNTING or call.name in MEANS:
            factors = capture.counted(factors, along, apart=call.name in COUNTING)
        if call.name in OF_ONE and all(capture.labels.is_one_constant(f) for f in factors):
            factors = _reduced(capture, factors, along, keepdim, None)
        else:
            factors = _reduced(capture, factors, along, keepdim, over)
        for o in outs:
            if o.ndim == (x.ndim if keepdim else x.ndim - len(along)):
                capture.put(o, factors)

    return rule


def _has_keepdim(call: Call, at: int) -> bool:
    return len(call.args) > at + 1 and isinstance(call.args[at + 1], bool)


def maximum(capture: Capture, call: Call) -> None:
    """max(x), max(x, dim) with indices, max(x, y)"""
    if len(call.args) > 1 and isinstance(call.args[1], torch.Tensor):
        pointwise(capture, call)
        return
    whole = len(call.args) < 2
    reduction(f"{call.name} is taken over it" if whole or call.name == "min" else None)(capture, call)
    if isinstance(call.out, (tuple, list)):
        x = call.args[0]
        along = call.args[1] % max(x.ndim, 1)
        counted = tuple(f for f in capture.factors(x) if f.ndim > along and f.shape[along] > 1)
        capture.put(call.out[1], capture.factors(call.out[0]), indices=counted)


def greatest(capture: Capture, call: Call) -> None:
    """amax(x, dims)"""
    reduction(None if call.arg(1, "dim") else "amax is taken over all of it")(capture, call)


def vector_norm(capture: Capture, call: Call) -> None:
    order = call.arg(1, "ord", 2)
    known = order in (1, 2, math.inf)
    reduction(None if known else f"a norm of order {order} is taken over it", at=2)(capture, call)


def loss(at: int) -> Rule:
    """mse_loss(x, y, reduction) and others: elements meet; then their mean or sum is taken, but for a reduction of 0"""

    def rule(capture: Capture, call: Call) -> None:
        tensors = [t for t in call.args if isinstance(t, torch.Tensor)]
        met = capture.merge([(t, capture.factors(t)) for t in tensors], max(t.ndim for t in tensors))
        if call.arg(at, "reduction", 1) == 0:
            capture.put(call.out, met)

    return rule


def along_dim(at: int, over: str | None) -> Rule:
    """Operations that compute along one dim and keep the shape (or, as top-k, another length along it)."""

    def rule(capture: Capture, call: Call) -> None:
        x = call.args[0]
        dim = call.arg(at, "dim", -1)
        along = _along(dim, x.ndim)
        if over is None:
            factors = capture.counted(capture.factors(x), along)
        else:
            factors = capture.fixed(capture.factors(x), along, f"{call.name} is taken over it")
        for o in call.out if isinstance(call.out, (tuple, list)) else (call.out,):
            if isinstance(o, torch.Tensor) and o.ndim == x.ndim:
                capture.put(o, factors)

    return rule


OF_ONE = ("any", "all", "amin", "amax")  # of equal elements, however many, it is that of one
MEANS = ("mean", "nanmean", "var", "var_mean", "std", "std_mean")
COUNTING = ("sum", "nansum", "linalg_vector_norm", "norm")
LOSSES = "mse_loss smooth_l1_loss huber_loss soft_margin_loss".split()
STAYS = "it stays"
RULES: dict[str, Rule] = {
    **{n: reduction() for n in (*MEANS, "sum", "nansum")},
    **{
        n: reduction(f"{n} is taken over it")
        for n in "amin prod logsumexp any all argmax argmin median nanmedian".split()
    },
    **dict.fromkeys(("max", "min"), maximum),
    "amax": greatest,
    "linalg_vector_norm": vector_norm,
    "norm": vector_norm,
    "_softmax": along_dim(1, None),
    "softmax": along_dim(1, None),
    **{
        n: along_dim(1, STAYS)
        for n in (
            "_log_softmax",
            "log_softmax",
            "_safe_softmax",
            "cumsum",
            "cumprod",
            "logcumsumexp",
            "cummax",
            "cummin",
            "argsort",
            "sort",
        )
    },
    "topk": along_dim(2, STAYS),
    "mode": reduction("mode is taken over it", default=-1),
    "kthvalue": reduction("kthvalue is taken over it", at=2, default=-1),
    **dict.fromkeys(LOSSES, loss(2)),
    **{"binary_cross_entropy": loss(3), "binary_cross_entropy_with_logits": loss(4)},
    **dict.fromkeys(("_fft_r2c", "_fft_c2c", "_fft_c2r"), along_dim(1, STAYS)),
}
