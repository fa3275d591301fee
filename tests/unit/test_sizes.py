"""Sizes with an origin: arithmetic is that of integers, and each number that is made of one tells it."""

from __future__ import annotations

import copy
import math
import operator
import pickle
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from amct_pytorch.analyse.equations import evaluate
from amct_pytorch.analyse.sizes import NUMBER, PLAIN, Attribute, Expression, Operation, Size, leaves, origin
from amct_pytorch.record import Setting


def attribute(name: str, value: int) -> Attribute:
    return Attribute(Setting("m", name), value)


def size(name: str, value: int, told: Any = lambda a, b, text="": None) -> Size:
    return Size(value, attribute(name, value), told)


OPERATORS = [operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod]


@pytest.mark.parametrize("compute", OPERATORS)
@pytest.mark.parametrize(("a", "b"), [(12, 4), (7, 3), (3, 7), (-7, 3), (5, 5)])
def test_arithmetic_is_that_of_integers(compute: Any, a: int, b: int) -> None:
    for x, y in ((size("a", a), b), (a, size("b", b)), (size("a", a), size("b", b))):
        found = compute(x, y)
        assert found == compute(a, b)
        assert isinstance(found, Size)
        assert [leaf.value if isinstance(leaf, Attribute) else leaf for leaf in leaves(origin(found))] == [a, b]
        values = {Setting("m", "a"): a, Setting("m", "b"): b}
        assert evaluate(origin(found), values, np.ones(0, np.bool_)) == compute(a, b)


def test_shifts_are_products_and_quotients() -> None:
    a = size("a", 13)
    for found, want in ((a >> 2, Operation("floordiv", origin(a), 4)), (a << 2, Operation("mul", origin(a), 4))):
        assert origin(found) == want
    assert (a >> 2, a << 2) == (3, 52)


def test_what_is_no_integer_has_no_origin() -> None:
    for value in (size("a", 6) / 2, size("a", 6) ** 0.5, size("a", 6) * 0.5, float(size("a", 6)), int(size("a", 6))):
        assert not isinstance(value, Size)


@pytest.mark.parametrize(
    ("compute", "want"),
    [
        (float, 6.0),
        (math.sqrt, math.sqrt(6)),
        (lambda a: a**0.5, 6**0.5),
        (lambda a: a**-1, 1 / 6),
        (lambda a: a / 4, 1.5),
        (lambda a: 3 / a, 0.5),
        (lambda a: a * 0.5, 3.0),
        (np.sqrt, math.sqrt(6)),
        (lambda a: np.float64(0.5) * a, 3.0),
        (lambda a: (np.arange(2.0) / a)[1], 1 / 6),
    ],
)
def test_a_number_that_is_computed_tells_that_its_size_stays(compute: Any, want: float) -> None:
    told: list[tuple[Expression, ...]] = []
    a = size("a", 6, lambda x, y, text: told.append((x, y, text)))
    assert compute(a) == want
    assert told == [(attribute("a", 6), 6, NUMBER)]


def test_integers_of_numpy_tell_nothing() -> None:
    told: list[tuple[object, ...]] = []
    a = size("a", 6, lambda *what: told.append(what))
    assert [np.multiply(a, 3), np.int64(2) * a, np.maximum(a, 7)] == [18, 12, 7]
    assert np.array_equal(np.arange(2) + a, [6, 7])
    assert not told


def test_powers_that_are_integers_tell_nothing() -> None:
    told: list[tuple[Expression, ...]] = []
    a = size("a", 6, lambda *what: told.append(what))
    assert (a**2, 2**a, f"{a}") == (36, 64, "6")
    assert not told


def test_a_plain_integer_is_told_of() -> None:
    told: list[tuple[object, ...]] = []
    a = size("a", 6, lambda *what: told.append(what))
    assert type(int(a)) is int
    assert told == [(attribute("a", 6), 6, PLAIN)]


@pytest.mark.parametrize("use", [lambda r: r > 2, lambda r: r <= 4, lambda r: r < 5.5, lambda r: f"{r}", str, repr])
def test_a_quotient_may_be_compared(use: Any) -> None:
    told: list[tuple[object, ...]] = []
    assert use(size("a", 6, lambda *what: told.append(what)) / 2) == use(3.0)
    assert not told


USES = [
    float,
    abs,
    lambda r: -r,
    lambda r: r + 1,
    lambda r: 1 - r,
    lambda r: r * 2.5,
    lambda r: 2 / r,
    lambda r: r**0.5,
    lambda r: 2**r,
    lambda r: r // 2,
    lambda r: 7 % r,
    lambda r: r == 3,
    lambda r: r != 3.0,
]


@pytest.mark.parametrize("use", USES)
def test_a_quotient_as_a_number_tells_that_its_size_stays(use: Any) -> None:
    told: list[tuple[object, ...]] = []
    assert use(size("a", 6, lambda *what: told.append(what)) / 2) == use(3.0)
    assert told == [(attribute("a", 6), 6, NUMBER)]


