"""Which units go, from facts and config; and the plan that this makes."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from amct_pytorch.analyse.equations import Equation, solve
from amct_pytorch.analyse.groups import Group, kept_labels
from amct_pytorch.analyse.labels import Factor, Mask
from amct_pytorch.analyse.run import Facts
from amct_pytorch.analyse.settle import Ids
from amct_pytorch.analyse.sizes import Dim, attributes, leaves
from amct_pytorch.analyse.unread import inside
from amct_pytorch.config import ChannelSparsity, SparsityConfig
from amct_pytorch.record import Axis, Change, ChannelPlan, Norm, Removal, Setting
from amct_pytorch.report import GroupSummary, Left, Summary
from amct_pytorch.select.counts import kept_units
from amct_pytorch.select.directions import vanishes
from amct_pytorch.select.nodes import nodes
from amct_pytorch.select.scores import Scores, filter_norms, ranked, ranked_together, unit_scores
from amct_pytorch.structure import named_modules

VANISHED = "of a row of a normalized weight, nothing but zeros would stay"
RESIDUAL = "it is a residual width, and the config leaves those (residual_width: false)"


@dataclass
class Selector:
    """The facts of one model and what is asked of its layers; remembers scores, and the groups that are to stay
    whole."""

    facts: Facts
    config: SparsityConfig
    model: nn.Module
    held: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tensors = self.facts.tensors
        self.layers = dict(named_modules(self.model))
        self.axes = _axis_labels(self.facts)  # those of an axis are consecutive
        self.repeats = _repeats(self.layers, self.axes)
        unit = self.facts.grouping.unit
        group_of = np.full(int(unit.max()) + 2 if len(unit) else 1, -1)
        for i, g in enumerate(self.facts.grouping.groups):
            group_of[np.concatenate(g.classes)] = i
        of = group_of[unit]
        self.units = {axis: unit[labels] for axis, labels in self.axes.items()}
        self.groups = {axis: of[labels] for axis, labels in self.axes.items()}
        self.whole = self._whole(of)
        self._norms: dict[Axis, Scores] = {}
        self.scored = True
        self._ordered: dict[int, list[list[int]]] = {}
        if not self.config.residual_width:
            residual = (i for i, g in enumerate(self.facts.grouping.groups) if g.residual)
            self.held.update(dict.fromkeys(residual, RESIDUAL))

    def _whole(self, of: Ids) -> dict[Axis, int]:
        """The group of each axis that has but one; `of`: that of each label."""
        if not self.axes:
            return {}
        ends = [end for labels in self.axes.values() for end in (labels.start, labels.stop)]
        of = np.append(of, -1)  # the last axis may end where the labels do
        low, high = (f.reduceat(of, ends)[::2].tolist() for f in (np.minimum, np.maximum))
        return {axis: first for axis, first, last in zip(self.axes, low, high, strict=True) if first == last}

    def choose(self) -> Choice:
        """The units that go, without groups whose sizes in user code cannot follow."""
        while True:
            removed = {i: self._removed(i, g) for i, g in enumerate(self.facts.grouping.groups) if i not in self.held}
            gone = [u for units in removed.values() for u in units]
            keep = kept_labels(self.facts.grouping.unit, gone)
            values, wrong = solve(list(self.facts.equations), keep)
            if wrong:
                self._hold(wrong, keep, {u: i for i, us in removed.items() for u in us})
                continue
            vanished = self._vanished(keep)
            if not vanished:
                values |= self._told_apart(values, keep)
                return Choice(self, {i: us for i, us in removed.items() if us}, keep, values)
            self.held |= vanished

    def _told_apart(self, values: Mapping[Setting, int], keep: Mask) -> dict[Setting, int]:
        """The values of attributes that code only finds to differ from others (`if self.width != self.width_out`), and
        which these would have now: they follow what their module has of that length, where that becomes one."""
        found = {}
        for one, two in {pair for trace in self.facts.traces for a, b in trace.apart for pair in ((a, b), (b, a))}:
            if values.get(two.setting, two.value) != one.value or any(
                one.setting in mine for _, mine in self._speaking
            ):
                continue
            of_it = (
                labels
                for axis, labels in self.axes.items()
                if labels.stop - labels.start == one.value and inside(axis.tensor, one.setting)
            )
            lengths = {int(keep[labels].sum()) for labels in of_it}
            if len(lengths) == 1 and one.value not in lengths:
                found[one.setting] = lengths.pop()
        return found

    def _vanished(self, keep: Mask) -> dict[int, str]:
        """The groups by which a normalized weight would keep nothing but zeros in a row."""
        found: dict[int, str] = {}
        for direction, axis in self.facts.magnitudes.values():
            axes = {a.axis: a for a in self.axes if a.tensor == direction}
            kept = {d: keep[self.axes[a]] for d, a in axes.items()}
            beside = [d for d in axes if d != axis and not kept[d].all()]
            t = self.tensors[direction]
            if beside and not t.is_meta and vanishes(t, axis, kept):
                lost = np.unique(np.concatenate([self.groups[axes[d]][~kept[d]] for d in beside]))
                found.update(dict.fromkeys(lost.tolist(), VANISHED))
        return found

    def _hold(self, wrong: list[Equation], keep: Mask, group_of: Mapping[int, int]) -> None:
        """The groups that an equation without a solution speaks of stay whole."""
        unit = self.facts.grouping.unit
        before = len(self.held)
        for e in wrong:
            involved, mine, known = _shrinking([e], keep), _settings(e), 0
            # Equations that share an attribute, and those that share one with them.
            while not involved and len(mine) > known:
                known = len(mine)
                sharing = [o for o, theirs in self._speaking if theirs & mine]
                involved = _shrinking(sharing, keep)
                mine = mine.union(*map(_settings, sharing))
            where = f" ({e.reason.line})" if e.reason.line else ""
            for f in involved:
                for u in np.unique(unit[f]).tolist():
                    if u in group_of:
                        self.held.setdefault(group_of[u], e.reason.text + where)
        if len(self.held) == before:
            self.held.update(dict.fromkeys(set(group_of.values()), "sizes in user code do not follow"))

    @functools.cached_property
    def _speaking(self) -> list[tuple[Equation, set[Setting]]]:
        """The equations with the settings that each speaks of."""
        return [(e, _settings(e)) for e in self.facts.equations]

    def _removed(self, index: int, group: Group) -> list[int]:
        ratio, aligned, groups = self._asked(group)
        if ratio is None:
            return []
        parts = _parts(group)
        sizes = [sum(part) for part in parts]
        shares = math.gcd(*sizes)
        base = max(sizes)
        if len(group.classes) > 1:  # of one class every unit is on every axis
            base = max(base, *(self._units_on(a, index) for a in group.producers))
        base -= base % shares
        widths = [max(self._channels_on(a, index) // base, 1) for a in group.producers] if aligned else []
        kept = kept_units(base, ratio, shares, widths, groups, rows=len(set(sizes)) == 1)
        least = max(math.ceil(len(part) * shares / sum(part)) for part in parts)  # one unit of each class stays
        kept = max(kept, least * (base // shares))
        if index not in self._ordered:
            self._ordered[index] = self._ranked(group, together=len(parts) < len(group.classes))
        return [u for c in self._ordered[index] for u in c[: len(c) - kept * len(c) // base]]

    def _units_on(self, axis: Axis, index: int) -> int:
        return len(np.unique(self.units[axis][self.groups[axis] == index]))

    def _asked(self, group: Group) -> tuple[float | None, bool, int]:
        """The smallest ratio of a group's producers; whether any asks for alignment; the groups of convolutions."""
        asked = []
        groups = 1
        for axis in group.producers:
            name, layer = owner(self.layers, axis.tensor)
            sparsity = self.config.for_layer(name, layer)
            if not isinstance(sparsity, ChannelSparsity):
                return None, False, 1
            asked.append(sparsity)
            if isinstance(layer, nn.modules.conv._ConvNd):
                groups = math.lcm(groups, layer.groups)
        skips = self.config.skip_layers or self.config.skip_types
        if skips and any(self._is_skipped(axis) for axis in group.axes):
            return None, False, 1
        return min(s.prune_ratio for s in asked), any(s.ascend_optimized for s in asked), groups

    def _is_skipped(self, axis: Axis) -> bool:
        """Whether these are the channels of a depthwise convolution that is to stay whole: others make them."""
        if axis.axis:
            return False
        name, layer = owner(self.layers, axis.tensor)
        depthwise = isinstance(layer, nn.modules.conv._ConvNd) and 1 < layer.groups == layer.in_channels
        return depthwise and self.config.skips(name, layer)

    def _channels_on(self, axis: Axis, index: int) -> int:
        return int((self.groups[axis] == index).sum())

    def _ranked(self, group: Group, together: bool) -> list[list[int]]:
        producers = [(self.axes[a], self._norm(a)) for a in group.producers]
        scores = unit_scores(group.classes, producers, self.facts.grouping.unit)
        return ranked_together(group.classes, scores, group.kinds) if together else ranked(group.classes, scores)

    def _norm(self, axis: Axis) -> Scores:
        if axis not in self._norms:
            t = self.tensors[axis.tensor]
            if t.is_meta:  # no weights: the counts are right, the choice is none
                self.scored = False
                self._norms[axis] = np.zeros(len(self.units[axis]))
                return self._norms[axis]
            self._norms[axis] = filter_norms(t, axis.axis, len(self.units[axis]), axis.tensor)
        return self._norms[axis]


