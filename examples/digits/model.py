"""A small residual network with what makes pruning hard: gates, residual sums, a depthwise layer, dropout."""

import torch
from torch import nn
from torch.nn import functional as F


class SqueezeExcite(nn.Module):
    """Scales every channel by a gate computed from all of them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // 4, 1)
        self.excite = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.excite(F.silu(self.squeeze(x.mean((2, 3), keepdim=True))))
        return x * torch.sigmoid(gate)


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.gate = SqueezeExcite(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.bn2(self.conv2(F.silu(self.bn1(self.conv1(x)))))
        return F.silu(x + self.gate(inner))


class Depthwise(nn.Module):
    """Halves the image: every channel by itself, then a mixture of all."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, out, 1, bias=False)
        self.bn = nn.BatchNorm2d(out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.silu(self.bn(self.pointwise(self.depthwise(x))))


class DigitNet(nn.Module):
    """N x 1 x 28 x 28 images to N x 10 logits."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.early = Residual(width)
        self.down = Depthwise(width, 2 * width)
        self.late = nn.Sequential(Residual(2 * width), Residual(2 * width))
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(2 * width, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.early(F.silu(self.bn(self.stem(image))))
        x = self.late(self.down(x))
        return self.fc(self.drop(x.mean((2, 3))))
