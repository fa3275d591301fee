"""Attention, as torch and as user code write it."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from judge import Build, image, net, of, tokens
from torch import nn

L = nn.Linear
D, H = 32, 4


class Between(nn.Module):
    """A linear layer, a block of width D with a residual around it, and a head."""

    def __init__(self, block: nn.Module, norm: bool = True, residual: bool = True) -> None:
        super().__init__()
        self.i, self.m, self.o = L(8, D), block, L(D, 4)
        self.norm = nn.LayerNorm(D) if norm else nn.Identity()
        self.residual = residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.i(x)
        y = self.m(self.norm(x))
        return self.o(x + y if self.residual else y)


class Attention(nn.Module):
    """The parts that most have in common: sizes in attributes, heads split off the last dim."""

    def __init__(self, width: int = D, heads: int = H, kv_heads: int | None = None) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads or heads, width // heads
        self.scale = self.head_dim**-0.5
        self.q = L(width, heads * self.head_dim)
        self.k = L(width, self.kv_heads * self.head_dim)
        self.v = L(width, self.kv_heads * self.head_dim)
        self.proj = L(heads * self.head_dim, width)

    def split(self, x: torch.Tensor, heads: int) -> torch.Tensor:
        b, n, _ = x.shape
        return x.view(b, n, heads, self.head_dim).transpose(1, 2)

    def merge(self, x: torch.Tensor) -> torch.Tensor:
        b, h, n, d = x.shape
        return self.proj(x.transpose(1, 2).reshape(b, n, h * d))

    def qkv(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return (
            self.split(self.q(x), self.heads),
            self.split(self.k(x), self.kv_heads),
            self.split(self.v(x), self.kv_heads),
        )

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return ((q * self.scale) @ k.transpose(-2, -1)).softmax(-1) @ v

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.merge(self.attend(*self.qkv(x)))


class Fused(Attention):
    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v)


class Causal(Attention):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.tril(torch.ones(16, 16, dtype=torch.bool)).view(1, 1, 16, 16))

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        a = q @ k.transpose(-2, -1) / math.sqrt(k.size(-1))
        n = a.shape[-1]
        return a.masked_fill(~self.mask[:, :, :n, :n], float("-inf")).softmax(-1) @ v


class GroupedRepeat(Attention):
    def __init__(self) -> None:
        super().__init__(kv_heads=2)

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        times = self.heads // self.kv_heads
        return super().attend(q, k.repeat_interleave(times, 1), v.repeat_interleave(times, 1))


class GroupedExpand(Attention):
    """Llama's repeat_kv."""

    def __init__(self) -> None:
        super().__init__(kv_heads=2)

    @staticmethod
    def spread(x: torch.Tensor, times: int) -> torch.Tensor:
        b, h, n, d = x.shape
        return x[:, :, None].expand(b, h, times, n, d).reshape(b, h * times, n, d)

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        times = self.heads // self.kv_heads
        return F.scaled_dot_product_attention(q, self.spread(k, times), self.spread(v, times), scale=self.scale)


class GroupedFused(Attention):
    def __init__(self) -> None:
        super().__init__(kv_heads=2)

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


class MultiQuery(Attention):
    """One head of keys and values, broadcast."""

    def __init__(self) -> None:
        super().__init__(kv_heads=1)


