"""One pass over a model: every operation, with the labels of what goes in and out.

Two modes lie over the forward pass. `Capture` sees the operations and lets labels ride along, by the rules of `rules/`;
`SizeMode` sees the calls of user code that take or give sizes. Nothing of the model's own is changed: it is a copy
that runs.
"""

from __future__ import annotations

import itertools
import math
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode

from amct_pytorch.analyse import labels as lb
from amct_pytorch.analyse import shapes
from amct_pytorch.analyse.decided import Decided
from amct_pytorch.analyse.earlier import Earlier, Finding
from amct_pytorch.analyse.equations import Equation
from amct_pytorch.analyse.known import (
    COPIED,
    MADE,
    MARK,
    RAGGED,
    Call,
    Info,
    Logged,
    Piece,
    alike,
    comparable,
    digest_of,
)
from amct_pytorch.analyse.labels import Factor, Labels, Reason, index
from amct_pytorch.analyse.leaks import Made
from amct_pytorch.analyse.mode import Shared
from amct_pytorch.analyse.operations import OF_ONE_ELEMENT, OF_SHAPES, OPERATIONS, STRIDED, Operation, operation
from amct_pytorch.analyse.residual import Held, follow, united
from amct_pytorch.analyse.running import Running
from amct_pytorch.analyse.sizes import (
    APART,
    NUMBER,
    PLAIN,
    VALUE,
    Attribute,
    Dim,
    Expression,
    Ratio,
    Size,
    leaves,
    origin,
)
from amct_pytorch.analyse.values import flatten, tensors_of
from amct_pytorch.record import Norm

Rule = Callable[["Capture", Call], None]


