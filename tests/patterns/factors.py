"""Dims of (parts, width): whole parts go where they can, the width of each where they cannot."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from judge import Build, conv, net, tokens
from torch import nn


def heads_of(s: Any, t: torch.Tensor) -> torch.Tensor:
    return t.view(t.shape[0], t.shape[1], s.heads, s.size).transpose(1, 2)


def joined(s: Any, t: torch.Tensor) -> torch.Tensor:
    return t.transpose(1, 2).reshape(t.shape[0], t.shape[2], s.heads * s.size)


def mapped_alike(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Linear attention: one feature map for all heads."""
    q, k, v = heads_of(s, s.q(x)), heads_of(s, s.k(x)), heads_of(s, s.v(x))
    q, k = s.f(q).softmax(-1), s.g(k).softmax(-1)
    return s.o(joined(s, q @ (k.transpose(-1, -2) @ v)))  # type: ignore[no-any-return]


def projected_alike(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Attention whose projections are shared by the heads."""
    h = s.e(x).reshape(x.shape[0], x.shape[1], s.heads, s.size)
    q, k, v = s.q(h), s.k(h), s.v(h)
    energy = torch.einsum("nqhd,nkhd->nhqk", [q, k]).softmax(-1)
    return s.o(torch.einsum("nhqk,nkhd->nqhd", [energy, v]).reshape(x.shape[0], x.shape[1], s.heads * s.size))  # type: ignore[no-any-return]


def interactions(s: Any, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Products of the embeddings with one another, one for each pair."""
    x = F.relu(s.bottom(x))
    found = torch.cat([x, s.first(ids[:, 0]), s.second(ids[:, 1])], 1).view(x.shape[0], -1, x.shape[1])
    i, j = torch.tril_indices(3, 3, -1)
    return s.top(torch.cat([x, torch.bmm(found, found.transpose(1, 2))[:, i, j]], 1))  # type: ignore[no-any-return]


def weighed_neighbours(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Graph attention, the mean of its heads."""
    x = s.lin(x).view(-1, s.heads, s.size)
    a = (x * s.att).sum(-1)
    a = (a[:, None] + a[None]).tanh().softmax(1)
    return s.o(torch.einsum("ijh,jhc->ihc", a, x).mean(1))  # type: ignore[no-any-return]


def picked_parts(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Parts that are taken by their index, after a sum over their width decided how much of each."""
    h = s.i(x).view(*x.shape[:-1], 3, s.width)
    h = h * h.square().sum(-1, keepdim=True).sigmoid()
    return s.o(h[..., 0, :] + h[..., 1, :] * h[..., 2, :])  # type: ignore[no-any-return]


def mixture(s: Any, x: torch.Tensor) -> torch.Tensor:
    """A mixture of softmaxes: one decoder for all of them, a prior for each."""
    h = torch.tanh(s.i(x))
    found = s.decoder(torch.tanh(s.latent(h)).view(*x.shape[:-1], s.parts, s.width)).softmax(-1)
    return (found * s.prior(h).softmax(-1).unsqueeze(-1)).sum(-2)  # type: ignore[no-any-return]


def by_group(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Linear layers of groups: a product for each group."""
    x = s.i(x).relu().flatten(0, 1)
    for w in (s.w1, s.w2):
        x = torch.bmm(x.view(x.shape[0], s.groups, -1).permute(1, 0, 2), w).permute(1, 0, 2).reshape(x.shape[0], -1)
    return s.o(x.relu())  # type: ignore[no-any-return]


def of_each(s: Any, x: torch.Tensor) -> torch.Tensor:
    """A vector for each part times one for each place in it."""
    gain = (s.part[:, None] * s.place[None]).reshape(-1)
    return s.o(s.i(x) * gain)  # type: ignore[no-any-return]


def normalized_heads(s: Any, x: torch.Tensor) -> torch.Tensor:
    """What heads give is normalized head by head."""
    k, v = heads_of(s, s.k(x)), heads_of(s, s.v(x))
    y = joined(s, k @ (k.transpose(-1, -2) @ v)).flatten(0, 1)
    return s.o(s.norm(y))  # type: ignore[no-any-return]


def attended(s: Any, x: torch.Tensor) -> torch.Tensor:
    q, k, v = heads_of(s, s.q(x)), heads_of(s, s.k(x)), heads_of(s, s.v(x))
    return joined(s, (q @ k.transpose(-1, -2)).softmax(-1) @ v)


def shared_norm(s: Any, x: torch.Tensor) -> torch.Tensor:
    """One norm, of the channels of heads and of others: the number of its groups is that of both."""
    return s.o(s.norm(attended(s, x).mT).mT) + s.p(s.norm(s.i(x).mT).mT)  # type: ignore[no-any-return]


def halves_turned(s: Any, x: torch.Tensor) -> torch.Tensor:
    """As rotary embeddings do: the halves of every part change places."""
    one, two = s.i(x).view(*x.shape[:2], s.heads, -1).chunk(2, -1)
    return s.o(torch.cat([-two, one], -1).flatten(2))  # type: ignore[no-any-return]


def gated_and_normalized(s: Any, x: torch.Tensor) -> torch.Tensor:
    y = s.i(x).view(*x.shape[:2], s.heads, -1)
    return s.o(F.normalize(y * s.f(y.mean(2)).sigmoid()[:, :, None], dim=-1).flatten(2))  # type: ignore[no-any-return]


def by_equation(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Where one head is left, torch's own einsum would do other operations."""
    q, k, v = (f(x).view(*x.shape[:2], s.heads, -1) for f in (s.q, s.k, s.v))
    a = torch.einsum("bihd,bjhd->bhij", q, k).softmax(-1)
    return s.o(torch.einsum("bhij,bjhd->bihd", a, v).flatten(2))  # type: ignore[no-any-return]


def collected(s: Any, x: torch.Tensor) -> torch.Tensor:
    """What all have is added to zeros of the shape of (samples, heads, width), row by row."""
    x = s.i(x).view(-1, s.heads, s.width)
    x = x * (x * s.a).sum(-1, keepdim=True).sigmoid()
    x = x.new_zeros((x.size(0), *x.shape[1:])).index_add_(0, torch.arange(len(x)), x)
    return s.o(x.reshape(-1, s.heads * s.width))  # type: ignore[no-any-return]


def of_tokens(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Learned tokens that are only read; their width says how wide the residual is."""
    x = s.i(x)
    tokens = s.tokens.repeat(len(x), 1, 1)
    y = (s.q(x) @ s.k(tokens).mT).softmax(-1) @ s.v(tokens)
    return s.o(x + y.reshape(*x.shape[:2], tokens.shape[-1]))  # type: ignore[no-any-return]


def viewed_as(s: Any, x: torch.Tensor) -> torch.Tensor:
    y = s.i(x)
    z = s.f(y.flatten(0, 1)).view_as(y) + s.g(y).flatten(1).reshape_as(y)
    return s.o(torch.relu(z))  # type: ignore[no-any-return]


def axes_of_weights(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Heads and their size are axes of the weights, and each head has biases of its own."""
    q, k, v = (torch.einsum("bth,hnd->btnd", x, w) for w in (s.q, s.k, s.v))
    a = torch.einsum("bind,bjnd->bnij", q + s.bias, k).softmax(-1)
    return torch.einsum("bnij,bjnd,hnd->bih", a, v, s.o)


def recurrence(s: Any, x: torch.Tensor) -> torch.Tensor:
    """A state for each head, of what all heads take and give alike; a decay for each."""
    b, t, _ = x.shape
    h, k, q, decay = s.i(x).split([s.heads * s.size, s.state, s.state, s.heads], -1)
    h = h.view(b, t, s.heads, s.size)
    weight = (decay.cumsum(1)[:, :, None] - decay.cumsum(1)[:, None]).sigmoid()
    state = torch.einsum("btn,bthp->bhpn", k, h)
    y = torch.einsum("btn,bhpn->bthp", q, state) + torch.einsum("btsh,bshp->bthp", weight, h * s.gain[:, None])
    return s.o(y.reshape(b, t, -1))  # type: ignore[no-any-return]


def over_width(compute: Any) -> Build:
    """Something that is computed over the width of each part."""

    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        h = s.i(x).view(*x.shape[:-1], s.heads, -1)
        return s.o(compute(s, h).flatten(-2))  # type: ignore[no-any-return]

    def first_are_weak() -> nn.Linear:
        """The first place of every part goes first."""
        layer = nn.Linear(8, 24)
        with torch.no_grad():
            layer.weight.view(4, 6, 8)[:, 0] *= 0.01
        return layer

    return net(
        forward,
        "i o",
        tokens,
        i=first_are_weak,
        norm=lambda: nn.LayerNorm(6),
        o=lambda: nn.Linear(24, 4),
        heads=lambda: 4,
    )


def shuffle_attention(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Zhang and Yang 2021: halves of groups that lie beside the samples, one normalized channel by channel."""
    x = s.a(x)
    b, _, h, w = x.shape
    one, two = x.reshape(b * s.groups, -1, h, w).chunk(2, dim=1)
    one = one * torch.sigmoid(s.w[0] * one.mean((2, 3), keepdim=True) + s.w[1])
    two = two * torch.sigmoid(s.v[0] * s.norm(two) + s.v[1])
    x = torch.cat([one, two], 1).reshape(b, -1, h, w).reshape(b, 2, -1, h, w).permute(0, 2, 1, 3, 4)
    return s.b(x.reshape(b, -1, h, w))  # type: ignore[no-any-return]


def multi_scale_attention(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Ouyang et al. 2023, EMA: convolutions that groups share, a norm of each channel, products of both."""
    x = s.a(x)
    b, c, h, w = x.shape
    y = x.reshape(b * s.groups, -1, h, w)
    rows, columns = y.mean(3, keepdim=True), y.mean(2, keepdim=True).permute(0, 1, 3, 2)
    rows, columns = torch.split(s.one(torch.cat([rows, columns], dim=2)), [h, w], dim=2)
    one, two = s.norm(y * rows.sigmoid() * columns.permute(0, 1, 3, 2).sigmoid()), s.three(y)
    first, second = (t.mean((2, 3)).softmax(-1).unsqueeze(1) for t in (one, two))
    weights = first @ two.flatten(2) + second @ one.flatten(2)
    return s.b((y * weights.view(-1, 1, h, w).sigmoid()).reshape(b, c, h, w))  # type: ignore[no-any-return]


def batched_groups(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Groups of channels beside the samples are normalized, as in attention over groups."""
    y = s.a(x)
    h = s.norm(y.reshape(y.shape[0] * s.groups, -1, *y.shape[2:]))
    return s.b(h.view(y.shape))  # type: ignore[no-any-return]


def latent(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Keys of a part for each head and a part that all heads share; the scale, made in the forward, holds both."""
    q = heads_of(s, s.q(x))
    own, v = s.kv(s.down(x)).view(*x.shape[:2], s.heads, -1).transpose(1, 2).split([s.size - s.shared, s.wide], -1)
    k = torch.cat([own, s.k(x)[:, None].expand(-1, s.heads, -1, -1)], -1)
    a = (q @ k.mT * (own.shape[-1] + s.shared) ** -0.5).softmax(-1)
    return s.o((a @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def headed(fn: Any, must: str, **more: Any) -> Build:
    parts: dict[str, Any] = {n: lambda: nn.Linear(8, 16) for n in "qkv"}
    parts.update(o=lambda: nn.Linear(16, 4), heads=lambda: 4, size=lambda: 4)
    return net(fn, must, tokens, **{**parts, **more})


PATTERNS: dict[str, Build] = {
    "one map for all heads": headed(mapped_alike, "q k v f g o", f=lambda: nn.Linear(4, 4), g=lambda: nn.Linear(4, 4)),
    "one projection for all heads": headed(
        projected_alike,
        "e q k v o",
        e=lambda: nn.Linear(8, 16),
        **{n: lambda: nn.Linear(4, 4, bias=False) for n in "qkv"},
    ),
    "products of embeddings": net(
        interactions,
        "bottom first second",
        lambda: (torch.randn(4, 5), torch.randint(0, 20, (4, 2))),
        bottom=lambda: nn.Linear(5, 8),
        first=lambda: nn.Embedding(20, 8),
        second=lambda: nn.Embedding(20, 8),
        top=lambda: nn.Linear(11, 2),
    ),
    "mean of heads": net(
        weighed_neighbours,
        "lin",
        lambda: torch.randn(6, 8),
        lin=lambda: nn.Linear(8, 48),
        att=lambda: nn.Parameter(torch.randn(1, 4, 12)),
        o=lambda: nn.Linear(12, 3),
        heads=lambda: 4,
        size=lambda: 12,
    ),
    "parts picked after a sum over their width": net(
        picked_parts, "i o", tokens, i=lambda: nn.Linear(8, 24), o=lambda: nn.Linear(8, 4), width=lambda: 8
    ),
    "one decoder for all parts": net(
        mixture,
        "i latent decoder",
        tokens,
        i=lambda: nn.Linear(8, 16),
        latent=lambda: nn.Linear(16, 24),
        prior=lambda: nn.Linear(16, 3),
        decoder=lambda: nn.Linear(8, 30),
        parts=lambda: 3,
        width=lambda: 8,
    ),
    "a weight for each group": net(
        by_group,
        "i w1 w2 o",
        tokens,
        i=lambda: nn.Linear(8, 16),
        w1=lambda: nn.Parameter(torch.randn(4, 4, 6)),
        w2=lambda: nn.Parameter(torch.randn(4, 6, 4)),
        o=lambda: nn.Linear(16, 4),
        groups=lambda: 4,
    ),
    "gains of parts and places": net(
        of_each,
        "i o",
        tokens,
        i=lambda: nn.Linear(8, 24),
        part=lambda: nn.Parameter(torch.randn(4)),
        place=lambda: nn.Parameter(torch.randn(6)),
        o=lambda: nn.Linear(24, 4),
    ),
    "heads as axes of weights": net(
        axes_of_weights,
        "q k v o",
        tokens,
        **{n: lambda: nn.Parameter(torch.randn(8, 4, 6)) for n in "qkvo"},
        bias=lambda: nn.Parameter(torch.randn(4, 6)),
    ),
    "state of a recurrence": net(
        recurrence,
        "i o",
        tokens,
        i=lambda: nn.Linear(8, 4 * 6 + 2 * 5 + 4),
        o=lambda: nn.Linear(24, 4),
        gain=lambda: nn.Parameter(torch.randn(4)),
        heads=lambda: 4,
        size=lambda: 6,
        state=lambda: 5,
    ),
    "layer norm of each part": over_width(lambda s, h: s.norm(h)),
    "layer norm of whole parts": over_width(
        lambda s, h: F.layer_norm(h, h.shape[-1:]) * h.sum(-1, keepdim=True).sigmoid()
    ),
    "deviation of each part": over_width(lambda s, h: h / (h.std(-1, keepdim=True) + 0.1)),
    "smallest of each part": over_width(lambda s, h: h - h.amin(-1, keepdim=True)),
    "shuffle attention": net(
        shuffle_attention,
        "a b",
        a=lambda: conv(3, 32),
        b=lambda: conv(32, 8),
        w=lambda: nn.Parameter(torch.randn(2, 1, 4, 1, 1)),
        v=lambda: nn.Parameter(torch.randn(2, 1, 4, 1, 1)),
        groups=lambda: 4,
        norm=lambda: nn.GroupNorm(4, 4),
    ),
    "attention of several scales": net(
        multi_scale_attention,
        "a b",
        a=lambda: conv(3, 32),
        b=lambda: conv(32, 8),
        one=lambda: conv(8, 8, 1),
        three=lambda: conv(8, 8),
        groups=lambda: 4,
        norm=lambda: nn.GroupNorm(8, 8),
    ),
    "group norm beside samples": net(
        batched_groups,
        "a b",
        a=lambda: conv(3, 16),
        b=lambda: conv(16, 8),
        norm=lambda: nn.GroupNorm(2, 4),
        groups=lambda: 4,
    ),
    "keys of heads and of all, with a scale of sizes": net(
        latent,
        "down",
        tokens,
        q=lambda: nn.Linear(8, 24),
        down=lambda: nn.Linear(8, 10),
        kv=lambda: nn.Linear(10, 36),
        k=lambda: nn.Linear(8, 2),
        o=lambda: nn.Linear(20, 4),
        heads=lambda: 4,
        size=lambda: 6,
        shared=lambda: 2,
        wide=lambda: 5,
    ),
    "number of heads as a number": headed(lambda s, x: s.o(joined(s, heads_of(s, s.v(x)) / s.heads)), "v o"),
    "zeros of parts and widths": net(
        collected,
        "i a o",
        lambda: torch.randn(8, 6),
        i=lambda: nn.Linear(6, 24, bias=False),
        a=lambda: nn.Parameter(torch.randn(1, 4, 6)),
        o=lambda: nn.Linear(24, 3),
        heads=lambda: 4,
        width=lambda: 6,
    ),
    "tokens that say how wide the residual is": net(
        of_tokens,
        "i q k v o tokens",
        tokens,
        i=lambda: nn.Linear(8, 24),
        q=lambda: nn.Linear(24, 8),
        k=lambda: nn.Linear(24, 8),
        v=lambda: nn.Linear(24, 24),
        tokens=lambda: nn.Parameter(torch.randn(6, 24)),
        o=lambda: nn.Linear(24, 4),
    ),
    "view_as and reshape_as": net(
        viewed_as,
        "i f g o",
        tokens,
        i=lambda: nn.Linear(8, 24),
        f=lambda: nn.Linear(24, 24),
        g=lambda: nn.Linear(24, 24),
        o=lambda: nn.Linear(24, 4),
    ),
    "group norm of heads, groups in the code": headed(
        lambda s, x: s.o(F.group_norm(attended(s, x).flatten(0, 1), 4).view(*x.shape[:2], -1)), "q k v o"
    ),
    "group norm of heads and others": headed(
        shared_norm,
        "q k v o i p",
        i=lambda: nn.Linear(8, 16),
        p=lambda: nn.Linear(16, 4),
        norm=lambda: nn.GroupNorm(4, 16, affine=False),
    ),
    "grouped convolution of heads": headed(
        lambda s, x: s.o(s.c(attended(s, x).mT).mT), "q k v c o", c=lambda: nn.Conv1d(16, 16, 3, padding=1, groups=4)
    ),
    "halves of every part": net(
        halves_turned, "i o", tokens, i=lambda: nn.Linear(8, 24), o=lambda: nn.Linear(24, 4), heads=lambda: 3
    ),
    "gates of places, and a norm of them": net(
        gated_and_normalized,
        "i o",
        tokens,
        i=lambda: nn.Linear(8, 24),
        f=lambda: nn.Linear(6, 6),
        o=lambda: nn.Linear(24, 4),
        heads=lambda: 4,
    ),
    "two heads by einsum": net(
        by_equation,
        "q k v o",
        tokens,
        **{n: lambda: nn.Linear(8, 16) for n in "qkv"},
        o=lambda: nn.Linear(16, 4),
        heads=lambda: 2,
    ),
    "group norm of heads": headed(normalized_heads, "k v o", norm=lambda: nn.GroupNorm(4, 16)),
}
