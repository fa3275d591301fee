"""One pass over a model: every operation, with the labels of what goes in and out.

Two modes lie over the forward pass. `Capture` sees the operations and lets labels ride along, by the rules of `rules/`;
`SizeMode` sees the calls of user code that take or give sizes. Nothing of the model's own is changed: it is a copy
that runs.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import os
import sys
import types
import weakref
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from amct_pytorch.analyse import labels as lb
from amct_pytorch.analyse import shapes
from amct_pytorch.analyse.labels import Factor, Labels, Reason
from amct_pytorch.analyse.leaks import Made
from amct_pytorch.analyse.residual import Held, Makers, follow, handed_on, united
from amct_pytorch.analyse.sizes import Dim, Equation, Expression, Size
from amct_pytorch.errors import ModelError
from amct_pytorch.record import Norm

_TORCH = os.path.join(os.path.dirname(torch.__file__), "")
_HERE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")
MARK = "_channel_labels"
# On a view of a plain copy, which may be a view of the tensor itself where there are fewer channels: what is written
# into it reaches that one then.
COPIED = "_copied"


class Info:
    """What is known of one tensor.

    `factors`: its labels. `static`: whether it comes from parameters alone. `indices`: labels that its values count.
    `name`: of a parameter, a buffer or an input, or what is known of the values of a tensor from `outside` of the
    pass. `copied`: what this is a plain copy of. `makers`: see `residual`. `like`: another tensor of which the same is
    known, as far as rules go.
    """

    __slots__ = ("copied", "factors", "indices", "like", "makers", "name", "outside", "static")

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
    """An operation as the trace check compares it: by its name, its scalars, and what it gives."""

    name: str
    scalars: tuple[Any, ...]
    shapes: tuple[tuple[int, ...], ...]
    outs: tuple[Info, ...]
    ins: tuple[Info, ...]
    shapes_in: tuple[tuple[int, ...], ...]


class Piece(NamedTuple):
    """A part of a labelled dim that an operation took out: it has to be said by what size."""

    factor: Factor
    dim: int
    start: int
    stop: int
    out: torch.Tensor


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


Rule = Callable[["Capture", Call], None]


def flatten(value: Any) -> list[Any]:
    """What is in tuples, lists and dictionaries, in order."""
    found: list[Any] = []
    _flatten((value,), found)
    return found


def _flatten(values: Iterable[Any], found: list[Any]) -> None:
    for value in values:
        if type(value) in _SINGLE:
            found.append(value)
        elif isinstance(value, (tuple, list)):
            _flatten(value, found)
        elif isinstance(value, dict):
            _flatten(value.values(), found)
        else:
            found.append(value)


_SINGLE = frozenset((torch.Tensor, nn.Parameter, int, float, bool, type(None), str, torch.dtype, torch.device))


class Capture(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Labels ride along one forward pass.

    What rules use: `factors` and `put` read and write the labels of a tensor; `merge` is the rule of pointwise
    operations; `freeze` and `fix` say that channels, or a dim of a joint factor, cannot shrink; `labels` ties and
    balances.
    """

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
        self.names = names
        self.log: list[Logged] = []
        self.equations: list[Equation] = []
        self.pieces: list[Piece] = []
        self.touched: set[str] = set()
        self.parameters: dict[int, str] = {}
        self.entered: dict[str, Info] = {}  # of parameters, buffers and inputs
        self.earlier = earlier
        self.found: list[Finding] = []
        self.per_group: dict[int, Factor] = {}
        self.magnitudes: dict[str, Norm] = {}  # by name, those that the cut may rescale
        self.repeated: Factor | None = None  # what a dim of one element that is expanded to this many is repeated for
        self.inside = False  # a call of torch: what it compares is not the user's
        self._marked: list[torch.Tensor] = []
        self._frozen: dict[int, Factor] = {}
        self._outside: dict[int, tuple[torch.Tensor, Info]] = {}
        self.decisions: list[tuple[str, list[Any]]] | None = None  # of a pass on real values
        self.script: Iterator[tuple[str, list[Any]]] | None = None

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
        setattr(tensor, MARK, info)
        self.parameters[id(tensor)] = name
        self._marked.append(tensor)

    def leave(self) -> None:
        for tensor in self._marked:
            delattr(tensor, MARK)
        self._outside.clear()

    # what is known of labels

    def reason(self, text: str) -> Reason:
        return Reason(text, *self.where())

    def freeze(self, factor: Factor, text: str) -> None:
        """These channels cannot go."""
        if id(factor) not in self._frozen:
            self._frozen[id(factor)] = factor  # held, so that its identity stays its own
            self.labels.freeze(factor, self.reason(text))

    def fix(self, factor: Factor, along: Sequence[int], text: str) -> Factor | None:
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
        kept = (self.fix(f, along, text) for f in factors)
        return [f for f in kept if f is not None]

    def counted(self, factors: Sequence[Factor], along: Sequence[int]) -> list[Factor]:
        """The factors without those of constants that are summed along the given dims: they count channels."""
        if not self.labels.constants:
            return list(factors)
        kept = []
        for f in factors:
            if self.labels.is_constant(f) and any(f.shape[d] > 1 for d in along):
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

    def equate(
        self, left: Expression, right: Expression, text: str = "sizes in user code differ after the cut"
    ) -> None:
        if isinstance(left, int) and isinstance(right, int):
            return
        for a, b in ((left, right), (right, left)):
            if isinstance(a, Dim) and isinstance(b, int):
                self.fix(a.factor, [a.dim], "a size without an origin")
                return
        self.equations.append(Equation(left, right, self.reason(text)))

    def compared(self, left: Expression, right: Expression) -> None:
        """Two sizes were found equal in user code (an assert, a branch): they have to stay so."""
        if not self.inside:
            self.equate(left, right)

    def where(self) -> tuple[str, str]:
        """The path of the module that runs, and file and line of the user's code."""
        module = line = ""
        frame = sys._getframe(1)
        while frame is not None and not (module and line):
            code = frame.f_code
            if not code.co_filename.startswith((_TORCH, _HERE)):
                line = line or f"{code.co_filename}:{frame.f_lineno}"
            if not module and code.co_argcount and not code.co_filename.startswith(_HERE):
                owner = frame.f_locals.get(code.co_varnames[0])
                if isinstance(owner, nn.Module):
                    module = self.names.get(id(owner), "")
            frame = frame.f_back  # type: ignore[assignment]
        return module, line

    # rules of many operations

    def merge(self, operands: Sequence[tuple[torch.Tensor | None, Sequence[Factor]]], ndim: int) -> list[Factor]:
        """The labels of a pointwise operation: those that meet are tied; those that meet an unlabelled dim are frozen.

        Operands are aligned at their last dims. A tensor of None takes no part in the second.
        """
        out: list[Factor] = []
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
                out = self.fixed(out, bare, "its channels meet a tensor that does not depend on them")
        return out

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
                if self.labels.constants and self.labels.is_constant(o):
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
        for t in flatten((call.args, call.kwargs)):
            for f in self.factors(t):
                self.freeze(f, text or f"no rule for the operation {call.name}")

    # the pass

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        operation = _OPERATIONS.get(func) or _operation(func)
        name, key = operation.name, operation.key
        leaves = flatten((args, kwargs)) if kwargs else flatten(args)
        tensors = [t for t in leaves if isinstance(t, torch.Tensor)]
        before = tuple([tuple(t.shape) for t in tensors])  # an operation in place may change them
        out = shapes.run(func, name, args, kwargs, tensors, self.info) if self.shapes_only else func(*args, **kwargs)
        if name.startswith("prim::"):  # those ask for a property and compute nothing
            return out
        if operation.copies or (operation.copies is False and hasattr(args[0], COPIED)):
            for o in flatten(out):
                setattr(o, COPIED, True)
        aliases = self.decisions is not None and any(r.alias_info is not None for r in func._schema.returns)
        if self.script is not None and not aliases:
            out = self._decided(key, out)
        self._follow(Call(func, name, args, kwargs, out, before), key, tensors, leaves)
        if self.decisions is not None and not aliases:
            self.decisions.append((key, [self._decision(o) for o in flatten(out)]))
        return out

    def _decision(self, out: Any) -> Any:
        """Indices and flags, none of them one per channel, and numbers: they may decide where the pass goes."""
        if not isinstance(out, torch.Tensor):
            return out if isinstance(out, (bool, int, float)) else None
        plain = not out.is_floating_point() and not self.factors(out)
        return out.clone() if plain else None

    def _decided(self, key: str, out: Any) -> Any:
        """The same result with the decisions of the original's pass: the values of the pruned model may differ."""
        assert self.script is not None
        then, decisions = next(self.script, ("", []))
        if then != key:
            return out
        own = [d.clone() if isinstance(d, torch.Tensor) else d for d in decisions]  # the pass may write into them
        found = [o if d is None else d for o, d in zip(flatten(out), own, strict=False)]
        return type(out)(found) if isinstance(out, (tuple, list)) else found[0] if found else out

    def _follow(self, call: Call, key: str, tensors: list[torch.Tensor], leaves: list[Any]) -> None:
        """Let the labels ride along one operation, and log it."""
        infos = [self._known(t) for t in tensors]
        for info in infos:
            if info.name:
                self.touched.add(info.name)
        out = call.out if isinstance(call.out, (tuple, list)) else (call.out,)
        outs = [o for o in out if isinstance(o, torch.Tensor)]
        sizes = tuple([tuple(o.shape) for o in outs])
        scalars = self._scalars(call, leaves)
        labelled = any(info.factors for info in infos)
        copies = call.name in COPIES  # of the very tensor: the check takes a copy for it
        of = (key, scalars, sizes, call.shapes, tuple(infos if copies else [i.like or i for i in infos]))
        before = len(self.pieces)
        found = self.earlier.take(of, labelled) if self.earlier is not None and self.repeated is None else None
        given = self._labelled(call, infos, outs, labelled) if found is None else self._recalled(found, outs)
        logged = None
        if not copies:
            logged = found.logged if found is not None else None  # one and the same, where it is on the very same
            if logged is None or logged.ins != tuple(infos):
                logged = Logged(key, scalars, sizes, given, tuple(infos), call.shapes)
            self.log.append(logged)
        if self.earlier is None and self.repeated is None and call.name not in _STRIDED:
            pieces = [(_position(p.out, outs), *p[:4]) for p in self.pieces[before:]]
            self.found.append(Finding(of, given, pieces, logged))

    def _recalled(self, found: Finding, outs: list[torch.Tensor]) -> tuple[Info, ...]:
        """What an earlier pass found of the same operation on the same."""
        for tensor, info in zip(outs, found.given, strict=True):
            self.mark(tensor, info)
        self.pieces += [Piece(factor, dim, start, stop, outs[i]) for i, factor, dim, start, stop in found.pieces]
        return found.given

    def _labelled(self, call: Call, infos: list[Info], outs: list[torch.Tensor], labelled: bool) -> tuple[Info, ...]:
        """What the rule of an operation says of its results."""
        static = bool(infos) and all(info.static for info in infos)
        for info in infos:
            for f in info.indices:
                self.freeze(f, f"indices of channels are used by {call.name}")
        produced = len(self.labels.produced)
        if labelled or (self.repeated is not None and call.name == "expand"):
            self.rules.get(call.name, unknown)(self, call)
        given = tuple([self._given(o, static) for o in outs])
        self._hand_on(call, infos, outs, given, made=len(self.labels.produced) > produced)
        if call.name in COPIES:
            for info in given:
                info.copied = infos[0].source()
        if labelled and not call.func.is_view:
            for info in given:
                if info.factors and not any(info is i for i in infos):
                    near = [i for i in infos if i.factors and i.factors[0] is info.factors[0]]
                    info.like = next((i.like or i for i in near if _alike(i, info)), None)
        return given

    def _hand_on(
        self, call: Call, infos: list[Info], outs: list[torch.Tensor], given: tuple[Info, ...], made: bool
    ) -> None:
        """Say who made the channels of a result, and note where an addition ties those of different layers."""
        if not outs or all(i.makers is None for i in infos):
            return
        itself = frozenset((len(self.log) + (self.earlier.operations if self.earlier is not None else 0),))
        if handed_on(call.name):
            makers = itself if made else united(i.makers for i in infos)
        else:
            tensors = [Held(i.factors, i.makers, s) for i, s in zip(infos, call.shapes, strict=True)]
            out = Held(given[0].factors, itself if made else None, tuple(outs[0].shape))
            makers, tied = follow(call.name, tensors, out, itself)
            self.labels.residual += tied
        for info in given:
            info.makers = makers

    def _known(self, tensor: torch.Tensor) -> Info:
        info: Info | None = getattr(tensor, MARK, None)
        if info is None:  # made outside of the pass: it is not ours to mark
            found = self._outside.get(id(tensor))
            if found is None:
                found = self._outside[id(tensor)] = tensor, Info([], name=_digest(tensor), outside=True)
            info = found[1]
        return info

    def _given(self, tensor: torch.Tensor, static: bool) -> Info:
        info: Info | None = getattr(tensor, MARK, None)
        if info is None:
            info = Info([])
        info.static = static
        self.mark(tensor, info)
        return info

    def mark(self, tensor: torch.Tensor, info: Info) -> None:
        """What is known of a result of the pass."""
        setattr(tensor, MARK, info)
        if self.made is not None and not info.name:
            self.made.append(weakref.ref(tensor))

    def _scalars(self, call: Call, leaves: list[Any]) -> tuple[Any, ...]:
        """The scalars of an operation that are no sizes: those are compared as shapes and labels."""
        if call.name == "lift_fresh":  # torch.tensor(...): its values
            return (_digest(call.args[0]),)
        elif call.name in SIZED:
            leaves = leaves[SIZED[call.name] :] if SIZED[call.name] else []
        elif call.name == "convolution":
            leaves = leaves[:-1]  # the groups of a depthwise one are a size
        scalars = tuple([int(v) if type(v) is Size else v for v in leaves if not isinstance(v, torch.Tensor)])
        written = _OPERATIONS[call.func].written
        return scalars if not written else (*scalars, *[hasattr(call.arg(*w), COPIED) for w in written])

    def numbers(self, out: torch.Tensor, values: tuple[Any, ...]) -> None:
        """User code made a tensor of numbers: they have to be the same after the cut."""
        if self.info(out) is None:
            self.put(out, [])
        info = self.info(out)
        assert info is not None
        self.log.append(Logged("making a tensor of numbers", values, (tuple(out.shape),), (info,), (), ()))

    def _is_state(self) -> Callable[[torch.Tensor], bool]:
        used = {id(info) for op in self.log for info in op.ins}
        return lambda tensor: id(self.info(tensor)) in used

    def outputs(self, value: Any) -> None:
        """Network outputs keep their width, and stay the same tensors."""
        infos = [self._known(t) for t in tensors_of(value, self._is_state())]
        for info in infos:
            for f in (*info.factors, *info.indices):
                self.labels.freeze(f, Reason("it is an output of the network"))
        self.log.append(Logged("the network's output", (), (), (), tuple(infos), ()))


