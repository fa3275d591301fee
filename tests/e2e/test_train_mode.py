"""What train mode needs is there after the cut, whatever its forward asks: values, gradients, what it cannot get."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from judge import conv
from torch import nn

import amct_pytorch as amct
from amct_pytorch.analyse.passes import Means, Options, Passes
from amct_pytorch.analyse.run import analyse

CONFIG = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))


class Auxiliary(nn.Module):
    """A head that train mode adds; `asks`: what the forward does before."""

    def __init__(self, asks: Callable[[Auxiliary, torch.Tensor], bool]) -> None:
        super().__init__()
        self.a, self.b, self.head = conv(3, 16), conv(16, 8), conv(16, 8)
        self.asks, self.noted = asks, 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        y = torch.relu(self.a(x))
        out: torch.Tensor = self.b(y)
        return (out, self.head(y)) if self.training and self.asks(self, y) else out


def noted(model: Auxiliary, y: torch.Tensor) -> bool:
    model.noted = y.abs().mean().item()
    return True


def ranged(model: Auxiliary, y: torch.Tensor) -> bool:
    return bool(y.mean() > -9)


@pytest.mark.parametrize(
    "asks", [noted, ranged, lambda model, y: torch.is_grad_enabled(), lambda model, y: y.requires_grad]
)
def test_what_train_mode_adds_fits(tmp_path: Path, asks: Callable[[Auxiliary, torch.Tensor], bool]) -> None:
    model, x = Auxiliary(asks).eval(), torch.randn(2, 3, 8, 8)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    small = amct.create_prune_retrain_model(model, x, CONFIG, tmp_path / "record.txt").train()
    assert small.get_parameter("head.weight").shape == (8, 8, 3, 3)
    sum(out.mean() for out in small(x)).backward()
    assert all(p.grad is not None for p in small.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_what_train_mode_may_need_stays_where_it_cannot_run(tmp_path: Path) -> None:
    class Targets(Auxiliary):
        def forward(
            self, x: torch.Tensor, target: torch.Tensor | None = None
        ) -> torch.Tensor | tuple[torch.Tensor, ...]:
            if self.training and target is None:
                raise ValueError("targets are missing")
            return super().forward(x)

    model, x = Targets(lambda model, y: True).eval(), torch.randn(2, 3, 8, 8)
    with pytest.warns(amct.AmctWarning, match="targets are missing"):
        small = amct.create_prune_retrain_model(model, x, CONFIG, tmp_path / "record.txt").train()
    assert small(x, torch.zeros(1))[1].shape == (2, 8, 8, 8)


def test_what_train_mode_may_need_in_other_numbers_stays(tmp_path: Path) -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.head = conv(3, 16), conv(3, 12), conv(28, 4), nn.Linear(14, 2)

        def forward(self, x: torch.Tensor, target: torch.Tensor | None = None) -> torch.Tensor:
            y = torch.cat([self.a(x), self.b(x)], 1)
            if not self.training:
                return self.c(y)  # type: ignore[no-any-return]
            loss = nn.functional.cross_entropy(self.head(y.chunk(2, 1)[0].mean((2, 3))), target)  # type: ignore[arg-type]
            return self.c(y) * loss  # type: ignore[no-any-return]

    model, x = Joined().eval(), torch.randn(2, 3, 8, 8)
    with pytest.warns(amct.AmctWarning, match="train mode"):
        small = amct.create_prune_retrain_model(model, x, CONFIG, tmp_path / "record.txt").train()
    small(x, torch.zeros(2, dtype=torch.long))
    given = amct.create_prune_retrain_model(model, (x, torch.zeros(2, dtype=torch.long)), CONFIG, tmp_path / "r.txt")
    assert given.get_parameter("b.weight").shape[0] == 6
    given.train()(x, torch.zeros(2, dtype=torch.long))


def test_a_part_with_a_train_of_its_own_keeps_its_mode(tmp_path: Path) -> None:
    """A usual way to freeze statistics; what it is set to speaks of the original."""
    model = nn.Sequential(conv(3, 16), nn.BatchNorm2d(16), nn.ReLU(), conv(16, 8)).eval()
    frozen = model[1]
    frozen.train = lambda mode=True: frozen  # type: ignore[method-assign]
    model.train()
    assert not frozen.training
    small = amct.create_prune_retrain_model(model, torch.randn(2, 3, 8, 8), CONFIG, tmp_path / "record.txt")
    assert [part.training for part in small] == [True, False, True, True]  # type: ignore[union-attr]
    assert [part.training for part in model] == [True, False, True, True]
    assert small.get_parameter("0.weight").shape[0] == 8


def test_what_eval_mode_uses_goes_where_train_mode_cannot_run() -> None:
    class Targets(nn.Sequential):
        def forward(self, x: torch.Tensor, target: torch.Tensor | None = None) -> torch.Tensor:
            if self.training and target is None:
                raise ValueError("targets are missing")
            return super().forward(x)

    plan = amct.plan(Targets(conv(3, 16), nn.ReLU(), conv(16, 8)).eval(), torch.randn(2, 3, 8, 8), CONFIG)
    assert {axis.tensor for axis in plan.removals} == {"0.weight", "0.bias", "2.weight"}


def test_a_forward_that_changes_its_layers_once(tmp_path: Path) -> None:
    """It looks at values, so that both passes are on a copy of the real tensors: on the same one, as in the check."""

    class Converted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.b = self.b.to(x.dtype)
            y = self.b(torch.relu(self.a(x.float())).to(x.dtype))
            return self.c(torch.relu(y).float()) * (1 if x.sum() > 0 else 2)  # type: ignore[no-any-return]

    model, x = Converted().eval(), torch.randn(4, 8).double()
    small = amct.create_prune_retrain_model(model, x, CONFIG, tmp_path / "record.txt")
    assert small.get_parameter("a.weight").shape == (8, 8)
    assert small.get_parameter("b.weight").shape == (4, 8)


class InPlace(nn.Module):
    """Writes into what a layer gave, and asks what a result that gradients go through has."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(6, 16), layer, nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layer(self.first(x).mT).mT.relu_()
        if self.training:
            if y.is_leaf or y.grad_fn is None:
                raise RuntimeError("gradients stop here")
            y.register_hook(lambda gradient: gradient)
        y.mul_(2.0)
        out: torch.Tensor = self.last(y)
        return out


