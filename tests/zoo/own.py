"""Small networks of our own, for families that no package of the tests has: each written as people write them."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn


class ConvBlock(nn.Sequential):
    """Convolution, batch norm, SiLU"""

    def __init__(self, i: int, o: int, k: int = 1, stride: int = 1) -> None:
        super().__init__(nn.Conv2d(i, o, k, stride, k // 2, bias=False), nn.BatchNorm2d(o), nn.SiLU(inplace=True))


class PartialStage(nn.Module):
    """A cross-stage partial stage: two branches, bottlenecks in one, and a concatenation of all steps."""

    def __init__(self, i: int, o: int, depth: int) -> None:
        super().__init__()
        self.hidden = o // 2
        self.enter = ConvBlock(i, 2 * self.hidden)
        self.steps = nn.ModuleList(
            nn.Sequential(ConvBlock(self.hidden, self.hidden, 3), ConvBlock(self.hidden, self.hidden, 3))
            for _ in range(depth)
        )
        self.leave = ConvBlock((2 + depth) * self.hidden, o)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.enter(x).split((self.hidden, self.hidden), 1))
        for step in self.steps:
            parts.append(parts[-1] + step(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class PyramidPool(nn.Module):
    """Three max pools in a row, concatenated"""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.enter, self.leave = ConvBlock(c, c // 2), ConvBlock(2 * c, c)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.enter(x)]
        for _ in range(3):
            parts.append(F.max_pool2d(parts[-1], 5, 1, 2))
        return self.leave(torch.cat(parts, 1))


class DecoupledHead(nn.Module):
    """Per level: boxes as distributions over bins, and classes; decoded to boxes in eval mode."""

    def __init__(self, widths: tuple[int, ...], classes: int = 4, bins: int = 8) -> None:
        super().__init__()
        self.classes, self.bins = classes, bins
        self.boxes = nn.ModuleList(
            nn.Sequential(ConvBlock(w, 16, 3), ConvBlock(16, 16, 3), nn.Conv2d(16, 4 * bins, 1)) for w in widths
        )
        self.labels = nn.ModuleList(
            nn.Sequential(ConvBlock(w, 24, 3), ConvBlock(24, 24, 3), nn.Conv2d(24, classes, 1)) for w in widths
        )
        self.register_buffer("steps", torch.arange(bins, dtype=torch.float32))

    def forward(self, levels: list[torch.Tensor]) -> list[torch.Tensor] | torch.Tensor:
        raw = [torch.cat([b(x), c(x)], 1) for x, b, c in zip(levels, self.boxes, self.labels, strict=True)]
        if self.training:
            return raw
        flat = torch.cat([r.flatten(2) for r in raw], 2)
        boxes, labels = flat.split((4 * self.bins, self.classes), 1)
        sides = boxes.view(boxes.shape[0], 4, self.bins, -1).softmax(2)
        distances = (sides * self.steps.view(1, 1, -1, 1)).sum(2)
        return torch.cat([distances, labels.sigmoid()], 1)


class Detector(nn.Module):
    """CSP backbone, path aggregation neck, decoupled head"""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvBlock(3, 16, 3, 2), ConvBlock(16, 32, 3, 2), PartialStage(32, 32, 1))
        self.down3 = nn.Sequential(ConvBlock(32, 48, 3, 2), PartialStage(48, 48, 2))
        self.down4 = nn.Sequential(ConvBlock(48, 64, 3, 2), PartialStage(64, 64, 1), PyramidPool(64))
        self.up3 = PartialStage(64 + 48, 48, 1)
        self.step4 = ConvBlock(48, 48, 3, 2)
        self.out4 = PartialStage(48 + 64, 64, 1)
        self.head = DecoupledHead((48, 64))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor] | torch.Tensor:
        c3 = self.down3(self.stem(x))
        c4 = self.down4(c3)
        p3 = self.up3(torch.cat([F.interpolate(c4, scale_factor=2.0), c3], 1))
        p4 = self.out4(torch.cat([self.step4(p3), c4], 1))
        return self.head([p3, p4])


class AnchorDetector(nn.Module):
    """Darknet-like residual backbone with anchors: (B, anchors * (5 + classes), H, W), taken apart by view."""

    def __init__(self, anchors: int = 3, classes: int = 4) -> None:
        super().__init__()
        self.anchors, self.outputs = anchors, 5 + classes
        self.enter = ConvBlock(3, 16, 3, 2)
        self.down1, self.down2 = ConvBlock(16, 32, 3, 2), ConvBlock(32, 64, 3, 2)
        self.body1 = nn.Sequential(ConvBlock(32, 16), ConvBlock(16, 32, 3))
        self.body2 = nn.Sequential(ConvBlock(64, 32), ConvBlock(32, 64, 3))
        self.lateral = ConvBlock(64, 32)
        self.coarse = nn.Sequential(ConvBlock(64, 64, 3), nn.Conv2d(64, anchors * self.outputs, 1))
        self.fine = nn.Sequential(ConvBlock(64, 32, 3), nn.Conv2d(32, anchors * self.outputs, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.down1(self.enter(x))
        y = y + self.body1(y)
        z = self.down2(y)
        z = z + self.body2(z)
        fine = self.fine(torch.cat([F.interpolate(self.lateral(z), scale_factor=2.0), y], 1))
        return torch.cat([self._rows(self.coarse(z)), self._rows(fine)], 1)

    def _rows(self, y: torch.Tensor) -> torch.Tensor:
        b, _, h, w = y.shape
        y = y.view(b, self.anchors, self.outputs, h, w).permute(0, 1, 3, 4, 2)
        return y.reshape(b, -1, self.outputs)


def _double(i: int, o: int) -> nn.Sequential:
    layers = [nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(o, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(inplace=True))


class UNet(nn.Module):
    """The plain one, two levels, transposed convolutions up"""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = _double(3, 16), _double(16, 32), _double(32, 64)
        self.up1, self.up2 = nn.ConvTranspose2d(64, 32, 2, 2), nn.ConvTranspose2d(32, 16, 2, 2)
        self.d, self.e, self.out = _double(64, 32), _double(32, 16), nn.Conv2d(16, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.a(x)
        b = self.b(F.max_pool2d(a, 2))
        c = self.c(F.max_pool2d(b, 2))
        d = self.d(torch.cat([b, self.up1(c)], 1))
        return self.out(self.e(torch.cat([a, self.up2(d)], 1)))


class Volume(nn.Module):
    """A step of a 3-D U-Net: two convolutions with instance norm, and a shortcut"""

    def __init__(self, i: int, o: int, stride: int = 1) -> None:
        super().__init__()
        self.c1, self.c2 = nn.Conv3d(i, o, 3, stride, 1), nn.Conv3d(o, o, 3, 1, 1)
        self.n1, self.n2 = nn.InstanceNorm3d(o, affine=True), nn.InstanceNorm3d(o, affine=True)
        self.short = nn.Conv3d(i, o, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.leaky_relu(self.n1(self.c1(x)), 0.01)
        return F.leaky_relu(self.n2(self.c2(y)) + self.short(x), 0.01)


class UNet3d(nn.Module):
    """Medical volumes: residual steps, trilinear upsampling, deep supervision in train mode"""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = Volume(1, 8), Volume(8, 16, 2), Volume(16, 32, 2)
        self.d, self.e = Volume(32 + 16, 16), Volume(16 + 8, 8)
        self.out, self.deep = nn.Conv3d(8, 2, 1), nn.Conv3d(16, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        a = self.a(x)
        b = self.b(a)
        d = self.d(torch.cat([_up(self.c(b)), b], 1))
        y = self.out(self.e(torch.cat([_up(d), a], 1)))
        return (y, self.deep(d)) if self.training else y


def _up(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=False)


def time_embedding(t: torch.Tensor, width: int) -> torch.Tensor:
    half = width // 2
    rates = torch.exp(-math.log(10000.0) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
    angles = t[:, None].float() * rates[None]
    return torch.cat([angles.cos(), angles.sin()], -1).to(t.dtype)


class TimedBlock(nn.Module):
    """A residual block of a diffusion U-Net: group norm, scale and shift by the time embedding"""

    def __init__(self, i: int, o: int, t: int) -> None:
        super().__init__()
        self.n1, self.c1 = nn.GroupNorm(4, i), nn.Conv2d(i, o, 3, padding=1)
        self.t = nn.Linear(t, 2 * o)
        self.n2, self.c2 = nn.GroupNorm(4, o), nn.Conv2d(o, o, 3, padding=1)
        self.short = nn.Conv2d(i, o, 1) if i != o else nn.Identity()

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        y = self.c1(F.silu(self.n1(x)))
        scale, shift = self.t(F.silu(t))[:, :, None, None].chunk(2, 1)
        y = self.c2(F.silu(self.n2(y) * (1 + scale) + shift))
        return y + self.short(x)


class ImageAttention(nn.Module):
    """Self-attention over the pixels, packed qkv by a 1x1 convolution"""

    def __init__(self, c: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.qkv, self.out = nn.GroupNorm(4, c), nn.Conv2d(c, 3 * c, 1), nn.Conv2d(c, c, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, _, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, 3, self.heads, -1, h * w).unbind(1)
        y = F.scaled_dot_product_attention(*(u.transpose(-2, -1) for u in (q, k, v)))
        return x + self.out(y.transpose(-2, -1).reshape(b, -1, h, w))


class DiffusionUNet(nn.Module):
    """Noise prediction: (image, time)"""

    def __init__(self, c: int = 32) -> None:
        super().__init__()
        self.width = c
        self.time = nn.Sequential(nn.Linear(c, 4 * c), nn.SiLU(), nn.Linear(4 * c, 4 * c))
        self.enter = nn.Conv2d(3, c, 3, padding=1)
        self.a, self.down = TimedBlock(c, c, 4 * c), nn.Conv2d(c, c, 3, 2, 1)
        self.b, self.attend, self.m = (
            TimedBlock(c, 2 * c, 4 * c),
            ImageAttention(2 * c),
            TimedBlock(2 * c, 2 * c, 4 * c),
        )
        self.up, self.d = nn.Conv2d(2 * c, c, 3, padding=1), TimedBlock(2 * c, c, 4 * c)
        self.norm, self.out = nn.GroupNorm(4, c), nn.Conv2d(c, 3, 3, padding=1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        t = self.time(time_embedding(t, self.width))
        a = self.a(self.enter(x), t)
        y = self.m(self.attend(self.b(self.down(a), t)), t)
        y = self.up(F.interpolate(y, scale_factor=2.0))
        return self.out(F.silu(self.norm(self.d(torch.cat([y, a], 1), t))))


class ModulatedBlock(nn.Module):
    """A block of a diffusion transformer: norms without parameters, modulated by the condition"""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.n1, self.n2 = (nn.LayerNorm(d, elementwise_affine=False, eps=1e-6) for _ in range(2))
        self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU("tanh"), nn.Linear(4 * d, d))
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(d, 6 * d))

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        s1, g1, a1, s2, g2, a2 = self.modulation(c)[:, None].chunk(6, -1)
        b, n, _ = x.shape
        y = self.n1(x) * (1 + g1) + s1
        q, k, v = self.qkv(y).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, -1)
        x = x + a1 * self.proj(y)
        return x + a2 * self.mlp(self.n2(x) * (1 + g2) + s2)


class DiffusionTransformer(nn.Module):
    """(latent image, time, class)"""

    def __init__(self, d: int = 64, patch: int = 4, size: int = 16) -> None:
        super().__init__()
        self.width, self.patch = d, patch
        self.embed = nn.Conv2d(4, d, patch, patch)
        self.position = nn.Parameter(torch.randn(1, (size // patch) ** 2, d) * 0.02)
        self.time = nn.Sequential(nn.Linear(d, d), nn.SiLU(), nn.Linear(d, d))
        self.classes = nn.Embedding(10, d)
        self.blocks = nn.ModuleList(ModulatedBlock(d, 4) for _ in range(2))
        self.norm = nn.LayerNorm(d, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(d, 2 * d))
        self.out = nn.Linear(d, patch * patch * 4)

    def forward(self, x: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        y = self.embed(x)
        b, _, h, w = y.shape
        y = y.flatten(2).transpose(1, 2) + self.position
        c = self.time(time_embedding(t, self.width)) + self.classes(label)
        for block in self.blocks:
            y = block(y, c)
        shift, scale = self.modulation(c)[:, None].chunk(2, -1)
        y = self.out(self.norm(y) * (1 + scale) + shift)
        y = y.view(b, h, w, self.patch, self.patch, 4)
        return torch.einsum("bhwpqc->bchpwq", y).reshape(b, 4, h * self.patch, w * self.patch)


class Separator(nn.Module):
    """Speech separation in the time domain: encoder, dilated depthwise blocks with skips, masks, decoder"""

    def __init__(self, n: int = 32, b: int = 24, h: int = 48, sources: int = 2) -> None:
        super().__init__()
        self.sources = sources
        self.encode = nn.Conv1d(1, n, 16, 8, bias=False)
        self.norm, self.enter = nn.GroupNorm(1, n), nn.Conv1d(n, b, 1)
        self.blocks = nn.ModuleList(SeparatorBlock(b, h, 2**i) for i in range(3))
        self.masks = nn.Sequential(nn.PReLU(), nn.Conv1d(b, sources * n, 1))
        self.decode = nn.ConvTranspose1d(n, 1, 16, 8, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        w = F.relu(self.encode(x[:, None]))
        y = self.enter(self.norm(w))
        total = 0
        for block in self.blocks:
            y, skip = block(y)
            total = total + skip
        masks = self.masks(total).sigmoid().view(len(x), self.sources, -1, w.shape[-1])
        parts = (masks * w[:, None]).flatten(0, 1)
        return self.decode(parts).view(len(x), self.sources, -1)


class SeparatorBlock(nn.Module):
    def __init__(self, b: int, h: int, dilation: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(b, h, 1), nn.PReLU(), nn.GroupNorm(1, h),
            nn.Conv1d(h, h, 3, padding=dilation, dilation=dilation, groups=h), nn.PReLU(), nn.GroupNorm(1, h),
        )  # fmt: skip
        self.residual, self.skip = nn.Conv1d(h, b, 1), nn.Conv1d(h, b, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.body(x)
        return x + self.residual(y), self.skip(y)


class WaveNet(nn.Module):
    """Gated dilated causal convolutions with residual and skip outputs"""

    def __init__(self, c: int = 24, skip: int = 32) -> None:
        super().__init__()
        self.enter = nn.Conv1d(1, c, 1)
        self.gates = nn.ModuleList(nn.Conv1d(c, 2 * c, 2, dilation=2**i) for i in range(3))
        self.residuals = nn.ModuleList(nn.Conv1d(c, c, 1) for _ in range(3))
        self.skips = nn.ModuleList(nn.Conv1d(c, skip, 1) for _ in range(3))
        self.out = nn.Sequential(nn.ReLU(), nn.Conv1d(skip, skip, 1), nn.ReLU(), nn.Conv1d(skip, 16, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.enter(x[:, None])
        skips = []
        for i, (g, r, s) in enumerate(zip(self.gates, self.residuals, self.skips, strict=True)):
            a, b = g(F.pad(y, (2**i, 0))).chunk(2, 1)
            z = a.tanh() * b.sigmoid()
            skips.append(s(z))
            y = y + r(z)
        return self.out(torch.stack(skips).sum(0))


class Recurrent(nn.Module):
    """Embedding, LSTM or GRU, linear layers"""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU], both: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 32)
        self.enter = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 48))
        self.rnn = kind(48, 16, num_layers=2, batch_first=True, bidirectional=both)
        width = 16 * (1 + both)
        self.out = nn.Sequential(
            nn.Linear(width, 128), nn.ReLU(), nn.LayerNorm(128), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 5)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.rnn(self.enter(self.embed(x)))
        return self.out(y)


class SpeechRecognizer(nn.Module):
    """Convolutions over a spectrogram, a bidirectional GRU over time, a classifier per step"""

    def __init__(self, bands: int = 16) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Hardtanh(0, 20),
            nn.Conv2d(16, 16, 3, (2, 1), 1), nn.BatchNorm2d(16), nn.Hardtanh(0, 20),
        )  # fmt: skip
        self.rnn = nn.GRU(16 * bands // 2, 16, bidirectional=True, batch_first=True)
        self.out = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 30))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.convs(x[:, None])
        y = y.flatten(1, 2).transpose(1, 2)
        return self.out(self.rnn(y)[0]).log_softmax(-1)


class Generator(nn.Module):
    """A generator from noise: linear, view, transposed convolutions"""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(16, 64 * 4 * 4)
        self.body = nn.Sequential(
            nn.BatchNorm2d(64), nn.ReLU(), nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 3, 3, padding=1),
            nn.Tanh(),
        )  # fmt: skip

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.body(self.enter(z).view(-1, 64, 4, 4))


class SuperResolution(nn.Module):
    """Residual blocks without norms and pixel shuffle"""

    def __init__(self, c: int = 32) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, c, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, c, 3, padding=1), nn.ReLU(True), nn.Conv2d(c, c, 3, padding=1)) for _ in range(2)
        )
        self.up = nn.Sequential(nn.Conv2d(c, 4 * c, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(c, 3, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = first = self.enter(x)
        for block in self.blocks:
            y = y + block(y).mul(0.1)
        return self.up(y + first)


class VariationalAutoencoder(nn.Module):
    """Mean and log variance from one layer; samples in train mode"""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 96), nn.ReLU(), nn.Linear(96, 32))
        self.decode = nn.Sequential(nn.Linear(16, 96), nn.ReLU(), nn.Linear(96, 128), nn.ReLU(), nn.Linear(128, 64))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        mean, logvar = self.encode(x).chunk(2, -1)
        z = mean + torch.randn_like(mean) * (0.5 * logvar).exp() if self.training else mean
        return self.decode(z), mean, logvar


class Recommender(nn.Module):
    """Embedding tables, a bottom MLP, pairwise dot products, a top MLP"""

    def __init__(self, d: int = 16, tables: int = 4) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(20, d) for _ in range(tables))
        self.bottom = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, d), nn.ReLU())
        n = tables + 1
        self.register_buffer("pairs", torch.tril_indices(n, n, -1))
        self.top = nn.Sequential(nn.Linear(d + n * (n - 1) // 2, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, dense: torch.Tensor, sparse: torch.Tensor) -> torch.Tensor:
        x = self.bottom(dense)
        rows = torch.stack([x] + [t(sparse[:, i]) for i, t in enumerate(self.tables)], 1)
        dots = torch.bmm(rows, rows.transpose(1, 2))[:, self.pairs[0], self.pairs[1]]
        return self.top(torch.cat([x, dots], 1))


class PointNet(nn.Module):
    """Shared MLPs over points, a learned 3x3 transform, a maximum over the points"""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.Sequential(nn.Conv1d(3, 32, 1), nn.BatchNorm1d(32), nn.ReLU(), nn.Conv1d(32, 64, 1))
        self.turn = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 9))
        self.points = nn.Sequential(
            nn.Conv1d(3, 32, 1), nn.BatchNorm1d(32), nn.ReLU(), nn.Conv1d(32, 64, 1), nn.BatchNorm1d(64), nn.ReLU()
        )
        self.out = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        turn = self.turn(self.spatial(x).max(2)[0]).view(-1, 3, 3) + torch.eye(3, dtype=x.dtype)
        y = self.points(torch.bmm(turn, x))
        whole = y.max(2, keepdim=True)[0].expand(-1, -1, y.shape[2])
        return self.out(torch.cat([y, whole], 1).transpose(1, 2))


class GraphNet(nn.Module):
    """Graph convolutions over a dense, normalized adjacency, with attention in the second"""

    def __init__(self, c: int = 32) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, c), nn.Linear(c, c)
        self.source, self.target = nn.Linear(c, 1), nn.Linear(c, 1)
        self.norm, self.out = nn.LayerNorm(c), nn.Sequential(nn.Linear(c, 2 * c), nn.ELU(), nn.Linear(2 * c, 4))

    def forward(self, x: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
        degree = adjacency.sum(-1, keepdim=True)
        y = F.relu(adjacency @ self.a(x) / degree)
        z = self.b(y)
        scores = F.leaky_relu(self.source(z) + self.target(z).transpose(1, 2))
        weights = scores.masked_fill(adjacency == 0, float("-inf")).softmax(-1)
        return self.out(self.norm(y + weights @ z))


class Field(nn.Module):
    """A radiance field: frequencies, an MLP with a concatenated shortcut, density and colour heads"""

    def __init__(self, width: int = 64, frequencies: int = 4) -> None:
        super().__init__()
        self.frequencies = frequencies
        enter = 3 + 6 * frequencies
        self.a = nn.Sequential(nn.Linear(enter, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.b = nn.Sequential(nn.Linear(width + enter, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.density, self.feature = nn.Linear(width, 1), nn.Linear(width, width)
        self.colour = nn.Sequential(nn.Linear(width + 3, width // 2), nn.ReLU(), nn.Linear(width // 2, 3), nn.Sigmoid())

    def forward(self, x: torch.Tensor, view: torch.Tensor) -> torch.Tensor:
        waves = [f(x * 2**i) for i in range(self.frequencies) for f in (torch.sin, torch.cos)]
        e = torch.cat([x, *waves], -1)
        y = self.b(torch.cat([self.a(e), e], -1))
        return torch.cat([self.colour(torch.cat([self.feature(y), view], -1)), F.softplus(self.density(y))], -1)


class TemporalNet(nn.Module):
    """Weight-normalized dilated causal convolutions, the ends cut off"""

    def __init__(self) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm
        widths = (4, 24, 24, 32)
        self.convs = nn.ModuleList(
            norm(nn.Conv1d(i, o, 3, padding=2 * 2**k, dilation=2**k)) for k, (i, o) in enumerate(pairwise(widths))
        )
        self.shorts = nn.ModuleList(nn.Conv1d(i, o, 1) for i, o in pairwise(widths))
        self.out = nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for k, (conv, short) in enumerate(zip(self.convs, self.shorts, strict=True)):
            x = F.relu(conv(x)[:, :, : -2 * 2**k] + short(x))
        return self.out(x[:, :, -1])


class Siamese(nn.Module):
    """One encoder, two inputs, cosine similarity and a head on the difference"""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(32, 48),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        a, b = self.encode(x), self.encode(y)
        likeness = F.cosine_similarity(a, b, dim=-1)
        return torch.cat([self.head((a - b).abs()), likeness[:, None]], -1)


class TabularTransformer(nn.Module):
    """Numbers and categories as tokens through torch's own encoder"""

    def __init__(self, d: int = 32, numbers: int = 6) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.randn(numbers, d) * 0.1) for _ in range(2))
        self.categories, self.start = nn.Embedding(12, d), nn.Parameter(torch.randn(1, 1, d))
        layer = nn.TransformerEncoderLayer(d, 4, 64, 0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(d, 3)

    def forward(self, numbers: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        tokens = numbers[:, :, None] * self.weight + self.bias
        start = self.start.expand(len(numbers), -1, -1)
        return self.head(self.encoder(torch.cat([start, tokens, self.categories(categories)], 1))[:, 0])


class Translator(nn.Module):
    """torch's own encoder-decoder with embeddings, positions and a causal mask"""

    def __init__(self, d: int = 32, words: int = 50) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(words, d), nn.Embedding(32, d)
        self.net = nn.Transformer(d, 4, 2, 2, 64, 0.0, batch_first=True)
        self.out = nn.Linear(d, words)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        s, t = (self.embed(x) + self.position(torch.arange(x.shape[1])) for x in (source, target))
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1], dtype=t.dtype)
        return self.out(self.net(s, t, tgt_mask=mask, tgt_is_causal=True))
