"""Networks that ask functions with a memory (functools.lru_cache) for sizes, and for tensors of such sizes."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from judge import Build, of, tokens
from torch import nn


@functools.lru_cache
def split_up(shape: tuple[int, ...], heads: int) -> tuple[int, ...]:
    """(batch, n, heads * size): (batch, n, heads, size)"""
    return (*shape[:-1], heads, shape[-1] // heads)


@functools.cache
def joined(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:-2], shape[-2] * shape[-1])


@functools.lru_cache
def ramp(n: int, of: int) -> torch.Tensor:
    return torch.arange(n) % of


class Attention(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(16, 16) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = ((part(x), self.heads) for part in (self.q, self.k, self.v))
        q, k, v = (t.reshape(split_up(t.shape, heads)).transpose(1, 2) for t, heads in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, scale=0.5).transpose(1, 2)
        out: torch.Tensor = self.o(mixed.reshape(joined(mixed.shape)))
        return out


class Network(nn.Module):
    """Two attentions of one size; `warm`: what the functions remember of a pass before."""

    def __init__(self, warm: bool) -> None:
        super().__init__()
        self.one, self.two = Attention(4), Attention(4)
        if warm:
            self(tokens(4, 5, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.one(x)
        out: torch.Tensor = x + self.two(x)
        return out


class Placed(nn.Module):
    """Positions that are remembered, of several inputs that have the same."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.period = nn.Linear(8, 16), nn.Linear(16, 8), 3
        self.table = nn.Parameter(torch.randn(3, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.a(part) + self.table[ramp(part.shape[1], self.period)] for part in x.chunk(2)]
        out: torch.Tensor = self.b(torch.cat(parts))
        return out


LAYERS = "one.q one.k one.v one.o two.q two.k two.v two.o"
PATTERNS: dict[str, Build] = {
    "shapes": of(lambda: Network(warm=False), LAYERS, lambda: tokens(4, 5, 16)),
    "shapes, asked before": of(lambda: Network(warm=True), LAYERS, lambda: tokens(4, 5, 16)),
    "positions of several inputs": of(Placed, "a b", tokens),
}
