"""Choosing a 2:4 mask: time over that of `dst.copy_(weight)`, and of other spellings of the same function.

    python benchmarks/masks.py [--repeats 9] [--no-compile]

One thread, medians; the copy and the masks take turns in one run. The peers are what other tools do: `topk` and
`scatter_` on groups of four, `argsort`, and the sum of all six patterns' magnitudes as a matrix product with an argmax.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from amct_pytorch import mask_2to4

TARGETS = {("4096x4096", "mask_2to4"): 8, ("4096x4096", "mask_2to4, compiled"): 3.5, ("512x512x3x3", "mask_2to4"): 12}
SHAPES = {"4096x4096": (4096, 4096), "512x512x3x3": (512, 512, 3, 3)}


def groups_of(weight: torch.Tensor) -> torch.Tensor:
    return weight.abs().movedim(1, -1).reshape(-1, 4)


def back(mask: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return mask.view(weight.movedim(1, -1).shape).movedim(-1, 1)


def topk_scatter(weight: torch.Tensor) -> torch.Tensor:
    groups = groups_of(weight)
    kept = groups.topk(2, dim=1).indices
    return back(torch.zeros_like(groups, dtype=torch.bool).scatter_(1, kept, True), weight)


def argsort(weight: torch.Tensor) -> torch.Tensor:
    groups = groups_of(weight)
    dropped = groups.argsort(dim=1)[:, :2]
    return back(torch.ones_like(groups, dtype=torch.bool).scatter_(1, dropped, False), weight)


def patterns(weight: torch.Tensor) -> torch.Tensor:
    table = torch.zeros(6, 4)
    for row, pair in enumerate(itertools.combinations(range(4), 2)):
        table[row, list(pair)] = 1
    best = (groups_of(weight) @ table.t()).argmax(1)
    return back(table.bool()[best], weight)


def timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def ratio(function: Callable[[], object], copy: Callable[[], object], repeats: int) -> float:
    function()
    copies, times = [], []
    for _ in range(repeats):
        copies.append(statistics.median(timed(copy) for _ in range(3)))
        times.append(timed(function))
    return statistics.median(times) / statistics.median(copies)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--no-compile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| weight | how | time over copy_ | target |\n| --- | --- | --- | --- |")
    for name, shape in SHAPES.items():
        torch.manual_seed(0)
        weight = torch.randn(shape)
        target = torch.empty_like(weight)
        spellings: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"mask_2to4": mask_2to4}
        if not arguments.no_compile:
            spellings["mask_2to4, compiled"] = torch.compile(mask_2to4)
        spellings |= {"topk + scatter": topk_scatter, "argsort": argsort, "pattern sums": patterns}
        for how, spelling in spellings.items():
            assert torch.equal(spelling(weight), mask_2to4(weight)), how
            measured = ratio(partial(spelling, weight), partial(target.copy_, weight), arguments.repeats)
            print(f"| {name} | {how} | {measured:.1f} | {TARGETS.get((name, how), '')} |", flush=True)


if __name__ == "__main__":
    main()
