"""How many go and which: literal numbers of the rules, and scores against a formula of numpy alone."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import amct_pytorch as amct
from amct_pytorch.config import ChannelSparsity
from amct_pytorch.record import Node
from amct_pytorch.select.counts import kept_units
from amct_pytorch.select.scores import filter_norms, ranked, ranked_together, unit_scores


@pytest.mark.parametrize(
    ("units", "ratio", "lost"),
    [
        (10, 0.25, 2),  # halves to even
        (14, 0.25, 4),
        (5, 0.5, 2),
        (7, 0.5, 4),
        (15, 0.3, 5),  # 0.3 is 0.3000000119... as a 32-bit float
        (2, 0.8, 1),  # at least one stays
        (3, 0.9, 2),
        (1, 0.9, 0),
        (16, 0.5, 8),
        (100, 0.01, 1),
        (48, 0.3, 14),
    ],
)
def test_how_many_go(units: int, ratio: float, lost: int) -> None:
    assert units - kept_units(units, ratio) == lost


@pytest.mark.parametrize(
    ("units", "ratio", "lost"),
    [
        (20, 0.25, 4),
        (48, 0.5, 16),
        (16, 0.3, 0),
        (160, 0.3, 48),
        (20, 0.5, 4),
        (15, 0.5, 0),
        (64, 0.9, 48),
        (17, 0.1, 1),
    ],
)
def test_how_many_go_aligned(units: int, ratio: float, lost: int) -> None:
    assert units - kept_units(units, ratio, widths=[1]) == lost


@pytest.mark.parametrize(
    ("units", "ratio", "groups", "lost"),
    [(64, 0.3, 4, 20), (64, 0.3, 32, 32), (64, 0.5, 4, 32), (8, 0.9, 4, 4), (12, 0.1, 4, 4)],
)
def test_how_many_go_of_a_grouped_convolution(units: int, ratio: float, groups: int, lost: int) -> None:
    """Kept is rounded down to a multiple of the groups, at least the groups."""
    assert units - kept_units(units, ratio, shares=units // groups) == lost


@pytest.mark.parametrize(
    ("units", "ratio", "heads", "lost"),
    [(24, 0.5, 3, 16), (20, 0.5, 5, 8), (32, 0.05, 4, 0), (24, 0.2, 3, 8), (24, 0.9, 3, 16), (56, 0.3, 7, 16)],
)
def test_how_many_go_of_a_width_that_counts_heads(units: int, ratio: float, heads: int, lost: int) -> None:
    """As many heads as go by themselves, and one at least stays."""
    assert units - kept_units(units, ratio, shares=heads, rows=False) == lost


class Coupled(nn.Module):
    """Five heads, whose size is the width divided by their number."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.a, self.qkv, self.o, self.b = 5, nn.Linear(8, 20), *map(nn.Linear, (20, 20, 20), (60, 20, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        return self.b(x + self.o(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).reshape(b, n, c)))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("ratio", "heads"), [(0.5, 3), (0.05, 5), (0.2, 4), (0.9, 1)])
def test_heads_of_a_width_go_by_their_number(ratio: float, heads: int) -> None:
    model = Coupled()
    small = amct.apply(model, pruned(model, torch.randn(2, 3, 8), ratio))
    assert (small.heads, small.qkv.weight.shape) == (heads, (12 * heads, 4 * heads))


def test_aligned_and_grouped() -> None:
    assert kept_units(96, 0.6, shares=32, widths=[1], groups=3) == 48  # a multiple of lcm(16, 3)
    assert kept_units(96, 0.4, shares=32, widths=[1], groups=3) == 96
    assert kept_units(8, 0.5, widths=[4]) == 4  # heads of 4: 16 channels
    assert kept_units(7, 0.5, widths=[4]) == 4
    assert kept_units(6, 0.5, widths=[4, 3]) == 6  # 3 per unit: never a multiple of 16 below


