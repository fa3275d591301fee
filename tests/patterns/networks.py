"""Small networks of many kinds, as they are written in the wild."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from attention import Attention
from attention import between as ab
from judge import Build, conv, image, of, tokens
from torch import nn

L, C = nn.Linear, conv


class DimOver(nn.Module):
    def __init__(s) -> None:
        super().__init__()
        s.dim, s.num_heads = 32, 4
        s.qkv, s.proj = L(32, 96), L(32, 32)

    def forward(s, x: Any) -> Any:
        B, N, _ = x.shape
        q, k, v = s.qkv(x).reshape(B, N, 3, s.num_heads, s.dim // s.num_heads).permute(2, 0, 3, 1, 4)
        a = (q @ k.transpose(-2, -1) * (s.dim // s.num_heads) ** -0.5).softmax(-1)
        return s.proj((a @ v).transpose(1, 2).reshape(B, N, s.dim))


class MinusOne(nn.Module):
    def __init__(s) -> None:
        super().__init__()
        s.num_heads = 4
        s.qkv, s.proj = L(32, 96), L(32, 32)

    def forward(s, x: Any) -> Any:
        B, N, _Cc = x.shape
        q, k, v = s.qkv(x).reshape(B, N, 3, s.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        return s.proj(y.transpose(1, 2).flatten(-2))


class Bert(nn.Module):
    """transformers' BERT self attention."""

    def __init__(s) -> None:
        super().__init__()
        s.num_attention_heads = 4
        s.attention_head_size = 8
        s.all_head_size = 32
        s.query, s.key, s.value, s.dense = L(32, 32), L(32, 32), L(32, 32), L(32, 32)
        s.LayerNorm = nn.LayerNorm(32)

    def t(s, x: Any) -> Any:
        x = x.view(x.size()[:-1] + (s.num_attention_heads, s.attention_head_size))
        return x.permute(0, 2, 1, 3)

    def forward(s, h: Any) -> Any:
        q, k, v = s.t(s.query(h)), s.t(s.key(h)), s.t(s.value(h))
        a = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(s.attention_head_size)
        c = torch.matmul(F.softmax(a, -1), v).permute(0, 2, 1, 3).contiguous()
        c = c.view(c.size()[:-2] + (s.all_head_size,))
        return s.LayerNorm(s.dense(c) + h)


class T5Bias(Bert):
    def __init__(s) -> None:
        super().__init__()
        s.bias = nn.Embedding(9, 4)

    def forward(s, h: Any) -> Any:
        q, k, v = s.t(s.query(h)), s.t(s.key(h)), s.t(s.value(h))
        n = h.shape[1]
        p = torch.arange(n)
        b = s.bias(p[:, None] - p[None] + 4).permute(2, 0, 1).unsqueeze(0)
        c = (
            ((q @ k.transpose(3, 2) + b).softmax(-1) @ v)
            .transpose(1, 2)
            .contiguous()
            .view(h.shape[0], -1, s.all_head_size)
        )
        return s.dense(c)


class KVCache(Attention):
    def forward(self, x: Any) -> Any:
        q, k, v = self.qkv(x)
        outs = []
        ks, vs = k[:, :, :0], v[:, :, :0]
        for i in range(x.shape[1]):
            ks = torch.cat([ks, k[:, :, i : i + 1]], 2)
            vs = torch.cat([vs, v[:, :, i : i + 1]], 2)
            outs.append(self.attend(q[:, :, i : i + 1], ks, vs))
        return self.merge(torch.cat(outs, 2))


class Registers(nn.Module):
    def __init__(s) -> None:
        super().__init__()
        s.p = nn.Conv2d(3, 16, 4, 4)
        s.cls = nn.Parameter(torch.randn(1, 1, 16))
        s.reg = nn.Parameter(torch.randn(1, 2, 16))
        s.pos = nn.Parameter(torch.randn(1, 4, 16))
        s.f1, s.f2, s.n, s.h = L(16, 32), L(32, 16), nn.LayerNorm(16), L(16, 4)
        s.num_prefix_tokens = 3

    def forward(s, x: Any) -> Any:
        x = s.p(x).flatten(2).transpose(1, 2) + s.pos
        x = torch.cat([s.cls.expand(x.shape[0], -1, -1), s.reg.repeat(x.shape[0], 1, 1), x], dim=1)
        x = x + s.f2(F.gelu(s.f1(s.n(x))))
        return s.h(x[:, s.num_prefix_tokens :].mean(1) + x[:, 0])


