"""Networks that see memory with other strides: windows that overlap, and what such views do to channels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from judge import Build, net, of, tokens
from torch import nn

L = nn.Linear


def between(fn: Callable[[torch.Tensor], torch.Tensor], must: str = "a b") -> Build:
    """Linear a over (4, 6) tokens -> fn -> linear b"""
    return net(lambda s, x: s.b(fn(s.a(x))), must, lambda: tokens(4, 6, 8), a=lambda: L(8, 16), b=lambda: L(16, 8))


def windows(t: torch.Tensor) -> torch.Tensor:
    """Three positions at each of four places."""
    n, _, width = t.shape
    batch, row, channel = t.stride()
    return t.as_strided((n, 4, 3, width), (batch, row, row, channel))


def literal_windows(t: torch.Tensor) -> torch.Tensor:
    return t.as_strided((4, 4, 3, 16), (96, 16, 16, 1))


def halves(t: torch.Tensor) -> torch.Tensor:
    """Of the channels two windows of half the width: they go along the channels, too."""
    n, length, width = t.shape
    seen = t.as_strided((n, length, 2, width // 2), (*t.stride()[:2], width // 2, 1))
    return seen.flatten(2)


def overlapping_channels(t: torch.Tensor) -> torch.Tensor:
    n, length, width = t.shape
    return t.as_strided((n, length, 2, width - 1), (*t.stride()[:2], 1, 1)).sum(2).repeat(1, 1, 2)[..., :width]


def later(t: torch.Tensor) -> torch.Tensor:
    """From the second position on."""
    n, length, width = t.shape
    return t.as_strided((n, length - 1, width), t.stride(), t.stride(1))


def second_channel_on(t: torch.Tensor) -> torch.Tensor:
    """From the second channel on: rows end with the first channel of the next."""
    n, length, width = t.shape
    return t.as_strided((n, length - 1, width), t.stride(), 1)


def channels_first(t: torch.Tensor) -> torch.Tensor:
    n, length, width = t.shape
    batch, row, channel = t.stride()
    return t.as_strided((width, n, length), (channel, batch, row)).permute(1, 2, 0)


def of_memory_in_another_order(t: torch.Tensor) -> torch.Tensor:
    t = t.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    return windows(t)


def as_if_in_order(t: torch.Tensor) -> torch.Tensor:
    """By the strides that a tensor of these sizes has mostly; this one lies in memory in another order."""
    t = t.permute(2, 0, 1).contiguous().permute(1, 2, 0) * 2
    return t.as_strided(t.shape, (t.shape[1] * t.shape[2], t.shape[2], 1))


def as_if_wider(t: torch.Tensor) -> torch.Tensor:
    """Every second row, by a number that was the width."""
    return t.as_strided((t.shape[0], 3, t.shape[2]), (t.stride(0), 32, 1))


class Sliding(nn.Module):
    """Attention over windows: heads and positions by strides."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.q, self.k, self.v, self.o = L(8, 32), L(8, 32), L(8, 32), L(32, 8)

    def split(self, t: torch.Tensor) -> torch.Tensor:
        n, length, width = t.shape
        t = t.view(n, length, self.heads, width // self.heads).transpose(1, 2)
        return t.reshape(n * self.heads, length, width // self.heads)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (self.split(layer(x)) for layer in (self.q, self.k, self.v))
        scores = torch.einsum("bpd,bpwd->bpw", q[:, :4], windows(k)).softmax(-1)
        out = torch.einsum("bpw,bpwd->bpd", scores, windows(v))
        out = out.view(x.shape[0], self.heads, 4, -1).transpose(1, 2).flatten(2)
        return self.o(out)  # type: ignore[no-any-return]


PATTERNS: dict[str, Build] = {
    "windows": between(lambda t: windows(t).sum(2)),
    "windows of a fixed width": between(lambda t: literal_windows(t).sum(2), ""),
    "halves of the channels": between(halves, ""),
    "channels that overlap": between(overlapping_channels, ""),
    "from the second position on": between(later),
    "from the second channel on": between(second_channel_on, ""),
    "channels first": between(channels_first),
    "memory in another order": between(lambda t: of_memory_in_another_order(t).sum(2)),
    "memory in another order, seen as if not": between(as_if_in_order, ""),
    "a stride that is a number": between(as_if_wider, ""),
    "attention over windows": of(Sliding, "q k v o", lambda: tokens(4, 6, 8)),
}
