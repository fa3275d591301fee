"""What a network with trained weights is for, at a small scale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Data:
    """`train`: examples (n, ...) without answers: the dense network gives those. `score`: the share that a network does
    right on others, with answers that are known: 1 is all."""

    train: torch.Tensor
    score: Callable[[nn.Module], float]


@dataclass(frozen=True)
class Task:
    """`name`: of the zoo's member; `does`: what is asked, of what, and how it is measured; `network`: the dense one;
    `data`: from the dense network; `inputs`: examples to what the network takes; `answers`: what it returns to log
    probabilities (n, ..., classes); `steps`, `batch`, `rate`: of the distillation, with Adam."""

    name: str
    package: str
    does: str
    network: Callable[[], nn.Module]
    data: Callable[[nn.Module], Data]
    answers: Callable[[Any], torch.Tensor]
    inputs: Callable[[torch.Tensor], Any] = lambda x: x
    steps: int = 300
    batch: int = 64
    rate: float = 1e-3

    def ask(self, network: nn.Module, examples: torch.Tensor) -> torch.Tensor:
        """Log probabilities of the answers to some examples."""
        inputs = self.inputs(examples)
        if isinstance(inputs, dict):
            return self.answers(network(**inputs))
        return self.answers(network(*inputs) if isinstance(inputs, tuple) else network(inputs))


def asked(task: Task, network: nn.Module, examples: torch.Tensor, batch: int = 100) -> torch.Tensor:
    """The same for many examples, in eval mode and without gradients."""
    network.eval()
    with torch.no_grad():
        return torch.cat([task.ask(network, part) for part in examples.split(batch)])
