"""A model's tensors by name; one tensor may have several."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from amct_pytorch.errors import ModelError


def named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer by each of its names, parameters first. ModelError where one has no shape yet."""
    parameters: dict[str, torch.Tensor] = {}
    buffers: dict[str, torch.Tensor] = {}
    _collect(model, "", parameters, buffers)
    named = {**parameters, **buffers}
    for name, tensor in named.items():
        if type(tensor) is not nn.Parameter and is_lazy(tensor):
            raise ModelError(f"{name} has no shape yet: its layer is a lazy one; run the model once before")
    return named


def _collect(
    module: nn.Module, dot: str, parameters: dict[str, torch.Tensor], buffers: dict[str, torch.Tensor]
) -> None:
    """In the order of `named_modules`, which takes several times as long."""
    for own, found in ((module._parameters, parameters), (module._buffers, buffers)):
        for name, tensor in own.items():
            if tensor is not None:
                found[dot + name] = tensor
    for name, part in module._modules.items():
        if part is not None:
            _collect(part, f"{dot}{name}.", parameters, buffers)


def first_names(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """For each name of a tensor its first one, which plans and records use; `tensors`: those of `named_tensors`."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in tensors.items()}