@pytest.mark.parametrize(
    "layer",
    [nn.Linear(5, 5), nn.Conv1d(16, 16, 1), nn.BatchNorm1d(16), nn.LayerNorm(5), nn.Sequential()],
    ids=lambda layer: type(layer).__name__,
)
def test_what_layers_give_is_no_leaf(layer: nn.Module) -> None:
    facts = analyse(InPlace(layer), ((torch.randn(2, 5, 6),), {}), Options({}))
    assert [(trace.training, trace.means) for trace in facts.traces] == [(False, Means.SHAPES), (True, Means.SHAPES)]


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (layer(x).unflatten(-1, (-1, 2)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y = nn.functional.scaled_dot_product_attention(q, k, v, scale=0.5, dropout_p=0.5 if self.training else 0.0)
        if self.training and not y.requires_grad:
            raise RuntimeError("gradients stop here")
        out: torch.Tensor = self.o((q @ k.mT @ y.relu_()).transpose(1, 2).flatten(2))
        return out


def test_what_attention_gives_is_no_leaf() -> None:
    facts = analyse(Attending(), ((torch.randn(2, 5, 8),), {}), Options({}))
    assert [(trace.training, trace.means) for trace in facts.traces] == [(False, Means.SHAPES), (True, Means.SHAPES)]


@pytest.mark.parametrize("warns", ["by shapes", "by values"])
def test_what_the_forward_warns_of_is_no_error_of_a_pass(warns: str, recwarn: pytest.WarningsRecorder) -> None:
    class Warns(Auxiliary):
        def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
            warnings.warn("do not do this", stacklevel=1)
            if warns == "by values":
                float(self.a(x).sum())  # torch warns where it requires gradients
            return super().forward(x)

    plan = amct.plan(Warns(lambda model, y: True).eval(), torch.randn(2, 3, 8, 8), CONFIG)
    assert not recwarn
    assert not plan.summary.notes
    assert {axis.tensor for axis in plan.removals} == {"a.weight", "a.bias", "b.weight", "head.weight"}


def test_where_eval_mode_needs_values_train_mode_takes_them_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Looks(Auxiliary):
        def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
            return super().forward(x if x.sum() > -1e9 else x * 2)

    tried = []
    run = Passes.run
    monkeypatch.setattr(Passes, "run", lambda self, *given: (tried.append(self.means), run(self, *given)))
    analyse(Looks(lambda model, y: True).eval(), ((torch.randn(2, 3, 8, 8),), {}), Options({}))
    assert tried == [Means.SHAPES, Means.REAL, Means.REAL]  # fake tensors have no values either
