"""Multiply-accumulates of a pass, from its operations."""

from __future__ import annotations

import math
from collections.abc import Iterable

from amct_pytorch.analyse.known import Logged


def macs(log: Iterable[Logged]) -> int:
    """Convolutions, matrix products and attention; nothing else is counted."""
    return int(sum(_one(op) * op.times for op in log))


def _one(op: Logged) -> int:
    name = op.name.removeprefix("aten.").partition(".")[0]
    shapes = op.shapes_in
    if not all(isinstance(n, int) and n >= 0 for shape in (*shapes, *op.shapes) for n in shape):
        return 0  # of a nested tensor
    if name == "convolution":
        x, w = shapes[:2]
        transposed = next((a for a in op.scalars if isinstance(a, bool)), False)
        return math.prod(x if transposed else op.shapes[0]) * math.prod(w[1:])
    if name in ("mm", "bmm", "matmul"):
        return math.prod(shapes[0]) * shapes[1][-1]
    if name in ("addmm", "baddbmm"):
        return math.prod(shapes[1]) * shapes[2][-1]
    if name == "linear":
        return math.prod(shapes[0]) * shapes[1][0]
    if name == "_trilinear":  # (.., n), (out, n, m), (.., m)
        return math.prod(shapes[0][:-1]) * math.prod(shapes[1])
    if "scaled_dot_product" in name:
        q, k, v = shapes[:3]
        return math.prod(q) * k[-2] + math.prod(op.shapes[0][:-1]) * k[-2] * v[-1]
    return 0
