"""What a record means for a model, and what of a plan is to be recorded."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn

from amct_pytorch.apply.names import first_names, named_tensors
from amct_pytorch.apply.shrink import carried_plan, check_plan
from amct_pytorch.apply.sizes import Convolution
from amct_pytorch.config import SparsityConfig
from amct_pytorch.errors import ModelError, RecordError, warn
from amct_pytorch.record import Axis, ChannelPlan, Facts, Node, PruneGroup, Record, Removal
from amct_pytorch.structure import named_modules

Shapes = Mapping[str, tuple[int, ...]]

# The class that an ONNX operator's layer must be of; other operators have no weights that a record cuts.
_LAYERS: dict[str, type[nn.Module]] = {
    "Conv": Convolution,
    "ConvTranspose": Convolution,
    "Gemm": nn.Linear,
    "MatMul": nn.Linear,
    "BatchNormalization": nn.modules.batchnorm._BatchNorm,
}


class _Cut(NamedTuple):
    """One axis that a node speaks of, and its length before the cut, over all groups of a convolution."""

    tensor: str
    axis: int
    size: int


def resolve(record: Record, model: nn.Module) -> ChannelPlan:
    """The plan that a channel record states for a model: AMCT's nodes as tensors and axes, and our facts.

    Raises RecordError where the record does not fit the model (another architecture, another width), naming what
    differs; ModelError where the model is sparse already.
    """
    prefix = f"{record.source}: " if record.source else ""
    if carried_plan(model) is not None:
        raise ModelError(
            f"{prefix}the model is sparse already; a record tells what goes of the original, dense model: pass that one"
        )
    facts = _without_state(record.facts or Facts(), model, prefix)
    try:
        _check_facts(facts, model)
        stated = node_removals(record.groups, model)
        for axis, removal in facts.removals.items():
            _check_agree(axis, stated.get(axis), removal)
        removals = {**stated, **facts.removals}
        tensors = named_tensors(model)
        shapes = {axis.tensor: tuple(tensors[axis.tensor].shape) for axis in stated}
        plan = ChannelPlan(removals, {**shapes, **facts.shapes}, facts.settings, record.groups)
        check_plan(model, plan)
    except RecordError as cause:
        raise RecordError(f"{prefix}{cause}") from cause
    return plan


def check_kind(record: Record, config: SparsityConfig) -> None:
    """Raise RecordError where a record is not of the config's kind of sparsity; one without any entry is of both."""
    kinds = {"channel": bool(record.groups or record.facts), "2:4": bool(record.selective)}
    of_record = [kind for kind, states in kinds.items() if states]
    if of_record and of_record != [config.kind]:
        raise RecordError(
            f"{record.source or 'the record'} is a record of {' and '.join(of_record)} sparsity, and "
            f"{config.source or 'the config'} asks for {config.kind} sparsity; give the two that belong together"
        )


def to_record(plan: ChannelPlan, model: nn.Module) -> Record:
    """The record of a plan: AMCT's nodes as they are, and as facts what they do not state.

    A node speaks of all tensors of a layer; where the plan removes something else of one of them (a bias that is not
    used, or added elsewhere), the facts say it. `model` is the one that the plan was made for, or one cut by it.
    """
    tensors = named_tensors(model)
    first = first_names(tensors)
    removals = {Axis(first[axis.tensor], axis.axis): removal for axis, removal in plan.removals.items()}
    shapes = {first[name]: shape for name, shape in plan.shapes.items()}
    cuts = _NodeCuts(model, tensors, shapes, removals)
    told = [(group, _true(group, cuts, removals)) for group in plan.groups]
    groups = tuple(true for group, true in told if true.producers or not group.producers)
    stated = _node_removals(groups, cuts)
    unstated = {axis: removal for axis, removal in removals.items() if stated.get(axis) != removal}
    return Record(groups, Facts(removals=unstated, shapes=shapes, settings=plan.settings))


def _true(group: PruneGroup, cuts: _NodeCuts, removals: Mapping[Axis, Removal]) -> PruneGroup:
    """The nodes of a group that state nothing but what is removed."""

    def holds(node: Node, produces: bool) -> bool:
        planned = ((removals.get(axis), size) for axis, size in cuts.of(node, produces) if node.removed)
        return all(
            removal is not None
            and removal.size == size
            and (node.removed == removal.removed or set(node.removed) <= set(removal.removed))
            for removal, size in planned
        )

    return PruneGroup(
        tuple(node for node in group.producers if holds(node, True)),
        tuple(node for node in group.consumers if holds(node, False)),
    )


