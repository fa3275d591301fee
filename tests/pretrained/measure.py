"""Dense, pruned, and pruned then distilled: how much of a task each does right."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import amct_pytorch as amct
from amct_pytorch.apply.shrink import carried_plan
from amct_pytorch.report import Left, Summary
from tests.pretrained.task import Data, Task, asked


@dataclass(frozen=True)
class Row:
    """`parameters`, `macs`: the share that is left, of trained parameters and of operations. `dense`, `pruned`: the
    share done right; `distilled`: the same for each seed. `seconds`: of one distillation. `left`: what stays."""

    task: Task
    ratio: float
    total: int
    parameters: float
    macs: float
    dense: float
    pruned: float
    distilled: tuple[float, ...]
    seconds: float
    left: tuple[Left, ...]


def measure(task: Task, ratios: tuple[float, ...], seeds: int) -> Iterator[Row]:
    """Prune at each ratio, without alignment, and distil with each seed."""
    with _reproducible():
        torch.manual_seed(0)
        dense = task.network().eval()
        data = task.data(dense)
        answers = asked(task, dense, data.train)
        right = data.score(dense)
        for ratio in ratios:
            yield _row(task, dense, data, answers, right, ratio, seeds)


def _row(
    task: Task, dense: nn.Module, data: Data, answers: torch.Tensor, right: float, ratio: float, seeds: int
) -> Row:
    config = amct.SparsityConfig(amct.ChannelSparsity(ratio, ascend_optimized=False))
    distilled, seconds = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder, "record.txt")
        inputs = task.inputs(data.train[:2])
        small = amct.create_prune_retrain_model(dense, inputs, config, record)
        plan = carried_plan(small)
        summary = plan.summary if plan else Summary()
        pruned = data.score(small)
        checkpoint = Path(folder, "pruned.pth")
        torch.save(small.state_dict(), checkpoint)
        for seed in range(seeds):
            small = amct.restore_prune_retrain_model(dense, inputs, record, config, checkpoint)
            start = time.perf_counter()
            distil(small, task, data.train, answers, seed)
            seconds += (time.perf_counter() - start) / seeds
            distilled.append(data.score(small))
    counts = (summary.macs or (1, 1))[::-1]
    macs = counts[0] / counts[1]
    left = tuple(entry for entry in summary.left if not entry.reason.startswith("it is an output"))
    return Row(
        task,
        ratio,
        _trained(dense),
        _trained(small) / _trained(dense),
        macs,
        right,
        pruned,
        tuple(distilled),
        seconds,
        left,
    )


def distil(small: nn.Module, task: Task, train: torch.Tensor, answers: torch.Tensor, seed: int) -> None:
    """Train a pruned network on what the dense one answers: Kullback-Leibler divergence, Adam, a cosine schedule."""
    torch.manual_seed(seed)
    small.train()
    optimizer = torch.optim.Adam([p for p in small.parameters() if p.requires_grad], task.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, task.steps)
    for batch in _batches(len(train), task.batch, task.steps):
        optimizer.zero_grad()
        got, want = task.ask(small, train[batch]), answers[batch]
        (want.exp() * (want - got)).sum(-1).mean().backward()
        optimizer.step()
        schedule.step()


def _batches(count: int, size: int, steps: int) -> Iterator[torch.Tensor]:
    order = torch.zeros(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < size:
            order = torch.randperm(count)
        yield order[:size]
        order = order[size:]


def _trained(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


@contextmanager
def _reproducible() -> Iterator[None]:
    with torch.random.fork_rng():
        yield
