"""2:4 plans as records and back, and AMCT's checkpoints of 2:4 models under the names of ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from amct_pytorch.apply.mask import pack
from amct_pytorch.apply.nm import warn_of_gradients
from amct_pytorch.apply.nm_layers import mask_name
from amct_pytorch.apply.nm_weights import Weight, record_name, weights
from amct_pytorch.config import NmSparsity, SparsityConfig
from amct_pytorch.errors import CheckpointError, RecordError, few, warn
from amct_pytorch.record import NmLayer, NmPlan, Record, SelectiveMask

INNER = ".replaced_module"  # AMCT puts the layer itself into one that holds its state
_MASK = "wts_mask"
_NOT_OURS = ("wts_scales", "wts_offsets", "cur_batch", "prune_cur_batch", "s_rec_flag")


def nm_record(plan: NmPlan) -> Record:
    """A 2:4 plan as a record: AMCT's `selective_prune` entries, with update_freq and the gradients beside."""
    entries = (
        SelectiveMask(record_name(layer.name, layer.parameter), layer.shape, layer.mask, layer.update_freq)
        for layer in plan.layers
    )
    return Record(selective=tuple(entries), gradients=plan.gradients)


def with_masks(record: Record, plan: NmPlan) -> Record:
    """A record with the masks of a plan in the place of its own. Raises RecordError where it is for other layers."""
    new = nm_record(plan)
    if {(entry.name, entry.shape) for entry in record.selective} != {
        (entry.name, entry.shape) for entry in new.selective
    }:
        raise RecordError(
            f"{record.source}: is not the record of this model: it has masks of {_layers(record.selective)}, the model "
            f"of {_layers(new.selective)}; give the file that create_prune_retrain_model wrote for it"
        )
    return replace(record, selective=new.selective, gradients=new.gradients)


def resolve_nm(record: Record, config: SparsityConfig, model: nn.Module) -> NmPlan:
    """The plan that a 2:4 record means for the dense model. update_freq is the config's, gradients are the record's.

    Raises RecordError where the record names layers that the model lacks or the config leaves out, or other shapes.
    An update_freq or gradients of the config that are not those that the record was made with: AmctWarning.
    """
    found = {weight.name: weight for weight in weights(model)}
    layers = tuple(_resolved(entry, found, record, config, model) for entry in record.selective)
    pairs = zip(record.selective, layers, strict=True)
    changed = [(entry, layer) for entry, layer in pairs if entry.update_freq not in (None, layer.update_freq)]
    if changed:
        entry, layer = changed[0]
        others = f" ({len(changed) - 1} more layers differ)" if len(changed) > 1 else ""
        _warn(
            record,
            f"{entry.name!r} was made with update_freq {entry.update_freq}, the config has {layer.update_freq}, which "
            f"holds{others}",
        )
    gradients = record.gradients or config.gradients
    if gradients != config.gradients:
        _warn(record, f"was made with gradients {gradients!r}, which hold; the config asks for {config.gradients!r}")
    warn_of_gradients(layers, gradients)
    return NmPlan(layers, gradients)


def own_names(state: dict[str, Any], source: str) -> dict[str, Any]:
    """A state dict with the names of our sparse models, whichever it has. AMCT's counters and quantization state go."""
    layers = {key[: key.index(INNER + ".")] for key in state if INNER + "." in key}
    if not layers:
        return state
    renamed: dict[str, Any] = {}
    for key, value in state.items():
        layer, _, last = key.rpartition(".")
        if layer in layers and last in _NOT_OURS:
            continue
        if layer in layers and last == _MASK:
            renamed[f"{layer}.{mask_name('weight')}"] = _packed(value, key, source)
        else:
            renamed[re.sub(re.escape(INNER) + r"\.(?=\w+$)", ".", key)] = value
    return renamed


def _resolved(
    entry: SelectiveMask, found: Mapping[str, Weight], record: Record, config: SparsityConfig, model: nn.Module
) -> NmLayer:
    weight = found.get(entry.name)
    if weight is None or tuple(weight.tensor.shape) != entry.shape:
        there = "the model has no such layer" if weight is None else f"the model's is {tuple(weight.tensor.shape)}"
        raise RecordError(
            f"{record.source}: selective_prune {entry.name!r} is for a weight of shape {entry.shape}, but {there}; "
            "give the dense model that the record was made for"
        )
    if weight.reason and weight.parameter not in model.get_submodule(weight.layer)._parameters:
        raise RecordError(f"{record.source}: selective_prune {entry.name!r} is for {weight.reason}")
    asked = config.for_layer(weight.layer, model.get_submodule(weight.layer))
    if not isinstance(asked, NmSparsity):
        given = f"the config {config.source}".rstrip()
        raise RecordError(
            f"{record.source}: layer {entry.name!r} is 2:4 sparse, but {given} leaves it out; "
            "give the config that the record was made with"
        )
    return NmLayer(weight.layer, weight.parameter, weight.axis, asked.update_freq, entry.shape, entry.mask)


def _packed(mask: Any, key: str, source: str) -> torch.Tensor:
    if not isinstance(mask, torch.Tensor) or not bool(((mask == 0) | (mask == 1)).all()):
        raise CheckpointError(f"{source}: {key}: expected a mask of zeros and ones, as AMCT writes it")
    return pack(mask != 0)


def _layers(entries: tuple[SelectiveMask, ...]) -> str:
    return few(f"{entry.name!r} {entry.shape}" for entry in entries) or "no layer"


def _warn(record: Record, text: str) -> None:
    warn(f"{record.source or 'the record'}: {text}")
