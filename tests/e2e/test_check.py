"""The trace check: models built to fool it come back right or unpruned, and a wrong rule or plan is caught."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import hard
import pytest
import torch
import torch.nn.functional as F
from judge import Build, between, conv, judge, net
from oracle import distance, doubled, kept_twin, ready, run
from torch import nn

import amct_pytorch as amct
from amct_pytorch.analyse.capture import Capture
from amct_pytorch.analyse.known import Call
from amct_pytorch.analyse.passes import Options
from amct_pytorch.analyse.run import analyse
from amct_pytorch.apply.shrink import shrink
from amct_pytorch.check import check
from amct_pytorch.config import ChannelSparsity
from amct_pytorch.inputs import as_arguments
from amct_pytorch.select.plan import Selector

C = conv
CONFIG = amct.SparsityConfig(ChannelSparsity(0.5, False))
FOOLING: dict[str, Build] = {
    "divided by a shape": between(lambda t: t / t.shape[1], ""),
    "times the root of a shape": between(lambda t: t * t.shape[1] ** -0.5, ""),
    "literal slice": net(lambda s, x: s.b(s.a(x)[:, :16]), "", a=lambda: C(3, 32), b=lambda: C(16, 8)),
    "slice from the middle, and the rest": net(
        lambda s, x: (lambda y: s.b(torch.cat([y[:, 8:24], y[:, :8], y[:, 24:]], 1)))(s.a(x)),
        "",
        a=lambda: C(3, 32),
        b=lambda: C(32, 8),
    ),
    "channels rolled": between(lambda t: t.roll(3, 1), ""),
    "halves swapped": between(lambda t: torch.cat(t.chunk(2, 1)[::-1], 1), ""),
    "branch on a size": between(lambda t: F.relu(t) if t.shape[1] > 8 else t, ""),
    "gate by the maximum": between(lambda t: t * torch.sigmoid(t.amax(1, keepdim=True)), ""),
    "gate by the mean": between(lambda t: t * torch.sigmoid(t.mean(1, keepdim=True)), ""),
    "mean by sum and shape": between(lambda t: t * torch.sigmoid(t.sum(1, keepdim=True) / t.shape[1]), ""),
    "shuffle": between(lambda t: t.view(2, 2, 8, 8, 8).transpose(1, 2).reshape(2, -1, 8, 8), ""),
    "shuffle, four by the rest": between(lambda t: t.view(2, 4, -1, 8, 8).transpose(1, 2).reshape(2, -1, 8, 8), ""),
    "pixel shuffle": net(lambda s, x: s.c(F.pixel_shuffle(s.a(x), 2)), "", a=lambda: C(3, 32), c=lambda: C(8, 8)),
}


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.8])
@pytest.mark.parametrize("label", FOOLING)
def test_built_to_fool(label: str, ratio: float) -> None:
    assert judge(FOOLING[label], ratio) == ""


# A wrong rule: what it gets wrong, and a network in which that matters.


def passes(capture: Capture, call: Call) -> None:
    """Any operation, taken for one that leaves channels where they are."""
    capture.put(call.out, capture.factors(call.args[0]))


def forgets(capture: Capture, call: Call) -> None:
    """Any operation, taken for one whose result holds no channels."""


def ties_nothing(capture: Capture, call: Call) -> None:
    """An addition that does not tie what it adds."""
    capture.put(call.out, capture.factors(call.args[0]))


def first_half(capture: Capture, call: Call) -> None:
    """A concatenation that takes all channels for those of its first part."""
    f = capture.factors(call.args[0][0])[0]
    n = call.out.shape[1] // f.shape[1]
    capture.put(call.out, [torch.from_numpy(f).repeat(1, n, 1, 1).numpy()])


def turned(t: torch.Tensor) -> torch.Tensor:
    """Channels in the place of rows, by strides; there are as many."""
    t = F.interpolate(t, (t.shape[1], 8))
    batch, channel, row, column = t.stride()
    return t.as_strided(t.shape, (batch, row, channel, column))


def shifted(t: torch.Tensor) -> torch.Tensor:
    """Each channel in the place of the one before; the sizes say nothing of it."""
    return t.as_strided((t.shape[0] - 1, *t.shape[1:]), t.stride(), t.stride(1))


def index_alone(capture: Capture, call: Call) -> None:
    """A look-up that takes its channels for those of its index."""
    capture.put(call.out, capture.factors(call.args[2]))


def looked_up(t: torch.Tensor) -> torch.Tensor:
    """An index as long as there are channels, into a table that has none."""
    table = torch.linspace(0, 9, 2 * 16 * 8 * 8).sin().view(2, 16, 8, 8)
    return t + table.gather(3, torch.zeros(2, t.shape[1], 8, 8, dtype=torch.long))


def values_alone(capture: Capture, call: Call) -> None:
    """Attention that holds the channels of its values, whatever its queries and keys are."""
    capture.put(call.out, capture.factors(call.args[2]))


def covered_backwards(capture: Capture, call: Call) -> None:
    """A kernel over the last dim of the input, taken for one whose first column meets the last channel."""
    x, w, bias = call.args[:3]
    inner = [f.ravel() for f in capture.factors(x) if f.shape[3] > 1]
    columns, outputs = ([f.ravel() for f in capture.factors(w) if f.shape[d] > 1] for d in (3, 0))
    capture.labels.tie(inner[0], columns[0][::-1])
    capture.labels.tie(outputs[0], capture.factors(bias)[0])
    capture.labels.produced.append(outputs[0])
    capture.put(call.out, [outputs[0].reshape(1, -1, 1, 1)])


def attention(*shape: int) -> Build:
    """`shape`: heads and their size, one of which is found."""

    def forward(s: Any, x: torch.Tensor) -> Any:
        q, k, v = (p(x).unflatten(-1, shape).transpose(1, 2) for p in (s.q, s.k, s.v))
        return s.o(F.scaled_dot_product_attention(q, k, v, scale=0.3).transpose(1, 2).flatten(2))

    parts = {name: (lambda: nn.Linear(8, 16)) for name in "qkv"}
    return net(forward, "", lambda: torch.randn(2, 5, 8), o=lambda: nn.Linear(16, 4), **parts)


WRONG: dict[str, tuple[str, Callable[..., None], Build]] = {
    "flip, passed": ("aten::flip", passes, between(lambda t: t.flip(1))),
    "cumsum, passed": ("aten::cumsum", passes, between(lambda t: t + t.sort(1)[0].flip(1) * 0)),
    "add, untied": (
        "aten::add",
        ties_nothing,
        net(lambda s, x: s.c(s.a(x) + s.b(x)), "", a=lambda: C(3, 16), b=lambda: C(3, 12 + 4), c=lambda: C(16, 8)),
    ),
    "permute, passed": ("aten::permute", passes, between(lambda t: t.permute(0, 3, 2, 1).permute(0, 3, 2, 1))),
    "cat, of its first part": (
        "aten::cat",
        first_half,
        net(
            lambda s, x: s.c(torch.cat([s.a(x), s.b(x)], 1)),
            "",
            a=lambda: C(3, 16),
            b=lambda: C(3, 16),
            c=lambda: C(32, 8),
        ),
    ),
    "as_strided, passed": ("aten::as_strided", passes, between(lambda t: turned(t))),
    "as_strided from the second channel, passed": ("aten::as_strided", passes, between(lambda t: shifted(t))),
    "gather, of its index": ("aten::gather", index_alone, between(lambda t: looked_up(t))),
    "attention, of its values": ("aten::scaled_dot_product_attention", values_alone, attention(1, -1)),
    "attention in heads, of its values": ("aten::scaled_dot_product_attention", values_alone, attention(-1, 2)),
    "convolution, of a kernel the other way round": (
        "aten::convolution",
        covered_backwards,
        net(
            lambda s, x: s.c(s.b(s.a(x).unsqueeze(1)).flatten(1)),
            "",
            lambda: torch.randn(2, 5, 6),
            a=lambda: nn.Linear(6, 16),
            b=lambda: nn.Conv2d(1, 8, (5, 16)),
            c=lambda: nn.Linear(8, 4),
        ),
    ),
    "relu, forgotten": ("aten::relu", forgets, between(F.relu)),
    "view, forgotten": ("aten::view", forgets, between(lambda t: t.view(2, 16, 64).view(2, 16, 8, 8))),
}


def right_or_whole(model: nn.Module, inputs: Any, **options: Any) -> bool:
    """Whether the pruned model equals its twin; it has to run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", amct.AmctWarning)
        small = amct.apply(model, amct.plan(model, inputs, CONFIG, **options))
    return distance(run(small, inputs), run(kept_twin(model, small), inputs)) <= 1e-10


