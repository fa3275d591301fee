"""Sizes with an origin: arithmetic is that of integers, and what is solved satisfies the equations, against brute
force."""

from __future__ import annotations

import copy
import itertools
import logging
import math
import operator
import pickle
from dataclasses import dataclass
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch import nn

from amct_pytorch.analyse.labels import Labels, Reason
from amct_pytorch.analyse.sizes import (
    NUMBER,
    PLAIN,
    Attribute,
    Dim,
    Equation,
    Expression,
    Operation,
    Size,
    couple,
    evaluate,
    leaves,
    mark,
    origin,
    solve,
)
from amct_pytorch.record import Setting

WHY = Reason("here")


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
    ],
)
def test_a_number_that_is_computed_tells_that_its_size_stays(compute: Any, want: float) -> None:
    told: list[tuple[Expression, ...]] = []
    a = size("a", 6, lambda x, y, text: told.append((x, y, text)))
    assert compute(a) == want
    assert told == [(attribute("a", 6), 6, NUMBER)]


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


@pytest.mark.parametrize(("left", "kept"), [("sum", True), ("attribute", True), ("quotient", False)])
def test_a_dim_stays_whose_attribute_keeps_its_value(left: str, kept: bool) -> None:
    """`a + b * 2 == 30`, `a == 6`; not `b // a == 2`, which others satisfy."""
    labels = Labels()
    f = labels.fresh(6)
    a, b = attribute("a", 6), attribute("b", 12)
    equation = {
        "sum": Equation(Operation("add", a, Operation("mul", b, 2)), 30, WHY),
        "attribute": Equation(a, 6, WHY),
        "quotient": Equation(Operation("floordiv", b, a), 2, WHY),
    }[left]
    couple([Equation(Dim(f, 0), a, WHY), equation], labels)
    assert [frozen is f for frozen, _ in labels.frozen] == [True] * kept


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


def dim(full: int, gone: int, start: int = 0) -> tuple[Dim, np.ndarray]:
    keep = np.ones(start + full, np.bool_)
    keep[start : start + gone] = False
    return Dim(np.arange(start, start + full), 0), keep


@pytest.mark.parametrize(
    ("build", "before", "want"),
    [
        (lambda a: a, 12, 9),
        (lambda a: a * 2, 6, None),  # twice an integer is not 9
        (lambda a: a * 3, 4, 3),
        (lambda a: 3 * a, 4, 3),
        (lambda a: a + 2, 10, 7),
        (lambda a: 14 - a, 2, 5),
        (lambda a: a - 3, 15, 12),
        (lambda a: a * 2 - 4, 8, None),
    ],
)
def test_one_equation(build: Any, before: int, want: int | None) -> None:
    """`build(a)` is the length of a dim of 12 of which 3 go; by brute force, a = want is the only solution."""
    d, keep = dim(12, 3)
    a = size("a", before)
    expression = origin(build(a))
    assert evaluate(expression, {Setting("m", "a"): before}, np.ones(12, np.bool_)) == 12
    values, wrong = solve([Equation(expression, d, WHY)], keep)
    solutions = [v for v in range(1, 50) if evaluate(expression, {Setting("m", "a"): v}, keep) == 9]
    if want is None:
        assert not solutions
        assert wrong
    else:
        assert solutions == [want]
        assert values == {Setting("m", "a"): want}
        assert not wrong


def test_of_several_solutions_the_old_value_stays() -> None:
    """9 // 2 is 4, and so is 8 // 2; where 3 are left, 9 does not do, and the least that does is 6."""
    d, keep = dim(4, 1)
    half = Operation("floordiv", attribute("a", 9), 2)
    assert solve([Equation(half, 4, WHY)], keep) == ({}, [])
    assert solve([Equation(half, d, WHY)], keep) == ({Setting("m", "a"): 6}, [])
    by = Operation("floordiv", attribute("b", 32), attribute("a", 8))
    assert solve([Equation(attribute("b", 32), 16, WHY), Equation(by, 4, WHY)], keep)[0] == {
        Setting("m", "b"): 16,
        Setting("m", "a"): 4,
    }


