"""Operations on tensors without data, against the same operations on data."""

from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

import amct_pytorch as amct
from amct_pytorch.analyse import shapes
from amct_pytorch.analyse.values import flatten
from amct_pytorch.inputs import map_tensors

aten = torch.ops.aten
X, Y = torch.randn(2, 4, 5, 5), torch.randn(4, 1, 1)


def on_stand_ins(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    args, kwargs = tuple(map_tensors(list(args), shapes.stand_in)), map_tensors(kwargs, shapes.stand_in)
    tensors = [t for t in flatten((args, kwargs)) if isinstance(t, torch.Tensor)]
    return shapes.run(func, func._schema.name.removeprefix("aten::"), args, kwargs, tensors, lambda t: True)


def agree(func: Any, *args: Any, **kwargs: Any) -> None:
    name = func._schema.name.removeprefix("aten::")
    real = func(*args, **kwargs)
    found = on_stand_ins(func, args, kwargs)
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


@pytest.mark.parametrize(
    ("dims", "keepdim"), [([1], False), ([2, 3], True), ([-1], False), ([0, -2], True), ([], True)]
)
def test_reductions(dims: list[int], keepdim: bool) -> None:
    for func in (aten.mean.dim, aten.sum.dim_IntList, aten.amax.default, aten.amin.default):
        agree(func, X, dims, keepdim)
    agree(aten.linalg_vector_norm.default, X, 2, dims, keepdim)
    agree(aten.linalg_vector_norm.default, X, 2, dims, keepdim, dtype=torch.float64)


def test_joins_and_moves() -> None:
    for dim in (0, 1, -1):
        agree(aten.cat.default, [X, X, X], dim)
        agree(aten.stack.default, [X, X], dim)
    agree(aten.cat.default, [X, X[:, :1], X[:, :3]], 1)
    agree(aten.cat.default, [X, X.double()], 1)
    agree(aten.cat.default, [X, torch.zeros(0)], 1)
    agree(aten.roll.default, X, [1, 2], [2, 3])
    agree(aten.flip.default, X, [1])


def test_powers_and_softmax() -> None:
    for args in ((X.abs(), 0.5), (X.abs(), Y), (2.0, X)):
        overload = "Scalar" if isinstance(args[0], float) else "Tensor_Tensor" if args[1] is Y else "Tensor_Scalar"
        agree(getattr(aten.pow, overload), *args)
    agree(aten._softmax.default, X, -1, False)
    agree(aten._safe_softmax.default, X, 1)
    agree(aten._safe_softmax.default, X, 1, torch.float64)


def test_products() -> None:
    for bias in (torch.randn(4), torch.randn(3, 4), torch.randn(1), torch.randn(3, 1)):
        agree(aten.addmm.default, bias, torch.randn(3, 5), torch.randn(5, 4), beta=0.5)
    agree(aten.mm.default, torch.randn(3, 5), torch.randn(5, 4))
    agree(aten.bmm.default, torch.randn(2, 3, 5), torch.randn(2, 5, 4))


@given(st.data())
def test_broadcasting(data: st.DataObject) -> None:
    sizes = st.lists(st.integers(1, 2), max_size=4)
    x, y = torch.empty(data.draw(sizes)), torch.empty(data.draw(sizes))
    try:
        want = torch.broadcast_shapes(x.shape, y.shape)
    except RuntimeError:
        with pytest.raises(RuntimeError):
            shapes._broadcast(x, y)
    else:
        assert shapes._broadcast(x, y) == want


@pytest.mark.parametrize("name", shapes.UPSAMPLE)
def test_upsampling(name: str) -> None:
    rank = int(name.removesuffix("_aa")[-2])
    x, size = torch.randn(2, 3, *(4, 5, 6)[:rank]), [7, 8, 9][:rank]
    agree(getattr(aten, name).default, x, size, *([] if "nearest" in name else [False]), *[None] * rank)
    agree(getattr(aten, name).vec, x, None, *([] if "nearest" in name else [False]), [2.0] * rank)


def test_norms_and_attention() -> None:
    vector = torch.ones(4)
    for training in (True, False):
        agree(aten.native_batch_norm.default, X, vector, vector, vector, vector, training, 0.1, 1e-5)
    agree(aten.native_layer_norm.default, X, [5, 5], torch.ones(5, 5), None, 1e-5)
    q, k, v = torch.randn(2, 3, 7, 8), torch.randn(2, 3, 6, 8), torch.randn(2, 3, 6, 8)
    agree(aten._scaled_dot_product_flash_attention_for_cpu.default, q, k, v)
    agree(aten.native_dropout.default, X, 0.5, True)
    plain = {"dropout_p": 0.0, "is_causal": False, "scale": None, "enable_gqa": False}
    attention = aten.scaled_dot_product_attention.default
    agree(attention, q, k, torch.randn(2, 3, 6, 4), None, **plain)
    agree(attention, q[0], k[0], v[0], torch.rand(7, 6) > 0.5, **plain)
    agree(attention, q[:, :2], k[:, :1], v[:, :1], torch.rand(2, 1, 1, 6), **{**plain, "enable_gqa": True})
    agree(aten.native_group_norm.default, X, vector, None, 2, 4, 25, 2, 1e-5)
    for dim, norms in ((0, torch.ones(2, 1, 1, 1)), (3, torch.ones(1, 1, 1, 5))):
        agree(aten._weight_norm_interface.default, X, norms, dim)
    for slope in (torch.ones(1), torch.ones(4, 1, 1), torch.ones(1, 4, 1, 1)):
        agree(aten._prelu_kernel.default, X, slope)
    agree(aten.grid_sampler_2d.default, X, torch.rand(2, 3, 7, 2), 0, 0, False)


def test_products_at_once() -> None:
    w, bias = torch.randn(6, 5), torch.randn(6)
    for x in (X, X[0, 0, 0]):
        agree(aten.linear.default, x, w, bias)
        agree(aten.linear.default, x, w)
    agree(aten.matmul.default, X, X.mT)
    agree(aten.matmul.default, X[..., :2, :], X.mT)


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("linear", [meta(2, 5), meta(6, 4)]),
        ("linear", [meta(2, 5), meta(6, 5), meta(5)]),
        ("linear", [meta(2, 5), meta(6, 5, dtype=torch.float64)]),
        ("linear", [meta(2, 5), torch.rand(6, 5)]),
        ("linear", [meta(), meta(6, 5)]),
        ("matmul", [meta(2, 4, 5), torch.rand(2, 5, 4)]),
        ("scaled_dot_product_attention", [meta(2, 3, 7, 8), meta(2, 3, 6, 4), meta(2, 3, 6, 8), None]),
        ("scaled_dot_product_attention", [meta(2, 3, 7, 8), meta(2, 3, 6, 8), meta(2, 3, 5, 8), None]),
        ("scaled_dot_product_attention", [meta(2, 4, 7, 8), meta(2, 2, 6, 8), meta(2, 2, 6, 8), None]),
        ("scaled_dot_product_attention", [meta(7, 8), meta(6, 8), meta(6, 8), meta(5, 6)]),
    ],
)
def test_what_is_left_to_torch(name: str, given: list[torch.Tensor | None]) -> None:
    """Shapes and kinds that are not those of the common case, wrong ones among them."""
    options = {"enable_gqa": False, "dropout_p": 0.0} if "attention" in name else {}
    assert shapes.RULES[name](*given, **options) is NotImplemented


