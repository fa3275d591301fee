"""What a pass left outside of the copy of the model that it ran: tensors without data are taken out again.

User code may keep what it computed in a `functools.lru_cache`, a table, a class attribute or a variable of its file. A
pass over tensors without data fills these too, and the model of the user, and the next pass, would take from them.
"""

from __future__ import annotations

import functools
import gc
import itertools
import logging
import sys
import types
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from amct_pytorch.errors import warn
from amct_pytorch.structure import classes, named_modules

Made = list[weakref.ref[torch.Tensor]]
Namespaces = list[tuple[Any, dict[Any, Any]]]
_DEPTH = 4  # how deep in containers of containers a cache may keep a tensor
_LONG, _MANY = 1000, 20_000  # what is longer than that, and what comes after so many, is not looked into


def namespaces(model: nn.Module) -> Namespaces:
    """The classes of a model's modules and the files that define them, with what their names stand for now; the tables
    of tensors that lie in these, objects' attributes among them, or that hooks write into."""
    own = [c for c in classes(model) if c.__module__.partition(".")[0] not in ("torch", "builtins")]
    files = {c.__module__: sys.modules[c.__module__] for c in own if c.__module__ in sys.modules}
    found: Namespaces = [(owner, dict(vars(owner))) for owner in (*own, *files.values())]
    reached = [names for _, names in found]
    for hook in _hooks(model):
        cells = [cell for c in hook.__closure__ or () for cell in gc.get_referents(c)]
        held = [value for cell in cells if isinstance(cell, nn.Module) for value in vars(cell).values()]
        reached += [hook.__globals__, dict(enumerate((*cells, *held)))]
    return found + [(t, dict(t)) for t in _tables(reached)]


def _tables(reached: Iterable[Any]) -> list[dict[Any, Any]]:
    """The tables that hold tensors, in what is reached, as deep as caches are looked for; what is long is data."""
    level: list[Any] = [v for names in reached for v in names.values()]
    seen: dict[int, Any] = {}
    found = []
    for _ in range(_DEPTH):
        new = {id(v): v for v in level if not _holds_nothing(v) and id(v) not in seen}
        seen.update(new)
        level = []
        for value in new.values():
            held = [v for v in itertools.islice(_held(value), _LONG + 1) if type(v) not in _ATOMS]
            if issubclass(type(value), dict) and any(issubclass(type(v), torch.Tensor) for v in held):
                found.append(value)
            if len(held) <= _LONG and len(seen) < _MANY:
                level += held
    return found


def _hooks(model: nn.Module) -> Iterator[types.FunctionType]:
    for _, module in named_modules(model):
        for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values()):
            if isinstance(hook, types.FunctionType):
                yield hook


def empty(made: Made, copy: nn.Module, before: Namespaces) -> None:
    """Take what a pass made out of names, tables and `lru_cache`s; the copy of the model that it ran keeps its own.

    `before`: the namespaces as they were before the pass. A warning where something holds a tensor all the same.
    """
    if not _alive(made) or _keeps_all(copy, made):
        return
    own = _owned(copy)
    for t in own.values():
        if isinstance(t, torch.Tensor):
            _forget_origin(t)
    alive = _alive(made)
    kept = {id(t) for t in alive} - own.keys()
    if not kept:
        return
    _restore(before, kept)
    del alive
    _clear(_near(copy, before), kept)
    gc.collect(0)  # cycles of references, as an error and its frames are
    if not any(id(t) in kept for t in _alive(made)):
        return  # what follows looks at every object that there is
    _release([t for t in _alive(made) if id(t) in kept], own, _DEPTH)
    if not any(id(t) in kept for t in _alive(made)):
        return
    _clear(gc.get_objects(), kept)
    left = [t for t in _alive(made) if id(t) in kept]
    if left and any(not _held_by_us(holder, left) for holder in gc.get_referrers(*left)):
        warn(
            "the forward pass keeps tensors outside of the model, and those of the analysis, which have no data, could "
            "not be taken out again; clear these caches before the model runs"
        )


def _keeps_all(copy: nn.Module, made: Made) -> bool:
    """Whether attributes of the copy's modules are all that holds what a pass made."""
    ids = {id(v) for _, module in named_modules(copy) for v in vars(module).values()}
    for t in [t for t in _alive(made) if id(t) in ids]:
        _forget_origin(t)
    return all(id(t) in ids for t in _alive(made))


def _forget_origin(tensor: torch.Tensor) -> None:
    """What the copy keeps would keep all that it was computed from."""
    if tensor.grad_fn is not None and not tensor._is_view():
        tensor.detach_()


def _near(copy: nn.Module, before: Namespaces) -> Iterator[Any]:
    """What modules, their classes and the files that define them hold, and the functions among it: decorators keep
    caches so."""
    for names in (*(vars(module) for module in copy.modules()), *(names for _, names in before)):
        for value in names.values():
            yield value
            if isinstance(value, (staticmethod, classmethod)):
                value = value.__func__
            while isinstance(value, types.FunctionType):
                yield from gc.get_referents(*(value.__closure__ or ()))
                value = vars(value).get("__wrapped__")


