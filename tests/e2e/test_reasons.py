"""What stays, and what the report says of it; what the caller can teach: rules and opaque modules."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import hard
import pytest
import torch
import torch.nn.functional as F
from judge import Net, between, conv, net
from oracle import distance, doubled, kept_twin, ready, run
from torch import nn
from torch.nn.attention.flex_attention import flex_attention
from torch.utils._python_dispatch import TorchDispatchMode

import amct_pytorch as amct
from amct_pytorch.analyse.capture import Capture
from amct_pytorch.analyse.known import Call
from amct_pytorch.config import ChannelSparsity

CONFIG = amct.SparsityConfig(ChannelSparsity(0.5, False))
WHOLE = 1024


def planned(model: nn.Module, inputs: Any, **kw: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", amct.AmctWarning)
        return amct.plan(model.eval(), inputs, CONFIG, **kw)


def reasons(plan: Any) -> str:
    return "\n".join(f"{left.reason} @{left.module} #{left.channels}" for left in plan.summary.left)


class Literal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.inner, self.b = conv(3, 16), nn.Module(), conv(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        x = x.reshape(-1, 16, 64).view(x.shape)  # the literal
        return self.b(x)


def line_of(cls: type, text: str) -> str:
    lines, start = inspect.getsourcelines(cls)
    return f"{__file__}:{start + next(i for i, line in enumerate(lines) if text in line)}"


def test_a_literal_is_reported_with_file_and_line() -> None:
    plan = planned(Literal(), (torch.randn(2, 3, 8, 8),))
    assert not plan.removals
    assert line_of(Literal, "# the literal") in plan.report()
    assert "without an origin" in plan.report()
    (left,) = [left for left in plan.summary.left if "origin" in left.reason]
    assert left.channels == 16


class OfIntegers(nn.Linear):
    """Integers have no channels, and a weight that meets them keeps its own."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__(i, o)
        self.register_buffer("mask", torch.ones(o, i, dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight * self.mask)


def test_a_weight_that_meets_what_has_no_channels_is_reported() -> None:
    plan = planned(nn.Sequential(OfIntegers(8, 16), OfIntegers(16, 4)), torch.randn(2, 8))
    assert not plan.removals
    assert [(left.module, left.channels) for left in plan.summary.left] == [("0", 16), ("1", 4)]
    assert "meet a tensor that does not depend on them" in plan.report()


class Uneven(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return sum(torch.hsplit(super().forward(x), 3))  # type: ignore[return-value]


def test_uneven_parts_are_as_wrong_as_without_us() -> None:
    with pytest.raises(amct.ModelError, match="hsplit"):
        planned(Uneven(8, 16), torch.randn(2, 8))


@pytest.mark.parametrize("shape", [(32, 16), (1, 1, 32, 16), (32, 1, 4, 4)])
def test_what_nothing_uses_is_reported(shape: tuple[int, ...]) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4))
    model[1].unused = nn.Parameter(torch.randn(shape))
    plan = planned(model, torch.randn(2, 8))
    (left,) = [left for left in plan.summary.left if "no operation" in left.reason]
    assert (left.module, left.channels) == ("1", 32)