class PosInterp(nn.Module):
    def __init__(s) -> None:
        super().__init__()
        s.p = nn.Conv2d(3, 16, 4, 4)
        s.pos = nn.Parameter(torch.randn(1, 9, 16))
        s.h = L(16, 4)

    def forward(s, x: Any) -> Any:
        x = s.p(x)
        _B, _Cc, Hh, W = x.shape
        pos = s.pos.reshape(1, 3, 3, -1).permute(0, 3, 1, 2)
        pos = F.interpolate(pos, size=(Hh, W), mode="bicubic", align_corners=False).permute(0, 2, 3, 1).flatten(1, 2)
        return s.h(x.flatten(2).transpose(1, 2) + pos)


class Involution(nn.Module):
    def __init__(s) -> None:
        super().__init__()
        s.a = C(3, 16)
        s.red = C(16, 8, 1)
        s.span = C(8, 9 * 4, 1)
        s.groups = 4
        s.b = C(16, 4)

    def forward(s, x: Any) -> Any:
        x = s.a(x)
        b, c, h, w = x.shape
        k = s.span(F.relu(s.red(x))).view(b, s.groups, 9, h, w).unsqueeze(2)
        u = F.unfold(x, 3, padding=1).view(b, s.groups, c // s.groups, 9, h, w)
        return s.b((k * u).sum(3).view(b, c, h, w))


class Coord(nn.Module):
    """coordinate attention"""

    def __init__(s) -> None:
        super().__init__()
        s.a = C(3, 16)
        s.c1, s.n, s.ch, s.cw = C(16, 8, 1), nn.BatchNorm2d(8), C(8, 16, 1), C(8, 16, 1)
        s.b = C(16, 4)

    def forward(s, x: Any) -> Any:
        x = s.a(x)
        _n, _c, h, w = x.size()
        y = torch.cat([x.mean(3, keepdim=True), x.mean(2, keepdim=True).permute(0, 1, 3, 2)], 2)
        y = F.hardswish(s.n(s.c1(y)))
        yh, yw = torch.split(y, [h, w], 2)
        return s.b(x * s.ch(yh).sigmoid() * s.cw(yw.permute(0, 1, 3, 2)).sigmoid())


class Highway(nn.Module):
    def __init__(s) -> None:
        super().__init__()
        s.i, s.t, s.h, s.o = L(8, 16), L(16, 16), L(16, 16), L(16, 4)

    def forward(s, x: Any) -> Any:
        x = s.i(x)
        t = torch.sigmoid(s.t(x))
        return s.o(t * F.relu(s.h(x)) + (1 - t) * x)


class DLRM(nn.Module):
    """embeddings and dense features meet in pairwise products"""

    def __init__(s) -> None:
        super().__init__()
        s.e1, s.e2, s.d, s.top = nn.Embedding(10, 8), nn.Embedding(12, 8), L(5, 8), L(8 + 3, 4)
        s.register_buffer("li", torch.tensor([1, 2, 2]))
        s.register_buffer("lj", torch.tensor([0, 0, 1]))

    def forward(s, x: Any, i: Any) -> Any:
        d = F.relu(s.d(x))
        t = torch.stack([d, s.e1(i[:, 0]), s.e2(i[:, 1])], 1)
        z = torch.bmm(t, t.transpose(1, 2))
        return s.top(torch.cat([d, z[:, s.li, s.lj]], 1))


class FM(nn.Module):
    def __init__(s) -> None:
        super().__init__()
        s.e, s.o = nn.Embedding(30, 8), L(1, 1)

    def forward(s, i: Any) -> Any:
        v = s.e(i)
        return s.o(0.5 * (v.sum(1).pow(2) - v.pow(2).sum(1)).sum(1, keepdim=True))


class GCN(nn.Module):
    def __init__(s) -> None:
        super().__init__()
        s.a, s.b = L(8, 16), L(16, 4)

    def forward(s, x: Any, adj: Any) -> Any:
        return adj @ s.b(F.relu(adj @ s.a(x)))


class GAT(nn.Module):
    def __init__(s) -> None:
        super().__init__()
        s.heads, s.dim = 4, 4
        s.w = L(8, 16, bias=False)
        s.src = nn.Parameter(torch.randn(1, 4, 4))
        s.dst = nn.Parameter(torch.randn(1, 4, 4))
        s.o = L(16, 3)

    def forward(s, x: Any) -> Any:
        n = x.shape[0]
        h = s.w(x).view(n, s.heads, s.dim)
        e = F.leaky_relu((h * s.src).sum(-1)[:, None] + (h * s.dst).sum(-1)[None])
        return s.o(F.elu(torch.einsum("ijh,jhd->ihd", e.softmax(1), h).reshape(n, s.heads * s.dim)))


class Scatter(nn.Module):
    """message passing by index_add"""

    def __init__(s) -> None:
        super().__init__()
        s.a, s.m, s.b = L(8, 16), L(32, 16), L(16, 4)

    def forward(s, x: Any, e: Any) -> Any:
        x = s.a(x)
        m = F.relu(s.m(torch.cat([x[e[0]], x[e[1]]], -1)))
        return s.b(x + torch.zeros_like(x).index_add(0, e[1], m))


class ScatterAdd(Scatter):
    def forward(s, x: Any, e: Any) -> Any:
        x = s.a(x)
        m = F.relu(s.m(torch.cat([x[e[0]], x[e[1]]], -1)))
        return s.b(x + torch.zeros_like(x).scatter_add(0, e[1][:, None].expand_as(m), m))


class PointNet(nn.Module):
    def __init__(s) -> None:
        super().__init__()
        s.a, s.n, s.b, s.t, s.c = nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16), nn.Conv1d(16, 24, 1), L(24, 9), L(24, 4)

    def forward(s, x: Any) -> Any:
        f = s.b(F.relu(s.n(s.a(x)))).max(2)[0]
        t = s.t(f).view(-1, 3, 3) + torch.eye(3, dtype=x.dtype)
        return s.c(s.b(F.relu(s.n(s.a(torch.bmm(t, x))))).max(2)[0])


