"""One pass over a model: every operation, with the labels of what goes in and out.

Two modes lie over the forward pass. `Capture` sees the operations and lets labels ride along, by the rules of `rules/`;
`SizeMode` sees the calls of user code that take or give sizes. Nothing of the model's own is changed: it is a copy
that runs.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import nn
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode

from amct_pytorch.analyse import labels as lb
from amct_pytorch.analyse import shapes
from amct_pytorch.analyse.decided import Decided
from amct_pytorch.analyse.earlier import Earlier, Finding
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
from amct_pytorch.analyse.labelling import Labelling
from amct_pytorch.analyse.labels import Factor, Labels, Reason
from amct_pytorch.analyse.leaks import Made
from amct_pytorch.analyse.mode import Shared
from amct_pytorch.analyse.operations import OF_ONE_ELEMENT, OF_SHAPES, OPERATIONS, STRIDED, Operation, operation
from amct_pytorch.analyse.residual import Held, follow, united
from amct_pytorch.analyse.sizes import NUMBER, Ratio, Size
from amct_pytorch.analyse.values import flatten, tensors_of

Rule = Callable[["Capture", Call], None]


class Capture(Labelling, TorchDispatchMode):
    """Labels ride along one forward pass: each operation is run, told to its rule, and logged."""

    supports_higher_order_operators = True

    def __init__(
        self,
        labels: Labels,
        rules: Mapping[str, Rule],
        names: Mapping[int, str],
        device: torch.device | None = None,
        earlier: Earlier | None = None,
    ) -> None:
        Labelling.__init__(self, labels, names, earlier)
        TorchDispatchMode.__init__(self)  # type: ignore[no-untyped-call]
        # What tensors without data say that they are on; None: they have data, or say it themselves.
        self.device = device
        self.shapes_only = device is not None
        self.made: Made | None = []  # tensors without data
        self.rules = rules
        self.log: list[Logged] = []
        self.touched: set[str] = set()
        self.found: list[Finding] = []
        self.in_place = False  # whether no reshape makes positions of channels, whatever its sizes look like
        self.stated: Sequence[Any] = ()  # the sizes that user code gives for the dims of a view
        self.positions: set[int] = set()  # the sizes that user code got of dims without channels
        self.repeated: Factor | None = None  # what a dim of one element that is expanded to this many is repeated for
        self.times: Fraction | int = 1  # how often the model does what is done once
        self.sized = True  # whether shapes are given as sizes
        self.ragged = False  # whether there was a tensor without a shape
        self.mode: Shared | None = None  # of the copy that runs
        self.tells = False  # an operation runs by which code learns something of values
        self.decided: Decided | None = None  # of a pass on real values
        self.looked: set[str] = set()  # in one by shapes, the modules whose code was told something of whole numbers

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled in a pass: torch need not see to it in each operation."""
        return False

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
        if kind.tells:
            if decided is not None:
                decided.told()
            elif not kind.name.startswith("index") or any(t.dtype is torch.bool for t in tensors):
                self.told(tensors)  # by indices other than masks, how many there are is no news
        if decided is None or kind.aliases:
            self._follow(Call(func, kind.name, args, kwargs, out, before), kind, tensors, leaves)
            return out
        out = decided.as_then(kind.key, out)
        self._follow(Call(func, kind.name, args, kwargs, out, before), kind, tensors, leaves)
        drawn = torch.Tag.nondeterministic_seeded in getattr(func, "tags", ())
        decided.take(kind.key, tensors, out, self.factors, drawn)
        return out

    def told(self, tensors: Sequence[torch.Tensor]) -> None:
        """Code learns something of the values of these, which have some in a pass by shapes, too."""
        if not all(map(self.is_static, tensors)):
            self.looked.update(self.running.looking())

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
            picked = (info.picked is not None or info.even) and kind.name not in OF_SHAPES
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
        if kind.view and infos and infos[0].even:
            for info in given:
                info.even += infos[0].even
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
            if info is not None and info.even:
                for f, _ in info.even:
                    self.labels.write(lb.narrow(f, range(f.ndim)), number=False)
                self.use(info)

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
