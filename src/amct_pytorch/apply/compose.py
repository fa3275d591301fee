"""Two plans as one: what was pruned again, told of the model that there was before the first cut."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import zip_longest

from amct_pytorch.apply.cut import cut_shape, kept_indices, kept_rows
from amct_pytorch.errors import RecordError
from amct_pytorch.record import Axis, Change, ChannelPlan, Node, PruneGroup, Removal, Setting
from amct_pytorch.report import Summary

Shape = tuple[int, ...]


def compose(first: ChannelPlan, second: ChannelPlan) -> ChannelPlan:
    """The plan that does at once what `first` does, and then `second` to the model that it made.

    Its indices, shapes and values before the cut are those of the original model. Raises RecordError where `second`
    was not made for a model that `first` made.
    """
    _check_follows(first, second)
    removals, shapes = dict(_removals(first, second)), {**second.shapes, **first.shapes}
    return ChannelPlan(
        removals={**removals, **_ended_groups(removals, shapes)},
        shapes=shapes,
        settings=_settings(first, second),
        groups=_groups(first, second),
        summary=_summary(first.summary, second.summary),
    )


def removals_by_tensor(plan: ChannelPlan) -> dict[str, dict[int, Removal]]:
    """What goes of each tensor that loses something, by axis."""
    found: dict[str, dict[int, Removal]] = {}
    for axis, removal in sorted(plan.removals.items()):
        found.setdefault(axis.tensor, {})[axis.axis] = removal
    return found


def _check_follows(first: ChannelPlan, second: ChannelPlan) -> None:
    removals = removals_by_tensor(first)
    for tensor, shape in second.shapes.items():
        if tensor in first.shapes:
            left = cut_shape(first.shapes[tensor], removals.get(tensor, {}))
            if left != shape:
                raise RecordError(
                    f"the model was pruned before, which left {tensor!r} with shape {left}, and now it is {shape}: it "
                    "was changed in between, so one record cannot tell of both; to take the model as it is for a new "
                    "original, delete its attribute _sparsity_plan"
                )
    for setting, change in second.settings.items():
        if setting in first.settings and first.settings[setting].after != change.before:
            raise RecordError(
                f"the model was pruned before, which set {setting.path} of {setting.module!r} to "
                f"{first.settings[setting].after}, and now it is {change.before}: it was changed in between"
            )


def _removals(first: ChannelPlan, second: ChannelPlan) -> Iterable[tuple[Axis, Removal]]:
    for axis in {*first.removals, *second.removals}:
        before, after = first.removals.get(axis), second.removals.get(axis)
        if before is None or after is None:
            yield axis, before or after  # type: ignore[misc]  # one of them is there
        else:
            yield axis, Removal(before.size, tuple(sorted({*before.removed, *_original(before, after.removed)})))


def _ended_groups(removals: dict[Axis, Removal], shapes: Mapping[str, Shape]) -> dict[Axis, Removal]:
    """The channels of groups that keep no row go too.

    A grouped convolution that the first cut left one channel for each group was depthwise for the second.
    """
    ended = {}
    for axis, removal in removals.items():
        rows, each = removals.get(Axis(axis.tensor, 0)), shapes[axis.tensor][1] if axis.axis == 1 else removal.size
        if rows is not None and removal.size != each:
            blocks = kept_rows(rows.size, removal.size // each, rows)
            gone = {index for index in range(removal.size) if not blocks[index // each]}
            ended[axis] = Removal(removal.size, tuple(sorted({*removal.removed, *gone})))
    return ended


def _settings(first: ChannelPlan, second: ChannelPlan) -> dict[Setting, Change]:
    settings = {**first.settings, **second.settings}
    for setting in first.settings.keys() & second.settings.keys():
        settings[setting] = Change(first.settings[setting].before, second.settings[setting].after)
    return settings


def _original(before: Removal | None, indices: Iterable[int]) -> list[int]:
    """Indices on what a removal left, as indices on what there was."""
    if before is None:
        return list(indices)
    kept = kept_indices(before)
    return [kept[index] for index in indices]


def _groups(first: ChannelPlan, second: ChannelPlan) -> tuple[PruneGroup, ...]:
    regrouped = _regrouped(first, second)
    groups = [_without(group, regrouped) for group in first.groups]
    for group in second.groups:
        if not any(node.removed for node in (*group.producers, *group.consumers)):
            continue
        group = _without(group, regrouped)
        mapped = PruneGroup(
            tuple(_mapped(first, node, _producer_axis(node)) for node in group.producers),
            tuple(_mapped(first, node, _consumer_axis(node, second)) for node in group.consumers),
        )
        place = next((place for place, old in enumerate(groups) if _is_part(mapped, old)), None)
        if place is None:
            groups.append(mapped)
        else:
            groups[place] = _merged(groups[place], mapped)
    return tuple(group for group in groups if group.producers or group.consumers)


def _regrouped(first: ChannelPlan, second: ChannelPlan) -> set[str]:
    """Convolutions that both plans cut, and that had other groups before the one than before the other: what a node
    says of them depends on their groups, so that the facts alone tell of these."""
    before, after = _grouped(first), _grouped(second)
    cut = {axis.tensor for axis in first.removals}
    return {name for name, groups in after.items() if before.get(name) != groups and f"{name}.weight" in cut}


def _grouped(plan: ChannelPlan) -> dict[str, int]:
    """Of each convolution in the groups of a plan how many groups it has; 0: one, or as many as channels."""
    nodes = (node for group in plan.groups for node in (*group.producers, *group.consumers))
    return {node.name: node.groups or 0 for node in nodes if node.type in ("Conv", "ConvTranspose")}


def _without(group: PruneGroup, names: set[str]) -> PruneGroup:
    return PruneGroup(
        tuple(node for node in group.producers if node.name not in names),
        tuple(node for node in group.consumers if node.name not in names),
    )


def _mapped(first: ChannelPlan, node: Node, axis: int) -> Node:
    before = first.removals.get(Axis(f"{node.name}.weight", axis))
    begin, last, *removed = _original(before, (node.begin, node.end - 1, *node.removed))
    return replace(node, begin=begin, end=last + 1, removed=tuple(removed))


def _producer_axis(node: Node) -> int:
    return 1 if node.type == "ConvTranspose" else 0


def _consumer_axis(node: Node, plan: ChannelPlan) -> int:
    if node.type in ("ConvTranspose", "BatchNormalization"):
        return 0
    shape = plan.shapes.get(f"{node.name}.weight", ())
    return 0 if node.type == "Conv" and len(shape) > 1 and shape[1] == 1 and node.groups is None else 1  # 0: depthwise


def _is_part(new: PruneGroup, old: PruneGroup) -> bool:
    """Whether one group speaks of the same layers as another, each in a range within the other's."""
    pairs = [
        pair
        for news, olds in ((new.producers, old.producers), (new.consumers, old.consumers))
        for pair in zip_longest(sorted(news, key=_place), sorted(olds, key=_place))
    ]
    return all(
        a is not None and b is not None and a.name == b.name and b.begin <= a.begin and a.end <= b.end for a, b in pairs
    )


def _place(node: Node) -> tuple[str, int]:
    return node.name, node.begin


def _merged(old: PruneGroup, new: PruneGroup) -> PruneGroup:
    return PruneGroup(_united(old.producers, new.producers), _united(old.consumers, new.consumers))


def _united(olds: tuple[Node, ...], news: tuple[Node, ...]) -> tuple[Node, ...]:
    added = dict(zip(sorted(olds, key=_place), sorted(news, key=_place), strict=True))
    return tuple(replace(old, removed=tuple(sorted({*old.removed, *added[old].removed}))) for old in olds)


def _summary(first: Summary, second: Summary) -> Summary:
    macs = (first.macs[0], second.macs[1]) if first.macs and second.macs else None
    return replace(second, parameters=(first.parameters[0], second.parameters[1]), macs=macs)
