"""Products of matrices that are broadcast: what torch expands or folds by itself is done here, where labels follow."""

from __future__ import annotations

from typing import Any

import torch

from amct_pytorch.analyse.calls.shaping import shape
from amct_pytorch.analyse.size_mode import Handler, SizeMode


def matmul(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """matmul(a, b): rows are folded where one of them is a matrix; else both are expanded to the same batch."""
    if len(args) < 2 or kwargs or not all(_is_plain(t) for t in args) or args[0].shape[:-2] == args[1].shape[:-2]:
        return func(*args, **kwargs)
    a, b = args if func is not _T.__rmatmul__ else args[::-1]
    if b.ndim == 2:
        return _folded(a, b)
    if a.ndim == 2:
        return _folded(b.mT, a.mT).mT
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])  # type: ignore[no-untyped-call]
    return torch.matmul(_expanded(mode, a, b, batch), _expanded(mode, b, a, batch))


def _is_plain(t: Any) -> bool:
    return isinstance(t, torch.Tensor) and t.layout is torch.strided and not t.is_nested and t.ndim > 1


def _folded(rows: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """(..., m, k) by (k, n)"""
    return torch.mm(rows.reshape(-1, rows.shape[-1]), matrix).reshape(*rows.shape[:-1], matrix.shape[-1])


def _expanded(mode: SizeMode, x: torch.Tensor, other: torch.Tensor, batch: torch.Size) -> torch.Tensor:
    """x, repeated for what the batch of the other holds."""
    out = x.expand(*batch, *x.shape[-2:])
    lag = len(batch) + 2 - other.ndim
    for d, size in enumerate(shape(mode, _T.size, (other,), {})[:-2]):
        mode.spread(out, d + lag, size)
    return out


_T = torch.Tensor
HANDLERS: dict[Any, Handler] = dict.fromkeys((torch.matmul, _T.matmul, _T.__matmul__, _T.__rmatmul__), matmul)
