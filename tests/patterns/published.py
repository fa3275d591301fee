"""Idioms of published code: matrices over maps, offsets in loops, one part of one, shapes of the last run, constant
inputs, padding of lists."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import einops
import torch
import torch.nn.functional as F
from einops.layers.torch import Rearrange
from judge import Build, conv, image, net, of, tokens
from torch import nn

L = nn.Linear


def over_a_map(fn: Callable[[Any, torch.Tensor], torch.Tensor], must: str = "a b") -> Build:
    """A buffer A (8, 8) and a map of 16 channels."""
    return net(lambda s, x: s.b(fn(s, s.a(x))), must, a=lambda: conv(3, 16), b=lambda: conv(16, 5), A=square)


def square() -> nn.Buffer:
    return nn.Buffer(torch.rand(8, 8))


def by_maps_of_samples(s: Any, x: torch.Tensor) -> torch.Tensor:
    """(b, 1, n, n) by (b, c, n, m)"""
    y: torch.Tensor = s.a(x)
    return s.b((x.mean(1, keepdim=True) * s.A).softmax(-1) @ y)  # type: ignore[no-any-return]


class Gates(nn.Module):
    """WaveNet's: all layers' conditions out of one convolution, taken at offsets that a loop counts."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.layers, self.width = layers, width
        self.condition = nn.Conv1d(6, 2 * width * layers, 1)
        self.dilated = nn.ModuleList(nn.Conv1d(6, 2 * width, 3, padding=1) for _ in range(layers))
        self.skip = nn.ModuleList(nn.Conv1d(width, 4, 1) for _ in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        condition, total = self.condition(x), torch.zeros(())
        for i in range(self.layers):
            at = i * 2 * self.width
            y = self.dilated[i](x) + condition[:, at : at + 2 * self.width]
            total = total + self.skip[i](y[:, : self.width].tanh() * y[:, self.width :].sigmoid())
        return total


class Parts(nn.Module):
    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.widths = widths
        self.a, self.all = conv(3, 16), conv(16, sum(widths), 1)
        self.each = nn.ModuleList(conv(n, 4) for n in widths)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [b(t) for b, t in zip(self.each, self.all(self.a(x)).split(self.widths, 1), strict=True)]


class Head(nn.Module):
    """Keeps the shape of the last image, and its places for it."""

    def __init__(self, ran: bool) -> None:
        super().__init__()
        self.shape: Any = None
        self.a, self.b = conv(3, 12), conv(12, 5)
        if ran:
            self(image())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        if self.shape != y.shape:
            self.places = torch.arange(y.shape[-1], dtype=y.dtype)
            self.shape = y.shape
        return self.b(y) * self.places  # type: ignore[no-any-return]


def scaled(out: Callable[[Any, torch.Tensor], torch.Tensor]) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    """A network of constants, scaled by its input."""
    return lambda s, x: out(s, x) * x.mean()


def after_a_run(build: Build) -> Build:
    def ran() -> tuple[nn.Module, Any, str]:
        model, inputs, must = build()
        model(*inputs)
        return model, inputs, must

    return ran


def rearranged(s: Any, x: torch.Tensor) -> torch.Tensor:
    y = einops.rearrange(s.a(x), "b (g c) h w -> b g c (h w)", g=2)
    return s.b(einops.rearrange(y.softmax(-1), "b g c (h w) -> b (g c) h w", h=8))  # type: ignore[no-any-return]


def rearranged_inside(s: Any, x: torch.Tensor) -> torch.Tensor:
    from einops import rearrange

    y = rearrange(s.a(x), "b (g c) h w -> b g c h w", g=2)
    return s.b(rearrange(y.tanh(), "b g c h w -> b (g c) h w"))  # type: ignore[no-any-return]


def padded_list(s: Any, x: torch.Tensor) -> torch.Tensor:
    parts = [t[:n] for t, n in zip(s.a(x), (5, 3, 4, 1), strict=True)]
    first = nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_side="left")
    return s.b(first + nn.utils.rnn.pad_sequence(parts, padding_value=0.5).transpose(0, 1))  # type: ignore[no-any-return]


def halves(half: Callable[[Any, torch.Tensor], int]) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    """Two halves, by what the code says that one is."""

    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        y = s.a(x)
        n = half(s, y)
        one, two = y.split(n, 1)
        return s.b(one * two + y[:, :n] - y.narrow(1, n, n) + y.view(-1, 2, n, *y.shape[2:]).sum(1))  # type: ignore[no-any-return]

    return forward


