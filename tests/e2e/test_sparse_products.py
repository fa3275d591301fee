"""Products with sparse matrices that a forward pass makes, as layers of graphs do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import amct_pytorch as amct

CONFIG = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))
Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Graph(nn.Module):
    """As in graph attention, Velickovic et al. 2018: neighbours by a matrix of edges."""

    def __init__(self, product: Product, coalesced: bool) -> None:
        super().__init__()
        self.product, self.coalesced = product, coalesced
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        weights = torch.ones(edges.shape[1], dtype=x.dtype)
        matrix = torch.sparse_coo_tensor(edges, weights, (len(x), len(x)))
        out: torch.Tensor = self.b(self.product(matrix.coalesce() if self.coalesced else matrix, self.a(x).relu()))
        return out


@pytest.mark.parametrize("coalesced", [False, True])
@pytest.mark.parametrize("product", [torch.matmul, torch.mm, torch.sparse.mm, torch.spmm])
def test_channels_pass(product: Product, coalesced: bool) -> None:
    model = Graph(product, coalesced).double().eval()
    inputs = torch.randn(5, 6).double(), torch.randint(0, 5, (2, 9))
    plan = amct.plan(model, inputs, CONFIG)
    small = amct.apply(model, plan)
    assert small.a.weight.shape == (8, 6)
    gone = [i for i, row in enumerate(model.a.weight) if not (small.a.weight == row).all(1).any()]
    with torch.no_grad():
        model.b.weight[:, gone] = 0
    assert torch.allclose(small(*inputs), model(*inputs), rtol=1e-10, atol=1e-12)