class Rotary(Attention):
    """Written as rotate_half, with cosines and sines from a buffer of frequencies."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer(
            "freq", 1.0 / (100.0 ** (torch.arange(0, self.head_dim, 2) / self.head_dim)), persistent=False
        )

    def rotate(self, x: torch.Tensor) -> torch.Tensor:
        t = torch.outer(torch.arange(x.shape[-2], dtype=x.dtype), self.freq.to(x.dtype))
        t = torch.cat([t, t], -1)
        half = x.shape[-1] // 2
        turned = torch.cat([-x[..., half:], x[..., :half]], -1)
        return x * t.cos() + turned * t.sin()

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return super().attend(self.rotate(q), self.rotate(k), v)


class RotaryComplex(Rotary):
    def rotate(self, x: torch.Tensor) -> torch.Tensor:
        t = torch.outer(torch.arange(x.shape[-2], dtype=x.dtype), self.freq.to(x.dtype))
        turn = torch.polar(torch.ones_like(t), t)
        return torch.view_as_real(torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2)) * turn).flatten(-2)


class RotaryInterleaved(Rotary):
    def rotate(self, x: torch.Tensor) -> torch.Tensor:
        t = torch.outer(torch.arange(x.shape[-2], dtype=x.dtype), self.freq.to(x.dtype))
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack([a * t.cos() - b * t.sin(), a * t.sin() + b * t.cos()], -1).flatten(-2)


class ALiBi(Attention):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("slopes", torch.tensor([2.0**-i for i in range(1, H + 1)]).view(H, 1, 1))

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        at = torch.arange(q.shape[-2], dtype=q.dtype)
        bias = -(at[:, None] - at[None]).abs() * self.slopes
        return ((q * self.scale) @ k.transpose(-2, -1) + bias).softmax(-1) @ v


class RelativeBias(Attention):
    """A table of biases by distance, one column per head (Swin)."""

    def __init__(self, n: int = 5) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(2 * n - 1, H))
        at = torch.arange(n)
        self.register_buffer("index", at[:, None] - at[None] + n - 1)

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        n = q.shape[-2]
        bias = self.table[self.index.view(-1)].view(n, n, -1).permute(2, 0, 1)
        return ((q * self.scale) @ k.transpose(-2, -1) + bias.unsqueeze(0)).softmax(-1) @ v


class Linear(Attention):
    """Linear attention: keys and values are multiplied first."""

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        q, k = F.elu(q) + 1, F.elu(k) + 1
        kv = k.transpose(-2, -1) @ v
        return (q @ kv) / (q @ k.sum(-2, keepdim=True).transpose(-2, -1) + 1e-6)


class LinearReLU(Attention):
    """EfficientViT's, with a column of ones for the norm."""

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        q, k = F.relu(q), F.relu(k)
        v = F.pad(v, (0, 1), value=1.0)
        out = q @ (k.transpose(-2, -1) @ v)
        return out[..., :-1] / (out[..., -1:] + 1e-6)


