"""Integers that remember where they came from.

A `Size` is an `int` with an expression over module attributes and over the labelled dims of tensors. User code
computes with it as with any integer; where it arrives as the size of a labelled dim, it gives one equation.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, SupportsIndex

import numpy as np

from amct_pytorch.analyse.labels import Factor
from amct_pytorch.record import Setting


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


NUMBER = "its size is used as a number"
_DIVISOR = 64
VALUE = "its size becomes the value of a tensor"
PLAIN = "it is made a plain integer"
APART = "it was found to be another"


class Told(Protocol):
    """Hears that two expressions are equal, and what for: `text` says what is wrong where they are not any more, if it
    is not simply that."""

    def __call__(self, left: Expression, right: Expression, text: str = "") -> None: ...


class Size(int):
    """An integer with an origin. `told` is called with both sides when it was found equal to another, or another size
    to differ from it."""

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
        elif type(other) is Size:
            self.told(self.origin, other.origin, APART)
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
        if (rest := _cancelled(self, other)) is not None:
            return rest / 1
        found = int.__truediv__(self, other)
        if isinstance(found, float):
            return Ratio(found, self, other)
        if isinstance(other, float) and (by := _fraction(other)) and by[0] <= _DIVISOR:
            return Ratio(int.__int__(self) / float.__float__(other), _times(self, by[1]), by[0])
        return self.as_number(int.__truediv__, other)  # by another float, or something else

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

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """NumPy computes with plain integers; what it makes no integer of is a number."""
        found = getattr(ufunc, method)(*(int.__int__(v) if type(v) is Size else v for v in inputs), **options)
        if isinstance(found, (np.inexact, np.ndarray)) and found.dtype.kind in "fc":
            for size in (v for v in inputs if type(v) is Size):
                size.told(size.origin, int.__int__(size), NUMBER)
        return found


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


def _cancelled(product: object, factor: object) -> int | None:
    """What is left of a product of sizes without one of them (`x.numel() // x.shape[1]`), None where it is none."""
    if type(product) is not Size or type(factor) is not Size or int.__eq__(factor, 0):
        return None
    rest = _without(product.origin, factor.origin)
    if rest is None:
        return None
    value = int.__floordiv__(product, factor)
    return value if all(isinstance(leaf, int) for leaf in leaves(rest)) else Size(value, rest, product.told)


def _without(product: Expression, factor: Expression) -> Expression | None:
    if _same(product, factor):
        return 1
    if isinstance(product, Operation) and product.name == "mul":
        for one, two in ((product.left, product.right), (product.right, product.left)):
            if (rest := _without(one, factor)) is not None:
                return Operation("mul", rest, two)
    return None


def _same(one: Expression, two: Expression) -> bool:
    if isinstance(one, Dim) and isinstance(two, Dim):
        return one.dim == two.dim and np.array_equal(one.factor, two.factor)
    return one is two or (isinstance(one, Attribute) and one == two)


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
        if name == "floordiv" and (rest := _cancelled(a, b)) is not None:
            return rest
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
