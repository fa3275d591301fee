"""What a pruned model has to compute: built from the original and the pruned model alone, without a plan or a record.

`kept_twin` is the original, computing with the elements that the pruned model still has. A removed channel is NaN in
it: pointwise operations and data movement carry the mark by themselves, contractions take it for zero, norms and
reductions over channels leave it out. An operation that would need to know more and is not known here gives NaN, which
never passes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.distributions import Distribution
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

NAN = float("nan")
CONTRACT = {"convolution": 0, "mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1, "mv": 0, "dot": 0, "vdot": 0, "addmv": 1}
Shaped = tuple[int, ...]


def _numeric(t: Any) -> bool:
    return isinstance(t, torch.Tensor) and (t.is_floating_point() or t.is_complex())


def _zeroed(t: torch.Tensor) -> torch.Tensor:
    """0 for what went."""
    return t.masked_fill(t.isnan(), 0) if t.is_complex() else torch.nan_to_num(t)


def _norm(x: torch.Tensor, over: Shaped, w: torch.Tensor | None, b: torch.Tensor | None, eps: float) -> tuple[Any, ...]:
    mean = x.nanmean(over, keepdim=True)
    r = torch.rsqrt((x - mean).square().nanmean(over, keepdim=True) + eps)
    y = (x - mean) * r
    y = y if w is None else y * w
    return (y if b is None else y + b), mean, r


class Kept(TorchDispatchMode):
    """Computes with what is kept only: NaN marks what went. `whole`: what parameters held before, by identity."""

    def __init__(self, whole: dict[int, torch.Tensor]) -> None:
        super().__init__()
        self.whole = whole

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[1]
        if name == "_weight_norm_interface":  # by the norm that the original has
            v, g, *rest = args
            weight, norm = func(*(self.whole.get(id(t), t) for t in (v, g)), *rest)
            return weight.masked_fill(v.isnan(), NAN), norm
        if name in CONTRACT:
            return _contraction(func, name, args, kwargs)
        if name == "_trilinear":
            return _bilinear(func, args)
        if name == "_grouped_mm":
            return _grouped(func, args, kwargs)
        if name.startswith("_scaled_dot_product"):
            return _attention(func, args, kwargs)
        if name in ("mean", "sum", "linalg_vector_norm") and args[0].is_floating_point():
            return _sum(func, name, args, kwargs)
        if name in ("_cdist_forward", "_euclidean_dist"):
            x, y, p = (*args, 2.0)[:3]
            apart = (x.unsqueeze(-2) - y.unsqueeze(-3)).abs()
            return apart.pow(p).nansum(-1).pow(1 / p).masked_fill(apart.isnan().all(-1), NAN)
        if name in ("mse_loss", "smooth_l1_loss", "huber_loss"):
            each = func(*args[:2], 0, *args[3:], **kwargs)
            reduction = args[2] if len(args) > 2 else 1
            return _reduced(each, reduction)
        if name.startswith("binary_cross_entropy"):
            at = 4 if name.endswith("logits") else 3
            given = [None if t is None else t.nan_to_num(0.5) for t in (*args[:at], *[None] * (at - len(args)))]
            each = func(*given, 0, **kwargs).masked_fill(args[0].isnan(), NAN)
            return _reduced(each, args[at] if len(args) > at else 1)
        if name in ("var", "std", "var_mean"):
            x, over, keep = args[0], tuple(args[1] or range(args[0].ndim)), kwargs.get("keepdim", False)
            n = (~x.isnan()).sum(over, keepdim=keep) - (1 if kwargs.get("correction") is None else kwargs["correction"])
            v = (x - x.nanmean(over, keepdim=True)).square().nansum(over, keepdim=keep) / n
            v = v.masked_fill(x.isnan().all(over, keepdim=keep), NAN)
            return v if name == "var" else v.sqrt() if name == "std" else (v, x.nanmean(over, keepdim=keep))
        x = args[0] if args else None
        if not (isinstance(x, torch.Tensor) and x.is_floating_point()):
            return func(*args, **kwargs)
        if name == "renorm":
            return func(x.nan_to_num(), *args[1:]).masked_fill(x.isnan(), NAN)
        if name in ("amax", "max", "_softmax") and len(args) > 1 and not isinstance(args[1], torch.Tensor):
            out = func(x.masked_fill(x.isnan(), -torch.inf), *args[1:], **kwargs)
            if name == "_softmax":
                return out.masked_fill(x.isnan(), NAN)
            return tree_map_only(
                torch.Tensor, lambda t: t.masked_fill(t == -torch.inf, NAN) if t.is_floating_point() else t, out
            )
        if name == "max" and len(args) == 1:
            return func(x.masked_fill(x.isnan(), -torch.inf))
        return _normalization(func, name, args, kwargs)


def _reduced(each: torch.Tensor, reduction: int) -> torch.Tensor:
    return each if reduction == 0 else each.nanmean() if reduction == 1 else each.nansum()


def _contraction(func: Any, name: str, args: Any, kwargs: Any) -> torch.Tensor:
    i = CONTRACT[name]
    a, b = args[i], args[i + 1]
    zeroed = (_zeroed(t) if _numeric(t) and k >= i else t for k, t in enumerate(args))
    out = func(*zeroed, **kwargs)
    if name != "convolution":
        matrix = a.isnan().all(-1, keepdim=b.ndim > 1)
        gone = matrix | b.isnan().all(-2, keepdim=True) if b.ndim > 1 else matrix
    else:
        gone = b.isnan()
        if args[6]:  # transposed: in, out / groups
            gone = gone.unflatten(0, (args[8], -1)).flatten(3).all(3).all(1).flatten() if b.ndim > 2 else gone
        else:
            gone = gone.flatten(1).all(1)
        gone = gone.view(-1, *[1] * (out.ndim - 2))
        if b.shape[2:].numel() == 1 and out.shape[2:] == a.shape[2:]:  # positions stay apart: what went stays marked
            gone = gone | a.isnan().all(1, keepdim=True)
    return _marked(out, gone)


def _marked(t: torch.Tensor, gone: torch.Tensor) -> torch.Tensor:
    """NaN in the place of what went, in both parts of complex numbers."""
    return t.masked_fill(gone, complex(NAN, NAN) if t.is_complex() else NAN)


def _bilinear(func: Any, args: Any) -> torch.Tensor:
    """x1, weight (out, in1, in2), x2, ..."""
    out = func(*map(torch.nan_to_num, args[:3]), *args[3:])
    weight = args[1]
    return out.masked_fill(weight.isnan().flatten(-2).all(-1).reshape(-1), NAN) if out.ndim else out


def _grouped(func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    """rows, weights (group, in, out), where each group's rows end"""
    rows, weights, ends = args[0], args[1], kwargs.get("offs", args[2] if len(args) > 2 else None)
    out = func(*map(torch.nan_to_num, (rows, weights)), *args[2:], **kwargs)
    group = torch.searchsorted(ends, torch.arange(len(rows), dtype=ends.dtype), right=True).clamp_max(len(ends) - 1)
    return out.masked_fill(weights.isnan().all(-2)[group] | rows.isnan().all(-1, keepdim=True), NAN)


