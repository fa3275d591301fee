"""Which 2 of every 4 weights stay: a pure function of the weight, and masks as packed bits.

A weight stays when it beats at least two of the three others of its group of four, so six comparisons decide and
nothing is sorted. How that is spelt decides the speed (benchmarks/masks.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch._guards import active_fake_mode

from amct_pytorch.errors import ModelError

Array = Any  # numpy's

_BLOCK = 2**18  # elements that are worked on at once, so that what comes in between stays in the cache
_GATHER = -0x7FBFDFEFF7FBFDFF  # 0x8040201008040201 as int64: brings the lowest bit of each of 8 bytes into the top one
_SPREAD = 0x0101010101010101
_SINGLE = 0x0102040810204080  # bit 7 in the first byte of a little-endian word, bit 0 in the last


def mask_2to4(weight: torch.Tensor, dim: int = 1) -> torch.Tensor:
    """The 2:4 mask of a weight: True for the 2 largest magnitudes of every 4 consecutive elements along `dim`.

    `weight` is a floating-point tensor of any shape; `dim` is its input-channel axis: 1 for linear and convolution
    layers, 0 for transposed convolutions. The result is a bool tensor of the same shape. Equal magnitudes: the lower
    index stays. A short last group counts as if zeros followed it, so of one or two elements all stay and of three
    two. The same rule as in AMCT and in Mishra et al. 2021, "Accelerating Sparse Deep Neural Networks".

    A weight with NaN is a `ModelError` (under `torch.compile` there is no such check), as is a tensor without `dim` or
    with integers.
    """
    if not isinstance(weight, torch.Tensor):
        raise ModelError(f"mask_2to4: expected a floating-point tensor, got a {type(weight).__name__}")
    if not weight.is_floating_point() or not -weight.dim() <= dim < weight.dim():
        raise ModelError(
            f"mask_2to4: expected a floating-point weight with a dimension {dim}, got {weight.dtype} of shape "
            f"{tuple(weight.shape)}; dim is the input-channel axis"
        )
    if not torch.compiler.is_compiling() and has_nan(weight):
        raise ModelError("mask_2to4: the weight holds NaN, which has no rank among magnitudes; mend the weight first")
    return choose(weight, dim)


def has_nan(weight: torch.Tensor) -> bool:
    """Whether a weight holds NaN. The sum is looked at first: reading it is the whole cost of the usual answer."""
    weight = weight.detach()
    return bool(weight.sum().isnan()) and bool(weight.isnan().any())


def is_finite(weight: torch.Tensor) -> bool:
    """Whether a weight holds neither NaN nor infinities; as `has_nan`."""
    weight = weight.detach()
    return bool(weight.sum().isfinite()) or bool(weight.isfinite().all())


@torch.no_grad()
def choose(weight: torch.Tensor, dim: int, groups: int = 1) -> torch.Tensor:
    """`mask_2to4` without a look for NaN. With `groups`, dimension 0 holds that many groups of own channels."""
    if groups > 1 and dim == 0:
        return choose(weight.reshape(groups, -1, *weight.shape[1:]), 1).flatten(0, 1)
    if torch.compiler.is_compiling():
        return _choose_traced(weight, dim % weight.dim())
    mask = torch.empty(weight.shape, dtype=torch.bool, device=weight.device)
    rows, kept = (_rows_first(tensor, dim % weight.dim()) for tensor in (weight, mask))
    step = max(1, _BLOCK * rows.shape[0] // max(1, weight.numel())) if weight.device.type == "cpu" else len(rows)
    for start in range(0, rows.shape[0], max(1, step)):
        _choose_rows(rows[start : start + step], kept[start : start + step])
    return mask


def is_2to4(bits: torch.Tensor, shape: Sequence[int], dim: int, groups: int = 1) -> bool:
    """Whether the mask that `pack` made `bits` of keeps at most 2 of every 4 along `dim`; `groups` as in `choose`.

    Looked at as it is packed, 64 weights per step: the bits are shifted so that the four of a group come together.
    """
    length, step = shape[dim] // (groups if dim == 0 else 1), math.prod(shape[dim + 1 :])
    a = _words(bits.cpu().numpy())
    b, c, d = (_shifted(a, step * place) for place in (1, 2, 3))
    places, whole = np.arange(length), length // 4 * 4
    first_of_four = (places % 4 == 0) & (places < whole)
    wrong = (a & b & (c | d) | (a | b) & c & d) & _repeated(first_of_four, step, len(a))
    if length - whole == 3:
        wrong |= a & b & c & _repeated(places == whole, step, len(a))
    return not wrong.any()


def pack(mask: torch.Tensor) -> torch.Tensor:
    """A bool tensor as bits: uint8, one dimension, C order, the most significant bit first, zeros at the end."""
    flat = mask.contiguous().view(torch.uint8).flatten()
    words = torch.nn.functional.pad(flat, (0, -flat.numel() % 8)).view(torch.int64)
    return ((words * _GATHER) >> 56).to(torch.uint8)


def unpack(bits: torch.Tensor, shape: Sequence[int], dtype: torch.dtype = torch.bool) -> torch.Tensor:
    """The mask that `pack` made `bits` of, as zeros and ones of `dtype`."""
    words = (bits.to(torch.int64) * _SPREAD) & _SINGLE
    flat = words.view(torch.uint8) != 0
    return flat[: torch.Size(shape).numel()].view(*shape).to(dtype)


def unpack_here(bits: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """`unpack` into bools, outside of compiled code: of bits with values on the CPU in a tenth of the time."""
    if bits.device.type != "cpu" or active_fake_mode():
        return unpack(bits, shape)
    return torch.from_numpy(np.unpackbits(bits.numpy(), count=math.prod(shape)).view(np.bool_)).view(*shape)


def packed_size(shape: Sequence[int]) -> int:
    """How many bytes `pack` makes of a mask of this shape."""
    return -(-torch.Size(shape).numel() // 8)


def _words(bits: Array) -> Array:
    """Packed bits in words of 64, the first bit the most significant."""
    return _padded(bits, -len(bits) % 8).view(">u8").astype(np.uint64)


def _padded(array: Array, by: int) -> Array:
    return np.concatenate((array, np.zeros(by, array.dtype)))  # np.pad takes longer than all that is done with it


def _shifted(words: Array, by: int) -> Array:
    """Each bit `by` places further to the front."""
    whole, rest = divmod(by, 64)
    moved = _padded(words[whole:], min(whole, len(words)) + 1)
    return moved[:-1] << rest | moved[1:] >> 64 - rest if rest else moved[:-1]


def _repeated(places: Array, step: int, size: int) -> Array:
    """`size` words that say of each bit whether its place along an axis, where each has `step` bits, is in `places`."""
    period = np.tile(np.repeat(places, step), 64 // math.gcd(len(places) * step, 64))  # ends with a word
    words = _words(np.packbits(period))
    return np.tile(words, -(-size // len(words)))[:size]


def _rows_first(tensor: torch.Tensor, dim: int) -> torch.Tensor:
    """A view with the axis that can be cut into blocks first and `dim` second."""
    if tensor.dim() == 1:
        return tensor.unsqueeze(0)
    return tensor.movedim((1 if dim == 0 else 0, dim), (0, 1))


def _choose_rows(rows: torch.Tensor, kept: torch.Tensor) -> None:
    """Fill `kept` for the groups along dimension 1."""
    whole = rows.shape[1] // 4 * 4
    a, b, c, d = (rows[:, place:whole:4].abs() for place in range(4))
    for place, keep in enumerate(_top_two(a, b, c, d, _at_least)):
        kept[:, place:whole:4] = keep
    kept[:, whole:] = True
    if rows.shape[1] - whole == 3:
        for place, keep in enumerate(_top_two_of_three(*rows[:, whole:].abs().unbind(1))):
            kept[:, whole + place] = keep


def _choose_traced(weight: torch.Tensor, dim: int) -> torch.Tensor:
    """The same as one expression, for a compiler to fuse."""
    whole = weight.shape[dim] // 4 * 4
    fours = weight.narrow(dim, 0, whole).unflatten(dim, (whole // 4, 4))  # type: ignore[no-untyped-call]
    a, b, c, d = fours.abs().unbind(dim + 1)
    parts = [torch.stack(_top_two(a, b, c, d), dim + 1).flatten(dim, dim + 1)]
    short = weight.narrow(dim, whole, weight.shape[dim] - whole)
    if short.shape[dim] == 3:
        parts.append(torch.stack(_top_two_of_three(*short.abs().unbind(dim)), dim))
    elif short.shape[dim]:
        parts.append(torch.ones_like(short, dtype=torch.bool))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _at_least(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """`left >= right` in two vectorized steps: a comparison into bools is scalar in torch 2.13, and twice as slow."""
    return torch.ge(left, right, out=torch.empty_like(left)).bool()


def _top_two(
    a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, d: torch.Tensor, at_least: Callable[..., torch.Tensor] = torch.ge
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Which two of four magnitudes are the largest, the earlier one of equals."""
    ab, ac, ad = at_least(a, b), at_least(a, c), at_least(a, d)
    bc, bd, cd = at_least(b, c), at_least(b, d), at_least(c, d)
    first = _two_of(ab, ac, ad)
    second = _two_of(~ab, bc, bd)
    third = ~_two_of(ac, bc, ~cd)
    return first, second, third, first ^ second ^ third  # two stay: the fourth makes the count even


def _top_two_of_three(
    a: torch.Tensor, b: torch.Tensor, c: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    ab, ac, bc = a >= b, a >= c, b >= c
    return ab | ac, ~ab | bc, ~(ac & bc)


def _two_of(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    return (x & y).logical_or_((x | y).logical_and_(z))
