"""Configuration objects follow the cut: the class, built again from the pruned model's configuration, takes its state
and computes the same. Where that cannot be, the report says which values differ, and the configuration stays."""

from __future__ import annotations

import copy
import random
import threading
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import amct_pytorch as amct
from amct_pytorch.apply.shrink import carried_plan
from amct_pytorch.config import ChannelSparsity
from amct_pytorch.record import Change, Setting

HALF = amct.SparsityConfig(ChannelSparsity(0.5, ascend_optimized=False))
X = torch.rand(3, 7, 6)


@dataclass
class Head:
    size: int = 24


@dataclass
class Options:
    width: int = 32
    hidden: list[int] = field(default_factory=lambda: [48, 64])
    heads: int = 4
    head: Head = field(default_factory=Head)
    dropout: float = 0.0
    steps: int = 2


class Mixer(nn.Module):
    """Attention whose head size is computed with a float, as is often done: an origin that is lost."""

    def __init__(self, options: Any) -> None:
        super().__init__()
        self.options = options
        self.inner = options.heads * int(options.width / options.heads)
        self.norm, self.qkv = nn.LayerNorm(options.width), nn.Linear(options.width, 3 * self.inner)
        self.out = nn.Linear(self.inner, options.width)
        self.scale = nn.Parameter(torch.empty(options.width))
        nn.init.uniform_(self.scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm(x)).view(*x.shape[:2], 3, self.options.heads, -1).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v, scale=0.4).transpose(1, 2).flatten(2)
        return x + self.scale * self.out(y)


class Mlp(nn.Module):
    def __init__(self, options: Any, layer: int) -> None:
        super().__init__()
        self.width, self.hidden = options.width, options.hidden[layer]  # nothing reads them
        self.up, self.down = nn.Linear(self.width, self.hidden), nn.Linear(self.hidden, self.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.up(x)))


