"""Sizes that code names and that the given input does not make it read are found with a batch of another size."""

from __future__ import annotations

import warnings

import pytest
import torch
from oracle import distance, kept_twin, run
from torch import nn

import amct_pytorch as amct

CONFIG = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))
batches: list[int] = []  # of each forward


class Masked(nn.Module):
    """A mask of all samples, made anew where there are more or fewer of them."""

    def __init__(self, in_train_mode: bool = False) -> None:
        super().__init__()
        self.width, self.samples, self.in_train_mode = 16, 4, in_train_mode
        self.a, self.b = nn.Linear(5, 16), nn.Linear(16, 3)
        self.register_buffer("mask", torch.ones(4, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batches.append(len(x))
        if self.samples != len(x) and self.training >= self.in_train_mode:
            self.samples = len(x)
            self.mask = torch.ones(len(x), self.width)
        mask = self.mask if self.samples == len(x) else 1
        return self.b(torch.relu(self.a(x)) * mask)  # type: ignore[no-any-return]


class OfFour(Masked):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert len(x) == 4
        return super().forward(x)


class Builds(nn.Module):
    """Code that builds the model, or shows it, may name what it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 16
        self.a, self.b = nn.Linear(5, self.width), nn.Linear(self.width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batches.append(len(x))
        return self.b(torch.relu(self.a(x)))  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"{self.width}"


@pytest.mark.parametrize("in_train_mode", [False, True])
def test_batches_of_another_size(in_train_mode: bool) -> None:
    model = Masked(in_train_mode).train(in_train_mode)
    plan = amct.plan(model, torch.rand(4, 5), CONFIG)
    assert "width" not in str(plan.report())
    small = amct.apply(model, plan)
    assert small.a.out_features == small.width == 8
    for n in (4, 2, 7):
        x = torch.rand(n, 5)
        assert distance(run(small, (x,)), run(kept_twin(model, small), (x,))) < 1e-6


class Drawn(nn.Module):
    """In train mode a mask is drawn anew where there are more or fewer samples than before, in either mode."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.samples = 16, 0
        self.a, self.b = nn.Linear(5, 16), nn.Linear(16, 3)
        self.register_buffer("mask", torch.ones(1, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.samples != len(x):
            self.samples = len(x)
            if self.training:
                self.mask = torch.bernoulli(torch.full((len(x), self.width), 0.9))
        y = torch.relu(self.a(x))
        return self.b(y * self.mask if self.training else y)  # type: ignore[no-any-return]


def test_train_mode_and_another_size_at_once() -> None:
    model, x = Drawn(), torch.rand(4, 5)
    model(x)
    model.eval()(x)  # as after training
    small = amct.apply(model, amct.plan(model, x, CONFIG)).train()
    assert small.width == 8
    assert small(torch.rand(7, 5)).shape == (7, 3)


class OfOne(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.width, self.a, self.b = 16, nn.Linear(5, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.a(x))
        return self.b(y.view(1, self.width) if len(x) == 1 else y)  # type: ignore[no-any-return]


def test_a_branch_for_one_sample() -> None:
    model = OfOne().eval()
    small = amct.apply(model, amct.plan(model, torch.rand(4, 5), CONFIG))
    x = torch.rand(1, 5)
    assert distance(run(small, (x,)), run(kept_twin(model, small), (x,))) < 1e-6


def test_a_model_that_takes_one_batch_size() -> None:
    model = OfFour().eval()
    batches.clear()
    plan = amct.plan(model, torch.rand(4, 5), CONFIG)
    assert "no layer was seen to be as long as width = 16: that stays as it is" in str(plan.report())
    small = amct.apply(model, plan)
    assert (small.a.out_features, small.width) == (8, 16)
    assert set(batches) == {4}


class Scaled(Masked):
    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return scale * super().forward(x)


def test_inputs_without_a_batch() -> None:
    model = Scaled().eval()
    small = amct.apply(model, amct.plan(model, (torch.rand(4, 5), torch.tensor(2.0)), CONFIG))
    assert small.a.out_features == 8


class Refuses(Builds):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim != 2:
            wanted = ", ".join(str(n) for n in (4, 5))
            raise ValueError(f"expected ({wanted}) for {self.width} channels")
        assert len(x) > 1, f"{len(x)} samples, {self.width} channels"
        return super().forward(x)


class NamesAnother(Builds):
    def __init__(self) -> None:
        super().__init__()
        self.dim = 16

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x if x.dim() == 2 else x.flatten(1).to(x.dtype))


class Lists(Builds):
    """It names the size where nothing runs for this input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        return torch.cat([y, *(y[:, :1].expand(-1, self.width) for _ in range(len(x) - 4))], 1)


@pytest.mark.parametrize("kind", [Builds, Refuses, NamesAnother])
def test_what_only_builds_or_refuses_is_not_looked_for(kind: type[nn.Module]) -> None:
    batches.clear()
    amct.plan(kind().eval(), torch.rand(4, 5), CONFIG)
    assert set(batches) == {4}


def test_what_runs_for_more_samples_is() -> None:
    batches.clear()
    amct.plan(Lists().eval(), torch.rand(4, 5), CONFIG)
    assert batches == [4, 8, 4, 8]  # those of the pruned model, too


class InFours(nn.Module):
    """Learned keys for each four samples: attention refuses one sample, which has none, amid its parts of weights."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.keys = 16, nn.Parameter(torch.randn(4, 2, 16))
        self.a, self.b = nn.Linear(5, 16), nn.Linear(16, 3)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batches.append(len(x))
        keys = self.keys.repeat(len(x) // 4, 1, 1)
        y = self.attention(self.a(x), keys, keys)[0]
        return self.b(y if len(x) > 1 else y.expand(1, 5, self.width))  # type: ignore[no-any-return]


def test_batches_that_fail_amid_an_operation_leave_nothing() -> None:
    batches.clear()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")  # an error would end that pass, as its own did
        plan = amct.plan(InFours().eval(), torch.rand(8, 5, 5), CONFIG)
    assert not told
    assert {1, 8} <= set(batches)
    assert plan.summary.parameters[1] < plan.summary.parameters[0]
