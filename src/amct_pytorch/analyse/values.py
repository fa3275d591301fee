"""What is in the values that go into a network and come out of it."""

from __future__ import annotations

import collections
import dataclasses
import functools
import types
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any

import torch
from torch import nn


def flatten(value: Any) -> list[Any]:
    """What is in tuples, lists and dictionaries, in order."""
    found: list[Any] = []
    _flatten((value,), found)
    return found


def _flatten(values: Iterable[Any], found: list[Any]) -> None:
    for value in values:
        if type(value) in _SINGLE:
            found.append(value)
        elif isinstance(value, (tuple, list)):
            _flatten(value, found)
        elif isinstance(value, dict):
            _flatten(value.values(), found)
        else:
            found.append(value)


_SINGLE = frozenset((torch.Tensor, nn.Parameter, int, float, bool, type(None), str, torch.dtype, torch.device))


def tensors_of(value: Any, state: Callable[[torch.Tensor], bool]) -> Iterator[torch.Tensor]:
    """All tensors in lists, tuples, mappings, dataclasses and other objects.

    `state`: whether the forward went on to use a tensor, or filled it. What objects hold in objects of their own is
    then the network's: a cache of layers, for instance.
    """
    yield from _tensors_of(value, state, within=0, seen=set())


def _tensors_of(
    value: Any, state: Callable[[torch.Tensor], bool], within: int, seen: set[int]
) -> Iterator[torch.Tensor]:
    """`within`: how many objects it is in."""
    if isinstance(value, torch.Tensor):
        if within < 2 or not state(value):
            yield value
        return
    if id(value) in seen or value is None or isinstance(value, (str, bytes, int, float, type, nn.Module)):
        return
    seen.add(id(value))
    if isinstance(value, functools.partial):
        value = [value.func, value.args, value.keywords]
    if isinstance(value, Mapping):
        for v in value.values():
            yield from _tensors_of(v, state, within, seen)
    elif isinstance(value, _CONTAINERS):
        for v in value:
            yield from _tensors_of(v, state, within, seen)
    if not isinstance(value, _CODE):
        inside = within if dataclasses.is_dataclass(value) else within + 1
        for v in _attributes(value):
            yield from _tensors_of(v, state, inside, seen)


_CONTAINERS = (list, tuple, set, frozenset, collections.deque, KeysView, ValuesView, ItemsView)
_CODE = (types.ModuleType, types.FunctionType, types.MethodType, types.BuiltinFunctionType, torch.Generator)


def _attributes(value: Any) -> Iterator[Any]:
    yield from getattr(value, "__dict__", {}).values()
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            private = name.startswith("__") and not name.endswith("__")
            yield getattr(value, f"_{kind.__name__.lstrip('_')}{name}" if private else name, None)
