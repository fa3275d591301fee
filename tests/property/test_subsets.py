"""Every subset of the units of every group of small networks, not just the one that scores choose."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from oracle import distance, fits, kept_twin, ready, run
from torch import nn

import amct_pytorch as amct
from amct_pytorch.analyse.equations import solve
from amct_pytorch.analyse.groups import Group, kept_labels
from amct_pytorch.analyse.passes import Options
from amct_pytorch.analyse.run import Facts, analyse
from amct_pytorch.config import ChannelSparsity
from amct_pytorch.select.plan import Choice, Selector


class Residual(nn.Module):
    """A stem, a depthwise block around which it is added, squeeze and excite, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.expand = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1)
        self.deep, self.back = nn.Conv2d(5, 5, 3, padding=1, groups=5), nn.Conv2d(5, 4, 1)
        self.norm, self.gate = nn.BatchNorm2d(5), nn.Linear(4, 4)
        self.head = nn.Linear(4 * 4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.back(torch.relu(self.norm(self.deep(self.expand(x)))))
        x = x * torch.sigmoid(self.gate(x.mean((2, 3))))[..., None, None]
        return self.head(x.flatten(1))


class Concatenated(nn.Module):
    """Two branches side by side, normalized together."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(3, 3)
        self.norm, self.head = nn.LayerNorm(7), nn.Linear(7, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(torch.cat([self.a(x), self.b(x)], -1)))


class Heads(nn.Module):
    """Attention with sizes in attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.size = 3, 2
        self.qkv, self.proj = nn.Linear(4, 18), nn.Linear(6, 4)
        self.inp, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inp(x)
        b, n, _ = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, self.size).permute(2, 0, 3, 1, 4)
        y = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.head(x + self.proj(y.transpose(1, 2).reshape(b, n, self.heads * self.size)))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "residual": (Residual, (2, 3, 4, 4)),
    "concatenated": (Concatenated, (2, 3)),
    "heads": (Heads, (2, 3, 3)),
}


def subsets(group: Group) -> Iterator[list[int]]:
    """Every subset of a group's units that leaves one; of several classes, equally many of each."""
    classes = [c.tolist() for c in group.classes]
    for gone in range(1, min(map(len, classes))):
        for parts in itertools.product(*(itertools.combinations(c, gone) for c in classes)):
            yield [u for part in parts for u in part]


def choice_of(selector: Selector, facts: Facts, removed: dict[int, list[int]]) -> Choice:
    keep = kept_labels(facts.grouping.unit, [u for units in removed.values() for u in units])
    values, wrong = solve(list(facts.equations), keep)
    assert not wrong
    return Choice(selector, removed, keep, values)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_subset_of_units(name: str) -> None:
    make, shape = NETWORKS[name]
    model = ready(make())
    inputs = (torch.randn(shape, dtype=torch.float64),)
    facts = analyse(model, (inputs, {}), Options({}))
    selector = Selector(facts, amct.SparsityConfig(ChannelSparsity(0.5, False)), model)
    tried, seen = 0, set()
    for index, group in enumerate(facts.grouping.groups):
        for gone in subsets(group):
            small = amct.apply(model, choice_of(selector, facts, {index: gone}).plan())
            assert all(fits(m) for m in small.modules())
            assert distance(run(small, inputs), run(kept_twin(model, small), inputs)) <= 1e-10, (index, gone)
            seen.add(tuple(tuple(p.shape) for p in small.parameters()))
            tried += 1
    assert tried >= 12
    assert len(seen) > 1
    assert all(
        any(p.shape != q.shape for p, q in zip(small.parameters(), model.parameters(), strict=True)) for _ in "1"
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_random_subsets_of_all_groups_at_once(name: str) -> None:
    make, shape = NETWORKS[name]
    model = ready(make())
    inputs = (torch.randn(shape, dtype=torch.float64),)
    facts = analyse(model, (inputs, {}), Options({}))
    selector = Selector(facts, amct.SparsityConfig(ChannelSparsity(0.5, False)), model)
    random = np.random.default_rng(0)
    every = [list(subsets(g)) for g in facts.grouping.groups]
    assert all(every)
    for _ in range(30):
        removed = {i: options[random.integers(len(options))] for i, options in enumerate(every)}
        small = amct.apply(model, choice_of(selector, facts, removed).plan())
        assert distance(run(small, inputs), run(kept_twin(model, small), inputs)) <= 1e-10, removed