@pytest.mark.parametrize("label", WRONG)
def test_a_wrong_rule_is_caught(label: str) -> None:
    operation, rule, build = WRONG[label]
    model, inputs, _ = build()
    assert right_or_whole(ready(model), doubled(inputs), rules={operation: rule})


def test_an_operation_that_was_right_once_is_looked_at_again() -> None:
    """The same operation, of the same shape: the rule is right about the first channels, and wrong about the second."""
    seen: list[Call] = []

    def second_is_wrong(capture: Capture, call: Call) -> None:
        seen.append(call)
        factors = capture.factors(call.args[0])
        right = [torch.from_numpy(f).roll(3, 1).numpy() for f in factors]
        capture.put(call.out, right if len(seen) == 1 else factors)

    build = net(
        lambda s, x: s.c(s.b((lambda y: y + y.roll(3, 1) * 0)(s.a(x))) + s.b(s.a(x)).roll(3, 1)),
        "",
        a=lambda: C(3, 16),
        b=lambda: C(16, 16),
        c=lambda: C(16, 8),
    )
    model, inputs, _ = build()
    assert right_or_whole(ready(model), doubled(inputs), rules={"aten::roll": second_is_wrong})
    assert len(seen) == 2  # once each: train mode takes over what eval mode found


def test_a_wrong_rule_for_roll_would_be_wrong_without_the_check() -> None:
    """The control of the controls: planned with the wrong rule and not checked, the cut model is wrong; checked, the
    group stays."""
    model, inputs, _ = between(lambda t: t + t.roll(3, 1))()
    model, inputs = ready(model), doubled(inputs)
    options = Options({"roll": passes})
    facts = analyse(model, as_arguments(inputs), options)
    unchecked = shrink(model, Selector(facts, CONFIG, model).choose().plan())
    assert unchecked.a.out_channels == 8
    assert distance(run(unchecked, inputs), run(kept_twin(model, unchecked), inputs)) > 1e-3


