"""Scripted functions, which hide what sizes they take, run as they are written while a pass is on. Traced ones do not:
they hold the numbers of their trace, whatever they were made of says."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch

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
    return _scripted(function, *args, **kwargs) if written is None else written(*args, **kwargs)
