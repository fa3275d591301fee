"""Functions that remember what they gave (`functools.lru_cache`) compute it anew where they are asked with sizes.

Sizes are equal where their values are. Such a function would give for one layer what it gave for another, or the plain
numbers of a call before the pass, and what came of sizes would stay with it.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import operator
import sys
import types
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from torch import nn

from amct_pytorch.analyse.code import CODE, files, looked_at
from amct_pytorch.analyse.sizes import Size
from amct_pytorch.analyse.values import flatten
from amct_pytorch.closures import contents
from amct_pytorch.structure import classes

_METHODS = (staticmethod, classmethod)
_TABLES = (dict, OrderedDict, defaultdict)  # others may do what they like when they are looked through
_IN = dis.opmap["CONTAINS_OP"]


class Remembering(NamedTuple):
    """What remembers: functions, and tables that code may use so."""

    functions: Sequence[Memoized]
    tables: Sequence[dict[Any, Any]] = ()


class Memoized(NamedTuple):
    """A function that remembers, and where it is kept: a class, a file of code, a module, or a cell of a function that
    calls it; its name there, and the `value` under that name: itself, or a static or class method of it."""

    owner: Any
    name: str
    function: Any
    value: Any


def memoized(model: nn.Module) -> Remembering:
    """What does of the model's classes, of the files that define them or functions that modules have as attributes, and
    of files of which these use something."""
    kinds = classes(model)
    held = [v for m in model.modules() for v in vars(m).values() if isinstance(v, CODE)]
    owners: list[Any] = [*(c for c in kinds if looked_at(c.__module__)), *files(kinds, held)]
    tables = [v for owner in owners for v in list(vars(owner).values()) if type(v) in _TABLES]
    return Remembering([found for owner in owners for found in _of(owner)], tables)


def with_modules(known: Remembering, modules: Iterable[nn.Module]) -> Remembering:
    """Also functions that modules have as attributes."""
    return known._replace(functions=[*known.functions, *(found for module in modules for found in _of(module))])


def _of(owner: Any) -> Iterator[Memoized]:
    for name, value in list(vars(owner).items()):
        function = value.__func__ if type(value) in _METHODS else value
        if type(function) is functools._lru_cache_wrapper:
            yield Memoized(owner, name, function, value)
        elif type(function) is types.FunctionType and function.__closure__:
            for cell in function.__closure__:
                (held,) = contents(cell) or (None,)
                if type(held) is functools._lru_cache_wrapper:
                    yield Memoized(cell, "cell_contents", held, held)


class Hashed(BaseException):
    """A size was hashed, as keys of a memory are. No error of the forward pass: it has no say in it."""


class Memory:
    """What the functions that remember do in one pass: they compute what they are asked with sizes.

    `known`: None, where it is not known what remembers: then Hashed is raised where a size is hashed that something may
    keep, for few forwards do that, and to find such functions takes a while. `asked`: of each call, one after the
    other, whether it was with sizes.
    """

    def __init__(self, known: Remembering | None, asked: Sequence[bool] | None = None) -> None:
        """`asked`: of a pass in which sizes are numbers, what they were in the one that it repeats."""
        self.known = known
        self.asked: list[bool] = []
        self.hashed = False  # user code may catch all that is raised
        self._repeated = None if asked is None else iter(asked)

    def again(self) -> Memory:
        """For a pass that does the same, with numbers in the place of sizes."""
        return Memory(self.known, self.asked)

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        known = self.known or Remembering(())
        if self.known is None:
            setattr(Size, "__hash__", self._refusing())  # noqa: B010
        for owner, name, function, value in known.functions:
            computing = self._computing(function)
            setattr(owner, name, computing if value is function else type(value)(computing))
        before = [_items(table) for table in known.tables]
        try:
            yield
        finally:
            setattr(Size, "__hash__", int.__hash__)  # noqa: B010
            for owner, name, _, value in known.functions:
                setattr(owner, name, value)
            for table, items in zip(known.tables, before, strict=True):
                now = _items(table)
                if list in map(type, now) or not _same(now, items):  # most are as they were
                    _forget(table)

    def _refusing(self) -> Callable[[Size], int]:
        def refuse(size: Size) -> int:
            caller = sys._getframe(1)
            does = caller.f_code.co_code[caller.f_lasti]
            if does == _IN:  # it keeps nothing, and finds what was there before
                return int.__hash__(size)
            self.hashed = True
            raise Hashed

        return refuse

    def _computing(self, remembers: Any) -> Callable[..., Any]:
        @functools.wraps(remembers)
        def function(*args: Any, **kwargs: Any) -> Any:
            compute = self._with_sizes(args, kwargs)
            return remembers.__wrapped__(*args, **kwargs) if compute else remembers(*args, **kwargs)

        for method in ("cache_clear", "cache_info", "cache_parameters"):
            setattr(function, method, getattr(remembers, method))
        return function

    def _with_sizes(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        if self._repeated is not None:
            return next(self._repeated, False)
        self.asked.append(any(type(v) is Size for v in flatten((args, kwargs))))
        return self.asked[-1]


def _items(table: dict[Any, Any]) -> tuple[Any, ...]:
    return *table, *table.values()


def _same(one: tuple[Any, ...], two: tuple[Any, ...]) -> bool:
    return len(one) == len(two) and all(map(operator.is_, one, two))


def _forget(table: dict[Any, Any]) -> None:
    """Take out what a pass put there: sizes of a model that is no more."""
    for key in [key for key, value in list(table.items()) if _of_sizes(key) or _of_sizes(value)]:
        del table[key]


def _of_sizes(value: Any) -> bool:
    return type(value) is Size or (type(value) in (tuple, list) and any(type(v) is Size for v in value))
