"""Equations between sizes: what is solved satisfies them, against brute force."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from amct_pytorch.analyse.equations import Equation, couple, evaluate, solve
from amct_pytorch.analyse.labels import Labels, Reason
from amct_pytorch.analyse.sizes import Attribute, Dim, Operation, Size, origin
from amct_pytorch.record import Setting

WHY = Reason("here")


def attribute(name: str, value: int) -> Attribute:
    return Attribute(Setting("m", name), value)


def size(name: str, value: int, told: Any = lambda a, b, text="": None) -> Size:
    return Size(value, attribute(name, value), told)


def dim(full: int, gone: int, start: int = 0) -> tuple[Dim, np.ndarray]:
    keep = np.ones(start + full, np.bool_)
    keep[start : start + gone] = False
    return Dim(np.arange(start, start + full), 0), keep


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


def test_of_a_quotient_that_nothing_else_decides_the_divisor_stays() -> None:
    """36 // 4 is 9; where 5 are left, 20 // 4 is that; no divisor of 36 gives 5."""
    d, keep = dim(9, 4)
    quotient = Operation("floordiv", attribute("width", 36), attribute("heads", 4))
    assert solve([Equation(quotient, d, WHY)], keep) == ({Setting("m", "width"): 20}, [])
    assert solve([Equation(d, Operation("add", quotient, 0), WHY)], keep) == ({Setting("m", "width"): 20}, [])


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
