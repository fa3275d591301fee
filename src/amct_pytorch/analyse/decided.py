"""What values decide in a pass on real ones: the pass over the pruned model, whose values are others, goes the same
way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from amct_pytorch.analyse.running import Running
from amct_pytorch.analyse.shapes import exact
from amct_pytorch.analyse.values import flatten

Decisions = Sequence[tuple[str, list[Any]]]
_LEAVING = "values leave"


class Decided:
    """`taken`: of each operation, its key and what of its results may decide. `looked`: the modules whose code was told
    something of values."""

    def __init__(self, running: Running, then: Decisions | None = None) -> None:
        """`then`: what was decided in the pass over the original, and is decided so again."""
        self.running = running
        self.taken: list[tuple[str, list[Any]]] = []
        self.looked: set[str] = set()
        self._then = None if then is None else iter(then)

    def told(self) -> None:
        """Code learns something of values."""
        self.looked.update(self.running.looking())

    def returned(self, module: nn.Module, out: Any) -> None:
        """A module that looked at values gives something else than tensors: its caller may decide by that."""
        told = self.running.name(module) in self.looked
        if told and not all(v is None or isinstance(v, torch.Tensor) for v in flatten(out)):
            callers = (self.running.name(m) for m, _ in self.running.modules() if m is not module)
            self.looked.add(next(callers, ""))

    def leaving(self, x: torch.Tensor) -> None:
        """The values of a tensor leave the pass: those of the original's, where it is as large. What code makes of them
        (a matching by SciPy, say) decides, too."""
        self.told()
        with torch._C._DisableTorchDispatch():
            now = x.detach().clone()
            then = self.as_then(_LEAVING, now)
            if then is not now and then.shape == now.shape:
                x.detach().copy_(then)  # code may write into the memory that it gets
        self.taken.append((_LEAVING, [now]))

    def as_then(self, key: str, out: Any) -> Any:
        """The same result with the decisions of the original's pass."""
        then, decisions = ("", []) if self._then is None else next(self._then, ("", []))
        if then != key:
            return out
        found = [_as_then(o, d) for o, d in zip(flatten(out), decisions, strict=False)]
        return type(out)(found) if isinstance(out, (tuple, list)) else found[0] if found else out

    def take(
        self,
        key: str,
        tensors: Sequence[torch.Tensor],
        out: Any,
        labelled: Callable[[torch.Tensor], object],
        drawn: bool,
    ) -> None:
        """Note the results of an operation on `tensors`; `labelled`: whether one has labels; `drawn`: at random."""
        follows = not drawn and all(map(exact, tensors))  # from what was decided, or from sizes alone
        self.taken.append((key, [None if follows else _decision(o, labelled) for o in flatten(out)]))


class _OfChannels(NamedTuple):
    """A mask with an element for each channel: it is a decision where all of these stay."""

    mask: torch.Tensor


def _decision(out: Any, labelled: Callable[[torch.Tensor], object]) -> Any:
    """What may decide where the pass goes: masks, indices that are not one per channel, and numbers."""
    if not isinstance(out, torch.Tensor):
        return out if isinstance(out, (bool, int, float)) else None
    if out.is_floating_point() or not labelled(out):
        return None if out.is_floating_point() else out.clone()
    return _OfChannels(out.clone()) if out.dtype is torch.bool else None


def _as_then(now: Any, then: Any) -> Any:
    """A result as it was in the original's pass, where that was a decision."""
    if isinstance(then, _OfChannels):
        then = then.mask if then.mask.shape == now.shape else None
    if then is None:
        return now
    return then.clone() if isinstance(then, torch.Tensor) else then  # the pass may write into it
