"""How channels travel between layers: residuals, gates, concatenation, splits, reshapes, pooling, shuffles."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from judge import Build, Net, between, conv, image, module_between, net, of, tokens
from torch import nn

L, C, R = nn.Linear, conv, F.relu


class Dense(nn.Module):
    """Every layer sees all that came before it (DenseNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 12)
        self.norms = nn.ModuleList(nn.BatchNorm2d(12 + 8 * i) for i in range(3))
        self.convs = nn.ModuleList(conv(12 + 8 * i, 8) for i in range(3))
        self.head = nn.Linear(36, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = [self.stem(x)]
        for n, c in zip(self.norms, self.convs, strict=True):
            features.append(c(R(n(torch.cat(features, 1)))))
        return self.head(torch.cat(features, 1).mean((2, 3)))


class CBAM(nn.Module):
    """Attention over channels from mean and maximum over space, then over space from mean and maximum over channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = conv(width, width // 2, 1), conv(width // 2, width, 1)
        self.space = conv(2, 1, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, top = F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)
        x = x * torch.sigmoid(self.up(R(self.down(mean))) + self.up(R(self.down(top))))
        both = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
        return x * torch.sigmoid(self.space(both))


class SelectiveKernel(nn.Module):
    """Softmax over branches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = conv(width, width), conv(width, width, 5)
        self.fc, self.heads = nn.Linear(width, width // 2), nn.ModuleList(L(width // 2, width) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branches = torch.stack([self.a(x), self.b(x)], 1)
        z = R(self.fc(branches.sum(1).mean((-1, -2))))
        weights = torch.stack([h(z) for h in self.heads], 1).softmax(1)
        return (branches * weights[..., None, None]).sum(1)


class PackedSelect(nn.Module):
    """Softmax over branches whose weights come out of one layer, by view."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.radix = width, 2
        self.conv = conv(width, width * 2, groups=2)
        self.fc1, self.fc2 = conv(width, 8, 1), conv(8, 2 * width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b = x.shape[0]
        y = self.conv(x).reshape(b, self.radix, self.width, *x.shape[2:])
        a = self.fc2(R(self.fc1(y.sum(1).mean((2, 3), keepdim=True))))
        a = a.view(b, self.radix, self.width).softmax(1).view(b, self.radix, self.width, 1, 1)
        return (y * a).sum(1)


class ECA(nn.Module):
    """A convolution that runs over the channels: they are its positions, and stay."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.mean((2, 3)).view(x.shape[0], 1, -1)
        return x * torch.sigmoid(self.conv(y)).view(x.shape[0], -1, 1, 1)


class SqueezeLinear(nn.Module):
    """Squeeze and excite by linear layers, its sizes from the shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(L(width, width // 4), nn.ReLU(), L(width // 4, width), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, c, _, _ = x.size()
        return x * self.fc(F.adaptive_avg_pool2d(x, 1).view(b, c)).view(b, c, 1, 1).expand_as(x)


class ShuffleUnit(nn.Module):
    """Half goes through a branch, the other past it; then both are shuffled (ShuffleNet v2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.branch = nn.Sequential(conv(half, half, 1), nn.ReLU(), conv(half, half, groups=half), conv(half, half, 1))
        self.groups = 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = x.chunk(2, 1)
        x = torch.cat([a, self.branch(b)], 1)
        n, c, h, w = x.shape
        return x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class ZeroPadded(nn.Module):
    """A residual net whose shortcut pads channels (option A)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = C(3, 8), C(8, 8), C(8, 16, stride=2), C(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        x = R(x + self.b(x))
        short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        return self.d(R(self.c(x) + short))


class Res2(nn.Module):
    """Parts of one tensor go through a chain, and come together again (Res2Net)."""

    def __init__(self, width: int = 16, scale: int = 4) -> None:
        super().__init__()
        self.width = width // scale
        self.a, self.b = C(3, width), C(width, 8)
        self.convs = nn.ModuleList(C(self.width, self.width) for _ in range(scale - 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = torch.split(self.a(x), self.width, 1)
        out = [parts[0]]
        for c, p in zip(self.convs, parts[1:], strict=True):
            out.append(c(p + out[-1]) if len(out) > 1 else c(p))
        return self.b(torch.cat(out, 1))


class CSP(nn.Module):
    """Two halves by chunk, one through layers, then all together (YOLO's C2f)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.cv1, self.cv2 = C(3, 8), C(8, 16, 1), C(24, 8, 1)
        self.m = nn.ModuleList([C(8, 8)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = list(self.cv1(self.stem(x)).chunk(2, 1))
        y.extend(m(y[-1]) for m in self.m)
        return self.cv2(torch.cat(y, 1))


class GhostModule(nn.Module):
    """Cheap features by a depthwise convolution, cut to a size by a slice (GhostNet)."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.o = o
        self.first, self.cheap = C(i, o // 2, 1), C(o // 2, o // 2, groups=o // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return torch.cat([x, self.cheap(x)], 1)[:, : self.o]


class Focus(nn.Module):
    """Space to depth by slices (YOLOv5)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = C(3, 8), C(32, 16), C(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        x = torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)
        return self.c(R(self.b(x)))


class SPP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = C(3, 8), C(24, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        return self.b(torch.cat([x, *(F.max_pool2d(x, k, 1, k // 2) for k in (3, 5))], 1))


class PatchMerging(nn.Module):
    """Swin's, on (B, H, W, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.reduction, self.b = L(8, 16), nn.LayerNorm(64), L(64, 32), L(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        b, h, w, c = x.shape
        x = x.reshape(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.b(self.reduction(self.norm(x)))


class Mixer(nn.Module):
    """Tokens are mixed by linear layers over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.t1, self.t2, self.c1, self.c2 = L(8, 16), L(5, 10), L(10, 5), L(16, 32), L(32, 16)
        self.n1, self.n2, self.b = nn.LayerNorm(16), nn.LayerNorm(16), L(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        x = x + self.t2(F.gelu(self.t1(self.n1(x).transpose(1, 2)))).transpose(1, 2)
        x = x + self.c2(F.gelu(self.c1(self.n2(x))))
        return self.b(x.mean(1))


class SpatialGating(nn.Module):
    """gMLP: half gates the other half, mixed over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.i, self.norm, self.space, self.o = L(8, 32), nn.LayerNorm(16), nn.Conv1d(5, 5, 1), L(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        u, v = F.gelu(self.i(x)).chunk(2, dim=-1)
        return self.o(u * self.space(self.norm(v)))


class SwiGLU(nn.Module):
    """One layer for gate and value, by chunk."""

    def __init__(self, i: int = 8, h: int = 16) -> None:
        super().__init__()
        self.w12, self.w3 = L(i, 2 * h), L(h, i)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        g, v = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(g) * v)


class SwiGLUSeparate(nn.Module):
    def __init__(self, i: int = 8, h: int = 16) -> None:
        super().__init__()
        self.gate, self.up, self.down = L(i, h), L(i, h), L(h, i)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class GEGLU(nn.Module):
    """Two halves by slices of a size in an attribute."""

    def __init__(self, i: int = 8, h: int = 16) -> None:
        super().__init__()
        self.hidden = h
        self.a, self.b = L(i, 2 * h), L(h, i)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        return self.b(y[..., : self.hidden] * F.gelu(y[..., self.hidden :]))


class ConvGRUCell(nn.Module):
    """A gate over an input and a state."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.gates, self.cand, self.out = C(3, 8), C(16, 16), C(16, 8), C(8, 4)
        self.hidden = 8

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inp(x)
        h = torch.zeros(x.shape[0], self.hidden, *x.shape[2:], dtype=x.dtype)
        for _ in range(2):
            z, r = torch.sigmoid(self.gates(torch.cat([x, h], 1))).split(self.hidden, 1)
            n = torch.tanh(self.cand(torch.cat([x, r * h], 1)))
            h = (1 - z) * h + z * n
        return self.out(h)


class Experts(nn.Module):
    """A dense mixture of experts by einsum."""

    def __init__(self, i: int = 8, h: int = 16, e: int = 3) -> None:
        super().__init__()
        self.inp, self.out = L(8, i), L(i, 4)
        self.route = L(i, e)
        self.w1, self.w2 = nn.Parameter(torch.randn(e, i, h)), nn.Parameter(torch.randn(e, h, i))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inp(x)
        weights = self.route(x).softmax(-1)
        h = F.gelu(torch.einsum("bnd,edh->bneh", x, self.w1))
        return self.out(torch.einsum("bneh,ehd,bne->bnd", h, self.w2, weights))


class RoutedExperts(nn.Module):
    """Every token goes to the best expert: a loop over experts with masks."""

    def __init__(self, e: int = 2) -> None:
        super().__init__()
        self.gate = L(16, e)
        self.inp, self.out = L(8, 16), L(16, 4)
        self.experts = nn.ModuleList(nn.Sequential(L(16, 24), nn.GELU(), L(24, 16)) for _ in range(e))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inp(x).flatten(0, 1)
        best = self.gate(x).argmax(-1)
        y = torch.zeros_like(x)
        for i, e in enumerate(self.experts):
            rows = torch.where(best == i)[0]
            y[rows] = e(x[rows])
        return self.out(y)


class FPN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2 = C(3, 16), C(16, 24, stride=2)
        self.l1, self.l2, self.o1, self.o2 = C(16, 12, 1), C(24, 12, 1), C(12, 4), C(12, 4)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        a = R(self.c1(x))
        b = R(self.c2(a))
        top = self.l2(b)
        low = self.l1(a) + F.interpolate(top, size=a.shape[-2:], mode="nearest")
        return {"low": self.o1(low), "top": self.o2(top)}


class DeepSupervision(nn.Module):
    """A head that runs in train mode only."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.aux, self.head = C(3, 16), C(16, 16), L(16, 4), L(16, 4)

    def forward(self, x: torch.Tensor) -> Any:
        x = R(self.a(x))
        y = R(self.b(x)).mean((2, 3))
        if self.training:
            return self.head(y), self.aux(x.mean((2, 3)))
        return self.head(y)


class TrainGate(nn.Module):
    """Train mode ties what eval mode does not."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = C(3, 16), C(3, 16), C(16, 4), C(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.a(x), self.b(x)
        if self.training:
            return self.c(a + b) + self.d(b)
        return self.c(a) + self.d(b)


class StochasticDepth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = C(3, 16), C(16, 16), C(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        y = self.b(x)
        if self.training:
            keep = torch.rand(x.shape[0], 1, 1, 1, dtype=x.dtype) < 0.8
            y = y * keep / 0.8
        return self.c(x + y)


def pooled(mode: str) -> Build:
    return between(lambda t: F.interpolate(t, scale_factor=2, mode=mode, align_corners=False))


def nearest(fn: Any, count: int = 6) -> Build:
    """As far as prototypes are: fn(features, prototypes)."""
    return net(
        lambda s, x: s.b(fn(s.a(x), s.p)),
        "a p b",
        tokens,
        a=lambda: L(8, 16),
        p=lambda: nn.Parameter(torch.randn(count, 16)),
        b=lambda: L(count, 4),
    )


PATTERNS: dict[str, Build] = {
    **{
        f"activation {name}": between(fn)
        for name, fn in {
            "mish": F.mish,
            "elu": F.elu,
            "softplus": F.softplus,
            "tanh": torch.tanh,
            "leaky": F.leaky_relu,
            "hardtanh": F.hardtanh,
            "relu6": F.relu6,
            "hardsigmoid": F.hardsigmoid,
            "celu": F.celu,
            "selu": F.selu,
            "logsigmoid": F.logsigmoid,
            "softsign": F.softsign,
            "tanhshrink": F.tanhshrink,
            "quick gelu": lambda t: t * torch.sigmoid(1.702 * t),
            "gelu tanh": lambda t: F.gelu(t, approximate="tanh"),
            "squared relu": lambda t: F.relu(t).pow(2),
            "cos": torch.cos,
            "exp": torch.exp,
            "clamp": lambda t: t.clamp(-1, 1),
            "swish by hand": lambda t: t / (1 + torch.exp(-t)),
            "sin squared": lambda t: t + torch.sin(t) ** 2,
            "where": lambda t: torch.where(t > 0, t, 0.1 * t),
            "masked fill": lambda t: t.masked_fill(t < 0, 0.0),
            "maximum": lambda t: torch.maximum(t, 0.1 * t),
            "lerp": lambda t: torch.lerp(t, torch.relu(t), 0.3),
            "abs, sqrt": lambda t: (t.abs() + 1).sqrt(),
            "log": lambda t: torch.log1p(t.abs()),
        }.items()
    },
    "in place: relu_, add_, mul_": between(lambda t: F.relu_(t.clone()).add_(1.0).mul_(2.0)),
    "in place: +=": net(
        lambda s, x: s.c(_iadd(s.a(x), s.b(x))), "a b c", a=lambda: C(3, 16), b=lambda: C(3, 16), c=lambda: C(16, 8)
    ),
    "in place: rows are written": between(lambda t: _write_rows(t)),
    "in place: written into zeros_like": between(lambda t: _write_zeros(t)),
    "in place: into a slice of channels": net(
        lambda s, x: s.c(_write_channels(s.a(x), s.b(x))), "", a=lambda: C(3, 16), b=lambda: C(3, 8), c=lambda: C(16, 8)
    ),
    "in place: a view, then its base": between(lambda t: _view_then_base(t), ""),
    "in place: the shape changes": between(lambda t: _seen_otherwise(t)),
    "in place: copy_": net(
        lambda s, x: s.c(torch.empty_like(s.a(x)).copy_(s.b(x))),
        "b c",
        a=lambda: C(3, 16),
        b=lambda: C(3, 16),
        c=lambda: C(16, 8),
    ),
    "average pool": between(lambda t: F.avg_pool2d(t, 2)),
    "max pool with indices": between(lambda t: F.max_pool2d(t, 2, return_indices=True)[0]),
    "max unpool": between(lambda t: F.max_unpool2d(*F.max_pool2d(t, 2, return_indices=True), 2)),
    "adaptive max": between(lambda t: F.adaptive_max_pool2d(t, 2)),
    "adaptive average to (4, 1)": between(lambda t: F.adaptive_avg_pool2d(t, (4, 1))),
    "mean and std over space": between(lambda t: t.mean((2, 3), keepdim=True) + t.std((2, 3), keepdim=True)),
    "variance over space": between(lambda t: t.var((2, 3), keepdim=True)),
    "max over space": between(lambda t: t.amax((2, 3), keepdim=True)),
    "softmax over space": between(lambda t: t.flatten(2).softmax(-1).view_as(t)),
    "logsumexp over space": between(lambda t: t.logsumexp((2, 3), keepdim=True)),
    "generalized mean": between(lambda t: F.avg_pool2d(t.clamp(min=1e-6).pow(3), 8).pow(1 / 3)),
    "bilinear": pooled("bilinear"),
    "bicubic": pooled("bicubic"),
    "nearest": between(lambda t: F.interpolate(t, scale_factor=2.0)),
    "pooled beside channels": between(
        lambda t: F.adaptive_avg_pool2d(t.permute(0, 3, 1, 2), (None, 2)).permute(0, 2, 3, 1)
    ),
    "pooled beside channels to a size": between(
        lambda t: F.adaptive_avg_pool2d(t.transpose(1, 2), (t.shape[1], 2)).transpose(1, 2)
    ),
    "pooled to a number of channels": between(
        lambda t: F.adaptive_avg_pool2d(t.transpose(1, 2), (16, 2)).transpose(1, 2), ""
    ),
    "places pooled": between(lambda t: F.adaptive_avg_pool1d(t.flatten(2), 3).unsqueeze(2)),
    "nearest exact": between(lambda t: F.interpolate(t, scale_factor=2.0, mode="nearest-exact")),
    "bilinear, antialias": between(lambda t: F.interpolate(t, (5, 5), mode="bilinear", antialias=True)),
    **{
        f"positions, {mode}": net(
            lambda s, x, mode=mode: s.b(
                s.a(x) + F.interpolate(s.pos, size=(x.shape[1], s.pos.shape[-1]), mode=mode).squeeze(1)
            ),
            "a b pos",
            tokens,
            a=lambda: nn.Linear(8, 16),
            pos=lambda: nn.Parameter(torch.rand(1, 1, 9, 16)),
            b=lambda: nn.Linear(16, 4),
        )
        for mode in ("nearest", "bilinear", "area")
    },
    "area": between(lambda t: F.interpolate(t, (4, 4), mode="area")),
    "trilinear": net(
        lambda s, x: s.b(F.interpolate(s.a(x), scale_factor=2, mode="trilinear")),
        "a b",
        lambda: image(2, 3, 4, 4, 4),
        a=lambda: nn.Conv3d(3, 16, 1),
        b=lambda: nn.Conv3d(16, 4, 1),
    ),
    "upsample module": module_between(lambda: nn.Upsample(scale_factor=2, mode="bilinear")),
    "reflection pad": between(lambda t: F.pad(t, (1, 1, 1, 1), mode="reflect")),
    "replication pad": between(lambda t: F.pad(t, (1, 1, 1, 1), mode="replicate")),
    "constant pad of space": between(lambda t: F.pad(t, (1, 0, 1, 0))),
    "crop by a negative pad": between(lambda t: F.pad(t, (-1, -1, -1, -1))),
    "pad of channels, shortcut": of(ZeroPadded, ""),
    "roll over space": between(lambda t: torch.roll(t, (1, -1), (2, 3))),
    "roll over channels": between(lambda t: t.roll(3, 1), ""),
    "flip of space": between(lambda t: t.flip(3)),
    "flip of channels": between(lambda t: t.flip(1), ""),
    "rot90": between(lambda t: torch.rot90(t, 1, (2, 3))),
    "every other channel": net(lambda s, x: s.b(s.a(x)[:, ::2]), "", a=lambda: C(3, 16), b=lambda: C(8, 8)),
    "transposed space": between(lambda t: t.transpose(2, 3)),
    "channels last": between(lambda t: t.contiguous(memory_format=torch.channels_last)),
    "grid sample": net(
        lambda s, x: s.b(F.grid_sample(s.a(x), torch.zeros(2, 4, 4, 2, dtype=x.dtype), align_corners=False)),
        "a b",
        a=lambda: C(3, 16),
        b=lambda: C(16, 8),
    ),
    "affine grid from a layer": net(
        lambda s, x: (
            lambda y: s.b(
                F.grid_sample(
                    y,
                    F.affine_grid(s.t(y.mean((2, 3))).view(-1, 2, 3), y.shape, align_corners=False),
                    align_corners=False,
                )
            )
        )(s.a(x)),
        "a b",
        a=lambda: C(3, 16),
        t=lambda: L(16, 6),
        b=lambda: C(16, 8),
    ),
    "pixel shuffle": net(lambda s, x: s.b(F.pixel_shuffle(s.a(x), 2)), "a b", a=lambda: C(3, 32), b=lambda: C(8, 8)),
    "pixel unshuffle": net(
        lambda s, x: s.b(F.pixel_unshuffle(s.a(x), 2)), "a b", a=lambda: C(3, 8), b=lambda: C(32, 8)
    ),
    "pixel shuffle by view": net(
        lambda s, x: s.b(_depth_to_space(s.a(x))), "a b", a=lambda: C(3, 32), b=lambda: C(8, 8)
    ),
    "space to depth by view": net(
        lambda s, x: s.b(_space_to_depth(s.a(x))), "a b", a=lambda: C(3, 8), b=lambda: C(32, 8)
    ),
    "channel shuffle, groups and width from the shape": between(lambda t: _shuffle(t, 4)),
    "channel shuffle of torch": between(lambda t: F.channel_shuffle(t, 2) if hasattr(F, "channel_shuffle") else t),
    "channel shuffle between grouped convolutions": net(
        lambda s, x: s.c(s.h(_shuffle(s.g(s.a(x)), 4))),
        "",
        a=lambda: C(3, 16),
        g=lambda: C(16, 16, groups=4),
        h=lambda: C(16, 16, groups=4),
        c=lambda: C(16, 8),
    ),
    "shuffle unit": of(
        lambda: nn.Sequential(C(3, 16), nn.BatchNorm2d(16), ShuffleUnit(16), ShuffleUnit(16), C(16, 8)), "0 4"
    ),
    "flatten after pooling to 4x4": net(
        lambda s, x: s.b(torch.flatten(F.adaptive_avg_pool2d(s.a(x), 4), 1)),
        "a b",
        a=lambda: C(3, 16),
        b=lambda: L(256, 4),
    ),
    "permute before flatten": net(
        lambda s, x: s.b(s.a(x).permute(0, 2, 3, 1).flatten(1)), "a b", a=lambda: C(3, 16), b=lambda: L(1024, 4)
    ),
    "view(b, -1)": net(
        lambda s, x: (lambda y: s.b(y.view(y.shape[0], -1)))(s.a(x)), "a b", a=lambda: C(3, 16), b=lambda: L(1024, 4)
    ),
    "view(b, c * h * w)": net(
        lambda s, x: (lambda y: s.b(y.view(y.size(0), y.size(1) * y.size(2) * y.size(3))))(s.a(x)),
        "a b",
        a=lambda: C(3, 16),
        b=lambda: L(1024, 4),
    ),
    "reshape to in_features": net(
        lambda s, x: s.b(F.max_pool2d(s.a(x), 4).reshape(-1, s.b.in_features)),
        "a b",
        a=lambda: C(3, 16),
        b=lambda: L(64, 4),
    ),
    "reshape to a literal": net(
        lambda s, x: s.b(F.max_pool2d(s.a(x), 4).reshape(-1, 64)), "", a=lambda: C(3, 16), b=lambda: L(64, 4)
    ),
    "nn.Flatten, two linear layers": net(
        lambda s, x: s.c(R(s.b(s.f(R(s.a(x)))))),
        "a b c",
        f=nn.Flatten,
        a=lambda: C(3, 16),
        b=lambda: L(1024, 12),
        c=lambda: L(12, 4),
    ),
    "unflatten module": net(
        lambda s, x: s.b(s.u(s.a(x))),
        "",
        lambda: image(4, 8),
        a=lambda: L(8, 16 * 4),
        u=lambda: nn.Unflatten(1, (16, 2, 2)),
        b=lambda: C(16, 4),
    ),
    "linear to an image": net(
        lambda s, x: s.b(s.a(x).view(x.shape[0], s.b.in_channels, 2, 2)),
        "a b",
        lambda: image(4, 8),
        a=lambda: L(8, 16 * 4),
        b=lambda: C(16, 4),
    ),
    "linear to an image, -1": net(
        lambda s, x: s.b(s.a(x).view(-1, 16, 2, 2)), "", lambda: image(4, 8), a=lambda: L(8, 64), b=lambda: C(16, 4)
    ),
    "image to tokens and back": net(
        lambda s, x: (lambda y: s.c(s.b(y.flatten(2).transpose(1, 2)).transpose(1, 2).view(y.shape)))(s.a(x)),
        "a b c",
        a=lambda: C(3, 16),
        b=lambda: L(16, 16),
        c=lambda: C(16, 8),
    ),
    "squeeze, unsqueeze": between(lambda t: t.mean((2, 3)).unsqueeze(-1).unsqueeze(-1)),
    "movedim": between(lambda t: t.movedim(1, -1).movedim(-1, 1)),
    "unfold": net(
        lambda s, x: s.b(F.unfold(s.a(x), 2, stride=2).transpose(1, 2)), "a b", a=lambda: C(3, 16), b=lambda: L(64, 4)
    ),
    "unfold and fold": between(lambda t: F.fold(F.unfold(t, 2, stride=2), (8, 8), 2, stride=2)),
    "tensor unfold": net(
        lambda s, x: s.b(s.a(x).unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))),
        "a b",
        a=lambda: C(3, 16),
        b=lambda: C(16, 8),
    ),
    "einsum over channels": net(
        lambda s, x: s.b(torch.einsum("bchw,cd->bdhw", s.a(x), s.w)),
        "a b w",
        a=lambda: C(3, 16),
        w=lambda: nn.Parameter(torch.randn(16, 12)),
        b=lambda: C(12, 8),
    ),
    "einsum of two features": net(
        lambda s, x: torch.einsum("bchw,bcij->bhwij", s.a(x), s.b(x)).sum((3, 4)),
        "a b",
        a=lambda: C(3, 16),
        b=lambda: C(3, 16),
    ),
    "einsum gate": net(
        lambda s, x: (lambda y: s.b(torch.einsum("bchw,bc->bchw", y, s.g(y.mean((2, 3))))))(s.a(x)),
        "a g b",
        a=lambda: C(3, 16),
        g=lambda: L(16, 16),
        b=lambda: C(16, 8),
    ),
    "einsum over positions": net(
        lambda s, x: s.b(torch.einsum("bnc,nm->bmc", s.a(x), s.w)),
        "a b",
        tokens,
        a=lambda: L(8, 16),
        w=lambda: nn.Parameter(torch.randn(5, 6)),
        b=lambda: L(16, 4),
    ),
    "gram matrix": net(
        lambda s, x: (lambda y: s.b((y @ y.transpose(1, 2)).flatten(1)))(s.a(x).flatten(2)),
        "",
        a=lambda: C(3, 8),
        b=lambda: L(64, 4),
    ),
    "bilinear pooling": net(
        lambda s, x: s.c((s.a(x).flatten(2) @ s.b(x).flatten(2).transpose(1, 2)).flatten(1)),
        "",
        a=lambda: C(3, 8),
        b=lambda: C(3, 6),
        c=lambda: L(48, 4),
    ),
    "outer product": net(
        lambda s, x: s.c((s.a(x)[:, :, None] * s.b(x)[:, None, :]).flatten(1)),
        "",
        lambda: image(4, 8),
        a=lambda: L(8, 8),
        b=lambda: L(8, 6),
        c=lambda: L(48, 4),
    ),
    "cosine similarity": net(
        lambda s, x: s.c(F.cosine_similarity(s.a(x), s.b(x), dim=-1)[..., None]),
        "",
        tokens,
        a=lambda: L(8, 16),
        b=lambda: L(8, 16),
        c=lambda: L(1, 4),
    ),
    "cosine classifier": net(
        lambda s, x: F.normalize(s.a(x), dim=-1) @ F.normalize(s.w, dim=0),
        "a w",
        tokens,
        a=lambda: L(8, 16),
        w=lambda: nn.Parameter(torch.randn(16, 4)),
    ),
    "normalize": net(lambda s, x: s.b(F.normalize(s.a(x), dim=1)), "a b", a=lambda: C(3, 16), b=lambda: C(16, 8)),
    "cdist to prototypes": nearest(lambda h, p: torch.cdist(h, p)),
    "cdist to many prototypes": nearest(lambda h, p: torch.cdist(h, p), 64),
    "cdist from prototypes": nearest(lambda h, p: torch.cdist(p, h, p=1.0).mT),
    "cdist of positions": net(
        lambda s, x: s.c(s.b(x) + torch.cdist(s.a(x), s.a(x)).mean(-1, keepdim=True)),
        "a b c",
        tokens,
        a=lambda: L(8, 16),
        b=lambda: L(8, 16),
        c=lambda: L(16, 4),
    ),
    "cdist to others than prototypes": net(
        lambda s, x: s.b(torch.cdist(s.a(x), torch.ones(6, 16, dtype=x.dtype))),
        "",
        tokens,
        a=lambda: L(8, 16),
        b=lambda: L(6, 4),
    ),
    "quantized to the nearest": net(
        lambda s, x: (lambda h: s.b(s.p[torch.cdist(h, s.p).argmin(-1)] + h))(s.a(x)),
        "a p b",
        tokens,
        a=lambda: L(8, 16),
        p=lambda: nn.Parameter(torch.randn(6, 16)),
        b=lambda: L(16, 4),
    ),
    "stack and mean": net(
        lambda s, x: s.c(torch.stack([s.a(x), s.b(x)], -1).mean(-1)),
        "a b c",
        a=lambda: C(3, 16),
        b=lambda: C(3, 16),
        c=lambda: C(16, 8),
    ),
    "stack and max": net(
        lambda s, x: s.c(torch.stack([s.a(x), s.b(x)], 1).max(1).values),
        "a b c",
        a=lambda: C(3, 16),
        b=lambda: C(3, 16),
        c=lambda: C(16, 8),
    ),
    "stack and flatten": net(
        lambda s, x: s.c(torch.stack([s.a(x), s.b(x)], 1).flatten(1, 2)),
        "",
        a=lambda: C(3, 16),
        b=lambda: C(3, 16),
        c=lambda: C(32, 8),
    ),
    "stack and flatten, interleaved": net(
        lambda s, x: s.c(torch.stack([s.a(x), s.b(x)], 2).flatten(1, 2)),
        "",
        a=lambda: C(3, 16),
        b=lambda: C(3, 16),
        c=lambda: C(32, 8),
    ),
    "cat along width": net(
        lambda s, x: s.c(torch.cat([s.a(x), s.b(x)], 3)),
        "a b c",
        a=lambda: C(3, 16),
        b=lambda: C(3, 16),
        c=lambda: C(16, 8),
    ),
    "cat along batch, then chunk": net(
        lambda s, x: (lambda y: s.c(y[0] + y[1]))(torch.cat([s.a(x), s.b(x)], 0).chunk(2, 0)),
        "a b c",
        a=lambda: C(3, 16),
        b=lambda: C(3, 16),
        c=lambda: C(16, 8),
    ),
    "cat with itself": net(
        lambda s, x: (lambda y: s.c(torch.cat([y, -y], 1)))(s.a(x)), "a c", a=lambda: C(3, 16), c=lambda: C(32, 8)
    ),
    "cat of pools": of(SPP, "a b"),
    "cat, grouped by two linear layers": net(
        lambda s, x: (lambda y: s.c(y) + s.d(y))(torch.cat([s.a(x), s.b(x)], -1)),
        "a b c d",
        tokens,
        a=lambda: L(8, 16),
        b=lambda: L(8, 12),
        c=lambda: L(28, 4),
        d=lambda: L(28, 4),
    ),
    "cat with an empty tensor": net(
        lambda s, x: s.c(torch.cat([torch.empty(0, dtype=x.dtype), s.a(x)], 1)),
        "",
        a=lambda: C(3, 16),
        c=lambda: C(16, 8),
    ),
    "cat and residual over both": net(
        lambda s, x: (lambda y: s.d(y + s.c(y)))(torch.cat([s.a(x), s.b(x)], 1)),
        "a b c d",
        a=lambda: C(3, 16),
        b=lambda: C(3, 12),
        c=lambda: C(28, 28),
        d=lambda: C(28, 8),
    ),
    "cat of shared halves": net(
        lambda s, x: s.c(torch.cat([s.a(x), s.a(x.flip(3))], 1)), "a c", a=lambda: C(3, 16), c=lambda: C(32, 8)
    ),
    "dense net": of(Dense, "stem convs.0 convs.1 convs.2 head"),
    "residual chain": net(
        lambda s, x: (lambda y: s.d(_chain(y, s.b, s.c)))(s.a(x)),
        "a b c d",
        a=lambda: C(3, 16),
        b=lambda: C(16, 16),
        c=lambda: C(16, 16),
        d=lambda: C(16, 8),
    ),
    "residual with projection": net(
        lambda s, x: (lambda y: s.d(R(s.c(R(s.b(y))) + s.p(y))))(s.a(x)),
        "a b c p d",
        a=lambda: C(3, 16),
        b=lambda: C(16, 12),
        c=lambda: C(12, 24),
        p=lambda: C(16, 24, 1),
        d=lambda: C(24, 8),
    ),
    "residual with the input": net(
        lambda s, x: s.c(x + s.b(R(s.a(x)))), "a b", a=lambda: C(3, 16), b=lambda: C(16, 3), c=lambda: C(3, 8)
    ),
    "residual broadcast over channels": net(
        lambda s, x: s.c(s.a(x) + s.b(x)), "a c", a=lambda: C(3, 16), b=lambda: C(3, 1), c=lambda: C(16, 8)
    ),
    "gate with one channel": net(
        lambda s, x: s.c(s.a(x) * torch.sigmoid(s.b(x))),
        "a c",
        a=lambda: C(3, 16),
        b=lambda: C(3, 1),
        c=lambda: C(16, 8),
    ),
    "gate from the input": net(
        lambda s, x: s.c(s.a(x) * x.mean(1, keepdim=True)), "a c", a=lambda: C(3, 16), c=lambda: C(16, 8)
    ),
    "division of two": net(
        lambda s, x: s.c(s.a(x) / (1 + s.b(x).abs())),
        "a b c",
        a=lambda: C(3, 16),
        b=lambda: C(3, 16),
        c=lambda: C(16, 8),
    ),
    "GLU": net(lambda s, x: s.b(F.glu(s.a(x), 1)), "a b", a=lambda: C(3, 32), b=lambda: C(16, 8)),
    "GLU, last dim": net(lambda s, x: s.b(F.glu(s.a(x))), "a b", tokens, a=lambda: L(8, 32), b=lambda: L(16, 4)),
    "maxout": net(lambda s, x: s.b(torch.maximum(*s.a(x).chunk(2, 1))), "a b", a=lambda: C(3, 32), b=lambda: C(16, 8)),
    "SwiGLU": of(lambda: nn.Sequential(SwiGLU(), L(8, 4)), "0.w12 0.w3", tokens),
    "SwiGLU, separate": of(lambda: nn.Sequential(SwiGLUSeparate(), L(8, 4)), "0.gate 0.up 0.down", tokens),
    "GEGLU by slices": of(lambda: nn.Sequential(GEGLU(), L(8, 4)), "0.a 0.b 1", tokens),
    "chunk with different consumers": net(
        lambda s, x: (lambda y: s.b(y[0]) + s.c(y[1]))(s.a(x).chunk(2, 1)),
        "a b c",
        a=lambda: C(3, 32),
        b=lambda: C(16, 8),
        c=lambda: C(16, 8),
    ),
    "chunk in three, one unused": net(
        lambda s, x: (lambda y: s.b(y[0] * y[2]))(s.a(x).chunk(3, 1)), "b", a=lambda: C(3, 48), b=lambda: C(16, 8)
    ),
    "split in unequal literals": net(
        lambda s, x: (lambda y: s.b(y[0]) + s.c(y[1]))(s.a(x).split((12, 20), 1)),
        "",
        a=lambda: C(3, 32),
        b=lambda: C(12, 8),
        c=lambda: C(20, 8),
    ),
    "split then cat": between(lambda t: torch.cat(list(t.chunk(4, 1)), 1)),
    "split then cat in another order": between(lambda t: torch.cat([t.chunk(4, 1)[i] for i in (2, 0, 3, 1)], 1), ""),
    "split then cat, sizes in an attribute": of(Res2, ""),
    **{
        f"split otherwise, {name}": net(
            lambda s, x, split=split: (lambda y: s.b(y[0]) + s.c(y[1]))(split(s.a(x))),
            "a b c",
            a=lambda: C(3, 32),
            b=lambda: C(16, 8),
            c=lambda: C(16, 8),
        )
        for name, split in {
            "tensor_split": lambda t: t.tensor_split(2, 1),
            "tensor_split, named": lambda t: torch.tensor_split(input=t, sections=2, dim=-3),
            "tensor_split at": lambda t: torch.tensor_split(t, (t.shape[1] // 2,), dim=1),
            "hsplit": lambda t: torch.hsplit(t, 2),
            "hsplit at": lambda t: t.hsplit([t.size(1) // 2]),
            "vsplit": lambda t: [y.transpose(0, 1) for y in t.transpose(0, 1).vsplit(2)],
            "dsplit": lambda t: [y.transpose(1, 2) for y in torch.dsplit(t.transpose(1, 2), 2)],
        }.items()
    },
    "hsplit of a vector": net(
        lambda s, x: s.b(s.a(x) + torch.cat(torch.hsplit(s.v, 2)[::-1])),
        "",
        tokens,
        a=lambda: L(8, 16),
        v=lambda: nn.Parameter(torch.randn(16)),
        b=lambda: L(16, 4),
    ),
    "tensor_split, unequal": net(
        lambda s, x: (lambda y: s.b(y[0]) + s.c(y[1]))(s.a(x).tensor_split(2, 1)),
        "",
        a=lambda: C(3, 33),
        b=lambda: C(17, 8),
        c=lambda: C(16, 8),
    ),
    "C2f": of(CSP, "stem cv1 cv2"),
    "ghost module": of(lambda: nn.Sequential(GhostModule(3, 16), C(16, 8)), ""),
    "focus": of(Focus, "a b c"),
    "patch merging": of(PatchMerging, "a reduction b", lambda: image(2, 4, 4, 8)),
    "mixer": of(Mixer, "a t1 t2 c1 c2 b", tokens),
    "spatial gating": of(SpatialGating, "i o", tokens),
    "CBAM": module_between(lambda: CBAM(16), "a b m.down m.up"),
    "selective kernel": module_between(lambda: SelectiveKernel(16), "a b m.a m.b m.fc"),
    "selective kernel, packed": module_between(lambda: PackedSelect(16), ""),
    "convolution over channels": module_between(ECA, ""),
    "squeeze and excite by linear layers": module_between(lambda: SqueezeLinear(16), "a b m.fc.0 m.fc.2"),
    "convolutional GRU": of(ConvGRUCell, "inp gates cand out"),
    "mixture of experts": of(Experts, "inp out w1 w2", tokens),
    "routed experts": of(RoutedExperts, "", tokens),
    "feature pyramid": of(FPN, "c1 c2 l1 l2 o1 o2"),
    "auxiliary head": of(DeepSupervision, "a b head"),
    "tied in train mode only": of(TrainGate, "a b c d"),
    "stochastic depth": of(StochasticDepth, "a b c"),
    "mean over channels": net(
        lambda s, x: (lambda y: s.b(y * torch.sigmoid(y.mean(1, keepdim=True))))(s.a(x)),
        "a b",
        a=lambda: C(3, 16),
        b=lambda: C(16, 8),
    ),
    "softmax over channels": between(lambda t: t.softmax(1)),
    "log-softmax over channels": between(lambda t: t.log_softmax(1), ""),
    "max over channels": between(lambda t: t * t.amax(1, keepdim=True)),
    "max over channels, with indices": between(lambda t: t * t.max(1, keepdim=True).values),
    "min over channels": between(lambda t: t * t.amin(1, keepdim=True), ""),
    "std over channels": between(lambda t: t / (t.std(1, keepdim=True) + 1), ""),
    "variance over channels": between(lambda t: t / (t.var(1, keepdim=True) + 1)),
    "product over channels": between(lambda t: t * t.prod(1, keepdim=True), ""),
    "sum over channels": between(lambda t: t * torch.sigmoid(t.sum(1, keepdim=True))),
    "norm over channels": between(lambda t: t / (t.norm(dim=1, keepdim=True) + 1)),
    "logsumexp over channels": between(lambda t: t - t.logsumexp(1, keepdim=True), ""),
    "cumsum over channels": between(lambda t: t.cumsum(1), ""),
    "cumsum over space": between(lambda t: t.cumsum(2)),
    "sort over channels": between(lambda t: t.sort(1)[0], ""),
    "sort over space": between(lambda t: t.sort(2)[0]),
    "topk over channels": net(lambda s, x: s.b(s.a(x).topk(8, 1)[0]), "", a=lambda: C(3, 16), b=lambda: C(8, 8)),
    "topk over positions": net(
        lambda s, x: s.b(s.a(x).topk(2, 1)[0]), "a b", tokens, a=lambda: L(8, 16), b=lambda: L(16, 4)
    ),
    "argmax over channels": net(
        lambda s, x: (lambda y: s.b(y * y.argmax(1, keepdim=True).to(y.dtype)))(s.a(x)),
        "",
        a=lambda: C(3, 16),
        b=lambda: C(16, 8),
    ),
    "median over channels": between(lambda t: t - t.median(1, keepdim=True)[0], ""),
    "mean over everything": between(lambda t: t - t.mean()),
    "mean over channels and space": between(lambda t: t - t.mean((1, 2, 3), keepdim=True)),
    "max over everything": between(lambda t: t / t.max(), ""),
    "channel permutation in a buffer": of(lambda: Permuted(), ""),
    "gather over positions": net(
        lambda s, x: s.b(s.a(x).gather(1, torch.zeros(4, 1, 16, dtype=torch.long))),
        "",
        tokens,
        a=lambda: L(8, 16),
        b=lambda: L(16, 4),
    ),
    "rows by index": net(
        lambda s, x: s.b(s.a(x)[:, torch.tensor([0, 2])]), "a b", tokens, a=lambda: L(8, 16), b=lambda: L(16, 4)
    ),
    "index_select of positions": net(
        lambda s, x: s.b(s.a(x).index_select(1, torch.tensor([0, 2]))),
        "a b",
        tokens,
        a=lambda: L(8, 16),
        b=lambda: L(16, 4),
    ),
    "one channel is picked": net(
        lambda s, x: (lambda y: s.b(y * y[:, :1]))(s.a(x)), "", a=lambda: C(3, 16), b=lambda: C(16, 8)
    ),
    "last token": net(lambda s, x: s.b(s.a(x)[:, -1]), "a b", tokens, a=lambda: L(8, 16), b=lambda: L(16, 4)),
    "repeat over space": between(lambda t: t.mean((2, 3), keepdim=True).repeat(1, 1, 4, 4)),
    "repeat of channels": net(
        lambda s, x: s.b(s.a(x).repeat(1, 2, 1, 1)), "a b", a=lambda: C(3, 16), b=lambda: C(32, 8)
    ),
    "repeat_interleave of channels": net(
        lambda s, x: s.b(s.a(x).repeat_interleave(2, 1)), "a b", a=lambda: C(3, 16), b=lambda: C(32, 8)
    ),
    "expand_as": between(lambda t: t.mean((2, 3), keepdim=True).expand_as(t)),
    "zeros of its shape": between(lambda t: t + torch.zeros(t.shape, dtype=t.dtype)),
    "ones_like": between(lambda t: t * torch.ones_like(t)),
    "new_zeros of its width": between(lambda t: t + t.new_zeros(t.size(1), 1, 1)),
    "full of its width": between(lambda t: t + torch.full((1, t.shape[1], 1, 1), 0.5, dtype=t.dtype)),
    "arange over channels": between(lambda t: t * torch.arange(t.shape[1], dtype=t.dtype).view(1, -1, 1, 1), ""),
    "linspace over channels": between(
        lambda t: t * torch.linspace(0, 1, t.shape[1], dtype=t.dtype).view(1, -1, 1, 1), ""
    ),
    "a constant over channels": between(lambda t: t * torch.linspace(0, 1, 16, dtype=t.dtype).view(1, -1, 1, 1), ""),
    "a coordinate map": net(
        lambda s, x: s.c(torch.cat([s.a(x), x.new_ones(2, 2, 8, 8)], 1)), "a c", a=lambda: C(3, 16), c=lambda: C(18, 8)
    ),
    "an unknown operation": between(lambda t: torch.special.i0(t) if hasattr(torch, "special") else t, ""),
    "matrix exponential": net(
        lambda s, x: s.b(s.a(x) @ torch.linalg.matrix_exp(s.w)),
        "",
        tokens,
        a=lambda: L(8, 8),
        w=lambda: nn.Parameter(torch.randn(8, 8) * 0.1),
        b=lambda: L(8, 4),
    ),
    "FFT over space": between(lambda t: torch.fft.irfft2(torch.fft.rfft2(t), s=(8, 8)), ""),
    "FFT over channels": net(
        lambda s, x: s.b(torch.fft.fft(s.a(x), dim=-1).real), "", tokens, a=lambda: L(8, 16), b=lambda: L(16, 4)
    ),
    "baddbmm": net(
        lambda s, x: (lambda q, k, v: s.o(torch.baddbmm(v, (q @ k.transpose(1, 2)), v)))(s.q(x), s.k(x), s.v(x)),
        "q k v o",
        tokens,
        q=lambda: L(8, 16),
        k=lambda: L(8, 16),
        v=lambda: L(8, 12),
        o=lambda: L(12, 4),
    ),
}


class Permuted(nn.Module):
    """Channels in a fixed order, by a buffer of integers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = C(3, 16), C(16, 8)
        self.register_buffer("order", torch.randperm(16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x)[:, self.order])


def _iadd(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    a += b
    a *= torch.sigmoid(b)
    return a


def _seen_otherwise(t: torch.Tensor) -> torch.Tensor:
    """Changes of the shape in place: dims go, come (before the channels too) and change places."""
    y = t.mean(3, keepdim=True).squeeze_(3)  # (n, c, h)
    z = y.sin().unsqueeze_(0).unsqueeze_(0).squeeze_(0).squeeze_()
    return (y + z.transpose_(1, 2).transpose_(1, 2)).unsqueeze_(3)


def _write_rows(t: torch.Tensor) -> torch.Tensor:
    t = t.clone()
    t[:, :, 0] = t[:, :, 1] * 2
    t[:, :, 3:5] *= 0.5
    return t


def _write_zeros(t: torch.Tensor) -> torch.Tensor:
    y = torch.zeros_like(t)
    y[:, :, 1:] = t[:, :, :-1]
    return y


def _write_channels(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    a = a.clone()
    a[:, 4:12] = b
    return a


def _view_then_base(t: torch.Tensor) -> torch.Tensor:
    t = t.clone()
    part = t[:, :8]
    part.mul_(2.0)
    return t


def _depth_to_space(t: torch.Tensor) -> torch.Tensor:
    b, c, h, w = t.shape
    return t.view(b, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(b, c // 4, 2 * h, 2 * w)


def _space_to_depth(t: torch.Tensor) -> torch.Tensor:
    b, c, h, w = t.shape
    return t.view(b, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(b, 4 * c, h // 2, w // 2)


def _shuffle(t: torch.Tensor, groups: int) -> torch.Tensor:
    b, c, h, w = t.shape
    return t.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)


def _chain(y: torch.Tensor, b: nn.Module, c: nn.Module) -> torch.Tensor:
    y = y + b(R(y))
    return y + c(R(y))


__all__ = ["PATTERNS", "Net"]
