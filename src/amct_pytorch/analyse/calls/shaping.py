"""Views, expansions and new tensors: what their sizes count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from amct_pytorch.analyse import labels as lb
from amct_pytorch.analyse.size_mode import Handler, SizeMode
from amct_pytorch.analyse.sizes import Dim, Size


def shape(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x.shape, x.size(), x.size(dim)"""
    found = func(*args, **kwargs)
    factors = mode.capture.factors(args[0])
    if not factors or not mode.capture.sized:
        mode.capture.positions.update([found] if isinstance(found, int) else found)
        return found
    if isinstance(found, int):
        dim = (args[1] if len(args) > 1 else kwargs["dim"]) % args[0].ndim
        return _size(mode, factors, dim, found)
    known = torch.Size([_size(mode, factors, d, n) for d, n in enumerate(found)])
    mode.capture.shapes.append(known)
    return known


def count(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x.numel(): what the shape makes"""
    x = input_of(args, kwargs)
    return math.prod(shape(mode, _T.size, (x,), {})) if mode.capture.factors(x) else func(*args, **kwargs)


def length(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """len(x), of which Python makes a plain integer"""
    found = func(*args, **kwargs)
    size = shape(mode, _T.size, (args[0], 0), {})
    if isinstance(size, Size):
        mode.capture.plain[found] = size.origin
    return found


def _size(mode: SizeMode, factors: Sequence[lb.Factor], dim: int, value: int) -> int:
    for f in factors:
        if f.shape[dim] > 1:
            return Size(value, Dim(f, dim), mode.capture.compared)
    mode.capture.positions.add(value)
    return value


def _sizes(args: tuple[Any, ...], kwargs: dict[str, Any], name: str, at: int = 1) -> Sequence[Any]:
    if name in kwargs:
        value: Any = kwargs[name]
    else:
        value = args[at:] if not (len(args) == at + 1 and isinstance(args[at], (tuple, list))) else args[at]
    return value if isinstance(value, (tuple, list)) else (value,)


def view(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    sizes = _sizes(args, kwargs, "shape" if "shape" in kwargs else "size")
    mode.capture.stated = sizes
    try:
        out = func(*args, **kwargs)
    finally:
        mode.capture.stated = ()
    if len(sizes) == out.ndim:
        for d, size in enumerate(sizes):
            mode.sized(out, d, size)
    return out


def view_as(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """view_as(x, other), reshape_as(x, other)"""
    x, other = args[0], args[1] if len(args) > 1 else kwargs["other"]
    return view(mode, _T.reshape, (x, shape(mode, _T.size, (other,), {})), {})


def strided(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """as_strided(x, size, stride)"""
    out = func(*args, **kwargs)
    for d, size in enumerate(args[1] if len(args) > 1 else kwargs["size"]):
        mode.sized(out, d, size)
    return out


def unflatten(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    out = func(*args, **kwargs)
    dim = (args[1] if len(args) > 1 else kwargs["dim"]) % input_of(args, kwargs).ndim
    for i, size in enumerate(args[2] if len(args) > 2 else kwargs["sizes"]):
        mode.sized(out, dim + i, size)
    return out


def expand(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    out, x = func(*args, **kwargs), input_of(args, kwargs)
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
    out, x = func(*args, **kwargs), input_of(args, kwargs)
    like = args[1] if len(args) > 1 else kwargs["other"]
    for d, size in enumerate(shape(mode, torch.Tensor.size, (like,), {})):
        at = d - out.ndim + x.ndim
        mode.spread(out, d, size, new=at < 0 or x.shape[at] != out.shape[d])
    return out


def normalize(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """normalize(x, p, dim, eps): by its definition, so that the norm has the labels of what it is expanded to."""
    x, p, dim, eps = stated(args, kwargs, input=None, p=2.0, dim=1, eps=1e-12)
    norm = x.norm(p, dim, keepdim=True).clamp_min(eps)
    return torch.div(x, expand_as(mode, _T.expand_as, (norm, x), {}), out=kwargs.get("out"))


def repeat(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x.repeat(times, ...): of several elements without channels, these are an expanded dim that is flattened."""
    x, times = input_of(args, kwargs), list(_sizes(args, kwargs, "repeats" if "repeats" in kwargs else "dims"))
    if func is not _T.repeat:
        times = [1] * (x.ndim - len(times)) + times
    lag = len(times) - x.ndim
    if lag < 0 or min(times) < 1:
        return func(*args, **kwargs)  # torch says what is wrong
    for d in range(x.ndim):
        if x.shape[d] > 1 and not mode.labelled(x, d):
            x = _repeated(mode, x, d, times[d + lag]).flatten(d, d + 1)
            times[d + lag] = 1
    out = func(x, times)
    for d, n in enumerate(times):
        if d < lag or x.shape[d - lag] == 1:
            mode.spread(out, d, n, new=True)
    return out


def repeat_each(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """repeat_interleave(x, repeats, dim): by the length of a dim, or by a size where there are no channels, it is an
    expanded dim that is flattened."""
    x, times, dim = stated(args, kwargs, input=None, repeats=None, dim=None)
    if dim is None or not isinstance(times, Size):
        return func(*args, **kwargs)
    dim %= x.ndim
    if mode.labelled(x, dim) and not isinstance(times.origin, Dim):
        return func(*args, **kwargs)
    return _repeated(mode, x, dim + 1, times).flatten(dim, dim + 1)


def _repeated(mode: SizeMode, x: torch.Tensor, dim: int, times: int) -> torch.Tensor:
    """x with a new dim of so many equal elements, copied as torch does."""
    sizes = [*[-1] * dim, times, *[-1] * (x.ndim - dim)]
    repeated: torch.Tensor = expand(mode, _T.expand, (x.unsqueeze(dim), *sizes), {})
    return repeated.clone(memory_format=torch.contiguous_format)


def factory(at: int) -> Handler:
    """zeros, ones, full, empty: (sizes...); of a tensor: x.new_zeros(sizes...)"""

    def handle(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = func(*args, **kwargs)
        if kwargs.get("generator") is not None:  # the same numbers in each pass, which differ between channels
            return out
        plain = [a for a in args[at:] if isinstance(a, (int, tuple, list, torch.Tensor))]
        sizes = plain[0] if plain and isinstance(plain[0], (tuple, list)) else kwargs.get("size", plain)
        for d, size in enumerate(sizes if len(sizes) == out.ndim else ()):
            mode.spread(out, d, size, new=True)
        return out

    return handle


def stated(args: tuple[Any, ...], kwargs: dict[str, Any], **defaults: Any) -> list[Any]:
    """The arguments of a call, by position or by name, in the order of their `defaults`."""
    return [args[i] if len(args) > i else kwargs.get(name, of) for i, (name, of) in enumerate(defaults.items())]


def input_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    x: torch.Tensor = args[0] if args else kwargs["input"]
    return x


_T = torch.Tensor
HANDLERS: dict[Any, Handler] = {
    _T.shape.__get__: shape,  # type: ignore[attr-defined]
    _T.size: shape,
    _T.__len__: length,
    **dict.fromkeys((_T.numel, _T.nelement, torch.numel), count),
    **dict.fromkeys((_T.view, _T.reshape, torch.reshape), view),
    **dict.fromkeys((_T.unflatten, torch.unflatten), unflatten),
    **dict.fromkeys((_T.as_strided, torch.as_strided), strided),
    **dict.fromkeys((_T.expand, _T.broadcast_to, torch.broadcast_to), expand),
    _T.expand_as: expand_as,
    **dict.fromkeys((_T.view_as, _T.reshape_as), view_as),
    **dict.fromkeys((_T.repeat, _T.tile, torch.tile), repeat),
    **dict.fromkeys((_T.repeat_interleave, torch.repeat_interleave), repeat_each),
    **dict.fromkeys((torch.ones, torch.zeros, torch.empty, torch.rand, torch.randn), factory(0)),
    **dict.fromkeys((_T.new_ones, _T.new_zeros, _T.new_empty), factory(1)),
    F.normalize: normalize,
}