def test_masks_that_have_values() -> None:
    rows, places = torch.tensor([True, False]), torch.rand(4, 5) > 0.5
    for indices in ([rows], [None, places], [None, None, places.any(0), torch.tensor([1])], [X > 0]):
        agree(aten.index.Tensor, X, indices)


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
        (aten.addmm.default, (Y, torch.randn(3, 5), torch.randn(4, 5))),
        (aten.addmm.default, (torch.randn(5), torch.randn(3, 5), torch.randn(5, 4))),
        (aten.mm.default, (torch.randn(3, 5), torch.randn(4, 5))),
        (aten.bmm.default, (torch.randn(2, 3, 5), torch.randn(3, 5, 4))),
        (aten.native_group_norm.default, (X, torch.ones(5), None, 2, 4, 25, 2, 1e-5)),
        (aten.native_group_norm.default, (X, None, None, 2, 4, 25, 3, 1e-5)),
        (aten.grid_sampler_2d.default, (X, torch.rand(3, 3, 7, 2), 0, 0, False)),
        (aten.cat.default, ([X, X[:, :, 1:]], 1)),
        (aten.stack.default, ([X, X[:, :, 1:]], 1)),
        (aten.index.Tensor, (X, [None, torch.tensor([True, False, True])])),
    ],
    ids="convolution,layer norm,product,bias,mm,bmm,group norm,groups,samples,join,stack,mask".split(","),
)
def test_what_does_not_fit_is_an_error_as_with_data(func: Any, args: tuple[Any, ...]) -> None:
    with pytest.raises((RuntimeError, IndexError)):
        func(*args)
    with pytest.raises((RuntimeError, IndexError)):
        on_stand_ins(func, args, {})


