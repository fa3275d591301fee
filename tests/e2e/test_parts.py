"""A projection of queries, keys and values, however it is taken apart: the same heads go."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import amct_pytorch as amct

CONFIG = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))


class Attention(nn.Module):
    """Grouped queries, Ainslie et al. 2023, of one projection"""

    def __init__(self, kv: int, group: int, sliced: bool) -> None:
        super().__init__()
        self.heads, self.kv, self.group, self.width, self.sliced = kv * group, kv, group, 8, sliced
        self.qkv, self.out = nn.Linear(20, (self.heads + 2 * kv) * 8), nn.Linear(self.heads * 8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, q, kv = self.qkv(x), self.heads * self.width, self.kv * self.width
        parts = (y[..., :q], y[..., q : q + kv], y[..., q + kv :]) if self.sliced else y.split([q, kv, kv], -1)
        queries, *others = (t.view(*x.shape[:2], -1, self.width).transpose(1, 2) for t in parts)
        keys, values = (t.repeat_interleave(self.group, 1) for t in others)
        mixed = (queries @ keys.mT * 0.3).softmax(-1) @ values
        return self.out(mixed.transpose(1, 2).reshape(*x.shape[:2], -1))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("kv", "group"), [(8, 1), (8, 2), (6, 2), (10, 4), (8, 3), (2, 4)])
def test_slices_are_as_good_as_a_split(kv: int, group: int) -> None:
    plans = []
    for sliced in (False, True):
        torch.manual_seed(0)
        plans.append(amct.plan(Attention(kv, group, sliced).eval(), torch.rand(2, 5, 20), CONFIG))
    assert plans[0].removals == plans[1].removals
    gone = {axis.tensor: len(removal.removed) for axis, removal in plans[1].removals.items() if axis.axis == 0}
    assert gone["qkv.weight"] == kv // 2 * (group + 2) * 8
