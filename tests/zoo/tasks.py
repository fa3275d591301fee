"""Networks for detection, segmentation, video, diffusion, volumes, audio and others: torchvision's, and our own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torchvision.models as tv
from torch import nn
from torchvision.models.detection import backbone_utils, ssd
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.video.mvit import MSBlockConfig, MViT

from tests.zoo import own
from tests.zoo.architecture import Architecture, Build
from tests.zoo.convnets import image


class Dense(nn.Module):
    """A detector of torchvision up to its raw predictions: what follows, boxes and their suppression, has no weights
    and takes compiled operations."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(list(self.backbone(x).values()))


def _pyramid() -> nn.Module:
    resnet = tv.ResNet(tv.resnet.BasicBlock, [1, 1, 1, 1])
    return backbone_utils._resnet_fpn_extractor(resnet, 5, returned_layers=[2, 3, 4])


def _retinanet() -> nn.Module:
    return Dense(_pyramid(), RetinaNetHead(256, 3, 5))


def _fcos() -> nn.Module:
    return Dense(_pyramid(), FCOSHead(256, 1, 5))


def _ssd() -> nn.Module:
    vgg = tv.VGG(
        tv.vgg.make_layers([16, 16, "M", 32, 32, "M", 64, 64, 64, "M", 512, 512, 512, "M", 512, 512, 512, "M"])
    )
    backbone = ssd._vgg_extractor(vgg, False, 5)
    return Dense(backbone, ssd.SSDHead([512, 1024, 512, 256, 256, 256], [4, 6, 6, 6, 4, 4], 5))


def _ssdlite() -> nn.Module:
    from torchvision.models.detection.ssdlite import SSDLiteHead, _mobilenet_extractor

    backbone = _mobilenet_extractor(tv.mobilenet_v3_small(reduced_tail=True), 5, nn.BatchNorm2d)
    widths = [t.shape[1] for t in backbone(torch.zeros(2, 3, 160, 160)).values()]
    return Dense(backbone, SSDLiteHead(widths, [6] * len(widths), 5, nn.BatchNorm2d))


def _mvit() -> nn.Module:
    blocks = [
        MSBlockConfig(1, 16, 32, [3, 3, 3], [3, 3, 3], [1, 1, 1], [1, 4, 4]),
        MSBlockConfig(2, 32, 64, [3, 3, 3], [3, 3, 3], [1, 2, 2], [1, 2, 2]),
    ]
    return MViT((32, 32), 4, blocks, True, False, True, True, 0.0, num_classes=10, patch_embed_kernel=(3, 7, 7))


def _s3d() -> nn.Module:
    model = tv.video.S3D(num_classes=10)
    model.avgpool = nn.AdaptiveAvgPool3d(1)  # its own takes 224 x 224
    return model


def _swin3d() -> nn.Module:
    return tv.video.SwinTransformer3d([2, 4, 4], 32, [2, 2], [2, 4], [2, 4, 4], num_classes=10)


def _segmentation(build: Callable[..., nn.Module], **settings: Any) -> Build:
    return lambda: (build(weights=None, weights_backbone=None, num_classes=5, **settings), image())


def _r3d(block: Any, maker: Any, stem: Any) -> Build:
    return lambda: (
        tv.video.resnet.VideoResNet(block, [maker] * 4, [1, 1, 1, 1], stem, num_classes=10),
        torch.randn(2, 3, 4, 32, 32),
    )


def _of(model: Callable[[], nn.Module], *inputs: Callable[[], torch.Tensor]) -> Build:
    return lambda: (model(), tuple(make() for make in inputs))


def _random(*shape: int) -> Callable[[], torch.Tensor]:
    return lambda: torch.randn(*shape)


def _whole(high: int, *shape: int) -> Callable[[], torch.Tensor]:
    return lambda: torch.randint(0, high, shape)


def _adjacency() -> torch.Tensor:
    links = (torch.rand(2, 9, 9) < 0.3).float()
    return ((links + links.transpose(1, 2) + torch.eye(9)) > 0).float()


