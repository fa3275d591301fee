"""restore of a pruned model, against loading the same checkpoint into a model that is ready, plus copying that.

restore reads config, record and checkpoint, builds the small model from the dense one, and fills it. The peer does what
no restore can do without: `ready.load_state_dict(torch.load(file))` and `copy.deepcopy(ready)`, `ready` being the small
model. Prints medians of milliseconds of CPU time and their ratio, taken in turn in one run on one thread.

    python benchmarks/restore.py [MODEL ...] [--rounds 15]
"""

from __future__ import annotations

import argparse
import copy
import gc
import statistics
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("torchvision._meta_registrations"))
import torchvision  # noqa: E402

import amct_pytorch as amct  # noqa: E402

AIMS = {"resnet50": 1.2}
CONFIG = "prune_config { filter_pruner { balanced_l2_norm_filter_prune { prune_ratio: 0.5 ascend_optimized: false } } }"


def milliseconds(run: Callable[[], object]) -> float:
    gc.collect()
    start = time.process_time()
    run()
    return 1000 * (time.process_time() - start)


def compare(name: str, folder: Path, rounds: int) -> tuple[float, float]:
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None)
    config, record, checkpoint = folder / "prune.cfg", folder / "record.txt", folder / "small.pth"
    config.write_text(CONFIG)
    ready = amct.create_prune_retrain_model(model, torch.randn(1, 3, 64, 64), config, record)
    torch.save({"state_dict": ready.state_dict()}, checkpoint)

    def ours() -> nn.Module:
        return amct.restore_prune_retrain_model(model, None, record, config, checkpoint, "state_dict")

    def peer() -> nn.Module:
        ready.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
        return copy.deepcopy(ready)

    times = [(milliseconds(ours), milliseconds(peer)) for _ in range(rounds + 2)][2:]
    restore, plain = zip(*times, strict=True)
    return statistics.median(restore), statistics.median(plain)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(AIMS))
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print("| model | restore, ms | load and copy, ms | ratio | aim |\n| --- | --- | --- | --- | --- |")
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            ours, peer = compare(name, Path(folder), options.rounds)
        print(f"| {name} | {ours:.0f} | {peer:.0f} | {ours / peer:.2f} | {AIMS.get(name, '')} |", flush=True)


if __name__ == "__main__":
    main()