def node_removals(groups: Collection[PruneGroup], model: nn.Module) -> dict[Axis, Removal]:
    """What AMCT's nodes remove, by tensor and axis; tensors by their first name.

    A producer loses output channels with their biases; a consumer input channels, a depthwise convolution and a batch
    normalization all that they hold of a channel. Several nodes of one layer add up. Raises RecordError.
    """
    return _node_removals(groups, _NodeCuts(model, named_tensors(model), {}, {}))


class _NodeCuts:
    """What nodes mean for a model. `tensors`: the model's, by every name; `shapes` and `removals`: of a plan that it
    may have been cut by."""

    def __init__(
        self,
        model: nn.Module,
        tensors: Mapping[str, torch.Tensor],
        shapes: Shapes,
        removals: Mapping[Axis, Removal],
    ) -> None:
        self.layers = dict(named_modules(model, every_name=True))
        self.first = first_names(tensors)
        self.before = {name: shapes.get(self.first[name], tuple(tensor.shape)) for name, tensor in tensors.items()}
        self.removals = removals
        self._known: dict[tuple[int, bool], tuple[Node, list[tuple[Axis, int]]]] = {}

    def of(self, node: Node, produces: bool) -> list[tuple[Axis, int]]:
        """The axes that a node speaks of, tensors by their first name, and their lengths."""
        found = self._known.get((id(node), produces))
        if found is None:
            layer = _layer(node, self.layers)
            cuts = [] if layer is None else _cuts(node, layer, produces, self.before, self.removals)
            axes = [(Axis(self.first[name], axis), size) for name, axis, size in cuts]
            found = self._known[id(node), produces] = node, axes
        return found[1]


def _node_removals(groups: Collection[PruneGroup], cuts: _NodeCuts) -> dict[Axis, Removal]:
    found: dict[Axis, list[tuple[int, ...]]] = {}
    sizes: dict[Axis, int] = {}
    for group in groups:
        for produces, nodes in ((True, group.producers), (False, group.consumers)):
            for node in nodes:
                for key, size in cuts.of(node, produces):
                    sizes[key] = size
                    if node.removed:
                        found.setdefault(key, []).append(node.removed)
    # The nodes of a group mostly name the same indices: one value for all of them.
    united = {
        axis: parts[0] if len(parts) == 1 else tuple(sorted(set().union(*parts))) for axis, parts in found.items()
    }
    shared = {key: Removal(*key) for key in {(sizes[axis], removed) for axis, removed in united.items()}}
    return {axis: shared[sizes[axis], removed] for axis, removed in united.items()}


def _layer(node: Node, layers: Mapping[str, nn.Module]) -> nn.Module | None:
    """The layer that a node names; None for an operation without weights, which needs no cut."""
    layer = layers.get(node.name)
    kind = _LAYERS.get(node.type)
    if layer is None:
        if node.type and kind is None:
            return None
        near = difflib.get_close_matches(node.name, list(layers), n=3, cutoff=0.5)
        remedy = f"the nearest that it has: {', '.join(near)}" if near else "names are those of model.named_modules()"
        raise RecordError(f"the record is of another architecture: the model has no layer {node.name!r}; {remedy}")
    if kind is None:
        kind = next((kind for kind in _LAYERS.values() if isinstance(layer, kind)), None)
        if kind is None and not [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]:
            return None
    transposed = {"Conv": False, "ConvTranspose": True}.get(node.type)
    if (
        kind is None
        or not isinstance(layer, kind)
        or (transposed is not None and bool(layer.transposed) is not transposed)
    ):
        raise RecordError(
            f"the record is of another architecture: it has {node.name!r} as {node.type or 'a layer with channels'}, "
            f"in the model it is a {type(layer).__qualname__}"
        )
    return layer


