"""What AMCT's nodes mean for a model's tensors, and what a record says of a plan."""

import pytest
from torch import nn

from amct_pytorch.apply.resolve import check_kind, node_removals, resolve, to_record
from amct_pytorch.config import ChannelSparsity, NmSparsity, SparsityConfig
from amct_pytorch.errors import RecordError
from amct_pytorch.record import (
    Axis,
    Change,
    ChannelPlan,
    Facts,
    Node,
    PruneGroup,
    Record,
    Removal,
    SelectiveMask,
    Setting,
)


class Mine(nn.Conv2d):
    pass


def network() -> nn.Module:
    model = nn.Module()
    model.conv, model.mine = nn.Conv2d(3, 8, 3), Mine(8, 12, 3, groups=2)
    model.depthwise, model.up = nn.Conv2d(8, 16, 3, groups=8), nn.ConvTranspose2d(8, 6, 2, groups=2)
    model.bn, model.plain = nn.BatchNorm2d(8), nn.BatchNorm2d(8, affine=False)
    model.fc, model.act, model.prelu = nn.Linear(8, 5), nn.ReLU(), nn.PReLU(8)
    return model


def consumer(name: str, kind: str, end: int = 8, removed: tuple[int, ...] = (1, 6)) -> PruneGroup:
    return PruneGroup((), (Node(name, kind, 0, end, removed),))


def producer(name: str, kind: str, end: int = 8, removed: tuple[int, ...] = (1, 6)) -> PruneGroup:
    return PruneGroup((Node(name, kind, 0, end, removed),))


@pytest.mark.parametrize(
    ("group", "axes", "size"),
    [
        (producer("conv", "Conv"), [("conv.weight", 0), ("conv.bias", 0)], 8),
        (producer("conv", ""), [("conv.weight", 0), ("conv.bias", 0)], 8),  # AMCT needs no type on producers
        (producer("mine", "Conv", 12), [("mine.weight", 0), ("mine.bias", 0)], 12),
        (producer("up", "ConvTranspose", 6, (0, 3)), [("up.weight", 1), ("up.bias", 0)], 6),
        (producer("fc", "Gemm", 5, (4,)), [("fc.weight", 0), ("fc.bias", 0)], 5),
        (producer("fc", "MatMul", 5, (4,)), [("fc.weight", 0), ("fc.bias", 0)], 5),
        (consumer("conv", "Conv", 3, (0,)), [("conv.weight", 1)], 3),
        (consumer("mine", "Conv"), [("mine.weight", 1)], 8),
        (consumer("depthwise", "Conv", 16, (2, 3)), [("depthwise.weight", 0), ("depthwise.bias", 0)], 16),
        (consumer("up", "ConvTranspose"), [("up.weight", 0)], 8),
        (consumer("fc", "Gemm"), [("fc.weight", 1)], 8),
        (
            consumer("bn", "BatchNormalization"),
            [(f"bn.{n}", 0) for n in ("weight", "bias", "running_mean", "running_var")],
            8,
        ),
        (consumer("plain", "BatchNormalization"), [("plain.running_mean", 0), ("plain.running_var", 0)], 8),
        (consumer("/layer1/Add", "Add"), [], 8),
        (consumer("act", "Relu"), [], 8),
        (consumer("act", ""), [], 8),
        (consumer("conv", "Conv", 3, ()), [], 3),
    ],
)
def test_what_a_node_means(group: PruneGroup, axes: list[tuple[str, int]], size: int) -> None:
    node = (*group.producers, *group.consumers)[0]
    assert node_removals([group], network()) == {Axis(*axis): Removal(size, node.removed) for axis in axes}


def test_nodes_of_one_layer_add_up() -> None:
    groups = [PruneGroup((), (Node("fc", "Gemm", *node),)) for node in ((0, 3, (1,)), (3, 8, (4, 7)), (0, 8, (1,)))]
    assert node_removals(groups, network()) == {Axis("fc.weight", 1): Removal(8, (1, 4, 7))}


def test_tied_tensor_goes_by_its_first_name() -> None:
    model = nn.Module()
    model.embed, model.head = nn.Embedding(7, 6), nn.Linear(6, 7)
    model.head.weight = model.embed.weight
    assert node_removals([consumer("head", "Gemm", 6, (2,))], model) == {Axis("embed.weight", 1): Removal(6, (2,))}


@pytest.mark.parametrize(
    ("group", "words"),
    [
        (producer("conv1", "Conv"), ["another architecture", "'conv1'", "nearest", "conv"]),
        (producer("zzz", ""), ["another architecture", "'zzz'", "named_modules"]),
        (producer("fc", "Conv"), ["another architecture", "'fc' as Conv", "Linear"]),
        (consumer("conv", "ConvTranspose"), ["another architecture", "'conv' as ConvTranspose", "Conv2d"]),
        (consumer("up", "Conv"), ["another architecture", "ConvTranspose2d"]),
        (consumer("bn", "Gemm"), ["another architecture", "BatchNorm2d"]),
        (consumer("prelu", "PRelu"), ["another architecture", "'prelu' as PRelu", "PReLU"]),
        (producer("conv", "Conv", 9, (8,)), ["another width", "'conv' has 8", "0 to 9"]),
        (producer("conv", "Conv", 16, ()), ["another width", "'conv' has 8", "0 to 16"]),
        (consumer("mine", "Conv", 9, (1,)), ["another width", "'mine' has 8"]),
        (producer("conv", "Conv", 8, tuple(range(8))), ["at least one of 8"]),
        (consumer("mine", "Conv", 8, (1,)), ["mine.weight", "axis 1", "keep 3, 4 of their 4"]),
        (consumer("depthwise", "Conv", 16, (3,)), ["depthwise.weight", "axis 0"]),
    ],
)
def test_records_that_do_not_fit(group: PruneGroup, words: list[str]) -> None:
    with pytest.raises(RecordError) as caught:
        resolve(Record((group,), source="my.txt"), network())
    assert all(word in str(caught.value) for word in ["my.txt: ", *words]), caught.value