def _attention(func: Any, args: Any, kwargs: Any) -> Any:
    q, k, v = args[:3]
    out = func(*map(torch.nan_to_num, (q, k, v)), *args[3:], **kwargs)
    v = v.isnan().all(-2, keepdim=True)
    gone = q.isnan().all(-1, keepdim=True) | v.repeat_interleave(q.shape[1] // v.shape[1], 1)  # grouped queries
    return (out[0].masked_fill(gone, NAN), *out[1:])


def _sum(func: Any, name: str, args: Any, kwargs: Any) -> torch.Tensor:
    at = 2 if name == "linalg_vector_norm" else 1
    x, dim = args[0], args[at] if len(args) > at else None
    keep = args[at + 1] if len(args) > at + 1 else kwargs.get("keepdim", False)
    over = tuple(dim) if dim else tuple(range(x.ndim))
    out = func(torch.nan_to_num(x), *args[1:], **kwargs)
    alive = (~x.isnan()).sum(over, keepdim=bool(dim) and keep)
    if name == "mean":
        out = out * ((x.numel() // max(out.numel(), 1)) / alive.clamp_min(1).double())
    return out.masked_fill(alive == 0, NAN) if x.numel() else out


def _normalization(func: Any, name: str, args: Any, kwargs: Any) -> Any:
    if name == "native_layer_norm":
        x, shape, w, b, eps = args
        return _norm(x.contiguous(), tuple(range(x.ndim - len(shape), x.ndim)), w, b, eps)
    if name == "native_group_norm":
        x, w, b, n, c, _, g, eps = args
        y, *rest = _norm(x.reshape(n, g, -1), (2,), None, None, eps)
        y = y.reshape(x.shape)
        side = (1, c) + (1,) * (x.ndim - 2)
        y = y if w is None else y * w.view(side)
        return (y if b is None else y + b.view(side), *rest)
    if name == "native_batch_norm" and args[5]:  # batch statistics: also how weights are standardized
        x, w, b = args[:3]
        y, *rest = _norm(x, tuple(d for d in range(x.ndim) if d != 1), None, None, args[7])
        side = (1, -1) + (1,) * (x.ndim - 2)
        y = y if w is None else y * w.view(side)
        return (y if b is None else y + b.view(side), *(r.flatten() for r in rest))
    if name == "_fused_rms_norm":
        x, shape, w, eps = args
        over = tuple(range(x.ndim - len(shape), x.ndim))
        r = torch.rsqrt((x * x).nanmean(over, keepdim=True) + (torch.finfo(x.dtype).eps if eps is None else eps))
        return (x * r if w is None else x * r * w, r)
    return func(*args, **kwargs)


def kept_twin(original: nn.Module, pruned: nn.Module) -> nn.Module:
    """The original, computing with those parameter elements only that the pruned model has.

    Needs parameters whose elements are all different (`distinct`). Of a normalized weight it takes what is left of the
    original's, so that the magnitudes of the pruned one have to make up for the norm.
    """
    twin = copy.deepcopy(original)
    kept = dict(pruned.named_parameters())
    whole = {id(p): p.detach().clone() for p in twin.parameters()}
    with torch.no_grad():
        for name, p in twin.named_parameters():
            if name in kept and kept[name].shape != p.shape and _numeric(p):  # what meets flags is marked
                real, left = (torch.view_as_real(t)[..., 0] if t.is_complex() else t for t in (p, kept[name]))
                p.copy_(_marked(p, ~torch.isin(real, left)))
    forward = twin.forward

    def only_kept(*args: Any, **kwargs: Any) -> Any:
        checked = Distribution._validate_args
        Distribution.set_default_validate_args(False)  # what is gone is marked by NaN, which distributions refuse
        try:
            with torch.enable_grad(), Kept(whole):  # enabled: fused inference paths would hide their operations
                return forward(*args, **kwargs)
        finally:
            Distribution.set_default_validate_args(checked)

    twin.forward = only_kept  # type: ignore[method-assign]
    return twin


class Double(TorchDispatchMode):
    """Casts to float32 in user code stay float64, so that comparisons in float64 mean something: run all models
    inside."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func._schema.name == "aten::_to_copy" and kwargs.get("dtype") == torch.float32:
            kwargs["dtype"] = torch.float64
        return func(*args, **kwargs)


def fits(m: nn.Module) -> bool:
    """Whether the sizes that a layer of torch's own states are those of its weight."""
    if isinstance(m, nn.modules.conv._ConvNd):
        a, b = (m.in_channels, m.out_channels) if m.transposed else (m.out_channels, m.in_channels)
        return m.weight.shape == (a, b // m.groups, *m.kernel_size)
    if isinstance(m, nn.Linear):
        return m.weight.shape == (m.out_features, m.in_features)
    if isinstance(m, nn.LayerNorm) and m.weight is not None:
        return m.weight.shape == tuple(m.normalized_shape)
    if isinstance(m, nn.Embedding):
        return m.weight.shape == (m.num_embeddings, m.embedding_dim)
    return not (isinstance(m, nn.modules.batchnorm._NormBase) and m.weight is not None) or m.weight.shape == (
        m.num_features,
    )


def distinct(model: nn.Module, seed: int = 2, by: float = 1e-4) -> nn.Module:
    """Make all elements of every float64 parameter different (float32 draws collide) without changing the function
    much: by random numbers with standard deviation `by`."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in (p for p in model.parameters() if p.dtype in (torch.float64, torch.complex128)):
            p.add_(torch.randn(p.shape, generator=g, dtype=p.dtype), alpha=by)
    return model


def randomize(model: nn.Module, seed: int = 1) -> nn.Module:
    """Give normalization layers parameters and statistics that show a wrong index."""
    g = torch.Generator().manual_seed(seed)
    for m in model.modules():
        if isinstance(m, (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)):
            ranges = {"weight": (0.5, 1.5), "bias": (-0.3, 0.3), "running_mean": (-0.3, 0.3), "running_var": (0.5, 1.5)}
            for name, (low, high) in ranges.items():
                t = getattr(m, name, None)
                if t is not None:
                    t.data.copy_(torch.rand(t.shape, generator=g) * (high - low) + low)
    return model


def ready(model: nn.Module) -> nn.Module:
    """The model in float64, with parameters that tell channels apart, in eval mode."""
    for p in model.parameters():
        if p.is_complex():
            p.data = p.data.to(torch.complex128)
    return distinct(randomize(model.double())).eval()


def doubled(value: Any) -> Any:
    """The same nesting with float64 in place of every floating-point tensor."""
    return tree_map_only(torch.Tensor, lambda t: t.double() if t.is_floating_point() else t, value)


def run(model: nn.Module, inputs: Any) -> list[torch.Tensor]:
    """The output tensors of one forward pass, in order."""
    inputs = tree_map(lambda leaf: leaf, inputs)  # some networks overwrite their lists
    with torch.no_grad(), Double():
        out = model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)
    return [t.detach() for t in tree_leaves(_open(out)) if isinstance(t, torch.Tensor)]


def _open(value: Any) -> Any:
    return vars(value) if hasattr(value, "__dataclass_fields__") else value


def distance(got: list[torch.Tensor], want: list[torch.Tensor]) -> float:
    """The largest difference, relative to the largest value of each output; NaN where any output has one."""
    assert [t.shape for t in got] == [t.shape for t in want]
    worst = 0.0
    for a, b in zip(got, want, strict=True):
        if a.numel() and a.is_floating_point():
            d = float((a - b).abs().max() / b.abs().max().clamp_min(1e-12))
            worst = d if d != d or d > worst else worst
        elif not torch.equal(a, b):
            return float("inf")
        if worst != worst:
            return worst
    return worst
