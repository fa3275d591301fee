"""How important units are: `BalancedL2Norm`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from amct_pytorch.analyse.labels import Factor
from amct_pytorch.analyse.settle import Ids
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
    found = np.asarray(norms.cpu().numpy(), np.float64)
    if not np.isfinite(found).all():
        raise ModelError(f"{name} holds NaN or infinite values: it cannot be scored; mend the weights before pruning")
    return found


def unit_scores(classes: Sequence[Ids], producers: Sequence[tuple[Factor | slice, Scores]], unit: Ids) -> Scores:
    """The score of each unit of each class, one after the other: per producer norms, min-max normalized in the class,
    the mean over a unit's rows; summed over producers.

    producers: per axis its labels and the norm of each; unit: the unit of every label.
    """
    units = np.concatenate(classes)
    class_of = _class_of(classes) if len(classes) > 1 else None
    total = np.zeros(len(units))
    first = int(units.min())
    position = np.full(int(units.max()) - first + 3, -1)  # one more at each end, for the units of others
    position[units - first + 1] = np.arange(len(units))
    for axis_labels, norms in producers:
        where = position[np.clip(unit[axis_labels] - first + 1, 0, len(position) - 1)]
        mine = where >= 0
        where = where[mine]
        values = _normalized(norms[mine], None if class_of is None else class_of[where], len(classes))
        rows = np.bincount(where, minlength=len(units))
        total += np.bincount(where, values, minlength=len(units)) / np.maximum(rows, 1)
    return total


def _normalized(values: Scores, class_of: Ids | None, count: int) -> Scores:
    """Values from 0, the lowest of their class, to 1, the highest; `class_of`: None where all are of one class."""
    if class_of is None:
        lowest, highest = values.min(), values.max()
        return np.asarray((values - lowest) / (highest - lowest if highest > lowest else 1))
    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(low, class_of, values)
    np.maximum.at(high, class_of, values)
    return np.asarray((values - low[class_of]) / np.where(high > low, high - low, 1)[class_of])


def ranked(classes: Sequence[Ids], scores: Scores) -> list[list[int]]:
    """The units of each class from the least important; ties: the lowest index first. `scores`: one after the other."""
    if len(classes) == 1:
        return [classes[0][np.argsort(scores, kind="stable")].tolist()]
    units = np.concatenate(classes)
    ordered = units[np.lexsort((scores, _class_of(classes)))]
    return [part.tolist() for part in np.split(ordered, np.cumsum([len(c) for c in classes])[:-1])]


def ranked_together(classes: Sequence[Ids], scores: Scores, kinds: Sequence[int]) -> list[list[int]]:
    """The same for the classes of each kind together; the most important unit of each class comes after all others."""
    units, class_of = np.concatenate(classes), _class_of(classes)
    kind_of = np.asarray(kinds)[class_of]
    best = np.zeros(len(units), np.bool_)
    best[np.lexsort((scores, class_of))[np.cumsum([len(c) for c in classes]) - 1]] = True
    order = np.lexsort((scores, best, kind_of))
    return [units[order[kind_of[order] == kind]].tolist() for kind in dict.fromkeys(kinds)]


def _class_of(classes: Sequence[Ids]) -> Ids:
    return np.repeat(np.arange(len(classes)), [len(c) for c in classes])
