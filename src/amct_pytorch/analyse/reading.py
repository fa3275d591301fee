"""Whether a pass reads what an earlier one left in attributes of modules: where it does not, it is as after it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

_ABSENT = object()
_lock = threading.Lock()
_traps: dict[tuple[type, str], _Trap] = {}


class Reads:
    """`found`: whether an attribute was read that the pass had not set before."""

    def __init__(self) -> None:
        self.found = False


@contextlib.contextmanager
def reads(attributes: Iterable[tuple[nn.Module, str]]) -> Iterator[Reads]:
    """Inside, it is seen whether any of these attributes of modules is read."""
    heard, held = Reads(), list(attributes)
    with _lock:
        for module, name in held:
            _trap(type(module), name).listeners[id(module)] = heard
    try:
        yield heard
    finally:
        with _lock:
            for module, name in held:
                if (trap := _traps.get((type(module), name))) is not None:
                    trap.leave(module)


def _trap(kind: type, name: str) -> _Trap:
    if (kind, name) not in _traps:
        _traps[kind, name] = _Trap(kind, name)
        setattr(kind, name, _traps[kind, name])
    return _traps[kind, name]


class _Trap:
    """Takes the place of an attribute of a class: each object has there what it had, and who listens hears of it."""

    def __init__(self, kind: type, name: str) -> None:
        self.kind, self.name = kind, name
        self.own = vars(kind).get(name, _ABSENT)  # of the class itself
        self.listeners: dict[int, Reads] = {}

    def __get__(self, module: Any, kind: type | None = None) -> Any:
        if module is None:
            return self._of_class(None)
        if (listener := self.listeners.get(id(module))) is not None:
            listener.found = True
        own = vars(module)
        return own[self.name] if self.name in own else self._of_class(module)

    def __set__(self, module: Any, value: Any) -> None:
        self.listeners.pop(id(module), None)
        vars(module)[self.name] = value

    def __delete__(self, module: Any) -> None:
        if vars(module).pop(self.name, _ABSENT) is _ABSENT:
            raise AttributeError(self.name)

    def _of_class(self, module: Any) -> Any:
        """What an object without an attribute of its own has: that of its class, or of a base."""
        value = self.own
        for base in self.kind.__mro__[1:]:
            value = vars(base).get(self.name, _ABSENT) if value is _ABSENT else value
        if value is _ABSENT:
            raise AttributeError(f"{self.kind.__name__!r} object has no attribute {self.name!r}")
        return value.__get__(module, self.kind) if hasattr(value, "__get__") else value

    def leave(self, module: nn.Module) -> None:
        self.listeners.pop(id(module), None)
        if self.listeners:
            return
        del _traps[self.kind, self.name]
        if self.own is _ABSENT:
            delattr(self.kind, self.name)
        else:
            setattr(self.kind, self.name, self.own)
