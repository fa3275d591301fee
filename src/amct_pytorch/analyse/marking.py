"""Where a model holds integers that may be sizes: the attributes of its modules, and what lies in these."""

from __future__ import annotations

import copy
import functools
import operator
import types
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from amct_pytorch import closures
from amct_pytorch.analyse.sizes import Attribute, Size, Told
from amct_pytorch.record import ChannelPlan, Setting
from amct_pytorch.structure import named_modules, tables_of_items

Make = Callable[[Setting, int], int]
_NO_ITEMS: Mapping[str, Any] = types.MappingProxyType({})
NOTHING: Mapping[int, Any] = types.MappingProxyType({})
DEPTH = 2  # how deep in objects of objects sizes are looked for


def mark(model: nn.Module, told: Told, original: nn.Module | None = None) -> None:
    """Replace the integers in the attributes of every module of `model` (a copy of `original`) with sizes.

    NumPy's, too, tuples, lists and dictionaries of integers, configuration objects that are no module, the keywords of
    `functools.partial` and the closures of functions.
    """
    modules, known = named_modules(model), _OfClasses()
    for _, module in modules:
        known.give(module)
    held = ((name, vars(module)) for name, module in modules)
    theirs = NOTHING if original is None else objects(original)
    replace(held, lambda setting, value: Size(value, Attribute(setting, value), told), theirs)


def objects(model: nn.Module) -> dict[int, Any]:
    """The dictionaries and configuration objects of a model in which sizes are looked for, by identity."""
    found: dict[int, Any] = {}
    for _, module in named_modules(model):
        _objects(vars(module), found, depth=0)
    return found


def replace(held: Iterable[tuple[str, dict[str, Any]]], make: Make, theirs: Mapping[int, Any] = NOTHING) -> None:
    """Put `make(setting, value)` in the place of every integer above 1, in place; what is met twice has its first path.

    `held`: modules by their path and attributes, in the order of `named_modules`. `theirs`: objects, by identity, that
    stay as they are: a copy takes their place, where they can be copied.
    """
    walk = _Replacing(make, theirs)
    for name, members in held:
        walk.members(members, name, "{}", depth=0)


class _Replacing:
    """One walk through modules and what they hold."""

    def __init__(self, make: Make, theirs: Mapping[int, Any]) -> None:
        self.make, self.theirs = make, theirs
        self.of_classes = _OfClasses()
        self.done: dict[int, Any] = {}  # what takes the place of each object
        self.kept: list[Any] = []  # so that no identity is taken twice

    def members(self, members: dict[Any, Any], module: str, path: str, depth: int) -> None:
        tables = () if depth else tables_of_items(members)
        for key, value in list(members.items()):
            if type(value) is dict and not depth and key.startswith("_"):
                continue  # a module's own tables
            if type(value) not in _NO_SIZES and isinstance(key, str):
                new = self.value(value, module, path.format(key), depth)
                if new is not value:
                    members[key] = new
        for table, of in tables:
            members[table] = tuple(members[of].items())

    def plain(self, value: Any, module: str, path: str) -> Any:
        """An integer, or a sequence of such; others stay as they are."""
        if type(value) is int or isinstance(value, np.integer):
            return self.make(Setting(module, path), int(value)) if value > 1 else value
        if type(value) in _SEQUENCES and _of_integers(value):
            return type(value)(self.plain(v, module, f"{path}[{i}]") for i, v in enumerate(value))
        return value

    def value(self, value: Any, module: str, path: str, depth: int) -> Any:
        if type(value) is int or type(value) in _SEQUENCES or isinstance(value, np.integer):
            return self.plain(value, module, path)
        if named := _named_items(value):
            if id(value) not in self.done:
                step = _STEPS.get(type(value), ".{}")
                items = {n: self.plain(v, module, path + step.format(n)) for n, v in named.items()}
                same = all(map(operator.is_, items.values(), named.values()))
                self.done[id(value)] = value if same else _with_items(value, items)
                self.kept.append((value, self.done[id(value)]))
            return self.done[id(value)]
        if not holds_sizes(value, path) or depth == DEPTH:
            return value
        if id(value) not in self.done:
            own = copy.copy(value) if id(value) in self.theirs else value
            self.done[id(value)] = self.done[id(own)] = own
            self.kept.append((value, own))
            if id(own) not in self.theirs:
                escaped = path.replace("{", "{{").replace("}", "}}")
                if type(own) is dict:
                    self.members(own, module, escaped + "['{}']", depth + 1)
                else:
                    self.of_classes.give(own)
                    self.members(vars(own), module, escaped + ".{}", depth + 1)
                if own is not value and _same(own, value):  # it may have to be the very one that others hold
                    self.done[id(value)] = self.done[id(own)] = value
        return self.done[id(value)]