class Unknown(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.matrix_exp(x)


def test_an_unknown_operation_is_named_with_its_module_and_count() -> None:
    model, inputs, _ = net(
        lambda s, x: s.c(F.relu(s.b(s.m(s.a(x))))),
        "",
        a=lambda: conv(3, 16),
        m=Unknown,
        b=lambda: conv(16, 12),
        c=lambda: conv(12, 8),
    )()
    plan = planned(model, inputs)
    (left,) = [left for left in plan.summary.left if "linalg_matrix_exp" in left.reason]
    assert (left.module, left.channels) == ("m", 16)
    assert {a.tensor for a in plan.removals} == {"b.weight", "b.bias", "c.weight"}


@pytest.mark.parametrize(
    "fn", [lambda x: torch.frexp(x.abs() + 1)[0], lambda x: (x * 2).sinc_(), lambda x: x * torch.equal(x, x + 1)]
)
def test_operations_that_are_tagged_as_pointwise_but_give_more_or_write_are_unknown(fn: Any) -> None:
    model, inputs, _ = between(fn)()
    plan = planned(model, inputs)
    assert not plan.removals
    assert "no rule for the operation" in reasons(plan)


def test_positions_of_a_kernel_are_no_channels_that_stay() -> None:
    """A statistic of a weight speaks of all of its dims."""
    spectral = nn.utils.parametrizations.spectral_norm(conv(16, 12, bias=False))
    plan = planned(nn.Sequential(conv(3, 16), spectral, conv(12, 4)).eval(), torch.randn(2, 3, 8, 8))
    left = {item.reason.partition(",")[0]: item.channels for item in plan.summary.left}
    assert left == {"a statistic of weights is taken over it": 28, "it is an output of the network": 4}


def test_channels_that_two_layers_make_are_counted_once() -> None:
    model, inputs, _ = net(
        lambda s, x: s.c(s.m(s.a(x) + s.b(x))),
        "",
        a=lambda: conv(3, 16),
        b=lambda: conv(3, 16),
        m=Unknown,
        c=lambda: conv(16, 8),
    )()
    (left,) = [left for left in planned(model, inputs).summary.left if "linalg_matrix_exp" in left.reason]
    assert left.channels == 16


class Flexible(nn.Module):
    """Attention that takes functions, for which PyTorch has an operation of a higher order; and a feed-forward part."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.q, self.k, self.v, self.o, self.a, self.b = (nn.Linear(16, 16) for _ in range(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        mixed = flex_attention(q, k, v, score_mod=lambda score, b, h, i, j: score * (h + 1))
        x = x + self.o(mixed.transpose(1, 2).flatten(2))
        return x + self.b(torch.relu(self.a(x)))


class Orthogonal(nn.Linear):
    """Its weight goes through an operation without a rule."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, torch.linalg.matrix_exp(self.weight - self.weight.T), self.bias)


def test_an_operation_that_only_weights_reach_is_named() -> None:
    plan = planned(
        nn.Sequential(nn.Linear(6, 8), nn.ReLU(), Orthogonal(8, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(3, 6)
    )
    left = {item.reason.partition(" (")[0]: item for item in plan.summary.left}
    assert left["no rule for the operation linalg_matrix_exp"].tensors == ("2.weight",)


@pytest.mark.skipif(
    not hasattr(TorchDispatchMode, "supports_higher_order_operators"),
    reason="this torch refuses to run operations on functions in a pass, and plan says so",
)
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_an_operation_on_functions_is_named_and_the_rest_is_pruned() -> None:
    model, x = Flexible().requires_grad_(False), torch.randn(2, 5, 16)  # the operation has no gradient on CPUs
    plan = planned(model, x)
    assert "no rule for the operation flex_attention" in reasons(plan)
    small = amct.apply(model, plan)
    assert {name: p.shape[0] for name, p in small.named_parameters() if p.ndim == 2 and p.shape[0] < 16} == {
        "a.weight": 8
    }
    for row, bias in zip(model.a.weight, model.a.bias, strict=True):  # what went is zero in the original
        if not (small.get_parameter("a.weight") == row).all(1).any():
            row.zero_()
            bias.zero_()
    assert distance([small(x)], [model(x)]) < 1e-5


class Nested(nn.Module):
    """Sentences of different lengths in one nested tensor; `layout`: of it."""

    def __init__(self, layout: torch.layout) -> None:
        super().__init__()
        self.layout, self.a, self.b, self.c = layout, nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 4)

    def forward(self, sentences: list[torch.Tensor]) -> torch.Tensor:
        x = torch.nested.as_nested_tensor(
            [self.c(torch.relu(self.b(self.a(s)))) for s in sentences], layout=self.layout
        )
        return torch.stack([s.sum(0) for s in x.unbind()])


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_are_no_error(layout: torch.layout) -> None:
    model, sentences = ready(Nested(layout)), [torch.randn(3, 8).double(), torch.randn(5, 8).double()]
    model(sentences)  # PyTorch makes more tensors the first time
    small = amct.apply(model, planned(model, (sentences,)))
    assert [small.get_parameter(f"{name}.weight").shape[0] for name in "abc"] == [8, 4, 4]
    twin = kept_twin(model, small)
    assert distance([small(sentences).detach()], [twin(sentences).detach()]) < 1e-10


class NestedAttention(nn.Module):
    """Attention in sentences of different lengths, where torch makes nested tensors without a shape."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.out = nn.Linear(8, 16), nn.Linear(16, 4)
        self.q, self.k, self.v = (nn.Linear(16, 16) for _ in range(3))

    def forward(self, sentences: list[torch.Tensor]) -> torch.Tensor:
        x = torch.nested.nested_tensor([self.a(s) for s in sentences], layout=torch.jagged)
        q, k, v = (f(x).unflatten(-1, (2, 8)).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))
        return torch.stack([s.mean(0) for s in y.unbind()])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_attention_in_nested_tensors_is_no_error() -> None:
    model, sentences = ready(NestedAttention()), [torch.randn(3, 8).double(), torch.randn(5, 8).double()]
    with torch.no_grad():
        model(sentences)
        plan = planned(model, (sentences,))
        assert "no rule for the operation" in reasons(plan)
        assert amct.apply(model, plan)(sentences).shape == (2, 4)


@pytest.mark.parametrize(
    "fn",
    [
        lambda t: t.flatten(2).transpose(1, 2).reshape(t.shape),  # (positions, channels) as (channels, positions)
        lambda t: t.reshape(2, 8, 8, 16).permute(0, 3, 1, 2),  # (channels, positions) as (positions, channels)
    ],
)
def test_channels_that_change_places_with_positions_stay(fn: Any) -> None:
    """What went at one size of the image would be something else at another."""
    model, x = Net(lambda s, x: s.b(fn(s.a(x))), a=conv(3, 16), b=conv(16, 8)), torch.randn(2, 3, 8, 8)
    plan = planned(model, x)
    assert not plan.removals
    assert "positions change places" in reasons(plan)


def test_a_rule_of_the_callers() -> None:
    def pointwise(capture: Capture, call: Call) -> None:
        capture.put(call.out, capture.factors(call.args[0]))

    build = between(torch.linalg.matrix_exp)
    for key in (torch.ops.aten.linalg_matrix_exp, torch.ops.aten.linalg_matrix_exp.default, "aten::linalg_matrix_exp"):
        model, inputs, _ = build()
        model, inputs = ready(model), doubled(inputs)
        plan = planned(model, inputs, rules={key: pointwise})
        assert plan.removals
        small = amct.apply(model, plan)
        assert distance(run(small, inputs), run(kept_twin(model, small), inputs)) <= 1e-10
    assert not planned(model, inputs).removals  # no registry: the next call does not know it


def test_a_rule_that_is_none_is_refused() -> None:
    model, inputs, _ = between(F.relu)()
    with pytest.raises(amct.ModelError, match="rules"):
        amct.plan(model, inputs, CONFIG, rules={3: print})


def block() -> Net:
    model, _, _ = net(
        lambda s, x: s.c(F.relu(s.m(F.relu(s.a(x))))),
        "",
        a=lambda: conv(3, 16),
        m=lambda: nn.Sequential(conv(16, 12), nn.ReLU(), conv(12, 16)),
        c=lambda: conv(16, 8),
    )()
    return model


def test_opaque_modules_stay_whole() -> None:
    x = (torch.randn(2, 3, 8, 8),)
    assert {a.tensor.split(".")[0] for a in planned(block(), x).removals} == {"a", "m", "c"}
    for opaque in (lambda m: (m.m,), lambda m: (nn.Sequential,)):
        model = block()
        plan = planned(model, x, opaque=opaque(model))
        assert not any(a.tensor.startswith("m.") for a in plan.removals)
        assert not plan.removals
        assert "left whole" in reasons(plan)
    model = block()
    plan = planned(model, x, opaque=(model.m[1],))  # an activation: its channels stay, the others may go
    assert {a for a in plan.removals if a.tensor == "a.weight"}
    assert not any(a.tensor == "m.0.weight" and a.axis == 0 for a in plan.removals)


def test_the_output_keeps_its_width() -> None:
    model, inputs, _ = net(lambda s, x: s.b(s.a(x)), "", a=lambda: conv(3, 16), b=lambda: conv(16, 8))()
    plan = planned(model, inputs)
    assert "it is an output of the network @b #8" in reasons(plan)
    assert not any(a.tensor == "b.weight" and a.axis == 0 for a in plan.removals)


class Aux(nn.Module):
    """An auxiliary head in train mode; a layer that nothing uses; a table of integers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.aux = (
            conv(3, 16),
            conv(16, 8),
            nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4)),
        )
        self.unused = nn.Linear(16, 16)
        self.register_buffer("order", torch.arange(16))

    def forward(self, x: torch.Tensor) -> Any:
        x = F.relu(self.a(x))
        y = self.b(x)
        if self.training:
            return y, self.aux(x.mean((2, 3)))
        return y


