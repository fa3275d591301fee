"""The labels of tensors, while a pass over a model runs: what rules read and write."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from amct_pytorch.analyse import labels as lb
from amct_pytorch.analyse.earlier import Earlier
from amct_pytorch.analyse.equations import Equation
from amct_pytorch.analyse.known import MARK, Call, Info, Piece, digest_of
from amct_pytorch.analyse.labels import PICKED, Factor, Labels, Reason, index
from amct_pytorch.analyse.running import Running
from amct_pytorch.analyse.sizes import APART, NUMBER, PLAIN, VALUE, Attribute, Dim, Expression, Size, leaves, origin
from amct_pytorch.analyse.values import flatten
from amct_pytorch.record import Norm


class Labelling:
    """Which labels each tensor of a pass has, and what is said of them.

    `factors` and `put` read and write the labels of a tensor; `merge` is the rule of pointwise operations; `freeze` and
    `fix` say that channels, or a dim of a joint factor, cannot shrink; `equate`, that sizes stay equal; `labels` ties
    and balances.
    """

    def __init__(self, labels: Labels, names: Mapping[int, str], earlier: Earlier | None = None) -> None:
        """`names`: the paths of modules, by their identities; `earlier`: what another pass found."""
        self.labels = labels
        self.running = Running(names)
        self.earlier = earlier
        self.inside = False  # a call of torch: what it compares is not the user's
        self.equations: list[Equation] = []
        self.apart: set[tuple[Attribute, Attribute]] = set()  # found to differ
        self.pieces: list[Piece] = []
        self.parameters: dict[int, str] = {}
        self.entered: dict[str, Info] = {}  # of parameters, buffers and inputs
        self.buffers: set[str] = set()
        self.per_group: dict[int, Factor] = {}
        # By its identity and the length, a factor of which bounds took a part, where the first begins, and its labels.
        self.sliced: dict[tuple[int, int], tuple[Factor, int, Factor]] = {}
        self.magnitudes: dict[str, Norm] = {}  # by name, those that the cut may rescale
        self.plain: dict[int, Expression] = {}  # what was made a plain integer, by its value
        self.shapes: deque[torch.Size] = deque(maxlen=_SHAPES)  # that code asked for last
        self._marked: list[torch.Tensor] = []
        self._frozen: dict[int, Factor] = {}
        self._outside: dict[int, tuple[torch.Tensor, Info]] = {}

    def info(self, tensor: Any) -> Info | None:
        return getattr(tensor, MARK, None)

    def is_static(self, tensor: Any) -> bool:
        """Whether a tensor comes from parameters alone."""
        info = self.info(tensor)
        return info is not None and info.static

    def is_learned(self, tensor: Any) -> bool:
        """Whether a tensor comes from parameters, and not from buffers alone."""
        if not self.is_static(tensor):
            return False
        return any(map(self._is_of_parameters, self.factors(tensor)))

    def _is_of_parameters(self, factor: Factor) -> bool:
        """Whether labels are those of a parameter, or were made of such."""
        if name := self.labels.axis(factor).tensor:
            return name not in self.buffers
        parts = self.labels.made_of.get(self.labels.block(factor))
        return parts is None or any(map(self._is_of_parameters, parts))

    def factors(self, tensor: Any) -> list[Factor]:
        found = getattr(tensor, MARK, None)
        return found.factors if found is not None else []

    def put(
        self, tensor: Any, factors: Sequence[Factor], static: bool = False, indices: tuple[Factor, ...] = ()
    ) -> None:
        """Give a tensor its labels; `indices`: those that its values count."""
        if isinstance(tensor, torch.Tensor):
            setattr(tensor, MARK, Info([f for f in factors if f.size > 1], static, indices))

    def enter(self, name: str, tensor: torch.Tensor, factors: Sequence[Factor], static: bool = True) -> None:
        """Give a parameter, a buffer or an input its name and its labels, for this pass."""
        known = self.earlier.entered.get(name) if self.earlier is not None else None
        info = known or Info([f for f in factors if f.size > 1], static=static, name=name)
        info.makers = None if static else frozenset()
        self.entered[name] = info
        if static and not (isinstance(tensor, nn.Parameter) and tensor.dtype is not torch.bool):
            self.buffers.add(name)
        setattr(tensor, MARK, info)
        self.parameters[id(tensor)] = name
        self._marked.append(tensor)

    def leave(self) -> None:
        for tensor in self._marked:
            delattr(tensor, MARK)
        self._marked.clear()
        self._outside.clear()
        self.pieces.clear()

    def pick(self, piece: Piece, text: str, from_end: bool = False) -> None:
        """A single channel is picked by its number: it stays, and those that are counted up to it, only once its values
        are used."""
        f, dim, start, stop, out = piece
        if (info := self.info(out)) is not None:
            counted = index(f, dim, start, f.shape[dim]) if from_end else index(f, dim, 0, stop)
            info.picked = counted if f.size == f.shape[dim] else f, dim, self.reason(text)

    def use(self, info: Info) -> None:
        """The values of a tensor are used: where it is a single channel that was picked, the others stay, and so does a
        size that it is."""
        if info.picked is not None:
            factor, dim, reason = info.picked
            if factor.size == factor.shape[dim]:
                self.freeze(factor, reason)
            else:
                self.fix(factor, [dim], reason)
        for factor, dim in info.even:
            if not self.labels.is_one_constant(factor):
                self.fix(factor, [dim], PICKED)
        if info.size is not None:
            self.equate(info.size.origin, int.__int__(info.size), VALUE)

    def _known(self, tensor: torch.Tensor) -> Info:
        info: Info | None = getattr(tensor, MARK, None)
        return info or self._outsider(tensor)

    def _outsider(self, tensor: torch.Tensor) -> Info:
        """Of what is made outside of the pass: it is not ours to mark."""
        found = self._outside.get(id(tensor))
        if found is None:
            found = self._outside[id(tensor)] = tensor, Info([], name=digest_of(tensor), outside=True)
        return found[1]

    def size_of(self, tensor: torch.Tensor) -> Size | None:
        """The size that the one element of a tensor is."""
        return self._known(tensor).size

    # what is known of labels

    def reason(self, text: str) -> Reason:
        return Reason(text, *self.running.where())

    def freeze(self, factor: Factor, text: str | Reason) -> None:
        """These channels cannot go."""
        if id(factor) not in self._frozen:
            self._frozen[id(factor)] = factor  # held, so that its identity stays its own
            self.labels.freeze(factor, self.reason(text) if isinstance(text, str) else text)

    def fix(self, factor: Factor, along: Sequence[int], text: str | Reason) -> Factor | None:
        """The given dims keep their size: what remains of the factor, None where nothing does."""
        varied = lb.dims(factor)
        along = [d for d in varied if d in along]
        if not along:
            return factor
        if len(along) == len(varied):
            self.freeze(factor, text)
            return None
        row = lb.narrow(factor, along)
        self.labels.tie(factor, row)
        return row

    def fixed(self, factors: Sequence[Factor], along: Sequence[int], text: str) -> list[Factor]:
        if not along:
            return list(factors)
        kept = (self.fix(f, along, text) for f in factors)
        return [f for f in kept if f is not None]

    def summed(self, factor: Factor, along: Sequence[int]) -> Factor | None:
        """What a sum over the given dims leaves of a factor, None where that is nothing."""
        if self.labels.is_constant(factor) and 0 < sum(d in along for d in lb.dims(factor)) < len(lb.dims(factor)):
            return self.fix(factor, along, "")
        return self.labels.summed(factor, along)

    def counted(self, factors: Sequence[Factor], along: Sequence[int], apart: bool = True) -> list[Factor]:
        """The factors without those of constants that are summed along the given dims: they count channels. `apart`:
        also where they are all that is summed, of which a mean is no other."""
        if not self.labels.constants:
            return list(factors)
        kept = []
        for f in factors:
            if self.labels.counts(f, along) and (apart or not self.labels.is_one_constant(f, filled=True)):
                self.freeze(f, "its channels are counted by a sum over a constant")
            else:
                kept.append(f)
        return kept

    def fix_dim(self, tensor: torch.Tensor, dim: int, text: str) -> None:
        """The same for a dim of a tensor that has its labels already."""
        info = self.info(tensor)
        if info is not None:
            info.factors[:] = self.fixed(info.factors, [dim], text)

    def rescales(self, magnitude: torch.Tensor, direction: torch.Tensor, dim: int) -> bool:
        """Whether the cut can make up in a magnitude for what the norm of a direction over the other dims loses."""
        one, two = self.info(magnitude), self.info(direction)
        if one is None or two is None or one.name not in self.entered or two.name not in self.entered:
            return False
        norm = Norm(two.name, dim)
        return one.static and self.magnitudes.setdefault(one.name, norm) == norm

    def normalized(self, direction: torch.Tensor, dim: int) -> list[Factor]:
        """The labels of a direction of which all dims but one stay: its norm is over them."""
        others = [d for d in range(direction.ndim) if d != dim]
        return self.fixed(self.factors(direction), others, "a weight is normalized over it, with a stored norm")

    def taken(self) -> list[Piece]:
        """The parts of labelled dims that were taken out since this was asked last."""
        taken, self.pieces = self.pieces, []
        return taken

    def logical(self, weight: Any) -> Factor | None:
        """The labels of a grouped convolution's per-group axis, counted over all groups."""
        return self.per_group.get(id(weight))

    def varying(self, tensor: torch.Tensor, dim: int) -> Factor | None:
        return next((f for f in self.factors(tensor) if f.shape[dim] > 1), None)

    def equate(self, left: Expression, right: Expression, text: str = "") -> None:
        """Two sizes have to stay equal; `text`: what is wrong where they do not, if it is not simply that."""
        if isinstance(left, int) and isinstance(right, int):
            return
        for a, b in ((left, right), (right, left)):
            if isinstance(a, Dim) and isinstance(b, int):
                self.fix(a.factor, [a.dim], text or "a size without an origin")
                return
        self.equations.append(Equation(left, right, self.reason(text or "sizes in user code differ after the cut")))

    def compared(self, left: Expression, right: Expression, text: str = "") -> None:
        """Two sizes were found equal in user code (an assert, a branch): they have to stay so. Or to differ, or one was
        made a plain integer."""
        if self.inside:
            return
        if text is PLAIN:
            assert isinstance(right, int)
            self.plain[right] = left
        elif text is APART:
            if isinstance(left, Attribute) and isinstance(right, Attribute):
                self.apart.add((left, right))
        else:
            self.equate(left, right, text)

    def multiplied(self, out: torch.Tensor, size: Size) -> None:
        """The one element of a tensor is a multiple of a size."""
        if (info := self.info(out)) is not None:
            info.multiple = size
        else:
            self.equate(size.origin, int.__int__(size), NUMBER)

    def origin(self, value: int) -> Expression:
        """Where an integer came from; of a plain one that a size was made before, that size: the trace check finds it
        where it was another."""
        found = origin(value)
        return self.plain.get(found, found) if isinstance(found, int) else found

    def product(self, value: int, factor: Factor) -> Expression:
        """The product of sizes one after the other, where a plain integer that no code states is that, and they count
        the labels along a dim that it is to be the size of: numpy and torch.Size.numel make such ones. Else itself."""
        for shape in () if self.running.states(value) else reversed(self.shapes):
            for i, j in itertools.combinations(range(len(shape) + 1), 2):
                product = math.prod(shape[i:j])
                if j - i > 1 and isinstance(product, Size) and int.__eq__(product, value):
                    dims = [leaf for leaf in leaves(product.origin) if isinstance(leaf, Dim)]
                    if all(np.isin(d.factor, factor).all() for d in dims):
                        return product.origin
        return value

    # rules of many operations

    def merge(self, operands: Sequence[tuple[torch.Tensor | None, Sequence[Factor]]], ndim: int) -> list[Factor]:
        """The labels of a pointwise operation: those that meet are tied; those that meet an unlabelled dim are frozen.

        Operands are aligned at their last dims. A tensor of None takes no part in the second.
        """
        out: list[Factor] = []
        if len(operands) > 1 and all(self.is_static(t) for t, _ in operands):
            operands = sorted(operands, key=self._order)
        for _, factors in operands:
            for f in factors:
                self._join(out, f.reshape((1,) * (ndim - f.ndim) + f.shape) if f.ndim < ndim else f)
        if len(operands) == 1:
            return out
        for tensor, factors in operands:
            if tensor is None or not out:
                continue
            lag = ndim - tensor.ndim
            covered = {d + ndim - f.ndim for f in factors for d in lb.dims(f)}
            bare = [
                d + lag
                for d in range(tensor.ndim)
                if tensor.shape[d] > 1 and d + lag not in covered and tensor.stride(d) != 0
            ]
            if bare:
                if all(self.is_static(t) for t, _ in operands):
                    self.labels.produced += out[:1]  # the report names them, though no layer is known to make them
                out = self.fixed(out, bare, "its channels meet a tensor that does not depend on them")
        return out

    def _order(self, operand: tuple[Any, Sequence[Factor]]) -> tuple[bool, int]:
        """Of what weights are made of, the largest parameter is the one that makes the channels: no mask, no gain."""
        info = self.info(operand[0])
        return info is not None and info.name in self.buffers, -operand[0].numel()

    def _join(self, out: list[Factor], f: Factor) -> None:
        if f.size <= 1:
            return
        mine = set(lb.dims(f))
        for i, o in enumerate(out):
            theirs = set(lb.dims(o))
            if not mine & theirs:
                continue
            if mine == theirs:
                self.labels.tie(o, f)
                if self.labels.yields(o, f):
                    out[i] = f
            elif mine < theirs:
                self.labels.partial.append((o, f))
            elif theirs < mine:
                self.labels.partial.append((f, o))
                del out[i]
                self._join(out, f)
            else:
                del out[i]
                a, b = (self.fix(x, sorted(y), "") for x, y in ((o, theirs - mine), (f, mine - theirs)))
                assert a is not None
                assert b is not None
                self.labels.tie(a, b)
                self._join(out, a)
            return
        out.append(f)

    def unknown(self, call: Call, text: str = "") -> None:
        """Freeze all that reaches an operation."""
        tensors = [t for t in flatten((call.args, call.kwargs)) if isinstance(t, torch.Tensor)]
        alone = all(self.is_static(t) for t in tensors)
        for t in tensors:
            factors = self.factors(t)
            if alone:
                self.labels.produced += factors  # the report names them, though no layer is known to make them
            for f in factors:
                self.freeze(f, text or f"no rule for the operation {call.name}")


_SHAPES = 16  # so many of the last ones are looked through for a product