class Net(nn.Module):
    def __init__(self, options: Any) -> None:
        super().__init__()
        self.options = options
        self.embed = nn.Linear(6, options.width)
        self.layers = nn.ModuleList(
            [m for i in range(options.steps) for m in (Mixer(options), Mlp(options, i))]  # the objects are shared
        )
        self.neck = nn.Linear(options.width, options.head.size)
        self.head = nn.Linear(options.head.size, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(torch.relu(self.neck(x)))


def create(model: nn.Module, folder: Path, config: Any = HALF, x: Any = X) -> nn.Module:
    return amct.create_prune_retrain_model(model.eval(), x, config, folder / "net.record")


def require_built_again(small: nn.Module, again: nn.Module, x: Any = X) -> None:
    again.load_state_dict(small.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(x), small(x))


def notes(small: nn.Module) -> str:
    plan = carried_plan(small)
    assert plan is not None
    return "\n".join(plan.summary.notes)


def test_a_dataclass_with_lists_and_nested_options(tmp_path: Path) -> None:
    options = Options()
    small = create(Net(options), tmp_path)
    # By hand: half of 32, of 48 and 64, of 4 heads, of 24.
    assert asdict(small.options) == asdict(Options(16, [24, 32], 2, Head(12)))
    assert options == Options()
    assert not notes(small)
    require_built_again(small, Net(small.options))
    assert [(m.width, m.hidden) for m in small.layers if isinstance(m, Mlp)] == [(16, 24), (16, 32)]


def test_one_object_is_shared_as_before(tmp_path: Path) -> None:
    model = Net(Options())
    small = create(model, tmp_path)
    assert small.layers[0].options is small.layers[2].options is small.options
    assert model.layers[0].options is model.layers[2].options is model.options


class Alone(SimpleNamespace):
    """Options of which copies are the same object."""

    def __deepcopy__(self, memo: object) -> Alone:
        return self


def test_an_object_that_copies_share_with_the_original(tmp_path: Path) -> None:
    options = Alone(**{**vars(Options()), "head": Alone(size=24)})
    model = Net(options)
    small = create(model, tmp_path)
    assert vars(options) == {**vars(Options()), "head": Alone(size=24)}
    assert type(options.width) is type(options.head.size) is type(options.hidden[0]) is int
    assert model.layers[0].options is model.options is options
    assert small.layers[0].options is small.layers[2].options is small.options
    assert (small.options.width, small.options.heads, small.options.head.size) == (16, 2, 12)
    require_built_again(small, Net(small.options))
    assert model(X).shape == (3, 7, 5)


class OfItems(nn.Module):
    def __init__(self, cfg: dict[str, Any], classes: int = 5, *, bias: bool = True) -> None:
        super().__init__()
        self.cfg, self.classes = cfg, classes
        self.bias = bias
        self.a, self.b = nn.Linear(6, cfg["a"], bias), nn.Linear(cfg["a"], cfg["deep"]["b"])
        self.c = nn.Linear(cfg["deep"]["b"], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


def test_a_dictionary_and_further_arguments(tmp_path: Path) -> None:
    small = create(OfItems({"a": 16, "deep": {"b": 20}, "name": "mine"}, 7, bias=False), tmp_path)
    assert small.cfg == {"a": 8, "deep": {"b": 10}, "name": "mine"}
    assert small.classes == 7
    require_built_again(small, OfItems(small.cfg, small.classes, bias=small.bias))


def test_a_module_inside_of_one_that_keeps_nothing(tmp_path: Path) -> None:
    class Around(nn.Module):
        def __init__(self, options: Options, classes: int) -> None:
            super().__init__()
            self.net, self.other = Net(options), OfItems({"a": 16, "deep": {"b": 20}})
            self.last = nn.Linear(10, classes)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(torch.cat([self.net(x), self.other(x)], -1))

    small = create(Around(Options(), 3), tmp_path)
    net = small.net
    # What a part returns is no output here: its last layer loses channels too, whose number is in no configuration.
    assert "net.options cannot describe the pruned model" in notes(small)
    assert "other.classes" not in notes(small)
    assert net.head.out_features == 3
    assert net.options.head.size == 24
    # By hand: 5 classes, 3 left.
    assert (small.other.cfg, small.other.classes) == ({"a": 8, "deep": {"b": 10}}, 3)
    require_built_again(small.other, OfItems(small.other.cfg, small.other.classes))


def per_layer(layer: str, ratio: float) -> amct.SparsityConfig:
    return amct.SparsityConfig(
        ChannelSparsity(0.5, ascend_optimized=False),
        override_layers={layer: ChannelSparsity(ratio, ascend_optimized=False)},
    )


class Twice(nn.Module):
    def __init__(self, options: Options) -> None:
        super().__init__()
        self.options = options
        self.first, self.second = (nn.Sequential(*self.part()) for _ in range(2))

    def part(self) -> list[nn.Module]:
        return [nn.Linear(6, self.options.width), nn.ReLU(), nn.Linear(self.options.width, 6)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


def test_layers_that_differ(tmp_path: Path) -> None:
    model = Twice(Options())
    small = create(model, tmp_path, per_layer("second.0", 0.25))
    assert (small.first[0].out_features, small.second[0].out_features) == (16, 24)
    assert small.options == Options()
    text = notes(small)
    assert "options cannot describe the pruned model" in text
    assert "options.width would have to be 16 (first.0.weight) and 24 (second.0.weight)" in text
    plan = carried_plan(small)
    assert plan is not None
    assert not plan.settings
    assert text in plan.report()


def test_parts_that_share_one_object_and_differ(tmp_path: Path) -> None:
    """The whole keeps nothing; each part can be built again, but not both from the same object."""

    class Pair(nn.Module):
        def __init__(self, options: Options) -> None:
            super().__init__()
            self.a, self.b = Twice(options), Twice(options)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x))

    override = {"b.first.0": HALF.sparsity, "b.second.0": HALF.sparsity}
    less = amct.SparsityConfig(ChannelSparsity(0.25, False), override_layers=override, skip_layers=("*.2",))
    small = create(Pair(Options()), tmp_path, less)
    assert (small.a.first[0].out_features, small.b.first[0].out_features) == (24, 16)
    assert small.a.options is small.b.options
    assert small.a.options.width == 32
    assert "a.options (and 1 more) cannot describe the pruned model" in notes(small)
    same = create(Pair(Options()), tmp_path, amct.SparsityConfig(HALF.sparsity, skip_layers=("*.2",)))
    assert same.a.options is same.b.options
    assert same.a.options.width == 16
    require_built_again(same.b, Twice(same.b.options))


def test_a_parameter_of_a_literal_length(tmp_path: Path) -> None:
    class Literal(nn.Module):
        def __init__(self, options: Options) -> None:
            super().__init__()
            self.options, self.scale = options, nn.Parameter(torch.rand(32))
            self.a, self.b = nn.Linear(6, options.width), nn.Linear(options.width, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x) * self.scale)

    small = create(Literal(Options()), tmp_path)
    assert small.scale.shape == (16,)
    assert small.options.width == 32
    assert "tensor scale would be (32,), not (16,)" in notes(small)