def _position(tensor: torch.Tensor, among: list[torch.Tensor]) -> int:
    return next(i for i, t in enumerate(among) if t is tensor)


def identical(one: Sequence[Factor], two: Sequence[Factor]) -> bool:
    """Whether two tensors have the very same factors."""
    return len(one) == len(two) and all(f is g for f, g in zip(one, two, strict=True))


def _alike(one: Info, two: Info) -> bool:
    """Whether rules cannot tell two tensors of one shape from each other, neither of them a view."""
    return (
        identical(one.factors, two.factors)
        and one.static == two.static
        and not one.indices
        and not two.indices
        and one.makers == two.makers
    )


def operation_name(operation: Any) -> str:
    """The name under which the table has an operation: `mine::op` of `torch.ops.mine.op`."""
    name = operation if isinstance(operation, str) else getattr(operation, "_qualified_op_name", None)
    if name is None and hasattr(operation, "_schema"):
        name = operation._schema.name
    if not isinstance(name, str):
        raise ModelError(f"rules: expected an operation such as torch.ops.mine.op, got {operation!r}")
    return name.removeprefix("aten::")


def unknown(capture: Capture, call: Call) -> None:
    capture.unknown(call)


def tensors_of(value: Any, state: Callable[[torch.Tensor], bool]) -> Iterator[torch.Tensor]:
    """All tensors in lists, tuples, mappings, dataclasses and other objects.

    `state`: whether the forward went on to use a tensor. What objects hold in objects of their own is then the
    network's: a cache of layers, for instance.
    """
    yield from _tensors_of(value, state, within=0, seen=set())


