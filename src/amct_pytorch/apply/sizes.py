"""Sizes in attributes: those of torch's own layers follow their weights, those in user code follow the plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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


LayerSizes = dict[str, dict[str, Any]]


def layer_sizes(model: nn.Module, plan: ChannelPlan, shapes: Mapping[str, Sequence[int]]) -> LayerSizes:
    """What the attributes of torch's own layers, and of their subclasses, say after the cut, by layer and attribute.

    `out_channels`, `groups`, `num_features`, `normalized_shape`, ... of those that a tensor is cut of, as their
    attributes say what their weights do. `model`: before the cut; `shapes`: of its tensors after it, by name.

    Raises RecordError where the groups of a convolution would keep unequal numbers.
    """
    tensors = named_tensors(model)
    after = {id(tensors[name]): tuple(shape) for name, shape in shapes.items()}
    cut = {id(tensors[axis.tensor]): axis.tensor for axis in plan.removals}
    found: LayerSizes = {}
    for name, layer in named_modules(model):
        own = [*layer._parameters.values(), *layer._buffers.values()]
        if "parametrizations" in layer._modules:
            own += _parametrized(layer)
        tensors_cut = [cut[id(tensor)] for tensor in own if id(tensor) in cut]
        before = _sizes(layer, _shape) if tensors_cut else {}
        if before and all(getattr(layer, attribute, None) == size for attribute, size in before.items()):
            found[name] = _sizes_after(layer, tensors_cut, plan, lambda tensor: after[id(tensor)])
    return found


def _sizes_after(layer: nn.Module, tensors_cut: list[str], plan: ChannelPlan, after: ShapeOf) -> dict[str, Any]:
    if not isinstance(layer, Convolution):
        return _sizes(layer, after)
    shape = weight_shape(layer, _shape)
    groups = _groups_left(layer, shape, tensors_cut, plan)
    sizes = {"groups": groups, **_sizes(layer, after, groups)}
    if shape is not None and layer.kernel_size == shape[2:]:
        sizes["kernel_size"] = (weight_shape(layer, after) or shape)[2:]
    return sizes


def apply_sizes(
    model: nn.Module, plan: ChannelPlan, own: LayerSizes, original: nn.Module | None = None
) -> set[Setting]:
    """Set the sizes in the attributes of a model whose tensors have just been cut by `plan`; call it once.

    `own`: of torch's layers, as `layer_sizes` gives them. Then `plan.settings`. `original` is the model that this one
    is a copy of: objects that both still share are copied before they are changed.

    Returns the settings of the plan that say what the weights of torch's own layers say already. Raises RecordError
    where a setting does not fit the model.
    """
    layers = dict(named_modules(model))
    settings.apply(model, plan.settings, original)
    for name, sizes in own.items():
        layer = layers[name]
        vars(layer).update({attribute: size for attribute, size in sizes.items() if attribute in vars(layer)})
        if isinstance(layer, nn.MultiheadAttention):
            layer.head_dim = layer.embed_dim // layer.num_heads
    for layer in layers.values():
        if isinstance(layer, nn.TransformerEncoder):
            _follow_heads(layer)
    return {setting for setting in plan.settings if setting.path.partition("[")[0] in own.get(setting.module, {})}


def _follow_heads(encoder: nn.TransformerEncoder) -> None:
    """Padded tokens are left out by way of nested tensors where heads are even: constructors decide that once."""
    first = next(iter(encoder.layers), None)
    if isinstance(first, nn.TransformerEncoderLayer) and first.self_attn.num_heads % 2:
        encoder.use_nested_tensor = False


def check_sizes(model: nn.Module, plan: ChannelPlan, own: LayerSizes) -> None:
    """Raise RecordError where a setting of the plan does not fit the model before the cut."""
    if not plan.settings:
        return
    first = {id(layer): name for name, layer in named_modules(model)}
    modules = dict(named_modules(model, every_name=True))
    user = {
        setting: change
        for setting, change in plan.settings.items()
        if setting.path not in own.get(first.get(id(modules.get(setting.module)), ""), {})  # those follow the weight
    }
    settings.check(model, user)


def weight_shape(layer: nn.Module, shape_of: ShapeOf) -> Shape | None:
    """The shape of a layer's weight, of a parametrized one without computing it; None where that does not tell it."""
    weight = layer._parameters.get("weight")
    if weight is not None:
        return shape_of(weight)
    shapes = [shape_of(tensor) for tensor in _parametrized(layer) or _computed_from(layer)]
    if len({len(shape) for shape in shapes}) != 1:
        return None
    return tuple(map(max, zip(*shapes, strict=True)))  # weight norm: a magnitude (O, 1, 1) and a direction (O, I, K)


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
    if isinstance(layer, (nn.RNNBase, nn.RNNCellBase)):
        return _recurrent_sizes(layer, shape_of)
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


def _recurrent_sizes(layer: nn.RNNBase | nn.RNNCellBase, shape_of: ShapeOf) -> dict[str, Any]:
    end = "_l0" if isinstance(layer, nn.RNNBase) else ""
    inputs = layer._parameters.get(f"weight_ih{end}")
    if inputs is None:
        return {}
    gates = inputs.shape[0] // layer.hidden_size
    return {"input_size": shape_of(inputs)[1], "hidden_size": shape_of(inputs)[0] // gates}


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


def _computed_from(layer: nn.Module) -> list[torch.Tensor]:
    """The parameters that a hook computes a layer's weight from before each forward pass (`torch.nn.utils`)."""
    weight = vars(layer).get("weight")
    own = layer._parameters.items() if isinstance(weight, torch.Tensor) else ()
    return [p for name, p in own if p is not None and name.startswith("weight_") and p.ndim == weight.ndim]  # type: ignore[union-attr]


def _shape(tensor: torch.Tensor) -> Shape:
    return tuple(tensor.shape)
