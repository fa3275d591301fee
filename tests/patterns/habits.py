"""Habits of research code: noise of a given shape, losses inside, scripted helpers, whatever is raised caught."""

from __future__ import annotations

import math
import types
import warnings
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from judge import Build, between, conv, image, module_between, net, of, tokens
from torch import nn
from torch.autograd.profiler import record_function
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

HEADS = {16: 4}
ELEMENTS = 1024


def scripted(function: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(function)


def bias_gelu(x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    y = x + b
    return y * 0.5 * (1.0 + torch.tanh(0.79788456 * y * (1 + 0.044715 * y * y)))


def plus_one(x: torch.Tensor) -> torch.Tensor:
    return x + 1


def gated_sum(a: torch.Tensor, b: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    """As in WaveGlow, Prenger et al. 2018: the number of channels comes as a tensor."""
    half = n[0]
    x = a + b
    return torch.tanh(x[:, :half]) * torch.sigmoid(x[:, half:])


def gated(x: torch.Tensor, n: int) -> torch.Tensor:
    return torch.tanh(x[:, :n]) * torch.sigmoid(x[:, n:])


def gated_halves(x: torch.Tensor) -> torch.Tensor:
    n = x.size(1) // 2
    return torch.tanh(x[:, :n]) * torch.sigmoid(x[:, n:])


def first_in_a_script(x: torch.Tensor) -> torch.Tensor:
    return x[:, :16] if torch.jit.is_scripting() else x[:, : x.size(1) // 2]


def part_in_a_script(x: torch.Tensor) -> torch.Tensor:
    return first_in_a_script(x) + 1


def halves_of_the_trace(x: torch.Tensor) -> torch.Tensor:
    n = math.floor(x.shape[1] / 2)  # a trace holds this number as it was
    return torch.tanh(x[:, :n]) * torch.sigmoid(x[:, n:])


def traced(function: Any, *inputs: torch.Tensor) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(function, inputs)


TRACED = traced(halves_of_the_trace, torch.randn(2, 32, 8, 8))
BIAS_GELU, PLUS_ONE = scripted(bias_gelu), scripted(plus_one)
HELPERS = types.ModuleType("helpers")
HELPERS.first = first_in_a_script  # type: ignore[attr-defined]


def part_of_a_file(x: torch.Tensor) -> torch.Tensor:
    return HELPERS.first(x)  # type: ignore[no-any-return]


PART_IN_A_SCRIPT, PART_OF_A_FILE = scripted(part_in_a_script), scripted(part_of_a_file)
GATED_SUM, GATED, GATED_HALVES = scripted(gated_sum), scripted(gated), scripted(gated_halves)


class WaveNet(nn.Module):
    """Gated layers with a condition for each, and what they add to the stream and to the result."""

    def __init__(self, width: int = 16, layers: int = 3) -> None:
        super().__init__()
        self.width, self.layers = width, layers
        self.pre, self.post, self.cond = (
            nn.Conv1d(3, width, 1),
            nn.Conv1d(width, 4, 1),
            nn.Conv1d(5, 2 * width * layers, 1),
        )
        self.inner = nn.ModuleList(nn.Conv1d(width, 2 * width, 3, padding=1) for _ in range(layers))
        self.outer = nn.ModuleList(nn.Conv1d(width, (2 - (i == layers - 1)) * width, 1) for i in range(layers))

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        x, c = self.pre(x), self.cond(c)
        out, width = torch.zeros_like(x), torch.IntTensor([self.width])
        for i in range(self.layers):
            offset = i * 2 * self.width
            gates = GATED_SUM(self.inner[i](x), c[:, offset : offset + 2 * self.width], width)
            added = self.outer[i](gates)
            if i < self.layers - 1:
                x = x + added[:, : self.width]
                out = out + added[:, self.width :]
            else:
                out = out + added
        return self.post(out)  # type: ignore[no-any-return]


def sized(fn: Any, must: str = "") -> Build:
    """Channels of which an attribute tells how many there are: fn(self, them)."""

    def forward(s: Any, x: torch.Tensor) -> Any:
        return s.b(fn(s, s.a(x).relu().view(len(x), s.width, *x.shape[2:])))

    return net(forward, must, image, a=lambda: conv(3, 16), b=lambda: conv(16, 4), width=lambda: 16)


def halved(fn: Any, must: str = "a b") -> Build:
    """Both halves of the channels meet: fn(self, them)."""
    return net(
        lambda s, x: s.b(fn(s, s.a(x))), must, image, a=lambda: conv(3, 32), b=lambda: conv(16, 4), width=lambda: 16
    )


class Standardized(nn.Conv2d):
    """Its weight has mean 0 and variance 1 over each output channel (arXiv 1903.10520)."""

    def __init__(self, i: int, o: int, unbiased: bool) -> None:
        super().__init__(i, o, 3)
        self.unbiased = unbiased

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        v, m = torch.var_mean(self.weight, dim=[1, 2, 3], keepdim=True, unbiased=self.unbiased)
        return F.conv2d(x, (self.weight - m) / torch.sqrt(v + 1e-5), self.bias)


def standardized(unbiased: bool) -> Build:
    def make() -> nn.Module:
        layers = (Standardized(i, o, unbiased) for i, o in ((3, 16), (16, 12), (12, 4)))
        return nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))

    return of(make, "0 2 4", image)


def with_loss(loss: Any, must: str = "a t b") -> Build:
    """A loss between two producers, inside of the forward."""

    def forward(s: Any, x: torch.Tensor) -> Any:
        y, target = s.a(x), s.t(x)
        return s.b(y), loss(y, target.detach())

    return net(forward, must, image, a=lambda: conv(3, 16), t=lambda: conv(3, 16), b=lambda: conv(16, 4))


def cross_entropy(**options: Any) -> Any:
    return lambda y, t: F.binary_cross_entropy_with_logits(y, t.sigmoid(), **options)


def apart(s: Any, x: torch.Tensor) -> Any:
    """The loss of each element, weighted per channel by what the network makes."""
    y = s.a(x)
    return s.b(F.smooth_l1_loss(y, s.t(x), reduction="none") * y.mean((2, 3), keepdim=True))


class Guarded(nn.Module):
    """Looks something up, and takes whatever is raised for a miss."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.qkv, self.o = nn.Linear(8, 16), nn.Linear(16, 48), nn.Linear(16, 4)

    def heads(self, width: int) -> int:
        try:
            return HEADS[width]
        except:  # noqa: E722 - the habit that this is about
            return width // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, d = self.a(x).shape
        heads = self.heads(16)
        q, k, v = self.qkv(self.a(x)).view(b, t, 3, self.heads(d), -1).permute(2, 0, 3, 1, 4)
        assert heads == 4
        return self.o(F.scaled_dot_product_attention(q, k, v, scale=0.3).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class OfNumbersAlone(nn.Module):
    """Takes another way where its head count is of a class of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.qkv, self.o, self.heads = nn.Linear(8, 16), nn.Linear(16, 48), nn.Linear(16, 4), 4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = self.heads if type(self.heads) is int else sum(self.heads)  # type: ignore[arg-type]
        y = self.a(x)
        q, k, v = self.qkv(y).view(*y.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
        return self.o(F.scaled_dot_product_attention(q, k, v, scale=0.3).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Sequences(nn.Module):
    """Words of sentences of several lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.up, self.rnn = nn.Embedding(20, 16), nn.Linear(16, 24), nn.GRU(24, 8, batch_first=True)
        self.mix, self.head = nn.Linear(24, 12), nn.Linear(12, 4)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> Any:
        packed = pack_padded_sequence(F.relu(self.up(self.embed(x))), lengths, True, enforce_sorted=False)
        padded, _ = pad_packed_sequence(self.rnn(packed)[0], True)
        return padded, self.head(F.relu(self.mix(packed.data)))


def sentences() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(21).view(3, 7) % 20, torch.tensor([7, 3, 5])


def named_for_a_profiler(t: torch.Tensor) -> torch.Tensor:
    with record_function("between"):
        return t.relu()


PATTERNS: dict[str, Build] = {
    "named for a profiler": between(named_for_a_profiler),
    "a part in DataParallel": module_between(lambda: nn.DataParallel(conv(16, 16)), "a b m.module"),
    "noise of a shape": between(lambda t: t + 0 * torch.randn(t.shape)),
    "noise of sizes": between(lambda t: t * (torch.rand(t.shape[0], t.shape[1], 1, 1) >= 0)),
    "noise of another's width": between(lambda t: t + 0 * torch.randn(1, 16, 1, 1), ""),
    "standardized by var_mean": standardized(unbiased=False),
    "standardized by var_mean, unbiased": standardized(unbiased=True),
    "squared error": with_loss(F.mse_loss),
    "squared error, summed": with_loss(lambda y, t: F.mse_loss(y, t, reduction="sum")),
    "smooth error": with_loss(F.smooth_l1_loss),
    "Huber error": with_loss(lambda y, t: F.huber_loss(y, t, delta=0.5)),
    **{
        f"cross entropy of logits, {kind}": with_loss(cross_entropy(**options))
        for kind, options in {
            "averaged": {},
            "summed": {"reduction": "sum"},
            "one weight": {"pos_weight": torch.tensor([2.0], dtype=torch.float64)},
        }.items()
    },
    "cross entropy of logits, of each": between(
        lambda t: t + F.binary_cross_entropy_with_logits(t, t.sigmoid(), t.exp().detach(), reduction="none")
    ),
    "cross entropy, weighted": with_loss(lambda y, t: F.binary_cross_entropy(y.sigmoid(), t.sigmoid(), t.exp())),
    "error of each element": net(
        apart, "a t b", image, a=lambda: conv(3, 16), t=lambda: conv(3, 16), b=lambda: conv(16, 4)
    ),
    "error against the other half": between(lambda t: t + F.mse_loss(t, t.flip(1), reduction="none"), ""),
    "kth value over positions": between(lambda t: t - t.flatten(2).kthvalue(3, -1)[0][..., None, None]),
    "kth value over channels": between(lambda t: t - t.kthvalue(3, 1, keepdim=True)[0], ""),
    "scripted, with sizes of its own": halved(lambda s, x: GATED_HALVES(x)),
    "traced, with the sizes of its trace": halved(lambda s, x: TRACED(x), ""),
    "scripted, and something else there": halved(lambda s, x: PART_IN_A_SCRIPT(x), ""),
    "scripted, and something else in another file": halved(lambda s, x: PART_OF_A_FILE(x), ""),
    "scripted, with a size": halved(lambda s, x: GATED(x, s.width)),
    "scripted, with a tensor of a size": halved(lambda s, x: GATED_SUM(x, x, torch.IntTensor([s.width]))),
    "a tensor of a size": halved(lambda s, x: gated(x, torch.tensor(s.width))),
    "a size that was a tensor": halved(lambda s, x: gated(x, torch.LongTensor([s.width])[0].item())),
    "gated layers with conditions": of(
        WaveNet,
        "pre cond inner.0 inner.2 outer.0 outer.2 post",
        lambda: (torch.randn(2, 3, 9), torch.randn(2, 5, 9)),
    ),
    "as many channels": sized(lambda s, h: h, "a b"),
    "a tensor of a size as a factor": sized(lambda s, h: h * torch.IntTensor([s.width])),
    "a tensor of a size as a quotient": sized(lambda s, h: h / torch.tensor(s.width).float().sqrt()),
    "a tensor of the same number": sized(lambda s, h: h * torch.tensor(16), "a b"),
    "noughts as many as there are": sized(lambda s, h: h + h.new(len(h), s.width, 1, 1).zero_(), "a b"),
    "noughts of its shape": sized(lambda s, h: h + h.new(h.shape).fill_(0.5), "a b"),
    "a tensor of the same number, a float": sized(lambda s, h: h * torch.FloatTensor([16.0]), "a b"),
    "a tensor of a size, written": sized(lambda s, h: h * torch.tensor([s.width]).mul_(2)),
    "a tensor of a size that is compared": sized(lambda s, h: h if torch.IntTensor([s.width])[0] == 16 else -h),
    "a tensor of a size as a list": sized(lambda s, h: h * float(torch.IntTensor([s.width]).tolist()[0])),
    "a number that was a tensor": sized(lambda s, h: h * math.sqrt(torch.IntTensor([s.width]))),
    "a result that is a size": net(
        lambda s, x: (s.b(s.a(x).view(len(x), s.width, *x.shape[2:])), torch.tensor(s.width)),
        "",
        image,
        a=lambda: conv(3, 16),
        b=lambda: conv(16, 4),
        width=lambda: 16,
    ),
    "scripted": net(
        lambda s, x: s.b(BIAS_GELU(s.a(x), s.bias)),
        "a b",
        tokens,
        a=lambda: nn.Linear(8, 16, bias=False),
        bias=lambda: nn.Parameter(torch.randn(16)),
        b=lambda: nn.Linear(16, 4),
    ),
    "scripted, with a number": between(PLUS_ONE),
    "elements counted": between(lambda t: t.reshape(t.size(0), t.numel() // t.size(0)).view(t.shape)),
    "elements of one counted": between(lambda t: t.reshape(-1, t[0].nelement()).view(t.shape)),
    "size divided with remainder": between(lambda t: t.reshape(t.size(0), *divmod(t.size(1), 1)[:1], -1).view(t.shape)),
    "size rounded": between(lambda t: t.reshape(t.size(0), round(t.size(1)), -1).view(t.shape)),
    "sentences of several lengths": of(Sequences, "embed up mix head", sentences),
    "whatever is raised": of(Guarded, "", tokens),
    "filled with no number": between(lambda t: torch.nan_to_num(t.masked_fill(t > 1e6, float("nan")))),
    "of numbers alone": of(OfNumbersAlone, "a o", tokens),
    "numpy's product": between(lambda t: t.view(len(t), int(np.prod(t.shape[1:]))).view(t.shape)),
    "numpy's product of an array": between(lambda t: t.view(len(t), np.array(t.shape[1:]).prod().item()).view(t.shape)),
    "values of each channel counted": between(lambda t: t * (t.numel() / t.shape[1]) ** -0.5 + t.numel() // t.size(1)),
    "values of each channel, unbiased": between(
        lambda t: t.var((0, 2, 3), keepdim=True) * (n := t.numel() / t.shape[1]) / (n - 1) + t
    ),
    "numel of a shape": between(lambda t: t.view(len(t), t.shape[1:].numel()).view(t.shape)),
    "numel of a shape, in heads": between(lambda t: t.view(*t.shape[:2], t.shape[2:].numel()).view(t.shape)),
    "numel of a part of a shape": between(lambda t: t.reshape(t.shape[:2].numel(), -1).view(t.shape)),
    "a number that a shape makes, too": between(lambda t: t.view(t.shape[0], 1024).view(t.shape), ""),
    "a number of the file that a shape makes, too": between(lambda t: t.view(t.shape[0], ELEMENTS).view(t.shape), ""),
    "a number from elsewhere that a shape makes, too": between(
        lambda t, n=ELEMENTS: t.view(t.shape[0], n).view(t.shape), ""
    ),
}
