"""Integers that remember where they came from, and what they have to become.

A `Size` is an `int` with an expression over module attributes and over the labelled dims of tensors. User code
computes with it as with any integer; where it arrives as the size of a labelled dim, it gives one equation.
"""

from __future__ import annotations

import copy
import math
import operator
import types
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, SupportsIndex

import numpy as np
import torch
from torch import nn

from amct_pytorch.analyse.labels import Factor, Labels, Mask, Reason, kept_along
from amct_pytorch.record import ChannelPlan, Setting
from amct_pytorch.structure import named_modules, tables_of_items


@dataclass(frozen=True)
class Attribute:
    """The value of a module's attribute."""

    setting: Setting
    value: int


@dataclass(frozen=True, eq=False)
class Dim:
    """The length of a dim along which a factor varies."""

    factor: Factor
    dim: int


@dataclass(frozen=True)
class Operation:
    """`name` of two expressions."""

    name: str
    left: Expression
    right: Expression


Expression = Attribute | Dim | Operation | int
ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "add": int.__add__,
    "sub": int.__sub__,
    "mul": int.__mul__,
    "floordiv": int.__floordiv__,
    "mod": int.__mod__,
}


@dataclass(frozen=True)
class Equation:
    """Two expressions that are equal before the cut and have to be equal after it, and where that was met."""

    left: Expression
    right: Expression
    reason: Reason


NUMBER = "its size is used as a number"
_DIVISOR = 64
VALUE = "its size becomes the value of a tensor"
PLAIN = "it is made a plain integer"


class Told(Protocol):
    """Hears that two expressions are equal, and what for: `text` says what is wrong where they are not any more, if it
    is not simply that."""

    def __call__(self, left: Expression, right: Expression, text: str = "") -> None: ...


class Size(int):
    """An integer with an origin. `told` is called with both sides when it was found equal to another."""

    origin: Expression
    told: Told

    def __new__(cls, value: int, origin: Expression, told: Told) -> Size:
        self = int.__new__(cls, value)
        self.origin = origin
        self.told = told
        return self

    def __deepcopy__(self, memo: object) -> Size:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return int, (int.__int__(self),)

    def __eq__(self, other: object) -> bool:
        same = int.__eq__(self, other)
        if same is True and isinstance(other, int):
            self.told(self.origin, origin(other))
        return same

    def __ne__(self, other: object) -> bool:
        same = Size.__eq__(self, other)
        return same if same is NotImplemented else not same

    __hash__ = int.__hash__

    def __int__(self) -> int:
        """`int(size)` has to be a plain one: who hears of it may know it again by its value."""
        value = int.__int__(self)
        self.told(self.origin, value, PLAIN)
        return value

    def as_number(self, compute: Callable[..., Any], *others: Any) -> Any:
        """What is computed of a size that is no size, as the square root of one: it has to stay."""
        found = compute(self, *others)
        if isinstance(found, float) or any(isinstance(o, float) for o in others):
            self.told(self.origin, int.__int__(self), NUMBER)
        return found

    def __float__(self) -> float:
        return self.as_number(int.__float__)  # type: ignore[no-any-return]

    def __pow__(self, *others: Any) -> Any:
        return self.as_number(int.__pow__, *others)

    def __rpow__(self, *others: Any) -> Any:
        return self.as_number(int.__rpow__, *others)

    def __truediv__(self, other: Any) -> Any:
        found = int.__truediv__(self, other)
        if isinstance(found, float):
            return Ratio(found, self, other)
        return self.as_number(int.__truediv__, other)  # by a float, or something else

    def __rtruediv__(self, other: Any) -> Any:
        return self.as_number(int.__rtruediv__, other)

    def __floor__(self) -> Size:
        return self

    __ceil__ = __trunc__ = __pos__ = __floor__

    def __round__(self, digits: SupportsIndex | None = None) -> int:
        return self if digits is None else int.__round__(self, digits)

    def __neg__(self) -> Size:
        return Size(int.__neg__(self), Operation("sub", 0, self.origin), self.told)

    def __rshift__(self, other: int) -> Any:
        return self // (1 << other)

    def __lshift__(self, other: int) -> Any:
        return self * (1 << other)

    def __divmod__(self, other: int) -> tuple[int, int]:
        return self // other, self % other


