"""Weight normalization through the cut: a direction that loses elements has another norm, and its magnitude follows.

w = g v / |v| (Salimans and Kingma, 2016, Weight Normalization): what stays of w is the same where the magnitude g is
multiplied by the norm of what stays of v, over that of all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from amct_pytorch.apply.compose import removals_by_tensor
from amct_pytorch.apply.cut import cut_tensor
from amct_pytorch.errors import ModelError
from amct_pytorch.record import ChannelPlan


def rescale(tensors: Mapping[str, torch.Tensor], new: Mapping[int, Any], plan: ChannelPlan) -> None:
    """Multiply the magnitudes of a plan, among the `new` tensors by the identity of those that they take the place of.

    Raises ModelError where of a direction nothing but zeros would stay, or it has no values.
    """
    removals = removals_by_tensor(plan) if plan.magnitudes else {}
    for name, (direction, axis) in plan.magnitudes.items():
        v, magnitude = tensors[direction], new[id(tensors[name])]
        if v.is_meta or magnitude.is_meta:
            raise ModelError(f"{direction} and {name} need values, for their norms change at the cut; load the weights")
        along = {d: removal for d, removal in removals[direction].items() if d == axis}
        whole = _norm(cut_tensor(v, along), axis)
        kept = _norm(new[id(v)].detach(), axis)
        if bool(((kept == 0) & (whole > 0)).any()):
            raise ModelError(
                f"{direction}: of a row that is normalized, nothing but zeros would stay, which has no direction; "
                "leave its layer out (skip_layers), or remove the parametrization before pruning"
            )
        magnitude.copy_(magnitude * torch.where(whole > 0, kept / whole, 1).reshape(magnitude.shape))


def _norm(v: torch.Tensor, axis: int) -> torch.Tensor:
    """Over all axes but one, whose place it keeps."""
    others = [d for d in range(v.ndim) if d != axis]
    single = torch.float32 if v.dtype in (torch.float16, torch.bfloat16) else None
    norm: torch.Tensor = torch.linalg.vector_norm(v, dim=others, keepdim=True, dtype=single)
    return norm
