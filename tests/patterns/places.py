"""Where a mask holds, as indices: what user code writes there, and what else it does with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from judge import Build, between, net, tokens
from torch import nn

Key = Callable[[torch.Tensor], Any]


def filled(key: Key, value: Any = 0.5, must: str = "a b") -> Build:
    """Some of the features are set, between two convolutions."""

    def fn(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[key(x)] = value
        return x

    return between(fn, must)


def rows(key: Key, must: str = "a b") -> Build:
    """The same of whole rows, (batch, height, width) of them."""

    def fn(x: torch.Tensor) -> torch.Tensor:
        x = x.permute(0, 2, 3, 1).clone()
        x[key(x)] = 0.5
        return x.permute(0, 3, 1, 2)

    return between(fn, must)


def written_since(x: torch.Tensor) -> Any:
    mask = x < 0
    at = torch.where(mask)
    mask[:, :, 0] = True
    return at


def unpacked(x: torch.Tensor) -> Any:
    b, c, i, j = torch.where(x < 0)
    return b, c, i, j


def in_another_order(x: torch.Tensor) -> Any:
    b, c, i, j = torch.where(x < 0)
    return b, c, j, i


def counted(x: torch.Tensor) -> torch.Tensor:
    return x / (1 + len(torch.where(x < 0)[0]))


def opened(key: Key) -> Build:
    """As in Mask2Former, Cheng et al. 2022: a mask for every head, whose rows that hide all are opened."""

    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        n = s.attention.num_heads
        hidden = (x @ x.mT).tril(-1) > 0
        hidden[:, 1] = True
        hidden = hidden[:, None].repeat(1, n, 1, 1).flatten(0, 1)
        hidden[key(hidden.sum(-1) == hidden.shape[-1])] = False
        y = s.i(x)
        return s.o(s.attention(y, y, y, attn_mask=hidden)[0])  # type: ignore[no-any-return]

    return net(
        forward,
        "i o attention.in_proj_weight",
        lambda: tokens(2, 5, 8),
        i=lambda: nn.Linear(8, 16),
        attention=lambda: nn.MultiheadAttention(16, 4, batch_first=True),
        o=lambda: nn.Linear(16, 3),
    )


PATTERNS: dict[str, Build] = {
    "by a mask": filled(lambda x: x < 0),
    "where": filled(lambda x: torch.where(x < 0)),
    "nonzero": filled(lambda x: (x < 0).nonzero(as_tuple=True)),
    "nonzero of torch": filled(lambda x: torch.nonzero(x < 0, as_tuple=True)),
    "unpacked": filled(unpacked),
    "dead channels": filled(lambda x: torch.where(x.mean((2, 3)) < 0)),
    "dead channels, a row for each": filled(
        lambda x: x.mean((2, 3)) < 0, torch.linspace(0, 1, 8, dtype=torch.float64), "a b"
    ),
    "rows by a mask": rows(lambda x: x.mean(-1) < 0),
    "rows, where": rows(lambda x: torch.where(x.mean(-1) < 0)),
    "a mask written since": filled(written_since, must=""),
    "in another order": filled(in_another_order, must=""),
    "counted": between(counted, ""),
    "opened by a mask": opened(lambda rows: rows),
    "opened, where": opened(lambda rows: torch.where(rows)),
}