class Ratio(float):
    """A size that was divided, or multiplied with a fraction: it may be compared, or be made an integer again; as
    another number it has to stay."""

    size: Size
    by: int

    def __new__(cls, value: float, size: Size, by: int) -> Ratio:
        self = float.__new__(cls, value)
        self.size, self.by = size, by
        return self

    def __deepcopy__(self, memo: object) -> Ratio:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return float, (float.__float__(self),)

    def as_number(self) -> float:
        self.size.told(self.size.origin, int.__int__(self.size), NUMBER)
        return float.__float__(self)

    def __floor__(self) -> int:
        return self.size // self.by

    def __ceil__(self) -> int:
        return self.__floor__() if self.is_integer() else -(-self.size // self.by)

    def __trunc__(self) -> int:
        return self.__ceil__() if self < 0 else self.__floor__()

    def __int__(self) -> int:
        return int(self.__trunc__())

    def __round__(self, digits: SupportsIndex | None = None) -> Any:
        even = digits is None and self.is_integer()
        return self.__floor__() if even else round(self.as_number(), digits)

    def __float__(self) -> float:
        return self.as_number()

    def __eq__(self, other: object) -> bool:
        return self.as_number() == other

    def __ne__(self, other: object) -> bool:
        return self.as_number() != other

    __hash__ = float.__hash__


def _of_ratio(name: str) -> Callable[..., Any]:
    compute = getattr(operator, name)
    return lambda self, *others: compute(self.as_number(), *others)


def _by_ratio(name: str) -> Callable[..., Any]:
    compute = getattr(operator, name)
    return lambda self, other: compute(other, self.as_number())


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    setattr(Ratio, f"__{_name}__", _of_ratio(_name))
    setattr(Ratio, f"__r{_name}__", _by_ratio(_name))
for _name in ("neg", "pos", "abs"):
    setattr(Ratio, f"__{_name}__", _of_ratio(_name))


def origin(value: int) -> Expression:
    return value.origin if isinstance(value, Size) else operator.index(value)  # of numpy, too


def _fraction(number: float) -> tuple[int, int] | None:
    """A positive number as a quotient, None where there is none with a small divisor that it is exactly."""
    if not 0 < number < math.inf:
        return None
    quotient = number.as_integer_ratio()
    return quotient if quotient[1] <= _DIVISOR else None


def _times(size: Size, n: int) -> Size:
    return size if n == 1 else Size(int.__int__(size) * n, Operation("mul", size.origin, n), size.told)


def _operator(name: str, swapped: bool) -> Callable[[Size, object], Any]:
    compute = ARITHMETIC[name]
    special = getattr(int, f"__{'r' if swapped else ''}{name}__")

    def operate(self: Size, other: object) -> Any:
        if name == "mul" and isinstance(other, float) and (by := _fraction(other)):
            return Ratio(int.__int__(self) * float.__float__(other), _times(self, by[0]), by[1])
        if not isinstance(other, int):
            return self.as_number(special, other)
        a, b = (other, self) if swapped else (self, other)
        if name == "mul" and any(type(v) is not Size and v == 0 for v in (a, b)):
            return 0  # whatever the size becomes
        return Size(compute(a, b), Operation(name, origin(a), origin(b)), self.told)

    return operate


for _name in ARITHMETIC:
    setattr(Size, f"__{_name}__", _operator(_name, False))
    setattr(Size, f"__r{_name}__", _operator(_name, True))


def leaves(expression: Expression) -> Iterator[Attribute | Dim | int]:
    if isinstance(expression, Operation):
        yield from leaves(expression.left)
        yield from leaves(expression.right)
    else:
        yield expression


def attributes(expression: Expression) -> list[Attribute]:
    return [e for e in leaves(expression) if isinstance(e, Attribute)]


def evaluate(expression: Expression, values: Mapping[Setting, int], keep: Mask) -> int | None:
    """The value after the cut, where `keep` says which labels stay; None where an attribute's is not known yet."""
    if isinstance(expression, int):
        return expression
    if isinstance(expression, Dim):
        return int(kept_along(keep, expression.factor, expression.dim).sum())
    if isinstance(expression, Attribute):
        return values.get(expression.setting)
    left, right = evaluate(expression.left, values, keep), evaluate(expression.right, values, keep)
    if left is None or right is None or (right == 0 and expression.name in ("floordiv", "mod")):
        return None
    return ARITHMETIC[expression.name](left, right)


def solve(equations: list[Equation], keep: Mask) -> tuple[dict[Setting, int], list[Equation]]:
    """The new value of every attribute that an equation speaks of, and the equations that no values satisfy."""
    values: dict[Setting, int] = {}
    old: dict[Setting, int] = {}
    for e in equations:
        for a in attributes(e.left) + attributes(e.right):
            old[a.setting] = a.value
    open_ = list(equations)
    while open_:
        rest = [e for e in open_ if not _solve_one(e, values, old, keep)]
        if len(rest) == len(open_):
            # Nothing follows from what is known: an attribute that no equation decides stays as it is.
            unknown = [
                a.setting for e in rest for s in (e.left, e.right) for a in attributes(s) if a.setting not in values
            ]
            if not unknown:
                break
            values[unknown[0]] = old[unknown[0]]
        open_ = rest
    wrong = [e for e in equations if evaluate(e.left, values, keep) != evaluate(e.right, values, keep)]
    return {s: v for s, v in values.items() if v != old[s]}, wrong


def couple(equations: list[Equation], labels: Labels) -> None:
    """Dims that an equation makes equal, or that one attribute counts, lose equally many channels; those that an
    attribute counts which keeps its value lose none."""
    counted: dict[Setting, list[Factor]] = {}
    kept = set()
    for e in equations:
        for leaf in _kept(e):
            if isinstance(leaf, Attribute):
                kept.add(leaf.setting)
            elif isinstance(leaf, Dim):
                labels.keep(leaf.factor, leaf.dim, e.reason)
    for e in equations:
        for one, two in ((e.left, e.right), (e.right, e.left)):
            if isinstance(one, Attribute) and one.setting in kept and isinstance(two, Dim):
                labels.keep(two.factor, two.dim, e.reason)
        sides = [
            s.factor.ravel() for s in (e.left, e.right) if isinstance(s, Dim) and s.factor.size == s.factor.shape[s.dim]
        ]
        names = [s.setting for s in (e.left, e.right) if isinstance(s, Attribute)]
        if len(sides) == 2:
            _balance(labels, sides)
        elif sides and names:
            counted.setdefault(names[0], []).append(sides[0])
    for factors in counted.values():
        _balance(labels, factors)


def _kept(e: Equation) -> list[Attribute | Dim | int]:
    """What an equation with a number keeps as it is: all of a sum or a product, as nothing grows; not of `a // b`."""
    for one, two in ((e.left, e.right), (e.right, e.left)):
        if isinstance(one, int) and _grows(two):
            return list(leaves(two))
    return []


def _grows(e: Expression) -> bool:
    """Whether an expression is larger where any part of it is."""
    return not isinstance(e, Operation) or (e.name in ("add", "mul") and _grows(e.left) and _grows(e.right))


def _balance(labels: Labels, factors: list[Factor]) -> None:
    rows = list({f.tobytes(): f for f in factors if f.size == factors[0].size}.values())
    if len(rows) > 1:
        labels.balance(np.stack(rows))


def _solve_one(e: Equation, values: dict[Setting, int], old: Mapping[Setting, int], keep: Mask) -> bool:
    """Find the one unknown attribute of an equation; whether nothing is unknown in it (any more)."""
    left, right = evaluate(e.left, values, keep), evaluate(e.right, values, keep)
    if left is not None and right is not None:
        return True
    if right is not None:
        return _invert(e.left, right, values, old, keep)
    return left is not None and _invert(e.right, left, values, old, keep)


def _invert(e: Expression, target: int, values: dict[Setting, int], old: Mapping[Setting, int], keep: Mask) -> bool:
    if isinstance(e, Attribute):
        values[e.setting] = target
        return True
    if not isinstance(e, Operation):
        return False
    if e.name == "floordiv":  # of several solutions, as of n // 2 = 4, the value that it has
        same = {a.setting: old[a.setting] for a in attributes(e) if a.setting not in values}
        if len(same) == 1 and evaluate(e, {**values, **same}, keep) == target:
            values.update(same)
            return True
    left, right = evaluate(e.left, values, keep), evaluate(e.right, values, keep)
    if right is not None:
        if e.name == "mul" and right and target % right == 0:
            return _invert(e.left, target // right, values, old, keep)
        if e.name == "floordiv" and right:
            return _invert(e.left, target * right, values, old, keep)
        if e.name in ("add", "sub"):
            return _invert(e.left, target - right if e.name == "add" else target + right, values, old, keep)
    if left is not None:
        if e.name == "mul" and left and target % left == 0:
            return _invert(e.right, target // left, values, old, keep)
        if e.name in ("add", "sub"):
            return _invert(e.right, target - left if e.name == "add" else left - target, values, old, keep)
        if e.name == "floordiv" and target and left % target == 0:
            return _invert(e.right, left // target, values, old, keep)
    return False


Make = Callable[[Setting, int], int]
NOTHING: Mapping[int, Any] = types.MappingProxyType({})
DEPTH = 2  # how deep in objects of objects sizes are looked for


def mark(model: nn.Module, told: Told, original: nn.Module | None = None) -> None:
    """Replace the integers in the attributes of every module of `model` (a copy of `original`) with sizes.

    Tuples, lists and dictionaries of integers too, and configuration objects that are no module.
    """
    held = ((name, vars(module)) for name, module in named_modules(model))
    theirs = NOTHING if original is None else objects(original)
    replace(held, lambda setting, value: Size(value, Attribute(setting, value), told), theirs)


def objects(model: nn.Module) -> dict[int, Any]:
    """The dictionaries and configuration objects of a model in which sizes are looked for, by identity."""
    found: dict[int, Any] = {}
    for _, module in named_modules(model):
        _objects(vars(module), found, depth=0)
    return found


def replace(held: Iterable[tuple[str, dict[str, Any]]], make: Make, theirs: Mapping[int, Any] = NOTHING) -> None:
    """Put `make(setting, value)` in the place of every integer above 1, in place; what is met twice has its first path.

    `held`: modules by their path and attributes, in the order of `named_modules`. `theirs`: objects, by identity, that
    stay as they are: a copy takes their place, where they can be copied.
    """
    walk = _Replacing(make, theirs)
    for name, members in held:
        walk.members(members, name, "{}", depth=0)


class _Replacing:
    """One walk through modules and what they hold."""

    def __init__(self, make: Make, theirs: Mapping[int, Any]) -> None:
        self.make, self.theirs = make, theirs
        self.done: dict[int, Any] = {}  # what takes the place of each object
        self.kept: list[Any] = []  # so that no identity is taken twice

    def members(self, members: dict[Any, Any], module: str, path: str, depth: int) -> None:
        tables = () if depth else tables_of_items(members)
        for key, value in list(members.items()):
            if type(value) is dict and not depth and key.startswith("_"):
                continue  # a module's own tables
            if type(value) not in _NO_SIZES and isinstance(key, str):
                new = self.value(value, module, path.format(key), depth)
                if new is not value:
                    members[key] = new
        for table, of in tables:
            members[table] = tuple(members[of].items())

    def value(self, value: Any, module: str, path: str, depth: int) -> Any:
        if type(value) is int:
            return self.make(Setting(module, path), value) if value > 1 else value
        if type(value) in _SEQUENCES and _of_integers(value):
            return type(value)(self.value(v, module, f"{path}[{i}]", depth) for i, v in enumerate(value))
        if not holds_sizes(value, path) or depth == DEPTH:
            return value
        if id(value) not in self.done:
            own = copy.copy(value) if id(value) in self.theirs else value
            self.done[id(value)] = self.done[id(own)] = own
            self.kept.append((value, own))
            if id(own) not in self.theirs:
                escaped = path.replace("{", "{{").replace("}", "}}")
                if type(own) is dict:
                    self.members(own, module, escaped + "['{}']", depth + 1)
                else:
                    self.members(vars(own), module, escaped + ".{}", depth + 1)
        return self.done[id(value)]


def _of_integers(values: Sequence[Any], depth: int = 0) -> bool:
    """Whether there are integers alone in a sequence, or in sequences of it."""
    for v in values:
        if type(v) is not int and not (depth < DEPTH and type(v) in _SEQUENCES and _of_integers(v, depth + 1)):
            return False
    return bool(values)


def _objects(members: Mapping[Any, Any], found: dict[int, Any], depth: int) -> None:
    for key, value in members.items():
        if type(value) in NO_OBJECTS or id(value) in found:
            continue
        if isinstance(key, str) and holds_sizes(value, key):
            found[id(value)] = value
            if depth + 1 < DEPTH:
                _objects(value if type(value) is dict else vars(value), found, depth + 1)


def holds_sizes(value: Any, path: str) -> bool:
    """Whether a value is an object or a dictionary in which sizes are looked for; `path`: where a module has it."""
    if type(value) in _NO_SIZES:
        return False
    return not path.startswith("_") if type(value) is dict else is_configuration(value)


_NO_SIZES = frozenset((bool, float, str, type(None), set, OrderedDict, torch.Tensor, nn.Parameter, ChannelPlan))
_SEQUENCES = frozenset((tuple, list, torch.Size))
NO_OBJECTS = _NO_SIZES | _SEQUENCES | {int}  # no objects in which sizes are looked for
_NOT_CONFIGURATION = (
    int,
    str,
    nn.Module,
    torch.Tensor,
    type,
    types.FunctionType,
    types.MethodType,
    types.ModuleType,
)


def is_configuration(value: Any) -> bool:
    """Whether a value is an object that may hold sizes, and no module or code."""
    return hasattr(value, "__dict__") and not isinstance(value, _NOT_CONFIGURATION) and not callable(value)
