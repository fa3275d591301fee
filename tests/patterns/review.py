"""Networks that a review found to come back wrong, or to be refused: right, or left whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from judge import Build, Net, between, conv, image, net, tokens
from torch import nn

L, C = nn.Linear, conv


def two(fn: Callable[..., Any]) -> Build:
    """Convs a, c and d of 16 channels; b and e read 16."""
    return net(
        fn,
        "",
        a=lambda: C(3, 16),
        c=lambda: C(3, 16),
        d=lambda: C(3, 16),
        b=lambda: C(16, 8),
        e=lambda: C(16, 8),
    )


def base_overwritten(s: Any, x: torch.Tensor) -> torch.Tensor:
    y = s.a(x)
    view = y[:, :, 1:]
    y.copy_(s.c(x))
    return s.b(view)  # type: ignore[no-any-return]


def alias_overwritten(s: Any, x: torch.Tensor) -> torch.Tensor:
    y = s.a(x)
    y.detach().copy_(s.c(x))
    return s.b(y)  # type: ignore[no-any-return]


def data_overwritten(s: Any, x: torch.Tensor) -> torch.Tensor:
    y = s.a(x)
    y.data.copy_(s.c(x))
    return s.b(y)  # type: ignore[no-any-return]


def second_half(t: torch.Tensor) -> torch.Tensor:
    """The second half, by its offset from the first."""
    first = t.chunk(2, 1)[0]
    return torch.cat([first.as_strided(first.shape, first.stride(), first.shape[1] * 64), first * 2], 1)


def picked(s: Any, x: torch.Tensor) -> torch.Tensor:
    u, v = s.a(x), s.c(x)
    return s.b(u if u.shape[1] > 8 else v) + s.e(v)  # type: ignore[no-any-return]


def scaled_by_numpy(s: Any, x: torch.Tensor) -> torch.Tensor:
    q, k, v = (part(x).flatten(2) for part in (s.q, s.k, s.v))
    scores = q.transpose(1, 2) @ k / np.sqrt(q.shape[1])
    return s.o((v @ scores.softmax(1)).unflatten(2, x.shape[2:]))


def copied(s: Any, x: torch.Tensor) -> torch.Tensor:
    y = s.a(x)
    z = y.clone() if y.shape[1] > 8 else y
    z.mul_(2)
    return s.b(y)  # type: ignore[no-any-return]


def rows_from_size(s: Any, x: torch.Tensor) -> torch.Tensor:
    t = s.a(x)
    n = t.shape[1]
    return s.b(t[:, :, n : n + 4])  # type: ignore[no-any-return]


def input_rows_from_size(s: Any, x: torch.Tensor) -> torch.Tensor:
    t = s.a(x[:, :, :4])
    n = t.shape[1]
    return s.b(t * x[:, :1, n : n + 4])  # type: ignore[no-any-return]


def tall() -> torch.Tensor:
    return image(2, 3, 32, 8)


def rolled(t: torch.Tensor) -> torch.Tensor:
    return torch.arange(t.shape[1], t.shape[1] + 4).to(t.dtype).sum() * 0.1


class Chosen(nn.Module):
    """Of two parameters, or of two buffers, the size chooses one."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__()
        self.a, self.b = C(3, 16), C(16, 8)
        self.p, self.q = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(5.0))
        self.register_buffer("k", torch.tensor([1, 2]))
        self.register_buffer("m", torch.tensor([4, 2]))
        self.first, self.second = first, second

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        t = self.a(x)
        scale = getattr(self, self.first if t.shape[1] > 8 else self.second)
        return self.b(t) * scale.sum()  # type: ignore[no-any-return]


def chosen(first: str, second: str) -> Build:
    return lambda: (Chosen(first, second), (image(),), "")


SCALES = [torch.tensor(1.0), torch.tensor(2.0)]


