"""Which weights of a model can be 2:4 sparse, along which axis, and why others cannot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from amct_pytorch.apply.nm_layers import SparseLayer, mask_name
from amct_pytorch.errors import ModelError

_PLAIN = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_PACKED = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")  # of nn.MultiheadAttention


class Weight(NamedTuple):
    """One parameter of one layer, its input-channel axis, and how many groups of channels there are along axis 0.

    `reason` says why it stays dense whatever is asked for; empty where it can be sparse. `for_2to4`: whether 2:4
    sparsity is for weights of this kind at all.
    """

    layer: str
    parameter: str
    axis: int
    groups: int
    tensor: torch.Tensor
    reason: str = ""
    for_2to4: bool = True

    @property
    def name(self) -> str:
        """Its name in records."""
        return record_name(self.layer, self.parameter)

    @property
    def channels(self) -> int:
        """The length of the axis that is cut in fours."""
        return int(self.tensor.shape[self.axis]) // (self.groups if self.axis == 0 else 1)


def record_name(layer: str, parameter: str) -> str:
    """The name of a weight in records: AMCT's, the layer's. A parameter that is not called `weight` goes by its own."""
    return layer if parameter == "weight" else f"{layer}.{parameter}".lstrip(".")


def mask_key(layer: str, parameter: str) -> str:
    """The name of a weight's mask in the state dict."""
    return f"{layer}.{mask_name(parameter)}".lstrip(".")


def weights(model: nn.Module) -> Iterator[Weight]:
    """Every weight that 2:4 sparsity is for, in the order of the modules, and every other matrix with the reason."""
    layers = Counter(map(id, (layer for _, layer in model.named_modules(remove_duplicate=False))))
    names: dict[object, list[str]] = {}
    for name, tensor in model.named_parameters(remove_duplicate=False):
        names.setdefault(_place(tensor), []).append(name)
    for name, layer in model.named_modules():
        for weight in _weights_of(name, layer):
            reason = weight.reason or _why_dense(weight)
            if not reason and layers[id(layer)] > 1:
                reason = "a layer that is in the model under several names stays dense"
            elif not reason and len(names.get(_place(weight.tensor), ())) > 1:
                reason = (
                    f"a weight that several layers share stays dense ({', '.join(names[_place(weight.tensor)][:3])})"
                )
            yield weight._replace(reason=reason)


def _weights_of(name: str, layer: nn.Module) -> Iterator[Weight]:
    if isinstance(layer, (*_PLAIN, *_TRANSPOSED)):
        axis, groups = (0, layer.groups) if isinstance(layer, _TRANSPOSED) else (1, 1)
        eligible = {"weight": (axis, groups)}
    elif isinstance(layer, nn.MultiheadAttention):
        eligible = dict.fromkeys(_PACKED, (1, 1))
    else:
        eligible = {}
    for parameter, tensor in layer._parameters.items():
        if tensor is None:
            continue
        if is_lazy(tensor):
            raise ModelError(f"{name}.{parameter} has no shape yet: run the model once before it is made sparse")
        if parameter in eligible:
            yield Weight(name, parameter, *eligible[parameter], tensor)
        elif tensor.dim() > 1:
            reason = f"2:4 sparsity is not for the weights of {type(layer).__name__}"
            yield Weight(name, parameter, 1, 1, tensor, reason, for_2to4=False)
    if "weight" in eligible and "weight" not in layer._parameters:
        reason = "a weight that is computed from others (a parametrization, weight norm) stays dense"
        yield Weight(name, "weight", *eligible["weight"], value_of(layer, "weight"), reason)


def value_of(layer: nn.Module, parameter: str) -> torch.Tensor:
    """What a layer computes with as its parameter. Parametrizations are asked in eval mode: in train mode some change
    with each time, as the vectors of a spectral norm do."""
    modes = {m: m.training for m in layer.modules()} if is_parametrized(layer, parameter) else {}
    try:
        for module in modes:
            module.training = False
        with torch.no_grad():
            return torch.as_tensor(getattr(layer, parameter)).detach()
    finally:
        for module, mode in modes.items():
            module.training = mode


def _place(tensor: torch.Tensor) -> object:
    """What tells whether two parameters are one: its memory, where it has any."""
    lies = tensor.numel() and not (tensor.is_meta or is_lazy(tensor)) and tensor.layout == torch.strided
    return (tensor.data_ptr(), tensor.shape) if lies else id(tensor)


def _why_dense(weight: Weight) -> str:
    if weight.channels <= 2:
        return "of 2 or fewer input channels 2 stay (depthwise convolutions too)"
    if not weight.tensor.is_floating_point():
        return f"weights of {weight.tensor.dtype} have no magnitudes to compare"
    return ""


def sparse_weights(model: nn.Module) -> Iterator[tuple[str, SparseLayer, str]]:
    """The 2:4 sparse parameters of a model: the layer's name, the layer, the parameter."""
    for name, layer in model.named_modules():
        if isinstance(layer, SparseLayer):
            for parameter in layer.sparsity_2to4:
                yield name, layer, parameter


def is_sparse(model: nn.Module) -> bool:
    """Whether a model has 2:4 sparse layers."""
    return any(isinstance(layer, SparseLayer) for layer in model.modules())