class PackedInHeads(nn.Module):
    """EfficientViT's over an image: each head's query, key and value beside each other, and the column of ones."""

    def __init__(self) -> None:
        super().__init__()
        self.head_dim = D // H
        self.qkv, self.proj = nn.Conv1d(8, 3 * D, 1), nn.Conv1d(D, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        heads = self.qkv(x.transpose(1, 2)).reshape(b, -1, 3 * self.head_dim, n).transpose(-1, -2)
        q, k, v = heads.chunk(3, -1)
        out = F.relu(q) @ (F.relu(k).transpose(-1, -2) @ F.pad(v, (0, 1), value=1.0))
        out = out[..., :-1] / (out[..., -1:] + 1e-6)
        return self.proj(out.transpose(-1, -2).reshape(b, -1, n)).transpose(1, 2)  # type: ignore[no-any-return]


class Aggregated(PackedInHeads):
    """EfficientViT's, at two scales (arXiv 2205.14756): `parts` of each head are mixed by themselves."""

    def __init__(self, parts: int, bias: bool = False) -> None:
        super().__init__()
        self.near = nn.Conv1d(3 * D, 3 * D, 3, padding=1, groups=3 * D, bias=bias)
        self.mix = nn.Conv1d(3 * D, 3 * D, 1, groups=parts * H, bias=bias)
        self.proj = nn.Conv1d(2 * D, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one = self.qkv(x.transpose(1, 2))
        both = torch.cat([one, self.mix(self.near(one))], 1)
        heads = both.reshape(len(x), -1, 3 * self.head_dim, x.shape[1]).transpose(-1, -2)
        q, k, v = heads.chunk(3, -1)
        out = F.relu(q) @ (F.relu(k).transpose(-1, -2) @ v) / 8
        return self.proj(out.transpose(-1, -2).reshape(len(x), -1, x.shape[1])).transpose(1, 2)  # type: ignore[no-any-return]


class OfTokens(Attention):
    """Between layers that nothing else cuts."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.proj = L(8, D), L(8, D), L(8, D), L(D, 4)


class Pooled(OfTokens):
    """Keys and values of a few positions, pooled by a layer for each channel of a head (MViT, arXiv 2104.11227)."""

    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        size = self.head_dim
        self.pools = nn.ModuleList(nn.Conv1d(size, size, 3, 2, 1, groups=size, bias=bias) for _ in "kv")
        self.norm = nn.LayerNorm(size)

    def pooled(self, x: torch.Tensor, pool: nn.Module) -> torch.Tensor:
        b, h, n, d = x.shape
        return pool(x.reshape(b * h, n, d).transpose(1, 2)).transpose(1, 2).reshape(b, h, -1, d)  # type: ignore[no-any-return]

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        k, v = (self.pooled(t, pool) for t, pool in zip((k, v), self.pools, strict=True))
        return super().attend(q, self.norm(k), v)


class PooledByOnes(OfTokens):
    """By a kernel that is no parameter: nothing says that a channel of a head may go."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(self.head_dim)) if bias else None

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        b, h, n, d = k.shape
        kernel = torch.ones(d, 1, 3, dtype=k.dtype) / 3
        k = F.conv1d(k.reshape(b * h, n, d).transpose(1, 2), kernel, self.bias, groups=d).transpose(1, 2)
        return super().attend(q, k.reshape(b, h, -1, d), v[:, :, 2:])


class FilteredByOnes(nn.Module):
    """The same of parts that lie in the batch, by a kernel of a length that stays: whole parts go."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.bias, self.o = L(8, D), nn.Parameter(torch.randn(D // 4)), L(D, 4)
        self.parts = 4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        parts = self.a(x).view(b, n, self.parts, -1).permute(0, 2, 3, 1).flatten(0, 1)
        kernel = torch.ones(D // 4, 1, 1, dtype=x.dtype)
        parts = F.conv1d(parts, kernel, self.bias, groups=parts.shape[1])
        return self.o(parts.view(b, self.parts, -1, n).permute(0, 3, 1, 2).flatten(2))  # type: ignore[no-any-return]


class Cosine(Attention):
    def __init__(self) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.ones(H, 1, 1))

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        a = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        return (a * self.logit.clamp(max=4.6).exp()).softmax(-1) @ v


class QKNorm(Attention):
    def __init__(self) -> None:
        super().__init__()
        self.qn, self.kn = nn.LayerNorm(self.head_dim), nn.LayerNorm(self.head_dim)

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return super().attend(self.qn(q), self.kn(k), v)


class HeadsInBatch(Attention):
    """Heads are folded into the batch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        h, d = self.heads, self.head_dim
        q, k, v = (p(x).view(b, n, h, d).permute(0, 2, 1, 3).reshape(b * h, n, d) for p in (self.q, self.k, self.v))
        a = torch.bmm(q, k.transpose(1, 2)).mul(self.scale).softmax(-1)
        y = torch.bmm(a, v).view(b, h, n, d).transpose(1, 2).reshape(b, n, h * d)
        return self.proj(y)


class Einsum(Attention):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (p(x).unflatten(-1, (self.heads, self.head_dim)) for p in (self.q, self.k, self.v))
        a = torch.einsum("bqhd,bkhd->bhqk", q, k).mul(self.scale).softmax(-1)
        return self.proj(torch.einsum("bhqk,bkhd->bqhd", a, v).flatten(2))


class TalkingHeads(Attention):
    """Linear layers over the heads."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = L(H, H), L(H, H)

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        a = (q * self.scale) @ k.transpose(-2, -1)
        a = self.before(a.permute(0, 2, 3, 1)).softmax(-2)
        return self.after(a).permute(0, 3, 1, 2) @ v


class Window(Attention):
    """Windows of two tokens, by view."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, c = x.shape
        y = super().forward(x.view(b * n // 2, 2, c))
        return y.view(b, n, c)


class Cross(nn.Module):
    """Queries are parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.i, self.query, self.attend, self.o = L(8, D), nn.Parameter(torch.randn(1, 3, D)), Attention(), L(D, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.i(x)
        a = self.attend
        q = a.split(a.q(self.query.expand(x.shape[0], -1, -1)), a.heads)
        return self.o(a.merge(a.attend(q, a.split(a.k(x), a.heads), a.split(a.v(x), a.heads))))


class Packed(nn.Module):
    """One layer makes q, k and v; they are taken apart in one of many ways."""

    def __init__(self, way: str, width: int = D, heads: int = H) -> None:
        super().__init__()
        self.way, self.heads, self.width, self.head_dim = way, heads, width, width // heads
        self.qkv, self.proj = L(width, 3 * width), L(width, width)

    def take(self, x: torch.Tensor) -> Any:
        b, n, c = x.shape
        y = self.qkv(x)
        if self.way == "unbind":
            return y.reshape(b, n, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        if self.way == "index":
            y = y.reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
            return y[0], y[1], y[2]
        if self.way == "per head":
            y = y.view(b, n, self.heads, 3 * self.head_dim).transpose(1, 2)
            return y.chunk(3, dim=-1)
        if self.way == "chunk":
            parts = y.chunk(3, dim=-1)
        elif self.way == "split":
            parts = y.split(self.width, dim=-1)
        elif self.way == "split sizes":
            parts = y.split([self.width, self.width, self.width], dim=-1)
        else:
            parts = y[..., : self.width], y[..., self.width : 2 * self.width], y[..., 2 * self.width :]
        return [t.view(b, n, self.heads, -1).transpose(1, 2) for t in parts]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.take(x)
        a = (q @ k.transpose(-2, -1) * self.head_dim**-0.5).softmax(-1)
        b, _, n, _ = v.shape
        return self.proj((a @ v).transpose(1, 2).reshape(b, n, -1))


class PackedConv(nn.Module):
    """Attention over an image: q, k and v from a 1x1 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.i, self.qkv, self.proj, self.o = (
            nn.Conv2d(3, 16, 1),
            nn.Conv2d(16, 48, 1),
            nn.Conv2d(16, 16, 1),
            nn.Conv2d(16, 4, 1),
        )
        self.heads = 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.i(x)
        b, c, h, w = x.shape
        q, k, v = self.qkv(x).reshape(b, 3, self.heads, c // self.heads, h * w).unbind(1)
        a = (q.transpose(-2, -1) @ k).softmax(-1)
        y = (v @ a.transpose(-2, -1)).reshape(b, c, h, w)
        return self.o(x + self.proj(y))


class NonLocal(nn.Module):
    """The non-local block: one head, over an image, with a narrow query."""

    def __init__(self) -> None:
        super().__init__()
        self.i, self.q, self.k, self.v = (nn.Conv2d(a, b, 1) for a, b in ((3, 16), (16, 8), (16, 8), (16, 8)))
        self.proj, self.o = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.i(x)
        q, k, v = (p(x).flatten(2) for p in (self.q, self.k, self.v))
        y = torch.bmm(v, torch.bmm(q.transpose(1, 2), k).softmax(-1).transpose(1, 2))
        return self.o(x + self.proj(y.view(x.shape[0], -1, *x.shape[2:])))


class ChannelAttention(nn.Module):
    """Channels attend to each other (XCA): they are positions of the softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.qkv, self.proj = L(D, 3 * D), L(D, D)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 4, 1).unbind(0)
        a = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)).softmax(-1)
        return self.proj((a @ v).permute(0, 3, 1, 2).reshape(b, n, c))


class Multihead(nn.Module):
    """nn.MultiheadAttention."""

    def __init__(self, batch_first: bool = True, mask: str = "", weights: bool = False, **kw: Any) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(D, H, batch_first=batch_first, **kw)
        self.mask, self.weights, self.other = mask, weights, "kdim" in kw
        if self.other:
            self.kp, self.vp = L(D, kw["kdim"]), L(D, kw["vdim"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        k, v = (self.kp(x), self.vp(x)) if self.other else (x, x)
        n = x.shape[1] if self.attn.batch_first else x.shape[0]
        b = x.shape[0] if self.attn.batch_first else x.shape[1]
        given: dict[str, Any] = {}
        if self.mask == "attention":
            given["attn_mask"] = torch.triu(torch.ones(n, n, dtype=torch.bool), 1)
        elif self.mask == "padding":
            given["key_padding_mask"] = torch.zeros(b, n, dtype=torch.bool)
        elif self.mask == "float":
            given["attn_mask"] = torch.zeros(n, n, dtype=x.dtype)
        out = self.attn(x, k, v, need_weights=self.weights, **given)[0]
        return out


class Encoder(nn.Module):
    def __init__(self, **kw: Any) -> None:
        super().__init__()
        self.i, self.o = L(8, D), L(D, 4)
        self.t = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(D, H, 64, dropout=0.0, batch_first=True, **kw), 2, enable_nested_tensor=False
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.o(self.t(self.i(x)))


class Decoder(nn.Module):
    def __init__(self, **kw: Any) -> None:
        super().__init__()
        self.i, self.j, self.o = L(8, D), L(8, D), L(D, 4)
        self.t = nn.TransformerDecoder(nn.TransformerDecoderLayer(D, H, 64, dropout=0.0, batch_first=True, **kw), 2)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype)
        return self.o(self.t(self.i(x), self.j(y), tgt_mask=mask))


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.i, self.o = L(8, D), L(D, 4)
        self.t = nn.Transformer(D, H, 1, 1, 64, dropout=0.0, batch_first=True)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.o(self.t(self.i(x), self.i(y)))


class GPTBlock(nn.Module):
    """nanoGPT's."""

    def __init__(self) -> None:
        super().__init__()
        self.n_embd, self.n_head = D, H
        self.c_attn, self.c_proj = L(D, 3 * D), L(D, D)
        self.ln_1, self.ln_2, self.fc, self.out = nn.LayerNorm(D), nn.LayerNorm(D), L(D, 4 * D), L(4 * D, D)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, T, C = x.size()
        q, k, v = self.c_attn(self.ln_1(x)).split(self.n_embd, dim=2)
        k = k.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        q = q.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        v = v.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C))
        return x + self.out(F.gelu(self.fc(self.ln_2(x))))


class GPT(nn.Module):
    """Tokens, positions, two blocks, a head that is the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(20, D), nn.Embedding(8, D)
        self.h = nn.ModuleList(GPTBlock() for _ in range(2))
        self.ln_f, self.head = nn.LayerNorm(D), L(D, 20, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, i: torch.Tensor) -> torch.Tensor:
        x = self.wte(i) + self.wpe(torch.arange(i.size(1), device=i.device))
        for block in self.h:
            x = block(x)
        return self.head(self.ln_f(x))


def between(make: Any, must: str = "m.q m.k m.v m.proj", **kw: Any) -> Build:
    return of(lambda: Between(make(), **kw), must, lambda: tokens(2, 6 if make is Window else 5, 8))


def both() -> tuple[torch.Tensor, torch.Tensor]:
    return tokens(2, 5, 8), tokens(2, 7, 8)


PATTERNS: dict[str, Build] = {
    "separate layers": between(Attention, "i o m.q m.k m.v m.proj"),
    "separate layers, no norm or residual": between(Attention, "i o m.q m.k m.v m.proj", norm=False, residual=False),
    "fused": between(Fused),
    "causal, scale from a size": between(Causal),
    "grouped queries by repeat_interleave": between(GroupedRepeat),
    "grouped queries by expand": between(GroupedExpand),
    "grouped queries, fused": between(GroupedFused),
    "multi-query": between(MultiQuery, "i o"),
    "rotary": between(Rotary),
    "rotary, complex": between(RotaryComplex),
    "rotary, interleaved": between(RotaryInterleaved),
    "ALiBi": between(ALiBi),
    "relative position bias": between(RelativeBias),
    "linear": between(Linear),
    "linear, a column of ones": between(LinearReLU, "i o m.q m.k m.v m.proj"),
    "linear, a column of ones, packed in heads": of(PackedInHeads, "qkv proj", tokens),
    "aggregated, by head": of(lambda: Aggregated(1), "qkv near mix proj", tokens),
    "aggregated, by part of a head": of(lambda: Aggregated(3, bias=True), "qkv near mix proj", tokens),
    "pooled by head": of(Pooled, "q k v proj", tokens),
    "pooled by head, a bias": of(lambda: Pooled(bias=True), "q k v proj", tokens),
    "pooled by head, a kernel of ones": of(lambda: PooledByOnes(False), "q k v proj", tokens),
    "pooled by head, a kernel of ones and a bias": of(lambda: PooledByOnes(True), "q k v proj", tokens),
    "filtered by a kernel of ones and a bias": of(FilteredByOnes, "a o", tokens),
    "cosine": between(Cosine),
    "norms of query and key": between(QKNorm),
    "heads in the batch": between(HeadsInBatch),
    "einsum": between(Einsum),
    "talking heads": between(TalkingHeads, "i o"),
    "windows": between(Window),
    "learned queries": of(Cross, "i o attend.q attend.k attend.v attend.proj", tokens),
    **{
        f"packed, {way}": between(lambda way=way: Packed(way), "i o m.qkv m.proj")
        for way in ("unbind", "index", "per head", "chunk", "split", "split sizes", "slices")
    },
    "packed, over an image": of(PackedConv, "i o"),
    "non-local": of(NonLocal, "i q k v proj o"),
    "of channels": between(ChannelAttention, "i o"),
    "MultiheadAttention": between(Multihead, "i o m.attn.in_proj_weight m.attn.out_proj"),
    "MultiheadAttention, weights": between(lambda: Multihead(weights=True), "i o m.attn.in_proj_weight"),
    "MultiheadAttention, batch second": between(lambda: Multihead(False), "i o m.attn.in_proj_weight"),
    "MultiheadAttention, no bias": between(lambda: Multihead(bias=False), "i o m.attn.in_proj_weight"),
    "MultiheadAttention, masks": between(lambda: Multihead(mask="attention"), "i o m.attn.in_proj_weight"),
    "MultiheadAttention, float mask": between(lambda: Multihead(mask="float"), "i o m.attn.in_proj_weight"),
    "MultiheadAttention, padding": between(lambda: Multihead(mask="padding"), "i o m.attn.in_proj_weight"),
    "MultiheadAttention, other widths": between(lambda: Multihead(kdim=24, vdim=16), "i o m.kp m.vp"),
    "MultiheadAttention, key bias": between(lambda: Multihead(add_bias_kv=True), ""),
    "MultiheadAttention, zero key": between(lambda: Multihead(add_zero_attn=True), ""),
    "encoder": of(Encoder, "i o t.layers.0.linear1 t.layers.0.linear2 t.layers.0.self_attn.in_proj_weight", tokens),
    "encoder, norm first": of(
        lambda: Encoder(norm_first=True, activation="gelu"),
        "i o t.layers.0.linear1 t.layers.0.linear2 t.layers.0.self_attn.in_proj_weight",
        tokens,
    ),
    "decoder": of(Decoder, "i o j t.layers.0.linear1 t.layers.0.linear2", both),
    "decoder, norm first": of(lambda: Decoder(norm_first=True), "i o t.layers.0.linear1", both),
    "transformer": of(Whole, "i o t.encoder.layers.0.linear1 t.decoder.layers.0.linear1", both),
    "GPT": of(GPT, "wte wpe h.0.c_attn h.0.c_proj h.0.fc h.0.out", lambda: torch.randint(20, (2, 5))),
    "attention pooling": net(
        lambda s, x: (lambda y: s.o((s.w(torch.tanh(s.v(y))).softmax(1) * y).sum(1)))(s.i(x)),
        "i v w o",
        tokens,
        i=lambda: L(8, 16),
        v=lambda: L(16, 12),
        w=lambda: L(12, 1),
        o=lambda: L(16, 4),
    ),
    "one head": net(
        lambda s, x: s.o((s.q(x) @ s.k(x).transpose(1, 2) * 0.25).softmax(-1) @ s.v(x)),
        "q k v o",
        tokens,
        q=lambda: L(8, 16),
        k=lambda: L(8, 16),
        v=lambda: L(8, 12),
        o=lambda: L(12, 4),
    ),
    "key of one image pixel": net(
        lambda s, x: s.o(x @ s.q(x).mean(1, keepdim=True).transpose(1, 2)),
        "",
        tokens,
        q=lambda: L(8, 8),
        o=lambda: L(1, 4),
    ),
}

__all__ = ["PATTERNS", "image"]