class FrozenPart(nn.Module):
    """Channels that stay, of which a part is taken by another layer's size."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.c, self.b = C(3, 16), C(3, 16), C(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        t, y = self.a(x), self.c(x)
        n = int(t.shape[1])
        return self.b(t) * y[:, n - 8 : n - 4].mean(1, keepdim=True) + y  # type: ignore[no-any-return]


def shared_by_groups() -> tuple[nn.Module, Any, str]:
    one = nn.Conv2d(8, 16, 3, padding=1, groups=2, bias=False)
    two = nn.Conv2d(16, 16, 3, padding=1, groups=4, bias=False)
    two.weight = one.weight
    return Net(lambda s, x: s.b(s.two(s.one(s.a(x)))), a=C(3, 8), one=one, two=two, b=C(16, 8)), (image(),), ""


def fewer_channels(s: Any, x: torch.Tensor) -> torch.Tensor:
    rows = torch.zeros(4, 1, 1, dtype=torch.long).expand(4, 3, 8)
    return s.b(torch.gather(s.a(x), 1, rows))  # type: ignore[no-any-return]


def weight_alone(s: Any, x: torch.Tensor) -> torch.Tensor:
    return s.b(torch.tanh(F.linear(x, s.a.weight)))  # type: ignore[no-any-return]


def bias_of_shuffled(s: Any, x: torch.Tensor) -> torch.Tensor:
    y = F.channel_shuffle(F.conv2d(x, s.a.weight, padding=1), 4)
    return s.b(torch.relu(y + s.a.bias.view(1, -1, 1, 1)))  # type: ignore[no-any-return]


class Slimmable(nn.Module):
    """Of a layer only the first rows."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.k = C(3, 16), C(12, 8), 12

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(F.conv2d(x, self.a.weight[: self.k], self.a.bias[: self.k], padding=1))  # type: ignore[no-any-return]


class Table(nn.Module):
    """An array that a size was used for; the size is seen in its last elements alone."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = L(8, 16), L(16, 5000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        table = np.zeros((5000,))
        table[-1] = 1 / np.sqrt(int(y.shape[-1]))
        return self.b(y) + torch.from_numpy(table)  # type: ignore[no-any-return]


LARGE = [torch.arange(5000, dtype=torch.float64) + i for i in range(3)]


class Assigned(nn.Module):
    def __init__(self, weights: bool) -> None:
        super().__init__()
        self.a, self.c, self.b, self.e = L(8, 16), L(8, 16), L(16, 4), L(16, 4)
        self.weights = weights

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        out = self.e(y)
        if self.weights:
            self.c.weight.data = self.a.weight.data.clone()
            self.c.bias.data = self.a.bias.data.clone()
            return out + self.b(self.c(x))  # type: ignore[no-any-return]
        y.data = self.c(x).data * 1.5
        return self.b(y) + out  # type: ignore[no-any-return]


class Rotated(nn.Module):
    """Pairs of channels as complex numbers, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = L(8, 16), L(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x).view(torch.complex128 if x.dtype == torch.float64 else torch.complex64)
        t = torch.arange(x.shape[1], dtype=x.dtype)[:, None]
        return self.b((y * torch.polar(torch.ones_like(t), t)).view(x.dtype))  # type: ignore[no-any-return]


def places(s: Any, x: torch.Tensor) -> torch.Tensor:
    values, at = F.max_pool2d(s.a(x).unsqueeze(1), (2, 1), return_indices=True)
    return s.b(values.squeeze(1)) + at.to(x.dtype).mean()  # type: ignore[no-any-return]


def heads_written(s: Any, x: torch.Tensor) -> torch.Tensor:
    b, n, _ = x.shape
    v = s.v(x).view(b, n, s.h, 8)
    w = v.transpose(1, 2).reshape(b * s.h, n, 8)  # a view where one head stays
    w *= 0.5
    return s.o(w.view(b, s.h, n, 8).transpose(1, 2).reshape(b, n, -1)) + s.r(v.flatten(2))  # type: ignore[no-any-return]


class Heads(Net):
    def __init__(self) -> None:
        super().__init__(heads_written, v=L(8, 16), o=L(16, 4), r=L(16, 4))
        self.h = 2