def test_what_the_forward_pass_reads_follows_all_the_same(tmp_path: Path) -> None:
    class Heads(Twice):
        def __init__(self, options: Options) -> None:
            super().__init__(options)
            self.mix, self.out = nn.Linear(6, 4 * options.heads), nn.Linear(4, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + self.out(self.mix(x).view(3, 7, self.options.heads, 4).sum(2))

    small = create(Heads(Options()), tmp_path, per_layer("second.0", 0.25))
    assert (small.options.width, small.options.heads) == (32, 2)
    assert "options.width would have to be" in notes(small)
    assert small(X).shape == (3, 7, 6)


class Shared(nn.Module):
    """Query heads that share key heads; how many share one is read with a mask alone."""

    def __init__(self, options: Any) -> None:
        super().__init__()
        self.options, self.heads, self.each = options, options.heads, options.heads // options.key_heads
        self.q = nn.Linear(options.width, 4 * options.heads)
        self.k = nn.Linear(options.width, 4 * (1 if options.one else options.heads))
        self.out = nn.Linear(4 * options.heads, options.width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        q, k = (t.view(*x.shape[:2], -1, 4).transpose(1, 2) for t in (self.q(x), self.k(x)))
        if mask is not None:
            k = k.repeat_interleave(self.each, 1)
        y = nn.functional.scaled_dot_product_attention(q, k, k, mask, scale=0.5, enable_gqa=mask is None)
        return x + self.out(y.transpose(1, 2).flatten(2))


class SharedTwice(nn.Module):
    def __init__(self, options: Any) -> None:
        super().__init__()
        self.options = options
        self.enter, self.a, self.b = nn.Linear(6, options.width), Shared(options), Shared(options)
        self.head = nn.Linear(options.width, 5)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return self.head(self.b(self.a(self.enter(x), mask), mask))


def test_what_constructors_compute_follows_where_the_configuration_cannot(tmp_path: Path) -> None:
    model = SharedTwice(SimpleNamespace(width=32, heads=8, key_heads=1, one=True)).eval()
    small = create(model, tmp_path, per_layer("b.q", 0.25))
    assert "options cannot describe the pruned model" in notes(small)
    assert vars(small.options) == vars(model.options)
    assert [(m.q.out_features, m.heads, m.each) for m in (small.a, small.b)] == [(16, 4, 4), (24, 6, 6)]
    mask = torch.ones(7, 7, dtype=torch.bool)
    with torch.no_grad():
        torch.testing.assert_close(small(X, mask), small(X))
    torch.save(small.state_dict(), tmp_path / "small.pth")
    again = amct.restore_prune_retrain_model(
        model, X, tmp_path / "net.record", per_layer("b.q", 0.25), tmp_path / "small.pth"
    )
    assert (again.b.heads, again.b.each) == (6, 6)


def test_what_constructors_compute_follows_again_where_a_model_is_pruned_again(tmp_path: Path) -> None:
    model = SharedTwice(SimpleNamespace(width=32, heads=16, key_heads=1, one=True)).eval()
    config = per_layer("b.q", 0.25)
    small = create(create(model, tmp_path, config), tmp_path, config)
    assert [(m.q.out_features, m.heads, m.each) for m in (small.a, small.b)] == [(16, 4, 4), (36, 9, 9)]
    mask = torch.ones(7, 7, dtype=torch.bool)
    with torch.no_grad():
        torch.testing.assert_close(small(X, mask), small(X))


def test_a_quotient_of_other_sizes_holds_the_configuration(tmp_path: Path) -> None:
    """How long a piece of sound is has nothing to do with the width, which happens to be a little more."""

    class Pieces(nn.Module):
        def __init__(self, options: Any) -> None:
            super().__init__()
            self.options, self.rows = options, options.width // options.piece
            self.a, self.b = nn.Linear(6, options.width), nn.Linear(options.width, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x).relu())

    small = create(Pieces(SimpleNamespace(width=32, piece=24)), tmp_path)
    assert (vars(small.options), small.rows) == ({"width": 32, "piece": 24}, 1)
    assert "rows would be 0, not 1" in notes(small)


def test_the_integers_of_numpy_follow_in_configurations(tmp_path: Path) -> None:
    class OfNumpy(nn.Module):
        def __init__(self, options: Any) -> None:
            super().__init__()
            self.options, self.half = options, options.widths[0] // 2
            self.a, self.b = nn.Linear(6, options.widths[0]), nn.Linear(options.widths[0], 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x).relu())

    small = create(OfNumpy(SimpleNamespace(widths=[np.int64(16)])), tmp_path)
    assert (small.options.widths, type(small.options.widths[0]), small.half) == ([8], np.int64, 4)


class OfItsClass:
    """A constant of a class whose objects cannot be changed."""

    hidden = 16

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a constant")


def test_constants_of_immutable_objects_follow(tmp_path: Path) -> None:
    class Constant(nn.Module):
        def __init__(self, options: Any) -> None:
            super().__init__()
            self.options = options
            self.a, self.b = nn.Linear(6, options.hidden), nn.Linear(options.hidden, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x).view(*x.shape[:2], self.options.hidden).relu())

    small = create(Constant(OfItsClass()), tmp_path)
    assert (small.options.hidden, small.a.out_features, OfItsClass.hidden) == (8, 8, 16)


