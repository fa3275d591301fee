"""Sizes that user code keeps in attributes, items and configuration objects: finding them by path, setting them."""

from __future__ import annotations

import copy
import dataclasses
import functools
import re
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from amct_pytorch import closures
from amct_pytorch.errors import RecordError
from amct_pytorch.record import Change, Setting
from amct_pytorch.structure import named_modules, tables_of_items

_STEP = re.compile(r"\.?([^\W\d]\w*)|\[(\d+)\]|\['(.*?)'\]")
# What a path may not lead through: nothing in there is the model's alone.
_CODE = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType)


_ANEW = (functools.partial, types.FunctionType)  # they are built anew with other sizes


class _Item(str):
    """The key of an item, as a path spells it; a plain `str` is the name of an attribute."""


Step = int | str


def check(model: nn.Module, settings: Mapping[Setting, Change]) -> None:
    """Raise RecordError where an attribute is not there, or has neither of the two values it may have."""
    if not settings:
        return
    modules = dict(named_modules(model, every_name=True))
    for setting, change in settings.items():
        value: Any = _module(modules, setting)
        for step in _steps(setting):
            if _is_not_yet(value, step):
                break
            value = _get(value, step, setting)
        else:
            _check_value(value, setting, change)


def apply(model: nn.Module, settings: Mapping[Setting, Change], original: nn.Module | None) -> None:
    """Set the attributes; what the model still shares with `original`, the model it is a copy of, is copied first."""
    if not settings:
        return
    modules = dict(named_modules(model, every_name=True))
    originals = {} if original is None else dict(named_modules(original, every_name=True))
    copies: dict[int, tuple[Any, Any]] = {}
    owners = {s.module: vars(_module(modules, s)) for s in settings}
    tables = [(own, table, of) for own in owners.values() for table, of in tables_of_items(own)]
    for setting, change in settings.items():
        _set(_module(modules, setting), originals.get(setting.module), _steps(setting), setting, change, copies)
    for module in modules.values() if copies else ():  # what several modules share, they go on sharing
        for name, value in vars(module).items():
            while (new := copies.get(id(value), (value, value))[1]) is not value:
                vars(module)[name] = value = new
    for own, table, of in tables:
        own[table] = tuple(own[of].items())


def _set(
    owner: Any,
    original: Any,
    steps: list[Step],
    setting: Setting,
    change: Change,
    copies: dict[int, tuple[Any, Any]],
) -> Any:
    """`owner` with the value at the end of the steps replaced: itself, changed in place, or a tuple, a function or a
    part of one built anew."""
    if _is_not_yet(owner, steps[0]):
        return owner
    step, rest = steps[0], steps[1:]
    item = _get(owner, step, setting)
    if not rest:
        _check_value(item, setting, change)
        after = type(item)(change.after) if isinstance(item, np.integer) else change.after
        return _put(owner, step, after, setting)
    shared = None if original is None else _get(original, step, setting)
    if _is_of_class(owner, step):
        item = copy.copy(item)
    elif item is shared:
        item = copies.setdefault(id(item), (item, copy.copy(item)))[1]
    new = _set(item, shared, rest, setting, change, copies)
    if new is not item and (type(item) in _ANEW or hasattr(item, "_make")):
        copies[id(item)] = item, new
    return _put(owner, step, new, setting)


def _is_not_yet(owner: Any, step: Step) -> bool:
    """Whether an item is asked of nothing: a model that did not run yet keeps no shape of what it saw last."""
    return owner is None and isinstance(step, int)


def _is_of_class(owner: Any, step: Step) -> bool:
    """Whether an attribute belongs to the class, and so to all its objects, or is one that its class keeps elsewhere
    than in the object's own (slots, the keywords of a part of a function): others may have what is in it."""
    if isinstance(step, (_Item, int)):
        return False
    return step not in getattr(owner, "__dict__", {}) and hasattr(type(owner), step)


