"""Convolutional families that pytorchcv has and the other packages have not, the smallest of each."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.zoo.architecture import Architecture, Build

# By the size of the images: some end in a pooling that takes one size alone.
_NAMES = {
    32: "msdnet22_cifar10 pyramidnet110_a48_cifar10",
    96: "cgnet_cityscapes dabnet_cityscapes dicenet_wd5 edanet_cityscapes linknet_cityscapes resnestabc14",
    224: "channelnet condensenet74_c8_g8 espnetv2_wd2 hardnet39ds igcv3_wd4 menet108_8x1_g3 octresnet10_ad2 peleenet",
}


def _build(name: str, size: int) -> Build:
    def build() -> tuple[nn.Module, Any]:
        from pytorchcv.model_provider import get_model  # slow

        return get_model(name, pretrained=False), torch.randn(2, 3, size, size)

    return build


FAMILIES = tuple(
    Architecture(name, "convnet", "pytorchcv", _build(name, size))
    for size, names in _NAMES.items()
    for name in names.split()
)
