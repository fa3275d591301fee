"""`x[torch.where(mask)]`: the indices of where a mask holds, which say what the mask itself says."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from amct_pytorch.analyse.size_mode import Handler, SizeMode


class Places(NamedTuple):
    """The indices of where a mask held, dim by dim, the mask, and as what both were written: they may be since."""

    indices: tuple[torch.Tensor, ...]
    mask: torch.Tensor
    versions: tuple[int, ...]


def where(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """torch.where(mask), and nonzero(mask, as_tuple=True)"""
    out = func(*args, **kwargs)
    mask = args[0] if args else next(iter(kwargs.values()))
    if isinstance(out, tuple) and out and mask.dtype is torch.bool and mask.ndim:  # a number alone is one row
        mode.places[id(out[0])] = Places(out, mask, _versions(out, mask))
    return out


def _versions(indices: tuple[torch.Tensor, ...], mask: torch.Tensor) -> tuple[int, ...]:
    return tuple([t._version for t in (*indices, mask)])


def as_mask(mode: SizeMode, x: torch.Tensor, key: Any) -> Any:
    """The mask in the place of all of its indices, in their order, where it has the shape of the first dims of x."""
    if not isinstance(key, tuple) or not key or (found := mode.places.get(id(key[0]))) is None:
        return key
    same = len(key) == len(found.indices) and all(a is b for a, b in zip(key, found.indices, strict=True))
    unwritten = _versions(found.indices, found.mask) == found.versions
    return found.mask if same and unwritten and found.mask.shape == x.shape[: found.mask.ndim] else key


HANDLERS: dict[Any, Handler] = dict.fromkeys((torch.where, torch.nonzero, torch.Tensor.nonzero), where)
