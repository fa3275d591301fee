"""What a network gives keeps its width, whatever it is given in."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import distributions, nn

import amct_pytorch as amct

CONFIG = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))


class Box:
    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


class Slots:
    __slots__ = ("tensor",)

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


class Private:
    __slots__ = ("__tensor",)

    def __init__(self, tensor: torch.Tensor) -> None:
        self.__tensor = tensor


class Named(list[torch.Tensor]):
    """A list with an attribute."""

    def __init__(self, tensor: torch.Tensor) -> None:
        super().__init__()
        self.tensor = tensor


class Called(Box):
    def __call__(self) -> torch.Tensor:
        return self.tensor


@dataclass
class Data:
    tensor: torch.Tensor


class Network(nn.Module):
    def __init__(self, gives: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.a, self.b, self.gives = nn.Linear(8, 16), nn.Linear(16, 4), gives

    def forward(self, x: torch.Tensor) -> Any:
        return self.gives(self.b(torch.relu(self.a(x))))


def normal(out: torch.Tensor) -> distributions.Distribution:
    return distributions.Independent(distributions.Normal(out, out.exp(), validate_args=False), 1, validate_args=False)


GIVEN: dict[str, Callable[[torch.Tensor], Any]] = {
    "array": lambda out: out.detach().numpy(),
    "list of numbers": lambda out: out.tolist(),
    "distribution of a distribution": normal,
    "object": Box,
    "object in an object": lambda out: Box(Box(out)),  # type: ignore[arg-type]
    "objects in a list in an object": lambda out: SimpleNamespace(boxes=[Box(out)]),
    "slots": Slots,
    "private slot": Private,
    "attribute of a list": Named,
    "object that can be called": Called,
    "partial function": lambda out: functools.partial(torch.add, out),
    "deque": lambda out: deque([out]),
    "values of a dictionary": lambda out: {"out": out}.values(),
    "frozen set": lambda out: frozenset([out]),
    "data class in a dictionary": lambda out: {"data": Data(out)},
    "generator": lambda out: (t for t in (out,)),
}


@pytest.mark.parametrize("given", GIVEN)
def test_outputs_keep_their_width(tmp_path: Path, given: str) -> None:
    model, x = Network(GIVEN[given]).eval(), torch.randn(4, 8)
    small = amct.create_prune_retrain_model(model, x, CONFIG, tmp_path / "record.txt")
    assert small.get_parameter("b.weight").shape == (4, 8)


def test_what_objects_keep_for_later_layers_is_state(tmp_path: Path) -> None:
    """A cache in objects of an object, which the forward uses: its channels may go."""

    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)

        def forward(self, x: torch.Tensor) -> Any:
            cache = SimpleNamespace(layers=[Box(self.a(x))])
            return self.b(torch.relu(cache.layers[0].tensor)), cache

    model, x = Cached().eval(), torch.randn(4, 8)
    small = amct.create_prune_retrain_model(model, x, CONFIG, tmp_path / "record.txt")
    assert small.get_parameter("a.weight").shape == (8, 8)


class IntoArguments(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 12)

    def forward(self, x: torch.Tensor, found: Any) -> None:
        y = self.b(torch.relu(self.a(x)))
        if isinstance(found, dict):
            found["y"] = y
        elif isinstance(found, list):
            found.append(y)
        else:
            found.copy_(y)


class IntoItself(IntoArguments):
    def forward(self, x: torch.Tensor) -> None:  # type: ignore[override]
        self.found = self.b(torch.relu(self.a(x)))


def test_results_in_attributes_are_outputs_where_nothing_is_returned() -> None:
    model = IntoItself()
    small = amct.apply(model, amct.plan(model, torch.rand(4, 8), CONFIG))
    assert (small.a.out_features, small.b.out_features) == (8, 12)


@pytest.mark.parametrize("given", [{}, [], torch.zeros(4, 12)])
def test_results_in_the_arguments_are_outputs(given: Any) -> None:
    model, before = IntoArguments(), repr(given)
    small = amct.apply(model, amct.plan(model, (torch.rand(4, 8), given), CONFIG))  # a warning would be an error
    assert (small.a.out_features, small.b.out_features) == (8, 12)
    assert repr(given) == before
