"""What a copy shares with the original, or lacks, and is told of: parts that functions know by a global name, hooks on
parameters."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import amct_pytorch as amct
from amct_pytorch.errors import AmctWarning

X = torch.rand(3, 4)
KINDS = {
    "channels": amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False)),
    "2:4": amct.SparsityConfig(amct.NmSparsity()),
}
model: nn.Module
old_forward: Callable[[torch.Tensor], torch.Tensor]
weight: torch.Tensor


def add(module: nn.Module, args: tuple[torch.Tensor], out: torch.Tensor) -> torch.Tensor:
    return out + model.get_submodule("2")(out)


def inner(x: torch.Tensor) -> torch.Tensor:
    return old_forward(x).tanh()


def scaled(x: torch.Tensor, by: float) -> torch.Tensor:
    return x @ weight.T * by


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))


def hooked(net: nn.Module) -> str:
    net[0].register_forward_hook(add)
    return "'model'"


def replaced(net: nn.Module) -> str:
    global old_forward
    old_forward = net[2].forward
    net[2].forward = lambda x: inner(x)  # which another function does
    return "'old_forward'"


def of_a_parameter(net: nn.Module) -> str:
    global weight
    weight = net[2].weight
    net[2].forward = functools.partial(scaled, by=2.0)
    return "'weight'"


def in_a_closure(net: nn.Module) -> str:
    old = net[2].forward
    net[2].forward = lambda x: old(x).tanh()
    return ""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("know", [hooked, replaced, of_a_parameter, in_a_closure])
def test_parts_that_functions_know_by_a_global_name(
    tmp_path: Path, kind: str, know: Callable[[nn.Module], str]
) -> None:
    global model
    model = network()
    name = know(model)
    record, checkpoint = tmp_path / "net.record", tmp_path / "net.pth"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        small = amct.create_prune_retrain_model(model, X, KINDS[kind], record)
        torch.save(small.state_dict(), checkpoint)
        amct.restore_prune_retrain_model(model, X, record, KINDS[kind], checkpoint)
    told = [w for w in caught if "by the global name" in str(w.message)]
    assert len(told) == (2 if name else 0)  # by create, and by restore
    assert all(f"by the global name {name}." in str(w.message) for w in told)
    assert all(w.category is AmctWarning and w.filename == __file__ for w in told)
    small(X).sum().backward()
    assert any(p.grad is not None for p in model.parameters()) == bool(name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["register_hook", "register_post_accumulate_grad_hook"])
def test_hooks_on_parameters_are_told_of(tmp_path: Path, kind: str, how: str) -> None:
    net = network()
    getattr(net[2].weight, how)(lambda gradient: None)
    with pytest.warns(AmctWarning, match="hooks on parameters do not come along .* those of 2.weight on its"):
        amct.create_prune_retrain_model(net, X, KINDS[kind], tmp_path / "net.record")


head: nn.Module
table: dict[str, int] = {}


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head, self.body, self.table = nn.Linear(16, 2), nn.Linear(4, 16, bias=False), table
        self.register_forward_hook(count)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def count(module: Counting, args: tuple[torch.Tensor], out: torch.Tensor) -> torch.Tensor:
    module.table["calls"] = module.table.get("calls", 0) + 1
    return out + 0 * module.head.weight.sum()


def test_attributes_that_are_called_as_global_names_are_none(tmp_path: Path) -> None:
    global head
    net = Counting()
    head = net.head
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small = amct.create_prune_retrain_model(net, X, KINDS["channels"], tmp_path / "net.record")
    before = dict(net.table)
    small(X)
    assert net.table == before
    assert small.table is not net.table


def part_of(width: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: x[:, : width // 2]


def halves() -> nn.Module:
    model = nn.Module()
    model.a, model.b = nn.Conv2d(3, 16, 3), nn.Conv2d(8, 4, 3)
    return model


def test_sizes_that_code_which_runs_holds_too(tmp_path: Path) -> None:
    """The width is a variable of this test, which its function shares: where create sees it alone, in the copy of a
    function that holds the model, it is set anew in that copy; restore sets it wherever it is."""
    x, width = torch.randn(1, 3, 9, 9), 16
    config = KINDS["channels"]
    model = halves()
    model.forward = lambda x: model.b(model.a(x)[:, : width // 2])
    small = amct.create_prune_retrain_model(model, x, config, tmp_path / "r.txt")
    assert small(x).shape == model(x).shape
    assert small.b.in_channels < 8
    assert width == 16

    made, given = halves(), halves()
    for one, function in ((made, part_of(16)), (given, lambda x: x[:, : width // 2])):
        one.part = function
        one.__class__ = Halved
    small = amct.create_prune_retrain_model(made, x, config, tmp_path / "r.txt")
    assert "closure" in (tmp_path / "r.txt").read_text()
    torch.save(small.state_dict(), tmp_path / "s.pth")
    restored = amct.restore_prune_retrain_model(given, x, tmp_path / "r.txt", config, tmp_path / "s.pth")
    assert torch.equal(restored(x), small(x))
    assert given(x).shape == small(x).shape


class Halved(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.part(self.a(x)))  # type: ignore[no-any-return]


class Shares(nn.Module):
    """One function writes what the other reads; each may hold the model."""

    def __init__(self, writer_holds: bool, reader_holds: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)
        scale = 2

        def write(n: int) -> None:
            nonlocal scale
            scale = n

        def write_too(n: int) -> None:
            nonlocal scale
            scale = n if self.a is not None else 0

        self.write = write_too if writer_holds else write
        self.scaled = (lambda x: self.a(x) * scale) if reader_holds else (lambda x: x * scale)
        self.is_inside = reader_holds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.write(3)
        y = self.scaled(x if self.is_inside else self.a(x))
        self.write(2)
        return self.b(y)  # type: ignore[no-any-return]


@pytest.mark.parametrize("writer_holds", [False, True])
@pytest.mark.parametrize("reader_holds", [False, True])
def test_functions_go_on_sharing_what_they_hold(writer_holds: bool, reader_holds: bool, tmp_path: Path) -> None:
    """In a copy, too, which copies those that hold the model."""
    model, x = Shares(writer_holds, reader_holds).eval(), torch.randn(2, 8)
    kept = amct.SparsityConfig(amct.ChannelSparsity(0.5, False))
    small = amct.create_prune_retrain_model(model, x, kept, tmp_path / "r.txt")
    with torch.no_grad():
        torch.testing.assert_close(small(x), small.b(small.a(x) * 3))
