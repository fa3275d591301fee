"""Operations on tensors without data, against the same operations on data."""

from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

import amct_pytorch as amct
from amct_pytorch.analyse import shapes
from amct_pytorch.inputs import map_tensors

aten = torch.ops.aten
X, Y = torch.randn(2, 4, 5, 5), torch.randn(4, 1, 1)


def agree(func: Any, *args: Any, **kwargs: Any) -> None:
    name = func._schema.name.removeprefix("aten::")
    real = func(*args, **kwargs)
    moved = map_tensors(list(args), shapes.stand_in)
    found = shapes.run(func, name, tuple(moved), map_tensors(kwargs, shapes.stand_in))
    for want, got in zip(*([o] if isinstance(o, torch.Tensor) else o for o in (real, found)), strict=False):
        if isinstance(want, torch.Tensor):
            assert (got.shape, got.dtype, got.device.type) == (want.shape, want.dtype, "meta"), name


@pytest.mark.parametrize("name", shapes.UNARY)
def test_unary(name: str) -> None:
    extra = {"clamp": (0.0,), "clamp_min": (0.0,), "clamp_max": (0.0,)}.get(name, ())
    agree(getattr(aten, name).default, X.abs(), *extra)


@pytest.mark.parametrize("name", shapes.POINTWISE)
@pytest.mark.parametrize("other", [X, Y, X.double()], ids=["same", "broadcast", "another dtype"])
def test_pointwise(name: str, other: torch.Tensor) -> None:
    func = getattr(getattr(aten, name), "default" if name in ("maximum", "minimum") else "Tensor")
    agree(func, X, other)
    agree(func, other, X)


@pytest.mark.parametrize(("dims", "keepdim"), [([1], False), ([2, 3], True), ([-1], False), ([0, -2], True)])
def test_mean(dims: list[int], keepdim: bool) -> None:
    agree(aten.mean.dim, X, dims, keepdim)


def test_norms_and_attention() -> None:
    vector = torch.ones(4)
    for training in (True, False):
        agree(aten.native_batch_norm.default, X, vector, vector, vector, vector, training, 0.1, 1e-5)
    agree(aten.native_layer_norm.default, X, [5, 5], torch.ones(5, 5), None, 1e-5)
    q, k, v = torch.randn(2, 3, 7, 8), torch.randn(2, 3, 6, 8), torch.randn(2, 3, 6, 8)
    agree(aten._scaled_dot_product_flash_attention_for_cpu.default, q, k, v)
    agree(aten.native_dropout.default, X, 0.5, True)


@given(st.data())
def test_convolutions(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3))
    groups = data.draw(st.sampled_from([1, 2]))
    small = st.lists(st.integers(1, 3), min_size=rank, max_size=rank)
    kernel, stride, dilation = data.draw(small), data.draw(small), data.draw(small)
    padding = [n - 1 for n in data.draw(small)]
    transposed = data.draw(st.booleans())
    extra = [min(s, d) - 1 for s, d in zip(stride, dilation, strict=True)] if transposed else [0] * rank
    x = torch.randn(2, 4, *data.draw(st.lists(st.integers(5, 8), min_size=rank, max_size=rank)))
    sizes = (4, 6 // groups) if transposed else (6, 4 // groups)
    w = torch.randn(*sizes, *kernel)
    assume(
        transposed
        or all(n + 2 * p > d * (k - 1) for n, p, d, k in zip(x.shape[2:], padding, dilation, kernel, strict=True))
    )
    assume(
        all(
            (n - 1) * s - 2 * p + d * (k - 1) + e + 1 > 0
            for n, s, p, d, k, e in zip(x.shape[2:], stride, padding, dilation, kernel, extra, strict=True)
        )
        or not transposed
    )
    agree(aten.convolution.default, x, w, None, stride, padding, dilation, transposed, extra, groups)


@pytest.mark.parametrize(
    ("func", "args"),
    [
        (aten.convolution.default, (X, torch.randn(6, 3, 3, 3), None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1)),
        (aten.native_layer_norm.default, (X, [4], torch.ones(4), None, 1e-5)),
    ],
    ids=["convolution", "layer norm"],
)
def test_what_does_not_fit_is_an_error_as_with_data(func: Any, args: tuple[Any, ...]) -> None:
    with pytest.raises(RuntimeError):
        func(*args)
    with pytest.raises(RuntimeError):
        shapes.run(func, func._schema.name.removeprefix("aten::"), tuple(map_tensors(list(args), shapes.stand_in)), {})


class ByDevice(nn.Module):
    """Adds the two branches on the CPU; elsewhere it takes the first alone."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        if x.device.type == "cpu" and x.is_cpu and not x.is_cuda and not x.is_meta:
            y = y + self.b(x)
        return self.c(y)


def test_a_branch_on_the_device_is_taken_as_with_data() -> None:
    config = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))
    plan = amct.plan(ByDevice(), torch.randn(3, 4), config)
    assert {axis.tensor for axis in plan.removals} == {"a.weight", "a.bias", "b.weight", "b.bias", "c.weight"}
