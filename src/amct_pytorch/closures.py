"""What functions hold in their closures: `lambda x: x[:, :width // 2]` holds the `width` of the code around it."""

from __future__ import annotations

import dis
import functools
import gc
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any


def contents(cell: types.CellType) -> tuple[Any, ...]:
    """What a cell of a closure holds, if it does."""
    try:
        return (cell.cell_contents,)
    except ValueError:  # it is empty
        return ()


def held(function: types.FunctionType) -> dict[str, Any]:
    """What a function holds, by the names that its code has for it."""
    named = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {name: inside[0] for name, cell in named if (inside := contents(cell))}


def shared(function: types.FunctionType) -> dict[str, types.CellType]:
    """The cells that something else holds, too: code that still runs those of its variables, other functions theirs."""
    cells = function.__closure__ or ()
    # One more is the argument itself.
    return {name: cells[i] for i, name in enumerate(function.__code__.co_freevars) if sys.getrefcount(cells[i]) > 2}


def own(function: types.FunctionType) -> dict[str, Any]:
    """What only this function knows, by the names that its code has for it, and no code of it assigns."""
    others = shared(function).keys() | _assigned(function.__code__)
    return {name: value for name, value in held(function).items() if name not in others}


def holders(cell: types.CellType) -> list[types.FunctionType]:
    """The functions that hold a cell. It looks at every object that there is."""
    closures = [closure for closure in gc.get_referrers(cell) if type(closure) is tuple]
    found = (f for f in gc.get_referrers(*closures) if type(f) is types.FunctionType) if closures else ()
    return [f for f in found if any(f.__closure__ is closure for closure in closures)]


def assigns(function: types.FunctionType, cell: types.CellType) -> bool:
    """Whether the code of a function assigns what a cell holds."""
    named = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return any(held is cell and name in _assigned(function.__code__) for name, held in named)


def like(function: types.FunctionType, cells: Sequence[types.CellType]) -> types.FunctionType:
    """Another function that differs in its closure alone."""
    new = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, tuple(cells) or None
    )
    new.__dict__.update(function.__dict__)
    new.__qualname__, new.__doc__, new.__module__ = function.__qualname__, function.__doc__, function.__module__
    new.__annotations__, new.__kwdefaults__ = function.__annotations__, function.__kwdefaults__
    return new


def replaced(function: types.FunctionType, values: Mapping[str, Any]) -> types.FunctionType:
    """Another function that has these values under these names; it shares the rest of its closure with the first."""
    named = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return like(function, [types.CellType(values[name]) if name in values else cell for name, cell in named])


@functools.lru_cache(maxsize=1024)
def _assigned(code: types.CodeType) -> frozenset[str]:
    """The names of cells that code assigns or deletes, and code inside of it."""
    found = {i.argval for i in dis.get_instructions(code) if i.opname in ("STORE_DEREF", "DELETE_DEREF")}
    return frozenset(found).union(*(_assigned(part) for part in code.co_consts if isinstance(part, types.CodeType)))
