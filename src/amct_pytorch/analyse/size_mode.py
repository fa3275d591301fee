"""The mode that sees the calls of user code that take or give sizes.

A size with an origin gives an equation; a literal on a labelled dim means that the dim keeps its size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from amct_pytorch.analyse import labels as lb
from amct_pytorch.analyse.capture import Capture
from amct_pytorch.analyse.known import Piece, digest
from amct_pytorch.analyse.labels import LITERAL, SWAPPED
from amct_pytorch.analyse.sizes import VALUE, Dim, Expression, Size, attributes, origin
from amct_pytorch.analyse.values import flatten

Handler = Callable[["SizeMode", Any, tuple[Any, ...], dict[str, Any]], Any]


class SizeMode(TorchFunctionMode):
    """Gives sizes to those who ask for shapes, and sees them arrive. `handlers`: what to do about each call."""

    def __init__(self, capture: Capture, handlers: Mapping[Any, Handler]) -> None:
        super().__init__()
        self.capture = capture
        self.handlers = handlers
        self.places: dict[int, Any] = {}  # of masks, by the identity of the first index

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        handler = self.handlers.get(func)
        self.capture.inside = True
        try:
            if handler is not None:
                return handler(self, func, args, kwargs or {})
            out = func(*args, **(kwargs or {}))
        finally:
            self.capture.inside = False
        if self.capture.pieces:
            self.settle_pieces()
        return out

    def settle_pieces(self) -> None:
        """Parts that no size of the user's says: their dims keep their size."""
        for p in self.capture.taken():
            self.drop(p, "a part is taken by a number")

    def drop(self, piece: Piece, text: str) -> None:
        self.capture.fix(piece.factor, [piece.dim], text)
        self.capture.fix_dim(piece.out, piece.dim, text)

    # what handlers use

    def labelled(self, tensor: torch.Tensor, dim: int) -> bool:
        """Whether channels lie along a dim, in the pass over the original or the one beside it."""
        return bool(self._along(tensor, dim))

    def alone(self, tensor: torch.Tensor, dim: int) -> bool:
        """Whether channels lie along a dim, and depend on no other."""
        found = self._along(tensor, dim)
        return bool(found) and all(f.size == f.shape[dim] for f in found)

    def _along(self, tensor: torch.Tensor, dim: int) -> list[lb.Factor]:
        info = self.capture.info(tensor)
        return [] if info is None else [f for f in info.factors if f.shape[dim] > 1]

    def sized(self, tensor: torch.Tensor, dim: int, size: Any) -> None:
        """`size` says how long a dim of `tensor` is."""
        dim %= max(tensor.ndim, 1)
        factor = self.capture.varying(tensor, dim)
        if not isinstance(size, int) or size == -1:
            return
        if factor is None:
            if isinstance(size, Size) and attributes(size.origin):
                self.capture.equate(size.origin, int(size))
            return
        expression = self.capture.origin(size)
        if isinstance(expression, int):
            expression = self.capture.product(expression, factor)
        if isinstance(expression, int):
            by_positions = expression in self.capture.positions and not self.capture.running.states(expression, True)
            if len(lb.dims(factor)) > 1 and by_positions:
                self.capture.freeze(factor, SWAPPED)
            self.capture.fix_dim(tensor, dim, LITERAL)
        else:
            self.capture.equate(expression, Dim(factor, dim))

    def spread(self, out: torch.Tensor, dim: int, size: Any, new: bool = False) -> None:
        """A dim of equal elements, made out of a size: it has the labels that the size counts.

        Where an attribute, what is computed of sizes, or one dim of a joint factor gives the size of a `new` tensor,
        it gets labels of its own, which are tied to what they meet.
        """
        bare = out.shape[dim] > 1 and self.capture.varying(out, dim) is None
        factor = self._counted(origin(size)) if isinstance(size, int) else None
        if factor is not None:
            if bare:
                self._add(out, lb.place(self.capture.labels.constant_like(factor), dim, out.ndim))
        elif isinstance(size, Size) and out.shape[dim] > 1:
            if new and bare:
                labels = self.capture.labels.constant_like(self.capture.labels.fresh(out.shape[dim]))
                self._add(out, lb.place(labels, dim, out.ndim))
            self.sized(out, dim, size)

    def _counted(self, expression: Expression) -> lb.Factor | None:
        """The labels that a size counts, each by itself."""
        if isinstance(expression, Dim) and expression.factor.size == expression.factor.shape[expression.dim]:
            return expression.factor.ravel()
        return None

    def valued(self, out: torch.Tensor, data: Any) -> None:
        """`data` became the values of a tensor: sizes among it stay, and the trace check has to see all of it."""
        if isinstance(data, np.ndarray):
            self.capture.numbers(out, (digest(data),))
            return
        if self._is_size(out, flatten(data)):
            self.capture.numbers(out, ())  # what becomes of it is seen
            return
        numbers = [v for v in flatten(data) if isinstance(v, (int, float)) and not isinstance(v, bool)]
        for v in numbers:
            if isinstance(v, Size) and isinstance(v.origin, Dim):
                self.capture.fix(v.origin.factor, [v.origin.dim], VALUE)
            elif isinstance(v, Size):
                self.capture.equate(v.origin, int(v), VALUE)
        self.capture.numbers(out, tuple(float(v) for v in numbers))

    def _is_size(self, out: torch.Tensor, data: list[Any]) -> bool:
        """Whether a tensor was made of an attribute alone, as its one element looks as if it was."""
        size = self.capture.size_of(out)
        if size is None:
            return False
        if any(type(v) is Size and v.origin == size.origin for v in data):
            return True
        self.capture.put(out, self.capture.factors(out))
        return False

    def _add(self, out: torch.Tensor, factor: lb.Factor) -> None:
        info = self.capture.info(out)
        if info is not None:
            info.factors.append(factor)