def test_marks_copies_of_what_the_original_holds_too() -> None:
    class Alone(SimpleNamespace):
        def __deepcopy__(self, memo: object) -> Alone:
            return self

    options, log = Alone(width=8, deep=Alone(heads=4)), logging.getLogger("amct_pytorch.tests")
    log.setLevel(20)
    model = nn.Module()
    model.a, model.b = nn.Module(), nn.Module()
    model.a.options = model.b.options = options
    model.a.log = log
    twin = copy.deepcopy(model)
    assert twin.a.options is options
    mark(twin, lambda a, b: None, model)
    assert twin.a.options is twin.b.options
    assert origin(twin.b.options.width).setting == Setting("a", "options.width")
    assert origin(twin.b.options.deep.heads).setting == Setting("a", "options.deep.heads")
    assert [type(v) for v in (options.width, options.deep.heads, log.level)] == [int, int, int]
    assert twin.a.log is log


def test_systems_against_brute_force() -> None:
    """Two attributes, two or three equations of products and sums over dims that shrink."""
    random = np.random.default_rng(0)
    solved = 0
    for _ in range(200):
        heads, width = (int(v) for v in random.integers(2, 6, 2))
        gone_heads = int(random.integers(0, heads))
        gone_width = int(random.integers(0, width))
        keep = np.ones(heads + width + heads * width, np.bool_)
        keep[:gone_heads] = False
        keep[heads : heads + gone_width] = False
        left = (heads - gone_heads) * (width - gone_width)
        keep[heads + width : heads + width + heads * width - left] = False
        a, b = size("heads", heads), size("width", width)
        dims = [
            Dim(np.arange(lo, hi), 0) for lo, hi in ((0, heads), (heads, heads + width), (heads + width, len(keep)))
        ]
        every = [
            Equation(origin(a), dims[0], WHY),
            Equation(dims[1], origin(b), WHY),
            Equation(origin(a * b), dims[2], WHY),
            Equation(dims[2], Operation("mul", dims[0], origin(b)), WHY),
        ]
        chosen = [every[i] for i in random.permutation(4)[: random.integers(2, 5)]]
        values, wrong = solve(chosen, keep)
        full = {Setting("m", "heads"): heads, Setting("m", "width"): width, **values}
        assert bool(wrong) == any(evaluate(e.left, full, keep) != evaluate(e.right, full, keep) for e in chosen)
        brute = [
            (x, y)
            for x, y in itertools.product(range(1, 6), repeat=2)
            if all(
                evaluate(e.left, {Setting("m", "heads"): x, Setting("m", "width"): y}, keep)
                == evaluate(e.right, {Setting("m", "heads"): x, Setting("m", "width"): y}, keep)
                for e in chosen
            )
        ]
        assert not wrong
        assert (full[Setting("m", "heads")], full[Setting("m", "width")]) in brute
        solved += 1
    assert solved == 200


def test_a_contradiction_is_told() -> None:
    d, keep = dim(12, 3)
    a = attribute("a", 12)
    _, wrong = solve([Equation(a, d, WHY), Equation(a, 12, WHY)], keep)
    assert wrong


def test_marks_what_a_module_holds() -> None:
    @dataclass
    class Config:
        heads: int = 4
        ratio: float = 0.5

    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = Config()

    model = nn.Module()
    model.width, model.flag, model.one, model.ratio, model.name = 16, True, 1, 0.5, "x"
    model.pair, model.options, model.mixed = (8, 4), {"dim": 6, "deep": {"n": 3}}, [1.5, 2]
    model.inner = Inner()
    model.conv = nn.Conv2d(3, 16, 3)
    mark(model, lambda a, b: None)
    paths = {
        origin(v).setting
        for v in (
            model.width,
            *model.pair,
            model.options["dim"],
            model.options["deep"]["n"],
            model.inner.config.heads,
            model.conv.out_channels,
        )
    }
    assert paths == {
        Setting("", "width"),
        Setting("", "pair[0]"),
        Setting("", "pair[1]"),
        Setting("", "options['dim']"),
        Setting("", "options['deep']['n']"),
        Setting("inner", "config.heads"),
        Setting("conv", "out_channels"),
    }
    for plain in (model.flag, model.one, model.ratio, model.name, model.mixed[1]):
        assert not isinstance(plain, Size)