@dataclass(frozen=True)
class Choice:
    """The units that go, by group; which labels stay; the new sizes in user code."""

    selector: Selector
    removed: Mapping[int, list[int]]
    keep: Mask
    values: Mapping[Setting, int]

    def plan(self) -> ChannelPlan:
        """The plan as a value; its summary without parameters and MACs."""
        s = self.selector
        removals = dict(self._removals())
        shapes = {a.tensor: tuple(s.tensors[a.tensor].shape) for a in removals}
        old = {a.setting: a.value for e in s.facts.equations for side in (e.left, e.right) for a in attributes(side)}
        old |= {a.setting: a.value for trace in s.facts.traces for pair in trace.apart for a in pair}
        settings = {k: Change(old[k], v) for k, v in self.values.items()}
        groups = tuple(nodes(s.layers, self._axes_of(i, g, removals)) for i, g in enumerate(s.facts.grouping.groups))
        named = tuple(g for g in groups if g.producers)
        magnitudes = {g: n for g, n in s.facts.magnitudes.items() if _loses_beside(removals, n)}
        return ChannelPlan(removals, shapes, settings, named, self._summary(), s.scored, magnitudes)

    def _removals(self) -> Iterator[tuple[Axis, Removal]]:
        known: dict[tuple[int, bytes], Removal] = {}  # many axes lose the same
        lost = ~self.keep
        for axis, labels in self.selector.axes.items():
            gone = lost[labels].nonzero()[0]
            if len(gone):
                times = self.selector.repeats.get(axis, 1)
                key = (labels.stop - labels.start) * times, gone.tobytes()
                if key not in known:
                    known[key] = Removal(key[0], _tiled(gone, labels.stop - labels.start, times))
                yield axis, known[key]

    def _axes_of(
        self, index: int, group: Group, removals: Mapping[Axis, Removal]
    ) -> list[tuple[Axis, bool, int, int, tuple[int, ...]]]:
        """Per axis of a group: whether its layer makes the channels, the range that is the group's, and what goes."""
        s = self.selector
        found, producers = [], set(group.producers)
        for axis in group.axes:
            if s.whole.get(axis) == index:
                size = len(s.units[axis]) * s.repeats.get(axis, 1)
                gone = removals[axis].removed if axis in removals else ()
                found.append((axis, axis in producers, 0, size, gone))
                continue
            at = (s.groups[axis] == index).nonzero()[0]
            times, size = s.repeats.get(axis, 1), len(s.units[axis])
            gone = _tiled(at[~self.keep[s.axes[axis]][at]], size, times)
            found.append((axis, axis in producers, int(at[0]), size * (times - 1) + int(at[-1]) + 1, gone))
        return found

    def _summary(self) -> Summary:
        s = self.selector
        groups, left = [], []
        for i, g in enumerate(s.facts.grouping.groups):
            layers = tuple(dict.fromkeys(_layer(s.layers, a.tensor) for a in g.producers))
            units = sum(len(c) for c in g.classes)
            if i in self.removed:
                groups.append(GroupSummary(layers, units, units - len(self.removed[i])))
            else:
                why = s.held.get(i) or self._why_whole(g)
                left.append(Left(why, layers[0], units, tuple(sorted({a.tensor for a in g.producers}))))
        for f in s.facts.grouping.frozen:
            text = f.reason.text + (f" ({f.reason.line})" if f.reason.line else "")
            tensors_ = tuple(sorted({a.tensor for a in f.axes}))
            left.append(Left(text, f.reason.module or _layer(s.layers, tensors_[0]), f.channels, tensors_))
        notes = s.facts.notes
        if not s.scored:
            notes += ("the model has no weights: the counts are right, which channels go is not chosen",)
        return Summary(tuple(groups), tuple(left), notes)

    def _why_whole(self, group: Group) -> str:
        if self.selector._asked(group)[0] is not None:
            if any(len(units) == 1 for units in group.classes):
                return "all of its channels go together, and none would stay"
            if math.gcd(*(sum(part) for part in _parts(group))) == 1:
                return "parts of it would lose the same share, and have none in common"
            return "the ratio is too small, or alignment leaves no room"
        for_some = ", or the config says nothing of it" if self.selector.config.sparsity is None else ""
        return f"a layer of the group is skipped{for_some}"


