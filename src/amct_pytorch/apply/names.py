"""A model's tensors by name; one tensor may have several."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from amct_pytorch.errors import ModelError


def named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer by each of its names, parameters first. ModelError where one has no shape yet."""
    parameters, buffers = {}, {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        dot = prefix and f"{prefix}."
        parameters.update({dot + name: tensor for name, tensor in module._parameters.items() if tensor is not None})
        buffers.update({dot + name: tensor for name, tensor in module._buffers.items() if tensor is not None})
    named = {**parameters, **buffers}
    for name, tensor in named.items():
        if is_lazy(tensor):
            raise ModelError(f"{name} has no shape yet: its layer is a lazy one; run the model once before")
    return named


def first_names(model: nn.Module) -> dict[str, str]:
    """For each name of a tensor its first one, which plans and records use."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in named_tensors(model).items()}
