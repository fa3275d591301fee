"""Functions that remember what they gave (`functools.lru_cache`) compute it anew where they are asked with sizes.

Sizes are equal where their values are. Such a function would give for one layer what it gave for another, or the plain
numbers of a call before the pass, and what came of sizes would stay with it.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from torch import nn

from amct_pytorch.analyse.sizes import Size
from amct_pytorch.analyse.values import flatten
from amct_pytorch.structure import classes

_DEPTH = 2  # from the files of a model's classes on, how often the files of what they use are looked at
_NOT_LOOKED_AT = frozenset(("torch", "numpy", *sys.builtin_module_names, *sys.stdlib_module_names))


class Memoized(NamedTuple):
    """A function that remembers, and where it is kept: a class or a file of code, and its name there."""

    owner: Any
    name: str
    function: Any


def memoized(model: nn.Module) -> list[Memoized]:
    """Those of the model's classes, of the files that define them, and of files of which these use something."""
    owners: list[Any] = [c for c in classes(model) if _looked_at(c.__module__)]
    files = {file.__name__: file for file in map(_file_of, owners) if file is not None}
    new = list(files.values())
    for _ in range(_DEPTH):
        used = [_file_of(value) for file in new for value in list(vars(file).values())]
        new = list({file.__name__: file for file in used if file is not None and file.__name__ not in files}.values())
        files.update((file.__name__, file) for file in new)
    return [
        Memoized(owner, name, value)
        for owner in (*owners, *files.values())
        for name, value in list(vars(owner).items())
        if type(value) is functools._lru_cache_wrapper
    ]


def _looked_at(name: Any) -> bool:
    return isinstance(name, str) and name.partition(".")[0] not in _NOT_LOOKED_AT


def _file_of(value: Any) -> types.ModuleType | None:
    """The file that a function or class is from, or that a module is."""
    kind = type(value)
    if kind is types.ModuleType:
        name = value.__name__
    elif kind is types.FunctionType or isinstance(value, type):
        name = value.__module__
    else:
        return None
    file = sys.modules.get(name) if _looked_at(name) else None
    return file if type(file) is types.ModuleType else None


class Hashed(BaseException):
    """A size was hashed, as keys of a memory are. No error of the forward pass: it has no say in it."""


class Memory:
    """What the functions that remember do in one pass: they compute what they are asked with sizes.

    `functions`: None, where they are not known: then Hashed is raised where a size is hashed, for few forwards do that,
    and to find such functions takes a while. `asked`: of each call, one after the other, whether it was with sizes.
    """

    def __init__(self, functions: Sequence[Memoized] | None, asked: Sequence[bool] | None = None) -> None:
        """`asked`: of a pass in which sizes are numbers, what they were in the one that it repeats."""
        self.functions = functions
        self.asked: list[bool] = []
        self.hashed = False  # user code may catch all that is raised
        self._repeated = None if asked is None else iter(asked)

    def again(self) -> Memory:
        """For a pass that does the same, with numbers in the place of sizes."""
        return Memory(self.functions, self.asked)

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        known = self.functions or ()
        if self.functions is None:
            setattr(Size, "__hash__", self._refuse)  # noqa: B010
        for owner, name, function in known:
            setattr(owner, name, self._computing(function))
        try:
            yield
        finally:
            setattr(Size, "__hash__", int.__hash__)  # noqa: B010
            for owner, name, function in known:
                setattr(owner, name, function)

    def _refuse(self) -> int:
        self.hashed = True
        raise Hashed

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