def _clear(values: Iterable[Any], kept: set[int]) -> None:
    for cache in [v for v in values if type(v) is functools._lru_cache_wrapper]:
        if _reaches(cache, kept, _DEPTH + 2):
            cache.cache_clear()


def put_back(before: Namespaces, tensors: Iterable[torch.Tensor]) -> None:
    """Names that were given any of these tensors, or what holds one, stand again for what they stood for."""
    _restore(before, {id(t) for t in tensors})


def _alive(made: Made) -> list[torch.Tensor]:
    return [t for t in (ref() for ref in made) if t is not None]


def _held_by_us(holder: Any, left: Sequence[Any]) -> bool:
    return holder is left or type(holder).__name__ in ("frame", "list_iterator")


def _held(value: Any) -> Iterator[Any]:
    """What a table, a list, a tuple or a plain object holds. No code of theirs runs, as of proxies it would, and other
    threads may change them."""
    kind = type(value)
    if issubclass(kind, dict):
        yield from list(dict.values(value))
    elif issubclass(kind, set):
        yield from list(value)
    elif issubclass(kind, (list, tuple)):
        yield from value
    elif not issubclass(kind, _NO_STATE):
        table = next((vars(base)["__dict__"] for base in kind.__mro__ if "__dict__" in vars(base)), None)
        if isinstance(table, (types.GetSetDescriptorType, types.MemberDescriptorType)):
            yield table.__get__(value)


def _owned(copy: nn.Module) -> dict[int, Any]:
    """All that a model's modules hold, by identity, as deep as caches are looked for."""
    found: dict[int, Any] = {}
    level: list[Any] = [module for _, module in named_modules(copy)]
    for _ in range(2 * _DEPTH):  # an object and its table of attributes are two steps
        held = (v for value in level for v in _held(value) if not _holds_nothing(v))
        new = {id(v): v for v in held if id(v) not in found}
        found.update(new)
        level = list(new.values())
    bases = [v._base for v in found.values() if isinstance(v, torch.Tensor)]
    found.update((id(base), base) for base in bases if base is not None)  # what a view is of lives as long
    return found


def _holds_nothing(value: Any) -> bool:
    kind = type(value)
    return kind in _ATOMS or (kind in _TABLES and not value)


_NO_STATE = (torch.Tensor, type, types.ModuleType, logging.Logger)
_CODE = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType)
_ATOMS = frozenset((int, float, bool, str, type(None), torch.dtype, torch.device, *_CODE))
_TABLES = frozenset((dict, OrderedDict, list, tuple, set))


def _restore(before: Namespaces, kept: set[int]) -> None:
    """Names that a pass gave such tensors stand again for what they stood for."""
    for owner, names in before:
        if isinstance(owner, dict):
            now, put, take = dict(owner), owner.__setitem__, owner.__delitem__
        else:
            now = dict(vars(owner))
            put, take = functools.partial(setattr, owner), functools.partial(delattr, owner)
        for name, value in now.items():
            if names.get(name, before) is value or not (id(value) in kept or _holds(value, kept, _DEPTH)):
                continue
            if name in names:
                put(name, names[name])
            else:
                take(name)


def _holds(value: Any, kept: set[int], depth: int) -> bool:
    return any(id(v) in kept or (depth > 0 and _holds(v, kept, depth - 1)) for v in _held(value))


def _release(targets: Sequence[Any], own: dict[int, Any], depth: int) -> None:
    """Take tensors, or tuples that hold some, out of tables; attributes are no table: their owner counts on them."""
    gone = {id(t) for t in targets}
    tuples = []
    holders = [h for h in gc.get_referrers(*targets) if h is not targets and id(h) not in own] if targets else []
    attributes = _namespaces([h for h in holders if type(h) is dict])
    for holder in holders:
        if type(holder) is dict and id(holder) not in attributes:
            for key in [k for k, v in holder.items() if id(v) in gone]:
                del holder[key]
        elif isinstance(holder, tuple):
            tuples.append(holder)
    if tuples and depth:
        _release(tuples, own, depth - 1)


def _namespaces(tables: Sequence[dict[Any, Any]]) -> set[int]:
    """Which tables, by identity, hold the attributes of a class, a file of code or an object."""
    found: set[int] = set()
    for o in gc.get_referrers(*tables) if tables else ():
        if isinstance(o, (type, types.ModuleType)):
            found.update(map(id, gc.get_referents(o)))
        elif type(o).__dictoffset__:
            found.add(id(o.__dict__))
    return found


def _reaches(holder: Any, kept: set[int], depth: int) -> bool:
    for held in gc.get_referents(holder):
        if id(held) in kept:
            return True
        known = isinstance(held, (dict, list, tuple)) or "lru" in type(held).__name__
        if depth and known and _reaches(held, kept, depth - 1):
            return True
    return False