def _tensors_of(
    value: Any, state: Callable[[torch.Tensor], bool], within: int, seen: set[int]
) -> Iterator[torch.Tensor]:
    """`within`: how many objects it is in."""
    if isinstance(value, torch.Tensor):
        if within < 2 or not state(value):
            yield value
        return
    if id(value) in seen or value is None or isinstance(value, (str, bytes, int, float, type, nn.Module)):
        return
    seen.add(id(value))
    if isinstance(value, functools.partial):
        value = [value.func, value.args, value.keywords]
    if isinstance(value, Mapping):
        for v in value.values():
            yield from _tensors_of(v, state, within, seen)
    elif isinstance(value, _CONTAINERS):
        for v in value:
            yield from _tensors_of(v, state, within, seen)
    if not isinstance(value, _CODE):
        inside = within if dataclasses.is_dataclass(value) else within + 1
        for v in _attributes(value):
            yield from _tensors_of(v, state, inside, seen)


_CONTAINERS = (list, tuple, set, frozenset, collections.deque, KeysView, ValuesView, ItemsView)
_CODE = (types.ModuleType, types.FunctionType, types.MethodType, types.BuiltinFunctionType, torch.Generator)


def _attributes(value: Any) -> Iterator[Any]:
    yield from getattr(value, "__dict__", {}).values()
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            private = name.startswith("__") and not name.endswith("__")
            yield getattr(value, f"_{kind.__name__.lstrip('_')}{name}" if private else name, None)