R = tv.video.resnet
_TORCHVISION: dict[str, tuple[str, Build]] = {
    "fcn_resnet": ("convnet", lambda: (_fcn(), image())),
    "deeplabv3_mobilenet": ("convnet", _segmentation(tv.segmentation.deeplabv3_mobilenet_v3_large, aux_loss=True)),
    "lraspp_mobilenet": ("convnet", _segmentation(tv.segmentation.lraspp_mobilenet_v3_large)),
    "retinanet": ("convnet", lambda: (_retinanet(), image())),
    "fcos": ("convnet", lambda: (_fcos(), image())),
    "ssd": ("convnet", lambda: (_ssd(), image(300, 1))),
    "ssdlite": ("convnet", lambda: (_ssdlite(), image(160))),
    "r3d": ("convnet", _r3d(R.BasicBlock, R.Conv3DSimple, R.BasicStem)),
    "mc3": ("convnet", _r3d(R.BasicBlock, R.Conv3DNoTemporal, R.BasicStem)),
    "r2plus1d": ("convnet", _r3d(R.BasicBlock, R.Conv2Plus1D, R.R2Plus1dStem)),
    "s3d": ("convnet", lambda: (_s3d(), torch.randn(2, 3, 16, 64, 64))),
    "mvit_video": ("transformer", lambda: (_mvit(), torch.randn(2, 3, 4, 32, 32))),
    "swin3d": ("transformer", lambda: (_swin3d(), torch.randn(2, 3, 4, 32, 32))),
}


def _fcn() -> nn.Module:
    backbone = tv.ResNet(tv.resnet.Bottleneck, [1, 1, 1, 1], width_per_group=16)
    return tv.segmentation.fcn._fcn_resnet(backbone, 5, True)


_OWN: dict[str, tuple[str, Build]] = {
    "yolo_csp_pan": ("convnet", _of(own.Detector, image)),
    "yolo_anchors": ("convnet", _of(own.AnchorDetector, image)),
    "unet": ("convnet", _of(own.UNet, _random(2, 3, 32, 32))),
    "unet3d": ("convnet", _of(own.UNet3d, _random(2, 1, 16, 16, 16))),
    "diffusion_unet": ("hybrid", _of(own.DiffusionUNet, _random(2, 3, 16, 16), lambda: torch.tensor([3.0, 40.0]))),
    "diffusion_transformer": (
        "transformer",
        _of(own.DiffusionTransformer, _random(2, 4, 16, 16), lambda: torch.tensor([3.0, 40.0]), _whole(10, 2)),
    ),
    "conv_tasnet": ("convnet", _of(own.Separator, _random(2, 256))),
    "wavenet": ("convnet", _of(own.WaveNet, _random(2, 64))),
    "temporal_net": ("convnet", _of(own.TemporalNet, _random(2, 4, 32))),
    "lstm": ("recurrent", _of(lambda: own.Recurrent(nn.LSTM), _whole(50, 2, 9))),
    "lstm_bidirectional": ("recurrent", _of(lambda: own.Recurrent(nn.LSTM, True), _whole(50, 2, 9))),
    "gru": ("recurrent", _of(lambda: own.Recurrent(nn.GRU), _whole(50, 2, 9))),
    "speech_recognizer": ("recurrent", _of(own.SpeechRecognizer, _random(2, 16, 20))),
    "generator": ("convnet", _of(own.Generator, _random(2, 16))),
    "super_resolution": ("convnet", _of(own.SuperResolution, _random(2, 3, 16, 16))),
    "autoencoder": ("mlp", _of(own.VariationalAutoencoder, _random(2, 64))),
    "recommender": ("mlp", _of(own.Recommender, _random(2, 8), _whole(20, 2, 4))),
    "pointnet": ("convnet", _of(own.PointNet, _random(2, 3, 20))),
    "graph": ("mlp", _of(own.GraphNet, _random(2, 9, 8), _adjacency)),
    "radiance_field": ("mlp", _of(own.Field, _random(8, 3), _random(8, 3))),
    "siamese": ("convnet", _of(own.Siamese, image, image)),
    "tabular_transformer": ("transformer", _of(own.TabularTransformer, _random(2, 6), _whole(12, 2, 3))),
    "translator": ("transformer", _of(own.Translator, _whole(50, 2, 9), _whole(50, 2, 7))),
}
TASKS = (
    *(Architecture(name, kind, "torchvision", build) for name, (kind, build) in _TORCHVISION.items()),
    *(Architecture(name, kind, "own", build) for name, (kind, build) in _OWN.items()),
)
