"""Pruned twice is pruned once by the composed plan, and its record restores from the original."""

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn

from amct_pytorch.apply.compose import compose
from amct_pytorch.apply.resolve import node_removals, resolve, to_record
from amct_pytorch.apply.shrink import carried_plan, shrink
from amct_pytorch.errors import ModelError, RecordError
from amct_pytorch.record import Axis, Change, ChannelPlan, Node, PruneGroup, Removal, Setting


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3),
        nn.BatchNorm2d(12),
        nn.Conv2d(12, 12, 1, groups=3),
        nn.Conv2d(12, 24, 2, groups=12),
        nn.ConvTranspose2d(24, 8, 1),
        nn.Flatten(),
        nn.Linear(8 * 4, 5),
    )
    model.width = 8
    return model.double().eval()


def removed(data: st.DataObject, size: int, groups: int = 1) -> tuple[int, ...]:
    """Equally many of each group, so that one stays."""
    each = size // groups
    count = data.draw(st.integers(0, each - 1))
    orders = [data.draw(st.permutations(range(each)))[:count] for _ in range(groups)]
    return tuple(sorted(group * each + index for group, order in enumerate(orders) for index in order))


def spread(indices: tuple[int, ...], factor: int) -> tuple[int, ...]:
    return tuple(index * factor + part for index in indices for part in range(factor))


def random_plan(data: st.DataObject, model: nn.Sequential) -> ChannelPlan:
    """Channels of a network that may have been cut, in AMCT's nodes."""
    a, b, c = model[0].out_channels, model[2].out_channels, model[4].out_channels
    if model[2].groups == a and data.draw(st.booleans()):
        return whole_groups(data, model)
    first, second, third = removed(data, a, 3), removed(data, b, 3), removed(data, c)
    groups = (
        PruneGroup(
            (Node("0", "Conv", 0, a, first),),
            (Node("1", "BatchNormalization", 0, a, first), Node("2", "Conv", 0, a, first, groups=3)),
        ),
        PruneGroup(
            (Node("2", "Conv", 0, b, second, groups=3),),
            (
                Node("3", "Conv", 0, 2 * b, spread(second, 2)),
                Node("4", "ConvTranspose", 0, 2 * b, spread(second, 2)),
            ),
        ),
        PruneGroup((Node("4", "ConvTranspose", 0, c, third),), (Node("6", "Gemm", 0, 4 * c, spread(third, 4)),)),
    )
    return plan_of(groups, model, Change(model.width, model.width - len(third)))


def whole_groups(data: st.DataObject, model: nn.Sequential) -> ChannelPlan:
    """Channels of a network whose grouped convolution has one channel left in each group: they go with its outputs."""
    a, rows = model[2].groups, model[2].out_channels // model[2].groups
    first = removed(data, a)
    second = spread(first, rows)
    consumers = (
        Node("1", "BatchNormalization", 0, a, first),
        Node("2", "Conv", 0, a * rows, second),
        Node("3", "Conv", 0, 2 * a * rows, spread(second, 2)),
        Node("4", "ConvTranspose", 0, 2 * a * rows, spread(second, 2)),
    )
    return plan_of((PruneGroup((Node("0", "Conv", 0, a, first),), consumers),), model, Change(model.width, model.width))


def plan_of(groups: tuple[PruneGroup, ...], model: nn.Sequential, width: Change) -> ChannelPlan:
    removals = node_removals(groups, model)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shapes = {axis.tensor: tuple(tensors[axis.tensor].shape) for axis in removals}
    return ChannelPlan(removals, shapes, {Setting("", "width"): width}, groups)


def sizes(model: nn.Module) -> list[dict[str, object]]:
    return [
        {name: value for name, value in vars(module).items() if isinstance(value, (int, tuple))}
        for module in model.modules()
    ]


