"""What authors of published networks write: masks made by hand, shortcuts padded with zeros, groups of a shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from judge import Build, between, conv, image, net
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


def lengths() -> tuple[torch.Tensor, ...]:
    return torch.randn(2, 3, 8), torch.tensor([8, 5])


def packed(s: Any, x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    """As in DeepSpeech2, Amodei et al. 2015: a mask of the size of all, and sequences that are packed."""
    x = s.a(x)
    mask = torch.zeros(x.size(), dtype=torch.bool)
    for i, length in enumerate(n):
        mask[i, :, int(length) :] = True
    x = x.masked_fill(mask, 0.0).permute(2, 0, 1)
    return s.o(pad_packed_sequence(s.m(pack_padded_sequence(x, n))[0])[0])  # type: ignore[no-any-return]


def text(**kw: Any) -> Build:
    """As in Kim 2014, Convolutional Neural Networks for Sentence Classification: windows over whole embeddings."""

    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        x = s.e(x).unsqueeze(1)
        return s.o(torch.cat([F.relu(m(x)).squeeze(3).amax(2) for m in (s.a, s.b)], 1))  # type: ignore[no-any-return]

    layers = {n: lambda k=k: nn.Conv2d(1, 8, (k, 16), **kw) for n, k in (("a", 2), ("b", 3))}
    words = {"e": lambda: nn.Embedding(30, 16), "o": lambda: nn.Linear(16, 4)}
    return net(forward, "e a b o", lambda: torch.randint(0, 30, (2, 9)), **words, **layers)


def covered(make: Callable[[], nn.Module], size: int, must: str) -> Build:
    """A kernel over the width that a layer makes: (batch, 4, length, 16)."""
    layers = {"a": lambda: nn.Linear(6, 16), "m": make, "o": lambda: nn.Linear(size, 3)}
    return net(lambda s, x: s.o(s.m(s.a(x)).flatten(1)), must, lambda: torch.randn(2, 4, 5, 6), **layers)


def mapped(by: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], maps: int = 1, must: str = "a m o") -> Build:
    """A few maps, repeated for the channels that they weigh."""

    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        h = s.a(x).relu()
        return s.o(h * by(s.m(h).sigmoid(), h))  # type: ignore[no-any-return]

    layers = {"a": (3, 16), "m": (16, maps), "o": (16, 4)}
    return net(forward, must, image, **{n: lambda w=w: conv(*w) for n, w in layers.items()})


def beside(fn: Callable[[torch.Tensor], torch.Tensor], must: str = "") -> Build:
    """What is computed of channels and of as many ones before them."""

    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        h = s.a(x)
        return s.b(h) + fn(torch.cat([torch.ones_like(h), h], 1))  # type: ignore[no-any-return]

    return net(forward, must, image, a=lambda: conv(3, 16), b=lambda: conv(16, 4))


def set_in_part(key: Callable[[Any, torch.Tensor], Any], then: Callable[[torch.Tensor], torch.Tensor]) -> Build:
    """Zeros of which some channels become ones."""

    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        h = s.a(x)
        z = torch.zeros_like(h)
        z[key(s, h)] = 1.0
        return s.b(h) + then(z)  # type: ignore[no-any-return]

    return net(forward, "", image, a=lambda: conv(3, 16), b=lambda: conv(16, 4), n=lambda: 8)


def padded(by: Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor], must: str = "a b c") -> Build:
    """Shortcuts with more channels, as in BlazeFace, Bazarevsky et al. 2019"""

    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(s.a(x))
        y = s.b(x)
        return s.c(torch.relu(y + by(s, x, y)))  # type: ignore[no-any-return]

    layers = {"a": (3, 8), "b": (8, 24), "c": (24, 4)}
    return net(forward, must, more=lambda: 16, **{n: lambda w=w: conv(*w) for n, w in layers.items()})


def grouped_by_shape(s: Any, x: torch.Tensor) -> torch.Tensor:
    """As many groups as channels, several inputs in each"""
    x = s.a(x)
    y = F.conv2d(x, s.m.weight, s.m.bias, padding=1, groups=x.shape[1])
    return s.b(F.conv2d(torch.relu(y), s.n.weight, s.n.bias, groups=x.shape[1]))  # type: ignore[no-any-return]


def first_of(pick: Callable[[torch.Tensor], torch.Tensor]) -> Build:
    """A single channel, of what is the same in all or for its shape alone"""
    return net(
        lambda s, x: s.b(s.a(x) + pick(s.a(x)).unsqueeze(-1)),
        "a b",
        lambda: torch.randn(4, 5, 8),
        a=lambda: nn.Linear(8, 16),
        b=lambda: nn.Linear(16, 4),
    )


def looked_up(by: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Build:
    """Tables that are parameters and only met, as in TransE, Bordes et al. 2013"""
    return net(
        lambda s, i, j: (by(s.e, i) * by(s.r, j)).sum(-1),
        "e r",
        lambda: (torch.randint(0, 20, (4,)), torch.randint(0, 6, (4,))),
        e=lambda: nn.Parameter(torch.randn(20, 16)),
        r=lambda: nn.Parameter(torch.randn(6, 16)),
    )


def beside_a_loss(s: Any, x: torch.Tensor) -> torch.Tensor:
    """A loss with weights of classes, which runs with labels only, and values that are looked at"""
    h = torch.relu(s.a(x))
    return s.b(h * 2 if h.sum() > -1 else h)  # type: ignore[no-any-return]


def with_images(check: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], Any], must: str) -> Build:
    """A language model whose text has places for images, as in LLaVA, Liu et al. 2023: as many as there are"""

    def forward(s: Any, ids: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        x, image = s.e(ids), s.p(pixels)
        mask = ids == 5
        ok = check(mask.sum(), x, image)
        if not (ok.item() if isinstance(ok, torch.Tensor) else ok):
            raise ValueError("other numbers of images")
        x = x.masked_scatter(mask.unsqueeze(-1).expand_as(x), image)
        return s.b(x + torch.relu(s.m(x)))  # type: ignore[no-any-return]

    return net(
        forward,
        must,
        lambda: (torch.tensor([[7, 5, 5, 9, 11]] * 2), torch.randn(2, 2, 12)),
        e=lambda: nn.Embedding(20, 16),
        p=lambda: nn.Linear(12, 16),
        m=lambda: nn.Linear(16, 16),
        b=lambda: nn.Linear(16, 6),
    )


PATTERNS: dict[str, Build] = {
    "places for images": with_images(lambda n, x, image: n * x.shape[-1] == image.numel(), "e p m b"),
    "places for images, not unequal": with_images(
        lambda n, x, image: (n * x.shape[-1] != image.numel()).logical_not(), "e p m b"
    ),
    "slices of one length change places": net(
        lambda s, x: (lambda y: s.b(torch.cat([y[:, s.n : 2 * s.n], y[:, : s.n], y[:, 2 * s.n :]], 1)))(s.a(x)),
        "a b",
        n=lambda: 16,
        a=lambda: conv(3, 40),
        b=lambda: conv(40, 4),
    ),
    "compared by name": between(lambda h: h * torch.eq(input=h, other=h)),
    "places for images, by name": with_images(
        lambda n, x, image: torch.eq(input=n * x.shape[-1], other=image.numel()), "e p m b"
    ),
    "places for images, a number": with_images(lambda n, x, image: n * x.shape[-1] == 64, ""),
    "places for images, another use": with_images(lambda n, x, image: n * x.shape[-1] > image.numel() - 1, ""),
    "first of zeros": first_of(lambda h: torch.zeros_like(h)[..., 0]),
    "last of ones": first_of(lambda h: h.new_ones(h.shape).select(-1, -1)),
    "ones of the first": first_of(lambda h: torch.ones_like(h[..., 0])),
    "the shape of the last": first_of(lambda h: torch.arange(h[..., -1].shape[1]).to(h.dtype).expand(h.shape[0], -1)),
    **{
        f"a table, {name}": looked_up(by)
        for name, by in (
            ("index_select", lambda t, i: t.index_select(0, i)),
            ("brackets", lambda t, i: t[i]),
            ("gather", lambda t, i: t.gather(0, i[:, None].expand(-1, t.size(1)))),
        )
    },
    "beside a loss": net(
        beside_a_loss,
        "a b",
        lambda: torch.randn(4, 8),
        a=lambda: nn.Linear(8, 16),
        b=lambda: nn.Linear(16, 4),
        loss=lambda: nn.CrossEntropyLoss(weight=torch.ones(4)),
    ),
    "masks of a size, and packed": net(
        packed,
        "a m.weight_ih_l0 m.weight_hh_l0 o",
        lengths,
        a=lambda: nn.Conv1d(3, 16, 3, padding=1),
        m=lambda: nn.LSTM(16, 8),
        o=lambda: nn.Linear(8, 3),
    ),
    "a map for each channel": mapped(lambda m, h: m.repeat_interleave(h.shape[1], 1)),
    "a map for each, by name": mapped(lambda m, h: torch.repeat_interleave(m, repeats=h.size(1), dim=-3)),
    "a map for each half": mapped(lambda m, h: m.repeat_interleave(h.shape[1] // 2, dim=1), maps=2, must=""),
    "beside ones, the largest": beside(lambda t: t.amax(1, keepdim=True), "a b"),
    "beside ones, the least": beside(lambda t: t.amin(1, keepdim=True)),
    "beside ones, the sum": beside(lambda t: t.sum(1, keepdim=True)),
    "beside ones, the mean": beside(lambda t: t.mean(1, keepdim=True)),
    "beside ones, the mean of a product": beside(lambda t: (t * torch.ones_like(t)).mean(1, keepdim=True)),
    "beside ones, the mean of a sum": beside(lambda t: (torch.ones_like(t) + t[:, :, :1]).mean(1, keepdim=True)),
    "beside ones, the variance": beside(lambda t: t.var(1, keepdim=True)),
    "beside ones, group norm": beside(lambda t: F.group_norm(t, 1).amax(1, keepdim=True)),
    "beside ones, layer norm": beside(lambda t: F.layer_norm(t.mT, t.shape[-2:-1]).mT.mean(1, keepdim=True)),
    "beside ones, channel norm": beside(lambda t: F.layer_norm(t.movedim(1, -1), t.shape[1:2]).amax(-1).unsqueeze(1)),
    **{
        f"beside ones, channel {at}": beside(lambda t, at=at: t[:, at].unsqueeze(1))  # type: ignore[misc]
        for at in (3, 16, 17, 20, 31, -1)
    },
    **{
        f"channels put at places, {name}": net(
            lambda s, x, then=then: (lambda h, z: (z[..., :4].copy_(h[..., :4]), s.b(h) + then(z))[1])(
                h := s.a(x), torch.zeros_like(h)
            ),
            must,
            image,
            a=lambda: conv(3, 16),
            b=lambda: conv(16, 4),
        )
        for name, must, then in (
            ("the mean", "a b", lambda z: z[..., :4].repeat(1, 1, 1, 2).mean(1, keepdim=True)),
            ("the least", "", lambda z: z.amin(1, keepdim=True)),
            ("one of them", "", lambda z: z[:, 7].unsqueeze(1)),
        )
    },
    "zeros beside ones": net(
        lambda s, x: (lambda h: s.b(h) + torch.cat([h * 0, torch.zeros_like(h), torch.ones_like(h)], 1)[:, 26:27])(
            s.a(x)
        ),
        "",
        image,
        a=lambda: conv(3, 16),
        b=lambda: conv(16, 4),
    ),
    **{
        f"ones {where}, {name}": set_in_part(key, then)
        for where, key in (
            ("in four", lambda s, h: (slice(None), slice(0, 4))),
            ("in half", lambda s, h: (slice(None), slice(0, s.n))),
            ("in half of the shape", lambda s, h: (slice(None), slice(h.shape[1] // 2))),
            ("in one", lambda s, h: (slice(None), 3)),
            ("at places", lambda s, h: (slice(None), slice(None), 0)),
        )
        for name, then in (
            ("the mean", lambda z: z.mean(1, keepdim=True)),
            ("the mean of a product", lambda z: (z * torch.full_like(z, 2.0)).mean(1, keepdim=True)),
            ("the mean of a sum", lambda z: (torch.ones_like(z) + z[:, :, :1]).mean(1, keepdim=True)),
            ("the least", lambda z: z.amin(1, keepdim=True)),
            ("one of them", lambda z: z[:, 7].unsqueeze(1)),
            ("the last", lambda z: z[:, -1:]),
        )
    },
    "text": text(),
    "text, padded": text(padding=(2, 0)),
    "text, in steps": text(stride=(2, 16)),
    "a kernel over all": covered(lambda: nn.Conv2d(4, 8, (5, 16)), 8, "a m o"),
    "a kernel over the width, in groups": covered(
        lambda: nn.Conv2d(4, 8, (3, 16), padding=(1, 0), groups=2), 40, "a m o"
    ),
    "a kernel over the width, depthwise": covered(lambda: nn.Conv2d(4, 4, (1, 16), groups=4), 20, "a"),
    "a kernel over the width, padded": covered(lambda: nn.Conv2d(4, 8, (1, 16), (1, 3), (0, 1)), 40, "m o"),
    "a kernel over less than the width": covered(lambda: nn.Conv2d(4, 8, (1, 15)), 80, "m o"),
    "a transposed kernel over the width": covered(lambda: nn.ConvTranspose2d(4, 8, (1, 16)), 8 * 5 * 31, "m o"),
    "zero channels, an attribute": padded(lambda s, x, y: F.pad(x, (0, 0, 0, 0, 0, s.more))),
    "zero channels, by shapes": padded(lambda s, x, y: F.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))),
    "zero channels on both sides": padded(
        lambda s, x, y: F.pad(x[:, :, :, ::1], (1, 1, 0, 0, s.more // 2, s.more // 2), "constant", 0)[..., 1:-1]
    ),
    "zero channels, a number": padded(lambda s, x, y: F.pad(x, (0, 0, 0, 0, 0, 16)), ""),
    "groups of a shape": net(
        grouped_by_shape,
        "a m n b",
        image,
        a=lambda: conv(3, 16),
        m=lambda: nn.Conv2d(16, 64, 3, padding=1, groups=16),
        n=lambda: nn.Conv2d(64, 16, 1, groups=16),
        b=lambda: conv(16, 4),
    ),
}
