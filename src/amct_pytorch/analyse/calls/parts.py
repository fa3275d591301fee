"""Parts of tensors: the sizes and bounds that say them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from amct_pytorch.analyse import labels as lb
from amct_pytorch.analyse.calls.places import as_mask
from amct_pytorch.analyse.known import Piece
from amct_pytorch.analyse.labels import LITERAL, index
from amct_pytorch.analyse.size_mode import Handler, SizeMode
from amct_pytorch.analyse.sizes import Dim, Expression, Operation, Size, attributes


def pieces(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """split(x, size or sizes, dim): parts of one size lose equally many."""
    out = func(*args, **kwargs)
    taken = mode.capture.taken()
    sizes = args[1] if len(args) > 1 else next(v for k, v in kwargs.items() if k.startswith("split"))
    stated = list(sizes) if isinstance(sizes, (tuple, list)) else [sizes] * len(out)
    if isinstance(sizes, (tuple, list)) and len(sizes) == 1:  # all of it, of which no part is noted
        x, dim = args[0], args[2] if len(args) > 2 else kwargs.get("dim", 0)
        mode.sized(x, dim, sizes[0])
    same: dict[Expression, list[lb.Factor]] = {}
    for p in taken:
        i = next(i for i, o in enumerate(out) if o is p.out)
        part = _part(p)
        expression = mode.capture.origin(stated[i])
        alone = p.factor.size == p.factor.shape[p.dim]
        if part.shape[p.dim] != int(stated[i]) or (isinstance(expression, int) and not alone):
            mode.drop(p, LITERAL)
            continue
        if isinstance(expression, int):
            mode.capture.freeze(part.ravel(), LITERAL)
            continue
        mode.capture.equate(expression, Dim(part, p.dim))
        same.setdefault(expression, []).append(part)
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


def split_at(along: int | None) -> Handler:
    """tensor_split(x, count or bounds, dim); hsplit, vsplit and dsplit have a dim of their own, `along`"""

    def handle(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x, *given = args if args else (kwargs["input"],)
        at = given[0] if given else next((v for k, v in kwargs.items() if k not in ("input", "dim")), None)
        dim = along if along is not None else given[1] if len(given) > 1 else kwargs.get("dim", 0)
        dim = 0 if along == 1 == x.ndim else dim % x.ndim
        if isinstance(at, int) and (along is None or x.shape[dim] % int(at) == 0):
            return chunk(mode, torch.tensor_split, (x, at, dim), {})
        if not isinstance(at, (tuple, list)):
            return func(*args, **kwargs)
        bounds = zip((None, *at), (*at, None), strict=True)
        return tuple([getitem(mode, _T.__getitem__, (x, (*[_ALL] * dim, slice(*b))), {}) for b in bounds])

    return handle


def _part(piece: Piece) -> lb.Factor:
    return index(piece.factor, piece.dim, piece.start, piece.stop)


def _balance(mode: SizeMode, parts: Sequence[lb.Factor]) -> None:
    if parts and len({p.shape for p in parts}) == 1 and parts[0].size == max(parts[0].shape):
        mode.capture.labels.balance(np.stack([p.ravel() for p in parts]))


def getitem(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x[..., a:b]: the bounds count the channels before them."""
    x, key = args[0], as_mask(mode, *args)
    out = func(x, key)
    if mode.capture.pieces:
        taken = mode.capture.taken()
        bounds = _bounds(key, x.ndim)
        for p in taken:
            if p.dim in bounds:
                _bounded(mode, p, *bounds[p.dim], p.factor.shape[p.dim], last=p.out is out)
            else:
                mode.drop(p, LITERAL)
    return out