def pruned(model: nn.Module, x: Any, ratio: float = 0.5, aligned: bool = False, **kw: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", amct.AmctWarning)
        return amct.plan(model.eval(), x, amct.SparsityConfig(ChannelSparsity(ratio, aligned), **kw))


def removed(plan: Any, tensor: str, axis: int) -> list[int]:
    return [i for a, r in plan.removals.items() if a == (tensor, axis) for i in r.removed]


def norms(weight: torch.Tensor, axis: int = 0) -> np.ndarray:
    w = np.moveaxis(weight.detach().numpy().astype(np.float64), axis, 0)
    return np.sqrt((w.reshape(len(w), -1) ** 2).sum(1))


def scaled(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / (values.max() - values.min())


def lowest(scores: np.ndarray, count: int) -> list[int]:
    return sorted(np.argsort(scores, kind="stable")[:count].tolist())


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 20, 3), nn.Conv2d(3, 20, 3), nn.Conv2d(20, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.a(x) + self.b(x))


X = torch.zeros(1, 3, 6, 6)


def test_one_producer_loses_its_smallest_filters() -> None:
    model = nn.Sequential(nn.Conv2d(3, 20, 3), nn.ReLU(), nn.Conv2d(20, 4, 1))
    plan = pruned(model, X, 0.3)
    assert removed(plan, "0.weight", 0) == lowest(norms(model[0].weight), 6)
    assert removed(plan, "0.bias", 0) == removed(plan, "2.weight", 1) == removed(plan, "0.weight", 0)
    assert removed(plan, "2.weight", 0) == []


def test_several_producers_are_balanced_and_summed() -> None:
    model = Chain()
    with torch.no_grad():
        model.b.weight *= 100  # without balance, b alone would decide
    plan = pruned(model, X)
    want = lowest(scaled(norms(model.a.weight)) + scaled(norms(model.b.weight)), 10)
    assert want != lowest(norms(model.b.weight), 10)
    assert removed(plan, "a.weight", 0) == removed(plan, "b.weight", 0) == want


def test_transposed_and_grouped_filters() -> None:
    model = nn.Sequential(nn.ConvTranspose2d(3, 20, 3), nn.Conv2d(20, 4, 1))
    assert removed(pruned(model, X), "0.weight", 1) == lowest(norms(model[0].weight, 1), 10)
    model = nn.Sequential(nn.Conv2d(4, 12, 3, groups=2), nn.ReLU(), nn.Conv2d(12, 4, 1))
    gone = removed(pruned(model, torch.zeros(1, 4, 6, 6)), "0.weight", 0)
    n = norms(model[0].weight)
    assert gone == lowest(n[:6], 3) + [6 + i for i in lowest(n[6:], 3)]


def test_filters_of_a_grouped_transposed_convolution() -> None:
    layer = nn.ConvTranspose2d(4, 6, 3, groups=2)  # weight (4, 3, 3, 3)
    w = layer.weight.detach().numpy().astype(np.float64)
    want = [np.sqrt((w[2 * g : 2 * g + 2, c] ** 2).sum()) for g in range(2) for c in range(3)]
    np.testing.assert_allclose(filter_norms(layer.weight, 1, 6, "w"), want)


def test_a_head_scores_the_mean_of_its_rows() -> None:
    rows = np.array([4.0, 0.0, 1.0, 1.0, 3.0, 2.0])
    unit = np.array([0, 0, 1, 1, 2, 2])
    found = unit_scores([np.array([0, 1, 2])], [(np.arange(6), rows)], unit)
    np.testing.assert_allclose(found, [0.5, 0.25, 0.625])
    apart = unit_scores([np.array([2]), np.array([0, 1])], [(np.arange(6), rows)], unit)  # each class on its own scale
    np.testing.assert_allclose(apart, [0.5, 0.5, 0.25])


def test_ties_go_lowest_first_and_equal_weights_are_ties() -> None:
    classes = [np.array([4, 5, 6, 9]), np.array([1, 2])]
    assert ranked(classes, np.array([1.0, 0.0, 0.0, 2.0, 0.5, 0.5])) == [[5, 6, 4, 9], [1, 2]]
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1))
    nn.init.constant_(model[0].weight, 0.5)
    assert removed(pruned(model, X), "0.weight", 0) == [0, 1, 2, 3]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_an_error(value: float) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1))
    with torch.no_grad():
        model[0].weight[2, 1] = value
    with pytest.raises(amct.ModelError, match=r"0\.weight"):
        pruned(model, X)
    pruned(model, X, skip_layers=("0",))  # not scored


