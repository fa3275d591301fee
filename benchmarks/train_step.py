"""What 2:4 sparsity adds to a training step: CPU time of the sparse model's over the dense one's.

    python benchmarks/train_step.py [--repeats 15]

One thread. Dense and sparse steps alternate, each figure is the median of the ratios of neighbouring steps; process CPU
time, so that other programs on the machine disturb little.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
import types
import warnings
from collections.abc import Callable

import torch
from torch import nn

from amct_pytorch.apply.nm import plan_nm, sparsify
from amct_pytorch.config import NmSparsity, SparsityConfig

sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("unused"))
from torchvision.models import resnet18  # noqa: E402

TARGETS = {0: 1.04, 100: 1.08}


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(512, 8, 2048, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet18 32x32, batch 32": (resnet18, (32, 3, 32, 32)),
    "resnet18 128x128, batch 8": (resnet18, (8, 3, 128, 128)),
    "transformer, 2 layers, d 512, 8 x 64": (transformer, (8, 64, 512)),
}


def step_of(model: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    return step


def cpu_time(step: Callable[[], None]) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


def ratio(dense: Callable[[], None], sparse: Callable[[], None], repeats: int) -> float:
    for step in (dense, sparse, dense, sparse):
        step()
    ratios = []
    for number in range(repeats):
        first, second = (dense, sparse) if number % 2 else (sparse, dense)
        times = {first: cpu_time(first)}
        times[second] = cpu_time(second)
        ratios.append(times[sparse] / times[dense])
    return statistics.median(ratios)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print("| model | update_freq | CPU time over dense | target |\n| --- | --- | --- | --- |")
    for name, (make, shape) in CASES.items():
        torch.manual_seed(0)
        model, x = make(), torch.randn(shape)
        for update_freq in (0, 100, 1):
            config = SparsityConfig(NmSparsity(update_freq))
            sparse = sparsify(model, plan_nm(model, config))
            measured = ratio(step_of(copy.deepcopy(model), x), step_of(sparse, x), repeats)
            print(f"| {name} | {update_freq} | {measured:.3f} | {TARGETS.get(update_freq, '')} |", flush=True)


if __name__ == "__main__":
    main()