def _parts(group: Group) -> list[list[int]]:
    """The sizes of the classes, by what loses its share together: each by itself, but where classes have no share in
    common (heads in windows of 2, 3 and 3) those of a kind."""
    sizes = [len(c) for c in group.classes]
    if math.gcd(*sizes) > 1:
        return [[n] for n in sizes]
    parts: dict[int, list[int]] = {}
    for n, kind in zip(sizes, group.kinds, strict=True):
        parts.setdefault(kind, []).append(n)
    return list(parts.values())


def _loses_beside(removals: Mapping[Axis, Removal], norm: Norm) -> bool:
    """Whether a direction loses something along an axis that its norm is over."""
    return any(axis.tensor == norm.direction and axis.axis != norm.axis for axis in removals)


def owner(layers: Mapping[str, nn.Module], tensor: str) -> tuple[str, nn.Module]:
    """The layer that a parameter belongs to: that of a parametrized one, not its parametrization."""
    path = tensor.rpartition(".")[0]
    path = path.partition("parametrizations")[0].rstrip(".") if "parametrizations" in path.split(".") else path
    return path, layers[path]


def _layer(layers: Mapping[str, nn.Module], tensor: str) -> str:
    """What the report calls the layer of a parameter: of the model's own ones, the parameter."""
    return owner(layers, tensor)[0] or tensor