# Whether a tensor is copied depends on its strides, not on what the network computes.
COPIES = frozenset("clone contiguous alias detach".split())
_STRIDED = frozenset(("as_strided", "as_strided_"))  # their strides are no scalars of the log
RESHAPES = frozenset("view _unsafe_view reshape _reshape_alias".split())
# Operations whose scalars are sizes, and how many of the last are not (negative: from there on).
SIZED = {
    **dict.fromkeys(
        "view _unsafe_view reshape _reshape_alias expand split split_with_sizes unsafe_split chunk repeat as_strided "
        "as_strided_ zeros ones full empty rand randn randint new_zeros new_ones new_full new_empty new_empty_strided "
        "empty_strided empty_permuted".split(),
        0,
    ),
    "affine_grid_generator": -1,  # align_corners
    "native_group_norm": -2,  # groups, eps
    "native_layer_norm": -1,  # eps
    "_fused_rms_norm": -1,
}


def _digest(tensor: torch.Tensor) -> str:
    """A name for a tensor that is made outside of the pass: what it holds, where it has data."""
    if type(tensor) is not torch.Tensor or tensor.is_meta or tensor.layout != torch.strided:
        return ""
    with _disable_current_modes():
        data = tensor.detach().cpu().resolve_conj().resolve_neg().reshape(-1).view(torch.uint8)
        return f"{tuple(tensor.shape)} {tensor.dtype} {digest(data.numpy())}"