def test_what_the_tensors_of_a_module_do_not_decide_stays(tmp_path: Path) -> None:
    """Heads of 4 or 8 heads of 2: no pass reads which, and nothing is guessed."""

    class Unclear(nn.Module):
        def __init__(self, options: Any) -> None:
            super().__init__()
            self.options, self.heads = options, options.heads
            inner = options.size * options.heads
            self.a, self.b, self.factor = nn.Linear(6, inner), nn.Linear(inner, 5), inner**0.5

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(torch.relu(self.a(x))) * self.factor

    small = create(Unclear(SimpleNamespace(heads=8, size=4)), tmp_path)
    assert (small.a.out_features, small.heads) == (16, 8)


def test_a_size_that_would_be_none(tmp_path: Path) -> None:
    """No tensor counts the key heads: half the heads shared by as many as before would be none."""
    small = create(Shared(SimpleNamespace(width=6, heads=8, key_heads=8, one=False)).eval(), tmp_path)
    assert vars(small.options) == {"width": 6, "heads": 4, "key_heads": 4, "one": False}
    assert (small.heads, small.each) == (4, 1)
    mask = torch.ones(7, 7, dtype=torch.bool)
    with torch.no_grad():
        torch.testing.assert_close(small(X, mask), small(X))


def test_a_head_size_that_would_change(tmp_path: Path) -> None:
    """The heads stay as they are, the width goes: the constructor would make smaller heads."""

    class Fixed(nn.Module):
        def __init__(self, options: Options) -> None:
            super().__init__()
            self.options, self.heads, self.size = options, options.heads, options.width // options.heads
            self.embed, self.qk = nn.Linear(6, options.width), nn.Linear(options.width, 2 * options.width)
            self.out = nn.Linear(options.width, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.embed(x))
            q, k = self.qk(x).view(3, 7, 2, self.heads, self.size).permute(2, 0, 3, 1, 4)
            return self.out(x), (q * torch.linspace(1, 2, 8) @ k.transpose(2, 3)).softmax(-1)

    small = create(Fixed(Options()), tmp_path)
    assert small.embed.out_features == 16
    assert (small.heads, small.qk.out_features) == (4, 64)
    assert small.options == Options()
    assert "options cannot describe the pruned model" in notes(small)


def test_numbers_that_a_constructor_computes(tmp_path: Path) -> None:
    """A factor computed from the width, in an attribute, in a buffer that is not saved, or in a plain tensor."""

    class Scaled(nn.Module):
        def __init__(self, options: Options, where: str) -> None:
            super().__init__()
            self.options, self.where = options, where
            self.a, self.b = nn.Linear(6, options.width), nn.Linear(options.width, 5)
            factor = options.width**0.5
            self.factor: Any = factor
            if where == "buffer":
                del self.factor
                self.register_buffer("factor", torch.tensor(factor), persistent=False)
            elif where == "tensor":
                self.factor = torch.full((), 2.0) * factor
            elif where == "steps":
                self.factor = torch.zeros(2, 5)
                self.factor[1, 1:] = torch.linspace(0, factor, 4)
                self.factor = self.factor[1]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(torch.relu(self.a(x))) * self.factor

    for where in ("attribute", "buffer", "tensor", "steps"):
        small = create(Scaled(Options(), where), tmp_path)
        assert small.a.out_features == 16
        assert small.options.width == 32, where
        assert "factor" in notes(small), where


def test_a_table_that_does_not_change(tmp_path: Path) -> None:
    class Table(nn.Module):
        def __init__(self, options: Options) -> None:
            super().__init__()
            self.options = options
            self.a, self.b = nn.Linear(6, options.width), nn.Linear(options.width, 5)
            self.register_buffer("steps", torch.arange(0, 10, 2) / 10, persistent=False)
            self.flags = torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(torch.relu(self.a(x))) * self.steps + self.flags

    small = create(Table(Options()), tmp_path)
    assert small.options.width == 16
    require_built_again(small, Table(small.options))


