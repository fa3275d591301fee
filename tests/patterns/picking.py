"""Networks that pick rows by masks, or a single channel, write into such rows, or meet tensors without elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from judge import Build, between, conv, image, net, of, tokens
from torch import nn

L = nn.Linear


def rows(fn: Callable[..., Any], must: str = "a c b", **more: Callable[[], Any]) -> Build:
    """Linear a and c of 16 channels over (4, 5) tokens, b that reads 16, and `more`; `here`: some of the tokens."""
    return net(fn, must, tokens, a=lambda: L(8, 16), c=lambda: L(8, 16), b=lambda: L(16, 8), **more)


def here(x: torch.Tensor) -> torch.Tensor:
    """(4, 5): five of the tokens."""
    return (torch.arange(20) % 4 == 1).view(4, 5)


def scattered(s: Any, x: torch.Tensor) -> torch.Tensor:
    """As features of images are put among those of words."""
    words, features = s.a(x), s.c(x[:1])[0]
    mask = here(x).unsqueeze(-1).expand_as(words)
    if words[mask].numel() != features.numel():
        raise ValueError("another number of places than features")
    return s.b(words.masked_scatter(mask, features))  # type: ignore[no-any-return]


def scattered_out_of_step(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Rows of the source do not begin where rows of the mask do: channels come together that are not the same."""
    words = s.a(x)
    mask = here(x).unsqueeze(-1).expand_as(words).clone()
    mask[:, :, 0] = False
    return s.b(words.masked_scatter(mask, s.c(x)))  # type: ignore[no-any-return]


def scattered_by_values(s: Any, x: torch.Tensor) -> torch.Tensor:
    words = s.a(x)
    return s.b(words.masked_scatter(words > 0, s.c(x)))  # type: ignore[no-any-return]


def scattered_of_other_width(s: Any, x: torch.Tensor) -> torch.Tensor:
    """The source is rows of another length: three of them fill two of the tensor's."""
    words = s.a(x)
    source = s.c(x).reshape(-1, 32)
    return s.b(words.masked_scatter(here(x)[..., None], source))  # type: ignore[no-any-return]


