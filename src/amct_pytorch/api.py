"""The public functions: each body is one list of stage calls."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from amct_pytorch.config import SparsityConfig

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
) -> None:
    raise NotImplementedError