class Guarded(nn.Module):
    """Runs the pass differently where an attribute that its constructor computes is smaller."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.options, self.wide = options, options.width
        self.a, self.b = nn.Linear(6, options.width), nn.Linear(options.width, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.b(torch.relu(self.a(x)))
        return x.sigmoid() if len(range(self.wide)) > 20 else x


def test_the_trace_check_decides(tmp_path: Path) -> None:
    model = Guarded(Options())
    small = create(model, tmp_path)
    assert small.a.out_features == 16
    assert small.options.width == small.wide == 32
    text = notes(small)
    assert "options cannot describe the pruned model" in text
    assert "after the cut" in text
    kept = [int((model.a.weight == row).all(1).nonzero()) for row in small.a.weight]
    want = nn.functional.linear(torch.relu(model.a(X)[..., kept]), model.b.weight[:, kept], model.b.bias).sigmoid()
    torch.testing.assert_close(small(X), want)


LOG: list[str] = []


class Restless(Net):
    """A constructor with side effects: it warns, draws numbers, and counts how often it runs."""

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        warnings.warn("built", UserWarning, stacklevel=1)
        LOG.append("built")
        self.noise = torch.rand(()).item() if not self.embed.weight.is_meta else 0.5
        random.random()
        np.random.rand()


def states() -> list[Any]:
    return [torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()]


def test_side_effects(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="built"):
        model = Restless(Options())
    model.noise = 0.5
    LOG.clear()
    before, options = states(), copy.deepcopy(model.options)
    small = create(model, tmp_path)  # warnings are errors here
    assert states() == before
    assert model.options == options
    assert len(LOG) <= 3
    assert small.options.width == 16


class Refusing(Net):
    def __init__(self, options: Any) -> None:
        super().__init__(options)
        if self.embed.weight.is_meta:
            raise RuntimeError("no weights, no model\nfor good reasons")


class Changed(Net):
    """Something was put into the model after it was built."""

    def __init__(self, options: Any) -> None:
        super().__init__(options)


def test_constructors_that_fail(tmp_path: Path) -> None:
    small = create(Refusing(Options()), tmp_path)
    assert small.embed.out_features == 16
    assert small.options.width == 32
    assert small.options.heads == 2
    assert "options stays as it is: Refusing cannot be built again from it (RuntimeError: no weights, no model)" in (
        notes(small)
    )


def test_models_that_were_changed_after_they_were_built(tmp_path: Path) -> None:
    model = Net(Options())
    model.head = nn.Linear(24, 3)
    small = create(model, tmp_path)
    assert small.options.width == 32
    assert (
        "options stays as it is: Net cannot be built again from it (tensor head.weight would be (5, 24), not (3, 24)"
        in (notes(small))
    )


def test_values_that_the_configuration_refuses(tmp_path: Path) -> None:
    class Strict(Net):
        def __init__(self, options: Any) -> None:
            if options.width < 20:
                raise ValueError(f"too narrow: {options.width}")
            super().__init__(options)

    small = create(Strict(Options()), tmp_path)
    assert small.options.width == 32
    assert "Strict cannot be built with the new values (ValueError: too narrow: 16)" in notes(small)


def integers(model: nn.Module) -> dict[str, Any]:
    found = {f"{n}.{k}": v for n, m in model.named_modules() for k, v in vars(m).items() if isinstance(v, int)}
    return {**found, "options": asdict(model.options)}


def test_restore_sets_the_same_and_runs_no_constructor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Net(Options())
    small = create(model, tmp_path)
    torch.save(small.state_dict(), tmp_path / "net.pth")
    calls: list[int] = []
    initialize = Net.__init__
    monkeypatch.setattr(Net, "__init__", lambda self, options: (calls.append(1), initialize(self, options))[1])
    again = amct.restore_prune_retrain_model(model, X, tmp_path / "net.record", HALF, tmp_path / "net.pth")
    assert not calls
    assert integers(again) == integers(small)
    assert torch.equal(again(X), small(X))
    first = (tmp_path / "net.record").read_bytes()
    create(model, tmp_path)
    assert (tmp_path / "net.record").read_bytes() == first


def test_pruned_again(tmp_path: Path) -> None:
    model = Net(Options())
    small = create(create(model, tmp_path), tmp_path)
    # By hand: a quarter of 32, of 48 and 64, of 4 heads, of 24.
    assert asdict(small.options) == asdict(Options(8, [12, 16], 1, Head(6)))
    require_built_again(small, Net(small.options))
    plan = carried_plan(small)
    assert plan is not None
    assert plan.settings[Setting("", "options.width")] == Change(32, 8)
    assert plan.settings[Setting("", "options.hidden[1]")] == Change(64, 16)
    torch.save(small.state_dict(), tmp_path / "net.pth")
    again = amct.restore_prune_retrain_model(model, X, tmp_path / "net.record", HALF, tmp_path / "net.pth")
    assert integers(again) == integers(small)


def test_without_weights() -> None:
    with torch.device("meta"):
        model = Net(Options())
    plan = amct.plan(model, X, HALF)
    assert plan.settings[Setting("", "options.width")] == Change(32, 16)
    assert plan.settings[Setting("", "options.head.size")] == Change(24, 12)


def test_no_configuration_no_constructor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain(nn.Module):
        def __init__(self, width: int = 16) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, width), nn.Linear(width, 5)
            self.width = width

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(torch.relu(self.a(x)))

    model = Plain()
    built: list[Any] = []
    monkeypatch.setattr("amct_pytorch.configuration.build", built.append)
    small = create(model, tmp_path)
    assert small.a.out_features == 8
    assert not built
    assert not notes(small)


class Reluctant:
    """A configuration that some attributes cannot be read from, or set."""

    def __init__(self, unread: str = "", unset: str = "") -> None:
        vars(self).update(width=16, hidden=32, unread=unread, unset=unset)

    def __getattribute__(self, name: str) -> Any:
        if name == object.__getattribute__(self, "__dict__").get("unread"):
            raise RuntimeError(f"{name} differs from layer to layer")
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == vars(self)["unset"]:
            raise RuntimeError(f"{name} cannot be set")
        vars(self)[name] = value


class OfReluctant(nn.Module):
    def __init__(self, options: Any) -> None:
        super().__init__()
        self.options = options
        self.embed, self.up = nn.Linear(6, options.width), nn.Linear(options.width, vars(options)["hidden"])
        self.down = nn.Linear(vars(options)["hidden"], 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.relu(self.up(self.embed(x))))


def test_attributes_that_cannot_be_read_follow(tmp_path: Path) -> None:
    small = create(OfReluctant(Reluctant(unread="hidden")), tmp_path)
    assert {k: v for k, v in vars(small.options).items() if k in ("width", "hidden")} == {"width": 8, "hidden": 16}
    require_built_again(small, OfReluctant(small.options))


@pytest.mark.parametrize("read", [False, True])
def test_attributes_that_cannot_be_set_follow(tmp_path: Path, read: bool) -> None:
    """The copy's own: an object that is immutable stays as it is."""

    class Reading(OfReluctant):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = super().forward(x)
            return (
                y if not read else y + self.up(self.embed(x)).view(*x.shape[:2], self.options.hidden).sum(-1)[..., None]
            )

    options = Reluctant(unset="hidden")
    small = create(Reading(options), tmp_path)
    assert small.up.out_features == vars(small.options)["hidden"] == 16
    assert vars(options)["hidden"] == 32
    require_built_again(small, Reading(small.options))