class VAE(nn.Module):
    def __init__(s) -> None:
        super().__init__()
        s.e, s.mu, s.lv, s.d1, s.d2 = L(8, 16), L(16, 6), L(16, 6), L(6, 16), L(16, 8)

    def forward(s, x: Any) -> Any:
        h = F.relu(s.e(x))
        mu, lv = s.mu(h), s.lv(h)
        z = mu + torch.exp(0.5 * lv) * 0.1
        return s.d2(F.relu(s.d1(z)))


class VAEChunk(VAE):
    def __init__(s) -> None:
        super().__init__()
        s.ml = L(16, 12)

    def forward(s, x: Any) -> Any:
        mu, lv = s.ml(F.relu(s.e(x))).chunk(2, -1)
        return s.d2(F.relu(s.d1(mu + torch.exp(0.5 * lv))))


class Flow(nn.Module):
    """affine coupling over an inner width"""

    def __init__(s) -> None:
        super().__init__()
        s.i, s.n, s.o = L(8, 16), L(8, 16), L(16, 4)

    def forward(s, x: Any) -> Any:
        a, b = s.i(x).chunk(2, -1)
        sc, sh = s.n(a).chunk(2, -1)
        return s.o(torch.cat([a, b * torch.exp(sc) + sh], -1))


class TimeEmb(nn.Module):
    """diffusion's residual block: time embedding added, group norm"""

    def __init__(s) -> None:
        super().__init__()
        s.i, s.n1, s.c1, s.t, s.n2, s.c2, s.sk, s.o = (
            C(3, 16),
            nn.GroupNorm(4, 16),
            C(16, 24),
            L(8, 24),
            nn.GroupNorm(4, 24),
            C(24, 24),
            C(16, 24, 1),
            C(24, 3),
        )

    def forward(s, x: Any, t: Any) -> Any:
        half = 4
        fr = torch.exp(-math.log(100) * torch.arange(half) / half).to(x.dtype)
        e = t[:, None] * fr[None]
        e = torch.cat([e.sin(), e.cos()], -1)
        x = s.i(x)
        h = s.c1(F.silu(s.n1(x))) + s.t(F.silu(e))[:, :, None, None]
        return s.o(s.sk(x) + s.c2(F.silu(s.n2(h))))