def _cuts(node: Node, layer: nn.Module, produces: bool, before: Shapes, removals: Mapping[Axis, Removal]) -> list[_Cut]:
    """The axes that a node of a layer speaks of: that of its weight first."""
    weight, bias, *statistics = (
        f"{node.name}.{name}".lstrip(".") for name in ("weight", "bias", "running_mean", "running_var")
    )
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        cuts = [_Cut(name, 0, before[name][0]) for name in (weight, bias, *statistics) if name in before]
    elif weight not in before:
        raise RecordError(
            f"{node.name!r} computes its weight (a parametrization), and the record states channels of the weight "
            "itself; restore it onto the model that it was made for, or remove the parametrization"
        )
    else:
        depthwise = isinstance(layer, Convolution) and not produces and _goes_with_input(node, layer, before[weight])
        transposed = isinstance(layer, Convolution) and layer.transposed
        axis = 0 if depthwise or produces is not transposed else 1
        cuts = [_Cut(weight, axis, _length(layer, weight, axis, before, removals))]
        if (produces or depthwise) and before.get(bias) == (cuts[0].size,):
            cuts.append(_Cut(bias, 0, cuts[0].size))
    if cuts and node.end > cuts[0].size:
        raise RecordError(
            f"the record is of another width: {node.name!r} has {cuts[0].size} channels there, and the record speaks "
            f"of {node.begin} to {node.end}"
        )
    return cuts


def _goes_with_input(node: Node, layer: Convolution, before: tuple[int, ...]) -> bool:
    """Whether a convolution is depthwise, or was: one that was cut to a single channel looks like any other.

    A node with groups is not, though the model may have been cut to one input channel per group. `before`: the shape
    of the weight before the cut, (out, 1, ...) of a depthwise one.
    """
    if node.groups is not None or layer.groups != layer.in_channels:
        return False
    return layer.groups > 1 or (node.end > 1 and before[1] == 1)


def _length(layer: nn.Module, weight: str, axis: int, before: Shapes, removals: Mapping[Axis, Removal]) -> int:
    """The channels on an axis of a weight, over all groups of a convolution."""
    if axis == 1 and Axis(weight, 1) in removals:
        return removals[Axis(weight, 1)].size
    return before[weight][axis] * (layer.groups if axis == 1 and isinstance(layer, Convolution) else 1)


def _without_state(facts: Facts, model: nn.Module, prefix: str) -> Facts:
    """The facts for a model that did not run yet, or on other inputs: buffers that no checkpoint has may be states, as
    long as the last input along some dims. One that no pass made yet is not cut, nor, with a warning, one of other
    dims, which a pass makes anew."""
    tensors, shapes, removals = named_tensors(model), dict(facts.shapes), dict(facts.removals)
    for name in _unsaved(model) & shapes.keys():
        was, now = shapes[name], tuple(tensors[name].shape) if name in tensors else ()
        cut = [axis for axis in removals if axis.tensor == name]
        if len(now) != len(was) or 0 in now:
            if name in tensors and 0 not in now:
                warn(
                    f"{prefix}{name!r} has shape {now} in the model, {was} in the record: it is taken for a state that "
                    "the forward pass makes, and is not cut"
                )
            del shapes[name]
            for axis in cut:
                del removals[axis]
        elif all(now[axis.axis] == was[axis.axis] for axis in cut):
            shapes[name] = now
    return replace(facts, shapes=shapes, removals=removals)


def _unsaved(model: nn.Module) -> set[str]:
    """The names of the buffers that a state dict leaves out."""
    return {
        f"{path}.{name}".lstrip(".")
        for path, module in named_modules(model)
        for name in module._non_persistent_buffers_set
    }


def _check_facts(facts: Facts, model: nn.Module) -> None:
    """Raise RecordError where the model is not of the shapes that the record was made for."""
    tensors = named_tensors(model)
    for name, shape in facts.shapes.items():
        if name not in tensors:
            near = difflib.get_close_matches(name, list(tensors), n=3, cutoff=0.5)
            remedy = f"; the nearest that it has: {', '.join(near)}" if near else ""
            raise RecordError(f"the record is of another architecture: the model has no {name!r}{remedy}")
        if tuple(tensors[name].shape) != shape:
            raise RecordError(
                f"the record is of another width: {name!r} has shape {tuple(tensors[name].shape)} in the model, "
                f"{shape} in the record"
            )


def _check_agree(axis: Axis, stated: Removal | None, planned: Removal) -> None:
    """Raise RecordError where the nodes remove of an axis what the whole does not."""
    if stated is None or stated == planned:
        return
    if stated.size != planned.size or not set(stated.removed) <= set(planned.removed):
        raise RecordError(
            f"{axis.tensor}, axis {axis.axis}: AMCT's nodes remove other channels than the facts beside them"
        )
