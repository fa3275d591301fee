"""The public functions: each body is one list of stage calls."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from amct_pytorch.config import SparsityConfig
from amct_pytorch.export import export_onnx

Path = str | os.PathLike[str]


def create_prune_retrain_model(
    model: nn.Module, input_data: Any, config_defination: Path | SparsityConfig, record_file: Path
) -> nn.Module:
    raise NotImplementedError


def restore_prune_retrain_model(
    model: nn.Module,
    input_data: Any,
    record_file: Path,
    config_defination: Path | SparsityConfig,
    pth_file: Path,
    state_dict_name: str | None = None,
) -> nn.Module:
    raise NotImplementedError


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
