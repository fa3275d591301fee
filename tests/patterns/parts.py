"""Parts counted from the end, masked weights, masks repeated for heads, positions that an attribute tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from judge import Build, Net, conv, image, net, of, tokens
from torch import nn


def halves(take: Any) -> Build:
    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        low, high = take(F.relu(s.a(x)), s.half)
        return s.b(low) + s.c(high)  # type: ignore[no-any-return]

    parts = {"a": lambda: nn.Linear(8, 16), "b": lambda: nn.Linear(8, 4), "c": lambda: nn.Linear(8, 4)}
    return net(forward, "a b c", tokens, half=lambda: 8, **parts)


def numbered(take: Any, must: str = "a c", second: int = 28) -> Build:
    """Bounds that are numbers: as many channels stay before the first, or after the last."""

    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        few, many = take(F.relu(s.a(x)))
        return s.b(few) + s.c(many)  # type: ignore[no-any-return]

    parts = {
        "a": lambda: nn.Linear(8, 32),
        "b": lambda: nn.Linear(32 - second, 4),
        "c": lambda: nn.Linear(second, 4),
    }
    return net(forward, must, tokens, **parts)


def after_the_input(s: Any, x: torch.Tensor) -> torch.Tensor:
    """What layers made is taken out again from behind the input."""
    y = torch.cat([x, s.a(x).relu()], -1)
    y = torch.cat([y, s.b(y).relu()], -1)
    return s.o(y[..., x.shape[-1] :])  # type: ignore[no-any-return]


def added_to_parts(s: Any, x: torch.Tensor) -> torch.Tensor:
    """What low-rank adapters add to the first and the last part of a packed layer."""
    x = s.e(x)
    qkv = s.qkv(x)
    qkv[..., : s.width] += s.first(x)
    qkv[..., -s.width :] += s.last(x)
    q, k, v = qkv.chunk(3, -1)
    return s.o(x + q.relu() * k * v)  # type: ignore[no-any-return]


def weighted(weight: Any) -> Build:
    """A layer whose weight is made of a parameter and something else."""

    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        return s.o(F.linear(s.i(x), weight(s)).relu())  # type: ignore[no-any-return]

    return net(
        forward,
        "i w o",
        tokens,
        i=lambda: nn.Linear(8, 12),
        w=lambda: nn.Parameter(torch.randn(16, 12)),
        g=lambda: nn.Parameter(torch.rand(16, 1) + 0.5),
        m=lambda: nn.Buffer(((torch.arange(16)[:, None] + torch.arange(12)) % 3 > 0).float()),
        o=lambda: nn.Linear(16, 4),
    )


def repeated_mask(s: Any, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    b, t, _ = x.shape
    q, k, v = (part(x).view(b, t, s.heads, s.size).transpose(1, 2) for part in (s.q, s.k, s.v))
    mask = mask.unsqueeze(1).repeat(1, s.heads, 1, 1)
    y = (q @ k.transpose(-1, -2) * 0.5).masked_fill(mask, -1e9).softmax(-1) @ v
    return s.o(y.transpose(1, 2).reshape(b, t, s.heads * s.size))  # type: ignore[no-any-return]


def gathered_bias(s: Any, x: torch.Tensor) -> torch.Tensor:
    b, t, _ = x.shape
    q, k, v = (p.reshape(b, t, s.heads, -1).transpose(1, 2) for p in s.qkv(x).chunk(3, -1))
    bias = s.table.gather(0, s.places.repeat(1, s.heads)).reshape(t, t, -1).permute(2, 0, 1)
    y = (q @ k.transpose(-1, -2) * 0.4 + bias).softmax(-1) @ v
    return s.o(y.transpose(1, 2).reshape(b, t, -1))  # type: ignore[no-any-return]


def grown(norm: Any, shape: Any) -> Build:
    """An image that a linear layer makes of a vector, and a norm over its channels."""

    def forward(s: Any, z: torch.Tensor) -> torch.Tensor:
        return s.c(s.n(s.a(z).view(shape(s, z))))  # type: ignore[no-any-return]

    return net(
        forward,
        "a c",
        lambda: torch.randn(2, 8),
        a=lambda: nn.Linear(8, 256),
        n=norm,
        c=lambda: nn.Conv2d(16, 4, 3, padding=1),
        width=lambda: 16,
        side=lambda: 4,
    )


class Merged(nn.Module):
    """Out of train mode, a convolution whose weight is made of those of two others, as soon as it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(8, 16, 1)
        self.merged = nn.Conv2d(8, 16, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            return self.wide(x) + self.narrow(x)  # type: ignore[no-any-return]
        wide, narrow = self.wide.weight.data.clone(), F.pad(self.narrow.weight.data.clone(), [1, 1, 1, 1])
        self.merged.weight.data = (wide.flip(2, 3) + narrow).contiguous()
        self.merged.bias.data = self.wide.bias.data + self.narrow.bias.data  # type: ignore[union-attr]
        return self.merged(x)  # type: ignore[no-any-return]


def attention(**more: Any) -> dict[str, Any]:
    layers = {name: lambda: nn.Linear(8, 16) for name in "qkv"}
    return {**layers, "o": lambda: nn.Linear(16, 4), "heads": lambda: 4, "size": lambda: 4, **more}


NORMS = {
    "batch norm": lambda: nn.BatchNorm2d(16),
    "instance norm": lambda: nn.InstanceNorm2d(16),
    "group norm": lambda: nn.GroupNorm(4, 16),
}
SHAPES = {
    "of attributes": lambda s, z: (-1, s.width, s.side, s.side),
    "of the rest": lambda s, z: (z.shape[0], -1, s.side, s.side),
}


def _first_in_place(t: torch.Tensor) -> torch.Tensor:
    t[:, : t.shape[1] // 2].relu_()
    return t


def _first_written(t: torch.Tensor) -> torch.Tensor:
    u = t.clone()
    u[:, : t.shape[1] // 2] = t[:, : t.shape[1] // 2].sigmoid()
    return u


def skewed(fn: Callable[[torch.Tensor], torch.Tensor]) -> Build:
    """a -> fn -> b, where the channels of the first half are the larger ones."""

    def build() -> tuple[nn.Module, Any, str]:
        width = fn(torch.zeros(1, 16, 2, 2)).shape[1]
        model = Net(lambda s, x: s.b(fn(s.a(x))), a=conv(3, 16), b=conv(width, 8))
        with torch.no_grad():
            model.a.weight[:8] *= 10
        return model, (image(),), "a b"

    return build


PATTERNS: dict[str, Build] = {
    "last part": halves(lambda x, n: (x[..., :n], x[..., -n:])),
    "all but the last part, last part": halves(lambda x, n: (x[..., :-n], x[..., -n:])),
    "last part by narrow": halves(lambda x, n: (x.narrow(-1, 0, n), x.narrow(-1, -n, n))),
    "last part, of its shape": halves(lambda x, n: (x[..., : x.shape[-1] // 2], x[..., -(x.shape[-1] // 2) :])),
    "first four, the others": numbered(lambda x: (x[..., :4], x[..., 4:])),
    "first, the others": numbered(lambda x: (x[..., :1], x[..., 1:]), second=31),
    "first by narrow": numbered(lambda x: (x.narrow(-1, 0, 4), x.narrow(-1, 4, 28)), ""),
    "last four, the others": numbered(lambda x: (x[..., -4:], x[..., :-4])),
    "last by its number, the others": numbered(lambda x: (x[..., 28:], x[..., :28]), ""),
    "few by narrow": numbered(lambda x: (x.narrow(-1, 0, 4), x[..., 4:])),
    "picked at once": numbered(lambda x: (x[..., 0:1] * x[..., 2:3], x[..., 1:]), second=31),
    "picked from the end": numbered(lambda x: (x[..., -1].unsqueeze(-1) * x[..., -2:-1], x[..., 1:]), second=31),
    "a part in the middle": numbered(lambda x: (x[..., 2:6], torch.cat([x[..., :2], x[..., 6:]], -1))),
    "more than there are": numbered(lambda x: (x[..., :4], x[..., 4:99])),
    "after the input": net(
        after_the_input,
        "a b o",
        tokens,
        a=lambda: nn.Linear(8, 24),
        b=lambda: nn.Linear(32, 24),
        o=lambda: nn.Linear(48, 4),
    ),
    "added to parts": net(
        added_to_parts,
        "e qkv first last o",
        tokens,
        e=lambda: nn.Linear(8, 16),
        qkv=lambda: nn.Linear(16, 48),
        first=lambda: nn.Linear(16, 16),
        last=lambda: nn.Linear(16, 16),
        o=lambda: nn.Linear(16, 4),
        width=lambda: 16,
    ),
    "mask times weight": weighted(lambda s: s.m * s.w),
    "weight times mask": weighted(lambda s: s.w * s.m),
    "gain times weight": weighted(lambda s: s.g * s.w),
    "mask plus weight": weighted(lambda s: s.m + s.w),
    "mask repeated for the heads": net(
        repeated_mask, "q k v o", lambda: (tokens(), torch.ones(4, 5, 5).triu(1).bool()), **attention()
    ),
    "bias gathered for repeated places": net(
        gathered_bias,
        "qkv o",
        tokens,
        qkv=lambda: nn.Linear(8, 48),
        o=lambda: nn.Linear(16, 4),
        heads=lambda: 4,
        table=lambda: nn.Parameter(torch.randn(9, 4)),
        places=lambda: nn.Buffer((torch.arange(5)[:, None] - torch.arange(5) + 4).flatten()[:, None]),
    ),
    "convolutions merged when they run": of(
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Merged(), nn.SiLU(), nn.Conv2d(16, 4, 1)), "0 1.merged 3"
    ),
    **{
        f"image {sizes} of a vector, {kind}": grown(norm, shape)
        for kind, norm in NORMS.items()
        for sizes, shape in SHAPES.items()
    },
    **{
        f"halves by a quotient, {name}": skewed(fn)
        for name, fn in {
            "the first in place": lambda t: _first_in_place(t),
            "the first written": lambda t: _first_written(t),
            "the last": lambda t: torch.cat([t[:, : t.shape[1] // 2], t[:, t.shape[1] // 2 :].sigmoid()], 1),
            "the first narrowed": lambda t: t.narrow(1, 0, t.shape[1] // 2),
            "the first of four": lambda t: t[:, : t.shape[1] // 4],
        }.items()
    },
}
