"""The check of one operation of the original, whose labels are known, beside its counterpart after the cut."""

from __future__ import annotations

from typing import Any

from amct_pytorch.analyse.known import RAGGED, Call, Logged
from amct_pytorch.analyse.labels import Factor, Mask
from amct_pytorch.verify.kinds import kind_of, wrong
from amct_pytorch.verify.moves import Moves


class Verifier(Moves):
    """Shows of each operation that its labels are right, once."""

    def __init__(self, unit: Factor, active: Mask, keep: Mask) -> None:
        super().__init__(unit, active, keep)
        self._right: set[tuple[Any, ...]] = set()  # operations that were shown already
        self._shown: dict[int, Logged] = {}  # by identity

    def difference(self, call: Call, a: Logged) -> str:
        """What is wrong about the labels of `a`, an operation of the original, whose counterpart after the cut is
        `call`; empty where nothing is."""
        if id(a) in self._shown or not any(info.factors for info in (*a.ins, *a.outs)):
            return ""
        if any(info.picked for info in a.outs):  # another channel is picked then: none stays for it, or none is used
            return ""
        same = (a.name, a.scalars, a.shapes, a.shapes_in, *[id(info.like or info) for info in (*a.ins, *a.outs)])
        if same not in self._right:
            kind = kind_of(call.func, call.name)
            if RAGGED not in (*a.shapes, *a.shapes_in) and not kind(self, call, a):
                return wrong(call.name)
            self._right.add(same)
        self._shown[id(a)] = a
        return ""