class _OfClasses:
    """The integers that may be sizes among the public attributes of classes and their bases, as they are met."""

    def __init__(self) -> None:
        self.known: dict[type, list[tuple[str, int]]] = {}

    def give(self, owner: Any) -> None:
        """Give an object integers of its own where it has those of its class, which other objects have, too."""
        kind = type(owner)
        if kind not in self.known:
            members = {name: value for base in reversed(kind.__mro__) for name, value in vars(base).items()}
            self.known[kind] = [(n, v) for n, v in members.items() if type(v) is int and v > 1 and n[0] != "_"]
        own = vars(owner)
        own.update((name, value) for name, value in self.known[kind] if name not in own)


def _same(one: Any, two: Any) -> bool:
    """Whether two objects of one class hold the very same."""
    a, b = (one, two) if type(one) is dict else (vars(one), vars(two))
    return a.keys() == b.keys() and all(v is b[k] for k, v in a.items())


def _of_integers(values: Sequence[Any], depth: int = 0) -> bool:
    """Whether there are integers alone in a sequence, or in sequences of it."""
    for v in values:
        integer = type(v) is int or isinstance(v, np.integer)
        if not integer and not (depth < DEPTH and type(v) in _SEQUENCES and _of_integers(v, depth + 1)):
            return False
    return bool(values)


def _named_items(value: Any) -> Mapping[str, Any]:
    """The items of a named tuple, the keywords of a part of a function; of one that holds nothing else. And what a
    function holds."""
    if type(value) is types.FunctionType:
        return closures.own(value) if value.__closure__ else _NO_ITEMS
    if getattr(value, "__dict__", None):
        return _NO_ITEMS
    if isinstance(value, tuple) and hasattr(value, "_make"):
        return value._asdict()  # type: ignore[attr-defined, no-any-return]
    return value.keywords if type(value) is functools.partial else _NO_ITEMS


def _with_items(value: Any, items: Mapping[str, Any]) -> Any:
    """Another one with these: others may hold the first."""
    if type(value) is types.FunctionType:
        return closures.replaced(value, items)
    if isinstance(value, tuple):
        return value._make(items.values())  # type: ignore[attr-defined]
    return functools.partial(value.func, *value.args, **items)


def _objects(members: Mapping[Any, Any], found: dict[int, Any], depth: int) -> None:
    for key, value in members.items():
        if type(value) in NO_OBJECTS or id(value) in found:
            continue
        if isinstance(key, str) and holds_sizes(value, key):
            found[id(value)] = value
            if depth + 1 < DEPTH:
                _objects(value if type(value) is dict else vars(value), found, depth + 1)


def holds_sizes(value: Any, path: str) -> bool:
    """Whether a value is an object or a dictionary in which sizes are looked for; `path`: where a module has it."""
    if type(value) in _NO_SIZES:
        return False
    return not path.startswith("_") if type(value) is dict else is_configuration(value)


_STEPS = {functools.partial: ".keywords['{}']", types.FunctionType: ".closure['{}']"}
_NO_SIZES = frozenset((bool, float, str, type(None), set, OrderedDict, torch.Tensor, nn.Parameter, ChannelPlan))
_SEQUENCES = frozenset((tuple, list, torch.Size))
NO_OBJECTS = _NO_SIZES | _SEQUENCES | {int}  # no objects in which sizes are looked for
_NOT_CONFIGURATION = (
    int,
    str,
    nn.Module,
    torch.Tensor,
    type,
    types.FunctionType,
    types.MethodType,
    types.ModuleType,
)


def is_configuration(value: Any) -> bool:
    """Whether a value is an object that may hold sizes, and no module or code."""
    return hasattr(value, "__dict__") and not isinstance(value, _NOT_CONFIGURATION) and not callable(value)