def test_train_mode_counts_and_what_is_not_used_stays() -> None:
    model = Aux()
    small = amct.apply(model, planned(model, (torch.randn(2, 3, 8, 8),)))
    assert small.a.out_channels == small.aux[0].in_features == 8
    assert small.aux[0].out_features == small.aux[2].in_features == 6  # used in train mode only, and pruned too
    assert small.unused.weight.shape == (16, 16)
    assert torch.equal(small.order, model.order)
    y, aux = small.train()(torch.randn(2, 3, 8, 8))
    assert y.shape[1] == 8
    assert aux.shape == (2, 4)


def test_train_mode_that_cannot_run_is_told_and_freezes_what_only_it_uses() -> None:
    class Broken(Aux):
        def forward(self, x: torch.Tensor) -> Any:
            if self.training:
                raise RuntimeError("targets are missing")
            return super().forward(x)

    model = Broken()
    plan = planned(model, (torch.randn(2, 3, 8, 8),))
    assert any("targets are missing" in note for note in plan.summary.notes)
    assert not any(a.tensor == "aux.2.weight" for a in plan.removals)
    assert not any(a.tensor.startswith("aux.0") and a.axis == 0 for a in plan.removals)
    small = amct.apply(model, plan)
    assert small.aux[0].in_features == small.aux[0].weight.shape[1]