def test_parametrized_layer_is_named() -> None:
    model = network()
    nn.utils.parametrizations.weight_norm(model.fc)
    with pytest.raises(RecordError, match=r"'fc' computes its weight \(a parametrization\)"):
        resolve(Record((consumer("fc", "Gemm"),)), model)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (
            Facts(shapes={"conv.weight": (9, 3, 3, 3)}),
            ["another width", "'conv.weight'", "(8, 3, 3, 3)", "(9, 3, 3, 3)"],
        ),
        (Facts(shapes={"convs.weight": (8, 3, 3, 3)}), ["another architecture", "'convs.weight'", "conv.weight"]),
        (Facts(removals={Axis("fc.bias", 0): Removal(5, (0,))}), ["fc.bias", "without stating the shape"]),
        (Facts(removals={Axis("fc.bias", 1): Removal(5, (0,))}, shapes={"fc.bias": (5,)}), ["fc.bias", "axis 1"]),
        (Facts(removals={Axis("fc.bias", 0): Removal(6, (0,))}, shapes={"fc.bias": (5,)}), ["fc.bias", "6 channels"]),
        (Facts(settings={Setting("fc", "heads"): Change(4, 2)}), ["'heads' of module 'fc'"]),
        (Facts(settings={Setting("gone", "heads"): Change(4, 2)}), ["module 'gone'", "no such module"]),
        (
            Facts(removals={Axis("fc.weight", 1): Removal(8, (0,))}, shapes={"fc.weight": (5, 8)}),
            ["fc.weight, axis 1", "other channels than the facts"],
        ),
    ],
)
def test_facts_that_do_not_fit(facts: Facts, words: list[str]) -> None:
    with pytest.raises(RecordError) as caught:
        resolve(Record((consumer("fc", "Gemm"),), facts), network())
    assert all(word in str(caught.value) for word in words), caught.value


def plan(removals: dict[tuple[str, int], tuple[int, tuple[int, ...]]], *groups: PruneGroup) -> ChannelPlan:
    model = network()
    shapes = {name: tuple(model.get_parameter(name).shape) for name, _ in removals}
    return ChannelPlan({Axis(*a): Removal(*r) for a, r in removals.items()}, shapes, {}, groups)


def test_facts_hold_what_the_nodes_do_not_state() -> None:
    made = plan(
        {("fc.weight", 1): (8, (1, 6)), ("prelu.weight", 0): (8, (1, 6)), ("conv.weight", 0): (8, (1, 2, 6))},
        consumer("fc", "Gemm"),
    )
    record = to_record(made, network())
    assert record.groups == made.groups
    assert record.facts is not None
    assert record.facts.removals == {axis: made.removals[axis] for axis in made.removals if axis.tensor != "fc.weight"}
    assert record.facts.shapes == made.shapes
    assert resolve(record, network()) == made


def test_node_that_states_a_part_leaves_the_whole_to_the_facts() -> None:
    made = plan({("fc.weight", 1): (8, (1, 6, 7))}, consumer("fc", "Gemm"))
    record = to_record(made, network())
    assert record.facts is not None
    assert record.facts.removals == made.removals
    assert resolve(record, network()) == made


@pytest.mark.parametrize("removals", [{("fc.weight", 1): (8, (1, 5))}, {("conv.weight", 0): (8, (1, 6))}])
def test_node_that_contradicts_the_plan_is_left_to_the_facts(removals: dict) -> None:
    made = plan(removals, consumer("fc", "Gemm"))
    record = to_record(made, network())
    assert not any((*group.producers, *group.consumers) for group in record.groups)
    assert record.facts is not None
    assert record.facts.removals == made.removals
    assert resolve(record, network()).removals == made.removals


def test_empty_record_is_a_plan_of_nothing() -> None:
    assert resolve(Record(), network()) == ChannelPlan()


def test_kinds() -> None:
    channels, masks = SparsityConfig(ChannelSparsity(0.5)), SparsityConfig(NmSparsity(), source="my.cfg")
    of_channels = Record((consumer("fc", "Gemm", 8, ()),), source="my.txt")
    of_masks = Record(selective=(SelectiveMask("fc", (5, 8), None),))
    for record, config in ((of_channels, channels), (of_masks, masks), (Record(), channels), (Record(), masks)):
        check_kind(record, config)
    with pytest.raises(RecordError, match=r"my\.txt is a record of channel sparsity, and my\.cfg asks for 2:4"):
        check_kind(of_channels, masks)
    with pytest.raises(RecordError, match="record of 2:4 sparsity, and the config asks for channel"):
        check_kind(of_masks, channels)
    with pytest.raises(RecordError, match="channel and 2:4"):
        check_kind(Record(of_channels.groups, selective=of_masks.selective), channels)
