"""Layers of a module that a method folds into one can be folded after the cut, too."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import amct_pytorch as amct

CONFIG = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))


class Branches(nn.Module):
    """Convolutions and, where it can be, the input itself, each normalized, in a sum: RepVGG (Ding et al. 2021)."""

    def __init__(self, inputs: int, outputs: int, groups: int = 1, branches: int = 2) -> None:
        super().__init__()
        self.inputs, self.outputs, self.groups, self.branches = inputs, outputs, groups, branches
        self.convs = nn.ModuleList(nn.Conv2d(inputs, outputs, 3, 1, 1, groups=groups) for _ in range(branches))
        self.norms = nn.ModuleList(nn.BatchNorm2d(outputs) for _ in range(branches))
        self.skip = nn.BatchNorm2d(inputs) if inputs == outputs else None
        self.folded: nn.Conv2d | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.folded is not None:
            return F.relu(self.folded(x))
        y: torch.Tensor | int = 0 if self.skip is None else self.skip(x)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            y = y + norm(conv(x))
        return F.relu(y)  # type: ignore[arg-type]

    def of(self, weight: torch.Tensor, bias: torch.Tensor, norm: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        return weight * scale[:, None, None, None], (bias - norm.running_mean) * scale + norm.bias

    def parts(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        found = [self.of(self.convs[i].weight, self.convs[i].bias, self.norms[i]) for i in range(self.branches)]
        if self.skip is not None:
            inputs = self.inputs // self.groups
            itself = torch.zeros(self.inputs, inputs, 3, 3)
            for i in range(self.inputs):
                itself[i, i % inputs, 1, 1] = 1
            found.append(self.of(itself, torch.zeros(self.inputs), self.skip))
        return found

    @staticmethod
    def fuse_nothing() -> None:
        raise AssertionError("this folds no module")

    def fuse_with(self, other: Branches) -> None:
        raise AssertionError("nothing says with which")

    def reparameterize(self) -> None:
        weights, biases = zip(*self.parts(), strict=True)
        folded = nn.Conv2d(self.inputs, self.outputs, 3, 1, 1, groups=self.groups)
        with torch.no_grad():
            folded.weight.copy_(sum(weights))
            folded.bias.copy_(sum(biases))
        self.folded = folded


def network(*blocks: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, blocks[0].inputs, 3), *blocks, nn.Conv2d(blocks[-1].outputs, 5, 1))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


def folded(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, Branches):
            module.reparameterize()
    return model


X = torch.randn(2, 3, 9, 9)


@pytest.mark.parametrize("groups", [1, 4, 16])
def test_pruned_layers_can_be_folded(groups: int, tmp_path: Path) -> None:
    model = network(Branches(16, 16, groups), Branches(16, 32), Branches(32, 32, 32))
    small = amct.create_prune_retrain_model(model, X, CONFIG, tmp_path / "record.txt")
    assert small[2].outputs == small[3].inputs == small[3].groups == 16
    torch.testing.assert_close(folded(small)(X), small(X), rtol=1e-4, atol=1e-5)
    torch.save(small.state_dict(), tmp_path / "small.pth")
    again = amct.restore_prune_retrain_model(model, X, tmp_path / "record.txt", CONFIG, tmp_path / "small.pth")
    assert torch.equal(folded(again)(X), folded(small)(X))
    smaller = amct.create_prune_retrain_model(small, X, CONFIG, tmp_path / "record.txt")
    torch.testing.assert_close(folded(smaller)(X), smaller(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [None, 0.0, 1.0])
def test_other_numbers_of_that_value_stay(scale: float | None, tmp_path: Path) -> None:
    """Four branches of four channels, two of which go: half of the branches would compute something else, though they
    may begin as nothing."""
    model = network(Branches(4, 4, branches=4))
    for norm in model[1].norms if scale is not None else ():
        nn.init.constant_(norm.weight, scale)
    small = amct.create_prune_retrain_model(model, X, CONFIG, tmp_path / "record.txt")
    assert (small[1].branches, small[0].out_channels) == (4, 2)
    report = amct.plan(model, X, CONFIG).report()
    assert "1.branches = 4 (of reparameterize)" in report
    assert "(reparameterize: RuntimeError: The size of tensor" in report


def test_what_is_not_known_is_told() -> None:
    """The block's inputs and outputs, once as many, are no longer."""
    model = network(Branches(16, 16), Branches(16, 24))
    model[1].skip = None
    config = amct.SparsityConfig(CONFIG.sparsity, override_layers={"0": amct.ChannelSparsity(0.25, False)})
    report = amct.plan(model, X, config).report()
    assert "no forward pass reads 1.inputs = 16 (of reparameterize), 1.outputs = 16 (of reparameterize)" in report
    assert "2.inputs" not in report


class Around(nn.Module):
    """It folds what is inside with a scale of its own, and runs that by its forward alone."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.width = Branches(16, 16, groups=2, branches=8), 16
        self.scale: nn.Parameter | None = nn.Parameter(torch.rand(16, 1, 1) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.inside.forward(x)
        return y if self.scale is None else self.scale * y

    def forward_folded(self, x: torch.Tensor) -> torch.Tensor:
        return self.inside(x) * self.ones  # type: ignore[no-any-return]

    def fuse(self) -> None:
        self.inside.reparameterize()
        self.ones = torch.ones(self.width, 1, 1) * self.scale
        self.scale = None
        del self.inside.convs
        self.forward = self.forward_folded  # type: ignore[method-assign]


def test_modules_that_fold_others(tmp_path: Path) -> None:
    """The inner one has as many branches as each of its groups inputs: that this is no width is no fault of the outer
    one's."""
    outer = Around()
    model = network(Branches(8, 16), Branches(16, 16))
    model[2] = outer
    small = amct.create_prune_retrain_model(model.eval(), X, CONFIG, tmp_path / "record.txt")
    assert (small[2].width, small[2].inside.inputs, small[2].inside.branches) == (8, 8, 8)
    before = small(X)
    small[1].reparameterize()
    small[2].fuse()
    torch.testing.assert_close(small(X), before, rtol=1e-4, atol=1e-5)


def test_the_input_stays_as_it_is(tmp_path: Path) -> None:
    model = nn.Sequential(nn.ReLU(inplace=True), *network(Branches(16, 16))).eval()
    x = X.clone()
    small = amct.create_prune_retrain_model(model, x, CONFIG, tmp_path / "record.txt")
    assert small[2].inputs == 8
    assert torch.equal(x, X)


def test_models_without_weights_are_not_tried() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 16, 3), Branches(16, 16), nn.Conv2d(16, 5, 1))
    assert not amct.plan(model, X, CONFIG).scored
