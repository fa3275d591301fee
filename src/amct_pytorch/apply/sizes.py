"""Sizes in attributes: those of torch's own layers follow their weights, those in user code follow the plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from amct_pytorch.apply import settings
from amct_pytorch.apply.cut import groups_left
from amct_pytorch.apply.names import named_tensors
from amct_pytorch.errors import RecordError
from amct_pytorch.record import Axis, ChannelPlan, Setting
from amct_pytorch.structure import named_modules

Shape = tuple[int, ...]
ShapeOf = Callable[[torch.Tensor], Shape]
Convolution = nn.modules.conv._ConvNd


def apply_sizes(model: nn.Module, plan: ChannelPlan, original: nn.Module | None = None) -> set[Setting]:
    """Set the sizes in the attributes of a model whose tensors have just been cut by `plan`; call it once.

    Of torch's own layers, and of their subclasses, those that a tensor was cut of: `out_channels`, `groups`,
    `num_features`, `normalized_shape`, ... as their weights are now. Then `plan.settings`. `original` is the model that
    this one is a copy of: objects that both still share are copied before they are changed.

    Returns the settings of the plan that say what the weights of torch's own layers say already. Raises RecordError
    where a setting does not fit the model.
    """
    followed = list(_followed(model, plan))  # before the settings: they may change the same attributes
    settings.apply(model, plan.settings, original)
    for _, layer, sizes in followed:
        vars(layer).update({name: size for name, size in sizes.items() if name in vars(layer)})
        if isinstance(layer, nn.MultiheadAttention):
            layer.head_dim = layer.embed_dim // layer.num_heads
    own = {name: sizes for name, _, sizes in followed}
    return {setting for setting in plan.settings if setting.path.partition("[")[0] in own.get(setting.module, {})}


def check_sizes(model: nn.Module, plan: ChannelPlan) -> None:
    """Raise RecordError where a setting of the plan does not fit the model before the cut, or groups would differ."""
    own = {id(layer): sizes for _, layer, sizes in _followed(model, plan)}
    modules = dict(named_modules(model, every_name=True)) if plan.settings else {}
    user = {
        setting: change
        for setting, change in plan.settings.items()
        if setting.path not in own.get(id(modules.get(setting.module)), {})  # those follow the weight
    }
    settings.check(model, user)


def weight_shape(layer: nn.Module, shape_of: ShapeOf) -> Shape | None:
    """The shape of a layer's weight, of a parametrized one without computing it; None where that does not tell it."""
    weight = layer._parameters.get("weight")
    if weight is not None:
        return shape_of(weight)
    shapes = [shape_of(tensor) for tensor in _parametrized(layer)]
    if len({len(shape) for shape in shapes}) != 1:
        return None
    return tuple(map(max, zip(*shapes, strict=True)))  # weight norm: a magnitude (O, 1, 1) and a direction (O, I, K)


def _followed(model: nn.Module, plan: ChannelPlan) -> Iterator[tuple[str, nn.Module, dict[str, Any]]]:
    """Torch's layers that a tensor was cut of, by name, and the sizes that their tensors say now.

    A layer whose attributes did not say what its weight did before, as a subclass may have it, is none of them.
    """
    tensors = named_tensors(model)
    before = {id(tensors[name]): shape for name, shape in plan.shapes.items()}
    cut = {id(tensors[axis.tensor]): axis.tensor for axis in plan.removals}

    def shape_before(tensor: torch.Tensor) -> Shape:
        return before.get(id(tensor), tuple(tensor.shape))

    for name, layer in named_modules(model):
        own = [*layer._parameters.values(), *layer._buffers.values()]
        if "parametrizations" in layer._modules:
            own += _parametrized(layer)
        tensors_cut = [cut[id(tensor)] for tensor in own if id(tensor) in cut]
        old = _sizes(layer, shape_before) if tensors_cut else {}
        if old and all(getattr(layer, attribute, None) == size for attribute, size in old.items()):
            if isinstance(layer, Convolution):
                groups = _groups_left(layer, weight_shape(layer, shape_before), tensors_cut, plan)
                yield name, layer, {"groups": groups, **_sizes(layer, _shape, groups)}
            else:
                yield name, layer, _sizes(layer, _shape)


