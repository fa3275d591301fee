"""Products of matrices that are broadcast: what torch expands or folds by itself is done here, where labels follow."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from amct_pytorch.analyse.calls.shaping import shape, stated
from amct_pytorch.analyse.rules.contraction import UNSCALED
from amct_pytorch.analyse.size_mode import Handler, SizeMode


def matmul(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """matmul(a, b): rows are folded where one of them is a matrix; else both are expanded to the same batch."""
    if len(args) < 2 or kwargs or not all(_is_plain(t) for t in args):
        return func(*args, **kwargs)
    a, b = args if func is not _T.__rmatmul__ else args[::-1]
    if a.shape[:-2] == b.shape[:-2]:
        return _batched(mode, a, b)
    if b.ndim == 2:
        return _folded(a, b)
    if a.ndim == 2:
        return _folded(b.mT, a.mT).mT
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])  # type: ignore[no-untyped-call]
    return _batched(mode, _expanded(mode, a, b, batch), _expanded(mode, b, a, batch))


def linear(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """linear(input, weight, bias)"""
    x, weight, bias = stated(args, kwargs, input=None, weight=None, bias=None)
    out = mode.capture.at_once(torch.ops.aten.linear.default, x, weight, bias)
    return func(*args, **kwargs) if out is NotImplemented else out


def attention(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)"""
    q, k, v, mask, dropout_p, is_causal, scale, enable_gqa = stated(
        args,
        kwargs,
        query=None,
        key=None,
        value=None,
        attn_mask=None,
        dropout_p=0.0,
        is_causal=False,
        scale=None,
        enable_gqa=False,
    )
    options = {"dropout_p": dropout_p, "is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
    out = mode.capture.at_once(torch.ops.aten.scaled_dot_product_attention.default, q, k, v, mask, **options)
    if out is not NotImplemented:
        return out
    if scale is None:
        for t in (q, k):
            mode.capture.fix_dim(t, t.ndim - 1, UNSCALED)
    return func(*args, **kwargs)


class Inside(TorchFunctionMode):
    """Sees the products that torch itself calls for inside of one of its functions, and nothing else."""

    def __init__(self, mode: SizeMode) -> None:
        super().__init__()
        self.mode = mode

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        handler = _AT_ONCE.get(func)
        return func(*args, **(kwargs or {})) if handler is None else handler(self.mode, func, args, kwargs or {})


def sparse(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """sparse.mm(a, b): of a dense b, torch adds the product to zeros of its own; the same without."""
    dense = len(args) == 2 and not kwargs and args[1].layout is torch.strided
    return (torch.mm if dense else func)(*args, **kwargs)


def _batched(mode: SizeMode, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(.., m, k) by (.., k, n)"""
    out = mode.capture.at_once(torch.ops.aten.matmul.default, a, b) if a.ndim > 3 else NotImplemented
    return torch.matmul(a, b) if out is NotImplemented else out


def _is_plain(t: Any) -> bool:
    return is_dense(t) and t.ndim > 1


def is_dense(t: Any) -> bool:
    """Whether a value is a tensor of elements in memory, of a shape."""
    return isinstance(t, torch.Tensor) and t.layout is torch.strided and not t.is_nested


def _folded(rows: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """(..., m, k) by (k, n)"""
    return torch.mm(rows.reshape(-1, rows.shape[-1]), matrix).reshape(*rows.shape[:-1], matrix.shape[-1])


def _expanded(mode: SizeMode, x: torch.Tensor, other: torch.Tensor, batch: torch.Size) -> torch.Tensor:
    """x, repeated for what the batch of the other holds."""
    out = x.expand(*batch, *x.shape[-2:])
    lag = len(batch) + 2 - other.ndim
    for d, size in enumerate(shape(mode, _T.size, (other,), {})[:-2]):
        mode.spread(out, d + lag, size, new=True)
    return out


_T = torch.Tensor
_AT_ONCE: dict[Any, Handler] = {F.linear: linear, F.scaled_dot_product_attention: attention}
HANDLERS: dict[Any, Handler] = {
    **_AT_ONCE,
    **dict.fromkeys((torch.matmul, _T.matmul, _T.__matmul__, _T.__rmatmul__), matmul),
    torch.sparse.mm: sparse,
}
