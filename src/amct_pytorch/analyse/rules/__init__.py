"""How labels move through operations: one function per kind of operation, one table of all.

What is not in the table freezes the channels that reach it.
"""

from __future__ import annotations

from amct_pytorch.analyse.capture import Rule
from amct_pytorch.analyse.rules import contraction, indexing, matrices, movement, norm, pointwise, reduction, spatial

TABLE: dict[str, Rule] = {
    **pointwise.RULES,
    **movement.RULES,
    **contraction.RULES,
    **norm.RULES,
    **reduction.RULES,
    **spatial.RULES,
    **indexing.RULES,
    **matrices.RULES,
}
