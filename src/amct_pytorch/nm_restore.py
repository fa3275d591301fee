"""Restore of 2:4 sparse models: the layers of the record, filled from a checkpoint of ours or of AMCT's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from amct_pytorch.apply.nm import convert
from amct_pytorch.apply.nm_layers import COUNTER, SparseLayer, drop, keeps_2_of_4, mask_name
from amct_pytorch.apply.nm_record import INNER, own_names
from amct_pytorch.apply.nm_weights import mask_key, sparse_weights
from amct_pytorch.apply.shrink import refresh
from amct_pytorch.checkpoint import as_of_model, expected, fill, fitting
from amct_pytorch.errors import CheckpointError
from amct_pytorch.record import NmLayer, NmPlan

Path = str | os.PathLike[str]


def restore_nm(model: nn.Module, plan: NmPlan, state: dict[str, Any], path: Path) -> nn.Module:
    """The sparse model of a plan with the values of a checkpoint. No forward pass; the model stays as it is.

    The checkpoint's masks hold, the record's where one of AMCT's has none. Raises CheckpointError for others.
    """
    sparse = convert(model, plan, without_values=set(expected(model).names.values()))
    wanted = expected(sparse)
    theirs = any(INNER in key for key in state)
    state = own_names(state, os.fspath(path))
    as_of_model(state, wanted, path)
    keys = {name: key for key, name in reversed([*wanted.names.items()])}  # hooks of the model may give other ones
    named = {mask_key(layer.name, layer.parameter): layer for layer in plan.layers}
    if any(key.endswith(mask_name("")) and key not in wanted.shapes for key in state):
        fitting(state, wanted, path)  # which says that the names are others
    _complete(state, {keys.get(name, name): layer for name, layer in named.items()}, path, theirs)
    if COUNTER in wanted.shapes:
        state.setdefault(COUNTER, torch.zeros((), dtype=torch.int64))  # AMCT's, or update_freq was 0
    else:
        state.pop(COUNTER, None)
    fill(sparse, fitting(state, wanted, path), path)
    for name, layer, parameter in sparse_weights(sparse):
        _check_mask(layer, parameter, mask_key(name, parameter), path)
        if layer.sparsity_2to4[parameter].holds_zeros:
            drop(layer, parameter)
    refresh(sparse)
    return sparse


def _complete(state: dict[str, Any], layers: Mapping[str, NmLayer], path: Path, theirs: bool) -> None:
    """Add the record's masks, by their keys, where a checkpoint of AMCT's has none. Ours always has them: without, it
    is another model's, or of layers that became others, and the record's masks may not be those of its weights."""
    missing = [key for key in layers if key not in state]
    if missing and not theirs:
        raise CheckpointError(
            f"{os.fspath(path)}: this is no checkpoint of the sparse model: {len(missing)} of {len(layers)} masks "
            f"are missing ({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}). Save the state dict of the "
            "model that create_prune_retrain_model returned; one of the dense model, or of to_dense(model), loads into "
            "the dense model itself"
        )
    for key, layer in layers.items():
        if key in state:
            continue
        if layer.mask is None:
            raise CheckpointError(
                f"{os.fspath(path)}: no mask {key}, and the record has none either: it was written before the first "
                "batch. Give a checkpoint of the sparse model, or create it anew"
            )
        state[key] = torch.from_numpy(np.frombuffer(layer.mask, np.uint8).copy())


def _check_mask(layer: SparseLayer, parameter: str, key: str, path: Path) -> None:
    if not keeps_2_of_4(layer, parameter):
        raise CheckpointError(
            f"{os.fspath(path)}: {key} keeps more than 2 of 4 consecutive weights: the file was changed, or is of "
            "another kind of sparsity; give the checkpoint of the sparse model"
        )