IDS, FLAGS = torch.tensor([[3, 1, 2], [0, 1, 5]]), torch.tensor([[True, False, True], [False, False, True]])


@pytest.mark.parametrize(
    ("func", "args", "kwargs"),
    [
        (aten.arange.start_step, (2, 11, 3), {"device": "cpu"}),
        (aten.ones.default, ([2, 3],), {"dtype": torch.bool}),
        (aten.full.default, ([2], 7), {}),
        (aten.eq.Scalar, (IDS, 1), {}),
        (aten.cumsum.default, (IDS, 1), {}),
        (aten.all.default, (FLAGS,), {}),
        (aten._local_scalar_dense.default, (IDS[0, 0],), {}),
        (aten.nonzero.default, (FLAGS,), {}),
        (aten.where.self, (FLAGS, IDS, -IDS), {}),
        (aten.max.dim, (IDS, 1), {}),
    ],
    ids=lambda v: v.name() if hasattr(v, "name") else "",
)
def test_integers_and_flags_are_computed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    want, got = func(*args, **kwargs), on_stand_ins(func, args, kwargs)
    pairs = zip(flatten(want), flatten(got), strict=True)
    assert all(torch.equal(torch.as_tensor(w), torch.as_tensor(g)) for w, g in pairs)


def test_what_is_made_of_integers_alone_is_computed() -> None:
    for func, args in ((aten.div.Tensor, (IDS, IDS + 1)), (aten.log.default, (IDS + 1,)), (aten.sqrt.default, (IDS,))):
        assert torch.equal(on_stand_ins(func, args, {}), func(*args))
    assert torch.equal(on_stand_ins(aten._to_copy.default, (IDS,), {"dtype": torch.float32}), IDS.float())


@pytest.mark.parametrize(
    ("func", "args"),
    [
        (aten.add.Tensor, (IDS, X[0, 0, 0, :3])),
        (aten.embedding.default, (torch.randn(6, 4), IDS)),
        (aten.zeros.default, ([2, 3],)),
        (aten.argmax.default, (X, 1)),
        (aten.cat.default, ([IDS.float(), X[0, 0, :2, :3]],)),
    ],
    ids=lambda v: v.name() if hasattr(v, "name") else "",
)
def test_what_is_not_has_no_data(func: Any, args: tuple[Any, ...]) -> None:
    got = on_stand_ins(func, args, {})
    assert got.is_meta
    assert got.shape == func(*args).shape


def test_values_that_are_not_known_are_not_written_among_those_that_are() -> None:
    with pytest.raises(RuntimeError, match="no value"):
        on_stand_ins(aten.copy_.default, (IDS, X[0, 0, 0, :3]), {})


def test_a_tensor_from_outside_is_not_written_into() -> None:
    outside = IDS.clone()
    shapes.run(aten.add_.Tensor, "add_", (outside, IDS), {}, [outside, IDS], lambda t: False)
    assert torch.equal(outside, IDS)


def test_random_integers_move_no_random_state() -> None:
    before = torch.get_rng_state()
    assert on_stand_ins(aten.randint.low, (0, 9, [4]), {}).is_meta
    assert torch.equal(torch.get_rng_state(), before)


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


class Guarded(nn.Module):
    """Clamps what is not finite, as detectors do in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        if (self.training and not torch.isfinite(y).all()) or y.isnan().any():
            y = y.clamp(-1e4, 1e4)
        return self.b(torch.where(torch.isinf(y), torch.zeros_like(y), y))


def test_what_has_no_data_counts_as_finite() -> None:
    plan = amct.plan(Guarded(), torch.randn(3, 4), amct.SparsityConfig(amct.ChannelSparsity(0.5, False)))
    assert {axis.tensor for axis in plan.removals} == {"a.weight", "a.bias", "b.weight"}
    assert not plan.summary.notes