def written_out(s: Any, x: torch.Tensor) -> torch.Tensor:
    """A number that is also a size that was made a plain integer before, elsewhere."""
    y = s.a(x)
    assert int(y.shape[1]) == 16
    return s.b(y.reshape(-1, 16, 4).flip(-1).reshape(y.shape))  # type: ignore[no-any-return]


def limited(s: Any, x: torch.Tensor) -> torch.Tensor:
    """In two parts where it takes more memory than that."""
    y: torch.Tensor = s.a(x)
    if y.shape[0] * y.shape[1] * y.shape[2] * y.shape[3] * 4 / 1024**3 > 2:
        return torch.cat([s.b(part) for part in y.chunk(2)])
    return s.b(y)  # type: ignore[no-any-return]


def limited_as_a_number(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Here half the channels are below the limit."""
    y: torch.Tensor = s.a(x)
    return s.b(y * (2 if y.shape[1] / 4 > 3 else 1))  # type: ignore[no-any-return]


class Heads(nn.Module):
    """Heads by layers of einops, that keep their number in a dictionary, and its items."""

    def __init__(self, **lengths: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = L(8, 32), L(8, 32), L(8, 32), L(32, 8)
        self.apart, self.join = Rearrange("b n (h d) -> b h n d", **lengths), Rearrange("b h n d -> b n (h d)")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (self.apart(part(x)) for part in (self.q, self.k, self.v))
        return self.o(self.join((q @ k.mT).softmax(-1) @ v))  # type: ignore[no-any-return]


class Kept(Heads):
    """Heads whose number is kept by `place`, and found there again."""

    def __init__(self, place: Callable[[int], Any], find: Callable[[Any], int]) -> None:
        super().__init__(h=4)
        self.kept, self.find = place(4), find

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            part(x).unflatten(-1, (self.find(self.kept), -1)).transpose(1, 2) for part in (self.q, self.k, self.v)
        )
        return self.o(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Graph(nn.Module):
    """A graph convolution over partitions of the neighbours, and a residual."""

    def __init__(self, partitions: int) -> None:
        super().__init__()
        self.partitions, self.A = partitions, nn.Buffer(torch.rand(partitions, 5, 5))
        self.g, self.n = nn.Conv2d(3, 14 * partitions, 1), nn.BatchNorm2d(14)
        self.r, self.t = nn.Conv2d(3, 14, 1), nn.Conv2d(14, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.g(x)
        n, kc, t, v = y.size()
        y = y.view(n, self.partitions, kc // self.partitions, t, v)
        return self.t(self.n(torch.einsum("nkctv,kvw->nctw", y, self.A)).relu() + self.r(x))  # type: ignore[no-any-return]


class Edges(nn.Module):
    """What comes along the edges of a graph, head by head, is added up at their ends."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.size = 4, 8
        self.a, self.b = L(8, 32, bias=False), L(32, 3)
        self.att = nn.Parameter(torch.randn(1, 4, 8))

    def forward(self, x: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        x = self.a(x).view(-1, self.heads, self.size)
        weights = (x * self.att).sum(-1)[ends[0]].exp()
        moved = x[ends[0]] * weights.unsqueeze(-1)
        to = ends[1].view(-1, 1, 1).expand_as(moved)
        out = moved.new_zeros(len(x), *moved.shape[1:]).scatter_add_(0, to, moved)
        return self.b(out.view(-1, self.heads * self.size))  # type: ignore[no-any-return]


def edges() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(6, 8), torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2], [1, 2, 3, 4, 5, 0, 3, 5]])


def normalized_heads(s: Any, x: torch.Tensor) -> torch.Tensor:
    heads = s.a(x).unflatten(-1, (s.heads, -1))
    return s.b(F.normalize(heads, dim=(2, 3)).flatten(2))  # type: ignore[no-any-return]


