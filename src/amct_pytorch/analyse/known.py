"""What is known of tensors and operations in a pass."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy.typing as npt
import torch
from torch.utils._python_dispatch import _disable_current_modes

from amct_pytorch.analyse.labels import Factor, Reason
from amct_pytorch.analyse.residual import Makers
from amct_pytorch.analyse.sizes import Size

MARK = "_channel_labels"
# On a view of a plain copy, which may be a view of the tensor itself where there are fewer channels: what is written
# into it reaches that one then.
COPIED = "_copied"
MADE = "making a tensor of numbers"  # in the place of an operation
RAGGED = (-1,)  # in the place of a shape


class Info:
    """What is known of one tensor.

    `factors`: its labels. `static`: whether it comes from parameters alone. `indices`: labels that its values count.
    `name`: of a parameter, a buffer or an input, or what is known of the values of a tensor from `outside` of the
    pass. `copied`: what this is a plain copy of. `makers`: see `residual`. `like`: another tensor of which the same is
    known, as far as rules go. `picked`: of a single channel that was picked by its number, the labels and the dim that
    it is of, and the reason for which these stay once its values are used. `even`: of one of equal elements, any of
    which is as good as another, the labels and the dim of all, for when something is written there. `size`: that its
    one element is. `multiple`: the size that its one element is a multiple of, which stays once it is used, but for a
    comparison.
    """

    __slots__ = (
        "copied",
        "even",
        "factors",
        "indices",
        "like",
        "makers",
        "multiple",
        "name",
        "outside",
        "picked",
        "size",
        "static",
    )

    def __init__(
        self,
        factors: list[Factor],
        static: bool = False,
        indices: tuple[Factor, ...] = (),
        name: str = "",
        outside: bool = False,
    ) -> None:
        self.factors = factors
        self.static = static
        self.indices = indices
        self.name = name
        self.outside = outside
        self.copied: Info | None = None
        self.makers: Makers = None
        self.like: Info | None = None  # itself, but for the reference to itself
        self.picked: tuple[Factor, int, Reason] | None = None
        self.even: tuple[tuple[Factor, int], ...] = ()
        self.size: Size | None = None
        self.multiple: Size | None = None

    def source(self) -> Info:
        """The same, or what it is a copy of."""
        return self if self.copied is None else self.copied


class Call(NamedTuple):
    """One operation: the function, its arguments and what it returned."""

    func: Any
    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    out: Any
    shapes: tuple[tuple[int, ...], ...] = ()  # of the tensors among the arguments, before the call

    def arg(self, index: int, name: str, default: Any = None) -> Any:
        return self.args[index] if len(self.args) > index else self.kwargs.get(name, default)


class Logged(NamedTuple):
    """An operation as the trace check compares it: by its name, its scalars, and what it gives. `times`: how often the
    model does it, where a pass makes do with less."""

    name: str
    scalars: tuple[Any, ...]
    shapes: tuple[tuple[int, ...], ...]
    outs: tuple[Info, ...]
    ins: tuple[Info, ...]
    shapes_in: tuple[tuple[int, ...], ...]
    times: Fraction | int = 1


class Piece(NamedTuple):
    """A part of a labelled dim that an operation took out: it has to be said by what size."""

    factor: Factor
    dim: int
    start: int
    stop: int
    out: torch.Tensor


_NAN = float("nan")


def comparable(values: Sequence[Any]) -> tuple[Any, ...]:
    """Scalars as tuples compare them: every NaN is the same object, for none is equal to another, and objects of
    compiled code, which refuse to be compared, are their classes."""
    return tuple([type(v) if isinstance(v, torch.ScriptObject) else v if v == v else _NAN for v in values])


def identical(one: Sequence[Factor], two: Sequence[Factor]) -> bool:
    """Whether two tensors have the very same factors."""
    return len(one) == len(two) and all(f is g for f, g in zip(one, two, strict=True))


def alike(one: Info, two: Info) -> bool:
    """Whether rules cannot tell two tensors of one shape from each other, neither of them a view."""
    return (
        identical(one.factors, two.factors)
        and one.static == two.static
        and not one.indices
        and not two.indices
        and one.makers == two.makers
    )


def digest_of(tensor: torch.Tensor) -> str:
    """A name for a tensor that is made outside of the pass: what it holds, where it has data."""
    if type(tensor) is not torch.Tensor or tensor.is_meta or tensor.layout != torch.strided:
        return ""
    with _disable_current_modes():
        data = tensor.detach().cpu().resolve_conj().resolve_neg().reshape(-1).view(torch.uint8)
        return f"{tuple(tensor.shape)} {tensor.dtype} {digest(data.numpy())}"


def digest(data: npt.NDArray[Any]) -> str:
    return hashlib.sha1(data.tobytes()).hexdigest()