class Wavenet(nn.Module):
    def __init__(s) -> None:
        super().__init__()
        s.i = nn.Conv1d(3, 16, 1)
        s.f, s.g, s.r, s.k, s.o = (
            nn.Conv1d(a, b, k, padding=p)
            for a, b, k, p in ((16, 16, 3, 1), (16, 16, 3, 1), (16, 16, 1, 0), (16, 12, 1, 0), (12, 4, 1, 0))
        )

    def forward(s, x: Any) -> Any:
        x = s.i(x)
        y = torch.tanh(s.f(x)) * torch.sigmoid(s.g(x))
        return s.o(F.relu(s.k(y) + 0 * s.k(s.r(y) + x)))


class Mamba(nn.Module):
    """selective scan, written out"""

    def __init__(s) -> None:
        super().__init__()
        s.inner, s.state, s.rank = 16, 4, 2
        s.inp, s.conv, s.xp, s.dt, s.out = (
            L(8, 32),
            nn.Conv1d(16, 16, 3, padding=2, groups=16),
            L(16, 2 + 8),
            L(2, 16),
            L(16, 8),
        )
        s.A, s.D = nn.Parameter(torch.rand(16, 4)), nn.Parameter(torch.rand(16))
        s.h = L(8, 4)

    def forward(s, x: Any) -> Any:
        b, n, _ = x.shape
        u, z = s.inp(x).split([s.inner, s.inner], -1)
        u = F.silu(s.conv(u.transpose(1, 2))[..., :n].transpose(1, 2))
        dt, B, Cc = s.xp(u).split([s.rank, s.state, s.state], -1)
        dt = F.softplus(s.dt(dt))
        A = -torch.exp(s.A)
        h = torch.zeros(b, s.inner, s.state, dtype=x.dtype)
        ys = []
        for i in range(n):
            h = torch.exp(dt[:, i, :, None] * A) * h + dt[:, i, :, None] * B[:, i, None] * u[:, i, :, None]
            ys.append((h * Cc[:, i, None]).sum(-1))
        y = torch.stack(ys, 1) + u * s.D
        return s.h(s.out(y * F.silu(z)))


class UnevenChunk(nn.Module):
    def __init__(s) -> None:
        super().__init__()
        s.a, s.b, s.c = C(3, 15), C(8, 4), C(7, 4)

    def forward(s, x: Any) -> Any:
        u, v = s.a(x).chunk(2, 1)
        return s.b(u) + s.c(v)


class Sandwich(nn.Module):
    """same layer used on two tensors that are then concatenated"""

    def __init__(s) -> None:
        super().__init__()
        s.a, s.m, s.b, s.c = C(3, 16), C(16, 16), C(3, 16), C(48, 4)

    def forward(s, x: Any) -> Any:
        p, q = s.a(x), s.b(x)
        return s.c(torch.cat([s.m(p), s.m(q), p], 1))


class LearnedScaleShift(nn.Module):
    def __init__(s) -> None:
        super().__init__()
        s.a, s.b = C(3, 16), C(16, 4)
        s.w, s.o = nn.Parameter(torch.rand(16)), nn.Parameter(torch.rand(16, 1, 1))

    def forward(s, x: Any) -> Any:
        return s.b(torch.addcmul(s.o, s.a(x), s.w[None, :, None, None]))


class Mahal(nn.Module):
    def __init__(s) -> None:
        super().__init__()
        s.a = L(8, 16)
        s.M = nn.Parameter(torch.randn(16, 16))
        s.o = L(1, 1)

    def forward(s, x: Any) -> Any:
        y = s.a(x)
        return s.o(torch.einsum("bni,ij,bnj->bn", y, s.M, y)[..., None])