def _groups_left(layer: Convolution, shape: Shape | None, names: list[str], plan: ChannelPlan) -> int:
    """The groups that keep a row of the weight: a depthwise convolution loses as many as it loses channels."""
    rows = next((plan.removals[Axis(name, 0)] for name in names if Axis(name, 0) in plan.removals), None)
    if shape is None or layer.groups == 1 or rows is None or rows.size != shape[0]:
        return layer.groups
    try:
        return groups_left(shape[0], layer.groups, rows)
    except RecordError as cause:
        raise RecordError(f"{names[0]}: {cause}") from cause


def _sizes(layer: nn.Module, shape_of: ShapeOf, groups: int | None = None) -> dict[str, Any]:
    """What a layer of torch's own should say about its size; empty for other modules."""
    if isinstance(layer, nn.MultiheadAttention):
        return _attention_sizes(layer, shape_of)
    if isinstance(layer, (nn.RNNBase, nn.RNNCellBase)):  # the hidden size stays
        weight = layer._parameters.get("weight_ih_l0" if isinstance(layer, nn.RNNBase) else "weight_ih")
        return {} if weight is None else {"input_size": shape_of(weight)[1]}
    shape = weight_shape(layer, shape_of)
    if shape is None and isinstance(layer, nn.modules.batchnorm._NormBase) and layer.running_mean is not None:
        shape = shape_of(layer.running_mean)
    if shape is None:
        return {}
    if isinstance(layer, (nn.LayerNorm, nn.RMSNorm)):
        return {"normalized_shape": shape}
    if isinstance(layer, Convolution):
        logical = (shape[0], shape[1] * (layer.groups if groups is None else groups))
        return dict(zip(_CONVOLUTION[layer.transposed], logical, strict=True))
    names = next((names for kind, names in _BY_AXIS if isinstance(layer, kind)), ())
    return dict(zip(names, shape, strict=True)) if len(names) == len(shape) else {}


_CONVOLUTION = {False: ("out_channels", "in_channels"), True: ("in_channels", "out_channels")}
# The attributes that state the axes of the weight, in their order.
_BY_AXIS: tuple[tuple[type[nn.Module], tuple[str, ...]], ...] = (
    (nn.Linear, ("out_features", "in_features")),
    (nn.Bilinear, ("out_features", "in1_features", "in2_features")),
    (nn.modules.batchnorm._NormBase, ("num_features",)),  # batch and instance norms
    (nn.GroupNorm, ("num_channels",)),
    (nn.PReLU, ("num_parameters",)),
    (nn.Embedding, ("num_embeddings", "embedding_dim")),
    (nn.EmbeddingBag, ("num_embeddings", "embedding_dim")),
)


def _attention_sizes(layer: nn.MultiheadAttention, shape_of: ShapeOf) -> dict[str, Any]:
    packed = layer._parameters.get("in_proj_weight")
    found = {}
    for name, own in (("embed_dim", "q_proj_weight"), ("kdim", "k_proj_weight"), ("vdim", "v_proj_weight")):
        weight = layer._parameters.get(own) if packed is None else packed
        if weight is not None:
            found[name] = shape_of(weight)[1]
    return found


def _parametrized(layer: nn.Module) -> list[torch.Tensor]:
    """The tensors that a parametrized layer computes its weight from."""
    parametrizations = layer._modules.get("parametrizations")
    weight = None if parametrizations is None else parametrizations._modules.get("weight")
    return [] if weight is None else list(weight.parameters(recurse=False))


def _shape(tensor: torch.Tensor) -> Shape:
    return tuple(tensor.shape)
