"""What the functions that a model holds know by global names: copies of the functions know the same."""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Iterable
from typing import Any

from torch import nn

from amct_pytorch.closures import contents

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial)


def hooks(modules: Iterable[nn.Module]) -> list[Any]:
    """The hooks of forward passes."""
    return [h for m in modules for table in _HOOKS for h in vars(m).get(table, {}).values()]


def functions(modules: Iterable[nn.Module]) -> list[Any]:
    """The functions in attributes of modules, a `forward` in the place of the method among them."""
    return [value for m in modules for value in vars(m).values() if isinstance(value, _FUNCTIONS)]


def known(held: Iterable[Any]) -> list[tuple[str, Any]]:
    """What functions know by global names, each once, and what the functions know that they so call, or hold."""
    queue = list(held)
    found: dict[int, tuple[str, Any]] = {}
    seen: set[int] = set()
    while queue:
        function = _function(queue.pop())
        if function is None or id(function) in seen or str(function.__module__).startswith("torch."):
            continue
        seen.add(id(function))
        named = {n: function.__globals__[n] for n in _names(function.__code__) if n in function.__globals__}
        found.update((id(v), (n, v)) for n, v in named.items() if id(v) not in found)
        inside = [c for cell in function.__closure__ or () for c in contents(cell)]
        queue += [v for v in (*named.values(), *inside) if isinstance(v, _FUNCTIONS)]
    return list(found.values())


@functools.lru_cache(maxsize=1024)
def _names(code: types.CodeType) -> frozenset[str]:
    """The global names that code reads, and code inside of it."""
    own = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return frozenset(own).union(*(_names(part) for part in code.co_consts if isinstance(part, types.CodeType)))


def _function(value: Any) -> types.FunctionType | None:
    """What runs where something is called, which may be a part of a function, a method or an object."""
    while isinstance(value, (functools.partial, types.MethodType)):
        value = value.func if isinstance(value, functools.partial) else value.__func__
    call = value if type(value) is types.FunctionType else type(value).__call__
    return call if isinstance(call, types.FunctionType) else None