def test_a_size_that_is_not_seen_is_caught() -> None:
    """Nothing of the analysis knows of the scalar: the check alone holds the group."""
    model, inputs, _ = hard.PATTERNS["size as a length"]()
    facts = analyse(model.eval(), as_arguments(inputs), Options({}))
    assert Selector(facts, CONFIG, model).choose().removed
    plan = check(facts, CONFIG, model, as_arguments(inputs), Options({}))
    assert not plan.removals
    assert any("would not do the same" in left.reason for left in plan.summary.left)
    assert "16" in plan.report()


def test_other_groups_stay_in_the_plan() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = C(3, 16), C(16, 12), C(12, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.a(x)
            return self.c(F.relu(self.b(x / float(x.shape[1]))))

    plan = amct.plan(Two().eval(), (torch.randn(2, 3, 8, 8),), CONFIG)
    assert {a.tensor for a in plan.removals} == {"b.weight", "b.bias", "c.weight"}


def test_a_group_that_fails_only_in_train_mode() -> None:
    class Trained(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = C(3, 16), C(16, 12), C(12, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.a(x)
            if self.training:
                x = x / float(x.shape[1])
            return self.c(F.relu(self.b(x)))

    plan = amct.plan(Trained().eval(), (torch.randn(2, 3, 8, 8),), CONFIG)
    assert {a.tensor for a in plan.removals} == {"b.weight", "b.bias", "c.weight"}


def test_a_branch_that_train_mode_takes_only_after_the_cut() -> None:
    """Nothing in the original's passes shows it: train mode does there what eval mode does."""

    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = C(3, 16), C(16, 12), C(12, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.a(x)
            if self.training and len(range(x.shape[1])) < 16:
                x = x + 1
            return self.c(F.relu(self.b(x)))

    plan = amct.plan(Narrow().eval(), (torch.randn(2, 3, 8, 8),), CONFIG)
    assert not plan.removals
    line = f"{__file__}:{Narrow.forward.__code__.co_firstlineno + 3}"
    why = f"would not do the same: aten.add.Tensor runs instead ({line})"
    assert any(why in left.reason for left in plan.summary.left)


@pytest.mark.parametrize("together", [False, True])
def test_a_variance_needs_more_than_one_channel(together: bool) -> None:
    class Normalized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.a(x)
            apart = y.var(-1, keepdim=True), y.mean(-1, keepdim=True)
            var, mean = torch.var_mean(y, -1, keepdim=True) if together else apart
            return self.b((y - mean) / (var + 1e-5).sqrt())  # type: ignore[no-any-return]

    for ratio, width in ((0.5, 4), (0.75, 2), (0.9, 8)):
        config = amct.SparsityConfig(ChannelSparsity(ratio, False))
        plan = amct.plan(Normalized().eval(), torch.randn(4, 8), config)
        small = amct.apply(Normalized().eval(), plan)
        assert small.get_parameter("a.weight").shape[0] == width
    assert "too few elements stay for an unbiased variance" in plan.report()


def test_a_write_into_a_copy_is_none_into_the_tensor() -> None:
    """Of one channel, flatten and transpose make a view of what they copy otherwise."""

    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = C(3, 8), nn.Linear(8, 4), C(8, 4)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = self.a(x)
            tokens = F.relu(y.flatten(2).transpose(1, 2).contiguous(), inplace=True)
            return self.b(tokens), self.c(y)

    model, x = ready(Written()), (torch.randn(2, 3, 6, 6).double(),)
    for ratio, width in ((0.5, 4), (0.9, 8)):
        plan = amct.plan(model, x, amct.SparsityConfig(ChannelSparsity(ratio, False)))
        small = amct.apply(model, plan)
        assert small.get_parameter("a.weight").shape[0] == width
        assert distance(run(small, x), run(kept_twin(model, small), x)) <= 1e-10


class Counting(nn.Module):
    """Adds to a counter, and lets its value scale what it computes. `by`: how much, of the channels that it has."""

    def __init__(self, by: Callable[[Counting, torch.Tensor], int]) -> None:
        super().__init__()
        self.a, self.b = conv(3, 32), conv(32, 8)
        self.by, self.stride = by, 4
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        self.count.add_(self.by(self, y))
        out: torch.Tensor = self.b(y if self.count.item() < 1000 else -y)
        return out


@pytest.mark.parametrize(
    ("by", "left"),
    [
        (lambda model, y: 1, 16),
        (lambda model, y: model.stride, 16),  # a size of user code that stays
        (lambda model, y: 2000, 16),  # what the counter holds is known
        (lambda model, y: y.shape[1], 32),
        (lambda model, y: int(str(y.shape[1])), 32),
        (lambda model, y: 2000 if y.shape[1] < 32 else 1, 32),
    ],
)
def test_counters(by: Callable[[Counting, torch.Tensor], int], left: int) -> None:
    model, x = Counting(by).double().eval(), torch.randn(2, 3, 8, 8).double()
    plan = amct.plan(model, x, CONFIG)
    small = amct.apply(model, plan)
    assert small.get_parameter("a.weight").shape[0] == left
    assert ("after the cut" in plan.report()) == (left == 32)
    assert model.get_buffer("count") == 0  # of the caller's model
    twin = kept_twin(model, small)
    assert distance(run(small, (x,)), run(twin, (x,))) < 1e-10
    assert twin.get_buffer("count") == small.get_buffer("count") != 0 or left == 32


@pytest.mark.parametrize(("groups", "left"), [(16, 8), (8, 16), (4, 8)])
def test_norms_of_groups_keep_more_than_one_element(groups: int, left: int) -> None:
    """Of vectors: a single element less its mean is nothing. Where the original has such groups, they go."""
    model = nn.Sequential(nn.Linear(7, 16), nn.GroupNorm(groups, 16), nn.Linear(16, 3)).eval()
    plan = amct.plan(model, torch.rand(2, 7), CONFIG)
    assert amct.apply(model, plan)[0].out_features == left
    assert ("single elements would be normalized" in plan.report()) is (left == 16)
    spatial = nn.Sequential(nn.Conv2d(3, 16, 1), nn.GroupNorm(8, 16), nn.Conv2d(16, 3, 1)).eval()
    assert amct.apply(spatial, amct.plan(spatial, torch.rand(2, 3, 4, 4), CONFIG))[0].out_channels == 8
