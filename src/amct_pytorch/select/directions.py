"""Weights that are normalized: what has to stay of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from amct_pytorch.analyse.labels import Mask


def vanishes(direction: torch.Tensor, axis: int, keep: Mapping[int, Mask]) -> bool:
    """Whether of a row along `axis` nothing but zeros would stay, which has no norm to be divided by.

    keep: which indices stay, by axis.
    """
    others = tuple(d for d in range(direction.ndim) if d != axis)
    some = left = direction.detach() != 0
    for d, kept in keep.items():
        if d != axis:
            left = left.index_select(d, torch.from_numpy(kept.nonzero()[0]).to(left.device))
    gone = some.any(others) & ~left.any(others)
    if axis in keep:
        gone = gone[torch.from_numpy(keep[axis]).to(gone.device)]
    return bool(gone.any())
