"""Restore of 2:4 sparse models: the layers of the record, filled from a checkpoint of ours or of AMCT's."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from torch import nn

from amct_pytorch.apply.nm import convert
from amct_pytorch.apply.nm_layers import COUNTER, drop
from amct_pytorch.apply.nm_record import own_names
from amct_pytorch.apply.nm_weights import mask_key, record_name, sparse_weights
from amct_pytorch.checkpoint import expected, fill, fitting, strip_prefixes
from amct_pytorch.errors import CheckpointError
from amct_pytorch.record import NmPlan, Record

Path = str | os.PathLike[str]


def restore_nm(model: nn.Module, plan: NmPlan, record: Record, state: dict[str, Any], path: Path) -> nn.Module:
    """The sparse model of a plan with the values of a checkpoint. No forward pass; the model stays as it is.

    The checkpoint's masks hold, the record's where it has none. Raises CheckpointError where it does not fit.
    """
    sparse = convert(model, plan, without_values=set(expected(model).names.values()))
    wanted = expected(sparse)
    state = own_names(state, os.fspath(path))
    strip_prefixes(state, wanted.shapes)
    masks_of_record = _complete(state, plan, path)
    if COUNTER in wanted.shapes:
        state.setdefault(COUNTER, torch.zeros((), dtype=torch.int64))  # AMCT's, or update_freq was 0
    else:
        state.pop(COUNTER, None)
    fill(sparse, fitting(state, wanted, path), path)
    _drop(sparse, record, masks_of_record)
    return sparse


def _complete(state: dict[str, Any], plan: NmPlan, path: Path) -> set[str]:
    """Add the record's masks where the checkpoint has none; their keys."""
    added = set()
    for layer in plan.layers:
        key = mask_key(layer.name, layer.parameter)
        if key in state:
            continue
        if layer.mask is None:
            raise CheckpointError(
                f"{os.fspath(path)}: no mask {key}, and the record has none either: it was written before the first "
                "batch. Give a checkpoint of the sparse model, or create it anew"
            )
        state[key] = torch.from_numpy(np.frombuffer(layer.mask, np.uint8).copy())
        added.add(key)
    return added


def _drop(sparse: nn.Module, record: Record, added: set[str]) -> None:
    """Write the zeros into weights that are to hold them, unless the checkpoint is known to have them."""
    known = (
        {entry.name for entry in record.selective if entry.update_freq == 0} if record.gradients == "kept" else set()
    )
    for name, layer, parameter in sparse_weights(sparse):
        is_known = record_name(name, parameter) in known and mask_key(name, parameter) not in added
        if layer.sparsity_2to4[parameter].holds_zeros and not is_known:
            drop(layer, parameter)
