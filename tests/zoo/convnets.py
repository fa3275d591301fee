"""Convolutional networks for images, from torchvision and timm."""

from __future__ import annotations

from typing import Any

import timm
import torch
import torchvision.models as tv
from timm.models.convmixer import ConvMixer
from timm.models.focalnet import FocalNet
from torch import nn

from tests.zoo.architecture import Architecture, Build


def image(size: int = 64, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, size, size)


def from_timm(name: str, size: int = 64, **overrides: Any) -> Build:
    return lambda: (timm.create_model(name, num_classes=10, **overrides), image(size))


def from_class(constructor: Any, size: int = 64, **arguments: Any) -> Build:
    """For families of timm whose named constructors cannot be overridden."""
    return lambda: (constructor(num_classes=10, **arguments), image(size))


def from_torchvision(constructor: Any, size: int = 64, **overrides: Any) -> Build:
    return lambda: (constructor(num_classes=10, **overrides), image(size))


def _vgg() -> tuple[nn.Module, torch.Tensor]:
    features = tv.vgg.make_layers([16, "M", 32, "M", 64, 64, "M", 64, "M"], batch_norm=True)
    model = tv.VGG(features, num_classes=10)
    model.avgpool = nn.AdaptiveAvgPool2d((2, 2))
    model.classifier = nn.Sequential(
        nn.Linear(64 * 4, 128), nn.ReLU(True), nn.Dropout(), nn.Linear(128, 128), nn.ReLU(True), nn.Linear(128, 10)
    )
    return model, image()


