"""How important units are: `BalancedL2Norm`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from amct_pytorch.analyse.groups import Ids
from amct_pytorch.analyse.labels import Factor
from amct_pytorch.errors import ModelError

Scores = npt.NDArray[np.float64]


def filter_norms(tensor: torch.Tensor, axis: int, channels: int, name: str) -> Scores:
    """The L2 norm of each filter along an axis, over the other axes.

    `channels` is the logical length of the axis; where it is more than the dim's own, the tensor's first dim is
    (groups, rest).
    """
    t = tensor.detach()
    if channels != t.shape[axis]:
        groups = channels // t.shape[axis]
        t = t.reshape(groups, t.shape[0] // groups, *t.shape[1:]).movedim(axis + 1, 1).flatten(0, 1)
    else:
        t = t.movedim(axis, 0)
    single = torch.float32 if t.dtype in (torch.float16, torch.bfloat16) else None
    norms = torch.linalg.vector_norm(t.reshape(channels, -1), dim=1, dtype=single)
    if not bool(torch.isfinite(norms).all()):
        raise ModelError(f"{name} holds NaN or infinite values: it cannot be scored; mend the weights before pruning")
    return np.asarray(norms.cpu().numpy(), np.float64)


def unit_scores(units: Ids, producers: Sequence[tuple[Factor, Scores]], unit: Ids) -> Scores:
    """The score of each unit: per producer min-max normalized norms, the mean over a unit's rows; summed over
    producers.

    producers: per axis its labels and the norm of each; unit: the unit of every label.
    """
    total = np.zeros(len(units))
    first = int(units.min())
    position = np.full(int(units.max()) - first + 3, -1)  # one more at each end, for the units of others
    position[units - first + 1] = np.arange(len(units))
    for axis_labels, norms in producers:
        where = position[np.clip(unit[axis_labels] - first + 1, 0, len(position) - 1)]
        mine = where >= 0
        if not mine.any():
            continue
        values, where = norms[mine], where[mine]
        spread = values.max() - values.min()
        values = (values - values.min()) / spread if spread > 0 else np.zeros_like(values)
        rows = np.bincount(where, minlength=len(units))
        total += np.bincount(where, values, minlength=len(units)) / np.maximum(rows, 1)
    return total


def order(scores: Scores) -> Ids:
    """Positions from the least important; ties: the lowest index first."""
    return np.argsort(scores, kind="stable")
