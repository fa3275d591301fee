"""Features that hooks keep somewhere: the pruned model reads its own, wherever that is."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from judge import conv
from torch import nn

import amct_pytorch as amct

CONFIG = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))
KEPT: dict[str, torch.Tensor] = {}
Hook = Callable[[nn.Module, Any, torch.Tensor], None]


def to_global(name: str) -> Hook:
    def hook(module: nn.Module, inputs: Any, out: torch.Tensor) -> None:
        KEPT[name] = out

    return hook


def keep(name: str, module: nn.Module, inputs: Any, out: torch.Tensor) -> None:
    KEPT[name] = out


def to_global_later(name: str) -> Hook:
    return lambda module, inputs, out: keep(name, module, inputs, out)


class Keeper:
    """A hook that is an object, and one that is its method"""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, module: nn.Module, inputs: Any, out: torch.Tensor) -> None:
        KEPT[self.name] = out

    def method(self, module: nn.Module, inputs: Any, out: torch.Tensor) -> None:
        KEPT[self.name] = out


GLOBAL: dict[str, Callable[[str], Any]] = {
    "global": to_global,
    "global, later": to_global_later,
    "global, partial": lambda name: functools.partial(keep, name),
    "global, object": Keeper,
    "global, method": lambda name: Keeper(name).method,
}


def to_table(name: str, table: dict[str, torch.Tensor]) -> Hook:
    def hook(module: nn.Module, inputs: Any, out: torch.Tensor) -> None:
        table[name] = out

    return hook


def to_list(kept: list[torch.Tensor]) -> Hook:
    return lambda module, inputs, out: kept.append(out)


def to_object(name: str, kept: object) -> Hook:
    return lambda module, inputs, out: setattr(kept, name, out)


class Features(nn.Module):
    """Both layers' results, by hooks that hold what the model does, too."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.a, self.b, self.out = way, conv(3, 32), conv(32, 32), conv(64, 4)
        self.kept: Any = KEPT if way in GLOBAL else {"table": {}, "list": [], "object": SimpleNamespace()}[way]
        self.handles = []
        for name in ("a", "b"):
            if way in GLOBAL:
                hook = GLOBAL[way](name)
            elif way == "list":
                hook = to_list(self.kept)
            else:
                hook = (to_table if way == "table" else to_object)(name, self.kept)
            self.handles.append(self.get_submodule(name).register_forward_hook(hook))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.way == "list":
            self.kept.clear()
        self.b(self.a(x))
        held = self.kept if self.way != "object" else vars(self.kept)
        out: torch.Tensor = self.out(torch.cat(list(held) if self.way == "list" else [held["a"], held["b"]], 1))
        return out


@pytest.mark.parametrize("ran", [False, True])
@pytest.mark.parametrize("way", [*GLOBAL, "table", "list", "object"])
def test_a_pruned_model_reads_its_own_features(way: str, ran: bool) -> None:
    KEPT.clear()
    model, x, y = Features(way).eval(), torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    if ran:
        with torch.no_grad():
            model(x)
    small = amct.apply(model, amct.plan(model, x, CONFIG))
    assert small.get_parameter("a.weight").shape == (16, 3, 3, 3)
    assert small.get_parameter("b.weight").shape == (16, 16, 3, 3)
    want = [small.out(torch.cat([a := small.a(v), small.b(a)], 1)) for v in (x, y)]
    model(y)
    assert torch.equal(small(x), want[0])
    assert torch.equal(small(y), want[1])
    assert model(x).shape == want[0].shape


class Collecting:
    """Keeps what modules gave, and the handles of the hooks by which it knows."""

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        self.out: dict[str, torch.Tensor] = {}
        self.handles = [m.register_forward_hook(to_table(name, self.out)) for name, m in modules.items()]
        self.handles += [m.register_forward_pre_hook(self.heard) for m in modules.values()]

    def heard(self, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.out[""] = inputs[0]


class CollectingByItself(Collecting):
    """Its hooks know it, and not what it keeps the results in."""

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        self.out = {}
        self.handles = [m.register_forward_hook(self.hook(name)) for name, m in modules.items()]
        self.handles += [m.register_forward_pre_hook(self.heard) for m in modules.values()]

    def hook(self, name: str) -> Hook:
        return lambda module, inputs, out: self.out.update({name: out})


class Collected(nn.Module):
    def __init__(self, kind: type[Collecting]) -> None:
        super().__init__()
        self.a, self.b = conv(3, 32), conv(32, 4)
        self.kept = kind({"a": self.a, "b": self.b})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.kept.out.clear()
        self.b(self.a(x))
        return self.kept.out["b"]


@pytest.mark.parametrize("kind", [Collecting, CollectingByItself])
def test_handles_that_an_object_keeps_come_along(kind: type[Collecting]) -> None:
    model, x = Collected(kind).eval(), torch.randn(2, 3, 8, 8)
    small = amct.apply(model, amct.plan(model, x, CONFIG))
    with torch.no_grad():
        assert torch.equal(small(x), small.b(small.a(x)))
    copy.deepcopy(small)
    for handle in small.kept.handles:
        tables = [handle.hooks_dict_ref(), *(ref() for ref in handle.extra_dict_ref)]
        assert {id(t) for t in tables} <= {id(v) for m in (small.a, small.b) for v in vars(m).values()}
        handle.remove()
    hooks = [len(m.a._forward_hooks) + len(m.a._forward_pre_hooks) for m in (model, small)]
    assert hooks == [2, 0]


def test_parts_that_are_copied_another_way_keep_what_they_hold() -> None:
    """A hook that holds something of the model, met before a part that copy.deepcopy copies."""
    kept: dict[str, torch.Tensor] = {}
    model = nn.Sequential(nn.Linear(3, 8), nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)), nn.Linear(8, 2))
    model.kept = kept
    model[0].register_forward_hook(to_table("first", kept))
    model[1].parametrizations.weight.register_forward_hook(to_table("second", kept))
    small = amct.apply(model.eval(), amct.plan(model, torch.randn(2, 3), CONFIG))
    assert [len(m._forward_hooks) for m in (small[0], small[1].parametrizations.weight)] == [1, 1]
    assert small[1].weight.shape == (4, 4)
    assert small.state_dict().keys() == model.state_dict().keys()


def test_handles_of_hooks_come_along() -> None:
    model, x = Features("table").eval(), torch.randn(2, 3, 8, 8)
    small = amct.apply(model, amct.plan(model, x, CONFIG))
    copy.deepcopy(small)
    smaller = amct.apply(small, amct.plan(small, x, CONFIG))
    assert smaller.get_parameter("a.weight").shape == (8, 3, 3, 3)
    for handle in small.handles:
        handle.remove()
    assert [len(m.a._forward_hooks) for m in (model, small, smaller)] == [1, 0, 1]
