"""Caches that user code keeps outside of the model: after create, both models run and compute what they did."""

from __future__ import annotations

import functools
import gc
import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

import amct_pytorch as amct
from amct_pytorch.analyse import run
from amct_pytorch.analyse.sizes import Size

CONFIG = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))
X = torch.randn(2, 4)
TABLES: dict[Any, Any] = {}


@functools.lru_cache
def ramp(n: int) -> torch.Tensor:
    return torch.arange(n) / n


@functools.lru_cache
def waves(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(n).cos(), torch.arange(n).sin()


def from_a_table(n: int, device: torch.device) -> torch.Tensor:
    if (n, device) not in TABLES:
        TABLES[n, device] = torch.arange(n, device=device) + 1.0
    return TABLES[n, device]


VARIABLE: torch.Tensor | None = None


class Helper:
    """No module, and its table comes into being with its first use."""

    def __init__(self) -> None:
        self.ramp: torch.Tensor | None = None

    def __call__(self, n: int) -> torch.Tensor:
        if self.ramp is None:
            self.ramp = torch.arange(n) + 1.0
        return self.ramp


class Cached(nn.Module):
    kept: torch.Tensor | None = None

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(6, 2)
        self.kind = kind
        self.helper = Helper()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.b(self.a(x).relu())
        if self.kind == "lru":
            return self.c(y * ramp(6))
        if self.kind == "lru of tuples":
            return self.c(y * waves(6)[0] + waves(6)[1])
        if self.kind == "table":
            return self.c(y * from_a_table(6, x.device))
        if self.kind == "helper":
            return self.c(y * self.helper(6))
        if self.kind == "variable":
            global VARIABLE
            if VARIABLE is None:
                VARIABLE = torch.arange(6) / 2
            return self.c(y * VARIABLE)
        if Cached.kept is None:
            Cached.kept = torch.ones(6) * 2
        return self.c(y * Cached.kept)


@pytest.mark.parametrize("kind", ["lru", "lru of tuples", "table", "class attribute", "variable", "helper"])
@pytest.mark.parametrize("before", [False, True], ids=["new", "used"])
def test_models_run_after_create(kind: str, before: bool, tmp_path: Any) -> None:
    ramp.cache_clear()
    waves.cache_clear()
    TABLES.clear()
    Cached.kept = None
    globals()["VARIABLE"] = None
    torch.manual_seed(0)
    model = Cached(kind).eval()
    want = model(X) if before else None
    small = amct.create_prune_retrain_model(model, X, CONFIG, tmp_path / "net.record")
    held = [Cached.kept, VARIABLE, model.helper.ramp, *TABLES.values()]
    assert not any(t is not None and t.is_meta for t in held)
    assert small(X).shape == (2, 2)
    assert want is None or torch.equal(model(X), want)
    assert small.a.weight.shape[0] == 4  # the layer before is pruned all the same


class Looking(nn.Module):
    """Where it goes depends on values: a pass without data ends there, with its tensors in the frames of the error."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        return self.b(y if mask.all() else y * mask[:, None])


def test_a_pass_that_ends_early_is_no_cache() -> None:
    with warnings.catch_warnings(record=True) as said:  # as an error, it would only end a try that had failed
        warnings.simplefilter("always")
        plan = amct.plan(Looking(), (X, torch.ones(2) > 0), CONFIG)
    assert [g.after for g in plan.summary.groups] == [4]
    assert not [w.message for w in said if issubclass(w.category, amct.AmctWarning)]


class Keeping(nn.Module):
    """Keeps its last results, in train mode with all that they were computed from; one is a view of another tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)
        self.last = self.mean = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.last = self.a(x).relu()
        self.mean = self.last.detach().mean(0)[:, None]
        return self.b(self.last)


def test_what_the_copy_keeps_is_not_searched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "get_objects", lambda: pytest.fail("all objects are looked through"))
    monkeypatch.setattr(gc, "get_referrers", lambda *targets: pytest.fail("all objects are looked through"))
    model = Keeping()
    plan = amct.plan(model, X, CONFIG)
    assert [g.after for g in plan.summary.groups] == [4]
    assert model.last is model.mean is None


