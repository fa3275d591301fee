"""Products of tensors by an equation, by operations that are the same where a dim has one element."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import torch

from amct_pytorch.analyse.calls.products import is_dense
from amct_pytorch.analyse.size_mode import Handler, SizeMode


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
    if len(terms) != len(operands) or not all(is_dense(t) for t in operands):
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


_TERM = re.compile(r"[a-zA-Z]*(\.\.\.[a-zA-Z]*)?")
HANDLERS: dict[Any, Handler] = {torch.functional.einsum: einsum}