class Checked(Head):
    """It says itself whether its values fit each other."""

    multiple = 4
    asked = 0

    def validate(self) -> None:
        type(self).asked += 1
        self.seen = True
        if self.size % self.multiple:
            raise ValueError(f"size {self.size} is no multiple of {self.multiple}\nof which there are many")


class OfChecked(nn.Module):
    def __init__(self, options: Any) -> None:
        super().__init__()
        self.options = options
        self.a, self.b = nn.Linear(6, options.size), nn.Linear(options.size, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.relu(self.a(x)))


@pytest.mark.parametrize(("before", "after", "follows"), [(24, 12, True), (20, 10, False), (22, 11, True)])
def test_what_a_configuration_says_of_its_values_counts(before: int, after: int, follows: bool, tmp_path: Path) -> None:
    """Where it had nothing against the old ones."""
    model = OfChecked(Checked(before))
    small = create(model, tmp_path)
    assert small.a.out_features == after
    assert small.options.size == (after if follows else before)
    refusal = "Checked refuses the new values: size 10 is no multiple of 4 of which there are many"
    assert (refusal in str(notes(small))) is not follows
    assert "seen" not in vars(model.options)  # the user's own is as it was


class Written:
    """It goes through a dictionary to a file; reading it, one value is made of another (`tied`)."""

    def __init__(self, width: int, tied: bool, other: int = 24) -> None:
        self.width, self.tied, self.text = width, tied, {"width": other}
        self.inner = Head(width if tied else other)

    def to_dict(self) -> dict[str, Any]:
        return vars(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Written:
        values.pop("inner")
        return cls(values["width"], values["tied"], values.pop("text")["width"])


class OfWritten(nn.Module):
    def __init__(self, options: Any) -> None:
        super().__init__()
        self.options = options
        self.a, self.b = nn.Linear(6, options.width), nn.Linear(options.width, 4)
        self.idle = nn.Linear(options.inner.size, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.relu(self.a(x)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("tied", [False, True])
def test_what_becomes_of_a_configuration_in_a_file_counts(tied: bool, tmp_path: Path) -> None:
    model = OfWritten(Written(24, tied))
    small = create(model, tmp_path)
    assert model.options.inner.size == model.options.text["width"] == 24  # the user's own is as it was
    assert small.a.out_features == 12
    assert small.options.width == (24 if tied else 12)
    assert small.options.inner.size == 24
    said = "Written that is written and read again has inner.size = 12, not 24"
    assert (said in str(notes(small))) is tied
    assert tied or OfWritten(Written.from_dict({**vars(small.options)})).load_state_dict(small.state_dict())


class Tokens(nn.Module):
    """A token at the head, and one that masked training alone puts in; `other`: a gain of the same length that goes
    with other channels."""

    def __init__(self, options: Options, other: bool = False) -> None:
        super().__init__()
        self.options, self.other = options, other
        self.head, self.masked = (
            nn.Parameter(torch.rand(1, 1, options.width)),
            nn.Parameter(torch.rand(1, options.width)),
        )
        self.gain = nn.Parameter(torch.rand(options.width)) if other else None
        self.a, self.b = nn.Linear(6, options.width), nn.Linear(options.width, options.width)
        self.c, self.bare = (
            nn.Linear(options.width, 4),
            nn.ParameterDict({"x": nn.Parameter(torch.rand(options.width))}),
        )

    def forward(self, x: torch.Tensor, where: Any = None) -> torch.Tensor:
        y = self.a(x)
        if where is not None:
            y = torch.where(where[..., None], self.masked, y)
        y = self.b(torch.cat([self.head.expand(len(x), -1, -1), y], 1).relu())
        return self.c(y if self.gain is None else y * self.gain)  # type: ignore[no-any-return]


def test_tokens_that_nothing_used_go_with_those_beside_them(tmp_path: Path) -> None:
    model = Tokens(Options())
    small = create(model, tmp_path)
    assert small.masked.shape == (1, 16)
    assert "nothing used masked: it goes with what its module has of that length" in notes(small)
    kept = (model.head[0, 0][:, None] == small.head[0, 0]).any(1)
    assert torch.equal(small.masked, model.masked[:, kept])
    assert small(X, torch.rand(3, 7) > 0.5).shape == (3, 8, 4)
    assert small.bare["x"].shape == (32,)  # nothing is beside it
    torch.save(small.state_dict(), tmp_path / "net.pth")
    again = amct.restore_prune_retrain_model(model, X, tmp_path / "net.record", HALF, tmp_path / "net.pth")
    assert torch.equal(again.get_parameter("masked"), small.masked)


class Masked(nn.Module):
    """A token that masked training alone puts in; layers of its module make what it takes the place of. `other`: one of
    them is as long along a dim that goes by itself."""

    def __init__(self, other: bool) -> None:
        super().__init__()
        self.token, self.proj, self.norm = nn.Parameter(torch.rand(1, 1, 32)), nn.Linear(6, 32), nn.LayerNorm(32)
        self.mix = nn.Linear(32, 32) if other else nn.Identity()

    def forward(self, x: torch.Tensor, where: torch.Tensor | None) -> torch.Tensor:
        x = self.mix(self.norm(self.proj(x)))
        return x if where is None else torch.where(where[..., None], self.token, x)


class OfMasked(nn.Module):
    def __init__(self, other: bool) -> None:
        super().__init__()
        self.embed, self.head = Masked(other), nn.Linear(32, 4)

    def forward(self, x: torch.Tensor, where: torch.Tensor | None = None) -> torch.Tensor:
        return self.head(self.embed(x, where))  # type: ignore[no-any-return]


def test_tokens_go_with_the_layers_of_their_module_where_nothing_is_beside_them(tmp_path: Path) -> None:
    small = create(OfMasked(other=False), tmp_path)
    assert small.embed.token.shape == (1, 1, 16)
    assert "nothing used embed.token: it goes with what its module has of that length" in notes(small)
    assert small(X, torch.rand(3, 7) > 0.5).shape == (3, 7, 4)
    small = create(OfMasked(other=True), tmp_path)
    assert (small.embed.token.shape, small.embed.mix.weight.shape) == ((1, 1, 32), (16, 16))
    assert "nothing used embed.token, as long as what shrinks in its module: it stays as it is" in notes(small)


class Kept(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config


class OfOtherNames(Kept):
    """Its constructor calls the configuration otherwise than its base does, which keeps it."""

    def __init__(self, args: Any, classes: int = 4) -> None:
        super().__init__(args)
        self.a, self.b = nn.Linear(6, args.width), nn.Linear(args.width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x).relu())  # type: ignore[no-any-return]


def test_a_configuration_that_is_kept_by_another_name(tmp_path: Path) -> None:
    model = OfOtherNames(Options())
    small = create(model, tmp_path)
    assert (small.config.width, model.config.width) == (16, 32)
    assert not notes(small)
    require_built_again(small, OfOtherNames(small.config))


def test_which_of_two_objects_the_constructor_takes_is_not_guessed(tmp_path: Path) -> None:
    model = OfOtherNames(Options())
    model.other = Head()
    small = create(model, tmp_path)
    assert (small.a.out_features, small.config.width) == (16, 32)


def test_another_object_is_no_configuration(tmp_path: Path) -> None:
    built = []

    class Logged(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            built.append(width)
            self.log, self.a, self.b = SimpleNamespace(level=20), nn.Linear(6, width), nn.Linear(width, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x).relu())

    small = create(Logged(32), tmp_path)
    assert (small.a.out_features, built, notes(small)) == (16, [32], "")


class WithLoss(nn.Module):
    """A parameter of its loss is as long as the one hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.weights = (
            nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 4)),
            nn.Parameter(torch.rand(32)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)  # type: ignore[no-any-return]


def test_what_the_whole_model_has_goes_with_no_layer_by_its_length(tmp_path: Path) -> None:
    small = create(WithLoss(), tmp_path)
    assert (small.weights.shape, small.body[0].out_features) == ((32,), 16)
    assert "nothing used weights, as long as what shrinks in its module: it stays as it is" in notes(small)


class Shift(nn.Linear):
    """Values that are set by an old constructor, which knows no device, and not trained."""

    def __init__(self) -> None:
        super().__init__(6, 6)
        self.weight.data = torch.eye(6) / torch.Tensor([0.5] * 6).view(6, 1)
        self.bias.data = -torch.Tensor([0.4] * 6)
        self.requires_grad_(False)


class Shifted(nn.Module):
    def __init__(self, options: Options) -> None:
        super().__init__()
        self.options, self.shift = options, Shift()
        self.up, self.down = nn.Linear(6, options.width), nn.Linear(options.width, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.up(self.shift(x)).relu())  # type: ignore[no-any-return]


def test_what_is_not_trained_is_told_of_and_can_be_left(tmp_path: Path) -> None:
    small = create(Shifted(Options()), tmp_path)
    assert small.shift.weight.shape == (3, 6)
    assert "requires_grad is False of shift: what is not trained cannot" in notes(small)
    assert "requires_grad" not in notes(create(Shifted(Options()).requires_grad_(False), tmp_path))
    up = nn.Sequential(nn.ConvTranspose2d(3, 8, 1), nn.ConvTranspose2d(8, 8, 1), nn.ConvTranspose2d(8, 4, 1))
    for part in (up[0], up[2]):  # the first loses channels of its own, the last what it takes
        part.requires_grad_(False)
    assert "requires_grad is False of 0: what" in notes(create(up, tmp_path, x=torch.rand(2, 3, 5, 5)))
    config = amct.SparsityConfig(ChannelSparsity(0.5, ascend_optimized=False), skip_layers=("shift",))
    left = amct.create_prune_retrain_model(Shifted(Options()).eval(), X, config, tmp_path / "net.record")
    assert left.options.width == 16
    assert notes(left) == ""


class TwoWays(nn.Module):
    """Two layers with biases of their own, of which one runs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (nn.Parameter(torch.rand(8, 6)) for _ in range(2))
        self.biases = nn.ParameterList(nn.Parameter(torch.rand(8)) for _ in range(2))
        self.register_buffer("idle", torch.rand(8))
        self.register_buffer("gain", torch.rand(8))
        self.c, self.d = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor, other: bool = False) -> torch.Tensor:
        if other:
            return self.d(nn.functional.linear(x, self.b, self.biases[1]))  # type: ignore[no-any-return]
        return self.c(nn.functional.linear(x, self.a, self.biases[0]) * self.gain)  # type: ignore[no-any-return]


def test_what_idle_layers_need_stays_with_them(tmp_path: Path) -> None:
    small = create(TwoWays(), tmp_path)
    assert [len(t) for t in (*small.biases, small.gain, small.idle)] == [4, 8, 4, 8]
    assert small(X, other=True).shape == (3, 7, 4)


def test_tokens_beside_which_several_widths_go_stay(tmp_path: Path) -> None:
    small = create(Tokens(Options(), other=True), tmp_path)
    assert (small.head.shape[2], small.gain.shape[0], small.masked.shape[1]) == (16, 16, 32)


class Coder:
    """What no copy can be made of, but by the module that has one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


class Coded(nn.Module):
    def __init__(self, options: Options, coder: Coder) -> None:
        super().__init__()
        self.options, self.coder = options, coder
        self.up, self.down = nn.Linear(6, options.width), nn.Linear(options.width, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.up(x).relu())

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "coder"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, coder=Coder())


def test_a_module_that_says_how_it_is_copied(tmp_path: Path) -> None:
    model = Coded(Options(), Coder()).eval()
    small = create(model, tmp_path)
    assert (small.up.out_features, small.options.width, model.options.width) == (16, 16, 32)
    require_built_again(small, Coded(small.options, Coder()))
