"""create over the whole zoo: against Torch-Pruning on the convolutional networks, against the forward pass on all.

Prints the median over the convolutional networks that Torch-Pruning prunes of create's CPU seconds, the check and the
record included, to those of its graph and prune; how many architectures create in at most three forward passes plus
0.3 s; and those that do not. Float32, eval mode, one thread; per network the median of the rounds. A network
has a process of its own with 12 GB of memory: where Torch-Pruning needs more, it does not prune the network, and where
it needs more than a minute, it counts as a minute. --alone leaves Torch-Pruning out, --convnets the other networks.

The zoo's images are small, 64x64 mostly, where Torch-Pruning's forward and backward passes cost next to nothing, and
create, which makes no such pass, takes as long as it does; with --size the convolutional networks that take any size
get images of that size.

    python benchmarks/zoo.py [--rounds 1] [--size 224] [--alone] [--convnets] [NAME ...]
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import resource
import signal
import statistics
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("torchvision._meta_registrations"))
sys.path[:0] = [str(Path(__file__).parents[1])]
import torch_pruning  # noqa: E402

import amct_pytorch as amct  # noqa: E402
from tests.zoo.architecture import Architecture  # noqa: E402
from tests.zoo.architectures import ARCHITECTURES  # noqa: E402

CONFIG = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))
PASSES, EXTRA, AIM = 3, 0.3, 0.6
MEMORY, PATIENCE = 12 << 30, 60


def theirs(model: nn.Module, inputs: Any) -> None:
    heads = [m for m in model.modules() if isinstance(m, nn.Linear)][-1:]
    importance = torch_pruning.importance.MagnitudeImportance(p=2)
    torch_pruning.pruner.MagnitudePruner(model, inputs, importance, pruning_ratio=0.5, ignored_layers=heads).step()


def seconds(run: Callable[[], Any]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def forward(model: nn.Module, inputs: Any) -> None:
    with torch.no_grad():
        if isinstance(inputs, dict):
            model(**inputs)
        else:
            model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def built(member: Architecture, size: int | None) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model, inputs = member.build()
    model.eval()
    image = inputs[0] if isinstance(inputs, tuple) and len(inputs) == 1 else inputs
    if size is None or member.kind != "convnet" or not isinstance(image, torch.Tensor) or image.ndim != 4:
        return model, inputs
    large = torch.rand(*image.shape[:2], size, size)
    try:
        forward(model, large)
    except (RuntimeError, ValueError, AssertionError):  # it takes its own size alone
        return model, inputs
    return model, large


def compare(member: Architecture, rounds: int, size: int | None, alone: bool) -> tuple[float, float, float | None]:
    """Median seconds of create, of a forward pass, and of Torch-Pruning where it prunes the network at all."""
    model, inputs = built(member, size)
    ours, passes = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds + 1):
            passes.append(seconds(lambda: forward(model, inputs)))
            record = Path(folder, "record.txt")
            ours.append(seconds(lambda record=record: amct.create_prune_retrain_model(model, inputs, CONFIG, record)))
    compared = member.kind == "convnet" and not alone
    peer = [of_theirs(model, inputs) for _ in range(rounds + 1)] if compared else [None]
    found = None if None in peer else statistics.median(p for p in peer[1:] if p is not None)
    return statistics.median(ours[1:]), statistics.median(passes[1:]), found


def of_theirs(model: nn.Module, inputs: Any) -> float | None:
    own = copy.deepcopy(model)  # theirs prunes in place: a copy each, outside the time
    signal.alarm(PATIENCE)
    try:
        found = seconds(lambda: theirs(own, inputs))
        forward(own, inputs)
    except TimeoutError:
        return PATIENCE
    except Exception:  # noqa: BLE001 - whatever stops the peer: the network is not compared
        return None
    finally:
        signal.alarm(0)
    return found


def late(*_: Any) -> None:
    raise TimeoutError


def apart(member: Architecture, rounds: int, size: int | None, alone: bool) -> tuple[float, float, float | None]:
    """The same in a process of its own."""
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()

    def run() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        signal.signal(signal.SIGALRM, late)
        results.put(compare(member, rounds, size, alone))

    process = context.Process(target=run)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{member.name} failed")
    found: tuple[float, float, float | None] = results.get()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--size", type=int)
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--convnets", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    members = [a for a in ARCHITECTURES if not options.names or a.name in options.names]
    members = [a for a in members if a.kind == "convnet" or not options.convnets]
    ratios, within, slow = [], 0, []
    for i, member in enumerate(members):
        ours, one, peer = apart(member, options.rounds, options.size, options.alone)
        ratios += [ours / peer] if peer else []
        within += ours <= PASSES * one + EXTRA
        slow += [f"{member.name} {ours:.2f} ({one:.3f})"] if ours > PASSES * one + EXTRA else []
        against = f"{ours / peer:.2f}" if peer else "-"
        print(f"{i + 1}/{len(members)} {member.name} {ours:.3f} {one:.4f} {against}", file=sys.stderr, flush=True)
    print("| | measured | aim |\n| --- | --- | --- |")
    if ratios:
        print(f"| create / Torch-Pruning, median of {len(ratios)} | {statistics.median(ratios):.2f} | {AIM} |")
    print(f"| within 3 forward passes + 0.3 s | {within} of {len(members)} | all |")
    print(f"\nAbove, with the seconds of create and of a forward pass: {', '.join(slow) or 'none'}.")


if __name__ == "__main__":
    main()
