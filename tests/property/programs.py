"""Random networks: steps, each of which makes a feature map of 4x4 out of earlier ones; then linear layers."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import nn

SPACE = 4


class Step(NamedTuple):
    name: str
    sources: tuple[int, ...]  # indices of earlier features
    layer: str = ""
    number: int = 0


class Program(nn.Module):
    """Runs its steps; `layers` holds what has parameters. The output is the head of the last feature."""

    def __init__(self, steps: list[Step], layers: dict[str, nn.Module], tail: list[Step]) -> None:
        super().__init__()
        self.steps, self.tail = steps, tail
        self.layers = nn.ModuleDict(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = [x]
        for step in self.steps:
            features.append(self.run(step, [features[i] for i in step.sources]))
        vectors = [features[-1]]
        for step in self.tail:
            vectors.append(self.run(step, [vectors[i] for i in step.sources]))
        return vectors[-1]

    def run(self, step: Step, given: list[torch.Tensor]) -> torch.Tensor:
        x = given[0]
        if step.layer and step.name == "layer":
            return self.layers[step.layer](x)
        if step.name == "gate":
            return x * torch.sigmoid(self.layers[step.layer](x))
        if step.name == "excite":
            return x * torch.sigmoid(self.layers[step.layer](x.mean((2, 3), keepdim=True)))
        if step.name == "add":
            return x + given[1]
        if step.name == "mul":
            return x * torch.tanh(given[1])
        if step.name == "cat":
            return torch.cat(given, 1)
        if step.name == "chunk":
            return x.chunk(2, 1)[step.number]
        if step.name == "glu":
            return F.glu(x, 1)
        if step.name == "shuffle":
            b, c, h, w = x.shape
            return x.view(b, step.number, c // step.number, h, w).transpose(1, 2).reshape(b, c, h, w)
        if step.name == "norm":
            return self.layers[step.layer](x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        if step.name == "read":
            return self.layers[step.layer](x.flatten(2).mT)[0].mT.unflatten(2, x.shape[2:])
        if step.name == "fold":
            return F.interpolate(F.pixel_shuffle(x, 2), SPACE)
        if step.name == "mean":
            return x.mean((2, 3))
        if step.name == "flatten":
            return x.flatten(1)
        if step.name == "permuted":
            return x.permute(0, 2, 3, 1).flatten(1)
        return ACTIVATIONS[step.name](x)


ACTIVATIONS: dict[str, Any] = {
    "relu": F.relu,
    "silu": F.silu,
    "affine": lambda x: x * 2 + 1,
    "softmax": lambda x: x.softmax(1),
    "pool": lambda x: F.max_pool2d(x, 3, 1, 1),
    "centred": lambda x: x - x.mean(1, keepdim=True),
    "normal": lambda x: F.normalize(x, dim=1),
}
WIDTHS = (2, 4, 6, 8, 12)


def _divisors(*numbers: int) -> list[int]:
    return [g for g in range(1, min(numbers) + 1) if all(n % g == 0 for n in numbers)]


class _Builder:
    """Draws steps and keeps account of widths."""

    def __init__(self, draw: st.DrawFn, kinds: tuple[str, ...]) -> None:
        self.draw, self.kinds = draw, kinds
        self.steps: list[Step] = []
        self.layers: dict[str, nn.Module] = {}
        self.widths = [3]

    def layer(self, module: nn.Module) -> str:
        self.layers[f"l{len(self.layers)}"] = module
        return f"l{len(self.layers) - 1}"

    def add(self, width: int, name: str, *sources: int, module: nn.Module | None = None, number: int = 0) -> None:
        self.steps.append(Step(name, sources, self.layer(module) if module is not None else "", number))
        self.widths.append(width)

    def step(self) -> None:
        draw, widths = self.draw, self.widths
        i = draw(st.integers(max(0, len(widths) - 4), len(widths) - 1))
        c = widths[i]
        kind = draw(st.sampled_from(self.kinds))
        if kind == "conv":
            o = draw(st.sampled_from(WIDTHS))
            groups = draw(st.sampled_from(_divisors(c, o)))
            self.add(o, "layer", i, module=nn.Conv2d(c, o, 3, padding=1, groups=groups))
        elif kind == "transposed":
            o = draw(st.sampled_from(WIDTHS))
            groups = draw(st.sampled_from(_divisors(c, o)))
            self.add(o, "layer", i, module=nn.ConvTranspose2d(c, o, 3, padding=1, groups=groups))
        elif kind == "depthwise":
            m = draw(st.sampled_from((1, 2)))
            self.add(m * c, "layer", i, module=nn.Conv2d(c, m * c, 3, padding=1, groups=c))
        elif kind == "batch norm":
            self.add(c, "layer", i, module=nn.BatchNorm2d(c))
        elif kind == "group norm":
            self.add(c, "layer", i, module=nn.GroupNorm(draw(st.sampled_from(_divisors(c))), c))
        elif kind == "layer norm":
            self.add(c, "norm", i, module=nn.LayerNorm(c))
        elif kind == "prelu":
            self.add(c, "layer", i, module=nn.PReLU(c))
        elif kind == "activation":
            self.add(c, draw(st.sampled_from(sorted(ACTIVATIONS))), i)
        elif kind == "gate":
            self.add(c, "gate", i, module=nn.Conv2d(c, c, 1))
        elif kind == "excite":
            self.add(c, "excite", i, module=nn.Sequential(nn.Conv2d(c, 4, 1), nn.ReLU(), nn.Conv2d(4, c, 1)))
        elif kind in ("add", "mul"):
            same = [j for j, w in enumerate(widths) if w == c]
            self.add(c, kind, i, draw(st.sampled_from(same)))
        elif kind == "shared":
            same = [n for n, m in self.layers.items() if isinstance(m, nn.Conv2d) and m.in_channels == c]
            if same:
                name = draw(st.sampled_from(same))
                self.steps.append(Step("layer", (i,), name))
                self.widths.append(self.layers[name].out_channels)
        elif kind == "cat":
            j = draw(st.integers(0, len(widths) - 1))
            if c + widths[j] <= 32:
                self.add(c + widths[j], "cat", i, j)
        elif kind == "halves" and c % 2 == 0:
            if draw(st.booleans()):
                self.add(c // 2, "glu", i)
            else:
                self.add(c // 2, "chunk", i, number=draw(st.sampled_from((0, 1))))
        elif kind == "shuffle":
            self.add(c, "shuffle", i, number=draw(st.sampled_from(_divisors(c))))
        elif kind == "recurrent":
            hidden, ways = draw(st.sampled_from((2, 4, 6))), draw(st.sampled_from((1, 2)))
            layer = draw(st.sampled_from((nn.LSTM, nn.GRU, nn.RNN)))
            self.add(ways * hidden, "read", i, module=layer(c, hidden, bidirectional=ways == 2, batch_first=True))
        elif kind == "fold" and c % 4 == 0:
            self.add(c // 4, "fold", i)


KINDS = (
    *("conv",) * 5,
    "transposed",
    "depthwise",
    "batch norm",
    "group norm",
    "layer norm",
    "prelu",
    *("activation",) * 2,
    "gate",
    "excite",
    *("add",) * 2,
    "mul",
    "shared",
    *("cat",) * 2,
    *("halves",) * 2,
    "shuffle",
    "recurrent",
    "fold",
)


@st.composite
def programs(draw: st.DrawFn, most: int = 10, kinds: tuple[str, ...] = KINDS) -> Program:
    builder = _Builder(draw, kinds)
    width = draw(st.sampled_from(WIDTHS))
    builder.add(width, "layer", 0, module=nn.Conv2d(3, width, 3, padding=1))
    for _ in range(draw(st.integers(1, most))):
        builder.step()
    c = builder.widths[-1]
    start = draw(st.sampled_from(("mean", "flatten", "permuted")))
    width = c if start == "mean" else c * SPACE * SPACE
    hidden = draw(st.sampled_from((4, 8)))
    tail = [Step(start, (0,)), Step("layer", (1,), builder.layer(nn.Linear(width, hidden))), Step("silu", (2,))]
    if draw(st.booleans()):
        tail += [Step("layer", (3,), builder.layer(nn.LayerNorm(hidden)))]
        tail += [Step("layer", (4,), builder.layer(nn.Linear(hidden, hidden))), Step("add", (5, 3))]
    tail.append(Step("layer", (len(tail),), builder.layer(nn.Linear(hidden, 3))))
    return Program(builder.steps, builder.layers, tail)
