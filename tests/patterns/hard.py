"""Networks in which a size, or a number of channels, enters what is computed: right, or left whole."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from judge import Build, between, conv, image, net, tokens
from torch import nn

L, C = nn.Linear, conv

KERNELS = {
    "a": lambda: C(3, 16),
    "z": lambda: 3,
    "o": lambda: 24,
    "i": lambda: 16,
    "h": lambda: L(3, 24 * 16 * 9),
    "b": lambda: C(24, 8),
}

PATTERNS: dict[str, Build] = {
    "counted by ones_like": between(lambda t: t / torch.ones_like(t).sum(1, keepdim=True), ""),
    "counted by new_ones": between(lambda t: t / t.new_ones(t.shape[1]).sum(), ""),
    "counted by ones @": between(
        lambda t: t + torch.einsum("bchw,c->bhw", torch.ones_like(t), t.new_ones(t.shape[1]))[:, None], ""
    ),
    "counted by full, mean": between(lambda t: t / t.new_full((t.shape[1],), 2.0).mean(), ""),
    "counted by ones through a view": between(
        lambda t: t / torch.ones_like(t).flatten(2).transpose(1, 2).sum(-1).view(2, 1, 8, 8), ""
    ),
    "constant added, then summed": between(lambda t: t * (torch.zeros_like(t) + 1).sum(1, keepdim=True), ""),
    "exp, then summed": between(lambda t: t * torch.sigmoid(t.exp().sum(1, keepdim=True))),
    "cos, then a linear layer": net(
        lambda s, x: s.b(torch.cos(s.a(x))), "a b", tokens, a=lambda: L(8, 16), b=lambda: L(16, 4)
    ),
    "plus one, then summed": between(lambda t: t * torch.sigmoid((t + 1).sum(1, keepdim=True))),
    "plus one, then norm": between(lambda t: t * torch.sigmoid((t + 1).norm(dim=1, keepdim=True))),
    "numel": between(lambda t: t / t.numel(), ""),
    "numel per row": between(lambda t: t * (t[0].numel() ** -0.5), ""),
    "len": net(lambda s, x: (lambda y: s.b(y / len(y[0])))(s.a(x)), "", a=lambda: C(3, 16), b=lambda: C(16, 8)),
    "nelement of the weight": net(
        lambda s, x: s.b(s.a(x)) / s.b.weight.nelement(), "", a=lambda: C(3, 16), b=lambda: C(16, 8)
    ),
    "weight's own size": net(
        lambda s, x: s.b(s.a(x) * s.b.weight.shape[1] ** -0.5), "", a=lambda: C(3, 16), b=lambda: C(16, 8)
    ),
    "attribute of a layer": net(
        lambda s, x: s.b(s.a(x) * s.b.in_channels**-0.5), "", a=lambda: C(3, 16), b=lambda: C(16, 8)
    ),
    "size as tensor": between(lambda t: t / torch.tensor(t.shape[1], dtype=t.dtype), ""),
    "size as tensor, by its root": net(
        lambda s, x: s.o((s.q(x) @ s.k(x).mT / torch.sqrt(torch.tensor(s.k(x).size(-1)))).softmax(-1) @ s.v(x)),
        "o v",
        tokens,
        q=lambda: L(8, 16),
        k=lambda: L(8, 16),
        v=lambda: L(8, 12),
        o=lambda: L(12, 4),
    ),
    "root of a size as tensor": between(lambda t: t / torch.tensor(t.shape[1] ** 0.5, dtype=t.dtype), ""),
    "size as a filling": between(lambda t: t / torch.full((1,), t.shape[1], dtype=t.dtype), ""),
    "size as a filling, full_like": between(lambda t: t / torch.full_like(t, t.shape[1]), ""),
    "size as a filling, fill_": between(lambda t: t / torch.empty_like(t).fill_(t.shape[1]), ""),
    "numpy size": between(lambda t: t / torch.from_numpy(np.full(1, t.shape[1], np.float64)), ""),
    "arange, its maximum": between(lambda t: t / torch.arange(t.shape[1]).max(), ""),
    "identity of its width": between(
        lambda t: torch.einsum("bchw,cd->bdhw", t, torch.eye(t.shape[1], dtype=t.dtype)), ""
    ),
    "size as float": between(lambda t: t / float(t.shape[1]), ""),
    "size as a length": between(lambda t: t / len(range(t.shape[1])), ""),
    "root of a size": between(lambda t: t / t.shape[1] ** 0.5, ""),
    "root of a number to a size": between(lambda t: t * 2 ** -t.shape[1], ""),
    "part of a size": between(lambda t: t * (0.5 * t.shape[1]), ""),
    "size to size": between(lambda t: t * (t.shape[1] / t.shape[2]), ""),
    "size in a string": between(lambda t: t if str(t.shape[1]) == "16" else t * 2, ""),
    "size in a dict": between(lambda t: t * {16: 1.0}.get(t.shape[1], 3.0), ""),
    "branch on a size": between(lambda t: F.relu(t) if t.shape[1] > 8 else t, ""),
    "branch on parity": between(lambda t: t if t.shape[1] % 4 == 0 else -t, ""),
    "loop over channels": between(lambda t: torch.stack([t[:, i] * (i + 1) for i in range(t.shape[1])], 1), ""),
    "loop over half": between(lambda t: t * sum(0.1 for _ in range(t.size(1) // 2)), ""),
    "divided by the width": between(lambda t: t / t.shape[1], ""),
    "mean by sum over size": between(lambda t: t * torch.sigmoid(t.sum(1, keepdim=True) / t.shape[1]), ""),
    "default scale of attention": net(
        lambda s, x: s.o(F.scaled_dot_product_attention(s.q(x), s.k(x), s.v(x))),
        "o",
        tokens,
        q=lambda: L(8, 16),
        k=lambda: L(8, 16),
        v=lambda: L(8, 12),
        o=lambda: L(12, 4),
    ),
    "layer norm of a literal shape": between(
        lambda t: F.layer_norm(t.permute(0, 2, 3, 1), (16,)).permute(0, 3, 1, 2), ""
    ),
    "group norm by function": between(lambda t: F.group_norm(t, 4)),
    "group norm, a group per two channels": between(lambda t: F.group_norm(t, t.shape[1] // 2), ""),
    "group norm by view": between(
        lambda t: (lambda y: ((y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True) + 1e-5).sqrt()).view(t.shape))(
            t.reshape(t.shape[0], 4, -1)
        ),
        "",
    ),
    "softmax, then times the size": between(lambda t: t.softmax(1) * t.shape[1], ""),
    "one-hot of an argmax": between(
        lambda t: t * F.one_hot(t.mean((2, 3)).argmax(1), 16)[..., None, None].to(t.dtype), ""
    ),
    "one-hot of its width": between(
        lambda t: t * F.one_hot(t.mean((2, 3)).argmax(1), t.shape[1])[..., None, None].to(t.dtype), ""
    ),
    "scatter over channels": between(lambda t: torch.zeros_like(t).scatter(1, t.argmax(1, keepdim=True), 1.0) * t, ""),
    "halves swapped": between(lambda t: torch.cat(t.chunk(2, 1)[::-1], 1), ""),
    "halves swapped and added": between(lambda t: t + torch.cat(t.chunk(2, 1)[::-1], 1)),
    "literal slice": net(lambda s, x: s.b(s.a(x)[:, :16]), "", a=lambda: C(3, 32), b=lambda: C(16, 8)),
    "literal slice and the rest": net(
        lambda s, x: (lambda y: s.b(torch.cat([y[:, 8:24], y[:, :8], y[:, 24:]], 1)))(s.a(x)),
        "",
        a=lambda: C(3, 32),
        b=lambda: C(32, 8),
    ),
    "slice of half of its shape": net(
        lambda s, x: (lambda y: s.b(y[:, : y.shape[1] // 2]) + s.c(y[:, y.shape[1] // 2 :]))(s.a(x)),
        "a b c",
        a=lambda: C(3, 32),
        b=lambda: C(16, 8),
        c=lambda: C(16, 8),
    ),
    "slice to minus one": net(lambda s, x: s.b(s.a(x)[:, :-1]), "", a=lambda: C(3, 17), b=lambda: C(16, 8)),
    "slice from minus four": net(lambda s, x: s.b(s.a(x)[:, -4:]), "", a=lambda: C(3, 16), b=lambda: C(4, 8)),
    "slice to minus half": net(
        lambda s, x: (lambda y: s.b(y[:, : -(y.shape[1] // 2)]))(s.a(x)), "", a=lambda: C(3, 32), b=lambda: C(16, 8)
    ),
    "view of two by eight": between(lambda t: t.view(2, 2, 8, 8, 8).flip(1).reshape(2, 16, 8, 8), ""),
    "view of two by the rest": between(lambda t: t.view(2, 2, -1, 8, 8).flip(1).reshape(2, -1, 8, 8), ""),
    "channels into the batch": between(lambda t: F.avg_pool2d(t.view(-1, 1, 8, 8), 3, 1, 1).view(2, -1, 8, 8)),
    "channels into the batch, normalized": between(
        lambda t: F.batch_norm(t.reshape(1, -1, 8, 8), None, None, training=True).view(t.shape)
    ),
    "channels into the batch, a conv over each": net(
        lambda s, x: (lambda y: s.b(s.m(y.reshape(-1, 1, 8, 8)).view(y.shape)))(s.a(x)),
        "a b",
        a=lambda: C(3, 16),
        m=lambda: C(1, 1),
        b=lambda: C(16, 8),
    ),
    "channels merged with width": net(
        lambda s, x: s.b(s.a(x).permute(0, 2, 3, 1).flatten(2)), "a b", a=lambda: C(3, 16), b=lambda: L(128, 4)
    ),
    "channels merged with width, reduced": between(
        lambda t: t * t.permute(0, 2, 1, 3).flatten(2).amax(-1).view(2, 1, 8, 1)
    ),
    "all merged, summed": net(
        lambda s, x: s.a(x).flatten(1).sum(1, keepdim=True) + s.b(x).flatten(1).mean(1, keepdim=True),
        "a b",
        a=lambda: C(3, 16),
        b=lambda: C(3, 12),
    ),
    "the output is an inner feature too": net(
        lambda s, x: (lambda y: (s.c(F.relu(s.b(y))), y))(s.a(x)),
        "b c",
        a=lambda: C(3, 16),
        b=lambda: C(16, 16),
        c=lambda: C(16, 8),
    ),
    "the output is a view of an inner feature": net(
        lambda s, x: (lambda y: {"out": s.b(y), "aux": [y.mean((2, 3))[:, :4]]})(s.a(x)),
        "",
        a=lambda: C(3, 16),
        b=lambda: C(16, 8),
    ),
    "a mean of channels is an output": net(
        lambda s, x: (lambda y: (s.b(y), y.mean(1)))(s.a(x)), "a b", a=lambda: C(3, 16), b=lambda: C(16, 8)
    ),
    "a sum over a product is an output": net(
        lambda s, x: (s.a(x) * s.b(x)).sum(1), "a b", a=lambda: C(3, 16), b=lambda: C(3, 16)
    ),
    "a constant network": net(lambda s, x: s.a.weight.sum() + x.sum(), "", a=lambda: C(3, 16)),
    "a weight is an output": net(lambda s, x: (s.b(s.a(x)), s.a.weight), "", a=lambda: C(3, 16), b=lambda: C(16, 8)),
    "a norm of a weight is an output": net(
        lambda s, x: (s.b(s.a(x)), s.a.weight.norm()), "a b", a=lambda: C(3, 16), b=lambda: C(16, 8)
    ),
    "two layers with one name each, one weight": net(
        lambda s, x: F.conv2d(F.relu(s.a(x)), s.a.weight.transpose(0, 1), padding=1),
        "a",
        a=lambda: C(3, 16),
    ),
    "tied transposed (autoencoder)": net(
        lambda s, x: F.linear(F.relu(s.a(x)), s.a.weight.t()), "a", tokens, a=lambda: L(8, 16)
    ),
    "conv to its own transpose": net(
        lambda s, x: F.conv_transpose2d(F.relu(s.a(x)), s.a.weight, padding=1), "a", a=lambda: C(3, 16)
    ),
    "convolution by features (dynamic)": net(
        lambda s, x: F.conv2d(s.a(x).view(1, -1, 8, 8), s.k(x.mean((2, 3))).view(-1, 1, 3, 3), groups=32).view(
            2, 16, 6, 6
        ),
        "",
        a=lambda: C(3, 16),
        k=lambda: L(3, 16 * 9),
    ),
    "features as weights": net(
        lambda s, x: torch.einsum("bnc,bmc->bnm", s.a(x), s.b(x)).softmax(-1),
        "a b",
        tokens,
        a=lambda: L(8, 16),
        b=lambda: L(8, 16),
    ),
    "a buffer that is written": net(
        lambda s, x: s.b(_counted(s, s.a(x))), "a b", a=lambda: C(3, 16), b=lambda: C(16, 8)
    ),
    "a cumulative layer": net(
        lambda s, x: s.b(torch.cummax(s.a(x), 1)[0]), "a b", tokens, a=lambda: L(8, 16), b=lambda: L(16, 4)
    ),
    "where with a literal mask": between(lambda t: torch.where(torch.arange(16).view(1, 16, 1, 1) < 4, t, -t), ""),
    "dropout of channels by literal": between(lambda t: t * torch.ones(16, 1, 1, dtype=t.dtype), ""),
    "scaled by a list": between(lambda t: t * torch.tensor([0.5] * 16, dtype=t.dtype).view(-1, 1, 1), ""),
    "channel 0 and the rest": net(
        lambda s, x: (lambda y: s.b(torch.cat([y[:, :1] * 2, y[:, 1:]], 1)))(s.a(x)),
        "",
        a=lambda: C(3, 16),
        b=lambda: C(16, 8),
    ),
    "space as channels": net(
        lambda s, x: s.b(s.a(x).transpose(1, 2)), "", a=lambda: C(3, 16), b=lambda: nn.Conv2d(8, 4, (1, 1))
    ),
    "channels as width": net(lambda s, x: s.b(s.a(x).permute(0, 2, 3, 1)), "", a=lambda: C(3, 16), b=lambda: C(8, 4)),
    "diagonal": net(
        lambda s, x: s.b(torch.diagonal(s.a(x), dim1=2, dim2=3).unsqueeze(-1)),
        "",
        a=lambda: C(3, 16),
        b=lambda: C(16, 8),
    ),
    "diag_embed": net(
        lambda s, x: s.b(torch.diag_embed(s.a(x)).sum(-1)), "", tokens, a=lambda: L(8, 16), b=lambda: L(16, 4)
    ),
    "kron": net(
        lambda s, x: s.b(x @ torch.kron(s.w, s.v)),
        "",
        tokens,
        w=lambda: nn.Parameter(torch.randn(4, 4)),
        v=lambda: nn.Parameter(torch.randn(2, 4)),
        b=lambda: L(16, 4),
    ),
    "inverse": net(
        lambda s, x: s.b(s.a(x) @ torch.linalg.inv(s.w + 4 * torch.eye(8, dtype=x.dtype))),
        "",
        tokens,
        a=lambda: L(8, 8),
        w=lambda: nn.Parameter(torch.randn(8, 8) * 0.1),
        b=lambda: L(8, 4),
    ),
    "orthogonal projection": net(
        lambda s, x: (lambda y: s.b(y - (y @ s.w)[..., None] * s.w))(s.a(x)),
        "a b w",
        tokens,
        a=lambda: L(8, 16),
        w=lambda: nn.Parameter(torch.randn(16)),
        b=lambda: L(16, 4),
    ),
    "two batches of different use": net(
        lambda s, x: torch.cat([s.b(s.a(x[:1])), s.c(s.a(x[1:]))]),
        "a b c",
        a=lambda: C(3, 16),
        b=lambda: C(16, 8),
        c=lambda: C(16, 8),
    ),
    "recursion over a list": net(
        lambda s, x: s.b(sum(m(x) for m in s.ms)),
        "ms.0 ms.1 b",
        ms=lambda: nn.ModuleList(C(3, 16) for _ in range(2)),
        b=lambda: C(16, 8),
    ),
    "parameters in a ParameterList": net(
        lambda s, x: s.b(sum((x @ p) for p in s.ps)),
        "ps.0 ps.1 b",
        tokens,
        ps=lambda: nn.ParameterList(nn.Parameter(torch.randn(8, 16)) for _ in range(2)),
        b=lambda: L(16, 4),
    ),
    "experts stacked at every call": net(
        lambda s, x: s.b(torch.einsum("bni,eio->bno", x, torch.stack([m.weight.T for m in s.ms]))),
        "ms.0 ms.1 b",
        tokens,
        ms=lambda: nn.ModuleList(L(8, 16, bias=False) for _ in range(2)),
        b=lambda: L(16, 4),
    ),
    "conditional convolution": net(
        lambda s, x: s.b(
            F.conv2d(s.i(x), (s.r(x.mean((0, 2, 3))).softmax(0).view(2, 1, 1, 1, 1) * s.w).sum(0), padding=1)
        ),
        "i b w",
        i=lambda: C(3, 16),
        r=lambda: L(3, 2),
        w=lambda: nn.Parameter(torch.randn(2, 16, 16, 3, 3) * 0.1),
        b=lambda: C(16, 8),
    ),
    "style modulation": net(
        lambda s, x: s.b(_modulated(s.i(x), s.w, s.style(x.mean((2, 3))))),
        "i style w b",
        i=lambda: C(3, 16),
        style=lambda: L(3, 16),
        w=lambda: nn.Parameter(torch.randn(16, 16, 3, 3) * 0.1),
        b=lambda: C(16, 8),
    ),
    "mixed kernels": net(
        lambda s, x: s.b(_mixed_kernels(s, s.a(x)).relu()),
        "w b",
        a=lambda: C(3, 16),
        route=lambda: L(16, 3),
        w=lambda: nn.Parameter(torch.randn(3, 24, 16, 3, 3) * 0.1),
        b=lambda: C(24, 8),
    ),
    "kernels of a layer, per sample": net(lambda s, x: s.b(_made_kernels(s, s.a(x), len(x)).relu()), "h b", **KERNELS),
    "kernels of a layer": net(lambda s, x: s.b(_made_kernels(s, s.a(x), 1).relu()), "h b", **KERNELS),
    "kernels of a layer, in groups": net(
        lambda s, x: s.b(_made_kernels(s, s.a(x), 1, 4).relu()),
        "h",
        **(KERNELS | {"i": lambda: 4, "h": lambda: L(3, 24 * 4 * 9)}),
    ),
    "FiLM": net(
        lambda s, x: (lambda y, gb: s.b(y * gb[0][..., None, None] + gb[1][..., None, None]))(
            s.a(x), s.f(x.mean((2, 3))).chunk(2, 1)
        ),
        "a f b",
        a=lambda: C(3, 16),
        f=lambda: L(3, 32),
        b=lambda: C(16, 8),
    ),
    "adaptive instance norm": net(
        lambda s, x: (
            lambda y, g: s.b(
                F.instance_norm(y) * g.view(2, 2, -1)[:, 0, :, None, None] + g.view(2, 2, -1)[:, 1, :, None, None]
            )
        )(s.a(x), s.f(x.mean((2, 3)))),
        "a b",
        a=lambda: C(3, 16),
        f=lambda: L(3, 32),
        b=lambda: C(16, 8),
    ),
    "vector quantization": net(
        lambda s, x: (lambda y: s.b(s.e(torch.cdist(y, s.e.weight[None]).argmin(-1)) + y))(s.a(x)),
        "",
        tokens,
        a=lambda: L(8, 16),
        e=lambda: nn.Embedding(6, 16),
        b=lambda: L(16, 4),
    ),
    "vector quantization, distances written out": net(
        lambda s, x: (
            lambda y: s.b(
                s.e((y.pow(2).sum(-1, keepdim=True) - 2 * y @ s.e.weight.t() + s.e.weight.pow(2).sum(1)).argmin(-1)) + y
            )
        )(s.a(x)),
        "a e b",
        tokens,
        a=lambda: L(8, 16),
        e=lambda: nn.Embedding(6, 16),
        b=lambda: L(16, 4),
    ),
    "slot attention step": net(
        lambda s, x: (lambda k, v: s.o(torch.einsum("bnm,bnd->bmd", (k @ s.slots.T).softmax(-1), v)))(s.k(x), s.v(x)),
        "k v o",
        tokens,
        k=lambda: L(8, 16),
        v=lambda: L(8, 12),
        slots=lambda: nn.Parameter(torch.randn(3, 16)),
        o=lambda: L(12, 4),
    ),
    "hypercolumns": net(
        lambda s, x: (
            lambda a: (lambda b: s.o(torch.cat([a, F.interpolate(b, a.shape[2:])], 1)))(s.b(F.max_pool2d(a, 2)))
        )(s.a(x)),
        "a b o",
        a=lambda: C(3, 16),
        b=lambda: C(16, 24),
        o=lambda: C(40, 8),
    ),
    "correlation": net(
        lambda s, x: s.o((s.a(x).unsqueeze(2) * s.b(x).unsqueeze(3).transpose(2, 3)[:, :, :1]).mean(1)),
        "a b",
        a=lambda: C(3, 16),
        b=lambda: C(3, 16),
        o=lambda: nn.Identity(),
    ),
    "conv over tokens": net(
        lambda s, x: s.b(s.m(s.a(x).transpose(1, 2)).transpose(1, 2)),
        "a m b",
        tokens,
        a=lambda: L(8, 16),
        m=lambda: nn.Conv1d(16, 16, 3, padding=1, groups=16),
        b=lambda: L(16, 4),
    ),
    "shift of space per group (shift conv)": net(
        lambda s, x: s.b(_shift(s.a(x))), "", a=lambda: C(3, 16), b=lambda: C(16, 8, 1)
    ),
    "temporal shift": net(
        lambda s, x: s.b(_temporal(s.a(x))), "", lambda: image(4, 3, 8, 8), a=lambda: C(3, 16), b=lambda: C(16, 8, 1)
    ),
}


def _counted(s: nn.Module, t: torch.Tensor) -> torch.Tensor:
    s.last = t.detach()  # a cache that a forward pass leaves behind
    return t


def _modulated(x: torch.Tensor, w: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
    """StyleGAN2's convolution: a weight per sample, by groups."""
    b, c, h, width = x.shape
    w = w[None] * style[:, None, :, None, None]
    w = w * torch.rsqrt(w.square().sum((2, 3, 4), keepdim=True) + 1e-8)
    x = F.conv2d(x.reshape(1, b * c, h, width), w.view(b * w.shape[1], c, 3, 3), padding=1, groups=b)
    return x.view(b, -1, h, width)