@settings(max_examples=40, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(st.data())
def test_twice_is_once(data: st.DataObject) -> None:
    model = network()
    first = random_plan(data, model)
    once = shrink(model, first)
    second = random_plan(data, once)
    twice = shrink(once, second)
    both = compose(first, second)
    direct = shrink(model, both)
    assert carried_plan(twice) == carried_plan(direct) == both
    assert carried_plan(once) == first
    assert twice.state_dict().keys() == direct.state_dict().keys() == model.state_dict().keys()
    for key, value in twice.state_dict().items():
        assert torch.equal(value, direct.state_dict()[key]), key
    assert sizes(twice) == sizes(direct)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert all(tuple(tensors[name].shape) == shape for name, shape in both.shapes.items())

    record = to_record(both, twice)
    assert record == to_record(both, model)
    assert record.facts is not None
    if not is_depthwise_now(once):
        assert not record.facts.removals  # AMCT's nodes say all of it
    restored = resolve(record, model)
    assert restored == both

    # What remains computes what the original does where the consumers get nothing from what went.
    x = torch.rand(2, 3, 5, 5).double()
    with torch.no_grad():
        for axis, removal in both.removals.items():
            if axis == ("2.weight", 1):
                each = model[2].weight.shape[1]
                for index in removal.removed:
                    rows = slice(index // each * 4, index // each * 4 + 4)
                    model[2].weight[rows, index % each] = 0
            elif axis in (("4.weight", 0), ("6.weight", 1)):
                model.get_parameter(axis.tensor).index_fill_(
                    axis.axis, torch.tensor(removal.removed, dtype=torch.long), 0
                )
        torch.testing.assert_close(twice(x), model(x), rtol=1e-10, atol=1e-10)


def is_depthwise_now(model: nn.Sequential) -> bool:
    return bool(model[2].groups == model[2].in_channels)


def linear_plan(removed: tuple[int, ...], size: int, *, name: str = "a", setting: Change | None = None) -> ChannelPlan:
    return ChannelPlan(
        {Axis(f"{name}.weight", 0): Removal(size, removed)},
        {f"{name}.weight": (size, 3)},
        {} if setting is None else {Setting("", "width"): setting},
    )


def test_indices_and_values_are_the_originals() -> None:
    both = compose(
        linear_plan((1, 4), 6, setting=Change(6, 4)), linear_plan((0, 2), 4, setting=Change(4, 2))
    )  # of 0 2 3 5 go 0 and 3
    assert both.removals[Axis("a.weight", 0)] == Removal(6, (0, 1, 3, 4))
    assert both.shapes == {"a.weight": (6, 3)}
    assert both.settings == {Setting("", "width"): Change(6, 2)}


def test_a_group_of_other_layers_is_added() -> None:
    def nodes(*names: str, removed: tuple[int, ...], size: int) -> tuple[PruneGroup, ...]:
        return (PruneGroup(tuple(Node(name, "Conv", 0, size, removed) for name in names)),)

    axes = [Axis("a.weight", 0), Axis("b.weight", 0)]
    first = ChannelPlan({axes[0]: Removal(4, (1,))}, {"a.weight": (4, 3)}, {}, nodes("a", removed=(1,), size=4))
    second = ChannelPlan(
        {axis: Removal(3, (1,)) for axis in axes},
        {"a.weight": (3, 3), "b.weight": (3, 3)},
        {},
        nodes("a", "b", removed=(1,), size=3),
    )
    assert compose(first, second).groups == (
        *first.groups,
        PruneGroup((Node("a", "Conv", 0, 4, (2,)), Node("b", "Conv", 0, 3, (1,)))),
    )
    assert compose(first, ChannelPlan(groups=nodes("a", removed=(), size=3))).groups == first.groups


def test_model_that_changed_in_between() -> None:
    first = linear_plan((1, 4), 6, setting=Change(6, 4))
    with pytest.raises(RecordError, match=r"'a.weight' with shape \(4, 3\), and now it is \(5, 3\).*_sparsity_plan"):
        compose(first, linear_plan((0,), 5))
    with pytest.raises(RecordError, match="width of '' to 4, and now it is 5"):
        compose(first, linear_plan((0,), 4, setting=Change(5, 4)))


def test_a_sparse_model_takes_no_record() -> None:
    model = network()
    plan = fixed_plan(model)
    small = shrink(model, plan)
    with pytest.raises(ModelError, match=r"sparse already.*dense"):
        resolve(to_record(plan, model), small)


def fixed_plan(model: nn.Module) -> ChannelPlan:
    groups = (PruneGroup((Node("4", "ConvTranspose", 0, 8, (0, 3)),), (Node("6", "Gemm", 0, 32, spread((0, 3), 4)),)),)
    shapes = {"4.weight": (24, 8, 1, 1), "4.bias": (8,), "6.weight": (5, 32)}
    return ChannelPlan(node_removals(groups, model), shapes, {}, groups)
