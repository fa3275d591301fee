"""What an earlier pass found, for one that runs the same operations again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from amct_pytorch.analyse.known import Info, Logged
from amct_pytorch.analyse.labels import Factor


class Finding(NamedTuple):
    """What was found of an operation: its results, and which of them are pieces and of what.

    `of`: all that this depends on, its name first. `logged`: how the log has it, if it does.
    """

    of: tuple[Any, ...]
    given: tuple[Info, ...]
    pieces: list[tuple[int, Factor, int, int, int]]
    logged: Logged | None


class Earlier:
    """An earlier pass over the same model: what it found is taken over where the same operation runs again.

    `operations`: how many it logged.
    """

    def __init__(self, entered: Mapping[str, Info], found: Sequence[Finding], operations: int) -> None:
        self.entered, self.found, self.operations = entered, found, operations
        self._next = 0  # most passes run the same operations in the same order
        self._taken = [False] * len(found)
        self._places: dict[tuple[Any, ...], list[int]] | None = None

    def take(self, of: tuple[Any, ...], labelled: bool) -> Finding | None:
        """What was found of an operation, once for each time it ran; looked for out of turn where labels ride on it."""
        while self._next < len(self.found) and self._taken[self._next]:
            self._next += 1
        found = self.found[self._next] if self._next < len(self.found) else None
        at: int | None = self._next
        if found is None or found.of != of:
            if found is not None and found.of[0] == of[0]:  # this one runs in its place
                self._next += 1
                return None
            at = self._out_of_turn(of) if labelled else None
        if at is None:
            return None
        self._taken[at] = True
        self._next = at + 1
        return self.found[at]

    def _out_of_turn(self, of: tuple[Any, ...]) -> int | None:
        if self._places is None:
            self._places = {}
            for i, found in enumerate(self.found):
                self._places.setdefault(found.of, []).append(i)
        return next((i for i in self._places.get(of, ()) if not self._taken[i]), None)
