"""Scripted functions, which hide what sizes they take, run as they are written while a pass is on. Traced ones do not:
they hold the numbers of their trace, whatever they were made of says; nor do those that ask whether they are scripted,
and do something else then."""

from __future__ import annotations

import contextlib
import threading
import types
from collections.abc import Iterator
from typing import Any

import torch

from amct_pytorch.analyse.code import looked_at

_Function = torch.jit.ScriptFunction
_scripted: Any = _Function.__call__
_lock = threading.Lock()
_passes = 0


@contextlib.contextmanager
def as_written() -> Iterator[None]:
    """Inside, a function that torch.jit.script made calls the one that it was made of."""
    global _passes
    with _lock:
        if not _passes:
            setattr(_Function, "__call__", _call)  # noqa: B010
        _passes += 1
    try:
        yield
    finally:
        with _lock:
            _passes -= 1
            if not _passes:
                setattr(_Function, "__call__", _scripted)  # noqa: B010


def _call(function: Any, *args: Any, **kwargs: Any) -> Any:
    own = vars(function)  # both kinds have what they were made of, for torch.compile; a scripted one has a name as well
    written = own.get("_torchdynamo_inline") if "__name__" in own else None
    return _scripted(function, *args, **kwargs) if written is None or _asks(written) else written(*args, **kwargs)


def _asks(function: Any) -> bool:
    """Whether a function, or one that it calls by its name or that of a file, asks whether it is scripted."""
    queue, seen = [function], set()
    while queue:
        f = queue.pop()
        if isinstance(f, types.FunctionType) and f.__code__ not in seen and looked_at(f.__module__):
            seen.add(f.__code__)
            names = f.__code__.co_names
            if "is_scripting" in names:
                return True
            named = [f.__globals__.get(name) for name in names]
            files = [vars(file) for file in named if type(file) is types.ModuleType and looked_at(file.__name__)]
            queue += [*named, *(file.get(name) for file in files for name in names)]
    return False
