"""What create leaves alone, and what comes back: the caller's model, the random state; a model like any other."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle import run
from torch import nn

import amct_pytorch as amct
from amct_pytorch.config import ChannelSparsity

CONFIG = amct.SparsityConfig(ChannelSparsity(0.5, False))


class Model(nn.Module):
    """Batch norm, dropout, a size in an attribute, a cache that a forward pass leaves behind, buffers of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 16
        self.sizes = {"width": 16, "list": [16, 8]}
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.body, self.drop, self.head = nn.Conv2d(16, 16, 3, padding=1), nn.Dropout(0.5), nn.Linear(16, 4)
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.register_buffer("table", torch.arange(8), persistent=False)
        self.register_buffer("scale", torch.rand(16))
        self.cache: dict[Any, torch.Tensor] = {}
        self.last: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        x = torch.relu(self.norm(self.stem(x)))
        key = x.shape[-2:]
        if key not in self.cache:
            self.cache[key] = torch.ones(key, dtype=x.dtype)
        x = x.view(x.shape[0], self.width, *x.shape[2:]) * self.cache[key] * self.scale[:, None, None]
        x = x + self.body(x)
        self.last = x
        return self.head(self.drop(x.mean((2, 3))))


def made(model: nn.Module, inputs: Any, path: Path) -> nn.Module:
    return amct.create_prune_retrain_model(model, inputs, CONFIG, path / "record.txt")


def fingerprint(model: nn.Module) -> dict[str, Any]:
    """All that a caller can see of a model."""
    found: dict[str, Any] = {}
    for kind in ("named_parameters", "named_buffers"):
        for name, t in getattr(model, kind)():
            found[f"{kind} {name}"] = (id(t), t._version, t.requires_grad, t.grad, t.detach().clone())
    for name, m in model.named_modules():
        found[f"module {name}"] = (id(m), m.training)
        for key, value in vars(m).items():
            if isinstance(value, (int, float, str, bool, tuple, list)) or type(value) is dict:
                if not key.startswith("_"):
                    found[f"attribute {name}.{key}"] = copy.deepcopy(value)
                    found[f"type {name}.{key}"] = type(value)
            elif key not in ("_parameters", "_buffers", "_modules"):
                found[f"attribute {name}.{key}"] = id(value)
        found[f"attributes {name}"] = list(vars(m))
        found[f"hooks {name}"] = (len(m._forward_hooks), len(m._forward_pre_hooks))
    return found


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, (tuple, list)):
        return type(a) is type(b) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return type(a) is type(b) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return type(a) is type(b) and bool(a == b)


def assert_untouched(model: nn.Module, inputs: Any, path: Path) -> nn.Module:
    before = fingerprint(model)
    given = copy.deepcopy(inputs)
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    small = made(model, inputs, path)
    after = fingerprint(model)
    assert before.keys() == after.keys()
    assert [k for k in before if not same(before[k], after[k])] == []
    assert same(given, inputs)
    assert torch.equal(states[0], torch.get_rng_state())
    assert all(
        same(a, b) for a, b in zip(states[1], np.random.get_state(), strict=True) if not isinstance(a, np.ndarray)
    )
    assert np.array_equal(states[1][1], np.random.get_state()[1])
    assert states[2] == random.getstate()
    return small


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("used", [True, False])
def test_the_callers_model_stays_as_it_was(tmp_path: Path, training: bool, used: bool) -> None:
    model = Model().train(training)
    x = torch.randn(2, 3, 8, 8)
    if used:  # caches are filled, a feature is kept
        with torch.no_grad():
            model(x)
    small = assert_untouched(model, x, tmp_path)
    assert small.training is training
    assert small.stem.out_channels == 8
    assert model.width == 16
    assert small.width == 8
    assert type(small.width) is int
    assert model.cache is not small.cache


def test_a_model_that_draws_random_numbers(tmp_path: Path) -> None:
    class Noisy(Model):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + torch.randn_like(x) * random.random() + float(np.random.rand())
            return super().forward(x)

    assert_untouched(Noisy(), torch.randn(2, 3, 8, 8), tmp_path)