def _axis_labels(facts: Facts) -> dict[Axis, slice]:
    labels = facts.labels
    ends = zip(labels.axes, labels.starts, [*labels.starts, labels.count][1:], strict=True)
    return {axis: slice(start, stop) for axis, start, stop in sorted(ends) if axis.tensor}


def _repeats(layers: Mapping[str, nn.Module], axes: Mapping[Axis, slice]) -> dict[Axis, int]:
    """Grouped convolutions of which every group loses the same inputs: plans count these over all groups."""
    found = {}
    for name, layer in layers.items():
        axis = Axis(f"{name}.weight", 1)
        if isinstance(layer, nn.modules.conv._ConvNd) and layer.groups > 1 and axis in axes:
            whole = layer.out_channels if layer.transposed else layer.in_channels
            found[axis] = whole // (axes[axis].stop - axes[axis].start)
    return found


def _tiled(indices: Ids, size: int, times: int) -> tuple[int, ...]:
    if times == 1:
        return tuple(indices.tolist())
    return tuple((np.arange(times)[:, None] * size + indices).ravel().tolist())


def _settings(e: Equation) -> set[Setting]:
    return {a.setting for side in (e.left, e.right) for a in attributes(side)}


def _shrinking(equations: list[Equation], keep: Mask) -> list[Factor]:
    """The labelled dims that equations speak of and that lose something."""
    found = (leaf for e in equations for side in (e.left, e.right) for leaf in leaves(side) if isinstance(leaf, Dim))
    return [d.factor for d in found if not bool(keep[d.factor].all())]
