"""The verdict on one pattern: a small network with one way that channels travel from a producer to a consumer."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from oracle import distance, doubled, fits, kept_twin, ready, run
from torch import nn

import amct_pytorch as amct

Build = Callable[[], tuple[nn.Module, Any, str]]
LOST = 0.4  # the share of the elements of its weight that a layer has to lose at ratio 0.5


class Net(nn.Module):
    """A module whose forward is a function of itself and its inputs."""

    def __init__(self, fn: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.fn = fn
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.fn(self, *inputs, **named)


def conv(i: int, o: int, k: int = 3, **kw: Any) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, padding=k // 2, **kw)


def image(*shape: int) -> torch.Tensor:
    return torch.randn(*(shape or (2, 3, 8, 8)))


def tokens(*shape: int) -> torch.Tensor:
    return torch.randn(*(shape or (4, 5, 8)))


def net(fn: Callable[..., Any], must: str, x: Callable[[], Any] = image, **make: Callable[[], Any]) -> Build:
    def build() -> tuple[nn.Module, Any, str]:
        model = Net(fn, **{k: m() for k, m in make.items()})
        inputs = x()
        return model, inputs if isinstance(inputs, (tuple, dict)) else (inputs,), must

    return build


def between(fn: Callable[[torch.Tensor], torch.Tensor], must: str = "a b") -> Build:
    """conv a -> fn -> conv b"""
    return net(lambda s, x: s.b(fn(s.a(x))), must, a=lambda: conv(3, 16), b=lambda: conv(16, 8))


def module_between(make: Callable[[], nn.Module], must: str = "a b", width: int = 16) -> Build:
    return net(lambda s, x: s.b(s.m(s.a(x))), must, a=lambda: conv(3, 16), m=make, b=lambda: conv(width, 8))


def of(make: Callable[[], nn.Module], must: str, x: Callable[[], Any] = image) -> Build:
    def build() -> tuple[nn.Module, Any, str]:
        inputs = x()
        return make(), inputs if isinstance(inputs, (tuple, dict)) else (inputs,), must

    return build


def judge(
    build: Build, ratio: float = 0.5, *, tolerance: float = 1e-10, training: bool = False, **settings: Any
) -> str:
    """Empty where the pattern holds, else what is wrong. `must` counts at ratio 0.5 alone; `settings` of the config."""
    torch.manual_seed(0)
    model, inputs, must = build()
    model, inputs = ready(model), doubled(inputs)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    config = amct.SparsityConfig(amct.config.ChannelSparsity(ratio, False), **settings)
    with tempfile.TemporaryDirectory() as d, warnings.catch_warnings():
        warnings.simplefilter("ignore", amct.AmctWarning)  # nothing goes in some
        record = Path(d, "record.txt")
        small = amct.create_prune_retrain_model(model, inputs, config, record)
        checkpoint = Path(d, "small.pth")
        torch.save(small.state_dict(), checkpoint)
        restored = amct.restore_prune_retrain_model(model, None, record, config, checkpoint)
    if any(not torch.equal(v, before[k]) for k, v in model.state_dict().items()):
        return "the user's model was changed"
    if wrong := _structure(model, small, must if ratio == 0.5 else ""):
        return wrong
    want, got, ref = run(model, inputs), run(small, inputs), run(kept_twin(model, small), inputs)
    if [t.shape for t in want] != [t.shape for t in got]:
        return f"outputs {[tuple(t.shape) for t in got]}, were {[tuple(t.shape) for t in want]}"
    diff = distance(got, ref)
    if not diff <= tolerance:
        return f"differs from the original over the kept channels by {diff:.1e}"
    if any(not torch.equal(a, b) for a, b in zip(got, run(restored, inputs), strict=True)):
        return "restored, it computes something else"
    if training:
        diff = distance(run(small.train(), inputs), run(kept_twin(model.train(), small), inputs))
        if not diff <= tolerance:
            return f"in train mode, differs by {diff:.1e}"
    return ""


def _structure(model: nn.Module, small: nn.Module, must: str) -> str:
    was, now = dict(model.named_modules()), dict(small.named_modules())
    for names in (lambda m: list(m.state_dict()), lambda m: [n for n, _ in m.named_parameters()]):
        if names(small) != names(model):
            return "names or ties of the parameters differ"
    memory = [{t.data_ptr() for t in m.state_dict().values() if t.numel()} for m in (model, small)]
    if memory[0] & memory[1]:
        return "shares a tensor with the user's model"
    if stale := [n for n, m in now.items() if not fits(m)]:
        return f"attributes do not follow the weight: {', '.join(stale)}"
    whole = [n for n in must.split() if _size(now, n) > (1 - LOST) * _size(was, n)]
    return f"not pruned: {', '.join(whole)}" if whole else ""


def _size(modules: dict[str, nn.Module], name: str) -> int:
    """The elements of a layer's weight, or of a parameter of the whole."""
    if name in modules and isinstance(getattr(modules[name], "weight", None), torch.Tensor):
        return int(modules[name].weight.numel())  # type: ignore[operator, union-attr]
    return modules[""].get_parameter(name).numel()
