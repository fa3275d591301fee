"""What a constructor makes of sizes, against what it computes: lengths by hand, values by running it for real."""

from __future__ import annotations

import contextlib
import functools
import random
import socket
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from amct_pytorch.analyse.construct import Built, NotBuilt, build, scalars
from amct_pytorch.analyse.equations import evaluate
from amct_pytorch.analyse.sizes import Attribute, Expression, Size
from amct_pytorch.record import Setting


def size(name: str, value: int) -> Size:
    return Size(value, Attribute(Setting("", name), value), lambda left, right, text="": None)


def of(expressions: tuple[Expression, ...], **values: int) -> list[int | None]:
    known = {Setting("", name): value for name, value in values.items()}
    return [evaluate(e, known, np.zeros(0, np.bool_)) for e in expressions]


class Many(nn.Module):
    def __init__(self, n: int, m: int) -> None:
        super().__init__()
        self.linear, self.conv = nn.Linear(n, 2 * m), nn.Conv2d(n, m + 1, 3)
        self.norm, self.embedding = nn.LayerNorm(n * m), nn.Embedding(10, m)
        self.bare = nn.Parameter(torch.zeros(1, n, m // 2))
        self.named = nn.Parameter(torch.randn(size=(m, 3)))
        self.drawn = nn.Parameter(nn.init.normal_(torch.empty((n, m))))
        self.register_buffer("table", torch.arange(n))
        self.register_buffer("like", torch.zeros(3).new_ones(n, 2))
        self.computed = nn.Parameter(torch.ones(n) * 0.1)


def test_lengths_are_expressions() -> None:
    built = build(Many(4, 6), {"n": size("n", 4), "m": size("m", 6)})
    real = Many(7, 10)
    shapes = {**dict(real.named_parameters()), **dict(real.named_buffers())}
    assert set(shapes) - set(built.sizes) == {"computed", "norm.weight", "norm.bias"} - set(built.sizes)
    for name, expressions in built.sizes.items():
        assert of(expressions, n=7, m=10) == list(shapes[name].shape), name
    assert {"linear.weight", "conv.bias", "embedding.weight", "bare", "named", "drawn", "table", "like"} <= set(
        built.sizes
    )
    assert all(p.is_meta for p in built.module.parameters())
    found = {s: of((v.origin,), n=7, m=10)[0] for s, v in scalars(built.module).items() if isinstance(v, Size)}
    assert found[Setting("linear", "out_features")] == 20
    assert found[Setting("conv", "out_channels")] == 11
    assert found[Setting("norm", "normalized_shape[0]")] == 70


class Computes(nn.Module):
    def __init__(self, how: str, n: int) -> None:
        super().__init__()
        makes: dict[str, Any] = {
            "literal": lambda: torch.tensor([1.0, n**0.5]),
            "product": lambda: torch.ones(3) * n,
            "in place": lambda: torch.ones(3).mul_(n),
            "in part": lambda: self.filled(torch.zeros(4), n),
            "by a view": lambda: self.viewed(torch.zeros(4), n),
            "into": lambda: torch.mul(torch.ones(2), n, out=torch.zeros(2)),
            "array": lambda: torch.from_numpy(np.arange(3.0) * n),
            "list": lambda: [torch.zeros(2), torch.full((2,), float(n))],
            "steps": lambda: torch.arange(0, 1, 1 / n)[:3],
            "by an old constructor": lambda: torch.ones(2) / torch.Tensor([3.0, n]),
            "into an old one": lambda: torch.mul(torch.ones(2), torch.full((2,), n), out=torch.Tensor([0.0, 0.0])),
            "a copy into an old one": lambda: torch.Tensor([0.0, 0.0]).copy_(torch.full((2,), n)),
            "an old one in place": lambda: torch.Tensor([0.0, 0.0]).lerp_(torch.full((2,), 1.0 * n), 0.5),
        }
        self.made = makes[how]()

    @staticmethod
    def filled(t: torch.Tensor, n: int) -> torch.Tensor:
        t[1:3] = n
        return t

    @staticmethod
    def viewed(t: torch.Tensor, n: int) -> torch.Tensor:
        t[1:3].copy_(torch.tensor([0.0, float(n)]))
        return t


HOW = [
    "literal",
    "product",
    "in place",
    "in part",
    "by a view",
    "into",
    "array",
    "list",
    "steps",
    "by an old constructor",
]


@pytest.mark.parametrize("how", HOW)
def test_values_that_depend_on_sizes_are_told_apart(how: str) -> None:
    def made(n: int) -> Built:
        return build(Computes(how, 4), {"how": how, "n": n})

    assert made(4).computed == made(4).computed
    real = [
        torch.cat([t.flatten() for t in (m if isinstance(m, list) else [m])])
        for m in (Computes(how, n).made for n in (4, 5))
    ]
    assert not torch.equal(*real)
    assert made(4).computed != made(5).computed
    assert list(made(4).computed) == (["made[0]", "made[1]"] if how == "list" else ["made"])


@pytest.mark.parametrize("how", ["into an old one", "an old one in place", "a copy into an old one"])
def test_old_tensors_are_not_written_into(how: str) -> None:
    """They would keep the values that they had, whatever is written."""
    with pytest.raises(NotBuilt):
        build(Computes(how, 4), {"how": how, "n": 4})


@functools.lru_cache(None)
def cached(n: int, factor: int) -> torch.Tensor:
    return torch.arange(int(n)) * factor


class Leaves(nn.Module):
    shared: Any = None

    def __init__(self, n: int) -> None:
        super().__init__()
        self.fc = nn.Linear(n, n)
        self.register_buffer("table", cached(n, 2), persistent=False)
        Leaves.shared = self.fc.bias
        warnings.warn("look", UserWarning, stacklevel=1)
        torch.manual_seed(3)
        np.random.seed(3)
        random.seed(3)


def test_nothing_is_left_behind() -> None:
    cached.cache_clear()
    Leaves.shared = None
    like = nn.Module.__new__(Leaves)
    nn.Module.__init__(like)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    built = build(like, {"n": size("n", 6)})
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]
    assert built.module.table.is_meta
    assert not cached(6, 2).is_meta
    assert Leaves.shared is None


SHARED = nn.PReLU(4)  # all models of the class use this one


class Shares(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.linear, self.act = nn.Linear(n, 4), SHARED


def test_a_module_that_instances_share_keeps_its_parameters() -> None:
    weight = SHARED.weight
    build(Shares(3), {"n": size("n", 3)})
    assert SHARED.weight is weight


KEPT: dict[str, torch.Tensor] = {}


class Parametrized(nn.Module):
    """The class of such a layer is made for it, holds it, and lives as long as a copy."""

    def __init__(self, n: int, keeps: bool = False) -> None:
        super().__init__()
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv1d(n, 4, 3))
        if keeps:
            KEPT["direction"] = self.conv.parametrizations.weight.original1


def test_what_a_parametrized_layer_holds_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def search(*objects: Any) -> list[Any]:
        raise AssertionError("all objects are searched")

    like = Parametrized(3)
    monkeypatch.setattr("gc.get_referrers", search)
    built = build(like, {"n": size("n", 3)})
    assert built.module.conv.parametrizations.weight.original1.shape == (4, 3, 3)


def test_what_a_cache_holds_of_a_parametrized_layer_is_taken_out() -> None:
    KEPT.clear()
    build(Parametrized(3), {"n": size("n", 3), "keeps": True})
    assert not KEPT


def test_errors_say_what_was_wrong() -> None:
    class Fails(nn.Module):
        def __init__(self, n: int) -> None:
            super().__init__()
            self.fc = nn.Linear(n, n)
            raise KeyError(f"no {n}\nno more")

    like = nn.Module.__new__(Fails)
    nn.Module.__init__(like)
    with pytest.raises(NotBuilt, match="KeyError: 'no 6"):
        build(like, {"n": 6})


def test_nothing_is_downloaded() -> None:
    with socket.create_server(("localhost", 0)) as server:

        class Downloads(nn.Module):
            def __init__(self, n: int) -> None:
                super().__init__()
                with contextlib.suppress(OSError):  # a bad connection: it would try another way
                    socket.create_connection(server.getsockname()).close()

        like = nn.Module.__new__(Downloads)
        nn.Module.__init__(like)
        with pytest.raises(NotBuilt, match="network connection"):
            build(like, {"n": 6})
        Downloads(6)
        with socket.create_connection(server.getsockname(), timeout=1):
            pass


def test_scalars_of_objects_that_hold_themselves() -> None:
    model = nn.Linear(2, 3)
    model.options = SimpleNamespace(width=4, inner=SimpleNamespace(name="x"))
    model.options.inner.outer = model.options
    model.items = [1, 2.5, [3]]
    model.items.append(model.items)
    found = {setting.path: value for setting, value in scalars(model).items()}
    assert (found["options.width"], found["options.inner.name"]) == (4, "x")
    assert (found["items[0]"], found["items[1]"], found["items[2][0]"]) == (1, 2.5, 3)
