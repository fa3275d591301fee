"""create, verification and record included, against Torch-Pruning building its graph and pruning at the same ratio.

Prints, per model, the median CPU seconds of both and their ratio, taken in turn in one run on one thread. A model has
a process of its own: in one that pruned others before, both take other times, by up to a third.
Needs torch-pruning and torchvision: `pip install -e .[benchmark]`.

    python benchmarks/create.py [MODEL ...] [--size 224] [--rounds 5]
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import statistics
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from torch import nn

sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("torchvision._meta_registrations"))
import torch_pruning  # noqa: E402
import torchvision  # noqa: E402

import amct_pytorch as amct  # noqa: E402

AIMS = {"resnet50": 0.6, "mobilenet_v2": 0.8, "densenet121": 0.2}
RATIO = 0.5


def ours(model: nn.Module, x: torch.Tensor, record: Path) -> None:
    config = amct.SparsityConfig(amct.ChannelSparsity(RATIO, ascend_optimized=False))
    amct.create_prune_retrain_model(model, x, config, record)


def theirs(model: nn.Module, x: torch.Tensor) -> None:
    head = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    importance = torch_pruning.importance.MagnitudeImportance(p=2)
    torch_pruning.pruner.MagnitudePruner(model, x, importance, pruning_ratio=RATIO, ignored_layers=[head]).step()


def seconds(run: Callable[[], None]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def compare(name: str, size: int, rounds: int) -> tuple[float, float]:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None).eval()
    x = torch.randn(1, 3, size, size)
    times: tuple[list[float], list[float]] = ([], [])
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds + 1):
            own = copy.deepcopy(model)  # theirs prunes in place: a copy each, outside the time
            times[0].append(seconds(lambda: ours(model, x, Path(folder, "record.txt"))))
            times[1].append(seconds(lambda own=own: theirs(own, x)))  # type: ignore[misc]
    return statistics.median(times[0][1:]), statistics.median(times[1][1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(AIMS))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print("| model | create, s | Torch-Pruning, s | ratio | aim |\n| --- | --- | --- | --- | --- |")
    for name in options.models:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
            a, b = apart.submit(compare, name, options.size, options.rounds).result()
        print(f"| {name} | {a:.2f} | {b:.2f} | {a / b:.2f} | {AIMS.get(name, '')} |", flush=True)


if __name__ == "__main__":
    main()
