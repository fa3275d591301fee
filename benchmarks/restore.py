"""restore of a sparse model, against loading the same checkpoint into a model that is ready, plus copying that.

restore reads config, record and checkpoint, builds the sparse model from the dense one, and fills it. The peer does
what no restore can do without: `ready.load_state_dict(torch.load(file))` and `copy.deepcopy(ready)`, `ready` being the
sparse model. Prints medians of milliseconds of CPU time and their ratio, taken in turn in one run on one thread.

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

CHANNELS = "filter_pruner { balanced_l2_norm_filter_prune { prune_ratio: 0.5 ascend_optimized: false } }"
NM = "n_out_of_m_pruner {{ l1_selective_prune {{ n_out_of_m_type: M4N2 update_freq: {} }} }}"
KINDS = {"channels": CHANNELS, "2:4, update_freq 0": NM.format(0), "2:4, update_freq 1": NM.format(1)}
AIMS = {("resnet50", kind): 1.2 if kind == "channels" else 1.15 for kind in KINDS}


def milliseconds(run: Callable[[], object]) -> float:
    gc.collect()
    start = time.process_time()
    run()
    return 1000 * (time.process_time() - start)


def compare(name: str, kind: str, folder: Path, rounds: int) -> tuple[float, float]:
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None)
    config, record, checkpoint = folder / "prune.cfg", folder / "record.txt", folder / "sparse.pth"
    config.write_text(f"prune_config {{ {KINDS[kind]} }}")
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
    parser.add_argument("models", nargs="*", default=["resnet50"])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print("| model | sparsity | restore, ms | load and copy, ms | ratio | aim |\n| --- | --- | --- | --- | --- | --- |")
    for name in options.models:
        for kind in KINDS:
            with tempfile.TemporaryDirectory() as folder:
                ours, peer = compare(name, kind, Path(folder), options.rounds)
            aim = AIMS.get((name, kind), "")
            print(f"| {name} | {kind} | {ours:.0f} | {peer:.0f} | {ours / peer:.2f} | {aim} |", flush=True)


if __name__ == "__main__":
    main()
