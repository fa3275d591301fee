"""A group in AMCT's words: the layers that it has names for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from amct_pytorch.record import Axis, Node, PruneGroup

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
Part = tuple[Axis, bool, int, int, tuple[int, ...]]


def nodes(layers: Mapping[str, nn.Module], parts: Iterable[Part]) -> PruneGroup:
    """Producers and consumers among the axes of a group; what has no word there is left to the facts of the record.

    layers: all modules of the model, by name. parts: per axis, in the model's order, whether its layer makes the
    channels, the range that is the group's, and the indices that go.
    """
    found: dict[tuple[bool, str], Node] = {}
    for axis, makes, begin, end, removed in parts:
        name, _, leaf = axis.tensor.rpartition(".")
        layer = layers.get(name)
        if leaf != "weight" or layer is None:
            continue
        role = _role(layer, axis.axis, makes)
        if role is not None:
            produces, kind, groups = role
            found.setdefault((produces, name), Node(name, kind, begin, end, removed, groups))
    producers = tuple(n for (produces, _), n in found.items() if produces)
    return PruneGroup(producers, tuple(n for (produces, _), n in found.items() if not produces))


def _role(layer: nn.Module, axis: int, makes: bool) -> tuple[bool, str, int | None] | None:
    """Whether a layer produces along an axis of its weight, its ONNX type and its groups; None where AMCT has no
    word."""
    if isinstance(layer, nn.modules.conv._ConvNd):
        known = _TRANSPOSED if layer.transposed else _CONVOLUTIONS
        if not isinstance(layer, known):
            return None
        kind = "ConvTranspose" if layer.transposed else "Conv"
        if layer.groups == layer.in_channels and layer.groups > 1:  # depthwise: goes with its input
            return (False, kind, None) if axis == 0 else None
        groups = layer.groups if layer.groups > 1 else None
        output = 1 if layer.transposed else 0
        if axis == output:
            return (True, kind, groups) if makes else None
        return (False, kind, groups) if axis == 1 - output else None
    if isinstance(layer, nn.Linear):
        if axis == 0:
            return (True, "Gemm", None) if makes else None
        return False, "Gemm", None
    if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
        return False, "BatchNormalization", None
    return None
