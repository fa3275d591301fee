"""Tensors that are spread over processes: DTensors, of which each process has a part.

`fully_shard` puts a parameter together before each forward and backward pass, and has its part as the parameter at
other times; tensor parallelism computes with the parts.
"""

from __future__ import annotations

import sys

import torch
from torch import nn


def is_spread(tensor: torch.Tensor) -> bool:
    """Whether a tensor is a DTensor; the module that defines them is not imported for the answer."""
    if type(tensor) in (nn.Parameter, torch.Tensor):
        return False
    tensors = sys.modules.get("torch.distributed.tensor")
    return tensors is not None and isinstance(tensor, tensors.DTensor)


def is_wanted_itself(depth: int) -> bool:
    """Whether torch reads an attribute, to spread a parameter or one that it spread; `depth`: of the frame."""
    name: str = sys._getframe(depth + 1).f_globals["__name__"]
    return name.startswith("torch.distributed.")


def spread_like(mask: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A mask, whole in each process, in parts like those of the weight. No process hears of another."""
    from torch.distributed.tensor import DTensor, Replicate

    assert isinstance(weight, DTensor)
    everywhere = [Replicate()] * weight.device_mesh.ndim
    return DTensor.from_local(mask, weight.device_mesh, everywhere, run_check=False).redistribute(
        placements=weight.placements
    )


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor; where it is spread, all processes have to ask for it."""
    if not is_spread(tensor):
        return tensor
    full: torch.Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return full


def here(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of a tensor: all of one that is the same everywhere, as buffers are."""
    local: torch.Tensor = tensor.to_local() if is_spread(tensor) else tensor  # type: ignore[attr-defined]
    return local
