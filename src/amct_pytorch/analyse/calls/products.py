"""Products of matrices that are broadcast: what torch expands or folds by itself is done here, where labels follow."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
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


def einsum(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """einsum(equation, operands): one after the other, by operations that are the same where a dim has one element,
    which torch's own leave out, or choose an order by."""
    equation, *operands = args
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = list(operands[0])
    found = _letters(equation, operands) if isinstance(equation, str) and len(operands) > 1 else None
    if found is None or kwargs:
        return func(*args, **kwargs)
    inputs, output = found
    operands, inputs = _narrowed(mode, operands, inputs)
    sizes: dict[str, int] = {}
    if any(sizes.setdefault(c, n) != n for of, t in zip(inputs, operands, strict=True) for c, n in _named(of, t)):
        return func(*args, **kwargs)
    out, letters = operands[0], inputs[0]
    for i in range(1, len(operands)):
        needed = {*output, *(letter for later in inputs[i + 1 :] for letter in later)}
        out, letters = _product(out, letters, operands[i], inputs[i], needed)
    return out.permute([letters.index(letter) for letter in output])


def _letters(equation: str, operands: list[Any]) -> tuple[list[list[str]], list[str]] | None:
    """The letters of each operand and of the output, of dots one for each dim that they stand for; None where torch has
    to see to it: a diagonal, types that only a pointwise product takes, what is wrong."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(operands) or not all(_is_dense(t) for t in operands):
        return None
    if len({t.dtype for t in operands}) > 1 or operands[0].dtype is torch.bool:
        return None
    if not all(_TERM.fullmatch(term) for term in (*terms, right)):
        return None
    dots = {t.ndim - len(term) + 3 for term, t in zip(terms, operands, strict=True) if "..." in term}
    if len(dots) > 1 or min(dots, default=0) < 0:
        return None
    wide = [f".{d}" for d in range(next(iter(dots), 0))]
    inputs = [_spelled(term, wide) for term in terms]
    once = [letter for letter in sorted({*left} - {*",."}) if left.count(letter) == 1]
    output = _spelled(right, wide) if arrow else [*wide, *once]
    if any(len(set(term)) < len(term) or len(term) != t.ndim for term, t in zip(inputs, operands, strict=True)):
        return None
    known = {letter for term in inputs for letter in term}
    return (inputs, output) if len(set(output)) == len(output) and known >= {*output} else None


def _narrowed(
    mode: SizeMode, operands: list[torch.Tensor], inputs: list[list[str]]
) -> tuple[list[torch.Tensor], list[list[str]]]:
    """The operands without dims of one element, and no channels, that stand for all of another's."""
    wide = {
        c
        for of, t in zip(inputs, operands, strict=True)
        for d, (c, n) in enumerate(_named(of, t))
        if n > 1 or mode.labelled(t, d)
    }
    found, letters = [], []
    for of, t in zip(inputs, operands, strict=True):
        lost = [d for d, (c, n) in enumerate(_named(of, t)) if n == 1 and c in wide and not mode.labelled(t, d)]
        found.append(t.squeeze(lost) if lost else t)
        letters.append([c for d, c in enumerate(of) if d not in lost])
    return found, letters


def _named(letters: list[str], t: torch.Tensor) -> Iterator[tuple[str, int]]:
    return zip(letters, t.shape, strict=True)


def _spelled(term: str, wide: list[str]) -> list[str]:
    before, dots, after = term.partition("...")
    return [*before, *(wide if dots else []), *after]


def _is_dense(t: Any) -> bool:
    return isinstance(t, torch.Tensor) and t.layout is torch.strided and not t.is_nested


def _product(
    a: torch.Tensor, of_a: list[str], b: torch.Tensor, of_b: list[str], needed: set[str]
) -> tuple[torch.Tensor, list[str]]:
    """The product of two tensors with named dims, without those that are not needed; and its dims."""
    a, of_a = _without(a, of_a, {*of_b} | needed)
    b, of_b = _without(b, of_b, {*of_a} | needed)
    batch = [letter for letter in of_a if letter in of_b and letter in needed]
    summed = [letter for letter in of_a if letter in of_b and letter not in needed]
    rows = [letter for letter in of_a if letter not in of_b]
    columns = [letter for letter in of_b if letter not in of_a]
    sizes = {**dict(zip(of_a, a.shape, strict=True)), **dict(zip(of_b, b.shape, strict=True))}
    a = a.permute([of_a.index(letter) for letter in (*batch, *rows, *summed)])
    b = b.permute([of_b.index(letter) for letter in (*batch, *summed, *columns)])
    if not summed:
        return a[(..., *[None] * len(columns))] * _opened(b, len(batch), len(rows)), [*batch, *rows, *columns]
    shape = [math.prod(sizes[letter] for letter in part) for part in (batch, rows, summed, columns)]
    a, b = a.reshape(shape[0], shape[1], shape[2]), b.reshape(shape[0], shape[2], shape[3])
    out = torch.bmm(a, b) if batch else torch.mm(a[0], b[0])
    return out.reshape([sizes[letter] for letter in (*batch, *rows, *columns)]), [*batch, *rows, *columns]


def _without(t: torch.Tensor, letters: list[str], kept: set[str]) -> tuple[torch.Tensor, list[str]]:
    """Summed over what nothing else has."""
    dims = [d for d, letter in enumerate(letters) if letter not in kept]
    return (t.sum(dims) if dims else t), [letter for letter in letters if letter in kept]


def _opened(t: torch.Tensor, at: int, dims: int) -> torch.Tensor:
    """With dims of one element at a place."""
    return t[(*[slice(None)] * at, *[None] * dims)]


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


_TERM = re.compile(r"[a-zA-Z]*(\.\.\.[a-zA-Z]*)?")
_T = torch.Tensor
_AT_ONCE: dict[Any, Handler] = {F.linear: linear, F.scaled_dot_product_attention: attention}
HANDLERS: dict[Any, Handler] = {
    **_AT_ONCE,
    **dict.fromkeys((torch.matmul, _T.matmul, _T.__matmul__, _T.__rmatmul__), matmul),
    torch.sparse.mm: sparse,
    torch.functional.einsum: einsum,
}
