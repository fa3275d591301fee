"""What a copy of a model shares with it though it should not, or lacks: a user is told."""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import nn

from amct_pytorch import by_name
from amct_pytorch.errors import few, warn
from amct_pytorch.structure import named_modules


def warn_of_copy(model: nn.Module) -> None:
    """Warn of what a copy of a model shares with it, and of what it lacks."""
    _warn_of_hooks(model)
    _warn_of_names(model)


def _warn_of_hooks(model: nn.Module) -> None:
    """Warn of hooks on parameters, which are for gradients as long as these were."""
    hooked = [
        name
        for name, p in model.named_parameters()
        if getattr(p, "_backward_hooks", None) or getattr(p, "_post_accumulate_grad_hooks", None)
    ]
    if hooked:
        warn(
            f"hooks on parameters do not come along into what is returned: register those of {few(hooked)} on its "
            "parameters, for gradients of their shapes"
        )


def _warn_of_names(model: nn.Module) -> None:
    """Warn where hooks, or functions in the place of a forward, know parts of the model by a global name: those of the
    copy find the model that was given."""
    modules = [module for _, module in named_modules(model)]
    held = [*by_name.hooks(modules), *by_name.functions(modules)]
    if not held:  # in most models
        return
    own = set(map(id, modules))
    tables = (table for m in modules for table in (m._parameters, m._buffers))
    own.update(id(t) for table in tables for t in table.values() if t is not None)
    names = sorted({repr(name) for name, value in by_name.known(held) if id(_part(value)) in own})
    if names:
        warn(
            f"functions that {type(model).__qualname__} holds (hooks, a replaced forward) find parts of it by the "
            f"global name {few(names)}. What is returned finds the same there, and computes with the parameters of the "
            "model that was given: let them take such parts from a closure, or from the module that they are called for"
        )


def _part(value: Any) -> Any:
    """The part of the model that a value is, or is a method of."""
    if isinstance(value, (nn.Module, torch.Tensor)):
        return value
    return value.__self__ if isinstance(value, types.MethodType) else None
