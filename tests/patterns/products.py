"""Products that torch does by several operations, and that are followed as one: linear maps, products of batches of
matrices, attention; and what code may ask of their results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from judge import Build, conv, image, net, tokens
from torch import nn

L = nn.Linear


def attention(fn: Callable[..., Any], must: str = "q k v o", heads: int = 4, x: Callable[[], Any] = tokens) -> Build:
    """Heads of 8: fn(self, q, k, v), each (4, heads, 5, 8), and an input of width 8."""
    width = 8 * heads

    def forward(s: Any, x: torch.Tensor) -> Any:
        q, k, v = (p(x).unflatten(-1, (-1, 8)).transpose(-3, -2) for p in (s.q, s.k, s.v))
        return s.o(fn(s, q, k, v).transpose(-3, -2).flatten(-2))

    parts = {n: (lambda: L(8, width)) for n in "qkv"}
    return net(forward, must, x, o=lambda: L(width, 4), w=lambda: nn.Parameter(torch.randn(heads, 5, 5)), **parts)


def in_place(s: Any, x: torch.Tensor) -> Any:
    """What a layer gave is no leaf, whether gradients are recorded or not."""
    y = s.a(x)
    if s.training:
        assert y.requires_grad
        assert y.grad_fn is not None
        y.register_hook(lambda g: g)
    return s.b(y.relu_().mul_(2.0))


def by_its_gradient(s: Any, x: torch.Tensor) -> Any:
    """Forces as the gradient of an energy."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        energy = s.b(s.a(x).tanh()).sum()
        return torch.autograd.grad(energy, x, create_graph=True)[0]


def by_the_gradient_of(act: Callable[[torch.Tensor], torch.Tensor]) -> Build:
    def forward(s: Any, x: torch.Tensor) -> Any:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            energy = s.c(act(s.b(act(s.a(x))))).sum()
            return torch.autograd.grad(energy, x, create_graph=True)[0]

    return net(forward, "a b c", tokens, a=lambda: L(8, 16), b=lambda: L(16, 12), c=lambda: L(12, 1))


def one_key(s: Any, x: torch.Tensor) -> Any:
    """Multi-query attention (Shazeer 2019), whose keys and values the products repeat for each head."""
    q = s.q(x).unflatten(-1, (s.heads, s.size)).transpose(1, 2)
    k, v = (part(x).unsqueeze(1) for part in (s.k, s.v))
    y = (q * s.size**-0.5 @ k.mT).softmax(-1) @ v
    return s.o(y.transpose(1, 2).flatten(2))


