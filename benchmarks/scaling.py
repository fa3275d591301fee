"""How the time of a plan grows with a network: its depth and its width doubled, and the exponent that fits.

Networks without weights (on the meta device), so that what is timed is the analysis, the choice and the check alone.
Prints CPU seconds, the median of the rounds, and per doubling row the exponent p of seconds ~ (operations + labels)^p,
fitted over the larger half of the sizes: 1 is linear.

    python benchmarks/scaling.py [--rounds 3] [--largest 128]
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import amct_pytorch as amct
from amct_pytorch.analyse.passes import Options
from amct_pytorch.analyse.run import analyse

CONFIG = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))


class Residual(nn.Module):
    """A convolutional network of bottlenecks."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width // 2, 1),
                nn.BatchNorm2d(width // 2),
                nn.ReLU(),
                nn.Conv2d(width // 2, width, 3, padding=1),
            )
            for _ in range(depth)
        )
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = F.relu(x + block(x))
        return self.head(x.mean((2, 3)))


class Dense(nn.Module):
    """A network whose layers see all that came before in their stage: concatenations of up to eight."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv2d(width * (1 + i % 8), width, 3, padding=1) for i in range(depth))
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = [self.stem(x)]
        for i, layer in enumerate(self.layers):
            found = found[-1:] if i % 8 == 0 else found
            found.append(F.relu(layer(torch.cat(found, 1))))
        return self.head(found[-1].mean((2, 3)))


class Attention(nn.Module):
    """A transformer with heads of 16."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Linear(8, width)
        self.heads = width // 16
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm": nn.LayerNorm(width),
                    "qkv": nn.Linear(width, 3 * width),
                    "out": nn.Linear(width, width),
                    "up": nn.Linear(width, 4 * width),
                    "down": nn.Linear(4 * width, width),
                }
            )
            for _ in range(depth)
        )
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for layer in self.layers:
            q, k, v = layer["qkv"](layer["norm"](x)).unflatten(-1, (3, self.heads, 16)).permute(2, 0, 3, 1, 4)
            x = x + layer["out"](F.scaled_dot_product_attention(q, k, v, scale=0.25).transpose(1, 2).flatten(2))
            x = x + layer["down"](F.gelu(layer["up"](x)))
        return self.head(x.mean(1))


FAMILIES: dict[str, tuple[Callable[[int, int], nn.Module], tuple[int, ...]]] = {
    "residual": (Residual, (2, 3, 8, 8)),
    "dense": (Dense, (2, 3, 8, 8)),
    "attention": (Attention, (2, 9, 8)),
}


def measure(model: nn.Module, x: torch.Tensor, rounds: int) -> tuple[int, float]:
    """Operations plus labels, and the median seconds of a plan."""
    facts = analyse(model, ((x,), {}), Options({}))
    size = len(facts.traces[0].log) + facts.labels.count
    del facts
    times = []
    for _ in range(rounds):
        gc.collect()
        start = time.process_time()
        amct.plan(model, x, CONFIG)
        times.append(time.process_time() - start)
    return size, statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--largest", type=int, default=128, help="of the depths; widths go to 16 times that")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    scales = [2**i for i in range(3, options.largest.bit_length())]
    print("| family | doubled | operations + labels | seconds | exponent |\n| --- | --- | --- | --- | --- |")
    for name, (family, shape) in FAMILIES.items():
        for what in ("depth", "width"):
            sizes, times = [], []
            for scale in scales:
                depth, width = (scale, 64) if what == "depth" else (8, 16 * scale)
                with torch.device("meta"):
                    model = family(depth, width).eval()
                    x = torch.empty(shape)
                size, seconds = measure(model, x, options.rounds)
                sizes.append(size)
                times.append(seconds)
            late = len(scales) // 2
            exponent = np.polyfit(np.log(sizes[late:]), np.log(times[late:]), 1)[0]
            counts, spent = " ".join(f"{s:,}" for s in sizes), " ".join(f"{t:.2f}" for t in times)
            print(f"| {name} | {what} | {counts} | {spent} | {exponent:.2f} |", flush=True)


if __name__ == "__main__":
    main()
