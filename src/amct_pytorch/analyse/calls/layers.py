"""Layers: the sizes that they take; some are done another way, by operations that can be followed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from amct_pytorch.analyse.calls.products import Inside
from amct_pytorch.analyse.calls.shaping import input_of, shape, stated
from amct_pytorch.analyse.labels import LITERAL
from amct_pytorch.analyse.size_mode import Handler, SizeMode
from amct_pytorch.analyse.sizes import Dim, Size, origin


def normalized(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """layer_norm(x, shape) and rms_norm"""
    sizes = args[1] if len(args) > 1 else kwargs["normalized_shape"]
    out = NotImplemented
    if func is F.layer_norm and _are_sizes(sizes):
        x, _, weight, bias, eps = stated(
            args, kwargs, input=None, normalized_shape=(), weight=None, bias=None, eps=1e-5
        )
        if isinstance(eps, float):
            lengths = list(map(int, sizes))
            out = mode.capture.at_once(torch.ops.aten.native_layer_norm.default, x, lengths, weight, bias, eps)
    out = func(*args, **kwargs) if out is NotImplemented else out[0]
    sizes = sizes if isinstance(sizes, (tuple, list)) else (sizes,)
    for i, size in enumerate(reversed(sizes)):
        mode.sized(input_of(args, kwargs), -1 - i, size)
    return out


def weight_norm(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """_weight_norm(v, g, dim): by several operations where the dim is neither the first nor the last; what the norm is
    over stays then."""
    v, dim = args[0] if args else kwargs["v"], args[2] if len(args) > 2 else kwargs.get("dim", 0)
    if dim not in (0, v.ndim - 1):
        mode.capture.normalized(v, dim)
    return func(*args, **kwargs)


def grouped(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Convolutions: the groups of a depthwise one count its channels, those of others the groups of these."""
    rank = _RANKS.get(func)
    out = NotImplemented if rank is None else _convolution(mode, rank, args, kwargs)
    if out is NotImplemented:
        out = func(*args, **kwargs)
    groups = args[6] if len(args) > 6 else kwargs.get("groups", 1)
    if type(groups) is int and groups == 1:
        return out
    x, weight = (args[i] if len(args) > i else kwargs[name] for i, name in enumerate(("input", "weight")))
    channels = 1 if x.ndim == weight.ndim else 0
    if x.shape[channels] == int(groups):
        mode.sized(x, channels, groups)
    elif isinstance(groups, Size):
        mode.capture.equate(groups.origin, _groups(mode, x, channels, int(groups)) or int(groups))
    return out


def _groups(mode: SizeMode, x: torch.Tensor, dim: int, count: int) -> Dim | None:
    """The groups of the channels along a dim, None where these depend on another."""
    f = mode.capture.varying(x, dim)
    return Dim(mode.capture.labels.groups(f.ravel(), count), 0) if f is not None and f.size == f.shape[dim] else None