class Asymmetric(nn.Module):
    """A kernel that is the sum of others, filled up with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.v = nn.Parameter(torch.randn(16, 3, 3, 3)), nn.Parameter(torch.randn(16, 3, 3, 1))
        self.b = C(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel = self.w + F.pad(self.v, (1, 1, 0, 0))
        return self.b(torch.relu(F.conv2d(x, kernel, padding=1)))  # type: ignore[no-any-return]


def half_replaced(s: Any, x: torch.Tensor) -> torch.Tensor:
    y = s.a(x).clone()
    k = y.shape[1] // 2
    y[:, :k] = s.c(x)
    return s.b(y)  # type: ignore[no-any-return]


def normed(fn: Callable[..., Any]) -> Build:
    """Conv a, a batch norm, which is another operation in train mode, and conv b of as many channels; o reads them."""
    return net(
        lambda s, x: s.o(fn(s, s.n(s.a(x)))),
        "a b",
        a=lambda: C(3, 16),
        n=lambda: nn.BatchNorm2d(16),
        b=lambda: C(16, 16),
        o=lambda: C(16, 4),
    )


def row_replaced(s: Any, x: torch.Tensor) -> torch.Tensor:
    y = s.a(x).clone()
    y[0] = y[1:2]  # assignment drops leading dims of one element
    y[:, :, 0] = s.c(x)[None][:, :, :, 0]
    return s.b(y)  # type: ignore[no-any-return]


PATTERNS: dict[str, Build] = {
    "clone of normed channels": normed(lambda s, h: h.clone() + s.b(h)),
    "detached normed channels": normed(lambda s, h: s.b(h) + h.detach()),
    "contiguous normed channels": normed(lambda s, h: h.transpose(2, 3).contiguous() + s.b(h)),
    "rows replaced": net(row_replaced, "a b c", a=lambda: C(3, 16), c=lambda: C(3, 16), b=lambda: C(16, 8)),
    "weight without its bias": net(weight_alone, "a b", tokens, a=lambda: L(8, 16), b=lambda: L(16, 4)),
    "bias of shuffled channels": net(bias_of_shuffled, "a b", a=lambda: C(3, 16), b=lambda: C(16, 8)),
    "first rows of a layer": lambda: (Slimmable(), (image(),), "a b"),
    "large array by a size": lambda: (Table(), (tokens(),), ""),
    "large constant chosen by a size": net(
        lambda s, x: (lambda y: s.b(y) + LARGE[y.shape[-1] // 8])(s.a(x)),
        "",
        tokens,
        a=lambda: L(8, 16),
        b=lambda: L(16, 5000),
    ),
    "data of an activation assigned": lambda: (Assigned(False), (tokens(),), "a b c e"),
    "data of a weight assigned": lambda: (Assigned(True), (tokens(),), "a b e"),
    "pairs as complex numbers": lambda: (Rotated(), (tokens(),), ""),
    "places of a pool over channels": net(places, "", tokens, a=lambda: L(8, 16), b=lambda: L(16, 4)),
    "copies of heads written": lambda: (Heads(), (tokens(),), ""),
    "kernels filled up and added": lambda: (Asymmetric(), (image(),), "b"),
    "half replaced": net(half_replaced, "a b c", a=lambda: C(3, 16), c=lambda: C(3, 8), b=lambda: C(16, 8)),
    "lower bound by another layer": two(lambda s, x: s.b(torch.clamp(s.a(x), min=s.c(x)))),
    "upper bound by another layer": two(lambda s, x: s.b(s.a(x).clamp_max(s.c(x)))),
    "both bounds by layers": two(lambda s, x: s.b(s.a(x).clamp(s.c(x), s.d(x)))),
    "bound in place": two(lambda s, x: s.b(s.a(x).clone().clamp_(min=s.c(x)))),
    "narrow input, wide bound": two(lambda s, x: s.b(s.a(x) * torch.clamp(x[:, :1], min=s.c(x)))),
    "base overwritten, view used": two(base_overwritten),
    "overwritten through an alias": two(alias_overwritten),
    "overwritten through data": two(data_overwritten),
    "storage offset": between(second_half, ""),
    "fewer channels gathered": net(fewer_channels, "", tokens, a=lambda: L(8, 16), b=lambda: L(8, 4)),
    "kernel shared by groups of two sizes": shared_by_groups,
    "broadcast by keywords": between(lambda t: torch.broadcast_to(input=t, size=t.shape)),
    "unflatten by keywords": between(lambda t: torch.unflatten(input=t, dim=1, sizes=(4, -1)).flatten(1, 2), ""),
    "tile by keywords": between(lambda t: torch.tile(input=t.mean(1, keepdim=True), dims=(1, 16, 1, 1)), ""),
    "range that begins at a size": between(lambda t: t * torch.sigmoid(rolled(t)), ""),
    "range in steps of a size": between(
        lambda t: t * torch.sigmoid(torch.arange(0, t.shape[1], t.shape[1] // 4).to(t.dtype).sum() * 0.1), ""
    ),
    "groups by a quotient": between(lambda t: F.group_norm(t, int(t.shape[1] / 4)), ""),
    "groups by a common divisor": between(lambda t: F.group_norm(t, math.gcd(t.shape[1], 4)), ""),
    "size as epsilon of a group norm": between(lambda t: F.group_norm(t, 4, eps=float(t.shape[1])), ""),
    "size as epsilon of a layer norm": between(lambda t: F.layer_norm(t, (8, 8), eps=float(t.shape[1])), ""),
    "rows that begin at a size": net(rows_from_size, "", tall, a=lambda: C(3, 16), b=lambda: C(16, 8)),
    "input's rows that begin at a size": net(input_rows_from_size, "", tall, a=lambda: C(3, 16), b=lambda: C(16, 8)),
    "layer chosen by a size": net(
        lambda s, x: (lambda t: s.b(t) + s.heads[t.shape[1] // 8 - 1](x))(s.a(x)),
        "",
        a=lambda: C(3, 16),
        b=lambda: C(16, 8),
        heads=lambda: nn.ModuleList([C(3, 8), C(3, 8)]),
    ),
    "parameter chosen by a size": chosen("p", "q"),
    "buffer chosen by a size": chosen("k", "m"),
    "tensor chosen by a size": two(picked),
    "half chosen by a size": net(
        lambda s, x: (lambda t: (lambda p: s.b(p[0] if t.shape[1] > 16 else p[1]) + s.e(p[1]))(t.chunk(2, 1)))(s.a(x)),
        "",
        a=lambda: C(3, 32),
        b=lambda: C(16, 8),
        e=lambda: C(16, 8),
    ),
    "input chosen by a size": net(
        lambda s, x: (lambda t: s.b(t) * (x[:, :1] if t.shape[1] > 8 else x[:, 1:2]))(s.a(x)),
        "",
        a=lambda: C(3, 16),
        b=lambda: C(16, 8),
    ),
    "copied where it is wide": two(copied),
    "a number by NumPy": net(  # what it counts stays, and nothing else
        lambda s, x: scaled_by_numpy(s, s.a(x)),
        "a v o",
        a=lambda: C(3, 16),
        **{name: lambda: C(16, 16) for name in "qkv"},
        o=lambda: C(16, 8),
    ),
    "part of frozen channels by a size": lambda: (FrozenPart(), (image(),), ""),
    "constant chosen by a size": between(lambda t: t * SCALES[t.shape[1] // 8 - 1], ""),
    "size by an old constructor": between(lambda t: t / torch.Tensor([t.shape[1]]).to(t), ""),
    "size by a typed constructor": between(lambda t: t / torch.DoubleTensor([t.shape[1]]), ""),
    "size by new": between(lambda t: t / t.new([t.shape[1]]), ""),
    "size from bytes": between(
        lambda t: (
            t / torch.frombuffer(bytearray(np.array([float(t.shape[1])]).tobytes()), dtype=torch.float64).to(t.dtype)
        ),
        "",
    ),
    "shape as tensor": between(lambda t: t / torch._shape_as_tensor(t)[1], ""),
    "ones beside channels, counted": between(
        lambda t: t / (torch.cat([t * 0, torch.ones_like(t)], 1).sum(1, keepdim=True) + 1), ""
    ),
    "sigmoid of zeros, counted": between(
        lambda t: t * torch.sigmoid(torch.sigmoid(torch.zeros_like(t)).sum(1, keepdim=True) * 0.1), ""
    ),
    "zeros compared, counted": between(lambda t: t / (torch.zeros_like(t) == 0).to(t.dtype).sum(1, keepdim=True), ""),
    "exp of new zeros, counted": between(lambda t: t / t.new_zeros(t.shape).exp().sum(1, keepdim=True), ""),
    "unsafely chunked along places": between(lambda t: torch.cat(torch.unsafe_chunk(t, 2, 2)[::-1], 2)),
    "unsafely split along places": between(lambda t: torch.cat(torch.unsafe_split(t, 3, 2)[::-1], 2)),
    "unsafely split in sizes": between(lambda t: torch.cat(torch.unsafe_split_with_sizes(t, [2, 6], 2)[::-1], 2)),
    "copies of parts in sizes": between(lambda t: torch.cat(torch.split_with_sizes_copy(t, [2, 6], 2)[::-1], 2)),
    "places shuffled": between(lambda t: F.channel_shuffle(t.transpose(1, 2), 2).transpose(1, 2)),
}
