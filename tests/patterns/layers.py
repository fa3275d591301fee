"""Layers with parameters: convolutions, linear layers, norms, embeddings, parameters used directly."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from judge import Build, between, conv, image, module_between, net, of, tokens
from torch import nn
from torch.nn.utils import parametrizations

L, C = nn.Linear, conv


class RMSNorm(nn.Module):
    """Written out, with a cast."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)
        self.eps = 1e-6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)
        return y.type_as(x) * self.weight


class Normed(nn.Module):
    """A convolution whose weight is a direction and a magnitude; `twice`: two of one magnitude."""

    def __init__(self, twice: bool = False, computed: bool = False) -> None:
        super().__init__()
        self.v, self.g = nn.Parameter(torch.randn(16, 16, 3, 3)), nn.Parameter(torch.rand(16, 1, 1, 1) + 0.5)
        self.other = nn.Parameter(torch.randn(16, 16, 3, 3)) if twice else None
        self.computed = computed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        g = self.g.exp() if self.computed else self.g
        y = F.conv2d(x, torch._weight_norm(self.v, g, 0), padding=1)
        return y if self.other is None else F.conv2d(y, torch._weight_norm(self.other, g, 0), padding=1)


def _normed_twice(x: torch.Tensor, v: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    weight, norm = torch._weight_norm_interface(v, g, 0)
    return F.conv2d(x, weight, padding=1) * norm.flatten()[:, None, None]


class LayerNorm2d(nn.LayerNorm):
    """Channels first, by permuting."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class ChannelsFirstNorm(nn.Module):
    """Channels first, written out with mean and power (ConvNeXt)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(width) + 0.5), nn.Parameter(torch.rand(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        u = x.mean(1, keepdim=True)
        s = (x - u).pow(2).mean(1, keepdim=True)
        x = (x - u) / torch.sqrt(s + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class GRN(nn.Module):
    """Global response normalization (ConvNeXt v2), channels last."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(1, 1, 1, width))
        self.beta = nn.Parameter(torch.rand(1, 1, 1, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        g = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        return self.gamma * (x * (g / (g.mean(dim=-1, keepdim=True) + 1e-6))) + self.beta + x


class LayerScale(nn.Module):
    def __init__(self, width: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(width).view(shape) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gamma


class StdConv(nn.Conv2d):
    """Weight standardization by batch norm, as in timm."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        w = F.batch_norm(self.weight.reshape(1, self.out_channels, -1), None, None, training=True, momentum=0.0)
        return F.conv2d(x, w.reshape_as(self.weight), self.bias, self.stride, self.padding, self.dilation, self.groups)


class StdConvMean(nn.Conv2d):
    """Weight standardization written out."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        w = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        w = w / (w.pow(2).sum(dim=(1, 2, 3), keepdim=True).sqrt() + 1e-5)
        return F.conv2d(x, w, self.bias, self.stride, self.padding)


class Constrained(nn.Conv2d):
    """A bound on the norm of each filter."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.weight.data = torch.renorm(self.weight.data, p=2, dim=0, maxnorm=0.5)
        return super().forward(x)


class Scaled(nn.Module):
    """Equalized learning rate: the weight times a constant."""

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return w * 0.7


class LowRank(nn.Module):
    """LoRA beside a linear layer."""

    def __init__(self, i: int, o: int, rank: int) -> None:
        super().__init__()
        self.base = L(i, o)
        self.down, self.up = nn.Parameter(torch.randn(rank, i)), nn.Parameter(torch.randn(o, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + (x @ self.down.T) @ self.up.T


class LowRankWeight(nn.Module):
    """The product of the two is added to the weight."""

    def __init__(self, i: int, o: int, rank: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(o, i) * 0.2)
        self.down, self.up = nn.Parameter(torch.randn(rank, i)), nn.Parameter(torch.randn(o, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight + self.up @ self.down)


class PackedLinear(nn.Module):
    """One weight that holds two layers, taken apart by slices of its rows."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.hidden = o
        self.weight = nn.Parameter(torch.randn(2 * o, i) * 0.3)
        self.out = L(o, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = F.linear(x, self.weight[: self.hidden]), F.linear(x, self.weight[self.hidden :])
        return self.out(torch.relu(a) * b)


class OwnConv(nn.Module):
    """Parameters of the module's own, called by function."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.b1 = nn.Parameter(torch.randn(16, 3, 3, 3)), nn.Parameter(torch.randn(16))
        self.w2 = nn.Parameter(torch.randn(8, 16, 3, 3) * 0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(F.relu(F.conv2d(x, self.w1, self.b1, padding=1)), self.w2)


class Tied(nn.Module):
    """A language model whose head is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(20, 16), L(16, 16), L(16, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, i: torch.Tensor) -> torch.Tensor:
        x = self.embed(i)
        return self.head(x + torch.relu(self.mix(x)))


class ClassToken(nn.Module):
    """Patches, a class token, positions, layer scale."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        self.cls, self.pos = nn.Parameter(torch.randn(1, 1, 16)), nn.Parameter(torch.randn(1, 5, 16))
        self.gamma = nn.Parameter(torch.rand(16))
        self.mlp1, self.mlp2, self.norm, self.head = L(16, 24), L(24, 16), nn.LayerNorm(16), L(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.pos
        x = x + self.gamma * self.mlp2(F.gelu(self.mlp1(x)))
        return self.head(self.norm(x)[:, 0])


class Sinusoid(nn.Module):
    """A position table in a buffer, added to what a linear layer makes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = L(8, 16), L(16, 4)
        self.register_buffer("table", torch.randn(10, 16), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x) + self.table[: x.shape[1]])


class OwnStatistics(nn.Module):
    """A buffer of its own that follows the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 16), conv(16, 8)
        self.register_buffer("mean", torch.randn(16))
        self.register_buffer("scale", torch.rand(1, 16, 1, 1) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b((self.a(x) - self.mean.view(1, -1, 1, 1)) / self.scale)


def _tied_pair() -> nn.Module:
    m = nn.Sequential(L(8, 16), nn.ReLU(), L(16, 16), nn.ReLU(), L(16, 16), nn.ReLU(), L(16, 4))
    m[4].weight = m[2].weight
    return m


class Masked(nn.Linear):
    """A weight of which some elements are nought, as in autoregressive flows (arXiv 1502.03509)."""

    def __init__(self, i: int, o: int, masked: Any, kind: Any = torch.bool, trained: bool = False) -> None:
        super().__init__(i, o)
        mask = (torch.arange(o)[:, None] + torch.arange(i) % 3 > 1).to(kind)
        self.masked = masked
        if trained:
            self.mask = nn.Parameter(mask, requires_grad=False)
        else:
            self.register_buffer("mask", mask)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.masked(self.weight, self.mask), self.bias)


def flagged(fn: Any, must: str = "a b", left: int = 16) -> Build:
    return net(
        lambda s, x: s.b(fn(s.a(x), s.m)),
        must,
        tokens,
        a=lambda: nn.Linear(8, 16),
        m=lambda: nn.Parameter(torch.arange(16) % 3 > 0, requires_grad=False),
        b=lambda: nn.Linear(left, 4),
    )


def masked(fn: Any, must: str = "a b", **options: Any) -> Build:
    return net(
        lambda s, x: s.b(F.relu(s.a(x))),
        must,
        tokens,
        a=lambda: Masked(8, 16, fn, **options),
        b=lambda: Masked(16, 4, fn, **options),
    )


PATTERNS: dict[str, Build] = {
    "masked, flags first": masked(lambda w, m: m * w),
    "masked, flags of no gradient": masked(lambda w, m: m * w, trained=True),
    "masked, cast": masked(lambda w, m: w * m.to(w)),
    "masked, filled": masked(lambda w, m: w.masked_fill(~m, 0)),
    "masked, chosen": masked(lambda w, m: torch.where(m, w, 0.0)),
    "masked, if any is set": masked(lambda w, m: w * m if bool(m.any()) else w, ""),
    "masked, chosen by another": masked(lambda w, m: torch.where(m & ~(w > 9), w, torch.zeros_like(w))),
    "masked, numbers": masked(lambda w, m: torch.where(m > 0.5, w, torch.zeros(())), kind=torch.float64),
    "masked, integers": masked(lambda w, m: w * m, "", kind=torch.int64),
    "flags of channels": flagged(lambda h, m: h * m),
    "flags of channels, which are picked": flagged(lambda h, m: h[..., m], "", 10),
    "grouped, then depthwise with multiplier 3": net(
        lambda s, x: s.c(F.relu(s.d(F.relu(s.g(s.a(x)))))),
        "a g d c",
        a=lambda: C(3, 16),
        g=lambda: C(16, 24, groups=4),
        d=lambda: C(24, 72, groups=24),
        c=lambda: C(72, 8),
    ),
    "grouped after grouped": net(
        lambda s, x: s.c(s.h(F.relu(s.g(s.a(x))))),
        "a g h c",
        a=lambda: C(3, 16),
        g=lambda: C(16, 16, groups=4),
        h=lambda: C(16, 16, groups=2),
        c=lambda: C(16, 8),
    ),
    "grouped with a residual": net(
        lambda s, x: (lambda y: s.c(y + s.g(y)))(s.a(x)),
        "a g c",
        a=lambda: C(3, 16),
        g=lambda: C(16, 16, groups=4),
        c=lambda: C(16, 8),
    ),
    "grouped, batch norm": net(
        lambda s, x: s.c(F.relu(s.n(s.g(F.relu(s.a(x)))))),
        "a g c",
        a=lambda: C(3, 16),
        g=lambda: C(16, 32, groups=8),
        n=lambda: nn.BatchNorm2d(32),
        c=lambda: C(32, 8),
    ),
    "grouped conv1d": net(
        lambda s, x: s.c(s.g(s.a(x))),
        "a g c",
        lambda: image(2, 3, 8),
        a=lambda: nn.Conv1d(3, 16, 3),
        g=lambda: nn.Conv1d(16, 16, 3, groups=2),
        c=lambda: nn.Conv1d(16, 4, 1),
    ),
    "grouped after a concatenation": net(
        lambda s, x: s.c(s.g(torch.cat([s.a(x), s.b(x)], 1))),
        "",
        a=lambda: C(3, 8),
        b=lambda: C(3, 8),
        g=lambda: C(16, 16, groups=2),
        c=lambda: C(16, 8),
    ),
    "grouped over half of a concatenation": net(
        lambda s, x: s.c(s.g(torch.cat([s.a(x), s.b(x)], 1))),
        "",
        a=lambda: C(3, 12),
        b=lambda: C(3, 4),
        g=lambda: C(16, 16, groups=2),
        c=lambda: C(16, 8),
    ),
    "inverted residual": net(
        lambda s, x: (lambda y: s.c(y + s.p(F.relu6(s.d(F.relu6(s.e(y)))))))(s.a(x)),
        "a e d p c",
        a=lambda: C(3, 16),
        e=lambda: C(16, 32, 1),
        d=lambda: C(32, 32, groups=32),
        p=lambda: C(32, 16, 1),
        c=lambda: C(16, 8),
    ),
    "transposed, grouped": module_between(lambda: nn.ConvTranspose2d(16, 32, 2, 2, groups=4), "a m b", 32),
    "transposed, depthwise": module_between(lambda: nn.ConvTranspose2d(16, 16, 2, 2, groups=16), "a m b"),
    "transposed, depthwise, multiplier 2": module_between(
        lambda: nn.ConvTranspose2d(16, 32, 2, 2, groups=16), "a m b", 32
    ),
    "transposed, output padding": module_between(
        lambda: nn.ConvTranspose2d(16, 24, 3, 2, 1, output_padding=1), "a m b", 24
    ),
    "transposed 1d": net(
        lambda s, x: s.c(F.relu(s.m(s.a(x)))),
        "a m c",
        lambda: image(2, 3, 8),
        a=lambda: nn.Conv1d(3, 16, 3),
        m=lambda: nn.ConvTranspose1d(16, 12, 2, 2),
        c=lambda: nn.Conv1d(12, 4, 1),
    ),
    "transposed 3d": net(
        lambda s, x: s.c(F.relu(s.m(s.a(x)))),
        "a m c",
        lambda: image(2, 3, 4, 4, 4),
        a=lambda: nn.Conv3d(3, 16, 3),
        m=lambda: nn.ConvTranspose3d(16, 12, 2, 2),
        c=lambda: nn.Conv3d(12, 4, 1),
    ),
    "depthwise 3d": net(
        lambda s, x: s.c(s.m(s.a(x))),
        "a m c",
        lambda: image(2, 3, 4, 4, 4),
        a=lambda: nn.Conv3d(3, 16, 3),
        m=lambda: nn.Conv3d(16, 16, 1, groups=16),
        c=lambda: nn.Conv3d(16, 4, 1),
    ),
    "one for each input": net(lambda s, x: s.c(s.d(x)), "", d=lambda: C(3, 3, groups=3), c=lambda: C(3, 8)),
    "several for each input, biased": net(
        lambda s, x: s.c(s.d(x) + s.d(x).flip(2)),
        "d c",
        d=lambda: nn.Conv2d(3, 18, 3, padding=1, groups=3),
        c=lambda: C(18, 8),
    ),
    "depthwise on the input": net(lambda s, x: s.c(s.d(x)), "d c", d=lambda: C(3, 12, groups=3), c=lambda: C(12, 8)),
    "no batch dim": net(
        lambda s, x: s.b(F.relu(s.a(x))), "a b", lambda: image(3, 8, 8), a=lambda: C(3, 16), b=lambda: C(16, 8)
    ),
    "reflect padding in the layer": module_between(
        lambda: nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect"), "a m b"
    ),
    "circular padding in the layer": module_between(
        lambda: nn.Conv2d(16, 16, 3, padding=1, padding_mode="circular"), "a m b"
    ),
    "string padding": module_between(lambda: nn.Conv2d(16, 16, 3, padding="same"), "a m b"),
    "instance norm, affine": module_between(lambda: nn.InstanceNorm2d(16, affine=True)),
    "instance norm, statistics": module_between(lambda: nn.InstanceNorm2d(16, affine=True, track_running_stats=True)),
    "batch norm 1d after linear": net(
        lambda s, x: s.b(F.relu(s.n(s.a(x)))),
        "a n b",
        lambda: image(6, 8),
        a=lambda: L(8, 16),
        n=lambda: nn.BatchNorm1d(16),
        b=lambda: L(16, 4),
    ),
    "batch norm 1d over tokens": net(
        lambda s, x: s.b(s.n(s.a(x).transpose(1, 2)).transpose(1, 2)),
        "a n b",
        tokens,
        a=lambda: L(8, 16),
        n=lambda: nn.BatchNorm1d(16),
        b=lambda: L(16, 4),
    ),
    "batch norm, no statistics": module_between(lambda: nn.BatchNorm2d(16, track_running_stats=False)),
    "batch norm before the first layer": net(
        lambda s, x: s.b(s.a(s.n(x))), "a b", n=lambda: nn.BatchNorm2d(3), a=lambda: C(3, 16), b=lambda: C(16, 8)
    ),
    "layer norm, no affine": net(
        lambda s, x: s.b(s.n(s.a(x))),
        "a b",
        tokens,
        a=lambda: L(8, 16),
        n=lambda: nn.LayerNorm(16, elementwise_affine=False),
        b=lambda: L(16, 4),
    ),
    "layer norm, no bias": net(
        lambda s, x: s.b(s.n(s.a(x))),
        "a n b",
        tokens,
        a=lambda: L(8, 16),
        n=lambda: nn.LayerNorm(16, bias=False),
        b=lambda: L(16, 4),
    ),
    "layer norm, functional, of its shape": net(
        lambda s, x: (lambda y: s.b(F.layer_norm(y, y.shape[-1:])))(s.a(x)),
        "a b",
        tokens,
        a=lambda: L(8, 16),
        b=lambda: L(16, 4),
    ),
    "layer norm over channels and space": net(
        lambda s, x: s.b(s.n(s.a(x))),
        "a b",
        a=lambda: C(3, 16),
        n=lambda: nn.LayerNorm([16, 8, 8]),
        b=lambda: C(16, 8),
    ),
    "layer norm, channels first": module_between(lambda: LayerNorm2d(16), "a m b"),
    "layer norm, channels first, written out": module_between(lambda: ChannelsFirstNorm(16), "a b"),
    "global response norm": module_between(
        lambda: nn.Sequential(Permute(0, 2, 3, 1), GRN(16), Permute(0, 3, 1, 2)), "a b"
    ),
    "RMS norm": net(
        lambda s, x: s.b(s.n(s.a(x))),
        "a n b",
        tokens,
        a=lambda: L(8, 16),
        n=lambda: nn.RMSNorm(16),
        b=lambda: L(16, 4),
    ),
    "RMS norm written out": net(
        lambda s, x: s.b(s.n(s.a(x))),
        "a n b",
        tokens,
        a=lambda: L(8, 16),
        n=lambda: RMSNorm(16),
        b=lambda: L(16, 4),
    ),
    "group norm of one group": module_between(lambda: nn.GroupNorm(1, 16)),
    "group norm of every channel": module_between(lambda: nn.GroupNorm(16, 16)),
    "local response norm": module_between(lambda: nn.LocalResponseNorm(3), ""),
    "PReLU with one slope": module_between(lambda: nn.PReLU()),
    "PReLU after linear": net(
        lambda s, x: s.b(s.m(s.a(x))),
        "a b",
        lambda: image(6, 8),
        a=lambda: L(8, 16),
        m=lambda: nn.PReLU(16),
        b=lambda: L(16, 4),
    ),
    "PReLU shared by two": net(
        lambda s, x: s.c(s.m(s.b(s.m(s.a(x))))),
        "a b c",
        a=lambda: C(3, 16),
        b=lambda: C(16, 16),
        m=lambda: nn.PReLU(16),
        c=lambda: C(16, 8),
    ),
    "embedding": net(
        lambda s, i: s.b(F.relu(s.a(s.e(i)))),
        "e a b",
        lambda: torch.randint(20, (2, 5)),
        e=lambda: nn.Embedding(20, 16),
        a=lambda: L(16, 12),
        b=lambda: L(12, 4),
    ),
    "embedding with padding and positions": net(
        lambda s, i: s.b(s.e(i) + s.p(torch.arange(i.shape[1]))),
        "e p b",
        lambda: torch.randint(20, (2, 5)),
        e=lambda: nn.Embedding(20, 16, padding_idx=0),
        p=lambda: nn.Embedding(5, 16),
        b=lambda: L(16, 4),
    ),
    "embedding bag": net(
        lambda s, i: s.b(s.e(i)),
        "e b",
        lambda: torch.randint(20, (2, 5)),
        e=lambda: nn.EmbeddingBag(20, 16, mode="mean"),
        b=lambda: L(16, 4),
    ),
    "embedding as head": of(Tied, "embed mix", lambda: torch.randint(20, (2, 5))),
    "tied weights": of(_tied_pair, "0 2 4 6", lambda: image(4, 8)),
    "class token and positions": of(ClassToken, "patch mlp1 mlp2 head cls pos gamma"),
    "positions in a buffer": of(Sinusoid, "a b", tokens),
    "statistics of one's own": of(OwnStatistics, "a b"),
    "scale per channel": module_between(lambda: LayerScale(16, (1, 16, 1, 1)), "a b"),
    "layer scale, channels last": net(
        lambda s, x: (lambda y: s.c(y + s.m(s.b(y))))(s.a(x)),
        "a b c",
        tokens,
        a=lambda: L(8, 16),
        b=lambda: L(16, 16),
        m=lambda: LayerScale(16, (16,)),
        c=lambda: L(16, 4),
    ),
    "one scale for all": module_between(lambda: LayerScale(1, (1,)), "a b"),
    "weight standardization": module_between(lambda: StdConv(16, 16, 3), "a b"),
    "weight standardization, written out": module_between(lambda: StdConvMean(16, 16, 3), "a b"),
    "bounded norm of filters": module_between(lambda: Constrained(16, 16, 3), "m b"),
    "bounded norm of channels": between(lambda x: torch.renorm(x, 2, 1, 3.0)),
    "bounded norm of samples": between(lambda x: torch.renorm(x, 2, 0, 3.0)),
    "weight norm": module_between(lambda: parametrizations.weight_norm(conv(16, 16)), "a m b"),
    "weight norm of each position in a kernel": module_between(
        lambda: parametrizations.weight_norm(conv(16, 16), dim=3), "a m b"
    ),
    "weight norm of each input": module_between(lambda: parametrizations.weight_norm(conv(16, 16), dim=1), ""),
    "weight norm of all together": module_between(lambda: parametrizations.weight_norm(conv(16, 16), dim=None), ""),
    "weight norm, in groups": module_between(lambda: parametrizations.weight_norm(conv(16, 16, groups=4)), "a m b"),
    "weight norm, depthwise": module_between(lambda: parametrizations.weight_norm(conv(16, 16, groups=16)), "a m b"),
    "weight norm, transposed": module_between(
        lambda: parametrizations.weight_norm(nn.ConvTranspose2d(16, 16, 2, 2)), "a m b"
    ),
    "weight norm, linear": net(
        lambda s, x: s.b(F.relu(s.a(x))),
        "a b",
        tokens,
        a=lambda: parametrizations.weight_norm(L(8, 16)),
        b=lambda: parametrizations.weight_norm(L(16, 4)),
    ),
    "weight norm, columns": net(
        lambda s, x: s.b(F.relu(s.a(x))),
        "a b",
        tokens,
        a=lambda: parametrizations.weight_norm(L(8, 16), dim=1),
        b=lambda: parametrizations.weight_norm(L(16, 4), dim=1),
    ),
    "weight norm, called": module_between(lambda: Normed(), "a m.v b"),
    "weight norm, one magnitude of two directions": module_between(lambda: Normed(twice=True), ""),
    "weight norm, its magnitude used elsewhere": net(
        lambda s, x: (s.b(s.m(s.a(x))), s.m.g.detach().sum()),
        "",
        a=lambda: conv(3, 16),
        m=lambda: Normed(),
        b=lambda: conv(16, 8),
    ),
    "weight norm, named arguments": net(
        lambda s, x: s.b(F.conv2d(s.a(x), torch._weight_norm(v=s.m.v, g=s.m.g, dim=0), padding=1)),
        "a m.v b",
        a=lambda: conv(3, 16),
        m=lambda: Normed(),
        b=lambda: conv(16, 8),
    ),
    "weight norm, the norm used": net(
        lambda s, x: s.b(_normed_twice(s.a(x), s.m.v, s.m.g)),
        "",
        a=lambda: conv(3, 16),
        m=lambda: Normed(),
        b=lambda: conv(16, 8),
    ),
    "weight norm, its magnitude computed": module_between(lambda: Normed(computed=True), ""),
    "weight norm, its direction used again": net(
        lambda s, x: s.b(s.m(s.a(x))) + F.conv2d(s.a(x), s.m.v, padding=1).mean(1, keepdim=True),
        "a",
        a=lambda: conv(3, 16),
        m=lambda: Normed(),
        b=lambda: conv(16, 8),
    ),
    "spectral norm": module_between(lambda: parametrizations.spectral_norm(conv(16, 16)), ""),
    "parametrization of one's own": net(
        lambda s, x: s.b(F.relu(s.a(x))),
        "b",
        tokens,
        a=lambda: _parametrized(L(8, 16)),
        b=lambda: L(16, 4),
    ),
    "low rank beside": net(
        lambda s, x: s.b(F.relu(s.m(s.a(x)))),
        "a m.base b",
        tokens,
        a=lambda: L(8, 16),
        m=lambda: LowRank(16, 16, 2),
        b=lambda: L(16, 4),
    ),
    "low rank in the weight": net(
        lambda s, x: s.b(F.relu(s.m(s.a(x)))),
        "a m.weight b",
        tokens,
        a=lambda: L(8, 16),
        m=lambda: LowRankWeight(16, 16, 2),
        b=lambda: L(16, 4),
    ),
    "packed linear": of(lambda: PackedLinear(8, 16), "out", tokens),
    "conv by function": of(OwnConv, "w1 w2"),
    "bilinear": net(
        lambda s, x: s.c(s.m(s.a(x), s.b(x))),
        "a b m c",
        lambda: image(6, 8),
        a=lambda: L(8, 16),
        b=lambda: L(8, 12),
        m=lambda: nn.Bilinear(16, 12, 10),
        c=lambda: L(10, 4),
    ),
    "GRU cell": net(
        lambda s, x: s.b(s.m(s.a(x))),
        "",
        lambda: image(6, 8),
        a=lambda: L(8, 16),
        m=lambda: nn.GRUCell(16, 12),
        b=lambda: L(12, 4),
    ),
    "linear without bias": net(
        lambda s, x: s.b(F.relu(s.a(x))),
        "a b",
        tokens,
        a=lambda: L(8, 16, bias=False),
        b=lambda: L(16, 4, bias=False),
    ),
    "matmul with a parameter": net(
        lambda s, x: s.b(F.relu(x @ s.w)),
        "w b",
        tokens,
        w=lambda: nn.Parameter(torch.randn(8, 16)),
        b=lambda: L(16, 4),
    ),
    "bias of one's own": net(
        lambda s, x: s.b(F.relu(s.a(x) + s.bias)),
        "a b bias",
        tokens,
        a=lambda: L(8, 16, bias=False),
        bias=lambda: nn.Parameter(torch.randn(16)),
        b=lambda: L(16, 4),
    ),
    "addmm": net(
        lambda s, x: s.b(F.relu(torch.addmm(s.bias, x, s.w))),
        "w b bias",
        lambda: image(6, 8),
        w=lambda: nn.Parameter(torch.randn(8, 16)),
        bias=lambda: nn.Parameter(torch.randn(16)),
        b=lambda: L(16, 4),
    ),
    "bilinear, of one tensor twice": net(
        lambda s, x: (lambda y: s.b(s.m(y, y)))(s.a(x)),
        "a m b",
        tokens,
        a=lambda: L(8, 16),
        m=lambda: nn.Bilinear(16, 16, 10, bias=False),
        b=lambda: L(10, 4),
    ),
    "bilinear, of an input": net(
        lambda s, x: s.b(F.relu(s.m(x, s.a(x)))),
        "a m b",
        tokens,
        a=lambda: L(8, 16),
        m=lambda: nn.Bilinear(8, 16, 10),
        b=lambda: L(10, 4),
    ),
    "a vector at the end": net(
        lambda s, x: F.relu(s.a(x)) @ s.v,
        "a v",
        tokens,
        a=lambda: L(8, 16),
        v=lambda: nn.Parameter(torch.randn(16)),
    ),
    "identity": module_between(nn.Identity),
    "dropout": between(lambda t: F.dropout2d(t, 0.5, training=False)),
    "fused scale of batch norm by hand": module_between(lambda: Fused(16), "a m.conv b"),
}


class Permute(nn.Module):
    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(self.order)


class Fused(nn.Module):
    """A conv and a batch norm as one convolution, computed at every call."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.bn = conv(width, width, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.bn.weight / torch.sqrt(self.bn.running_var + self.bn.eps)
        weight = self.conv.weight * scale.reshape(-1, 1, 1, 1)
        return F.conv2d(x, weight, self.bn.bias - self.bn.running_mean * scale, padding=1)


def _parametrized(layer: nn.Module) -> nn.Module:
    nn.utils.parametrize.register_parametrization(layer, "weight", Scaled())
    return layer
