"""Distributions in the forward, whose checks look at values, and functions that have no rule but torch's tag."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from judge import Build, between, net
from torch import distributions as D
from torch import nn

L = nn.Linear


def policy(fn: Callable[..., Any], must: str = "a b") -> Build:
    """Two layers, a head `mu` of 4, a value, and a target network that does not run: fn(self, the head's)."""

    def forward(s: Any, x: torch.Tensor) -> Any:
        h = torch.tanh(s.b(torch.tanh(s.a(x))))
        return fn(s, s.mu(h)), s.v(h)

    return net(
        forward,
        must,
        lambda: torch.randn(5, 8),
        a=lambda: L(8, 32),
        b=lambda: L(32, 32),
        mu=lambda: L(32, 4),
        v=lambda: L(32, 1),
        log_std=lambda: nn.Parameter(torch.randn(4)),
        target=lambda: nn.Sequential(L(8, 32), L(32, 1)),
    )


def normal(s: Any, mu: torch.Tensor) -> Any:
    d = D.Normal(mu, s.log_std.exp())
    action = d.rsample() if s.training else d.mean
    return action, d.log_prob(action).sum(-1), d.entropy().sum(-1)


def squashed(s: Any, mu: torch.Tensor) -> Any:
    d = D.TransformedDistribution(D.Normal(mu, s.log_std.exp()), [D.TanhTransform(cache_size=1)])
    action = torch.tanh(mu)
    return action, d.log_prob(action)


def categorical(s: Any, mu: torch.Tensor) -> Any:
    d = D.Categorical(logits=mu)
    action = d.sample() if s.training else d.probs.argmax(-1)
    return action, d.log_prob(action), d.entropy()


def of_probabilities(s: Any, mu: torch.Tensor) -> Any:
    d = D.Categorical(F.softmax(mu, -1))
    return d.log_prob(d.probs.argmax(-1))


def beta(s: Any, mu: torch.Tensor) -> Any:
    one = F.softplus(mu) + 1
    d = D.Independent(D.Beta(one, one + 1), 1)
    return d.mean, d.log_prob(d.mean)


def latent(s: Any, x: torch.Tensor) -> Any:
    """A variational autoencoder: the latent space is a group as any."""
    h = F.relu(s.e(x))
    q = D.Normal(s.m(h), s.l(h).exp())
    z = q.rsample() if s.training else q.mean
    prior = D.Normal(torch.zeros_like(z), torch.ones_like(z))
    return s.o(F.relu(s.d(z))), D.kl_divergence(q, prior).sum(-1)


PATTERNS: dict[str, Build] = {
    "a normal distribution": policy(normal),
    "a squashed one": policy(squashed),
    "a categorical one": policy(categorical),
    "one of probabilities": policy(of_probabilities),
    "a beta distribution": policy(beta),
    "a latent space": net(
        latent,
        "e m l d",
        lambda: torch.randn(5, 8),
        e=lambda: L(8, 32),
        m=lambda: L(32, 16),
        l=lambda: L(32, 16),
        d=lambda: L(16, 32),
        o=lambda: L(32, 8),
    ),
    "log of the gamma function": between(lambda x: torch.lgamma(x.abs() + 1)),
    "hyperbolic, bent back": between(lambda x: torch.asinh(x)),
    "sinc of a gain": net(
        lambda s, x: s.b(torch.special.xlog1py(torch.sinc(s.a(x)), s.g.abs())),
        "a b g",
        a=lambda: nn.Conv2d(3, 16, 3),
        g=lambda: nn.Parameter(torch.randn(16, 1, 1)),
        b=lambda: nn.Conv2d(16, 8, 1),
    ),
}
