"""How many units stay."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def kept_units(
    units: int,
    ratio: float,
    shares: int | None = None,
    widths: Sequence[int] = (),
    groups: int = 1,
    rows: bool = True,
) -> int:
    """How many of `units` stay when `ratio` of them may go.

    The ratio counts as the nearest 32-bit float, halves are rounded to even. Only whole shares go (`shares` divides
    `units`; None: every unit is one): where `rows` lose equally many, as the groups of a convolution do, what stays is
    rounded down, as AMCT does; else, as heads that are coupled to a width, the ratio is one of shares. `widths`: where
    alignment is asked for, the channels per unit on each producer's axis; what stays there is brought up to a multiple
    of 16 (and of `groups`, the groups of a convolution), and where no number of units below all gives that, none goes.
    At least one share stays.
    """
    shares = units if shares is None else shares
    step = units // shares
    kept = units - round(units * float(np.float32(ratio)))
    if not widths:
        left = kept // step if rows else shares - round(shares * float(np.float32(ratio)))
        return max(left, 1) * step
    for share in range(max(math.ceil(kept / step), 1), shares):
        if all(share * step * width % math.lcm(16, groups) == 0 for width in widths):
            return share * step
    return units