def _mixed_kernels(s: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """CondConv's and DynamicConv's: a kernel per sample, mixed of several that are kept as one parameter."""
    b, c, h, width = x.shape
    share = s.route(x.mean((2, 3))).sigmoid()
    w = torch.mm(share, s.w.view(len(s.w), -1)).view(b * s.w.shape[1], c, 3, 3)
    x = F.conv2d(x.reshape(1, b * c, h, width), w, padding=1, groups=b)
    return x.view(b, -1, h, width)


def _made_kernels(s: nn.Module, x: torch.Tensor, samples: int, groups: int = 1) -> torch.Tensor:
    """A hypernetwork's: a kernel for each of so many samples, or one for all."""
    b, c, h, width = x.shape
    w = s.h(x.mean((2, 3))[:, : s.z])
    w = (w if samples > 1 else w.mean(0)).view(samples * s.o, s.i, 3, 3)
    x = F.conv2d(x.reshape(b // samples, samples * c, h, width), w, padding=1, groups=samples * groups)
    return x.view(b, -1, h, width)


def _shift(t: torch.Tensor) -> torch.Tensor:
    g = t.shape[1] // 4
    out = torch.zeros_like(t)
    out[:, :g, 1:] = t[:, :g, :-1]
    out[:, g : 2 * g, :-1] = t[:, g : 2 * g, 1:]
    out[:, 2 * g :] = t[:, 2 * g :]
    return out


def _temporal(t: torch.Tensor) -> torch.Tensor:
    x = t.view(2, 2, *t.shape[1:])
    fold = x.shape[2] // 4
    out = torch.zeros_like(x)
    out[:, :-1, :fold] = x[:, 1:, :fold]
    out[:, 1:, fold : 2 * fold] = x[:, :-1, fold : 2 * fold]
    out[:, :, 2 * fold :] = x[:, :, 2 * fold :]
    return out.view_as(t)
