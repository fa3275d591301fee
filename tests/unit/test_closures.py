"""What only one function knows, and functions that differ in it."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from amct_pytorch.closures import own, replaced

Functions = list[Callable[..., Any]]


def alone() -> Functions:
    width, name = 16, "x"
    return [lambda: (width, name)]


def with_another() -> Functions:
    width, other = 16, 4
    return [lambda: width + other, lambda: width]


def assigned() -> Functions:
    width, count = 16, 2

    def act() -> int:
        nonlocal count
        count += 1
        return width * count

    return [act]


def assigned_inside() -> Functions:
    width, count = 16, 2

    def act() -> Callable[[], int]:
        def inside() -> int:
            nonlocal count
            count += 1
            return width * count

        return inside

    return [act]


def empty() -> Functions:
    functions = [lambda: later]
    if not functions:
        later = 3
    return functions


def held(make: Callable[[], Functions]) -> dict[str, Any]:
    function = make()[:]  # the others are alive, too
    assert isinstance(function[0], types.FunctionType)
    return own(function[0])


def test_what_only_one_function_knows() -> None:
    assert held(alone) == {"width": 16, "name": "x"}
    assert held(with_another) == {"other": 4}
    assert held(assigned) == held(assigned_inside) == {"width": 16}
    assert held(empty) == {}


def test_variables_of_code_that_runs_are_not_the_functions_alone() -> None:
    width = 16

    def act() -> int:
        return width

    assert isinstance(act, types.FunctionType)
    assert own(act) == {}


def test_another_function_with_another_value() -> None:
    def make() -> Callable[..., Any]:
        width, rest = 16, [1]

        def act(n: int = 2, *, m: int = 3) -> tuple[Any, ...]:
            """Some words."""
            return width, rest, n, m

        act.flag = True  # type: ignore[attr-defined]
        return act

    old = make()
    assert isinstance(old, types.FunctionType)
    new = replaced(old, {"width": 8})
    assert (new(), old()) == ((8, [1], 2, 3), (16, [1], 2, 3))
    assert new()[1] is old()[1]
    for name in ("__name__", "__qualname__", "__doc__", "__module__", "__annotations__", "__dict__"):
        assert getattr(new, name) == getattr(old, name)
