"""Heads of which a part is turned, that solve equations, whose state is kept for the next step, that have windows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from attention import Attention, D
from judge import Build, of, tokens
from torch import nn

Turn = Callable[[torch.Tensor], torch.Tensor]


class Partial(Attention):
    """Rotary embeddings of the first places of each head; the others go along as they are."""

    def __init__(self, turn: Turn, part: int, front: bool = True) -> None:
        super().__init__()
        self.turn, self.part, self.front = turn, part, front

    def turned(self, x: torch.Tensor) -> torch.Tensor:
        first, rest = x[..., : self.part], x[..., self.part :]
        return torch.cat([self.turn(first), rest] if self.front else [rest, self.turn(first)], -1)

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return super().attend(self.turned(q), self.turned(k), v)


def by_table(x: torch.Tensor) -> torch.Tensor:
    return x * torch.linspace(1, 2, x.shape[-1], dtype=x.dtype)


def in_steps(x: torch.Tensor) -> torch.Tensor:
    """As in GPT-J and GLM: neighbours are turned."""
    return by_table(x) + torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)


class Delta(Attention):
    """The gated delta rule in one chunk, Yang et al. 2024, without its gate: values that earlier keys correct."""

    def __init__(self, solve: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.solve = solve

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        met = (k @ k.mT).tril(-1) / 10
        return (q @ k.mT).tril() @ self.solve(met + torch.eye(k.shape[-2], dtype=k.dtype), v)


def triangular(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.linalg.solve_triangular(a, b, upper=False, unitriangular=True)


def from_the_right(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.linalg.solve_triangular(a.mT, b.mT, upper=True, left=False).mT


class Whitened(Attention):
    """Values that are made independent of each other within a head: a matrix of its places is inverted."""

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        covariance = v.mT @ v + torch.eye(v.shape[-1], dtype=v.dtype)
        return super().attend(q, k, v @ torch.linalg.inv(covariance))


class Collected(Attention):
    """Results that are put into zeros, position by position, and normalized within each head."""

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        y, out = super().attend(q, k, v), torch.zeros_like(v)
        for i in range(v.shape[2]):
            out[:, :, i] = y[:, :, i]
        return out * (out.square().mean(-1, keepdim=True) + 1e-6).rsqrt()


class Layer:
    state: torch.Tensor | None = None


class Cache:
    def __init__(self) -> None:
        self.layers = [Layer()]


class Linear(Attention):
    """Linear attention whose state goes out for the next step."""

    def __init__(self, state: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.state = state

    def kept(self, x: torch.Tensor, cache: Cache) -> torch.Tensor:
        q, k, v = self.qkv(x)
        state = k.mT @ v
        cache.layers[0].state = self.state(k, v, state)
        return self.merge(q @ state)


class Stateful(Linear):
    def forward(self, x: torch.Tensor) -> Any:  # type: ignore[override]
        cache = Cache()
        return self.kept(x, cache), cache


class Windows(nn.Module):
    """As in CoaT, Xu et al. 2021: the places of heads by convolutions, with another window for some of the heads."""

    def __init__(self, *windows: int) -> None:
        super().__init__()
        self.heads, self.splits = sum(windows), [4 * w for w in windows]
        width = 4 * self.heads
        self.stem, self.qkv, self.proj, self.head = (
            nn.Linear(D, width),
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
            nn.Linear(width, 4),
        )
        self.each = nn.ModuleList(nn.Conv1d(n, n, 3, padding=1, groups=n) for n in self.splits)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        parts = v.mT.reshape(b, c, n).split(self.splits, 1)
        near = torch.cat([each(part) for each, part in zip(self.each, parts, strict=True)], 1)
        near = q * near.reshape(b, self.heads, c // self.heads, n).mT
        far = q @ (k.softmax(2).mT @ v) * 0.5
        return self.head(x + self.proj((far + near).transpose(1, 2).reshape(b, n, c)))


ALL = "q k v proj"  # by heads alone: what comes in and what goes out stays


def alone(make: Callable[[], nn.Module], must: str = ALL) -> Build:
    return of(make, must, lambda: tokens(2, 5, D))


def stateful(state: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor], must: str = ALL) -> Build:
    return alone(lambda: Stateful(state), must)


PATTERNS: dict[str, Build] = {
    "windows of as many heads": alone(lambda: Windows(2, 2), "stem qkv proj"),
    "windows of heads without a common share": alone(lambda: Windows(2, 3, 3), "stem qkv proj"),
    "windows of one head and of more": alone(lambda: Windows(1, 3), "stem qkv proj"),
    "a part by a table": alone(lambda: Partial(by_table, 4)),
    "a part by neighbours": alone(lambda: Partial(in_steps, 4)),
    "most of it by neighbours": alone(lambda: Partial(in_steps, 6)),
    "a part at the end": alone(lambda: Partial(in_steps, 2, front=False)),
    "solved": alone(lambda: Delta(triangular)),
    "solved from the right": alone(lambda: Delta(from_the_right)),
    "solved by an inverse": alone(lambda: Delta(lambda a, b: torch.linalg.inv(a) @ b)),
    "solved in general": alone(lambda: Delta(lambda a, b: torch.linalg.solve(a, b))),
    "whitened": alone(Whitened),
    "collected": alone(Collected),
    "a state that is used": stateful(lambda k, v, state: state),
    "a copy of it": stateful(lambda k, v, state: state.clone()),
    "a state that is filled": stateful(lambda k, v, state: torch.zeros_like(state).copy_(k.mT @ v)),
    "a result that nothing uses": stateful(lambda k, v, state: (2 * k).mT @ v, ""),
}
