"""Structured sparsity of PyTorch models, with retraining: channels and 2:4."""

from amct_pytorch.api import (
    apply,
    create_prune_retrain_model,
    plan,
    restore_prune_retrain_model,
    save_prune_retrain_model,
    update_record,
)
from amct_pytorch.apply.mask import mask_2to4
from amct_pytorch.apply.nm import to_dense
from amct_pytorch.apply.nm_check import check_2to4
from amct_pytorch.config import ChannelSparsity, NmSparsity, SparsityConfig
from amct_pytorch.errors import (
    AmctError,
    AmctWarning,
    CheckpointError,
    CheckpointKeyError,
    ConfigError,
    ModelError,
    RecordError,
    WriteError,
)
from amct_pytorch.record import ChannelPlan, NmPlan, Plan

__all__ = [
    "AmctError",
    "AmctWarning",
    "ChannelPlan",
    "ChannelSparsity",
    "CheckpointError",
    "CheckpointKeyError",
    "ConfigError",
    "ModelError",
    "NmPlan",
    "NmSparsity",
    "Plan",
    "RecordError",
    "SparsityConfig",
    "WriteError",
    "apply",
    "check_2to4",
    "create_prune_retrain_model",
    "mask_2to4",
    "plan",
    "restore_prune_retrain_model",
    "save_prune_retrain_model",
    "to_dense",
    "update_record",
]