def test_a_model_that_caches_in_its_forward_pass(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("levit_128s", pretrained=False, num_classes=10).eval()
    small = assert_untouched(model, torch.randn(1, 3, 224, 224), tmp_path)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    copy.deepcopy(model)


def test_an_error_in_forward_leaves_all_as_it_was(tmp_path: Path) -> None:
    class Broken(Model):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            super().forward(x)
            raise KeyError("nothing here")

    model = Broken()
    before = fingerprint(model)
    x = torch.randn(2, 3, 8, 8)
    state = torch.get_rng_state()
    with pytest.raises(amct.ModelError, match="nothing here"):
        made(model, x, tmp_path)
    after = fingerprint(model)
    assert [k for k in before if not same(before[k], after[k])] == []
    assert torch.equal(state, torch.get_rng_state())
    assert not list(tmp_path.iterdir())


CACHE: dict[str, torch.Tensor] = {}


def test_an_interrupt_leaves_no_tensor_of_the_analysis_in_a_cache() -> None:
    class Interrupted(Model):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            CACHE["first"] = self.stem(x)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        amct.plan(Interrupted().eval(), torch.rand(2, 3, 8, 8), CONFIG)
    assert not CACHE


def test_no_tensor_is_shared(tmp_path: Path) -> None:
    model = Model()
    small = made(model, torch.randn(2, 3, 8, 8), tmp_path)
    with torch.no_grad():
        for t in [*small.parameters(), *small.buffers()]:
            t.fill_(1)
    for a, b in zip([*model.parameters(), *model.buffers()], [*small.parameters(), *small.buffers()], strict=True):
        assert a is not b
        assert not (a.numel() and a.data_ptr() == b.data_ptr())


def test_class_mode_dtype_gradients_and_hooks_stay(tmp_path: Path) -> None:
    model = Model().to(torch.bfloat16)
    model.stem.weight.requires_grad_(False)
    model.body.eval()
    calls: list[str] = []
    model.body.register_forward_hook(lambda m, a, o: calls.append("after"))
    model.register_forward_pre_hook(lambda m, a: calls.append("before"))
    small = made(model, torch.randn(2, 3, 8, 8, dtype=torch.bfloat16), tmp_path)
    assert type(small) is Model
    assert {p.dtype for p in small.parameters()} == {torch.bfloat16}
    assert [p.requires_grad for p in small.parameters()] == [p.requires_grad for p in model.parameters()]
    assert [m.training for m in small.modules()] == [m.training for m in model.modules()]
    calls.clear()
    small.eval()(torch.randn(2, 3, 8, 8, dtype=torch.bfloat16))
    assert calls == ["before", "after"]


def test_gradients_reach_every_kept_parameter(tmp_path: Path) -> None:
    small = made(Model(), torch.randn(2, 3, 8, 8), tmp_path).train()
    optimizer = torch.optim.AdamW(small.parameters(), 1e-2)
    first = None
    x, y = torch.randn(8, 3, 8, 8), torch.randint(4, (8,))
    for _ in range(12):
        loss = nn.functional.cross_entropy(small(x), y)
        first = first or float(loss.detach())
        optimizer.zero_grad()
        loss.backward()
        for name, p in small.named_parameters():
            assert p.grad is not None, name
            assert p.grad.shape == p.shape
            assert bool((p.grad != 0).any()), name
        optimizer.step()
    assert float(loss.detach()) < first


SURVIVE: dict[str, Callable[[nn.Module], nn.Module]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
    "to float64 and back": lambda m: m.to(torch.float64).to(torch.float32),
    "channels last": lambda m: m.to(memory_format=torch.channels_last),
    "state dict": lambda m: _reloaded(m),
    "state dict, assigned": lambda m: _reloaded(m, assign=True),
}


def _reloaded(model: nn.Module, assign: bool = False) -> nn.Module:
    other = copy.deepcopy(model)
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    other.load_state_dict(copy.deepcopy(model.state_dict()), assign=assign)
    return other


@pytest.mark.parametrize("way", SURVIVE)
def test_survives(way: str, tmp_path: Path) -> None:
    small = made(Model(), torch.randn(2, 3, 8, 8), tmp_path).eval()
    x = torch.randn(2, 3, 8, 8)
    want = run(small, (x,))
    other = SURVIVE[way](small)
    torch.testing.assert_close(run(other, (x,)), want)
    assert other.width == 8


def test_compiles(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.BatchNorm2d(16), nn.Conv2d(16, 4, 3))
    small = made(model, torch.randn(2, 3, 8, 8), tmp_path).eval()
    x = torch.randn(2, 3, 8, 8)
    compiled = torch.compile(small, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), small(x))


def test_inputs_of_every_kind_give_the_same(tmp_path: Path) -> None:
    """A tensor, a tuple, a dict; nested lists; the first argument by name."""
    x = torch.randn(2, 3, 8, 8)
    model = Model().eval()
    shapes = [[tuple(p.shape) for p in made(model, given, tmp_path).parameters()] for given in (x, (x,), {"x": x})]
    assert shapes[0] == shapes[1] == shapes[2]

    class Detector(Model):
        def forward(self, images: list[torch.Tensor], options: dict[str, Any]) -> Any:
            return {"boxes": [super(Detector, self).forward(i[None]) for i in images], "n": options["n"]}

    images = [torch.randn(3, 8, 8), torch.randn(3, 6, 6)]
    small = made(Detector().eval(), (images, {"n": (1, 2)}), tmp_path)
    assert [tuple(p.shape) for p in small.parameters()] == shapes[0]


def test_computing_a_weight_leaves_the_power_iteration_of_its_norm(tmp_path: Path) -> None:
    """In train mode, each time that the weight is read moves the vectors of a spectral norm."""
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(16, 32))
    model, x = nn.Sequential(layer, nn.ReLU(), nn.Linear(32, 8)).train(), torch.randn(2, 16)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    config = amct.SparsityConfig(amct.NmSparsity(0))
    sparse = amct.create_prune_retrain_model(model, x, config, tmp_path / "r.txt")
    amct.apply(model, amct.plan(model, x, config))
    for checked in (model, sparse):
        amct.check_2to4(checked)
        assert all(torch.equal(v, before[k]) for k, v in checked.state_dict().items() if k.startswith("0."))
    assert all(module.training for module in model.modules())
