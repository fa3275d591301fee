"""Fifty small networks, each with one way that channels travel from a producer to a consumer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from judge import Build, between, conv, module_between, net, tokens
from judge import image as image
from torch import nn

L, C, R = nn.Linear, conv, F.relu


class Attn(nn.Module):
    """packed qkv, hard-coded head count (as timm and most user code writes it)"""

    def __init__(s, d=32, h=4):
        super().__init__()
        s.num_heads, s.head_dim, s.scale = h, d // h, (d // h) ** -0.5
        s.qkv, s.proj = L(d, 3 * d), L(d, d)

    def forward(s, x):
        b, n, _ = x.shape
        q, k, v = s.qkv(x).reshape(b, n, 3, s.num_heads, s.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        a = ((q * s.scale) @ k.transpose(-2, -1)).softmax(-1)
        return s.proj((a @ v).transpose(1, 2).reshape(b, n, s.num_heads * s.head_dim))


class Split(nn.Module):
    """hard-coded split sizes"""

    def __init__(s):
        super().__init__()
        s.hidden = 16
        s.a, s.b, s.c = C(3, 32), C(16, 8), C(16, 8)

    def forward(s, x):
        u, v = torch.split(s.a(x), [s.hidden, s.hidden], 1)
        return s.b(R(u)) + s.c(torch.sigmoid(v))


PATTERNS: dict[str, Build] = {
    "relu": between(F.relu),
    "silu": between(F.silu),
    "gelu": between(F.gelu),
    "sigmoid": between(torch.sigmoid),
    "hardswish": between(F.hardswish),
    "t * 2 + 1": between(lambda t: t * 2 + 1),
    "t * t": between(lambda t: t * t),
    "maxpool": between(lambda t: F.max_pool2d(t, 2)),
    "adaptive_avg(4)": between(lambda t: F.adaptive_avg_pool2d(t, 4)),
    "mean keepdim": between(lambda t: t.mean((2, 3), keepdim=True)),
    "interpolate to a size": between(lambda t: F.interpolate(t, size=16)),
    "identity reshape": between(lambda t: t.reshape(t.shape)),
    "slice spatial": between(lambda t: t[:, :, 1:]),
    "chunk and cat": between(lambda t: torch.cat(t.chunk(2, 1), 1)),
    "permute twice": between(lambda t: t.permute(0, 2, 3, 1).permute(0, 3, 1, 2)),
    "batch norm": module_between(lambda: nn.BatchNorm2d(16)),
    "batch norm, no affine": module_between(lambda: nn.BatchNorm2d(16, affine=False)),
    "instance norm": module_between(lambda: nn.InstanceNorm2d(16)),
    "prelu per channel": module_between(lambda: nn.PReLU(16)),
    "conv transpose": module_between(lambda: nn.ConvTranspose2d(16, 16, 2, 2)),
    "depthwise": module_between(lambda: conv(16, 16, groups=16)),
    "grouped conv": module_between(lambda: conv(16, 16, groups=4)),
    "conv1d": net(
        lambda s, x: s.b(F.relu(s.a(x))),
        "a b",
        lambda: torch.randn(2, 3, 8),
        a=lambda: nn.Conv1d(3, 16, 3),
        b=lambda: nn.Conv1d(16, 8, 3),
    ),
    "conv3d": net(
        lambda s, x: s.b(F.relu(s.a(x))),
        "a b",
        lambda: torch.randn(2, 3, 4, 4, 4),
        a=lambda: nn.Conv3d(3, 16, 3),
        b=lambda: nn.Conv3d(16, 8, 1),
    ),
    "linear gelu linear": net(lambda s, x: s.b(F.gelu(s.a(x))), "a b", tokens, a=lambda: L(8, 16), b=lambda: L(16, 4)),
    "linear cat last dim": net(
        lambda s, x: s.c(torch.cat([s.a(x), s.b(x)], -1)),
        "a b c",
        tokens,
        a=lambda: L(8, 16),
        b=lambda: L(8, 12),
        c=lambda: L(28, 4),
    ),
    "conv flatten linear": net(
        lambda s, x: s.b(torch.flatten(s.a(x), 1)), "a b", a=lambda: C(3, 16), b=lambda: L(16 * 64, 4)
    ),
    "conv mean linear": net(lambda s, x: s.b(s.a(x).mean((2, 3))), "a b", a=lambda: C(3, 16), b=lambda: L(16, 4)),
    "residual add": net(
        lambda s, x: s.c(F.relu(s.a(x) + s.b(x))), "a b c", a=lambda: C(3, 16), b=lambda: C(3, 16), c=lambda: C(16, 8)
    ),
    "identity skip": net(
        lambda s, x: (lambda y: s.c(s.b(F.relu(y)) + y))(s.a(x)),
        "a b c",
        a=lambda: C(3, 16),
        b=lambda: C(16, 16),
        c=lambda: C(16, 8),
    ),
    "gate: mul of two": net(
        lambda s, x: s.c(s.a(x) * torch.sigmoid(s.b(x))),
        "a b c",
        a=lambda: C(3, 16),
        b=lambda: C(3, 16),
        c=lambda: C(16, 8),
    ),
    "squeeze and excite": net(
        lambda s, x: (lambda y: s.c(y * torch.sigmoid(s.f2(F.relu(s.f1(F.adaptive_avg_pool2d(y, 1)))))))(s.a(x)),
        "a f1 f2 c",
        a=lambda: C(3, 16),
        f1=lambda: C(16, 8, 1),
        f2=lambda: C(8, 16, 1),
        c=lambda: C(16, 8),
    ),
    "cat of two": net(
        lambda s, x: s.c(torch.cat([s.a(x), s.b(x)], 1)),
        "a b c",
        a=lambda: C(3, 16),
        b=lambda: C(3, 12),
        c=lambda: C(28, 8),
    ),
    "cat with the input": net(
        lambda s, x: s.c(torch.cat([s.a(x), x], 1)), "a c", a=lambda: C(3, 16), c=lambda: C(19, 8)
    ),
    "cat, bn, conv": net(
        lambda s, x: s.c(F.relu(s.n(torch.cat([s.a(x), s.b(x)], 1)))),
        "a b c",
        a=lambda: C(3, 16),
        b=lambda: C(3, 12),
        n=lambda: nn.BatchNorm2d(28),
        c=lambda: C(28, 8),
    ),
    "channel shuffle": net(
        lambda s, x: s.c(s.a(x).view(2, 2, 8, 8, 8).transpose(1, 2).reshape(2, -1, 8, 8)),
        "",
        a=lambda: C(3, 16),
        c=lambda: C(16, 8),
    ),
    "shared conv": net(
        lambda s, x: s.b(F.relu(s.m(F.relu(s.m(s.a(x)))))),
        "a m b",
        a=lambda: C(3, 16),
        m=lambda: C(16, 16),
        b=lambda: C(16, 8),
    ),
    "conv subclass": net(
        lambda s, x: s.b(s.a(x)), "a b", a=lambda: type("MyConv", (nn.Conv2d,), {})(3, 16, 3), b=lambda: C(16, 8)
    ),
    "output is kept": net(lambda s, x: s.b(s.a(x)), "a", a=lambda: C(3, 16), b=lambda: C(16, 8)),
    "unet": net(
        lambda s, x: (lambda y: s.c(torch.cat([s.t(s.d(F.max_pool2d(y, 2))), y], 1)))(s.a(x)),
        "a d t c",
        a=lambda: C(3, 16),
        d=lambda: C(16, 24),
        t=lambda: nn.ConvTranspose2d(24, 16, 2, 2),
        c=lambda: C(32, 8),
    ),
    "self attention": net(
        lambda s, x: s.o(
            F.scaled_dot_product_attention(*(p(x).unflatten(-1, (-1, 4)).transpose(1, 2) for p in (s.q, s.k, s.v)))
            .transpose(1, 2)
            .flatten(2)
        ),
        "q k v o",
        lambda: torch.randn(2, 5, 16),
        q=lambda: L(16, 16),
        k=lambda: L(16, 16),
        v=lambda: L(16, 16),
        o=lambda: L(16, 8),
    ),
    "packed qkv attention": net(
        lambda s, x: s.o(s.m(R(s.i(x)))),
        "i o",
        lambda: torch.randn(2, 5, 8),
        i=lambda: L(8, 32),
        m=Attn,
        o=lambda: L(32, 4),
    ),
    "hard-coded split": lambda: (Split(), (image(),), "a b c"),
    "stack sum": net(
        lambda s, x: s.c(torch.stack([s.a(x), s.b(x), s.d(x)]).sum(0)),
        "a b d c",
        a=lambda: C(3, 16),
        b=lambda: C(3, 16),
        d=lambda: C(3, 16),
        c=lambda: C(16, 8),
    ),
    "depthwise multiplier 2": net(
        lambda s, x: s.b(s.m(s.a(x))), "a m b", a=lambda: C(3, 16), m=lambda: C(16, 32, groups=16), b=lambda: C(32, 8)
    ),
    "layer norm": net(
        lambda s, x: s.b(s.n(s.a(x))),
        "a n b",
        tokens,
        a=lambda: L(8, 16),
        n=lambda: nn.LayerNorm(16),
        b=lambda: L(16, 4),
    ),
    "group norm": module_between(lambda: nn.GroupNorm(4, 16)),
    # the size of the channels enters the arithmetic: pruning may leave these alone, but must not get them wrong
    "divided by the width": net(
        lambda s, x: (lambda y: s.b(y / y.shape[1]))(s.a(x)), "", a=lambda: C(3, 16), b=lambda: C(16, 8)
    ),
    "halves swapped": net(
        lambda s, x: s.b(torch.cat(s.a(x).chunk(2, 1)[::-1], 1)), "", a=lambda: C(3, 16), b=lambda: C(16, 8)
    ),
    "literal slice": net(lambda s, x: s.b(s.a(x)[:, :16]), "", a=lambda: C(3, 32), b=lambda: C(16, 8)),
}
