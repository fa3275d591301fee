"""More small networks of many kinds, and single operations between two layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from judge import Build, between, conv, image, module_between, net, of, tokens
from torch import nn

L, C = nn.Linear, conv


def two(fn: Callable[..., Any], must: str = "a b c", **make: Callable[[], nn.Module]) -> Build:
    return net(fn, must, image, a=lambda: C(3, 16), b=lambda: C(3, 16), c=lambda: C(16, 8), **make)


class LSTMLike(nn.Module):
    """gates of one linear layer, by chunk, over time"""

    def __init__(s) -> None:
        super().__init__()
        s.hidden = 16
        s.x2h, s.h2h, s.o = L(8, 64), L(16, 64), L(16, 4)

    def forward(s, x: Any) -> Any:
        h = c = x.new_zeros(x.shape[0], s.hidden)
        for t in range(x.shape[1]):
            i, f, g, o = (s.x2h(x[:, t]) + s.h2h(h)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return s.o(h)


class ConvLSTMInit(nn.Module):
    def __init__(s) -> None:
        super().__init__()
        s.a, s.hh, s.b = C(3, 16), C(16, 16), C(16, 4)
        s.h0 = nn.Parameter(torch.randn(1, 16, 1, 1))

    def forward(s, x: Any) -> Any:
        h = s.h0.expand(x.shape[0], -1, 8, 8)
        return s.b(torch.tanh(s.a(x) + s.hh(h)))


class Prompt(nn.Module):
    """repeat of a parameter over the batch"""

    def __init__(s) -> None:
        super().__init__()
        s.a, s.p, s.b = L(8, 16), nn.Parameter(torch.randn(2, 16)), L(16, 4)

    def forward(s, x: Any) -> Any:
        return s.b(torch.cat([s.p.unsqueeze(0).repeat(x.shape[0], 1, 1), s.a(x)], 1))


class Cell(nn.Module):
    """states = list; sum(states) ; darts"""

    def __init__(s) -> None:
        super().__init__()
        s.p0, s.p1 = C(3, 8), C(3, 8)
        s.ops = nn.ModuleList([C(8, 8), nn.MaxPool2d(3, 1, 1), nn.Identity(), C(8, 8, groups=8)])
        s.o = C(16, 4)
        s.alpha = nn.Parameter(torch.randn(4))

    def forward(s, x: Any) -> Any:
        st = [s.p0(x), s.p1(x)]
        w = s.alpha.softmax(0)
        st.append(sum(wi * op(st[0]) for wi, op in zip(w, s.ops, strict=False)))
        st.append(sum(wi * op(st[1]) for wi, op in zip(w, s.ops, strict=False)))
        return s.o(torch.cat(st[-2:], 1))


class BNfold(nn.Module):
    def __init__(s) -> None:
        super().__init__()
        s.bn = nn.BatchNorm2d(16)
        s.a, s.b = C(3, 16), C(16, 8)

    def forward(s, x: Any) -> Any:
        return s.b(F.batch_norm(s.a(x), s.bn.running_mean, s.bn.running_var, s.bn.weight, s.bn.bias, False))


class ActNorm(nn.Module):
    def __init__(s) -> None:
        super().__init__()
        s.a, s.b = C(3, 16), C(16, 8)
        s.loc, s.scale = nn.Parameter(torch.zeros(1, 16, 1, 1)), nn.Parameter(torch.ones(1, 16, 1, 1))
        s.register_buffer("init", torch.tensor(1))

    def forward(s, x: Any) -> Any:
        y = s.a(x)
        if s.init.item() == 0:
            s.loc.data.copy_(y.mean((0, 2, 3), keepdim=True))
        return s.b(s.scale * (y + s.loc))


class FrozenBN(nn.Module):
    def __init__(s) -> None:
        super().__init__()
        s.a, s.b = C(3, 16), C(16, 8)
        for n in ("weight", "bias", "running_mean", "running_var"):
            s.register_buffer(n, torch.rand(16) + 0.5)

    def forward(s, x: Any) -> Any:
        w, b, rv, rm = (getattr(s, n).reshape(1, -1, 1, 1) for n in ("weight", "bias", "running_var", "running_mean"))
        scale = w * (rv + 1e-5).rsqrt()
        return s.b(s.a(x) * scale + (b - rm * scale))


class RepVGG(nn.Module):
    def __init__(s) -> None:
        super().__init__()
        s.i = C(3, 16)
        s.d, s.o, s.id = (
            nn.Sequential(C(16, 16), nn.BatchNorm2d(16)),
            nn.Sequential(C(16, 16, 1), nn.BatchNorm2d(16)),
            nn.BatchNorm2d(16),
        )
        s.h = C(16, 4)

    def forward(s, x: Any) -> Any:
        x = s.i(x)
        return s.h(F.relu(s.d(x) + s.o(x) + s.id(x)))


class HRFuse(nn.Module):
    def __init__(s) -> None:
        super().__init__()
        s.hi, s.lo = C(3, 8), C(3, 16, stride=2)
        s.d, s.u = C(8, 16, stride=2), nn.Conv2d(16, 8, 1)
        s.o1, s.o2 = C(8, 4), C(16, 4)

    def forward(s, x: Any) -> Any:
        h, low = s.hi(x), s.lo(x)
        return s.o1(F.relu(h + F.interpolate(s.u(low), scale_factor=2, mode="bilinear", align_corners=True))), s.o2(
            F.relu(low + s.d(h))
        )


class Transducer(nn.Module):
    """joint network: broadcast add over time and label"""

    def __init__(s) -> None:
        super().__init__()
        s.e, s.d, s.j = L(8, 16), L(8, 16), L(16, 5)

    def forward(s, x: Any, y: Any) -> Any:
        return s.j(torch.tanh(s.e(x)[:, :, None] + s.d(y)[:, None])).log_softmax(-1)


class SiLUgateConv(nn.Module):
    """conformer conv module"""

    def __init__(s) -> None:
        super().__init__()
        s.i = L(8, 16)
        s.ln = nn.LayerNorm(16)
        s.p1, s.dw, s.bn, s.p2 = (
            nn.Conv1d(16, 32, 1),
            nn.Conv1d(16, 16, 3, padding=1, groups=16),
            nn.BatchNorm1d(16),
            nn.Conv1d(16, 16, 1),
        )
        s.o = L(16, 4)

    def forward(s, x: Any) -> Any:
        x = s.i(x)
        y = s.ln(x).transpose(1, 2)
        y = F.glu(s.p1(y), 1)
        y = s.p2(F.silu(s.bn(s.dw(y)))).transpose(1, 2)
        return s.o(x + y)


class FocalMod(nn.Module):
    def __init__(s) -> None:
        super().__init__()
        s.dim = 16
        s.i = L(8, 16)
        s.f = L(16, 2 * 16 + 3)
        s.l = nn.ModuleList(C(16, 16, 3, groups=16) for _ in range(2))
        s.h = C(16, 16, 1)
        s.p, s.o = L(16, 16), L(16, 4)
        s.focal_level = 2

    def forward(s, x: Any) -> Any:
        x = s.i(x)
        c = x.shape[-1]
        y = s.f(x).permute(0, 3, 1, 2)
        q, ctx, g = torch.split(y, (c, c, s.focal_level + 1), 1)
        a = 0
        for i in range(s.focal_level):
            ctx = F.gelu(s.l[i](ctx))
            a = a + ctx * g[:, i : i + 1]
        a = a + F.gelu(ctx.mean((2, 3), keepdim=True)) * g[:, s.focal_level :]
        return s.o(s.p((q * s.h(a)).permute(0, 2, 3, 1)))


class Deform(nn.Module):
    """offsets by conv → grid_sample"""

    def __init__(s) -> None:
        super().__init__()
        s.a, s.off, s.b = C(3, 16), C(16, 2), C(16, 4)

    def forward(s, x: Any) -> Any:
        y = s.a(x)
        g = s.off(y).permute(0, 2, 3, 1).tanh()
        return s.b(F.grid_sample(y, g, align_corners=False))


class Hyena(nn.Module):
    """FFT conv over time"""

    def __init__(s) -> None:
        super().__init__()
        s.i = L(8, 16)
        s.k = nn.Parameter(torch.randn(16, 5))
        s.o = L(16, 4)

    def forward(s, x: Any) -> Any:
        u = s.i(x).transpose(1, 2)
        n = u.shape[-1]
        y = torch.fft.irfft(torch.fft.rfft(u, n=2 * n) * torch.fft.rfft(s.k, n=2 * n), n=2 * n)[..., :n]
        return s.o(y.transpose(1, 2))


class Performer(nn.Module):
    """random features in a buffer"""

    def __init__(s) -> None:
        super().__init__()
        s.i, s.q, s.k, s.v, s.o = L(8, 16), L(16, 16), L(16, 16), L(16, 16), L(16, 4)
        s.register_buffer("w", torch.randn(16, 6))

    def forward(s, x: Any) -> Any:
        x = s.i(x)
        q, k = ((p(x) @ s.w).relu() + 1e-3 for p in (s.q, s.k))
        return s.o((q @ (k.transpose(1, 2) @ s.v(x))) / (q @ k.sum(1)[..., None]))


class NearestUp(nn.Module):
    def __init__(s) -> None:
        super().__init__()
        s.a, s.b = C(3, 16), C(16, 4)

    def forward(s, x: Any) -> Any:
        y = s.a(x)
        b, c, h, w = y.shape
        return s.b(y[:, :, :, None, :, None].expand(b, c, h, 2, w, 2).reshape(b, c, h * 2, w * 2))


class Haar(nn.Module):
    """wavelet: buffer filters repeated per channel, grouped conv by size"""

    def __init__(s) -> None:
        super().__init__()
        s.a, s.b = C(3, 8), C(32, 4)
        s.register_buffer("f", torch.randn(4, 1, 2, 2))

    def forward(s, x: Any) -> Any:
        y = s.a(x)
        c = y.shape[1]
        return s.b(F.conv2d(y, s.f.repeat(c, 1, 1, 1), stride=2, groups=c))


class Blur(nn.Module):
    """antialiased pooling: a buffer expanded per channel"""

    def __init__(s) -> None:
        super().__init__()
        s.a, s.b = C(3, 16), C(16, 4)
        s.register_buffer("k", torch.rand(1, 1, 3, 3))

    def forward(s, x: Any) -> Any:
        y = s.a(x)
        return s.b(F.conv2d(y, s.k.expand(y.shape[1], -1, -1, -1), padding=1, stride=2, groups=y.shape[1]))


class BlurStored(nn.Module):
    def __init__(s) -> None:
        super().__init__()
        s.channels = 16
        s.a, s.b = C(3, 16), C(16, 4)
        s.register_buffer("filt", torch.rand(1, 1, 3, 3).repeat(16, 1, 1, 1))

    def forward(s, x: Any) -> Any:
        return s.b(F.conv2d(F.pad(s.a(x), (1, 1, 1, 1), mode="reflect"), s.filt, stride=2, groups=s.channels))


class SimAM(nn.Module):
    def __init__(s) -> None:
        super().__init__()
        s.a, s.b = C(3, 16), C(16, 4)

    def forward(s, x: Any) -> Any:
        x = s.a(x)
        _b, _c, h, w = x.size()
        n = w * h - 1
        d = (x - x.mean((2, 3), keepdim=True)).pow(2)
        y = d / (4 * (d.sum((2, 3), keepdim=True) / n + 1e-4)) + 0.5
        return s.b(x * torch.sigmoid(y))


class Triplet(nn.Module):
    """attention over (C,H) planes: channels as space"""

    def __init__(s) -> None:
        super().__init__()
        s.a, s.b = C(3, 16), C(16, 4)
        s.c = C(2, 1, 3)

    def forward(s, x: Any) -> Any:
        x = s.a(x)
        p = x.permute(0, 2, 1, 3).contiguous()
        z = torch.cat([p.max(1, keepdim=True)[0], p.mean(1, keepdim=True)], 1)
        return s.b(x + (p * s.c(z).sigmoid()).permute(0, 2, 1, 3))


class GC(nn.Module):
    """global context"""

    def __init__(s) -> None:
        super().__init__()
        s.a, s.m, s.t1, s.n, s.t2, s.b = (
            C(3, 16),
            C(16, 1, 1),
            C(16, 8, 1),
            nn.LayerNorm([8, 1, 1]),
            C(8, 16, 1),
            C(16, 4),
        )

    def forward(s, x: Any) -> Any:
        x = s.a(x)
        b, c, h, w = x.size()
        i = x.view(b, c, h * w).unsqueeze(1)
        k = s.m(x).view(b, 1, h * w).softmax(2).unsqueeze(-1)
        ctx = torch.matmul(i, k).view(b, c, 1, 1)
        return s.b(x + s.t2(F.relu(s.n(s.t1(ctx)))))


class A2(nn.Module):
    """double attention"""

    def __init__(s) -> None:
        super().__init__()
        s.i, s.A, s.B, s.V, s.p, s.o = C(3, 16), C(16, 12, 1), C(16, 8, 1), C(16, 8, 1), C(12, 16, 1), C(16, 4)

    def forward(s, x: Any) -> Any:
        x = s.i(x)
        b, _c, h, w = x.shape
        A = s.A(x).view(b, -1, h * w)
        B = s.B(x).view(b, -1, h * w).softmax(-1)
        V = s.V(x).view(b, -1, h * w).softmax(1)
        z = (A @ B.transpose(1, 2)) @ V
        return s.o(x + s.p(z.view(b, -1, h, w)))


class NTM(nn.Module):
    def __init__(s) -> None:
        super().__init__()
        s.k = L(8, 16)
        s.M = nn.Parameter(torch.randn(6, 16))
        s.o = L(16, 4)

    def forward(s, x: Any) -> Any:
        k = s.k(x)
        return s.o(F.cosine_similarity(k[..., None, :], s.M, dim=-1).softmax(-1) @ s.M)


class MoETop(nn.Module):
    def __init__(s) -> None:
        super().__init__()
        s.i, s.g = L(8, 16), L(16, 3)
        s.w1, s.w2 = nn.Parameter(torch.randn(3, 16, 24)), nn.Parameter(torch.randn(3, 24, 16))
        s.o = L(16, 4)

    def forward(s, x: Any) -> Any:
        x = s.i(x)
        v, i = s.g(x).softmax(-1).topk(2, -1)
        h = torch.stack([F.silu(x @ s.w1[e]) @ s.w2[e] for e in range(3)], -2)
        return s.o((h.gather(-2, i[..., None].expand(*i.shape, h.shape[-1])) * v[..., None]).sum(-2))


def wr(t: torch.Tensor) -> torch.Tensor:
    y = t.clone()
    y[..., 0] = 0
    y[:, :, 1:3] = y[:, :, 3:5]
    y[:1] *= 2
    return y


PATTERNS: dict[str, Build] = {
    "channel dropout": module_between(lambda: nn.Dropout2d(0.5)),
    "feature alpha dropout": module_between(lambda: nn.FeatureAlphaDropout(0.5)),
    "circular padding, uneven": between(lambda t: F.pad(t, (2, 1, 0, 3), mode="circular")),
    "lstm by hand": of(LSTMLike, "x2h h2h o", tokens),
    "h0": of(ConvLSTMInit, "a hh b"),
    "prompt": of(Prompt, "a b p", tokens),
    "darts": of(Cell, "p0 p1 o"),
    "bn f": of(BNfold, "a b"),
    "actnorm": of(ActNorm, "a b"),
    "frozen bn": of(FrozenBN, "a b"),
    "repvgg": of(RepVGG, "i h"),
    "hrnet": of(HRFuse, "hi lo d u o1 o2"),
    "transducer": of(Transducer, "e d", lambda: (tokens(2, 5, 8), tokens(2, 3, 8))),
    "conformer": of(SiLUgateConv, "i p1 p2 o", tokens),
    "focal": of(FocalMod, "i o", lambda: image(2, 6, 6, 8)),
    "deform": of(Deform, "a b"),
    "hyena": of(Hyena, "", tokens),
    "performer": of(Performer, "i v o", tokens),
    "nearest up": of(NearestUp, "a b"),
    "haar": of(Haar, ""),
    "blur": of(Blur, "a b"),
    "blur stored": of(BlurStored, "a b"),
    "simam": of(SimAM, "a b"),
    "triplet": of(Triplet, ""),
    "gc": of(GC, "a t1 t2 b"),
    "a2": of(A2, "i A p o"),
    "ntm": of(NTM, "o", tokens),
    "moe top": of(MoETop, "i w1 w2 o", tokens),
    "bool mask": two(lambda s, x: s.c(torch.where(s.a(x) > 0, s.a(x), s.b(x)))),
    "detach": two(lambda s, x: s.c(s.a(x) + s.b(x).detach())),
    "cat list comp": two(lambda s, x: s.c(torch.cat([m(x)[:, :8] for m in (s.a, s.b)], 1)), ""),
    "chunks tie": two(
        lambda s, x: (lambda u, v: s.c(torch.cat([u[0] + v[1], u[1] + v[0]], 1)))(
            s.a(x).chunk(2, 1), s.b(x).chunk(2, 1)
        )
    ),
    "hstack": two(lambda s, x: s.d(torch.hstack([s.a(x), s.b(x)])), "a b d", d=lambda: C(32, 4)),
    "dstack": two(lambda s, x: s.c(torch.stack([s.a(x), s.b(x)]).mean(0))),
    "unbind": between(lambda t: torch.stack(t.unbind(1), 1), ""),
    "swapaxes": between(lambda t: t.swapaxes(1, 2).swapaxes(1, 2)),
    "einsum ident": between(lambda t: torch.einsum("bchw->bhwc", t).permute(0, 3, 1, 2)),
    "tensordot": net(
        lambda s, x: torch.tensordot(s.a(x), s.w, dims=([1], [0])),
        "a w",
        image,
        a=lambda: C(3, 16),
        w=lambda: nn.Parameter(torch.randn(16, 4)),
    ),
    "flatten unflatten": between(lambda t: t.flatten(1, 2).unflatten(1, (-1, 8))),
    "unflatten lit": between(lambda t: t.flatten(1, 2).unflatten(1, (16, 8)), ""),
    "cumprod": between(lambda t: t.cumprod(3)),
    "norm dims": between(lambda t: t / t.norm(dim=(2, 3), keepdim=True)),
    "vector_norm p1": between(lambda t: t / (1 + t.norm(p=1, dim=1, keepdim=True))),
    "norm p3": between(lambda t: t / (1 + t.norm(p=3, dim=1, keepdim=True)), ""),
    "norm inf": between(lambda t: t / (1 + t.norm(p=float("inf"), dim=1, keepdim=True)), ""),
    "gumbel": between(lambda t: (t / 0.5).softmax(1)),
    "quantile": between(lambda t: t - t.quantile(0.5, dim=1, keepdim=True), ""),
    "count nonzero": between(lambda t: t * (t > 0).sum(1, keepdim=True)),
    "any": between(lambda t: t * (t > 0).any(1, keepdim=True), ""),
    "batch matmul self": between(
        lambda t: (t.flatten(2) @ (t.flatten(2).transpose(1, 2) @ t.flatten(2))).view(t.shape)
    ),
    "amp cast": between(lambda t: t.to(torch.float64).to(t.dtype)),
    "clone slice assign": between(lambda t: wr(t)),
    "index_fill": between(lambda t: t.index_fill(2, torch.tensor([0]), 0.0)),
    "masked scatter": between(lambda t: t.masked_scatter(t < 0, torch.zeros_like(t)), ""),
    "nan_to_num": between(lambda t: torch.nan_to_num(t)),
    "renorm": between(lambda t: t.renorm(2, 0, 1.0), ""),
    "pdist-ish": net(
        lambda s, x: s.b(((s.a(x)[:, :, None] - s.a(x)[:, None]) ** 2).sum(-1)),
        "a",
        tokens,
        a=lambda: L(8, 16),
        b=lambda: L(5, 4),
    ),
}
