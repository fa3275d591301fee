"""Peak memory of create above that of holding the model, over the model's own size. resnet50 at 64x64.

The peak is the own high-water mark of a fresh process, read before and after create; a smaller model is pruned first,
so that libraries are loaded. Needs Linux and torchvision.

    python benchmarks/memory.py [--ratio 0.5] [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import types
import warnings
from pathlib import Path

import torch

AIM = 1.6


def peak() -> int:
    """Bytes of the high-water mark of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def now() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def measure(ratio: float) -> float:
    """The share of the model's size by which create raised the peak, in this process."""
    sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("torchvision._meta_registrations"))
    import torchvision

    import amct_pytorch as amct

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    config = amct.SparsityConfig(amct.ChannelSparsity(ratio, ascend_optimized=False))
    x = torch.randn(1, 3, 64, 64)
    with tempfile.TemporaryDirectory() as folder:
        amct.create_prune_retrain_model(torchvision.models.resnet18(), x, config, Path(folder, "small.txt"))
        model = torchvision.models.resnet50().eval()
        size = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        before = max(peak(), now())
        amct.create_prune_retrain_model(model, x, config, Path(folder, "record.txt"))
        return (peak() - before) / size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        print(measure(options.ratio))
        return
    command = [sys.executable, __file__, "--once", "--ratio", str(options.ratio)]
    runs = [
        float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(options.rounds)
    ]
    print("| model | ratio | peak above holding the model, in model sizes | aim |\n| --- | --- | --- | --- |")
    print(f"| resnet50, 64x64 | {options.ratio} | {statistics.median(runs):.2f} | {AIM} |")


if __name__ == "__main__":
    main()
