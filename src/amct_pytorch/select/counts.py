"""How many units stay."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def kept_units(units: int, ratio: float, shares: int | None = None, widths: Sequence[int] = (), groups: int = 1) -> int:
    """How many of `units` stay when `ratio` of them may go.

    The ratio counts as the nearest 32-bit float, halves are rounded to even. Only whole shares go (`shares` divides
    `units`; None: every unit is one). `widths`: where alignment is asked for, the channels per unit on each producer's
    axis; what stays there is brought up to a multiple of 16 (and of `groups`, the groups of a convolution), and where
    no number of units below all gives that, none goes. At least one share stays.
    """
    shares = units if shares is None else shares
    step = units // shares
    kept = units - round(units * float(np.float32(ratio)))
    if not widths:
        return max(kept // step, 1) * step
    for share in range(max(math.ceil(kept / step), 1), shares):
        if all(share * step * width % math.lcm(16, groups) == 0 for width in widths):
            return share * step
    return units