class Tensorized(nn.Module):
    """CP decomposition"""

    def __init__(s) -> None:
        super().__init__()
        s.u, s.v, s.w = (
            nn.Parameter(torch.randn(8, 6)),
            nn.Parameter(torch.randn(8, 6)),
            nn.Parameter(torch.randn(6, 4)),
        )

    def forward(s, x: Any) -> Any:
        return ((x @ s.u) * (x @ s.v)) @ s.w


class NoOpReshape(nn.Module):
    def __init__(s) -> None:
        super().__init__()
        s.a, s.b = C(3, 16), C(16, 4)

    def forward(s, x: Any) -> Any:
        y = s.a(x)
        y = y.view(*y.shape[:2], -1)
        y = y.view(y.shape[0], -1, 8, 8)
        return s.b(y)


class Embed2(nn.Module):
    def __init__(s) -> None:
        super().__init__()
        s.e = nn.Embedding(10, 16, max_norm=None)
        s.t = nn.Embedding(2, 16)
        s.n = nn.LayerNorm(16)
        s.p = L(16, 32)
        s.a = nn.Sequential(L(32, 64), nn.GELU(), L(64, 32))
        s.dec = L(32, 10)

    def forward(s, i: Any) -> Any:
        x = s.p(s.n(s.e(i) + s.t(torch.zeros_like(i))))
        return s.dec(x + s.a(x)).log_softmax(-1)


PATTERNS: dict[str, Build] = {
    "dim // heads": ab(DimOver, "i o m.qkv m.proj"),
    "heads, -1": ab(MinusOne, "i o m.qkv m.proj"),
    "BERT": ab(Bert, "i o m.query m.dense"),
    "T5": ab(T5Bias, "i o m.query m.dense"),
    "key and value cache": ab(KVCache, "i o m.q"),
    "register tokens": of(Registers, "p f1 f2 h cls reg pos"),
    "interpolated positions": of(PosInterp, "p h pos"),
    "involution": of(Involution, ""),
    "coordinate attention": of(Coord, "a c1 ch cw b"),
    "highway": of(Highway, "i t h o", tokens),
    "pairwise products of embeddings": of(DLRM, "d e1 e2", lambda: (torch.randn(3, 5), torch.randint(10, (3, 2)))),
    "factorization machine": of(FM, "e", lambda: torch.randint(30, (3, 5))),
    "graph convolution": of(GCN, "a b", lambda: (torch.randn(5, 8), torch.rand(5, 5))),
    "graph attention": of(GAT, "w o", lambda: torch.randn(6, 8)),
    "messages by index_add": of(Scatter, "a m b", lambda: (torch.randn(5, 8), torch.randint(5, (2, 7)))),
    "messages by scatter_add": of(ScatterAdd, "a m b", lambda: (torch.randn(5, 8), torch.randint(5, (2, 7)))),
    "pointnet": of(PointNet, "a b", lambda: torch.randn(2, 3, 9)),
    "two heads": of(VAE, "e mu lv d1 d2", tokens),
    "two heads by chunk": of(VAEChunk, "e ml d1 d2", tokens),
    "affine coupling": of(Flow, "i", tokens),
    "diffusion block": of(TimeEmb, "i c1 t c2 sk o", lambda: (image(), torch.rand(2))),
    "wavenet": of(Wavenet, "i f g r k o", lambda: image(2, 3, 9)),
    "selective scan": of(Mamba, "out h", tokens),
    "chunks of unequal size": of(UnevenChunk, ""),
    "one layer twice, concatenated": of(Sandwich, "a m b c"),
    "addcmul": of(LearnedScaleShift, "a b"),
    "quadratic form": of(Mahal, "a", tokens),
    "low rank product": of(Tensorized, "u v w", tokens),
    "views that change nothing": of(NoOpReshape, "a b"),
    "sum of embeddings": of(Embed2, "e t p a.0 a.2 dec", lambda: torch.randint(10, (2, 5))),
}
