"""The files of code that a model is written in: those that define its classes, and those of what these files use."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable
from typing import Any

_DEPTH = 2  # from the files of a model's classes on, how often the files of what they use are looked at
_NOT_LOOKED_AT = frozenset(
    (__name__.partition(".")[0], "torch", "numpy", *sys.builtin_module_names, *sys.stdlib_module_names)
)
_used: dict[str, tuple[types.ModuleType, int, frozenset[str]]] = {}  # by name: the file, its length then, what it uses


def looked_at(name: Any) -> bool:
    """Whether what a module of code of this name holds may be a user's."""
    return isinstance(name, str) and name.partition(".")[0] not in _NOT_LOOKED_AT


def files(kinds: Iterable[type]) -> list[types.ModuleType]:
    """The files that define some classes, and, as deep as is looked, those that define what is named in these."""
    found: dict[str, types.ModuleType] = {}
    new = {name for name in {kind.__module__ for kind in kinds} if looked_at(name)}
    for _ in range(_DEPTH + 1):
        own = {name: file for name in new if type(file := sys.modules.get(name)) is types.ModuleType}
        found.update(own)
        new = set().union(*map(_uses, own.values())) - found.keys()
    return list(found.values())


def _uses(file: types.ModuleType) -> frozenset[str]:
    """The names of the files that define what is named in one."""
    known = _used.get(file.__name__)
    if known is None or known[0] is not file or known[1] != len(vars(file)):
        names = {_defined_in(value) for value in list(vars(file).values())}
        known = _used[file.__name__] = file, len(vars(file)), frozenset(filter(looked_at, names))
    return known[2]


def _defined_in(value: Any) -> Any:
    """The name of the file that a function or class is from, or that a module is."""
    kind = type(value)
    if kind is types.ModuleType:
        return value.__name__
    return value.__module__ if kind is types.FunctionType or isinstance(value, type) else None
