"""Where the residual width is: additions that tie what different layers made.

The *makers* of a tensor are the operations that made its channels out of the network's input: layers, and additions
that are found here. What is computed from it channel by channel, gates among them, hands them on. None: the tensor does
not depend on the network's input, as biases, masks and tables of positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from amct_pytorch.analyse.labels import Factor, dims

Makers = frozenset[int] | None


class Held(NamedTuple):
    """What a tensor holds: its labels, their makers, and its shape."""

    factors: Sequence[Factor]
    makers: Makers
    shape: tuple[int, ...]


# Operations of which the first tensor is one summand, and which of the others are the second.
SUMS = {
    **dict.fromkeys("add add_ sub sub_ rsub lerp lerp_".split(), slice(1, 2)),
    **dict.fromkeys("addcmul addcmul_ addcdiv addcdiv_".split(), slice(1, 3)),
    **dict.fromkeys("addmm addmm_ baddbmm baddbmm_ addmv addmv_".split(), None),  # a product that is made here
}


def united(makers: Iterable[Makers]) -> Makers:
    known = [m for m in makers if m is not None]
    if len(known) < 2:
        return known[0] if known else None
    return frozenset().union(*known)


def tied(name: str, tensors: Sequence[Held], product: Held) -> list[Factor]:
    """The labels in the first summand that an addition ties to others, made by other layers.

    `tensors`: those among the arguments; `product`: of a fused operation, what it adds to the first. Summands of two
    shapes are none: what is the same for all positions is a bias, though it may be computed. Labels that are the same
    already count where both summands took them from one gate, as in `t * x + (1 - t) * y`.
    """
    at = SUMS[name]
    first, rest = tensors[0], [product] if at is None else tensors[at]
    other = united(r.makers for r in rest)
    if first.makers is None or other is None or first.makers <= other or other <= first.makers:
        return []
    if first.shape != product.shape or all(r.shape != product.shape for r in rest):
        return []
    gated = not first.makers.isdisjoint(other)
    others = [g for r in rest for g in r.factors]
    return [f for f in first.factors if any(_meet(f, g) and (gated or not np.array_equal(f, g)) for g in others)]


def _meet(one: Factor, two: Factor) -> bool:
    """Whether two factors vary along a common dim."""
    return one.ndim == two.ndim and not set(dims(one)).isdisjoint(dims(two))
