"""Normalization: its parameters go with the channels; statistics over channels are taken over the kept ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from amct_pytorch.analyse import labels as lb
from amct_pytorch.analyse.capture import Capture, Rule
from amct_pytorch.analyse.known import Call
from amct_pytorch.analyse.labels import Factor
from amct_pytorch.analyse.rules.contraction import STATISTIC

PLAIN = "it is normalized by a tensor that does not depend on it"


def _per_channel(
    capture: Capture, x: torch.Tensor, parameters: Sequence[torch.Tensor | None], dim: int
) -> list[Factor]:
    """The labels of x, tied along `dim` to vectors with one element per channel."""
    factors = capture.factors(x)
    given = [p for p in parameters if p is not None]
    vectors = [f.ravel() for p in given for f in capture.factors(p)]
    if len(vectors) < len(given):
        for v in vectors:
            capture.freeze(v, PLAIN)
        return capture.fixed(factors, [dim], PLAIN)
    mine = next((f for f in factors if f.shape[dim] > 1), None)
    if mine is None:
        for v in vectors:
            capture.freeze(v, "it belongs to channels that stay")
        return factors
    if mine.size == mine.shape[dim]:
        for v in vectors:
            capture.labels.tie(mine.ravel(), v)
        return factors
    return capture.merge([(None, factors), (None, [lb.place(v, dim, x.ndim) for v in vectors])], x.ndim)


def batch_norm(capture: Capture, call: Call) -> None:
    x = call.args[0]
    tensors = [t for t in call.args[1:5] if isinstance(t, torch.Tensor)]
    factors = _per_channel(capture, x, tensors, 1)
    capture.put(_first(call.out), factors)
    for statistic in call.out[1:] if isinstance(call.out, (tuple, list)) else ():
        if statistic.ndim == 1 and statistic.numel() > 0:
            capture.put(statistic, [_of_channels(capture, f) for f in factors if f.shape[1] > 1])


def _of_channels(capture: Capture, f: Factor) -> Factor:
    """The labels of a vector over dim 1 of what a factor labels."""
    others = [d for d in lb.dims(f) if d != 1]
    part = lb.narrow(f, others)
    if others:
        capture.labels.partial.append((f, part))
    return part.ravel()


def layer_norm(capture: Capture, call: Call) -> None:
    """layer norm and RMS norm, over the last dims."""
    x = call.args[0]
    weights = [t for t in call.args[2:4] if isinstance(t, torch.Tensor)]
    normalized = range(x.ndim - len(call.args[1]), x.ndim)
    mine = capture.counted(capture.factors(x), normalized, apart=False)
    factors = capture.merge([(x, mine), *((w, capture.factors(w)) for w in weights)], x.ndim)
    capture.put(_first(call.out), factors)
    for statistic in call.out[1:] if isinstance(call.out, (tuple, list)) else ():
        if statistic.ndim == x.ndim:
            over = [d for d in range(x.ndim) if statistic.shape[d] != x.shape[d]]
            rows = (capture.labels.follow(f, over) for f in factors)
            capture.put(statistic, [r for r in rows if r is not None])


def group_norm(capture: Capture, call: Call) -> None:
    """Whole groups go where their channels do, as heads; else every group loses equally many. Groups of one channel are
    an instance norm's."""
    x, weight, bias = call.args[:3]
    groups = call.args[6]
    factors = _per_channel(capture, x, [weight, bias], 1)
    factors = factors if groups == x.shape[1] else capture.counted(factors, [1], apart=False)
    kept, counted = [], []
    for f in factors:
        row = capture.fix(f, range(2, x.ndim), "positions are normalized together") if f.shape[1] > 1 else None
        if row is not None and groups == x.shape[1]:
            kept.append(row)
            counted.append(row.reshape(row.shape[:2]))
        elif row is not None and len(lb.dims(row)) == 1:
            kept.append(row)
            counted.append(lb.place(capture.labels.groups(row.ravel(), groups), 1, 2))
        else:
            rest = capture.fixed([f], [1], "groups are normalized whose channels depend on more than one dim")
            kept += rest
            counted += [r.reshape(r.shape[:2]) for r in rest if lb.dims(r) == (0,)]
    capture.put(_first(call.out), kept)
    for statistic in call.out[1:]:
        capture.put(statistic, counted)


def weight_norm(capture: Capture, call: Call) -> None:
    """v * g / norm(v), the norm over the other dims: where both are parameters, the cut makes up in g for what it
    loses; else those dims stay."""
    v, g = call.args[:2]
    dim = call.arg(2, "dim", 0) % v.ndim
    fv = capture.factors(v) if capture.rescales(g, v, dim) else capture.normalized(v, dim)
    made = capture.merge([(v, fv), (g, capture.factors(g))], v.ndim)
    capture.put(_first(call.out), made, static=True)
    capture.put(call.out[1], [f for f in made if f.shape[dim] > 1])  # the norms


def renorm(capture: Capture, call: Call) -> None:
    """renorm(x, p, dim, maximum): each index of a dim is scaled by its norm; of weights, what that is over stays."""
    x, dim = call.args[0], call.args[2] % call.args[0].ndim
    others = [d for d in range(x.ndim) if d != dim]
    factors = capture.counted(capture.factors(x), others)
    capture.put(call.out, capture.fixed(factors, others, STATISTIC) if capture.is_static(x) else factors)


def _first(out: object) -> torch.Tensor:
    first = out[0] if isinstance(out, (tuple, list)) else out
    assert isinstance(first, torch.Tensor)
    return first


RULES: dict[str, Rule] = {
    **dict.fromkeys(
        (
            "native_batch_norm",
            "_native_batch_norm_legit",
            "_native_batch_norm_legit_no_training",
            "cudnn_batch_norm",
            "miopen_batch_norm",
            "_batch_norm_no_update",
            "_batch_norm_with_update",
            "batch_norm",
        ),
        batch_norm,
    ),
    **dict.fromkeys(("native_layer_norm", "_fused_rms_norm", "rms_norm", "layer_norm"), layer_norm),
    "native_group_norm": group_norm,
    "_weight_norm_interface": weight_norm,
    **dict.fromkeys(("renorm", "renorm_"), renorm),
}
