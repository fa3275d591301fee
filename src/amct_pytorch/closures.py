"""What functions hold in their closures: `lambda x: x[:, :width // 2]` holds the `width` of the code around it."""

from __future__ import annotations

import dis
import functools
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


def own(function: types.FunctionType) -> dict[str, Any]:
    """What only this function knows, by the names that its code has for it, and no code of it assigns."""
    cells, code = function.__closure__ or (), function.__code__
    # One more is the argument itself. Code that still runs holds its variables, and other functions theirs.
    shared = {name for i, name in enumerate(code.co_freevars) if sys.getrefcount(cells[i]) > 2}
    return {name: value for name, value in held(function).items() if name not in shared | _assigned(code)}


def written(function: types.FunctionType) -> list[types.CellType]:
    """The cells that the code of a function assigns."""
    assigned = _assigned(function.__code__)
    named = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return [cell for name, cell in named if name in assigned]


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