def digest(data: npt.NDArray[Any]) -> str:
    return hashlib.sha1(data.tobytes()).hexdigest()


class Operation(NamedTuple):
    """What an operation is: its name for the table of rules, its name for the log, which arguments it writes, and
    whether it `copies` its first argument (False: it is a view of it, None: neither)."""

    name: str
    key: str
    written: tuple[tuple[int, str], ...]
    copies: bool | None


_OPERATIONS: dict[Any, Operation] = {}


def _operation(func: Any) -> Operation:
    name = func._schema.name.removeprefix("aten::")
    written = [
        (i, a.name) for i, a in enumerate(func._schema.arguments) if a.alias_info is not None and a.alias_info.is_write
    ]
    views = func.is_view or name in RESHAPES or name in COPIES
    copies = True if name in ("clone", "_reshape_copy") else False if views else None
    key = "reshape" if name in RESHAPES else str(func)
    _OPERATIONS[func] = Operation(name, key, tuple(written), copies)
    return _OPERATIONS[func]


def index(factor: Factor, dim: int, start: int, stop: int) -> Factor:
    """The labels of a range of a dim."""
    return factor[tuple(slice(start, stop) if d == dim else slice(None) for d in range(factor.ndim))]


def unlabelled(labels: Labels, size: int, reason: Reason) -> Factor:
    """Labels for channels that none has: they stay."""
    fresh = labels.fresh(size)
    labels.freeze(fresh, reason)
    return np.asarray(fresh)
