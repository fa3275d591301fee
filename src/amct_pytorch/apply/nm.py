"""2:4 sparsity of a whole model: the plan, the sparse copy, and back to a plain model."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import nn

from amct_pytorch.apply.mask import choose, is_finite, pack, packed_size
from amct_pytorch.apply.nm_layers import (
    COUNTER,
    SparseLayer,
    Sparsity,
    count_batches,
    drop,
    is_back,
    make_dense,
    make_sparse,
    mask_of,
    require_2to4,
    stop_counting,
)
from amct_pytorch.apply.nm_weights import Weight, is_sparse, sparse_weights, weights
from amct_pytorch.apply.shrink import carried_plan, refresh, shrink
from amct_pytorch.config import NmSparsity, SparsityConfig
from amct_pytorch.errors import ModelError, warn
from amct_pytorch.record import ChannelPlan, NmLayer, NmPlan
from amct_pytorch.report import GroupSummary, Left, Summary
from amct_pytorch.wrappers import refuse_no_model, refuse_spread, unwrap


def plan_nm(model: nn.Module, config: SparsityConfig) -> NmPlan:
    """Which weights become zero under a 2:4 config. No forward pass; the model stays as it is.

    Raises ModelError where the model is sparse already, no layer of it can be, or a weight holds NaN or infinities or
    has no values yet.
    """
    _refuse_pruned(model)
    layers, left = [], []
    for weight in weights(model):
        asked = config.for_layer(weight.layer, model.get_submodule(weight.layer))
        reason = weight.reason or ("" if isinstance(asked, NmSparsity) else "the config leaves it out")
        if reason:
            left.append(Left(reason, weight.layer, weight.tensor.numel(), (f"{weight.layer}.{weight.parameter}",)))
        else:
            assert isinstance(asked, NmSparsity)
            layers.append(_planned(weight, asked.update_freq))
    if not layers:
        reasons = sorted({f"{entry.reason} ({entry.module})" for entry in left})
        raise ModelError(
            "no layer of the model can be made 2:4 sparse: " + ("; ".join(reasons[:5]) or "it has no weights")
        )
    warn_of_gradients(layers, config.gradients)
    return NmPlan(tuple(layers), config.gradients, _summary(model, layers, left))


def sparsify(model: nn.Module, plan: NmPlan) -> nn.Module:
    """A copy of the model that is 2:4 sparse as the plan says; the model stays as it is, and they share no tensor.

    Raises ModelError where the plan does not fit the model or the model cannot be copied.
    """
    sparse = convert(model, plan)
    for _, layer, parameter in sparse_weights(sparse):
        if layer.sparsity_2to4[parameter].holds_zeros:
            drop(layer, parameter)
    refresh(sparse)
    return sparse


def convert(model: nn.Module, plan: NmPlan, without_values: Collection[str] = ()) -> nn.Module:
    """`sparsify`, but the parameters keep their values: a checkpoint is to follow. `without_values` as for `shrink`."""
    _refuse_pruned(model)
    found = {(weight.layer, weight.parameter): weight for weight in weights(model)}
    for layer in plan.layers:
        weight = found.get((layer.name, layer.parameter))
        if weight is None or tuple(weight.tensor.shape) != layer.shape:
            there = "is missing" if weight is None else f"is {tuple(weight.tensor.shape)}"
            raise ModelError(
                f"the plan was made for another model: {layer.name}.{layer.parameter} {there}, expected {layer.shape}"
            )
    copy = shrink(model, ChannelPlan(), without_values)
    del copy._sparsity_plan  # nothing was cut
    with torch.inference_mode(False):  # or what is made here could not be written to in training
        _make_sparse(copy, plan, found)
    return copy


def _make_sparse(copy: nn.Module, plan: NmPlan, found: Mapping[tuple[str, str], Weight]) -> None:
    for layer in plan.layers:
        groups = found[layer.name, layer.parameter].groups
        sparsity = Sparsity(layer.axis, groups, layer.update_freq, plan.gradients)
        target = copy.get_submodule(layer.name)
        make_sparse(target, layer.parameter, sparsity, _bits(layer, target._parameters[layer.parameter]))
    if any(layer.update_freq for layer in plan.layers):
        count_batches(copy)


def to_dense(model: nn.Module) -> nn.Module:
    """The plain model: the original classes, the zeros in the weights, for every use outside of this package.

    A copy that shares no tensor with `model`, which stays as it is; of a model without 2:4 sparse layers an exact copy.
    DataParallel, DistributedDataParallel and torch.compile around it are looked through.
    Weights that were changed from outside to other than zero where the mask drops them are zeros again, which is an
    AmctWarning. Raises ModelError where the model cannot be copied.
    """
    refuse_no_model(model, "to_dense")
    model = unwrap(model)
    refuse_spread(model, "to_dense")
    plan = carried_plan(model)
    plain = shrink(model, ChannelPlan())
    if plan is None:
        del plain._sparsity_plan
    warn_of_leaks(model)
    for _, layer, parameter in list(sparse_weights(plain)):
        drop(layer, parameter)
    for module in plain.modules():
        if isinstance(module, SparseLayer):
            make_dense(module)
        if COUNTER in module._buffers:
            stop_counting(module)
    return plain


def plan_of(model: nn.Module) -> NmPlan:
    """The plan that the masks of a sparse model amount to now. Raises ModelError where the model is not 2:4 sparse."""
    layers, gradients = [], "kept"
    for name, layer, parameter in sparse_weights(model):
        sparsity, weight = layer.sparsity_2to4[parameter], layer._parameters[parameter]
        assert weight is not None
        gradients = sparsity.gradients
        mask = _to_bytes(pack(mask_of(layer, parameter)))
        layers.append(NmLayer(name, parameter, sparsity.axis, sparsity.update_freq, tuple(weight.shape), mask))
    if not layers:
        raise ModelError(
            "the model has no 2:4 sparse layer; pass the one that create_prune_retrain_model or "
            "restore_prune_retrain_model returned"
        )
    return NmPlan(tuple(layers), gradients)


def refuse_sparse(model: nn.Module) -> None:
    """Raise ModelError for a model that is 2:4 sparse already."""
    if is_sparse(model):
        raise ModelError(
            "the model is 2:4 sparse already, and one model has one kind of sparsity, chosen once; pass the dense "
            "model, or to_dense(model)"
        )


def _refuse_pruned(model: nn.Module) -> None:
    refuse_sparse(model)
    if carried_plan(model) is not None:
        raise ModelError(
            "the model was pruned by channels, and one model has one kind of sparsity: its record could not say both. "
            "Pass the dense model; to go on from the pruned one as a new original, delete its attribute _sparsity_plan"
        )


def warn_of_gradients(layers: Collection[NmLayer], gradients: str) -> None:
    """SR-STE was found fragile where masks are not chosen in every batch."""
    others = sorted({layer.update_freq for layer in layers} - {1})
    if gradients == "sr_ste" and others:
        warn(
            f"gradients 'sr_ste' is meant for update_freq 1, and this config has {others}: with masks that stay for "
            "longer, training was seen to lose much accuracy; set update_freq: 1, or leave gradients at 'kept'"
        )


def _planned(weight: Weight, update_freq: int) -> NmLayer:
    if weight.tensor.is_meta:
        raise ModelError(f"{weight.name}: its weight has no values (meta device), so none can be chosen; load it first")
    if not is_finite(weight.tensor):
        raise ModelError(
            f"{weight.name}: its {weight.parameter} holds NaN or infinities, which have no rank; mend the weights, or "
            "skip the layer"
        )
    mask = _to_bytes(pack(choose(weight.tensor, weight.axis, weight.groups)))
    return NmLayer(weight.layer, weight.parameter, weight.axis, update_freq, tuple(weight.tensor.shape), mask)


def _bits(layer: NmLayer, weight: torch.Tensor | None) -> torch.Tensor:
    """The buffer for a mask, next to the weight; empty where the plan has none yet."""
    assert weight is not None
    size = packed_size(layer.shape)
    data = np.zeros(size, np.uint8) if layer.mask is None else np.frombuffer(layer.mask, np.uint8).copy()
    return torch.from_numpy(data).to("cpu" if weight.is_meta else weight.device)


def _to_bytes(bits: torch.Tensor) -> bytes:
    return bits.cpu().numpy().tobytes()


def warn_of_leaks(model: nn.Module) -> None:
    """An AmctWarning for each weight that computes with what its mask drops, as the plain model will not.

    Raises ModelError where a mask is none.
    """
    for name, layer, parameter in sparse_weights(model):
        require_2to4(layer, parameter)
        if is_back(layer, parameter):
            warn(
                f"{name}: dropped weights of {parameter} had become other than zero, and are zeros again in the plain "
                "model, which so differs from the one that was trained; code that writes to `.data` of the weights "
                "does that"
            )


def _summary(model: nn.Module, layers: list[NmLayer], left: list[Left]) -> Summary:
    total = sum(parameter.numel() for parameter in model.parameters())
    groups, frequencies = [], []
    for layer in layers:
        assert layer.mask is not None
        size = int(torch.Size(layer.shape).numel())
        kept = int(np.unpackbits(np.frombuffer(layer.mask, np.uint8)).sum())
        groups.append(GroupSummary((f"{layer.name}.{layer.parameter}".lstrip("."),), size, kept))
        frequencies.append(layer.update_freq)
    notes = tuple(
        f"{frequencies.count(freq)} weights with update_freq {freq}, chosen "
        + (f"anew every {freq} batches" if freq else "once")
        for freq in sorted(set(frequencies))
    )
    dropped = sum(group.before - group.after for group in groups)
    return Summary(tuple(groups), tuple(left), notes, (total, total - dropped), unit="weight")