@functools.lru_cache
def heads_of(width: int, size: int) -> tuple[int, int]:
    return width // size, size


class Headed(nn.Module):
    """Attention whose heads a function tells, which remembers; `fails`: the forward ends with an error after it;
    `late`: it is asked in train mode alone."""

    def __init__(self, fails: bool = False, late: bool = False) -> None:
        super().__init__()
        self.size, self.fails, self.late = 4, fails, late
        self.q, self.k, self.v, self.o = (nn.Linear(16, 16) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [part(x) for part in (self.q, self.k, self.v)]
        told = heads_of if self.training or not self.late else divmod
        q, k, v = (t.unflatten(-1, (told(t.shape[-1], self.size)[0], self.size)).transpose(1, 2) for t in parts)
        if self.fails:
            raise ValueError("in the forward")
        out: torch.Tensor = self.o(((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).flatten(2))
        return out


@pytest.mark.parametrize(("fails", "late"), [(False, False), (True, False), (False, True)])
def test_functions_that_remember_are_what_they_were(fails: bool, late: bool) -> None:
    before, x = heads_of, torch.randn(2, 5, 16)
    before.cache_clear()
    if fails:
        with pytest.raises(amct.ModelError, match="in the forward"):
            amct.plan(Headed(fails), x, CONFIG)
    else:
        plan = amct.plan(Headed(late=late).eval(), x, CONFIG)
        assert any(axis.tensor == "q.weight" for axis in plan.removals)
    assert heads_of is before
    assert Size.__hash__ is int.__hash__
    assert [type(n) for n in heads_of(16, 4)] == [int, int]  # and no sizes of the analysis
    assert {type(n) for n in heads_of(8, 4)} == {int}


HEAD_SIZES: dict[int, int] = {}


def head_size(width: int) -> int:
    if width not in HEAD_SIZES:
        HEAD_SIZES[width] = width // 4
    return HEAD_SIZES[width]


class Remembering(nn.Module):
    """Heads whose size is worked out of a width once: by a table of its file, or by a function of its own."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.a, self.qkv, self.o = nn.Linear(4, 16), nn.Linear(16, 48), nn.Linear(16, 4)
        self.head_size = functools.lru_cache(None)(lambda width: width // 4) if own else head_size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)[:, None]
        q, k, v = self.qkv(y).view(*y.shape[:2], 3, 4, self.head_size(y.shape[-1])).permute(2, 0, 3, 1, 4)
        return self.o(nn.functional.scaled_dot_product_attention(q, k, v, scale=0.5).transpose(1, 2).flatten(1))


@pytest.mark.parametrize("own", [False, True], ids=["table", "own function"])
def test_sizes_do_not_stay_in_memories(own: bool) -> None:
    HEAD_SIZES.clear()
    model = Remembering(own).eval()
    larger = nn.Sequential(nn.Linear(4, 128), nn.ReLU(), nn.Linear(128, 4), model).eval()
    before = amct.plan(model, X, CONFIG).report()
    amct.plan(larger, X, CONFIG)
    assert not any(type(v) is Size for item in HEAD_SIZES.items() for v in item)
    assert amct.plan(model, X, CONFIG).report() == before
    assert "qkv" in before
    assert type(model.head_size(16)) is int


class Chosen(nn.Module):
    """Keeps the results of the layers whose numbers are in a set."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)])
        for i, layer in enumerate(self.layers):
            layer.number = i + 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = []
        for layer in self.layers:
            x = layer(x)
            if layer.number in frozenset((1, 2)) and layer.number not in {7: 0}:
                kept.append(x)
        return x + sum(kept).mean(-1, keepdim=True)  # type: ignore[attr-defined]


def test_in_is_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "memoized", lambda model: pytest.fail("what remembers is looked for"))
    plan = amct.plan(Chosen().eval(), X, CONFIG)
    assert [g.after for g in plan.summary.groups] == [4]


def remembering(function: Callable[..., Any]) -> Callable[..., Any]:
    """What calls a function that remembers, as decorators of methods do"""
    cached = functools.lru_cache(maxsize=1)(function)

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return cached(*args)

    return wrapper


def rows(shape: torch.Size) -> torch.Tensor:
    """The number of channels is among what is asked, and not used."""
    return torch.arange(shape[0])[:, None] * 1.0


class Positions(nn.Module):
    """A table that is remembered by the shape that it is for"""

    of_class = staticmethod(functools.lru_cache(maxsize=1)(rows))
    wrapped = staticmethod(remembering(rows))
    method = remembering(lambda self, shape: rows(shape))

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.a, self.b = way, nn.Linear(4, 16), nn.Linear(16, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        out: torch.Tensor = self.b(y + getattr(self, self.way)(y.shape))
        return out


@pytest.mark.parametrize("way", ["of_class", "wrapped", "method"])
def test_functions_that_remember_are_found_where_they_are_held(way: str) -> None:
    model, before = Positions(way).eval(), vars(Positions)[way]
    model(X)
    plan = amct.plan(model, X, CONFIG)
    assert {axis.tensor for axis in plan.removals} == {"a.weight", "a.bias", "b.weight"}
    assert vars(Positions)[way] is before
    assert torch.equal(model(X), Positions.forward(model, X))


ACTIVATIONS: dict[str, torch.Tensor] = {}


def test_what_hooks_have_kept_is_as_before() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    near: dict[str, torch.Tensor] = {}

    def keep(module: nn.Module, args: Any, out: torch.Tensor) -> None:
        ACTIVATIONS["a"] = near["a"] = out.detach()
        near["only in a pass"] = out

    ACTIVATIONS.clear()
    model[0].register_forward_hook(keep)
    model(X)
    del near["only in a pass"]
    kept = ACTIVATIONS["a"], near["a"]
    plan = amct.plan(model, X, CONFIG)
    assert [g.after for g in plan.summary.groups] == [4]
    assert ACTIVATIONS["a"] is kept[0]
    assert near == {"a": kept[1]}


class Guarded(dict[Any, Any]):
    """A table that refuses to be looked through."""

    asked = 0

    def items(self) -> Any:
        self.asked += 1
        raise RuntimeError("only by name")


GUARDED = Guarded()


def test_tables_of_other_kinds_are_left_alone() -> None:
    HEAD_SIZES.clear()
    plan = amct.plan(Remembering(own=False).eval(), X, CONFIG)
    assert "qkv" in plan.report()
    assert GUARDED.asked == 0


class Mean(nn.Module):
    """It assigns its buffer, as running means do that are no norm's."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean()
        return x


class Stats:
    def __init__(self) -> None:
        self.table = {"mean": torch.zeros(())}


OF_THE_FILE, IN_AN_OBJECT, IN_A_TABLE = Mean(), Stats(), {"eval": {"mean": torch.zeros(())}}


class Outside(nn.Module):
    """What is assigned lies outside of the model, and was there before."""

    of_the_class: ClassVar[list[Mean]] = [Mean()]

    def __init__(self, where: str) -> None:
        super().__init__()
        self.a, self.b, self.where = nn.Linear(4, 16), nn.Linear(16, 3), where

    def held(self) -> dict[str, Any]:
        modules = {"file": OF_THE_FILE, "class": self.of_the_class[0]}
        if self.where in modules:
            return modules[self.where]._buffers
        return IN_AN_OBJECT.table if self.where == "object" else IN_A_TABLE["eval"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        if self.where == "file":
            x = OF_THE_FILE(x)
        elif self.where == "class":
            x = self.of_the_class[0](x)
        else:
            self.held()["mean"] = 0.9 * self.held()["mean"] + 0.1 * x.detach().mean()
        return self.b(x.relu())


@pytest.mark.parametrize("where", ["file", "class", "object", "table"])
def test_what_was_there_before_outside_of_the_model_is_put_back(where: str) -> None:
    net, x = Outside(where).eval(), torch.rand(2, 4)
    net(x)
    before = net.held()["mean"]
    plan = amct.plan(net, x, CONFIG)
    assert net.held()["mean"] is before
    assert ("a.weight", 8) in {(a.tensor, len(r.removed)) for a, r in plan.removals.items()}
    net(x)
