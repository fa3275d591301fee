"""Steps of optimizers count as writes. Those that are fused leave no trace in a tensor's version, by which it is known
whether a weight was written to."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.weak import WeakTensorKeyDictionary

_watched = WeakTensorKeyDictionary()  # no attribute: that would be pickled with a parameter
_hooks: list[Any] = []


def watch(weight: torch.Tensor) -> None:
    """From now on the version of a weight moves with each step of an optimizer that has it."""
    _watched[weight] = True
    if not _hooks:
        _hooks.append(register_optimizer_step_post_hook(_stepped))


def _stepped(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    if torch.compiler.is_compiling():  # compiled steps do leave one
        return
    for group in optimizer.param_groups:
        for weight in group["params"]:
            if weight in _watched:
                torch.autograd.graph.increment_version(weight)
