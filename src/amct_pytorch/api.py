"""The public functions: each body is one list of stage calls."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from amct_pytorch.analyse.capture import Rule
from amct_pytorch.analyse.run import analyse
from amct_pytorch.apply.nm import plan_nm, plan_of, refuse_sparse, sparsify
from amct_pytorch.apply.nm_record import nm_record, resolve_nm, with_masks
from amct_pytorch.apply.resolve import check_kind, resolve, to_record
from amct_pytorch.apply.shrink import carried_plan, cut_shapes, refresh, shrink
from amct_pytorch.check import check
from amct_pytorch.checkpoint import expected, fill, fitting, read_state_dict
from amct_pytorch.config import SparsityConfig
from amct_pytorch.copied import warn_of_copy
from amct_pytorch.errors import ModelError, warn
from amct_pytorch.export import export_onnx
from amct_pytorch.files import refuse_same_file
from amct_pytorch.inputs import as_arguments
from amct_pytorch.nm_restore import restore_nm
from amct_pytorch.record import ChannelPlan, NmPlan, Plan, Record
from amct_pytorch.renamed import as_of, without_wrappers
from amct_pytorch.structure import collection_paused
from amct_pytorch.taught import options, refuse_taught
from amct_pytorch.textio import read_config, read_record, write_record
from amct_pytorch.wrappers import refuse_no_model, refuse_spread, refuse_wrapped, unwrap

_log = logging.getLogger("amct_pytorch")

Path = str | os.PathLike[str]


def plan(
    model: nn.Module,
    input_data: Any,
    config: Path | SparsityConfig,
    *,
    rules: Mapping[Any, Rule] | None = None,
    opaque: Sequence[nn.Module | type[nn.Module]] = (),
) -> Plan:
    """What would be made sparse: a preview that writes and changes nothing, and that `apply` cannot fail on.

    `input_data`: a tensor, a tuple of arguments or a dict of keyword arguments, with any nesting inside. `rules`:
    teaches the analysis operations of your own, `{torch.ops.mine.op: rule}` (see docs/analysis.md). `opaque`: modules
    or classes of modules to leave whole.

    Raises ConfigError for a config that the model does not fit, ModelError where the model cannot be copied, run or
    scored.
    """
    settings = read_config(config)
    refuse_wrapped(model, "plan")
    settings.check_layers(model)
    if settings.kind == "2:4":
        refuse_taught(rules, opaque)
        return plan_nm(model, settings)
    refuse_sparse(model)
    arguments = as_arguments(input_data)
    taught = options(model, rules, opaque)
    with torch.inference_mode(False), collection_paused():
        facts = analyse(model, arguments, taught)
        return check(facts, settings, model, arguments, taught)


def apply(model: nn.Module, plan: Plan) -> nn.Module:
    """A new model, sparse as the plan says; the model stays as it is. No analysis, no forward pass.

    Raises RecordError (of a 2:4 plan ModelError) where the plan does not fit the model, ModelError where the model
    cannot be copied.
    """
    refuse_no_model(model, "apply")
    refuse_spread(model, "apply")
    if not isinstance(plan, (ChannelPlan, NmPlan)):
        raise ModelError(f"apply: expected a plan, as amct.plan gives it, got {plan!r}")
    return sparsify(model, plan) if isinstance(plan, NmPlan) else shrink(model, plan)


def create_prune_retrain_model(
    model: nn.Module,
    input_data: Any,
    config_defination: Path | SparsityConfig,
    record_file: Path,
    *,
    rules: Mapping[Any, Rule] | None = None,
    opaque: Sequence[nn.Module | type[nn.Module]] = (),
) -> nn.Module:
    """Make a sparse copy of a model, ready for retraining, and write the record from which it can be restored.

    The copy has the model's class, mode, device, dtype, `requires_grad` and hooks of modules, and shares no tensor with
    it; the model itself stays as it is. Hooks run on a copy while the model is analysed: they may be part of what it
    computes. A model that create or restore made can be pruned again: the new record speaks of the original, dense
    model.

    Arguments and errors are those of `plan`; WriteError where the record cannot be written. Where nothing can go, an
    AmctWarning gives the reasons, and the copy is not pruned.
    """
    refuse_wrapped(model, "create_prune_retrain_model")
    refuse_same_file(config_defination, record_file)
    with collection_paused():
        chosen = plan(model, input_data, config_defination, rules=rules, opaque=opaque)
        sparse = apply(model, chosen)
        write_record(_record(sparse, chosen), record_file)
    _announce(chosen)
    warn_of_copy(model)
    return sparse


def restore_prune_retrain_model(
    model: nn.Module,
    input_data: Any,
    record_file: Path,
    config_defination: Path | SparsityConfig,
    pth_file: Path,
    state_dict_name: str | None = None,
) -> nn.Module:
    """Build the sparse model again from its record and a checkpoint, without analysis and without a forward pass.

    `model`: the original, dense model; its values do not matter, and it stays as it is. Parameters on meta are allowed:
    then the dense model is never in memory. `input_data`: not used. `record_file`: what create_prune_retrain_model
    wrote, or AMCT did. `config_defination`: its kind of sparsity has to be the record's. `pth_file`: a checkpoint of
    the sparse model, tensors saved by torch.save, or safetensors; `state_dict_name`: the key of the state dict in it,
    None if the file is one.

    Returns the sparse model with the checkpoint's values, in the mode, and on the device and with the dtypes, of
    `model`. Raises ConfigError, RecordError, CheckpointError (CheckpointKeyError, a KeyError too, for a wrong
    `state_dict_name`) or ModelError, before anything is built, where a file cannot be read or does not fit. An
    AmctWarning tells of a record that names nothing, as an empty file does.
    """
    refuse_wrapped(model, "restore_prune_retrain_model")
    config = read_config(config_defination)
    record = as_of(read_record(record_file), model)
    check_kind(record, config)
    if not record.groups and not record.selective and record.facts is None:
        warn(f"{os.fspath(record_file)} holds no prune_record, so that nothing of the model is sparse")
    if config.kind == "2:4":
        config.check_layers(model)  # of its update_freq, which holds
        masks = resolve_nm(record, config, model)
        sparse = restore_nm(model, masks, read_state_dict(pth_file, state_dict_name), pth_file)
        warn_of_copy(model)
        return sparse
    plan = resolve(record, model)
    wanted = expected(model, cut_shapes(model, plan))
    state = fitting(read_state_dict(pth_file, state_dict_name), wanted, pth_file)
    small = shrink(model, plan, without_values=set(wanted.names.values()))
    fill(small, state, pth_file)
    refresh(small)
    warn_of_copy(model)
    return small


def update_record(model: nn.Module, record_file: Path) -> None:
    """Write the masks that a 2:4 sparse model has now into its record, which create wrote.

    For update_freq > 0, where masks change in training. restore does not need it: the checkpoint's masks hold there.
    What the record says of quantization stays. Raises ModelError where the model is not 2:4 sparse, RecordError where
    the file is no record of this model's layers, WriteError where it cannot be written.
    """
    refuse_no_model(model, "update_record")
    inner = unwrap(model)
    record = with_masks(as_of(read_record(record_file), inner), plan_of(inner))
    write_record(without_wrappers(record), record_file)


def save_prune_retrain_model(
    model: nn.Module,
    save_path: Path,
    input_data: Any,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic_axes: Mapping[str, Any] | None = None,
    *,
    opset: int = 17,
) -> None:
    """Write a sparse model as ONNX: `<save_path>_deploy_model.onnx` and `<save_path>_fake_quant_model.onnx`.

    Both hold the same bytes, mode 640; missing directories are made, and each file is replaced at once. The model is
    exported in eval mode from a copy: the caller's model, its mode and the random state stay as they are. DataParallel,
    DistributedDataParallel and torch.compile around it or in it are looked through.

    `input_data`: a tensor, a tuple of arguments or a dict of keyword arguments, with any nesting of lists, tuples and
    dicts inside. Its tensors are the inputs of the graph, in their order; numbers, flags and None become constants.
    `input_names`, `output_names`: their names in the graph; without, inputs are called after forward's parameters.
    `dynamic_axes`: which axes vary, `{"input": [0, 2]}` or `{"input": {0: "batch"}}`. `opset`: of ONNX.

    Raises ModelError where the model cannot be copied, run or expressed in ONNX, or is larger than 2 GiB; WriteError
    where a file cannot be written.
    """
    export_onnx(model, save_path, input_data, input_names, output_names, dynamic_axes, opset)


def _record(sparse: nn.Module, chosen: Plan) -> Record:
    """The record of a plan; that of a model that was pruned before speaks of the original."""
    made = nm_record(chosen) if isinstance(chosen, NmPlan) else to_record(carried_plan(sparse) or chosen, sparse)
    return without_wrappers(made)


def _announce(chosen: Plan) -> None:
    report = chosen.report()
    _log.info("%s", report)
    if not isinstance(chosen, NmPlan) and not chosen.removals:
        warn(f"nothing is pruned:\n{report}")