def test_nothing_goes_is_a_warning_with_the_reasons(tmp_path: Any) -> None:
    model, inputs, _ = hard.PATTERNS["divided by the width"]()
    with pytest.warns(amct.AmctWarning, match="its size is used as a number"):
        small = amct.create_prune_retrain_model(model, inputs, CONFIG, tmp_path / "record.txt")
    assert small.a.out_channels == 16
    assert (tmp_path / "record.txt").exists()


def test_a_model_without_parameters_is_an_error() -> None:
    with pytest.raises(amct.ModelError, match="no parameters of floating-point or complex numbers"):
        amct.plan(nn.ReLU(), (torch.randn(2, 3),), CONFIG)


def test_a_part_that_only_train_mode_takes_by_a_number() -> None:
    """The same operation on the same tensor as in eval mode, said by an attribute there."""

    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.half = 8
            self.a, self.b = conv(3, 16), conv(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.a(x)
            return self.b(torch.relu(x[:, :8] if self.training else x[:, : self.half]))

    plan = planned(Halves(), (torch.randn(2, 3, 8, 8),))
    assert "a size in user code without an origin" in reasons(plan)
    gone = [i for a, removal in plan.removals.items() if a.tensor.startswith("a.") for i in removal.removed]
    assert gone
    assert min(gone) >= 8  # of those that nothing takes
    assert not any(a.tensor == "b.weight" and a.axis == 1 for a in plan.removals)


class Modal(nn.Module):
    """It asks for the mode."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x if self.training else x


def test_a_batch_norm_that_cannot_train_on_the_input() -> None:
    model = nn.Sequential(conv(3, 16), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(16), nn.Conv2d(16, 8, 1))
    plan = planned(model, (torch.randn(1, 3, 8, 8),))
    assert not plan.summary.notes
    assert "0.weight" in {a.tensor for a in plan.removals}
    model.append(Modal())
    plan = planned(model, (torch.randn(1, 3, 8, 8),))
    assert any("Expected more than 1 value per channel when training" in note for note in plan.summary.notes)
    assert "0.weight" in {a.tensor for a in plan.removals}


def test_a_model_of_complex_numbers_alone_is_pruned() -> None:
    model = nn.Sequential(nn.Linear(4, 16, dtype=torch.complex64), nn.Linear(16, 3, dtype=torch.complex64))
    config = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))
    small = amct.apply(model, amct.plan(model, torch.randn(2, 4, dtype=torch.complex64), config))
    assert (small[0].out_features, small[1].in_features) == (8, 8)


def test_a_record_needs_a_path() -> None:
    config = amct.SparsityConfig(amct.ChannelSparsity(0.5))
    with pytest.raises(amct.WriteError, match="record_file: expected the path of the file to write, got None"):
        amct.create_prune_retrain_model(nn.Linear(2, 2), torch.rand(1, 2), config, None)


def attended(*more: Any, **options: Any) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        y = s.a(x)
        return s.b(F.scaled_dot_product_attention(y, y, y, *more, **options))  # type: ignore[no-any-return]

    return forward


TOKENS, IMAGES = torch.randn(2, 5, 8), torch.randn(2, 3, 8, 8)
FAILING: dict[str, tuple[torch.Tensor, Callable[[Any, torch.Tensor], torch.Tensor]]] = {
    "a mask of integers": (TOKENS, attended(torch.ones(5, 5, dtype=torch.long))),
    "a mask of another dtype": (TOKENS, attended(torch.ones(5, 5).double())),
    "a dropout above one": (TOKENS, attended(dropout_p=2.0)),
    "a norm of floats": (TOKENS, lambda s, x: s.b(F.layer_norm(s.a(x), (16.0,)))),
    "an epsilon of text": (TOKENS, lambda s, x: s.b(F.layer_norm(s.a(x), [16], None, None, "x"))),
    "a momentum of text": (IMAGES, lambda s, x: s.d(F.batch_norm(s.c(x), s.m, s.m, momentum="x"))),
    "a convolution of one dim": (IMAGES, lambda s, x: s.d(F.conv1d(x, s.c.weight))),
    "a convolution of three dims": (IMAGES, lambda s, x: s.d(F.conv3d(x, s.c.weight))),
    "three strides": (IMAGES, lambda s, x: s.d(F.conv2d(x, s.c.weight, None, (1, 1, 1)))),
    "a negative padding": (IMAGES, lambda s, x: s.d(F.conv2d(x, s.c.weight, None, 1, -1))),
    "a bias of other channels": (IMAGES, lambda s, x: s.d(F.conv2d(x, s.c.weight, torch.zeros(3)))),
    "a matrix as the bias": (IMAGES, lambda s, x: s.d(F.conv2d(x, s.c.weight, s.a.weight))),
}


@pytest.mark.parametrize("label", FAILING)
def test_what_torch_refuses_is_refused(label: str) -> None:
    """By shapes alone, too, where torch itself is not asked: the model could not run after the cut, either."""
    inputs, forward = FAILING[label]
    parts = {"a": nn.Linear(8, 16), "b": nn.Linear(16, 4), "c": nn.Conv2d(3, 16, 3), "d": nn.Conv2d(16, 4, 3)}
    model = Net(forward, **parts, m=nn.Buffer(torch.ones(16))).eval()
    with pytest.raises((RuntimeError, TypeError)):
        model(inputs)
    with pytest.raises(amct.ModelError, match="fails on input_data"):
        amct.plan(model, inputs, CONFIG)


@pytest.mark.parametrize("view", [lambda t: t.view(t.shape[0], 1024), lambda t: t.view(t.shape[0], WHOLE)])
def test_a_number_that_the_code_states_is_no_product_of_sizes(view: Callable[[torch.Tensor], torch.Tensor]) -> None:
    plan = planned(between(lambda t: view(t).view(t.shape))()[0], torch.rand(2, 3, 8, 8))
    assert "a size in user code without an origin" in reasons(plan)


def test_weights_that_nothing_else_tells_of_are_told_of() -> None:
    """Flat ones, viewed by numbers, and matrices that no layer uses as its own; not the vectors of norms."""

    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        y = x @ s.flat.view(16, 4, 2).flatten(1)
        return s.n(y) @ s.other.reshape(-1, 64).view((8, 8))  # type: ignore[no-any-return]

    parts = {n: nn.Parameter(torch.randn(*shape)) for n, shape in {"flat": (128,), "other": (64,)}.items()}
    plan = planned(Net(forward, n=nn.LayerNorm(8), **parts), torch.randn(2, 5, 16))
    told = {axis for left in plan.summary.left for axis in left.tensors}
    assert told == {"flat", "other"}
    assert not plan.removals


@pytest.mark.parametrize(
    "spread", [torch.std, torch.var, lambda y, d, keepdim: torch.std_mean(y, d, keepdim=keepdim)[0]]
)
def test_of_one_element_there_is_no_spread(spread: Any) -> None:
    """At a ratio at which one would be left."""
    model = Net(
        lambda s, x: s.b(s.a(x) / (spread(s.a(x), -1, keepdim=True) + 1)), a=nn.Linear(8, 16), b=nn.Linear(16, 4)
    )
    plan = amct.plan(model.eval(), TOKENS, amct.SparsityConfig(ChannelSparsity(0.94, False)))
    assert not plan.removals
    assert "too few elements stay for an unbiased variance" in reasons(plan)


def test_models_that_are_left_whole_have_a_plan() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    for whole in (model, nn.Linear):
        assert not planned(model, TOKENS, opaque=(whole,)).removals


def test_compiled_objects_are_arguments_like_others() -> None:
    """As packed weights of quantized layers are: what meets them stays."""
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 12), nn.Linear(12, 4)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # they are deprecated
        model[3] = torch.ao.nn.quantized.dynamic.Linear(12, 4)
    plan = planned(model, TOKENS)
    assert "no rule for the operation quantized::linear_dynamic" in reasons(plan)
    assert {a.tensor for a in plan.removals} >= {"0.weight", "0.bias"}


def scrambled(s: Any, x: torch.Tensor) -> torch.Tensor:
    y = s.a(x)
    z = y.reshape(y.shape[0], -1, s.w).transpose(1, 2)
    return z.reshape(y.shape[0], -1, y.shape[1])  # type: ignore[no-any-return]


def as_pixels(s: Any, x: torch.Tensor) -> torch.Tensor:
    y = s.a(x)
    return y.reshape(-1, y.shape[1])  # type: ignore[no-any-return]


def by_way_of_rows(s: Any, x: torch.Tensor) -> torch.Tensor:
    b, c, h, w = (y := s.a(x)).shape
    return y.flatten(1).relu().view(b, h * w, c)  # type: ignore[no-any-return]


def by_way_of_groups(s: Any, x: torch.Tensor) -> torch.Tensor:
    b, *_ = (y := s.a(x).flatten(2)).shape
    y = y.reshape(b * s.g, s.w // s.g, -1).tanh()
    return y.reshape(b, -1, s.g * (s.w // s.g))


def pixels_as_an_image(s: Any, x: torch.Tensor) -> torch.Tensor:
    b, c, h, w = (y := s.a(x)).shape
    y = torch.relu(y.permute(0, 2, 3, 1).reshape(-1, c))
    return y.view(b, -1, h, w).permute(0, 2, 3, 1)


def with_the_batch_inside(s: Any, x: torch.Tensor) -> torch.Tensor:
    b, c, *_ = (y := s.a(x)).shape
    return y.permute(1, 0, 2, 3).reshape(b, -1).view(b, -1, c)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "forward",
    [scrambled, as_pixels, by_way_of_rows, by_way_of_groups, pixels_as_an_image, with_the_batch_inside],
    ids=lambda f: f.__name__,
)
def test_channels_do_not_become_positions(forward: Callable[..., torch.Tensor]) -> None:
    """A view in the wrong order: at another size of the image, other channels would come together."""
    parts = {"a": nn.Conv2d(3, 32, 3, padding=1), "b": nn.Linear(32, 8), "w": 32, "g": 2}
    plan = planned(Net(lambda s, x: s.b(forward(s, x)), **parts), torch.randn(5, 3, 4, 4))
    assert not plan.removals
    assert "channels and positions change places" in reasons(plan)