MAPS = {"a": lambda: conv(3, 16), "b": lambda: conv(16, 5)}
HALVED = {"a": lambda: conv(3, 16), "b": lambda: conv(8, 5)}
PATTERNS: dict[str, Build] = {
    "a matrix by a map": over_a_map(lambda s, y: s.A @ y),
    "a map by a matrix": over_a_map(lambda s, y: y.transpose(2, 3) @ s.A),
    "a map between two matrices": over_a_map(lambda s, y: torch.matmul(s.A, y).matmul(s.A.T)),
    "a matrix of its own batch by a map": over_a_map(lambda s, y: s.A.softmax(-1)[None, None] @ y),
    "a part of a map by a matrix": over_a_map(lambda s, y: torch.cat([s.A @ t for t in y.chunk(2, 1)], 1)),
    "a map of each sample by its features": net(by_maps_of_samples, "a b", A=square, **MAPS),
    "gates at offsets": of(lambda: Gates(3, 8), "condition dilated.1 skip.1", lambda: image(2, 6, 10)),
    "a split into one": of(lambda: Parts([6]), "a all each.0"),
    "a split into two": of(lambda: Parts([6, 10]), "a all each.0"),
    "the shape of a run": of(lambda: Head(ran=True), "a b"),
    "no shape yet": of(lambda: Head(ran=False), "a b"),
    "a constant image": net(
        scaled(lambda s, x: s.b(s.p.repeat(len(x), 1, 1, 1))),
        "p b",
        p=lambda: nn.Parameter(torch.randn(1, 16, 4, 4)),
        b=lambda: conv(16, 5),
    ),
    "a constant image, normalized": net(
        scaled(lambda s, x: s.c(s.b(s.n(s.p.expand(len(x), -1, -1, -1))).relu())),
        "p n b c",
        p=lambda: nn.Parameter(torch.randn(1, 16, 4, 4)),
        n=lambda: nn.BatchNorm2d(16),
        b=lambda: conv(16, 12),
        c=lambda: conv(12, 5),
    ),
    "planes that are sampled": net(
        lambda s, x: s.b(F.grid_sample(s.p.expand(2, -1, -1, -1), x[:, :2].permute(0, 2, 3, 1), align_corners=False)),
        "p b",
        p=lambda: nn.Parameter(torch.randn(1, 16, 4, 4)),
        b=lambda: conv(16, 5),
    ),
    "rows of a parameter": net(
        lambda s, i: s.b(s.p[i].relu()),
        "p b",
        lambda: torch.randint(0, 6, (2, 5)),
        p=lambda: nn.Parameter(torch.randn(6, 12)),
        b=lambda: L(12, 4),
    ),
    "queries that nothing sums over": net(
        lambda s, x: s.b((s.p @ s.a(x).mT).softmax(-1)),
        "a p",
        tokens,
        p=lambda: nn.Parameter(torch.randn(6, 12)),
        a=lambda: L(8, 12),
        b=lambda: L(5, 4),
    ),
    "rearranged by a function": net(rearranged, "a b", **MAPS),
    "rearranged by a function, after a run": after_a_run(net(rearranged, "a b", **MAPS)),
    "rearranged by what it imports, after a run": after_a_run(net(rearranged_inside, "a b", **MAPS)),
    "half of a shape as a plain integer": net(halves(lambda s, y: int(y.shape[1] // 2)), "a b", **HALVED),
    "half of a width as a plain integer": net(halves(lambda s, y: int(s.n)), "a b", n=lambda: 8, **HALVED),
    "half by a division": net(halves(lambda s, y: int(y.shape[1] / 2)), "a b", **HALVED),
    "half by a division, rounded down": net(halves(lambda s, y: math.floor(s.n / 2)), "a b", n=lambda: 16, **HALVED),
    "a third by a division": net(halves(lambda s, y: int(y.shape[1] / 3) + 3), "", **HALVED),
    "a limit of memory": net(limited, "a b", **MAPS),
    "a limit of memory as a number": net(limited_as_a_number, "", **MAPS),
    "a mean by a division": net(lambda s, x: s.b(s.a(x) / (s.n / 2)), "", n=lambda: 16, **MAPS),
    "a mean by a power of a division": net(lambda s, x: s.b(s.a(x) * (s.n / 2) ** -0.5), "", n=lambda: 16, **MAPS),
    "a number that a plain integer was": net(written_out, "", **MAPS),
    "heads by layers of their number": of(lambda: Heads(h=4), "q k v o", tokens),
    "heads by layers of their size": of(lambda: Heads(d=8), "q k v o", tokens),
    "heads by layers of both": of(lambda: Heads(h=4, d=8), "q k v o", tokens),
    "heads in a list of lists": of(lambda: Kept(lambda h: [[8], [h, 2]], lambda k: k[1][0]), "q k v o", tokens),
    "heads in pairs": of(lambda: Kept(lambda h: ((h, 8), (2, 3)), lambda k: k[0][0]), "q k v o", tokens),
    "a graph of partitions": of(lambda: Graph(3), "g n r t", lambda: image(2, 3, 6, 5)),
    "a graph of more partitions": of(lambda: Graph(4), "g n r t", lambda: image(2, 3, 6, 5)),
    "edges of a graph": of(Edges, "a att b", edges),
    "heads normalized together": net(
        normalized_heads, "a b", tokens, heads=lambda: 4, a=lambda: L(8, 32), b=lambda: L(32, 3)
    ),
    "a padded list": net(padded_list, "a b", tokens, a=lambda: L(8, 16), b=lambda: L(16, 4)),
}
