"""Which sizes that no pass read may be read at another size of the batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from amct_pytorch.analyse.unread import of_other_batches
from amct_pytorch.record import Setting


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.width, self.kind, self.last = 8, "plain", None
        self.parts = nn.ModuleList()


class Counting(nn.Linear):
    """Tells another part how many rows there are."""

    def __init__(self) -> None:
        super().__init__(8, 8)
        self.told: list[Any] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in self.told:
            part.rows = len(x)
        return super().forward(x)


def whole(self: Any, x: Any) -> Any:
    return x[:, : self.width]


def by_settings(self: Any, x: Any) -> Any:
    if self.kind == "narrow" and self.last is not None and not self.parts.training:
        x = x.view(-1, self.width)
    for part in self.parts:
        x = part(x)
    return x if self.kind else x.view(-1, self.width)


def by_method(self: Any, x: Any) -> Any:
    if self.kind == "narrow":
        x = self.narrowed(x)
    return x


def by_batch(self: Any, x: Any) -> Any:
    return x.view(-1, self.width) if x.shape[0] > 1 else x


def by_either(self: Any, x: Any) -> Any:
    return x.view(-1, self.width) if (x.shape[0] if self.kind else 1) > 1 else x


def by_name(self: Any, x: Any) -> Any:
    several = len(x) > 1
    if several:
        x = self.narrowed(x)
    return x


def by_name_at_once(self: Any, x: Any) -> Any:
    return x.view(n, self.width) if (n := len(x)) != 1 else x


def by_inner_name(self: Any, x: Any) -> Any:
    def widened(y: Any) -> Any:
        return y.view(-1, self.width) if y else x

    return widened(len(x) > 1)


def by_another_part(self: Any, x: Any) -> Any:
    return x.view(-1, self.width) if self.rows > 1 else x


def by_loop(self: Any, x: Any) -> Any:
    for _ in range(len(x)):
        x = self.narrowed(x)
    return x


def by_each(self: Any, x: Any) -> Any:
    return [y.view(self.width) for y in x]


def by_error(self: Any, x: Any) -> Any:
    try:
        return x.squeeze(0)[0]
    except IndexError:
        return x.view(-1, self.width)


def by_what_it_sets(self: Any, x: Any) -> Any:
    self.count = len(x)
    return x.view(-1, self.width) if self.count > 1 else x


def by_function(self: Any, x: Any) -> Any:
    return (lambda y: y.view(-1, self.width) if len(y) > 1 else y)(x)


def narrowed(self: Any, x: Any) -> Any:
    return x.view(-1, self.width)


@pytest.mark.parametrize(
    ("forward", "may"),
    [
        (whole, False),
        (by_settings, False),
        (by_method, False),
        (by_batch, True),
        (by_either, True),
        (by_name, True),
        (by_name_at_once, True),
        (by_inner_name, True),
        (by_another_part, True),
        (by_loop, True),
        (by_each, True),
        (by_error, True),
        (by_what_it_sets, True),
        (by_function, True),
    ],
)
def test_attributes_that_stay_do_not_make_it_another_at_other_batches(forward: Any, may: bool) -> None:
    kind = type("Network", (Layer,), {"forward": forward, "narrowed": narrowed, "rows": 1})
    model = nn.Sequential(Counting(), kind())
    assert of_other_batches(model, [Setting("1", "width")]) is may
    assert not of_other_batches(model, [])
    assert forward is by_what_it_sets or isinstance(model(torch.ones(1, 8)), (torch.Tensor, list))
