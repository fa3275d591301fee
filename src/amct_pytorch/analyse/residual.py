"""Where the residual width is: additions that tie what different layers made.

The *makers* of a tensor are the operations that made its channels out of the network's input: layers, and additions
that are found here. What is computed from it channel by channel, gates among them, hands them on. None: the tensor does
not depend on the network's input, as biases and tables of positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from amct_pytorch.analyse.labels import Factor, dims

Makers = frozenset[int] | None


class Held(NamedTuple):
    """What a tensor, or a summand, holds: its labels, their makers, and its shape."""

    factors: Sequence[Factor]
    makers: Makers
    shape: tuple[int, ...]


# The first tensor is one summand; which of the others are the second.
SUMS = {
    **dict.fromkeys("add add_ sub sub_ rsub lerp lerp_".split(), slice(1, 2)),
    **dict.fromkeys("addcmul addcmul_ addcdiv addcdiv_".split(), slice(1, 3)),
}
FUSED = frozenset("addmm addmm_ baddbmm baddbmm_".split())  # the second is the product of the other two
PRODUCTS = frozenset("mm bmm matmul linear".split())


def handed_on(name: str) -> bool:
    """Whether a result simply has the makers of the arguments, or is made by the operation."""
    return not (name in SUMS or name in FUSED or name in PRODUCTS or "scaled_dot_product" in name)


def follow(name: str, tensors: Sequence[Held], out: Held, itself: Makers) -> tuple[Makers, list[Factor]]:
    """The makers of a result; and the labels that the operation ties, where it adds what different layers made.

    `tensors`: those among the arguments, before the call. `out.makers`: the operation, `itself`, if it makes channels.
    """
    summands = _summands(name, tensors, out)
    tied = _tied(summands[0], summands[1], out.shape) if len(summands) == 2 else []
    return (itself if tied else united(s.makers for s in summands)), tied


def _summands(name: str, tensors: Sequence[Held], out: Held) -> list[Held]:
    """What an operation adds: two summands, or one where it is no addition of tensors."""
    if name in FUSED:
        return [tensors[0], out._replace(makers=_result("bmm", tensors[1:], out.makers))]
    rest = tensors[SUMS[name]] if name in SUMS else ()
    if not rest:
        return [out._replace(makers=_result(name, tensors, out.makers))]
    shape = out.shape if any(r.shape == out.shape for r in rest) else rest[0].shape
    return [tensors[0], Held([f for r in rest for f in r.factors], united(r.makers for r in rest), shape)]


def _result(name: str, tensors: Sequence[Held], made: Makers) -> Makers:
    """A product of activations has the channels along its rows and columns; what it sums over is gone. So the scores of
    attention have no makers, and what attention gives has those of the values.
    """
    makers = united(t.makers for t in tensors)
    if makers is None or made is not None:
        return None if makers is None else made
    if name in PRODUCTS:
        of_rows, of_columns = (slice(0, -1), slice(0, 1)) if name == "linear" else (slice(-2, -1), slice(-1, None))
        sides = zip(tensors[:2], (of_rows, of_columns), strict=True)
        return united(t.makers for t, own in sides if any(max(f.shape[own]) > 1 for f in t.factors)) or frozenset()
    if "scaled_dot_product" in name:
        return tensors[2].makers or frozenset()
    return makers


def united(makers: Iterable[Makers]) -> Makers:
    known = [m for m in makers if m is not None]
    if len(known) < 2:
        return known[0] if known else None
    return frozenset().union(*known)


def _tied(one: Held, two: Held, shape: tuple[int, ...]) -> list[Factor]:
    """The labels of one summand that an addition ties to those of another, which other layers made.

    Summands of two shapes are none: what is the same for all positions is a bias, though it may be computed. Labels
    that are the same already count where both summands took them from one gate, as in `t * x + (1 - t) * y`.
    """
    if one.makers is None or two.makers is None or one.makers <= two.makers or two.makers <= one.makers:
        return []
    if not one.shape == two.shape == shape:
        return []
    gated = not one.makers.isdisjoint(two.makers)
    return [f for f in one.factors if any(_meet(f, g) and (gated or not np.array_equal(f, g)) for g in two.factors)]


def _meet(one: Factor, two: Factor) -> bool:
    """Whether two factors vary along a common dim."""
    return one.ndim == two.ndim and not set(dims(one)).isdisjoint(dims(two))
