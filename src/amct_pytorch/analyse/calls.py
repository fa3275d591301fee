"""The calls of user code that take or give sizes: what those sizes have to become.

A size with an origin gives an equation; a literal on a labelled dim means that the dim keeps its size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from amct_pytorch.analyse import labels as lb
from amct_pytorch.analyse.capture import Capture
from amct_pytorch.analyse.known import Piece, digest
from amct_pytorch.analyse.labels import index
from amct_pytorch.analyse.sizes import Dim, Expression, Size, attributes, origin
from amct_pytorch.analyse.values import flatten

LITERAL = "a size in user code without an origin"
VALUE = "its size becomes the value of a tensor"
Handler = Callable[["SizeMode", Any, tuple[Any, ...], dict[str, Any]], Any]


class SizeMode(TorchFunctionMode):
    """Gives sizes to those who ask for shapes, and sees them arrive."""

    def __init__(self, capture: Capture) -> None:
        super().__init__()
        self.capture = capture

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        handler = HANDLERS.get(func)
        self.capture.inside = True
        try:
            if handler is not None:
                return handler(self, func, args, kwargs or {})
            out = func(*args, **(kwargs or {}))
        finally:
            self.capture.inside = False
        if self.capture.pieces:
            self.settle_pieces()
        return out

    def settle_pieces(self) -> None:
        """Parts that no size of the user's says: their dims keep their size."""
        for p in self.capture.taken():
            self.drop(p, "a part is taken by a number")

    def drop(self, piece: Piece, text: str) -> None:
        self.capture.fix(piece.factor, [piece.dim], text)
        self.capture.fix_dim(piece.out, piece.dim, text)

    # what handlers use

    def sized(self, tensor: torch.Tensor, dim: int, size: Any) -> None:
        """`size` says how long a dim of `tensor` is."""
        dim %= max(tensor.ndim, 1)
        factor = self.capture.varying(tensor, dim)
        if not isinstance(size, int) or size == -1:
            return
        expression = origin(size)
        if factor is None:
            if isinstance(size, Size) and attributes(expression):
                self.capture.equate(expression, int(size))
        elif isinstance(expression, int):
            self.capture.fix_dim(tensor, dim, LITERAL)
        else:
            self.capture.equate(expression, Dim(factor, dim))

    def spread(self, out: torch.Tensor, dim: int, size: Any, new: bool = False) -> None:
        """A dim of equal elements, made out of a size: it has the labels that the size counts.

        Where an attribute, or what is computed of sizes, gives the size of a `new` tensor, it gets labels of its own,
        which are tied to what they meet.
        """
        expression = origin(size) if isinstance(size, int) else -1
        if isinstance(expression, Dim) and self.capture.varying(out, dim) is None and out.shape[dim] > 1:
            factor = expression.factor
            if factor.size == factor.shape[expression.dim]:
                labels = self.capture.labels.constant_like(factor.ravel())
                self._add(out, lb.place(labels, dim, out.ndim))
        elif isinstance(size, Size) and out.shape[dim] > 1:
            if new and self.capture.varying(out, dim) is None:
                labels = self.capture.labels.constant_like(self.capture.labels.fresh(out.shape[dim]))
                self._add(out, lb.place(labels, dim, out.ndim))
            self.sized(out, dim, size)

    def valued(self, out: torch.Tensor, data: Any) -> None:
        """`data` became the values of a tensor: sizes among it stay, and the trace check has to see all of it."""
        if isinstance(data, np.ndarray):
            self.capture.numbers(out, (digest(data),))
            return
        numbers = [v for v in flatten(data) if isinstance(v, (int, float)) and not isinstance(v, bool)]
        for v in numbers:
            if isinstance(v, Size) and isinstance(v.origin, Dim):
                self.capture.fix(v.origin.factor, [v.origin.dim], VALUE)
            elif isinstance(v, Size):
                self.capture.equate(v.origin, int(v), VALUE)
        self.capture.numbers(out, tuple(float(v) for v in numbers))

    def _add(self, out: torch.Tensor, factor: lb.Factor) -> None:
        info = self.capture.info(out)
        if info is not None:
            info.factors.append(factor)