@pytest.mark.parametrize("number", [0.5, 0.375, 1.0, 1.5, 4.0, 1 / 64])
def test_a_fraction_of_a_size_may_be_an_integer_again(number: float) -> None:
    told: list[tuple[object, ...]] = []
    for value in range(1, 50):
        a = size("a", value, lambda *what: told.append(what))
        for round_ in (math.floor, math.ceil):
            found = round_(a * number)
            assert isinstance(found, Size)
            whole = (value * number).is_integer()  # then it is rounded down: which of both is meant is not known
            for other in range(1, 50):
                after = evaluate(origin(found), {Setting("m", "a"): other}, np.ones(0, np.bool_))
                assert after == (math.floor if whole else round_)(other * Fraction(number))
    assert not told


@pytest.mark.parametrize("number", [0.5, 0.25, 0.375, 1.0, 1.5, 4.0])
def test_a_size_by_a_fraction_may_be_an_integer_again(number: float) -> None:
    told: list[tuple[object, ...]] = []
    for value in range(1, 50):
        found = math.floor(size("a", value, lambda *what: told.append(what)) / number)
        assert isinstance(found, Size)
        assert int.__int__(found) == math.floor(value / number)
        for other in range(1, 50):
            after = evaluate(origin(found), {Setting("m", "a"): other}, np.ones(0, np.bool_))
            assert after == math.floor(other / Fraction(number))
    assert not told


@pytest.mark.parametrize("number", [0.3, 1.1, -0.5, 0.0, math.inf, math.nan, 1 / 128])
def test_other_multiples_tell_that_a_size_stays(number: float) -> None:
    told: list[tuple[object, ...]] = []
    a = size("a", 6, lambda *what: told.append(what))
    assert type(a * number) is float
    assert told == [(attribute("a", 6), 6, NUMBER)]


def test_a_quotient_may_be_an_integer_again() -> None:
    told: list[tuple[object, ...]] = []
    a = size("a", 6, lambda *what: told.append(what))
    half = Operation("floordiv", attribute("a", 6), 2)
    for floor in (math.floor, math.ceil, math.trunc):
        found = floor(a / 2)
        assert isinstance(found, Size)
        assert origin(found) == half
    assert not told
    assert type(int(a / 2)) is int
    assert told == [(half, 3, PLAIN)]
    assert int(a / 4) == 1
    assert told[1:] == [(Operation("floordiv", attribute("a", 6), 4), 1, PLAIN)]
    assert type(pickle.loads(pickle.dumps(a / 2))) is float


@pytest.mark.parametrize("by", [4, -4])
@pytest.mark.parametrize("to", [math.floor, math.ceil, math.trunc])
def test_an_uneven_quotient_becomes_the_integer_that_it_is_of_any_size(by: int, to: Any) -> None:
    found = to(size("a", 30) / by)
    assert type(found) is Size
    assert found == to(30 / by)
    for n in range(1, 31):
        assert evaluate(origin(found), {Setting("m", "a"): n}, np.zeros(0, np.bool_)) == to(n / by)


def test_a_rounded_quotient_is_a_size_where_it_is_even() -> None:
    told: list[tuple[object, ...]] = []
    a = size("a", 6, lambda *what: told.append(what))
    assert origin(round(a / 2)) == Operation("floordiv", attribute("a", 6), 2)
    assert not told
    assert (round(a / 4), round(a / 4, 1)) == (2, 1.5)
    assert told == [(attribute("a", 6), 6, NUMBER)] * 2


def test_a_factor_of_a_product_cancels() -> None:
    told: list[tuple[object, ...]] = []
    a, b, c = (size(n, v, lambda *what: told.append(what)) for n, v in (("a", 6), ("b", 4), ("c", 2)))
    assert (2 * a * 5 // a, a // a, 3 * a / a) == (10, 1, 3.0)
    assert [type(n) for n in (2 * a * 5 // a, a // a, 3 * a / a)] == [int, int, float]
    found = a * b * c // b
    assert found + 0 == 12
    assert set(leaves(origin(found))) == {attribute("a", 6), attribute("c", 2), 1}
    assert math.floor(a * b / a) + 0 == 4
    assert told == [(Operation("add", origin(found), 0), 12)] + [(origin(math.floor(a * b / a) + 0), 4)]


def test_other_quotients_do_not_cancel() -> None:
    a, b = size("a", 6), size("b", 6)
    for found in ((a + b) // a, a * 2 // b, a // b, 6 // a, a // 6):
        assert type(found) is Size
        assert isinstance(origin(found), Operation)


def test_equality_tells_both_sides() -> None:
    told: list[tuple[Expression, Expression]] = []
    a = size("a", 6, lambda x, y: told.append((x, y)))
    assert a == 6
    assert told == [(attribute("a", 6), 6)]
    assert (a != 6) is False
    assert len(told) == 2
    assert a != 7
    assert len(told) == 2
    assert hash(a) == hash(6)
    assert {6: "six"}[a] == "six"


def test_copies_and_pickles() -> None:
    a = size("a", 6)
    assert copy.deepcopy([a])[0] is a
    loaded = pickle.loads(pickle.dumps(a))
    assert type(loaded) is int
    assert loaded == 6
