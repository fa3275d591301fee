"""Transformers of images that are written with einops: its functions remember what they gave for the same sizes."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

from tests.zoo.architecture import Architecture, Build

_SMALL = {"image_size": 32, "num_classes": 10, "dim": 64, "heads": 4, "dim_head": 16}
_PLAIN = {**_SMALL, "patch_size": 8, "depth": 2, "mlp_dim": 128}
_VIDEO = {**_SMALL, "image_patch_size": 8, "frames": 4, "frame_patch_size": 2, "mlp_dim": 128}
_CROSSED = {
    **{f"{size}_{name}": value for size in ("sm", "lg") for name, value in (("enc_depth", 1), ("enc_heads", 4))},
    **{"image_size": 32, "num_classes": 10, "depth": 2, "dropout": 0.0, "emb_dropout": 0.0},
    **{"sm_dim": 32, "sm_patch_size": 8, "sm_enc_mlp_dim": 64, "sm_enc_dim_head": 8},
    **{"lg_dim": 64, "lg_patch_size": 16, "lg_enc_mlp_dim": 128, "lg_enc_dim_head": 16},
    **{"cross_attn_depth": 1, "cross_attn_heads": 4, "cross_attn_dim_head": 16},
}
# By the file of the package: the class, and what its constructor takes. Images are 3x32x32, videos have 4 of them.
_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViT", _PLAIN),
    "cait": ("CaiT", {**_PLAIN, "cls_depth": 1}),
    "cross_vit": ("CrossViT", _CROSSED),
    "ats_vit": ("ViT", {**_PLAIN, "max_tokens_per_depth": (12, 8)}),
    "na_vit": ("NaViT", _PLAIN),
    "nest": ("NesT", {**_SMALL, "patch_size": 4, "dim": 32, "heads": 2, "num_hierarchies": 2, "block_repeats": (1, 1)}),
    "normalized_vit": ("nViT", _PLAIN),
    "parallel_vit": ("ViT", _PLAIN),
    "rvt": ("RvT", _PLAIN),
    "simple_vit_with_relative_proj_pos_bias": ("SimpleViT", _PLAIN),
    "vit_for_small_dataset": ("ViT", _PLAIN),
    "vit_with_patch_merger": ("ViT", _PLAIN),
    "vivit": ("ViViT", {**_VIDEO, "spatial_depth": 1, "temporal_depth": 1}),
    "xcit": ("XCiT", {**_PLAIN, "cls_depth": 1}),
}


def _build(file: str, kind: str, settings: dict[str, Any]) -> Build:
    def build() -> tuple[nn.Module, Any]:
        model = getattr(importlib.import_module(f"vit_pytorch.{file}"), kind)(**settings)
        return model, torch.randn(2, 3, *([4] if "frames" in settings else []), 32, 32)

    return build


ARRANGED = tuple(
    Architecture(f"{file}_einops", "transformer", "vit-pytorch", _build(file, kind, settings))
    for file, (kind, settings) in _MODELS.items()
)