BOTTLENECKS = {"layers": (1, 1, 1, 1), "channels": (32, 32, 64, 64)}
_TORCHVISION: dict[str, Build] = {
    "vgg11_bn": _vgg,
    "resnet18": from_torchvision(tv.resnet18),
    "resnet50": from_torchvision(tv.ResNet, block=tv.resnet.Bottleneck, layers=[1, 1, 1, 1], width_per_group=32),
    "densenet": from_torchvision(tv.DenseNet, growth_rate=12, block_config=(2, 3, 3, 2), num_init_features=24),
    "googlenet": from_torchvision(tv.GoogLeNet, 96, init_weights=False),
    "inception_v3": from_torchvision(tv.Inception3, 128, init_weights=False, aux_logits=False),
    "mobilenet_v2": from_torchvision(tv.MobileNetV2, width_mult=0.5),
    "mobilenet_v3_small": from_torchvision(tv.mobilenet_v3_small),
    "mnasnet": from_torchvision(tv.MNASNet, alpha=0.5),
    "shufflenet_v2": from_torchvision(
        tv.ShuffleNetV2, stages_repeats=[2, 3, 2], stages_out_channels=[24, 48, 96, 192, 256]
    ),
    "squeezenet": from_torchvision(tv.squeezenet1_1),
    "efficientnet_b0": from_torchvision(tv.efficientnet_b0),
    "regnet_y_400mf": from_torchvision(tv.regnet_y_400mf),
}
_TIMM: dict[str, Build] = {
    "resnext26ts": from_timm("resnext26ts"),
    "seresnet18": from_timm("seresnet18", channels=(32, 32, 64, 64)),
    "resnetv2_50": from_timm("resnetv2_50", layers=(1, 1, 1, 1), channels=(64, 128, 128, 256)),
    "resnetblur18": from_timm("resnetblur18", channels=(32, 32, 64, 64)),
    "ecaresnet26t": from_timm("ecaresnet26t", **BOTTLENECKS),
    "skresnet18": from_timm("skresnet18", channels=(32, 32, 64, 64)),
    "gcresnet33ts": from_timm("gcresnet33ts"),
    "resnest14d": from_timm("resnest14d", channels=(32, 32, 64, 64)),
    "res2net50_14w_8s": from_timm("res2net50_14w_8s", layers=(1, 2, 1, 1), channels=(32, 32, 64, 64)),
    "dla46_c": from_timm("dla46_c"),
    "dla60_res2net": from_timm("dla60_res2net", levels=(1, 1, 1, 1, 1, 1), channels=(16, 32, 64, 64, 128, 128)),
    "hrnet_w18_small": from_timm("hrnet_w18_small"),
    "cspresnet50": from_timm("cspresnet50"),
    "cs3darknet_s": from_timm("cs3darknet_s"),
    "cspnext_tiny": from_timm("cspnext_tiny"),
    "darknet17": from_timm("darknet17"),
    "ese_vovnet19b_slim": from_timm("ese_vovnet19b_slim"),
    "test_nfnet": from_timm("test_nfnet"),
    "nf_regnet_b0": from_timm("nf_regnet_b0"),
    "nf_resnet26": from_timm("nf_resnet26"),
    "densenetblur121d": from_timm("densenetblur121d", growth_rate=12, block_config=(2, 2, 2, 2)),
    "rdnet": from_timm(
        "rdnet_tiny",
        num_init_features=16,
        growth_rates=[16, 24, 32],
        num_blocks_list=[2, 2, 2],
        block_type=["Block", "BlockESE", "BlockESE"],
        is_downsample_block=(None, True, True),
    ),
    "xception41": from_timm("xception41"),
    "legacy_xception": from_timm("legacy_xception"),
    "inception_v4": from_timm("inception_v4", 128),
    "tresnet_m": from_timm("tresnet_m", layers=[1, 1, 1, 1], width_factor=0.5),
    "dpn": from_timm("dpn68", k_sec=(2, 2, 2, 2)),
    "selecsls42": from_timm("selecsls42"),
    "regnetx_002": from_timm("regnetx_002"),
    "regnetz_005": from_timm("regnetz_005"),
    "repvgg_a0": from_timm("repvgg_a0"),
    "mobileone_s0": from_timm("mobileone_s0"),
    "mobilenetv1": from_timm("mobilenetv1_100"),
    "mobilenetv3_small_050": from_timm("mobilenetv3_small_050"),
    "mobilenetv4_conv_small": from_timm("mobilenetv4_conv_small_050"),
    "lcnet_050": from_timm("lcnet_050"),
    "tinynet_e": from_timm("tinynet_e"),
    "fbnetc_100": from_timm("fbnetc_100"),
    "mixnet_s": from_timm("mixnet_s"),
    "efficientnetv2": from_timm("test_efficientnet"),
    "efficientnet_gn": from_timm("test_efficientnet_gn"),
    "efficientnet_cc": from_timm("efficientnet_cc_b0_4e"),
    "ghostnet_050": from_timm("ghostnet_050"),
    "ghostnetv2_100": from_timm("ghostnetv2_100"),
    "repghostnet_050": from_timm("repghostnet_050"),
    "rexnet_100": from_timm("rexnet_100"),
    "hgnetv2_b0": from_timm("hgnetv2_b0"),
    "starnet_s050": from_timm("starnet_s050"),
    "fasternet_t0": from_timm("fasternet_t0"),
    "inception_next_atto": from_timm("inception_next_atto"),
    "convnext": from_timm("test_convnext"),
    "convnextv2": from_timm("convnextv2_atto", depths=(1, 1, 2, 1)),
    "mambaout": from_timm("test_mambaout"),
    "convmixer": from_class(ConvMixer, dim=64, depth=3, kernel_size=7, patch_size=7, act_layer=nn.ReLU),
    "focalnet": from_class(FocalNet, embed_dim=32, depths=(1, 1, 2, 1)),
    "byobnet": from_timm("test_byobnet"),
    "nasnet": from_timm("nasnetalarge", 96, stem_size=32, channel_multiplier=2, num_features=768),
    "csatv2": from_timm("csatv2", 128),
}
CONVNETS = (
    *(Architecture(name, "convnet", "torchvision", build) for name, build in _TORCHVISION.items()),
    *(Architecture(name, "convnet", "timm", build) for name, build in _TIMM.items()),
)
