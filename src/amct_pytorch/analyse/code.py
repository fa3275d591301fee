"""The files of code that a model is written in: those that define its classes, and those of what these files use."""

from __future__ import annotations

import dis
import functools
import itertools
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

from amct_pytorch.closures import contents

CODE = (types.FunctionType, types.MethodType, functools.partial)
_STORE = dis.opmap["STORE_ATTR"]
_DEPTH = 2  # from the files of a model's classes on, how often the files of what they use are looked at
_NOT_LOOKED_AT = frozenset(
    (__name__.partition(".")[0], "torch", "numpy", *sys.builtin_module_names, *sys.stdlib_module_names)
)
_used: dict[str, tuple[types.ModuleType, int, frozenset[str]]] = {}  # by name: the file, its length then, what it uses


def looked_at(name: Any) -> bool:
    """Whether what a module of code of this name holds may be a user's."""
    return isinstance(name, str) and name.partition(".")[0] not in _NOT_LOOKED_AT


def files(kinds: Iterable[type], held: Iterable[Any] = ()) -> list[types.ModuleType]:
    """The files that define some classes, and functions (`held`: CODE), and, as deep as is looked, those that define
    what is named in these."""
    functions = _functions((*held, *(v for kind in kinds for v in vars(kind).values())))
    names = {kind.__module__ for kind in kinds}.union(*(_named_by(f) for f in functions))
    found: dict[str, types.ModuleType] = {}
    new = set(filter(looked_at, names))
    for _ in range(_DEPTH + 1):
        own = {name: file for name in new if type(file := sys.modules.get(name)) is types.ModuleType}
        found.update(own)
        new = set().union(*map(_uses, own.values())) - found.keys()
    return list(found.values())


def notes(kind: type) -> bool:
    """Whether a function of a class, other than its constructor, stores an attribute."""
    own = [base for base in kind.__mro__ if looked_at(base.__module__)]
    functions = _functions(v for base in own for name, v in vars(base).items() if name != "__init__")
    return any(True for f in functions for _ in stored(f.__code__))


def stored(code: types.CodeType) -> Iterator[str]:
    """The attributes, of whatever, that code sets, and code inside of it."""
    if _STORE in code.co_code[::2]:  # few do; the rest would take long to read
        extended = 0
        for operation, operand in zip(code.co_code[::2], code.co_code[1::2], strict=True):
            extended = (extended << 8) | operand
            if operation == _STORE:
                yield code.co_names[extended]
            if operation != dis.EXTENDED_ARG:
                extended = 0
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            yield from stored(part)


def _functions(values: Iterable[Any]) -> list[types.FunctionType]:
    """The functions that values are, or call: of a part of one, a method, a closure."""
    found: dict[int, types.FunctionType] = {}
    queue = [value for value in values if isinstance(value, CODE)]
    while queue:
        value = queue.pop()
        if isinstance(value, functools.partial):
            held: Iterable[Any] = (value.func,)
        elif isinstance(value, types.MethodType):
            held = (value.__func__,)
        elif id(value) in found:
            continue
        else:
            found[id(value)] = value
            held = itertools.chain.from_iterable(map(contents, value.__closure__ or ()))
        queue += [v for v in held if isinstance(v, CODE)]
    return list(found.values())


def _named_by(function: types.FunctionType) -> Iterator[str]:
    """The file of a function, and those that it may import when it is called."""
    yield function.__module__
    for name in function.__code__.co_names:
        if name in sys.modules:
            yield name


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