ACTIVATIONS = (
    "softplus elu celu selu leaky_relu mish hardtanh hardswish hardsigmoid logsigmoid softshrink relu6".split()
)
PATTERNS: dict[str, Build] = {
    **{f"a gradient of {name}": by_the_gradient_of(getattr(F, name)) for name in ACTIVATIONS},
    "attention to one key of all heads": net(
        one_key,
        "q o",
        tokens,
        heads=lambda: 4,
        size=lambda: 6,
        q=lambda: L(8, 24),
        k=lambda: L(8, 6),
        v=lambda: L(8, 6),
        o=lambda: L(24, 4),
    ),
    "a gradient of slopes": by_the_gradient_of(lambda x: F.prelu(x, torch.full((1,), 0.1).to(x))),
    "a linear map of maps": net(
        lambda s, x: s.c(s.b(s.a(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)),
        "a b c",
        a=lambda: conv(3, 16),
        b=lambda: L(16, 12),
        c=lambda: conv(12, 4),
    ),
    "a linear map along the width, beside channels": net(
        lambda s, x: s.c(s.b(s.a(x))), "a c", a=lambda: conv(3, 16), b=lambda: L(8, 12), c=lambda: conv(16, 4)
    ),
    "linear maps along both": net(
        lambda s, x: s.d(s.c(s.b(s.a(x)).mT).mT.relu()),
        "a b d",
        tokens,
        a=lambda: L(8, 16),
        b=lambda: L(16, 12),
        c=lambda: L(5, 10),
        d=lambda: L(12, 4),
    ),
    "a linear map of a vector": net(
        lambda s, x: s.b(s.a(x[0, 0]).relu()), "a b", a=lambda: L(8, 16), b=lambda: L(16, 4)
    ),
    "a linear map by arguments of names": net(
        lambda s, x: s.b(F.linear(input=x, weight=s.a.weight, bias=s.a.bias)),
        "a b",
        tokens,
        a=lambda: L(8, 16),
        b=lambda: L(16, 4),
    ),
    "a weight that is computed": net(
        lambda s, x: s.b(F.linear(x, s.g * s.a.weight, s.a.bias)),
        "a b",
        tokens,
        g=lambda: nn.Parameter(torch.rand(16, 1)),
        a=lambda: L(8, 16),
        b=lambda: L(16, 4),
    ),
    "a weight of two": net(
        lambda s, x: s.b(F.linear(x, s.u.weight @ s.a.weight)),
        "u b",
        tokens,
        a=lambda: L(8, 16, bias=False),
        u=lambda: L(16, 12, bias=False),
        b=lambda: L(12, 4),
    ),
    "a linear map of two activations": net(
        lambda s, x: s.c(F.linear(s.a(x), s.b(x[0]))),
        "a b",
        tokens,
        a=lambda: L(8, 16),
        b=lambda: L(8, 16),
        c=lambda: L(5, 4),
    ),
    "a table as the input": net(
        lambda s, x: x @ s.b(s.a(s.p).relu()).mT,
        "a b",
        lambda: torch.randn(2, 5, 8),
        p=lambda: nn.Parameter(torch.randn(6, 12)),
        a=lambda: L(12, 16),
        b=lambda: L(16, 8),
    ),
    "a table by a linear map of activations": net(
        lambda s, x: s.b(F.linear(s.p, s.a(x[0])).mT.relu()),
        "a p b",
        tokens,
        p=lambda: nn.Parameter(torch.randn(16, 12)),
        a=lambda: L(8, 12),
        b=lambda: L(16, 4),
    ),
    "activations by a linear map of a table": net(
        lambda s, x: s.b(F.linear(s.a(x), s.p).relu()),
        "a p b",
        tokens,
        p=lambda: nn.Parameter(torch.randn(16, 12)),
        a=lambda: L(8, 12),
        b=lambda: L(16, 4),
    ),
    "layers in place": net(in_place, "a b", tokens, a=lambda: L(8, 16), b=lambda: L(16, 4)),
    "layers in place, over maps": net(in_place, "a b", image, a=lambda: conv(3, 16), b=lambda: conv(16, 4)),
    "a gradient as the output": net(by_its_gradient, "", tokens, a=lambda: L(8, 16), b=lambda: L(16, 4)),
    "a linear map under vmap": net(
        lambda s, x: s.b(torch.vmap(lambda row: F.linear(row, s.a.weight, s.a.bias))(x)),
        "a b",
        tokens,
        a=lambda: L(8, 16),
        b=lambda: L(16, 4),
    ),
    "a linear map of each sample's own under vmap": net(
        lambda s, x: s.b(torch.vmap(F.linear)(x, s.w).sum(0)),
        "w b",
        tokens,
        w=lambda: nn.Parameter(torch.randn(4, 16, 8)),
        b=lambda: L(16, 4),
    ),
    "attention, scaled": attention(lambda s, q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.3)),
    "attention, by position": attention(
        lambda s, q, k, v: F.scaled_dot_product_attention(q, k, v, None, 0.0, True, scale=0.3)
    ),
    "attention, a bias of each head": attention(
        lambda s, q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=s.w, scale=0.3), "q k v o w"
    ),
    "attention, a mask": attention(
        lambda s, q, k, v: F.scaled_dot_product_attention(q, k, v, torch.rand(5, 5) < 2, scale=0.3)
    ),
    "attention, keys of other samples": attention(
        lambda s, q, k, v: F.scaled_dot_product_attention(q, k[:1], v[:1], scale=0.3)
    ),
    "attention, queries in groups": attention(
        lambda s, q, k, v: F.scaled_dot_product_attention(q, k[:, ::2], v[:, ::2], scale=0.3, enable_gqa=True), ""
    ),
    "attention, values turned": attention(
        lambda s, q, k, v: F.scaled_dot_product_attention(q, k, v.flip(1), scale=0.3), ""
    ),
    "attention, keys of the head beside": attention(
        lambda s, q, k, v: F.scaled_dot_product_attention(q, k.roll(1, 1), v, scale=0.3), ""
    ),
    "attention, in more dims": attention(
        lambda s, q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.3), x=lambda: torch.randn(2, 3, 5, 8)
    ),
    "attention, one head": attention(lambda s, q, k, v: F.scaled_dot_product_attention(q, k, v), "", 1),
    "attention over channels": attention(
        lambda s, q, k, v: F.scaled_dot_product_attention(q.mT, k.mT, v.mT, scale=0.3).mT
    ),
    "scores of heads": attention(lambda s, q, k, v: (q @ k.mT * 0.3).softmax(-1) @ v),
    "scores of heads over channels": attention(lambda s, q, k, v: ((q.mT @ k * 0.3).softmax(-1) @ v.mT).mT),
    "scores of heads, in more dims": attention(
        lambda s, q, k, v: (q @ k.mT * 0.3).softmax(-1) @ v, x=lambda: torch.randn(2, 3, 5, 8)
    ),
    "values of the head beside": attention(lambda s, q, k, v: (q @ k.mT * 0.3).softmax(-1) @ v.roll(1, 1), ""),
    "a product of heads along their size": attention(lambda s, q, k, v: q @ (k.mT @ v)),
}
