"""Sizes in user code: attributes, lists, dictionaries, configuration objects, asserts, caches; kinds of arguments."""

from __future__ import annotations

import functools
from collections import OrderedDict, namedtuple
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from judge import Build, conv, image, of, tokens
from torch import nn

L, C, R = nn.Linear, conv, F.relu
Pair = namedtuple("Pair", ["first", "second"])


@dataclass
class Config:
    hidden: int = 16
    heads: int = 4
    groups: int = 2
    sizes: list[int] = field(default_factory=lambda: [16, 12])


@dataclass
class Result:
    logits: torch.Tensor
    states: tuple[torch.Tensor, ...] = ()
    loss: torch.Tensor | None = None


class Base(nn.Module):
    """a -> (something with a size) -> b"""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = C(3, 16), C(16, 8)
        self.width = 16
        self.prepare()

    def prepare(self) -> None:
        pass

    def forward(self, x: torch.Tensor) -> Any:
        return self.b(self.between(self.a(x)))

    def between(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class Asserted(Base):
    def between(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[1] == self.width, "unexpected width"
        return R(x)


class OfNumpy(Base):
    """A product that NumPy made, in an attribute, and a width among others."""

    def prepare(self) -> None:
        self.flat, self.widths = np.prod((16, 8, 8)), {"first": np.int32(16)}

    def between(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.reshape(x.shape[0], self.flat)
        return flat.view(x.shape[0], self.widths["first"], *x.shape[2:])


class AssertedLiteral(Base):
    def between(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[1] == 16, "unexpected width"
        return R(x)


class AssertedLayers(Base):
    def between(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[1] == self.a.out_channels == self.b.in_channels
        return R(x)


class AssertedTuple(Base):
    def prepare(self) -> None:
        self.shape = (16, 8, 8)

    def between(self, x: torch.Tensor) -> torch.Tensor:
        assert tuple(x.shape[1:]) == self.shape
        return R(x)


class TorchAssert(Base):
    def between(self, x: torch.Tensor) -> torch.Tensor:
        torch._assert(x.shape[1] == self.width, "unexpected width")
        return R(x)


class Raised(Base):
    def between(self, x: torch.Tensor) -> torch.Tensor:
        if x.size(1) != self.width:
            raise ValueError("unexpected width")
        return R(x)


class Comparison(Base):
    """Bounds, not equality."""

    def between(self, x: torch.Tensor) -> torch.Tensor:
        if not 1 < x.shape[1] <= self.width:
            raise ValueError("unexpected width")
        return R(x)


class Viewed(Base):
    """A view with attributes, there and back."""

    def prepare(self) -> None:
        self.groups = 4

    def between(self, x: torch.Tensor) -> torch.Tensor:
        b, _, h, w = x.shape
        y = x.view(b, self.groups, self.width // self.groups, h, w)
        return (y * y.amax((3, 4), keepdim=True)).view(b, self.width, h, w)


class ViewedInList(Base):
    def prepare(self) -> None:
        self.sizes = [16, 8]

    def between(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(x.shape[0], self.sizes[0], self.sizes[1] * self.sizes[1]).view(-1, *self.sizes, self.sizes[1])


class ViewedInDict(Base):
    def prepare(self) -> None:
        self.sizes = {"width": 16, "space": 64}

    def between(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1, self.sizes["width"], self.sizes["space"]).view(x.shape)


class ViewedInConfig(Base):
    def prepare(self) -> None:
        self.config = Config()

    def between(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1, self.config.hidden, 64).view(x.shape)


class ViewedInNamespace(Base):
    def prepare(self) -> None:
        self.hparams = SimpleNamespace(width=16, inner=SimpleNamespace(space=64))

    def between(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1, self.hparams.width, self.hparams.inner.space).view(x.shape)


class ViewedInTuple(Base):
    def prepare(self) -> None:
        self.pair = Pair(16, 64)

    def between(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1, self.pair.first, self.pair.second).view(x.shape)


class ViewedInSharedTuple(Base):
    """That it is one and the same is asked, too."""

    def prepare(self) -> None:
        self.pair = Pair(16, 64)
        self.act = nn.Identity()
        self.act.pair = self.pair

    def between(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, self.act.pair.first, 64).view(x.shape)
        return rows * (2 if self.act.pair is self.pair else 1) * (3 if self.pair.first == self.a.out_channels else 1)


class AreaOf(Pair):
    """With an attribute of its own."""

    def __new__(cls, first: int, second: int) -> AreaOf:
        self = super().__new__(cls, first, second)
        self.area = first * second
        return self


class ViewedInTupleWithAttribute(Base):
    def prepare(self) -> None:
        self.pair = AreaOf(4, 4)

    def between(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1, self.pair.area, 64).view(x.shape)


class ViewedByClass(Base):
    """An attribute of the class."""

    space = 64
    channels = 16

    def between(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1, self.channels, self.space).view(x.shape)


class ViewedByGlobal(Base):
    def between(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1, _WIDTH, 64).view(x.shape)


class ViewedByProperty(Base):
    @property
    def channels(self) -> int:
        return self.a.out_channels

    def between(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1, self.channels, 64).view(x.shape)


class ViewedByWeight(Base):
    def between(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1, self.a.weight.shape[0], 64).view(-1, self.b.weight.size(1), 8, 8)


class ViewedByCache(Base):
    def between(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1, _cached(int(self.width)), 64).view(x.shape)


class ViewedByClosure(Base):
    def prepare(self) -> None:
        width = 16
        self.act = lambda x: R(x).reshape(-1, width, 64)

    def between(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(x).view(x.shape)


class ScaledByClosureOfTwo(Base):
    """What another function knows, too, may be written there."""

    def prepare(self) -> None:
        width = 16

        def write(n: int) -> None:
            nonlocal width
            width = n

        self.act, self.write = lambda x: R(x) * width, write

    def between(self, x: torch.Tensor) -> torch.Tensor:
        self.write(3)
        x = self.act(x)
        self.write(16)
        return x


class PaddedByClosure(nn.Module):
    """The shortcuts without parameters of the first residual networks for small images."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = C(3, 16), C(16, 32), C(32, 8)
        width = 32
        self.shortcut = lambda x: F.pad(x, (0, 0, 0, 0, width // 4, width // 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = R(self.a(x))
        return self.c(R(self.b(y) + self.shortcut(y)))


class ViewedByPartial(Base):
    def prepare(self) -> None:
        self.act = functools.partial(_as_rows, width=16)

    def between(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(x).view(x.shape)


class ViewedByFloat(Base):
    """int(a / b)"""

    def between(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1, 4, int(self.width / 4), 64).view(x.shape)


class ViewedByRatio(Base):
    def prepare(self) -> None:
        self.inner = 32

    def between(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1, self.inner // 2, 64).view(x.shape)


class ViewedByFraction(Base):
    """int(a * .5), as in MobileNet's width multipliers"""

    def prepare(self) -> None:
        self.inner, self.ratio = 32, 0.5

    def between(self, x: torch.Tensor) -> torch.Tensor:
        y = x.reshape(-1, int(self.inner * self.ratio), 64).view(x.shape)
        return y.reshape(-1, round((self.inner + self.inner) * 0.25), 64).view(x.shape)


class ViewedByOtherFraction(Base):
    """A number that is no small fraction keeps what it is multiplied with."""

    def between(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1, int(self.width * 1.1) - 1, 64).view(x.shape)


class DividedByFraction(Base):
    def between(self, x: torch.Tensor) -> torch.Tensor:
        return x / (x.shape[1] * 0.5)


class ViewedByLength(Base):
    def between(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1, len(self.a.weight), 64).view(x.shape)


class ViewedByMax(Base):
    def between(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1, max(self.width, 4), 64).view(x.shape)


class ViewedByIntCast(Base):
    def between(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1, int(x.shape[1]), 64).view(x.shape)


class ViewedByTwo(Base):
    """One attribute for two widths, of which one stays."""

    def prepare(self) -> None:
        self.c = C(3, 16)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.c(x)
        return self.b(self.a(x).reshape(-1, self.width, 64).view(-1, 16, 8, 8)), y.reshape(-1, self.width, 64)


class SharedSize(Base):
    """One attribute for two widths that both go."""

    def prepare(self) -> None:
        self.c, self.d = C(3, 16), C(16, 8)

    def forward(self, x: torch.Tensor) -> Any:
        y, z = self.a(x), self.c(x)
        y, z = (t.reshape(t.shape[0], self.width, -1).view(t.shape) for t in (y, z))
        return self.b(y) + self.d(z)


class SizesToLayers(Base):
    """The norm of a shape in an attribute, the groups of a convolution."""

    def prepare(self) -> None:
        self.shape = (16,)
        self.w = nn.Parameter(torch.randn(16, 1, 3, 3))

    def between(self, x: torch.Tensor) -> torch.Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.shape).permute(0, 3, 1, 2)
        return F.conv2d(x, self.w, padding=1, groups=self.width)


class SplitInList(Base):
    def prepare(self) -> None:
        self.a, self.b, self.c = C(3, 28), C(16, 8), C(12, 8)
        self.sizes = [16, 12]

    def forward(self, x: torch.Tensor) -> Any:
        y, z = self.a(x).split(self.sizes, 1)
        return self.b(y) + self.c(z)


class SplitByLayer(Base):
    def prepare(self) -> None:
        self.a, self.b, self.c = C(3, 28), C(16, 8), C(12, 8)

    def forward(self, x: torch.Tensor) -> Any:
        y, z = self.a(x).split([self.b.in_channels, self.c.in_channels], 1)
        return self.b(y) + self.c(z)


class SplitByDifference(Base):
    def prepare(self) -> None:
        self.a, self.b, self.c = C(3, 28), C(16, 8), C(12, 8)
        self.total, self.first = 28, 16

    def forward(self, x: torch.Tensor) -> Any:
        y, z = self.a(x).split((self.first, self.total - self.first), 1)
        return self.b(y) + self.c(z)


class SplitByQuotient(nn.Module):
    """As in the Set Transformer, Lee et al. 2019: heads are split off by a quotient, and become samples."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.heads = 36, 4
        self.a, self.q, self.k, self.v, self.b = L(8, 36), L(36, 36), L(36, 36), L(36, 36), L(36, 5)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.a(x)
        q, k, v = (torch.cat(m(x).split(self.width // self.heads, 2), 0) for m in (self.q, self.k, self.v))
        y = q + (q.bmm(k.transpose(1, 2)) / 6).softmax(2).bmm(v)
        return self.b(torch.cat(y.split(x.size(0), 0), 2))


class NarrowByAttribute(Base):
    def prepare(self) -> None:
        self.a, self.b, self.c = C(3, 32), C(16, 8), C(16, 8)
        self.half = 16

    def forward(self, x: torch.Tensor) -> Any:
        y = self.a(x)
        return self.b(y.narrow(1, 0, self.half)) + self.c(y.narrow(1, self.half, self.half))


class ExpandByAttribute(Base):
    def between(self, x: torch.Tensor) -> torch.Tensor:
        return x * x.mean((1, 2, 3), keepdim=True).expand(-1, self.width, 1, 1)


class HiddenState(Base):
    def prepare(self) -> None:
        self.c = C(16, 16)

    def between(self, x: torch.Tensor) -> torch.Tensor:
        h = x.new_zeros(x.shape[0], self.width, 8, 8)
        for _ in range(2):
            h = torch.tanh(x + self.c(h))
        return h


class Cached(Base):
    """A table that is made at the first call, by width and size, and kept."""

    def prepare(self) -> None:
        self.cache: dict[Any, torch.Tensor] = {}

    def between(self, x: torch.Tensor) -> torch.Tensor:
        key = tuple(x.shape[-2:])
        if key not in self.cache:
            self.cache[key] = torch.linspace(0, 1, 8, dtype=x.dtype)
        return x + self.cache[key]


class CachedAndDropped(Base):
    """A table that is kept, and a step that is left out at random where the model trains."""

    def prepare(self) -> None:
        self.table: torch.Tensor | None = None

    def between(self, x: torch.Tensor) -> torch.Tensor:
        if self.table is None:
            self.table = torch.linspace(0, 1, 8, dtype=x.dtype)
        draw = torch.rand([])
        return x if self.training and draw < 0.1 else x + self.table


class CachedFeature(Base):
    """A tensor of the last call is kept."""

    def prepare(self) -> None:
        self.last: torch.Tensor | None = None

    def between(self, x: torch.Tensor) -> torch.Tensor:
        self.last = x
        return x * 2


class Padded(Base):
    """Channels are padded up to the next layer's (option A, by sizes)."""

    def prepare(self) -> None:
        self.b = C(24, 8)

    def between(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(x, (0, 0, 0, 0, 0, self.b.in_channels - x.shape[1]))


class Grouped(Base):
    def prepare(self) -> None:
        self.g = C(16, 16, groups=4)
        self.per_group = 4

    def between(self, x: torch.Tensor) -> torch.Tensor:
        b, c, h, w = x.shape
        x = self.g(x)
        return (
            x.view(b, -1, self.per_group, h, w)
            .mean(2, keepdim=True)
            .expand(b, -1, self.per_group, h, w)
            .reshape(b, c, h, w)
        )


class DictInput(Base):
    def forward(self, image: torch.Tensor, scale: float = 1.0, extra: Any = None) -> Any:
        x = R(self.a(image)) * scale
        return {"out": self.b(x), "extra": extra}


class ListInput(Base):
    def forward(self, images: list[torch.Tensor]) -> Any:
        return [self.b(R(self.a(i))) for i in images]


class ListOfSingles(Base):
    """As detectors take them: a list of images, batched inside."""

    def forward(self, images: list[torch.Tensor]) -> Any:
        return self.b(R(self.a(torch.stack(images))))


class NestedInput(Base):
    def forward(self, batch: Any) -> Any:
        return self.b(R(self.a(batch["x"][0])) + batch["y"][1])


class DataOutput(Base):
    def forward(self, x: torch.Tensor) -> Any:
        y = self.a(x)
        return Result(self.b(R(y)), (y.mean(1),))


class DataOutputFeature(Base):
    def forward(self, x: torch.Tensor) -> Any:
        y = self.a(x)
        return Result(self.b(R(y)), (y,))


class OrderedOutput(Base):
    def forward(self, x: torch.Tensor) -> Any:
        y = R(self.a(x))
        return OrderedDict(first=self.b(y), second=self.b(y * 2))


class OwnLoop(Base):
    def prepare(self) -> None:
        self.depth = 3
        self.ms = nn.ModuleList(C(16, 16) for _ in range(3))

    def between(self, x: torch.Tensor) -> torch.Tensor:
        for i in range(self.depth):
            x = R(self.ms[i](x))
        return x


class OverwrittenInput(Base):
    def forward(self, x: list[torch.Tensor]) -> Any:
        for i in range(len(x)):
            x[i] = R(self.a(x[i]))
        return self.b(x[0] + x[1])


class HeadsInModule(Base):
    """Heads whose count is in a plain dictionary of options."""

    def prepare(self) -> None:
        self.options = {"heads": 4, "dim": 4, "name": "attention", "scale": 0.5}
        self.a, self.q, self.b = L(8, 16), L(16, 16), L(16, 4)

    def forward(self, x: torch.Tensor) -> Any:
        q = self.q(self.a(x))
        q = q.view(*q.shape[:2], self.options["heads"], self.options["dim"])
        return self.b((q.softmax(1) * self.options["scale"]).flatten(2))


class HeadsInTwo(Base):
    """Parent and child both hold the size."""

    def prepare(self) -> None:
        self.a, self.b = L(8, 16), L(16, 4)
        self.inner = nn.Module()
        self.inner.width = 16

    def forward(self, x: torch.Tensor) -> Any:
        y = self.a(x).view(-1, self.width)
        return self.b(R(y).view(*x.shape[:2], self.inner.width))


class WidthByHeads(Base):
    """A width that is a product of two attributes, one of them a head size that stays elsewhere."""

    def prepare(self) -> None:
        self.heads, self.head_dim = 4, 4
        self.a, self.b = L(8, 16), L(16, 4)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.a(x).view(*x.shape[:-1], self.heads, self.head_dim)
        return self.b(R(y).reshape(*x.shape[:-1], self.heads * self.head_dim))


class Hooked(Base):
    """A forward hook that is part of the function."""

    def prepare(self) -> None:
        self.a.register_forward_hook(_double)

    def between(self, x: torch.Tensor) -> torch.Tensor:
        return R(x)


_WIDTH = 16


@functools.lru_cache
def _cached(width: int) -> int:
    return width


def _as_rows(x: torch.Tensor, width: int) -> torch.Tensor:
    return R(x).reshape(-1, width, 64)


def _double(module: nn.Module, args: Any, out: torch.Tensor) -> torch.Tensor:
    return out * 2


class SizesOfClass(nn.Module):
    heads = 4
    width = 16

    def __init__(self) -> None:
        super().__init__()
        self.a, self.q, self.b = L(8, self.width), L(self.width, 3 * self.width), L(self.width, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.attend(self.a(x), self.heads, self.width))

    def attend(self, x: torch.Tensor, heads: int, width: int) -> torch.Tensor:
        q, k, v = self.q(x).view(*x.shape[:2], 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(*x.shape[:2], width)


class OwnAndOfClass(SizesOfClass):
    def __init__(self) -> None:
        super().__init__()
        self.heads = 2


class TwiceOfClass(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(SizesOfClass(), SizesOfClass())


class AskedOfClass(SizesOfClass):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.attend(self.a(x), type(self).heads, SizesOfClass.width))


class AsManyAsOthers(nn.Module):
    """As many queries as samples times heads: a number from elsewhere that is no product of these."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.a, self.q, self.k, self.b = L(8, 16), L(16, 16), L(16, 16), L(16, 8)
        self.queries = nn.Parameter(torch.randn(8, 16))

    def forward(self, x: torch.Tensor, length: int = 8) -> torch.Tensor:
        x = self.a(x)
        k = self.k(x).view(len(x), -1, self.heads, 4).transpose(1, 2)
        assert k.shape[0] == len(x)
        q = self.q(self.queries).expand(len(x), -1, -1).reshape(len(x), length, self.heads, 4).transpose(1, 2)
        return self.b((q @ k.mT @ k).transpose(1, 2).flatten(2))


class ByClass:
    heads = 4
    width = 16


class Smaller(ByClass):
    heads = 2

    def __init__(self) -> None:
        self.dropout = 0.1


class ConfiguredByClass(SizesOfClass):
    def __init__(self) -> None:
        super().__init__()
        self.config = Smaller()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.attend(self.a(x), self.config.heads, self.config.width))


class Stage(nn.Module):
    """A block that may widen: `if self.width != self.width_out` asks for a width that no view needs. Where it doubles
    and half of it goes, both would be the same."""

    def __init__(self, width: int, width_out: int, beside: bool = False) -> None:
        super().__init__()
        self.width, self.width_out, self.heads = width, width_out, 4
        self.qkv, self.o = L(width, 3 * width_out), L(width_out, width_out)
        self.proj = L(width, width_out) if width != width_out else None
        self.other = L(width_out, width) if beside else None  # as long, and goes by itself
        self.back = L(width, width_out) if beside else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, scale=0.5).transpose(1, 2).reshape(b, n, self.width_out)
        if self.width != self.width_out:
            x = self.proj(x)  # type: ignore[misc]
        x = x + self.o(y)
        return x if self.other is None else x + self.back(R(self.other(x)))  # type: ignore[misc]


class Stages(nn.Module):
    def __init__(self, beside: bool = False) -> None:
        super().__init__()
        self.a, self.b = L(8, 8), L(16, 4)
        self.stages = nn.Sequential(Stage(8, 8), Stage(8, 16, beside), Stage(16, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.stages(self.a(x)))  # type: ignore[no-any-return]


PATTERNS: dict[str, Build] = {
    "asserted": of(Asserted, "a b"),
    "asserted, a literal": of(AssertedLiteral, ""),
    "asserted, attributes of layers": of(AssertedLayers, "a b"),
    "asserted, a tuple": of(AssertedTuple, ""),
    "asserted by torch": of(TorchAssert, "a b"),
    "raised": of(Raised, "a b"),
    "compared": of(Comparison, ""),
    "viewed in groups": of(Viewed, "a b"),
    "viewed, list": of(ViewedInList, "a b"),
    "viewed, dict": of(ViewedInDict, "a b"),
    "viewed, config": of(ViewedInConfig, "a b"),
    "viewed, namespace": of(ViewedInNamespace, "a b"),
    "viewed, named tuple": of(ViewedInTuple, "a b"),
    "viewed, shared named tuple": of(ViewedInSharedTuple, "a b"),
    "viewed, named tuple with an attribute": of(ViewedInTupleWithAttribute, "a b"),
    "viewed, attribute of the class": of(ViewedByClass, ""),
    "viewed, global": of(ViewedByGlobal, ""),
    "viewed, property": of(ViewedByProperty, "a b"),
    "viewed, shape of a weight": of(ViewedByWeight, "a b"),
    "viewed, cached by int": of(ViewedByCache, ""),
    "viewed, closure": of(ViewedByClosure, "a b"),
    "scaled by a closure of two": of(ScaledByClosureOfTwo, "a b"),
    "padded by a closure": of(PaddedByClosure, "a b c"),
    "viewed, partial": of(ViewedByPartial, "a b"),
    "viewed, int(a / b)": of(ViewedByFloat, ""),
    "viewed, a quotient": of(ViewedByRatio, "a b"),
    "viewed, a fraction": of(ViewedByFraction, "a b"),
    "viewed, another fraction": of(ViewedByOtherFraction, ""),
    "divided by a fraction": of(DividedByFraction, ""),
    "viewed, len": of(ViewedByLength, "a b"),
    "viewed, max": of(ViewedByMax, ""),
    "viewed, int": of(ViewedByIntCast, ""),
    "viewed, one attribute for two, one stays": of(ViewedByTwo, ""),
    "viewed, one attribute for two": of(SharedSize, "a b c d"),
    "normalized shape and groups": of(SizesToLayers, ""),
    "split, list": of(SplitInList, "a b c"),
    "split, by layers": of(SplitByLayer, "a b c"),
    "split, a difference": of(SplitByDifference, "a b c"),
    "split, a quotient": of(SplitByQuotient, "a q k v b", tokens),
    "narrow": of(NarrowByAttribute, "a b c"),
    "expand": of(ExpandByAttribute, "a b"),
    "state of zeros": of(HiddenState, "a b c"),
    "sizes of NumPy's": of(OfNumpy, "a b"),
    "cached table": of(Cached, "a b"),
    "cached table, and layers dropped": of(CachedAndDropped, "a b"),
    "cached feature": of(CachedFeature, "a b"),
    "padded up to the next layer": of(Padded, ""),
    "averages of groups": of(Grouped, ""),
    "dict of arguments": of(DictInput, "a b", lambda: {"image": image(), "scale": 0.5, "extra": [1, "x"]}),
    "list of tensors": of(ListInput, "a b", lambda: ([image(), image(1, 3, 6, 6)],)),
    "list of images": of(ListOfSingles, "a b", lambda: ([image(3, 8, 8), image(3, 8, 8)],)),
    "nested": of(NestedInput, "", lambda: ({"x": (image(), None), "y": [1, torch.randn(2, 16, 8, 8)]},)),
    "dataclass": of(DataOutput, "a b"),
    "dataclass with a feature": of(DataOutputFeature, ""),
    "ordered dict": of(OrderedOutput, "a b"),
    "loop over layers": of(OwnLoop, "a b ms.0 ms.1 ms.2"),
    "overwritten list": of(OverwrittenInput, "", lambda: ([image(), image()],)),
    "heads in options": of(HeadsInModule, "a q b", tokens),
    "size in parent and child": of(HeadsInTwo, "a b", tokens),
    "width by heads": of(WidthByHeads, "a b", tokens),
    "hook": of(Hooked, "a b"),
    "a number as large as a product": of(AsManyAsOthers, "a q k b", lambda: torch.randn(2, 8, 8)),
    "sizes of a class": of(SizesOfClass, "a q b", tokens),
    "sizes of a class, one its own": of(OwnAndOfClass, "a q b", tokens),
    "sizes of a class, twice": of(TwiceOfClass, "0.a 0.q 0.b 1.a 1.q 1.b", tokens),
    "sizes of a class, asked of it": of(AskedOfClass, "", tokens),
    "sizes of the class of a configuration": of(ConfiguredByClass, "a q b", tokens),
    "widths that are found to differ": of(Stages, "a stages.0.o stages.1.qkv stages.1.o stages.2.o b", tokens),
    "widths that are found to differ, beside as long ones": of(lambda: Stages(True), "stages.1.other", tokens),
}