def shape(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x.shape, x.size(), x.size(dim)"""
    found = func(*args, **kwargs)
    factors = mode.capture.factors(args[0])
    if not factors:
        return found
    if isinstance(found, int):
        dim = (args[1] if len(args) > 1 else kwargs["dim"]) % args[0].ndim
        return _size(mode, factors, dim, found)
    return torch.Size([_size(mode, factors, d, n) for d, n in enumerate(found)])


def _size(mode: SizeMode, factors: Sequence[lb.Factor], dim: int, value: int) -> int:
    for f in factors:
        if f.shape[dim] > 1:
            return Size(value, Dim(f, dim), mode.capture.compared)
    return value


def _sizes(args: tuple[Any, ...], kwargs: dict[str, Any], name: str, at: int = 1) -> Sequence[Any]:
    if name in kwargs:
        value: Any = kwargs[name]
    else:
        value = args[at:] if not (len(args) == at + 1 and isinstance(args[at], (tuple, list))) else args[at]
    return value if isinstance(value, (tuple, list)) else (value,)


def device(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x.device: where the tensor would be, so that user code takes the way that it takes with data."""
    found = func(*args, **kwargs)
    place = mode.capture.device
    return found if place is None or (found.type != "meta" and mode.capture.info(args[0]) is None) else place


def on_device(kind: str) -> Handler:
    """x.is_cuda, x.is_cpu, x.is_meta"""

    def handle(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        place = mode.capture.device
        return func(*args, **kwargs) if place is None else place.type == kind

    return handle


def finite(answer: bool) -> Handler:
    """isfinite(x) and its opposites: tensors without data count as finite."""

    def handle(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x = _input(args, kwargs)
        if not (mode.capture.shapes_only and x.is_floating_point() and x.is_meta):
            return func(*args, **kwargs)
        out = torch.full([int(n) for n in x.shape], answer)
        for f in mode.capture.factors(x):
            mode._add(out, mode.capture.labels.constant_like(f))
        return out

    return handle


def _input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    x: torch.Tensor = args[0] if args else kwargs["input"]
    return x


def view(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    out = func(*args, **kwargs)
    sizes = _sizes(args, kwargs, "shape" if "shape" in kwargs else "size")
    if len(sizes) == out.ndim:
        for d, size in enumerate(sizes):
            mode.sized(out, d, size)
    return out


def strided(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """as_strided(x, size, stride)"""
    out = func(*args, **kwargs)
    for d, size in enumerate(args[1] if len(args) > 1 else kwargs["size"]):
        mode.sized(out, d, size)
    return out


def unflatten(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    out = func(*args, **kwargs)
    dim = (args[1] if len(args) > 1 else kwargs["dim"]) % _input(args, kwargs).ndim
    for i, size in enumerate(args[2] if len(args) > 2 else kwargs["sizes"]):
        mode.sized(out, dim + i, size)
    return out


def expand(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    out, x = func(*args, **kwargs), _input(args, kwargs)
    sizes = _sizes(args, kwargs, "size")
    if len(sizes) == out.ndim:
        for d, size in enumerate(sizes):
            at = d - out.ndim + x.ndim
            if at >= 0 and x.shape[at] == out.shape[d]:
                mode.sized(out, d, size)
            else:
                mode.spread(out, d, size, new=True)
    return out


def expand_as(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    out = func(*args, **kwargs)
    like = args[1] if len(args) > 1 else kwargs["other"]
    for d, size in enumerate(shape(mode, torch.Tensor.size, (like,), {})):
        mode.spread(out, d, size)
    return out


def normalize(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """normalize(x, p, dim, eps): by its definition, so that the norm has the labels of what it is expanded to."""
    x: Any
    x, p, dim, eps = (
        args[i] if len(args) > i else kwargs.get(name, default)
        for i, (name, default) in enumerate((("input", None), ("p", 2.0), ("dim", 1), ("eps", 1e-12)))
    )
    norm = x.norm(p, dim, keepdim=True).clamp_min(eps)
    return torch.div(x, expand_as(mode, _T.expand_as, (norm, x), {}), out=kwargs.get("out"))


def repeat(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    out, x = func(*args, **kwargs), _input(args, kwargs)
    times = _sizes(args, kwargs, "repeats" if "repeats" in kwargs else "dims")
    lag = out.ndim - x.ndim
    for d, n in enumerate(times):
        if d < lag or x.shape[d - lag] == 1:
            mode.spread(out, d, n)
    return out


def factory(at: int) -> Handler:
    """zeros, ones, full, empty: (sizes...); of a tensor: x.new_zeros(sizes...)"""

    def handle(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = func(*args, **kwargs)
        plain = [a for a in args[at:] if isinstance(a, (int, tuple, list, torch.Tensor))]
        sizes = plain[0] if plain and isinstance(plain[0], (tuple, list)) else kwargs.get("size", plain)
        for d, size in enumerate(sizes if len(sizes) == out.ndim else ()):
            mode.spread(out, d, size, new=True)
        return out

    return handle


def values(at: int, name: str) -> Handler:
    """tensor(data), full_like(x, value): what is given as the values"""

    def handle(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = func(*args, **kwargs)
        mode.valued(out, args[at] if len(args) > at else kwargs.get(name))
        return out

    return handle


def numbered(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """_shape_as_tensor(x): its shape becomes the values"""
    out = func(*args, **kwargs)
    mode.valued(out, shape(mode, _T.size, (_input(args, kwargs),), {}))
    return out


def full(at: int) -> Handler:
    """full(size, value); of a tensor: x.new_full(size, value)"""
    sized = factory(at)

    def handle(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = sized(mode, func, args, kwargs)
        mode.valued(out, args[at + 1] if len(args) > at + 1 else kwargs.get("fill_value"))
        return out

    return handle


def pieces(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """split(x, size or sizes, dim): parts of one size lose equally many."""
    out = func(*args, **kwargs)
    taken = mode.capture.taken()
    sizes = args[1] if len(args) > 1 else next(v for k, v in kwargs.items() if k.startswith("split"))
    stated = list(sizes) if isinstance(sizes, (tuple, list)) else [sizes] * len(out)
    same: dict[int, list[lb.Factor]] = {}
    for p in taken:
        i = next(i for i, o in enumerate(out) if o is p.out)
        part = _part(p)
        expression = origin(stated[i])
        if isinstance(expression, int) or part.shape[p.dim] != int(stated[i]):
            mode.drop(p, LITERAL)
            continue
        mode.capture.equate(expression, Dim(part, p.dim))
        same.setdefault(int(stated[i]), []).append(part)
    for parts in same.values():
        _balance(mode, parts)
    return out


def chunk(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Equal parts stay equal."""
    out = func(*args, **kwargs)
    taken = mode.capture.taken()
    asked = args[1] if len(args) > 1 else kwargs["chunks"]
    even = len({tuple(o.shape) for o in out}) == 1 and len(out) == int(asked)
    if isinstance(asked, Size) and attributes(asked.origin):
        mode.capture.equate(asked.origin, int(asked))
    if even:
        _balance(mode, [_part(p) for p in taken])
    else:
        for p in taken:
            mode.drop(p, "unequal parts are taken of it")
    return out


def _part(piece: Piece) -> lb.Factor:
    return index(piece.factor, piece.dim, piece.start, piece.stop)


def _balance(mode: SizeMode, parts: Sequence[lb.Factor]) -> None:
    if parts and len({p.shape for p in parts}) == 1 and parts[0].size == max(parts[0].shape):
        mode.capture.labels.balance(np.stack([p.ravel() for p in parts]))


def getitem(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x[..., a:b]: the bounds count the channels before them."""
    x, key = args
    out = func(*args, **kwargs)
    if mode.capture.pieces:
        taken = mode.capture.taken()
        bounds = _bounds(key, x.ndim)
        for p in taken:
            if p.dim in bounds:
                _bounded(mode, p, *bounds[p.dim], p.factor.shape[p.dim])
            else:
                mode.drop(p, LITERAL)
    return out


def setitem(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x[..., a:b] = value: filling a part or copying into it, which says the part's size by its bounds."""
    x, key, value = args
    items = key if isinstance(key, tuple) else (key,)
    plain = all(k is None or k is Ellipsis or isinstance(k, slice) or type(k) in (int, Size) for k in items)
    if not plain or isinstance(value, bool) or not isinstance(value, (torch.Tensor, int, float)):
        return func(*args, **kwargs)
    part = getitem(mode, _T.__getitem__, (x, key), {})
    if isinstance(value, torch.Tensor):
        while value.ndim > part.ndim and value.shape[0] == 1:
            value = value.squeeze(0)
        part.copy_(value)
    else:
        part.fill_(value)
    return None


def _bounds(key: Any, ndim: int) -> dict[int, tuple[Any, Any]]:
    """The bounds of the slices of an index, by the dim of what they are applied to (indices by number take dims
    away)."""
    items = key if isinstance(key, tuple) else (key,)
    used = sum(1 for k in items if k is not None and k is not Ellipsis)
    bounds: dict[int, tuple[Any, Any]] = {}
    at = 0
    for k in items:
        if k is Ellipsis:
            at += ndim - used
        elif isinstance(k, slice):
            bounds[at] = (k.start, k.stop)
            at += 1
        elif k is None or not isinstance(k, int) or isinstance(k, bool):
            at += 1
    return bounds


def _bounded(mode: SizeMode, piece: Piece, low: Any, high: Any, whole: int) -> None:
    expressions: list[tuple[Expression, int]] = []
    for bound in (low, high):
        if bound is None or (isinstance(bound, int) and int(bound) in (0, whole) and not isinstance(bound, Size)):
            continue
        if not isinstance(bound, Size):
            mode.drop(piece, LITERAL)
            return
        at = int(bound)
        expressions.append((origin(bound), at if at >= 0 else whole + at))
        if at < 0:
            mode.drop(piece, "a part is counted from the end")
            return
    f = piece.factor
    for expression, at in expressions:
        mode.capture.equate(expression, Dim(index(f, piece.dim, 0, at), piece.dim) if at > 1 else at)
    length = piece.stop - piece.start
    if f.size == whole and length and whole % length == 0 and piece.start % length == 0:
        mode.capture.labels.balance(f.reshape(-1, length))


def narrow(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x.narrow(dim, start, length)"""
    out = func(*args, **kwargs)
    taken = mode.capture.taken()
    start = args[2] if len(args) > 2 else kwargs["start"]
    length = args[3] if len(args) > 3 else kwargs["length"]
    for p in taken:
        if isinstance(start, int) and isinstance(length, int):
            _bounded(mode, p, start, start + length, p.factor.shape[p.dim])
        else:
            mode.drop(p, LITERAL)
    return out


def normalized(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """layer_norm(x, shape) and rms_norm"""
    out = func(*args, **kwargs)
    sizes = args[1] if len(args) > 1 else kwargs["normalized_shape"]
    sizes = sizes if isinstance(sizes, (tuple, list)) else (sizes,)
    for i, size in enumerate(reversed(sizes)):
        mode.sized(_input(args, kwargs), -1 - i, size)
    return out


def weight_norm(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """_weight_norm(v, g, dim): by several operations where the dim is neither the first nor the last; what the norm is
    over stays then."""
    v, dim = args[0] if args else kwargs["v"], args[2] if len(args) > 2 else kwargs.get("dim", 0)
    if dim not in (0, v.ndim - 1):
        mode.capture.normalized(v, dim)
    return func(*args, **kwargs)


def grouped(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Convolutions: the groups of a depthwise one count its channels, those of others stay."""
    out = func(*args, **kwargs)
    groups = args[6] if len(args) > 6 else kwargs.get("groups", 1)
    if type(groups) is int and groups == 1:
        return out
    x, weight = (args[i] if len(args) > i else kwargs[name] for i, name in enumerate(("input", "weight")))
    channels = 1 if x.ndim == weight.ndim else 0
    if x.shape[channels] == int(groups):
        mode.sized(x, channels, groups)
    elif isinstance(groups, Size):
        mode.capture.equate(groups.origin, int(groups))
    return out


def group_normalized(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    out = func(*args, **kwargs)
    groups = args[1] if len(args) > 1 else kwargs["num_groups"]
    if isinstance(groups, Size):
        mode.capture.equate(groups.origin, int(groups))
    return out


def batch_normalized(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """batch_norm(input, ...): one operation, whatever kernels there are."""
    x, rest = (args[0], args[1:]) if args else (kwargs["input"], ())
    out = _batch_norm(x, *rest, **{k: v for k, v in kwargs.items() if k != "input"})
    return func(*args, **kwargs) if out is None else out  # it says what is wrong


def _batch_norm(
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
    return torch.native_batch_norm(x, weight, bias, running_mean, running_var, training, momentum, eps)[0]


def dropout(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """dropout(x, p, training, inplace), of elements or channels: they go or stay by chance, each by itself: as far as
    labels go, nothing happens."""
    x = _input(args, kwargs)
    training = args[2] if len(args) > 2 else kwargs.get("training", kwargs.get("train", True))
    if not training or not x.is_floating_point():
        return func(*args, **kwargs)
    in_place = func in _DROPOUT_IN_PLACE or (args[3] if len(args) > 3 else kwargs.get("inplace", False))
    return x if in_place else x.clone()


def padded(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """pad(x, amounts, mode): circular padding puts what is at one end of a dim before the other."""
    x, amounts = (args[i] if len(args) > i else kwargs[name] for i, name in enumerate(("input", "pad")))
    if (args[2] if len(args) > 2 else kwargs.get("mode", "constant")) != "circular" or min(amounts, default=0) < 0:
        return func(*args, **kwargs)
    for i in range(0, len(amounts), 2):
        dim, before, after = x.ndim - 1 - i // 2, int(amounts[i]), int(amounts[i + 1])
        n = x.shape[dim]
        x = torch.cat([x.narrow(dim, n - before, before), x, x.narrow(dim, 0, after)], dim)
    mode.settle_pieces()
    return x


def multi_head(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """multi_head_attention_forward: heads, head size and the width of the query belong together.

    (query, key, value, embed_dim, heads, in_proj_weight, in_proj_bias, ...): embed_dim is the query's width and the
    rows of each projection; its heads keep their size.
    """
    capture = mode.capture
    query, embed, heads = args[0], args[3], args[4]
    stated = (capture.factors(t) for t in (args[5], kwargs.get("q_proj_weight")))
    rows = next((f.ravel() for fs in stated for f in fs if f.shape[0] > 1), None)
    if rows is not None:
        capture.repeated = rows[: int(embed)].reshape(int(heads), -1)[:, 0]  # masks are expanded to the heads
    out = func(*args, **kwargs)
    capture.repeated = None
    capture.pieces.clear()
    width = capture.varying(query, query.ndim - 1)
    mode.sized(query, query.ndim - 1, embed)
    if rows is None:
        if width is not None:
            capture.fix(width, [query.ndim - 1], "the projections of its attention stay whole")
        return out
    projections = rows.reshape(-1, int(embed)) if args[5] is not None else rows.reshape(1, -1)
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


def leaving(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x.numpy(), x.tolist(): what becomes of the values cannot be followed."""
    for f in mode.capture.factors(args[0]):
        mode.capture.freeze(f, "its values leave the pass")
    return func(*args, **kwargs)


def assigned(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x.data = value: from here on x holds what the value holds; it has to hold the channels that it held."""
    x, value = args
    operands = [(t, mode.capture.factors(t)) for t in (x, value)]
    if x.shape == value.shape:
        factors = mode.capture.merge(operands, x.ndim)
        if len(factors) != len(operands[0][1]):
            mode.capture.put(x, factors)
    else:
        for f in (*operands[0][1], *operands[1][1]):
            mode.capture.freeze(f, "data of another shape are assigned")
    return func(*args, **kwargs)


_T = torch.Tensor
_DROPOUT_IN_PLACE = (torch.dropout_, torch.alpha_dropout_, torch.feature_dropout_, torch.feature_alpha_dropout_)
HANDLERS: dict[Any, Handler] = {
    _T.shape.__get__: shape,  # type: ignore[attr-defined]
    _T.size: shape,
    _T.device.__get__: device,
    _T.is_cuda.__get__: on_device("cuda"),  # type: ignore[attr-defined]
    _T.is_cpu.__get__: on_device("cpu"),  # type: ignore[attr-defined]
    _T.is_meta.__get__: on_device("meta"),  # type: ignore[attr-defined]
    **dict.fromkeys((_T.isfinite, torch.isfinite), finite(True)),
    **dict.fromkeys((_T.isnan, torch.isnan, _T.isinf, torch.isinf), finite(False)),
    **dict.fromkeys((_T.view, _T.reshape, torch.reshape), view),
    **dict.fromkeys((_T.unflatten, torch.unflatten), unflatten),
    **dict.fromkeys((_T.as_strided, torch.as_strided), strided),
    **dict.fromkeys((_T.expand, _T.broadcast_to, torch.broadcast_to), expand),
    _T.expand_as: expand_as,
    **dict.fromkeys((_T.repeat, _T.tile, torch.tile), repeat),
    **dict.fromkeys((torch.ones, torch.zeros, torch.empty), factory(0)),
    **dict.fromkeys((_T.new_ones, _T.new_zeros, _T.new_empty), factory(1)),
    torch.full: full(0),
    _T.new_full: full(1),
    **dict.fromkeys((torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor), values(0, "data")),
    torch.from_numpy: values(0, "ndarray"),
    **dict.fromkeys((_T.new_tensor, _T.new), values(1, "data")),
    torch._shape_as_tensor: numbered,
    torch.full_like: values(1, "fill_value"),
    **dict.fromkeys((_T.split, torch.split, _T.split_with_sizes, torch.split_with_sizes), pieces),
    **dict.fromkeys((_T.chunk, torch.chunk), chunk),
    _T.__getitem__: getitem,
    _T.__setitem__: setitem,
    **dict.fromkeys((_T.narrow, torch.narrow), narrow),
    **dict.fromkeys((F.layer_norm, torch.layer_norm, F.rms_norm, torch.rms_norm), normalized),
    F.normalize: normalize,
    **dict.fromkeys((F.group_norm, torch.group_norm), group_normalized),
    **dict.fromkeys(
        (F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), grouped
    ),
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
    F.pad: padded,
    **dict.fromkeys((_T.numpy, _T.__array__, _T.tolist), leaving),
    _T.data.__set__: assigned,  # type: ignore[attr-defined]
}