class Capture(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Labels ride along one forward pass.

    What rules use: `factors` and `put` read and write the labels of a tensor; `merge` is the rule of pointwise
    operations; `freeze` and `fix` say that channels, or a dim of a joint factor, cannot shrink; `labels` ties and
    balances.
    """

    supports_higher_order_operators = True

    def __init__(
        self,
        labels: Labels,
        rules: Mapping[str, Rule],
        names: Mapping[int, str],
        device: torch.device | None = None,
        earlier: Earlier | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # What tensors without data say that they are on; None: they have data, or say it themselves.
        self.device = device
        self.shapes_only = device is not None
        self.made: Made | None = []  # tensors without data
        self.labels = labels
        self.rules = rules
        self.running = Running(names)
        self.log: list[Logged] = []
        self.equations: list[Equation] = []
        self.apart: set[tuple[Attribute, Attribute]] = set()  # found to differ
        self.pieces: list[Piece] = []
        self.touched: set[str] = set()
        self.parameters: dict[int, str] = {}
        self.entered: dict[str, Info] = {}  # of parameters, buffers and inputs
        self.buffers: set[str] = set()
        self.earlier = earlier
        self.found: list[Finding] = []
        self.per_group: dict[int, Factor] = {}
        # By its identity and the length, a factor of which bounds took a part, where the first begins, and its labels.
        self.sliced: dict[tuple[int, int], tuple[Factor, int, Factor]] = {}
        self.magnitudes: dict[str, Norm] = {}  # by name, those that the cut may rescale
        self.plain: dict[int, Expression] = {}  # what was made a plain integer, by its value
        self.shapes: deque[torch.Size] = deque(maxlen=_SHAPES)  # that code asked for last
        self.repeated: Factor | None = None  # what a dim of one element that is expanded to this many is repeated for
        self.times: Fraction | int = 1  # how often the model does what is done once
        self.sized = True  # whether shapes are given as sizes
        self.ragged = False  # whether there was a tensor without a shape
        self.mode: Shared | None = None  # of the copy that runs
        self.inside = False  # a call of torch: what it compares is not the user's
        self.tells = False  # an operation runs by which code learns something of values
        self._marked: list[torch.Tensor] = []
        self._frozen: dict[int, Factor] = {}
        self._outside: dict[int, tuple[torch.Tensor, Info]] = {}
        self.decided: Decided | None = None  # of a pass on real values

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled in a pass: torch need not see to it in each operation."""
        return False

    # the labels of tensors

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
        if info.size is not None:
            self.equate(info.size.origin, int.__int__(info.size), VALUE)

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

    # the pass

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if torch.is_inference_mode_enabled() and not isinstance(func, HigherOrderOperator):
            with self:  # operations arrive there as they are called, not as what they are made of
                out = func.decompose(*args, **(kwargs or {}))
            if out is not NotImplemented:
                return out
        if self.inside:
            return self._operation(func, args, kwargs or {})
        with torch._C.DisableTorchFunction():  # in a script: no sizes are given to us
            return self._operation(func, args, kwargs or {})

    def _operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kind = OPERATIONS.get(func) or operation(func)
        leaves = flatten((args, kwargs)) if kwargs else flatten(args)
        tensors = [t for t in leaves if isinstance(t, torch.Tensor)]
        before = self.sizes(tensors)  # an operation in place may change them
        self.tells = kind.tells
        if self.shapes_only:
            out = shapes.run(func, kind.name, args, kwargs, tensors, self.info)
        else:
            out = func(*args, **kwargs)
        self.tells = False
        if not kind.computes:
            return out
        if kind.copies or (kind.copies is False and hasattr(args[0], COPIED)):
            for o in flatten(out):
                setattr(o, COPIED, True)
        decided = self.decided
        if decided is not None and kind.tells:
            decided.told()
        if decided is None or kind.aliases:
            self._follow(Call(func, kind.name, args, kwargs, out, before), kind, tensors, leaves)
            return out
        out = decided.as_then(kind.key, out)
        self._follow(Call(func, kind.name, args, kwargs, out, before), kind, tensors, leaves)
        drawn = torch.Tag.nondeterministic_seeded in getattr(func, "tags", ())
        decided.take(kind.key, tensors, out, self.factors, drawn)
        return out

    def at_once(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """What torch would do by several operations, as the one that `func` is; NotImplemented where it cannot be done
        by shapes alone."""
        if not self.shapes_only or torch._C._are_functorch_transforms_active():
            return NotImplemented
        leaves = flatten((args, kwargs)) if kwargs else flatten(args)
        tensors = [t for t in leaves if isinstance(t, torch.Tensor)]
        if not (tensors[0].is_meta and tensors[0].is_floating_point() and all(map(_is_of_torch, tensors))):
            return NotImplemented
        kind = OPERATIONS.get(func) or operation(func)
        with torch._C._DisableTorchDispatch(), torch._C._AutoDispatchBelowAutograd():
            out = shapes.RULES[kind.name](*args, **kwargs)
            if out is NotImplemented:
                return out
            if _grad_enabled() and any(t.requires_grad for t in tensors):
                out = (_recorded(out[0]), *out[1:]) if isinstance(out, tuple) else _recorded(out)
            self._follow(Call(func, kind.name, args, kwargs, out, self.sizes(tensors)), kind, tensors, leaves)
        return out

    def sizes(self, tensors: Sequence[torch.Tensor]) -> tuple[tuple[int, ...], ...]:
        """The shapes of tensors; RAGGED of a nested one that does not say its own."""
        try:
            return tuple([tuple(t.shape) for t in tensors])
        except RuntimeError:
            self.ragged = True
            return tuple([RAGGED if t.is_nested else tuple(t.shape) for t in tensors])

    def _follow(self, call: Call, kind: Operation, tensors: list[torch.Tensor], leaves: list[Any]) -> None:
        """Let the labels ride along one operation, and log it."""
        infos = tuple([getattr(t, MARK, None) or self._outsider(t) for t in tensors])
        labelled = False
        for info in infos:
            if info.name:
                self.touched.add(info.name)
            if info.factors:
                labelled = True
            picked = info.picked is not None and kind.name not in OF_SHAPES
            if picked or (info.size is not None and kind.name not in _NOT_THE_VALUE):
                self.use(info)
            if info.multiple is not None and kind.name not in _COMPARISONS:
                self.equate(info.multiple.origin, int.__int__(info.multiple), NUMBER)
        out = call.out if isinstance(call.out, (tuple, list)) else (call.out,)
        outs = [o for o in out if isinstance(o, torch.Tensor)]
        sizes = self.sizes(outs)
        scalars = self._scalars(call, kind, leaves)
        operands = infos if kind.same else tuple([i.like or i for i in infos])
        of = (kind.key, scalars, sizes, call.shapes, operands)
        before = len(self.pieces)
        found = self.earlier.take(of, labelled) if self.earlier is not None and self.repeated is None else None
        given = self._labelled(call, kind, infos, outs, labelled) if found is None else self._recalled(found, outs)
        if kind.name in OF_ONE_ELEMENT and infos:
            size = self._said(tensors[0]) if kind.name == "lift_fresh" else infos[0].size
            for info in given if size is not None else ():
                info.size = size
        logged = None
        if not kind.same:
            logged = found.logged if found is not None else None  # one and the same, where it is on the very same
            if logged is None or logged.ins != infos:
                logged = Logged(kind.key, scalars, sizes, given, infos, call.shapes, self.times)
            self.log.append(logged)
        if self.earlier is None and self.repeated is None and call.name not in STRIDED:
            pieces = [(_position(p.out, outs), *p[:4]) for p in self.pieces[before:]]
            self.found.append(Finding(of, given, pieces, logged))

    def _recalled(self, found: Finding, outs: list[torch.Tensor]) -> tuple[Info, ...]:
        """What an earlier pass found of the same operation on the same."""
        for tensor, info in zip(outs, found.given, strict=True):
            self.mark(tensor, info)
        self.pieces += [Piece(factor, dim, start, stop, outs[i]) for i, factor, dim, start, stop in found.pieces]
        return found.given

    def _labelled(
        self, call: Call, kind: Operation, infos: tuple[Info, ...], outs: list[torch.Tensor], labelled: bool
    ) -> tuple[Info, ...]:
        """What the rule of an operation says of its results."""
        static = bool(infos) or not any(o.ndim for o in outs)  # a number is no other at other inputs
        counted: tuple[Factor, ...] = ()
        for info in infos:
            static = static and info.static
            counted += info.indices
        if kind.name != "unbind":  # which hands them on, dim by dim
            for f in counted:
                self.freeze(f, f"indices of channels are used by {call.name}")
            counted = ()
        produced = len(self.labels.produced)
        if kind.written and self.labels.constants:
            self._write(call, kind)
        if self.ragged and RAGGED in (*call.shapes, *self.sizes(outs)):
            self.unknown(call, "a nested tensor, which has no shape, holds its channels")
        elif labelled or (self.repeated is not None and call.name == "expand"):
            self.rules.get(call.name, unknown)(self, call)
        given = tuple([getattr(o, MARK, None) or Info([], indices=counted) for o in outs])
        for o, info in zip(outs, given, strict=True):
            info.static = static
            self.mark(o, info)
        dependent = [i for i in infos if i.makers is not None]
        if outs and dependent:
            self._hand_on(call, kind, infos, outs, given, made=len(self.labels.produced) > produced)
        if kind.same:
            for info in given:
                info.copied = infos[0].source()
        if labelled and not kind.view:
            for info in given:
                if info.factors and info not in infos:
                    near = [i for i in infos if i.factors and i.factors[0] is info.factors[0]]
                    info.like = next((i.like or i for i in near if alike(i, info)), None)
        return given

    def _write(self, call: Call, kind: Operation) -> None:
        """Note that constants are written into."""
        for tensor in (call.arg(*where) for where in kind.written):
            info = self.info(tensor)
            for f in () if info is None else info.factors:
                self.labels.write(f, number=kind.name in _ONE_FOR_ALL)
            if info is not None and info.picked is not None:
                self.labels.write(info.picked[0], number=False)

    def _hand_on(
        self,
        call: Call,
        kind: Operation,
        infos: tuple[Info, ...],
        outs: list[torch.Tensor],
        given: tuple[Info, ...],
        made: bool,
    ) -> None:
        """Say who made the channels of a result, and note where an addition ties those of different layers."""
        if kind.hands_on and not made:
            makers = united([i.makers for i in infos])
        else:
            itself = frozenset((len(self.log) + (self.earlier.operations if self.earlier is not None else 0),))
            makers = itself
            if not kind.hands_on:
                tensors = [Held(i.factors, i.makers, s) for i, s in zip(infos, call.shapes, strict=True)]
                out = Held(given[0].factors, itself if made else None, self.sizes(outs[:1])[0])
                makers, tied = follow(call.name, tensors, out, itself)
                self.labels.residual += tied
        for info in given:
            info.makers = makers

    def _known(self, tensor: torch.Tensor) -> Info:
        info: Info | None = getattr(tensor, MARK, None)
        return info or self._outsider(tensor)

    def _outsider(self, tensor: torch.Tensor) -> Info:
        """Of what is made outside of the pass: it is not ours to mark."""
        found = self._outside.get(id(tensor))
        if found is None:
            found = self._outside[id(tensor)] = tensor, Info([], name=digest_of(tensor), outside=True)
        return found[1]

    def _said(self, tensor: torch.Tensor) -> Size | None:
        """The size that a new tensor of one integer was made of: the one attribute of that value that the module that
        runs has. The trace check finds it where it was another number."""
        if tensor.numel() != 1 or tensor.dtype not in (torch.int32, torch.int64) or tensor.is_meta:
            return None
        with torch._C._DisableTorchDispatch():
            value = int(tensor)
        for owner, _ in self.running.modules():
            sizes = {v.origin: v for v in vars(owner).values() if type(v) is Size and int.__int__(v) == value}
            if sizes:
                return sizes.popitem()[1] if len(sizes) == 1 else None
        return None

    def size_of(self, tensor: torch.Tensor) -> Size | None:
        """The size that the one element of a tensor is."""
        return self._known(tensor).size

    def mark(self, tensor: torch.Tensor, info: Info) -> None:
        """What is known of a result of the pass."""
        setattr(tensor, MARK, info)
        if self.made is not None and not info.name:
            self.made.append(weakref.ref(tensor))

    def _scalars(self, call: Call, kind: Operation, leaves: list[Any]) -> tuple[Any, ...]:
        """The scalars of an operation that are no sizes: those are compared as shapes and labels."""
        if call.name == "lift_fresh":  # torch.tensor(...): its values
            return (digest_of(call.args[0]),)
        given = [v for v in leaves[kind.scalars] if not isinstance(v, torch.Tensor)]
        if isinstance(call.func, HigherOrderOperator):  # functions are made anew in each pass
            given = [v for v in given if not callable(v)]
        scalars = comparable([_plain(v) if type(v) in _NUMBERS else v for v in given])
        return scalars if not kind.written else (*scalars, *[hasattr(call.arg(*w), COPIED) for w in kind.written])

    def numbers(self, out: torch.Tensor, values: tuple[Any, ...]) -> None:
        """User code made a tensor of numbers: they have to be the same after the cut."""
        if self.info(out) is None:
            self.put(out, [])
        info = self.info(out)
        assert info is not None
        self.log.append(Logged(MADE, comparable(values), (tuple(out.shape),), (info,), (), ()))

    def assigned(self, x: torch.Tensor, value: torch.Tensor) -> None:
        """The data of `value` were given to `x`: it holds what both hold, where their shapes are the same."""
        infos = tuple(self._known(t) for t in (x, value))
        shapes = (tuple(x.shape), tuple(value.shape))
        self.touched.update(info.name for info in infos if info.name)
        if shapes[0] == shapes[1]:
            self.put(x, self.merge([(x, infos[0].factors), (value, infos[1].factors)], x.ndim))
            info = self._known(x)
            info.static, info.makers = all(i.static for i in infos), infos[1].makers
        else:
            info = infos[0]
            for f in (*infos[0].factors, *infos[1].factors):
                self.freeze(f, "data of another shape are assigned")
        self.log.append(Logged("assigning data", (), shapes[1:], (info,), infos, shapes))

    def stepped(self, counter: torch.Tensor, by: int) -> None:
        """A number was added to an integer: the same has to be added after the cut."""
        info = self._known(counter)
        if info.name:
            self.touched.add(info.name)
        self.log.append(Logged("counting", (by,), ((),), (info,), (info,), ((),)))

    def _is_state(self, log: Sequence[Logged]) -> Callable[[torch.Tensor], bool]:
        """Whether the forward went on to use a tensor, or filled one that was there, as caches of a state are."""
        used = {id(info.source()) for op in log for info in op.ins}
        used.update(id(info.source()) for op in log if op.name == _COPYING for info in op.outs)
        return lambda tensor: id(self._known(tensor).source()) in used

    def outputs(self, value: Any) -> None:
        """Network outputs keep their width, and stay the same tensors."""
        infos = [self._known(t) for t in tensors_of(value, self._is_state(self.log))]
        for info in infos:
            for f in (*info.factors, *info.indices):
                self.labels.freeze(f, Reason("it is an output of the network"))
            self.use(info)
        self.log.append(Logged("the network's output", (), (), (), tuple(infos), ()))


_NUMBERS = frozenset((Size, Ratio))
_ONE_FOR_ALL = frozenset(("fill_", "zero_"))
_COPYING = "aten.copy_.default"
_COMPARISONS = frozenset(("eq", "ne"))
_SHAPES = 16  # so many of the last ones are looked through for a product
_NOT_THE_VALUE = OF_SHAPES | OF_ONE_ELEMENT
_grad_enabled = torch.is_grad_enabled  # under a name of our own: while a pass runs, whoever asks torch is noted
_OF_NO_GRADIENT = torch._C._functions.DelayedError("an operation on shapes alone has no gradient", 1)


def _plain(value: Any) -> int | float:
    return float.__float__(value) if isinstance(value, Ratio) else int.__int__(value)


def _is_of_torch(tensor: torch.Tensor) -> bool:
    """Whether a tensor is of torch's own class, and has a shape."""
    return type(tensor) in (torch.Tensor, nn.Parameter) and not tensor.is_nested


def _recorded(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as a result that gradients go through, for code that asks; a pass takes none."""
    result: torch.Tensor = _OF_NO_GRADIENT(tensor.requires_grad_())
    return result


def _position(tensor: torch.Tensor, among: list[torch.Tensor]) -> int:
    return next(i for i, t in enumerate(among) if t is tensor)


def unknown(capture: Capture, call: Call) -> None:
    """The rule of an operation that has none: its tag says whether each element is made of those at its place alone."""
    tensors = [t for t in flatten((call.args, call.kwargs)) if isinstance(t, torch.Tensor)]
    tagged = torch.Tag.pointwise in getattr(call.func, "tags", ()) and not call.func._schema.is_mutable
    if tagged and isinstance(call.out, torch.Tensor) and call.out.shape == torch.broadcast_shapes(*call.shapes):  # type: ignore[no-untyped-call]
        capture.put(call.out, capture.merge([(t, capture.factors(t)) for t in tensors], call.out.ndim))
    else:
        capture.unknown(call)