def test_the_smallest_ratio_of_the_producers_counts() -> None:
    plan = pruned(Chain(), X, override_layers={"a": ChannelSparsity(0.2, False)})
    assert len(removed(plan, "b.weight", 0)) == 4


def test_alignment_applies_if_one_producer_asks_for_it() -> None:
    plan = pruned(Chain(), X, override_layers={"a": ChannelSparsity(0.5, True)})
    assert len(removed(plan, "b.weight", 0)) == 4  # 20 -> 16


def test_classes_without_a_common_share_lose_theirs_together_and_each_keeps_one() -> None:
    classes = [np.array([0, 1]), np.array([2, 3, 4]), np.array([5, 6, 7, 8])]
    scores = np.array([8.0, 9.0, 5.0, 0.0, 1.0, 2.0, 3.0, 4.0, 7.0])
    # By hand: of the first two the least important first, then the best of each, 2 and 1; the others by themselves.
    assert ranked_together(classes, scores, (0, 0, 1)) == [[3, 4, 0, 2, 1], [5, 6, 7, 8]]


@pytest.mark.parametrize("skip", [{"skip_layers": ("1",)}, {"skip_types": ("Between",)}, {"skip_layers": ("1*",)}])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_depthwise_convolution_that_is_skipped_stays_whole(skip: dict[str, Any], transposed: bool) -> None:
    kind = type("Between", (nn.ConvTranspose2d if transposed else nn.Conv2d,), {})
    model = nn.Sequential(nn.Conv2d(3, 8, 1), kind(8, 8, 3, groups=8), nn.Conv2d(8, 16, 1), nn.Conv2d(16, 4, 1))
    assert len(removed(pruned(model, X), "1.weight", 0)) == 4
    plan = pruned(model, X, **skip)
    assert {axis.tensor.partition(".")[0] for axis in plan.removals} == {"2", "3"}
    assert "8 channels stay: a layer of the group is skipped (0)" in plan.report()


def test_a_skipped_producer_keeps_its_group_and_may_consume() -> None:
    assert not pruned(Chain(), X, skip_layers=("a",)).removals
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1))
    assert len(removed(pruned(model, X, skip_layers=("1",)), "1.weight", 1)) == 4
    assert not pruned(model, X, skip_types=("Conv2d",)).removals


def test_nodes_in_the_words_of_the_record() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(32, 4)
    )
    plan = pruned(model, X)
    gone = tuple(lowest(norms(model[0].weight), 4))
    columns = tuple(4 * i + k for i in gone for k in range(4))
    (group,) = plan.groups
    assert group.producers == (Node("0", "Conv", 0, 8, gone),)
    assert group.consumers == (
        Node("1", "BatchNormalization", 0, 8, gone),
        Node("2", "Conv", 0, 8, gone),
        Node("4", "Gemm", 0, 32, columns),
    )


def test_ranges_after_a_concatenation() -> None:
    class Cat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 16, 1), nn.Conv2d(3, 12, 1), nn.Conv2d(28, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.c(torch.cat([self.a(x), self.b(x)], 1))

    model = Cat()
    first, second = pruned(model, X).groups
    assert [(n.begin, n.end) for n in (*first.consumers, *second.consumers)] == [(0, 16), (16, 28)]
    assert second.producers[0].removed == tuple(lowest(norms(model.b.weight), 6))
    assert second.consumers[0].removed == tuple(16 + i for i in second.producers[0].removed)


def test_nodes_of_a_group_that_loses_nothing() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1))
    (group,) = pruned(model, X, aligned=True).groups
    assert group.producers == (Node("0", "Conv", 0, 8),)
    assert group.consumers == (Node("1", "Conv", 0, 8),)


def test_groups_of_a_grouped_convolution_are_told() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1, groups=2), nn.Conv2d(8, 4, 1))
    nodes = {(n.name, n.type): n.groups for g in pruned(model, X).groups for n in (*g.producers, *g.consumers)}
    assert nodes == {("0", "Conv"): None, ("1", "Conv"): 2, ("2", "Conv"): None}