def _get(owner: Any, step: Step, setting: Setting) -> Any:
    if type(owner) is types.FunctionType and step == "closure":
        return closures.held(owner)
    if isinstance(owner, _CODE) or (type(step) is str and step.startswith("__")):
        raise RecordError(f"{_name(setting)} leads into {owner!r:.80}, which is no size of this model alone")
    try:
        if isinstance(step, (_Item, int)):
            return owner[_key(owner, step)]
        own = getattr(owner, "__dict__", {})  # of objects that guard their attributes, too
        return own[step] if step in own else getattr(owner, step)
    except (AttributeError, LookupError, TypeError) as cause:
        raise RecordError(
            f"{_name(setting)}: {type(owner).__qualname__} has no {step!r}; the record is of another model"
        ) from cause
    except Exception as cause:
        raise RecordError(_refusal(owner, step, setting, cause)) from cause


def _put(owner: Any, step: Step, value: Any, setting: Setting) -> Any:
    if type(owner) is functools.partial and step == "keywords":
        return functools.partial(owner.func, *owner.args, **value)
    if type(owner) is types.FunctionType and step == "closure":
        was = closures.held(owner)
        return closures.replaced(owner, {k: v for k, v in value.items() if v is not was[k]})
    if isinstance(owner, tuple) and (isinstance(step, int) or step in getattr(owner, "_fields", ())):
        items = dict(enumerate(owner))
        items[owner._fields.index(step) if isinstance(step, str) else step] = value  # type: ignore[attr-defined]
        return owner._make(items.values()) if hasattr(owner, "_make") else type(owner)(items.values())
    if isinstance(step, (_Item, int)):
        owner[_key(owner, step)] = value
    elif dataclasses.is_dataclass(owner):
        object.__setattr__(owner, step, value)  # it may be frozen
    elif _get(owner, step, setting) is not value:
        try:
            setattr(owner, step, value)
        except Exception as cause:
            own = getattr(owner, "__dict__", None)
            if own is None or (step not in own and type(getattr(type(owner), str(step), None)) is not int):
                raise RecordError(_refusal(owner, step, setting, cause)) from cause
            vars(owner)[step] = value  # it may be immutable: this one is a copy
    return owner


def _refusal(owner: Any, step: Step, setting: Setting, cause: Exception) -> str:
    kind = type(owner).__qualname__
    return f"{_name(setting)}: {kind} refuses access to {step!r} ({type(cause).__name__}: {str(cause)[:120]})"


def _key(owner: Any, step: _Item | int) -> Any:
    """The key of an item: a path does not tell the number 3 from the text "3"."""
    if isinstance(step, _Item) and step not in owner:
        return next((key for key in owner if str(key) == step), step)
    return step


def _check_value(value: Any, setting: Setting, change: Change) -> None:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value not in change:
        raise RecordError(
            f"{_name(setting)} is {value!r:.80}, and the record changes it from {change.before} to {change.after}: "
            "it was made for another model"
        )


def _module(modules: Mapping[str, nn.Module], setting: Setting) -> nn.Module:
    if setting.module not in modules:
        raise RecordError(f"{_name(setting)}: the model has no such module; the record is of another model")
    return modules[setting.module]


def _steps(setting: Setting) -> list[Step]:
    steps: list[Step] = []
    position = 0
    while position < len(setting.path):
        match = _STEP.match(setting.path, position)
        if match is None:
            break
        name, index, key = match.groups()
        steps.append(name if name is not None else int(index) if index is not None else _Item(key))
        position = match.end()
    if not steps or position < len(setting.path) or not setting.path[0].isidentifier():
        raise RecordError(
            f"the path {setting.path!r} of a setting of module {setting.module!r} cannot be read; expected "
            "attribute, attribute[0], attribute['key'], attribute.attribute"
        )
    return steps


def _name(setting: Setting) -> str:
    return f"attribute {setting.path!r} of module {setting.module!r}"