def gathered_by_head(s: Any, x: torch.Tensor) -> torch.Tensor:
    """A bias for each head, out of a table that has no channels, by an index that is as long as there are heads: with
    fewer, the first of the table's rows come out."""
    q, k, v = (part(x).unflatten(-1, (s.heads, -1)).transpose(1, 2) for part in (s.a, s.c, s.v))
    table = torch.linspace(0, 9, 4 * 9).sin().view(1, 4, 1, 9).repeat(4, 1, 5, 1)
    places = torch.arange(5)[:, None] - torch.arange(5) + 4
    bias = table.gather(-1, places.expand(4, s.heads, 5, 5))
    mixed = (q @ k.transpose(-2, -1) + bias).softmax(-1) @ v
    return s.b(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def put(s: Any, x: torch.Tensor) -> torch.Tensor:
    words = s.a(x).clone()
    words[here(x)] = s.c(x[:1])[0]
    return s.b(words)  # type: ignore[no-any-return]


def put_row(s: Any, x: torch.Tensor) -> torch.Tensor:
    words = s.a(x).clone()
    words[here(x)] = s.c(x[0, 0])
    return s.b(words)  # type: ignore[no-any-return]


def put_by_two(s: Any, x: torch.Tensor) -> torch.Tensor:
    words = s.a(x).clone()
    words[torch.tensor([0, 1]), torch.tensor([2, 3])] = s.c(x[0, :2])
    return s.b(words)  # type: ignore[no-any-return]


def put_flat(s: Any, x: torch.Tensor) -> torch.Tensor:
    words = s.a(x).flatten(0, 1)
    words[here(x).flatten()] = s.c(x[:1]).reshape(-1, words.shape[-1])
    return s.b(words.view(4, 5, -1))  # type: ignore[no-any-return]


def picked(s: Any, x: torch.Tensor) -> torch.Tensor:
    return s.b(s.a(x)[here(x)] + s.c(x)[here(x)])  # type: ignore[no-any-return]


def picked_whole(s: Any, x: torch.Tensor) -> torch.Tensor:
    """By a mask that is expanded over the channels: they come one row after the other."""
    words = s.a(x)
    flat = words[here(x).unsqueeze(-1).expand_as(words)]
    return s.b(flat.view(-1, words.shape[-1]) + s.c(x)[here(x)])  # type: ignore[no-any-return]


def picked_by_value(s: Any, x: torch.Tensor) -> torch.Tensor:
    words = s.a(x)
    return s.b(s.c(x)) * words[words > 0].mean()  # type: ignore[no-any-return]


def picked_by_a_triangle(s: Any, x: torch.Tensor) -> torch.Tensor:
    """A mask that begins as one value for all channels, and does not stay so."""
    words = s.a(x)
    return s.b(s.c(x)) * words[torch.ones(words.shape, dtype=torch.bool).tril()].mean()  # type: ignore[no-any-return]


def nothing_picked(s: Any, x: torch.Tensor) -> torch.Tensor:
    """No row is picked, and the rows go through heads all the same."""
    words = s.a(x)[torch.zeros(4, 5, dtype=torch.bool)]
    heads = words.reshape(words.shape[0], 4, words.shape[-1] // 4).transpose(0, 1)
    return s.b(s.c(x)) + s.b(heads.transpose(0, 1).reshape(words.shape)).sum()  # type: ignore[no-any-return]


def nothing_cut_out(s: Any, x: torch.Tensor) -> torch.Tensor:
    words = s.a(x)
    none = s.c(x)[:, :0].reshape(4, 0, 2, words.shape[-1] // 2).transpose(1, 2).transpose(1, 2)
    return s.b(torch.cat([words, none.reshape(4, 0, words.shape[-1])], 1))  # type: ignore[no-any-return]


def nothing_of_other_sizes(s: Any, x: torch.Tensor) -> torch.Tensor:
    return s.b(s.a(x)) + s.c(x)[:, :0].reshape(3, 0, 7).sum()  # type: ignore[no-any-return]


class Rotated(nn.Module):
    """Heads of which a part is turned, here all: the rest is empty."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.turned = 4, 8
        self.q, self.k, self.v, self.o = L(8, 32), L(8, 32), L(8, 32), L(32, 8)

    def turn(self, t: torch.Tensor) -> torch.Tensor:
        t = t.view(*t.shape[:2], self.heads, -1).transpose(1, 2)
        first, rest = t[..., : self.turned], t[..., self.turned :]
        a, b = first.chunk(2, -1)
        return torch.cat([torch.cat([-b, a], -1), rest], -1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.turn(self.q(x)), self.turn(self.k(x)), self.v(x)
        v = v.view(*v.shape[:2], self.heads, -1).transpose(1, 2)
        out = (q @ k.mT).softmax(-1) @ v
        return self.o(out.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def nothing_split_off(s: Any, x: torch.Tensor) -> torch.Tensor:
    words, none = s.a(x).split([s.a.out_features, 0], -1)
    return s.b(torch.cat([words, none], -1) + s.c(x))  # type: ignore[no-any-return]


def one_split_off(number: int) -> Callable[..., torch.Tensor]:
    """A score of so many channels before two parts of 16, as attention that is linear in the tokens has."""

    def fn(s: Any, x: torch.Tensor) -> torch.Tensor:
        score, key, value = s.d(x).split([number, s.width, s.width], -1)
        return s.b(key * score.softmax(1).sum(-1, keepdim=True) + value)  # type: ignore[no-any-return]

    return fn


def matched(match: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Any]:
    """Each of some results with the nearest of others, as detectors find it for their loss, outside of torch."""

    def fn(s: Any, x: torch.Tensor) -> Any:
        first, second, *_ = s.b(s.a(x).relu() + s.c(x))
        return first, (first[match(torch.cdist(first, second))] - second).square().mean()

    return fn


def nearest(costs: torch.Tensor) -> torch.Tensor:
    return torch.tensor([min(range(len(each)), key=each.__getitem__) for each in costs.T.tolist()])


class Experts(nn.Module):
    """Only those run that have tokens; of two tokens some have none."""

    def __init__(self) -> None:
        super().__init__()
        self.i, self.g, self.o = L(8, 16), L(16, 3), L(16, 8)
        self.e = nn.ModuleList(L(16, 16) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.i(x)
        chosen, out = self.g(x).argmax(-1), torch.zeros_like(x)
        for i, expert in enumerate(self.e):
            mine = chosen == i
            if mine.any():
                out[mine] = expert(x[mine])
        return self.o(x + out)  # type: ignore[no-any-return]


class AllExperts(Experts):
    """All run, some on no token."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.i(x)
        chosen, out = self.g(x).argmax(-1).flatten(), torch.zeros_like(x).view(-1, x.shape[-1])
        for i, expert in enumerate(self.e):
            rows = (chosen == i).nonzero().flatten()
            out.index_add_(0, rows, expert(x.view(-1, x.shape[-1])[rows]))
        return self.o(x + out.view(x.shape))  # type: ignore[no-any-return]


class Cached(nn.Module):
    """Keys and values after those of earlier steps, of which there are none."""

    def __init__(self, literal: bool) -> None:
        super().__init__()
        self.heads, self.size, self.literal = 4, 4, literal
        self.q, self.k, self.v, self.o = L(8, 16), L(8, 16), L(8, 16), L(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (m(x).view(*x.shape[:2], self.heads, self.size).transpose(1, 2) for m in (self.q, self.k, self.v))
        past = x.new_zeros(x.shape[0], 4 if self.literal else self.heads, 0, self.size)
        k, v = torch.cat([past, k], 2), torch.cat([past, v], 2)
        return self.o(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def put_in_columns(s: Any, x: torch.Tensor) -> torch.Tensor:
    words = s.a(x).clone()
    words[:, here(x)[0]] = s.c(x)[:, :1]
    return s.b(words)  # type: ignore[no-any-return]


def put_in_columns_of_channels(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Dims before the index and after it; the channels are before."""
    words = s.a(x).mT.clone()
    words[:, :, torch.tensor([0, 3])] = s.c(x).mT[:, :, :2]
    return s.b(words.mT)  # type: ignore[no-any-return]


def put_apart(s: Any, x: torch.Tensor) -> torch.Tensor:
    words = s.a(x).view(4, 5, 4, -1).clone()
    words[torch.tensor([0, 1]), :, torch.tensor([2, 3])] = 1.0
    return s.b(words.flatten(2))  # type: ignore[no-any-return]


def selected(s: Any, x: torch.Tensor) -> torch.Tensor:
    words = s.a(x)
    return s.b(words.masked_select(here(x)[..., None]).view(-1, words.shape[-1]) + s.c(x)[here(x)])  # type: ignore[no-any-return]


def padded_again(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Rows that are no padding go through a layer, and back to their places."""
    words = s.a(x).flatten(0, 1)
    rows = here(x).flatten().nonzero().flatten()
    out = torch.zeros_like(words).index_copy(0, rows, s.c(x).flatten(0, 1)[rows])
    return s.b(out + words).view(4, 5, -1)  # type: ignore[no-any-return]


def set_where_negative(s: Any, x: torch.Tensor) -> torch.Tensor:
    words = s.a(x) + s.c(x)
    words[words < 0] = 0.0
    return s.b(words)  # type: ignore[no-any-return]


def nothing_through_a_layer(s: Any, x: torch.Tensor) -> torch.Tensor:
    """A linear layer makes (4, 0, 16) into (0, 16) and back."""
    return s.b(torch.cat([s.d(s.a(x)[:, :0]), s.c(x)], 1))  # type: ignore[no-any-return]


def detected(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Of the scores of all classes those that are above a threshold, as detectors do after their last layer."""
    scores = s.b(s.a(x) + s.c(x)).sigmoid().flatten()
    return scores[scores > 0.5].sum()  # type: ignore[no-any-return]


def prompted(s: Any, x: torch.Tensor) -> torch.Tensor:
    """A learned prompt of no token before the tokens."""
    words = s.a(x) + s.c(x)
    return s.b(torch.cat([s.p.expand(words.shape[0], -1, -1), words], 1))  # type: ignore[no-any-return]


def plane(fn: Callable[[torch.Tensor], torch.Tensor], must: str = "") -> Build:
    """A plane beside the channels that is made of one of them."""

    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        h = s.a(x).relu()
        return s.c(s.b(torch.cat([fn(h), h], 1)).relu())  # type: ignore[no-any-return]

    return net(forward, must, image, a=lambda: conv(3, 16), b=lambda: conv(17, 12), c=lambda: conv(12, 4))


def one_written(write: Callable[[torch.Tensor], Any]) -> Callable[[torch.Tensor], torch.Tensor]:
    def between_layers(t: torch.Tensor) -> torch.Tensor:
        m = torch.ones_like(t)
        write(m)
        return t * m

    return between_layers


def read_before(t: torch.Tensor, write: Callable[[torch.Tensor], Any]) -> torch.Tensor:
    m = torch.zeros_like(t)
    one = m[:, 5]
    write(m)
    return t * one[:, None]


def heads_in_the_batch(s: Any, x: torch.Tensor) -> torch.Tensor:
    y = s.a(x.transpose(0, 1))
    length, batch, width = y.shape
    y = y.view(length, batch * s.heads, width // s.heads).transpose(0, 1)
    y = torch.softmax(y @ y.mT, -1) @ y
    return s.o(y.transpose(0, 1).reshape(length, batch, width))  # type: ignore[no-any-return]


def groups_in_the_batch(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Spatial group-wise enhancement (Li et al. 2019)."""
    y = s.a(x)
    z = y.view(len(x) * s.groups, -1, *y.shape[2:])
    z = z * (z * z.mean((2, 3), keepdim=True)).sum(1, keepdim=True).sigmoid()
    return s.b(z.view(*y.shape))  # type: ignore[no-any-return]


def outer(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a[..., :, None] * b[..., None, :]).flatten(-2)


PATTERNS: dict[str, Build] = {
    "channels past the last, in steps": net(
        lambda s, x: s.b((lambda h: torch.cat([h, h[:, 16::2] * h[:, 17::2]], 1))(s.a(x))),
        "a b",
        image,
        a=lambda: conv(3, 16),
        b=lambda: conv(16, 4),
    ),
    "features scattered among words": rows(scattered),
    "elements scattered out of step": rows(scattered_out_of_step, ""),
    "elements scattered by values": rows(scattered_by_values, ""),
    "rows of other width scattered": rows(scattered_of_other_width, ""),
    "rows put by a mask": rows(put),
    "one row put by a mask": rows(put_row),
    "rows put by two indices": rows(put_by_two),
    "rows of a flat tensor put by a mask": rows(put_flat),
    "rows picked by a mask": rows(picked),
    "rows picked by an expanded mask": rows(picked_whole),
    "elements picked by their values": rows(picked_by_value, "c b"),
    "scores above a threshold": rows(detected, "a b c"),
    "elements picked by a triangle": rows(picked_by_a_triangle, "c b"),
    "no row picked": rows(nothing_picked, "c b"),
    "nothing joined": rows(nothing_cut_out, ""),
    "nothing of other sizes": rows(nothing_of_other_sizes, "a b"),
    "experts of which some are idle": of(Experts, "", lambda: tokens(1, 2, 8)),
    "experts of which some have no token": of(AllExperts, "i e.0 e.1 e.2 o", lambda: tokens(1, 2, 8)),
    "an empty cache": of(lambda: Cached(literal=False), "q k v o", tokens),
    "an empty cache of heads that are a number": of(lambda: Cached(literal=True), "", tokens),
    "rows put in columns by a mask": rows(put_in_columns),
    "rows put behind the channels": rows(put_in_columns_of_channels),
    "numbers put by indices apart": rows(put_apart, ""),
    "rows selected by a mask": rows(selected),
    "rows put back in their places": rows(padded_again),
    "set where negative": rows(set_where_negative),
    "nothing through a layer": rows(nothing_through_a_layer, "c b", d=lambda: L(16, 16)),
    "a plane of ones": plane(lambda h: torch.ones_like(h[:, :1]) * 0.5, "a b c"),
    "a plane of a number": plane(lambda h: torch.full_like(h[:, 0:1], 2.0), "a b c"),
    "a plane of noughts beside the last": plane(lambda h: torch.zeros_like(h[:, -1:]), "a b c"),
    "a plane of the type of one": plane(lambda h: h[:, :1].new_full((len(h), 1, *h.shape[2:]), 3.0), "a b c"),
    "a plane that is one": plane(lambda h: h[:, :1]),
    "a plane that is part of one": plane(lambda h: h[:, :1, :1, :1].expand(-1, -1, *h.shape[2:])),
    "a plane of the sign of one": plane(lambda h: torch.sign(h[:, 2:3])),
    "a plane of one as numbers": plane(lambda h: torch.from_numpy(h[:, 1:2].numpy(force=True)).to(h)),
    "a plane of one as its numbers": plane(lambda h: torch.from_numpy(h.detach()[:, 1:2].numpy().copy())),
    "a plane that is written": plane(lambda h: h[:, :1].fill_(2.0)),
    "a plane that is a result": net(
        lambda s, x: (h := s.a(x).relu(), h[:, :1], s.b(h))[1:], "", image, a=lambda: conv(3, 16), b=lambda: conv(16, 4)
    ),
    "one written in ones": between(one_written(lambda m: m[:, 5].zero_()), ""),
    "one written in ones by a view of a view": between(one_written(lambda m: m.flatten(1)[:, 328].fill_(5.0)), ""),
    "one written in ones by an index of an index": between(one_written(lambda m: m[0][5].fill_(5.0)), ""),
    "one read of ones": between(one_written(lambda m: m[:, 5])),
    "one of noughts that channels fill": between(lambda t: read_before(t, lambda m: m.copy_(t)), ""),
    "one of noughts that channels are added to": between(lambda t: read_before(t, lambda m: m.add_(t)), ""),
    "numbers of a seed": between(
        lambda t: t * torch.randn(t.shape[1], 1, 1, generator=torch.Generator().manual_seed(0)).to(t), ""
    ),
    "a product beside channels": net(
        lambda s, x: s.b((y := torch.cat([outer(s.a(x), s.c(x)), s.d(x)], -1)).reshape(-1, y.shape[-1])),
        "d b",
        tokens,
        a=lambda: L(8, 4),
        c=lambda: L(8, 4),
        d=lambda: L(8, 6),
        b=lambda: L(22, 4),
    ),
    "heads as wide as the batch": net(
        lambda s, x: s.o(s.m(*3 * [s.a(x)])[0]),
        "a m.in_proj_weight o",
        tokens,
        a=lambda: L(8, 16),
        m=lambda: nn.MultiheadAttention(16, 4, batch_first=True),
        o=lambda: L(16, 4),
    ),
    "heads as wide as the batch, by a view": net(
        heads_in_the_batch, "a o", tokens, heads=lambda: 4, a=lambda: L(8, 16), o=lambda: L(16, 4)
    ),
    "groups as wide as the batch": net(
        groups_in_the_batch,
        "a b",
        lambda: image(4, 3, 8, 8),
        groups=lambda: 4,
        a=lambda: conv(3, 16),
        b=lambda: conv(16, 4),
    ),
    "channels in the place of positions": net(
        lambda s, x: s.b((y := s.a(x)).reshape(len(y), y.shape[2], y.shape[1])),
        "",
        lambda: tokens(2, 4, 8),
        a=lambda: L(8, 16),
        b=lambda: nn.Conv1d(16, 4, 1),
    ),
    "a prompt of no token": rows(prompted, p=lambda: nn.Parameter(torch.randn(0, 16))),
    "nothing left of a head": of(Rotated, "q k v o", tokens),
    "nothing split off": rows(nothing_split_off),
    "matched by a list": rows(matched(nearest)),
    "matched by NumPy": rows(matched(lambda costs: torch.from_numpy(costs.detach().numpy().argmin(0)))),
    "matched by an array": rows(matched(lambda costs: torch.as_tensor(np.argmin(np.asarray(costs.detach()), 0)))),
    "one split off": rows(one_split_off(1), "d b", d=lambda: L(8, 33), width=lambda: 16),
    "some split off": rows(one_split_off(3), "d b", d=lambda: L(8, 35), width=lambda: 16),
    "a bias gathered for each head": rows(gathered_by_head, "", v=lambda: L(8, 16), heads=lambda: 4),
}