def setitem(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x[..., a:b] = value: filling a part or copying into it, which says the part's size by its bounds."""
    x, key, value = args[0], as_mask(mode, *args[:2]), args[2]
    items = key if isinstance(key, tuple) else (key,)
    plain = all(k is None or k is Ellipsis or isinstance(k, slice) or type(k) in (int, Size) for k in items)
    if not plain or isinstance(value, bool) or not isinstance(value, (torch.Tensor, int, float)):
        return func(x, key, value)
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


def _bounded(mode: SizeMode, piece: Piece, low: Any, high: Any, whole: int, last: bool = True) -> None:
    """A part is taken from `low` to `high`; `last`: of it itself, and not of another that is taken of it at once."""
    f, expressions = piece.factor, list[tuple[Expression, int]]()
    for bound in (low, high):
        whatever = isinstance(bound, int) and (int(bound) == 0 or int(bound) >= whole) and not isinstance(bound, Size)
        if bound is None or whatever:  # it is the same after the cut
            continue
        if isinstance(bound, torch.Tensor) and (said := mode.capture.size_of(bound)) is not None:
            bound = said
        source = mode.capture.origin(bound) if isinstance(bound, int) else 0
        if isinstance(source, int):
            if last and piece.stop - piece.start == 1 and not _from_both_ends(low, high):
                mode.capture.pick(piece, LITERAL, from_end=isinstance(bound, int) and bound < 0)
                return
            if not isinstance(bound, int) or f.size != whole:
                mode.drop(piece, LITERAL)
                return
            _numbered(mode, piece, int(bound))
            continue
        if bound < -whole:
            mode.drop(piece, "a part begins before the first")
            return
        if bound < 0:  # counted from the end
            expressions.append((Operation("add", Dim(f, piece.dim), source), whole + int(bound)))
        else:
            expressions.append((source, int(bound)))
    for expression, at in expressions:
        mode.capture.equate(expression, Dim(index(f, piece.dim, 0, at), piece.dim) if at > 1 else at)
    if f.size == whole and piece.start < piece.stop:
        mine = f, piece.start, _part(piece)
        _, start, part = mode.capture.sliced.setdefault((id(f), piece.stop - piece.start), mine)
        if start != piece.start:
            _balance(mode, [part, mine[-1]])


def _from_both_ends(low: Any, high: Any) -> bool:
    return isinstance(low, int) and isinstance(high, int) and (low < 0) != (high < 0)


def _numbered(mode: SizeMode, piece: Piece, bound: int) -> None:
    """A bound of a dim that is a number: as many channels stay before it, or after it where it counts from the end."""
    labels = piece.factor.ravel()
    mode.capture.freeze(labels[bound:] if bound < 0 else labels[:bound], LITERAL)


def narrow(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x.narrow(dim, start, length)"""
    out = func(*args, **kwargs)
    taken = mode.capture.taken()
    start = args[2] if len(args) > 2 else kwargs["start"]
    length = args[3] if len(args) > 3 else kwargs["length"]
    for p in taken:
        whole = p.factor.shape[p.dim]
        known = isinstance(start, int) and isinstance(length, int)
        if known and p.factor.size == whole and all(isinstance(mode.capture.origin(n), int) for n in (start, length)):
            _numbered(mode, p, int(start) if start < 0 else int(start) + int(length))
        elif known:
            stop = None if start < 0 and int(start) + int(length) == 0 else start + length
            _bounded(mode, p, start, stop, whole)
        else:
            mode.drop(p, LITERAL)
    return out


_T = torch.Tensor
_ALL = slice(None)
HANDLERS: dict[Any, Handler] = {
    **dict.fromkeys((_T.split, torch.split, _T.split_with_sizes, torch.split_with_sizes), pieces),
    **dict.fromkeys((_T.chunk, torch.chunk), chunk),
    **dict.fromkeys((_T.tensor_split, torch.tensor_split), split_at(None)),
    **dict.fromkeys((_T.vsplit, torch.vsplit), split_at(0)),
    **dict.fromkeys((_T.hsplit, torch.hsplit), split_at(1)),
    **dict.fromkeys((_T.dsplit, torch.dsplit), split_at(2)),
    _T.__getitem__: getitem,
    _T.__setitem__: setitem,
    **dict.fromkeys((_T.narrow, torch.narrow), narrow),
}