def _convolution(mode: SizeMode, rank: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """conv2d(input, weight, bias, stride, padding, dilation, groups), and of other ranks"""
    x, weight, bias, stride, padding, dilation, groups = stated(
        args, kwargs, input=None, weight=None, bias=None, stride=1, padding=0, dilation=1, groups=1
    )
    sizes = [[v] * rank if isinstance(v, int) else v for v in (stride, padding, dilation)]
    if not x.ndim == weight.ndim == rank + 2 or not all(_are_sizes(v) and len(v) in (1, rank) for v in sizes):
        return NotImplemented  # no batch, padding by a word; or torch says what is wrong
    return mode.capture.at_once(
        torch.ops.aten.convolution.default, x, weight, bias, *sizes, False, [0] * rank, int(groups)
    )


def _are_sizes(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and all(isinstance(v, int) for v in value)


def group_normalized(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """group_norm(x, groups, ...): one attribute counts them."""
    out = func(*args, **kwargs)
    groups = args[1] if len(args) > 1 else kwargs["num_groups"]
    x, capture = input_of(args, kwargs), mode.capture
    f = capture.varying(x, 1)
    if int(groups) > 1 and (counted := _groups(mode, x, 1, int(groups))):
        capture.equate(origin(groups), counted)
    elif f is not None and int(groups) == f.shape[1]:
        capture.equate(origin(groups), Dim(f, 1))
    elif isinstance(groups, Size):
        capture.equate(groups.origin, int(groups))
    return out


def batch_normalized(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """batch_norm(input, ...): one operation, whatever kernels there are."""
    x, rest = (args[0], args[1:]) if args else (kwargs["input"], ())
    out = _batch_norm(mode, x, *rest, **{k: v for k, v in kwargs.items() if k != "input"})
    return func(*args, **kwargs) if out is None else out  # it says what is wrong


def _batch_norm(
    mode: SizeMode,
    x: torch.Tensor,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> torch.Tensor | None:
    if eps <= 0 or (training and x.numel() <= x.shape[1]):
        return None
    taken = (x, weight, bias, running_mean, running_var, training, momentum, eps)
    plain = isinstance(momentum, (int, float)) and isinstance(eps, float)
    out = mode.capture.at_once(torch.ops.aten.native_batch_norm.default, *taken) if plain else NotImplemented
    return (torch.native_batch_norm(*taken) if out is NotImplemented else out)[0]


def dropout(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """dropout(x, p, training, inplace), of elements or channels: they go or stay by chance, each by itself: as far as
    labels go, nothing happens."""
    x = input_of(args, kwargs)
    training = args[2] if len(args) > 2 else kwargs.get("training", kwargs.get("train", True))
    if not training or not x.is_floating_point():
        return func(*args, **kwargs)
    in_place = func in _DROPOUT_IN_PLACE or (args[3] if len(args) > 3 else kwargs.get("inplace", False))
    return x if in_place else x.clone()


def padded(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """pad(x, amounts, mode, value): circular padding puts what is at one end of a dim before the other; constants
    around channels are channels, as many as a size says."""
    x, amounts, kind, value = stated(args, kwargs, input=None, pad=(), mode="constant", value=None)
    if kind not in ("circular", "constant") or min(amounts, default=0) < 0:
        return func(*args, **kwargs)
    rest = list(amounts)
    for i in range(0, len(amounts), 2):
        dim, before, after = x.ndim - 1 - i // 2, amounts[i], amounts[i + 1]
        if kind == "circular":
            n = x.shape[dim]
            x = torch.cat([x.narrow(dim, n - int(before), int(before)), x, x.narrow(dim, 0, int(after))], dim)
        elif (before or after) and mode.alone(x, dim):
            sides = [[_constant(mode, x, dim, n, value or 0)] if n else [] for n in (before, after)]
            x = torch.cat([*sides[0], x, *sides[1]], dim)
            rest[i] = rest[i + 1] = 0
    mode.settle_pieces()
    return x if kind == "circular" or not any(rest) else func(x, rest, kind, value)


def _constant(mode: SizeMode, like: torch.Tensor, dim: int, size: int, value: float) -> torch.Tensor:
    """What is put before or after a tensor along a dim."""
    sizes = [size if d == dim else n for d, n in enumerate(shape(mode, torch.Tensor.size, (like,), {}))]
    out = like.new_full([int.__int__(n) for n in sizes], value)
    for d, n in enumerate(sizes):
        mode.spread(out, d, n, new=True)
    return out


def interpolated(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """interpolate(x, size, ...): a dim of channels that keeps its length stays as it is, so that it may as well be one
    of those over which nothing is interpolated (positions, resized along their number alone)."""
    x, size, scales, *rest = stated(
        args,
        kwargs,
        input=None,
        size=None,
        scale_factor=None,
        mode="nearest",
        align_corners=None,
        recompute_scale_factor=None,
        antialias=False,
    )
    # Bicubic interpolation multiplies all that is near, if with zero.
    plain = scales is None and not rest[-1] and rest[0] != "bicubic"
    lengths = size if plain and _are_sizes(size) and len(size) == x.ndim - 2 else ()
    out = _over_others(mode, x, lengths, lambda wide, sizes: func(wide, sizes, None, *rest))
    return func(*args, **kwargs) if out is None else out


def adaptively_pooled(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """adaptive_avg_pool(x, size), where None keeps a length: dims of channels as in `interpolated`."""
    x, size = stated(args, kwargs, input=None, output_size=None)
    rank = _POOLS[func]
    sizes = [size] * rank if isinstance(size, int) else list(size or ())
    fits = x.ndim == rank + 2 and len(sizes) == rank and all(n is None or isinstance(n, int) for n in sizes)
    out = _over_others(mode, x, sizes if fits else (), func)
    return func(*args, **kwargs) if out is None else out


def _over_others(
    mode: SizeMode, x: torch.Tensor, lengths: Sequence[int | None], apply: Callable[[torch.Tensor, list[int]], Any]
) -> Any:
    """What `apply` makes of a tensor, to be of `lengths` from its third dim on, where dims of channels keep theirs
    (None, or as long as they are): done over the other dims alone. None where there is no such dim."""
    same = [d for d, n in enumerate(lengths, 2) if (n is None or int.__eq__(n, x.shape[d])) and mode.labelled(x, d)]
    if not same:
        return None
    for d in same:
        if (length := lengths[d - 2]) is not None:
            mode.sized(x, d, length)
    sizes = {d: x.shape[d] if n is None else n for d, n in enumerate(lengths, 2)}
    order = [0, 1, *same, *(d for d in sizes if d not in same)]
    moved = x.permute(order)
    wide = moved.flatten(1, 1 + len(same))
    for d in same:
        wide = wide.unsqueeze(d)
    out = apply(wide, [1 if d in same else n for d, n in sizes.items()])
    out = out.squeeze(same).unflatten(1, moved.shape[1 : 2 + len(same)])
    return out.permute([order.index(d) for d in range(x.ndim)]).contiguous()


def padded_sequences(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """pad_sequence(sequences, batch_first, padding_value, padding_side): each is padded by itself."""
    sequences, batch_first, value, side = stated(
        args, kwargs, sequences=(), batch_first=False, padding_value=0.0, padding_side="right"
    )
    longest = max(map(len, sequences))
    rows = []
    for t in sequences:
        missing = longest - len(t)
        rows.append(F.pad(t, (0, 0) * (t.ndim - 1) + ((missing, 0) if side == "left" else (0, missing)), value=value))
    return torch.stack(rows, 0 if batch_first else 1)


def multi_head(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """multi_head_attention_forward: heads, head size and the width of the query belong together.

    (query, key, value, embed_dim, heads, in_proj_weight, in_proj_bias, ...): embed_dim is the query's width and the
    rows of each projection; its heads keep their size.
    """
    capture = mode.capture
    query, embed, heads = args[0], args[3], args[4]
    apart = kwargs.get("use_separate_proj_weight", False)
    weights = [kwargs.get(f"{name}_proj_weight") for name in "qkv"] if apart else [args[5]]
    found = [f.ravel() for t in weights for f in capture.factors(t) if f.shape[0] > 1]
    rows = np.concatenate(found) if len(found) == len(weights) else None
    if rows is not None:
        capture.repeated = rows[: int(embed)].reshape(int(heads), -1)[:, 0]  # masks are expanded to the heads
    capture.in_place = True  # heads move into the batch, which may be as large as one is wide
    try:
        with Inside(mode):
            out = func(*args, **kwargs)
    finally:
        capture.in_place, capture.repeated = False, None
        capture.pieces.clear()
    width = capture.varying(query, query.ndim - 1)
    mode.sized(query, query.ndim - 1, embed)
    if rows is None:
        for f in [*found, *([] if width is None else [width])]:
            capture.freeze(f, "the projections of its attention stay whole")
        return out
    projections = rows.reshape(-1, int(embed))
    by_head = projections.reshape(len(projections), int(heads), -1)
    if width is None or width.size != int(embed):
        capture.freeze(rows, "the width of its attention's query stays")
        return out
    capture.labels.tie(by_head, by_head[:, :, :1])  # whole heads
    capture.labels.balance(np.concatenate([width.reshape(1, -1), projections]))
    if isinstance(heads, Size):
        capture.equate(heads.origin, Dim(by_head[:1, :, 0], 1))
    elif int(heads) > 1:
        capture.freeze(rows, LITERAL)
    return out


_T = torch.Tensor
_RANKS = {F.conv1d: 1, F.conv2d: 2, F.conv3d: 3}
_POOLS = {F.adaptive_avg_pool1d: 1, F.adaptive_avg_pool2d: 2, F.adaptive_avg_pool3d: 3}
_DROPOUT_IN_PLACE = (torch.dropout_, torch.alpha_dropout_, torch.feature_dropout_, torch.feature_alpha_dropout_)
HANDLERS: dict[Any, Handler] = {
    **dict.fromkeys((F.layer_norm, torch.layer_norm, F.rms_norm, torch.rms_norm), normalized),
    **dict.fromkeys((F.group_norm, torch.group_norm), group_normalized),
    **dict.fromkeys((*_RANKS, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), grouped),
    torch._weight_norm: weight_norm,
    F.batch_norm: batch_normalized,
    F.multi_head_attention_forward: multi_head,
    **dict.fromkeys(
        (
            F.dropout,
            F.dropout1d,
            F.dropout2d,
            F.dropout3d,
            F.alpha_dropout,
            F.feature_alpha_dropout,
            torch.dropout,
            torch.alpha_dropout,
            torch.feature_dropout,
            torch.feature_alpha_dropout,
            *_DROPOUT_IN_PLACE,
        ),
        dropout,
    ),
    F.interpolate: interpolated,
    **dict.fromkeys(_POOLS, adaptively_pooled),
    F.pad: padded,
    torch._C._nn.pad_sequence: padded_sequences,
}
